//! What follows from the facts: classes of edges, counters, statuses, views, generations, states.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::*;
use super::facts::{BundleName, Candidate, CellName, Ending, Facts, Oracle, Results, Work};
use super::join::scope;
use super::join::{EdgeName, Joined};

/// How many edges are of each class; `held`: those that hold a start as *maybe*; `gone`: blocked by what is gone.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(in super::super) struct Counts {
    pub changed: u32,
    pub maybe: u32,
    pub held: u32,
    pub blocked: u32,
    pub gone: u32,
}

impl Counts {
    fn add(&mut self, class: Class) {
        self.changed += u32::from(class.changed);
        self.maybe += u32::from(class.maybe);
        self.held += u32::from(class.held);
        self.blocked += u32::from(class.blocked);
        self.gone += u32::from(class.gone);
    }
}

/// The class of an edge. A *maybe* of a lagging source is also *changed* where the token differs, and does not hold.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(super) struct Class {
    pub changed: bool,
    pub maybe: bool,
    pub held: bool,
    pub blocked: bool,
    pub gone: bool,
}

/// What a cell shows.
#[derive(Clone, Debug)]
pub(in super::super) struct CellShown {
    pub view: View,
    pub g: u64,
    pub effective: Option<i32>,
    pub content: Option<ContentId>,
    pub lagging: bool,
    /// No data, or resting on what has none: groups do not count it in.
    pub gone: bool,
    pub member: bool,
    /// Whether `g` rose with the event, and whether membership changed.
    rose: bool,
    moved: bool,
    /// Higher priorities that are unsettled.
    pub better: Vec<i32>,
}

/// What a bundle shows.
#[derive(Clone, Debug)]
pub(in super::super) struct BundleShown {
    pub edges: BTreeSet<EdgeName>,
    pub(super) cells: BTreeMap<EdgeName, Class>,
    pub(super) scopes: BTreeMap<usize, Class>,
    pub counts: Counts,
    pub status: PStatus,
}

#[derive(Clone, Default)]
pub(in super::super) struct Shown {
    pub cells: BTreeMap<CellName, CellShown>,
    pub bundles: BTreeMap<BundleName, BundleShown>,
}

/// Brings everything up to date: what a thing rests on is looked at before it, whichever is asked for first.
pub(super) struct Settling<'a> {
    facts: &'a mut Facts,
    given: &'a Results,
    shown: Shown,
    joined: BTreeMap<ProducerId, Joined>,
}

impl Settling<'_> {
    pub fn settle(facts: &mut Facts, given: &Results) -> Shown {
        let producers: Vec<ProducerId> = (0..facts.producers.len() as u32).map(ProducerId).collect();
        let cells: Vec<CellName> = facts.cells.keys().cloned().collect();
        let mut settling = Settling { facts, given, shown: Shown::default(), joined: BTreeMap::new() };
        for producer in producers {
            settling.bundles_of(producer);
        }
        for cell in &cells {
            settling.cell(cell);
        }
        settling.shown
    }

    /// Joins a producer's bundles, and looks at each.
    fn bundles_of(&mut self, id: ProducerId) {
        for name in self.names_of(id) {
            self.bundle(&name);
        }
    }

    fn names_of(&mut self, id: ProducerId) -> Vec<BundleName> {
        if !self.joined.contains_key(&id) {
            if self.facts.producers[id.at()].is_group() {
                let slots: Vec<SlotId> =
                    self.facts.producers[id.at()].inputs.iter().map(|port| port.slot).collect();
                let cells: Vec<CellName> =
                    self.facts.cells.keys().filter(|cell| slots.contains(&cell.0)).cloned().collect();
                cells.iter().for_each(|cell| self.cell(cell));
            }
            let joined = self.facts.joined(id, |cell| self.shown.cells[cell].member);
            self.joined.insert(id, joined);
        }
        self.joined[&id].keys().cloned().collect()
    }

    fn bundle(&mut self, name: &BundleName) {
        if self.shown.bundles.contains_key(name) {
            return;
        }
        self.names_of(name.0);
        let edges = self.joined[&name.0][name].clone();
        edges.iter().for_each(|(_, cell)| self.cell(cell));
        let open = if self.facts.producers[name.0.at()].is_group() { self.open_work(name) } else { 0 };
        self.acknowledge(name, &edges);

        let work = self.facts.works[name].clone();
        let cells: BTreeMap<EdgeName, Class> =
            edges.iter().map(|edge| (edge.clone(), self.edge_class(&work, edge))).collect();
        let scopes = self.scope_classes(name, &work, &edges, open);
        let mut counts = Counts::default();
        cells.values().chain(scopes.values()).for_each(|class| counts.add(*class));
        let status = self.status(name, &work, counts);
        self.shown.bundles.insert(name.clone(), BundleShown { edges, cells, scopes, counts, status });
    }

    /// A bundle is acknowledged as it comes to be where its producer is there, and notified again of each new
    /// generation, and of each change of its group, that comes while it is not.
    fn acknowledge(&mut self, name: &BundleName, edges: &BTreeSet<EdgeName>) {
        let producer = &self.facts.producers[name.0.at()];
        let scope =
            |cell: &CellName| producer.inputs.iter().any(|port| port.slot == cell.0) && cell.1 == name.1;
        let moved = producer.is_group()
            && self.shown.cells.iter().any(|(cell, shown)| scope(cell) && (shown.moved || shown.rose));
        let rose = edges.iter().any(|(_, cell)| self.shown.cells[cell].rose);
        let attached = producer.attached;
        let work = self.facts.works.entry(name.clone()).or_default();
        work.acknowledged = attached || (work.acknowledged && !rose && !moved);
        // The edges of a group follow the members that there are; one that comes back has read nothing.
        work.read.cells.retain(|edge, _| edges.contains(edge));
    }

    fn edge_class(&self, work: &Work, edge: &EdgeName) -> Class {
        let source = &self.shown.cells[&edge.1];
        let differs = work.read.cells.get(edge) != Some(&source.g);
        match source.view {
            View::Waiting => Class {
                maybe: true,
                held: !source.lagging,
                changed: source.lagging && differs,
                ..Class::default()
            },
            View::Unusable => Class { blocked: true, gone: source.gone, ..Class::default() },
            View::Usable => Class { changed: differs, ..Class::default() },
        }
    }

    /// A group has an edge to the scope of each input: waiting while work upstream is open, of no use while it is
    /// empty, and changed when a key appeared or vanished since.
    fn scope_classes(
        &self,
        name: &BundleName,
        work: &Work,
        edges: &BTreeSet<EdgeName>,
        open: u64,
    ) -> BTreeMap<usize, Class> {
        let producer = &self.facts.producers[name.0.at()];
        if !producer.is_group() {
            return BTreeMap::new();
        }
        let class = |at: usize| {
            let differs = work.read.scopes.get(&at) != Some(&scope(edges, at));
            let class = if open > 0 {
                Class { maybe: true, held: true, ..Class::default() }
            } else if !edges.iter().any(|(input, _)| *input == at) {
                Class { blocked: true, gone: true, ..Class::default() }
            } else {
                Class { changed: differs, ..Class::default() }
            };
            (at, class)
        };
        (0..producer.inputs.len()).map(class).collect()
    }

    fn open_work(&mut self, name: &BundleName) -> u64 {
        let mut open = 0;
        for (producer, date) in self.facts.upstream(name.0, name.1) {
            for bundle in self.names_of(producer).into_iter().filter(|bundle| bundle.1 == date) {
                self.bundle(&bundle);
                open += u64::from(is_open(self.shown.bundles[&bundle].status));
            }
        }
        open
    }

    fn status(&self, name: &BundleName, work: &Work, counts: Counts) -> PStatus {
        let has_work = work.ending.is_none() || counts.changed > 0;
        let closed = !self.facts.producers[name.0.at()].is_group() || self.facts.ends.contains(&name.1);
        match work.ending {
            _ if work.running.is_some() => PStatus::Processing,
            _ if has_work && !work.acknowledged => PStatus::Notified,
            _ if has_work && counts.held == 0 && counts.blocked == 0 && closed => PStatus::Ready,
            _ if has_work || counts.blocked > 0 => PStatus::Parked,
            Some(Ending::Data) => PStatus::Done,
            Some(Ending::Declined) => PStatus::Declined,
            Some(Ending::Failed) | None => PStatus::Failed,
        }
    }

    fn cell(&mut self, name: &CellName) {
        if self.shown.cells.contains_key(name) {
            return;
        }
        let owners: Vec<BundleName> =
            self.facts.cells[name].candidates.values().filter_map(|c| c.owner.clone()).collect();
        owners.iter().for_each(|owner| self.bundle(owner));

        let cell = &self.facts.cells[name];
        let highest = |fits: &dyn Fn(&Candidate) -> bool| {
            cell.candidates.iter().rev().find(|(_, candidate)| fits(candidate)).map(|(priority, _)| *priority)
        };
        let sound = highest(&|candidate| self.shown.is_sound(candidate));
        let effective = sound.or_else(|| highest(&|c| c.content.is_some() || c.error));
        // With none sound, any candidate that is unsettled makes the cell so.
        let counting = |priority: &i32| sound.is_none_or(|sound| *priority >= sound);
        let unsettled: Vec<i32> = cell
            .candidates
            .iter()
            .filter(|(priority, candidate)| counting(priority) && self.shown.is_unsettled(candidate))
            .map(|(priority, _)| *priority)
            .collect();
        let better = |priority: &&i32| effective.is_none_or(|effective| **priority > effective);
        let better = unsettled.iter().filter(better).copied().collect();
        let view = match sound {
            _ if !unsettled.is_empty() => View::Waiting,
            Some(_) => View::Usable,
            None => View::Unusable,
        };

        // A result whose inputs had moved by then lets readers in until the cell settles.
        let moving = |priority: &i32| {
            let owner = cell.candidates[priority].owner.as_ref();
            owner.is_some_and(|owner| self.shown.bundles[owner].counts.is_moving())
        };
        let caught = cell
            .candidates
            .keys()
            .any(|p| counting(p) && self.given.contains(&(name.clone(), *p)) && moving(p));
        let kept = cell.lagging && cell.effective == effective;
        let lagging = view == View::Waiting && sound.is_some() && (caught || kept);

        let content = effective.and_then(|priority| cell.candidates[&priority].content);
        let gone = view == View::Unusable && cell.candidates.values().all(|c| self.shown.is_gone(c));
        let member = effective.is_some() && !gone;
        let (rose, moved) = (content != cell.content, member != cell.member);
        let cell = self.facts.cells.get_mut(name).unwrap();
        cell.g += u64::from(rose);
        (cell.effective, cell.content, cell.lagging, cell.member) = (effective, content, lagging, member);
        let g = self.facts.cells[name].g;
        let shown = CellShown { view, g, effective, content, lagging, gone, member, rose, moved, better };
        self.shown.cells.insert(name.clone(), shown);
    }
}

impl Counts {
    fn is_moving(&self) -> bool {
        self.changed + self.maybe > 0
    }
}

/// Ready, processing or waiting to be tried again, or not acknowledged: what keeps a scope open.
fn is_open(status: PStatus) -> bool {
    matches!(status, PStatus::Ready | PStatus::Processing | PStatus::Notified)
}

impl Shown {
    fn owner(&self, candidate: &Candidate) -> Option<&BundleShown> {
        candidate.owner.as_ref().map(|owner| &self.bundles[owner])
    }

    fn is_sound(&self, candidate: &Candidate) -> bool {
        let blocked = self.owner(candidate).is_some_and(|owner| owner.counts.blocked > 0);
        candidate.content.is_some() && !candidate.error && !blocked
    }

    fn is_unsettled(&self, candidate: &Candidate) -> bool {
        self.owner(candidate).is_some_and(|owner| {
            let active = matches!(owner.status, PStatus::Ready | PStatus::Processing);
            owner.counts.blocked == 0 && (owner.counts.is_moving() || active)
        })
    }

    fn is_gone(&self, candidate: &Candidate) -> bool {
        let rests_on_nothing = self.owner(candidate).is_some_and(|owner| owner.counts.gone > 0);
        (candidate.content.is_none() && !candidate.error) || rests_on_nothing
    }
}

/// What a slot shows of a listener: the bundle's status at one member cell.
#[derive(Clone, Debug)]
pub(super) struct Obligation {
    pub cell: CellName,
    pub listener: BundleName,
    pub status: PStatus,
}

impl Oracle {
    /// The projection of bundles on their member cells, for the generations that these have now.
    pub(super) fn obligations(&self) -> Vec<Obligation> {
        let mut rows = Vec::new();
        for (listener, bundle) in &self.shown.bundles {
            for edge in &bundle.edges {
                let unread =
                    self.facts.works[listener].read.cells.get(edge) != Some(&self.shown.cells[&edge.1].g);
                let status = match bundle.status {
                    PStatus::Notified if !unread => PStatus::Done,
                    status => status,
                };
                rows.push(Obligation { cell: edge.1.clone(), listener: listener.clone(), status });
            }
        }
        rows
    }

    pub(super) fn state(&self, name: &CellName, obligations: &[Obligation]) -> State {
        let shown = &self.shown.cells[name];
        let Some(effective) = shown.effective else { return State::Void };
        let candidate = &self.facts.cells[name].candidates[&effective];
        let counts = self.shown.owner(candidate).map_or(Counts::default(), |owner| owner.counts);
        let mut statuses = obligations.iter().filter(|row| row.cell == *name).map(|row| row.status);
        if candidate.error && counts.changed == 0 {
            State::Invalid
        } else if candidate.content.is_none() {
            State::Void
        } else if counts.is_moving() || counts.blocked > 0 || !shown.better.is_empty() {
            State::Stale
        } else if statuses.clone().any(|status| status == PStatus::Notified) {
            State::Updated
        } else if statuses.any(|status| matches!(status, PStatus::Ready | PStatus::Processing)) {
            State::Pending
        } else {
            State::Current
        }
    }

    /// Bundles in work, or not acknowledged, upstream of the bundle and for its date.
    pub fn open_work(&self, producer: ProducerId, date: SlotDate) -> u64 {
        let upstream = self.facts.upstream(producer, date);
        let open = |(name, shown): &(&BundleName, &BundleShown)| {
            upstream.contains(&(name.0, name.1)) && is_open(shown.status)
        };
        self.shown.bundles.iter().filter(open).count() as u64
    }
}
