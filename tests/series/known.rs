//! Series as they were known at earlier transactions, and what is kept for that; rows that are too old go.

use std::sync::Arc;
use std::time::Duration;

use underbelly::{
    Batch, Clock, Database, Delete, Duplicates, ManualClock, Options, ReadError, Row, SeriesDefinition,
    SimulatedDisk, Timestamp,
};
use underbelly_tests::{in_memory, options};

fn advance(clock: &ManualClock, by: Duration) {
    clock.set(Timestamp(clock.now().0 + by.as_nanos() as i64));
}

fn append(db: &Database, series: &str, at: i64, x: i64) -> u64 {
    let mut batch = Batch::new();
    batch.append(Row::new(series, Timestamp(at)).key("k", "a").field("x", x)).unwrap();
    db.commit(batch).unwrap().seq
}

fn delete(db: &Database, series: &str, delete: Delete) -> u64 {
    let mut batch = Batch::new();
    batch.delete_rows(series, delete);
    db.commit(batch).unwrap().seq
}

fn known(db: &Database, series: &str, seq: u64) -> Result<Vec<i64>, ReadError> {
    let rows = db.as_known_at(seq)?.series(series)?.scan().collect()?;
    Ok(rows.i64s("x").unwrap_or_default().to_vec())
}

fn is_gone(asked: Result<Vec<i64>, ReadError>, oldest_is: u64) -> bool {
    matches!(asked, Err(ReadError::BeforeHorizon { oldest, .. }) if oldest == oldest_is)
}

/// Each transaction can be asked for as long as nothing that it showed is gone; what came later is not shown, nor columns and
/// series that it did not know, over openings too.
#[test]
fn a_series_is_shown_as_it_was_known() {
    let (disk, db) = in_memory().unwrap();
    let first = append(&db, "s", 5, 1);
    let second = append(&db, "s", 3, 2);
    let mut batch = Batch::new();
    batch.append(Row::new("s", Timestamp(4)).key("k", "a").field("x", 3).field("late", true)).unwrap();
    let third = db.commit(batch).unwrap().seq;
    append(&db, "other", 1, 1);
    let check = |db: &Database| {
        assert_eq!(known(db, "s", first).unwrap(), [1]);
        assert_eq!(known(db, "s", second).unwrap(), [2, 1]);
        assert_eq!(known(db, "s", third).unwrap(), [2, 3, 1]);
        let past = db.as_known_at(second).unwrap();
        let columns: Vec<String> =
            past.series("s").unwrap().schema().columns.iter().map(|column| column.name.to_string()).collect();
        assert_eq!(columns, ["k", "x"]);
        assert_eq!(past.series_names(), ["s"]);
        assert_eq!(past.series_info("s").unwrap().rows, 2);
        assert!(matches!(past.series("other"), Err(ReadError::UnknownSeries { .. })));
        let point = past.series("s").unwrap().last_point(&[("k", "a".into())]).unwrap().unwrap();
        assert_eq!(point.i64s("x").unwrap(), [1]);
        let newest = db.snapshot().seq();
        let error = db.as_known_at(newest + 1).map(drop).unwrap_err();
        assert!(matches!(error, ReadError::NotYet { newest: told, .. } if told == newest), "{error}");
    };
    check(&db);
    db.checkpoint().unwrap();
    check(&db);
    check(&Database::open_on(Arc::new(disk.crash()), options()).unwrap());
}

/// Deleted and superseded rows are kept as long as the history of the type says and a snapshot needs them; then who asks for
/// what they showed is told the oldest transaction that can be read.
#[test]
fn what_is_gone_is_told_with_the_oldest_that_is_left() {
    let clock = Arc::new(ManualClock::new(Timestamp(1_000_000_000)));
    let disk = SimulatedDisk::new();
    let with_clock = || Options { clock: clock.clone() as Arc<dyn Clock>, workers: 0, ..options() };
    let db = Database::create_on(Arc::new(disk.clone()), with_clock()).unwrap();
    let history = Duration::from_secs(100);
    db.define_series(SeriesDefinition::new("kept").history(history)).unwrap();
    db.define_series(SeriesDefinition::new("last").duplicates(Duplicates::LastWins).history(history))
        .unwrap();
    let mut before = Vec::new();
    for series in ["brief", "kept", "last"] {
        let first = append(&db, series, 1, 1);
        let second =
            if series == "last" { append(&db, series, 1, 2) } else { delete(&db, series, Delete::all()) };
        before.push((series, first, second));
    }
    let now = |series: &str| if series == "last" { vec![2] } else { vec![] };
    let left = |db: &Database| -> Vec<bool> {
        let of = |(series, first, second): &(&str, u64, u64)| {
            assert_eq!(known(db, series, *second).unwrap(), now(series), "{series}");
            match known(db, series, *first) {
                Ok(rows) => {
                    assert_eq!(rows, [1], "{series}");
                    true
                }
                gone => {
                    assert!(is_gone(gone, *second), "{series}");
                    assert_eq!(db.snapshot().series_info(series).unwrap().horizon, *second);
                    false
                }
            }
        };
        before.iter().map(of).collect()
    };
    assert_eq!(left(&db), [true; 3]);
    db.checkpoint().unwrap();
    assert_eq!(left(&db), [false, true, true], "without a history it is gone with the next checkpoint");
    advance(&clock, Duration::from_secs(99));
    db.checkpoint().unwrap();
    drop(db);
    let db = Database::open_on(Arc::new(disk.clone()), with_clock()).unwrap();
    assert_eq!(left(&db), [false, true, true]);
    advance(&clock, Duration::from_secs(2));
    let held = db.as_known_at(before[1].1).unwrap();
    append(&db, "last", 9, 9);
    db.checkpoint().unwrap();
    assert_eq!(known(&db, "kept", before[1].1).unwrap(), [1], "somebody holds it");
    drop(held);
    delete(&db, "last", Delete::all().from(Timestamp(9)));
    append(&db, "brief", 1, 1);
    (0..10).for_each(|_| drop(db.checkpoint().unwrap()));
    assert!(is_gone(known(&db, "kept", before[1].1), before[1].2));
}

/// The commit time tells the transaction: that of the last at the instant or before it, in pages that are closed and in the
/// one that grows, over openings.
#[test]
fn a_wall_time_is_the_last_transaction_up_to_it() {
    let clock = Arc::new(ManualClock::new(Timestamp(1_000)));
    let mut disk = SimulatedDisk::new();
    let with_clock = || Options { clock: clock.clone() as Arc<dyn Clock>, workers: 0, ..options() };
    let mut db = Database::create_on(Arc::new(disk.clone()), with_clock()).unwrap();
    let mut commits = Vec::new();
    for i in 0..60i64 {
        let mut batch = Batch::new();
        batch.append(Row::new("s", Timestamp(i)).field("x", i)).unwrap();
        let commit = db.commit(batch).unwrap();
        commits.push((commit.time.0, commit.seq));
        advance(&clock, Duration::from_nanos([0, 5, 100][i as usize % 3]));
        match i % 20 {
            7 => drop(db.checkpoint().unwrap()),
            13 => {
                drop(db);
                disk = disk.crash();
                db = Database::open_on(Arc::new(disk.clone()), with_clock()).unwrap();
            }
            _ => {}
        }
    }
    let last = commits.last().unwrap();
    for at in (900..last.0 + 10).chain([i64::MIN, i64::MAX]) {
        let past = db.as_known_at_time(Timestamp(at)).unwrap();
        let rows = past.series("s").map_or(0, |series| series.count().unwrap());
        let told = commits.iter().filter(|(time, _)| *time <= at).count() as u64;
        assert_eq!(rows, told, "at {at}, transaction {} of {commits:?}", past.seq());
    }
    // What the feed does not keep any more is told.
    let brief = Options { changes_kept: Duration::ZERO, ..with_clock() };
    drop(db);
    let db = Database::open_on(Arc::new(disk.clone()), brief).unwrap();
    advance(&clock, Duration::from_secs(1));
    for i in 0..3 {
        append(&db, "t", i, i);
        drop(db.checkpoint().unwrap());
    }
    let error = db.as_known_at_time(Timestamp(1_001)).map(drop).unwrap_err();
    assert!(
        matches!(error, ReadError::TimeBeforeHorizon { at: Timestamp(1_001), oldest, .. } if oldest.0 > last.0),
        "{error}"
    );
    assert_eq!(db.as_known_at(commits[3].1).unwrap().series("s").unwrap().count().unwrap(), 4);
}

/// Rows too far behind the newest go with the next checkpoint, and their files with them. A row dated far ahead deletes
/// nothing; a late one goes with the next.
#[test]
fn rows_are_kept_as_long_as_their_type_says() {
    let hour = 3_600_000_000_000i64;
    let clock = Arc::new(ManualClock::new(Timestamp(1_000 * hour)));
    let disk = SimulatedDisk::new();
    let with_clock = || Options { clock: clock.clone() as Arc<dyn Clock>, workers: 0, ..options() };
    let db = Database::create_on(Arc::new(disk.clone()), with_clock()).unwrap();
    db.define_series(SeriesDefinition::new("s").retention(Duration::from_secs(16 * 3600))).unwrap();
    let times = |db: &Database| {
        let rows = db.snapshot().series("s").unwrap().scan().collect().unwrap();
        rows.timestamps("timestamp").unwrap().iter().map(|ts| ts / hour).collect::<Vec<_>>()
    };
    let files = || disk.files().into_iter().filter(|name| name.starts_with("segments/s/")).count();
    for at in 900..=950 {
        append(&db, "s", at * hour, at);
        if at % 10 == 9 {
            db.checkpoint().unwrap();
        }
    }
    db.checkpoint().unwrap();
    assert_eq!(times(&db), (934..=950).collect::<Vec<_>>());
    let info = db.snapshot().series_info("s").unwrap();
    assert_eq!(info.kept_from, Some(Timestamp(934 * hour)));
    assert_eq!((info.first, info.rows), (Some(Timestamp(934 * hour)), 17));
    (0..2).for_each(|_| drop(db.checkpoint().unwrap()));
    assert!(files() <= 3, "those of rows that are gone are gone");
    let seq = db.snapshot().seq();
    db.checkpoint().unwrap();
    assert_eq!(db.snapshot().seq(), seq, "nothing is deleted twice");
    append(&db, "s", 100_000 * hour, 1);
    append(&db, "s", hour, 1);
    db.checkpoint().unwrap();
    // By the clock, which stands at 1,000, the newest row is that far.
    assert_eq!(times(&db), [100_000]);
    let db = Database::open_on(Arc::new(disk.crash()), with_clock()).unwrap();
    assert_eq!(times(&db), [100_000]);
}

/// A row dated far ahead counts as the clock at most.
#[test]
fn a_wrong_stamp_far_ahead_deletes_nothing_that_the_clock_keeps() {
    let hour = 3_600_000_000_000i64;
    let clock = Arc::new(ManualClock::new(Timestamp(1_000 * hour)));
    let with_clock = Options { clock: clock.clone() as Arc<dyn Clock>, workers: 0, ..options() };
    let db = Database::create_on(Arc::new(SimulatedDisk::new()), with_clock).unwrap();
    db.define_series(SeriesDefinition::new("s").retention(Duration::from_secs(16 * 3600))).unwrap();
    for at in 980..=999 {
        append(&db, "s", at * hour, at);
    }
    append(&db, "s", i64::MAX, 1);
    db.checkpoint().unwrap();
    assert_eq!(
        db.snapshot().series("s").unwrap().count().unwrap(),
        17,
        "from hour 984 on, and the wrong one"
    );
    let info = db.snapshot().series_info("s").unwrap();
    assert_eq!(info.kept_from, Some(Timestamp(984 * hour)));
}

/// So they do with the checkpoint of a close.
#[test]
fn a_close_deletes_old_rows_too() {
    let (disk, db) = in_memory().unwrap();
    db.define_series(SeriesDefinition::new("s").retention(Duration::from_nanos(16))).unwrap();
    for at in [0, 100] {
        append(&db, "s", at, at);
    }
    db.close().unwrap();
    let db = Database::open_on(Arc::new(disk), options()).unwrap();
    assert_eq!(db.snapshot().series("s").unwrap().count().unwrap(), 1);
}

/// What is longer than any time that is stored comes back as the definition has it.
#[test]
fn definitions_for_ever_are_the_same_after_an_opening() {
    let (disk, db) = in_memory().unwrap();
    let definition = || SeriesDefinition::new("s").history(Duration::MAX).retention(Duration::MAX);
    db.define_series(definition()).unwrap();
    db.define_series(definition()).unwrap();
    append(&db, "s", 0, 1);
    let db = Database::open_on(Arc::new(disk.crash()), options()).unwrap();
    db.define_series(definition()).unwrap();
    assert_eq!(db.snapshot().series_info("s").unwrap().definition, definition());
}

/// Bytes that came in and bytes that were written are counted, over checkpoints and openings.
#[test]
fn bytes_of_appends_and_segments_are_counted() {
    let (disk, db) = in_memory().unwrap();
    for i in 0..50 {
        append(&db, "s", i, i);
    }
    let info = |db: &Database| db.snapshot().series_info("s").unwrap();
    assert_eq!((info(&db).written_bytes, info(&db).write_amplification()), (0, Some(0.0)));
    let appended = info(&db).appended_bytes;
    assert!(appended >= 50 * 16, "{appended}");
    db.checkpoint().unwrap();
    let written = info(&db).written_bytes;
    assert_eq!(written, info(&db).segment_bytes);
    append(&db, "s", 1, 1);
    let db = Database::open_on(Arc::new(disk.crash()), options()).unwrap();
    assert_eq!(info(&db).written_bytes, written);
    assert!(info(&db).appended_bytes > appended);
}

/// Rows that stood side by side until rules came are missed by who asks for the time before, and that is told.
#[test]
fn what_rules_left_out_is_gone_for_the_time_before_them() {
    let (_, db) = in_memory().unwrap();
    append(&db, "s", 1, 1);
    let both = append(&db, "s", 1, 2);
    let later = append(&db, "s", 2, 3);
    db.redefine_series(SeriesDefinition::new("s").duplicates(Duplicates::LastWins)).unwrap();
    let since = db.visible_seq();
    assert_eq!(known(&db, "s", both).unwrap(), [1, 2]);
    db.checkpoint().unwrap();
    for before in [both, later] {
        assert!(is_gone(known(&db, "s", before), since), "{:?}", known(&db, "s", before));
    }
    assert_eq!(known(&db, "s", since).unwrap(), [2, 3]);
}
