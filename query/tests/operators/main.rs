//! Operators against a list of rows that is sorted and filtered in the plainest way.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod asof;
mod deletes;
mod duplicates;
mod hostile;
mod last_points;
mod latest;
mod memory;
mod model;
mod predicates;
mod pruning;
mod resample;
mod scan;
mod windows;
