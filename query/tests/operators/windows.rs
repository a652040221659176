//! Window joins, rolling and grouped aggregates.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use underbelly_query::{
    Aggregate, Closed, GroupBy, MemoryRun, QueryError, Scan, Schema, SchemaColumn, WindowJoin,
};
use underbelly_storage::{Column, ColumnType, Columns, Timestamp, Value};

use crate::latest::key;
use crate::model::{self, NAMES, Row, RunsOf, any_input};
use crate::resample::{is_close, of_columns, reduce, with_nan};

fn all() -> impl Iterator<Item = Aggregate> {
    let of_rows =
        [Aggregate::rows(), Aggregate::vwap("price", "venue"), Aggregate::turnover("price", "venue")];
    of_rows.into_iter().chain(of_columns().into_iter().map(|(aggregate, ..)| aggregate))
}

/// The rows of a window join, by looking at all right rows.
fn expected(
    left: &[Row],
    right: &[Row],
    keys: &[usize],
    (before, after): (u64, u64),
    closed: Closed,
) -> Vec<Vec<Value>> {
    let joined = |row: &Row| {
        let in_window = |other: &&Row| {
            let distance = i128::from(other.ts) - i128::from(row.ts);
            let (first, last) = (-i128::from(before), i128::from(after));
            let is_first = matches!(closed, Closed::Left | Closed::Both) && distance == first;
            let is_last = matches!(closed, Closed::Right | Closed::Both) && distance == last;
            let inside = first < distance && distance < last;
            // Where both ends are one instant, both must belong.
            let fits = if first == last { is_first && is_last } else { inside || is_first || is_last };
            fits && keys.iter().all(|key| other.values[*key] == row.values[*key])
        };
        let window: Vec<&Row> = right.iter().filter(in_window).collect();
        let mut values = vec![Value::Timestamp(Timestamp(row.ts))];
        values.extend(row.values.iter().cloned());
        values.extend(reduce(&window));
        values
    };
    left.iter().map(joined).collect()
}

fn same(found: &[Vec<Value>], expected: &[Vec<Value>]) -> Result<(), TestCaseError> {
    prop_assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let same = found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| is_close(a, b));
        prop_assert!(same, "{:?}\n{:?}", found, expected);
    }
    Ok(())
}

fn lengths() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0u64..5, 1 => Just(u64::MAX)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn window_joins_find_what_looking_at_all_rows_finds(
        left in any_input(), right in any_input(),
        keys in prop::sample::subsequence(vec![0usize, 1, 2], 0..3),
        lengths in (lengths(), lengths()),
        closed in prop::sample::select(vec![Closed::Left, Closed::Right, Closed::Both, Closed::Neither]),
    ) {
        let right = with_nan(right);
        let (left_source, right_source) = (left.source(), right.source());
        let (before, after) = (Duration::from_nanos(lengths.0), Duration::from_nanos(lengths.1));
        let join = WindowJoin::new(left.rows(&left_source), right.rows(&right_source), before, after);
        let join = keys.iter().fold(join.closed(closed), |join, key| join.by(NAMES[*key]));
        let join = join.aggregates(all());
        let expected = expected(&left.in_order(), &right.in_order(), &keys, lengths, closed);
        same(&model::listed(&join.clone().collect().unwrap()), &expected)?;
        let batches: Vec<Columns> = join.batches().unwrap().map(Result::unwrap).collect();
        prop_assert!(batches.iter().all(|batch| batch.rows() > 0));
        same(&batches.iter().flat_map(model::listed).collect::<Vec<_>>(), &expected)?;
    }

    #[test]
    fn rolling_windows_are_those_of_rows_around_themselves(input in any_input(), length in 0u64..5, by_key in any::<bool>()) {
        let source = input.source();
        let rolling = WindowJoin::rolling(input.rows(&source), Duration::from_nanos(length)).aggregates(all());
        let keys: &[usize] = if by_key { &[0] } else { &[] };
        let rolling = keys.iter().fold(rolling, |rolling, key| rolling.by(NAMES[*key]));
        let rows = input.in_order();
        // A window of no length has the rows of its instant.
        let closed = if length == 0 { Closed::Both } else { Closed::Right };
        let expected = expected(&rows, &rows, keys, (length, 0), closed);
        same(&model::listed(&rolling.collect().unwrap()), &expected)?;
    }

    #[test]
    fn groups_hold_what_looking_at_all_rows_finds(
        input in any_input(), keys in prop::sample::subsequence(vec![0usize, 1], 0..3),
    ) {
        let input = with_nan(input);
        let source = input.source();
        let rows = input.in_order();
        let group_by = keys.iter().fold(GroupBy::new(input.rows(&source)), |group_by, key| group_by.by(NAMES[*key]));
        let mut groups: BTreeMap<_, Vec<&Row>> = BTreeMap::new();
        if keys.is_empty() {
            groups.insert((None, None), Vec::new());
        }
        for row in &rows {
            let (symbol, venue) = key(row);
            let key = (symbol.filter(|_| keys.contains(&0)), venue.filter(|_| keys.contains(&1)));
            groups.entry(key).or_default().push(row);
        }
        let row = |rows: &Vec<&Row>| {
            let mut values: Vec<Value> = keys.iter().map(|key| rows[0].values[*key].clone()).collect();
            values.extend(reduce(rows));
            values
        };
        let expected: Vec<Vec<Value>> = groups.values().map(row).collect();
        same(&model::listed(&group_by.aggregates(all()).collect().unwrap()), &expected)?;
    }
}

/// More left rows than are answered at a time, and right rows in several batches that are let go.
#[test]
fn long_inputs_are_joined_piece_by_piece() {
    const ROWS: i64 = 150_000;
    let times: Vec<i64> = (0..ROWS).map(|row| row / 3).collect();
    let columns = Columns::new().with("value", Column::from((0..ROWS).collect::<Vec<_>>())).unwrap();
    let run = MemoryRun::new(times.clone(), columns, 1).unwrap();
    let schema = Schema {
        columns: vec![SchemaColumn { name: "value".into(), column_type: ColumnType::I64, key: false }],
    };
    let source = RunsOf { schema, runs: vec![std::sync::Arc::new(run)], seq: 1, slice_rows: model::MANY };
    let right = Scan::new(&source).batch_rows(10_000);
    let left = Column::from(times.iter().copied().map(Timestamp).collect::<Vec<_>>());
    let left = Columns::new().with("timestamp", left).unwrap();
    let join = WindowJoin::new(left, right, Duration::from_nanos(2), Duration::from_nanos(1));
    let joined = join
        .aggregates([Aggregate::min("value"), Aggregate::max("value"), Aggregate::rows()])
        .collect()
        .unwrap();
    let (least, greatest) = (joined.i64s("value_min").unwrap(), joined.i64s("value_max").unwrap());
    for (row, ts) in times.iter().enumerate() {
        let (first, last) = ((3 * (ts - 2)).max(0), (3 * (ts + 1) + 2).min(ROWS - 1));
        assert_eq!((least[row], greatest[row]), (first, last), "row {row}");
        assert_eq!(joined.i64s("rows").unwrap()[row], last - first + 1, "row {row}");
    }
}

#[test]
fn what_cannot_be_joined_or_grouped_is_refused() {
    let at = |times: Vec<i64>| Column::from(times.into_iter().map(Timestamp).collect::<Vec<_>>());
    let rows = || {
        let rows = Columns::new().with("timestamp", at(vec![1])).unwrap();
        rows.with("name", Column::from_iter(["a"])).unwrap()
    };
    let join = || WindowJoin::rolling(rows(), Duration::from_nanos(1));
    let refused = join().aggregate(Aggregate::sum("name")).collect().unwrap_err();
    assert_eq!(refused.to_string(), r#"a sum needs numbers, but column "name" holds utf8"#);
    let refused = join().aggregate(Aggregate::rows().named("name")).collect();
    assert!(matches!(refused, Err(QueryError::Columns(_))));
    assert!(matches!(join().by("nam").collect(), Err(QueryError::UnknownColumn { .. })));
    let refused = GroupBy::new(rows()).by("nam").collect();
    assert!(matches!(refused, Err(QueryError::UnknownColumn { .. })));
    let refused = GroupBy::new(rows()).by("name").aggregate(Aggregate::rows().named("name")).collect();
    assert!(matches!(refused, Err(QueryError::Columns(_))));
}
