//! Appends that look at the rows which are there: to one type one after another, from the look to the seq.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// A gate for each type. Whoever passes several takes them in the order of their names.
#[derive(Default)]
pub(crate) struct Gates {
    by_series: Mutex<HashMap<Arc<str>, Arc<Gate>>>,
    /// Whether a type asks for it. Most databases have none, and appends ask nothing more.
    is_wanted: AtomicBool,
}

#[derive(Default)]
struct Gate {
    taken: Mutex<bool>,
    freed: Condvar,
}

/// The gate of a type that was passed, until it is dropped.
pub(crate) struct Passed {
    pub series: Arc<str>,
    gate: Arc<Gate>,
}

impl Gates {
    /// From now on appends ask.
    pub(crate) fn want(&self) {
        self.is_wanted.store(true, Ordering::Release);
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Acquire)
    }

    /// Waits until nobody else is behind the gate of a type.
    pub(crate) fn pass(&self, series: &Arc<str>) -> Passed {
        let gate = {
            let mut gates = self.by_series.lock().unwrap_or_else(PoisonError::into_inner);
            gates.entry(series.clone()).or_default().clone()
        };
        let mut taken = gate.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken {
            taken = gate.freed.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        *taken = true;
        drop(taken);
        Passed { series: series.clone(), gate }
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        *self.gate.taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.gate.freed.notify_one();
    }
}
