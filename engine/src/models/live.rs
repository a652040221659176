//! Live models: objects in memory that are saved as versions now and then, when they changed.
//!
//! Who owns the object serialises it: on the caller's own thread, between two of its changes, or under the caller's own
//! lock. No other thread ever looks at an object that may be changing. What was serialised is compared with what is saved and
//! committed by a thread of the database, so that the caller does not wait for the disk.

mod saver;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use underbelly_storage::Timestamp;

use super::parts::Parts;
use super::{AliasTarget, Metadata, Model, ModelId};
use crate::batch::Batch;
use crate::core::Core;
use crate::database::Database;
use crate::error::CommitError;

pub(super) use saver::LIVE;
pub(crate) use saver::LiveModels;
use saver::{Busy, Job, Life, Locked, Saved, Shared, hold, save, since, try_hold};

/// How often a live model is saved unless told otherwise.
const EVERY: Duration = Duration::from_secs(60);

const TORN: &str = "a change panicked half-way; begin it anew from its newest version";
const OVER: &str = "it was closed; begin it anew";
const RESTORE_PANICKED: &str = "what restores it from its newest version panicked; it stays out of memory";
const RESERVED: &str = "no part may be named `__metadata__`, under which the safetensors format keeps no data; take another name";
const PANICKED: &str = "what serialises it panicked; the version before stays the newest";

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
    /// The interval of its saves, which is what a crash loses as a rule; `None` where a later save failed, or it was not saved
    /// from a live model.
    pub every: Option<Duration>,
    /// What is lost at most: the changes of so much time. Zero where it was closed, else all the time from this version until
    /// now, since nobody knows when the life before ended, and a disk that does not answer holds saves up, too.
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
    /// Whether the object is in memory; false where it was evicted until its next use.
    pub is_in_memory: bool,
}

/// Settings of a live model; made by [`Database::live_model`].
pub struct LiveBuilder<'db> {
    db: &'db Database,
    metadata: Metadata,
    every: Duration,
    keep_last: Option<u64>,
    evict_after: Option<Duration>,
    version: Option<u64>,
}

impl<'db> LiveBuilder<'db> {
    /// How much time passes between two saves, at least. Default: a minute.
    pub fn every(mut self, interval: Duration) -> LiveBuilder<'db> {
        self.every = interval;
        self
    }

    /// Keeps the newest so many versions, beside the age that [`Batch::set_retention`] gave, if any. Default: all.
    pub fn keep_last(mut self, count: u64) -> LiveBuilder<'db> {
        self.keep_last = Some(count);
        self
    }

    /// Takes an object under a lock out of memory once it is saved and nobody used it for so long; its next use restores it
    /// from the newest version. Its versions and the database's are not touched: what is in memory, what is kept
    /// ([`LiveBuilder::keep_last`], [`Batch::set_retention`]) and what is deleted are three things. It needs
    /// [`workers`](crate::Options::workers); an object that one thread owns stays. Default: never.
    pub fn evict_after(mut self, unused: Duration) -> LiveBuilder<'db> {
        self.evict_after = Some(unused);
        self
    }

    /// Goes on from this version instead of the newest, as where that cannot be read any more. What is saved next is the newest
    /// then.
    pub fn from_version(mut self, version: u64) -> LiveBuilder<'db> {
        self.version = Some(version);
        self
    }

    fn begin<T>(
        &self,
        restore: impl FnOnce(Option<&Model>) -> Result<T, CommitError>,
    ) -> Result<(T, Arc<Shared>, Option<Restored>), CommitError> {
        let id = self.metadata.id()?;
        let core = self.db.core();
        let shared = Arc::new(Shared {
            id,
            metadata: self.metadata.clone(),
            every: self.every,
            keep_last: self.keep_last,
            changes: AtomicU64::new(0),
            is_busy: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            is_in_memory: AtomicBool::new(true),
            restores: AtomicU64::new(0),
            saved: Mutex::default(),
            trouble: Mutex::default(),
        });
        // First: another object of the identity may save a last time until then.
        core.live.begin(&shared)?;
        let snapshot = self.db.snapshot();
        let found = match self.version {
            None => snapshot.model(&id)?,
            Some(version) => Some(snapshot.model_version(&id, version)?.ok_or_else(|| {
                let (model, version) = (id.to_string(), version.to_string());
                CommitError::UnknownVersion { model, version, newest: None }
            })?),
        };
        let about = found.as_ref().map(Model::info);
        let life = about.and_then(|about| Life::of(&core.state().models, &id, about.version, snapshot.seq()));
        let restored = about.map(|about| {
            let age = since(core.options.clock.now(), about.time);
            let lost_at_most = match life {
                Some(Life { is_closed: true, .. }) => Duration::ZERO,
                _ => age,
            };
            Restored {
                version: about.version,
                saved: about.time,
                changes: life.map_or(0, |life| life.changes),
                was_closed: life.is_some_and(|life| life.is_closed),
                every: life.filter(|life| !life.is_failing).map(|life| life.every),
                lost_at_most,
            }
        });
        let changes = restored.as_ref().map_or(0, |restored| restored.changes);
        shared.changes.store(changes, Ordering::Relaxed);
        *hold(&shared.saved) = Saved {
            content: about.map(|about| about.content),
            restored: about.map(|about| about.content),
            time: about.map(|about| about.time),
            version: about.map(|about| about.version),
            changes,
            is_retained: false,
            is_failing: false,
        };
        let object = restore(found.as_ref())?;
        // From now on something may be lost, and at most what this life takes for an interval.
        let goes_on = Life { changes, every: self.every, is_closed: false, is_failing: false };
        let is_other = self.version.is_some();
        if let Some(about) = about.filter(|_| life.is_some_and(|life| life != goes_on || is_other)) {
            let mut batch = Batch::new();
            goes_on.tell(&mut batch, &id, about.version.into())?;
            if is_other {
                // Whoever goes on from the newest after a crash is told that this life was not closed.
                goes_on.tell(&mut batch, &id, AliasTarget::Newest)?;
            }
            core.commit(batch)?;
        }
        Ok((object, shared, restored))
    }

    /// Begins with an object that one thread at a time owns. `restore` makes it from the newest version, or anew where there
    /// is none; `serialise` says what of it is saved, and runs inside [`LiveModel::change`] where it is time, and at the close.
    ///
    /// What changed last is saved with a later change or at the close: an object that rests for long is better saved under
    /// a lock ([`LiveBuilder::start_locked`]), or by [`LiveModel::save`]. No closure of a live model, or of a change of one, may close
    /// the database or drop its last handle: the close waits for them.
    ///
    /// # Errors
    /// [`CommitError::Metadata`], [`CommitError::Read`], [`CommitError::UnknownVersion`]; what `restore` answers;
    /// [`CommitError::LiveModel`] where another object is saved under this identity.
    pub fn start<T>(
        self,
        restore: impl FnOnce(Option<&Model>) -> Result<T, CommitError>,
        serialise: impl Fn(&T) -> Result<Parts, CommitError> + Send + 'static,
    ) -> Result<LiveModel<T>, CommitError> {
        let (object, shared, restored) = self.begin(restore)?;
        let core = self.db.core().clone();
        let saved_at = core.options.clock.instant();
        let serialise = Box::new(serialise);
        Ok(LiveModel { core, object, serialise, saved_at, is_torn: false, is_over: false, shared, restored })
    }

    /// Begins with an object under a lock of the caller's, which a thread of the database takes to serialise it where it
    /// changed and it is time, and which the close of the database takes. Where it is in use then, whoever uses it serialises
    /// it afterwards: others are saved meanwhile. What [`LockedModel::with`] does to its inside, as to a `Cell`, is saved with the
    /// next [`LockedModel::change`], at the close, and before the object leaves memory. `restore` is called again where the object was taken out of memory
    /// ([`LiveBuilder::evict_after`], [`LockedModel::evict`]). Without [`workers`](crate::Options::workers) it is saved by [`LockedModel::save`]
    /// and at the close.
    ///
    /// # Errors
    /// As [`LiveBuilder::start`].
    pub fn start_locked<T: Send + 'static>(
        self,
        restore: impl Fn(Option<&Model>) -> Result<T, CommitError> + Send + Sync + 'static,
        serialise: impl Fn(&T) -> Result<Parts, CommitError> + Send + Sync + 'static,
    ) -> Result<LockedModel<T>, CommitError> {
        let (object, shared, restored) = self.begin(&restore)?;
        let core = self.db.core().clone();
        let now = core.options.clock.instant();
        let inner = Arc::new(UnderLock {
            kept: Mutex::new(Kept { object: Some(object), is_torn: false, used: now }),
            restore: Box::new(restore),
            serialise: Box::new(serialise),
            evict_after: self.evict_after,
            saved_at: Mutex::new(now),
            is_awaited: AtomicBool::new(false),
            is_looked_at: AtomicBool::new(false),
            shared,
        });
        let locked: Arc<dyn Locked> = inner.clone();
        core.live.look_at(&locked);
        core.live.sender(&core);
        Ok(LockedModel { owner: Arc::new(Owner { core, inner, is_ended: AtomicBool::new(false) }), restored })
    }
}

/// Says what of an object is saved.
type Serialise<T> = dyn Fn(&T) -> Result<Parts, CommitError> + Send;
/// The same for any thread.
type SharedSerialise<T> = dyn Fn(&T) -> Result<Parts, CommitError> + Send + Sync;

/// Makes an object from a version.
type Restore<T> = dyn Fn(Option<&Model>) -> Result<T, CommitError> + Send + Sync;

/// Serialises an object. What panics is an error: the thread that saves others goes on.
fn serialised<T>(
    live: &Shared,
    object: &T,
    serialise: &dyn Fn(&T) -> Result<Parts, CommitError>,
) -> Result<Parts, CommitError> {
    let parts = catch_unwind(AssertUnwindSafe(|| serialise(object)));
    let parts = parts.unwrap_or_else(|_| Err(live.refused(PANICKED)))?;
    if parts.names().any(|name| name == super::tensors::METADATA) {
        return Err(live.refused(RESERVED));
    }
    Ok(parts)
}

/// A live model that one thread at a time owns. Dropped, it is saved as far as the database still takes it;
/// [`LiveModel::close`] says whether it did, and [`Database::close`] tells of one that was still open. One of which a change panicked is saved no more.
pub struct LiveModel<T> {
    core: Arc<Core>,
    object: T,
    serialise: Box<Serialise<T>>,
    saved_at: Instant,
    /// A change began and has not ended.
    is_torn: bool,
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
        let was_torn = std::mem::replace(&mut self.is_torn, true);
        let answer = change(&mut self.object);
        self.is_torn = was_torn;
        self.shared.changes.fetch_add(1, Ordering::Relaxed);
        let now = self.core.options.clock.instant();
        if now.saturating_duration_since(self.saved_at) >= self.shared.every {
            self.hand_over(now);
        }
        answer
    }

    fn job(&self, is_closing: bool, busy: Option<Busy>) -> Result<Job, CommitError> {
        // A torn save is worse than none.
        if self.is_torn {
            return Err(self.shared.refused(TORN));
        }
        let blob = serialised(&self.shared, &self.object, &self.serialise)?.to_blob().into();
        let changes = self.shared.changes.load(Ordering::Relaxed);
        Ok(Job { live: self.shared.clone(), blob: Some(blob), changes, restores: 0, is_closing, _busy: busy })
    }

    /// Serialises the object and gives it to the thread; what cannot be done now is tried at the next change.
    fn hand_over(&mut self, now: Instant) {
        let Some(busy) = Busy::begin(&self.shared) else { return };
        let jobs = self.core.live.sender(&self.core);
        if jobs.as_ref().is_some_and(|jobs| jobs.is_full()) {
            return;
        }
        let done = match (self.job(false, Some(busy)), jobs) {
            (Ok(job), Some(jobs)) => {
                // One that finds no room is not busy any more.
                if jobs.try_send(job).is_ok() {
                    self.saved_at = now;
                }
                return;
            }
            (Ok(job), None) => save(&self.core, &[job]),
            (Err(error), _) => Err(error),
        };
        self.saved_at = now;
        if let Err(error) = done {
            self.shared.note_failure(&self.core, &error);
        }
    }

    /// Saves the object now; returns when that is durable. Nothing is written where what is saved is the same.
    ///
    /// # Errors
    /// What the serialiser answers; [`CommitError::LiveModel`] where that or a change panicked; and as [`Database::commit`].
    pub fn save(&mut self) -> Result<(), CommitError> {
        save(&self.core, &[self.job(false, None)?])?;
        self.saved_at = self.core.options.clock.instant();
        Ok(())
    }

    /// Saves the object for the last time. Where this fails the object is gone; whoever wants it then calls [`LiveModel::save`]
    /// first.
    ///
    /// # Errors
    /// As [`LiveModel::save`].
    pub fn close(mut self) -> Result<(), CommitError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), CommitError> {
        self.is_over = true;
        let done = self.job(true, None).and_then(|job| save(&self.core, &[job]));
        self.shared.is_over.store(true, Ordering::Release);
        done
    }
}

impl<T> Drop for LiveModel<T> {
    fn drop(&mut self) {
        let is_left = self.is_over || self.is_torn || std::thread::panicking();
        if !is_left && let Err(error) = self.end() {
            self.shared.note_failure(&self.core, &error);
        }
        self.shared.is_over.store(true, Ordering::Release);
    }
}

struct Kept<T> {
    /// `None` where it was evicted: it is what the newest version is.
    object: Option<T>,
    /// A change began and has not ended.
    is_torn: bool,
    /// When it was looked at or changed last.
    used: Instant,
}

struct UnderLock<T> {
    kept: Mutex<Kept<T>>,
    restore: Box<Restore<T>>,
    serialise: Box<SharedSerialise<T>>,
    evict_after: Option<Duration>,
    saved_at: Mutex<Instant>,
    /// It is time, but the object was in use: who lets go of it serialises it.
    is_awaited: AtomicBool,
    /// Somebody looked at it since it was saved for an eviction, and may have changed its inside.
    is_looked_at: AtomicBool,
    shared: Arc<Shared>,
}

impl<T> UnderLock<T> {
    /// The object, unless it is torn or was closed.
    fn sound(&self) -> Result<MutexGuard<'_, Kept<T>>, CommitError> {
        let kept = hold(&self.kept);
        self.check(&kept).map(|()| kept)
    }

    fn check(&self, kept: &Kept<T>) -> Result<(), CommitError> {
        match (kept.is_torn, self.is_over()) {
            (true, _) => Err(self.shared.refused(TORN)),
            (_, true) => Err(self.shared.refused(OVER)),
            _ => Ok(()),
        }
    }

    fn is_over(&self) -> bool {
        self.shared.is_closed.load(Ordering::Acquire) || self.shared.is_over.load(Ordering::Acquire)
    }

    /// The object for a use, made from the newest version where it is not in memory.
    fn used<'k>(&self, core: &Core, kept: &'k mut Kept<T>) -> Result<&'k mut T, CommitError> {
        kept.used = core.options.clock.instant();
        if kept.object.is_none() {
            if self.is_over() {
                return Err(self.shared.refused(OVER));
            }
            let found = core.view.snapshot().model(&self.shared.id)?;
            let restored = catch_unwind(AssertUnwindSafe(|| (self.restore)(found.as_ref())));
            kept.object = Some(restored.unwrap_or_else(|_| Err(self.shared.refused(RESTORE_PANICKED)))?);
            let about = found.as_ref().map(Model::info);
            let mut saved = hold(&self.shared.saved);
            saved.content = about.map(|about| about.content);
            saved.restored = saved.content;
            (saved.time, saved.version) = (about.map(|about| about.time), about.map(|about| about.version));
            self.shared.is_in_memory.store(true, Ordering::Release);
            // What was serialised before is of an object that is gone.
            self.shared.restores.fetch_add(1, Ordering::AcqRel);
        }
        kept.object.as_mut().ok_or_else(|| self.shared.refused(OVER))
    }

    fn job(&self, is_closing: bool) -> Result<Job, CommitError> {
        self.job_of(&*self.sound()?, is_closing)
    }

    fn job_of(&self, kept: &Kept<T>, is_closing: bool) -> Result<Job, CommitError> {
        let changes = self.shared.changes.load(Ordering::Acquire);
        let restores = self.shared.restores.load(Ordering::Acquire);
        let parts =
            kept.object.as_ref().map(|object| serialised(&self.shared, object, &self.serialise)).transpose();
        if is_closing && parts.is_ok() {
            // Nothing changes behind what is saved last.
            self.shared.is_closed.store(true, Ordering::Release);
        }
        let blob = parts?.map(|parts| parts.to_blob().into());
        Ok(Job { live: self.shared.clone(), blob, changes, restores, is_closing, _busy: None })
    }

    /// Serialises the object for the thread, which found it in use when it was time; called by who has it in use.
    fn hand_over(&self, core: &Arc<Core>, kept: MutexGuard<'_, Kept<T>>) {
        if kept.is_torn || self.is_over() || !self.is_awaited.swap(false, Ordering::AcqRel) {
            return;
        }
        // Where there is no room, or no thread any more, it stays as it is until the next look.
        let Some(jobs) = core.live.sender(core).filter(|jobs| !jobs.is_full()) else { return };
        let job = self.job_of(&kept, false);
        drop(kept);
        let is_given = match job {
            Ok(job) => jobs.try_send(job).is_ok(),
            Err(error) => {
                self.shared.note_failure(core, &error);
                true
            }
        };
        if is_given {
            *hold(&self.saved_at) = core.options.clock.instant();
        }
    }

    /// Takes the object out of memory, where it was not used for so long and all of it is in the newest version. Waits for nobody: an
    /// object that is in use or being saved stays.
    fn evict(&self, core: &Core, unused: Duration) {
        let evicted = {
            let Some(mut kept) = try_hold(&self.kept) else { return };
            let is_unused = core.options.clock.instant().saturating_duration_since(kept.used) >= unused;
            if !is_unused || kept.is_torn || kept.object.is_none() || self.is_over() {
                return;
            }
            // What was done to its inside by who looked at it counts as a change, to be saved first, and now.
            if self.is_looked_at.swap(false, Ordering::AcqRel) {
                self.shared.changes.fetch_add(1, Ordering::AcqRel);
                let mut saved_at = hold(&self.saved_at);
                *saved_at = saved_at.checked_sub(self.shared.every).unwrap_or(*saved_at);
                return;
            }
            let Some(saved) = try_hold(&self.shared.saved) else { return };
            // Somebody else's version would come back in its stead.
            let newest = core.state().models.newest(&self.shared.id, u64::MAX).map(|version| version.number);
            let is_newest = saved.version.is_some() && saved.version == newest;
            if !is_newest || saved.changes != self.shared.changes.load(Ordering::Acquire) {
                return;
            }
            self.shared.is_in_memory.store(false, Ordering::Release);
            kept.object.take()
        };
        // What drops it may take locks of its own, and panic.
        if catch_unwind(AssertUnwindSafe(|| drop(evicted))).is_err() {
            core.note_trouble(format!("live model {} panicked when it was dropped", self.shared.id));
        }
    }
}

impl<T: Send + 'static> Locked for UnderLock<T> {
    fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn serialise(&self, now: Instant, is_closing: bool) -> Option<Result<Job, CommitError>> {
        if self.is_over() {
            return None;
        }
        if is_closing {
            return Some(self.job(true));
        }
        let changes = self.shared.changes.load(Ordering::Acquire);
        let is_changed = hold(&self.shared.saved).changes != changes;
        let mut saved_at = hold(&self.saved_at);
        if !is_changed || now.saturating_duration_since(*saved_at) < self.shared.every {
            return None;
        }
        // Others are not to wait for it.
        let Some(kept) = try_hold(&self.kept) else {
            self.is_awaited.store(true, Ordering::Release);
            return None;
        };
        self.is_awaited.store(false, Ordering::Release);
        *saved_at = now;
        Some(self.check(&kept).and_then(|()| self.job_of(&kept, false)))
    }

    fn evict_unused(&self, core: &Core) {
        if let Some(unused) = self.evict_after {
            self.evict(core, unused);
        }
    }
}

impl<T> Drop for UnderLock<T> {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
    }
}

/// What the clones of a handle have together.
struct Owner<T> {
    core: Arc<Core>,
    inner: Arc<UnderLock<T>>,
    /// Somebody closed it, and was told how that went.
    is_ended: AtomicBool,
}

impl<T> Owner<T> {
    /// Saves the object for the last time.
    fn end(&self) -> Result<(), CommitError> {
        self.is_ended.store(true, Ordering::Release);
        let job = self.inner.job(true)?;
        let done = save(&self.core, &[job]);
        let over = if done.is_ok() { &self.inner.shared.is_over } else { &self.inner.shared.is_closed };
        over.store(done.is_ok(), Ordering::Release);
        done
    }
}

impl<T> Drop for Owner<T> {
    fn drop(&mut self) {
        // A panic elsewhere in this thread makes a sound object no worse.
        let is_left =
            self.is_ended.load(Ordering::Acquire) || self.inner.is_over() || hold(&self.inner.kept).is_torn;
        if !is_left && let Err(error) = self.end() {
            self.inner.shared.note_failure(&self.core, &error);
        }
        self.inner.shared.is_over.store(true, Ordering::Release);
    }
}

/// A live model under a lock. Cheap to clone. When the last clone is dropped it is saved as far as the database still takes
/// it, which waits for its lock and the disk; [`LockedModel::close`] says whether it did.
pub struct LockedModel<T> {
    owner: Arc<Owner<T>>,
    restored: Option<Restored>,
}

impl<T> Clone for LockedModel<T> {
    fn clone(&self) -> LockedModel<T> {
        LockedModel { owner: self.owner.clone(), restored: self.restored.clone() }
    }
}

impl<T: Send + 'static> LockedModel<T> {
    /// Looks at the object, as a change left it that panicked where one did.
    ///
    /// # Errors
    /// Where the object is not in memory: what `restore` answers, [`CommitError::Read`], [`CommitError::LiveModel`] where that
    /// panicked or the object was closed.
    pub fn with<R>(&self, look: impl FnOnce(&T) -> R) -> Result<R, CommitError> {
        let Owner { core, inner, .. } = &*self.owner;
        let mut kept = hold(&inner.kept);
        let object = inner.used(core, &mut kept)?;
        inner.is_looked_at.store(true, Ordering::Release);
        let answer = look(object);
        inner.hand_over(core, kept);
        Ok(answer)
    }

    /// What was found at the begin; `None` where no version was there.
    pub fn restored(&self) -> Option<&Restored> {
        self.restored.as_ref()
    }

    /// Changes the object under its lock.
    ///
    /// # Errors
    /// [`CommitError::LiveModel`] where it was closed or an earlier change panicked, and as [`LockedModel::with`]; nothing is
    /// changed then.
    pub fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> Result<R, CommitError> {
        let Owner { core, inner, .. } = &*self.owner;
        let mut kept = inner.sound()?;
        inner.used(core, &mut kept)?;
        kept.is_torn = true;
        let answer = kept.object.as_mut().map(change);
        kept.is_torn = false;
        let answer = answer.ok_or_else(|| inner.shared.refused(OVER))?;
        inner.shared.changes.fetch_add(1, Ordering::Release);
        inner.hand_over(core, kept);
        Ok(answer)
    }

    /// Saves the object now; returns when that is durable.
    ///
    /// # Errors
    /// As [`LiveModel::save`]; [`CommitError::LiveModel`] also where it was closed.
    pub fn save(&self) -> Result<(), CommitError> {
        let Owner { core, inner, .. } = &*self.owner;
        let job = inner.job(false)?;
        inner.is_awaited.store(false, Ordering::Release);
        *hold(&inner.saved_at) = core.options.clock.instant();
        save(core, &[job])
    }

    /// Saves the object and takes it out of memory, until its next use restores it from the newest version. One that is used or
    /// changes meanwhile stays.
    ///
    /// # Errors
    /// As [`LockedModel::save`].
    pub fn evict(&self) -> Result<(), CommitError> {
        let is_looked_at = &self.owner.inner.is_looked_at;
        let was_looked_at = is_looked_at.swap(false, Ordering::AcqRel);
        let saved = self.save();
        if saved.is_err() {
            is_looked_at.fetch_or(was_looked_at, Ordering::AcqRel);
        }
        saved?;
        self.owner.inner.evict(&self.owner.core, Duration::ZERO);
        Ok(())
    }

    /// Saves the object for the last time; other clones change and save it no more, unless this fails.
    ///
    /// # Errors
    /// As [`LockedModel::save`].
    pub fn close(self) -> Result<(), CommitError> {
        self.owner.end()
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
        LiveBuilder { db: self, metadata, every: EVERY, keep_last: None, evict_after: None, version: None }
    }

    /// The live models of this process, and how far each is saved.
    pub fn live_models(&self) -> Vec<LiveStatus> {
        self.core().live.status(self.core().options.clock.now())
    }
}
