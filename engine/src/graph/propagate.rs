//! The pass that brings classes, views, statuses and states up to date after facts changed.
//!
//! The name graph has no cycle, so every slot and producer has a rank above all that it depends on. Dirty cells
//! and bundles are settled by rising rank: when one is settled, everything that it depends on is final, so each
//! is settled at most once, and only what changed is visited. States come last, as they look at listeners.

use std::collections::BTreeSet;
use std::mem;

use super::Graph;
use super::bundle::Bundle;
use super::cell::Moment;
use super::class::{Class, Need, Seen, Shown, Sight};
use super::edges::EdgeKey;
use super::effect::{Effects, Superseded, Transition};
use super::ids::{BundleId, CellId, ContentId, ProducerId, SlotDate};
use super::key::Key;
use super::state::{PStatus, State};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    Cell(CellId),
    Bundle(BundleId),
}

/// One pass.
pub(super) struct Pass {
    pub moment: Moment,
    pub effects: Effects,
    /// Candidates (cell, priority) that got data in this event.
    pub written: BTreeSet<(CellId, i32)>,
    /// Rebuilding from facts: they are as they should be and must not move, and everything is settled once anyway.
    pub rebuilding: bool,
    /// A cell whose facts do not follow from those of its candidates, when rebuilding.
    pub contradiction: Option<CellId>,
    queue: BTreeSet<(u32, Node)>,
    /// Cells whose state may differ, by rank.
    restate: BTreeSet<(u32, CellId)>,
    /// Cells whose generation rose.
    risen: BTreeSet<CellId>,
}

impl Pass {
    pub fn new(moment: Moment) -> Pass {
        Pass {
            moment,
            effects: Effects::default(),
            written: BTreeSet::new(),
            rebuilding: false,
            contradiction: None,
            queue: BTreeSet::new(),
            restate: BTreeSet::new(),
            risen: BTreeSet::new(),
        }
    }

    /// A candidate's content changed.
    pub fn note_contents(&mut self, before: Option<ContentId>, now: Option<ContentId>) {
        if before != now {
            self.effects.released.extend(before);
            self.effects.held.extend(now);
        }
    }
}

impl Graph {
    pub(super) fn touch_cell(&self, pass: &mut Pass, cell: CellId) {
        if pass.rebuilding {
            return;
        }
        pass.queue.insert((self.rank_of_cell(cell), Node::Cell(cell)));
    }

    pub(super) fn touch_bundle(&self, pass: &mut Pass, bundle: BundleId) {
        if pass.rebuilding {
            return;
        }
        let producer = self.bundles[bundle.at()].producer;
        pass.queue.insert((self.producers[producer.at()].rank, Node::Bundle(bundle)));
    }

    fn rank_of_cell(&self, cell: CellId) -> u32 {
        self.slots[self.cells[cell.at()].slot.at()].rank
    }

    /// Makes a bundle of these cells, each with its input.
    pub(super) fn create_bundle(
        &mut self,
        pass: &mut Pass,
        producer: ProducerId,
        date: SlotDate,
        key: Key,
        members: impl IntoIterator<Item = (u16, CellId)>,
    ) -> BundleId {
        let id = BundleId(self.bundles.len() as u32);
        let owner = &mut self.producers[producer.at()];
        let scopes = if owner.is_group() { owner.inputs.len() } else { 0 };
        owner.bundles.insert((date, key.clone()), id);
        let mut bundle = Bundle::new(producer, date, key, scopes);
        bundle.unseen = owner.unseen();
        self.bundles.push(bundle);
        self.bundle_mut(id);
        for (input, source) in members {
            self.add_edge(pass, id, EdgeKey { source, input });
        }
        self.touch_bundle(pass, id);
        id
    }

    /// What the input of an edge asks of its source.
    fn need(&self, producer: ProducerId, input: u16) -> Need {
        self.producers[producer.at()].needs.get(usize::from(input)).copied().unwrap_or_default()
    }

    pub(super) fn add_edge(&mut self, pass: &mut Pass, bundle: BundleId, key: EdgeKey) {
        let need = self.need(self.bundles[bundle.at()].producer, key.input);
        let target = &mut self.bundles[bundle.at()];
        let source = &mut self.cells[key.source.at()];
        if !target.edges.insert(key) {
            return;
        }
        target.counters.add(need.class(None, source.seen()));
        source.readers.insert(bundle);
        let shown = Shown::of(need.mode, target.status, None, source.g);
        self.show(pass, key.source, Shown::Quiet, shown);
    }

    fn remove_edge(&mut self, pass: &mut Pass, bundle: BundleId, key: EdgeKey) {
        let need = self.need(self.bundles[bundle.at()].producer, key.input);
        // Of an edge, its token alone is a fact.
        if self.bundles[bundle.at()].edges.of(key.source).any(|(at, token)| at == key && token.is_some()) {
            self.bundle_mut(bundle);
        }
        let target = &mut self.bundles[bundle.at()];
        let source = &mut self.cells[key.source.at()];
        let Some(token) = target.edges.remove(key) else { return };
        target.counters.remove(need.class(token, source.seen()));
        if target.edges.of(key.source).next().is_none() {
            source.readers.remove(bundle);
        }
        let shown = Shown::of(need.mode, target.status, token, source.g);
        self.show(pass, key.source, shown, Shown::Quiet);
    }

    /// A source looks different: moves the counters of a bundle that reads it, and what its edges show.
    fn reclassify(&mut self, bundle: BundleId, source: CellId, before: Seen, now: Seen) {
        let target = &mut self.bundles[bundle.at()];
        let needs = &self.producers[target.producer.at()].needs;
        let cell = &mut self.cells[source.at()];
        for (key, token) in target.edges.of(source) {
            let need = needs.get(usize::from(key.input)).copied().unwrap_or_default();
            target.counters.shift(need.class(token, before), need.class(token, now));
            let shown = |g| Shown::of(need.mode, target.status, token, g);
            cell.move_shown(shown(before.g), shown(now.g));
        }
    }

    /// Gives the edges of a bundle what its run read, and moves its counters.
    pub(super) fn retoken(&mut self, bundle: BundleId, read: &[(EdgeKey, u64)]) {
        let target = &mut self.bundles[bundle.at()];
        let needs = &self.producers[target.producer.at()].needs;
        let (cells, counters) = (&self.cells, &mut target.counters);
        let mut left = read.iter().peekable();
        target.edges.retoken(|key, before| {
            while left.next_if(|(at, _)| *at < key).is_some() {}
            let now = left.next_if(|(at, _)| *at == key).map(|(_, g)| *g);
            let need = needs.get(usize::from(key.input)).copied().unwrap_or_default();
            let seen = cells[key.source.at()].seen();
            counters.shift(need.class(before, seen), need.class(now, seen));
            now
        });
    }

    /// A bundle's status changed: its edges show it to their sources.
    fn reshow(&mut self, pass: &mut Pass, bundle: BundleId, before: PStatus, now: PStatus) {
        let edges = mem::take(&mut self.bundles[bundle.at()].edges);
        let producer = self.bundles[bundle.at()].producer;
        for (key, token) in edges.iter() {
            let (mode, g) = (self.need(producer, key.input).mode, self.cells[key.source.at()].g);
            let shown = |status| Shown::of(mode, status, token, g);
            self.show(pass, key.source, shown(before), shown(now));
        }
        self.bundles[bundle.at()].edges = edges;
    }

    fn show(&mut self, pass: &mut Pass, cell: CellId, from: Shown, to: Shown) {
        if from != to {
            self.cells[cell.at()].move_shown(from, to);
            self.restate(pass, cell);
        }
    }

    fn restate(&self, pass: &mut Pass, cell: CellId) {
        if !pass.rebuilding {
            pass.restate.insert((self.rank_of_cell(cell), cell));
        }
    }

    /// Settles everything that was touched, then derives states.
    pub(super) fn settle(&mut self, pass: &mut Pass) {
        while let Some((_, node)) = pass.queue.pop_first() {
            match node {
                Node::Cell(cell) => self.settle_cell(pass, cell),
                Node::Bundle(bundle) => self.settle_bundle(pass, bundle),
            }
        }
        for (_, cell) in mem::take(&mut pass.restate) {
            self.settle_state(pass, cell);
        }
    }

    pub(super) fn settle_cell(&mut self, pass: &mut Pass, id: CellId) {
        let cell = &self.cells[id.at()];
        let standing = cell.standing(&self.bundles);
        let effective = standing.effective.and_then(|at| cell.candidates.get(at));
        let priority = effective.map(|c| c.priority);
        let content = effective.and_then(|c| c.content);
        let own = effective.map(|c| c.counters(&self.bundles)).unwrap_or_default();
        let written = priority.is_some_and(|p| pass.written.contains(&(id, p)));
        let latched = cell.lagging && cell.effective == priority;
        let caught = written && own.is_moving();
        let waiting = standing.sight == Sight::Waiting;
        let lagging = waiting && standing.sound && (latched || caught);
        let sight = if lagging { Sight::Lagging } else { standing.sight };
        let is_member = priority.is_some() && !standing.gone;

        let cell = &self.cells[id.at()];
        let rises = cell.content != content;
        let verifies = written || (rises && content.is_some());
        let facts_change =
            cell.effective != priority || cell.lagging != lagging || cell.member != is_member || rises;
        let before = cell.seen();
        if rises && cell.g > 0 {
            let (seq, g, content) = (cell.changed.seq, cell.g, cell.content);
            pass.effects.superseded.push(Superseded { cell: id, seq, g, content });
        }
        if facts_change && pass.rebuilding {
            pass.contradiction = Some(id);
        }
        let cell = match facts_change || verifies {
            true => self.cell_mut(id),
            false => &mut self.cells[id.at()],
        };
        cell.effective = priority;
        cell.sight = sight;
        cell.lagging = lagging;
        cell.gone = standing.gone;
        let was_member = mem::replace(&mut cell.member, is_member);
        if rises {
            cell.content = content;
            cell.g = cell.g.saturating_add(1);
            cell.changed = pass.moment;
            pass.risen.insert(id);
            pass.effects.contents.push((id, content, cell.g));
        }
        if verifies {
            cell.verified = pass.moment;
        }
        let now = cell.seen();
        if now != before {
            let readers = mem::take(&mut cell.readers);
            for bundle in readers.iter() {
                if rises {
                    self.notify(bundle);
                }
                self.reclassify(bundle, id, before, now);
                self.touch_bundle(pass, bundle);
            }
            self.cells[id.at()].readers = readers;
        }
        if was_member != is_member && !pass.rebuilding {
            self.move_member(pass, id, is_member);
        }
        self.restate(pass, id);
    }

    /// New work arrived: a detached producer has not seen it.
    fn notify(&mut self, bundle: BundleId) {
        let target = &self.bundles[bundle.at()];
        let unseen = self.producers[target.producer.at()].unseen();
        if target.unseen != unseen {
            self.bundle_mut(bundle).unseen = unseen;
        }
    }

    /// A cell became a member of its scope, or stopped being one.
    fn move_member(&mut self, pass: &mut Pass, id: CellId, is_member: bool) {
        let cell = &self.cells[id.at()];
        let (date, slot) = (cell.date, cell.slot);
        let scope = self.scope_mut(slot, date);
        scope.g += 1;
        if is_member {
            scope.members.insert(id);
        } else {
            scope.members.remove(&id);
        }
        for (producer, input) in self.slots[slot.at()].readers.clone() {
            if !self.producers[producer.at()].is_group() {
                continue;
            }
            let existing = self.producers[producer.at()].bundles.get(&(date, Key::empty())).copied();
            let key = EdgeKey { source: id, input };
            match existing {
                Some(bundle) if is_member => self.add_edge(pass, bundle, key),
                Some(bundle) => self.remove_edge(pass, bundle, key),
                None if is_member => {
                    self.create_bundle(pass, producer, date, Key::empty(), [(input, id)]);
                }
                None => {}
            }
            if let Some(bundle) = existing {
                self.notify(bundle);
                self.touch_bundle(pass, bundle);
            }
        }
    }

    /// The class of a group's edge from the scope of one of its inputs: waiting while there is open work
    /// upstream, so that what reads the group waits for keys that are still on their way.
    pub(super) fn scope_class(&self, bundle: &Bundle, input: usize, open: bool) -> Class {
        let producer = &self.producers[bundle.producer.at()];
        let scope = self.slots[producer.inputs[input].at()].scopes.get(&bundle.date);
        let Some(scope) = scope.filter(|scope| open || !scope.members.is_empty()) else {
            return Class { maybe: open, held: open, blocked: !open, gone: !open, ..Class::CLEAN };
        };
        if open {
            Class { maybe: true, held: true, ..Class::CLEAN }
        } else {
            Class { changed: bundle.scopes[input].token != Some(scope.g), ..Class::CLEAN }
        }
    }

    pub(super) fn settle_bundle(&mut self, pass: &mut Pass, id: BundleId) {
        let bundle = &self.bundles[id.at()];
        let (producer, date) = (bundle.producer, bundle.date);
        if !bundle.scopes.is_empty() {
            let open = self.open_work(producer, date) > 0;
            for input in 0..bundle.scopes.len() {
                let class = self.scope_class(&self.bundles[id.at()], input, open);
                let bundle = &mut self.bundles[id.at()];
                let before = mem::replace(&mut bundle.scopes[input].class, class);
                bundle.counters.shift(before, class);
            }
        }
        let owner = &self.producers[producer.at()];
        let attached = owner.attached;
        let ended = !owner.is_group() || self.ends.contains(&date);
        let bundle = &mut self.bundles[id.at()];
        let status = bundle.derive_status(owner.acknowledges(bundle), ended);
        let before = mem::replace(&mut bundle.status, status);
        let face = bundle.derive_face();
        let face_changed = mem::replace(&mut bundle.face, face) != face;
        if status.is_open() && !before.is_open() && !pass.rebuilding {
            let order = self.next_order;
            self.next_order += 1;
            self.bundle_mut(id).order = order;
        }
        let bundle = &self.bundles[id.at()];
        let order = bundle.order;
        if face_changed {
            for cell in bundle.outputs.iter().copied().collect::<Vec<_>>() {
                self.touch_cell(pass, cell);
            }
        }
        if status == PStatus::Ready && attached {
            if self.ready.insert(order, id).is_none() {
                pass.effects.ready.push(id);
            }
        } else {
            self.ready.remove(&order);
        }
        if status.is_open() != before.is_open() {
            self.move_open(pass, id, status.is_open());
        }
        if status != before {
            self.reshow(pass, id, before, status);
        }
    }

    /// A bundle's work opened or closed: groups behind its producer look at their scopes again.
    fn move_open(&mut self, pass: &mut Pass, id: BundleId, opens: bool) {
        let bundle = &self.bundles[id.at()];
        let (producer, date) = (bundle.producer, bundle.date);
        let owner = &mut self.producers[producer.at()];
        let count = owner.open.entry(date).or_insert(0);
        let before = *count;
        if opens {
            *count += 1;
            owner.open_bundles.insert(id);
        } else {
            *count -= 1;
            owner.open_bundles.remove(&id);
        }
        if *count == 0 {
            owner.open.remove(&date);
        }
        if before == 0 || (before == 1 && !opens) {
            for group in owner.groups_downstream.clone() {
                if let Some(bundle) = self.producers[group.at()].bundles.get(&(date, Key::empty())).copied() {
                    self.touch_bundle(pass, bundle);
                }
            }
        }
    }

    pub(super) fn settle_state(&mut self, pass: &mut Pass, id: CellId) {
        let cell = &self.cells[id.at()];
        let (from, to, g) = (cell.state, cell.derive_state(&self.bundles), cell.g);
        let slot = cell.slot;
        // New data is always seen as updated first, also where every listener acknowledges it at once.
        let announced = pass.risen.contains(&id)
            && cell.content.is_some()
            && matches!(to, State::Updated | State::Pending | State::Current);
        if announced {
            pass.effects.transitions.push(Transition { cell: id, from, to: State::Updated, g });
        }
        let seen = if announced { State::Updated } else { from };
        if seen != to && !pass.rebuilding {
            pass.effects.transitions.push(Transition { cell: id, from: seen, to, g });
        }
        self.cells[id.at()].state = to;
        if from != to {
            let counts = &mut self.slots[slot.at()].states.counts;
            counts[from as usize] -= 1;
            counts[to as usize] += 1;
        }
    }
}
