//! Resampling: rows to windows of time, with aggregates and fills.
//!
//! The options are those of pandas' `resample` and Polars' `group_by_dynamic`; fills are those of InfluxDB and TimescaleDB.

mod fill;
mod newest;

use std::sync::Arc;

use hashbrown::HashMap;
use underbelly_storage::{Column, ColumnType, Columns, Timestamp};

use crate::aggregate::Aggregate;
use crate::budget::Budget;
use crate::gather::taken;
use crate::group::Order;
use crate::grouped::Grouped;
use crate::lane::Batch;
use crate::pick::{Spot, pick};
use crate::timed::{Parts, TimedRows};
use crate::windows::{Every, Window};
use crate::{QueryError, TIMESTAMP};

pub use fill::Fill;
pub(crate) use newest::Newest;

/// Rows that a result may have.
const ROWS_MAX: u128 = 100_000_000;

/// What needs memory for windows.
const WINDOWS: &str = "a resampling";

/// Which end of a window gives its row the timestamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Label {
    /// Its start.
    #[default]
    Left,
    /// Its end.
    Right,
}

/// Which end of a window belongs to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WindowEnd {
    /// The start: a row at the border of two windows is in the later one.
    #[default]
    Left,
    /// The end: a row at the border of two windows is in the earlier one.
    Right,
}

/// A resampling that is being described.
///
/// The result has a row for each window and key, in order of windows, then of keys as in
/// [`last_points`](crate::last_points): "timestamp", the keys, then a column for each aggregate. Every key has a row
/// in every window from that of the first row to that of the last one, of whatever key, unless [`Fill::None`] leaves
/// out those that are empty.
///
/// The input is read once, in batches; memory is needed for the result, and for the values of one window where
/// quantiles are asked for.
///
/// ```
/// use underbelly_query::{Aggregate, Every, QueryError, Resample};
/// use underbelly_storage::{Column, Columns, Timestamp, Value};
///
/// # fn main() -> Result<(), QueryError> {
/// let at = [0, 20, 150].map(|second| Timestamp(second * 1_000_000_000)).to_vec();
/// let trades = Columns::new()
///     .with("timestamp", Column::from(at))?
///     .with("price", Column::from(vec![10.0, 12.0, 11.0]))?;
/// let bars = Resample::new(trades, Every::minutes(1)).aggregates(Aggregate::ohlc("price")).collect()?;
/// assert_eq!(bars.rows(), 3);
/// assert_eq!(bars.row(0)[1..], [10.0, 12.0, 10.0, 12.0].map(Value::from));
/// assert_eq!(bars.row(1)[1..], [Value::Null, Value::Null, Value::Null, Value::Null]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a resampling reads nothing until it is collected"]
pub struct Resample<'a> {
    rows: TimedRows<'a>,
    every: Every,
    by: Vec<Arc<str>>,
    aggregates: Vec<Aggregate>,
    closed: WindowEnd,
    label: Label,
    fill: Fill,
    /// Of columns that have one of their own.
    fills: Vec<(Arc<str>, Fill)>,
    span: Option<(Timestamp, Timestamp)>,
    /// At most so many windows, the newest.
    newest: Option<usize>,
    /// The first window of the result, whether it has rows or not.
    begins: Option<Window>,
}

impl<'a> Resample<'a> {
    /// Windows over all rows.
    pub fn new(rows: impl Into<TimedRows<'a>>, every: Every) -> Resample<'a> {
        Resample {
            rows: rows.into(),
            every,
            by: Vec::new(),
            aggregates: Vec::new(),
            closed: WindowEnd::Left,
            label: Label::Left,
            fill: Fill::Null,
            fills: Vec::new(),
            span: None,
            newest: None,
            begins: None,
        }
    }

    /// Windows for each value of this column by itself; several columns make a key together.
    pub fn by(mut self, name: &str) -> Resample<'a> {
        self.by.push(name.into());
        self
    }

    /// What to compute of each window.
    pub fn aggregate(mut self, aggregate: Aggregate) -> Resample<'a> {
        self.aggregates.push(aggregate);
        self
    }

    /// Several such.
    pub fn aggregates(mut self, aggregates: impl IntoIterator<Item = Aggregate>) -> Resample<'a> {
        self.aggregates.extend(aggregates);
        self
    }

    /// Which end of a window belongs to it: the start unless told otherwise.
    pub fn closed(mut self, closed: WindowEnd) -> Resample<'a> {
        self.closed = closed;
        self
    }

    /// Which end of a window is its timestamp: the start unless told otherwise. An end beyond what a timestamp can be
    /// becomes the earliest or the latest one.
    pub fn label(mut self, label: Label) -> Resample<'a> {
        self.label = label;
        self
    }

    /// What stands where a window has no value: null unless told otherwise.
    pub fn fill(mut self, fill: Fill) -> Resample<'a> {
        self.fill = fill;
        self
    }

    /// The same for the column of one aggregate, by its name; [`Fill::None`] leaves its nulls there.
    pub fn fill_column(mut self, name: &str, fill: Fill) -> Resample<'a> {
        self.fills.push((name.into(), fill));
        self
    }

    /// Windows from that of `from` to that of the last instant before `to`, even where there is no row; rows outside
    /// have theirs too. Without keys that makes windows where there is no row at all.
    pub fn span(mut self, from: Timestamp, to: Timestamp) -> Resample<'a> {
        self.span = Some((from, to));
        self
    }

    /// Only the newest `n` windows, still in order of time; with [`Fill::None`] the newest that have rows. Rows before the first
    /// of them are not looked at: they fill no gap, and a key that has rows there alone has none in the result.
    ///
    /// ```
    /// # use underbelly_query::{Aggregate, Every, Fill, QueryError, Scan, Source};
    /// # use underbelly_storage::{Columns, Timestamp};
    /// /// The five newest minutes with rows before an instant.
    /// fn five_minutes(source: &dyn Source, before: Timestamp) -> Result<Columns, QueryError> {
    ///     let minutes = Scan::new(source).to(before).resample(Every::minutes(1)).fill(Fill::None).newest(5);
    ///     minutes.aggregate(Aggregate::max("usage_user")).collect()
    /// }
    /// ```
    pub fn newest(mut self, n: usize) -> Resample<'a> {
        self.newest = Some(n);
        self
    }

    /// The result.
    ///
    /// # Errors
    /// [`QueryError::UnknownColumn`] where the input lacks a column, [`QueryError::NotNumber`], [`QueryError::BadQuantile`]
    /// and [`QueryError::SumTooLarge`] where an aggregate cannot be computed, [`QueryError::EmptyWindow`] and
    /// [`QueryError::TooManyWindows`] where windows are too short, [`QueryError::BadRange`] where a span ends before it
    /// starts, [`QueryError::Columns`] where two columns would bear one name or a constant does not fit a column, and
    /// what reading the input reports.
    pub fn collect(mut self) -> Result<Columns, QueryError> {
        self.every.check()?;
        let rows = std::mem::replace(&mut self.rows, Columns::new().into());
        if let Some((name, _)) =
            self.fills.iter().find(|(name, _)| self.aggregates.iter().all(|a| a.name() != &**name))
        {
            let known = self.aggregates.iter().map(|aggregate| aggregate.name().to_string()).collect();
            return Err(QueryError::UnknownColumn { name: name.to_string(), known });
        }
        let read = self.aggregates.iter().flat_map(Aggregate::columns);
        let budget = rows.budget();
        let rows = rows.with_needed(self.by.iter().chain(read));
        let parts = match self.newest {
            Some(n) => self.newest_rows(rows, n)?.parts()?,
            None => rows.parts()?,
        };
        let (by, aggregates, cut) = (&self.by, &self.aggregates, self.cut());
        let none = |header| Grouped::new(header, by, aggregates, Some(TIMESTAMP));
        let mut slots = Slots::default();
        let grouped = match parts {
            Parts::One(mut stream) => {
                let mut grouped = none(&stream.header)?;
                while let Some(mut rows) = stream.next_batch()? {
                    slots.assign(&cut, &mut grouped, &mut rows)?;
                    slots.close(&mut grouped);
                    grouped.check(budget, WINDOWS)?;
                }
                grouped
            }
            Parts::Many(header, slices) => {
                let mut grouped = none(&header)?;
                // Rows of each key in the order of time are enough where keys stand apart.
                let is_by_key = slices.is_by_key(|key| by.iter().any(|name| **name == *key));
                let slices = if is_by_key { slices.in_order(Order::ByKey) } else { *slices };
                slices.each(
                    |mut batches| {
                        let mut grouped = none(&header)?;
                        if !is_by_key {
                            let mut slots = Slots::default();
                            while let Some(mut rows) = batches.next_batch()? {
                                slots.assign(&cut, &mut grouped, &mut rows)?;
                                grouped.check(budget, WINDOWS)?;
                            }
                            return Ok((grouped, SliceSlots::from(slots)));
                        }
                        let mut slots = SliceSlots::default();
                        while let Some(mut rows) = batches.next_batch()? {
                            slots.assign(&cut, &mut grouped, &mut rows)?;
                            grouped.check(budget, WINDOWS)?;
                        }
                        Ok((grouped, slots))
                    },
                    |(later, of_later)| {
                        slots.merge(&mut grouped, later, &of_later)?;
                        slots.close(&mut grouped);
                        grouped.check(budget, WINDOWS)
                    },
                )?;
                grouped
            }
        };
        self.result(grouped, slots, budget)
    }

    /// What stands in a column where a window has no value.
    fn fill_of(&self, name: &str) -> &Fill {
        self.fills.iter().rev().find(|(of, _)| **of == *name).map_or(&self.fill, |(_, fill)| fill)
    }

    fn cut(&self) -> Cut {
        Cut { every: self.every.clone(), closed: self.closed }
    }

    /// The windows of the result.
    fn windows(&self, slots: &Slots) -> Result<Option<(Window, Window)>, QueryError> {
        let mut ends = slots.windows.first().copied().zip(slots.windows.last().copied());
        if let Some((from, to)) = self.span {
            if from > to {
                return Err(QueryError::BadRange { from, to });
            }
            if from < to {
                let (first, last) = (self.cut().window(from.0), self.cut().window(to.0 - 1));
                ends = Some(match ends {
                    None => (first, last),
                    Some((a, b)) => (
                        if first.index < a.index { first } else { a },
                        if last.index > b.index { last } else { b },
                    ),
                });
            }
        }
        Ok(ends.map(|(first, last)| (self.begins.unwrap_or(first), last)))
    }

    fn result(self, grouped: Grouped, slots: Slots, budget: Budget) -> Result<Columns, QueryError> {
        let order = match self.by.is_empty() {
            true => vec![0],
            false => grouped.order(),
        };
        let places = self.places(&order, &slots, budget)?;
        let (keys, results) = grouped.finish()?;
        let times: Vec<i64> = places.iter().map(|place| place.ts).collect();
        let labels: Vec<Timestamp> = times.iter().copied().map(Timestamp).collect();
        let mut columns = Columns::new().with(TIMESTAMP, Column::from(labels))?;
        let ids: Vec<u32> = places.iter().map(|place| place.key).collect();
        for (name, column) in keys {
            let column = taken(&column, &ids, &name)?;
            columns.insert(name, column)?;
        }
        let spots: Vec<Spot> = places.iter().map(|place| place.spot).collect();
        for (aggregate, column) in results {
            let name = aggregate.name();
            let mut column = pick(&[&column], &spots, column.column_type(), name)?;
            column = match aggregate.is_count() {
                true => {
                    Column::from_parts(column.into_parts().0, None).unwrap_or(Column::new(ColumnType::I64))
                }
                false => self.fill_of(name).apply(column, order.len(), &times, name)?,
            };
            columns.insert(aggregate.shared_name(), column)?;
        }
        Ok(columns)
    }

    /// The rows of the result.
    fn places(&self, order: &[u32], slots: &Slots, budget: Budget) -> Result<Vec<Place>, QueryError> {
        let mut rank = vec![0; order.len()];
        for (place, id) in order.iter().enumerate() {
            rank[*id as usize] = place;
        }
        let Some((first, last)) = self.windows(slots)?.filter(|_| !order.is_empty()) else {
            return Ok(Vec::new());
        };
        let count = (last.index - first.index).unsigned_abs() + 1;
        if self.fill != Fill::None && count.saturating_mul(order.len() as u128) > ROWS_MAX {
            let windows = u64::try_from(count).unwrap_or(u64::MAX);
            return Err(QueryError::TooManyWindows { windows, groups: order.len() });
        }
        let row_bytes = size_of::<Place>() + 16 + 9 * (self.by.len() + self.aggregates.len());
        let rows = match self.fill == Fill::None {
            true => slots.keys.len(),
            false => usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(order.len()),
        };
        let remedy = "take longer windows, fewer keys, or a shorter range";
        budget.check(WINDOWS, rows.saturating_mul(row_bytes), remedy)?;
        let mut places: Vec<Place> = Vec::new();
        if self.fill == Fill::None {
            for (window, keys) in slots.windows.iter().zip(slots.by_window()) {
                let (ts, start) = (self.timestamp(*window), places.len());
                places.extend(keys.map(|(slot, key)| Place { ts, key, spot: Spot { part: 0, row: slot } }));
                places[start..].sort_unstable_by_key(|place| rank[place.key as usize]);
            }
            return Ok(places);
        }
        let nothing = |window| {
            let ts = self.timestamp(window);
            order.iter().map(move |key| Place { ts, key: *key, spot: Spot::NOWHERE })
        };
        let mut next = first;
        for (window, keys) in slots.windows.iter().zip(slots.by_window()) {
            while next.index < window.index {
                places.extend(nothing(next));
                next = self.every.after(next);
            }
            let start = places.len();
            places.extend(nothing(*window));
            for (slot, key) in keys {
                if let Some(place) = places.get_mut(start + rank[key as usize]) {
                    place.spot = Spot { part: 0, row: slot };
                }
            }
            next = self.every.after(*window);
        }
        while next.index <= last.index {
            places.extend(nothing(next));
            next = self.every.after(next);
        }
        Ok(places)
    }

    /// The timestamp of a window's rows.
    fn timestamp(&self, window: Window) -> i64 {
        let at = if self.label == Label::Left { window.start } else { window.end };
        at.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }
}

/// How time is cut into windows.
pub(crate) struct Cut {
    every: Every,
    closed: WindowEnd,
}

impl Cut {
    /// The window that a row lies in.
    fn window(&self, ts: i64) -> Window {
        let before = i128::from(self.closed == WindowEnd::Right);
        self.every.window(i128::from(ts) - before)
    }

    /// Whether a row lies in a window.
    fn holds(&self, window: &Window, ts: i64) -> bool {
        let at = i128::from(ts) - i128::from(self.closed == WindowEnd::Right);
        (window.start..window.end).contains(&at)
    }

    /// The first instant of a row in a window.
    fn first(&self, window: Window) -> i64 {
        let first = window.start + i128::from(self.closed == WindowEnd::Right);
        first.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    /// The last instant of a row in a window.
    fn last(&self, window: Window) -> i64 {
        let last = window.end - i128::from(self.closed == WindowEnd::Left);
        i64::try_from(last).unwrap_or(i64::MAX)
    }
}

/// A row of the result.
struct Place {
    ts: i64,
    key: u32,
    spot: Spot,
}

/// The windows and keys that have rows: a slot for each pair, in order of windows.
#[derive(Default)]
struct Slots {
    windows: Vec<Window>,
    /// The first slot of each window.
    starts: Vec<u32>,
    /// The key of each slot.
    keys: Vec<u32>,
    /// The newest slot of each key.
    newest: Vec<u32>,
    /// The last instant of the newest window.
    last: i64,
}

impl Slots {
    /// Finds the slots of a batch and takes its rows in.
    fn assign(&mut self, of: &Cut, grouped: &mut Grouped, rows: &mut Batch<'_>) -> Result<(), QueryError> {
        let mut ids = Vec::new();
        grouped.number(rows, &mut ids)?;
        self.newest.resize(grouped.len(), u32::MAX);
        // Each key of the batch takes the place of its slot, window by window.
        let (times, mut row) = (rows.times(), 0);
        while let Some(ts) = times.get(row) {
            if self.windows.is_empty() || *ts > self.last {
                let window = of.window(*ts);
                self.last = of.last(window);
                self.open(window);
            }
            let start = self.starts.last().copied().unwrap_or(0);
            let behind = times.get(row..).unwrap_or_default().partition_point(|ts| *ts <= self.last);
            // Rows whose times fall are rows of the window that is open.
            let end = row + behind.max(1);
            for id in ids.get_mut(row..end).unwrap_or_default() {
                let newest = &mut self.newest[*id as usize];
                if *newest == u32::MAX || *newest < start {
                    *newest = next_slot(&mut self.keys, *id)?;
                }
                *id = *newest;
            }
            row = end;
        }
        grouped.update(rows, &ids, self.keys.len());
        Ok(())
    }

    fn open(&mut self, window: Window) {
        self.windows.push(window);
        self.starts.push(self.keys.len() as u32);
    }

    /// Lets go of what windows before the last need to take more rows in.
    fn close(&self, grouped: &mut Grouped) {
        grouped.close(self.starts.last().copied().unwrap_or(0) as usize);
    }

    /// Takes in rows that come behind all others and were sorted into slots by themselves.
    fn merge(
        &mut self,
        grouped: &mut Grouped,
        later: Grouped,
        of_later: &SliceSlots,
    ) -> Result<(), QueryError> {
        let ids = grouped.adopt(&later)?;
        self.newest.resize(grouped.len(), u32::MAX);
        let mut slots = vec![0; of_later.slots.len()];
        for slot in of_later.by_window() {
            let (Some((window, key)), Some(to)) = (of_later.slots.get(slot), slots.get_mut(slot)) else {
                continue;
            };
            let Some(window) = of_later.windows.get(*window as usize) else { continue };
            if self.windows.last().is_none_or(|last| last.index < window.index) {
                self.open(*window);
            }
            let start = self.starts.last().copied().unwrap_or(0);
            let id = ids[*key as usize];
            let newest = &mut self.newest[id as usize];
            if *newest == u32::MAX || *newest < start {
                *newest = next_slot(&mut self.keys, id)?;
            }
            *to = *newest;
        }
        grouped.merge(later, &slots, self.keys.len());
        Ok(())
    }

    /// The slots of each window with their keys.
    fn by_window(&self) -> impl Iterator<Item = impl Iterator<Item = (u32, u32)> + '_> + '_ {
        let end = self.keys.len() as u32;
        let ends = self.starts.iter().copied().skip(1).chain([end]);
        self.starts.iter().zip(ends).map(|(start, end)| {
            let keys = self.keys.get(*start as usize..end as usize).unwrap_or_default();
            (*start..end).zip(keys.iter().copied())
        })
    }
}

/// The windows and keys that have rows in a slice, of which the rows of each key come in the order of time.
#[derive(Default)]
struct SliceSlots {
    /// In the order in which they are met, and their places here by their numbers.
    windows: Vec<Window>,
    by_index: HashMap<i128, u32>,
    /// The number of the window that was found last.
    at: u32,
    /// The window and the key of each slot.
    slots: Vec<(u32, u32)>,
    /// The newest slot of each key.
    newest: Vec<u32>,
}

impl From<Slots> for SliceSlots {
    fn from(slots: Slots) -> SliceSlots {
        let by_window = (0..).zip(slots.by_window());
        let of_window = |(window, keys): (u32, _)| {
            let keys: Vec<(u32, u32)> = Iterator::collect(keys);
            keys.into_iter().map(move |(_, key)| (window, key))
        };
        let of_slots = by_window.flat_map(of_window).collect();
        SliceSlots { slots: of_slots, windows: slots.windows, ..SliceSlots::default() }
    }
}

impl SliceSlots {
    /// Finds the slots of a batch and takes its rows in.
    fn assign(&mut self, of: &Cut, grouped: &mut Grouped, rows: &mut Batch<'_>) -> Result<(), QueryError> {
        let mut ids = Vec::new();
        grouped.number(rows, &mut ids)?;
        self.newest.resize(grouped.len(), u32::MAX);
        let (mut row, mut pieces) = (0, Vec::new());
        let times = rows.times();
        while let Some(ts) = times.get(row) {
            let number = self.window(of, *ts);
            let Some(window) = self.windows.get(number as usize) else { break };
            let (first, last) = (*ts, of.last(*window));
            // Rows of one key rise; of several, those of a group may end and those of the next begin.
            let rest = times.get(row..).unwrap_or_default();
            let behind = match rows.is_of_one_key() {
                true => rest.partition_point(|ts| *ts <= last),
                false => rest.iter().take_while(|ts| (first..=last).contains(*ts)).count(),
            };
            let end = row + behind.max(1);
            match ids.get_mut(row..end).unwrap_or_default() {
                [first, rest @ ..]
                    if rows.is_of_one_key() && rest.iter().fold(true, |same, id| same & (id == first)) =>
                {
                    pieces.push((self.slot(number, *first)?, row..end));
                }
                some => some.iter_mut().try_for_each(|id| self.slot(number, *id).map(|slot| *id = slot))?,
            }
            row = end;
        }
        let is_whole = pieces.last().is_some_and(|(_, piece)| piece.end == times.len())
            && pieces.iter().map(|(_, piece)| piece.len()).sum::<usize>() == times.len();
        if is_whole {
            grouped.update_pieces(rows, &pieces, self.slots.len());
            return Ok(());
        }
        for (slot, piece) in pieces {
            ids.get_mut(piece).unwrap_or_default().fill(slot);
        }
        grouped.update(rows, &ids, self.slots.len());
        Ok(())
    }

    /// The number of the window that an instant lies in.
    fn window(&mut self, of: &Cut, ts: i64) -> u32 {
        // Each key goes through the windows in the order in which the first one did.
        let follows = [self.at + 1, 0].into_iter().find(|number| {
            let known = self.windows.get(*number as usize);
            known.is_some_and(|window| of.holds(window, ts))
        });
        self.at = follows.unwrap_or_else(|| {
            let (window, next) = (of.window(ts), self.windows.len() as u32);
            let number = *self.by_index.entry(window.index).or_insert(next);
            if number == next {
                self.windows.push(window);
            }
            number
        });
        self.at
    }

    /// The slot of a key in a window: its newest, or a new one.
    fn slot(&mut self, window: u32, key: u32) -> Result<u32, QueryError> {
        let too_many = |rows: usize| QueryError::TooManyRows { rows };
        let newest = self.newest.get_mut(key as usize).ok_or_else(|| too_many(key as usize))?;
        if self.slots.get(*newest as usize).is_none_or(|(of, _)| *of != window) {
            *newest = u32::try_from(self.slots.len()).map_err(|_| too_many(self.slots.len()))?;
            self.slots.push((window, key));
        }
        Ok(*newest)
    }

    /// The slots in the order of their windows.
    fn by_window(&self) -> Vec<usize> {
        let mut windows: Vec<u32> = (0..self.windows.len() as u32).collect();
        windows.sort_by_key(|number| self.windows.get(*number as usize).map(|window| window.index));
        let mut ranks = vec![0u32; windows.len()];
        for (rank, number) in (0..).zip(windows) {
            if let Some(to) = ranks.get_mut(number as usize) {
                *to = rank;
            }
        }
        let mut order: Vec<usize> = (0..self.slots.len()).collect();
        let rank = |slot: &usize| ranks.get(self.slots.get(*slot)?.0 as usize);
        order.sort_by_key(rank);
        order
    }
}

/// A slot for a key.
fn next_slot(keys: &mut Vec<u32>, key: u32) -> Result<u32, QueryError> {
    let slot = u32::try_from(keys.len()).map_err(|_| QueryError::TooManyRows { rows: keys.len() })?;
    keys.push(key);
    Ok(slot)
}
