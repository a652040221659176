//! Decimals are scaled integers whose scale belongs to the type, wherever it is kept.

use std::sync::Arc;

use proptest::prelude::*;
use tempfile::TempDir;
use underbelly::{
    Batch, Columns, CommitError, Database, Date, Decimal, DecimalError, Disk, LogicalType, LogicalTypes,
    Outputs, Predicate, ProducerDefinition, Row, SimulatedDisk, SlotDefinition, Timestamp, Value,
};
use underbelly_tests::{in_memory, options};

use super::{commit, everywhere, row};

fn decimal(text: &str, scale: u8) -> Decimal {
    Decimal::parse(text, scale).unwrap()
}

fn typed(column: &str, scale: u8) -> LogicalTypes {
    LogicalTypes::new().with(column, LogicalType::Decimal(scale))
}

/// The decimals of column `x`, as they are printed.
fn texts(db: &underbelly::View) -> Vec<String> {
    let series = db.snapshot().series("s").unwrap();
    let scale = series.types().get("x").unwrap().scale().unwrap();
    let rows = series.scan().collect().unwrap();
    rows.i64s("x").unwrap().iter().map(|v| Decimal::new(*v, scale).unwrap().to_string()).collect()
}

#[test]
fn decimals_and_their_scale_come_back_wherever_they_are_kept() {
    let (disk, db) = in_memory().unwrap();
    let least = Decimal::new(i64::MIN, 18).unwrap();
    commit(&db, [row(1).decimal("x", least), row(2).decimal("x", decimal("-0.00", 18)).field("n", 1)])
        .unwrap();
    db.checkpoint().unwrap();
    let strike = row(3).key("strike", 15_050).typed("strike", LogicalType::Decimal(2));
    commit(&db, [strike.decimal_text("x", "25e-1", 18).unwrap()]).unwrap();
    let check = |db: &underbelly::View| {
        assert_eq!(texts(db), ["-9.223372036854775808", "0.000000000000000000", "2.500000000000000000"]);
        let series = db.snapshot().series("s").unwrap();
        assert_eq!(series.types(), &typed("x", 18).with("strike", LogicalType::Decimal(2)));
        assert_eq!(series.latest(9, &[("strike", 15_050.into())]).unwrap().rows(), 1);
    };
    let (copy, saved) = (SimulatedDisk::new(), TempDir::new().unwrap());
    db.backup_on(Arc::new(copy.clone()), |_, _| ()).unwrap();
    check(&Database::open_on(Arc::new(copy), options()).unwrap());
    check(&Database::open_read_only_on(Arc::new(disk.clone())).unwrap());
    Database::repair_on(Arc::new(disk.crash()), saved.path(), |_, _| ()).unwrap();
    check(&Database::open(saved.path()).unwrap());
    everywhere(&disk, db, |db| check(db));
}

#[test]
fn another_scale_and_every_other_number_is_another_type() {
    let (disk, db) = in_memory().unwrap();
    commit(&db, [row(1).decimal("x", decimal("1.25", 2)).field("n", 5).field("f", 0.5)]).unwrap();
    let refused = |rows: Vec<Row>| match commit(&db, rows).unwrap_err() {
        CommitError::SeriesType { series, column, expected, found } => {
            assert_eq!(series, "s");
            format!("{column}: {expected}, {found}")
        }
        error => panic!("{error}"),
    };
    let at = || row(2);
    assert_eq!(refused(vec![at().decimal("x", decimal("1.25", 3))]), "x: decimal(2), decimal(3)");
    assert_eq!(refused(vec![at().field("x", 1.25)]), "x: decimal(2), f64");
    assert_eq!(refused(vec![at().field("x", 125)]), "x: decimal(2), i64");
    assert_eq!(refused(vec![at().field("x", Value::I32(125))]), "x: decimal(2), i32");
    assert_eq!(refused(vec![at().field("x", "1.25")]), "x: decimal(2), utf8");
    assert_eq!(refused(vec![at().decimal("n", decimal("5", 0))]), "n: i64, decimal(0)");
    assert_eq!(refused(vec![at().decimal("f", decimal("0.5", 1))]), "f: f64, decimal(1)");
    assert_eq!(refused(vec![at().field("f", 0.5).typed("f", LogicalType::Decimal(1))]), "f: decimal(1), f64");
    // The same within a batch, in either order, of a column that is new.
    let (new, plain) = (at().decimal("y", decimal("1", 1)), at().field("y", 1));
    assert_eq!(refused(vec![new.clone(), plain.clone()]), "y: decimal(1), i64");
    assert_eq!(refused(vec![plain, new]), "y: i64, decimal(1)");
    // Large appends are segments, which are compared before they are written.
    let columns = || Columns::new().with("x", vec![7i64; 60_000].into()).unwrap();
    let times = || (0..60_000).map(Timestamp).collect::<Vec<_>>();
    let mut batch = Batch::new();
    batch.append_columns("s", times(), columns(), &[]).unwrap();
    assert!(matches!(db.commit(batch), Err(CommitError::SeriesType { .. })));
    let mut batch = Batch::new();
    batch.append_typed("s", times(), columns(), &[], typed("x", 2)).unwrap();
    db.commit(batch).unwrap();
    everywhere(&disk, db, |db| {
        let series = db.snapshot().series("s").unwrap();
        assert_eq!((series.count().unwrap(), series.types()), (60_001, &typed("x", 2)));
    });
}

#[test]
fn what_is_no_decimal_of_the_scale_names_column_text_and_scale() {
    let problem = |text, scale| match row(1).decimal_text("price", text, scale).unwrap_err() {
        error @ CommitError::Decimal { .. } => {
            let said = error.to_string();
            assert!(said.contains("price") && said.contains(&scale.to_string()), "{said}");
            assert!(said.contains(&format!("{text:?}")), "{said}");
            let CommitError::Decimal { problem, .. } = error else { unreachable!() };
            problem
        }
        error => panic!("{error}"),
    };
    assert!(matches!(problem("NaN", 2), DecimalError::Text { .. }));
    assert!(matches!(problem("1.255", 2), DecimalError::Digits { .. }));
    assert!(matches!(problem("9.223372036854775808", 18), DecimalError::Overflow { .. }));
    assert!(matches!(Decimal::new(1, 19), Err(DecimalError::Scale { scale: 19 })));
}

/// What is said of a column before any row has it holds, and makes the type; it is not said twice in different ways.
#[test]
fn columns_are_declared_before_their_rows() {
    let (disk, db) = in_memory().unwrap();
    let declare = |column: &str, scale| {
        let mut batch = Batch::new();
        batch.declare("s", column, LogicalType::Decimal(scale)).unwrap();
        assert!(!batch.is_empty());
        db.commit(batch)
    };
    declare("x", 4).unwrap();
    declare("x", 4).unwrap();
    assert!(matches!(declare("x", 5), Err(CommitError::SeriesType { .. })));
    assert!(matches!(declare("", 5), Err(CommitError::Name { .. })));
    db.checkpoint().unwrap();
    assert!(matches!(commit(&db, [row(1).field("x", 0.5)]), Err(CommitError::SeriesType { .. })));
    commit(&db, [row(1).decimal("x", decimal("0.5", 4))]).unwrap();
    let mut batch = Batch::new();
    batch.declare("s", "y", LogicalType::Decimal(1)).unwrap();
    assert!(matches!(batch.append(row(2).field("y", 3)), Err(CommitError::SeriesType { .. })));
    assert!(matches!(batch.declare("s", "y", LogicalType::Decimal(2)), Err(CommitError::SeriesType { .. })));
    batch.append(row(2).decimal("y", decimal("0.3", 1)).decimal("x", decimal("-7", 4))).unwrap();
    db.commit(batch).unwrap();
    everywhere(&disk, db, |db| {
        assert_eq!(texts(db), ["0.5000", "-7.0000"]);
        let series = db.snapshot().series("s").unwrap();
        let below = Predicate::Below(decimal("0.1", 4).unscaled().into());
        assert_eq!(series.scan().filter("x", below).count().unwrap(), 1);
    });
}

/// A scale that cannot be is refused when it is committed, and not when the database is opened again.
#[test]
fn scales_that_cannot_be_are_never_committed() {
    let (disk, db) = in_memory().unwrap();
    for scale in [19, 255] {
        let mut declared = Batch::new();
        declared.declare("s", "x", LogicalType::Decimal(scale)).unwrap();
        let mut given = Batch::new();
        given.append(row(1).field("x", 5).typed("x", LogicalType::Decimal(scale))).unwrap();
        for batch in [declared, given] {
            let refused = db.commit(batch).unwrap_err();
            let CommitError::Decimal { column, problem } = &refused else { panic!("{refused}") };
            assert_eq!((&**column, problem), ("x", &DecimalError::Scale { scale }));
        }
    }
    let mut long = Batch::new();
    long.declare("s", "x".repeat(300), LogicalType::Decimal(2)).unwrap();
    assert!(matches!(db.commit(long), Err(CommitError::Name { .. })));
    commit(&db, [row(1).field("n", 5)]).unwrap();
    everywhere(&disk, db, |db| assert!(db.snapshot().series("s").unwrap().types().is_empty()));
}

#[test]
fn columns_that_are_only_declared_are_counted_and_kept() {
    let (disk, db) = in_memory().unwrap();
    let declare = |columns: std::ops::Range<usize>| {
        let mut batch = Batch::new();
        for n in columns {
            batch.declare("s", format!("x{n}"), LogicalType::Decimal(2)).unwrap();
        }
        db.commit(batch)
    };
    for part in 0..4 {
        declare(part * 1_024..(part + 1) * 1_024).unwrap();
    }
    assert!(matches!(declare(4_096..4_097), Err(CommitError::TooLarge { .. })));
    assert!(matches!(commit(&db, [row(1).field("one", 1)]), Err(CommitError::TooLarge { .. })));
    let (copy, saved) = (SimulatedDisk::new(), TempDir::new().unwrap());
    let check = |db: &underbelly::View| {
        let series = db.snapshot().series("s").unwrap();
        assert_eq!((series.count().unwrap(), series.types().len()), (0, 4_096));
    };
    db.checkpoint().unwrap();
    db.backup_on(Arc::new(copy.clone()), |_, _| ()).unwrap();
    check(&Database::open_on(Arc::new(copy), options()).unwrap());
    check(&Database::open_read_only_on(Arc::new(disk.clone())).unwrap());
    Database::repair_on(Arc::new(disk.crash()), saved.path(), |_, _| ()).unwrap();
    check(&Database::open(saved.path()).unwrap());
    everywhere(&disk, db, |db| check(db));
}

/// The log goes on behind segments, and both without a manifest: decimals stay decimals, and nothing behind them is lost.
#[test]
fn a_repair_without_manifests_takes_scales_from_the_log() {
    let (disk, db) = in_memory().unwrap();
    commit(&db, [row(1).decimal("x", decimal("1.25", 2))]).unwrap();
    db.checkpoint().unwrap();
    commit(&db, [row(2).decimal("x", decimal("-0.5", 2))]).unwrap();
    commit(&db, [Row::new("other", Timestamp(1)).field("n", 1)]).unwrap();
    let (copy, saved) = (disk.crash(), TempDir::new().unwrap());
    let manifests = copy.files().into_iter().filter(|name| name.starts_with("MANIFEST-"));
    manifests.for_each(|name| copy.remove(&name).unwrap());
    Database::repair_on(Arc::new(copy), saved.path(), |_, _| ()).unwrap();
    let db = Database::open(saved.path()).unwrap();
    assert_eq!(texts(&db), ["1.25", "-0.50"]);
    assert_eq!(db.snapshot().series("other").unwrap().count().unwrap(), 1);
}

#[test]
fn transactions_and_runs_append_decimals() {
    let (disk, db) = in_memory().unwrap();
    let columns = |n: i64| Columns::new().with("x", vec![n].into()).unwrap();
    db.transact::<_, CommitError>(|tx| {
        tx.declare("s", "timestamp", LogicalType::Zoned("Asia/Tokyo".into()))?;
        tx.append_typed("s", vec![Timestamp(1)], columns(125), &[], typed("x", 2))
    })
    .unwrap();
    db.define_slot(SlotDefinition::new("A").value("n", underbelly::ColumnType::I64)).unwrap();
    db.define_slot(SlotDefinition::new("B").value("n", underbelly::ColumnType::I64)).unwrap();
    let maker = ProducerDefinition::new("maker").requires("A").provides("B");
    db.register(maker, move |_| {
        let outputs = Outputs::new().put("B", Columns::new().with("n", vec![1i64].into())?);
        Ok(outputs.append_typed("s", vec![Timestamp(2)], columns(-5), &[], typed("x", 2))?)
    })
    .unwrap();
    let mut batch = Batch::new();
    batch.put_slot("A", Date(0), [""; 0], Columns::new().with("n", vec![1i64].into()).unwrap());
    db.commit(batch).unwrap();
    assert!(db.wait_idle(std::time::Duration::from_secs(60)));
    everywhere(&disk, db, |db| {
        assert_eq!(texts(db), ["1.25", "-0.05"]);
        let zone = db.snapshot().series("s").unwrap().types().get("timestamp").cloned();
        assert_eq!(zone, Some(LogicalType::Zoned("Asia/Tokyo".into())));
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_decimals_come_back(
        unscaled in prop::collection::vec(prop_oneof![any::<i64>(), -5i64..5, Just(i64::MIN)], 1..20),
        scale in 0u8..=18,
    ) {
        let (disk, db) = in_memory().unwrap();
        let numbers: Vec<Decimal> = unscaled.iter().map(|v| Decimal::new(*v, scale).unwrap()).collect();
        for (at, number) in numbers.iter().enumerate() {
            let text = number.to_string();
            commit(&db, [row(at as i64).decimal_text("x", &text, scale).unwrap()]).unwrap();
        }
        let expected: Vec<String> = numbers.iter().map(Decimal::to_string).collect();
        everywhere(&disk, db, |db| assert_eq!(texts(db), expected));
    }
}
