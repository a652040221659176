//! What is done by command: data taken back, work forced or cancelled, producers taken out.

use underbelly_storage::Timestamp;

use super::Graph;
use super::bundle::{Claim, Ending};
use super::candidate::Owner;
use super::class::{Counters, Face, Sight};
use super::definition::Mode;
use super::edges::EdgeKey;
use super::error::GraphError;
use super::ids::{BundleId, CellId, ProducerId, RunId};
use super::pass::Pass;

impl Graph {
    pub(super) fn check_retract(&self, cell: CellId, priority: i32) -> Result<(), GraphError> {
        let Some(found) = self.sheets.get(cell.at()) else { return Err(GraphError::UnknownCell(cell)) };
        match found.candidates.iter().any(|candidate| candidate.priority == priority) {
            true => Ok(()),
            false => Err(GraphError::NoCandidate { cell: self.label(cell), priority }),
        }
    }

    /// The candidate has no data and no error any more, as if its owner had given nothing. What it read stays known,
    /// so that its owner gives it again where an input changes.
    pub(super) fn retract(&mut self, pass: &mut Pass, id: CellId, priority: i32) {
        let target = self.sheet_mut(id);
        let Some(candidate) = target.candidates.iter_mut().find(|c| c.priority == priority) else { return };
        let before = candidate.content.take();
        candidate.error = None;
        candidate.ended = pass.moment;
        pass.note_contents(id, target.effective == Some(priority), before, None);
        self.stay_fresh(pass, id, priority);
        self.touch_cell(pass, id);
        self.touch_below(pass, id, priority);
    }

    /// Refuses what concerns no bundle, or one whose producer is no more.
    pub(super) fn check_bundle(&self, id: BundleId) -> Result<(), GraphError> {
        let Some(bundle) = self.bundles.get(id.at()) else { return Err(GraphError::UnknownBundle(id)) };
        let producer = &self.producers[bundle.producer.at()];
        match producer.deregistered {
            true => Err(GraphError::Deregistered { producer: producer.definition.name.clone() }),
            false => Ok(()),
        }
    }

    pub(super) fn force(&mut self, pass: &mut Pass, id: BundleId) {
        let bundle = self.bundle_mut(id);
        bundle.forced = true;
        bundle.interrupted = 0;
        self.stop_waiting(id);
        let is_queued = self.leave_queue(id);
        self.bundle_mut(id).setbacks = None;
        if is_queued {
            self.enter_queue(id);
        }
        self.notify(id);
        self.touch_bundle(pass, id);
    }

    pub(super) fn check_cancel(&self, id: BundleId) -> Result<(), GraphError> {
        self.check_bundle(id)?;
        let bundle = &self.bundles[id.at()];
        let tally = &self.tallies[id.at()];
        if bundle.running.is_some() || bundle.work().is_there(&tally.counters) {
            return Ok(());
        }
        let producer = self.producer_name(bundle.producer).to_string();
        Err(GraphError::NothingToCancel { bundle: id, producer, status: tally.status })
    }

    /// Ends a bundle with an error, as if a run had read everything as it is now: another change makes work again.
    pub(super) fn cancel(&mut self, pass: &mut Pass, id: BundleId, reason: &str) {
        let bundle = &self.bundles[id.at()];
        let producer = &self.producers[bundle.producer.at()];
        let read = |edge: EdgeKey| {
            let seen = self.cells[edge.source.at()].seen();
            let need = producer.need(edge.input);
            // Of an input that is being made again, what it has so far: the same again is no news.
            let so_far = need.mode != Mode::Exclusive && seen.sight == Sight::Waiting && seen.g > 0;
            Some((edge, need.reads(seen).or(so_far.then_some(seen.g))?))
        };
        let cells = self.edges_of(id).filter_map(|(edge, _)| read(edge)).collect();
        let scopes = self.scopes_now(bundle);
        if let Some(claim) = &bundle.running {
            self.runs.remove(&claim.run);
        }
        self.leave_batch(pass, id);
        self.stop_waiting(id);
        // A result gives it another place in the queue.
        self.leave_queue(id);
        let claim =
            Claim { run: RunId(0), batch: RunId(0), epoch: 0, started: pass.moment.time, cells, scopes };
        self.bundle_mut(id).running = Some(Box::new(claim));
        self.finish(pass, id, Ending::Cancelled(reason.into()), &[]);
    }

    /// Refuses what concerns no producer, or one that is no more.
    pub(super) fn check_registered(&self, id: ProducerId) -> Result<(), GraphError> {
        match self.producers.get(id.at()) {
            Some(producer) if producer.deregistered => {
                Err(GraphError::Deregistered { producer: producer.definition.name.clone() })
            }
            Some(_) => Ok(()),
            None => Err(GraphError::UnknownProducer(id)),
        }
    }

    /// Takes a producer out: its runs are fenced, its bundles have no edges and no work any more, and what it gave
    /// stays as it is.
    pub(super) fn deregister(&mut self, pass: &mut Pass, id: ProducerId) {
        let bundles = self.bundles_of(id);
        let waiting = self.waiting();
        let producer = self.producer_mut(id);
        producer.epoch += 1;
        producer.attached = false;
        producer.host = None;
        producer.lost_at = None;
        self.stop_awaiting(id);
        let readers = self.quorum_readers(id);
        self.unlink_producer(id);
        // Behind the ranks, which have moved.
        self.stop_growing_old(pass, id);
        self.withdraw(pass, id);
        readers.into_iter().for_each(|bundle| self.touch_bundle(pass, bundle));
        // From the last one on: of a cell that all of them read, the edges then go from the end.
        for bundle in bundles.into_iter().rev() {
            self.drop_bundle(pass, bundle);
        }
        waiting.into_iter().for_each(|bundle| self.touch_bundle(pass, bundle));
    }

    /// Frees the name and the priorities of a producer, and has it read nothing.
    pub(super) fn unlink_producer(&mut self, id: ProducerId) {
        for slot in &mut self.slots {
            slot.readers.retain(|(reader, _)| *reader != id);
            slot.providers.retain(|_, provider| *provider != id);
            slot.fillers.retain(|_, filler| *filler != id);
        }
        self.groups.retain(|group| *group != id);
        let producer = &mut self.producers[id.at()];
        producer.deregistered = true;
        producer.bundles.clear();
        producer.by_date.clear();
        producer.reaches.iter_mut().flatten().for_each(|reach| reach.bundles.clear());
        producer.above.clear();
        let name = producer.definition.name.clone();
        self.producer_names.remove(&name);
        self.rank();
        self.plan_holds();
        self.lift_all();
    }

    fn drop_bundle(&mut self, pass: &mut Pass, id: BundleId) {
        self.leave_batch(pass, id);
        self.leave_queue(id);
        if let Some(claim) = self.bundle_mut(id).running.take() {
            self.runs.remove(&claim.run);
        }
        self.stop_waiting(id);
        if let Some(at) = self.cutoff_of(id) {
            self.cutoffs.remove(&(at, id));
        }
        self.unwatch(id);
        let edges: Vec<EdgeKey> = self.edges_of(id).map(|(edge, _)| edge).collect();
        for edge in edges {
            self.remove_edge(pass, id, edge);
        }
        // A producer without a place in the order: its cells do not wait for it.
        let tally = &mut self.tallies[id.at()];
        (tally.counters, tally.face) = (Counters::default(), Face::default());
        tally.has_outer = false;
        let outputs = std::mem::take(&mut tally.outputs);
        let bundle = &mut self.bundles[id.at()];
        bundle.scopes.clear();
        bundle.support.clear();
        bundle.has_uses = false;
        bundle.outer = Counters::default();
        bundle.lagging = false;
        bundle.forced = false;
        bundle.unseen = None;
        bundle.is_cut = false;
        bundle.setbacks = None;
        bundle.ready_at = Timestamp(0);
        let producer = bundle.producer;
        for cell in outputs.iter() {
            let candidates = &self.sheets[cell.at()].candidates;
            if candidates.iter().any(|c| c.owner == Owner::Bundle(id) && c.uses.is_some()) {
                let orphans =
                    self.sheet_mut(cell).candidates.iter_mut().filter(|c| c.owner == Owner::Bundle(id));
                orphans.for_each(|candidate| candidate.uses = None);
            }
            self.touch_output(pass, producer, cell);
        }
        self.touch_bundle(pass, id);
    }
}
