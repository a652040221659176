//! What operators read: sorted runs, cut into groups with zones.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use underbelly_storage::{Alone, Column, ColumnType, Workers};

use crate::{QueryError, Tombstones};

/// The name of the first column of every result.
pub const TIMESTAMP: &str = "timestamp";

/// What is known of a group without reading it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    /// Number of rows.
    pub rows: usize,
    /// Earliest timestamp, nanoseconds since 1970 UTC.
    pub ts_min: i64,
    /// Latest timestamp, nanoseconds since 1970 UTC.
    pub ts_max: i64,
    /// Smallest sequence number of a commit.
    pub seq_min: u64,
    /// Largest sequence number of a commit.
    pub seq_max: u64,
}

/// What is known of a column of a group without reading it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ColumnZone {
    /// Number of nulls.
    pub nulls: usize,
    /// Between which ends the other values lie; `None` where that is not known.
    pub values: Option<underbelly_storage::Zone>,
}

/// Sequence numbers of a group's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seqs<'a> {
    /// One number for all rows.
    One(u64),
    /// A number for each row.
    Each(Cow<'a, [u64]>),
}

impl Seqs<'_> {
    /// The number of row `i`; 0 where there is no such row.
    pub fn get(&self, i: usize) -> u64 {
        match self {
            Seqs::One(seq) => *seq,
            Seqs::Each(seqs) => seqs.get(i).copied().unwrap_or(0),
        }
    }
}

/// Which rows of a group that is kept by key are read, and in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Those {
    /// All, in the order of time.
    InTime,
    /// All, as they are kept: key by key, and so in no order of time.
    ByKey,
    /// Those of the key of this number, in the order of time.
    OfKey(usize),
}

/// Rows of a group that is kept by key, in the order that was asked for.
pub trait Part: Send + Sync {
    /// Number of rows.
    fn rows(&self) -> usize;

    /// Whether some of them are read without the others.
    fn is_end_to_end(&self) -> bool;

    /// Whether they are known to have one key.
    fn is_of_one_key(&self) -> bool;

    /// Timestamps of some rows, where these are in the order of time.
    ///
    /// # Errors
    /// As [`Run::timestamps`].
    fn timestamps(&self, rows: Range<usize>) -> Result<Vec<i64>, QueryError>;

    /// Sequence numbers of some rows.
    ///
    /// # Errors
    /// As [`Run::seqs`].
    fn seqs(&self, rows: Range<usize>) -> Result<Seqs<'static>, QueryError>;

    /// Some rows of a column; `None` where the run has no such column.
    ///
    /// # Errors
    /// As [`Run::column`].
    fn column(&self, name: &str, rows: Range<usize>) -> Result<Option<Column>, QueryError>;

    /// Single rows of a column, which rise.
    ///
    /// # Errors
    /// As [`Run::column`].
    fn column_at(&self, name: &str, rows: &[u32]) -> Result<Option<Column>, QueryError>;

    /// For some rows of a column that has a [`Run::dictionary`], the place of the text in it.
    ///
    /// # Errors
    /// As [`Run::column`].
    fn codes(&self, name: &str, rows: Range<usize>) -> Result<Vec<u32>, QueryError>;

    /// As [`Run::bounds_of`].
    fn bounds(&self, _name: &str, _rows: Range<usize>) -> Option<underbelly_storage::Zone> {
        None
    }
}

/// Rows sorted by (timestamp, seq, arrival within the commit), cut into groups that are slices of that order.
///
/// Each group holds at least one row, so the zones' times rise from group to group. All vectors of a group have
/// [`Zone::rows`] rows.
pub trait Run: Send + Sync {
    /// Number of groups.
    fn groups(&self) -> usize;

    /// What is known of a group without reading it.
    fn zone(&self, group: usize) -> Zone;

    /// The largest sequence number of all groups; 0 where there is none.
    fn seq_max(&self) -> u64 {
        (0..self.groups()).map(|group| self.zone(group).seq_max).max().unwrap_or(0)
    }

    /// Whether its rows are in memory and [`Run::timestamps`] and [`Run::column`] lend them.
    fn is_in_memory(&self) -> bool {
        false
    }

    /// Timestamps of a group in rising order, nanoseconds since 1970 UTC.
    ///
    /// # Errors
    /// [`QueryError::Source`] where the group cannot be read.
    fn timestamps(&self, group: usize) -> Result<Cow<'_, [i64]>, QueryError>;

    /// Sequence numbers of a group; among equal timestamps they rise.
    ///
    /// # Errors
    /// [`QueryError::Source`] where the group cannot be read.
    fn seqs(&self, group: usize) -> Result<Seqs<'_>, QueryError>;

    /// A column of a group; `None` where this run has no such column, which reads as nulls.
    ///
    /// # Errors
    /// [`QueryError::Source`] where the group cannot be read.
    fn column(&self, group: usize, name: &str) -> Result<Option<Cow<'_, Column>>, QueryError>;

    /// Rows of a group that are best read at a time, from the group's start on; whole groups unless a run says otherwise.
    fn piece_rows(&self) -> usize {
        usize::MAX
    }

    /// Timestamps of some rows of a group.
    ///
    /// # Errors
    /// As [`Run::timestamps`].
    fn timestamps_of(&self, group: usize, rows: Range<usize>) -> Result<Cow<'_, [i64]>, QueryError> {
        Ok(part(self.timestamps(group)?, rows))
    }

    /// Sequence numbers of some rows of a group.
    ///
    /// # Errors
    /// As [`Run::seqs`].
    fn seqs_of(&self, group: usize, rows: Range<usize>) -> Result<Seqs<'_>, QueryError> {
        Ok(match self.seqs(group)? {
            Seqs::One(seq) => Seqs::One(seq),
            Seqs::Each(seqs) => Seqs::Each(part(seqs, rows)),
        })
    }

    /// Some rows of a column of a group.
    ///
    /// # Errors
    /// As [`Run::column`].
    fn column_of(
        &self,
        group: usize,
        name: &str,
        rows: Range<usize>,
    ) -> Result<Option<Cow<'_, Column>>, QueryError> {
        let column = self.column(group, name)?;
        Ok(column.map(|column| match rows.start.min(column.len())..rows.end.min(column.len()) {
            all if all.len() == column.len() => column,
            some => Cow::Owned(column.slice(some)),
        }))
    }

    /// Single rows of a column of a group, which rise.
    ///
    /// # Errors
    /// As [`Run::column`].
    fn column_at(&self, group: usize, name: &str, rows: &[u32]) -> Result<Option<Column>, QueryError> {
        let Some(column) = self.column(group, name)? else { return Ok(None) };
        let rows: Vec<u32> = rows.iter().copied().filter(|row| (*row as usize) < column.len()).collect();
        column.take(&rows).ok_or_else(|| QueryError::TooLarge { column: name.to_string() }).map(Some)
    }

    /// The distinct texts of a column of a group where it is kept as places among them and has no null, so that these can be
    /// read in their stead; `None` where it is not, or there is no such column. They are few beside the rows.
    ///
    /// # Errors
    /// As [`Run::column`].
    fn dictionary(&self, _group: usize, _name: &str) -> Result<Option<Column>, QueryError> {
        Ok(None)
    }

    /// For some rows of a column that has a [`Run::dictionary`], the place of the text in it.
    ///
    /// # Errors
    /// As [`Run::column`].
    fn codes(&self, _group: usize, _name: &str, _rows: Range<usize>) -> Result<Vec<u32>, QueryError> {
        Ok(Vec::new())
    }

    /// Number of distinct keys of a group whose rows are kept by key, so that those of one are read without the others; 0 where
    /// they are not. Where it is more, the run answers the two calls below.
    fn clusters(&self, _group: usize) -> usize {
        0
    }

    /// Rows that a key has at least, on the average of a group, where keys are best read one by one.
    fn cluster_rows_min(&self) -> usize {
        0
    }

    /// Of a group that is kept by key: a key column, one row for each distinct key; `None` where there is no such key.
    ///
    /// # Errors
    /// As [`Run::column`].
    fn cluster_keys(&self, _group: usize, _name: &str) -> Result<Option<Column>, QueryError> {
        Ok(None)
    }

    /// Rows of a group that is kept by key.
    ///
    /// # Errors
    /// As [`Run::timestamps`].
    fn part(&self, _group: usize, _those: Those) -> Result<Option<Box<dyn Part + '_>>, QueryError> {
        Ok(None)
    }

    /// Bytes of a column of a group as it is kept; 0 where that is not known.
    fn bytes_of(&self, _group: usize, _name: &str) -> u64 {
        0
    }

    /// Somebody has read what he wants of a group: its bytes need not stay in memory for him. Called by operators that may hold
    /// little ([`Source::memory_max`]) alone.
    fn passed(&self, _group: usize) {}

    /// What is known of a column of a group without reading it; `None` where that is nothing.
    fn column_zone(&self, _group: usize, _name: &str) -> Option<ColumnZone> {
        None
    }

    /// Between which values all values of some rows of a column lie, but for nulls, as far as that is known without reading them.
    /// The bounds themselves need not be among them.
    fn bounds_of(&self, _group: usize, _name: &str, _rows: Range<usize>) -> Option<underbelly_storage::Zone> {
        None
    }
}

/// The elements of a range, as far as there are some.
fn part<T: Copy>(all: Cow<'_, [T]>, range: Range<usize>) -> Cow<'_, [T]> {
    let range = range.start.min(all.len())..range.end.min(all.len());
    match all {
        all if range.len() == all.len() => all,
        Cow::Borrowed(all) => Cow::Borrowed(all.get(range).unwrap_or_default()),
        Cow::Owned(all) => Cow::Owned(all.get(range).unwrap_or_default().to_vec()),
    }
}

/// What an operator reads: the runs of one series type and its schema, as of one commit.
pub trait Source {
    /// Columns of the type, without the timestamp.
    fn schema(&self) -> &Schema;

    /// The runs in commit order.
    fn runs(&self) -> &[Arc<dyn Run>];

    /// Rows with a larger sequence number are not visible.
    fn seq(&self) -> u64;

    /// What hides rows; those with a larger sequence number hide nothing.
    fn tombstones(&self) -> Tombstones {
        Tombstones::default()
    }

    /// Who shares the work of an operator; the caller alone unless a source says otherwise. Results are the same whoever does.
    fn workers(&self) -> &dyn Workers {
        &Alone
    }

    /// Bytes that an operator may hold, about; as many as it needs unless a source says otherwise. With less it reads shorter pieces, fewer
    /// at a time; where what it holds grows with its answer it answers [`QueryError::Memory`].
    fn memory_max(&self) -> usize {
        usize::MAX
    }

    /// Rows that a worker takes at a time, about. Sums of floating-point numbers are summed up in slices of so many rows.
    fn slice_rows(&self) -> usize {
        131_072
    }
}

/// A column of a series type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaColumn {
    /// The column's name.
    pub name: Arc<str>,
    /// The type of its values. A run may hold one that widens to it.
    pub column_type: ColumnType,
    /// Whether the column is part of the key.
    pub key: bool,
}

/// The columns of a series type, without the timestamp that each has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    /// The columns in order.
    pub columns: Vec<SchemaColumn>,
}

impl Schema {
    /// A column by name.
    ///
    /// # Errors
    /// [`QueryError::UnknownColumn`] with the names that there are.
    pub fn column(&self, name: &str) -> Result<&SchemaColumn, QueryError> {
        self.columns.iter().find(|c| &*c.name == name).ok_or_else(|| QueryError::UnknownColumn {
            name: name.to_string(),
            known: std::iter::once(TIMESTAMP.to_string())
                .chain(self.columns.iter().map(|c| c.name.to_string()))
                .collect(),
        })
    }

    /// The key columns in order.
    pub fn keys(&self) -> impl Iterator<Item = &SchemaColumn> {
        self.columns.iter().filter(|c| c.key)
    }
}
