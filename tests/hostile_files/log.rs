//! A database that was not closed: what it holds is in its log alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use underbelly::{Database, MemoryDisk};
use underbelly_tests::{define, in_memory, options, shown, transaction, transactions_shown};

/// Transactions in the log.
const COUNT: u64 = 5;

fn database() -> MemoryDisk {
    let (disk, db) = in_memory().unwrap();
    define(&db).unwrap();
    for i in 1..=COUNT {
        db.commit(transaction(i, false).unwrap()).unwrap();
    }
    disk.crash()
}

/// The log's file that holds the transactions.
fn active(disk: &MemoryDisk) -> String {
    let logs = disk.files().into_iter().filter(|name| name.starts_with("wal/"));
    let used = |name: &String| disk.contents(name).unwrap().iter().filter(|byte| **byte != 0).count();
    logs.max_by_key(used).unwrap()
}

/// Opens it; says how many transactions are shown, each whole; `None` where opening is refused.
fn prefix(disk: &MemoryDisk, what: &str) -> Option<u64> {
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let db = Database::open_on(Arc::new(disk.clone()), options()).ok()?;
        let count = transactions_shown(&db.snapshot(), |_| false).unwrap();
        assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new(), "{what}");
        if count < COUNT {
            let report = db.recovery_report();
            assert!(report.torn_tail.is_some(), "{what}: {count} transactions are left and nothing is told");
        }
        define(&db).unwrap();
        db.commit(transaction(count + 1, false).unwrap()).unwrap();
        let before = shown(&db).unwrap();
        drop(db);
        let again = Database::open_on(Arc::new(disk.clone()), options()).unwrap();
        assert_eq!(shown(&again).unwrap(), before, "{what}");
        Some(count)
    }));
    opened.unwrap_or_else(|_| panic!("{what}: a panic, or other data"))
}

/// A flipped byte before the last transaction is damage and is refused; in the last one it cannot be told from a
/// write that was cut short. Whatever is shown is a prefix of whole transactions.
#[test]
fn flipped_bytes_leave_a_prefix_or_are_refused() {
    let disk = database();
    let name = active(&disk);
    let whole = disk.contents(&name).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for at in (0..used).step_by(37).chain(0..64) {
        let copy = disk.crash();
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        copy.overwrite(&name, bytes);
        let what = format!("byte {at} of {used} of {name} flipped");
        if let Some(count) = prefix(&copy, &what) {
            assert!(count + 1 >= COUNT, "{what}: only {count} transactions are left");
        }
    }
}

/// A log that ends early gives a prefix, and says that something was cut, or is refused.
#[test]
fn a_zeroed_end_leaves_a_prefix() {
    let disk = database();
    let name = active(&disk);
    let whole = disk.contents(&name).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for at in (0..used).step_by(101) {
        let copy = disk.crash();
        let mut bytes = whole.clone();
        bytes[at..].fill(0);
        copy.overwrite(&name, bytes);
        // A tail of whole batches that never reached the disk leaves no trace, so what was before it is all.
        let what = format!("{name} zeroed from {at} of {used} on");
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let db = Database::open_on(Arc::new(copy.clone()), options()).ok()?;
            Some(transactions_shown(&db.snapshot(), |_| false).unwrap())
        }));
        let count = opened.unwrap_or_else(|_| panic!("{what}: a panic, or other data"));
        assert!(count.is_none_or(|count| count <= COUNT), "{what}");
    }
}

/// The log's files in each other's place, doubled or missing are refused or leave a prefix.
#[test]
fn misplaced_log_files() {
    let (disk, db) = in_memory().unwrap();
    define(&db).unwrap();
    for i in 1..=60 {
        db.commit(transaction(i, false).unwrap()).unwrap();
    }
    let disk = disk.crash();
    let logs: Vec<String> = disk.files().into_iter().filter(|name| name.starts_with("wal/")).collect();
    assert!(logs.len() >= 3, "{logs:?}");
    let count = |copy: &MemoryDisk, what: &str| {
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let db = Database::open_on(Arc::new(copy.clone()), options()).ok()?;
            Some(transactions_shown(&db.snapshot(), |_| false).unwrap())
        }));
        opened.unwrap_or_else(|_| panic!("{what}: a panic, or other data"))
    };
    assert_eq!(count(&disk.crash(), "undamaged"), Some(60));
    for first in &logs {
        for second in &logs {
            if first != second {
                let copy = disk.crash();
                copy.overwrite(first, disk.contents(second).unwrap());
                count(&copy, &format!("{first} holds {second}"));
                copy.overwrite(second, disk.contents(first).unwrap());
                count(&copy, &format!("{first} and {second} swapped"));
            }
        }
        let copy = disk.crash();
        underbelly::Disk::remove(&copy, first).unwrap();
        count(&copy, &format!("{first} removed"));
    }
}
