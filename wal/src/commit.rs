//! Group commit: many callers, one write and one sync.
//!
//! The first caller who waits leads: it takes all that is queued, writes it as one batch, publishes, and wakes
//! those who waited for it. One batch is in flight at a time; while it syncs, the next gathers.
//!
//! Two numbers rise apart from each other. `visible` is how far records were published to the owner's process: in
//! order, each record as soon as it may be seen and all before it were. `durable` is how far the disk holds them.
//! A record that promises durability is published when it is durable; one that does not is published as soon as
//! none before it waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::WalError;

use crate::log::Log;
use crate::options::LogOptions;
use crate::queue::{Failed, InFlight, Queue, Records, Stall, Stalls, Urge};
use crate::space::{Space, SpaceKept};

/// What the owner promises to the caller of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// It is durable before anybody sees it.
    Durable,
    /// It is seen at once and becomes durable soon.
    Visible,
    /// It is seen at once and rides to the disk with the next batch.
    Nothing,
}

/// Hears how far records are visible and durable. It must not commit and wait itself.
pub trait Publisher<T>: Send + Sync {
    /// Everything up to `seq` may be seen from now on. Called in rising order; `items` are those of the records that
    /// were not published before, in order. A lock of the queue is held where a caller of
    /// [`GroupCommit::enqueue`] publishes its own record, so it must not call back.
    fn publish(&self, seq: u64, items: &mut dyn Iterator<Item = (u64, T)>);

    /// Everything up to `seq` is durable. Called in rising order, before those are answered who wait for it, and
    /// after what it covers was published.
    fn synced(&self, seq: u64);

    /// A spare log file should be prepared with [`GroupCommit::prepare_spare`], elsewhere, before the active one is
    /// full. Told once for each file.
    fn wants_spare(&self) {}
}

/// Commits of many threads over one [`Log`].
///
/// A commit is: [`admit`](GroupCommit::admit) before anything is decided, [`enqueue`](GroupCommit::enqueue) under
/// the owner's sequencing lock, [`wait`](GroupCommit::wait) or [`wait_visible`](GroupCommit::wait_visible) outside it.
/// `T` is what the owner gets back for a record when it is published.
pub struct GroupCommit<T> {
    queue: Mutex<Queue<T>>,
    log: Mutex<Log>,
    space: Space,
    publisher: Box<dyn Publisher<T>>,
    /// Woken when claims or the room for them change.
    admission: Condvar,
    admission_waiters: AtomicUsize,
    /// Bytes in the log that are claimed by records that are admitted, queued or in flight.
    claimed: AtomicU64,
    /// Bytes that the log can take without a new file, as of the last batch.
    room: AtomicU64,
    is_failed: AtomicBool,
    /// Written under the queue's lock; read without it.
    durable_seq: AtomicU64,
    /// Written under the queue's lock; read without it.
    visible_seq: AtomicU64,
    /// Callers who wait for what is queued. Written under the queue's lock; the gathering leader reads it without.
    waiting: AtomicUsize,
    options: LogOptions,
}

/// Space in the log, held until the record is queued. Returned by [`GroupCommit::admit`].
#[must_use = "keep it until the record is queued"]
pub struct Admission<'a, T> {
    commit: &'a GroupCommit<T>,
    bytes: u64,
}

impl<T> Drop for Admission<'_, T> {
    fn drop(&mut self) {
        self.commit.release(self.bytes);
    }
}

/// Ends writing if the leader does not come back, so that nobody waits for it for ever.
struct Leadership<'a, T> {
    commit: &'a GroupCommit<T>,
    over: bool,
}

impl<T> Drop for Leadership<'_, T> {
    fn drop(&mut self) {
        if !self.over {
            self.commit.fail(hold(&self.commit.queue), "a thread panicked while it committed".to_string());
        }
    }
}

/// A preparation of log space, which is over however it ends.
struct Preparation<'a, T>(&'a GroupCommit<T>);

impl<T> Drop for Preparation<'_, T> {
    fn drop(&mut self) {
        hold(&self.0.queue).preparing = false;
        self.0.wake_admission();
    }
}

// A lock is never left with a broken invariant: a leader that panics fails the queue, and the log keeps its own
// account of what was written.
fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> GroupCommit<T> {
    /// Commits to `log`.
    pub fn new(log: Log, publisher: impl Publisher<T> + 'static) -> GroupCommit<T> {
        let last = log.next_seq() - 1;
        let failed = log.check_health().err();
        let failed = failed.map(|error| Failed { cause: error.to_string(), visible: (last, last) });
        let queue = Queue {
            records: Records::default(),
            unpublished: VecDeque::new(),
            next_seq: log.next_seq(),
            visible: last,
            held: None,
            claimed: 0,
            urged: Urge::None,
            leading: false,
            preparing: false,
            cohort: Arc::default(),
            has_heir: false,
            in_flight: None,
            committers: [1; 2],
            sync_time: Duration::ZERO,
            stalls: Stalls::default(),
            failed,
        };
        GroupCommit {
            is_failed: AtomicBool::new(queue.failed.is_some()),
            durable_seq: AtomicU64::new(last),
            visible_seq: AtomicU64::new(last),
            waiting: AtomicUsize::new(0),
            admission_waiters: AtomicUsize::new(0),
            claimed: AtomicU64::new(0),
            room: AtomicU64::new(log.room()),
            options: log.options().clone(),
            queue: Mutex::new(queue),
            log: Mutex::new(log),
            space: Space::default(),
            publisher: Box::new(publisher),
            admission: Condvar::new(),
        }
    }

    /// Asks for space for a record of up to `bytes` bytes, before it gets its seq. Blocks while more than
    /// `queue_bytes_max` are queued, and prepares a log file where the prepared ones would not take all that is
    /// queued, so that running out of space is told before anything is decided. [`GroupCommit::stalls`] tells how
    /// often and how long.
    ///
    /// # Errors
    /// [`WalError::RecordTooLarge`], [`WalError::DiskFull`], [`WalError::Io`] while preparing a file,
    /// [`WalError::Poisoned`].
    pub fn admit(&self, bytes: u64) -> Result<Admission<'_, T>, WalError> {
        self.check_length(bytes)?;
        let bytes = self.options.admitted(bytes);
        let most = self.options.queue_bytes_max.min(self.room.load(Ordering::Relaxed));
        let claim = |claimed: u64| claimed.checked_add(bytes).filter(|wanted| *wanted <= most);
        let claimed = self.claimed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, claim);
        if claimed.is_err() || self.is_failed.load(Ordering::Relaxed) {
            if claimed.is_ok() {
                self.release(bytes);
            }
            self.claim(bytes)?;
        }
        Ok(Admission { commit: self, bytes })
    }

    /// Claims space where there may be none.
    fn claim(&self, bytes: u64) -> Result<(), WalError> {
        let mut queue = hold(&self.queue);
        loop {
            queue.check()?;
            let wanted = self.claimed.load(Ordering::SeqCst).saturating_add(bytes);
            // What is being written counts; a record larger than the queue is admitted alone.
            let is_full =
                wanted > self.options.queue_bytes_max && (queue.claimed > 0 || queue.in_flight.is_some());
            let is_short = wanted > self.room.load(Ordering::Relaxed);
            if !is_full && !is_short {
                self.claimed.fetch_add(bytes, Ordering::SeqCst);
                return Ok(());
            }
            let began = Instant::now();
            let result;
            (queue, result) = if is_full && !queue.leading {
                queue.leading = true;
                self.lead(queue);
                (hold(&self.queue), Ok(()))
            } else if is_short && !is_full && !queue.preparing {
                queue.preparing = true;
                drop(queue);
                let preparation = Preparation(self);
                // Another preparation may have come first, and be enough.
                let is_short =
                    |log: &Log| self.claimed.load(Ordering::SeqCst).saturating_add(bytes) > log.room();
                let prepared = self.prepare(|log| is_short(log).then(|| log.extra_spare_job()));
                drop(preparation);
                (hold(&self.queue), prepared)
            } else {
                // Who gives space back between this and the wait cannot have seen the old count and not the lock.
                self.admission_waiters.fetch_add(1, Ordering::SeqCst);
                if self.claimed.load(Ordering::SeqCst).saturating_add(bytes) == wanted {
                    queue = self.admission.wait(queue).unwrap_or_else(PoisonError::into_inner);
                }
                self.admission_waiters.fetch_sub(1, Ordering::SeqCst);
                (queue, Ok(()))
            };
            let stalls = &mut queue.stalls;
            let Stall { count, time } = if is_full { &mut stalls.queue_full } else { &mut stalls.log_space };
            *count += 1;
            *time += began.elapsed();
            result?;
        }
    }

    /// Gives claimed space back.
    fn release(&self, bytes: u64) {
        if bytes > 0 {
            self.claimed.fetch_sub(bytes, Ordering::SeqCst);
            if self.admission_waiters.load(Ordering::SeqCst) > 0 {
                drop(hold(&self.queue));
                self.wake_admission();
            }
        }
    }

    fn check_length(&self, bytes: u64) -> Result<(), WalError> {
        let max = u64::from(self.options.record_max);
        if bytes > max { Err(WalError::RecordTooLarge { bytes, max }) } else { Ok(()) }
    }

    /// Queues the next record, which becomes durable with the next batch. Never blocks on I/O. `item` is handed to
    /// the publisher: before this returns where the promise does not hold the record back and nothing before it
    /// waits. Answers whether the owner should have what is queued written for the sake of a [`Promise::Visible`].
    ///
    /// Without an admission the log may have no space prepared for it; that is for one small record.
    ///
    /// # Errors
    /// [`WalError::Sequence`] where `seq` is not the next, [`WalError::RecordTooLarge`], [`WalError::Poisoned`].
    pub fn enqueue(
        &self,
        admission: Option<Admission<'_, T>>,
        seq: u64,
        record: Vec<u8>,
        item: Option<T>,
        promise: Promise,
    ) -> Result<Urge, WalError> {
        let bytes = record.len() as u64;
        self.check_length(bytes)?;
        let claim = self.options.queued(bytes);
        let mut queue = hold(&self.queue);
        queue.check()?;
        if seq != queue.next_seq {
            return Err(WalError::Sequence { expected: queue.next_seq, found: seq });
        }
        queue.next_seq += 1;
        queue.claimed += claim;
        // What is queued travels together, and mostly takes less than what was admitted. The admission gives nothing
        // back itself, which takes the lock that is held here.
        let admitted = admission.map_or(0, |mut admission| std::mem::take(&mut admission.bytes));
        if admitted >= claim {
            self.claimed.fetch_sub(admitted - claim, Ordering::SeqCst);
            self.wake_admission();
        } else {
            self.claimed.fetch_add(claim - admitted, Ordering::SeqCst);
        }
        queue.records.push(record);
        if promise == Promise::Durable {
            queue.held.get_or_insert(seq);
        }
        if queue.publishable() == seq && queue.visible + 1 == seq {
            let mut guard = Leadership { commit: self, over: false };
            // Dropped before the guard, which takes the lock.
            let mut queue = queue;
            self.publisher.publish(seq, &mut item.map(|item| (seq, item)).into_iter());
            queue.visible = seq;
            self.visible_seq.store(seq, Ordering::Release);
            guard.over = true;
            return Ok(self.urge(&mut queue, promise));
        }
        queue.unpublished.extend(item.map(|item| (seq, item)));
        Ok(self.urge(&mut queue, promise))
    }

    fn urge(&self, queue: &mut Queue<T>, promise: Promise) -> Urge {
        let urge = match promise {
            Promise::Visible if queue.claimed >= self.options.flush_bytes => Urge::Now,
            Promise::Visible => Urge::Soon,
            Promise::Durable | Promise::Nothing => Urge::None,
        };
        if urge <= queue.urged {
            return Urge::None;
        }
        queue.urged = urge;
        urge
    }

    /// Returns when `seq` is durable and published.
    ///
    /// # Errors
    /// [`WalError::Poisoned`] where the log failed first: whether the record survives is open until the log is
    /// reopened, but nobody was told of it. [`WalError::NotDurable`] where it had been published before.
    /// [`WalError::NotQueued`].
    pub fn wait(&self, seq: u64) -> Result<(), WalError> {
        if self.durable_seq() >= seq {
            return Ok(());
        }
        let queue = hold(&self.queue);
        if self.durable_seq() >= seq {
            return Ok(());
        }
        queue.check_seq(seq)?;
        if seq >= queue.next_seq {
            return Err(WalError::NotQueued { seq, next: queue.next_seq });
        }
        match &queue.in_flight {
            Some(batch) if seq <= batch.last => {
                let cohort = batch.cohort.clone();
                drop(queue);
                cohort.wait();
            }
            _ => self.join(queue),
        }
        if self.durable_seq() >= seq { Ok(()) } else { hold(&self.queue).check_seq(seq) }
    }

    /// Returns when `seq` is published. It writes where a record before it, or itself, has to be durable first.
    ///
    /// # Errors
    /// As [`GroupCommit::wait`].
    pub fn wait_visible(&self, seq: u64) -> Result<(), WalError> {
        while self.visible_seq() < seq {
            let mut queue = hold(&self.queue);
            if self.visible_seq() >= seq {
                return Ok(());
            }
            queue.check_seq(seq)?;
            if seq >= queue.next_seq {
                return Err(WalError::NotQueued { seq, next: queue.next_seq });
            }
            let is_due = queue.publishable() >= seq;
            match &queue.in_flight {
                // Its leader publishes up to the next record that is held back.
                Some(batch) if is_due || batch.held.is_some() => {
                    let cohort = batch.cohort.clone();
                    drop(queue);
                    cohort.wait();
                }
                _ if is_due => {
                    let cause = "a thread panicked while it published".to_string();
                    self.fail_with(&mut queue, cause);
                }
                _ => self.join(queue),
            }
        }
        Ok(())
    }

    /// Waits for the batch that takes what is queued, or leads it.
    fn join(&self, mut queue: MutexGuard<'_, Queue<T>>) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if !queue.leading {
            queue.leading = true;
            return self.lead(queue);
        }
        let cohort = queue.cohort.clone();
        let is_heir = !std::mem::replace(&mut queue.has_heir, true);
        drop(queue);
        if !is_heir {
            cohort.wait();
        } else if cohort.inherit() {
            self.lead(hold(&self.queue));
        }
    }

    /// Returns when everything that is queued now is durable and published.
    ///
    /// # Errors
    /// As [`GroupCommit::wait`].
    pub fn flush(&self) -> Result<(), WalError> {
        let last = hold(&self.queue).next_seq - 1;
        self.wait(last)
    }

    /// Ends writing for good, as its owner gives the folder up. Returns when no batch is in flight; whoever waits for
    /// what is still queued, then or later, writes nothing and learns that it is closed.
    pub fn end(&self) {
        loop {
            let mut queue = hold(&self.queue);
            let Some(batch) = &queue.in_flight else {
                // Nothing is lost by this: the owner wrote what it promised.
                let durable = self.durable_seq();
                let cause = "the log is closed".to_string();
                queue.failed.get_or_insert(Failed { cause: cause.clone(), visible: (durable, durable) });
                return self.fail(queue, cause);
            };
            let cohort = batch.cohort.clone();
            drop(queue);
            cohort.wait();
        }
    }

    /// The last seq that is durable and published.
    pub fn durable_seq(&self) -> u64 {
        self.durable_seq.load(Ordering::Acquire)
    }

    /// The last seq that is published; what is behind [`GroupCommit::durable_seq`] may be lost by a crash.
    pub fn visible_seq(&self) -> u64 {
        self.visible_seq.load(Ordering::Acquire)
    }

    /// Seqs that were published and may not be durable when the log failed, first and last; `None` where there is
    /// none or the log is healthy.
    pub fn lost_visible(&self) -> Option<(u64, u64)> {
        let queue = hold(&self.queue);
        let (durable, last) = queue.failed.as_ref()?.visible;
        (durable < last).then_some((durable + 1, last))
    }

    /// How often and how long callers waited to be admitted.
    pub fn stalls(&self) -> Stalls {
        hold(&self.queue).stalls
    }

    /// Runs maintenance on the log between two batches: recycle, seal, figures. It must not write records.
    pub fn with_log<R>(&self, f: impl FnOnce(&mut Log) -> R) -> R {
        let mut log = hold(&self.log);
        let result = f(&mut log);
        let health = log.check_health();
        self.room.store(log.room(), Ordering::Relaxed);
        drop(log);
        if let Err(error) = health {
            // A leader that is at work learns it from its own write.
            self.fail_with(&mut hold(&self.queue), error.to_string());
        }
        drop(hold(&self.queue));
        self.wake_admission();
        result
    }

    /// Prepares a spare log file unless one is ready. Commits go on meanwhile.
    ///
    /// # Errors
    /// [`WalError::DiskFull`], also while the space is kept, and [`WalError::Io`]; the log stays healthy.
    pub fn prepare_spare(&self) -> Result<(), WalError> {
        self.prepare(Log::spare_job)
    }

    /// Waits for a preparation that is under way. Those that are wanted while the answer is held are refused as on a full
    /// disk, and never wait: their thread may be the one that the holder waits for, or the holder's own. For the owner
    /// who needs the last free bytes of the disk itself; one at a time.
    pub fn keep_space(&self) -> SpaceKept<'_> {
        self.space.keep()
    }

    fn prepare<J: Into<Option<crate::SpareJob>>>(
        &self,
        job: impl FnOnce(&mut Log) -> J,
    ) -> Result<(), WalError> {
        let preparing = self.space.prepare();
        let job = job(&mut hold(&self.log)).into();
        let Some(job) = job else { return Ok(()) };
        if preparing.is_none() {
            return Err(job.refuse());
        }
        let spare = job.run()?;
        self.with_log(|log| log.adopt_spare(spare));
        Ok(())
    }

    /// Writes what is queued. `leading` was set by or for the caller.
    fn lead(&self, queue: MutexGuard<'_, Queue<T>>) {
        let mut leadership = Leadership { commit: self, over: false };
        let mut queue = self.gather(queue);
        if queue.failed.is_some() {
            leadership.over = true;
            queue.leading = false;
            let cohort = queue.cohort.clone();
            drop(queue);
            cohort.over();
            return;
        }
        let records = std::mem::take(&mut queue.records);
        let cohort = std::mem::take(&mut queue.cohort);
        queue.has_heir = false;
        queue.urged = Urge::None;
        let last = queue.next_seq - 1;
        let held = queue.held.take();
        let claimed = std::mem::take(&mut queue.claimed);
        queue.in_flight = Some(InFlight { last, cohort: cohort.clone(), held });
        let committers = self.waiting.swap(0, Ordering::Relaxed);
        drop(queue);

        let mut log = hold(&self.log);
        let began = Instant::now();
        let first = log.next_seq();
        let written = log.write(&records.numbered(first));
        let took = began.elapsed();
        self.room.store(log.room(), Ordering::Relaxed);
        let wants_spare = log.wants_spare();
        drop(log);
        if let Err(error) = written {
            leadership.over = true;
            // The records have their seqs, so even an error that leaves the log healthy ends this queue.
            self.fail(hold(&self.queue), error.to_string());
            return;
        }
        let records = records.emptied();

        let mut queue = hold(&self.queue);
        if let Some(batch) = &mut queue.in_flight {
            batch.held = None;
        }
        let mut queue = self.publish(queue);
        drop(queue);
        self.publisher.synced(last);
        if wants_spare {
            self.publisher.wants_spare();
        }
        queue = hold(&self.queue);
        self.durable_seq.store(last, Ordering::Release);
        // Records may have been queued without being published while the lock was away.
        queue = self.publish(queue);
        queue.in_flight = None;
        if queue.records.is_empty() {
            queue.records = records;
        }
        self.claimed.fetch_sub(claimed, Ordering::SeqCst);
        queue.sync_time = match queue.sync_time {
            Duration::ZERO => took,
            average => (average * 7 + took) / 8,
        };
        let next = self.waiting.load(Ordering::Relaxed);
        queue.committers = [queue.committers[1], committers + next];
        queue.leading = next > 0;
        let heir = (next > 0).then(|| queue.cohort.clone());
        self.wake_admission();
        drop(queue);
        if let Some(heir) = heir {
            heir.lead();
        }
        cohort.over();
        leadership.over = true;
    }

    /// Publishes what may be published.
    fn publish<'a>(&'a self, mut queue: MutexGuard<'a, Queue<T>>) -> MutexGuard<'a, Queue<T>> {
        loop {
            let upto = queue.publishable();
            if upto <= queue.visible {
                return queue;
            }
            let items = queue.items_up_to(upto);
            drop(queue);
            self.publisher.publish(upto, &mut items.into_iter());
            queue = hold(&self.queue);
            queue.visible = upto;
            self.visible_seq.store(upto, Ordering::Release);
        }
    }

    /// With several recent committers, waits until as many wait again, at most a quarter of a sync: those whom the
    /// last batch answered are about to come back.
    fn gather<'a>(&'a self, queue: MutexGuard<'a, Queue<T>>) -> MutexGuard<'a, Queue<T>> {
        let wanted = queue.committers[0].max(queue.committers[1]);
        let waiting = || self.waiting.load(Ordering::Relaxed);
        if wanted <= 1 || waiting() >= wanted {
            return queue;
        }
        let patience = queue.sync_time / 4;
        drop(queue);
        let began = Instant::now();
        while waiting() < wanted && began.elapsed() < patience {
            thread::yield_now();
        }
        hold(&self.queue)
    }

    /// Ends this queue: everyone who waits gets `cause`, and nothing more is published.
    fn fail(&self, mut queue: MutexGuard<'_, Queue<T>>, cause: String) {
        self.fail_with(&mut queue, cause);
        queue.leading = false;
        queue.records = Records::default();
        let items = std::mem::take(&mut queue.unpublished);
        let in_flight = queue.in_flight.take();
        let cohort = queue.cohort.clone();
        drop(queue);
        self.wake_admission();
        if let Some(batch) = in_flight {
            batch.cohort.over();
        }
        cohort.over();
        // The owner's values are dropped outside the lock.
        drop(items);
    }

    /// Notes the first failure. Waiters learn it from a leader.
    fn fail_with(&self, queue: &mut Queue<T>, cause: String) {
        let visible = (self.durable_seq(), queue.visible);
        queue.failed.get_or_insert(Failed { cause, visible });
        self.is_failed.store(true, Ordering::Relaxed);
    }

    fn wake_admission(&self) {
        if self.admission_waiters.load(Ordering::SeqCst) > 0 {
            self.admission.notify_all();
        }
    }
}
