//! A scan cut into slices of time, so that several workers read it.
//!
//! Where slices end follows from the runs alone, and what is made of them is put together in their order: so results are the
//! same for any number of workers.

use std::sync::{Arc, Mutex, PoisonError};

use underbelly_storage::{Alone, Column, ColumnType, Columns, Workers};

use crate::budget::row_bytes;
use crate::gather::Gather;
use crate::group::{Order, Wanted};
use crate::interval::Interval;
use crate::lane::Batch;
use crate::{Batches, QueryError, Run, Source, TIMESTAMP};

/// Slices whose results are in memory at a time.
const AT_ONCE: usize = 32;

/// Rows that are put together before another thread would have begun.
const FEW_ROWS: usize = 32_768;

/// Slices of a scan in order of time.
pub(crate) struct Slices<'a> {
    source: &'a dyn Source,
    wanted: Wanted,
    intervals: Vec<Interval>,
    slice_rows: usize,
}

impl<'a> Slices<'a> {
    /// Slices of what is asked of a source: one where it is short.
    pub(crate) fn new(source: &'a dyn Source, wanted: Wanted) -> Result<Slices<'a>, QueryError> {
        let runs = source.runs();
        let mut intervals = Vec::new();
        let Interval { mut first, last } = wanted.interval;
        let slice_rows = source.slice_rows().min(wanted.budget.rows(16, &wanted.columns)).max(1);
        for cut in cuts(runs, &wanted, slice_rows)? {
            if cut > first && cut <= last {
                intervals.push(Interval { first, last: cut - 1 });
                first = cut;
            }
        }
        intervals.push(Interval { first, last });
        Ok(Slices { source, wanted, intervals, slice_rows })
    }

    /// The same with the rows of each in another order.
    pub(crate) fn in_order(mut self, order: Order) -> Slices<'a> {
        self.wanted.order = order;
        self
    }

    /// Bytes of the rows of one, about.
    pub(crate) fn slice_bytes(&self) -> usize {
        let types = self.wanted.columns.iter().map(|column| column.column_type);
        row_bytes(types).saturating_mul(self.slice_rows)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.intervals.len()
    }

    /// The latest time that a row may have, as far as zones tell; `None` where there is no row.
    pub(crate) fn last(&self) -> Option<i64> {
        let last =
            |run: &Arc<dyn Run>| self.wanted.groups(&**run).next_back().map(|group| run.zone(group).ts_max);
        self.runs().iter().filter_map(last).max()
    }

    /// Whether rows of each key in the order of time are enough for who tells keys apart by these columns, and some of the
    /// rows are kept so.
    pub(crate) fn is_by_key(&self, mut by: impl FnMut(&str) -> bool) -> bool {
        let clusters = |run: &Arc<dyn Run>| (0..run.groups()).any(|group| run.clusters(group) > 0);
        // Numbers that are equal may differ in their bits, by which rows are kept.
        let is_exact = |column_type| !matches!(column_type, ColumnType::F64 | ColumnType::F32);
        let mut keys = self.source.schema().keys();
        keys.all(|key| by(&key.name) && is_exact(key.column_type)) && self.runs().iter().any(clusters)
    }

    /// The interval of a slice.
    pub(crate) fn interval(&self, number: usize) -> Interval {
        self.intervals.get(number).copied().unwrap_or(Interval::EMPTY)
    }

    /// The runs that are read.
    pub(crate) fn runs(&self) -> &'a [Arc<dyn Run>] {
        self.source.runs()
    }

    /// Who shares the work.
    pub(crate) fn workers(&self) -> &'a dyn Workers {
        self.source.workers()
    }

    /// What is asked of all.
    pub(crate) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// The rows of all pieces: column by column, several at a time.
    pub(crate) fn joined(&self, pieces: Vec<Batch<'a>>) -> Result<Columns, QueryError> {
        let pieces = match <[Batch<'a>; 1]>::try_from(pieces) {
            Ok([piece]) => return piece.into_columns(),
            Err(pieces) if pieces.is_empty() => return Gather::new(&self.wanted.columns, 0).finish(),
            Err(pieces) => pieces,
        };
        let rows = pieces.iter().map(Batch::rows).sum();
        let mut wanted: Vec<(usize, Arc<str>, ColumnType)> =
            vec![(0, TIMESTAMP.into(), ColumnType::Timestamp)];
        let columns = (1..).zip(&self.wanted.columns);
        wanted.extend(columns.map(|(position, column)| (position, column.name.clone(), column.column_type)));
        let join = |(position, name, column_type): &(usize, Arc<str>, ColumnType)| {
            let mut all = Column::with_capacity(*column_type, rows);
            for lane in pieces.iter().filter_map(|piece| piece.lane(*position)) {
                lane.append_to(&mut all, 0..lane.rows(), name)?;
            }
            Ok(all)
        };
        let workers: &dyn Workers = if rows < FEW_ROWS { &Alone } else { self.workers() };
        let mut columns = Columns::new();
        for ((_, name, _), column) in wanted.iter().zip(at_once(workers, &wanted, &join)) {
            columns.insert(name.clone(), column?)?;
        }
        Ok(columns)
    }

    /// Does something with the rows of each slice, several at a time, and takes what it made in the order of the slices.
    pub(crate) fn each<T: Send>(
        &self,
        work: impl Fn(Batches<'a>) -> Result<T, QueryError> + Sync,
        mut take: impl FnMut(T) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let (runs, wanted) = (self.runs(), &self.wanted);
        let work = |interval: &Interval| work(of_interval(runs, wanted, *interval));
        let at_once_max = wanted.budget.at_once(AT_ONCE, self.slice_bytes().saturating_mul(2));
        for some in self.intervals.chunks(at_once_max) {
            let made = at_once(self.workers(), some, &work);
            made.into_iter().try_for_each(|made| take(made?))?;
        }
        Ok(())
    }
}

/// The rows of an interval.
pub(crate) fn of_interval<'a>(runs: &'a [Arc<dyn Run>], wanted: &Wanted, interval: Interval) -> Batches<'a> {
    Batches::of(runs, Wanted { interval, ..wanted.clone() })
}

/// What comes of each item, in their order.
pub(crate) fn at_once<I: Sync, T: Send>(
    workers: &dyn Workers,
    items: &[I],
    work: &(impl Fn(&I) -> Result<T, QueryError> + Sync),
) -> Vec<Result<T, QueryError>> {
    if let [item] = items {
        return vec![work(item)];
    }
    let made: Vec<Mutex<Option<Result<T, QueryError>>>> = items.iter().map(|_| Mutex::new(None)).collect();
    workers.each(items.len(), &|number| {
        if let (Some(item), Some(to)) = (items.get(number), made.get(number)) {
            *to.lock().unwrap_or_else(PoisonError::into_inner) = Some(work(item));
        }
    });
    let made = made.into_iter().map(|made| made.into_inner().unwrap_or_else(PoisonError::into_inner));
    // Who shares the work may leave some of it.
    made.zip(items).map(|(made, item)| made.unwrap_or_else(|| work(item))).collect()
}

/// Instants at which slices may begin: where groups of the longest run do, and within those that are large.
fn cuts(runs: &[Arc<dyn Run>], wanted: &Wanted, slice_rows: usize) -> Result<Vec<i64>, QueryError> {
    let rows_of = |run: &Arc<dyn Run>| {
        let rows = wanted.groups(&**run).map(|group| run.zone(group).rows);
        rows.fold(0usize, usize::saturating_add)
    };
    let mut cuts = Vec::new();
    // Many runs that follow each other are cut each by itself; of those that overlap the longer one decides.
    let mut by_rows: Vec<(usize, &Arc<dyn Run>)> = runs.iter().map(|run| (rows_of(run), run)).collect();
    by_rows.sort_by_key(|(rows, _)| std::cmp::Reverse(*rows));
    let mut covered: Vec<(i64, i64)> = Vec::new();
    for (rows, run) in by_rows {
        let groups = wanted.groups(&**run);
        if rows < slice_rows || groups.is_empty() {
            continue;
        }
        let ends = (run.zone(groups.start).ts_min, run.zone(groups.end - 1).ts_max);
        if covered.iter().any(|(first, last)| ends.0 <= *last && *first <= ends.1) {
            continue;
        }
        covered.push(ends);
        let mut since = slice_rows;
        for group in groups {
            let zone = run.zone(group);
            if since.saturating_add(zone.rows) > slice_rows.saturating_add(slice_rows / 2) {
                cuts.push(zone.ts_min);
                since = 0;
            }
            since = since.saturating_add(zone.rows);
            if u32::try_from(zone.rows).is_ok() && zone.rows >= slice_rows.saturating_mul(2) {
                for row in (slice_rows..zone.rows).step_by(slice_rows) {
                    cuts.extend(run.timestamps_of(group, row..row + 1)?.first());
                }
                since = zone.rows % slice_rows;
            }
        }
    }
    cuts.sort_unstable();
    cuts.dedup();
    Ok(cuts)
}
