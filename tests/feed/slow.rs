//! What becomes of who is slower than the commits.

use std::time::Duration;

use underbelly::{Database, Durability, FeedError, Slow, Start, Subscription, Watch};

use crate::{create, define, plain, quote, settings};

fn commit(db: &Database, count: i64) {
    for x in 0..count {
        db.commit(plain(x, Durability::Sync)).unwrap();
    }
}

fn seqs(following: &mut Subscription) -> Vec<(u64, u64)> {
    let next = || following.next_within(Duration::ZERO).unwrap();
    std::iter::from_fn(next).map(|committed| (committed.seq, committed.skipped)).collect()
}

#[test]
fn who_catches_up_is_told_everything() {
    let (_, db) = create(settings());
    let first = db.head_seq() + 1;
    let mut following = db.subscribe(&Watch::all(), Start::Now, Slow::CatchUp).unwrap();
    for round in 0..5 {
        commit(&db, 3_000);
        if round % 2 == 1 {
            db.checkpoint().unwrap();
        }
    }
    let expected: Vec<(u64, u64)> = (first..=db.head_seq()).map(|seq| (seq, 0)).collect();
    assert_eq!(seqs(&mut following), expected);
}

#[test]
fn who_skips_is_told_the_newest_and_how_many_it_missed() {
    let (_, db) = create(settings());
    let before = db.head_seq();
    let mut following = db.subscribe(&Watch::all(), Start::Now, Slow::Skip { behind: 3 }).unwrap();
    commit(&db, 3);
    let expected: Vec<(u64, u64)> = (before + 1..=before + 3).map(|seq| (seq, 0)).collect();
    assert_eq!(seqs(&mut following), expected);
    commit(&db, 10);
    let head = db.head_seq();
    assert_eq!(seqs(&mut following), [(head - 2, 7), (head - 1, 0), (head, 0)]);
}

/// What was skipped is told with the next transaction that passes the filter.
#[test]
fn what_was_skipped_is_told_with_the_next_that_passes() {
    let (_, db) = create(settings());
    define(&db);
    let mut following = db.subscribe(&Watch::states(), Start::Now, Slow::Skip { behind: 2 }).unwrap();
    commit(&db, 10);
    assert_eq!(seqs(&mut following), []);
    let put = db.commit(quote("a", 1, Durability::Sync)).unwrap();
    assert_eq!(seqs(&mut following), [(put.seq, 8)]);
}

#[test]
fn who_fails_is_told_where_it_was() {
    let (_, db) = create(settings());
    let before = db.head_seq();
    let mut following = db.subscribe(&Watch::all(), Start::Now, Slow::Fail { behind: 3 }).unwrap();
    commit(&db, 3);
    assert_eq!(following.next_within(Duration::ZERO).unwrap().unwrap().seq, before + 1);
    commit(&db, 2);
    for _ in 0..2 {
        let error = following.next_within(Duration::ZERO).unwrap_err();
        assert!(
            matches!(error, FeedError::TooSlow { next, behind: 4, allowed: 3 } if next == before + 2),
            "{error}"
        );
    }
    // As an iterator it ends.
    assert!(matches!(following.next(), Some(Err(FeedError::TooSlow { .. }))));
    assert!(following.next().is_none());
}
