//! Sealed segments: rows of one series type in time order, by column.
//!
//! Rows are cut into row groups, each a slice of time. Within a group rows may lie by key; readers get
//! them in the order of time, or those of one key alone. Every column of a group is one block on a 64-byte
//! boundary, encoded in whichever way takes fewest bytes. The footer lists the columns, the groups and the
//! blocks with their zones (least and greatest value) and checksums, so that a reader opens a segment without
//! touching a block, and then only those that it needs.
//!
//! ```
//! use std::collections::HashSet;
//! use underbelly_storage::disk::SimulatedDisk;
//! use underbelly_storage::{Alone, Column, Columns, Segment, SegmentRows, Seqs, write_segment};
//!
//! let disk = SimulatedDisk::new();
//! let columns = Columns::new().with("price", Column::from(vec![100.25, 100.5]))?;
//! let (seqs, keys) = (Seqs::Each(&[7, 8]), &HashSet::new());
//! let (columns, by_key) = (&columns, false);
//! let rows = SegmentRows { timestamps: &[1, 2], seqs, columns, keys, by_key, after: 0, replaced: &[] };
//! let info = write_segment(&disk, "1.seg", [1; 16], &rows, &Alone)?;
//!
//! let segment = Segment::open(&disk, "1.seg", [1; 16], Some(&info))?;
//! assert_eq!(segment.timestamps(0)?, [1, 2]);
//! assert_eq!(segment.seqs(0)?, Some(vec![7, 8]));
//! assert_eq!(segment.column(0, "price")?.as_ref(), columns.column("price"));
//! # Ok::<(), underbelly_storage::StorageError>(())
//! ```

mod alp;
mod bits;
mod cluster;
mod codec;
mod footer;
mod lanes;
mod learned;
mod lz4;
mod numbers;
mod part;
mod read;
mod rewrite;
mod simd;
mod symbols;
#[cfg(test)]
mod tests;
mod text;
mod vector;
mod write;
mod zone;

pub use codec::Encoding;
pub use part::Part;
pub use read::{BlockInfo, Segment};
pub use rewrite::SegmentWriter;
pub use simd::Instructions;
pub use write::{Alone, Workers, write_segment};
pub use zone::Zone;

use std::collections::HashSet;

use crate::columns::Columns;
use crate::stamp::Kind;

/// What can be read, and what is written where a block has texts as symbols or in LZ4 blocks.
const SEGMENT: Kind = Kind { magic: *b"UBSEGMNT", version: 3 };

/// What is written where groups may be by key and no block has such texts.
const BY_KEY: Kind = Kind { version: 2, ..SEGMENT };

/// What is written where no group may be by key either.
const IN_TIME: Kind = Kind { version: 1, ..SEGMENT };

/// Rows to be written as a segment.
#[derive(Clone, Copy, Debug)]
pub struct SegmentRows<'a> {
    /// Nanoseconds since 1970 UTC, one a row, never falling.
    pub timestamps: &'a [i64],
    /// The commit of each row.
    pub seqs: Seqs<'a>,
    /// Keys and fields, as many rows as there are timestamps.
    pub columns: &'a Columns,
    /// Names of those that are keys.
    pub keys: &'a HashSet<&'a str>,
    /// Whether the rows of a group are stored by key, where a key has sixteen of them on the average.
    pub by_key: bool,
    /// A commit seq that is less than the one that will be assigned; 0 where each row has its own.
    pub after: u64,
    /// Segments whose places this one takes, by rising numbers of files; none where seqs are assigned.
    pub replaced: &'a [Replaced],
}

/// A segment whose place another has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Replaced {
    /// The number of its file, at least 1.
    pub file: u64,
    /// The commit seq that was assigned to its rows; 0 where each had its own.
    pub seq: u64,
}

/// Which commit wrote a row.
#[derive(Clone, Copy, Debug)]
pub enum Seqs<'a> {
    /// A commit seq for each row, in any order.
    Each(&'a [u64]),
    /// All rows have one commit seq, which only those know who refer to the file.
    Assigned,
}

/// What identifies a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// The file's name.
    pub file: String,
    /// Its length, bytes.
    pub bytes: u64,
    /// Number of rows.
    pub rows: u64,
    /// Least timestamp; `i64::MAX` where there are no rows.
    pub ts_min: i64,
    /// Greatest timestamp; `i64::MIN` where there are no rows.
    pub ts_max: i64,
    /// BLAKE3-256 of the footer, which holds the checksums of all blocks.
    pub footer_hash: [u8; 32],
}

/// What is known of a row group without reading its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupInfo {
    /// Number of rows, at least one.
    pub rows: usize,
    /// Number of distinct keys where rows are stored by key; 0 where they are stored in the order of time.
    pub clusters: usize,
    /// Timestamp of the first row.
    pub ts_min: i64,
    /// Timestamp of the last row.
    pub ts_max: i64,
    /// Least commit seq; 0 where seqs are assigned.
    pub seq_min: u64,
    /// Greatest commit seq; 0 where seqs are assigned.
    pub seq_max: u64,
}
