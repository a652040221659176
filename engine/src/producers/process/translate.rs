//! Runs as messages, and answers as outputs.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use underbelly_protocol::limits::DATA_BYTES_MAX;
use underbelly_protocol::message::{
    BundleRun, CellRead, CellRows, InputCells, InputSlot, KeyFields, Outcome, OutputCell as Given,
    Run as RunMessage, RunResult, SlotColumns, Span, Welcome,
};
use underbelly_protocol::{Field, ProtocolError, VERSION, rows};
use underbelly_storage::{ColumnType, Value};

use super::super::run::{CellAddress, InputCell, OutputCell, OutputResult, Outputs, Run};
use crate::error::Failure;
use crate::graph::{Graph, Key, ProducerDefinition, Read, SlotDate, SlotDefinition};
use crate::snapshot::slot_of;

/// What is said of a producer, and needed to read what its processes say.
pub(crate) struct About {
    pub welcome: Welcome,
    outputs: BTreeMap<String, SlotDefinition>,
}

impl About {
    pub fn new(graph: &Graph, definition: &ProducerDefinition, heartbeat: Duration) -> About {
        let find = |name: &str| graph.slot_by_name(name).and_then(|id| graph.slot(id)).cloned();
        let found = definition.outputs.iter().filter_map(|output| find(&output.slot));
        let outputs: BTreeMap<String, SlotDefinition> = found.map(|slot| (slot.name.clone(), slot)).collect();
        let inputs = definition.inputs.iter().filter_map(|input| {
            let slot = described(&find(&input.slot)?);
            Some(InputSlot { input: input.alias.clone(), slot })
        });
        let welcome = Welcome {
            protocol: VERSION,
            producer: definition.name.clone(),
            epoch: 0,
            last: None,
            heartbeat_ms: u64::try_from(heartbeat.as_millis()).unwrap_or(u64::MAX).max(1),
            inputs: inputs.collect(),
            outputs: outputs.values().map(described).collect(),
        };
        About { welcome, outputs }
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
        Ok(outputs)
    }

    /// An output; none where there is neither data nor an error.
    fn output(&self, given: Given, data: &[u8]) -> Result<Option<OutputCell>, Failure> {
        let Given { slot, key, rows: span, error, uses } = given;
        let result = match (span, error) {
            (None, None) => return Ok(None),
            (_, Some(error)) => OutputResult::Error(error),
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

/// A batch as a message, with the rows of its inputs beside it: contents that several runs read are there once.
pub(crate) fn message(runs: &[Run], epoch: u64) -> Result<(RunMessage, Vec<u8>), Failure> {
    let mut data = Vec::new();
    let mut known = HashMap::new();
    let mut rows_of = |cell: &InputCell| -> Result<Span, Failure> {
        if let Some(span) = known.get(&cell.content) {
            return Ok(*span);
        }
        let at = data.len() as u64;
        rows::encode(cell.rows()?, &mut data).map_err(|error| Failure::Fatal(error.to_string()))?;
        if data.len() as u64 > DATA_BYTES_MAX {
            let what =
                format!("its inputs are longer than the {DATA_BYTES_MAX} bytes that a process can be sent");
            return Err(Failure::Fatal(what));
        }
        let span = Span { at, bytes: data.len() as u64 - at };
        known.insert(cell.content, span);
        Ok(span)
    };
    let mut told = Vec::with_capacity(runs.len());
    for run in runs {
        let mut inputs = Vec::with_capacity(run.inputs.len());
        for (input, cells) in &run.inputs {
            let mut read = Vec::with_capacity(cells.len());
            for cell in cells {
                let key = fields(&cell.key_columns, &cell.key);
                read.push(CellRows { key, generation: cell.generation, rows: rows_of(cell)? });
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
    Ok((RunMessage { batch, epoch, seq, runs: told }, data))
}
