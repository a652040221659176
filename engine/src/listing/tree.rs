//! SLOT_TREE: which cell was made from which.

use super::page::{PAGE, Rows};
use crate::error::ReadError;
use crate::graph::{CellId, EdgeRow, Graph, SlotId, Step};
use crate::view::View;

/// A row of SLOT_TREE: one cell, and one that was made from it. Capitals name the columns.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TreeRow {
    /// SID1: the cell that was read.
    pub source: CellId,
    /// SID2: the cell that was made.
    pub target: CellId,
    /// GENERATION that was read; `None` where the source came after the last run, or was found absent.
    pub generation: Option<u64>,
    /// PRODUCER that made the target from it.
    pub producer: String,
    /// INPUT: the name under which the producer read it; empty where a run has read it beside its inputs.
    pub input: String,
    /// PRIORITY at which it made it.
    pub priority: i32,
}

impl TreeRow {
    fn of(graph: &Graph, edge: EdgeRow) -> Option<TreeRow> {
        let producer = graph.producer(graph.bundle_producer(edge.bundle)?)?;
        let input = producer.inputs.get(usize::from(edge.input));
        Some(TreeRow {
            source: edge.source,
            target: edge.target,
            generation: edge.token,
            producer: producer.name.clone(),
            input: input.map(|input| input.alias.clone()).unwrap_or_default(),
            priority: edge.priority,
        })
    }
}

/// Where the next page begins: the cell's place among those that are listed, the place of its candidate, and the
/// source of the last edge into that.
#[derive(Default)]
struct Next {
    cell: usize,
    candidate: usize,
    after: Option<Step>,
}

impl Next {
    fn fill(&mut self, graph: &Graph, slot: Option<SlotId>, rows: &mut Vec<TreeRow>) -> bool {
        let mut looked_at = 0;
        for cell in graph.cells_from(slot, self.cell) {
            while let Some(edges) = graph.edges_into(cell, self.candidate, self.after) {
                for edge in edges {
                    self.after = Some(Step { source: edge.source, input: edge.input });
                    rows.extend(TreeRow::of(graph, edge));
                    if rows.len() >= PAGE {
                        return true;
                    }
                }
                self.candidate += 1;
                self.after = None;
            }
            *self = Next { cell: self.cell + 1, ..Next::default() };
            looked_at += 1;
            if looked_at >= PAGE {
                return true;
            }
        }
        false
    }
}

impl View {
    /// SLOT_TREE: what the cells of one slot were made from, or all cells, in order of the cells that were made.
    ///
    /// # Errors
    /// [`ReadError::UnknownSlot`] where `slot` names none.
    pub fn slot_tree(&self, slot: Option<&str>) -> Result<Rows<TreeRow>, ReadError> {
        let slot = self.slot_id(slot)?;
        let mut next = Next::default();
        Ok(Rows::new(self, move |graph, rows| next.fill(graph, slot, rows)))
    }
}
