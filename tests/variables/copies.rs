//! Variables beside their writer, in copies, and in what a repair saves.

use std::fs;

use tempfile::TempDir;
use underbelly::{BackupOptions, Batch, Database, Scope, VariableValue};
use underbelly_tests::options;

fn filled(db: &Database, from: i64) {
    for i in from..from + 5 {
        let mut batch = Batch::new();
        batch.set_variable(Scope::Global, &format!("v{}", i % 3), i).set_variable(Scope::Global, "last", i);
        db.commit(batch).unwrap();
    }
}

fn last(db: &underbelly::View) -> Option<VariableValue> {
    db.variable(&Scope::Global, "last").unwrap().map(|variable| variable.value)
}

/// A reader beside the writer shows what is durable, keeps older snapshots, and a backup of both the image and the log
/// behind it opens with the same variables.
#[test]
fn readers_and_backups_show_the_variables() {
    let (dir, copy) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let db = Database::create_with(dir.path(), options()).unwrap();
    filled(&db, 0);
    let mut reader = Database::open_read_only(dir.path()).unwrap();
    assert_eq!(last(&reader), Some(4.into()));
    let older = reader.snapshot();
    db.checkpoint().unwrap();
    filled(&db, 5);
    reader.refresh().unwrap();
    assert_eq!(last(&reader), Some(9.into()));
    assert_eq!(older.variable(&Scope::Global, "last").unwrap().unwrap().value, 4.into());
    db.backup(copy.path().join("b"), BackupOptions::default(), |_, _| ()).unwrap();
    let shown = db.variables();
    drop((reader, older));
    let backup = Database::open_with(copy.path().join("b"), options()).unwrap();
    assert_eq!(backup.variables(), shown);
    assert_eq!(backup.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
}

/// A repair saves the variables of the image and of the log; without any image, those of the log.
#[test]
fn repair_saves_the_variables() {
    let dir = TempDir::new().unwrap();
    let db = Database::create_with(dir.path(), options()).unwrap();
    filled(&db, 0);
    db.checkpoint().unwrap();
    db.checkpoint().unwrap();
    filled(&db, 5);
    let shown = db.variables();
    drop(db);
    let place = TempDir::new().unwrap();
    let saved = Database::repair(dir.path(), place.path().join("whole"), |_, _| ()).unwrap();
    assert_eq!(saved.losses, Vec::new());
    assert_eq!(Database::open_read_only(place.path().join("whole")).unwrap().variables(), shown);
    for entry in fs::read_dir(dir.path().join("images")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    // Nor does the log hold all from the first transaction on: its second is damaged, behind the header and the first.
    let log = dir.path().join("wal/0000000001.wal");
    let mut bytes = fs::read(&log).unwrap();
    bytes[2 * 4096 + 70] ^= 1;
    fs::write(&log, bytes).unwrap();
    let saved = Database::repair(dir.path(), place.path().join("rest"), |_, _| ()).unwrap();
    assert!(saved.losses.iter().any(|loss| loss.lost.contains("all variables")), "{:?}", saved.losses);
    let rest = Database::open_with(place.path().join("rest"), options()).unwrap();
    assert_eq!(rest.variables(), shown, "all were set again behind the checkpoint");
}
