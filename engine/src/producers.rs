//! Producers: closures that turn slots into slots, run by workers, or by whoever drives the database,
//! when a commit makes their inputs ready.

mod closure;
mod run;
mod worker;

pub(crate) use closure::Work;
pub use run::{InputCell, Outputs, Run};
pub(crate) use worker::{Finished, bounded, is_worker, keep_time, run_ready, work};
