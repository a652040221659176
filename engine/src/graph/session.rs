//! Sessions of producers: they begin, end, and are lost; and what daemons commit in them is accepted once.

use underbelly_storage::{Timestamp, Value};

use super::Graph;
use super::INTERRUPTIONS_MAX;
use super::bundle::Ending;
use super::effect::{Alarm, Interrupted};
use super::error::GraphError;
use super::event::{Host, Stamp, Submission, Write};
use super::fresh::later;
use super::ids::{BundleId, ProducerId, RunId};
use super::pass::Pass;

impl Graph {
    pub(super) fn attach(&mut self, pass: &mut Pass, id: ProducerId, host: Option<&Host>) {
        if self.producers[id.at()].attached {
            return;
        }
        let producer = self.producer_mut(id);
        producer.attached = true;
        producer.host = host.cloned();
        producer.epoch += 1;
        producer.lost_at = None;
        self.stop_awaiting(id);
        for bundle in self.producers[id.at()].open_bundles.clone() {
            self.touch_bundle(pass, bundle);
        }
    }

    /// Refuses the end of a session that is over.
    pub(super) fn check_detach(&self, id: ProducerId, epoch: u64) -> Result<(), GraphError> {
        self.check_registered(id)?;
        let producer = &self.producers[id.at()];
        match producer.attached && producer.epoch == epoch {
            true => Ok(()),
            false => Err(self.session_over(id, epoch)),
        }
    }

    fn session_over(&self, id: ProducerId, epoch: u64) -> GraphError {
        GraphError::SessionOver { producer: self.producer_name(id).to_string(), epoch }
    }

    /// Ends a session: the producer is registered as before, and its runs are cut off.
    pub(super) fn detach(&mut self, pass: &mut Pass, id: ProducerId, lost: bool) {
        let time = pass.moment.time;
        let producer = self.producer_mut(id);
        producer.attached = false;
        producer.epoch += 1;
        producer.lost_at = lost.then_some(time);
        pass.effects.alarms.extend(lost.then_some(Alarm::Lost(id)));
        let ready: Vec<BundleId> = self.producers[id.at()].all_ready().map(|(_, bundle)| bundle).collect();
        ready.into_iter().for_each(|bundle| self.touch_bundle(pass, bundle));
        self.producers[id.at()].batches.clear();
        self.restand(id);
        let runs = self.runs.iter().filter(|(_, bundle)| self.bundles[bundle.at()].producer == id);
        for (run, bundle) in runs.map(|(run, bundle)| (*run, *bundle)).collect::<Vec<_>>() {
            self.runs.remove(&run);
            self.bundle_mut(bundle).interrupted += 1;
            self.cut_off(pass, run, bundle);
        }
    }

    /// A run was cut off, and that was counted: its bundle is ready again, or has failed.
    pub(super) fn cut_off(&mut self, pass: &mut Pass, run: RunId, id: BundleId) {
        let in_a_row = self.bundles[id.at()].interrupted;
        pass.effects.interrupted.push(Interrupted { run, bundle: id, in_a_row });
        if in_a_row >= INTERRUPTIONS_MAX {
            let reason = format!("interrupted {in_a_row} times in a row");
            self.finish(pass, id, Ending::Failed(reason.into()), &[]);
        } else {
            self.bundle_mut(id).running = None;
            self.touch_bundle(pass, id);
        }
    }

    /// The process started again: the session of a producer that has a lease is awaited for so long.
    pub(super) fn await_session(&mut self, pass: &Pass, id: ProducerId) {
        self.stop_awaiting(id);
        let Some(lease) = self.producers[id.at()].definition.lease else { return };
        let until = later(pass.moment.time, lease);
        self.producer_mut(id).awaited = Some(until);
        self.awaited.insert((until, id));
    }

    pub(super) fn stop_awaiting(&mut self, id: ProducerId) {
        if self.producers[id.at()].awaited.is_none() {
            return;
        }
        if let Some(until) = self.producer_mut(id).awaited.take() {
            self.awaited.remove(&(until, id));
        }
    }

    /// Gives up sessions that were awaited long enough, and `most` at most.
    pub(super) fn give_up_sessions(&mut self, pass: &mut Pass, most: usize) {
        let due = self.awaited.range(..=(pass.moment.time, ProducerId(u32::MAX)));
        for (_, id) in due.take(most).copied().collect::<Vec<_>>() {
            self.stop_awaiting(id);
            self.producer_mut(id).lost_at = Some(pass.moment.time);
            pass.effects.alarms.push(Alarm::Lost(id));
        }
    }

    /// Producers whose session gave no sign of life, and since when.
    pub(super) fn lost(&self) -> impl Iterator<Item = (Alarm, Timestamp)> + '_ {
        let registered = (0..).map(ProducerId).zip(&self.producers).filter(|(_, p)| !p.deregistered);
        registered.filter_map(|(id, producer)| Some((Alarm::Lost(id), producer.lost_at?)))
    }

    /// Since when the session of a producer gives no sign of life.
    pub fn lost_at(&self, id: ProducerId) -> Option<Timestamp> {
        self.producers.get(id.at())?.lost_at
    }

    /// The epoch of a producer, and the number of a daemon's last commit.
    pub fn session(&self, id: ProducerId) -> Option<(u64, Option<u64>)> {
        self.producers.get(id.at()).map(|producer| (producer.epoch, producer.sequence))
    }

    pub(super) fn check_submission(&self, submission: &Submission) -> Result<(), GraphError> {
        if let Some(Stamp { producer: id, epoch, sequence }) = submission.session {
            let Some(producer) = self.producers.get(id.at()) else {
                return Err(GraphError::UnknownProducer(id));
            };
            if producer.deregistered || !producer.attached || producer.epoch != epoch {
                return Err(self.session_over(id, epoch));
            }
            if !producer.definition.daemon {
                return Err(GraphError::NoDaemon { producer: producer.definition.name.clone() });
            }
            if let Some(last) = producer.sequence.filter(|last| sequence <= *last) {
                let producer = producer.definition.name.clone();
                return Err(GraphError::Duplicate { producer, sequence, last });
            }
        }
        for deadline in &submission.deadlines {
            if self.slots.get(deadline.slot.at()).is_none() {
                return Err(GraphError::UnknownSlot(deadline.slot));
            }
        }
        submission.writes.iter().try_for_each(|write| self.check_write(write, submission.session))
    }

    fn check_write(&self, write: &Write, session: Option<Stamp>) -> Result<(), GraphError> {
        self.check_key(write.slot, &write.key)?;
        let slot = &self.slots[write.slot.at()];
        let name = || slot.definition.name.clone();
        match (slot.provider(write.priority, &write.key), session) {
            (Some(owner), Some(stamp)) if owner == stamp.producer => Ok(()),
            (_, Some(stamp)) => Err(GraphError::NotProvided {
                producer: self.producer_name(stamp.producer).to_string(),
                slot: name(),
                key: write.key.clone(),
                priority: write.priority,
            }),
            (owner, None) => match owner.or_else(|| slot.any_provider(write.priority)) {
                Some(owner) => Err(GraphError::PriorityTaken {
                    slot: name(),
                    priority: write.priority,
                    owner: self.producer_name(owner).to_string(),
                }),
                None => Ok(()),
            },
        }
    }

    /// Whether an output cell is one of those that its producer gives as a member.
    pub(super) fn check_member(
        &self,
        id: ProducerId,
        write: &super::event::OutputWrite,
    ) -> Result<(), GraphError> {
        let Some(member) = self.producers[id.at()].member(write.slot) else { return Ok(()) };
        let slot = &self.slots[write.slot.at()];
        let found = slot.definition.member_position().and_then(|at| write.key.values().get(at));
        match found {
            Some(Value::Utf8(name)) if **name == *member => Ok(()),
            _ => Err(GraphError::NotProvided {
                producer: self.producer_name(id).to_string(),
                slot: slot.definition.name.clone(),
                key: write.key.clone(),
                priority: self.producers[id.at()].outputs.get(&write.slot).copied().unwrap_or_default(),
            }),
        }
    }
}
