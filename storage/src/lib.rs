//! The files of an Underbelly database.
//!
//! This crate knows bytes on disk: columns and their encodings, sealed segments, objects, the manifest, and the
//! [`disk::Disk`] on which all of them live. It knows nothing of transactions, slots or producers.
//!
//! Invariants:
//! - A file that is mapped is sealed: written, synced, renamed, read-only, never changed again.
//! - Nothing read from a disk is believed before its checksum was compared; no length is believed before it
//!   was bounded.
//! - Bytes on disk are little-endian.

pub mod columns;
pub mod disk;
pub mod map;
pub mod value;

pub use columns::{Column, ColumnError, Columns, Strings, Values};
pub use value::{ColumnType, Date, Timestamp, Value};
