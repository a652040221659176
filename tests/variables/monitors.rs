//! Monitored values become rows of a series, and their newest ones variables that others see.

use std::sync::Arc;

use underbelly::{
    Batch, CommitError, Database, Histogram, ManualClock, Options, ReadError, Row, Scope, SeriesDefinition,
    SimulatedDisk, Timestamp,
};
use underbelly_tests::{in_memory, options};

#[test]
fn recorded_values_are_rows_in_order_and_the_newest_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::create_with(dir.path().join("db"), options()).unwrap();
    let reader = Database::open_read_only(dir.path().join("db")).unwrap();
    let mut monitor = db.monitor("training").unwrap();
    for step in 0..10_000 {
        monitor.record("loss", step, 1.0 / (step + 1) as f64);
    }
    let mut histogram = Histogram::new();
    (0..1_000).for_each(|n| histogram.add(f64::from(n)));
    monitor.record("weights", 1, vec![1.0, 3.0]);
    monitor.record("sizes", 1, histogram.clone());
    monitor.flush().unwrap();
    assert!(matches!(db.monitor("_runs").map(drop), Err(ReadError::Name { .. })));
    let rows = db.snapshot().series("training").unwrap().scan().collect().unwrap();
    let steps: Vec<i64> = rows.i64s("step").unwrap()[..10_000].to_vec();
    let (mut sorted, values) = (steps.clone(), rows.f64s("value").unwrap());
    sorted.sort_unstable();
    assert_eq!(sorted, (0..10_000).collect::<Vec<i64>>());
    assert!(steps.iter().zip(values).all(|(step, value)| *value == 1.0 / (step + 1) as f64));
    assert_eq!((values[10_000], values[10_001]), (2.0, histogram.mean()));
    let (kind, data) = (rows.column("kind").unwrap(), rows.column("data").unwrap());
    assert_eq!(
        (kind.str_at(10_000), kind.str_at(10_001), kind.str_at(0)),
        (Some("array"), Some("histogram"), None)
    );
    let underbelly::Value::Bytes(bytes) = data.get(10_001) else { panic!("no histogram") };
    assert_eq!(Histogram::of_bytes(&bytes), Some(histogram));
    let mut shown = reader.unlogged_var::<f64>(&Scope::Global, "training/loss").unwrap();
    assert_eq!(shown.get(), Some(1.0 / 10_000.0));
}

/// Who records now and then is not the later for it: a value goes at once where none did lately, however few there are.
#[test]
fn few_values_are_handed_over_once_they_are_old() {
    let clock = Arc::new(ManualClock::new(Timestamp(1_000_000_000)));
    let options = Options { clock: clock.clone(), workers: 0, ..options() };
    let db = Database::create_on(Arc::new(SimulatedDisk::new()), options).unwrap();
    let mut monitor = db.monitor("m").unwrap();
    let count = || db.snapshot().series("m").map_or(0, |series| series.count().unwrap());
    monitor.record("x", 0, 0.0);
    assert_eq!(count(), 1, "nothing went before it");
    clock.set(Timestamp(1_199_999_999));
    monitor.record("x", 1, 1.0);
    assert_eq!(count(), 1);
    clock.set(Timestamp(1_200_000_000));
    monitor.record("x", 2, 2.0);
    assert_eq!(count(), 3);
    assert_eq!(db.unlogged_var::<f64>(&Scope::Global, "m/x").unwrap().get(), Some(2.0));
    // A clock that is set back.
    monitor.record("x", 3, 3.0);
    clock.set(Timestamp(0));
    monitor.record("x", 4, 4.0);
    assert_eq!(count(), 5);
    // One value in ten minutes.
    clock.set(Timestamp(600_000_000_000));
    monitor.record("x", 5, 5.0);
    assert_eq!((count(), db.unlogged_var::<f64>(&Scope::Global, "m/x").unwrap().get()), (6, Some(5.0)));
}

/// Several monitors that record as fast as they can, while one checkpoint follows another: everything is kept.
#[test]
fn monitors_that_outrun_the_disk_wait_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { workers: 2, checkpoint_bytes: 64 << 10, ..options() };
    let db = Database::create_with(dir.path().join("db"), options).unwrap();
    let steps = 60_000;
    std::thread::scope(|scope| {
        for name in ["a", "b", "c"] {
            let mut monitor = db.monitor("m").unwrap();
            scope.spawn(move || (0..steps).for_each(|step| monitor.record(name, step, step as f64)));
        }
    });
    db.close().unwrap();
    let db = Database::open(dir.path().join("db")).unwrap();
    assert_eq!(db.snapshot().series("m").unwrap().count().unwrap(), 3 * steps as u64);
}

/// Training and validation both have a loss; neither hides the other, and a name too long to be shown is kept as rows.
#[test]
fn monitors_of_two_series_show_one_name_apart() {
    let (_, db) = in_memory().unwrap();
    let (mut train, mut valid) = (db.monitor("train").unwrap(), db.monitor("valid").unwrap());
    let long = "l".repeat(255);
    train.record("loss", 1, 0.25);
    valid.record("loss", 1, 0.75);
    valid.record(&long, 1, 1.0);
    train.flush().unwrap();
    valid.flush().unwrap();
    let shown = |name: &str| db.unlogged_var::<f64>(&Scope::Global, name).unwrap().get();
    assert_eq!((shown("train/loss"), shown("valid/loss"), shown("loss")), (Some(0.25), Some(0.75), None));
    let rows = db.snapshot().series("valid").unwrap().scan().collect().unwrap();
    let mut names: Vec<&str> = (0..2).filter_map(|row| rows.column("name").unwrap().str_at(row)).collect();
    names.sort_by_key(|name| name.len());
    assert_eq!(names, ["loss", &long]);
}

/// Monitored series are those that want rules, which come before rows.
#[test]
fn a_series_that_was_defined_takes_a_monitor() {
    let (_, db) = in_memory().unwrap();
    db.define_series(SeriesDefinition::new("training").retention(std::time::Duration::from_secs(60)))
        .unwrap();
    let mut monitor = db.monitor("training").unwrap();
    monitor.record("loss", 1, 0.5);
    monitor.flush().unwrap();
    assert_eq!(db.snapshot().series("training").unwrap().count().unwrap(), 1);
}

/// Whatever the database's thread has under way is visible once a flush returns.
#[test]
fn a_flush_waits_for_what_was_handed_over() {
    let options = Options { workers: 2, ..options() };
    let db = Database::create_on(Arc::new(SimulatedDisk::new()), options).unwrap();
    let mut monitor = db.monitor("m").unwrap();
    let mut count = 0;
    for rows in [1, 1, 5_000, 3, 20_000] {
        (0..rows).for_each(|step| monitor.record("x", count + step, 0.5));
        count += rows;
        monitor.flush().unwrap();
        assert_eq!(db.snapshot().series("m").unwrap().count().unwrap(), count as u64);
    }
}

#[test]
fn a_monitor_that_is_dropped_hands_over_what_it_has() {
    let (disk, db) = in_memory().unwrap();
    let mut monitor = db.monitor("m").unwrap();
    monitor.record("x", 1, 2.0);
    drop(monitor);
    assert_eq!(db.snapshot().series("m").unwrap().count().unwrap(), 1);
    db.close().unwrap();
    let db = Database::open_on(std::sync::Arc::new(disk), options()).unwrap();
    assert_eq!(db.snapshot().series("m").unwrap().count().unwrap(), 1);
}

#[test]
fn histograms_merge_and_tell_quantiles_within_an_eighth_of_a_doubling() {
    let (mut a, mut b) = (Histogram::new(), Histogram::new());
    for n in -500..500 {
        if n % 2 == 0 { a.add(f64::from(n)) } else { b.add(f64::from(n)) }
    }
    a.add(f64::NAN);
    a.merge(&b);
    assert_eq!((a.count(), a.mean()), (1_000, -0.5));
    for (share, exact) in [(0.0, -500.0), (0.25, -250.0), (0.5, -0.5), (0.75, 250.0), (1.0, 499.0)] {
        let near = a.quantile(share);
        assert!((near - exact).abs() <= 0.1 * f64::abs(exact) + 1.0, "{share}: {near} for {exact}");
    }
    let bytes = a.to_bytes();
    assert_eq!(Histogram::of_bytes(&bytes), Some(a));
    assert!((0..bytes.len()).all(|cut| Histogram::of_bytes(&bytes[..cut]).is_none()));
    assert!(Histogram::new().mean().is_nan() && Histogram::new().quantile(0.5).is_nan());
}

/// What a monitor handed over is on its way when the database is closed, and the close waits for it.
#[test]
fn the_close_waits_for_what_monitors_handed_over() {
    let (disk, db) = in_memory().unwrap();
    let mut monitor = db.monitor("m").unwrap();
    for step in 0..20_000 {
        monitor.record("x", step, 0.5);
    }
    // The last ones are still the monitor's, which is dropped too late; and the close says so.
    match db.close() {
        Err(CommitError::Unsaved { what }) => assert!(what.contains("monitor of series \"m\""), "{what}"),
        other => panic!("{other:?}"),
    }
    drop(monitor);
    let db = Database::open_on(std::sync::Arc::new(disk), options()).unwrap();
    let kept = db.snapshot().series("m").unwrap().count().unwrap();
    assert!(kept > 20_000 - 4_096, "{kept}");
}

/// What a commit refuses is kept for the next flush, and what has no name for a variable is told.
#[test]
fn what_is_not_kept_is_told() {
    let (_, db) = in_memory().unwrap();
    let mut monitor = db.monitor("m").unwrap();
    monitor.record("x", 1, 1.0);
    monitor.record("", 1, 2.0);
    match monitor.flush() {
        Err(CommitError::Read(ReadError::Name { name, .. })) => assert_eq!(name, ""),
        other => panic!("{other:?}"),
    }
    let trouble = db.status().trouble.unwrap();
    assert!(trouble.contains("a value of series \"m\" is left out"), "{trouble}");
    monitor.flush().unwrap();
    assert_eq!(db.snapshot().series("m").unwrap().count().unwrap(), 1);
    // Rows of others under that type.
    let mut other = db.monitor("n").unwrap();
    other.record("x", 1, 1.0);
    let mut batch = Batch::new();
    batch.append(Row::new("n", Timestamp(1)).key("name", "x").field("value", "high")).unwrap();
    db.commit(batch).unwrap();
    match db.monitor("n").map(drop) {
        Err(ReadError::Name { problem, .. }) => assert!(problem.contains("other keys"), "{problem}"),
        other => panic!("{other:?}"),
    }
    assert!(other.flush().is_err());
    assert!(other.flush().is_err(), "it still has them");
    // What is sound behind it is committed all the same.
    let mut mixed = db.monitor("mixed").unwrap();
    mixed.record("x", 1, 1.0);
    mixed.flush().unwrap();
    let mut batch = Batch::new();
    batch.append(Row::new("mixed", Timestamp(1)).key("name", "y").field("kind", 1)).unwrap();
    db.commit(batch).unwrap();
    mixed.record("weights", 2, vec![0.5]);
    assert!(mixed.flush().is_err());
    mixed.record("x", 3, 3.0);
    assert!(mixed.flush().is_err());
    assert_eq!(db.snapshot().series("mixed").unwrap().count().unwrap(), 3);
    drop(mixed);
    let trouble = db.status().trouble.unwrap();
    assert!(trouble.contains("1 monitored values of series \"mixed\" are lost"), "{trouble}");
    assert!(matches!(db.close(), Err(CommitError::Unsaved { .. })));
    assert!(matches!(other.flush(), Err(CommitError::Closed)));
}
