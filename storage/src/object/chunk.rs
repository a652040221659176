//! Chunk files: one large object, sealed before its id is known to anybody.

use super::{Blob, ObjectId, Pack, pack};
use crate::disk::Disk;
use crate::error::StorageError;
use crate::stamp::{DatabaseId, Kind};

const CHUNK: Kind = Kind { magic: *b"UBCHUNK1", version: 1 };

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
    pack::write(disk, name, CHUNK, db_id, [(id, bytes)])?;
    Ok(id)
}

/// Opens a chunk file that holds this object. The checksum of its body is compared here, since the bytes are
/// lent afterwards without further checks.
///
/// # Errors
/// `Missing`, `Corrupt` (also where the file holds another object), `Version`, `ForeignDatabase`, `Io`.
pub fn open_chunk(
    disk: &dyn Disk,
    name: &str,
    db_id: DatabaseId,
    id: ObjectId,
) -> Result<Blob, StorageError> {
    open(disk, name, db_id, id).map(|(_, blob)| blob)
}

/// Compares a chunk file with its id byte by byte and returns the bytes checked.
///
/// # Errors
/// As [`open_chunk`].
pub fn verify_chunk(
    disk: &dyn Disk,
    name: &str,
    db_id: DatabaseId,
    id: ObjectId,
) -> Result<u64, StorageError> {
    open(disk, name, db_id, id)?.0.verify()
}

/// Opens a chunk file of which only the database is known, compares its object with the id, and answers the id and the
/// length of the object.
///
/// # Errors
/// As [`open_chunk`].
pub fn identify_chunk(
    disk: &dyn Disk,
    name: &str,
    db_id: DatabaseId,
) -> Result<(ObjectId, u64), StorageError> {
    let pack = Pack::open_as(disk, name, CHUNK, db_id)?;
    let id = pack.ids().next().filter(|_| pack.ids().len() == 1);
    let id = id.ok_or_else(|| StorageError::corrupt(name, 0, "the file does not hold one object alone"))?;
    pack.verify()?;
    let length = pack.get(&id)?.map_or(0, |blob| blob.len() as u64);
    Ok((id, length))
}

fn open(disk: &dyn Disk, name: &str, db_id: DatabaseId, id: ObjectId) -> Result<(Pack, Blob), StorageError> {
    let pack = Pack::open_as(disk, name, CHUNK, db_id)?;
    let blob = if pack.ids().len() == 1 { pack.get(&id)? } else { None };
    match blob {
        Some(blob) => Ok((pack, blob)),
        None => Err(StorageError::corrupt(name, 0, format!("the file does not hold object {id} alone"))),
    }
}
