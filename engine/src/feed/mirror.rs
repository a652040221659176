//! A local copy of the newest rows of a series, kept current in the background.
//!
//! A thread of its own is woken by commits, reads what the series shows then, and puts it in the place of what was there. Readers
//! take a reference to a whole copy: no lock of the store, no wait for a commit, and nothing that changes under them.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use underbelly_storage::{Columns, Timestamp};

use crate::core::Core;
use crate::database::Database;
use crate::error::{CommitError, ReadError};
use crate::limits::FEED_LOOK;
use crate::snapshot::Snapshot;

use super::FeedError;

/// What a mirror keeps of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kept {
    /// The newest row of each combination of keys, in order of the keys.
    LastPoints,
    /// The rows less than this older than the newest one, in order of (timestamp, commit, arrival).
    Window(Duration),
}

/// What a mirror showed after one transaction.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Mirrored {
    /// The last transaction of which it shows what it did.
    pub seq: u64,
    /// The rows; no columns as long as there is no such series.
    pub rows: Columns,
}

/// A local copy of the newest rows of a series: made by [`Database::mirror`]. It does not keep the database open; what it showed last
/// it goes on to show when that is closed.
pub struct Mirror {
    shared: Arc<Shared>,
}

struct Shared {
    shown: Mutex<Shown>,
    changed: Condvar,
    is_dropped: AtomicBool,
}

struct Shown {
    copy: Arc<Mirrored>,
    /// Why it is no longer kept current.
    ended: Option<Arc<FeedError>>,
}

impl Shared {
    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// What of a series is kept, as of a snapshot.
    fn read(self, snapshot: &Snapshot, series: &str) -> Result<Columns, ReadError> {
        let series = match snapshot.series(series) {
            Ok(series) => series,
            Err(ReadError::UnknownSeries { .. }) => return Ok(Columns::new()),
            Err(error) => return Err(error),
        };
        match self {
            Kept::LastPoints => series.last_points(),
            Kept::Window(length) => {
                let newest = series.latest(1, &[])?;
                let newest = newest.timestamps("timestamp").and_then(|times| times.first().copied());
                let length = i64::try_from(length.as_nanos()).unwrap_or(i64::MAX);
                let from = newest.map_or(i64::MIN, |newest| newest.saturating_sub(length).saturating_add(1));
                // A window of nothing is one without rows.
                let to = (length == 0).then_some(Timestamp(from));
                let scan = series.scan().from(Timestamp(from));
                Ok(to.into_iter().fold(scan, underbelly_query::Scan::to).collect()?)
            }
        }
    }
}

impl Database {
    /// Keeps a copy of the newest rows of a series current in the background. It shows what is durable and visible; several transactions
    /// that come while it reads are shown at once. Each update reads all that is kept anew, so it should be what fits into memory
    /// easily. The series need not be there yet.
    ///
    /// # Errors
    /// [`FeedError::Read`] where rows cannot be read; [`FeedError::Commit`] with [`CommitError::Closed`] where there is no thread.
    pub fn mirror(&self, series: &str, kept: Kept) -> Result<Mirror, FeedError> {
        let core = self.core().clone();
        let snapshot = Snapshot::told(core.view.base());
        let (seq, rows) = (snapshot.seq(), kept.read(&snapshot, series)?);
        drop(snapshot);
        let shown = Shown { copy: Arc::new(Mirrored { seq, rows }), ended: None };
        let shared = Arc::new(Shared {
            shown: Mutex::new(shown),
            changed: Condvar::new(),
            is_dropped: AtomicBool::new(false),
        });
        let (series, theirs) = (series.to_string(), shared.clone());
        let thread = std::thread::Builder::new().name("underbelly-mirror".to_string());
        let started = thread.spawn(move || {
            let ended = keep(&core, &series, kept, seq, &theirs);
            let mut shown = theirs.shown();
            shown.ended = ended.err().map(Arc::new);
            theirs.changed.notify_all();
        });
        started.map_err(|_| CommitError::Closed)?;
        Ok(Mirror { shared })
    }
}

/// Keeps a copy current until nobody looks at it any more; the error that ends it otherwise.
fn keep(core: &Arc<Core>, series: &str, kept: Kept, mut seen: u64, shared: &Shared) -> Result<(), FeedError> {
    while !shared.is_dropped.load(Ordering::Acquire) {
        let is_closed = core.signals.is_over();
        let base = core.view.base();
        let snapshot = Snapshot::told(base);
        let told = snapshot.seq();
        if told > seen {
            let last = base.state().tables.get(series).map_or(0, |table| table.last_seq());
            // What came behind `told` is read the next time.
            let rows = (last > seen).then(|| kept.read(&snapshot, series)).transpose()?;
            let mut shown = shared.shown();
            let rows = rows.unwrap_or_else(|| shown.copy.rows.clone());
            shown.copy = Arc::new(Mirrored { seq: told, rows });
            shared.changed.notify_all();
            seen = told;
            continue;
        }
        drop(snapshot);
        if is_closed {
            return Err(CommitError::Closed.into());
        }
        core.log.with_log(|log| log.check_health()).map_err(CommitError::from)?;
        core.signals.wait_told(told, FEED_LOOK);
    }
    Ok(())
}

impl Mirror {
    /// What the series showed after the newest transaction that the mirror knows of.
    pub fn get(&self) -> Arc<Mirrored> {
        self.shared.shown().copy.clone()
    }

    /// The same once it knows of transaction `seq`; `None` when `timeout` has passed before, or it is no longer kept current.
    pub fn get_at(&self, seq: u64, timeout: Duration) -> Option<Arc<Mirrored>> {
        let deadline = Instant::now().checked_add(timeout);
        let mut shown = self.shared.shown();
        while shown.copy.seq < seq && shown.ended.is_none() {
            let left = deadline.map_or(timeout, |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return None;
            }
            let waited = self.shared.changed.wait_timeout(shown, left);
            shown = waited.map_or_else(|poisoned| poisoned.into_inner().0, |(shown, _)| shown);
        }
        (shown.copy.seq >= seq).then(|| shown.copy.clone())
    }

    /// Why it is no longer kept current: the database was closed, its log has failed, or rows could not be read.
    pub fn ended(&self) -> Option<Arc<FeedError>> {
        self.shared.shown().ended.clone()
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.shared.is_dropped.store(true, Ordering::Release);
    }
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.shared.shown();
        f.debug_struct("Mirror")
            .field("seq", &shown.copy.seq)
            .field("rows", &shown.copy.rows.rows())
            .field("ended", &shown.ended)
            .finish()
    }
}
