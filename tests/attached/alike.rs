//! The same rows in a series and in a folder give the same answers to every operator.

use std::time::Duration;

use proptest::prelude::*;
use underbelly::{
    Aggregate, Batch, Column, ColumnType, Columns, Database, Direction, Every, Fill, Predicate, QueryError,
    Scan, Series, Timestamp, Value,
};
use underbelly_tests::in_memory;

use crate::{Batches, Place};
use underbelly::arrow::Folder;

/// A row: its time, and values of [`TYPES`].
type Row = (i64, Vec<Value>);

const TYPES: [(&str, ColumnType); 6] = [
    ("sym", ColumnType::Utf8),
    ("venue", ColumnType::I64),
    ("n", ColumnType::I64),
    ("x", ColumnType::F64),
    ("t", ColumnType::Utf8),
    ("b", ColumnType::Bool),
];

fn value(column_type: ColumnType, name: &str) -> BoxedStrategy<Value> {
    match (name, column_type) {
        ("sym", _) => prop::sample::select(vec!["a", "b", "c"]).prop_map(Value::from).boxed(),
        ("venue", _) => (0i64..2).prop_map(Value::from).boxed(),
        (_, ColumnType::I64) => (-1_000i64..1_000).prop_map(Value::from).boxed(),
        // Sums of these are exact in any order.
        (_, ColumnType::F64) => (-64i64..64).prop_map(|n| (n as f64 / 4.0).into()).boxed(),
        (_, ColumnType::Bool) => any::<bool>().prop_map(Value::from).boxed(),
        _ => "[a-cé]{0,3}".prop_map(Value::from).boxed(),
    }
}

fn row(span: i64) -> impl Strategy<Value = Row> {
    let columns: Vec<_> =
        TYPES.iter().map(|(name, t)| prop_oneof![6 => value(*t, name), 1 => Just(Value::Null)]).collect();
    (0..span, columns)
}

/// Rows of a file by its batches; sorted where the flag says so.
fn file() -> impl Strategy<Value = Vec<Vec<Row>>> {
    let batch = (prop::collection::vec(row(40), 0..12), any::<bool>()).prop_map(|(mut rows, sorted)| {
        if sorted {
            rows.sort_by_key(|(at, _)| *at);
        }
        rows
    });
    prop::collection::vec(batch, 1..4)
}

fn columns(rows: &[Row], with_time: bool) -> Columns {
    let at = Column::from(rows.iter().map(|(at, _)| Timestamp(*at)).collect::<Vec<_>>());
    let mut columns = Columns::with_types(TYPES).unwrap();
    rows.iter().for_each(|(_, row)| columns.push_row(row).unwrap());
    // The time stands in the middle.
    let mut all = Columns::new();
    for (position, (name, column)) in columns.into_columns().into_iter().enumerate() {
        if position == 3 && with_time {
            all.insert("at", at.clone()).unwrap();
        }
        all.insert(name, column).unwrap();
    }
    all
}

const KEYS: [&str; 2] = ["sym", "venue"];

fn stored(db: &Database, name: &str, files: &[Vec<Vec<Row>>]) -> Series {
    for rows in files.iter().flatten() {
        let mut batch = Batch::new();
        let times = rows.iter().map(|(at, _)| Timestamp(*at)).collect();
        batch.append_columns(name, times, columns(rows, false), &KEYS).unwrap();
        db.commit(batch).unwrap();
    }
    db.snapshot().series(name).unwrap()
}

fn attached(files: &[Vec<Vec<Row>>]) -> (Place, Folder) {
    let place = Place::new();
    for (number, batches) in files.iter().enumerate() {
        let batches: Batches = batches.iter().map(|rows| columns(rows, true)).collect();
        let suffix = if number % 2 == 0 { "arrow" } else { "arrows" };
        crate::write(&place.path(&format!("{number:02}.{suffix}")), &batches);
    }
    let folder = Folder::open(place.dir(), "at", KEYS).unwrap();
    (place, folder)
}

type Answer = Result<Shown, String>;

/// Names and types of columns, and their rows.
type Shown = (Vec<(String, ColumnType)>, Vec<Vec<Value>>);

fn shown(columns: &Columns) -> Shown {
    let types = columns.iter().map(|(name, column)| (name.to_string(), column.column_type()));
    (types.collect(), (0..columns.rows()).map(|row| columns.row(row)).collect())
}

/// What operators answer, by name, of two inputs of the same columns.
fn answers<'a>(one: &dyn Fn() -> Scan<'a>, other: &dyn Fn() -> Scan<'a>) -> Vec<(&'static str, Answer)> {
    let range = || one().from(Timestamp(7)).to(Timestamp(31));
    let ns = |n: u64| Duration::from_nanos(n);
    let answers: Vec<(_, Result<Columns, QueryError>)> = vec![
        ("all", one().collect()),
        ("range", range().collect()),
        ("columns", range().columns(["t", "sym"]).collect()),
        ("no columns", one().columns([""; 0]).collect()),
        ("key", one().key("sym", "b").collect()),
        ("keys", range().key("sym", "a").key("venue", 1i64).collect()),
        ("null key", one().key("venue", Value::Null).collect()),
        ("filter", one().filter("x", Predicate::AtLeast(0.5.into())).columns(["n"]).collect()),
        ("filter of texts", range().filter("t", Predicate::Equal("a".into())).collect()),
        ("filter of time", one().filter("timestamp", Predicate::NotEqual(Timestamp(9).into())).collect()),
        ("first rows", one().rows_max(5).collect()),
        ("as of", one().asof(other()).by("sym").collect()),
        ("as of, no key", range().asof(other()).right_timestamp("then").collect()),
        ("as of, within", one().asof(other()).by("sym").by("venue").tolerance(ns(4)).inner().collect()),
        ("as of, forward", one().asof(other()).by("sym").direction(Direction::Forward).collect()),
        (
            "as of, nearest",
            one().asof(other()).by("sym").direction(Direction::Nearest).exact(false).collect(),
        ),
        ("bars", one().resample(Every::of(ns(5))).aggregates(Aggregate::ohlc("x")).collect()),
        (
            "windows by key",
            range()
                .resample(Every::of(ns(7)))
                .by("sym")
                .fill(Fill::Previous)
                .aggregates([
                    Aggregate::sum("n"),
                    Aggregate::mean("x"),
                    Aggregate::count("t"),
                    Aggregate::rows(),
                ])
                .collect(),
        ),
        (
            "groups",
            one()
                .group_by(KEYS)
                .aggregates([Aggregate::min("x"), Aggregate::max("n"), Aggregate::last("t")])
                .collect(),
        ),
        ("rolling", one().rolling(ns(6)).by("sym").aggregates([Aggregate::sum("n")]).collect()),
        (
            "windows of the other",
            range().window_join(other(), ns(3), ns(3)).by("sym").aggregates([Aggregate::rows()]).collect(),
        ),
    ];
    answers
        .into_iter()
        .map(|(name, answer)| (name, answer.map(|rows| shown(&rows)).map_err(|error| error.to_string())))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_folder_answers_as_a_series_with_its_rows(
        left in prop::collection::vec(file(), 1..4),
        right in prop::collection::vec(file(), 1..3),
    ) {
        // A series is there as soon as it has a row.
        let has_rows = |files: &[Vec<Vec<Row>>]| files.iter().flatten().any(|rows| !rows.is_empty());
        prop_assume!(has_rows(&left) && has_rows(&right));
        let (_disk, db) = in_memory().unwrap();
        let (of_left, of_right) = (stored(&db, "left", &left), stored(&db, "right", &right));
        let ((_left, left), (_right, right)) = (attached(&left), attached(&right));
        prop_assert_eq!(of_left.schema(), left.schema());
        let expected = answers(&|| of_left.scan(), &|| of_right.scan());
        for (inputs, found) in [
            ("both attached", answers(&|| left.scan(), &|| right.scan())),
            ("left attached", answers(&|| left.scan(), &|| of_right.scan())),
            ("right attached", answers(&|| of_left.scan(), &|| right.scan())),
        ] {
            for ((name, expected), (_, found)) in expected.iter().zip(found) {
                prop_assert_eq!(&found, expected, "{}, {}", name, inputs);
            }
        }
        for batch_rows in [1, 5, 64] {
            let of = |scan: Scan<'_>| scan.batch_rows(batch_rows).batches().map(|batch| shown(&batch.unwrap())).collect::<Vec<_>>();
            prop_assert_eq!(of(left.scan()), of(of_left.scan()));
        }
        prop_assert_eq!(left.count().unwrap(), of_left.count().unwrap());
        prop_assert_eq!(left.bounds().unwrap(), of_left.bounds().unwrap());
        prop_assert_eq!(shown(&left.last_points().unwrap()), shown(&of_left.last_points().unwrap()));
        for n in [1, 4, 100] {
            prop_assert_eq!(shown(&left.latest(n, &[]).unwrap()), shown(&of_left.latest(n, &[]).unwrap()));
            let key = [("sym", "c".into())];
            prop_assert_eq!(shown(&left.latest(n, &key).unwrap()), shown(&of_left.latest(n, &key).unwrap()));
        }
        let one = |row: Option<Columns>| row.map(|row| shown(&row));
        let key = [("sym", "a".into()), ("venue", 0i64.into())];
        prop_assert_eq!(one(left.last_point(&key).unwrap()), one(of_left.last_point(&key).unwrap()));
        for at in (-1..42).step_by(6).map(Timestamp) {
            prop_assert_eq!(one(left.at_or_before(at, &[]).unwrap()), one(of_left.at_or_before(at, &[]).unwrap()));
            prop_assert_eq!(one(left.at_or_after(at, &key).unwrap()), one(of_left.at_or_after(at, &key).unwrap()));
            prop_assert_eq!(one(left.nearest(at, &[]).unwrap()), one(of_left.nearest(at, &[]).unwrap()));
        }
        db.close().unwrap();
    }
}

#[test]
fn files_without_rows_answer_as_a_series_without() {
    let (_place, folder) = attached(&[vec![Vec::new()]]);
    assert_eq!((folder.count().unwrap(), folder.bounds().unwrap()), (0, None));
    assert_eq!(folder.scan().collect().unwrap().width(), TYPES.len() + 1);
    assert_eq!(folder.latest(3, &[]).unwrap().rows(), 0);
    assert_eq!(folder.last_points().unwrap().rows(), 0);
}
