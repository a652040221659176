//! The newest windows, found from the end of the rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Cut, Fill, Resample};
use crate::group::{Place, Wanted};
use crate::interval::Interval;
use crate::key::Selection;
use crate::timed::TimedRows;
use crate::windows::Window;
use crate::{QueryError, Run};

/// Windows with rows: the newest so many of those that were met.
pub(crate) struct Newest<'c> {
    cut: &'c Cut,
    windows_max: usize,
    /// By their numbers.
    windows: BTreeMap<i128, Window>,
}

impl Newest<'_> {
    /// Whether no row at an instant or before it changes anything.
    fn is_settled(&self, at: i64) -> bool {
        let oldest = self.windows.first_key_value().filter(|_| self.windows.len() >= self.windows_max);
        self.windows_max == 0 || oldest.is_some_and(|(_, oldest)| at < self.cut.first(*oldest))
    }

    /// Takes in the windows of rows whose times rise, from the last on; answers whether rows before them change anything.
    pub(crate) fn take(&mut self, mut times: &[i64]) -> bool {
        while let Some((last, others)) = times.split_last() {
            if self.is_settled(*last) {
                return false;
            }
            let window = self.cut.window(*last);
            self.windows.insert(window.index, window);
            if self.windows.len() > self.windows_max {
                self.windows.pop_first();
            }
            let first = self.cut.first(window);
            times = others.get(..others.partition_point(|ts| *ts < first)).unwrap_or_default();
        }
        true
    }

    /// The same with rows that are stored. Groups and pieces are read from the end of each run, the newest run first, and none that
    /// is older than what is found.
    pub(crate) fn take_stored(&mut self, runs: &[Arc<dyn Run>], wanted: &Wanted) -> Result<(), QueryError> {
        let places = runs.iter().enumerate().map(|(position, run)| Place { run: &**run, position });
        let ends = |place: &Place<'_>| Some(place.run.zone(wanted.groups(place.run).next_back()?).ts_max);
        let mut places: Vec<_> = places.filter_map(|place| Some((ends(&place)?, place))).collect();
        places.sort_by_key(|(ends, _)| std::cmp::Reverse(*ends));
        for (_, place) in places {
            for number in wanted.groups(place.run).rev() {
                let zone = place.run.zone(number);
                if self.is_settled(zone.ts_max) {
                    break;
                }
                if !wanted.passes_none(place.run, number, &zone) && !self.take_group(place, number, wanted)? {
                    break;
                }
            }
        }
        Ok(())
    }

    fn take_group(&mut self, place: Place<'_>, number: usize, wanted: &Wanted) -> Result<bool, QueryError> {
        let mut group = wanted.begin(place, number)?;
        while !group.rows.is_empty() {
            let piece = group.last_piece();
            let selected = wanted.select(&mut group, piece.clone())?;
            if selected.selection.len() == 0 {
                continue;
            }
            let times = match selected.timestamps {
                Some(times) => times,
                None => group.timestamps(&piece)?,
            };
            let goes_on = match selected.selection {
                Selection::Range(rows) => self.take(times.get(rows).unwrap_or_default()),
                Selection::Rows(rows) => {
                    let times = rows.iter().filter_map(|row| times.get(*row as usize).copied());
                    self.take(&times.collect::<Vec<i64>>())
                }
            };
            if !goes_on {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl<'a> Resample<'a> {
    /// The rows of the newest windows alone; notes where the windows of the result begin, if that is before the first of these rows.
    pub(super) fn newest_rows(&mut self, rows: TimedRows<'a>, n: usize) -> Result<TimedRows<'a>, QueryError> {
        let (cut, rows) = (self.cut(), rows.settled()?);
        let find = |windows_max: usize, last: i64| {
            let mut newest = Newest { cut: &cut, windows_max, windows: BTreeMap::new() };
            rows.newest(&mut newest, Interval { last, ..Interval::ALL })?;
            Ok::<_, QueryError>(newest.windows)
        };
        let of_span = match self.span {
            Some((from, to)) if from > to => return Err(QueryError::BadRange { from, to }),
            Some((from, to)) if from < to && self.fill != Fill::None => {
                Some((cut.window(from.0), cut.window(to.0 - 1)))
            }
            _ => None,
        };
        let mut found = find(if self.fill == Fill::None { n } else { n.min(1) }, i64::MAX)?;
        let newest = found.pop_last().into_iter().map(|(_, window)| window);
        let last = newest.chain(of_span.map(|(_, last)| last)).max_by_key(|window| window.index);
        let Some(last) = last.filter(|_| n > 0) else {
            self.span = None;
            return Ok(rows.none());
        };
        if self.fill == Fill::None {
            let first = found.pop_first().map_or(last, |(_, window)| window);
            return Ok(rows.since(cut.first(first)));
        }
        let Some(first) = self.every.back(last, n - 1) else { return Ok(rows) };
        let begins = cut.first(first);
        let is_in_span = of_span.is_some_and(|(of_span, _)| of_span.index <= first.index);
        let is_older = || match begins.checked_sub(1) {
            Some(before) => find(1, before).map(|older| !older.is_empty()),
            None => Ok(false),
        };
        self.begins = if is_in_span || is_older()? { Some(first) } else { None };
        Ok(rows.since(begins))
    }
}
