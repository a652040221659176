//! A graph under watch: each event goes to the graph and the oracle, and every invariant that can be seen at
//! once is checked.

use std::collections::{BTreeMap, BTreeSet};

use underbelly_storage::image::Key as RecordKey;
use underbelly_storage::{Date, Timestamp, Value};

use super::super::*;
use super::oracle::Oracle;

/// Generations of cells, then of scopes.
type Vector = (Vec<(CellId, u64)>, Vec<u64>);

pub(super) struct Stage {
    pub graph: Graph,
    oracle: Oracle,
    seq: u64,
    next_run: u64,
    /// Runs in flight with their epochs and inputs.
    pub flying: BTreeMap<RunId, Started>,
    /// Generations that ended runs of a bundle have read, with scope generations.
    read: BTreeSet<(BundleId, Vector)>,
    /// How often each bundle was started.
    pub starts: BTreeMap<BundleId, u64>,
    store: Store,
}

type Records = Vec<(RecordKey, Vec<u8>)>;

/// Records that captures stored, a few steps of a capture with each event.
#[derive(Default)]
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
                    self.records.extend(captured.drain(..));
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
            next_run: 1,
            flying: BTreeMap::new(),
            read: BTreeSet::new(),
            starts: BTreeMap::new(),
            store: Store::default(),
        }
    }

    /// Applies an event and checks everything.
    pub fn apply(&mut self, event: Event) -> Result<Effects, GraphError> {
        let before = self.graph.to_records();
        let states: Vec<State> = self.graph.cells.iter().map(|cell| cell.state).collect();
        let gs: Vec<u64> = self.graph.cells.iter().map(|cell| cell.g).collect();
        let bundle = match &event {
            Event::Start { bundle, .. } => Some(*bundle),
            Event::End { run, .. } => self.graph.bundle_of_run(*run),
            _ => None,
        };
        let name = bundle.and_then(|id| self.graph.bundles.get(id.at()));
        let name = name.map(|b| (b.producer, b.date, b.key.clone()));
        let checked = self.graph.check(&event);
        if let (Ok(()), Event::Start { bundle, .. }) = (&checked, &event) {
            self.check_start(*bundle);
        }
        let record = EventV1::from_bytes(&EventV1::from(&event).to_bytes().unwrap()).unwrap();
        assert_eq!(Event::try_from(record).unwrap(), event);

        let mut twin = restored(&before).unwrap();
        let now = Timestamp(self.seq as i64 * 10);
        let applied = self.graph.apply(self.seq, now, &event);
        assert_eq!(checked.clone().err(), applied.clone().err());
        assert_eq!(twin.apply(self.seq, now, &event), applied, "a restored graph behaves the same");
        let Ok(effects) = applied else {
            assert_eq!(self.graph.to_records(), before, "a refused event changes nothing");
            return applied;
        };
        self.seq += 1;
        let records = self.graph.to_records();
        assert_eq!(twin.to_records(), records);
        assert_eq!(restored(&records).unwrap().to_records(), records);
        self.store.step(&mut self.graph, self.seq);
        self.oracle.apply(&event, name);
        self.oracle.compare(&self.graph);
        self.check_effects(&effects, states, gs);
        self.check_reasons();
        self.check_tables();
        Ok(effects)
    }

    fn check_start(&mut self, id: BundleId) {
        let bundle = &self.graph.bundles[id.at()];
        for cell in bundle.edges.sources() {
            let source = &self.graph.cells[cell.at()];
            assert!(source.view() == View::Usable || source.lagging, "a run reads usable or lagging inputs");
        }
        if self.graph.producers[bundle.producer.at()].is_group() {
            assert_eq!(self.oracle.open_work(bundle.producer, bundle.date), 0, "the scope is closed");
            assert!(self.graph.is_ended(bundle.date));
        }
        assert!(!self.read.contains(&(id, self.now(id))), "nothing is run again for what was read before");
    }

    fn now(&self, id: BundleId) -> Vector {
        let bundle = &self.graph.bundles[id.at()];
        let producer = &self.graph.producers[bundle.producer.at()];
        let scope = |slot: &SlotId| self.graph.slots[slot.at()].scopes.get(&bundle.date).map_or(0, |s| s.g);
        let scopes =
            if producer.is_group() { producer.inputs.iter().map(scope).collect() } else { Vec::new() };
        (bundle.edges.sources().map(|cell| (cell, self.graph.cells[cell.at()].g)).collect(), scopes)
    }

    /// Transitions lead from the old states to the new ones, and generations rise by content alone.
    fn check_effects(&self, effects: &Effects, mut states: Vec<State>, mut gs: Vec<u64>) {
        states.resize(self.graph.cells.len(), State::Void);
        gs.resize(self.graph.cells.len(), 0);
        for transition in &effects.transitions {
            assert_eq!(transition.from, states[transition.cell.at()], "transitions are a chain");
            states[transition.cell.at()] = transition.to;
        }
        for (cell, content, g) in &effects.contents {
            assert_eq!(*g, gs[cell.at()] + 1, "a generation rises by one");
            assert_eq!(*content, self.graph.cells[cell.at()].content);
            gs[cell.at()] = *g;
        }
        for (at, cell) in self.graph.cells.iter().enumerate() {
            assert_eq!(states[at], cell.state, "every change of state is reported");
            assert_eq!(gs[at], cell.g, "every change of content is reported");
        }
    }

    /// Every stale, invalid, void or parked thing has a reason that ends in root events.
    fn check_reasons(&self) {
        for cell in self.graph.cells() {
            let why = self.graph.why(cell).unwrap();
            check_leaves(&why);
            assert!(!why.children.is_empty(), "{why}");
            let info = self.graph.cell_info(cell).unwrap();
            assert_eq!(self.graph.why_at(info.slot, info.date, &info.key), Some(why));
            if info.state == State::Stale {
                assert!(!info.causes.is_empty(), "a stale cell has causes");
            }
        }
        for bundle in self.graph.bundles() {
            let info = self.graph.bundle_info(bundle).unwrap();
            if info.status == PStatus::Parked {
                assert!(!info.reason.is_empty());
            }
            check_leaves(&self.graph.why_bundle(bundle).unwrap());
            let place = self.graph.place_of_bundle(bundle);
            let above = |cell: &CellId| self.graph.place_of_cell(*cell) > place;
            let below = |cell: &CellId| self.graph.place_of_cell(*cell) < place;
            assert!(info.members.iter().all(below), "the cell graph has no cycle");
            assert!(info.outputs.iter().all(above), "the cell graph has no cycle");
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
                assert_eq!(owed.iter().map(|row| row.cell).collect::<Vec<_>>(), info.members);
                for row in owed {
                    let g = graph.cell_row(row.cell).unwrap().g;
                    assert_eq!(row.superseded, row.g < g, "{row:?} of a cell at {g}");
                    assert!(!row.superseded || row.status == PStatus::Processing);
                    match row.status {
                        PStatus::Notified => notified[row.cell.at()] += 1,
                        PStatus::Ready | PStatus::Processing => active[row.cell.at()] += 1,
                        _ => {}
                    }
                }
            }
            assert_eq!((graph.status_counts(id), graph.run_count(id)), (counts, runs));
        }
        for (at, cell) in graph.cells.iter().enumerate() {
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
        self.apply(Event::Commit { writes: vec![write], ends: vec![] }).unwrap()
    }

    pub fn end_of(&mut self, date: SlotDate) -> Effects {
        self.apply(Event::Commit { writes: vec![], ends: vec![date] }).unwrap()
    }

    pub fn start(&mut self, bundle: BundleId) -> Result<Started, GraphError> {
        let run = RunId(self.next_run);
        let started = self.apply(Event::Start { bundle, run })?.started.unwrap();
        self.next_run += 1;
        assert_eq!(started.run, run);
        self.flying.insert(run, started.clone());
        *self.starts.entry(bundle).or_default() += 1;
        Ok(started)
    }

    pub fn end(&mut self, run: RunId, outcome: Outcome) -> Result<Effects, GraphError> {
        let started = self.flying.get(&run).cloned();
        let claim = started.as_ref().and_then(|s| self.graph.bundles[s.bundle.at()].running.clone());
        let epoch = started.as_ref().map_or(0, |s| s.epoch);
        let effects = self.apply(Event::End { run, epoch, outcome, reads: vec![] })?;
        if let (Some(started), Some(claim)) = (started, claim) {
            self.read.insert((
                started.bundle,
                (claim.cells.into_iter().map(|(edge, g)| (edge.source, g)).collect(), claim.scopes),
            ));
        }
        self.flying.remove(&run);
        Ok(effects)
    }

    /// Starts the bundle that has waited longest; panics if none is ready.
    pub fn start_next(&mut self) -> Started {
        let bundle = self.graph.next_ready().expect("a bundle is ready");
        self.start(bundle).unwrap()
    }

    /// Ends a run with one output cell of this content in the producer's only output slot, at the bundle's key.
    pub fn give(&mut self, started: &Started, number: u8) -> Effects {
        let slot = *self.graph.producers[started.producer.at()].outputs.keys().next().unwrap();
        let output = OutputWrite::data(slot, started.key.clone(), content(number));
        self.end(started.run, Outcome::Data(vec![output])).unwrap()
    }

    /// Forgets runs that were cut off.
    pub fn reopen(&mut self) -> Effects {
        let effects = self.apply(Event::Reopen).unwrap();
        self.flying.clear();
        effects
    }

    pub fn state(&self, slot: SlotId, date: SlotDate, key: &Key) -> State {
        let cell = self.graph.cell(slot, date, key).expect("the cell exists");
        self.graph.state(cell).unwrap()
    }

    pub fn statuses(&self) -> Vec<PStatus> {
        self.graph.bundles.iter().map(|bundle| bundle.status).collect()
    }
}

/// The leaves of a tree of reasons are root events.
fn check_leaves(why: &Why) {
    const ROOTS: [&str; 13] = [
        "client committed at seq",
        "client retracted at seq",
        "failed at seq",
        "declined at seq",
        "is detached",
        "is in flight",
        "not declared",
        "no cell of",
        "appeared or vanished",
        "as explained above",
        "bundles in work",
        "and no client committed it",
        "inputs more",
    ];
    if why.children.is_empty() {
        assert!(ROOTS.iter().any(|root| why.text.contains(root)), "no root event: {}", why.text);
    }
    why.children.iter().for_each(check_leaves);
}
