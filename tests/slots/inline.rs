//! Inline producers run on the thread whose commit made them ready; and runs of one batch start and end in one record.

use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use tempfile::TempDir;
use underbelly::{
    Batch, ColumnType, Columns, CommitError, Database, Date, Failure, Options, Outputs, PStatus,
    ProducerDefinition, Run, SlotDefinition, Value,
};

const DAY: Date = Date(20_000);
const PATIENCE: Duration = Duration::from_secs(30);

fn number(n: i64) -> Columns {
    Columns::new().with("n", vec![n].into()).unwrap()
}

fn with_workers(workers: usize) -> (TempDir, Database) {
    let folder = TempDir::new().unwrap();
    let options = Options { workers, ..Options::default() };
    let db = Database::create_with(folder.path().join("db"), options).unwrap();
    for slot in ["A", "B", "C"] {
        let slot = SlotDefinition::new(slot).cell_key("x", ColumnType::I64).value("n", ColumnType::I64);
        db.define_slot(slot).unwrap();
    }
    (folder, db)
}

fn put(keys: impl IntoIterator<Item = i64>, n: i64) -> Batch {
    let mut batch = Batch::new();
    for x in keys {
        batch.put_slot("A", DAY, [x], number(n));
    }
    batch
}

fn shown(db: &Database, slot: &str, x: i64) -> Option<i64> {
    let cell = db.snapshot().slot(slot, DAY, [x]).unwrap();
    cell.and_then(|cell| cell.rows.i64s("n").map(|n| n[0]))
}

/// One more than the one input.
fn next(run: &Run, input: &str, output: &str) -> Result<Outputs, Failure> {
    let n = run.input(input)?.i64s("n").map_or(0, |n| n[0]);
    Ok(Outputs::new().put(output, number(n + 1)))
}

type Threads = Arc<Mutex<Vec<ThreadId>>>;

fn chain(db: &Database) -> Threads {
    let threads = Threads::default();
    for (name, input, output) in [("b", "A", "B"), ("c", "B", "C")] {
        let seen = threads.clone();
        let definition = ProducerDefinition::new(name).requires(input).provides(output);
        db.register_inline(definition, move |run| {
            seen.lock().unwrap().push(thread::current().id());
            next(run, input, output)
        })
        .unwrap();
    }
    threads
}

#[test]
fn inline_producers_have_run_when_the_commit_returns() {
    for workers in [0, 2] {
        let (_folder, db) = with_workers(workers);
        let threads = chain(&db);
        db.commit(put(0..3, 5)).unwrap();
        for x in 0..3 {
            assert_eq!((shown(&db, "B", x), shown(&db, "C", x)), (Some(6), Some(7)), "{workers} workers");
        }
        let here = thread::current().id();
        assert_eq!(*threads.lock().unwrap(), [here; 6], "{workers} workers");
        assert_eq!(db.durable_seq(), db.head_seq(), "what they gave is durable");
        db.transact(|tx| -> Result<(), CommitError> {
            tx.put_slot("A", DAY, [7], number(1));
            Ok(())
        })
        .unwrap();
        assert_eq!(shown(&db, "C", 7), Some(3));
        db.close().unwrap();
    }
}

#[test]
fn an_inline_producer_that_fails_leaves_the_commit_as_it_is() {
    let (_folder, db) = with_workers(0);
    let definition = ProducerDefinition::new("b").requires("A").provides("B");
    db.register_inline(definition, |run| match run.key("x") {
        Some(Value::I64(0)) => Err(Failure::fatal("not that one")),
        Some(Value::I64(1)) => panic!("nor this"),
        _ => next(run, "A", "B"),
    })
    .unwrap();
    db.commit(put(0..3, 5)).unwrap();
    assert_eq!([0, 1, 2].map(|x| shown(&db, "B", x)), [None, None, Some(6)]);
    assert_eq!([0, 1, 2].map(|x| shown(&db, "A", x)), [Some(5); 3]);
    db.commit(put([2], 8)).unwrap();
    assert_eq!(shown(&db, "B", 2), Some(9), "it goes on");
}

#[test]
fn what_no_commit_of_a_caller_brings_is_done_by_the_workers() {
    let (folder, db) = with_workers(0);
    let definition = || ProducerDefinition::new("b").requires("A").provides("B");
    db.commit(put([0], 1)).unwrap();
    db.close().unwrap();
    let options = Options { workers: 1, ..Options::default() };
    let db = Database::open_with(folder.path().join("db"), options).unwrap();
    // Ready as soon as there is a closure, and nobody has committed.
    db.register_inline(definition(), |run| next(run, "A", "B")).unwrap();
    assert!(db.wait_idle(PATIENCE));
    assert_eq!(shown(&db, "B", 0), Some(2));
    // What a closure commits itself is nobody's own commit either.
    let (inner, threads) = (db.clone(), Threads::default());
    let seen = threads.clone();
    let outer = ProducerDefinition::new("c").requires("B").provides("C");
    db.register(outer, move |run| {
        if run.key("x") == Some(&Value::I64(1)) {
            seen.lock().unwrap().push(thread::current().id());
            inner.commit(put([2], 10)).map_err(|error| Failure::fatal(error.to_string()))?;
        }
        next(run, "B", "C")
    })
    .unwrap();
    db.commit(put([1], 4)).unwrap();
    assert!(db.wait_idle(PATIENCE));
    assert_eq!([1, 2].map(|x| shown(&db, "C", x)), [Some(6), Some(12)]);
    assert_ne!(threads.lock().unwrap()[0], thread::current().id());
    db.close().unwrap();
}

#[test]
fn a_producer_may_be_inline_today_and_not_tomorrow() {
    let (_folder, db) = with_workers(0);
    let definition = || ProducerDefinition::new("b").requires("A").provides("B");
    db.register_inline(definition(), |run| next(run, "A", "B")).unwrap();
    db.commit(put([0], 1)).unwrap();
    assert_eq!(shown(&db, "B", 0), Some(2));
    db.register(definition(), |run| next(run, "A", "B")).unwrap();
    db.commit(put([0], 2)).unwrap();
    assert_eq!(shown(&db, "B", 0), Some(2), "it waits for somebody who drives");
    assert_eq!(db.run_ready().unwrap(), 1);
    assert_eq!(shown(&db, "B", 0), Some(3));
}

#[test]
fn a_batch_starts_and_ends_in_one_record_each() {
    let (folder, db) = with_workers(0);
    let definition = ProducerDefinition::new("b").requires("A").provides("B").max_batch(16);
    let odd = |run: &Run| matches!(run.key("x"), Some(Value::I64(x)) if x % 2 == 1);
    db.register_batch(definition, move |runs| {
        let answer = |run: &Run| match odd(run) {
            true => Err(Failure::declined("odd")),
            false => next(run, "A", "B"),
        };
        Ok(runs.iter().map(answer).collect())
    })
    .unwrap();
    let before = db.head_seq();
    db.commit(put((0..20).map(|x| 2 * x), 5)).unwrap();
    assert_eq!(db.run_ready().unwrap(), 20);
    assert_eq!(db.head_seq(), before + 5, "a commit, and twice a start and an end");
    assert!((0..20).all(|x| shown(&db, "B", 2 * x) == Some(6)));
    let before = db.head_seq();
    db.commit(put(0..4, 7)).unwrap();
    assert_eq!(db.run_ready().unwrap(), 4);
    assert_eq!(db.head_seq(), before + 5, "a commit, a start, an end of two, and those that declined");
    let history = db.runs(None, 100).unwrap();
    assert_eq!(history.len(), 24);
    let head = db.head_seq();
    drop(db);
    let again = Database::open(folder.path().join("db")).unwrap();
    assert!(again.head_seq() >= head);
    assert_eq!([0, 1, 2, 3].map(|x| shown(&again, "B", x)), [Some(8), None, Some(8), None]);
    let work: Vec<PStatus> = again.producer_table("b").unwrap().map(|row| row.status).collect();
    assert_eq!(work.len(), 22);
    assert!(work.iter().all(|status| matches!(status, PStatus::Done | PStatus::Declined)), "{work:?}");
}

#[test]
fn an_inline_producer_that_gathers_runs_its_whole_batch() {
    let (_folder, db) = with_workers(0);
    let wait = Duration::from_secs(3600);
    let definition =
        ProducerDefinition::new("b").requires("A").provides("B").max_batch(8).independent(3, wait);
    db.register_inline(definition, |run| next(run, "A", "B")).unwrap();
    db.commit(put(0..3, 5)).unwrap();
    assert_eq!([0, 1, 2].map(|x| shown(&db, "B", x)), [Some(6); 3]);
    db.commit(put(0..2, 7)).unwrap();
    assert_eq!(shown(&db, "B", 0), Some(6), "two are too few");
}

#[test]
fn a_caller_does_what_its_own_commit_made_ready_and_nothing_newer() {
    let (_folder, db) = with_workers(0);
    let inner = db.clone();
    let definition = ProducerDefinition::new("b").requires("A").provides("B");
    db.register_inline(definition, move |run| {
        if let Some(Value::I64(x @ ..50)) = run.key("x") {
            inner.commit(put([x + 1], 5)).map_err(|error| Failure::fatal(error.to_string()))?;
        }
        next(run, "A", "B")
    })
    .unwrap();
    db.commit(put([0], 5)).unwrap();
    assert_eq!([0, 1].map(|x| shown(&db, "B", x)), [Some(6), None]);
    assert_eq!(db.run_ready().unwrap(), 50);
    assert_eq!(shown(&db, "B", 50), Some(6));
    db.close().unwrap();
}

#[test]
fn one_run_that_cannot_be_ended_leaves_the_others_together() {
    let (_folder, db) = with_workers(0);
    let inner = db.clone();
    let definition = ProducerDefinition::new("b").requires("A").provides("B").max_batch(16);
    db.register(definition, move |run| match run.key("x") {
        Some(Value::I64(1)) => {
            Ok(Outputs::new().put("B", Columns::new().with("m", vec![1i64].into()).unwrap()))
        }
        Some(Value::I64(5)) => {
            inner.cancel("b", DAY, [4i64], "no more").map_err(|error| Failure::fatal(error.to_string()))?;
            next(run, "A", "B")
        }
        _ => next(run, "A", "B"),
    })
    .unwrap();
    let before = db.head_seq();
    db.commit(put(0..6, 5)).unwrap();
    db.run_ready().unwrap();
    assert_eq!(
        db.head_seq(),
        before + 5,
        "a commit, a start, a cancellation, an end of four, and one that failed"
    );
    assert_eq!(
        [0, 1, 2, 3, 4, 5].map(|x| shown(&db, "B", x)),
        [Some(6), None, Some(6), Some(6), None, Some(6)]
    );
    db.close().unwrap();
}

#[test]
fn inline_work_may_use_the_session_that_made_it() {
    let (_folder, db) = with_workers(0);
    let daemon = ProducerDefinition::daemon("source").provides("A").provides("C");
    let session = Arc::new(db.open_session(daemon).unwrap());
    let own = session.clone();
    db.register_inline(ProducerDefinition::new("follow").requires("A").provides("B"), move |run| {
        let last = own.last_sequence().unwrap_or_default();
        let mut batch = Batch::new();
        batch.put_slot("C", DAY, [1], number(last as i64));
        own.commit(batch).map_err(|error| Failure::fatal(error.to_string()))?;
        Ok(Outputs::new().put("B", run.input("A")?))
    })
    .unwrap();
    session.commit(put([1], 7)).unwrap();
    assert_eq!((shown(&db, "B", 1), shown(&db, "C", 1)), (Some(7), Some(1)));
    assert_eq!(session.last_sequence(), Some(2));
    session.commit_once(9, put([1], 8)).unwrap();
    assert_eq!((shown(&db, "B", 1), shown(&db, "C", 1)), (Some(8), Some(9)));
    assert_eq!(session.last_sequence(), Some(10));
    db.close().unwrap();
}

/// What a closure holds may do anything when it is dropped.
#[test]
fn a_closure_that_is_replaced_may_register_another_as_it_goes() {
    struct Heir(Database);
    impl Drop for Heir {
        fn drop(&mut self) {
            let definition = ProducerDefinition::new("heir").requires("A").provides("C");
            self.0.register(definition, |run| Ok(Outputs::new().put("C", run.input("A")?))).unwrap();
        }
    }
    let (_folder, db) = with_workers(0);
    let definition = ProducerDefinition::new("copy").requires("A").provides("B");
    let heir = Heir(db.clone());
    let copy = move |run: &Run| {
        let _ = &heir;
        Ok(Outputs::new().put("B", run.input("A")?))
    };
    db.register(definition.clone(), copy).unwrap();
    db.register(definition, |run| Ok(Outputs::new().put("B", run.input("A")?))).unwrap();
    db.commit(put([1], 5)).unwrap();
    db.run_ready().unwrap();
    assert_eq!((shown(&db, "B", 1), shown(&db, "C", 1)), (Some(5), Some(5)));
    db.close().unwrap();
}
