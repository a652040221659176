//! Small files of one payload: a stamp, then the payload, to the end of the file.

use crate::disk::Disk;
use crate::error::StorageError;
use crate::object::Blob;
use crate::sealed::{self, SealedWriter};
use crate::stamp::{DatabaseId, Kind, STAMP_BYTES, Stamp};

/// The version of framed files, unless their kind has others.
const VERSION: u16 = 1;

/// What a framed file holds.
#[derive(Clone, Debug)]
pub struct Framed {
    /// The database that it belongs to.
    pub db_id: DatabaseId,
    /// The version of its form.
    pub version: u16,
    /// The payload, its checksum compared.
    pub payload: Blob,
}

/// Writes a sealed file of one payload and returns its length in bytes. `magic` names the kind of file.
///
/// # Errors
/// `Exists`, `Io`, `DiskFull`.
pub fn write_framed(
    disk: &dyn Disk,
    name: &str,
    magic: [u8; 8],
    db_id: DatabaseId,
    payload: &[u8],
) -> Result<u64, StorageError> {
    write_framed_as(disk, name, magic, VERSION, db_id, payload)
}

/// The same, in a version of the kind's own.
pub(crate) fn write_framed_as(
    disk: &dyn Disk,
    name: &str,
    magic: [u8; 8],
    version: u16,
    db_id: DatabaseId,
    payload: &[u8],
) -> Result<u64, StorageError> {
    let mut writer = SealedWriter::create(disk, name)?;
    let stamp = Stamp::of(payload, STAMP_BYTES as u64, db_id);
    writer.append(&stamp.encode(Kind { magic, version }, name))?;
    writer.append(payload)?;
    writer.publish()
}

/// Opens a framed file and compares its checksums. `db_id` is the database that it must belong to, where the
/// caller knows; `max_len` is the longest payload that the caller expects, bytes. The payload is not copied.
///
/// # Errors
/// `Missing`, `Corrupt`, `Version`, `ForeignDatabase`, `TooLarge`, `Io`.
pub fn read_framed(
    disk: &dyn Disk,
    name: &str,
    magic: [u8; 8],
    db_id: Option<DatabaseId>,
    max_len: u64,
) -> Result<Framed, StorageError> {
    read_framed_up_to(disk, name, magic, VERSION, db_id, max_len)
}

/// The same, up to a newest version of the kind's own.
pub(crate) fn read_framed_up_to(
    disk: &dyn Disk,
    name: &str,
    magic: [u8; 8],
    newest: u16,
    db_id: Option<DatabaseId>,
    max_len: u64,
) -> Result<Framed, StorageError> {
    let file = sealed::map(disk, name)?;
    let kind = Kind { magic, version: newest };
    let head = file.get(..STAMP_BYTES).unwrap_or(&file);
    let stamp = Stamp::decode(head, 0, kind, name, db_id)?;
    StorageError::limit(name, "the payload's length in bytes", stamp.length, max_len)?;
    if stamp.offset != STAMP_BYTES as u64 || stamp.length != (file.len() - STAMP_BYTES) as u64 {
        return Err(StorageError::corrupt(name, 0, "the payload's length is not the file's"));
    }
    stamp.part(&file, name)?;
    let version = stamp.version;
    let range = STAMP_BYTES..file.len();
    let payload = Blob::mapped(file, range)
        .ok_or_else(|| StorageError::corrupt(name, 0, "the payload is not in the file"))?;
    Ok(Framed { db_id: stamp.db_id, version, payload })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::disk::SimulatedDisk;
    use crate::twin;

    const MAGIC: [u8; 8] = *b"UBTESTED";
    const DB: DatabaseId = [7; 16];

    fn read(disk: &SimulatedDisk, name: &str) -> Result<Framed, StorageError> {
        read_framed(disk, name, MAGIC, Some(DB), 1 << 20)
    }

    #[test]
    fn payloads_come_back() {
        let disk = SimulatedDisk::new();
        for (name, payload) in [("none", vec![]), ("some", b"abc".to_vec()), ("long", vec![9; 1 << 20])] {
            let bytes = write_framed(&disk, name, MAGIC, DB, &payload).unwrap();
            assert_eq!(bytes, payload.len() as u64 + 64);
            let framed = read(&disk, name).unwrap();
            assert_eq!((&*framed.payload, framed.db_id), (&payload[..], DB));
        }
    }

    #[test]
    fn what_was_not_asked_for_is_refused() {
        let disk = SimulatedDisk::new();
        write_framed(&disk, "a", MAGIC, DB, b"abc").unwrap();
        let opened = |magic, db, max| read_framed(&disk, "a", magic, db, max).map(|_| ());
        assert!(matches!(opened(*b"UBOTHER.", None, 9), Err(StorageError::Corrupt { offset: 0, .. })));
        assert!(matches!(opened(MAGIC, Some([8; 16]), 9), Err(StorageError::ForeignDatabase { .. })));
        assert!(matches!(opened(MAGIC, None, 2), Err(StorageError::TooLarge { found: 3, limit: 2, .. })));
        assert!(opened(MAGIC, None, 3).is_ok());
        assert!(matches!(read(&disk, "b"), Err(StorageError::Missing { .. })));
        assert!(matches!(write_framed(&disk, "a", MAGIC, DB, b""), Err(StorageError::Exists { .. })));
    }

    #[test]
    fn a_file_of_a_newer_program_is_recognised() {
        let disk = SimulatedDisk::new();
        let kind = Kind { magic: MAGIC, version: 9 };
        disk.overwrite("a", Stamp::of(b"", 64, DB).encode(kind, "a").to_vec());
        assert!(matches!(read(&disk, "a"), Err(StorageError::Version { found: 9, supported: 1, .. })));
    }

    #[test]
    fn corrupt_twins_are_refused() {
        let disk = SimulatedDisk::new();
        write_framed(&disk, "a", MAGIC, DB, b"a small payload").unwrap();
        for (what, twin) in twin::twins(&disk.contents("a").unwrap()) {
            disk.overwrite("a", twin);
            assert!(read(&disk, "a").is_err(), "{what}");
        }
    }

    #[test]
    fn swapped_files_are_refused() {
        let disk = SimulatedDisk::new();
        write_framed(&disk, "a", MAGIC, DB, b"one").unwrap();
        write_framed(&disk, "b", MAGIC, DB, b"two").unwrap();
        let (a, b) = (disk.contents("a").unwrap(), disk.contents("b").unwrap());
        disk.overwrite("a", b);
        disk.overwrite("b", a);
        assert!(matches!(read(&disk, "a"), Err(StorageError::Corrupt { .. })));
        assert!(matches!(read(&disk, "b"), Err(StorageError::Corrupt { .. })));
    }

    #[test]
    fn a_stop_at_any_call_leaves_all_or_nothing() {
        let payload = vec![3; 3 << 20];
        twin::stop_everywhere(
            |disk| write_framed(disk, "a", MAGIC, DB, &payload).map(|_| ()),
            |disk, finished| match read_framed(disk, "a", MAGIC, Some(DB), u64::MAX) {
                Ok(framed) => assert_eq!(&*framed.payload, &payload),
                Err(error) => assert!(matches!(error, StorageError::Missing { .. }) && !finished),
            },
        );
    }
}
