//! Why a cell is as it is, what it was made from and what was made from it.

use underbelly_storage::Value;

use super::slot_name;
use crate::error::ReadError;
use crate::graph::{
    CellId, Extent, Graph, Key, Link, Mode, RunId, SlotDate, SlotId, State, Tree, TreeNode, Why,
};
use crate::snapshot::cell_of;
use crate::view::View;

/// A cell, or the cells that a slot has for a date, and what is behind it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Lineage {
    /// The slot.
    pub slot: String,
    /// The date.
    pub date: SlotDate,
    /// The key; `None` for all cells that the slot has for the date, which a group reads as a set.
    pub key: Option<Key>,
    /// The cell.
    pub sid: Option<CellId>,
    /// Its state.
    pub state: Option<State>,
    /// The generation that it has now; of the set of cells that a group reads, how many they are.
    pub generation: u64,
    /// The transaction that made it so.
    pub seq: Option<u64>,
    /// The priority of its contents.
    pub priority: Option<i32>,
    /// The producer that leads here from the node before; `None` for the first.
    pub producer: Option<String>,
    /// The name of the input through which it does.
    pub input: Option<String>,
    /// What the input is to it; `None` for the first, and where a run has read it beside its inputs.
    pub mode: Option<Mode>,
    /// The generation that it read of whichever of the two it read, or how many cells the set then had; `None` where it read nothing, or has not run since.
    pub read: Option<u64>,
    /// The run of it that is in flight there.
    pub run: Option<RunId>,
    /// What is behind; empty where that is listed elsewhere in the tree.
    pub children: Vec<Lineage>,
    /// Whether it is listed elsewhere in the tree, where it is no further from the first.
    pub repeated: bool,
    /// How much behind it was left out.
    pub more: u64,
}

impl Lineage {
    fn of(graph: &Graph, tree: &Tree) -> Option<Lineage> {
        let mut lineage = match tree.node {
            TreeNode::Cell(cell) => Lineage::of_cell(graph, cell)?,
            TreeNode::Scope(slot, date, generation) => Lineage::of_address(graph, slot, date, generation),
        };
        if let Some(Link { bundle, input, token }) = tree.link {
            let producer = graph.bundle_producer(bundle).and_then(|id| graph.producer(id))?;
            let input = producer.inputs.get(usize::from(input));
            lineage.producer = Some(producer.name.clone());
            lineage.input = input.map(|input| input.alias.clone());
            lineage.mode = input.map(|input| input.mode);
            lineage.read = token;
            lineage.run = graph.run_of(bundle);
        }
        lineage.children = tree.children.iter().filter_map(|child| Lineage::of(graph, child)).collect();
        lineage.repeated = tree.repeated;
        lineage.more = tree.more;
        Some(lineage)
    }

    fn of_cell(graph: &Graph, cell: CellId) -> Option<Lineage> {
        let row = graph.cell_row(cell)?;
        Some(Lineage {
            key: Some(row.key.clone()),
            sid: Some(cell),
            state: Some(row.state),
            seq: graph.content_of(cell).map(|(seq, ..)| seq),
            priority: row.priority,
            ..Lineage::of_address(graph, row.slot, row.date, row.g)
        })
    }

    fn of_address(graph: &Graph, slot: SlotId, date: SlotDate, generation: u64) -> Lineage {
        Lineage {
            slot: slot_name(graph, slot),
            date,
            key: None,
            sid: None,
            state: None,
            generation,
            seq: None,
            priority: None,
            producer: None,
            input: None,
            mode: None,
            read: None,
            run: None,
            children: Vec::new(),
            repeated: false,
            more: 0,
        }
    }
}

impl View {
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
        self.why_within(slot, date, key, Extent::default())
    }

    /// As [`View::why`], so far and no further; what was left out is counted.
    ///
    /// # Errors
    /// As [`View::why`].
    pub fn why_within<V: Into<Value>>(
        &self,
        slot: &str,
        date: impl Into<SlotDate>,
        key: impl IntoIterator<Item = V>,
        extent: Extent,
    ) -> Result<Why, ReadError> {
        let key = Key::new(key.into_iter().map(Into::into).collect())?;
        let state = self.base().state();
        let unknown = || ReadError::UnknownSlot { slot: slot.to_string() };
        let id = state.graph.slot_by_name(slot).ok_or_else(unknown)?;
        state.graph.why_within(id, date.into(), &key, extent).ok_or_else(unknown)
    }

    /// What a producer has to do: its bundles counted by status, and why those that are not done are as they are.
    ///
    /// # Errors
    /// [`ReadError::UnknownProducer`] where it names none.
    pub fn why_producer(&self, producer: &str, extent: Extent) -> Result<Why, ReadError> {
        let id = self.producer_id(producer)?;
        let why = self.base().state().graph.why_producer(id, extent);
        why.ok_or_else(|| ReadError::UnknownProducer { producer: producer.to_string() })
    }

    /// Why the work of a producer on one bundle is as it is, or why there is none. The key has a value for each of
    /// [`View::bundle_columns`].
    ///
    /// # Errors
    /// [`ReadError::UnknownProducer`]; [`ReadError::Key`] where a key value is null, NaN or bytes.
    pub fn why_work<V: Into<Value>>(
        &self,
        producer: &str,
        date: impl Into<SlotDate>,
        key: impl IntoIterator<Item = V>,
        extent: Extent,
    ) -> Result<Why, ReadError> {
        let key = Key::new(key.into_iter().map(Into::into).collect())?;
        let id = self.producer_id(producer)?;
        let why = self.base().state().graph.why_work_at(id, date.into(), &key, extent);
        why.ok_or_else(|| ReadError::UnknownProducer { producer: producer.to_string() })
    }

    /// The cells that were made from a cell, and those made from them; `None` where there is no such cell.
    ///
    /// # Errors
    /// [`ReadError::UnknownSlot`]; [`ReadError::Key`] where a key value is null, NaN or bytes; [`ReadError::Graph`] where the
    /// key has not a value of its type for each cell key of the slot.
    pub fn downstream<V: Into<Value>>(
        &self,
        slot: &str,
        date: impl Into<SlotDate>,
        key: impl IntoIterator<Item = V>,
        extent: Extent,
    ) -> Result<Option<Lineage>, ReadError> {
        self.tree(slot, date.into(), key, |graph, cell| graph.downstream(cell, extent))
    }

    /// What a cell was made from, and what that was made from; `None` where there is no such cell.
    ///
    /// # Errors
    /// [`ReadError::UnknownSlot`]; [`ReadError::Key`] where a key value is null, NaN or bytes; [`ReadError::Graph`] where the
    /// key has not a value of its type for each cell key of the slot.
    pub fn upstream<V: Into<Value>>(
        &self,
        slot: &str,
        date: impl Into<SlotDate>,
        key: impl IntoIterator<Item = V>,
        extent: Extent,
    ) -> Result<Option<Lineage>, ReadError> {
        self.tree(slot, date.into(), key, |graph, cell| graph.upstream(cell, extent))
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
        let (_, cell) = cell_of(&state, slot, date, &key)?;
        Ok(cell.and_then(|cell| Lineage::of(&state.graph, &walk(&state.graph, cell)?)))
    }
}
