//! What people look at: slots with their states, producers with their work, why something is as it is.
//!
//! States are those of the applied head; [`Status::head`](crate::Status::head) says which transaction that is.

use crate::error::ReadError;
use crate::graph::{
    CellId, CellInfo, Graph, Key, PStatus, ProducerDefinition, SlotDate, SlotDefinition, SlotId, State,
    StateCounts, Tree, Why,
};
use crate::view::View;
use underbelly_storage::object::ObjectId;
use underbelly_storage::{Timestamp, Value};

/// A slot with its cells counted by state.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SlotSummary {
    /// Its definition.
    pub definition: SlotDefinition,
    /// Cells in each state.
    pub states: StateCounts,
}

/// One cell, as a row of the table that `ubctl slot show` shows; capitals name the columns there.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SlotRow {
    /// SLOT_NAME
    pub slot: String,
    /// DATE
    pub date: SlotDate,
    /// SLOT_KEY: key values joined by `/`.
    pub key: Key,
    /// SID
    pub sid: CellId,
    /// SSTATUS
    pub state: State,
    /// FILE: the object that holds the contents.
    pub object: Option<ObjectId>,
    /// PRODUCER of the contents, or `client`.
    pub producer: Option<String>,
    /// PRIORITY of the contents.
    pub priority: Option<i32>,
    /// LAST_UPDATED
    pub last_updated: Timestamp,
    /// How often the contents changed.
    pub generation: u64,
    /// Why the production failed, where it did.
    pub error: Option<String>,
}

/// A producer with its bundles counted by status.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProducerSummary {
    /// Its definition.
    pub definition: ProducerDefinition,
    /// Whether this process has its closure.
    pub attached: bool,
    /// Bundles in each status, in order of [`PStatus::ALL`].
    pub bundles: Vec<(PStatus, u64)>,
    /// Runs that ended.
    pub runs: u64,
}

/// A cell, and the cells behind it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Lineage {
    /// The slot.
    pub slot: String,
    /// The date.
    pub date: SlotDate,
    /// The key.
    pub key: Key,
    /// The state.
    pub state: State,
    /// The producer that leads here from the cell before; none for the first.
    pub producer: Option<String>,
    /// The cells behind; empty where they were listed before.
    pub children: Vec<Lineage>,
}

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

fn slot_name(graph: &Graph, slot: SlotId) -> String {
    graph.slot(slot).map(|definition| definition.name.clone()).unwrap_or_default()
}

fn lineage(graph: &Graph, tree: &Tree) -> Option<Lineage> {
    let info = graph.cell_info(tree.cell)?;
    let producer =
        tree.bundle.and_then(|bundle| graph.bundle_info(bundle)).and_then(|b| graph.producer(b.producer));
    Some(Lineage {
        slot: slot_name(graph, info.slot),
        date: info.date,
        key: info.key,
        state: info.state,
        producer: producer.map(|definition| definition.name.clone()),
        children: tree.children.iter().filter_map(|child| lineage(graph, child)).collect(),
    })
}

impl View {
    /// All slots in order of their definition.
    pub fn slots(&self) -> Vec<SlotSummary> {
        let state = self.base().state();
        let slots = state.graph.slots();
        slots
            .map(|(id, definition)| SlotSummary {
                definition: definition.clone(),
                states: state.graph.state_counts(id),
            })
            .collect()
    }

    /// Cells of one slot, or of all, sorted by slot, date and key.
    ///
    /// # Errors
    /// [`ReadError::UnknownSlot`] where `slot` names none.
    pub fn slot_table(&self, slot: Option<&str>) -> Result<Vec<SlotRow>, ReadError> {
        let state = self.base().state();
        let graph = &state.graph;
        let row = |cell| {
            let info: CellInfo = graph.cell_info(cell)?;
            Some(SlotRow {
                slot: slot_name(graph, info.slot),
                date: info.date,
                key: info.key,
                sid: cell,
                state: info.state,
                object: info.content.map(ObjectId),
                producer: info.producer,
                priority: info.priority,
                last_updated: info.changed_at,
                generation: info.g,
                error: info.error,
            })
        };
        let mut rows: Vec<SlotRow> = match slot {
            Some(name) => {
                let id = graph.slot_by_name(name);
                let id = id.ok_or_else(|| ReadError::UnknownSlot { slot: name.to_string() })?;
                graph.cells_of(id).filter_map(row).collect()
            }
            None => graph.cells().filter_map(row).collect(),
        };
        drop(state);
        rows.sort_by(|a, b| (&a.slot, a.date, &a.key).cmp(&(&b.slot, b.date, &b.key)));
        Ok(rows)
    }

    /// All producers in order of their registration.
    pub fn producers(&self) -> Vec<ProducerSummary> {
        let state = self.base().state();
        let graph = &state.graph;
        let mut summaries: Vec<ProducerSummary> = graph
            .producers()
            .map(|(id, definition)| ProducerSummary {
                definition: definition.clone(),
                attached: graph.is_attached(id),
                bundles: PStatus::ALL.into_iter().map(|status| (status, 0)).collect(),
                runs: 0,
            })
            .collect();
        for info in graph.bundles().filter_map(|bundle| graph.bundle_info(bundle)) {
            let Some(summary) = summaries.get_mut(info.producer.0 as usize) else { continue };
            summary.runs += info.runs;
            if let Some((_, count)) = summary.bundles.iter_mut().find(|(status, _)| *status == info.status) {
                *count += 1;
            }
        }
        summaries
    }

    /// Why a cell is in its state, or why there is none: a tree that ends in what clients and runs did.
    ///
    /// # Errors
    /// [`ReadError::UnknownSlot`]; [`ReadError::Key`] where a key value is null, NaN or bytes.
    pub fn why<V: Into<Value>>(
        &self,
        slot: &str,
        date: impl Into<SlotDate>,
        key: impl IntoIterator<Item = V>,
    ) -> Result<Why, ReadError> {
        let key = Key::new(key.into_iter().map(Into::into).collect())?;
        let state = self.base().state();
        let unknown = || ReadError::UnknownSlot { slot: slot.to_string() };
        let id = state.graph.slot_by_name(slot).ok_or_else(unknown)?;
        state.graph.why_at(id, date.into(), &key).ok_or_else(unknown)
    }

    /// The cells that were made from a cell, and those made from them; `None` where there is no such cell.
    ///
    /// # Errors
    /// [`ReadError::UnknownSlot`]; [`ReadError::Key`] where a key value is null, NaN or bytes.
    pub fn downstream<V: Into<Value>>(
        &self,
        slot: &str,
        date: impl Into<SlotDate>,
        key: impl IntoIterator<Item = V>,
    ) -> Result<Option<Lineage>, ReadError> {
        self.tree(slot, date.into(), key, |graph, cell| graph.downstream(cell))
    }

    /// The cells that a cell was made from, and those that they were made from; `None` where there is no such
    /// cell.
    ///
    /// # Errors
    /// [`ReadError::UnknownSlot`]; [`ReadError::Key`] where a key value is null, NaN or bytes.
    pub fn upstream<V: Into<Value>>(
        &self,
        slot: &str,
        date: impl Into<SlotDate>,
        key: impl IntoIterator<Item = V>,
    ) -> Result<Option<Lineage>, ReadError> {
        self.tree(slot, date.into(), key, |graph, cell| graph.upstream(cell))
    }

    fn tree<V: Into<Value>>(
        &self,
        slot: &str,
        date: SlotDate,
        key: impl IntoIterator<Item = V>,
        walk: impl Fn(&Graph, CellId) -> Option<Tree>,
    ) -> Result<Option<Lineage>, ReadError> {
        let key = Key::new(key.into_iter().map(Into::into).collect())?;
        let state = self.base().state();
        let id = state.graph.slot_by_name(slot);
        let id = id.ok_or_else(|| ReadError::UnknownSlot { slot: slot.to_string() })?;
        let cell = state.graph.cell(id, date, &key);
        Ok(cell.and_then(|cell| lineage(&state.graph, &walk(&state.graph, cell)?)))
    }

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
