//! Producers that fill in what nobody better gives: an exclusive input on a slot that they provide themselves looks at
//! higher priorities only. No edge is stored for it; its class follows from the candidates above.

use super::Graph;
use super::candidate::Standing;
use super::class::{Class, Seen};
use super::edges::Known;
use super::ids::{BundleId, CellId, ProducerId};
use super::pass::Pass;

/// An exclusive input on a slot that the producer provides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Above {
    pub input: u16,
    /// The priority above which it looks.
    pub priority: i32,
    /// The slot's index on the bundle columns.
    pub index: usize,
}

impl Graph {
    /// Makes the indexes on which bundles of a producer find the cells that they fill in.
    pub(super) fn plan_above(&mut self, id: ProducerId) {
        for at in 0..self.producers[id.at()].above.len() {
            let producer = &self.producers[id.at()];
            let slot = producer.inputs[usize::from(producer.above[at].input)];
            let positions = producer.output_positions.get(&slot).cloned().unwrap_or_default();
            let index = self.index_on(slot, positions);
            self.producers[id.at()].above[at].index = index;
        }
    }

    /// The cells that a bundle fills in, and the class of what better candidates have for each.
    pub(super) fn classes_above(&self, id: BundleId) -> Vec<(CellId, Class)> {
        let bundle = &self.bundles[id.at()];
        let producer = &self.producers[bundle.producer.at()];
        let mut classes = Vec::new();
        for above in &producer.above {
            let input = usize::from(above.input);
            let found = self.slots[producer.inputs[input].at()].indexes[above.index]
                .buckets
                .get(&(bundle.date, bundle.key.clone()));
            for cell in found.into_iter().flatten().filter(|cell| self.is_made(**cell)) {
                let candidates = &self.sheets[cell.at()].candidates;
                let better = candidates.iter().take_while(|c| c.priority > above.priority).count();
                let standing = Standing::of(&candidates[..better], &self.tallies);
                let seen = Seen { g: 0, sight: standing.sight, gone: standing.gone };
                classes.push((*cell, producer.needs[input].class(Known::Nothing, seen)));
            }
        }
        classes
    }

    /// What a producer has for a cell changed, or how it stands.
    pub(super) fn touch_output(&self, pass: &mut Pass, producer: ProducerId, id: CellId) {
        self.touch_cell(pass, id);
        if self.slots[self.cells[id.at()].slot.at()].fillers.is_empty() {
            return;
        }
        if let Some(priority) = self.producers[producer.at()].outputs.get(&self.cells[id.at()].slot) {
            self.touch_below(pass, id, *priority);
        }
    }

    /// A candidate of a cell changed: bundles that fill it in at lower priorities look at it again.
    pub(super) fn touch_below(&self, pass: &mut Pass, id: CellId, priority: i32) {
        let (slot, sheet) = (self.cells[id.at()].slot, &self.sheets[id.at()]);
        for (_, producer) in self.slots[slot.at()].fillers.range(..priority) {
            let filler = &self.producers[producer.at()];
            let Some(positions) = filler.output_positions.get(&slot) else { continue };
            if let Some(bundle) = self.bundle(*producer, sheet.date, &sheet.key.project(positions)) {
                self.touch_bundle(pass, bundle);
            }
        }
    }
}
