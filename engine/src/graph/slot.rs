//! A slot at work: its cells and the indexes on them.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;

use super::definition::SlotDefinition;
use super::ids::{BundleId, CellId, ProducerId, SlotDate};
use super::info::StateCounts;
use super::key::Key;

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

#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub definition: SlotDefinition,
    /// Greater than the rank of every producer that provides it.
    pub rank: u32,
    pub cells: Vec<CellId>,
    pub by_key: HashMap<(SlotDate, Key), CellId>,
    pub indexes: Vec<Index>,
    /// What runs looked for.
    pub watched: Vec<Watched>,
    /// Producers that read it, and as which input.
    pub readers: Vec<(ProducerId, u16)>,
    /// Producers that provide it, by priority.
    pub providers: BTreeMap<i32, ProducerId>,
    /// Those of them that fill in what nobody better gives.
    pub fillers: BTreeMap<i32, ProducerId>,
    /// Priorities at which clients have written.
    pub client_priorities: BTreeSet<i32>,
    /// Cells that groups read: those that have data or an error and are not gone.
    pub members: BTreeMap<SlotDate, BTreeSet<CellId>>,
    pub states: StateCounts,
}

impl Slot {
    pub fn new(definition: SlotDefinition) -> Slot {
        Slot {
            definition,
            rank: 0,
            cells: Vec::new(),
            by_key: HashMap::new(),
            indexes: Vec::new(),
            watched: Vec::new(),
            readers: Vec::new(),
            providers: BTreeMap::new(),
            fillers: BTreeMap::new(),
            client_priorities: BTreeSet::new(),
            members: BTreeMap::new(),
            states: StateCounts::default(),
        }
    }

    /// Puts a new cell into every index.
    pub fn index_cell(&mut self, cell: CellId, date: SlotDate, key: &Key) {
        self.cells.push(cell);
        self.index_key(cell, date, key);
    }

    /// Puts a cell that is listed into every index. False where its key is taken.
    pub fn index_key(&mut self, cell: CellId, date: SlotDate, key: &Key) -> bool {
        if self.by_key.insert((date, key.clone()), cell).is_some() {
            return false;
        }
        for index in &mut self.indexes {
            index.buckets.entry((date, key.project(&index.positions))).or_default().push(cell);
        }
        true
    }
}
