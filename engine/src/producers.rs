//! Producers: closures that turn slots into slots, run by workers, or by whoever drives the database,
//! when a commit makes their inputs ready.

mod run;
mod worker;

pub use run::{InputCell, Outputs, Run};
pub(crate) use worker::{Finished, Work, bounded, is_worker, keep_time, run_ready, work};
