//! What a producer is given.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use underbelly_protocol::message::{BundleRun, InputCells, KeyFields, Metadata, ModelVersion, Span};
use underbelly_protocol::rows;
use underbelly_storage::{Columns, Value};

use crate::outputs::Failure;

/// One run over one bundle. All inputs belong to one snapshot.
#[derive(Debug)]
pub struct Run {
    pid: u64,
    attempts: u32,
    producer: Arc<str>,
    date: Value,
    key: BTreeMap<String, Value>,
    inputs: Vec<(String, Vec<Cell>)>,
    cancelled: Arc<AtomicBool>,
}

/// A cell that a run reads.
#[derive(Clone, Debug)]
pub struct Cell {
    key: BTreeMap<String, Value>,
    generation: u64,
    span: Span,
    model: Option<ModelVersion>,
    data: Arc<Vec<u8>>,
}

/// The version of a model that a run reads, which newer ones do not change.
#[derive(Clone, Copy, Debug)]
pub struct Model<'a> {
    version: &'a ModelVersion,
    blob: &'a [u8],
}

impl<'a> Model<'a> {
    /// The model's identity, in hexadecimal digits.
    pub fn id(&self) -> &'a str {
        &self.version.id
    }

    /// The version's number.
    pub fn version(&self) -> u64 {
        self.version.version
    }

    /// The hash of the blob, in hexadecimal digits: the same for the same bytes, cut into the same chunks.
    pub fn content(&self) -> &'a str {
        &self.version.content
    }

    /// The whole dict that was put with it. Bytes, and instants within lists and dicts, are text there.
    pub fn metadata(&self) -> &'a Metadata {
        &self.version.metadata
    }

    /// Its bytes.
    pub fn blob(&self) -> &'a [u8] {
        self.blob
    }
}

fn values(fields: KeyFields) -> BTreeMap<String, Value> {
    fields.into_iter().map(|(name, field)| (name, field.0)).collect()
}

impl Cell {
    /// The value of one of its cell keys.
    pub fn key(&self, column: &str) -> Option<&Value> {
        self.key.get(column)
    }

    /// The generation that is read.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Its rows: row keys, then values, sorted by row key.
    ///
    /// # Errors
    /// [`Failure::Fatal`] where they cannot be read.
    pub fn rows(&self) -> Result<Columns, Failure> {
        Ok(rows::decode(self.span.of(&self.data)?)?)
    }

    /// The version that the cell of a slot of models says, with its blob.
    ///
    /// # Errors
    /// [`Failure::Fatal`] where the slot is not one of models.
    pub fn model(&self) -> Result<Model<'_>, Failure> {
        let none =
            || Failure::fatal("its slot is not one of models; define it with `SlotDefinition::models`");
        let version = self.model.as_ref().ok_or_else(none)?;
        Ok(Model { version, blob: version.blob.of(&self.data)? })
    }
}

impl Run {
    pub(crate) fn new(
        run: BundleRun,
        producer: &Arc<str>,
        data: &Arc<Vec<u8>>,
        cancelled: Arc<AtomicBool>,
    ) -> Run {
        let cells = |input: InputCells| {
            let cells = input.cells.into_iter().map(|cell| Cell {
                key: values(cell.key),
                generation: cell.generation,
                span: cell.rows,
                model: cell.model,
                data: data.clone(),
            });
            (input.input, cells.collect())
        };
        Run {
            pid: run.pid,
            attempts: run.attempts,
            producer: producer.clone(),
            date: run.date.0,
            key: values(run.key),
            inputs: run.inputs.into_iter().map(cells).collect(),
            cancelled,
        }
    }

    /// The run's unique number.
    pub fn pid(&self) -> u64 {
        self.pid
    }

    /// Failures in a row before it: 0 at first.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The producer's name.
    pub fn producer(&self) -> &str {
        &self.producer
    }

    /// The date that it works on: a [`Value::Date`] or a [`Value::Timestamp`].
    pub fn date(&self) -> &Value {
        &self.date
    }

    /// The value of one of the bundle's key columns.
    pub fn key(&self, column: &str) -> Option<&Value> {
        self.key.get(column)
    }

    /// All cells of an input, in order of their keys.
    ///
    /// # Errors
    /// [`Failure::Fatal`] where there is no such input.
    pub fn inputs(&self, name: &str) -> Result<&[Cell], Failure> {
        let found = self.inputs.iter().find(|(own, _)| own == name);
        found.map(|(_, cells)| cells.as_slice()).ok_or_else(|| {
            let known: Vec<&str> = self.inputs.iter().map(|(own, _)| own.as_str()).collect();
            Failure::fatal(format!("the run has no input {name:?}; its inputs are {}", known.join(", ")))
        })
    }

    /// The rows of the one cell of an input.
    ///
    /// # Errors
    /// [`Failure::Fatal`] where there is no such input, where it has not exactly one cell, or where that cannot be read.
    pub fn input(&self, name: &str) -> Result<Columns, Failure> {
        self.only(name)?.rows()
    }

    /// The model that is the one cell of an input, with its blob.
    ///
    /// # Errors
    /// As [`Run::input`] and [`Cell::model`].
    pub fn model(&self, name: &str) -> Result<Model<'_>, Failure> {
        self.only(name)?.model()
    }

    /// The one cell of an input.
    fn only(&self, name: &str) -> Result<&Cell, Failure> {
        match self.inputs(name)? {
            [cell] => Ok(cell),
            cells => Err(Failure::fatal(format!("input {name:?} has {} cells; use `inputs`", cells.len()))),
        }
    }

    /// The rows of the one cell of an input, or `None` where it has none.
    ///
    /// # Errors
    /// As [`Run::input`], but for an input without a cell.
    pub fn optional(&self, name: &str) -> Result<Option<Columns>, Failure> {
        match self.inputs(name)? {
            [] => Ok(None),
            _ => self.input(name).map(Some),
        }
    }

    /// Whether what it gives is not wanted any more.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}
