//! The graph as data for a drawing: slots and producers with what leads where, and cells with what was made of what.

use std::collections::HashMap;

use underbelly_storage::Timestamp;

use super::slot_name;
use crate::error::ReadError;
use crate::graph::{CellId, Graph, Key, Mode, PStatus, ProducerId, SlotDate, SlotId, State, StateCounts};
use crate::limits::{DRAWN_CELLS_MAX, DRAWN_EDGES_MAX};
use crate::view::View;

/// The graph for a drawing: slots in order of their definition, then producers in order of their registration.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct GraphView {
    /// Slots and producers.
    pub nodes: Vec<GraphNode>,
    /// What leads where, in order of the producers' definitions.
    pub edges: Vec<GraphEdge>,
}

/// A node of the drawing.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GraphNode {
    /// The slot's or producer's name.
    pub name: String,
    /// What it stands for, and how it is with it.
    pub kind: NodeKind,
    /// Steps from the sources; edges that close a loop do not count.
    pub level: usize,
}

/// What a node stands for.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeKind {
    /// A slot.
    Slot(SlotNode),
    /// A producer.
    Producer(ProducerNode),
}

/// A slot in a drawing.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct SlotNode {
    /// Cells in each state.
    pub states: StateCounts,
    /// Commit time of the change that is oldest among the newest changes of its cells; none where no cell has ever changed.
    pub oldest_change: Option<Timestamp>,
    /// Commit time of the newest change of any cell.
    pub newest_change: Option<Timestamp>,
}

/// A producer in a drawing.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ProducerNode {
    /// Runs that ended, and those in flight.
    pub runs: u64,
    /// Bundles in each status that has any, in order of [`PStatus::ALL`].
    pub bundles: Vec<(PStatus, u64)>,
    /// When the oldest run in flight began.
    pub running_since: Option<Timestamp>,
    /// Whether the process that writes has its closure.
    pub attached: bool,
    /// Why the newest failed bundle failed.
    pub error: Option<String>,
}

/// An edge of the drawing; `from` and `to` are positions in [`GraphView::nodes`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GraphEdge {
    /// Where it begins.
    pub from: usize,
    /// Where it leads.
    pub to: usize,
    /// What passes along it.
    pub role: EdgeRole,
}

/// What passes along an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EdgeRole {
    /// A slot is an input of a producer.
    Input {
        /// Whether runs need it.
        mode: Mode,
        /// The cells that are read are of so many days before.
        lag: u32,
        /// Whether each cell is joined with all tuples of the date.
        broadcast: bool,
    },
    /// A producer provides a slot at this priority.
    Output {
        /// The priority of its data.
        priority: i32,
    },
}

/// Cells for a drawing.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct CellGraph {
    /// Names of the slots, in order of their level, then of their definition.
    pub slots: Vec<String>,
    /// The cells, in order of `slots`, then of date and key.
    pub cells: Vec<CellNode>,
    /// Which cell was made from which.
    pub edges: Vec<CellEdge>,
}

/// A cell in a drawing.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CellNode {
    /// Position in [`CellGraph::slots`].
    pub slot: usize,
    /// The date.
    pub date: SlotDate,
    /// The key.
    pub key: Key,
    /// The state.
    pub state: State,
    /// How often the contents changed.
    pub generation: u64,
    /// Commit time of the last change; none where there never was one.
    pub last_updated: Option<Timestamp>,
    /// The producer of the contents, or `client`.
    pub producer: Option<String>,
    /// Why the production failed, where it did.
    pub error: Option<String>,
}

/// That a cell was made from another; `from` and `to` are positions in [`CellGraph::cells`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CellEdge {
    /// The cell that was read.
    pub from: usize,
    /// The cell that was made.
    pub to: usize,
    /// The producer between them.
    pub producer: String,
}

impl GraphNode {
    /// A slot without cells, at level 0.
    pub fn slot(name: impl Into<String>) -> GraphNode {
        GraphNode { name: name.into(), kind: NodeKind::Slot(SlotNode::default()), level: 0 }
    }

    /// A producer without runs, at level 0.
    pub fn producer(name: impl Into<String>) -> GraphNode {
        GraphNode { name: name.into(), kind: NodeKind::Producer(ProducerNode::default()), level: 0 }
    }
}

impl GraphEdge {
    /// An edge between two positions.
    pub fn new(from: usize, to: usize, role: EdgeRole) -> GraphEdge {
        GraphEdge { from, to, role }
    }
}

impl EdgeRole {
    /// A required input of the same date.
    pub const REQUIRED: EdgeRole = EdgeRole::Input { mode: Mode::Required, lag: 0, broadcast: false };

    /// An output at priority 0.
    pub const OUTPUT: EdgeRole = EdgeRole::Output { priority: 0 };

    /// Whether names may form a loop over it: it reads another date, or what is only there without it.
    fn may_loop(self) -> bool {
        matches!(self, EdgeRole::Input { mode, lag, .. } if lag > 0 || mode == Mode::Exclusive)
    }
}

impl CellNode {
    /// A cell that never had contents.
    pub fn new(slot: usize, date: SlotDate, key: Key) -> CellNode {
        CellNode {
            slot,
            date,
            key,
            state: State::Void,
            generation: 0,
            last_updated: None,
            producer: None,
            error: None,
        }
    }
}

impl CellEdge {
    /// An edge between two positions.
    pub fn new(from: usize, to: usize, producer: impl Into<String>) -> CellEdge {
        CellEdge { from, to, producer: producer.into() }
    }
}

impl GraphView {
    /// Gives each node its level: one more than the highest before it. Where edges form a loop, those that read another
    /// date or exclude are left out first; should a loop be left, the edges into its first node are.
    pub fn settle_levels(&mut self) {
        let nodes = self.nodes.len();
        let mut next: Vec<Vec<usize>> = vec![Vec::new(); nodes];
        for edge in self.edges.iter().filter(|edge| edge.from < nodes && edge.to < nodes) {
            next[edge.from].push(edge.to);
        }
        let reaches = |from: usize, to: usize| {
            let mut seen = vec![false; nodes];
            let mut stack = vec![from];
            while let Some(at) = stack.pop() {
                if at == to {
                    return true;
                }
                if !std::mem::replace(&mut seen[at], true) {
                    stack.extend(&next[at]);
                }
            }
            false
        };
        let kept: Vec<(usize, usize)> = self
            .edges
            .iter()
            .filter(|edge| edge.from < nodes && edge.to < nodes && edge.from != edge.to)
            .filter(|edge| !(edge.role.may_loop() && reaches(edge.to, edge.from)))
            .map(|edge| (edge.from, edge.to))
            .collect();
        let mut before = vec![0usize; nodes];
        kept.iter().for_each(|(_, to)| before[*to] += 1);
        let mut levels = vec![0usize; nodes];
        let mut open: Vec<bool> = vec![true; nodes];
        for _ in 0..nodes {
            let free = (0..nodes).find(|at| open[*at] && before[*at] == 0);
            let Some(at) = free.or_else(|| (0..nodes).find(|at| open[*at])) else { break };
            open[at] = false;
            for (_, to) in kept.iter().filter(|(from, to)| *from == at && open[*to]) {
                before[*to] -= 1;
                levels[*to] = levels[*to].max(levels[at] + 1);
            }
        }
        self.nodes.iter_mut().zip(levels).for_each(|(node, level)| node.level = level);
    }

    /// Whether an edge leads to its own level or back.
    pub fn loops(&self, edge: &GraphEdge) -> bool {
        let level = |at: usize| self.nodes.get(at).map(|node| node.level);
        level(edge.from) >= level(edge.to)
    }
}

/// Oldest and newest of the last changes of a slot's cells.
fn changes(graph: &Graph, slot: SlotId) -> (Option<Timestamp>, Option<Timestamp>) {
    let times = || graph.cells_of(slot).filter_map(|cell| graph.changed_at(cell));
    (times().min(), times().max())
}

/// Why the newest failed bundle of a producer failed.
fn newest_error(graph: &Graph, producer: ProducerId) -> Option<String> {
    let bundles = graph.bundles_of(producer).into_iter();
    let (_, newest) = bundles.filter_map(|bundle| Some((graph.failed_at(bundle)?, bundle))).max()?;
    graph.bundle_info(newest).map(|bundle| bundle.reason)
}

fn known_slot(graph: &Graph, name: &str) -> Result<SlotId, ReadError> {
    graph.slot_by_name(name).ok_or_else(|| ReadError::UnknownSlot { slot: name.to_string() })
}

impl View {
    /// Slots and producers with what leads where, for a drawing. Takes time in proportion to the number of cells.
    pub fn graph_view(&self) -> GraphView {
        let producers = self.producers();
        let state = self.base().state();
        let graph = &state.graph;
        let mut view = GraphView::default();
        for (id, definition) in graph.slots() {
            let (oldest_change, newest_change) = changes(graph, id);
            let states = graph.state_counts(id);
            let mut node = GraphNode::slot(definition.name.clone());
            node.kind = NodeKind::Slot(SlotNode { states, oldest_change, newest_change });
            view.nodes.push(node);
        }
        let mut running: HashMap<ProducerId, Timestamp> = HashMap::new();
        for run in graph.runs_after(None) {
            let since = running.entry(run.producer).or_insert(run.started);
            *since = run.started.min(*since);
        }
        for producer in producers {
            let at = view.nodes.len();
            let name = &producer.definition.name;
            let has_failed = |(status, count): &(PStatus, u64)| *status == PStatus::Failed && *count > 0;
            let failed = producer.bundles.iter().any(has_failed);
            let id = graph.producer_by_name(name);
            let mut node = GraphNode::producer(name.clone());
            node.kind = NodeKind::Producer(ProducerNode {
                runs: producer.runs,
                bundles: producer.bundles.into_iter().filter(|(_, count)| *count > 0).collect(),
                running_since: id.and_then(|id| running.get(&id).copied()),
                attached: producer.attached,
                error: id.filter(|_| failed).and_then(|id| newest_error(graph, id)),
            });
            view.nodes.push(node);
            for input in &producer.definition.inputs {
                let Some(slot) = graph.slot_by_name(&input.slot) else { continue };
                let (mode, lag, broadcast) = (input.mode, input.lag, input.broadcast);
                let role = EdgeRole::Input { mode, lag, broadcast };
                view.edges.push(GraphEdge::new(slot.0 as usize, at, role));
            }
            for output in &producer.definition.outputs {
                let Some(slot) = graph.slot_by_name(&output.slot) else { continue };
                let role = EdgeRole::Output { priority: output.priority };
                view.edges.push(GraphEdge::new(at, slot.0 as usize, role));
            }
        }
        view.settle_levels();
        view
    }

    /// Cells of one slot or of all, of one date or of all, with what was made from what among them, for a drawing. Takes time in
    /// proportion to the cells of the slots and the inputs of what made them.
    ///
    /// # Errors
    /// [`ReadError::UnknownSlot`] where `slot` names none; [`ReadError::TooMany`] for more than 20,000 cells, or 200,000 edges between
    /// them.
    pub fn cell_graph(&self, slot: Option<&str>, date: Option<SlotDate>) -> Result<CellGraph, ReadError> {
        let names = self.graph_view();
        let state = self.base().state();
        let graph = &state.graph;
        let mut slots: Vec<(usize, SlotId)> = match slot {
            Some(name) => {
                vec![(0, known_slot(graph, name)?)]
            }
            None => {
                let level = |id: SlotId| names.nodes.get(id.0 as usize).map_or(0, |node| node.level);
                graph.slots().map(|(id, _)| (level(id), id)).collect()
            }
        };
        slots.sort();
        let is_of_date = |cell: &CellId| {
            date.is_none_or(|date| graph.address(*cell).is_some_and(|(_, own, _)| own == date))
        };
        let count = |slot: SlotId| match date {
            Some(_) => graph.cells_of(slot).filter(is_of_date).count() as u64,
            None => graph.state_counts(slot).total(),
        };
        let (found, limit) = (slots.iter().map(|(_, slot)| count(*slot)).sum(), DRAWN_CELLS_MAX);
        if found > limit {
            return Err(ReadError::TooMany { what: "cells", found, limit });
        }
        let mut view = CellGraph::default();
        let mut ids: Vec<CellId> = Vec::new();
        for (at, (_, slot)) in slots.into_iter().enumerate() {
            let cells = graph.cells_of(slot).filter(is_of_date);
            let mut rows: Vec<_> = cells.filter_map(|cell| Some((cell, graph.cell_row(cell)?))).collect();
            rows.sort_by(|(_, a), (_, b)| (a.date, a.key).cmp(&(b.date, b.key)));
            view.slots.push(slot_name(graph, slot));
            for (cell, row) in rows {
                ids.push(cell);
                view.cells.push(CellNode {
                    slot: at,
                    date: row.date,
                    key: row.key.clone(),
                    state: row.state,
                    generation: row.g,
                    last_updated: (row.g > 0).then_some(row.changed_at),
                    producer: row.producer.map(str::to_string),
                    error: row.error.map(str::to_string),
                });
            }
        }
        let places: HashMap<CellId, usize> = ids.iter().enumerate().map(|(at, cell)| (*cell, at)).collect();
        let mut edges = Vec::new();
        graph.sources(&ids, |bundle, from, to| {
            edges.push((to, bundle, from));
            edges.len() as u64 <= DRAWN_EDGES_MAX
        });
        let (found, limit) = (edges.len() as u64, DRAWN_EDGES_MAX);
        if found > limit {
            return Err(ReadError::TooMany { what: "edges", found, limit });
        }
        for (to, bundle, from) in edges {
            let (Some(from), Some(to)) = (places.get(&from), places.get(&to)) else { continue };
            let producer = graph.bundle_producer(bundle).and_then(|id| graph.producer(id));
            let producer = producer.map(|definition| definition.name.clone()).unwrap_or_default();
            view.edges.push(CellEdge { from: *from, to: *to, producer });
        }
        view.edges.sort_by(|a, b| (a.to, &a.producer, a.from).cmp(&(b.to, &b.producer, b.from)));
        Ok(view)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn view(nodes: usize, edges: &[(usize, usize, EdgeRole)]) -> GraphView {
        let nodes = (0..nodes).map(|at| GraphNode::slot(format!("n{at}"))).collect();
        let edges = edges.iter().map(|(from, to, role)| GraphEdge::new(*from, *to, *role)).collect();
        let mut view = GraphView { nodes, edges };
        view.settle_levels();
        view
    }

    fn levels(view: &GraphView) -> Vec<usize> {
        view.nodes.iter().map(|node| node.level).collect()
    }

    #[test]
    fn levels_are_the_longest_ways_from_the_sources() {
        let (input, output) = (EdgeRole::REQUIRED, EdgeRole::OUTPUT);
        let chain = view(5, &[(0, 3, input), (3, 1, output), (1, 4, input), (0, 4, input), (4, 2, output)]);
        assert_eq!(levels(&chain), [0, 2, 4, 1, 3]);
        assert!(chain.edges.iter().all(|edge| !chain.loops(edge)));
    }

    #[test]
    fn loops_are_cut_where_another_date_is_read() {
        let yesterday = EdgeRole::Input { mode: Mode::Optional, lag: 1, broadcast: false };
        let (input, output) = (EdgeRole::REQUIRED, EdgeRole::OUTPUT);
        // 0 → 2 → 1, and 2 reads the eve of 1.
        let eve = view(3, &[(1, 2, yesterday), (0, 2, input), (2, 1, output)]);
        assert_eq!(levels(&eve), [0, 2, 1]);
        let loops: Vec<bool> = eve.edges.iter().map(|edge| eve.loops(edge)).collect();
        assert_eq!(loops, [true, false, false]);
        // An eve that closes no loop counts as any other edge.
        let ahead = view(3, &[(0, 2, yesterday), (2, 1, output)]);
        assert_eq!(levels(&ahead), [0, 2, 1]);
    }

    #[test]
    fn a_loop_of_any_edges_ends() {
        let output = EdgeRole::OUTPUT;
        let round =
            view(4, &[(0, 1, output), (1, 2, output), (2, 0, output), (2, 3, output), (3, 3, output)]);
        assert_eq!(levels(&round), [0, 1, 2, 3]);
        assert!(round.loops(&round.edges[2]) && round.loops(&round.edges[4]));
        let nowhere = view(1, &[(0, 7, output), (9, 0, output)]);
        assert_eq!(levels(&nowhere), [0]);
    }
}
