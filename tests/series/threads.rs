//! Answers do not depend on who shares the work.

use std::sync::Arc;

use underbelly::{Aggregate, Batch, Columns, Database, Every, Options, SimulatedDisk, Timestamp, Value};
use underbelly_tests::options;

const ROWS: i64 = 400_000;

/// Rows in two large appends, of which the second reaches back into the first, and a few that come late.
fn append(db: &Database) {
    let mix = |i: i64| (i.wrapping_mul(0x9e37_79b9) >> 7).rem_euclid(1_000);
    let some = |rows: Vec<i64>| {
        let columns = Columns::new()
            .with("key", rows.iter().map(|i| format!("k{}", mix(*i) % 40)).collect())
            .unwrap()
            .with("price", rows.iter().map(|i| (1_000 + mix(*i)) as f64 / 7.0).collect::<Vec<_>>().into())
            .unwrap()
            .with("size", rows.iter().map(|i| mix(*i + 1)).collect::<Vec<_>>().into())
            .unwrap();
        let mut batch = Batch::new();
        let times = rows.iter().map(|i| Timestamp(i / 3 * 1_000_000)).collect();
        batch.append_columns("s", times, columns, &["key"]).unwrap();
        db.commit(batch).unwrap();
    };
    some((0..ROWS / 2).collect());
    some((ROWS / 2 - 50_000..ROWS).collect());
    some((0..ROWS).step_by(1_777).collect());
}

/// All answers.
fn answers(db: &Database) -> Vec<Vec<Vec<Value>>> {
    let series = db.snapshot().series("s").unwrap();
    let aggregates = || {
        let of_price = Aggregate::ohlc("price").into_iter().chain([
            Aggregate::sum("price"),
            Aggregate::std("price"),
            Aggregate::quantile("price", 0.3),
            Aggregate::vwap("price", "size"),
            Aggregate::turnover("price", "size"),
        ]);
        of_price.collect::<Vec<_>>()
    };
    let scan = || series.scan();
    let all = [
        scan().key("key", "k7").collect().unwrap(),
        scan().from(Timestamp(1_000_000_000)).to(Timestamp(90_000_000_000)).collect().unwrap(),
        scan().group_by([""; 0]).aggregates(aggregates()).collect().unwrap(),
        scan().group_by(["key"]).aggregates(aggregates()).collect().unwrap(),
        scan().resample(Every::seconds(7)).by("key").aggregates(aggregates()).collect().unwrap(),
        scan().resample(Every::seconds(7)).aggregates(aggregates()).collect().unwrap(),
        scan().asof(scan()).by("key").exact(false).right_timestamp("at").collect().unwrap(),
    ];
    all.iter().map(|rows| (0..rows.rows()).step_by(7).map(|row| rows.row(row)).collect()).collect()
}

#[test]
fn answers_are_the_same_for_any_number_of_threads() {
    [false, true].into_iter().for_each(answers_are_the_same);
}

fn answers_are_the_same(sealed_by_key: bool) {
    let mut first = None;
    for workers in [0, 1, 3] {
        let options = Options { workers, sealed_by_key, ..options() };
        let db = Database::create_on(Arc::new(SimulatedDisk::new()), options).unwrap();
        append(&db);
        let found = answers(&db);
        assert!(found.iter().all(|rows| !rows.is_empty()));
        let expected = first.get_or_insert_with(|| found.clone());
        for (found, expected) in found.iter().zip(&*expected) {
            assert!(found == expected, "with {workers} threads");
        }
    }
    // Row by row, in another way.
    let (answers, mut sizes) = (first.unwrap(), std::collections::BTreeMap::new());
    let mix = |i: i64| (i.wrapping_mul(0x9e37_79b9) >> 7).rem_euclid(1_000);
    let numbers = (0..ROWS / 2).chain(ROWS / 2 - 50_000..ROWS).chain((0..ROWS).step_by(1_777));
    numbers.for_each(|i| *sizes.entry(format!("k{}", mix(i) % 40)).or_insert(0usize) += 1);
    assert_eq!(answers[0].len(), sizes["k7"].div_ceil(7));
    assert_eq!(answers[3].len(), sizes.len().div_ceil(7));
}
