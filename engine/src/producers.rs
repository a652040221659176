//! Producers: closures and programs that turn slots into slots, run by workers, or by whoever drives the database,
//! when a commit makes their inputs ready.

mod closure;
mod hand;
mod pace;
#[cfg(feature = "processes")]
mod process;
#[cfg(feature = "processes")]
mod program;
#[cfg(feature = "processes")]
mod register;
mod run;
mod worker;

#[cfg(feature = "processes")]
pub(crate) use closure::told;
pub(crate) use closure::{Work, Worked};
pub(crate) use hand::Hands;
pub(crate) use pace::Paces;
#[cfg(feature = "processes")]
pub(crate) use process::{About, Parting, Remote, Wire, attend_remote, retire, submit};
#[cfg(feature = "processes")]
pub use program::Program;
pub use run::{InputCell, Outputs, Run};
pub(crate) use worker::{Finished, Taken, bounded, is_worker, keep_time, run_ready, run_taken, work};
