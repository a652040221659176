//! Aggregates of groups of rows, whatever their time.

use std::sync::Arc;

use underbelly_storage::Columns;

use crate::aggregate::Aggregate;
use crate::budget::Budget;
use crate::gather::taken;
use crate::group::Order;
use crate::grouped::Grouped;
use crate::timed::{Parts, Stream, TimedRows};
use crate::{QueryError, TIMESTAMP};

/// What needs memory for groups.
const GROUPS: &str = "a grouping";

/// Aggregates over the rows of each key that are being described.
///
/// The result has a row for each key, in order of the keys as in [`last_points`](crate::last_points): the keys, then a
/// column for each aggregate. Without keys it has one row.
///
/// ```
/// use underbelly_query::{Aggregate, GroupBy, QueryError};
/// use underbelly_storage::{Column, Columns, Timestamp};
///
/// # fn main() -> Result<(), QueryError> {
/// let at = [1, 2, 3].map(Timestamp).to_vec();
/// let trades = Columns::new()
///     .with("timestamp", Column::from(at))?
///     .with("symbol", Column::from_iter(["IBM", "AIG", "IBM"]))?
///     .with("size", Column::from(vec![10i64, 20, 30]))?;
/// let sizes = GroupBy::new(trades).by("symbol").aggregate(Aggregate::sum("size")).collect()?;
/// assert_eq!(sizes.i64s("size_sum"), Some(&[20, 40][..]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "nothing is read until it is collected"]
pub struct GroupBy<'a> {
    rows: TimedRows<'a>,
    by: Vec<Arc<str>>,
    aggregates: Vec<Aggregate>,
}

impl<'a> GroupBy<'a> {
    /// One group of all rows.
    pub fn new(rows: impl Into<TimedRows<'a>>) -> GroupBy<'a> {
        GroupBy { rows: rows.into(), by: Vec::new(), aggregates: Vec::new() }
    }

    /// A group for each value of this column; several columns make a key together.
    pub fn by(mut self, name: &str) -> GroupBy<'a> {
        self.by.push(name.into());
        self
    }

    /// What to compute of each group.
    pub fn aggregate(mut self, aggregate: Aggregate) -> GroupBy<'a> {
        self.aggregates.push(aggregate);
        self
    }

    /// Several such.
    pub fn aggregates(mut self, aggregates: impl IntoIterator<Item = Aggregate>) -> GroupBy<'a> {
        self.aggregates.extend(aggregates);
        self
    }

    /// The result.
    ///
    /// # Errors
    /// [`QueryError::UnknownColumn`] where the input lacks a column, [`QueryError::NotNumber`],
    /// [`QueryError::BadQuantile`] and [`QueryError::SumTooLarge`] where an aggregate cannot be computed,
    /// [`QueryError::Columns`] where two columns would bear one name, and what reading the input reports.
    pub fn collect(self) -> Result<Columns, QueryError> {
        let budget = self.rows.budget();
        let read = self.aggregates.iter().flat_map(Aggregate::columns);
        let is_timed = self.by.iter().chain(read.clone()).any(|name| &**name == TIMESTAMP);
        let order = match self.aggregates.iter().any(Aggregate::is_by_time) {
            true => Order::Untimed,
            false => Order::Any,
        };
        let parts = match self.rows.with_needed(self.by.iter().chain(read)).parts()? {
            Parts::Many(header, slices) if !is_timed => Parts::Many(header, Box::new(slices.in_order(order))),
            parts => parts,
        };
        let header = match &parts {
            Parts::One(stream) => &stream.header,
            Parts::Many(header, _) => header,
        };
        let none = || Grouped::new(header, &self.by, &self.aggregates, None);
        let mut grouped = none()?;
        match &parts {
            Parts::One(_) => {}
            Parts::Many(header, slices) => slices.each(
                |batches| {
                    let mut grouped = none()?;
                    take_in(&mut grouped, Stream::of_slice(header.clone(), batches), budget)?;
                    Ok(grouped)
                },
                |later| {
                    let slots = grouped.adopt(&later)?;
                    let count = grouped.len();
                    grouped.merge(later, &slots, count);
                    grouped.check(budget, GROUPS)
                },
            )?,
        }
        if let Parts::One(stream) = parts {
            take_in(&mut grouped, stream, budget)?;
        }
        if self.by.is_empty() {
            grouped.resize(1);
        }
        let order = if self.by.is_empty() { vec![0] } else { grouped.order() };
        let (keys, results) = grouped.finish()?;
        let mut columns = Columns::new();
        for (name, column) in keys {
            let column = taken(&column, &order, &name)?;
            columns.insert(name, column)?;
        }
        for (aggregate, column) in results {
            columns.insert(aggregate.shared_name(), taken(&column, &order, aggregate.name())?)?;
        }
        Ok(columns)
    }
}

/// Groups all rows.
fn take_in(grouped: &mut Grouped, mut rows: Stream<'_>, budget: Budget) -> Result<(), QueryError> {
    let mut ids = Vec::new();
    while let Some(mut rows) = rows.next_batch()? {
        grouped.number(&mut rows, &mut ids)?;
        match grouped.len() {
            1 => grouped.update_one(&rows, 0),
            groups => grouped.update(&rows, &ids, groups),
        }
        grouped.check(budget, GROUPS)?;
    }
    Ok(())
}
