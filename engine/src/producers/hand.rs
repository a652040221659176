//! Hands: batches that a worker has claimed together, where others can reach them.
//!
//! What is claimed together is ended together, so a run that takes long would hold up the ends of those before it and the start
//! of those behind it. The timer looks at the hands that are open: what waits for longer than a moment it ends, and it wakes a
//! worker, which takes over the rest.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
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
/// How soon it does at the latest.
const PAUSE_MAX: Duration = Duration::from_secs(1);

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
    /// Rung when what the timer took is back.
    back: Condvar,
}

struct Held {
    /// Batches that were not called yet.
    rest: VecDeque<Vec<Started>>,
    /// Runs that are not ended yet.
    finished: Vec<Finished>,
    /// Of those the ones that the disk refused, which lie for a while before they are tried again.
    refused: Vec<Finished>,
    pause: Pause,
    /// Since when the batch runs that was called last.
    called: Instant,
    /// Since when runs may lie among the finished.
    concluded: Instant,
    /// The timer is ending some of the finished.
    is_lent: bool,
    /// The last commit of the timer's.
    last: Option<u64>,
    is_closed: bool,
}

/// Since when something lies, and for how long: twice as long each time.
struct Pause {
    since: Instant,
    length: Duration,
}

impl Pause {
    fn none(now: Instant) -> Pause {
        Pause { since: now, length: Duration::ZERO }
    }

    fn again(&mut self, now: Instant) {
        self.since = now;
        self.length = (self.length * 2).clamp(PAUSE, PAUSE_MAX);
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= self.length
    }
}

/// Runs that the timer has taken out of a hand to end them. Whose hand it is waits for them before it is closed, and ends what
/// the disk refused: the timer waits for no disk.
struct Loan<'h> {
    hand: &'h Hand,
    refused: Vec<Finished>,
    last: Option<u64>,
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        let mut held = self.hand.held();
        let now = Instant::now();
        match self.refused.is_empty() {
            // What lies there still was not tried.
            true if !held.refused.is_empty() => {}
            true => held.pause = Pause::none(now),
            false => held.pause.again(now),
        }
        held.refused.append(&mut self.refused);
        held.last = held.last.max(self.last);
        held.is_lent = false;
        drop(held);
        self.hand.back.notify_all();
    }
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

    /// Takes all that have finished, once the timer has given back what it took; and the last commit in which it ended some.
    /// From then on nobody looks at it.
    pub fn close(&self) -> (Vec<Finished>, Option<u64>) {
        let mut held = self.held();
        held.is_closed = true;
        while held.is_lent {
            held = self.back.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        held.pause = Pause::none(Instant::now());
        (held.conclude(), held.last)
    }
}

impl Held {
    fn conclude(&mut self) -> Vec<Finished> {
        self.concluded = Instant::now();
        let mut runs = Vec::new();
        if self.pause.is_over(self.concluded) {
            runs.append(&mut self.refused);
        }
        runs.append(&mut self.finished);
        runs
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
            refused: Vec::new(),
            pause: Pause::none(now),
            called: now,
            concluded: now,
            is_lent: false,
            last: None,
            is_closed: false,
        };
        let held = Mutex::new(held);
        let hand = Arc::new(Hand { snapshot: snapshot.clone(), others, held, back: Condvar::new() });
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
        for hand in hands {
            let (finished, has_rest) = {
                let mut held = hand.held();
                if held.is_closed || !held.is_held_up() {
                    continue;
                }
                held.is_lent = true;
                (held.conclude(), !held.rest.is_empty())
            };
            let mut loan = Loan { hand: &hand, refused: Vec::new(), last: None };
            if has_rest && hand.others == Others::TakeOver {
                core.signals.ring();
            }
            let mut ends = Ends::default();
            loan.refused = ends.conclude_at_once(core, finished);
            loan.last = ends.last();
            drop(loan);
            if let Err(error) = ends.settle(core) {
                core.note_trouble(format!("the timer could not commit: {error}"));
            }
        }
        Some(MOMENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the disk refuses again and again is tried less and less often, and at once when it got through.
    #[test]
    fn pauses_double_up_to_a_second() {
        let start = Instant::now();
        let mut pause = Pause::none(start);
        assert!(pause.is_over(start));
        for milliseconds in [20, 40, 80, 160, 320, 640, 1000, 1000] {
            pause.again(start);
            let length = Duration::from_millis(milliseconds);
            assert!(pause.is_over(start + length));
            assert!(!pause.is_over(start + length - Duration::from_millis(1)));
        }
    }
}
