//! Following the rows of a series: what each transaction appended, in order.
//!
//! Rows keep the seq of the transaction that appended them, in whatever run they are, so they are followed where they are stored, and
//! nothing more is written. A subscription is a place in the sequence and has no queue of its own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use underbelly_query::{MemoryRun, QueryError, Run, SchemaColumn, TIMESTAMP};
use underbelly_storage::{Column, ColumnType, Columns, Values};

use crate::database::Database;
use crate::error::ReadError;
use crate::series::Series;
use crate::snapshot::Snapshot;
use crate::view::{Base, View};

use super::follower::{Follower, Place as _};
use super::{FeedError, Slow, Start, cursor};

/// Rows that are read at once, about, by whoever is far behind.
const READ_ROWS: u64 = 1 << 20;

/// The rows that a transaction appended to a series, as who follows it is told of them.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Appended {
    /// The transaction's place in the order of all.
    pub seq: u64,
    /// The rows in order of (timestamp, arrival), all columns of the series as it is now, "timestamp" first.
    pub rows: Columns,
    /// Transactions before this one that were passed over because the subscription was too slow; 0 but with [`Slow::Skip`].
    pub skipped: u64,
}

/// A place among the rows of a series.
struct Place {
    series: String,
    /// The transaction that is looked at next.
    next: u64,
    /// Rows of transactions that were read along, before `next`.
    read: VecDeque<(u64, Columns)>,
}

impl Place {
    fn new(base: &Base, series: &str, start: &Start) -> Result<Place, FeedError> {
        let next = match start {
            Start::Oldest => 1,
            Start::Cursor(name) => cursor::next(base, name)?.unwrap_or(1),
            other => other.seq(base)?,
        };
        Ok(Place { series: series.to_string(), next, read: VecDeque::new() })
    }
}

impl super::follower::Place for Place {
    type Told = (u64, Columns);

    fn next_seq(&self) -> u64 {
        self.read.front().map_or(self.next, |(seq, _)| *seq)
    }

    fn go_to(&mut self, next: u64) {
        self.read.retain(|(seq, _)| *seq >= next);
        self.next = self.next.max(next);
    }

    /// Rows as they were appended, whatever was put over them since.
    fn advance(&mut self, snapshot: &Snapshot) -> Result<Option<(u64, Columns)>, FeedError> {
        let until = snapshot.seq();
        while self.read.is_empty() && self.next <= until {
            let series = match snapshot.series(&self.series) {
                Ok(series) => series,
                // It is made by its first rows.
                Err(ReadError::UnknownSeries { .. }) => {
                    self.next = until + 1;
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            };
            let after = self.next - 1;
            let mut end = until;
            while end - after > 1 && rows_at_most(series.stored().0, after, end) > READ_ROWS {
                end = after + (end - after) / 2;
            }
            self.read = rows_of(&series, after, end).map_err(ReadError::from)?.into();
            self.next = end + 1;
        }
        Ok(self.read.pop_front())
    }
}

/// How many rows transactions behind `after` up to `until` have at most, as far as zones tell.
fn rows_at_most(runs: &[Arc<dyn Run>], after: u64, until: u64) -> u64 {
    let zones = runs.iter().flat_map(|run| (0..run.groups()).map(|group| run.zone(group)));
    let there = zones.filter(|zone| zone.seq_max > after && zone.seq_min <= until);
    there.fold(0, |rows, zone| rows.saturating_add(zone.rows as u64))
}

/// The rows of transactions behind `after` up to `until`, one after another, those of each in order of (timestamp, arrival).
fn rows_of(series: &Series, after: u64, until: u64) -> Result<Vec<(u64, Columns)>, QueryError> {
    let (runs, tombstones) = series.stored();
    let schema = &series.schema().columns;
    let mut pieces = Vec::new();
    for run in runs.iter().filter(|run| run.seq_max() > after) {
        for group in 0..run.groups() {
            let zone = run.zone(group);
            if zone.seq_max > after && zone.seq_min <= until {
                pieces.extend(rows_of_group(&**run, group, schema, after + 1..=until)?);
            }
        }
    }
    for piece in &mut pieces {
        let hiding = tombstones.over_run(piece);
        *piece = piece.without(&hiding)?;
    }
    // Seq and time, then where the row is: its piece, and its place there.
    let mut places: Vec<(u64, i64, usize, usize)> = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        let seqs = piece.seqs();
        places
            .extend(piece.timestamps().iter().enumerate().map(|(row, time)| (seqs.get(row), *time, at, row)));
    }
    places.sort_unstable();
    let mut found = Vec::new();
    for places in places.chunk_by(|a, b| a.0 == b.0) {
        // Neighbours mostly are neighbours in their piece, too.
        let stretches = || places.chunk_by(|a, b| a.2 == b.2 && a.3 + 1 == b.3);
        let stretch = |stretch: &[(u64, i64, usize, usize)]| {
            let (_, _, piece, start) = *stretch.first()?;
            Some((pieces.get(piece)?, start..start + stretch.len()))
        };
        let times = Values::Timestamp(places.iter().map(|(_, time, ..)| *time).collect());
        let times = Column::from_parts(times, None).unwrap_or(Column::new(ColumnType::Timestamp));
        let mut rows = Columns::new().with(TIMESTAMP, times)?;
        for SchemaColumn { name, column_type, .. } in schema {
            let mut column = Column::with_capacity(*column_type, places.len());
            for (piece, rows) in stretches().filter_map(stretch) {
                let from = piece.columns().column(name);
                let extended = from.and_then(|from| column.extend_range(from, rows));
                extended.ok_or_else(|| QueryError::TooLarge { column: name.to_string() })?;
            }
            rows.insert(name.clone(), column)?;
        }
        if let Some((seq, ..)) = places.first() {
            found.push((*seq, rows));
        }
    }
    Ok(found)
}

/// Rows of a group whose seqs are asked for, with all columns of the schema; `None` where there is none.
fn rows_of_group(
    run: &dyn Run,
    group: usize,
    schema: &[SchemaColumn],
    asked: std::ops::RangeInclusive<u64>,
) -> Result<Option<MemoryRun>, QueryError> {
    let (times, seqs) = (run.timestamps(group)?, run.seqs(group)?);
    let rows = u32::try_from(times.len()).map_err(|_| QueryError::TooManyRows { rows: times.len() })?;
    let rows: Vec<u32> = (0..rows).filter(|row| asked.contains(&seqs.get(*row as usize))).collect();
    if rows.is_empty() {
        return Ok(None);
    }
    let mut columns = Columns::new();
    for SchemaColumn { name, column_type, .. } in schema {
        let Some(column) = run.column(group, name)? else {
            columns.insert(name.clone(), Column::nulls(*column_type, rows.len()))?;
            continue;
        };
        let (found, expected) = (column.len(), times.len());
        if found != expected {
            return Err(QueryError::Malformed { run: 0, group, what: name.to_string(), expected, found });
        }
        let taken = column.take(&rows).ok_or_else(|| QueryError::TooLarge { column: name.to_string() })?;
        let found = taken.column_type();
        let wrong = || QueryError::ColumnType { name: name.to_string(), expected: *column_type, found };
        columns.insert(name.clone(), taken.widened(*column_type).ok_or_else(wrong)?)?;
    }
    let at = |row: &u32| *row as usize;
    let of_rows = rows.iter().filter_map(|row| times.get(at(row)).copied()).collect();
    MemoryRun::with_seqs(of_rows, rows.iter().map(|row| seqs.get(at(row))).collect(), columns).map(Some)
}

impl View {
    /// What transactions appended to a series, oldest first, up to the newest one that is durable and visible now; nothing where there
    /// is no such series yet. Who reads a database that another process writes follows it by a
    /// [`refresh`](crate::Reader::refresh) and another feed from [`next_seq`](SeriesFeed::next_seq) on.
    ///
    /// [`Start::Oldest`] is the oldest row that is kept. Rows are told as they were appended, also those over which others were put since; what
    /// was deleted, or left out by a checkpoint because of others, before it was told is not told.
    ///
    /// # Errors
    /// [`FeedError::Ahead`] or [`FeedError::CursorAhead`] where there is no such transaction yet; [`FeedError::Commit`] where no cursor may have such a name.
    pub fn series_feed(&self, series: &str, start: Start) -> Result<SeriesFeed, FeedError> {
        let base = self.base().clone();
        let snapshot = Snapshot::told(&base);
        Ok(SeriesFeed { place: Place::new(&base, series, &start)?, snapshot, is_over: false })
    }
}

/// What transactions appended to a series, up to a newest one: made by [`View::series_feed`]. It ends after an error.
pub struct SeriesFeed {
    place: Place,
    /// Holds what is to be told.
    snapshot: Snapshot,
    is_over: bool,
}

impl SeriesFeed {
    /// The transaction behind what was told: where to go on with [`Start::Seq`].
    pub fn next_seq(&self) -> u64 {
        self.place.next_seq()
    }
}

impl Iterator for SeriesFeed {
    type Item = Result<Appended, FeedError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = self.place.advance(&self.snapshot).transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        next.map(|next| next.map(|told| appended((told, 0))))
    }
}

impl Database {
    /// Follows the rows of a series from any transaction on: those of each transaction that appended some, in order, without a gap, as
    /// soon as they are durable and visible. What is slower than the commits is dealt with as `slow` says, which counts all
    /// transactions, also those without rows of this series. The series need not be there yet.
    ///
    /// All rows that are stored can be followed, however old; rows that were deleted before they were told are not told.
    ///
    /// # Errors
    /// As [`View::series_feed`].
    pub fn subscribe_series(
        &self,
        series: &str,
        start: Start,
        slow: Slow,
    ) -> Result<SeriesSubscription, FeedError> {
        let core = self.core().clone();
        let place = Place::new(core.view.base(), series, &start)?;
        Ok(SeriesSubscription { follower: Follower::new(core, place, slow) })
    }
}

/// Follows the rows of a series: made by [`Database::subscribe_series`]. It does not keep the database open.
///
/// As an iterator it waits for each next transaction, and ends when the database is closed, or after an error.
pub struct SeriesSubscription {
    follower: Follower<Place>,
}

impl SeriesSubscription {
    /// The rows of the next transaction; `None` when `timeout` has passed before there were some. A `timeout` of zero asks without
    /// waiting.
    ///
    /// # Errors
    /// [`FeedError::TooSlow`] where the subscription was too slow; [`FeedError::Read`] where rows cannot be read; and once
    /// everything was told, [`FeedError::Commit`] where the database was closed or its log has failed.
    pub fn next_within(&mut self, timeout: Duration) -> Result<Option<Appended>, FeedError> {
        let next = self.follower.next_within(timeout)?;
        Ok(next.map(appended))
    }

    /// The transaction behind what was told or passed over: where to go on with [`Start::Seq`].
    pub fn next_seq(&self) -> u64 {
        self.follower.place.next_seq()
    }
}

impl Iterator for SeriesSubscription {
    type Item = Result<Appended, FeedError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.follower.next().map(|next| next.map(appended))
    }
}

fn appended(((seq, rows), skipped): ((u64, Columns), u64)) -> Appended {
    Appended { seq, rows, skipped }
}
