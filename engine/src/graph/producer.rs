//! A producer at work: its join plans, its place in the name graph and its open bundles.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use underbelly_storage::ColumnType;

use super::above::Above;
use super::bundle::Bundle;
use super::class::Need;
use super::definition::{Group, Mode, ProducerDefinition};
use super::event::Host;
use super::hold::{Hold, OpenBy};
use super::ids::{BundleId, ProducerId, SlotDate, SlotId};
use super::join::Plan;
use super::key::Key;
use super::reach::Reach;
use super::state::PStatus;

#[derive(Clone, Debug)]
pub(super) struct Producer {
    pub definition: ProducerDefinition,
    pub inputs: Vec<SlotId>,
    /// What each input asks of its cells.
    pub needs: Vec<Need>,
    /// Provided slots and their priorities.
    pub outputs: BTreeMap<SlotId, i32>,
    /// The union of the required inputs' cell keys in order of appearance; empty for a group.
    pub columns: Vec<(String, ColumnType)>,
    /// For each required input, the bundle column of each of its cell keys; empty for a group.
    pub input_columns: Vec<Vec<u16>>,
    /// How bundles find the cells of each input that is not required.
    pub reaches: Vec<Option<Reach>>,
    /// Exclusive inputs on slots that it provides.
    pub above: Vec<Above>,
    /// Producers whose open work holds its bundles.
    pub holds: Vec<Hold>,
    /// Its own open work, for those that it holds.
    pub open_by: Vec<OpenBy>,
    /// For each provided slot, the position in its key of each bundle column.
    pub output_positions: BTreeMap<SlotId, Vec<u16>>,
    /// How to join, starting from each required input; empty for a group.
    pub plans: Vec<Plan>,
    /// Greater than the rank of every input.
    pub rank: u32,
    pub attached: bool,
    /// It is no more; its number is not used again.
    pub deregistered: bool,
    /// Where its runs take place, if that is known.
    pub host: Option<Host>,
    pub epoch: u64,
    pub bundles: HashMap<(SlotDate, Key), BundleId>,
    /// Producers from whose outputs this one's inputs are made, through any number of steps.
    pub upstream: Vec<ProducerId>,
    /// Grouping producers that have this one upstream.
    pub groups_downstream: Vec<ProducerId>,
    /// Number of open bundles by date, where there are any.
    pub open: BTreeMap<SlotDate, u64>,
    pub open_bundles: BTreeSet<BundleId>,
    /// Number of bundles in each status, by [`PStatus::place`].
    pub statuses: [u64; PStatus::ALL.len()],
    /// Runs that were started, of all bundles.
    pub runs: u64,
}

impl Producer {
    /// Whether it has seen the newest work of a bundle of its own.
    pub fn acknowledges(&self, bundle: &Bundle) -> bool {
        self.attached || bundle.unseen != Some(self.epoch)
    }

    /// The mark of work that arrives now.
    pub fn unseen(&self) -> Option<u64> {
        (!self.attached).then_some(self.epoch)
    }

    /// Whether this input looks at better candidates of a slot that the producer itself provides.
    pub fn is_above(&self, input: usize) -> bool {
        self.above.iter().any(|above| usize::from(above.input) == input)
    }

    /// The required inputs.
    pub fn required(&self) -> impl Iterator<Item = (u16, SlotId)> + '_ {
        let inputs = (0..).zip(self.inputs.iter().copied()).zip(&self.needs);
        inputs.filter(|(_, need)| need.mode == Mode::Required).map(|(input, _)| input)
    }

    pub fn is_group(&self) -> bool {
        self.definition.group != Group::Each
    }
}
