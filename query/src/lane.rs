//! A column of some rows of a group: values, or texts as places among distinct ones.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use underbelly_storage::{Column, ColumnType, Columns, Values};

use crate::gather::{append, fitted, taken};
use crate::key::encode;
use crate::{QueryError, TIMESTAMP};

/// A column as it is read.
#[derive(Clone, Debug)]
pub(crate) enum Lane<'r> {
    Values(Cow<'r, Column>),
    Codes(Codes),
}

/// Texts without nulls: of each row the place of its text among distinct ones.
#[derive(Clone, Debug)]
pub(crate) struct Codes {
    /// Each is below the number of distinct texts.
    pub(crate) codes: Vec<u32>,
    pub(crate) distinct: Arc<Column>,
}

impl<'r> Lane<'r> {
    /// As the schema has it: unchanged, or widened.
    pub(crate) fn fitted(self, column_type: ColumnType, name: &str) -> Result<Lane<'r>, QueryError> {
        match self {
            Lane::Values(column) => fitted(column, column_type, name).map(Lane::Values),
            Lane::Codes(codes) => {
                fitted(Cow::Borrowed(&*codes.distinct), column_type, name)?;
                Ok(Lane::Codes(codes))
            }
        }
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        match self {
            Lane::Values(column) => column.len(),
            Lane::Codes(of) => of.codes.len(),
        }
    }

    /// Bytes of what is not lent.
    pub(crate) fn byte_size(&self) -> usize {
        match self {
            Lane::Values(Cow::Borrowed(_)) => 0,
            Lane::Values(Cow::Owned(column)) => column.byte_size(),
            // Distinct texts are few, and shared.
            Lane::Codes(of) => of.codes.len() * 4,
        }
    }

    /// The rows at `rows`.
    pub(crate) fn taken(&self, rows: &[u32], name: &str) -> Result<Lane<'static>, QueryError> {
        Ok(match self {
            Lane::Values(column) => Lane::Values(Cow::Owned(taken(column, rows, name)?)),
            Lane::Codes(of) => Lane::Codes(Codes {
                codes: rows.iter().filter_map(|row| of.codes.get(*row as usize).copied()).collect(),
                distinct: of.distinct.clone(),
            }),
        })
    }

    /// Appends a row as [`encode`] has it.
    pub(crate) fn encode(&self, row: usize, to: &mut Vec<u8>) {
        match self {
            Lane::Values(column) => encode(Some(column), row, to),
            Lane::Codes(of) => {
                let code = of.codes.get(row).map_or(0, |code| *code as usize);
                encode(Some(&Cow::Borrowed(&*of.distinct)), code, to);
            }
        }
    }

    /// The values.
    pub(crate) fn column(self, name: &str) -> Result<Cow<'r, Column>, QueryError> {
        match self {
            Lane::Values(column) => Ok(column),
            Lane::Codes(of) => taken(&of.distinct, &of.codes, name).map(Cow::Owned),
        }
    }

    /// Appends rows to a column of the same type.
    pub(crate) fn append_to(
        &self,
        to: &mut Column,
        rows: Range<usize>,
        name: &str,
    ) -> Result<(), QueryError> {
        match self {
            Lane::Values(column) => append(to, Some(column), rows, name),
            Lane::Codes(of) => {
                let codes = of.codes.get(rows).unwrap_or_default();
                let too_large = || QueryError::TooLarge { column: name.to_string() };
                to.extend_taken(&of.distinct, codes).ok_or_else(too_large)
            }
        }
    }
}

/// Rows in order of time, column by column.
#[derive(Clone, Debug)]
pub(crate) struct Batch<'r> {
    names: Vec<Arc<str>>,
    lanes: Vec<Lane<'r>>,
    rows: usize,
    /// Whether they are known to have one key.
    is_of_one_key: bool,
}

impl<'r> Batch<'r> {
    /// Lanes of `rows` rows each, with their names.
    pub(crate) fn new(
        names: Vec<Arc<str>>,
        lanes: Vec<Lane<'r>>,
        rows: usize,
        is_of_one_key: bool,
    ) -> Batch<'r> {
        Batch { names, lanes, rows, is_of_one_key }
    }

    /// Whether all rows are known to have one key of the series that they come from.
    pub(crate) fn is_of_one_key(&self) -> bool {
        self.is_of_one_key
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of what is not lent.
    pub(crate) fn byte_size(&self) -> usize {
        self.lanes.iter().map(Lane::byte_size).fold(0, usize::saturating_add)
    }

    /// A column by its position.
    pub(crate) fn lane(&self, position: usize) -> Option<&Lane<'r>> {
        self.lanes.get(position)
    }

    /// Columns by their positions.
    pub(crate) fn lanes_at(&self, positions: &[usize]) -> Vec<&Lane<'r>> {
        positions.iter().filter_map(|position| self.lanes.get(*position)).collect()
    }

    /// Makes values of a column that is read as such.
    pub(crate) fn expand(&mut self, position: usize) -> Result<(), QueryError> {
        let name = self.names.get(position).cloned();
        if let (Some(lane), Some(name)) = (self.lanes.get_mut(position), name)
            && let Lane::Codes(of) = lane
        {
            *lane = Lane::Values(Cow::Owned(taken(&of.distinct, &of.codes, &name)?));
        }
        Ok(())
    }

    /// The values of a column, which is empty afterwards.
    pub(crate) fn take(&mut self, position: usize) -> Result<Column, QueryError> {
        let empty = Lane::Values(Cow::Owned(Column::new(ColumnType::I64)));
        match (self.lanes.get_mut(position), self.names.get(position)) {
            (Some(lane), Some(name)) => Ok(std::mem::replace(lane, empty).column(name)?.into_owned()),
            _ => Ok(Column::new(ColumnType::I64)),
        }
    }

    /// The values of a column; none where it is kept as codes.
    pub(crate) fn column(&self, position: usize) -> Option<&Column> {
        match self.lanes.get(position) {
            Some(Lane::Values(column)) => Some(column),
            _ => None,
        }
    }

    /// The timestamps.
    pub(crate) fn times(&self) -> &[i64] {
        let position = self.names.iter().position(|name| &**name == TIMESTAMP);
        match position.and_then(|position| self.column(position)).map(Column::values) {
            Some(Values::Timestamp(times)) => times,
            _ => &[],
        }
    }

    /// All as columns.
    pub(crate) fn into_columns(self) -> Result<Columns, QueryError> {
        let mut columns = Columns::new();
        for (name, lane) in self.names.into_iter().zip(self.lanes) {
            let column = lane.column(&name)?.into_owned();
            columns.insert(name, column)?;
        }
        Ok(columns)
    }
}

impl From<Columns> for Batch<'_> {
    fn from(columns: Columns) -> Self {
        let rows = columns.rows();
        let (names, columns): (Vec<Arc<str>>, Vec<Column>) = columns.into_columns().into_iter().unzip();
        Batch {
            names,
            lanes: columns.into_iter().map(|column| Lane::Values(Cow::Owned(column))).collect(),
            rows,
            is_of_one_key: false,
        }
    }
}
