//! Manifests as the engine reads and writes them: the one place where their payload is decoded.

use underbelly_storage::disk::Disk;
use underbelly_storage::error::StorageError;
use underbelly_storage::manifest::{self, manifest_name, read_manifest, write_manifest};
use underbelly_wal::{Place, Start};

use crate::limits::{FILE_NUMBER_MAX, SEQ_MAX};
use crate::record::{from_archive, to_archive, types, v1};

/// Where the payload begins in the file, bytes.
const PAYLOAD_AT: u64 = 64;

/// A payload that is the archive alone.
const ARCHIVE: u16 = 1;
/// A `u32` with their length, logical types of columns, then the archive.
const TYPES: u16 = 2;

/// A manifest that was read.
pub(crate) struct Stored {
    pub number: u64,
    pub database: [u8; 16],
    pub manifest: v1::Manifest,
    /// Bytes of its payload.
    pub bytes: u64,
}

impl Stored {
    /// The manifest of this number.
    pub(crate) fn read(disk: &dyn Disk, number: u64) -> Result<Stored, StorageError> {
        Stored::decode(read_manifest(disk, number)?)
    }

    /// One whose checksums were compared.
    pub(crate) fn decode(found: manifest::Manifest) -> Result<Stored, StorageError> {
        let corrupt = |what: String| StorageError::corrupt(&manifest_name(found.number), PAYLOAD_AT, what);
        let manifest = decoded(found.version, &found.payload).map_err(corrupt)?;
        if manifest.seq > SEQ_MAX || manifest.next_file > FILE_NUMBER_MAX {
            return Err(corrupt("it counts further than any database comes".to_string()));
        }
        let (number, database, bytes) = (found.number, found.db_id, found.payload.len() as u64);
        Ok(Stored { number, database, manifest, bytes })
    }
}

fn decoded(version: u16, payload: &[u8]) -> Result<v1::Manifest, String> {
    let (types, archive) = match version {
        ARCHIVE => (Vec::new(), payload),
        _ => types::split(payload)?,
    };
    let mut manifest: v1::Manifest = from_archive(archive)?;
    // Both are in one order.
    let mut of_series = manifest.series.iter_mut();
    for (series, types) in types {
        let known = of_series.find(|known| known.name == series);
        known.ok_or_else(|| format!("logical types of series {series:?}, which is not there"))?.types = types;
    }
    Ok(manifest)
}

/// Writes a manifest, durably, and answers its length in bytes.
pub(crate) fn write(
    disk: &dyn Disk,
    number: u64,
    database: [u8; 16],
    manifest: &v1::Manifest,
) -> Result<u64, StorageError> {
    let refused = |what| StorageError::Refused { file: manifest_name(number), what };
    let archive = to_archive(manifest).map_err(refused)?;
    let typed = manifest.series.iter().filter(|series| !series.types.is_empty());
    let typed: Vec<_> = typed.map(|series| (series.name.as_str(), series.types.clone())).collect();
    // An older build refuses what it would read wrong, and nothing else.
    if typed.is_empty() {
        return write_manifest(disk, number, ARCHIVE, database, &archive);
    }
    let types = types::encode(&typed).map_err(refused)?;
    let length = u32::try_from(types.len()).map_err(|_| refused("too many logical types".to_string()))?;
    let payload = [&length.to_le_bytes()[..], &types, &archive].concat();
    write_manifest(disk, number, TYPES, database, &payload)
}

impl v1::Manifest {
    /// Where the log goes on behind it.
    pub(crate) fn log_start(&self) -> Start {
        Start { seq: self.seq.saturating_add(1), place: self.log.as_ref().map(v1::LogPlace::place) }
    }
}

impl v1::LogPlace {
    pub(crate) fn of(place: Place) -> v1::LogPlace {
        let Place { file, salt, offset, batch, seq, crc } = place;
        v1::LogPlace { file, salt, offset, batch, seq, crc }
    }

    fn place(&self) -> Place {
        let v1::LogPlace { file, salt, offset, batch, seq, crc } = *self;
        Place { file, salt, offset, batch, seq, crc }
    }
}
