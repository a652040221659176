//! What runs, how often, and what it makes.

use underbelly::{
    Batch, ColumnType, Metadata, Outputs, PStatus, ProducerDefinition, Row, Run, SlotDefinition, State,
    Timestamp,
};
use underbelly_tests::{counter_slot, day, in_memory, one};

use crate::desk::{Counter, daily, derive, get, number, put, settle, state};

/// A chain runs to its end; equal content wakes nobody, one changed cell runs its own branch alone.
#[test]
fn a_chain_runs_once_for_each_change() {
    let (_, db) = in_memory().unwrap();
    for name in ["A", "B", "C"] {
        db.define_slot(counter_slot(name)).unwrap();
    }
    let b = derive(&db, "halve", "A", "B", |n| Ok(n / 2));
    let c = derive(&db, "negate", "B", "C", |n| Ok(-n));
    for (i, name) in ["x", "y", "z"].into_iter().enumerate() {
        put(&db, "A", name, 10 * i as i64);
    }
    settle(&db);
    assert_eq!((b.take(), c.take()), (3, 3));
    assert_eq!((get(&db, "C", "x"), get(&db, "C", "y"), get(&db, "C", "z")), (Some(0), Some(-5), Some(-10)));
    for name in ["A", "B", "C"] {
        assert_eq!(state(&db, name, "y"), Some(State::Current));
    }

    let same = put(&db, "A", "y", 10);
    assert_eq!((same.changed, same.woken), (0, 0));
    settle(&db);
    assert_eq!((b.take(), c.take()), (0, 0), "equal content woke somebody");

    assert_eq!(put(&db, "A", "y", 11).woken, 1);
    settle(&db);
    assert_eq!((b.take(), c.take()), (1, 0), "equal output woke somebody");

    put(&db, "A", "y", 20);
    settle(&db);
    assert_eq!((b.take(), c.take()), (1, 1), "one branch runs, once");
    assert_eq!(get(&db, "C", "y"), Some(-10));
    let runs = db.runs(Some("halve"), 100).unwrap();
    assert_eq!(runs.len(), 5);
    assert!(runs.iter().all(|run| run.outcome == "completed" && run.error.is_none()));
    assert_eq!(db.runs(None, 100).unwrap().len(), 9);
}

/// The two arms of a diamond meet in one run.
#[test]
fn a_diamond_joins_once() {
    let (_, db) = in_memory().unwrap();
    for name in ["A", "B", "C", "D"] {
        db.define_slot(counter_slot(name)).unwrap();
    }
    derive(&db, "left", "A", "B", |n| Ok(n + 1));
    derive(&db, "right", "A", "C", |n| Ok(n * 10));
    let joins = Counter::default();
    let count = joins.clone();
    let join = ProducerDefinition::new("join").requires("B").requires("C").provides("D");
    db.register(join, move |run: &Run| {
        count.add();
        let sum = number(&run.input("B")?) + number(&run.input("C")?);
        Ok(Outputs::new().put("D", one("n", sum)?))
    })
    .unwrap();
    for n in 1..=5 {
        put(&db, "A", "x", n);
        settle(&db);
        assert_eq!(joins.take(), 1, "for {n}");
        assert_eq!(get(&db, "D", "x"), Some(n + 1 + 10 * n));
    }
}

/// A report over a day waits until the end of the day is declared, runs once, and again where a cell changes.
#[test]
fn a_group_waits_for_the_end_of_its_date() {
    let (_, db) = in_memory().unwrap();
    db.define_slot(counter_slot("A")).unwrap();
    db.define_slot(counter_slot("B")).unwrap();
    db.define_slot(daily("Report")).unwrap();
    derive(&db, "double", "A", "B", |n| Ok(2 * n));
    let reports = Counter::default();
    let count = reports.clone();
    let report = ProducerDefinition::new("report").requires("B").group_by_date().provides("Report");
    db.register(report, move |run: &Run| {
        count.add();
        let cells = run.inputs("B")?;
        assert!(cells.windows(2).all(|pair| pair[0].whole_key() < pair[1].whole_key()));
        let sum = cells.iter().map(|cell| cell.rows().map(|rows| number(&rows))).sum::<Result<i64, _>>()?;
        Ok(Outputs::new().put("Report", one("n", sum)?))
    })
    .unwrap();
    let total = || {
        let cell = db.snapshot().slot("Report", day(), [""; 0]).unwrap();
        cell.map(|cell| number(&cell.rows))
    };
    for i in 0..20 {
        put(&db, "A", &format!("k{i}"), i);
    }
    settle(&db);
    assert_eq!((reports.take(), total()), (0, None));
    let why = db.why("Report", day(), [""; 0]).unwrap().to_string();
    assert!(why.contains("end_of"), "{why}");
    let mut batch = Batch::new();
    batch.end_of(day());
    db.commit(batch).unwrap();
    settle(&db);
    assert_eq!((reports.take(), total()), (1, Some(380)));
    put(&db, "A", "k0", 100);
    settle(&db);
    assert_eq!((reports.take(), total()), (1, Some(580)));
    put(&db, "A", "new", 1);
    settle(&db);
    assert_eq!((reports.take(), total()), (1, Some(582)));
}

/// One run gives many cells, rows and a model, and all of them are visible with it or not at all.
#[test]
fn one_run_gives_cells_rows_and_a_model_at_once() {
    let (_, db) = in_memory().unwrap();
    db.define_slot(counter_slot("A")).unwrap();
    let wide = SlotDefinition::new("Wide")
        .cell_key("name", ColumnType::Utf8)
        .cell_key("part", ColumnType::I64)
        .value("n", ColumnType::I64);
    db.define_slot(wide).unwrap();
    let metadata = |name: &str| Metadata::new("fit").with("of", name).with("timestamp", Timestamp(1));
    let split = ProducerDefinition::new("split").requires("A").provides("Wide");
    db.register(split, move |run: &Run| {
        let n = number(&run.input("A")?);
        let name = run.key("name").and_then(|name| name.as_str()).unwrap_or_default().to_string();
        let mut outputs = Outputs::new();
        for part in 0..n {
            outputs = outputs.put_at("Wide", [("part", part)], one("n", 100 * n + part)?);
        }
        let row = Row::new("fits", Timestamp(run.id().0 as i64)).key("name", name.as_str()).field("n", n);
        Ok(outputs.append(row)?.put_model(metadata(&name), n.to_le_bytes().to_vec()))
    })
    .unwrap();
    let parts = |snapshot: &underbelly::Snapshot| {
        let at =
            |part: i64| snapshot.slot("Wide", day(), [underbelly::Value::from("x"), part.into()]).unwrap();
        (0..10).filter_map(at).map(|cell| cell.seq).collect::<Vec<_>>()
    };
    for n in [6, 3, 8] {
        put(&db, "A", "x", n);
        settle(&db);
        let snapshot = db.snapshot();
        assert_eq!(parts(&snapshot).len() as i64, n, "what is no longer given is gone");
        let model = snapshot.model(&metadata("x")).unwrap().unwrap();
        assert_eq!(*model.blob().unwrap(), n.to_le_bytes());
        let run = model.info().seq;
        assert!(parts(&snapshot).iter().all(|seq| *seq == run), "cells and model of one transaction");
        assert_eq!(snapshot.series("fits").unwrap().last_points().unwrap().i64s("n"), Some(&[n][..]));
    }
    assert_eq!(db.snapshot().series("fits").unwrap().count().unwrap(), 3);
}

/// A producer that is registered and has no closure in this process leaves its inputs updated, and says so.
#[test]
fn a_detached_producer_shows_updated() {
    let (disk, db) = in_memory().unwrap();
    db.define_slot(counter_slot("A")).unwrap();
    db.define_slot(counter_slot("B")).unwrap();
    derive(&db, "double", "A", "B", |n| Ok(2 * n));
    db.close().unwrap();
    let db = underbelly::Database::open_on(std::sync::Arc::new(disk), underbelly_tests::options()).unwrap();
    put(&db, "A", "x", 4);
    settle(&db);
    assert_eq!(state(&db, "A", "x"), Some(State::Updated));
    let summary = &db.producers()[0];
    assert!(!summary.attached);
    assert!(summary.bundles.contains(&(PStatus::Notified, 1)), "{:?}", summary.bundles);
    let why = db.why("B", day(), ["x"]).unwrap().to_string();
    assert!(why.contains("detached"), "{why}");

    let runs = derive(&db, "double", "A", "B", |n| Ok(2 * n));
    settle(&db);
    assert_eq!((runs.take(), get(&db, "B", "x")), (1, Some(8)));
    assert_eq!(state(&db, "A", "x"), Some(State::Current));
}

/// What was committed before a producer was registered for the first time is its work too.
#[test]
fn work_from_before_the_registration_is_done() {
    let (_, db) = in_memory().unwrap();
    db.define_slot(counter_slot("A")).unwrap();
    db.define_slot(counter_slot("B")).unwrap();
    for i in 0..30 {
        put(&db, "A", &format!("k{i}"), i);
    }
    let runs = derive(&db, "double", "A", "B", |n| Ok(2 * n));
    settle(&db);
    assert_eq!(runs.take(), 30);
    assert_eq!(get(&db, "B", "k29"), Some(58));
}

/// Under a source that is faster than its producers everything comes to rest at the newest contents.
#[test]
fn many_writers_come_to_rest_at_the_newest() {
    let (_, db) = in_memory().unwrap();
    for name in ["A", "B", "C"] {
        db.define_slot(counter_slot(name)).unwrap();
    }
    derive(&db, "b", "A", "B", |n| Ok(n + 1));
    derive(&db, "c", "B", "C", |n| Ok(n + 1));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let db = &db;
            scope.spawn(move || {
                for n in 0..50 {
                    put(db, "A", &format!("k{thread}"), n);
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..5 {
                db.checkpoint().unwrap();
            }
        });
    });
    settle(&db);
    for thread in 0..4 {
        assert_eq!(get(&db, "C", &format!("k{thread}")), Some(51));
        assert_eq!(state(&db, "C", &format!("k{thread}")), Some(State::Current));
    }
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
}
