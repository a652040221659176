//! Rows as Arrow: the rows of a scan, and where they are young, where they lie.

use std::sync::Arc;

use proptest::prelude::*;
use underbelly::arrow::{self, Lent};
use underbelly::{
    Batch, Column, ColumnType, Columns, Database, Delete, Options, Series, SimulatedDisk, Timestamp, Values,
};
use underbelly_tests::options;

/// A database whose log has room for what is appended here, which would be sealed at once otherwise.
fn roomy() -> (SimulatedDisk, Database) {
    let disk = SimulatedDisk::new();
    let options = Options { log_file_bytes: 8 << 20, ..options() };
    let db = Database::create_on(Arc::new(disk.clone()), options).unwrap();
    (disk, db)
}

/// One commit: its first time, the step from row to row, and how many rows.
type Append = (i64, i64, usize);

fn append(db: &Database, (first, step, rows): Append, from: usize) {
    let times = (0..rows as i64).map(|row| Timestamp(first + row * step)).collect();
    let numbers: Vec<i64> = (from..from + rows).map(|n| n as i64).collect();
    let mut texts = Column::new(ColumnType::Utf8);
    numbers.iter().for_each(|n| texts.push(&format!("t{n}").into()).unwrap());
    let null = |n: &i64| n % 7 == 3;
    let valid = numbers.iter().map(|n| !null(n)).collect();
    let floats = numbers.iter().map(|n| if null(n) { 0.0 } else { *n as f64 / 2.0 }).collect();
    let floats = Column::from_parts(Values::F64(floats), Some(valid)).unwrap();
    let mut columns = Columns::new().with("n", Column::from(numbers)).unwrap();
    columns.insert("text", texts).unwrap();
    columns.insert("x", floats).unwrap();
    let mut batch = Batch::new();
    batch.append_columns("s", times, columns, &[]).unwrap();
    db.commit(batch).unwrap();
}

fn series(db: &Database) -> Series {
    db.snapshot().series("s").unwrap()
}

/// All rows of all batches, each of which can be handed over.
fn collected(rows: &arrow::LentRows) -> Columns {
    let mut whole = rows.empty().unwrap().into_columns();
    for batch in rows.batches() {
        let batch = batch.unwrap();
        drop(arrow::export(&batch).unwrap());
        for ((_, column), (_, more)) in whole.iter_mut().zip(batch.to_columns().unwrap().iter()) {
            column.extend_range(more, 0..more.len()).unwrap();
        }
    }
    let mut columns = Columns::new();
    whole.into_iter().for_each(|(name, column)| columns.insert(name, column).unwrap());
    columns
}

/// The rows, value by value.
fn lines(rows: &Columns) -> Vec<Vec<underbelly::Value>> {
    (0..rows.rows()).map(|row| rows.row(row)).collect()
}

/// Where the numbers of a batch lie.
fn place(batch: &arrow::Batch) -> usize {
    let (columns, rows) = batch.lent();
    let (_, n) = columns.iter().find(|(name, _)| *name == "n").unwrap();
    let Lent::Column(n) = n else { panic!("a column") };
    let Values::I64(n) = n.values() else { panic!("whole numbers") };
    n[rows].as_ptr() as usize
}

#[test]
fn young_rows_lie_where_they_lay_and_stay_while_they_are_held() {
    let (disk, db) = roomy();
    append(&db, (0, 10, 20_000), 0);
    let held: Vec<arrow::Batch> =
        series(&db).lent_rows().batch_rows(8_192).batches().map(Result::unwrap).collect();
    assert_eq!(held.iter().map(arrow::Batch::rows).collect::<Vec<_>>(), [8_192, 8_192, 3_616]);
    let first: Vec<usize> = held.iter().map(place).collect();
    let again: Vec<arrow::Batch> =
        series(&db).lent_rows().batch_rows(8_192).batches().map(Result::unwrap).collect();
    assert_eq!(first, again.iter().map(place).collect::<Vec<_>>(), "nobody copied them");
    assert_eq!(first[1] - first[0], 8_192 * 8, "two batches of one column");
    let before = collected(&series(&db).lent_rows());
    // They are sealed, and what was lent stays.
    db.checkpoint().unwrap();
    db.close().unwrap();
    let rows: usize = held.iter().map(|batch| batch.to_columns().unwrap().rows()).sum();
    assert_eq!(rows, before.rows());
    assert_eq!(lines(&held[2].to_columns().unwrap()), lines(&before.slice(16_384..20_000)));
    let db = Database::open_on(Arc::new(disk.clone()), options()).unwrap();
    let sealed: Vec<arrow::Batch> = series(&db).lent_rows().batches().map(Result::unwrap).collect();
    assert!(sealed.iter().all(|batch| !first.contains(&place(batch))), "what is sealed is decoded");
}

#[test]
fn rows_that_others_come_between_are_in_order() {
    let (_disk, db) = roomy();
    append(&db, (0, 10, 20_000), 0);
    append(&db, (200_000, 10, 20_000), 20_000);
    // Two runs: one large enough is left alone. A late row splits the second, and a tied one the first.
    append(&db, (300_005, 1, 1), 40_000);
    append(&db, (50_000, 1, 1), 40_001);
    let series = series(&db);
    assert_eq!(lines(&collected(&series.lent_rows())), lines(&series.scan().collect().unwrap()));
    let times = collected(&series.lent_rows().from(Timestamp(50_000)).to(Timestamp(50_001)).columns(["n"]));
    assert_eq!(times.i64s("n").unwrap(), [5_000, 40_001]);
    assert!(series.lent_rows().columns(["none"]).empty().unwrap_err().to_string().contains("none"));
    let backwards = series.lent_rows().from(Timestamp(2)).to(Timestamp(1));
    let mut batches = backwards.batches();
    assert!(batches.next().unwrap().is_err() && batches.next().is_none());
}

#[test]
fn streams_hold_what_a_scan_holds() {
    let (_disk, db) = roomy();
    append(&db, (0, 3, 5_000), 0);
    db.checkpoint().unwrap();
    append(&db, (10_000, 3, 5_000), 5_000);
    let rows = series(&db).lent_rows().batch_rows(700);
    let mut out = arrow::Writer::stream(Vec::new(), &rows.empty().unwrap()).unwrap();
    for batch in rows.batches() {
        out.write(batch.unwrap().to_columns().unwrap()).unwrap();
    }
    let bytes = out.finish().unwrap();
    let batches = arrow::Reader::new(&bytes[..], arrow::Limits::default()).unwrap();
    let sizes: Vec<usize> = batches.map(|batch| batch.unwrap().rows()).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 10_000);
    assert!(sizes.iter().all(|rows| *rows <= 700));
    // A stream that nobody reads to its end lets its thread go.
    drop(series(&db).lent_rows().batch_rows(1).stream().unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn lent_rows_are_the_rows_of_a_scan(
        appends in prop::collection::vec((0i64..30_000, 0i64..4, 1usize..4_000), 1..6),
        sealed in 0usize..6,
        delete in prop::option::weighted(0.2, 0i64..30_000),
        (from, length) in (prop::option::of(0i64..30_000), prop::option::of(0i64..30_000)),
        batch_rows in 1usize..5_000,
    ) {
        let (_disk, db) = roomy();
        let mut from_row = 0;
        for (at, step) in appends.iter().enumerate() {
            append(&db, *step, from_row);
            from_row += step.2;
            if at == sealed {
                db.checkpoint().unwrap();
            }
        }
        if let Some(at) = delete {
            let mut batch = Batch::new();
            batch.delete_rows("s", Delete::all().from(Timestamp(at)).to(Timestamp(at + 100)));
            db.commit(batch).unwrap();
        }
        let series = series(&db);
        let (mut lent, mut scan) = (series.lent_rows().batch_rows(batch_rows), series.scan());
        if let Some(from) = from {
            (lent, scan) = (lent.from(Timestamp(from)), scan.from(Timestamp(from)));
        }
        if let Some(length) = length {
            let to = Timestamp(from.unwrap_or(0) + length);
            (lent, scan) = (lent.to(to), scan.to(to));
        }
        prop_assert_eq!(lines(&collected(&lent)), lines(&scan.collect().unwrap()));
    }
}
