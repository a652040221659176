use std::sync::Arc;

use proptest::prelude::*;
use underbelly_query::{
    Closed, MemoryRun, Predicate, QueryError, Run, Scan, Schema, SchemaColumn, TIMESTAMP, latest,
};
use underbelly_storage::{Column, ColumnType, Columns, Timestamp, Value};

use crate::model::{self, Keys, NAMES, Row, RunsOf};

#[derive(Clone, Debug)]
struct Query {
    from: Option<i64>,
    to: Option<i64>,
    closed: Closed,
    keys: Keys,
    /// Values of which rows are to have one, by the place of the key.
    keys_of: Vec<(usize, Vec<Value>)>,
    /// Instants of which rows are to have one.
    instants: Option<Vec<i64>>,
    projection: Option<Vec<&'static str>>,
    rows_max: Option<usize>,
    batch_rows: usize,
}

impl Query {
    fn scan<'a>(&self, source: &'a RunsOf) -> Scan<'a> {
        let mut scan = Scan::new(source).closed(self.closed).batch_rows(self.batch_rows);
        if let Some(from) = self.from {
            scan = scan.from(Timestamp(from));
        }
        if let Some(to) = self.to {
            scan = scan.to(Timestamp(to));
        }
        for (i, value) in &self.keys {
            scan = scan.key(NAMES[*i], value.clone());
        }
        for (i, values) in &self.keys_of {
            scan = scan.keys(NAMES[*i], values.iter().cloned());
        }
        if let Some(instants) = &self.instants {
            let instants = instants.iter().map(|ts| Value::Timestamp(Timestamp(*ts)));
            scan = scan.filter(TIMESTAMP, Predicate::one_of(instants.chain([Value::Null])));
        }
        if let Some(projection) = &self.projection {
            scan = scan.columns(projection);
        }
        if let Some(rows_max) = self.rows_max {
            scan = scan.rows_max(rows_max);
        }
        scan
    }

    fn asks_for(&self, row: &Row) -> bool {
        let (first, last) = match self.closed {
            Closed::Left => (true, false),
            Closed::Right => (false, true),
            Closed::Both => (true, true),
            Closed::Neither => (false, false),
        };
        let after = self.from.is_none_or(|from| if first { row.ts >= from } else { row.ts > from });
        let before = self.to.is_none_or(|to| if last { row.ts <= to } else { row.ts < to });
        let has_one = |(i, values): &(usize, Vec<Value>)| values.contains(&row.values[*i]);
        let is_then = self.instants.as_ref().is_none_or(|instants| instants.contains(&row.ts));
        after && before && is_then && model::has_keys(row, &self.keys) && self.keys_of.iter().all(has_one)
    }
}

prop_compose! {
    fn any_query()(
        from in prop::option::of(model::times()),
        to in prop::option::of(model::times()),
        closed in prop::sample::select(vec![Closed::Left, Closed::Right, Closed::Both, Closed::Neither]),
        keys in model::any_keys(),
        symbols in prop::option::weighted(0.3, prop::collection::vec(model::symbols(), 0..4)),
        venues in prop::option::weighted(0.2, prop::collection::vec(model::venues(), 0..3)),
        instants in prop::option::weighted(0.2, prop::collection::vec(model::times(), 0..5)),
        projection in prop::option::of(prop::sample::subsequence(NAMES.to_vec(), 0..=5).prop_shuffle()),
        rows_max in prop::option::of(0usize..30),
        batch_rows in prop_oneof![1usize..9, Just(65_536)],
    ) -> Query {
        let keys_of = symbols.into_iter().map(|symbols| (0, symbols));
        let keys_of = keys_of.chain(venues.into_iter().map(|venues| (1, venues))).collect();
        Query { from, to, closed, keys, keys_of, instants, projection, rows_max, batch_rows }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn a_scan_is_a_sorted_list_filtered(runs in model::any_runs(), seq in 0u64..7, query in any_query()) {
        let source = model::source(&runs, seq);
        if let (Some(from), Some(to)) = (query.from, query.to) && from > to {
            let refused = matches!(query.scan(&source).collect(), Err(QueryError::BadRange { .. }));
            prop_assert!(refused);
            return Ok(());
        }
        let names = query.projection.clone().unwrap_or(NAMES.to_vec());
        let rows = model::visible(&runs, seq);
        let rows = rows.iter().filter(|row| query.asks_for(row)).take(query.rows_max.unwrap_or(usize::MAX));
        let expected = model::expected(rows, &names);

        let all = query.scan(&source).collect().unwrap();
        prop_assert_eq!(&*all.names()[0], TIMESTAMP);
        prop_assert_eq!(all.names()[1..].iter().map(|name| &**name).collect::<Vec<_>>(), names);
        prop_assert_eq!(model::listed(&all), expected.clone());
        for (name, column) in all.iter().skip(1) {
            prop_assert_eq!(column.column_type(), source.schema.column(name).unwrap().column_type);
        }
        prop_assert_eq!(query.scan(&source).count().unwrap(), expected.len() as u64);

        let batches: Vec<Columns> = query.scan(&source).batches().collect::<Result<_, _>>().unwrap();
        if let Some((last, full)) = batches.split_last() {
            prop_assert!(full.iter().all(|batch| batch.rows() == query.batch_rows));
            prop_assert!((1..=query.batch_rows).contains(&last.rows()));
        }
        prop_assert_eq!(batches.iter().flat_map(model::listed).collect::<Vec<_>>(), expected);
    }
}

fn numbers(timestamps: Vec<i64>, seq: u64) -> Arc<dyn Run> {
    let columns = Columns::new().with("n", Column::from(timestamps.clone())).unwrap();
    Arc::new(MemoryRun::new(timestamps, columns, seq).unwrap())
}

fn numbers_schema(column_type: ColumnType, key: bool) -> Schema {
    Schema { columns: vec![SchemaColumn { name: "n".into(), column_type, key }] }
}

#[test]
fn long_runs_interleave_row_by_row_and_in_blocks() {
    let runs = [
        numbers((0..30_000).map(|i| i * 3).collect(), 1),
        numbers((0..30_000).map(|i| i * 3 + 1).collect(), 2),
        numbers((0..30_000).map(|i| i * 3 + 2).collect(), 3),
        numbers((90_000..200_000).collect(), 4),
    ];
    let source = RunsOf {
        schema: numbers_schema(ColumnType::I64, false),
        runs: runs.to_vec(),
        seq: 9,
        slice_rows: model::MANY,
    };
    let all = Scan::new(&source).collect().unwrap();
    assert_eq!(all.timestamps(TIMESTAMP).unwrap(), (0..200_000).collect::<Vec<_>>());
    assert_eq!(all.i64s("n"), all.timestamps(TIMESTAMP));
    let batches: Vec<usize> = Scan::new(&source).batches().map(|batch| batch.unwrap().rows()).collect();
    assert_eq!(batches, [65_536, 65_536, 65_536, 3_392]);
}

#[test]
fn integers_widen_in_columns_and_in_keys() {
    let runs = vec![numbers(vec![1, 2, 2, 3], 1)];
    let source =
        RunsOf { schema: numbers_schema(ColumnType::F64, true), runs, seq: 1, slice_rows: model::MANY };
    assert_eq!(Scan::new(&source).collect().unwrap().f64s("n").unwrap(), [1.0, 2.0, 2.0, 3.0]);
    assert_eq!(Scan::new(&source).key("n", 2.0).count().unwrap(), 2);
    assert_eq!(Scan::new(&source).key("n", 2).collect().unwrap().f64s("n").unwrap(), [2.0, 2.0]);
    assert_eq!(Scan::new(&source).key("n", Value::Null).count().unwrap(), 0);
    assert_eq!(Scan::new(&source).key("n", 2).key("n", 3).count().unwrap(), 0);
}

/// Rounded, an integer that an f64 cannot hold would be the key beside it.
#[test]
fn integers_that_a_key_cannot_hold_are_refused() {
    let columns = Columns::new().with("n", Column::from(vec![(1u64 << 53) as f64])).unwrap();
    let run: Arc<dyn Run> = Arc::new(MemoryRun::new(vec![1], columns, 1).unwrap());
    let source = RunsOf {
        schema: numbers_schema(ColumnType::F64, true),
        runs: vec![run],
        seq: 1,
        slice_rows: model::MANY,
    };
    assert_eq!(Scan::new(&source).key("n", 1i64 << 53).count().unwrap(), 1);
    let beyond = (1i64 << 53) + 1;
    let refused = Scan::new(&source).key("n", beyond).count().unwrap_err();
    assert!(matches!(refused, QueryError::KeyPrecision { value, .. } if value == beyond), "{refused}");
    let refused = latest(&source, 1, &[("n", beyond.into())]).unwrap_err();
    assert!(matches!(refused, QueryError::KeyPrecision { .. }), "{refused}");
}

#[test]
fn nan_and_negative_zero_are_keys() {
    let columns = Columns::new().with("n", Column::from(vec![f64::NAN, -0.0, 0.0, 1.0])).unwrap();
    let run: Arc<dyn Run> = Arc::new(MemoryRun::new(vec![1, 2, 3, 4], columns, 1).unwrap());
    let source = RunsOf {
        schema: numbers_schema(ColumnType::F64, true),
        runs: vec![run],
        seq: 1,
        slice_rows: model::MANY,
    };
    assert_eq!(Scan::new(&source).key("n", f64::NAN).count().unwrap(), 1);
    assert_eq!(Scan::new(&source).key("n", 0.0).count().unwrap(), 2);
}

#[test]
fn the_timestamp_may_be_named_and_comes_first() {
    let source = RunsOf { schema: model::schema(), runs: Vec::new(), seq: 1, slice_rows: model::MANY };
    let names = |columns: Columns| columns.names().iter().map(|n| n.to_string()).collect::<Vec<_>>();
    let empty = Scan::new(&source).columns(["price", "timestamp", "symbol"]).collect().unwrap();
    assert_eq!(names(empty), ["timestamp", "price", "symbol"]);
    assert_eq!(names(Scan::new(&source).columns([""; 0]).collect().unwrap()), ["timestamp"]);
    assert_eq!(Scan::new(&source).batches().count(), 0);
}
