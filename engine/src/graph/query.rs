//! Answers about slots, cells, producers and bundles.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use underbelly_storage::{ColumnType, Timestamp};

use super::apply::CLIENT;
use super::bundle::{Ending, bundle_address};
use super::candidate::{Candidate, Owner};
use super::class::Class;
use super::definition::{Mode, ProducerDefinition, SlotDefinition};
use super::edges::EdgeKey;
use super::ids::{BundleId, CellId, ContentId, ProducerId, RunId, SlotDate, SlotId};
use super::info::{BundleInfo, Cause, CellInfo, StateCounts};
use super::key::Key;
use super::producer::Producer;
use super::state::{PStatus, State};
use super::{Graph, View};

/// Levels of a tree or of a chain of reasons; what lies deeper is cut off.
pub(super) const DEPTH_MAX: usize = 256;

impl Graph {
    /// All slots in the order of definition.
    pub fn slots(&self) -> impl Iterator<Item = (SlotId, &SlotDefinition)> + '_ {
        self.slots.iter().enumerate().map(|(at, slot)| (SlotId(at as u32), &slot.definition))
    }

    /// A slot's definition.
    pub fn slot(&self, id: SlotId) -> Option<&SlotDefinition> {
        self.slots.get(id.at()).map(|slot| &slot.definition)
    }

    /// The slot of this name.
    pub fn slot_by_name(&self, name: &str) -> Option<SlotId> {
        let id = self.tables.get(&name.replace('.', "_"))?;
        (self.slot(*id)?.name == name).then_some(*id)
    }

    /// The slot that this names, or whose table it names: the name with `_` for each `.`.
    pub fn slot_by_table(&self, name: &str) -> Option<SlotId> {
        self.tables.get(&name.replace('.', "_")).copied()
    }

    /// How many cells of a slot are in each state; zeros where there is no such slot.
    pub fn state_counts(&self, slot: SlotId) -> StateCounts {
        self.slots.get(slot.at()).map(|slot| slot.states).unwrap_or_default()
    }

    /// All producers that are registered, in the order of registration.
    pub fn producers(&self) -> impl Iterator<Item = (ProducerId, &ProducerDefinition)> + '_ {
        let registered = self.producers.iter().enumerate().filter(|(_, producer)| !producer.deregistered);
        registered.map(|(at, producer)| (ProducerId(at as u32), &producer.definition))
    }

    /// A producer's definition.
    pub fn producer(&self, id: ProducerId) -> Option<&ProducerDefinition> {
        self.producers.get(id.at()).map(|producer| &producer.definition)
    }

    /// The producer of this name.
    pub fn producer_by_name(&self, name: &str) -> Option<ProducerId> {
        self.producer_names.get(name).copied()
    }

    /// Whether the process has the producer's code.
    pub fn is_attached(&self, id: ProducerId) -> bool {
        self.producers.get(id.at()).is_some_and(|producer| producer.attached)
    }

    /// Names and types of the key values of a producer's bundles, in order.
    pub fn bundle_columns(&self, id: ProducerId) -> &[(String, ColumnType)] {
        self.producers.get(id.at()).map_or(&[], |producer| &producer.columns)
    }

    /// The cell of a slot, date and key.
    pub fn cell(&self, slot: SlotId, date: SlotDate, key: &Key) -> Option<CellId> {
        self.find(slot, date, key).filter(|cell| self.is_made(*cell))
    }

    /// All cells in the order of creation.
    pub fn cells(&self) -> impl Iterator<Item = CellId> + '_ {
        (0..self.cells.len()).map(|at| CellId(at as u32)).filter(|cell| self.is_made(*cell))
    }

    /// Whether somebody has made a cell; others are only looked for.
    pub(super) fn is_made(&self, cell: CellId) -> bool {
        self.cells.get(cell.at()).is_some_and(|cell| !cell.expected)
    }

    /// The cells of a slot in the order of creation.
    pub fn cells_of(&self, slot: SlotId) -> impl Iterator<Item = CellId> + '_ {
        let cells = self.slots.get(slot.at()).into_iter().flat_map(|slot| slot.cells.iter().copied());
        cells.filter(|cell| self.is_made(*cell))
    }

    /// Where a cell is.
    pub fn address(&self, cell: CellId) -> Option<(SlotId, SlotDate, &Key)> {
        let sheet = self.sheets.get(cell.at())?;
        self.cells.get(cell.at()).map(|cell| (cell.slot, sheet.date, &sheet.key))
    }

    /// The state of a cell.
    pub fn state(&self, cell: CellId) -> Option<State> {
        self.cells.get(cell.at()).map(|cell| cell.state)
    }

    /// What a cell is to its consumers.
    pub fn view(&self, cell: CellId) -> Option<View> {
        self.cells.get(cell.at()).map(|cell| cell.view())
    }

    /// A cell and its state. Causes take time in proportion to the inputs of the bundle that made it.
    pub fn cell_info(&self, id: CellId) -> Option<CellInfo> {
        let cell = self.cells.get(id.at())?;
        let sheet = self.sheets.get(id.at())?;
        let effective = sheet.effective_candidate();
        let mut causes = Vec::new();
        if let Some(owner) = effective.and_then(|c| c.owner.bundle()) {
            causes = self.causes(owner, effective);
        }
        causes.extend(effective.filter(|c| c.aged).map(|_| Cause::Aged));
        causes.extend(sheet.standing(&self.tallies).better_coming.map(Cause::Better));
        Some(CellInfo {
            cell: id,
            slot: cell.slot,
            date: sheet.date,
            key: sheet.key.clone(),
            state: cell.state,
            g: cell.g,
            changed_at: sheet.changed.time,
            changed_seq: sheet.changed.seq,
            verified_at: sheet.verified.time,
            verified_seq: sheet.verified.seq,
            content: sheet.content(),
            producer: effective.map(|c| self.owner_name(c.owner).to_string()),
            priority: sheet.effective,
            error: effective.and_then(|c| c.error.as_ref()).map(|error| error.to_string()),
            lagging: cell.lagging,
            causes,
            failed_listeners: self.failed_listeners(id),
        })
    }

    /// Listeners whose last run failed; each once, though it may have several inputs of the cell.
    fn failed_listeners(&self, id: CellId) -> u32 {
        let cell = &self.cells[id.at()];
        if cell.failed == 0 || cell.expected {
            return 0;
        }
        let edges = cell.readers.edges().iter().filter(|edge| edge.need().mode != Mode::Exclusive);
        let mut failed: Vec<BundleId> = edges.map(|edge| edge.bundle).collect();
        failed.dedup();
        failed.retain(|bundle| self.tallies[bundle.at()].status == PStatus::Failed);
        failed.len() as u32
    }

    /// The commit that gave a cell the contents that it has now, their generation, and the contents; `None` where it
    /// never had any.
    pub fn content_of(&self, id: CellId) -> Option<(u64, u64, Option<ContentId>)> {
        let cell = self.cells.get(id.at()).filter(|cell| cell.g > 0)?;
        let sheet = self.sheets.get(id.at())?;
        Some((sheet.changed.seq, cell.g, sheet.content()))
    }

    /// What clients gave a cell at priority 0, whichever candidate is effective.
    pub(crate) fn client_content(&self, id: CellId) -> Option<ContentId> {
        let candidates = &self.sheets.get(id.at())?.candidates;
        let of_client = |candidate: &&Candidate| candidate.priority == 0 && candidate.owner == Owner::Client;
        candidates.iter().find(of_client)?.content
    }

    /// Commit time of the last change of a cell's contents; `None` where it never had any.
    pub fn changed_at(&self, id: CellId) -> Option<Timestamp> {
        let made = self.cells.get(id.at()).filter(|cell| cell.g > 0);
        made.and_then(|_| self.sheets.get(id.at())).map(|sheet| sheet.changed.time)
    }

    pub(super) fn owner_name(&self, owner: Owner) -> &str {
        match owner {
            Owner::Client => CLIENT,
            Owner::Daemon(producer) => self.producer_name(producer),
            Owner::Bundle(bundle) => {
                self.bundles.get(bundle.at()).map_or(CLIENT, |bundle| self.producer_name(bundle.producer))
            }
        }
    }

    /// The cells that a run of a bundle may read, each once.
    fn members(&self, bundle: BundleId) -> impl Iterator<Item = CellId> + '_ {
        let producer = &self.producers[self.bundles[bundle.at()].producer.at()];
        let is_read =
            |edge: &EdgeKey| producer.need(edge.input).mode != Mode::Exclusive && self.is_made(edge.source);
        let mut before = None;
        let cells = self.edges_of(bundle).map(|(edge, _)| edge).filter(is_read).map(|edge| edge.source);
        cells.filter(move |cell| before.replace(*cell) != Some(*cell))
    }

    /// The edges of a bundle and their classes.
    pub(super) fn classes(&self, bundle: BundleId) -> impl Iterator<Item = (EdgeKey, Class)> + '_ {
        self.bundles[bundle.at()].sources.iter().flat_map(move |source| {
            let cell = &self.cells[source.at()];
            cell.readers.of(bundle).iter().map(move |edge| {
                let class = edge.need().class(edge.known(), cell.seen());
                (EdgeKey { source, input: edge.input() }, class)
            })
        })
    }

    /// The edges of a bundle that are not clean, of those on which this output rests and those of exclusive inputs.
    fn causes(&self, bundle: BundleId, output: Option<&Candidate>) -> Vec<Cause> {
        let uses = output.and_then(|output| output.uses.as_deref());
        let owner = self.bundles[bundle.at()].producer;
        let is_exclusive =
            |edge: EdgeKey| self.producers[owner.at()].need(edge.input).mode == Mode::Exclusive;
        let rests_on =
            |edge: EdgeKey| is_exclusive(edge) || output.is_none_or(|output| output.rests_on(edge));
        let of_input = |input: u16| uses.is_none_or(|uses| uses.edges.iter().any(|edge| edge.input == input));
        let mut causes = Vec::new();
        for (cell, class) in self.classes_above(bundle) {
            if class.unsatisfiable {
                causes.push(Cause::Unsatisfiable(cell));
            } else if class.maybe {
                causes.push(Cause::Waiting(cell));
            }
        }
        for (ancestor, ..) in self.held_by(bundle, false) {
            causes.extend(
                self.producers[ancestor.at()].outputs.keys().next().map(|slot| Cause::ScopeOpen(*slot)),
            );
        }
        for (edge, class) in self.classes(bundle).filter(|(edge, _)| rests_on(*edge)) {
            if class.blocked {
                causes.push(Cause::Unusable(edge.source));
            } else if class.unsatisfiable {
                causes.push(Cause::Unsatisfiable(edge.source));
            } else if class.maybe {
                causes.push(Cause::Waiting(edge.source));
            } else if class.changed {
                causes.push(Cause::Changed(edge.source));
            }
        }
        let bundle = &self.bundles[bundle.at()];
        if bundle.forced {
            causes.push(Cause::Forced);
        }
        if self.producers[bundle.producer.at()].deregistered {
            causes.push(Cause::Orphan);
        }
        let inputs = self.producers[bundle.producer.at()].required();
        for (scope, (_, slot)) in bundle.scopes.iter().zip(inputs).filter(|(_, (input, _))| of_input(*input))
        {
            if scope.class.blocked {
                causes.push(Cause::ScopeEmpty(slot));
            } else if scope.class.maybe {
                causes.push(Cause::ScopeOpen(slot));
            } else if scope.class.changed {
                causes.push(Cause::ScopeChanged(slot));
            }
        }
        causes
    }

    /// The bundle of a producer for a date and key.
    pub fn bundle(&self, producer: ProducerId, date: SlotDate, key: &Key) -> Option<BundleId> {
        let bundles = &self.producers.get(producer.at())?.bundles;
        bundles.get(date, key, |number| bundle_address(&self.bundles, number)).map(BundleId)
    }

    /// All bundles in the order of creation.
    pub fn bundles(&self) -> impl Iterator<Item = BundleId> + '_ {
        (0..self.bundles.len()).map(|at| BundleId(at as u32))
    }

    /// The bundles of a producer, by id. Takes time in proportion to their number.
    pub fn bundles_of(&self, producer: ProducerId) -> BTreeSet<BundleId> {
        self.producers.get(producer.at()).map(|p| p.all_bundles().collect()).unwrap_or_default()
    }

    /// A bundle and its status.
    pub fn bundle_info(&self, id: BundleId) -> Option<BundleInfo> {
        let bundle = self.bundles.get(id.at())?;
        Some(BundleInfo {
            bundle: id,
            producer: bundle.producer,
            date: bundle.date,
            key: bundle.key.clone(),
            status: self.tallies[id.at()].status,
            reason: self.reason(id),
            members: self.members(id).collect(),
            outputs: self.tallies[id.at()].outputs.iter().collect(),
            run: bundle.running.as_ref().map(|claim| claim.run),
            runs: bundle.runs,
            interrupted: bundle.interrupted,
            ended_seq: bundle.ending.as_ref().map(|_| bundle.ended.seq),
        })
    }

    /// Why a bundle is parked, notified, declined or failed; empty otherwise.
    pub(super) fn reason(&self, id: BundleId) -> String {
        let bundle = &self.bundles[id.at()];
        let producer = self.producer_name(bundle.producer);
        match (&self.tallies[id.at()].status, &bundle.ending) {
            (PStatus::Notified, _) => format!("producer {producer} is detached"),
            (PStatus::Declined, Some(Ending::Declined(reason))) => reason.to_string(),
            (PStatus::Failed, Some(Ending::Failed(message))) => message.to_string(),
            (PStatus::Cancelled, Some(Ending::Cancelled(reason))) => reason.to_string(),
            (PStatus::Parked, _) => self.parked_reason(id),
            (PStatus::RetryWait, _) => self.retry_reason(id),
            (PStatus::Ready, _) => self.producers[bundle.producer.at()].waits_for().unwrap_or_default(),
            _ => String::new(),
        }
    }

    fn retry_reason(&self, id: BundleId) -> String {
        let Some(setbacks) = &self.bundles[id.at()].setbacks else { return String::new() };
        let until = setbacks.until.map_or_else(String::new, |until| format!(" until {until}"));
        let attempts = match setbacks.attempts {
            0 => String::new(),
            1 => ", 1 failure".to_string(),
            times => format!(", {times} failures in a row"),
        };
        let message = setbacks.message.as_deref().unwrap_or_default();
        format!("waits{until}{attempts}: {message}")
    }

    fn parked_reason(&self, id: BundleId) -> String {
        let bundle = &self.bundles[id.at()];
        if self.producers[bundle.producer.at()].deregistered {
            return format!("producer {} was deregistered", self.producer_name(bundle.producer));
        }
        let held = self.classes(id).find(|(_, class)| class.held);
        if let Some((edge, _)) = self.classes(id).find(|(_, class)| class.blocked) {
            return self.unusable(edge.source);
        }
        let above = self.classes_above(id);
        let edges = self.classes(id).map(|(edge, class)| (edge.source, class));
        if let Some((cell, _)) = edges.chain(above.clone()).find(|(_, class)| class.unsatisfiable) {
            return format!("exclusive input {} is there", self.label(cell));
        }
        let inputs = self.producers[bundle.producer.at()].required().map(|(input, _)| input);
        if let Some((_, input)) = bundle.scopes.iter().zip(inputs).find(|(scope, _)| scope.class.blocked) {
            return self.empty_scope(id, input);
        }
        if bundle.scopes.iter().any(|scope| scope.class.held) {
            let open: u32 = self.held_by(id, true).map(|(.., count)| count).sum();
            let dates: BTreeSet<SlotDate> = self.held_by(id, true).map(|(_, date, _)| date).collect();
            let dates = match (dates.first(), dates.last()) {
                (Some(first), Some(last)) if first < last => format!("{first} to {last}"),
                (first, _) => first.unwrap_or(&bundle.date).to_string(),
            };
            return format!("scope open: {open} upstream bundles are in work for {dates}");
        }
        if let Some((edge, _)) = held {
            return format!("waiting for {}", self.label(edge.source));
        }
        if let Some((cell, _)) = above.iter().find(|(_, class)| class.held) {
            return format!("waiting for better data of {}", self.label(*cell));
        }
        let producer = &self.producers[bundle.producer.at()];
        let dependent = producer.is_dependent().then(|| self.held_by(id, true)).into_iter().flatten();
        if let Some((ancestor, date, count)) = dependent.max_by_key(|(.., count)| *count) {
            let name = self.producer_name(ancestor);
            return format!("waiting for producer {name}, which has {count} bundles in work for {date}");
        }
        if let Some((ancestor, ..)) = self.held_by(id, false).next() {
            return format!(
                "waiting for producer {}, which may make an input yet",
                self.producer_name(ancestor)
            );
        }
        if self.awaits_quorum(id) {
            return self.quorum(id).to_string();
        }
        match self.missing_ends(bundle).first() {
            Some(date) => format!("scope open: end_of({date}) not declared"),
            None => "it waits for nothing".to_string(),
        }
    }

    /// That there is nothing of which a group is made, among the cells of an input that it takes.
    pub(super) fn empty_scope(&self, id: BundleId, input: u16) -> String {
        let bundle = &self.bundles[id.at()];
        let producer = &self.producers[bundle.producer.at()];
        let date = producer.cell_date(usize::from(input), bundle.date).unwrap_or(bundle.date);
        let columns: Vec<u16> = producer.join.shared(input).into_iter().map(|(column, _)| column).collect();
        let key = bundle.key.project(&columns);
        let slot = producer.inputs.get(usize::from(input)).and_then(|slot| self.slot(*slot));
        let slot = slot.map_or("", |slot| &slot.name);
        let gap = if key.values().is_empty() { "" } else { " " };
        format!("no cell of {slot}{gap}{key} has data for {date}")
    }

    /// An input that is not usable and on which it rests that this cell is not.
    fn lost_input(&self, cell: CellId) -> Option<CellId> {
        let sheet = &self.sheets[cell.at()];
        let made = || sheet.candidates.iter().find(|candidate| candidate.owner.bundle().is_some());
        let candidate = sheet.effective_candidate().or_else(made)?;
        let all = candidate.rests_on_all(&self.tallies);
        let mut blocked = self.classes(candidate.owner.bundle()?).filter(|(_, class)| class.blocked);
        let found = blocked.find(|(edge, _)| all || candidate.rests_on(*edge));
        found.map(|(edge, _)| edge.source)
    }

    /// That an input is not usable, and the source on which that rests.
    fn unusable(&self, cell: CellId) -> String {
        let own = self.label(cell);
        let mut at = cell;
        for _ in 0..DEPTH_MAX {
            match self.lost_input(at) {
                Some(input) => at = input,
                None => break,
            }
        }
        let state = self.cells[at.at()].state;
        if at == cell {
            format!("input {own} is {state}")
        } else {
            format!("input {own} is not usable: {} is {state}", self.label(at))
        }
    }

    /// A cell as users name it: slot, date, key.
    pub fn label(&self, cell: CellId) -> String {
        let Some((slot, date, key)) = self.address(cell) else { return String::new() };
        self.label_of(slot, date, key)
    }

    pub(super) fn label_of(&self, slot: SlotId, date: SlotDate, key: &Key) -> String {
        let slot = self.slots.get(slot.at()).map_or("", |slot| &slot.definition.name);
        let gap = if key.values().is_empty() { "" } else { " " };
        format!("{slot} {date}{gap}{key}")
    }

    /// Runs in flight.
    pub fn runs(&self) -> impl Iterator<Item = (RunId, BundleId)> + '_ {
        self.runs.iter().map(|(run, bundle)| (*run, *bundle))
    }

    /// The bundle of a run in flight.
    pub fn bundle_of_run(&self, run: RunId) -> Option<BundleId> {
        self.runs.get(&run).copied()
    }

    /// Whether no bundle of an attached producer is ready or waits to be tried again, and no run is in flight. Work for producers that the
    /// process does not have does not count.
    pub fn idle(&self) -> bool {
        let is_idle = |producer: &Producer| {
            let waits = producer.attached && producer.statuses[PStatus::RetryWait.place()] > 0;
            producer.has_none_ready() && !waits
        };
        self.runs.is_empty() && self.producers.iter().all(is_idle)
    }

    /// How many bundles upstream of a group are notified, ready or processing, and so keep it from starting.
    pub fn open_work(&self, bundle: BundleId) -> u64 {
        let known = self.bundles.get(bundle.at()).map(|_| bundle);
        known.into_iter().flat_map(|b| self.held_by(b, true)).map(|(.., count)| u64::from(count)).sum()
    }

    /// Whether the end of the date was declared.
    pub fn is_ended(&self, date: SlotDate) -> bool {
        self.ends.contains(&date)
    }

    /// Of which of these cells others of them are made: `found` is told the bundle, the cell that it read and the one that it
    /// made, each once, and answers whether to go on. Looks at the inputs of a bundle once, however many of
    /// the cells it made.
    pub fn sources(&self, cells: &[CellId], mut found: impl FnMut(BundleId, CellId, CellId) -> bool) {
        let shown: HashSet<CellId> = cells.iter().copied().collect();
        let mut made = BTreeMap::<BundleId, Vec<(CellId, &Candidate)>>::new();
        for cell in cells {
            let candidates = self.sheets.get(cell.at()).map_or(&[][..], |sheet| &*sheet.candidates);
            for candidate in candidates {
                if let Some(bundle) = candidate.owner.bundle() {
                    made.entry(bundle).or_default().push((*cell, candidate));
                }
            }
        }
        for (bundle, made) in made {
            let Some(producer) = self.bundle_producer(bundle).and_then(|id| self.producers.get(id.at()))
            else {
                continue;
            };
            let is_read = |edge: &EdgeKey| {
                let is_source = producer.need(edge.input).mode != Mode::Exclusive;
                shown.contains(&edge.source) && is_source && self.is_made(edge.source)
            };
            let read: BTreeSet<EdgeKey> =
                self.edges_of(bundle).map(|(edge, _)| edge).filter(is_read).collect();
            for (cell, candidate) in made {
                let own =
                    candidate.uses.as_ref().map(|uses| uses.edges.iter().filter(|edge| read.contains(edge)));
                let all = own.is_none().then(|| read.iter());
                let mut last = None;
                for edge in own.into_iter().flatten().chain(all.into_iter().flatten()) {
                    let is_told = last.replace(edge.source) == Some(edge.source);
                    if !is_told && !found(bundle, edge.source, cell) {
                        return;
                    }
                }
            }
        }
    }
}
