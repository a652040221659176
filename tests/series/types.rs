//! Which types widen to which, and that nothing else changes.

use std::sync::Arc;

use underbelly::{
    Batch, Column, ColumnError, ColumnType, Columns, CommitError, Database, Date, Delete, QueryError,
    ReadError, Row, Timestamp, Value,
};
use underbelly_tests::{in_memory, options};

use super::{commit, everywhere};

/// A value of a type that no other type would make in this way.
fn sample(column_type: ColumnType) -> Value {
    match column_type {
        ColumnType::Bool => true.into(),
        ColumnType::I64 => (1i64 << 40).into(),
        ColumnType::F64 => 0.1.into(),
        ColumnType::Utf8 => "text".into(),
        ColumnType::Bytes => vec![1u8].into(),
        ColumnType::Timestamp => Timestamp(5).into(),
        ColumnType::Date => Date(6).into(),
        ColumnType::I32 => Value::I32(-7),
        ColumnType::F32 => 0.3f32.into(),
    }
}

fn pairs() -> impl Iterator<Item = (ColumnType, ColumnType)> {
    ColumnType::ALL.into_iter().flat_map(|a| ColumnType::ALL.map(|b| (a, b)))
}

fn row(a: ColumnType, b: ColumnType, at: i64) -> Row {
    Row::new(format!("{a}-{b}"), Timestamp(at))
}

/// What a field holds once values of both types were written to it.
fn widened(value: &Value, wide: ColumnType) -> Value {
    let mut column = Column::new(wide);
    column.push(value).unwrap();
    column.get(0)
}

/// Every pair of types, in every place that two rows may meet: in a batch, in a run, in a segment and a run, in two segments.
#[test]
fn numbers_widen_wherever_rows_meet() {
    for (checkpoint_between, one_batch) in [(false, true), (false, false), (true, false)] {
        let (disk, db) = in_memory().unwrap();
        for (a, b) in pairs().filter(|(a, b)| a.common(*b).is_some()) {
            let rows = [row(a, b, 1).field("x", sample(a)), row(a, b, 2).field("x", sample(b))];
            if one_batch {
                commit(&db, rows).unwrap();
                continue;
            }
            let [first, second] = rows;
            commit(&db, [first]).unwrap();
            if checkpoint_between {
                db.checkpoint().unwrap();
            }
            commit(&db, [second]).unwrap();
        }
        everywhere(&disk, db, |db| {
            for (a, b) in pairs() {
                let Some(wide) = a.common(b) else { continue };
                let name = format!("{a}-{b}");
                let rows = db.snapshot().series(&name).unwrap().scan().collect().unwrap();
                assert_eq!(rows.column("x").unwrap().column_type(), wide, "{name}");
                assert_eq!(rows.value("x", 0), Some(widened(&sample(a), wide)), "{name}");
                assert_eq!(rows.value("x", 1), Some(widened(&sample(b), wide)), "{name}");
            }
        });
    }
}

/// Every other pair is refused with both names, in a batch and by the series; nothing of it is kept.
#[test]
fn other_changes_of_type_are_refused_and_name_both() {
    let (_, db) = in_memory().unwrap();
    for (a, b) in pairs().filter(|(a, b)| a.common(*b).is_none()) {
        commit(&db, [row(a, b, 1).field("x", sample(a))]).unwrap();
        match commit(&db, [row(a, b, 2).field("x", sample(b))]).unwrap_err() {
            ref error @ CommitError::SeriesType { ref expected, ref found, .. } => {
                assert_eq!((expected, found), (&a.into(), &b.into()));
                assert!(
                    error.to_string().contains(a.name()) && error.to_string().contains(b.name()),
                    "{error}"
                );
            }
            error => panic!("{a} and {b}: {error}"),
        }
        let both = [row(a, b, 3).field("x", sample(a)), row(a, b, 4).field("x", sample(b))];
        match commit(&db, both).unwrap_err() {
            CommitError::Column(ColumnError::Type { expected, found, .. }) => {
                assert_eq!((expected, found), (a, b))
            }
            error => panic!("{a} and {b} in a batch: {error}"),
        }
        assert_eq!(db.snapshot().series(&format!("{a}-{b}")).unwrap().count().unwrap(), 1);
    }
}

/// An integer that an f64 cannot hold is not rounded because an f32 comes, nor is it written beside one; it may stand
/// beside an i32.
#[test]
fn no_integer_is_rounded_for_a_short_number() {
    const LARGE: i64 = (1 << 53) + 1;
    let (disk, db) = in_memory().unwrap();
    commit(&db, [Row::new("s", Timestamp(1)).field("id", LARGE).field("ratio", 0.5f32)]).unwrap();
    let is_refused = |rows: Vec<Row>| {
        let error = commit(&db, rows).unwrap_err();
        matches!(&error, CommitError::SeriesPrecision { .. } | CommitError::Column(ColumnError::Type { .. }))
    };
    let at = |at| Row::new("s", Timestamp(at));
    assert!(is_refused(vec![at(2).field("id", 0.5f32)]));
    assert!(is_refused(vec![at(2).field("ratio", LARGE)]));
    assert!(is_refused(vec![at(2).field("new", 0.5f32), at(3).field("new", LARGE)]));
    assert!(is_refused(vec![at(2).field("new", LARGE), at(3).field("new", 0.5f32)]));
    commit(&db, [at(4).field("id", Value::I32(3))]).unwrap();
    everywhere(&disk, db, |db| {
        let rows = db.snapshot().series("s").unwrap().scan().collect().unwrap();
        assert_eq!(rows.i64s("id").unwrap(), [LARGE, 3]);
        assert_eq!(rows.value("ratio", 0), Some(Value::F32(0.5)));
    });
}

/// Keys of short numbers are asked for by any number that one of them is, and deleted so; they never widen.
#[test]
fn keys_of_short_numbers_are_found() {
    let (disk, db) = in_memory().unwrap();
    let at = |at, n: i32, x: f32| Row::new("s", Timestamp(at)).key("n", Value::I32(n)).key("x", x);
    commit(&db, [at(1, 1, 0.1), at(2, -2, 0.5), at(3, -2, -0.0), at(4, i32::MIN, f32::INFINITY)]).unwrap();
    assert!(matches!(commit(&db, [at(5, 1, f32::NAN)]), Err(CommitError::Series { .. })));
    let wide = Row::new("s", Timestamp(5)).key("n", 7i64).key("x", 0.5f32);
    assert!(matches!(commit(&db, [wide]), Err(CommitError::SeriesType { .. })));
    let mut batch = Batch::new();
    batch.delete_rows("s", Delete::all().key("n", i64::from(i32::MIN)));
    db.commit(batch).unwrap();
    everywhere(&disk, db, |db| {
        let series = db.snapshot().series("s").unwrap();
        let times = |name: &str, value: Value| {
            let rows = series.latest(9, &[(name, value)]).unwrap();
            rows.timestamps("timestamp").unwrap().to_vec()
        };
        assert_eq!(times("n", Value::I32(-2)), [3, 2]);
        assert_eq!(times("n", (-2i64).into()), [3, 2]);
        assert_eq!(times("n", i64::from(i32::MIN).into()), [0i64; 0], "it was deleted");
        assert_eq!(times("x", 0.1f32.into()), [1]);
        assert_eq!(times("x", 0.5.into()), [2]);
        assert_eq!(times("x", 0.0.into()), [3]);
        assert_eq!(times("x", f64::INFINITY.into()), [0i64; 0]);
        for (name, value) in [("n", Value::I64(1 << 31)), ("x", Value::F64(0.1)), ("n", Value::F64(1.0))] {
            let error = series.latest(1, &[(name, value)]).unwrap_err();
            assert!(matches!(error, ReadError::Query(QueryError::KeyType { .. })), "{error}");
        }
        let points = series.last_points().unwrap();
        assert_eq!(points.timestamps("timestamp").unwrap(), [3, 2, 1], "in order of the keys");
    });
}

/// Large appends of short numbers become segments at once, and their bytes are half of those of long ones.
#[test]
fn batches_of_short_numbers_come_back() {
    let (disk, db) = in_memory().unwrap();
    let rows = 60_000;
    let mix = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    let lots: Vec<i32> = (0..rows).map(|i| mix(i) as i32).collect();
    let ratios: Vec<f32> = (0..rows).map(|i| f32::from_bits(mix(i) as u32)).collect();
    let columns = Columns::new()
        .with("lots", Column::from(lots.clone()))
        .and_then(|columns| columns.with("ratio", Column::from(ratios.clone())))
        .unwrap();
    let mut batch = Batch::new();
    batch.append_columns("s", (0..rows as i64).map(Timestamp).collect(), columns, &[]).unwrap();
    db.commit(batch).unwrap();
    everywhere(&disk, db, |db| {
        let read = db.snapshot().series("s").unwrap().scan().collect().unwrap();
        let bits = |numbers: &[f32]| numbers.iter().map(|number| number.to_bits()).collect::<Vec<_>>();
        assert_eq!(read.i32s("lots").unwrap(), lots);
        assert_eq!(bits(read.f32s("ratio").unwrap()), bits(&ratios));
    });
    let db = Database::open_on(Arc::new(disk), options()).unwrap();
    let info = db.snapshot().series_info("s").unwrap();
    assert!(info.segment_bytes < 8 * rows + 10_000, "{} bytes", info.segment_bytes);
}
