//! A database that was not closed: what it holds is in its log alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use underbelly::{Database, OpenError, WalError};
use underbelly_tests::sample::{options, used};
use underbelly_tests::{define, shown, transaction, transactions_shown};

use crate::subject::{Memory, Subject, active_log, all, is_thorough};

/// Transactions in the log.
const COUNT: u64 = 2;

/// Opens it; says how many transactions are shown, each whole; `None` where opening is refused. What is left can be
/// written to.
fn prefix(disk: &Memory, what: &str) -> Option<u64> {
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let db = match Database::open_on(Arc::new(disk.clone()), options()) {
            Ok(db) => db,
            Err(OpenError::Log(WalError::Corrupt { file, .. })) => {
                assert!(file.starts_with("wal/"), "{what}: {file}");
                return None;
            }
            Err(error) => {
                assert!(error.to_string().contains("wal"), "{what}: {error}");
                return None;
            }
        };
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
    crate::memory::check(what);
    opened.unwrap_or_else(|_| panic!("{what}: a panic, or other data"))
}

/// How many transactions are shown, each whole, without more ado.
fn count(disk: &Memory, what: &str) -> Option<u64> {
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let db = Database::open_on(Arc::new(disk.clone()), options()).ok()?;
        Some(transactions_shown(&db.snapshot(), |_| false).unwrap())
    }));
    crate::memory::check(what);
    opened.unwrap_or_else(|_| panic!("{what}: a panic, or other data"))
}

/// A flipped byte before the last transaction is damage and is refused; in the last one it cannot be told from a
/// write that was cut short. Whatever is shown is a prefix of whole transactions.
#[test]
fn flipped_bytes_leave_a_prefix_or_are_refused() {
    let subject = Subject::killed(COUNT);
    let (name, whole) = active_log(&subject.disk);
    let used = used(&whole);
    let says_something = |at: &usize| whole[*at] != 0 || at.is_multiple_of(64) || is_thorough();
    let places: Vec<usize> = (0..used).filter(says_something).collect();
    all(places.len(), |number| {
        let at = places[number];
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        let what = format!("byte {at} of {used} of {name} flipped");
        if let Some(count) = prefix(&subject.with(&name, bytes), &what) {
            assert!(count + 1 >= COUNT, "{what}: only {count} transactions are left");
        }
    });
}

/// A log that ends early gives a prefix, and says that something was cut, or is refused.
#[test]
fn a_zeroed_end_leaves_a_prefix() {
    let subject = Subject::killed(COUNT);
    let (name, whole) = active_log(&subject.disk);
    let used = used(&whole);
    let step = if is_thorough() { 1 } else { 7 };
    all(used / step, |number| {
        let at = number * step;
        let mut bytes = whole.clone();
        bytes[at..].fill(0);
        // A tail of whole batches that never reached the disk leaves no trace, so what was before it is all.
        let what = format!("{name} zeroed from {at} of {used} on");
        let count = count(&subject.with(&name, bytes), &what);
        assert!(count.is_none_or(|count| count <= COUNT), "{what}");
    });
}

/// A log file has one length; at any other it is refused, or shows all.
#[test]
fn a_log_cut_at_any_length_is_refused() {
    let subject = Subject::killed(COUNT);
    let (name, whole) = active_log(&subject.disk);
    let step = if is_thorough() { 1 } else { 5 };
    all(whole.len() / step, |number| {
        let len = number * step;
        let what = format!("{name} of {} bytes cut to {len}", whole.len());
        assert_eq!(count(&subject.with(&name, whole[..len].to_vec()), &what), None, "{what}");
    });
}

/// The log's files in each other's place, doubled, missing or of an earlier moment are refused or leave a prefix.
#[test]
fn misplaced_log_files() {
    let (earlier, subject) = (Subject::killed(12), Subject::killed(30));
    let disk = &subject.disk;
    let logs: Vec<String> = disk.files().into_iter().filter(|name| name.starts_with("wal/")).collect();
    assert!(logs.len() >= 3, "{logs:?}");
    assert_eq!(count(&disk.crash(), "undamaged"), Some(30));
    all(logs.len(), |number| {
        let first = &logs[number];
        let mine = disk.contents(first).unwrap();
        for second in logs.iter().filter(|second| *second != first) {
            let copy = subject.with(first, disk.contents(second).unwrap());
            count(&copy, &format!("{first} holds {second}"));
            copy.overwrite(second, mine.clone());
            count(&copy, &format!("{first} and {second} swapped"));
        }
        count(&subject.without(first), &format!("{first} removed"));
        if let Some(theirs) = earlier.disk.contents(first) {
            let what = format!("{first} of another database");
            assert_eq!(count(&subject.with(first, theirs.clone()), &what).unwrap_or(30), 30, "{what}");
        }
    });
}

/// A log file as it was some transactions ago: what came after is missed where another file speaks for it; the last
/// file alone, where nothing does, leaves a prefix of whole transactions.
#[test]
fn an_older_log_file_put_back() {
    let disk = Memory::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    define(&db).unwrap();
    let mut earlier = Vec::new();
    for i in 1..=20 {
        db.commit(transaction(i, false).unwrap()).unwrap();
        earlier.push((i, disk.crash()));
    }
    let last = active_log(&disk).0;
    let disk = disk.crash();
    drop(db);
    for (i, older) in &earlier {
        for name in older.files().into_iter().filter(|name| name.ends_with(".wal")) {
            let bytes = older.contents(&name).unwrap();
            if disk.contents(&name) == Some(bytes.clone()) {
                continue;
            }
            let copy = disk.crash();
            copy.overwrite(&name, bytes);
            let what = format!("{name} as it was after transaction {i}");
            match count(&copy, &what) {
                Some(found) => {
                    assert_eq!(name, last, "{what}: {found} are shown");
                    assert!(found >= *i, "{what}: {found} are shown");
                }
                None => assert_ne!(name, last, "{what}: refused"),
            }
        }
    }
}
