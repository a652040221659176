//! What is read, by counting.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use underbelly_query::{Predicate, Run, Scan, last_points, latest};
use underbelly_storage::{Date, Timestamp, Value};

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
            let stored =
                RunOfRows { rows: rows.collect(), present: [true; 5], whole_prices: false, group_rows: 10 };
            Arc::new(stored.build())
        })
        .collect();
    let runs = counted.iter().map(|run| run.clone() as Arc<dyn Run>).collect();
    (RunsOf { schema: model::schema(), runs, seq: u64::MAX }, counted)
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
    assert_eq!(read(&runs), (1, 1, 0));
    assert_eq!(Scan::new(&source).collect().unwrap().rows(), 7);
    assert_eq!(read(&runs), (1, 1, 5));
}

#[test]
fn a_key_that_a_group_lacks_costs_the_key_alone() {
    let (source, runs) = disjoint(4, 4);
    assert_eq!(Scan::new(&source).key("symbol", "early").count().unwrap(), 15);
    assert_eq!(read(&runs), (16, 0, 16));
    assert_eq!(Scan::new(&source).key("symbol", "early").columns(["price"]).collect().unwrap().rows(), 15);
    assert_eq!(read(&runs), (16, 0, 18));
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
    assert_eq!(read(&runs), (15, 0, 15 + 5));
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
}
