//! Models are found by what they are, have versions, and are read in place.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod aside;
mod blobs;
mod cells;
mod deletes;
mod find;
mod identity;
mod index;
mod live;
mod tensors;
mod times;
mod transactions;
mod versions;

use std::sync::Arc;

use tempfile::TempDir;
use underbelly::{Batch, Blob, CommitError, Database, MetaValue, Metadata, MetadataError, Timestamp};
use underbelly_tests::{in_memory, options};

const LARGE: usize = (1 << 20) + 7;

fn smile(desk: &str) -> Metadata {
    Metadata::new("smile").with("desk", desk).with("timestamp", Timestamp(1))
}

fn put(db: &Database, metadata: Metadata, blob: Vec<u8>) -> Result<underbelly::Commit, CommitError> {
    let mut batch = Batch::new();
    batch.put_model(metadata, blob);
    db.commit(batch)
}

fn get(db: &Database, metadata: &Metadata) -> (u64, Blob) {
    let model = db.snapshot().model(metadata).unwrap().unwrap();
    (model.info().version, model.blob().unwrap())
}

/// Timestamp, name and tags are not what a model is; everything else is, with its type, at any depth and in any
/// order.
#[test]
fn identity_is_the_rest_of_the_metadata() {
    let (_, db) = in_memory().unwrap();
    put(&db, smile("fx"), vec![1]).unwrap();
    put(&db, smile("fx").with("timestamp", Timestamp(9)).with("name", "n").with("tags", "t"), vec![2])
        .unwrap();
    assert_eq!(get(&db, &Metadata::new("smile").with("desk", "fx")).0, 2);
    let mut ids = std::collections::BTreeSet::new();
    let zero: [MetaValue; 5] =
        [MetaValue::Bool(false), 0i64.into(), 0.0f64.into(), "0".into(), MetaValue::Null];
    for value in zero {
        put(&db, smile("fx").with("shift", value), vec![3]).unwrap();
    }
    for info in db.snapshot().models() {
        assert!(ids.insert(info.id));
    }
    assert_eq!(ids.len(), 6);
    let minus = smile("fx").with("shift", -0.0f64);
    assert_eq!(minus.id().unwrap(), smile("fx").with("shift", 0.0f64).id().unwrap());
    let order =
        |names: [&str; 2]| names.into_iter().fold(smile("x"), |m, name| m.with(name, 1i64)).id().unwrap();
    assert_eq!(order(["a", "b"]), order(["b", "a"]));
}

/// Type and timestamp are needed to put, NaN is refused, and nothing is committed with what is refused.
#[test]
fn incomplete_metadata_is_refused() {
    let (_, db) = in_memory().unwrap();
    let refused = |metadata| match put(&db, metadata, vec![1]) {
        Err(CommitError::Metadata(error)) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(refused(Metadata::new("smile")), MetadataError::Timestamp));
    let untyped = Metadata::from_entries([("timestamp".to_string(), Timestamp(1).into())].into());
    assert!(matches!(refused(untyped), MetadataError::Type));
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert!(matches!(refused(smile("x").with("v", number)), MetadataError::NotFinite { .. }));
        let nested = MetaValue::List(vec![1.0.into(), number.into()]);
        assert!(matches!(refused(smile("x").with("v", nested)), MetadataError::NotFinite { .. }));
    }
    assert!(matches!(refused(smile("x").with("v", "x".repeat(70_000))), MetadataError::Size { .. }));
    let deep = (0..100).fold(MetaValue::Null, |value, _| MetaValue::List(vec![value]));
    assert!(matches!(refused(smile("x").with("v", deep)), MetadataError::Depth { .. }));
    assert!(db.snapshot().models().is_empty());
    assert!(db.snapshot().model(&smile("x")).unwrap().is_none());
}

/// Versions count up, several in one transaction too; a snapshot sees its own; reopening keeps all.
#[test]
fn versions_count_up_and_snapshots_keep_theirs() {
    let (disk, db) = in_memory().unwrap();
    let mut held = Vec::new();
    for i in 1..=10u8 {
        put(&db, smile("fx"), vec![i; 10]).unwrap();
        held.push(db.snapshot());
        if i % 4 == 0 {
            db.checkpoint().unwrap();
        }
    }
    let mut batch = Batch::new();
    batch.put_model(smile("fx"), vec![11]).put_model(smile("fx"), vec![12]);
    db.commit(batch).unwrap();
    for (i, snapshot) in held.iter().enumerate() {
        let model = snapshot.model(&smile("fx")).unwrap().unwrap();
        assert_eq!((model.info().version, &*model.blob().unwrap()), (i as u64 + 1, &[i as u8 + 1; 10][..]));
    }
    assert_eq!(get(&db, &smile("fx")), (12, vec![12].into()));
    let crashed = Database::open_on(Arc::new(disk.crash()), options()).unwrap();
    assert_eq!(get(&crashed, &smile("fx")), (12, vec![12].into()));
    db.close().unwrap();
    let db = Database::open_on(Arc::new(disk), options()).unwrap();
    assert_eq!(get(&db, &smile("fx")), (12, vec![12].into()));
    put(&db, smile("fx"), vec![13]).unwrap();
    assert_eq!(get(&db, &smile("fx")).0, 13);
}

/// A transaction sees its own version with the number that it will have.
#[test]
fn a_transaction_sees_its_own_versions() {
    let (_, db) = in_memory().unwrap();
    put(&db, smile("fx"), vec![1]).unwrap();
    db.transact::<_, CommitError>(|tx| {
        tx.put_model(smile("fx"), vec![2])?;
        tx.put_model(smile("fx"), vec![3])?;
        let model = tx.model(&smile("fx"))?.unwrap();
        assert_eq!((model.info().version, &*model.blob().unwrap()), (3, &[3][..]));
        Ok(())
    })
    .unwrap();
    assert_eq!(get(&db, &smile("fx")), (3, vec![3].into()));
}

/// Equal bytes are stored once, whoever puts them, small or large, at the same time or later.
#[test]
fn equal_bytes_are_stored_once() {
    let (disk, db) = in_memory().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let db = &db;
            scope.spawn(move || {
                for i in 0..3 {
                    put(db, smile(&format!("d{thread}{i}")), vec![7; LARGE]).unwrap();
                    put(db, smile(&format!("s{thread}{i}")), vec![7; 100]).unwrap();
                }
            });
        }
    });
    // The second lets go of files that the log names and the checkpoint before the first may have needed.
    db.checkpoint().unwrap();
    db.checkpoint().unwrap();
    assert_eq!(db.snapshot().models().len(), 24);
    assert_eq!(db.status().objects, 2);
    let chunks = || disk.files().iter().filter(|name| name.starts_with("chunks/")).count();
    assert_eq!(chunks(), 1, "{:?}", disk.files());
    let crashed = Database::open_on(Arc::new(disk.crash()), options()).unwrap();
    assert_eq!(crashed.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
    put(&db, smile("later"), vec![7; LARGE]).unwrap();
    assert_eq!(chunks(), 1);
    assert_eq!(&*get(&db, &smile("d00")).1, vec![7; LARGE]);
}

/// The same where the log replays what several threads wrote at once, before any checkpoint.
#[test]
fn equal_large_bytes_of_several_threads_are_replayed() {
    let (disk, db) = in_memory().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let db = &db;
            scope.spawn(move || put(db, smile(&format!("d{thread}")), vec![7; LARGE]).unwrap());
        }
    });
    let crashed = Database::open_on(Arc::new(disk.crash()), options()).unwrap();
    for db in [db, crashed] {
        for thread in 0..4 {
            assert_eq!(&*get(&db, &smile(&format!("d{thread}"))).1, vec![7; LARGE]);
        }
        assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
        db.close().unwrap();
    }
}

/// After a checkpoint blobs are read in place from mapped files, large ones from their commit on; they stay valid
/// after newer versions, checkpoints, the close and the removal of the whole folder.
#[test]
fn blobs_are_read_in_place_and_stay_valid() {
    let dir = TempDir::new().unwrap();
    let db = Database::create_with(dir.path(), options()).unwrap();
    put(&db, smile("small"), vec![1; 5_000]).unwrap();
    put(&db, smile("large"), vec![2; LARGE]).unwrap();
    assert!(get(&db, &smile("large")).1.is_mapped());
    db.checkpoint().unwrap();
    assert!(get(&db, &smile("small")).1.is_mapped());
    db.close().unwrap();
    let db = Database::open_with(dir.path(), options()).unwrap();
    let (small, large) = (get(&db, &smile("small")).1, get(&db, &smile("large")).1);
    assert!(small.is_mapped() && large.is_mapped());
    for i in 0..5 {
        put(&db, smile("small"), vec![10 + i; 100]).unwrap();
        put(&db, smile("large"), vec![10 + i; LARGE]).unwrap();
        db.checkpoint().unwrap();
    }
    db.close().unwrap();
    std::fs::remove_dir_all(dir.path()).unwrap();
    assert!(small.iter().all(|byte| *byte == 1) && small.len() == 5_000);
    assert!(large.iter().all(|byte| *byte == 2) && large.len() == LARGE);
}

/// Blobs of length zero and of just the size at which files begin.
#[test]
fn blobs_of_all_sizes() {
    let dir = TempDir::new().unwrap();
    // Log files as large as by default, so that the largest blob that fits into the log does.
    let db = Database::create(dir.path()).unwrap();
    let sizes = [0, 1, 4_095, 4_096, (1 << 20) - 1, 1 << 20, (1 << 20) + 1];
    for size in sizes {
        put(&db, smile(&size.to_string()), vec![5; size]).unwrap();
    }
    let check = |db: &Database| {
        for size in sizes {
            let blob = get(db, &smile(&size.to_string())).1;
            assert!(blob.len() == size && blob.iter().all(|byte| *byte == 5));
        }
    };
    check(&db);
    drop(db);
    let db = Database::open(dir.path()).unwrap();
    check(&db);
    db.close().unwrap();
    check(&Database::open(dir.path()).unwrap());
}
