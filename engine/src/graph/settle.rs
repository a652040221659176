//! Brings classes, views, statuses and states up to date after facts changed.
//!
//! Every cell and bundle has a place above all that it depends on. Those that were touched are settled by rising
//! place: when one is settled, everything that it depends on is final, so each is settled at most once, and only what
//! changed is visited. States come last, as they look at listeners.

use std::mem;

use super::Graph;
use super::candidate::Owner;
use super::cell::Cell;
use super::class::{Class, Counters, Sight};
use super::definition::Mode;
use super::edges::EdgeKey;
use super::effect::{Superseded, Transition};
use super::hold::Holding;
use super::ids::{BundleId, CellId};
use super::order::{Lane, Node};
use super::pass::Pass;
use super::state::{PStatus, State};

/// Cells from which on the list of their changes is given its room at once.
const LONG: usize = 1_000;

impl Graph {
    /// Settles everything that was touched, then derives states.
    pub(super) fn settle(&mut self, pass: &mut Pass) {
        while let Some(bucket) = pass.queue.take() {
            for cell in &bucket.cells {
                pass.queue.release(Node::Cell(*cell));
                match self.place_of_cell(*cell) {
                    now if now > bucket.place => pass.queue.push(now, Node::Cell(*cell)),
                    _ => self.settle_cell(pass, *cell),
                }
            }
            for bundle in &bucket.bundles {
                pass.queue.release(Node::Bundle(*bundle));
                match self.place_of_bundle(*bundle) {
                    now if now > bucket.place => pass.queue.push(now, Node::Bundle(*bundle)),
                    _ => self.settle_bundle(pass, *bundle),
                }
            }
            pass.queue.give_back(bucket);
        }
        let restated = pass.queue.restated();
        if restated > LONG && !pass.rebuilding {
            pass.effects.transitions.reserve(restated);
        }
        let mut number = 0;
        while let Some(cells) = pass.queue.take_restated(number) {
            cells.iter().for_each(|cell| self.settle_state(pass, *cell));
            pass.queue.give_back_restated(number, cells);
            number += 1;
        }
        pass.queue.end();
    }

    pub(super) fn settle_cell(&mut self, pass: &mut Pass, id: CellId) {
        let (cell, sheet) = (&self.cells[id.at()], &self.sheets[id.at()]);
        let standing = sheet.standing(&self.tallies);
        let effective = standing.effective.and_then(|at| sheet.candidates.get(at));
        let priority = effective.map(|c| c.priority);
        let written = effective.is_some_and(|c| c.written);
        let latched = cell.lagging && sheet.effective == priority;
        let answered = sheet.candidates.iter().any(|candidate| candidate.answered || candidate.written);
        // Of a better candidate too, which gave nothing: nobody waits for more than one result of what never rests.
        let caught = answered
            && sheet.candidates.iter().any(|candidate| {
                let counts = priority.is_none_or(|priority| candidate.priority >= priority);
                candidate.answered && counts && candidate.counters(&self.tallies).is_moving()
            });
        let waiting = standing.sight == Sight::Waiting;
        let lagging = waiting && standing.sound && (latched || caught);
        let sight = if lagging { Sight::Lagging } else { standing.sight };
        let is_member = priority.is_some() && !standing.gone;
        let fixed = Cell::fixed_state(effective, &standing, &self.tallies);

        let replaced = pass.replaced(id);
        let switches = sheet.effective != priority;
        let (mut rises, mut content, mut content_before) = (false, None, None);
        if replaced.is_some() || switches {
            content = effective.and_then(|c| c.content);
            content_before = replaced.unwrap_or_else(|| sheet.content());
            rises = content_before != content;
        }
        let verifies = written || (rises && content.is_some());
        let facts_change = switches || cell.lagging != lagging || cell.member != is_member || rises;
        let before = cell.seen();
        if rises && cell.g > 0 {
            let (seq, g, content) = (sheet.changed.seq, cell.g, content_before);
            pass.effects.superseded.push(Superseded { cell: id, seq, g, content });
        }
        if facts_change && pass.rebuilding {
            pass.contradiction = Some(id);
        }
        if facts_change || verifies {
            self.note_cell(id);
        }
        let (cell, sheet) = (&mut self.cells[id.at()], &mut self.sheets[id.at()]);
        if answered {
            for candidate in sheet.candidates.iter_mut() {
                (candidate.written, candidate.answered) = (false, false);
            }
        }
        if switches {
            sheet.effective = priority;
        }
        cell.sight = sight;
        cell.lagging = lagging;
        cell.gone = standing.gone;
        cell.fixed = fixed;
        let was_member = mem::replace(&mut cell.member, is_member);
        if rises {
            cell.g = cell.g.saturating_add(1);
            sheet.changed = pass.moment;
            pass.queue.rise(id);
            pass.effects.contents.push((id, content, cell.g));
        }
        if verifies {
            sheet.verified = pass.moment;
        }
        let now = cell.seen();
        if now != before {
            self.reclassify(pass, id, before, now);
        }
        if was_member != is_member && !pass.rebuilding {
            self.move_member(pass, id, is_member);
        }
        self.restate(pass, id);
    }

    /// New work arrived: a detached producer has not seen it.
    pub(super) fn notify(&mut self, bundle: BundleId) {
        let target = &self.bundles[bundle.at()];
        let unseen = self.producers[target.producer.at()].unseen();
        if target.unseen != unseen {
            self.bundle_mut(bundle).unseen = unseen;
        }
    }

    pub(super) fn settle_bundle(&mut self, pass: &mut Pass, id: BundleId) {
        let producer = self.tallies[id.at()].producer;
        if self.producers[producer.at()].is_group() {
            self.settle_scopes(id);
        }
        self.settle_outer(id);
        let owner = &self.producers[producer.at()];
        let (attached, deregistered) = (owner.attached, owner.deregistered);
        let acknowledged = owner.acknowledges(&self.bundles[id.at()]);
        let ended = (!owner.awaits_all() || self.missing_ends(&self.bundles[id.at()]).is_empty())
            && !self.awaits_quorum(id);
        let tally = &mut self.tallies[id.at()];
        if mem::replace(&mut tally.moved, false) {
            tally.work = self.bundles[id.at()].work();
        }
        let status = match deregistered {
            true => PStatus::Parked,
            false => tally.derive_status(acknowledged, ended),
        };
        let before = mem::replace(&mut tally.status, status);
        let face = tally.derive_face();
        let face_changed = mem::replace(&mut tally.face, face) != face;
        let has_uses = tally.work.has_uses;
        let opens = status.is_open() && !before.is_open();
        // What waits as a backfill and changes now is one no more.
        let is_urged = status.is_open()
            && !opens
            && pass.lane == Some(Lane::Live)
            && self.tallies[id.at()].lane == Lane::Backfill;
        if (opens || is_urged) && !pass.rebuilding {
            if is_urged {
                self.leave_queue(id);
            }
            let order = self.next_order(pass);
            self.set_order(id, order);
        }
        if status == PStatus::Ready && before != PStatus::Ready && !pass.rebuilding {
            let bundle = self.bundle_mut(id);
            bundle.ready_at = pass.moment.time;
        }
        if has_uses {
            self.settle_uses(pass, id, status != before);
        }
        if face_changed {
            for cell in self.tallies[id.at()].outputs.iter() {
                self.touch_output(pass, producer, cell);
            }
        }
        if status == PStatus::Ready && attached {
            if self.enter_queue(id) && !(is_urged && before == PStatus::Ready) {
                pass.effects.ready.push(id);
            }
        } else if before == PStatus::Ready && self.leave_queue(id) {
            // One that is held by work which is settled behind it was ready for a moment.
            pass.effects.ready.retain(|ready| *ready != id);
        }
        if status.is_open() != before.is_open() {
            self.move_open(id, status.is_open());
        }
        self.settle_holding(pass, id, status.is_open());
        if status != before {
            let statuses = &mut self.producers[producer.at()].statuses;
            statuses[before.place()] -= 1;
            statuses[status.place()] += 1;
            self.reshow(pass, id, before, status);
        }
    }

    /// Counts the classes of the edges on which single outputs rest.
    fn settle_uses(&mut self, pass: &mut Pass, id: BundleId, status_moved: bool) {
        let producer = self.tallies[id.at()].producer;
        let classes: Vec<(EdgeKey, Class)> = self.classes(id).collect();
        for cell in self.tallies[id.at()].outputs.clone().iter() {
            let found = self.sheets[cell.at()].candidates.iter().position(|c| c.owner == Owner::Bundle(id));
            let Some(at) = found else { continue };
            let Some(uses) = &self.sheets[cell.at()].candidates[at].uses else { continue };
            let counters = self.counters_of(id, &classes, &uses.edges);
            let moved = uses.counters != counters;
            if let Some(uses) = &mut self.sheets[cell.at()].candidates[at].uses {
                uses.counters = counters;
            }
            if moved || status_moved {
                self.touch_output(pass, producer, cell);
            }
        }
    }

    /// Counts of the classes of some edges of a bundle, of the scopes to which they belong, of exclusive inputs, and of what
    /// else holds it. `classes`: those of all its edges.
    fn counters_of(&self, id: BundleId, classes: &[(EdgeKey, Class)], edges: &[EdgeKey]) -> Counters {
        let bundle = &self.bundles[id.at()];
        let producer = &self.producers[bundle.producer.at()];
        let is_exclusive = |edge: EdgeKey| producer.need(edge.input).mode == Mode::Exclusive;
        let mut counters = bundle.outer;
        if producer.needs.iter().any(|need| need.mode == Mode::Exclusive) {
            classes
                .iter()
                .filter(|(edge, _)| is_exclusive(*edge))
                .for_each(|(_, class)| counters.add(*class));
        }
        for edge in edges.iter().filter(|edge| !is_exclusive(**edge)) {
            if let Ok(at) = classes.binary_search_by_key(edge, |(edge, _)| *edge) {
                counters.add(classes[at].1);
            }
        }
        for (scope, (input, _)) in bundle.scopes.iter().zip(producer.required()) {
            if edges.iter().any(|edge| edge.input == input) {
                counters.add(scope.class);
            }
        }
        counters
    }

    /// Counts better candidates of cells that a bundle fills in, and what holds it.
    fn settle_outer(&mut self, id: BundleId) {
        let tally = &self.tallies[id.at()];
        let producer = &self.producers[tally.producer.at()];
        if producer.above.is_empty() && producer.holds.is_empty() && !tally.has_outer {
            return;
        }
        let mut outer = Counters::default();
        self.classes_above(id).into_iter().for_each(|(_, class)| outer.add(class));
        if self.held_by(id, false).next().is_some() {
            outer.add(Class { maybe: true, held: true, ..Class::CLEAN });
        }
        // It says nothing of what is there: the bundle's own inputs may be as they were.
        if producer.is_dependent() && !producer.is_group() && self.held_by(id, true).next().is_some() {
            outer.add(Class { held: true, ..Class::CLEAN });
        }
        let was = mem::replace(&mut self.bundles[id.at()].outer, outer);
        let tally = &mut self.tallies[id.at()];
        tally.counters.exchange(was, outer);
        tally.has_outer = outer != Counters::default();
    }

    /// A bundle lags until it settles; its open work holds others unless it lags.
    fn settle_holding(&mut self, pass: &mut Pass, id: BundleId, is_open: bool) {
        let tally = &mut self.tallies[id.at()];
        let was_lagging = tally.work.lagging;
        let lagging = was_lagging && tally.counters.is_moving();
        let holding = Holding { open: is_open, lagging };
        let moves = tally.holding != holding;
        tally.work.lagging = lagging;
        if lagging != was_lagging {
            self.bundle_mut(id).lagging = lagging;
        }
        if moves {
            self.move_holding(pass, id, holding);
        }
    }

    /// A bundle's work opened or closed.
    fn move_open(&mut self, id: BundleId, opens: bool) {
        let owner = &mut self.producers[self.bundles[id.at()].producer.at()];
        if opens {
            owner.open_bundles.insert(id);
        } else {
            owner.open_bundles.remove(&id);
        }
    }

    pub(super) fn settle_state(&mut self, pass: &mut Pass, id: CellId) {
        let cell = &self.cells[id.at()];
        let (from, to, g) = (cell.state, cell.derive_state(), cell.g);
        let slot = cell.slot;
        let risen = pass.queue.take_risen(id);
        // New data is always seen as updated first, also where every listener acknowledges it at once.
        let announced = risen
            && self.sheets[id.at()].content().is_some()
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
