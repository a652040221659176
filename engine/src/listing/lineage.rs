//! Why a cell is as it is, what it was made from and what was made from it.

use underbelly_storage::Value;

use super::slot_name;
use crate::error::ReadError;
use crate::graph::{CellId, Graph, Key, SlotDate, State, Tree, Why};
use crate::view::View;

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
}
