//! Series as they were known at an earlier transaction.

use underbelly_storage::Timestamp;

use crate::error::ReadError;
use crate::feed;
use crate::series::{Series, SeriesInfo};
use crate::snapshot::Snapshot;
use crate::view::View;

/// All series as a reader would have seen them when a transaction was the last: with the rows that were deleted or superseded
/// since, without those that came since. Made by [`View::as_known_at`] and [`View::as_known_at_time`]; owned, `Send`, cheap
/// to clone.
///
/// What is gone cannot be shown: a checkpoint leaves out what was hidden longer ago than the
/// [`history`](crate::SeriesDefinition::history) of its type and is seen by no snapshot, and each series that lost something so has a
/// horizon. Of a series without deletes whose rows are all kept every transaction can be read. A field that was widened
/// since is wide.
#[derive(Clone)]
pub struct Past {
    snapshot: Snapshot,
}

impl Past {
    /// The last transaction that it shows.
    pub fn seq(&self) -> u64 {
        self.snapshot.seq()
    }

    /// Types of all series that were there, sorted.
    pub fn series_names(&self) -> Vec<String> {
        self.snapshot.series_names()
    }

    /// A series by its type; all operators read it.
    ///
    /// # Errors
    /// [`ReadError::UnknownSeries`] where there was no series of this type; [`ReadError::BeforeHorizon`], with the oldest transaction
    /// that can be read, where rows that were shown then may be gone.
    pub fn series(&self, name: &str) -> Result<Series, ReadError> {
        self.snapshot.series(name)
    }

    /// What is known of a series, as [`Snapshot::series_info`](crate::Snapshot::series_info) tells it.
    ///
    /// # Errors
    /// As [`Past::series`]; [`ReadError::Query`] where rows cannot be read.
    pub fn series_info(&self, name: &str) -> Result<SeriesInfo, ReadError> {
        self.snapshot.series_info(name)
    }
}

impl View {
    /// All series as they were known when this transaction was the last.
    ///
    /// # Errors
    /// [`ReadError::NotYet`] where it is not visible yet.
    pub fn as_known_at(&self, seq: u64) -> Result<Past, ReadError> {
        let newest = (self.base().visible)();
        if seq > newest {
            return Err(ReadError::NotYet { seq, newest });
        }
        Ok(Past { snapshot: Snapshot::at(self.base(), seq) })
    }

    /// All series as they were known at an instant of the database's clock: with all transactions whose commit time is this one or
    /// earlier.
    ///
    /// # Errors
    /// [`ReadError::TimeBeforeHorizon`] where commit times of then are not kept any more: they are as long as
    /// [`changes_kept`](crate::Options::changes_kept) says; [`ReadError::Feed`] where they cannot be read.
    pub fn as_known_at_time(&self, at: Timestamp) -> Result<Past, ReadError> {
        let newest = (self.base().visible)();
        let seq = match feed::seq_at(self.base(), at).map_err(Box::new)? {
            Ok(seq) => seq.min(newest),
            Err((oldest, seq)) => return Err(ReadError::TimeBeforeHorizon { at, oldest, seq }),
        };
        Ok(Past { snapshot: Snapshot::at(self.base(), seq) })
    }
}
