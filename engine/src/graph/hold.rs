//! Bundles wait for what may still be made. What was never made has no edges that would speak for it: so a bundle is held
//! while a producer from which one of its optional, exclusive or early grouped inputs is made, through any number of steps,
//! has open work for the date that agrees on every key column which the steps between them carry over. Work that has
//! committed while its own inputs moved, and not settled since, holds nobody: else a fast source would hold for ever.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use super::Graph;
use super::ids::{BundleId, ProducerId, SlotDate, SlotId};
use super::key::Key;
use super::pass::Pass;

/// A producer whose open work holds bundles, and the columns on which both must agree.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    pub ancestor: ProducerId,
    /// Positions of the shared columns among those of the held bundles.
    columns: Vec<u16>,
    /// The entry of the ancestor's `open_by`.
    entry: usize,
    /// The bundles that may be held, by date and the values of the shared columns.
    bundles: HashMap<(SlotDate, Key), Vec<BundleId>>,
}

/// Open work of a producer by date and the values of some columns.
#[derive(Clone, Debug)]
pub(super) struct OpenBy {
    /// Positions among the producer's bundle columns.
    columns: Vec<u16>,
    counts: HashMap<(SlotDate, Key), u32>,
    /// Producers whose bundles it holds, and as which of their holds.
    holders: Vec<(ProducerId, usize)>,
}

/// Columns of held bundles, each with its position somewhere up the way.
type Carried = Vec<(u16, u16)>;

impl Graph {
    /// What holds the bundles of a producer: each ancestor, with the columns that are carried over from it.
    fn ancestors(&self, id: ProducerId) -> BTreeSet<(ProducerId, Carried)> {
        let producer = &self.producers[id.at()];
        let mut left: Vec<(SlotId, Option<i32>, Carried)> = Vec::new();
        for (input, slot) in producer.inputs.iter().enumerate() {
            if let Some(reach) = &producer.reaches[input] {
                left.push((
                    *slot,
                    None,
                    reach.columns.iter().copied().zip(reach.positions.iter().copied()).collect(),
                ));
            }
        }
        left.extend(producer.above.iter().map(|above| {
            let slot = producer.inputs[usize::from(above.input)];
            let positions = producer.output_positions.get(&slot).into_iter().flatten().copied();
            (slot, Some(above.priority), (0..).zip(positions).collect())
        }));
        let mut seen = BTreeSet::new();
        let mut found = BTreeSet::new();
        while let Some((slot, priority, carried)) = left.pop() {
            if !seen.insert((slot, priority, carried.clone())) {
                continue;
            }
            for (own, provider) in &self.slots[slot.at()].providers {
                if priority.is_some_and(|priority| *own <= priority) {
                    continue;
                }
                let producer = &self.producers[provider.at()];
                let Some(positions) = producer.output_positions.get(&slot) else { continue };
                let column =
                    |at: u16| positions.iter().position(|position| *position == at).map(|at| at as u16);
                let mut to: Carried =
                    carried.iter().filter_map(|(own, at)| Some((*own, column(*at)?))).collect();
                to.sort_unstable();
                for (input, slot) in producer.inputs.iter().enumerate() {
                    let up = |columns: &[u16], positions: &mut dyn Iterator<Item = u16>| -> Carried {
                        let pairs: Vec<(u16, u16)> = columns.iter().copied().zip(positions).collect();
                        let at =
                            |column: u16| pairs.iter().find(|(own, _)| *own == column).map(|(_, at)| *at);
                        to.iter().filter_map(|(own, column)| Some((*own, at(*column)?))).collect()
                    };
                    if let Some(reach) = &producer.reaches[input] {
                        left.push((*slot, None, up(&reach.columns, &mut reach.positions.iter().copied())));
                    } else if let Some(above) =
                        producer.above.iter().find(|above| usize::from(above.input) == input)
                    {
                        let positions = producer.output_positions.get(slot).cloned().unwrap_or_default();
                        let columns: Vec<u16> = (0..positions.len() as u16).collect();
                        left.push((
                            *slot,
                            Some(above.priority),
                            up(&columns, &mut positions.iter().copied()),
                        ));
                    } else {
                        let columns = producer.input_columns.get(input).cloned().unwrap_or_default();
                        left.push((*slot, None, up(&columns, &mut (0..))));
                    }
                }
                found.insert((*provider, to));
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
            for (ancestor, carried) in self.ancestors(id) {
                let (columns, theirs): (Vec<u16>, Vec<u16>) = carried.into_iter().unzip();
                let open_by = &mut self.producers[ancestor.at()].open_by;
                let found = open_by.iter().position(|open| open.columns == theirs);
                let entry = found.unwrap_or(open_by.len());
                if found.is_none() {
                    open_by.push(OpenBy { columns: theirs, counts: HashMap::new(), holders: Vec::new() });
                }
                open_by[entry].holders.push((id, holds.len()));
                holds.push(Hold { ancestor, columns, entry, bundles: HashMap::new() });
            }
            self.producers[at].holds = holds;
        }
        for bundle in (0..self.bundles.len() as u32).map(BundleId) {
            self.note_holds(bundle);
            if self.bundles[bundle.at()].is_holding {
                self.count_holding(bundle, true);
            }
        }
    }

    /// A bundle of a producer with holds was made.
    pub(super) fn note_holds(&mut self, id: BundleId) {
        let bundle = &self.bundles[id.at()];
        for hold in &mut self.producers[bundle.producer.at()].holds {
            let place = (bundle.date, bundle.key.project(&hold.columns));
            hold.bundles.entry(place).or_default().push(id);
        }
    }

    /// Counts a bundle's work as holding, or no more; the places where that opened or closed something.
    fn count_holding(&mut self, id: BundleId, holds: bool) -> Vec<(usize, (SlotDate, Key))> {
        let bundle = &self.bundles[id.at()];
        let mut moved = Vec::new();
        for (entry, open) in self.producers[bundle.producer.at()].open_by.iter_mut().enumerate() {
            let place = (bundle.date, bundle.key.project(&open.columns));
            let count = open.counts.entry(place.clone()).or_insert(0);
            let before = *count;
            *count = if holds { before + 1 } else { before.saturating_sub(1) };
            if *count == 0 {
                open.counts.remove(&place);
            }
            if before == 0 || (before == 1 && !holds) {
                moved.push((entry, place));
            }
        }
        moved
    }

    /// A bundle's work came to hold others, or does no more.
    pub(super) fn move_holding(&mut self, pass: &mut Pass, id: BundleId, holds: bool) {
        self.bundles[id.at()].is_holding = holds;
        let producer = self.bundles[id.at()].producer;
        for (entry, place) in self.count_holding(id, holds) {
            for (holder, hold) in &self.producers[producer.at()].open_by[entry].holders {
                let held = self.producers[holder.at()].holds[*hold].bundles.get(&place);
                held.into_iter().flatten().for_each(|bundle| self.touch_bundle(pass, *bundle));
            }
        }
    }

    /// The producers whose open work holds a bundle now.
    pub(super) fn held_by(&self, id: BundleId) -> impl Iterator<Item = ProducerId> + '_ {
        let bundle = &self.bundles[id.at()];
        let holds = self.producers[bundle.producer.at()].holds.iter();
        let open = |hold: &&Hold| {
            let open = self.producers[hold.ancestor.at()].open_by.get(hold.entry);
            open.is_some_and(|open| {
                open.counts.contains_key(&(bundle.date, bundle.key.project(&hold.columns)))
            })
        };
        holds.filter(open).map(|hold| hold.ancestor)
    }
}
