//! An acknowledged transaction survives; one that was not is there whole or not at all.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bases;
mod buffered;
mod crash;
mod deltas;
mod fallback;
mod faults;
mod full;
mod held;
mod kill;
mod layers;
mod listing;
mod locking;
mod mended;
mod model;
mod paused;
mod places;
mod reserve;
mod salvage;
mod script;
mod simulated;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lets tests on real folders run one at a time: a process that is being started has copies of all files that are open
/// here until its program is loaded, and with them the locks of databases that are closed meanwhile.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
