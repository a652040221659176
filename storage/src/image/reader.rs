//! Reading an image: the index when it is opened, a block when it is asked for.

use super::{ENTRY_BYTES, IMAGE, INDEX_HEAD_BYTES, ImageInfo, Key, RECORD_HEAD_BYTES, REMOVED};
use crate::cursor::Cursor;
use crate::disk::Disk;
use crate::error::{Damage, StorageError};
use crate::limits::{IMAGE_INDEX_BYTES_MAX, IMAGE_RECORD_BYTES_MAX};
use crate::map::Mapped;
use crate::sealed;
use crate::stamp::{self, DatabaseId};

/// One record, lent from the file's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'i> {
    /// Its key.
    pub key: Key,
    /// Its bytes; `None` where the key has no record any more.
    pub value: Option<&'i [u8]>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    offset: usize,
    length: usize,
    records: u32,
    crc: u32,
    first: Key,
}

/// An open image. Its index was checked; a block is checked when it is read.
#[derive(Debug)]
pub struct Image {
    name: String,
    file: Mapped,
    entries: Vec<Entry>,
    info: ImageInfo,
}

impl Image {
    /// Opens an image and checks its structure, and that it is the one that is `expected`, where that is known.
    ///
    /// # Errors
    /// `Missing`, `Corrupt`, `Version`, `ForeignDatabase`, `TooLarge`, `Io`.
    pub fn open(
        disk: &dyn Disk,
        name: &str,
        db_id: DatabaseId,
        expected: Option<&ImageInfo>,
    ) -> Result<Image, StorageError> {
        let file = sealed::map(disk, name)?;
        let (stamp, index) = stamp::closing(&file, IMAGE, name, Some(db_id))?;
        StorageError::limit(name, "the index's length in bytes", stamp.length, IMAGE_INDEX_BYTES_MAX)?;
        let (records, entries) = entries_of(index, stamp.offset).map_err(|d| d.at(name, stamp.offset))?;
        let index_hash = *blake3::hash(index).as_bytes();
        let info = ImageInfo { file: name.to_string(), bytes: file.len() as u64, records, index_hash };
        if expected.is_some_and(|expected| *expected != info) {
            let what = "it is a whole image, but not the one that the manifest names";
            return Err(StorageError::corrupt(name, stamp.offset, what));
        }
        Ok(Image { name: name.to_string(), file, entries, info })
    }

    /// What the file says of itself.
    pub fn info(&self) -> &ImageInfo {
        &self.info
    }

    /// Says that all blocks are about to be read, so that the system reads them ahead, without waiting for it.
    pub fn read_ahead(&self) {
        self.file.read_ahead();
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.entries.len()
    }

    /// The records of a block in the order of their keys; none where there is no such block.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn block(&self, number: usize) -> Result<Vec<Record<'_>>, StorageError> {
        let Some(entry) = self.entries.get(number) else { return Ok(Vec::new()) };
        let end = self.entries.get(number + 1).map(|next| next.first);
        let bytes = self.file.get(entry.offset..entry.offset + entry.length).unwrap_or_default();
        let damage = |what: Damage| what.at(&self.name, entry.offset as u64);
        if crc32fast::hash(bytes) != entry.crc {
            let what = format!("the block of {} bytes there does not match its checksum", entry.length);
            return Err(StorageError::corrupt(&self.name, entry.offset as u64, what));
        }
        records_of(bytes, entry, end).map_err(damage)
    }

    /// Compares every block with its checksum, and the order of all records. Returns the bytes checked.
    ///
    /// # Errors
    /// `Corrupt` for the first damage found.
    pub fn verify(&self) -> Result<u64, StorageError> {
        for number in 0..self.blocks() {
            self.block(number)?;
        }
        Ok(self.file.len() as u64)
    }
}

/// Reads an index: blocks fill the file from 0 up to `limit`, and their first keys rise.
fn entries_of(index: &[u8], limit: u64) -> Result<(u64, Vec<Entry>), Damage> {
    let mut cursor = Cursor::new(index);
    let (records, blocks) = (cursor.u64()?, cursor.u64()?);
    let count = (index.len() - INDEX_HEAD_BYTES) / ENTRY_BYTES;
    if !(index.len() - INDEX_HEAD_BYTES).is_multiple_of(ENTRY_BYTES) || count as u64 != blocks {
        return Err(Damage("the index's length is not that of its entries"));
    }
    let mut entries: Vec<Entry> = Vec::with_capacity(count);
    let (mut offset, mut counted) = (0u64, 0u64);
    for _ in 0..count {
        let (length, records, crc) = (cursor.u32()?, cursor.u32()?, cursor.u32()?);
        let first = Key::decode(&mut cursor)?;
        cursor.zeros(ENTRY_BYTES - 12 - Key::BYTES)?;
        if records == 0 || u64::from(records) * RECORD_HEAD_BYTES as u64 > u64::from(length) {
            return Err(Damage("a block is too short for its records"));
        }
        if entries.last().is_some_and(|last| last.first >= first) {
            return Err(Damage("the index is not in order"));
        }
        entries.push(Entry { offset: offset as usize, length: length as usize, records, crc, first });
        offset += u64::from(length);
        counted += u64::from(records);
    }
    if offset != limit {
        return Err(Damage("the blocks do not fill the file"));
    }
    if counted != records {
        return Err(Damage("the number of records is not that of the blocks"));
    }
    Ok((records, entries))
}

/// Reads a block: as many records as its entry says, from its first key on, all before `end`.
fn records_of<'i>(bytes: &'i [u8], entry: &Entry, end: Option<Key>) -> Result<Vec<Record<'i>>, Damage> {
    let mut cursor = Cursor::new(bytes);
    // The count was compared with the length when the index was read.
    let mut records: Vec<Record<'i>> = Vec::with_capacity(entry.records as usize);
    for _ in 0..entry.records {
        let key = Key::decode(&mut cursor)?;
        let length = cursor.u32()?;
        let value = match length {
            REMOVED => None,
            _ if u64::from(length) > IMAGE_RECORD_BYTES_MAX => return Err(Damage("a record is too long")),
            _ => Some(cursor.take(length as usize)?),
        };
        let in_order = match records.last() {
            Some(last) => last.key < key,
            None => key == entry.first,
        };
        if !in_order || end.is_some_and(|end| key >= end) {
            return Err(Damage("the records of a block are not in order"));
        }
        records.push(Record { key, value });
    }
    cursor.end()?;
    Ok(records)
}
