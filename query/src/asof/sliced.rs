//! Joins that look back, slice of time by slice of time.
//!
//! In each slice left rows are joined with the right rows of the slice, by whoever has time. Rows of keys that the slice has
//! not met yet on the right are then given the last right row of the slices before.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use underbelly_storage::{Column, ColumnType, Columns};

use crate::QueryError;
use crate::asof::by_key::ByKey;
use crate::asof::matching::{Held, Last, LastRows, Matched, Matching, Rule};
use crate::budget::{Budget, row_bytes};
use crate::group::Order;
use crate::interval::Interval;
use crate::lane::Batch;
use crate::pick::{Spot, pick};
use crate::slices::{Slices, at_once, of_interval};
use crate::timed::{Stream, times};

/// Slices whose rows are in memory at a time.
pub(super) const AT_ONCE: usize = 8;

/// Last right rows of slices that are kept besides those that are needed, before the others are let go.
const HELD_ROWS: usize = 65_536;

/// The same, or fewer where little may be held.
pub(super) fn held_rows_max(most: usize, budget: Budget, columns: &[(Arc<str>, ColumnType)]) -> usize {
    budget.rows_of(32, row_bytes(columns.iter().map(|(_, column_type)| *column_type))).min(most)
}

/// What is joined.
pub(super) struct Wanted {
    /// Of the left and of the right input.
    pub(super) headers: (Columns, Columns),
    /// Positions of the key columns in both inputs.
    pub(super) keys: (Vec<usize>, Vec<usize>),
    /// Positions in the right input of the columns behind the left ones.
    pub(super) columns: Vec<usize>,
    pub(super) rule: Rule,
    pub(super) budget: Budget,
}

impl Wanted {
    /// Names and types of the right columns.
    pub(super) fn of_columns(&self) -> Vec<(Arc<str>, ColumnType)> {
        let of = |position: &usize| {
            let column_type = self.headers.1.column_at(*position).column_type();
            self.headers.1.names().get(*position).map(|name| (name.clone(), column_type))
        };
        self.columns.iter().filter_map(of).collect()
    }
}

/// Joined rows.
pub(super) struct Joined {
    pub(super) rows: Columns,
    /// Nowhere for rows without a match.
    pub(super) spots: Vec<Spot>,
    ids: Vec<u32>,
}

/// What comes of a slice.
pub(super) struct Part {
    pub(super) joined: VecDeque<Joined>,
    /// The keys by their numbers.
    pub(super) keys: Vec<Box<[u8]>>,
    /// The last right row of each key that has one.
    pub(super) last: LastRows,
}

/// A join on its way through the slices.
pub(super) struct Sliced<'a> {
    slices: (Slices<'a>, Slices<'a>),
    /// Whether right rows of each key in the order of time are enough.
    is_by_key: bool,
    wanted: Wanted,
    of_columns: Vec<(Arc<str>, ColumnType)>,
    /// Of the left and of the right input, and whether right rows are wanted behind the last left one.
    intervals: Vec<(Interval, Interval, bool)>,
    /// Slices whose rows are in memory at a time.
    at_once: usize,
    at: usize,
    parts: VecDeque<Part>,
    /// The last right rows of the slices before.
    last: HashMap<Box<[u8]>, Last>,
    held: Vec<Held>,
    held_rows: usize,
}

impl<'a> Sliced<'a> {
    /// A join of which `at_once` slices are in memory at a time.
    pub(super) fn new(left: Slices<'a>, right: Slices<'a>, wanted: Wanted, at_once: usize) -> Sliced<'a> {
        let (of_left, of_right) = (left.wanted().interval, right.wanted().interval);
        // Nobody looks for a right row behind the last left one.
        let end = left.last().unwrap_or(i64::MIN).min(of_left.last);
        let starts = |of: &Slices<'_>| (1..of.len()).map(|number| of.interval(number).first).collect();
        let joins_by = |name: &str| {
            wanted.keys.1.iter().any(|at| wanted.headers.1.names().get(*at).is_some_and(|of| **of == *name))
        };
        let is_by_key = right.is_by_key(joins_by);
        let mut firsts = match is_by_key {
            true => cuts(starts(&left), &starts(&right)),
            // Either may have many rows where the other has few.
            false => [vec![i64::MIN], starts(&left), starts(&right)].concat(),
        };
        firsts.sort_unstable();
        firsts.dedup();
        firsts.truncate(firsts.partition_point(|first| *first <= end).max(1));
        let lasts = firsts.iter().skip(1).map(|first| first - 1).chain([end]);
        let interval = |(number, (first, last)): (usize, (&i64, i64))| {
            let within = |of: Interval| Interval { first: of.first.max(*first), last: of.last.min(last) };
            (within(of_left), within(of_right), number + 1 < firsts.len())
        };
        let intervals = firsts.iter().zip(lasts).enumerate().map(interval).collect();
        let of_columns = wanted.of_columns();
        let right = if is_by_key { right.in_order(Order::ByKey) } else { right };
        Sliced {
            slices: (left, right),
            is_by_key,
            wanted,
            of_columns,
            intervals,
            at_once,
            at: 0,
            parts: VecDeque::new(),
            last: HashMap::new(),
            held: Vec::new(),
            held_rows: 0,
        }
    }

    /// The next rows; `None` at the end.
    pub(super) fn next(&mut self, header: &Columns) -> Result<Option<Joined>, QueryError> {
        loop {
            if let Some(part) = self.parts.front_mut() {
                if let Some(mut joined) = part.joined.pop_front() {
                    complete(&mut joined, part, &self.last, &self.held, &self.wanted)?;
                    return Ok(Some(joined));
                }
                self.carry()?;
                continue;
            }
            let some = self.intervals.get(self.at..).unwrap_or_default();
            let some = some.get(..self.at_once.min(some.len())).unwrap_or_default();
            if some.is_empty() {
                return Ok(None);
            }
            let (left, right) = (
                (self.slices.0.runs(), self.slices.0.wanted()),
                (self.slices.1.runs(), self.slices.1.wanted()),
            );
            let (wanted, is_by_key) = (&self.wanted, self.is_by_key);
            let work = |(of_left, of_right, goes_on): &(Interval, Interval, bool)| {
                let left = Stream::of_slice(wanted.headers.0.clone(), of_interval(left.0, left.1, *of_left));
                let right =
                    Stream::of_slice(wanted.headers.1.clone(), of_interval(right.0, right.1, *of_right));
                if is_by_key {
                    return ByKey::new(wanted, right)?.join(left, header, *goes_on);
                }
                let (keys, columns) = (wanted.keys.clone(), wanted.columns.clone());
                let matching = Matching::new(left, right, keys, columns, wanted.rule);
                let mut matching = matching.within(wanted.budget);
                let mut joined = VecDeque::new();
                while let Some(next) = joined_of(&mut matching, header)? {
                    joined.push_back(next);
                }
                let keys = matching.seen().to_vec();
                let last = if *goes_on { matching.finish()? } else { LastRows::default() };
                Ok(Part { joined, keys, last })
            };
            let made = at_once(self.slices.0.workers(), some, &work);
            self.at += made.len();
            self.parts = made.into_iter().collect::<Result<_, _>>()?;
        }
    }

    /// Keeps the last right rows of the first part, which is done.
    fn carry(&mut self) -> Result<(), QueryError> {
        let Some(Part { last: LastRows { held, keys }, .. }) = self.parts.pop_front() else {
            return Ok(());
        };
        let part = self.held.len() as u32;
        for ((row, ts), key) in (0..).zip(&held.times).zip(keys) {
            self.last.insert(key, Last { ts: *ts, spot: Spot { part, row } });
        }
        self.held_rows += held.times.len();
        self.held.push(held);
        if self.held_rows
            > held_rows_max(HELD_ROWS, self.wanted.budget, &self.of_columns).max(2 * self.last.len())
        {
            let mut spots = Vec::with_capacity(self.last.len());
            for (row, last) in (0..).zip(self.last.values_mut()) {
                spots.push(std::mem::replace(&mut last.spot, Spot { part: 0, row }));
            }
            let held = Held::picked(&self.held, &spots, &self.of_columns)?;
            self.held_rows = held.times.len();
            self.held = vec![held];
        }
        Ok(())
    }
}

/// The next left rows of a join with the columns of their right rows.
pub(super) fn joined_of(matching: &mut Matching<'_>, header: &Columns) -> Result<Option<Joined>, QueryError> {
    let Some(Matched { left, spots, ids }) = matching.next()? else { return Ok(None) };
    joined_of_batch(left, spots, ids, matching.held(), header).map(Some)
}

/// Left rows with the columns of their right rows.
pub(super) fn joined_of_batch(
    left: Batch<'_>,
    spots: Vec<Spot>,
    ids: Vec<u32>,
    held: &[Held],
    header: &Columns,
) -> Result<Joined, QueryError> {
    let mut rows = left.into_columns()?;
    let behind = header.names().iter().enumerate().skip(rows.width());
    for (at, (position, name)) in behind.enumerate() {
        let column_type = header.column_at(position).column_type();
        let parts: Vec<&Column> = held.iter().filter_map(|part| part.columns.get(at)).collect();
        rows.insert(name.clone(), pick(&parts, &spots, column_type, name)?)?;
    }
    Ok(Joined { rows, spots, ids })
}

/// Where slices begin, from the beginning of time on: where those of the left input do, and those of the right one where it has
/// many rows and the left one few. A group of either is then seldom read for two slices.
fn cuts(left: Vec<i64>, right: &[i64]) -> Vec<i64> {
    let mut firsts: Vec<i64> = std::iter::once(i64::MIN).chain(left).collect();
    let ends = firsts.iter().copied().skip(1).chain([i64::MAX]);
    let mut of_right = Vec::new();
    for (first, end) in firsts.iter().zip(ends) {
        let within = right.partition_point(|cut| cut <= first)..right.partition_point(|cut| *cut < end);
        if within.len() > 1 {
            of_right.extend_from_slice(right.get(within).unwrap_or_default());
        }
    }
    firsts.extend(of_right);
    firsts
}

/// Gives rows without a match the last right rows of the slices before.
fn complete(
    joined: &mut Joined,
    part: &Part,
    last: &HashMap<Box<[u8]>, Last>,
    held: &[Held],
    wanted: &Wanted,
) -> Result<(), QueryError> {
    if last.is_empty() || !joined.spots.iter().any(|spot| spot.is_nowhere()) {
        return Ok(());
    }
    let mut by_id: Vec<Option<Option<Last>>> = vec![None; part.keys.len()];
    let mut spots: Vec<Spot> = Vec::with_capacity(joined.spots.len());
    let mut is_changed = false;
    let times = times(&joined.rows);
    for (row, ((spot, id), ts)) in (0..).zip(joined.spots.iter_mut().zip(&joined.ids).zip(times)) {
        let mine = Spot { part: 0, row };
        if !spot.is_nowhere() {
            spots.push(mine);
            continue;
        }
        let Some(of_id) = by_id.get_mut(*id as usize) else {
            spots.push(Spot::NOWHERE);
            continue;
        };
        let known =
            of_id.get_or_insert_with(|| part.keys.get(*id as usize).and_then(|key| last.get(key)).copied());
        match known.filter(|last| last.ts.abs_diff(*ts) <= wanted.rule.tolerance) {
            Some(Last { spot: Spot { part, row }, .. }) => {
                *spot = Spot { part: part + 1, row };
                spots.push(*spot);
                is_changed = true;
            }
            None => spots.push(Spot::NOWHERE),
        }
    }
    if !is_changed {
        return Ok(());
    }
    let left = joined.rows.width() - wanted.columns.len();
    let mut rows = Columns::new();
    for (position, (name, column)) in std::mem::take(&mut joined.rows).into_columns().into_iter().enumerate()
    {
        let column = match position.checked_sub(left) {
            None => column,
            Some(at) => {
                let before = held.iter().filter_map(|part| part.columns.get(at));
                let parts: Vec<&Column> = std::iter::once(&column).chain(before).collect();
                pick(&parts, &spots, column.column_type(), &name)?
            }
        };
        rows.insert(name, column)?;
    }
    joined.rows = rows;
    Ok(())
}
