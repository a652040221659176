//! A database without threads: nothing happens but inside the calls of whoever drives it.

use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use underbelly::disk::{Calls, Fault, FaultKind};
use underbelly::{
    Clock, ColumnType, Database, FaultyDisk, ManualClock, Options, Outputs, ProducerDefinition, Run,
    SimulatedDisk, SlotDefinition, State, Timestamp,
};
use underbelly_tests::{counter_slot, in_memory, one};

use crate::desk::*;

/// Settings without threads, at a time that stands still.
fn driven() -> Options {
    let clock = Arc::new(ManualClock::new(Timestamp(1_000)));
    Options { workers: 0, clock, ..underbelly_tests::options() }
}

fn desk(options: Options) -> (FaultyDisk<SimulatedDisk>, Database) {
    let disk = FaultyDisk::new(SimulatedDisk::new());
    let db = Database::create_on(Arc::new(disk.clone()), options).unwrap();
    for slot in ["A", "B", "C"] {
        db.define_slot(counter_slot(slot)).unwrap();
    }
    (disk, db)
}

/// Producers run on the caller's thread, when it says so and not before, and the caller learns how many ran.
#[test]
fn nothing_runs_until_the_caller_drives() {
    let (_, db) = desk(driven());
    let first = derive(&db, "first", "A", "B", |n| Ok(n + 1));
    let driver = std::thread::current().id();
    let second = derive(&db, "second", "B", "C", move |n| {
        assert_eq!(std::thread::current().id(), driver);
        Ok(n * 10)
    });
    put(&db, "A", "x", 1);
    assert_eq!((first.take(), second.take(), state(&db, "A", "x")), (0, 0, Some(State::Pending)));
    assert_eq!(db.run_ready().unwrap(), 2);
    assert_eq!((first.take(), second.take(), get(&db, "C", "x")), (1, 1, Some(20)));
    assert_eq!(state(&db, "C", "x"), Some(State::Current));
    assert_eq!(db.run_ready().unwrap(), 0);
    put(&db, "A", "x", 4);
    settle(&db);
    assert_eq!((first.take(), get(&db, "C", "x")), (1, Some(50)), "to wait is to drive");
    put(&db, "A", "x", 5);
    assert!(db.close().is_ok(), "work that is left is no hindrance");
}

/// What a checkpoint's trigger asks for is done when the caller drives, and not before.
#[test]
fn a_checkpoint_that_is_due_is_made_by_the_driver() {
    for drives in [false, true] {
        let (disk, db) = desk(Options { checkpoint_operations: 4, ..driven() });
        for n in 0..10 {
            put(&db, "A", "x", n);
        }
        if drives {
            assert_eq!(db.run_ready().unwrap(), 0);
        }
        drop(db);
        let db = Database::open_on(Arc::new(disk), driven()).unwrap();
        assert_eq!(db.recovery_report().replayed == 0, drives);
    }
}

/// A run whose end the disk refuses is told, kept, and committed by the next call; its closure runs once.
#[test]
fn a_run_that_cannot_be_ended_is_ended_later() {
    let (disk, db) = desk(driven());
    let large = SlotDefinition::new("L").cell_key("name", ColumnType::Utf8).value("text", ColumnType::Utf8);
    db.define_slot(large).unwrap();
    let counter = Counter::default();
    let (count, text) = (counter.clone(), "x".repeat(100_000));
    let (full, inside) =
        (Fault { calls: Calls::Changing, after: 0, kind: FaultKind::Full, sticky: true }, disk.clone());
    db.register(ProducerDefinition::new("large").requires("A").provides("L"), move |_: &Run| {
        count.add();
        inside.order(Some(full));
        Ok(Outputs::new().put("L", one("text", text.as_str())?))
    })
    .unwrap();
    put(&db, "A", "x", 1);
    for _ in 0..2 {
        let refused = db.run_ready().unwrap_err();
        assert!(refused.to_string().contains("L") || refused.to_string().contains("space"), "{refused}");
        assert!(!db.wait_idle(PATIENCE), "there is a run in flight, and driving fails");
    }
    disk.order(None);
    assert_eq!(db.run_ready().unwrap(), 1);
    assert_eq!((counter.take(), db.runs(None, 9).unwrap().len()), (1, 1));
    assert_eq!(state(&db, "L", "x"), Some(State::Current));
}

/// A closure may drive the database that runs it, which does nothing, and may commit and close.
#[test]
fn a_closure_that_drives_gets_nothing_to_do() {
    let (_, db) = desk(driven());
    let inside = db.clone();
    db.register(ProducerDefinition::new("p").requires("A").provides("B"), move |_: &Run| {
        assert_eq!(inside.run_ready().unwrap(), 0);
        put(&inside, "C", "y", 7);
        Ok(Outputs::new().put("B", one("n", 1)?))
    })
    .unwrap();
    put(&db, "A", "x", 1);
    put(&db, "A", "z", 1);
    assert_eq!(db.run_ready().unwrap(), 2);
    assert_eq!((get(&db, "B", "z"), get(&db, "C", "y")), (Some(1), Some(7)));
    db.close().unwrap();
}

/// The same calls at the same times give the same, the history of runs included.
#[test]
fn the_same_calls_do_the_same() {
    let told = || {
        let clock = Arc::new(ManualClock::new(Timestamp(1_000)));
        let (_, db) = desk(Options { clock: clock.clone(), ..driven() });
        let moved = clock.clone();
        derive(&db, "first", "A", "B", move |n| {
            moved.set(Timestamp(2_000 + n * 100));
            Ok(n + 1)
        });
        for n in 1..5 {
            put(&db, "A", &format!("c{}", n % 2), n);
        }
        db.run_ready().unwrap();
        let runs = db.runs(None, 10).unwrap();
        assert_eq!((runs[0].took.as_nanos(), runs.len()), (100, 2));
        format!("{runs:?} {:?}", underbelly_tests::shown(&db).unwrap())
    };
    assert_eq!(told(), told());
}

/// Where there are workers, driving is a help and nothing else.
#[test]
fn driving_beside_workers_is_safe() {
    let (_, db) = in_memory().unwrap();
    ["A", "B"].into_iter().for_each(|slot| db.define_slot(counter_slot(slot)).unwrap());
    let counter = derive(&db, "first", "A", "B", |n| Ok(n + 1));
    for n in 0..50 {
        put(&db, "A", &format!("c{n}"), n);
        db.run_ready().unwrap();
    }
    settle(&db);
    assert_eq!(counter.take(), 50);
}

/// A clock whose holder commits where a checkpoint gives way.
#[derive(Default)]
struct Committing {
    wall: ManualClock,
    /// What is committed to, and how often it was.
    db: Mutex<(Option<Weak<Database>>, i64)>,
}

impl Clock for Committing {
    fn now(&self) -> Timestamp {
        self.wall.now()
    }

    fn instant(&self) -> Instant {
        self.wall.instant()
    }

    fn give_way(&self) {
        let mut held = self.db.lock().unwrap();
        if let Some(db) = held.0.as_ref().and_then(Weak::upgrade) {
            held.1 += 1;
            put(&db, "A", "meanwhile", held.1);
        }
    }
}

/// Whoever drives a database may commit where a checkpoint gives way: the commit is there at once and stays, and the
/// checkpoint holds what was there when it began.
#[test]
fn commits_go_on_where_a_checkpoint_gives_way() {
    let clock = Arc::new(Committing::default());
    let (disk, db) = desk(Options { clock: clock.clone(), ..driven() });
    let db = Arc::new(db);
    put(&db, "A", "x", 1);
    clock.db.lock().unwrap().0 = Some(Arc::downgrade(&db));
    let before = db.snapshot().seq();
    let report = db.checkpoint().unwrap();
    let (_, commits) = std::mem::take(&mut *clock.db.lock().unwrap());
    assert!(commits > 2 && report.seq < before + commits as u64, "{commits} {report:?}");
    assert_eq!(get(&db, "A", "meanwhile"), Some(commits));
    let db = Database::open_on(Arc::new(disk.inner().crash()), driven()).unwrap();
    assert_eq!((get(&db, "A", "x"), get(&db, "A", "meanwhile")), (Some(1), Some(commits)));
    let replayed = db.recovery_report().last_seq - db.recovery_report().checkpoint_seq;
    assert!(replayed >= 1, "what came behind the capture is in the log");
}
