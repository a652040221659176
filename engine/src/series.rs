//! Series: rows keyed by type, timestamp and key columns.

mod delete;
mod hiding;
pub(crate) mod inexact;
#[cfg(feature = "arrow")]
mod lent;
mod segment_run;
mod table;
mod tail;
mod view;

pub use delete::Delete;
pub(crate) use hiding::Hiding;
#[cfg(feature = "arrow")]
pub use lent::{LentBatches, LentRows};
pub(crate) use segment_run::{Metered, OneGroup, SegmentRun};
pub(crate) use table::{CapturedTable, Table, Tables, check_append, check_name, name_problem};
pub(crate) use tail::Few;
pub use view::{Series, SeriesInfo};
