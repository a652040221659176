//! Daemons whose program the engine starts, and starts again.

use underbelly_tests::options;

use super::ends::{is_alive, processes};
use super::*;

fn daemon() -> ProducerDefinition {
    ProducerDefinition::daemon("count").provides("A").lease(PATIENCE)
}

fn counting(folder: &std::path::Path) -> Program {
    let soon = Duration::from_millis(1);
    program("daemon").arg(folder.to_str().unwrap()).backoff(soon, soon)
}

fn counted(db: &Database) -> usize {
    db.slot_table(Some("A")).unwrap().count()
}

#[test]
fn a_daemon_is_started_again_until_it_says_goodbye_and_each_commit_is_made_once() {
    let folder = tempfile::tempdir().unwrap();
    let db = database();
    db.register_program(daemon(), counting(folder.path())).unwrap();
    until("it has counted", || counted(&db) == 23);
    until("it waits", || {
        processes(folder.path()).into_iter().filter(|process| is_alive(*process)).count() == 1
    });
    assert_eq!(processes(folder.path()).len(), 5, "started, and again after 5, 10, 15 and 20");
    let mut table = db.slot_table(Some("A")).unwrap();
    assert!(table.all(|row| row.generation == 1), "each was committed once");
    let told = history(&db);
    assert!(told.iter().all(|(_, outcome, _)| outcome == "ended"), "{told:?}");
    assert!(told[0].2.contains("was killed by signal 9; it last wrote: "), "{told:?}");
    assert!(told[0].2.ends_with("dying at 5"), "{told:?}");
    assert_eq!(db.alarms().len(), 0);
    // One that says goodbye is not started again.
    std::fs::write(folder.path().join("go"), "").unwrap();
    until("it has left", || !processes(folder.path()).into_iter().any(is_alive));
    until("its session has ended", || !db.producers()[0].attached);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(processes(folder.path()).len(), 5);
}

#[test]
fn a_daemon_ends_with_the_engine_and_goes_on_with_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, db) = in_memory().unwrap();
    let disk = std::sync::Arc::new(disk);
    db.define_slot(counter_slot("A")).unwrap();
    db.register_program(daemon(), counting(folder.path())).unwrap();
    until("it has counted", || counted(&db) == 23);
    db.close().unwrap();
    let before = processes(folder.path());
    assert!(!before.iter().any(|process| is_alive(*process)));

    let db = Database::open_on(disk, options()).unwrap();
    db.register_program(daemon(), counting(folder.path())).unwrap();
    until("it is there again", || processes(folder.path()).len() == before.len() + 1);
    until("it has a session", || db.producers()[0].attached);
    // Another program takes its place, and taking the daemon out ends that.
    db.register_program(daemon(), counting(folder.path())).unwrap();
    until("the next is there", || processes(folder.path()).len() == before.len() + 2);
    until("it has the session", || db.producers()[0].attached);
    let alive = || processes(folder.path()).into_iter().filter(|process| is_alive(*process)).count();
    assert_eq!(alive(), 1);
    db.deregister("count").unwrap();
    assert_eq!(alive(), 0);
    assert_eq!(db.alarms().len(), 0);
    let several = db.register_program(daemon(), counting(folder.path()).processes(2)).unwrap_err();
    assert!(several.to_string().contains("it has one"), "{several}");
}

#[test]
fn a_daemon_that_cannot_start_is_told_of_and_one_that_is_silent_is_killed() {
    let db = database();
    let soon = Duration::from_millis(1);
    db.register_program(daemon(), program("crash").backoff(soon, soon)).unwrap();
    until("it is told", || !history(&db).is_empty());
    let (_, outcome, error) = history(&db).remove(0);
    assert_eq!(outcome, "ended");
    assert!(
        error.ends_with("exited with code 7 before it said hello; it last wrote: no module named pyarrow"),
        "{error}"
    );
    // It is welcomed, and says nothing from then on.
    let hung =
        program("hung").heartbeat(Duration::from_millis(50), Duration::from_millis(200)).backoff(soon, soon);
    db.register_program(daemon(), hung).unwrap();
    until("it is killed", || {
        history(&db).iter().any(|(.., error)| error.starts_with("was silent for 200ms"))
    });
    db.close().unwrap();
}

#[test]
fn a_daemon_whose_program_is_not_there_is_refused_and_not_registered() {
    let db = database();
    let refused = db.register_program(daemon(), Program::new("/nowhere/at all")).unwrap_err().to_string();
    assert!(refused.contains("\"count\"") && refused.contains("/nowhere/at all"), "{refused}");
    assert_eq!(db.producers().len(), 0);
}

/// The engine closes its streams as soon as it has answered the goodbye.
#[test]
fn what_a_daemon_does_after_its_goodbye_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let db = database();
    db.register_program(daemon(), program("farewell").arg(folder.path().to_str().unwrap())).unwrap();
    until("it has begun", || !processes(folder.path()).is_empty());
    until("it has ended", || !processes(folder.path()).into_iter().any(is_alive));
    assert!(folder.path().join("after").exists());
}

/// Inline work of what a daemon's program commits is the workers': the thread that looks after the program is not kept by it.
#[test]
fn inline_work_may_take_out_the_daemon_that_made_it() {
    let folder = tempfile::tempdir().unwrap();
    let db = database();
    let own = db.clone();
    let copy = ProducerDefinition::new("copy").requires("A").provides("B");
    db.register_inline(copy, move |run| {
        // All but the first find it taken out.
        let _ = own.deregister("count");
        Ok(underbelly::Outputs::new().put("B", run.input("A")?))
    })
    .unwrap();
    db.register_program(daemon(), counting(folder.path())).unwrap();
    until("it is taken out", || db.producers().iter().all(|producer| producer.definition.name != "count"));
    until("its process has ended", || !processes(folder.path()).into_iter().any(is_alive));
    settle(&db);
    assert_eq!(state(&db, "B", "n1"), Some(State::Current));
    db.close().unwrap();
}
