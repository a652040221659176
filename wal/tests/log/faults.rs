//! Disks that fail: writing stops for good, and what was acknowledged comes back.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use underbelly_storage::disk::{Calls, Disk, Fault, FaultKind, FaultyDisk, SharedDisk, SimulatedDisk};
use underbelly_wal::{Log, Start, WalError};

use crate::world::*;

const SMALL: u64 = 16 << 10;

/// Writes, rolls, seals and recycles; returns the last acknowledged seq and the checkpoint.
fn script(disk: &SimulatedDisk) -> (u64, u64, Result<(), WalError>) {
    let (mut acknowledged, mut checkpoint) = (0, 0);
    let mut run = || {
        let mut log = Log::create(shared(disk), DB, 1, options(SMALL))?;
        let mut result = Ok(());
        for round in 0..8 {
            let first = log.next_seq();
            let step = log.write(&records(first..=first + round % 3, 1500)).and_then(|()| {
                acknowledged = first + round % 3;
                if round % 3 == 1 {
                    log.seal()?;
                    log.prepare_spare()?;
                }
                if round % 4 == 3 {
                    checkpoint = first - 1;
                    log.recycle(checkpoint)?;
                }
                Ok(())
            });
            if let Err(error) = step {
                // Nothing is written after a failure, or the failure left the log healthy.
                let poisoned = log.check_health().is_err();
                let next = log.next_seq();
                let later = [log.write(&records(next..=next, 1)), log.seal(), log.recycle(0).map(|_| ())];
                if poisoned {
                    assert!(later.iter().all(|r| matches!(r, Err(WalError::Poisoned { .. }))), "{later:?}");
                }
                result = Err(error);
                break;
            }
        }
        result
    };
    let result = run();
    (acknowledged, checkpoint, result)
}

#[test]
fn a_failure_at_any_call_loses_nothing_acknowledged() {
    let mut failures = 0;
    for call in 0.. {
        let disk = SimulatedDisk::new();
        disk.fail_at(Some(call));
        let (acknowledged, checkpoint, result) = script(&disk);
        if result.is_ok() {
            break;
        }
        failures += 1;
        let lefts = [disk.crash(), disk.crash_with(call), disk.crash_keeping_all()];
        // Another process goes on where this one stopped: what it sees may not be durable yet.
        disk.fail_at(None);
        if let Ok((mut log, recovery, _)) = open(&disk, checkpoint + 1, acknowledged, options_of(1, SMALL)) {
            let next = recovery.last_seq + 1;
            log.write(&records(next..=next, 1500)).unwrap();
            let (_, _, seen) = open(&disk.crash(), checkpoint + 1, next, options_of(2, SMALL)).unwrap();
            assert_eq!(seen, records(checkpoint + 1..=next, 1500), "call {call}");
        }
        for left in lefts {
            match open(&left, checkpoint + 1, acknowledged, options_of(1, SMALL)) {
                Ok((_, recovery, seen)) => {
                    assert!(recovery.last_seq >= acknowledged);
                    assert_eq!(seen, records(checkpoint + 1..=recovery.last_seq, 1500), "call {call}");
                }
                Err(error) => {
                    assert!(acknowledged == 0 && matches!(error, WalError::Missing { .. }), "{call}: {error}")
                }
            }
        }
    }
    assert!(failures > 50, "{failures}");
}

#[test]
fn a_healed_disk_does_not_heal_a_poisoned_log() {
    for call in 0..2 {
        let disk = SimulatedDisk::new();
        let mut log = Log::create(shared(&disk), DB, 1, options(SMALL)).unwrap();
        log.write(&records(1..=1, 10)).unwrap();
        disk.fail_at(Some(disk.calls() + call));
        assert!(matches!(log.write(&records(2..=2, 10)), Err(WalError::Io { .. })));
        disk.fail_at(None);
        let calls = disk.calls();
        let error = log.write(&records(2..=2, 10)).unwrap_err();
        assert!(error.to_string().contains("injected failure"), "the cause is named: {error}");
        assert_eq!(disk.calls(), calls, "nothing is tried again");
        let (mut log, _, seen) = open(&disk, 1, 1, options_of(1, SMALL)).unwrap();
        assert_eq!(seen.len() as u64, 1 + call, "what the page cache shows is made durable");
        let next = log.next_seq();
        log.write(&records(next..=next, 10)).unwrap();
        assert_eq!(open(&disk.crash(), 1, next, options_of(2, SMALL)).unwrap().2, records(1..=next, 10));
    }
}

#[test]
fn a_full_disk_refuses_a_new_file_and_leaves_the_log_healthy() {
    let (disk, left) = poor(SMALL);
    let mut log = Log::create(Arc::new(disk.clone()), DB, 1, options(SMALL)).unwrap();
    log.write(&records(1..=1, 3000)).unwrap();
    let full = log.write(&records(2..=6, 3000));
    assert!(matches!(full, Err(WalError::DiskFull { .. })), "{full:?}");
    assert!(matches!(log.prepare_spare(), Err(WalError::DiskFull { .. })));
    assert_eq!(log.next_seq(), 2, "all or nothing");
    log.write(&records(2..=2, 3000)).unwrap();
    assert!(disk.inner().files().iter().all(|name| !name.ends_with(".tmp")), "no space is held");
    left.store(2 * SMALL, Ordering::SeqCst);
    log.write(&records(3..=6, 3000)).unwrap();
    let crashed = disk.inner().crash();
    assert_eq!(open(&crashed, 1, 6, options_of(1, SMALL)).unwrap().2, records(1..=6, 3000));
}

#[test]
fn records_out_of_order_or_too_long_are_refused_and_nothing_is_written() {
    let disk = SimulatedDisk::new();
    let mut log = Log::create(shared(&disk), DB, 5, options(SMALL)).unwrap();
    let max = log.options().record_max as usize;
    for seqs in [vec![4], vec![6], vec![5, 7], vec![5, 5]] {
        let batch: Records = seqs.iter().map(|&seq| (seq, vec![1])).collect();
        assert!(matches!(log.write(&batch), Err(WalError::Sequence { .. })), "{seqs:?}");
    }
    let long = log.write(&[(5, vec![1]), (6, vec![0; max + 1])]);
    assert!(matches!(long, Err(WalError::RecordTooLarge { .. })));
    assert_eq!((log.next_seq(), log.stats().batches), (5, 0));
    log.write::<Vec<u8>>(&[]).unwrap();
    log.write(&[(5, vec![3; max]), (6, Vec::new()), (7, vec![4; max])]).unwrap();
    assert_eq!(open(&disk.crash(), 5, 7, options_of(1, SMALL)).unwrap().2.len(), 3);
    assert!(matches!(
        Log::create(shared(&SimulatedDisk::new()), DB, 0, options(SMALL)),
        Err(WalError::Options { .. })
    ));
}

#[test]
fn what_only_the_page_cache_shows_is_written_again() {
    let disk = FaultyDisk::new(SimulatedDisk::new());
    let shared: SharedDisk = Arc::new(disk.clone());
    let mut log = Log::create(shared.clone(), DB, 1, options(1 << 16)).unwrap();
    log.write(&records(1..=2, 100)).unwrap();
    // A write, and its sync.
    disk.order(Some(Fault { calls: Calls::Changing, after: 1, kind: FaultKind::Io, sticky: false }));
    log.write(&records(3..=4, 100)).unwrap_err();
    let platter = || disk.inner().crash();
    assert_eq!(open(&platter(), 1, 2, options_of(1, 1 << 16)).unwrap().2, records(1..=2, 100));
    // Reopened without a restart of the machine: records 3 and 4 are seen, so they must not vanish any more.
    let mut seen = 0;
    let mut visit = |seq: u64, _: &[u8]| {
        seen = seq;
        Ok::<(), WalError>(())
    };
    let (_log, recovery) =
        Log::open(shared, DB, Start::at(1), 2, options_of(2, 1 << 16), &mut visit).unwrap();
    assert_eq!((seen, recovery.torn), (4, None));
    assert_eq!(open(&platter(), 1, 4, options_of(3, 1 << 16)).unwrap().2, records(1..=4, 100));
}

#[test]
fn a_torn_tail_that_cannot_be_kept_stays_where_it_is() {
    let (disk, left) = poor(2 << 16);
    let shared: SharedDisk = Arc::new(disk.clone());
    let mut log = Log::create(shared.clone(), DB, 1, options(1 << 16)).unwrap();
    log.prepare_spare().unwrap();
    log.write(&records(1..=1, 10)).unwrap();
    disk.inner().open("wal/0000000001.wal").unwrap().write_at(&[9; 700], 2 * BLOCK as u64).unwrap();
    let reopen = || {
        let mut visit = |_: u64, _: &[u8]| Ok::<(), WalError>(());
        let opened = Log::open(shared.clone(), DB, Start::at(1), 1, options_of(1, 1 << 16), &mut visit);
        opened.map(|(_, recovery)| recovery)
    };
    assert!(matches!(reopen(), Err(WalError::DiskFull { .. })));
    assert!(disk.inner().files().iter().all(|name| !name.starts_with("lost")), "no space is held");
    left.store(700, Ordering::SeqCst);
    let torn = reopen().unwrap().torn.unwrap();
    assert_eq!(disk.inner().contents(&torn.kept_as).unwrap(), [9; 700]);
}

/// Logs whose last batch is not sealed and that have no spare: fresh or used before, whole or torn at the end. Answers the
/// first and the last record.
fn without_spares() -> Vec<(String, SimulatedDisk, u64, u64)> {
    let mut logs = Vec::new();
    for reused in [false, true] {
        for torn in [false, true] {
            let disk = SimulatedDisk::new();
            let mut log = Log::create(shared(&disk), DB, 1, options(1 << 16)).unwrap();
            while reused && log.stats().file < 4 {
                let next = log.next_seq();
                log.write(&records(next..=next, 9000)).unwrap();
                log.recycle(next).unwrap();
            }
            let (first, place) = (log.next_seq(), log.place());
            log.write(&records(first..=first + 2, 2000)).unwrap();
            let last = log.next_seq() - 1;
            let name = format!("wal/{:010}.wal", place.file);
            let end = log.place().offset;
            drop(log);
            for spare in disk.files().into_iter().filter(|name| name.contains("spare-")) {
                disk.remove(&spare).unwrap();
            }
            disk.sync_dir("wal").unwrap();
            if torn {
                // The later blocks of a batch of which the first never reached the disk, and of one of which it did.
                let mut bytes = disk.contents(&name).unwrap();
                let block = bytes[place.offset as usize..][..BLOCK].to_vec();
                let at = end as usize + if reused { BLOCK } else { 0 };
                bytes[at..at + BLOCK].copy_from_slice(&block);
                bytes[at + 60..at + 64].fill(0xee);
                bytes[at + 3 * BLOCK..at + 3 * BLOCK + 100].fill(0xee);
                disk.overwrite(&name, bytes);
            }
            logs.push((format!("reused: {reused}, torn: {torn}"), disk, first, last));
        }
    }
    logs
}

/// Where there is no space for another file, an opening goes on behind the last batch, with whatever was torn there wiped
/// and kept aside; a stop at any call of that loses nothing.
#[test]
fn a_full_disk_is_opened_and_goes_on_in_the_last_file() {
    for (what, disk, first, last) in without_spares() {
        let open_full = |disk: &SimulatedDisk| {
            let (poor, _left) = poor_on(disk.clone(), 20_000);
            let mut seen = Records::new();
            let mut visit = |seq: u64, bytes: &[u8]| {
                seen.push((seq, bytes.to_vec()));
                Ok::<(), WalError>(())
            };
            let start = Start::at(first);
            let (log, recovery) =
                Log::open(Arc::new(poor), DB, start, last, options_of(1, 1 << 16), &mut visit)?;
            Ok::<_, WalError>((log, recovery, seen))
        };
        let whole = disk.crash_keeping_all();
        let (mut log, recovery, seen) = open_full(&whole).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(seen, records(first..=last, 2000), "{what}");
        assert_eq!(log.stats().spares, 0, "{what}");
        if let Some(torn) = &recovery.torn {
            assert!(whole.contents(&torn.kept_as).unwrap().contains(&0xee), "{what}");
        }
        assert_eq!(recovery.torn.is_some(), what == "reused: false, torn: true", "{what}");
        let next = last + 1;
        log.write(&records(next..=next, 300)).unwrap();
        let all = records(first..=last, 2000).into_iter().chain(records(next..=next, 300));
        let all: Records = all.collect();
        drop(log);
        let (_, recovery, seen) = open(&whole.crash(), first, next, options_of(2, 1 << 16)).unwrap();
        assert_eq!((seen, recovery.torn), (all.clone(), None), "{what}: nothing is left of the tear");
        for call in 0.. {
            let stopped = disk.crash_keeping_all();
            stopped.fail_at(Some(stopped.calls() + call));
            let written = open_full(&stopped).and_then(|(mut log, ..)| log.write(&records(next..=next, 300)));
            let acknowledged = if written.is_ok() { next } else { last };
            let (_, _, seen) = open(&stopped.crash(), first, acknowledged, options_of(2, 1 << 16)).unwrap();
            assert_eq!(seen, all[..seen.len()], "{what}, stopped at {call}");
            if written.is_ok() {
                break;
            }
        }
    }
}

/// Without room in the last file the refusal says how much is needed, and where.
#[test]
fn a_full_disk_with_a_full_log_file_says_what_is_needed_and_where() {
    let disk = SimulatedDisk::new();
    let mut log = Log::create(shared(&disk), DB, 1, options(SMALL)).unwrap();
    log.write(&records(1..=1, 3000)).unwrap();
    drop(log);
    let (poor, _left) = poor_on(disk, 100);
    let mut visit = |_: u64, _: &[u8]| Ok::<(), WalError>(());
    let opened = Log::open(Arc::new(poor), DB, Start::at(1), 1, options_of(1, SMALL), &mut visit);
    let error = opened.map(|_| ()).unwrap_err();
    assert!(matches!(&error, WalError::DiskFull { bytes: SMALL, dir, .. } if dir == "memory"), "{error:?}");
    for part in ["in memory", "16384 bytes", "wal/spare-"] {
        assert!(error.to_string().contains(part), "{error}");
    }
}
