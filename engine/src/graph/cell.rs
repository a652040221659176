//! A cell: its candidates, which of them is effective, and what it is to its consumers.

use underbelly_storage::Timestamp;

use super::candidate::Candidates;
use super::class::{Seen, Shown, Sight};
use super::edges::Readers;
use super::ids::{SlotDate, SlotId};
use super::key::Key;
use super::state::{State, View};

/// When a commit was sequenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    pub seq: u64,
    pub time: Timestamp,
}

impl Moment {
    pub const NEVER: Moment = Moment { seq: 0, time: Timestamp(0) };
}

/// What a change of its inputs or readers moves of a cell. It stands apart from the rest, since a change may reach very many
/// cells.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub slot: SlotId,
    /// How far it was lifted in the order of settling.
    pub lift: u32,
    pub g: u64,
    /// Somebody looks for it, and nobody has made it: it is neither joined nor listed.
    pub expected: bool,
    /// Committed while its own inputs moved, and not settled since.
    pub lagging: bool,
    /// Settled, and each candidate with data or an error rests on an input that is gone itself: a retraction or
    /// an absent output is at the root, and a recompute of everything would not make this cell.
    pub gone: bool,
    /// Whether groups read it: it has an effective candidate and is not gone.
    pub member: bool,
    pub sight: Sight,
    /// What its state is if that does not hang on its readers.
    pub fixed: Option<State>,
    pub state: State,
    /// The edges that begin at it.
    pub readers: Readers,
    /// Readers' edges by what they show; see [`Shown`].
    pub notified: u32,
    pub active: u32,
    pub failed: u32,
}

/// The rest of a cell: where it is, what candidates it has, and when that came.
#[derive(Clone, Debug)]
pub(super) struct Sheet {
    pub date: SlotDate,
    pub key: Key,
    pub candidates: Candidates,
    /// Priority of the effective candidate.
    pub effective: Option<i32>,
    pub changed: Moment,
    pub verified: Moment,
}

impl Sheet {
    pub fn new(date: SlotDate, key: Key) -> Sheet {
        Sheet {
            date,
            key,
            candidates: Candidates::default(),
            effective: None,
            changed: Moment::NEVER,
            verified: Moment::NEVER,
        }
    }
}

impl Cell {
    pub fn new(slot: SlotId) -> Cell {
        Cell {
            slot,
            lift: 0,
            g: 0,
            expected: false,
            lagging: false,
            gone: true,
            member: false,
            sight: Sight::Void,
            fixed: Some(State::Void),
            state: State::Void,
            readers: Readers::default(),
            notified: 0,
            active: 0,
            failed: 0,
        }
    }

    /// What it is to its consumers.
    pub fn view(&self) -> View {
        match self.sight {
            Sight::Waiting | Sight::Lagging => View::Waiting,
            Sight::Usable => View::Usable,
            Sight::Invalid | Sight::Stale | Sight::Void => View::Unusable,
        }
    }

    /// The cell as its edges see it.
    pub fn seen(&self) -> Seen {
        Seen { g: self.g, sight: self.sight, gone: self.gone }
    }

    /// An edge shows something else now.
    pub fn move_shown(&mut self, from: Shown, to: Shown) {
        if let Some(count) = self.showing(from) {
            *count -= 1;
        }
        if let Some(count) = self.showing(to) {
            *count += 1;
        }
    }

    fn showing(&mut self, shown: Shown) -> Option<&mut u32> {
        match shown {
            Shown::Quiet => None,
            Shown::Notified => Some(&mut self.notified),
            Shown::Active => Some(&mut self.active),
            Shown::Failed => Some(&mut self.failed),
        }
    }
}
