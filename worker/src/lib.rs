//! Producers of Underbelly that run in a process of their own: the child's end of `PROTOCOL.md`.
//!
//! The program is started by the engine, as `Database::register_program` was told. It does nothing but call [`serve`], or
//! [`serve_batch`], with what the producer does:
//!
//! ```no_run
//! use underbelly_worker::{Failure, Outputs, serve};
//!
//! fn main() -> Result<(), underbelly_worker::ProtocolError> {
//!     serve(|run| {
//!         let quotes = run.input("Quotes")?;
//!         let bids = quotes.f64s("bid").ok_or_else(|| Failure::fatal("no bids"))?;
//!         let mean = bids.iter().sum::<f64>() / bids.len() as f64;
//!         let rows = underbelly_worker::Columns::new().with("mean", vec![mean].into())?;
//!         Ok(Outputs::new().put("Mean", rows))
//!     })
//! }
//! ```
//!
//! [`remote`] is for processes that the engine did not start: clients, daemons and producers that connect to a socket which
//! `Database::serve` has made.
//!
//! Standard input and output belong to the protocol: [`serve`] turns what is printed to standard error, which the engine keeps
//! with the run, and leaves nothing to read. The process ends when the engine says goodbye or is gone, in the middle of a run
//! too.

mod outputs;
pub mod remote;
mod run;
mod serve;
mod stream;

pub use outputs::{Failure, Outputs};
pub use run::{Cell, Model, Run};
pub use serve::{serve, serve_batch};
pub use underbelly_protocol::ProtocolError;
pub use underbelly_protocol::definition::{Definition, InputDefinition, When};
pub use underbelly_protocol::message::Metadata;
pub use underbelly_storage::{Column, ColumnError, ColumnType, Columns, Date, Timestamp, Value, Values};
