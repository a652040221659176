//! What everybody reads through: the writer's handle and the readers of other processes alike.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use underbelly_storage::disk::{Lock, SharedDisk};

use crate::error::{CommitError, ReadError};
use crate::feed::CHANGES_SERIES;
use crate::graph::{SlotDefinition, SlotId};
use crate::models::{Attributes, IndexStatus};
use crate::objects::Objects;
use crate::pool::Threads;
use crate::runs::{self, RunRecord};
use crate::snapshot::Snapshot;
use crate::state::State;
use crate::variables::{Scope, Variable};

/// What a database is made of for who reads: its files, the applied head, and who looks at it.
pub(crate) struct Base {
    pub disk: SharedDisk,
    pub database: [u8; 16],
    pub state: Mutex<State>,
    pub objects: Objects,
    /// The index of the models' attributes.
    pub attributes: Arc<Attributes>,
    /// Models from which on there is an index.
    pub index_models_min: usize,
    /// Of a reader, those of the default options.
    pub blob_limits: BlobLimits,
    /// Who shares the work of those who read.
    pub threads: Threads,
    /// Bytes that each operator may hold; `u64::MAX` is no limit.
    pub memory_bytes: AtomicU64,
    /// Seqs that snapshots read at, with the number of snapshots.
    pub readers: Mutex<BTreeMap<u64, usize>>,
    /// The seq up to which transactions are visible.
    pub visible: Box<dyn Fn() -> u64 + Send + Sync>,
    /// The seq up to which transactions are visible and durable.
    pub told: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Keeps the files of a manifest in their places, where this is not the process that would remove them.
    pub _pin: Option<Box<dyn Lock>>,
}

/// How blobs are stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlobLimits {
    /// Bytes up to which a blob is one object, and may go into the log.
    pub small_max: usize,
    /// The length of the chunks into which a longer one is cut.
    pub chunk_bytes: usize,
}

impl Base {
    /// The applied head, for reading.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The definition of a slot.
    pub(crate) fn slot(&self, name: &str) -> Result<(SlotId, SlotDefinition), CommitError> {
        let state = self.state();
        let found = state.graph.slot_by_name(name).and_then(|id| Some((id, state.graph.slot(id)?.clone())));
        found.ok_or_else(|| CommitError::UnknownSlot { slot: name.to_string() })
    }

    /// The seq of the oldest reader, or of what is visible where nobody reads.
    pub(crate) fn oldest_reader(&self) -> u64 {
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.keys().next().copied().unwrap_or(u64::MAX).min((self.visible)())
    }

    /// The seq of the oldest snapshot that somebody holds.
    pub(crate) fn oldest_snapshot(&self) -> Option<u64> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).keys().next().copied()
    }
}

/// What can be read of a database, of one that is [open for writing](crate::Database) and of one that another process
/// may [write](crate::Reader). Cheap to clone.
///
/// Snapshots show whole transactions that are visible; listings of slots and producers show the applied head.
#[derive(Clone)]
pub struct View {
    base: Arc<Base>,
}

/// How many there are of each kind of thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
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
    /// Objects: contents of cells and blobs.
    pub objects: usize,
}

impl View {
    pub(crate) fn new(base: Base) -> View {
        View { base: Arc::new(base) }
    }

    pub(crate) fn base(&self) -> &Arc<Base> {
        &self.base
    }

    /// Bytes of memory that each scan, join, resampling or other operator over series may hold from now on, about; `None` for as many as it needs.
    /// With less it reads shorter pieces, fewer of them at a time, and lets go of the pages of sealed files that it has read; where what
    /// it holds grows with its answer it ends with [`QueryError::Memory`](crate::QueryError::Memory), which says what needs how much and what helps.
    ///
    /// What the database holds whoever reads comes on top: rows since the last checkpoint, keys of cells and models, variables.
    pub fn limit_memory(&self, bytes: Option<u64>) {
        self.base.memory_bytes.store(bytes.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// What is visible now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::now(&self.base)
    }

    /// A variable as it is visible now; `None` where it was never set, or removed.
    ///
    /// # Errors
    /// As [`Snapshot::variable`].
    pub fn variable(&self, scope: &Scope, name: &str) -> Result<Option<Variable>, ReadError> {
        self.snapshot().variable(scope, name)
    }

    /// All variables as they are visible now, by scope and name.
    pub fn variables(&self) -> Vec<Variable> {
        self.snapshot().variables()
    }

    /// The index of the models' attributes: that of this process, or where it has none, the one that the folder keeps.
    pub fn index(&self) -> IndexStatus {
        self.base.attributes.status(&self.base)
    }

    /// How many there are of each kind of thing in the applied head.
    pub fn counts(&self) -> Counts {
        let state = self.base.state();
        Counts {
            series: state.tables.keys().filter(|name| ***name != *CHANGES_SERIES).count(),
            slots: state.graph.slots().count(),
            cells: state.graph.cells().count(),
            producers: state.graph.producers().count(),
            models: state.models.len(),
            variables: state.variables.len(),
            objects: self.base.objects.len(),
        }
    }

    /// The newest `n` visible runs that ended, newest first; of one producer, or of all. Empty where there is
    /// none, also for a producer that is unknown.
    ///
    /// # Errors
    /// [`ReadError::Query`] where the history cannot be read.
    pub fn runs(&self, producer: Option<&str>, n: usize) -> Result<Vec<RunRecord>, ReadError> {
        runs::history(&self.snapshot(), producer, n)
    }
}
