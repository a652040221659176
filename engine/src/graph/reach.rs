//! Inputs that make no bundles: optional and exclusive ones. Each bundle reaches their cells by its own key.
//!
//! Where the bundle's columns address one cell there is an edge from it, whether it is there or not: a cell that nobody
//! has made is *expected*, so that its coming is a change like any other. Where the slot has further key columns there is
//! an edge from each cell that is there, and bundles are found by their part of the key when one comes.

use hashbrown::HashMap;
use underbelly_storage::ColumnType;

use super::Graph;
use super::above::Above;
use super::cell::{Cell, Sheet};
use super::definition::{Input, Mode, ProducerDefinition};
use super::edges::EdgeKey;
use super::error::GraphError;
use super::ids::{BundleId, CellId, ProducerId, SlotDate, SlotId};
use super::key::Key;
use super::pass::Pass;

/// How a bundle finds the cells of an input that makes no bundles.
#[derive(Clone, Debug, Default)]
pub(super) struct Reach {
    /// The bundle columns that the slot has as cell keys, in the order of those.
    pub columns: Vec<u16>,
    /// Their positions among the cell keys.
    pub positions: Vec<u16>,
    /// Whether these are all cell keys.
    pub is_address: bool,
    /// The slot's index on the positions, unless they are all.
    pub index: usize,
    /// Bundles by the cells' date and their part of the key, unless they address one cell.
    pub bundles: HashMap<(SlotDate, Key), Vec<BundleId>>,
}

impl Graph {
    /// How bundles of these columns find the cells of each input that makes no bundles.
    pub(super) fn reaches(
        &self,
        definition: &ProducerDefinition,
        inputs: &[SlotId],
        above: &[Above],
        columns: &[(String, ColumnType)],
    ) -> Result<Vec<Option<Reach>>, GraphError> {
        let mut reaches = Vec::with_capacity(inputs.len());
        for (input, slot) in definition.inputs.iter().zip(inputs) {
            let is_above = above.iter().any(|above| usize::from(above.input) == reaches.len());
            if input.mode == Mode::Required || is_above {
                reaches.push(None);
                continue;
            }
            let keys = &self.slots[slot.at()].definition.cell_keys;
            let mut reach = Reach::default();
            for (position, (name, column_type)) in keys.iter().enumerate() {
                let name = input.joined_name(name);
                let Some(at) = columns.iter().position(|(column, _)| column == name) else { continue };
                let Some((_, own)) = columns.get(at).filter(|(_, own)| own != column_type) else {
                    reach.columns.push(at as u16);
                    reach.positions.push(position as u16);
                    continue;
                };
                let slots =
                    definition.inputs.iter().zip(inputs).filter(|(input, _)| input.mode == Mode::Required);
                let has = |input: &Input, slot: &SlotId| {
                    self.slots[slot.at()]
                        .definition
                        .cell_keys
                        .iter()
                        .any(|key| input.joined_name(&key.0) == name)
                };
                let mut slots = slots.into_iter();
                let left = slots.find(|(input, slot)| has(input, slot)).map(|(input, _)| input.slot.clone());
                return Err(GraphError::JoinType {
                    producer: definition.name.clone(),
                    column: name.to_string(),
                    left_slot: left.unwrap_or_default(),
                    left: *own,
                    right_slot: input.slot.clone(),
                    right: *column_type,
                });
            }
            if reach.columns.is_empty() && !input.broadcast {
                let (producer, slot) = (definition.name.clone(), input.slot.clone());
                return Err(GraphError::NotJoined { producer, slot });
            }
            reach.is_address = reach.columns.len() == keys.len();
            reaches.push(Some(reach));
        }
        Ok(reaches)
    }

    /// Makes the indexes on which bundles of a new producer find cells.
    pub(super) fn plan_reaches(&mut self, id: ProducerId) {
        for input in 0..self.producers[id.at()].reaches.len() {
            let slot = self.producers[id.at()].inputs[input];
            let Some(reach) = &self.producers[id.at()].reaches[input] else { continue };
            if !reach.is_address {
                let index = self.index_on(slot, reach.positions.clone());
                if let Some(reach) = &mut self.producers[id.at()].reaches[input] {
                    reach.index = index;
                }
            }
        }
    }

    /// The cell of a slot, date and key, made or expected.
    pub(super) fn find(&self, slot: SlotId, date: SlotDate, key: &Key) -> Option<CellId> {
        self.slots.get(slot.at())?.find(&self.sheets, date, key)
    }

    /// Makes a cell that nobody has made, for those that look for it.
    pub(super) fn expect_cell(&mut self, slot: SlotId, date: SlotDate, key: Key) -> CellId {
        let id = CellId(self.cells.len() as u32);
        let mut cell = Cell::new(slot);
        cell.expected = true;
        self.cells.push(cell);
        self.sheets.push(Sheet::new(date, key));
        self.cell_mut(id);
        self.slots[slot.at()].index_cell(&self.sheets, id);
        id
    }

    /// Gives a new bundle its edges from inputs that make no bundles.
    pub(super) fn reach_inputs(&mut self, pass: &mut Pass, id: BundleId) {
        let (producer, date) = (self.bundles[id.at()].producer, self.bundles[id.at()].date);
        for input in 0..self.producers[producer.at()].reaches.len() {
            let owner = &self.producers[producer.at()];
            let slot = owner.inputs[input];
            let Some(date) = owner.cell_date(input, date) else { continue };
            let Some(Some(reach)) = owner.reaches.get(input) else { continue };
            let key = self.bundles[id.at()].key.project(&reach.columns);
            let edge = |source| EdgeKey { source, input: input as u16 };
            if reach.is_address {
                if !owner.passes(input, &key) {
                    continue;
                }
                let found = self.find(slot, date, &key);
                let source = found.unwrap_or_else(|| self.expect_cell(slot, date, key));
                self.add_edge(pass, id, edge(source));
                continue;
            }
            let place = (date, key);
            let bucket = self.slots[slot.at()].indexes[reach.index].buckets.get(&place);
            let is_taken =
                |cell: &CellId| self.is_made(*cell) && owner.passes(input, &self.sheets[cell.at()].key);
            let found: Vec<CellId> = bucket.into_iter().flatten().copied().filter(is_taken).collect();
            if let Some(Some(reach)) = self.producers[producer.at()].reaches.get_mut(input) {
                reach.bundles.entry(place).or_default().push(id);
            }
            for source in found {
                self.add_edge(pass, id, edge(source));
            }
        }
    }

    /// Bundles that get an edge from a cell of this address, through an input that is not required or as a group, when it is made
    /// or becomes a member.
    pub(super) fn possible_readers(
        &self,
        producer: ProducerId,
        input: u16,
        date: SlotDate,
        key: &Key,
    ) -> Vec<BundleId> {
        let owner = &self.producers[producer.at()];
        let at = usize::from(input);
        if !owner.passes(at, key) {
            return Vec::new();
        }
        if let Some(Some(reach)) = owner.reaches.get(at) {
            let found = reach.bundles.get(&(date, key.project(&reach.positions)));
            return found.into_iter().flatten().copied().collect();
        }
        let bundles = owner
            .bundle_date(at, date)
            .filter(|_| owner.is_group())
            .and_then(|date| owner.by_date.get(&date));
        let (columns, positions): (Vec<u16>, Vec<u16>) = owner.join.shared(input).into_iter().unzip();
        let wanted = key.project(&positions);
        let agrees = |bundle: &&BundleId| self.bundles[bundle.at()].key.project(&columns) == wanted;
        bundles.into_iter().flatten().filter(agrees).copied().collect()
    }

    /// A cell was made: bundles that look for cells like it get an edge. Those that look for it alone have theirs.
    pub(super) fn reach_cell(&mut self, pass: &mut Pass, producer: ProducerId, input: u16, id: CellId) {
        let (sheet, owner) = (&self.sheets[id.at()], &self.producers[producer.at()]);
        let reach = owner.reaches.get(usize::from(input)).and_then(Option::as_ref);
        let is_taken = |reach: &&Reach| !reach.is_address && owner.passes(usize::from(input), &sheet.key);
        let Some(reach) = reach.filter(is_taken) else { return };
        let found = reach.bundles.get(&(sheet.date, sheet.key.project(&reach.positions)));
        for bundle in found.cloned().unwrap_or_default() {
            self.add_edge(pass, bundle, EdgeKey { source: id, input });
            self.touch_bundle(pass, bundle);
        }
    }
}
