//! Inputs of every kind, as a run finds them.

use underbelly::{
    Batch, ColumnType, Database, Date, Failure, Filter, Input, Outputs, ProducerDefinition, Run,
    SlotDefinition, State, When,
};
use underbelly_tests::{day, in_memory, one, options};

use crate::desk::{get, number, put, settle, state};

fn put_on(db: &Database, slot: &str, date: Date, name: &str, n: i64) {
    let mut batch = Batch::new();
    batch.put_slot(slot, date, [name], one("n", n).unwrap());
    db.commit(batch).unwrap();
}

fn value_on(db: &Database, slot: &str, date: Date, name: &str) -> Option<i64> {
    db.snapshot().slot(slot, date, [name]).unwrap().map(|cell| number(&cell.rows))
}

fn define(db: &Database, names: &[&str]) {
    for name in names {
        db.define_slot(underbelly_tests::counter_slot(name)).unwrap();
    }
}

#[test]
fn inputs_by_alias_lag_and_filter_reach_the_run() {
    let (disk, db) = in_memory().unwrap();
    define(&db, &["Price", "Holiday", "Move"]);
    let moves = ProducerDefinition::new("moves")
        .input(Input::required("Price").filter(Filter::differs("name", "index")))
        .input(Input::optional("Price").alias("before").lag(1))
        .input(Input::exclusive("Holiday"))
        .provides("Move");
    let closure = |run: &Run| -> Result<Outputs, Failure> {
        let now = number(&run.input("Price")?);
        let before = run.optional("before")?.map_or(now, |rows| number(&rows));
        assert!(run.optional("Holiday")?.is_none(), "an exclusive input is never there");
        assert!(run.optional("Prize").unwrap_err().to_string().contains("before"), "inputs are named");
        Ok(Outputs::new().put("Move", one("n", now - before)?))
    };
    db.register(moves.clone(), closure).unwrap();
    let next = Date(day().0 + 1);
    put_on(&db, "Price", next, "x", 17);
    settle(&db);
    assert_eq!(value_on(&db, "Move", next, "x"), Some(0), "nothing was there before");
    put(&db, "Price", "x", 10);
    put(&db, "Price", "index", 10);
    settle(&db);
    assert_eq!((value_on(&db, "Move", next, "x"), get(&db, "Move", "x")), (Some(7), Some(0)));
    assert_eq!(get(&db, "Move", "index"), None);

    put_on(&db, "Holiday", next, "x", 1);
    put_on(&db, "Price", next, "x", 30);
    settle(&db);
    assert_eq!(value_on(&db, "Move", next, "x"), Some(7), "it is stale, and stays readable");
    let why = db.why("Move", next, ["x"]).unwrap().to_string();
    assert!(why.contains("exclusive input Holiday"), "{why}");
    drop(db);

    let db = Database::open_on(std::sync::Arc::new(disk.crash()), options()).unwrap();
    db.register(moves, closure).unwrap();
    let mut batch = Batch::new();
    batch.retract_slot("Holiday", next, ["x"]);
    db.commit(batch).unwrap();
    settle(&db);
    assert_eq!(value_on(&db, "Move", next, "x"), Some(20));
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
}

#[test]
fn a_group_by_columns_runs_for_each_of_their_values() {
    let (_, db) = in_memory().unwrap();
    let slot = |name: &str, keys: &[&str]| {
        let keys =
            keys.iter().fold(SlotDefinition::new(name), |slot, key| slot.cell_key(*key, ColumnType::Utf8));
        db.define_slot(keys.value("n", ColumnType::I64)).unwrap();
    };
    slot("Vol", &["expiry", "strike"]);
    slot("Smile", &["expiry"]);
    let fit =
        ProducerDefinition::new("fit").requires("Vol").provides("Smile").group_by(["expiry"], When::Any);
    db.register(fit, |run: &Run| {
        let cells = run.inputs("Vol")?;
        let sum: i64 =
            cells.iter().map(|cell| cell.rows().map(|rows| number(&rows))).sum::<Result<i64, _>>()?;
        Ok(Outputs::new().put("Smile", one("n", sum)?))
    })
    .unwrap();
    let mut batch = Batch::new();
    for (expiry, strike, n) in [("may", "90", 1), ("may", "110", 2), ("june", "90", 4)] {
        batch.put_slot("Vol", day(), [expiry, strike], one("n", n).unwrap());
    }
    db.commit(batch).unwrap();
    settle(&db);
    assert_eq!((get(&db, "Smile", "may"), get(&db, "Smile", "june")), (Some(3), Some(4)));
    let mut batch = Batch::new();
    batch.retract_slot("Vol", day(), ["may", "90"]);
    batch.put_slot("Vol", day(), ["june", "100"], one("n", 8).unwrap());
    db.commit(batch).unwrap();
    settle(&db);
    assert_eq!((get(&db, "Smile", "may"), get(&db, "Smile", "june")), (Some(2), Some(12)));
    assert_eq!(state(&db, "Smile", "may"), Some(State::Current));
}
