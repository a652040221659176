//! In order and without a gap, from anywhere, while others commit.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use underbelly::{
    Committed, Database, Durability, FeedError, Options, SimulatedDisk, Slow, Start, State, Watch,
};
use underbelly_tests::{Numbers, day, one};

use crate::{PRICE, QUOTE, check_all, create, define, plain, quote, settings, told};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(600);

#[test]
fn every_transaction_is_told_with_its_changes_of_state() {
    let (_, db) = create(settings());
    define(&db);
    let defined = db.head_seq();
    let mut following = db.subscribe(&Watch::all(), Start::Now, Slow::CatchUp).unwrap();
    let put = db.commit(quote("a", 1, Durability::Sync)).unwrap();
    let told_of_put = following.next_within(LONG).unwrap().unwrap();
    assert_eq!((told_of_put.seq, told_of_put.time, put.seq), (defined + 1, put.time, defined + 1));
    let changes: Vec<_> = told_of_put
        .states
        .iter()
        .map(|change| (&*change.slot, change.key.to_string(), change.from, change.to, change.generation))
        .collect();
    let a = "a".to_string();
    let expected = [
        (QUOTE, a.clone(), State::Void, State::Updated, 1),
        (QUOTE, a.clone(), State::Updated, State::Pending, 1),
    ];
    assert_eq!(changes, expected);
    assert!(told_of_put.states.iter().all(|change| change.date == day().into()));
    assert!(following.next_within(Duration::ZERO).unwrap().is_none());
    db.run_ready().unwrap();
    let rest: Vec<Committed> =
        std::iter::from_fn(|| following.next_within(Duration::ZERO).unwrap()).collect();
    let ended = rest.last().unwrap();
    assert_eq!(ended.seq, db.head_seq());
    assert!(ended.states.iter().any(|change| &*change.slot == PRICE && change.to == State::Current));
    check_all(&db, &told(&db, Start::Oldest), 1);
}

/// Nobody has attached the listener: its source stays updated, and each of its generations is told.
#[test]
fn new_data_of_what_is_updated_is_told() {
    let (disk, db) = create(settings());
    define(&db);
    drop(db);
    let db = Database::open_on(Arc::new(disk), settings()).unwrap();
    let from = db.head_seq() + 1;
    for n in [1, 2, 2, 3] {
        db.commit(quote("a", n, Durability::Sync)).unwrap();
    }
    let states: Vec<_> = told(&db, Start::Seq(from))
        .iter()
        .map(|committed| {
            let change = |change: &underbelly::StateChange| (change.from, change.to, change.generation);
            committed.states.iter().map(change).collect::<Vec<_>>()
        })
        .collect();
    let again = |g| vec![(State::Updated, State::Updated, g)];
    assert_eq!(states, [vec![(State::Void, State::Updated, 1)], again(2), vec![], again(3)]);
    check_all(&db, &told(&db, Start::Oldest), 1);
}

#[test]
fn filters_let_pass_what_they_say() {
    let (_, db) = create(settings());
    define(&db);
    for n in 0..5 {
        db.commit(quote("a", n, Durability::Sync)).unwrap();
        db.commit(plain(n, Durability::Sync)).unwrap();
        db.run_ready().unwrap();
    }
    let all = told(&db, Start::Oldest);
    let passing = |filter: &Watch| -> Vec<Committed> {
        db.feed(filter, Start::Oldest).unwrap().map(Result::unwrap).collect()
    };
    let expected = |keep: &dyn Fn(&underbelly::StateChange) -> bool| -> Vec<Committed> {
        let mut kept = all.clone();
        kept.iter_mut().for_each(|committed| committed.states.retain(|change| keep(change)));
        kept.retain(|committed| !committed.states.is_empty());
        kept
    };
    assert_eq!(passing(&Watch::states()), expected(&|_| true));
    assert!(passing(&Watch::states()).len() < all.len());
    assert_eq!(passing(&Watch::all().slot(PRICE)), expected(&|change| &*change.slot == PRICE));
    assert_eq!(passing(&Watch::all().slot(PRICE).slot(QUOTE)), expected(&|_| true));
    let current = Watch::all().slot(PRICE).to(State::Current);
    assert_eq!(passing(&current), expected(&|c| &*c.slot == PRICE && c.to == State::Current));
    assert_eq!(passing(&current).len(), 5);
    assert_eq!(passing(&Watch::all().date(day())), expected(&|_| true));
    assert_eq!(passing(&Watch::all().date(underbelly::Date(1))), []);
    let refused = db.feed(&Watch::all().slot("Nowhere"), Start::Oldest);
    assert!(matches!(refused, Err(FeedError::UnknownSlot { slot }) if slot == "Nowhere"));
}

#[test]
fn a_feed_begins_with_any_transaction_and_with_none_that_is_yet_to_come() {
    let (_, db) = create(settings());
    define(&db);
    for n in 0..20 {
        db.commit(quote("a", n, Durability::Sync)).unwrap();
        if n == 9 {
            db.checkpoint().unwrap();
        }
    }
    let (all, head) = (told(&db, Start::Oldest), db.head_seq());
    assert_eq!(all.len() as u64, head);
    for seq in 1..=head {
        assert_eq!(told(&db, Start::Seq(seq)), all[seq as usize - 1..], "from {seq}");
    }
    assert_eq!(told(&db, Start::Seq(0)), all);
    assert_eq!(told(&db, Start::Seq(head + 1)), []);
    assert_eq!(told(&db, Start::Now), []);
    let refused = db.subscribe(&Watch::all(), Start::Seq(head + 2), Slow::CatchUp);
    assert!(
        matches!(refused, Err(FeedError::Ahead { asked, newest }) if (asked, newest) == (head + 2, head))
    );
}

/// More transactions than a page takes, and one that is larger than a page, with and without a checkpoint between.
#[test]
fn pages_follow_each_other_without_a_gap() {
    let (_, db) = create(Options { log_file_bytes: 8 << 20, ..settings() });
    define(&db);
    let mut large = underbelly::Batch::new();
    for name in 0..20_000 {
        large.put_slot(QUOTE, day(), [format!("n{name}")], one("n", 1).unwrap());
    }
    for x in 0..6_000 {
        db.commit(plain(x, Durability::Buffered)).unwrap();
    }
    db.commit(large).unwrap();
    db.checkpoint().unwrap();
    for x in 0..9_000 {
        db.commit(plain(x, Durability::Buffered)).unwrap();
    }
    db.wait_durable(db.head_seq()).unwrap();
    let all = told(&db, Start::Oldest);
    assert_eq!(all.last().unwrap().seq, db.head_seq());
    check_all(&db, &all, 1);
    assert_eq!(all.iter().map(|committed| committed.states.len()).max(), Some(40_000));
    for seq in [4_096, 4_097, 6_004, 6_005, 6_006, 8_000, 14_000] {
        assert_eq!(told(&db, Start::Seq(seq)), all[seq as usize - 1..], "from {seq}");
    }
}

#[test]
fn what_is_not_durable_is_told_to_nobody() {
    let (disk, db) = create(settings());
    define(&db);
    let mut following = db.subscribe(&Watch::all(), Start::Now, Slow::CatchUp).unwrap();
    let buffered = db.commit(quote("a", 1, Durability::Buffered)).unwrap();
    assert_eq!((db.visible_seq(), db.durable_seq()), (buffered.seq, buffered.seq - 1));
    assert!(following.next_within(Duration::ZERO).unwrap().is_none());
    assert_eq!(told(&db, Start::Seq(buffered.seq)), []);
    // After a cut another transaction has this seq.
    let again = Database::open_on(Arc::new(disk.crash()), settings()).unwrap();
    assert_eq!(again.head_seq(), buffered.seq, "the opening");
    db.wait_durable(buffered.seq).unwrap();
    assert_eq!(following.next_within(Duration::ZERO).unwrap().unwrap().seq, buffered.seq);
}

#[test]
fn who_waits_is_woken_by_the_commit_and_by_the_close() {
    for durability in [Durability::Sync, Durability::Buffered] {
        let options = Options { workers: 2, ..underbelly_tests::options() };
        let (_, db) = create(options);
        define(&db);
        let following = db.subscribe(&Watch::all().slot(QUOTE), Start::Now, Slow::CatchUp).unwrap();
        let waiting = thread::spawn(move || following.map(|told| told.unwrap().seq).collect::<Vec<_>>());
        let first = db.commit(quote("a", 1, durability)).unwrap();
        let second = db.commit(quote("a", 2, durability)).unwrap();
        db.close().unwrap();
        let told = waiting.join().unwrap();
        assert!(told.contains(&first.seq) && told.contains(&second.seq), "{told:?}");
    }
}

#[test]
fn a_failed_log_ends_a_subscription_once_everything_was_told() {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), settings()).unwrap();
    define(&db);
    let mut following = db.subscribe(&Watch::all(), Start::Now, Slow::CatchUp).unwrap();
    let durable = db.commit(quote("a", 1, Durability::Sync)).unwrap();
    disk.fail_at(Some(disk.calls()));
    db.commit(quote("a", 2, Durability::Sync)).unwrap_err();
    assert_eq!(following.next_within(LONG).unwrap().unwrap().seq, durable.seq);
    let ended = following.next_within(LONG);
    assert!(matches!(&ended, Err(FeedError::Commit(underbelly::CommitError::Log(_)))), "{ended:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Threads commit, producers run and checkpoints are made, while some follow from the beginning and some from where
    /// they happen to come in: each is told all the same, once, in order.
    #[test]
    fn nothing_is_left_out_or_told_twice_while_others_commit(seed in any::<u64>()) {
        let options = Options {
            workers: 2,
            checkpoint_operations: 40,
            buffered_delay: Some(Duration::from_millis(1)),
            ..underbelly_tests::options()
        };
        let (_, db) = create(options);
        define(&db);
        let follow = |filter: Watch, start: Start| {
            let following = db.subscribe(&filter, start, Slow::CatchUp).unwrap();
            thread::spawn(move || following.map(Result::unwrap).collect::<Vec<Committed>>())
        };
        let from_the_beginning = follow(Watch::all(), Start::Oldest);
        let prices = follow(Watch::all().slot(PRICE), Start::Oldest);
        let writers: Vec<_> = (0..3u64).map(|writer| {
            let db = db.clone();
            thread::spawn(move || {
                let mut numbers = Numbers::new(seed ^ writer);
                for n in 0..80 {
                    let durability =
                        if numbers.below(2) == 0 { Durability::Sync } else { Durability::Buffered };
                    let batch = match numbers.below(4) {
                        0 => plain(n, durability),
                        _ => quote(&format!("c{}", numbers.below(5)), n, durability),
                    };
                    db.commit(batch).unwrap();
                }
            })
        }).collect();
        let late = follow(Watch::all(), Start::Now);
        for writer in writers {
            writer.join().unwrap();
        }
        assert!(db.wait_idle(LONG));
        let view = std::ops::Deref::deref(&db).clone();
        db.close().unwrap();
        let (all, prices, late) =
            (from_the_beginning.join().unwrap(), prices.join().unwrap(), late.join().unwrap());
        check_all(&view, &all, 1);
        let first = late.first().map_or(all.len(), |committed| committed.seq as usize - 1);
        prop_assert_eq!(&late[..], &all[first..]);
        let mut expected = all.clone();
        expected.iter_mut().for_each(|committed| committed.states.retain(|change| &*change.slot == PRICE));
        expected.retain(|committed| !committed.states.is_empty());
        prop_assert_eq!(prices, expected);
    }
}
