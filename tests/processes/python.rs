//! A producer in Python, on the standard library and pyarrow.
//!
//! `UNDERBELLY_PYTHON` names an interpreter that has pyarrow; without it, `python3` is asked, and where that has none the tests
//! say so and pass.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use underbelly::{ColumnType, Date, Input, SlotDefinition, Timestamp, Value};

use super::*;

/// An interpreter with pyarrow.
pub(super) fn python() -> Option<String> {
    let named = std::env::var("UNDERBELLY_PYTHON").ok();
    let python = named.clone().unwrap_or_else(|| "python3".to_string());
    let asked = Command::new(&python).args(["-c", "import pyarrow"]).stderr(Stdio::null()).status();
    let has = asked.is_ok_and(|status| status.success());
    assert!(has || named.is_none(), "UNDERBELLY_PYTHON is {python}, which has no pyarrow");
    if !has {
        eprintln!("skipped: {python} has no pyarrow; set UNDERBELLY_PYTHON to one that has");
    }
    has.then_some(python)
}

fn folder(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub(super) fn script(python: String, path: &str) -> Program {
    let library = folder("../examples/python");
    Program::new(python)
        .arg(folder(path).to_str().unwrap())
        .env("PYTHONPATH", library.to_str().unwrap())
        .env("PYTHONDONTWRITEBYTECODE", "1")
}

#[test]
fn a_producer_in_python_gives_every_kind_of_result() {
    let Some(python) = python() else { return };
    let db = database();
    db.register_program(twice(), script(python, "processes/kinds.py")).unwrap();
    put(&db, &["good", "declined", "retry", "fatal", "absent", "error", "small", "dictionary"]);
    settle(&db);
    let history = history(&db);
    let of = |name: &str| -> Vec<(&str, &str)> {
        let own = history.iter().filter(|(key, ..)| key == name);
        own.map(|(_, outcome, error)| (outcome.as_str(), error.as_str())).collect()
    };
    assert_eq!(of("good"), [("completed", "")]);
    assert_eq!(of("declined"), [("declined", "nothing to do")]);
    assert_eq!(of("retry"), [("retry", "the line is down"), ("completed", "")]);
    assert_eq!(of("fatal"), [("failed", "ValueError: no such thing")]);
    assert_eq!(of("absent"), [("completed", "")]);
    assert_eq!(of("error"), [("completed", "")]);
    let [("failed", dictionary)] = of("dictionary")[..] else { panic!("{history:?}") };
    assert!(dictionary.contains("dictionary-encoded; cast it"), "{dictionary}");
    assert_eq!((get(&db, "good"), get(&db, "retry"), get(&db, "small")), (Some(2), Some(6), Some(14)));
    let runs = db.runs(None, 100).unwrap();
    let fatal = runs.iter().find(|run| run.key == "fatal").unwrap().stderr.as_deref().unwrap();
    assert!(fatal.contains("Traceback") && fatal.contains("kinds.py"), "{fatal}");
    let good = runs.iter().find(|run| run.key == "good").unwrap().stderr.as_deref();
    assert_eq!(good, Some("doubling 1"));
    db.close().unwrap();
}

#[test]
fn what_a_producer_in_python_cannot_say_fails_its_run_alone() {
    let Some(python) = python() else { return };
    let db = database();
    let instants = SlotDefinition::new("T").cell_key("name", ColumnType::Utf8);
    db.define_slot(instants.cell_key("at", ColumnType::Timestamp).value("n", ColumnType::I64)).unwrap();
    db.register_program(twice().provides("T"), script(python, "processes/kinds.py")).unwrap();
    let cannot = [
        ("far", "253370764800000000000 does not fit into 64 bits"),
        ("decimal", "a Decimal is no value of a key"),
        ("bytes", "a bytes is no value of a key"),
        ("list", "a list is no value of a key"),
        ("slot", "a int is no name"),
        ("long", "is longer than the 16777216 that are allowed"),
    ];
    let can = ["nanoseconds", "scalar", "verbose", "surrogate", "inherit"];
    put(&db, &cannot.map(|(name, _)| name));
    put(&db, &can);
    // Later than Python's dates.
    let mut batch = Batch::new();
    batch.put_slot("A", Date(4_000_000), ["late"], one("n", 1).unwrap());
    db.commit(batch).unwrap();
    settle(&db);
    let runs = db.runs(None, 100).unwrap();
    let of = |name: &str| {
        let [run] = &runs.iter().filter(|run| run.key == name).collect::<Vec<_>>()[..] else {
            panic!("not one run of {name}: {runs:?}")
        };
        (run.outcome.as_str(), run.error.clone().unwrap_or_default(), run.process)
    };
    for (name, why) in cannot.into_iter().chain([("late", "day 4000000 from 1970 is not in Python's years")])
    {
        let (outcome, error, _) = of(name);
        assert!(outcome == "failed" && error.contains(why), "{name}: {outcome}: {error}");
    }
    assert_eq!(of("verbose").0, "declined");
    assert!(of("verbose").1.starts_with("üüü"));
    assert_eq!(of("surrogate").1, "half a ?");
    assert_eq!(get(&db, "inherit"), Some(10));
    let at = |name: &str, nanoseconds: i64| {
        let key: [Value; 2] = [name.into(), Timestamp(nanoseconds).into()];
        db.snapshot().slot("T", day(), key).unwrap().is_some()
    };
    assert!(at("nanoseconds", 1_704_153_600_123_456_789) && at("scalar", 7));
    // One process did it all.
    assert!(runs.iter().all(|run| run.process == runs[0].process), "{runs:?}");
}

#[test]
fn the_implied_volatilities_of_the_example_are_those_that_made_the_prices() {
    let Some(python) = python() else { return };
    let db = database();
    let quotes = SlotDefinition::new("Quotes")
        .cell_key("expiry", ColumnType::Date)
        .row_key("strike", ColumnType::F64)
        .row_key("right", ColumnType::Utf8)
        .value("mid", ColumnType::F64)
        .value("forward", ColumnType::F64)
        .value("years", ColumnType::F64);
    let vol = SlotDefinition::new("Vol")
        .cell_key("expiry", ColumnType::Date)
        .row_key("strike", ColumnType::F64)
        .row_key("right", ColumnType::Utf8)
        .value("vol", ColumnType::F64);
    [quotes, vol].into_iter().for_each(|slot| db.define_slot(slot).unwrap());
    let definition = ProducerDefinition::new("vol").input(Input::required("Quotes")).provides("Vol");
    db.register_program(definition, script(python, "../examples/python/implied_vol.py").processes(2))
        .unwrap();

    let columns = ["strike", "mid", "forward", "years"].map(|name| (name, ColumnType::F64));
    let mut rows = Columns::with_types([("right", ColumnType::Utf8)].into_iter().chain(columns)).unwrap();
    // Undiscounted at the money: the price of a straddle's half is F (2 N(s/2) - 1); with s = 0.2 and F = 100, 7.965567455.
    rows.push_row(&["C".into(), 100.0.into(), 7.965_567_455_405_804.into(), 100.0.into(), 1.0.into()])
        .unwrap();
    rows.push_row(&["P".into(), 100.0.into(), 7.965_567_455_405_804.into(), 100.0.into(), 1.0.into()])
        .unwrap();
    rows.push_row(&["C".into(), 90.0.into(), 1.0.into(), 100.0.into(), 1.0.into()]).unwrap();
    let expired = rows.slice(0..0);
    let mut batch = Batch::new();
    for (day, rows) in [(20_100, rows.clone()), (20_200, rows), (20_300, expired)] {
        batch.put_slot("Quotes", underbelly_tests::day(), [Date(day)], rows);
    }
    db.commit(batch).unwrap();
    settle(&db);
    for day in [20_100, 20_200] {
        let cell = db.snapshot().slot("Vol", underbelly_tests::day(), [Date(day)]).unwrap().unwrap();
        let found: Vec<Value> = (0..3).map(|row| cell.rows.value("vol", row).unwrap()).collect();
        // Below its intrinsic value an option has none.
        assert_eq!(found[0], Value::Null);
        for vol in &found[1..] {
            assert!((vol.as_f64().unwrap() - 0.2).abs() < 1e-9, "{found:?}");
        }
    }
    let declined: Vec<_> = history(&db).into_iter().filter(|(_, outcome, _)| outcome == "declined").collect();
    assert_eq!(declined.len(), 1);
    assert_eq!(declined[0].2, "no quotes");
}

#[test]
fn a_daemon_in_python_commits_each_step_once_and_leaves() {
    let Some(python) = python() else { return };
    let db = database();
    db.define_slot(SlotDefinition::new("Walk").value("level", ColumnType::F64)).unwrap();
    let daemon = ProducerDefinition::daemon("walk").provides("Walk").lease(PATIENCE);
    db.register_program(daemon, script(python, "../examples/python/random_walk.py").arg("20")).unwrap();
    until("it has left", || {
        db.slot_table(Some("Walk")).unwrap().count() == 20 && !db.producers()[0].attached
    });
    // 2024-01-02 09:31 UTC.
    let first = Timestamp::from_secs(1_704_187_860).unwrap();
    let levels: Vec<f64> = (0..20)
        .map(|minute| {
            let at = Timestamp(first.0 + minute * 60_000_000_000);
            let cell = db.snapshot().slot("Walk", at, [] as [&str; 0]).unwrap().unwrap();
            assert_eq!(cell.generation, 1);
            cell.rows.f64s("level").unwrap()[0]
        })
        .collect();
    assert!(levels.windows(2).all(|pair| ((pair[0] - pair[1]).abs() - 0.01).abs() < 1e-9), "{levels:?}");
    assert_eq!(history(&db), []);
}

#[test]
fn what_a_daemon_in_python_does_after_its_goodbye_is_done() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("farewell.py");
    let text = "import sys, time, underbelly_worker as ub\n\
                daemon = ub.Daemon()\n\
                daemon.close()\n\
                time.sleep(0.3)\n\
                open(sys.argv[1], 'w').close()\n";
    std::fs::write(&file, text).unwrap();
    let db = database();
    let after = folder.path().join("after");
    let program = script(python, file.to_str().unwrap()).arg(after.to_str().unwrap());
    db.register_program(ProducerDefinition::daemon("walk").provides("A").lease(PATIENCE), program).unwrap();
    until("it has done so", || after.exists());
    assert_eq!(history(&db), []);
}
