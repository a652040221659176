//! `ubctl slot`: small datasets whose cells have a state.

mod key;
mod put;
mod table;

use std::path::Path;

use clap::Subcommand;
use underbelly::{Database, ReadError, SlotDate, SlotDefinition, State, Value, View};

use crate::error::Failed;
use crate::output::{Facts, Field, Format, FormatArg, Listing};
use crate::time::parse_slot_date;
use crate::tree::{self, TreeArgs};
use crate::write;
pub(crate) use key::{parse_key, parse_typed};

/// Small datasets whose cells have a state.
#[derive(Subcommand, Debug)]
pub(crate) enum Slot {
    /// Lists the slots with their cells counted by state
    Ls(FormatArg),
    /// Lists the cells of a slot with their states
    Show {
        /// The slot
        name: String,
        /// Only cells of this date
        #[arg(long, value_parser = parse_slot_date, allow_negative_numbers = true)]
        date: Option<SlotDate>,
        /// Only cells in this state: void, updated, pending, current, stale or invalid
        #[arg(long, value_parser = parse_state)]
        state: Option<State>,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Lists the cells of all slots, or of one, as SLOT_TABLE
    Table {
        /// The slot
        name: Option<String>,
        /// Only cells of this date
        #[arg(long, value_parser = parse_slot_date, allow_negative_numbers = true)]
        date: Option<SlotDate>,
        /// Only cells in this state: void, updated, pending, current, stale or invalid
        #[arg(long, value_parser = parse_state)]
        state: Option<State>,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Lists which cell was made from which, as SLOT_TREE
    ///
    /// SID2 was made from SID1. GENERATION is the one that was read; it is empty where SID1 came after the last run.
    Tree {
        /// Only cells of this slot that were made
        name: Option<String>,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Lists the rows of all cells of a slot
    Rows {
        /// The slot, or its table: the name with `_` for each `.`
        name: String,
        /// Only cells of this date
        #[arg(long, value_parser = parse_slot_date, allow_negative_numbers = true)]
        date: Option<SlotDate>,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Shows the rows of a cell
    Get {
        #[command(flatten)]
        cell: Cell,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Puts the rows of a CSV file into a cell, in place of those that it had
    ///
    /// The columns are the slot's row keys and values; a value column that is left out is null, and so is an empty
    /// field. Where the slot has no cell keys, KEY is left out. In KEY, `\` stands before a `/` or `\` of a value, and
    /// `--` before a KEY that begins with `-`.
    Put {
        /// The slot
        name: String,
        /// The day (2014-06-02) or instant
        #[arg(value_parser = parse_slot_date, allow_negative_numbers = true)]
        date: SlotDate,
        /// The values of the cell keys joined by `/`, and the CSV file, plain or gzip'd
        #[arg(num_args = 1..=2, required = true, value_names = ["KEY", "FILE"], allow_negative_numbers = true)]
        key_and_file: Vec<String>,
        /// Texts that stand for null, besides the empty one
        #[arg(long, value_delimiter = ',', value_name = "TEXT,...")]
        null: Vec<String>,
        /// What stands between fields: one ASCII character, or `tab`
        #[arg(long, default_value = ",", value_parser = crate::import::parse_delimiter, value_name = "CHAR")]
        delimiter: u8,
        /// Say what the commit would make stale and run, and commit nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Takes back what a cell has at a priority, whoever gave it
    ///
    /// A producer gives it again where one of its inputs changes, or where it is forced to.
    Retract {
        #[command(flatten)]
        cell: Cell,
        /// The priority
        #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
        priority: i32,
    },
    /// Explains the state of a cell, or why there is none
    Why {
        #[command(flatten)]
        cell: Cell,
        #[command(flatten)]
        extent: TreeArgs,
    },
    /// Shows the cells that were made from a cell
    Downstream {
        #[command(flatten)]
        cell: Cell,
        #[command(flatten)]
        extent: TreeArgs,
    },
    /// Shows the cells that a cell was made from
    Upstream {
        #[command(flatten)]
        cell: Cell,
        #[command(flatten)]
        extent: TreeArgs,
    },
}

/// A cell by its address.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Cell {
    /// The slot
    name: String,
    /// The day (2014-06-02) or instant
    #[arg(value_parser = parse_slot_date, allow_negative_numbers = true)]
    date: SlotDate,
    /// The values of the cell keys joined by `/`; `\` stands before a `/` or `\` of a value, `--` before a key that
    /// begins with `-`
    #[arg(allow_negative_numbers = true)]
    key: Option<String>,
}

impl Cell {
    /// The values of its key.
    fn key(&self, db: &View) -> Result<Vec<Value>, Failed> {
        key::parse(&definition(db, &self.name)?, self.key.as_deref())
    }

    /// That there is no such cell.
    fn missing(&self) -> Failed {
        let (name, date, key) = (&self.name, self.date, self.key.as_deref().unwrap_or_default());
        Failed::NotFound(format!(
            "slot {name:?} has no cell for {date} {key:?}; `ubctl slot why` explains it"
        ))
    }
}

pub(crate) fn parse_state(text: &str) -> Result<State, String> {
    let names = || State::ALL.map(State::name).join(", ");
    State::from_name(&text.to_ascii_lowercase()).ok_or_else(|| format!("the states are {}", names()))
}

/// A slot's definition by its name.
fn definition(db: &View, name: &str) -> Result<SlotDefinition, Failed> {
    let found = db.slots().into_iter().map(|slot| slot.definition).find(|slot| slot.name == name);
    found.ok_or_else(|| ReadError::UnknownSlot { slot: name.to_string() }.into())
}

impl Slot {
    pub(crate) fn run(&self, dir: &Path) -> Result<(), Failed> {
        match self {
            Slot::Put { name, date, key_and_file, null, delimiter, dry_run, format } => {
                let (key, file) = match key_and_file.as_slice() {
                    [key, file] => (Some(key.as_str()), file),
                    [file] => (None, file),
                    _ => return Err(Failed::Usage("say KEY and FILE, or FILE alone".to_string())),
                };
                let rows = |view: &View| {
                    let definition = definition(view, name)?;
                    let key = key::parse(&definition, key)?;
                    let rows = put::read(&definition, Path::new(file), null, *delimiter)?;
                    Ok::<_, Failed>((key, rows))
                };
                if *dry_run {
                    let view = Database::open_read_only(dir)?;
                    let (key, rows) = rows(&view)?;
                    return put::explain(&view, name, *date, key, rows, *format);
                }
                let db = write(dir)?;
                let (key, rows) = rows(&db)?;
                put::run(&db, name, *date, key, rows, *format)
            }
            Slot::Retract { cell, priority } => {
                let db = write(dir)?;
                let key = cell.key(&db)?;
                let commit = db.retract(&cell.name, cell.date, key, *priority)?;
                let mut facts = Facts::default();
                facts.add("slot", cell.name.clone()).add("date", Field::text(cell.date));
                facts.add("priority", Field::I64(i64::from(*priority))).add("seq", commit.seq);
                facts.print(Format::Table)
            }
            reading => reading.read(&*Database::open_read_only(dir)?),
        }
    }

    /// What changes nothing.
    fn read(&self, db: &View) -> Result<(), Failed> {
        match self {
            Slot::Put { .. } | Slot::Retract { .. } => Ok(()),
            Slot::Ls(format) => list(db, *format),
            Slot::Show { name, date, state, format } => table::show(db, name, *date, *state, *format),
            Slot::Table { name, date, state, format } => {
                table::cells(db, name.as_deref(), *date, *state, *format)
            }
            Slot::Tree { name, format } => table::edges(db, name.as_deref(), *format),
            Slot::Rows { name, date, format } => table::rows(db, name, *date, *format),
            Slot::Get { cell, format } => {
                let Cell { name, date, .. } = cell;
                let key = cell.key(db)?;
                let found = db.snapshot().slot(name, *date, key)?;
                let found = found.ok_or_else(|| {
                    let key = cell.key.as_deref().unwrap_or_default();
                    Failed::NotFound(format!(
                        "slot {name:?} has no data for {date} {key:?}; `ubctl slot why` explains it"
                    ))
                })?;
                let mut listing =
                    Listing::begin(format.format, found.rows.names().iter().map(|name| &**name))?;
                for row in 0..found.rows.rows() {
                    listing.row(found.rows.iter().map(|(_, column)| Field::of(column, row)))?;
                }
                listing.end(None)
            }
            Slot::Why { cell, extent } => {
                let key = cell.key(db)?;
                tree::why(&db.why_within(&cell.name, cell.date, key, extent.extent())?, extent.format)
            }
            Slot::Downstream { cell, extent } => {
                let found = db.downstream(&cell.name, cell.date, cell.key(db)?, extent.extent())?;
                tree::downstream(&found.ok_or_else(|| cell.missing())?, extent.format)
            }
            Slot::Upstream { cell, extent } => {
                let found = db.upstream(&cell.name, cell.date, cell.key(db)?, extent.extent())?;
                tree::upstream(&found.ok_or_else(|| cell.missing())?, extent.format)
            }
        }
    }
}

fn list(db: &View, format: FormatArg) -> Result<(), Failed> {
    let names = ["slot", "cell_keys", "row_keys", "values", "cells"].into_iter();
    let names = names.chain(State::ALL.map(State::name)).chain(["worst"]);
    let mut listing = Listing::begin(format.format, names)?;
    for slot in db.slots() {
        let definition = slot.definition;
        let columns = |columns: &[(String, underbelly::ColumnType)]| {
            let columns: Vec<String> = columns.iter().map(|(name, t)| format!("{name} {t}")).collect();
            Field::from(columns.join(", "))
        };
        let (keys, rows) = (columns(&definition.cell_keys), columns(&definition.row_keys));
        let values = columns(&definition.values);
        let counts = State::ALL.map(|state| Field::from(slot.states.of(state)));
        let worst = slot.states.worst().map(Field::text).into();
        let fields = [definition.name.into(), keys, rows, values, slot.states.total().into()];
        listing.row(fields.into_iter().chain(counts).chain([worst]))?;
    }
    listing.end(None)
}
