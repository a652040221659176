//! The rules again, small and slow: after each event everything is recomputed from facts by names, with no
//! index, no counter and no queue.

use std::collections::{BTreeMap, BTreeSet};

use underbelly_storage::Value;

use super::super::*;

type CellName = (SlotId, SlotDate, Key);
type BundleName = (ProducerId, SlotDate, Key);

#[derive(Clone, Default, Debug)]
struct Candidate {
    owner: Option<BundleName>,
    content: Option<ContentId>,
    error: bool,
}

#[derive(Clone, Debug)]
struct Cell {
    /// By priority.
    candidates: BTreeMap<i32, Candidate>,
    effective: Option<i32>,
    content: Option<ContentId>,
    g: u64,
    lagging: bool,
    gone: bool,
    member: bool,
    view: View,
}

#[derive(Clone, Debug, PartialEq)]
enum Ending {
    Data,
    Declined,
    Failed,
}

#[derive(Clone, Default, Debug)]
struct Read {
    cells: BTreeMap<CellName, u64>,
    scopes: BTreeMap<SlotId, u64>,
}

#[derive(Clone, Default, Debug)]
struct Work {
    read: Read,
    ending: Option<Ending>,
    running: Option<(RunId, u64, Read)>,
    acknowledged: bool,
    interrupted: u32,
    outputs: BTreeSet<CellName>,
    status: Option<PStatus>,
    /// Edges that are changed, maybe, held, blocked, blocked by what is gone.
    counts: [u32; 5],
}

#[derive(Clone)]
struct Producer {
    definition: ProducerDefinition,
    inputs: Vec<SlotId>,
    attached: bool,
    epoch: u64,
}

#[derive(Clone, Default)]
pub(super) struct Oracle {
    slots: Vec<SlotDefinition>,
    producers: Vec<Producer>,
    cells: BTreeMap<CellName, Cell>,
    works: BTreeMap<BundleName, Work>,
    scopes: BTreeMap<(SlotId, SlotDate), u64>,
    ends: BTreeSet<SlotDate>,
}

impl Oracle {
    fn slot_id(&self, name: &str) -> SlotId {
        SlotId(self.slots.iter().position(|slot| slot.name == name).unwrap() as u32)
    }

    fn slot_depth(&self, slot: SlotId) -> usize {
        let name = &self.slots[slot.0 as usize].name;
        let providers =
            self.producers.iter().filter(|p| p.definition.outputs.iter().any(|o| o.slot == *name));
        providers.map(|p| self.producer_depth(p) + 1).max().unwrap_or(0)
    }

    fn producer_depth(&self, producer: &Producer) -> usize {
        producer.inputs.iter().map(|slot| self.slot_depth(*slot) + 1).max().unwrap()
    }

    fn upstream(&self, producer: &Producer) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        for slot in &producer.inputs {
            let name = &self.slots[slot.0 as usize].name;
            for (at, other) in self.producers.iter().enumerate() {
                if other.definition.outputs.iter().any(|o| o.slot == *name) {
                    found.insert(at);
                    found.extend(self.upstream(other));
                }
            }
        }
        found
    }

    pub fn open_work(&self, producer: ProducerId, date: SlotDate) -> u64 {
        let upstream = self.upstream(&self.producers[producer.0 as usize]);
        let open = |(name, work): &(&BundleName, &Work)| {
            upstream.contains(&(name.0.0 as usize)) && name.1 == date && work.status.unwrap().is_open()
        };
        self.works.iter().filter(open).count() as u64
    }

    fn is_group(&self, producer: ProducerId) -> bool {
        self.producers[producer.0 as usize].definition.group != Group::Each
    }

    /// Bundle columns in order of appearance.
    fn columns(&self, producer: &Producer) -> Vec<String> {
        let mut columns: Vec<String> = Vec::new();
        for slot in &producer.inputs {
            for (name, _) in &self.slots[slot.0 as usize].cell_keys {
                if !columns.contains(name) {
                    columns.push(name.clone());
                }
            }
        }
        columns
    }

    /// Bundles by their definition: every combination of input cells, those that agree kept.
    fn brute_join(&self, id: ProducerId) -> Vec<(BundleName, Vec<CellName>)> {
        let producer = &self.producers[id.0 as usize];
        if self.is_group(id) {
            let mut groups: BTreeMap<SlotDate, Vec<CellName>> = BTreeMap::new();
            for name in self.works.keys().filter(|name| name.0 == id) {
                groups.entry(name.1).or_default();
            }
            for (name, cell) in &self.cells {
                if producer.inputs.contains(&name.0) && cell.member {
                    groups.entry(name.1).or_default().push(name.clone());
                }
            }
            return groups.into_iter().map(|(date, cells)| ((id, date, Key::empty()), cells)).collect();
        }
        let mut combinations: Vec<Vec<CellName>> = vec![Vec::new()];
        for slot in &producer.inputs {
            let cells: Vec<&CellName> = self.cells.keys().filter(|name| name.0 == *slot).collect();
            combinations = combinations
                .into_iter()
                .flat_map(|tuple| {
                    cells.iter().map(move |cell| [tuple.clone(), vec![(*cell).clone()]].concat())
                })
                .collect();
        }
        let columns = self.columns(producer);
        let mut joined = Vec::new();
        'tuples: for tuple in combinations {
            let mut values: BTreeMap<&str, &Value> = BTreeMap::new();
            for cell in &tuple {
                let names = self.slots[cell.0.0 as usize].cell_keys.iter();
                for ((column, _), value) in names.zip(cell.2.values()) {
                    if cell.1 != tuple[0].1 || *values.entry(column).or_insert(value) != value {
                        continue 'tuples;
                    }
                }
                if cell.1 != tuple[0].1 {
                    continue 'tuples;
                }
            }
            let key = columns.iter().map(|column| values[column.as_str()].clone()).collect();
            joined.push(((id, tuple[0].1, Key::new(key).unwrap()), tuple));
        }
        joined
    }

    fn count(&self, name: &BundleName, members: &[CellName]) -> [u32; 5] {
        let work = &self.works[name];
        let mut counts = [0; 5];
        for member in members {
            let cell = &self.cells[member];
            let changed = work.read.cells.get(member) != Some(&cell.g);
            match cell.view {
                View::Waiting => {
                    counts[1] += 1;
                    counts[2] += u32::from(!cell.lagging);
                    counts[0] += u32::from(cell.lagging && changed);
                }
                View::Unusable => {
                    counts[3] += 1;
                    counts[4] += u32::from(cell.gone);
                }
                View::Usable => counts[0] += u32::from(changed),
            }
        }
        if self.is_group(name.0) {
            for slot in &self.producers[name.0.0 as usize].inputs {
                let has_member = members.iter().any(|member| member.0 == *slot);
                let g = self.scopes.get(&(*slot, name.1)).copied().unwrap_or(0);
                if self.open_work(name.0, name.1) > 0 {
                    counts[1] += 1;
                    counts[2] += 1;
                } else if !has_member {
                    counts[3] += 1;
                    counts[4] += 1;
                } else {
                    counts[0] += u32::from(work.read.scopes.get(slot) != Some(&g));
                }
            }
        }
        counts
    }

    fn status(&self, name: &BundleName, counts: [u32; 5]) -> PStatus {
        let work = &self.works[name];
        let [changed, _, held, blocked, _] = counts;
        let has_work = work.ending.is_none() || changed > 0;
        let closed = !self.is_group(name.0) || self.ends.contains(&name.1);
        match &work.ending {
            _ if work.running.is_some() => PStatus::Processing,
            _ if has_work && !work.acknowledged => PStatus::Notified,
            _ if has_work && held == 0 && blocked == 0 && closed => PStatus::Ready,
            _ if has_work || blocked > 0 => PStatus::Parked,
            Some(Ending::Data) => PStatus::Done,
            Some(Ending::Declined) => PStatus::Declined,
            _ => PStatus::Failed,
        }
    }

    fn unsettled(&self, candidate: &Candidate) -> bool {
        candidate.owner.as_ref().is_some_and(|owner| {
            let work = &self.works[owner];
            let [changed, maybe, _, blocked, _] = work.counts;
            blocked == 0 && (changed + maybe > 0 || work.running.is_some())
        })
    }

    fn sound(&self, candidate: &Candidate) -> bool {
        let blocked = candidate.owner.as_ref().is_some_and(|owner| self.works[owner].counts[3] > 0);
        candidate.content.is_some() && !candidate.error && !blocked
    }

    /// Brings everything up to date after facts changed. `written`: candidates that got data in this event.
    fn settle(&mut self, written: &BTreeSet<(CellName, i32)>) {
        let depths: Vec<usize> = (0..self.slots.len()).map(|at| self.slot_depth(SlotId(at as u32))).collect();
        let deepest = depths.iter().copied().max().unwrap_or(0) + 1;
        for depth in 0..=deepest {
            for at in 0..self.producers.len() {
                if self.producer_depth(&self.producers[at]) == depth {
                    self.settle_bundles(ProducerId(at as u32));
                }
            }
            let names: Vec<CellName> =
                self.cells.keys().filter(|name| depths[name.0.0 as usize] == depth).cloned().collect();
            for name in names {
                self.settle_cell(&name, written);
            }
        }
    }

    fn settle_bundles(&mut self, id: ProducerId) {
        let attached = self.producers[id.0 as usize].attached;
        for (name, members) in self.brute_join(id) {
            self.works.entry(name.clone()).or_default().acknowledged |= attached;
            let counts = self.count(&name, &members);
            let status = self.status(&name, counts);
            let work = self.works.get_mut(&name).unwrap();
            work.counts = counts;
            work.status = Some(status);
        }
    }

    fn settle_cell(&mut self, name: &CellName, written: &BTreeSet<(CellName, i32)>) {
        let cell = &self.cells[name];
        let best_sound = cell.candidates.iter().rev().find(|(_, c)| self.sound(c)).map(|(p, _)| *p);
        let fallback =
            cell.candidates.iter().rev().find(|(_, c)| c.content.is_some() || c.error).map(|(p, _)| *p);
        let effective = best_sound.or(fallback);
        let watched = cell.candidates.iter().filter(|(p, _)| best_sound.is_none_or(|best| **p >= best));
        let waiting = watched.into_iter().any(|(_, c)| self.unsettled(c));
        let view = match best_sound {
            _ if waiting => View::Waiting,
            Some(_) => View::Usable,
            None => View::Unusable,
        };
        let caught = effective.is_some_and(|p| {
            let owner = cell.candidates[&p].owner.as_ref();
            let moving = owner.is_some_and(|o| self.works[o].counts[0] + self.works[o].counts[1] > 0);
            written.contains(&(name.clone(), p)) && moving
        });
        let kept = cell.lagging && cell.effective == effective;
        let lagging = waiting && best_sound.is_some() && (kept || caught);
        let content = effective.and_then(|p| cell.candidates[&p].content);
        let rises = cell.content != content;
        let gone = |candidate: &Candidate| {
            let nothing = candidate.content.is_none() && !candidate.error;
            nothing || candidate.owner.as_ref().is_some_and(|owner| self.works[owner].counts[4] > 0)
        };
        let gone = view == View::Unusable && cell.candidates.values().all(gone);
        let member = effective.is_some() && !gone;
        let membership = cell.member != member;
        let cell = self.cells.get_mut(name).unwrap();
        cell.effective = effective;
        cell.view = view;
        cell.lagging = lagging;
        cell.gone = gone;
        cell.member = member;
        cell.content = content;
        cell.g += u64::from(rises);
        if membership {
            *self.scopes.entry((name.0, name.1)).or_default() += 1;
        }
        if !member {
            // What is no member has no edge to a group, and an edge that comes back has read nothing.
            for (bundle, work) in &mut self.works {
                if self.producers[bundle.0.0 as usize].definition.group != Group::Each {
                    work.read.cells.remove(name);
                }
            }
        }
        for (at, producer) in self.producers.iter().enumerate() {
            if producer.attached || !producer.inputs.contains(&name.0) {
                continue;
            }
            let id = ProducerId(at as u32);
            let grouped = producer.definition.group != Group::Each;
            let reached = if grouped {
                vec![(id, name.1, Key::empty())]
            } else {
                let joined = self.brute_join(id).into_iter();
                joined.filter(|(_, members)| members.contains(name)).map(|(bundle, _)| bundle).collect()
            };
            for bundle in reached {
                if let Some(work) = self.works.get_mut(&bundle).filter(|_| rises || (grouped && membership)) {
                    work.acknowledged = false;
                }
            }
        }
    }

    fn state(&self, name: &CellName) -> State {
        let cell = &self.cells[name];
        let Some(effective) = cell.effective else { return State::Void };
        let candidate = &cell.candidates[&effective];
        let [changed, maybe, _, blocked, _] =
            candidate.owner.as_ref().map_or([0; 5], |owner| self.works[owner].counts);
        let better = cell.candidates.range(effective + 1..).any(|(_, c)| self.unsettled(c));
        if candidate.error && changed == 0 {
            return State::Invalid;
        }
        if candidate.content.is_none() {
            return State::Void;
        }
        if changed + maybe + blocked > 0 || better {
            return State::Stale;
        }
        let mut state = State::Current;
        for at in 0..self.producers.len() {
            for (bundle, members) in self.brute_join(ProducerId(at as u32)) {
                if !members.contains(name) {
                    continue;
                }
                let work = &self.works[&bundle];
                match work.status.unwrap() {
                    PStatus::Notified if work.read.cells.get(name) != Some(&cell.g) => return State::Updated,
                    PStatus::Ready | PStatus::Processing => state = State::Pending,
                    _ => {}
                }
            }
        }
        state
    }

    fn empty_cell() -> Cell {
        Cell {
            candidates: BTreeMap::new(),
            effective: None,
            content: None,
            g: 0,
            lagging: false,
            gone: true,
            member: false,
            view: View::Unusable,
        }
    }

    /// What a run of the bundle reads now.
    fn read_now(&self, name: &BundleName) -> Read {
        let (_, members) = self.brute_join(name.0).into_iter().find(|(n, _)| n == name).unwrap();
        let cells = members.into_iter().map(|member| (member.clone(), self.cells[&member].g)).collect();
        let mut scopes = BTreeMap::new();
        if self.is_group(name.0) {
            for slot in &self.producers[name.0.0 as usize].inputs {
                scopes.insert(*slot, self.scopes.get(&(*slot, name.1)).copied().unwrap_or(0));
            }
        }
        Read { cells, scopes }
    }

    fn finish(
        &mut self,
        name: &BundleName,
        ending: Ending,
        outputs: &[OutputWrite],
    ) -> BTreeSet<(CellName, i32)> {
        let mut written = BTreeSet::new();
        let definition = self.producers[name.0.0 as usize].definition.clone();
        for output in outputs.iter().filter(|output| output.content().is_some()) {
            let slot_name = &self.slots[output.slot.0 as usize].name;
            let priority = definition.outputs.iter().find(|o| o.slot == *slot_name).unwrap().priority;
            let cell = (output.slot, name.1, output.key.clone());
            let candidate = Candidate { owner: Some(name.clone()), content: output.content(), error: false };
            self.cells
                .entry(cell.clone())
                .or_insert_with(Self::empty_cell)
                .candidates
                .insert(priority, candidate);
            written.insert((cell, priority));
        }
        let work = self.works.get_mut(name).unwrap();
        work.outputs.extend(written.iter().map(|(cell, _)| cell.clone()));
        for output in &work.outputs {
            if written.iter().any(|(cell, _)| cell == output) {
                continue;
            }
            for candidate in self.cells.get_mut(output).unwrap().candidates.values_mut() {
                if candidate.owner.as_ref() == Some(name) {
                    candidate.error = ending == Ending::Failed;
                    if ending != Ending::Failed {
                        candidate.content = None;
                    }
                }
            }
        }
        work.read = work.running.take().unwrap().2;
        if definition.group != Group::Each {
            work.read.cells.retain(|cell, _| self.cells[cell].member);
        }
        work.ending = Some(ending);
        work.interrupted = 0;
        written
    }

    /// Applies an event that the graph accepted. `bundle`: the name of the event's bundle, where it has one.
    pub fn apply(&mut self, event: &Event, bundle: Option<BundleName>) {
        let mut written = BTreeSet::new();
        match event {
            Event::DefineSlot(definition) => {
                if !self.slots.contains(definition) {
                    self.slots.push(definition.clone());
                }
            }
            Event::Register(definition) => {
                if !self.producers.iter().any(|p| p.definition == *definition) {
                    let inputs = definition.inputs.iter().map(|input| self.slot_id(&input.slot)).collect();
                    let definition = definition.clone();
                    self.producers.push(Producer { definition, inputs, attached: false, epoch: 0 });
                }
            }
            Event::Attach { producer: id, .. } => {
                let producer = &mut self.producers[id.0 as usize];
                producer.epoch += u64::from(!producer.attached);
                producer.attached = true;
            }
            Event::Reopen => {
                self.producers.iter_mut().for_each(|producer| producer.attached = false);
                let running: Vec<BundleName> =
                    self.works.iter().filter(|(_, w)| w.running.is_some()).map(|(n, _)| n.clone()).collect();
                for name in running {
                    let work = self.works.get_mut(&name).unwrap();
                    work.interrupted += 1;
                    if work.interrupted >= INTERRUPTIONS_MAX {
                        self.finish(&name, Ending::Failed, &[]);
                    } else {
                        work.running = None;
                    }
                }
            }
            Event::Commit { writes, ends } => {
                for write in writes {
                    let name = (write.slot, write.date, write.key.clone());
                    let known =
                        self.cells.get(&name).is_some_and(|c| c.candidates.contains_key(&write.priority));
                    if write.content.is_none() && !known {
                        continue;
                    }
                    let cell = self.cells.entry(name.clone()).or_insert_with(Self::empty_cell);
                    cell.candidates.entry(write.priority).or_default().content = write.content;
                    written.insert((name, write.priority));
                }
                self.ends.extend(ends);
            }
            Event::Start { run, .. } => {
                let name = bundle.unwrap();
                let read = self.read_now(&name);
                let epoch = self.producers[name.0.0 as usize].epoch;
                self.works.get_mut(&name).unwrap().running = Some((*run, epoch, read));
            }
            Event::End { outcome, .. } => {
                let name = bundle.unwrap();
                written = match outcome {
                    Outcome::Data(outputs) => self.finish(&name, Ending::Data, outputs),
                    Outcome::Declined(_) => self.finish(&name, Ending::Declined, &[]),
                    Outcome::Failed(_) => self.finish(&name, Ending::Failed, &[]),
                };
            }
            other => panic!("the oracle knows no {other:?}"),
        }
        self.settle(&written);
    }

    /// Everything that the graph shows is what the rules say.
    pub fn compare(&self, graph: &Graph) {
        assert_eq!(graph.cells.len(), self.cells.len(), "cells");
        let mut states: BTreeMap<(SlotId, State), u64> = BTreeMap::new();
        for cell in &graph.cells {
            let name = (cell.slot, cell.date, cell.key.clone());
            let expected = &self.cells[&name];
            assert_eq!(cell.g, expected.g, "g of {name:?}");
            assert_eq!(cell.content, expected.content, "content of {name:?}");
            assert_eq!(cell.effective, expected.effective, "effective of {name:?}");
            assert_eq!(cell.view(), expected.view, "view of {name:?}");
            assert_eq!(cell.lagging, expected.lagging, "lagging of {name:?}");
            assert_eq!(cell.gone, expected.gone, "gone: {name:?}");
            assert_eq!(cell.state, self.state(&name), "state of {name:?}");
            *states.entry((cell.slot, cell.state)).or_default() += 1;
        }
        for slot in 0..self.slots.len() as u32 {
            for state in State::ALL {
                let expected = states.get(&(SlotId(slot), state)).copied().unwrap_or(0);
                assert_eq!(graph.state_counts(SlotId(slot)).of(state), expected, "count of {state}");
            }
        }
        assert_eq!(graph.bundles.len(), self.works.len(), "bundles");
        for at in 0..self.producers.len() as u32 {
            let id = ProducerId(at);
            let mut joined = 0;
            for (name, members) in self.brute_join(id) {
                joined += 1;
                let found = graph.producers[id.at()].bundles[&(name.1, name.2.clone())];
                let bundle = &graph.bundles[found.at()];
                let work = &self.works[&name];
                let c = bundle.counters;
                assert_eq!(
                    [c.changed, c.maybe, c.held, c.blocked, c.gone],
                    work.counts,
                    "counters of {name:?}"
                );
                assert_eq!(Some(bundle.status), work.status, "status of {name:?}");
                let mut own: Vec<CellName> = bundle
                    .edges
                    .sources()
                    .map(|cell| &graph.cells[cell.at()])
                    .map(|cell| (cell.slot, cell.date, cell.key.clone()))
                    .collect();
                let mut members = members.clone();
                own.sort();
                members.sort();
                assert_eq!(own, members, "members of {name:?}");
                assert_eq!(graph.open_work(id, name.1), self.open_work(id, name.1), "open work of {name:?}");
                let startable = bundle.status == PStatus::Ready && graph.is_attached(id);
                assert_eq!(graph.ready().any(|b| b == found), startable, "queue and {name:?}");
            }
            assert_eq!(graph.producers[id.at()].bundles.len(), joined);
        }
    }
}
