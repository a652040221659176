//! What others wait for or look at: how far commits are visible and durable, work for the workers, latencies.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use underbelly_storage::Timestamp;
use underbelly_wal::Publisher;

use crate::clock::Clock;
use crate::graph::{BundleId, CellId, Effects, Graph, ProducerId, State as CellState, Transition};
use crate::limits::LATENCY_SAMPLES;
use crate::parking::{Bell, Gate};
use crate::scribe::Duty;
use crate::variables::{Registry, Shown};

/// What a committed transaction sets off once it is visible.
pub(crate) struct Publication {
    pub sequenced: Instant,
    /// The earliest time for which something waits.
    pub due: Option<Timestamp>,
    pub transitions: Vec<Transition>,
    pub ready: Vec<BundleId>,
    /// Variables that it changed.
    pub variables: Vec<Shown>,
}

/// Who is to be woken for work.
#[derive(Default)]
pub(crate) struct Calls {
    /// Producers with threads of their own.
    attended: Vec<ProducerId>,
    /// The threads of all others.
    workers: bool,
}

/// Shared by the log's publisher, the workers and the handles.
pub(crate) struct Signals {
    clock: Arc<dyn Clock>,
    /// Transactions up to here are visible to this process.
    visible: AtomicU64,
    /// Transactions up to here are durable: all that anybody outside this process may be shown.
    durable: AtomicU64,
    /// Nothing is written any more.
    over: AtomicBool,
    /// Callers of [`Signals::wait_beyond`] and [`Signals::wait_told`].
    gate: Gate,
    /// Of the workers.
    pub doorbell: Bell,
    /// Of producers that have threads of their own.
    bells: RwLock<BTreeMap<ProducerId, Sender<()>>>,
    /// Producers whose work is done on the thread whose commit made it ready.
    inline: RwLock<BTreeSet<ProducerId>>,
    /// Whether there is such a one.
    has_inline: AtomicBool,
    duties: Mutex<Option<Sender<Duty>>>,
    /// Wakes who looks at the times for which something waits.
    alarm: Mutex<Option<Sender<()>>>,
    /// When that one wakes by itself.
    alarm_at: AtomicI64,
    /// Whether the last batch of the log is not acknowledged by another, and somebody was told.
    unsealed: AtomicBool,
    /// Whether somebody was asked to write starts of runs that nothing else takes to the disk.
    unshown: AtomicBool,
    on_durable: OnceLock<Box<dyn Fn(u64) + Send + Sync>>,
    latencies: Mutex<Samples>,
    /// Who reads variables without a snapshot.
    pub registry: Registry,
}

#[derive(Default)]
struct Samples {
    unsettled: HashMap<CellId, Instant>,
    ready: HashMap<BundleId, (Instant, Instant)>,
    commit_to_start: Vec<Duration>,
    wake: Vec<Duration>,
    commit_to_current: Vec<Duration>,
}

/// Middle and tail of a latency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Percentiles {
    /// Number of samples; the latest 65,536 are kept.
    pub samples: usize,
    /// Half of them took at most this.
    pub p50: Duration,
    /// 99 in 100 took at most this.
    pub p99: Duration,
}

/// How long things took since the database was opened or the latencies were reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Latencies {
    /// From a commit's place in the sequence to the start of a producer that it made ready, the wait until it is
    /// visible included.
    pub commit_to_start: Percentiles,
    /// From the moment that a commit was visible to the start of a producer that it made ready.
    pub wake: Percentiles,
    /// From the commit that unsettled a cell to the commit that made it current.
    pub commit_to_current: Percentiles,
}

impl Signals {
    /// Signals of a database whose transactions up to `durable` are durable.
    pub(crate) fn new(
        durable: u64,
        doorbell: Bell,
        duties: Sender<Duty>,
        alarm: Sender<()>,
        clock: Arc<dyn Clock>,
        registry: Registry,
    ) -> Signals {
        Signals {
            clock,
            visible: AtomicU64::new(durable),
            durable: AtomicU64::new(durable),
            over: AtomicBool::new(false),
            gate: Gate::new(),
            doorbell,
            bells: RwLock::default(),
            inline: RwLock::default(),
            has_inline: AtomicBool::new(false),
            duties: Mutex::new(Some(duties)),
            alarm: Mutex::new(Some(alarm)),
            alarm_at: AtomicI64::new(i64::MAX),
            unsealed: AtomicBool::new(false),
            unshown: AtomicBool::new(false),
            on_durable: OnceLock::new(),
            latencies: Mutex::default(),
            registry,
        }
    }

    /// Has `hear` called with the durable seq after each sync, before callers are answered. It must be quick and
    /// must not commit. Answers false where somebody listens already.
    pub(crate) fn on_durable(&self, hear: impl Fn(u64) + Send + Sync + 'static) -> bool {
        self.on_durable.set(Box::new(hear)).is_ok()
    }

    /// Wakes a worker.
    pub(crate) fn ring(&self) {
        self.doorbell.ring();
    }

    /// Gives a producer a bell of its own; the workers leave its work alone from then on.
    #[cfg(feature = "processes")]
    pub(crate) fn hang_bell(&self, producer: ProducerId, bell: Sender<()>) {
        let mut bells = self.bells.write().unwrap_or_else(PoisonError::into_inner);
        if !self.is_hung_up() {
            bells.insert(producer, bell);
        }
    }

    /// Takes a producer's own bell away.
    #[cfg(feature = "processes")]
    pub(crate) fn take_bell(&self, producer: ProducerId) {
        self.bells.write().unwrap_or_else(PoisonError::into_inner).remove(&producer);
    }

    /// Wakes one of a producer's own threads; false where it has none.
    pub(crate) fn ring_for(&self, producer: ProducerId) -> bool {
        let bells = self.bells.read().unwrap_or_else(PoisonError::into_inner);
        match bells.get(&producer) {
            Some(bell) => {
                let _ = bell.try_send(());
                true
            }
            None => false,
        }
    }

    /// Has a producer's work done on the thread whose commit made it ready, or by the workers.
    pub(crate) fn set_inline(&self, producer: ProducerId, is_inline: bool) {
        let mut inline = self.inline.write().unwrap_or_else(PoisonError::into_inner);
        match is_inline {
            true => drop(inline.insert(producer)),
            false => drop(inline.remove(&producer)),
        }
        self.has_inline.store(!inline.is_empty(), Ordering::Release);
    }

    /// Whether the work of some producer is done on the thread whose commit made it ready.
    pub(crate) fn has_inline(&self) -> bool {
        self.has_inline.load(Ordering::Acquire)
    }

    /// Whether the work of this producer is.
    pub(crate) fn is_inline(&self, producer: ProducerId) -> bool {
        self.inline.read().unwrap_or_else(PoisonError::into_inner).contains(&producer)
    }

    /// Those of these bundles whose work is.
    pub(crate) fn inline_of(&self, graph: &Graph, bundles: &[BundleId]) -> BTreeSet<BundleId> {
        let inline = self.inline.read().unwrap_or_else(PoisonError::into_inner);
        let is_inline =
            |bundle: &BundleId| graph.producer_of(*bundle).is_some_and(|producer| inline.contains(&producer));
        bundles.iter().copied().filter(is_inline).collect()
    }

    /// Who is to be woken for what a transaction did. `own`: bundles that the thread that commits does itself.
    pub(crate) fn calls(&self, graph: &Graph, effects: &Effects, own: &BTreeSet<BundleId>) -> Calls {
        let Effects { ready, freed, .. } = effects;
        let bells = self.bells.read().unwrap_or_else(PoisonError::into_inner);
        if bells.is_empty() && own.is_empty() {
            return Calls { attended: Vec::new(), workers: !freed.is_empty() || !ready.is_empty() };
        }
        let mut calls = Calls::default();
        let ready = ready.iter().filter(|bundle| !own.contains(bundle));
        let producers = ready.filter_map(|bundle| graph.producer_of(*bundle));
        for producer in producers.chain(freed.iter().copied()) {
            match bells.contains_key(&producer) {
                true if calls.attended.contains(&producer) => {}
                true => calls.attended.push(producer),
                false => calls.workers = true,
            }
        }
        calls
    }

    /// Wakes them. What they are woken for is in the state: who claims afterwards finds it.
    pub(crate) fn call(&self, calls: &Calls) {
        for producer in &calls.attended {
            self.ring_for(*producer);
        }
        if calls.workers {
            self.ring();
        }
    }

    /// Notes when the timer wakes by itself.
    pub(crate) fn set_alarm(&self, at: Timestamp) {
        self.alarm_at.store(at.0, Ordering::SeqCst);
    }

    /// Has the timer look anew at the times for which something waits.
    pub(crate) fn ring_alarm(&self) {
        if let Some(alarm) = &*self.alarm.lock().unwrap_or_else(PoisonError::into_inner) {
            // One ring that was not heard yet says all.
            let _ = alarm.try_send(());
        }
    }

    /// Asks the scribe; false where it has so much to do that this is forgotten. A write is then on its way.
    pub(crate) fn ask(&self, duty: Duty) -> bool {
        let duties = self.duties.lock().unwrap_or_else(PoisonError::into_inner);
        duties.as_ref().is_some_and(|duties| duties.try_send(duty).is_ok())
    }

    /// Notes that the log is being sealed, so that the next batch asks anew.
    pub(crate) fn sealed(&self) {
        self.unsealed.store(false, Ordering::SeqCst);
    }

    /// Has a start that rides with the next commit written in a while if none comes.
    pub(crate) fn show_start(&self) {
        if !self.unshown.swap(true, Ordering::SeqCst) && !self.ask(Duty::WriteLater) {
            self.shown();
        }
    }

    /// Notes that the scribe writes in a while what is queued, so that starts need not ask for it.
    pub(crate) fn writes_soon(&self) {
        self.unshown.store(true, Ordering::SeqCst);
    }

    /// The starts are about to be written.
    pub(crate) fn shown(&self) {
        self.unshown.store(false, Ordering::SeqCst);
    }

    /// Sends the workers and the scribe home.
    pub(crate) fn hang_up(&self) {
        self.doorbell.hang_up();
        self.bells.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.duties.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.alarm.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.gate.wake_all();
    }

    /// Notes that nothing is written any more.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.gate.wake();
        self.registry.ring();
    }

    /// Whether nothing is written any more.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Whether the workers were sent home.
    pub(crate) fn is_hung_up(&self) -> bool {
        self.doorbell.is_hung_up()
    }

    /// The seq up to which transactions are visible to this process.
    pub(crate) fn visible(&self) -> u64 {
        self.visible.load(Ordering::SeqCst)
    }

    /// The seq up to which transactions are durable.
    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::SeqCst)
    }

    /// The seq up to which transactions are visible and durable.
    pub(crate) fn told(&self) -> u64 {
        self.visible().min(self.durable())
    }

    /// Waits until something is published or `timeout` has passed; true where something was published after
    /// `seen`.
    pub(crate) fn wait_beyond(&self, seen: u64, timeout: Duration) -> bool {
        self.gate.wait_while(timeout, || self.visible() <= seen && !self.is_hung_up());
        self.visible() > seen
    }

    /// Waits until something is published after `seen`, nothing is written any more, or `timeout` has passed.
    pub(crate) fn wait_visible(&self, seen: u64, timeout: Duration) {
        self.gate.wait_while(timeout, || self.visible() <= seen && !self.is_over());
    }

    /// Waits until a transaction after `seen` is visible and durable, nothing is written any more, or `timeout` has passed.
    pub(crate) fn wait_told(&self, seen: u64, timeout: Duration) {
        self.gate.wait_while(timeout, || self.told() <= seen && !self.is_over());
    }

    /// Notes that runs over bundles start now, and answers how long ago each became ready.
    pub(crate) fn note_starts(&self, bundles: impl Iterator<Item = BundleId>) -> Vec<Duration> {
        let now = self.clock.instant();
        let mut samples = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        let note = |bundle| {
            let Some((sequenced, visible)) = samples.ready.remove(&bundle) else { return Duration::ZERO };
            keep(&mut samples.commit_to_start, now.saturating_duration_since(sequenced));
            keep(&mut samples.wake, now.saturating_duration_since(visible));
            now.saturating_duration_since(sequenced)
        };
        bundles.map(note).collect()
    }

    pub(crate) fn latencies(&self) -> Latencies {
        // Sorted outside the lock, which publishing takes.
        let (commit_to_start, wake, commit_to_current) = {
            let samples = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
            (samples.commit_to_start.clone(), samples.wake.clone(), samples.commit_to_current.clone())
        };
        Latencies {
            commit_to_start: percentiles(commit_to_start),
            wake: percentiles(wake),
            commit_to_current: percentiles(commit_to_current),
        }
    }

    pub(crate) fn reset_latencies(&self) {
        let mut samples = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        samples.commit_to_start.clear();
        samples.wake.clear();
        samples.commit_to_current.clear();
    }
}

impl Publisher<Publication> for Arc<Signals> {
    fn publish(&self, seq: u64, items: &mut dyn Iterator<Item = (u64, Publication)>) {
        let mut due = None;
        // Before: who sees the number sees the variables too.
        let items: Vec<(u64, Publication)> = items.collect();
        let mut publications = Vec::with_capacity(items.len());
        for (at, mut publication) in items {
            let variables = std::mem::take(&mut publication.variables);
            if !variables.is_empty() {
                self.registry.show(at, variables);
            }
            publications.push(publication);
        }
        self.visible.store(seq, Ordering::SeqCst);
        for publication in publications {
            let now = self.clock.instant();
            self.latencies.lock().unwrap_or_else(PoisonError::into_inner).note(&publication, now);
            due = publication.due;
        }
        self.gate.wake();
        if due.is_some_and(|due: Timestamp| due.0 < self.alarm_at.load(Ordering::SeqCst)) {
            self.ring_alarm();
        }
    }

    fn synced(&self, seq: u64) {
        // First: whoever sees the number elsewhere sees the variables too. They were shown here when it was published.
        self.registry.tell(seq);
        // Then: whoever sees the number here may count on others seeing it.
        if let Some(hear) = self.on_durable.get() {
            hear(seq);
        }
        self.durable.store(seq, Ordering::SeqCst);
        self.gate.wake();
        if !self.unsealed.swap(true, Ordering::SeqCst) && !self.ask(Duty::Seal) {
            self.sealed();
        }
    }

    fn wants_spare(&self) {
        self.ask(Duty::Prepare);
    }
}

impl Samples {
    fn note(&mut self, publication: &Publication, now: Instant) {
        for transition in &publication.transitions {
            match transition.to {
                CellState::Current => {
                    if let Some(since) = self.unsettled.remove(&transition.cell) {
                        keep(&mut self.commit_to_current, now.saturating_duration_since(since));
                    }
                }
                CellState::Updated | CellState::Pending | CellState::Stale => {
                    self.unsettled.entry(transition.cell).or_insert(publication.sequenced);
                }
                CellState::Void | CellState::Invalid => {
                    self.unsettled.remove(&transition.cell);
                }
            }
        }
        for bundle in &publication.ready {
            self.ready.insert(*bundle, (publication.sequenced, now));
        }
    }
}

fn keep(samples: &mut Vec<Duration>, sample: Duration) {
    if samples.len() >= LATENCY_SAMPLES {
        samples.drain(..LATENCY_SAMPLES / 2);
    }
    samples.push(sample);
}

fn percentiles(mut sorted: Vec<Duration>) -> Percentiles {
    sorted.sort_unstable();
    let at = |q: usize| sorted.get((sorted.len() * q / 100).min(sorted.len().saturating_sub(1))).copied();
    Percentiles { samples: sorted.len(), p50: at(50).unwrap_or_default(), p99: at(99).unwrap_or_default() }
}
