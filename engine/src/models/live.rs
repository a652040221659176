//! Live models: objects in memory that are saved as versions now and then, when they changed.
//!
//! Who owns the object serialises it: on the caller's own thread, between two of its changes, or under the caller's own
//! lock. No other thread ever looks at an object that may be changing. What was serialised is compared with what is saved and
//! committed by a thread of the database, so that the caller does not wait for the disk.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use underbelly_storage::Timestamp;
use underbelly_storage::object::ObjectId;

use super::marks::{MarkKind, MarkName, number};
use super::parts::Parts;
use super::{AliasTarget, MetaValue, Metadata, Model, ModelId, Retention};
use crate::batch::Batch;
use crate::core::Core;
use crate::database::Database;
use crate::error::CommitError;

/// The annotation that tells how many changes a version holds.
const CHANGES: &str = "live.changes";
/// The annotation of a version that was saved at a close, when nothing more could be lost.
const CLOSED: &str = "live.closed";
/// How often a live model is saved unless told otherwise.
const EVERY: Duration = Duration::from_secs(60);
/// Saves that wait for the thread; who finds so many tries again at the next change.
const JOBS_MAX: usize = 256;
/// Saves that become one transaction.
const BATCH_MAX: usize = 64;
/// How often objects under a lock are looked at, at least.
const LOOK: Duration = Duration::from_secs(1);

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was found when a live model began.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Restored {
    /// The version that it goes on from.
    pub version: u64,
    /// When that was saved.
    pub saved: Timestamp,
    /// How many changes it holds.
    pub changes: u64,
    /// Whether it was saved at a close, so that nothing is lost.
    pub was_closed: bool,
    /// What is lost at most: the changes of so much time. Zero where it was closed.
    pub lost_at_most: Duration,
}

/// What is known of a live model.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LiveStatus {
    /// Its identity.
    pub id: ModelId,
    /// Its metadata.
    pub metadata: Metadata,
    /// Changes so far, those of earlier lives among them.
    pub changes: u64,
    /// Changes that are in the newest version.
    pub saved_changes: u64,
    /// When that was saved; `None` where none was.
    pub saved: Option<Timestamp>,
    /// How long ago that is.
    pub age: Option<Duration>,
    /// What went wrong with the last attempt, if anything did.
    pub trouble: Option<String>,
}

struct Saved {
    content: Option<ObjectId>,
    time: Option<Timestamp>,
    changes: u64,
    is_retained: bool,
}

/// What the thread and the owner share.
pub(crate) struct Shared {
    id: ModelId,
    metadata: Metadata,
    keep_last: Option<u64>,
    changes: AtomicU64,
    /// A save is under way.
    is_busy: AtomicBool,
    saved: Mutex<Saved>,
    trouble: Mutex<Option<String>>,
}

/// What was serialised.
pub(crate) struct Job {
    live: Arc<Shared>,
    blob: Vec<u8>,
    changes: u64,
    is_closing: bool,
}

/// An object under a lock of the caller's, which the thread may take.
trait Locked: Send + Sync {
    fn shared(&self) -> &Arc<Shared>;
    /// Takes the lock, serialises, and lets go; `None` where nothing changed or it is not time.
    fn serialise(&self, now: Instant, is_closing: bool) -> Option<Result<Job, CommitError>>;
}

/// The live models of a database.
#[derive(Default)]
pub(crate) struct LiveModels {
    jobs: Mutex<Option<Sender<Job>>>,
    all: Mutex<Vec<Weak<Shared>>>,
    locked: Mutex<Vec<Weak<dyn Locked>>>,
}

/// Settings of a live model; made by [`Database::live_model`].
pub struct LiveBuilder<'db> {
    db: &'db Database,
    metadata: Metadata,
    every: Duration,
    keep_last: Option<u64>,
}

impl<'db> LiveBuilder<'db> {
    /// How much time passes between two saves, at least. Default: a minute.
    pub fn every(mut self, interval: Duration) -> LiveBuilder<'db> {
        self.every = interval;
        self
    }

    /// Keeps the newest so many versions. Default: all.
    pub fn keep_last(mut self, count: u64) -> LiveBuilder<'db> {
        self.keep_last = Some(count);
        self
    }

    fn begin<T>(
        &self,
        restore: impl FnOnce(Option<&Model>) -> Result<T, CommitError>,
    ) -> Result<(T, Arc<Shared>, Option<Restored>), CommitError> {
        let id = self.metadata.id()?;
        let snapshot = self.db.snapshot();
        let core = self.db.core();
        let found = snapshot.model(&id)?;
        let restored = match &found {
            None => None,
            Some(model) => {
                let (version, saved) = (model.info().version, model.info().time);
                let state = core.state();
                let note = |name: &str| {
                    let mark = MarkName::new(MarkKind::Note, version, name);
                    state.models.marks.value_at(&id, &mark, snapshot.seq()).cloned()
                };
                let was_closed = note(CLOSED) == Some(MetaValue::Bool(true));
                let changes = note(CHANGES).as_ref().and_then(number).unwrap_or(0);
                let age = since(core.options.clock.now(), saved);
                let lost_at_most = if was_closed { Duration::ZERO } else { age.min(self.every) };
                Some(Restored { version, saved, changes, was_closed, lost_at_most })
            }
        };
        let object = restore(found.as_ref())?;
        if let Some(restored) = restored.as_ref().filter(|restored| restored.was_closed) {
            // From now on something may be lost.
            let mut batch = Batch::new();
            batch.annotate(&id, Some(restored.version.into()), CLOSED, false)?;
            core.commit(batch)?;
        }
        let changes = restored.as_ref().map_or(0, |restored| restored.changes);
        let shared = Arc::new(Shared {
            id,
            metadata: self.metadata.clone(),
            keep_last: self.keep_last,
            changes: AtomicU64::new(changes),
            is_busy: AtomicBool::new(false),
            saved: Mutex::new(Saved {
                content: found.as_ref().map(|model| model.info().content),
                time: restored.as_ref().map(|restored| restored.saved),
                changes,
                is_retained: false,
            }),
            trouble: Mutex::default(),
        });
        core.live.note(&shared);
        Ok((object, shared, restored))
    }

    /// Begins with an object that one thread at a time owns. `restore` makes it from the newest version, or anew where there
    /// is none; `serialise` says what of it is saved, and runs inside [`LiveModel::change`] where it is time, and at the close.
    ///
    /// What changed last is saved with a later change or at the close: an object that rests for long is better saved under
    /// a lock ([`LiveBuilder::start_locked`]), or by [`LiveModel::save`].
    ///
    /// # Errors
    /// [`CommitError::Metadata`], [`CommitError::Read`]; what `restore` answers.
    pub fn start<T>(
        self,
        restore: impl FnOnce(Option<&Model>) -> Result<T, CommitError>,
        serialise: impl Fn(&T) -> Result<Parts, CommitError> + Send + 'static,
    ) -> Result<LiveModel<T>, CommitError> {
        let (object, shared, restored) = self.begin(restore)?;
        let core = self.db.core().clone();
        let saved_at = core.options.clock.instant();
        let (serialise, every) = (Box::new(serialise), self.every);
        Ok(LiveModel {
            core,
            object,
            serialise,
            every,
            saved_at,
            is_changed: false,
            is_over: false,
            shared,
            restored,
        })
    }

    /// Begins with an object under a lock of the caller's, which a thread of the database takes to serialise it where it
    /// changed and it is time, and which the close of the database takes. The object counts as changed where what is
    /// serialised is another than before. Without [`workers`](crate::Options::workers) it is saved by [`LockedModel::save`]
    /// and at the close.
    ///
    /// # Errors
    /// As [`LiveBuilder::start`].
    pub fn start_locked<T: Send + 'static>(
        self,
        restore: impl FnOnce(Option<&Model>) -> Result<T, CommitError>,
        serialise: impl Fn(&T) -> Result<Parts, CommitError> + Send + Sync + 'static,
    ) -> Result<LockedModel<T>, CommitError> {
        let (object, shared, restored) = self.begin(restore)?;
        let core = self.db.core().clone();
        let now = core.options.clock.instant();
        let inner = Arc::new(UnderLock {
            object: Arc::new(Mutex::new(object)),
            serialise: Box::new(serialise),
            every: self.every,
            saved_at: Mutex::new(now),
            shared,
        });
        let locked: Arc<dyn Locked> = inner.clone();
        hold(&core.live.locked).push(Arc::downgrade(&locked));
        core.live.sender(&core);
        Ok(LockedModel { core, inner, restored })
    }
}

fn since(now: Timestamp, before: Timestamp) -> Duration {
    Duration::from_nanos(u64::try_from(now.0.saturating_sub(before.0)).unwrap_or(0))
}

/// Says what of an object is saved.
type Serialise<T> = dyn Fn(&T) -> Result<Parts, CommitError> + Send;
/// The same for any thread.
type SharedSerialise<T> = dyn Fn(&T) -> Result<Parts, CommitError> + Send + Sync;

/// A live model that one thread at a time owns. Dropped, it is saved as far as the database still takes it;
/// [`LiveModel::close`] says whether it did.
pub struct LiveModel<T> {
    core: Arc<Core>,
    object: T,
    serialise: Box<Serialise<T>>,
    every: Duration,
    saved_at: Instant,
    is_changed: bool,
    is_over: bool,
    shared: Arc<Shared>,
    restored: Option<Restored>,
}

impl<T> LiveModel<T> {
    /// The object.
    pub fn get(&self) -> &T {
        &self.object
    }

    /// What was found at the begin; `None` where no version was there.
    pub fn restored(&self) -> Option<&Restored> {
        self.restored.as_ref()
    }

    /// Changes the object, and serialises it then where it is time.
    pub fn change<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        let answer = change(&mut self.object);
        self.shared.changes.fetch_add(1, Ordering::Relaxed);
        self.is_changed = true;
        let now = self.core.options.clock.instant();
        if now.saturating_duration_since(self.saved_at) >= self.every {
            self.hand_over(now);
        }
        answer
    }

    fn job(&self, is_closing: bool) -> Result<Job, CommitError> {
        let blob = (self.serialise)(&self.object)?.to_blob();
        let changes = self.shared.changes.load(Ordering::Relaxed);
        Ok(Job { live: self.shared.clone(), blob, changes, is_closing })
    }

    /// Serialises the object and gives it to the thread; what cannot be done now is tried at the next change.
    fn hand_over(&mut self, now: Instant) {
        if self.shared.is_busy.load(Ordering::Acquire) {
            return;
        }
        let Some(jobs) = self.core.live.sender(&self.core) else {
            let saved = self.save();
            return self.shared.note(saved);
        };
        match self.job(false) {
            Ok(job) => {
                self.shared.is_busy.store(true, Ordering::Release);
                match jobs.try_send(job) {
                    Ok(()) => (self.saved_at, self.is_changed) = (now, false),
                    Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                        self.shared.is_busy.store(false, Ordering::Release);
                    }
                }
            }
            Err(error) => {
                self.saved_at = now;
                self.shared.note(Err(error));
            }
        }
    }

    /// Saves the object now; returns when that is durable. Nothing is written where what is saved is the same.
    ///
    /// # Errors
    /// What the serialiser answers, and as [`Database::commit`].
    pub fn save(&mut self) -> Result<(), CommitError> {
        let job = self.job(false)?;
        save(&self.core, vec![job])?;
        (self.saved_at, self.is_changed) = (self.core.options.clock.instant(), false);
        Ok(())
    }

    /// Saves the object for the last time.
    ///
    /// # Errors
    /// As [`LiveModel::save`].
    pub fn close(mut self) -> Result<(), CommitError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), CommitError> {
        self.is_over = true;
        save(&self.core, vec![self.job(true)?])
    }
}

impl<T> Drop for LiveModel<T> {
    fn drop(&mut self) {
        if !self.is_over && !std::thread::panicking() {
            let ended = self.end();
            self.shared.note(ended);
        }
    }
}

struct UnderLock<T> {
    object: Arc<Mutex<T>>,
    serialise: Box<SharedSerialise<T>>,
    every: Duration,
    saved_at: Mutex<Instant>,
    shared: Arc<Shared>,
}

impl<T: Send + 'static> Locked for UnderLock<T> {
    fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn serialise(&self, now: Instant, is_closing: bool) -> Option<Result<Job, CommitError>> {
        let changes = self.shared.changes.load(Ordering::Acquire);
        let is_changed = hold(&self.shared.saved).changes != changes;
        let mut saved_at = hold(&self.saved_at);
        if !is_closing && (!is_changed || now.saturating_duration_since(*saved_at) < self.every) {
            return None;
        }
        *saved_at = now;
        // A panic under the lock may have left the object half changed: a torn save is worse than none.
        let Ok(object) = self.object.lock() else {
            let reason = "the object's lock is poisoned: a change panicked".to_string();
            return Some(Err(CommitError::Abandoned { reason }));
        };
        let changes = self.shared.changes.load(Ordering::Acquire);
        let parts = (self.serialise)(&object);
        drop(object);
        Some(parts.map(|parts| Job { live: self.shared.clone(), blob: parts.to_blob(), changes, is_closing }))
    }
}

/// A live model under a lock. Cheap to clone; when the last clone is dropped it is saved no more, so close it or the database
/// before.
pub struct LockedModel<T> {
    core: Arc<Core>,
    inner: Arc<UnderLock<T>>,
    restored: Option<Restored>,
}

impl<T> Clone for LockedModel<T> {
    fn clone(&self) -> LockedModel<T> {
        LockedModel { core: self.core.clone(), inner: self.inner.clone(), restored: self.restored.clone() }
    }
}

impl<T: Send + 'static> LockedModel<T> {
    /// Looks at the object.
    pub fn with<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&hold(&self.inner.object))
    }

    /// What was found at the begin; `None` where no version was there.
    pub fn restored(&self) -> Option<&Restored> {
        self.restored.as_ref()
    }

    /// Changes the object under its lock.
    pub fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let mut object = hold(&self.inner.object);
        let answer = change(&mut object);
        self.inner.shared.changes.fetch_add(1, Ordering::Release);
        answer
    }

    /// Saves the object now; returns when that is durable.
    ///
    /// # Errors
    /// As [`LiveModel::save`].
    pub fn save(&self) -> Result<(), CommitError> {
        self.save_as(false)
    }

    /// Saves the object as the last of this life.
    ///
    /// # Errors
    /// As [`LiveModel::save`].
    pub fn close(self) -> Result<(), CommitError> {
        self.save_as(true)
    }

    fn save_as(&self, is_closing: bool) -> Result<(), CommitError> {
        let now = self.core.options.clock.instant();
        let Some(job) = self.inner.serialise(now, true) else { return Ok(()) };
        save(&self.core, vec![Job { is_closing, ..job? }])
    }
}

impl Shared {
    fn note(&self, done: Result<(), CommitError>) {
        *hold(&self.trouble) = done.err().map(|error| error.to_string());
    }
}

/// Commits what was serialised, all of it in one transaction, without what is saved already or was overtaken.
fn save(core: &Core, mut jobs: Vec<Job>) -> Result<(), CommitError> {
    // Of one object the newest counts; and locks are taken in one order.
    let place = |job: &Job| Arc::as_ptr(&job.live) as usize;
    jobs.sort_by_key(|job| (place(job), job.changes, job.is_closing));
    jobs.reverse();
    jobs.dedup_by_key(|job| place(job));
    let lives: Vec<Arc<Shared>> = jobs.iter().map(|job| job.live.clone()).collect();
    // Held over the commit, so that no older save comes behind a newer one.
    let mut saved: Vec<MutexGuard<'_, Saved>> = lives.iter().map(|live| hold(&live.saved)).collect();
    let now = core.options.clock.now();
    let (mut batch, mut contents) = (Batch::new(), Vec::with_capacity(jobs.len()));
    for (Job { live, blob, changes, is_closing }, saved) in jobs.into_iter().zip(&saved) {
        if changes < saved.changes {
            contents.push(None);
            continue;
        }
        let content = ObjectId::of(&blob);
        let is_new = saved.content != Some(content);
        if is_new {
            batch.put_model(live.metadata.clone().with("timestamp", now), blob);
        }
        if is_new || is_closing {
            let changes = i64::try_from(changes).unwrap_or(i64::MAX);
            batch.annotate(&live.id, Some(AliasTarget::Newest), CHANGES, changes)?;
            batch.annotate(&live.id, Some(AliasTarget::Newest), CLOSED, is_closing)?;
        }
        if let Some(keep) = live.keep_last.filter(|_| is_new && !saved.is_retained) {
            batch.set_retention(&live.id, Some(Retention::keep_last(keep)))?;
        }
        contents.push(Some((content, changes, is_new)));
    }
    let time = if batch.is_empty() { None } else { Some(core.commit(batch)?.time) };
    for ((saved, content), live) in saved.iter_mut().zip(contents).zip(&lives) {
        if let Some((content, changes, is_new)) = content {
            let time = time.filter(|_| is_new).or(saved.time);
            **saved =
                Saved { content: Some(content), time, changes, is_retained: saved.is_retained || is_new };
        }
        live.note(Ok(()));
    }
    Ok(())
}

impl LiveModels {
    fn note(&self, live: &Arc<Shared>) {
        let mut all = hold(&self.all);
        all.retain(|live| live.strong_count() > 0);
        all.push(Arc::downgrade(live));
    }

    /// Where the thread takes what was serialised; `None` where there is none. The first who asks starts it.
    fn sender(&self, core: &Arc<Core>) -> Option<Sender<Job>> {
        if core.options.workers == 0 || core.closed.load(Ordering::Acquire) {
            return None;
        }
        let mut jobs = hold(&self.jobs);
        if jobs.is_none() {
            let (send, receive) = bounded(JOBS_MAX);
            let weak = Arc::downgrade(core);
            let thread = std::thread::Builder::new().name("underbelly-live".to_string());
            thread.spawn(move || serve(&weak, &receive)).ok()?;
            *jobs = Some(send);
        }
        jobs.clone()
    }

    /// Saves what is under locks for the last time, and lets the thread end.
    pub(crate) fn end(&self, core: &Core) {
        let locked: Vec<Arc<dyn Locked>> =
            hold(&self.locked).drain(..).filter_map(|live| live.upgrade()).collect();
        for live in locked {
            let ended = match live.serialise(core.options.clock.instant(), true) {
                Some(Ok(job)) => save(core, vec![job]),
                Some(Err(error)) => Err(error),
                None => Ok(()),
            };
            if let Err(error) = &ended {
                core.note_trouble(format!("live model {} could not be saved: {error}", live.shared().id));
            }
            live.shared().note(ended);
        }
        hold(&self.jobs).take();
    }

    fn status(&self, now: Timestamp) -> Vec<LiveStatus> {
        let all: Vec<Arc<Shared>> = hold(&self.all).iter().filter_map(Weak::upgrade).collect();
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
            }
        };
        all.into_iter().map(status).collect()
    }
}

/// The body of the thread.
fn serve(core: &Weak<Core>, jobs: &Receiver<Job>) {
    loop {
        let first = match jobs.recv_timeout(LOOK) {
            Ok(job) => Some(job),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let Some(core) = core.upgrade() else { return };
        if core.closed.load(Ordering::Acquire) {
            return;
        }
        let mut taken: Vec<Job> = first.into_iter().collect();
        taken.extend(jobs.try_iter().take(BATCH_MAX - taken.len()));
        let busy: Vec<Arc<Shared>> = taken.iter().map(|job| job.live.clone()).collect();
        let locked: Vec<Arc<dyn Locked>> = {
            let mut locked = hold(&core.live.locked);
            locked.retain(|live| live.strong_count() > 0);
            locked.iter().filter_map(Weak::upgrade).collect()
        };
        let now = core.options.clock.instant();
        for live in locked {
            match live.serialise(now, false) {
                Some(Ok(job)) => taken.push(job),
                Some(Err(error)) => live.shared().note(Err(error)),
                None => {}
            }
        }
        let all: Vec<Arc<Shared>> = taken.iter().map(|job| job.live.clone()).collect();
        if let Err(error) = save(&core, taken) {
            let what = error.to_string();
            all.iter().for_each(|live| *hold(&live.trouble) = Some(what.clone()));
        }
        busy.iter().for_each(|live| live.is_busy.store(false, Ordering::Release));
    }
}

impl Database {
    /// Registers an object in memory that is to be saved as versions of a model, now and then when it changed, and at its
    /// close. The metadata needs no timestamp: that of each save is taken.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use underbelly::{Database, Metadata, Options, Parts, SimulatedDisk};
    /// # let db = Database::create_on(Arc::new(SimulatedDisk::new()), Options::default())?;
    /// let mut counts = db.live_model(Metadata::new("counts")).keep_last(5).start(
    ///     |saved| match saved {
    ///         Some(model) => Ok(model.tensor("counts")?.data.to_vec()),
    ///         None => Ok(vec![0; 3]),
    ///     },
    ///     |counts| Ok(Parts::new().with("counts", counts.clone())),
    /// )?;
    /// counts.change(|counts| counts[1] += 1);
    /// counts.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn live_model(&self, metadata: Metadata) -> LiveBuilder<'_> {
        LiveBuilder { db: self, metadata, every: EVERY, keep_last: None }
    }

    /// The live models of this process, and how far each is saved.
    pub fn live_models(&self) -> Vec<LiveStatus> {
        self.core().live.status(self.core().options.clock.now())
    }
}
