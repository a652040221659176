//! The 64 bytes that say what a file is.
//!
//! Framed files begin with a stamp, segments, packs and chunks end with one. It says of which kind, format
//! version and database the file is, under which name it was written, and where its body or index lies, with
//! that part's checksum. Every version of every format keeps this form, so that a file of the future is
//! recognised as such.

use crate::cursor::Cursor;
use crate::disk::Disk;
use crate::error::{Damage, StorageError};
use crate::sealed;

/// The identity of a database, in every one of its files.
pub type DatabaseId = [u8; 16];

/// Length of a stamp, bytes.
pub(crate) const STAMP_BYTES: usize = 64;

/// What a kind of file is called by its first (or last) stamp, and the newest version that can be read.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) magic: [u8; 8],
    pub(crate) version: u16,
}

/// A stamp, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The version of the file's form, where the stamp was read; 0 otherwise.
    pub(crate) version: u16,
    pub(crate) db_id: DatabaseId,
    /// Where the stamped part starts, bytes from the start of the file.
    pub(crate) offset: u64,
    /// Its length, bytes.
    pub(crate) length: u64,
    /// Its CRC-32.
    pub(crate) crc: u32,
}

/// Eight bytes that tie a file to its name: the first of BLAKE3 of the name.
fn name_tag(name: &str) -> [u8; 8] {
    let mut tag = [0; 8];
    tag.copy_from_slice(&blake3::hash(name.as_bytes()).as_bytes()[..8]);
    tag
}

impl Stamp {
    /// The stamp of a part of the file `name`.
    pub(crate) fn of(part: &[u8], offset: u64, db_id: DatabaseId) -> Stamp {
        Stamp { version: 0, db_id, offset, length: part.len() as u64, crc: crc32fast::hash(part) }
    }

    pub(crate) fn encode(&self, kind: Kind, name: &str) -> [u8; STAMP_BYTES] {
        let mut bytes = [0; STAMP_BYTES];
        bytes[0..8].copy_from_slice(&kind.magic);
        bytes[8..10].copy_from_slice(&kind.version.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.crc.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.db_id);
        bytes[32..40].copy_from_slice(&self.offset.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.length.to_le_bytes());
        bytes[48..56].copy_from_slice(&name_tag(name));
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the stamp in `bytes`, which lie at `at` in the file, and checks all that it says of itself:
    /// kind, checksum, version, name, and the database where one is expected.
    pub(crate) fn decode(
        bytes: &[u8],
        at: u64,
        kind: Kind,
        name: &str,
        db_id: Option<DatabaseId>,
    ) -> Result<Stamp, StorageError> {
        let damage = |what: Damage| what.at(name, at);
        let mut cursor = Cursor::new(bytes);
        let magic: [u8; 8] = cursor.array().map_err(damage)?;
        if magic != kind.magic {
            let expected = String::from_utf8_lossy(&kind.magic).into_owned();
            return Err(StorageError::corrupt(name, at, format!("no stamp {expected:?} stands there")));
        }
        let version = cursor.u16().map_err(damage)?;
        let reserved = cursor.u16().map_err(damage)?;
        let crc = cursor.u32().map_err(damage)?;
        let found_db: DatabaseId = cursor.array().map_err(damage)?;
        let (offset, length) = (cursor.u64().map_err(damage)?, cursor.u64().map_err(damage)?);
        let tag: [u8; 8] = cursor.array().map_err(damage)?;
        let reserved_after = cursor.u32().map_err(damage)?;
        let covered = bytes.get(..cursor.position()).unwrap_or_default();
        if cursor.u32().map_err(damage)? != crc32fast::hash(covered) {
            return Err(damage(Damage("the checksum of the stamp does not match")));
        }
        if version == 0 || version > kind.version {
            return Err(StorageError::Version {
                file: name.to_string(),
                found: version,
                supported: kind.version,
            });
        }
        if db_id.is_some_and(|expected| expected != found_db) {
            return Err(StorageError::ForeignDatabase { file: name.to_string() });
        }
        if tag != name_tag(name) {
            return Err(damage(Damage("the file was written under another name")));
        }
        if reserved != 0 || reserved_after != 0 {
            return Err(damage(Damage("a reserved byte is not zero")));
        }
        Ok(Stamp { version, db_id: found_db, offset, length, crc })
    }

    /// The stamped part of a file, its checksum compared.
    pub(crate) fn part<'a>(&self, file: &'a [u8], name: &str) -> Result<&'a [u8], StorageError> {
        let range = (usize::try_from(self.offset).ok())
            .zip(self.offset.checked_add(self.length).and_then(|end| usize::try_from(end).ok()));
        let part = range.and_then(|(start, end)| file.get(start..end)).ok_or_else(|| {
            StorageError::corrupt(name, self.offset, format!("{} bytes do not fit in the file", self.length))
        })?;
        if crc32fast::hash(part) != self.crc {
            return Err(StorageError::corrupt(name, self.offset, "the checksum does not match"));
        }
        Ok(part)
    }
}

/// The database that a segment, pack, chunk or image file belongs to, as its stamp says.
///
/// # Errors
/// `Missing`, `Corrupt`, `Io`.
pub fn owner(disk: &dyn Disk, name: &str) -> Result<DatabaseId, StorageError> {
    let file = sealed::map(disk, name)?;
    let at = file.len().saturating_sub(STAMP_BYTES);
    let stamp = file.get(at..).unwrap_or_default();
    // Of whatever kind and version it is.
    let magic = stamp.first_chunk().copied().unwrap_or_default();
    Ok(Stamp::decode(stamp, at as u64, Kind { magic, version: u16::MAX }, name, None)?.db_id)
}

/// The format version in the stamp at the end of a file; `None` where the file is too short for one.
pub(crate) fn version(file: &[u8]) -> Option<u16> {
    let at = file.len().checked_sub(STAMP_BYTES)? + 8;
    Some(u16::from_le_bytes(*file.get(at..)?.first_chunk()?))
}

/// Reads the stamp that ends a file, and the part before it that it covers. The part reaches up to the stamp.
pub(crate) fn closing<'a>(
    file: &'a [u8],
    kind: Kind,
    name: &str,
    db_id: Option<DatabaseId>,
) -> Result<(Stamp, &'a [u8]), StorageError> {
    let Some(at) = file.len().checked_sub(STAMP_BYTES) else {
        return Err(StorageError::corrupt(name, 0, format!("{} bytes are too few for a stamp", file.len())));
    };
    let stamp = Stamp::decode(&file[at..], at as u64, kind, name, db_id)?;
    if stamp.offset.checked_add(stamp.length) != Some(at as u64) {
        return Err(StorageError::corrupt(name, at as u64, "the index does not reach up to the stamp"));
    }
    let part = stamp.part(file, name)?;
    Ok((stamp, part))
}
