//! A slot at work: its cells and the indexes on them.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;

use super::cell::Sheet;
use super::definition::SlotDefinition;
use super::directory::Directory;
use super::ids::{BundleId, CellId, ProducerId, SlotDate};
use super::info::StateCounts;
use super::key::Key;
use super::quorum::Provided;

/// Cells by date and the values of some key columns.
#[derive(Clone, Debug)]
pub(super) struct Index {
    /// Positions of the columns among the cell keys.
    pub positions: Vec<u16>,
    pub buckets: HashMap<(SlotDate, Key), Vec<CellId>>,
}

/// Bundles whose runs looked for cells by the values of some key columns.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    /// Positions of the columns among the cell keys, rising.
    pub positions: Vec<u16>,
    pub bundles: HashMap<(SlotDate, Key), BTreeSet<BundleId>>,
}

/// Cells by date.
pub(super) type Members = BTreeMap<SlotDate, BTreeSet<CellId>>;

#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub definition: SlotDefinition,
    /// Greater than the rank of every producer that provides it.
    pub rank: u32,
    pub cells: Vec<CellId>,
    pub by_key: Directory,
    pub indexes: Vec<Index>,
    /// What runs looked for.
    pub watched: Vec<Watched>,
    /// Producers that read it, and as which input.
    pub readers: Vec<(ProducerId, u16)>,
    /// Producers that provide it, by priority; several at one where each is another member.
    pub providers: BTreeMap<Provided, ProducerId>,
    /// Those of them that fill in what nobody better gives.
    pub fillers: BTreeMap<i32, ProducerId>,
    /// Priorities at which clients have written.
    pub client_priorities: BTreeSet<i32>,
    /// Cells that groups read: those that have data or an error and are not gone. Kept from the first group on that reads
    /// the slot.
    pub members: Option<Members>,
    pub states: StateCounts,
}

impl Slot {
    pub fn new(definition: SlotDefinition) -> Slot {
        Slot {
            definition,
            rank: 0,
            cells: Vec::new(),
            by_key: Directory::default(),
            indexes: Vec::new(),
            watched: Vec::new(),
            readers: Vec::new(),
            providers: BTreeMap::new(),
            fillers: BTreeMap::new(),
            client_priorities: BTreeSet::new(),
            members: None,
            states: StateCounts::default(),
        }
    }

    /// The cell of a date and key. `sheets`: those of all cells.
    pub fn find(&self, sheets: &[Sheet], date: SlotDate, key: &Key) -> Option<CellId> {
        self.by_key.get(date, key, |number| address_of(sheets, number)).map(CellId)
    }

    /// Puts a new cell, which is the last of all, into every index.
    pub fn index_cell(&mut self, sheets: &[Sheet], id: CellId) {
        self.cells.push(id);
        self.index_key(sheets, id);
    }

    /// Puts a cell that is listed into every index. False where its key is taken.
    pub fn index_key(&mut self, sheets: &[Sheet], id: CellId) -> bool {
        if !self.by_key.insert(id.0, |number| address_of(sheets, number)) {
            return false;
        }
        let (date, key) = address_of(sheets, id.0);
        for index in &mut self.indexes {
            index.buckets.entry((date, key.project(&index.positions))).or_default().push(id);
        }
        true
    }
}

pub(super) fn address_of(sheets: &[Sheet], number: u32) -> (SlotDate, &Key) {
    let sheet = &sheets[CellId(number).at()];
    (sheet.date, &sheet.key)
}
