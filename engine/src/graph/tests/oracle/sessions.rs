//! Members, sessions, ages and deadlines, from the text of the rules.

use std::collections::{BTreeMap, BTreeSet};

use underbelly_storage::{Timestamp, Value};

use super::super::super::*;
use super::facts::{BundleName, Cell, CellName, Ending, Facts, Oracle, Port, Results};
use super::join::{EdgeName, takes};
use super::rules::{BundleShown, CellShown, Shown};

impl Facts {
    /// Makes what is old old: of each key and priority the newest date that has data. What became old before stays so.
    pub fn age(&mut self, now: Timestamp, ticks: bool) {
        let mut newest: BTreeMap<(SlotId, Vec<u8>, i32), SlotDate> = BTreeMap::new();
        let key = |name: &CellName| format!("{:?}", name.2).into_bytes();
        let open = self.deadlines.values().filter(|(_, missed)| !missed).map(|(due_by, _)| *due_by);
        let deadline = open.min();
        for (name, cell) in &self.cells {
            for (priority, _) in cell.candidates.iter().filter(|(_, c)| c.fresh_until.is_some()) {
                let at = newest.entry((name.0, key(name), *priority)).or_insert(name.1);
                *at = (*at).max(name.1);
            }
        }
        for (name, cell) in &mut self.cells {
            let of_key = key(name);
            for (priority, candidate) in &mut cell.candidates {
                let is_newest = newest.get(&(name.0, of_key.clone(), *priority)) == Some(&name.1);
                let is_over = candidate.fresh_until.is_some_and(|until| until <= now);
                let was_newest = std::mem::replace(&mut candidate.newest, is_newest);
                let before = deadline
                    .is_none_or(|deadline| candidate.fresh_until.is_some_and(|until| until < deadline));
                let looks = (ticks && before) || !was_newest || candidate.written;
                candidate.written = false;
                candidate.aged =
                    is_newest && candidate.fresh_until.is_some() && (candidate.aged || (is_over && looks));
            }
        }
    }

    /// How many members have given what a bundle waits for, and which have not: those that the input's filter lists, or else
    /// each that is registered and that the filter takes. Who has answered without a cell is none. `None` where it waits for no members.
    pub fn quorum(&self, name: &BundleName, edges: &BTreeSet<EdgeName>) -> Option<(usize, Vec<String>)> {
        let producer = &self.producers[name.0.at()];
        if !matches!(producer.definition.group, Group::By { when: When::Quorum, .. }) {
            return None;
        }
        let (mut given_of_all, mut missing) = (0, Vec::new());
        for (at, port) in producer.required() {
            let slot = &self.slots[port.slot.at()];
            let Some(members) = &slot.members else { continue };
            let position = slot.cell_keys.iter().position(|(name, _)| name == members).unwrap();
            let filters: Vec<&Filter> = port.filters.iter().filter(|f| f.column == *members).collect();
            let listed = filters.iter().find_map(|filter| match &filter.test {
                FilterTest::OneOf(values) => Some(values.clone()),
                _ => None,
            });
            let of_slot = self.members_of(slot).into_iter().map(|(_, member)| member);
            let mut asked = listed.unwrap_or_else(|| of_slot.collect());
            asked.retain(|member| filters.iter().all(|filter| takes(filter, member)));
            let given = edges.iter().filter(|(input, _)| *input == at);
            let given: Vec<&Value> = given.map(|(_, (.., key))| &key.values()[position]).collect();
            let asked: BTreeSet<String> = asked.iter().map(|member| member.to_string()).collect();
            for member in asked {
                let value = Value::from(member.as_str());
                if given.contains(&&value) {
                    given_of_all += 1;
                } else if !self.has_answered(port, &value, name) {
                    missing.push(member);
                }
            }
        }
        Some((given_of_all, missing))
    }

    /// Who is registered to give a slot's cells, and under which name.
    fn members_of(&self, slot: &SlotDefinition) -> Vec<(usize, Value)> {
        let producers = self.producers.iter().enumerate().filter(|(_, producer)| !producer.deregistered);
        let outputs =
            producers.flat_map(|(at, p)| p.definition.outputs.iter().map(move |output| (at, output)));
        let own = outputs.filter(|(_, output)| output.slot == slot.name);
        own.filter_map(|(at, output)| Some((at, Value::from(output.member.as_deref()?)))).collect()
    }

    /// Whether all that give a member's cells have ended on the key that a group tells of its cell.
    fn has_answered(&self, port: &Port, member: &Value, group: &BundleName) -> bool {
        let slot = &self.slots[port.slot.at()];
        let reader = &self.producers[group.0.at()];
        let value = |(own, joined): (&String, &String)| match slot.members.as_ref() == Some(own) {
            true => Some(member.clone()),
            false => {
                let at = reader.columns.iter().position(|column| column == joined)?;
                Some(group.2.values()[at].clone())
            }
        };
        let key: Option<Vec<Value>> = port.keys.iter().zip(&port.columns).map(value).collect();
        let Some(key) = key else { return false };
        let has_ended = |at: usize| {
            let columns = self.producers[at].columns.iter();
            let position = |column: &String| port.keys.iter().position(|own| own == column);
            let of_key = columns.map(|column| position(column).map(|at| &key[at]));
            self.works.iter().any(|(name, work)| {
                name.0.at() == at
                    && name.1 == port.date(group.1)
                    && matches!(work.ending, Some(Ending::Declined | Ending::Data))
                    && of_key.clone().eq(name.2.values().iter().map(Some))
            })
        };
        let mut own = self.members_of(slot).into_iter().filter(|(_, name)| name == member).peekable();
        own.peek().is_some() && own.all(|(at, _)| has_ended(at))
    }

    /// A session ends: its runs are cut off.
    pub fn detach(&mut self, id: ProducerId) -> Results {
        self.producers[id.at()].attached = false;
        let mut given = Results::new();
        let running = self.works.iter().filter(|(name, work)| name.0 == id && work.running.is_some());
        for name in running.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            let work = self.works.get_mut(&name).unwrap();
            let running = work.running.take().unwrap();
            work.interrupted += 1;
            if work.interrupted >= INTERRUPTIONS_MAX {
                given.extend(self.finish(&name, running.read, Ending::Failed, &[], &[]));
            }
        }
        given
    }
}

impl Oracle {
    /// Whether a group has given nothing and waits for somebody.
    pub fn waits_for_members(&self) -> bool {
        self.shown.bundles.values().any(|bundle| bundle.quorum.is_some())
    }

    /// What groups read that have given nothing, and for which others than this member gave something.
    pub(super) fn read_by_waiting(&self, id: ProducerId) -> BTreeSet<CellName> {
        let waits = |name: &BundleName| {
            let group = &self.facts.producers[name.0.at()].definition.group;
            let quorum = matches!(group, Group::By { when: When::Quorum, .. });
            let work = self.facts.works.get(name);
            quorum && work.is_some_and(|work| matches!(work.ending, None | Some(Ending::Cancelled)))
        };
        let waiting = self.shown.bundles.iter().filter(|(name, _)| waits(name));
        let others: BTreeSet<(String, String)> = (self.facts.producers.iter().enumerate())
            .filter(|(at, producer)| *at != id.at() && !producer.deregistered)
            .flat_map(|(_, producer)| &producer.definition.outputs)
            .filter_map(|output| Some((output.slot.clone(), output.member.clone()?)))
            .collect();
        let is_of_others = |(slot, _, key): &CellName| {
            let slot = &self.facts.slots[slot.at()];
            let members = slot.cell_keys.iter().zip(key.values());
            let mut members = members.filter(|((name, _), _)| slot.members.as_ref() == Some(name));
            let member = members.next().map(|(_, value)| value);
            matches!(member, Some(Value::Utf8(name)) if others.contains(&(slot.name.clone(), name.to_string())))
        };
        // An optional input has an edge from each cell that was made, also from one that has nothing.
        let is_given =
            |name: &BundleName, at: usize| self.facts.producers[name.0.at()].port(at).mode == Mode::Required;
        let has_others = |(name, bundle): &(&BundleName, &BundleShown)| {
            bundle.edges.iter().any(|(at, cell)| is_given(name, *at) && is_of_others(cell))
        };
        let edges = waiting.filter(has_others).flat_map(|(_, bundle)| bundle.edges.iter());
        edges.map(|(_, cell)| cell.clone()).collect()
    }

    /// Deadlines that nothing grows old before pass: those that are met are forgotten.
    pub fn pass_deadlines(&mut self, now: Timestamp) {
        let candidates = self.facts.cells.values().flat_map(|cell| cell.candidates.values());
        let young = candidates.filter(|c| c.newest && !c.aged).filter_map(|c| c.fresh_until);
        let old = young.min();
        let is_met = |shown: &Shown, (slot, date): &(SlotId, SlotDate)| {
            let cells = shown.cells.iter().filter(|((own, at, _), _)| (own, at) == (slot, date));
            let held: Vec<_> = cells.map(|(_, cell)| cell).filter(|cell| !cell.standing.gone).collect();
            let is_good = |cell: &&CellShown| cell.standing.view == View::Usable || cell.lagging;
            !held.is_empty() && held.iter().all(is_good)
        };
        let shown = &self.shown;
        self.facts.deadlines.retain(|place, (due_by, missed)| {
            let passes = !*missed && *due_by <= now && old.is_none_or(|old| *due_by <= old);
            *missed |= passes && !is_met(shown, place);
            !passes || *missed
        });
    }

    /// What somebody is to look at, but for lost sessions: the cells whose effective candidate is old, and deadlines that were
    /// missed.
    pub fn alarms(&self) -> (usize, usize) {
        let is_old = |(name, cell): &(&CellName, &Cell)| {
            let effective = self.shown.cells.get(*name).and_then(|shown| shown.standing.effective);
            effective.is_some_and(|priority| cell.candidates[&priority].aged)
        };
        let old = self.facts.cells.iter().filter(is_old).count();
        (old, self.facts.deadlines.values().filter(|(_, missed)| *missed).count())
    }
}
