//! What processes give.

use underbelly::{ManualClock, Options, Timestamp};

use super::*;

#[test]
fn a_process_gives_the_cells_of_several_bundles() {
    let db = database();
    db.register_program(twice(), program("twice").processes(2)).unwrap();
    put(&db, &["a", "b", "c", "d", "e"]);
    settle(&db);
    let found: Vec<Option<i64>> = ["a", "b", "c", "d", "e"].iter().map(|name| get(&db, name)).collect();
    assert_eq!(found, [Some(2), Some(4), Some(6), Some(8), Some(10)]);
    assert_eq!(state(&db, "A", "a"), Some(State::Current));
    let runs = db.runs(Some("twice"), 100).unwrap();
    assert_eq!(runs.len(), 5);
    for run in &runs {
        assert_eq!((run.outcome.as_str(), &run.error), ("completed", &None));
        assert!(run.process.is_some_and(|process| process != std::process::id()), "{run:?}");
        // What it printed, to either stream.
        let stderr = run.stderr.as_deref().unwrap();
        assert!(stderr.contains("doubling ") && stderr.contains("this is for nobody"), "{stderr:?}");
    }
    // An equal value runs nothing; another does, in a process that is there.
    put(&db, &["a"]);
    settle(&db);
    assert_eq!(db.runs(None, 100).unwrap().len(), 5);
    let mut batch = Batch::new();
    batch.put_slot("A", day(), ["a"], one("n", 21).unwrap());
    db.commit(batch).unwrap();
    settle(&db);
    assert_eq!(get(&db, "a"), Some(42));
    db.close().unwrap();
}

#[test]
fn a_batch_goes_to_a_process_as_one() {
    let db = database();
    let definition = twice().independent(4, Duration::from_secs(3600));
    db.register_program(definition, program("batch")).unwrap();
    put(&db, &["a", "b", "c", "d"]);
    settle(&db);
    assert_eq!(get(&db, "d"), Some(8));
    let runs = db.runs(None, 100).unwrap();
    let stderr: Vec<&str> = runs.iter().filter_map(|run| run.stderr.as_deref()).collect();
    assert_eq!(stderr.len(), 4);
    assert!(stderr.iter().all(|lines| lines.matches("doubling").count() == 4), "{stderr:?}");
}

#[test]
fn every_kind_of_result_comes_through() {
    let db = database();
    db.register_program(twice(), program("kinds")).unwrap();
    let names = ["good", "declined", "retry", "fatal", "panic", "error", "absent", "other", "type"];
    put(&db, &names);
    settle(&db);
    let history = history(&db);
    let of = |name: &str| -> Vec<(&str, &str)> {
        let own = history.iter().filter(|(key, ..)| key == name);
        own.map(|(_, outcome, error)| (outcome.as_str(), error.as_str())).collect()
    };
    assert_eq!(of("good"), [("completed", "")]);
    assert_eq!(of("declined"), [("declined", "nothing to do")]);
    assert_eq!(of("retry"), [("retry", "the line is down"), ("completed", "")]);
    assert_eq!(of("fatal"), [("failed", "no such thing")]);
    assert_eq!(of("panic"), [("failed", "panicked: at the disco")]);
    assert_eq!(of("error"), [("completed", "")]);
    assert_eq!(of("absent"), [("completed", "")]);
    let [("failed", other)] = of("other")[..] else { panic!("{history:?}") };
    assert!(other.contains("does not provide it; it provides B"), "{other}");
    let [("failed", wrong)] = of("type")[..] else { panic!("{history:?}") };
    assert!(wrong.contains("column \"n\" holds i64, not f64"), "{wrong}");
    assert_eq!(get(&db, "retry"), Some(6));
    assert_eq!(state(&db, "B", "error"), Some(State::Invalid));
    let why = db.why("B", day(), ["error"]).unwrap().to_string();
    assert!(why.contains("half of it is missing"), "{why}");
    // One process did it all: none of this is its end.
    let processes: std::collections::BTreeSet<_> =
        db.runs(None, 100).unwrap().iter().map(|run| run.process).collect();
    assert_eq!(processes.len(), 1);
}

#[test]
fn without_workers_the_caller_waits_for_the_process() {
    let clock = std::sync::Arc::new(ManualClock::new(Timestamp(1)));
    let options = Options { workers: 0, clock, ..underbelly_tests::options() };
    let db = Database::create_on(std::sync::Arc::new(underbelly::SimulatedDisk::new()), options).unwrap();
    ["A", "B"].iter().for_each(|name| db.define_slot(counter_slot(name)).unwrap());
    db.register_program(twice(), program("twice")).unwrap();
    put(&db, &["a", "b"]);
    assert_eq!(db.run_ready().unwrap(), 2);
    assert_eq!((get(&db, "a"), get(&db, "b")), (Some(2), Some(4)));
    db.close().unwrap();
}

#[test]
fn a_closure_and_a_program_take_over_from_each_other() {
    let db = database();
    db.register_program(twice(), program("twice")).unwrap();
    put(&db, &["a"]);
    settle(&db);
    db.register(twice(), |run| {
        let n = number(&run.input("A")?);
        Ok(underbelly::Outputs::new().put("B", one("n", -n)?))
    })
    .unwrap();
    put(&db, &["a", "b"]);
    settle(&db);
    assert_eq!((get(&db, "a"), get(&db, "b")), (Some(2), Some(-2)));
    db.register_program(twice(), program("twice")).unwrap();
    put(&db, &["a", "b", "c"]);
    settle(&db);
    assert_eq!(get(&db, "c"), Some(6));
}

#[test]
fn a_slow_program_keeps_no_other_producer_from_running() {
    let db = database();
    let folder = tempfile::tempdir().unwrap();
    let slow = program("slow").arg(folder.path().to_str().unwrap()).processes(4);
    db.register_program(twice(), slow).unwrap();
    // As many as there are processes, and more than there are workers.
    put(&db, &["a", "b", "c", "d", "e", "f"]);
    until("four are at work", || db.running().count() >= 4);
    let quick = ProducerDefinition::new("quick").requires("A").provides("C");
    db.register(quick, |run| Ok(underbelly::Outputs::new().put("C", run.input("A")?))).unwrap();
    until("the quick one is done", || state(&db, "C", "f") == Some(State::Current));
    assert_eq!(get(&db, "a"), None);
    std::fs::write(folder.path().join("go"), "").unwrap();
    settle(&db);
    assert_eq!(get(&db, "f"), Some(12));
}
