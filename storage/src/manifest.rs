//! Manifests: numbered framed files in the root folder, of which the newest that is sound counts.

use crate::disk::Disk;
use crate::error::StorageError;
use crate::framed::{read_framed, write_framed};
use crate::limits::{MANIFEST_BYTES_MAX, MANIFEST_NUMBER_MAX};
use crate::object::Blob;
use crate::stamp::DatabaseId;

const MAGIC: [u8; 8] = *b"UBMANIFS";
const PREFIX: &str = "MANIFEST-";
const DIGITS: usize = 10;

/// The newest sound manifest.
#[derive(Debug)]
pub struct Manifest {
    /// Its number.
    pub number: u64,
    /// The database that it describes.
    pub db_id: DatabaseId,
    /// What was written.
    pub payload: Blob,
    /// Newer manifests that were damaged, newest first, and what is wrong with them.
    pub rejected: Vec<(String, StorageError)>,
}

/// The file name of a manifest.
pub fn manifest_name(number: u64) -> String {
    format!("{PREFIX}{number:0DIGITS$}")
}

fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?;
    (digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Numbers of all manifests, rising.
fn numbers(disk: &dyn Disk) -> Result<Vec<u64>, StorageError> {
    let entries = disk.list("").map_err(|error| StorageError::io("list", "", error))?;
    let mut numbers: Vec<u64> = entries.iter().filter_map(|name| number_of(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Writes manifest `number`, durable on return, and returns its length in bytes.
///
/// # Errors
/// `Exists` where the number was used, `TooLarge`, `Io`, `DiskFull`.
pub fn write_manifest(
    disk: &dyn Disk,
    number: u64,
    db_id: DatabaseId,
    payload: &[u8],
) -> Result<u64, StorageError> {
    let name = manifest_name(number);
    StorageError::limit(&name, "the manifest's number", number, MANIFEST_NUMBER_MAX)?;
    StorageError::limit(&name, "the payload's length in bytes", payload.len() as u64, MANIFEST_BYTES_MAX)?;
    write_framed(disk, &name, MAGIC, db_id, payload)
}

/// The newest manifest that is sound, or `None` where there is no manifest at all.
///
/// A damaged one is passed over for the next older, and reported. A disk that cannot be read, or a manifest of
/// a newer program, is an error at once: an older manifest would then hide data that is there.
///
/// # Errors
/// The newest manifest's error where none is sound; `Version`; `Io`.
pub fn newest_manifest(disk: &dyn Disk) -> Result<Option<Manifest>, StorageError> {
    let mut rejected = Vec::new();
    for number in numbers(disk)?.into_iter().rev() {
        let name = manifest_name(number);
        match read_framed(disk, &name, MAGIC, None, MANIFEST_BYTES_MAX) {
            Ok(framed) => {
                let (db_id, payload) = (framed.db_id, framed.payload);
                return Ok(Some(Manifest { number, db_id, payload, rejected }));
            }
            Err(error @ (StorageError::Io { .. } | StorageError::Version { .. })) => return Err(error),
            Err(error) => rejected.push((name, error)),
        }
    }
    rejected.into_iter().next().map_or(Ok(None), |(_, error)| Err(error))
}

/// Removes manifests with a number below `number` and returns how many.
///
/// # Errors
/// `Io`.
pub fn remove_manifests_before(disk: &dyn Disk, number: u64) -> Result<u64, StorageError> {
    let mut removed = 0;
    for old in numbers(disk)?.into_iter().take_while(|n| *n < number) {
        let name = manifest_name(old);
        disk.remove(&name).map_err(|error| StorageError::io("remove", &name, error))?;
        removed += 1;
    }
    if removed > 0 {
        disk.sync_dir("").map_err(|error| StorageError::io("sync", "", error))?;
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::disk::MemoryDisk;
    use crate::sealed::remove_leftovers;
    use crate::twin;

    const DB: DatabaseId = [7; 16];

    fn disk_with(numbers: &[u64]) -> MemoryDisk {
        let disk = MemoryDisk::new();
        for number in numbers {
            write_manifest(&disk, *number, DB, format!("state {number}").as_bytes()).unwrap();
        }
        disk
    }

    #[test]
    fn the_newest_counts() {
        assert!(newest_manifest(&MemoryDisk::new()).unwrap().is_none());
        let disk = disk_with(&[9, 11, 10]);
        for other in ["MANIFEST-12", "MANIFEST-000000001x", "MANIFEST-0000000012.tmp", "LOCK"] {
            disk.overwrite(other, b"not a manifest".to_vec());
        }
        let manifest = newest_manifest(&disk).unwrap().unwrap();
        assert_eq!((manifest.number, manifest.db_id, &*manifest.payload), (11, DB, &b"state 11"[..]));
        assert!(manifest.rejected.is_empty());
    }

    #[test]
    fn a_damaged_one_is_passed_over_and_reported() {
        let disk = disk_with(&[1, 2, 3]);
        disk.overwrite(&manifest_name(3), vec![0; 100]);
        disk.overwrite(&manifest_name(2), disk.contents(&manifest_name(1)).unwrap());
        let manifest = newest_manifest(&disk).unwrap().unwrap();
        assert_eq!(manifest.number, 1);
        let names: Vec<_> = manifest.rejected.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["MANIFEST-0000000003", "MANIFEST-0000000002"]);
    }

    #[test]
    fn none_sound_is_an_error_and_not_an_empty_database() {
        let disk = disk_with(&[1]);
        disk.overwrite(&manifest_name(1), Vec::new());
        assert!(matches!(newest_manifest(&disk), Err(StorageError::Corrupt { .. })));
    }

    #[test]
    fn a_manifest_of_a_newer_program_hides_no_older_one() {
        use crate::stamp::{Kind, Stamp};
        let disk = disk_with(&[1]);
        let name = manifest_name(2);
        let stamp = Stamp::of(b"", 64, DB).encode(Kind { magic: MAGIC, version: 2 }, &name);
        disk.overwrite(&name, stamp.to_vec());
        assert!(matches!(newest_manifest(&disk), Err(StorageError::Version { found: 2, .. })));
    }

    #[test]
    fn old_ones_go() {
        let disk = disk_with(&[1, 2, 3]);
        assert_eq!(remove_manifests_before(&disk, 3).unwrap(), 2);
        assert_eq!(remove_manifests_before(&disk, 3).unwrap(), 0);
        assert_eq!(disk.crash().list("").unwrap(), ["MANIFEST-0000000003"]);
    }

    #[test]
    fn leftovers_go() {
        let disk = disk_with(&[1]);
        disk.overwrite("MANIFEST-0000000002.tmp", vec![1]);
        assert_eq!(remove_leftovers(&disk, "").unwrap(), ["MANIFEST-0000000002.tmp"]);
        assert_eq!(disk.files(), ["MANIFEST-0000000001"]);
    }

    #[test]
    fn numbers_have_ten_digits() {
        let disk = MemoryDisk::new();
        write_manifest(&disk, MANIFEST_NUMBER_MAX, DB, b"").unwrap();
        let refused = write_manifest(&disk, MANIFEST_NUMBER_MAX + 1, DB, b"");
        assert!(matches!(refused, Err(StorageError::TooLarge { .. })));
        assert_eq!(newest_manifest(&disk).unwrap().unwrap().number, MANIFEST_NUMBER_MAX);
    }

    #[test]
    fn corrupt_twins_fall_back() {
        let disk = disk_with(&[1, 2]);
        for (what, twin) in twin::twins(&disk.contents(&manifest_name(2)).unwrap()) {
            disk.overwrite(&manifest_name(2), twin);
            let manifest = newest_manifest(&disk).unwrap().unwrap();
            assert_eq!((manifest.number, manifest.rejected.len()), (1, 1), "{what}");
        }
    }

    #[test]
    fn a_stop_at_any_call_keeps_the_older_one() {
        twin::stop_everywhere(
            |disk| {
                if disk.files().is_empty() {
                    write_manifest(disk, 1, DB, b"one")?;
                }
                write_manifest(disk, 2, DB, b"two").map(|_| ())
            },
            |disk, finished| {
                let number = newest_manifest(disk).unwrap().map(|manifest| manifest.number);
                assert!(number == Some(2) || !finished);
            },
        );
    }
}
