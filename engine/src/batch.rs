//! What a caller hands over to be committed at once.

use std::collections::HashMap;
use std::sync::Arc;

use underbelly_query::{Schema, SchemaColumn};
use underbelly_storage::{
    Column, ColumnError, ColumnType, Columns, Decimal, LogicalType, LogicalTypes, Strings, Timestamp, Value,
    Values,
};

use crate::durability::Durability;
use crate::error::CommitError;
use crate::graph::{SlotDate, Stamp};
use crate::limits::OPERATIONS_MAX;
use crate::models::{Body, MarkChange, Metadata, ModelId, ModelName, StoredBlob};
use crate::series::Delete;
use crate::variables::{Change, Name, Scope, VariableValue};

/// One row for a series.
///
/// ```
/// use underbelly::{Row, Timestamp};
/// let row = Row::new("trade", Timestamp(0)).key("symbol", "IBM").field("price", 182.1).field("size", 100);
/// # let _ = row;
/// ```
#[derive(Clone, Debug)]
pub struct Row {
    series: Arc<str>,
    timestamp: Timestamp,
    /// Keys, then fields.
    columns: Vec<(Arc<str>, Value)>,
    keys: usize,
    types: LogicalTypes,
}

impl Row {
    /// A row of the series type `series` at an instant.
    pub fn new(series: impl Into<Arc<str>>, timestamp: Timestamp) -> Row {
        Row { series: series.into(), timestamp, columns: Vec::new(), keys: 0, types: LogicalTypes::new() }
    }

    /// A key column: part of what the row is about.
    pub fn key(mut self, name: impl Into<Arc<str>>, value: impl Into<Value>) -> Row {
        self.columns.insert(self.keys, (name.into(), value.into()));
        self.keys += 1;
        self
    }

    /// A field: what was observed.
    pub fn field(mut self, name: impl Into<Arc<str>>, value: impl Into<Value>) -> Row {
        self.columns.push((name.into(), value.into()));
        self
    }

    /// A field that is a decimal. A column of decimals has one scale; what is given with another is refused.
    ///
    /// ```
    /// use underbelly::{Decimal, Row, Timestamp};
    /// let row = Row::new("trade", Timestamp(0)).decimal("price", Decimal::parse("182.10", 2)?);
    /// # let _ = row;
    /// # Ok::<(), underbelly::DecimalError>(())
    /// ```
    pub fn decimal(self, name: impl Into<Arc<str>>, value: Decimal) -> Row {
        let name = name.into();
        self.field(name.clone(), value.unscaled()).typed(name, LogicalType::Decimal(value.scale()))
    }

    /// A field that is a decimal, read from a text: exactly, or not at all.
    ///
    /// # Errors
    /// [`CommitError::Decimal`] where the text is none, digits would be lost, it does not fit in 64 bits or there is no such scale.
    pub fn decimal_text(self, name: impl Into<Arc<str>>, text: &str, scale: u8) -> Result<Row, CommitError> {
        let name = name.into();
        match Decimal::parse(text, scale) {
            Ok(value) => Ok(self.decimal(name, value)),
            Err(problem) => Err(CommitError::Decimal { column: name.to_string(), problem }),
        }
    }

    /// Says what a key or a field is, where its value does not: integers that are scaled ones are decimals, instants are of a zone.
    /// The row's own time is `timestamp`.
    pub fn typed(mut self, name: impl Into<Arc<str>>, logical: LogicalType) -> Row {
        self.types.insert(name, logical);
        self
    }
}

/// Series of a batch up to which they are searched one by one.
const SEARCHED_MAX: usize = 8;

/// A set of changes that is committed as a whole. It reads nothing, so it never conflicts.
///
/// ```
/// use underbelly::{Batch, Metadata, Row, Timestamp};
/// let mut batch = Batch::new();
/// batch.append(Row::new("trade", Timestamp(1)).key("symbol", "IBM").field("price", 182.1))?;
/// batch.put_model(Metadata::new("smile").with("timestamp", Timestamp(1)), vec![1, 2, 3]);
/// assert_eq!(batch.len(), 2);
/// # Ok::<(), underbelly::CommitError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub(crate) appends: Vec<Rows>,
    pub(crate) deletes: Vec<(Arc<str>, Delete)>,
    /// Places in `appends`, once those are more than are searched.
    by_series: HashMap<Arc<str>, usize>,
    pub(crate) cells: Vec<CellPut>,
    pub(crate) models: Vec<(Metadata, Body)>,
    /// Each with the number of models that were put before it.
    pub(crate) deleted_models: Vec<(ModelId, usize)>,
    pub(crate) marks: Vec<MarkChange>,
    pub(crate) removed: Vec<(ModelId, u64)>,
    pub(crate) collects: bool,
    pub(crate) variables: Vec<Change>,
    pub(crate) ends: Vec<SlotDate>,
    pub(crate) backfill: bool,
    pub(crate) as_of: Option<Timestamp>,
    /// The session of a daemon in which it is committed.
    pub(crate) session: Option<Stamp>,
    /// Slots that are to be up to date for a date, and by when.
    pub(crate) deadlines: Vec<(String, SlotDate, Timestamp)>,
    pub(crate) durability: Durability,
    rows: usize,
    /// Logical types that were declared.
    declared: usize,
}

/// Rows of one series in order of arrival.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    pub series: Arc<str>,
    pub timestamps: Vec<i64>,
    /// Keys, then fields.
    pub columns: Vec<(Arc<str>, Column)>,
    /// Number of keys.
    pub keys: usize,
    /// What columns are, where that is not what is stored; also of columns without a value.
    pub types: LogicalTypes,
}

/// Contents for a cell, or `None` to retract them.
#[derive(Clone, Debug)]
pub(crate) struct CellPut {
    pub slot: String,
    pub date: SlotDate,
    pub key: Vec<Value>,
    pub priority: i32,
    pub rows: Option<Columns>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Number of rows, declared columns, cells, models, what is told of models, deletions, changes of variables, declared ends and deadlines.
    pub fn len(&self) -> usize {
        let models = self.models.len() + self.deleted_models.len() + self.marks.len() + self.removed.len();
        let models = models + usize::from(self.collects);
        let times = self.ends.len() + self.deadlines.len();
        self.rows
            + self.declared
            + self.deletes.len()
            + self.cells.len()
            + models
            + self.variables.len()
            + times
    }

    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets when the commit of this batch is answered; `Sync` unless set.
    pub fn durability(&mut self, durability: Durability) -> &mut Batch {
        self.durability = durability;
        self
    }

    fn rows_of(&mut self, series: Arc<str>) -> &mut Rows {
        let next = self.appends.len();
        let known = match next <= SEARCHED_MAX {
            true => self.appends.iter().position(|rows| rows.series == series),
            false => self.by_series.get(&series).copied(),
        };
        let at = known.unwrap_or(next);
        if at == next {
            if next == SEARCHED_MAX {
                self.by_series = self.appends.iter().map(|rows| rows.series.clone()).zip(0..).collect();
            }
            if next >= SEARCHED_MAX {
                self.by_series.insert(series.clone(), next);
            }
            self.appends.push(Rows {
                series,
                timestamps: Vec::new(),
                columns: Vec::new(),
                keys: 0,
                types: LogicalTypes::new(),
            });
        }
        &mut self.appends[at]
    }

    /// Appends a row. On an error the batch is as before.
    ///
    /// # Errors
    /// [`CommitError::Column`] where the row names a column twice, a value has another type than the column has in
    /// this batch, or a column would pass 4 GiB of text; [`CommitError::SeriesType`] where a column is said to be something else
    /// than in this batch. What the series itself holds is compared at the commit.
    pub fn append(&mut self, row: Row) -> Result<&mut Batch, CommitError> {
        let Row { series, timestamp, columns, keys, types } = row;
        self.rows_of(series).push(timestamp, columns, keys, types)?;
        self.rows += 1;
        Ok(self)
    }

    /// Appends rows of one series type in order of arrival: `timestamps` and `columns` have one length, the
    /// columns named in `keys` are keys and the others are fields. On an error the batch holds the rows that it
    /// held before.
    ///
    /// # Errors
    /// [`CommitError::Column`] where the lengths differ, a column has another type than in this batch, or one
    /// would pass 4 GiB of text; [`CommitError::Series`] where a name in `keys` is no column.
    pub fn append_columns(
        &mut self,
        series: impl Into<Arc<str>>,
        timestamps: Vec<Timestamp>,
        columns: Columns,
        keys: &[&str],
    ) -> Result<&mut Batch, CommitError> {
        self.append_typed(series, timestamps, columns, keys, LogicalTypes::new())
    }

    /// The same, where some columns are not what is stored: a column of `i64` that is said to be of decimals holds their scaled
    /// integers.
    ///
    /// ```
    /// use underbelly::{Batch, Columns, LogicalType, LogicalTypes, Timestamp};
    /// let types = LogicalTypes::new().with("price", LogicalType::decimal(2)?);
    /// let columns = Columns::new().with("price", vec![18_210i64, 18_211].into())?;
    /// Batch::new().append_typed("trade", vec![Timestamp(0), Timestamp(1)], columns, &[], types)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Batch::append_columns`]; [`CommitError::SeriesType`] where a column is stored as another type than the one that it is
    /// said to be needs, or is said to be something else than in this batch. Scales and zones that cannot be are refused at the commit
    /// ([`CommitError::Decimal`], [`CommitError::UnknownZone`]).
    pub fn append_typed(
        &mut self,
        series: impl Into<Arc<str>>,
        timestamps: Vec<Timestamp>,
        columns: Columns,
        keys: &[&str],
        types: LogicalTypes,
    ) -> Result<&mut Batch, CommitError> {
        let series = series.into();
        let rows = timestamps.len();
        if let Some((name, column)) = columns.iter().find(|(_, column)| column.len() != rows) {
            return Err(ColumnError::Length {
                column: name.to_string(),
                expected: rows,
                found: column.len(),
            }
            .into());
        }
        if let Some(missing) = keys.iter().find(|key| columns.index_of(key).is_none()) {
            return Err(CommitError::Series {
                series: series.to_string(),
                what: format!(
                    "key column {missing:?} is not among the columns; add it or leave it out of the keys"
                ),
            });
        }
        let (mut columns, fields): (Vec<_>, Vec<_>) =
            columns.into_columns().into_iter().partition(|(name, _)| keys.contains(&&**name));
        let keys = columns.len();
        columns.extend(fields);
        let timestamps = timestamps.into_iter().map(|t| t.0).collect();
        let said = if rows == 0 { types.len() } else { 0 };
        let added = Rows { series: series.clone(), timestamps, columns, keys, types };
        self.rows_of(series).extend(added)?;
        (self.rows, self.declared) = (self.rows + rows, self.declared + said);
        Ok(self)
    }

    /// Says what a column of a series holds, before any row does, or of which zone its instants are. What is said of a column stays.
    /// The rows' own time is `timestamp`.
    ///
    /// # Errors
    /// [`CommitError::SeriesType`] where rows of this batch hold something else. What the series itself holds is compared at the
    /// commit.
    pub fn declare(
        &mut self,
        series: impl Into<Arc<str>>,
        column: impl Into<Arc<str>>,
        logical: LogicalType,
    ) -> Result<&mut Batch, CommitError> {
        let (column, rows) = (column.into(), self.rows_of(series.into()));
        rows.check_type(&column, &logical)?;
        rows.types.insert(column, logical);
        self.declared += 1;
        Ok(self)
    }

    /// Deletes rows that earlier transactions appended to a series. What this batch appends, before or after this call, is
    /// not among them. Older snapshots still show them.
    pub fn delete_rows(&mut self, series: impl Into<Arc<str>>, delete: Delete) -> &mut Batch {
        self.deletes.push((series.into(), delete));
        self
    }

    /// Puts the contents of a cell: all its rows, in place of those that it had. `key` holds a value for each
    /// cell key of the slot in order. The columns are the slot's row keys and values; a value column that is
    /// left out is null.
    pub fn put_slot<V: Into<Value>>(
        &mut self,
        slot: &str,
        date: impl Into<SlotDate>,
        key: impl IntoIterator<Item = V>,
        rows: Columns,
    ) -> &mut Batch {
        self.put_cell(slot, date.into(), key, 0, Some(rows))
    }

    /// Puts the contents of a cell at a priority other than 0: above or below what producers and other clients give.
    /// The priority must not be a producer's. See [`Batch::put_slot`].
    pub fn put_slot_at<V: Into<Value>>(
        &mut self,
        slot: &str,
        date: impl Into<SlotDate>,
        key: impl IntoIterator<Item = V>,
        priority: i32,
        rows: Columns,
    ) -> &mut Batch {
        self.put_cell(slot, date.into(), key, priority, Some(rows))
    }

    /// Takes back the contents of a cell that a client put.
    pub fn retract_slot<V: Into<Value>>(
        &mut self,
        slot: &str,
        date: impl Into<SlotDate>,
        key: impl IntoIterator<Item = V>,
    ) -> &mut Batch {
        self.put_cell(slot, date.into(), key, 0, None)
    }

    /// Takes back the contents of a cell that a client put at this priority.
    pub fn retract_slot_at<V: Into<Value>>(
        &mut self,
        slot: &str,
        date: impl Into<SlotDate>,
        key: impl IntoIterator<Item = V>,
        priority: i32,
    ) -> &mut Batch {
        self.put_cell(slot, date.into(), key, priority, None)
    }

    fn put_cell<V: Into<Value>>(
        &mut self,
        slot: &str,
        date: SlotDate,
        key: impl IntoIterator<Item = V>,
        priority: i32,
        rows: Option<Columns>,
    ) -> &mut Batch {
        let key = key.into_iter().map(Into::into).collect();
        self.cells.push(CellPut { slot: slot.to_string(), date, key, priority, rows });
        self
    }

    /// Puts a version of a model. The metadata needs `type` and `timestamp`.
    pub fn put_model(&mut self, metadata: Metadata, blob: impl Into<Vec<u8>>) -> &mut Batch {
        self.models.push((metadata, Body::Bytes(blob.into().into())));
        self
    }

    /// Puts a version of a model whose blob was written ahead with [`Database::blob_writer`](crate::Database::blob_writer).
    pub fn put_model_stored(&mut self, metadata: Metadata, blob: &StoredBlob) -> &mut Batch {
        self.models.push((metadata, Body::Stored(blob.clone())));
        self
    }

    /// Deletes all versions of a model, those that this batch put before among them; a model that is not there stays so.
    /// What is put after it begins anew with version 1. The metadata's `timestamp`, `name` and `tags` do not matter.
    ///
    /// # Errors
    /// [`CommitError::Metadata`] where the metadata has no identity, as [`Metadata::id`] says.
    pub fn delete_model(&mut self, model: &impl ModelName) -> Result<&mut Batch, CommitError> {
        self.deleted_models.push((model.model_id()?, self.models.len()));
        Ok(self)
    }

    /// Sets a variable. What a variable holds is fixed as long as it is there: another type, or an array of another
    /// length, is refused at the commit, as are names that begin with `_` but those of durable cursors. Of several values that a
    /// batch sets the last counts.
    pub fn set_variable(&mut self, scope: Scope, name: &str, value: impl Into<VariableValue>) -> &mut Batch {
        let name = Name { scope, name: name.into() }.into();
        self.variables.push(Change { name, value: Some(value.into()) });
        self
    }

    /// Removes a variable; one that is not there stays so. After it the variable may hold something else, in the
    /// same batch too.
    pub fn remove_variable(&mut self, scope: Scope, name: &str) -> &mut Batch {
        let name = Name { scope, name: name.into() }.into();
        self.variables.push(Change { name, value: None });
        self
    }

    /// Declares that clients have committed all that they will for a date, so that producers which wait for the
    /// whole date ([`When::Complete`](crate::When::Complete)) may run. Best in the batch with the last of the date's data. It
    /// holds for good: what is committed for the date later makes them run again.
    pub fn end_of(&mut self, date: impl Into<SlotDate>) -> &mut Batch {
        self.ends.push(date.into());
        self
    }

    /// Says that what it puts into slots is history: the work that it makes, at any distance, starts when nothing else is ready.
    /// Work that a later batch makes on what is current overtakes it.
    pub fn backfill(&mut self) -> &mut Batch {
        self.backfill = true;
        self
    }

    /// Says when what it puts into slots was made; the time of the commit unless set. A slot that is
    /// [`fresh_for`](crate::SlotDefinition::fresh_for) some time counts from here, and one with a
    /// [`max_skew`](crate::SlotDefinition::max_skew) refuses what is too far ahead of the engine's clock.
    pub fn as_of(&mut self, made: Timestamp) -> &mut Batch {
        self.as_of = Some(made);
        self
    }

    /// Has a slot be up to date for a date by a time: unless there are cells for it then, and all of them are settled and
    /// sound, an alarm sounds, once. Another time for the same slot and date takes the place of this one; the same time again
    /// changes nothing.
    pub fn due_by(
        &mut self,
        slot: impl Into<String>,
        date: impl Into<SlotDate>,
        due_by: Timestamp,
    ) -> &mut Batch {
        self.deadlines.push((slot.into(), date.into(), due_by));
        self
    }

    /// Refuses what is beyond the limits or belongs to the engine, before anything is written.
    pub(crate) fn check(&self) -> Result<(), CommitError> {
        let deletes = self.deletes.iter().map(|(series, _)| series);
        let mut series = self.appends.iter().map(|rows| &rows.series).chain(deletes);
        if let Some(series) = series.find(|series| series.starts_with('_')) {
            return Err(CommitError::Name {
                what: "series",
                name: series.to_string(),
                problem: "begins with `_`, as the engine's own do",
            });
        }
        // Rows of one series are one.
        let operations = self.len() - self.rows + self.appends.len();
        if operations > OPERATIONS_MAX {
            return Err(CommitError::TooLarge {
                what: "the number of operations of one transaction",
                found: operations as u64,
                limit: OPERATIONS_MAX as u64,
                remedy: "commit in several transactions",
            });
        }
        Ok(())
    }
}

impl Rows {
    /// The columns of a series that these rows make.
    pub(crate) fn schema(&self) -> Schema {
        let columns = self.columns.iter().enumerate().map(|(i, (name, column))| SchemaColumn {
            name: name.clone(),
            column_type: column.column_type(),
            key: i < self.keys,
        });
        Schema { columns: columns.collect() }
    }

    /// Some of the rows.
    pub(crate) fn taken(self, rows: &[u32]) -> Result<Rows, CommitError> {
        let timestamps = rows.iter().filter_map(|row| self.timestamps.get(*row as usize).copied()).collect();
        let taken = |(name, column): (Arc<str>, Column)| {
            let taken = column.take(rows);
            let column = name.to_string();
            taken.map(|taken| (name, taken)).ok_or(ColumnError::TooLarge { column })
        };
        let columns = self.columns.into_iter().map(taken).collect::<Result<_, _>>()?;
        Ok(Rows { series: self.series, timestamps, columns, keys: self.keys, types: self.types })
    }

    /// The place of a key or a field.
    fn find(&self, name: &Arc<str>, key: bool) -> Option<usize> {
        let (from, to) = if key { (0, self.keys) } else { (self.keys, self.columns.len()) };
        self.columns.get(from..to)?.iter().position(|(n, _)| n == name).map(|at| from + at)
    }

    /// The column of that name and role; `make` makes it where there is none.
    fn column(&mut self, name: Arc<str>, key: bool, make: impl FnOnce() -> Column) -> &mut Column {
        let at = self.find(&name, key).unwrap_or_else(|| {
            let at = if key { self.keys } else { self.columns.len() };
            self.columns.insert(at, (name, make()));
            self.keys += usize::from(key);
            at
        });
        &mut self.columns[at].1
    }

    /// Appends a row of columns of which the first `keys` are keys.
    fn push(
        &mut self,
        timestamp: Timestamp,
        columns: Vec<(Arc<str>, Value)>,
        keys: usize,
        types: LogicalTypes,
    ) -> Result<(), CommitError> {
        let before = self.timestamps.len();
        let names = || columns.iter().map(|(name, _)| name);
        if let Some((_, name)) = names().enumerate().find(|(i, name)| names().take(*i).any(|n| n == *name)) {
            return Err(ColumnError::Duplicate { column: name.to_string() }.into());
        }
        if !types.is_empty() || !self.types.is_empty() {
            for (name, value) in &columns {
                if let Some(stored) = value.column_type() {
                    self.check_stored(name, &types.of(name, stored), stored)?;
                }
            }
            types.iter().try_for_each(|(name, logical)| self.check_type(name, logical))?;
        }
        if before > 0 {
            for (i, (name, value)) in columns.iter().enumerate() {
                if let Some(at) = self.find(name, i < keys) {
                    check_value(name, &self.columns[at].1, value)?;
                }
            }
        } else {
            self.columns.reserve_exact(columns.len());
        }
        for (i, (name, value)) in columns.into_iter().enumerate() {
            let Some(column_type) = value.column_type() else { continue };
            let column = self.column(name, i < keys, || Column::nulls(column_type, before));
            let found = column.column_type();
            if let Some(wide) = found.common(column_type).filter(|wide| *wide != found) {
                let widened = std::mem::replace(column, Column::new(wide)).widened(wide);
                *column = widened.unwrap_or_else(|| Column::nulls(wide, before));
            }
            // What was not checked above would be a null.
            let pushed = column.push(&value);
            assert!(pushed.is_ok(), "it was checked");
        }
        self.types.extend(&types);
        self.fill(before + 1);
        self.timestamps.push(timestamp.0);
        Ok(())
    }

    /// Appends rows; the types must agree with those before.
    fn extend(&mut self, added: Rows) -> Result<(), CommitError> {
        for (name, column) in &added.columns {
            let stored = column.column_type();
            self.check_stored(name, &added.types.of(name, stored), stored)?;
        }
        let types = &added.types;
        types.iter().try_for_each(|(name, logical)| self.check_type(name, logical))?;
        if self.timestamps.is_empty() {
            let mut types = std::mem::take(&mut self.types);
            types.extend(&added.types);
            *self = Rows { types, ..added };
            return Ok(());
        }
        for (i, (name, column)) in added.columns.iter().enumerate() {
            if let Some(at) = self.find(name, i < added.keys) {
                check_extension(name, &self.columns[at].1, column)?;
            }
        }
        self.types.extend(&added.types);
        let (before, rows) = (self.timestamps.len(), added.timestamps.len());
        for (i, (name, column)) in added.columns.into_iter().enumerate() {
            let mine = self.column(name, i < added.keys, || Column::nulls(column.column_type(), before));
            let extended = mine.extend_range(&column, 0..rows);
            assert!(extended.is_some(), "types and sizes were checked");
        }
        self.fill(before + rows);
        self.timestamps.extend(added.timestamps);
        Ok(())
    }

    /// Says whether values that are stored as `stored` and said to be `logical` may stand in a column.
    fn check_stored(&self, name: &str, logical: &LogicalType, stored: ColumnType) -> Result<(), CommitError> {
        if logical.stored() != stored {
            return Err(self.other_type(name, logical.clone(), stored.into()));
        }
        match self.types.get(name) {
            Some(known) if !known.takes(logical) => {
                Err(self.other_type(name, known.clone(), logical.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Says whether a column may be said to be this.
    fn check_type(&self, name: &str, logical: &LogicalType) -> Result<(), CommitError> {
        let stored = self.columns.iter().find(|(known, _)| **known == *name);
        let known = self.types.get(name).cloned();
        match known.or_else(|| Some(stored?.1.column_type().into())) {
            Some(known) if !known.may_become(logical) => Err(self.other_type(name, known, logical.clone())),
            _ => Ok(()),
        }
    }

    fn other_type(&self, column: &str, expected: LogicalType, found: LogicalType) -> CommitError {
        let (series, column) = (self.series.to_string(), column.to_string());
        CommitError::SeriesType { series, column, expected, found }
    }

    /// Nulls for the rows up to `len` that a column has not.
    fn fill(&mut self, len: usize) {
        for (_, column) in &mut self.columns {
            while column.len() < len {
                column.push_null();
            }
        }
    }
}

/// Says why a value could not be appended to a column.
fn check_value(name: &str, column: &Column, value: &Value) -> Result<(), ColumnError> {
    let Some(found) = value.column_type() else { return Ok(()) };
    let fits = match (column.values(), value) {
        (Values::Utf8(strings), Value::Utf8(text)) => return check_text(name, strings, text.len()),
        (Values::Bytes(strings), Value::Bytes(bytes)) => return check_text(name, strings, bytes.len()),
        _ => match column.column_type().common(found) {
            Some(ColumnType::F64) => {
                let number = if let Value::I64(number) = value { vec![*number] } else { Vec::new() };
                column.fits_f64() && Column::from(number).fits_f64()
            }
            common => common.is_some(),
        },
    };
    let expected = column.column_type();
    if fits { Ok(()) } else { Err(ColumnError::Type { column: name.to_string(), expected, found }) }
}

/// Says whether so many more bytes would be too many.
fn check_text(name: &str, strings: &Strings, more: usize) -> Result<(), ColumnError> {
    match u32::try_from(strings.bytes().len() + more) {
        Ok(_) => Ok(()),
        Err(_) => Err(ColumnError::TooLarge { column: name.to_string() }),
    }
}

/// Says why a column could not be extended by another.
fn check_extension(name: &str, column: &Column, by: &Column) -> Result<(), ColumnError> {
    match (column.values(), by.values()) {
        (Values::Utf8(a), Values::Utf8(b)) | (Values::Bytes(a), Values::Bytes(b)) => {
            check_text(name, a, b.bytes().len())
        }
        _ if column.column_type() == by.column_type() => Ok(()),
        _ => Err(ColumnError::Type {
            column: name.to_string(),
            expected: column.column_type(),
            found: by.column_type(),
        }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn row(at: i64) -> Row {
        Row::new("s", Timestamp(at))
    }

    #[test]
    fn rows_of_different_shapes_keep_their_order() {
        let mut batch = Batch::new();
        batch.append(row(3).key("k", "a").field("x", 1)).unwrap();
        batch.append(row(1).field("y", "text")).unwrap();
        batch.append(row(2).key("k", "b").field("x", 2.5)).unwrap();
        let rows = &batch.appends[0];
        assert_eq!(rows.timestamps, [3, 1, 2]);
        let x: Vec<Value> = (0..3).map(|i| rows.columns[1].1.get(i)).collect();
        assert_eq!(x, [Value::F64(1.0), Value::Null, Value::F64(2.5)]);
        assert_eq!(rows.columns[0].1.get(1), Value::Null);
        assert_eq!(batch.len(), 3);
    }

    #[test]
    fn a_refused_row_leaves_the_batch_as_it_was() {
        let mut batch = Batch::new();
        batch.append(row(1).field("x", 1).field("y", 2)).unwrap();
        let before = batch.clone();
        assert!(batch.append(row(2).field("z", 1).field("y", "text")).is_err());
        assert!(batch.append(row(2).field("x", 1).field("x", 2)).is_err());
        assert!(batch.append(row(2).field("x", 0.5).field("y", "text")).is_err());
        assert_eq!(batch.appends[0].timestamps, before.appends[0].timestamps);
        assert_eq!(batch.appends[0].columns, before.appends[0].columns);
        batch.append(row(3).field("x", 5)).unwrap();
        assert_eq!(batch.appends[0].columns[1].1.get(1), Value::Null);
    }

    #[test]
    fn rows_find_their_series_among_many() {
        let mut batch = Batch::new();
        for i in 0..100 {
            batch.append(Row::new(format!("s{}", i % 20), Timestamp(i)).field("x", i)).unwrap();
        }
        assert_eq!(batch.appends.len(), 20);
        for (i, rows) in batch.appends.iter().enumerate() {
            let times: Vec<i64> = (0..5).map(|round| round * 20 + i as i64).collect();
            assert_eq!((&*rows.series, &rows.timestamps), (format!("s{i}").as_str(), &times));
        }
    }

    #[test]
    fn columns_and_rows_go_together() {
        let mut batch = Batch::new();
        batch.append(row(1).key("k", "a").field("x", 1)).unwrap();
        let columns = Columns::new().with("x", vec![2i64, 3].into()).unwrap();
        batch.append_columns("s", vec![Timestamp(2), Timestamp(3)], columns.clone(), &[]).unwrap();
        assert_eq!(batch.appends[0].columns[0].1.get(2), Value::Null);
        assert!(batch.append_columns("s", vec![Timestamp(2)], columns.clone(), &[]).is_err());
        assert!(batch.append_columns("s", vec![Timestamp(2), Timestamp(3)], columns, &["k"]).is_err());
        assert_eq!(batch.len(), 3);
    }
}
