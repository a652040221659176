//! Which right row belongs to which left row: one pass over both inputs in order of time.

use std::collections::VecDeque;
use std::sync::Arc;

use underbelly_storage::{Column, ColumnType};

use crate::QueryError;
use crate::asof::Direction;
use crate::asof::keys::Keys;
use crate::asof::sliced::held_rows_max;
use crate::budget::Budget;
use crate::lane::Batch;
use crate::pick::{Spot, pick};
use crate::timed::{Stream, columns_at};

/// Right rows that are held besides those that are needed, before the others are let go.
const HELD_ROWS: usize = 4 * 65_536;

/// What makes a right row a match.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) direction: Direction,
    /// Nanoseconds.
    pub(super) tolerance: u64,
    /// Whether equal times match.
    pub(super) exact: bool,
}

impl Rule {
    /// Whether right rows of an instant are read before the left rows of that instant look for theirs.
    fn right_first(self) -> bool {
        self.exact == (self.direction != Direction::Forward)
    }

    fn looks_back(self) -> bool {
        self.direction != Direction::Forward
    }

    fn looks_ahead(self) -> bool {
        self.direction != Direction::Backward
    }
}

/// A batch of left rows with the places of their right rows in [`Matching::held`].
pub(super) struct Matched<'a> {
    pub(super) left: Batch<'a>,
    pub(super) spots: Vec<Spot>,
    /// The numbers of the left rows' keys.
    pub(super) ids: Vec<u32>,
}

/// Right rows that are kept: when, and the columns of the result.
#[derive(Default)]
pub(super) struct Held {
    pub(super) times: Vec<i64>,
    pub(super) columns: Vec<Column>,
}

impl Held {
    /// A batch with some of its columns.
    pub(super) fn of(mut rows: Batch<'_>, columns: &[usize]) -> Result<Held, QueryError> {
        let times = rows.times().to_vec();
        let columns = columns.iter().map(|position| rows.take(*position)).collect::<Result<_, _>>()?;
        Ok(Held { times, columns })
    }

    /// The rows at `spots` of several, which are somewhere.
    pub(super) fn picked(
        parts: &[Held],
        spots: &[Spot],
        of: &[(Arc<str>, ColumnType)],
    ) -> Result<Held, QueryError> {
        let time = |spot: &Spot| parts.get(spot.part as usize)?.times.get(spot.row as usize).copied();
        let times = spots.iter().map(|spot| time(spot).unwrap_or_default()).collect();
        let columns = of.iter().enumerate().map(|(at, (name, column_type))| {
            let columns: Vec<&Column> = parts.iter().filter_map(|part| part.columns.get(at)).collect();
            pick(&columns, spots, *column_type, name)
        });
        Ok(Held { times, columns: columns.collect::<Result<_, _>>()? })
    }
}

/// The last right rows of some keys, with the keys as [`encode`](crate::key::encode) has them.
#[derive(Default)]
pub(super) struct LastRows {
    pub(super) held: Held,
    pub(super) keys: Vec<Box<[u8]>>,
}

/// The last right row of a key that was read.
#[derive(Clone, Copy)]
pub(super) struct Last {
    pub(super) ts: i64,
    pub(super) spot: Spot,
}

impl Last {
    /// No row was read.
    pub(super) const NONE: Last = Last { ts: 0, spot: Spot::NOWHERE };
}

/// Left rows of a key that wait for a later right row, in order; each points to the next.
#[derive(Clone, Copy)]
struct Queue {
    first: Spot,
    last: Spot,
}

/// A batch of left rows, some of which may wait.
struct Waiting<'a> {
    rows: Batch<'a>,
    times: Vec<i64>,
    ids: Vec<u32>,
    spots: Vec<Spot>,
    /// Empty where rows do not wait.
    next: Vec<Spot>,
    waiting: usize,
}

/// A join on its way through both inputs.
pub(super) struct Matching<'a> {
    rule: Rule,
    left: Stream<'a>,
    right: Stream<'a>,
    /// Positions of the key columns in both inputs.
    key_columns: (Vec<usize>, Vec<usize>),
    keys: Keys,
    left_ended: bool,
    right_ended: bool,
    /// Positions, names and types of the right columns of the result.
    wanted: Vec<usize>,
    of_wanted: Vec<(Arc<str>, ColumnType)>,
    /// Right rows that a left row matches or may match; those being read are the last piece.
    held: Vec<Held>,
    held_rows: usize,
    /// Of the piece being read: keys, and the next row.
    right_ids: Vec<u32>,
    at: usize,
    /// By key, where the rule looks back.
    last: Vec<Last>,
    /// By key, where it looks ahead.
    queues: Vec<Queue>,
    /// Left rows that are not given back yet; the first batch has the number `first`.
    batches: VecDeque<Waiting<'a>>,
    first: u32,
    budget: Budget,
}

impl<'a> Matching<'a> {
    pub(super) fn new(
        left: Stream<'a>,
        right: Stream<'a>,
        key_columns: (Vec<usize>, Vec<usize>),
        wanted: Vec<usize>,
        rule: Rule,
    ) -> Matching<'a> {
        let keys = Keys::new(&columns_at(&left.header, &key_columns.0));
        let of = |position: &usize| {
            let column_type = right.header.column_at(*position).column_type();
            right.header.names().get(*position).map(|name| (name.clone(), column_type))
        };
        let of_wanted = wanted.iter().filter_map(of).collect();
        Matching {
            rule,
            left,
            right,
            key_columns,
            keys,
            left_ended: false,
            right_ended: false,
            wanted,
            of_wanted,
            held: Vec::new(),
            held_rows: 0,
            right_ids: Vec::new(),
            at: 0,
            last: Vec::new(),
            queues: Vec::new(),
            batches: VecDeque::new(),
            first: 0,
            budget: Budget::ALL,
        }
    }

    /// The same where little may be held.
    pub(super) fn within(mut self, budget: Budget) -> Matching<'a> {
        self.budget = budget;
        self
    }

    /// Refuses to hold more than fits.
    fn check(&self) -> Result<(), QueryError> {
        if !self.budget.is_bounded() {
            return Ok(());
        }
        const NOTED: usize = size_of::<(i64, u32, Spot, Spot)>();
        let of_left = |batch: &Waiting<'_>| batch.rows.byte_size() + batch.times.len() * NOTED;
        let of_right = |held: &Held| {
            let columns = held.columns.iter().map(Column::byte_size);
            columns.fold(held.times.len() * 8, usize::saturating_add)
        };
        let held = self.batches.iter().map(of_left).chain(self.held.iter().map(of_right));
        let held = held.fold(0, usize::saturating_add);
        let remedy = "look back, within a tolerance, or take fewer columns";
        self.budget.check("an as-of join", held, remedy)
    }

    /// The right rows that places point to.
    pub(super) fn held(&self) -> &[Held] {
        &self.held
    }

    /// Reads the right input to its end. Gives the last row of each key, and the keys as [`encode`] has them; for a rule that
    /// looks back alone.
    pub(super) fn finish(mut self) -> Result<LastRows, QueryError> {
        self.read_right(i64::MAX, true)?;
        let keys = self.last.into_iter().zip(self.keys.into_seen());
        let last: Vec<(Last, Box<[u8]>)> = keys.filter(|(last, _)| !last.spot.is_nowhere()).collect();
        let spots: Vec<Spot> = last.iter().map(|(last, _)| last.spot).collect();
        let held = Held::picked(&self.held, &spots, &self.of_wanted)?;
        Ok(LastRows { held, keys: last.into_iter().map(|(_, key)| key).collect() })
    }

    /// The keys by their numbers.
    pub(super) fn seen(&self) -> &[Box<[u8]>] {
        self.keys.seen()
    }

    /// Times of the piece being read.
    fn times(&self) -> &[i64] {
        self.held.last().map_or(&[], |held| &held.times)
    }

    /// The next left rows whose matches are known; `None` at the end. Their places hold until the next call.
    pub(super) fn next(&mut self) -> Result<Option<Matched<'a>>, QueryError> {
        loop {
            if self.is_first_known() {
                return Ok(self.give());
            }
            if !self.left_ended {
                self.check()?;
                self.read_left()?;
            } else if self.batches.is_empty() {
                return Ok(None);
            } else if !self.read_piece(i64::MAX, true) {
                self.next_right()?;
            }
        }
    }

    /// Whether no row of the first batch waits for anything that may come.
    fn is_first_known(&self) -> bool {
        let Some(batch) = self.batches.front() else { return false };
        let expired = || {
            let times = self.times();
            let now = times.get(self.at).or(times.last());
            now.zip(batch.times.last())
                .is_some_and(|(now, last)| now > last && now.abs_diff(*last) > self.rule.tolerance)
        };
        batch.waiting == 0 || self.right_ended || expired()
    }

    fn give(&mut self) -> Option<Matched<'a>> {
        let batch = self.batches.pop_front()?;
        if batch.waiting > 0 {
            // Its rows that wait are the first of their queues.
            for (row, (id, next)) in batch.ids.iter().zip(&batch.next).enumerate() {
                let queue = &mut self.queues[*id as usize];
                if queue.first == (Spot { part: self.first, row: row as u32 }) {
                    queue.first = *next;
                }
            }
        }
        self.first += 1;
        Some(Matched { left: batch.rows, spots: batch.spots, ids: batch.ids })
    }

    /// Reads a batch of left rows, and right rows as far as these need.
    fn read_left(&mut self) -> Result<(), QueryError> {
        let Some(rows) = self.left.next_batch()? else {
            self.left_ended = true;
            return Ok(());
        };
        let mut ids = Vec::new();
        self.number(&rows, true, &mut ids)?;
        let number = self.first + self.batches.len() as u32;
        let (count, rule) = (rows.rows(), self.rule);
        let times = rows.times().to_vec();
        let next = if rule.looks_ahead() { vec![Spot::NOWHERE; count] } else { Vec::new() };
        if rule.looks_ahead() {
            let spots = Vec::with_capacity(count);
            let (of_batch, keys) = (times.clone(), ids.clone());
            self.batches.push_back(Waiting { rows, times: of_batch, ids: keys, spots, next, waiting: 0 });
            return self.read_ahead(number, &times, &ids);
        }
        let spots = Vec::with_capacity(count);
        self.batches.push_back(Waiting { rows, times: Vec::new(), ids: Vec::new(), spots, next, waiting: 0 });
        let (mut spots, mut bound) = (self.swap_spots(Vec::new()), i64::MIN);
        for (ts, id) in times.iter().zip(&ids) {
            if *ts >= bound {
                if !self.read_piece(*ts, rule.right_first()) {
                    // Places change where right rows are let go.
                    self.swap_spots(spots);
                    self.read_right(*ts, rule.right_first())?;
                    spots = self.swap_spots(Vec::new());
                }
                bound = self.times().get(self.at).copied().unwrap_or(i64::MAX);
            }
            let last = self.last.get(*id as usize).copied().unwrap_or(Last::NONE);
            let is_near = last.ts.abs_diff(*ts) <= rule.tolerance;
            spots.push(if is_near { last.spot } else { Spot::NOWHERE });
        }
        self.swap_spots(spots);
        if let Some(batch) = self.batches.back_mut() {
            (batch.times, batch.ids) = (times, ids);
        }
        Ok(())
    }

    /// Puts places into the last batch in the stead of its own.
    fn swap_spots(&mut self, spots: Vec<Spot>) -> Vec<Spot> {
        self.batches.back_mut().map_or(Vec::new(), |batch| std::mem::replace(&mut batch.spots, spots))
    }

    /// The same where left rows may have to wait for right ones.
    fn read_ahead(&mut self, number: u32, times: &[i64], ids: &[u32]) -> Result<(), QueryError> {
        let (at, rule) = (self.batches.len() - 1, self.rule);
        for (row, (ts, id)) in times.iter().zip(ids).enumerate() {
            if self.times().get(self.at).is_none_or(|next| next <= ts) {
                self.read_right(*ts, rule.right_first())?;
            }
            let batch = &mut self.batches[at];
            let id = *id as usize;
            let mut spot = Spot::NOWHERE;
            if rule.looks_back() {
                let last = self.last[id];
                if !last.spot.is_nowhere() && last.ts.abs_diff(*ts) <= rule.tolerance {
                    spot = last.spot;
                }
            }
            batch.spots.push(spot);
            let is_exact = || rule.exact && !spot.is_nowhere() && self.last[id].ts == *ts;
            let is_known = self.right_ended || (rule.looks_back() && is_exact());
            if !is_known {
                batch.waiting += 1;
                let mine = Spot { part: number, row: row as u32 };
                let queue = &mut self.queues[id];
                let before = std::mem::replace(&mut queue.last, mine);
                match queue.first.is_nowhere() {
                    true => queue.first = mine,
                    false => {
                        self.batches[(before.part - self.first) as usize].next[before.row as usize] = mine
                    }
                }
            }
        }
        Ok(())
    }

    /// Numbers the keys of a batch.
    fn number(&mut self, rows: &Batch<'_>, is_left: bool, to: &mut Vec<u32>) -> Result<(), QueryError> {
        let columns = if is_left { &self.key_columns.0 } else { &self.key_columns.1 };
        self.keys.number(rows, columns, to)?;
        if self.rule.looks_back() {
            self.last.resize(self.keys.len(), Last::NONE);
        }
        if self.rule.looks_ahead() {
            self.queues.resize(self.keys.len(), Queue { first: Spot::NOWHERE, last: Spot::NOWHERE });
        }
        Ok(())
    }

    /// Reads right rows before an instant, or up to it where `inclusive`.
    fn read_right(&mut self, bound: i64, inclusive: bool) -> Result<(), QueryError> {
        while !self.right_ended && !self.read_piece(bound, inclusive) {
            self.check()?;
            self.next_right()?;
        }
        Ok(())
    }

    /// The same within the piece being read; whether there is a row behind them.
    fn read_piece(&mut self, bound: i64, inclusive: bool) -> bool {
        let part = self.held.len().saturating_sub(1) as u32;
        if !self.rule.looks_ahead() {
            let Matching { held, right_ids, at, last, .. } = self;
            let Some(held) = held.last() else { return false };
            let start = *at;
            let rows = held
                .times
                .get(start..)
                .unwrap_or_default()
                .iter()
                .zip(right_ids.get(start..).unwrap_or_default());
            for (row, (ts, id)) in (start as u32..).zip(rows) {
                if *ts > bound || (*ts == bound && !inclusive) {
                    return true;
                }
                *at += 1;
                if let Some(last) = last.get_mut(*id as usize) {
                    *last = Last { ts: *ts, spot: Spot { part, row } };
                }
            }
            return false;
        }
        while let Some(ts) = self.times().get(self.at).copied() {
            if ts > bound || (ts == bound && !inclusive) {
                return true;
            }
            let id = self.right_ids[self.at] as usize;
            let spot = Spot { part, row: self.at as u32 };
            self.at += 1;
            self.answer(id, ts, spot);
            if self.rule.looks_back() {
                self.last[id] = Last { ts, spot };
            }
        }
        false
    }

    /// Gives the left rows of a key that wait the right row that has come.
    fn answer(&mut self, id: usize, ts: i64, spot: Spot) {
        while let Some(batch) = self.queues[id].first.part.checked_sub(self.first)
            && let Some(batch) = self.batches.get_mut(batch as usize)
        {
            let row = self.queues[id].first.row as usize;
            let waited_from = batch.times[row];
            if waited_from == ts && !self.rule.exact {
                return;
            }
            self.queues[id].first = batch.next[row];
            batch.waiting -= 1;
            let distance = ts.abs_diff(waited_from);
            let before = batch.spots[row];
            let before = self.held.get(before.part as usize).map(|part| part.times[before.row as usize]);
            let is_nearer = before.is_none_or(|before| distance < waited_from.abs_diff(before));
            if is_nearer && distance <= self.rule.tolerance {
                batch.spots[row] = spot;
            }
        }
    }

    fn next_right(&mut self) -> Result<(), QueryError> {
        self.let_go()?;
        let Some(rows) = self.right.next_batch()? else {
            self.right_ended = true;
            return Ok(());
        };
        let mut ids = std::mem::take(&mut self.right_ids);
        self.number(&rows, false, &mut ids)?;
        self.right_ids = ids;
        self.at = 0;
        self.held_rows += rows.rows();
        self.held.push(Held::of(rows, &self.wanted)?);
        Ok(())
    }

    /// Copies the right rows that are needed and lets the others go, where these are many.
    fn let_go(&mut self) -> Result<(), QueryError> {
        let needed = self.last.len() + self.batches.iter().map(|batch| batch.spots.len()).sum::<usize>();
        let most = held_rows_max(HELD_ROWS, self.budget, &self.of_wanted);
        if self.held_rows <= most.max(2 * needed) {
            return Ok(());
        }
        let places = self.last.iter_mut().map(|last| &mut last.spot);
        let places = places.chain(self.batches.iter_mut().flat_map(|batch| &mut batch.spots));
        let mut spots = Vec::new();
        for place in places.filter(|place| !place.is_nowhere()) {
            let row = u32::try_from(spots.len()).map_err(|_| QueryError::TooManyRows { rows: needed })?;
            spots.push(std::mem::replace(place, Spot { part: 0, row }));
        }
        let held = Held::picked(&self.held, &spots, &self.of_wanted)?;
        self.held_rows = held.times.len();
        self.held = vec![held];
        // What is being read was read to its end.
        self.at = self.held_rows;
        self.right_ids.clear();
        Ok(())
    }
}
