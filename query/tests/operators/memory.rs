use std::sync::Arc;

use proptest::prelude::*;
use underbelly_query::{MemoryRun, QueryError, Run, Scan, Seqs};
use underbelly_storage::{Column, ColumnError, ColumnType, Columns, Value};

use crate::model::{self, NAMES, Row, RunOfRows, RunsOf};

/// A commit as it arrives: rows in no order, one seq.
fn arrived(run: &RunOfRows, seq: u64, order: &[usize]) -> (Vec<Row>, MemoryRun) {
    let mut rows: Vec<Row> = run.rows.clone();
    rows.iter_mut().for_each(|row| row.seq = seq);
    rows.sort_by_key(|row| order[row.ts.rem_euclid(order.len() as i64) as usize]);
    let unsorted = RunOfRows { rows: rows.clone(), group_rows: usize::MAX, ..run.clone() };
    let (timestamps, _, columns) = unsorted.build().groups.pop().unwrap_or_default();
    (rows, MemoryRun::new(timestamps, columns, seq).unwrap())
}

fn seqs_of(run: &MemoryRun) -> Vec<u64> {
    (0..run.rows()).map(|row| run.seqs().get(row)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn merging_commits_sorts_their_rows(
        runs in model::any_runs(),
        seqs in prop::collection::vec(1u64..6, 5),
        order in Just((0..5).collect::<Vec<usize>>()).prop_shuffle(),
        cut in 0usize..5,
    ) {
        let mut seqs = seqs;
        seqs.sort_unstable();
        let commits: Vec<_> =
            runs.iter().zip(&seqs).map(|(run, seq)| arrived(run, *seq, &order)).collect();
        let mut rows: Vec<Row> = commits.iter().flat_map(|(rows, _)| rows.clone()).collect();
        rows.sort_by_key(|row| (row.ts, row.seq));
        let commits: Vec<Arc<MemoryRun>> = commits.into_iter().map(|(_, run)| Arc::new(run)).collect();
        for commit in &commits {
            prop_assert!(commit.timestamps().is_sorted());
        }

        // Merged at once, and the first ones merged before.
        let (early, late) = commits.split_at(cut.min(commits.len()));
        let mut stepwise = vec![Arc::new(MemoryRun::merge(early).unwrap())];
        stepwise.extend_from_slice(late);
        for parts in [&commits, &stepwise] {
            let merged = MemoryRun::merge(parts).unwrap();
            prop_assert_eq!(merged.timestamps(), rows.iter().map(|row| row.ts).collect::<Vec<_>>());
            prop_assert_eq!(seqs_of(&merged), rows.iter().map(|row| row.seq).collect::<Vec<_>>());
            let (zone, all_one) = (merged.zone(), rows.iter().all(|row| row.seq == rows[0].seq));
            prop_assert_eq!(matches!(merged.seqs(), Seqs::One(_)), all_one);
            prop_assert_eq!(zone.rows, rows.len());
            if !rows.is_empty() {
                prop_assert_eq!(Some(zone.seq_min), rows.iter().map(|row| row.seq).min());
                prop_assert_eq!(Some(zone.seq_max), rows.iter().map(|row| row.seq).max());
                prop_assert_eq!((zone.ts_min, zone.ts_max), (rows[0].ts, rows[rows.len() - 1].ts));
            }
            let source = RunsOf { schema: model::schema(), runs: vec![Arc::new(merged)], seq: 9, slice_rows: model::MANY };
            let scanned = Scan::new(&source).collect().unwrap();
            prop_assert_eq!(model::listed(&scanned), model::expected(&rows, &NAMES));
        }

        // Scanning the commits gives what scanning their merge gives.
        let runs = commits.iter().map(|run| run.clone() as Arc<dyn Run>).collect();
        let source = RunsOf { schema: model::schema(), runs, seq: 9, slice_rows: model::MANY };
        let scanned = Scan::new(&source).collect().unwrap();
        prop_assert_eq!(model::listed(&scanned), model::expected(&rows, &NAMES));
    }
}

fn run(timestamps: Vec<i64>, name: &str, column: Column, seq: u64) -> Arc<MemoryRun> {
    Arc::new(MemoryRun::new(timestamps, Columns::new().with(name, column).unwrap(), seq).unwrap())
}

#[test]
fn merging_unites_columns_and_widens_integers() {
    let parts = [
        run(vec![1, 3], "a", Column::from(vec![10i64, 30]), 1),
        run(vec![2], "b", Column::from(vec![true]), 2),
        run(vec![3], "a", Column::from(vec![0.5]), 3),
    ];
    let merged = MemoryRun::merge(&parts).unwrap();
    let (f, b, null) = (Value::F64, Value::Bool, Value::Null);
    assert_eq!(
        model::listed(merged.columns()),
        [
            vec![f(10.0), null.clone()],
            vec![null.clone(), b(true)],
            vec![f(30.0), null.clone()],
            vec![f(0.5), null]
        ]
    );
    assert_eq!(merged.timestamps(), [1, 2, 3, 3]);
    assert_eq!(seqs_of(&merged), [1, 2, 1, 3]);
}

#[test]
fn long_runs_merge_row_by_row() {
    let third = |i: i64| -> Arc<MemoryRun> {
        let timestamps: Vec<i64> = (0..5_000).map(|row| row * 3 + i).collect();
        run(timestamps.clone(), "n", Column::from(timestamps), i as u64)
    };
    let merged = MemoryRun::merge(&[third(0), third(1), third(2)]).unwrap();
    assert_eq!(merged.timestamps(), (0..15_000).collect::<Vec<_>>());
    assert_eq!(merged.columns().i64s("n").unwrap(), merged.timestamps());
    assert_eq!(seqs_of(&merged), (0..15_000).map(|row| row % 3).collect::<Vec<_>>());
}

#[test]
fn merging_nothing_is_an_empty_run() {
    let merged = MemoryRun::merge(&[]).unwrap();
    assert_eq!((merged.rows(), merged.groups(), merged.columns().width()), (0, 0, 0));
    let empty = run(Vec::new(), "a", Column::new(ColumnType::I64), 7);
    let merged =
        MemoryRun::merge(&[empty.clone(), run(vec![5], "a", Column::from(vec![1i64]), 8), empty]).unwrap();
    assert_eq!(merged.timestamps(), [5]);
    assert_eq!(merged.seqs(), &Seqs::One(8));
}

#[test]
fn equal_times_keep_their_order_of_arrival() {
    let numbers = Column::from(vec![0i64, 1, 2, 3, 4]);
    let sorted = run(vec![i64::MAX, 1, i64::MIN, 1, i64::MAX], "n", numbers, 1);
    assert_eq!(sorted.timestamps(), [i64::MIN, 1, 1, i64::MAX, i64::MAX]);
    assert_eq!(sorted.columns().i64s("n").unwrap(), [2, 1, 3, 0, 4]);
}

#[test]
fn runs_that_do_not_fit_are_refused() {
    let columns = |name: &str| Columns::new().with(name, Column::from(vec![1i64, 2])).unwrap();
    assert!(matches!(
        MemoryRun::new(vec![1], columns("a"), 1),
        Err(QueryError::Columns(ColumnError::Length { expected: 1, found: 2, .. }))
    ));
    assert!(matches!(MemoryRun::new(vec![1, 2], columns("timestamp"), 1), Err(QueryError::ReservedColumn)));
    let text = run(vec![1], "a", Column::from_iter(["x"]), 1);
    let number = run(vec![2], "a", Column::from(vec![1i64]), 2);
    let error = MemoryRun::merge(&[text, number]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "column \"a\" holds utf8, but a run has i64 there; the run is of another schema"
    );
}
