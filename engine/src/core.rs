//! What all handles of an open database share, and how a transaction gets through it.
//!
//! A transaction is prepared outside any lock (checked, large payloads written beside the log, record encoded).
//! Under the state's lock it is validated, gets its seq, is applied and queued. Then, outside, workers are woken, which
//! claim what it made ready and wait; the log makes it durable; the leader publishes it, which makes it visible and lets them
//! start; and the caller is answered. A `Buffered` transaction is published as it is queued, unless one before it waits for
//! the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::hint;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::time::Instant;

use crossbeam_channel::Sender;
use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard};
use underbelly_storage::Timestamp;
use underbelly_storage::disk::Lock;
use underbelly_storage::sealed::Gate;
use underbelly_wal::{Admission, GroupCommit, Promise, Urge, WalError};

use crate::backlog::{Backlog, Load};
use crate::batch::Batch;
use crate::checkpoint::{Chain, CheckpointReport};
use crate::durability::Durability;
use crate::error::CommitError;
use crate::graph::{BundleId, Effects, Event, ProducerId, RunId, Started};
use crate::limits::{
    CHECKPOINT_LOG_BYTES, CHECKPOINT_RETRY, CHECKPOINT_SEGMENTS, CLOCK_MAX, CONFLICT_RETRIES,
    RUNS_OF_RECORD_MAX, START_BYTES, START_BYTES_MAX,
};
use crate::models::LiveModels;
use crate::monitor::Handed;
use crate::open::RecoveryReport;
use crate::operations::Operations;
use crate::options::Options;
use crate::pending::{Pending, Pins};
use crate::pool::Pool;
use crate::producers::{Hands, Paces, Taken, Work, is_worker, run_taken};
use crate::record;
use crate::scribe::Duty;
use crate::series::Gates;
use crate::sessions::Leases;
use crate::signals::{Publication, Signals};
use crate::snapshot::Snapshot;
use crate::state::State;
use crate::variables::{Name, Shown};
use crate::view::{Base, View};

/// Transactions between two looks at the length of the log.
const LOG_LOOK_TRANSACTIONS: u64 = 4096;

/// Looks at a lock of the state that is taken before a commit waits in line for it.
const STATE_TRIES: u32 = 4;

/// Pauses of the processor between two of them; some microseconds.
const STATE_PAUSES: u32 = 200;

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
}

impl Chore {
    /// All, in the order in which they are done.
    pub(crate) const ALL: [Chore; 1] = [Chore::Checkpoint];

    fn name(self) -> &'static str {
        match self {
            Chore::Checkpoint => "a checkpoint in the background failed",
        }
    }
}

/// Of which producers work is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Of all that have no threads of their own; the others are told. Several batches at once where runs are short.
    Shared,
    /// Of the same, one batch after another, as whoever drives the database by hand expects.
    Driven,
    /// Of those whose work is done on the thread whose commit made it ready.
    Inline,
    /// Of this one.
    #[cfg(feature = "processes")]
    Of(ProducerId),
}

/// A transaction that has its seq.
pub(crate) struct Sequenced {
    pub commit: Commit,
    pub effects: Effects,
    /// Inline bundles that it made ready, and that the thread that committed it does.
    pub own: BTreeSet<BundleId>,
}

/// A transaction that was checked and encoded.
pub(crate) struct Prepared<'a> {
    /// Boxed: it is handed on many times, and is long.
    pub operations: Box<Operations>,
    pub payload: Vec<u8>,
    /// Whether the thread that commits it does inline work, and so what is inline of what this makes ready.
    pub here: bool,
    /// What must not be removed before the transaction is applied; held until then, not read.
    pub _pins: Pins<'a>,
}

/// Who takes several locks takes them in this order: `chain`, `folder`, `gates`, `closures`, the state, the log's own; all others are
/// held for a moment, and nothing is taken under them. Neither `folder` nor the state is taken by a thread that has it. A
/// checkpoint holds `chain` alone while it gives way.
pub(crate) struct Core {
    pub view: View,
    pub options: Options,
    pub log: GroupCommit<Publication>,
    pub signals: Arc<Signals>,
    pub leases: Leases,
    #[cfg(feature = "processes")]
    pub servers: Mutex<Vec<std::sync::Weak<crate::server::Shared>>>,
    pub closures: RwLock<BTreeMap<ProducerId, Work>>,
    /// How long their runs take of late.
    pub paces: Paces,
    /// What workers have claimed together.
    pub hands: Hands,
    pub report: RecoveryReport,
    pub next_file: AtomicU64,
    /// For appends that look at the rows which are there.
    pub gates: Gates,
    /// Files and objects that transactions under way are about to name.
    pub pending: Pending,
    /// Held by whoever makes a checkpoint, or gives up the folder; what a checkpoint goes on from.
    pub chain: Mutex<Chain>,
    /// What was committed since the last checkpoint.
    pub backlog: Backlog,
    /// A full disk refused a log file, which a checkpoint may give back.
    pub wants_log: AtomicBool,
    /// When a checkpoint in the background may be tried again after one that failed.
    pub retry_at: Mutex<Option<Instant>>,
    pub maintenance: Mutex<Option<Sender<Chore>>>,
    /// Chores that wait or go on, by [`Chore`].
    pub requested: [AtomicBool; 1],
    /// Bytes that one log record may have.
    pub record_bytes_max: usize,
    /// The folder's lock. Whoever writes into the folder holds this for reading, or `chain`; once it is empty, another
    /// process may write there. Sharded, as every commit takes it for reading.
    pub folder: ShardedLock<Option<Box<dyn Lock>>>,
    /// Open as long as threads may write chunks into the folder.
    pub aside: Arc<Gate>,
    /// No transaction is taken any more.
    pub closed: AtomicBool,
    /// Something was sequenced beside the record of the opening.
    pub touched: AtomicBool,
    /// What last went wrong in the background, if anything did.
    pub trouble: Arc<Mutex<Option<String>>>,
    /// Damaged segments, as the last checkpoint told them.
    pub damaged: Mutex<Vec<String>>,
    /// Objects in memory that are saved now and then.
    pub live: LiveModels,
    /// What monitors have handed over and is not committed yet.
    pub handed: Handed,
    /// Encodes and merges run here, never on a caller's thread pool.
    pub pool: Pool,
}

/// Who writes has all that a reader has.
impl Deref for Core {
    type Target = Base;

    fn deref(&self) -> &Base {
        self.view.base()
    }
}

impl Core {
    /// The applied head, for changing it or keeping it. Refused once a transaction panicked half-way.
    pub(crate) fn sound_state(&self) -> Result<MutexGuard<'_, State>, CommitError> {
        let what = "an earlier transaction panicked half-way; open the database again";
        self.state.lock().map_err(|_| CommitError::Internal { what: what.to_string() })
    }

    /// The same for a commit. Who finds it taken comes back a little later, a few times, before it waits in line: what
    /// the holder has in its cache it uses again, and moving that to another processor at each commit costs more than
    /// most commits do.
    fn patient_state(&self) -> Result<MutexGuard<'_, State>, CommitError> {
        for _ in 0..STATE_TRIES {
            match self.state.try_lock() {
                Ok(state) => return Ok(state),
                Err(TryLockError::WouldBlock) => (0..STATE_PAUSES).for_each(|_| hint::spin_loop()),
                Err(TryLockError::Poisoned(_)) => break,
            }
        }
        self.sound_state()
    }

    /// Leave to write into the folder, for as long as the answer is held.
    pub(crate) fn enter(&self) -> Result<ShardedLockReadGuard<'_, Option<Box<dyn Lock>>>, CommitError> {
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

    /// Encodes operations that were prepared.
    pub(crate) fn encode<'a>(
        &self,
        operations: Box<Operations>,
        pins: Pins<'a>,
    ) -> Result<Prepared<'a>, CommitError> {
        let payload = record::of(&operations).map_err(|what| CommitError::Internal { what })?;
        if payload.len() > self.record_bytes_max {
            return Err(CommitError::TooLarge {
                what: "the log record of one transaction",
                found: payload.len() as u64,
                limit: self.record_bytes_max as u64,
                remedy: "commit in several transactions",
            });
        }
        Ok(Prepared { operations, payload, here: false, _pins: pins })
    }

    /// Commits a batch; the workers do what it makes ready. See [`Database::commit`](crate::Database::commit).
    pub(crate) fn commit(&self, batch: Batch) -> Result<Commit, CommitError> {
        let durability = batch.durability;
        let commit = self.place(batch)?;
        self.answer(commit.seq, durability)?;
        Ok(commit)
    }

    /// The same for a caller's own commit: this thread does what it makes ready of inline producers.
    pub(crate) fn commit_here(self: &Arc<Core>, batch: Batch) -> Result<Commit, CommitError> {
        let durability = batch.durability;
        let (commit, taken) = self.place_here(batch)?;
        run_taken(self, taken);
        self.answer(commit.seq, durability)?;
        Ok(commit)
    }

    /// Gives a batch its seq; the caller answers when [`Core::answer`] does.
    pub(crate) fn place(&self, batch: Batch) -> Result<Commit, CommitError> {
        let durability = batch.durability;
        let placed = self.place_by(batch, |prepared| self.sequence(prepared, durability, |_| Ok(())));
        placed.map(|(commit, _)| commit)
    }

    /// The same for a caller's own commit, which has [`run_taken`] do what it has taken before it answers.
    pub(crate) fn place_here(self: &Arc<Core>, batch: Batch) -> Result<(Commit, Option<Taken>), CommitError> {
        let durability = batch.durability;
        self.place_by(batch, |prepared| self.sequence_here(prepared, durability, |_| Ok(())))
    }

    /// Prepares a batch, and has it sequenced; again where others changed what it was prepared from.
    pub(crate) fn place_by<T>(
        &self,
        batch: Batch,
        sequence: impl Fn(Prepared<'_>) -> Result<T, CommitError>,
    ) -> Result<T, CommitError> {
        let place = |batch: Batch| {
            let _folder = self.enter()?;
            sequence(self.prepare(batch)?)
        };
        // What a deletion takes back beside the model is found as it is prepared, and so are rows.
        for _ in 1..CONFLICT_RETRIES {
            if !self.may_be_overtaken(&batch) {
                break;
            }
            match place(batch.clone()) {
                Err(error) if error.is_overtaken() => {}
                done => return done,
            }
        }
        place(batch)
    }

    /// As [`Core::sequence`], for a caller's own commit: the inline work that it makes is this thread's, to be done by
    /// [`run_taken`]. The first batch is claimed under the same lock and rides to the disk with the commit.
    pub(crate) fn sequence_here(
        self: &Arc<Core>,
        mut prepared: Prepared<'_>,
        durability: Durability,
        validate: impl FnOnce(&State) -> Result<(), CommitError>,
    ) -> Result<(Commit, Option<Taken>), CommitError> {
        // A closure's own commits leave it to the workers: nothing is nested.
        prepared.here = self.signals.has_inline() && !is_worker(self);
        if !prepared.here {
            return self.sequence(prepared, durability, validate).map(|(commit, _)| (commit, None));
        }
        let admission = self.admit(prepared.payload.len() as u64)?;
        let several = self.starts_of_record();
        // Where the log has no room for the start as well, workers have the work when it has.
        let mut start = self.admit(START_BYTES_MAX + START_BYTES * several as u64).ok();
        prepared.here = start.is_some();
        let mut first = None;
        let sequenced = self.sequence_and(prepared, admission, durability, validate, |state, now, own| {
            let Some(producer) = own.first().and_then(|bundle| state.graph.producer_of(*bundle)) else {
                return;
            };
            // What one record cannot start is claimed by itself.
            let bundles = state.graph.next_batch_of(now, producer);
            let bundles = if bundles.len() <= several { bundles } else { Vec::new() };
            let snapshot = Snapshot::at(self.view.base(), state.head);
            // What cannot be started is claimed again there, and fails.
            let started = self.start_all(state, &bundles, now, start.take().into_iter().collect());
            first = Some((started.unwrap_or_default(), snapshot));
        })?;
        let Sequenced { commit, own, .. } = sequenced;
        Ok((commit, first.map(|(started, snapshot)| Taken { started, snapshot, own })))
    }

    /// Commits an event alone.
    pub(crate) fn commit_event(&self, event: Event) -> Result<(Commit, Effects), CommitError> {
        let folder = self.enter()?;
        let operations = Box::new(Operations { event: Some(event), ..Operations::default() });
        let prepared = self.encode(operations, self.pending.pin())?;
        let sequenced = self.sequence(prepared, Durability::Sync, |_| Ok(()))?;
        drop(folder);
        self.log.wait(sequenced.0.seq)?;
        Ok(sequenced)
    }

    /// Queues the event of an opening, for which nobody waits; it rides to the disk with the next transaction. It is
    /// not admitted: the log keeps room for one small record more than it admits.
    pub(crate) fn queue_event(&self, event: Event) -> Result<(), CommitError> {
        let operations = Box::new(Operations { event: Some(event), ..Operations::default() });
        let mut prepared = self.encode(operations, self.pending.pin())?;
        let now = self.options.clock.now();
        let (_, _, urge) =
            self.sequence_locked(&mut *self.sound_state()?, &mut prepared, now, None, Promise::Nothing)?;
        self.urge(urge);
        self.touched.store(false, Ordering::Release);
        Ok(())
    }

    /// Gives a transaction its seq, applies it and queues it. The caller has entered the folder, and answers when
    /// [`Core::answer`] does.
    pub(crate) fn sequence(
        &self,
        prepared: Prepared<'_>,
        durability: Durability,
        validate: impl FnOnce(&State) -> Result<(), CommitError>,
    ) -> Result<(Commit, Effects), CommitError> {
        let admission = self.admit(prepared.payload.len() as u64)?;
        let sequenced = self.sequence_and(prepared, admission, durability, validate, |_, _, _| {})?;
        Ok((sequenced.commit, sequenced.effects))
    }

    /// Room in the log for a record. Where there is none, a checkpoint is asked for: it gives log files back.
    pub(crate) fn admit(&self, bytes: u64) -> Result<Admission<'_, Publication>, CommitError> {
        let admission = self.log.admit(bytes).inspect_err(|error| {
            if matches!(error, WalError::DiskFull { .. }) {
                self.wants_log.store(true, Ordering::Release);
                self.request(Chore::Checkpoint);
            }
        });
        Ok(admission?)
    }

    /// As [`Core::sequence`] with room that was admitted; does something more under the lock with what is this thread's.
    pub(crate) fn sequence_and(
        &self,
        mut prepared: Prepared<'_>,
        admission: Admission<'_, Publication>,
        durability: Durability,
        validate: impl FnOnce(&State) -> Result<(), CommitError>,
        then: impl FnOnce(&mut State, Timestamp, &BTreeSet<BundleId>),
    ) -> Result<Sequenced, CommitError> {
        let now = self.options.clock.now();
        let mut state = self.patient_state()?;
        validate(&state)?;
        if let Some(what) = prepared.operations.rests_on.iter().find_map(|read| read.changed(&state)) {
            return Err(CommitError::Conflict { tries: CONFLICT_RETRIES, what });
        }
        // What it leaves behind in `prepared` is dropped after the lock.
        let (commit, effects, urge) =
            self.sequence_locked(&mut state, &mut prepared, now, Some(admission), durability.promise())?;
        let own = match prepared.here {
            true => self.signals.inline_of(&state.graph, &effects.ready),
            false => BTreeSet::new(),
        };
        then(&mut state, now, &own);
        let calls = self.signals.calls(&state.graph, &effects, &own);
        drop(state);
        // They claim while the log is being written, and start when it is.
        self.signals.call(&calls);
        self.urge(urge);
        Ok(Sequenced { commit, effects, own })
    }

    /// Returns when a transaction that was sequenced may be answered.
    pub(crate) fn answer(&self, seq: u64, durability: Durability) -> Result<(), CommitError> {
        match durability {
            Durability::Sync => self.log.wait(seq)?,
            Durability::Buffered => self.log.wait_visible(seq)?,
        }
        Ok(())
    }

    /// The same for a caller that holds the lock, and that passes on how urgent it is to write it.
    pub(crate) fn sequence_locked(
        &self,
        state: &mut State,
        prepared: &mut Prepared<'_>,
        now: Timestamp,
        admission: Option<Admission<'_, Publication>>,
        promise: Promise,
    ) -> Result<(Commit, Effects, Urge), CommitError> {
        let Prepared { operations, payload, .. } = prepared;
        if now > CLOCK_MAX {
            return Err(CommitError::Clock { now });
        }
        state.check(operations)?;
        let Operations { deletes, appends, .. } = &**operations;
        state.check_since(deletes, appends, || self.oldest_snapshot())?;
        if !self.touched.load(Ordering::Relaxed) {
            self.touched.store(true, Ordering::Release);
        }
        let seq = state.head + 1;
        let later = state.time.0.checked_add(1);
        let later =
            later.ok_or_else(|| CommitError::Internal { what: "commit times have run out".to_string() })?;
        let time = Timestamp(now.0.max(later));
        record::stamp(payload, time);
        let load = operations.load(payload.len() as u64);
        for (id, place) in &operations.objects {
            self.objects.put(*id, place.clone());
        }
        self.pending.log(seq, &operations.files());
        let names: BTreeSet<Arc<Name>> =
            operations.variables.iter().map(|change| change.name.clone()).collect();
        let due_before = state.graph.next_due();
        let effects = state.apply(seq, time, operations, || self.oldest_reader(), &self.objects)?;
        let due = state.graph.next_due();
        let newest = |name: Arc<Name>| {
            let set = state.variables.newest(&name).cloned();
            (name, set)
        };
        let variables: Vec<Shown> = names.into_iter().map(newest).collect();
        let is_heard = !effects.transitions.is_empty()
            || !effects.ready.is_empty()
            || !variables.is_empty()
            || !effects.freed.is_empty()
            || !effects.alarms.is_empty()
            || due.is_some_and(|due| due_before.is_none_or(|before| due < before));
        let publication = is_heard.then(|| Publication {
            sequenced: self.options.clock.instant(),
            due,
            transitions: effects.transitions.clone(),
            ready: effects.ready.clone(),
            variables,
        });
        let urge = self.log.enqueue(admission, seq, std::mem::take(payload), publication, promise)?;
        if urge > Urge::None && self.options.buffered_delay.is_some() {
            // What starts from here on is shown with it.
            self.signals.writes_soon();
        }
        let load = self.backlog.add(&load);
        // The log's length is looked at now and then.
        if self.is_due(&load) || load.transactions.is_multiple_of(LOG_LOOK_TRANSACTIONS) {
            self.request(Chore::Checkpoint);
        }
        let commit = Commit { seq, time, changed: effects.contents.len(), woken: effects.ready.len() };
        Ok((commit, effects, urge))
    }

    /// Has the scribe write what nobody waits for.
    fn urge(&self, urge: Urge) {
        match urge {
            Urge::Now => drop(self.signals.ask(Duty::WriteNow)),
            Urge::Soon => drop(self.signals.ask(Duty::WriteSoon)),
            _ => {}
        }
    }

    /// Whether so much behind the last checkpoint calls for the next.
    fn is_due(&self, load: &Load) -> bool {
        load.bytes >= self.options.checkpoint_bytes
            || load.weighed_operations() >= self.options.checkpoint_operations
            || load.segments >= CHECKPOINT_SEGMENTS
            || self.backlog.replay(load) >= self.options.checkpoint_replay
    }

    /// Whether a checkpoint in the background failed a moment ago.
    pub(crate) fn is_checkpoint_put_off(&self) -> bool {
        let retry_at = *self.retry_at.lock().unwrap_or_else(PoisonError::into_inner);
        retry_at.is_some_and(|at| self.options.clock.instant() < at)
    }

    /// A checkpoint in the background, if one is due and none failed a moment ago; what it did.
    pub(crate) fn checkpoint_if_due(&self) -> Result<Option<CheckpointReport>, CommitError> {
        let log_bytes = self.log.with_log(|log| log.stats().bytes);
        let is_due = self.wants_log.swap(false, Ordering::AcqRel)
            || self.is_due(&self.backlog.load())
            || self.backlog.leaves_merges()
            || self.backlog.log_bytes(log_bytes) >= CHECKPOINT_LOG_BYTES;
        if !is_due || self.is_checkpoint_put_off() {
            return Ok(None);
        }
        let done = self.checkpoint(true);
        let retry_at = done.is_err().then(|| self.options.clock.instant() + CHECKPOINT_RETRY);
        *self.retry_at.lock().unwrap_or_else(PoisonError::into_inner) = retry_at;
        self.backlog.note_log_bytes(log_bytes);
        done.map(Some)
    }

    /// Seals the log and gives up the folder, unless that is done. Nothing is written after it. A checkpoint that goes on
    /// ends before; one that panicked has ended.
    pub(crate) fn release(&self) -> Result<(), CommitError> {
        let _chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        let mut folder = self.folder.write().unwrap_or_else(PoisonError::into_inner);
        if folder.is_none() {
            return Ok(());
        }
        // Who only looked leaves the log as it was: the record of the opening is made anew by the next.
        let sealed = match self.touched.load(Ordering::Acquire) {
            true => self.log.flush().map_err(CommitError::from).and_then(|()| self.seal()),
            false => Ok(()),
        };
        // Who waits later for what nobody was promised writes nothing into a log that is another's by then.
        self.log.end();
        // Who still holds a monitor puts no page set in the place of the next writer's.
        self.signals.registry.end();
        // Nobody who has a blob under way writes more of it.
        self.aside.close();
        folder.take();
        self.signals.end();
        sealed
    }

    /// Waits until a transaction is durable. Where the folder was given up without a commit, only the record of the opening may
    /// not be, which nobody was promised.
    pub(crate) fn settle(&self, seq: u64) -> bool {
        let folder = self.folder.read().unwrap_or_else(PoisonError::into_inner);
        match *folder {
            Some(_) => self.log.wait(seq).is_ok(),
            None => !self.touched.load(Ordering::Acquire) || self.log.durable_seq() >= seq,
        }
    }

    /// Seals the log, so that damage to its last batch can be told from a torn tail.
    pub(crate) fn seal(&self) -> Result<(), CommitError> {
        // Before: what is written after the seal is told again.
        self.signals.sealed();
        Ok(self.log.with_log(|log| log.seal())?)
    }

    /// Asks the maintenance thread, or whoever drives the database, unless the same was asked for.
    pub(crate) fn request(&self, chore: Chore) {
        if self.requested[chore as usize].swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(maintenance) = &*self.maintenance.lock().unwrap_or_else(PoisonError::into_inner) {
            // There is room for each chore once.
            let _ = maintenance.try_send(chore);
        }
    }

    /// Does what was asked for. What fails is told in the status too; the log is as it was, and the next trigger
    /// tries again.
    pub(crate) fn maintain(self: &Arc<Core>, chore: Chore) -> Result<(), CommitError> {
        if !self.requested[chore as usize].swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let done = match chore {
            Chore::Checkpoint => self.checkpoint_if_due().and_then(|_| self.rebase_if_due()),
        };
        match &done {
            Ok(()) | Err(CommitError::Closed) => {}
            Err(error) => self.note_trouble(format!("{}: {error}", chore.name())),
        }
        done
    }

    /// Keeps what went wrong in the background for the status.
    pub(crate) fn note_trouble(&self, what: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
    }

    /// Starts the ready bundles that make the next batch of those producers, if there are some; a worker takes several batches of
    /// a producer whose runs are short. The starts ride to the disk with the next
    /// commit. The snapshot shows what the runs read once the log is durable up to its seq.
    pub(crate) fn claim(
        self: &Arc<Core>,
        whose: Whose,
    ) -> Result<Option<(Vec<Started>, Snapshot)>, CommitError> {
        self.pass_time()?;
        let _folder = self.enter()?;
        let mut admissions = vec![self.admit(START_BYTES_MAX)?];
        loop {
            let mut state = self.sound_state()?;
            // Commit times may be ahead of the clock, and what waits counts from one.
            let now = self.options.clock.now().max(state.time);
            let bundles = match whose {
                Whose::Shared => {
                    let is_shared = |id| !self.signals.ring_for(id);
                    state.graph.next_batch_where(now, is_shared, |id| self.paces.handful(id))
                }
                Whose::Driven => state.graph.next_batch_where(now, |id| !self.signals.ring_for(id), |_| 0),
                Whose::Inline => state.graph.next_batch_where(now, |id| self.signals.is_inline(id), |_| 0),
                #[cfg(feature = "processes")]
                Whose::Of(producer) => state.graph.next_batch_of(now, producer),
            };
            if bundles.is_empty() {
                return Ok(None);
            }
            let several = self.starts_of_record();
            // The first has room for a single start.
            let records = if bundles.len() > 1 { bundles.len().div_ceil(several) } else { 0 };
            if admissions.len() <= records {
                // Nobody waits for the log under the lock.
                drop(state);
                while admissions.len() <= records {
                    admissions.push(self.admit(START_BYTES_MAX + START_BYTES * several as u64)?);
                }
                continue;
            }
            let snapshot = Snapshot::at(self.view.base(), state.head);
            let started = self.start_all(&mut state, &bundles, now, admissions)?;
            return Ok(Some((started, snapshot)));
        }
    }

    /// Starts that one record holds, in the smallest log too.
    fn starts_of_record(&self) -> usize {
        let room = self.record_bytes_max.saturating_sub(START_BYTES_MAX as usize) / START_BYTES as usize;
        room.clamp(1, RUNS_OF_RECORD_MAX)
    }

    /// Starts bundles as one batch; an error where none was started.
    fn start_all(
        &self,
        state: &mut State,
        bundles: &[BundleId],
        now: Timestamp,
        mut admissions: Vec<Admission<'_, Publication>>,
    ) -> Result<Vec<Started>, CommitError> {
        let batch = RunId(state.next_run);
        let mut started = Vec::with_capacity(bundles.len());
        for bundles in bundles.chunks(self.starts_of_record()) {
            let start =
                |(run, bundle): (u64, &BundleId)| Event::Start { bundle: *bundle, run: RunId(run), batch };
            let mut starts: Vec<Event> = (state.next_run..).zip(bundles).map(start).collect();
            let event = if starts.len() == 1 { starts.remove(0) } else { Event::Several(starts) };
            match self.follow(state, event, now, admissions.pop()) {
                Ok(effects) => started.extend(effects.started),
                Err(error) if started.is_empty() => return Err(error),
                // Those that were started are to be run.
                Err(_) => break,
            }
        }
        Ok(started)
    }

    /// Does what the clock has brought: sessions that gave no sign of life are lost, what has waited is tried again, what is
    /// old is old. Alarms are durable on return, since nothing else may be committed for long.
    pub(crate) fn pass_time(&self) -> Result<(), CommitError> {
        let mut sounded = None;
        let _folder = self.enter()?;
        while self.is_time_due()? {
            let admission = self.admit(START_BYTES_MAX)?;
            let mut state = self.sound_state()?;
            // Commit times may be ahead of the clock, and what waits counts from one.
            let now = self.options.clock.now().max(state.time);
            let lost = self.leases.over(self.options.clock.instant());
            let event = match lost {
                Some((producer, epoch, lost)) => Event::Detach { producer, epoch, lost },
                None if state.graph.is_tick_due(now) => Event::Tick,
                None => break,
            };
            // A session that has ended meanwhile is not lost.
            if state.graph.check(&event).is_ok() {
                let effects = self.follow(&mut state, event, now, Some(admission))?;
                if !effects.alarms.is_empty() {
                    sounded = Some(state.head);
                }
            }
            lost.iter().for_each(|(producer, epoch, _)| self.leases.forget(*producer, *epoch));
        }
        sounded.map_or(Ok(()), |seq| Ok(self.log.wait(seq)?))
    }

    fn is_time_due(&self) -> Result<bool, CommitError> {
        let state = self.sound_state()?;
        let now = self.options.clock.now().max(state.time);
        Ok(state.graph.is_tick_due(now) || self.leases.over(self.options.clock.instant()).is_some())
    }

    /// Sequences an event for which nobody waits.
    fn follow(
        &self,
        state: &mut State,
        event: Event,
        now: Timestamp,
        admission: Option<Admission<'_, Publication>>,
    ) -> Result<Effects, CommitError> {
        let operations = Box::new(Operations { event: Some(event), ..Operations::default() });
        let mut prepared = self.encode(operations, self.pending.pin())?;
        let (_, effects, urge) =
            self.sequence_locked(state, &mut prepared, now, admission, Promise::Nothing)?;
        self.urge(urge);
        self.signals.show_start();
        self.signals.call(&self.signals.calls(&state.graph, &effects, &BTreeSet::new()));
        Ok(effects)
    }
}
