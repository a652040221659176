//! Where threads sleep: workers on a bell until there is work, callers at a gate until a number has risen.
//!
//! Invariants:
//! - Work that was there before a ring is found by a worker that the ring wakes, or by one that has not slept since.
//! - Whoever sees a number too low at the gate is woken when it has risen. No lock is taken to raise it.
//!
//! `tests/parking` checks both on this very file, for every order in which threads may go on: it brings a module `sync` of its
//! own.

use std::time::{Duration, Instant};

use super::sync::{AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, PoisonError, fence};

/// What workers sleep on. It holds one ring for each: more would say nothing new, since a worker that wakes takes all work that
/// there is.
pub(crate) struct Bell {
    most: usize,
    state: Mutex<Rung>,
    rung: Condvar,
}

#[derive(Default)]
struct Rung {
    rings: usize,
    is_over: bool,
}

impl Bell {
    /// A bell for so many workers.
    pub(crate) fn new(workers: usize) -> Bell {
        Bell { most: workers.max(1), state: Mutex::new(Rung::default()), rung: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, Rung> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes a worker, now or when it comes back.
    pub(crate) fn ring(&self) {
        let mut state = self.state();
        if state.rings < self.most {
            state.rings += 1;
            drop(state);
            self.rung.notify_one();
        }
    }

    /// Sleeps until it is rung; false where it never will be again.
    pub(crate) fn wait(&self) -> bool {
        let mut state = self.state();
        while state.rings == 0 && !state.is_over {
            state = self.rung.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.rings = if state.is_over { 0 } else { state.rings - 1 };
        !state.is_over
    }

    /// Sends all workers home.
    pub(crate) fn hang_up(&self) {
        self.state().is_over = true;
        self.rung.notify_all();
    }

    /// Whether that was done.
    pub(crate) fn is_hung_up(&self) -> bool {
        self.state().is_over
    }
}

/// Where callers wait for numbers that others raise.
pub(crate) struct Gate {
    /// Who waits. Waking nobody would still be a system call.
    waiting: AtomicUsize,
    gate: Mutex<()>,
    opened: Condvar,
}

impl Gate {
    pub(crate) fn new() -> Gate {
        Gate { waiting: AtomicUsize::new(0), gate: Mutex::new(()), opened: Condvar::new() }
    }

    fn gate(&self) -> MutexGuard<'_, ()> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while the numbers are too low, but no longer than `timeout`.
    pub(crate) fn wait_while(&self, timeout: Duration, waits: impl Fn() -> bool) {
        let began = Instant::now();
        // Counted before the number is looked at; who raises it does so before the count is looked at.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let mut gate = self.gate();
        while waits() {
            let Some(left) = timeout.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) else {
                break;
            };
            gate = self.opened.wait_timeout(gate, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(gate);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    /// Wakes who waits for numbers that were raised.
    pub(crate) fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.wake_all();
        }
    }

    /// The same for what is no number.
    pub(crate) fn wake_all(&self) {
        // Whoever has looked holds this lock until it waits.
        drop(self.gate());
        self.opened.notify_all();
    }
}
