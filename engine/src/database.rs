//! The handle of an open database.

use std::collections::VecDeque;
use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use underbelly_storage::disk::{RealDisk, SharedDisk};
use underbelly_storage::object::Blob;
use underbelly_wal::Stalls;

use crate::batch::Batch;
use crate::checkpoint::CheckpointReport;
use crate::core::{Chore, Commit, Core};
use crate::durability::Durability;
use crate::error::{CommitError, Failure, OpenError, SchemaError};
use crate::graph::{Event, GraphError, ProducerDefinition, ProducerId, SlotDefinition};
use crate::limits::{FEED_LOOK, UNSAVED_TOLD};
use crate::listing::TABLE_COLUMNS;
use crate::models::{BlobWriter, IndexStatus, Metadata, Model};
use crate::open::{self, RecoveryReport};
use crate::operations::Operations;
use crate::options::Options;
#[cfg(feature = "processes")]
use crate::producers::retire;
use crate::producers::{Finished, Outputs, Run, Work, is_worker, keep_time, run_ready, work};
use crate::reader::attached;
use crate::scribe;
use crate::series::SeriesDefinition;
use crate::signals::Latencies;
use crate::transaction::{Transaction, transact};
use crate::view::View;

/// A database that is open for writing, with all that its [`View`] shows. Cheap to clone and to send between threads;
/// it is closed when the last clone is dropped, or by [`Database::close`].
///
/// A process whose files may not grow beyond a limit (`ulimit -f`) is ended by the signal `SIGXFSZ` where a file does, and
/// nothing acknowledged is lost. One that ignores or handles that signal, as `ubctl` does, gets an error that says so instead.
#[derive(Clone)]
pub struct Database {
    handle: Arc<Handle>,
}

struct Handle {
    core: Arc<Core>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Held by who sends the threads home.
    stopping: Mutex<()>,
    /// Runs that [`Database::run_ready`] could not end. They hold the core, so they are not kept there.
    unfinished: Mutex<VecDeque<Finished>>,
}

/// What `ubctl status` shows.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// Where the database is.
    pub dir: String,
    /// Its number, which every file carries.
    pub database: [u8; 16],
    /// The last applied transaction.
    pub head: u64,
    /// The last visible transaction: what a snapshot shows.
    pub visible: u64,
    /// The last durable transaction. Those between it and the visible one were committed as `Buffered`.
    pub durable: u64,
    /// The first and the last transaction that were visible and may not have been durable when the log failed.
    pub not_durable: Option<(u64, u64)>,
    /// Waiting before transactions were admitted, by reason, since the database was opened.
    pub stalls: Stalls,
    /// The commit time of the head, nanoseconds since 1970 UTC. The head may be ahead of what is visible.
    pub time: underbelly_storage::Timestamp,
    /// Series types.
    pub series: usize,
    /// Slots.
    pub slots: usize,
    /// Cells of all slots.
    pub cells: usize,
    /// Producers.
    pub producers: usize,
    /// Models.
    pub models: usize,
    /// Variables.
    pub variables: usize,
    /// The index of the models' attributes.
    pub index: IndexStatus,
    /// Objects: contents of cells and blobs.
    pub objects: usize,
    /// The log.
    pub log: underbelly_wal::LogStats,
    /// What last went wrong in the background, if anything did: a checkpoint, a log file, the end of a run.
    pub trouble: Option<String>,
    /// Damaged segments, as the last checkpoint told them: see
    /// [`CheckpointReport::damaged`](crate::CheckpointReport::damaged).
    pub damaged: Vec<String>,
    /// Other processes that read, each with the manifest that it pins, as far as the system tells.
    pub readers: Vec<(u32, u64)>,
    /// What opening found.
    pub recovery: RecoveryReport,
}

/// How often whoever waits without workers looks at the clock.
const CLOCK_LOOK: Duration = Duration::from_millis(5);

impl Database {
    /// Makes a database in a folder that is empty or not there, and opens it.
    ///
    /// # Errors
    /// As [`Database::create_on`].
    pub fn create(dir: impl AsRef<Path>) -> Result<Database, OpenError> {
        Database::create_with(dir, Options::default())
    }

    /// As [`Database::create`], with settings.
    ///
    /// # Errors
    /// As [`Database::create_on`].
    pub fn create_with(dir: impl AsRef<Path>, options: Options) -> Result<Database, OpenError> {
        let disk: SharedDisk = Arc::new(RealDisk::new(dir));
        Database::create_on(disk, options)
    }

    /// Opens a database.
    ///
    /// # Errors
    /// As [`Database::open_on`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Database, OpenError> {
        Database::open_with(dir, Options::default())
    }

    /// As [`Database::open`], with settings.
    ///
    /// # Errors
    /// As [`Database::open_on`].
    pub fn open_with(dir: impl AsRef<Path>, options: Options) -> Result<Database, OpenError> {
        Database::open_on(Arc::new(RealDisk::new(dir)), options)
    }

    /// Makes a database on any disk and opens it.
    ///
    /// # Errors
    /// [`OpenError::Exists`] or [`OpenError::NotEmpty`] where the folder holds something, [`OpenError::Locked`]
    /// where another process works in it, [`OpenError::Option`] where a setting is out of range;
    /// [`OpenError::Storage`], [`OpenError::Log`] or [`OpenError::Io`] where the disk refuses; and as
    /// [`Database::open_on`].
    pub fn create_on(disk: SharedDisk, options: Options) -> Result<Database, OpenError> {
        open::create(&disk, &options)?;
        Database::open_on(disk, options)
    }

    /// Opens a database on any disk.
    ///
    /// # Errors
    /// [`OpenError::NotFound`] where there is no database, [`OpenError::Locked`] where it is open for writing
    /// already, [`OpenError::Option`] where a setting is out of range; [`OpenError::Corrupt`],
    /// [`OpenError::Storage`] or [`OpenError::Log`] where a file is damaged, missing or cannot be read;
    /// [`OpenError::Io`] where the folder cannot be locked or a thread cannot be started; [`OpenError::Commit`]
    /// where the opening cannot be recorded.
    pub fn open_on(disk: SharedDisk, options: Options) -> Result<Database, OpenError> {
        let workers = options.workers;
        let opened = open::open(disk, options)?;
        let mut threads = Vec::new();
        let dir = opened.core.disk.describe();
        let failed = |source| OpenError::Io { action: "cannot start a thread for", dir, source };
        let spawn =
            |name: String, body: Box<dyn FnOnce() + Send>| std::thread::Builder::new().name(name).spawn(body);
        let mut start = || -> std::io::Result<()> {
            for number in 0..workers {
                let core = opened.core.clone();
                let body = Box::new(move || work(&core));
                threads.push(spawn(format!("underbelly-worker-{number}"), body)?);
            }
            if workers > 0 {
                let (core, requests) = (opened.core.clone(), opened.maintenance.clone());
                let body = Box::new(move || {
                    while let Ok(chore) = requests.recv() {
                        // What fails is told in the status.
                        let _ = core.maintain(chore);
                    }
                });
                threads.push(spawn("underbelly-maintenance".to_string(), body)?);
                let (core, duties) = (opened.core.clone(), opened.duties.clone());
                let body = Box::new(move || scribe::serve(&core, &duties));
                threads.push(spawn("underbelly-scribe".to_string(), body)?);
                let (core, alarm) = (opened.core.clone(), opened.alarm.clone());
                let body = Box::new(move || keep_time(&core, &alarm));
                threads.push(spawn("underbelly-timer".to_string(), body)?);
            }
            Ok(())
        };
        let started = start();
        let threads = Mutex::new(threads);
        let handle = Arc::new(Handle {
            core: opened.core,
            threads,
            stopping: Mutex::default(),
            unfinished: Mutex::default(),
        });
        started.map_err(failed)?;
        Ok(Database { handle })
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.handle.core
    }

    /// Defines a slot. The same definition again is no change.
    ///
    /// # Errors
    /// [`SchemaError::Name`] where a name cannot be used; [`SchemaError::Graph`] where the definition
    /// contradicts itself or one that there is; [`SchemaError::Commit`] where it cannot be committed, as
    /// [`Database::commit`] says.
    pub fn define_slot(&self, slot: SlotDefinition) -> Result<(), SchemaError> {
        let columns = slot.columns().map(|(name, _)| ("column", name));
        for (what, name) in [("slot", &slot.name)].into_iter().chain(columns) {
            crate::series::check_name(what, name)?;
        }
        if let Some((name, _)) = slot.columns().find(|(name, _)| TABLE_COLUMNS.contains(&name.as_str())) {
            let problem = "names a column that the table of each slot has";
            return Err(SchemaError::Name { what: "column", name: name.clone(), problem });
        }
        let known_at = {
            let state = self.core().state();
            state.graph.slots().any(|(_, known)| *known == slot).then_some(state.head)
        };
        match known_at {
            Some(head) => self.make_durable(head)?,
            None => drop(self.core().commit_event(Event::DefineSlot(slot))?),
        }
        Ok(())
    }

    /// Decides what becomes of the rows of a series type, before it has any. The same definition again is no change.
    ///
    /// # Errors
    /// [`SchemaError::Name`] where the name cannot be used; [`SchemaError::SeriesDefined`] where the type is there and has other
    /// rules, be they the defaults; [`SchemaError::Commit`] where it cannot be committed, as [`Database::commit`] says.
    pub fn define_series(&self, series: SeriesDefinition) -> Result<(), SchemaError> {
        self.define(series, false)
    }

    /// Gives a series type other rules. They count from this transaction on: earlier snapshots go by those that they had. Rows
    /// that are there stay, those too that [`Duplicates::Reject`](crate::Duplicates::Reject) would have refused.
    ///
    /// # Errors
    /// As [`Database::define_series`], and [`SchemaError::SeriesResolved`] where superseded rows of the type may be gone and the new
    /// rules would show them, or others of them.
    pub fn redefine_series(&self, series: SeriesDefinition) -> Result<(), SchemaError> {
        self.define(series, true)
    }

    fn define(&self, series: SeriesDefinition, again: bool) -> Result<(), SchemaError> {
        let core = self.core();
        let SeriesDefinition { name, rules } = series;
        crate::series::check_name("series", &name)?;
        if name.starts_with('_') {
            let problem = "begins with `_`, as the engine's own do";
            return Err(SchemaError::Name { what: "series", name, problem });
        }
        let name: Arc<str> = name.into();
        let folder = core.enter()?;
        // Nobody looks at its rows by the old rules until it has the new ones.
        let gates = vec![core.gates.pass(&name)];
        let (known, head) = {
            let state = core.state();
            (state.tables.get(&name).map(|table| (table.rules(), table.is_defined())), state.head)
        };
        match known {
            Some((known, true)) if known == rules => {
                drop((gates, folder));
                return Ok(self.make_durable(head)?);
            }
            Some((known, _)) if known != rules && !again => {
                let (known, given) = (known.to_string(), rules.to_string());
                return Err(SchemaError::SeriesDefined { series: name.to_string(), known, given });
            }
            Some((known, _)) => known.check_change(&name, &rules)?,
            None => {}
        }
        if rules.checks_appends() {
            core.gates.want();
        }
        let rules = vec![(name, rules)];
        let operations = Box::new(Operations { rules, gates, ..Operations::default() });
        let prepared = core.encode(operations, core.pending.pin())?;
        let (commit, _) = core.sequence(prepared, Durability::Sync, |_| Ok(()))?;
        drop(folder);
        Ok(core.answer(commit.seq, Durability::Sync)?)
    }

    /// Waits until what the head showed is durable.
    fn make_durable(&self, head: u64) -> Result<(), CommitError> {
        let _folder = self.core().enter()?;
        Ok(self.core().log.wait(head)?)
    }

    /// Registers a producer and attaches its work to this process. The definition is kept in the database; the
    /// closure is given anew after each opening. The same definition again replaces the closure.
    ///
    /// A closure that holds a clone of the database keeps it open: end it with [`Database::close`].
    ///
    /// # Errors
    /// [`SchemaError::Name`] where the name cannot be used; [`SchemaError::Graph`] where the definition
    /// contradicts itself, a slot or one that there is; [`SchemaError::Commit`] where the definition or its
    /// attachment cannot be committed, as [`Database::commit`] says. The definition may be kept where only the
    /// attachment failed.
    pub fn register(
        &self,
        producer: ProducerDefinition,
        closure: impl Fn(&Run) -> Result<Outputs, Failure> + Send + Sync + 'static,
    ) -> Result<(), SchemaError> {
        self.attach(producer, Work::Each(Arc::new(closure)))
    }

    /// Registers a producer whose closure is called on the thread whose commit makes it ready, as soon as that commit is visible
    /// and before [`Database::commit`] or [`Database::transact`] returns; what its outputs make ready of inline producers follows. No
    /// other thread is woken. For short work whose answer the caller waits for anyway.
    ///
    /// A worker that is awake, or another caller, may take a part of it, which goes on when the call returns then. Work that comes otherwise is the workers': from the commits of closures, sessions of other processes and
    /// commands, from another try, and what an opening found ready. The caller's commit stays committed whatever becomes of
    /// the closure. While the disk refuses the end of its run, the call waits as a worker does; closing the database ends
    /// that.
    ///
    /// # Errors
    /// As [`Database::register`].
    pub fn register_inline(
        &self,
        producer: ProducerDefinition,
        closure: impl Fn(&Run) -> Result<Outputs, Failure> + Send + Sync + 'static,
    ) -> Result<(), SchemaError> {
        self.attach(producer, Work::Inline(Arc::new(closure)))
    }

    /// Registers a producer whose closure is called once for each batch, with all its runs, and answers each of them, in
    /// their order. [`ProducerDefinition::max_batch`] says how many there may be, and
    /// [`ProducerDefinition::independent`] how many it waits for.
    ///
    /// A closure that panics or fails as a whole has told nothing of single runs: the batch runs again in two halves, these in
    /// quarters, and so on, until the run that brings it down is alone and has failed; the others have their outputs. A
    /// closure that declines as a whole, or asks for another try, says so of each run.
    ///
    /// # Errors
    /// As [`Database::register`].
    pub fn register_batch(
        &self,
        producer: ProducerDefinition,
        closure: impl Fn(&[Run]) -> Result<Vec<Result<Outputs, Failure>>, Failure> + Send + Sync + 'static,
    ) -> Result<(), SchemaError> {
        self.attach(producer, Work::Batch(Arc::new(closure)))
    }

    /// Starts a thread that ends by itself when the signals are hung up or its bell is taken away.
    #[cfg(feature = "processes")]
    pub(crate) fn start_thread(
        &self,
        name: String,
        body: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<()> {
        let thread = std::thread::Builder::new().name(name).spawn(body)?;
        let mut threads = self.handle.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
        Ok(())
    }

    /// Registers a producer, as it may be already.
    pub(crate) fn enlist(&self, producer: ProducerDefinition) -> Result<ProducerId, SchemaError> {
        crate::series::check_name("producer", &producer.name)?;
        let name = producer.name.clone();
        let known_at = {
            let state = self.core().state();
            state.graph.producers().any(|(_, known)| *known == producer).then_some(state.head)
        };
        match known_at {
            Some(head) => self.make_durable(head)?,
            None => drop(self.core().commit_event(Event::Register(producer))?),
        }
        let id = self.core().state().graph.producer_by_name(&name);
        Ok(id.ok_or_else(|| CommitError::Internal { what: format!("producer {name:?} vanished") })?)
    }

    pub(crate) fn attach(&self, producer: ProducerDefinition, work: Work) -> Result<(), SchemaError> {
        if producer.daemon {
            return Err(GraphError::DaemonRuns { producer: producer.name }.into());
        }
        if producer.lease.is_some() {
            return Err(GraphError::ClosureLease { producer: producer.name }.into());
        }
        let name = producer.name.clone();
        let id = self.enlist(producer)?;
        let mut replaced = None;
        let attached = self.give(id, name, &work, &mut replaced);
        #[cfg(feature = "processes")]
        if let Some(pool) = replaced.as_ref().and_then(Work::pool) {
            retire(pool.clone());
        }
        // What a closure holds may do anything when it is dropped, so no lock is held here.
        drop((replaced, work));
        attached
    }

    /// Gives a producer its work, and hands back what it had before.
    fn give(
        &self,
        id: ProducerId,
        name: String,
        work: &Work,
        replaced: &mut Option<Work>,
    ) -> Result<(), SchemaError> {
        let core = self.core();
        let _opening = core.leases.opening();
        // One that is over by the clock is over.
        core.pass_time()?;
        if core.leases.is_open(id) {
            return Err(GraphError::SessionTaken { producer: name }.into());
        }
        *replaced = {
            let _folder = core.enter()?;
            let mut closures = core.closures.write().unwrap_or_else(PoisonError::into_inner);
            // Whoever closes hangs up before it looks for whose processes end.
            if core.signals.is_hung_up() {
                return Err(CommitError::Closed.into());
            }
            closures.insert(id, work.clone())
        };
        core.signals.set_inline(id, work.is_inline());
        #[cfg(feature = "processes")]
        self.hand_over(id, work)?;
        let is_attached = core.state().graph.is_attached(id);
        if is_attached {
            // What is ready may have been left to the thread that made it ready, while its closure was another.
            self.core().signals.ring();
            return Ok(());
        }
        let host = core.options.host.clone();
        let attached = core.commit_event(Event::Attach { producer: id, host });
        if attached.is_err() {
            // Closed meanwhile, perhaps: a closure that stays could keep the database alive.
            let mut closures = core.closures.write().unwrap_or_else(PoisonError::into_inner);
            closures.remove(&id);
        }
        attached?;
        Ok(())
    }

    /// Commits a batch: all of it or nothing. It is visible and has woken producers on return, and durable unless
    /// it was committed as [`Durability::Buffered`](crate::Durability::Buffered).
    ///
    /// # Errors
    /// [`CommitError::Closed`]; where the batch is refused, the variant that names what is wrong with it, such as
    /// [`CommitError::SeriesType`], [`CommitError::UnknownSlot`], [`CommitError::Cell`], [`CommitError::Metadata`]
    /// or [`CommitError::TooLarge`]; [`CommitError::Storage`] where a large value cannot be written beside the
    /// log; [`CommitError::Log`] where the log has no space or has failed.
    pub fn commit(&self, batch: Batch) -> Result<Commit, CommitError> {
        self.core().commit_here(batch)
    }

    /// Takes a blob as a stream, ahead of the transaction that puts it as a version of a model.
    pub fn blob_writer(&self) -> BlobWriter<'_> {
        BlobWriter::new(self.core())
    }

    /// Puts a version of a model unless there is one; answers the newest, and whether that was put now.
    ///
    /// # Errors
    /// As [`Database::commit`].
    pub fn put_model_once(
        &self,
        metadata: &Metadata,
        blob: impl Into<Vec<u8>>,
    ) -> Result<(Model, bool), CommitError> {
        let blob = Blob::from(blob.into());
        let is_new = self.transact(|tx| -> Result<bool, CommitError> {
            if tx.model(metadata)?.is_some() {
                return Ok(false);
            }
            tx.put_blob(metadata.clone(), blob.clone())?;
            Ok(true)
        })?;
        let gone = || CommitError::UnknownVersion {
            model: metadata.id().map(|id| id.to_string()).unwrap_or_default(),
            version: "newest".to_string(),
            newest: None,
        };
        Ok((self.snapshot().model(metadata)?.ok_or_else(gone)?, is_new))
    }

    /// Waits until a transaction is durable, and all before it with it; it is written now, if it was not.
    ///
    /// # Errors
    /// [`CommitError::Log`]: `WalError::NotDurable` where the log failed while the transaction was visible and may not
    /// have been durable, `WalError::Poisoned` where it failed before the transaction was visible,
    /// `WalError::NotQueued` where there is no such transaction yet. [`CommitError::Closed`].
    pub fn wait_durable(&self, seq: u64) -> Result<(), CommitError> {
        if self.durable_seq() >= seq {
            return Ok(());
        }
        let _folder = self.core().enter()?;
        Ok(self.core().log.wait(seq)?)
    }

    /// The seq up to which transactions are durable. A snapshot may show later ones that were committed as
    /// [`Durability::Buffered`](crate::Durability::Buffered); other processes do not see those.
    pub fn durable_seq(&self) -> u64 {
        self.core().signals.durable()
    }

    /// The seq up to which transactions are visible: that of a snapshot taken now.
    pub fn visible_seq(&self) -> u64 {
        self.core().signals.visible()
    }

    /// The seq of the last transaction that was applied. Up to it, some may not be visible yet.
    pub fn head_seq(&self) -> u64 {
        self.core().state().head
    }

    /// Runs a closure that reads and writes, and commits what it wrote if nothing that it read has changed
    /// meanwhile; otherwise runs it again. After 16 runs in all it answers [`CommitError::Conflict`].
    ///
    /// A closure gives up with [`CommitError::Abandoned`] or any other error: then nothing is committed and it is
    /// not run again. One that wrote nothing commits nothing, and what it read is not compared.
    ///
    /// # Errors
    /// What `body` answers; else, as its error type holds it, [`CommitError::Conflict`] and what
    /// [`Database::commit`] reports.
    pub fn transact<T, E: From<CommitError>>(
        &self,
        body: impl FnMut(&mut Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        transact(self.core(), body).map(|(answer, _)| answer)
    }

    /// Runs ready producers on this thread until none may start (what waits for a time that has not come is left), makes a checkpoint if one is due, writes
    /// what was committed as `Buffered`, and answers how many runs ended. What a database with no
    /// [`workers`](Options::workers) does, it does here; where there are workers, this thread helps them, and the rest
    /// is theirs.
    ///
    /// A producer's closure that calls this gets 0: its own run goes on.
    ///
    /// # Errors
    /// As [`Database::commit`] and [`Database::checkpoint`]. A run that ended and could not be committed, because the disk
    /// refused, is kept and committed by the next call; its closure does not run again.
    pub fn run_ready(&self) -> Result<usize, CommitError> {
        let core = self.core();
        if is_worker(core) {
            return Ok(0);
        }
        let ended = run_ready(core, &self.handle.unfinished)?;
        if core.options.workers == 0 {
            Chore::ALL.into_iter().try_for_each(|chore| core.maintain(chore))?;
            let _folder = core.enter()?;
            core.log.flush()?;
        }
        Ok(ended)
    }

    /// Waits until no bundle is ready or waits to be tried again and no run is in flight, and that is durable; false when `timeout` has passed
    /// before. Without [`workers`](Options::workers) it does first what [`Database::run_ready`] does, and is false where
    /// that fails.
    ///
    /// False at once where the database is closed or its log failed while there is work left, or where there is none
    /// left but the log failed before that was durable. A closed database without work left is idle. A `timeout` of
    /// zero asks without waiting for work.
    pub fn wait_idle(&self, timeout: Duration) -> bool {
        // A time beyond the clock's end is no deadline.
        let deadline = Instant::now().checked_add(timeout);
        loop {
            if self.core().options.workers == 0 && self.run_ready().is_err() {
                return false;
            }
            let visible = self.core().signals.visible();
            let (idle_at, is_timed) = {
                let state = self.core().state();
                (state.graph.idle().then_some(state.head), state.graph.next_due().is_some())
            };
            if let Some(head) = idle_at {
                return self.core().settle(head);
            }
            let left = deadline.map_or(timeout, |at| at.saturating_duration_since(Instant::now()));
            let is_sound = self.core().log.with_log(|log| log.check_health()).is_ok();
            if left.is_zero() || self.core().signals.is_hung_up() || !is_sound {
                return false;
            }
            // Without workers nobody else looks at the clock, and of a log that fails nobody is told.
            let looks = self.core().options.workers == 0 && is_timed;
            let look = if looks { CLOCK_LOOK } else { FEED_LOOK };
            self.core().signals.wait_beyond(visible, left.min(look));
        }
    }

    /// Waits until queries on attributes use their index and it reflects what is visible now; false when `timeout` has
    /// passed before, or there is to be none: with few models, without [`workers`](Options::workers), or on a closed
    /// database.
    ///
    /// Nothing needs this: queries scan until the index is ready.
    pub fn wait_index(&self, timeout: Duration) -> bool {
        let seq = self.core().signals.visible();
        self.core().attributes.wait_ready(self.base(), seq, timeout)
    }

    /// How long wakes and runs took since the database was opened or the latencies were reset.
    pub fn latencies(&self) -> Latencies {
        self.core().signals.latencies()
    }

    /// Forgets the latencies so far.
    pub fn reset_latencies(&self) {
        self.core().signals.reset_latencies();
    }

    /// Writes everything that the log says into sealed files and lets the log be reused.
    ///
    /// # Errors
    /// [`CommitError::Closed`]; [`CommitError::Storage`] or [`CommitError::Read`] where a file cannot be written
    /// or read, a full disk among the reasons; [`CommitError::Log`]
    /// where the log has failed, or fails now as its old files are put aside. What was committed stays committed
    /// in each case.
    pub fn checkpoint(&self) -> Result<CheckpointReport, CommitError> {
        if self.core().closed.load(Ordering::Acquire) {
            return Err(CommitError::Closed);
        }
        self.core().checkpoint(false)
    }

    /// What opening found.
    pub fn recovery_report(&self) -> &RecoveryReport {
        &self.core().report
    }

    /// Counts and places.
    pub fn status(&self) -> Status {
        let core = self.core();
        let log = core.log.with_log(|log| log.stats());
        let trouble = core.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let damaged = core.damaged.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let counts = self.counts();
        // A folder that cannot be listed fails whoever needs it; here nobody does.
        let readers = attached(&core.disk).unwrap_or_default();
        let index = self.index();
        let (not_durable, stalls) = (core.log.lost_visible(), core.log.stalls());
        let state = core.state();
        Status {
            dir: core.disk.describe(),
            database: core.database,
            head: state.head,
            visible: core.signals.visible(),
            durable: core.signals.durable(),
            not_durable,
            stalls,
            time: state.time,
            series: counts.series,
            slots: counts.slots,
            cells: counts.cells,
            producers: counts.producers,
            models: counts.models,
            variables: counts.variables,
            index,
            objects: counts.objects,
            log,
            trouble,
            damaged,
            readers,
            recovery: core.report.clone(),
        }
    }

    /// Lets runs in flight end, makes a checkpoint, seals the log and gives up the folder. Where nothing was committed since
    /// the last checkpoint, files stay as they are. Other clones answer
    /// [`CommitError::Closed`] from then on; snapshots go on reading as long as nobody removes the files.
    ///
    /// Called from a producer's closure it does not wait for that run, whose result is then refused. It waits for all other runs: one
    /// that follows a feed until the close has to end by itself. From closures of live models it must not be called.
    ///
    /// # Errors
    /// As [`Database::checkpoint`], and [`CommitError::Log`] where the log cannot be sealed. The folder is given
    /// up all the same; what was acknowledged is in the log, and the next opening replays it.
    /// [`CommitError::Closed`] where another clone closed it before. [`CommitError::Unsaved`] where all that was done, and a
    /// [`LiveModel`](crate::LiveModel) or [`Monitor`](crate::Monitor) of somebody was open that held what cannot be saved now.
    pub fn close(self) -> Result<CheckpointReport, CommitError> {
        self.handle.stop();
        self.handle.drop_closures();
        let core = self.core();
        let was_closed = core.closed.swap(true, Ordering::AcqRel);
        let mut unsaved = core.live.unsaved();
        unsaved.extend(core.handed.unsaved());
        let report = core.checkpoint_if_changed();
        let released = core.release();
        let report = report.and_then(|report| released.map(|()| report))?;
        if was_closed || unsaved.is_empty() {
            return Ok(report);
        }
        let more = unsaved.len().saturating_sub(UNSAVED_TOLD);
        unsaved.truncate(UNSAVED_TOLD);
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        Err(CommitError::Unsaved { what: unsaved.join(", ") + &more })
    }
}

impl Deref for Database {
    type Target = View;

    fn deref(&self) -> &View {
        &self.handle.core.view
    }
}

impl Handle {
    /// Sends the threads home and waits for them; whoever comes second waits too. A worker, which may be here by a
    /// closure that closes or drops the database, waits for nobody.
    fn stop(&self) {
        #[cfg(feature = "processes")]
        let mut servers = self.core.end_servers();
        // Its thread calls no closure, and needs no worker.
        self.core.handed.end();
        self.core.live.end(&self.core);
        self.core.signals.hang_up();
        self.core.maintenance.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.core.attributes.end();
        #[cfg(feature = "processes")]
        {
            // Those that began in between; from now on none does.
            servers.extend(self.core.end_servers());
            self.core.end_programs();
        }
        if is_worker(&self.core) {
            return;
        }
        #[cfg(feature = "processes")]
        servers.iter().for_each(|server| server.wait());
        let _stopping = self.stopping.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            // Not held over a join: a closure may be about to start a thread, which ends at once.
            let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
            if threads.is_empty() {
                return;
            }
            threads.into_iter().for_each(|thread| drop(thread.join()));
        }
    }
}

impl Handle {
    /// Drops what producers own, which may commit a last time: models that are saved, rows of monitors. A closure may hold a
    /// handle of the database too; it is dropped outside the lock.
    fn drop_closures(&self) {
        let closures =
            std::mem::take(&mut *self.core.closures.write().unwrap_or_else(PoisonError::into_inner));
        drop(closures);
    }
}

impl Drop for Handle {
    /// Without [`Database::close`] there is no checkpoint: the log is made durable, and opening replays it.
    fn drop(&mut self) {
        self.stop();
        self.drop_closures();
        self.core.closed.store(true, Ordering::Release);
        let _ = self.core.release();
    }
}
