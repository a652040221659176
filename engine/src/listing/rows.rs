//! The table of each slot: the rows of its cells.

use std::vec::IntoIter;

use underbelly_storage::object::ObjectId;
use underbelly_storage::{Columns, Timestamp};

use super::page::PAGE;
use crate::error::ReadError;
use crate::graph::{CellId, Key, SlotDate, SlotId};
use crate::slots::content;
use crate::snapshot::Snapshot;

/// The columns that the table of each slot has before the slot's own.
pub const TABLE_COLUMNS: [&str; 5] = ["DATE", "SID", "LAST_UPDATED", "PRODUCER", "PRIORITY"];

/// The rows of one cell, as part of its slot's table. Capitals name the columns that every slot's table has, before the
/// slot's keys and values.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SlotCell {
    /// DATE
    pub date: SlotDate,
    /// SID
    pub sid: CellId,
    /// LAST_UPDATED, as of now.
    pub last_updated: Timestamp,
    /// PRODUCER of the contents, or `client`, as of now.
    pub producer: Option<String>,
    /// PRIORITY of the contents, as of now.
    pub priority: Option<i32>,
    /// The values of the cell keys.
    pub key: Key,
    /// The generation of these rows.
    pub generation: u64,
    /// Row keys, then values, sorted by row key.
    pub rows: Columns,
}

/// The cells of a slot that have contents, in order of their SIDs. Made by [`Snapshot::slot_cells`].
pub struct SlotCells {
    snapshot: Snapshot,
    slot: SlotId,
    date: Option<SlotDate>,
    next: usize,
    page: IntoIter<(SlotCell, ObjectId)>,
    has_more: bool,
}

impl SlotCells {
    /// The cells alone that have this date.
    pub fn of(mut self, date: impl Into<SlotDate>) -> SlotCells {
        self.date = Some(date.into());
        self
    }

    fn turn_page(&mut self) {
        let mut page = Vec::new();
        let state = self.snapshot.base().state();
        let before = self.next;
        for sid in state.graph.cells_from(Some(self.slot), self.next).take(PAGE) {
            self.next += 1;
            let Some(row) = state.graph.cell_row(sid) else { continue };
            if self.date.is_some_and(|date| date != row.date) {
                continue;
            }
            let Some(version) = state.cell_at(sid, self.snapshot.seq()) else { continue };
            let Some(object) = version.content else { continue };
            let cell = SlotCell {
                date: row.date,
                sid,
                last_updated: row.changed_at,
                producer: row.producer.map(str::to_string),
                priority: row.priority,
                key: row.key.clone(),
                generation: version.g,
                rows: Columns::new(),
            };
            page.push((cell, object));
        }
        self.has_more = self.next - before == PAGE;
        self.page = page.into_iter();
    }
}

impl Iterator for SlotCells {
    type Item = Result<SlotCell, ReadError>;

    fn next(&mut self) -> Option<Result<SlotCell, ReadError>> {
        loop {
            if let Some((cell, object)) = self.page.next() {
                let rows = self.snapshot.base().objects.get(&object).and_then(|blob| {
                    content::decode(&blob)
                        .map_err(|what| ReadError::Contents { object: object.to_string(), what })
                });
                return Some(rows.map(|rows| SlotCell { rows, ..cell }));
            }
            if !self.has_more {
                return None;
            }
            self.turn_page();
        }
    }
}

impl Snapshot {
    /// The table of a slot: its cells that have contents, each with its rows, in order of their SIDs. The slot may be
    /// named as its table is: with `_` for each `.`. Contents are read as the iterator goes on.
    ///
    /// # Errors
    /// [`ReadError::UnknownSlot`]. The iterator answers [`ReadError::Storage`], [`ReadError::MissingObject`] or
    /// [`ReadError::Contents`] for a cell whose contents are damaged or cannot be read, and goes on behind it.
    pub fn slot_cells(&self, slot: &str) -> Result<SlotCells, ReadError> {
        let found = self.base().state().graph.slot_by_table(slot);
        let slot = found.ok_or_else(|| ReadError::UnknownSlot { slot: slot.to_string() })?;
        let (snapshot, page) = (self.clone(), Vec::new().into_iter());
        Ok(SlotCells { snapshot, slot, date: None, next: 0, page, has_more: true })
    }
}
