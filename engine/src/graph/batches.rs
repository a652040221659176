//! What starts together: the queue of ready bundles, and which of them make a batch now.

use underbelly_storage::Timestamp;

use super::Graph;
use super::bundle::Bundle;
use super::definition::Trigger;
use super::ids::{BundleId, ProducerId, RunId};
use super::producer::Producer;

/// Since when a bundle is ready of which the batch died: it has waited.
pub(super) const HAS_WAITED: Timestamp = Timestamp(i64::MIN);

impl Producer {
    /// Whether its bundles wait for others.
    fn gathers(&self) -> bool {
        matches!(self.definition.proxy.trigger, Trigger::Independent { min_batch: 2.., .. })
    }

    /// Whether a run of this batch may start beside what is in work.
    pub fn has_room(&self, batch: RunId) -> bool {
        self.batches.contains_key(&batch) || self.has_room_for_more()
    }

    fn has_room_for_more(&self) -> bool {
        (self.batches.len() as u64) < u64::from(self.definition.proxy.max_running)
    }
}

impl Graph {
    /// Puts a ready bundle of an attached producer into the queue; false where it is there.
    pub(super) fn enter_queue(&mut self, id: BundleId) -> bool {
        let bundle = &self.bundles[id.at()];
        let (order, producer, since) = (bundle.order, bundle.producer, bundle.ready_at);
        let target = &mut self.producers[producer.at()];
        if target.gathers() {
            target.ready_since.insert((since, id));
        }
        self.move_head(producer, |ready| ready.insert(order, id).is_none())
    }

    /// Takes a bundle out of the queue; false where it is not there.
    pub(super) fn leave_queue(&mut self, id: BundleId) -> bool {
        let bundle = &self.bundles[id.at()];
        let (order, producer, since) = (bundle.order, bundle.producer, bundle.ready_at);
        self.producers[producer.at()].ready_since.remove(&(since, id));
        self.move_head(producer, |ready| ready.remove(&order).is_some())
    }

    fn move_head(
        &mut self,
        id: ProducerId,
        change: impl FnOnce(&mut std::collections::BTreeMap<u64, BundleId>) -> bool,
    ) -> bool {
        let ready = &mut self.producers[id.at()].ready;
        let first = |ready: &std::collections::BTreeMap<u64, BundleId>| ready.keys().next().copied();
        let before = first(ready);
        let done = change(ready);
        let now = first(ready);
        if before != now {
            if let Some(order) = before {
                self.heads.remove(&(order, id));
            }
            self.heads.extend(now.map(|order| (order, id)));
        }
        done
    }

    /// The bundles that start together now: of the producers that may start some, those of the one whose first has waited
    /// longest. Empty where none may.
    pub fn next_batch(&self, now: Timestamp) -> Vec<BundleId> {
        let batches = self.heads.iter().map(|(_, producer)| self.batch_of(*producer, now));
        batches.into_iter().find(|batch| !batch.is_empty()).unwrap_or_default()
    }

    /// The bundles of a producer that start together now.
    fn batch_of(&self, id: ProducerId, now: Timestamp) -> Vec<BundleId> {
        let producer = &self.producers[id.at()];
        let Some(first) = producer.ready.values().next() else { return Vec::new() };
        if !producer.has_room_for_more() || Graph::fires_at(producer) > now {
            return Vec::new();
        }
        let proxy = producer.definition.proxy;
        let most = |bundle: &Bundle| bundle.batch_max(proxy.max_batch);
        let first = &self.bundles[first.at()];
        let size = most(first);
        let fits = |id: &&BundleId| {
            let bundle = &self.bundles[id.at()];
            // Halves of a batch that died stay by themselves.
            most(bundle) == size && (proxy.trigger != Trigger::Dependent || bundle.date == first.date)
        };
        producer.ready.values().filter(fits).take(size as usize).copied().collect()
    }

    /// When a producer with ready bundles starts the first of them, as far as they decide that.
    fn fires_at(producer: &Producer) -> Timestamp {
        match producer.definition.proxy.trigger {
            Trigger::Independent { min_batch, max_wait_time }
                if producer.ready.len() < min_batch as usize =>
            {
                let oldest = producer.ready_since.first().map_or(HAS_WAITED, |(since, _)| *since);
                match oldest {
                    HAS_WAITED => HAS_WAITED,
                    Timestamp(since) => {
                        let wait = i64::try_from(max_wait_time.as_nanos()).unwrap_or(i64::MAX);
                        Timestamp(since.saturating_add(wait))
                    }
                }
            }
            _ => HAS_WAITED,
        }
    }

    /// The earliest time at which something is due that no event brings about: a bundle that waited is tried again, or a batch
    /// starts because it has waited. Times that have passed are told too.
    pub fn next_due(&self) -> Option<Timestamp> {
        let retry = self.backing_off.first().map(|(until, _)| *until);
        let waits = self.heads.iter().map(|(_, id)| &self.producers[id.at()]);
        let waits = waits.filter(|producer| producer.has_room_for_more()).map(|p| Graph::fires_at(p));
        retry.into_iter().chain(waits.filter(|at| *at > HAS_WAITED)).min()
    }

    /// Whether a bundle that waited is due to be tried again, for which there is [`super::Event::Tick`].
    pub fn is_tick_due(&self, now: Timestamp) -> bool {
        self.backing_off.first().is_some_and(|(until, _)| *until <= now)
    }
}
