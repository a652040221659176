//! Writing an image, record by record in constant memory.

use super::{ENTRY_BYTES, IMAGE, INDEX_HEAD_BYTES, Key, RECORD_HEAD_BYTES, REMOVED};
use crate::disk::Disk;
use crate::error::StorageError;
use crate::limits::{IMAGE_BLOCK_BYTES, IMAGE_INDEX_BYTES_MAX, IMAGE_RECORD_BYTES_MAX};
use crate::sealed::SealedWriter;
use crate::stamp::{DatabaseId, Stamp};

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// The file's name.
    pub file: String,
    /// Its length, bytes.
    pub bytes: u64,
    /// Number of records, removals among them.
    pub records: u64,
    /// BLAKE3-256 of the index, which holds the checksums of all blocks.
    pub index_hash: [u8; 32],
}

/// An image that is being written.
pub struct ImageWriter<'d> {
    writer: SealedWriter<'d>,
    name: String,
    db_id: DatabaseId,
    block: Vec<u8>,
    block_records: u32,
    first: Option<Key>,
    last: Option<Key>,
    entries: Vec<u8>,
    records: u64,
}

impl<'d> ImageWriter<'d> {
    /// Starts the image `name`, whose folder exists.
    ///
    /// # Errors
    /// `Exists`, `Io`, `DiskFull`.
    pub fn create(
        disk: &'d dyn Disk,
        name: &str,
        db_id: DatabaseId,
    ) -> Result<ImageWriter<'d>, StorageError> {
        Ok(ImageWriter {
            writer: SealedWriter::create(disk, name)?,
            name: name.to_string(),
            db_id,
            block: Vec::with_capacity(2 * IMAGE_BLOCK_BYTES),
            block_records: 0,
            first: None,
            last: None,
            entries: Vec::new(),
            records: 0,
        })
    }

    /// Length so far, bytes, the index left out.
    pub fn length(&self) -> u64 {
        self.writer.length() + self.block.len() as u64
    }

    /// Appends a record; `None` says that its key has none any more. Keys rise from record to record.
    ///
    /// # Errors
    /// `Refused` where the key is not above the one before; `TooLarge`, `Io`, `DiskFull`.
    pub fn push(&mut self, key: Key, value: Option<&[u8]>) -> Result<(), StorageError> {
        if self.last.is_some_and(|last| last >= key) {
            let what = format!("record {key:?} does not stand behind {:?}; give records in order", self.last);
            return Err(StorageError::refused(&self.name, what));
        }
        let bytes = value.unwrap_or_default();
        let (found, limit) = (bytes.len() as u64, IMAGE_RECORD_BYTES_MAX);
        StorageError::limit(&self.name, "the record's length in bytes", found, limit)?;
        if self.block_records > 0 && self.block.len() + RECORD_HEAD_BYTES + bytes.len() > IMAGE_BLOCK_BYTES {
            self.end_block()?;
        }
        self.first.get_or_insert(key);
        self.last = Some(key);
        key.encode(&mut self.block);
        let length = value.map_or(REMOVED, |bytes| bytes.len() as u32);
        self.block.extend_from_slice(&length.to_le_bytes());
        self.block.extend_from_slice(bytes);
        self.block_records += 1;
        self.records += 1;
        Ok(())
    }

    fn end_block(&mut self) -> Result<(), StorageError> {
        let Some(first) = self.first.take() else { return Ok(()) };
        self.entries.extend_from_slice(&(self.block.len() as u32).to_le_bytes());
        self.entries.extend_from_slice(&self.block_records.to_le_bytes());
        self.entries.extend_from_slice(&crc32fast::hash(&self.block).to_le_bytes());
        first.encode(&mut self.entries);
        self.entries.resize(self.entries.len().next_multiple_of(ENTRY_BYTES), 0);
        self.writer.append(&self.block)?;
        self.block.clear();
        self.block_records = 0;
        Ok(())
    }

    /// As [`SealedWriter::leave`].
    pub fn leave(self) {
        self.writer.leave();
    }

    /// Makes the image durable under its name.
    ///
    /// # Errors
    /// `TooLarge`, `Io`, `DiskFull`. After an error the file is not published.
    pub fn finish(mut self) -> Result<ImageInfo, StorageError> {
        self.end_block()?;
        let mut index = Vec::with_capacity(INDEX_HEAD_BYTES + self.entries.len());
        index.extend_from_slice(&self.records.to_le_bytes());
        index.extend_from_slice(&((self.entries.len() / ENTRY_BYTES) as u64).to_le_bytes());
        index.extend_from_slice(&self.entries);
        let (found, limit) = (index.len() as u64, IMAGE_INDEX_BYTES_MAX);
        StorageError::limit(&self.name, "the index's length in bytes", found, limit)?;
        let offset = self.writer.length();
        self.writer.append(&index)?;
        self.writer.append(&Stamp::of(&index, offset, self.db_id).encode(IMAGE, &self.name))?;
        Ok(ImageInfo {
            file: self.name,
            bytes: self.writer.publish()?,
            records: self.records,
            index_hash: *blake3::hash(&index).as_bytes(),
        })
    }
}
