//! Models as cells of a slot: producers require and provide them, and what uses one runs again when it is trained again.

use std::sync::Arc;
use std::time::Duration;

use underbelly::{
    Batch, Column, ColumnType, Columns, CommitError, Database, Date, Extent, Failure, GraphError,
    ManualClock, Metadata, Options, Outputs, Parts, ProducerDefinition, ReadError, Retention, Run,
    SimulatedDisk, SlotDefinition, Snapshot, State, Timestamp,
};
use underbelly_tests::options;

const DAY_NS: i64 = 86_400_000_000_000;
const DAY: Date = Date(100);

fn driven() -> Options {
    Options { workers: 0, ..options() }
}

fn scaler(symbol: &str, day: i64) -> Metadata {
    Metadata::new("scaler").with("symbol", symbol).with("timestamp", Timestamp(day * DAY_NS + 5))
}

fn one(column: &str, value: f64) -> Columns {
    Columns::new().with(column, Column::from(vec![value])).unwrap()
}

/// Prices times what the scaler holds.
fn score(run: &Run) -> Result<Outputs, Failure> {
    let failed = |error: ReadError| Failure::Fatal(error.to_string());
    let by = run.model("scaler").map_err(failed)?;
    let by = f64::from_le_bytes((*by.blob().map_err(failed)?).try_into().unwrap());
    let prices = run.input("prices").map_err(failed)?;
    Ok(Outputs::new().put("scores", one("score", prices.f64s("price").unwrap()[0] * by)))
}

fn define(db: &Database) {
    db.define_slot(SlotDefinition::models("scaler").cell_key("symbol", ColumnType::Utf8)).unwrap();
    for (slot, column) in [("prices", "price"), ("scores", "score")] {
        let slot = SlotDefinition::new(slot).cell_key("symbol", ColumnType::Utf8);
        db.define_slot(slot.value(column, ColumnType::F64)).unwrap();
    }
}

fn with_scores(db: &Database) {
    define(db);
    let producer = ProducerDefinition::new("score").requires("prices").requires("scaler").provides("scores");
    db.register(producer, score).unwrap();
}

fn train(db: &Database, metadata: Metadata, by: f64) -> usize {
    let mut batch = Batch::new();
    batch.put_model(metadata, by.to_le_bytes().to_vec());
    db.commit(batch).unwrap();
    db.run_ready().unwrap()
}

fn price(db: &Database, symbol: &str, price: f64) -> usize {
    let mut batch = Batch::new();
    batch.put_slot("prices", DAY, [symbol], one("price", price));
    db.commit(batch).unwrap();
    db.run_ready().unwrap()
}

fn delete(db: &Database, metadata: &Metadata) -> usize {
    let mut batch = Batch::new();
    batch.delete_model(metadata).unwrap();
    db.commit(batch).unwrap();
    db.run_ready().unwrap()
}

fn score_of(db: &Database, symbol: &str) -> Option<f64> {
    let cell = db.snapshot().slot("scores", DAY, [symbol]).unwrap();
    cell.map(|cell| cell.rows.f64s("score").unwrap()[0])
}

fn state_of(db: &Database, slot: &str, symbol: &str) -> Option<State> {
    let mut rows = db.slot_table(Some(slot)).unwrap();
    rows.find(|row| row.key.to_string().contains(symbol)).map(|row| row.state)
}

/// Retraining wakes what uses a model, of its day and key alone; an equal blob wakes nobody; a deleted model is no input.
#[test]
fn retraining_wakes_what_uses_a_model() {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), driven()).unwrap();
    with_scores(&db);
    assert_eq!(price(&db, "IBM", 10.0), 0, "there is no scaler");
    assert_eq!(train(&db, scaler("IBM", 100), 2.0), 1);
    assert_eq!(score_of(&db, "IBM"), Some(20.0));
    assert_eq!(train(&db, scaler("IBM", 100), 3.0), 1);
    assert_eq!(score_of(&db, "IBM"), Some(30.0));
    // Another version with equal bytes, another day, another key.
    assert_eq!(train(&db, scaler("IBM", 100).with("name", "again"), 3.0), 0);
    assert_eq!(db.snapshot().model(&scaler("IBM", 100)).unwrap().unwrap().info().version, 3);
    assert_eq!(train(&db, scaler("IBM", 101), 9.0), 0);
    assert_eq!(train(&db, scaler("AAPL", 100), 9.0), 0);
    assert_eq!(score_of(&db, "IBM"), Some(30.0));
    // A run that starts for another reason still opens the model of its day.
    assert_eq!(price(&db, "IBM", 20.0), 1);
    assert_eq!(score_of(&db, "IBM"), Some(60.0));
    // So it does behind a crash, with what a checkpoint holds and without.
    for has_image in [false, true] {
        if has_image {
            db.checkpoint().unwrap();
        }
        let db = Database::open_on(Arc::new(disk.crash()), driven()).unwrap();
        with_scores(&db);
        db.run_ready().unwrap();
        assert_eq!(score_of(&db, "IBM"), Some(60.0));
        assert_eq!(train(&db, scaler("IBM", 100), 1.0), 1);
        assert_eq!(score_of(&db, "IBM"), Some(20.0));
        assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
    }
    assert_eq!(delete(&db, &scaler("IBM", 100)), 0);
    assert_eq!(state_of(&db, "scaler", "IBM"), Some(State::Void));
    assert_eq!(state_of(&db, "scaler", "AAPL"), Some(State::Current));
    assert_eq!(price(&db, "IBM", 30.0), 0);
    assert_eq!(train(&db, scaler("IBM", 100), 1.0), 1);
    assert_eq!(score_of(&db, "IBM"), Some(30.0));
}

/// What is deleted and put in one transaction is what was put; another model in the same cell stays.
#[test]
fn a_deletion_takes_back_its_own_cells_alone() {
    let db = Database::create_on(Arc::new(SimulatedDisk::new()), driven()).unwrap();
    with_scores(&db);
    price(&db, "IBM", 10.0);
    train(&db, scaler("IBM", 100), 2.0);
    let mut batch = Batch::new();
    batch.delete_model(&scaler("IBM", 100)).unwrap();
    batch.put_model(scaler("IBM", 100), 4f64.to_le_bytes().to_vec());
    db.commit(batch).unwrap();
    assert_eq!(db.run_ready().unwrap(), 1);
    assert_eq!(score_of(&db, "IBM"), Some(40.0));
    // A second identity of the same symbol and day takes the cell.
    let robust = scaler("IBM", 100).with("kind", "robust");
    assert_eq!(train(&db, robust.clone(), 5.0), 1);
    assert_eq!(delete(&db, &scaler("IBM", 100)), 0);
    assert_eq!((score_of(&db, "IBM"), state_of(&db, "scaler", "IBM")), (Some(50.0), Some(State::Current)));
    delete(&db, &robust);
    assert_eq!(state_of(&db, "scaler", "IBM"), Some(State::Void));
}

/// A producer trains: what it puts is its output, with the lineage of one.
#[test]
fn a_producer_provides_a_model() {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), driven()).unwrap();
    let begin = |db: &Database| {
        define(db);
        let samples = SlotDefinition::new("samples").cell_key("symbol", ColumnType::Utf8);
        db.define_slot(samples.value("mean", ColumnType::F64)).unwrap();
        let trainer = ProducerDefinition::new("trainer").requires("samples").provides("scaler");
        db.register(trainer, |run| {
            let samples = run.input("samples").map_err(|error| Failure::Fatal(error.to_string()))?;
            let by = samples.f64s("mean").unwrap()[0].round();
            let symbol = run.key("symbol").unwrap().to_string();
            // As most training does it: with the time at which it ends.
            Ok(Outputs::new().put_model(scaler(&symbol, 207), by.to_le_bytes().to_vec()))
        })
        .unwrap();
        with_scores(db);
    };
    begin(&db);
    price(&db, "IBM", 10.0);
    let sample = |db: &Database, mean: f64| {
        let mut batch = Batch::new();
        batch.put_slot("samples", DAY, ["IBM"], one("mean", mean));
        db.commit(batch).unwrap();
        db.run_ready().unwrap()
    };
    assert_eq!(sample(&db, 2.0), 2);
    assert_eq!(score_of(&db, "IBM"), Some(20.0));
    assert_eq!(sample(&db, 2.2), 1, "the trainer alone: it made the same model again");
    assert_eq!(sample(&db, 3.0), 2);
    let crashed = Database::open_on(Arc::new(disk.crash()), driven()).unwrap();
    begin(&crashed);
    for db in [&db, &crashed] {
        assert_eq!(score_of(db, "IBM"), Some(30.0));
        // Found by what the cell says, not by the day of the model's timestamp.
        let elsewhen = db.snapshot().model(&scaler("IBM", 100)).unwrap().unwrap();
        assert_ne!(elsewhen.info().timestamp.0 / DAY_NS, i64::from(DAY.0));
        let model = db.snapshot().model(&scaler("IBM", 100)).unwrap().unwrap();
        let upstream = db.model_upstream(model.info(), Extent::default()).unwrap().unwrap();
        assert_eq!((upstream.slot.as_str(), upstream.children[0].slot.as_str()), ("scaler", "samples"));
        assert_eq!(upstream.children[0].producer.as_deref(), Some("trainer"));
        let older = db.snapshot().model_version(&scaler("IBM", 100), 1).unwrap().unwrap();
        assert!(db.model_upstream(older.info(), Extent::default()).unwrap().is_none());
    }
    // A client does not write over what a producer gives.
    let mut batch = Batch::new();
    batch.put_model(scaler("IBM", 100), vec![0; 8]);
    let taken = db.commit(batch);
    assert!(matches!(taken, Err(CommitError::Graph(GraphError::PriorityTaken { .. }))), "{taken:?}");
}

/// What does not fit is told: attributes that are keys and are not there, a model that nobody provides, versions that are gone,
/// slots that hold no models.
#[test]
fn what_is_no_cell_is_told() {
    let db = Database::create_on(Arc::new(SimulatedDisk::new()), driven()).unwrap();
    with_scores(&db);
    for wrong in [
        Metadata::new("scaler").with("timestamp", Timestamp(0)),
        Metadata::new("scaler").with("timestamp", Timestamp(0)).with("symbol", 7i64),
    ] {
        let mut batch = Batch::new();
        batch.put_model(wrong, vec![1]);
        let refused = db.commit(batch);
        assert!(matches!(refused, Err(CommitError::Cell { .. })), "{refused:?}");
    }
    assert!(db.snapshot().models().is_empty());
    // Types that are no slot are as they were, and so is a slot of other columns.
    let mut batch = Batch::new();
    batch.put_model(Metadata::new("prices").with("timestamp", Timestamp(0)), vec![1]);
    db.commit(batch).unwrap();
    db.register(ProducerDefinition::new("stray").requires("prices").provides("scores2"), |_| {
        Ok(Outputs::new().put_model(scaler("IBM", 100), vec![1]))
    })
    .unwrap_err();
    let other = SlotDefinition::new("other").cell_key("symbol", ColumnType::Utf8);
    db.define_slot(other.value("x", ColumnType::F64)).unwrap();
    db.register(ProducerDefinition::new("stray").requires("prices").provides("other"), |run| {
        let error = run.model("prices").unwrap_err();
        assert!(matches!(error, ReadError::NoModel { .. }), "{error}");
        Ok(Outputs::new().put("other", one("x", 1.0)).put_model(scaler("IBM", 100), vec![1]))
    })
    .unwrap();
    price(&db, "IBM", 1.0);
    let why = db.why("other", DAY, ["IBM"]).unwrap();
    assert!(format!("{why:?}").contains("does not provide it"), "{why:?}");
    // Of an earlier day retention takes the version that the cell says.
    train(&db, scaler("IBM", 100), 2.0);
    train(&db, scaler("IBM", 101), 3.0);
    let mut batch = Batch::new();
    batch.set_retention(&scaler("IBM", 0), Some(Retention::keep_last(1))).unwrap();
    db.commit(batch).unwrap();
    price(&db, "IBM", 2.0);
    let why = format!("{:?}", db.why("scores", DAY, ["IBM"]).unwrap());
    assert!(why.contains("keep more of them"), "{why}");
    assert!(db.wait_idle(Duration::ZERO));
}

/// A cell whose version is gone stays, and what was made from it; who opens it is told, until the version is put again. It makes
/// no difference who took it: retention, a deletion of one version, or the collection of what is too old.
#[test]
fn versions_that_cells_say_may_be_gone() {
    for way in 0..3 {
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        let disk = SimulatedDisk::new();
        let options = || Options { clock: clock.clone(), ..driven() };
        let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
        with_scores(&db);
        price(&db, "IBM", 10.0);
        train(&db, scaler("IBM", 100), 2.0);
        train(&db, scaler("IBM", 101), 3.0);
        let before = db.snapshot();
        let mut batch = Batch::new();
        match way {
            0 => drop(batch.set_retention(&scaler("IBM", 0), Some(Retention::keep_last(1))).unwrap()),
            1 => drop(batch.delete_model_version(&scaler("IBM", 0), 1).unwrap()),
            _ => {
                let age = Retention::max_age(Duration::from_secs(1));
                batch.set_retention(&scaler("IBM", 0), Some(age)).unwrap();
                db.commit(std::mem::take(&mut batch)).unwrap();
                clock.set(Timestamp(5_000_000_000));
                batch.collect_models();
            }
        }
        db.commit(batch).unwrap();
        assert_eq!(db.run_ready().unwrap(), 0, "nobody has to do anything for it");
        let said = |snapshot: &Snapshot| snapshot.slot_model("scaler", DAY, ["IBM"]);
        assert_eq!(said(&before).unwrap().unwrap().info().version, 1, "it still sees it");
        drop(before);
        db.checkpoint().unwrap();
        let crashed = Database::open_on(Arc::new(disk.crash()), options()).unwrap();
        with_scores(&crashed);
        for db in [&db, &crashed] {
            db.run_ready().unwrap();
            let gone = said(&db.snapshot());
            assert!(matches!(&gone, Err(ReadError::NoModel { what }) if what.contains("force")), "{gone:?}");
            assert!(db.snapshot().slot("scaler", DAY, ["IBM"]).unwrap().is_some());
            assert_eq!(state_of(db, "scaler", "IBM"), Some(State::Current));
            assert_eq!(
                (score_of(db, "IBM"), state_of(db, "scores", "IBM")),
                (Some(20.0), Some(State::Current))
            );
            // Only a run that would open it fails, and says why.
            price(db, "IBM", 30.0);
            assert_eq!(state_of(db, "scores", "IBM"), Some(State::Invalid));
            assert!(format!("{:?}", db.why("scores", DAY, ["IBM"]).unwrap()).contains("keep more of them"));
            assert_eq!(train(db, scaler("IBM", 100), 2.0), 0, "the cell says what it said");
            db.force("score", DAY, ["IBM"]).unwrap();
            assert_eq!((db.run_ready().unwrap(), score_of(db, "IBM")), (1, Some(60.0)));
            assert_eq!(said(&db.snapshot()).unwrap().unwrap().info().version, 3);
            assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
        }
        assert!(matches!(db.snapshot().slot_model("prices", DAY, ["IBM"]), Err(ReadError::NoModel { .. })));
        assert!(db.snapshot().slot_model("scaler", DAY, ["AAPL"]).unwrap().is_none());
    }
}

/// What a client put is taken back with its model, though something better stands before it.
#[test]
fn a_deleted_model_is_no_fallback() {
    let db = Database::create_on(Arc::new(SimulatedDisk::new()), driven()).unwrap();
    with_scores(&db);
    price(&db, "IBM", 10.0);
    train(&db, scaler("IBM", 100), 2.0);
    let better = scaler("IBM", 100).with("kind", "better");
    train(&db, better.clone(), 5.0);
    let said = db.snapshot().slot("scaler", DAY, ["IBM"]).unwrap().unwrap().rows;
    train(&db, scaler("IBM", 100), 3.0);
    let mut batch = Batch::new();
    batch.put_slot_at("scaler", DAY, ["IBM"], 5, said);
    db.commit(batch).unwrap();
    db.run_ready().unwrap();
    assert_eq!(score_of(&db, "IBM"), Some(50.0));
    assert_eq!(delete(&db, &scaler("IBM", 100)), 0);
    let mut batch = Batch::new();
    batch.retract_slot_at("scaler", DAY, ["IBM"], 5);
    db.commit(batch).unwrap();
    db.run_ready().unwrap();
    assert_eq!(state_of(&db, "scaler", "IBM"), Some(State::Void), "and not the model that is deleted");
}

/// A commit that is only explained tells of models too.
#[test]
fn what_a_model_would_wake_is_foretold() {
    let db = Database::create_on(Arc::new(SimulatedDisk::new()), driven()).unwrap();
    with_scores(&db);
    price(&db, "IBM", 10.0);
    let foretold = |by: f64| {
        let mut batch = Batch::new();
        batch.put_model(scaler("IBM", 100), by.to_le_bytes().to_vec());
        db.explain_commit(&batch).unwrap()
    };
    let runs: Vec<_> = foretold(2.0).runs.into_iter().map(|run| run.producer).collect();
    assert_eq!(runs, ["score"]);
    train(&db, scaler("IBM", 100), 2.0);
    let mut batch = Batch::new();
    batch.delete_model(&scaler("IBM", 100)).unwrap();
    let void = db.explain_commit(&batch).unwrap().cells.iter().any(|cell| cell.to == State::Void);
    assert!(void);
    assert!(foretold(2.0).cells.is_empty() && !foretold(3.0).cells.is_empty());
    // A put that a deletion follows is none.
    let mut batch = Batch::new();
    batch.put_model(scaler("IBM", 100), vec![7; 8]);
    batch.delete_model(&scaler("IBM", 100)).unwrap();
    let cells = db.explain_commit(&batch).unwrap().cells;
    assert!(cells.iter().any(|cell| cell.to == State::Void), "{cells:?}");
    // Equal bytes are equal, also where they are cut into chunks.
    let long: Vec<u8> = (0..20 << 20).map(|n| (n / 4_096) as u8).collect();
    let parts = Parts::new().with("long", long).to_blob();
    let put = || {
        let mut batch = Batch::new();
        batch.put_model(scaler("IBM", 100), parts.clone());
        batch
    };
    assert!(!db.explain_commit(&put()).unwrap().cells.is_empty());
    db.commit(put()).unwrap();
    db.run_ready().unwrap();
    assert!(db.explain_commit(&put()).unwrap().cells.is_empty());
}
