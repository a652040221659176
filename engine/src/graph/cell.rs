//! A cell: its candidates, which of them is effective, and what it is to its consumers.

use std::collections::BTreeSet;
use std::sync::Arc;

use underbelly_storage::Timestamp;

use super::bundle::{Bundle, Class};
use super::ids::{BundleId, CellId, ContentId, SlotDate, SlotId};
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

/// What one priority has for a cell. Its edges are those of the bundle that owns it; a client's has none.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub priority: i32,
    /// The bundle that makes it; `None` for clients.
    pub owner: Option<BundleId>,
    pub content: Option<ContentId>,
    pub error: Option<Arc<str>>,
    /// The last result that it got.
    pub ended: Moment,
}

/// One cell. `candidates` are sorted by falling priority, each priority once.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub slot: SlotId,
    pub date: SlotDate,
    pub key: Key,
    pub candidates: Vec<Candidate>,
    /// Priority of the effective candidate.
    pub effective: Option<i32>,
    /// Effective content.
    pub content: Option<ContentId>,
    pub g: u64,
    pub changed: Moment,
    pub verified: Moment,
    /// Committed while its own inputs moved, and not settled since.
    pub lagging: bool,
    /// Settled, and each candidate with data or an error rests on an input that is gone itself: a retraction or
    /// an absent output is at the root, and a recompute of everything would not make this cell.
    pub gone: bool,
    /// Whether groups read it: it has an effective candidate and is not gone.
    pub member: bool,
    pub view: View,
    pub state: State,
    /// Bundles with an edge from this cell.
    pub readers: BTreeSet<BundleId>,
    /// Readers' edges by what they show; see [`super::bundle::Shown`].
    pub notified: u32,
    pub active: u32,
    pub failed: u32,
}

/// What the candidates of a cell amount to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    /// Position of the effective candidate.
    pub effective: Option<usize>,
    /// Whether it is sound.
    pub sound: bool,
    /// Whether a candidate above the effective one is unsettled.
    pub better_coming: Option<i32>,
    pub view: View,
    /// See [`Cell::gone`].
    pub gone: bool,
}

impl Cell {
    pub fn new(slot: SlotId, date: SlotDate, key: Key) -> Cell {
        Cell {
            slot,
            date,
            key,
            candidates: Vec::new(),
            effective: None,
            content: None,
            g: 0,
            changed: Moment::NEVER,
            verified: Moment::NEVER,
            lagging: false,
            gone: true,
            member: false,
            view: View::Unusable,
            state: State::Void,
            readers: BTreeSet::new(),
            notified: 0,
            active: 0,
            failed: 0,
        }
    }

    /// The candidate of this priority, made where there is none.
    pub fn candidate_mut(&mut self, priority: i32, owner: Option<BundleId>) -> &mut Candidate {
        let found = self.candidates.binary_search_by(|c| priority.cmp(&c.priority));
        let at = found.unwrap_or_else(|at| {
            let fresh = Candidate { priority, owner, content: None, error: None, ended: Moment::NEVER };
            self.candidates.insert(at, fresh);
            at
        });
        &mut self.candidates[at]
    }

    pub fn effective_candidate(&self) -> Option<&Candidate> {
        self.candidates.iter().find(|c| Some(c.priority) == self.effective)
    }

    /// Soundness, effectiveness and view from the candidates and their bundles.
    pub fn standing(&self, bundles: &[Bundle]) -> Standing {
        let owner = |c: &Candidate| c.owner.and_then(|b| bundles.get(b.at()));
        let sound = |c: &Candidate| {
            c.content.is_some() && c.error.is_none() && owner(c).is_none_or(|b| b.counters.blocked == 0)
        };
        let unsettled = |c: &Candidate| owner(c).is_some_and(Bundle::is_unsettled);
        let highest_sound = self.candidates.iter().position(sound);
        let effective = highest_sound
            .or_else(|| self.candidates.iter().position(|c| c.content.is_some() || c.error.is_some()));
        let (above, waiting) = match highest_sound {
            Some(at) => (at, self.candidates[..=at].iter().any(unsettled)),
            None => (effective.unwrap_or(0), self.candidates.iter().any(unsettled)),
        };
        let better_coming = self.candidates[..above].iter().find(|c| unsettled(c)).map(|c| c.priority);
        let view = match (waiting, highest_sound) {
            (true, _) => View::Waiting,
            (false, Some(_)) => View::Usable,
            (false, None) => View::Unusable,
        };
        let mut held = self.candidates.iter().filter(|c| c.content.is_some() || c.error.is_some());
        let gone = view == View::Unusable && held.all(|c| owner(c).is_some_and(|b| b.counters.gone > 0));
        Standing { effective, sound: highest_sound.is_some(), better_coming, view, gone }
    }

    /// The class of an edge from this cell whose last read was of generation `token`.
    pub fn class(&self, token: Option<u64>) -> Class {
        let changed = token != Some(self.g);
        match self.view {
            View::Waiting if self.lagging => Class { maybe: true, changed, ..Class::CLEAN },
            View::Waiting => Class { maybe: true, held: true, ..Class::CLEAN },
            View::Unusable => Class { blocked: true, gone: self.gone, ..Class::CLEAN },
            View::Usable => Class { changed, ..Class::CLEAN },
        }
    }

    /// The state, first match of the rules.
    pub fn derive_state(&self, bundles: &[Bundle]) -> State {
        let Some(candidate) = self.effective_candidate() else { return State::Void };
        let counters =
            candidate.owner.and_then(|b| bundles.get(b.at())).map(|b| b.counters).unwrap_or_default();
        if candidate.error.is_some() && counters.changed == 0 {
            State::Invalid
        } else if candidate.content.is_none() {
            State::Void
        } else if !counters.is_clean() || self.standing(bundles).better_coming.is_some() {
            State::Stale
        } else if self.notified > 0 {
            State::Updated
        } else if self.active > 0 {
            State::Pending
        } else {
            State::Current
        }
    }
}

/// The cells of a slot for a date as groups read them: those that have data or an error and are not gone.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    pub members: BTreeSet<CellId>,
    /// Raised whenever a member comes or goes.
    pub g: u64,
}
