//! A producer at work: its join plans, its place in the name graph and its open bundles.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use underbelly_storage::{ColumnType, Timestamp};

use super::above::Above;
use super::batches::Ready;
use super::bundle::Bundle;
use super::class::Need;
use super::definition::{Group, Mode, ProducerDefinition, Trigger, When};
use super::directory::Directory;
use super::event::Host;
use super::hold::{Hold, OpenBy};
use super::ids::{BundleId, RunId, SlotDate, SlotId};
use super::input::Filters;
use super::join::Join;
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
    /// As which member it provides a slot.
    pub memberships: BTreeMap<SlotId, Arc<str>>,
    /// The columns by which bundles are addressed: those of the join, or of a group.
    pub columns: Vec<(String, ColumnType)>,
    /// What each input asks of a cell's key.
    pub filters: Vec<Filters>,
    pub join: Join,
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
    /// Greater than the rank of every input of the same date.
    pub rank: u32,
    pub attached: bool,
    /// It is no more; its number is not used again.
    pub deregistered: bool,
    /// Where its runs take place, if that is known.
    pub host: Option<Host>,
    pub epoch: u64,
    /// Of a daemon, the number of its last commit.
    pub sequence: Option<u64>,
    /// When its session was given up, where none began since.
    pub lost_at: Option<Timestamp>,
    /// Until when a session is awaited after the process started again.
    pub awaited: Option<Timestamp>,
    pub bundles: Directory,
    /// Its bundles by date, where work upstream holds them.
    pub by_date: BTreeMap<SlotDate, Vec<BundleId>>,
    pub open_bundles: BTreeSet<BundleId>,
    /// Number of bundles in each status, by [`PStatus::place`].
    pub statuses: [u64; PStatus::ALL.len()],
    /// Runs that were started, of all bundles.
    pub runs: u64,
    pub ready: Ready,
    /// Batches in work, and how many runs of each are in flight.
    pub batches: BTreeMap<RunId, u32>,
}

impl Producer {
    /// As which member it provides a slot.
    pub fn member(&self, slot: SlotId) -> Option<Arc<str>> {
        self.memberships.get(&slot).cloned()
    }

    /// All its bundles, in no order.
    pub fn all_bundles(&self) -> impl Iterator<Item = BundleId> + '_ {
        self.bundles.numbers().map(BundleId)
    }

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

    /// What is asked of a cell that is read as this input.
    pub fn need(&self, input: u16) -> Need {
        self.needs.get(usize::from(input)).copied().unwrap_or(Need::OF_READS)
    }

    /// The required inputs.
    pub fn required(&self) -> impl Iterator<Item = (u16, SlotId)> + '_ {
        let inputs = (0..).zip(self.inputs.iter().copied()).zip(&self.needs);
        inputs.filter(|(_, need)| need.mode == Mode::Required).map(|(input, _)| input)
    }

    pub fn is_group(&self) -> bool {
        self.definition.group != Group::Each
    }

    /// Whether its bundles start when nothing upstream is in work for their date.
    pub fn is_dependent(&self) -> bool {
        self.definition.proxy.trigger == Trigger::Dependent
    }

    /// Whether work upstream holds its bundles, whatever their inputs are.
    pub fn awaits_others(&self) -> bool {
        self.is_group() || self.is_dependent()
    }

    /// Whether its bundles start only when their scope is closed.
    pub fn awaits_all(&self) -> bool {
        self.is_dependent() || matches!(self.definition.group, Group::By { when: When::Complete, .. })
    }
}
