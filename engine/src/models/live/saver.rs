//! What was serialised becomes versions: several at a time, on a thread of the database.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use underbelly_storage::Timestamp;
use underbelly_storage::object::{Blob, ObjectId};

use super::LiveStatus;
use crate::batch::Batch;
use crate::core::Core;
use crate::durability::Durability;
use crate::error::CommitError;
use crate::models::marks::{MarkKind, MarkName, number};
use crate::models::upload::{Body, content_of};
use crate::models::{AliasTarget, MetaValue, Metadata, ModelId, Models, Retention};

/// The annotation of a version that tells what its life is.
pub(in crate::models) const LIVE: &str = "live";
/// Saves that wait for the thread; who finds so many tries again at the next change.
const JOBS_MAX: usize = 256;
/// Saves that become one transaction.
const GROUP_MAX: usize = 64;
/// How often objects under a lock are looked at, at least.
const LOOK: Duration = Duration::from_secs(1);
/// The same at most, however short the time between their saves is.
const LOOK_MIN: Duration = Duration::from_millis(10);

pub(super) fn hold<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a lock that nobody holds, also one behind a panic.
pub(super) fn try_hold<T: ?Sized>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(held) => Some(held),
        Err(TryLockError::Poisoned(held)) => Some(held.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

pub(super) fn since(now: Timestamp, before: Timestamp) -> Duration {
    Duration::from_nanos(u64::try_from(now.0.saturating_sub(before.0)).unwrap_or(0))
}

/// What a version tells of the object that it was saved from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    /// How many changes it holds.
    pub changes: u64,
    /// How much time passes between two saves.
    pub every: Duration,
    /// It was saved at a close, when nothing more could be lost.
    pub is_closed: bool,
    /// A later save failed.
    pub is_failing: bool,
}

impl Life {
    fn to_value(self) -> MetaValue {
        let long = |number: u128| MetaValue::I64(i64::try_from(number).unwrap_or(i64::MAX));
        let entries: [(&str, MetaValue); 4] = [
            ("changes", long(u128::from(self.changes))),
            ("closed", self.is_closed.into()),
            ("every_ns", long(self.every.as_nanos())),
            ("failing", self.is_failing.into()),
        ];
        MetaValue::Map(entries.into_iter().map(|(name, value)| (name.to_string(), value)).collect())
    }

    /// What a version tells as of a seq; `None` where it was not saved from a live model.
    pub(super) fn of(models: &Models, id: &ModelId, version: u64, seq: u64) -> Option<Life> {
        let mark = MarkName::new(MarkKind::Note, version, LIVE);
        let MetaValue::Map(entries) = models.marks.value_at(id, &mark, seq)? else { return None };
        let is = |name: &str| entries.get(name) == Some(&MetaValue::Bool(true));
        Some(Life {
            changes: entries.get("changes").and_then(number)?,
            every: Duration::from_nanos(entries.get("every_ns").and_then(number)?),
            is_closed: is("closed"),
            is_failing: is("failing"),
        })
    }

    /// Lets a version tell this.
    pub(super) fn tell(
        self,
        batch: &mut Batch,
        id: &ModelId,
        version: AliasTarget,
    ) -> Result<(), CommitError> {
        batch.note(id, Some(version), LIVE, Some(self.to_value())).map(drop)
    }
}

/// How far an object is saved.
#[derive(Default)]
pub(super) struct Saved {
    /// The hash of the bytes.
    pub content: Option<ObjectId>,
    /// The hash of the blob that it began with, which may be one of several chunks.
    pub restored: Option<ObjectId>,
    pub time: Option<Timestamp>,
    /// The version's number.
    pub version: Option<u64>,
    pub changes: u64,
    pub is_retained: bool,
    /// The newest version tells that a save failed.
    pub is_failing: bool,
}

/// What the thread and the owner share.
pub(crate) struct Shared {
    pub id: ModelId,
    pub metadata: Metadata,
    pub every: Duration,
    pub keep_last: Option<u64>,
    pub changes: AtomicU64,
    /// A save is under way.
    pub is_busy: AtomicBool,
    /// It is saved for the last time: nobody changes it any more.
    pub is_closed: AtomicBool,
    /// It was closed or dropped: another object may be saved under its identity.
    pub is_over: AtomicBool,
    /// False where the object was evicted.
    pub is_in_memory: AtomicBool,
    /// How often the object was restored after it was evicted.
    pub restores: AtomicU64,
    pub saved: Mutex<Saved>,
    pub trouble: Mutex<Option<String>>,
}

impl Shared {
    pub(super) fn refused(&self, problem: &'static str) -> CommitError {
        CommitError::LiveModel { model: self.id.to_string(), problem }
    }

    fn life(&self, changes: u64) -> Life {
        Life { changes, every: self.every, is_closed: false, is_failing: false }
    }

    /// Notes that a save failed, in the newest version too, as far as that can be: after a crash more may be lost than an
    /// interval.
    pub(super) fn note_failure(&self, core: &Core, error: &CommitError) {
        *hold(&self.trouble) = Some(error.to_string());
        let mut saved = hold(&self.saved);
        if saved.is_failing || saved.time.is_none() || matches!(error, CommitError::Closed) {
            return;
        }
        let mut batch = Batch::new();
        batch.durability(Durability::Buffered);
        let life = Life { is_failing: true, ..self.life(saved.changes) };
        let told = life.tell(&mut batch, &self.id, AliasTarget::Newest).and_then(|()| core.commit(batch));
        saved.is_failing = told.is_ok();
    }
}

/// A save is under way as long as this lives.
pub(super) struct Busy(Arc<Shared>);

impl Busy {
    /// `None` where one is already.
    pub(super) fn begin(live: &Arc<Shared>) -> Option<Busy> {
        let is_busy = live.is_busy.swap(true, Ordering::AcqRel);
        (!is_busy).then(|| Busy(live.clone()))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.is_busy.store(false, Ordering::Release);
    }
}

/// What was serialised.
pub(crate) struct Job {
    pub live: Arc<Shared>,
    /// `None` where the object was evicted, and is what the newest version is.
    pub blob: Option<Blob>,
    pub changes: u64,
    /// As the object was then.
    pub restores: u64,
    pub is_closing: bool,
    /// Held until it is saved or given up.
    pub _busy: Option<Busy>,
}

impl Job {
    fn bytes(&self) -> usize {
        self.blob.as_ref().map_or(0, |blob| blob.len())
    }
}

/// An object under a lock of the caller's, which the thread may take.
pub(super) trait Locked: Send + Sync {
    fn shared(&self) -> &Arc<Shared>;
    /// Takes the lock, serialises, and lets go; `None` where nothing changed or it is not time.
    fn serialise(&self, now: Instant, is_closing: bool) -> Option<Result<Job, CommitError>>;
    /// Takes the object out of memory, where that was asked for and it is time.
    fn evict_unused(&self, core: &Core);
}

/// Commits what was serialised, all of it in one transaction, without what is saved already or was overtaken.
pub(super) fn save(core: &Core, jobs: &[Job]) -> Result<(), CommitError> {
    // Of one object the newest counts; and locks are taken in one order.
    let place = |job: &Job| Arc::as_ptr(&job.live) as usize;
    let mut jobs: Vec<&Job> = jobs.iter().collect();
    jobs.sort_by_key(|job| (place(job), job.changes, job.is_closing));
    jobs.reverse();
    jobs.dedup_by_key(|job| place(job));
    // Held over the commit, so that no older save comes behind a newer one.
    let mut saved: Vec<MutexGuard<'_, Saved>> = jobs.iter().map(|job| hold(&job.live.saved)).collect();
    let now = core.options.clock.now();
    let (mut batch, mut contents) = (Batch::new(), Vec::with_capacity(jobs.len()));
    for (Job { live, blob, changes, restores, is_closing, .. }, saved) in jobs.iter().zip(&saved) {
        // One that is over was saved at its end, and another may have begun.
        let is_gone = *restores != live.restores.load(Ordering::Acquire);
        if is_gone || *changes < saved.changes || (live.is_over.load(Ordering::Acquire) && !is_closing) {
            contents.push(None);
            continue;
        }
        let content = blob.as_ref().map(|blob| ObjectId::of(blob)).or(saved.content);
        let is_same = saved.content == content
            || blob.as_ref().is_some_and(|blob| {
                saved.restored.is_some_and(|before| before == content_of(blob, core.options.chunk_bytes))
            });
        // Somebody else may have put another, or deleted it with all that was told of the model.
        let newest = core.state().models.newest(&live.id, u64::MAX).map(|version| version.number);
        let is_new = blob.is_some() && (!is_same || newest.is_none() || newest != saved.version);
        if let Some(blob) = blob.as_ref().filter(|_| is_new) {
            batch.models.push((live.metadata.clone().with("timestamp", now), Body::Bytes(blob.clone())));
        }
        if is_new || (newest.is_some() && (*is_closing || saved.is_failing)) {
            let life = Life { is_closed: *is_closing, ..live.life(*changes) };
            life.tell(&mut batch, &live.id, AliasTarget::Newest)?;
        }
        if let Some(keep) = live.keep_last.filter(|_| is_new && !(saved.is_retained && newest.is_some())) {
            let before = core.state().models.marks.retention(&live.id, u64::MAX).unwrap_or_default();
            batch.set_retention(&live.id, Some(Retention { keep_last: Some(keep), ..before }))?;
        }
        contents.push(Some((content, *changes, is_new)));
    }
    let commit = if batch.is_empty() { None } else { Some(core.commit(batch)?) };
    let version = |live: &Shared| {
        let state = core.state();
        state.models.newest(&live.id, commit.as_ref()?.seq).map(|version| version.number)
    };
    for ((saved, content), job) in saved.iter_mut().zip(contents).zip(&jobs) {
        if let Some((content, changes, is_new)) = content {
            saved.content = content;
            saved.changes = changes;
            saved.is_failing = false;
            if is_new {
                saved.time = commit.as_ref().map(|commit| commit.time);
                saved.version = version(&job.live);
                (saved.restored, saved.is_retained) = (None, true);
            }
        }
        *hold(&job.live.trouble) = None;
    }
    Ok(())
}

/// Saves that become one transaction, as far as they fit into one.
struct Group<'c> {
    core: &'c Core,
    jobs: Vec<Job>,
    bytes: usize,
    /// What fails is not tried again.
    is_last: bool,
}

impl Group<'_> {
    fn note(&self, live: &Shared, error: &CommitError) {
        if self.is_last {
            self.core.note_trouble(format!("live model {} could not be saved: {error}", live.id));
        }
        live.note_failure(self.core, error);
    }

    fn push(&mut self, job: Job) {
        let is_full = self.jobs.len() == GROUP_MAX
            || self.bytes.saturating_add(job.bytes()) > self.core.record_bytes_max / 2;
        if is_full {
            self.save();
        }
        self.bytes = self.bytes.saturating_add(job.bytes());
        self.jobs.push(job);
    }

    /// One that is refused does not keep the others from being saved.
    fn save(&mut self) {
        self.bytes = 0;
        let jobs = std::mem::take(&mut self.jobs);
        let Err(error) = save(self.core, &jobs) else { return };
        if let [job] = &*jobs {
            return self.note(&job.live, &error);
        }
        for job in &jobs {
            if let Err(error) = save(self.core, std::slice::from_ref(job)) {
                self.note(&job.live, &error);
            }
        }
    }
}

/// The thread that saves.
#[derive(Default)]
enum Thread {
    #[default]
    Unused,
    Runs(Sender<Job>, JoinHandle<()>),
    /// The database is being closed.
    Over,
}

/// The live models of a database.
#[derive(Default)]
pub(crate) struct LiveModels {
    thread: Mutex<Thread>,
    all: Mutex<HashMap<ModelId, Weak<Shared>>>,
    locked: Mutex<Vec<Weak<dyn Locked>>>,
}

impl LiveModels {
    /// Notes an object; refused where another is saved under its identity.
    pub(super) fn begin(&self, live: &Arc<Shared>) -> Result<(), CommitError> {
        let mut all = hold(&self.all);
        let is_there = |live: Arc<Shared>| !live.is_over.load(Ordering::Acquire);
        if all.get(&live.id).and_then(Weak::upgrade).is_some_and(is_there) {
            return Err(
                live.refused("another object is saved under this identity; use that one, or close it first")
            );
        }
        if all.len() == all.capacity() {
            all.retain(|_, live| live.strong_count() > 0);
        }
        all.insert(live.id, Arc::downgrade(live));
        Ok(())
    }

    /// Notes an object under a lock.
    pub(super) fn look_at(&self, live: &Arc<dyn Locked>) {
        hold(&self.locked).push(Arc::downgrade(live));
    }

    /// Where the thread takes what was serialised; `None` where there is none. The first who asks starts it, and who finds
    /// that it ended.
    pub(super) fn sender(&self, core: &Arc<Core>) -> Option<Sender<Job>> {
        let mut thread = hold(&self.thread);
        match &*thread {
            Thread::Over => return None,
            Thread::Runs(jobs, running) if !running.is_finished() => return Some(jobs.clone()),
            _ if core.options.workers == 0 => return None,
            _ => {}
        }
        let (send, receive) = bounded(JOBS_MAX);
        let weak = Arc::downgrade(core);
        let builder = std::thread::Builder::new().name("underbelly-live".to_string());
        let running = builder.spawn(move || serve(&weak, &receive)).ok()?;
        *thread = Thread::Runs(send.clone(), running);
        Some(send)
    }

    /// Saves what was handed over, and for the last time what is under locks. The thread ends.
    pub(crate) fn end(&self, core: &Core) {
        let thread = std::mem::replace(&mut *hold(&self.thread), Thread::Over);
        if let Thread::Runs(jobs, running) = thread {
            drop(jobs);
            // An object may hold the last handle of the database, and be dropped there.
            if running.thread().id() != std::thread::current().id() {
                let _ = running.join();
            }
        }
        let locked: Vec<Arc<dyn Locked>> =
            hold(&self.locked).drain(..).filter_map(|live| live.upgrade()).collect();
        let mut group = Group { core, jobs: Vec::new(), bytes: 0, is_last: true };
        for live in locked {
            match live.serialise(core.options.clock.instant(), true) {
                Some(Ok(job)) => group.push(job),
                Some(Err(error)) => group.note(live.shared(), &error),
                None => {}
            }
        }
        group.save();
    }

    /// The objects that are open and hold changes that are in no version.
    pub(crate) fn unsaved(&self) -> Vec<String> {
        let all: Vec<Arc<Shared>> = hold(&self.all).values().filter_map(Weak::upgrade).collect();
        let is_unsaved = |live: &&Arc<Shared>| {
            // Of one whose last save is under way this waits for it; of one whose last save was refused it tells.
            !live.is_over.load(Ordering::Acquire)
                && hold(&live.saved).changes != live.changes.load(Ordering::Acquire)
        };
        let mut unsaved: Vec<String> =
            all.iter().filter(is_unsaved).map(|live| format!("live model {}", live.id)).collect();
        unsaved.sort();
        unsaved
    }

    pub(super) fn status(&self, now: Timestamp) -> Vec<LiveStatus> {
        let all: Vec<Arc<Shared>> = hold(&self.all).values().filter_map(Weak::upgrade).collect();
        let status = |live: Arc<Shared>| {
            let saved = hold(&live.saved);
            LiveStatus {
                id: live.id,
                metadata: live.metadata.clone(),
                changes: live.changes.load(Ordering::Relaxed),
                saved_changes: saved.changes,
                saved: saved.time,
                age: saved.time.map(|saved| since(now, saved)),
                trouble: hold(&live.trouble).clone(),
                is_in_memory: live.is_in_memory.load(Ordering::Acquire),
            }
        };
        let open = all.into_iter().filter(|live| !live.is_over.load(Ordering::Acquire));
        let mut all: Vec<LiveStatus> = open.map(status).collect();
        all.sort_by_key(|status| status.id);
        all
    }
}

/// The body of the thread: until nobody can hand over any more.
fn serve(core: &Weak<Core>, jobs: &Receiver<Job>) {
    let (mut looked, mut look) = (Instant::now(), LOOK);
    loop {
        let first = match jobs.recv_timeout(look) {
            Ok(job) => Some(job),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let Some(core) = core.upgrade() else { return };
        let mut group = Group { core: &core, jobs: Vec::new(), bytes: 0, is_last: false };
        first.into_iter().chain(jobs.try_iter().take(JOBS_MAX)).for_each(|job| group.push(job));
        if looked.elapsed() >= look {
            looked = Instant::now();
            let locked: Vec<Arc<dyn Locked>> = {
                let mut locked = hold(&core.live.locked);
                locked.retain(|live| live.strong_count() > 0);
                locked.iter().filter_map(Weak::upgrade).collect()
            };
            let now = core.options.clock.instant();
            let shortest = locked.iter().map(|live| live.shared().every).min();
            look = shortest.unwrap_or(LOOK).clamp(LOOK_MIN, LOOK);
            for live in locked {
                match live.serialise(now, false) {
                    Some(Ok(job)) => group.push(job),
                    Some(Err(error)) => live.shared().note_failure(&core, &error),
                    None => live.evict_unused(&core),
                }
                // The last handle may be gone meanwhile, and what drops an object may panic.
                if catch_unwind(AssertUnwindSafe(|| drop(live))).is_err() {
                    core.note_trouble("a live model panicked when it was dropped".to_string());
                }
            }
        }
        group.save();
    }
}
