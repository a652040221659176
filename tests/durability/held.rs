//! Damage in a part of the log that the newest checkpoint holds stops nobody, and is told by everybody.

use std::sync::Arc;

use tempfile::TempDir;
use underbelly::{BackupOptions, Database, SimulatedDisk};
use underbelly_tests::sample::lay_out;
use underbelly_tests::{define, options, shown, transaction};

const BLOCK: usize = 4096;

/// A killed database: transactions that a checkpoint holds, and others behind it in the same log file. Answers the file,
/// and the byte at which the first of the others begins.
fn killed(later: u64) -> (SimulatedDisk, String, usize) {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    define(&db).unwrap();
    let commit = |i: u64| {
        db.commit(transaction(i, false).unwrap()).unwrap();
    };
    (1..=3).for_each(commit);
    db.checkpoint().unwrap();
    let log = db.status().log;
    (4..4 + later).for_each(commit);
    assert_eq!(db.status().log.file, log.file);
    (disk.crash(), format!("wal/{:010}.wal", log.file), log.offset as usize)
}

fn open(disk: &SimulatedDisk) -> Database {
    Database::open_on(Arc::new(disk.clone()), options()).unwrap()
}

#[test]
fn damage_in_what_a_checkpoint_holds_stops_nobody_and_is_told() {
    let (disk, log, place) = killed(3);
    let expected = shown(&open(&disk.crash())).unwrap();
    let whole = disk.contents(&log).unwrap();
    assert!(place >= 5 * BLOCK, "{place}");
    for at in (BLOCK..place).filter(|at| whole[*at] != 0 && at % BLOCK < 400).step_by(31) {
        let rotten = disk.crash_keeping_all();
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        rotten.overwrite(&log, bytes);
        let named = format!("{log} is damaged at byte {}", at / BLOCK * BLOCK);
        let is_told = |text: &str| text.contains(&named) && text.contains("nothing is lost");

        let verified = Database::verify_on(Arc::new(rotten.clone()), |_, _| ()).unwrap();
        assert!(verified.damages.len() == 1 && is_told(&verified.damages[0]), "{:?}", verified.damages);
        let reader = Database::open_read_only_on(Arc::new(rotten.clone())).unwrap();
        assert_eq!(shown(&reader).unwrap(), expected, "byte {at}");
        assert!(is_told(&reader.status().unwrap().log_damage.unwrap()), "byte {at}");

        for _ in 0..2 {
            let db = open(&rotten);
            assert_eq!(shown(&db).unwrap(), expected, "byte {at}");
            assert!(is_told(db.recovery_report().log_damage.as_ref().unwrap()), "byte {at}");
            let reader = Database::open_read_only_on(Arc::new(rotten.clone())).unwrap();
            assert!(is_told(&reader.status().unwrap().recovery.unwrap().log_damage.unwrap()), "byte {at}");
        }
        // It goes on, and checkpoints let go of the file.
        let db = open(&rotten);
        for i in 7..=30 {
            db.commit(transaction(i, false).unwrap()).unwrap();
            if i % 8 == 0 {
                db.checkpoint().unwrap();
            }
        }
        db.close().unwrap();
        let db = open(&rotten.crash());
        assert_eq!(db.recovery_report().log_damage, None);
        assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
    }
}

/// Copies hold all of it: a backup is whole, and a repair loses nothing.
#[test]
fn copies_of_what_rotted_in_front_of_the_checkpoint_are_whole() {
    let (disk, log, place) = killed(3);
    let expected = shown(&open(&disk.crash())).unwrap();
    let mut bytes = disk.contents(&log).unwrap();
    bytes[place - BLOCK + 20] ^= 1;
    disk.overwrite(&log, bytes);
    let dir = TempDir::new().unwrap();
    lay_out(&disk, dir.path()).unwrap();
    let backup = TempDir::new().unwrap();
    let reader = Database::open_read_only(dir.path()).unwrap();
    reader.backup(backup.path(), BackupOptions::default(), |_, _| ()).unwrap();
    let saved = TempDir::new().unwrap();
    let report = Database::repair(dir.path(), saved.path(), |_, _| ()).unwrap();
    assert_eq!(report.losses, Vec::new());
    for copy in [backup, saved] {
        let db = Database::open_with(copy.path(), options()).unwrap();
        assert_eq!(shown(&db).unwrap(), expected);
        assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
    }
}

/// The header of the file that holds what is wanted is needed. Without it a repair saves what stands there all the same.
#[test]
fn a_repair_goes_without_the_header_of_the_newest_log_file() {
    let (disk, log, _) = killed(3);
    let expected = shown(&open(&disk.crash())).unwrap();
    let mut bytes = disk.contents(&log).unwrap();
    bytes[48] ^= 1;
    disk.overwrite(&log, bytes);
    let refused = Database::open_on(Arc::new(disk.clone()), options()).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains(&format!("{log} is damaged at byte 0")), "{refused}");
    let (dir, saved) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    lay_out(&disk, dir.path()).unwrap();
    let report = Database::repair(dir.path(), saved.path(), |_, _| ()).unwrap();
    assert!(report.losses.len() == 1 && report.losses[0].file == log, "{:?}", report.losses);
    let db = Database::open_with(saved.path(), options()).unwrap();
    assert_eq!(shown(&db).unwrap(), expected);
}

/// Damage in what a checkpoint holds does not hide damage in what it lacks.
#[test]
fn damage_behind_the_checkpoint_is_told_beside_damage_in_front_of_it() {
    let (disk, log, place) = killed(3);
    let whole = disk.contents(&log).unwrap();
    // Two damages, and one that reaches from the one side to the other.
    for damaged in [vec![place - BLOCK, place], (place - 2 * BLOCK..place + BLOCK).step_by(BLOCK).collect()] {
        let rotten = disk.crash_keeping_all();
        let mut bytes = whole.clone();
        damaged.iter().for_each(|at| bytes[at + 70] ^= 1);
        rotten.overwrite(&log, bytes);
        let dir = TempDir::new().unwrap();
        lay_out(&rotten, dir.path()).unwrap();
        let verified = Database::verify_on(Arc::new(rotten.clone()), |_, _| ()).unwrap().damages;
        let inspected = Database::inspect_log(dir.path()).unwrap().damages;
        for damages in [verified, inspected] {
            let told = |at: usize| {
                let named = format!("{log} is damaged at byte {at},");
                damages.iter().find(|damage| damage.contains(&named)).unwrap_or_else(|| panic!("{damages:?}"))
            };
            assert!(told(damaged[0]).contains("nothing is lost"), "{damages:?}");
            assert!(!told(place).contains("nothing is lost"), "{damages:?}");
        }
    }
}
