//! A segment that is damaged or gone keeps nobody from reading the rest.

use std::sync::Arc;

use underbelly::{
    Batch, Column, Columns, CopyError, Database, Disk, OpenError, Options, Reader, SimulatedDisk, Timestamp,
};
use underbelly_tests::{BOOK, day, define, options, transaction};

/// The rows of each series, or why they cannot be read.
fn rows(db: &Reader) -> Vec<(String, Result<String, String>)> {
    let snapshot = db.snapshot();
    let of = |name: String| {
        let read = snapshot.series(&name).unwrap().scan().collect();
        (name, read.map(|rows| format!("{rows:?}")).map_err(|error| error.to_string()))
    };
    snapshot.series_names().into_iter().map(of).collect()
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
    let mut batch = Batch::new();
    let columns = Columns::new().with("x", Column::from((0..20_000).collect::<Vec<i64>>())).unwrap();
    batch.append_columns("late", (0..20_000).map(Timestamp).collect(), columns, &[]).unwrap();
    db.commit(batch).unwrap();
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
