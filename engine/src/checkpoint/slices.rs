//! Work under the state's lock, cut into slices so that commits are never held up for long.

use std::sync::PoisonError;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use underbelly_wal::Log;

use crate::core::Core;
use crate::error::CommitError;
use crate::state::State;

/// Time after which a slice ends with the step that is under way. A step takes a few microseconds.
const SLICE: Duration = Duration::from_micros(120);

/// Steps between two looks at the clock.
const STEPS: u32 = 4;

/// What held commits up, and how long.
pub(super) struct Slices<'c> {
    core: &'c Core,
    pub count: u64,
    /// The longest by the clock, with what other threads and processes took of it.
    pub longest: Duration,
    /// The longest in processor time: what is left where nobody else wants the processor.
    pub busiest: Duration,
}

/// Processor time of this thread so far.
fn busy() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

impl<'c> Slices<'c> {
    pub(super) fn new(core: &'c Core) -> Slices<'c> {
        Slices { core, count: 0, longest: Duration::ZERO, busiest: Duration::ZERO }
    }

    /// Does something while commits are held up, and counts it.
    fn timed<T>(&mut self, act: impl FnOnce() -> T) -> T {
        let clock = &self.core.options.clock;
        let (began, was_busy) = (clock.instant(), busy());
        let answer = act();
        let (took, worked) =
            (clock.instant().saturating_duration_since(began), busy().saturating_sub(was_busy));
        self.count += 1;
        self.longest = self.longest.max(took);
        self.busiest = self.busiest.max(worked);
        answer
    }

    /// One step, in a slice of its own.
    pub(super) fn once<T>(&mut self, step: impl FnOnce(&mut State) -> T) -> Result<T, CommitError> {
        // Who waits for the lock may get it first. Nothing promises that: the lock goes to whoever asks at the right moment,
        // so a commit that came back a little late, or was not woken yet, may wait for several slices.
        self.core.options.clock.give_way();
        let core = self.core;
        let mut state = core.sound_state()?;
        Ok(self.timed(|| step(&mut state)))
    }

    /// The same where nothing can be refused any more.
    pub(super) fn once_even_if_poisoned(&mut self, step: impl FnOnce(&mut State)) {
        self.core.options.clock.give_way();
        let core = self.core;
        let mut state = core.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.timed(|| step(&mut state));
    }

    /// Something under the log's lock.
    pub(super) fn with_log<T>(&mut self, act: impl FnOnce(&mut Log) -> T) -> T {
        self.core.options.clock.give_way();
        let core = self.core;
        core.log.with_log(|log| self.timed(|| act(log)))
    }

    /// Steps until one answers false, or the slice is over. False in the first case.
    pub(super) fn slice(&mut self, mut step: impl FnMut(&mut State) -> bool) -> Result<bool, CommitError> {
        let clock = self.core.options.clock.clone();
        self.once(|state| {
            let began = clock.instant();
            loop {
                for _ in 0..STEPS {
                    if !step(state) {
                        return false;
                    }
                }
                if clock.instant().saturating_duration_since(began) >= SLICE {
                    return true;
                }
            }
        })
    }

    /// Steps until one answers false, in as many slices as it takes.
    pub(super) fn all(&mut self, mut step: impl FnMut(&mut State) -> bool) -> Result<(), CommitError> {
        while self.slice(&mut step)? {}
        Ok(())
    }
}
