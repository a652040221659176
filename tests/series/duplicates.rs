//! What becomes of rows with the same keys and timestamp, as the rules of their type have it.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use underbelly::{
    Batch, Column, Columns, Commit, CommitError, Database, Delete, Duplicates, Predicate, ReadError, Row,
    SchemaError, Series, SeriesDefinition, SimulatedDisk, Snapshot, Timestamp, Value,
};
use underbelly_tests::{in_memory, options};

const POLICIES: [Duplicates; 4] =
    [Duplicates::KeepAll, Duplicates::LastWins, Duplicates::LastNonNull, Duplicates::Reject];

/// Time, key, and two fields.
type RowOf = (i64, u8, Option<i64>, Option<i64>);

fn row((at, key, x, y): RowOf) -> Row {
    Row::new("s", Timestamp(at)).key("k", i64::from(key)).field("x", x).field("y", y)
}

fn batch(rows: &[RowOf]) -> Batch {
    let mut batch = Batch::new();
    for of in rows {
        batch.append(row(*of)).unwrap();
    }
    batch
}

fn append(db: &Database, rows: &[RowOf]) -> Result<Commit, CommitError> {
    db.commit(batch(rows))
}

/// All rows, which counting, the newest rows and the last points agree with.
fn shown(snapshot: &Snapshot) -> Vec<RowOf> {
    rows_shown(&snapshot.series("s").unwrap())
}

fn rows_shown(series: &Series) -> Vec<RowOf> {
    let rows_of = |rows: &Columns| {
        let number = |name: &str, row| match rows.value(name, row) {
            Some(Value::I64(number)) => Some(number),
            _ => None,
        };
        let row = |row| {
            let at = rows.timestamps("timestamp").unwrap()[row];
            (at, number("k", row).unwrap() as u8, number("x", row), number("y", row))
        };
        (0..rows.rows()).map(row).collect::<Vec<RowOf>>()
    };
    let rows = rows_of(&series.scan().collect().unwrap());
    assert_eq!(series.count().unwrap(), rows.len() as u64);
    let newest = rows_of(&series.latest(usize::MAX, &[]).unwrap());
    assert!(newest.iter().rev().eq(&rows));
    let last = |key: u8| rows.iter().rfind(|row| row.1 == key).copied();
    let points: Vec<RowOf> = (0..=u8::MAX).filter_map(last).collect();
    assert_eq!(rows_of(&series.last_points().unwrap()), points);
    for key in 0..3 {
        let found = series.last_point(&[("k", i64::from(key).into())]).unwrap();
        assert_eq!(found.map(|row| rows_of(&row)[0]), last(key));
    }
    rows
}

fn reopened(disk: &SimulatedDisk) -> Database {
    Database::open_on(Arc::new(disk.crash()), options()).unwrap()
}

fn defined(duplicates: Duplicates, skips: bool) -> SeriesDefinition {
    let definition = SeriesDefinition::new("s").duplicates(duplicates);
    if skips { definition.skip_identical() } else { definition }
}

/// The same rows under each policy: in one transaction, across transactions, checkpoints and openings.
#[test]
fn each_policy_does_what_its_name_says() {
    let first = [(1, 0, Some(1), Some(1)), (1, 1, Some(2), None), (1, 0, None, Some(3))];
    let later = [(1, 0, Some(4), None), (2, 0, Some(4), None)];
    for policy in POLICIES {
        let (disk, db) = in_memory().unwrap();
        db.define_series(defined(policy, false)).unwrap();
        db.define_series(defined(policy, false)).unwrap();
        let expected: &[RowOf] = match policy {
            Duplicates::KeepAll => &[first[0], first[1], first[2], later[0], later[1]],
            Duplicates::LastWins => &[first[1], later[0], later[1]],
            Duplicates::LastNonNull => &[first[1], (1, 0, Some(4), Some(3)), later[1]],
            Duplicates::Reject => &[first[0], first[1], later[1]],
        };
        if policy == Duplicates::Reject {
            let before = db.snapshot().seq();
            for refused in [append(&db, &first), append(&db, &first[..2]).and(append(&db, &later))] {
                let error = refused.unwrap_err();
                let is_named = |error: &CommitError| match error {
                    CommitError::Duplicate { series, keys, timestamp } => {
                        series == "s" && *keys == [("k".to_string(), Value::I64(0))] && timestamp.0 == 1
                    }
                    _ => false,
                };
                assert!(is_named(&error), "{error}");
                assert!(error.to_string().contains("k = 0"), "{error}");
            }
            assert_eq!(db.snapshot().seq(), before + 1, "the two rows alone");
            append(&db, &later[1..]).unwrap();
        } else {
            append(&db, &first).unwrap();
            db.checkpoint().unwrap();
            append(&db, &later).unwrap();
        }
        assert_eq!(shown(&db.snapshot()), expected, "{policy}");
        db.checkpoint().unwrap();
        let reader = Database::open_read_only_on(Arc::new(disk.clone())).unwrap();
        assert_eq!(shown(&reader.snapshot()), expected, "{policy}, to a reader");
        let db = reopened(&disk);
        assert_eq!(shown(&db.snapshot()), expected, "{policy}, after a crash");
        assert_eq!(append(&db, &later).is_err(), policy == Duplicates::Reject, "{policy} is durable");
        assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
    }
}

/// Rows that are there already are left out when the type says so, and equal values at two times are two rows.
#[test]
fn identical_rows_are_skipped_when_that_is_asked_for() {
    let rows = [(1, 0, Some(1), None), (2, 0, Some(1), None), (2, 1, None, None)];
    for (policy, skips) in POLICIES.into_iter().flat_map(|policy| [(policy, false), (policy, true)]) {
        let (disk, db) = in_memory().unwrap();
        db.define_series(defined(policy, skips)).unwrap();
        append(&db, &rows).unwrap();
        assert_eq!(shown(&db.snapshot()), rows, "{policy}: equal values at two times stay");
        let stored = || db.snapshot().series_info("s").unwrap();
        let again = append(&db, &[rows[1], rows[0], rows[1], (3, 0, Some(1), None)]);
        assert_eq!(again.is_err(), policy == Duplicates::Reject && !skips, "{policy}");
        let count = shown(&db.snapshot()).len();
        let more = match (policy, skips) {
            (Duplicates::KeepAll, false) => 4,
            (Duplicates::Reject, false) => 0,
            _ => 1,
        };
        assert_eq!(count, 3 + more, "{policy} {skips}");
        if skips {
            assert_eq!(db.commit(batch(&rows)).unwrap().changed, 0);
            assert_eq!(stored().rows, 4);
            let other = [(1, 0, Some(2), None)];
            assert_eq!(append(&db, &other).is_err(), policy == Duplicates::Reject, "another value");
            let db = reopened(&disk);
            append(&db, &rows[1..]).unwrap();
            assert_eq!(db.snapshot().series_info("s").unwrap().rows, stored().rows);
        }
    }
}

/// A change of the rules is asked for by its own name, counts from then on, and is refused where it would bring back rows that
/// may be gone.
#[test]
fn rules_change_explicitly_and_from_then_on() {
    let (disk, db) = in_memory().unwrap();
    append(&db, &[(1, 0, Some(1), None), (1, 0, Some(2), None)]).unwrap();
    let before = db.snapshot();
    let refused = db.define_series(defined(Duplicates::LastWins, false)).unwrap_err();
    assert!(matches!(refused, SchemaError::SeriesDefined { .. }), "{refused}");
    db.redefine_series(defined(Duplicates::Reject, false)).unwrap();
    assert_eq!(shown(&db.snapshot()).len(), 2, "what is there stays");
    assert!(matches!(append(&db, &[(1, 0, None, None)]), Err(CommitError::Duplicate { .. })));
    db.redefine_series(defined(Duplicates::LastWins, false)).unwrap();
    assert_eq!(shown(&db.snapshot()), [(1, 0, Some(2), None)]);
    db.checkpoint().unwrap();
    assert_eq!(shown(&before).len(), 2, "as it was");
    let db = reopened(&disk);
    assert_eq!(shown(&db.snapshot()), [(1, 0, Some(2), None)]);
    for other in [Duplicates::KeepAll, Duplicates::LastNonNull, Duplicates::Reject] {
        let refused = db.redefine_series(defined(other, false)).unwrap_err();
        assert!(
            matches!(refused, SchemaError::SeriesResolved { from: Duplicates::LastWins, to, .. } if to == other),
            "{refused}"
        );
    }
    db.redefine_series(defined(Duplicates::LastWins, true)).unwrap();
    let own = db.define_series(SeriesDefinition::new("_runs")).unwrap_err();
    assert!(matches!(own, SchemaError::Name { .. }), "{own}");
}

/// Many threads that append the same rows: each row is there once, and nobody is told of a conflict.
#[test]
fn threads_that_append_the_same_leave_it_once() {
    let (_, db) = in_memory().unwrap();
    db.define_series(defined(Duplicates::Reject, true)).unwrap();
    let refused = std::thread::scope(|scope| {
        let threads = (0..4).map(|thread| {
            let db = &db;
            scope.spawn(move || {
                let one = |at| append(db, &[(at, 0, Some(at), None), (at, 1, Some(thread), None)]);
                (0..30)
                    .map(one)
                    .filter(|done| match done {
                        Ok(_) => false,
                        Err(CommitError::Duplicate { .. }) => true,
                        Err(error) => panic!("{error}"),
                    })
                    .count()
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
    });
    assert_eq!((refused, shown(&db.snapshot()).len()), (90, 60));
}

/// Large appends, which are segments at once, are resolved against what is there, and it against them.
#[test]
fn large_appends_are_resolved() {
    let (disk, db) = in_memory().unwrap();
    db.define_series(defined(Duplicates::LastNonNull, false)).unwrap();
    let rows = 140_000usize;
    let bulk = |x: i64| {
        let times = (0..rows).map(|i| Timestamp(i as i64 / 2)).collect();
        let keys: Vec<i64> = (0..rows as i64).map(|i| i % 2).collect();
        let columns = Columns::new().with("k", Column::from(keys)).unwrap();
        let columns = columns.with("x", Column::from(vec![x; rows])).unwrap();
        let mut batch = Batch::new();
        batch.append_columns("s", times, columns, &["k"]).unwrap();
        db.commit(batch).unwrap();
    };
    bulk(1);
    append(&db, &[(5, 0, None, Some(7)), (69_999, 1, Some(8), None)]).unwrap();
    bulk(2);
    append(&db, &[(5, 1, Some(9), None)]).unwrap();
    for db in [&db, &reopened(&disk)] {
        let shown = db.snapshot().series("s").unwrap();
        assert_eq!(shown.count().unwrap(), rows as u64);
        let rows = shown.range(Timestamp(5), Timestamp(6)).unwrap();
        assert_eq!(rows.i64s("x").unwrap(), [2, 9]);
        assert_eq!((rows.value("y", 0), rows.value("y", 1)), (Some(Value::I64(7)), Some(Value::Null)));
        assert_eq!(shown.latest(1, &[]).unwrap().i64s("x").unwrap(), [2]);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<RowOf>),
    Delete { from: Option<i64>, to: Option<i64>, key: Option<u8>, below: Option<i64>, with: Vec<RowOf> },
    Redefine,
    Checkpoint,
    Hold,
    LetGo,
    Reopen,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let field = || prop::option::of(0i64..4);
    let rows = move |most| prop::collection::vec((0i64..8, 0u8..3, field(), field()), 0..most);
    let end = || prop::option::weighted(0.6, 0i64..8);
    let key = prop::option::weighted(0.5, 0u8..3);
    let delete = (end(), end(), key, prop::option::of(0i64..4), rows(3));
    prop_oneof![
        8 => rows(6).prop_map(Step::Append),
        4 => delete.prop_map(|(a, b, key, below, with)| {
            let (from, to) = if a.is_some() && b.is_some() { (a.min(b), a.max(b)) } else { (a, b) };
            Step::Delete { from, to, key, below, with }
        }),
        1 => Just(Step::Redefine),
        3 => Just(Step::Checkpoint),
        2 => Just(Step::Hold),
        1 => Just(Step::LetGo),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ]
}

/// The plainest table that does the same.
#[derive(Clone)]
struct Table {
    rows: Vec<RowOf>,
    policy: Duplicates,
    skips: bool,
}

impl Table {
    /// False where the policy refuses the rows; then nothing is changed.
    fn append(&mut self, rows: &[RowOf]) -> bool {
        let mut after = self.rows.clone();
        for (i, row) in rows.iter().enumerate() {
            // Of rows of which one is shown the last of the transaction counts, as it was given.
            let is_twin = |before: &&RowOf| (before.0, before.1) == (row.0, row.1);
            let given = rows[..i].iter().rfind(is_twin).filter(|_| self.policy.resolves());
            if self.skips && given.map_or_else(|| after.contains(row), |given| given == row) {
                continue;
            }
            let twin = after.iter().position(|before| (before.0, before.1) == (row.0, row.1));
            let mut row = *row;
            match (self.policy, twin) {
                (Duplicates::Reject, Some(_)) => return false,
                (Duplicates::LastWins, Some(at)) => drop(after.remove(at)),
                (Duplicates::LastNonNull, Some(at)) => {
                    let before = after.remove(at);
                    row = (row.0, row.1, row.2.or(before.2), row.3.or(before.3));
                }
                _ => {}
            }
            after.push(row);
        }
        after.sort_by_key(|row| row.0);
        self.rows = after;
        true
    }
}

/// What each transaction left can be asked for, or is told to be gone; with `keeps` nothing is gone.
fn as_known(db: &Database, after: &[(u64, Vec<RowOf>)], keeps: bool) {
    for (seq, rows) in after {
        let past = db.as_known_at(*seq).unwrap();
        match past.series("s") {
            Ok(series) => {
                assert_eq!(rows_shown(&series), *rows, "as known at {seq}");
                assert_eq!(past.seq(), *seq);
            }
            Err(ReadError::BeforeHorizon { seq: asked, oldest, .. }) => {
                assert!(!keeps && asked == *seq && oldest > asked && oldest <= db.snapshot().seq());
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn live(policy: Duplicates, skips: bool, keeps: bool, steps: Vec<Step>) {
    let defined = |policy, skips| {
        let definition = defined(policy, skips);
        if keeps { definition.history(Duration::from_secs(3600)) } else { definition }
    };
    let mut disk = SimulatedDisk::new();
    let mut db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    let first = [(0, 0, Some(0), None)];
    let mut table = Table { rows: Vec::new(), policy, skips };
    db.define_series(defined(policy, skips)).unwrap();
    append(&db, &first).unwrap();
    table.append(&first);
    let mut reader = Database::open_read_only_on(Arc::new(disk.clone())).unwrap();
    let mut held: Vec<(Snapshot, Vec<RowOf>)> = Vec::new();
    let mut after: Vec<(u64, Vec<RowOf>)> = Vec::new();
    for step in steps {
        match step {
            Step::Append(rows) => {
                let done = append(&db, &rows);
                assert_eq!(done.is_ok(), table.append(&rows), "{done:?}");
            }
            Step::Delete { from, to, key, below, with } => {
                let mut delete = Delete::all();
                delete = if let Some(from) = from { delete.from(Timestamp(from)) } else { delete };
                delete = if let Some(to) = to { delete.to(Timestamp(to)) } else { delete };
                delete = if let Some(key) = key { delete.key("k", i64::from(key)) } else { delete };
                delete =
                    if let Some(x) = below { delete.filter("x", Predicate::Below(x.into())) } else { delete };
                let mut batch = batch(&with);
                batch.delete_rows("s", delete);
                let mut next = table.clone();
                next.rows.retain(|row| {
                    let within = from.is_none_or(|from| row.0 >= from) && to.is_none_or(|to| row.0 < to);
                    let is_below = below.is_none_or(|below| row.2.is_some_and(|x| x < below));
                    !(within && is_below && key.is_none_or(|key| row.1 == key))
                });
                let done = db.commit(batch);
                assert_eq!(done.is_ok(), next.append(&with), "{done:?}");
                if done.is_ok() {
                    table = next;
                }
            }
            Step::Redefine => {
                let next = match table.policy {
                    Duplicates::KeepAll => Duplicates::Reject,
                    Duplicates::Reject if skips => Duplicates::LastWins,
                    Duplicates::Reject => Duplicates::LastNonNull,
                    resolves => resolves,
                };
                db.redefine_series(defined(next, skips)).unwrap();
                let rows = std::mem::take(&mut table.rows);
                table = Table { rows: Vec::new(), policy: next, skips };
                match next.resolves() {
                    true => assert!(table.append(&rows)),
                    false => table.rows = rows,
                }
            }
            Step::Checkpoint => drop(db.checkpoint().unwrap()),
            Step::Hold => held.push((db.snapshot(), table.rows.clone())),
            Step::LetGo => drop(held.drain(..held.len().min(1))),
            Step::Reopen => {
                db.close().unwrap();
                db = Database::open_on(Arc::new(disk.clone()), options()).unwrap();
                reader = Database::open_read_only_on(Arc::new(disk.clone())).unwrap();
            }
            Step::Crash => {
                disk = disk.crash();
                db = Database::open_on(Arc::new(disk.clone()), options()).unwrap();
                reader = Database::open_read_only_on(Arc::new(disk.clone())).unwrap();
            }
        }
        assert_eq!(shown(&db.snapshot()), table.rows);
        reader.refresh().unwrap();
        assert_eq!(shown(&reader.snapshot()), table.rows, "beside the writer");
        held.iter().for_each(|(snapshot, expected)| assert_eq!(shown(snapshot), *expected));
        after.push((db.snapshot().seq(), table.rows.clone()));
        as_known(&db, &after, keeps);
    }
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
    held.clear();
    (0..2).for_each(|_| drop(db.checkpoint().unwrap()));
    assert_eq!(shown(&db.snapshot()), table.rows);
    as_known(&db, &after, keeps);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 160, max_shrink_iters: 600, failure_persistence: None, ..ProptestConfig::default()
    })]

    /// Appends with ties, deletes by range, key and value, changes of the rules, checkpoints, openings and crashes in any order,
    /// beside older snapshots.
    #[test]
    fn series_with_rules_are_what_the_model_says(
        policy in prop::sample::select(POLICIES.to_vec()),
        skips in any::<bool>(),
        keeps in any::<bool>(),
        steps in prop::collection::vec(step(), 1..30),
    ) {
        live(policy, skips, keeps, steps);
    }
}

/// A wider number is compared as such, and one that its field does not hold is refused though it looks the same when it is
/// rounded.
#[test]
fn rows_of_other_number_types_are_compared_by_their_values() {
    let (_, db) = in_memory().unwrap();
    db.define_series(defined(Duplicates::KeepAll, true)).unwrap();
    let put = |ts: i64, x: Value| {
        let mut batch = Batch::new();
        batch.append(Row::new("s", Timestamp(ts)).key("k", 0i64).field("x", x))?;
        db.commit(batch)
    };
    put(1, Value::I64(1)).unwrap();
    put(1, Value::F64(1.5)).unwrap();
    put(1, Value::F64(1.0)).unwrap();
    let rows = db.snapshot().series("s").unwrap().scan().collect().unwrap();
    assert_eq!(rows.f64s("x").unwrap(), [1.0, 1.5]);
    put(2, Value::F64(9_007_199_254_740_992.0)).unwrap();
    let refused = put(2, Value::I64(9_007_199_254_740_993)).unwrap_err();
    assert!(!matches!(refused, CommitError::SeriesChanged { .. }), "{refused}");
}
