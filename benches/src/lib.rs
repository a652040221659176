//! What the benchmarks and the program of first figures measure, over the public API and on a real folder.
//!
//! Every measurement answers the time of a given amount of work and leaves rates to the caller. What the machine
//! itself can do ([`raw`]) is measured in the same run and in the same folder.
//!
//! In reading order: [`place`] (where it is measured), [`raw`] (the machine's limits), [`commit`], [`append`],
//! [`scan`], [`ticks`], [`tsbs`], [`wake`], [`runs`], [`checkpoint`], [`mark`], [`allocations`], [`figure`] (medians and how a figure is printed).

pub mod allocations;
pub mod append;
pub mod checkpoint;
pub mod commit;
pub mod figure;
pub mod mark;
pub mod place;
pub mod raw;
pub mod runs;
pub mod scan;
pub mod ticks;
pub mod tsbs;
pub mod wake;

use std::error::Error;

/// Whatever went wrong.
pub type Failed = Box<dyn Error + Send + Sync>;

/// The value, or the end of the program with the error on stderr: a benchmark that cannot measure has no figure.
pub fn or_exit<T>(result: Result<T, Failed>) -> T {
    result.unwrap_or_else(|error| {
        eprintln!("underbelly-benches: {error}");
        std::process::exit(1)
    })
}
