//! What runs report that they have read beside their inputs, on which inputs single outputs rest, and which ends of
//! runs would close a circle.

use std::collections::BTreeSet;

use super::super::super::*;
use super::facts::{BundleName, CellName, Facts, Oracle, Port, Producer, Reading};
use super::join::EdgeName;

/// In place of the position among inputs: what a run reported.
pub(in super::super) const BESIDE: usize = usize::MAX;

/// What a run asks of a cell that it reports: it takes what there is, sound or not.
static OF_READS: Port = Port {
    slot: SlotId(u32::MAX),
    keys: Vec::new(),
    columns: Vec::new(),
    filters: Vec::new(),
    lag: 0,
    mode: Mode::Optional,
    fault_tolerant: true,
    accept_stale: true,
};

/// Whether a date is later than a bundle's own, or of another kind.
fn is_ahead(date: SlotDate, own: SlotDate) -> bool {
    let is_day = |date: SlotDate| matches!(date, SlotDate::Day(_));
    date > own || is_day(date) != is_day(own)
}

/// What the last run of a bundle reported.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub(in super::super) struct Reported {
    cells: BTreeSet<CellName>,
    /// Slots and dates, with the values of these cell keys.
    scans: BTreeSet<(SlotId, SlotDate, Vec<u16>, Key)>,
}

impl Reported {
    fn of(reads: &[Read]) -> Reported {
        let mut reported = Reported::default();
        for read in reads {
            match read {
                Read::Cell { slot, date, key, .. } => {
                    reported.cells.insert((*slot, *date, key.clone()));
                }
                Read::Scan { slot, date, columns, key } => {
                    reported.scans.insert((*slot, *date, columns.clone(), key.clone()));
                }
            }
        }
        reported
    }

    /// Whether it names the cell, or a scan of it finds the cell.
    pub fn takes(&self, cell: &CellName) -> bool {
        let mut scans = self.scans.iter();
        let found = |(slot, date, columns, key): &(SlotId, SlotDate, Vec<u16>, Key)| {
            (*slot, *date) == (cell.0, cell.1) && cell.2.project(columns) == *key
        };
        self.cells.contains(cell) || scans.any(found)
    }

    /// The slots and dates that it speaks of.
    fn places(&self) -> impl Iterator<Item = (SlotId, SlotDate)> {
        let cells = self.cells.iter().map(|cell| (cell.0, cell.1));
        cells.chain(self.scans.iter().map(|scan| (scan.0, scan.1)))
    }

    pub fn is_empty(&self) -> bool {
        *self == Reported::default()
    }

    /// Whether all of it is of another.
    fn is_within(&self, other: &Reported) -> bool {
        self.cells.is_subset(&other.cells) && self.scans.is_subset(&other.scans)
    }
}

impl Producer {
    /// What is asked of the cells behind edges.
    pub fn port(&self, at: usize) -> &Port {
        if at == BESIDE { &OF_READS } else { &self.inputs[at] }
    }
}

impl Facts {
    /// The edges from what the last run of a bundle reported, from cells that are there.
    pub fn reported_edges(&self, name: &BundleName) -> Vec<EdgeName> {
        let Some(work) = self.works.get(name).filter(|work| !work.reported.is_empty()) else {
            return Vec::new();
        };
        let found = self.cells.keys().filter(|cell| work.reported.takes(cell));
        found.map(|cell| (BESIDE, cell.clone())).collect()
    }

    /// Takes in what a run reports at its end, in place of what the run before reported.
    pub fn report(&mut self, name: &BundleName, reading: &mut Reading, reads: &[Read]) {
        reading.cells.retain(|(at, _), _| *at != BESIDE);
        for read in reads {
            if let Read::Cell { slot, date, key, g: Some(g) } = read {
                reading.cells.insert((BESIDE, (*slot, *date, key.clone())), *g);
            }
        }
        self.works.get_mut(name).unwrap().reported = Reported::of(reads);
    }
}

/// The end of a run, as far as it concerns circles.
struct Closing<'a> {
    oracle: &'a Oracle,
    bundle: BundleName,
    reported: Reported,
}

impl Oracle {
    /// Whether what the run would give leads back to what it has read, over inputs, what runs have reported, members
    /// that groups may get, and what waits for what may still be made.
    pub fn closes_circle(&self, event: &Event) -> bool {
        let Event::End { run, outcome, reads, .. } = event else { return false };
        let Some(bundle) = self.facts.run(*run) else { return false };
        if self.facts.is_set_back(bundle, outcome) {
            return false;
        }
        let reports = self.facts.works.values().any(|work| !work.reported.is_empty());
        if reads.is_empty() && !reports {
            return false;
        }
        let closing = Closing { oracle: self, bundle: bundle.clone(), reported: Reported::of(reads) };
        let mut first: BTreeSet<CellName> = self.facts.works[bundle].outputs.clone();
        if let Outcome::Data(outputs) = outcome {
            let given = outputs.iter().filter(|output| output.given != Given::Absent);
            first.extend(given.map(|output| (output.slot, bundle.1, output.key.clone())));
        }
        let is_new = !closing.reported.is_within(&self.facts.works[bundle].reported);
        closing.leads_back(first) || is_new && closing.leads_back_by_names()
    }

    /// Whether a result has its bundle read other cells beside its inputs than before.
    pub(super) fn moves_reads(&self, bundle: &BundleName, reads: &[Read]) -> bool {
        self.facts.works[bundle].reported != Reported::of(reads)
    }

    /// What a run in flight reports if it reads beside its inputs what the last one of its bundle has read.
    pub fn reads_as_before(&self, run: RunId) -> Vec<Read> {
        let Some((name, reading)) = self.reading_of(run) else { return Vec::new() };
        let reported = &self.facts.works[&name].reported;
        let found = reading.cells.keys().filter(|(at, _)| *at == BESIDE).map(|(_, cell)| cell);
        let cells: BTreeSet<&CellName> = reported.cells.iter().chain(found).collect();
        let read = |cell: &CellName| Read::Cell {
            slot: cell.0,
            date: cell.1,
            key: cell.2.clone(),
            g: reading.cells.get(&(BESIDE, cell.clone())).copied(),
        };
        let scan = |(slot, date, columns, key): &(SlotId, SlotDate, Vec<u16>, Key)| Read::Scan {
            slot: *slot,
            date: *date,
            columns: columns.clone(),
            key: key.clone(),
        };
        cells.into_iter().map(read).chain(reported.scans.iter().map(scan)).collect()
    }
}

impl Closing<'_> {
    fn leads_back(&self, first: BTreeSet<CellName>) -> bool {
        let facts = &self.oracle.facts;
        let (mut cells, mut seen): (Vec<CellName>, _) = (first.iter().cloned().collect(), first);
        let mut bundles: BTreeSet<BundleName> = BTreeSet::new();
        let mut left = self.held_by_work_of(&self.bundle);
        loop {
            if let Some(bundle) = left.pop() {
                if bundle == self.bundle {
                    return true;
                }
                if bundles.insert(bundle.clone()) {
                    let outputs = facts.works[&bundle].outputs.iter().cloned();
                    cells.extend(outputs.filter(|cell| seen.insert(cell.clone())));
                    left.extend(self.held_by_work_of(&bundle));
                }
            } else if let Some(cell) = cells.pop() {
                left.extend(facts.works.keys().filter(|bundle| self.may_read(bundle, &cell)).cloned());
            } else {
                return false;
            }
        }
    }

    /// Whether names lead back, over a read of a later date and somebody that waits for what may still be made.
    fn leads_back_by_names(&self) -> bool {
        let facts = &self.oracle.facts;
        // From a slot to a producer; whether that reads a later date, and waits.
        let mut ways: Vec<(SlotId, usize, bool, bool)> = Vec::new();
        for (at, producer) in facts.producers.iter().enumerate().filter(|(_, p)| !p.deregistered) {
            let waits =
                |port: &Port| producer.is_group() || producer.is_dependent() || port.mode != Mode::Required;
            ways.extend(producer.inputs.iter().map(|port| (port.slot, at, false, waits(port))));
        }
        for (name, work) in &facts.works {
            let reads = work.reported.places();
            ways.extend(reads.map(|(slot, date)| (slot, name.0.at(), is_ahead(date, name.1), false)));
        }
        let outputs = |at: usize| {
            let outputs = facts.producers[at].definition.outputs.iter();
            outputs.map(|output| facts.slot_id(&output.slot)).collect::<Vec<_>>()
        };
        let first = outputs(self.bundle.0.at()).into_iter().map(|slot| (slot, false, false));
        let mut stops: BTreeSet<(SlotId, bool, bool)> = first.collect();
        loop {
            let before = stops.clone();
            for (slot, ahead, waits) in &before {
                for way in ways.iter().filter(|way| way.0 == *slot) {
                    let next = outputs(way.1).into_iter();
                    stops.extend(next.map(|slot| (slot, *ahead || way.2, *waits || way.3)));
                }
            }
            if stops == before {
                break;
            }
        }
        self.reported.places().any(|(slot, date)| {
            let own = is_ahead(date, self.bundle.1);
            stops.contains(&(slot, true, true)) || (own && stops.contains(&(slot, false, true)))
        })
    }

    /// Whether a bundle reads a cell, or would once the cell is made or counts in.
    fn may_read(&self, name: &BundleName, cell: &CellName) -> bool {
        let facts = &self.oracle.facts;
        let producer = &facts.producers[name.0.at()];
        let mut ports = (0..).zip(&producer.inputs);
        let of_input = ports.any(|(at, port)| {
            if port.mode == Mode::Required && !producer.is_group() {
                return self.oracle.shown.bundles[name].edges.contains(&(at, cell.clone()));
            }
            let agrees = || port.passes(&cell.2) && facts.agrees(name, &port.columns, &cell.2);
            let is_own = facts.fills(name.0, at).is_some();
            !is_own && (cell.0, cell.1) == (port.slot, port.date(name.1)) && agrees()
        });
        let reported = if *name == self.bundle { &self.reported } else { &facts.works[name].reported };
        of_input || reported.takes(cell)
    }

    /// The bundles that wait for what work of this one may still make.
    fn held_by_work_of(&self, name: &BundleName) -> Vec<BundleName> {
        let facts = &self.oracle.facts;
        let columns = &facts.producers[name.0.at()].columns;
        let waits = |held: &&BundleName| {
            let ancestors = facts.ancestors(held, false).into_iter().chain(facts.ancestors(held, true));
            let mut ancestors = ancestors.filter(|(maker, date, _)| (*maker, *date) == (name.0, name.1));
            ancestors.any(|(.., values)| {
                let mut own = columns.iter().zip(name.2.values());
                own.all(|(column, value)| values.get(column).is_none_or(|wanted| wanted == value))
            })
        };
        facts.works.keys().filter(waits).cloned().collect()
    }
}
