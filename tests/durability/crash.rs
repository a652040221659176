//! The disk stops at any call that changes something.

use std::sync::Arc;

use underbelly::{CommitError, Database, MemoryDisk, OpenError, WalError};
use underbelly_tests::{define, options, shown, transaction, transactions_shown};

fn large(i: u64) -> bool {
    matches!(i, 3 | 9)
}

/// How far the script got before the disk failed.
#[derive(Debug, Default)]
struct Progress {
    created: bool,
    acknowledged: u64,
}

/// Definitions, transactions of every kind, a checkpoint, more transactions, a close, a reopening, more.
fn script(disk: &MemoryDisk) -> Progress {
    let mut progress = Progress::default();
    let mut run = || -> Option<()> {
        let db = Database::create_on(Arc::new(disk.clone()), options()).ok()?;
        progress.created = true;
        define(&db).ok()?;
        let mut commit = |db: &Database, i: u64| -> Option<()> {
            db.commit(transaction(i, large(i)).unwrap()).ok()?;
            progress.acknowledged = i;
            Some(())
        };
        (1..=4).try_for_each(|i| commit(&db, i))?;
        db.checkpoint().ok()?;
        (5..=7).try_for_each(|i| commit(&db, i))?;
        db.close().ok()?;
        let db = Database::open_on(Arc::new(disk.clone()), options()).ok()?;
        (8..=10).try_for_each(|i| commit(&db, i))?;
        db.checkpoint().ok()?;
        db.checkpoint().ok()?;
        commit(&db, 11)
    };
    run();
    progress
}

fn check(disk: &MemoryDisk, progress: &Progress, at: &str) {
    let db = match Database::open_on(Arc::new(disk.clone()), options()) {
        Ok(db) => db,
        Err(OpenError::NotFound { .. }) if !progress.created => return,
        Err(error) => panic!("{at}, {progress:?}: {error}"),
    };
    let found = transactions_shown(&db.snapshot(), large).unwrap();
    let acknowledged = progress.acknowledged;
    assert!(
        found == acknowledged || found == acknowledged + 1,
        "{at}: {acknowledged} were acknowledged and {found} are shown"
    );
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new(), "{at}");
    define(&db).unwrap();
    db.commit(transaction(found + 1, large(found + 1)).unwrap()).unwrap();
    let before = shown(&db).unwrap();
    db.close().unwrap();
    let db = Database::open_on(Arc::new(disk.clone()), options()).unwrap();
    assert_eq!(shown(&db).unwrap(), before, "{at}, after one more transaction and a close");
}

/// Wherever the disk stops, reopening shows exactly what was acknowledged, or one whole transaction more, with no
/// damage, and goes on from there.
#[test]
fn a_crash_at_every_call_leaves_a_prefix() {
    let whole = MemoryDisk::new();
    assert_eq!(script(&whole).acknowledged, 11);
    let calls = whole.calls();
    for call in 0..calls {
        let disk = MemoryDisk::new();
        disk.fail_at(Some(call));
        let progress = script(&disk);
        check(&disk.crash(), &progress, &format!("stopped at call {call} of {calls}"));
    }
}

/// The same where nothing was lost but the process: unsynced bytes and names reached the disk.
#[test]
fn a_stop_that_loses_nothing_leaves_a_prefix() {
    let whole = MemoryDisk::new();
    script(&whole);
    let calls = whole.calls();
    for call in 0..calls {
        let disk = MemoryDisk::new();
        disk.fail_at(Some(call));
        let progress = script(&disk);
        disk.fail_at(None);
        check(&disk, &progress, &format!("stopped without loss at call {call} of {calls}"));
    }
}

/// A crash during the recovery from a crash, at each call of it, loses nothing either.
#[test]
fn a_crash_during_recovery_leaves_a_prefix() {
    let whole = MemoryDisk::new();
    script(&whole);
    let calls = whole.calls();
    for call in (0..calls).rev().step_by(9) {
        let disk = MemoryDisk::new();
        disk.fail_at(Some(call));
        let progress = script(&disk);
        if !progress.created {
            continue;
        }
        let crashed = disk.crash();
        for step in 0.. {
            let disk = crashed.crash();
            disk.fail_at(Some(disk.calls() + step));
            let opened = Database::open_on(Arc::new(disk.clone()), options());
            let done = opened.is_ok();
            drop(opened);
            check(&disk.crash(), &progress, &format!("stopped at {call}, then at {step} of the recovery"));
            if done {
                break;
            }
        }
    }
}

/// After a write to the log fails, writing is refused with a typed error, reading goes on and shows only what was
/// acknowledged, and reopening recovers.
#[test]
fn a_failed_log_ends_writing_and_not_reading() {
    let disk = MemoryDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    define(&db).unwrap();
    db.commit(transaction(1, false).unwrap()).unwrap();
    disk.fail_at(Some(disk.calls()));
    let first = db.commit(transaction(2, false).unwrap()).unwrap_err();
    assert!(matches!(first, CommitError::Log(_)), "{first}");
    disk.fail_at(None);
    let second = db.commit(transaction(2, false).unwrap()).unwrap_err();
    assert!(matches!(second, CommitError::Log(WalError::Poisoned { .. })), "{second}");
    assert!(matches!(db.checkpoint(), Err(CommitError::Log(_))));
    assert!(db.define_slot(underbelly_tests::counter_slot("Other")).is_err());
    assert_eq!(transactions_shown(&db.snapshot(), |_| false).unwrap(), 1);
    drop(db);
    let db = Database::open_on(Arc::new(disk.crash()), options()).unwrap();
    let found = transactions_shown(&db.snapshot(), |_| false).unwrap();
    assert!(found == 1 || found == 2);
    db.commit(transaction(found + 1, false).unwrap()).unwrap();
}

/// A checkpoint that fails leaves a database that goes on, and a later checkpoint succeeds.
#[test]
fn a_failed_checkpoint_can_be_repeated() {
    let prepared = || {
        let disk = MemoryDisk::new();
        let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
        define(&db).unwrap();
        for i in 1..=3 {
            db.commit(transaction(i, large(i)).unwrap()).unwrap();
        }
        (disk, db)
    };
    for step in 0.. {
        let (disk, db) = prepared();
        disk.fail_at(Some(disk.calls() + step));
        let done = db.checkpoint().is_ok();
        disk.fail_at(None);
        assert_eq!(transactions_shown(&db.snapshot(), large).unwrap(), 3);
        // A failure that touched the log itself ends writing; all others do not.
        let mut shown = 3;
        match db.commit(transaction(4, false).unwrap()) {
            Ok(_) => {
                db.checkpoint().unwrap();
                shown = 4;
            }
            Err(CommitError::Log(WalError::Poisoned { .. })) => {}
            Err(error) => panic!("step {step}: {error}"),
        }
        drop(db);
        let db = Database::open_on(Arc::new(disk.crash()), options()).unwrap();
        assert_eq!(transactions_shown(&db.snapshot(), large).unwrap(), shown, "step {step}");
        if done {
            break;
        }
    }
}
