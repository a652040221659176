//! The applied head: what the database is after the last sequenced transaction.
//!
//! Guarded by one mutex, which is never held over I/O or user code. [`State::check`] says everything that could
//! be refused; [`State::apply`] then cannot fail half-way.

use std::collections::BTreeSet;
use std::sync::Arc;

use underbelly_query::Tombstone;
use underbelly_storage::Timestamp;
use underbelly_storage::object::ObjectId;

use crate::error::{CommitError, ReadError};
use crate::feed::Recent;
use crate::graph::{CellId, Effects, Graph};
use crate::limits::DELETES_MAX;
use crate::models::{MarkChange, MarkKind, MetaValue, ModelId, Models, NEWEST, Version};
use crate::objects::{FoundAt, Objects};
use crate::operations::{Append, Deletes, Operations, Rows};
use crate::record::v1::SegmentRef;
use crate::series::{SegmentRun, Table, Tables, check_append, check_types};
use crate::variables::Variables;
use crate::versions::{CellVersion, Versions};

/// The applied head.
pub(crate) struct State {
    pub graph: Graph,
    pub tables: Tables,
    /// Contents that cells had and that some reader may still see.
    pub versions: Versions<CellId, CellVersion>,
    pub models: Models,
    pub variables: Variables,
    /// What the newest transactions changed.
    pub recent: Recent,
    /// The seq of the last applied transaction.
    pub head: u64,
    /// Its commit time.
    pub time: Timestamp,
    /// The number of the next run.
    pub next_run: u64,
    /// The number of the capture that goes on; 0 where none does.
    pub capture: u64,
}

impl State {
    pub(crate) fn new() -> State {
        State {
            graph: Graph::new(),
            tables: Tables::new(),
            versions: Versions::default(),
            models: Models::default(),
            variables: Variables::default(),
            recent: Recent::default(),
            head: 0,
            time: Timestamp::MIN,
            next_run: 1,
            capture: 0,
        }
    }

    /// Says what [`State::apply`] would refuse.
    pub(crate) fn check(&self, operations: &Operations) -> Result<(), CommitError> {
        for (series, rules) in &operations.rules {
            let known = self.tables.get(series).map(Table::rules).unwrap_or_default();
            let changed = |_| CommitError::SeriesChanged { series: series.to_string() };
            known.check_change(series, rules).map_err(changed)?;
        }
        for (series, types) in &operations.types {
            check_types(self.tables.get(series), series, types)?;
        }
        for append in &operations.appends {
            let table = self.tables.get(&*append.series);
            if !table.is_some_and(|table| append.goes_on(table)) {
                let types = append.types.as_ref();
                check_append(table, &append.series, append.columns(), &append.inexact, types)?;
            }
        }
        self.variables.check(&operations.variables)?;
        if !operations.marks.is_empty() || !operations.removed.is_empty() {
            self.models.check(operations)?;
        }
        if let Some(event) = &operations.event {
            self.graph.check(event)?;
        }
        Ok(())
    }

    /// Says whether deletes that were prepared fit series which others may have made or deleted from since, and whether appends
    /// were compared with what is there as far as the rules want that; asks for the seq of the oldest snapshot, if there is one, where they are too many. Not for a replay: a repair may have lost what
    /// made the columns, and then there is nothing to hide.
    pub(crate) fn check_since(
        &self,
        deletes: &[Deletes],
        appends: &[Append],
        oldest_snapshot: impl FnOnce() -> Option<u64>,
    ) -> Result<(), CommitError> {
        for append in appends.iter().filter(|append| !append.checked) {
            let is_to_be = |table: &Table| table.rules().checks_appends();
            if self.tables.get(&append.series).is_some_and(is_to_be) {
                return Err(CommitError::SeriesChanged { series: append.series.to_string() });
            }
        }
        for Deletes { series, tombstones, schema } in deletes {
            let Some(table) = self.tables.get(series) else { continue };
            // Where one row is shown for several, a delete hides all of an identity: else one that was superseded came back.
            if table.rules().duplicates.resolves() && tombstones.iter().any(Tombstone::is_by_values) {
                return Err(CommitError::SeriesChanged { series: series.to_string() });
            }
            let (waiting, limit) = (table.tombstones(), DELETES_MAX);
            let found = waiting.len() + tombstones.len();
            if found > limit {
                // A checkpoint makes room by those that no snapshot is older than.
                let after = |seq: u64| {
                    let after = waiting.count_after(seq);
                    (after + tombstones.len() > limit).then_some((seq, after))
                };
                let held = oldest_snapshot().and_then(after);
                return Err(CommitError::TooManyDeletes { series: series.to_string(), found, limit, held });
            }
            // Where nobody changed the columns since, they fit.
            let known = table.schema_at(u64::MAX);
            if schema.as_ref().is_none_or(|checked| !Arc::ptr_eq(checked, &known)) {
                let check = |tombstone: &Tombstone| tombstone.check(&known);
                tombstones.iter().try_for_each(check).map_err(ReadError::from)?;
            }
        }
        Ok(())
    }

    /// Applies a transaction that was checked and whose objects are stored; what stays behind in `operations` is to be
    /// dropped where nobody waits. Versions that only readers before
    /// `oldest_seq` need are dropped; it is asked where there are any.
    pub(crate) fn apply(
        &mut self,
        seq: u64,
        time: Timestamp,
        operations: &mut Operations,
        oldest_seq: impl FnOnce() -> u64,
        objects: &Objects,
    ) -> Result<Effects, CommitError> {
        let effects = match &operations.event {
            Some(event) => self.graph.apply_checked(seq, time, event)?,
            None => Effects::default(),
        };
        for (series, rules) in operations.rules.drain(..) {
            let table = self.tables.entry(series).or_insert_with(|| Table::made_at(seq));
            table.note(self.capture);
            table.define(seq, rules);
        }
        for (series, types) in operations.types.drain(..) {
            let table = self.tables.entry(series).or_insert_with(|| Table::made_at(seq));
            table.note(self.capture);
            table.declare(&types);
        }
        for Deletes { series, tombstones, .. } in &mut operations.deletes {
            // A series that a repair did not find has no rows that could be hidden.
            let Some(table) = self.tables.get_mut(series) else { continue };
            table.note(self.capture);
            tombstones.drain(..).for_each(|tombstone| table.delete(seq, tombstone));
        }
        for append in &mut operations.appends {
            self.apply_append(seq, append);
        }
        let changes = operations.variables.len() + operations.deleted_models.len() + operations.models.len();
        for id in operations.deleted_models.drain(..) {
            self.models.delete(seq, time, id);
        }
        let mut touched: BTreeSet<ModelId> = operations.models.iter().map(|put| put.id).collect();
        for put in operations.models.drain(..) {
            for object in put.objects() {
                objects.name(&object);
            }
            let version = Version {
                seq,
                position: 0,
                number: 0,
                time,
                metadata: put.metadata,
                cbor: put.cbor,
                timestamp: put.timestamp,
                object: put.object,
                found_at: FoundAt::default(),
                bytes: put.bytes,
                chunks: put.chunks,
            };
            self.models.push(put.id, version);
        }
        for MarkChange { id, mut mark, value, .. } in operations.marks.drain(..) {
            touched.insert(id);
            let newest = self.models.newest_number(&id);
            if mark.version == NEWEST {
                mark.version = newest;
            }
            let is_newest = mark.kind == MarkKind::Alias && value == Some(MetaValue::I64(-1));
            let value = if is_newest { i64::try_from(newest).ok().map(MetaValue::I64) } else { value };
            self.models.marks.set((seq, time), id, mark, value);
        }
        for (id, number) in operations.removed.drain(..) {
            self.models.remove(seq, time, id, number);
        }
        match operations.collects {
            true => self.models.retain_all(seq, time),
            false => touched.into_iter().for_each(|id| self.models.retain(seq, time, id)),
        }
        let changes = effects.superseded.len() + changes;
        let is_needed = changes > 0
            || !self.versions.is_empty()
            || self.variables.has_older()
            || self.models.has_deleted();
        let oldest_seq = if is_needed { oldest_seq() } else { seq };
        if !operations.variables.is_empty() {
            self.variables.apply(seq, time, std::mem::take(&mut operations.variables), oldest_seq);
        }
        self.name_contents(seq, &effects, oldest_seq, objects);
        self.drop_versions(oldest_seq, 8 + 2 * changes, objects);
        for started in &effects.started {
            self.next_run = self.next_run.max(started.run.0 + 1);
        }
        if self.recent.is_full() {
            self.recent.close(&mut self.tables, self.capture);
        }
        self.recent.push(seq, time, &effects.transitions, &effects.alarms);
        self.head = seq;
        self.time = time;
        Ok(effects)
    }

    fn apply_append(&mut self, seq: u64, append: &mut Append) {
        if !self.tables.contains_key(&append.series) {
            self.tables.insert(append.series.clone(), Table::made_at(seq));
        }
        let Some(table) = self.tables.get_mut(&append.series) else { return };
        table.note(self.capture);
        if append.goes_on(table)
            && let Rows::Few(few) = &mut append.rows
        {
            return table.push_few(seq, few);
        }
        table.adopt(seq, append.columns());
        table.note_inexact(std::mem::take(&mut append.inexact));
        match std::mem::take(&mut append.rows) {
            Rows::Few(mut few) => table.push_few(seq, &mut few),
            Rows::Inline { run, .. } => table.push_young(seq, run.with_seq(seq)),
            Rows::Segment { segment, reference } => {
                let reference = SegmentRef { seq, ..reference };
                table.push_segment(seq, SegmentRun::of(segment, reference, seq).into());
            }
        }
    }

    /// Counts what names contents before and after an event.
    fn name_contents(&mut self, seq: u64, effects: &Effects, oldest_seq: u64, objects: &Objects) {
        for content in &effects.held {
            objects.name(&ObjectId(*content));
        }
        // A reader before `seq` sees what a cell held before.
        for before in effects.superseded.iter().filter(|_| oldest_seq < seq) {
            if let Some(content) = &before.content {
                objects.name(&ObjectId(*content));
            }
            let content = before.content.map(ObjectId);
            self.versions.push(seq, before.cell, CellVersion { seq: before.seq, g: before.g, content });
        }
        for content in &effects.released {
            objects.unname(&ObjectId(*content));
        }
    }

    /// Drops versions of cells, variables and deleted models, at most `count` of each, that only readers before
    /// `oldest_seq` would need. False where none is left to be dropped.
    pub(crate) fn drop_versions(&mut self, oldest_seq: u64, count: usize, objects: &Objects) -> bool {
        for _ in 0..count {
            let cell = self.versions.pop(oldest_seq);
            let content = cell.as_ref().and_then(|(_, version)| version.content);
            content.iter().for_each(|content| objects.unname(content));
            let model = self.models.drop_deleted(oldest_seq);
            model.iter().flat_map(|version| version.objects()).for_each(|object| objects.unname(&object));
            if !self.variables.drop_older(oldest_seq) && cell.is_none() && model.is_none() {
                return false;
            }
        }
        true
    }

    /// What a reader at `seq` sees in a cell; `None` where it saw nothing yet.
    pub(crate) fn cell_at(&self, cell: CellId, seq: u64) -> Option<CellVersion> {
        let (changed, g, content) = self.graph.content_of(cell)?;
        if changed <= seq {
            return Some(CellVersion { seq: changed, g, content: content.map(ObjectId) });
        }
        self.versions.at(&cell, seq).copied()
    }
}
