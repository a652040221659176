//! What is not durable is not shown: a disk whose syncs fail stands for a writer between its write and its sync.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use underbelly::disk::{Act, RealDisk};
use underbelly::{CommitError, Database, FaultyDisk, OpenError, WalError};
use underbelly_tests::{define, options, transaction, transactions_shown};

/// Three durable transactions and one that was written and not synced, behind a writer that lives or not.
fn written_and_not_synced(dir: &Path) -> Database {
    let disk = Arc::new(FaultyDisk::new(RealDisk::new(dir)));
    let db = Database::create_on(disk.clone(), options()).unwrap();
    define(&db).unwrap();
    for i in 1..4 {
        db.commit(transaction(i, false).unwrap()).unwrap();
    }
    disk.watch(|call| match call.act {
        Act::Sync => Err(io::Error::other("the disk does not answer")),
        _ => Ok(()),
    });
    let failed = db.commit(transaction(4, false).unwrap());
    assert!(matches!(failed, Err(CommitError::Log(WalError::Poisoned { .. }))));
    db
}

fn shown(dir: &Path) -> u64 {
    let reader = Database::open_read_only(dir).unwrap();
    transactions_shown(&reader.snapshot(), |_| false).unwrap()
}

#[test]
fn what_is_written_and_not_synced_is_shown_by_nobody_but_a_recovery() {
    let _alone = crate::alone();
    let dir = TempDir::new().unwrap();
    let writer = written_and_not_synced(dir.path());
    let mut reader = Database::open_read_only(dir.path()).unwrap();
    assert_eq!(shown(dir.path()), 3, "the writer lives");
    drop(writer);
    assert_eq!(shown(dir.path()), 3, "the writer is gone");
    assert_eq!(reader.refresh().unwrap(), reader.seq());
    assert_eq!(transactions_shown(&reader.snapshot(), |_| false).unwrap(), 3);
    // Recovery makes the whole batch durable and says so.
    let recovered = Database::open_with(dir.path(), options()).unwrap();
    assert_eq!(shown(dir.path()), 4);
    reader.refresh().unwrap();
    assert_eq!(transactions_shown(&reader.snapshot(), |_| false).unwrap(), 4);
    drop(recovered);
}

#[test]
fn after_the_machine_was_started_anew_all_whole_batches_are_durable() {
    let _alone = crate::alone();
    let dir = TempDir::new().unwrap();
    drop(written_and_not_synced(dir.path()));
    let shared = dir.path().join("SHARED");
    let told = std::fs::read(&shared).unwrap();
    std::fs::remove_file(&shared).unwrap();
    assert_eq!(shown(dir.path()), 4, "nothing of the file reached the disk");
    std::fs::write(&shared, vec![0; told.len()]).unwrap();
    assert_eq!(shown(dir.path()), 4, "its length alone did");
    let mut other_boot = told.clone();
    other_boot[32] ^= 0xff;
    std::fs::write(&shared, &other_boot).unwrap();
    let damaged = Database::open_read_only(dir.path()).map(|_| ()).unwrap_err().to_string();
    assert!(damaged.contains("SHARED") && damaged.contains("for writing once"), "{damaged}");
    std::fs::write(&shared, &told).unwrap();
    assert_eq!(shown(dir.path()), 3, "the same start of the machine");
}

#[test]
fn durable_rows_that_the_log_lost_are_missed() {
    let _alone = crate::alone();
    let dir = TempDir::new().unwrap();
    let db = Database::create_with(dir.path(), options()).unwrap();
    define(&db).unwrap();
    for i in 1..4 {
        db.commit(transaction(i, false).unwrap()).unwrap();
    }
    drop(db);
    let wal = dir.path().join("wal/0000000001.wal");
    let mut bytes = std::fs::read(&wal).unwrap();
    bytes[3 * 4096..].fill(0);
    std::fs::write(&wal, &bytes).unwrap();
    match Database::open_read_only(dir.path()).map(|_| ()) {
        Err(OpenError::Log(WalError::Corrupt { file, seq, .. })) => {
            assert_eq!((file.as_str(), seq), ("wal/0000000001.wal", 4));
        }
        other => panic!("{other:?}"),
    }
}
