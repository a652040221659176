//! Group commit: many callers, one write and one sync.
//!
//! The first caller who waits leads: it takes all that is queued, writes it as one batch, publishes, and wakes
//! those who waited for it. One batch is in flight at a time; while it syncs, the next gathers.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::WalError;
use crate::log::Log;
use crate::options::LogOptions;

/// Commits of many threads over one [`Log`].
///
/// A commit is: [`admit`](GroupCommit::admit) before anything is decided, [`enqueue`](GroupCommit::enqueue) under
/// the owner's sequencing lock, [`wait`](GroupCommit::wait) outside it. `T` is what the owner gets back for each
/// record when it is durable.
pub struct GroupCommit<T> {
    queue: Mutex<Queue<T>>,
    log: Mutex<Log>,
    publish: Box<dyn Fn(u64, T) + Send + Sync>,
    /// Woken when queued bytes or room for them change.
    admission: Condvar,
    /// Written under the queue's lock; read without it.
    durable_seq: AtomicU64,
    /// Callers who wait for what is queued. Written under the queue's lock; the gathering leader reads it without.
    waiting: AtomicUsize,
    record_max: u64,
    queue_bytes_max: u64,
}

struct Queue<T> {
    records: Vec<(u64, Vec<u8>)>,
    items: Vec<T>,
    next_seq: u64,
    /// Padded bytes that are queued or in flight.
    bytes: u64,
    /// Padded bytes that were admitted and are not queued yet.
    admitted: u64,
    /// Bytes that the log can take without a new file, as of the last batch.
    room: u64,
    /// Whether somebody leads or was told to.
    leading: bool,
    /// Whether somebody prepares a spare for admission.
    preparing: bool,
    admission_waiters: usize,
    failed: Option<String>,
    /// Those who wait for what is queued.
    cohort: Arc<Cohort>,
    /// The batch that is being written: its last seq, and those who wait for it.
    in_flight: Option<(u64, Arc<Cohort>)>,
    /// For each of the last two batches: callers in it and callers who waited at its end.
    committers: [usize; 2],
    /// Moving average of the time that a batch takes to become durable.
    sync_time: Duration,
}

/// Callers who wait for the same batch.
struct Cohort {
    turn: Mutex<Turn>,
    wake: Condvar,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Wait,
    /// One of them is to lead; whoever sees it resets it.
    Lead,
    Over,
}

impl Cohort {
    fn new() -> Arc<Cohort> {
        Arc::new(Cohort { turn: Mutex::new(Turn::Wait), wake: Condvar::new() })
    }

    /// Blocks until the batch is over (`false`) or the caller is to lead it (`true`).
    fn wait(&self) -> bool {
        let mut turn = hold(&self.turn);
        while *turn == Turn::Wait {
            turn = self.wake.wait(turn).unwrap_or_else(PoisonError::into_inner);
        }
        if *turn == Turn::Lead {
            *turn = Turn::Wait;
            return true;
        }
        false
    }

    fn lead(&self) {
        *hold(&self.turn) = Turn::Lead;
        self.wake.notify_one();
    }

    fn over(&self) {
        *hold(&self.turn) = Turn::Over;
        self.wake.notify_all();
    }
}

/// Space in the queue, held until the record is queued. Returned by [`GroupCommit::admit`].
#[must_use = "keep it until the record is queued"]
pub struct Admission<'a, T> {
    commit: &'a GroupCommit<T>,
    bytes: u64,
}

impl<T> Drop for Admission<'_, T> {
    fn drop(&mut self) {
        let mut queue = hold(&self.commit.queue);
        queue.admitted -= self.bytes;
        self.commit.wake_admission(&queue);
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

// A lock is never left with a broken invariant: a leader that panics fails the queue, and the log keeps its own
// account of what was written.
fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> GroupCommit<T> {
    /// Commits to `log`. `publish` gets every record's seq and item in the order of seqs, after the sync and
    /// before those who wait are woken; no lock of the queue is held. It must not commit and wait itself.
    pub fn new(log: Log, publish: impl Fn(u64, T) + Send + Sync + 'static) -> GroupCommit<T> {
        let queue = Queue {
            records: Vec::new(),
            items: Vec::new(),
            next_seq: log.next_seq(),
            bytes: 0,
            admitted: 0,
            room: log.room(),
            leading: false,
            preparing: false,
            admission_waiters: 0,
            failed: log.check_health().err().map(|error| error.to_string()),
            cohort: Cohort::new(),
            in_flight: None,
            committers: [1; 2],
            sync_time: Duration::ZERO,
        };
        GroupCommit {
            durable_seq: AtomicU64::new(log.next_seq() - 1),
            waiting: AtomicUsize::new(0),
            record_max: log.options().record_max.into(),
            queue_bytes_max: log.options().queue_bytes_max,
            queue: Mutex::new(queue),
            log: Mutex::new(log),
            publish: Box::new(publish),
            admission: Condvar::new(),
        }
    }

    /// Asks for space for a record of up to `bytes` bytes, before it gets its seq. Blocks while more than
    /// `queue_bytes_max` are queued, and prepares a log file where the prepared ones would not take all that is
    /// queued, so that running out of space is told before anything is decided.
    ///
    /// # Errors
    /// [`WalError::RecordTooLarge`], [`WalError::DiskFull`], [`WalError::Io`] while preparing a file,
    /// [`WalError::Poisoned`].
    pub fn admit(&self, bytes: u64) -> Result<Admission<'_, T>, WalError> {
        if bytes > self.record_max {
            return Err(WalError::RecordTooLarge { bytes, max: self.record_max });
        }
        let bytes = LogOptions::alone(bytes);
        let mut queue = hold(&self.queue);
        loop {
            queue.check()?;
            let wanted = queue.bytes.saturating_add(queue.admitted).saturating_add(bytes);
            let full = queue.bytes > 0 && wanted > self.queue_bytes_max;
            let short = wanted > queue.room;
            if !full && !short {
                queue.admitted += bytes;
                return Ok(Admission { commit: self, bytes });
            }
            if full && !queue.leading {
                queue.leading = true;
                self.lead(queue);
                queue = hold(&self.queue);
            } else if short && !full && !queue.preparing {
                queue.preparing = true;
                drop(queue);
                let prepared = self.prepare(Log::extra_spare_job);
                queue = hold(&self.queue);
                queue.preparing = false;
                self.wake_admission(&queue);
                prepared?;
            } else {
                queue.admission_waiters += 1;
                queue = self.admission.wait(queue).unwrap_or_else(PoisonError::into_inner);
                queue.admission_waiters -= 1;
            }
        }
    }

    /// Queues the next record, which becomes durable with the next batch. Never blocks on I/O.
    ///
    /// # Errors
    /// [`WalError::Sequence`] where `seq` is not the next, [`WalError::RecordTooLarge`], [`WalError::Poisoned`].
    pub fn enqueue(&self, seq: u64, record: Vec<u8>, item: T) -> Result<(), WalError> {
        let bytes = record.len() as u64;
        if bytes > self.record_max {
            return Err(WalError::RecordTooLarge { bytes, max: self.record_max });
        }
        let mut queue = hold(&self.queue);
        queue.check()?;
        if seq != queue.next_seq {
            return Err(WalError::Sequence { expected: queue.next_seq, found: seq });
        }
        queue.next_seq += 1;
        queue.bytes += LogOptions::alone(bytes);
        queue.records.push((seq, record));
        queue.items.push(item);
        Ok(())
    }

    /// Returns when `seq` is durable and published.
    ///
    /// # Errors
    /// [`WalError::Poisoned`] where the log failed first: whether the record survives is open until the log is
    /// reopened, but nobody was told of it. [`WalError::NotQueued`].
    pub fn wait(&self, seq: u64) -> Result<(), WalError> {
        if self.durable_seq() >= seq {
            return Ok(());
        }
        let mut queue = hold(&self.queue);
        if self.durable_seq() >= seq {
            return Ok(());
        }
        queue.check()?;
        if seq >= queue.next_seq {
            return Err(WalError::NotQueued { seq, next: queue.next_seq });
        }
        let cohort = match &queue.in_flight {
            Some((last, cohort)) if seq <= *last => cohort.clone(),
            _ => {
                self.waiting.fetch_add(1, Ordering::Relaxed);
                queue.cohort.clone()
            }
        };
        if queue.leading {
            drop(queue);
            if cohort.wait() {
                self.lead(hold(&self.queue));
            }
        } else {
            queue.leading = true;
            self.lead(queue);
        }
        if self.durable_seq() >= seq { Ok(()) } else { hold(&self.queue).check() }
    }

    /// Returns when everything that is queued now is durable and published.
    ///
    /// # Errors
    /// As [`GroupCommit::wait`].
    pub fn flush(&self) -> Result<(), WalError> {
        let last = hold(&self.queue).next_seq - 1;
        self.wait(last)
    }

    /// The last seq that is durable and published.
    pub fn durable_seq(&self) -> u64 {
        self.durable_seq.load(Ordering::Acquire)
    }

    /// Runs maintenance on the log between two batches: recycle, seal, figures. It must not write records.
    pub fn with_log<R>(&self, f: impl FnOnce(&mut Log) -> R) -> R {
        let mut log = hold(&self.log);
        let result = f(&mut log);
        let mut queue = hold(&self.queue);
        queue.room = log.room();
        if let Err(error) = log.check_health() {
            // A leader that is at work learns it from its own write.
            queue.failed.get_or_insert(error.to_string());
        }
        self.wake_admission(&queue);
        result
    }

    /// Prepares a spare log file unless one is ready. Commits go on meanwhile.
    ///
    /// # Errors
    /// [`WalError::DiskFull`], [`WalError::Io`]; the log stays healthy.
    pub fn prepare_spare(&self) -> Result<(), WalError> {
        self.prepare(Log::spare_job)
    }

    fn prepare<J: Into<Option<crate::SpareJob>>>(
        &self,
        job: impl FnOnce(&mut Log) -> J,
    ) -> Result<(), WalError> {
        let job = job(&mut hold(&self.log)).into();
        if let Some(job) = job {
            let spare = job.run()?;
            self.with_log(|log| log.adopt_spare(spare));
        }
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
        let items = std::mem::take(&mut queue.items);
        let cohort = std::mem::replace(&mut queue.cohort, Cohort::new());
        let last = queue.next_seq - 1;
        queue.in_flight = Some((last, cohort.clone()));
        let bytes = queue.bytes;
        let committers = self.waiting.swap(0, Ordering::Relaxed);
        drop(queue);

        let mut log = hold(&self.log);
        let began = Instant::now();
        let written = log.write(&records);
        let took = began.elapsed();
        let room = log.room();
        drop(log);
        if let Err(error) = written {
            leadership.over = true;
            // The records have their seqs, so even an error that leaves the log healthy ends this queue.
            self.fail(hold(&self.queue), error.to_string());
            return;
        }
        for ((seq, _), item) in records.iter().zip(items) {
            (self.publish)(*seq, item);
        }

        let mut queue = hold(&self.queue);
        self.durable_seq.store(last, Ordering::Release);
        queue.in_flight = None;
        queue.bytes -= bytes;
        queue.room = room;
        queue.sync_time = match queue.sync_time {
            Duration::ZERO => took,
            average => (average * 7 + took) / 8,
        };
        let next = self.waiting.load(Ordering::Relaxed);
        queue.committers = [queue.committers[1], committers + next];
        queue.leading = next > 0;
        let heir = (next > 0).then(|| queue.cohort.clone());
        self.wake_admission(&queue);
        drop(queue);
        cohort.over();
        if let Some(heir) = heir {
            heir.lead();
        }
        leadership.over = true;
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
        queue.failed.get_or_insert(cause);
        queue.leading = false;
        queue.records = Vec::new();
        let items = std::mem::take(&mut queue.items);
        let in_flight = queue.in_flight.take();
        let cohort = queue.cohort.clone();
        self.admission.notify_all();
        drop(queue);
        if let Some((_, in_flight)) = in_flight {
            in_flight.over();
        }
        cohort.over();
        // The owner's values are dropped outside the lock.
        drop(items);
    }

    fn wake_admission(&self, queue: &Queue<T>) {
        if queue.admission_waiters > 0 {
            self.admission.notify_all();
        }
    }
}

impl<T> Queue<T> {
    fn check(&self) -> Result<(), WalError> {
        match &self.failed {
            Some(cause) => Err(WalError::Poisoned { cause: cause.clone() }),
            None => Ok(()),
        }
    }
}
