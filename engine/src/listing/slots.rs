//! Slots with their cells counted, and the table of cells.

use underbelly_storage::Timestamp;
use underbelly_storage::object::ObjectId;

use super::slot_name;
use crate::error::ReadError;
use crate::graph::{CellId, CellInfo, Key, SlotDate, SlotDefinition, State, StateCounts};
use crate::view::View;

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
}
