//! Many callers, one sync.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use underbelly_storage::disk::{FaultyDisk, SimulatedDisk};
use underbelly_wal::{GroupCommit, Log, LogOptions, Promise, Publisher, Urge, WalError};

use crate::world::*;

const THREADS: u64 = 8;
const COMMITS: u64 = 200;
/// After so long a thread that should have gone on never will.
const HUNG: Duration = Duration::from_secs(60);

type Published = Arc<Mutex<Vec<u64>>>;

/// What the owner heard: seqs that were published, how far it is visible, how far it is durable.
#[derive(Clone, Default)]
struct Ear {
    published: Published,
    visible: Arc<AtomicU64>,
    durable: Arc<AtomicU64>,
}

impl Publisher<u64> for Ear {
    fn publish(&self, seq: u64, items: &mut dyn Iterator<Item = (u64, u64)>) {
        let before = self.visible.swap(seq, Ordering::SeqCst);
        let items: Vec<(u64, u64)> = items.collect();
        assert_eq!(items, (before + 1..=seq).map(|seq| (seq, seq)).collect::<Vec<_>>());
        self.published.lock().unwrap().extend(before + 1..=seq);
    }

    fn synced(&self, seq: u64) {
        assert!(self.durable.swap(seq, Ordering::SeqCst) <= seq);
        assert!(self.visible.load(Ordering::SeqCst) >= seq, "durable before it was published");
    }
}

/// A publisher that does one thing.
struct Does<F>(F);

impl<F: Fn(u64) + Send + Sync> Publisher<u64> for Does<F> {
    fn publish(&self, seq: u64, _: &mut dyn Iterator<Item = (u64, u64)>) {
        (self.0)(seq);
    }
    fn synced(&self, _: u64) {}
}

fn heard(disk: &SimulatedDisk, options: LogOptions) -> (GroupCommit<u64>, Ear) {
    let ear = Ear::default();
    let log = Log::create(shared(disk), DB, 1, options).unwrap();
    (GroupCommit::new(log, ear.clone()), ear)
}

fn group(disk: &SimulatedDisk, options: LogOptions) -> (GroupCommit<u64>, Published) {
    let (commit, ear) = heard(disk, options);
    (commit, ear.published)
}

/// Queues a record that has to be durable before it is seen.
fn queue(commit: &GroupCommit<u64>, seq: u64, record: Vec<u8>) -> Result<Urge, WalError> {
    commit.enqueue(None, seq, record, Some(seq), Promise::Durable)
}

/// Gets the next seq and queues its record, as the engine does under its sequencing lock.
fn sequence(commit: &GroupCommit<u64>, next: &Mutex<u64>) -> Result<u64, WalError> {
    promise(commit, next, Promise::Durable)
}

/// Commits until one is refused.
fn until_refused(commit: &GroupCommit<u64>, next: &Mutex<u64>) -> WalError {
    loop {
        match sequence(commit, next) {
            Ok(seq) => commit.wait(seq).unwrap(),
            Err(error) => return error,
        }
    }
}

fn promise(commit: &GroupCommit<u64>, next: &Mutex<u64>, promise: Promise) -> Result<u64, WalError> {
    let admission = commit.admit(40)?;
    let mut next = next.lock().unwrap();
    commit.enqueue(Some(admission), *next, record(*next, 40), Some(*next), promise)?;
    *next += 1;
    Ok(*next - 1)
}

#[test]
fn everything_is_published_in_order_before_its_caller_returns() {
    let disk = SimulatedDisk::new();
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
    let log = Log::create(shared(&SimulatedDisk::new()), DB, 1, options(1 << 16)).unwrap();
    let itself: Arc<OnceLock<Arc<GroupCommit<u64>>>> = Arc::default();
    let seen = itself.clone();
    let commit = Arc::new(GroupCommit::new(
        log,
        Does(move |seq| {
            let commit = seen.get().unwrap();
            assert!(commit.durable_seq() < seq, "a caller could return before its publish");
            // No lock is held: the owner may look at the log and queue more.
            assert!(commit.with_log(|log| log.next_seq()) > seq);
            if seq == 2 {
                queue(commit, 3, Vec::new()).unwrap();
            }
        }),
    ));
    itself.set(commit.clone()).ok().unwrap();
    queue(&commit, 1, Vec::new()).unwrap();
    queue(&commit, 2, Vec::new()).unwrap();
    commit.wait(2).unwrap();
    assert_eq!(commit.durable_seq(), 2);
    commit.flush().unwrap();
    assert_eq!(commit.durable_seq(), 3);
}

#[test]
fn records_without_a_waiter_ride_with_the_next_batch() {
    let disk = SimulatedDisk::new();
    let (commit, published) = group(&disk, options(1 << 16));
    for seq in 1..=10 {
        queue(&commit, seq, record(seq, 10)).unwrap();
    }
    assert_eq!((commit.durable_seq(), published.lock().unwrap().len()), (0, 0));
    commit.wait(3).unwrap();
    assert_eq!((commit.durable_seq(), published.lock().unwrap().len()), (10, 10));
    assert_eq!(commit.with_log(|log| log.stats().batches), 1);
    commit.flush().unwrap();
}

/// What is queued when the log is given up is written by nobody, whoever waits for it: it may be another's by then.
#[test]
fn a_log_that_was_given_up_is_written_no_more() {
    let disk = SimulatedDisk::new();
    let (commit, published) = group(&disk, options(1 << 16));
    queue(&commit, 1, record(1, 10)).unwrap();
    commit.wait(1).unwrap();
    commit.enqueue(None, 2, record(2, 10), Some(2), Promise::Nothing).unwrap();
    commit.end();
    let (written, files) = (disk.calls(), disk.files());
    commit.wait(1).unwrap();
    for refused in [commit.wait(2), commit.flush(), commit.wait_visible(3)] {
        assert!(
            matches!(refused, Err(WalError::Poisoned { .. } | WalError::NotQueued { .. })),
            "{refused:?}"
        );
    }
    assert!(queue(&commit, 3, record(3, 10)).is_err());
    assert_eq!((disk.calls(), disk.files()), (written, files));
    assert_eq!((commit.durable_seq(), commit.lost_visible()), (1, None));
    assert_eq!(published.lock().unwrap().len(), 2, "who saw it keeps what he saw");
    drop(commit);
    assert_eq!(open(&disk.crash(), 1, 1, options_of(1, 1 << 16)).unwrap().2, records(1..=1, 10));
}

/// A batch in flight is waited for.
#[test]
fn giving_a_log_up_waits_for_the_batch_in_flight() {
    for _ in 0..20 {
        let disk = SimulatedDisk::new();
        let (commit, _) = group(&disk, options(1 << 16));
        queue(&commit, 1, record(1, 10)).unwrap();
        let waited = thread::scope(|scope| {
            let waiter = scope.spawn(|| commit.wait(1));
            commit.end();
            let calls = disk.calls();
            let waited = waiter.join().unwrap();
            assert_eq!(disk.calls(), calls, "nothing is written behind the end");
            waited
        });
        drop(commit);
        let kept = open(&disk.crash(), 1, 0, options_of(1, 1 << 16)).unwrap().2.len();
        assert_eq!(kept, usize::from(waited.is_ok()), "{waited:?}");
    }
}

#[test]
fn a_failed_log_answers_every_waiter_and_publishes_nothing() {
    for call in 0..2 {
        let disk = SimulatedDisk::new();
        let (commit, published) = group(&disk, options(1 << 18));
        queue(&commit, 1, record(1, 40)).unwrap();
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
        assert!(matches!(queue(&commit, seq, Vec::new()), Err(WalError::Poisoned { .. })));
        commit.wait(1).unwrap();
        assert_eq!(commit.durable_seq(), 1);
        assert_eq!(*published.lock().unwrap(), [1]);
    }
}

#[test]
fn failures_in_the_middle_of_traffic_leave_a_prefix() {
    for call in (6..60).step_by(3) {
        let disk = SimulatedDisk::new();
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
    let disk = SimulatedDisk::new();
    let (commit, published) =
        group(&disk, LogOptions { queue_bytes_max: 3 * BLOCK as u64, ..options(1 << 18) });
    let long = |seq| {
        let admission = commit.admit(3000).unwrap();
        commit.enqueue(Some(admission), seq, record(seq, 3000), Some(seq), Promise::Durable).unwrap();
    };
    (1..=3).for_each(long);
    assert_eq!((published.lock().unwrap().len(), commit.stalls().queue_full.count), (0, 0));
    long(4);
    assert_eq!(published.lock().unwrap().len(), 3, "the queue was full and nobody waited");
    assert_eq!(commit.stalls().queue_full.count, 1);
    let large = commit.admit(20 * BLOCK as u64).unwrap();
    assert_eq!(published.lock().unwrap().len(), 4, "a record larger than the queue is admitted alone");
    drop(large);
    let max = u64::from(commit.with_log(|log| log.options().record_max));
    assert!(matches!(commit.admit(max + 1).map(|_| ()), Err(WalError::RecordTooLarge { .. })));
}

#[test]
fn a_record_longer_than_its_admission_holds_nobody_up_who_waits_for_room() {
    let disk = FaultyDisk::new(SimulatedDisk::new());
    let settings = LogOptions { queue_bytes_max: 3 * BLOCK as u64, ..options(1 << 18) };
    let log = Log::create(Arc::new(disk.clone()), DB, 1, settings).unwrap();
    let commit: &GroupCommit<u64> = Box::leak(Box::new(GroupCommit::new(log, Does(|_| ()))));
    let (began, begins) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel::<()>();
    let (began, goes_on) = (Mutex::new(Some(began)), Mutex::new(goes_on));
    disk.watch(move |_| {
        if let Some(began) = began.lock().unwrap().take() {
            began.send(()).unwrap();
            goes_on.lock().unwrap().recv().unwrap();
        }
        Ok(())
    });
    let (done, ends) = mpsc::channel();
    let spawn = |work: fn(&'static GroupCommit<u64>)| {
        let done = done.clone();
        thread::spawn(move || {
            work(commit);
            done.send(()).unwrap();
        });
    };
    let first = commit.admit(40).unwrap();
    commit.enqueue(Some(first), 1, record(1, 6000), Some(1), Promise::Durable).unwrap();
    spawn(|commit| commit.wait(1).unwrap());
    begins.recv().unwrap();
    let admission = commit.admit(40).unwrap();
    spawn(|commit| drop(commit.admit(3000).unwrap()));
    // Long enough for that one to wait.
    thread::sleep(Duration::from_millis(50));
    let (queued, is_queued) = mpsc::channel();
    thread::spawn(move || {
        commit.enqueue(Some(admission), 2, record(2, 6000), Some(2), Promise::Durable).unwrap();
        queued.send(()).unwrap();
    });
    is_queued.recv_timeout(HUNG).expect("a record is queued whoever waits for room");
    go_on.send(()).unwrap();
    (0..2).for_each(|_| ends.recv_timeout(HUNG).expect("room comes back with the batch"));
}

#[test]
fn a_full_disk_is_told_before_anything_gets_a_seq() {
    const SMALL: u64 = 16 << 10;
    let (disk, left) = poor(2 * SMALL);
    let log = Log::create(Arc::new(disk.clone()), DB, 1, options(SMALL)).unwrap();
    let commit: GroupCommit<u64> = GroupCommit::new(log, Does(|_| ()));
    let next = Mutex::new(1);
    let refused = until_refused(&commit, &next);
    assert!(matches!(refused, WalError::DiskFull { .. }), "{refused}");
    let last = *next.lock().unwrap() - 1;
    assert!(last >= 3 && commit.durable_seq() == last);
    assert!(commit.stalls().log_space.count > 0 && commit.stalls().queue_full.count == 0);
    commit.with_log(|log| log.recycle(last)).unwrap();
    left.store(SMALL, Ordering::SeqCst);
    let seq = sequence(&commit, &next).unwrap();
    commit.wait(seq).unwrap();
    let crashed = disk.inner().crash();
    assert_eq!(open(&crashed, seq, seq, options_of(1, SMALL)).unwrap().2, records(seq..=seq, 40));
}

#[test]
fn gaps_and_unknown_seqs_are_refused() {
    let (commit, _) = group(&SimulatedDisk::new(), options(1 << 16));
    assert!(matches!(queue(&commit, 2, Vec::new()), Err(WalError::Sequence { expected: 1, found: 2 })));
    assert!(matches!(commit.wait(1), Err(WalError::NotQueued { seq: 1, next: 1 })));
    commit.flush().unwrap();
    queue(&commit, 1, Vec::new()).unwrap();
    assert!(matches!(queue(&commit, 1, Vec::new()), Err(WalError::Sequence { .. })));
    commit.flush().unwrap();
    assert_eq!(commit.durable_seq(), 1);
}

#[test]
fn a_publisher_that_panics_leaves_nobody_waiting() {
    let log = Log::create(shared(&SimulatedDisk::new()), DB, 1, options(1 << 18)).unwrap();
    let armed = Arc::new(AtomicBool::new(false));
    let trigger = armed.clone();
    let commit: GroupCommit<u64> = GroupCommit::new(
        log,
        Does(move |_| {
            if trigger.swap(false, Ordering::SeqCst) {
                panic!("publisher");
            }
        }),
    );
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

#[test]
fn a_visible_record_is_seen_at_once_and_durable_with_the_next_batch() {
    let disk = SimulatedDisk::new();
    let (commit, ear) = heard(&disk, LogOptions { flush_bytes: 200, ..options(1 << 18) });
    let visible = |seq| commit.enqueue(None, seq, record(seq, 40), Some(seq), Promise::Visible).unwrap();
    assert_eq!([1, 2, 3, 4, 5].map(visible), [Urge::Soon, Urge::None, Urge::None, Urge::Now, Urge::None]);
    commit.wait_visible(5).unwrap();
    assert_eq!(*ear.published.lock().unwrap(), [1, 2, 3, 4, 5]);
    assert_eq!((commit.visible_seq(), commit.durable_seq(), ear.durable.load(Ordering::SeqCst)), (5, 0, 0));
    assert_eq!(commit.with_log(|log| log.stats().batches), 0);
    let riding = commit.enqueue(None, 6, record(6, 40), Some(6), Promise::Nothing).unwrap();
    assert_eq!((riding, commit.visible_seq()), (Urge::None, 6));
    assert_eq!(open(&disk.crash(), 1, 0, options_of(1, 1 << 18)).unwrap().2, []);
    commit.wait(3).unwrap();
    assert_eq!((commit.durable_seq(), ear.durable.load(Ordering::SeqCst)), (6, 6));
    assert_eq!(commit.with_log(|log| log.stats().batches), 1);
    assert_eq!(open(&disk.crash(), 1, 6, options_of(1, 1 << 18)).unwrap().2, records(1..=6, 40));
    assert_eq!(visible(7), Urge::Soon, "asked anew after a batch");
}

#[test]
fn a_visible_record_behind_one_that_must_be_durable_waits_for_it() {
    let disk = SimulatedDisk::new();
    let (commit, ear) = heard(&disk, options(1 << 18));
    let next = Mutex::new(1);
    promise(&commit, &next, Promise::Visible).unwrap();
    sequence(&commit, &next).unwrap();
    promise(&commit, &next, Promise::Visible).unwrap();
    assert_eq!((commit.visible_seq(), commit.durable_seq()), (1, 0));
    assert_eq!(*ear.published.lock().unwrap(), [1]);
    commit.wait_visible(1).unwrap();
    assert_eq!(commit.with_log(|log| log.stats().batches), 0);
    commit.wait_visible(3).unwrap();
    assert_eq!((commit.visible_seq(), commit.durable_seq()), (3, 3));
    assert!(matches!(commit.wait_visible(4), Err(WalError::NotQueued { seq: 4, next: 4 })));
}

#[test]
fn promises_of_all_kinds_from_many_threads_are_kept_in_order() {
    let disk = SimulatedDisk::new();
    let (commit, ear) = heard(&disk, options(1 << 18));
    let next = Mutex::new(1);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (commit, next, ear) = (&commit, &next, &ear);
            scope.spawn(move || {
                for i in 0..COMMITS {
                    match (i * 7 + thread) % 4 {
                        0 => {
                            let seq = promise(commit, next, Promise::Durable).unwrap();
                            commit.wait(seq).unwrap();
                            assert!(
                                ear.durable.load(Ordering::SeqCst) >= seq,
                                "answered before it was durable"
                            );
                        }
                        1 => drop(promise(commit, next, Promise::Nothing).unwrap()),
                        _ => {
                            let seq = promise(commit, next, Promise::Visible).unwrap();
                            commit.wait_visible(seq).unwrap();
                            assert!(
                                ear.visible.load(Ordering::SeqCst) >= seq,
                                "answered before it was visible"
                            );
                        }
                    }
                }
            });
        }
    });
    commit.flush().unwrap();
    let all = THREADS * COMMITS;
    assert_eq!((commit.visible_seq(), commit.durable_seq()), (all, all));
    assert_eq!(*ear.published.lock().unwrap(), (1..=all).collect::<Vec<_>>());
    assert_eq!(open(&disk.crash(), 1, all, options_of(1, 1 << 18)).unwrap().2, records(1..=all, 40));
}

#[test]
fn a_failed_log_names_what_was_visible_and_not_durable() {
    let disk = SimulatedDisk::new();
    let (commit, ear) = heard(&disk, options(1 << 18));
    let next = Mutex::new(1);
    let seq = sequence(&commit, &next).unwrap();
    commit.wait(seq).unwrap();
    for _ in 2..=4 {
        promise(&commit, &next, Promise::Visible).unwrap();
    }
    sequence(&commit, &next).unwrap();
    promise(&commit, &next, Promise::Visible).unwrap();
    assert_eq!(commit.lost_visible(), None);
    disk.fail_at(Some(disk.calls()));
    let unseen = commit.wait_visible(6);
    assert!(matches!(unseen, Err(WalError::Poisoned { .. })), "{unseen:?}");
    disk.fail_at(None);
    commit.wait(1).unwrap();
    for seq in 2..=4 {
        let lost = commit.wait(seq);
        assert!(matches!(lost, Err(WalError::NotDurable { first: 2, last: 4, .. })), "{lost:?}");
        assert!(lost.unwrap_err().to_string().contains("2 to 4"));
        commit.wait_visible(seq).unwrap();
    }
    assert!(matches!(commit.wait(5), Err(WalError::Poisoned { .. })));
    assert_eq!(commit.lost_visible(), Some((2, 4)));
    assert_eq!((commit.visible_seq(), ear.durable.load(Ordering::SeqCst)), (4, 1));
    assert!(matches!(promise(&commit, &next, Promise::Visible), Err(WalError::Poisoned { .. })));
}

#[test]
fn a_failure_of_a_seal_or_a_recycling_ends_writing_too() {
    type Chore = fn(&mut Log) -> Result<(), WalError>;
    let chores: [(&str, Chore); 2] =
        [("seal", Log::seal), ("recycle", |log| log.recycle(log.next_seq() - 2).map(drop))];
    for (what, chore) in chores {
        for call in 0..2 {
            let disk = SimulatedDisk::new();
            let (commit, ear) = heard(&disk, options(16 << 10));
            let next = Mutex::new(1);
            while commit.with_log(|log| log.stats().files) < 4 {
                let seq = sequence(&commit, &next).unwrap();
                commit.wait(seq).unwrap();
            }
            let durable = commit.durable_seq();
            promise(&commit, &next, Promise::Visible).unwrap();
            disk.fail_at(Some(disk.calls() + call));
            let failed = commit.with_log(chore);
            disk.fail_at(None);
            assert!(matches!(failed, Err(WalError::Io { .. })), "{what} {call}: {failed:?}");
            assert!(matches!(commit.admit(40).map(drop), Err(WalError::Poisoned { .. })), "{what} {call}");
            let lost = commit.wait(durable + 1);
            assert!(matches!(lost, Err(WalError::NotDurable { .. })), "{what} {call}: {lost:?}");
            assert!(commit.with_log(Log::seal).is_err(), "nothing is tried again");
            assert_eq!(ear.durable.load(Ordering::SeqCst), durable);
            let kept = open(&disk.crash(), durable, durable, options_of(1, 16 << 10)).unwrap().1;
            assert_eq!(kept.last_seq, durable, "{what} {call}");
        }
    }
}

/// Whoever needs the last free bytes of the disk keeps them from the next log file, and nobody waits for them: the thread
/// that wants a file may be the one that the keeper waits for, or the keeper's own.
#[test]
fn files_are_refused_and_not_waited_for_while_space_is_kept() {
    let disk = SimulatedDisk::new();
    let (commit, _published) = group(&disk, options(16 << 10));
    let before = disk.files();
    let kept = commit.keep_space();
    let error = commit.prepare_spare().unwrap_err();
    assert!(matches!(&error, WalError::DiskFull { bytes: 16384, .. }), "{error}");
    assert!(error.to_string().contains("a checkpoint needs what is left"), "{error}");
    let next = Mutex::new(1);
    let refused = until_refused(&commit, &next);
    assert!(matches!(refused, WalError::DiskFull { .. }), "{refused}");
    assert_eq!(disk.files(), before, "nothing was taken");
    drop(kept);
    let seq = sequence(&commit, &next).unwrap();
    commit.wait(seq).unwrap();
}

/// A preparation that began before has its space.
#[test]
fn who_keeps_space_waits_for_the_preparation_under_way() {
    let disk = FaultyDisk::new(SimulatedDisk::new());
    let log = Log::create(Arc::new(disk.clone()), DB, 1, options(16 << 10)).unwrap();
    let commit: GroupCommit<u64> = GroupCommit::new(log, Does(|_| ()));
    let (began, begins) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel::<()>();
    let (began, goes_on) = (Mutex::new(Some(began)), Mutex::new(goes_on));
    disk.watch(move |call| {
        if call.name.ends_with(".tmp")
            && let Some(began) = began.lock().unwrap().take()
        {
            began.send(()).unwrap();
            goes_on.lock().unwrap().recv().unwrap();
        }
        Ok(())
    });
    let order = Mutex::new(Vec::new());
    thread::scope(|scope| {
        scope.spawn(|| commit.prepare_spare().unwrap());
        begins.recv().unwrap();
        let keeper = scope.spawn(|| {
            let _kept = commit.keep_space();
            order.lock().unwrap().push("kept");
            assert_eq!(commit.with_log(|log| log.stats().spares), 1);
        });
        (0..1000).for_each(|_| thread::yield_now());
        order.lock().unwrap().push("prepared");
        go_on.send(()).unwrap();
        keeper.join().unwrap();
    });
    assert_eq!(*order.lock().unwrap(), ["prepared", "kept"]);
}

/// Who is short of space takes what a preparation under way gives, and writes no file of its own beside it.
#[test]
fn who_waited_for_a_preparation_makes_no_other() {
    let disk = FaultyDisk::new(SimulatedDisk::new());
    let log = Log::create(Arc::new(disk.clone()), DB, 1, options(16 << 10)).unwrap();
    let commit: GroupCommit<u64> = GroupCommit::new(log, Does(|_| ()));
    let next = Mutex::new(1);
    while commit.with_log(|log| log.room()) >= BLOCK as u64 {
        let seq = sequence(&commit, &next).unwrap();
        commit.wait(seq).unwrap();
    }
    let (began, begins) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel::<()>();
    let (began, goes_on) = (Mutex::new(Some(began)), Mutex::new(goes_on));
    let files = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = files.clone();
    disk.watch(move |call| {
        if call.name.ends_with(".tmp") {
            seen.lock().unwrap().insert(call.name.to_string());
            if let Some(began) = began.lock().unwrap().take() {
                began.send(()).unwrap();
                goes_on.lock().unwrap().recv().unwrap();
            }
        }
        Ok(())
    });
    thread::scope(|scope| {
        scope.spawn(|| commit.prepare_spare().unwrap());
        begins.recv().unwrap();
        let short = scope.spawn(|| commit.wait(sequence(&commit, &next).unwrap()).unwrap());
        (0..1000).for_each(|_| thread::yield_now());
        go_on.send(()).unwrap();
        short.join().unwrap();
    });
    assert_eq!(files.lock().unwrap().len(), 1, "{files:?}");
}
