//! Waiting for what comes next, whatever is followed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::Core;
use crate::error::CommitError;
use crate::limits::FEED_LOOK;
use crate::snapshot::Snapshot;

use super::{FeedError, Slow};

/// A place among the transactions.
pub(super) trait Place {
    /// What is told of one.
    type Told;

    /// The transaction behind what was told or passed over.
    fn next_seq(&self) -> u64;

    /// Passes over those before `seq`.
    fn go_to(&mut self, seq: u64);

    /// The next of those that a snapshot shows, of which there is something to tell.
    fn advance(&mut self, snapshot: &Snapshot) -> Result<Option<Self::Told>, FeedError>;
}

/// Goes on from a place as transactions become durable and visible. It does not keep the database open.
pub(super) struct Follower<P> {
    pub core: Arc<Core>,
    pub place: P,
    slow: Slow,
    /// Transactions that were skipped and not told yet.
    skipped: u64,
    is_over: bool,
}

impl<P: Place> Follower<P> {
    pub(super) fn new(core: Arc<Core>, place: P, slow: Slow) -> Follower<P> {
        Follower { core, place, slow, skipped: 0, is_over: false }
    }

    /// What is told next, and how many transactions before it were skipped; `None` when `timeout` has passed before.
    pub(super) fn next_within(&mut self, timeout: Duration) -> Result<Option<(P::Told, u64)>, FeedError> {
        // A time beyond the clock's end is no deadline.
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let is_closed = self.core.signals.is_over();
            let snapshot = Snapshot::told(self.core.view.base());
            if let Some(told) = self.next_of(&snapshot)? {
                return Ok(Some((told, std::mem::take(&mut self.skipped))));
            }
            if is_closed {
                return Err(CommitError::Closed.into());
            }
            self.core.log.with_log(|log| log.check_health()).map_err(CommitError::from)?;
            let left = deadline.map_or(timeout, |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(None);
            }
            let seen = snapshot.seq();
            drop(snapshot);
            self.core.signals.wait_told(seen, left.min(FEED_LOOK));
        }
    }

    /// The same, however long it takes; `None` once the database was closed, or after an error.
    pub(super) fn next(&mut self) -> Option<Result<(P::Told, u64), FeedError>> {
        while !self.is_over {
            match self.next_within(FEED_LOOK) {
                Ok(None) => {}
                Ok(Some(told)) => return Some(Ok(told)),
                Err(error) => {
                    self.is_over = true;
                    let is_closed = matches!(error, FeedError::Commit(CommitError::Closed));
                    return (!is_closed).then_some(Err(error));
                }
            }
        }
        None
    }

    fn next_of(&mut self, snapshot: &Snapshot) -> Result<Option<P::Told>, FeedError> {
        let (next, end) = (self.place.next_seq(), snapshot.seq() + 1);
        let behind = end.saturating_sub(next);
        match self.slow {
            Slow::Fail { behind: allowed } if behind > allowed.max(1) => {
                return Err(FeedError::TooSlow { next, behind, allowed });
            }
            Slow::Skip { behind: allowed } if behind > allowed.max(1) => self.skip_to(end - allowed.max(1)),
            _ => {}
        }
        match (self.place.advance(snapshot), self.slow) {
            (Err(FeedError::TooOld { oldest, .. }), Slow::Skip { .. }) => {
                self.skip_to(oldest);
                self.place.advance(snapshot)
            }
            (told, _) => told,
        }
    }

    fn skip_to(&mut self, seq: u64) {
        self.skipped += seq - self.place.next_seq();
        self.place.go_to(seq);
    }
}
