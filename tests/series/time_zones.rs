//! Instants whose zone is named are the same instants, and keep the name.

use std::sync::Arc;

use underbelly::{Batch, CommitError, Database, LogicalType, LogicalTypes, Timestamp};
use underbelly_tests::in_memory;

use super::{commit, everywhere, row};

fn zoned(name: &str) -> LogicalType {
    LogicalType::Zoned(name.into())
}

fn declare(db: &Database, column: &str, zone: &str) -> Result<(), CommitError> {
    let mut batch = Batch::new();
    batch.declare("s", column, zoned(zone))?;
    db.commit(batch).map(drop)
}

/// The rows' own time and a column, declared before and after rows, and given with rows.
#[test]
fn zones_are_kept_and_instants_are_what_they_were() {
    let (disk, db) = in_memory().unwrap();
    declare(&db, "timestamp", "America/New_York").unwrap();
    let with_zone = row(1).field("at", Timestamp(i64::MIN)).typed("at", zoned("Europe/Berlin"));
    commit(&db, [with_zone, row(2).field("at", Timestamp(7)).field("sent", Timestamp(8))]).unwrap();
    db.checkpoint().unwrap();
    // A zone that nobody named loses nothing by being named, and rows without one are of it.
    declare(&db, "sent", "Asia/Tokyo").unwrap();
    commit(&db, [row(3).field("at", Timestamp(9)).field("sent", Timestamp(i64::MAX))]).unwrap();
    let check = |db: &underbelly::View| {
        let series = db.snapshot().series("s").unwrap();
        let types = LogicalTypes::new().with("timestamp", zoned("America/New_York"));
        assert_eq!(
            series.types(),
            &types.with("at", zoned("Europe/Berlin")).with("sent", zoned("Asia/Tokyo"))
        );
        let rows = series.scan().collect().unwrap();
        assert_eq!(rows.timestamps("timestamp").unwrap(), [1, 2, 3]);
        assert_eq!(rows.timestamps("at").unwrap(), [i64::MIN, 7, 9]);
        assert_eq!(rows.timestamps("sent").unwrap(), [0, 8, i64::MAX]);
    };
    check(&Database::open_read_only_on(Arc::new(disk.clone())).unwrap());
    everywhere(&disk, db, |db| check(db));
}

#[test]
fn another_zone_is_another_type_and_an_unknown_one_is_none() {
    let (_, db) = in_memory().unwrap();
    commit(&db, [row(1).field("at", Timestamp(1)).field("n", 1)]).unwrap();
    declare(&db, "at", "Europe/Berlin").unwrap();
    declare(&db, "at", "Europe/Berlin").unwrap();
    declare(&db, "timestamp", "UTC").unwrap();
    let refused = |result: Result<(), CommitError>| match result.unwrap_err() {
        CommitError::SeriesType { column, expected, found, .. } => format!("{column}: {expected}, {found}"),
        error => panic!("{error}"),
    };
    assert_eq!(
        refused(declare(&db, "at", "Asia/Tokyo")),
        "at: timestamp[Europe/Berlin], timestamp[Asia/Tokyo]"
    );
    assert_eq!(
        refused(declare(&db, "timestamp", "Asia/Tokyo")),
        "timestamp: timestamp[UTC], timestamp[Asia/Tokyo]"
    );
    assert_eq!(refused(declare(&db, "n", "Asia/Tokyo")), "n: i64, timestamp[Asia/Tokyo]");
    let other = row(2).field("at", Timestamp(2)).typed("at", zoned("Asia/Tokyo"));
    assert_eq!(
        refused(commit(&db, [other.clone()]).map(drop)),
        "at: timestamp[Europe/Berlin], timestamp[Asia/Tokyo]"
    );
    let own = row(2).field("at", Timestamp(2)).typed("at", zoned("Europe/Berlin"));
    assert_eq!(
        refused(commit(&db, [own.clone(), other]).map(drop)),
        "at: timestamp[Europe/Berlin], timestamp[Asia/Tokyo]"
    );
    commit(&db, [own, row(3).field("at", Timestamp(3))]).unwrap();
    let decimal = row(4).typed("timestamp", LogicalType::Decimal(2));
    assert_eq!(refused(commit(&db, [decimal]).map(drop)), "timestamp: timestamp[UTC], decimal(2)");
    for zone in ["Mars/Base", "", "europe/berlin", "+02:00"] {
        let error = declare(&db, "new", zone).unwrap_err();
        assert!(matches!(&error, CommitError::UnknownZone { column, .. } if column == "new"), "{error}");
        assert!(error.to_string().contains(&format!("{zone:?}")), "{error}");
    }
}
