//! Members of slots: producers that share one, each with its own value of a key column; and groups that wait for all of
//! them.
//!
//! Who is a member is read when a group is looked at: that a member comes or goes looks at the groups again that have
//! given nothing yet, and changes nothing of the others.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use underbelly_storage::Value;

use super::Graph;
use super::bundle::{Bundle, Ending};
use super::candidate::Owner;
use super::definition::{FilterTest, Group, When};
use super::ids::{BundleId, ProducerId, SlotDate, SlotId};
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
    pub(super) fn awaits_quorum(&self, bundle: &Bundle) -> bool {
        let producer = &self.producers[bundle.producer.at()];
        producer.awaits_members() && bundle.ending.is_none() && !self.quorum(bundle).missing.is_empty()
    }

    /// What members have given of what a bundle waits for.
    pub(super) fn quorum(&self, bundle: &Bundle) -> Quorum {
        let producer = &self.producers[bundle.producer.at()];
        let mut quorum = Quorum::default();
        for (input, id) in producer.required().filter(|_| producer.awaits_members()) {
            let slot = &self.slots[id.at()];
            let Some(position) = slot.definition.member_position() else { continue };
            let asked = self.asked(producer, input, slot, position);
            let from = |source: usize| self.cells[source].slot == id;
            let sources = bundle.sources.iter().filter(|source| from(source.at()));
            let taken =
                sources.filter(|source| producer.passes(usize::from(input), &self.sheets[source.at()].key));
            let given: BTreeSet<Arc<str>> =
                taken.filter_map(|source| slot.member_of(&self.sheets[source.at()].key)).collect();
            for (member, provider) in asked {
                if given.contains(&member) {
                    quorum.given += 1;
                } else if provider.is_some_and(|provider| self.has_declined(provider, id, bundle, input)) {
                    continue;
                } else {
                    quorum.missing.push(Missing { slot: id, member, producer: provider });
                }
                quorum.of += 1;
            }
        }
        quorum
    }

    /// The members that an input takes: those that its filter lists, or else those that are registered.
    fn asked(
        &self,
        producer: &Producer,
        input: u16,
        slot: &Slot,
        position: usize,
    ) -> Vec<(Arc<str>, Option<ProducerId>)> {
        let filters = producer.filters.get(usize::from(input)).map_or(&[][..], |filters| filters);
        let own = filters.iter().filter(|(at, _)| usize::from(*at) == position).map(|(_, test)| test);
        let listed = own.clone().find_map(|test| match test {
            FilterTest::OneOf(values) => Some(values),
            FilterTest::NoneOf(_) | FilterTest::Between(..) => None,
        });
        let passes = |member: &Arc<str>| own.clone().all(|test| test.passes(&Value::from(&**member)));
        let registered = |member: &Arc<str>| slot.registered().find(|(own, _)| own == member);
        match listed {
            Some(values) => {
                let names: BTreeSet<Arc<str>> = (values.iter())
                    .filter_map(|value| match value {
                        Value::Utf8(name) => Some(Arc::from(&**name)),
                        _ => None,
                    })
                    .filter(passes)
                    .collect();
                let with = |name: Arc<str>| {
                    let provider = registered(&name).map(|(_, provider)| provider);
                    (name, provider)
                };
                names.into_iter().map(with).collect()
            }
            None => {
                let all: BTreeSet<_> = slot.registered().filter(|(member, _)| passes(member)).collect();
                all.into_iter().map(|(member, provider)| (member, Some(provider))).collect()
            }
        }
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

    /// Whether a member declined to give its cell for a group.
    fn has_declined(&self, provider: ProducerId, slot: SlotId, bundle: &Bundle, input: u16) -> bool {
        let member = self.producers[provider.at()].member(slot);
        let reader = &self.producers[bundle.producer.at()];
        let date = reader.cell_date(usize::from(input), bundle.date);
        let (Some(member), Some(date)) = (member, date) else { return false };
        let Some(key) = self.cell_of_member(bundle, input, &member) else { return false };
        let positions = self.producers[provider.at()].output_positions.get(&slot);
        let key = positions.map_or_else(Key::empty, |positions| key.project(positions));
        let work = self.bundle(provider, date, &key);
        work.is_some_and(|work| matches!(self.bundles[work.at()].ending, Some(Ending::Declined(_))))
    }

    /// A member goes: what it gave for groups that have given nothing yet is taken back, since they are of the rest.
    pub(super) fn withdraw(&mut self, pass: &mut Pass, id: ProducerId) {
        let is_own = |owner: Owner| match owner {
            Owner::Daemon(daemon) => daemon == id,
            Owner::Bundle(bundle) => self.bundles[bundle.at()].producer == id,
            Owner::Client => false,
        };
        let waits = |bundle: BundleId| {
            let found = &self.bundles[bundle.at()];
            found.ending.is_none() && self.producers[found.producer.at()].awaits_members()
        };
        let mut own = Vec::new();
        for slot in self.producers[id.at()].memberships.keys() {
            for cell in &self.slots[slot.at()].cells {
                if self.cells[cell.at()].readers.edges().iter().any(|edge| waits(edge.bundle)) {
                    let candidates = self.sheets[cell.at()].candidates.iter();
                    own.extend(candidates.filter(|c| is_own(c.owner)).map(|c| (*cell, c.priority)));
                }
            }
        }
        own.into_iter().for_each(|(cell, priority)| self.retract(pass, cell, priority));
    }

    /// A member came, went or declined: groups that wait for members of the slots that it gives look again.
    pub(super) fn touch_quorums(&self, pass: &mut Pass, producer: ProducerId, date: Option<SlotDate>) {
        for slot in self.producers[producer.at()].outputs.keys() {
            if self.slots[slot.at()].definition.members.is_none() {
                continue;
            }
            for (reader, input) in &self.slots[slot.at()].readers {
                let reader = &self.producers[reader.at()];
                if !reader.awaits_members() {
                    continue;
                }
                let date = date.and_then(|date| reader.bundle_date(usize::from(*input), date));
                let of_date = |at: &SlotDate| date.is_none_or(|date| *at == date);
                let bundles = reader.by_date.iter().filter(|(at, _)| of_date(at)).flat_map(|(_, all)| all);
                let waits = |bundle: &&BundleId| self.bundles[bundle.at()].ending.is_none();
                bundles.filter(waits).for_each(|bundle| self.touch_bundle(pass, *bundle));
            }
        }
    }
}
