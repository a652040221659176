//! How long runs take, so that a worker takes as many short ones at once as fill a moment.
//!
//! What is taken together is committed together: one sync for many runs, whatever a producer's batches are. What takes long is
//! taken batch by batch, so that all workers have some of it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::graph::ProducerId;
use crate::limits::RUNS_OF_RECORD_MAX;

/// What the runs that a worker takes together should last, and the longest that an end waits for others.
pub(super) const MOMENT: Duration = Duration::from_millis(1);

/// How long a run of each producer took of late.
#[derive(Default)]
pub(crate) struct Paces(Mutex<HashMap<ProducerId, Duration>>);

impl Paces {
    fn known(&self) -> MutexGuard<'_, HashMap<ProducerId, Duration>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that so many runs took so long. A long one counts at once, short ones bit by bit.
    pub(super) fn note(&self, producer: ProducerId, runs: usize, took: Duration) {
        let runs = u32::try_from(runs).unwrap_or(u32::MAX).max(1);
        let took = took / runs;
        let mut known = self.known();
        let pace = known.entry(producer).or_insert(took);
        *pace = took.max((*pace * 7 + took) / 8);
    }

    /// Runs that fill a moment; 1 where it is not known how long they take.
    pub(crate) fn handful(&self, producer: ProducerId) -> u32 {
        let Some(pace) = self.known().get(&producer).copied() else { return 1 };
        let runs = MOMENT.as_nanos() / pace.as_nanos().max(1);
        u32::try_from(runs).unwrap_or(u32::MAX).clamp(1, RUNS_OF_RECORD_MAX as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_short_runs_or_one_long_one_fill_a_moment() {
        let (paces, producer) = (Paces::default(), ProducerId(3));
        assert_eq!(paces.handful(producer), 1, "nothing is known");
        paces.note(producer, 10, Duration::from_micros(100));
        assert_eq!(paces.handful(producer), 100);
        paces.note(producer, 1, Duration::from_secs(1));
        assert_eq!(paces.handful(producer), 1);
        (0..200).for_each(|_| paces.note(producer, 64, Duration::from_micros(64)));
        assert_eq!(paces.handful(producer), RUNS_OF_RECORD_MAX as u32);
    }
}
