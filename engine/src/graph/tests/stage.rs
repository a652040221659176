//! A graph under watch: each event goes to the graph and the oracle, and every invariant that can be seen at
//! once is checked.

use std::collections::{BTreeMap, BTreeSet};

use underbelly_storage::image::Key as RecordKey;
use underbelly_storage::{Date, Timestamp, Value};

use super::super::*;
use super::oracle::{BESIDE, BundleName, CellName, Oracle, Subject, bundle_name, cell_name};

#[derive(Clone)]
pub(super) struct Stage {
    pub graph: Graph,
    pub oracle: Oracle,
    /// How many events were accepted.
    pub seq: u64,
    /// Each how many events a restored twin must do the same.
    pub twin_every: u64,
    next_run: u64,
    /// Runs in flight with their epochs and inputs.
    pub flying: BTreeMap<RunId, Started>,
    /// How often each bundle was started.
    pub starts: BTreeMap<BundleId, u64>,
    /// Bundles behind a result that came to a cell where other data had stood in for it or that somebody had looked for, or
    /// of a run that read other cells beside its inputs than the one before; how many events there were when it last did.
    surprised: BTreeMap<BundleName, usize>,
    /// How many results each bundle gave.
    pub ends: BTreeMap<BundleName, u64>,
    /// Every event that was accepted.
    pub log: Vec<Event>,
    /// What the last one did.
    pub last: Option<Effects>,
    store: Store,
}

type Records = Vec<(RecordKey, Vec<u8>)>;

/// Records that captures stored, a few steps of a capture with each event.
#[derive(Clone, Default)]
struct Store {
    records: BTreeMap<RecordKey, Vec<u8>>,
    /// What the capture that goes on must come to, and what it gave so far.
    capture: Option<(Records, Records)>,
}

impl Store {
    /// What is stored and captured is what the graph was when the capture began.
    fn step(&mut self, graph: &mut Graph, seq: u64) {
        let Some((expected, captured)) = &mut self.capture else {
            graph.begin_capture();
            self.capture = Some((graph.to_records(), Vec::new()));
            return;
        };
        for _ in 0..seq % 4 {
            let mut value = Vec::new();
            match graph.capture_next(&mut value) {
                Captured::Record(key) => captured.push((key, value)),
                Captured::Searching => {}
                Captured::Done if seq.is_multiple_of(7) => {
                    graph.abandon_capture();
                    self.capture = None;
                    return;
                }
                Captured::Done => {
                    assert!(captured.is_sorted_by(|a, b| a.0 < b.0), "records come in order, each once");
                    for (key, value) in captured.drain(..) {
                        match Fact::is_gone(key, &value) {
                            true => drop(self.records.remove(&key)),
                            false => drop(self.records.insert(key, value)),
                        }
                    }
                    let stored = self.records.clone().into_iter().collect::<Vec<_>>();
                    assert_eq!(stored, *expected, "a capture holds the facts as they were when it began");
                    graph.end_capture();
                    self.capture = None;
                    return;
                }
            }
        }
    }
}

pub(super) fn restored(records: &[(RecordKey, Vec<u8>)]) -> Result<Graph, GraphError> {
    Graph::from_records(records.iter().map(|(key, value)| (*key, &**value)))
}

pub(super) fn day(number: i32) -> SlotDate {
    SlotDate::Day(Date(number))
}

pub(super) fn key(values: &[i64]) -> Key {
    Key::new(values.iter().map(|value| Value::I64(*value)).collect()).unwrap()
}

pub(super) fn content(number: u8) -> ContentId {
    [number; 32]
}

impl Stage {
    pub fn new() -> Stage {
        Stage {
            graph: Graph::new(),
            oracle: Oracle::default(),
            seq: 0,
            twin_every: twin_every(),
            next_run: 1,
            flying: BTreeMap::new(),
            starts: BTreeMap::new(),
            surprised: BTreeMap::new(),
            ends: BTreeMap::new(),
            log: Vec::new(),
            last: None,
            store: Store::default(),
        }
    }

    /// Applies an event and checks everything.
    pub fn apply(&mut self, event: Event) -> Result<Effects, GraphError> {
        let twinned = self.seq.is_multiple_of(self.twin_every);
        let before = twinned.then(|| self.graph.to_records());
        let looked = Looked::at(&self.graph);
        let checked = self.graph.check(&event);
        let bundles = self.graph.bundles().count();
        let mut subject = match checked {
            Ok(()) => self.subject(&event),
            _ => Subject::default(),
        };
        if matches!(checked, Ok(()) | Err(GraphError::CellCycle { .. })) {
            assert_eq!(checked.is_err(), self.oracle.closes_circle(&event), "{checked:?}");
        }
        let quiet = self.changes_nothing(&event);
        let record = EventV1::from_bytes(&EventV1::from(&event).to_bytes().unwrap()).unwrap();
        assert_eq!(Event::try_from(record).unwrap(), event);

        let now = self.now();
        let twin = before.as_ref().map(|before| restored(before).unwrap());
        let applied = self.graph.apply(self.seq, now, &event);
        assert_eq!(checked.clone().err(), applied.clone().err());
        if let Some(mut twin) = twin {
            let records = self.graph.to_records();
            assert_eq!(twin.apply(self.seq, now, &event), applied, "a restored graph behaves the same");
            assert_eq!(twin.to_records(), records);
            assert!(twin.alarms().eq(self.graph.alarms()), "alarms follow from facts");
            assert_eq!(twin.next_due(), self.graph.next_due(), "times follow from facts");
            assert_eq!(restored(&records).unwrap().to_records(), records);
        }
        let Ok(effects) = applied else {
            // A refused event changes nothing.
            before.iter().for_each(|before| assert_eq!(self.graph.to_records(), *before));
            return applied;
        };
        self.seq += 1;
        self.store.step(&mut self.graph, self.seq);
        let surprises = self.oracle.surprises(&event);
        subject.moments = self.groups_behind(bundles);
        self.oracle.apply(&event, subject);
        self.oracle.compare(&self.graph);
        let (old, missed) = self.oracle.alarms();
        let alarms: Vec<Alarm> = self.graph.alarms().map(|(alarm, _)| alarm).collect();
        let aged = alarms.iter().filter(|alarm| matches!(alarm, Alarm::Aged(_))).count();
        let overdue = alarms.iter().filter(|alarm| matches!(alarm, Alarm::Overdue(_))).count();
        assert_eq!(aged, old, "cells that are old");
        assert!(overdue <= missed, "deadlines that were missed");
        for started in &effects.started {
            self.check_snapshot(started);
            self.flying.insert(started.run, started.clone());
            *self.starts.entry(started.bundle).or_default() += 1;
            self.next_run = self.next_run.max(started.run.0 + 1);
        }
        for ended in &effects.ended {
            self.flying.remove(&ended.run);
            *self.ends.entry(bundle_name(&self.graph, ended.bundle)).or_default() += 1;
        }
        for cut in &effects.interrupted {
            self.flying.remove(&cut.run);
        }
        if matches!(event, Event::Cancel { .. } | Event::Deregister(_)) {
            self.flying.retain(|run, _| self.graph.bundle_of_run(*run).is_some());
        }
        self.log.push(event);
        self.last = Some(effects.clone());
        for name in self.behind(surprises) {
            self.surprised.insert(name, self.log.len());
        }
        looked.check(&effects, &self.graph);
        // A producer may have come in between, of which it grows old by now.
        if quiet && self.changes_nothing(&self.log[self.log.len() - 1]) {
            let none =
                effects.contents.is_empty() && effects.transitions.is_empty() && effects.ready.is_empty();
            assert!(none, "equal content wakes nobody: {effects:?}");
        }
        self.check_reasons();
        self.check_tables();
        self.check_cycles();
        Ok(effects)
    }

    /// Bundles that a surprise since so many events may have started a second time.
    pub fn surprised_since(&self, events: usize) -> BTreeSet<BundleName> {
        let since = self.surprised.iter().filter(|(_, at)| **at > events);
        since.map(|(name, _)| name.clone()).collect()
    }

    /// The readers of cells, a bundle, and whatever is behind them, made already or not.
    fn behind(&self, (cells, bundle): (Vec<CellName>, Option<BundleName>)) -> BTreeSet<BundleName> {
        let graph = &self.graph;
        let readers = |cell: CellId| {
            let fills = |bundle: &BundleId| graph.classes_above(*bundle).iter().any(|(own, _)| *own == cell);
            graph.cells[cell.at()].readers.bundles().chain(graph.bundles().filter(fills)).collect::<Vec<_>>()
        };
        let cells = cells.iter().filter_map(|(slot, date, key)| graph.cell(*slot, *date, key));
        let own = bundle.and_then(|(producer, date, key)| graph.bundle(producer, date, &key));
        let mut left: Vec<BundleId> = cells.flat_map(readers).chain(own).collect();
        let mut behind = BTreeSet::new();
        while let Some(bundle) = left.pop() {
            if behind.insert(bundle_name(graph, bundle)) {
                left.extend(graph.tallies[bundle.at()].outputs.iter().flat_map(readers));
                left.extend(graph.may_hold(bundle));
            }
        }
        behind
    }

    /// The commit time of the next event.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.seq as i64 * 10)
    }

    /// Whether a commit gives each candidate what it has.
    fn changes_nothing(&self, event: &Event) -> bool {
        let Event::Commit(Submission { writes, ends, .. }) = event else { return false };
        let equal = |write: &Write| {
            let cell = (write.slot, write.date, write.key.clone());
            let held = self.oracle.held(&cell, write.priority);
            held.is_some() && held == write.content && !self.oracle.grows_old(&cell, write.priority)
        };
        ends.is_empty() && writes.iter().all(equal)
    }

    /// What an event that is accepted names by a number.
    fn subject(&self, event: &Event) -> Subject {
        let (cell, bundle) = match event {
            Event::Start { bundle, .. } => (None, Some(self.check_start(*bundle))),
            Event::Force(bundle) | Event::Cancel { bundle, .. } => {
                (None, Some(bundle_name(&self.graph, *bundle)))
            }
            Event::Retract { cell, .. } => (Some(cell_name(&self.graph, *cell)), None),
            _ => (None, None),
        };
        let outputs = match event {
            Event::End { outcome: Outcome::Data(outputs), .. } => outputs.as_slice(),
            _ => &[],
        };
        let name = |used: &Used| (usize::from(used.input), cell_name(&self.graph, used.cell));
        let of = |output: &OutputWrite| output.uses.as_ref().map(|uses| uses.iter().map(name).collect());
        let now = self.now();
        Subject { cell, bundle, now, uses: outputs.iter().map(of).collect(), moments: Vec::new() }
    }

    /// The groups that were made after so many bundles, and are still there.
    fn groups_behind(&self, bundles: usize) -> Vec<BundleName> {
        let names = self.graph.bundles().skip(bundles).map(|bundle| bundle_name(&self.graph, bundle));
        names.filter(|(producer, ..)| self.graph.producers[producer.at()].is_group()).collect()
    }

    fn check_start(&self, id: BundleId) -> BundleName {
        let name = bundle_name(&self.graph, id);
        self.oracle.check_inputs(&name);
        let again = self.oracle.reads_the_same(&name);
        assert!(!again || self.oracle.is_forced(&name), "nothing is run again for what was read before");
        name
    }

    /// A run reads what there is at its start, all of it.
    fn check_snapshot(&self, started: &Started) {
        let (name, reading) = self.oracle.reading_of(started.run).unwrap();
        assert_eq!(name, (started.producer, started.date, started.key.clone()));
        let inputs = started.inputs.iter().map(|input| {
            let (slot, date, key) = cell_name(&self.graph, input.cell);
            ((input.input, (slot, date, key)), input.g)
        });
        let read = reading.cells.into_iter().filter(|((at, _), _)| *at != BESIDE);
        assert!(inputs.eq(read), "a run reads its bundle's edges");
        for input in &started.inputs {
            assert_eq!(Some(input.content), self.graph.cell_info(input.cell).unwrap().content);
        }
    }

    /// Every stale, invalid, void or parked thing has a reason that ends in root events.
    fn check_reasons(&self) {
        for cell in self.graph.cells() {
            let why = self.graph.why(cell).unwrap();
            self.check_why(&why, usize::MAX);
            assert!(!why.children.is_empty(), "{why}");
            let info = self.graph.cell_info(cell).unwrap();
            assert_eq!(self.graph.why_at(info.slot, info.date, &info.key), Some(why));
            let near = Extent { depth: 2, ..Extent::default() };
            self.check_why(
                &self.graph.why_within(info.slot, info.date, &info.key, near).unwrap(),
                near.depth,
            );
            if info.state == State::Stale {
                assert!(!info.causes.is_empty(), "a stale cell has causes");
            }
        }
        for bundle in self.graph.bundles() {
            self.check_why(&self.graph.why_bundle(bundle).unwrap(), usize::MAX);
        }
    }

    /// A tree of reasons ends in root events or in what is explained elsewhere in it, each cell above this depth is explained, and
    /// what is said of work is so.
    fn check_why(&self, why: &Why, depth: usize) {
        let mut levels = BTreeMap::new();
        let mut explained = BTreeSet::new();
        look_at_cells(why, 0, &mut levels, &mut explained);
        let near = levels.iter().filter(|(_, level)| **level < depth).map(|(cell, _)| cell);
        near.for_each(|cell| assert!(explained.contains(cell), "cell {cell} is explained nowhere: {why}"));
        self.check_leaves(why, &explained, depth);
    }

    fn check_leaves(&self, why: &Why, explained: &BTreeSet<CellId>, depth: usize) {
        let is_above = || why.sid.is_some_and(|cell| explained.contains(&cell));
        let is_cut = depth < usize::MAX && why.more > 0;
        let is_root = match why.kind {
            WhyKind::Client | WhyKind::Ended => why.seq.is_some(),
            WhyKind::Running => why.run.is_some(),
            WhyKind::More => why.more > 0,
            WhyKind::Cell => is_above() || is_cut,
            WhyKind::Missing => is_cut,
            _ => ROOTS.iter().any(|root| why.text.contains(root)),
        };
        assert!(is_root || !why.children.is_empty(), "no root event: {}", why.text);
        if why.kind == WhyKind::Work {
            self.oracle.check_work(why);
        }
        why.children.iter().for_each(|child| self.check_leaves(child, explained, depth));
    }

    /// From a cell one comes back to it over no edges.
    fn check_cycles(&self) {
        let mut after: BTreeMap<CellId, BTreeSet<CellId>> = BTreeMap::new();
        for bundle in self.graph.bundles() {
            let info = self.graph.bundle_info(bundle).unwrap();
            for member in info.members {
                after.entry(member).or_default().extend(&info.outputs);
            }
        }
        let mut left: BTreeSet<CellId> = self.graph.cells().collect();
        while !left.is_empty() {
            let leads_on = |cell: &CellId| after.get(cell).is_some_and(|next| !next.is_disjoint(&left));
            let ends: Vec<CellId> = left.iter().filter(|cell| !leads_on(cell)).copied().collect();
            assert!(!ends.is_empty(), "the cell graph has no cycle");
            ends.iter().for_each(|cell| assert!(left.remove(cell)));
        }
    }

    /// Counts of producers are recounts, and obligations are what cells know of their listeners.
    fn check_tables(&self) {
        let graph = &self.graph;
        let mut notified = vec![0; graph.cells.len()];
        let mut active = vec![0; graph.cells.len()];
        for (id, _) in graph.producers() {
            let mut counts = PStatus::ALL.map(|status| (status, 0));
            let mut runs = 0;
            for info in graph.bundles_of(id).into_iter().filter_map(|bundle| graph.bundle_info(bundle)) {
                counts.iter_mut().filter(|(status, _)| *status == info.status).for_each(|(_, n)| *n += 1);
                runs += info.runs;
                let owed: Vec<Obligation> = graph.obligations(info.bundle, None).collect();
                let mut cells: Vec<CellId> = owed.iter().map(|row| row.cell).collect();
                cells.dedup();
                assert_eq!(cells, info.members);
                for row in owed {
                    let g = graph.cell_row(row.cell).unwrap().g;
                    assert_eq!(row.superseded, row.g < g, "{row:?} of a cell at {g}");
                    assert!(!row.superseded || row.status == PStatus::Processing);
                    match row.status {
                        PStatus::Notified => notified[row.cell.at()] += 1,
                        PStatus::Ready | PStatus::Processing | PStatus::RetryWait => {
                            active[row.cell.at()] += 1
                        }
                        _ => {}
                    }
                }
            }
            assert_eq!((graph.status_counts(id), graph.run_count(id)), (counts, runs));
        }
        for (at, cell) in graph.cells.iter().enumerate().filter(|(_, cell)| !cell.expected) {
            assert_eq!((cell.notified, cell.active), (notified[at], active[at]), "listeners of cell {at}");
        }
    }

    pub fn define(&mut self, definition: SlotDefinition) -> SlotId {
        self.apply(Event::DefineSlot(definition)).unwrap().slot.unwrap()
    }

    /// Registers and attaches.
    pub fn register(&mut self, definition: ProducerDefinition) -> ProducerId {
        let id = self.apply(Event::Register(definition)).unwrap().producer.unwrap();
        self.apply(Event::Attach { producer: id, host: None }).unwrap();
        id
    }

    pub fn write(&mut self, slot: SlotId, date: SlotDate, key: &Key, content: Option<ContentId>) -> Effects {
        let write = Write { slot, date, key: key.clone(), priority: 0, content };
        self.apply(Event::Commit(Submission { writes: vec![write], ends: vec![], ..Submission::default() }))
            .unwrap()
    }

    pub fn end_of(&mut self, date: SlotDate) -> Effects {
        self.apply(Event::Commit(Submission { writes: vec![], ends: vec![date], ..Submission::default() }))
            .unwrap()
    }

    pub fn start(&mut self, bundle: BundleId) -> Result<Started, GraphError> {
        let run = RunId(self.next_run);
        let started = self.apply(Event::Start { bundle, run, batch: run })?.started.remove(0);
        assert_eq!(started.run, run);
        Ok(started)
    }

    pub fn end(&mut self, run: RunId, outcome: Outcome) -> Result<Effects, GraphError> {
        self.end_with(run, outcome, vec![])
    }

    /// Ends a run that reports what it has read beside its inputs.
    pub fn end_with(
        &mut self,
        run: RunId,
        outcome: Outcome,
        reads: Vec<Read>,
    ) -> Result<Effects, GraphError> {
        let epoch = self.flying.get(&run).map_or(0, |started| started.epoch);
        self.apply(Event::End { run, epoch, outcome, reads })
    }

    /// Starts the bundle that has waited longest; panics if none is ready.
    pub fn start_next(&mut self) -> Started {
        let bundle = self.graph.next_ready().expect("a bundle is ready");
        self.start(bundle).unwrap()
    }

    /// Ends a run with one output cell of this content in the producer's only output slot, at the bundle's key.
    pub fn give(&mut self, started: &Started, number: u8) -> Effects {
        let name = &self.graph.producer(started.producer).unwrap().outputs[0].slot;
        let slot = self.graph.slot_by_name(name).unwrap();
        let output = OutputWrite::data(slot, started.key.clone(), content(number));
        self.end(started.run, Outcome::Data(vec![output])).unwrap()
    }

    pub fn reopen(&mut self) -> Effects {
        self.apply(Event::Reopen).unwrap()
    }

    pub fn state(&self, slot: SlotId, date: SlotDate, key: &Key) -> State {
        let cell = self.graph.cell(slot, date, key).expect("the cell exists");
        self.graph.state(cell).unwrap()
    }

    pub fn statuses(&self) -> Vec<PStatus> {
        self.graph.bundles().map(|bundle| self.graph.bundle_info(bundle).unwrap().status).collect()
    }
}

/// What a graph showed before an event.
struct Looked {
    /// By cell.
    states: BTreeMap<CellId, (State, u64)>,
    ready: Vec<BundleId>,
    /// Of those, the ones that anything live overtakes.
    backfill: BTreeSet<BundleId>,
}

impl Looked {
    fn at(graph: &Graph) -> Looked {
        let look = |cell| (cell, graph.cell_info(cell).map(|info| (info.state, info.g)).unwrap());
        let is_backfill =
            |bundle: &BundleId| order::Lane::of(graph.bundles[bundle.at()].order) == order::Lane::Backfill;
        let ready: Vec<BundleId> = graph.ready().collect();
        let backfill = ready.iter().copied().filter(is_backfill).collect();
        Looked { states: graph.cells().map(look).collect(), ready, backfill }
    }

    /// Effects lead from what was to what is: transitions from state to state, generations by ones and by content
    /// alone, and the queue in its old order.
    fn check(mut self, effects: &Effects, graph: &Graph) {
        let created: BTreeSet<CellId> =
            graph.cells().filter(|cell| !self.states.contains_key(cell)).collect();
        assert_eq!(effects.created.len(), created.len(), "every new cell is told once");
        assert!(effects.created.iter().all(|cell| created.contains(cell)), "every new cell is told");
        self.states.extend(created.iter().map(|cell| (*cell, (State::Void, 0))));
        for transition in &effects.transitions {
            let (state, _) = self.states.get_mut(&transition.cell).unwrap();
            assert_eq!(transition.from, *state, "transitions are a chain");
            *state = transition.to;
        }
        for (cell, content, g) in &effects.contents {
            let (_, old) = self.states.get_mut(cell).unwrap();
            assert_eq!(*g, *old + 1, "a generation rises by one");
            assert_eq!(*content, graph.cell_info(*cell).unwrap().content);
            *old = *g;
        }
        for cell in graph.cells() {
            let info = graph.cell_info(cell).unwrap();
            assert_eq!(self.states[&cell], (info.state, info.g), "every change of {cell} is told");
        }
        let queue: Vec<BundleId> = graph.ready().collect();
        let (mut old, new): (Vec<BundleId>, Vec<BundleId>) =
            queue.iter().partition(|bundle| self.ready.contains(bundle));
        let told: BTreeSet<BundleId> = effects.ready.iter().copied().collect();
        assert_eq!(new.into_iter().collect::<BTreeSet<_>>(), told, "what became ready is told");
        self.ready.retain(|bundle| queue.contains(bundle));
        // What was a backfill and changes now may be one no more.
        old.retain(|bundle| !self.backfill.contains(bundle));
        self.ready.retain(|bundle| !self.backfill.contains(bundle));
        assert_eq!(old, self.ready, "what waits stays in its order");
    }
}

/// `UNDERBELLY_TWINS` says each how many events a twin is restored (1).
fn twin_every() -> u64 {
    std::env::var("UNDERBELLY_TWINS").ok().map_or(1, |text| text.parse().unwrap())
}

/// The cells of a tree of reasons, at how many cells under the root each is first, and which are explained.
fn look_at_cells(
    why: &Why,
    level: usize,
    levels: &mut BTreeMap<CellId, usize>,
    explained: &mut BTreeSet<CellId>,
) {
    let is_cell = matches!(why.kind, WhyKind::Cell | WhyKind::Missing);
    if let (WhyKind::Cell, Some(cell)) = (why.kind, why.sid) {
        let first = levels.entry(cell).or_insert(level);
        *first = level.min(*first);
        explained.extend((!why.children.is_empty()).then_some(cell));
    }
    let below = level + usize::from(is_cell);
    why.children.iter().for_each(|child| look_at_cells(child, below, levels, explained));
}

/// What sentences say that no further reason is behind, besides those of a client or the end of a run.
const ROOTS: [&str; 17] = [
    "is too old",
    "no sign of life",
    "has no session",
    "has not committed it",
    "has not given a cell as",
    "nobody is registered",
    "is tried again at",
    "was deregistered",
    "was told to run again",
    "is detached",
    "not declared",
    "no cell of",
    "is so much earlier than",
    "does not pass the filters of its input",
    "appeared or vanished",
    "bundles in work",
    "and no client committed it",
];
