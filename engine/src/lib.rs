//! The engine of Underbelly.

pub mod graph;
