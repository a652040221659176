//! A snapshot shows the same for as long as it is held.

use underbelly::{Column, Columns, ReadError, Row, Timestamp};
use underbelly_tests::{Address, BOOK, BULK_ROWS, CELLS, day, define, in_memory, shown_by, transaction};

fn cells() -> Vec<Address> {
    (0..CELLS).map(|cell| (BOOK.to_string(), day().into(), vec![format!("c{cell}").into()])).collect()
}

/// Snapshots taken along the way show the same after more commits, checkpoints, merges of runs, removals of files
/// and after the database was closed.
#[test]
fn snapshots_do_not_change() {
    let (disk, db) = in_memory().unwrap();
    define(&db).unwrap();
    let mut held = Vec::new();
    for i in 1..=60 {
        if i % 7 == 1 {
            let snapshot = db.snapshot();
            let before = shown_by(&snapshot, &cells()).unwrap();
            held.push((snapshot, before));
        }
        db.commit(transaction(i, i % 25 == 0).unwrap()).unwrap();
        if i % 10 == 0 {
            db.checkpoint().unwrap();
        }
        for (snapshot, before) in &held {
            assert_eq!(shown_by(snapshot, &cells()).unwrap(), *before, "at {}, seen later", snapshot.seq());
        }
    }
    db.close().unwrap();
    let db = underbelly::Database::open_on(std::sync::Arc::new(disk), underbelly_tests::options()).unwrap();
    db.commit(transaction(61, true).unwrap()).unwrap();
    db.checkpoint().unwrap();
    for (snapshot, before) in &held {
        assert_eq!(shown_by(snapshot, &cells()).unwrap(), *before, "after the close");
    }
}

/// Series and columns that a later commit adds are not in an earlier snapshot.
#[test]
fn snapshots_do_not_know_of_later_series_and_columns() {
    let (_, db) = in_memory().unwrap();
    let commit = |row: Row| {
        let mut batch = underbelly::Batch::new();
        batch.append(row).unwrap();
        db.commit(batch).unwrap();
    };
    commit(Row::new("s", Timestamp(5)).key("k", "a").field("x", 1));
    let snapshot = db.snapshot();
    commit(Row::new("s", Timestamp(1)).key("j", "b").field("y", 1));
    commit(Row::new("t", Timestamp(5)).field("x", 1));
    for _ in 0..2 {
        assert_eq!(snapshot.series_names(), ["s"]);
        assert!(matches!(snapshot.series("t"), Err(ReadError::UnknownSeries { .. })));
        let series = snapshot.series("s").unwrap();
        let rows = series.scan().collect().unwrap();
        assert_eq!(rows.names().iter().map(|n| &**n).collect::<Vec<_>>(), ["timestamp", "k", "x"]);
        assert_eq!(rows.rows(), 1);
        assert_eq!(series.bounds().unwrap(), Some((Timestamp(5), Timestamp(5))));
        assert_eq!(series.last_points().unwrap().rows(), 1);
        db.checkpoint().unwrap();
    }
    assert_eq!(db.snapshot().series_names(), ["s", "t"]);
}

/// A snapshot that holds a segment reads it after it was merged into another and unlinked.
#[test]
fn merged_segments_stay_readable() {
    let (disk, db) = in_memory().unwrap();
    let mut held = Vec::new();
    for i in 0..10i64 {
        let mut batch = underbelly::Batch::new();
        let columns = Columns::new().with("x", Column::from(vec![i; BULK_ROWS])).unwrap();
        let times = (0..BULK_ROWS as i64).map(Timestamp).collect();
        batch.append_columns("bulk", times, columns, &[]).unwrap();
        db.commit(batch).unwrap();
        held.push((db.snapshot().series("bulk").unwrap(), i));
    }
    let segments = || disk.files().iter().filter(|name| name.starts_with("segments/bulk/")).count();
    assert_eq!(segments(), 10);
    db.checkpoint().unwrap();
    assert_eq!(segments(), 11, "the checkpoint before and its log need them");
    db.checkpoint().unwrap();
    assert_eq!(segments(), 1);
    for (series, i) in held {
        assert_eq!(series.count().unwrap(), (i as u64 + 1) * BULK_ROWS as u64);
        let newest = series.latest(1, &[]).unwrap();
        assert_eq!(newest.i64s("x"), Some(&[i][..]));
    }
}
