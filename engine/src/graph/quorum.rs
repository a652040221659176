//! Members of slots: producers that share one, each with its own value of a key column; and groups that wait for all of
//! them.
//!
//! Who is a member is read when a group is looked at: that a member comes or goes looks at the groups again that have
//! given nothing yet, and changes nothing of the others.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use underbelly_storage::Value;

use super::Graph;
use super::bundle::{Bundle, Ending};
use super::candidate::Owner;
use super::definition::{FilterTest, Group, When};
use super::ids::{BundleId, CellId, ProducerId, SlotDate, SlotId};
use super::key::Key;
use super::pass::Pass;
use super::producer::Producer;
use super::slot::Slot;

/// Who provides a slot, at a priority.
pub(super) type Provided = (i32, Option<Arc<str>>);

impl Slot {
    /// The producer that provides a cell with this key at a priority.
    pub fn provider(&self, priority: i32, key: &Key) -> Option<ProducerId> {
        let own = self.providers.get(&(priority, None));
        own.or_else(|| self.providers.get(&(priority, Some(self.member_of(key)?)))).copied()
    }

    /// The member whose cell has this key.
    pub fn member_of(&self, key: &Key) -> Option<Arc<str>> {
        match key.values().get(self.definition.member_position()?)? {
            Value::Utf8(name) => Some(Arc::from(&**name)),
            _ => None,
        }
    }

    /// A producer that provides it at a priority, whichever cells.
    pub fn any_provider(&self, priority: i32) -> Option<ProducerId> {
        let from = (priority, None);
        let first = self.providers.range(from..).next();
        first.filter(|((found, _), _)| *found == priority).map(|(_, producer)| *producer)
    }

    /// Producers that provide it at higher priorities.
    pub fn providers_above(&self, priority: i32) -> impl Iterator<Item = ProducerId> + '_ {
        self.providers.iter().rev().take_while(move |((own, _), _)| *own > priority).map(|(_, id)| *id)
    }

    /// The members that are registered, each with its producer.
    fn registered(&self) -> impl Iterator<Item = (Arc<str>, ProducerId)> + '_ {
        self.providers.iter().filter_map(|((_, member), id)| Some((Arc::clone(member.as_ref()?), *id)))
    }
}

impl Producer {
    /// Whether its bundles wait for all members.
    pub fn awaits_members(&self) -> bool {
        matches!(self.definition.group, Group::By { when: When::Quorum, .. })
    }
}

/// Missing members that are named in a sentence.
const NAMED_MAX: usize = 8;

/// A member that a group waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Missing {
    pub slot: SlotId,
    pub member: Arc<str>,
    /// The producer that is to give its cell; `None` where nobody is registered for it.
    pub producer: Option<ProducerId>,
}

/// How many members have given their cells, of how many, and who has not.
#[derive(Clone, Debug, Default)]
pub(super) struct Quorum {
    pub given: usize,
    pub of: usize,
    pub missing: Vec<Missing>,
}

impl fmt::Display for Quorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "quorum {}/{}: ", self.given, self.of)?;
        for (at, missing) in self.missing.iter().enumerate().take(NAMED_MAX) {
            write!(f, "{}{}", if at > 0 { ", " } else { "" }, missing.member)?;
        }
        let left = self.missing.len().saturating_sub(NAMED_MAX);
        if left > 0 { write!(f, " and {left} more missing") } else { f.write_str(" missing") }
    }
}

impl Graph {
    /// Whether a bundle waits for members.
    pub(super) fn awaits_quorum(&self, id: BundleId) -> bool {
        self.may_await_quorum(id) && !self.quorum(id).missing.is_empty()
    }

    /// Whether a bundle has given nothing yet, and waits for members where some are missing. What was cancelled has not.
    fn may_await_quorum(&self, id: BundleId) -> bool {
        let bundle = &self.bundles[id.at()];
        let fired = !matches!(bundle.ending, None | Some(Ending::Cancelled(_)));
        !fired && self.producers[bundle.producer.at()].awaits_members()
    }

    /// What members have given of what a bundle waits for.
    pub(super) fn quorum(&self, id: BundleId) -> Quorum {
        let bundle = &self.bundles[id.at()];
        let producer = &self.producers[bundle.producer.at()];
        let mut quorum = Quorum::default();
        for (input, slot_id) in producer.required().filter(|_| producer.awaits_members()) {
            let slot = &self.slots[slot_id.at()];
            let Some(position) = slot.definition.member_position() else { continue };
            let given = self.given(id, input, slot);
            for (member, providers) in self.asked(producer, input, slot, position) {
                if given.contains(&member) {
                    quorum.given += 1;
                } else if self.have_answered(&providers, &member, slot_id, bundle, input) {
                    continue;
                } else {
                    let producer = providers.first().copied();
                    quorum.missing.push(Missing { slot: slot_id, member, producer });
                }
                quorum.of += 1;
            }
        }
        quorum
    }

    /// The members whose cells a bundle has as this input.
    fn given(&self, id: BundleId, input: u16, slot: &Slot) -> BTreeSet<Arc<str>> {
        let is_input = |source: &CellId| {
            let edges = self.cells[source.at()].readers.of(id);
            edges.iter().any(|edge| edge.input() == input)
        };
        let sources = self.bundles[id.at()].sources.iter().filter(is_input);
        sources.filter_map(|source| slot.member_of(&self.sheets[source.at()].key)).collect()
    }

    /// The members that an input takes, each with the producers that give its cells: those that its filter lists, or else
    /// those that are registered.
    fn asked(
        &self,
        producer: &Producer,
        input: u16,
        slot: &Slot,
        position: usize,
    ) -> BTreeMap<Arc<str>, Vec<ProducerId>> {
        let filters = producer.filters.get(usize::from(input)).map_or(&[][..], |filters| filters);
        let own = filters.iter().filter(|(at, _)| usize::from(*at) == position).map(|(_, test)| test);
        let listed = own.clone().find_map(|test| match test {
            FilterTest::OneOf(values) => Some(values),
            FilterTest::NoneOf(_) | FilterTest::Between(..) => None,
        });
        let mut asked: BTreeMap<Arc<str>, Vec<ProducerId>> = BTreeMap::new();
        for value in listed.into_iter().flatten() {
            if let Value::Utf8(name) = value {
                asked.entry(Arc::from(&**name)).or_default();
            }
        }
        for (member, provider) in slot.registered() {
            match asked.get_mut(&member) {
                Some(providers) => providers.push(provider),
                None if listed.is_none() => drop(asked.insert(member, vec![provider])),
                None => {}
            }
        }
        asked.retain(|member, _| own.clone().all(|test| test.passes(&Value::from(&**member))));
        asked
    }

    /// The cell that a member is to give for a group, where the group's columns tell all of its key.
    pub(super) fn cell_of_member(&self, bundle: &Bundle, input: u16, member: &Arc<str>) -> Option<Key> {
        let producer = &self.producers[bundle.producer.at()];
        let definition = &producer.definition.inputs[usize::from(input)];
        let slot = &self.slots[producer.inputs[usize::from(input)].at()].definition;
        let position = slot.member_position()?;
        let value = |(at, (name, _)): (usize, &(String, _))| {
            if at == position {
                return Some(Value::from(&**member));
            }
            let joined = definition.joined_name(name);
            let column = producer.columns.iter().position(|(own, _)| own == joined)?;
            bundle.key.values().get(column).cloned()
        };
        let values: Option<Vec<Value>> = slot.cell_keys.iter().enumerate().map(value).collect();
        Key::new(values?).ok()
    }

    /// Whether a member's producers have all ended for a group and given nothing: they declined, or left its cell out.
    fn have_answered(
        &self,
        providers: &[ProducerId],
        member: &Arc<str>,
        slot: SlotId,
        bundle: &Bundle,
        input: u16,
    ) -> bool {
        let reader = &self.producers[bundle.producer.at()];
        let Some(date) = reader.cell_date(usize::from(input), bundle.date) else { return false };
        let Some(key) = self.cell_of_member(bundle, input, member) else { return false };
        let has_answered = |provider: &ProducerId| {
            let positions = self.producers[provider.at()].output_positions.get(&slot);
            let key = positions.map_or_else(Key::empty, |positions| key.project(positions));
            let work = self.bundle(*provider, date, &key);
            work.is_some_and(|work| {
                matches!(self.bundles[work.at()].ending, Some(Ending::Declined(_) | Ending::Data))
            })
        };
        !providers.is_empty() && providers.iter().all(has_answered)
    }

    /// A member has gone: what it gave for groups that have given nothing yet, and for which another member gave too, is taken
    /// back, since they are of the rest. Takes time in proportion to the cells of the slots that it shared.
    pub(super) fn withdraw(&mut self, pass: &mut Pass, id: ProducerId) {
        let is_own = |owner: Owner| match owner {
            Owner::Daemon(daemon) => daemon == id,
            Owner::Bundle(bundle) => self.bundles[bundle.at()].producer == id,
            Owner::Client => false,
        };
        let mut own = Vec::new();
        for slot in self.producers[id.at()].memberships.keys() {
            for cell in &self.slots[slot.at()].cells {
                let candidates = self.sheets[cell.at()].candidates.iter().filter(|c| is_own(c.owner));
                let candidates: Vec<i32> =
                    candidates.filter(|c| c.is_held()).map(|candidate| candidate.priority).collect();
                if candidates.is_empty() {
                    continue;
                }
                let of_the_rest = |bundle: BundleId| self.may_await_quorum(bundle) && self.has_others(bundle);
                if self.cells[cell.at()].readers.bundles().any(of_the_rest) {
                    own.extend(candidates.into_iter().map(|priority| (*cell, priority)));
                }
            }
        }
        own.into_iter().for_each(|(cell, priority)| self.retract(pass, cell, priority));
    }

    /// Whether a group has the cell of a member that is registered.
    fn has_others(&self, id: BundleId) -> bool {
        let producer = &self.producers[self.bundles[id.at()].producer.at()];
        producer.required().any(|(input, slot)| {
            let slot = &self.slots[slot.at()];
            let given = self.given(id, input, slot);
            slot.registered().any(|(member, _)| given.contains(&member))
        })
    }

    /// Groups that have given nothing yet and wait for members of the slots that a producer gives.
    pub(super) fn quorum_readers(&self, producer: ProducerId) -> Vec<BundleId> {
        let mut bundles = Vec::new();
        self.each_quorum_reader(producer, |reader, _| {
            let all = reader.by_date.values().flatten().copied();
            bundles.extend(all.filter(|bundle| self.may_await_quorum(*bundle)));
        });
        bundles
    }

    /// A member came, or ended for a date: groups that wait for members of the slots that it gives look again.
    pub(super) fn touch_quorums(&self, pass: &mut Pass, producer: ProducerId, date: Option<SlotDate>) {
        let Some(date) = date else {
            return self.quorum_readers(producer).into_iter().for_each(|b| self.touch_bundle(pass, b));
        };
        self.each_quorum_reader(producer, |reader, input| {
            let date = reader.bundle_date(usize::from(input), date);
            let bundles = date.and_then(|date| reader.by_date.get(&date)).into_iter().flatten();
            let waits = |bundle: &&BundleId| self.may_await_quorum(**bundle);
            bundles.filter(waits).for_each(|bundle| self.touch_bundle(pass, *bundle));
        });
    }

    fn each_quorum_reader(&self, producer: ProducerId, mut look: impl FnMut(&Producer, u16)) {
        for slot in self.producers[producer.at()].outputs.keys() {
            let slot = &self.slots[slot.at()];
            for (reader, input) in slot.readers.iter().filter(|_| slot.definition.members.is_some()) {
                let reader = &self.producers[reader.at()];
                if reader.awaits_members() {
                    look(reader, *input);
                }
            }
        }
    }
}
