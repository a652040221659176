//! What a worker claims together holds nobody up: neither a run that waits for another of the same, nor one that takes long.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use underbelly::disk::Act;
use underbelly::{
    Batch, ColumnType, Columns, CommitError, Database, Date, Failure, FaultyDisk, Options, Outputs, PStatus,
    ProducerDefinition, Run, SimulatedDisk, SlotDefinition, Value,
};
use underbelly_tests::options;

const DAY: Date = Date(20_000);
const PATIENCE: Duration = Duration::from_secs(30);
const RUNS: i64 = 24;

fn database(folder: &TempDir, workers: usize) -> Database {
    let options = Options { workers, ..Options::default() };
    let db = Database::create_with(folder.path().join("db"), options).unwrap();
    for slot in ["A", "B"] {
        let slot = SlotDefinition::new(slot).cell_key("x", ColumnType::I64).value("n", ColumnType::I64);
        db.define_slot(slot).unwrap();
    }
    db
}

fn b() -> ProducerDefinition {
    ProducerDefinition::new("b").requires("A").provides("B")
}

fn put(keys: impl IntoIterator<Item = i64>, n: i64) -> Batch {
    let mut batch = Batch::new();
    for x in keys {
        batch.put_slot("A", DAY, [x], Columns::new().with("n", vec![n].into()).unwrap());
    }
    batch
}

fn number(run: &Run) -> Result<i64, Failure> {
    Ok(run.input("A")?.i64s("n").map_or(0, |n| n[0]))
}

fn key(run: &Run) -> i64 {
    if let Some(Value::I64(x)) = run.key("x") { *x } else { -1 }
}

fn give(n: i64) -> Outputs {
    Outputs::new().put("B", Columns::new().with("n", vec![n].into()).unwrap())
}

fn shown(db: &Database, x: i64) -> Option<i64> {
    let cell = db.snapshot().slot("B", DAY, [x]).unwrap();
    cell.and_then(|cell| cell.rows.i64s("n").map(|n| n[0]))
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Result<(), Failure> {
    let began = Instant::now();
    while !is_so() {
        if began.elapsed() > PATIENCE {
            return Err(Failure::fatal(format!("not so: {what}")));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Has a producer known as quick, so that the next bundles are claimed together.
fn quicken(db: &Database) {
    for n in 0..40 {
        db.commit(put([-1], n)).unwrap();
        assert!(db.wait_idle(PATIENCE));
    }
}

#[test]
fn a_run_may_wait_for_what_another_of_the_same_hand_gives() {
    for workers in [1, 2] {
        let folder = TempDir::new().unwrap();
        let db = database(&folder, workers);
        let inner = db.clone();
        db.register(b(), move |run| {
            if key(run) == RUNS / 2 {
                until("one before it is there", || shown(&inner, 2) == Some(7))?;
            }
            Ok(give(number(run)?))
        })
        .unwrap();
        quicken(&db);
        db.commit(put(0..RUNS, 7)).unwrap();
        assert!(db.wait_idle(PATIENCE), "{workers} workers");
        assert!((0..RUNS).all(|x| shown(&db, x) == Some(7)), "{workers} workers");
        db.close().unwrap();
    }
}

#[test]
fn what_is_behind_a_long_run_is_taken_over() {
    let folder = TempDir::new().unwrap();
    let db = database(&folder, 2);
    let (inner, called) = (db.clone(), Arc::new(AtomicI64::new(0)));
    let counted = called.clone();
    db.register(b(), move |run| {
        if key(run) == 1 {
            until("all others have ended", || (0..RUNS).all(|x| x == 1 || shown(&inner, x) == Some(7)))?;
        }
        counted.fetch_add(1, Ordering::SeqCst);
        Ok(give(number(run)?))
    })
    .unwrap();
    quicken(&db);
    let before = called.load(Ordering::SeqCst);
    db.commit(put(0..RUNS, 7)).unwrap();
    assert!(db.wait_idle(PATIENCE));
    assert_eq!(shown(&db, 1), Some(7));
    assert_eq!(called.load(Ordering::SeqCst) - before, RUNS, "none is called twice");
    db.close().unwrap();
}

/// What the first of a hand does, which one worker has claimed with the others.
fn first_does(
    folder: &TempDir,
    act: impl Fn(&Database) + Send + Sync + 'static,
) -> (Database, Arc<Mutex<Vec<i64>>>) {
    let db = database(folder, 1);
    let (inner, called) = (db.clone(), Arc::new(Mutex::new(Vec::new())));
    let seen = called.clone();
    db.register(b(), move |run| {
        if key(run) >= 0 {
            seen.lock().unwrap().push(key(run));
        }
        if key(run) == 0 {
            act(&inner);
        }
        Ok(give(number(run)?))
    })
    .unwrap();
    quicken(&db);
    db.commit(put(0..RUNS, 7)).unwrap();
    (db, called)
}

#[test]
fn what_was_cancelled_is_not_called() {
    let folder = TempDir::new().unwrap();
    let (db, called) = first_does(&folder, |db| {
        db.cancel("b", DAY, [5], "not that one").unwrap();
    });
    assert!(db.wait_idle(PATIENCE));
    let expected: Vec<i64> = (0..RUNS).filter(|x| *x != 5).collect();
    assert_eq!(*called.lock().unwrap(), expected);
    assert_eq!((shown(&db, 4), shown(&db, 5)), (Some(7), None));
    db.close().unwrap();
}

#[test]
fn nothing_of_a_producer_that_was_taken_out_is_called() {
    let folder = TempDir::new().unwrap();
    let (db, called) = first_does(&folder, |db| {
        db.deregister("b").unwrap();
    });
    until("it is taken out", || db.producers().is_empty()).unwrap();
    // Which waits for the worker.
    db.clone().close().unwrap();
    assert_eq!(*called.lock().unwrap(), [0]);
    assert_eq!(db.status().trouble, None);
}

#[test]
fn closing_waits_for_one_run_and_not_for_all_that_were_claimed() {
    let folder = TempDir::new().unwrap();
    let (db, called) = first_does(&folder, |db| drop(db.clone().close().unwrap()));
    until("it is closed", || db.commit(Batch::new()).is_err()).unwrap();
    // Which waits for the worker.
    assert!(matches!(db.close(), Err(CommitError::Closed)));
    assert_eq!(*called.lock().unwrap(), [0]);
    let db = Database::open(folder.path().join("db")).unwrap();
    db.register(b(), |run| Ok(give(number(run)?))).unwrap();
    assert!(db.wait_idle(PATIENCE));
    assert!((0..RUNS).all(|x| shown(&db, x) == Some(7)));
    assert!(db.producer_table("b").unwrap().all(|row| row.status == PStatus::Done));
    db.close().unwrap();
}

/// A run that the timer wants to end while the disk has no room is left to the worker that called it: alarms, waits and
/// retries of all others go on.
#[test]
fn the_timer_waits_for_no_disk() {
    let disk = FaultyDisk::new(SimulatedDisk::new());
    let (is_full, is_tried, has_ended) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let (full, tried, ended) = (is_full.clone(), is_tried.clone(), has_ended.clone());
    disk.watch(move |call| {
        if call.act != Act::Create || !call.name.starts_with("chunks/") || !full.load(Ordering::SeqCst) {
            return Ok(());
        }
        tried.store(true, Ordering::SeqCst);
        let _ = until("the run behind it has ended", || ended.load(Ordering::SeqCst));
        // As long as its worker may take to look.
        std::thread::sleep(Duration::from_millis(50));
        Err(std::io::ErrorKind::StorageFull.into())
    });
    let db = Database::create_on(Arc::new(disk), Options { workers: 2, ..options() }).unwrap();
    for slot in ["A", "B", "C", "D"] {
        let slot = SlotDefinition::new(slot).cell_key("x", ColumnType::I64).value("n", ColumnType::I64);
        db.define_slot(slot).unwrap();
    }
    let long = SlotDefinition::new("LONG").cell_key("x", ColumnType::I64).value("text", ColumnType::Utf8);
    db.define_slot(long).unwrap();
    // Too long for a record of the log.
    let text = "x".repeat(100 << 10);
    db.register(b().provides("LONG"), move |run| {
        let n = number(run)?;
        if key(run) == 0 {
            return Ok(Outputs::new()
                .put("LONG", Columns::new().with("text", [&text].into_iter().collect()).unwrap()));
        }
        if key(run) == 1 {
            until("the timer ends the one before", || is_tried.load(Ordering::SeqCst))?;
            has_ended.store(true, Ordering::SeqCst);
        }
        Ok(give(n))
    })
    .unwrap();
    let waits = ProducerDefinition::new("d").requires("C").provides("D");
    let waits = waits.independent(2, Duration::from_millis(300));
    db.register(waits, |run| {
        Ok(Outputs::new().put("D", Columns::new().with("n", vec![key(run)].into()).unwrap()))
    })
    .unwrap();
    quicken(&db);
    is_full.store(true, Ordering::SeqCst);
    db.commit(put(0..2, 7)).unwrap();
    let shown_in = |slot: &str, x: i64| {
        let cell = db.snapshot().slot(slot, DAY, [x]).unwrap();
        cell.and_then(|cell| cell.rows.i64s("n").map(|n| n[0]))
    };
    until("the second has ended", || shown_in("B", 1) == Some(7)).unwrap();
    let mut batch = Batch::new();
    batch.put_slot("C", DAY, [5], Columns::new().with("n", vec![1i64].into()).unwrap());
    db.commit(batch).unwrap();
    until("what waited for its time has run", || shown_in("D", 5) == Some(5)).unwrap();
    let has_long = || db.snapshot().slot("LONG", DAY, [0]).unwrap().is_some();
    assert!(!has_long());
    is_full.store(false, Ordering::SeqCst);
    assert!(db.wait_idle(PATIENCE));
    assert!(has_long());
    db.close().unwrap();
}
