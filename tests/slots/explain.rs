//! What a commit would do, told without doing it.

use std::sync::Arc;

use underbelly::{
    Batch, CommitError, Database, ForeseenWork, GraphError, Outputs, ProducerDefinition, Run, State,
};
use underbelly_tests::{counter_slot, day, in_memory, one, options};

use crate::desk::{Counter, derive, get, number, put, settle};

#[test]
fn a_commit_is_explained_and_not_made() {
    let (_, db) = in_memory().unwrap();
    for name in ["A", "B", "C", "D"] {
        db.define_slot(counter_slot(name)).unwrap();
    }
    let counters: [Counter; 2] =
        [derive(&db, "ab", "A", "B", |n| Ok(n / 2)), derive(&db, "bc", "B", "C", |n| Ok(n + 1))];
    put(&db, "A", "x", 2);
    settle(&db);
    counters.iter().for_each(|counter| assert_eq!(counter.take(), 1));
    // It has no output yet.
    db.register(ProducerDefinition::new("cd").requires("C").provides("D"), |run: &Run| {
        match number(&run.input("C")?) {
            0..5 => Err(underbelly::Failure::Declined("small".to_string())),
            n => Ok(Outputs::new().put("D", one("n", n)?)),
        }
    })
    .unwrap();
    settle(&db);

    let mut batch = Batch::new();
    batch.put_slot("A", day(), ["x"], one("n", 3).unwrap());
    batch.put_slot("A", day(), ["y"], one("n", 3).unwrap());
    let before = (db.visible_seq(), db.slot_table(None).unwrap().count());
    let explained = db.explain_commit(&batch).unwrap();
    assert_eq!((db.visible_seq(), db.slot_table(None).unwrap().count()), before);
    assert!(db.wait_idle(std::time::Duration::ZERO), "nobody was woken");
    let cells: Vec<_> = explained
        .cells
        .iter()
        .map(|cell| (cell.slot.as_str(), cell.key.to_string(), cell.from, cell.to, cell.changed))
        .collect();
    let x = || "x".to_string();
    let expected = [
        ("A", x(), Some(State::Current), State::Pending, true),
        ("B", x(), Some(State::Current), State::Stale, false),
        ("C", x(), Some(State::Current), State::Stale, false),
        ("A", "y".to_string(), None, State::Pending, true),
    ];
    assert_eq!(cells, expected);
    let runs: Vec<_> =
        explained.runs.iter().map(|run| (run.producer.as_str(), run.key.to_string())).collect();
    assert_eq!(runs, [("ab", x()), ("ab", "y".to_string())]);
    let behind: Vec<_> = explained.may_run.iter().map(|run| run.producer.as_str()).collect();
    assert_eq!(behind, ["bc", "cd"]);
    assert!(explained.may_get_work.is_empty(), "what is behind has bundles already");

    let commit = db.commit(batch).unwrap();
    assert_eq!(commit.woken, explained.runs.len(), "it was right");
    settle(&db);
    assert_eq!(counters.iter().map(Counter::take).collect::<Vec<_>>(), [2, 1], "B x came out equal");
    assert_eq!(get(&db, "C", "y"), Some(2));
}

/// As a shell finds a database: nobody has attached the producers.
#[test]
fn work_of_detached_producers_is_foreseen() {
    let (disk, db) = in_memory().unwrap();
    for name in ["A", "B", "C"] {
        db.define_slot(counter_slot(name)).unwrap();
    }
    let attach = |db: &Database| -> [Counter; 2] {
        [derive(db, "ab", "A", "B", |n| Ok(n / 2)), derive(db, "bc", "B", "C", |n| Ok(n + 1))]
    };
    attach(&db);
    put(&db, "A", "x", 2);
    settle(&db);
    db.close().unwrap();
    let db = Database::open_on(Arc::new(disk), options()).unwrap();

    let mut batch = Batch::new();
    batch.put_slot("A", day(), ["x"], one("n", 8).unwrap());
    batch.put_slot("A", day(), ["y"], one("n", 8).unwrap());
    let work = |work: &[ForeseenWork]| -> Vec<_> {
        work.iter().map(|work| (work.producer.clone(), work.key.to_string())).collect()
    };
    let named = |works: &[(&str, &str)]| -> Vec<_> {
        works.iter().map(|(producer, key)| (producer.to_string(), key.to_string())).collect()
    };
    let explained = db.explain_commit(&batch).unwrap();
    assert_eq!(work(&explained.runs), named(&[("ab", "x"), ("ab", "y")]));
    assert_eq!(work(&explained.may_run), named(&[("bc", "x")]));
    let states: Vec<_> =
        explained.cells.iter().map(|cell| (cell.slot.as_str(), cell.from, cell.to)).collect();
    let expected = [
        ("A", Some(State::Current), State::Updated),
        ("B", Some(State::Current), State::Stale),
        ("C", Some(State::Current), State::Stale),
        ("A", None, State::Updated),
    ];
    assert_eq!(states, expected, "as long as nobody attaches them");

    assert_eq!(db.commit(batch).unwrap().woken, 0);
    let table = |db: &Database| -> Vec<_> {
        db.slot_table(None).unwrap().map(|row| (row.slot, row.key, row.state)).collect()
    };
    let of_cells: Vec<_> = explained.cells.into_iter().map(|cell| (cell.slot, cell.key, cell.to)).collect();
    assert!(of_cells.iter().all(|cell| table(&db).contains(cell)), "it was right");
    let mut again = Batch::new();
    again.put_slot("A", day(), ["y"], one("n", 9).unwrap());
    let explained = db.explain_commit(&again).unwrap();
    assert_eq!(explained.runs, [], "what is due runs anyway");
    assert_eq!(work(&explained.may_run), named(&[("ab", "y")]), "and is told as what reads it");
    let counters = attach(&db);
    settle(&db);
    assert_eq!(counters.iter().map(Counter::take).collect::<Vec<_>>(), [2, 2]);
}

/// What reads a changed cell and waits for something else is foreseen, too.
#[test]
fn work_that_waits_for_another_input_is_foreseen() {
    let (disk, db) = in_memory().unwrap();
    for name in ["A", "B", "D", "E"] {
        db.define_slot(counter_slot(name)).unwrap();
    }
    derive(&db, "ab", "A", "B", |n| Ok(n / 2));
    let join = ProducerDefinition::new("join").requires("B").requires("D").provides("E");
    db.register(join, |run: &Run| {
        let n = number(&run.input("B")?) + number(&run.input("D")?);
        Ok(Outputs::new().put("E", one("n", n)?))
    })
    .unwrap();
    put(&db, "A", "x", 2);
    put(&db, "D", "x", 1);
    settle(&db);
    db.close().unwrap();
    // Nobody is attached, so that what is due stays so.
    let db = Database::open_on(Arc::new(disk), options()).unwrap();
    put(&db, "A", "x", 3);
    let mut batch = Batch::new();
    batch.put_slot("D", day(), ["x"], one("n", 5).unwrap());
    let explained = db.explain_commit(&batch).unwrap();
    let producers: Vec<_> = explained.may_run.iter().map(|work| work.producer.as_str()).collect();
    assert_eq!((explained.runs.len(), producers), (0, vec!["join"]));
}

#[test]
fn a_commit_that_would_be_refused_is_refused() {
    let (_, db) = in_memory().unwrap();
    for name in ["A", "B"] {
        db.define_slot(counter_slot(name)).unwrap();
    }
    let _ = derive(&db, "ab", "A", "B", Ok);
    let explain = |slot: &str, column: &str| {
        let mut batch = Batch::new();
        batch.put_slot(slot, day(), ["x"], one(column, 1).unwrap());
        db.explain_commit(&batch).unwrap_err()
    };
    assert!(matches!(explain("Z", "n"), CommitError::UnknownSlot { .. }));
    assert!(matches!(explain("A", "m"), CommitError::Cell { .. }));
    assert!(matches!(explain("B", "n"), CommitError::Graph(GraphError::PriorityTaken { .. })));
    let mut batch = Batch::new();
    batch.end_of(day());
    assert_eq!(db.explain_commit(&batch).unwrap(), Default::default(), "an end that nobody waits for");
}

#[test]
fn what_a_daemon_would_commit_is_explained_in_its_session() {
    let (_, db) = in_memory().unwrap();
    for name in ["A", "B", "C"] {
        db.define_slot(counter_slot(name)).unwrap();
    }
    let _counter: Counter = derive(&db, "ab", "A", "B", |n| Ok(n / 2));
    let session = db.open_session(ProducerDefinition::daemon("source").provides("A")).unwrap();
    let mut batch = Batch::new();
    batch.put_slot("A", day(), ["x"], one("n", 3).unwrap());
    let explained = session.explain_commit(&batch).unwrap();
    assert_eq!(explained.cells.len(), 1);
    assert_eq!(explained.runs.len(), 1);
    assert_eq!(session.last_sequence(), None);
    assert_eq!(session.commit(batch.clone()).unwrap().woken, 1);
    batch.put_slot("C", day(), ["x"], one("n", 3).unwrap());
    let refused = session.explain_commit(&batch).unwrap_err();
    assert!(matches!(refused, CommitError::Graph(GraphError::NotProvided { .. })), "{refused}");
    session.close().unwrap();
    let over = session.explain_commit(&batch).unwrap_err();
    assert!(matches!(over, CommitError::Graph(GraphError::SessionOver { .. })), "{over}");
}
