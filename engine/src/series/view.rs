//! A series as a snapshot shows it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use underbelly_query::{
    Duplicates, LastPoints, Predicate, Run, Scan, Schema, Source, Tombstone, Tombstones, at_or_after,
    at_or_before, last_point, last_points, latest, matching, nearest, resolved,
};
use underbelly_storage::{Columns, LogicalTypes, Timestamp, Value, Workers};

use crate::error::ReadError;
use crate::series::{Hiding, SeriesDefinition};
use crate::snapshot::Snapshot;

/// One series type, as of a snapshot: of a type whose duplicates are resolved the rows that are left. Holds the snapshot; cheap to
/// clone.
#[derive(Clone)]
pub struct Series {
    name: Arc<str>,
    schema: Arc<Schema>,
    types: Arc<LogicalTypes>,
    /// As they are stored.
    stored: Arc<[Arc<dyn Run>]>,
    /// As they are shown.
    runs: Arc<[Arc<dyn Run>]>,
    tombstones: Hiding,
    /// What is known of the newest rows, and the last commit of which deletes were done and are not among `tombstones`; `None`
    /// where one row may be shown for several.
    last_points: Option<(Arc<Mutex<LastPoints>>, u64)>,
    /// Rows of later commits are not shown.
    seq: u64,
    /// What becomes of rows with the same keys and timestamp.
    duplicates: Duplicates,
    /// Keeps what is shown, and knows who shares the work.
    snapshot: Snapshot,
}

/// What `ubctl series info` shows.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SeriesInfo {
    /// The type.
    pub name: String,
    /// Rows visible to the snapshot.
    pub rows: u64,
    /// Earliest timestamp, where there is a row.
    pub first: Option<Timestamp>,
    /// Latest timestamp, where there is a row.
    pub last: Option<Timestamp>,
    /// Sealed segments.
    pub segments: usize,
    /// Bytes of the sealed segments.
    pub segment_bytes: u64,
    /// Runs in memory.
    pub young_runs: usize,
    /// Deletes that hide rows which are still stored; a later checkpoint leaves these out.
    pub deletes: usize,
    /// Bytes of rows that were appended: as they are in memory, of large appends as they are in their segments.
    pub appended_bytes: u64,
    /// Bytes of segments that were written, those of appends, checkpoints and merges.
    pub written_bytes: u64,
    /// The oldest transaction at which it can be [read as known](crate::View::as_known_at).
    pub horizon: u64,
    /// What becomes of its rows, as of now.
    pub definition: SeriesDefinition,
    /// Rows before this instant are deleted by the next checkpoint, or were by an earlier one, as of the last commit time; `None` where none are.
    pub kept_from: Option<Timestamp>,
}

impl SeriesInfo {
    /// Bytes of segments that were written for each byte of rows that was appended; `None` where nothing was.
    pub fn write_amplification(&self) -> Option<f64> {
        (self.appended_bytes > 0).then(|| self.written_bytes as f64 / self.appended_bytes as f64)
    }
}

impl Series {
    pub(crate) fn new(
        name: Arc<str>,
        (schema, types): (Arc<Schema>, Arc<LogicalTypes>),
        runs: Arc<[Arc<dyn Run>]>,
        tombstones: Hiding,
        last_points: (Arc<Mutex<LastPoints>>, u64),
        duplicates: Duplicates,
        snapshot: Snapshot,
    ) -> Series {
        let seq = snapshot.seq();
        let last_points = (!duplicates.resolves()).then_some(last_points);
        let stored = runs.clone();
        let series =
            Series { name, schema, types, stored, runs, tombstones, last_points, seq, duplicates, snapshot };
        series.resolved()
    }

    /// The runs as they are stored, and what hides rows of them: without what the rules of the type resolve.
    pub(crate) fn stored(&self) -> (&[Arc<dyn Run>], Tombstones) {
        (&self.stored, self.tombstones.by_range())
    }

    /// Shows one row of several, where the rules of the type say so.
    fn resolved(mut self) -> Series {
        if self.duplicates.resolves() {
            let (stored, schema) = (self.stored.clone(), self.schema.clone());
            let tombstones = self.tombstones.by_range();
            let (seq, workers) = (self.seq, self.snapshot.base().threads.0);
            self.runs = Arc::from([resolved(stored, schema, tombstones, seq, self.duplicates, workers)]);
        }
        self
    }

    /// The same without the rows that a transaction behind the last one is to delete.
    pub(crate) fn without<'t>(mut self, tombstones: impl Iterator<Item = &'t Tombstone>) -> Series {
        let before = self.seq;
        for tombstone in tombstones {
            self.seq = before + 1;
            self.tombstones.push(Arc::new(tombstone.clone().with_seq(self.seq)));
            self.last_points = None;
        }
        if self.seq > before { self.resolved() } else { self }
    }

    /// The type.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The columns: keys first, then fields.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// What columns hold where that is not what is stored, as of now: rows are read, and predicates are compared, as they are
    /// stored, decimals as their scaled integers.
    pub fn types(&self) -> &LogicalTypes {
        &self.types
    }

    #[cfg(feature = "arrow")]
    pub(crate) fn shared_types(&self) -> Arc<LogicalTypes> {
        self.types.clone()
    }

    /// Rows in order of (timestamp, commit, arrival); narrow it down with the builder's methods.
    pub fn scan(&self) -> Scan<'_> {
        Scan::new(self)
    }

    /// Rows with `from <= timestamp < to`, in nanoseconds since 1970 UTC, all columns; none where the two are
    /// equal.
    ///
    /// The range is half-open, so a row at [`Timestamp::MAX`] is in none: [`Series::scan`] gives it, without an
    /// end or with an end that is closed.
    ///
    /// # Errors
    /// [`ReadError::Query`]: `QueryError::BadRange` where `from` is after `to`, `QueryError::Source` where stored
    /// rows are damaged or cannot be read, `QueryError::TooLarge` where a column would pass 4 GiB of text.
    pub fn range(&self, from: Timestamp, to: Timestamp) -> Result<Columns, ReadError> {
        Ok(self.scan().from(from).to(to).collect()?)
    }

    /// The newest `n` rows with these keys, newest first; fewer where there are fewer. A key that is not named may
    /// have any value; null asks for rows without one.
    ///
    /// # Errors
    /// [`ReadError::Query`]: `QueryError::UnknownColumn`, `QueryError::NotKey`, `QueryError::KeyType` or
    /// `QueryError::KeyPrecision` where a key does not fit the schema, `QueryError::Source` where stored rows are damaged or cannot be read,
    /// `QueryError::TooLarge` where a column would pass 4 GiB of text.
    pub fn latest(&self, n: usize, keys: &[(&str, Value)]) -> Result<Columns, ReadError> {
        Ok(latest(self, n, keys)?)
    }

    /// The newest row with these keys: one row, or `None`. Where all keys are named, what was found is kept for the next
    /// call, of any snapshot, which reads what was committed since.
    ///
    /// # Errors
    /// As [`Series::latest`].
    pub fn last_point(&self, keys: &[(&str, Value)]) -> Result<Option<Columns>, ReadError> {
        // Where somebody reads for long this one looks itself. What panicked half-way is not gone on with.
        let known = self.last_points.as_ref();
        match known.and_then(|(known, forgotten)| Some((known.try_lock().ok()?, *forgotten))) {
            Some((mut known, forgotten)) => Ok(known.last_point(self, forgotten, keys)?),
            None => Ok(last_point(self, keys)?),
        }
    }

    /// The newest row of each combination of keys, in order of the keys. What was found is kept for the next call, of any
    /// snapshot, which reads what was committed since.
    ///
    /// # Errors
    /// [`ReadError::Query`]: `QueryError::Source` where stored rows are damaged or cannot be read,
    /// `QueryError::TooLarge` where a column would pass 4 GiB of text.
    pub fn last_points(&self) -> Result<Columns, ReadError> {
        let known = self.last_points.as_ref();
        match known.and_then(|(known, forgotten)| Some((known.lock().ok()?, *forgotten))) {
            Some((mut known, forgotten)) => Ok(known.last_points(self, forgotten)?),
            None => Ok(last_points(self)?),
        }
    }

    /// Of the newest rows of each combination of keys those that meet all predicates: the orders that are open, where
    /// each change of an order is a row.
    ///
    /// # Errors
    /// As [`Series::last_points`]; `QueryError::UnknownColumn` and `QueryError::ValueType` where a predicate does not fit.
    pub fn last_points_where(&self, predicates: &[(&str, Predicate)]) -> Result<Columns, ReadError> {
        Ok(matching(self.last_points()?, predicates)?)
    }

    /// The newest row with these keys at an instant or before it: one row, or `None`.
    ///
    /// # Errors
    /// As [`Series::latest`].
    pub fn at_or_before(&self, at: Timestamp, keys: &[(&str, Value)]) -> Result<Option<Columns>, ReadError> {
        Ok(at_or_before(self, at, keys)?)
    }

    /// The first row with these keys at an instant or after it: one row, or `None`.
    ///
    /// # Errors
    /// As [`Series::latest`].
    pub fn at_or_after(&self, at: Timestamp, keys: &[(&str, Value)]) -> Result<Option<Columns>, ReadError> {
        Ok(at_or_after(self, at, keys)?)
    }

    /// The nearest row with these keys to an instant, the earlier one of two as near: one row, or `None`.
    ///
    /// # Errors
    /// As [`Series::latest`].
    pub fn nearest(&self, at: Timestamp, keys: &[(&str, Value)]) -> Result<Option<Columns>, ReadError> {
        Ok(nearest(self, at, keys)?)
    }

    /// Number of rows.
    ///
    /// # Errors
    /// [`ReadError::Query`]: `QueryError::Source` where stored rows are damaged or cannot be read.
    pub fn count(&self) -> Result<u64, ReadError> {
        Ok(self.scan().count()?)
    }

    /// Earliest and latest timestamp; `None` where there is no row.
    ///
    /// # Errors
    /// As [`Series::count`].
    pub fn bounds(&self) -> Result<Option<(Timestamp, Timestamp)>, ReadError> {
        let time = |rows: &Columns| rows.timestamps("timestamp").and_then(|times| times.first().copied());
        let first = self.scan().columns([""; 0]).rows_max(1).collect()?;
        let last = self.latest(1, &[])?;
        Ok(time(&first).zip(time(&last)).map(|(first, last)| (Timestamp(first), Timestamp(last))))
    }
}

impl Source for Series {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn runs(&self) -> &[Arc<dyn Run>] {
        &self.runs
    }

    fn seq(&self) -> u64 {
        self.seq
    }

    fn tombstones(&self) -> Tombstones {
        // What is resolved is without them.
        if self.duplicates.resolves() { Tombstones::default() } else { self.tombstones.by_range() }
    }

    fn memory_max(&self) -> usize {
        let bytes = self.snapshot.base().memory_bytes.load(Ordering::Relaxed);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    fn workers(&self) -> &dyn Workers {
        &self.snapshot.base().threads
    }
}
