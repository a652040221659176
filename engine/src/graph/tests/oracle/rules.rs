//! What follows from the facts: classes of edges, counters, statuses, views, generations, states.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::*;
use super::facts::{BundleName, Candidate, CellName, Ending, Facts, Oracle, Port, Results, Work};
use super::join::{EdgeName, Joined, scope};

/// How many edges are of each class; `held`: those that hold a start as *maybe*; `gone`: blocked by what is gone.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(in super::super) struct Counts {
    pub changed: u32,
    pub maybe: u32,
    pub held: u32,
    pub blocked: u32,
    pub unsatisfiable: u32,
    pub gone: u32,
}

impl Counts {
    fn add(&mut self, class: Class) {
        self.changed += u32::from(class.changed);
        self.maybe += u32::from(class.maybe);
        self.held += u32::from(class.held);
        self.blocked += u32::from(class.blocked);
        self.unsatisfiable += u32::from(class.unsatisfiable);
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
    pub unsatisfiable: bool,
    pub gone: bool,
}

/// What some candidates of a cell amount to.
#[derive(Clone, Debug)]
pub(in super::super) struct Standing {
    pub view: View,
    pub effective: Option<i32>,
    pub sound: Option<i32>,
    pub content: Option<ContentId>,
    /// Its production failed for good, and nothing has changed since.
    pub invalid: bool,
    /// No data, or resting on what has none: groups do not count it in.
    pub gone: bool,
    /// Priorities above the effective one that are unsettled.
    pub better: Vec<i32>,
}

impl Standing {
    /// Whether it is settled, with data that no recompute would make.
    pub fn is_stale(&self) -> bool {
        self.view == View::Unusable && self.content.is_some() && !self.invalid
    }

    /// Whether it is settled, with data of before that a run may take all the same: stale, or left by one that failed.
    pub fn outlives(&self) -> bool {
        self.view == View::Unusable && self.content.is_some()
    }

    /// Whether an input finds it once it is settled. What is stale is there for an exclusive one.
    fn is_there(&self, port: &Port) -> bool {
        match self.view {
            View::Waiting => false,
            View::Usable => true,
            View::Unusable if self.content.is_none() => false,
            View::Unusable if self.invalid => port.fault_tolerant,
            View::Unusable => port.accept_stale || port.mode == Mode::Exclusive,
        }
    }
}

/// What a cell shows.
#[derive(Clone, Debug)]
pub(in super::super) struct CellShown {
    pub standing: Standing,
    pub g: u64,
    pub lagging: bool,
    pub member: bool,
    /// Whether `g` rose with the event.
    rose: bool,
}

impl CellShown {
    /// Whether a run finds it through this input.
    pub(super) fn is_there(&self, port: &Port) -> bool {
        self.lagging || self.standing.is_there(port)
    }
}

/// What a bundle shows.
#[derive(Clone, Debug)]
pub(in super::super) struct BundleShown {
    pub edges: BTreeSet<EdgeName>,
    pub(super) cells: BTreeMap<EdgeName, Class>,
    pub(super) scopes: BTreeMap<usize, Class>,
    /// What better candidates have for the cells that it fills in.
    pub(super) above: BTreeMap<EdgeName, Class>,
    /// Whether some of that is stale.
    pub(super) stale_above: bool,
    /// Whose work it waits for.
    pub(super) held_by: BTreeSet<ProducerId>,
    /// Of a group, how much work upstream may still make one of its cells.
    pub open_work: u64,
    /// Whose that is, of which date, and how much.
    pub(super) open: Vec<(ProducerId, SlotDate, u64)>,
    /// What members have given that a group waits for, and who has not.
    pub(super) quorum: Option<(usize, Vec<String>)>,
    pub counts: Counts,
    /// The part of them that concerns each output, whatever it rests on.
    of_all: Counts,
    /// The edges of exclusive inputs, which concern each output.
    pub(super) exclusive: BTreeSet<EdgeName>,
    pub forced: bool,
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
    /// Of groups, those that there may be, with all that they may read.
    joined: BTreeMap<(ProducerId, SlotDate), Joined>,
    /// Bundles that are being looked at: nothing rests on itself.
    looking: BTreeSet<BundleName>,
    /// Groups that there are not.
    missing: BTreeSet<BundleName>,
}

impl Settling<'_> {
    pub fn settle(facts: &mut Facts, given: &Results) -> Shown {
        let producers = (0u32..).zip(&facts.producers).filter(|(_, producer)| !producer.deregistered);
        let producers: Vec<ProducerId> = producers.map(|(at, _)| ProducerId(at)).collect();
        let cells: Vec<CellName> = facts.cells.keys().cloned().collect();
        let (joined, looking, missing) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        let shown = Shown::default();
        let mut settling = Settling { facts, given, shown, joined, looking, missing };
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
        for date in self.facts.dates(id) {
            for name in self.names_of(id, date) {
                self.bundle(&name);
            }
        }
    }

    fn names_of(&mut self, id: ProducerId, date: SlotDate) -> Vec<BundleName> {
        if !self.joined.contains_key(&(id, date)) {
            let joined = self.facts.joined(id, date, |_| true);
            self.joined.insert((id, date), joined);
        }
        self.joined[&(id, date)].keys().cloned().collect()
    }

    fn bundle(&mut self, name: &BundleName) {
        if self.shown.bundles.contains_key(name) || self.missing.contains(name) {
            return;
        }
        self.names_of(name.0, name.1);
        assert!(self.looking.insert(name.clone()), "{name:?} rests on itself");
        let mut edges = self.joined[&(name.0, name.1)][name].clone();
        edges.iter().for_each(|(_, cell)| self.cell(cell));
        if self.facts.producers[name.0.at()].is_group() {
            // Of the cells that it may read, what it reads from makes it what it is.
            let counts = |cell: &CellName| self.shown.cells.get(cell).is_some_and(|shown| shown.member);
            let read: BTreeSet<&CellName> = edges.iter().map(|(_, cell)| cell).collect();
            let joined = self.facts.joined(name.0, name.1, |cell| read.contains(cell) && counts(cell));
            match joined.get(name) {
                Some(joined) => edges = joined.clone(),
                None => {
                    self.missing.insert(name.clone());
                    return;
                }
            }
        }
        let all = self.facts.producers[name.0.at()].awaits_all();
        let open_for = self.holding(name, true, all);
        let open: u64 = open_for.iter().map(|(.., count)| count).sum();
        self.acknowledge(name, &edges);

        let (above, stale_above) = self.above(name);
        let held_by: BTreeSet<ProducerId> =
            self.holding(name, false, false).into_iter().map(|(ancestor, ..)| ancestor).collect();

        let work = self.facts.works[name].clone();
        let cells: BTreeMap<EdgeName, Class> =
            edges.iter().map(|edge| (edge.clone(), self.edge_class(name, &work, edge))).collect();
        let scopes = self.scope_classes(name, &work, &edges, open);
        let (mut counts, mut of_all) = (Counts::default(), Counts::default());
        let held = Class { maybe: true, held: true, ..Class::default() };
        let held = held_by.first().map(|_| &held);
        // Of a dependent producer, work of the date holds a start and says nothing of what is there.
        let barred = Class { held: true, ..Class::default() };
        let is_barred = open > 0 && !self.facts.producers[name.0.at()].is_group();
        let held = held.into_iter().chain(is_barred.then_some(&barred));
        let producer = &self.facts.producers[name.0.at()];
        let exclusive = edges.iter().filter(|(at, _)| producer.port(*at).mode == Mode::Exclusive);
        let exclusive: BTreeSet<EdgeName> = exclusive.cloned().collect();
        let barring = exclusive.iter().map(|edge| &cells[edge]);
        above.values().chain(held.clone()).chain(barring).for_each(|class| of_all.add(*class));
        let classes = cells.values().chain(scopes.values()).chain(above.values()).chain(held);
        classes.for_each(|class| counts.add(*class));
        let waits = matches!(work.ending, None | Some(Ending::Cancelled));
        let quorum = self.facts.quorum(name, &edges).filter(|(_, missing)| waits && !missing.is_empty());
        let status = self.status(name, &work, counts, quorum.is_some());
        let forced = work.forced;
        self.facts.works.get_mut(name).unwrap().lagging &= counts.is_moving();
        let open_work = open;
        let shown = BundleShown {
            edges,
            cells,
            scopes,
            above,
            stale_above,
            held_by,
            open_work,
            open: open_for,
            quorum,
            counts,
            of_all,
            exclusive,
            forced,
            status,
        };
        self.shown.bundles.insert(name.clone(), shown);
    }

    /// The class of what better candidates have for each cell that the bundle fills in, and whether some of it is stale.
    fn above(&mut self, name: &BundleName) -> (BTreeMap<EdgeName, Class>, bool) {
        let (mut above, mut stale) = (BTreeMap::new(), false);
        for at in 0..self.facts.producers[name.0.at()].inputs.len() {
            let Some(own) = self.facts.fills(name.0, at) else { continue };
            for cell in self.facts.filled(name, at) {
                let mut better = self.facts.cells[&cell].candidates.clone();
                better.retain(|priority, _| *priority > own);
                self.owners(&better);
                let standing = self.shown.standing(&better);
                let there = standing.is_there(&self.facts.producers[name.0.at()].inputs[at]);
                let waits = standing.view == View::Waiting;
                let class = Class {
                    maybe: waits,
                    held: waits,
                    unsatisfiable: there,
                    gone: there,
                    ..Class::default()
                };
                above.insert((at, cell), class);
                stale |= standing.is_stale();
            }
        }
        (above, stale)
    }

    /// Whose work may still make inputs of the bundle, and how much of it there is; of `all`, or of what does not lag.
    fn holding(&mut self, name: &BundleName, of_group: bool, all: bool) -> Vec<(ProducerId, SlotDate, u64)> {
        let mut holding = Vec::new();
        for (ancestor, date, values) in self.facts.ancestors(name, of_group) {
            let columns = self.facts.producers[ancestor.at()].columns.clone();
            let mut count = 0;
            for work in self.names_of(ancestor, date) {
                let mut own = columns.iter().zip(work.2.values());
                if own.all(|(column, value)| values.get(column).is_none_or(|v| v == value)) {
                    self.bundle(&work);
                    let counts = all || self.facts.works.get(&work).is_some_and(|work| !work.lagging);
                    let is_open = self.shown.bundles.get(&work).is_some_and(|shown| is_open(shown.status));
                    count += u64::from(counts && is_open);
                }
            }
            if count > 0 {
                holding.push((ancestor, date, count));
            }
        }
        holding
    }

    /// A bundle is acknowledged as it comes to be where its producer is there, and notified again of each new
    /// generation, and of each change of its group, that comes while it is not.
    fn acknowledge(&mut self, name: &BundleName, edges: &BTreeSet<EdgeName>) {
        let producer = &self.facts.producers[name.0.at()];
        let rose = edges.iter().any(|(_, cell)| self.shown.cells[cell].rose);
        let members = edges.iter().filter(|(at, _)| producer.port(*at).mode == Mode::Required);
        let members: BTreeSet<EdgeName> = members.filter(|_| producer.is_group()).cloned().collect();
        let attached = producer.attached;
        let work = self.facts.works.entry(name.clone()).or_default();
        let moved = work.members != members;
        work.members = members;
        work.acknowledged = attached || (work.acknowledged && !rose && !moved);
        // The edges of a group follow the members that there are; one that comes back has read nothing.
        work.read.cells.retain(|edge, _| edges.contains(edge));
    }

    fn edge_class(&self, name: &BundleName, work: &Work, edge: &EdgeName) -> Class {
        let source = &self.shown.cells[&edge.1];
        let port = self.facts.producers[name.0.at()].port(edge.0);
        let there = source.is_there(port);
        let changed = work.read.cells.get(edge).copied() != there.then_some(source.g);
        let class = Class::default();
        match (source.standing.view, port.mode) {
            (View::Waiting, mode) => Class {
                maybe: true,
                held: !source.lagging || mode == Mode::Exclusive,
                changed: source.lagging && changed,
                ..class
            },
            (_, Mode::Required) if !there => Class { blocked: true, gone: source.standing.gone, ..class },
            (_, Mode::Exclusive) if there => Class { unsatisfiable: true, gone: true, ..class },
            _ => Class { changed, ..class },
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
        producer.required().map(|(at, _)| class(at)).collect()
    }

    /// `lacks`: whether it waits for members.
    fn status(&self, name: &BundleName, work: &Work, counts: Counts, lacks: bool) -> PStatus {
        let has_work = work.ending.is_none() || counts.changed > 0 || work.forced;
        let producer = &self.facts.producers[name.0.at()];
        let mut dates = producer.required().map(|(_, port)| port.date(name.1));
        let closed = !producer.awaits_all() || dates.all(|date| self.facts.ends.contains(&date));
        let closed = (closed || work.is_cut) && !lacks;
        match work.ending {
            _ if work.running.is_some() => PStatus::Processing,
            _ if has_work && !work.acknowledged => PStatus::Notified,
            _ if has_work && counts.held == 0 && !counts.forbid() && closed => match work.waits {
                Some(_) => PStatus::RetryWait,
                None => PStatus::Ready,
            },
            _ if has_work || counts.forbid() => PStatus::Parked,
            Some(Ending::Data) => PStatus::Done,
            Some(Ending::Declined) => PStatus::Declined,
            Some(Ending::Cancelled) => PStatus::Cancelled,
            Some(Ending::Failed) | None => PStatus::Failed,
        }
    }

    fn cell(&mut self, name: &CellName) {
        if self.shown.cells.contains_key(name) {
            return;
        }
        self.owners(&self.facts.cells[name].candidates.clone());
        let cell = &self.facts.cells[name];
        let standing = self.shown.standing(&cell.candidates);

        // A result whose inputs had moved by then lets readers in until the cell settles.
        let caught = cell.candidates.iter().any(|(priority, candidate)| {
            let given = self.given.contains(&(name.clone(), *priority));
            let moving = self.shown.counts(candidate).is_moving();
            given && moving && standing.sound.is_none_or(|sound| *priority >= sound)
        });
        let kept = cell.lagging && cell.effective == standing.effective;
        let lagging = standing.view == View::Waiting && standing.sound.is_some() && (caught || kept);

        let member = standing.effective.is_some() && !standing.gone;
        let rose = standing.content != cell.content;
        let cell = self.facts.cells.get_mut(name).unwrap();
        cell.g += u64::from(rose);
        (cell.effective, cell.content) = (standing.effective, standing.content);
        cell.lagging = lagging;
        let g = self.facts.cells[name].g;
        let shown = CellShown { standing, g, lagging, member, rose };
        self.shown.cells.insert(name.clone(), shown);
    }

    /// Looks at the bundles that made these candidates.
    fn owners(&mut self, candidates: &BTreeMap<i32, Candidate>) {
        for owner in candidates.values().filter_map(|candidate| candidate.owner.as_ref()) {
            if !self.facts.producers[owner.0.at()].deregistered {
                self.bundle(owner);
            }
        }
    }
}

impl Candidate {
    pub fn rests_on(&self, edge: &EdgeName) -> bool {
        self.uses.as_ref().is_none_or(|uses| uses.contains(edge))
    }

    pub fn rests_on_input(&self, at: usize) -> bool {
        self.uses.as_ref().is_none_or(|uses| uses.iter().any(|(input, _)| *input == at))
    }
}

impl Counts {
    /// Whether inputs that have settled forbid a start.
    pub fn forbid(&self) -> bool {
        self.blocked + self.unsatisfiable > 0
    }

    fn is_moving(&self) -> bool {
        self.changed + self.maybe > 0
    }
}

/// Ready, processing or waiting to be tried again, or not acknowledged: what keeps a scope open.
fn is_open(status: PStatus) -> bool {
    matches!(status, PStatus::Ready | PStatus::Processing | PStatus::Notified | PStatus::RetryWait)
}

impl Shown {
    /// The bundle that makes a candidate; none of what a client gave, or a producer that is no more.
    pub(super) fn owner(&self, candidate: &Candidate) -> Option<&BundleShown> {
        candidate.owner.as_ref().and_then(|owner| self.bundles.get(owner))
    }

    /// How many edges on which a candidate rests are of each class; scopes belong to the inputs on which it rests.
    fn counts(&self, candidate: &Candidate) -> Counts {
        let Some(owner) = self.owner(candidate) else { return Counts::default() };
        if self.rests_on_all(candidate, owner) { owner.counts } else { self.counts_of_uses(candidate, owner) }
    }

    /// Whether it rests on all edges of its bundle: on those that it names alone it does not where it is to be made anew and
    /// another input forbids that.
    fn rests_on_all(&self, candidate: &Candidate, owner: &BundleShown) -> bool {
        let counts = self.counts_of_uses(candidate, owner);
        let again = (counts.changed > 0 || owner.forced) && owner.status != PStatus::Processing;
        candidate.uses.is_none() || (owner.counts.forbid() && counts.maybe == 0 && again)
    }

    fn counts_of_uses(&self, candidate: &Candidate, owner: &BundleShown) -> Counts {
        let mut counts = owner.of_all;
        let rests_on = |edge: &&EdgeName| candidate.rests_on(edge) && !owner.exclusive.contains(*edge);
        owner.edges.iter().filter(rests_on).for_each(|edge| counts.add(owner.cells[edge]));
        let scopes = owner.scopes.iter().filter(|(at, _)| candidate.rests_on_input(**at));
        scopes.for_each(|(_, class)| counts.add(*class));
        counts
    }

    /// The inputs that are not usable and on which it rests that a cell is not.
    pub(super) fn lost_inputs(
        &self,
        candidates: &BTreeMap<i32, Candidate>,
        effective: Option<i32>,
    ) -> Vec<CellName> {
        let made = || candidates.values().rev().find(|candidate| candidate.owner.is_some());
        let effective = effective.map(|priority| &candidates[&priority]);
        let Some(candidate) = effective.or_else(made) else { return Vec::new() };
        let Some(owner) = self.owner(candidate) else { return Vec::new() };
        let all = self.rests_on_all(candidate, owner);
        let rests_on = |edge: &EdgeName| all || candidate.rests_on(edge);
        let blocked = owner.cells.iter().filter(|(edge, class)| class.blocked && rests_on(edge));
        blocked.map(|((_, cell), _)| cell.clone()).collect()
    }

    /// Views, and which candidate is effective. With none sound, any that is unsettled makes the cell so.
    fn standing(&self, candidates: &BTreeMap<i32, Candidate>) -> Standing {
        let highest = |fits: &dyn Fn(&Candidate) -> bool| {
            candidates.iter().rev().find(|(_, candidate)| fits(candidate)).map(|(priority, _)| *priority)
        };
        let sound = highest(&|candidate| self.is_sound(candidate));
        let effective = sound.or_else(|| highest(&|c| c.content.is_some() || c.error));
        let unsettled = candidates.iter().filter(|(_, candidate)| self.is_unsettled(candidate));
        let unsettled = unsettled.map(|(priority, _)| *priority);
        let unsettled: Vec<i32> =
            unsettled.filter(|priority| sound.is_none_or(|sound| *priority >= sound)).collect();
        let better = |priority: &&i32| effective.is_none_or(|effective| **priority > effective);
        let better = unsettled.iter().filter(better).copied().collect();
        let view = match sound {
            _ if !unsettled.is_empty() => View::Waiting,
            Some(_) => View::Usable,
            None => View::Unusable,
        };
        let content = effective.and_then(|priority| candidates[&priority].content);
        let invalid = effective.is_some_and(|priority| self.is_invalid(&candidates[&priority]));
        let gone = view == View::Unusable && candidates.values().all(|c| self.is_gone(c));
        Standing { view, effective, sound, content, invalid, gone, better }
    }

    fn is_sound(&self, candidate: &Candidate) -> bool {
        candidate.content.is_some() && !candidate.error && !candidate.aged && !self.counts(candidate).forbid()
    }

    fn is_unsettled(&self, candidate: &Candidate) -> bool {
        self.owner(candidate).is_some_and(|owner| {
            let active = matches!(owner.status, PStatus::Ready | PStatus::Processing | PStatus::RetryWait);
            let counts = self.counts(candidate);
            !counts.forbid() && (counts.is_moving() || owner.forced || active)
        })
    }

    fn is_invalid(&self, candidate: &Candidate) -> bool {
        let again = self.owner(candidate).is_some_and(|owner| owner.forced);
        candidate.error && !again && self.counts(candidate).changed == 0
    }

    fn is_gone(&self, candidate: &Candidate) -> bool {
        let rests_on_nothing = self.counts(candidate).gone > 0;
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
            let producer = &self.facts.producers[listener.0.at()];
            for edge in bundle.edges.iter().filter(|(at, _)| producer.port(*at).mode != Mode::Exclusive) {
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
        let Some(effective) = shown.standing.effective else { return State::Void };
        let candidate = &self.facts.cells[name].candidates[&effective];
        let owner = self.shown.owner(candidate);
        let counts = self.shown.counts(candidate);
        let forced = owner.is_some_and(|owner| owner.forced);
        let mut statuses = obligations.iter().filter(|row| row.cell == *name).map(|row| row.status);
        if shown.standing.invalid {
            State::Invalid
        } else if candidate.content.is_none() {
            State::Void
        } else if counts.is_moving()
            || counts.forbid()
            || candidate.aged
            || forced
            || !shown.standing.better.is_empty()
        {
            State::Stale
        } else if statuses.clone().any(|status| status == PStatus::Notified) {
            State::Updated
        } else if statuses
            .any(|status| matches!(status, PStatus::Ready | PStatus::Processing | PStatus::RetryWait))
        {
            State::Pending
        } else {
            State::Current
        }
    }
}
