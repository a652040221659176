//! Tests of the graph: a slow oracle, random systems and scripts against it, images and records, and scenarios.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod batches;
mod commands;
mod exhaustive;
mod images;
mod oracle;
mod play;
mod refusals;
mod scenarios;
mod script;
mod scripts;
mod sessions;
mod stage;
mod tables;
mod trees;
