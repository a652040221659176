//! The tables that people and programs list: cells, edges, runs in flight, rows of slots, work of producers.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use underbelly::{
    Batch, CellId, Columns, Database, Extent, ManualClock, Mode, Options, Outputs, PStatus,
    ProducerDefinition, ReadError, RunningRow, SimulatedDisk, SlotDefinition, State, Timestamp, WhyKind,
};
use underbelly_tests::{counter_slot, day, in_memory, one};

use crate::desk::*;

fn put_many(db: &Database, slot: &str, names: impl Iterator<Item = usize>, n: i64) {
    let mut batch = Batch::new();
    for name in names {
        batch.put_slot(slot, day(), [format!("{name:05}")], one("n", n).unwrap());
    }
    db.commit(batch).unwrap();
}

/// A database whose log takes large transactions.
fn roomy() -> Database {
    let options = Options { log_file_bytes: 4 << 20, ..underbelly_tests::options() };
    Database::create_on(Arc::new(SimulatedDisk::new()), options).unwrap()
}

#[test]
fn each_table_of_a_chain_shows_its_facts() {
    let (_, db) = in_memory().unwrap();
    db.define_slot(counter_slot("A")).unwrap();
    db.define_slot(counter_slot("B")).unwrap();
    derive(&db, "double", "A", "B", |n| Ok(2 * n));
    put(&db, "A", "x", 3);
    settle(&db);
    put(&db, "A", "x", 4);
    settle(&db);

    let cells: Vec<_> = db.slot_table(None).unwrap().collect();
    let shown: Vec<_> =
        cells.iter().map(|row| (&*row.slot, row.key.to_string(), row.sid, row.generation)).collect();
    assert_eq!(shown, [("A", "x".to_string(), CellId(0), 2), ("B", "x".to_string(), CellId(1), 2)]);
    assert_eq!(cells[1].producer.as_deref(), Some("double"));

    let tree: Vec<_> = db.slot_tree(None).unwrap().collect();
    let [edge] = tree.as_slice() else { panic!("{tree:?}") };
    assert_eq!((edge.source, edge.target, edge.generation), (CellId(0), CellId(1), Some(2)));
    assert_eq!((&*edge.producer, &*edge.input, edge.priority), ("double", "A", 0));
    assert_eq!(db.slot_tree(Some("A")).unwrap().count(), 0, "nothing makes A");

    let work: Vec<_> = db.producer_table("double").unwrap().collect();
    let [row] = work.as_slice() else { panic!("{work:?}") };
    assert_eq!((row.sid, row.pstatus(), row.generation), (CellId(0), "done", 2));
    assert_eq!(db.running().count(), 0);

    let rows: Vec<_> = db.snapshot().slot_cells("B").unwrap().map(Result::unwrap).collect();
    let [cell] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((cell.sid, cell.producer.as_deref(), cell.priority), (CellId(1), Some("double"), Some(0)));
    assert_eq!(cell.rows.i64s("n"), Some(&[8][..]));
    assert!(matches!(db.slot_table(Some("Z")), Err(ReadError::UnknownSlot { .. })));
    assert!(matches!(db.slot_tree(Some("Z")), Err(ReadError::UnknownSlot { .. })));
    assert!(matches!(db.snapshot().slot_cells("Z"), Err(ReadError::UnknownSlot { .. })));
    assert!(matches!(db.producer_table("nobody"), Err(ReadError::UnknownProducer { .. })));
}

/// Tables of several pages hold each row once, whatever is committed while they are read.
#[test]
fn a_table_longer_than_a_page_shows_each_row_once_while_others_commit() {
    const CELLS: usize = 2_500;
    let db = roomy();
    db.define_slot(counter_slot("A")).unwrap();
    db.define_slot(SlotDefinition::new("Sum").value("n", underbelly::ColumnType::I64)).unwrap();
    let sum = ProducerDefinition::new("sum").requires("A").group_by_date().provides("Sum");
    db.register(sum, |run| Ok(Outputs::new().put("Sum", one("n", run.inputs("A")?.len() as i64)?))).unwrap();
    let mut end = Batch::new();
    end.end_of(day());
    put_many(&db, "A", 0..CELLS, 1);
    db.commit(end).unwrap();
    settle(&db);

    let (mut cells, mut edges) = (db.slot_table(None).unwrap(), db.slot_tree(None).unwrap());
    let mut work = db.producer_table("sum").unwrap();
    let (first_cell, first_edge, first_work) = (cells.next(), edges.next(), work.next());
    let before = cells.seq();
    // Every cell changes, and more come, behind those that were listed and before.
    put_many(&db, "A", 0..CELLS + 100, 2);
    settle(&db);
    let sids: Vec<CellId> = first_cell.into_iter().chain(cells.by_ref()).map(|row| row.sid).collect();
    assert_eq!(sids.iter().collect::<BTreeSet<_>>().len(), sids.len(), "each once");
    assert_eq!(sids.len(), CELLS + 100 + 1);
    assert!(cells.seq() > before, "later pages show later commits");
    let edges: Vec<_> = first_edge.into_iter().chain(edges).collect();
    let sources: BTreeSet<CellId> = edges.iter().map(|edge| edge.source).collect();
    assert_eq!((sources.len(), edges.len()), (CELLS + 100, CELLS + 100));
    assert_eq!((edges[0].generation, edges[CELLS].generation), (Some(1), Some(1)));
    assert_eq!(edges[CELLS - 1].generation, Some(2));
    let work: Vec<_> = first_work.into_iter().chain(work).collect();
    assert_eq!(work.len(), CELLS + 100);
    assert!(work.iter().all(|row| row.status == PStatus::Done));
}

/// Rows are those of the snapshot; a slot is found by its table's name, and by a date.
#[test]
fn the_table_of_a_slot_shows_its_snapshot() {
    let db = roomy();
    db.define_slot(counter_slot("Desk.Book")).unwrap();
    put_many(&db, "Desk.Book", 0..1_500, 1);
    let snapshot = db.snapshot();
    put_many(&db, "Desk.Book", 0..1_600, 2);
    let numbers = |cells: underbelly::SlotCells| -> Vec<i64> {
        cells.map(|cell| cell.unwrap().rows.i64s("n").unwrap()[0]).collect()
    };
    assert_eq!(numbers(snapshot.slot_cells("Desk_Book").unwrap()), vec![1; 1_500]);
    assert_eq!(numbers(db.snapshot().slot_cells("Desk.Book").unwrap()), vec![2; 1_600]);
    let mut batch = Batch::new();
    batch.put_slot("Desk.Book", underbelly::Date(9), ["x"], one("n", 7).unwrap());
    batch.retract_slot("Desk.Book", day(), ["00000"]).put_slot("Desk.Book", day(), ["00001"], Columns::new());
    db.commit(batch).unwrap();
    assert_eq!(numbers(db.snapshot().slot_cells("Desk.Book").unwrap().of(underbelly::Date(9))), [7]);
    let of_day: Vec<_> =
        db.snapshot().slot_cells("Desk.Book").unwrap().of(day()).map(Result::unwrap).collect();
    assert_eq!((of_day.len(), of_day[0].rows.rows()), (1_599, 0), "a cell without data has no rows");
}

/// What runs is seen with its start by who asks in the process, and by a reader beside it behind a checkpoint.
#[test]
fn runs_in_flight_are_listed_with_their_start_and_what_they_make() {
    let disk = SimulatedDisk::new();
    let clock = Arc::new(ManualClock::new(Timestamp(5_000)));
    let options = Options { workers: 0, clock: clock.clone(), ..underbelly_tests::options() };
    let db = Arc::new(Database::create_on(Arc::new(disk.clone()), options).unwrap());
    db.define_slot(counter_slot("A")).unwrap();
    db.define_slot(counter_slot("B")).unwrap();
    let seen: Arc<Mutex<Vec<RunningRow>>> = Arc::default();
    let (rows, inside) = (seen.clone(), Arc::downgrade(&db));
    let double = ProducerDefinition::new("double").requires("A").provides("B");
    db.register(double, move |run| {
        let db = inside.upgrade().unwrap();
        let live: Vec<RunningRow> = db.running().collect();
        db.checkpoint().unwrap();
        let reader = Database::open_read_only_with(Arc::new(disk.clone()), 0).unwrap();
        assert_eq!(reader.running().collect::<Vec<_>>(), live);
        let owed: Vec<&str> = db.producer_table("double").unwrap().map(|row| row.pstatus()).collect();
        assert_eq!(owed, ["processing"]);
        if rows.lock().unwrap().len() == 1 {
            put(&db, "A", "x", 7);
            let owed: Vec<_> =
                db.producer_table("double").unwrap().map(|row| (row.pstatus(), row.generation)).collect();
            assert_eq!(owed, [("superseded", 2)], "the run reads what is not there any more");
        }
        rows.lock().unwrap().extend(live);
        Ok(Outputs::new().put("B", run.input("A")?))
    })
    .unwrap();
    put(&db, "A", "x", 1);
    settle(&db);
    clock.set(Timestamp(9_000));
    put(&db, "A", "x", 2);
    settle(&db);
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    let [first, second] = &seen[..2] else { panic!("{seen:?}") };
    let machine = underbelly_tests::options().host.map(|host| host.machine);
    assert!(machine.is_some() && seen.iter().all(|row| row.machine == machine), "{seen:?}");
    assert_eq!((&*first.producer, first.sid, first.key.to_string()), ("double", None, "x".to_string()));
    assert_eq!((second.sid, second.date), (Some(CellId(1)), day().into()));
    assert!(
        second.pid > first.pid
            && first.start_time >= Timestamp(5_000)
            && second.start_time >= Timestamp(9_000)
    );
}

/// A group's cells are shown with the set that it read, and both with what was read of them; each cell is expanded
/// once, and what is left out is counted.
#[test]
fn the_lineage_of_a_group_shows_the_set_and_what_was_read() {
    let (_, db) = in_memory().unwrap();
    for slot in ["A", "B"] {
        db.define_slot(counter_slot(slot)).unwrap();
    }
    db.define_slot(SlotDefinition::new("Sum").value("n", underbelly::ColumnType::I64)).unwrap();
    derive(&db, "double", "A", "B", |n| Ok(2 * n));
    let sum = ProducerDefinition::new("sum").requires("A").requires("B").group_by_date().provides("Sum");
    db.register(sum, |run| Ok(Outputs::new().put("Sum", one("n", run.inputs("A")?.len() as i64)?))).unwrap();
    put_many(&db, "A", 0..3, 1);
    let mut end = Batch::new();
    end.end_of(day());
    db.commit(end).unwrap();
    settle(&db);
    let up = |extent| db.upstream("Sum", day(), [""; 0], extent).unwrap().unwrap();
    let tree = up(Extent::default());
    let kinds: Vec<_> = tree.children.iter().map(|child| (&*child.slot, child.key.is_some())).collect();
    assert_eq!(kinds[..3], [("A", false), ("B", false), ("A", true)]);
    assert_eq!(tree.children.len(), 8, "two sets and three cells of each");
    for child in &tree.children {
        assert_eq!(
            (child.read, &*child.producer.clone().unwrap()),
            (Some(child.generation), "sum"),
            "{child:?}"
        );
        assert_eq!((child.mode, child.input.as_deref()), (Some(Mode::Required), Some(&*child.slot)));
    }
    let of_b = tree.children.iter().find(|child| child.slot == "B" && child.key.is_some()).unwrap();
    assert!(of_b.children[0].repeated && of_b.children[0].children.is_empty(), "{of_b:?}");
    let cut = up(Extent { depth: 1, children: 6 });
    assert_eq!((cut.children.len(), cut.more), (6, 2));
    assert!(cut.children.iter().all(|child| child.children.is_empty()));
    assert_eq!(cut.children.last().map(|child| child.more), Some(1), "a cell of B has one behind it");
}

/// The nodes of an explanation say what they are about, beside their sentences.
#[test]
fn reasons_say_what_they_are_about() {
    let (_, db) = in_memory().unwrap();
    db.define_slot(counter_slot("A")).unwrap();
    db.define_slot(SlotDefinition::new("Sum").value("n", underbelly::ColumnType::I64)).unwrap();
    let sum = ProducerDefinition::new("sum").requires("A").group_by_date().provides("Sum");
    db.register(sum, |run| match run.inputs("A")?.len() {
        1 => Ok(Outputs::new().put("Sum", one("n", 1)?)),
        _ => panic!("no more"),
    })
    .unwrap();
    put(&db, "A", "x", 1);
    let mut end = Batch::new();
    end.end_of(day());
    db.commit(end).unwrap();
    settle(&db);
    let why = db.why_producer("sum", Extent::default()).unwrap();
    assert_eq!(
        (why.kind, why.children.len(), &*why.text),
        (WhyKind::Producer, 0, "producer sum is attached: 1 done")
    );
    put(&db, "A", "y", 1);
    settle(&db);
    let why = db.why("Sum", day(), [""; 0]).unwrap();
    assert_eq!(
        (why.kind, why.state, why.slot.as_deref()),
        (WhyKind::Cell, Some(State::Invalid), Some("Sum"))
    );
    let work = &why.children[0];
    assert_eq!((work.kind, work.status, work.priority), (WhyKind::Work, Some(PStatus::Failed), Some(0)));
    let ended = &work.children[0];
    assert_eq!((ended.kind, ended.seq), (WhyKind::Ended, work.seq));
    assert!(ended.text.contains("no more"), "{why}");
}
