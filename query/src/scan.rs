//! Range scans: the rows of all runs in one order, in batches.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use underbelly_storage::{Column, ColumnType, Columns, Timestamp, Value, Values};

use crate::budget::Budget;
use crate::gather::Gather;
use crate::group::{Group, Keep, OpenGroup, Order, Place, Tied, Wanted};
use crate::interval::{Closed, Interval};
use crate::lane::{Batch, Lane};
use crate::merge::{Head, Heads, STRETCHES_MAX, Stretch};
use crate::predicate::Test;
use crate::slices::Slices;
use crate::tombstone::Tombstones;
use crate::{
    AsOf, Every, GroupBy, Predicate, QueryError, Resample, Run, Source, TIMESTAMP, Those, TimedRows,
    WindowJoin,
};

/// Rows in a batch unless another number is asked for.
const BATCH_ROWS: usize = 65_536;

/// Rows of a piece that is handed on as it was read, at most: those of a full row group.
const PIECE_ROWS_MAX: usize = 131_072;

/// What needs memory where all rows of a scan are asked for at once, and what helps.
const COLLECTED: &str = "a scan whose rows are all asked for at once";
const TAKE_LESS: &str = "take them in batches, or fewer rows or columns";

/// Rows that room is made for before they are read, at most.
const EXPECTED_ROWS_MAX: usize = 1 << 20;

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
    /// Keys with several values each, of which rows are to have one.
    keys_of: Vec<(Arc<str>, Vec<Value>)>,
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
            keys_of: Vec::new(),
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

    /// Only rows whose key column has one of these values; null among them asks for rows without one. Several filters must all hold.
    ///
    /// ```
    /// # use underbelly_query::{QueryError, Scan, Source};
    /// # fn of_hosts(source: &dyn Source) -> Result<u64, QueryError> {
    /// Scan::new(source).keys("host", ["a", "b", "c"]).count()
    /// # }
    /// ```
    pub fn keys<V: Into<Value>>(mut self, name: &str, values: impl IntoIterator<Item = V>) -> Scan<'a> {
        self.keys_of.push((name.into(), values.into_iter().map(Into::into).collect()));
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

    /// Batches of at least one row each, "timestamp" first. At most one group of each run is in memory at a time. Of a source that may
    /// hold little ([`Source::memory_max`]) batches are shorter.
    ///
    /// The iterator gives [`QueryError::BadRange`], [`QueryError::UnknownColumn`], [`QueryError::NotKey`],
    /// [`QueryError::KeyType`], [`QueryError::KeyPrecision`] or [`QueryError::ValueType`] where the scan does not fit the source, and what
    /// reading reports; it ends after an error.
    pub fn batches(self) -> Batches<'a> {
        match self.wanted() {
            Ok(wanted) => Batches::new(self.source.runs(), wanted, self.rows_max, self.batch_rows),
            Err(error) => Batches { failed: Some(error), ..Batches::none() },
        }
    }

    /// All rows at once; columns without rows where there is none.
    ///
    /// # Errors
    /// As [`Scan::batches`], and [`QueryError::TooLarge`] where a column would pass 4 GiB of text.
    pub fn collect(self) -> Result<Columns, QueryError> {
        let wanted = self.wanted()?;
        if self.rows_max < usize::MAX {
            let empty = Gather::new(&wanted.columns, 0).finish()?;
            let batch = Batches::new(self.source.runs(), wanted, self.rows_max, usize::MAX).next();
            return batch.unwrap_or(Ok(empty));
        }
        let slices = Slices::new(self.source, wanted)?;
        let (mut pieces, mut held) = (Vec::new(), 0usize);
        slices.each(
            |batches| Batches { batch_rows: usize::MAX, ..batches }.pieces(),
            |of_slice| {
                held = of_slice.iter().map(Batch::byte_size).fold(held, usize::saturating_add);
                slices.wanted().budget.check(COLLECTED, held, TAKE_LESS)?;
                pieces.extend(of_slice);
                Ok(())
            },
        )?;
        slices.joined(pieces)
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
                    false => wanted.selected(place, group)?,
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

    /// What an operator may hold that reads it.
    pub(crate) fn budget(&self) -> Budget {
        Budget::new(self.source.memory_max())
    }

    /// The scan in slices of time; `None` where not all of its rows are asked for.
    pub(crate) fn slices(&self) -> Result<Option<Slices<'a>>, QueryError> {
        let wanted = self.wanted()?;
        if self.rows_max < usize::MAX { Ok(None) } else { Slices::new(self.source, wanted).map(Some) }
    }

    /// Whether not all of its rows are asked for.
    pub(crate) fn is_limited(&self) -> bool {
        self.rows_max < usize::MAX
    }

    /// What is read, and what is asked of it within an interval.
    pub(crate) fn wanted_within(&self, interval: Interval) -> Result<(&'a dyn Source, Wanted), QueryError> {
        let mut wanted = self.wanted()?;
        let Interval { first, last } = wanted.interval;
        wanted.interval = Interval { first: first.max(interval.first), last: last.min(interval.last) };
        Ok((self.source, wanted))
    }

    fn wanted(&self) -> Result<Wanted, QueryError> {
        let interval = Interval::new(self.from, self.to, self.closed)?;
        let mut wanted = Wanted::new(self.source, interval, &self.keys, self.projection.as_deref())?;
        for (name, values) in &self.keys_of {
            wanted.tests.push(Test::of_key(self.source.schema(), name, values)?);
        }
        for (name, predicate) in &self.predicates {
            if &**name == TIMESTAMP {
                if let Predicate::OneOf(instants) = predicate {
                    wanted.narrow_to(instants)?;
                    continue;
                }
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
    /// The group that is read piece by piece.
    group: Option<Group<'a>>,
    /// The keys of the group before `groups` that are read one by one, those that are not read yet.
    keys: Range<usize>,
    /// No row of the group that is not read yet is before this instant.
    before: i64,
    open: Option<OpenGroup<'a>>,
}

impl<'a> Cursor<'a> {
    /// A place at or before the next visible row.
    fn next_head(&mut self, wanted: &Wanted) -> Option<Head> {
        if self.group.as_ref().is_some_and(|group| !group.rows.is_empty()) {
            return Some(Head { ts: self.before, seq: 0, run: self.place.position });
        }
        self.group = None;
        if !self.keys.is_empty() {
            let zone = self.place.run.zone(self.groups.start - 1);
            return Some(Head { ts: zone.ts_min, seq: 0, run: self.place.position });
        }
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

    /// Begins the next group, or the next key of one whose keys are read one by one.
    fn begin(
        &mut self,
        wanted: &Wanted,
        untimed_max: usize,
        next: Option<Head>,
    ) -> Result<Group<'a>, QueryError> {
        if let Some(key) = self.keys.next() {
            return wanted.begin_those(self.place, self.groups.start - 1, Those::OfKey(key));
        }
        let (run, number) = (self.place.run, self.groups.start);
        self.groups.start += 1;
        let (zone, keys) = (run.zone(number), run.clusters(number));
        // Rows of another run come between those of this one in the order of time alone.
        let is_alone = keys > 1 && next.is_none_or(|next| next.ts > zone.ts_max);
        let those = match wanted.order {
            Order::Any if is_alone && run.piece_rows() <= untimed_max && wanted.shows_all(&zone) => {
                Those::ByKey
            }
            Order::ByKey
                if is_alone && wanted.filters.is_empty() && zone.rows / keys >= run.cluster_rows_min() =>
            {
                self.keys = 1..keys;
                Those::OfKey(0)
            }
            _ => Those::InTime,
        };
        wanted.begin_those(self.place, number, those)
    }

    /// Opens the next piece; it may have no row that passes. Up to `untimed_max` rows may do without timestamps.
    fn open_next(
        &mut self,
        wanted: &Wanted,
        rows_max: usize,
        untimed_max: usize,
        next: Option<Head>,
    ) -> Result<(), QueryError> {
        let group = match &mut self.group {
            Some(group) => group,
            None => {
                let group = self.begin(wanted, untimed_max, next)?;
                self.before = group.zone.ts_min;
                self.group.insert(group)
            }
        };
        let piece = group.first_piece();
        if piece.is_empty() {
            return Ok(());
        }
        let is_behind = next.is_none_or(|next| next.ts > group.zone.ts_max);
        let tied = match is_behind && piece.len() <= untimed_max {
            true => Tied::Never,
            false => Tied::Where(move |_, last| next.is_some_and(|next| next.ts <= last)),
        };
        self.open = wanted.open(group, piece, Keep::First(rows_max), tied)?;
        let times = self.open.as_ref().map(|open| &*open.timestamps).unwrap_or_default();
        if let (Some(first), Some(last)) = (times.first(), times.last()) {
            // Pieces are read apart: that each is in order does not say that all are.
            if *first < self.before {
                return Err(QueryError::Disordered { run: self.place.position, group: group.number });
            }
            self.before = *last;
        }
        Ok(())
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
        Batches {
            wanted: Wanted {
                interval: Interval::EMPTY,
                after: 0,
                seq: 0,
                filters: Vec::new(),
                tests: Vec::new(),
                of_filters: Vec::new(),
                not_at: Vec::new(),
                only_at: None,
                columns: Vec::new(),
                tombstones: Tombstones::default(),
                order: Order::Time,
                budget: Budget::ALL,
            },
            cursors: Vec::new(),
            heads: Heads::default(),
            rows_left: 0,
            batch_rows: 1,
            failed: None,
        }
    }

    /// All rows that are asked for.
    pub(crate) fn of(runs: &'a [Arc<dyn Run>], wanted: Wanted) -> Batches<'a> {
        Batches::new(runs, wanted, usize::MAX, PIECE_ROWS_MAX)
    }

    fn new(runs: &'a [Arc<dyn Run>], wanted: Wanted, rows_max: usize, batch_rows: usize) -> Batches<'a> {
        let batch_rows = match batch_rows {
            usize::MAX => usize::MAX,
            rows => rows.min(wanted.budget.rows(16, &wanted.columns)),
        };
        let mut cursors: Vec<Cursor<'a>> = runs
            .iter()
            .enumerate()
            .map(|(position, run)| Cursor {
                place: Place { run: &**run, position },
                groups: wanted.groups(&**run),
                group: None,
                keys: 0..0,
                before: i64::MIN,
                open: None,
            })
            .collect();
        let heads = cursors.iter_mut().filter_map(|cursor| cursor.next_head(&wanted)).collect();
        Batches { wanted, cursors, heads, rows_left: rows_max, batch_rows, failed: None }
    }

    /// Rows that may come, as far as zones tell; 0 where they are filtered.
    fn rows_expected(&self) -> usize {
        let Wanted { filters, tests, only_at, .. } = &self.wanted;
        if !filters.is_empty() || !tests.is_empty() || only_at.is_some() {
            return 0;
        }
        if self.batch_rows < usize::MAX {
            return self.batch_rows;
        }
        let of_cursor = |cursor: &Cursor<'_>| {
            let Interval { first, last } = self.wanted.interval;
            let rows = |group: usize| {
                let zone = cursor.place.run.zone(group);
                match zone.ts_min >= first && zone.ts_max <= last {
                    true => zone.rows,
                    false => 0,
                }
            };
            cursor.groups.clone().map(rows).fold(0, usize::saturating_add)
        };
        self.cursors.iter().map(of_cursor).fold(0, usize::saturating_add).min(EXPECTED_ROWS_MAX)
    }

    fn batch(&mut self) -> Result<Option<Columns>, QueryError> {
        let mut room = self.batch_rows.min(self.rows_left);
        let expected = self.rows_expected();
        let is_all = self.batch_rows == usize::MAX;
        let Batches { wanted, cursors, heads, rows_left, .. } = self;
        let budget = wanted.budget;
        let mut gather: Option<Gather<'_>> = None;
        let mut stretches = Vec::new();
        while room > 0 {
            let (Some(Head { run, .. }), next) = (heads.first(), heads.second()) else { break };
            let Some(cursor) = cursors.get_mut(run) else { break };
            let Some(group) = &mut cursor.open else {
                cursor.open_next(wanted, *rows_left, 0, next)?;
                if budget.is_bounded() {
                    check_open(cursors, budget)?;
                }
                let Some(cursor) = cursors.get_mut(run) else { break };
                heads.advance(match &cursor.open {
                    Some(group) => Some(group.ordered(run).head(group.rows.start)),
                    None => cursor.next_head(wanted),
                });
                continue;
            };
            let gather = gather.get_or_insert_with(|| {
                Gather::new(&wanted.columns, room.min(expected.saturating_add(group.rows.len())))
            });
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
            let is_full = budget.is_bounded() && gather.byte_size() > budget.share(16);
            if is_full && is_all {
                budget.check(COLLECTED, gather.byte_size(), TAKE_LESS)?;
            }
            if let Some(cursor) = cursors.get_mut(run)
                && cursor.open.as_ref().is_some_and(|group| group.rows.is_empty())
            {
                cursor.open = None;
                heads.advance(cursor.next_head(wanted));
            }
            if is_full && !is_all {
                break;
            }
        }
        let Some(mut gather) = gather else { return Ok(None) };
        gather.extend(&stretches, |run| cursors.get(run)?.open.as_ref())?;
        debug_assert!(gather.rows() > 0);
        gather.finish().map(Some)
    }

    /// The next piece as it was read, where all of its rows come next and are asked for.
    fn piece(&mut self) -> Result<Option<Batch<'a>>, QueryError> {
        loop {
            let (Some(Head { run, .. }), next) = (self.heads.first(), self.heads.second()) else {
                return Ok(None);
            };
            let Some(cursor) = self.cursors.get_mut(run) else { return Ok(None) };
            if self.rows_left == 0 {
                return Ok(None);
            }
            let Some(group) = &cursor.open else {
                let untimed_max = self.batch_rows.min(self.rows_left);
                cursor.open_next(&self.wanted, self.rows_left, untimed_max, next)?;
                if cursor.open.as_ref().is_none_or(|group| !group.timestamps.is_empty()) {
                    self.heads.advance(match &cursor.open {
                        Some(group) => Some(group.ordered(run).head(group.rows.start)),
                        None => cursor.next_head(&self.wanted),
                    });
                }
                continue;
            };
            let rows = group.rows.len();
            // Without timestamps all rows come next.
            let is_next = || group.ordered(run).before(group.rows.clone(), next) == rows;
            let is_whole =
                group.timestamps.is_empty() || group.rows == (0..group.timestamps.len()) && is_next();
            if !is_whole || rows > self.batch_rows.min(self.rows_left) {
                return Ok(None);
            }
            let Some(group) = cursor.open.take() else { return Ok(None) };
            let is_of_one_key = cursor.group.as_ref().is_some_and(Group::is_of_one_key);
            self.rows_left -= rows;
            self.heads.advance(cursor.next_head(&self.wanted));
            let timestamps = Column::from_parts(Values::Timestamp(group.timestamps.into_owned()), None);
            let timestamps = timestamps.unwrap_or(Column::new(ColumnType::Timestamp));
            let (mut names, mut lanes) = (vec![TIMESTAMP.into()], vec![Lane::Values(Cow::Owned(timestamps))]);
            for (schema, lane) in self.wanted.columns.iter().zip(group.columns) {
                names.push(schema.name.clone());
                let nulls = || Lane::Values(Cow::Owned(Column::nulls(schema.column_type, rows)));
                lanes.push(lane.unwrap_or_else(nulls));
            }
            return Ok(Some(Batch::new(names, lanes, rows, is_of_one_key)));
        }
    }

    /// All rows, as they were read where that can be.
    fn pieces(mut self) -> Result<Vec<Batch<'a>>, QueryError> {
        let mut pieces = Vec::new();
        while let Some(piece) = self.next_batch()? {
            pieces.push(piece);
        }
        Ok(pieces)
    }

    /// The next rows, as they were read where that can be; `None` at the end.
    pub(crate) fn next_batch(&mut self) -> Result<Option<Batch<'a>>, QueryError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let batch = match self.piece() {
            Ok(None) => self.batch().map(|batch| batch.map(Batch::from)),
            piece => piece,
        };
        if batch.is_err() {
            *self = Batches::none();
        }
        batch
    }
}

/// Refuses pieces of so many runs that they do not fit.
fn check_open(cursors: &[Cursor<'_>], budget: Budget) -> Result<(), QueryError> {
    let open = cursors.iter().filter_map(|cursor| cursor.open.as_ref());
    let held = open.map(OpenGroup::byte_size).fold(0, usize::saturating_add);
    budget.check("a scan of segments whose times overlap", held, "make a checkpoint, which merges them")
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
