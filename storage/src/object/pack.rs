//! Packs: many objects in one sealed file.
//!
//! Bodies, each on a 64-byte boundary; then the directory, sorted by id; then the stamp. Bodies lie end to end
//! in the order in which they were given, which need not be that of the directory.

use std::io;

use super::{Blob, ObjectId, blocks_pass};
use crate::cursor::Cursor;
use crate::disk::{Disk, File};
use crate::error::{Damage, StorageError};
use crate::limits::{ALIGNMENT_BYTES, OBJECT_BYTES_MAX, PACK_OBJECTS_MAX};
use crate::map::Mapped;
use crate::sealed::{self, SealedWriter};
use crate::stamp::{self, DatabaseId, Kind, Stamp};
use crate::touched::Touched;

const PACK: Kind = Kind { magic: *b"UBPACKED", version: 1 };

/// Length of one entry of the directory, bytes.
const ENTRY_BYTES: usize = 56;

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackInfo {
    /// The file's name.
    pub file: String,
    /// Its length, bytes.
    pub bytes: u64,
    /// Number of objects.
    pub objects: u64,
    /// BLAKE3-256 of the directory, which holds the ids of all objects.
    pub directory_hash: [u8; 32],
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: ObjectId,
    offset: u64,
    length: u64,
    crc: u32,
}

/// Writes a pack, durable on return. An object that comes twice is stored once.
///
/// # Errors
/// `Refused` where bytes are not those of their id; `TooLarge`, `Exists`, `Io`, `DiskFull`.
pub fn write_pack<'a>(
    disk: &dyn Disk,
    name: &str,
    db_id: DatabaseId,
    objects: impl IntoIterator<Item = (ObjectId, &'a [u8])>,
) -> Result<PackInfo, StorageError> {
    write(disk, name, PACK, db_id, objects)
}

pub(super) fn write<'a>(
    disk: &dyn Disk,
    name: &str,
    kind: Kind,
    db_id: DatabaseId,
    objects: impl IntoIterator<Item = (ObjectId, &'a [u8])>,
) -> Result<PackInfo, StorageError> {
    let mut writer = SealedWriter::create(disk, name)?;
    let mut entries = std::collections::BTreeMap::new();
    for (id, bytes) in objects {
        if entries.contains_key(&id) {
            continue;
        }
        StorageError::limit(name, "the object's length in bytes", bytes.len() as u64, OBJECT_BYTES_MAX)?;
        StorageError::limit(name, "the number of objects", entries.len() as u64 + 1, PACK_OBJECTS_MAX)?;
        if ObjectId::of(bytes) != id {
            return Err(StorageError::refused(
                name,
                format!("the bytes given as object {id} hash otherwise"),
            ));
        }
        let offset = writer.align()?;
        writer.append(bytes)?;
        entries.insert(id, Entry { id, offset, length: bytes.len() as u64, crc: crc32fast::hash(bytes) });
    }
    let mut directory = Vec::with_capacity(entries.len() * ENTRY_BYTES);
    for entry in entries.values() {
        directory.extend_from_slice(&entry.id.0);
        directory.extend_from_slice(&entry.offset.to_le_bytes());
        directory.extend_from_slice(&entry.length.to_le_bytes());
        directory.extend_from_slice(&entry.crc.to_le_bytes());
        directory.extend_from_slice(&[0; 4]);
    }
    let offset = writer.align()?;
    writer.append(&directory)?;
    writer.append(&Stamp::of(&directory, offset, db_id).encode(kind, name))?;
    Ok(PackInfo {
        file: name.to_string(),
        bytes: writer.publish()?,
        objects: entries.len() as u64,
        directory_hash: *blake3::hash(&directory).as_bytes(),
    })
}

/// An open pack. Its directory was checked; a body is checked when it is first asked for.
#[derive(Debug)]
pub struct Pack {
    name: String,
    file: Mapped,
    entries: Vec<Entry>,
    touched: Touched,
    directory_hash: [u8; 32],
}

impl Pack {
    /// Opens a pack and checks all of its structure.
    ///
    /// # Errors
    /// `Missing`, `Corrupt`, `Version`, `ForeignDatabase`, `Io`.
    pub fn open(disk: &dyn Disk, name: &str, db_id: DatabaseId) -> Result<Pack, StorageError> {
        Pack::open_as(disk, name, PACK, db_id)
    }

    pub(super) fn open_as(
        disk: &dyn Disk,
        name: &str,
        kind: Kind,
        db_id: DatabaseId,
    ) -> Result<Pack, StorageError> {
        let file = sealed::map(disk, name)?;
        let (stamp, directory) = stamp::closing(&file, kind, name, Some(db_id))?;
        let entries = directory_of(directory, stamp.offset).map_err(|d| d.at(name, stamp.offset))?;
        let directory_hash = *blake3::hash(directory).as_bytes();
        let touched = Touched::new(entries.len());
        Ok(Pack { name: name.to_string(), file, entries, touched, directory_hash })
    }

    /// What the file says of itself.
    pub fn info(&self) -> PackInfo {
        PackInfo {
            file: self.name.clone(),
            bytes: self.file.len() as u64,
            objects: self.entries.len() as u64,
            directory_hash: self.directory_hash,
        }
    }

    /// Length of the directory, bytes: what opening reads.
    pub fn directory_bytes(&self) -> u64 {
        (self.entries.len() * ENTRY_BYTES) as u64
    }

    /// Ids of all objects, rising.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = ObjectId> + '_ {
        self.entries.iter().map(|entry| entry.id)
    }

    /// Whether the pack holds this object.
    pub fn contains(&self, id: &ObjectId) -> bool {
        self.position(id).is_some()
    }

    /// The bytes of an object without a copy, or `None` where the pack does not hold it.
    ///
    /// # Errors
    /// `Corrupt` where the body does not match its checksum.
    pub fn get(&self, id: &ObjectId) -> Result<Option<Blob>, StorageError> {
        self.position(id).map_or(Ok(None), |part| self.get_at(part, id))
    }

    /// The place of an object among those of the pack, by which [`Pack::get_at`] finds it without a search.
    pub fn position(&self, id: &ObjectId) -> Option<usize> {
        self.entries.binary_search_by(|entry| entry.id.cmp(id)).ok()
    }

    /// The bytes of the object at a place, or `None` where another one or none stands there.
    ///
    /// # Errors
    /// As [`Pack::get`].
    pub fn get_at(&self, part: usize, id: &ObjectId) -> Result<Option<Blob>, StorageError> {
        let Some(entry) = self.entries.get(part).filter(|entry| entry.id == *id) else { return Ok(None) };
        let blob = self.body(entry)?;
        if !self.touched.contains(part) {
            if crc32fast::hash(&blob) != entry.crc {
                let what = format!("object {id} of {} bytes does not match its hash", entry.length);
                return Err(StorageError::corrupt(&self.name, entry.offset, what));
            }
            self.touched.insert(part);
        }
        Ok(Some(blob))
    }

    /// The file as it is on the disk by now, if it is as long as it was.
    ///
    /// # Errors
    /// `Missing` where there is none, `Corrupt` where it has another length, and `Io`.
    pub fn look(&self, disk: &dyn Disk) -> Result<Box<dyn File>, StorageError> {
        let failed = |error| StorageError::io("read", &self.name, error);
        let file = disk.open_read(&self.name).map_err(failed)?;
        match file.len().map_err(failed)? {
            bytes if bytes == self.file.len() as u64 => Ok(file),
            bytes => Err(StorageError::corrupt(&self.name, bytes, "the file is not as long as it was")),
        }
    }

    /// Whether the object at a place can be read in the file that is [on the disk](Pack::look) by now, whatever is mapped and was
    /// checked before. Nothing is touched that the disk may not give.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn is_stored(&self, file: &dyn File, part: usize, id: &ObjectId) -> io::Result<bool> {
        let Some(entry) = self.entries.get(part).filter(|entry| entry.id == *id) else { return Ok(false) };
        let mut crc = crc32fast::Hasher::new();
        let body = entry.offset..entry.offset + entry.length;
        let is_read = blocks_pass(file, body, |block| {
            crc.update(block);
            true
        })?;
        Ok(is_read && crc.finalize() == entry.crc)
    }

    /// Compares every body with its id, and the bytes between bodies with zero. Returns the bytes checked.
    ///
    /// # Errors
    /// `Corrupt` for the first damage found.
    pub fn verify(&self) -> Result<u64, StorageError> {
        let mut first = Ok(());
        let bytes =
            self.verify_each(|_, damage| first = std::mem::replace(&mut first, Ok(())).and(Err(damage)));
        first.map(|()| bytes)
    }

    /// The same where all damages are told, each with the object that it hurts, or none where it is between bodies.
    pub fn verify_each(&self, mut tell: impl FnMut(Option<ObjectId>, StorageError)) -> u64 {
        for entry in &self.entries {
            let is_whole = |blob: &Blob| crc32fast::hash(blob) == entry.crc && ObjectId::of(blob) == entry.id;
            if !self.body(entry).is_ok_and(|blob| is_whole(&blob)) {
                let what = format!("object {} of {} bytes does not match its hash", entry.id, entry.length);
                tell(Some(entry.id), StorageError::corrupt(&self.name, entry.offset, what));
            }
            let end = (entry.offset + entry.length) as usize;
            let gap = self.file.get(end..end.next_multiple_of(ALIGNMENT_BYTES)).unwrap_or_default();
            if gap.iter().any(|byte| *byte != 0) {
                tell(None, Damage("the gap after an object is not zero").at(&self.name, end as u64));
            }
        }
        self.file.len() as u64
    }

    fn body(&self, entry: &Entry) -> Result<Blob, StorageError> {
        Blob::mapped(self.file.clone(), entry.offset as usize..(entry.offset + entry.length) as usize)
            .ok_or_else(|| StorageError::corrupt(&self.name, entry.offset, "an object is not in the file"))
    }
}

/// Reads a directory. Its entries rise by id, and the bodies fill the file from 0 up to `limit`, each on a
/// boundary directly after the one before, so that none overlap and none is out of bounds.
fn directory_of(directory: &[u8], limit: u64) -> Result<Vec<Entry>, Damage> {
    let count = directory.len() / ENTRY_BYTES;
    if !directory.len().is_multiple_of(ENTRY_BYTES) || count as u64 > PACK_OBJECTS_MAX {
        return Err(Damage("the directory's length is not that of its entries"));
    }
    let mut cursor = Cursor::new(directory);
    let mut entries: Vec<Entry> = Vec::with_capacity(count);
    for _ in 0..count {
        let id = ObjectId(cursor.array()?);
        let (offset, length, crc) = (cursor.u64()?, cursor.u64()?, cursor.u32()?);
        cursor.zeros(4)?;
        if entries.last().is_some_and(|last| last.id >= id) {
            return Err(Damage("the directory is not in order"));
        }
        entries.push(Entry { id, offset, length, crc });
    }
    let mut places: Vec<(u64, u64)> = entries.iter().map(|e| (e.offset, e.length)).collect();
    places.sort_unstable();
    let mut next = 0u64;
    for (offset, length) in places {
        let end = offset.checked_add(length).filter(|end| *end <= limit && length <= OBJECT_BYTES_MAX);
        let aligned = end.and_then(|end| end.checked_next_multiple_of(ALIGNMENT_BYTES as u64));
        match aligned {
            Some(aligned) if offset == next => next = aligned,
            _ => return Err(Damage("an object's place in the file is wrong")),
        }
    }
    if next != limit {
        return Err(Damage("the objects do not fill the file"));
    }
    Ok(entries)
}
