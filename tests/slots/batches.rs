//! Runs that are tried again, batches, and what comes first, through the whole engine.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use underbelly::{
    Batch, Columns, Database, Failure, ManualClock, Options, Outputs, PStatus, ProducerDefinition, Retry,
    Run, SimulatedDisk, State, Timestamp,
};
use underbelly_tests::{counter_slot, day};

use crate::desk::{get, number, put, settle, state};

/// A database without threads, with slots A, B and C, and its clock.
fn driven() -> (SimulatedDisk, Arc<ManualClock>, Database) {
    let clock = Arc::new(ManualClock::new(Timestamp(1_000_000_000)));
    let disk = SimulatedDisk::new();
    let options = Options { workers: 0, clock: clock.clone(), ..underbelly_tests::options() };
    let db = Database::create_on(Arc::new(disk.clone()), options).unwrap();
    for name in ["A", "B", "C"] {
        db.define_slot(counter_slot(name)).unwrap();
    }
    (disk, clock, db)
}

fn one(n: i64) -> Columns {
    underbelly_tests::one("n", n).unwrap()
}

fn twice(run: &Run) -> Result<Outputs, Failure> {
    Ok(Outputs::new().put("B", one(2 * number(&run.input("A")?))))
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn advance(clock: &ManualClock, by: Duration) {
    use underbelly::Clock;
    clock.set(Timestamp(clock.now().0 + by.as_nanos() as i64));
}

fn outcomes(db: &Database) -> Vec<(String, Option<String>)> {
    let mut runs = db.runs(None, 100).unwrap();
    runs.sort_by_key(|run| run.pid);
    runs.into_iter().map(|run| (run.outcome, run.error)).collect()
}

/// A run that may succeed later is tried again after a wait, also by the process that comes after.
#[test]
fn a_retry_waits_for_its_time_across_a_restart() {
    let (disk, clock, db) = driven();
    let retry = Retry::new(4, seconds(10), seconds(100));
    let definition = ProducerDefinition::new("fetch").requires("A").provides("B").retry(retry);
    let calls = Arc::new(AtomicUsize::new(0));
    let closure = |calls: Arc<AtomicUsize>| {
        move |run: &Run| match calls.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => Err(Failure::retry("the line is down")),
            2 => Err(Failure::rejected("too busy")),
            _ => twice(run),
        }
    };
    db.register(definition.clone(), closure(calls.clone())).unwrap();
    put(&db, "A", "x", 21);
    assert_eq!(db.run_ready().unwrap(), 1);
    assert_eq!(db.run_ready().unwrap(), 0, "it waits");
    assert_eq!(state(&db, "A", "x"), Some(State::Pending));
    let why = db.why("B", day(), ["x"]).unwrap().to_string();
    assert!(why.contains("retry_wait") && why.contains("the line is down"), "{why}");
    advance(&clock, seconds(7));
    assert_eq!(db.run_ready().unwrap(), 0, "three quarters of the wait at least");
    drop(db);

    let options = Options { workers: 0, clock: clock.clone(), ..underbelly_tests::options() };
    let db = Database::open_on(Arc::new(disk), options).unwrap();
    db.register(definition, closure(calls.clone())).unwrap();
    assert_eq!(db.run_ready().unwrap(), 0, "the time is that of before");
    advance(&clock, seconds(3));
    assert_eq!(db.run_ready().unwrap(), 1);
    advance(&clock, seconds(10));
    assert_eq!(db.run_ready().unwrap(), 0, "the second wait is twice as long");
    advance(&clock, seconds(10));
    assert_eq!(db.run_ready().unwrap(), 1);
    advance(&clock, seconds(10));
    settle(&db);
    assert_eq!((get(&db, "B", "x"), calls.load(Ordering::SeqCst)), (Some(42), 4));
    let told: Vec<String> = outcomes(&db).into_iter().map(|(outcome, _)| outcome).collect();
    assert_eq!(told, ["retry", "retry", "rejected", "completed"]);
}

#[test]
fn when_attempts_are_used_up_the_failure_stands() {
    let (_, clock, db) = driven();
    let retry = Retry::new(2, seconds(1), seconds(1));
    let definition = ProducerDefinition::new("fetch").requires("A").provides("B").retry(retry);
    db.register(definition, |_| Err(Failure::retry("the line is down"))).unwrap();
    put(&db, "A", "x", 1);
    for _ in 0..5 {
        db.run_ready().unwrap();
        advance(&clock, seconds(1));
    }
    let down = Some("the line is down".to_string());
    assert_eq!(outcomes(&db), [("retry".to_string(), down.clone()), ("failed".to_string(), down)]);
    let why = db.why("B", day(), ["x"]).unwrap().to_string();
    assert!(why.contains("the line is down (attempts used up: 2)"), "{why}");
}

/// Threads wait for the time and not for a caller.
#[test]
fn a_worker_tries_again_by_itself() {
    let (_, db) = underbelly_tests::in_memory().unwrap();
    for name in ["A", "B"] {
        db.define_slot(counter_slot(name)).unwrap();
    }
    let retry = Retry::new(5, Duration::from_millis(5), Duration::from_secs(1));
    let definition = ProducerDefinition::new("fetch").requires("A").provides("B").retry(retry);
    let calls = AtomicUsize::new(0);
    db.register(definition, move |run| match calls.fetch_add(1, Ordering::SeqCst) {
        0..3 => Err(Failure::retry("not yet")),
        _ => twice(run),
    })
    .unwrap();
    put(&db, "A", "x", 4);
    assert!(db.wait_idle(seconds(60)));
    assert_eq!(get(&db, "B", "x"), Some(8));
    // So does a batch that waits for more: the last bundles do not wait for ever.
    db.define_slot(counter_slot("D")).unwrap();
    let gather = ProducerDefinition::new("gather").requires("B").provides("D");
    let gather = gather.independent(100, Duration::from_millis(20));
    db.register_batch(gather, |runs| Ok(runs.iter().map(|_| Ok(Outputs::new().put("D", one(1)))).collect()))
        .unwrap();
    put(&db, "A", "y", 4);
    assert!(db.wait_idle(seconds(60)));
    assert_eq!((get(&db, "D", "x"), get(&db, "D", "y")), (Some(1), Some(1)));
}

/// What is tried again waits from the commit of its failure, which may be ahead of the clock: what is rejected is no endless loop.
#[test]
fn a_clock_that_goes_back_takes_no_wait_away() {
    let (_, clock, db) = driven();
    db.register(ProducerDefinition::new("b").requires("A").provides("B"), |_| {
        Err(Failure::rejected("too busy"))
    })
    .unwrap();
    clock.set(Timestamp(3_600_000_000_000));
    put(&db, "A", "x", 1);
    clock.set(Timestamp(0));
    assert_eq!(db.run_ready().unwrap(), 1);
    assert_eq!(db.run_ready().unwrap(), 0);
}

/// A run that hangs holds up those behind it until it is cancelled, and not longer.
#[test]
fn what_is_cancelled_makes_room() {
    let (_, db) = underbelly_tests::in_memory().unwrap();
    for name in ["A", "B"] {
        db.define_slot(counter_slot(name)).unwrap();
    }
    let (free, hang) = std::sync::mpsc::channel::<()>();
    let (begun, begins) = std::sync::mpsc::channel::<()>();
    let hang = Mutex::new(hang);
    let definition = ProducerDefinition::new("b").requires("A").provides("B").max_running(1);
    db.register(definition, move |run| {
        if run.key("name") == Some(&"hangs".into()) {
            begun.send(()).unwrap();
            let _freed = hang.lock().unwrap().recv();
        }
        twice(run)
    })
    .unwrap();
    put(&db, "A", "hangs", 1);
    begins.recv().unwrap();
    put(&db, "A", "x", 4);
    assert_eq!(get(&db, "B", "x"), None);
    db.cancel("b", day(), ["hangs"], "it hangs").unwrap();
    let idle = db.wait_idle(seconds(60));
    free.send(()).unwrap();
    assert!(idle);
    assert_eq!(get(&db, "B", "x"), Some(8));
}

/// MIN_BATCH, MAX_WAIT_TIME and MAX_BATCH, as the closure sees them: one call for each batch, results for each run.
#[test]
fn a_batch_is_one_call() {
    let (_, clock, db) = driven();
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let definition = ProducerDefinition::new("price").requires("A").provides("B");
    let definition = definition.independent(3, seconds(60)).max_batch(4);
    let seen = sizes.clone();
    db.register_batch(definition, move |runs| {
        seen.lock().unwrap().push(runs.len());
        Ok(runs
            .iter()
            .map(|run| {
                if run.key("name") == Some(&"k1".into()) { Err(Failure::declined("no")) } else { twice(run) }
            })
            .collect())
    })
    .unwrap();
    let keys: Vec<String> = (0..6).map(|n| format!("k{n}")).collect();
    put(&db, "A", &keys[0], 0);
    put(&db, "A", &keys[1], 1);
    assert_eq!(db.run_ready().unwrap(), 0, "two are too few");
    for (n, key) in keys.iter().enumerate().skip(2) {
        put(&db, "A", key, n as i64);
    }
    assert_eq!(db.run_ready().unwrap(), 4, "as many as there may be; two are left");
    advance(&clock, seconds(59));
    assert_eq!(db.run_ready().unwrap(), 0);
    // Commit times are later than each other.
    advance(&clock, seconds(1) + Duration::from_micros(1));
    assert_eq!(db.run_ready().unwrap(), 2, "the oldest has waited");
    assert_eq!(*sizes.lock().unwrap(), [4, 2]);
    assert_eq!((get(&db, "B", "k5"), get(&db, "B", "k1")), (Some(10), None));
}

#[test]
fn a_batch_that_panics_runs_in_halves_and_only_what_brings_it_down_fails() {
    let (_, _, db) = driven();
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let definition = ProducerDefinition::new("price").requires("A").provides("B").max_batch(8);
    let seen = sizes.clone();
    db.register_batch(definition, move |runs| {
        seen.lock().unwrap().push(runs.len());
        assert!(runs.iter().all(|run| run.key("name") != Some(&"bad".into())), "out of memory");
        Ok(runs.iter().map(twice).collect())
    })
    .unwrap();
    let mut batch = Batch::new();
    for (n, key) in ["a", "b", "c", "bad", "d", "e", "f"].into_iter().enumerate() {
        batch.put_slot("A", day(), [key], one(n as i64));
    }
    db.commit(batch).unwrap();
    db.run_ready().unwrap();
    for (n, key) in [(0, "a"), (1, "b"), (2, "c"), (4, "d"), (5, "e"), (6, "f")] {
        assert_eq!(get(&db, "B", key), Some(2 * n), "{key}");
    }
    assert_eq!(sizes.lock().unwrap().iter().max(), Some(&7));
    let failed: Vec<_> =
        db.runs(None, 100).unwrap().into_iter().filter(|run| run.outcome == "failed").collect();
    assert_eq!(failed.len(), 1);
    assert!(failed[0].key.contains("bad") && failed[0].error.as_deref().unwrap().contains("out of memory"));
    let bad = db.why("B", day(), ["bad"]).unwrap().to_string();
    assert!(bad.contains("out of memory"), "{bad}");
}

#[test]
fn a_closure_that_forgets_a_run_has_failed() {
    let (_, _, db) = driven();
    let definition = ProducerDefinition::new("price").requires("A").provides("B");
    db.register_batch(definition, |_| Ok(Vec::new())).unwrap();
    put(&db, "A", "x", 1);
    db.run_ready().unwrap();
    let told = outcomes(&db);
    assert!(told[0].1.as_deref().unwrap().contains("answered 0 of 1 runs"), "{told:?}");
}

/// History does not stand in the way of what is live.
#[test]
fn a_backfill_runs_when_nothing_else_is_ready() {
    let (_, _, db) = driven();
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = order.clone();
    db.register(ProducerDefinition::new("b").requires("A").provides("B"), move |run| {
        seen.lock().unwrap().push(run.key("name").unwrap().to_string());
        twice(run)
    })
    .unwrap();
    let mut history = Batch::new();
    for key in ["old1", "old2"] {
        history.put_slot("A", day(), [key], one(1));
    }
    history.backfill();
    db.commit(history).unwrap();
    put(&db, "A", "live", 1);
    db.run_ready().unwrap();
    assert_eq!(*order.lock().unwrap(), ["live", "old1", "old2"]);
}

/// A dependent proxy sees the whole date at once.
#[test]
fn a_dependent_producer_gets_the_date_as_one_batch() {
    let (_, _, db) = driven();
    db.register(ProducerDefinition::new("b").requires("A").provides("B"), twice).unwrap();
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let seen = sizes.clone();
    let basis = ProducerDefinition::new("basis").requires("B").provides("C").dependent().max_batch(1000);
    db.register_batch(basis, move |runs| {
        seen.lock().unwrap().push(runs.len());
        let all: i64 =
            runs.iter().map(|run| run.input("B").map(|rows| number(&rows))).sum::<Result<_, _>>()?;
        Ok(runs.iter().map(|_| Ok(Outputs::new().put("C", one(all)))).collect())
    })
    .unwrap();
    for key in ["x", "y", "z"] {
        put(&db, "A", key, 5);
    }
    db.run_ready().unwrap();
    assert!(sizes.lock().unwrap().is_empty(), "more may come");
    let mut end = Batch::new();
    end.end_of(day());
    db.commit(end).unwrap();
    db.run_ready().unwrap();
    assert_eq!((*sizes.lock().unwrap()).clone(), [3]);
    assert_eq!(get(&db, "C", "y"), Some(30));
    let parked = db.producer_table("basis").unwrap().next().unwrap();
    assert_eq!(parked.status, PStatus::Done);
}
