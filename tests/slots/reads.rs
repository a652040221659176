//! What runs read beside their inputs, and outputs that rest on some inputs only.

use underbelly::{ColumnType, Failure, Outputs, ProducerDefinition, Run, SlotDefinition, State, When};
use underbelly_tests::{counter_slot, day, in_memory, one, options};

use crate::desk::{Counter, get, number, put, settle, state};

#[test]
fn what_a_run_reads_beside_its_inputs_wakes_it() {
    let (disk, db) = in_memory().unwrap();
    for name in ["Ask", "Answer", "Table"] {
        db.define_slot(counter_slot(name)).unwrap();
    }
    let counter = Counter::default();
    let lookup = |counter: Counter| {
        move |run: &Run| -> Result<Outputs, Failure> {
            counter.add();
            let wanted = number(&run.input("Ask")?);
            let found = run.read("Table", run.date(), [format!("row{wanted}")])?;
            let rest = run.scan("Table", run.date(), Vec::<(&str, &str)>::new())?.len() as i64;
            let n = found.map_or(-1, |cell| number(&cell.rows));
            Ok(Outputs::new().put("Answer", one("n", 100 * n + rest)?))
        }
    };
    let definition = || ProducerDefinition::new("lookup").requires("Ask").provides("Answer");
    db.register(definition(), lookup(counter.clone())).unwrap();
    put(&db, "Ask", "x", 7);
    settle(&db);
    assert_eq!((get(&db, "Answer", "x"), counter.take()), (Some(-100), 1), "there is no row 7");
    put(&db, "Table", "row7", 3);
    settle(&db);
    assert_eq!((get(&db, "Answer", "x"), counter.take()), (Some(301), 1));
    put(&db, "Table", "row7", 3);
    settle(&db);
    assert_eq!(counter.take(), 0, "equal contents wake nobody");
    drop(db);

    let db = underbelly::Database::open_on(std::sync::Arc::new(disk.crash()), options()).unwrap();
    db.register(definition(), lookup(counter.clone())).unwrap();
    settle(&db);
    assert_eq!(counter.take(), 0, "what was read is still known");
    put(&db, "Table", "row8", 1);
    settle(&db);
    assert_eq!((get(&db, "Answer", "x"), counter.take()), (Some(302), 1), "the scan sees it come");
    let tree = db.upstream("Answer", day(), ["x"], Default::default()).unwrap().unwrap();
    assert_eq!(tree.children.len(), 3, "the input, row 7 and row 8");
    assert!(db.verify(|_, _| ()).unwrap().damages.is_empty());
}

#[test]
fn a_run_that_reads_what_is_made_of_its_outputs_fails_with_the_way() {
    let (_, db) = in_memory().unwrap();
    for name in ["A", "B", "C"] {
        db.define_slot(counter_slot(name)).unwrap();
    }
    db.register(ProducerDefinition::new("back").requires("A").provides("B"), |run: &Run| {
        let before = run.read("C", run.date(), ["x"])?.map_or(0, |cell| number(&cell.rows));
        Ok(Outputs::new().put("B", one("n", number(&run.input("A")?) + before)?))
    })
    .unwrap();
    db.register(ProducerDefinition::new("on").requires("B").provides("C"), |run: &Run| {
        Ok(Outputs::new().put("C", one("n", number(&run.input("B")?))?))
    })
    .unwrap();
    put(&db, "A", "x", 1);
    settle(&db);
    // The first run found no C; the run that would make it closes the circle, and has nothing to show.
    let why = db.why("C", day(), ["x"]).unwrap().to_string();
    let way = format!("C {0} x → B {0} x", day());
    assert!(why.contains("cycle of cells") && why.contains(&way), "{why}");
    assert_eq!(get(&db, "B", "x"), Some(1));
}

#[test]
fn an_output_may_rest_on_some_inputs_of_its_run() {
    let (_, db) = in_memory().unwrap();
    for name in ["A", "B"] {
        db.define_slot(counter_slot(name)).unwrap();
    }
    for name in ["OfA", "OfBoth"] {
        db.define_slot(counter_slot(name)).unwrap();
    }
    let both = ProducerDefinition::new("both").requires("A").requires("B").provides("OfA").provides("OfBoth");
    db.register(both, |run: &Run| {
        let (a, b) = (number(&run.input("A")?), number(&run.input("B")?));
        if b < 0 {
            return Err(Failure::Fatal("no".to_string()));
        }
        let outputs = Outputs::new().put("OfA", one("n", a)?).uses(["A"]);
        Ok(outputs.put("OfBoth", one("n", a + b)?))
    })
    .unwrap();
    put(&db, "A", "x", 1);
    put(&db, "B", "x", 2);
    settle(&db);
    assert_eq!((get(&db, "OfA", "x"), get(&db, "OfBoth", "x")), (Some(1), Some(3)));
    let mut batch = underbelly::Batch::new();
    batch.retract_slot("B", day(), ["x"]);
    db.commit(batch).unwrap();
    settle(&db);
    assert_eq!(state(&db, "OfA", "x"), Some(State::Current), "it does not rest on B");
    assert_eq!(state(&db, "OfBoth", "x"), Some(State::Stale));
}

#[test]
fn a_use_of_no_input_is_a_failed_run_that_says_so() {
    let (_, db) = in_memory().unwrap();
    db.define_slot(counter_slot("A")).unwrap();
    let wide = SlotDefinition::new("Sum").value("n", ColumnType::I64);
    db.define_slot(wide).unwrap();
    let sum = ProducerDefinition::new("sum").requires("A").provides("Sum").group_by::<&str>([], When::Any);
    db.register(sum, |run: &Run| {
        let cells = run.inputs("A")?;
        let newest = &cells[cells.len() - 1];
        match number(&newest.rows()?) {
            1 => Ok(Outputs::new().uses(["A"]).put("Sum", one("n", 1)?)),
            2 => Ok(Outputs::new().put("Sum", one("n", 2)?).uses(["Aa"])),
            n => Ok(Outputs::new().put("Sum", one("n", n)?).uses_cell("A", newest)),
        }
    })
    .unwrap();
    let error = |db: &underbelly::Database| {
        let runs = db.producers();
        let why = db.why_producer("sum", Default::default()).unwrap();
        format!("{} {why:?}", runs.len())
    };
    put(&db, "A", "x", 1);
    settle(&db);
    assert!(error(&db).contains("put the output first"), "{}", error(&db));
    put(&db, "A", "x", 2);
    settle(&db);
    assert!(error(&db).contains("no input of sum"), "{}", error(&db));
    put(&db, "A", "x", 3);
    settle(&db);
    let found = db.snapshot().slot("Sum", day(), [""; 0]).unwrap();
    assert_eq!(found.map(|cell| number(&cell.rows)), Some(3));
}
