//! Transactions that are answered when they are visible: a crash keeps a prefix, and nothing is claimed that is not so.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use underbelly::{
    Batch, CommitError, Database, Durability, Options, Outputs, ProducerDefinition, Row, Scope,
    SimulatedDisk, Timestamp, WalError,
};
use underbelly_tests::{BOOK, counter_slot, day, define, one, options};
use underbelly_wal::inspect;

/// Settings under which nothing is written but by a transaction or by who waits.
fn unhurried() -> Options {
    Options { buffered_delay: None, seal_after: None, ..options() }
}

fn create(options: Options) -> (SimulatedDisk, Database) {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options).unwrap();
    (disk, db)
}

/// A row that holds `x`.
fn row(x: i64, durability: Durability) -> Batch {
    let mut batch = Batch::new();
    batch.append(Row::new("tick", Timestamp(x % 7)).key("who", x % 3).field("x", x)).unwrap();
    batch.durability(durability);
    batch
}

/// Seqs of the rows that a database shows, and what they hold, in order of commit.
fn shown(db: &Database) -> Vec<i64> {
    let Ok(series) = db.snapshot().series("tick") else { return Vec::new() };
    let rows = series.scan().collect().unwrap();
    let mut xs = rows.i64s("x").unwrap().to_vec();
    xs.sort_unstable();
    xs
}

/// What a database shows after a power cut.
fn after_a_cut(disk: &SimulatedDisk) -> Vec<i64> {
    shown(&Database::open_on(Arc::new(disk.crash()), unhurried()).unwrap())
}

#[test]
fn a_buffered_transaction_is_visible_at_once_and_durable_when_waited_for() {
    let (disk, db) = create(unhurried());
    let first = db.commit(row(1, Durability::Sync)).unwrap();
    assert_eq!(db.durable_seq(), first.seq);
    for x in 2..=4 {
        let commit = db.commit(row(x, Durability::Buffered)).unwrap();
        assert_eq!(db.snapshot().seq(), commit.seq);
        assert_eq!((db.status().visible, db.status().durable), (commit.seq, first.seq));
    }
    assert_eq!((shown(&db), after_a_cut(&disk)), (vec![1, 2, 3, 4], vec![1]));
    db.wait_durable(first.seq + 2).unwrap();
    assert_eq!(db.durable_seq(), first.seq + 3, "all that is queued travels together");
    assert_eq!(after_a_cut(&disk), [1, 2, 3, 4]);
    let ahead = db.wait_durable(first.seq + 100);
    assert!(matches!(ahead, Err(CommitError::Log(WalError::NotQueued { .. }))), "{ahead:?}");
}

#[test]
fn syncs_checkpoints_and_closing_write_what_is_buffered() {
    type Write = fn(Database);
    let writes: [Write; 4] = [
        |db| assert!(db.commit(row(9, Durability::Sync)).is_ok()),
        |db| assert!(db.checkpoint().is_ok()),
        |db| assert!(db.close().is_ok()),
        drop,
    ];
    for write in writes {
        let (disk, db) = create(unhurried());
        db.commit(row(1, Durability::Sync)).unwrap();
        db.commit(row(2, Durability::Buffered)).unwrap();
        assert_eq!(after_a_cut(&disk), [1]);
        write(db);
        assert!(after_a_cut(&disk).starts_with(&[1, 2]));
    }
}

#[test]
fn buffered_transactions_are_written_in_time_or_when_they_are_many() {
    let soon = Options { buffered_delay: Some(Duration::from_millis(1)), ..unhurried() };
    let hour = Some(Duration::from_secs(3600));
    let many = Options { buffered_delay: hour, buffered_bytes: 500, ..unhurried() };
    for options in [soon, many] {
        let (disk, db) = create(options);
        let mut last = 0;
        for x in 1..=20 {
            last = db.commit(row(x, Durability::Buffered)).unwrap().seq;
        }
        // The last ones may be too few for a write of their own.
        while db.durable_seq() + 10 < last {
            thread::yield_now();
        }
        assert!(after_a_cut(&disk).len() >= 10);
    }
}

#[test]
fn a_transaction_may_be_buffered_and_a_sync_one_behind_it_makes_both_durable() {
    let (disk, db) = create(unhurried());
    define(&db).unwrap();
    let add = |durability| {
        db.transact::<(), CommitError>(|tx| {
            let before = tx.slot(BOOK, day(), ["c"])?.map_or(0, |rows| rows.i64s("n").unwrap()[0]);
            tx.put_slot(BOOK, day(), ["c"], one("n", before + 1)?);
            tx.durability(durability);
            Ok(())
        })
        .unwrap();
    };
    let read = |db: &Database| {
        let cell = db.snapshot().slot(BOOK, day(), ["c"]).unwrap();
        cell.map_or(0, |cell| cell.rows.i64s("n").unwrap()[0])
    };
    add(Durability::Buffered);
    add(Durability::Buffered);
    let cut = Database::open_on(Arc::new(disk.crash()), unhurried()).unwrap();
    assert_eq!((read(&db), read(&cut)), (2, 0));
    add(Durability::Sync);
    let cut = Database::open_on(Arc::new(disk.crash()), unhurried()).unwrap();
    assert_eq!((read(&db), read(&cut)), (3, 3));
}

#[test]
fn a_producer_runs_before_its_buffered_input_is_durable_and_its_end_makes_both_so() {
    let (disk, db) = create(unhurried());
    for slot in ["in", "out"] {
        db.define_slot(counter_slot(slot)).unwrap();
    }
    let durable_in_run = Arc::new(AtomicU64::new(u64::MAX));
    let (seen, looking) = (durable_in_run.clone(), db.clone());
    db.register(ProducerDefinition::new("copy").requires("in").provides("out"), move |run| {
        seen.store(looking.durable_seq(), Ordering::SeqCst);
        let n = run.input("in")?.i64s("n").unwrap()[0];
        Ok(Outputs::new().put("out", one("n", n)?))
    })
    .unwrap();
    let mut batch = Batch::new();
    batch.put_slot("in", day(), ["a"], one("n", 5).unwrap());
    batch.durability(Durability::Buffered);
    let commit = db.commit(batch).unwrap();
    assert!(db.wait_idle(Duration::from_secs(60)));
    assert!(durable_in_run.load(Ordering::SeqCst) < commit.seq);
    let cut = Database::open_on(Arc::new(disk.crash()), unhurried()).unwrap();
    for slot in ["in", "out"] {
        let cell = cut.snapshot().slot(slot, day(), ["a"]).unwrap().unwrap();
        assert_eq!(cell.rows.i64s("n").unwrap(), [5], "{slot}");
    }
    db.close().unwrap();
}

#[test]
fn a_failed_log_names_visible_transactions_that_may_be_lost_and_reading_goes_on() {
    let (disk, db) = create(unhurried());
    let first = db.commit(row(1, Durability::Sync)).unwrap().seq;
    for x in 2..=3 {
        db.commit(row(x, Durability::Buffered)).unwrap();
    }
    assert_eq!(db.status().not_durable, None);
    disk.fail_at(Some(disk.calls()));
    let failed = db.commit(row(4, Durability::Sync));
    assert!(matches!(failed, Err(CommitError::Log(WalError::Poisoned { .. }))), "{failed:?}");
    disk.fail_at(None);
    db.wait_durable(first).unwrap();
    let lost = db.wait_durable(first + 1);
    let named = |error: &CommitError| match error {
        CommitError::Log(WalError::NotDurable { first, last, .. }) => Some((*first, *last)),
        _ => None,
    };
    assert_eq!(lost.as_ref().err().and_then(named), Some((first + 1, first + 2)), "{lost:?}");
    assert_eq!(db.status().not_durable, Some((first + 1, first + 2)));
    let refused = db.commit(row(5, Durability::Buffered));
    assert!(matches!(refused, Err(CommitError::Log(WalError::Poisoned { .. }))), "{refused:?}");
    assert_eq!((shown(&db), db.durable_seq()), (vec![1, 2, 3], first));
    drop(db);
    let kept = after_a_cut(&disk);
    assert!(!kept.is_empty() && [1, 2, 3, 4].starts_with(&kept), "{kept:?}");
}

#[test]
fn a_quiet_log_is_sealed() {
    let (disk, db) = create(Options { seal_after: Some(Duration::from_millis(1)), ..unhurried() });
    let id = db.status().database;
    db.commit(row(1, Durability::Sync)).unwrap();
    let sealed = || {
        let files = inspect(Arc::new(disk.crash()), id).unwrap();
        files.last().is_some_and(|file| file.batches.last().is_some_and(|batch| batch.seal))
    };
    while !sealed() {
        thread::yield_now();
    }
    let batches = db.status().log.batches;
    db.commit(row(2, Durability::Sync)).unwrap();
    while !sealed() {
        thread::yield_now();
    }
    assert!(db.status().log.batches >= batches + 2);
    assert_eq!(after_a_cut(&disk), [1, 2]);
}

#[test]
fn cuts_amid_mixed_traffic_keep_a_prefix_with_all_that_was_answered_as_durable() {
    let (disk, db) = create(Options { buffered_delay: Some(Duration::from_millis(1)), ..options() });
    let next = AtomicU64::new(1);
    let committed = Mutex::new(BTreeMap::new());
    let cuts = Mutex::new(Vec::new());
    let (disk, db) = (&disk, &db);
    thread::scope(|scope| {
        for thread in 0..3 {
            let (next, committed) = (&next, &committed);
            scope.spawn(move || {
                for i in 0..150 {
                    let durability =
                        if (i + thread) % 3 == 0 { Durability::Sync } else { Durability::Buffered };
                    let x = next.fetch_add(1, Ordering::SeqCst) as i64;
                    let commit = db.commit(row(x, durability)).unwrap();
                    assert!(db.snapshot().seq() >= commit.seq);
                    committed.lock().unwrap().insert(commit.seq, x);
                    if durability == Durability::Sync {
                        assert!(db.durable_seq() >= commit.seq);
                    }
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..12 {
                let durable = db.durable_seq();
                let cut = Database::open_on(Arc::new(disk.crash()), unhurried()).unwrap();
                let kept = cut.recovery_report().last_seq;
                assert!(kept >= durable);
                cuts.lock().unwrap().push((kept, shown(&cut)));
            }
        });
    });
    let committed = committed.into_inner().unwrap();
    assert_eq!(committed.len(), 450);
    for (kept, xs) in cuts.into_inner().unwrap() {
        let mut expected: Vec<i64> = committed.range(..=kept).map(|(_, x)| *x).collect();
        expected.sort_unstable();
        assert_eq!(xs, expected, "what survived is what was committed up to {kept}");
    }
}

/// The status says how often transactions waited before they were admitted, by reason.
#[test]
fn the_status_says_what_transactions_waited_for() {
    let waits = |db: &Database| {
        let stalls = db.status().stalls;
        (stalls.log_space.count, stalls.queue_full.count)
    };
    // No thread prepares log files: who finds none makes one.
    let (_, db) = create(Options { workers: 0, log_file_bytes: 16 << 10, ..unhurried() });
    assert_eq!(waits(&db), (0, 0));
    for x in 0..40 {
        let mut batch = row(x, Durability::Sync);
        batch.set_variable(Scope::Global, "v", vec![x as u8; 2_000]);
        db.commit(batch).unwrap();
    }
    let (log_space, queue_full) = waits(&db);
    assert!(log_space > 3 && queue_full == 0, "{log_space} {queue_full}");
    assert!(db.status().stalls.log_space.time > Duration::ZERO);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Commits of both kinds, waits, checkpoints and power cuts, one after the other.
    #[test]
    fn a_cut_keeps_what_is_durable_and_at_most_what_was_visible(steps in prop::collection::vec(0u8..12, 1..50)) {
        let (mut disk, mut db) = create(unhurried());
        let (mut xs, mut durable) = (0, 0);
        for step in steps {
            match step {
                0 => {
                    drop(db);
                    disk = disk.crash();
                    db = Database::open_on(Arc::new(disk.clone()), unhurried()).unwrap();
                    let kept = shown(&db);
                    prop_assert_eq!(&kept, &(1..=kept.len() as i64).collect::<Vec<_>>());
                    xs = kept.len() as i64;
                    durable = xs;
                }
                1 => {
                    db.checkpoint().unwrap();
                    durable = xs;
                }
                2 | 3 => {
                    xs += 1;
                    db.commit(row(xs, Durability::Sync)).unwrap();
                    durable = xs;
                }
                4 => {
                    db.wait_durable(db.snapshot().seq()).unwrap();
                    durable = xs;
                }
                _ => {
                    xs += 1;
                    db.commit(row(xs, Durability::Buffered)).unwrap();
                }
            }
            prop_assert_eq!(shown(&db), (1..=xs).collect::<Vec<_>>());
            let kept = after_a_cut(&disk).len() as i64;
            prop_assert!((durable..=xs).contains(&kept), "{} of {}, durable {}", kept, xs, durable);
        }
    }
}
