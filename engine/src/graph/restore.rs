//! A graph from its facts. Nothing in them is believed: ids, keys, owners and joins are checked, and what is derived
//! from them must agree with what they say.

use std::collections::{BTreeMap, BTreeSet};

use underbelly_storage::image::Key as RecordKey;

use super::bundle::{Bundle, Tally};
use super::candidate::Owner;
use super::cell::{Cell, Moment, Sheet};
use super::class::Counters;
use super::edges::EdgeKey;
use super::error::GraphError;
use super::fact::{BundleFacts, Fact, Kind, Registered};
use super::fresh::Fresh;
use super::group::Groups;
use super::ids::{BundleId, CellId, ProducerId, SlotDate, SlotId};
use super::key::Key;
use super::order::{Lane, Node, Place, Queue};
use super::pass::Pass;
use super::producer::Producer;
use super::reads::{REPORTED, Reported};
use super::register::Known;
use super::slot::address_of;
use super::state::{PStatus, State};
use super::{Graph, INTERRUPTIONS_MAX};

/// Counts above this are damage: events raise them by one.
const COUNT_MAX: u64 = 1 << 62;

fn wrong<T>(what: impl Into<String>) -> Result<T, GraphError> {
    Err(GraphError::Image { what: what.into() })
}

fn bounded(what: &str, count: u64) -> Result<u64, GraphError> {
    if count > COUNT_MAX { wrong(format!("{what} is {count}")) } else { Ok(count) }
}

/// Facts come in numbers from 0 on, none left out.
fn expect(what: &str, found: u32, next: usize) -> Result<(), GraphError> {
    match found as usize == next && next < 1 << 31 {
        true => Ok(()),
        false => wrong(format!("{what} {found} stands where {next} should be")),
    }
}

/// A graph that is being restored.
#[derive(Debug, Default)]
pub struct Restorer {
    graph: Graph,
    counted: bool,
    /// Cells that groups read, rising.
    members: BTreeMap<(SlotId, SlotDate), Vec<CellId>>,
    /// Whether the cells are found by their keys, and the groups that they make are known.
    indexed: bool,
    /// Groups whose bundle has not come yet.
    groups: Groups,
}

impl Restorer {
    /// Takes in the next fact. Facts come in the order of their keys.
    ///
    /// # Errors
    /// [`GraphError`] where it contradicts the facts before it.
    pub fn add(&mut self, fact: Fact) -> Result<(), GraphError> {
        let graph = &mut self.graph;
        match fact.0 {
            Kind::Counters { next_order } => {
                graph.next_order = bounded("the queue's length", next_order)?;
                self.counted = true;
            }
            Kind::Slot(id, definition) => {
                expect("slot", id.0, graph.slots.len())?;
                if graph.check_slot(&definition)?.is_some() {
                    return wrong(format!("slot {:?} comes twice", definition.name));
                }
                graph.define_slot(&definition);
            }
            Kind::Producer(id, session) => {
                expect("producer", id.0, graph.producers.len())?;
                graph.restore_producer(*session)?;
            }
            Kind::End(date) => {
                graph.ends.insert(date);
            }
            Kind::Deadline(deadline, missed) => {
                if deadline.slot.at() >= graph.slots.len() {
                    return wrong(format!("a deadline of slot {}", deadline.slot));
                }
                graph.index_on(deadline.slot, Vec::new());
                graph.deadlines.set(deadline, missed);
            }
            Kind::Cell(id, cell, sheet, fresh) => {
                expect("cell", id.0, graph.cells.len())?;
                if self.indexed {
                    return wrong(format!("cell {id} comes behind a bundle"));
                }
                if cell.member && graph.slots.get(cell.slot.at()).is_some_and(|slot| slot.members.is_some()) {
                    self.members.entry((cell.slot, sheet.date)).or_default().push(id);
                }
                graph.restore_cell(id, cell, sheet, &fresh)?;
            }
            Kind::Bundle(id, bundle) => {
                expect("bundle", id.0, graph.bundles.len())?;
                if !std::mem::replace(&mut self.indexed, true) {
                    graph.index_cells(std::mem::take(&mut self.members))?;
                    self.groups = graph.all_groups();
                }
                let key = (bundle.producer, bundle.date, bundle.key.clone());
                let group = self.groups.remove(&key).unwrap_or_default();
                graph.restore_bundle(id, *bundle, group)?;
            }
        }
        Ok(())
    }

    /// The graph of all facts that were taken in.
    ///
    /// # Errors
    /// [`GraphError::Image`] where they contradict each other.
    pub fn finish(self) -> Result<Graph, GraphError> {
        let Restorer { mut graph, counted, members, indexed, mut groups } = self;
        if !counted {
            return wrong("the queue's length is missing");
        }
        if !indexed {
            graph.index_cells(members)?;
            groups = graph.all_groups();
        }
        if let Some((producer, date, _)) = groups.into_keys().min() {
            let name = graph.producer_name(producer);
            return wrong(format!("producer {name:?} has no bundle for {date}"));
        }
        graph.restore_owners()?;
        if let Some(cell) = graph.restore_due() {
            return wrong(format!("cell {cell} is old, and not of the newest date"));
        }
        graph.check_joins()?;
        graph.check_orders()?;
        if let Some(bundle) = graph.misplaced() {
            return wrong(format!(
                "bundle {bundle} is settled before what it reads, or behind what it gives"
            ));
        }
        let mut pass = Pass::new(Moment::NEVER, Queue::default());
        pass.rebuilding = true;
        graph.settle_all(&mut pass);
        if let Some(cell) = pass.contradiction {
            return wrong(format!("facts of cell {cell} contradict each other"));
        }
        if graph
            .bundles
            .iter()
            .zip(&graph.tallies)
            .any(|(bundle, tally)| tally.status.is_open() && bundle.order == 0)
        {
            return wrong("work without a place in the queue");
        }
        graph.clear_ledger();
        Ok(graph)
    }
}

impl Graph {
    /// The graph whose records these are.
    ///
    /// # Errors
    /// [`GraphError`] where no graph has these records.
    pub fn from_records<'r>(
        records: impl IntoIterator<Item = (RecordKey, &'r [u8])>,
    ) -> Result<Graph, GraphError> {
        let mut restorer = Restorer::default();
        for (key, value) in records {
            restorer.add(Fact::decode(key, value)?)?;
        }
        restorer.finish()
    }

    fn restore_producer(&mut self, session: Registered) -> Result<(), GraphError> {
        let Known::New(mut producer) = self.check_producer(&session.definition)? else {
            return wrong(format!("producer {:?} comes twice", session.definition.name));
        };
        producer.attached = session.attached;
        producer.epoch = bounded("an epoch", session.epoch)?;
        producer.host = session.host;
        producer.sequence = session.sequence;
        producer.lost_at = session.lost_at;
        producer.awaited = session.awaited;
        let is_gone = session.deregistered || session.attached;
        if is_gone && (session.lost_at.is_some() || session.awaited.is_some()) {
            return wrong(format!(
                "producer {:?} is there, or no more, and is awaited",
                session.definition.name
            ));
        }
        let id = self.insert_producer(*producer);
        self.awaited.extend(session.awaited.map(|until| (until, id)));
        if session.deregistered {
            self.unlink_producer(id);
        }
        Ok(())
    }

    fn restore_cell(
        &mut self,
        id: CellId,
        cell: Cell,
        sheet: Sheet,
        fresh: &Fresh,
    ) -> Result<(), GraphError> {
        self.check_key(cell.slot, &sheet.key)?;
        let grows_old = self.slots[cell.slot.at()].definition.fresh_for.is_some();
        for candidate in sheet.candidates.iter() {
            let until = fresh.iter().find(|(priority, _)| *priority == candidate.priority);
            let is_given = match candidate.owner {
                Owner::Client => true,
                Owner::Daemon(daemon) => self.producers.get(daemon.at()).is_some_and(|d| !d.deregistered),
                Owner::Bundle(_) => false,
            };
            let may = grows_old && is_given && candidate.content.is_some();
            if let Some((priority, until)) = until {
                self.restore_age(id, cell.slot, &sheet.key, sheet.date, (*priority, *until));
            }
            if until.is_some() != may {
                return wrong(format!("cell {id} grows old, or does not, against its slot"));
            }
        }
        if !sheet.candidates.is_sorted_by(|a, b| a.priority > b.priority) {
            return wrong(format!("candidates of cell {id} are not in order"));
        }
        bounded("a generation", cell.g)?;
        if cell.g == 0 && sheet.content().is_some() {
            return wrong(format!("cell {id} has contents and no generation"));
        }
        let target = &mut self.slots[cell.slot.at()];
        target.cells.push(id);
        if !cell.expected {
            target.states.counts[State::Void as usize] += 1;
        } else if cell.g > 0 || !sheet.candidates.is_empty() {
            return wrong(format!("cell {id} was made and is expected"));
        }
        self.cells.push(cell);
        self.sheets.push(sheet);
        Ok(())
    }

    /// Finds cells by their keys, and those that groups read by their dates, all at once, since nothing then grows step
    /// by step.
    fn index_cells(&mut self, members: BTreeMap<(SlotId, SlotDate), Vec<CellId>>) -> Result<(), GraphError> {
        for ((slot, date), members) in members {
            if let Some(of_slot) = self.slots.get_mut(slot.at()).and_then(|slot| slot.members.as_mut()) {
                of_slot.insert(date, members.into_iter().collect());
            }
        }
        for at in 0..self.slots.len() {
            let slot = &mut self.slots[at];
            // With room for those of the log, so that the index does not grow at once.
            let address = |number| address_of(&self.sheets, number);
            slot.by_key.reserve(slot.cells.len() + slot.cells.len() / 4, address);
            for number in 0..slot.cells.len() {
                let id = slot.cells[number];
                if !slot.index_key(&self.sheets, id) {
                    let sheet = &self.sheets[id.at()];
                    let name = &slot.definition.name;
                    return wrong(format!(
                        "cell {} of slot {name:?} for {} comes twice",
                        sheet.key, sheet.date
                    ));
                }
            }
        }
        Ok(())
    }

    /// The edges of all groups, each with the number of tuples that have it.
    fn all_groups(&self) -> Groups {
        let mut groups = Groups::new();
        self.groups.iter().for_each(|producer| self.groups_of(*producer, &mut groups));
        groups
    }

    fn restore_bundle(
        &mut self,
        id: BundleId,
        facts: BundleFacts,
        group: BTreeMap<EdgeKey, u32>,
    ) -> Result<(), GraphError> {
        let producer = facts.producer;
        let Some(owner) = self.producers.get(producer.at()) else {
            return wrong(format!("bundle {id} of producer {producer}"));
        };
        if owner.deregistered {
            return self.restore_dropped(id, facts);
        }
        let (date, key) = (facts.date, facts.key);
        if self.bundle(producer, date, &key).is_some() || key.values().len() != owner.columns.len() {
            return wrong(format!("bundle {id} of producer {:?} comes twice", owner.definition.name));
        }
        if owner.is_group() != (facts.scopes.len() == owner.required().count())
            || !(owner.is_group() || facts.scopes.is_empty())
        {
            return wrong(format!("bundle {id} has {} scopes", facts.scopes.len()));
        }
        let is_group = owner.is_group();
        let members = match is_group {
            true => Vec::new(),
            false => self.members_of_tuple(id, owner, date, &key)?,
        };
        let (epoch, attached) = (owner.epoch, owner.attached);
        // Nothing is touched in this pass: everything is settled when all facts are there.
        let cells = self.cells.len();
        let mut pass = Pass::new(Moment::NEVER, Queue::default());
        pass.rebuilding = true;
        match is_group {
            true => self.create_group(&mut pass, producer, date, key, group),
            false => self.create_bundle(&mut pass, producer, date, key, members),
        };
        if self.cells.len() > cells {
            return wrong(format!("bundle {id} looks for a cell that is not there"));
        }
        self.restore_reported(&mut pass, id, facts.reported)?;
        for (edge, g) in facts.tokens {
            let token = Some(bounded("a token", g)?).filter(|g| *g > 0);
            let is_cell = edge.source.at() < self.cells.len();
            if token.is_none() || !is_cell || self.set_token(id, edge, token).is_none() {
                let cell = edge.source;
                return wrong(format!(
                    "bundle {id} says that it read generation {g} of cell {cell}, which it does not read or which never had that"
                ));
            }
        }
        let mut counters = Counters::default();
        self.classes(id).for_each(|(_, class)| counters.add(class));
        self.tallies[id.at()].counters = counters;
        self.tallies[id.at()].lift = facts.lift;
        let bundle = &mut self.bundles[id.at()];
        for (scope, token) in bundle.scopes.iter_mut().zip(facts.scopes) {
            scope.token = token;
        }
        bundle.ending = facts.ending;
        bundle.ended = facts.ended;
        bundle.forced = facts.forced;
        bundle.lagging = facts.lagging;
        bundle.is_cut = facts.is_cut;
        if facts.unseen.is_some_and(|unseen| unseen > epoch) {
            return wrong(format!("bundle {id} waits for a session that never was"));
        }
        bundle.unseen = facts.unseen;
        bundle.interrupted = facts.interrupted;
        bundle.runs = bounded("a count of runs", facts.runs)?;
        let runs = &mut self.producers[producer.at()].runs;
        *runs = bounded("a count of runs", runs.saturating_add(facts.runs))?;
        bundle.order = facts.order;
        self.tallies[id.at()].lane = Lane::of(facts.order);
        bundle.ready_at = facts.ready_at;
        bundle.setbacks = facts.setbacks;
        if let Some(until) = bundle.until() {
            self.backing_off.insert((until, id));
        }
        if facts.is_cut {
            let Some(at) = self.cutoff_of(id) else {
                return wrong(format!("bundle {id} waits for no end, and is cut off"));
            };
            self.cutoffs.remove(&(at, id));
        }
        let bundle = &self.bundles[id.at()];
        let scopes = bundle.scopes.len();
        for (held, lift) in self.note_lift(id) {
            self.lift(Node::Bundle(held), lift);
        }
        if facts.interrupted >= INTERRUPTIONS_MAX {
            return wrong(format!("bundle {id} was interrupted {} times", facts.interrupted));
        }
        let Some(claim) = facts.running else { return Ok(()) };
        if self.bundles[id.at()].until().is_some() {
            return wrong(format!("bundle {id} runs and waits to be tried again"));
        }
        if !attached || epoch != claim.epoch {
            return wrong(format!("run {} of bundle {id} belongs to another session", claim.run));
        }
        let scopes_differ = claim.scopes.len() != scopes;
        let inputs = &self.producers[producer.at()].inputs;
        let fits = |(edge, g): &(EdgeKey, u64)| {
            let Some(cell) = self.cells.get(edge.source.at()) else { return false };
            let is_input = Some(&cell.slot) == inputs.get(usize::from(edge.input));
            (is_input || edge.input == REPORTED) && (1..=cell.g).contains(g)
        };
        let in_order = claim.cells.is_sorted_by(|a, b| a.0 < b.0);
        if scopes_differ || !in_order || !claim.cells.iter().all(fits) {
            return wrong(format!("run {} of bundle {id} reads what is not there", claim.run));
        }
        *self.producers[producer.at()].batches.entry(claim.batch).or_default() += 1;
        if self.runs.insert(claim.run, id).is_some() {
            return wrong(format!("run {} has two bundles", claim.run));
        }
        self.bundles[id.at()].running = Some(Box::new(claim));
        Ok(())
    }

    /// The edges of what a bundle's last run reported.
    fn restore_reported(
        &mut self,
        pass: &mut Pass,
        id: BundleId,
        reported: Reported,
    ) -> Result<(), GraphError> {
        if reported.cells.iter().any(|cell| cell.at() >= self.cells.len()) {
            return wrong(format!("bundle {id} has read a cell that is not there"));
        }
        for scan in &reported.scans {
            self.check_scan(scan.slot, &scan.columns, &scan.key)?;
        }
        for source in self.watch(id, reported) {
            self.add_edge(pass, id, EdgeKey { source, input: REPORTED });
        }
        Ok(())
    }

    /// A bundle of a producer that was deregistered: it has an end, and nothing else.
    fn restore_dropped(&mut self, id: BundleId, facts: BundleFacts) -> Result<(), GraphError> {
        let idle = facts.tokens.is_empty() && facts.scopes.is_empty() && facts.running.is_none();
        if !idle
            || facts.reported != Reported::default()
            || facts.forced
            || facts.is_cut
            || facts.unseen.is_some()
            || facts.setbacks.is_some()
        {
            return wrong(format!("bundle {id} works for a producer that is no more"));
        }
        let mut bundle = Bundle::new(facts.producer, facts.date, facts.key, 0);
        bundle.ending = facts.ending;
        bundle.ended = facts.ended;
        bundle.interrupted = facts.interrupted;
        bundle.runs = bounded("a count of runs", facts.runs)?;
        bundle.order = facts.order;
        let tally = Tally { lift: facts.lift, ..Tally::new(facts.producer) };
        let producer = &mut self.producers[facts.producer.at()];
        producer.statuses[PStatus::Parked.place()] += 1;
        producer.runs = bounded("a count of runs", producer.runs.saturating_add(facts.runs))?;
        self.bundles.push(bundle);
        self.tallies.push(tally);
        Ok(())
    }

    fn members_of_tuple(
        &self,
        id: BundleId,
        owner: &Producer,
        date: SlotDate,
        key: &Key,
    ) -> Result<Vec<(u16, CellId)>, GraphError> {
        let mut members = Vec::with_capacity(owner.inputs.len());
        for (input, slot) in owner.required() {
            let columns = &owner.join.input_columns[usize::from(input)];
            let date = owner.cell_date(usize::from(input), date);
            let Some(cell) = date.and_then(|date| self.cell(slot, date, &key.project(columns))) else {
                return wrong(format!("bundle {id} has no cell for input {input}"));
            };
            members.push((input, cell));
        }
        Ok(members)
    }

    /// Candidates belong to clients, or to a bundle that may give the cell.
    fn restore_owners(&mut self) -> Result<(), GraphError> {
        for id in 0..self.cells.len() {
            let (slot, sheet, id) = (self.cells[id].slot, &self.sheets[id], CellId(id as u32));
            for candidate in sheet.candidates.iter() {
                let provider = self.slots[slot.at()].provider(candidate.priority, &sheet.key);
                let owner = match candidate.owner {
                    Owner::Bundle(owner) => owner,
                    Owner::Daemon(daemon) => {
                        let known = self.producers.get(daemon.at()).filter(|p| p.definition.daemon);
                        let provides = known.is_some_and(|known| match known.deregistered {
                            true => known.outputs.get(&slot) == Some(&candidate.priority),
                            false => provider == Some(daemon),
                        });
                        if !provides {
                            return wrong(format!("producer {daemon} cannot commit cell {id}"));
                        }
                        continue;
                    }
                    Owner::Client => {
                        if self.slots[slot.at()].any_provider(candidate.priority).is_some() {
                            return wrong(format!("a client wrote cell {id} at a producer's priority"));
                        }
                        self.slots[slot.at()].client_priorities.insert(candidate.priority);
                        continue;
                    }
                };
                let Some(bundle) = self.bundles.get_mut(owner.at()) else {
                    return wrong(format!("cell {id} belongs to bundle {owner}"));
                };
                let producer = &self.producers[bundle.producer.at()];
                let positions = producer.output_positions.get(&slot).map_or(&[][..], |positions| positions);
                let provides = match producer.deregistered {
                    true => producer.outputs.get(&slot) == Some(&candidate.priority),
                    false => provider == Some(bundle.producer),
                };
                let fits =
                    provides && bundle.date == sheet.date && sheet.key.project(positions) == bundle.key;
                if !fits {
                    return wrong(format!("bundle {owner} cannot give cell {id}"));
                }
                if !producer.deregistered {
                    self.tallies[owner.at()].outputs.insert(id);
                    bundle.has_uses |= candidate.uses.is_some();
                }
            }
        }
        Ok(())
    }

    /// The bundles are the join, no more and no less.
    fn check_joins(&self) -> Result<(), GraphError> {
        for (at, producer) in self.producers.iter().enumerate() {
            let name = &producer.definition.name;
            if producer.deregistered {
                continue;
            }
            if producer.is_group() {
                continue;
            }
            let mut joined = 0;
            let first = producer.required().next();
            for (input, cell) in
                first.into_iter().flat_map(|(i, slot)| self.cells_of(slot).map(move |c| (i, c)))
            {
                for tuple in self.tuples_of(ProducerId(at as u32), input, cell) {
                    joined += 1;
                    if self.bundle(ProducerId(at as u32), tuple.date, &tuple.key).is_none() {
                        return wrong(format!("producer {name:?} lacks a bundle for {}", tuple.date));
                    }
                }
            }
            if joined != producer.bundles.len() {
                return wrong(format!("producer {name:?} has bundles that its inputs do not make"));
            }
        }
        Ok(())
    }

    /// Places in the queue are unique and were given.
    fn check_orders(&self) -> Result<(), GraphError> {
        let mut orders = BTreeSet::new();
        for bundle in self.bundles.iter().filter(|bundle| bundle.order > 0) {
            if Lane::number(bundle.order) >= self.next_order || !orders.insert(bundle.order) {
                return wrong(format!("place {} in the queue", bundle.order));
            }
        }
        Ok(())
    }

    /// Settles every cell and bundle once, by rising place, then derives states.
    fn settle_all(&mut self, pass: &mut Pass) {
        let mut places: BTreeMap<Place, (Vec<CellId>, Vec<BundleId>)> = BTreeMap::new();
        for cell in (0..self.cells.len() as u32).map(CellId) {
            places.entry(self.place_of_cell(cell)).or_default().0.push(cell);
        }
        for bundle in (0..self.bundles.len() as u32).map(BundleId) {
            places.entry(self.place_of_bundle(bundle)).or_default().1.push(bundle);
        }
        for (cells, bundles) in places.into_values() {
            cells.into_iter().for_each(|cell| self.settle_cell(pass, cell));
            bundles.into_iter().for_each(|bundle| self.settle_bundle(pass, bundle));
        }
        for cell in 0..self.cells.len() as u32 {
            self.settle_state(pass, CellId(cell));
        }
    }
}
