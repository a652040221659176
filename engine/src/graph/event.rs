//! What happens to the graph. The state is a fold of [`super::Graph::apply`] over these.

use super::definition::{ProducerDefinition, SlotDefinition};
use super::ids::{BundleId, ContentId, ProducerId, RunId, SlotDate, SlotId};
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
    Attach(ProducerId),
    /// The process started again: every producer is detached, and runs in flight are interrupted.
    Reopen,
    /// Data written and retracted by a client.
    Commit {
        /// Writes in order; of several to one candidate the last counts.
        writes: Vec<Write>,
        /// Dates for which no further keys are announced. Later commits for such a date are still accepted.
        ends: Vec<SlotDate>,
    },
    /// A ready bundle starts.
    Start {
        /// The bundle.
        bundle: BundleId,
        /// The number of the run.
        run: RunId,
    },
    /// A run returned.
    End {
        /// The run.
        run: RunId,
        /// The epoch that [`super::Started`] gave.
        epoch: u64,
        /// What it returned.
        outcome: Outcome,
    },
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
    /// Outputs. Cells that the bundle gave before and that are not listed become absent.
    Data(Vec<OutputWrite>),
    /// The producer decided that there is nothing to give, with its reason. All its outputs become absent.
    Declined(String),
    /// The run failed for good (a fatal error or a panic), with its message. The last good data stays readable.
    Failed(String),
}

/// One output cell of a run; its date is the bundle's.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputWrite {
    /// A slot that the producer provides.
    pub slot: SlotId,
    /// The key, of the types of the slot's cell keys; it carries the bundle's key values.
    pub key: Key,
    /// The content, or `None` for an absent output.
    pub content: Option<ContentId>,
}
