//! What a reader holds stays readable whatever the writer removes, and what it lets go is removed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use tempfile::TempDir;
use underbelly::{Batch, ColumnType, Columns, Database, SlotDefinition};
use underbelly_tests::{day, define, options, transaction, transactions_shown};

/// Contents that are stored in a file of their own.
fn large(seed: i64) -> Columns {
    let mut rows = Columns::with_types([("i", ColumnType::I64), ("x", ColumnType::I64)]).unwrap();
    for i in 0..100_000 {
        rows.push_row(&[i.into(), (i * 7919 + seed).into()]).unwrap();
    }
    rows
}

fn put(db: &Database, seed: i64) {
    let mut batch = Batch::new();
    batch.put_slot("Big", day(), ["k"], large(seed));
    db.commit(batch).unwrap();
}

fn files(dir: &Path) -> BTreeMap<String, (u64, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        let path = entry.path();
        if metadata.is_dir() {
            found.extend(files(&path));
        }
        found.insert(path.display().to_string(), (metadata.len(), metadata.modified().unwrap()));
    }
    found
}

fn chunks(dir: &Path) -> usize {
    files(&dir.join("chunks")).len()
}

#[test]
fn large_contents_that_were_replaced_are_read_as_long_as_a_reader_pins_them() {
    let _alone = crate::alone();
    let dir = TempDir::new().unwrap();
    let db = Database::create_with(dir.path(), options()).unwrap();
    let slot = SlotDefinition::new("Big").cell_key("k", ColumnType::Utf8);
    db.define_slot(slot.row_key("i", ColumnType::I64).value("x", ColumnType::I64)).unwrap();
    put(&db, 1);
    db.checkpoint().unwrap();
    let in_manifest = Database::open_read_only(dir.path()).unwrap();
    put(&db, 2);
    let in_log = Database::open_read_only(dir.path()).unwrap();
    for seed in 3..6 {
        put(&db, seed);
        db.checkpoint().unwrap();
    }
    let read = |reader: &underbelly::Reader| {
        let cell = reader.snapshot().slot("Big", day(), ["k"]).unwrap().unwrap();
        cell.rows.i64s("x").unwrap()[0]
    };
    assert_eq!(read(&in_manifest), 1);
    assert_eq!(read(&in_log), 2);
    let before = chunks(dir.path());
    drop(in_manifest);
    drop(in_log);
    db.checkpoint().unwrap();
    db.checkpoint().unwrap();
    assert!(chunks(dir.path()) < before, "what nobody pins any more is removed");
    let now = Database::open_read_only(dir.path()).unwrap();
    assert_eq!(read(&now), 5);
}

#[test]
fn a_pin_outlives_the_writer_that_made_the_manifest() {
    let _alone = crate::alone();
    let dir = TempDir::new().unwrap();
    let db = Database::create_with(dir.path(), options()).unwrap();
    define(&db).unwrap();
    db.commit(transaction(1, true).unwrap()).unwrap();
    db.close().unwrap();
    let reader = Database::open_read_only(dir.path()).unwrap();
    let snapshot = reader.snapshot();
    drop(reader);
    for i in 2..5 {
        let db = Database::open_with(dir.path(), options()).unwrap();
        db.commit(transaction(i, true).unwrap()).unwrap();
        db.checkpoint().unwrap();
        db.close().unwrap();
    }
    assert_eq!(transactions_shown(&snapshot, |_| true).unwrap(), 1);
}

#[test]
fn reading_changes_nothing_in_the_folder() {
    let _alone = crate::alone();
    let dir = TempDir::new().unwrap();
    let db = Database::create_with(dir.path(), options()).unwrap();
    define(&db).unwrap();
    for i in 1..30 {
        db.commit(transaction(i, i % 7 == 0).unwrap()).unwrap();
        if i == 15 {
            db.checkpoint().unwrap();
        }
    }
    drop(db);
    let before = files(dir.path());
    let mut reader = Database::open_read_only(dir.path()).unwrap();
    assert_eq!(transactions_shown(&reader.snapshot(), |i| i % 7 == 0).unwrap(), 29);
    reader.refresh().unwrap();
    reader.status().unwrap();
    drop(reader);
    assert_eq!(files(dir.path()), before);
}
