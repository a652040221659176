//! What one event moves: the nodes that are to be settled, and what has come of it.

use hashbrown::HashMap;

use super::Graph;
use super::cell::Moment;
use super::effect::Effects;
use super::ids::{BundleId, CellId, ContentId};
use super::order::{Lane, Node, Queue};

/// One pass.
pub(super) struct Pass {
    pub moment: Moment,
    pub effects: Effects,
    /// Rebuilding from facts: they are as they should be and must not move, and everything is settled once anyway.
    pub rebuilding: bool,
    /// A cell whose facts do not follow from those of its candidates, when rebuilding.
    pub contradiction: Option<CellId>,
    pub queue: Queue,
    /// Time has passed.
    pub is_due: bool,
    /// The lane of the work that it makes; `None` where it makes none that is new.
    pub lane: Option<Lane>,
    /// Effective contents that were replaced, of cells that are not settled since.
    contents: HashMap<CellId, Option<ContentId>>,
}

impl Pass {
    /// A pass that has nothing to settle. `queue`: that of the pass before.
    pub fn new(moment: Moment, queue: Queue) -> Pass {
        Pass {
            moment,
            effects: Effects::default(),
            rebuilding: false,
            contradiction: None,
            queue,
            is_due: false,
            lane: None,
            contents: HashMap::new(),
        }
    }

    /// A candidate's content changed. `is_effective`: whether it is, or was before this event, what the cell has.
    pub fn note_contents(
        &mut self,
        cell: CellId,
        is_effective: bool,
        before: Option<ContentId>,
        now: Option<ContentId>,
    ) {
        if before != now {
            if is_effective {
                self.contents.entry(cell).or_insert(before);
            }
            self.effects.released.extend(before);
            self.effects.held.extend(now);
        }
    }

    /// The effective content that a cell had before, if it was replaced; asked once.
    pub fn replaced(&mut self, cell: CellId) -> Option<Option<ContentId>> {
        if self.contents.is_empty() { None } else { self.contents.remove(&cell) }
    }
}

impl Graph {
    pub(super) fn touch_cell(&self, pass: &mut Pass, cell: CellId) {
        if !pass.rebuilding {
            pass.queue.push(self.place_of_cell(cell), Node::Cell(cell));
        }
    }

    pub(super) fn touch_bundle(&self, pass: &mut Pass, bundle: BundleId) {
        if !pass.rebuilding {
            pass.queue.push(self.place_of_bundle(bundle), Node::Bundle(bundle));
        }
    }

    /// A cell's state may differ.
    pub(super) fn restate(&self, pass: &mut Pass, cell: CellId) {
        if !pass.rebuilding {
            pass.queue.restate(self.place_of_cell(cell), cell);
        }
    }
}
