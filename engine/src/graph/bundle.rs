//! A bundle: one joined tuple or group of input cells, its edges, its last result and its run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::cell::Moment;
use super::ids::{CellId, ProducerId, RunId, SlotDate};
use super::key::Key;
use super::state::PStatus;

/// The class of an edge. At most one of `maybe`, `blocked` and `changed` is set, except that a lagging source
/// is `maybe` and may be `changed` too. `held` marks what forbids a start for now: a source that is waiting and
/// not lagging. `gone` marks a `blocked` edge whose source is gone; see [`super::cell::Cell::gone`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Class {
    pub changed: bool,
    pub maybe: bool,
    pub held: bool,
    pub blocked: bool,
    pub gone: bool,
}

impl Class {
    pub const CLEAN: Class = Class { changed: false, maybe: false, held: false, blocked: false, gone: false };
}

/// How many edges of a bundle are in each class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub changed: u32,
    pub maybe: u32,
    pub held: u32,
    pub blocked: u32,
    pub gone: u32,
}

impl Counters {
    pub fn add(&mut self, class: Class) {
        self.changed += u32::from(class.changed);
        self.maybe += u32::from(class.maybe);
        self.held += u32::from(class.held);
        self.blocked += u32::from(class.blocked);
        self.gone += u32::from(class.gone);
    }

    pub fn remove(&mut self, class: Class) {
        self.changed -= u32::from(class.changed);
        self.maybe -= u32::from(class.maybe);
        self.held -= u32::from(class.held);
        self.blocked -= u32::from(class.blocked);
        self.gone -= u32::from(class.gone);
    }

    pub fn is_clean(self) -> bool {
        self.changed == 0 && self.maybe == 0 && self.blocked == 0
    }
}

/// What an edge shows its source of the bundle: the obligation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Shown {
    #[default]
    Quiet,
    /// The source's generation was not acknowledged.
    Notified,
    Active,
    Failed,
}

/// An edge from a cell. `token` is the generation that the last accepted run read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    pub input: u16,
    pub token: Option<u64>,
    pub class: Class,
    pub shown: Shown,
}

impl Edge {
    /// What this edge shows a source of generation `g` while the bundle has this status.
    pub fn show(&self, status: PStatus, g: u64) -> Shown {
        match status {
            PStatus::Notified if self.token != Some(g) => Shown::Notified,
            PStatus::Ready | PStatus::Processing => Shown::Active,
            PStatus::Failed => Shown::Failed,
            _ => Shown::Quiet,
        }
    }
}

/// An edge from the scope of one input of a group.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ScopeEdge {
    pub token: Option<u64>,
    pub class: Class,
}

/// The last result.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ending {
    Data,
    Declined(Arc<str>),
    Failed(Arc<str>),
}

/// A run in flight: who it is and what it reads.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Claim {
    pub run: RunId,
    pub epoch: u64,
    pub cells: BTreeMap<CellId, u64>,
    /// Generation of each input's scope; empty unless grouped.
    pub scopes: Vec<u64>,
}

/// What a bundle's candidates depend on; outputs are looked at again where it changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Face {
    pub changed: bool,
    pub maybe: bool,
    pub blocked: bool,
    pub gone: bool,
    pub running: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Bundle {
    pub producer: ProducerId,
    pub date: SlotDate,
    pub key: Key,
    pub edges: BTreeMap<CellId, Edge>,
    /// One for each input of a group; empty otherwise.
    pub scopes: Vec<ScopeEdge>,
    pub counters: Counters,
    pub ending: Option<Ending>,
    pub ended: Moment,
    pub running: Option<Claim>,
    /// Every cell that it has ever given.
    pub outputs: BTreeSet<CellId>,
    /// The producer's epoch in which the newest work arrived while the producer was detached. An attachment
    /// raises the epoch, and so acknowledges the work of all bundles at once.
    pub unseen: Option<u64>,
    /// Interruptions in a row.
    pub interrupted: u32,
    pub runs: u64,
    /// Place in the queue; given when work opens.
    pub order: u64,
    pub status: PStatus,
    pub face: Face,
}

impl Bundle {
    pub fn new(producer: ProducerId, date: SlotDate, key: Key, scopes: usize) -> Bundle {
        let scope = ScopeEdge::default();
        Bundle {
            producer,
            date,
            key,
            edges: BTreeMap::new(),
            scopes: vec![scope; scopes],
            counters: Counters::default(),
            ending: None,
            ended: Moment::NEVER,
            running: None,
            outputs: BTreeSet::new(),
            unseen: None,
            interrupted: 0,
            runs: 0,
            order: 0,
            status: PStatus::Parked,
            face: Face::default(),
        }
    }

    /// Whether there is something to run for: no result yet, or one that read something else.
    pub fn has_work(&self) -> bool {
        self.ending.is_none() || self.counters.changed > 0
    }

    /// Whether its candidates are unsettled.
    pub fn is_unsettled(&self) -> bool {
        let moving = self.counters.changed > 0 || self.counters.maybe > 0 || self.running.is_some();
        self.counters.blocked == 0 && moving
    }

    /// The status, from facts and counters. `acknowledged`: whether the producer has seen the newest work;
    /// `ended`: whether the end of the date was declared, for groups.
    pub fn derive_status(&self, acknowledged: bool, ended: bool) -> PStatus {
        let work = self.has_work();
        if self.running.is_some() {
            PStatus::Processing
        } else if work && !acknowledged {
            PStatus::Notified
        } else if work && self.counters.blocked == 0 && self.counters.held == 0 && ended {
            PStatus::Ready
        } else {
            match &self.ending {
                Some(ending) if !work && self.counters.blocked == 0 => match ending {
                    Ending::Data => PStatus::Done,
                    Ending::Declined(_) => PStatus::Declined,
                    Ending::Failed(_) => PStatus::Failed,
                },
                _ => PStatus::Parked,
            }
        }
    }

    pub fn derive_face(&self) -> Face {
        Face {
            changed: self.counters.changed > 0,
            maybe: self.counters.maybe > 0,
            blocked: self.counters.blocked > 0,
            gone: self.counters.gone > 0,
            running: self.running.is_some(),
        }
    }
}
