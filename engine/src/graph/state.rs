//! The names that users see: states of cells, statuses of bundles, views of consumers.

use std::fmt;

/// The state of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum State {
    /// No data.
    Void,
    /// New data that some listener has not acknowledged.
    Updated,
    /// Some listener has work with it.
    Pending,
    /// All listeners have returned.
    Current,
    /// An input changed, is being recomputed or was lost, or better data is on its way.
    Stale,
    /// Its production failed for good. The last good data, if any, stays readable.
    Invalid,
}

impl State {
    /// All states.
    pub const ALL: [State; 6] =
        [State::Void, State::Updated, State::Pending, State::Current, State::Stale, State::Invalid];

    /// The lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            State::Void => "void",
            State::Updated => "updated",
            State::Pending => "pending",
            State::Current => "current",
            State::Stale => "stale",
            State::Invalid => "invalid",
        }
    }

    /// The state of this name; `failed` is another name of [`State::Invalid`].
    pub fn from_name(name: &str) -> Option<State> {
        if name == "failed" {
            return Some(State::Invalid);
        }
        State::ALL.into_iter().find(|state| state.name() == name)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The status of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PStatus {
    /// There is new work, and the producer is detached: it has not acknowledged it.
    Notified,
    /// There may be work, and its inputs forbid a start; [`super::BundleInfo::reason`] says why.
    Parked,
    /// It may start.
    Ready,
    /// A run is in flight.
    Processing,
    /// It gave data and nothing has changed since.
    Done,
    /// It gave nothing, by decision, and nothing has changed since.
    Declined,
    /// It failed for good, and nothing has changed since.
    Failed,
    /// A run failed and may be tried again; it waits for its time.
    RetryWait,
    /// It was cancelled, and nothing has changed since.
    Cancelled,
}

impl PStatus {
    /// All statuses.
    pub const ALL: [PStatus; 9] = [
        PStatus::Notified,
        PStatus::Parked,
        PStatus::Ready,
        PStatus::Processing,
        PStatus::Done,
        PStatus::Declined,
        PStatus::Failed,
        PStatus::RetryWait,
        PStatus::Cancelled,
    ];

    /// The lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            PStatus::Notified => "notified",
            PStatus::Parked => "parked",
            PStatus::Ready => "ready",
            PStatus::Processing => "processing",
            PStatus::Done => "done",
            PStatus::Declined => "declined",
            PStatus::Failed => "failed",
            PStatus::RetryWait => "retry_wait",
            PStatus::Cancelled => "cancelled",
        }
    }

    /// Its place in [`PStatus::ALL`].
    pub(super) const fn place(self) -> usize {
        self as usize
    }

    /// Active or notified: what keeps a scope open.
    pub const fn is_open(self) -> bool {
        matches!(self, PStatus::Notified | PStatus::Ready | PStatus::Processing | PStatus::RetryWait)
    }
}

impl fmt::Display for PStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a cell is to its consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum View {
    /// Unsettled: work that may change it is open.
    Waiting,
    /// Settled, and its effective candidate is sound.
    Usable,
    /// Settled, and not sound.
    Unusable,
}
