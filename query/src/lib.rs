//! Operators over sorted runs of time-series rows: range scans, newest rows, last points, as-of joins,
//! window joins, rolling and grouped aggregates, resampling.
//!
//! An operator reads a [`Source`]: the [`Run`]s of one series type as of one commit, and the type's [`Schema`].
//! This crate knows columns, and nothing of files, snapshots or transactions.
//!
//! Invariants:
//! - The order of rows is total: timestamp, then sequence number of the commit, then the order of the runs,
//!   then the position in the run. Every operator keeps to it.
//! - A row whose sequence number is larger than [`Source::seq`] is never given back.
//! - A row that a [`Tombstone`] up to [`Source::seq`] hides is never given back.
//! - A group is read only where its [`Zone`] says that it may hold a row that is asked for, and let go as
//!   soon as its last row is used.
//! - What a run hands out is measured before it is used: a run that breaks its contract yields an error or rows
//!   in a wrong order, never a panic.
//!
//! Modules in reading order: `run` (what is read), `error`, `interval`, `key` and `predicate` (what is asked), `tombstone`
//! (what is hidden), `budget` (how much memory is held), `lane` (a column as it is read), `group` (one group read and filtered, piece by piece), `merge` and `gather` (how rows of several runs become one batch), `duplicates` (which
//! of several rows of one identity are shown), then the operators [`scan`] and [`mod@latest`], [`LastPoints`] which keeps what one of them found, and [`memory`], the run of young rows.
//! Operators over any rows in order of time: `slices` (of time, for several workers), `timed` (stored or in memory), `ids` (keys as numbers), `pick` (rows of several pieces put together), [`asof`];
//! `windows`, [`aggregate`] and `grouped` (what is computed of which rows), [`resample`], [`group_by`], [`window_join`].

pub mod aggregate;
pub mod asof;
mod budget;
mod duplicates;
mod error;
mod gather;
mod group;
pub mod group_by;
mod grouped;
mod ids;
mod interval;
mod key;
mod lane;
mod last_points;
pub mod latest;
pub mod memory;
mod merge;
mod pick;
mod predicate;
pub mod resample;
mod run;
pub mod scan;
mod slices;
mod timed;
mod tombstone;
pub mod window_join;
mod windows;

pub use aggregate::Aggregate;
pub use asof::{AsOf, AsOfBatches, Direction};
pub use duplicates::{Duplicates, Same, repeated, resolved};
pub use error::QueryError;
pub use group_by::GroupBy;
pub use interval::Closed;
pub use last_points::LastPoints;
pub use latest::{
    at_or_after, at_or_before, last_point, last_points, last_points_where, latest, nearest, newest_timestamp,
};
pub use memory::MemoryRun;
pub use predicate::{Predicate, matching};
pub use resample::{Fill, Label, Resample, WindowEnd};
pub use run::{ColumnZone, Part, Run, Schema, SchemaColumn, Seqs, Source, TIMESTAMP, Those, Zone};
pub use scan::{Batches, Scan};
pub use timed::TimedRows;
pub use tombstone::{Tombstone, Tombstones, hidden_rows};
pub use window_join::{WindowJoin, WindowJoinBatches};
pub use windows::{Every, is_zone};
