//! The rows of a CSV file as the contents of a cell.

use std::path::Path;

use underbelly::{Batch, ColumnType, Columns, Database, SlotDate, SlotDefinition, Value, View};

use crate::error::Failed;
use crate::import::{Cells, Lines, Problem, Source};
use crate::output::{Facts, Field, FormatArg, Listing};
use crate::time::{InstantReader, Notation, Unit, without_options};

/// Commits the rows.
pub(super) fn run(
    db: &Database,
    slot: &str,
    date: SlotDate,
    key: Vec<Value>,
    rows: Columns,
    format: FormatArg,
) -> Result<(), Failed> {
    let count = rows.rows();
    let mut batch = Batch::new();
    batch.put_slot(slot, date, key, rows);
    let commit = db.commit(batch)?;
    let mut facts = Facts::default();
    facts.add("slot", slot.to_string()).add("date", Field::text(date)).add("rows", count);
    facts.add("seq", commit.seq).add("changed", commit.changed).add("woken", commit.woken);
    facts.print(format.format)
}

/// Says what the commit of the rows would do.
pub(super) fn explain(
    view: &View,
    slot: &str,
    date: SlotDate,
    key: Vec<Value>,
    rows: Columns,
    format: FormatArg,
) -> Result<(), Failed> {
    let mut batch = Batch::new();
    batch.put_slot(slot, date, key, rows);
    let explained = view.explain_commit(&batch)?;
    let names = ["WHAT", "NAME", "DATE", "KEY", "FROM", "TO"];
    let mut listing = Listing::begin(format.format, names)?;
    for cell in explained.cells {
        let what = match (cell.from, cell.changed) {
            (None, _) => "made",
            (Some(_), true) => "changed",
            (Some(_), false) => "state",
        };
        let (from, to) = (cell.from.map(Field::text).into(), Field::text(cell.to));
        listing.row([
            Field::text(what),
            cell.slot.into(),
            Field::text(cell.date),
            Field::text(cell.key),
            from,
            to,
        ])?;
    }
    let work = explained.runs.into_iter().map(|work| ("runs", work));
    for (what, work) in work.chain(explained.may_run.into_iter().map(|work| ("may run", work))) {
        let (date, key) = (Field::text(work.date), Field::text(work.key));
        listing.row([Field::text(what), work.producer.into(), date, key, Field::Null, Field::Null])?;
    }
    for producer in explained.may_get_work {
        let nothing = [Field::Null, Field::Null, Field::Null, Field::Null];
        listing.row([Field::text("may get work"), producer.into()].into_iter().chain(nothing))?;
    }
    listing.end(None)
}

pub(super) fn read(
    slot: &SlotDefinition,
    file: &Path,
    nulls: &[String],
    delimiter: u8,
) -> Result<Columns, Failed> {
    let source = Source::new(file, delimiter)?;
    let mut lines = source.open(&indicatif::ProgressBar::hidden())?;
    let mut columns: Vec<(String, ColumnType, Cells)> = Vec::new();
    for name in lines.names() {
        let mut known = slot.row_keys.iter().chain(&slot.values);
        let Some((name, column_type)) = known.find(|(known, _)| known == name) else {
            let known = slot.row_keys.iter().chain(&slot.values);
            let names: Vec<&str> = known.map(|(name, _)| name.as_str()).collect();
            return Err(Failed::input(
                file,
                format!(
                    "slot {:?} has no column {name:?}; its columns are {}; rename or remove it",
                    slot.name,
                    names.join(", ")
                ),
            ));
        };
        let notation = Notation { unit: Unit::of_name(name), ..Notation::default() };
        let cells = Cells::new(&(*column_type).into(), InstantReader::new(notation));
        columns.push((name.clone(), *column_type, cells));
    }
    while lines.advance()? {
        line(&lines, &mut columns, nulls).map_err(|problem| problem.at(&lines))?;
    }
    let mut rows = Columns::new();
    for (name, column_type, mut cells) in columns {
        let column = cells.take().ok_or_else(|| {
            Failed::input(
                file,
                format!("column {name:?} of {column_type} did not come together; please report it"),
            )
        })?;
        rows.insert(name, column)?;
    }
    Ok(rows)
}

fn line(lines: &Lines, columns: &mut [(String, ColumnType, Cells)], nulls: &[String]) -> Result<(), Problem> {
    lines.check_width()?;
    for (field, ((_, _, cells), text)) in columns.iter_mut().zip(lines.record()).enumerate() {
        if text.is_empty() || nulls.iter().any(|null| null.as_bytes() == text) {
            cells.push_null();
        } else {
            cells
                .push(text)
                .map_err(|what| Problem::field(field, without_options(&what.replace(WITH_COLUMNS, ""))))?;
        }
    }
    Ok(())
}

/// What an import may do and a slot, whose types are defined, may not.
const WITH_COLUMNS: &str = " or give the column another type with --columns";
