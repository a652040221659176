//! Many callers, one sync.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex, OnceLock};
use std::thread;

use underbelly_storage::disk::MemoryDisk;
use underbelly_wal::{GroupCommit, Log, LogOptions, WalError};

use crate::world::*;

const THREADS: u64 = 8;
const COMMITS: u64 = 200;

type Published = Arc<Mutex<Vec<u64>>>;

fn group(disk: &MemoryDisk, options: LogOptions) -> (GroupCommit<u64>, Published) {
    let published = Published::default();
    let seen = published.clone();
    let log = Log::create(shared(disk), DB, 1, options).unwrap();
    let commit = GroupCommit::new(log, move |seq, item| {
        assert_eq!(seq, item);
        seen.lock().unwrap().push(seq);
    });
    (commit, published)
}

/// Gets the next seq and queues its record, as the engine does under its sequencing lock.
fn sequence(commit: &GroupCommit<u64>, next: &Mutex<u64>) -> Result<u64, WalError> {
    let _admission = commit.admit(40)?;
    let mut next = next.lock().unwrap();
    commit.enqueue(*next, record(*next, 40), *next)?;
    *next += 1;
    Ok(*next - 1)
}

#[test]
fn everything_is_published_in_order_before_its_caller_returns() {
    let disk = MemoryDisk::new();
    let (commit, published) = group(&disk, options(1 << 18));
    let next = Mutex::new(1);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (commit, published, next) = (&commit, &published, &next);
            scope.spawn(move || {
                for i in 0..COMMITS {
                    let seq = sequence(commit, next).unwrap();
                    if (i + thread) % 5 == 0 {
                        continue;
                    }
                    commit.wait(seq).unwrap();
                    assert!(commit.durable_seq() >= seq);
                    assert!(published.lock().unwrap().len() as u64 >= seq, "returned before its publish");
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..20 {
                commit.prepare_spare().unwrap();
                commit.with_log(Log::seal).unwrap();
                thread::yield_now();
            }
        });
    });
    commit.flush().unwrap();
    let all = THREADS * COMMITS;
    assert_eq!(commit.durable_seq(), all);
    assert_eq!(*published.lock().unwrap(), (1..=all).collect::<Vec<_>>());
    assert_eq!(open(&disk.crash(), 1, all, options_of(1, 1 << 18)).unwrap().2, records(1..=all, 40));
}

#[test]
fn nothing_counts_as_durable_before_it_is_published() {
    let log = Log::create(shared(&MemoryDisk::new()), DB, 1, options(1 << 16)).unwrap();
    let itself: Arc<OnceLock<Arc<GroupCommit<u64>>>> = Arc::default();
    let seen = itself.clone();
    let commit = Arc::new(GroupCommit::new(log, move |seq, _| {
        let commit = seen.get().unwrap();
        assert!(commit.durable_seq() < seq, "a caller could return before its publish");
        // No lock is held: the owner may look at the log and queue more.
        assert!(commit.with_log(|log| log.next_seq()) > seq);
        if seq == 2 {
            commit.enqueue(3, Vec::new(), 3).unwrap();
        }
    }));
    itself.set(commit.clone()).ok().unwrap();
    commit.enqueue(1, Vec::new(), 1).unwrap();
    commit.enqueue(2, Vec::new(), 2).unwrap();
    commit.wait(2).unwrap();
    assert_eq!(commit.durable_seq(), 2);
    commit.flush().unwrap();
    assert_eq!(commit.durable_seq(), 3);
}

#[test]
fn records_without_a_waiter_ride_with_the_next_batch() {
    let disk = MemoryDisk::new();
    let (commit, published) = group(&disk, options(1 << 16));
    for seq in 1..=10 {
        commit.enqueue(seq, record(seq, 10), seq).unwrap();
    }
    assert_eq!((commit.durable_seq(), published.lock().unwrap().len()), (0, 0));
    commit.wait(3).unwrap();
    assert_eq!((commit.durable_seq(), published.lock().unwrap().len()), (10, 10));
    assert_eq!(commit.with_log(|log| log.stats().batches), 1);
    commit.flush().unwrap();
}

#[test]
fn a_failed_log_answers_every_waiter_and_publishes_nothing() {
    for call in 0..2 {
        let disk = MemoryDisk::new();
        let (commit, published) = group(&disk, options(1 << 18));
        commit.enqueue(1, record(1, 40), 1).unwrap();
        commit.wait(1).unwrap();
        disk.fail_at(Some(disk.calls() + call));
        let next = Mutex::new(2);
        let start = Barrier::new(THREADS as usize);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    start.wait();
                    let result = sequence(&commit, &next).and_then(|seq| commit.wait(seq));
                    assert!(matches!(result, Err(WalError::Poisoned { .. })), "{result:?}");
                });
            }
        });
        disk.fail_at(None);
        assert!(matches!(commit.admit(1).map(|_| ()), Err(WalError::Poisoned { .. })));
        assert!(matches!(commit.wait(2), Err(WalError::Poisoned { .. })));
        let seq = *next.lock().unwrap();
        assert!(matches!(commit.enqueue(seq, Vec::new(), seq), Err(WalError::Poisoned { .. })));
        commit.wait(1).unwrap();
        assert_eq!(commit.durable_seq(), 1);
        assert_eq!(*published.lock().unwrap(), [1]);
    }
}

#[test]
fn failures_in_the_middle_of_traffic_leave_a_prefix() {
    for call in (6..60).step_by(3) {
        let disk = MemoryDisk::new();
        let (commit, published) = group(&disk, options(1 << 16));
        disk.fail_at(Some(disk.calls() + call));
        let next = Mutex::new(1);
        let acknowledged = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..30 {
                        let Ok(seq) = sequence(&commit, &next) else { return };
                        let Ok(()) = commit.wait(seq) else { return };
                        acknowledged.fetch_max(seq, Ordering::SeqCst);
                    }
                });
            }
        });
        let acknowledged = acknowledged.into_inner();
        assert_eq!(*published.lock().unwrap(), (1..=commit.durable_seq()).collect::<Vec<_>>());
        assert!(acknowledged <= commit.durable_seq());
        let (_, recovery, seen) = open(&disk.crash(), 1, acknowledged, options_of(1, 1 << 16)).unwrap();
        assert_eq!(seen, records(1..=recovery.last_seq, 40));
        assert_eq!(recovery.last_seq, commit.durable_seq());
    }
}

#[test]
fn admission_bounds_the_queue_and_leads_where_nobody_does() {
    let disk = MemoryDisk::new();
    let (commit, published) =
        group(&disk, LogOptions { queue_bytes_max: 3 * BLOCK as u64, ..options(1 << 18) });
    let next = Mutex::new(1);
    for _ in 0..3 {
        sequence(&commit, &next).unwrap();
    }
    assert_eq!(published.lock().unwrap().len(), 0);
    sequence(&commit, &next).unwrap();
    assert_eq!(published.lock().unwrap().len(), 3, "the queue was full and nobody waited");
    let large = commit.admit(20 * BLOCK as u64).unwrap();
    assert_eq!(published.lock().unwrap().len(), 4, "a record larger than the queue is admitted alone");
    drop(large);
    let max = u64::from(commit.with_log(|log| log.options().record_max));
    assert!(matches!(commit.admit(max + 1).map(|_| ()), Err(WalError::RecordTooLarge { .. })));
}

#[test]
fn a_full_disk_is_told_before_anything_gets_a_seq() {
    const SMALL: u64 = 16 << 10;
    let poor = PoorDisk::new(2 * SMALL);
    let log = Log::create(poor.shared(), DB, 1, options(SMALL)).unwrap();
    let commit: GroupCommit<u64> = GroupCommit::new(log, |_, _| ());
    let next = Mutex::new(1);
    let refused = loop {
        match sequence(&commit, &next) {
            Ok(seq) => commit.wait(seq).unwrap(),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, WalError::DiskFull { .. }), "{refused}");
    let last = *next.lock().unwrap() - 1;
    assert!(last >= 3 && commit.durable_seq() == last);
    commit.with_log(|log| log.recycle(last)).unwrap();
    poor.left.store(SMALL, Ordering::SeqCst);
    let seq = sequence(&commit, &next).unwrap();
    commit.wait(seq).unwrap();
    assert_eq!(open(&poor.disk.crash(), seq, seq, options_of(1, SMALL)).unwrap().2, records(seq..=seq, 40));
}

#[test]
fn gaps_and_unknown_seqs_are_refused() {
    let (commit, _) = group(&MemoryDisk::new(), options(1 << 16));
    assert!(matches!(commit.enqueue(2, Vec::new(), 2), Err(WalError::Sequence { expected: 1, found: 2 })));
    assert!(matches!(commit.wait(1), Err(WalError::NotQueued { seq: 1, next: 1 })));
    commit.flush().unwrap();
    commit.enqueue(1, Vec::new(), 1).unwrap();
    assert!(matches!(commit.enqueue(1, Vec::new(), 1), Err(WalError::Sequence { .. })));
    commit.flush().unwrap();
    assert_eq!(commit.durable_seq(), 1);
}

#[test]
fn a_publisher_that_panics_leaves_nobody_waiting() {
    let log = Log::create(shared(&MemoryDisk::new()), DB, 1, options(1 << 18)).unwrap();
    let armed = Arc::new(AtomicBool::new(false));
    let trigger = armed.clone();
    let commit: GroupCommit<u64> = GroupCommit::new(log, move |_, _| {
        if trigger.swap(false, Ordering::SeqCst) {
            panic!("publisher");
        }
    });
    let next = Mutex::new(1);
    let start = Barrier::new(4);
    armed.store(true, Ordering::SeqCst);
    let ended: Vec<_> = thread::scope(|scope| {
        let waiter = || {
            start.wait();
            sequence(&commit, &next).and_then(|seq| commit.wait(seq))
        };
        let waiters: Vec<_> = (0..4).map(|_| scope.spawn(waiter)).collect();
        waiters.into_iter().map(|waiter| waiter.join()).collect()
    });
    assert_eq!(ended.iter().filter(|end| end.is_err()).count(), 1, "one led and panicked");
    assert!(ended.iter().flatten().all(|r| matches!(r, Err(WalError::Poisoned { .. }))), "{ended:?}");
}
