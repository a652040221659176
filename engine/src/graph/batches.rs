//! What starts together: the ready bundles of each producer, and which of them make a batch now.
//!
//! A producer stands among those that may start a batch now, or among those that may at a time, or nowhere: it has nothing
//! ready, or no room. So finding the next batch costs nothing for producers that wait.

use std::collections::{BTreeMap, BTreeSet};

use underbelly_storage::Timestamp;

use super::Graph;
use super::definition::Trigger;
use super::ids::{BundleId, ProducerId, RunId, SlotDate};
use super::order::Lane;
use super::producer::Producer;
use super::state::PStatus;

/// What may be in a batch together, in order: how many at most where their last batch died, else 0; of a dependent producer
/// the date; then the place in the queue.
type Kind = (u32, Option<SlotDate>, u64);

/// The ready bundles of a producer, while it is attached.
#[derive(Clone, Debug, Default)]
pub(super) struct Ready {
    bundles: BTreeMap<Kind, BundleId>,
    /// How many are of no batch that died.
    fresh: usize,
    /// These by the time since when they are ready, where they wait for others.
    since: BTreeSet<(Timestamp, BundleId)>,
    stand: Stand,
}

/// Where a producer stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stand {
    #[default]
    Nowhere,
    /// It may start a batch, of which the first has this place in the queue.
    Now(u64),
    /// It may at this time.
    At(Timestamp),
}

impl Producer {
    /// Whether its bundles wait for others.
    fn gathers(&self) -> bool {
        matches!(self.definition.proxy.trigger, Trigger::Independent { min_batch: 2.., .. })
    }

    /// Whether a run of this batch may start beside what is in work.
    pub fn has_room(&self, batch: RunId) -> bool {
        self.batches.contains_key(&batch) || self.has_room_for_more()
    }

    pub fn has_room_for_more(&self) -> bool {
        (self.batches.len() as u64) < u64::from(self.definition.proxy.max_running)
    }

    /// The first ready bundle of a batch that died, else the first.
    fn first_ready(&self) -> Option<(Kind, BundleId)> {
        let halved = self.ready.bundles.range((1, None, 0)..).next();
        halved.or_else(|| self.ready.bundles.first_key_value()).map(|(kind, bundle)| (*kind, *bundle))
    }

    /// Where it is to stand, as its ready bundles and its room are.
    fn stand(&self) -> Stand {
        let Some(((halved, _, order), _)) = self.first_ready().filter(|_| self.has_room_for_more()) else {
            return Stand::Nowhere;
        };
        match self.definition.proxy.trigger {
            Trigger::Independent { min_batch, max_wait_time }
                if halved == 0 && self.ready.fresh < min_batch as usize =>
            {
                let oldest = self.ready.since.first().map_or(i64::MIN, |(since, _)| since.0);
                let wait = i64::try_from(max_wait_time.as_nanos()).unwrap_or(i64::MAX);
                Stand::At(Timestamp(oldest.saturating_add(wait)))
            }
            _ => Stand::Now(order),
        }
    }

    /// The bundles that it starts together: those of a batch that died by themselves, of a dependent producer those of one
    /// date, and of a backfill no more than it waits for. `handful`: so many where it may be more than a batch, of a producer
    /// that waits for no number.
    fn batch(&self, handful: u32) -> Vec<BundleId> {
        let Some(((halved, date, first), _)) = self.first_ready() else { return Vec::new() };
        let proxy = self.definition.proxy;
        let size = match halved {
            0 if self.gathers() => proxy.max_batch,
            0 => proxy.max_batch.max(handful),
            halved => halved.min(proxy.max_batch),
        };
        let min = match proxy.trigger {
            Trigger::Independent { min_batch, .. } => min_batch as usize,
            Trigger::Dependent => 0,
        };
        let kind = (halved, date, first)..=(halved, date, u64::MAX);
        let lane = Lane::of(first);
        let mut batch = Vec::new();
        for ((.., order), bundle) in self.ready.bundles.range(kind).take(size as usize) {
            if batch.len() >= min && Lane::of(*order) != lane {
                break;
            }
            batch.push(*bundle);
        }
        batch
    }

    /// Why its ready bundles do not start.
    pub fn waits_for(&self) -> Option<String> {
        match self.ready.stand {
            _ if !self.has_room_for_more() => {
                Some(format!("{} batches are in work, and no more may be", self.batches.len()))
            }
            Stand::At(until) => {
                let Trigger::Independent { min_batch, .. } = self.definition.proxy.trigger else {
                    return None;
                };
                Some(format!("MIN_BATCH: {} of {min_batch} are ready; until {until}", self.ready.fresh))
            }
            _ => None,
        }
    }

    /// Whether none of its bundles is ready.
    pub fn has_none_ready(&self) -> bool {
        self.ready.bundles.is_empty()
    }

    /// Its ready bundles, each with its place in the queue.
    pub fn all_ready(&self) -> impl Iterator<Item = (u64, BundleId)> + '_ {
        self.ready.bundles.iter().map(|((.., order), bundle)| (*order, *bundle))
    }
}

impl Graph {
    /// How a ready bundle stands in its producer's queue.
    fn kind(&self, id: BundleId) -> Kind {
        let bundle = &self.bundles[id.at()];
        let dependent = self.producers[bundle.producer.at()].is_dependent();
        (bundle.halved(), dependent.then_some(bundle.date), bundle.order)
    }

    /// Puts a ready bundle of an attached producer into the queue; false where it is there.
    pub(super) fn enter_queue(&mut self, id: BundleId) -> bool {
        let (kind, since) = (self.kind(id), self.bundles[id.at()].ready_at);
        let producer = self.tallies[id.at()].producer;
        let owner = &mut self.producers[producer.at()];
        if owner.ready.bundles.insert(kind, id).is_some() {
            return false;
        }
        if kind.0 == 0 {
            owner.ready.fresh += 1;
            if owner.gathers() {
                owner.ready.since.insert((since, id));
            }
        }
        self.restand(producer);
        true
    }

    /// Takes a bundle out of the queue; false where it is not there.
    pub(super) fn leave_queue(&mut self, id: BundleId) -> bool {
        let (kind, since) = (self.kind(id), self.bundles[id.at()].ready_at);
        let producer = self.tallies[id.at()].producer;
        let ready = &mut self.producers[producer.at()].ready;
        if ready.bundles.remove(&kind).is_none() {
            return false;
        }
        if kind.0 == 0 {
            ready.fresh -= 1;
            ready.since.remove(&(since, id));
        }
        self.restand(producer);
        true
    }

    /// The ready bundles or the room of a producer changed.
    pub(super) fn restand(&mut self, id: ProducerId) {
        let owner = &mut self.producers[id.at()];
        let now = owner.stand();
        let before = std::mem::replace(&mut owner.ready.stand, now);
        if before == now {
            return;
        }
        match before {
            Stand::Nowhere => {}
            Stand::Now(order) => drop(self.firing.take(&(order, id))),
            Stand::At(time) => drop(self.gathering.take(&(time, id))),
        }
        match now {
            Stand::Nowhere => {}
            Stand::Now(order) => self.firing.extend([(order, id)]),
            Stand::At(time) => self.gathering.extend([(time, id)]),
        }
    }

    /// The bundles that start together now: of the producers that may start some, those of the one whose first has waited
    /// longest. Empty where none may.
    #[cfg(test)]
    pub fn next_batch(&self, now: Timestamp) -> Vec<BundleId> {
        self.next_batch_where(now, |_| true, |_| 0)
    }

    /// The same of the producers for which `takes` says yes, and several batches of one whose `handful` is larger than a batch.
    pub fn next_batch_where(
        &self,
        now: Timestamp,
        mut takes: impl FnMut(ProducerId) -> bool,
        handful: impl FnOnce(ProducerId) -> u32,
    ) -> Vec<BundleId> {
        let aged = self.gathering.iter().take_while(|(time, _)| *time <= now).find(|(_, id)| takes(*id));
        let aged = aged.and_then(|(_, id)| Some((self.producers[id.at()].first_ready()?.0.2, *id)));
        let first = self.firing.iter().find(|(_, id)| takes(*id)).copied().into_iter().chain(aged).min();
        first.map(|(_, id)| self.producers[id.at()].batch(handful(id))).unwrap_or_default()
    }

    /// The bundles that this producer starts together now. Empty where it may start none.
    pub fn next_batch_of(&self, now: Timestamp, producer: ProducerId) -> Vec<BundleId> {
        let Some(producer) = self.producers.get(producer.at()) else { return Vec::new() };
        match producer.ready.stand {
            Stand::Now(_) => producer.batch(0),
            Stand::At(time) if time <= now => producer.batch(0),
            Stand::At(_) | Stand::Nowhere => Vec::new(),
        }
    }

    /// Whether a bundle is ready to start.
    pub fn is_ready(&self, bundle: BundleId) -> bool {
        self.tallies.get(bundle.at()).is_some_and(|tally| tally.status == PStatus::Ready)
    }

    /// The producer of a bundle.
    pub fn producer_of(&self, bundle: BundleId) -> Option<ProducerId> {
        self.tallies.get(bundle.at()).map(|tally| tally.producer)
    }

    /// The earliest time at which something is due that no event brings about: a bundle that waited is tried again, or a batch
    /// starts because it has waited. Times that have passed are told too.
    pub fn next_due(&self) -> Option<Timestamp> {
        let retry = self.backing_off.first().map(|(until, _)| *until);
        let aged = self.gathering.first().map(|(time, _)| *time);
        let waits = [retry, aged, self.next_tick()];
        waits.into_iter().flatten().min()
    }

    /// Whether a time has come for which there is [`super::Event::Tick`].
    pub fn is_tick_due(&self, now: Timestamp) -> bool {
        let retry = self.backing_off.first().map(|(until, _)| *until);
        [retry, self.next_tick()].into_iter().flatten().any(|time| time <= now)
    }

    /// When something is old, is given up, or is to be up to date.
    fn next_tick(&self) -> Option<Timestamp> {
        let awaited = self.awaited.first().map(|(until, _)| *until);
        let cutoff = self.cutoffs.first().map(|(at, _)| *at);
        [self.ages.next(), self.deadlines.next(), awaited, cutoff].into_iter().flatten().min()
    }

    /// Since when the first ready bundle of a producer is ready.
    pub fn waiting_since(&self, producer: ProducerId) -> Option<Timestamp> {
        let (_, first) = self.producers.get(producer.at())?.first_ready()?;
        Some(self.bundles[first.at()].ready_at)
    }

    /// The ready bundle of an attached producer that has waited longest, whether it may start or not.
    pub fn next_ready(&self) -> Option<BundleId> {
        self.producers.iter().flat_map(Producer::all_ready).min().map(|(_, bundle)| bundle)
    }

    /// All ready bundles of attached producers, the one that has waited longest first.
    pub fn ready(&self) -> impl Iterator<Item = BundleId> + '_ {
        let mut all: Vec<(u64, BundleId)> = self.producers.iter().flat_map(Producer::all_ready).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, bundle)| bundle)
    }
}
