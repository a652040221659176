//! Facts, and how events change them.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::*;
use super::join::EdgeName;
use super::rules::{BundleShown, Settling, Shown};

pub(in super::super) type CellName = (SlotId, SlotDate, Key);
pub(in super::super) type BundleName = (ProducerId, SlotDate, Key);

/// What one priority has for a cell.
#[derive(Clone, Default, Debug)]
pub(super) struct Candidate {
    /// The bundle that made it; `None` for clients.
    pub owner: Option<BundleName>,
    pub content: Option<ContentId>,
    pub error: bool,
}

/// A cell that has been given something.
#[derive(Clone, Default, Debug)]
pub(super) struct Cell {
    /// By priority.
    pub candidates: BTreeMap<i32, Candidate>,
    /// The effective priority and its content, as of the last event.
    pub effective: Option<i32>,
    pub content: Option<ContentId>,
    pub g: u64,
    pub lagging: bool,
    /// Whether groups counted it in, as of the last event.
    pub member: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Data,
    Declined,
    Failed,
}

/// What a run reads: a generation for each edge; for a group also the set of cells of each input.
#[derive(Clone, Default, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Reading {
    pub cells: BTreeMap<EdgeName, u64>,
    pub scopes: BTreeMap<usize, BTreeSet<CellName>>,
}

/// A bundle.
#[derive(Clone, Default, Debug)]
pub(super) struct Work {
    /// The tokens of the last result.
    pub read: Reading,
    pub ending: Option<Ending>,
    pub running: Option<Running>,
    pub acknowledged: bool,
    pub interrupted: u32,
    pub runs: u64,
    pub outputs: BTreeSet<CellName>,
}

#[derive(Clone, Debug)]
pub(super) struct Running {
    pub run: RunId,
    pub read: Reading,
}

/// An input as joins see it.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub slot: SlotId,
    /// The names that the slot's cell keys have here.
    pub columns: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Producer {
    pub definition: ProducerDefinition,
    pub inputs: Vec<Port>,
    /// Columns that address its bundles, in order of appearance; none for a group.
    pub columns: Vec<String>,
    pub attached: bool,
}

impl Producer {
    pub fn is_group(&self) -> bool {
        self.definition.group != Group::Each
    }
}

#[derive(Clone, Default, Debug)]
pub(super) struct Facts {
    pub slots: Vec<SlotDefinition>,
    pub producers: Vec<Producer>,
    pub ends: BTreeSet<SlotDate>,
    pub cells: BTreeMap<CellName, Cell>,
    pub works: BTreeMap<BundleName, Work>,
}

/// Facts and what they show.
#[derive(Clone, Default)]
pub(in super::super) struct Oracle {
    pub(super) facts: Facts,
    pub shown: Shown,
}

/// Candidates that got a result in an event.
pub(super) type Results = BTreeSet<(CellName, i32)>;

impl Facts {
    fn slot_id(&self, name: &str) -> SlotId {
        SlotId(self.slots.iter().position(|slot| slot.name == name).unwrap() as u32)
    }

    pub fn providers(&self, slot: SlotId) -> impl Iterator<Item = ProducerId> + '_ {
        let name = &self.slots[slot.at()].name;
        let provides = move |p: &Producer| p.definition.outputs.iter().any(|output| output.slot == *name);
        (0u32..).zip(&self.producers).filter(move |(_, p)| provides(p)).map(|(at, _)| ProducerId(at))
    }

    /// Producers from which a bundle may come to be fed, at any distance, each for its date.
    pub fn upstream(&self, id: ProducerId, date: SlotDate) -> BTreeSet<(ProducerId, SlotDate)> {
        let mut found = BTreeSet::new();
        for port in &self.producers[id.at()].inputs {
            for provider in self.providers(port.slot) {
                if found.insert((provider, date)) {
                    found.extend(self.upstream(provider, date));
                }
            }
        }
        found
    }

    fn register(&mut self, definition: &ProducerDefinition) {
        if self.producers.iter().any(|p| p.definition == *definition) {
            return;
        }
        let port = |input: &Input| {
            let slot = self.slot_id(&input.slot);
            let columns = self.slots[slot.at()].cell_keys.iter().map(|(name, _)| name.clone()).collect();
            Port { slot, columns }
        };
        let inputs: Vec<Port> = definition.inputs.iter().map(port).collect();
        let mut columns = Vec::new();
        if definition.group == Group::Each {
            for column in inputs.iter().flat_map(|port| &port.columns) {
                if !columns.contains(column) {
                    columns.push(column.clone());
                }
            }
        }
        let definition = definition.clone();
        self.producers.push(Producer { definition, inputs, columns, attached: false });
    }

    fn commit(&mut self, writes: &[Write], ends: &[SlotDate]) -> Results {
        let mut given = Results::new();
        for write in writes {
            let name = (write.slot, write.date, write.key.clone());
            let known = self.cells.get(&name).is_some_and(|c| c.candidates.contains_key(&write.priority));
            if write.content.is_none() && !known {
                continue;
            }
            let cell = self.cells.entry(name.clone()).or_default();
            cell.candidates.entry(write.priority).or_default().content = write.content;
            given.insert((name, write.priority));
        }
        self.ends.extend(ends);
        given
    }

    /// The end of the bundle's run: a result for each output that it knows, and what was read.
    fn finish(&mut self, name: &BundleName, ending: Ending, outputs: &[OutputWrite]) -> Results {
        let producer = &self.producers[name.0.at()];
        let work = self.works.get_mut(name).unwrap();
        let data = outputs.iter().filter_map(|output| {
            let slot = &self.slots[output.slot.at()].name;
            let provided = producer.definition.outputs.iter().find(|o| o.slot == *slot).unwrap();
            Some(((output.slot, name.1, output.key.clone()), (provided.priority, output.content()?)))
        });
        let data: BTreeMap<CellName, (i32, ContentId)> = data.collect();
        let mut given = Results::new();
        for (cell, (priority, content)) in &data {
            let candidate = Candidate { owner: Some(name.clone()), content: Some(*content), error: false };
            self.cells.entry(cell.clone()).or_default().candidates.insert(*priority, candidate);
            given.insert((cell.clone(), *priority));
            work.outputs.insert(cell.clone());
        }
        for output in work.outputs.iter().filter(|output| !data.contains_key(output)) {
            let candidates = &mut self.cells.get_mut(output).unwrap().candidates;
            for (priority, candidate) in candidates.iter_mut().filter(|(_, c)| c.owner.as_ref() == Some(name))
            {
                candidate.error = ending == Ending::Failed;
                if ending != Ending::Failed {
                    candidate.content = None;
                }
                given.insert((output.clone(), *priority));
            }
        }
        work.read = work.running.take().unwrap().read;
        work.ending = Some(ending);
        work.interrupted = 0;
        given
    }

    fn reopen(&mut self) -> Results {
        self.producers.iter_mut().for_each(|producer| producer.attached = false);
        let mut given = Results::new();
        let running = self.works.iter().filter(|(_, work)| work.running.is_some());
        for name in running.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            let work = self.works.get_mut(&name).unwrap();
            work.interrupted += 1;
            if work.interrupted >= INTERRUPTIONS_MAX {
                given.extend(self.finish(&name, Ending::Failed, &[]));
            } else {
                work.running = None;
            }
        }
        given
    }

    pub fn run(&self, run: RunId) -> Option<&BundleName> {
        let flying = |work: &Work| work.running.as_ref().is_some_and(|running| running.run == run);
        self.works.iter().find(|(_, work)| flying(work)).map(|(name, _)| name)
    }
}

impl Oracle {
    /// Applies an event that the graph accepted. `bundle`: the name of the bundle that starts, where one does.
    pub fn apply(&mut self, event: &Event, bundle: Option<BundleName>) {
        let facts = &mut self.facts;
        let mut given = Results::new();
        match event {
            Event::DefineSlot(definition) => {
                if !facts.slots.contains(definition) {
                    facts.slots.push(definition.clone());
                }
            }
            Event::Register(definition) => facts.register(definition),
            Event::Attach { producer: id, .. } => {
                facts.producers[id.at()].attached = true;
            }
            Event::Reopen => given = facts.reopen(),
            Event::Commit { writes, ends } => given = facts.commit(writes, ends),
            Event::Start { run, .. } => {
                let name = bundle.unwrap();
                let read = facts.read_now(&self.shown, &name);
                let work = facts.works.get_mut(&name).unwrap();
                work.running = Some(Running { run: *run, read });
                work.runs += 1;
            }
            Event::End { run, outcome, .. } => {
                let name = facts.run(*run).unwrap().clone();
                given = match outcome {
                    Outcome::Data(outputs) => facts.finish(&name, Ending::Data, outputs),
                    Outcome::Declined(_) => facts.finish(&name, Ending::Declined, &[]),
                    Outcome::Failed(_) => facts.finish(&name, Ending::Failed, &[]),
                };
            }
            other => panic!("the oracle knows no {other:?}"),
        }
        self.shown = Settling::settle(facts, &given);
    }

    /// What a run of the bundle would read now.
    pub fn reading(&self, bundle: &BundleName) -> Reading {
        self.facts.read_now(&self.shown, bundle)
    }

    /// The bundle of a run in flight, and what it reads.
    pub fn reading_of(&self, run: RunId) -> Option<(BundleName, Reading)> {
        let name = self.facts.run(run)?;
        let running = self.facts.works[name].running.as_ref()?;
        Some((name.clone(), running.read.clone()))
    }

    /// The content of a candidate.
    pub fn held(&self, cell: &CellName, priority: i32) -> Option<ContentId> {
        self.facts.cells.get(cell)?.candidates.get(&priority)?.content
    }

    /// What clients have committed and not retracted.
    pub fn sources(&self) -> Vec<Write> {
        let mut writes = Vec::new();
        for ((slot, date, key), cell) in &self.facts.cells {
            for (priority, candidate) in &cell.candidates {
                if candidate.owner.is_none() && candidate.content.is_some() {
                    let (priority, content) = (*priority, candidate.content);
                    writes.push(Write { slot: *slot, date: *date, key: key.clone(), priority, content });
                }
            }
        }
        writes
    }

    /// Whether a result comes to a cell for the first time where other data stands in for it.
    pub fn stands_in(&self, event: &Event) -> bool {
        let Event::End { run, outcome: Outcome::Data(outputs), .. } = event else { return false };
        let Some(bundle) = self.facts.run(*run) else { return false };
        let work = &self.facts.works[bundle];
        outputs.iter().any(|output| {
            let name = (output.slot, bundle.1, output.key.clone());
            let cell = self.facts.cells.get(&name);
            !work.outputs.contains(&name) && cell.is_some_and(|cell| cell.content.is_some())
        })
    }

    /// Bundles that a source keeps awake if it never rests, at any distance, but for groups, which wait for the end
    /// of their scope. The graph is at rest.
    pub fn behind(&self, source: &CellName, priority: i32) -> BTreeSet<BundleName> {
        let grouped = |name: &BundleName| self.facts.producers[name.0.at()].is_group();
        let awake = |cell: &CellName, bundles: &BTreeSet<BundleName>| {
            let effective = self.shown.cells[cell].effective;
            let candidate = effective.map(|effective| &self.facts.cells[cell].candidates[&effective]);
            let owner = candidate.and_then(|candidate| candidate.owner.as_ref());
            (cell == source && effective == Some(priority))
                || owner.is_some_and(|owner| bundles.contains(owner))
        };
        let steady = |cell: &CellName| {
            let mut candidates = self.facts.cells[cell].candidates.values();
            let grouped = candidates.any(|c| c.owner.as_ref().is_some_and(grouped));
            self.shown.cells[cell].view == View::Usable && !grouped
        };
        let mut bundles = BTreeSet::new();
        loop {
            let reached = |(name, shown): &(&BundleName, &BundleShown)| {
                let mut cells = shown.edges.iter().map(|(_, cell)| cell);
                !grouped(name) && cells.clone().all(steady) && cells.any(|cell| awake(cell, &bundles))
            };
            let more: BTreeSet<BundleName> =
                self.shown.bundles.iter().filter(reached).map(|(name, _)| name.clone()).collect();
            if more == bundles {
                return bundles;
            }
            bundles = more;
        }
    }

    /// The outcome of a run like that of the bundle's last one, with new contents.
    pub fn as_before(&self, started: &Started, number: usize) -> Outcome {
        let name = (started.producer, started.date, started.key.clone());
        let work = &self.facts.works[&name];
        match work.ending {
            Some(Ending::Declined) => Outcome::Declined("again".to_string()),
            Some(Ending::Failed) => Outcome::Failed("again".to_string()),
            Some(Ending::Data) | None => {
                let held = |cell: &&CellName| {
                    let mut candidates = self.facts.cells[*cell].candidates.values();
                    candidates.any(|c| c.owner.as_ref() == Some(&name) && c.content.is_some())
                };
                let mut content = [9; 32];
                content[..8].copy_from_slice(&number.to_le_bytes());
                let outputs = work.outputs.iter().filter(held);
                Outcome::Data(
                    outputs.map(|cell| OutputWrite::data(cell.0, cell.2.clone(), content)).collect(),
                )
            }
        }
    }
}
