//! Groups: one bundle for all joined tuples that agree on some columns, and its edges from the sets of their cells.
//!
//! A group reads cells that are *members*: they have data or an error and are not gone. An edge from a cell that is joined
//! stands as long as some tuple of members has it; the set of cells that an input has in a group is its scope, and what a
//! run read of it is compared as a set.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;

use super::Graph;
use super::bundle::Bundle;
use super::class::{Class, Shift};
use super::definition::Mode;
use super::edges::EdgeKey;
use super::ids::{BundleId, CellId, ProducerId, SlotDate, SlotId};
use super::join::Tuple;
use super::key::Key;
use super::pass::Pass;
use super::producer::Producer;
use super::slot;

/// A set of cells: how many, and the sum of a hash of each, so that one may come or go in constant time. Two sets are
/// taken for equal where both agree; with 64 bits of hash they differ otherwise once in 10^19 changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Members {
    pub count: u32,
    pub sum: u64,
}

impl Members {
    pub fn insert(&mut self, cell: CellId) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(mix(cell));
    }

    pub fn remove(&mut self, cell: CellId) {
        self.count -= 1;
        self.sum = self.sum.wrapping_sub(mix(cell));
    }
}

/// The finalizer of SplitMix64, by Steele, Lea and Flood.
fn mix(cell: CellId) -> u64 {
    let z = u64::from(cell.0).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The edges of each group, each with the number of tuples that have it.
pub(super) type Groups = HashMap<(ProducerId, SlotDate, Key), BTreeMap<EdgeKey, u32>>;

impl Graph {
    /// The edges of all groups of a producer for the cells that there are.
    pub(super) fn groups_of(&self, id: ProducerId, groups: &mut Groups) {
        let Some(producer) = self.producers.get(id.at()).filter(|producer| producer.is_group()) else {
            return;
        };
        let members = |input: u16| {
            let slot = &self.slots[producer.inputs[usize::from(input)].at()];
            slot.members.iter().flat_map(|members| members.values()).flatten().copied()
        };
        if let Some(first) = producer.join.inputs.first().copied() {
            for cell in members(first) {
                for tuple in self.member_tuples(id, first, cell) {
                    let group = groups.entry((id, tuple.date, tuple.key)).or_default();
                    for (input, source) in tuple.cells {
                        *group.entry(EdgeKey { source, input }).or_insert(0) += 1;
                    }
                }
            }
            return;
        }
        for input in producer.join.apart.iter().copied() {
            for source in members(input) {
                if let Some(date) = self.date_apart(producer, input, source) {
                    let group = groups.entry((id, date, Key::empty())).or_default();
                    group.insert(EdgeKey { source, input }, 1);
                }
            }
        }
    }

    /// Makes the bundles of a grouping producer for the cells that there are.
    pub(super) fn make_groups(&mut self, pass: &mut Pass, id: ProducerId) {
        let mut groups = Groups::new();
        self.groups_of(id, &mut groups);
        let groups: BTreeMap<_, _> = groups.into_iter().collect();
        for ((_, date, key), edges) in groups {
            self.create_group(pass, id, date, key, edges);
        }
    }

    /// Makes the bundle of a group with these edges, and those from cells that are joined with nothing.
    pub(super) fn create_group(
        &mut self,
        pass: &mut Pass,
        producer: ProducerId,
        date: SlotDate,
        key: Key,
        edges: BTreeMap<EdgeKey, u32>,
    ) -> BundleId {
        let apart = self.members_apart(producer, date);
        let owner = &mut self.producers[producer.at()];
        // Where only one input is joined each edge has one tuple.
        let counts = owner.join.inputs.len() > 1;
        let id =
            self.create_bundle(pass, producer, date, key, edges.keys().map(|edge| (edge.input, edge.source)));
        for (input, source) in apart {
            self.add_edge(pass, id, EdgeKey { source, input });
        }
        if counts {
            self.bundles[id.at()].support = edges;
        }
        id
    }

    /// The cells that belong to each group of a date, each with its input.
    fn members_apart(&self, producer: ProducerId, date: SlotDate) -> Vec<(u16, CellId)> {
        let owner = &self.producers[producer.at()];
        let mut found = Vec::new();
        for input in owner.join.apart.iter().filter(|_| !owner.join.inputs.is_empty()) {
            let at = usize::from(*input);
            let slot = &self.slots[owner.inputs[at].at()];
            let members = owner.cell_date(at, date).and_then(|date| slot.members.as_ref()?.get(&date));
            let taken = members.into_iter().flatten().filter(|c| owner.passes(at, &self.sheets[c.at()].key));
            found.extend(taken.map(|cell| (*input, *cell)));
        }
        found
    }

    /// The tuples of members that have this cell as this input, without those that have it as an earlier one too.
    fn member_tuples(&self, producer: ProducerId, input: u16, cell: CellId) -> Vec<Tuple> {
        let mut tuples = self.tuples_of(producer, input, cell);
        let others = |(at, source): &(u16, CellId)| match *source == cell {
            true => *at >= input,
            false => self.cells[source.at()].member,
        };
        tuples.retain(|tuple| tuple.cells.iter().all(others));
        tuples
    }

    /// Keeps the members of a slot, which a group is to read.
    pub(super) fn keep_members(&mut self, slot: SlotId) {
        let slot = &mut self.slots[slot.at()];
        if slot.members.is_none() {
            let mut members = slot::Members::new();
            for cell in slot.cells.iter().filter(|cell| self.cells[cell.at()].member) {
                members.entry(self.sheets[cell.at()].date).or_default().insert(*cell);
            }
            slot.members = Some(members);
        }
    }

    /// A cell became a member, or stopped being one.
    pub(super) fn move_member(&mut self, pass: &mut Pass, id: CellId, is_member: bool) {
        let (date, slot) = (self.sheets[id.at()].date, self.cells[id.at()].slot);
        let Some(members) = &mut self.slots[slot.at()].members else { return };
        if is_member {
            members.entry(date).or_default().insert(id);
        } else if let Some(of_date) = members.get_mut(&date) {
            of_date.remove(&id);
            if of_date.is_empty() {
                members.remove(&date);
            }
        }
        for (producer, input) in self.slots[slot.at()].readers.clone() {
            let reader = &self.producers[producer.at()];
            if !reader.is_group() || reader.need(input).mode != Mode::Required {
                continue;
            }
            let mut moved = BTreeSet::new();
            if reader.join.is_joined(input) {
                for tuple in self.member_tuples(producer, input, id) {
                    moved.extend(self.move_tuple(pass, producer, tuple, is_member));
                }
            } else {
                self.move_apart(pass, producer, input, id, is_member, &mut moved);
            }
            for bundle in moved {
                self.notify(bundle);
                self.touch_bundle(pass, bundle);
            }
        }
    }

    /// A tuple of members came or went; its bundle, where it was there.
    fn move_tuple(
        &mut self,
        pass: &mut Pass,
        producer: ProducerId,
        tuple: Tuple,
        comes: bool,
    ) -> Option<BundleId> {
        let Tuple { date, key, cells } = tuple;
        let edges = cells.into_iter().map(|(input, source)| EdgeKey { source, input });
        let Some(bundle) = self.bundle(producer, date, &key) else {
            if comes {
                self.create_group(pass, producer, date, key, edges.map(|edge| (edge, 1)).collect());
            }
            return None;
        };
        let counts = self.producers[producer.at()].join.inputs.len() > 1;
        for edge in edges {
            let support = &mut self.bundles[bundle.at()].support;
            let mut count = support.get(&edge).copied().unwrap_or(0);
            count = if comes { count + 1 } else { count.saturating_sub(1) };
            if counts && count > 0 {
                support.insert(edge, count);
            } else {
                support.remove(&edge);
            }
            if comes {
                self.add_edge(pass, bundle, edge);
            } else if count == 0 {
                self.remove_edge(pass, bundle, edge);
            }
        }
        Some(bundle)
    }

    /// The date of the groups to which a cell belongs as this input, which is joined with nothing; `None` where it does not
    /// pass the input's filters.
    fn date_apart(&self, producer: &Producer, input: u16, cell: CellId) -> Option<SlotDate> {
        let (at, sheet) = (usize::from(input), &self.sheets[cell.at()]);
        producer.bundle_date(at, sheet.date).filter(|_| producer.passes(at, &sheet.key))
    }

    /// A member that belongs to each group of its date came or went.
    fn move_apart(
        &mut self,
        pass: &mut Pass,
        producer: ProducerId,
        input: u16,
        source: CellId,
        comes: bool,
        moved: &mut BTreeSet<BundleId>,
    ) {
        let reader = &self.producers[producer.at()];
        let Some(date) = self.date_apart(reader, input, source) else { return };
        let bundles = reader.by_date.get(&date).cloned().unwrap_or_default();
        let edge = EdgeKey { source, input };
        if bundles.is_empty() && comes && reader.join.inputs.is_empty() {
            self.create_group(pass, producer, date, Key::empty(), BTreeMap::from([(edge, 1)]));
        }
        for bundle in bundles {
            match comes {
                true => self.add_edge(pass, bundle, edge),
                false => self.remove_edge(pass, bundle, edge),
            }
            moved.insert(bundle);
        }
    }

    /// The ends of dates for which a bundle waits and that were not declared.
    pub(super) fn missing_ends(&self, bundle: &Bundle) -> BTreeSet<SlotDate> {
        let producer = &self.producers[bundle.producer.at()];
        let inputs = producer.required().filter(|_| producer.awaits_all() && !bundle.is_cut);
        let dates = inputs.filter_map(|(input, _)| producer.cell_date(usize::from(input), bundle.date));
        dates.filter(|date| !self.ends.contains(date)).collect()
    }

    /// The end of a date was declared: bundles that wait for it look at it again.
    pub(super) fn touch_ended(&mut self, pass: &mut Pass, date: SlotDate) {
        for producer in self.producers.iter().filter(|producer| producer.awaits_all()) {
            for (input, _) in producer.required() {
                let date = producer.bundle_date(usize::from(input), date);
                let bundles = date.and_then(|date| producer.by_date.get(&date));
                bundles.into_iter().flatten().for_each(|bundle| self.touch_bundle(pass, *bundle));
            }
        }
    }

    /// The scopes that a run of a bundle reads; none unless it is a group.
    pub(super) fn scopes_now(&self, bundle: &Bundle) -> Vec<Members> {
        bundle.scopes.iter().map(|scope| scope.now).collect()
    }

    /// Gives the scope edges of a group the classes that they have now: waiting while there is open work upstream, so that
    /// what reads the group waits for keys that are still on their way.
    pub(super) fn settle_scopes(&mut self, id: BundleId) {
        if self.bundles[id.at()].scopes.is_empty() {
            return;
        }
        let open = self.held_by(id, true).next().is_some();
        let bundle = &mut self.bundles[id.at()];
        for scope in &mut bundle.scopes {
            let class = match (open, scope.now.count) {
                (true, _) => Class { maybe: true, held: true, ..Class::CLEAN },
                (false, 0) => Class { blocked: true, gone: true, ..Class::CLEAN },
                (false, _) => Class { changed: scope.token != Some(scope.now), ..Class::CLEAN },
            };
            let before = std::mem::replace(&mut scope.class, class);
            self.tallies[id.at()].counters.shift(Shift::of_edge(before, class));
        }
    }
}
