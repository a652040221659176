//! Calls of the disk that fail: nothing acknowledged is lost, and what can go on goes on.

use std::sync::Arc;

use underbelly::disk::{Calls, Fault, FaultKind};
use underbelly::{CommitError, Database, FaultyDisk, SimulatedDisk, WalError};
use underbelly_tests::{define, options, transaction, transactions_shown};

use crate::script::{TRANSACTIONS, calls, check, run};

fn large(i: u64) -> bool {
    i == 3
}

/// Runs the script with a failure, and checks what is left, with and without a power cut.
fn fail(fault: Fault) -> u64 {
    let disk = FaultyDisk::new(SimulatedDisk::new());
    disk.order(Some(fault));
    let mut script = run(&disk);
    script.stop();
    let struck = disk.struck();
    disk.order(None);
    assert!(struck > 0 || script.errors.is_empty(), "{fault:?}: {:?}", script.errors);
    if script.created && !fault.sticky {
        assert!(script.acknowledged > 0, "one failure does not keep the script from going on: {fault:?}");
    }
    let at = format!("{fault:?}");
    match fault.after % 3 {
        0 => check(&disk.inner().crash(), &script, &format!("{at}, nothing kept")),
        1 => check(&disk.inner().crash_with(fault.after), &script, &format!("{at}, some kept")),
        _ => check(disk.inner(), &script, &format!("{at}, process stopped")),
    }
    script.acknowledged
}

/// Whichever call fails, in whichever way, the script's later operations and openings find everything that was
/// acknowledged.
#[test]
fn a_failure_of_any_call_loses_nothing() {
    let calls = calls(Calls::Changing);
    for (after, kind) in (0..calls).flat_map(|after| FaultKind::ALL.map(|kind| (after, kind))) {
        fail(Fault { calls: Calls::Changing, after, kind, sticky: false });
    }
}

/// The same where all calls fail from one on, until another process finds the disk sound.
#[test]
fn a_disk_that_fails_from_any_call_on_loses_nothing() {
    let (calls, mut reached) = (calls(Calls::Changing), 0);
    for (after, kind) in (0..calls).flat_map(|after| FaultKind::ALL.map(|kind| (after, kind))) {
        reached = fail(Fault { calls: Calls::Changing, after, kind, sticky: true }).max(reached);
    }
    assert!(reached >= TRANSACTIONS - 1, "the last failures come late: {reached}");
}

/// A call that only looks and fails loses nothing either, and nothing is told as damage that is none.
#[test]
fn a_failure_of_any_read_loses_nothing() {
    for after in 0..calls(Calls::Reading) {
        // A disk that says of a read that it is full is none whose files are damaged.
        let other = [FaultKind::Interrupted, FaultKind::Short, FaultKind::Late][after as usize % 3];
        for kind in [FaultKind::Io, FaultKind::Full, other] {
            fail(Fault { calls: Calls::Reading, after, kind, sticky: false });
        }
        fail(Fault { calls: Calls::Reading, after, kind: FaultKind::Io, sticky: true });
    }
}

/// After a write to the log fails, writing is refused with a typed error, reading goes on and shows only what was
/// acknowledged, and reopening recovers.
#[test]
fn a_failed_log_ends_writing_and_not_reading() {
    let disk = SimulatedDisk::new();
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
        let disk = SimulatedDisk::new();
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
