//! Runs that give nothing, fail or panic.

use std::time::{Duration, Instant};

use underbelly::{
    ColumnType, Failure, Outputs, ProducerDefinition, Row, Run, SlotDefinition, State, Timestamp,
};
use underbelly_tests::{counter_slot, day, in_memory, one};

use crate::desk::{derive, get, number, put, settle, state};

fn three_slots() -> underbelly::Database {
    let (_, db) = in_memory().unwrap();
    for name in ["A", "B", "C"] {
        db.define_slot(counter_slot(name)).unwrap();
    }
    db
}

/// A run that declines takes its outputs back; what hangs on them is not run; it is no failure.
#[test]
fn declining_takes_back_the_outputs() {
    let db = three_slots();
    derive(&db, "positive", "A", "B", |n| if n > 0 { Ok(n) } else { Err(Failure::declined("not positive")) });
    let c = derive(&db, "c", "B", "C", Ok);
    put(&db, "A", "x", 5);
    settle(&db);
    assert_eq!((get(&db, "B", "x"), get(&db, "C", "x"), c.take()), (Some(5), Some(5), 1));
    put(&db, "A", "x", -5);
    settle(&db);
    assert_eq!((get(&db, "B", "x"), state(&db, "B", "x"), c.take()), (None, Some(State::Void), 0));
    assert_eq!(state(&db, "A", "x"), Some(State::Current));
    let run = &db.runs(Some("positive"), 1).unwrap()[0];
    assert_eq!((&*run.outcome, run.error.as_deref()), ("declined", Some("not positive")));
    let why = db.why("B", day(), ["x"]).unwrap().to_string();
    assert!(why.contains("not positive"), "{why}");
    put(&db, "A", "x", 7);
    settle(&db);
    assert_eq!((get(&db, "C", "x"), c.take()), (Some(7), 1));
}

/// A failed run makes its outputs invalid and keeps the last good data; the reason is told at the cell, in the
/// history, and at everything that hangs on it; the input is as good as before; a new input makes it good again.
#[test]
fn a_failure_stays_on_its_branch() {
    let db = three_slots();
    derive(&db, "fit", "A", "B", |n| if n < 100 { Ok(n) } else { Err(Failure::fatal("the fit diverged")) });
    derive(&db, "c", "B", "C", Ok);
    put(&db, "A", "x", 1);
    put(&db, "A", "y", 1);
    settle(&db);
    put(&db, "A", "x", 200);
    settle(&db);
    assert_eq!((get(&db, "B", "x"), state(&db, "B", "x")), (Some(1), Some(State::Invalid)));
    assert_eq!((state(&db, "A", "x"), state(&db, "B", "y")), (Some(State::Current), Some(State::Current)));
    assert_eq!(state(&db, "C", "x"), Some(State::Stale));
    let row = db.slot_table(Some("B")).unwrap().next().unwrap();
    assert!(row.error.as_deref().unwrap().contains("the fit diverged"));
    let run = &db.runs(Some("fit"), 1).unwrap()[0];
    assert_eq!((&*run.outcome, run.error.as_deref()), ("failed", Some("the fit diverged")));
    let why = db.why("C", day(), ["x"]).unwrap().to_string();
    assert!(why.contains("the fit diverged") && why.contains("B 2024-10-04 x is invalid"), "{why}");
    put(&db, "A", "x", 2);
    settle(&db);
    assert_eq!((get(&db, "C", "x"), state(&db, "C", "x")), (Some(2), Some(State::Current)));
}

/// A panic in a closure is a failure of its run; the engine, its worker and its other cells go on.
#[test]
fn a_panic_is_a_failure() {
    let db = three_slots();
    derive(&db, "b", "A", "B", |n| {
        assert!(n != 13, "thirteen");
        Ok(n)
    });
    for round in 0..6 {
        put(&db, "A", "bad", 13);
        put(&db, "A", "good", round);
        settle(&db);
        assert_eq!(state(&db, "B", "good"), Some(State::Current));
        assert_eq!(get(&db, "B", "good"), Some(round));
        put(&db, "A", "bad", 14 + round);
        settle(&db);
        assert_eq!(get(&db, "B", "bad"), Some(14 + round));
    }
    let failed: Vec<_> =
        db.runs(Some("b"), 100).unwrap().into_iter().filter(|run| run.outcome == "failed").collect();
    assert_eq!(failed.len(), 6);
    assert!(failed[0].error.as_deref().unwrap().contains("thirteen"));
}

/// A producer's work.
type Work = fn(&Run) -> Result<Outputs, Failure>;

/// Outputs that do not fit are a failed run with an error that names the slot, and nothing of them is kept.
#[test]
fn outputs_that_do_not_fit_are_a_failed_run() {
    let cases: [(&str, Work, &str); 7] = [
        ("a slot not provided", |_| Ok(Outputs::new().put("C", one("n", 1)?)), "\"C\""),
        ("no such slot", |_| Ok(Outputs::new().put("Nowhere", one("n", 1)?)), "Nowhere"),
        ("a wrong column", |_| Ok(Outputs::new().put("B", one("m", 1)?)), "\"m\""),
        ("a wrong type", |_| Ok(Outputs::new().put("B", one("n", "text")?)), "\"n\""),
        (
            "the same cell twice",
            |_| Ok(Outputs::new().put("B", one("n", 1)?).put("B", one("n", 2)?)),
            "twice",
        ),
        (
            "a wrong series type",
            |_| {
                let row = Row::new("kept", Timestamp(1)).field("x", "text");
                Ok(Outputs::new().put("B", one("n", 1)?).append(row)?)
            },
            "\"x\"",
        ),
        (
            "the engine's own series",
            |_| Ok(Outputs::new().put("B", one("n", 1)?).append(Row::new("_runs", Timestamp(1)))?),
            "_runs",
        ),
    ];
    for (case, closure, named) in cases {
        let db = three_slots();
        let mut batch = underbelly::Batch::new();
        batch.append(Row::new("kept", Timestamp(0)).field("x", 1.5)).unwrap();
        db.commit(batch).unwrap();
        db.register(ProducerDefinition::new("p").requires("A").provides("B"), closure).unwrap();
        put(&db, "A", "x", 1);
        settle(&db);
        let run = &db.runs(Some("p"), 1).unwrap()[0];
        assert_eq!(run.outcome, "failed", "{case}");
        let error = run.error.as_deref().unwrap();
        assert!(error.contains(named), "{case}: {error}");
        assert_eq!(get(&db, "B", "x"), None, "{case}");
        assert_eq!(db.snapshot().series("kept").unwrap().count().unwrap(), 1, "{case}");
    }
}

/// A reason of any length is a failed run, and its worker goes on.
#[test]
fn a_huge_reason_is_cut() {
    let db = three_slots();
    derive(&db, "b", "A", "B", |n| match n {
        0 => Err(Failure::fatal("é".repeat(20 << 20))),
        1 => Err(Failure::declined("é".repeat(20 << 20))),
        n => Ok(n),
    });
    for n in [0, 1, 2] {
        put(&db, "A", "x", n);
        settle(&db);
    }
    assert_eq!(get(&db, "B", "x"), Some(2));
    assert_eq!(db.runs(Some("b"), 9).unwrap().len(), 3);
}

/// Asking for an input that a run does not have names those that it has.
#[test]
fn an_unknown_input_is_named() {
    let db = three_slots();
    db.register(ProducerDefinition::new("p").requires("A").provides("B"), |run: &Run| {
        let n = number(&run.input("C")?);
        Ok(Outputs::new().put("B", one("n", n)?))
    })
    .unwrap();
    put(&db, "A", "x", 1);
    settle(&db);
    let error = db.runs(None, 1).unwrap()[0].error.clone().unwrap();
    assert!(error.contains("\"C\"") && error.contains("\"A\""), "{error}");
}

/// A disk that refuses for a while costs a run time and nothing else: the result is kept and committed when the disk
/// takes it, and the trouble is told meanwhile.
#[test]
fn a_disk_that_refuses_for_a_while_loses_no_run() {
    let (disk, db) = in_memory().unwrap();
    db.define_slot(counter_slot("A")).unwrap();
    let large = SlotDefinition::new("L").cell_key("name", ColumnType::Utf8).value("text", ColumnType::Utf8);
    db.define_slot(large).unwrap();
    let refusing = disk.clone();
    let producer = ProducerDefinition::new("large").requires("A").provides("L");
    // Above 1 MiB, so that a file of its own is written before the commit.
    let text = "x".repeat(2 << 20);
    db.register(producer, move |_: &Run| {
        refusing.fail_at(Some(refusing.calls()));
        Ok(Outputs::new().put("L", one("text", text.as_str())?))
    })
    .unwrap();
    put(&db, "A", "x", 1);
    let deadline = Instant::now() + Duration::from_secs(60);
    while db.status().trouble.is_none() {
        assert!(Instant::now() < deadline, "nobody tells of the disk");
        std::thread::yield_now();
    }
    assert!(!db.wait_idle(Duration::ZERO));
    disk.fail_at(None);
    settle(&db);
    let cell = db.snapshot().slot("L", day(), ["x"]).unwrap().unwrap();
    assert_eq!(cell.rows.value("text", 0).unwrap().as_str().map(str::len), Some(2 << 20));
    assert_eq!(db.runs(Some("large"), 2).unwrap().len(), 1);
    assert!(db.status().trouble.unwrap().contains("injected failure"));
}
