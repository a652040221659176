//! Segments that took the place of others, and rows that were deleted, where no manifest is left.

use std::sync::Arc;

use underbelly::{
    Batch, Column, ColumnType, Columns, Database, Delete, Options, Row, SimulatedDisk, Timestamp,
};
use underbelly_tests::{BULK_ROWS, define, options, transaction};

use super::{killed, remove, repaired, transaction_of_rows, values};

/// A large append that was merged meanwhile is not taken twice, though nothing says any more which transaction it was.
#[test]
fn merged_rows_of_an_unknown_transaction_come_once() {
    let disk = killed(46, 5, |i| i <= 7 || i == 41);
    remove(&disk, "MANIFEST-");
    let sealed = disk.files().iter().filter(|name| name.starts_with("segments/bulk/")).count();
    assert!(sealed >= 9, "{sealed}: merged ones beside those that were merged");
    let (report, saved) = repaired(&disk);
    assert_eq!(report.assumed.len(), 1, "{:?}", report.assumed);
    let db = Database::open_with(saved.path(), options()).unwrap();
    assert_eq!(values(&db, "bulk", "x").len(), 8 * BULK_ROWS);
}

/// Rows of series `s` at times `first`, `first` + 1, …, of the keys `a` and `b` in turn, each with its time in `x`.
pub fn keyed(first: i64, rows: usize) -> Batch {
    let times: Vec<i64> = (first..first + rows as i64).collect();
    let mut keys = Column::new(ColumnType::Utf8);
    times.iter().for_each(|time| keys.push(&if time % 2 == 0 { "a" } else { "b" }.into()).unwrap());
    let columns = Columns::new().with("k", keys).unwrap();
    let columns = columns.with("x", Column::from(times.clone())).unwrap();
    let mut batch = Batch::new();
    batch.append_columns("s", times.into_iter().map(Timestamp).collect(), columns, &["k"]).unwrap();
    batch
}

/// A killed database: the batches, and after each a checkpoint. Its manifests are gone, and its log where `log` is not set.
fn without_manifests(batches: Vec<Batch>, log: bool) -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    for batch in batches {
        db.commit(batch).unwrap();
        db.checkpoint().unwrap();
    }
    let disk = disk.crash();
    remove(&disk, "MANIFEST-");
    if !log {
        remove(&disk, "wal/");
    }
    disk
}

pub fn deleting(delete: Delete) -> Batch {
    let mut batch = Batch::new();
    batch.delete_rows("s", delete);
    batch
}

fn segments_of(disk: &SimulatedDisk, series: &str) -> Vec<String> {
    let folder = format!("segments/{series}/");
    disk.files().into_iter().filter(|name| name.starts_with(&folder)).collect()
}

/// A segment that was written anew without deleted rows takes the place of the one that held them, also where it was a
/// large append, of which the file does not say the transaction.
#[test]
fn deleted_rows_stay_deleted_without_manifests_where_a_segment_was_written_anew() {
    for (rows, log) in [(100, true), (100, false), (BULK_ROWS, true), (BULK_ROWS, false)] {
        let from = (rows - 10) as i64;
        let late = |time: i64| deleting(Delete::all().key("k", "b").from(Timestamp(time)));
        let batches = vec![keyed(0, rows), keyed(1 << 30, 2), late(from), keyed(1 << 31, 1)];
        let disk = without_manifests(batches, log);
        assert!(segments_of(&disk, "s").len() >= 3, "the older segment is there still");
        let (report, saved) = repaired(&disk);
        let db = Database::open_with(saved.path(), options()).unwrap();
        let kept = (0..rows as i64).chain([1 << 30, (1 << 30) + 1]).filter(|x| *x < from || x % 2 == 0);
        assert_eq!(
            values(&db, "s", "x"),
            kept.chain([1 << 31]).collect::<Vec<_>>(),
            "{rows} {log} {report:?}"
        );
    }
}

/// A log that holds everything is not worth less than the segments: where it names a file that another has taken the place
/// of, the rows come from that one.
#[test]
fn a_whole_log_goes_with_the_segments_that_took_the_place_of_what_it_names() {
    let disk = SimulatedDisk::new();
    let db =
        Database::create_on(Arc::new(disk.clone()), Options { workers: 2, ..Options::default() }).unwrap();
    define(&db).unwrap();
    db.commit(keyed(0, BULK_ROWS)).unwrap();
    db.commit(transaction(1, false).unwrap()).unwrap();
    db.commit(deleting(Delete::all().from(Timestamp(10)))).unwrap();
    let large = segments_of(&disk, "s");
    for _ in 0..3 {
        db.checkpoint().unwrap();
        db.commit(transaction_of_rows(2)).unwrap();
    }
    let disk = disk.crash_keeping_all();
    assert!(!segments_of(&disk, "s").contains(&large[0]), "what the log names is gone");
    assert_eq!(disk.files().iter().filter(|name| name.ends_with("1.wal")).count(), 1);
    remove(&disk, "MANIFEST-");
    let (report, saved) = repaired(&disk);
    assert!(report.losses.iter().all(|loss| loss.file.starts_with("MANIFEST-")), "{report:?}");
    let db = Database::open_with(saved.path(), options()).unwrap();
    assert_eq!(values(&db, "s", "x"), (0..10).collect::<Vec<_>>(), "{report:?}");
    assert_eq!(values(&db, "tick", "x"), [1, 2, 2, 2]);
    assert!(db.snapshot().slot(underbelly_tests::BOOK, underbelly_tests::day(), ["c1"]).unwrap().is_some());
    db.checkpoint().unwrap();
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
}

/// What happens to hold a row of a large append is no successor of it.
#[test]
fn a_large_append_is_not_given_up_for_a_row_that_came_again() {
    for log in [true, false] {
        let disk = without_manifests(vec![keyed(0, BULK_ROWS), keyed(5, 1), keyed(8, 20)], log);
        let (report, saved) = repaired(&disk);
        let db = Database::open_with(saved.path(), options()).unwrap();
        assert_eq!(values(&db, "s", "x").len(), BULK_ROWS + 21, "{log} {report:?}");
    }
}

/// However little was left of a large append, its rows come once.
#[test]
fn a_little_that_is_left_of_a_large_append_comes_once() {
    for (rows, left) in [(BULK_ROWS, 28_000), (BULK_ROWS, 1)] {
        let late = deleting(Delete::all().from(Timestamp(left)));
        // Another of the same rows, so that what is left of the first is not all that is there of them.
        for batches in [
            vec![keyed(0, rows), late],
            vec![keyed(0, rows), keyed(0, 5), deleting(Delete::all().from(Timestamp(left)))],
        ] {
            let expected = left as usize + if batches.len() == 3 { (left as usize).min(5) } else { 0 };
            let disk = without_manifests(batches, false);
            assert!(segments_of(&disk, "s").len() >= 2, "the older segment is there still");
            let (report, saved) = repaired(&disk);
            let db = Database::open_with(saved.path(), options()).unwrap();
            assert_eq!(values(&db, "s", "x").len(), expected, "{report:?}");
        }
    }
}

/// What was written for transactions that were never committed is not made rows of: where the log says so it is left out,
/// and where nothing does the attempts of one transaction count as one.
#[test]
fn attempts_that_were_not_committed_give_no_rows() {
    for log in [true, false] {
        let disk = SimulatedDisk::new();
        let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
        for i in 1..=60 {
            db.commit(transaction_of_rows(i)).unwrap();
            if i % 20 == 0 {
                db.checkpoint().unwrap();
            }
        }
        let seen = |i: i64| {
            let mut batch = Batch::new();
            batch.set_variable(underbelly_tests::episode(), "seen", i);
            batch
        };
        db.commit(seen(0)).unwrap();
        let mut attempts = 0;
        db.transact(|tx| {
            attempts += 1;
            tx.variable(&underbelly_tests::episode(), "seen")?;
            if attempts < 4 {
                db.commit(seen(attempts)).unwrap();
            }
            let times: Vec<i64> = (0..BULK_ROWS as i64).collect();
            let columns = Columns::new().with("x", Column::from(times.clone()))?;
            tx.append_columns("s", times.into_iter().map(Timestamp).collect(), columns, &[])?;
            Ok::<_, Box<dyn std::error::Error>>(())
        })
        .unwrap();
        let disk = disk.crash();
        assert_eq!(segments_of(&disk, "s").len(), 4, "one for each attempt");
        remove(&disk, "MANIFEST-");
        if !log {
            remove(&disk, "wal/");
        }
        let (report, saved) = repaired(&disk);
        assert_eq!(report.assumed.iter().any(|told| told.contains("taken once")), !log, "{report:?}");
        let db = Database::open_with(saved.path(), options()).unwrap();
        assert_eq!(values(&db, "s", "x").len(), BULK_ROWS, "{report:?}");
        assert_eq!(values(&db, "tick", "x").len(), 60);
    }
}

/// Where the segment that was written anew is damaged, the one before gives its rows, and the loss is told.
#[test]
fn a_damaged_segment_costs_no_rows_that_an_older_one_holds() {
    for rows in [100, BULK_ROWS] {
        let batches = vec![keyed(0, rows), deleting(Delete::all().to(Timestamp(10)))];
        let disk = without_manifests(batches, false);
        let newest = segments_of(&disk, "s").pop().unwrap();
        let mut bytes = disk.contents(&newest).unwrap();
        bytes[1] ^= 1;
        disk.overwrite(&newest, bytes);
        let (report, saved) = repaired(&disk);
        assert!(report.losses.iter().any(|loss| loss.file == newest), "{report:?}");
        assert!(report.assumed[0].contains("deleted"), "{report:?}");
        let db = Database::open_with(saved.path(), options()).unwrap();
        assert_eq!(values(&db, "s", "x"), (0..rows as i64).collect::<Vec<_>>());
    }
}

/// Rows of a segment of which nothing was left may be back, and that is told.
#[test]
fn rows_of_which_nothing_was_left_may_be_back_and_that_is_told() {
    let mut other = Batch::new();
    other.append(Row::new("other", Timestamp(1)).field("x", 1)).unwrap();
    let disk = without_manifests(vec![other, keyed(0, 100), deleting(Delete::all())], false);
    let (report, saved) = repaired(&disk);
    assert!(report.assumed[0].contains("deleted"), "{report:?}");
    let db = Database::open_with(saved.path(), options()).unwrap();
    assert_eq!(values(&db, "s", "x"), (0..100).collect::<Vec<_>>());
}
