//! Rows come back as they were appended, in order of time, whatever way they took.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod alike;
mod damaged;
mod decimals;
mod deletes;
mod documents;
mod duplicates;
mod keyed;
mod known;
mod lent;
mod recorded;
mod threads;
mod ticks;
mod time_zones;
mod tsbs;
mod types;
mod zones;

use std::sync::Arc;
use std::time::{Duration, Instant};

use underbelly::{
    Batch, Closed, Column, ColumnType, Columns, CommitError, Database, Options, Row, SimulatedDisk,
    Timestamp, Value,
};
use underbelly_tests::{in_memory, options, shown};

fn commit(db: &Database, rows: impl IntoIterator<Item = Row>) -> Result<underbelly::Commit, CommitError> {
    let mut batch = Batch::new();
    for row in rows {
        batch.append(row)?;
    }
    db.commit(batch)
}

fn row(at: i64) -> Row {
    Row::new("s", Timestamp(at))
}

fn all(db: &Database) -> Columns {
    db.snapshot().series("s").unwrap().scan().collect().unwrap()
}

/// Runs a check on the open database, after a checkpoint, after a crash and after a close.
fn everywhere(disk: &SimulatedDisk, db: Database, check: impl Fn(&Database)) {
    check(&db);
    let crashed = Database::open_on(Arc::new(disk.crash()), options()).unwrap();
    check(&crashed);
    db.checkpoint().unwrap();
    check(&db);
    db.close().unwrap();
    check(&Database::open_on(Arc::new(disk.clone()), options()).unwrap());
}

/// Late rows are found at their time; tied rows stand in order of commit, then of arrival.
#[test]
fn late_and_tied_rows_stand_in_order() {
    let (disk, db) = in_memory().unwrap();
    for (commit_number, times) in [[5, 3, 5], [3, 5, 1], [9, 3, 3]].into_iter().enumerate() {
        let rows = times.into_iter().enumerate();
        commit(&db, rows.map(|(i, at)| row(at).field("x", (10 * commit_number + i) as i64))).unwrap();
    }
    everywhere(&disk, db, |db| {
        let rows = all(db);
        assert_eq!(rows.timestamps("timestamp").unwrap(), [1, 3, 3, 3, 3, 5, 5, 5, 9]);
        assert_eq!(rows.i64s("x").unwrap(), [12, 1, 10, 21, 22, 0, 2, 11, 20]);
        let series = db.snapshot().series("s").unwrap();
        assert_eq!(series.latest(3, &[]).unwrap().i64s("x").unwrap(), [20, 11, 2]);
        assert_eq!(series.range(Timestamp(3), Timestamp(5)).unwrap().rows(), 4, "ranges are half-open");
    });
}

/// Columns that appear later are null before; whole numbers become floats when a float comes, in a batch, across
/// commits and across segments.
#[test]
fn columns_appear_and_widen() {
    let (disk, db) = in_memory().unwrap();
    commit(&db, [row(1).key("k", "a").field("x", 1)]).unwrap();
    db.checkpoint().unwrap();
    commit(&db, [row(2).key("k", "a").key("j", 7).field("x", 2.5)]).unwrap();
    db.checkpoint().unwrap();
    commit(&db, [row(3).key("k", "b").field("x", 3).field("note", "late")]).unwrap();
    everywhere(&disk, db, |db| {
        let rows = all(db);
        let names: Vec<&str> = rows.names().iter().map(|name| &**name).collect();
        assert_eq!(names, ["timestamp", "k", "j", "x", "note"]);
        assert_eq!(rows.f64s("x").unwrap(), [1.0, 2.5, 3.0]);
        assert_eq!(rows.value("j", 0), Some(Value::Null));
        assert_eq!(rows.value("j", 1), Some(Value::I64(7)));
        assert_eq!(rows.value("note", 1), Some(Value::Null));
        let series = db.snapshot().series("s").unwrap();
        let point = series.last_point(&[("k", "a".into()), ("j", Value::Null)]).unwrap().unwrap();
        assert_eq!(point.timestamps("timestamp").unwrap(), [1]);
        assert_eq!(series.last_points().unwrap().rows(), 3);
    });
}

/// A column keeps its type and its role; errors name both, and nothing of the batch is kept.
#[test]
fn conflicts_of_type_and_role_are_named() {
    let (_, db) = in_memory().unwrap();
    commit(&db, [row(1).key("k", "a").field("x", 1)]).unwrap();
    let before = shown(&db).unwrap();
    match commit(&db, [row(2).key("k", "a").field("x", "text")]).unwrap_err() {
        CommitError::SeriesType { series, column, expected, found } => {
            assert_eq!((&*series, &*column), ("s", "x"));
            assert_eq!((expected, found), (ColumnType::I64.into(), ColumnType::Utf8.into()));
        }
        error => panic!("{error}"),
    }
    match commit(&db, [row(2).key("x", 1)]).unwrap_err() {
        CommitError::SeriesRole { column, expected, found, .. } => {
            assert_eq!((&*column, expected, found), ("x", "field", "key"));
        }
        error => panic!("{error}"),
    }
    assert!(matches!(commit(&db, [row(2).field("k", "a")]), Err(CommitError::SeriesRole { .. })));
    assert!(matches!(commit(&db, [row(2).key("k", 1)]), Err(CommitError::SeriesType { .. })));
    let mixed = [Row::new("other", Timestamp(1)).field("y", 1), row(2).field("x", "text")];
    assert!(commit(&db, mixed).is_err());
    assert_eq!(shown(&db).unwrap(), before);
}

/// Two threads that give a new column two types at once: one wins, the other gets the error, all rows are readable.
#[test]
fn a_race_for_a_columns_type_has_one_winner() {
    for _ in 0..20 {
        let (_, db) = in_memory().unwrap();
        let results: Vec<bool> = std::thread::scope(|scope| {
            let threads = [Value::from("text"), Value::from(true), Value::from(1)].map(|value| {
                let db = &db;
                scope.spawn(move || commit(db, [row(1).field("x", value)]).is_ok())
            });
            threads.map(|thread| thread.join().unwrap()).into()
        });
        assert_eq!(results.iter().filter(|won| **won).count(), 1);
        assert_eq!(all(&db).rows(), 1);
    }
}

/// An integer field with values that an f64 cannot hold stays what it is, in memory, sealed and after reopening;
/// nothing stored is ever rounded.
#[test]
fn no_integer_is_rounded() {
    const LARGE: i64 = (1 << 53) + 1;
    let (disk, db) = in_memory().unwrap();
    commit(&db, [row(1).field("id", LARGE), row(2).field("small", 1i64 << 53)]).unwrap();
    let refused = |db: &Database| {
        let error = commit(db, [row(3).field("id", 0.5)]).unwrap_err();
        assert!(matches!(&error, CommitError::SeriesPrecision { column, .. } if column == "id"), "{error}");
    };
    refused(&db);
    commit(&db, [row(4).field("small", 0.5)]).unwrap();
    let error = commit(&db, [row(5).field("small", LARGE)]).unwrap_err();
    assert!(matches!(error, CommitError::SeriesPrecision { .. }), "{error}");
    assert!(commit(&db, [row(6).field("new", 0.5), row(7).field("new", LARGE)]).is_err());
    assert!(commit(&db, [row(6).field("new", LARGE), row(7).field("new", 0.5)]).is_err());
    db.checkpoint().unwrap();
    refused(&db);
    db.close().unwrap();
    let db = Database::open_on(Arc::new(disk), options()).unwrap();
    refused(&db);
    let rows = all(&db);
    assert_eq!(rows.rows(), 3);
    assert_eq!(rows.value("id", 0), Some(Value::I64(LARGE)));
    assert_eq!(rows.value("small", 1), Some(Value::F64(9_007_199_254_740_992.0)));
}

/// Keys are no NaN, names are not reserved, empty, endless or of the engine.
#[test]
fn bad_keys_and_names_are_refused() {
    let (_, db) = in_memory().unwrap();
    let nan = commit(&db, [row(1).key("k", f64::NAN)]).unwrap_err().to_string();
    assert!(nan.contains("\"k\"") && nan.contains("NaN"), "{nan}");
    assert!(matches!(commit(&db, [row(1).key("k", &b"raw"[..])]), Err(CommitError::Series { .. })));
    for name in ["timestamp", "type", "_seq", "", "a\nb", &"x".repeat(256)] {
        match commit(&db, [row(1).field(name, 1)]) {
            Err(CommitError::Name { what: "column", name: told, .. }) => assert_eq!(told, name),
            other => panic!("{name:?}: {other:?}"),
        }
    }
    for name in ["", "_runs", "_anything", "a\u{7}", &"x".repeat(256)] {
        let result = commit(&db, [Row::new(name, Timestamp(1)).field("x", 1)]);
        assert!(matches!(result, Err(CommitError::Name { what: "series", .. })), "{name:?}: {result:?}");
    }
    assert_eq!(db.snapshot().series_names(), Vec::<String>::new());
    for name in ["../../etc", "a/b", "%", "é", "CON", ".", ".."] {
        commit(&db, [Row::new(name, Timestamp(1)).field("x", 1)]).unwrap();
    }
    db.checkpoint().unwrap();
    for name in db.snapshot().series_names() {
        assert_eq!(db.snapshot().series(&name).unwrap().count().unwrap(), 1, "{name}");
    }
}

/// Whatever a column can hold comes back, extremes, NaN and nulls included.
#[test]
fn extremes_come_back() {
    let (disk, db) = in_memory().unwrap();
    let values: [(&str, [Value; 3]); 9] = [
        ("bool", [true.into(), false.into(), Value::Null]),
        ("i64", [i64::MIN.into(), i64::MAX.into(), Value::Null]),
        ("f64", [f64::NEG_INFINITY.into(), (-0.0).into(), f64::MIN_POSITIVE.into()]),
        ("text", ["".into(), "\0é\u{10ffff}".into(), Value::Null]),
        ("bytes", [Value::Bytes([].into()), Value::Bytes([0, 255].into()), Value::Null]),
        ("time", [Timestamp::MIN.into(), Timestamp::MAX.into(), Value::Null]),
        ("i32", [Value::I32(i32::MIN), Value::I32(i32::MAX), Value::Null]),
        ("f32", [f32::NEG_INFINITY.into(), (-0.0f32).into(), f32::from_bits(1).into()]),
        ("date", [underbelly::Date(i32::MIN).into(), underbelly::Date(i32::MAX).into(), Value::Null]),
    ];
    let times = [i64::MIN, 0, i64::MAX];
    for (i, at) in times.into_iter().enumerate() {
        let row = values.iter().fold(row(at), |row, (name, of)| row.field(*name, of[i].clone()));
        commit(&db, [row.field("nan", f64::NAN).key("k", at)]).unwrap();
    }
    everywhere(&disk, db, |db| {
        let rows = all(db);
        assert_eq!(rows.timestamps("timestamp").unwrap(), times);
        for (name, of) in &values {
            for (i, value) in of.iter().enumerate() {
                assert_eq!(rows.value(name, i).as_ref(), Some(value), "{name} {i}");
            }
        }
        assert!(rows.f64s("nan").unwrap().iter().all(|x| x.is_nan()));
        let series = db.snapshot().series("s").unwrap();
        assert_eq!(series.bounds().unwrap(), Some((Timestamp::MIN, Timestamp::MAX)));
        let most = series.range(Timestamp::MIN, Timestamp::MAX).unwrap();
        assert_eq!(most.rows(), 2, "the end of a range does not belong to it");
        let last =
            series.scan().from(Timestamp::MAX).to(Timestamp::MAX).closed(Closed::Both).count().unwrap();
        assert_eq!(last, 1);
        assert!(series.range(Timestamp(5), Timestamp(4)).is_err() || most.rows() == 2);
        assert!(series.last_point(&[("k", i64::MIN.into())]).unwrap().is_some());
        assert!(series.last_point(&[("nope", 1.into())]).is_err());
        assert!(series.last_point(&[("i64", 1.into())]).is_err());
    });
}

/// Appends of 200,000 rows, which take the way of files, and single rows in between make one series.
#[test]
fn large_appends_and_single_rows_are_one_series() {
    const ROWS: i64 = 200_000;
    let (disk, db) = in_memory().unwrap();
    let large = |start: i64, x: i64| {
        let columns = Columns::new()
            .with("k", (0..ROWS).map(|i| ["a", "b", "c"][i as usize % 3]).collect::<Column>())
            .unwrap()
            .with("x", Column::from(vec![x; ROWS as usize]))
            .unwrap();
        let mut batch = Batch::new();
        let times = (0..ROWS).map(|i| Timestamp(start + i)).collect();
        batch.append_columns("s", times, columns, &["k"]).unwrap();
        db.commit(batch).unwrap();
    };
    commit(&db, [row(-1).key("k", "a").field("x", 0)]).unwrap();
    large(0, 1);
    commit(&db, [row(ROWS / 2).key("k", "a").field("x", 2)]).unwrap();
    large(ROWS / 2, 3);
    commit(&db, [row(ROWS / 2).key("k", "a").field("x", 4)]).unwrap();
    everywhere(&disk, db, |db| {
        let series = db.snapshot().series("s").unwrap();
        assert_eq!(series.count().unwrap(), 2 * ROWS as u64 + 3);
        let tied = series.range(Timestamp(ROWS / 2), Timestamp(ROWS / 2 + 1)).unwrap();
        assert_eq!(tied.i64s("x").unwrap(), [1, 2, 3, 4]);
        let times = series.scan().columns(["x"]).collect().unwrap();
        assert!(times.timestamps("timestamp").unwrap().is_sorted());
        let last = series.last_points().unwrap();
        assert_eq!(last.rows(), 3);
        assert_eq!(series.bounds().unwrap(), Some((Timestamp(-1), Timestamp(ROWS / 2 + ROWS - 1))));
        assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
    });
}

/// A large append that is refused leaves no file behind after the next checkpoint.
#[test]
fn a_refused_large_append_leaves_no_file() {
    let (disk, db) = in_memory().unwrap();
    commit(&db, [row(1).field("x", "text")]).unwrap();
    let mut batch = Batch::new();
    batch.put_slot("Nowhere", Timestamp(1), [1], Columns::new());
    let columns = Columns::new().with("x", Column::from(vec![1i64; 200_000])).unwrap();
    batch.append_columns("s", vec![Timestamp(1); 200_000], columns, &[]).unwrap();
    assert!(db.commit(batch).is_err());
    db.checkpoint().unwrap();
    assert_eq!(disk.files().iter().filter(|name| name.starts_with("segments/s/")).count(), 1);
}

/// Many commits of one row leave few runs in memory; many checkpoints leave few files.
#[test]
fn runs_and_files_stay_few() {
    let (disk, db) = in_memory().unwrap();
    for i in 0..2_000 {
        commit(&db, [row(i * 7 % 1_000).field("x", i)]).unwrap();
    }
    let info = db.snapshot().series_info("s").unwrap();
    assert_eq!(info.rows, 2_000);
    assert!(info.young_runs < 50, "{info:?}");
    for i in 0..40 {
        commit(&db, [row(i).field("x", i)]).unwrap();
        db.checkpoint().unwrap();
    }
    let info = db.snapshot().series_info("s").unwrap();
    assert!(info.segments <= 8 && info.young_runs == 0, "{info:?}");
    let files = disk.files();
    assert!(files.len() < 26, "{files:?}");
    assert_eq!(all(&db).rows(), 2_040);
    db.close().unwrap();
    let db = Database::open_on(Arc::new(disk), options()).unwrap();
    assert_eq!(all(&db).rows(), 2_040);
}

/// Large appends, each of which is a file at once, leave few: their number calls for checkpoints, which merge them by size.
#[test]
fn files_of_large_appends_stay_few() {
    const APPENDS: usize = 3_000;
    const ROWS: usize = 700;
    let disk = SimulatedDisk::new();
    // The smallest log, so that appends are large soon; driven by hand.
    let by_hand = || Options { log_file_bytes: 32 << 10, workers: 0, ..options() };
    let db = Database::create_on(Arc::new(disk.clone()), by_hand()).unwrap();
    let (mut rows, mut segments_max, mut random) = (0, 0, 1u64);
    for append in 0..APPENDS {
        let times = (0..ROWS).map(|row| Timestamp((append * ROWS + row) as i64));
        let mut bits = |_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            random.cast_signed()
        };
        let columns = (0..2).fold(Columns::new(), |columns, i| {
            let values: Vec<i64> = (0..ROWS).map(&mut bits).collect();
            columns.with(format!("x{i}"), Column::from(values)).unwrap()
        });
        let mut batch = Batch::new();
        batch.append_columns("s", times.collect(), columns, &[]).unwrap();
        db.commit(batch).unwrap();
        rows += ROWS as u64;
        db.run_ready().unwrap();
        if append % 50 == 49 {
            segments_max = segments_max.max(db.snapshot().series_info("s").unwrap().segments);
        }
    }
    let info = db.snapshot().series_info("s").unwrap();
    assert_eq!((info.rows, info.young_runs), (rows, 0), "each append is a segment: {info:?}");
    // Those since the last checkpoint, and fewer than eight of each size class.
    assert!(segments_max > 100 && segments_max < 256 + 4 * 8, "{segments_max}");
    let crashed = Database::open_on(Arc::new(disk.crash()), by_hand()).unwrap();
    assert!(crashed.recovery_report().replayed <= 256, "{:?}", crashed.recovery_report());
    assert_eq!(crashed.snapshot().series("s").unwrap().count().unwrap(), rows);
    // Files that a manifest needed go once it is not the one before the newest.
    for _ in 0..4 {
        db.checkpoint().unwrap();
    }
    let info = db.snapshot().series_info("s").unwrap();
    assert!(info.segments < 4 * 8, "{info:?}");
    assert!(disk.files().len() < 100, "{}", disk.files().len());
}

/// Checkpoints come by themselves where the options ask for them, and the log does not grow without end: once they
/// have caught up, fewer operations than the options say are left to replay, and few files of the log are kept.
#[test]
fn checkpoints_in_the_background_bound_the_log() {
    const COMMITS: i64 = 1_500;
    const OPERATIONS: u64 = 100;
    // Each commit takes a block of 4 KiB at least, and a file of 64 KiB has 15 of them behind its header: the
    // operations that may be left stand in 8 files at most, all that are committed in 100. The log is kept from the
    // checkpoint before the last.
    const FILES: usize = 2 * 8;
    let patience = Duration::from_secs(60);
    let disk = SimulatedDisk::new();
    let background = Options { checkpoint_operations: OPERATIONS, ..options() };
    let db = Database::create_on(Arc::new(disk.clone()), background).unwrap();
    for i in 0..COMMITS {
        commit(&db, [row(i).field("x", i)]).unwrap();
    }
    let caught_up = || {
        let crashed = Database::open_on(Arc::new(disk.crash()), options()).unwrap();
        (crashed.recovery_report().replayed, db.status().log.files)
    };
    let deadline = Instant::now() + patience;
    let (mut left, mut count) = (caught_up(), COMMITS);
    while left.0 >= OPERATIONS || left.1 > FILES {
        let error = db.status().trouble;
        assert!(Instant::now() < deadline, "left to replay and files of the log: {left:?}; {error:?}");
        if left.0 < OPERATIONS {
            // The log that the checkpoint before needed goes with the next.
            for i in count..count + OPERATIONS as i64 {
                commit(&db, [row(i).field("x", i)]).unwrap();
            }
            count += OPERATIONS as i64;
        }
        std::thread::yield_now();
        left = caught_up();
    }
    assert_eq!(db.status().trouble, None);
    drop(db);
    let kept = disk.files().into_iter().filter(|name| name.starts_with("wal/")).collect::<Vec<_>>();
    assert!(kept.len() <= 2 * FILES, "spares are kept without end: {kept:?}");
    let db = Database::open_on(Arc::new(disk), options()).unwrap();
    let report = db.recovery_report();
    assert!(report.replayed < OPERATIONS, "{report:?}");
    assert_eq!(report.checkpoint_seq + report.replayed, report.last_seq);
    assert_eq!(all(&db).i64s("x").unwrap(), (0..count).collect::<Vec<i64>>());
}
