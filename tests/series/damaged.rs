//! A segment that is damaged keeps its deleted rows hidden, and keeps no checkpoint from being made.

use std::sync::Arc;

use underbelly::{Batch, Database, Delete, Options, Row, SimulatedDisk, Timestamp};
use underbelly_tests::options;

/// Rows of each day: as many of key a as of key b.
const ROWS: i64 = 40;

fn opened(disk: &SimulatedDisk) -> Option<Database> {
    Database::open_on(Arc::new(disk.clone()), Options { workers: 0, ..options() }).ok()
}

/// A database with a segment for each of so many days.
fn with_days(days: i64) -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), Options { workers: 0, ..options() }).unwrap();
    for day in 0..days {
        append(&db, day);
        db.checkpoint().unwrap();
    }
    disk.crash()
}

fn append(db: &Database, day: i64) {
    let mut batch = Batch::new();
    for i in 0..ROWS {
        let row = Row::new("s", Timestamp(day * 1000 + i)).key("k", if i % 2 == 0 { "a" } else { "b" });
        batch.append(row.field("x", (i * 7919) % 31)).unwrap();
    }
    db.commit(batch).unwrap();
}

fn segments(disk: &SimulatedDisk) -> Vec<String> {
    disk.files().into_iter().filter(|name| name.starts_with("segments/s/")).collect()
}

/// Keys of the rows of a day; `None` where they cannot be read.
fn keys(db: &Database, day: i64) -> Option<Vec<String>> {
    let series = db.snapshot().series("s").unwrap();
    let scan = series.scan().columns(["k"]).from(Timestamp(day * 1000)).to(Timestamp(day * 1000 + ROWS));
    let rows = scan.collect().ok()?;
    Some((0..rows.rows()).map(|row| rows.value("k", row).unwrap().as_str().unwrap().to_string()).collect())
}

/// The same disk with one byte of a file changed, in turn at places all over the file, where the database still opens
/// and some block of the file cannot be read.
fn rotten(disk: &SimulatedDisk, name: &str) -> Vec<SimulatedDisk> {
    let bytes = disk.contents(name).unwrap();
    let disks = (0..bytes.len()).step_by(16).map(|at| {
        let (disk, mut bytes) = (disk.crash_keeping_all(), bytes.clone());
        bytes[at] ^= 0x55;
        disk.overwrite(name, bytes);
        disk
    });
    let cannot_be_read = |disk: &SimulatedDisk| {
        opened(disk).is_some_and(|db| db.snapshot().series("s").unwrap().scan().collect().is_err())
    };
    let disks: Vec<SimulatedDisk> = disks.filter(cannot_be_read).collect();
    assert!(!disks.is_empty());
    disks
}

/// Whether the segments that are told are this one.
fn names(told: &[String], name: &str) -> bool {
    told.len() == 1 && told.iter().all(|told| told.contains(name))
}

/// Whichever block of a segment is damaged: a checkpoint that would write it anew leaves it as it is, its deleted rows
/// stay hidden, the other segments are written without theirs, and nothing is left to be replayed.
#[test]
fn a_damaged_segment_keeps_its_deleted_rows_hidden_and_no_checkpoint_back() {
    let disk = with_days(3);
    let name = &segments(&disk)[1];
    let mut keys_read = Vec::new();
    for disk in rotten(&disk, name) {
        let db = opened(&disk).unwrap();
        let mut batch = Batch::new();
        batch.delete_rows("s", Delete::all().key("k", "a"));
        db.commit(batch).unwrap();
        let mut batch = Batch::new();
        batch.delete_rows("s", Delete::all().from(Timestamp(ROWS / 2)).to(Timestamp(1000)));
        db.commit(batch).unwrap();
        append(&db, 9);
        let hidden = |db: &Database| {
            let is_b = |key: &String| key == "b";
            assert_eq!([0, 2, 9].map(|day| keys(db, day).map(|keys| keys.len())), [10, 20, 40].map(Some));
            assert!([0, 2].into_iter().all(|day| keys(db, day).unwrap().iter().all(is_b)));
            let of_damaged = keys(db, 1);
            assert!(of_damaged.iter().flatten().all(is_b), "{of_damaged:?}");
            of_damaged.is_some()
        };
        keys_read.push(hidden(&db));
        let before = db.snapshot().seq();
        let report = db.checkpoint().unwrap();
        assert_eq!((report.seq, report.rows_deleted), (before, 50));
        assert!(names(&report.damaged, name) && db.status().damaged == report.damaged, "{report:?}");
        assert_eq!(db.snapshot().series_info("s").map_or(1, |info| info.deletes), 1);
        hidden(&db);
        assert_eq!(db.checkpoint().unwrap().rows_deleted, 0);
        assert!(names(&db.status().damaged, name));
        let reader = Database::open_read_only_with(Arc::new(disk.clone()), 0).unwrap();
        assert_eq!(reader.status().unwrap().damaged, db.status().damaged);
        drop((reader, db));
        let db = opened(&disk.crash()).unwrap();
        assert!(db.recovery_report().replayed <= 1, "{:?}", db.recovery_report());
        assert!(names(&db.status().damaged, name));
        hidden(&db);
        assert!(segments(&disk).contains(name), "the damaged file stays");
    }
    assert!(keys_read.contains(&true) && keys_read.contains(&false), "fields and keys: {keys_read:?}");
}

/// Small segments are merged without those of them that are damaged.
#[test]
fn a_damaged_small_segment_keeps_no_checkpoint_back() {
    let disk = with_days(8);
    let name = &segments(&disk)[3];
    for disk in rotten(&disk, name) {
        let db = opened(&disk).unwrap();
        append(&db, 9);
        assert_eq!(db.checkpoint().unwrap().segments, 2, "that of the feed among them");
        assert!(names(&db.status().damaged, name));
        db.checkpoint().unwrap();
        drop(db);
        let db = opened(&disk.crash()).unwrap();
        let days = [0, 1, 2, 4, 5, 6, 7, 9].map(|day| keys(&db, day).unwrap().len());
        assert_eq!(days, [ROWS as usize; 8]);
        let files = segments(&disk);
        assert!(files.len() <= 3 && files.contains(name), "{files:?}");
    }
}

/// The same disk with every block of some files damaged.
fn ruined(disk: &SimulatedDisk, names: &[String]) -> SimulatedDisk {
    let twin = disk.crash_keeping_all();
    for name in names {
        let mut bytes = disk.contents(name).unwrap();
        // The footer, which an opening reads, is behind the blocks.
        bytes.iter_mut().take(256).step_by(16).for_each(|byte| *byte ^= 0x55);
        twin.overwrite(name, bytes);
    }
    twin
}

/// Damaged segments are told all, not the last alone, as long as they are there.
#[test]
fn every_damaged_segment_is_told() {
    let disk = with_days(4);
    let names = segments(&disk);
    let disk = ruined(&disk, &names[..3]);
    let db = opened(&disk).unwrap();
    let mut batch = Batch::new();
    batch.delete_rows("s", Delete::all().key("k", "a"));
    db.commit(batch).unwrap();
    for _ in 0..2 {
        let report = db.checkpoint().unwrap();
        let told: Vec<bool> =
            names.iter().map(|name| report.damaged.iter().any(|told| told.contains(name))).collect();
        assert_eq!((told, report.damaged.len()), (vec![true, true, true, false], 3), "{report:?}");
        assert_eq!(db.status().damaged, report.damaged);
    }
    assert_eq!(db.status().trouble, None);
}

/// Small segments that are damaged do not call for a merge: the sound one beside them is left as it is from then on.
#[test]
fn damaged_small_segments_do_not_have_sound_ones_written_each_time() {
    let disk = with_days(8);
    let names = segments(&disk);
    let disk = ruined(&disk, &names[..7]);
    let db = opened(&disk).unwrap();
    let written = [(); 3].map(|()| {
        let report = db.checkpoint().unwrap();
        assert_eq!(report.damaged.len(), 7);
        report.segments
    });
    assert_eq!(written, [2, 0, 0], "merged once, as nobody knew of the damage, and the feed's");
    assert_eq!(keys(&db, 7).map(|keys| keys.len()), Some(ROWS as usize));
}

/// A damaged segment uses up none of what a checkpoint may read before the sound ones were read.
#[test]
fn damaged_segments_keep_no_other_waiting() {
    let disk = with_days(4);
    let disk = ruined(&disk, &segments(&disk)[..2]);
    let options = Options { workers: 0, checkpoint_bytes: 1, ..options() };
    let db = Database::open_on(Arc::new(disk), options).unwrap();
    let mut batch = Batch::new();
    batch.delete_rows("s", Delete::all().key("k", "a"));
    db.commit(batch).unwrap();
    let deleted = (0..5).map(|_| db.checkpoint().unwrap().rows_deleted).sum::<u64>();
    assert_eq!(deleted, ROWS as u64, "half the rows of two days");
}
