//! Work under the state's lock, cut into slices so that commits are never held up for long.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::core::Core;
use crate::error::CommitError;
use crate::state::State;

/// Time after which a slice ends with the step that is under way. A step takes a few microseconds.
const SLICE: Duration = Duration::from_micros(120);

/// Steps between two looks at the clock.
const STEPS: u32 = 4;

pub(super) struct Slices<'c> {
    core: &'c Core,
    pub count: u64,
    pub longest: Duration,
}

impl<'c> Slices<'c> {
    pub(super) fn new(core: &'c Core) -> Slices<'c> {
        Slices { core, count: 0, longest: Duration::ZERO }
    }

    fn note(&mut self, took: Duration) {
        self.count += 1;
        self.longest = self.longest.max(took);
    }

    /// One step, in a slice of its own.
    pub(super) fn once<T>(&mut self, step: impl FnOnce(&mut State) -> T) -> Result<T, CommitError> {
        let mut state = self.core.sound_state()?;
        let began = Instant::now();
        let answer = step(&mut state);
        let took = began.elapsed();
        drop(state);
        self.note(took);
        Ok(answer)
    }

    /// The same where nothing can be refused any more.
    pub(super) fn once_even_if_poisoned(&mut self, step: impl FnOnce(&mut State)) {
        let mut state = self.core.state.lock().unwrap_or_else(PoisonError::into_inner);
        let began = Instant::now();
        step(&mut state);
        let took = began.elapsed();
        drop(state);
        self.note(took);
    }

    /// Steps until one answers false, or the slice is over. False in the first case.
    pub(super) fn slice(&mut self, mut step: impl FnMut(&mut State) -> bool) -> Result<bool, CommitError> {
        self.once(|state| {
            let began = Instant::now();
            loop {
                for _ in 0..STEPS {
                    if !step(state) {
                        return false;
                    }
                }
                if began.elapsed() >= SLICE {
                    return true;
                }
            }
        })
    }

    /// Steps until one answers false, in as many slices as it takes.
    pub(super) fn all(&mut self, mut step: impl FnMut(&mut State) -> bool) -> Result<(), CommitError> {
        while self.slice(&mut step)? {
            // Who waits for the lock gets it first.
            std::thread::yield_now();
        }
        Ok(())
    }
}
