//! Transactions do not see each other half done, and do not lose each other's writes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod anomalies;
mod checker;
mod conflicts;
mod cuts;
mod histories;
mod history;
mod left_out;
mod overtaken;
mod snapshots;
