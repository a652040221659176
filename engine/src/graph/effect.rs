//! What an applied event did, for the engine to act on and to log.

use super::event::Deadline;
use super::ids::{BundleId, CellId, ContentId, ProducerId, RunId, SlotDate, SlotId};
use super::key::Key;
use super::state::State;

/// What one event did, in the order in which it happened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// The slot that was defined, or existed already.
    pub slot: Option<SlotId>,
    /// The producer that was registered, or existed already.
    pub producer: Option<ProducerId>,
    /// Cells that did not exist before.
    pub created: Vec<CellId>,
    /// Changes of state, sources before what depends on them.
    pub transitions: Vec<Transition>,
    /// Bundles that became ready to start.
    pub ready: Vec<BundleId>,
    /// Producers that have room for a batch and had none.
    pub freed: Vec<ProducerId>,
    /// The runs that were started.
    pub started: Vec<Started>,
    /// The runs that ended.
    pub ended: Vec<Ended>,
    /// Runs that a reopening or the end of a session cut off.
    pub interrupted: Vec<Interrupted>,
    /// What somebody is to look at.
    pub alarms: Vec<Alarm>,
    /// Cells whose effective content changed: the cell, its content now, its generation now.
    pub contents: Vec<(CellId, Option<ContentId>, u64)>,
    /// What those cells held before, where they held or had held something.
    pub superseded: Vec<Superseded>,
    /// Contents that a candidate got. One that several candidates got comes several times.
    pub held: Vec<ContentId>,
    /// Contents that a candidate had and has no more.
    pub released: Vec<ContentId>,
}

/// What somebody is to look at. Each sounds once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Alarm {
    /// A cell's data is older than its slot says that it is fresh.
    Aged(CellId),
    /// A slot was not up to date for a date when it should have been.
    Overdue(Deadline),
    /// A producer's session gave no sign of life.
    Lost(ProducerId),
}

/// What a cell held before an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superseded {
    /// The cell.
    pub cell: CellId,
    /// The commit that made it so.
    pub seq: u64,
    /// The generation.
    pub g: u64,
    /// The contents; `None` where there were none any more.
    pub content: Option<ContentId>,
}

/// A cell's change of state, or of its data while it is updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The cell.
    pub cell: CellId,
    /// Before.
    pub from: State,
    /// After.
    pub to: State,
    /// The generation after the event.
    pub g: u64,
}

/// A run that begins: what to run and what it reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Started {
    /// The run.
    pub run: RunId,
    /// To be given back with the result.
    pub epoch: u64,
    /// The bundle.
    pub bundle: BundleId,
    /// Its producer.
    pub producer: ProducerId,
    /// Its date.
    pub date: SlotDate,
    /// Its key values; see [`super::Graph::bundle_columns`] for their names.
    pub key: Key,
    /// Failures in a row before it.
    pub attempts: u32,
    /// What is read, by input, then by key.
    pub inputs: Vec<RunInput>,
}

/// One cell that a run reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunInput {
    /// Position among the producer's inputs.
    pub input: usize,
    /// The cell.
    pub cell: CellId,
    /// Its generation.
    pub g: u64,
    /// Its content.
    pub content: ContentId,
}

/// A run that ended and was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The run.
    pub run: RunId,
    /// The bundle.
    pub bundle: BundleId,
    /// Its producer.
    pub producer: ProducerId,
    /// Cells that got data, equal or not.
    pub outputs: Vec<CellId>,
    /// Cells that had data of this bundle and have none now.
    pub absent: Vec<CellId>,
}

/// A run that a reopening or the end of a session cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted {
    /// The run.
    pub run: RunId,
    /// The bundle.
    pub bundle: BundleId,
    /// Interruptions in a row, this one included. At [`super::INTERRUPTIONS_MAX`] the bundle has failed.
    pub in_a_row: u32,
}
