//! One writer; folders that are no database; settings that cannot work.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;

use tempfile::TempDir;
use underbelly::{Database, OpenError, Options};
use underbelly_tests::options;

/// A second opening in the same process is refused and names this process; after closing it is granted.
#[test]
fn a_second_writer_in_this_process_is_refused() {
    let _alone = crate::alone();
    let dir = TempDir::new().unwrap();
    let db = Database::create_with(dir.path(), options()).unwrap();
    match Database::open_with(dir.path(), options()) {
        Err(OpenError::Locked { pid, .. }) => assert_eq!(pid, std::process::id()),
        other => panic!("{:?}", other.err()),
    }
    let clone = db.clone();
    db.close().unwrap();
    drop(clone);
    let db = Database::open_with(dir.path(), options()).unwrap();
    drop(db);
    Database::open_with(dir.path(), options()).unwrap();
}

/// A database that another process holds is refused with that process's id, and granted once it is gone.
#[test]
fn a_second_writer_in_another_process_is_refused() {
    let _alone = crate::alone();
    let dir = TempDir::new().unwrap();
    Database::create_with(dir.path(), options()).unwrap().close().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_holder"))
        .arg(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "open"), "the holder did not open the database");
    match Database::open_with(dir.path(), options()) {
        Err(OpenError::Locked { pid, .. }) => assert_eq!(pid, child.id()),
        other => panic!("{:?}", other.err()),
    }
    child.kill().unwrap();
    child.wait().unwrap();
    Database::open_with(dir.path(), options()).unwrap();
}

/// Nothing is made where something is, and nothing is opened where nothing is.
#[test]
fn folders_that_do_not_fit_are_refused() {
    let _alone = crate::alone();
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("db");
    assert!(matches!(Database::open_with(&path, options()), Err(OpenError::NotFound { .. })));
    assert!(!path.exists(), "looking for a database made a folder");
    Database::create_with(&path, options()).unwrap().close().unwrap();
    assert!(matches!(Database::create_with(&path, options()), Err(OpenError::Exists { .. })));
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    assert!(matches!(Database::open_with(&other, options()), Err(OpenError::NotFound { .. })));
    assert_eq!(std::fs::read_dir(&other).unwrap().count(), 0, "looking for a database left files");
    std::fs::write(other.join("notes.txt"), "mine").unwrap();
    match Database::create_with(&other, options()) {
        Err(OpenError::NotEmpty { found, .. }) => assert_eq!(found, "notes.txt"),
        result => panic!("{:?}", result.err()),
    }
}

/// A setting that cannot work is named with its remedy.
#[test]
fn settings_that_cannot_work_are_refused() {
    let _alone = crate::alone();
    let dir = TempDir::new().unwrap();
    let refused = |change: fn(&mut Options)| {
        let mut options = options();
        change(&mut options);
        match Database::create_with(dir.path(), options) {
            Err(OpenError::Option { option, remedy, .. }) => {
                assert!(!remedy.is_empty());
                option
            }
            other => panic!("{:?}", other.err()),
        }
    };
    assert_eq!(refused(|o| o.log_file_bytes = 0), "log_file_bytes");
    assert_eq!(refused(|o| o.log_file_bytes = 65_537), "log_file_bytes");
    assert_eq!(refused(|o| o.log_file_bytes = u64::MAX - 4095), "log_file_bytes");
    assert_eq!(refused(|o| o.workers = usize::MAX), "workers");
    assert_eq!(refused(|o| o.chunk_bytes = 0), "chunk_bytes");
    assert_eq!(refused(|o| o.chunk_bytes = 4_097), "chunk_bytes");
    assert_eq!(refused(|o| o.chunk_bytes = (16 << 20) + 4_096), "chunk_bytes");
    assert!((4 << 20..=16 << 20).contains(&underbelly::Options::default().chunk_bytes));
    Database::create_with(dir.path(), options()).unwrap();
}

/// After closing, every other handle answers that the database is closed and writes nothing, snapshots go on
/// reading, and another owner is not disturbed by what is dropped late.
#[test]
fn a_closed_database_is_left_alone() {
    use underbelly::CommitError;
    use underbelly_tests::{define, shown, transaction, transactions_shown};
    let _alone = crate::alone();
    let dir = TempDir::new().unwrap();
    let db = Database::create_with(dir.path(), options()).unwrap();
    define(&db).unwrap();
    db.commit(transaction(1, true).unwrap()).unwrap();
    let (clone, snapshot) = (db.clone(), db.snapshot());
    db.close().unwrap();
    assert!(matches!(clone.commit(transaction(2, false).unwrap()), Err(CommitError::Closed)));
    assert!(matches!(clone.checkpoint(), Err(CommitError::Closed)));
    let next = Database::open_with(dir.path(), options()).unwrap();
    next.commit(transaction(2, false).unwrap()).unwrap();
    assert!(matches!(clone.clone().close(), Err(CommitError::Closed)));
    assert_eq!(transactions_shown(&snapshot, |_| true).unwrap(), 1);
    drop(clone);
    next.commit(transaction(3, false).unwrap()).unwrap();
    let before = shown(&next).unwrap();
    drop(next);
    let again = Database::open_with(dir.path(), options()).unwrap();
    assert_eq!(shown(&again).unwrap(), before);
}

/// Who waits on a handle of a closed database writes nothing: the log may be another writer's by then.
#[test]
fn a_wait_after_the_close_writes_nothing() {
    use underbelly::SimulatedDisk;
    use underbelly_tests::{define, shown, transaction};
    let disk = SimulatedDisk::new();
    let opened = |disk: &SimulatedDisk| Database::open_on(Arc::new(disk.clone()), options()).unwrap();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    define(&db).unwrap();
    db.commit(transaction(1, true).unwrap()).unwrap();
    db.close().unwrap();
    // That it was opened is queued for the log, and goes there with what is committed first.
    let only_looked = opened(&disk);
    let kept = only_looked.clone();
    only_looked.close().unwrap();
    let next = opened(&disk);
    next.commit(transaction(2, false).unwrap()).unwrap();
    let before = shown(&next).unwrap();
    assert!(kept.wait_idle(std::time::Duration::ZERO));
    assert_eq!(shown(&opened(&disk.crash())).unwrap(), before);
}
