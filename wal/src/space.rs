//! Who takes space for log files: one preparation at a time, and none while the owner keeps what is left of the disk.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Who takes space for log files. Nobody holds a lock over a preparation.
#[derive(Default)]
pub(crate) struct Space {
    users: Mutex<Users>,
    /// Woken when a preparation ends, and when the space is kept.
    changed: Condvar,
}

#[derive(Default)]
struct Users {
    is_kept: bool,
    is_preparing: bool,
}

/// While this lives no log file is prepared. Returned by [`GroupCommit::keep_space`](crate::GroupCommit::keep_space).
#[must_use = "what is dropped at once keeps nothing"]
pub struct SpaceKept<'a>(&'a Space);

impl Drop for SpaceKept<'_> {
    fn drop(&mut self) {
        self.0.users().is_kept = false;
    }
}

/// A preparation that goes on, until this is dropped.
pub(crate) struct Preparing<'a>(&'a Space);

impl Drop for Preparing<'_> {
    fn drop(&mut self) {
        self.0.users().is_preparing = false;
        self.0.changed.notify_all();
    }
}

impl Space {
    fn users(&self) -> MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a preparation that is under way, and lets no other begin.
    pub fn keep(&self) -> SpaceKept<'_> {
        let mut users = self.users();
        users.is_kept = true;
        self.changed.notify_all();
        while users.is_preparing {
            users = self.changed.wait(users).unwrap_or_else(PoisonError::into_inner);
        }
        SpaceKept(self)
    }

    /// Leave to prepare a file, after those who do so now; `None` while the space is kept.
    pub fn prepare(&self) -> Option<Preparing<'_>> {
        let mut users = self.users();
        while users.is_preparing && !users.is_kept {
            users = self.changed.wait(users).unwrap_or_else(PoisonError::into_inner);
        }
        if users.is_kept {
            return None;
        }
        users.is_preparing = true;
        Some(Preparing(self))
    }
}
