//! What people look at: slots with their states, producers with their work, the tables of both, why something is as it
//! is, and what it was made from.
//!
//! States are those of the applied head; [`Status::head`](crate::Status::head) says which transaction that is.

mod alarms;
mod drawing;
mod lineage;
mod page;
mod rows;
mod running;
mod slots;
mod tree;
mod work;

pub use alarms::{Alarm, AlarmKind};
pub use drawing::{
    CellEdge, CellGraph, CellNode, EdgeRole, GraphEdge, GraphNode, GraphView, NodeKind, ProducerNode,
    SlotNode,
};
pub use lineage::Lineage;
pub use page::Rows;
pub use rows::{SlotCell, SlotCells, TABLE_COLUMNS};
pub use running::RunningRow;
pub use slots::{SlotRow, SlotSummary};
pub use tree::TreeRow;
pub use work::{ProducerSummary, WorkRow};

use crate::graph::{Graph, SlotId};

fn slot_name(graph: &Graph, slot: SlotId) -> String {
    graph.slot(slot).map(|definition| definition.name.clone()).unwrap_or_default()
}
