//! Rows that are lent: they stay where they are for as long as somebody holds them.

use std::ops::Range;
use std::sync::Arc;

use underbelly_storage::{Column, Columns, LogicalTypes, Values};

use crate::error::ArrowError;

/// Who owns rows that can be lent. Whoever they are lent to holds it, and reads them through a shared reference alone.
pub trait Lend: Send + Sync {
    /// Names and columns, all of the same length.
    fn lent(&self) -> Vec<(&str, Lent<'_>)>;
}

/// A column that is lent.
#[derive(Clone, Copy, Debug)]
pub enum Lent<'a> {
    /// Nanoseconds since 1970 UTC, none of them null.
    Timestamps(&'a [i64]),
    /// Any column.
    Column(&'a Column),
}

impl Lent<'_> {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        match self {
            Lent::Timestamps(times) => times.len(),
            Lent::Column(column) => column.len(),
        }
    }

    fn copied(&self, rows: Range<usize>) -> Option<Column> {
        match self {
            Lent::Timestamps(times) => Column::from_parts(Values::Timestamp(times.get(rows)?.to_vec()), None),
            Lent::Column(column) => (rows.end <= column.len()).then(|| column.slice(rows)),
        }
    }
}

impl Lend for Columns {
    fn lent(&self) -> Vec<(&str, Lent<'_>)> {
        self.iter().map(|(name, column)| (&**name, Lent::Column(column))).collect()
    }
}

/// Some rows of an owner. Cheap to clone.
#[derive(Clone)]
pub struct Batch {
    pub(crate) owner: Arc<dyn Lend>,
    pub(crate) rows: Range<usize>,
    /// What columns hold, where that is not what is stored.
    pub(crate) types: Arc<LogicalTypes>,
}

impl Batch {
    /// Rows of an owner; those that it has not are left out.
    pub fn new(owner: Arc<dyn Lend>, rows: Range<usize>) -> Batch {
        let there = owner.lent().iter().map(|(_, column)| column.rows()).min().unwrap_or(0);
        let end = rows.end.min(there);
        Batch { owner, rows: rows.start.min(end)..end, types: Arc::default() }
    }

    /// The same rows, where some columns are not what is stored.
    pub fn typed(self, types: Arc<LogicalTypes>) -> Batch {
        Batch { types, ..self }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// The columns of the owner, and which of their rows these are.
    pub fn lent(&self) -> (Vec<(&str, Lent<'_>)>, Range<usize>) {
        (self.owner.lent(), self.rows.clone())
    }

    /// A copy of the rows.
    ///
    /// # Errors
    /// [`ArrowError::Unfit`] where two columns have one name.
    pub fn to_columns(&self) -> Result<Columns, ArrowError> {
        let mut rows = Columns::new();
        for (name, column) in self.owner.lent() {
            let column = column.copied(self.rows.clone());
            let column =
                column.ok_or_else(|| ArrowError::unfit(format!("column {name:?} has too few rows")))?;
            rows.insert(name, column).map_err(|error| ArrowError::unfit(error.to_string()))?;
        }
        Ok(rows)
    }
}

impl From<Columns> for Batch {
    fn from(rows: Columns) -> Batch {
        let all = 0..rows.rows();
        Batch { owner: Arc::new(rows), rows: all, types: Arc::default() }
    }
}
