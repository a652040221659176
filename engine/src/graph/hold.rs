//! Bundles wait for what may still be made. What was never made has no edges that would speak for it: so a bundle is held
//! while a producer from which one of its optional, exclusive or grouped inputs is made, through any number of steps,
//! has open work for the date that agrees on every key column which the steps between them carry over. Of a dependent
//! producer each input holds, and keys do not matter.
//!
//! Work that has committed while its own inputs moved, and not settled since, holds only groups that wait for all: else a
//! fast source would hold for ever. Where the way back turns in a circle through inputs of earlier dates, the latest date
//! counts.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;

use super::Graph;
use super::ids::{BundleId, ProducerId, SlotDate, SlotId};
use super::key::Key;
use super::order::Node;
use super::pass::Pass;
use super::producer::Producer;

/// A producer whose open work holds bundles, and the columns on which both must agree.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    pub ancestor: ProducerId,
    /// Whether it speaks of required inputs, of a dependent producer of all, and not of optional and exclusive ones.
    of_group: bool,
    /// Whether work that lags holds too.
    all: bool,
    /// How many days earlier the ancestor's work is.
    lag: u32,
    /// Positions of the shared columns among those of the held bundles.
    columns: Vec<u16>,
    /// The entry of the ancestor's `open_by`.
    entry: usize,
    /// The bundles that may be held, by the ancestor's date and the values of the shared columns.
    bundles: HashMap<(SlotDate, Key), Vec<BundleId>>,
}

/// Open work of a producer by date and the values of some columns.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenBy {
    /// Positions among the producer's bundle columns.
    columns: Vec<u16>,
    counts: HashMap<(SlotDate, Key), Open>,
    /// Whether it holds bundles of later dates.
    is_lagged: bool,
    /// The highest lift of a bundle, open or not; where no later date is held, of those that are lifted.
    lifts: HashMap<(SlotDate, Key), u32>,
    /// Producers whose bundles it holds, and as which of their holds.
    holders: Vec<(ProducerId, usize)>,
}

/// How many bundles are open, and how many of them do not lag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Open {
    all: u32,
    firm: u32,
}

/// What of a bundle's work holds others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Holding {
    pub open: bool,
    pub lagging: bool,
}

impl Holding {
    fn counts(self) -> Open {
        Open { all: u32::from(self.open), firm: u32::from(self.open && !self.lagging) }
    }
}

/// Columns of held bundles, each with its position somewhere up the way.
type Carried = Vec<(u16, u16)>;

/// A slot on the way back, at how many days before the held bundle and above which priority, if that matters.
type Step = (u32, SlotId, Option<i32>, Carried);

impl Producer {
    /// The bundle columns that an input has, each with its position among the input's cell keys; and above which
    /// priority of its slot it looks.
    fn carried(&self, input: usize) -> (Option<i32>, Carried) {
        if let Some(Some(reach)) = self.reaches.get(input) {
            return (None, reach.columns.iter().copied().zip(reach.positions.iter().copied()).collect());
        }
        if let Some(above) = self.above.iter().find(|above| usize::from(above.input) == input) {
            let slot = self.inputs.get(input);
            let positions = slot.and_then(|slot| self.output_positions.get(slot)).into_iter().flatten();
            return (Some(above.priority), (0..).zip(positions.copied()).collect());
        }
        (None, self.join.shared(input as u16))
    }

    fn step(&self, input: usize, lag: u32, slot: SlotId) -> Step {
        let (priority, carried) = self.carried(input);
        let own = self.definition.inputs.get(input).map_or(0, |input| input.lag);
        (lag.saturating_add(own), slot, priority, carried)
    }
}

impl Graph {
    /// What holds the bundles of a producer: each ancestor through the inputs that make no bundles, or through those of a
    /// group or a dependent producer, with the columns that are carried over from it, and how many days earlier its work is.
    fn ancestors(&self, id: ProducerId, of_group: bool) -> BTreeMap<(ProducerId, Carried), u32> {
        let producer = &self.producers[id.at()];
        if producer.deregistered {
            return BTreeMap::new();
        }
        let mut left: BTreeSet<Step> = BTreeSet::new();
        for (input, slot) in producer.inputs.iter().enumerate() {
            let is_required = producer.reaches[input].is_none() && !producer.is_above(input);
            let all = of_group && producer.is_dependent();
            if all || (is_required == of_group && (!of_group || producer.is_group())) {
                let mut step = producer.step(input, 0, *slot);
                if all {
                    // All of the date.
                    step.3.clear();
                }
                left.insert(step);
            }
        }
        let mut seen = BTreeSet::new();
        let mut found = BTreeMap::new();
        while let Some((lag, slot, priority, carried)) = left.pop_first() {
            if !seen.insert((slot, priority, carried.clone())) {
                continue;
            }
            for ((own, _), provider) in &self.slots[slot.at()].providers {
                if priority.is_some_and(|priority| *own <= priority) {
                    continue;
                }
                let producer = &self.producers[provider.at()];
                if producer.definition.daemon {
                    continue;
                }
                let Some(positions) = producer.output_positions.get(&slot) else { continue };
                let column = |at: u16| positions.iter().position(|own| *own == at).map(|at| at as u16);
                let mut to: Carried =
                    carried.iter().filter_map(|(own, at)| Some((*own, column(*at)?))).collect();
                to.sort_unstable();
                for (input, slot) in producer.inputs.iter().enumerate() {
                    let (lag, slot, priority, shared) = producer.step(input, lag, *slot);
                    let at = |column: u16| shared.iter().find(|(own, _)| *own == column).map(|(_, at)| *at);
                    let up = to.iter().filter_map(|(own, column)| Some((*own, at(*column)?))).collect();
                    left.insert((lag, slot, priority, up));
                }
                found.entry((*provider, to)).or_insert(lag);
            }
        }
        found
    }

    /// Works out anew who holds whom, after a registration.
    pub(super) fn plan_holds(&mut self) {
        self.producers.iter_mut().for_each(|producer| producer.open_by.clear());
        for at in 0..self.producers.len() {
            let id = ProducerId(at as u32);
            let mut holds: Vec<Hold> = Vec::new();
            for of_group in [false, true] {
                if self.producers[at].deregistered {
                    break;
                }
                let all = of_group && self.producers[at].awaits_all();
                for ((ancestor, carried), lag) in self.ancestors(id, of_group) {
                    let (columns, theirs): (Vec<u16>, Vec<u16>) = carried.into_iter().unzip();
                    let open_by = &mut self.producers[ancestor.at()].open_by;
                    let found = open_by.iter().position(|open| open.columns == theirs);
                    let entry = found.unwrap_or(open_by.len());
                    if found.is_none() {
                        open_by.push(OpenBy { columns: theirs, ..OpenBy::default() });
                    }
                    open_by[entry].is_lagged |= lag > 0;
                    open_by[entry].holders.push((id, holds.len()));
                    let bundles = HashMap::new();
                    holds.push(Hold { ancestor, of_group, all, lag, columns, entry, bundles });
                }
            }
            self.producers[at].holds = holds;
        }
        for bundle in (0..self.bundles.len() as u32).map(BundleId) {
            self.note_hold(bundle);
            self.note_lift(bundle);
            self.count_holding(bundle, Holding::default(), self.tallies[bundle.at()].holding);
        }
    }

    /// A bundle was made: what may hold it is settled before it, and what it may hold behind it.
    pub(super) fn note_holds(&mut self, id: BundleId) {
        self.note_hold(id);
        self.lift_above_holds(id);
        for (bundle, lift) in self.note_lift(id) {
            self.lift(Node::Bundle(bundle), lift);
        }
    }

    /// Lifts a bundle above those that may hold it.
    pub(super) fn lift_above_holds(&mut self, id: BundleId) {
        let bundle = &self.bundles[id.at()];
        let owner = &self.producers[bundle.producer.at()];
        let over = |hold: &Hold| {
            let ancestor = &self.producers[hold.ancestor.at()];
            let place = (bundle.date.earlier(hold.lag)?, bundle.key.project(&hold.columns));
            let lift = ancestor.open_by.get(hold.entry)?.lifts.get(&place)?;
            Some(lift + u32::from(ancestor.rank >= owner.rank))
        };
        if let Some(lift) = owner.holds.iter().filter_map(over).max() {
            self.lift(Node::Bundle(id), lift);
        }
    }

    /// Takes in how far a bundle is lifted; the bundles that it may hold, and how far they are to be lifted.
    pub(super) fn note_lift(&mut self, id: BundleId) -> Vec<(BundleId, u32)> {
        let bundle = &self.bundles[id.at()];
        let (lift, producer) = (self.tallies[id.at()].lift, bundle.producer);
        let mut entries = Vec::new();
        for (entry, open) in self.producers[producer.at()].open_by.iter_mut().enumerate() {
            if lift > 0 || open.is_lagged {
                let place = (bundle.date, bundle.key.project(&open.columns));
                let before = open.lifts.get(&place).copied();
                if before.is_none_or(|before| lift > before) {
                    open.lifts.insert(place.clone(), lift);
                    entries.push((entry, place));
                }
            }
        }
        let rank = self.producers[producer.at()].rank;
        let mut held = Vec::new();
        for (entry, place) in entries {
            for (holder, hold) in &self.producers[producer.at()].open_by[entry].holders {
                let holder = &self.producers[holder.at()];
                let bundles = holder.holds.get(*hold).and_then(|hold| hold.bundles.get(&place));
                let lift = lift + u32::from(rank >= holder.rank);
                held.extend(bundles.into_iter().flatten().map(|bundle| (*bundle, lift)));
            }
        }
        held
    }

    /// The bundles that work of a bundle may hold.
    pub(super) fn may_hold(&self, id: BundleId) -> Vec<BundleId> {
        let bundle = &self.bundles[id.at()];
        let mut held = Vec::new();
        for open in &self.producers[bundle.producer.at()].open_by {
            let place = (bundle.date, bundle.key.project(&open.columns));
            for (holder, hold) in &open.holders {
                let holds = self.producers[holder.at()].holds.get(*hold);
                held.extend(holds.and_then(|hold| hold.bundles.get(&place)).into_iter().flatten());
            }
        }
        held
    }

    fn note_hold(&mut self, id: BundleId) {
        let bundle = &self.bundles[id.at()];
        for hold in &mut self.producers[bundle.producer.at()].holds {
            if let Some(date) = bundle.date.earlier(hold.lag) {
                let place = (date, bundle.key.project(&hold.columns));
                hold.bundles.entry(place).or_default().push(id);
            }
        }
    }

    /// Counts what of a bundle's work holds others; the places where that opened or closed something.
    fn count_holding(&mut self, id: BundleId, from: Holding, to: Holding) -> Vec<(usize, (SlotDate, Key))> {
        let (from, to) = (from.counts(), to.counts());
        let bundle = &self.bundles[id.at()];
        let mut moved = Vec::new();
        if from == to {
            return moved;
        }
        for (entry, open) in self.producers[bundle.producer.at()].open_by.iter_mut().enumerate() {
            let place = (bundle.date, bundle.key.project(&open.columns));
            let count = open.counts.entry(place.clone()).or_default();
            let before = *count;
            count.all = before.all + to.all - from.all;
            count.firm = before.firm + to.firm - from.firm;
            let turns = |before: u32, now: u32| (before == 0) != (now == 0);
            let now = *count;
            if now == Open::default() {
                open.counts.remove(&place);
            }
            if turns(before.all, now.all) || turns(before.firm, now.firm) {
                moved.push((entry, place));
            }
        }
        moved
    }

    /// What of a bundle's work holds others is another thing now.
    pub(super) fn move_holding(&mut self, pass: &mut Pass, id: BundleId, to: Holding) {
        let tally = &mut self.tallies[id.at()];
        let from = std::mem::replace(&mut tally.holding, to);
        let producer = tally.producer;
        for (entry, place) in self.count_holding(id, from, to) {
            for (holder, hold) in &self.producers[producer.at()].open_by[entry].holders {
                let held = self.producers[holder.at()].holds[*hold].bundles.get(&place);
                held.into_iter().flatten().for_each(|bundle| self.touch_bundle(pass, *bundle));
            }
        }
    }

    /// The producers whose open work holds a bundle now, and how much there is for which date; of its scopes, or of its
    /// optional and exclusive inputs.
    pub(super) fn held_by(
        &self,
        id: BundleId,
        of_group: bool,
    ) -> impl Iterator<Item = (ProducerId, SlotDate, u32)> + '_ {
        let bundle = &self.bundles[id.at()];
        let holds = self.producers[bundle.producer.at()].holds.iter();
        holds.filter(move |hold| hold.of_group == of_group).filter_map(|hold| {
            let open = self.producers[hold.ancestor.at()].open_by.get(hold.entry)?;
            let date = bundle.date.earlier(hold.lag)?;
            let count = open.counts.get(&(date, bundle.key.project(&hold.columns)))?;
            let count = if hold.all { count.all } else { count.firm };
            (count > 0).then_some((hold.ancestor, date, count))
        })
    }
}
