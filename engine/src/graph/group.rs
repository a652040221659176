//! Groups: one bundle for all cells that the input slots have for a date, and its edges from their scopes.

use std::collections::BTreeMap;

use super::Graph;
use super::bundle::Bundle;
use super::class::Class;
use super::definition::Mode;
use super::edges::EdgeKey;
use super::error::GraphError;
use super::ids::{BundleId, CellId, ProducerId, SlotDate, SlotId};
use super::key::Key;
use super::pass::Pass;
use super::producer::Producer;

impl Graph {
    /// The bundle of a grouping producer to which a cell belongs, where it was made.
    fn group_of(&self, producer: ProducerId, date: SlotDate) -> Option<BundleId> {
        self.producers[producer.at()].bundles.get(&(date, Key::empty())).copied()
    }

    /// Looks again at the bundles that a grouping producer has for a date.
    pub(super) fn touch_groups(&self, pass: &mut Pass, producer: ProducerId, date: SlotDate) {
        if let Some(bundle) = self.group_of(producer, date) {
            self.touch_bundle(pass, bundle);
        }
    }

    /// Makes the bundles of a grouping producer for the cells that there are.
    pub(super) fn make_groups(&mut self, pass: &mut Pass, id: ProducerId) {
        let mut groups: BTreeMap<SlotDate, Vec<(u16, CellId)>> = BTreeMap::new();
        for (input, slot) in self.producers[id.at()].required() {
            for (date, scope) in &self.slots[slot.at()].scopes {
                let members = scope.members.iter().map(|cell| (input, *cell));
                groups.entry(*date).or_default().extend(members);
            }
        }
        for (date, members) in groups.into_iter().filter(|(_, members)| !members.is_empty()) {
            self.create_bundle(pass, id, date, Key::empty(), members);
        }
    }

    /// The cells of a group, each with its input.
    pub(super) fn members_of_group(&self, producer: &Producer, date: SlotDate) -> Vec<(u16, CellId)> {
        let mut members = Vec::new();
        for (input, slot) in producer.required() {
            if let Some(scope) = self.slots[slot.at()].scopes.get(&date) {
                members.extend(scope.members.iter().map(|cell| (input, *cell)));
            }
        }
        members
    }

    /// Whether every group that has members has its bundle.
    pub(super) fn check_groups(&self, producer: &Producer) -> Result<(), GraphError> {
        for (_, slot) in producer.required() {
            for (date, scope) in &self.slots[slot.at()].scopes {
                let made = producer.bundles.contains_key(&(*date, Key::empty()));
                if !made && !scope.members.is_empty() {
                    let what = format!("producer {:?} has no bundle for {date}", producer.definition.name);
                    return Err(GraphError::Image { what });
                }
            }
        }
        Ok(())
    }

    /// A cell became a member of its scope, or stopped being one.
    pub(super) fn move_member(&mut self, pass: &mut Pass, id: CellId, is_member: bool) {
        let cell = &self.cells[id.at()];
        let (date, slot) = (cell.date, cell.slot);
        let scope = self.scope_mut(slot, date);
        scope.g += 1;
        if is_member {
            scope.members.insert(id);
        } else {
            scope.members.remove(&id);
        }
        for (producer, input) in self.slots[slot.at()].readers.clone() {
            let reader = &self.producers[producer.at()];
            let need = reader.needs.get(usize::from(input)).copied().unwrap_or_default();
            if !reader.is_group() || need.mode != Mode::Required {
                continue;
            }
            let existing = self.group_of(producer, date);
            let key = EdgeKey { source: id, input };
            match existing {
                Some(bundle) if is_member => self.add_edge(pass, bundle, key),
                Some(bundle) => self.remove_edge(pass, bundle, key),
                None if is_member => {
                    self.create_bundle(pass, producer, date, Key::empty(), [(input, id)]);
                }
                None => {}
            }
            if let Some(bundle) = existing {
                self.notify(bundle);
                self.touch_bundle(pass, bundle);
            }
        }
    }

    /// The generation of each scope that a run of a bundle reads; none unless it is a group.
    pub(super) fn scopes_now(&self, bundle: &Bundle) -> Vec<u64> {
        let inputs = self.producers[bundle.producer.at()].required();
        let scope = |slot: SlotId| self.slots[slot.at()].scopes.get(&bundle.date).map_or(0, |scope| scope.g);
        inputs.take(bundle.scopes.len()).map(|(_, slot)| scope(slot)).collect()
    }

    /// Gives the scope edges of a group the classes that they have now.
    pub(super) fn settle_scopes(&mut self, id: BundleId) {
        let bundle = &self.bundles[id.at()];
        if bundle.scopes.is_empty() {
            return;
        }
        let open = self.open_work(bundle.producer, bundle.date) > 0;
        let inputs: Vec<SlotId> =
            self.producers[bundle.producer.at()].required().map(|(_, slot)| slot).collect();
        for (input, slot) in inputs.into_iter().enumerate() {
            let class = self.scope_class(&self.bundles[id.at()], input, slot, open);
            let bundle = &mut self.bundles[id.at()];
            let before = std::mem::replace(&mut bundle.scopes[input].class, class);
            bundle.counters.shift(before, class);
        }
    }

    /// The class of a group's edge from the scope of one of its inputs: waiting while there is open work
    /// upstream, so that what reads the group waits for keys that are still on their way.
    fn scope_class(&self, bundle: &Bundle, input: usize, slot: SlotId, open: bool) -> Class {
        let scope = self.slots[slot.at()].scopes.get(&bundle.date);
        let Some(scope) = scope.filter(|scope| open || !scope.members.is_empty()) else {
            return Class { maybe: open, held: open, blocked: !open, gone: !open, ..Class::CLEAN };
        };
        if open {
            Class { maybe: true, held: true, ..Class::CLEAN }
        } else {
            Class { changed: bundle.scopes[input].token != Some(scope.g), ..Class::CLEAN }
        }
    }
}
