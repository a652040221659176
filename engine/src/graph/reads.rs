//! What runs report that they have read beside their inputs: cells, absent ones among them, and sets of cells. A bundle has
//! edges from all of them until its next result, as from optional inputs.
//!
//! Any cell may be read so, whatever its slot: names then do not show that the graph has no cycle, and cells are looked at
//! when a run ends. Each edge that an end makes begins or ends at its bundle, so a cycle leads from one of the bundle's outputs
//! back to it. Members that a group may get are counted in, since they come and go without an end, and bundles that wait for
//! what others may still make: they too come after those. Where somebody reads later dates than its own, names alone decide about what waits.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use hashbrown::{HashMap, HashSet};

use super::Graph;
use super::definition::Mode;
use super::edges::EdgeKey;
use super::error::GraphError;
use super::event::{Given, OutputWrite, Read};
use super::ids::{BundleId, CellId, ProducerId, SlotDate, SlotId};
use super::key::Key;
use super::pass::Pass;
use super::slot::Watched;

/// In place of the position among inputs: what a run reported.
pub(super) const REPORTED: u16 = u16::MAX;

/// All cells of a slot and date with these values in these cell keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Scanned {
    pub slot: SlotId,
    pub date: SlotDate,
    /// Positions among the cell keys, rising.
    pub columns: Vec<u16>,
    pub key: Key,
}

/// What the last run of a bundle reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reported {
    pub cells: BTreeSet<CellId>,
    pub scans: BTreeSet<Scanned>,
}

/// How many bundles of a producer have reported reads of a slot, and how many of them of a later date than their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ReadName {
    bundles: usize,
    ahead: usize,
}

/// Whether a bundle reads a later date than its own. A day and an instant come neither before nor after each other.
fn is_ahead(read: SlotDate, own: SlotDate) -> bool {
    match (read, own) {
        (SlotDate::Day(read), SlotDate::Day(own)) => read > own,
        (SlotDate::Instant(read), SlotDate::Instant(own)) => read > own,
        _ => true,
    }
}

/// A cell on the way of a search, made or not.
struct Passed {
    slot: SlotId,
    date: SlotDate,
    key: Key,
    /// The place of the one before it.
    from: Option<usize>,
}

impl Graph {
    /// Gives a bundle the edges of what its run reported, in place of those of the run before. Returns the generations that were read.
    pub(super) fn report(&mut self, pass: &mut Pass, id: BundleId, reads: &[Read]) -> BTreeMap<EdgeKey, u64> {
        // Noted as it was, before anything of it changes.
        self.bundle_mut(id);
        let mut reported = Reported::default();
        let mut tokens = BTreeMap::new();
        for read in reads {
            match read {
                Read::Cell { slot, date, key, g } => {
                    let found = self.find(*slot, *date, key);
                    let source = found.unwrap_or_else(|| self.expect_cell(*slot, *date, key.clone()));
                    reported.cells.insert(source);
                    if let Some(g) = g {
                        tokens.insert(EdgeKey { source, input: REPORTED }, *g);
                    }
                }
                Read::Scan { slot, date, columns, key } => {
                    let (columns, key) = (columns.clone(), key.clone());
                    reported.scans.insert(Scanned { slot: *slot, date: *date, columns, key });
                }
            }
        }
        self.unwatch(id);
        let wanted = self.watch(id, reported);
        let edges = self.edges_of(id).map(|(edge, _)| edge);
        let gone: Vec<EdgeKey> =
            edges.filter(|edge| edge.input == REPORTED && !wanted.contains(&edge.source)).collect();
        gone.into_iter().for_each(|edge| self.remove_edge(pass, id, edge));
        wanted.into_iter().for_each(|source| self.add_edge(pass, id, EdgeKey { source, input: REPORTED }));
        tokens
    }

    /// Watches for cells that a bundle's run looked for. Returns those that are there, and those that it named.
    pub(super) fn watch(&mut self, id: BundleId, reported: Reported) -> BTreeSet<CellId> {
        let mut wanted = reported.cells.clone();
        for scan in &reported.scans {
            let index = self.index_on(scan.slot, scan.columns.clone());
            let place = (scan.date, scan.key.clone());
            let slot = &mut self.slots[scan.slot.at()];
            let found = slot.indexes[index].buckets.get(&place);
            wanted.extend(found.into_iter().flatten().filter(|cell| !self.cells[cell.at()].expected));
            let at = slot.watched.iter().position(|watched| watched.positions == scan.columns);
            let at = at.unwrap_or_else(|| {
                let positions = scan.columns.clone();
                slot.watched.push(Watched { positions, bundles: Default::default() });
                slot.watched.len() - 1
            });
            slot.watched[at].bundles.entry(place).or_default().insert(id);
        }
        if reported != Reported::default() {
            let producer = self.bundles[id.at()].producer;
            for (slot, ahead) in self.names_of(id, &reported) {
                let name = self.read_names.entry((slot, producer)).or_default();
                name.bundles += 1;
                name.ahead += usize::from(ahead);
            }
            self.bundles[id.at()].reported = Some(Box::new(reported));
            self.reporting += 1;
        }
        wanted
    }

    /// Ends the watch for what a bundle's last run looked for.
    pub(super) fn unwatch(&mut self, id: BundleId) {
        let Some(reported) = self.bundles[id.at()].reported.take() else { return };
        self.reporting -= 1;
        let producer = self.bundles[id.at()].producer;
        for (slot, ahead) in self.names_of(id, &reported) {
            if let Some(name) = self.read_names.get_mut(&(slot, producer)) {
                name.bundles -= 1;
                name.ahead -= usize::from(ahead);
                if name.bundles == 0 {
                    self.read_names.remove(&(slot, producer));
                }
            }
        }
        for scan in reported.scans {
            let slot = &mut self.slots[scan.slot.at()];
            let place = (scan.date, scan.key);
            for watched in slot.watched.iter_mut().filter(|watched| watched.positions == scan.columns) {
                if let Some(bundles) = watched.bundles.get_mut(&place) {
                    bundles.remove(&id);
                    if bundles.is_empty() {
                        watched.bundles.remove(&place);
                    }
                }
            }
        }
    }

    /// The cells of a slot and date with these values in these cell keys, in the order of creation. Where no run has looked
    /// so before, this takes time in proportion to the cells of the slot.
    pub fn cells_with(&self, slot: SlotId, date: SlotDate, columns: &[u16], key: &Key) -> Vec<CellId> {
        let Some(slot) = self.slots.get(slot.at()) else { return Vec::new() };
        let is_made = |cell: &&CellId| !self.cells[cell.at()].expected;
        if let Some(index) = slot.indexes.iter().find(|index| index.positions == columns) {
            let found = index.buckets.get(&(date, key.clone()));
            return found.into_iter().flatten().filter(is_made).copied().collect();
        }
        let agrees = |cell: &&CellId| {
            let sheet = &self.sheets[cell.at()];
            sheet.date == date && sheet.key.project(columns) == *key
        };
        slot.cells.iter().filter(is_made).filter(agrees).copied().collect()
    }

    /// The slots that a bundle's run read, each with whether it was of a later date than the bundle's.
    fn names_of(&self, id: BundleId, reported: &Reported) -> BTreeMap<SlotId, bool> {
        let own = self.bundles[id.at()].date;
        let cells = reported.cells.iter().filter_map(|cell| self.address(*cell));
        let cells = cells.map(|(slot, date, _)| (slot, date));
        let mut names = BTreeMap::new();
        for (slot, date) in cells.chain(reported.scans.iter().map(|scan| (scan.slot, scan.date))) {
            *names.entry(slot).or_default() |= is_ahead(date, own);
        }
        names
    }

    /// The slots of which runs have reported reads, each with the producer.
    pub(super) fn reported_reads(&self) -> BTreeSet<(SlotId, ProducerId)> {
        self.read_names.keys().copied().collect()
    }

    /// The way by names from outputs to what `closes`, if somebody has read a later date on it and somebody on it waits for what
    /// may still be made. Dates then say too little: what waits does so for the latest of several dates, and for what comes in
    /// between later. `closes`: whether a slot is read so, of a later date, and by who waits.
    pub(super) fn cycle_ahead(
        &self,
        outputs: impl Iterator<Item = SlotId>,
        closes: impl Fn(SlotId) -> Option<(bool, bool)>,
    ) -> Option<Vec<String>> {
        type Stop = (SlotId, bool, bool);
        let mut reached: BTreeMap<Stop, Option<(Stop, ProducerId)>> =
            outputs.map(|slot| ((slot, false, false), None)).collect();
        let mut left: Vec<Stop> = reached.keys().copied().collect();
        while let Some(stop) = left.pop() {
            let (slot, ahead, waits) = stop;
            if closes(slot).is_some_and(|own| (own.0 || ahead) && (own.1 || waits)) {
                let mut path = vec![self.label_of_slot(slot)];
                let mut at = stop;
                while let Some(Some((before, producer))) = reached.get(&at) {
                    path.push(self.producer_name(*producer).to_string());
                    path.push(self.label_of_slot(before.0));
                    at = *before;
                }
                path.reverse();
                return Some(path);
            }
            let Some(found) = self.slots.get(slot.at()) else { continue };
            let readers = found.readers.iter().map(|(producer, input)| {
                let reader = &self.producers[producer.at()];
                (*producer, false, reader.awaits_others() || reader.need(*input).mode != Mode::Required)
            });
            let fillers = found.fillers.values().map(|producer| (*producer, false, true));
            let reads = self.read_names.range((slot, ProducerId(0))..=(slot, ProducerId(u32::MAX)));
            let reads = reads.map(|((_, producer), name)| (*producer, name.ahead > 0, false));
            for (producer, by_ahead, by_waits) in readers.chain(fillers).chain(reads) {
                for output in self.producers[producer.at()].outputs.keys() {
                    let next = (*output, ahead || by_ahead, waits || by_waits);
                    if let Entry::Vacant(place) = reached.entry(next) {
                        place.insert(Some((stop, producer)));
                        left.push(next);
                    }
                }
            }
        }
        None
    }

    fn label_of_slot(&self, slot: SlotId) -> String {
        self.slot(slot).map_or_else(String::new, |slot| slot.name.clone())
    }

    /// Whether somebody has read a later date than that of its bundle.
    pub(super) fn reads_ahead(&self) -> bool {
        self.read_names.values().any(|name| name.ahead > 0)
    }

    /// The bundles whose runs looked for cells like this one.
    fn watchers(&self, slot: SlotId, date: SlotDate, key: &Key) -> Vec<BundleId> {
        let watched = self.slots.get(slot.at()).into_iter().flat_map(|slot| &slot.watched);
        let found =
            watched.filter_map(|watched| watched.bundles.get(&(date, key.project(&watched.positions))));
        found.flatten().copied().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// A cell was made: bundles whose runs looked for cells like it get an edge.
    pub(super) fn show_to_watchers(&mut self, pass: &mut Pass, id: CellId) {
        let (slot, sheet) = (self.cells[id.at()].slot, &self.sheets[id.at()]);
        if self.slots[slot.at()].watched.is_empty() {
            return;
        }
        for bundle in self.watchers(slot, sheet.date, &sheet.key) {
            self.add_edge(pass, bundle, EdgeKey { source: id, input: REPORTED });
            self.touch_bundle(pass, bundle);
        }
    }

    /// Refuses reads of what cannot be, and those that close a cycle with what the run gives.
    pub(super) fn check_reads(
        &self,
        id: BundleId,
        outputs: &[OutputWrite],
        reads: &[Read],
    ) -> Result<(), GraphError> {
        for read in reads {
            match read {
                Read::Cell { slot, date, key, g } => {
                    self.check_key(*slot, key)?;
                    let found = self.find(*slot, *date, key).map_or(0, |cell| self.cells[cell.at()].g);
                    if let Some(g) = g.filter(|g| !(1..=found).contains(g)) {
                        let cell = self.label_of(*slot, *date, key);
                        return Err(GraphError::UnmadeRead { cell, g, found });
                    }
                }
                Read::Scan { slot, columns, key, .. } => self.check_scan(*slot, columns, key)?,
            }
        }
        let known = &self.tallies[id.at()].outputs;
        let (date, reported) = (self.bundles[id.at()].date, self.bundles[id.at()].reported.as_deref());
        let is_new_read = |read: &Read| match read {
            Read::Cell { slot, date, key, .. } => {
                let cell = self.find(*slot, *date, key);
                !cell.is_some_and(|cell| reported.is_some_and(|reported| reported.cells.contains(&cell)))
            }
            Read::Scan { slot, date, columns, key } => {
                let (columns, key) = (columns.clone(), key.clone());
                let scan = Scanned { slot: *slot, date: *date, columns, key };
                !reported.is_some_and(|reported| reported.scans.contains(&scan))
            }
        };
        let is_new = |output: &OutputWrite| {
            if output.given == Given::Absent {
                return false;
            }
            let cell = self.find(output.slot, date, &output.key);
            cell.is_none_or(|cell| !known.contains(cell))
        };
        // Without new edges nothing closes: what its last run reported, and has given, closed nothing then.
        let reads_on = reads.iter().any(is_new_read);
        let may_close = reads_on || (self.reporting > 0 && outputs.iter().any(is_new));
        let mut cycle = if may_close { self.cycle_of_cells(id, outputs, reads) } else { None };
        if cycle.is_none() && reads_on {
            cycle = self.cycle_of_names(id, reads);
        }
        match cycle {
            Some(path) => {
                let producer = self.producer_name(self.bundles[id.at()].producer).to_string();
                Err(GraphError::CellCycle { producer, path })
            }
            None => Ok(()),
        }
    }

    pub(super) fn check_scan(&self, slot: SlotId, columns: &[u16], key: &Key) -> Result<(), GraphError> {
        let Some(found) = self.slots.get(slot.at()) else { return Err(GraphError::UnknownSlot(slot)) };
        let keys = &found.definition.cell_keys;
        let types = columns.iter().map(|at| keys.get(usize::from(*at)).map(|(_, kind)| Some(*kind)));
        let given = key.values().iter().map(|value| Some(value.column_type()));
        if columns.is_sorted_by(|a, b| a < b) && types.eq(given) {
            return Ok(());
        }
        let slot = found.definition.name.clone();
        Err(GraphError::ScanKey { slot, key: key.clone(), columns: columns.to_vec() })
    }

    /// The way from an output of a bundle back to what its run read, if there is one.
    fn cycle_of_cells(&self, id: BundleId, outputs: &[OutputWrite], reads: &[Read]) -> Option<Vec<String>> {
        let bundle = &self.bundles[id.at()];
        let mut passed: Vec<Passed> = Vec::new();
        let mut seen: BTreeSet<(SlotId, SlotDate, Key)> = BTreeSet::new();
        let mut go =
            |passed: &mut Vec<Passed>, slot: SlotId, date: SlotDate, key: &Key, from: Option<usize>| {
                if seen.insert((slot, date, key.clone())) {
                    passed.push(Passed { slot, date, key: key.clone(), from });
                }
            };
        for cell in self.tallies[id.at()].outputs.iter() {
            if let Some((slot, date, key)) = self.address(cell) {
                go(&mut passed, slot, date, key, None);
            }
        }
        for output in outputs.iter().filter(|output| output.given != Given::Absent) {
            go(&mut passed, output.slot, bundle.date, &output.key, None);
        }
        let mut reached: BTreeSet<BundleId> = BTreeSet::new();
        let mut from_bundles = |passed: &mut Vec<Passed>, first: Vec<BundleId>, from: Option<usize>| {
            let mut left = first;
            while let Some(bundle) = left.pop() {
                if bundle == id {
                    return true;
                }
                if reached.insert(bundle) {
                    for output in self.tallies[bundle.at()].outputs.iter() {
                        if let Some((slot, date, key)) = self.address(output) {
                            go(passed, slot, date, key, from);
                        }
                    }
                    left.extend(self.may_hold(bundle));
                }
            }
            false
        };
        from_bundles(&mut passed, self.may_hold(id), None);
        let mut cells: HashSet<(SlotId, SlotDate, &Key)> = HashSet::new();
        let mut scans: HashMap<(SlotId, SlotDate, &[u16]), HashSet<&Key>> = HashMap::new();
        for read in reads {
            match read {
                Read::Cell { slot, date, key, .. } => drop(cells.insert((*slot, *date, key))),
                Read::Scan { slot, date, columns, key } => {
                    scans.entry((*slot, *date, columns)).or_default().insert(key);
                }
            }
        }
        let mut at = 0;
        while let Some(cell) = passed.get(at) {
            let mut scans =
                scans.iter().filter(|((slot, date, _), _)| (*slot, *date) == (cell.slot, cell.date));
            let is_read = cells.contains(&(cell.slot, cell.date, &cell.key))
                || scans.any(|((.., columns), keys)| keys.contains(&cell.key.project(columns)));
            let (readers, is_input) = self.readers_of(id, cell);
            if is_read || is_input || from_bundles(&mut passed, readers.into_iter().collect(), Some(at)) {
                return Some(self.path_to(&passed, at));
            }
            at += 1;
        }
        None
    }

    /// The way by names from what a bundle gives to what its run read, where dates say too little.
    fn cycle_of_names(&self, id: BundleId, reads: &[Read]) -> Option<Vec<String>> {
        let bundle = &self.bundles[id.at()];
        let mut names: BTreeMap<SlotId, bool> = BTreeMap::new();
        for read in reads {
            let (Read::Cell { slot, date, .. } | Read::Scan { slot, date, .. }) = read;
            *names.entry(*slot).or_default() |= is_ahead(*date, bundle.date);
        }
        if !self.reads_ahead() && !names.values().any(|ahead| *ahead) {
            return None;
        }
        let outputs = self.producers[bundle.producer.at()].outputs.keys().copied();
        self.cycle_ahead(outputs, |slot| names.get(&slot).map(|ahead| (*ahead, false)))
    }

    /// The other bundles that read a cell, or would if it were made or a member; and whether this one has it as an input.
    fn readers_of(&self, id: BundleId, cell: &Passed) -> (BTreeSet<BundleId>, bool) {
        let mut found = BTreeSet::new();
        let made = self.find(cell.slot, cell.date, &cell.key);
        if let Some(made) = made {
            found.extend(self.cells[made.at()].readers.bundles());
            let of_inputs = self.cells[made.at()].readers.of(id).iter().any(|edge| edge.input() != REPORTED);
            if of_inputs {
                return (found, true);
            }
        }
        found.extend(self.watchers(cell.slot, cell.date, &cell.key));
        found.remove(&id);
        for (producer, input) in &self.slots[cell.slot.at()].readers {
            found.extend(self.possible_readers(*producer, *input, cell.date, &cell.key));
        }
        let is_input = found.contains(&id);
        (found, is_input)
    }

    fn path_to(&self, passed: &[Passed], at: usize) -> Vec<String> {
        let mut path = Vec::new();
        let mut next = passed.get(at);
        while let Some(cell) = next {
            path.push(self.label_of(cell.slot, cell.date, &cell.key));
            next = cell.from.and_then(|from| passed.get(from));
        }
        path.reverse();
        path
    }
}
