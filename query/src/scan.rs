//! Range scans: the rows of all runs in one order, in batches.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use underbelly_storage::{Columns, Timestamp, Value};

use crate::gather::Gather;
use crate::group::{Keep, OpenGroup, Place, Wanted};
use crate::interval::{Closed, Interval};
use crate::merge::{Head, Heads, STRETCHES_MAX, Stretch};
use crate::predicate::Test;
use crate::tombstone::Tombstones;
use crate::{
    AsOf, Every, GroupBy, Predicate, QueryError, Resample, Source, TIMESTAMP, TimedRows, WindowJoin,
};

/// Rows in a batch unless another number is asked for.
const BATCH_ROWS: usize = 65_536;

/// A range scan that is being described.
///
/// ```
/// use std::sync::Arc;
/// use underbelly_query::{MemoryRun, QueryError, Run, Scan, Schema, SchemaColumn, Source};
/// use underbelly_storage::{Column, ColumnType, Columns, Timestamp};
///
/// struct Young(Schema, Vec<Arc<dyn Run>>);
///
/// impl Source for Young {
///     fn schema(&self) -> &Schema {
///         &self.0
///     }
///     fn runs(&self) -> &[Arc<dyn Run>] {
///         &self.1
///     }
///     fn seq(&self) -> u64 {
///         2
///     }
/// }
///
/// # fn main() -> Result<(), QueryError> {
/// let prices = |prices: Vec<f64>| Columns::new().with("price", Column::from(prices));
/// let first = MemoryRun::new(vec![10, 30], prices(vec![1.0, 3.0])?, 1)?;
/// let second = MemoryRun::new(vec![20, 40], prices(vec![2.0, 4.0])?, 2)?;
/// let price = SchemaColumn { name: "price".into(), column_type: ColumnType::F64, key: false };
/// let young = Young(Schema { columns: vec![price] }, vec![Arc::new(first), Arc::new(second)]);
///
/// let rows = Scan::new(&young).from(Timestamp(10)).to(Timestamp(40)).collect()?;
/// assert_eq!(rows.timestamps("timestamp"), Some(&[10, 20, 30][..]));
/// assert_eq!(rows.f64s("price"), Some(&[1.0, 2.0, 3.0][..]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a scan reads nothing until it is asked for batches"]
pub struct Scan<'a> {
    source: &'a dyn Source,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    closed: Closed,
    keys: Vec<(Arc<str>, Value)>,
    predicates: Vec<(Arc<str>, Predicate)>,
    projection: Option<Vec<Arc<str>>>,
    rows_max: usize,
    batch_rows: usize,
}

impl<'a> Scan<'a> {
    /// All visible rows and all columns.
    pub fn new(source: &'a dyn Source) -> Scan<'a> {
        Scan {
            source,
            from: None,
            to: None,
            closed: Closed::default(),
            keys: Vec::new(),
            predicates: Vec::new(),
            projection: None,
            rows_max: usize::MAX,
            batch_rows: BATCH_ROWS,
        }
    }

    /// The start of the range; it belongs to the range unless [`Scan::closed`] says otherwise.
    pub fn from(mut self, from: Timestamp) -> Scan<'a> {
        self.from = Some(from);
        self
    }

    /// The end of the range; it does not belong to the range unless [`Scan::closed`] says otherwise.
    pub fn to(mut self, to: Timestamp) -> Scan<'a> {
        self.to = Some(to);
        self
    }

    /// Which of the ends that are given belong to the range.
    pub fn closed(mut self, closed: Closed) -> Scan<'a> {
        self.closed = closed;
        self
    }

    /// Only rows whose key column has this value; null asks for rows without one. Several filters must all hold.
    pub fn key(mut self, name: &str, value: impl Into<Value>) -> Scan<'a> {
        self.keys.push((name.into(), value.into()));
        self
    }

    /// Only rows whose value in a column, be it a key, "timestamp" or another, is what the predicate asks for. Several must all hold.
    /// Groups whose zones exclude that are not read.
    pub fn filter(mut self, name: &str, predicate: Predicate) -> Scan<'a> {
        self.predicates.push((name.into(), predicate));
        self
    }

    /// Only these columns, in this order. "timestamp" comes first whether it is named or not.
    pub fn columns<S: AsRef<str>>(mut self, names: impl IntoIterator<Item = S>) -> Scan<'a> {
        self.projection = Some(names.into_iter().map(|name| name.as_ref().into()).collect());
        self
    }

    /// The same, where no columns are named yet.
    pub(crate) fn columns_unless_named(self, names: Vec<Arc<str>>) -> Scan<'a> {
        if self.projection.is_some() { self } else { self.columns(names) }
    }

    /// At most this many rows, the earliest.
    pub fn rows_max(mut self, rows: usize) -> Scan<'a> {
        self.rows_max = rows;
        self
    }

    /// At most this many rows in a batch: 65,536 unless given, at least 1.
    pub fn batch_rows(mut self, rows: usize) -> Scan<'a> {
        self.batch_rows = rows.max(1);
        self
    }

    /// Batches of at least one row each, "timestamp" first. At most one group of each run is in memory at a time.
    ///
    /// The iterator gives [`QueryError::BadRange`], [`QueryError::UnknownColumn`], [`QueryError::NotKey`],
    /// [`QueryError::KeyType`], [`QueryError::KeyPrecision`] or [`QueryError::ValueType`] where the scan does not fit the source, and what
    /// reading reports; it ends after an error.
    pub fn batches(self) -> Batches<'a> {
        match self.wanted() {
            Ok(wanted) => Batches::new(self.source, wanted, self.rows_max, self.batch_rows),
            Err(error) => Batches { failed: Some(error), ..Batches::none() },
        }
    }

    /// All rows at once; columns without rows where there is none.
    ///
    /// # Errors
    /// As [`Scan::batches`], and [`QueryError::TooLarge`] where a column would pass 4 GiB of text.
    pub fn collect(self) -> Result<Columns, QueryError> {
        let wanted = self.wanted()?;
        let empty = Gather::new(&wanted.columns, 0).finish()?;
        match Batches::new(self.source, wanted, self.rows_max, usize::MAX).next() {
            Some(batch) => batch,
            None => Ok(empty),
        }
    }

    /// The number of rows. Groups that lie in the range, are all visible and are not filtered are not read.
    ///
    /// # Errors
    /// As [`Scan::batches`].
    pub fn count(self) -> Result<u64, QueryError> {
        let wanted = self.wanted()?;
        let rows_max = self.rows_max as u64;
        let mut rows = 0u64;
        for (position, run) in self.source.runs().iter().enumerate() {
            let place = Place { run: &**run, position };
            for group in wanted.groups(place.run) {
                if rows >= rows_max {
                    return Ok(rows_max);
                }
                let zone = place.run.zone(group);
                if wanted.passes_none(place.run, group, &zone) {
                    continue;
                }
                let passing = match wanted.holds_all(&zone) {
                    true => zone.rows,
                    false => wanted.select(place, group)?.selection.len(),
                };
                rows = rows.saturating_add(passing as u64);
            }
        }
        Ok(rows.min(rows_max))
    }

    /// Joins each row with a row of another input that was valid then; [`AsOf`] has the options.
    pub fn asof(self, right: impl Into<TimedRows<'a>>) -> AsOf<'a> {
        AsOf::new(self, right)
    }

    /// Sorts rows into windows of time and computes something of each; [`Resample`] has the options.
    pub fn resample(self, every: Every) -> Resample<'a> {
        Resample::new(self, every)
    }

    /// Computes something of the rows of each key; [`GroupBy`] has the options.
    pub fn group_by<S: AsRef<str>>(self, names: impl IntoIterator<Item = S>) -> GroupBy<'a> {
        names.into_iter().fold(GroupBy::new(self), |group_by, name| group_by.by(name.as_ref()))
    }

    /// Computes something of each row and those less than `length` before it; [`WindowJoin`] has the options.
    pub fn rolling(self, length: Duration) -> WindowJoin<'a> {
        WindowJoin::rolling(self, length)
    }

    /// Computes something of the rows of another input around each row; [`WindowJoin`] has the options.
    pub fn window_join(
        self,
        right: impl Into<TimedRows<'a>>,
        before: Duration,
        after: Duration,
    ) -> WindowJoin<'a> {
        WindowJoin::new(self, right, before, after)
    }

    fn wanted(&self) -> Result<Wanted, QueryError> {
        let interval = Interval::new(self.from, self.to, self.closed)?;
        let mut wanted = Wanted::new(self.source, interval, &self.keys, self.projection.as_deref())?;
        for (name, predicate) in &self.predicates {
            if &**name == TIMESTAMP {
                wanted.not_at.extend(wanted.interval.narrow(predicate)?);
                continue;
            }
            wanted.tests.push(Test::new(self.source.schema(), name, predicate)?);
        }
        // Refuses a name that is asked for twice before anything is read.
        Gather::new(&wanted.columns, 0).finish()?;
        Ok(wanted)
    }
}

/// Where a scan stands in one run. `groups` are not opened yet.
struct Cursor<'a> {
    place: Place<'a>,
    groups: Range<usize>,
    open: Option<OpenGroup<'a>>,
}

impl Cursor<'_> {
    /// A place at or before the first row of the next group that may hold visible rows.
    fn next_head(&mut self, wanted: &Wanted) -> Option<Head> {
        while !self.groups.is_empty() {
            let zone = self.place.run.zone(self.groups.start);
            if !wanted.passes_none(self.place.run, self.groups.start, &zone) {
                let ts = zone.ts_min.max(wanted.interval.first);
                return Some(Head { ts, seq: zone.seq_min, run: self.place.position });
            }
            self.groups.start += 1;
        }
        None
    }
}

/// The batches of a [`Scan`].
///
/// Each run that may have more rows stands once in `heads`: with its next row where a group is open, else with
/// a place at or before it.
pub struct Batches<'a> {
    wanted: Wanted,
    cursors: Vec<Cursor<'a>>,
    heads: Heads,
    rows_left: usize,
    batch_rows: usize,
    failed: Option<QueryError>,
}

impl<'a> Batches<'a> {
    fn none() -> Batches<'a> {
        let nothing = Interval { first: i64::MAX, last: i64::MIN };
        Batches {
            wanted: Wanted {
                interval: nothing,
                after: 0,
                seq: 0,
                filters: Vec::new(),
                tests: Vec::new(),
                of_filters: Vec::new(),
                not_at: Vec::new(),
                columns: Vec::new(),
                tombstones: Tombstones::default(),
            },
            cursors: Vec::new(),
            heads: Heads::default(),
            rows_left: 0,
            batch_rows: 1,
            failed: None,
        }
    }

    fn new(source: &'a dyn Source, wanted: Wanted, rows_max: usize, batch_rows: usize) -> Batches<'a> {
        let mut cursors: Vec<Cursor<'a>> = source
            .runs()
            .iter()
            .enumerate()
            .map(|(position, run)| Cursor {
                place: Place { run: &**run, position },
                groups: wanted.groups(&**run),
                open: None,
            })
            .collect();
        let heads = cursors.iter_mut().filter_map(|cursor| cursor.next_head(&wanted)).collect();
        Batches { wanted, cursors, heads, rows_left: rows_max, batch_rows, failed: None }
    }

    fn batch(&mut self) -> Result<Option<Columns>, QueryError> {
        let Batches { wanted, cursors, heads, rows_left, batch_rows, .. } = self;
        let mut gather: Option<Gather<'_>> = None;
        let mut stretches = Vec::new();
        let mut room = (*batch_rows).min(*rows_left);
        while room > 0 {
            let (Some(Head { run, .. }), next) = (heads.first(), heads.second()) else { break };
            let Some(cursor) = cursors.get_mut(run) else { break };
            let Some(group) = &mut cursor.open else {
                let tied = |_, last| next.is_some_and(|next| next.ts <= last);
                let keep = Keep::First(*rows_left);
                cursor.open = wanted.open(cursor.place, cursor.groups.start, keep, tied)?;
                cursor.groups.start += 1;
                heads.advance(match &cursor.open {
                    Some(group) => Some(group.ordered(run).head(group.rows.start)),
                    None => cursor.next_head(wanted),
                });
                continue;
            };
            let gather =
                gather.get_or_insert_with(|| Gather::new(&wanted.columns, room.min(group.rows.len())));
            let end = group.ordered(run).before(group.rows.clone(), next);
            let rows = group.rows.start..end.min(group.rows.start.saturating_add(room));
            room -= rows.len();
            *rows_left -= rows.len();
            group.rows.start = rows.end;
            stretches.push(Stretch { run, rows });
            if !group.rows.is_empty() {
                heads.advance(Some(group.ordered(run).head(group.rows.start)));
                if stretches.len() < STRETCHES_MAX {
                    continue;
                }
            }
            // Stretches point into open groups, so they are copied before one closes.
            gather.extend(&stretches, |run| cursors.get(run)?.open.as_ref())?;
            stretches.clear();
            if let Some(cursor) = cursors.get_mut(run)
                && cursor.open.as_ref().is_some_and(|group| group.rows.is_empty())
            {
                cursor.open = None;
                heads.advance(cursor.next_head(wanted));
            }
        }
        let Some(mut gather) = gather else { return Ok(None) };
        gather.extend(&stretches, |run| cursors.get(run)?.open.as_ref())?;
        debug_assert!(gather.rows() > 0);
        gather.finish().map(Some)
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<Columns, QueryError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        let batch = self.batch().transpose();
        if matches!(batch, Some(Err(_))) {
            *self = Batches::none();
        }
        batch
    }
}

impl std::iter::FusedIterator for Batches<'_> {}
