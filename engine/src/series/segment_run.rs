//! A sealed segment as a run that operators read.

use std::borrow::Cow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use underbelly_query::{ColumnZone, QueryError, Run, Seqs, Zone};
use underbelly_storage::Column;
use underbelly_storage::segment::Segment;

use crate::record::v1::SegmentRef;

/// A segment with what the engine knows about it.
pub(crate) struct SegmentRun {
    segment: Segment,
    reference: SegmentRef,
    /// Deletes up to this seq hide no row of it, as somebody found who read it; 0 where nobody did.
    cleared: AtomicU64,
    /// What is wrong with it, as a checkpoint found that read it.
    damage: OnceLock<String>,
}

impl SegmentRun {
    pub(crate) fn new(segment: Segment, reference: SegmentRef) -> SegmentRun {
        SegmentRun { segment, reference, cleared: AtomicU64::new(0), damage: OnceLock::new() }
    }

    /// What is wrong with it, where a checkpoint found something.
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

    pub(crate) fn segment(&self) -> &Segment {
        &self.segment
    }
}

/// A segment of which each reading takes its bytes in the file off what may still be read.
pub(crate) struct Metered<'a> {
    pub run: &'a SegmentRun,
    pub bytes_left: &'a AtomicU64,
}

impl Metered<'_> {
    fn spend(&self, bytes: u64) {
        let left = |left: u64| Some(left.saturating_sub(bytes));
        let _ = self.bytes_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
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
        self.spend(self.run.segment.order_bytes(group));
        self.run.timestamps(group)
    }

    fn seqs(&self, group: usize) -> Result<Seqs<'_>, QueryError> {
        self.run.seqs(group)
    }

    fn column_zone(&self, group: usize, name: &str) -> Option<ColumnZone> {
        self.run.column_zone(group, name)
    }

    fn column(&self, group: usize, name: &str) -> Result<Option<Cow<'_, Column>>, QueryError> {
        self.spend(self.run.segment.block(group, name).map_or(0, |block| block.bytes));
        self.run.column(group, name)
    }
}

fn failed(error: underbelly_storage::error::StorageError) -> QueryError {
    QueryError::Source(Box::new(error))
}

impl Run for SegmentRun {
    fn groups(&self) -> usize {
        self.segment.groups()
    }

    fn zone(&self, group: usize) -> Zone {
        let info = self.segment.group(group);
        let assigned = self.reference.seq;
        let (seq_min, seq_max) =
            if assigned > 0 { (assigned, assigned) } else { (info.seq_min, info.seq_max) };
        Zone { rows: info.rows, ts_min: info.ts_min, ts_max: info.ts_max, seq_min, seq_max }
    }

    fn timestamps(&self, group: usize) -> Result<Cow<'_, [i64]>, QueryError> {
        self.segment.timestamps(group).map(Cow::Owned).map_err(failed)
    }

    fn seqs(&self, group: usize) -> Result<Seqs<'_>, QueryError> {
        if self.reference.seq > 0 {
            return Ok(Seqs::One(self.reference.seq));
        }
        Ok(match self.segment.seqs(group).map_err(failed)? {
            Some(seqs) => Seqs::Each(Cow::Owned(seqs)),
            None => Seqs::One(0),
        })
    }

    fn column_zone(&self, group: usize, name: &str) -> Option<ColumnZone> {
        self.segment.block(group, name).map(|block| ColumnZone { nulls: block.nulls, values: block.zone })
    }

    fn column(&self, group: usize, name: &str) -> Result<Option<Cow<'_, Column>>, QueryError> {
        Ok(self.segment.column(group, name).map_err(failed)?.map(Cow::Owned))
    }
}
