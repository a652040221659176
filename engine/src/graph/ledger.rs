//! Which facts changed since the last capture, and the capture that goes on.
//!
//! Whoever changes a fact notes its record before. A capture takes over the set of changed records and reads them in
//! the order of their keys, a few at a time, while events go on: a record that is about to change and was not read yet
//! is kept as it was. So what is captured are the facts at the moment when the capture began.

use std::collections::{BTreeMap, BTreeSet};

use underbelly_storage::image::Key as RecordKey;

use super::Graph;
use super::bits::Bits;
use super::cell::{Cell, Sheet};
use super::edges::Edges;
use super::fact::{self, BUNDLE, CELL, COUNTERS, DEADLINE, PRODUCER, SLOT};
use super::ids::{BundleId, CellId, ProducerId, SlotDate, SlotId};

/// Words of a set of bits that are looked at in one step.
const STEP_WORDS: usize = 4096;

#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    changed: Marks,
    capture: Option<Capture>,
}

/// A set of records.
#[derive(Clone, Debug, Default)]
struct Marks {
    /// Records of kinds before cells.
    few: BTreeSet<RecordKey>,
    cells: Bits,
    bundles: Bits,
}

#[derive(Clone, Debug)]
struct Capture {
    marks: Marks,
    /// Records before this were read.
    next: RecordKey,
    /// Records that changed before they were read, as they were.
    kept: BTreeMap<RecordKey, Vec<u8>>,
}

/// What one step of a capture came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Captured {
    /// A record.
    Record(RecordKey),
    /// Nothing yet.
    Searching,
    /// There is no further record.
    Done,
}

impl Marks {
    fn insert(&mut self, record: RecordKey, bound: usize) {
        match record.kind {
            CELL => self.cells.insert(record.major as usize, bound),
            BUNDLE => self.bundles.insert(record.major as usize, bound),
            _ => self.few.insert(record),
        };
    }

    fn contains(&self, record: RecordKey) -> bool {
        match record.kind {
            CELL => self.cells.contains(record.major as usize),
            BUNDLE => self.bundles.contains(record.major as usize),
            _ => self.few.contains(&record),
        }
    }

    /// The first record from `next` on; else where to go on.
    fn next_from(&self, next: RecordKey) -> Result<RecordKey, Option<RecordKey>> {
        if next.kind < CELL {
            return self.few.range(next..).next().copied().ok_or(Some(RecordKey::new(CELL, 0)));
        }
        let (bits, behind) = match next.kind {
            CELL => (&self.cells, Some(RecordKey::new(BUNDLE, 0))),
            BUNDLE => (&self.bundles, None),
            _ => return Err(None),
        };
        match bits.next_from(next.major as usize, STEP_WORDS) {
            Ok(number) => Ok(RecordKey::new(next.kind, number as u64)),
            Err(Some(further)) => Err(Some(RecordKey::new(next.kind, further as u64))),
            Err(None) => Err(behind),
        }
    }
}

impl Ledger {
    /// A record is about to change, or was just made. `bound` is above the numbers of all records of its kind;
    /// `encode` writes it as it is.
    fn note(&mut self, record: RecordKey, bound: usize, encode: impl FnOnce(&mut Vec<u8>)) {
        self.changed.insert(record, bound);
        let Some(capture) = &mut self.capture else { return };
        if record >= capture.next && capture.marks.contains(record) {
            capture.kept.entry(record).or_insert_with(|| {
                let mut value = Vec::new();
                encode(&mut value);
                value
            });
        }
    }
}

impl Graph {
    /// The facts of a cell are about to change.
    pub(super) fn note_cell(&mut self, id: CellId) {
        let (bound, key) = (self.cells.len(), RecordKey::new(CELL, u64::from(id.0)));
        let (cell, sheet) = (&self.cells[id.at()], &self.sheets[id.at()]);
        let ages = &self.ages;
        self.ledger.note(key, bound, |out| fact::put_cell(out, id, cell, sheet, ages));
    }

    /// A cell whose facts are about to change.
    pub(super) fn cell_mut(&mut self, id: CellId) -> &mut Cell {
        self.note_cell(id);
        &mut self.cells[id.at()]
    }

    /// The sheet of a cell whose facts are about to change.
    pub(super) fn sheet_mut(&mut self, id: CellId) -> &mut Sheet {
        self.note_cell(id);
        &mut self.sheets[id.at()]
    }

    /// A bundle whose facts are about to change.
    pub(super) fn bundle_mut(&mut self, id: BundleId) -> &mut super::bundle::Bundle {
        let bound = self.bundles.len();
        let (bundle, lift) = (&mut self.bundles[id.at()], self.tallies[id.at()].lift);
        self.tallies[id.at()].moved = true;
        let edges = Edges { cells: &self.cells, far: &self.far };
        let key = RecordKey::new(BUNDLE, u64::from(id.0));
        self.ledger.note(key, bound, |out| fact::put_bundle(out, id, bundle, lift, edges));
        bundle
    }

    /// A producer whose facts are about to change.
    pub(super) fn producer_mut(&mut self, id: ProducerId) -> &mut super::producer::Producer {
        let producer = &mut self.producers[id.at()];
        let key = RecordKey::new(PRODUCER, u64::from(id.0));
        self.ledger.note(key, 0, |out| fact::put_producer(out, producer));
        producer
    }

    /// A slot was defined; it never changes.
    pub(super) fn note_slot(&mut self, id: SlotId) {
        self.ledger.note(RecordKey::new(SLOT, u64::from(id.0)), 0, |_| ());
    }

    /// The end of a date was declared; it never changes.
    pub(super) fn note_end(&mut self, date: SlotDate) {
        self.ledger.note(fact::end_key(date), 0, |_| ());
    }

    /// The deadline of a slot and date is about to change.
    pub(super) fn note_deadline(&mut self, slot: SlotId, date: SlotDate) {
        let known = self.deadlines.all.get(&(slot, date)).copied();
        self.ledger.note(fact::deadline_key(slot, date), 0, |out| fact::put_deadline(out, known));
    }

    /// Begins a capture of the facts that changed since the last one, as they are now. One that went on is
    /// abandoned.
    pub fn begin_capture(&mut self) {
        self.abandon_capture();
        let mut marks = std::mem::take(&mut self.ledger.changed);
        let counters = RecordKey::new(COUNTERS, 0);
        marks.few.insert(counters);
        let kept = BTreeMap::from([(counters, self.next_order.to_le_bytes().to_vec())]);
        self.ledger.capture = Some(Capture { marks, next: RecordKey::new(0, 0), kept });
    }

    /// Reads the next record of a capture; its bytes are appended to `value`. Takes a few microseconds, and time in
    /// proportion to the record.
    pub fn capture_next(&mut self, value: &mut Vec<u8>) -> Captured {
        let Some(capture) = &mut self.ledger.capture else { return Captured::Done };
        let record = match capture.marks.next_from(capture.next) {
            Ok(record) => record,
            Err(Some(further)) => {
                capture.next = further;
                return Captured::Searching;
            }
            Err(None) => {
                capture.next.kind = u8::MAX;
                return Captured::Done;
            }
        };
        capture.next = match record.minor.checked_add(1) {
            Some(minor) if record.kind < CELL => RecordKey { minor, ..record },
            _ => RecordKey::new(record.kind, record.major + 1),
        };
        match capture.kept.remove(&record) {
            Some(kept) => value.extend_from_slice(&kept),
            None => self.encode(record, value),
        }
        Captured::Record(record)
    }

    /// The capture was stored; its records count as unchanged. What it held is given back where the answer is dropped:
    /// that takes time in proportion to cells and bundles, a bit each.
    pub fn end_capture(&mut self) -> impl Sized + use<> {
        self.ledger.capture.take()
    }

    /// The capture was not stored; its records count as changed again.
    pub fn abandon_capture(&mut self) {
        let Some(capture) = self.ledger.capture.take() else { return };
        let changed = &mut self.ledger.changed;
        changed.few.extend(capture.marks.few);
        changed.cells.extend(&capture.marks.cells);
        changed.bundles.extend(&capture.marks.bundles);
    }

    /// Number of records that changed since the last capture. Takes time in proportion to cells and bundles, a bit each.
    pub fn changed_records(&self) -> u64 {
        let changed = &self.ledger.changed;
        1 + changed.few.len() as u64 + changed.cells.count() + changed.bundles.count()
    }

    /// Counts the graph as stored: nothing has changed.
    pub(super) fn clear_ledger(&mut self) {
        self.ledger = Ledger::default();
    }

    /// Appends the record of what a key names.
    fn encode(&self, record: RecordKey, out: &mut Vec<u8>) {
        let at = record.major as usize;
        match record.kind {
            COUNTERS => out.extend_from_slice(&self.next_order.to_le_bytes()),
            SLOT => self.slots.get(at).into_iter().for_each(|slot| fact::put_slot(out, &slot.definition)),
            PRODUCER => self.producers.get(at).into_iter().for_each(|p| fact::put_producer(out, p)),
            DEADLINE => {
                let known = fact::deadline_of(record).ok();
                let known = known.and_then(|place| self.deadlines.all.get(&place)).copied();
                fact::put_deadline(out, known);
            }
            CELL => {
                if let (Some(cell), Some(sheet)) = (self.cells.get(at), self.sheets.get(at)) {
                    fact::put_cell(out, CellId(at as u32), cell, sheet, &self.ages);
                }
            }
            BUNDLE => {
                if let (Some(bundle), Some(tally)) = (self.bundles.get(at), self.tallies.get(at)) {
                    fact::put_bundle(out, BundleId(at as u32), bundle, tally.lift, self.edges());
                }
            }
            _ => {}
        }
    }

    /// Keys and bytes of all records, in order. Equal records mean equal graphs.
    pub fn to_records(&self) -> Vec<(RecordKey, Vec<u8>)> {
        let mut keys = vec![RecordKey::new(COUNTERS, 0)];
        let numbered = |kind, count| (0..count as u64).map(move |at| RecordKey::new(kind, at));
        keys.extend(numbered(SLOT, self.slots.len()));
        keys.extend(numbered(PRODUCER, self.producers.len()));
        keys.extend(self.ends.iter().map(|date| fact::end_key(*date)));
        keys.extend(self.deadlines.all.keys().map(|(slot, date)| fact::deadline_key(*slot, *date)));
        keys.extend(numbered(CELL, self.cells.len()));
        keys.extend(numbered(BUNDLE, self.bundles.len()));
        let record = |key| {
            let mut value = Vec::new();
            self.encode(key, &mut value);
            (key, value)
        };
        keys.into_iter().map(record).collect()
    }
}
