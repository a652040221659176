//! Retract, force, cancel and deregister, and clients that write at priorities of their own.

use std::sync::Arc;

use underbelly::{
    Batch, Clock, CommitError, Database, GraphError, ManualClock, Options, Outputs, PStatus,
    ProducerDefinition, Run, RunRecord, SimulatedDisk, State, Timestamp,
};
use underbelly_tests::{counter_slot, day, in_memory, one, options};

use crate::desk::{derive, get, number, put, settle, state};

/// A client's data above a producer's counts until it is taken back.
#[test]
fn clients_write_above_and_below_producers() {
    let (_, db) = in_memory().unwrap();
    for name in ["A", "B"] {
        db.define_slot(counter_slot(name)).unwrap();
    }
    derive(&db, "double", "A", "B", |n| Ok(n * 2));
    put(&db, "A", "x", 4);
    settle(&db);
    assert_eq!(get(&db, "B", "x"), Some(8));
    let mut batch = Batch::new();
    batch.put_slot_at("B", day(), ["x"], 5, one("n", 99).unwrap());
    batch.put_slot_at("B", day(), ["x"], -5, one("n", 11).unwrap());
    db.commit(batch).unwrap();
    assert_eq!(get(&db, "B", "x"), Some(99));
    let mut batch = Batch::new();
    batch.retract_slot_at("B", day(), ["x"], 5);
    db.commit(batch).unwrap();
    assert_eq!(get(&db, "B", "x"), Some(8));
    db.retract("B", day(), ["x"], 0).unwrap();
    assert_eq!(get(&db, "B", "x"), Some(11), "the fallback");
    let mut batch = Batch::new();
    batch.put_slot("B", day(), ["x"], one("n", 1).unwrap());
    let refused = db.commit(batch).unwrap_err();
    assert!(matches!(refused, CommitError::Graph(GraphError::PriorityTaken { .. })), "{refused}");
    let missing = db.retract("B", day(), ["y"], 0).unwrap_err();
    assert!(matches!(missing, CommitError::Cell { .. }), "{missing}");
}

#[test]
fn a_producer_is_forced_cancelled_and_deregistered_by_name() {
    let db =
        Database::create_on(Arc::new(SimulatedDisk::new()), Options { workers: 0, ..options() }).unwrap();
    for name in ["A", "B"] {
        db.define_slot(counter_slot(name)).unwrap();
    }
    let runs = derive(&db, "double", "A", "B", |n| Ok(n * 2));
    put(&db, "A", "x", 4);
    db.run_ready().unwrap();
    assert_eq!(runs.take(), 1);
    db.force("double", day(), ["x"]).unwrap();
    db.run_ready().unwrap();
    assert_eq!(runs.take(), 1, "although nothing changed");
    let nothing = db.cancel("double", day(), ["x"], "no need").unwrap_err();
    assert!(
        matches!(nothing, CommitError::Graph(GraphError::NothingToCancel { status: PStatus::Done, .. })),
        "{nothing}"
    );
    put(&db, "A", "x", 5);
    db.cancel("double", day(), ["x"], "wrong rates").unwrap();
    db.run_ready().unwrap();
    assert_eq!((runs.take(), state(&db, "B", "x")), (0, Some(State::Invalid)));
    assert_eq!(get(&db, "B", "x"), Some(8), "the last good data");
    for error in [db.force("triple", day(), ["x"]), db.force("double", day(), ["y"]), db.deregister("triple")]
    {
        assert!(matches!(error.unwrap_err(), CommitError::Producer { .. }));
    }
    db.deregister("double").unwrap();
    put(&db, "A", "x", 6);
    db.run_ready().unwrap();
    assert_eq!((runs.take(), get(&db, "B", "x")), (0, Some(8)));
    assert!(db.producers().is_empty());
    let again = derive(&db, "double", "A", "B", |n| Ok(n * 3));
    db.run_ready().unwrap();
    assert_eq!((again.take(), get(&db, "B", "x")), (1, Some(18)));
}

/// What a run cannot make of several outputs is invalid alone.
#[test]
fn a_run_fails_for_one_output_and_gives_the_other() {
    let (_, db) = in_memory().unwrap();
    for name in ["A", "B", "C"] {
        db.define_slot(counter_slot(name)).unwrap();
    }
    let producer = ProducerDefinition::new("both").requires("A").provides("B").provides("C");
    db.register(producer, |run: &Run| {
        let n = number(&run.input("A")?);
        let outputs = Outputs::new().put("B", one("n", n)?);
        Ok(if n > 0 { outputs.put("C", one("n", -n)?) } else { outputs.fail("C", "not above zero") })
    })
    .unwrap();
    put(&db, "A", "x", 3);
    settle(&db);
    assert_eq!((get(&db, "B", "x"), get(&db, "C", "x")), (Some(3), Some(-3)));
    put(&db, "A", "x", 0);
    settle(&db);
    assert_eq!((state(&db, "B", "x"), state(&db, "C", "x")), (Some(State::Current), Some(State::Invalid)));
    assert_eq!((get(&db, "B", "x"), get(&db, "C", "x")), (Some(0), Some(-3)), "the last good data");
    let why = db.why("C", day(), ["x"]).unwrap();
    assert!(why.to_string().contains("not above zero"), "{why}");
}

/// A run that a command takes its work from stands in the history once, as halted, whatever its closure gives.
#[test]
fn a_halted_run_stands_in_the_history() {
    let clock = Arc::new(ManualClock::new(Timestamp(1_000)));
    let options = Options { workers: 0, clock: clock.clone(), ..options() };
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options.clone()).unwrap();
    for name in ["A", "B"] {
        db.define_slot(counter_slot(name)).unwrap();
    }
    let handle = db.clone();
    let double = ProducerDefinition::new("double").requires("A").provides("B");
    db.register(double, move |run: &Run| {
        clock.set(Timestamp(clock.now().0 + 500));
        match number(&run.input("A")?) {
            4 => drop(handle.cancel("double", day(), ["x"], "wrong rates")?),
            5 => drop(handle.deregister("double")?),
            _ => {}
        }
        Ok(Outputs::new().put("B", one("n", 1)?))
    })
    .unwrap();
    // What is cancelled before it starts is no run.
    put(&db, "A", "x", 1);
    db.cancel("double", day(), ["x"], "not yet").unwrap();
    assert!(db.runs(None, 9).unwrap().is_empty());
    for n in [3, 4, 5] {
        put(&db, "A", "x", n);
        db.run_ready().unwrap();
    }
    let expected = [
        ("halted", Some("the producer was deregistered")),
        ("halted", Some("wrong rates")),
        ("completed", None),
    ];
    let told = |db: &Database| {
        let runs = db.runs(Some("double"), 9).unwrap();
        assert!(runs.windows(2).all(|pair| pair[0].pid > pair[1].pid), "{runs:?}");
        // A commit time may be some nanoseconds ahead of the clock.
        let is_whole = |run: &RunRecord| {
            (490..=500).contains(&run.took.as_nanos())
                && (490..=500).contains(&(run.end_time.0 - run.start_time.0))
                && run.key == "x"
        };
        assert!(runs.iter().all(is_whole), "{runs:?}");
        runs.into_iter().map(|run| (run.outcome, run.error)).collect::<Vec<_>>()
    };
    let expected = expected.map(|(outcome, error)| (outcome.to_string(), error.map(str::to_string)));
    assert_eq!(told(&db), expected);
    db.close().unwrap();
    assert_eq!(told(&Database::open_on(Arc::new(disk), options).unwrap()), expected);
}
