//! Runs as messages, and answers as outputs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read as _;
use std::time::Duration;

use underbelly_protocol::limits::DATA_BYTES_MAX;
use underbelly_protocol::message::{
    BundleRun, CellRead, CellRows, InputCells, InputSlot, KeyFields, Metadata as Dict, ModelVersion, Outcome,
    OutputCell as Given, PutModel, Run as RunMessage, RunResult, SlotColumns, Span, Welcome,
};
use underbelly_protocol::{Field, ProtocolError, VERSION, rows};
use underbelly_storage::{ColumnType, Timestamp, Value};

use super::super::run::{CellAddress, InputCell, OutputCell, OutputResult, Outputs, Run};
use crate::error::{CommitError, Failure};
use crate::graph::{ContentId, Graph, Key, ProducerDefinition, Read, SlotDate, SlotDefinition};
use crate::models::{MetaValue, Metadata, MetadataError};
use crate::snapshot::slot_of;

/// At a multiple of so many bytes each part of the data begins.
const PART_ALIGNMENT: usize = 8;

/// What is said of a producer, and needed to read what its processes say.
pub(crate) struct About {
    pub welcome: Welcome,
    outputs: BTreeMap<String, SlotDefinition>,
    /// Inputs of slots of models, by their names in runs.
    models: BTreeSet<String>,
}

impl About {
    pub fn new(graph: &Graph, definition: &ProducerDefinition, heartbeat: Duration) -> About {
        let find = |name: &str| graph.slot_by_name(name).and_then(|id| graph.slot(id)).cloned();
        let found = definition.outputs.iter().filter_map(|output| find(&output.slot));
        let outputs: BTreeMap<String, SlotDefinition> = found.map(|slot| (slot.name.clone(), slot)).collect();
        let inputs: Vec<(&String, SlotDefinition)> =
            definition.inputs.iter().filter_map(|input| Some((&input.alias, find(&input.slot)?))).collect();
        let models = inputs.iter().filter(|(_, slot)| slot.is_of_models());
        let models = models.map(|(input, _)| (*input).clone()).collect();
        let inputs =
            inputs.iter().map(|(input, slot)| InputSlot { input: (*input).clone(), slot: described(slot) });
        let welcome = Welcome {
            protocol: VERSION,
            producer: definition.name.clone(),
            epoch: 0,
            last: None,
            heartbeat_ms: u64::try_from(heartbeat.as_millis()).unwrap_or(u64::MAX).max(1),
            inputs: inputs.collect(),
            outputs: outputs.values().map(described).collect(),
        };
        About { welcome, outputs, models }
    }

    /// A batch as a message, with the contents of its inputs beside it: those that several runs read are there once.
    pub fn message(&self, runs: &[Run], epoch: u64) -> Result<(RunMessage, Vec<u8>), Failure> {
        message(runs, epoch, &self.models, DATA_BYTES_MAX)
    }

    /// What a result says of a run.
    pub fn outputs(&self, run: &Run, result: RunResult, data: &[u8]) -> Result<Outputs, Failure> {
        let reads: Vec<Read> =
            result.reads.into_iter().map(|read| self.read(run, read)).collect::<Result<_, Failure>>()?;
        run.report(reads);
        match result.outcome {
            Outcome::Completed => {}
            Outcome::Declined => return Err(Failure::Declined(result.message)),
            Outcome::Retry => return Err(Failure::Retry(result.message)),
            Outcome::Rejected => return Err(Failure::Rejected(result.message)),
            Outcome::Fatal => return Err(Failure::Fatal(result.message)),
        }
        let mut outputs = Outputs::new();
        for given in result.outputs {
            outputs.cells.extend(self.output(given, data)?);
        }
        for given in result.models {
            let (metadata, blob) = model(given, data).map_err(Failure::Fatal)?;
            let model_type = metadata.model_type()?;
            if !self.outputs.get(model_type).is_some_and(SlotDefinition::is_of_models) {
                let what = "a model of this type was given, which is no slot of models that the producer provides; \
                            define one with `SlotDefinition::models`, and add it to what it provides";
                return Err(refusal(model_type, what).into());
            }
            outputs = outputs.put_model(metadata, blob);
        }
        Ok(outputs)
    }

    /// An output; none where there is neither data nor an error.
    fn output(&self, given: Given, data: &[u8]) -> Result<Option<OutputCell>, Failure> {
        let Given { slot, key, rows: span, error, uses } = given;
        let result = match (span, error) {
            (None, None) => return Ok(None),
            (_, Some(error)) => OutputResult::Error(error),
            (Some(_), None) if self.outputs.get(&slot).is_some_and(SlotDefinition::is_of_models) => {
                return Err(rows_of_models(&slot).into());
            }
            (Some(span), None) => {
                let read = span.of(data).and_then(rows::decode);
                let named = |error: ProtocolError| Failure::Fatal(format!("output {slot:?}: {error}"));
                OutputResult::Data(read.map_err(named)?)
            }
        };
        let columns = self.outputs.get(&slot).map_or(&[][..], |slot| &slot.cell_keys);
        let address = match key.is_empty() {
            true => CellAddress::Bundle,
            false => CellAddress::Named(fitted(key, columns)),
        };
        let uses = uses.map(|inputs| inputs.into_iter().map(|input| (input, None)).collect());
        Ok(Some(OutputCell { slot, address, result, uses }))
    }

    fn read(&self, run: &Run, read: CellRead) -> Result<Read, Failure> {
        let date = slot_date(&read.date).ok_or_else(|| {
            Failure::Fatal(format!("it read {:?} for {}, which is no date", read.slot, read.date.0))
        })?;
        let state = run.snapshot.base().state();
        let slot = slot_of(&state, &read.slot)?;
        let columns = state.graph.slot(slot).map_or(&[][..], |slot| &slot.cell_keys);
        let mut values = fitted(read.key, columns);
        let ordered: Option<Vec<Value>> = columns.iter().map(|(name, _)| values.remove(name)).collect();
        let ordered = ordered.filter(|_| values.is_empty()).ok_or_else(|| {
            let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
            let what = format!("it read a cell of {:?}, whose keys are {:?}, by others", read.slot, names);
            Failure::Fatal(what)
        })?;
        Ok(Read::Cell { slot, date, key: Key::new(ordered)?, g: read.generation })
    }
}

/// Key values in the types of their columns, where they fit; the engine refuses what does not.
pub(crate) fn fitted(key: KeyFields, columns: &[(String, ColumnType)]) -> BTreeMap<String, Value> {
    let fit = |(name, field): (String, Field)| {
        let column_type = columns.iter().find(|(column, _)| *column == name).map(|(_, found)| *found);
        let value = column_type.and_then(|column_type| field.fit(column_type));
        (name, value.unwrap_or(field.0))
    };
    key.into_iter().map(fit).collect()
}

pub(crate) fn slot_date(field: &Field) -> Option<SlotDate> {
    match field.0 {
        Value::Date(day) => Some(day.into()),
        Value::Timestamp(instant) => Some(instant.into()),
        _ => None,
    }
}

fn described(slot: &SlotDefinition) -> SlotColumns {
    let all = |columns: &[(String, ColumnType)]| {
        columns.iter().map(|(name, column_type)| (name.clone(), column_type.name().to_string())).collect()
    };
    SlotColumns {
        slot: slot.name.clone(),
        cell_keys: all(&slot.cell_keys),
        row_keys: all(&slot.row_keys),
        values: all(&slot.values),
    }
}

fn fields<S: AsRef<str>>(columns: &[S], key: &Key) -> KeyFields {
    let named = columns.iter().zip(key.values());
    named.map(|(name, value)| (name.as_ref().to_string(), Field(value.clone()))).collect()
}

fn refusal(slot: &str, what: &str) -> CommitError {
    CommitError::Cell { slot: slot.to_string(), what: what.to_string() }
}

/// What a process is told that gives rows for a slot of models: nobody could open the version that they say.
pub(crate) fn rows_of_models(slot: &str) -> CommitError {
    refusal(
        slot,
        "its cells are models, which are put and not said in rows; give metadata and a blob (`put_model`)",
    )
}

/// A model that a process gives: its metadata, and its blob. An error says what is wrong with it.
pub(crate) fn model(given: PutModel, data: &[u8]) -> Result<(Metadata, Vec<u8>), String> {
    let PutModel { metadata: Dict { json, instants }, blob } = given;
    let mut metadata = Metadata::from_json(&json).map_err(|error| error.to_string())?;
    for (name, at) in instants {
        if metadata.entries().contains_key(&name) {
            return Err(MetadataError::Duplicate { path: name }.to_string());
        }
        metadata = metadata.with(&name, Timestamp(at));
    }
    let bytes = blob.of(data).map_err(|_| {
        let Span { at, bytes } = blob;
        format!(
            "a blob of a model cannot be read: {bytes} bytes at {at} of a data part of {} bytes",
            data.len()
        )
    })?;
    Ok((metadata, bytes.to_vec()))
}

/// Metadata as a message says it.
fn dict(metadata: &Metadata) -> Dict {
    let (mut plain, mut instants) = (BTreeMap::new(), BTreeMap::new());
    for (name, value) in metadata.entries() {
        match value {
            MetaValue::Timestamp(Timestamp(at)) => drop(instants.insert(name.clone(), *at)),
            value => drop(plain.insert(name.clone(), value.clone())),
        }
    }
    Dict { json: Metadata::from_entries(plain).to_json(), instants }
}

/// What goes beside a message. Contents that several runs read are there once.
struct Parts {
    data: Vec<u8>,
    /// Bytes that it may have.
    limit: u64,
    rows: HashMap<ContentId, Span>,
    models: HashMap<ContentId, ModelVersion>,
}

impl Parts {
    fn rows(&mut self, cell: &InputCell) -> Result<Span, Failure> {
        if let Some(span) = self.rows.get(&cell.content) {
            return Ok(*span);
        }
        let at = self.begin();
        rows::encode(cell.rows()?, &mut self.data).map_err(|error| Failure::Fatal(error.to_string()))?;
        if self.data.len() as u64 > self.limit {
            let limit = self.limit;
            let what = format!("its inputs are longer than the {limit} bytes that a process can be sent");
            return Err(Failure::Fatal(what));
        }
        let span = Span { at, bytes: self.data.len() as u64 - at };
        self.rows.insert(cell.content, span);
        Ok(span)
    }

    /// The version that a cell of a slot of models says in the snapshot of its run, as a closure opens it.
    fn model(&mut self, cell: &InputCell) -> Result<ModelVersion, Failure> {
        if let Some(version) = self.models.get(&cell.content) {
            return Ok(version.clone());
        }
        let model = cell.model()?;
        let info = model.info();
        let (at, bytes, limit) = (self.begin(), info.bytes, self.limit);
        if at.saturating_add(bytes) > limit {
            let what = format!(
                "version {} of model {} has {bytes} bytes, which with its other inputs are more than the {limit} that a \
                 process can be sent; let a closure of the process that has the database open it (`Database::register`)",
                info.version, info.id
            );
            return Err(Failure::Fatal(what));
        }
        self.data.reserve(usize::try_from(bytes).unwrap_or_default());
        let read = model.reader().read_to_end(&mut self.data);
        read.map_err(|error| Failure::Fatal(format!("model {}: {error}", info.id)))?;
        let version = ModelVersion {
            id: info.id.to_string(),
            version: info.version,
            content: info.content.to_string(),
            metadata: dict(info.metadata()),
            blob: Span { at, bytes: self.data.len() as u64 - at },
        };
        self.models.insert(cell.content, version.clone());
        Ok(version)
    }

    /// Where the next part begins.
    fn begin(&mut self) -> u64 {
        self.data.resize(self.data.len().next_multiple_of(PART_ALIGNMENT), 0);
        self.data.len() as u64
    }
}

fn message(
    runs: &[Run],
    epoch: u64,
    models: &BTreeSet<String>,
    limit: u64,
) -> Result<(RunMessage, Vec<u8>), Failure> {
    let mut parts = Parts { data: Vec::new(), limit, rows: HashMap::new(), models: HashMap::new() };
    let mut told = Vec::with_capacity(runs.len());
    for run in runs {
        let mut inputs = Vec::with_capacity(run.inputs.len());
        for (input, cells) in &run.inputs {
            let mut read = Vec::with_capacity(cells.len());
            for cell in cells {
                let key = fields(&cell.key_columns, &cell.key);
                let rows = parts.rows(cell)?;
                let model = if models.contains(input) { Some(parts.model(cell)?) } else { None };
                read.push(CellRows { key, generation: cell.generation, rows, model });
            }
            inputs.push(InputCells { input: input.clone(), cells: read });
        }
        let date = Field(match run.date {
            SlotDate::Day(day) => Value::Date(day),
            SlotDate::Instant(instant) => Value::Timestamp(instant),
        });
        let key = fields(&run.key_columns, &run.key);
        told.push(BundleRun { pid: run.id.0, attempts: run.attempts, date, key, inputs });
    }
    let seq = runs.first().map_or(0, |run| run.snapshot.seq());
    let batch = told.first().map_or(0, |run| run.pid);
    Ok((RunMessage { batch, epoch, seq, runs: told }, parts.data))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::{Batch, Database, Date, Options, SimulatedDisk};

    /// The messages of runs that read a model of so many bytes, where the data may have so many.
    #[test]
    fn a_model_that_is_too_long_for_a_frame_is_refused() {
        let options = Options { workers: 0, ..Options::default() };
        let db = Database::create_on(Arc::new(SimulatedDisk::new()), options).unwrap();
        db.define_slot(SlotDefinition::models("scaler")).unwrap();
        let plain = |name: &str| SlotDefinition::new(name).value("n", ColumnType::I64);
        db.define_slot(plain("scores")).unwrap();
        let message_of = Arc::new(Mutex::new(None));
        let sent = message_of.clone();
        db.register(ProducerDefinition::new("score").requires("scaler").provides("scores"), move |run| {
            let models = BTreeSet::from(["scaler".to_string()]);
            let runs = std::slice::from_ref(run);
            let (_, data) = message(runs, 1, &BTreeSet::new(), DATA_BYTES_MAX)?;
            let at = data.len().next_multiple_of(PART_ALIGNMENT);
            let of = |limit: usize| message(runs, 1, &models, limit as u64);
            *sent.lock().unwrap() = Some((at, of(at + 100), of(at + 99), of(at - PART_ALIGNMENT)));
            Ok(Outputs::new())
        })
        .unwrap();
        let metadata = Metadata::new("scaler").with("timestamp", Timestamp(5)).with("when", Timestamp(7));
        let metadata = metadata.with("n", 1).with("raw", vec![255u8]);
        let mut batch = Batch::new();
        batch.put_model(metadata, vec![7; 100]);
        db.commit(batch).unwrap();
        assert_eq!(db.run_ready().unwrap(), 1);

        let (at, fits, model, rows) = message_of.lock().unwrap().take().unwrap();
        let (told, data) = fits.unwrap();
        let cell = &told.runs[0].inputs[0].cells[0];
        let version = cell.model.clone().unwrap();
        assert_eq!(version.blob, Span { at: at as u64, bytes: 100 });
        assert_eq!(version.blob.of(&data).unwrap(), [7; 100]);
        assert_eq!(told.runs[0].date, Field(Value::Date(Date(0))));
        let instants = [("timestamp".to_string(), 5), ("when".to_string(), 7)];
        assert_eq!(version.metadata.instants, BTreeMap::from(instants));
        assert_eq!(version.metadata.json, r#"{"n":1,"raw":"ff","type":"scaler"}"#);
        let limit = at + 99;
        let too_long =
            format!("has 100 bytes, which with its other inputs are more than the {limit} that a process");
        let model = model.unwrap_err().to_string();
        assert!(model.contains(&too_long) && model.contains("version 1 of model"), "{model}");
        assert!(rows.unwrap_err().to_string().contains("its inputs are longer than the"));
    }
}
