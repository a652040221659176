//! State images: records under sorted keys, in blocks with a checksum each.
//!
//! A state is kept as a base image and a few deltas. Each holds records in the order of their keys; of several
//! records with one key the one in the newest image counts. Reading lends the file's pages, block by block.
//!
//! Blocks lie end to end from the start of the file; then the index, with the place, the checksum and the first key
//! of each block; then the stamp.

mod key;
mod merge;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use key::Key;
pub use merge::Merge;
pub use reader::{Image, Record};
pub use writer::{ImageInfo, ImageWriter};

use crate::stamp::Kind;

const IMAGE: Kind = Kind { magic: *b"UBIMAGE1", version: 1 };

/// Length of what stands before a record's value, bytes.
const RECORD_HEAD_BYTES: usize = Key::BYTES + 4;

/// The length that says that a key has no record any more.
const REMOVED: u32 = u32::MAX;

/// Length of what stands before the entries of the index, bytes.
const INDEX_HEAD_BYTES: usize = 16;

/// Length of one entry of the index, bytes.
const ENTRY_BYTES: usize = 40;
