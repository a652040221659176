//! What happens to the graph. The state is a fold of [`super::Graph::apply`] over these.

use std::time::Duration;

use underbelly_storage::Timestamp;

use super::definition::{ProducerDefinition, SlotDefinition};
use super::ids::{BundleId, CellId, ContentId, ProducerId, RunId, SlotDate, SlotId};
use super::key::Key;

/// One sequenced change.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Defines a slot. The same definition again changes nothing.
    DefineSlot(SlotDefinition),
    /// Registers a producer, detached. The same definition again changes nothing.
    Register(ProducerDefinition),
    /// The process has the producer's code: its notifications are acknowledged and its bundles may start.
    /// Raises the producer's epoch; changes nothing where it is attached already.
    Attach {
        /// The producer.
        producer: ProducerId,
        /// Where its runs take place, if that is known.
        host: Option<Host>,
    },
    /// The process started again: every producer is detached, and runs in flight are interrupted.
    Reopen,
    /// The session of an attached producer is over; it stays registered. Its epoch rises, and its runs are cut off.
    Detach {
        /// The producer.
        producer: ProducerId,
        /// The epoch of the session.
        epoch: u64,
        /// Whether it gave no sign of life, which is an alarm.
        lost: bool,
    },
    /// Data written and retracted by a client, or by a daemon.
    Commit(Submission),
    /// A ready bundle starts.
    Start {
        /// The bundle.
        bundle: BundleId,
        /// The number of the run.
        run: RunId,
        /// The first run of its batch; its own number where it is the first.
        batch: RunId,
    },
    /// A run returned.
    End {
        /// The run.
        run: RunId,
        /// The epoch that [`super::Started`] gave.
        epoch: u64,
        /// What it returned.
        outcome: Outcome,
        /// What it read beside its inputs, whatever it returned.
        reads: Vec<Read>,
    },
    /// Starts of the runs of one batch, or plain ends of runs of one producer, as one change: all of them or none.
    Several(Vec<Event>),
    /// The data of one candidate of a cell is taken back, whoever owns it: its result is now absent.
    Retract {
        /// The cell.
        cell: CellId,
        /// The candidate's priority.
        priority: i32,
    },
    /// A bundle is to run again although nothing changed, as soon as its inputs allow. Its attempts count anew.
    Force(BundleId),
    /// What a bundle has in work ends without data: its outputs get this error.
    Cancel {
        /// The bundle.
        bundle: BundleId,
        /// Why.
        reason: String,
    },
    /// Time has passed: what waited until now, or until an earlier time, waits no more; of very many those that come first.
    Tick,
    /// The producer is no more: its runs are fenced, its bundles are dropped. Its data stays.
    Deregister(ProducerId),
}

/// A process on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The machine's name.
    pub machine: String,
    /// The process on it.
    pub process: u32,
}

/// What a client or a daemon commits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Submission {
    /// Writes in order; of several to one candidate the last counts.
    pub writes: Vec<Write>,
    /// Dates for which no further keys are announced. Later commits for such a date are still accepted.
    pub ends: Vec<SlotDate>,
    /// Work that it makes comes after all other.
    pub backfill: bool,
    /// When its data was made; the time of the commit where it is not told.
    pub as_of: Option<Timestamp>,
    /// The daemon that commits, or `None` for a client.
    pub session: Option<Stamp>,
    /// Times by which slots are to be up to date.
    pub deadlines: Vec<Deadline>,
}

/// In which session a daemon commits, and as which of its commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The daemon.
    pub producer: ProducerId,
    /// The epoch of its session.
    pub epoch: u64,
    /// Its own number of the commit, which rises: a commit whose number is not above the last one's was accepted before.
    pub sequence: u64,
}

/// That a slot is to be up to date for a date by a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline {
    /// The time.
    pub due_by: Timestamp,
    /// The slot.
    pub slot: SlotId,
    /// The date.
    pub date: SlotDate,
}

/// A client's write to one candidate of a cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// The slot.
    pub slot: SlotId,
    /// The date.
    pub date: SlotDate,
    /// The key, of the types of the slot's cell keys.
    pub key: Key,
    /// The candidate's priority; clients use 0 unless they say otherwise.
    pub priority: i32,
    /// The content, or `None` to retract. Retracting what was never written changes nothing.
    pub content: Option<ContentId>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// A result for each output. Cells that the bundle gave before and that are not listed become absent.
    Data(Vec<OutputWrite>),
    /// The producer decided that there is nothing to give, with its reason. All its outputs become absent.
    Declined(String),
    /// The run failed for good (a fatal error or a panic), with its message. The last good data stays readable.
    Failed(String),
    /// The run gave nothing and is to be tried again. No result is left, but where attempts are used up.
    Again {
        /// Why.
        why: Setback,
        /// Its message.
        message: String,
        /// The bundle does not start before so much later.
        wait: Duration,
    },
}

/// Why a run is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setback {
    /// It failed, and may succeed later: an attempt is used.
    Failed,
    /// It was not taken up: no attempt is used.
    Rejected,
    /// Its batch died and told nothing of single bundles: it runs in a batch of at most so many, and no attempt is used.
    Halved(u32),
}

/// One output cell of a run; its date is the bundle's.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputWrite {
    /// A slot that the producer provides.
    pub slot: SlotId,
    /// The key, of the types of the slot's cell keys; it carries the bundle's key values.
    pub key: Key,
    /// The result.
    pub given: Given,
    /// The inputs on which it rests; `None` for all that the run read.
    pub uses: Option<Vec<Used>>,
}

impl OutputWrite {
    /// An output with this result, which rests on all that the run read.
    pub fn new(slot: SlotId, key: Key, given: Given) -> OutputWrite {
        OutputWrite { slot, key, given, uses: None }
    }

    /// An output with data.
    pub fn data(slot: SlotId, key: Key, content: ContentId) -> OutputWrite {
        OutputWrite::new(slot, key, Given::Data(content))
    }

    /// The contents, if there are any.
    pub fn content(&self) -> Option<ContentId> {
        match self.given {
            Given::Data(content) => Some(content),
            Given::Absent | Given::Error(_) => None,
        }
    }
}

/// The result of one output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// Data.
    Data(ContentId),
    /// There is nothing to give.
    Absent,
    /// It failed for good, with its message. The last good data stays readable.
    Error(String),
}

/// A cell that a run read as one of its inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Used {
    /// Position among the producer's inputs.
    pub input: u16,
    /// The cell.
    pub cell: CellId,
}

/// What a run read beside its inputs.
#[derive(Clone, Debug, PartialEq)]
pub enum Read {
    /// A cell, or that there was none.
    Cell {
        /// The slot.
        slot: SlotId,
        /// The date.
        date: SlotDate,
        /// The key.
        key: Key,
        /// The generation that was read; `None` where there was no data.
        g: Option<u64>,
    },
    /// All cells of a slot and date that have these values in these cell keys. Each cell that was found is reported beside.
    Scan {
        /// The slot.
        slot: SlotId,
        /// The date.
        date: SlotDate,
        /// Positions among the slot's cell keys, rising.
        columns: Vec<u16>,
        /// Their values.
        key: Key,
    },
}
