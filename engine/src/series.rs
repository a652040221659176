//! Series: rows keyed by type, timestamp and key columns.

pub(crate) mod inexact;
mod segment_run;
mod table;
mod view;

pub(crate) use segment_run::SegmentRun;
pub(crate) use table::{Table, Tables, check_append, check_name};
pub use view::{Series, SeriesInfo};
