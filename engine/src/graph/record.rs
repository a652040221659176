//! Events as they are logged: flat types of fixed-width integers.

use rkyv::{Archive, Deserialize, Serialize};
use underbelly_storage::{ColumnType, Date, Timestamp, Value};

use super::definition::{Group, Input, Output, ProducerDefinition, SlotDefinition};
use super::error::GraphError;
use super::event::{Event, Outcome, OutputWrite, Write};
use super::ids::{BundleId, ProducerId, RunId, SlotDate, SlotId};
use super::key::Key;

/// A day (`instant` false, days since 1970) or an instant (ns since 1970).
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub(super) struct DateV1 {
    instant: bool,
    value: i64,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(super) enum ValueV1 {
    Bool(bool),
    I64(i64),
    /// The bits of a binary64.
    F64(u64),
    Utf8(String),
    /// Nanoseconds since 1970 UTC.
    Timestamp(i64),
    /// Days since 1970.
    Date(i32),
}

/// A column's name, and its type's tag on disk.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(super) struct ColumnV1 {
    name: String,
    tag: u8,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(super) struct SlotV1 {
    name: String,
    cell_keys: Vec<ColumnV1>,
    row_keys: Vec<ColumnV1>,
    values: Vec<ColumnV1>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(super) struct InputV1 {
    slot: String,
    broadcast: bool,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(super) struct OutputV1 {
    slot: String,
    priority: i32,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(super) struct ProducerV1 {
    name: String,
    inputs: Vec<InputV1>,
    by_date: bool,
    outputs: Vec<OutputV1>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
struct WriteV1 {
    slot: u32,
    date: DateV1,
    key: Vec<ValueV1>,
    priority: i32,
    content: Option<[u8; 32]>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
struct OutputWriteV1 {
    slot: u32,
    key: Vec<ValueV1>,
    content: Option<[u8; 32]>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
enum OutcomeV1 {
    Data(Vec<OutputWriteV1>),
    Declined(String),
    Failed(String),
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
enum KindV1 {
    DefineSlot(SlotV1),
    Register(ProducerV1),
    Attach(u32),
    Reopen,
    Commit { writes: Vec<WriteV1>, ends: Vec<DateV1> },
    Start { bundle: u32, run: u64 },
    End { run: u64, epoch: u64, outcome: OutcomeV1 },
}

/// An [`Event`] in the first form of the log.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct EventV1 {
    kind: KindV1,
}

impl EventV1 {
    /// The bytes for the log.
    pub fn to_bytes(&self) -> Result<Vec<u8>, GraphError> {
        match rkyv::to_bytes::<rkyv::rancor::Error>(self) {
            Ok(bytes) => Ok(bytes.to_vec()),
            Err(error) => Err(GraphError::Record { what: error.to_string() }),
        }
    }

    /// Reads bytes of the log, from any alignment, checking every offset and length in them.
    pub fn from_bytes(bytes: &[u8]) -> Result<EventV1, GraphError> {
        let mut aligned = rkyv::util::AlignedVec::<16>::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        rkyv::from_bytes::<EventV1, rkyv::rancor::Error>(&aligned)
            .map_err(|error| GraphError::Record { what: error.to_string() })
    }
}

impl From<&Event> for EventV1 {
    fn from(event: &Event) -> EventV1 {
        let kind = match event {
            Event::DefineSlot(definition) => KindV1::DefineSlot(definition.into()),
            Event::Register(definition) => KindV1::Register(definition.into()),
            Event::Attach(producer) => KindV1::Attach(producer.0),
            Event::Reopen => KindV1::Reopen,
            Event::Commit { writes, ends } => KindV1::Commit {
                writes: writes.iter().map(WriteV1::from).collect(),
                ends: ends.iter().map(|date| DateV1::from(*date)).collect(),
            },
            Event::Start { bundle, run } => KindV1::Start { bundle: bundle.0, run: run.0 },
            Event::End { run, epoch, outcome } => KindV1::End {
                run: run.0,
                epoch: *epoch,
                outcome: match outcome {
                    Outcome::Data(outputs) => {
                        OutcomeV1::Data(outputs.iter().map(OutputWriteV1::from).collect())
                    }
                    Outcome::Declined(reason) => OutcomeV1::Declined(reason.clone()),
                    Outcome::Failed(message) => OutcomeV1::Failed(message.clone()),
                },
            },
        };
        EventV1 { kind }
    }
}

impl TryFrom<EventV1> for Event {
    type Error = GraphError;

    fn try_from(event: EventV1) -> Result<Event, GraphError> {
        Ok(match event.kind {
            KindV1::DefineSlot(definition) => Event::DefineSlot(definition.try_into()?),
            KindV1::Register(definition) => Event::Register(definition.into()),
            KindV1::Attach(producer) => Event::Attach(ProducerId(producer)),
            KindV1::Reopen => Event::Reopen,
            KindV1::Commit { writes, ends } => Event::Commit {
                writes: writes.into_iter().map(Write::try_from).collect::<Result<_, _>>()?,
                ends: ends.into_iter().map(SlotDate::try_from).collect::<Result<_, _>>()?,
            },
            KindV1::Start { bundle, run } => Event::Start { bundle: BundleId(bundle), run: RunId(run) },
            KindV1::End { run, epoch, outcome } => Event::End {
                run: RunId(run),
                epoch,
                outcome: match outcome {
                    OutcomeV1::Data(outputs) => Outcome::Data(
                        outputs.into_iter().map(OutputWrite::try_from).collect::<Result<_, _>>()?,
                    ),
                    OutcomeV1::Declined(reason) => Outcome::Declined(reason),
                    OutcomeV1::Failed(message) => Outcome::Failed(message),
                },
            },
        })
    }
}

impl From<&Write> for WriteV1 {
    fn from(write: &Write) -> WriteV1 {
        WriteV1 {
            slot: write.slot.0,
            date: write.date.into(),
            key: values_of(&write.key),
            priority: write.priority,
            content: write.content,
        }
    }
}

impl TryFrom<WriteV1> for Write {
    type Error = GraphError;

    fn try_from(write: WriteV1) -> Result<Write, GraphError> {
        Ok(Write {
            slot: SlotId(write.slot),
            date: write.date.try_into()?,
            key: key_of(write.key)?,
            priority: write.priority,
            content: write.content,
        })
    }
}

impl From<&OutputWrite> for OutputWriteV1 {
    fn from(write: &OutputWrite) -> OutputWriteV1 {
        OutputWriteV1 { slot: write.slot.0, key: values_of(&write.key), content: write.content }
    }
}

impl TryFrom<OutputWriteV1> for OutputWrite {
    type Error = GraphError;

    fn try_from(write: OutputWriteV1) -> Result<OutputWrite, GraphError> {
        Ok(OutputWrite { slot: SlotId(write.slot), key: key_of(write.key)?, content: write.content })
    }
}

impl From<SlotDate> for DateV1 {
    fn from(date: SlotDate) -> DateV1 {
        match date {
            SlotDate::Day(day) => DateV1 { instant: false, value: i64::from(day.0) },
            SlotDate::Instant(instant) => DateV1 { instant: true, value: instant.0 },
        }
    }
}

impl TryFrom<DateV1> for SlotDate {
    type Error = GraphError;

    fn try_from(date: DateV1) -> Result<SlotDate, GraphError> {
        if date.instant {
            return Ok(SlotDate::Instant(Timestamp(date.value)));
        }
        match i32::try_from(date.value) {
            Ok(day) => Ok(SlotDate::Day(Date(day))),
            Err(_) => Err(GraphError::Record { what: format!("{} is no day", date.value) }),
        }
    }
}

pub(super) fn values_of(key: &Key) -> Vec<ValueV1> {
    let value = |value: &Value| match value {
        // Keys hold neither nulls nor bytes.
        Value::Null | Value::Bytes(_) => ValueV1::Bool(false),
        Value::Bool(v) => ValueV1::Bool(*v),
        Value::I64(v) => ValueV1::I64(*v),
        Value::F64(v) => ValueV1::F64(v.to_bits()),
        Value::Utf8(v) => ValueV1::Utf8(v.to_string()),
        Value::Timestamp(v) => ValueV1::Timestamp(v.0),
        Value::Date(v) => ValueV1::Date(v.0),
    };
    key.values().iter().map(value).collect()
}

pub(super) fn key_of(values: Vec<ValueV1>) -> Result<Key, GraphError> {
    let value = |value: ValueV1| match value {
        ValueV1::Bool(v) => Value::Bool(v),
        ValueV1::I64(v) => Value::I64(v),
        ValueV1::F64(v) => Value::F64(f64::from_bits(v)),
        ValueV1::Utf8(v) => Value::Utf8(v.into()),
        ValueV1::Timestamp(v) => Value::Timestamp(Timestamp(v)),
        ValueV1::Date(v) => Value::Date(Date(v)),
    };
    Ok(Key::new(values.into_iter().map(value).collect())?)
}

impl From<&SlotDefinition> for SlotV1 {
    fn from(definition: &SlotDefinition) -> SlotV1 {
        let columns = |columns: &[(String, ColumnType)]| {
            columns.iter().map(|(name, t)| ColumnV1 { name: name.clone(), tag: t.tag() }).collect()
        };
        SlotV1 {
            name: definition.name.clone(),
            cell_keys: columns(&definition.cell_keys),
            row_keys: columns(&definition.row_keys),
            values: columns(&definition.values),
        }
    }
}

impl TryFrom<SlotV1> for SlotDefinition {
    type Error = GraphError;

    fn try_from(slot: SlotV1) -> Result<SlotDefinition, GraphError> {
        let name = slot.name;
        let columns = |columns: Vec<ColumnV1>| {
            let column = |column: ColumnV1| match ColumnType::from_tag(column.tag) {
                Some(column_type) => Ok((column.name, column_type)),
                None => Err(GraphError::Record {
                    what: format!("column {:?} of slot {name:?} has type tag {}", column.name, column.tag),
                }),
            };
            columns.into_iter().map(column).collect::<Result<Vec<_>, _>>()
        };
        Ok(SlotDefinition {
            cell_keys: columns(slot.cell_keys)?,
            row_keys: columns(slot.row_keys)?,
            values: columns(slot.values)?,
            name,
        })
    }
}

impl From<&ProducerDefinition> for ProducerV1 {
    fn from(definition: &ProducerDefinition) -> ProducerV1 {
        let input = |input: &Input| InputV1 { slot: input.slot.clone(), broadcast: input.broadcast };
        let output = |output: &Output| OutputV1 { slot: output.slot.clone(), priority: output.priority };
        ProducerV1 {
            name: definition.name.clone(),
            inputs: definition.inputs.iter().map(input).collect(),
            by_date: definition.group == Group::Date,
            outputs: definition.outputs.iter().map(output).collect(),
        }
    }
}

impl From<ProducerV1> for ProducerDefinition {
    fn from(producer: ProducerV1) -> ProducerDefinition {
        let input = |input: InputV1| Input { slot: input.slot, broadcast: input.broadcast };
        let output = |output: OutputV1| Output { slot: output.slot, priority: output.priority };
        ProducerDefinition {
            name: producer.name,
            inputs: producer.inputs.into_iter().map(input).collect(),
            group: if producer.by_date { Group::Date } else { Group::Each },
            outputs: producer.outputs.into_iter().map(output).collect(),
        }
    }
}
