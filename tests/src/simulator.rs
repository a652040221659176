//! The simulator: the whole engine on a simulated disk, with a clock of its own and no threads, against a simple model.
//!
//! A *life* is all that follows from one seed: a database with settings of its own and some tens of *cycles*. A cycle is
//! a few random steps, an end (a power cut, a kill, a close), on the way perhaps a disk that fails, and a recovery
//! that may be cut short itself. After each recovery the database must show exactly the transactions up to one
//! seq: all that were durable, none that was not sequenced, none in part. The same seed does the same each time.
//!
//! - [`model`]: what the database should show after each transaction.
//! - `desk`: the slots and producers, and what they make of their inputs.
//! - `clock`: how time passes, and what is done where the engine gives way.
//! - `daemons`: members that commit in sessions, are lost and come back, and what grows old.
//! - `life`: the database, its disk, and what is known of its transactions.
//! - `steps`: what happens to it.
//! - `marks`: pins, annotations, aliases, ages and single versions of models.
//! - `works`: work in batches and by command, inputs that need not be there, slots of models.
//! - `consumer`: who takes each transaction of the feed once.
//! - `values`, `widths`: rows that are deleted for their values, and a field that widens.
//! - `rules`: what is decided of series, and what follows from it.
//! - `meanwhile`, `readers`, `reads`, `backups`: transactions in the middle of a checkpoint, readers in other processes,
//!   reads that fail, copies.
//! - `feed`: what the feed tells, and told before.
//! - `kept`: what is on the disk for a fall-back, and nothing else.
//! - `check`: the comparison.

mod backups;
mod check;
mod clock;
mod consumer;
mod daemons;
mod desk;
mod feed;
mod kept;
mod life;
mod marks;
mod meanwhile;
pub mod model;
mod readers;
mod reads;
mod rules;
mod steps;
mod values;
mod widths;
mod works;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

pub use life::Figures;
use life::Life;

/// Why a life ended early: a fault of the engine, or of the simulator.
pub type Trouble = Box<dyn std::error::Error>;

/// A life that went wrong.
#[derive(Debug)]
pub struct Failed {
    /// The seed of the life.
    pub seed: u64,
    /// The cycle, counted from 0.
    pub cycle: u64,
    /// What was wrong.
    pub what: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, cycle {}: {}", self.seed, self.cycle, self.what)?;
        let command = "cargo run --release -p underbelly-tests --bin simulator --";
        write!(f, "again, with every step: {command} --seed {} --trace", self.seed)
    }
}

impl std::error::Error for Failed {}

/// Lives one life and adds what it did to `figures`. With `trace` it tells each step on standard error.
///
/// # Errors
/// [`Failed`], also where the engine panicked.
pub fn live(seed: u64, trace: bool, figures: &mut Figures) -> Result<(), Failed> {
    let cycle = AtomicU64::new(0);
    let lived = catch_unwind(AssertUnwindSafe(|| {
        let mut life = Life::new(seed, trace)?;
        let cycles = life.cycles();
        for number in 0..cycles {
            cycle.store(number, Ordering::Relaxed);
            life.cycle()?;
        }
        Ok::<Figures, Trouble>(life.figures())
    }));
    let what = match lived {
        Ok(Ok(lived)) => {
            figures.add(&lived);
            return Ok(());
        }
        Ok(Err(trouble)) => trouble.to_string(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            format!("panicked: {}", text.unwrap_or("no message"))
        }
    };
    Err(Failed { seed, cycle: cycle.into_inner(), what })
}
