//! A sealed segment as a run that operators read.

use std::borrow::Cow;

use underbelly_query::{QueryError, Run, Seqs, Zone};
use underbelly_storage::Column;
use underbelly_storage::segment::Segment;

use crate::record::v1::SegmentRef;

/// A segment with what the engine knows about it.
pub(crate) struct SegmentRun {
    segment: Segment,
    reference: SegmentRef,
}

impl SegmentRun {
    pub(crate) fn new(segment: Segment, reference: SegmentRef) -> SegmentRun {
        SegmentRun { segment, reference }
    }

    pub(crate) fn reference(&self) -> &SegmentRef {
        &self.reference
    }

    pub(crate) fn segment(&self) -> &Segment {
        &self.segment
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

    fn column(&self, group: usize, name: &str) -> Result<Option<Cow<'_, Column>>, QueryError> {
        Ok(self.segment.column(group, name).map_err(failed)?.map(Cow::Owned))
    }
}
