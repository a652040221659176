//! Events become facts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use underbelly_storage::Timestamp;

use super::Graph;
use super::bundle::{Claim, Ending};
use super::candidate::{Owner, Uses};
use super::cell::{Cell, Moment, Sheet};
use super::class::Counters;
use super::definition::Mode;
use super::edges::EdgeKey;
use super::effect::{Effects, Ended, RunInput, Started};
use super::error::GraphError;
use super::event::{Event, Given, Outcome, OutputWrite, Read, Setback, Submission, Used};
use super::ids::{BundleId, CellId, ProducerId, RunId, SlotDate, SlotId};
use super::key::Key;
use super::order::{Lane, Node};
use super::pass::Pass;
use super::reads::REPORTED;
use super::register::Known;
use super::state::State;

/// Most bundles that one tick has start, and most of each that it makes old, gives up and lets pass.
const TICK_BUNDLES_MAX: usize = 256;

/// The name under which clients' commits appear.
pub(super) const CLIENT: &str = "client";

impl Graph {
    /// Applies an event: sequence number and commit time are those of its commit. On an error nothing changed.
    ///
    /// The cost is proportional to what the event changes, except for [`Event::Register`], which joins the existing cells,
    /// for it and [`Event::Deregister`], which work out for all bundles who may hold whom, for [`Event::Attach`] and
    /// [`Event::Reopen`], which visit the open bundles, and for an [`Event::End`] that reports a read which the last run of its bundle did
    /// not, or gives a new cell while others report reads: it visits all that is behind its outputs, to find circles.
    pub fn apply(&mut self, seq: u64, now: Timestamp, event: &Event) -> Result<Effects, GraphError> {
        self.check(event)?;
        self.apply_checked(seq, now, event)
    }

    /// The same for an event that [`Graph::check`] accepted in the state as it is.
    pub(crate) fn apply_checked(
        &mut self,
        seq: u64,
        now: Timestamp,
        event: &Event,
    ) -> Result<Effects, GraphError> {
        let mut pass = Pass::new(Moment { seq, time: now }, std::mem::take(&mut self.queue));
        match event {
            Event::DefineSlot(definition) => {
                let existing = self.check_slot(definition)?;
                pass.effects.slot = Some(existing.unwrap_or_else(|| self.define_slot(definition)));
            }
            Event::Register(definition) => {
                pass.effects.producer = Some(match self.check_producer(definition)? {
                    Known::Same(id) => id,
                    Known::New(producer) => {
                        let id = self.register(&mut pass, *producer);
                        self.touch_quorums(&mut pass, id, None);
                        id
                    }
                });
            }
            Event::Attach { producer, host } => self.attach(&mut pass, *producer, host.as_ref()),
            Event::Reopen => self.reopen(&mut pass),
            Event::Detach { producer, lost, .. } => self.detach(&mut pass, *producer, *lost),
            Event::Commit(submission) => {
                // An end alone makes no work of its own.
                let lane = if submission.backfill { Lane::Backfill } else { Lane::Live };
                pass.lane = Some(lane).filter(|_| !submission.writes.is_empty());
                self.commit(&mut pass, submission);
            }
            Event::Start { bundle, run, batch } => self.start(&mut pass, *bundle, *run, *batch),
            Event::End { run, outcome, reads, .. } => self.end(&mut pass, *run, outcome, reads),
            Event::Several(parts) => self.several(&mut pass, parts),
            Event::Retract { cell, priority } => self.retract(&mut pass, *cell, *priority),
            Event::Force(bundle) => self.force(&mut pass, *bundle),
            Event::Cancel { bundle, reason } => self.cancel(&mut pass, *bundle, reason),
            Event::Tick => self.tick(&mut pass),
            Event::Deregister(producer) => self.deregister(&mut pass, *producer),
        }
        self.settle(&mut pass);
        if pass.is_due {
            // As everything is now that it is settled.
            self.pass_deadlines(&mut pass, TICK_BUNDLES_MAX);
        }
        self.queue = pass.queue;
        Ok(pass.effects)
    }

    fn several(&mut self, pass: &mut Pass, parts: &[Event]) {
        for part in parts {
            match part {
                Event::Start { bundle, run, batch } => self.start(pass, *bundle, *run, *batch),
                Event::End { run, outcome, reads, .. } => self.end(pass, *run, outcome, reads),
                _ => {}
            }
        }
    }

    fn reopen(&mut self, pass: &mut Pass) {
        for at in 0..self.producers.len() {
            let id = ProducerId(at as u32);
            if self.producers[at].attached {
                self.producer_mut(id).attached = false;
                self.await_session(pass, id);
            } else if self.producers[at].awaited.is_some() {
                // It has one lease's time after each opening.
                self.await_session(pass, id);
            }
        }
        for bundle in self.producers.iter().flat_map(|producer| producer.all_ready()) {
            self.touch_bundle(pass, bundle.1);
        }
        let mut batches: BTreeMap<RunId, u32> = BTreeMap::new();
        for producer in &mut self.producers {
            batches.append(&mut producer.batches);
        }
        (0..self.producers.len() as u32).for_each(|producer| self.restand(ProducerId(producer)));
        for (run, id) in std::mem::take(&mut self.runs) {
            let bundle = self.bundle_mut(id);
            let beside = bundle.running.as_ref().and_then(|claim| batches.get(&claim.batch)).copied();
            match beside {
                // Another of the batch may have cut it off: next time they are fewer.
                Some(beside @ 2..) => {
                    bundle.setbacks.get_or_insert_default().batch_max = beside - beside / 2;
                }
                _ => bundle.interrupted += 1,
            }
            self.cut_off(pass, run, id);
        }
    }

    fn commit(&mut self, pass: &mut Pass, submission: &Submission) {
        if let Some(stamp) = submission.session {
            self.producer_mut(stamp.producer).sequence = Some(stamp.sequence);
        }
        let owner = submission.session.map_or(Owner::Client, |stamp| Owner::Daemon(stamp.producer));
        let made = submission.as_of.unwrap_or(pass.moment.time);
        let mut ageing: Vec<(CellId, i32)> = Vec::new();
        for write in &submission.writes {
            let existing = self.cell(write.slot, write.date, &write.key);
            let cell = match (existing, write.content) {
                (Some(cell), _) => cell,
                (None, Some(_)) => self.create_cell(pass, write.slot, write.date, &write.key),
                (None, None) => continue,
            };
            let known = self.sheets[cell.at()].candidates.iter().any(|c| c.priority == write.priority);
            if write.content.is_none() && !known {
                continue;
            }
            let target = self.sheet_mut(cell);
            let is_effective = target.effective == Some(write.priority);
            let candidate = target.candidate_mut(write.priority, owner);
            let before = std::mem::replace(&mut candidate.content, write.content);
            pass.note_contents(cell, is_effective, before, write.content);
            candidate.owner = owner;
            candidate.uses = None;
            candidate.error = None;
            candidate.ended = pass.moment;
            candidate.written = write.content.is_some();
            if owner == Owner::Client {
                self.slots[write.slot.at()].client_priorities.insert(write.priority);
            }
            if self.slots[write.slot.at()].definition.fresh_for.is_some() {
                ageing.push((cell, write.priority));
            }
            self.touch_cell(pass, cell);
            self.touch_below(pass, cell, write.priority);
        }
        self.grow_all_old(pass, &ageing, made);
        submission.deadlines.iter().for_each(|deadline| self.expect_by(*deadline));
        for date in &submission.ends {
            if self.ends.insert(*date) {
                self.note_end(*date);
                self.touch_ended(pass, *date);
            }
        }
    }

    /// Makes a cell, and the bundles of the tuples that it completes.
    fn create_cell(&mut self, pass: &mut Pass, slot: SlotId, date: SlotDate, key: &Key) -> CellId {
        let id = self.find(slot, date, key).unwrap_or_else(|| {
            let id = CellId(self.cells.len() as u32);
            self.cells.push(Cell::new(slot));
            self.sheets.push(Sheet::new(date, key.clone()));
            self.slots[slot.at()].index_cell(&self.sheets, id);
            id
        });
        self.cell_mut(id).expected = false;
        let target = &mut self.slots[slot.at()];
        target.states.counts[State::Void as usize] += 1;
        for (producer, input) in target.readers.clone() {
            let reader = &self.producers[producer.at()];
            if reader.need(input).mode != Mode::Required {
                self.reach_cell(pass, producer, input, id);
            } else if !reader.is_group() {
                self.join_cell(pass, producer, input, id);
            }
        }
        self.show_to_watchers(pass, id);
        pass.effects.created.push(id);
        self.touch_cell(pass, id);
        id
    }

    fn start(&mut self, pass: &mut Pass, id: BundleId, run: RunId, batch: RunId) {
        let bundle = &self.bundles[id.at()];
        let producer = &self.producers[bundle.producer.at()];
        let (mut inputs, mut cells) = (Vec::new(), Vec::new());
        for (edge, _) in self.edges_of(id) {
            let source = &self.cells[edge.source.at()];
            let need = producer.need(edge.input);
            if let (Some(g), Some(content)) =
                (need.reads(source.seen()), self.sheets[edge.source.at()].content())
            {
                if edge.input != REPORTED {
                    inputs.push(RunInput { input: usize::from(edge.input), cell: edge.source, g, content });
                }
                cells.push((edge, g));
            }
        }
        inputs.sort_by(|a, b| {
            let key = |input: &RunInput| &self.sheets[input.cell.at()].key;
            a.input.cmp(&b.input).then_with(|| key(a).cmp(key(b)))
        });
        let scopes = self.scopes_now(bundle);
        pass.effects.started.push(Started {
            run,
            epoch: producer.epoch,
            bundle: id,
            producer: bundle.producer,
            date: bundle.date,
            key: bundle.key.clone(),
            attempts: bundle.setbacks.as_ref().map_or(0, |setbacks| setbacks.attempts),
            inputs,
        });
        let (epoch, started) = (producer.epoch, pass.moment.time);
        let claim = Claim { run, batch, epoch, started, cells, scopes };
        let bundle = self.bundle_mut(id);
        bundle.running = Some(Box::new(claim));
        bundle.runs += 1;
        let producer = bundle.producer;
        let of = producer;
        let producer = &mut self.producers[of.at()];
        producer.runs += 1;
        *producer.batches.entry(batch).or_default() += 1;
        self.runs.insert(run, id);
        self.restand(of);
        self.touch_bundle(pass, id);
    }

    fn end(&mut self, pass: &mut Pass, run: RunId, outcome: &Outcome, reads: &[Read]) {
        let Some(id) = self.runs.get(&run).copied() else { return };
        let producer = self.bundles[id.at()].producer;
        pass.lane = Some(self.tallies[id.at()].lane);
        self.leave_batch(pass, id);
        self.runs.remove(&run);
        let (ending, outputs): (_, &[OutputWrite]) = match outcome {
            Outcome::Data(outputs) => (Ending::Data, outputs),
            Outcome::Declined(reason) => (Ending::Declined(reason.as_str().into()), &[]),
            Outcome::Failed(message) => (Ending::Failed(message.as_str().into()), &[]),
            Outcome::Again { why, message, wait } => {
                if self.is_set_back(id, outcome) {
                    self.set_back(pass, id, *why, message, *wait);
                    let (outputs, absent) = (Vec::new(), Vec::new());
                    pass.effects.ended.push(Ended { run, bundle: id, producer, outputs, absent });
                    return;
                }
                let attempts = self.producers[producer.at()].definition.retry.max_attempts;
                (Ending::Failed(format!("{message} (attempts used up: {attempts})").into()), &[])
            }
        };
        if !reads.is_empty() || self.bundles[id.at()].reported.is_some() {
            let reported = self.report(pass, id, reads);
            if let Some(claim) = &mut self.bundle_mut(id).running {
                claim.cells.retain(|(edge, _)| edge.input != REPORTED);
                claim.cells.extend(reported);
                claim.cells.sort_unstable_by_key(|(edge, _)| *edge);
            }
        }
        let (outputs, absent) = self.finish(pass, id, ending, outputs);
        pass.effects.ended.push(Ended { run, bundle: id, producer, outputs, absent });
    }

    /// A run gave nothing: its bundle waits to be tried again.
    fn set_back(&mut self, pass: &mut Pass, id: BundleId, why: Setback, message: &str, wait: Duration) {
        let bundle = self.bundle_mut(id);
        let setbacks = bundle.setbacks.get_or_insert_default();
        match why {
            Setback::Failed => setbacks.attempts = setbacks.attempts.saturating_add(1),
            Setback::Rejected => {}
            Setback::Halved(most) => setbacks.batch_max = most.max(1),
        }
        setbacks.message = Some(message.into());
        let wait = i64::try_from(wait.as_nanos()).unwrap_or(i64::MAX);
        setbacks.until = (wait > 0).then_some(Timestamp(pass.moment.time.0.saturating_add(wait)));
        bundle.running = None;
        bundle.interrupted = 0;
        if let Some(until) = bundle.until() {
            self.backing_off.insert((until, id));
        }
        self.touch_bundle(pass, id);
    }

    /// Has bundles start whose time has come, those first that have waited for the earliest, and lets pass what has its time.
    fn tick(&mut self, pass: &mut Pass) {
        self.age(pass, TICK_BUNDLES_MAX);
        self.cut(pass, TICK_BUNDLES_MAX);
        self.give_up_sessions(pass, TICK_BUNDLES_MAX);
        pass.is_due = true;
        let due = self.backing_off.range(..=(pass.moment.time, BundleId(u32::MAX)));
        for id in due.map(|(_, id)| *id).take(TICK_BUNDLES_MAX).collect::<Vec<_>>() {
            self.stop_waiting(id);
            self.touch_bundle(pass, id);
        }
    }

    /// A bundle waits for no time any more.
    pub(super) fn stop_waiting(&mut self, id: BundleId) {
        if let Some(until) = self.bundles[id.at()].until() {
            self.backing_off.remove(&(until, id));
            let setbacks = &mut self.bundle_mut(id).setbacks;
            setbacks.iter_mut().for_each(|setbacks| setbacks.until = None);
        }
    }

    /// A run in flight is one no more: its batch has one fewer.
    pub(super) fn leave_batch(&mut self, pass: &mut Pass, id: BundleId) {
        let bundle = &self.bundles[id.at()];
        let Some(claim) = &bundle.running else { return };
        let producer = bundle.producer;
        let batches = &mut self.producers[producer.at()].batches;
        if let Some(left) = batches.get_mut(&claim.batch) {
            *left -= 1;
            if *left == 0 {
                if !self.producers[producer.at()].has_room_for_more() {
                    pass.effects.freed.push(producer);
                }
                self.producers[producer.at()].batches.remove(&claim.batch);
                self.restand(producer);
            }
        }
    }

    /// Gives every output candidate of a bundle its result, and the edges what the run read. Returns the cells
    /// that got data and those that lost it.
    pub(super) fn finish(
        &mut self,
        pass: &mut Pass,
        id: BundleId,
        ending: Ending,
        outputs: &[OutputWrite],
    ) -> (Vec<CellId>, Vec<CellId>) {
        let order = self.next_order(pass);
        self.set_order(id, order);
        let bundle = self.bundle_mut(id);
        let (producer, date) = (bundle.producer, bundle.date);
        let claim = bundle.running.take();
        bundle.ended = pass.moment;
        bundle.interrupted = 0;
        bundle.end_setbacks(&ending);
        bundle.forced = false;
        bundle.lagging = true;
        let (mut known, mut given) = (BTreeSet::new(), Vec::new());
        let mut uses = false;
        let mut absent = Vec::new();
        for output in outputs {
            if output.given == Given::Absent {
                continue;
            }
            let existing = self.cell(output.slot, date, &output.key);
            let cell = existing.unwrap_or_else(|| self.create_cell(pass, output.slot, date, &output.key));
            let priority =
                self.producers[producer.at()].outputs.get(&output.slot).copied().unwrap_or_default();
            let target = self.sheet_mut(cell);
            let is_effective = target.effective == Some(priority);
            let candidate = target.candidate_mut(priority, Owner::Bundle(id));
            candidate.owner = Owner::Bundle(id);
            candidate.ended = pass.moment;
            candidate.answered = true;
            candidate.uses = output.uses.as_ref().map(|uses| {
                let edge = |used: &Used| EdgeKey { source: used.cell, input: used.input };
                let edges: BTreeSet<EdgeKey> = uses.iter().map(edge).collect();
                Box::new(Uses { edges: edges.into_iter().collect(), counters: Counters::default() })
            });
            uses |= candidate.uses.is_some();
            known.insert(cell);
            match &output.given {
                Given::Data(content) => {
                    let before = candidate.content.replace(*content);
                    pass.note_contents(cell, is_effective, before, Some(*content));
                    candidate.error = None;
                    candidate.written = true;
                    given.push(cell);
                }
                Given::Error(message) => candidate.error = Some(message.as_str().into()),
                Given::Absent => {}
            }
        }
        let error = match &ending {
            Ending::Failed(message) | Ending::Cancelled(message) => Some(Arc::clone(message)),
            Ending::Data | Ending::Declined(_) => None,
        };
        // Noted above, when its run was taken.
        let bundle = &mut self.bundles[id.at()];
        bundle.ending = Some(ending);
        if !self.producers[producer.at()].memberships.is_empty() {
            self.touch_quorums(pass, producer, Some(date));
        }
        let tally = &mut self.tallies[id.at()];
        known.iter().for_each(|cell| tally.outputs.insert(*cell));
        let lift = tally.lift;
        known.iter().for_each(|cell| self.lift(Node::Cell(*cell), lift));
        let all: Vec<CellId> = self.tallies[id.at()].outputs.iter().collect();
        for cell in all.iter().filter(|cell| !known.contains(cell)) {
            let target = self.sheet_mut(*cell);
            let Some(candidate) = target.candidates.iter_mut().find(|c| c.owner == Owner::Bundle(id)) else {
                continue;
            };
            candidate.ended = pass.moment;
            candidate.answered = true;
            candidate.error = error.clone();
            candidate.uses = None;
            if error.is_none()
                && let Some(content) = candidate.content.take()
            {
                let is_effective = target.effective == Some(candidate.priority);
                pass.note_contents(*cell, is_effective, Some(content), None);
                absent.push(*cell);
            }
        }
        let bundle = &mut self.bundles[id.at()];
        bundle.has_uses = uses;
        let read = claim.as_ref().map_or(&[][..], |claim| &claim.cells);
        let scopes = claim.as_ref().map_or(&[][..], |claim| &claim.scopes);
        for (scope, read) in bundle.scopes.iter_mut().zip(scopes) {
            scope.token = Some(*read);
        }
        self.retoken(pass, id, read);
        self.touch_bundle(pass, id);
        for cell in all {
            self.touch_output(pass, producer, cell);
        }
        given.sort_unstable();
        (given, absent)
    }
}
