//! A candidate of a cell, and what the candidates of a cell amount to.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::bundle::Tally;
use super::cell::{Cell, Moment, Sheet};
use super::class::{Counters, Face, Sight};
use super::edges::EdgeKey;
use super::ids::{BundleId, ContentId, ProducerId};
use super::state::{PStatus, State};

/// Who gives a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Client,
    Daemon(ProducerId),
    /// The bundle that makes it.
    Bundle(BundleId),
}

impl Owner {
    pub fn bundle(self) -> Option<BundleId> {
        match self {
            Owner::Bundle(bundle) => Some(bundle),
            Owner::Client | Owner::Daemon(_) => None,
        }
    }
}

/// What one priority has for a cell. Its edges are those of the bundle that owns it; a client's has none.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub priority: i32,
    pub owner: Owner,
    pub content: Option<ContentId>,
    pub error: Option<Arc<str>>,
    /// The last result that it got.
    pub ended: Moment,
    /// The part of its bundle's edges on which it rests; `None` for all.
    pub uses: Option<Box<Uses>>,
    /// It got data in this event.
    pub written: bool,
    /// It got a result in this event: data, or that there is none, or an error.
    pub answered: bool,
    /// It is older than its slot says that it is fresh.
    pub aged: bool,
}

/// The candidates of a cell by falling priority, each priority once. Most cells have one.
#[derive(Clone, Debug)]
pub(super) enum Candidates {
    One(Candidate),
    Several(Vec<Candidate>),
}

impl Default for Candidates {
    fn default() -> Candidates {
        Candidates::Several(Vec::new())
    }
}

impl Deref for Candidates {
    type Target = [Candidate];

    fn deref(&self) -> &[Candidate] {
        match self {
            Candidates::One(candidate) => std::slice::from_ref(candidate),
            Candidates::Several(candidates) => candidates,
        }
    }
}

impl DerefMut for Candidates {
    fn deref_mut(&mut self) -> &mut [Candidate] {
        match self {
            Candidates::One(candidate) => std::slice::from_mut(candidate),
            Candidates::Several(candidates) => candidates,
        }
    }
}

impl FromIterator<Candidate> for Candidates {
    fn from_iter<I: IntoIterator<Item = Candidate>>(candidates: I) -> Candidates {
        let mut all = Candidates::default();
        candidates.into_iter().for_each(|candidate| all.insert(all.len(), candidate));
        all
    }
}

impl Candidates {
    pub fn insert(&mut self, at: usize, candidate: Candidate) {
        let mut all = match std::mem::take(self) {
            Candidates::Several(none) if none.is_empty() => {
                *self = Candidates::One(candidate);
                return;
            }
            Candidates::One(one) => vec![one],
            Candidates::Several(all) => all,
        };
        all.insert(at, candidate);
        *self = Candidates::Several(all);
    }
}

/// Some edges of a bundle, on which one of its outputs rests.
#[derive(Clone, Debug, Default)]
pub(super) struct Uses {
    /// In order. Edges that went since do not count.
    pub edges: Vec<EdgeKey>,
    /// Counts of their classes, of those of exclusive inputs and of what else holds the bundle.
    pub counters: Counters,
}

impl Candidate {
    pub fn new(priority: i32, owner: Owner) -> Candidate {
        Candidate {
            priority,
            owner,
            content: None,
            error: None,
            ended: Moment::NEVER,
            uses: None,
            written: false,
            answered: false,
            aged: false,
        }
    }

    fn tally<'t>(&self, tallies: &'t [Tally]) -> Option<&'t Tally> {
        self.owner.bundle().and_then(|bundle| tallies.get(bundle.at()))
    }

    /// Counts of the edges on which it rests. Where it is to be made anew and another input forbids the start, it rests on all.
    pub fn counters(&self, tallies: &[Tally]) -> Counters {
        match self.uses.as_deref() {
            Some(uses) if !self.rests_on_all(tallies) => uses.counters,
            _ => self.tally(tallies).map(|tally| tally.counters).unwrap_or_default(),
        }
    }

    /// Whether it rests on all edges of its bundle, as it is now.
    pub fn rests_on_all(&self, tallies: &[Tally]) -> bool {
        let Some(Uses { counters, .. }) = self.uses.as_deref() else { return true };
        let again = |face: Face| !face.is_running() && (counters.changed > 0 || face.is_forced());
        let is_forbidden = |tally: &Tally| tally.counters.has_obstacle() && again(tally.face);
        counters.maybe == 0 && self.tally(tallies).is_some_and(is_forbidden)
    }

    /// Whether it rests on an edge of its bundle, where that makes it anew on the same edges.
    pub fn rests_on(&self, edge: EdgeKey) -> bool {
        self.uses.as_ref().is_none_or(|uses| uses.edges.binary_search(&edge).is_ok())
    }

    /// Whether it has a result that says more than that there is nothing.
    pub fn is_held(&self) -> bool {
        self.content.is_some() || self.error.is_some()
    }

    fn is_sound(&self, tallies: &[Tally]) -> bool {
        self.content.is_some() && self.error.is_none() && !self.aged && !self.counters(tallies).has_obstacle()
    }

    fn is_unsettled(&self, tallies: &[Tally]) -> bool {
        let counters = self.counters(tallies);
        // Where it rests on some edges only, its bundle may be about to run for others.
        let runs = |tally: &Tally| {
            let comes = matches!(tally.status, PStatus::Ready | PStatus::RetryWait);
            let is_ready = self.uses.is_some() && comes;
            tally.face.is_running() || tally.face.is_forced() || is_ready
        };
        let active = || self.tally(tallies).is_some_and(runs);
        !counters.has_obstacle() && (counters.is_moving() || active())
    }

    /// Whether its production failed for good, and there is no reason to try again.
    fn is_invalid(&self, tallies: &[Tally]) -> bool {
        self.error.is_some() && self.counters(tallies).changed == 0 && !self.is_forced(tallies)
    }

    fn is_forced(&self, tallies: &[Tally]) -> bool {
        self.tally(tallies).is_some_and(|tally| tally.face.is_forced())
    }
}

/// What the candidates of a cell amount to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    /// Position of the effective candidate.
    pub effective: Option<usize>,
    /// Whether it is sound.
    pub sound: bool,
    /// Priority of a candidate above the effective one that is unsettled.
    pub better_coming: Option<i32>,
    /// What it is to its consumers, unless it lags.
    pub sight: Sight,
    /// See [`Cell::gone`].
    pub gone: bool,
}

impl Standing {
    /// That of candidates by falling priority.
    pub fn of(candidates: &[Candidate], tallies: &[Tally]) -> Standing {
        let unsettled = |c: &Candidate| c.is_unsettled(tallies);
        let highest_sound = candidates.iter().position(|c| c.is_sound(tallies));
        let effective = highest_sound.or_else(|| candidates.iter().position(Candidate::is_held));
        let (above, waiting) = match highest_sound {
            Some(at) => (at, candidates[..=at].iter().any(unsettled)),
            None => (effective.unwrap_or(0), candidates.iter().any(unsettled)),
        };
        let better_coming = candidates[..above].iter().find(|c| unsettled(c)).map(|c| c.priority);
        let sight = match effective.and_then(|at| candidates.get(at)) {
            _ if waiting => Sight::Waiting,
            _ if highest_sound.is_some() => Sight::Usable,
            Some(candidate) if candidate.content.is_some() => match candidate.is_invalid(tallies) {
                true => Sight::Invalid,
                false => Sight::Stale,
            },
            _ => Sight::Void,
        };
        let settled = !waiting && highest_sound.is_none();
        let mut held = candidates.iter().filter(|c| c.is_held());
        let gone = settled && held.all(|c| c.owner.bundle().is_some() && c.counters(tallies).gone > 0);
        Standing { effective, sound: highest_sound.is_some(), better_coming, sight, gone }
    }
}

impl Sheet {
    /// The candidate of this priority, made where there is none.
    pub fn candidate_mut(&mut self, priority: i32, owner: Owner) -> &mut Candidate {
        let found = self.candidates.binary_search_by(|c| priority.cmp(&c.priority));
        let at = found.unwrap_or_else(|at| {
            self.candidates.insert(at, Candidate::new(priority, owner));
            at
        });
        &mut self.candidates[at]
    }

    /// Effective content.
    pub fn content(&self) -> Option<ContentId> {
        self.effective_candidate().and_then(|candidate| candidate.content)
    }

    pub fn effective_candidate(&self) -> Option<&Candidate> {
        self.candidates.iter().find(|c| Some(c.priority) == self.effective)
    }

    /// Soundness, effectiveness and view from the candidates and their bundles.
    pub fn standing(&self, tallies: &[Tally]) -> Standing {
        Standing::of(&self.candidates, tallies)
    }
}

impl Cell {
    /// The state by the effective candidate and how all stand, first match of the rules; `None` where it hangs on the
    /// readers of the cell.
    pub fn fixed_state(
        effective: Option<&Candidate>,
        standing: &Standing,
        tallies: &[Tally],
    ) -> Option<State> {
        let Some(candidate) = effective else { return Some(State::Void) };
        if candidate.is_invalid(tallies) {
            Some(State::Invalid)
        } else if candidate.content.is_none() {
            Some(State::Void)
        } else if !candidate.counters(tallies).is_clean()
            || candidate.aged
            || candidate.is_forced(tallies)
            || standing.better_coming.is_some()
        {
            Some(State::Stale)
        } else {
            None
        }
    }

    /// The state as it is now that all readers are settled.
    pub fn derive_state(&self) -> State {
        match self.fixed {
            Some(state) => state,
            None if self.notified > 0 => State::Updated,
            None if self.active > 0 => State::Pending,
            None => State::Current,
        }
    }
}
