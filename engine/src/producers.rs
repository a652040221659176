//! Producers: closures that turn slots into slots, run by workers when a commit makes their inputs ready.

mod run;
mod worker;

pub use run::{InputCell, Outputs, Run};
pub(crate) use worker::{Closure, is_worker, work};
