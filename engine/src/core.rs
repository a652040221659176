//! What all handles of an open database share, and how a transaction gets through it.
//!
//! A transaction is prepared outside any lock (checked, large payloads written beside the log, record encoded).
//! Under the state's lock it is validated, gets its seq, is applied and queued. Then, outside, the log makes it
//! durable; the leader publishes it, which makes it visible and wakes workers; and the caller is answered.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Instant;

use crossbeam_channel::Sender;
use underbelly_storage::Timestamp;
use underbelly_storage::disk::{Lock, SharedDisk};
use underbelly_wal::GroupCommit;

use crate::error::CommitError;
use crate::graph::{Effects, Event, ProducerId, RunId, Started};
use crate::limits::{CLOCK_MAX, START_BYTES_MAX};
use crate::objects::Objects;
use crate::open::RecoveryReport;
use crate::operations::Operations;
use crate::options::Options;
use crate::pending::{Pending, Pins};
use crate::producers::Closure;
use crate::record;
use crate::signals::{Publication, Signals};
use crate::snapshot::Snapshot;
use crate::state::State;

/// An acknowledged transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Commit {
    /// Its place in the order of all transactions.
    pub seq: u64,
    /// Its commit time, later than that of all transactions before.
    pub time: Timestamp,
    /// Cells whose content it changed.
    pub changed: usize,
    /// Bundles that it made ready to run.
    pub woken: usize,
}

/// What the maintenance thread is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chore {
    /// Make a checkpoint.
    Checkpoint,
    /// Write the zeros of the next log file ahead of time.
    PrepareLog,
}

impl Chore {
    fn name(self) -> &'static str {
        match self {
            Chore::Checkpoint => "a checkpoint in the background failed",
            Chore::PrepareLog => "a log file could not be prepared",
        }
    }
}

/// A transaction that was checked and encoded.
pub(crate) struct Prepared {
    pub operations: Operations,
    pub payload: Vec<u8>,
    /// What must not be removed before the transaction is applied.
    pub pins: Pins,
}

pub(crate) struct Core {
    pub disk: SharedDisk,
    pub database: [u8; 16],
    pub options: Options,
    pub state: Mutex<State>,
    pub objects: Objects,
    pub log: GroupCommit<Publication>,
    pub signals: Arc<Signals>,
    pub closures: RwLock<BTreeMap<ProducerId, Closure>>,
    pub report: RecoveryReport,
    pub next_file: AtomicU64,
    /// Seqs that snapshots read at, with the number of snapshots.
    pub readers: Mutex<BTreeMap<u64, usize>>,
    /// Files and objects that transactions under way are about to name.
    pub pending: Pending,
    /// Held by whoever makes a checkpoint or gives up the folder; the last number that a manifest was given.
    pub checkpoint: Mutex<u64>,
    /// Payload bytes and operations since the last checkpoint.
    pub uncheckpointed: (AtomicU64, AtomicU64),
    pub maintenance: Mutex<Option<Sender<Chore>>>,
    /// Chores that wait or go on, by [`Chore`].
    pub requested: [AtomicBool; 2],
    /// Bytes that one log record may have.
    pub record_bytes_max: usize,
    /// The folder's lock. Whoever writes into the folder holds this for reading; once it is empty, another process
    /// may write there.
    pub folder: RwLock<Option<Box<dyn Lock>>>,
    /// No transaction is taken any more.
    pub closed: AtomicBool,
    /// Something was sequenced beside the record of the opening.
    pub touched: AtomicBool,
    /// What last went wrong in the background, if anything did.
    pub trouble: Mutex<Option<String>>,
    /// Encodes and merges run here, never on a caller's thread pool.
    pub pool: rayon::ThreadPool,
}

impl Core {
    /// The applied head, for reading.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The applied head, for changing it or keeping it. Refused once a transaction panicked half-way.
    pub(crate) fn sound_state(&self) -> Result<MutexGuard<'_, State>, CommitError> {
        let what = "an earlier transaction panicked half-way; open the database again";
        self.state.lock().map_err(|_| CommitError::Internal { what: what.to_string() })
    }

    /// Leave to write into the folder, for as long as the answer is held.
    pub(crate) fn enter(&self) -> Result<RwLockReadGuard<'_, Option<Box<dyn Lock>>>, CommitError> {
        let folder = self.folder.read().unwrap_or_else(PoisonError::into_inner);
        if folder.is_none() || self.closed.load(Ordering::Acquire) {
            return Err(CommitError::Closed);
        }
        Ok(folder)
    }

    /// The number of a new file.
    pub(crate) fn new_file(&self) -> u64 {
        self.next_file.fetch_add(1, Ordering::Relaxed)
    }

    /// The seq of the oldest reader, or of what is visible where nobody reads.
    pub(crate) fn oldest_reader(&self) -> u64 {
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.keys().next().copied().unwrap_or(u64::MAX).min(self.signals.visible())
    }

    /// Encodes operations that were prepared.
    pub(crate) fn encode(&self, operations: Operations, pins: Pins) -> Result<Prepared, CommitError> {
        let internal = |what| CommitError::Internal { what };
        let payload = record::encode(&operations.to_record().map_err(internal)?).map_err(internal)?;
        if payload.len() > self.record_bytes_max {
            return Err(CommitError::TooLarge {
                what: "the log record of one transaction",
                found: payload.len() as u64,
                limit: self.record_bytes_max as u64,
                remedy: "commit in several transactions",
            });
        }
        Ok(Prepared { operations, payload, pins })
    }

    /// Commits an event alone.
    pub(crate) fn commit_event(&self, event: Event) -> Result<(Commit, Effects), CommitError> {
        let folder = self.enter()?;
        let operations = Operations { event: Some(event), ..Operations::default() };
        let prepared = self.encode(operations, self.pending.pin())?;
        let sequenced = self.sequence(prepared, |_| Ok(()))?;
        drop(folder);
        self.log.wait(sequenced.0.seq)?;
        Ok(sequenced)
    }

    /// Queues the event of an opening, for which nobody waits; it rides to the disk with the next transaction. It is
    /// not admitted: the log keeps room for one small record more than it admits.
    pub(crate) fn queue_event(&self, event: Event) -> Result<(), CommitError> {
        let operations = Operations { event: Some(event), ..Operations::default() };
        let prepared = self.encode(operations, self.pending.pin())?;
        let now = self.options.clock.now();
        self.sequence_locked(&mut *self.sound_state()?, prepared, now)?;
        self.touched.store(false, Ordering::Release);
        Ok(())
    }

    /// Gives a transaction its seq, applies it and queues it. It is durable when the log says so. The caller has
    /// entered the folder.
    pub(crate) fn sequence(
        &self,
        prepared: Prepared,
        validate: impl FnOnce(&State) -> Result<(), CommitError>,
    ) -> Result<(Commit, Effects), CommitError> {
        let _admitted = self.log.admit(prepared.payload.len() as u64)?;
        let now = self.options.clock.now();
        let mut state = self.sound_state()?;
        validate(&state)?;
        self.sequence_locked(&mut state, prepared, now)
    }

    /// The same for a caller that holds the lock.
    pub(crate) fn sequence_locked(
        &self,
        state: &mut State,
        prepared: Prepared,
        now: Timestamp,
    ) -> Result<(Commit, Effects), CommitError> {
        let Prepared { operations, mut payload, pins } = prepared;
        if now > CLOCK_MAX {
            return Err(CommitError::Clock { now });
        }
        state.check(&operations)?;
        self.touched.store(true, Ordering::Release);
        let seq = state.head + 1;
        let later = state.time.0.checked_add(1);
        let later =
            later.ok_or_else(|| CommitError::Internal { what: "commit times have run out".to_string() })?;
        let time = Timestamp(now.0.max(later));
        record::stamp(&mut payload, time);
        let bytes = payload.len() as u64;
        let count = operations.count() as u64;
        let objects: Vec<_> = operations.objects.iter().map(|(id, place)| (*id, place.clone())).collect();
        let effects = state.apply(seq, time, operations, self.oldest_reader())?;
        for (id, place) in objects {
            self.objects.insert(id, place);
        }
        drop(pins);
        let publication = Publication {
            sequenced: Instant::now(),
            transitions: effects.transitions.clone(),
            ready: effects.ready.clone(),
        };
        self.log.enqueue(seq, payload, publication)?;
        let before = self.uncheckpointed.0.fetch_add(bytes, Ordering::Relaxed);
        let operations = self.uncheckpointed.1.fetch_add(count, Ordering::Relaxed) + count;
        if self.is_due(before + bytes, operations) {
            self.request(Chore::Checkpoint);
        }
        let quarter = (self.options.log_file_bytes / 4).max(1);
        if before / quarter != (before + bytes) / quarter {
            self.request(Chore::PrepareLog);
        }
        let commit = Commit { seq, time, changed: effects.contents.len(), woken: effects.ready.len() };
        Ok((commit, effects))
    }

    /// Whether so much behind the last checkpoint calls for the next.
    fn is_due(&self, bytes: u64, operations: u64) -> bool {
        bytes >= self.options.checkpoint_bytes || operations >= self.options.checkpoint_operations
    }

    /// Seals the log and gives up the folder, unless that is done. Nothing is written after it.
    pub(crate) fn release(&self) -> Result<(), CommitError> {
        let mut folder = self.folder.write().unwrap_or_else(PoisonError::into_inner);
        if folder.is_none() {
            return Ok(());
        }
        // Who only looked leaves the log as it was: the record of the opening is made anew by the next.
        let sealed = match self.touched.load(Ordering::Acquire) {
            true => self.log.flush().and_then(|()| self.log.with_log(|log| log.seal())),
            false => Ok(()),
        };
        folder.take();
        Ok(sealed?)
    }

    /// Asks the maintenance thread, unless it was asked for the same.
    fn request(&self, chore: Chore) {
        if self.requested[chore as usize].swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(maintenance) = &*self.maintenance.lock().unwrap_or_else(PoisonError::into_inner) {
            // There is room for each chore once.
            let _ = maintenance.try_send(chore);
        }
    }

    /// Does what the maintenance thread was asked for. What fails is told in the status; the log is as it was, and
    /// the next trigger tries again.
    pub(crate) fn maintain(self: &Arc<Core>, chore: Chore) {
        self.requested[chore as usize].swap(false, Ordering::AcqRel);
        let done = match chore {
            Chore::Checkpoint => {
                let (bytes, operations) = &self.uncheckpointed;
                if !self.is_due(bytes.load(Ordering::Relaxed), operations.load(Ordering::Relaxed)) {
                    return;
                }
                self.checkpoint().map(|_| ())
            }
            Chore::PrepareLog => self.enter().and_then(|_folder| Ok(self.log.prepare_spare()?)),
        };
        match done {
            Ok(()) | Err(CommitError::Closed) => {}
            Err(error) => self.note_trouble(format!("{}: {error}", chore.name())),
        }
    }

    /// Keeps what went wrong in the background for the status.
    pub(crate) fn note_trouble(&self, what: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
    }

    /// Starts the oldest ready bundle, if there is one. The start rides to the disk with the next commit. The
    /// snapshot shows what the run reads once the log is durable up to its seq.
    pub(crate) fn claim(self: &Arc<Core>) -> Result<Option<(Started, Snapshot)>, CommitError> {
        let _folder = self.enter()?;
        let _admitted = self.log.admit(START_BYTES_MAX)?;
        let now = self.options.clock.now();
        let mut state = self.sound_state()?;
        let Some(bundle) = state.graph.next_ready() else { return Ok(None) };
        let snapshot = Snapshot::at(self, state.head);
        let event = Event::Start { bundle, run: RunId(state.next_run) };
        let operations = Operations { event: Some(event), ..Operations::default() };
        let prepared = self.encode(operations, self.pending.pin())?;
        let (_, effects) = self.sequence_locked(&mut state, prepared, now)?;
        Ok(effects.started.map(|started| (started, snapshot)))
    }
}
