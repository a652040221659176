//! What others wait for or look at: how far commits are visible, work for the workers, latencies.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::graph::{BundleId, CellId, State as CellState, Transition};
use crate::limits::LATENCY_SAMPLES;

/// What a committed transaction sets off once it is durable.
pub(crate) struct Publication {
    pub sequenced: Instant,
    pub transitions: Vec<Transition>,
    pub ready: Vec<BundleId>,
}

/// Shared by the log's publisher, the workers and the handles.
pub(crate) struct Signals {
    published: Mutex<Published>,
    advanced: Condvar,
    doorbell: Mutex<Option<Sender<()>>>,
    latencies: Mutex<Samples>,
}

struct Published {
    seq: u64,
    /// Callers of [`Signals::wait_beyond`]. Waking nobody would still be a system call.
    waiting: usize,
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
    /// From a commit's place in the sequence to the start of a producer that it made ready, durability included.
    pub commit_to_start: Percentiles,
    /// From a commit's durability to the start of a producer that it made ready.
    pub wake: Percentiles,
    /// From the commit that unsettled a cell to the commit that made it current.
    pub commit_to_current: Percentiles,
}

impl Signals {
    pub(crate) fn new(visible: u64, doorbell: Sender<()>) -> Signals {
        Signals {
            published: Mutex::new(Published { seq: visible, waiting: 0 }),
            advanced: Condvar::new(),
            doorbell: Mutex::new(Some(doorbell)),
            latencies: Mutex::default(),
        }
    }

    /// Called in order of seqs, after the transaction became durable.
    pub(crate) fn publish(&self, seq: u64, publication: Publication) {
        let now = Instant::now();
        if !publication.transitions.is_empty() || !publication.ready.is_empty() {
            let mut samples = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
            samples.note(&publication, now);
        }
        let waiting = {
            let mut published = self.published();
            published.seq = seq;
            published.waiting
        };
        if waiting > 0 {
            self.advanced.notify_all();
        }
        if !publication.ready.is_empty() {
            self.ring();
        }
    }

    /// Wakes a worker. The bell holds one ring for each worker; more would say nothing new, since a worker that
    /// wakes takes all work that there is.
    pub(crate) fn ring(&self) {
        if let Some(doorbell) = &*self.doorbell.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = doorbell.try_send(());
        }
    }

    /// Sends the workers home.
    pub(crate) fn hang_up(&self) {
        self.doorbell.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Whoever looked at the bell before it was taken holds this lock until it waits.
        drop(self.published());
        self.advanced.notify_all();
    }

    /// Whether the workers were sent home.
    pub(crate) fn is_hung_up(&self) -> bool {
        self.doorbell.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// The seq up to which transactions are visible.
    pub(crate) fn visible(&self) -> u64 {
        self.published().seq
    }

    fn published(&self) -> MutexGuard<'_, Published> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something is published or `timeout` has passed; true where something was published after
    /// `seen`.
    pub(crate) fn wait_beyond(&self, seen: u64, timeout: Duration) -> bool {
        let mut published = self.published();
        published.waiting += 1;
        let waits = |published: &mut Published| published.seq <= seen && !self.is_hung_up();
        let waited = self.advanced.wait_timeout_while(published, timeout, waits);
        let (mut published, _) = waited.unwrap_or_else(PoisonError::into_inner);
        published.waiting -= 1;
        published.seq > seen
    }

    /// Notes that a run over a bundle starts now, and answers how long ago the bundle became ready.
    pub(crate) fn note_start(&self, bundle: BundleId) -> Duration {
        let now = Instant::now();
        let mut samples = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((sequenced, durable)) = samples.ready.remove(&bundle) else { return Duration::ZERO };
        keep(&mut samples.commit_to_start, now.saturating_duration_since(sequenced));
        keep(&mut samples.wake, now.saturating_duration_since(durable));
        now.saturating_duration_since(sequenced)
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
