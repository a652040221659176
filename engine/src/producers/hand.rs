//! Hands: batches that a worker has claimed together, where others can reach them.
//!
//! What is claimed together is ended together, so a run that takes long would hold up the ends of those before it and the start
//! of those behind it. The timer looks at the hands that are open: what waits for longer than a moment it ends, and it wakes a
//! worker, which takes over the rest.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::pace::MOMENT;
use super::worker::{Ends, Finished};
use crate::core::Core;
use crate::graph::Started;
use crate::limits::RUNS_OF_RECORD_MAX;
use crate::signals::Signals;
use crate::snapshot::Snapshot;

/// How soon the timer tries again where the disk refused.
const PAUSE: Duration = Duration::from_millis(20);

/// The hands that are open.
#[derive(Default)]
pub(crate) struct Hands(Mutex<Open>);

#[derive(Default)]
struct Open {
    hands: Vec<Arc<Hand>>,
    /// Whether the timer looks at them.
    is_watched: bool,
}

/// What other threads may do with a hand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    Nothing,
    /// End what has finished.
    End,
    /// End what has finished, and call the rest.
    TakeOver,
}

/// What one thread has claimed together.
pub(super) struct Hand {
    snapshot: Snapshot,
    others: Others,
    held: Mutex<Held>,
}

struct Held {
    /// Batches that were not called yet.
    rest: VecDeque<Vec<Started>>,
    /// Runs that are not ended yet.
    finished: Vec<Finished>,
    /// Since when the batch runs that was called last.
    called: Instant,
    /// Since when runs may lie among the finished.
    concluded: Instant,
    is_closed: bool,
}

impl Hand {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch to call.
    pub fn next(&self) -> Option<Vec<Started>> {
        let mut held = self.held();
        held.called = Instant::now();
        held.rest.pop_front()
    }

    /// Takes what is left to call.
    pub fn rest(&self) -> Vec<Started> {
        self.held().rest.drain(..).flatten().collect()
    }

    /// Takes runs that have finished; answers all that are to be ended now.
    pub fn finish(&self, runs: Vec<Finished>) -> Vec<Finished> {
        let mut held = self.held();
        held.finished.extend(runs);
        let is_time = held.finished.len() >= RUNS_OF_RECORD_MAX || held.concluded.elapsed() >= MOMENT;
        if is_time { held.conclude() } else { Vec::new() }
    }

    /// Takes all that have finished. From then on nobody looks at it.
    pub fn close(&self) -> Vec<Finished> {
        let mut held = self.held();
        held.is_closed = true;
        held.conclude()
    }

    /// Gives back what could not be ended; answers it where nobody looks at it any more.
    fn put_back(&self, runs: Vec<Finished>) -> Vec<Finished> {
        let mut held = self.held();
        if held.is_closed {
            return runs;
        }
        held.finished.extend(runs);
        Vec::new()
    }
}

impl Held {
    fn conclude(&mut self) -> Vec<Finished> {
        self.concluded = Instant::now();
        std::mem::take(&mut self.finished)
    }

    /// Whether a run has taken so long that the others do not wait for it.
    fn is_held_up(&self) -> bool {
        self.called.elapsed() >= MOMENT
    }
}

impl Hands {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a hand of such batches. Of a single one there is nothing for others to do.
    pub(super) fn take(
        &self,
        signals: &Signals,
        batches: Vec<Vec<Started>>,
        snapshot: &Snapshot,
        others: Others,
    ) -> Arc<Hand> {
        let now = Instant::now();
        let is_alone = batches.len() < 2 || others == Others::Nothing;
        let held = Held {
            rest: batches.into(),
            finished: Vec::new(),
            called: now,
            concluded: now,
            is_closed: false,
        };
        let hand = Arc::new(Hand { snapshot: snapshot.clone(), others, held: Mutex::new(held) });
        if is_alone {
            return hand;
        }
        let is_watched = {
            let mut open = self.open();
            open.hands.push(hand.clone());
            std::mem::replace(&mut open.is_watched, true)
        };
        if !is_watched {
            signals.ring_alarm();
        }
        hand
    }

    /// Closes a hand whose batches were all called.
    pub(super) fn close(&self, hand: &Arc<Hand>) {
        self.open().hands.retain(|open| !Arc::ptr_eq(open, hand));
    }

    /// Takes over what is behind a run that takes long.
    pub(super) fn take_over(&self) -> Option<(Vec<Started>, Snapshot)> {
        let open = self.open();
        let rest = |hand: &Arc<Hand>| {
            let mut held = hand.held();
            if hand.others != Others::TakeOver || held.rest.is_empty() || !held.is_held_up() {
                return None;
            }
            Some((held.rest.drain(..).flatten().collect(), hand.snapshot.clone()))
        };
        open.hands.iter().find_map(rest)
    }

    /// Ends what has finished before a run that takes long, and wakes a worker for what is behind it. Answers how soon to look
    /// again; `None` where no hand is open.
    pub(super) fn look(&self, core: &Arc<Core>) -> Option<Duration> {
        let hands = {
            let mut open = self.open();
            if open.hands.is_empty() {
                open.is_watched = false;
                return None;
            }
            open.hands.clone()
        };
        let mut again = MOMENT;
        for hand in hands {
            let (finished, has_rest) = {
                let mut held = hand.held();
                if !held.is_held_up() {
                    continue;
                }
                (held.conclude(), !held.rest.is_empty())
            };
            if has_rest && hand.others == Others::TakeOver {
                core.signals.ring();
            }
            let mut ends = Ends::default();
            let refused = ends.conclude_at_once(core, finished);
            if !refused.is_empty() {
                // The thread whose hand it is waits for the disk, unless it has gone on.
                ends.conclude(core, hand.put_back(refused));
                again = PAUSE;
            }
            if let Err(error) = ends.settle(core) {
                core.note_trouble(format!("the timer could not commit: {error}"));
            }
        }
        Some(again)
    }
}
