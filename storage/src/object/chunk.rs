//! Chunk files: a few large objects, sealed before their ids are known to anybody.
//!
//! The chunks of a blob lie end to end, so that all of it, or any part, is one stretch of the mapped file. A chunk
//! that is short, in front of the others, ends where a page does; so whatever stands behind it begins with a page.
//!
//! Bodies in order; the directory; the stamp. Each 64 KiB of a body have a checksum of their own, which is compared
//! when a byte of them is first asked for.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::{Blob, ObjectId, blocks_pass};
use crate::cursor::Cursor;
use crate::disk::{Disk, File};
use crate::error::{Damage, StorageError};
use crate::limits::{
    ALIGNMENT_BYTES, CHUNK_BLOCK_BYTES, CHUNK_PACKED_BYTES_MAX, OBJECT_BYTES_MAX, PACK_OBJECTS_MAX,
    PAGE_BYTES,
};
use crate::map::Mapped;
use crate::sealed::{self, Gate, SealedWriter};
use crate::stamp::{self, DatabaseId, Kind, STAMP_BYTES, Stamp};
use crate::touched::Touched;

const CHUNK: Kind = Kind { magic: *b"UBCHUNK1", version: 1 };

/// Length of one entry of the directory, bytes.
const ENTRY_BYTES: usize = 64;

/// How a body is stored.
const PLAIN: u8 = 0;
const LZ4: u8 = 1;

/// Compressed bodies are at least this part shorter, 1 in so many.
const WORTH: usize = 8;

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: ObjectId,
    offset: u64,
    /// Bytes in the file.
    stored: u64,
    /// Bytes of the object.
    length: u64,
    coding: u8,
    /// The first of its checksums.
    block: usize,
}

impl Entry {
    fn end(&self) -> u64 {
        self.offset + self.stored
    }

    fn blocks(&self) -> usize {
        (self.stored as usize).div_ceil(CHUNK_BLOCK_BYTES)
    }
}

/// Where a body is to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// With a page.
    Begin,
    /// So that it ends with a page.
    End,
    /// So many bytes behind the begin of a page.
    Behind(u64),
}

/// A chunk file on its way. Dropped before [`ChunkWriter::publish`], it leaves nothing behind, as far as the disk still
/// takes orders.
pub struct ChunkWriter<'d> {
    writer: SealedWriter<'d>,
    name: String,
    db_id: DatabaseId,
    entries: Vec<Entry>,
    crcs: Vec<u32>,
}

impl<'d> ChunkWriter<'d> {
    /// As [`SealedWriter::leave`].
    pub fn leave(self) {
        self.writer.leave();
    }

    /// Starts a file.
    ///
    /// # Errors
    /// `Exists`, `Io`, `DiskFull`.
    pub fn create(
        disk: &'d dyn Disk,
        name: &str,
        db_id: DatabaseId,
    ) -> Result<ChunkWriter<'d>, StorageError> {
        let writer = SealedWriter::create(disk, name)?;
        Ok(ChunkWriter { writer, name: name.to_string(), db_id, entries: Vec::new(), crcs: Vec::new() })
    }

    /// As [`SealedWriter::write_aside`].
    pub fn write_aside(&mut self, gate: &Arc<Gate>) {
        self.writer.write_aside(gate);
    }

    /// Appends an object, whose id is that of its bytes and which the file does not hold yet. Where `compress` is set and
    /// that saves an eighth, it is stored compressed.
    ///
    /// # Errors
    /// `TooLarge`, `Io`, `DiskFull`.
    pub fn push(
        &mut self,
        id: ObjectId,
        bytes: &[u8],
        placement: Placement,
        compress: bool,
    ) -> Result<(), StorageError> {
        StorageError::limit(
            &self.name,
            "the object's length in bytes",
            bytes.len() as u64,
            OBJECT_BYTES_MAX,
        )?;
        StorageError::limit(
            &self.name,
            "the number of objects",
            self.entries.len() as u64 + 1,
            PACK_OBJECTS_MAX,
        )?;
        let packed =
            (compress && bytes.len() <= CHUNK_PACKED_BYTES_MAX).then(|| lz4_flex::block::compress(bytes));
        let packed = packed.filter(|packed| packed.len() + packed.len() / WORTH < bytes.len());
        let (stored, coding) = packed.as_ref().map_or((bytes, PLAIN), |packed| (packed, LZ4));
        let page = PAGE_BYTES as u64;
        let behind = match placement {
            // Nobody is lent what is stored otherwise.
            _ if coding == LZ4 => self.writer.length() % page,
            Placement::Begin => 0,
            Placement::End => (page - stored.len() as u64 % page) % page,
            Placement::Behind(bytes) => bytes % page,
        };
        let gap = (behind + page - self.writer.length() % page) % page;
        self.writer.append(&[0; PAGE_BYTES][..gap as usize])?;
        let (offset, block) = (self.writer.length(), self.crcs.len());
        self.writer.append(stored)?;
        self.crcs.extend(stored.chunks(CHUNK_BLOCK_BYTES).map(crc32fast::hash));
        let (length, stored) = (bytes.len() as u64, stored.len() as u64);
        self.entries.push(Entry { id, offset, stored, length, coding, block });
        Ok(())
    }

    /// Bytes so far.
    pub fn length(&self) -> u64 {
        self.writer.length()
    }

    /// Makes the file durable under its name and answers its length.
    ///
    /// # Errors
    /// `Io`, `DiskFull`.
    pub fn publish(mut self) -> Result<u64, StorageError> {
        let mut directory = Vec::with_capacity(8 + self.entries.len() * ENTRY_BYTES + self.crcs.len() * 4);
        directory.extend_from_slice(&(self.entries.len() as u64).to_le_bytes());
        for entry in &self.entries {
            directory.extend_from_slice(&entry.id.0);
            directory.extend_from_slice(&entry.offset.to_le_bytes());
            directory.extend_from_slice(&entry.stored.to_le_bytes());
            directory.extend_from_slice(&entry.length.to_le_bytes());
            directory.extend_from_slice(&u64::from(entry.coding).to_le_bytes());
        }
        self.crcs.iter().for_each(|crc| directory.extend_from_slice(&crc.to_le_bytes()));
        let offset = self.writer.align()?;
        self.writer.append(&directory)?;
        self.writer.append(&Stamp::of(&directory, offset, self.db_id).encode(CHUNK, &self.name))?;
        self.writer.publish()
    }
}

/// Writes one object as a file of its own, durable on return.
///
/// # Errors
/// `TooLarge`, `Exists`, `Io`, `DiskFull`.
pub fn write_chunk(
    disk: &dyn Disk,
    name: &str,
    db_id: DatabaseId,
    bytes: &[u8],
) -> Result<ObjectId, StorageError> {
    let id = ObjectId::of(bytes);
    let mut writer = ChunkWriter::create(disk, name, db_id)?;
    writer.push(id, bytes, Placement::Begin, false)?;
    writer.publish()?;
    Ok(id)
}

/// An open chunk file. Its directory was checked; 64 KiB of a body are checked when one of their bytes is first asked
/// for.
#[derive(Debug)]
pub struct Chunks {
    name: String,
    file: Mapped,
    /// In order of their places.
    entries: Vec<Entry>,
    by_id: BTreeMap<ObjectId, usize>,
    /// Where the checksums lie in the file: of a long one there are so many that copying them would be most of an opening.
    crcs: Range<usize>,
    touched: Touched,
}

impl Chunks {
    /// Opens a chunk file and checks all of its structure.
    ///
    /// # Errors
    /// `Missing`, `Corrupt`, `Version`, `ForeignDatabase`, `Io`.
    pub fn open(disk: &dyn Disk, name: &str, db_id: DatabaseId) -> Result<Chunks, StorageError> {
        let file = sealed::map(disk, name)?;
        let (stamp, directory) = stamp::closing(&file, CHUNK, name, Some(db_id))?;
        let (entries, crcs) = directory_of(directory, stamp.offset).map_err(|d| d.at(name, stamp.offset))?;
        let by_id: BTreeMap<ObjectId, usize> =
            entries.iter().zip(0..).map(|(entry, at)| (entry.id, at)).collect();
        if by_id.len() != entries.len() {
            return Err(Damage("an object stands twice in the directory").at(name, stamp.offset));
        }
        let touched = Touched::new(crcs.len());
        // The checksums end the directory.
        let end = stamp.offset as usize + directory.len();
        let crcs = end - crcs.as_flattened().len()..end;
        Ok(Chunks { name: name.to_string(), file, entries, by_id, crcs, touched })
    }

    /// Ids and lengths of all objects, in order of their places.
    pub fn objects(&self) -> impl ExactSizeIterator<Item = (ObjectId, u64)> + '_ {
        self.entries.iter().map(|entry| (entry.id, entry.length))
    }

    /// Bytes of all bodies as they are stored.
    pub fn stored_bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.stored).sum()
    }

    fn entry(&self, id: &ObjectId) -> Option<&Entry> {
        self.entries.get(*self.by_id.get(id)?)
    }

    /// Length of an object; `None` where the file does not hold it.
    pub fn length(&self, id: &ObjectId) -> Option<u64> {
        self.entry(id).map(|entry| entry.length)
    }

    /// Bytes that an object takes in the file; `None` where the file does not hold it.
    pub fn stored(&self, id: &ObjectId) -> Option<u64> {
        self.entry(id).map(|entry| entry.stored)
    }

    /// Where an object lies in the file, as it is; `None` where the file does not hold it or holds it compressed.
    pub fn place(&self, id: &ObjectId) -> Option<Range<u64>> {
        self.entry(id).filter(|entry| entry.coding == PLAIN).map(|entry| entry.offset..entry.end())
    }

    /// An object, checked; `None` where the file does not hold it.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn get(&self, id: &ObjectId) -> Result<Option<Blob>, StorageError> {
        self.length(id).map_or(Ok(None), |length| self.range(id, 0..length))
    }

    /// A part of an object, of which alone the checksums are compared; `None` where the file does not hold that part.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn range(&self, id: &ObjectId, range: Range<u64>) -> Result<Option<Blob>, StorageError> {
        let Some(entry) =
            self.entry(id).filter(|entry| range.start <= range.end && range.end <= entry.length)
        else {
            return Ok(None);
        };
        if entry.coding == PLAIN {
            self.check(entry, range.clone())?;
            return self.lend(entry.offset + range.start..entry.offset + range.end).map(Some);
        }
        self.check(entry, 0..entry.stored)?;
        let whole = Blob::from(self.unpacked(entry)?);
        Ok(whole.slice(range.start as usize..range.end as usize))
    }

    /// Bytes of the file, one stretch of which all parts were checked with [`Chunks::range`].
    ///
    /// # Errors
    /// `Corrupt` where they are not in the file.
    pub fn lend(&self, range: Range<u64>) -> Result<Blob, StorageError> {
        Blob::mapped(self.file.clone(), range.start as usize..range.end as usize)
            .ok_or_else(|| StorageError::corrupt(&self.name, range.start, "an object is not in the file"))
    }

    fn unpacked(&self, entry: &Entry) -> Result<Vec<u8>, StorageError> {
        let stored = self.file.get(entry.offset as usize..entry.end() as usize).unwrap_or_default();
        let unpacked = lz4_flex::block::decompress(stored, entry.length as usize);
        unpacked.ok().filter(|bytes| bytes.len() as u64 == entry.length).ok_or_else(|| {
            StorageError::corrupt(
                &self.name,
                entry.offset,
                format!("object {} cannot be decompressed", entry.id),
            )
        })
    }

    fn crc(&self, block: usize) -> Option<u32> {
        let crcs = self.file.get(self.crcs.clone())?.as_chunks::<4>().0;
        crcs.get(block).copied().map(u32::from_le_bytes)
    }

    /// Compares the checksums of the blocks in which a stretch of a body lies.
    fn check(&self, entry: &Entry, range: Range<u64>) -> Result<(), StorageError> {
        if range.is_empty() {
            return Ok(());
        }
        let body = self.file.get(entry.offset as usize..entry.end() as usize).unwrap_or_default();
        let first = range.start as usize / CHUNK_BLOCK_BYTES;
        let last = (range.end as usize - 1) / CHUNK_BLOCK_BYTES;
        for (at, block) in body.chunks(CHUNK_BLOCK_BYTES).enumerate().take(last + 1).skip(first) {
            let number = entry.block + at;
            if self.touched.contains(number) {
                continue;
            }
            if self.crc(number) != Some(crc32fast::hash(block)) {
                let offset = entry.offset + (at * CHUNK_BLOCK_BYTES) as u64;
                let what = format!("a checksum of object {} does not match", entry.id);
                return Err(StorageError::corrupt(&self.name, offset, what));
            }
            self.touched.insert(number);
        }
        Ok(())
    }

    /// Compares an object with its id byte by byte.
    ///
    /// # Errors
    /// `Corrupt`, also where the file does not hold it.
    pub fn verify_object(&self, id: &ObjectId) -> Result<(), StorageError> {
        let damage = |offset, what: String| StorageError::corrupt(&self.name, offset, what);
        let blob = self.get(id)?.ok_or_else(|| damage(0, format!("the file does not hold object {id}")))?;
        if ObjectId::of(&blob) != *id {
            let offset = self.entry(id).map_or(0, |entry| entry.offset);
            return Err(damage(offset, format!("object {id} has another hash")));
        }
        Ok(())
    }

    /// Compares everything with its checksums and ids, and returns the bytes checked.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn verify(&self) -> Result<u64, StorageError> {
        let mut first = Ok(());
        let bytes =
            self.verify_each(|_, damage| first = std::mem::replace(&mut first, Ok(())).and(Err(damage)));
        first.map(|()| bytes)
    }

    /// The same where all damages are told, each with the object that it hurts, or none where it is between bodies.
    pub fn verify_each(&self, mut tell: impl FnMut(Option<ObjectId>, StorageError)) -> u64 {
        let mut end = 0;
        for entry in &self.entries {
            self.zeros(end..entry.offset).unwrap_or_else(|damage| tell(None, damage));
            self.verify_object(&entry.id).unwrap_or_else(|damage| tell(Some(entry.id), damage));
            end = entry.end();
        }
        let gap = end..end.next_multiple_of(ALIGNMENT_BYTES as u64);
        self.zeros(gap).unwrap_or_else(|damage| tell(None, damage));
        self.file.len() as u64
    }

    fn zeros(&self, gap: Range<u64>) -> Result<(), StorageError> {
        let bytes = self.file.get(gap.start as usize..gap.end as usize).unwrap_or_default();
        if bytes.iter().any(|byte| *byte != 0) {
            return Err(Damage("the gap beside an object is not zero").at(&self.name, gap.start));
        }
        Ok(())
    }
}

/// Opens a chunk file that holds this object and compares the checksums of the object.
///
/// # Errors
/// `Missing`, `Corrupt` (also where the file does not hold the object), `Version`, `ForeignDatabase`, `Io`.
pub fn open_chunk(
    disk: &dyn Disk,
    name: &str,
    db_id: DatabaseId,
    id: ObjectId,
) -> Result<Blob, StorageError> {
    let blob = Chunks::open(disk, name, db_id)?.get(&id)?;
    blob.ok_or_else(|| StorageError::corrupt(name, 0, format!("the file does not hold object {id}")))
}

/// A chunk file as it is on the disk by now, whatever is mapped and was checked before. Nothing is touched that the disk may
/// not give.
pub struct ChunksOnDisk {
    file: Box<dyn File>,
    entries: BTreeMap<ObjectId, Entry>,
    crcs: Vec<u32>,
}

impl ChunksOnDisk {
    /// Opens a chunk file and reads its directory.
    ///
    /// # Errors
    /// As [`Chunks::open`].
    pub fn open(disk: &dyn Disk, name: &str, db_id: DatabaseId) -> Result<ChunksOnDisk, StorageError> {
        let failed = |error| StorageError::io("read", name, error);
        let file = disk.open_read(name).map_err(failed)?;
        let mut bytes = [0; STAMP_BYTES];
        let at = file.len().map_err(failed)?.saturating_sub(STAMP_BYTES as u64);
        file.read_at(&mut bytes, at).map_err(failed)?;
        let stamp = Stamp::decode(&bytes, at, CHUNK, name, Some(db_id))?;
        let damaged =
            || StorageError::corrupt(name, stamp.offset, "the directory is not the one that was written");
        // What no directory of such a file comes to is not made room for.
        let entries_max = 8 + PACK_OBJECTS_MAX * (ENTRY_BYTES + 4) as u64;
        let length_max = entries_max + 4 * (stamp.offset / CHUNK_BLOCK_BYTES as u64);
        if stamp.offset.checked_add(stamp.length) != Some(at) || stamp.length > length_max {
            return Err(damaged());
        }
        let mut directory = vec![0; stamp.length as usize];
        let read = file.read_at(&mut directory, stamp.offset).map_err(failed)?;
        if read != directory.len() || crc32fast::hash(&directory) != stamp.crc {
            return Err(damaged());
        }
        let (entries, crcs) = directory_of(&directory, stamp.offset).map_err(|d| d.at(name, stamp.offset))?;
        let entries = entries.into_iter().map(|entry| (entry.id, entry)).collect();
        let crcs = crcs.iter().copied().map(u32::from_le_bytes).collect();
        Ok(ChunksOnDisk { file, entries, crcs })
    }

    /// Whether it holds an object of so many bytes that can be read.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn is_stored(&self, id: &ObjectId, length: u64) -> io::Result<bool> {
        let Some(entry) = self.entries.get(id).filter(|entry| entry.length == length) else {
            return Ok(false);
        };
        let mut crcs = self.crcs.iter().skip(entry.block);
        let body = entry.offset..entry.end();
        blocks_pass(&*self.file, body, |block| crcs.next() == Some(&crc32fast::hash(block)))
    }
}

/// Reads a directory: entries in order of their places, with less than a page between them, and the checksums.
fn directory_of(directory: &[u8], limit: u64) -> Result<(Vec<Entry>, &[[u8; 4]]), Damage> {
    let mut cursor = Cursor::new(directory);
    let count = cursor.u64()?;
    if count > PACK_OBJECTS_MAX || count > (directory.len() / ENTRY_BYTES) as u64 {
        return Err(Damage("the directory's length is not that of its entries"));
    }
    let mut entries: Vec<Entry> = Vec::with_capacity(count as usize);
    let (mut end, mut block) = (0u64, 0);
    for _ in 0..count {
        let id = ObjectId(cursor.array()?);
        let (offset, stored, length) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
        let coding = match cursor.u64()? {
            0 if stored == length && length <= OBJECT_BYTES_MAX => PLAIN,
            1 if stored < length && length <= CHUNK_PACKED_BYTES_MAX as u64 => LZ4,
            _ => return Err(Damage("how an object is stored is unknown, or its length is none")),
        };
        let is_near = offset.checked_sub(end).is_some_and(|gap| gap < PAGE_BYTES as u64);
        end = offset
            .checked_add(stored)
            .filter(|end| is_near && *end <= limit)
            .ok_or(Damage("an object's place in the file is wrong"))?;
        let entry = Entry { id, offset, stored, length, coding, block };
        block += entry.blocks();
        entries.push(entry);
    }
    if end.checked_next_multiple_of(ALIGNMENT_BYTES as u64) != Some(limit) {
        return Err(Damage("the objects do not fill the file"));
    }
    let (crcs, rest) = cursor.rest().as_chunks::<4>();
    if crcs.len() != block || !rest.is_empty() {
        return Err(Damage("the directory's length is not that of its checksums"));
    }
    Ok((entries, crcs))
}
