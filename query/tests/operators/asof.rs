use std::time::Duration;

use proptest::prelude::*;
use underbelly_query::{AsOf, Direction, QueryError, Scan};
use underbelly_storage::{Column, ColumnType, Columns, Timestamp, Value};

use crate::model::{self, NAMES, Row, RunsOf, any_input};

#[derive(Clone, Debug)]
struct Options {
    keys: Vec<usize>,
    direction: Direction,
    tolerance: Option<u64>,
    exact: bool,
    inner: bool,
}

fn any_options() -> impl Strategy<Value = Options> {
    (
        prop::sample::subsequence(vec![0usize, 1, 2], 0..3),
        prop::sample::select(vec![Direction::Backward, Direction::Forward, Direction::Nearest]),
        prop::option::of(prop_oneof![0u64..5, Just(u64::MAX - 1)]),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(keys, direction, tolerance, exact, inner)| Options {
            keys,
            direction,
            tolerance,
            exact,
            inner,
        })
}

/// The right row of a left row, found by looking at all of them.
fn match_of<'r>(left: &Row, right: &'r [Row], options: &Options) -> Option<&'r Row> {
    let distance = |row: &Row| (i128::from(row.ts) - i128::from(left.ts)).unsigned_abs();
    let fits = |row: &&Row| {
        options.keys.iter().all(|key| row.values[*key] == left.values[*key])
            && (options.exact || row.ts != left.ts)
            && options.tolerance.is_none_or(|tolerance| distance(row) <= u128::from(tolerance))
    };
    let before = right.iter().rfind(|row| row.ts <= left.ts && fits(row));
    let after = right.iter().find(|row| row.ts >= left.ts && fits(row));
    match (options.direction, before, after) {
        (Direction::Backward, before, _) => before,
        (Direction::Forward, _, after) => after,
        (Direction::Nearest, Some(before), Some(after)) if distance(after) < distance(before) => Some(after),
        (Direction::Nearest, before, after) => before.or(after),
    }
}

/// The rows of the result: those of the left row, then of the right row what is no key, then its time.
fn expected(left: &[Row], right: &[Row], options: &Options) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    for row in left {
        let found = match_of(row, right, options);
        if found.is_none() && options.inner {
            continue;
        }
        let time = |row: &Row| Value::Timestamp(Timestamp(row.ts));
        let mut values = vec![time(row)];
        values.extend(row.values.iter().cloned());
        values.push(found.map_or(Value::Null, time));
        for i in (0..NAMES.len()).filter(|i| !options.keys.contains(i)) {
            values.push(found.map_or(Value::Null, |row| row.values[i].clone()));
        }
        rows.push(values);
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6_000))]

    #[test]
    fn as_of_joins_find_what_looking_at_all_rows_finds(
        left in any_input(), right in any_input(), options in any_options(),
    ) {
        let (left_source, right_source) = (left.source(), right.source());
        let mut join = AsOf::new(left.rows(&left_source), right.rows(&right_source))
            .direction(options.direction)
            .exact(options.exact)
            .right_timestamp("at");
        for key in &options.keys {
            join = join.by(NAMES[*key]);
        }
        if let Some(tolerance) = options.tolerance {
            join = join.tolerance(Duration::from_nanos(tolerance));
        }
        if options.inner {
            join = join.inner();
        }
        let rows = join.clone().collect().unwrap();
        let expected = expected(&left.in_order(), &right.in_order(), &options);
        prop_assert_eq!(model::listed(&rows), expected.clone());
        let mut names = vec!["timestamp".to_string()];
        names.extend(NAMES.map(str::to_string));
        names.push("at".to_string());
        let others = (0..NAMES.len()).filter(|i| !options.keys.contains(i));
        names.extend(others.map(|i| format!("{}_right", NAMES[i])));
        prop_assert_eq!(rows.names().iter().map(|name| name.to_string()).collect::<Vec<_>>(), names);

        let batches: Vec<Columns> = join.batches().unwrap().map(Result::unwrap).collect();
        prop_assert!(batches.iter().all(|batch| batch.rows() > 0));
        let in_batches: Vec<Vec<Value>> = batches.iter().flat_map(model::listed).collect();
        prop_assert_eq!(in_batches, expected);
    }
}

fn at(times: &[i64]) -> Columns {
    let times: Vec<Timestamp> = times.iter().copied().map(Timestamp).collect();
    Columns::new().with("timestamp", Column::from(times)).unwrap()
}

/// A long input is read in pieces that are let go; what is still a match is kept.
#[test]
fn rare_keys_are_found_behind_many_others() {
    const ROWS: usize = 700_000;
    let keys: Vec<i64> =
        (0..ROWS as i64).map(|row| if row % 90_001 == 7 { 1_000 + row % 5 } else { row % 3 }).collect();
    let times: Vec<i64> = (0..ROWS as i64).collect();
    let columns = Columns::new().with("key", Column::from(keys.clone())).unwrap();
    let columns = columns.with("text", Column::from_iter((0..ROWS).map(|row| row.to_string()))).unwrap();
    let run = underbelly_query::MemoryRun::new(times, columns, 1).unwrap();
    let schema = ["key", "text"].into_iter().zip([ColumnType::I64, ColumnType::Utf8]);
    let columns = schema.map(|(name, column_type)| underbelly_query::SchemaColumn {
        name: name.into(),
        column_type,
        key: false,
    });
    let schema = underbelly_query::Schema { columns: columns.collect() };
    let source = RunsOf { schema, runs: vec![std::sync::Arc::new(run)], seq: 1, slice_rows: model::MANY };
    let wanted: Vec<(i64, i64)> =
        (0..40).map(|i| (i * 17_500, if i % 2 == 0 { 1_000 + i % 5 } else { i % 3 })).collect();
    let left = at(&wanted.iter().map(|(ts, _)| *ts).collect::<Vec<_>>());
    let left =
        left.with("key", Column::from(wanted.iter().map(|(_, key)| *key).collect::<Vec<_>>())).unwrap();
    for direction in [Direction::Backward, Direction::Forward, Direction::Nearest] {
        let join =
            AsOf::new(left.clone(), Scan::new(&source).batch_rows(50_000)).by("key").direction(direction);
        let rows = join.collect().unwrap();
        for (row, (ts, key)) in wanted.iter().enumerate() {
            let before = (0..=*ts).rev().find(|at| keys[*at as usize] == *key);
            let after = (*ts..ROWS as i64).find(|at| keys[*at as usize] == *key);
            let found = match (direction, before, after) {
                (Direction::Backward, before, _) => before,
                (Direction::Forward, _, after) => after,
                (Direction::Nearest, Some(before), Some(after)) if after - ts < ts - before => Some(after),
                (Direction::Nearest, before, after) => before.or(after),
            };
            let expected = found.map_or(Value::Null, |at| Value::from(at.to_string().as_str()));
            assert_eq!(rows.value("text", row), Some(expected), "{direction:?} of {key} at {ts}");
        }
    }
}

#[test]
fn keys_may_differ_in_name_and_length_of_numbers() {
    let left = at(&[5, 6, 7, 8]).with("id", Column::from(vec![1i32, 2, -1, 9])).unwrap();
    let right = at(&[1, 2, 3, 4]).with("number", Column::from(vec![1i64, 2, -1, 1])).unwrap();
    let right = right.with("value", Column::from(vec![0.1, 0.2, 0.3, 0.4])).unwrap();
    let rows = AsOf::new(left, right).by_pair("id", "number").collect().unwrap();
    assert_eq!(rows.f64s("value").unwrap(), [0.4, 0.2, 0.3, 0.0]);
    assert!(rows.column("number").is_none() && rows.column("value").unwrap().is_null(3));

    let floats = |values: Vec<f32>| Column::from(values);
    let left = at(&[5, 5, 5]).with("f", floats(vec![f32::NAN, -0.0, 0.5])).unwrap();
    let right = at(&[1, 1, 1]).with("f", Column::from(vec![0.0, -f64::NAN, 0.5])).unwrap();
    let right = right.with("value", Column::from(vec![1i64, 2, 3])).unwrap();
    let rows = AsOf::new(left, right).by("f").collect().unwrap();
    assert_eq!(rows.i64s("value").unwrap(), [2, 1, 3]);
}

#[test]
fn what_cannot_be_joined_is_refused() {
    let rows = || at(&[1, 2]).with("id", Column::from(vec![1i64, 2])).unwrap();
    let text = at(&[1]).with("id", Column::from_iter(["a"])).unwrap();
    let error = AsOf::new(rows(), text).by("id").collect().unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"key "id" holds i64 and key "id" of the other input utf8; convert one of them"#
    );
    let error = AsOf::new(rows(), rows()).by("ID").collect().unwrap_err();
    assert_eq!(error.to_string(), r#"there is no column "ID"; the columns are: timestamp, id"#);
    let timeless = Columns::new().with("id", Column::from(vec![1i64])).unwrap();
    let error = AsOf::new(timeless, rows()).collect().unwrap_err();
    assert_eq!(error.to_string(), r#"there is no column "timestamp"; the columns are: id"#);
    let numbers = Columns::new().with("timestamp", Column::from(vec![1i64])).unwrap();
    assert!(matches!(
        AsOf::new(rows(), numbers).collect(),
        Err(QueryError::TimeType { found: ColumnType::I64 })
    ));
    let mut gap = at(&[1]);
    gap.push_row(&[Value::Null]).unwrap();
    assert!(matches!(AsOf::new(gap, rows()).collect(), Err(QueryError::NoTime { row: 1 })));
    let error = AsOf::new(rows(), rows()).suffix("").collect().unwrap_err();
    assert!(matches!(error, QueryError::Columns(_)), "{error}");
    let error = AsOf::new(rows(), rows()).right_timestamp("id").collect().unwrap_err();
    assert!(matches!(error, QueryError::Columns(_)), "{error}");
}
