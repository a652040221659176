//! What becomes of processes when the engine ends.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use underbelly::RealDisk;
use underbelly_tests::options;

use super::*;

pub(crate) fn is_alive(process: u32) -> bool {
    // A zombie is none any more.
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// The processes that are or were at work in this folder.
pub(crate) fn processes(folder: &Path) -> Vec<u32> {
    let entries = std::fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_suffix(".pid")?.parse().ok()).collect()
}

#[test]
fn processes_end_with_an_engine_that_is_killed_and_each_output_is_committed_once() {
    let (dir, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Database::create_with(dir.path(), options()).unwrap().close().unwrap();
    let folder_name = folder.path().to_str().unwrap();
    for round in 0..3 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_supervisor"));
        command.arg(dir.path()).arg(folder_name).arg(env!("CARGO_BIN_EXE_program"));
        let mut engine = command.stdout(Stdio::piped()).spawn().unwrap();
        let acknowledged = BufReader::new(engine.stdout.take().unwrap()).lines().take(8).count();
        assert_eq!(acknowledged, 8);
        until("two are at work", || processes(folder.path()).len() == 2 * (round + 1));
        engine.kill().unwrap();
        engine.wait().unwrap();
        until("its processes are gone", || !processes(folder.path()).into_iter().any(is_alive));
    }
    std::fs::write(folder.path().join("go"), "").unwrap();
    let db = Database::open_with(dir.path(), options()).unwrap();
    let before: Vec<Option<i64>> = (1..=8).map(|n| get(&db, &format!("k{n}"))).collect();
    db.register_program(
        ProducerDefinition::new("twice").requires("A").provides("B"),
        program("slow").arg(folder_name).processes(2),
    )
    .unwrap();
    settle(&db);
    // Three interruptions in a row are the end of a bundle; those that waited were not interrupted.
    let interrupted = |name: &str| state(&db, "B", name).is_none_or(|state| state == State::Invalid);
    for n in 1..=8i64 {
        let name = format!("k{n}");
        if interrupted(&name) {
            continue;
        }
        let cell = db.snapshot().slot("B", day(), [name.as_str()]).unwrap().unwrap();
        assert_eq!((number(&cell.rows), cell.generation), (2 * n, 1), "{before:?}");
        let history = history(&db);
        assert_eq!(
            history.iter().filter(|(key, outcome, _)| *key == name && outcome == "completed").count(),
            1
        );
    }
    let lost = (1..=8).filter(|n| interrupted(&format!("k{n}"))).count();
    assert!(lost <= 2, "{lost} of 8");
    db.close().unwrap();
}

#[test]
fn closing_lets_runs_end_and_kills_what_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, db) = in_memory().unwrap();
    let disk = std::sync::Arc::new(disk);
    ["A", "B"].iter().for_each(|name| db.define_slot(counter_slot(name)).unwrap());
    let slow = program("slow").arg(folder.path().to_str().unwrap());
    db.register_program(twice(), slow.clone().close_grace(Duration::from_millis(50))).unwrap();
    put(&db, &["a"]);
    until("it works", || !processes(folder.path()).is_empty());
    db.close().unwrap();
    assert!(!processes(folder.path()).into_iter().any(is_alive));
    let db = Database::open_on(disk.clone(), options()).unwrap();
    let (_, outcome, error) = history(&db).pop().unwrap();
    assert_eq!((outcome.as_str(), error.as_str()), ("rejected", "the producer's processes were ended"));

    db.register_program(twice(), slow.close_grace(PATIENCE)).unwrap();
    until("it works again", || processes(folder.path()).len() == 2);
    let go = folder.path().join("go");
    let closing = std::thread::spawn(move || db.close());
    // It is closing, and the run ends.
    std::thread::sleep(Duration::from_millis(50));
    std::fs::write(go, "").unwrap();
    closing.join().unwrap().unwrap();
    assert!(!processes(folder.path()).into_iter().any(is_alive));
    let db = Database::open_on(disk, options()).unwrap();
    assert_eq!(get(&db, "a"), Some(2));
}

#[test]
fn a_cancel_reaches_the_process_and_taking_a_producer_out_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let db = database();
    let slow = program("slow").arg(folder.path().to_str().unwrap()).close_grace(Duration::from_millis(50));
    db.register_program(twice(), slow).unwrap();
    put(&db, &["a"]);
    until("it works", || !processes(folder.path()).is_empty());
    db.cancel("twice", day(), ["a"], "not wanted").unwrap();
    until("it knows", || folder.path().join("cancelled").exists());
    settle(&db);
    assert_eq!(history(&db), [("a".to_string(), "halted".to_string(), "not wanted".to_string())]);

    put(&db, &["a", "b"]);
    until("it works again", || db.running().count() == 1);
    db.deregister("twice").unwrap();
    until("it is gone", || !processes(folder.path()).into_iter().any(is_alive));
    assert_eq!(get(&db, "b"), None);
}

#[test]
fn a_database_that_is_dropped_leaves_no_process() {
    let (dir, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let disk = std::sync::Arc::new(RealDisk::new(dir.path()));
    let db = Database::create_on(disk, options()).unwrap();
    ["A", "B"].iter().for_each(|name| db.define_slot(counter_slot(name)).unwrap());
    let slow = program("slow").arg(folder.path().to_str().unwrap()).close_grace(Duration::from_millis(50));
    db.register_program(twice(), slow).unwrap();
    put(&db, &["a"]);
    until("it works", || !processes(folder.path()).is_empty());
    drop(db);
    assert!(!processes(folder.path()).into_iter().any(is_alive));
}

/// A closure that registers programs while another thread closes the database is refused, and keeps nobody.
#[test]
fn what_is_registered_during_the_close_keeps_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (_, db) = in_memory().unwrap();
    ["A", "B", "C", "D"].iter().for_each(|name| db.define_slot(counter_slot(name)).unwrap());
    let (began, begins) = std::sync::mpsc::channel();
    let (go, goes) = std::sync::mpsc::channel::<()>();
    let (registered, registers) = std::sync::mpsc::channel();
    let goes = std::sync::Mutex::new(goes);
    let clone = std::sync::Mutex::new(Some(db.clone()));
    db.register(twice(), move |_| {
        let Some(db) = clone.lock().unwrap().take() else { return Ok(Outputs::new()) };
        began.send(()).unwrap();
        goes.lock().unwrap().recv().unwrap();
        let thrice = ProducerDefinition::new("thrice").requires("A").provides("C");
        let asked = db.register_program(thrice, program("twice").dir(folder.path())).map(|_| ());
        let daemon = ProducerDefinition::daemon("count").provides("D").lease(PATIENCE);
        let kept = db.register_program(daemon, program("daemon").dir(folder.path())).map(|_| ());
        registered.send((asked, kept)).unwrap();
        Ok(Outputs::new())
    })
    .unwrap();
    put(&db, &["a"]);
    begins.recv_timeout(PATIENCE).unwrap();
    let (closed, closes) = std::sync::mpsc::channel();
    let beside = db.clone();
    std::thread::spawn(move || closed.send(db.close().map(drop)));
    // False as soon as the close has begun, since a run is in flight.
    assert!(!beside.wait_idle(PATIENCE));
    drop(beside);
    go.send(()).unwrap();
    let (asked, kept) = registers.recv_timeout(PATIENCE).expect("nobody holds what it needs");
    for refused in [asked, kept] {
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("closed"), "{refused}");
    }
    closes.recv_timeout(PATIENCE).expect("the close waits for nobody else").unwrap();
}
