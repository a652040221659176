//! Facts, and how events change them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use underbelly_storage::Timestamp;

use super::super::super::*;
use super::join::EdgeName;
use super::reads::{BESIDE, Reported};
use super::rules::{BundleShown, Settling, Shown};

pub(in super::super) type CellName = (SlotId, SlotDate, Key);
pub(in super::super) type BundleName = (ProducerId, SlotDate, Key);

/// What one priority has for a cell.
#[derive(Clone, Default, Debug)]
pub(super) struct Candidate {
    /// The bundle that made it, also of a producer that is no more; `None` for clients and daemons.
    pub owner: Option<BundleName>,
    pub daemon: Option<ProducerId>,
    /// It is old from then on.
    pub fresh_until: Option<Timestamp>,
    pub aged: bool,
    /// As of the last event: of its key, it has the newest date.
    pub newest: bool,
    /// It was committed in this event.
    pub written: bool,
    pub content: Option<ContentId>,
    pub error: bool,
    /// The edges of its owner on which it rests; `None` for all.
    pub uses: Option<BTreeSet<EdgeName>>,
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Data,
    Declined,
    Failed,
    Cancelled,
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
    /// No end of the date is waited for any more.
    pub is_cut: bool,
    pub running: Option<Running>,
    pub acknowledged: bool,
    /// Of a group, what it read from as of the last event.
    pub members: BTreeSet<EdgeName>,
    /// It is to run although nothing changed.
    pub forced: bool,
    /// Its last run ended while its inputs moved, and it has not settled since.
    pub lagging: bool,
    pub interrupted: u32,
    /// Failures in a row.
    pub failures: u32,
    /// Before this it does not start.
    pub waits: Option<Timestamp>,
    pub runs: u64,
    pub outputs: BTreeSet<CellName>,
    /// What its last run has read beside its inputs.
    pub reported: Reported,
}

#[derive(Clone, Debug)]
pub(super) struct Running {
    pub run: RunId,
    pub batch: RunId,
    pub read: Reading,
}

/// An input as joins see it.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub slot: SlotId,
    /// The slot's cell keys, and the names that they have here.
    pub keys: Vec<String>,
    pub columns: Vec<String>,
    pub filters: Vec<Filter>,
    pub lag: u32,
    pub mode: Mode,
    pub fault_tolerant: bool,
    pub accept_stale: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Producer {
    pub definition: ProducerDefinition,
    pub inputs: Vec<Port>,
    /// The inputs whose cells are joined. Of a group by no column none is, nor what is broadcast and shares no column.
    pub joined: Vec<usize>,
    /// Columns that address its bundles: all that are joined, in order of appearance, or those of a group.
    pub columns: Vec<String>,
    pub attached: bool,
    pub deregistered: bool,
}

impl Producer {
    /// The inputs that make bundles, and their places.
    pub fn required(&self) -> impl Iterator<Item = (usize, &Port)> {
        (0..).zip(&self.inputs).filter(|(_, port)| port.mode == Mode::Required)
    }

    /// Whether its bundles wait for all that may still be made.
    pub fn awaits_all(&self) -> bool {
        matches!(self.definition.group, Group::By { when: When::Complete, .. }) || self.is_dependent()
    }

    pub fn is_dependent(&self) -> bool {
        self.definition.proxy.trigger == Trigger::Dependent
    }

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
    /// By when a slot is to be up to date for a date, and whether it was not.
    pub deadlines: BTreeMap<(SlotId, SlotDate), (Timestamp, bool)>,
}

/// Facts and what they show.
#[derive(Clone, Default)]
pub(in super::super) struct Oracle {
    pub(super) facts: Facts,
    pub shown: Shown,
}

/// What an event names by numbers that the graph gave.
#[derive(Clone, Default, Debug)]
pub(in super::super) struct Subject {
    pub cell: Option<CellName>,
    pub bundle: Option<BundleName>,
    /// The commit time.
    pub now: Timestamp,
    /// Of each output, the edges on which it rests if not on all.
    pub uses: Vec<Option<BTreeSet<EdgeName>>>,
    /// Groups that came to be within the event, though nothing need be left in them behind it: in which order members come
    /// and go in an event nobody says.
    pub moments: Vec<BundleName>,
}

/// Candidates that got a result in an event.
pub(super) type Results = BTreeSet<(CellName, i32)>;

impl Facts {
    pub fn slot_id(&self, name: &str) -> SlotId {
        SlotId(self.slots.iter().position(|slot| slot.name == name).unwrap() as u32)
    }

    pub fn providers(&self, slot: SlotId) -> impl Iterator<Item = ProducerId> + '_ {
        let name = &self.slots[slot.at()].name;
        let provides = move |p: &Producer| {
            !p.deregistered && p.definition.outputs.iter().any(|output| output.slot == *name)
        };
        (0u32..).zip(&self.producers).filter(move |(_, p)| provides(p)).map(|(at, _)| ProducerId(at))
    }

    fn register(&mut self, definition: &ProducerDefinition) {
        if self.producers.iter().any(|p| !p.deregistered && p.definition == *definition) {
            return;
        }
        let port = |input: &Input| {
            let slot = self.slot_id(&input.slot);
            let keys = self.slots[slot.at()].cell_keys.iter().map(|(name, _)| name.clone());
            let keys: Vec<String> = keys.collect();
            let renamed =
                |name: &String| input.renames.iter().find(|(from, _)| from == name).map(|(_, to)| to);
            let columns = keys.iter().map(|name| renamed(name).unwrap_or(name).clone()).collect();
            let Input { mode, fault_tolerant, accept_stale, lag, ref filters, .. } = *input;
            Port { slot, keys, columns, filters: filters.clone(), lag, mode, fault_tolerant, accept_stale }
        };
        let inputs: Vec<Port> = definition.inputs.iter().map(port).collect();
        let required = || (0..).zip(&inputs).filter(|(_, port)| port.mode == Mode::Required);
        let broadcast = |at: usize| definition.inputs[at].broadcast;
        let connected = required().filter(|(at, _)| !broadcast(*at));
        let connected: Vec<&String> = connected.flat_map(|(_, port)| &port.columns).collect();
        let shares = |(at, port): &(usize, &Port)| {
            !broadcast(*at) || port.columns.iter().any(|column| connected.contains(&column))
        };
        let joined: Vec<usize> = match &definition.group {
            Group::Each => required().map(|(at, _)| at).collect(),
            Group::By { columns, .. } if columns.is_empty() => Vec::new(),
            Group::By { .. } => required().filter(shares).map(|(at, _)| at).collect(),
        };
        let mut columns = Vec::new();
        for column in joined.iter().flat_map(|at| &inputs[*at].columns) {
            if !columns.contains(column) {
                columns.push(column.clone());
            }
        }
        if let Group::By { columns: own, .. } = &definition.group {
            columns.clone_from(own);
        }
        let definition = definition.clone();
        let (attached, deregistered) = (false, false);
        self.producers.push(Producer { definition, inputs, joined, columns, attached, deregistered });
    }

    fn commit(&mut self, submission: &Submission, now: Timestamp) -> Results {
        let mut given = Results::new();
        for write in &submission.writes {
            let name = (write.slot, write.date, write.key.clone());
            let known = self.cells.get(&name).is_some_and(|c| c.candidates.contains_key(&write.priority));
            if write.content.is_none() && !known {
                continue;
            }
            let age = self.slots[write.slot.at()].fresh_for.filter(|_| write.content.is_some());
            let cell = self.cells.entry(name.clone()).or_default();
            let made = submission.as_of.unwrap_or(now);
            let fresh_until = age.map(|age| Timestamp(made.0 + age.as_nanos() as i64));
            let candidate = Candidate {
                content: write.content,
                daemon: submission.session.map(|stamp| stamp.producer),
                fresh_until,
                written: true,
                ..Candidate::default()
            };
            cell.candidates.insert(write.priority, candidate);
            given.insert((name, write.priority));
        }
        self.ends.extend(&submission.ends);
        for Deadline { slot, date, due_by } in &submission.deadlines {
            let known = self.deadlines.get(&(*slot, *date)).map(|(known, _)| known);
            if known != Some(due_by) {
                self.deadlines.insert((*slot, *date), (*due_by, false));
            }
        }
        given
    }

    /// The end of the bundle's run: a result for each output that it knows, and what was read. An error keeps the
    /// last good data.
    pub(super) fn finish(
        &mut self,
        name: &BundleName,
        read: Reading,
        ending: Ending,
        outputs: &[OutputWrite],
        uses: &[Option<BTreeSet<EdgeName>>],
    ) -> Results {
        let producer = &self.producers[name.0.at()];
        let work = self.works.get_mut(name).unwrap();
        let mut given = Results::new();
        let mut told = BTreeSet::new();
        let uses = uses.iter().chain(std::iter::repeat(&None));
        let outputs = outputs.iter().zip(uses).filter(|(output, _)| output.given != Given::Absent);
        for (output, uses) in outputs {
            let slot = &self.slots[output.slot.at()].name;
            let provided = producer.definition.outputs.iter().find(|o| o.slot == *slot).unwrap();
            let cell = (output.slot, name.1, output.key.clone());
            let candidates = &mut self.cells.entry(cell.clone()).or_default().candidates;
            let candidate = candidates.entry(provided.priority).or_default();
            candidate.owner = Some(name.clone());
            candidate.content = output.content().or(candidate.content);
            candidate.error = output.content().is_none();
            candidate.uses.clone_from(uses);
            given.insert((cell.clone(), provided.priority));
            told.insert(cell);
        }
        work.outputs.extend(told.iter().cloned());
        for output in work.outputs.difference(&told) {
            let candidates = &mut self.cells.get_mut(output).unwrap().candidates;
            for (priority, candidate) in candidates.iter_mut().filter(|(_, c)| c.owner.as_ref() == Some(name))
            {
                candidate.error = matches!(ending, Ending::Failed | Ending::Cancelled);
                candidate.uses = None;
                if !candidate.error {
                    candidate.content = None;
                }
                given.insert((output.clone(), *priority));
            }
        }
        work.read = read;
        work.running = None;
        work.forced = false;
        work.lagging = true;
        work.ending = Some(ending);
        work.interrupted = 0;
        work.waits = None;
        work.failures = match ending {
            Ending::Failed => work.failures + 1,
            Ending::Cancelled => work.failures,
            Ending::Data | Ending::Declined => 0,
        };
        given
    }

    /// Whether a run gave nothing and its bundle is to be tried again: its attempts are not used up.
    pub(super) fn is_set_back(&self, name: &BundleName, outcome: &Outcome) -> bool {
        let Outcome::Again { why, .. } = outcome else { return false };
        let attempts = self.producers[name.0.at()].definition.retry.max_attempts;
        *why != Setback::Failed || self.works[name].failures + 1 < attempts
    }

    fn set_back(&mut self, name: &BundleName, outcome: &Outcome, now: Timestamp) {
        let Outcome::Again { why, wait, .. } = outcome else { return };
        let work = self.works.get_mut(name).unwrap();
        work.failures += u32::from(*why == Setback::Failed);
        work.waits = (!wait.is_zero()).then(|| Timestamp(now.0 + wait.as_nanos() as i64));
        (work.running, work.interrupted) = (None, 0);
    }

    /// Takes a producer out: its bundles are no more, and nobody has what they gave.
    /// What it gave as a member for groups that have given nothing goes with it. `read`: the cells that those read.
    fn deregister(&mut self, id: ProducerId, read: &BTreeSet<CellName>) {
        let slots: Vec<SlotId> = (self.producers[id.at()].definition.outputs.iter())
            .filter(|output| output.member.is_some())
            .map(|output| self.slot_id(&output.slot))
            .collect();
        for (name, cell) in &mut self.cells {
            for candidate in cell.candidates.values_mut() {
                let is_own =
                    candidate.daemon == Some(id) || candidate.owner.as_ref().is_some_and(|o| o.0 == id);
                if is_own && candidate.daemon.is_some() {
                    (candidate.fresh_until, candidate.aged) = (None, false);
                }
                if is_own && slots.contains(&name.0) && read.contains(name) {
                    (candidate.content, candidate.error) = (None, false);
                }
            }
        }
        let producer = &mut self.producers[id.at()];
        (producer.attached, producer.deregistered) = (false, true);
        self.works.retain(|name, _| name.0 != id);
    }

    fn reopen(&mut self) -> Results {
        self.producers.iter_mut().for_each(|producer| producer.attached = false);
        let mut given = Results::new();
        let batches: Vec<RunId> =
            self.works.values().filter_map(|work| Some(work.running.as_ref()?.batch)).collect();
        let running = self.works.iter().filter(|(_, work)| work.running.is_some());
        for name in running.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            let work = self.works.get_mut(&name).unwrap();
            let running = work.running.take().unwrap();
            // Of several it is not known who brought the process down.
            let alone = batches.iter().filter(|batch| **batch == running.batch).count() == 1;
            work.interrupted += u32::from(alone);
            if work.interrupted >= INTERRUPTIONS_MAX {
                given.extend(self.finish(&name, running.read, Ending::Failed, &[], &[]));
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
    /// Applies an event that the graph accepted. `subject`: what it names by a number.
    pub fn apply(&mut self, event: &Event, subject: Subject) {
        let moments = subject.moments;
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
            Event::Detach { producer: id, .. } => given = facts.detach(*id),
            Event::Commit(submission) => given = facts.commit(submission, subject.now),
            Event::Start { run, batch, .. } => {
                let name = subject.bundle.unwrap();
                let read = facts.read_now(&self.shown, &name);
                let work = facts.works.get_mut(&name).unwrap();
                work.running = Some(Running { run: *run, batch: *batch, read });
                work.runs += 1;
            }
            Event::End { run, outcome, reads, .. } => {
                let name = facts.run(*run).unwrap().clone();
                let mut read = facts.works[&name].running.clone().unwrap().read;
                let is_set_back = facts.is_set_back(&name, outcome);
                match is_set_back {
                    true => facts.set_back(&name, outcome, subject.now),
                    false => facts.report(&name, &mut read, reads),
                }
                given = match outcome {
                    Outcome::Data(outputs) => facts.finish(&name, read, Ending::Data, outputs, &subject.uses),
                    Outcome::Declined(_) => facts.finish(&name, read, Ending::Declined, &[], &[]),
                    Outcome::Failed(_) => facts.finish(&name, read, Ending::Failed, &[], &[]),
                    Outcome::Again { .. } if is_set_back => Results::new(),
                    Outcome::Again { .. } => facts.finish(&name, read, Ending::Failed, &[], &[]),
                };
            }
            Event::Several(_) => unreachable!("scripts hold its parts"),
            Event::Retract { priority, .. } => {
                let candidates = &mut facts.cells.get_mut(&subject.cell.unwrap()).unwrap().candidates;
                let candidate = candidates.get_mut(priority).unwrap();
                (candidate.content, candidate.error) = (None, false);
                (candidate.fresh_until, candidate.aged) = (None, false);
            }
            Event::Force(_) => {
                let work = facts.works.get_mut(&subject.bundle.unwrap()).unwrap();
                (work.forced, work.acknowledged, work.interrupted) = (true, false, 0);
                (work.failures, work.waits) = (0, None);
            }
            Event::Cancel { .. } => {
                let name = subject.bundle.unwrap();
                let read = facts.read_so_far(&self.shown, &name);
                given = facts.finish(&name, read, Ending::Cancelled, &[], &[]);
            }
            Event::Tick => {
                for (name, work) in &mut facts.works {
                    let cutoff = facts.producers[name.0.at()].definition.proxy.cutoff;
                    let begins = match name.1 {
                        SlotDate::Day(day) => i64::from(day.0) * 86_400_000_000_000,
                        SlotDate::Instant(at) => at.0,
                    };
                    let passes =
                        |cutoff: std::time::Duration| begins + cutoff.as_nanos() as i64 <= subject.now.0;
                    work.is_cut |= cutoff.is_some_and(passes);
                }
                facts
                    .works
                    .values_mut()
                    .for_each(|work| work.waits = work.waits.filter(|at| *at > subject.now));
            }
            Event::Deregister(id) => {
                let read = self.read_by_waiting(*id);
                self.facts.deregister(*id, &read);
            }
        }
        self.facts.age(subject.now, matches!(event, Event::Tick));
        for name in moments {
            assert!(self.is_possible_group(&name), "no cells make {name:?}");
            self.facts.works.entry(name).or_default();
        }
        self.shown = Settling::settle(&mut self.facts, &given);
        if *event == Event::Tick {
            self.pass_deadlines(subject.now);
        }
    }

    /// Whether this is a group that the cells which there are may make, or may have made.
    fn is_possible_group(&self, name: &BundleName) -> bool {
        let producer = &self.facts.producers[name.0.at()];
        producer.is_group() && self.facts.joined(name.0, name.1, |_| true).contains_key(name)
    }

    /// What a run of the bundle would read now.
    pub fn reading(&self, bundle: &BundleName) -> Reading {
        self.facts.read_now(&self.shown, bundle)
    }

    /// A run reads required inputs that are there, and no exclusive one is, nor is one of them being made.
    pub fn check_inputs(&self, bundle: &BundleName) {
        let producer = &self.facts.producers[bundle.0.at()];
        let shown = &self.shown.bundles[bundle];
        for (at, cell) in &shown.edges {
            let (port, source) = (producer.port(*at), &self.shown.cells[cell]);
            let waits = source.standing.view == View::Waiting;
            match port.mode {
                Mode::Required => assert!(source.is_there(port), "a run reads what is there"),
                Mode::Optional => assert!(!waits || source.lagging, "a run waits for nothing"),
                Mode::Exclusive => assert!(!waits && !source.is_there(port), "a run stands in for nothing"),
            }
        }
        assert!(shown.above.values().all(|class| !class.held && !class.unsatisfiable));
        assert!(shown.held_by.is_empty(), "nothing that it may read is being made");
        assert_eq!(shown.open_work, 0, "the scope is closed");
        let mut dates = producer.required().map(|(_, port)| port.date(bundle.1));
        let closed = dates.all(|date| self.facts.ends.contains(&date));
        assert!(closed || !producer.awaits_all(), "the ends of the dates were declared");
    }

    /// Whether a run would read what the last one read. Of what has left a group since nothing is known any more.
    pub fn reads_the_same(&self, bundle: &BundleName) -> bool {
        let work = &self.facts.works[bundle];
        work.ending.is_some() && work.read == self.reading(bundle)
    }

    /// Whether a bundle may read a cell.
    pub fn is_read(&self, cell: &CellName) -> bool {
        let mut bundles = self.shown.bundles.values();
        bundles.any(|bundle| bundle.edges.difference(&bundle.exclusive).any(|(_, source)| source == cell))
    }

    /// Whether the bundle has inputs that come and go.
    pub fn is_choosy(&self, bundle: &BundleName) -> bool {
        let producer = &self.facts.producers[bundle.0.at()];
        producer.required().count() < producer.inputs.len()
    }

    /// Whether stale data, which no recompute would make, stands in the way of something or was read beside the inputs, or
    /// some data is sound though what makes it could not start.
    pub fn is_bound_to_history(&self) -> bool {
        self.shown.bundles.values().any(|bundle| {
            let mut edges =
                bundle.cells.iter().filter(|((at, _), class)| class.unsatisfiable || *at == BESIDE);
            bundle.stale_above || edges.any(|((_, cell), _)| self.shown.cells[cell].standing.outlives())
        }) || self.outlives()
    }

    /// Whether there is data that rests on some inputs only, while another forbids its bundle a start.
    fn outlives(&self) -> bool {
        let mut candidates = self.facts.cells.values().flat_map(|cell| cell.candidates.values());
        candidates.any(|candidate| {
            let owner = self.shown.owner(candidate).filter(|_| candidate.uses.is_some());
            candidate.content.is_some() && owner.is_some_and(|owner| owner.counts.forbid())
        })
    }

    /// The bundle of a run in flight, and what it reads.
    pub fn reading_of(&self, run: RunId) -> Option<(BundleName, Reading)> {
        let name = self.facts.run(run)?;
        let running = self.facts.works[name].running.as_ref()?;
        Some((name.clone(), running.read.clone()))
    }

    /// Whether the bundle is to run although nothing changed.
    pub fn is_forced(&self, bundle: &BundleName) -> bool {
        self.facts.works[bundle].forced
    }

    /// The facts, without numbers that nothing depends on: of what was read it counts alone whether that is what there is now.
    pub fn told(&self) -> impl fmt::Debug {
        let mut facts = self.facts.clone();
        let now = |edge: &EdgeName| self.facts.cells.get(&edge.1).map(|cell| cell.g);
        let same = |read: &mut Reading| {
            read.cells.iter_mut().for_each(|(edge, g)| *g = u64::from(now(edge) == Some(*g)));
        };
        facts.cells.values_mut().for_each(|cell| cell.g = cell.g.min(1));
        for work in facts.works.values_mut() {
            same(&mut work.read);
            work.running.iter_mut().for_each(|running| same(&mut running.read));
            work.runs = 0;
            work.running.iter_mut().for_each(|running| (running.run, running.batch) = (RunId(0), RunId(0)));
        }
        facts
    }

    /// All candidates, and the bundles that made them.
    pub fn candidates(&self) -> impl Iterator<Item = (&CellName, i32, Option<&BundleName>)> {
        self.facts.cells.iter().flat_map(|(name, cell)| {
            cell.candidates.iter().map(move |(priority, c)| (name, *priority, c.owner.as_ref()))
        })
    }

    /// Candidates that nobody gives any more.
    pub fn orphans(&self) -> Vec<(CellName, i32)> {
        let gone = |owner: &BundleName| self.facts.producers[owner.0.at()].deregistered;
        let orphans = self.candidates().filter(|(_, _, owner)| owner.is_some_and(gone));
        orphans.map(|(name, priority, _)| (name.clone(), priority)).collect()
    }

    /// Whether a candidate is old some time: what is committed again may be fresh, or old, where it was not.
    pub fn grows_old(&self, cell: &CellName, priority: i32) -> bool {
        let candidate = self.facts.cells.get(cell).and_then(|cell| cell.candidates.get(&priority));
        candidate.is_some_and(|candidate| candidate.fresh_until.is_some())
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

    /// The cells to which a result comes for the first time where other data stands in for it, or where somebody has
    /// looked for it and found nothing; and its bundle, where that has read other cells beside its inputs than before.
    pub fn surprises(&self, event: &Event) -> (Vec<CellName>, Option<BundleName>) {
        let Event::End { run, outcome, reads, .. } = event else { return (Vec::new(), None) };
        let Some(bundle) = self.facts.run(*run) else { return (Vec::new(), None) };
        let work = &self.facts.works[bundle];
        let outputs = match outcome {
            Outcome::Data(outputs) => outputs.as_slice(),
            _ => &[],
        };
        let names = outputs.iter().map(|output| (output.slot, bundle.1, output.key.clone()));
        let is_surprise = |name: &CellName| {
            let cell = self.facts.cells.get(name);
            let stood_in = cell.is_some_and(|cell| cell.content.is_some());
            let looked_for = || self.facts.works.values().any(|work| work.reported.takes(name));
            !work.outputs.contains(name) && (stood_in || looked_for())
        };
        (names.filter(is_surprise).collect(), self.moves_reads(bundle, reads).then(|| bundle.clone()))
    }

    /// What is said of work: whether it was told to run again, how it ended, and for what it waits.
    pub fn check_work(&self, why: &Why) {
        let said = |root: &str| why.children.iter().any(|child| child.text.contains(root));
        let name = why.producer.as_deref().unwrap();
        let registered = |producer: &Producer| !producer.deregistered && producer.definition.name == name;
        let Some(at) = self.facts.producers.iter().position(registered).filter(|_| !said("was deregistered"))
        else {
            return;
        };
        let name = (ProducerId(at as u32), why.date.unwrap(), why.key.clone().unwrap());
        let Some(shown) = self.shown.bundles.get(&name) else {
            assert_eq!(why.status, None, "no tuple makes {name:?}");
            return;
        };
        let work = &self.facts.works[&name];
        assert_eq!(why.status, Some(shown.status), "{why}");
        assert_eq!(why.run, work.running.as_ref().map(|running| running.run), "{why}");
        let awaits = matches!(shown.status, PStatus::Notified | PStatus::Ready);
        let rows = [
            ("was told to run again", shown.forced),
            ("is detached; attach it", awaits && !self.facts.producers[at].attached),
            ("declined at seq", work.ending == Some(Ending::Declined)),
            ("was cancelled at seq", work.ending == Some(Ending::Cancelled)),
            ("is tried again at", shown.status == PStatus::RetryWait),
            ("is in flight", work.running.is_some()),
        ];
        for (text, is_so) in rows {
            assert_eq!(said(text), is_so, "{text}: {why}");
        }
    }

    /// Bundles that a source keeps awake if it never rests, at any distance, but for groups, which wait for the end
    /// of their scope, and what has inputs that come and go. The graph is at rest.
    pub fn behind(&self, source: &CellName, priority: i32) -> BTreeSet<BundleName> {
        let waits = |name: &BundleName| {
            let producer = &self.facts.producers[name.0.at()];
            producer.is_group() || producer.is_dependent()
        };
        let choosy = |name: &BundleName| waits(name) || self.is_choosy(name);
        let awake = |cell: &CellName, bundles: &BTreeSet<BundleName>| {
            let effective = self.shown.cells[cell].standing.effective;
            let candidate = effective.map(|effective| &self.facts.cells[cell].candidates[&effective]);
            let owner = candidate.and_then(|candidate| candidate.owner.as_ref());
            (cell == source && effective == Some(priority))
                || owner.is_some_and(|owner| bundles.contains(owner))
        };
        let steady = |cell: &CellName| {
            let mut candidates = self.facts.cells[cell].candidates.values();
            let choosy = candidates.any(|c| c.owner.as_ref().is_some_and(choosy));
            self.shown.cells[cell].standing.view == View::Usable && !choosy
        };
        let mut bundles = BTreeSet::new();
        loop {
            let reached = |(name, shown): &(&BundleName, &BundleShown)| {
                let mut cells = shown.edges.iter().map(|(_, cell)| cell);
                !choosy(name) && cells.clone().all(steady) && cells.any(|cell| awake(cell, &bundles))
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
            Some(Ending::Failed | Ending::Cancelled) => Outcome::Failed("again".to_string()),
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
