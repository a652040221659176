//! A bundle: one joined tuple or group of input cells, its edges, its last result and its run.

use std::collections::BTreeMap;
use std::sync::Arc;

use underbelly_storage::Timestamp;

use super::cell::Moment;
use super::cells::Cells;
use super::class::{Class, Counters, Face};
use super::edges::EdgeKey;
use super::group::Members;
use super::hold::Holding;
use super::ids::{BundleId, ProducerId, RunId, SlotDate};
use super::key::Key;
use super::order::Lane;
use super::reads::Reported;
use super::state::PStatus;

/// An edge from the scope of one input of a group.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ScopeEdge {
    /// What the last run read.
    pub token: Option<Members>,
    /// The cells that the input has in the group.
    pub now: Members,
    pub class: Class,
}

/// The last result.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ending {
    Data,
    Declined(Arc<str>),
    Failed(Arc<str>),
    Cancelled(Arc<str>),
}

/// What runs that gave nothing have left.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Setbacks {
    /// Failures in a row.
    pub attempts: u32,
    /// Before this it does not start.
    pub until: Option<Timestamp>,
    /// Most bundles of its next batch; 0 for as many as the producer takes.
    pub batch_max: u32,
    /// What the last one said.
    pub message: Option<Arc<str>>,
}

/// A run in flight: who it is and what it reads.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Claim {
    pub run: RunId,
    /// The first run of its batch.
    pub batch: RunId,
    pub epoch: u64,
    /// Commit time of its start.
    pub started: Timestamp,
    /// What it reads, by edge.
    pub cells: Vec<(EdgeKey, u64)>,
    /// The scope of each required input; empty unless grouped.
    pub scopes: Vec<Members>,
}

/// What a change of its inputs moves of a bundle, and what it looks at. It stands apart from the rest, since a change may
/// reach very many bundles.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub producer: ProducerId,
    /// How far it was lifted in the order of settling.
    pub lift: u32,
    pub counters: Counters,
    pub status: PStatus,
    /// The lane of its place in the queue.
    pub lane: Lane,
    pub face: Face,
    /// What of its work holds others.
    pub holding: Holding,
    /// Whether the part of its counters for which no edge is stored is not nothing.
    pub has_outer: bool,
    /// Facts of the bundle may have changed since its work was copied: whoever notes that they will says so.
    pub moved: bool,
    /// A copy of what [`Bundle::work`] says, so that settling a bundle of which only inputs moved does not look at it.
    pub work: Work,
    /// Every cell that it has ever given.
    pub outputs: Cells,
}

impl Tally {
    pub fn new(producer: ProducerId) -> Tally {
        Tally {
            producer,
            lift: 0,
            counters: Counters::default(),
            status: PStatus::Parked,
            lane: Lane::Live,
            face: Face::default(),
            holding: Holding::default(),
            has_outer: false,
            moved: true,
            work: Work::default(),
            outputs: Cells::default(),
        }
    }

    /// The status, from facts and counters. `acknowledged`: whether the producer has seen the newest work;
    /// `ended`: whether the end of the date was declared, for groups.
    pub fn derive_status(&self, acknowledged: bool, ended: bool) -> PStatus {
        let is_there = self.work.is_there(&self.counters);
        if self.work.running {
            PStatus::Processing
        } else if is_there && !acknowledged {
            PStatus::Notified
        } else if is_there && !self.counters.has_obstacle() && self.counters.held == 0 && ended {
            if self.work.backs_off { PStatus::RetryWait } else { PStatus::Ready }
        } else {
            match self.work.ended {
                Some(status) if !is_there && !self.counters.has_obstacle() => status,
                _ => PStatus::Parked,
            }
        }
    }

    pub fn derive_face(&self) -> Face {
        Face::of(&self.counters, self.work.running, self.work.forced)
    }
}

/// What the facts of a bundle say of its work.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Work {
    /// What its last result amounts to.
    pub ended: Option<PStatus>,
    pub running: bool,
    /// It is to run although nothing changed.
    pub forced: bool,
    pub lagging: bool,
    /// Whether an output rests on some of its edges only.
    pub has_uses: bool,
    /// It waits for its time.
    pub backs_off: bool,
}

impl Work {
    /// Whether there is something to run for: no result yet, or one that read something else, or a command.
    pub fn is_there(self, counters: &Counters) -> bool {
        self.ended.is_none() || counters.changed > 0 || self.forced
    }
}

#[derive(Clone, Debug)]
pub(super) struct Bundle {
    pub producer: ProducerId,
    pub date: SlotDate,
    pub key: Key,
    /// The cells from which it has edges; see `edges`.
    pub sources: Cells,
    /// One for each required input of a group; empty otherwise.
    pub scopes: Vec<ScopeEdge>,
    /// What its last run reported that it has read beside its inputs.
    pub reported: Option<Box<Reported>>,
    /// Of a group that joins several inputs, how many tuples of members have an edge.
    pub support: BTreeMap<EdgeKey, u32>,
    /// The part of its counters for which no edge is stored: better candidates of cells that it fills in, and what holds it.
    pub outer: Counters,
    pub ending: Option<Ending>,
    pub ended: Moment,
    /// It is to run although nothing changed.
    pub forced: bool,
    /// Its last run ended while its inputs moved, and it has not settled since.
    pub lagging: bool,
    pub running: Option<Box<Claim>>,
    /// Whether an output rests on some of its edges only.
    pub has_uses: bool,
    /// The producer's epoch in which the newest work arrived while the producer was detached. An attachment
    /// raises the epoch, and so acknowledges the work of all bundles at once.
    pub unseen: Option<u64>,
    /// The cutoff of its date has passed: no end is waited for.
    pub is_cut: bool,
    /// Interruptions in a row.
    pub interrupted: u32,
    pub setbacks: Option<Box<Setbacks>>,
    pub runs: u64,
    /// Commit time of the event that made it ready last.
    pub ready_at: Timestamp,
    /// Place in the queue; given when work opens.
    pub order: u64,
}

impl Bundle {
    pub fn new(producer: ProducerId, date: SlotDate, key: Key, scopes: usize) -> Bundle {
        let scope = ScopeEdge::default();
        Bundle {
            producer,
            date,
            key,
            sources: Cells::default(),
            scopes: vec![scope; scopes],
            support: BTreeMap::new(),
            reported: None,
            has_uses: false,
            outer: Counters::default(),
            ending: None,
            ended: Moment::NEVER,
            forced: false,
            lagging: false,
            running: None,
            unseen: None,
            is_cut: false,
            interrupted: 0,
            setbacks: None,
            runs: 0,
            ready_at: Timestamp(0),
            order: 0,
        }
    }

    /// A result was left: data and a decision end all failures before; a failure is one more of them.
    pub fn end_setbacks(&mut self, ending: &Ending) {
        let attempts = self.setbacks.take().map_or(0, |setbacks| setbacks.attempts);
        let attempts = match ending {
            Ending::Data | Ending::Declined(_) => return,
            Ending::Failed(_) => attempts.saturating_add(1),
            Ending::Cancelled(_) if attempts == 0 => return,
            Ending::Cancelled(_) => attempts,
        };
        self.setbacks = Some(Box::new(Setbacks { attempts, ..Setbacks::default() }));
    }

    /// Before this it does not start.
    pub fn until(&self) -> Option<Timestamp> {
        self.setbacks.as_ref().and_then(|setbacks| setbacks.until)
    }

    /// Most bundles of its next batch where the last one died; 0 where none did.
    pub fn halved(&self) -> u32 {
        self.setbacks.as_ref().map_or(0, |setbacks| setbacks.batch_max)
    }

    /// What its facts say of its work.
    pub fn work(&self) -> Work {
        let ended = self.ending.as_ref().map(|ending| match ending {
            Ending::Data => PStatus::Done,
            Ending::Declined(_) => PStatus::Declined,
            Ending::Failed(_) => PStatus::Failed,
            Ending::Cancelled(_) => PStatus::Cancelled,
        });
        let (running, has_uses) = (self.running.is_some(), self.has_uses);
        let backs_off = self.until().is_some();
        Work { ended, running, forced: self.forced, lagging: self.lagging, has_uses, backs_off }
    }
}

pub(super) fn bundle_address(bundles: &[Bundle], number: u32) -> (SlotDate, &Key) {
    let bundle = &bundles[BundleId(number).at()];
    (bundle.date, &bundle.key)
}
