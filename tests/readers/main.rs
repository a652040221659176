//! Any number of processes read a live database: consistent, durable rows and no others, undisturbed and undisturbing.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod damage;
mod disks;
mod durable;
mod model;
mod pins;
mod processes;
mod runs;
mod segments;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lets tests run one at a time: a process that is being started has copies of all files that are open here until its
/// program is loaded, and with them the locks of manifests that are let go meanwhile.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
