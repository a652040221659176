//! Deleted rows are hidden from their commit on and from no snapshot before it, and checkpoints leave them out.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use underbelly::{
    Batch, Column, Columns, Commit, CommitError, Database, Delete, Duplicates, Options, Predicate,
    QueryError, ReadError, Row, SeriesDefinition, SimulatedDisk, Snapshot, Timestamp, Value,
    limits::DELETES_MAX,
};
use underbelly_tests::{in_memory, options};

/// Time, key and number.
type RowOf = (i64, Option<&'static str>, i64);

fn append(db: &Database, rows: impl IntoIterator<Item = RowOf>) -> Commit {
    let mut batch = Batch::new();
    for (at, key, x) in rows {
        let row = Row::new("s", Timestamp(at)).field("x", x);
        batch.append(if let Some(key) = key { row.key("k", key) } else { row }).unwrap();
    }
    db.commit(batch).unwrap()
}

fn delete(db: &Database, delete: Delete) -> Commit {
    let mut batch = Batch::new();
    batch.delete_rows("s", delete);
    db.commit(batch).unwrap()
}

/// Numbers of all rows in order, which counting, the newest rows and the last points agree with.
fn numbers(snapshot: &Snapshot) -> Vec<i64> {
    let series = snapshot.series("s").unwrap();
    let rows = series.scan().collect().unwrap();
    let x = rows.i64s("x").unwrap_or_default().to_vec();
    assert_eq!(series.count().unwrap(), x.len() as u64);
    let newest = series.latest(usize::MAX, &[]).unwrap();
    assert!(newest.i64s("x").unwrap_or_default().iter().rev().eq(&x));
    let info = snapshot.series_info("s").unwrap();
    assert_eq!(info.rows, x.len() as u64);
    let times = rows.timestamps("timestamp").unwrap();
    assert_eq!(
        info.first.zip(info.last).map(|(a, b)| (a.0, b.0)),
        times.first().copied().zip(times.last().copied())
    );
    let key = |row| rows.value("k", row).and_then(|key| key.as_str().map(str::to_string));
    let points: BTreeMap<Option<String>, i64> = (0..rows.rows()).map(|row| (key(row), x[row])).collect();
    let last = series.last_points().unwrap();
    assert_eq!(last.i64s("x").unwrap_or_default(), points.values().copied().collect::<Vec<_>>());
    for key in KEYS {
        let found = series.last_point(&[("k", key.map_or(Value::Null, Value::from))]).unwrap();
        let found = found.map(|row| row.i64s("x").unwrap_or_default().to_vec());
        assert_eq!(found, points.get(&key.map(str::to_string)).map(|x| vec![*x]), "{key:?}");
    }
    x
}

fn reopened(disk: &SimulatedDisk) -> Database {
    Database::open_on(Arc::new(disk.crash()), options()).unwrap()
}

/// By key, by range, by both, without a key: what was appended before is hidden, in sealed runs, late ones and young ones,
/// and what is appended later, be it as old, is not. It stays so after crashes, checkpoints and openings, and for readers.
#[test]
fn deleted_rows_stay_deleted_and_older_snapshots_see_them() {
    let (disk, db) = in_memory().unwrap();
    append(&db, [(10, Some("a"), 1), (20, Some("b"), 2), (30, None, 3), (40, Some("a"), 4)]);
    db.checkpoint().unwrap();
    append(&db, [(15, Some("a"), 5), (20, Some("b"), 6)]);
    db.checkpoint().unwrap();
    append(&db, [(35, Some("b"), 7), (12, None, 8)]);
    let steps: [(Delete, &[i64]); 6] = [
        (Delete::all().key("k", "a").from(Timestamp(11)).to(Timestamp(40)), &[1, 8, 2, 6, 3, 7, 4]),
        (Delete::all().key("k", Value::Null).to(Timestamp(30)), &[1, 2, 6, 3, 7, 4]),
        (Delete::all().from(Timestamp(20)).to(Timestamp(21)), &[1, 3, 7, 4]),
        (Delete::all().key("k", "c"), &[1, 3, 7, 4]),
        (Delete::all().from(Timestamp(35)), &[1, 3]),
        (Delete::all(), &[]),
    ];
    let mut held = vec![(db.snapshot(), vec![1, 8, 5, 2, 6, 3, 7, 4])];
    for (what, left) in steps {
        delete(&db, what.clone());
        assert_eq!(numbers(&db.snapshot()), left, "{what:?}");
        held.push((db.snapshot(), left.to_vec()));
        assert_eq!(numbers(&reopened(&disk).snapshot()), left, "{what:?}, after a crash");
        let reader = Database::open_read_only_on(Arc::new(disk.clone())).unwrap();
        assert_eq!(numbers(&reader.snapshot()), left, "{what:?}, to a reader");
        held.iter().for_each(|(snapshot, left)| assert_eq!(numbers(snapshot), *left));
    }
    append(&db, [(10, Some("a"), 9)]);
    for _ in 0..2 {
        db.checkpoint().unwrap();
        held.iter().for_each(|(snapshot, left)| assert_eq!(numbers(snapshot), *left));
        assert_eq!(numbers(&db.snapshot()), [9]);
        assert_eq!(numbers(&reopened(&disk).snapshot()), [9]);
    }
    assert_eq!(db.snapshot().series_info("s").unwrap().deletes, 6, "older snapshots see the rows");
    drop(held);
    let report = db.checkpoint().unwrap();
    assert_eq!((report.rows_deleted, db.snapshot().series_info("s").unwrap().deletes), (8, 0));
    assert_eq!(numbers(&reopened(&disk).snapshot()), [9]);
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
    // The columns stay, and with them their types.
    let names: Vec<String> =
        db.snapshot().series("s").unwrap().schema().columns.iter().map(|c| c.name.to_string()).collect();
    assert_eq!(names, ["k", "x"]);
}

/// Several values are as many deletes, of all rows and of those that are shown for others.
#[test]
fn rows_with_one_of_several_values_are_deleted() {
    for duplicates in [Duplicates::KeepAll, Duplicates::LastWins] {
        let (disk, db) = in_memory().unwrap();
        db.define_series(SeriesDefinition::new("s").duplicates(duplicates)).unwrap();
        append(&db, [(10, Some("a"), 1), (20, Some("b"), 2), (30, None, 3), (40, Some("a"), 4)]);
        db.checkpoint().unwrap();
        append(&db, [(50, Some("b"), 5), (60, None, 5), (70, Some("a"), 5), (80, Some("c"), 3)]);
        let of_x = |values: &[i64]| Delete::all().filter("x", Predicate::one_of(values.iter().copied()));
        delete(&db, of_x(&[]));
        delete(&db, of_x(&[9, 4, 9]));
        assert_eq!(numbers(&db.snapshot()), [1, 2, 3, 5, 5, 5, 3]);
        let of_keys = Predicate::one_of([Value::from("a"), Value::Null, Value::from("b")]);
        delete(&db, of_x(&[5, 3]).filter("k", of_keys).to(Timestamp(70)));
        for db in [db, reopened(&disk)] {
            assert_eq!(numbers(&db.snapshot()), [1, 2, 5, 3], "{duplicates:?}");
            db.checkpoint().unwrap();
            assert_eq!(numbers(&db.snapshot()), [1, 2, 5, 3], "{duplicates:?}");
        }
    }
    let (_disk, db) = in_memory().unwrap();
    append(&db, [(10, Some("a"), 1)]);
    let refused = |delete: Delete| {
        let mut batch = Batch::new();
        batch.delete_rows("s", delete);
        db.commit(batch).unwrap_err()
    };
    let none: [i64; 0] = [];
    let unknown = refused(Delete::all().filter("y", Predicate::one_of(none)));
    assert!(
        matches!(unknown, CommitError::Read(ReadError::Query(QueryError::UnknownColumn { .. }))),
        "{unknown}"
    );
    let wrong = refused(Delete::all().filter("x", Predicate::one_of(["a"])));
    assert!(matches!(wrong, CommitError::Read(ReadError::Query(QueryError::ValueType { .. }))), "{wrong}");
    let many = || Predicate::one_of(0..200i64);
    let both = refused(Delete::all().filter("x", many()).filter("x", many()));
    assert!(matches!(both, CommitError::TooManyDeletes { found: 40_000, .. }), "{both}");
    assert_eq!(numbers(&db.snapshot()), [1]);
}

/// However many values one column may have: where another may have none there is nothing to do. Repeats count once.
#[test]
fn a_delete_that_asks_for_nothing_is_done_at_once() {
    for duplicates in [Duplicates::KeepAll, Duplicates::LastWins] {
        let (_disk, db) = in_memory().unwrap();
        db.define_series(SeriesDefinition::new("s").duplicates(duplicates)).unwrap();
        append(&db, [(10, Some("a"), 1), (20, Some("b"), 2), (30, None, 3)]);
        let (many, none) = (Predicate::one_of(0..1_000_000i64), Predicate::one_of([Value::Null; 0]));
        delete(&db, Delete::all().filter("x", many.clone()).filter("k", none.clone()));
        delete(&db, Delete::all().filter("k", none).filter("x", many));
        let info = db.snapshot().series_info("s").unwrap();
        assert_eq!((numbers(&db.snapshot()), info.deletes), (vec![1, 2, 3], 0), "{duplicates:?}");
        delete(&db, Delete::all().filter("x", Predicate::one_of([2i64, 2, 2])));
        let info = db.snapshot().series_info("s").unwrap();
        assert_eq!((numbers(&db.snapshot()), info.deletes), (vec![1, 3], 1), "{duplicates:?}");
    }
}

/// Rows that are shown for others are found at once, whatever the number of values.
#[test]
fn one_of_any_number_of_values_is_deleted_where_one_row_is_shown_for_several() {
    let (_disk, db) = in_memory().unwrap();
    db.define_series(SeriesDefinition::new("s").duplicates(Duplicates::LastWins)).unwrap();
    append(&db, [(10, Some("a"), 1), (20, Some("b"), 200_000), (30, None, 3)]);
    delete(&db, Delete::all().filter("x", Predicate::one_of(3..100_000i64)));
    assert_eq!(numbers(&db.snapshot()), [1, 200_000]);
}

/// What a batch appends, before the delete or after it, is not deleted by it.
#[test]
fn a_batch_deletes_what_was_there_before_it() {
    let (disk, db) = in_memory().unwrap();
    append(&db, [(1, Some("a"), 1)]);
    let mut batch = Batch::new();
    batch.append(Row::new("s", Timestamp(1)).key("k", "a").field("x", 2)).unwrap();
    batch.delete_rows("s", Delete::all()).delete_rows("s", Delete::all().key("k", "b"));
    batch.append(Row::new("s", Timestamp(0)).key("k", "a").field("x", 3)).unwrap();
    // A series that is made by the batch.
    batch.append(Row::new("new", Timestamp(0)).field("x", 3)).unwrap();
    batch.delete_rows("new", Delete::all());
    assert_eq!(batch.len(), 6);
    db.commit(batch).unwrap();
    for db in [&db, &reopened(&disk)] {
        assert_eq!(numbers(&db.snapshot()), [3, 2]);
        assert_eq!(db.snapshot().series("new").unwrap().count().unwrap(), 1);
    }
}

/// Segments that are wholly deleted go without being read, others are written anew without what is deleted, and the rest
/// is left alone; at most so many bytes at a time, and one segment at least.
#[test]
fn checkpoints_leave_deleted_rows_out() {
    let disk = SimulatedDisk::new();
    let bounded = |checkpoint_bytes| Options { checkpoint_bytes, workers: 0, ..options() };
    let db = Database::create_on(Arc::new(disk.clone()), bounded(1 << 20)).unwrap();
    let files =
        || disk.files().into_iter().filter(|name| name.starts_with("segments/s/")).collect::<Vec<_>>();
    for day in 0..5i64 {
        append(&db, (0..100).map(|i| (day * 1000 + i, Some(if i % 2 == 0 { "a" } else { "b" }), day)));
        db.checkpoint().unwrap();
    }
    let before = files();
    assert_eq!(before.len(), 5);
    // The second day as a whole, half of the third.
    delete(&db, Delete::all().from(Timestamp(1000)).to(Timestamp(2000)));
    delete(&db, Delete::all().key("k", "a").from(Timestamp(2000)).to(Timestamp(3000)));
    let report = db.checkpoint().unwrap();
    assert_eq!((report.rows_deleted, report.segments), (150, 2), "that of the feed among them");
    (0..2).for_each(|_| {
        db.checkpoint().unwrap();
    });
    let after = files();
    let kept = before.iter().filter(|name| after.contains(name)).count();
    assert_eq!((after.len(), kept), (4, 3), "{before:?} became {after:?}");
    let count = |day: i64| numbers(&db.snapshot()).iter().filter(|x| **x == day).count();
    assert_eq!([0, 1, 2, 3, 4].map(count), [100, 0, 50, 100, 100]);
    // A key in every segment, and a checkpoint that may write hardly anything: one segment at a time.
    drop(db);
    let db = Database::open_on(Arc::new(disk.clone()), bounded(1)).unwrap();
    delete(&db, Delete::all().key("k", "b"));
    let left: Vec<(u64, usize)> = (0..5)
        .map(|_| {
            let deleted = db.checkpoint().unwrap().rows_deleted;
            assert_eq!(db.snapshot().series("s").unwrap().count().unwrap(), 150);
            (deleted, db.snapshot().series_info("s").unwrap().deletes)
        })
        .collect();
    assert_eq!(left, [(50, 1), (50, 1), (50, 1), (50, 0), (0, 0)]);
    let db = reopened(&disk);
    assert_eq!(db.snapshot().series("s").unwrap().count().unwrap(), 150);
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
}

/// A look at a segment that holds no deleted row counts too, and what it showed is kept, over an opening as well: a key that
/// no segment holds is looked for in one at a time, and in none twice.
#[test]
fn a_look_for_deleted_rows_is_bounded_and_not_repeated() {
    let disk = SimulatedDisk::new();
    let bounded = || Options { checkpoint_bytes: 1, workers: 0, ..options() };
    let db = Database::create_on(Arc::new(disk.clone()), bounded()).unwrap();
    for day in 0..5i64 {
        append(&db, (0..100).map(|i| (day * 1000 + i, Some(if i % 2 == 0 { "a" } else { "c" }), day)));
        db.checkpoint().unwrap();
    }
    delete(&db, Delete::all().key("k", "b"));
    let deletes = |db: &Database| db.snapshot().series_info("s").unwrap().deletes;
    let left = |db: &Database| {
        assert_eq!(db.checkpoint().unwrap().rows_deleted, 0);
        deletes(db)
    };
    assert_eq!([left(&db), left(&db)], [1, 1]);
    // A later delete has each looked at again, the earlier one has not.
    delete(&db, Delete::all().key("k", "d").from(Timestamp(4000)));
    assert_eq!(left(&db), 2);
    drop(db);
    let db = Database::open_on(Arc::new(disk.crash()), bounded()).unwrap();
    assert_eq!([left(&db), left(&db), left(&db)], [2, 0, 0]);
}

/// Deletes that wait are few: each counts as many operations towards the next checkpoint.
#[test]
fn deletes_call_for_a_checkpoint() {
    let disk = SimulatedDisk::new();
    let options = Options { checkpoint_operations: 10_000, workers: 0, ..options() };
    let db = Database::create_on(Arc::new(disk), options).unwrap();
    append(&db, (0..50).map(|i| (i, Some("a"), i)));
    for i in 0..25 {
        delete(&db, Delete::all().from(Timestamp(i)).to(Timestamp(i + 1)));
        db.run_ready().unwrap();
        assert!(db.snapshot().series_info("s").unwrap().deletes < 10);
    }
    assert_eq!(numbers(&db.snapshot()), (25..50).collect::<Vec<_>>());
}

/// Deletes of which rows are still stored are bounded. One too many is refused, and told what holds the others: a snapshot,
/// or that no checkpoint was made.
#[test]
fn too_many_deletes_are_refused_with_what_holds_them() {
    let disk = SimulatedDisk::new();
    let options =
        Options { checkpoint_operations: u64::MAX, log_file_bytes: 8 << 20, workers: 0, ..options() };
    let db = Database::create_on(Arc::new(disk.clone()), options).unwrap();
    append(&db, [(1, Some("a"), 1), (2, Some("b"), 2)]);
    db.checkpoint().unwrap();
    let many = |count: usize| {
        let mut batch = Batch::new();
        for _ in 0..count {
            batch.delete_rows("s", Delete::all().key("k", "a"));
        }
        db.commit(batch)
    };
    let refused = |count: usize, held: Option<(u64, usize)>| {
        let seq = db.snapshot().seq();
        let error = many(count).unwrap_err();
        let limit = DELETES_MAX;
        match &error {
            CommitError::TooManyDeletes { series, found, limit: told, held: by } => {
                assert_eq!((&**series, *found, *told, *by), ("s", limit + 1, limit, held));
            }
            other => panic!("{other}"),
        }
        assert_eq!(db.snapshot().seq(), seq);
        let text = error.to_string();
        assert!(text.contains("\"s\"") && text.contains(&limit.to_string()) && text.contains("checkpoint"));
        text
    };
    refused(DELETES_MAX + 1, None);
    many(10).unwrap();
    let held = db.snapshot();
    many(DELETES_MAX - 10).unwrap();
    let text = refused(1, None);
    assert!(text.contains("`ubctl repair`") && !text.contains("snapshot"), "{text}");
    // What can be applied is, and makes room for as many.
    db.checkpoint().unwrap();
    many(10).unwrap();
    let text = refused(1, Some((held.seq(), DELETES_MAX)));
    assert!(text.contains(&format!("seq {}", held.seq())), "{text}");
    drop(held);
    refused(1, None);
    assert_eq!(numbers(&db.snapshot()), [2]);
    assert_eq!(numbers(&reopened(&disk).snapshot()), [2]);
    db.checkpoint().unwrap();
    many(DELETES_MAX).unwrap();
}

/// What cannot be deleted is told, and nothing is committed.
#[test]
fn deletes_that_do_not_fit_are_refused() {
    let (_, db) = in_memory().unwrap();
    append(&db, [(1, Some("a"), 1)]);
    let refused = |series: &str, delete: Delete| {
        let mut batch = Batch::new();
        batch.set_variable(underbelly::Scope::Global, "v", 1i64);
        batch.delete_rows(series, delete);
        let error = db.commit(batch).unwrap_err();
        assert_eq!(db.variables(), Vec::new());
        error
    };
    let query = |error| match error {
        CommitError::Read(ReadError::Query(error)) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(refused("_runs", Delete::all()), CommitError::Name { .. }));
    let unknown = refused("t", Delete::all());
    assert!(matches!(unknown, CommitError::Read(ReadError::UnknownSeries { .. })), "{unknown}");
    assert!(matches!(query(refused("s", Delete::all().key("z", 1))), QueryError::UnknownColumn { .. }));
    assert!(matches!(query(refused("s", Delete::all().key("x", 1))), QueryError::NotKey { .. }));
    assert!(matches!(query(refused("s", Delete::all().key("k", 1))), QueryError::KeyType { .. }));
    let range = Delete::all().from(Timestamp(2)).to(Timestamp(1));
    assert!(matches!(query(refused("s", range)), QueryError::BadRange { .. }));
    delete(&db, Delete::all().from(Timestamp(1)).to(Timestamp(1)));
    assert_eq!(numbers(&db.snapshot()), [1], "an empty range deletes nothing");
}

/// A delete by others is a change of the series, and a transaction's own takes effect at its commit.
#[test]
fn a_delete_is_a_change_for_transactions_that_scanned() {
    let (_, db) = in_memory().unwrap();
    append(&db, [(1, Some("a"), 1), (2, Some("b"), 2)]);
    let mut runs = 0;
    let found = db.transact(|tx| {
        runs += 1;
        let rows = tx.series("s")?.count()?;
        if runs == 1 {
            delete(&db, Delete::all().key("k", "a"));
        }
        tx.delete_rows("s", Delete::all().key("k", "b"));
        assert_eq!(tx.series("s")?.count()?, rows, "scans see the snapshot alone");
        Ok::<_, CommitError>(rows)
    });
    assert_eq!((found.unwrap(), runs, numbers(&db.snapshot())), (1, 2, Vec::new()));
}

/// A field that held integers beyond an f64 stays one of integers when these are deleted: else an opening from the
/// checkpoint before the delete would refuse what was committed after it.
#[test]
fn fields_of_large_integers_stay_so() {
    let (disk, db) = in_memory().unwrap();
    append(&db, [(1, None, (1 << 53) + 1)]);
    db.checkpoint().unwrap();
    delete(&db, Delete::all());
    db.checkpoint().unwrap();
    db.close().unwrap();
    let db = Database::open_on(Arc::new(disk), options()).unwrap();
    assert_eq!(db.snapshot().series_info("s").unwrap().segments, 0);
    let mut batch = Batch::new();
    batch.append(Row::new("s", Timestamp(1)).field("x", 0.5)).unwrap();
    assert!(matches!(db.commit(batch), Err(CommitError::SeriesPrecision { .. })));
}

/// Large appends, which are segments at once, hide and show their rows as others do.
#[test]
fn rows_of_large_appends_are_deleted() {
    let (disk, db) = in_memory().unwrap();
    let rows = 70_000usize;
    let bulk = |first: i64| {
        let mut batch = Batch::new();
        let times = (0..rows).map(|i| Timestamp(i as i64)).collect();
        let columns =
            Columns::new().with("x", Column::from((first..first + rows as i64).collect::<Vec<_>>()));
        batch.append_columns("s", times, columns.unwrap(), &[]).unwrap();
        db.commit(batch).unwrap();
    };
    bulk(0);
    delete(&db, Delete::all().from(Timestamp(10)));
    bulk(1_000_000);
    let expected = (0..10).flat_map(|i| [i, 1_000_000 + i]).chain(1_000_010..1_000_000 + rows as i64);
    let expected: Vec<i64> = expected.collect();
    let shown = |db: &Database| {
        let rows = db.snapshot().series("s").unwrap().scan().collect().unwrap();
        rows.i64s("x").unwrap() == expected
    };
    assert!(shown(&db) && shown(&reopened(&disk)));
    assert_eq!(db.checkpoint().unwrap().rows_deleted, rows as u64 - 10);
    assert!(shown(&db) && shown(&reopened(&disk)));
    // A fallback to the manifest before replays the delete.
    let newest = disk.files().into_iter().rfind(|name| name.starts_with("MANIFEST-")).unwrap();
    let mut bytes = disk.contents(&newest).unwrap();
    bytes[40] ^= 1;
    disk.overwrite(&newest, bytes);
    assert!(shown(&reopened(&disk)));
}

/// What happens to the series.
#[derive(Clone, Debug)]
enum Step {
    Append(Vec<(i64, u8)>),
    Delete { from: Option<i64>, to: Option<i64>, key: Option<u8>, with: Vec<(i64, u8)> },
    Checkpoint,
    Hold,
    LetGo,
    Reopen,
    Crash,
}

const KEYS: [Option<&str>; 3] = [None, Some("a"), Some("b")];

fn step() -> impl Strategy<Value = Step> {
    let rows = |most| prop::collection::vec((0i64..30, 0u8..3), 0..most);
    let end = || prop::option::weighted(0.6, 0i64..30);
    let delete = (end(), end(), prop::option::weighted(0.6, 0u8..3), rows(3));
    prop_oneof![
        6 => rows(12).prop_map(Step::Append),
        4 => delete.prop_map(|(a, b, key, with)| {
            let (from, to) = if a.is_some() && b.is_some() { (a.min(b), a.max(b)) } else { (a, b) };
            Step::Delete { from, to, key, with }
        }),
        3 => Just(Step::Checkpoint),
        2 => Just(Step::Hold),
        1 => Just(Step::LetGo),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ]
}

/// Appends rows to a batch and to the list that stands for the series, numbered one after the other.
fn add(batch: &mut Batch, all: &mut Vec<(i64, u8, i64)>, next: &mut i64, rows: &[(i64, u8)]) {
    for (at, key) in rows {
        let row = Row::new("s", Timestamp(*at)).field("x", *next);
        let key_text = KEYS[usize::from(*key)];
        batch.append(if let Some(text) = key_text { row.key("k", text) } else { row }).unwrap();
        all.push((*at, *key, *next));
        *next += 1;
    }
}

fn live(steps: Vec<Step>) {
    let mut disk = SimulatedDisk::new();
    let mut db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    let (mut all, mut next) = (vec![(5, 1, 0)], 1);
    append(&db, [(5, Some("a"), 0)]);
    let mut reader = Database::open_read_only_on(Arc::new(disk.clone())).unwrap();
    let mut held: Vec<(Snapshot, Vec<i64>)> = Vec::new();
    let shown = |all: &[(i64, u8, i64)]| {
        let mut rows = all.to_vec();
        rows.sort_by_key(|row| row.0);
        rows.into_iter().map(|row| row.2).collect::<Vec<_>>()
    };
    for step in steps {
        match step {
            Step::Append(rows) => {
                let mut batch = Batch::new();
                add(&mut batch, &mut all, &mut next, &rows);
                db.commit(batch).unwrap();
            }
            Step::Delete { from, to, key, with } => {
                all.retain(|row| {
                    let within = from.is_none_or(|from| row.0 >= from) && to.is_none_or(|to| row.0 < to);
                    !(within && key.is_none_or(|key| row.1 == key))
                });
                let mut delete = Delete::all();
                delete = if let Some(from) = from { delete.from(Timestamp(from)) } else { delete };
                delete = if let Some(to) = to { delete.to(Timestamp(to)) } else { delete };
                if let Some(key) = key {
                    delete = delete.key("k", KEYS[usize::from(key)].map_or(Value::Null, Value::from));
                }
                let mut batch = Batch::new();
                add(&mut batch, &mut all, &mut next, &with);
                batch.delete_rows("s", delete);
                db.commit(batch).unwrap();
            }
            Step::Checkpoint => {
                db.checkpoint().unwrap();
            }
            Step::Hold => held.push((db.snapshot(), shown(&all))),
            Step::LetGo => {
                held.drain(..held.len().min(1));
            }
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
        assert_eq!(numbers(&db.snapshot()), shown(&all));
        reader.refresh().unwrap();
        assert_eq!(numbers(&reader.snapshot()), shown(&all), "beside the writer");
        held.iter().for_each(|(snapshot, expected)| assert_eq!(numbers(snapshot), *expected));
    }
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
    held.clear();
    (0..2).for_each(|_| {
        db.checkpoint().unwrap();
    });
    assert_eq!(numbers(&db.snapshot()), shown(&all));
    assert_eq!(db.snapshot().series_info("s").unwrap().deletes, 0);
    let reader = Database::open_read_only_on(Arc::new(disk)).unwrap();
    assert_eq!(numbers(&reader.snapshot()), shown(&all));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96, max_shrink_iters: 400, failure_persistence: None, ..ProptestConfig::default()
    })]

    /// Appends with ties and late rows, deletes, checkpoints, openings and crashes in any order, beside older snapshots.
    #[test]
    fn series_with_deletes_are_what_the_model_says(steps in prop::collection::vec(step(), 1..40)) {
        live(steps);
    }
}
