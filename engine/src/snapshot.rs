//! What the database was after one transaction, and stays for whoever holds it.

use std::sync::{Arc, PoisonError};

use underbelly_storage::{Columns, Value};

use crate::error::ReadError;
use crate::feed::CHANGES_SERIES;
use crate::graph::{CellId, CellInfo, Key, SlotDate, SlotId};
use crate::models::{Model, ModelInfo, ModelName};
use crate::series::{Series, SeriesDefinition, SeriesInfo};
use crate::slots::content;
use crate::state::State;
use crate::variables::{Name, Scope, Variable};
use crate::view::Base;

/// The database as of one transaction. Owned, `Send`, cheap to clone; later commits do not change what it shows.
///
/// Two exceptions: the graph keeps the latest states of cells alone, so [`Cell::info`] is as of now; and a field of
/// whole numbers that was widened to floats since is read as floats.
#[derive(Clone)]
pub struct Snapshot {
    pin: Arc<Pin>,
}

struct Pin {
    base: Arc<Base>,
    seq: u64,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut readers = self.base.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = readers.get_mut(&self.seq) {
            *count -= 1;
            if *count == 0 {
                readers.remove(&self.seq);
            }
        }
    }
}

/// The contents of a cell.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The rows: row keys, then values, sorted by row key.
    pub rows: Columns,
    /// The generation of these rows: it rises with each change of the contents.
    pub generation: u64,
    /// The transaction that made them the contents.
    pub seq: u64,
    /// State, causes and times, as of now.
    pub info: CellInfo,
}

impl Snapshot {
    /// What is visible now.
    pub(crate) fn now(base: &Arc<Base>) -> Snapshot {
        Snapshot::pinned(base, || (base.visible)())
    }

    /// What is visible and durable now.
    pub(crate) fn told(base: &Arc<Base>) -> Snapshot {
        Snapshot::pinned(base, || (base.told)())
    }

    /// What a run reads: the head at its claim, which the caller has waited for.
    pub(crate) fn at(base: &Arc<Base>, seq: u64) -> Snapshot {
        Snapshot::pinned(base, || seq)
    }

    /// Asks for the seq where nobody asks for the oldest reader meanwhile: a checkpoint leaves out nothing that it shows.
    fn pinned(base: &Arc<Base>, seq: impl FnOnce() -> u64) -> Snapshot {
        let mut readers = base.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let seq = seq();
        *readers.entry(seq).or_insert(0) += 1;
        drop(readers);
        Snapshot { pin: Arc::new(Pin { base: base.clone(), seq }) }
    }

    pub(crate) fn base(&self) -> &Arc<Base> {
        &self.pin.base
    }

    /// The last transaction that it shows.
    pub fn seq(&self) -> u64 {
        self.pin.seq
    }

    /// Types of all series, sorted, but for [`CHANGES_SERIES`], which is read through [`View::feed`](crate::View::feed).
    pub fn series_names(&self) -> Vec<String> {
        let state = self.base().state();
        let known = state
            .tables
            .iter()
            .filter(|(name, table)| ***name != *CHANGES_SERIES && table.is_known_at(self.seq()));
        known.map(|(name, _)| name.to_string()).collect()
    }

    /// A series by its type.
    ///
    /// # Errors
    /// [`ReadError::UnknownSeries`] where the snapshot shows no series of this type.
    pub fn series(&self, name: &str) -> Result<Series, ReadError> {
        let mut state = self.base().state();
        let unknown = || ReadError::UnknownSeries { series: name.to_string() };
        let (known, _) = state.tables.get_key_value(name).ok_or_else(unknown)?;
        let shared = known.clone();
        let table = state.tables.get_mut(name).filter(|table| table.is_known_at(self.seq()));
        let table = table.ok_or_else(unknown)?;
        if table.horizon() > self.seq() {
            let (seq, oldest) = (self.seq(), table.horizon());
            return Err(ReadError::BeforeHorizon { series: name.to_string(), seq, oldest });
        }
        let (runs, tombstones) = (table.runs(), table.tombstones().clone());
        let (schema, last_points) = (table.schema_at(self.seq()), table.last_points());
        let schema = (schema, table.types().clone());
        let duplicates = table.rules_at(self.seq()).duplicates;
        drop(state);
        Ok(Series::new(shared, schema, runs, tombstones, last_points, duplicates, self.clone()))
    }

    /// What is known of a series. Rows and times are those of the snapshot; segments, their bytes, young runs and deletes
    /// are as of now.
    ///
    /// # Errors
    /// [`ReadError::UnknownSeries`] where the snapshot shows no series of this type; [`ReadError::Query`] where
    /// its rows cannot be read.
    pub fn series_info(&self, name: &str) -> Result<SeriesInfo, ReadError> {
        let series = self.series(name)?;
        let (
            segments,
            segment_bytes,
            young_runs,
            deletes,
            (appended_bytes, written_bytes),
            horizon,
            (rules, now),
        ) = {
            let state = self.base().state();
            let unknown = || ReadError::UnknownSeries { series: name.to_string() };
            let table = state.tables.get(name).ok_or_else(unknown)?;
            let bytes = table.sealed().iter().map(|run| run.reference().bytes).sum();
            let counts = (table.sealed().len(), bytes, table.young().len(), table.tombstones().len());
            let (segments, bytes, young, deletes) = counts;
            let rules = (table.rules(), state.time);
            (segments, bytes, young, deletes, table.bytes_moved(), table.horizon(), rules)
        };
        let bounds = series.bounds()?;
        let newest = bounds.map(|(_, last)| last);
        Ok(SeriesInfo {
            name: name.to_string(),
            rows: series.count()?,
            first: bounds.map(|(first, _)| first),
            last: bounds.map(|(_, last)| last),
            segments,
            segment_bytes,
            young_runs,
            deletes,
            appended_bytes,
            written_bytes,
            horizon,
            definition: SeriesDefinition { name: name.to_string(), rules },
            kept_from: newest.and_then(|newest| rules.kept_from(now, newest)),
        })
    }

    /// The contents of a cell; `None` where it has none.
    ///
    /// # Errors
    /// [`ReadError::UnknownSlot`]; [`ReadError::Key`] where a key value is null, NaN or bytes; [`ReadError::Graph`] where the
    /// key has not a value of its type for each cell key of the slot; [`ReadError::Storage`], [`ReadError::MissingObject`] or [`ReadError::Contents`] where the contents are
    /// damaged or cannot be read.
    pub fn slot<V: Into<Value>>(
        &self,
        slot: &str,
        date: impl Into<SlotDate>,
        key: impl IntoIterator<Item = V>,
    ) -> Result<Option<Cell>, ReadError> {
        let key = Key::new(key.into_iter().map(Into::into).collect())?;
        let found = {
            let state = self.base().state();
            cell_of(&state, slot, date.into(), &key)?.1
        };
        found.map_or(Ok(None), |cell| self.cell(cell))
    }

    /// A cell with its rows; `None` where it has none.
    pub(crate) fn cell(&self, cell: CellId) -> Result<Option<Cell>, ReadError> {
        let found = {
            let state = self.base().state();
            state
                .cell_at(cell, self.seq())
                .and_then(|version| Some((version, version.content?, state.graph.cell_info(cell)?)))
        };
        let Some((version, content, info)) = found else { return Ok(None) };
        let blob = self.base().objects.get(&content)?;
        let rows = content::decode(&blob)
            .map_err(|what| ReadError::Contents { object: content.to_string(), what })?;
        Ok(Some(Cell { rows, generation: version.g, seq: version.seq, info }))
    }

    /// The newest version of the model with this metadata or identity; `None` where there is none. The metadata's
    /// `timestamp`, `name` and `tags` do not matter and may be missing.
    ///
    /// # Errors
    /// [`ReadError::Metadata`] where the metadata has no identity, as [`Metadata::id`](crate::Metadata::id) says;
    /// [`ReadError::Storage`] or [`ReadError::MissingObject`] where the blob is damaged or cannot be read.
    pub fn model(&self, model: &impl ModelName) -> Result<Option<Model>, ReadError> {
        let id = model.model_id()?;
        let found = {
            let state = self.base().state();
            state.models.newest(&id, self.seq()).cloned()
        };
        found.map(|version| self.lend(ModelInfo::new(id, version))).transpose()
    }

    /// A version with its blob.
    pub(crate) fn lend(&self, info: ModelInfo) -> Result<Model, ReadError> {
        let content = info.lend(&self.base().objects)?;
        Ok(Model::new(info, content))
    }

    /// A variable; `None` where it was never set, or removed.
    ///
    /// # Errors
    /// [`ReadError::Name`] where no variable may have such a scope or name.
    pub fn variable(&self, scope: &Scope, name: &str) -> Result<Option<Variable>, ReadError> {
        let name = Name::new(scope, name);
        if let Some((what, name, problem)) = name.problem() {
            return Err(ReadError::Name { what, name, problem });
        }
        Ok(self.base().state().variables.at(&name, self.seq()))
    }

    /// All variables, by scope and name.
    pub fn variables(&self) -> Vec<Variable> {
        self.base().state().variables.all_at(self.seq())
    }
}

/// The slot of this name.
/// The slot, and its cell with this key, if that was ever made.
pub(crate) fn cell_of(
    state: &State,
    slot: &str,
    date: SlotDate,
    key: &Key,
) -> Result<(SlotId, Option<CellId>), ReadError> {
    let slot = slot_of(state, slot)?;
    state.graph.check_key(slot, key)?;
    Ok((slot, state.graph.cell(slot, date, key)))
}

pub(crate) fn slot_of(state: &State, slot: &str) -> Result<SlotId, ReadError> {
    state.graph.slot_by_name(slot).ok_or_else(|| ReadError::UnknownSlot { slot: slot.to_string() })
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, OnceLock, Weak};

    use underbelly_storage::disk::{SharedDisk, SimulatedDisk};

    use super::*;
    use crate::objects::Objects;
    use crate::pool::Threads;
    use crate::view::BlobLimits;

    /// A seq that was looked at and not pinned yet would be one that a checkpoint does not know of.
    #[test]
    fn nobody_asks_who_reads_between_the_look_and_the_pin() {
        let own: Arc<OnceLock<Weak<Base>>> = Arc::default();
        let seq = |seq: u64| {
            let own = own.clone();
            move || {
                let base = own.get().and_then(Weak::upgrade);
                assert!(base.is_some_and(|base| base.readers.try_lock().is_err()), "the lock is held");
                seq
            }
        };
        let disk: SharedDisk = Arc::new(SimulatedDisk::new());
        let base = Arc::new(Base {
            objects: Objects::new(disk.clone(), [0; 16]),
            disk,
            database: [0; 16],
            state: Mutex::new(State::new()),
            attributes: Default::default(),
            index_models_min: usize::MAX,
            blob_limits: BlobLimits { small_max: 1 << 20, chunk_bytes: 8 << 20 },
            threads: Threads(1),
            memory_bytes: std::sync::atomic::AtomicU64::new(u64::MAX),
            readers: Mutex::default(),
            visible: Box::new(seq(7)),
            told: Box::new(seq(5)),
            _pin: None,
        });
        assert!(own.set(Arc::downgrade(&base)).is_ok());
        let (now, told) = (Snapshot::now(&base), Snapshot::told(&base));
        assert_eq!((now.seq(), told.seq()), (7, 5));
        assert_eq!(base.oldest_snapshot(), Some(5));
        drop(told);
        assert_eq!(base.oldest_snapshot(), Some(7));
    }
}
