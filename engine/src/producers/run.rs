//! What a producer's closure is given and gives back.

use std::collections::BTreeMap;
use std::sync::Arc;

use underbelly_storage::{Columns, Timestamp, Value};

use crate::batch::{Batch, Row};
use crate::error::{CommitError, ReadError};
use crate::graph::{ContentId, Key, RunId, SlotDate};
use crate::models::Metadata;
use crate::slots::content;
use crate::snapshot::Snapshot;
use underbelly_storage::object::ObjectId;

/// One run of a producer over one bundle. All inputs belong to one snapshot.
pub struct Run {
    pub(crate) id: RunId,
    pub(crate) producer: String,
    pub(crate) date: SlotDate,
    pub(crate) key: Key,
    pub(crate) key_columns: Vec<String>,
    pub(crate) inputs: Vec<(String, Vec<InputCell>)>,
    pub(crate) snapshot: Snapshot,
}

/// A cell that a run reads.
#[derive(Clone)]
pub struct InputCell {
    pub(crate) key: Key,
    pub(crate) key_columns: Arc<[String]>,
    pub(crate) generation: u64,
    pub(crate) content: ContentId,
    pub(crate) snapshot: Snapshot,
}

impl InputCell {
    /// The value of one of its cell keys.
    pub fn key(&self, column: &str) -> Option<&Value> {
        let at = self.key_columns.iter().position(|name| name == column)?;
        self.key.values().get(at)
    }

    /// Its whole key.
    pub fn whole_key(&self) -> &Key {
        &self.key
    }

    /// The generation that is read.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Its rows: row keys, then values, sorted by row key.
    ///
    /// # Errors
    /// [`ReadError::Storage`], [`ReadError::MissingObject`] or [`ReadError::Contents`] where the contents are
    /// damaged or cannot be read.
    pub fn rows(&self) -> Result<Columns, ReadError> {
        let object = ObjectId(self.content);
        let blob = self.snapshot.base().objects.get(&object)?;
        content::decode(&blob).map_err(|what| ReadError::Contents { object: object.to_string(), what })
    }
}

impl Run {
    /// The run's unique number, which the history of runs calls `pid`.
    pub fn id(&self) -> RunId {
        self.id
    }

    /// The producer's name.
    pub fn producer(&self) -> &str {
        &self.producer
    }

    /// The date that it works on.
    pub fn date(&self) -> SlotDate {
        self.date
    }

    /// The value of one of the bundle's key columns.
    pub fn key(&self, column: &str) -> Option<&Value> {
        let at = self.key_columns.iter().position(|name| name == column)?;
        self.key.values().get(at)
    }

    /// The bundle's whole key.
    pub fn whole_key(&self) -> &Key {
        &self.key
    }

    /// Everything else as of the same moment. What is read here is no recorded dependency.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The rows of the one cell of an input, which has the slot's name or its alias. Of a grouped input, use [`Run::inputs`].
    ///
    /// # Errors
    /// [`ReadError::UnknownInput`] where this run has no such input, [`ReadError::SeveralCells`] where it has not
    /// exactly one cell here; and as [`InputCell::rows`].
    pub fn input(&self, name: &str) -> Result<Columns, ReadError> {
        match self.inputs(name)? {
            [cell] => cell.rows(),
            cells => Err(ReadError::SeveralCells { slot: name.to_string(), cells: cells.len() }),
        }
    }

    /// The rows of the one cell of an input, or `None` where it has none here: an optional input that is not there.
    ///
    /// # Errors
    /// As [`Run::input`], but for an input without a cell.
    pub fn optional(&self, name: &str) -> Result<Option<Columns>, ReadError> {
        match self.inputs(name)? {
            [] => Ok(None),
            _ => self.input(name).map(Some),
        }
    }

    /// All cells of an input, in order of their keys: one, or those of the group for a grouped producer; none of an optional
    /// one that is not there.
    ///
    /// # Errors
    /// [`ReadError::UnknownInput`] where this run has no such input.
    pub fn inputs(&self, name: &str) -> Result<&[InputCell], ReadError> {
        let found = self.inputs.iter().find(|(own, _)| own == name);
        found.map(|(_, cells)| cells.as_slice()).ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, slot: &str) -> ReadError {
        let inputs = self.inputs.iter().map(|(name, _)| name.clone()).collect();
        ReadError::UnknownInput { slot: slot.to_string(), inputs }
    }
}

/// What a run produces: cells, and with them rows and models, in one transaction with the end of the run.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    pub(crate) cells: Vec<(String, CellAddress, OutputResult)>,
    pub(crate) batch: Batch,
}

/// What a run gives for one output.
#[derive(Clone, Debug)]
pub(crate) enum OutputResult {
    Data(Columns),
    Error(String),
}

/// Where an output goes.
#[derive(Clone, Debug)]
pub(crate) enum CellAddress {
    /// The cell with the bundle's own key.
    Bundle,
    /// Key columns by name; those left out are the bundle's.
    Named(BTreeMap<String, Value>),
}

impl CellAddress {
    fn named<V: Into<Value>>(key: impl IntoIterator<Item = (&'static str, V)>) -> CellAddress {
        CellAddress::Named(key.into_iter().map(|(name, value)| (name.to_string(), value.into())).collect())
    }
}

impl Outputs {
    /// No outputs yet.
    pub fn new() -> Outputs {
        Outputs::default()
    }

    /// Puts the rows of the cell with the bundle's own date and key.
    pub fn put(mut self, slot: &str, rows: Columns) -> Outputs {
        self.cells.push((slot.to_string(), CellAddress::Bundle, OutputResult::Data(rows)));
        self
    }

    /// Says that the cell with the bundle's own date and key could not be made, while the other outputs could: it is
    /// invalid, and its last good data stays readable. A text that is too long is cut.
    pub fn fail(mut self, slot: &str, error: impl Into<String>) -> Outputs {
        self.cells.push((slot.to_string(), CellAddress::Bundle, OutputResult::Error(error.into())));
        self
    }

    /// Says that a cell whose key extends the bundle's could not be made. See [`Outputs::fail`] and [`Outputs::put_at`].
    pub fn fail_at<V: Into<Value>>(
        mut self,
        slot: &str,
        key: impl IntoIterator<Item = (&'static str, V)>,
        error: impl Into<String>,
    ) -> Outputs {
        let result = OutputResult::Error(error.into());
        self.cells.push((slot.to_string(), CellAddress::named(key), result));
        self
    }

    /// Puts the rows of a cell whose key extends the bundle's: key columns that are not named are the bundle's.
    pub fn put_at<V: Into<Value>>(
        mut self,
        slot: &str,
        key: impl IntoIterator<Item = (&'static str, V)>,
        rows: Columns,
    ) -> Outputs {
        self.cells.push((slot.to_string(), CellAddress::named(key), OutputResult::Data(rows)));
        self
    }

    /// Puts a version of a model. The metadata needs `type` and `timestamp`.
    pub fn put_model(mut self, metadata: Metadata, blob: impl Into<Vec<u8>>) -> Outputs {
        self.batch.put_model(metadata, blob);
        self
    }

    /// Appends a row to a series.
    ///
    /// # Errors
    /// As [`Batch::append`]; the outputs so far are dropped.
    pub fn append(mut self, row: Row) -> Result<Outputs, CommitError> {
        self.batch.append(row)?;
        Ok(self)
    }

    /// Appends rows to a series. See [`Batch::append_columns`].
    ///
    /// # Errors
    /// As [`Batch::append_columns`]; the outputs so far are dropped.
    pub fn append_columns(
        mut self,
        series: impl Into<Arc<str>>,
        timestamps: Vec<Timestamp>,
        columns: Columns,
        keys: &[&str],
    ) -> Result<Outputs, CommitError> {
        self.batch.append_columns(series, timestamps, columns, keys)?;
        Ok(self)
    }
}
