//! The files of an Underbelly database.
//!
//! This crate knows bytes on disk: columns and their encodings, sealed segments, objects, the manifest, and the
//! [`disk::Disk`] on which all of them live. It knows nothing of transactions, slots or producers.
//!
//! Invariants:
//! - A file that is mapped is sealed: written, synced, renamed, read-only, never changed again.
//! - Nothing read from a disk is believed before its checksum was compared; no length is believed before it
//!   was bounded.
//! - Every encoded block is decoded and compared before its file is published.
//! - Bytes on disk are little-endian.

pub mod columns;
pub mod cursor;
pub mod disk;
pub mod error;
pub mod framed;
pub mod image;
pub mod index;
pub mod limits;
pub mod logical;
pub mod manifest;
pub mod map;
pub mod object;
pub mod page;
pub mod sealed;
pub mod segment;
pub mod stamp;
pub mod value;

#[cfg(test)]
mod golden;
mod touched;
#[cfg(test)]
mod twin;

pub use columns::{Column, ColumnError, Columns, Strings, Values};
pub use error::{Damage, StorageError, is_of_machine, remedy};
pub use framed::{Framed, read_framed, write_framed};
pub use image::{Image, ImageInfo, ImageWriter};
pub use index::{Index, IndexError, IndexFolder, MemoryIndex, SledIndex};
pub use logical::{Decimal, DecimalError, LogicalType, LogicalTypes};
pub use manifest::{
    Manifest, manifest_name, manifest_numbers, newest_manifest, pin_manifest, pin_newest_manifest,
    read_manifest, remove_manifests_except, write_manifest,
};
pub use object::{
    Blob, ChunkWriter, Chunks, ObjectId, Pack, PackInfo, Placement, open_chunk, write_chunk, write_pack,
};
pub use sealed::{SealedWriter, remove_leftovers};
pub use segment::{
    Alone, BlockInfo, Encoding, GroupInfo, Instructions, Replaced, Segment, SegmentInfo, SegmentRows, Seqs,
    Workers, Zone, write_segment,
};
pub use stamp::DatabaseId;
pub use value::{ColumnType, Date, Timestamp, Value};
