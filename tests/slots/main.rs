//! Producers wake for what changed, once, and what they make is there with its cause.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod aapl;
mod batches;
mod commands;
mod desk;
mod driven;
mod explain;
mod failures;
mod hands;
mod inline;
mod inputs;
mod keys;
mod lifecycle;
mod minutes;
mod reads;
mod runs;
mod tables;
mod trader;
