//! Manifests: numbered framed files in the root folder, of which the newest that is sound counts.

use std::collections::BTreeSet;

use crate::disk::{Disk, Lock};
use crate::error::StorageError;
use crate::framed::{Framed, read_framed_up_to, write_framed_as};
use crate::limits::{MANIFEST_BYTES_MAX, MANIFEST_NUMBER_MAX};
use crate::object::Blob;
use crate::stamp::DatabaseId;

const MAGIC: [u8; 8] = *b"UBMANIFS";
/// The newest form of payloads; what they are is the engine's to say.
const VERSION: u16 = 2;
const PREFIX: &str = "MANIFEST-";
const DIGITS: usize = 10;

/// How often a reader looks for a manifest that stays. Each time but the last, a checkpoint of the writer came
/// between.
const PIN_TRIES: usize = 100;

/// The newest sound manifest.
#[derive(Debug)]
pub struct Manifest {
    /// Its number.
    pub number: u64,
    /// The database that it describes.
    pub db_id: DatabaseId,
    /// The version of the payload's form.
    pub version: u16,
    /// What was written.
    pub payload: Blob,
    /// Newer manifests that were damaged, newest first, and what is wrong with them.
    pub rejected: Vec<(String, StorageError)>,
}

/// A manifest that is not removed while the lock lives.
pub type PinnedManifest = (Manifest, Box<dyn Lock>);

/// The file name of a manifest.
pub fn manifest_name(number: u64) -> String {
    format!("{PREFIX}{number:0DIGITS$}")
}

fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?;
    (digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Whether a file in the database's folder is a manifest by its name.
pub fn is_manifest(name: &str) -> bool {
    number_of(name).is_some()
}

/// Numbers of all manifests, rising.
///
/// # Errors
/// `Io`.
pub fn manifest_numbers(disk: &dyn Disk) -> Result<Vec<u64>, StorageError> {
    let entries = disk.list("").map_err(|error| StorageError::io("list", &disk.describe(), error))?;
    let mut numbers: Vec<u64> = entries.iter().filter_map(|name| number_of(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Writes manifest `number` with a payload of the form `version`, durable on return, and returns its length in bytes.
///
/// # Errors
/// `Exists` where the number was used, `TooLarge`, `Io`, `DiskFull`.
pub fn write_manifest(
    disk: &dyn Disk,
    number: u64,
    version: u16,
    db_id: DatabaseId,
    payload: &[u8],
) -> Result<u64, StorageError> {
    let name = manifest_name(number);
    StorageError::limit(&name, "the manifest's number", number, MANIFEST_NUMBER_MAX)?;
    StorageError::limit(&name, "the payload's length in bytes", payload.len() as u64, MANIFEST_BYTES_MAX)?;
    write_framed_as(disk, &name, MAGIC, version, db_id, payload)
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
    for number in manifest_numbers(disk)?.into_iter().rev() {
        let name = manifest_name(number);
        match read_manifest(disk, number) {
            Ok(found) => return Ok(Some(Manifest { rejected, ..found })),
            Err(error) if error.may_be_sound() => return Err(error),
            Err(error) => rejected.push((name, error)),
        }
    }
    rejected.into_iter().next().map_or(Ok(None), |(_, error)| Err(error))
}

/// The newest sound manifest, which is not removed while the lock lives; `None` where there is no manifest at all.
///
/// A writer may replace manifests meanwhile; then the look is repeated.
///
/// # Errors
/// As [`newest_manifest`].
pub fn pin_newest_manifest(disk: &dyn Disk) -> Result<Option<PinnedManifest>, StorageError> {
    let is_missing = |error: &StorageError| matches!(error, StorageError::Missing { .. });
    let mut last = None;
    for _ in 0..PIN_TRIES {
        let found = match newest_manifest(disk) {
            Ok(None) => return Ok(None),
            Ok(Some(found)) => found,
            Err(error) if is_missing(&error) => {
                last = Some(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        // One that vanished was replaced by a newer one, which the list did not show yet.
        if let Some(at) = found.rejected.iter().position(|(_, error)| is_missing(error)) {
            last = found.rejected.into_iter().nth(at).map(|(_, error)| error);
            continue;
        }
        match pin_manifest(disk, found.number)? {
            Some(lock) => return Ok(Some((found, lock))),
            None => last = Some(StorageError::Missing { file: manifest_name(found.number) }),
        }
    }
    last.map_or(Ok(None), Err)
}

/// Keeps a manifest from being removed while the lock lives; `None` where it is removed already.
///
/// # Errors
/// `Io`.
pub fn pin_manifest(disk: &dyn Disk, number: u64) -> Result<Option<Box<dyn Lock>>, StorageError> {
    let name = manifest_name(number);
    match disk.share(&name) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        shared => shared.map_err(|error| StorageError::io("lock", &name, error)),
    }
}

/// The manifest of this number, whatever others there are.
///
/// # Errors
/// `Missing`, `Corrupt`, `Version`, `TooLarge`, `Io`.
pub fn read_manifest(disk: &dyn Disk, number: u64) -> Result<Manifest, StorageError> {
    let framed = read_framed_up_to(disk, &manifest_name(number), MAGIC, VERSION, None, MANIFEST_BYTES_MAX)?;
    let Framed { db_id, version, payload } = framed;
    Ok(Manifest { number, db_id, version, payload, rejected: Vec::new() })
}

/// Removes all manifests before the last of `kept` that are neither in `kept` nor pinned by readers, and returns how many.
///
/// # Errors
/// `Io`.
pub fn remove_manifests_except(disk: &dyn Disk, kept: &BTreeSet<u64>) -> Result<u64, StorageError> {
    let mut removed = 0;
    let last = kept.last().copied().unwrap_or(0);
    for old in manifest_numbers(disk)?.into_iter().filter(|number| *number < last && !kept.contains(number)) {
        let name = manifest_name(old);
        // Held over the removal: who shares the file later finds that it has lost its name.
        let claim = disk.claim(&name).map_err(|error| StorageError::io("lock", &name, error))?;
        if claim.is_none() {
            continue;
        }
        disk.remove(&name).map_err(|error| StorageError::io("remove", &name, error))?;
        removed += 1;
    }
    if removed > 0 {
        disk.sync_dir("").map_err(|error| StorageError::io("sync", &disk.describe(), error))?;
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::disk::{RealDisk, SimulatedDisk};
    use crate::sealed::remove_leftovers;
    use crate::twin;

    const DB: DatabaseId = [7; 16];

    fn disk_with(numbers: &[u64]) -> SimulatedDisk {
        let disk = SimulatedDisk::new();
        for number in numbers {
            write_manifest(&disk, *number, 1, DB, format!("state {number}").as_bytes()).unwrap();
        }
        disk
    }

    #[test]
    fn the_newest_counts() {
        assert!(newest_manifest(&SimulatedDisk::new()).unwrap().is_none());
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
        let stamp = Stamp::of(b"", 64, DB).encode(Kind { magic: MAGIC, version: 3 }, &name);
        disk.overwrite(&name, stamp.to_vec());
        assert!(matches!(newest_manifest(&disk), Err(StorageError::Version { found: 3, .. })));
    }

    #[test]
    fn old_ones_go() {
        let disk = disk_with(&[1, 2, 3, 4, 5]);
        let kept = [2, 4].into();
        assert_eq!(remove_manifests_except(&disk, &kept).unwrap(), 2);
        assert_eq!(remove_manifests_except(&disk, &kept).unwrap(), 0);
        assert_eq!(manifest_numbers(&disk.crash()).unwrap(), [2, 4, 5]);
        assert_eq!(&*read_manifest(&disk, 4).unwrap().payload, b"state 4");
        assert!(matches!(read_manifest(&disk, 3), Err(StorageError::Missing { .. })));
    }

    #[test]
    fn pinned_ones_stay_until_they_are_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path());
        assert!(pin_newest_manifest(&disk).unwrap().is_none());
        let write = |number| write_manifest(&disk, number, 1, DB, b"state").unwrap();
        write(1);
        let (found, pin) = pin_newest_manifest(&disk).unwrap().unwrap();
        assert_eq!(found.number, 1);
        write(2);
        write(3);
        let kept = [3].into();
        assert_eq!(remove_manifests_except(&disk, &kept).unwrap(), 1);
        assert_eq!(manifest_numbers(&disk).unwrap(), [1, 3]);
        drop(pin);
        assert_eq!(remove_manifests_except(&disk, &kept).unwrap(), 1);
        assert_eq!(manifest_numbers(&disk).unwrap(), [3]);
        assert!(pin_manifest(&disk, 1).unwrap().is_none());
    }

    #[test]
    fn leftovers_go() {
        let disk = disk_with(&[1]);
        disk.overwrite("MANIFEST-0000000002.tmp", vec![1]);
        assert_eq!(remove_leftovers(&disk, "", is_manifest).unwrap(), ["MANIFEST-0000000002.tmp"]);
        assert_eq!(disk.files(), ["MANIFEST-0000000001"]);
    }

    #[test]
    fn numbers_have_ten_digits() {
        let disk = SimulatedDisk::new();
        write_manifest(&disk, MANIFEST_NUMBER_MAX, 1, DB, b"").unwrap();
        let refused = write_manifest(&disk, MANIFEST_NUMBER_MAX + 1, 1, DB, b"");
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
                    write_manifest(disk, 1, 1, DB, b"one")?;
                }
                write_manifest(disk, 2, 1, DB, b"two").map(|_| ())
            },
            |disk, finished| {
                let number = newest_manifest(disk).unwrap().map(|manifest| manifest.number);
                assert!(number == Some(2) || !finished);
            },
        );
    }
}
