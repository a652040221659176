//! Tables of cells: their states, what they were made from, their rows.

use underbelly::{ReadError, SlotDate, SlotRow, State, TABLE_COLUMNS, View};

use crate::error::Failed;
use crate::output::{Field, FormatArg, Listing};

/// Whether a row has this date and state, where one is asked for.
fn is_wanted(row: &SlotRow, date: Option<SlotDate>, state: Option<State>) -> bool {
    date.is_none_or(|date| row.date == date) && state.is_none_or(|state| row.state == state)
}

/// Lists the cells of a slot by date and key.
pub(super) fn show(
    db: &View,
    name: &str,
    date: Option<SlotDate>,
    state: Option<State>,
    format: FormatArg,
) -> Result<(), Failed> {
    let names =
        ["SLOT_NAME", "DATE", "SLOT_KEY", "SID", "SSTATUS", "LAST_UPDATED", "PRODUCER", "PRIORITY", "FILE"];
    let table = db.slot_table(Some(name))?;
    let mut rows: Vec<SlotRow> = table.filter(|row| is_wanted(row, date, state)).collect();
    rows.sort_by(|a, b| (a.date, &a.key).cmp(&(b.date, &b.key)));
    let mut listing = Listing::begin(format.format, names)?;
    for row in rows {
        listing.row([
            row.slot.into(),
            Field::text(row.date),
            Field::text(row.key),
            u64::from(row.sid.0).into(),
            Field::text(row.state),
            Field::text(row.last_updated),
            row.producer.into(),
            row.priority.map(priority).into(),
            row.object.map(Field::text).into(),
        ])?;
    }
    listing.end(None)
}

fn priority(priority: i32) -> Field<'static> {
    Field::I64(priority.into())
}

/// SLOT_TABLE.
pub(super) fn cells(
    db: &View,
    name: Option<&str>,
    date: Option<SlotDate>,
    state: Option<State>,
    format: FormatArg,
) -> Result<(), Failed> {
    let rows = db.slot_table(name)?.filter(|row| is_wanted(row, date, state));
    let names = ["SLOT_NAME", "DATE", "SLOT_KEY", "SID", "SSTATUS", "FILE"];
    let mut listing = Listing::begin(format.format, names)?;
    for row in rows {
        listing.row([
            row.slot.into(),
            Field::text(row.date),
            Field::text(row.key),
            u64::from(row.sid.0).into(),
            Field::text(row.state),
            row.object.map(Field::text).into(),
        ])?;
    }
    listing.end(None)
}

/// SLOT_TREE.
pub(super) fn edges(db: &View, name: Option<&str>, format: FormatArg) -> Result<(), Failed> {
    let rows = db.slot_tree(name)?;
    let names = ["SID1", "SID2", "GENERATION", "PRODUCER", "INPUT", "PRIORITY"];
    let mut listing = Listing::begin(format.format, names)?;
    for row in rows {
        listing.row([
            u64::from(row.source.0).into(),
            u64::from(row.target.0).into(),
            row.generation.into(),
            row.producer.into(),
            row.input.into(),
            priority(row.priority),
        ])?;
    }
    listing.end(None)
}

/// The table of a slot.
pub(super) fn rows(db: &View, name: &str, date: Option<SlotDate>, format: FormatArg) -> Result<(), Failed> {
    let definitions = db.slots().into_iter().map(|slot| slot.definition);
    let is_named = |known: &str| known.replace('.', "_") == name.replace('.', "_");
    let definition = definitions.into_iter().find(|slot| is_named(&slot.name));
    let definition = definition.ok_or_else(|| ReadError::UnknownSlot { slot: name.to_string() })?;
    let mut cells = db.snapshot().slot_cells(&definition.name)?;
    if let Some(date) = date {
        cells = cells.of(date);
    }
    let names = TABLE_COLUMNS.into_iter().chain(definition.columns().map(|(name, _)| name.as_str()));
    let mut listing = Listing::begin(format.format, names)?;
    for cell in cells {
        let cell = cell?;
        for row in 0..cell.rows.rows() {
            let fixed = [
                Field::text(cell.date),
                u64::from(cell.sid.0).into(),
                Field::text(cell.last_updated),
                cell.producer.as_deref().into(),
                cell.priority.map(priority).into(),
            ];
            let keys = cell.key.values().iter().map(Field::of_value);
            let columns = cell.rows.iter().map(|(_, column)| Field::of(column, row));
            listing.row(fixed.into_iter().chain(keys).chain(columns))?;
        }
    }
    listing.end(None)
}
