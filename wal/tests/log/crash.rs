//! Power cuts: what comes back is a prefix that holds everything acknowledged.

use proptest::prelude::*;
use underbelly_storage::disk::SimulatedDisk;
use underbelly_wal::{Log, WalError};

use crate::world::*;

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<u16>),
    Seal,
    Recycle(u64),
    PrepareSpare,
    /// Closes and opens again.
    Reopen,
    /// Cuts the power; sectors that were not synced survive by the seed.
    Crash(u64),
    /// Writes on a disk that fails after some calls, then cuts the power.
    CrashWriting(Vec<u16>, u64, u64),
    /// Cuts the power in the middle of the recovery from a power cut.
    CrashRecovering(u64, u64),
}

fn lengths() -> impl Strategy<Value = Vec<u16>> {
    prop::collection::vec(prop_oneof![0..200u16, 0..9000u16], 1..12)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => lengths().prop_map(Step::Write),
        1 => Just(Step::Seal),
        2 => (0..40u64).prop_map(Step::Recycle),
        1 => Just(Step::PrepareSpare),
        1 => Just(Step::Reopen),
        2 => any::<u64>().prop_map(Step::Crash),
        3 => (lengths(), 0..12u64, any::<u64>()).prop_map(|(l, n, s)| Step::CrashWriting(l, n, s)),
        1 => (0..12u64, any::<u64>()).prop_map(|(n, s)| Step::CrashRecovering(n, s)),
    ]
}

struct World {
    disk: SimulatedDisk,
    log: Log,
    /// Everything written, acknowledged up to `acknowledged`.
    written: Records,
    acknowledged: u64,
    checkpoint: u64,
    openings: u64,
}

impl World {
    fn new() -> World {
        let disk = SimulatedDisk::new();
        let log = Log::create(shared(&disk), DB, 1, options_of(0, 1 << 16)).unwrap();
        World { disk, log, written: Records::new(), acknowledged: 0, checkpoint: 0, openings: 0 }
    }

    fn write(&mut self, lengths: &[u16]) -> Result<(), WalError> {
        let first = self.written.len() as u64 + 1;
        let batch: Records = (first..).zip(lengths).map(|(s, &l)| (s, record(s, l.into()))).collect();
        self.written.extend(batch.iter().cloned());
        self.log.write(&batch)?;
        self.acknowledged = self.written.len() as u64;
        Ok(())
    }

    fn reopen(&mut self) {
        self.openings += 1;
        let options = options_of(self.openings, 1 << 16);
        let (log, recovery, seen) =
            open(&self.disk, self.checkpoint + 1, self.acknowledged, options).unwrap();
        assert!(recovery.last_seq >= self.acknowledged, "lost an acknowledged record");
        assert!(recovery.last_seq <= self.written.len() as u64, "invented a record");
        self.written.truncate(recovery.last_seq as usize);
        assert_eq!(seen, self.written[self.checkpoint as usize..]);
        assert_eq!(recovery.records, seen.len() as u64);
        self.acknowledged = recovery.last_seq;
        self.log = log;
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Write(lengths) => self.write(lengths).unwrap(),
            Step::Seal => self.log.seal().unwrap(),
            Step::Recycle(behind) => {
                self.checkpoint = self.checkpoint.max(self.acknowledged.saturating_sub(*behind));
                self.log.recycle(self.checkpoint).unwrap();
            }
            Step::PrepareSpare => self.log.prepare_spare().unwrap(),
            Step::Reopen => {
                self.log.seal().unwrap();
                self.reopen();
            }
            Step::Crash(seed) => {
                self.disk = self.disk.crash_with(*seed);
                self.reopen();
            }
            Step::CrashWriting(lengths, calls, seed) => {
                self.disk.fail_at(Some(self.disk.calls() + calls));
                self.write(lengths).ok();
                self.disk = self.disk.crash_with(*seed);
                self.reopen();
            }
            Step::CrashRecovering(calls, seed) => {
                self.disk = self.disk.crash_with(*seed);
                self.disk.fail_at(Some(self.disk.calls() + calls));
                open(&self.disk, self.checkpoint + 1, 0, options_of(self.openings + (1 << 20), 1 << 16)).ok();
                self.disk = self.disk.crash_with(seed.rotate_left(7));
                self.reopen();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn a_prefix_with_everything_acknowledged_survives(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.disk = world.disk.crash();
        world.reopen();
    }
}

/// A log with records 1 to 3, sealed or not, and the bytes of file and batch before the batch of 4 to 8 came.
fn before_and_after(reused: bool) -> (SimulatedDisk, String, Vec<u8>, Vec<u8>) {
    let disk = SimulatedDisk::new();
    let mut log = Log::create(shared(&disk), DB, 1, options(1 << 16)).unwrap();
    let mut next = 1;
    if reused {
        // Fill files with other batches and give them back until the active file is a recycled one.
        while log.stats().file < 5 {
            log.write(&records(next..=next + 2, 5000)).unwrap();
            next += 3;
            log.recycle(next - 1).unwrap();
        }
    }
    log.write(&records(next..=next + 2, 100)).unwrap();
    let file = format!("wal/{:010}.wal", log.stats().file);
    let before = disk.contents(&file).unwrap();
    log.write(&records(next + 3..=next + 7, 4000)).unwrap();
    let after = disk.contents(&file).unwrap();
    (disk, file, before, after)
}

#[test]
fn a_tail_torn_anywhere_is_dropped_kept_aside_and_never_appended_to() {
    for reused in [false, true] {
        let (disk, file, before, after) = before_and_after(reused);
        let start = before.iter().zip(&after).position(|(a, b)| a != b).unwrap() / BLOCK * BLOCK;
        let payload_end = start + 56 + 5 * (12 + 4000);
        let end = payload_end.next_multiple_of(BLOCK);
        let all =
            open(&disk.crash_keeping_all(), 1.max(open_from(&disk)), 0, options_of(1, 1 << 16)).unwrap().2;
        let cuts = (start..=end).step_by(BLOCK).chain((start + 1..end).step_by(977)).chain([
            start + 3,
            start + 55,
            start + 57,
            payload_end - 1,
            payload_end,
        ]);
        for cut in cuts {
            let torn_disk = disk.crash_keeping_all();
            let mut bytes = before.clone();
            bytes[start..cut].copy_from_slice(&after[start..cut]);
            torn_disk.overwrite(&file, bytes.clone());
            let from = open_from(&disk);
            let (mut log, recovery, seen) = open(&torn_disk, from, 0, options_of(2, 1 << 16)).unwrap();
            // Where padding held an earlier batch the cut shows no difference.
            if cut >= payload_end {
                assert_eq!((&seen, recovery.torn), (&all, None), "cut {cut} reused {reused}");
            } else {
                assert_eq!(seen, all[..all.len() - 5], "cut {cut} reused {reused}");
                match recovery.torn {
                    Some(torn) => {
                        assert_eq!((torn.file.as_str(), torn.offset), (file.as_str(), start as u64));
                        let kept = torn_disk.contents(&torn.kept_as).unwrap();
                        assert_eq!(kept, bytes[start..start + torn.bytes as usize]);
                        let not_kept = &bytes[(start + kept.len()).min(cut)..cut];
                        assert!(not_kept.iter().all(|&byte| byte == 0), "cut {cut} reused {reused}");
                    }
                    None => assert!(cut == start || (reused && cut < start + 16), "cut {cut}"),
                }
            }
            let next = log.next_seq();
            assert_ne!(format!("wal/{:010}.wal", log.stats().file), file, "appends behind a tear");
            log.write(&records(next..=next, 50)).unwrap();
            let (_, recovery, again) = open(&torn_disk.crash(), from, next, options_of(3, 1 << 16)).unwrap();
            assert_eq!(recovery.torn, None, "an old tear is known");
            assert_eq!(again[..again.len() - 1], seen);
            assert_eq!(again.last(), records(next..=next, 50).last());
        }
    }
}

/// First seq that the files on the disk hold.
fn open_from(disk: &SimulatedDisk) -> u64 {
    let logs = disk.files().into_iter().filter(|name| name.ends_with(".wal"));
    let first_seq = |name: String| {
        let bytes = disk.contents(&name).unwrap();
        u64::from_le_bytes(bytes[56..64].try_into().unwrap())
    };
    logs.map(first_seq).min().unwrap()
}

#[test]
fn recovery_that_is_cut_short_recovers_again() {
    let (disk, file, before, after) = before_and_after(false);
    let start = before.iter().zip(&after).position(|(a, b)| a != b).unwrap() / BLOCK * BLOCK;
    let mut bytes = before;
    bytes[start..start + 6000].copy_from_slice(&after[start..start + 6000]);
    disk.overwrite(&file, bytes);
    let mut interrupted = 0;
    for call in 0.. {
        let torn = disk.crash_keeping_all();
        torn.fail_at(Some(call));
        let failed = open(&torn, 1, 3, options_of(1, 1 << 16)).is_err();
        for left in [torn.crash(), torn.crash_with(call), torn.crash_keeping_all()] {
            let (mut log, recovery, seen) = open(&left, 1, 3, options_of(2, 1 << 16)).unwrap();
            assert_eq!(seen, records(1..=3, 100));
            assert_eq!(recovery.last_seq, 3);
            let kept = left.contents(&format!("lost/0000000001-{start}.torn")).unwrap();
            assert_eq!(kept[..], after[start..start + 6000]);
            log.write(&records(4..=4, 10)).unwrap();
            let left = left.crash();
            assert!(left.files().iter().all(|name| !name.ends_with(".tmp")));
            assert_eq!(open(&left, 1, 4, options_of(3, 1 << 16)).unwrap().2.len(), 4);
        }
        if !failed {
            break;
        }
        interrupted += 1;
    }
    assert!(interrupted >= 10, "{interrupted}");
}

#[test]
fn creation_that_is_cut_short_can_be_repeated() {
    for call in 0.. {
        let disk = SimulatedDisk::new();
        disk.fail_at(Some(call));
        let failed = Log::create(shared(&disk), DB, 1, options(1 << 16)).is_err();
        for left in [disk.crash(), disk.crash_keeping_all()] {
            let mut log = Log::create(shared(&left), DB, 1, options_of(1, 1 << 16)).unwrap();
            log.write(&records(1..=2, 10)).unwrap();
            assert_eq!(open(&left.crash(), 1, 2, options_of(2, 1 << 16)).unwrap().2, records(1..=2, 10));
            let again = Log::create(shared(&left), DB, 1, options(1 << 16));
            assert!(matches!(again, Err(WalError::Exists { .. })));
        }
        if !failed {
            break;
        }
    }
}

/// Where the first batch rotted the others are there, and no creation takes their place.
#[test]
fn a_log_whose_first_batch_rotted_is_there() {
    let disk = SimulatedDisk::new();
    let mut log = Log::create(shared(&disk), DB, 1, options(1 << 16)).unwrap();
    log.write(&records(1..=2, 10)).unwrap();
    log.write(&records(3..=4, 10)).unwrap();
    drop(log);
    let name = disk.files().into_iter().find(|name| name.starts_with("wal/0")).unwrap();
    let mut bytes = disk.contents(&name).unwrap();
    bytes[BLOCK..BLOCK + 16].fill(0);
    disk.overwrite(&name, bytes.clone());
    let again = Log::create(shared(&disk), DB, 1, options(1 << 16));
    assert!(matches!(again, Err(WalError::Exists { .. })));
    assert!(disk.contents(&name).unwrap() == bytes);
}

#[test]
fn a_sealed_log_goes_on_in_its_file_and_an_unsealed_one_in_a_fresh_file() {
    let disk = SimulatedDisk::new();
    let mut log = Log::create(shared(&disk), DB, 10, options(1 << 16)).unwrap();
    log.write(&records(10..=12, 10)).unwrap();
    log.seal().unwrap();
    let batches = log.stats().batches;
    log.seal().unwrap();
    assert_eq!(log.stats().batches, batches, "a seal is not sealed again");
    let (mut log, recovery, _) = open(&disk.crash(), 10, 12, options_of(1, 1 << 16)).unwrap();
    assert!(recovery.sealed);
    assert_eq!((log.stats().file, log.next_seq()), (1, 13));
    log.write(&records(13..=13, 10)).unwrap();

    let disk = disk.crash();
    let (mut log, _, _) = open(&disk, 10, 12, options_of(2, 1 << 16)).unwrap();
    log.write(&records(13..=13, 10)).unwrap();
    let disk = disk.crash();
    let (log, recovery, seen) = open(&disk, 11, 13, options_of(3, 1 << 16)).unwrap();
    assert!(!recovery.sealed);
    assert_eq!(log.stats().file, 2);
    assert_eq!(seen, records(11..=13, 10));
    let (log, recovery, _) = open(&disk.crash(), 14, 13, options_of(4, 1 << 16)).unwrap();
    assert!(recovery.sealed);
    assert_eq!(log.stats().file, 2, "an empty file is used, not left behind");
    assert_eq!((recovery.records, recovery.first_seq, recovery.last_seq), (0, None, 13));
}

#[test]
fn a_tear_behind_a_seal_is_not_appended_to() {
    let disk = SimulatedDisk::new();
    let mut log = Log::create(shared(&disk), DB, 1, options(1 << 16)).unwrap();
    log.write(&records(1..=1, 10)).unwrap();
    log.seal().unwrap();
    let name = "wal/0000000001.wal";
    let mut bytes = disk.contents(name).unwrap();
    bytes[3 * BLOCK + 600..3 * BLOCK + 700].fill(1);
    disk.overwrite(name, bytes);
    let (log, recovery, _) = open(&disk, 1, 1, options_of(1, 1 << 16)).unwrap();
    assert!(recovery.sealed);
    let torn = recovery.torn.unwrap();
    assert_eq!((torn.offset, torn.bytes), (3 * BLOCK as u64, 700));
    assert_eq!(log.stats().file, 2);
}
