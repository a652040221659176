//! The graph for a drawing: slots and producers, and what leads where.

use crate::graph::StateCounts;
use crate::view::View;

/// The graph for a drawing: slots and producers, and what leads where.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct GraphView {
    /// Slots and producers.
    pub nodes: Vec<GraphNode>,
    /// From and to, as positions in `nodes`.
    pub edges: Vec<(usize, usize)>,
}

/// A node of the drawing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GraphNode {
    /// The slot's or producer's name.
    pub name: String,
    /// Slots have cells by state, producers have runs.
    pub kind: NodeKind,
    /// Steps from the sources.
    pub level: usize,
}

/// What a node stands for.
#[derive(Clone, Debug)]
pub enum NodeKind {
    /// A slot with its cells by state.
    Slot(StateCounts),
    /// A producer with the runs that it ended.
    Producer {
        /// Runs that ended.
        runs: u64,
    },
}

impl View {
    /// Slots and producers with what leads where, for a drawing.
    pub fn graph_view(&self) -> GraphView {
        let producers = self.producers();
        let mut view = GraphView::default();
        for slot in self.slots() {
            let kind = NodeKind::Slot(slot.states);
            view.nodes.push(GraphNode { name: slot.definition.name, kind, level: 0 });
        }
        let slots = view.nodes.len();
        let at = |view: &GraphView, name: &str| view.nodes[..slots].iter().position(|node| node.name == name);
        for producer in &producers {
            let kind = NodeKind::Producer { runs: producer.runs };
            let node = view.nodes.len();
            view.nodes.push(GraphNode { name: producer.definition.name.clone(), kind, level: 0 });
            let inputs = producer.definition.inputs.iter().filter_map(|input| at(&view, &input.slot));
            let outputs = producer.definition.outputs.iter().filter_map(|output| at(&view, &output.slot));
            let edges: Vec<_> =
                inputs.map(|slot| (slot, node)).chain(outputs.map(|slot| (node, slot))).collect();
            view.edges.extend(edges);
        }
        // Names form no cycle, so as many rounds as there are nodes settle all levels.
        for _ in 0..view.nodes.len() {
            for (from, to) in view.edges.clone() {
                view.nodes[to].level = view.nodes[to].level.max(view.nodes[from].level + 1);
            }
        }
        view
    }
}
