//! Inputs of operators that take more than one series: rows in order of time, stored or in memory.

use std::sync::Arc;

use underbelly_storage::{Column, ColumnType, Columns, Timestamp, Values};

use crate::budget::Budget;
use crate::gather::rows_taken;
use crate::interval::Interval;
use crate::lane::Batch;
use crate::resample::Newest;
use crate::slices::Slices;
use crate::{Batches, Predicate, QueryError, Scan, TIMESTAMP};

/// Rows in order of time: a [`Scan`], or [`Columns`] with a column "timestamp" that need not be sorted.
///
/// Columns that are not in order of time are sorted; rows of one instant stay in their order.
#[derive(Clone)]
pub struct TimedRows<'a>(Kind<'a>);

#[derive(Clone)]
enum Kind<'a> {
    Scan(Scan<'a>),
    Columns(Columns),
}

impl<'a> From<Scan<'a>> for TimedRows<'a> {
    fn from(scan: Scan<'a>) -> TimedRows<'a> {
        TimedRows(Kind::Scan(scan))
    }
}

impl From<Columns> for TimedRows<'_> {
    fn from(columns: Columns) -> Self {
        TimedRows(Kind::Columns(columns))
    }
}

/// Rows being read.
pub(crate) struct Stream<'a> {
    /// The columns, without rows; "timestamp" is among them.
    pub(crate) header: Columns,
    rows: Left<'a>,
}

/// What is left of them.
enum Left<'a> {
    Scan(Box<Batches<'a>>),
    Columns(Option<Columns>),
}

/// Rows to be read, by one or several.
pub(crate) enum Parts<'a> {
    One(Stream<'a>),
    /// In slices, with the header of each.
    Many(Columns, Box<Slices<'a>>),
}

impl<'a> TimedRows<'a> {
    /// Begins to read, with all columns.
    pub(crate) fn open(self) -> Result<Stream<'a>, QueryError> {
        match self.0 {
            Kind::Scan(scan) => {
                let header = scan.clone().rows_max(0).collect()?;
                Ok(Stream { header, rows: Left::Scan(Box::new(scan.batches())) })
            }
            Kind::Columns(columns) => {
                let columns = sorted(columns)?;
                let header = columns.slice(0..0);
                Ok(Stream { header, rows: Left::Columns((!columns.is_empty()).then_some(columns)) })
            }
        }
    }

    /// Begins to read what is asked for. A scan that names its columns gives all of these, another one reads those that are
    /// needed alone; rows in memory are as they are.
    pub(crate) fn open_needed<'n>(
        self,
        needed: impl IntoIterator<Item = &'n Arc<str>>,
    ) -> Result<Stream<'a>, QueryError> {
        self.with_needed(needed).open()
    }

    /// Begins to read, in slices where there are several.
    pub(crate) fn parts(self) -> Result<Parts<'a>, QueryError> {
        match self.slices()? {
            Some(slices) if slices.len() > 1 => Ok(Parts::Many(self.open()?.header, Box::new(slices))),
            _ => self.open().map(Parts::One),
        }
    }

    /// The same rows, in order of time and as many as are asked for, whatever is asked of them then.
    pub(crate) fn settled(self) -> Result<TimedRows<'a>, QueryError> {
        Ok(TimedRows(match self.0 {
            Kind::Scan(scan) if scan.is_limited() => Kind::Columns(scan.collect()?),
            Kind::Scan(scan) => Kind::Scan(scan),
            Kind::Columns(columns) => Kind::Columns(sorted(columns)?),
        }))
    }

    /// Finds the newest windows of rows that are settled and lie in an interval.
    pub(crate) fn newest(&self, found: &mut Newest<'_>, interval: Interval) -> Result<(), QueryError> {
        match &self.0 {
            Kind::Scan(scan) => {
                let (source, wanted) = scan.wanted_within(interval)?;
                found.take_stored(source.runs(), &wanted)
            }
            Kind::Columns(columns) => {
                let times = times(columns);
                found.take(times.get(..times.partition_point(|ts| *ts <= interval.last)).unwrap_or_default());
                Ok(())
            }
        }
    }

    /// Of rows that are settled those at an instant or behind it.
    pub(crate) fn since(self, at: i64) -> TimedRows<'a> {
        TimedRows(match self.0 {
            Kind::Scan(scan) => Kind::Scan(scan.filter(TIMESTAMP, Predicate::AtLeast(Timestamp(at).into()))),
            Kind::Columns(columns) => {
                let start = times(&columns).partition_point(|ts| *ts < at);
                Kind::Columns(columns.slice(start..columns.rows()))
            }
        })
    }

    /// None of the rows.
    pub(crate) fn none(self) -> TimedRows<'a> {
        TimedRows(match self.0 {
            // No instant is null.
            Kind::Scan(scan) => Kind::Scan(scan.filter(TIMESTAMP, Predicate::IsNull)),
            Kind::Columns(columns) => Kind::Columns(columns.slice(0..0)),
        })
    }

    /// Slices of a scan.
    pub(crate) fn slices(&self) -> Result<Option<Slices<'a>>, QueryError> {
        match &self.0 {
            Kind::Scan(scan) => scan.slices(),
            Kind::Columns(_) => Ok(None),
        }
    }

    /// What an operator may hold that reads them.
    pub(crate) fn budget(&self) -> Budget {
        match &self.0 {
            Kind::Scan(scan) => scan.budget(),
            Kind::Columns(_) => Budget::ALL,
        }
    }

    /// The same rows with those columns that are needed, where a scan names none.
    pub(crate) fn with_needed<'n>(self, needed: impl IntoIterator<Item = &'n Arc<str>>) -> TimedRows<'a> {
        let mut names: Vec<Arc<str>> = Vec::new();
        for name in needed {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        match self.0 {
            Kind::Scan(scan) => TimedRows(Kind::Scan(scan.columns_unless_named(names))),
            rows => TimedRows(rows),
        }
    }
}

impl<'a> Stream<'a> {
    /// The rows of a slice.
    pub(crate) fn of_slice(header: Columns, batches: Batches<'a>) -> Stream<'a> {
        Stream { header, rows: Left::Scan(Box::new(batches)) }
    }

    /// The next rows, at least one; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Columns>, QueryError> {
        match &mut self.rows {
            Left::Scan(batches) => batches.next().transpose(),
            Left::Columns(columns) => Ok(columns.take()),
        }
    }

    /// The same, as they were read where that can be.
    pub(crate) fn next_batch(&mut self) -> Result<Option<Batch<'a>>, QueryError> {
        match &mut self.rows {
            Left::Scan(batches) => batches.next_batch(),
            Left::Columns(columns) => Ok(columns.take().map(Batch::from)),
        }
    }

    /// The position of a column.
    pub(crate) fn position(&self, name: &str) -> Result<usize, QueryError> {
        position(&self.header, name)
    }
}

/// The position of a column.
pub(crate) fn position(columns: &Columns, name: &str) -> Result<usize, QueryError> {
    let unknown = || QueryError::UnknownColumn {
        name: name.to_string(),
        known: columns.names().iter().map(|name| name.to_string()).collect(),
    };
    columns.index_of(name).ok_or_else(unknown)
}

/// The timestamps of rows that a [`Stream`] gave.
pub(crate) fn times(rows: &Columns) -> &[i64] {
    rows.timestamps(TIMESTAMP).unwrap_or_default()
}

/// Columns by their positions.
pub(crate) fn columns_at<'c>(rows: &'c Columns, positions: &[usize]) -> Vec<&'c Column> {
    positions.iter().map(|position| rows.column_at(*position)).collect()
}

/// The rows in order of their timestamps, rows of one instant in the order that they had.
fn sorted(rows: Columns) -> Result<Columns, QueryError> {
    let column = rows.column_at(position(&rows, TIMESTAMP)?);
    let Values::Timestamp(times) = column.values() else {
        return Err(QueryError::TimeType { found: column.column_type() });
    };
    if let Some(row) = (0..column.len()).find(|row| column.is_null(*row)) {
        return Err(QueryError::NoTime { row });
    }
    let end = u32::try_from(times.len()).map_err(|_| QueryError::TooManyRows { rows: times.len() })?;
    if times.is_sorted() {
        return Ok(rows);
    }
    let mut order: Vec<u32> = (0..end).collect();
    order.sort_by_key(|row| times[*row as usize]);
    rows_taken(&rows, &order)
}

/// The rows of all batches in one piece; those of `header` where there is none.
pub(crate) fn joined(
    header: Columns,
    budget: Budget,
    batches: impl Iterator<Item = Result<Columns, QueryError>>,
) -> Result<Columns, QueryError> {
    let mut all: Option<Vec<(Arc<str>, Column)>> = None;
    let mut held = 0usize;
    for batch in batches {
        let batch = batch?;
        held = held.saturating_add(batch.byte_size());
        let (operator, remedy) = ("a join whose rows are all held at once", "take them in batches, or fewer");
        budget.check(operator, held, remedy)?;
        let batch = batch.into_columns();
        let Some(all) = &mut all else {
            all = Some(batch);
            continue;
        };
        for ((name, to), (_, from)) in all.iter_mut().zip(&batch) {
            crate::gather::append(to, Some(from), 0..from.len(), name)?;
        }
    }
    let Some(all) = all else { return Ok(header) };
    let mut columns = Columns::new();
    all.into_iter().try_for_each(|(name, column)| columns.insert(name, column))?;
    Ok(columns)
}

/// The positions of key columns in a left and in a right input.
pub(crate) fn key_positions(
    left: &Stream<'_>,
    right: &Stream<'_>,
    names: &[(Arc<str>, Arc<str>)],
) -> Result<(Vec<usize>, Vec<usize>), QueryError> {
    let mut keys = (Vec::new(), Vec::new());
    for (left_name, right_name) in names {
        let (l, r) = (left.position(left_name)?, right.position(right_name)?);
        let left_type = left.header.column_at(l).column_type();
        let right_type = right.header.column_at(r).column_type();
        if !comparable(left_type, right_type) {
            let (left, right) = (left_name.to_string(), right_name.to_string());
            return Err(QueryError::KeyTypes { left, left_type, right, right_type });
        }
        keys.0.push(l);
        keys.1.push(r);
    }
    Ok(keys)
}

/// Whether keys of two types can be equal: they are numbered alike.
fn comparable(a: ColumnType, b: ColumnType) -> bool {
    use ColumnType::{F32, F64, I32, I64};
    a == b || matches!((a, b), (I32, I64) | (I64, I32) | (F32, F64) | (F64, F32))
}
