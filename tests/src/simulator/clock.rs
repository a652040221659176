//! The simulator's clock: what is measured by it takes as many looks at it as it takes, and where the engine gives way
//! something else may be done.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use underbelly::{Clock, ManualClock, Timestamp};

type Meanwhile = Box<dyn FnMut() + Send>;

/// A clock of which the wall time stands still until it is moved, while each look moves its other hand, too.
pub(super) struct SimulatedClock {
    wall: ManualClock,
    began: Instant,
    looks: AtomicU64,
    look: Duration,
    /// Nanoseconds that went by beside looks.
    passed: AtomicU64,
    meanwhile: Mutex<Option<Meanwhile>>,
}

impl SimulatedClock {
    /// A clock that shows `now`, and on which a look takes so long.
    pub fn new(now: Timestamp, look: Duration) -> SimulatedClock {
        SimulatedClock {
            wall: ManualClock::new(now),
            began: Instant::now(),
            looks: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            look,
            meanwhile: Mutex::default(),
        }
    }

    /// Sets the wall time.
    pub fn set(&self, now: Timestamp) {
        self.wall.set(now);
    }

    /// Lets time go by for what is measured by it.
    pub fn pass(&self, nanoseconds: u64) {
        self.passed.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// What is done from now on where the engine gives way.
    pub fn do_meanwhile(&self, act: Option<Meanwhile>) {
        *self.meanwhile() = act;
    }

    fn meanwhile(&self) -> MutexGuard<'_, Option<Meanwhile>> {
        self.meanwhile.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        self.wall.now()
    }

    fn instant(&self) -> Instant {
        let looks = self.looks.fetch_add(1, Ordering::Relaxed);
        let passed = Duration::from_nanos(self.passed.load(Ordering::Relaxed));
        self.began + passed + self.look * u32::try_from(looks).unwrap_or(u32::MAX)
    }

    fn give_way(&self) {
        // Taken away meanwhile: what is done may come by here itself.
        let act = self.meanwhile().take();
        if let Some(mut act) = act {
            act();
            self.meanwhile().get_or_insert(act);
        }
    }
}
