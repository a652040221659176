//! What people look at: slots with their states, producers with their work, why something is as it is.
//!
//! States are those of the applied head; [`Status::head`](crate::Status::head) says which transaction that is.

mod drawing;
mod lineage;
mod producers;
mod slots;

pub use drawing::{GraphNode, GraphView, NodeKind};
pub use lineage::Lineage;
pub use producers::ProducerSummary;
pub use slots::{SlotRow, SlotSummary};

use crate::graph::{Graph, SlotId};

fn slot_name(graph: &Graph, slot: SlotId) -> String {
    graph.slot(slot).map(|definition| definition.name.clone()).unwrap_or_default()
}
