//! Decimals are scaled integers whose scale belongs to the type, wherever it is kept.

use std::sync::Arc;

use proptest::prelude::*;
use tempfile::TempDir;
use underbelly::{
    Batch, Columns, CommitError, Database, Decimal, DecimalError, LogicalType, LogicalTypes, Predicate, Row,
    SimulatedDisk, Timestamp, Value,
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
