//! A segment that is damaged or gone keeps nobody from reading the rest.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use underbelly::disk::Act;
use underbelly::{
    Batch, Column, Columns, CopyError, Database, Delete, Disk, FaultyDisk, OpenError, Options, SimulatedDisk,
    Timestamp, View,
};
use underbelly_tests::{BOOK, day, define, options, transaction};

/// The rows of each series, or why they cannot be read.
fn rows(db: &View) -> Vec<(String, Result<String, String>)> {
    let snapshot = db.snapshot();
    let of = |name: String| {
        let read = snapshot.series(&name).unwrap().scan().collect();
        (name, read.map(|rows| format!("{rows:?}")).map_err(|error| error.to_string()))
    };
    snapshot.series_names().into_iter().map(of).collect()
}

/// So many rows that the log names a segment with them.
fn late() -> Batch {
    let mut batch = Batch::new();
    let columns = Columns::new().with("x", Column::from((0..20_000).collect::<Vec<i64>>())).unwrap();
    batch.append_columns("late", (0..20_000).map(Timestamp).collect(), columns, &[]).unwrap();
    batch
}

/// Segments of clients and of the engine's own series, such as what became of cells, and one that the log alone names: with one
/// of them cut or gone a writer refuses, and readers show all but what stands in it, and say so.
#[test]
fn a_damaged_segment_keeps_no_reader_from_the_rest() {
    let disk = SimulatedDisk::new();
    let options = Options { workers: 0, ..options() };
    let db = Database::create_on(Arc::new(disk.clone()), options.clone()).unwrap();
    define(&db).unwrap();
    for i in 1..=6 {
        db.commit(transaction(i, false).unwrap()).unwrap();
    }
    // The checkpoint before tells of the same.
    db.checkpoint().unwrap();
    db.checkpoint().unwrap();
    db.commit(late()).unwrap();
    drop(db);
    let open = |disk: &SimulatedDisk| Database::open_read_only_with(Arc::new(disk.clone()), 0).unwrap();
    let sound = open(&disk.crash());
    let (expected, cell) = (rows(&sound), sound.snapshot().slot(BOOK, day(), ["c1"]).unwrap().unwrap());
    let names: Vec<String> = disk.files().into_iter().filter(|name| name.starts_with("segments/")).collect();
    for series in ["segments/_changes/", "segments/late/", "segments/tick/"] {
        assert!(names.iter().any(|name| name.starts_with(series)), "{names:?}");
    }
    for name in &names {
        for is_gone in [false, true] {
            let disk = disk.crash();
            match is_gone {
                true => disk.remove(name).unwrap(),
                false => {
                    let bytes = disk.contents(name).unwrap();
                    disk.overwrite(name, bytes[..bytes.len() / 2].to_vec());
                }
            }
            let refused = Database::open_on(Arc::new(disk.clone()), options.clone()).err().unwrap();
            assert!(
                matches!(refused, OpenError::Storage(_)) && refused.to_string().contains(&**name),
                "{refused}"
            );
            let mut reader = open(&disk);
            let hurt = name.split('/').nth(1).unwrap();
            for ((series, found), (_, expected)) in rows(&reader).iter().zip(&expected) {
                match found {
                    Err(error) => assert!(series == hurt && error.contains(&**name), "{series}: {error}"),
                    found => assert!(series != hurt && found == expected, "{name}: {series}"),
                }
            }
            assert_eq!(rows(&reader).len(), expected.len());
            let found = reader.snapshot().slot(BOOK, day(), ["c1"]).unwrap().unwrap();
            assert_eq!(format!("{:?}", found.rows), format!("{:?}", cell.rows));
            assert_eq!(reader.refresh().unwrap(), sound.seq());
            let damaged = reader.status().unwrap().damaged;
            assert!(damaged.len() == 1 && damaged[0].contains(&**name), "{damaged:?}");
            let damages = Database::verify_on(Arc::new(disk), |_, _| ()).unwrap().damages;
            assert!(damages.iter().any(|damage| damage.contains(&**name)), "{damages:?}");
            let backup = reader.backup_on(Arc::new(SimulatedDisk::new()), |_, _| ());
            assert!(matches!(backup, Err(CopyError::Damaged { .. } | CopyError::Open(_))), "{backup:?}");
        }
    }
}

/// A reader that goes on without a damaged segment takes one that a checkpoint has written anew since for no damage.
#[test]
fn a_reader_without_a_segment_knows_what_a_checkpoint_replaced() {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), Options { workers: 0, ..options() }).unwrap();
    define(&db).unwrap();
    db.commit(transaction(1, false).unwrap()).unwrap();
    db.checkpoint().unwrap();
    db.checkpoint().unwrap();
    let of = |kind: &str| disk.files().into_iter().find(|name| name.starts_with(kind));
    disk.overwrite(&of("segments/tick/").unwrap(), Vec::new());
    let mut reader = Database::open_read_only_with(Arc::new(disk.clone()), 0).unwrap();
    assert_eq!(reader.status().unwrap().damaged.len(), 1);
    db.commit(late()).unwrap();
    let replaced = of("segments/late/").unwrap();
    let mut batch = Batch::new();
    batch.delete_rows("late", Delete::all().to(Timestamp(10_000)));
    db.commit(batch).unwrap();
    for left in (0..6).rev() {
        db.checkpoint().unwrap();
        if disk.contents(&replaced).is_none() {
            break;
        }
        assert!(left > 0, "{replaced} is there");
    }
    assert_eq!(reader.refresh().unwrap(), db.snapshot().seq());
    let of_late = |view: &View| rows(view).into_iter().find(|(series, _)| series == "late");
    let found = of_late(&reader);
    assert!(found.as_ref().is_some_and(|(_, rows)| rows.is_ok()) && found == of_late(&db));
    assert_eq!(reader.status().unwrap().damaged.len(), 1);
}

/// A backup of a database of which a file is gone, and which nobody writes, is tried once.
#[test]
fn a_backup_without_a_file_is_tried_once() {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), Options { workers: 0, ..options() }).unwrap();
    define(&db).unwrap();
    for i in 1..=6 {
        db.commit(transaction(i, false).unwrap()).unwrap();
    }
    db.checkpoint().unwrap();
    db.checkpoint().unwrap();
    drop(db);
    let gone = disk.files().into_iter().find(|name| name.starts_with("segments/tick/")).unwrap();
    disk.remove(&gone).unwrap();
    let reader = Database::open_read_only_with(Arc::new(disk), 0).unwrap();
    let made: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
    let dest = FaultyDisk::new(SimulatedDisk::new());
    let seen = made.clone();
    dest.watch(move |call| {
        if call.act == Act::Create && call.name != "UNFINISHED" {
            *seen.lock().unwrap().entry(call.name.to_string()).or_default() += 1;
        }
        Ok(())
    });
    let failed = reader.backup_on(Arc::new(dest), |_, _| ()).err().unwrap();
    assert!(failed.to_string().contains(&gone), "{failed}");
    let made = made.lock().unwrap();
    assert!(made.len() > 2 && made.values().all(|times| *times == 1), "{made:?}");
}
