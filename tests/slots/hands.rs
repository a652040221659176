//! What a worker claims together holds nobody up: neither a run that waits for another of the same, nor one that takes long.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use underbelly::{
    Batch, ColumnType, Columns, CommitError, Database, Date, Failure, Options, Outputs, PStatus,
    ProducerDefinition, Run, SlotDefinition, Value,
};

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
