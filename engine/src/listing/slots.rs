//! Slots with their cells counted, and SLOT_TABLE.

use underbelly_storage::Timestamp;
use underbelly_storage::object::ObjectId;

use super::page::{PAGE, Rows};
use super::slot_name;
use crate::error::ReadError;
use crate::graph::{CellId, Graph, Key, SlotDate, SlotDefinition, SlotId, State, StateCounts};
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

/// A row of SLOT_TABLE: one cell. Capitals name the columns.
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

impl SlotRow {
    fn of(graph: &Graph, sid: CellId) -> Option<SlotRow> {
        let row = graph.cell_row(sid)?;
        Some(SlotRow {
            slot: slot_name(graph, row.slot),
            date: row.date,
            key: row.key.clone(),
            sid,
            state: row.state,
            object: row.content.map(ObjectId),
            producer: row.producer.map(str::to_string),
            priority: row.priority,
            last_updated: row.changed_at,
            generation: row.g,
            error: row.error.map(str::to_string),
        })
    }
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

    /// SLOT_TABLE: the cells of one slot, or of all, in order of their SIDs.
    ///
    /// # Errors
    /// [`ReadError::UnknownSlot`] where `slot` names none.
    pub fn slot_table(&self, slot: Option<&str>) -> Result<Rows<SlotRow>, ReadError> {
        let slot = self.slot_id(slot)?;
        let mut next = 0;
        Ok(Rows::new(self, move |graph, rows| {
            let before = next;
            for cell in graph.cells_from(slot, next).take(PAGE) {
                next += 1;
                rows.extend(SlotRow::of(graph, cell));
            }
            next - before == PAGE
        }))
    }

    /// The slot of a name, where one is given.
    pub(super) fn slot_id(&self, name: Option<&str>) -> Result<Option<SlotId>, ReadError> {
        let Some(name) = name else { return Ok(None) };
        let found = self.base().state().graph.slot_by_name(name);
        found.map(Some).ok_or_else(|| ReadError::UnknownSlot { slot: name.to_string() })
    }
}
