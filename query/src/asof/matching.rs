//! Which right row belongs to which left row: one pass over both inputs in order of time.

use std::collections::VecDeque;

use underbelly_storage::{Column, Columns};

use crate::QueryError;
use crate::asof::Direction;
use crate::ids::KeyIds;
use crate::pick::{Spot, pick};
use crate::timed::{Stream, columns_at, times};

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
pub(super) struct Matched {
    pub(super) left: Columns,
    pub(super) spots: Vec<Spot>,
}

/// The last right row of a key that was read.
#[derive(Clone, Copy)]
struct Last {
    ts: i64,
    spot: Spot,
}

/// Left rows of a key that wait for a later right row, in order; each points to the next.
#[derive(Clone, Copy)]
struct Queue {
    first: Spot,
    last: Spot,
}

/// A batch of left rows, some of which may wait.
struct Batch {
    rows: Columns,
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
    keys: (Vec<usize>, Vec<usize>),
    ids: KeyIds,
    left_ended: bool,
    right_ended: bool,
    /// Right rows that a left row matches or may match; those being read are the last piece.
    held: Vec<Columns>,
    held_rows: usize,
    /// Of the piece being read: times, keys, and the next row.
    times: Vec<i64>,
    right_ids: Vec<u32>,
    at: usize,
    /// By key, where the rule looks back.
    last: Vec<Last>,
    /// By key, where it looks ahead.
    queues: Vec<Queue>,
    /// Left rows that are not given back yet; the first batch has the number `first`.
    batches: VecDeque<Batch>,
    first: u32,
}

impl<'a> Matching<'a> {
    pub(super) fn new(
        left: Stream<'a>,
        right: Stream<'a>,
        keys: (Vec<usize>, Vec<usize>),
        rule: Rule,
    ) -> Matching<'a> {
        let ids = KeyIds::new(&columns_at(&left.header, &keys.0));
        Matching {
            rule,
            left,
            right,
            keys,
            ids,
            left_ended: false,
            right_ended: false,
            held: Vec::new(),
            held_rows: 0,
            times: Vec::new(),
            right_ids: Vec::new(),
            at: 0,
            last: Vec::new(),
            queues: Vec::new(),
            batches: VecDeque::new(),
            first: 0,
        }
    }

    /// The right rows that places point to.
    pub(super) fn held(&self) -> &[Columns] {
        &self.held
    }

    /// The next left rows whose matches are known; `None` at the end. Their places hold until the next call.
    pub(super) fn next(&mut self) -> Result<Option<Matched>, QueryError> {
        loop {
            if self.is_first_known() {
                return Ok(self.give());
            }
            if !self.left_ended {
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
            let now = self.times.get(self.at).or(self.times.last());
            now.zip(batch.times.last())
                .is_some_and(|(now, last)| now > last && now.abs_diff(*last) > self.rule.tolerance)
        };
        batch.waiting == 0 || self.right_ended || expired()
    }

    fn give(&mut self) -> Option<Matched> {
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
        Some(Matched { left: batch.rows, spots: batch.spots })
    }

    /// Reads a batch of left rows, and right rows as far as these need.
    fn read_left(&mut self) -> Result<(), QueryError> {
        let Some(rows) = self.left.next()? else {
            self.left_ended = true;
            return Ok(());
        };
        let mut ids = Vec::new();
        self.ids.number(&columns_at(&rows, &self.keys.0), rows.rows(), &mut ids);
        self.make_room_for_keys();
        let number = self.first + self.batches.len() as u32;
        let (count, rule) = (rows.rows(), self.rule);
        let next = if rule.looks_ahead() { vec![Spot::NOWHERE; count] } else { Vec::new() };
        let spots = Vec::with_capacity(count);
        let times = times(&rows).to_vec();
        self.batches.push_back(Batch { rows, times, ids, spots, next, waiting: 0 });
        let at = self.batches.len() - 1;
        for row in 0..count {
            let ts = self.batches[at].times[row];
            if self.times.get(self.at).is_none_or(|next| *next <= ts) {
                self.read_right(ts, rule.right_first())?;
            }
            let batch = &mut self.batches[at];
            let id = batch.ids[row] as usize;
            let mut spot = Spot::NOWHERE;
            if rule.looks_back() {
                let last = self.last[id];
                if !last.spot.is_nowhere() && last.ts.abs_diff(ts) <= rule.tolerance {
                    spot = last.spot;
                }
            }
            batch.spots.push(spot);
            let is_exact = || rule.exact && !spot.is_nowhere() && self.last[id].ts == ts;
            if rule.looks_ahead() && !self.right_ended && !(rule.looks_back() && is_exact()) {
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

    fn make_room_for_keys(&mut self) {
        if self.rule.looks_back() {
            self.last.resize(self.ids.len(), Last { ts: 0, spot: Spot::NOWHERE });
        }
        if self.rule.looks_ahead() {
            self.queues.resize(self.ids.len(), Queue { first: Spot::NOWHERE, last: Spot::NOWHERE });
        }
    }

    /// Reads right rows before an instant, or up to it where `inclusive`.
    fn read_right(&mut self, bound: i64, inclusive: bool) -> Result<(), QueryError> {
        while !self.right_ended && !self.read_piece(bound, inclusive) {
            self.next_right()?;
        }
        Ok(())
    }

    /// The same within the piece being read; whether there is a row behind them.
    fn read_piece(&mut self, bound: i64, inclusive: bool) -> bool {
        let part = self.held.len().saturating_sub(1) as u32;
        while let Some(ts) = self.times.get(self.at).copied() {
            if ts > bound || (ts == bound && !inclusive) {
                return true;
            }
            let id = self.right_ids[self.at] as usize;
            let spot = Spot { part, row: self.at as u32 };
            self.at += 1;
            if self.rule.looks_ahead() {
                self.answer(id, ts, spot);
            }
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
            let before = self.held.get(before.part as usize).map(|part| times(part)[before.row as usize]);
            let is_nearer = before.is_none_or(|before| distance < waited_from.abs_diff(before));
            if is_nearer && distance <= self.rule.tolerance {
                batch.spots[row] = spot;
            }
        }
    }

    fn next_right(&mut self) -> Result<(), QueryError> {
        self.let_go()?;
        let Some(rows) = self.right.next()? else {
            self.right_ended = true;
            return Ok(());
        };
        self.ids.number(&columns_at(&rows, &self.keys.1), rows.rows(), &mut self.right_ids);
        self.make_room_for_keys();
        self.times.clear();
        self.times.extend_from_slice(times(&rows));
        self.at = 0;
        self.held_rows += rows.rows();
        self.held.push(rows);
        Ok(())
    }

    /// Copies the right rows that are needed and lets the others go, where these are many.
    fn let_go(&mut self) -> Result<(), QueryError> {
        let needed = self.last.len() + self.batches.iter().map(|batch| batch.spots.len()).sum::<usize>();
        if self.held_rows <= HELD_ROWS.max(2 * needed) {
            return Ok(());
        }
        let places = self.last.iter_mut().map(|last| &mut last.spot);
        let places = places.chain(self.batches.iter_mut().flat_map(|batch| &mut batch.spots));
        let mut spots = Vec::new();
        for place in places.filter(|place| !place.is_nowhere()) {
            let row = u32::try_from(spots.len()).map_err(|_| QueryError::TooManyRows { rows: needed })?;
            spots.push(std::mem::replace(place, Spot { part: 0, row }));
        }
        let mut rows = Columns::new();
        for (position, (name, column)) in self.right.header.iter().enumerate() {
            let parts: Vec<&Column> = self.held.iter().map(|part| part.column_at(position)).collect();
            rows.insert(name.clone(), pick(&parts, &spots, column.column_type(), name)?)?;
        }
        self.held_rows = rows.rows();
        self.held = vec![rows];
        Ok(())
    }
}
