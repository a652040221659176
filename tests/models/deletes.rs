//! Deleted models are gone for good, and stay for whoever looks at an older snapshot.

use std::sync::Arc;

use underbelly::{Batch, CommitError, Database, MetaValue, Metadata, Model, Snapshot, Timestamp, Where};
use underbelly_tests::{in_memory, options};

use crate::find::{LONG, indexed};

fn metadata(number: i64) -> Metadata {
    Metadata::new("m").with("number", number).with("timestamp", Timestamp(number))
}

fn commit(db: &Database, make: impl FnOnce(&mut Batch)) -> u64 {
    let mut batch = Batch::new();
    make(&mut batch);
    db.commit(batch).unwrap().seq
}

fn put(db: &Database, number: i64, blob: Vec<u8>) -> u64 {
    commit(db, |batch| {
        batch.put_model(metadata(number), blob);
    })
}

fn delete(db: &Database, number: i64) -> u64 {
    commit(db, |batch| {
        batch.delete_model(&Metadata::new("m").with("number", number)).unwrap();
    })
}

/// Version and first byte of a model.
fn seen(snapshot: &Snapshot, number: i64) -> Option<(u64, u8)> {
    let model: Option<Model> = snapshot.model(&metadata(number)).unwrap();
    model.map(|model| (model.info().version, model.blob().unwrap()[0]))
}

/// Older snapshots see the versions that were there, through checkpoints; a new model begins with version 1; and so it
/// stays after a crash and after openings from the image alone.
#[test]
fn deleted_models_are_gone_and_older_snapshots_still_see_them() {
    let (disk, db) = in_memory().unwrap();
    (1..=3).for_each(|byte| {
        put(&db, 0, vec![byte; 400]);
    });
    put(&db, 1, vec![9; 400]);
    let before = db.snapshot();
    let stored = db.checkpoint().unwrap();
    delete(&db, 0);
    delete(&db, 7);
    let without = db.snapshot();
    put(&db, 0, vec![4; 400]);
    let anew = db.snapshot();
    delete(&db, 0);
    put(&db, 0, vec![5; 400]);
    put(&db, 0, vec![6; 400]);
    for _ in 0..3 {
        assert_eq!((seen(&before, 0), seen(&before, 1)), (Some((3, 3)), Some((1, 9))));
        assert_eq!((seen(&without, 0), without.models().len()), (None, 1));
        assert_eq!((seen(&anew, 0), anew.models().len()), (Some((1, 4)), 2));
        assert_eq!((seen(&db.snapshot(), 0), db.counts().models), (Some((2, 6)), 2));
        let checkpoint = db.checkpoint().unwrap();
        assert!(checkpoint.records < stored.records + 9);
    }
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
    let crashed = Database::open_on(Arc::new(disk.crash()), options()).unwrap();
    assert_eq!((seen(&crashed.snapshot(), 0), crashed.counts().models), (Some((2, 6)), 2));
    drop((before, without, anew));
    delete(&db, 0);
    db.close().unwrap();
    let db = Database::open_on(Arc::new(disk.clone()), options()).unwrap();
    assert_eq!((seen(&db.snapshot(), 0), seen(&db.snapshot(), 1)), (None, Some((1, 9))));
    assert_eq!((db.counts().models, db.counts().objects), (1, 1));
    put(&db, 0, vec![7]);
    assert_eq!(seen(&db.snapshot(), 0), Some((1, 7)));
    let reader = Database::open_read_only_on(Arc::new(disk)).unwrap();
    assert_eq!(seen(&reader.snapshot(), 0), Some((1, 7)));
}

/// Blobs that only deleted models had are forgotten once no reader sees them, those in packs, in files of their own and
/// in memory; one that another model has stays.
#[test]
fn the_space_of_deleted_models_comes_back() {
    let (disk, db) = in_memory().unwrap();
    let shared = vec![1; 5_000];
    let large = |byte: u8| vec![byte; (1 << 20) + 5];
    put(&db, 0, large(2));
    put(&db, 0, vec![3; 9_000]);
    put(&db, 0, vec![4; 9_000]);
    put(&db, 0, shared.clone());
    put(&db, 1, shared.clone());
    db.checkpoint().unwrap();
    put(&db, 0, large(4));
    put(&db, 0, vec![5; 9_000]);
    assert_eq!(db.counts().objects, 6);
    let before = db.snapshot();
    delete(&db, 0);
    db.checkpoint().unwrap();
    db.checkpoint().unwrap();
    assert_eq!((seen(&before, 0), db.counts().objects), (Some((6, 5)), 6));
    drop(before);
    // What two manifests name is kept, and no more.
    (0..3).for_each(|_| {
        db.checkpoint().unwrap();
    });
    assert_eq!(db.counts().objects, 1);
    let bytes = |folder: &str| {
        let files = disk.files().into_iter().filter(|file| file.starts_with(folder));
        files.map(|file| disk.contents(&file).unwrap().len()).sum::<usize>()
    };
    assert_eq!(bytes("chunks/"), 0);
    assert!((5_000..6_000).contains(&bytes("packs/")), "{} bytes in packs", bytes("packs/"));
    assert_eq!(db.snapshot().model(&metadata(1)).unwrap().unwrap().blob().unwrap()[..], shared[..]);
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
}

/// A deletion takes away what its batch put before it, and not what it puts after it.
#[test]
fn puts_and_deletions_of_a_batch_count_in_their_order() {
    let (_, db) = in_memory().unwrap();
    put(&db, 0, vec![1]);
    let id = metadata(0);
    commit(&db, |batch| {
        batch.put_model(id.clone(), vec![2]).delete_model(&id).unwrap();
    });
    assert_eq!(seen(&db.snapshot(), 0), None);
    commit(&db, |batch| {
        batch.put_model(id.clone(), vec![3]).put_model(metadata(1), vec![4]).delete_model(&id).unwrap();
        batch.put_model(id.clone(), vec![5]).put_model(id.clone(), vec![6]);
    });
    assert_eq!(seen(&db.snapshot(), 0), Some((2, 6)));
    commit(&db, |batch| {
        batch.delete_model(&id).unwrap().put_model(id.clone(), vec![7]);
    });
    assert_eq!((seen(&db.snapshot(), 0), seen(&db.snapshot(), 1)), (Some((1, 7)), Some((1, 4))));
    let mut refused = Batch::new();
    assert!(matches!(refused.delete_model(&id.with("x", f64::NAN)), Err(CommitError::Metadata(_))));
    assert!(refused.is_empty());
}

/// A transaction sees its own deletions, numbers versions anew behind them, and conflicts with those of others.
#[test]
fn transactions_see_deletions() {
    let (_, db) = in_memory().unwrap();
    put(&db, 0, vec![1]);
    put(&db, 0, vec![2]);
    db.transact(|tx| {
        tx.delete_model(&metadata(0))?;
        assert!(tx.model(&metadata(0))?.is_none());
        tx.put_model(metadata(0), vec![3])?;
        assert_eq!(tx.model(&metadata(0))?.unwrap().info().version, 1);
        Ok::<_, CommitError>(())
    })
    .unwrap();
    assert_eq!(seen(&db.snapshot(), 0), Some((1, 3)));
    let mut runs = 0;
    let found = db.transact(|tx| {
        runs += 1;
        let found = tx.model(&metadata(0))?.is_some();
        if runs == 1 {
            delete(&db, 0);
        }
        tx.put_model(metadata(1), vec![u8::from(found)])?;
        Ok::<_, CommitError>(found)
    });
    assert_eq!((found.unwrap(), runs), (false, 2));
    assert_eq!(seen(&db.snapshot(), 1), Some((1, 0)));
}

/// The index of attributes forgets deleted models, snapshots older than the deletion still find them by it, and it is
/// put away and taken up again.
#[test]
fn the_index_forgets_deleted_models() {
    let dir = tempfile::TempDir::new().unwrap();
    let db = Database::create_with(dir.path(), indexed()).unwrap();
    (0..40).for_each(|number| {
        put(&db, number, vec![number as u8; 3_000]);
    });
    assert!(db.wait_index(LONG));
    let keys = db.status().index.keys;
    let before = db.snapshot();
    (0..40).filter(|number| number % 4 == 0).for_each(|number| {
        delete(&db, number);
    });
    put(&db, 4, vec![0]);
    let after = db.snapshot();
    let found = |snapshot: &Snapshot| {
        let found = snapshot.find_models_where(&Where::between("number", 0i64..10)).unwrap();
        let numbers = found.iter().map(|info| match info.metadata().entries().get("number") {
            Some(MetaValue::I64(number)) => *number,
            other => panic!("{other:?}"),
        });
        let mut numbers: Vec<i64> = numbers.collect();
        numbers.sort_unstable();
        numbers
    };
    let whole: Vec<i64> = (0..10).collect();
    for _ in 0..2 {
        // Before and after the index has moved past the deletions.
        assert_eq!((found(&before), found(&after)), (whole.clone(), vec![1, 2, 3, 4, 5, 6, 7, 9]));
        assert_eq!(before.models().len(), 40);
        assert!(db.wait_index(LONG));
    }
    assert_eq!(db.status().index.keys, keys * 31 / 40);
    drop((before, after));
    // A checkpoint asks an index that lags behind to move on, so that the space comes back.
    delete(&db, 4);
    db.checkpoint().unwrap();
    assert!(db.wait_index(LONG));
    (0..3).for_each(|_| {
        db.checkpoint().unwrap();
    });
    assert_eq!(db.counts().objects, 30);
    db.close().unwrap();
    let db = Database::open_with(dir.path(), indexed()).unwrap();
    assert_eq!(found(&db.snapshot()), [1, 2, 3, 5, 6, 7, 9]);
    assert!(db.wait_index(LONG));
    assert_eq!(found(&db.snapshot()), [1, 2, 3, 5, 6, 7, 9]);
    assert_eq!(db.status().index.set_aside, Vec::<String>::new());
}
