//! A sealed segment as a run that operators read.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use underbelly_query::{ColumnZone, Part, QueryError, Run, Seqs, Those, Zone};
use underbelly_storage::Column;
use underbelly_storage::error::StorageError;
use underbelly_storage::segment::{self, Segment, Zone as Bounds};

use crate::record::v1::{self, SegmentRef};

/// Rows that are read of a segment at a time: eight vectors, of which some columns fit into the cache of a core.
const PIECE_ROWS: usize = 8_192;

/// Rows that a key of a group has at least, on the average, where keys are read one by one: each has vectors of its own then.
const KEY_ROWS: usize = 256;

/// A segment with what the engine knows about it.
pub(crate) struct SegmentRun {
    /// Where the file is damaged or gone and a reader goes on without it, why. Whoever reads rows of it is answered that.
    segment: Result<Segment, StorageError>,
    reference: SegmentRef,
    seq_max: u64,
    /// Deletes up to this seq hide no row of it, as somebody found who read it; 0 where nobody did.
    cleared: AtomicU64,
    /// What is wrong with it, as a checkpoint found that read it, or the opening.
    damage: OnceLock<String>,
}

impl SegmentRun {
    pub(crate) fn new(segment: Segment, reference: SegmentRef) -> SegmentRun {
        let of_rows = (0..segment.groups()).map(|group| segment.group(group).seq_max).max().unwrap_or(0);
        SegmentRun::of(Ok(segment), reference, of_rows)
    }

    /// One that may be damaged or gone, of whose rows none has a seq above `seq_max`.
    pub(crate) fn of(
        segment: Result<Segment, StorageError>,
        reference: SegmentRef,
        seq_max: u64,
    ) -> SegmentRun {
        let seq_max = if reference.seq > 0 { reference.seq } else { seq_max };
        let damage =
            segment.as_ref().err().map(|error| OnceLock::from(error.to_string())).unwrap_or_default();
        SegmentRun { segment, reference, seq_max, cleared: AtomicU64::new(0), damage }
    }

    /// What is wrong with it, where something was found.
    pub(crate) fn damage(&self) -> Option<&str> {
        self.damage.get().map(String::as_str)
    }

    /// Notes what is wrong with it; the first counts.
    pub(crate) fn note_damage(&self, what: String) {
        let _ = self.damage.set(what);
    }

    /// The seq up to which deletes are known to hide no row of it.
    pub(crate) fn cleared(&self) -> u64 {
        self.cleared.load(Ordering::Relaxed)
    }

    /// Notes that no delete up to a seq hides a row of it.
    pub(crate) fn clear(&self, seq: u64) {
        self.cleared.fetch_max(seq, Ordering::Relaxed);
    }

    pub(crate) fn reference(&self) -> &SegmentRef {
        &self.reference
    }

    pub(crate) fn segment(&self) -> Result<&Segment, StorageError> {
        self.segment.as_ref().map_err(|error| match error {
            StorageError::Corrupt { file, offset, what, .. } => StorageError::corrupt(file, *offset, what),
            StorageError::Missing { file } => StorageError::Missing { file: file.clone() },
            StorageError::ForeignDatabase { file } => StorageError::ForeignDatabase { file: file.clone() },
            error => StorageError::corrupt("", 0, error.to_string()),
        })
    }

    /// The same for who reads rows.
    fn readable(&self) -> Result<&Segment, QueryError> {
        self.segment().map_err(failed)
    }
}

/// Rows of a group of a segment.
struct SegmentPart<'a> {
    segment: &'a Segment,
    /// That of all rows; 0 where each has its own.
    seq: u64,
    rows: segment::Part,
}

impl Part for SegmentPart<'_> {
    fn rows(&self) -> usize {
        self.rows.rows()
    }

    fn is_end_to_end(&self) -> bool {
        self.rows.is_end_to_end()
    }

    fn is_of_one_key(&self) -> bool {
        self.rows.is_of_one_key()
    }

    fn timestamps(&self, rows: Range<usize>) -> Result<Vec<i64>, QueryError> {
        self.segment.timestamps_in(&self.rows, rows).map_err(failed)
    }

    fn seqs(&self, rows: Range<usize>) -> Result<Seqs<'static>, QueryError> {
        if self.seq > 0 {
            return Ok(Seqs::One(self.seq));
        }
        let seqs = self.segment.seqs_in(&self.rows, rows).map_err(failed)?;
        Ok(seqs.map_or(Seqs::One(0), |seqs| Seqs::Each(Cow::Owned(seqs))))
    }

    fn column(&self, name: &str, rows: Range<usize>) -> Result<Option<Column>, QueryError> {
        self.segment.column_in(&self.rows, name, rows).map_err(failed)
    }

    fn column_at(&self, name: &str, rows: &[u32]) -> Result<Option<Column>, QueryError> {
        self.segment.column_at_in(&self.rows, name, rows).map_err(failed)
    }

    fn codes(&self, name: &str, rows: Range<usize>) -> Result<Vec<u32>, QueryError> {
        self.segment.codes_in(&self.rows, name, rows).map_err(failed)
    }

    fn bounds(&self, name: &str, rows: Range<usize>) -> Option<Bounds> {
        self.segment.bounds_in(&self.rows, name, rows)
    }
}

/// A segment of which each reading takes its bytes in the file off what may still be read.
pub(crate) struct Metered<'a> {
    pub run: &'a SegmentRun,
    pub bytes_left: &'a AtomicU64,
}

impl Metered<'_> {
    /// Takes the bytes of a whole group off.
    pub(crate) fn spend_group(&self, group: usize) {
        let Ok(segment) = &self.run.segment else { return };
        let of_columns = segment.schema().iter().filter_map(|(name, _)| segment.block(group, name));
        let of_columns: u64 = of_columns.map(|block| block.bytes).sum();
        self.spend(segment.order_bytes(group) + of_columns);
    }

    fn spend(&self, bytes: u64) {
        let left = |left: u64| Some(left.saturating_sub(bytes));
        let _ = self.bytes_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
    }
}

/// A run of one group of another.
pub(crate) struct OneGroup<'a> {
    pub run: &'a Metered<'a>,
    pub group: usize,
}

impl Run for OneGroup<'_> {
    fn groups(&self) -> usize {
        1
    }

    fn zone(&self, _group: usize) -> Zone {
        self.run.zone(self.group)
    }

    fn timestamps(&self, _group: usize) -> Result<Cow<'_, [i64]>, QueryError> {
        self.run.timestamps(self.group)
    }

    fn seqs(&self, _group: usize) -> Result<Seqs<'_>, QueryError> {
        self.run.seqs(self.group)
    }

    fn column_zone(&self, _group: usize, name: &str) -> Option<ColumnZone> {
        self.run.column_zone(self.group, name)
    }

    fn column(&self, _group: usize, name: &str) -> Result<Option<Cow<'_, Column>>, QueryError> {
        self.run.column(self.group, name)
    }
}

impl Run for Metered<'_> {
    fn groups(&self) -> usize {
        self.run.groups()
    }

    fn zone(&self, group: usize) -> Zone {
        self.run.zone(group)
    }

    fn timestamps(&self, group: usize) -> Result<Cow<'_, [i64]>, QueryError> {
        // With those of the seqs.
        self.spend(self.run.segment.as_ref().map_or(0, |segment| segment.order_bytes(group)));
        self.run.timestamps(group)
    }

    fn seqs(&self, group: usize) -> Result<Seqs<'_>, QueryError> {
        self.run.seqs(group)
    }

    fn column_zone(&self, group: usize, name: &str) -> Option<ColumnZone> {
        self.run.column_zone(group, name)
    }

    fn column(&self, group: usize, name: &str) -> Result<Option<Cow<'_, Column>>, QueryError> {
        let block = self.run.segment.as_ref().ok().and_then(|segment| segment.block(group, name));
        self.spend(block.map_or(0, |block| block.bytes));
        self.run.column(group, name)
    }
}

fn failed(error: StorageError) -> QueryError {
    QueryError::Source(Box::new(error))
}

impl Run for SegmentRun {
    fn groups(&self) -> usize {
        self.segment.as_ref().map_or(1, Segment::groups)
    }

    fn seq_max(&self) -> u64 {
        self.seq_max
    }

    fn zone(&self, group: usize) -> Zone {
        let assigned = self.reference.seq;
        let Ok(segment) = &self.segment else {
            let v1::SegmentRef { rows, ts_min, ts_max, .. } = self.reference;
            return Zone { rows: rows as usize, ts_min, ts_max, seq_min: assigned, seq_max: self.seq_max };
        };
        let info = segment.group(group);
        let (seq_min, seq_max) =
            if assigned > 0 { (assigned, assigned) } else { (info.seq_min, info.seq_max) };
        Zone { rows: info.rows, ts_min: info.ts_min, ts_max: info.ts_max, seq_min, seq_max }
    }

    fn timestamps(&self, group: usize) -> Result<Cow<'_, [i64]>, QueryError> {
        self.readable()?.timestamps(group).map(Cow::Owned).map_err(failed)
    }

    fn seqs(&self, group: usize) -> Result<Seqs<'_>, QueryError> {
        if self.reference.seq > 0 {
            return Ok(Seqs::One(self.reference.seq));
        }
        Ok(match self.readable()?.seqs(group).map_err(failed)? {
            Some(seqs) => Seqs::Each(Cow::Owned(seqs)),
            None => Seqs::One(0),
        })
    }

    fn piece_rows(&self) -> usize {
        PIECE_ROWS
    }

    fn timestamps_of(&self, group: usize, rows: Range<usize>) -> Result<Cow<'_, [i64]>, QueryError> {
        self.readable()?.timestamps_of(group, rows).map(Cow::Owned).map_err(failed)
    }

    fn seqs_of(&self, group: usize, rows: Range<usize>) -> Result<Seqs<'_>, QueryError> {
        if self.reference.seq > 0 {
            return Ok(Seqs::One(self.reference.seq));
        }
        let seqs = self.readable()?.seqs_of(group, rows).map_err(failed)?;
        Ok(seqs.map_or(Seqs::One(0), |seqs| Seqs::Each(Cow::Owned(seqs))))
    }

    fn column_of(
        &self,
        group: usize,
        name: &str,
        rows: Range<usize>,
    ) -> Result<Option<Cow<'_, Column>>, QueryError> {
        Ok(self.readable()?.column_of(group, name, rows).map_err(failed)?.map(Cow::Owned))
    }

    fn column_at(&self, group: usize, name: &str, rows: &[u32]) -> Result<Option<Column>, QueryError> {
        self.readable()?.column_at(group, name, rows).map_err(failed)
    }

    fn dictionary(&self, group: usize, name: &str) -> Result<Option<Column>, QueryError> {
        self.readable()?.dictionary(group, name).map_err(failed)
    }

    fn codes(&self, group: usize, name: &str, rows: Range<usize>) -> Result<Vec<u32>, QueryError> {
        self.readable()?.codes(group, name, rows).map_err(failed)
    }

    fn bytes_of(&self, group: usize, name: &str) -> u64 {
        let block = self.segment.as_ref().ok().and_then(|segment| segment.block(group, name));
        block.map_or(0, |block| block.bytes)
    }

    fn passed(&self, group: usize) {
        if let Ok(segment) = &self.segment {
            segment.let_go(group);
        }
    }

    fn column_zone(&self, group: usize, name: &str) -> Option<ColumnZone> {
        let segment = self.segment.as_ref().ok()?;
        let block = segment.block(group, name)?;
        // Of keys by which rows are kept, those that are null are counted and not their rows.
        let is_counted = block.nulls == 0 || block.rows == segment.group(group).rows;
        is_counted.then_some(ColumnZone { nulls: block.nulls, values: block.zone })
    }

    fn bounds_of(&self, group: usize, name: &str, rows: Range<usize>) -> Option<Bounds> {
        self.segment.as_ref().ok()?.bounds_of(group, name, rows)
    }

    fn clusters(&self, group: usize) -> usize {
        let segment = self.segment.as_ref().ok().filter(|segment| group < segment.groups());
        segment.map_or(0, |segment| segment.group(group).clusters)
    }

    fn cluster_rows_min(&self) -> usize {
        KEY_ROWS
    }

    fn cluster_keys(&self, group: usize, name: &str) -> Result<Option<Column>, QueryError> {
        self.readable()?.cluster_keys(group, name).map_err(failed)
    }

    fn part(&self, group: usize, those: Those) -> Result<Option<Box<dyn Part + '_>>, QueryError> {
        let segment = self.readable()?;
        let rows = match those {
            Those::InTime => segment.part(group, None),
            Those::ByKey => segment.part_as_stored(group),
            Those::OfKey(key) => segment.part(group, Some(key)),
        };
        let rows = rows.map_err(failed)?;
        Ok(Some(Box::new(SegmentPart { segment, seq: self.reference.seq, rows })))
    }

    fn column(&self, group: usize, name: &str) -> Result<Option<Cow<'_, Column>>, QueryError> {
        Ok(self.readable()?.column(group, name).map_err(failed)?.map(Cow::Owned))
    }
}
