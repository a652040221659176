//! Where commit times come from.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use underbelly_storage::Timestamp;

/// The engine's only source of wall time, and of the durations that it keeps.
pub trait Clock: Send + Sync + 'static {
    /// Now, in nanoseconds since 1970 UTC.
    fn now(&self) -> Timestamp;

    /// Now, for measuring how long something takes: never earlier than before, whatever is done to the wall clock.
    fn instant(&self) -> Instant {
        Instant::now()
    }

    /// Lets others go on. Called where long work stops for a moment: a checkpoint before each time that it holds commits
    /// up, when commits may go on, and the making of a long state image. Whoever drives a database without threads ([`Options::workers`](crate::Options::workers))
    /// may commit here, so that nothing waits for the end of a checkpoint, and only that: another checkpoint, a driving or a
    /// close would wait for the one that calls.
    fn give_way(&self) {
        std::thread::yield_now();
    }
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let ns = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns),
        };
        Timestamp(ns)
    }
}

/// A clock that stands still until it is moved, for tests and for runs that are to be the same each time. What is
/// measured by it takes as long as it was moved ahead meanwhile.
#[derive(Debug)]
pub struct ManualClock {
    now: AtomicI64,
    /// Nanoseconds that it was moved ahead since it was made.
    ahead: AtomicU64,
    began: Instant,
}

impl Default for ManualClock {
    fn default() -> ManualClock {
        ManualClock::new(Timestamp(0))
    }
}

impl ManualClock {
    /// A clock that shows `now`.
    pub fn new(now: Timestamp) -> ManualClock {
        ManualClock { now: AtomicI64::new(now.0), ahead: AtomicU64::new(0), began: Instant::now() }
    }

    /// Sets the clock.
    pub fn set(&self, now: Timestamp) {
        let before = self.now.swap(now.0, Ordering::AcqRel);
        let ahead = u64::try_from(now.0.saturating_sub(before)).unwrap_or(0);
        self.ahead.fetch_add(ahead, Ordering::AcqRel);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::Acquire))
    }

    fn instant(&self) -> Instant {
        let ahead = Duration::from_nanos(self.ahead.load(Ordering::Acquire));
        // What the system's clock cannot hold stands still.
        self.began.checked_add(ahead).unwrap_or(self.began)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_measures_what_it_was_moved() {
        let clock = ManualClock::new(Timestamp(100));
        let began = clock.instant();
        assert_eq!(clock.instant(), began);
        clock.set(Timestamp(130));
        clock.set(Timestamp(50));
        assert_eq!(clock.instant() - began, Duration::from_nanos(30), "never back");
        clock.set(Timestamp(55));
        assert_eq!((clock.now(), clock.instant() - began), (Timestamp(55), Duration::from_nanos(35)));
    }
}
