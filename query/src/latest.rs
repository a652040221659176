//! The newest rows: of a series, and of each key.

use std::borrow::Cow;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;
use underbelly_storage::{Column, Columns, Timestamp, Value};

use crate::gather::{Gather, rows_taken};
use crate::group::{Group, Keep, OpenGroup, Place, Tied, Wanted};
use crate::interval::Interval;
use crate::key::{Selection, encode};
use crate::lane::Lane;
use crate::merge::{Head, Stretch};
use crate::predicate::{Predicate, matching};
use crate::timed::times;
use crate::{QueryError, Scan, Seqs, Source};

/// The newest `n` rows by (timestamp, seq, arrival), newest first, whose key columns have these values (null asks
/// for rows without one). All columns of the schema, "timestamp" first.
///
/// Groups are read from the end, and none that cannot hold one of the rows given back, as far as zones tell.
///
/// # Errors
/// [`QueryError::UnknownColumn`], [`QueryError::NotKey`], [`QueryError::KeyType`] or [`QueryError::KeyPrecision`]
/// where a filter does not fit the schema; what reading reports; [`QueryError::TooLarge`] where a column would pass 4 GiB of text.
pub fn latest(source: &dyn Source, n: usize, keys: &[(&str, Value)]) -> Result<Columns, QueryError> {
    let keys = shared(keys);
    newest(source, n, &Wanted::new(source, Interval::ALL, &keys, None)?)
}

/// The timestamp of the newest row; `None` where there is no row. No field is read.
///
/// # Errors
/// What reading reports.
pub fn newest_timestamp(source: &dyn Source) -> Result<Option<i64>, QueryError> {
    let rows = newest(source, 1, &Wanted::new(source, Interval::ALL, &[], Some(&[]))?)?;
    Ok(times(&rows).first().copied())
}

/// The newest `n` rows that pass, newest first.
fn newest(source: &dyn Source, n: usize, wanted: &Wanted) -> Result<Columns, QueryError> {
    let mut cursors: Vec<Cursor<'_>> = source
        .runs()
        .iter()
        .enumerate()
        .map(|(position, run)| Cursor {
            place: Place { run: &**run, position },
            groups: wanted.groups(&**run),
            group: None,
            after: 0,
            open: None,
        })
        .collect();
    // Each run that may have more rows stands once in the heap: with its newest row that is not used where a
    // group is open, else with a place at or after it.
    let mut heap: BinaryHeap<Head> = cursors.iter_mut().filter_map(|c| c.next_head(wanted)).collect();
    let mut gather = Gather::new(&wanted.columns, 0);
    let mut room = n;
    while room > 0 {
        let Some(head) = heap.pop() else { break };
        let next = heap.peek().copied();
        let Some(cursor) = cursors.get_mut(head.run) else { break };
        let Some(group) = &mut cursor.open else {
            let tied = |first, _| next.is_some_and(|next| next.ts >= first);
            cursor.open_last(wanted, room, tied)?;
            heap.extend(match &cursor.open {
                Some(group) => Some(group.ordered(head.run).head(group.rows.end - 1)),
                None => cursor.next_head(wanted),
            });
            continue;
        };
        let start = group.ordered(head.run).after(group.rows.clone(), next);
        let rows = start.max(group.rows.end.saturating_sub(room))..group.rows.end;
        room -= rows.len();
        group.rows.end = rows.start;
        gather.extend_reversed(group, rows)?;
        wanted.budget.check("a search for the newest rows", gather.byte_size(), "ask for fewer rows")?;
        heap.extend(if group.rows.is_empty() {
            cursor.open = None;
            cursor.next_head(wanted)
        } else {
            Some(group.ordered(head.run).head(group.rows.end - 1))
        });
    }
    gather.finish()
}

/// The newest row by (timestamp, seq, arrival) whose key columns have these values, as columns of one row; `None`
/// where there is no such row.
///
/// # Errors
/// As [`latest`].
pub fn last_point(source: &dyn Source, keys: &[(&str, Value)]) -> Result<Option<Columns>, QueryError> {
    let row = latest(source, 1, keys)?;
    Ok((!row.is_empty()).then_some(row))
}

/// The newest row at an instant or before it whose key columns have these values, as columns of one row; `None` where
/// there is no such row.
///
/// # Errors
/// As [`latest`].
pub fn at_or_before(
    source: &dyn Source,
    at: Timestamp,
    keys: &[(&str, Value)],
) -> Result<Option<Columns>, QueryError> {
    let until = Interval { last: at.0, ..Interval::ALL };
    let row = newest(source, 1, &Wanted::new(source, until, &shared(keys), None)?)?;
    Ok((!row.is_empty()).then_some(row))
}

/// The first row at an instant or after it by (timestamp, seq, arrival) whose key columns have these values, as columns
/// of one row; `None` where there is no such row.
///
/// # Errors
/// As [`latest`].
pub fn at_or_after(
    source: &dyn Source,
    at: Timestamp,
    keys: &[(&str, Value)],
) -> Result<Option<Columns>, QueryError> {
    let scan = keys.iter().fold(Scan::new(source), |scan, (name, value)| scan.key(name, value.clone()));
    let row = scan.from(at).rows_max(1).collect()?;
    Ok((!row.is_empty()).then_some(row))
}

/// The nearer of what [`at_or_before`] and [`at_or_after`] find; the earlier one where both are as near.
///
/// # Errors
/// As [`latest`].
pub fn nearest(
    source: &dyn Source,
    at: Timestamp,
    keys: &[(&str, Value)],
) -> Result<Option<Columns>, QueryError> {
    let (before, after) = (at_or_before(source, at, keys)?, at_or_after(source, at, keys)?);
    let distance = |row: &Columns| times(row).first().map_or(u64::MAX, |ts| ts.abs_diff(at.0));
    Ok(match (before, after) {
        (Some(before), Some(after)) if distance(&after) < distance(&before) => Some(after),
        (before, after) => before.or(after),
    })
}

fn shared(keys: &[(&str, Value)]) -> Vec<(Arc<str>, Value)> {
    keys.iter().map(|(name, value)| ((*name).into(), value.clone())).collect()
}

/// Of the newest rows of each distinct key those that meet all predicates: the orders that are open, where each change
/// of an order is a row. A key whose newest row does not is left out, whatever its older rows are.
///
/// # Errors
/// As [`last_points`]; [`QueryError::UnknownColumn`] and [`QueryError::ValueType`] where a predicate does not fit.
pub fn last_points_where(
    source: &dyn Source,
    predicates: &[(&str, Predicate)],
) -> Result<Columns, QueryError> {
    matching(last_points(source)?, predicates)
}

/// The newest row of each distinct key, sorted by the key columns in the order of the schema: nulls, which are a
/// value too, come first, NaN last, text by its bytes. All columns of the schema, "timestamp" first. A schema
/// without key columns has one key.
///
/// Timestamps and keys of all groups are read; the other columns of those groups alone that hold a newest row.
///
/// # Errors
/// [`QueryError::ColumnType`] where a run does not fit the schema; what reading reports;
/// [`QueryError::TooLarge`] where a column would pass 4 GiB of text.
pub fn last_points(source: &dyn Source) -> Result<Columns, QueryError> {
    if source.schema().keys().next().is_none() {
        return latest(source, 1, &[]);
    }
    Ok(newest_rows(source, 0)?.rows)
}

/// The newest row of each key.
pub(crate) struct NewestRows {
    /// Encoded, in their order, with the commit of the row.
    pub(crate) keys: Vec<(Box<[u8]>, u64)>,
    /// A row for each, "timestamp" and all columns of the schema.
    pub(crate) rows: Columns,
}

/// The newest row of each key among those of commits behind `after`; among all where that is 0.
pub(crate) fn newest_rows(source: &dyn Source, after: u64) -> Result<NewestRows, QueryError> {
    let wanted = Wanted { after, ..Wanted::new(source, Interval::ALL, &[], None)? };
    let mut newest: HashMap<Box<[u8]>, Spot> = HashMap::new();
    // From the newest end, so that most rows find their key taken by a newer one.
    let runs = source.runs().iter().enumerate().rev();
    for (position, run) in runs.filter(|(_, run)| after == 0 || run.seq_max() > after) {
        let place = Place { run: &**run, position };
        for group in wanted.groups(place.run).rev() {
            note_newest(source, &wanted, place, group, &mut newest)?;
            let (operator, remedy) =
                ("a search for the newest row of each key", "give fewer columns as keys");
            wanted.budget.check(operator, newest.len().saturating_mul(NOTED_BYTES), remedy)?;
        }
    }
    // Rows of a group are below 2^32, as its opening checks.
    let mut spots: Vec<(Box<[u8]>, Spot)> = newest.into_iter().collect();
    spots.sort_unstable_by_key(|(_, spot)| (spot.head.run, spot.group, spot.row));
    let mut gather = Gather::new(&wanted.columns, spots.len());
    for of_group in spots.chunk_by(|(_, a), (_, b)| (a.head.run, a.group) == (b.head.run, b.group)) {
        let [(_, Spot { head, group, .. }), ..] = of_group else { continue };
        let Some(run) = source.runs().get(head.run) else { continue };
        let place = Place { run: &**run, position: head.run };
        let mut group = Group::new(place, *group)?;
        wanted.bound(&mut group);
        let picked: Vec<u32> = of_group.iter().map(|(_, spot)| spot.row as u32).collect();
        let opened = OpenGroup {
            timestamps: of_group.iter().map(|(_, spot)| spot.head.ts).collect(),
            seqs: Seqs::One(0),
            columns: wanted.read(&mut group, &picked)?,
            rows: 0..picked.len(),
        };
        gather.extend(&[Stretch { run: 0, rows: 0..picked.len() }], |_| Some(&opened))?;
    }
    let rows = gather.finish()?;
    let end = u32::try_from(spots.len()).map_err(|_| QueryError::TooManyRows { rows: spots.len() })?;
    let mut order: Vec<u32> = (0..end).collect();
    order.sort_unstable_by_key(|i| &spots[*i as usize].0);
    let rows = rows_taken(&rows, &order)?;
    spots.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    Ok(NewestRows { keys: spots.into_iter().map(|(key, spot)| (key, spot.head.seq)).collect(), rows })
}

/// Bytes of a key with the place of its newest row, and of that row, about.
const NOTED_BYTES: usize = 192;

/// Where a row stands: its place in the order of all rows, then its group and its position there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Spot {
    head: Head,
    group: usize,
    row: usize,
}

/// Notes the rows of a group that are newer than what is noted for their keys.
fn note_newest(
    source: &dyn Source,
    wanted: &Wanted,
    place: Place<'_>,
    group: usize,
    newest: &mut HashMap<Box<[u8]>, Spot>,
) -> Result<(), QueryError> {
    let zone = place.run.zone(group);
    if wanted.passes_none(place.run, group, &zone) {
        return Ok(());
    }
    let mut opened = Group::new(place, group)?;
    wanted.bound(&mut opened);
    let whole = opened.rows.clone();
    let selected = wanted.select(&mut opened, whole.clone())?;
    if selected.selection.len() == 0 {
        return Ok(());
    }
    let timestamps = match selected.timestamps {
        Some(timestamps) => timestamps,
        None => opened.timestamps(&whole)?,
    };
    let seqs = match selected.seqs {
        Some(seqs) => seqs,
        None => opened.seqs(&whole)?,
    };
    let mut lanes: Vec<Option<Lane<'_>>> = Vec::new();
    for key in source.schema().keys() {
        let lane = opened.lane(&key.name, &whole)?;
        lanes.push(lane.map(|lane| lane.fitted(key.column_type, &key.name)).transpose()?);
    }
    let mut note = |key: &[u8], row: usize| {
        let head = Head { ts: timestamps[row], seq: seqs.get(row), run: place.position };
        let spot = Spot { head, group, row };
        match newest.get_mut(key) {
            Some(known) => *known = spot.max(*known),
            None => {
                newest.insert(key.into(), spot);
            }
        }
    };
    let rows: Box<dyn Iterator<Item = usize>> = match &selected.selection {
        Selection::Range(rows) => Box::new(rows.clone().rev()),
        Selection::Rows(rows) => Box::new(rows.iter().rev().map(|row| *row as usize)),
    };
    let mut key = Vec::new();
    if let [Some(Lane::Codes(of))] = &lanes[..] {
        // Rows come newest first, so of each text the first is the newest.
        let distinct = Some(Cow::Borrowed(&*of.distinct));
        let (mut is_noted, mut left) = (vec![false; of.distinct.len()], of.distinct.len());
        for row in rows {
            let code = of.codes[row] as usize;
            if !std::mem::replace(&mut is_noted[code], true) {
                key.clear();
                encode(distinct.as_ref(), code, &mut key);
                note(&key, row);
                left -= 1;
            }
            if left == 0 {
                break;
            }
        }
        return Ok(());
    }
    let mut keys: Vec<Option<Cow<'_, Column>>> = Vec::new();
    for (lane, schema) in lanes.into_iter().zip(source.schema().keys()) {
        keys.push(lane.map(|lane| lane.column(&schema.name)).transpose()?);
    }
    let mut previous = Vec::new();
    for row in rows {
        std::mem::swap(&mut key, &mut previous);
        key.clear();
        keys.iter().for_each(|column| encode(column.as_ref(), row, &mut key));
        // Rows come newest first, so a row of the same key as the one before is older.
        if key != previous {
            note(&key, row);
        }
    }
    Ok(())
}

/// Where a search from the end stands in one run. `groups` are not opened yet.
struct Cursor<'r> {
    place: Place<'r>,
    groups: Range<usize>,
    /// The group that is read piece by piece.
    group: Option<Group<'r>>,
    /// No row of the group that is not read yet is after this instant.
    after: i64,
    open: Option<OpenGroup<'r>>,
}

impl Cursor<'_> {
    /// A place at or after the newest visible row that may come.
    fn next_head(&mut self, wanted: &Wanted) -> Option<Head> {
        if self.group.as_ref().is_some_and(|group| !group.rows.is_empty()) {
            return Some(Head { ts: self.after, seq: u64::MAX, run: self.place.position });
        }
        self.group = None;
        while !self.groups.is_empty() {
            let zone = self.place.run.zone(self.groups.end - 1);
            if !wanted.passes_none(self.place.run, self.groups.end - 1, &zone) {
                let seq = zone.seq_max.min(wanted.seq);
                return Some(Head { ts: zone.ts_max, seq, run: self.place.position });
            }
            self.groups.end -= 1;
        }
        None
    }

    /// Opens the last piece that is not read yet.
    fn open_last(
        &mut self,
        wanted: &Wanted,
        room: usize,
        tied: impl FnOnce(i64, i64) -> bool,
    ) -> Result<(), QueryError> {
        let group = match &mut self.group {
            Some(group) => group,
            None => {
                self.groups.end -= 1;
                let group = wanted.begin(self.place, self.groups.end)?;
                self.after = group.zone.ts_max;
                self.group.insert(group)
            }
        };
        let piece = group.last_piece();
        if piece.is_empty() {
            return Ok(());
        }
        self.open = wanted.open(group, piece, Keep::Last(room), Tied::Where(tied))?;
        let times = self.open.as_ref().map(|open| &*open.timestamps).unwrap_or_default();
        if let (Some(first), Some(last)) = (times.first(), times.last()) {
            // Pieces are read apart: that each is in order does not say that all are.
            if *last > self.after {
                return Err(QueryError::Disordered { run: self.place.position, group: group.number });
            }
            self.after = *first;
        }
        Ok(())
    }
}
