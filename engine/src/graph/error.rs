//! Why the graph refuses an event or an image.

use std::time::Duration;

use underbelly_storage::{ColumnType, Timestamp};

use super::ids::{BundleId, CellId, ProducerId, RunId, SlotId};
use super::key::{Key, KeyError};
use super::state::PStatus;

/// Why the graph refuses an event or an image. A refused event has changed nothing.
#[derive(Debug, thiserror::Error, Clone, PartialEq)]
#[non_exhaustive]
pub enum GraphError {
    /// A slot or producer without a name.
    #[error("each {what} needs a name; give it one")]
    EmptyName {
        /// `slot`, `producer` or `column`.
        what: &'static str,
    },
    /// A definition has one column name twice.
    #[error("slot {slot:?} has two columns named {column:?}; rename one")]
    DuplicateColumn {
        /// The slot.
        slot: String,
        /// The column.
        column: String,
    },
    /// A key column of a type that keys cannot have.
    #[error(
        "key column {column:?} of slot {slot:?} holds {column_type}, which cannot be a cell key; use text, a number, a bool, a date or a timestamp"
    )]
    KeyColumnType {
        /// The slot.
        slot: String,
        /// The column.
        column: String,
        /// Its type.
        column_type: ColumnType,
    },
    /// A definition is larger than the limits.
    #[error("{what} {name:?} has {found} parts where {limit} are allowed; split it")]
    DefinitionTooLarge {
        /// `slot` or `producer`.
        what: &'static str,
        /// Its name.
        name: String,
        /// Columns, inputs or outputs that it has.
        found: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// A slot of this name exists with another definition.
    #[error("slot {slot:?} is defined already, differently; use another name, or the definition that it has")]
    SlotChanged {
        /// The slot.
        slot: String,
    },
    /// Two slots would have one table.
    #[error("slots {slot:?} and {other:?} would share the table {table:?}; rename one")]
    TableTaken {
        /// The new slot.
        slot: String,
        /// The slot that has the table.
        other: String,
        /// The table's name.
        table: String,
    },
    /// A producer of this name exists with another definition.
    #[error(
        "producer {producer:?} is registered already, differently; use another name, or the definition that it has"
    )]
    ProducerChanged {
        /// The producer.
        producer: String,
    },
    /// A producer's name is kept for clients.
    #[error("producer name {producer:?} is reserved for what clients commit; use another name")]
    ReservedName {
        /// The name.
        producer: String,
    },
    /// A producer without inputs.
    #[error("producer {producer:?} has no input; require at least one slot, or commit as a client")]
    NoInput {
        /// The producer.
        producer: String,
    },
    /// A daemon with inputs.
    #[error(
        "daemon {producer:?} has inputs or groups them; take them away, or register a producer that runs"
    )]
    DaemonInput {
        /// The producer.
        producer: String,
    },
    /// A lease on a producer that works in the process itself.
    #[error(
        "producer {producer:?} has a lease, and a closure in this process gives no signs of life; take the lease away"
    )]
    ClosureLease {
        /// The producer.
        producer: String,
    },
    /// A closure for a daemon.
    #[error("producer {producer:?} is a daemon and has no runs; open a session for it")]
    DaemonRuns {
        /// The producer.
        producer: String,
    },
    /// A commit in the session of a producer that is no daemon.
    #[error("producer {producer:?} is no daemon: it gives its outputs where it runs")]
    NoDaemon {
        /// The producer.
        producer: String,
    },
    /// The member key of a slot is no cell key of text.
    #[error("member key {column:?} of slot {slot:?} is no cell key of text; add it with `member_key`")]
    MemberKey {
        /// The slot.
        slot: String,
        /// The column.
        column: String,
    },
    /// A producer cannot provide a slot in this way.
    #[error("producer {producer:?} cannot provide slot {slot:?}: {what}")]
    Member {
        /// The producer.
        producer: String,
        /// The slot.
        slot: String,
        /// Why, and what to do.
        what: &'static str,
    },
    /// A group that waits for members of slots that have none.
    #[error(
        "producer {producer:?} waits for members, and no slot that it requires has a member key; give one a member key"
    )]
    NoMembers {
        /// The producer.
        producer: String,
    },
    /// A cell that a producer does not give.
    #[error(
        "producer {producer:?} does not give cell {key} of slot {slot:?} at priority {priority}; write what it provides, as the member that it is"
    )]
    NotProvided {
        /// The producer.
        producer: String,
        /// The slot.
        slot: String,
        /// The cell's key.
        key: Key,
        /// The priority.
        priority: i32,
    },
    /// A producer has a session already.
    #[error("producer {producer:?} has a session already; end that one, or wait until its lease is over")]
    SessionTaken {
        /// The producer.
        producer: String,
    },
    /// A session that is over: another began, it was lost, or its producer was deregistered.
    #[error("fenced: the session of producer {producer:?} with epoch {epoch} is over; open another session")]
    SessionOver {
        /// The producer.
        producer: String,
        /// The epoch of the session.
        epoch: u64,
    },
    /// A time of a slot that is out of range.
    #[error("{what} of slot {slot:?} is 0, or above ten years; choose a time between, or none")]
    SlotTime {
        /// The slot.
        slot: String,
        /// Which of its times.
        what: &'static str,
    },
    /// A stamp that is too far ahead of the clock.
    #[error(
        "the data for slot {slot:?} is of {as_of}, more than {max_skew:?} ahead of the clock, which says {now}; set the clocks right"
    )]
    Skew {
        /// The slot.
        slot: String,
        /// The stamp.
        as_of: Timestamp,
        /// The engine's clock.
        now: Timestamp,
        /// How far it may be ahead.
        max_skew: Duration,
    },
    /// A commit of a daemon that was accepted before.
    #[error(
        "commit {sequence} of daemon {producer:?} was accepted before, as its commits are up to {last}; go on with the next"
    )]
    Duplicate {
        /// The producer.
        producer: String,
        /// The commit's number.
        sequence: u64,
        /// The number of the last commit.
        last: u64,
    },
    /// A producer without outputs.
    #[error("producer {producer:?} provides no slot; provide at least one")]
    NoOutput {
        /// The producer.
        producer: String,
    },
    /// Two inputs of one name.
    #[error("producer {producer:?} has two inputs named {input:?}; give one of them an alias")]
    DuplicateInput {
        /// The producer.
        producer: String,
        /// The name.
        input: String,
    },
    /// An input renames or filters by what is no cell key of its slot.
    #[error(
        "input {input:?} of producer {producer:?} names column {column:?}, which is no cell key of slot {slot:?}; name one of its cell keys"
    )]
    InputColumn {
        /// The producer.
        producer: String,
        /// The input.
        input: String,
        /// Its slot.
        slot: String,
        /// The column.
        column: String,
    },
    /// An input would join two of its columns under one name, or renames one twice.
    #[error("input {input:?} of producer {producer:?} has two columns named {column:?}; rename one of them")]
    InputColumnTwice {
        /// The producer.
        producer: String,
        /// The input.
        input: String,
        /// The name.
        column: String,
    },
    /// A filter compares a column with what it cannot hold.
    #[error(
        "input {input:?} of producer {producer:?} compares column {column:?}, which holds {expected}, with {value}; compare it with a value of its type"
    )]
    FilterValue {
        /// The producer.
        producer: String,
        /// The input.
        input: String,
        /// The column.
        column: String,
        /// Its type.
        expected: ColumnType,
        /// The value as text.
        value: String,
    },
    /// An exclusive input on a slot that the producer itself provides, with renames, filters or a broadcast.
    #[error(
        "producer {producer:?} fills in slot {slot:?}, which it provides itself: that input compares the same cells; take its renames, filters and broadcast away"
    )]
    OwnSlot {
        /// The producer.
        producer: String,
        /// The slot.
        slot: String,
    },
    /// A group by what is no column of the join, or twice by one.
    #[error(
        "producer {producer:?} groups by column {column:?}, which its joined inputs do not have, or twice; group by columns that they have, each once"
    )]
    GroupColumn {
        /// The producer.
        producer: String,
        /// The column.
        column: String,
    },
    /// One slot twice among a producer's outputs.
    #[error("producer {producer:?} provides slot {slot:?} twice; name it once")]
    DuplicateSlot {
        /// The producer.
        producer: String,
        /// The slot.
        slot: String,
    },
    /// A name of no slot.
    #[error("producer {producer:?} names slot {slot:?}, which is not defined; define it first")]
    UnknownSlotName {
        /// The producer.
        producer: String,
        /// The slot.
        slot: String,
    },
    /// Two inputs have a key column of one name and two types.
    #[error(
        "producer {producer:?} joins on column {column:?}, which is {left} in slot {left_slot:?} and {right} in {right_slot:?}; give them one type or two names"
    )]
    JoinType {
        /// The producer.
        producer: String,
        /// The column.
        column: String,
        /// The first slot.
        left_slot: String,
        /// Its type.
        left: ColumnType,
        /// The second slot.
        right_slot: String,
        /// Its type.
        right: ColumnType,
    },
    /// An input shares no key column with the others.
    #[error(
        "producer {producer:?} cannot join slot {slot:?}: it shares no key column with the inputs before it; name a shared column, or declare the input broadcast"
    )]
    NotJoined {
        /// The producer.
        producer: String,
        /// The slot.
        slot: String,
    },
    /// An output slot lacks a key column of the bundles.
    #[error(
        "output slot {slot:?} of producer {producer:?} needs key column {column:?} of type {column_type}, by which its bundles are told apart; add the column, or group"
    )]
    OutputColumn {
        /// The producer.
        producer: String,
        /// The output slot.
        slot: String,
        /// The column.
        column: String,
        /// Its type.
        column_type: ColumnType,
    },
    /// A slot and priority has another owner.
    #[error("slot {slot:?} at priority {priority} belongs to {owner}; use another priority")]
    PriorityTaken {
        /// The slot.
        slot: String,
        /// The priority.
        priority: i32,
        /// Who owns it: `client`, or a producer's name.
        owner: String,
    },
    /// The producer would depend on what it provides.
    #[error("producer {producer:?} would close a cycle: {}; break it", path.join(" → "))]
    Cycle {
        /// The producer.
        producer: String,
        /// Slots and producers in turn, from a slot back to itself.
        path: Vec<String>,
    },
    /// The producer would make work for ever later dates.
    #[error(
        "producer {producer:?} would make new dates without end: all that it requires is made of earlier dates of what it gives; require a slot of the same date that is made of something else"
    )]
    Endless {
        /// The producer.
        producer: String,
    },
    /// A run read what is made of what it gives.
    #[error("a run of producer {producer:?} would close a cycle of cells: {}, which it has read; read an earlier date, or give something else", path.join(" → "))]
    CellCycle {
        /// The producer.
        producer: String,
        /// Cells, from an output of the run to what it has read.
        path: Vec<String>,
    },
    /// A set of cells by what are no cell keys of the slot.
    #[error(
        "cells of slot {slot:?} cannot be found by {key} in its cell keys {columns:?}; name cell keys in their order, with values of their types"
    )]
    ScanKey {
        /// The slot.
        slot: String,
        /// The values.
        key: Key,
        /// Positions among the cell keys.
        columns: Vec<u16>,
    },
    /// A run that reports a generation which its cell never had.
    #[error("a run says that it read generation {g} of {cell}, which has {found}; report what was read")]
    UnmadeRead {
        /// The cell: slot, date and key.
        cell: String,
        /// The generation that was reported.
        g: u64,
        /// The cell's generation; 0 where nobody has made it.
        found: u64,
    },
    /// An output that rests on what the run did not read.
    #[error(
        "run {run} of producer {producer:?} says that {slot:?} {key} rests on cell {cell} as its input {input}, which it did not read; name inputs that it has"
    )]
    UnreadUse {
        /// The run.
        run: RunId,
        /// The producer.
        producer: String,
        /// The output slot.
        slot: String,
        /// The output's key.
        key: Key,
        /// The input's position.
        input: u16,
        /// The cell.
        cell: CellId,
    },
    /// No slot has this id.
    #[error("there is no slot {0}; define it first")]
    UnknownSlot(SlotId),
    /// No producer has this id.
    #[error("there is no producer {0}; register it first")]
    UnknownProducer(ProducerId),
    /// No bundle has this id.
    #[error("there is no bundle {0}; start one that is ready")]
    UnknownBundle(BundleId),
    /// No cell has this id.
    #[error("there is no cell {0}; name one that was made")]
    UnknownCell(CellId),
    /// A cell has nothing of this priority.
    #[error("cell {cell} has nothing at priority {priority}; name a priority that it has")]
    NoCandidate {
        /// The cell.
        cell: String,
        /// The priority.
        priority: i32,
    },
    /// A bundle has nothing in work.
    #[error("bundle {bundle} of producer {producer:?} is {status}: there is nothing to cancel; leave it")]
    NothingToCancel {
        /// The bundle.
        bundle: BundleId,
        /// Its producer.
        producer: String,
        /// Its status.
        status: PStatus,
    },
    /// A producer that is no more.
    #[error("producer {producer:?} was deregistered; register it again")]
    Deregistered {
        /// The producer.
        producer: String,
    },
    /// A key has too many or too few values.
    #[error("key {key} has {found} values where slot {slot:?} has {expected} cell keys")]
    KeyWidth {
        /// The slot.
        slot: String,
        /// The key.
        key: Key,
        /// Cell keys of the slot.
        expected: usize,
        /// Values of the key.
        found: usize,
    },
    /// A key value of another type than its column.
    #[error(
        "key {key} has {found} for column {column:?} of slot {slot:?}, which holds {expected}; convert the value"
    )]
    KeyType {
        /// The slot.
        slot: String,
        /// The key.
        key: Key,
        /// The column.
        column: String,
        /// The column's type.
        expected: ColumnType,
        /// The value's type.
        found: ColumnType,
    },
    /// Values that make no key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The bundle cannot start now.
    #[error("bundle {bundle} of producer {producer:?} is {status}, not ready: {reason}")]
    NotReady {
        /// The bundle.
        bundle: BundleId,
        /// Its producer.
        producer: String,
        /// Its status.
        status: PStatus,
        /// Why it cannot start.
        reason: String,
    },
    /// A run number that is in use.
    #[error("run {0} is in flight already; number runs once")]
    RunTaken(RunId),
    /// Starts or ends that cannot be one change.
    #[error("these starts or ends cannot be one change: {what}; make them one after another")]
    Apart {
        /// Why not.
        what: &'static str,
    },
    /// A result of a run that no longer counts. It changed nothing.
    #[error(
        "the result of run {run} with epoch {epoch} was fenced: the run is not in flight in this session; drop the result"
    )]
    Fenced {
        /// The run.
        run: RunId,
        /// The epoch that came with it.
        epoch: u64,
    },
    /// A run gave a slot that its producer does not provide.
    #[error(
        "run {run} of producer {producer:?} gave slot {slot:?}, which it does not provide; declare the output"
    )]
    OutputSlot {
        /// The run.
        run: RunId,
        /// The producer.
        producer: String,
        /// The slot.
        slot: String,
    },
    /// A run gave an output under another bundle's key.
    #[error(
        "run {run} of producer {producer:?} gave key {key} of slot {slot:?}, whose column {column:?} differs from its bundle {bundle}; give outputs of the bundle alone"
    )]
    OutputKey {
        /// The run.
        run: RunId,
        /// The producer.
        producer: String,
        /// The slot.
        slot: String,
        /// The key that was given.
        key: Key,
        /// The column that differs.
        column: String,
        /// The run's bundle.
        bundle: BundleId,
    },
    /// A run gave one cell twice.
    #[error("run {run} of producer {producer:?} gave key {key} of slot {slot:?} twice; give each cell once")]
    DuplicateOutput {
        /// The run.
        run: RunId,
        /// The producer.
        producer: String,
        /// The slot.
        slot: String,
        /// The key.
        key: Key,
    },
    /// The graph is full.
    #[error("the graph has {count} {what}, the most that it can hold; keep less in one database")]
    TooMany {
        /// `slots`, `producers`, `cells` or `bundles`.
        what: &'static str,
        /// How many there are.
        count: usize,
    },
    /// An image that no events can have made, or bytes that are no image.
    #[error("the graph's image is inconsistent: {what}; restore an older one or replay the log")]
    Image {
        /// What is wrong and where.
        what: String,
    },
    /// A proxy or a retry policy that cannot work.
    #[error("producer {producer:?} cannot be registered: {what}")]
    Proxy {
        /// The producer.
        producer: String,
        /// What is wrong.
        what: &'static str,
    },
    /// As many batches of the producer are in work as may be.
    #[error(
        "producer {producer:?} has {limit} batches in work, and may have no more; wait until one ends, or raise max_running"
    )]
    Busy {
        /// The producer.
        producer: String,
        /// The most that there may be.
        limit: u32,
    },
    /// A record that is no event.
    #[error("a graph event cannot be read: {what}; the log record is damaged or of a newer version")]
    Record {
        /// What is wrong and where.
        what: String,
    },
}

macro_rules! rules {
    ($($rule:ident $words:literal)*) => {
        /// The parts of the specification by which events, images and records are refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Rule {
            $($rule),*
        }

        impl Rule {
            #[cfg(test)]
            pub const ALL: &[Rule] = &[$(Rule::$rule),*];

            /// The words with which it begins.
            pub const fn words(self) -> &'static str {
                match self {
                    $(Rule::$rule => $words),*
                }
            }
        }
    };
}

rules! {
    Cells "Cells."
    Candidates "Candidates."
    Producers "Producers"
    Sessions "Sessions."
    Members "Members."
    Freshness "Freshness."
    Proxies "Proxies."
    Groups "Groups."
    Ready "A bundle is ready"
    Ends "A run ends"
    Reads "Reported reads."
    Commands "Commands."
    Image "State image"
    Records "Records"
}

impl GraphError {
    /// The part of the specification that says so: the words with which the paragraph of SPEC.md begins.
    pub fn rule(&self) -> &'static str {
        self.part().words()
    }

    fn part(&self) -> Rule {
        match self {
            GraphError::EmptyName { .. }
            | GraphError::DuplicateColumn { .. }
            | GraphError::KeyColumnType { .. }
            | GraphError::MemberKey { .. }
            | GraphError::DefinitionTooLarge { .. }
            | GraphError::SlotChanged { .. }
            | GraphError::TableTaken { .. }
            | GraphError::UnknownSlot(_)
            | GraphError::UnknownCell(_)
            | GraphError::KeyWidth { .. }
            | GraphError::KeyType { .. }
            | GraphError::Key(_)
            | GraphError::TooMany { .. } => Rule::Cells,
            GraphError::PriorityTaken { .. } | GraphError::NoCandidate { .. } => Rule::Candidates,
            GraphError::ProducerChanged { .. }
            | GraphError::ReservedName { .. }
            | GraphError::NoInput { .. }
            | GraphError::NoOutput { .. }
            | GraphError::DuplicateInput { .. }
            | GraphError::InputColumn { .. }
            | GraphError::InputColumnTwice { .. }
            | GraphError::FilterValue { .. }
            | GraphError::OwnSlot { .. }
            | GraphError::DuplicateSlot { .. }
            | GraphError::UnknownSlotName { .. }
            | GraphError::JoinType { .. }
            | GraphError::NotJoined { .. }
            | GraphError::OutputColumn { .. }
            | GraphError::Cycle { .. }
            | GraphError::Endless { .. }
            | GraphError::UnknownProducer(_) => Rule::Producers,
            GraphError::DaemonInput { .. }
            | GraphError::DaemonRuns { .. }
            | GraphError::ClosureLease { .. }
            | GraphError::NoDaemon { .. }
            | GraphError::NotProvided { .. }
            | GraphError::SessionOver { .. }
            | GraphError::SessionTaken { .. }
            | GraphError::Duplicate { .. } => Rule::Sessions,
            GraphError::Member { .. } | GraphError::NoMembers { .. } => Rule::Members,
            GraphError::Skew { .. } | GraphError::SlotTime { .. } => Rule::Freshness,
            GraphError::Proxy { .. } | GraphError::Busy { .. } => Rule::Proxies,
            GraphError::GroupColumn { .. } => Rule::Groups,
            GraphError::UnknownBundle(_) | GraphError::NotReady { .. } | GraphError::RunTaken(_) => {
                Rule::Ready
            }
            GraphError::Fenced { .. }
            | GraphError::Apart { .. }
            | GraphError::OutputSlot { .. }
            | GraphError::OutputKey { .. }
            | GraphError::UnreadUse { .. }
            | GraphError::DuplicateOutput { .. } => Rule::Ends,
            GraphError::CellCycle { .. } | GraphError::ScanKey { .. } | GraphError::UnmadeRead { .. } => {
                Rule::Reads
            }
            GraphError::NothingToCancel { .. } | GraphError::Deregistered { .. } => Rule::Commands,
            GraphError::Image { .. } => Rule::Image,
            GraphError::Record { .. } => Rule::Records,
        }
    }
}
