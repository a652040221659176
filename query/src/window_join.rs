//! Window joins: each row of the left input with aggregates of the right rows around it; rolling aggregates are those of
//! an input around its own rows.
//!
//! The idea is kdb+'s `wj1`; rolling windows are those of pandas and Polars.

use std::sync::Arc;
use std::time::Duration;

use underbelly_storage::{Column, ColumnType, Columns};

use crate::aggregate::{Aggregate, State};
use crate::budget::Budget;
use crate::ids::KeyIds;
use crate::timed::{Stream, TimedRows, columns_at, joined, key_positions, times};
use crate::{Closed, QueryError};

/// Left rows that are answered at a time.
const BATCH_ROWS: usize = 65_536;

/// A window join that is being described.
///
/// The result has the left rows in order of time, each once, with a column for each aggregate over the right rows of its
/// key from `before` before it until `after` after it. Both ends belong to the window unless told otherwise.
///
/// Both inputs are read once, in batches; right rows are held while a left row of the batch may need them. The time
/// that it takes is that of reading each right row once for each window that holds it.
///
/// ```
/// use std::time::Duration;
/// use underbelly_query::{Aggregate, QueryError, WindowJoin};
/// use underbelly_storage::{Column, Columns, Timestamp};
///
/// # fn main() -> Result<(), QueryError> {
/// let at = |times: Vec<i64>| Column::from(times.into_iter().map(Timestamp).collect::<Vec<_>>());
/// let trades = Columns::new().with("timestamp", at(vec![10, 20]))?;
/// let quotes = Columns::new().with("timestamp", at(vec![8, 9, 12, 21]))?.with("bid", Column::from(vec![1.0, 3.0, 8.0, 5.0]))?;
/// let joined = WindowJoin::new(trades, quotes, Duration::from_nanos(2), Duration::from_nanos(1));
/// let joined = joined.aggregate(Aggregate::mean("bid")).collect()?;
/// assert_eq!(joined.f64s("bid_mean"), Some(&[2.0, 5.0][..]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a join reads nothing until it is asked for batches"]
pub struct WindowJoin<'a> {
    left: TimedRows<'a>,
    right: TimedRows<'a>,
    keys: Vec<(Arc<str>, Arc<str>)>,
    window: Window,
    aggregates: Vec<Aggregate>,
}

/// What of the right input belongs to a left row.
#[derive(Clone, Copy)]
struct Window {
    /// Nanoseconds.
    before: u64,
    after: u64,
    closed: Closed,
}

impl Window {
    /// The first and the last instant of the window of a row; none is between where the first is larger.
    fn around(self, ts: i64) -> (i128, i128) {
        let first = i128::from(ts) - i128::from(self.before);
        let last = i128::from(ts) + i128::from(self.after);
        let (is_left, is_right) = match self.closed {
            Closed::Left => (true, false),
            Closed::Right => (false, true),
            Closed::Both => (true, true),
            Closed::Neither => (false, false),
        };
        (first + i128::from(!is_left), last - i128::from(!is_right))
    }
}

impl<'a> WindowJoin<'a> {
    /// Joins each left row with the right rows from `before` before it until `after` after it.
    pub fn new(
        left: impl Into<TimedRows<'a>>,
        right: impl Into<TimedRows<'a>>,
        before: Duration,
        after: Duration,
    ) -> WindowJoin<'a> {
        // No two timestamps are farther from each other than 2^64 - 1 ns.
        let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        WindowJoin {
            left: left.into(),
            right: right.into(),
            keys: Vec::new(),
            window: Window { before: ns(before), after: ns(after), closed: Closed::Both },
            aggregates: Vec::new(),
        }
    }

    /// Joins each row with those of the same input that are less than `length` before it, and with all of its own
    /// instant.
    pub fn rolling(rows: impl Into<TimedRows<'a>>, length: Duration) -> WindowJoin<'a> {
        let rows = rows.into();
        // A window of no length has the rows of its instant.
        let closed = if length.is_zero() { Closed::Both } else { Closed::Right };
        WindowJoin::new(rows.clone(), rows, length, Duration::ZERO).closed(closed)
    }

    /// Only right rows that have the left row's value in this column, which both inputs have; several must all agree.
    pub fn by(self, name: &str) -> WindowJoin<'a> {
        self.by_pair(name, name)
    }

    /// As [`WindowJoin::by`], where the column has another name in the right input.
    pub fn by_pair(mut self, left: &str, right: &str) -> WindowJoin<'a> {
        self.keys.push((left.into(), right.into()));
        self
    }

    /// Which ends of the window belong to it.
    pub fn closed(mut self, closed: Closed) -> WindowJoin<'a> {
        self.window.closed = closed;
        self
    }

    /// What to compute of the right rows.
    pub fn aggregate(mut self, aggregate: Aggregate) -> WindowJoin<'a> {
        self.aggregates.push(aggregate);
        self
    }

    /// Several such.
    pub fn aggregates(mut self, aggregates: impl IntoIterator<Item = Aggregate>) -> WindowJoin<'a> {
        self.aggregates.extend(aggregates);
        self
    }

    /// The result in batches of at least one row.
    ///
    /// # Errors
    /// [`QueryError::UnknownColumn`] where an input lacks a column, [`QueryError::KeyTypes`] where keys cannot be equal,
    /// [`QueryError::NotNumber`] and [`QueryError::BadQuantile`] where an aggregate cannot be computed,
    /// [`QueryError::TimeType`] and [`QueryError::NoTime`] where rows have no time, [`QueryError::Columns`] where two
    /// columns would bear one name, and what reading the inputs reports; the iterator gives what comes up later, and
    /// ends after an error.
    pub fn batches(self) -> Result<WindowJoinBatches<'a>, QueryError> {
        let read = self.aggregates.iter().flat_map(Aggregate::columns);
        let keys = self.keys.iter().map(|(_, right)| right);
        let budget = self.left.budget().min(self.right.budget());
        let (left, right) = (self.left.open()?, self.right.open_needed(keys.chain(read))?);
        let keys = key_positions(&left, &right, &self.keys)?;
        let mut aggregates = Vec::new();
        let mut header = left.header.clone();
        for aggregate in self.aggregates {
            let columns = aggregate.columns().into_iter().map(|name| right.position(name));
            let columns: Vec<usize> = columns.collect::<Result<_, _>>()?;
            let of = |column: &usize| right.header.column_at(*column).column_type();
            let types: Vec<ColumnType> = columns.iter().map(of).collect();
            aggregate.check(&types)?;
            header.insert(aggregate.shared_name(), State::new(&aggregate, &types).finish()?)?;
            aggregates.push(Computed { aggregate, columns, types });
        }
        let ids = KeyIds::new(&columns_at(&left.header, &keys.0));
        let near = Near { rows: right.header.clone(), ids: Vec::new(), ended: false };
        let (window, waiting) = (self.window, None);
        let state = Joining { left, right, keys, ids, window, aggregates, near, waiting, budget };
        Ok(WindowJoinBatches { state: Some(state), header, budget })
    }

    /// All rows at once; columns without rows where there is none.
    ///
    /// # Errors
    /// As [`WindowJoin::batches`], and [`QueryError::TooLarge`] where a column would pass 4 GiB of text.
    pub fn collect(self) -> Result<Columns, QueryError> {
        let batches = self.batches()?;
        joined(batches.header.clone(), batches.budget, batches)
    }
}

/// An aggregate, and its columns in the right input.
struct Computed {
    aggregate: Aggregate,
    columns: Vec<usize>,
    types: Vec<ColumnType>,
}

/// Right rows that windows of the batch may hold.
struct Near {
    rows: Columns,
    ids: Vec<u32>,
    ended: bool,
}

struct Joining<'a> {
    left: Stream<'a>,
    right: Stream<'a>,
    keys: (Vec<usize>, Vec<usize>),
    ids: KeyIds,
    window: Window,
    aggregates: Vec<Computed>,
    near: Near,
    /// Left rows that were read, from the first that is not answered.
    waiting: Option<(Columns, usize)>,
    budget: Budget,
}

/// The batches of a [`WindowJoin`].
pub struct WindowJoinBatches<'a> {
    /// `None` after an error and at the end.
    state: Option<Joining<'a>>,
    header: Columns,
    budget: Budget,
}

impl Iterator for WindowJoinBatches<'_> {
    type Item = Result<Columns, QueryError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.state.as_mut()?.batch().transpose();
        if !matches!(batch, Some(Ok(_))) {
            self.state = None;
        }
        batch
    }
}

impl std::iter::FusedIterator for WindowJoinBatches<'_> {}

impl Joining<'_> {
    fn batch(&mut self) -> Result<Option<Columns>, QueryError> {
        let Some(mut left) = self.next_left()? else { return Ok(None) };
        if let [first, .., last] | [first @ last] = times(&left) {
            let (from, to) = (self.window.around(*first).0, self.window.around(*last).1);
            self.read_right(from, to)?;
        }
        let mut left_ids = Vec::new();
        self.ids.number(&columns_at(&left, &self.keys.0), left.rows(), &mut left_ids);
        let mut states: Vec<State> = Vec::new();
        for Computed { aggregate, types, .. } in &self.aggregates {
            let mut state = State::new(aggregate, types);
            state.resize(left.rows());
            states.push(state);
        }
        let by_key = ByKey::new(&self.near.ids, self.ids.len());
        // Where the windows of each key begin and end in its rows; both only move on.
        let mut ends: Vec<(usize, usize)> = vec![(0, 0); self.ids.len()];
        let right_times = times(&self.near.rows);
        let (mut rows, mut slots) = (Vec::new(), Vec::new());
        for (slot, (ts, id)) in times(&left).iter().zip(&left_ids).enumerate() {
            let (first, last) = self.window.around(*ts);
            let of_key = by_key.rows(*id);
            let (start, end) = &mut ends[*id as usize];
            let time = |row: usize| of_key.get(row).map(|row| i128::from(right_times[*row as usize]));
            while time(*end).is_some_and(|ts| ts <= last) {
                *end += 1;
            }
            while *start < *end && time(*start).is_some_and(|ts| ts < first) {
                *start += 1;
            }
            for piece in of_key.get(*start..*end).unwrap_or_default().chunks(BATCH_ROWS) {
                rows.extend_from_slice(piece);
                slots.resize(rows.len(), slot as u32);
                if rows.len() >= BATCH_ROWS {
                    update(&mut states, &self.aggregates, &self.near.rows, &rows, &slots)?;
                    rows.clear();
                    slots.clear();
                }
            }
        }
        update(&mut states, &self.aggregates, &self.near.rows, &rows, &slots)?;
        for (state, Computed { aggregate, .. }) in states.into_iter().zip(&self.aggregates) {
            left.insert(aggregate.shared_name(), state.finish()?)?;
        }
        Ok(Some(left))
    }

    fn next_left(&mut self) -> Result<Option<Columns>, QueryError> {
        let Some((rows, start)) = self.waiting.take() else {
            return match self.left.next()? {
                Some(rows) if rows.rows() > BATCH_ROWS => {
                    self.waiting = Some((rows, 0));
                    self.next_left()
                }
                rows => Ok(rows),
            };
        };
        let end = rows.rows().min(start + BATCH_ROWS);
        let batch = rows.slice(start..end);
        if end < rows.rows() {
            self.waiting = Some((rows, end));
        }
        Ok(Some(batch))
    }

    /// Holds the right rows from one instant to another, and perhaps some later ones.
    fn read_right(&mut self, from: i128, to: i128) -> Result<(), QueryError> {
        let near = &mut self.near;
        let gone = times(&near.rows).partition_point(|ts| i128::from(*ts) < from);
        if gone > 0 {
            near.rows = near.rows.slice(gone..near.rows.rows());
            near.ids.drain(..gone);
        }
        let (mut new, mut held) = (Vec::new(), near.rows.byte_size());
        let mut last = times(&near.rows).last().copied();
        while !near.ended && last.is_none_or(|last| i128::from(last) <= to) {
            let Some(mut rows) = self.right.next()? else {
                near.ended = true;
                break;
            };
            last = times(&rows).last().copied();
            let gone = times(&rows).partition_point(|ts| i128::from(*ts) < from);
            if gone == rows.rows() {
                continue;
            }
            if gone > 0 {
                rows = rows.slice(gone..rows.rows());
            }
            let mut ids = Vec::new();
            self.ids.number(&columns_at(&rows, &self.keys.1), rows.rows(), &mut ids);
            near.ids.extend(ids);
            held = held.saturating_add(rows.byte_size());
            self.budget.check("windows of another input", held, "take shorter windows, or fewer columns")?;
            new.push(Ok(rows));
        }
        if !new.is_empty() {
            let held = std::mem::take(&mut near.rows);
            near.rows = joined(held.slice(0..0), Budget::ALL, std::iter::once(Ok(held)).chain(new))?;
        }
        Ok(())
    }
}

/// Takes rows of `from` into the slots of all aggregates; where their text would pass 4 GiB, in two halves. Rows come slot by
/// slot, so what slots before the last need to take more in is let go of.
fn update(
    states: &mut [State],
    aggregates: &[Computed],
    from: &Columns,
    rows: &[u32],
    slots: &[u32],
) -> Result<(), QueryError> {
    let mut taken: Vec<Option<Column>> = vec![None; from.width()];
    for position in aggregates.iter().flat_map(|computed| &computed.columns) {
        if taken[*position].is_some() {
            continue;
        }
        taken[*position] = from.column_at(*position).take(rows);
        if taken[*position].is_none() {
            let middle = rows.len() / 2;
            if middle == 0 {
                return Err(QueryError::TooLarge { column: from.names()[*position].to_string() });
            }
            update(states, aggregates, from, &rows[..middle], &slots[..middle])?;
            return update(states, aggregates, from, &rows[middle..], &slots[middle..]);
        }
    }
    for (state, computed) in states.iter_mut().zip(aggregates) {
        let columns: Vec<&Column> =
            computed.columns.iter().filter_map(|position| taken[*position].as_ref()).collect();
        state.update(&columns, slots);
        state.close(slots.last().map_or(0, |slot| *slot as usize));
    }
    Ok(())
}

/// Rows sorted by their keys, in their order within a key.
struct ByKey {
    starts: Vec<u32>,
    rows: Vec<u32>,
}

impl ByKey {
    /// Rows are below 2^32, as the batches that they came in are joined below that.
    fn new(ids: &[u32], keys: usize) -> ByKey {
        let mut starts = vec![0u32; keys + 1];
        ids.iter().for_each(|id| starts[*id as usize + 1] += 1);
        for key in 0..keys {
            starts[key + 1] += starts[key];
        }
        let (mut next, mut rows) = (starts.clone(), vec![0; ids.len()]);
        for (row, id) in ids.iter().enumerate() {
            let place = &mut next[*id as usize];
            rows[*place as usize] = row as u32;
            *place += 1;
        }
        ByKey { starts, rows }
    }

    fn rows(&self, id: u32) -> &[u32] {
        let place = |id: usize| self.starts.get(id).copied().unwrap_or(0) as usize;
        self.rows.get(place(id as usize)..place(id as usize + 1)).unwrap_or_default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_hold_the_values_of_one_window() {
        let aggregate = Aggregate::quantile("x", 0.5);
        let types = vec![ColumnType::I64];
        let mut states = vec![State::new(&aggregate, &types)];
        states[0].resize(1_000);
        let computed = [Computed { aggregate, columns: vec![0], types }];
        let from = Columns::new().with("x", Column::from(vec![7i64; 10])).unwrap();
        let rows: Vec<u32> = (0..10).collect();
        for slot in 0..999 {
            let slots: Vec<u32> = (0..10).map(|row| slot + u32::from(row > 6)).collect();
            update(&mut states, &computed, &from, &rows, &slots).unwrap();
            assert!(states[0].values_held() <= 10, "{} after slot {slot}", states[0].values_held());
        }
        assert_eq!(states.remove(0).finish().unwrap(), Column::from(vec![7.0; 1_000]));
    }
}
