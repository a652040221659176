//! Logs that are damaged, or of which files are missing, where no manifest is left.

use std::sync::Arc;

use tempfile::TempDir;
use underbelly::{Database, Delete, Disk, Options, RepairReport, SimulatedDisk, Timestamp};
use underbelly_tests::{BULK_ROWS, define, options, transaction};

use super::segments::{deleting, keyed};
use super::{lay_out, remove, repaired, transaction_of_rows, values};

/// Damages the batch that began at `at` in the log's only file.
pub fn damage_log(disk: &SimulatedDisk, at: u64) {
    let log = disk.files().into_iter().find(|name| name.ends_with(".wal")).unwrap();
    let mut bytes = disk.contents(&log).unwrap();
    bytes[at as usize + 70] ^= 1;
    disk.overwrite(&log, bytes);
}

/// What a repair without manifests makes of a log that is damaged at a byte.
fn repaired_behind_damage(disk: &SimulatedDisk, at: u64) -> (RepairReport, Database, TempDir) {
    let disk = disk.crash();
    remove(&disk, "MANIFEST-");
    damage_log(&disk, at);
    let (report, saved) = repaired(&disk);
    let db = Database::open_with(saved.path(), options()).unwrap();
    (report, db, saved)
}

/// A beginning of the log whose rows are deleted counts for nothing against rows that are there.
#[test]
fn deleted_rows_make_the_beginning_of_the_log_worth_nothing() {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    db.commit(keyed(0, 1_000)).unwrap();
    db.commit(deleting(Delete::all())).unwrap();
    let at = db.status().log.offset;
    db.commit(keyed(5_000, 10)).unwrap();
    db.checkpoint().unwrap();
    let (report, db, _saved) = repaired_behind_damage(&disk, at);
    assert_eq!(values(&db, "s", "x"), (5_000..5_010).collect::<Vec<_>>(), "{report:?}");
}

/// Some rows more in the segments are not worth all cells, models and variables.
#[test]
fn the_beginning_of_the_log_is_worth_more_than_a_few_rows() {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    define(&db).unwrap();
    db.commit(keyed(0, 1_000)).unwrap();
    for i in 1..=8 {
        db.commit(transaction(i, false).unwrap()).unwrap();
    }
    let at = db.status().log.offset;
    db.commit(keyed(5_000, 100)).unwrap();
    db.checkpoint().unwrap();
    let (report, db, _saved) = repaired_behind_damage(&disk, at);
    assert_eq!(values(&db, "tick", "x"), (1..=8).collect::<Vec<_>>(), "{report:?}");
    assert!(db.snapshot().slot(underbelly_tests::BOOK, underbelly_tests::day(), ["c1"]).unwrap().is_some());
}

/// Where damage parts the log from what the segments hold, what is lost between them is told; and where the beginning of the
/// log gives more, it is taken.
#[test]
fn a_gap_between_segments_and_the_log_is_told() {
    for (until, from_the_log) in [(90, false), (60, true)] {
        let disk = SimulatedDisk::new();
        let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
        let commit = |i: i64| {
            db.commit(transaction_of_rows(i)).unwrap();
        };
        (1..=4).for_each(commit);
        db.checkpoint().unwrap();
        let mut damaged = None;
        for i in 5..=until {
            commit(i);
            let log = db.status().log;
            // In the second file.
            if log.file == 2 && damaged.is_none() {
                damaged = Some((i, format!("wal/{:010}.wal", log.file), log.offset as usize));
            }
        }
        assert!(db.status().log.file > 3);
        // The opening is a transaction too.
        let before = db.snapshot().seq() as i64 - until;
        let (last, name, offset) = damaged.unwrap();
        let disk = disk.crash();
        remove(&disk, "MANIFEST-");
        let log =
            if from_the_log { disk.files().into_iter().rfind(|name| name.ends_with(".wal")) } else { None };
        let (name, offset) = log.map_or((name, offset), |name| (name, 4096));
        let mut bytes = disk.contents(&name).unwrap();
        bytes[offset + 70] ^= 1;
        disk.overwrite(&name, bytes);
        let (report, saved) = repaired(&disk);
        let db = Database::open_with(saved.path(), options()).unwrap();
        let found = values(&db, "tick", "x");
        assert!(report.losses.iter().any(|loss| loss.file == name), "{report:?}");
        if from_the_log {
            let whole: Vec<i64> = (1..=found.len() as i64).collect();
            assert!(found == whole && found.len() > last as usize, "{found:?}");
            continue;
        }
        let first = found[4];
        assert_eq!(found, (1..=4).chain(first..=until).collect::<Vec<_>>());
        let lost = format!("transactions {} to {}", before + 5, before + first - 1);
        assert!(report.losses.iter().any(|loss| loss.lost.starts_with(&lost)), "{lost}: {report:?}");
    }
}

/// A file of the log that is missing between others is a loss like a damaged one; where all before it are gone too, as after
/// a checkpoint, it is told what that means.
#[test]
fn a_missing_log_file_is_told_once_with_what_was_in_it() {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    let commit = |i: i64| {
        db.commit(transaction_of_rows(i)).unwrap();
    };
    (1..=4).for_each(commit);
    db.checkpoint().unwrap();
    (5..=150).for_each(commit);
    // The opening is a transaction too.
    let before = db.snapshot().seq() as i64 - 150;
    let log = |number: u64| format!("wal/{number:010}.wal");
    for missing in [vec![3], vec![1, 2, 3]] {
        let disk = disk.crash();
        remove(&disk, "MANIFEST-");
        missing.iter().for_each(|number| disk.remove(&log(*number)).unwrap());
        let (report, saved) = repaired(&disk);
        let db = Database::open_with(saved.path(), options()).unwrap();
        let found = values(&db, "tick", "x");
        let first = found[4];
        assert_eq!(found, (1..=4).chain(first..=150).collect::<Vec<_>>());
        let range = format!("transactions {} to {}", before + 5, before + first - 1);
        let losses: Vec<_> = report.losses.iter().filter(|loss| loss.lost.contains(&range)).collect();
        if missing == [3] {
            assert!(losses.len() == 1 && losses[0].file == log(3), "{range}: {report:?}");
        } else {
            assert!(losses.is_empty(), "{range}: {report:?}");
            assert!(report.assumed.iter().any(|told| told.contains(&range)), "{range}: {report:?}");
        }
    }
}

/// A delete that no checkpoint had applied is lost with the manifest and the log that held it; that is told.
#[test]
fn deletes_that_wait_are_back_and_that_is_told() {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    db.commit(keyed(0, 100)).unwrap();
    let _holds = db.snapshot();
    db.commit(deleting(Delete::all().from(Timestamp(10)))).unwrap();
    db.checkpoint().unwrap();
    let disk = disk.crash();
    remove(&disk, "MANIFEST-");
    for log in [true, false] {
        if !log {
            remove(&disk, "wal/");
        }
        let (report, saved) = repaired(&disk);
        let db = Database::open_with(saved.path(), options()).unwrap();
        let told = report.assumed.iter().any(|told| told.contains("no checkpoint had applied the delete"));
        assert!(log || told, "{report:?}");
        assert_eq!(values(&db, "s", "x").len(), if log { 10 } else { 100 }, "{report:?}");
    }
}

/// A delete that the log still tells, though it is not applied, hides no rows of a large append that came behind it, also
/// where nothing says any more which transaction that was.
#[test]
fn deletes_hide_no_large_append_that_came_behind_them() {
    let disk = SimulatedDisk::new();
    let db =
        Database::create_on(Arc::new(disk.clone()), Options { workers: 0, ..Options::default() }).unwrap();
    db.commit(keyed(0, 10)).unwrap();
    db.commit(deleting(Delete::all().from(Timestamp(5)))).unwrap();
    let at = db.status().log.offset;
    db.commit(keyed(1_000, BULK_ROWS)).unwrap();
    db.commit(keyed(1 << 30, 2)).unwrap();
    db.checkpoint().unwrap();
    let (report, db, _saved) = repaired_behind_damage(&disk, at);
    let expected = (0..5).chain(1_000..1_000 + BULK_ROWS as i64).chain([1 << 30, (1 << 30) + 1]);
    assert_eq!(values(&db, "s", "x"), expected.collect::<Vec<_>>(), "{report:?}");
    assert!(report.assumed.iter().any(|told| told.contains("nothing says which transaction")), "{report:?}");
}

/// A file of the log that cannot be taken at all, or a stray one, costs what only it holds: the rest is saved, and the copy sound.
#[test]
fn what_is_no_file_of_the_log_costs_no_more_than_the_log() {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    define(&db).unwrap();
    let mut stored = 0;
    for i in 1..=6 {
        db.commit(transaction(i, false).unwrap()).unwrap();
        if i == 4 {
            stored = db.checkpoint().unwrap().seq;
        }
    }
    let head = db.snapshot().seq();
    let disk = disk.crash();
    let other = SimulatedDisk::new();
    drop(Database::create_on(Arc::new(other.clone()), options()).unwrap());
    let foreign = other.contents("wal/0000000001.wal").unwrap();
    let id: String = foreign[16..32].iter().map(|byte| format!("{byte:02x}")).collect();
    let logs: Vec<String> = disk.files().into_iter().filter(|name| name.ends_with(".wal")).collect();
    let newest = logs.last().unwrap();
    let stray = format!("wal/{:010}.wal", newest[4..14].parse::<u64>().unwrap() + 1);
    for (name, is_stray) in [(newest, false), (&stray, true)] {
        for what in ["link", "folder", "foreign"] {
            let (dir, saved) = (TempDir::new().unwrap(), TempDir::new().unwrap());
            lay_out(&disk, dir.path()).unwrap();
            let path = dir.path().join(name);
            if !is_stray {
                std::fs::remove_file(&path).unwrap();
            }
            match what {
                "link" => std::os::unix::fs::symlink("/nowhere/at/all", &path).unwrap(),
                "folder" => std::fs::create_dir(&path).unwrap(),
                _ => std::fs::write(&path, &foreign).unwrap(),
            }
            let at = format!("{what} as {name}");
            let dest = saved.path().join("a/copy");
            let report = Database::repair(dir.path(), &dest, |_, _| ()).unwrap();
            let told: Vec<String> = report.losses.iter().map(ToString::to_string).collect();
            assert_eq!(report.seq, if is_stray { head } else { stored }, "{at}: {told:?}");
            assert!(told.iter().any(|loss| loss.contains(name)), "{at}: {told:?}");
            let reason = match what {
                "link" => "cannot open it: No such file",
                "folder" => "cannot open it: it is a folder",
                _ => "it belongs to another database",
            };
            assert!(told.iter().any(|loss| loss.contains(reason)), "{at}: {told:?}");
            let db = Database::open_with(&dest, options()).unwrap();
            let expected: Vec<i64> = if is_stray { (1..=6).collect() } else { (1..=4).collect() };
            assert_eq!(values(&db, "tick", "x"), expected, "{at}");
            drop(db);
            // A writer and whoever verifies say what it is, too.
            let refused = Database::open_with(dir.path(), options()).map(drop).unwrap_err().to_string();
            let verified = Database::verify_dir(dir.path(), |_, _| ()).unwrap().damages;
            assert!(verified.iter().any(|damage| damage.contains(name)), "{at}: {verified:?}");
            for told in verified.iter().filter(|damage| damage.contains(name)).chain([&refused]) {
                assert!(told.contains("move"), "{at}: {told}");
                assert!(what != "foreign" || told.contains(&id), "{at}: {told}");
            }
        }
    }
}

/// A repair or a backup that fails leaves no folder that it made.
#[test]
fn a_copy_that_fails_leaves_no_folder() {
    let disk = SimulatedDisk::new();
    drop(Database::create_on(Arc::new(disk.clone()), options()).unwrap());
    let (dir, saved) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for name in disk.files() {
        disk.overwrite(&name, vec![1; 100]);
    }
    lay_out(&disk, dir.path()).unwrap();
    let dest = saved.path().join("a/copy");
    Database::repair(dir.path(), &dest, |_, _| ()).unwrap_err();
    assert!(!saved.path().join("a").exists());
    std::fs::create_dir_all(&dest).unwrap();
    Database::repair(dir.path(), &dest, |_, _| ()).unwrap_err();
    assert_eq!(std::fs::read_dir(&dest).unwrap().count(), 0, "one that was there stays");
}
