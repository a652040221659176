//! Joins of a slice that look back, where right rows come key by key.
//!
//! Each left row looks at the right rows of its own key alone, from where the row of that key before it stopped. So right rows need
//! not be put into the order of time.

use std::collections::VecDeque;
use std::ops::Range;

use underbelly_storage::Columns;

use crate::QueryError;
use crate::asof::keys::Keys;
use crate::asof::matching::{Held, Last, LastRows, Rule};
use crate::asof::sliced::{Joined, Part, Wanted, joined_of_batch};
use crate::lane::Batch;
use crate::pick::Spot;
use crate::timed::{Stream, columns_at};

/// Right rows of one key that stand one after the other.
struct Stretch {
    part: u32,
    rows: Range<u32>,
}

/// How far left rows of a key have come in the right rows of it.
struct Cursor<'h> {
    /// Times of what is left of a stretch, and the place of the first.
    times: &'h [i64],
    at: Spot,
    /// The stretches behind it.
    rest: std::slice::Iter<'h, Stretch>,
    /// The row before.
    last: Last,
}

impl<'h> Cursor<'h> {
    fn new(stretches: &'h [Stretch], held: &'h [Held]) -> Cursor<'h> {
        let mut cursor = Cursor { times: &[], at: Spot::NOWHERE, rest: stretches.iter(), last: Last::NONE };
        cursor.next_stretch(held);
        cursor
    }

    fn next_stretch(&mut self, held: &'h [Held]) {
        for Stretch { part, rows } in self.rest.by_ref() {
            let times = held.get(*part as usize).map_or(&[][..], |held| &held.times);
            self.times = times.get(rows.start as usize..rows.end as usize).unwrap_or_default();
            self.at = Spot { part: *part, row: rows.start };
            if !self.times.is_empty() {
                return;
            }
        }
    }

    /// Goes behind all rows of which `is_before` says so of the time.
    fn advance(&mut self, held: &'h [Held], is_before: impl Fn(i64) -> bool) {
        while let [ts, times @ ..] = self.times
            && is_before(*ts)
        {
            self.last = Last { ts: *ts, spot: self.at };
            (self.times, self.at.row) = (times, self.at.row + 1);
            if times.is_empty() {
                self.next_stretch(held);
            }
        }
    }
}

/// A join of one slice.
pub(super) struct ByKey<'w> {
    wanted: &'w Wanted,
    keys: Keys,
    held: Vec<Held>,
    /// By the numbers of the keys.
    stretches: Vec<Vec<Stretch>>,
}

impl<'w> ByKey<'w> {
    /// Reads all right rows.
    pub(super) fn new(wanted: &'w Wanted, mut right: Stream<'_>) -> Result<ByKey<'w>, QueryError> {
        let keys = Keys::new(&columns_at(&wanted.headers.0, &wanted.keys.0));
        let mut join = ByKey { wanted, keys, held: Vec::new(), stretches: Vec::new() };
        let mut ids = Vec::new();
        while let Some(rows) = right.next_batch()? {
            join.number(&rows, &wanted.keys.1, &mut ids)?;
            let part = join.held.len() as u32;
            let mut start = 0;
            for of_one in ids.chunk_by(|a, b| a == b) {
                let end = start + of_one.len() as u32;
                if let Some(of_key) = of_one.first().and_then(|id| join.stretches.get_mut(*id as usize)) {
                    of_key.push(Stretch { part, rows: start..end });
                }
                start = end;
            }
            join.held.push(Held::of(rows, &wanted.columns)?);
        }
        Ok(join)
    }

    /// Joins all left rows. `goes_on` says whether right rows are wanted behind the last left one.
    pub(super) fn join(
        mut self,
        mut left: Stream<'_>,
        header: &Columns,
        goes_on: bool,
    ) -> Result<Part, QueryError> {
        let Rule { tolerance, exact, .. } = self.wanted.rule;
        let mut joined: VecDeque<Joined> = VecDeque::new();
        let (held, stretches) = (std::mem::take(&mut self.held), std::mem::take(&mut self.stretches));
        let mut cursors: Vec<Cursor<'_>> =
            stretches.iter().map(|of_key| Cursor::new(of_key, &held)).collect();
        while let Some(rows) = left.next_batch()? {
            let mut ids = Vec::new();
            self.number(&rows, &self.wanted.keys.0, &mut ids)?;
            cursors.resize_with(self.keys.len(), || Cursor::new(&[], &held));
            let mut spots = Vec::with_capacity(ids.len());
            for (ts, id) in rows.times().iter().zip(&ids) {
                let Some(cursor) = cursors.get_mut(*id as usize) else {
                    spots.push(Spot::NOWHERE);
                    continue;
                };
                let is_before = |of_right: i64| of_right < *ts || (exact && of_right == *ts);
                cursor.advance(&held, is_before);
                let is_near = cursor.last.ts.abs_diff(*ts) <= tolerance;
                spots.push(if is_near { cursor.last.spot } else { Spot::NOWHERE });
            }
            joined.push_back(joined_of_batch(rows, spots, ids, &held, header)?);
        }
        drop(cursors);
        (self.held, self.stretches) = (held, stretches);
        let last = if goes_on { self.last_rows()? } else { LastRows::default() };
        Ok(Part { joined, keys: self.keys.into_seen(), last })
    }

    /// The last right row of each key that has one.
    fn last_rows(&self) -> Result<LastRows, QueryError> {
        let (mut spots, mut keys) = (Vec::new(), Vec::new());
        for (stretches, seen) in self.stretches.iter().zip(self.keys.seen()) {
            let last = stretches
                .last()
                .and_then(|Stretch { part, rows }| Some(Spot { part: *part, row: rows.end.checked_sub(1)? }));
            if let Some(spot) = last {
                spots.push(spot);
                keys.push(seen.clone());
            }
        }
        let held = Held::picked(&self.held, &spots, &self.wanted.of_columns())?;
        Ok(LastRows { held, keys })
    }

    /// Numbers the keys of a batch.
    fn number(&mut self, rows: &Batch<'_>, keys: &[usize], to: &mut Vec<u32>) -> Result<(), QueryError> {
        self.keys.number(rows, keys, to)?;
        self.stretches.resize_with(self.keys.len(), Vec::new);
        Ok(())
    }
}
