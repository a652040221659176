//! Following the feed: up to what there is, or waiting for more.

use std::sync::Arc;
use std::time::Duration;

use crate::database::Database;
use crate::error::CommitError;
use crate::snapshot::Snapshot;
use crate::transaction::{Transaction, transact};
use crate::view::{Base, View};

use super::cursor;
use super::follower::{Follower, Place};
use super::position::Position;
use super::{Committed, FeedError, Slow, Start, Watch};

impl Start {
    /// The transaction to begin with.
    pub(super) fn seq(&self, base: &Base) -> Result<u64, FeedError> {
        let newest = base.state().head;
        match self {
            Start::Now => Ok(newest + 1),
            Start::Oldest => Position::oldest(base),
            Start::Seq(seq) if *seq > newest + 1 => Err(FeedError::Ahead { asked: *seq, newest }),
            // There is no transaction 0.
            Start::Seq(seq) => Ok((*seq).max(1)),
            Start::Cursor(name) => cursor::next(base, name)?.map_or_else(|| Position::oldest(base), Ok),
        }
    }

    fn position(&self, base: &Base, watch: &Watch) -> Result<Position, FeedError> {
        let resolved = watch.resolve(&base.state().graph)?;
        Ok(Position::new(self.seq(base)?, resolved))
    }
}

impl View {
    /// What transactions changed, oldest first, up to the newest one that is durable and visible now. Who reads a database
    /// that another process writes follows it by a [`refresh`](crate::Reader::refresh) and another feed from
    /// [`next_seq`](Feed::next_seq) on.
    ///
    /// # Errors
    /// [`FeedError::UnknownSlot`]; [`FeedError::Ahead`] or [`FeedError::CursorAhead`] where there is no such transaction yet;
    /// [`FeedError::Commit`] where no cursor may have such a name. [`FeedError::TooOld`] comes from the first step.
    pub fn feed(&self, watch: &Watch, start: Start) -> Result<Feed, FeedError> {
        let base = self.base().clone();
        let until = (base.told)();
        Ok(Feed { position: start.position(&base, watch)?, base, until, is_over: false })
    }

    /// The last transaction that was consumed under the name of a durable cursor; `None` where none was. It is the variable
    /// [`CURSOR_PREFIX`](crate::CURSOR_PREFIX) and the name, of global scope: removing that removes the cursor.
    ///
    /// # Errors
    /// [`FeedError::Commit`] where no cursor may have such a name, or the variable is none.
    pub fn cursor(&self, name: &str) -> Result<Option<u64>, FeedError> {
        cursor::get(self.base(), name)
    }
}

/// What transactions changed, up to a newest one: made by [`View::feed`]. It ends after an error.
pub struct Feed {
    base: Arc<Base>,
    position: Position,
    until: u64,
    is_over: bool,
}

impl Feed {
    /// The transaction behind what was told or passed over: where to go on with [`Start::Seq`].
    pub fn next_seq(&self) -> u64 {
        self.position.next
    }
}

impl Iterator for Feed {
    type Item = Result<Committed, FeedError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = self.position.next(&self.base, self.until).transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}

impl Database {
    /// Follows what transactions change: every one that is watched for, in order, without a gap, as soon as it is
    /// durable and visible. What is slower than the commits is dealt with as `slow` says.
    ///
    /// # Errors
    /// As [`View::feed`].
    pub fn subscribe(&self, watch: &Watch, start: Start, slow: Slow) -> Result<Subscription, FeedError> {
        let core = self.core().clone();
        let position = start.position(core.view.base(), watch)?;
        let cursor = match start {
            Start::Cursor(name) => Some(name),
            _ => None,
        };
        Ok(Subscription { follower: Follower::new(core, position, slow), cursor })
    }
}

/// Follows the feed of a database: made by [`Database::subscribe`]. It does not keep the database open.
///
/// As an iterator it waits for each next transaction, and ends when the database is closed, or after an error.
pub struct Subscription {
    follower: Follower<Position>,
    cursor: Option<String>,
}

impl Subscription {
    /// The next transaction that is watched for; `None` when `timeout` has passed before there was one. A `timeout` of
    /// zero asks without waiting.
    ///
    /// # Errors
    /// [`FeedError::TooOld`] or [`FeedError::TooSlow`] where the subscription was too slow; [`FeedError::Damaged`] or
    /// [`FeedError::Read`] where what is kept cannot be read; and once everything was told, [`FeedError::Commit`] where the
    /// database was closed or its log has failed.
    pub fn next_within(&mut self, timeout: Duration) -> Result<Option<Committed>, FeedError> {
        let next = self.follower.next_within(timeout)?;
        Ok(next.map(committed))
    }

    /// The transaction behind what was told or passed over: where to go on with [`Start::Seq`].
    pub fn next_seq(&self) -> u64 {
        self.follower.place.next
    }

    /// Moves the cursor that the subscription started at behind all that was told or passed over, durably. What was done
    /// with it before is done again after a crash in between; to do it exactly once, write it in a transaction that
    /// [moves the cursor](Transaction::advance_cursor) itself.
    ///
    /// The move is a transaction too: with [`Watch::all`] it is told next.
    ///
    /// # Errors
    /// [`FeedError::NoCursor`] where it did not start at one; [`FeedError::Commit`] with
    /// [`CommitError::Consumed`] where another consumer moved it further, or as
    /// [`Database::transact`] says.
    pub fn ack(&mut self) -> Result<(), FeedError> {
        let name = self.cursor.as_ref().ok_or(FeedError::NoCursor)?;
        let Follower { core, place, .. } = &self.follower;
        let consumed = place.next - 1;
        if cursor::get(core.view.base(), name)? == Some(consumed) {
            return Ok(());
        }
        let advance = |tx: &mut Transaction| tx.advance_cursor(name, consumed);
        Ok(transact::<_, CommitError>(core, advance).map(|_| ())?)
    }
}

impl Iterator for Subscription {
    type Item = Result<Committed, FeedError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.follower.next().map(|next| next.map(committed))
    }
}

fn committed((committed, skipped): (Committed, u64)) -> Committed {
    Committed { skipped, ..committed }
}

impl Place for Position {
    type Told = Committed;

    fn next_seq(&self) -> u64 {
        self.next
    }

    fn go_to(&mut self, seq: u64) {
        Position::go_to(self, seq);
    }

    fn advance(&mut self, snapshot: &Snapshot) -> Result<Option<Committed>, FeedError> {
        self.next(snapshot.base(), snapshot.seq())
    }
}
