//! The feed: what each transaction changed, in order and without a gap, for whoever follows it.
//!
//! A transaction's changes of state follow from its event, so they are not logged: [`crate::state::State::apply`] derives
//! them and writes them into a *page* in memory, a replay does the same again, and a page that is full or that a
//! checkpoint captures becomes one row of the series [`CHANGES_SERIES`]. What is kept, copied, verified and read by other
//! processes is that series. A subscription is a place in this sequence and has no queue of its own.
//!
//! Invariants:
//! - Every transaction since the oldest kept one is in exactly one page, or in the one that still grows.
//! - A subscription is told what is durable and visible alone, so nothing that it was told is ever taken back.

mod cursor;
mod error;
mod follower;
mod mirror;
mod page;
mod position;
mod recent;
mod rows;
mod subscription;
mod times;
mod watch;

use std::sync::Arc;

use underbelly_storage::Timestamp;

use crate::graph::{CellId, Key, SlotDate, State};
use crate::listing::Alarm;

pub use cursor::CURSOR_PREFIX;
pub(crate) use cursor::{ENGINES_OWN, check_set};
pub use error::FeedError;
pub use mirror::{Kept, Mirror, Mirrored};
#[doc(hidden)]
pub use page::rewrite_page;
pub(crate) use recent::{Recent, expire};
pub use rows::{Appended, SeriesFeed, SeriesSubscription};
pub use subscription::{Feed, Subscription};
pub(crate) use times::seq_at;
pub use watch::Watch;

/// The type of the series that holds the changes of transactions, many in each row, in a form of its own.
pub const CHANGES_SERIES: &str = "_changes";

/// A transaction, as who follows the feed is told of it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Committed {
    /// Its place in the order of all transactions.
    pub seq: u64,
    /// Its commit time.
    pub time: Timestamp,
    /// Cells that changed their state, in the order in which they did: sources before what is made of them. One cell may
    /// change several times. Those that are watched for alone.
    pub states: Vec<StateChange>,
    /// What somebody is to look at since this transaction, whatever is watched for. Each alarm sounds once.
    pub alarms: Vec<Alarm>,
    /// Transactions before this one that were passed over because the subscription was too slow; 0 but with
    /// [`Slow::Skip`].
    pub skipped: u64,
}

/// A cell's change of state.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StateChange {
    /// The slot.
    pub slot: Arc<str>,
    /// The date.
    pub date: SlotDate,
    /// The key.
    pub key: Key,
    /// The cell's number.
    pub sid: CellId,
    /// Before.
    pub from: State,
    /// After. New data makes a cell updated, also one that was updated before.
    pub to: State,
    /// How often the contents had changed, this transaction included.
    pub generation: u64,
}

/// Where who follows the feed begins.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// With the oldest transaction that is kept.
    Oldest,
    /// With the next transaction.
    Now,
    /// With this transaction. One more than the seq of a [`Snapshot`](crate::Snapshot) goes on where that ends.
    Seq(u64),
    /// Behind what was consumed under the name of a durable cursor; with the oldest transaction that is kept where nothing
    /// was.
    Cursor(String),
}

/// What becomes of a subscription that is slower than the commits. It holds no memory either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Slow {
    /// It is told everything, however late, as long as it is kept
    /// ([`Options::changes_kept`](crate::Options::changes_kept)); then it ends with [`FeedError::TooOld`].
    CatchUp,
    /// It is told the newest `behind` transactions at most. The next [`Committed`] says how many were skipped.
    Skip {
        /// Transactions that it may be behind; 0 is 1.
        behind: u64,
    },
    /// It ends with [`FeedError::TooSlow`] once it is behind by more.
    Fail {
        /// Transactions that it may be behind; 0 is 1.
        behind: u64,
    },
}
