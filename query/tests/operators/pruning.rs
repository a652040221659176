//! What is read, by counting.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use underbelly_query::{
    Aggregate, AsOf, Every, Fill, GroupBy, Predicate, QueryError, Resample, Run, Scan, WindowJoin,
    last_points, latest,
};
use underbelly_storage::{Column, Columns, Date, Timestamp, Value};

use crate::model::{self, CountedRun, Row, RunOfRows, RunsOf};

/// Runs one after the other in time, each of `groups` groups of ten rows; row `i` of all is at time `i` and of
/// commit `i / 7 + 1`.
fn disjoint(runs: i64, groups: i64) -> (RunsOf, Vec<Arc<CountedRun>>) {
    let rows = groups * 10;
    let counted: Vec<Arc<CountedRun>> = (0..runs)
        .map(|run| {
            let rows = (run * rows..(run + 1) * rows).map(|i| Row {
                ts: i,
                seq: i as u64 / 7 + 1,
                values: vec![
                    Value::from(if i < 15 { "early" } else { "late" }),
                    Value::I64(0),
                    Value::F64(i as f64),
                    Value::Null,
                    Value::Date(Date(0)),
                ],
            });
            let stored = RunOfRows { rows: rows.collect(), group_rows: 10, ..RunOfRows::default() };
            Arc::new(stored.build())
        })
        .collect();
    let runs = counted.iter().map(|run| run.clone() as Arc<dyn Run>).collect();
    (RunsOf { schema: model::schema(), runs, seq: u64::MAX, slice_rows: model::MANY }, counted)
}

/// Timestamps, sequence numbers and columns read since the last call.
fn read(runs: &[Arc<CountedRun>]) -> (usize, usize, usize) {
    runs.iter().fold((0, 0, 0), |(timestamps, seqs, columns), run| {
        (
            timestamps + run.timestamps_read.swap(0, Ordering::Relaxed),
            seqs + run.seqs_read.swap(0, Ordering::Relaxed),
            columns + run.columns_read.swap(0, Ordering::Relaxed),
        )
    })
}

#[test]
fn a_range_reads_the_groups_that_overlap_it() {
    let (source, runs) = disjoint(4, 4);
    let scan = |from, to| Scan::new(&source).from(Timestamp(from)).to(Timestamp(to)).columns(["price"]);
    assert_eq!(scan(42, 48).collect().unwrap().rows(), 6);
    assert_eq!(read(&runs), (1, 0, 1));
    assert_eq!(scan(35, 45).collect().unwrap().rows(), 10);
    assert_eq!(read(&runs), (2, 0, 2));
    assert_eq!(scan(40, 50).collect().unwrap().rows(), 10);
    assert_eq!(read(&runs), (1, 0, 1));
    assert_eq!(scan(160, 170).collect().unwrap().rows(), 0);
    assert_eq!(scan(45, 45).collect().unwrap().rows(), 0);
    assert_eq!(read(&runs), (0, 0, 0));
}

/// What is known of some rows of a group leaves them out, though the group has others that pass.
#[test]
fn pieces_whose_bounds_exclude_a_predicate_are_not_read() {
    let row = |i: i64| Row {
        ts: i,
        seq: 1,
        values: vec![
            Value::from("A"),
            Value::I64(0),
            Value::F64(i as f64),
            Value::Null,
            Value::Date(Date(0)),
        ],
    };
    let rows = (0..40).map(row).collect();
    let stored = RunOfRows { rows, group_rows: 40, piece_rows: 10, ..RunOfRows::default() };
    let run = Arc::new(stored.build());
    let runs = vec![run.clone() as Arc<dyn Run>];
    let source = RunsOf { schema: model::schema(), runs, seq: u64::MAX, slice_rows: model::MANY };
    let found = |predicate: Predicate| {
        let rows = Scan::new(&source).filter("price", predicate).columns(["price"]).collect().unwrap();
        (rows.rows(), read(std::slice::from_ref(&run)).2)
    };
    assert_eq!(found(Predicate::AtLeast(Value::F64(32.0))), (8, 1));
    assert_eq!(found(Predicate::Equal(Value::F64(25.0))), (1, 1));
    assert_eq!(found(Predicate::OneOf(vec![Value::F64(5.0), Value::F64(35.0)])), (2, 2));
    assert_eq!(found(Predicate::Below(Value::F64(-5.0))), (0, 0));
    assert_eq!(found(Predicate::NotNull), (40, 4));
}

#[test]
fn batches_read_groups_when_they_reach_them() {
    let (source, runs) = disjoint(4, 4);
    let mut batches = Scan::new(&source).batch_rows(10).columns(["price"]).batches();
    for _ in 0..16 {
        assert_eq!(batches.next().unwrap().unwrap().rows(), 10);
        assert_eq!(read(&runs), (1, 0, 1));
    }
    assert!(batches.next().is_none());
    assert_eq!(Scan::new(&source).rows_max(5).collect().unwrap().rows(), 5);
    assert_eq!(read(&runs), (1, 0, 5));
    assert_eq!(Scan::new(&source).rows_max(0).collect().unwrap().rows(), 0);
    assert_eq!(read(&runs), (0, 0, 0));
}

#[test]
fn counting_reads_the_groups_at_the_ends_alone() {
    let (mut source, runs) = disjoint(4, 4);
    assert_eq!(Scan::new(&source).count().unwrap(), 160);
    assert_eq!(read(&runs), (0, 0, 0));
    assert_eq!(Scan::new(&source).from(Timestamp(5)).to(Timestamp(155)).count().unwrap(), 150);
    assert_eq!(read(&runs), (2, 0, 0));
    // Commit 1 ends at row 6, in the first group; the other groups are all of later commits.
    source.seq = 1;
    assert_eq!(Scan::new(&source).count().unwrap(), 7);
    assert_eq!(read(&runs), (0, 1, 0));
    assert_eq!(Scan::new(&source).collect().unwrap().rows(), 7);
    assert_eq!(read(&runs), (1, 1, 5));
}

#[test]
fn a_key_that_a_group_lacks_costs_the_key_alone() {
    let (source, runs) = disjoint(4, 4);
    assert_eq!(Scan::new(&source).key("symbol", "early").count().unwrap(), 15);
    assert_eq!(read(&runs), (0, 0, 2), "zones exclude the others");
    assert_eq!(Scan::new(&source).key("symbol", "early").columns(["price"]).collect().unwrap().rows(), 15);
    assert_eq!(read(&runs), (2, 0, 4));
    // Between both as zones tell.
    assert_eq!(Scan::new(&source).key("symbol", "found").count().unwrap(), 0);
    assert_eq!(read(&runs), (0, 0, 1));
    for absent in ["a", "z"] {
        assert_eq!(latest(&source, 1, &[("symbol", absent.into())]).unwrap().rows(), 0);
    }
    assert_eq!(Scan::new(&source).key("symbol", Value::Null).count().unwrap(), 0);
    assert_eq!(read(&runs), (0, 0, 0));
}

#[test]
fn latest_reads_from_the_end_and_stops() {
    let (source, runs) = disjoint(4, 4);
    assert_eq!(latest(&source, 1, &[]).unwrap().timestamps("timestamp").unwrap(), [159]);
    assert_eq!(read(&runs), (1, 0, 5));
    assert_eq!(latest(&source, 10, &[]).unwrap().rows(), 10);
    assert_eq!(read(&runs), (1, 0, 5));
    assert_eq!(latest(&source, 11, &[]).unwrap().rows(), 11);
    assert_eq!(read(&runs), (2, 0, 10));
    assert_eq!(latest(&source, 0, &[]).unwrap().rows(), 0);
    assert_eq!(read(&runs), (0, 0, 0));
    let newest = latest(&source, 1, &[("symbol", "early".into())]).unwrap();
    assert_eq!(newest.timestamps("timestamp").unwrap(), [14]);
    assert_eq!(read(&runs), (1, 0, 5), "a key that decided is not read again");
}

/// Operators that give none of the columns back read those that they need.
#[test]
fn operators_read_the_columns_that_they_need() {
    let (source, runs) = disjoint(4, 4);
    let bars = || Resample::new(Scan::new(&source), Every::minutes(1)).aggregates(Aggregate::ohlc("price"));
    assert_eq!(bars().collect().unwrap().rows(), 1);
    assert_eq!(read(&runs), (16, 0, 16));
    assert_eq!(bars().by("symbol").collect().unwrap().rows(), 2);
    assert_eq!(read(&runs), (16, 0, 32));
    let sums = Scan::new(&source).group_by(["symbol"]).aggregate(Aggregate::sum("price"));
    assert_eq!(sums.collect().unwrap().rows(), 2);
    assert_eq!(read(&runs), (16, 0, 32));
    let last = Scan::new(&source).group_by([""; 0]).aggregate(Aggregate::last("timestamp"));
    assert_eq!(last.collect().unwrap().row(0), [Value::Timestamp(Timestamp(159))]);
    assert_eq!(read(&runs), (16, 0, 0));
    let one = Columns::new().with("timestamp", Column::from(vec![Timestamp(5)])).unwrap();
    let window = Duration::from_nanos(200);
    let joined = WindowJoin::new(one, Scan::new(&source), window, window).aggregate(Aggregate::mean("price"));
    assert_eq!(joined.collect().unwrap().rows(), 1);
    assert_eq!(read(&runs), (16, 0, 16));
    // A scan that names its columns has no others.
    let named = Resample::new(Scan::new(&source).columns(["price"]), Every::minutes(1)).by("symbol");
    assert!(matches!(named.collect(), Err(QueryError::UnknownColumn { .. })));
    let unknown = GroupBy::new(Scan::new(&source)).by("nothing").collect().unwrap_err();
    assert!(unknown.to_string().contains("timestamp, symbol"), "{unknown}");
}

/// "timestamp" is a column that can be filtered, and narrows the range that is read.
#[test]
fn timestamps_are_filtered_as_other_columns() {
    let (source, runs) = disjoint(4, 4);
    let at = |at: i64| Value::Timestamp(Timestamp(at));
    let cases = [
        (Predicate::Equal(at(42)), 1, 1),
        (Predicate::NotEqual(at(42)), 159, 1),
        (Predicate::NotEqual(at(500)), 160, 0),
        (Predicate::Below(at(25)), 25, 1),
        (Predicate::AtMost(at(25)), 26, 1),
        (Predicate::Above(at(155)), 4, 1),
        (Predicate::AtLeast(at(155)), 5, 1),
        (Predicate::Below(at(i64::MIN)), 0, 0),
        (Predicate::Above(at(i64::MAX)), 0, 0),
        (Predicate::Equal(Value::Null), 0, 0),
        (Predicate::IsNull, 0, 0),
        (Predicate::NotNull, 160, 0),
    ];
    for (predicate, rows, groups) in cases {
        let scan = Scan::new(&source).filter("timestamp", predicate.clone());
        assert_eq!(scan.clone().count().unwrap(), rows, "{predicate:?}");
        assert_eq!(read(&runs), (groups, 0, 0), "{predicate:?}");
        assert_eq!(scan.collect().unwrap().rows() as u64, rows, "{predicate:?}");
        read(&runs);
    }
    let both = Scan::new(&source).from(Timestamp(10)).filter("timestamp", Predicate::Below(at(15)));
    assert_eq!(both.filter("timestamp", Predicate::NotEqual(at(12))).count().unwrap(), 4);
    let wrong = Scan::new(&source).filter("timestamp", Predicate::Equal(Value::I64(1))).count();
    assert!(matches!(wrong, Err(QueryError::ValueType { .. })));
    let some = |instants: &[i64]| {
        let some = Predicate::one_of(instants.iter().map(|instant| at(*instant)));
        Scan::new(&source).filter("timestamp", some)
    };
    read(&runs);
    assert_eq!(some(&[42, 47, 500, 42]).count().unwrap(), 2);
    assert_eq!(read(&runs).0, 1);
    // Groups between two instants are not read.
    assert_eq!(some(&[3, 155]).count().unwrap(), 2);
    assert_eq!(read(&runs).0, 2);
    assert_eq!(some(&[42, 47]).filter("timestamp", Predicate::one_of([at(1), at(47)])).count().unwrap(), 1);
    assert_eq!(some(&[]).count().unwrap(), 0);
    let wrong = Scan::new(&source).filter("timestamp", Predicate::one_of([1i64])).count();
    assert!(matches!(wrong, Err(QueryError::ValueType { .. })));
    let key = Scan::new(&source).key("timestamp", at(1)).count();
    assert!(matches!(key, Err(QueryError::NotKey { .. })));
}

#[test]
fn names_that_collide_are_found_before_anything_is_read() {
    let (source, runs) = disjoint(1, 1);
    let twice = || [Aggregate::min("price"), Aggregate::max("price").named("price_min")];
    let scan = || Scan::new(&source);
    assert!(matches!(scan().group_by(["symbol"]).aggregates(twice()).collect(), Err(QueryError::Columns(_))));
    let bars = || scan().resample(Every::minutes(1));
    assert!(matches!(bars().aggregates(twice()).collect(), Err(QueryError::Columns(_))));
    let time = bars().aggregate(Aggregate::min("price").named("timestamp"));
    assert!(matches!(time.collect(), Err(QueryError::Columns(_))));
    let fill = bars().aggregate(Aggregate::min("price")).fill_column("price_max", Fill::Previous);
    assert!(matches!(fill.collect(), Err(QueryError::UnknownColumn { .. })));
    assert_eq!(read(&runs), (0, 0, 0));
}

#[test]
fn last_points_read_columns_where_the_newest_rows_are() {
    let (source, runs) = disjoint(4, 4);
    let points = last_points(&source).unwrap();
    assert_eq!(points.timestamps("timestamp").unwrap(), [14, 159]);
    // Two keys of each of sixteen groups, then five columns of two groups.
    assert_eq!(read(&runs).2, 16 * 2 + 2 * 5);
}

#[test]
fn predicates_read_the_groups_that_may_hold_what_they_ask_for() {
    let (source, runs) = disjoint(4, 4);
    let scan = |predicate| Scan::new(&source).filter("price", predicate).columns(["venue"]);
    assert_eq!(scan(Predicate::Above(151.0.into())).collect().unwrap().rows(), 8);
    assert_eq!(read(&runs), (1, 0, 2));
    assert_eq!(scan(Predicate::Below(10i64.into())).collect().unwrap().rows(), 10);
    assert_eq!(read(&runs), (1, 0, 2));
    assert_eq!(scan(Predicate::Equal(200.0.into())).count().unwrap(), 0);
    assert_eq!(scan(Predicate::IsNull).count().unwrap(), 0);
    assert_eq!(read(&runs), (0, 0, 0));
    // The groups of the two that there are.
    let some = Predicate::one_of([Value::Null, 3.0.into(), 151.0.into(), 200.0.into()]);
    assert_eq!(scan(some).collect().unwrap().rows(), 2);
    assert_eq!(read(&runs), (2, 0, 4));
    assert_eq!(scan(Predicate::one_of([200.0, -1.0])).count().unwrap(), 0);
    assert_eq!(scan(Predicate::OneOf(Vec::new())).count().unwrap(), 0);
    assert_eq!(read(&runs), (0, 0, 0));
}

#[test]
fn one_of_several_keys_is_looked_for_in_one_pass() {
    let (source, runs) = disjoint(4, 4);
    let scan =
        |symbols: &[&str]| Scan::new(&source).keys("symbol", symbols.iter().copied()).columns(["price"]);
    assert_eq!(scan(&["early", "a", "z"]).collect().unwrap().rows(), 15);
    assert_eq!(read(&runs), (2, 0, 4), "zones exclude the others");
    assert_eq!(scan(&["early", "late"]).collect().unwrap().rows(), 160);
    assert_eq!(read(&runs), (16, 0, 32));
    assert_eq!(scan(&["a", "z"]).collect().unwrap().rows(), 0);
    assert_eq!(scan(&[]).collect().unwrap().rows(), 0);
    assert_eq!(read(&runs), (0, 0, 0));
}

/// Of rows that are kept by key none is read where no key is one of those that are asked for.
#[test]
fn groups_that_are_kept_by_key_are_read_for_one_of_their_keys() {
    let rows = (0..40i64).map(|i| Row {
        ts: i,
        seq: 1,
        values: vec![
            ["a", "b", "c", "d"][i as usize % 4].into(),
            Value::I64(0),
            Value::F64(i as f64),
            Value::Null,
            Value::Null,
        ],
    });
    let run = RunOfRows { rows: rows.collect(), group_rows: 10, by_key: true, ..RunOfRows::default() };
    let run = Arc::new(run.build());
    let runs: Vec<Arc<dyn Run>> = vec![run.clone()];
    let source = RunsOf { schema: model::schema(), runs, seq: 1, slice_rows: model::MANY };
    let prices = |symbols: &[&str]| {
        let scan = Scan::new(&source).keys("symbol", symbols.iter().copied()).columns(["price"]);
        scan.collect().unwrap().f64s("price").unwrap().to_vec()
    };
    assert_eq!(prices(&["b", "x"])[..3], [1.0, 5.0, 9.0]);
    let one = read(std::slice::from_ref(&run));
    assert_eq!(prices(&["aa", "bb", "cc"]), [0.0; 0]);
    assert_eq!(read(std::slice::from_ref(&run)), (0, 0, 0), "keys that are between others");
    assert_eq!(prices(&["b"])[..3], [1.0, 5.0, 9.0]);
    assert_eq!(read(&[run]), one, "the rows of the one that is there alone");
}

/// Windows are found from the end; then the groups that have rows of them are read.
#[test]
fn the_newest_windows_read_no_group_before_them() {
    let (source, runs) = disjoint(4, 4);
    let windows = |scan: Scan<'_>, fill: Fill, n: usize| {
        let windows = scan.resample(Every::of(Duration::from_nanos(4))).fill(fill).newest(n);
        let found = windows.aggregate(Aggregate::max("price")).collect().unwrap();
        found.f64s("price_max").unwrap().to_vec()
    };
    let scan = || Scan::new(&source);
    for fill in [Fill::None, Fill::Previous] {
        assert_eq!(windows(scan(), fill.clone(), 2), [155.0, 159.0]);
        let (timestamps, _, columns) = read(&runs);
        assert!(timestamps <= 5 && columns <= 2, "{timestamps} and {columns} of 16 groups");
        assert_eq!(windows(scan().to(Timestamp(22)), fill.clone(), 1), [21.0]);
        let (timestamps, _, columns) = read(&runs);
        assert!(timestamps <= 4 && columns <= 1, "{timestamps} and {columns} of 16 groups");
        assert_eq!(windows(scan(), fill, 0), [0.0; 0]);
        assert_eq!(read(&runs), (0, 0, 0));
    }
    let early = scan().key("symbol", "early");
    assert_eq!(windows(early, Fill::None, 1), [14.0], "the newest that are asked for");
    // Of the earliest rows the newest windows.
    assert_eq!(windows(scan().rows_max(9), Fill::None, 2), [7.0, 8.0]);
}

/// Whether the join is cut into slices or not.
#[test]
fn a_join_reads_no_right_rows_behind_the_left_ones() {
    for slice_rows in [10, model::MANY] {
        let (mut left, _) = disjoint(1, 4);
        let (mut right, runs) = disjoint(4, 4);
        (left.slice_rows, right.slice_rows) = (slice_rows, slice_rows);
        let join = |from: i64, to: i64| {
            let left = Scan::new(&left).from(Timestamp(from)).to(Timestamp(to)).columns(["price"]);
            AsOf::new(left, Scan::new(&right).columns(["price"])).collect().unwrap()
        };
        let joined = join(5, 25);
        assert_eq!(joined.rows(), 20);
        assert_eq!(joined.column("price"), joined.column("price_right"));
        let (timestamps, _, columns) = read(&runs);
        assert!(timestamps <= 4 && columns <= 4, "{timestamps} and {columns} of 16 groups");
        assert_eq!(join(500, 600).rows(), 0);
        let (timestamps, _, columns) = read(&runs);
        assert!(timestamps <= 1 && columns <= 1, "{timestamps} and {columns} where nothing is asked for");
    }
}
