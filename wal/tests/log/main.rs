//! What the log promises, tested through its public face.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod crash;
mod damage;
mod faults;
mod following;
mod group;
mod places;
mod recycling;
mod world;
