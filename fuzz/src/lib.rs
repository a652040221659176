//! What the fuzz targets share: names that are in every file, and checksums made good.
//!
//! A checksum turns away nearly everything that a fuzzer makes. The targets therefore read each input twice: as
//! it is, and with every checksum computed anew ([`reseal`]), as a careful attacker or a defect of the writer would
//! leave it. What is behind the checksums must not be believed either.

pub mod reseal;

use underbelly_storage::disk::SimulatedDisk;

/// The database of every file.
pub const DATABASE: [u8; 16] = *b"a fuzzed databas";

/// The name of every file but manifests and logs.
pub const FILE: &str = "file";

/// The magic of the framed files of the target `framed`.
pub const FRAMED_MAGIC: [u8; 8] = *b"UBFUZZED";

/// The name of the manifest of the target `manifest`.
pub const MANIFEST: &str = "MANIFEST-0000000001";

/// The name of the first file of a log.
pub const LOG: &str = "wal/0000000001.wal";

/// A disk that holds one file.
pub fn disk_with(name: &str, bytes: Vec<u8>) -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    disk.overwrite(name, bytes);
    disk
}
