//! What the integration tests have in common: settings, a transaction that touches every kind of data, and a text
//! that says everything that a database shows.

pub mod desk;
pub mod sample;
pub mod simulator;
pub mod soak;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use underbelly::{
    Batch, Column, ColumnType, Columns, CommitError, Database, Date, Delete, Host, Metadata, OpenError,
    Options, ReadError, Row, SchemaError, Scope, SimulatedDisk, SlotDefinition, Snapshot, Timestamp, Value,
    Variable, VariableValue, View,
};

/// The slot that [`transaction`] writes.
pub const BOOK: &str = "Desk.Book";
/// Cells of [`BOOK`] that [`transaction`] writes in turn.
pub const CELLS: u64 = 5;
/// Models that [`transaction`] writes in turn.
pub const MODELS: u64 = 4;

/// The name of the variables that processes read beside one that sets them.
pub const ARRAY: &str = "array";
/// What these hold: as many places as a variable may have.
pub type Places = [f64; 512];

/// Settings with small log files and no checkpoints but those that are asked for.
pub fn options() -> Options {
    let host = Some(Host { machine: "quill".to_string(), process: 1 });
    Options { log_file_bytes: 64 << 10, workers: 2, host, ..Options::default() }
}

/// A database in memory.
pub fn in_memory() -> Result<(SimulatedDisk, Database), OpenError> {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options())?;
    Ok((disk, db))
}

/// The day of all cells that [`transaction`] writes.
pub fn day() -> Date {
    Date(20_000)
}

/// A slot with one text key and one whole number in each cell.
pub fn counter_slot(name: &str) -> SlotDefinition {
    SlotDefinition::new(name).cell_key("name", ColumnType::Utf8).value("n", ColumnType::I64)
}

/// One row of one column.
pub fn one(column: &str, value: impl Into<Value>) -> Result<Columns, CommitError> {
    let value = value.into();
    let column_type = value.column_type().unwrap_or(ColumnType::I64);
    let mut columns = Columns::with_types([(column, column_type)])?;
    columns.push_row(&[value])?;
    Ok(columns)
}

/// Makes what [`transaction`] needs, if it is not there.
pub fn define(db: &Database) -> Result<(), SchemaError> {
    db.define_slot(counter_slot(BOOK))
}

/// The identity of the model that transaction `i` writes.
pub fn model_of(i: u64) -> Metadata {
    let at = Timestamp(i as i64);
    Metadata::new("smile").with("desk", (i % MODELS) as i64).with("timestamp", at)
}

/// The blob of the model that transaction `i` writes; `large` ones pass the size that fits into the log.
pub fn blob_of(i: u64, large: bool) -> Vec<u8> {
    let bytes = if large { (1 << 20) + 100 } else { 300 };
    i.to_le_bytes().into_iter().cycle().take(bytes).collect()
}

/// Rows of one large append: more than fits into the log.
pub const BULK_ROWS: usize = 70_000;

/// Variables that [`transaction`] changes in turn.
pub const VARIABLES: u64 = 3;

/// The scope of the variables that [`transaction`] changes.
pub fn episode() -> Scope {
    Scope::episode("script")
}

/// Whether transaction `i` removes its variable rather than sets it.
fn removes_variable(i: u64) -> bool {
    i % 4 == 3
}

/// The identity of the model that every transaction puts or deletes.
fn passing_model() -> Metadata {
    Metadata::new("passing").with("timestamp", Timestamp(0))
}

/// Whether transaction `i` deletes the passing model rather than puts a version of it.
fn deletes_model(i: u64) -> bool {
    i % 5 == 4
}

/// The key of the rows that transaction `i` appends to the series of which others delete, and those that it deletes of
/// it: by key or by time. What it appends itself stays.
fn fleeting(i: u64) -> (String, Option<Delete>) {
    let key = format!("k{}", i % 3);
    let delete = match i % 7 {
        2 => Some(Delete::all().key("who", key.as_str())),
        5 => Some(Delete::all().from(Timestamp(i as i64 - 3))),
        _ => None,
    };
    (key, delete)
}

/// Transactions up to `ticks` whose fleeting rows no later one deletes.
fn left_of_fleeting(ticks: u64) -> Vec<i64> {
    let deletes = |i: u64, row: u64| match i % 7 {
        2 => i % 3 == row % 3,
        5 => row + 3 >= i,
        _ => false,
    };
    let stays = |row: &u64| !(row + 1..=ticks).any(|i| deletes(i, *row));
    (1..=ticks).filter(stays).map(|row| row as i64).collect()
}

/// Transaction `i` of a script: rows, a cell, models and a variable, all holding `i`, and deletes of rows and models; with `large`, a large blob and a
/// large append too.
pub fn transaction(i: u64, large: bool) -> Result<Batch, CommitError> {
    let at = Timestamp(i as i64);
    let mut batch = Batch::new();
    batch.append(Row::new("tick", at).key("who", format!("k{}", i % 3)).field("x", i as i64))?;
    let (key, delete) = fleeting(i);
    batch.append(Row::new("fleeting", at).key("who", key).field("x", i as i64))?;
    if let Some(delete) = delete {
        batch.delete_rows("fleeting", delete);
    }
    batch.put_slot(BOOK, day(), [format!("c{}", i % CELLS)], one("n", i as i64)?);
    batch.put_model(model_of(i), blob_of(i, large));
    match deletes_model(i) {
        true => drop(batch.delete_model(&passing_model())?),
        false => drop(batch.put_model(passing_model(), i.to_le_bytes().to_vec())),
    }
    let name = format!("v{}", i % VARIABLES);
    match removes_variable(i) {
        true => batch.remove_variable(episode(), &name),
        false => batch.set_variable(episode(), &name, i as i64),
    };
    if large {
        let times = (0..BULK_ROWS).map(|row| Timestamp(row as i64)).collect();
        let columns = Columns::new().with("x", Column::from(vec![i as i64; BULK_ROWS]))?;
        batch.append_columns("bulk", times, columns, &[])?;
    }
    Ok(batch)
}

/// Which transactions are large where a process that may be killed writes the script.
pub fn large_in_script(i: u64) -> bool {
    i.is_multiple_of(40)
}

/// How many of the script's transactions a snapshot shows, after checking that each of them is there with all its
/// parts and nothing else is. `large` says which transactions were large.
///
/// # Panics
/// Where a part is missing, is another's, or stands alone.
pub fn transactions_shown(snapshot: &Snapshot, large: impl Fn(u64) -> bool) -> Result<u64, ReadError> {
    let ticks = match snapshot.series("tick") {
        Err(ReadError::UnknownSeries { .. }) => 0,
        series => {
            let rows = series?.range(Timestamp::MIN, Timestamp::MAX)?;
            let x = rows.i64s("x").unwrap_or_default();
            assert!(x.iter().copied().eq(1..=x.len() as i64), "ticks are no prefix: {x:?}");
            rows.rows() as u64
        }
    };
    for cell in 0..CELLS {
        let newest = (1..=ticks).rev().find(|i| i % CELLS == cell);
        let found = match snapshot.slot(BOOK, day(), [format!("c{cell}")]) {
            Err(ReadError::UnknownSlot { .. }) => None,
            found => found?,
        };
        let found = found.map(|cell| cell.rows.i64s("n").unwrap_or_default().to_vec());
        assert_eq!(found, newest.map(|i| vec![i as i64]), "cell {cell} after {ticks} transactions");
    }
    for model in 0..MODELS {
        let written: Vec<u64> = (1..=ticks).filter(|i| i % MODELS == model).collect();
        let found = snapshot.model(&model_of(model))?;
        let shown = found.as_ref().map(|found| found.info().version);
        assert_eq!(shown, (!written.is_empty()).then_some(written.len() as u64), "versions of model {model}");
        if let (Some(found), Some(newest)) = (&found, written.last()) {
            let as_put = *found.blob()? == *blob_of(*newest, large(*newest));
            assert!(as_put, "model {model} is not that of transaction {newest}");
        }
    }
    if ticks > 0 {
        let series = snapshot.series("fleeting")?;
        let rows = series.range(Timestamp::MIN, Timestamp::MAX)?;
        let left = left_of_fleeting(ticks);
        assert_eq!(rows.i64s("x"), Some(&*left), "fleeting rows after {ticks} transactions");
        assert_eq!(series.count()?, left.len() as u64);
    }
    let since = (1..=ticks).rev().find(|i| deletes_model(*i)).unwrap_or(0);
    let passing = snapshot.model(&passing_model())?;
    let passing = match passing {
        Some(model) => Some((model.info().version, model.blob()?.to_vec())),
        None => None,
    };
    let expected = (since < ticks).then(|| (ticks - since, ticks.to_le_bytes().to_vec()));
    assert_eq!(passing, expected, "the passing model after {ticks} transactions");
    for variable in 0..VARIABLES {
        let newest = (1..=ticks).rev().find(|i| i % VARIABLES == variable);
        let found = snapshot.variable(&episode(), &format!("v{variable}"))?.map(|found| found.value);
        let expected = newest.filter(|i| !removes_variable(*i)).map(|i| VariableValue::I64(i as i64));
        assert_eq!(found, expected, "variable {variable} after {ticks} transactions");
    }
    let bulks: Vec<u64> = (1..=ticks).filter(|i| large(*i)).collect();
    let rows = match snapshot.series("bulk") {
        Err(ReadError::UnknownSeries { .. }) => 0,
        series => series?.count()?,
    };
    assert_eq!(rows, (bulks.len() * BULK_ROWS) as u64, "rows of large appends");
    if !bulks.is_empty() {
        let first = snapshot.series("bulk")?.range(Timestamp(0), Timestamp(1))?;
        let expected: Vec<i64> = bulks.iter().map(|i| *i as i64).collect();
        assert_eq!(first.i64s("x"), Some(&*expected), "tied rows of large appends");
    }
    Ok(ticks)
}

/// Everything that a database shows, by name, as text: rows of each series but the engine's own, in order; its
/// newest rows by key; cells with their contents and generations; models with their versions and blobs; variables.
pub fn shown(db: &View) -> Result<BTreeMap<String, String>, ReadError> {
    let cells: Vec<_> =
        db.slot_table(None)?.map(|row| (row.slot, row.date, row.key.values().to_vec())).collect();
    shown_by(&db.snapshot(), &cells)
}

/// The address of a cell.
pub type Address = (String, underbelly::SlotDate, Vec<Value>);

/// The same of a snapshot, for these cells.
pub fn shown_by(snapshot: &Snapshot, cells: &[Address]) -> Result<BTreeMap<String, String>, ReadError> {
    let mut all = BTreeMap::new();
    for name in snapshot.series_names().into_iter().filter(|name| !name.starts_with('_')) {
        let series = snapshot.series(&name)?;
        all.insert(format!("series {name}"), text_of(&series.scan().collect()?));
        all.insert(format!("last of {name}"), text_of(&series.last_points()?));
        all.insert(format!("newest of {name}"), text_of(&series.latest(3, &[])?));
        all.insert(format!("bounds of {name}"), format!("{:?}", series.bounds()?));
    }
    for (slot, date, key) in cells {
        let cell = snapshot.slot(slot, *date, key.clone())?;
        let text = cell.map(|cell| format!("g{} seq{} {}", cell.generation, cell.seq, text_of(&cell.rows)));
        all.insert(format!("cell {slot} {date} {key:?}"), text.unwrap_or_default());
    }
    for info in snapshot.models() {
        let model = snapshot.model(info.metadata())?;
        let blob = match model {
            Some(model) => {
                Some((model.blob()?.len(), model.blob()?.iter().map(|b| u64::from(*b)).sum::<u64>()))
            }
            None => None,
        };
        let text = format!("v{} seq{} {} {blob:?}", info.version, info.seq, info.metadata().to_json());
        all.insert(format!("model {}", info.id), text);
    }
    for Variable { scope, name, value, seq, .. } in snapshot.variables() {
        all.insert(format!("variable {scope} {name}"), format!("{value:?} seq{seq}"));
    }
    Ok(all)
}

/// Columns as text: names, types and all values. Long ones end in the hash of the rest.
pub fn text_of(columns: &Columns) -> String {
    // One buffer for all values: a test that reads a database some ten thousand times takes half the time for it.
    let (mut text, mut value) = (String::new(), String::new());
    // FNV-1a, which is the same in every release of the standard library.
    let mut rest = 0xcbf2_9ce4_8422_2325u64;
    for (name, column) in columns.iter() {
        let _ = write!(text, "{name}:{}", column.column_type());
        for row in 0..column.len() {
            value.clear();
            let _ = write!(value, " {:?}", column.get(row));
            if row < 100 {
                text.push_str(&value);
            } else {
                let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
                rest = value.bytes().fold(rest, mix);
            }
        }
        let _ = writeln!(text);
    }
    let _ = write!(text, "{} rows {rest:x}", columns.rows());
    text
}

/// Numbers that look random and are the same in each run.
pub struct Numbers(u64);

impl Numbers {
    /// From a seed.
    pub fn new(seed: u64) -> Numbers {
        Numbers(seed)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}
