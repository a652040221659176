//! Columns in memory: typed vectors of equal length, with a validity byte a row where there are nulls.
//!
//! Invariants: all columns of [`Columns`] have its number of rows; names are unique; a validity vector, where
//! there is one, is as long as the values; the value under a null is the type's zero; text is UTF-8.

mod strings;

use std::sync::Arc;

pub use strings::Strings;

use crate::value::{ColumnType, Date, Timestamp, Value};

/// Why a value or a column was refused.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ColumnError {
    /// A value has another type than its column.
    #[error("column {column:?} holds {expected}, not {found}; convert the value or use another column name")]
    Type {
        /// The column's name; empty where it has none.
        column: String,
        /// The column's type.
        expected: ColumnType,
        /// The value's type.
        found: ColumnType,
    },
    /// Columns of unequal lengths were put together.
    #[error("column {column:?} has {found} rows where the others have {expected}")]
    Length {
        /// The column's name.
        column: String,
        /// Rows of the other columns.
        expected: usize,
        /// Rows of this one.
        found: usize,
    },
    /// Two columns of one name.
    #[error("two columns are named {column:?}; rename one")]
    Duplicate {
        /// The name.
        column: String,
    },
    /// A row without a value for each column, or with too many.
    #[error("a row has {found} values for {expected} columns")]
    Width {
        /// Number of columns.
        expected: usize,
        /// Number of values.
        found: usize,
    },
    /// More than 4 GiB of text in one column.
    #[error("column {column:?} would hold more than 4 GiB of text or bytes; split the rows")]
    TooLarge {
        /// The column's name.
        column: String,
    },
}

/// The values of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// True or false.
    Bool(Vec<bool>),
    /// Signed 64-bit integers.
    I64(Vec<i64>),
    /// IEEE 754 binary64.
    F64(Vec<f64>),
    /// UTF-8 text.
    Utf8(Strings),
    /// Any bytes.
    Bytes(Strings),
    /// Nanoseconds since 1970 UTC.
    Timestamp(Vec<i64>),
    /// Days since 1970.
    Date(Vec<i32>),
    /// Signed 32-bit integers.
    I32(Vec<i32>),
    /// IEEE 754 binary32.
    F32(Vec<f32>),
}

/// Up to here every integer is an `f64`.
const F64_EXACT_MAX: u64 = 1 << 53;

/// A typed vector with nulls.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    values: Values,
    validity: Option<Vec<bool>>,
}

macro_rules! each_vector {
    ($values:expr, $vector:ident => $plain:expr, $strings:ident => $text:expr) => {
        match $values {
            Values::Bool($vector) => $plain,
            Values::I64($vector) | Values::Timestamp($vector) => $plain,
            Values::F64($vector) => $plain,
            Values::Date($vector) | Values::I32($vector) => $plain,
            Values::F32($vector) => $plain,
            Values::Utf8($strings) | Values::Bytes($strings) => $text,
        }
    };
}

impl Column {
    /// An empty column.
    pub fn new(column_type: ColumnType) -> Column {
        Column::with_capacity(column_type, 0)
    }

    /// An empty column with room for `rows`.
    pub fn with_capacity(column_type: ColumnType, rows: usize) -> Column {
        let values = match column_type {
            ColumnType::Bool => Values::Bool(Vec::with_capacity(rows)),
            ColumnType::I64 => Values::I64(Vec::with_capacity(rows)),
            ColumnType::F64 => Values::F64(Vec::with_capacity(rows)),
            ColumnType::Utf8 => Values::Utf8(Strings::default()),
            ColumnType::Bytes => Values::Bytes(Strings::default()),
            ColumnType::Timestamp => Values::Timestamp(Vec::with_capacity(rows)),
            ColumnType::Date => Values::Date(Vec::with_capacity(rows)),
            ColumnType::I32 => Values::I32(Vec::with_capacity(rows)),
            ColumnType::F32 => Values::F32(Vec::with_capacity(rows)),
        };
        Column { values, validity: None }
    }

    /// A column of `rows` nulls.
    pub fn nulls(column_type: ColumnType, rows: usize) -> Column {
        let mut column = Column::with_capacity(column_type, rows);
        for _ in 0..rows {
            column.push_null();
        }
        column
    }

    /// Puts values and validity (`true` = not null) together. The values under nulls are set to zero.
    /// `None` where the lengths differ or text is not UTF-8.
    pub fn from_parts(values: Values, validity: Option<Vec<bool>>) -> Option<Column> {
        let column = Column { values, validity: None };
        if let Values::Utf8(strings) = &column.values {
            let whole = std::str::from_utf8(strings.bytes()).ok()?;
            if !strings.offsets().iter().all(|at| whole.is_char_boundary(*at as usize)) {
                return None;
            }
        }
        let Some(validity) = validity else { return Some(column) };
        if validity.len() != column.len() {
            return None;
        }
        if validity.iter().all(|valid| *valid) {
            return Some(column);
        }
        let mut column = column;
        let nulls = || validity.iter().enumerate().filter(|(_, valid)| !**valid).map(|(row, _)| row);
        each_vector!(&mut column.values, v => nulls().for_each(|row| v[row] = Default::default()), s => {
            if nulls().any(|row| !s.get(row).is_empty()) {
                let mut cleaned = Strings::default();
                for (row, valid) in validity.iter().enumerate() {
                    let fits = cleaned.push(if *valid { s.get(row) } else { b"" });
                    debug_assert!(fits, "the cleaned text is no longer than the text was");
                }
                *s = cleaned;
            }
        });
        column.validity = Some(validity);
        Some(column)
    }

    /// Takes values and validity apart.
    pub fn into_parts(self) -> (Values, Option<Vec<bool>>) {
        (self.values, self.validity)
    }

    /// The values; under a null stands the type's zero.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// Validity a row (`true` = not null), or `None` where nothing is null.
    pub fn validity(&self) -> Option<&[bool]> {
        self.validity.as_deref()
    }

    /// The column's type.
    pub fn column_type(&self) -> ColumnType {
        match &self.values {
            Values::Bool(_) => ColumnType::Bool,
            Values::I64(_) => ColumnType::I64,
            Values::F64(_) => ColumnType::F64,
            Values::Utf8(_) => ColumnType::Utf8,
            Values::Bytes(_) => ColumnType::Bytes,
            Values::Timestamp(_) => ColumnType::Timestamp,
            Values::Date(_) => ColumnType::Date,
            Values::I32(_) => ColumnType::I32,
            Values::F32(_) => ColumnType::F32,
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        each_vector!(&self.values, v => v.len(), s => s.len())
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of nulls.
    pub fn null_count(&self) -> usize {
        self.validity.as_ref().map_or(0, |v| v.iter().filter(|valid| !**valid).count())
    }

    /// Whether row `i` is null.
    pub fn is_null(&self, i: usize) -> bool {
        self.validity.as_ref().is_some_and(|v| !v[i])
    }

    /// Bytes that the column takes in memory, about.
    pub fn byte_size(&self) -> usize {
        let values = match &self.values {
            Values::Bool(v) => v.len(),
            Values::I64(v) | Values::Timestamp(v) => v.len() * 8,
            Values::F64(v) => v.len() * 8,
            Values::Date(v) | Values::I32(v) => v.len() * 4,
            Values::F32(v) => v.len() * 4,
            Values::Utf8(s) | Values::Bytes(s) => s.offsets.len() * 4 + s.bytes.len(),
        };
        values + self.validity.as_ref().map_or(0, Vec::len)
    }

    /// The value of row `i`. Panics where there is no such row, as a slice does.
    pub fn get(&self, i: usize) -> Value {
        if self.is_null(i) {
            return Value::Null;
        }
        match &self.values {
            Values::Bool(v) => Value::Bool(v[i]),
            Values::I64(v) => Value::I64(v[i]),
            Values::F64(v) => Value::F64(v[i]),
            Values::Utf8(s) => Value::Utf8(String::from_utf8_lossy(s.get(i)).into()),
            Values::Bytes(s) => Value::Bytes(s.get(i).into()),
            Values::Timestamp(v) => Value::Timestamp(Timestamp(v[i])),
            Values::Date(v) => Value::Date(Date(v[i])),
            Values::I32(v) => Value::I32(v[i]),
            Values::F32(v) => Value::F32(v[i]),
        }
    }

    /// The text of row `i`; `None` where it is null or the column is not text.
    pub fn str_at(&self, i: usize) -> Option<&str> {
        match &self.values {
            Values::Utf8(s) if !self.is_null(i) => std::str::from_utf8(s.get(i)).ok(),
            _ => None,
        }
    }

    /// Whether every value is one that an `f64` holds exactly: all but `i64` beyond ±2^53.
    pub fn fits_f64(&self) -> bool {
        let Values::I64(values) = &self.values else { return true };
        values.iter().all(|value| value.unsigned_abs() <= F64_EXACT_MAX)
    }

    /// Appends a value of the column's type, or of one that widens to it; an `I64` to an `F64` column only within ±2^53.
    pub fn push(&mut self, value: &Value) -> Result<(), ColumnError> {
        let fits = match (&mut self.values, value) {
            (_, Value::Null) => {
                self.push_null();
                return Ok(());
            }
            (Values::Bool(v), Value::Bool(x)) => {
                v.push(*x);
                true
            }
            (Values::I64(v), Value::I64(x)) => {
                v.push(*x);
                true
            }
            (Values::F64(v), Value::F64(x)) => {
                v.push(*x);
                true
            }
            (Values::F64(v), Value::I64(x)) if x.unsigned_abs() <= F64_EXACT_MAX => {
                v.push(*x as f64);
                true
            }
            (Values::F64(v), Value::I32(x)) => {
                v.push(f64::from(*x));
                true
            }
            (Values::F64(v), Value::F32(x)) => {
                v.push(f64::from(*x));
                true
            }
            (Values::I64(v), Value::I32(x)) => {
                v.push(i64::from(*x));
                true
            }
            (Values::I32(v), Value::I32(x)) => {
                v.push(*x);
                true
            }
            (Values::F32(v), Value::F32(x)) => {
                v.push(*x);
                true
            }
            (Values::Timestamp(v), Value::Timestamp(x)) => {
                v.push(x.0);
                true
            }
            (Values::Date(v), Value::Date(x)) => {
                v.push(x.0);
                true
            }
            (Values::Utf8(s), Value::Utf8(x)) => s.push(x.as_bytes()),
            (Values::Bytes(s), Value::Bytes(x)) => s.push(x),
            (_, other) => {
                return Err(ColumnError::Type {
                    column: String::new(),
                    expected: self.column_type(),
                    found: other.column_type().unwrap_or(self.column_type()),
                });
            }
        };
        if !fits {
            return Err(ColumnError::TooLarge { column: String::new() });
        }
        if let Some(validity) = &mut self.validity {
            validity.push(true);
        }
        Ok(())
    }

    /// Appends a null.
    pub fn push_null(&mut self) {
        let rows = self.len();
        self.validity.get_or_insert_with(|| vec![true; rows]).push(false);
        each_vector!(&mut self.values, v => v.push(Default::default()), s => {
            let end = s.bytes.len() as u32;
            s.offsets.push(end);
        });
    }

    /// Appends row `i` of a column of the same type; `None`, and nothing changed, where the types differ.
    pub fn push_from(&mut self, other: &Column, i: usize) -> Option<()> {
        self.extend_range(other, i..i + 1)
    }

    /// Appends rows of a column of the same type; `None`, and nothing changed, where the types differ
    /// or the text would pass 4 GiB.
    pub fn extend_range(&mut self, other: &Column, rows: std::ops::Range<usize>) -> Option<()> {
        let before = self.len();
        match (&mut self.values, &other.values) {
            (Values::Bool(a), Values::Bool(b)) => a.extend_from_slice(&b[rows.clone()]),
            (Values::I64(a), Values::I64(b)) | (Values::Timestamp(a), Values::Timestamp(b)) => {
                a.extend_from_slice(&b[rows.clone()]);
            }
            (Values::F64(a), Values::F64(b)) => a.extend_from_slice(&b[rows.clone()]),
            (Values::Date(a), Values::Date(b)) | (Values::I32(a), Values::I32(b)) => {
                a.extend_from_slice(&b[rows.clone()]);
            }
            (Values::F32(a), Values::F32(b)) => a.extend_from_slice(&b[rows.clone()]),
            (Values::Utf8(a), Values::Utf8(b)) | (Values::Bytes(a), Values::Bytes(b)) => {
                let (from, to) = (b.offsets[rows.start], b.offsets[rows.end]);
                let base = u32::try_from(a.bytes.len()).ok()?;
                base.checked_add(to - from)?;
                a.bytes.extend_from_slice(&b.bytes[from as usize..to as usize]);
                a.offsets.extend(b.offsets[rows.start + 1..=rows.end].iter().map(|end| base + (end - from)));
            }
            _ => return None,
        }
        match (&mut self.validity, &other.validity) {
            (None, None) => {}
            (mine, theirs) => {
                let mine = mine.get_or_insert_with(|| vec![true; before]);
                match theirs {
                    Some(theirs) => mine.extend_from_slice(&theirs[rows]),
                    None => mine.resize(before + rows.len(), true),
                }
            }
        }
        Some(())
    }

    /// Appends the rows at `indices` of a column of the same type that has no nulls, in that order; `None`, and nothing changed,
    /// where the types differ, a row is null or the text would pass 4 GiB.
    pub fn extend_taken(&mut self, other: &Column, indices: &[u32]) -> Option<()> {
        if other.null_count() > 0 {
            return None;
        }
        match (&mut self.values, &other.values) {
            (Values::Utf8(to), Values::Utf8(from)) | (Values::Bytes(to), Values::Bytes(from)) => {
                to.extend_taken(from, indices)?;
            }
            _ => return self.extend_range(&other.take(indices)?, 0..indices.len()),
        }
        if let Some(validity) = &mut self.validity {
            validity.resize(validity.len() + indices.len(), true);
        }
        Some(())
    }

    /// The rows at `indices`, in that order; `None` where the text would pass 4 GiB, as rows may be asked for several times.
    pub fn take(&self, indices: &[u32]) -> Option<Column> {
        let pick = |i: &u32| *i as usize;
        let values = match &self.values {
            Values::Bool(v) => Values::Bool(indices.iter().map(|i| v[pick(i)]).collect()),
            Values::I64(v) => Values::I64(indices.iter().map(|i| v[pick(i)]).collect()),
            Values::F64(v) => Values::F64(indices.iter().map(|i| v[pick(i)]).collect()),
            Values::Timestamp(v) => Values::Timestamp(indices.iter().map(|i| v[pick(i)]).collect()),
            Values::Date(v) => Values::Date(indices.iter().map(|i| v[pick(i)]).collect()),
            Values::I32(v) => Values::I32(indices.iter().map(|i| v[pick(i)]).collect()),
            Values::F32(v) => Values::F32(indices.iter().map(|i| v[pick(i)]).collect()),
            Values::Utf8(s) => Values::Utf8(s.take(indices, u32::MAX)?),
            Values::Bytes(s) => Values::Bytes(s.take(indices, u32::MAX)?),
        };
        let validity = self.validity.as_ref().map(|v| indices.iter().map(|i| v[pick(i)]).collect::<Vec<_>>());
        Some(Column { values, validity: validity.filter(|v| v.iter().any(|valid| !valid)) })
    }

    /// The rows of a range.
    pub fn slice(&self, rows: std::ops::Range<usize>) -> Column {
        let mut column = Column::with_capacity(self.column_type(), rows.len());
        let same_type = column.extend_range(self, rows);
        debug_assert!(same_type.is_some());
        column
    }

    /// The same numbers in a type that this one [widens to](ColumnType::widens_to), rounded where [`Column::fits_f64`]
    /// says no; `None` where it does not widen to it.
    pub fn widened(self, wide: ColumnType) -> Option<Column> {
        let values = match (self.values, wide) {
            (Values::I64(v), ColumnType::F64) => Values::F64(v.into_iter().map(|x| x as f64).collect()),
            (Values::I32(v), ColumnType::F64) => Values::F64(v.into_iter().map(f64::from).collect()),
            (Values::F32(v), ColumnType::F64) => Values::F64(v.into_iter().map(f64::from).collect()),
            (Values::I32(v), ColumnType::I64) => Values::I64(v.into_iter().map(i64::from).collect()),
            (values, _) => values,
        };
        let column = Column { values, validity: self.validity };
        (column.column_type() == wide).then_some(column)
    }
}

/// Named columns of equal length: what is appended, put into a cell, and given back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Columns {
    names: Vec<Arc<str>>,
    columns: Vec<Column>,
    rows: usize,
}

impl Columns {
    /// No columns and no rows.
    pub fn new() -> Columns {
        Columns::default()
    }

    /// Empty columns with these names and types.
    pub fn with_types<'a>(
        types: impl IntoIterator<Item = (&'a str, ColumnType)>,
    ) -> Result<Columns, ColumnError> {
        let mut columns = Columns::new();
        for (name, column_type) in types {
            columns.insert(name, Column::new(column_type))?;
        }
        Ok(columns)
    }

    /// Adds a column. The first decides the number of rows.
    pub fn insert(&mut self, name: impl Into<Arc<str>>, column: Column) -> Result<(), ColumnError> {
        let name = name.into();
        if self.index_of(&name).is_some() {
            return Err(ColumnError::Duplicate { column: name.to_string() });
        }
        if !self.columns.is_empty() && column.len() != self.rows {
            return Err(ColumnError::Length {
                column: name.to_string(),
                expected: self.rows,
                found: column.len(),
            });
        }
        self.rows = column.len();
        self.names.push(name);
        self.columns.push(column);
        Ok(())
    }

    /// The same, to be chained.
    pub fn with(mut self, name: impl Into<Arc<str>>, column: Column) -> Result<Columns, ColumnError> {
        self.insert(name, column)?;
        Ok(self)
    }

    /// Appends a row: one value for each column in order.
    pub fn push_row(&mut self, row: &[Value]) -> Result<(), ColumnError> {
        if row.len() != self.columns.len() {
            return Err(ColumnError::Width { expected: self.columns.len(), found: row.len() });
        }
        for (i, value) in row.iter().enumerate() {
            if let Err(error) = self.columns[i].push(value) {
                let rows = self.rows;
                for column in &mut self.columns[..i] {
                    *column = column.slice(0..rows);
                }
                return Err(error.named(&self.names[i]));
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Names in order.
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// The position of a column.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|n| &**n == name)
    }

    /// A column by name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.index_of(name).map(|i| &self.columns[i])
    }

    /// A column by position. Panics where there is none, as a slice does.
    pub fn column_at(&self, i: usize) -> &Column {
        &self.columns[i]
    }

    /// Names and columns in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Column)> {
        self.names.iter().zip(&self.columns)
    }

    /// Takes the columns apart.
    pub fn into_columns(self) -> Vec<(Arc<str>, Column)> {
        self.names.into_iter().zip(self.columns).collect()
    }

    /// Removes a column; the number of rows stays.
    pub fn remove(&mut self, name: &str) -> Option<Column> {
        let i = self.index_of(name)?;
        self.names.remove(i);
        Some(self.columns.remove(i))
    }

    /// Values of an `f64` column, or `None` where there is none of that name and type.
    pub fn f64s(&self, name: &str) -> Option<&[f64]> {
        if let Values::F64(v) = self.column(name)?.values() { Some(v) } else { None }
    }

    /// Values of an `i64` column, or `None` where there is none of that name and type.
    pub fn i64s(&self, name: &str) -> Option<&[i64]> {
        if let Values::I64(v) = self.column(name)?.values() { Some(v) } else { None }
    }

    /// Values of an `i32` column, or `None` where there is none of that name and type.
    pub fn i32s(&self, name: &str) -> Option<&[i32]> {
        if let Values::I32(v) = self.column(name)?.values() { Some(v) } else { None }
    }

    /// Values of an `f32` column, or `None` where there is none of that name and type.
    pub fn f32s(&self, name: &str) -> Option<&[f32]> {
        if let Values::F32(v) = self.column(name)?.values() { Some(v) } else { None }
    }

    /// Nanoseconds of a timestamp column, or `None` where there is none of that name and type.
    pub fn timestamps(&self, name: &str) -> Option<&[i64]> {
        if let Values::Timestamp(v) = self.column(name)?.values() { Some(v) } else { None }
    }

    /// The value of a column in a row; `None` where there is no such column or row.
    pub fn value(&self, name: &str, row: usize) -> Option<Value> {
        (row < self.rows).then(|| self.column(name).map(|c| c.get(row))).flatten()
    }

    /// The values of row `i` in order of the columns.
    pub fn row(&self, i: usize) -> Vec<Value> {
        self.columns.iter().map(|c| c.get(i)).collect()
    }

    /// The rows at `indices`, in that order.
    ///
    /// # Errors
    /// [`ColumnError::TooLarge`] where a text column would pass 4 GiB, as rows may be asked for several times.
    pub fn take(&self, indices: &[u32]) -> Result<Columns, ColumnError> {
        let too_large = |name: &Arc<str>| ColumnError::TooLarge { column: name.to_string() };
        let taken = |(name, column): (_, &Column)| column.take(indices).ok_or_else(|| too_large(name));
        Ok(Columns {
            names: self.names.clone(),
            columns: self.iter().map(taken).collect::<Result<_, _>>()?,
            rows: indices.len(),
        })
    }

    /// The rows of a range.
    pub fn slice(&self, rows: std::ops::Range<usize>) -> Columns {
        Columns {
            names: self.names.clone(),
            columns: self.columns.iter().map(|c| c.slice(rows.clone())).collect(),
            rows: rows.len(),
        }
    }

    /// Bytes that the columns take in memory, about.
    pub fn byte_size(&self) -> usize {
        self.columns.iter().map(Column::byte_size).sum()
    }
}

impl ColumnError {
    /// The same error, about the column of this name.
    pub fn named(mut self, name: &str) -> ColumnError {
        match &mut self {
            ColumnError::Type { column, .. }
            | ColumnError::Length { column, .. }
            | ColumnError::Duplicate { column }
            | ColumnError::TooLarge { column } => *column = name.to_string(),
            ColumnError::Width { .. } => {}
        }
        self
    }
}

macro_rules! column_from {
    ($($from:ty => $variant:ident),* $(,)?) => {$(
        impl From<Vec<$from>> for Column {
            fn from(values: Vec<$from>) -> Column {
                Column { values: Values::$variant(values), validity: None }
            }
        }
    )*};
}

column_from! { bool => Bool, i32 => I32, i64 => I64, f32 => F32, f64 => F64 }

impl From<Vec<Timestamp>> for Column {
    fn from(values: Vec<Timestamp>) -> Column {
        Column { values: Values::Timestamp(values.into_iter().map(|t| t.0).collect()), validity: None }
    }
}

impl From<Vec<Date>> for Column {
    fn from(values: Vec<Date>) -> Column {
        Column { values: Values::Date(values.into_iter().map(|d| d.0).collect()), validity: None }
    }
}

impl<S: AsRef<str>> FromIterator<S> for Column {
    /// A text column. Panics where the text passes 4 GiB, as a vector does where memory ends.
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> Column {
        let mut values = Strings::default();
        for string in strings {
            assert!(values.push(string.as_ref().as_bytes()), "a text column holds at most 4 GiB");
        }
        Column { values: Values::Utf8(values), validity: None }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_put_together_have_zeros_under_nulls(
            rows in proptest::collection::vec((any::<i64>(), "[a-cé]{0,3}", any::<bool>()), 0..20),
        ) {
            let validity: Vec<bool> = rows.iter().map(|row| row.2).collect();
            let texts: Column = rows.iter().map(|row| &row.1).collect();
            let bytes = Values::Bytes(match texts.values() {
                Values::Utf8(strings) => strings.clone(),
                other => unreachable!("{other:?}"),
            });
            let parts = [
                Values::I64(rows.iter().map(|row| row.0).collect()),
                Values::Timestamp(rows.iter().map(|row| row.0).collect()),
                Values::F64(rows.iter().map(|row| row.0 as f64).collect()),
                Values::Date(rows.iter().map(|row| row.0 as i32).collect()),
                Values::I32(rows.iter().map(|row| row.0 as i32).collect()),
                Values::F32(rows.iter().map(|row| row.0 as f32).collect()),
                Values::Bool(rows.iter().map(|row| row.0 % 2 == 0).collect()),
                texts.into_parts().0,
                bytes,
            ];
            for values in parts {
                let whole = Column::from_parts(values.clone(), None).unwrap();
                let mut expected = Column::new(whole.column_type());
                for (row, valid) in validity.iter().enumerate() {
                    if *valid { expected.push_from(&whole, row).unwrap() } else { expected.push_null() }
                }
                prop_assert_eq!(Column::from_parts(values, Some(validity.clone())).unwrap(), expected);
            }
        }
    }

    #[test]
    fn columns_widen_as_their_types_do() {
        let some = |column_type| {
            let mut column = Column::nulls(column_type, 1);
            let value = match column_type {
                ColumnType::I32 => Value::I32(i32::MIN),
                ColumnType::I64 => Value::I64(-(1 << 53)),
                ColumnType::F32 => Value::F32(-0.1),
                ColumnType::F64 => Value::F64(0.1),
                _ => Value::Null,
            };
            column.push(&value).unwrap();
            column
        };
        for (from, to) in ColumnType::ALL.iter().flat_map(|from| ColumnType::ALL.map(|to| (*from, to))) {
            let (narrow, mut expected) = (some(from), Column::new(to));
            let widened = narrow.clone().widened(to);
            assert_eq!(widened.is_some(), from.widens_to(to), "{from} to {to}");
            let Some(widened) = widened else { continue };
            (0..2).for_each(|row| expected.push(&narrow.get(row)).unwrap());
            assert_eq!(widened, expected, "{from} to {to}");
            assert_eq!((widened.get(1).as_f64(), widened.null_count() > 0), (narrow.get(1).as_f64(), true));
        }
        assert!(some(ColumnType::I32).push(&Value::I64(1)).is_err(), "nothing is narrowed");
        assert!(some(ColumnType::F32).push(&Value::F64(1.0)).is_err(), "nothing is narrowed");
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        assert_eq!(Column::from_parts(Values::I64(vec![1, 2]), Some(vec![true])), None);
        let cut_inside_a_letter = Strings::from_parts(vec![0, 1, 2], "é".as_bytes().to_vec()).unwrap();
        assert_eq!(Column::from_parts(Values::Utf8(cut_inside_a_letter.clone()), None), None);
        assert!(Column::from_parts(Values::Bytes(cut_inside_a_letter), None).is_some());
    }
}
