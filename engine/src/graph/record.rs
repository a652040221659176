//! Events as they are logged: flat types of fixed-width integers.

use std::ops::Bound;
use std::time::Duration;

use rkyv::{Archive, Deserialize, Serialize};
use underbelly_storage::{ColumnType, Date, Timestamp, Value};

use super::definition::{
    Filter, FilterTest, Group, Input, Mode, Output, ProducerDefinition, Proxy, Retry, SlotDefinition,
    Trigger, When, nanoseconds,
};
use super::error::GraphError;
use super::event::{
    Deadline, Event, Given, Host, Outcome, OutputWrite, Read, Setback, Stamp, Submission, Used, Write,
};
use super::ids::{BundleId, CellId, ProducerId, RunId, SlotDate, SlotId};
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
    I32(i32),
    /// The bits of a binary32.
    F32(u32),
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
    members: Option<String>,
    /// ns.
    fresh_for: Option<u64>,
    /// ns.
    max_skew: Option<u64>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(super) enum BoundV1 {
    Unbounded,
    Included(ValueV1),
    Excluded(ValueV1),
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(super) enum FilterTestV1 {
    OneOf(Vec<ValueV1>),
    NoneOf(Vec<ValueV1>),
    Between(BoundV1, BoundV1),
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(super) struct FilterV1 {
    column: String,
    test: FilterTestV1,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub(super) enum ModeV1 {
    Required,
    Optional,
    Exclusive,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(super) struct InputV1 {
    slot: String,
    alias: String,
    mode: ModeV1,
    broadcast: bool,
    renames: Vec<(String, String)>,
    filters: Vec<FilterV1>,
    lag: u32,
    fault_tolerant: bool,
    accept_stale: bool,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub(super) enum WhenV1 {
    Complete,
    Any,
    Quorum,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(super) struct GroupV1 {
    columns: Vec<String>,
    when: WhenV1,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(super) struct OutputV1 {
    slot: String,
    priority: i32,
    member: Option<String>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(super) struct ProducerV1 {
    name: String,
    inputs: Vec<InputV1>,
    /// `None` for a bundle for each joined tuple.
    group: Option<GroupV1>,
    outputs: Vec<OutputV1>,
    proxy: ProxyV1,
    retry: RetryV1,
    daemon: bool,
    /// ns.
    lease: Option<u64>,
}

/// Times in nanoseconds.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub(super) enum TriggerV1 {
    Independent { min_batch: u32, max_wait_time: u64 },
    Dependent,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub(super) struct ProxyV1 {
    trigger: TriggerV1,
    max_batch: u32,
    max_running: u32,
    /// ns.
    cutoff: Option<u64>,
}

/// Times in nanoseconds.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub(super) struct RetryV1 {
    max_attempts: u32,
    backoff: u64,
    max_backoff: u64,
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
enum GivenV1 {
    Data([u8; 32]),
    Absent,
    Error(String),
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
struct UsedV1 {
    input: u16,
    cell: u32,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
struct OutputWriteV1 {
    slot: u32,
    key: Vec<ValueV1>,
    given: GivenV1,
    uses: Option<Vec<UsedV1>>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
enum ReadV1 {
    Cell { slot: u32, date: DateV1, key: Vec<ValueV1>, g: Option<u64> },
    Scan { slot: u32, date: DateV1, columns: Vec<u16>, key: Vec<ValueV1> },
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
struct HostV1 {
    machine: String,
    process: u32,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
enum OutcomeV1 {
    Data(Vec<OutputWriteV1>),
    Declined(String),
    Failed(String),
    /// `wait`: ns.
    Again {
        why: SetbackV1,
        message: String,
        wait: u64,
    },
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
enum SetbackV1 {
    Failed,
    Rejected,
    Halved(u32),
}

/// Times in ns since 1970.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
struct SubmissionV1 {
    writes: Vec<WriteV1>,
    ends: Vec<DateV1>,
    backfill: bool,
    as_of: Option<i64>,
    session: Option<StampV1>,
    deadlines: Vec<DeadlineV1>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
struct StampV1 {
    producer: u32,
    epoch: u64,
    sequence: u64,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
struct DeadlineV1 {
    due_by: i64,
    slot: u32,
    date: DateV1,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
enum KindV1 {
    DefineSlot(SlotV1),
    Register(ProducerV1),
    Attach { producer: u32, host: Option<HostV1> },
    Reopen,
    Detach { producer: u32, epoch: u64, lost: bool },
    Commit(SubmissionV1),
    Start { bundle: u32, run: u64, batch: u64 },
    End { run: u64, epoch: u64, outcome: OutcomeV1, reads: Vec<ReadV1> },
    Retract { cell: u32, priority: i32 },
    Force(u32),
    Cancel { bundle: u32, reason: String },
    Tick,
    Deregister(u32),
    Starts { runs: Vec<StartV1> },
    Ends { runs: Vec<EndV1> },
}

/// A start among several.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
struct StartV1 {
    bundle: u32,
    run: u64,
    batch: u64,
}

/// A plain end among several.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
struct EndV1 {
    run: u64,
    epoch: u64,
    outputs: Vec<OutputWriteV1>,
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
            Event::Attach { producer, host } => {
                let host = host.as_ref().map(|h| HostV1 { machine: h.machine.clone(), process: h.process });
                KindV1::Attach { producer: producer.0, host }
            }
            Event::Reopen => KindV1::Reopen,
            Event::Detach { producer, epoch, lost } => {
                KindV1::Detach { producer: producer.0, epoch: *epoch, lost: *lost }
            }
            Event::Commit(submission) => KindV1::Commit(submission.into()),
            Event::Start { bundle, run, batch } => {
                KindV1::Start { bundle: bundle.0, run: run.0, batch: batch.0 }
            }
            Event::End { run, epoch, outcome, reads } => KindV1::End {
                run: run.0,
                epoch: *epoch,
                reads: reads.iter().map(ReadV1::from).collect(),
                outcome: match outcome {
                    Outcome::Data(outputs) => {
                        OutcomeV1::Data(outputs.iter().map(OutputWriteV1::from).collect())
                    }
                    Outcome::Declined(reason) => OutcomeV1::Declined(reason.clone()),
                    Outcome::Failed(message) => OutcomeV1::Failed(message.clone()),
                    Outcome::Again { why, message, wait } => {
                        let why = match why {
                            Setback::Failed => SetbackV1::Failed,
                            Setback::Rejected => SetbackV1::Rejected,
                            Setback::Halved(most) => SetbackV1::Halved(*most),
                        };
                        OutcomeV1::Again { why, message: message.clone(), wait: nanoseconds(*wait) }
                    }
                },
            },
            Event::Several(parts) => several(parts),
            Event::Retract { cell, priority } => KindV1::Retract { cell: cell.0, priority: *priority },
            Event::Force(bundle) => KindV1::Force(bundle.0),
            Event::Cancel { bundle, reason } => KindV1::Cancel { bundle: bundle.0, reason: reason.clone() },
            Event::Tick => KindV1::Tick,
            Event::Deregister(producer) => KindV1::Deregister(producer.0),
        };
        EventV1 { kind }
    }
}

/// Starts, or plain ends; [`super::Graph::check`] refuses what is neither.
fn several(parts: &[Event]) -> KindV1 {
    let starts: Vec<StartV1> = parts
        .iter()
        .filter_map(|part| match part {
            Event::Start { bundle, run, batch } => {
                Some(StartV1 { bundle: bundle.0, run: run.0, batch: batch.0 })
            }
            _ => None,
        })
        .collect();
    if !starts.is_empty() {
        return KindV1::Starts { runs: starts };
    }
    let ends = parts.iter().filter_map(|part| match part {
        Event::End { run, epoch, outcome: Outcome::Data(outputs), .. } => Some(EndV1 {
            run: run.0,
            epoch: *epoch,
            outputs: outputs.iter().map(OutputWriteV1::from).collect(),
        }),
        _ => None,
    });
    KindV1::Ends { runs: ends.collect() }
}

impl TryFrom<EventV1> for Event {
    type Error = GraphError;

    fn try_from(event: EventV1) -> Result<Event, GraphError> {
        Ok(match event.kind {
            KindV1::DefineSlot(definition) => Event::DefineSlot(definition.try_into()?),
            KindV1::Register(definition) => Event::Register(definition.into()),
            KindV1::Attach { producer, host } => Event::Attach {
                producer: ProducerId(producer),
                host: host.map(|h| Host { machine: h.machine, process: h.process }),
            },
            KindV1::Reopen => Event::Reopen,
            KindV1::Detach { producer, epoch, lost } => {
                Event::Detach { producer: ProducerId(producer), epoch, lost }
            }
            KindV1::Commit(submission) => Event::Commit(submission.try_into()?),
            KindV1::Start { bundle, run, batch } => {
                Event::Start { bundle: BundleId(bundle), run: RunId(run), batch: RunId(batch) }
            }
            KindV1::End { run, epoch, outcome, reads } => Event::End {
                run: RunId(run),
                epoch,
                reads: reads.into_iter().map(Read::try_from).collect::<Result<_, _>>()?,
                outcome: match outcome {
                    OutcomeV1::Data(outputs) => Outcome::Data(
                        outputs.into_iter().map(OutputWrite::try_from).collect::<Result<_, _>>()?,
                    ),
                    OutcomeV1::Declined(reason) => Outcome::Declined(reason),
                    OutcomeV1::Failed(message) => Outcome::Failed(message),
                    OutcomeV1::Again { why, message, wait } => {
                        let why = match why {
                            SetbackV1::Failed => Setback::Failed,
                            SetbackV1::Rejected => Setback::Rejected,
                            SetbackV1::Halved(most) => Setback::Halved(most),
                        };
                        Outcome::Again { why, message, wait: Duration::from_nanos(wait) }
                    }
                },
            },
            KindV1::Starts { runs } => {
                let start = |start: StartV1| Event::Start {
                    bundle: BundleId(start.bundle),
                    run: RunId(start.run),
                    batch: RunId(start.batch),
                };
                Event::Several(runs.into_iter().map(start).collect())
            }
            KindV1::Ends { runs } => {
                let end = |end: EndV1| -> Result<Event, GraphError> {
                    let outputs =
                        end.outputs.into_iter().map(OutputWrite::try_from).collect::<Result<_, _>>()?;
                    let (run, epoch, reads) = (RunId(end.run), end.epoch, Vec::new());
                    Ok(Event::End { run, epoch, outcome: Outcome::Data(outputs), reads })
                };
                Event::Several(runs.into_iter().map(end).collect::<Result<_, _>>()?)
            }
            KindV1::Retract { cell, priority } => Event::Retract { cell: CellId(cell), priority },
            KindV1::Force(bundle) => Event::Force(BundleId(bundle)),
            KindV1::Cancel { bundle, reason } => Event::Cancel { bundle: BundleId(bundle), reason },
            KindV1::Tick => Event::Tick,
            KindV1::Deregister(producer) => Event::Deregister(ProducerId(producer)),
        })
    }
}

impl From<&Submission> for SubmissionV1 {
    fn from(submission: &Submission) -> SubmissionV1 {
        let stamp = |stamp: Stamp| StampV1 {
            producer: stamp.producer.0,
            epoch: stamp.epoch,
            sequence: stamp.sequence,
        };
        let deadline = |deadline: &Deadline| DeadlineV1 {
            due_by: deadline.due_by.0,
            slot: deadline.slot.0,
            date: deadline.date.into(),
        };
        SubmissionV1 {
            writes: submission.writes.iter().map(WriteV1::from).collect(),
            ends: submission.ends.iter().map(|date| DateV1::from(*date)).collect(),
            backfill: submission.backfill,
            as_of: submission.as_of.map(|time| time.0),
            session: submission.session.map(stamp),
            deadlines: submission.deadlines.iter().map(deadline).collect(),
        }
    }
}

impl TryFrom<SubmissionV1> for Submission {
    type Error = GraphError;

    fn try_from(submission: SubmissionV1) -> Result<Submission, GraphError> {
        let stamp = |stamp: StampV1| Stamp {
            producer: ProducerId(stamp.producer),
            epoch: stamp.epoch,
            sequence: stamp.sequence,
        };
        let deadline = |deadline: DeadlineV1| {
            let (due_by, slot) = (Timestamp(deadline.due_by), SlotId(deadline.slot));
            Ok::<_, GraphError>(Deadline { due_by, slot, date: deadline.date.try_into()? })
        };
        Ok(Submission {
            writes: submission.writes.into_iter().map(Write::try_from).collect::<Result<_, _>>()?,
            ends: submission.ends.into_iter().map(SlotDate::try_from).collect::<Result<_, _>>()?,
            backfill: submission.backfill,
            as_of: submission.as_of.map(Timestamp),
            session: submission.session.map(stamp),
            deadlines: submission.deadlines.into_iter().map(deadline).collect::<Result<_, _>>()?,
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
        let used = |used: &Used| UsedV1 { input: used.input, cell: used.cell.0 };
        OutputWriteV1 {
            slot: write.slot.0,
            key: values_of(&write.key),
            given: match &write.given {
                Given::Data(content) => GivenV1::Data(*content),
                Given::Absent => GivenV1::Absent,
                Given::Error(message) => GivenV1::Error(message.clone()),
            },
            uses: write.uses.as_ref().map(|uses| uses.iter().map(used).collect()),
        }
    }
}

impl TryFrom<OutputWriteV1> for OutputWrite {
    type Error = GraphError;

    fn try_from(write: OutputWriteV1) -> Result<OutputWrite, GraphError> {
        let used = |used: UsedV1| Used { input: used.input, cell: CellId(used.cell) };
        Ok(OutputWrite {
            slot: SlotId(write.slot),
            key: key_of(write.key)?,
            given: match write.given {
                GivenV1::Data(content) => Given::Data(content),
                GivenV1::Absent => Given::Absent,
                GivenV1::Error(message) => Given::Error(message),
            },
            uses: write.uses.map(|uses| uses.into_iter().map(used).collect()),
        })
    }
}

impl From<&Read> for ReadV1 {
    fn from(read: &Read) -> ReadV1 {
        match read {
            Read::Cell { slot, date, key, g } => {
                ReadV1::Cell { slot: slot.0, date: (*date).into(), key: values_of(key), g: *g }
            }
            Read::Scan { slot, date, columns, key } => ReadV1::Scan {
                slot: slot.0,
                date: (*date).into(),
                columns: columns.clone(),
                key: values_of(key),
            },
        }
    }
}

impl TryFrom<ReadV1> for Read {
    type Error = GraphError;

    fn try_from(read: ReadV1) -> Result<Read, GraphError> {
        Ok(match read {
            ReadV1::Cell { slot, date, key, g } => {
                Read::Cell { slot: SlotId(slot), date: date.try_into()?, key: key_of(key)?, g }
            }
            ReadV1::Scan { slot, date, columns, key } => {
                Read::Scan { slot: SlotId(slot), date: date.try_into()?, columns, key: key_of(key)? }
            }
        })
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

fn value_of(value: &Value) -> ValueV1 {
    match value {
        // Neither keys nor filters that were accepted hold nulls or bytes.
        Value::Null | Value::Bytes(_) => ValueV1::Bool(false),
        Value::Bool(v) => ValueV1::Bool(*v),
        Value::I64(v) => ValueV1::I64(*v),
        Value::F64(v) => ValueV1::F64(v.to_bits()),
        Value::Utf8(v) => ValueV1::Utf8(v.to_string()),
        Value::Timestamp(v) => ValueV1::Timestamp(v.0),
        Value::Date(v) => ValueV1::Date(v.0),
        Value::I32(v) => ValueV1::I32(*v),
        Value::F32(v) => ValueV1::F32(v.to_bits()),
    }
}

impl From<ValueV1> for Value {
    fn from(value: ValueV1) -> Value {
        match value {
            ValueV1::Bool(v) => Value::Bool(v),
            ValueV1::I64(v) => Value::I64(v),
            ValueV1::F64(v) => Value::F64(f64::from_bits(v)),
            ValueV1::Utf8(v) => Value::Utf8(v.into()),
            ValueV1::Timestamp(v) => Value::Timestamp(Timestamp(v)),
            ValueV1::Date(v) => Value::Date(Date(v)),
            ValueV1::I32(v) => Value::I32(v),
            ValueV1::F32(v) => Value::F32(f32::from_bits(v)),
        }
    }
}

pub(super) fn values_of(key: &Key) -> Vec<ValueV1> {
    key.values().iter().map(value_of).collect()
}

pub(super) fn key_of(values: Vec<ValueV1>) -> Result<Key, GraphError> {
    Ok(Key::new(values.into_iter().map(Value::from).collect())?)
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
            members: definition.members.clone(),
            fresh_for: definition.fresh_for.map(nanoseconds),
            max_skew: definition.max_skew.map(nanoseconds),
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
            members: slot.members,
            fresh_for: slot.fresh_for.map(Duration::from_nanos),
            max_skew: slot.max_skew.map(Duration::from_nanos),
            name,
        })
    }
}

impl From<&Filter> for FilterV1 {
    fn from(filter: &Filter) -> FilterV1 {
        let values = |values: &[Value]| values.iter().map(value_of).collect();
        let bound = |bound: &Bound<Value>| match bound {
            Bound::Unbounded => BoundV1::Unbounded,
            Bound::Included(value) => BoundV1::Included(value_of(value)),
            Bound::Excluded(value) => BoundV1::Excluded(value_of(value)),
        };
        let test = match &filter.test {
            FilterTest::OneOf(of) => FilterTestV1::OneOf(values(of)),
            FilterTest::NoneOf(of) => FilterTestV1::NoneOf(values(of)),
            FilterTest::Between(start, end) => FilterTestV1::Between(bound(start), bound(end)),
        };
        FilterV1 { column: filter.column.clone(), test }
    }
}

impl From<FilterV1> for Filter {
    fn from(filter: FilterV1) -> Filter {
        let values = |values: Vec<ValueV1>| values.into_iter().map(Value::from).collect();
        let bound = |bound: BoundV1| match bound {
            BoundV1::Unbounded => Bound::Unbounded,
            BoundV1::Included(value) => Bound::Included(value.into()),
            BoundV1::Excluded(value) => Bound::Excluded(value.into()),
        };
        let test = match filter.test {
            FilterTestV1::OneOf(of) => FilterTest::OneOf(values(of)),
            FilterTestV1::NoneOf(of) => FilterTest::NoneOf(values(of)),
            FilterTestV1::Between(start, end) => FilterTest::Between(bound(start), bound(end)),
        };
        Filter { column: filter.column, test }
    }
}

impl From<&Input> for InputV1 {
    fn from(input: &Input) -> InputV1 {
        InputV1 {
            slot: input.slot.clone(),
            alias: input.alias.clone(),
            mode: match input.mode {
                Mode::Required => ModeV1::Required,
                Mode::Optional => ModeV1::Optional,
                Mode::Exclusive => ModeV1::Exclusive,
            },
            broadcast: input.broadcast,
            renames: input.renames.clone(),
            filters: input.filters.iter().map(FilterV1::from).collect(),
            lag: input.lag,
            fault_tolerant: input.fault_tolerant,
            accept_stale: input.accept_stale,
        }
    }
}

impl From<InputV1> for Input {
    fn from(input: InputV1) -> Input {
        Input {
            slot: input.slot,
            alias: input.alias,
            mode: match input.mode {
                ModeV1::Required => Mode::Required,
                ModeV1::Optional => Mode::Optional,
                ModeV1::Exclusive => Mode::Exclusive,
            },
            broadcast: input.broadcast,
            renames: input.renames,
            filters: input.filters.into_iter().map(Filter::from).collect(),
            lag: input.lag,
            fault_tolerant: input.fault_tolerant,
            accept_stale: input.accept_stale,
        }
    }
}

impl From<&ProducerDefinition> for ProducerV1 {
    fn from(definition: &ProducerDefinition) -> ProducerV1 {
        let output = |output: &Output| OutputV1 {
            slot: output.slot.clone(),
            priority: output.priority,
            member: output.member.clone(),
        };
        let group = match &definition.group {
            Group::Each => None,
            Group::By { columns, when } => {
                let when = match when {
                    When::Complete => WhenV1::Complete,
                    When::Any => WhenV1::Any,
                    When::Quorum => WhenV1::Quorum,
                };
                Some(GroupV1 { columns: columns.clone(), when })
            }
        };
        ProducerV1 {
            name: definition.name.clone(),
            inputs: definition.inputs.iter().map(InputV1::from).collect(),
            group,
            outputs: definition.outputs.iter().map(output).collect(),
            proxy: definition.proxy.into(),
            retry: RetryV1 {
                max_attempts: definition.retry.max_attempts,
                backoff: nanoseconds(definition.retry.backoff),
                max_backoff: nanoseconds(definition.retry.max_backoff),
            },
            daemon: definition.daemon,
            lease: definition.lease.map(nanoseconds),
        }
    }
}

impl From<Proxy> for ProxyV1 {
    fn from(proxy: Proxy) -> ProxyV1 {
        let trigger = match proxy.trigger {
            Trigger::Independent { min_batch, max_wait_time } => {
                TriggerV1::Independent { min_batch, max_wait_time: nanoseconds(max_wait_time) }
            }
            Trigger::Dependent => TriggerV1::Dependent,
        };
        let cutoff = proxy.cutoff.map(nanoseconds);
        ProxyV1 { trigger, max_batch: proxy.max_batch, max_running: proxy.max_running, cutoff }
    }
}

impl From<ProxyV1> for Proxy {
    fn from(proxy: ProxyV1) -> Proxy {
        let trigger = match proxy.trigger {
            TriggerV1::Independent { min_batch, max_wait_time } => {
                Trigger::Independent { min_batch, max_wait_time: Duration::from_nanos(max_wait_time) }
            }
            TriggerV1::Dependent => Trigger::Dependent,
        };
        let cutoff = proxy.cutoff.map(Duration::from_nanos);
        Proxy { trigger, max_batch: proxy.max_batch, max_running: proxy.max_running, cutoff }
    }
}

impl From<ProducerV1> for ProducerDefinition {
    fn from(producer: ProducerV1) -> ProducerDefinition {
        let output =
            |output: OutputV1| Output { slot: output.slot, priority: output.priority, member: output.member };
        let group = producer.group.map_or(Group::Each, |group| {
            let when = match group.when {
                WhenV1::Complete => When::Complete,
                WhenV1::Any => When::Any,
                WhenV1::Quorum => When::Quorum,
            };
            Group::By { columns: group.columns, when }
        });
        ProducerDefinition {
            name: producer.name,
            inputs: producer.inputs.into_iter().map(Input::from).collect(),
            group,
            outputs: producer.outputs.into_iter().map(output).collect(),
            proxy: producer.proxy.into(),
            retry: Retry {
                max_attempts: producer.retry.max_attempts,
                backoff: Duration::from_nanos(producer.retry.backoff),
                max_backoff: Duration::from_nanos(producer.retry.max_backoff),
            },
            daemon: producer.daemon,
            lease: producer.lease.map(Duration::from_nanos),
        }
    }
}
