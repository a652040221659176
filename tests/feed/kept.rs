//! What is kept across reopenings, crashes and checkpoints, and what is not any more.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use underbelly::{
    CHANGES_SERIES, Committed, Database, Durability, FeedError, ManualClock, Options, SimulatedDisk, Slow,
    Start, Timestamp, Watch,
};

use crate::{check_all, create, define, plain, quote, settings, told};

fn open(disk: &SimulatedDisk) -> Database {
    let db = Database::open_on(Arc::new(disk.clone()), settings()).unwrap();
    define(&db);
    db
}

#[test]
fn what_was_told_is_told_again_after_a_reopening() {
    let (disk, db) = create(settings());
    define(&db);
    let mut db = Some(db);
    for round in 0..4 {
        let open_now = db.take().unwrap();
        for n in 0..5 {
            open_now.commit(quote("a", round * 10 + n, Durability::Sync)).unwrap();
            open_now.run_ready().unwrap();
        }
        if round == 1 {
            open_now.checkpoint().unwrap();
            open_now.commit(plain(round, Durability::Sync)).unwrap();
        }
        let before = told(&open_now, Start::Oldest);
        if round % 2 == 0 {
            drop(open_now.close().unwrap())
        } else {
            drop(open_now)
        }
        let reopened = open(&disk);
        let after = told(&reopened, Start::Oldest);
        assert_eq!(after[..before.len()], before, "round {round}");
        check_all(&reopened, &after, 1);
        db = Some(reopened);
    }
}

/// A clock that is moved from here.
fn window(changes_kept: Duration, changes_kept_bytes: u64) -> (Arc<ManualClock>, SimulatedDisk, Database) {
    let clock = Arc::new(ManualClock::new(Timestamp(1_000)));
    let options = Options { clock: clock.clone(), changes_kept, changes_kept_bytes, ..settings() };
    let (disk, db) = create(options);
    define(&db);
    (clock, disk, db)
}

fn assert_too_old(following: impl Iterator<Item = Result<Committed, FeedError>>, seq: u64, kept: u64) {
    let error = { following }.next().unwrap().unwrap_err();
    assert!(
        matches!(error, FeedError::TooOld { asked, oldest } if (asked, oldest) == (seq, kept)),
        "{error}, and not {seq} and {kept}"
    );
}

#[test]
fn what_is_older_than_the_window_goes_with_a_checkpoint_and_is_told_to_be_gone() {
    let day = Duration::from_secs(24 * 3600);
    let (clock, disk, db) = window(2 * day, u64::MAX);
    db.commit(quote("a", 1, Durability::Sync)).unwrap();
    db.checkpoint().unwrap();
    let old = db.head_seq();
    clock.set(Timestamp(day.as_nanos() as i64));
    db.commit(quote("a", 2, Durability::Sync)).unwrap();
    db.checkpoint().unwrap();
    assert_eq!(told(&db, Start::Oldest).first().unwrap().seq, 1, "all is young enough");
    clock.set(Timestamp(2 * day.as_nanos() as i64 + 10_000));
    let young = db.commit(quote("a", 3, Durability::Sync)).unwrap().seq;
    let mut behind = db.subscribe(&Watch::all(), Start::Oldest, Slow::CatchUp).unwrap();
    let mut skipping = db.subscribe(&Watch::all(), Start::Oldest, Slow::Skip { behind: 1_000 }).unwrap();
    assert_eq!(behind.next_within(Duration::ZERO).unwrap().unwrap().seq, 1);
    db.checkpoint().unwrap();
    assert_eq!(db.snapshot().series_info(CHANGES_SERIES).unwrap().deletes, 0, "nothing waits");
    assert_eq!(told(&db, Start::Oldest).first().unwrap().seq, old + 1);
    assert_eq!(told(&db, Start::Seq(old + 1)).last().unwrap().seq, young);
    assert_too_old(db.feed(&Watch::all(), Start::Seq(old)).unwrap(), old, old + 1);
    assert_too_old(db.feed(&Watch::all(), Start::Seq(1)).unwrap(), 1, old + 1);
    let skipped = skipping.next_within(Duration::ZERO).unwrap().unwrap();
    assert_eq!((skipped.seq, skipped.skipped), (old + 1, old));
    // What it has read already it is told.
    let rest: Vec<_> = behind.by_ref().take(old as usize - 1).map(Result::unwrap).collect();
    assert_eq!(rest.last().map_or(1, |committed| committed.seq), old);
    // An opening finds the same.
    drop(db);
    let db = open(&disk);
    assert_too_old(db.feed(&Watch::all(), Start::Seq(old)).unwrap(), old, old + 1);
    assert_eq!(told(&db, Start::Oldest).first().unwrap().seq, old + 1);
}

#[test]
fn nothing_is_kept_behind_a_checkpoint_where_it_is_told_so() {
    let (clock, _, db) = window(Duration::ZERO, u64::MAX);
    db.commit(quote("a", 1, Durability::Sync)).unwrap();
    db.checkpoint().unwrap();
    let gone = db.head_seq();
    clock.set(Timestamp(2_000_000));
    db.commit(quote("a", 2, Durability::Sync)).unwrap();
    db.checkpoint().unwrap();
    assert_too_old(db.feed(&Watch::all(), Start::Seq(1)).unwrap(), 1, gone + 1);
}

#[test]
fn more_than_the_bytes_that_may_be_kept_goes_with_a_checkpoint() {
    let (_, _, db) = window(Duration::from_secs(1_000_000), 1);
    let mut ends = Vec::new();
    for n in 0..4 {
        db.commit(quote("a", n, Durability::Sync)).unwrap();
        db.checkpoint().unwrap();
        ends.push(db.head_seq());
    }
    // The segment that a checkpoint writes is looked at by the next.
    assert_eq!(told(&db, Start::Oldest).first().unwrap().seq, ends[2] + 1);
}

/// Wherever the disk stops, what somebody was told before is told again after it, and more of the same.
#[test]
fn a_crash_at_every_call_takes_back_nothing_that_was_told() {
    let script = |disk: &SimulatedDisk| -> Vec<Committed> {
        let mut before: Vec<Committed> = Vec::new();
        for session in 0..2 {
            let opened = match session {
                0 => Database::create_on(Arc::new(disk.clone()), settings()),
                _ => Database::open_on(Arc::new(disk.clone()), settings()),
            };
            let Ok(db) = opened else { return before };
            let start = before.last().map_or(Start::Oldest, |committed| Start::Seq(committed.seq + 1));
            let mut following = db.subscribe(&Watch::all(), start, Slow::CatchUp).unwrap();
            let mut steps = || -> Result<(), Box<dyn std::error::Error>> {
                db.define_slot(underbelly_tests::counter_slot(crate::QUOTE))?;
                for n in 0..4 {
                    let durability = if n % 2 == 0 { Durability::Buffered } else { Durability::Sync };
                    db.commit(quote("a", 10 * session + n, durability))?;
                    while let Some(committed) = following.next_within(Duration::ZERO)? {
                        before.push(committed);
                    }
                    if n == 1 {
                        db.checkpoint()?;
                    }
                }
                Ok(())
            };
            let done = steps();
            if done.is_err() {
                return before;
            }
        }
        before
    };
    let calls = {
        let disk = SimulatedDisk::new();
        assert!(script(&disk).len() > 10);
        disk.calls()
    };
    for call in 0..calls {
        let disk = SimulatedDisk::new();
        disk.fail_at(Some(call));
        let before = script(&disk);
        for seed in 0..3 {
            let left = match seed {
                0 => disk.crash(),
                1 => disk.crash_keeping_all(),
                _ => disk.crash_with(call),
            };
            let Ok(db) = Database::open_on(Arc::new(left), settings()) else {
                assert!(before.is_empty(), "stopped at call {call}");
                continue;
            };
            db.commit(plain(1, Durability::Sync)).unwrap();
            let after = told(&db, Start::Oldest);
            assert_eq!(after[..before.len()], before, "stopped at call {call}");
            assert_eq!(after.last().unwrap().seq, db.head_seq());
            check_all(&db, &after, 1);
        }
    }
}

#[test]
fn what_cannot_be_read_is_an_error_and_not_a_gap() {
    let (simulated, db) = create(settings());
    define(&db);
    db.commit(quote("a", 1, Durability::Sync)).unwrap();
    db.close().unwrap();
    let segment = simulated.files().into_iter().find(|file| file.contains("/_changes/")).unwrap();
    let sound = simulated.contents(&segment).unwrap();
    let mut errors = 0;
    for at in 0..sound.len() {
        let mut damaged = sound.clone();
        damaged[at] ^= 0x20;
        simulated.overwrite(&segment, damaged);
        let Ok(db) = Database::open_on(Arc::new(simulated.crash_keeping_all()), settings()) else {
            errors += 1;
            continue;
        };
        let Ok(feed) = db.feed(&Watch::all(), Start::Seq(1)) else { continue };
        let read: Vec<_> = feed.collect();
        errors += usize::from(read.iter().any(Result::is_err));
        let seqs = read.iter().flatten().map(|committed| committed.seq);
        assert!(seqs.eq(1..=read.iter().flatten().count() as u64), "byte {at}");
        assert!(read.last().unwrap().is_err() || read.len() as u64 >= 4, "byte {at}");
    }
    assert!(errors > 20, "{errors}");
}

#[derive(Clone, Debug)]
enum Step {
    Quote { cell: u8, n: i64, durability: Durability },
    Plain(Durability),
    Run,
    Checkpoint,
    Reopen,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let durability = || proptest::sample::select(vec![Durability::Sync, Durability::Buffered]);
    prop_oneof![
        6 => (0u8..3, 0i64..4, durability()).prop_map(|(cell, n, durability)| Step::Quote { cell, n, durability }),
        3 => durability().prop_map(Step::Plain),
        3 => Just(Step::Run),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Whatever happens, what was told once is told again, from anywhere, in any later session; and it is what the
    /// states of all cells say.
    #[test]
    fn the_feed_is_the_same_whenever_it_is_read(steps in proptest::collection::vec(step(), 1..60)) {
        let (mut disk, mut db) = create(settings());
        define(&db);
        let mut before: Vec<Committed> = Vec::new();
        for step in steps {
            match step {
                Step::Quote { cell, n, durability } => {
                    db.commit(quote(&format!("c{cell}"), n, durability)).unwrap();
                }
                Step::Plain(durability) => drop(db.commit(plain(1, durability)).unwrap()),
                Step::Run => drop(db.run_ready().unwrap()),
                Step::Checkpoint => drop(db.checkpoint().unwrap()),
                Step::Reopen => {
                    drop(db);
                    db = open(&disk);
                }
                Step::Crash => {
                    disk = disk.crash();
                    drop(db);
                    db = open(&disk);
                }
            }
            let all = told(&db, Start::Oldest);
            prop_assert_eq!(&all[..before.len()], &before[..]);
            let from = before.len() as u64 / 2 + 1;
            prop_assert_eq!(&told(&db, Start::Seq(from))[..], &all[from as usize - 1..]);
            before = all;
        }
        db.wait_durable(db.head_seq()).unwrap();
        check_all(&db, &told(&db, Start::Oldest), 1);
    }
}
