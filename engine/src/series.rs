//! Series: rows keyed by type, timestamp and key columns.

mod definition;
mod delete;
mod document;
mod gate;
mod hiding;
pub(crate) mod inexact;
#[cfg(feature = "arrow")]
mod lent;
mod past;
mod segment_run;
mod table;
mod tail;
mod view;

pub(crate) use definition::Rules;
pub use definition::SeriesDefinition;
pub use delete::Delete;
pub(crate) use document::parents;
pub use document::{Document, DocumentError, Member, Nested, nested};
pub(crate) use gate::{Gates, Passed};
pub(crate) use hiding::Hiding;
#[cfg(feature = "arrow")]
pub use lent::{LentBatches, LentRows};
pub use past::Past;
pub(crate) use segment_run::{Metered, OneGroup, SegmentRun};
pub(crate) use table::{
    CapturedTable, Table, Tables, check_append, check_name, check_types, name_problem, rules_at,
};
pub(crate) use tail::Few;
pub use view::{Series, SeriesInfo};
