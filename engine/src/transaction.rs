//! Transactions that read before they write.

mod models;

use std::collections::HashMap;
use std::sync::Arc;

use underbelly_storage::{Columns, LogicalType, LogicalTypes, Timestamp, Value};

use self::models::Written;

use crate::batch::{Batch, Row};
use crate::core::{Commit, Core};
use crate::durability::Durability;
use crate::error::{CommitError, ReadError};
use crate::graph::{Key, SlotDate, SlotId};
use crate::limits::CONFLICT_RETRIES;
use crate::models::{MarkKind, MarkName, ModelId};
use crate::producers::run_taken;
use crate::series::{Delete, Series};
use crate::snapshot::Snapshot;
use crate::state::State;
use crate::variables::{Name, Scope, VariableValue};

/// A transaction under way: reads see one snapshot and the transaction's own writes of slots, models and variables; writes
/// are committed together if nothing that was read has changed meanwhile. Scans of series see the snapshot alone.
pub struct Transaction {
    snapshot: Snapshot,
    batch: Batch,
    written_models: HashMap<ModelId, Written>,
    reads: Vec<Read>,
}

/// Something that was read and the seq at which it was as read; 0 where it was not there.
pub(crate) enum Read {
    Cell { slot: SlotId, name: String, date: SlotDate, key: Key, seq: u64 },
    Model { id: ModelId, seq: u64 },
    Version { id: ModelId, number: u64, seq: u64 },
    Mark { id: ModelId, mark: MarkName, seq: u64 },
    Variable { name: Arc<Name>, seq: u64 },
    Series { name: String, seq: u64 },
}

impl Transaction {
    /// The snapshot that the transaction reads. Reads through it take no part in conflict detection, and do not
    /// see the transaction's own writes.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// What is written so far.
    pub(crate) fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }

    /// Sets when the commit of this transaction is answered; `Sync` unless set.
    pub fn durability(&mut self, durability: Durability) -> &mut Transaction {
        self.batch.durability(durability);
        self
    }

    /// The rows of a cell; `None` where it has none.
    ///
    /// # Errors
    /// [`CommitError::UnknownSlot`]; [`CommitError::Key`] where a key value is null, NaN or bytes;
    /// [`CommitError::Cell`] where the rows that this transaction put do not fit the slot; [`CommitError::Read`]
    /// where stored contents are damaged or cannot be read.
    pub fn slot<V: Into<Value>>(
        &mut self,
        slot: &str,
        date: impl Into<SlotDate>,
        key: impl IntoIterator<Item = V>,
    ) -> Result<Option<Columns>, CommitError> {
        let date = date.into();
        let values: Vec<Value> = key.into_iter().map(Into::into).collect();
        let key = Key::new(values.clone())?;
        let own = self.batch.cells.iter().rev().find(|put| {
            put.slot == slot && put.date == date && Key::new(put.key.clone()).is_ok_and(|own| own == key)
        });
        if let Some(put) = own {
            let (_, definition) = self.snapshot.base().slot(slot)?;
            let rows = put.rows.clone();
            return rows.map(|rows| crate::slots::content::conform(&definition, rows)).transpose();
        }
        let (slot_id, _) = self.snapshot.base().slot(slot)?;
        let cell = self.snapshot.slot(slot, date, values)?;
        let seq = {
            let state = self.snapshot.base().state();
            let cell = state.graph.cell(slot_id, date, &key);
            cell.and_then(|cell| state.cell_at(cell, self.snapshot.seq())).map_or(0, |version| version.seq)
        };
        self.reads.push(Read::Cell { slot: slot_id, name: slot.to_string(), date, key, seq });
        Ok(cell.map(|cell| cell.rows))
    }

    /// The value of a variable; `None` where it is not there.
    ///
    /// # Errors
    /// [`CommitError::Name`] where no variable may have such a scope or name.
    pub fn variable(&mut self, scope: &Scope, name: &str) -> Result<Option<VariableValue>, CommitError> {
        let name = Name::new(scope, name);
        name.check()?;
        if let Some(own) = self.batch.variables.iter().rev().find(|change| *change.name == name) {
            return Ok(own.value.clone());
        }
        let found = self.snapshot.base().state().variables.at(&name, self.snapshot.seq());
        let seq = found.as_ref().map_or(0, |variable| variable.seq);
        self.reads.push(Read::Variable { name: Arc::new(name), seq });
        Ok(found.map(|variable| variable.value))
    }

    /// A series; a commit to it by others before this one is a conflict.
    ///
    /// # Errors
    /// [`CommitError::Read`] with [`ReadError::UnknownSeries`] where the snapshot shows no series of this type.
    /// That there was none counts as read: it is a conflict if others make the series meanwhile.
    pub fn series(&mut self, name: &str) -> Result<Series, CommitError> {
        let seq = match self.snapshot.series(name) {
            Ok(_) => self.snapshot.seq(),
            Err(ReadError::UnknownSeries { .. }) => 0,
            Err(error) => return Err(error.into()),
        };
        self.reads.push(Read::Series { name: name.to_string(), seq });
        Ok(self.snapshot.series(name)?)
    }

    /// Appends a row. See [`Batch::append`].
    ///
    /// # Errors
    /// As [`Batch::append`].
    pub fn append(&mut self, row: Row) -> Result<(), CommitError> {
        self.batch.append(row).map(|_| ())
    }

    /// Appends rows. See [`Batch::append_columns`].
    ///
    /// # Errors
    /// As [`Batch::append_columns`].
    pub fn append_columns(
        &mut self,
        series: impl Into<Arc<str>>,
        timestamps: Vec<Timestamp>,
        columns: Columns,
        keys: &[&str],
    ) -> Result<(), CommitError> {
        self.batch.append_columns(series, timestamps, columns, keys).map(|_| ())
    }

    /// Appends rows of which some columns are decimals or of a zone. See [`Batch::append_typed`].
    ///
    /// # Errors
    /// As [`Batch::append_typed`].
    pub fn append_typed(
        &mut self,
        series: impl Into<Arc<str>>,
        timestamps: Vec<Timestamp>,
        columns: Columns,
        keys: &[&str],
        types: LogicalTypes,
    ) -> Result<(), CommitError> {
        self.batch.append_typed(series, timestamps, columns, keys, types).map(|_| ())
    }

    /// Says what a column of a series holds. See [`Batch::declare`].
    ///
    /// # Errors
    /// As [`Batch::declare`].
    pub fn declare(
        &mut self,
        series: impl Into<Arc<str>>,
        column: impl Into<Arc<str>>,
        logical: LogicalType,
    ) -> Result<(), CommitError> {
        self.batch.declare(series, column, logical).map(|_| ())
    }

    /// Deletes rows. See [`Batch::delete_rows`].
    pub fn delete_rows(&mut self, series: impl Into<Arc<str>>, delete: Delete) {
        self.batch.delete_rows(series, delete);
    }

    /// Puts the contents of a cell. See [`Batch::put_slot`].
    pub fn put_slot<V: Into<Value>>(
        &mut self,
        slot: &str,
        date: impl Into<SlotDate>,
        key: impl IntoIterator<Item = V>,
        rows: Columns,
    ) {
        self.batch.put_slot(slot, date, key, rows);
    }

    /// Takes back the contents of a cell. See [`Batch::retract_slot`].
    pub fn retract_slot<V: Into<Value>>(
        &mut self,
        slot: &str,
        date: impl Into<SlotDate>,
        key: impl IntoIterator<Item = V>,
    ) {
        self.batch.retract_slot(slot, date, key);
    }

    /// Sets a variable. See [`Batch::set_variable`].
    pub fn set_variable(&mut self, scope: Scope, name: &str, value: impl Into<VariableValue>) {
        self.batch.set_variable(scope, name, value);
    }

    /// Removes a variable. See [`Batch::remove_variable`].
    pub fn remove_variable(&mut self, scope: Scope, name: &str) {
        self.batch.remove_variable(scope, name);
    }

    /// Says that what it puts into slots is history. See [`Batch::backfill`].
    pub fn backfill(&mut self) {
        self.batch.backfill();
    }

    /// Says when what it puts into slots was made. See [`Batch::as_of`].
    pub fn as_of(&mut self, made: Timestamp) {
        self.batch.as_of(made);
    }

    /// Has a slot be up to date for a date by a time. See [`Batch::due_by`].
    pub fn due_by(&mut self, slot: impl Into<String>, date: impl Into<SlotDate>, due_by: Timestamp) {
        self.batch.due_by(slot, date, due_by);
    }

    /// Declares the end of a date. See [`Batch::end_of`].
    pub fn end_of(&mut self, date: impl Into<SlotDate>) {
        self.batch.end_of(date);
    }
}

impl Read {
    /// What changed since it was read, if it did.
    pub(crate) fn changed(&self, state: &State) -> Option<String> {
        match self {
            Read::Cell { slot, name, date, key, seq } => {
                let newest = state
                    .graph
                    .cell(*slot, *date, key)
                    .and_then(|cell| state.cell_at(cell, u64::MAX))
                    .map_or(0, |version| version.seq);
                (newest != *seq).then(|| format!("slot {name} {date} {key}"))
            }
            Read::Model { id, seq } => {
                let newest = state.models.newest(id, u64::MAX).map_or(0, |version| version.seq);
                (newest != *seq).then(|| format!("model {id}"))
            }
            Read::Version { id, number, seq } => {
                let found = state.models.version(id, *number, u64::MAX).map_or(0, |version| version.seq);
                (found != *seq).then(|| format!("version {number} of model {id}"))
            }
            Read::Mark { id, mark, seq } => {
                let told = state.models.marks.at(id, mark, u64::MAX).map_or(0, |told| told.place.0);
                let what = if mark.kind == MarkKind::Alias { "alias" } else { "annotation" };
                (told != *seq).then(|| format!("{what} {} of model {id}", mark.name))
            }
            Read::Variable { name, seq } => {
                let newest = state.variables.newest(name).map_or(0, |set| set.seq);
                (newest != *seq).then(|| format!("variable {name}"))
            }
            Read::Series { name, seq } => {
                let newest = state.tables.get(name.as_str()).map_or(0, |table| table.last_seq());
                (newest > *seq).then(|| format!("series {name}"))
            }
        }
    }
}

/// Runs a closure until what it read is still so when its writes are committed.
pub(crate) fn transact<T, E: From<CommitError>>(
    core: &Arc<Core>,
    mut body: impl FnMut(&mut Transaction) -> Result<T, E>,
) -> Result<(T, Option<Commit>), E> {
    let mut changed = String::new();
    for _ in 0..CONFLICT_RETRIES {
        let mut transaction = Transaction {
            snapshot: core.view.snapshot(),
            batch: Batch::new(),
            written_models: HashMap::new(),
            reads: Vec::new(),
        };
        let answer = body(&mut transaction)?;
        let Transaction { batch, reads, snapshot, .. } = transaction;
        if batch.is_empty() {
            return Ok((answer, None));
        }
        let durability = batch.durability;
        let folder = core.enter()?;
        let prepared = core.prepare(batch)?;
        let mut conflict = None;
        let mut head = 0;
        let sequenced = core.sequence_here(prepared, durability, |state| {
            conflict = reads.iter().find_map(|read| read.changed(state));
            head = state.head;
            match &conflict {
                Some(what) => Err(CommitError::Conflict { tries: CONFLICT_RETRIES, what: what.clone() }),
                None => Ok(()),
            }
        });
        drop((snapshot, folder));
        match (sequenced, conflict) {
            (Ok((commit, taken)), _) => {
                run_taken(core, taken);
                core.answer(commit.seq, durability)?;
                return Ok((answer, Some(commit)));
            }
            (Err(CommitError::Conflict { what, .. }), None) | (Err(_), Some(what)) => changed = what,
            (Err(CommitError::SeriesChanged { series }), None) => changed = format!("series {series}"),
            (Err(error), None) => return Err(error.into()),
        }
        // The next try reads what won, so it waits until that is visible.
        core.log.wait_visible(head).map_err(CommitError::from)?;
    }
    Err(CommitError::Conflict { tries: CONFLICT_RETRIES, what: changed }.into())
}
