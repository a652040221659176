//! How processes die.

use super::*;

#[test]
fn a_process_that_is_killed_in_a_run_is_replaced_and_the_run_tried_again() {
    let db = database();
    let folder = tempfile::tempdir().unwrap();
    db.register_program(twice(), program("once").arg(folder.path().to_str().unwrap())).unwrap();
    put(&db, &["a", "b"]);
    settle(&db);
    assert_eq!((get(&db, "a"), get(&db, "b")), (Some(2), Some(4)));
    for name in ["a", "b"] {
        let history = history(&db);
        let own: Vec<_> = history.iter().filter(|(key, ..)| key == name).collect();
        let [(_, first, error), (_, second, _)] = &own[..] else { panic!("{history:?}") };
        assert_eq!((first.as_str(), second.as_str()), ("retry", "completed"));
        assert_eq!(error, "its process was killed by signal 9");
    }
    // Its output was committed once.
    let cell = db.snapshot().slot("B", day(), ["a"]).unwrap().unwrap();
    assert_eq!(cell.generation, 1);
}

#[test]
fn a_bundle_that_kills_its_process_each_time_fails_alone() {
    let db = database();
    let definition = twice().independent(5, Duration::from_secs(3600));
    db.register_program(definition, program("batch")).unwrap();
    put(&db, &["a", "b", "poison", "d", "e"]);
    settle(&db);
    for (n, name) in [(2, "a"), (4, "b"), (8, "d"), (10, "e")] {
        assert_eq!(get(&db, name), Some(n), "{:?}", history(&db));
    }
    assert_eq!(get(&db, "poison"), None);
    let history = history(&db);
    let poison: Vec<&str> =
        history.iter().filter(|(key, ..)| key == "poison").map(|(_, outcome, _)| outcome.as_str()).collect();
    let (last, before) = poison.split_last().unwrap();
    assert_eq!(*last, "failed");
    assert_eq!(before.iter().filter(|outcome| **outcome == "retry").count(), 2, "{poison:?}");
    assert!(before.contains(&"died"), "{poison:?}");
    let (.., error) = history.iter().rev().find(|(key, ..)| key == "poison").unwrap();
    assert_eq!(error, "its process exited with code 3; it last wrote: cannot digest this");
    assert!(history.iter().all(|(key, outcome, _)| key == "poison" || outcome != "failed"), "{history:?}");
}

#[test]
fn a_process_that_hangs_is_killed() {
    let db = database();
    let hasty = program("hung").heartbeat(Duration::from_millis(20), Duration::from_millis(200));
    db.register_program(twice(), hasty).unwrap();
    put(&db, &["a"]);
    settle(&db);
    let outcomes: Vec<String> = history(&db).into_iter().map(|(_, outcome, _)| outcome).collect();
    assert_eq!(outcomes, ["retry", "retry", "failed"]);
    let (.., error) = history(&db).pop().unwrap();
    assert_eq!(error, "its process was silent for 200ms and was killed");
}

/// A process that tells that it lives may take as long as it likes, unless it was told how long it may.
#[test]
fn a_run_that_takes_too_long_is_killed_though_its_process_lives() {
    let db = database();
    let folder = tempfile::tempdir().unwrap();
    let slow = program("slow").arg(folder.path().to_str().unwrap());
    let slow = slow.heartbeat(Duration::from_millis(20), Duration::from_millis(1000));
    db.register_program(twice(), slow.clone()).unwrap();
    put(&db, &["a"]);
    until("it works", || db.running().count() == 1);
    // Longer than the grace.
    std::thread::sleep(Duration::from_millis(1300));
    assert_eq!(history(&db), []);
    std::fs::write(folder.path().join("go"), "").unwrap();
    settle(&db);
    assert_eq!(get(&db, "a"), Some(2));

    std::fs::remove_file(folder.path().join("go")).unwrap();
    db.register_program(twice(), slow.run_timeout(Duration::from_millis(300))).unwrap();
    put(&db, &["a", "b"]);
    settle(&db);
    let (key, outcome, error) = history(&db).pop().unwrap();
    assert_eq!((key.as_str(), outcome.as_str()), ("b", "failed"));
    assert_eq!(error, "its process did not end within 300ms and was killed");
}

#[test]
fn a_process_that_never_stops_talking_is_killed_in_time() {
    let limit = Duration::from_millis(300);
    for mode in ["chatter", "noise"] {
        let db = database();
        db.register_program(twice(), program(mode).run_timeout(limit)).unwrap();
        put(&db, &["a"]);
        settle(&db);
        let (_, outcome, error) = history(&db).pop().unwrap();
        assert_eq!(outcome, "failed", "{mode}");
        assert!(error.starts_with("its process did not end within 300ms and was killed"), "{mode}: {error}");
    }
    // What goes to standard error is no sign of life.
    let db = database();
    db.register_program(twice(), program("noise").heartbeat(limit / 3, limit)).unwrap();
    put(&db, &["a"]);
    settle(&db);
    let (.., error) = history(&db).pop().unwrap();
    assert!(error.starts_with("its process was silent for 300ms and was killed"), "{error}");
}

#[test]
fn a_process_that_writes_while_it_is_sent_a_long_run_is_heard() {
    let db = database();
    let brief = program("loud").heartbeat(Duration::from_millis(100), Duration::from_secs(2));
    let long = underbelly::SlotDefinition::new("L").cell_key("name", underbelly::ColumnType::Utf8);
    db.define_slot(long.row_key("n", underbelly::ColumnType::I64)).unwrap();
    db.register_program(ProducerDefinition::new("loud").requires("L").provides("B"), brief).unwrap();
    let mut batch = Batch::new();
    // More than a pipe holds, of which the process takes a part and then writes more than a pipe holds.
    let rows = Columns::new().with("n", (0..100_000i64).collect::<Vec<_>>().into()).unwrap();
    batch.put_slot("L", day(), ["a"], rows);
    db.commit(batch).unwrap();
    settle(&db);
    let outcomes: Vec<_> = history(&db).into_iter().map(|(_, outcome, error)| (outcome, error)).collect();
    assert_eq!(outcomes, [("completed".to_string(), String::new())]);
}

#[test]
fn a_program_that_is_not_there_is_refused_and_not_registered() {
    let db = database();
    let error = db.register_program(twice(), Program::new("/nowhere/at all")).unwrap_err().to_string();
    assert!(error.contains("\"twice\"") && error.contains("/nowhere/at all"), "{error}");
    assert!(error.contains("No such file"), "{error}");
    let none = db.register_program(twice(), program("twice").processes(0)).unwrap_err().to_string();
    assert!(none.contains("0 processes"), "{none}");
    let short = program("twice").heartbeat(PATIENCE, PATIENCE);
    let short = db.register_program(twice(), short).unwrap_err().to_string();
    assert!(short.contains("a heartbeat each 60s is none within a grace of 60s"), "{short}");
    assert_eq!(db.producers().len(), 0);
}

/// What a process has started holds its streams when it is dead.
#[test]
fn what_a_process_has_started_ends_with_it_and_delays_nothing() {
    let db = database();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("child");
    let script =
        format!("sleep 3600 & echo $! > {}; exec {} batch", file.display(), env!("CARGO_BIN_EXE_program"));
    let shell = Program::new("sh").arg("-c").arg(script).heartbeat(Duration::from_secs(1), PATIENCE);
    let mut definition = twice();
    definition.retry = Retry::new(1, Duration::from_millis(1), Duration::from_millis(1));
    db.register_program(definition, shell).unwrap();
    put(&db, &["poison"]);
    settle(&db);
    let (.., error) = history(&db).pop().unwrap();
    assert!(error.starts_with("its process exited with code 3"), "{error}");
    let started = std::fs::read_to_string(file).unwrap();
    until("it is gone too", || !ends::is_alive(started.trim().parse().unwrap()));
}

#[test]
fn work_waits_for_a_program_that_cannot_start_and_the_history_says_why() {
    let db = database();
    let patient = program("crash").backoff(Duration::from_millis(1), Duration::from_millis(4));
    db.register_program(twice(), patient).unwrap();
    put(&db, &["a"]);
    until("it is told", || !history(&db).is_empty());
    let (key, outcome, error) = history(&db).remove(0);
    assert_eq!((key.as_str(), outcome.as_str()), ("", "unstarted"));
    assert!(
        error.ends_with("exited with code 7 before it said hello; it last wrote: no module named pyarrow")
    );
    assert!(db.status().trouble.unwrap().contains("no module named pyarrow"));
    // No attempt is used, and the same is not told again; one that can start does the work.
    db.register_program(twice(), program("twice")).unwrap();
    settle(&db);
    assert_eq!(get(&db, "a"), Some(2));
    assert_eq!(history(&db).len(), 2, "{:?}", history(&db));

    let mute = program("mute").startup_timeout(Duration::from_millis(50));
    db.register_program(twice(), mute).unwrap();
    until("that is told too", || history(&db).len() == 3);
    let (.., error) = history(&db).pop().unwrap();
    assert!(error.contains("said no hello within 50ms and was killed"), "{error}");
    db.close().unwrap();
}
