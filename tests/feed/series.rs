//! Rows of a series are followed from any transaction on, and mirrors show what the series shows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use underbelly::{
    Appended, Batch, Columns, CommitError, Database, Delete, Duplicates, FeedError, Kept, Row,
    SeriesDefinition, Slow, Start, Timestamp, Value,
};
use underbelly_tests::{in_memory, options};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

fn commit(db: &Database, rows: &[(i64, &str, i64)]) -> u64 {
    let mut batch = Batch::new();
    for (at, key, x) in rows {
        batch.append(Row::new("s", Timestamp(*at)).key("k", *key).field("x", *x)).unwrap();
    }
    db.commit(batch).unwrap().seq
}

/// A transaction without rows of the series.
fn other(db: &Database) -> u64 {
    let mut batch = Batch::new();
    batch.append(Row::new("other", Timestamp(0)).field("y", 1)).unwrap();
    db.commit(batch).unwrap().seq
}

fn lines(rows: &Columns) -> Vec<Vec<Value>> {
    (0..rows.rows()).map(|row| rows.row(row)).collect()
}

fn xs(appended: &Appended) -> (u64, Vec<i64>) {
    (appended.seq, appended.rows.i64s("x").unwrap().to_vec())
}

fn told(db: &Database, start: Start) -> Vec<(u64, Vec<i64>)> {
    db.series_feed("s", start).unwrap().map(|appended| xs(&appended.unwrap())).collect()
}

#[test]
fn rows_are_told_in_order_of_commit_from_any_transaction_on() {
    let (disk, db) = in_memory().unwrap();
    let mut following = db.subscribe_series("s", Start::Oldest, Slow::CatchUp).unwrap();
    assert!(following.next_within(Duration::ZERO).unwrap().is_none(), "there is no series yet");
    let first = commit(&db, &[(30, "a", 0), (10, "b", 1)]);
    other(&db);
    let second = commit(&db, &[(20, "a", 2), (20, "b", 3), (5, "a", 4)]);
    // In order of time within a commit; ties in order of arrival.
    let expected = vec![(first, vec![1, 0]), (second, vec![4, 2, 3])];
    let heard: Vec<_> = (0..2).map(|_| xs(&following.next_within(LONG).unwrap().unwrap())).collect();
    assert_eq!(heard, expected);
    db.checkpoint().unwrap();
    let third = commit(&db, &[(10, "a", 5)]);
    assert_eq!(xs(&following.next_within(LONG).unwrap().unwrap()), (third, vec![5]));
    assert_eq!(following.next_seq(), third + 1);
    let all = [&expected[..], &[(third, vec![5])]].concat();
    assert_eq!(told(&db, Start::Oldest), all);
    assert_eq!(told(&db, Start::Seq(first + 1)), all[1..]);
    assert_eq!(told(&db, Start::Now), []);
    assert!(matches!(db.series_feed("s", Start::Seq(third + 2)), Err(FeedError::Ahead { .. })));
    db.close().unwrap();
    assert!(matches!(following.next_within(LONG), Err(FeedError::Commit(CommitError::Closed))));
    // Nothing of it is lost with the process.
    let db = Database::open_on(Arc::new(disk.clone()), options()).unwrap();
    assert_eq!(told(&db, Start::Oldest), all);
}

#[test]
fn who_waits_for_rows_is_woken_by_their_commit() {
    let (_disk, db) = in_memory().unwrap();
    let following = db.subscribe_series("s", Start::Now, Slow::CatchUp).unwrap();
    let listener = std::thread::spawn(move || {
        following.take(100).map(|appended| xs(&appended.unwrap())).collect::<Vec<_>>()
    });
    let committed: Vec<_> = (0..100)
        .map(|x| {
            if x % 3 == 0 {
                other(&db);
            }
            (commit(&db, &[(100 - x, "a", x)]), vec![x])
        })
        .collect();
    assert_eq!(listener.join().unwrap(), committed);
}

#[test]
fn slow_followers_of_rows_are_dealt_with_as_they_asked() {
    let (_disk, db) = in_memory().unwrap();
    let slow = |slow| db.subscribe_series("s", Start::Now, slow).unwrap();
    let (mut all, mut skip, mut fail) =
        (slow(Slow::CatchUp), slow(Slow::Skip { behind: 2 }), slow(Slow::Fail { behind: 2 }));
    let seqs: Vec<u64> = (0..5).map(|x| commit(&db, &[(x, "a", x)])).collect();
    assert_eq!(all.next_within(LONG).unwrap().unwrap().seq, seqs[0]);
    let skipped = skip.next_within(LONG).unwrap().unwrap();
    assert_eq!((skipped.seq, skipped.skipped), (seqs[3], 3));
    let last = skip.next_within(LONG).unwrap().unwrap();
    assert_eq!((last.seq, last.skipped), (seqs[4], 0));
    let error = fail.next_within(LONG).unwrap_err();
    assert!(matches!(error, FeedError::TooSlow { behind: 5, allowed: 2, .. }), "{error}");
}

#[test]
fn a_consumer_of_rows_with_a_cursor_takes_each_once() {
    let (disk, db) = in_memory().unwrap();
    let expected: Vec<u64> = (0..6).map(|x| commit(&db, &[(x, "a", x)])).collect();
    let take = |db: &Database, count: usize| -> Vec<u64> {
        let feed = db.series_feed("s", Start::Cursor("sink".to_string())).unwrap();
        let consume = |appended: Appended| {
            db.transact::<_, CommitError>(|tx| {
                tx.append(Row::new("copy", Timestamp(0)).field("seq", appended.seq as i64))?;
                tx.advance_cursor("sink", appended.seq)
            })
            .unwrap();
            appended.seq
        };
        feed.take(count).map(|appended| consume(appended.unwrap())).collect()
    };
    let first = take(&db, 4);
    let crashed = Database::open_on(Arc::new(disk.crash()), options()).unwrap();
    assert_eq!([first, take(&crashed, 9)].concat(), expected);
    assert_eq!(crashed.snapshot().series("copy").unwrap().count().unwrap(), 6);
}

/// What happens to a series.
#[derive(Clone, Debug)]
enum Step {
    Append(Vec<(i64, u8, i64)>),
    Delete(i64, i64),
    Checkpoint,
    Other,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let rows = prop::collection::vec((0i64..50, 0u8..4, any::<i64>()), 1..8);
    let step = prop_oneof![
        6 => rows.prop_map(Step::Append),
        1 => (0i64..50, 1i64..10).prop_map(|(at, length)| Step::Delete(at, length)),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Other),
    ];
    prop::collection::vec(step, 1..25)
}

fn play(db: &Database, step: &Step) -> u64 {
    match step {
        Step::Append(rows) => {
            let names = ["a", "b", "c", "d"];
            let rows: Vec<_> = rows.iter().map(|(at, key, x)| (*at, names[usize::from(*key)], *x)).collect();
            commit(db, &rows)
        }
        Step::Delete(at, length) if db.snapshot().series("s").is_ok() => {
            let mut batch = Batch::new();
            batch.delete_rows("s", Delete::all().from(Timestamp(*at)).to(Timestamp(at + length)));
            db.commit(batch).unwrap().seq
        }
        Step::Checkpoint => {
            db.checkpoint().unwrap();
            db.snapshot().seq()
        }
        Step::Delete(..) | Step::Other => other(db),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]
    #[test]
    fn a_mirror_is_what_the_series_says_at_each_transaction(steps in steps(), length in 0u64..60) {
        let (_disk, db) = in_memory().unwrap();
        let points = db.mirror("s", Kept::LastPoints).unwrap();
        let window = db.mirror("s", Kept::Window(Duration::from_nanos(length))).unwrap();
        for step in &steps {
            let seq = play(&db, step);
            let shown = points.get_at(seq, LONG).unwrap();
            let Ok(series) = db.snapshot().series("s") else {
                prop_assert_eq!(shown.rows.width(), 0);
                continue;
            };
            prop_assert_eq!(lines(&shown.rows), lines(&series.last_points().unwrap()));
            let all = series.scan().collect().unwrap();
            let newest = all.timestamps("timestamp").unwrap().last().copied().unwrap_or(0);
            let is_kept = |row: &Vec<Value>| {
                matches!(row[0], Value::Timestamp(at) if newest - at.0 < length as i64)
            };
            let expected: Vec<_> = lines(&all).into_iter().filter(is_kept).collect();
            prop_assert_eq!(lines(&window.get_at(seq, LONG).unwrap().rows), expected);
        }
    }

    #[test]
    fn rows_of_each_commit_are_told_once_wherever_they_are_stored(steps in steps(), from in 0usize..20) {
        let (_disk, db) = in_memory().unwrap();
        let mut following = db.subscribe_series("s", Start::Oldest, Slow::CatchUp).unwrap();
        let mut expected: BTreeMap<u64, Vec<(i64, i64)>> = BTreeMap::new();
        for step in steps.iter().filter(|step| !matches!(step, Step::Delete(..))) {
            let seq = play(&db, step);
            if let Step::Append(rows) = step {
                let mut rows: Vec<(i64, i64)> = rows.iter().map(|(at, _, x)| (*at, *x)).collect();
                rows.sort_by_key(|(at, _)| *at);
                expected.insert(seq, rows.clone());
                let told = following.next_within(LONG).unwrap().unwrap();
                prop_assert_eq!((told.seq, pairs(&told)), (seq, rows));
            }
        }
        prop_assert!(following.next_within(Duration::ZERO).unwrap().is_none());
        let from = from as u64 + 1;
        if from <= db.snapshot().seq() + 1 {
            let feed = db.series_feed("s", Start::Seq(from)).unwrap();
            let told: Vec<_> = feed.map(|told| told.map(|told| (told.seq, pairs(&told))).unwrap()).collect();
            let expected: Vec<_> = expected.range(from..).map(|(seq, rows)| (*seq, rows.clone())).collect();
            prop_assert_eq!(told, expected);
        }
    }
}

fn pairs(appended: &Appended) -> Vec<(i64, i64)> {
    let times = appended.rows.timestamps("timestamp").unwrap();
    times.iter().copied().zip(appended.rows.i64s("x").unwrap().iter().copied()).collect()
}

#[test]
fn a_mirror_of_a_closed_database_shows_what_it_showed_last() {
    let (_disk, db) = in_memory().unwrap();
    let seq = commit(&db, &[(1, "a", 1), (2, "a", 2)]);
    let mirror = db.mirror("s", Kept::LastPoints).unwrap();
    let held = mirror.get_at(seq, LONG).unwrap();
    let later = commit(&db, &[(3, "a", 3)]);
    assert_eq!(mirror.get_at(later, LONG).unwrap().rows.i64s("x").unwrap(), [3]);
    assert_eq!(held.rows.i64s("x").unwrap(), [2], "what is held does not change");
    db.close().unwrap();
    assert!(mirror.get_at(u64::MAX, LONG).is_none());
    assert!(matches!(*mirror.ended().unwrap(), FeedError::Commit(CommitError::Closed)));
    assert_eq!(mirror.get().rows.i64s("x").unwrap(), [3]);
}

/// Whatever is shown of them, and whatever a checkpoint leaves out while they are told.
#[test]
fn rows_are_told_as_they_were_appended() {
    let (_disk, db) = in_memory().unwrap();
    db.define_series(SeriesDefinition::new("s").duplicates(Duplicates::LastWins)).unwrap();
    let mut following = db.subscribe_series("s", Start::Oldest, Slow::CatchUp).unwrap();
    let seqs: Vec<u64> = (0..4).map(|x| commit(&db, &[(1, "a", x), (2 + x, "b", x)])).collect();
    let expected: Vec<(u64, Vec<i64>)> = seqs.iter().zip(0..).map(|(seq, x)| (*seq, vec![x, x])).collect();
    assert_eq!(db.snapshot().series("s").unwrap().count().unwrap(), 5);
    assert_eq!(told(&db, Start::Oldest), expected);
    let feed = db.series_feed("s", Start::Oldest).unwrap();
    let mut batch = Batch::new();
    batch.delete_rows("s", Delete::all().from(Timestamp(0)).to(Timestamp(3)));
    db.commit(batch).unwrap();
    db.checkpoint().unwrap();
    // What was deleted before it was told is not told.
    let left: Vec<(u64, Vec<i64>)> =
        expected[1..].iter().map(|(seq, rows)| (*seq, rows[1..].to_vec())).collect();
    let told: Vec<_> = feed.map(|appended| xs(&appended.unwrap())).collect();
    assert_eq!(told, left);
    let heard: Vec<_> = (0..3).map(|_| xs(&following.next_within(LONG).unwrap().unwrap())).collect();
    assert_eq!(heard, left);
}
