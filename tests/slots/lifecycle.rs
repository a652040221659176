//! Producers over openings, closings and drops.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use underbelly::disk::{Calls, Fault, FaultKind};
use underbelly::{
    Batch, CellEdge, ColumnType, CommitError, Database, Extent, Failure, FaultyDisk, NodeKind, Options,
    Outputs, ProducerDefinition, ReadError, Row, Run, SimulatedDisk, SlotDefinition, State, Timestamp,
};
use underbelly_tests::{counter_slot, day, in_memory, one, options};

use crate::desk::{PATIENCE, derive, get, number, put, settle, state};

fn two_slots() -> (underbelly::SimulatedDisk, Database) {
    let (disk, db) = in_memory().unwrap();
    db.define_slot(counter_slot("A")).unwrap();
    db.define_slot(counter_slot("B")).unwrap();
    (disk, db)
}

fn double() -> ProducerDefinition {
    ProducerDefinition::new("double").requires("A").provides("B")
}

fn doubled(run: &Run) -> Result<Outputs, Failure> {
    Ok(Outputs::new().put("B", one("n", 2 * number(&run.input("A")?))?))
}

/// Work that a crash cut off is done after the next registration, and ends where it would have ended.
#[test]
fn work_cut_off_by_a_crash_is_done_after_reopening() {
    let (disk, db) = two_slots();
    let (begun, begins) = channel();
    let (release, released) = channel::<()>();
    let released = Mutex::new(released);
    db.register(double(), move |run| {
        let _ = begun.send(());
        let _ = released.lock().unwrap().recv();
        doubled(run)
    })
    .unwrap();
    put(&db, "A", "x", 1);
    begins.recv_timeout(PATIENCE).unwrap();
    put(&db, "A", "y", 2);
    let crashed = disk.crash();
    drop(release);
    drop(db);
    let db = Database::open_on(Arc::new(crashed), options()).unwrap();
    assert_eq!(get(&db, "B", "x"), None);
    db.register(double(), doubled).unwrap();
    settle(&db);
    assert_eq!((get(&db, "B", "x"), get(&db, "B", "y")), (Some(2), Some(4)));
    assert_eq!(state(&db, "A", "x"), Some(State::Current));
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
}

/// Closing while a run is in flight lets it end; what it could not commit is done after reopening.
#[test]
fn closing_waits_for_runs_in_flight() {
    let (disk, db) = two_slots();
    let (begun, begins) = channel();
    let (release, released) = channel::<()>();
    let released = Mutex::new(released);
    db.register(double(), move |run| {
        let _ = begun.send(());
        let _ = released.lock().unwrap().recv();
        doubled(run)
    })
    .unwrap();
    for i in 0..6 {
        put(&db, "A", &format!("k{i}"), i);
    }
    begins.recv_timeout(PATIENCE).unwrap();
    let closer = std::thread::spawn(move || db.close());
    drop(release);
    closer.join().unwrap().unwrap();
    let db = Database::open_on(Arc::new(disk), options()).unwrap();
    db.register(double(), doubled).unwrap();
    settle(&db);
    for i in 0..6 {
        assert_eq!(get(&db, "B", &format!("k{i}")), Some(2 * i));
    }
}

/// The last handle may be dropped by a closure: its own thread is not waited for, and the folder is free.
#[test]
fn a_closure_may_drop_the_last_handle() {
    let (disk, db) = two_slots();
    let kept = Arc::new(Mutex::new(None));
    let (dropped, drops) = channel();
    let inside = kept.clone();
    let (go, may_go) = channel::<()>();
    let may_go = Mutex::new(may_go);
    db.register(double(), move |run| {
        let _ = may_go.lock().unwrap().recv();
        let last: Option<Database> = inside.lock().unwrap().take();
        drop(last);
        let _ = dropped.send(());
        doubled(run)
    })
    .unwrap();
    put(&db, "A", "x", 1);
    *kept.lock().unwrap() = Some(db.clone());
    drop(db);
    drop(go);
    drops.recv_timeout(PATIENCE).unwrap();
    let db = Database::open_on(Arc::new(disk), options()).unwrap();
    db.register(double(), doubled).unwrap();
    settle(&db);
    assert_eq!(get(&db, "B", "x"), Some(2));
}

/// A closure may close the database through a clone; its own run answers that it is closed.
#[test]
fn a_closure_may_close_the_database() {
    let (disk, db) = two_slots();
    let (closed, closes) = channel();
    let clone = db.clone();
    db.register(double(), move |run| {
        let _ = closed.send(clone.clone().close().map(|_| ()));
        doubled(run)
    })
    .unwrap();
    put(&db, "A", "x", 1);
    closes.recv_timeout(PATIENCE).unwrap().unwrap();
    let mut batch = underbelly::Batch::new();
    batch.append(Row::new("s", Timestamp(0))).unwrap();
    assert!(matches!(db.commit(batch), Err(CommitError::Closed)));
    drop(db);
    let db = Database::open_on(Arc::new(disk), options()).unwrap();
    db.register(double(), doubled).unwrap();
    settle(&db);
    assert_eq!(get(&db, "B", "x"), Some(2));
}

/// Who waits for all work to be done hears of a log that fails meanwhile.
#[test]
fn a_log_that_fails_ends_the_wait_for_idleness() {
    let disk = FaultyDisk::new(SimulatedDisk::new());
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    ["A", "B"].iter().for_each(|name| db.define_slot(counter_slot(name)).unwrap());
    let (go, goes) = channel::<()>();
    let (began, begins) = channel();
    let goes = Mutex::new(goes);
    db.register(double(), move |run| {
        let _ = began.send(());
        let _ = goes.lock().unwrap().recv();
        doubled(run)
    })
    .unwrap();
    put(&db, "A", "x", 1);
    begins.recv_timeout(PATIENCE).unwrap();
    let (ended, ends) = channel();
    let waiting = db.clone();
    std::thread::spawn(move || ended.send(waiting.wait_idle(Duration::MAX)));
    // Long enough for it to wait.
    std::thread::sleep(Duration::from_millis(100));
    disk.order(Some(Fault { calls: Calls::Changing, after: 0, kind: FaultKind::Io, sticky: true }));
    let mut batch = underbelly::Batch::new();
    batch.append(Row::new("s", Timestamp(0))).unwrap();
    db.commit(batch).unwrap_err();
    assert!(!ends.recv_timeout(PATIENCE).expect("nobody else would wake it"));
    drop(go);
}

/// A closure that holds a clone of its database does not keep it open after it was closed.
#[test]
fn closing_frees_the_closures() {
    let (_, db) = two_slots();
    let alive = Arc::new(());
    let (clone, witness) = (db.clone(), alive.clone());
    db.register(double(), move |run| {
        let _ = (&clone, &witness);
        doubled(run)
    })
    .unwrap();
    db.close().unwrap();
    assert_eq!(Arc::strong_count(&alive), 1, "the closure is still held");
}

/// A closure may commit, read and make checkpoints through a clone of its database, on every worker at once.
#[test]
fn a_closure_may_use_the_database() {
    let (_, db) = two_slots();
    let clone = db.clone();
    db.register(double(), move |run| {
        let n = number(&run.input("A")?);
        let mut batch = underbelly::Batch::new();
        batch.append(Row::new("audit", Timestamp(n)).field("n", n))?;
        clone.commit(batch)?;
        clone.transact(|tx| {
            let rows = tx.snapshot().series("audit")?.count()? as i64;
            tx.append(Row::new("counts", Timestamp(n)).field("rows", rows))
        })?;
        if n % 4 == 0 {
            clone.checkpoint()?;
        }
        doubled(run)
    })
    .unwrap();
    for i in 0..16 {
        put(&db, "A", &format!("k{i}"), i);
    }
    settle(&db);
    assert!(db.runs(None, 100).unwrap().iter().all(|run| run.outcome == "completed"));
    assert_eq!(db.snapshot().series("audit").unwrap().count().unwrap(), 16);
    assert_eq!(db.snapshot().series("counts").unwrap().count().unwrap(), 16);
    assert_eq!(get(&db, "B", "k15"), Some(30));
    db.close().unwrap();
}

/// Registering again replaces the closure; another definition of the same name is refused and changes nothing.
#[test]
fn registering_again_replaces_the_closure() {
    let (_, db) = two_slots();
    db.register(double(), |_| Err(Failure::fatal("not this one"))).unwrap();
    db.register(double(), doubled).unwrap();
    assert!(db.register(double().requires("B"), |_| Err(Failure::fatal("nor this one"))).is_err());
    assert!(db.register(ProducerDefinition::new("loop").requires("B").provides("A"), doubled).is_err());
    put(&db, "A", "x", 3);
    settle(&db);
    assert_eq!(get(&db, "B", "x"), Some(6));
}

/// Explanations end in what a client did, and follow a cell from its source to its end.
#[test]
fn explanations_and_lineage_name_the_root() {
    let (_, db) = two_slots();
    db.define_slot(counter_slot("C")).unwrap();
    db.register(double(), doubled).unwrap();
    derive(&db, "c", "B", "C", Ok);
    let commit = put(&db, "A", "x", 3);
    settle(&db);
    let why = db.why("C", day(), ["x"]).unwrap().to_string();
    for part in ["A", "B", "C", "double", "client", &commit.seq.to_string()] {
        assert!(why.contains(part), "{part} is not in\n{why}");
    }
    let up = db.upstream("C", day(), ["x"], Extent::default()).unwrap().unwrap();
    assert_eq!((&*up.slot, &*up.children[0].slot, &*up.children[0].children[0].slot), ("C", "B", "A"));
    let down = db.downstream("A", day(), ["x"], Extent::default()).unwrap().unwrap();
    assert_eq!((&*down.children[0].slot, down.children[0].producer.as_deref()), ("B", Some("double")));
    let never = db.why("C", day(), ["nothing"]).unwrap().to_string();
    assert!(never.contains("never made"), "{never}");
    let graph = db.graph_view();
    assert_eq!(graph.edges.len(), 4);
    let NodeKind::Slot(first) = &graph.nodes[0].kind else { panic!("{:?} is no slot", graph.nodes[0]) };
    assert!(
        first.states.total() > 0
            && first.oldest_change.is_some()
            && first.oldest_change <= first.newest_change
    );
    let cells = db.cell_graph(None, None).unwrap();
    let place = |slot: &str| {
        let found =
            cells.cells.iter().position(|cell| cells.slots[cell.slot] == slot && cell.key.to_string() == "x");
        found.unwrap()
    };
    let (a, b) = (place("A"), place("B"));
    assert!(cells.edges.contains(&CellEdge::new(a, b, "double")), "{:?}", cells.edges);
    assert!(cells.edges.iter().all(|edge| cells.cells[edge.from].slot < cells.cells[edge.to].slot));
    let one = db.cell_graph(Some("B"), Some(day().into())).unwrap();
    assert!(db.cell_graph(Some("B"), Some(underbelly::Date(1).into())).unwrap().cells.is_empty());
    assert!(matches!(db.cell_graph(Some("Z"), None), Err(ReadError::UnknownSlot { .. })));
    assert!(one.slots == ["B"] && one.edges.is_empty() && !one.cells.is_empty());
}

/// What would take long to draw, and be of no use, is refused before it is made: cells, and edges where each output of a group is
/// made of all its inputs.
#[test]
fn a_drawing_of_too_much_is_refused() {
    const OUTPUTS: usize = 25;
    let disk = Arc::new(underbelly::SimulatedDisk::new());
    let options = Options { log_file_bytes: 16 << 20, ..options() };
    let db = Database::create_on(disk, options).unwrap();
    for slot in ["A", "C"] {
        db.define_slot(counter_slot(slot)).unwrap();
    }
    let outputs: Vec<String> = (0..OUTPUTS).map(|at| format!("out{at}")).collect();
    let mut group = ProducerDefinition::new("group").requires("A").group_by_date();
    for output in &outputs {
        db.define_slot(SlotDefinition::new(output).value("n", ColumnType::I64)).unwrap();
        group = group.provides(output);
    }
    db.register(group, move |_: &Run| {
        outputs.iter().try_fold(Outputs::new(), |made, output| Ok(made.put(output, one("n", 1)?)))
    })
    .unwrap();
    let fill = |slot: &str, cells: usize| {
        let mut batch = Batch::new();
        for cell in 0..cells {
            batch.put_slot(slot, day(), [format!("{cell}")], one("n", 1).unwrap());
        }
        batch.end_of(day());
        db.commit(batch).unwrap();
        settle(&db);
    };
    fill("A", 7_999);
    let view = db.cell_graph(None, None).unwrap();
    assert_eq!((view.cells.len(), view.edges.len()), (7_999 + OUTPUTS, 7_999 * OUTPUTS));
    fill("A", 8_001);
    let refused = db.cell_graph(None, None).unwrap_err();
    assert!(matches!(refused, ReadError::TooMany { what: "edges", .. }), "{refused}");
    assert_eq!(db.cell_graph(Some("A"), None).unwrap().cells.len(), 8_001);
    fill("C", 20_001);
    let refused = db.cell_graph(Some("C"), Some(day().into())).unwrap_err();
    assert!(
        matches!(refused, ReadError::TooMany { what: "cells", found: 20_001, limit: 20_000 }),
        "{refused}"
    );
}
