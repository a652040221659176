//! Files that are given back and used again.

use std::sync::Arc;

use underbelly_storage::disk::SimulatedDisk;
use underbelly_wal::{Log, LogOptions, Recycled};

use crate::world::*;

const SMALL: u64 = 16 << 10;

#[test]
fn stale_batches_never_replay() {
    // A source of salts that always gives the same number must not bring old records back either.
    let same_salt = || LogOptions { salt: Arc::new(|| 7), ..LogOptions::with_file_len(SMALL) };
    for repeat in [false, true] {
        let make = |opening| if repeat { same_salt() } else { options_of(opening, SMALL) };
        let disk = SimulatedDisk::new();
        let mut log = Log::create(shared(&disk), DB, 1, make(0)).unwrap();
        for seq in 1..=40 {
            // Batches of one block: every stale batch begins where a new one would.
            log.write(&records(seq..=seq, 50)).unwrap();
            let from = log.recycle(seq.saturating_sub(1)).map(|_| seq.saturating_sub(1) + 1).unwrap();
            let (_, recovery, seen) = open(&disk.crash(), from, seq, make(seq)).unwrap();
            assert_eq!(seen, records(from..=seq, 50), "seq {seq}");
            assert_eq!((recovery.last_seq, recovery.torn), (seq, None), "seq {seq}");
        }
        assert!(log.stats().file > 10);
        assert!(log.stats().files + log.stats().spares <= 4, "space is reused");
    }
}

#[test]
fn only_files_wholly_in_the_checkpoint_are_given_back_and_two_are_kept() {
    let disk = SimulatedDisk::new();
    let mut log = Log::create(shared(&disk), DB, 1, options(SMALL)).unwrap();
    (1..=15).for_each(|seq| log.write(&records(seq..=seq, 50)).unwrap());
    assert_eq!((log.stats().file, log.stats().files, log.stats().spares), (5, 5, 0));
    assert_eq!(log.recycle(2).unwrap(), Recycled::default());
    assert_eq!(log.recycle(3).unwrap(), Recycled { spared: 1, removed: 0 });
    assert_eq!(log.recycle(9).unwrap(), Recycled { spared: 1, removed: 1 });
    assert_eq!(log.recycle(u64::MAX).unwrap(), Recycled { spared: 0, removed: 1 });
    assert_eq!((log.stats().files, log.stats().spares), (1, 2));
    assert!(log.spare_job().is_none(), "a spare is ready");
    let (log, recovery, _) = open(&disk.crash(), 13, 15, options_of(1, SMALL)).unwrap();
    assert_eq!((recovery.records, recovery.files), (3, 1));
    assert_eq!(log.stats().spares, 1, "one of two was put to use");
}

#[test]
fn files_below_the_checkpoint_are_given_back_after_a_reopen() {
    let disk = SimulatedDisk::new();
    let mut log = Log::create(shared(&disk), DB, 1, options(SMALL)).unwrap();
    (1..=15).for_each(|seq| log.write(&records(seq..=seq, 50)).unwrap());
    log.seal().unwrap();
    let disk = disk.crash();
    let (mut log, recovery, _) = open(&disk, 8, 15, options_of(1, SMALL)).unwrap();
    assert_eq!((recovery.files, recovery.first_seq), (4, Some(8)));
    assert_eq!(log.recycle(7).unwrap(), Recycled { spared: 2, removed: 0 });
    assert_eq!(open(&disk.crash(), 8, 15, options_of(2, SMALL)).unwrap().2, records(8..=15, 50));
}

#[test]
fn a_spare_prepared_elsewhere_is_adopted_and_leftovers_are_tidied() {
    let disk = SimulatedDisk::new();
    let mut log = Log::create(shared(&disk), DB, 1, options(SMALL)).unwrap();
    let job = log.spare_job().unwrap();
    log.write(&records(1..=1, 10)).unwrap();
    log.adopt_spare(job.run().unwrap());
    assert!(log.spare_job().is_none());
    assert_eq!(log.stats().spares, 1);

    let disk = disk.crash();
    let spare = disk.files().into_iter().find(|name| name.contains("spare")).unwrap();
    assert_eq!(disk.contents(&spare).unwrap(), vec![0; SMALL as usize], "durable when it is ready");
    disk.overwrite("wal/spare-0000000050.tmp", vec![0; 5000]);
    disk.overwrite("wal/spare-0000000051", vec![0; 5000]);
    disk.overwrite("wal/notes.txt", b"not ours".to_vec());
    let (mut log, _, _) = open(&disk, 1, 1, options_of(1, SMALL)).unwrap();
    let files = disk.files();
    assert!(files.iter().all(|name| !name.contains("5")), "{files:?}");
    assert!(files.iter().any(|name| name.ends_with("notes.txt")));
    (2..=20).for_each(|seq| log.write(&records(seq..=seq, 50)).unwrap());
    assert_eq!(open(&disk.crash(), 1, 20, options_of(2, SMALL)).unwrap().2.len(), 20);
}

#[test]
fn another_file_length_is_fine_from_one_opening_to_the_next() {
    let disk = SimulatedDisk::new();
    let mut log = Log::create(shared(&disk), DB, 1, options(SMALL)).unwrap();
    log.prepare_spare().unwrap();
    log.write(&records(1..=5, 2000)).unwrap();
    log.seal().unwrap();
    let (mut log, _, _) = open(&disk, 1, 5, options_of(1, 1 << 16)).unwrap();
    log.write(&records(6..=20, 20_000)).unwrap();
    log.recycle(12).unwrap();
    let (mut log, _, seen) = open(&disk.crash(), 13, 20, options_of(2, SMALL)).unwrap();
    assert_eq!(seen, records(13..=20, 20_000));
    log.recycle(20).unwrap();
}
