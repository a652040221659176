//! The applied head: what the database is after the last sequenced transaction.
//!
//! Guarded by one mutex, which is never held over I/O or user code. [`State::check`] says everything that could
//! be refused; [`State::apply`] then cannot fail half-way.

use underbelly_storage::Timestamp;
use underbelly_storage::object::ObjectId;

use crate::error::CommitError;
use crate::graph::{CellId, Effects, Graph};
use crate::models::{Models, Version};
use crate::operations::{Operations, Rows};
use crate::record::v1::SegmentRef;
use crate::series::{SegmentRun, Table, Tables, check_append};

/// The contents of a cell from a commit on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CellVersion {
    pub seq: u64,
    pub g: u64,
    pub content: Option<ObjectId>,
}

/// The applied head.
pub(crate) struct State {
    pub graph: Graph,
    pub tables: Tables,
    /// Versions of each cell that some reader may still see, oldest first, by the cell's number.
    pub cells: Vec<Vec<CellVersion>>,
    pub models: Models,
    /// The seq of the last applied transaction.
    pub head: u64,
    /// Its commit time.
    pub time: Timestamp,
    /// The number of the next run.
    pub next_run: u64,
}

impl State {
    pub(crate) fn new() -> State {
        State {
            graph: Graph::new(),
            tables: Tables::new(),
            cells: Vec::new(),
            models: Models::default(),
            head: 0,
            time: Timestamp::MIN,
            next_run: 1,
        }
    }

    /// Says what [`State::apply`] would refuse.
    pub(crate) fn check(&self, operations: &Operations) -> Result<(), CommitError> {
        for append in &operations.appends {
            let table = self.tables.get(&*append.series);
            check_append(table, &append.series, append.columns().into_iter(), &append.inexact)?;
        }
        if let Some(event) = &operations.event {
            self.graph.check(event)?;
        }
        Ok(())
    }

    /// Applies a transaction that was checked. Versions that only readers before `oldest_seq` need are dropped.
    pub(crate) fn apply(
        &mut self,
        seq: u64,
        time: Timestamp,
        operations: Operations,
        oldest_seq: u64,
    ) -> Result<Effects, CommitError> {
        let mut runs = Vec::with_capacity(operations.appends.len());
        for append in operations.appends {
            let columns: Vec<_> =
                append.columns().into_iter().map(|(name, t, key)| (name.to_string(), t, key)).collect();
            let run = match append.rows {
                Rows::Inline { run, .. } => Run::Young(run.with_seq(seq)),
                Rows::Segment { segment, reference } => {
                    Run::Sealed(SegmentRun::new(segment, SegmentRef { seq, ..reference }))
                }
            };
            runs.push((append.series, columns, append.inexact, run));
        }
        let effects = match &operations.event {
            Some(event) => self.graph.apply(seq, time, event)?,
            None => Effects::default(),
        };
        for (series, columns, inexact, run) in runs {
            let table: &mut Table = self.tables.entry(series).or_insert_with(|| Table::made_at(seq));
            table.adopt(seq, columns.iter().map(|(name, t, key)| (name.as_str(), *t, *key)));
            table.note_inexact(inexact);
            match run {
                Run::Young(run) => table.push_young(seq, run),
                Run::Sealed(run) => table.push_segment(seq, run.into()),
            }
        }
        for put in operations.models {
            let version = Version {
                seq,
                metadata: put.metadata,
                cbor: put.cbor,
                timestamp: put.timestamp,
                object: put.object,
                bytes: put.bytes,
            };
            self.models.push(put.id, version);
        }
        for (cell, content, g) in &effects.contents {
            self.push_version(*cell, CellVersion { seq, g: *g, content: content.map(ObjectId) }, oldest_seq);
        }
        if let Some(started) = &effects.started {
            self.next_run = self.next_run.max(started.run.0 + 1);
        }
        self.head = seq;
        self.time = time;
        Ok(effects)
    }

    /// Drops versions of cells that only readers before `oldest_seq` would need.
    pub(crate) fn drop_versions(&mut self, oldest_seq: u64) {
        for versions in &mut self.cells {
            let needed = versions.partition_point(|v| v.seq <= oldest_seq).saturating_sub(1);
            versions.drain(..needed);
        }
    }

    fn push_version(&mut self, cell: CellId, version: CellVersion, oldest_seq: u64) {
        let at = cell.0 as usize;
        if self.cells.len() <= at {
            self.cells.resize_with(at + 1, Vec::new);
        }
        let versions = &mut self.cells[at];
        if versions.last().is_some_and(|last| last.seq == version.seq) {
            versions.pop();
        }
        versions.push(version);
        let needed = versions.partition_point(|v| v.seq <= oldest_seq).saturating_sub(1);
        versions.drain(..needed);
    }

    /// What a reader at `seq` sees in a cell; `None` where it saw nothing yet.
    pub(crate) fn cell_at(&self, cell: CellId, seq: u64) -> Option<CellVersion> {
        let versions = self.cells.get(cell.0 as usize)?;
        versions.get(versions.partition_point(|v| v.seq <= seq).checked_sub(1)?).copied()
    }
}

enum Run {
    Young(underbelly_query::MemoryRun),
    Sealed(SegmentRun),
}
