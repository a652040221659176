//! The index of attributes: for each model, what its newest version's metadata holds.
//!
//! The index reflects one transaction, its *stamp*, and is only asked who may fulfil a query. A model whose newest
//! version as of the query is not its newest as of the stamp has a version between the two, so the candidates are
//! what the index gives and the models with a version in between; each is then checked against the catalogue. Keys
//! are added before the stamp moves and removed after it, and a query takes in every stamp that it saw, so it misses
//! nothing while the index moves on.
//!
//! The index is opened, compared with the catalogue, built and moved on by a thread of its own, which the first
//! query starts; queries scan the catalogue until it is ready. No commit and no checkpoint waits for it.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use underbelly_storage::index::{Index, IndexError, IndexFolder, MemoryIndex, SledIndex};

use super::ModelId;
use super::catalogue::behind;
use super::entry::{crowded, model_of, stretches};
use super::fill::{self, SLICE_MODELS};
use super::wanted::Condition;
use crate::files;
use crate::limits::{INDEX_CLOSE_MAX, INDEX_TAIL_MAX};
use crate::view::Base;

/// Candidates that a condition may propose in the first round, and how much more in each that follows.
const ROUND_FIRST: usize = 256;
const ROUND_GROWTH: usize = 8;

/// How far the index is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IndexState {
    /// No query has asked for it since the database was opened, and none is stored.
    Unused,
    /// One is stored, and no query has asked for it since the database was opened.
    Stored,
    /// It is being opened, compared or built; queries scan meanwhile.
    Building,
    /// Queries use it.
    Ready,
    /// It is put away, or could not be had; queries scan.
    Closed,
}

impl fmt::Display for IndexState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IndexState::Unused => "unused",
            IndexState::Stored => "stored",
            IndexState::Building => "building",
            IndexState::Ready => "ready",
            IndexState::Closed => "closed",
        })
    }
}

/// What is known of the index of attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexStatus {
    /// How far it is.
    pub state: IndexState,
    /// Whether it is in the database's folder; else it is in memory.
    pub on_disk: bool,
    /// The transaction that it reflects.
    pub stamp: Option<u64>,
    /// Its keys: one for each attribute of the newest version of each model.
    pub keys: u64,
    /// Queries that it answered since the database was opened; others scanned.
    pub asked: u64,
    /// Why an index was set aside since the database was opened, each with the remedy.
    pub set_aside: Vec<String>,
}

/// Where an index is.
pub(crate) enum Backend {
    Memory(MemoryIndex),
    Sled(SledIndex),
}

impl Backend {
    pub(crate) fn index(&self) -> &dyn Index {
        match self {
            Backend::Memory(index) => index,
            Backend::Sled(index) => index,
        }
    }
}

/// An index that queries may use. It is withdrawn by taking the backend out, which waits for queries under way.
pub(crate) struct Live {
    pub backend: RwLock<Option<Backend>>,
    pub on_disk: bool,
    /// The transaction that it reflects. Rises alone.
    pub stamp: AtomicU64,
    pub keys: AtomicU64,
}

/// How the index's thread and everybody else talk.
#[derive(Default)]
pub(crate) struct Shared {
    pub phase: Phase,
    pub live: Option<Arc<Live>>,
    pub set_aside: Vec<String>,
    /// The index is to move on.
    pub is_wanted: bool,
    /// The index failed under a query.
    pub failure: Option<IndexError>,
    /// The thread is to put the index away and end.
    pub is_ending: bool,
    /// Nobody waits for that any more: the folder may be another's.
    pub is_given_up: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    #[default]
    Unused,
    Building,
    Ready,
    Closed,
}

/// The index of attributes of a database.
#[derive(Default)]
pub(crate) struct Attributes {
    shared: Mutex<Shared>,
    changed: Condvar,
    /// Queries that an index answered.
    asked: AtomicU64,
}

impl Attributes {
    pub(crate) fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is shared and tells everybody who waits.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut Shared) -> T) -> T {
        let changed = change(&mut self.shared());
        self.changed.notify_all();
        changed
    }

    /// Waits until something is shared that is worth an answer, at most until `deadline`.
    pub(crate) fn wait<T>(
        &self,
        deadline: Option<Instant>,
        mut answer: impl FnMut(&mut Shared) -> Option<T>,
    ) -> Option<T> {
        let mut shared = self.shared();
        loop {
            if let Some(answer) = answer(&mut shared) {
                return Some(answer);
            }
            shared = match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return None,
                Some(left) => {
                    self.changed.wait_timeout(shared, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(shared).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// The index, if it is ready; where nobody has asked for it yet, its thread is started.
    fn ready(&self, base: &Arc<Base>) -> Option<Arc<Live>> {
        let mut shared = self.shared();
        if shared.phase == Phase::Unused && !shared.is_ending {
            shared.phase = Phase::Building;
            let (weak, attributes) = (Arc::downgrade(base), base.attributes.clone());
            let thread = std::thread::Builder::new().name("underbelly-index".to_string());
            if let Err(error) = thread.spawn(move || fill::keep(&weak, &attributes)) {
                shared.phase = Phase::Closed;
                shared.set_aside.push(format!("no thread can be started for the index: {error}"));
            }
        }
        shared.live.clone()
    }

    /// Models that may fulfil the conditions as of `seq`, sorted; `None` where a scan of the catalogue is due.
    pub(crate) fn candidates(
        &self,
        base: &Arc<Base>,
        conditions: &[Condition],
        seq: u64,
    ) -> Option<BTreeSet<ModelId>> {
        let models = base.state().models.len();
        if models < base.index_models_min {
            return None;
        }
        let live = self.ready(base)?;
        let before = live.stamp.load(Ordering::Acquire);
        let mut ids = match live.propose(conditions, models / 4) {
            Ok(ids) => ids?,
            Err(error) => {
                self.update(|shared| shared.failure = Some(error));
                return None;
            }
        };
        let after = live.stamp.load(Ordering::Acquire);
        // A slice at a time, so that nobody waits for a query after a bulk load.
        let (mut last, mut tail) = (behind(before.min(seq)), 0);
        // So long a tail calls for the index first.
        let tail_max = INDEX_TAIL_MAX.max(models / 4);
        loop {
            let changed = base.state().models.changed_behind(last, after.max(seq), SLICE_MODELS);
            let Some(newest) = changed.last() else { break };
            last = *newest;
            tail += changed.len();
            if tail > INDEX_TAIL_MAX {
                self.update(|shared| shared.is_wanted = true);
            }
            if tail > tail_max {
                return None;
            }
            ids.extend(changed.into_iter().map(|(_, id)| id));
        }
        self.asked.fetch_add(1, Ordering::Relaxed);
        Some(ids)
    }

    /// Waits until the index is ready and reflects `seq`; starts it, if need be.
    pub(crate) fn wait_ready(&self, base: &Arc<Base>, seq: u64, timeout: Duration) -> bool {
        if base.state().models.len() < base.index_models_min {
            return false;
        }
        self.ready(base);
        self.update(|shared| shared.is_wanted = true);
        // A time beyond the clock's end is no deadline.
        let deadline = Instant::now().checked_add(timeout);
        let answer = self.wait(deadline, |shared| match (&shared.live, shared.phase) {
            (_, Phase::Closed) => Some(false),
            (Some(live), _) if live.stamp.load(Ordering::Acquire) >= seq => Some(true),
            _ => None,
        });
        answer.unwrap_or(false)
    }

    /// Lets the thread put the index away; a thread that takes too long is left to itself.
    pub(crate) fn end(&self) {
        self.update(|shared| {
            shared.is_ending = true;
            if shared.phase == Phase::Unused {
                shared.phase = Phase::Closed;
            }
        });
        let deadline = Instant::now().checked_add(INDEX_CLOSE_MAX);
        let ended =
            self.wait(deadline, |shared| (shared.phase == Phase::Closed || shared.is_given_up).then_some(()));
        if ended.is_none() {
            self.update(|shared| shared.is_given_up = true);
        }
    }

    pub(crate) fn status(&self, base: &Base) -> IndexStatus {
        let shared = self.shared();
        let mut status = IndexStatus {
            state: match shared.phase {
                Phase::Unused => IndexState::Unused,
                Phase::Building => IndexState::Building,
                Phase::Ready => IndexState::Ready,
                Phase::Closed => IndexState::Closed,
            },
            on_disk: false,
            stamp: None,
            keys: 0,
            asked: self.asked.load(Ordering::Relaxed),
            set_aside: shared.set_aside.clone(),
        };
        if let Some(live) = &shared.live {
            status.on_disk = live.on_disk;
            status.stamp = Some(live.stamp.load(Ordering::Acquire));
            status.keys = live.keys.load(Ordering::Acquire);
        }
        drop(shared);
        if status.state == IndexState::Unused
            && let Some(folder) = IndexFolder::new(&base.disk, base.database, files::INDEX_DIR)
            && let Ok(Some(sealed)) = folder.sealed()
        {
            let (stamp, keys) = (Some(sealed.seq), sealed.keys);
            status = IndexStatus { state: IndexState::Stored, on_disk: true, stamp, keys, ..status };
        }
        status
    }
}

impl Live {
    pub(crate) fn new(backend: Backend, stamp: u64, keys: u64) -> Live {
        Live {
            on_disk: matches!(backend, Backend::Sled(_)),
            backend: RwLock::new(Some(backend)),
            stamp: AtomicU64::new(stamp),
            keys: AtomicU64::new(keys),
        }
    }

    /// Models that fulfil the most telling of the conditions as of the stamp, and perhaps others; `None` where all
    /// conditions propose more than `max`, or the index is withdrawn.
    fn propose(&self, conditions: &[Condition], max: usize) -> Result<Option<BTreeSet<ModelId>>, IndexError> {
        let backend = self.backend.read().unwrap_or_else(PoisonError::into_inner);
        let Some(backend) = &*backend else { return Ok(None) };
        let max = max.max(ROUND_FIRST);
        let mut round = ROUND_FIRST;
        // Most models have one of a few types, so what else is asked tells more.
        let mut conditions: Vec<&Condition> = conditions.iter().collect();
        conditions.sort_by_key(|condition| condition.is_about_type());
        loop {
            for condition in &conditions {
                let mut ids = BTreeSet::new();
                let mut seen = 0;
                let mut foreign = false;
                for (from, to) in stretches(condition).into_iter().chain([crowded()]) {
                    backend.index().visit(&from, Some(&to), &mut |key| {
                        foreign |= model_of(key).map(|id| ids.insert(id)).is_none();
                        seen += 1;
                        if seen > round || foreign {
                            ControlFlow::Break(())
                        } else {
                            ControlFlow::Continue(())
                        }
                    })?;
                }
                if foreign {
                    return Err(IndexError::Contents);
                }
                if seen <= round {
                    return Ok(Some(ids));
                }
            }
            if round >= max || conditions.is_empty() {
                return Ok(None);
            }
            round = (round * ROUND_GROWTH).min(max);
        }
    }
}
