//! No wake-up is lost, in whatever order threads go on: the engine's own places to sleep under a model checker, which tries
//! every order up to a number of switches between threads.

#![allow(clippy::unwrap_used)]

// The engine's file as it is; what it uses of the standard library comes from the model checker.
#[path = "../../engine/src/parking.rs"]
#[allow(dead_code)]
mod parking;

mod sync {
    pub use std::sync::PoisonError;

    pub use loom::sync::atomic::{AtomicUsize, Ordering, fence};
    pub use loom::sync::{Condvar, Mutex, MutexGuard};
}

use std::time::Duration;

use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

use parking::{Bell, Gate};

/// Tries all orders with so many switches that are not forced.
fn explore(switches: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut explorer = loom::model::Builder::new();
    explorer.preemption_bound = Some(switches);
    explorer.check(model);
}

/// Ready work under the state's lock, and the bell.
struct Engine {
    ready: Mutex<usize>,
    bell: Bell,
    done: AtomicUsize,
}

impl Engine {
    fn new(workers: usize) -> Arc<Engine> {
        Arc::new(Engine { ready: Mutex::new(0), bell: Bell::new(workers), done: AtomicUsize::new(0) })
    }

    /// As a commit does: what is ready is in the state before anybody is woken.
    fn commit(&self) {
        *self.ready.lock().unwrap() += 1;
        self.bell.ring();
    }

    /// As a worker does: it takes all that there is, wakes the next one with each, and sleeps. It goes home once `all` is done.
    fn work(&self, all: usize) {
        while self.bell.wait() {
            loop {
                let claimed = {
                    let mut ready = self.ready.lock().unwrap();
                    let is_there = *ready > 0;
                    *ready -= usize::from(is_there);
                    is_there
                };
                if !claimed {
                    break;
                }
                self.bell.ring();
                if self.done.fetch_add(1, Ordering::SeqCst) + 1 == all {
                    self.bell.hang_up();
                }
            }
        }
    }
}

/// A thread that sleeps for ever while there is work would be a deadlock, which the checker tells.
fn everything_is_worked_off(workers: usize, commits: usize, switches: usize) {
    explore(switches, move || {
        let engine = Engine::new(workers);
        let of = |engine: &Arc<Engine>| engine.clone();
        let there: Vec<_> = (0..workers)
            .map(|_| {
                let engine = of(&engine);
                thread::spawn(move || engine.work(commits))
            })
            .collect();
        let committer = {
            let engine = of(&engine);
            thread::spawn(move || engine.commit())
        };
        (1..commits).for_each(|_| engine.commit());
        committer.join().unwrap();
        there.into_iter().for_each(|worker| worker.join().unwrap());
        assert_eq!((engine.done.load(Ordering::SeqCst), *engine.ready.lock().unwrap()), (commits, 0));
    });
}

#[test]
fn a_worker_that_falls_asleep_misses_no_commit() {
    everything_is_worked_off(1, 2, 4);
    everything_is_worked_off(1, 3, 3);
}

#[test]
fn several_workers_miss_no_commit() {
    everything_is_worked_off(2, 2, 2);
}

#[test]
fn who_waits_at_the_gate_sees_the_number_rise() {
    explore(4, || {
        let (gate, visible) = (Arc::new(Gate::new()), Arc::new(AtomicU64::new(0)));
        let publisher = {
            let (gate, visible) = (gate.clone(), visible.clone());
            thread::spawn(move || {
                for seq in 1..=2 {
                    visible.store(seq, Ordering::SeqCst);
                    gate.wake();
                }
            })
        };
        let waiter = {
            let (gate, visible) = (gate.clone(), visible.clone());
            thread::spawn(move || gate.wait_while(Duration::MAX, || visible.load(Ordering::SeqCst) < 2))
        };
        gate.wait_while(Duration::MAX, || visible.load(Ordering::SeqCst) < 1);
        assert!(visible.load(Ordering::SeqCst) >= 1);
        publisher.join().unwrap();
        waiter.join().unwrap();
    });
}
