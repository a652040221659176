//! Models that programs give and read.

use std::thread;

use underbelly::{
    ColumnType, Date, Extent, MetaValue, Metadata, Outputs, Retention, Run, SlotDefinition, Timestamp,
};
use underbelly_worker::remote::{Accepted, Cells, Client, Daemon, Producer, RemoteError};
use underbelly_worker::{Definition, Metadata as Told};

use super::python::{python, script};
use super::*;

const DAY_NS: i64 = 86_400_000_000_000;

/// A database in memory with slots A, B and C, and a slot of models M.
fn with_models() -> Database {
    let db = database();
    db.define_slot(SlotDefinition::models("M").cell_key("name", ColumnType::Utf8)).unwrap();
    db
}

/// The `name` is the cell's key, and no part of the identity: `of` is.
fn metadata(name: &str, Date(day): Date) -> Metadata {
    let at = Timestamp(i64::from(day) * DAY_NS + 5);
    Metadata::new("M")
        .with("name", name)
        .with("of", name)
        .with("depth", 3)
        .with("rate", 0.5)
        .with("timestamp", at)
}

/// A producer that makes a model of M and a cell of B of each cell of A.
fn trainer() -> ProducerDefinition {
    ProducerDefinition::new("train").requires("A").provides("M").provides("B")
}

/// One that makes a cell of B of a cell of A and a model of M.
fn scorer() -> ProducerDefinition {
    ProducerDefinition::new("score").requires("A").requires("M").provides("B")
}

/// The program of the tests that trains or scores: that in Rust, and that in Python.
fn programs(mode: &str) -> Vec<Program> {
    let in_python = python().map(|python| script(python, "processes/models.py").arg(mode));
    [program(mode)].into_iter().chain(in_python).collect()
}

/// What a closure reads in a model, ten times.
fn ten_times(run: &Run) -> Result<Outputs, underbelly::Failure> {
    let model = run.model("M")?;
    let blob = model.blob()?;
    let n = i64::from_le_bytes((*blob).try_into().unwrap());
    Ok(Outputs::new().put("C", one("n", 10 * n)?))
}

fn put_on(db: &Database, slot: &str, name: &str, day: Date, n: i64) {
    let mut batch = Batch::new();
    batch.put_slot(slot, day, [name], one("n", n).unwrap());
    db.commit(batch).unwrap();
}

fn in_c(db: &Database, name: &str) -> Option<i64> {
    db.snapshot().slot("C", day(), [name]).unwrap().map(|cell| number(&cell.rows))
}

#[test]
fn a_program_provides_a_model_that_a_closure_opens() {
    for program in programs("train") {
        let db = with_models();
        db.register_program(trainer(), program).unwrap();
        db.register(ProducerDefinition::new("tenfold").requires("M").provides("C"), ten_times).unwrap();
        put(&db, &["a", "b"]);
        settle(&db);
        assert_eq!((in_c(&db, "a"), in_c(&db, "b")), (Some(10), Some(20)), "{:?}", history(&db));
        let snapshot = db.snapshot();
        let model = snapshot.slot_model("M", day(), ["b"]).unwrap().unwrap();
        assert_eq!(model.metadata(), &metadata("b", day()));
        assert_eq!(model.info().version, 1);
        // In one transaction with the cell beside it.
        assert_eq!(snapshot.slot("B", day(), ["b"]).unwrap().unwrap().seq, model.info().seq);
        let upstream = db.model_upstream(model.info(), Extent::default()).unwrap().unwrap();
        assert_eq!((upstream.slot.as_str(), upstream.children[0].slot.as_str()), ("M", "A"));

        // Another model is another version, and wakes what uses it; an equal one wakes nobody.
        put_on(&db, "A", "b", day(), 7);
        settle(&db);
        let runs = db.runs(None, 100).unwrap().len();
        assert_eq!(in_c(&db, "b"), Some(70));
        assert_eq!(db.snapshot().model(&metadata("b", day())).unwrap().unwrap().info().version, 2);
        db.force("train", day(), ["b"]).unwrap();
        settle(&db);
        assert_eq!(db.runs(None, 100).unwrap().len(), runs + 1);
        db.close().unwrap();
    }
}

#[test]
fn what_is_no_model_fails_its_run_and_puts_nothing() {
    let both = [
        ("nameless", "a model of this slot has the attribute \"name\" of type utf8"),
        ("timeless", "needs an entry \"timestamp\""),
        ("typeless", "needs a text entry \"type\""),
        (
            "other",
            "slot \"N\": a model of this type was given, which is no slot of models that the producer provides",
        ),
        ("cells", "slot \"B\": a model of this type was given, which is no slot of models"),
        (
            "rows",
            "slot \"M\": its cells are models, which are put and not said in rows; give metadata and a blob",
        ),
        ("half", "column \"n\" holds i64, not f64"),
    ];
    let rust = [("list", "is not a JSON object"), ("double", "has the key \"depth\" twice")];
    let python = [
        ("nan", "ValueError: Out of range float values are not JSON compliant"),
        ("date", "ValueError: metadata entry 'depth': a date is none; give an instant or a text"),
        ("raw", "ValueError: metadata entry 'depth': a bytes is no value of a key"),
        ("text", "TypeError: memoryview: a bytes-like object is required"),
    ];
    for (program, own) in programs("train").into_iter().zip([&rust[..], &python[..]]) {
        let db = with_models();
        // It is there, and not this producer's.
        db.define_slot(SlotDefinition::models("N").cell_key("name", ColumnType::Utf8)).unwrap();
        db.register_program(trainer(), program).unwrap();
        let wrong: Vec<(&str, &str)> = both.iter().chain(own).copied().collect();
        let names: Vec<&str> = wrong.iter().map(|(name, _)| *name).collect();
        put(&db, &names);
        settle(&db);
        let history = history(&db);
        for (name, why) in wrong {
            let of: Vec<_> = history.iter().filter(|(key, ..)| key == name).collect();
            let [(_, outcome, error)] = of[..] else { panic!("not one run of {name}: {history:?}") };
            assert!(outcome == "failed" && error.contains(why), "{name}: {outcome}: {error}");
            assert_eq!(get(&db, name), None, "{name}: what is beside it is not committed either");
        }
        assert!(db.snapshot().models().is_empty());
        // An error of the cell alone is one.
        put(&db, &["fail"]);
        settle(&db);
        assert_eq!((get(&db, "fail"), state(&db, "M", "fail")), (Some(1), Some(State::Invalid)));
        db.close().unwrap();
    }
}

#[test]
fn a_program_reads_the_version_of_its_run() {
    let tomorrow = Date(day().0 + 1);
    for program in programs("score") {
        let db = with_models();
        // The model of each day is a version of one model.
        db.register(ProducerDefinition::new("train").requires("C").provides("M"), |run| {
            let (underbelly::SlotDate::Day(day), Some(name)) = (run.date(), run.key("name")) else {
                return Err(underbelly::Failure::fatal("no day"));
            };
            let metadata = metadata(&name.to_string(), day).with("seen", Timestamp(-7));
            Ok(Outputs::new().put_model(metadata, number(&run.input("C")?).to_le_bytes()))
        })
        .unwrap();
        db.register_program(scorer(), program).unwrap();
        put_on(&db, "C", "a", day(), 3);
        settle(&db);
        put_on(&db, "C", "a", tomorrow, 5);
        settle(&db);
        let newest = db.snapshot().model(&metadata("a", day()).with("seen", Timestamp(-7))).unwrap().unwrap();
        assert_eq!(newest.info().version, 2);
        for (day, n, by) in [(day(), 2, 3), (tomorrow, 7, 5)] {
            put_on(&db, "A", "a", day, n);
            settle(&db);
            let cell = db.snapshot().slot("B", day, ["a"]).unwrap();
            assert_eq!(cell.map(|cell| number(&cell.rows)), Some(n * by), "{:?}", history(&db));
        }
        let runs = db.runs(Some("score"), 100).unwrap();
        let told: Vec<&str> = runs.iter().filter_map(|run| run.stderr.as_deref()).collect();
        let at = |day: Date| (i64::from(day.0) * DAY_NS + 5).to_string();
        assert!(
            told[1].starts_with("version 1 holds 3") && told[0].starts_with("version 2 holds 5"),
            "{told:?}"
        );
        for (told, day) in [(told[1], day()), (told[0], tomorrow)] {
            assert!(told.contains(&at(day)) && told.contains("-7") && told.contains("depth"), "{told}");
        }
        db.close().unwrap();
    }
}

#[test]
fn a_newer_model_does_not_reach_a_run_in_work() {
    let db = with_models();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    db.register_program(scorer(), program("score").arg(folder.path().to_str().unwrap())).unwrap();
    let train = |n: i64| {
        let mut batch = Batch::new();
        batch.put_model(metadata("a", day()), n.to_le_bytes());
        db.commit(batch).unwrap();
    };
    train(3);
    put_on(&db, "A", "a", day(), 2);
    until("it is called", || file("called").exists());
    train(5);
    // The version of the run may be gone from the database by then.
    let mut batch = Batch::new();
    batch.set_retention(&metadata("a", day()), Some(Retention::keep_last(1))).unwrap();
    db.commit(batch).unwrap();
    std::fs::write(file("go"), "").unwrap();
    settle(&db);
    assert_eq!(get(&db, "a"), Some(10));
    let runs = db.runs(Some("score"), 100).unwrap();
    let told: Vec<&str> = runs.iter().filter_map(|run| run.stderr.as_deref()).collect();
    let was_read = |what: &str| told.iter().any(|told| told.contains(what));
    assert!(was_read("version 1 holds 3") && was_read("version 2 holds 5"), "{runs:?}");
}

#[test]
fn a_run_whose_version_is_gone_fails_before_its_program_sees_it() {
    let db = with_models();
    db.register_program(scorer(), program("score")).unwrap();
    for (day, n) in [(day(), 3i64), (Date(day().0 + 1), 5)] {
        let mut batch = Batch::new();
        batch.put_model(metadata("a", day), n.to_le_bytes());
        db.commit(batch).unwrap();
    }
    let mut batch = Batch::new();
    batch.set_retention(&metadata("a", day()), Some(Retention::keep_last(1))).unwrap();
    db.commit(batch).unwrap();
    put_on(&db, "A", "a", day(), 2);
    settle(&db);
    let [(_, outcome, error)] = &history(&db)[..] else { panic!("{:?}", history(&db)) };
    assert!(outcome == "failed" && error.contains("keep more of them, or put it again"), "{error}");
    assert_eq!(db.runs(None, 1).unwrap()[0].process, None);
}

#[test]
fn a_daemon_in_python_commits_models() {
    let Some(python) = python() else { return };
    let db = with_models();
    let daemon = ProducerDefinition::daemon("source").provides("M").provides("B").lease(PATIENCE);
    db.register_program(daemon, script(python, "processes/models.py").arg("daemon")).unwrap();
    until("it has left", || db.slot_table(Some("B")).unwrap().count() == 1 && !db.producers()[0].attached);
    // 2024-10-04, at noon.
    let model = db.snapshot().slot_model("M", day(), ["a"]).unwrap().unwrap();
    assert_eq!(*model.blob().unwrap(), *b"well");
    let json = r#"{"type": "M", "name": "a", "tree": {"depths": [1, 2.5, null]}}"#;
    let noon = Timestamp(i64::from(day().0) * DAY_NS + DAY_NS / 2);
    assert_eq!(model.metadata(), &Metadata::from_json(json).unwrap().with("timestamp", noon));
    let told = db.slot_table(Some("B")).unwrap().next().unwrap().key.to_string();
    assert!(told.contains("its cells are models, which are put and not said in rows"), "{told}");
}

#[test]
fn processes_over_a_socket_give_and_read_models() {
    let db = with_models();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let _server = db.serve(&socket).unwrap();
    let told = |model_type: &str, name: &str| {
        let json = format!(r#"{{"type": "{model_type}", "name": "{name}"}}"#);
        Told::json(json).instant("timestamp", Timestamp(i64::from(day().0) * DAY_NS))
    };
    // Its models are read by a producer, which puts one of another slot.
    db.define_slot(SlotDefinition::models("N").cell_key("name", ColumnType::Utf8)).unwrap();
    let definition = Definition::new("refine").requires("M").provides("N");
    let producer = Producer::connect(&socket, definition, PATIENCE).unwrap();
    let stop = producer.stop_handle();
    let serving = thread::spawn(move || {
        producer.serve(|run| {
            let model = run.model("M")?;
            let json = model.metadata().json.replace("\"M\"", "\"N\"");
            let metadata = Told { json, ..model.metadata().clone() };
            Ok(underbelly_worker::Outputs::new().put_model(metadata, [model.blob(), b"!"].concat()))
        })
    });
    let source = Definition::daemon("source").provides("M");
    let mut daemon = Daemon::connect(&socket, source, PATIENCE).unwrap();
    let cells = Cells::new().put_model(told("M", "a"), b"well");
    assert!(matches!(daemon.commit_once(1, &cells).unwrap(), Accepted::Now(_)));
    assert_eq!(daemon.commit_once(1, &cells).unwrap(), Accepted::Before);
    let refined = || db.snapshot().slot_model("N", day(), ["a"]).unwrap();
    until("it is refined", || refined().is_some());
    assert_eq!(*refined().unwrap().blob().unwrap(), *b"well!");
    let name = refined().unwrap().metadata().entries().get("name").cloned();
    assert_eq!(name, Some(MetaValue::Text("a".to_string())));

    let mut refused = |cells: Cells, why: &str| {
        let refused = daemon.commit_once(2, &cells).unwrap_err();
        assert!(matches!(&refused, RemoteError::Refused(what) if what.contains(why)), "{refused}");
    };
    let model = [("model", "x"), ("content", "y")];
    let rows = model.iter().fold(underbelly_worker::Columns::new(), |rows, (name, text)| {
        rows.with(*name, [*text].into_iter().collect()).unwrap()
    });
    refused(Cells::new().put("M", day(), [("name", "a")], rows), "its cells are models, which are put");
    refused(Cells::new().put_model(told("A", "a"), []), "slot \"A\": it is no slot of models");
    refused(Cells::new().put_model(told("X", "a"), []), "\"X\"");
    refused(Cells::new().put_model(told("N", "b"), []), "\"N\"");
    refused(Cells::new().put_model(Told::json("{"), []), "is not a JSON object");
    assert_eq!(db.snapshot().models().len(), 2);

    // A client puts where no producer gives.
    let mut client = Client::connect(&socket, PATIENCE).unwrap();
    let taken = client.commit(&Cells::new().put_model(told("M", "a"), b"ill")).unwrap_err();
    assert!(matches!(taken, RemoteError::Refused(_)), "{taken}");
    db.define_slot(SlotDefinition::models("K").cell_key("name", ColumnType::Utf8)).unwrap();
    client.commit(&Cells::new().put_model(told("K", "a"), b"well")).unwrap();
    assert!(db.snapshot().slot_model("K", day(), ["a"]).unwrap().is_some());
    stop.stop(false);
    serving.join().unwrap().unwrap();
    daemon.close().unwrap();
}
