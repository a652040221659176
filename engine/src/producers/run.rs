//! What a producer's closure is given and gives back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use underbelly_storage::{Columns, LogicalTypes, Timestamp, Value};

use crate::batch::{Batch, Row};
use crate::error::{CommitError, ReadError};
use crate::graph::{ContentId, GraphError, Key, Read, RunId, SlotDate};
use crate::models::{Metadata, Model, StoredBlob};
use crate::slots::content;
use crate::snapshot::{Cell, Snapshot, cell_of, slot_of};
use underbelly_storage::object::ObjectId;

/// One run of a producer over one bundle. All inputs belong to one snapshot.
pub struct Run {
    pub(crate) id: RunId,
    pub(crate) attempts: u32,
    pub(crate) producer: Arc<str>,
    pub(crate) date: SlotDate,
    pub(crate) key: Key,
    pub(crate) key_columns: Arc<[String]>,
    pub(crate) inputs: Vec<(String, Vec<InputCell>)>,
    pub(crate) snapshot: Snapshot,
    /// What it has read beside its inputs.
    pub(crate) reads: Mutex<Vec<Read>>,
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

impl InputCell {
    /// The version that the cell of a slot of models says, with its blob. See [`SlotDefinition::models`](crate::SlotDefinition::models).
    ///
    /// # Errors
    /// As [`InputCell::rows`]; [`ReadError::NoModel`] where the slot is not one of models, or the version is deleted.
    pub fn model(&self) -> Result<Model, ReadError> {
        self.snapshot.model_of_cell(&self.rows()?)
    }
}

impl Run {
    /// Whether it has read something beside its inputs that is recorded.
    pub(crate) fn has_reported(&self) -> bool {
        !self.reads.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The run's unique number, which the history of runs calls `pid`.
    pub fn id(&self) -> RunId {
        self.id
    }

    /// Failures in a row before it: 0 at first. See [`Failure::retry`](crate::Failure::retry).
    pub fn attempts(&self) -> u32 {
        self.attempts
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

    /// Everything else as of the same moment. What is read here is no recorded dependency; see [`Run::read`] and
    /// [`Run::scan`].
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The rows of the one cell of an input, which has the slot's name or its alias. Of a grouped input, use [`Run::inputs`].
    ///
    /// # Errors
    /// [`ReadError::UnknownInput`] where this run has no such input, [`ReadError::SeveralCells`] where it has not
    /// exactly one cell here; and as [`InputCell::rows`].
    pub fn input(&self, name: &str) -> Result<Columns, ReadError> {
        self.only(name)?.rows()
    }

    /// The model that is the one cell of an input, with its blob. See [`SlotDefinition::models`](crate::SlotDefinition::models).
    ///
    /// # Errors
    /// As [`Run::input`] and [`InputCell::model`].
    pub fn model(&self, name: &str) -> Result<Model, ReadError> {
        self.only(name)?.model()
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

    /// Reads any cell as of the run's snapshot, and makes the run depend on it: it runs again where the cell comes, changes or
    /// goes, until a later run does not read it. `None` where it has no data; that is a dependency too.
    ///
    /// A run that reads what is made of its own outputs fails with [`GraphError::CellCycle`](crate::GraphError::CellCycle).
    ///
    /// # Errors
    /// [`ReadError::UnknownSlot`]; [`ReadError::Key`] where a value is null, NaN or bytes; [`ReadError::Graph`] where the key
    /// has not a value of its type for each cell key of the slot; and as [`InputCell::rows`].
    pub fn read<V: Into<Value>>(
        &self,
        slot: &str,
        date: impl Into<SlotDate>,
        key: impl IntoIterator<Item = V>,
    ) -> Result<Option<Cell>, ReadError> {
        let (date, key) = (date.into(), Key::new(key.into_iter().map(Into::into).collect())?);
        let (slot, found) = {
            let state = self.snapshot.base().state();
            cell_of(&state, slot, date, &key)?
        };
        let cell = found.map_or(Ok(None), |cell| self.snapshot.cell(cell))?;
        let g = cell.as_ref().map(|cell| cell.generation);
        self.report([Read::Cell { slot, date, key, g }]);
        Ok(cell)
    }

    /// Reads all cells of a slot and date that have these values in these cell keys, all of the date where none is named, as
    /// [`Run::read`] reads one: the run depends on each of them, and on which there are.
    ///
    /// # Errors
    /// As [`Run::read`]; [`ReadError::UnknownColumn`] where a name is no cell key of the slot.
    pub fn scan<V: Into<Value>>(
        &self,
        slot: &str,
        date: impl Into<SlotDate>,
        key: impl IntoIterator<Item = (&'static str, V)>,
    ) -> Result<Vec<Cell>, ReadError> {
        let date = date.into();
        let (id, columns, key, found) = {
            let state = self.snapshot.base().state();
            let id = slot_of(&state, slot)?;
            let keys = state.graph.slot(id).map_or(&[][..], |slot| &slot.cell_keys);
            let mut named: BTreeMap<u16, Value> = BTreeMap::new();
            for (name, value) in key {
                let at = (0..).zip(keys).find(|(_, (key, _))| key == name);
                let unknown =
                    || ReadError::UnknownColumn { slot: slot.to_string(), column: name.to_string() };
                let (at, (column, expected)) = at.ok_or_else(unknown)?;
                let value: Value = value.into();
                if let Some(found) = value.column_type().filter(|found| found != expected) {
                    let (slot, column, expected) = (slot.to_string(), column.clone(), *expected);
                    let key = Key::new(vec![value])?;
                    return Err(GraphError::KeyType { slot, key, column, expected, found }.into());
                }
                named.insert(at, value);
            }
            let (columns, values): (Vec<u16>, Vec<Value>) = named.into_iter().unzip();
            let key = Key::new(values)?;
            let found = state.graph.cells_with(id, date, &columns, &key);
            (id, columns, key, found)
        };
        let mut cells = Vec::with_capacity(found.len());
        for cell in found {
            cells.extend(self.snapshot.cell(cell)?);
        }
        cells.sort_by(|a, b| a.info.key.cmp(&b.info.key));
        self.report(cells.iter().map(|cell| {
            let (key, g) = (cell.info.key.clone(), Some(cell.generation));
            Read::Cell { slot: id, date, key, g }
        }));
        self.report([Read::Scan { slot: id, date, columns, key }]);
        Ok(cells)
    }

    /// The one cell of an input.
    fn only(&self, name: &str) -> Result<&InputCell, ReadError> {
        match self.inputs(name)? {
            [cell] => Ok(cell),
            cells => Err(ReadError::SeveralCells { slot: name.to_string(), cells: cells.len() }),
        }
    }

    pub(super) fn report(&self, reads: impl IntoIterator<Item = Read>) {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).extend(reads);
    }

    /// What it has read beside its inputs.
    pub(crate) fn reported(&self) -> Vec<Read> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn unknown(&self, slot: &str) -> ReadError {
        let inputs = self.inputs.iter().map(|(name, _)| name.clone()).collect();
        ReadError::UnknownInput { slot: slot.to_string(), inputs }
    }
}

/// What a run produces: cells, and with them rows and models, in one transaction with the end of the run.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    pub(crate) cells: Vec<OutputCell>,
    /// A use was named before any output.
    pub(crate) stray_use: bool,
    pub(crate) batch: Batch,
}

/// One output.
#[derive(Clone, Debug)]
pub(crate) struct OutputCell {
    pub slot: String,
    pub address: CellAddress,
    pub result: OutputResult,
    /// The inputs on which it rests, by name, and of which only the cells with these keys; `None` for all.
    pub uses: Option<Vec<(String, Option<Key>)>>,
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
    /// Whether it is cells alone, which rest on all that the run read.
    pub(crate) fn is_plain(&self) -> bool {
        !self.stray_use && self.batch.is_empty() && self.cells.iter().all(|cell| cell.uses.is_none())
    }

    /// Bytes of its cells, about.
    pub(crate) fn bytes(&self) -> usize {
        let bytes = |cell: &OutputCell| match &cell.result {
            OutputResult::Data(rows) => rows.byte_size(),
            OutputResult::Error(text) => text.len(),
        };
        self.cells.iter().map(bytes).sum()
    }

    /// No outputs yet.
    pub fn new() -> Outputs {
        Outputs::default()
    }

    fn give(mut self, slot: &str, address: CellAddress, result: OutputResult) -> Outputs {
        self.cells.push(OutputCell { slot: slot.to_string(), address, result, uses: None });
        self
    }

    /// Says that the output given last rests on these inputs alone, by their names, and not on all that the run read: where
    /// another input changes or goes, it stays as it is until the run that follows. May be said again, which adds to it.
    pub fn uses<'a>(mut self, inputs: impl IntoIterator<Item = &'a str>) -> Outputs {
        match self.cells.last_mut() {
            Some(output) => {
                let uses = inputs.into_iter().map(|input| (input.to_string(), None));
                output.uses.get_or_insert_default().extend(uses);
            }
            None => self.stray_use = true,
        }
        self
    }

    /// Says that the output given last rests on this cell of an input, of those that a grouped input has. See [`Outputs::uses`].
    pub fn uses_cell(mut self, input: &str, cell: &InputCell) -> Outputs {
        match self.cells.last_mut() {
            Some(output) => {
                output.uses.get_or_insert_default().push((input.to_string(), Some(cell.key.clone())));
            }
            None => self.stray_use = true,
        }
        self
    }

    /// Puts the rows of the cell with the bundle's own date and key.
    pub fn put(self, slot: &str, rows: Columns) -> Outputs {
        self.give(slot, CellAddress::Bundle, OutputResult::Data(rows))
    }

    /// Says that the cell with the bundle's own date and key could not be made, while the other outputs could: it is
    /// invalid, and its last good data stays readable. A text that is too long is cut.
    pub fn fail(self, slot: &str, error: impl Into<String>) -> Outputs {
        self.give(slot, CellAddress::Bundle, OutputResult::Error(error.into()))
    }

    /// Says that a cell whose key extends the bundle's could not be made. See [`Outputs::fail`] and [`Outputs::put_at`].
    pub fn fail_at<V: Into<Value>>(
        self,
        slot: &str,
        key: impl IntoIterator<Item = (&'static str, V)>,
        error: impl Into<String>,
    ) -> Outputs {
        let result = OutputResult::Error(error.into());
        self.give(slot, CellAddress::named(key), result)
    }

    /// Puts the rows of a cell whose key extends the bundle's: key columns that are not named are the bundle's.
    pub fn put_at<V: Into<Value>>(
        self,
        slot: &str,
        key: impl IntoIterator<Item = (&'static str, V)>,
        rows: Columns,
    ) -> Outputs {
        self.give(slot, CellAddress::named(key), OutputResult::Data(rows))
    }

    /// Puts a version of a model. The metadata needs `type` and `timestamp`. Where the type is a slot of models, which the producer
    /// provides then, it is the content of the cell of the bundle's date and of the attributes that are its keys.
    pub fn put_model(mut self, metadata: Metadata, blob: impl Into<Vec<u8>>) -> Outputs {
        self.batch.put_model(metadata, blob);
        self
    }

    /// Puts a version of a model whose blob was written ahead. See [`Batch::put_model_stored`].
    pub fn put_model_stored(mut self, metadata: Metadata, blob: &StoredBlob) -> Outputs {
        self.batch.put_model_stored(metadata, blob);
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

    /// Appends rows to a series, of which some columns are decimals or of a zone. See [`Batch::append_typed`].
    ///
    /// # Errors
    /// As [`Batch::append_typed`]; the outputs so far are dropped.
    pub fn append_typed(
        mut self,
        series: impl Into<Arc<str>>,
        timestamps: Vec<Timestamp>,
        columns: Columns,
        keys: &[&str],
        types: LogicalTypes,
    ) -> Result<Outputs, CommitError> {
        self.batch.append_typed(series, timestamps, columns, keys, types)?;
        Ok(self)
    }
}
