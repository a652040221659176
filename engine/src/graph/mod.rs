//! The slot graph: slots, cells, producers, bundles, and what each change makes stale or ready.
//!
//! A pure core. [`Graph::apply`] folds [`Event`]s into facts and answers with [`Effects`]; there is no I/O, no
//! thread and no clock inside, and the same events give the same state and the same ids.
//!
//! Ideas: edges compared by the generation that was read, and work cut off where a value comes out equal, as
//! in red-green invalidation (Salsa, rustc) and in self-adjusting computation; settling by rank is the
//! topological order of Jane Street's Incremental.
//!
//! Invariants:
//! - State is derived from facts; counters are a recount of edge classes.
//! - A generation rises exactly when effective content or its presence changes.
//! - The bundles of a joining producer are the natural join of its input cells.
//! - A run starts only when every required input is usable or lagging, and one run of a bundle at a time.
//! - A refused event, a fenced result among them, changes nothing.
//!
//! In reading order: `ids`, `key`, `definition`, `event`, `effect`, `state` and `error` are the vocabulary;
//! `cell`, `candidate`, `bundle`, `cells`, `edges`, `directory`, `slot` and `producer` the facts, `class` what follows from an edge; `register`,
//! `check`, `apply` and `command` turn events into facts; `join` and `group` make bundles, `reach` finds their other
//! inputs, `reads` what runs report, `above` better candidates, and `hold` what may still be made; `batches` says what starts together; `order` is that in which a `pass` reaches what
//! depends on the facts, `propagate` moves edges and `settle` brings the rest up to date; `query`, `rows`, `lineage` and `why`
//! answer; `record` is the form in which events are stored, `fact` that of facts; `ledger` knows which facts changed, and
//! `restore` makes a graph of stored ones.

mod above;
mod apply;
mod batches;
mod bits;
mod bundle;
mod candidate;
mod cell;
mod cells;
mod check;
mod class;
mod command;
mod definition;
mod directory;
mod edges;
mod effect;
mod error;
mod event;
mod fact;
mod fresh;
mod group;
mod hold;
mod ids;
mod info;
mod input;
mod join;
mod key;
mod ledger;
mod lineage;
mod order;
mod pass;
mod producer;
mod propagate;
mod query;
mod quorum;
mod reach;
mod reads;
mod record;
mod register;
mod restore;
mod rows;
mod session;
mod settle;
mod slot;
mod state;
#[cfg(test)]
mod tests;
mod why;

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use underbelly_storage::Timestamp;

pub use definition::{
    Filter, FilterTest, Group, Input, Mode, Output, ProducerDefinition, Proxy, Retry, SlotDefinition,
    Trigger, When,
};
pub use effect::{Alarm, Effects, Ended, Interrupted, RunInput, Started, Superseded, Transition};
pub use error::GraphError;
pub use event::{
    Deadline, Event, Given, Host, Outcome, OutputWrite, Read, Setback, Stamp, Submission, Used, Write,
};
pub use fact::Fact;
pub use ids::{BundleId, CellId, ContentId, ProducerId, RunId, SlotDate, SlotId};
pub use info::{
    BundleInfo, Cause, CellInfo, CellRow, EdgeRow, Extent, Link, Obligation, RunInfo, StateCounts, Tree,
    TreeNode, Why, WhyKind,
};
pub use key::{Key, KeyError};
pub use ledger::Captured;
pub use record::EventV1;
pub use register::DEFINITION_PARTS_MAX;
pub use restore::Restorer;
pub use rows::Step;
pub use state::{PStatus, State, View};

/// Interruptions in a row at which a bundle has failed.
pub const INTERRUPTIONS_MAX: u32 = 3;

/// The state of all slots and producers.
#[derive(Clone, Debug)]
pub struct Graph {
    slots: Vec<slot::Slot>,
    /// Slots by the names of their tables.
    tables: HashMap<String, SlotId>,
    producers: Vec<producer::Producer>,
    producer_names: HashMap<String, ProducerId>,
    /// Grouping producers.
    groups: Vec<ProducerId>,
    cells: Vec<cell::Cell>,
    sheets: Vec<cell::Sheet>,
    bundles: Vec<bundle::Bundle>,
    /// Of each bundle what a change of its inputs moves.
    tallies: Vec<bundle::Tally>,
    /// What was read over edges that are too far behind to tell themselves.
    far: edges::Far,
    runs: BTreeMap<RunId, BundleId>,
    /// Producers that may start a batch, by the place in the queue of its first bundle.
    firing: BTreeSet<(u64, ProducerId)>,
    /// Producers that may start a batch at a time.
    gathering: BTreeSet<(Timestamp, ProducerId)>,
    /// Bundles that wait for a time, and for which.
    backing_off: BTreeSet<(Timestamp, BundleId)>,
    /// What grows old.
    ages: fresh::Ages,
    /// Deadlines that have not passed unnoticed and were not met.
    deadlines: fresh::Deadlines,
    /// Bundles that wait for the end of their date, and until when at most.
    cutoffs: BTreeSet<(Timestamp, BundleId)>,
    /// Producers whose session is awaited after the process started again, and until when.
    awaited: BTreeSet<(Timestamp, ProducerId)>,
    /// The next place in the queue; 0 is the place of bundles that never had one.
    next_order: u64,
    ends: BTreeSet<SlotDate>,
    /// How many bundles have edges from what their runs reported.
    reporting: usize,
    /// The slots of which runs have reported reads, each with the producer.
    read_names: std::collections::BTreeMap<(SlotId, ProducerId), reads::ReadName>,
    /// That of the next pass, empty.
    queue: order::Queue,
    /// Which facts changed since they were last stored.
    ledger: ledger::Ledger,
}

impl Default for Graph {
    fn default() -> Graph {
        Graph::new()
    }
}

impl Graph {
    /// A graph without slots and producers.
    pub fn new() -> Graph {
        Graph {
            slots: Vec::new(),
            tables: HashMap::new(),
            producers: Vec::new(),
            producer_names: HashMap::new(),
            groups: Vec::new(),
            cells: Vec::new(),
            sheets: Vec::new(),
            bundles: Vec::new(),
            tallies: Vec::new(),
            far: HashMap::new(),
            runs: BTreeMap::new(),
            firing: BTreeSet::new(),
            gathering: BTreeSet::new(),
            backing_off: BTreeSet::new(),
            ages: Default::default(),
            deadlines: Default::default(),
            cutoffs: BTreeSet::new(),
            awaited: BTreeSet::new(),
            next_order: 1,
            ends: BTreeSet::new(),
            reporting: 0,
            read_names: Default::default(),
            queue: order::Queue::default(),
            ledger: ledger::Ledger::default(),
        }
    }
}
