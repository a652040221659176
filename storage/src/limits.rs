//! Limits of the file formats. Writers refuse what passes them, readers what claims to.

/// Alignment of blocks, objects, footers and directories in their files, bytes.
pub const ALIGNMENT_BYTES: usize = 64;

/// Rows of a full row group; no group has more.
pub const GROUP_ROWS_MAX: usize = 131_072;

/// Values of a vector, the unit of bit-packing.
pub const VECTOR_ROWS: usize = 1_024;

/// Rows of one segment.
pub const SEGMENT_ROWS_MAX: u64 = 1 << 32;

/// Keys and fields of one segment.
pub const COLUMNS_MAX: usize = 4_096;

/// Length of a column's name, bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 255;

/// Text or bytes of one column in one row group once decoded, and so of one value.
pub const BLOCK_BYTES_MAX: usize = 256 << 20;

/// Length of a segment's footer, bytes.
pub const FOOTER_BYTES_MAX: u64 = 1 << 30;

/// Length of one object, bytes.
pub const OBJECT_BYTES_MAX: u64 = 1 << 36;

/// Objects in one pack.
pub const PACK_OBJECTS_MAX: u64 = 1 << 24;

/// Length of a manifest's payload, bytes.
pub const MANIFEST_BYTES_MAX: u64 = 1 << 30;

/// Largest number of a manifest: what ten digits hold.
pub const MANIFEST_NUMBER_MAX: u64 = 9_999_999_999;

/// Length up to which records of a state image share a block, bytes.
pub const IMAGE_BLOCK_BYTES: usize = 64 << 10;

/// Length of one record of a state image, bytes.
pub const IMAGE_RECORD_BYTES_MAX: u64 = 1 << 30;

/// Length of the index of a state image, bytes.
pub const IMAGE_INDEX_BYTES_MAX: u64 = 1 << 30;

/// Length of the seal of an index, bytes.
pub const INDEX_SEAL_BYTES_MAX: u64 = 1 << 20;

/// Files of an index.
pub const INDEX_FILES_MAX: usize = 4_096;

/// Bytes that the files of an index may have beside [`INDEX_KEY_BYTES_MAX`] for each key.
pub const INDEX_SPARE_BYTES_MAX: u64 = 64 << 20;

/// Bytes on the disk for each key of an index, on average.
pub const INDEX_KEY_BYTES_MAX: u64 = 1 << 10;

/// Bytes of a page, the unit in which files are mapped.
pub const PAGE_BYTES: usize = 4 << 10;

/// Bytes of a chunk that have a checksum of their own.
pub const CHUNK_BLOCK_BYTES: usize = 64 << 10;

/// Length of an object that may be stored compressed, bytes.
pub const CHUNK_PACKED_BYTES_MAX: usize = 16 << 20;
