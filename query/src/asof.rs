//! As-of joins: each row of the left input with the row of the right one that was valid then.
//!
//! The idea is kdb+'s `aj`, with the options of pandas' `merge_asof` and Polars' `join_asof`.

mod by_key;
mod keys;
mod matching;
mod sliced;

use std::sync::Arc;
use std::time::Duration;

use underbelly_storage::{Column, Columns};

use crate::QueryError;
use crate::TIMESTAMP;
use crate::asof::matching::{Matching, Rule};
use crate::asof::sliced::{AT_ONCE, Joined, Sliced, Wanted, joined_of};
use crate::budget::Budget;
use crate::gather::rows_taken;
use crate::slices::Slices;
use crate::timed::{TimedRows, joined, key_positions};

/// Which right row a left row is joined with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The last row at or before it.
    #[default]
    Backward,
    /// The first row at or after it.
    Forward,
    /// The nearer of the two; the earlier one where both are as near.
    Nearest,
}

/// An as-of join that is being described.
///
/// The result has the left rows in order of time, each once, with the columns of the right row that matches; nulls
/// where none does. Rows of one instant stay in the order of their input, and the last of them is the last row at that
/// instant. Keys compare as in [`Scan::key`](crate::Scan::key): null equals null.
///
/// The columns are all of the left input, then those of the right one without its keys and its timestamp.
///
/// Both inputs are read once, in batches; nothing of the right one behind the last left row. A backward join keeps one right row for each
/// key and a few batches; of two stored inputs the joined rows of eight slices of time, each some 131,072 rows of either. A forward
/// or nearest join holds left rows back until their match is known, at worst until the right input ends; a
/// [tolerance](AsOf::tolerance) lets them go as soon as nothing within it can come.
///
/// ```
/// use underbelly_query::{AsOf, QueryError};
/// use underbelly_storage::{Column, Columns, Timestamp, Value};
///
/// # fn main() -> Result<(), QueryError> {
/// let at = |times: [i64; 3]| Column::from(times.map(Timestamp).to_vec());
/// let trades = Columns::new().with("timestamp", at([10, 20, 30]))?.with("price", Column::from(vec![5.0, 6.0, 7.0]))?;
/// let quotes = Columns::new().with("timestamp", at([15, 30, 31]))?.with("bid", Column::from(vec![5.9, 6.9, 9.9]))?;
/// let joined = AsOf::new(trades, quotes).collect()?;
/// assert_eq!(joined.value("bid", 0), Some(Value::Null));
/// assert_eq!(joined.row(1), [Timestamp(20).into(), 6.0.into(), 5.9.into()]);
/// assert_eq!(joined.row(2), [Timestamp(30).into(), 7.0.into(), 6.9.into()]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a join reads nothing until it is asked for batches"]
pub struct AsOf<'a> {
    left: TimedRows<'a>,
    right: TimedRows<'a>,
    keys: Vec<(Arc<str>, Arc<str>)>,
    rule: Rule,
    inner: bool,
    suffix: Arc<str>,
    right_timestamp: Option<Arc<str>>,
}

impl<'a> AsOf<'a> {
    /// Joins each left row with the last right row at or before it.
    pub fn new(left: impl Into<TimedRows<'a>>, right: impl Into<TimedRows<'a>>) -> AsOf<'a> {
        AsOf {
            left: left.into(),
            right: right.into(),
            keys: Vec::new(),
            rule: Rule { direction: Direction::Backward, tolerance: u64::MAX, exact: true },
            inner: false,
            suffix: "_right".into(),
            right_timestamp: None,
        }
    }

    /// Only right rows that have the left row's value in this column, which both inputs have; several must all agree.
    /// The columns need not be keys of a series.
    pub fn by(self, name: &str) -> AsOf<'a> {
        self.by_pair(name, name)
    }

    /// As [`AsOf::by`], where the column has another name in the right input.
    pub fn by_pair(mut self, left: &str, right: &str) -> AsOf<'a> {
        self.keys.push((left.into(), right.into()));
        self
    }

    /// Which right row a left row is joined with.
    pub fn direction(mut self, direction: Direction) -> AsOf<'a> {
        self.rule.direction = direction;
        self
    }

    /// Only right rows that are at most so far away in time; any unless given.
    pub fn tolerance(mut self, tolerance: Duration) -> AsOf<'a> {
        // No two timestamps are farther from each other than 2^64 - 1 ns.
        self.rule.tolerance = u64::try_from(tolerance.as_nanos()).unwrap_or(u64::MAX);
        self
    }

    /// Whether a right row of the same instant may match: yes unless told otherwise.
    pub fn exact(mut self, exact: bool) -> AsOf<'a> {
        self.rule.exact = exact;
        self
    }

    /// Leaves out left rows without a match.
    pub fn inner(mut self) -> AsOf<'a> {
        self.inner = true;
        self
    }

    /// What a right column's name gets behind it where the left input has a column of that name: "_right" unless given.
    pub fn suffix(mut self, suffix: &str) -> AsOf<'a> {
        self.suffix = suffix.into();
        self
    }

    /// Gives the time of the right row as a column of this name.
    pub fn right_timestamp(mut self, name: &str) -> AsOf<'a> {
        self.right_timestamp = Some(name.into());
        self
    }

    /// The result in batches of at least one row.
    ///
    /// # Errors
    /// [`QueryError::UnknownColumn`] where an input lacks a key or its timestamp, [`QueryError::KeyTypes`] where keys
    /// cannot be equal, [`QueryError::TimeType`] and [`QueryError::NoTime`] where rows have no time,
    /// [`QueryError::Columns`] where two columns would bear one name, and what reading the inputs reports; the
    /// iterator gives what comes up later, and ends after an error.
    pub fn batches(self) -> Result<AsOfBatches<'a>, QueryError> {
        let budget = self.left.budget().min(self.right.budget());
        let slices = (self.left.slices()?, self.right.slices()?);
        let (left, right) = (self.left.open()?, self.right.open()?);
        let keys = key_positions(&left, &right, &self.keys)?;
        let mut header = left.header.clone();
        let mut columns = Vec::new();
        for (position, (name, column)) in right.header.iter().enumerate() {
            let name = match &self.right_timestamp {
                Some(to) if &**name == TIMESTAMP => to.clone(),
                None if &**name == TIMESTAMP => continue,
                _ if keys.1.contains(&position) => continue,
                _ if left.header.index_of(name).is_some() => format!("{name}{}", self.suffix).into(),
                _ => name.clone(),
            };
            header.insert(name, Column::new(column.column_type()))?;
            columns.push(position);
        }
        // A slice of each, and what comes of them.
        let slice_bytes = |(left, right): (&Slices<'_>, &Slices<'_>)| {
            left.slice_bytes().saturating_mul(2).saturating_add(right.slice_bytes().saturating_mul(2))
        };
        let fits = |slices| slice_bytes(slices) <= budget.share(2);
        let joining = match slices {
            (Some(left_slices), Some(right_slices))
                if fits((&left_slices, &right_slices))
                    && self.rule.direction == Direction::Backward
                    && left_slices.len().max(right_slices.len()) > 1 =>
            {
                let headers = (left.header, right.header);
                let at_once = budget.at_once(AT_ONCE, slice_bytes((&left_slices, &right_slices)));
                let wanted = Wanted { headers, keys, columns, rule: self.rule, budget };
                Joining::Sliced(Box::new(Sliced::new(left_slices, right_slices, wanted, at_once)))
            }
            _ => {
                let matching = Matching::new(left, right, keys, columns, self.rule);
                Joining::One(Box::new(matching.within(budget)))
            }
        };
        Ok(AsOfBatches { joining: Some(joining), header, inner: self.inner, budget })
    }

    /// All rows at once; columns without rows where there is none.
    ///
    /// # Errors
    /// As [`AsOf::batches`], and [`QueryError::TooLarge`] where a column would pass 4 GiB of text.
    pub fn collect(self) -> Result<Columns, QueryError> {
        let batches = self.batches()?;
        joined(batches.header.clone(), batches.budget, batches)
    }
}

/// The batches of an [`AsOf`] join.
pub struct AsOfBatches<'a> {
    /// `None` after an error and at the end.
    joining: Option<Joining<'a>>,
    /// The columns of the result, without rows.
    header: Columns,
    inner: bool,
    budget: Budget,
}

/// How rows are joined.
enum Joining<'a> {
    One(Box<Matching<'a>>),
    Sliced(Box<Sliced<'a>>),
}

impl AsOfBatches<'_> {
    /// The names of the columns, "timestamp" first where it is first in the left input.
    pub fn names(&self) -> &[Arc<str>] {
        self.header.names()
    }

    fn batch(&mut self) -> Result<Option<Columns>, QueryError> {
        let Some(joining) = &mut self.joining else { return Ok(None) };
        loop {
            let joined = match joining {
                Joining::One(matching) => joined_of(matching, &self.header)?,
                Joining::Sliced(sliced) => sliced.next(&self.header)?,
            };
            let Some(Joined { mut rows, spots, .. }) = joined else { return Ok(None) };
            if self.inner && spots.iter().any(|spot| spot.is_nowhere()) {
                let matched = spots.iter().enumerate().filter(|(_, spot)| !spot.is_nowhere());
                rows = rows_taken(&rows, &matched.map(|(row, _)| row as u32).collect::<Vec<_>>())?;
            }
            if !rows.is_empty() {
                return Ok(Some(rows));
            }
        }
    }
}

impl Iterator for AsOfBatches<'_> {
    type Item = Result<Columns, QueryError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.batch().transpose();
        if !matches!(batch, Some(Ok(_))) {
            self.joining = None;
        }
        batch
    }
}

impl std::iter::FusedIterator for AsOfBatches<'_> {}
