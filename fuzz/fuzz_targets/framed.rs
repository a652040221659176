//! Framed files of one payload.
#![no_main]

use libfuzzer_sys::fuzz_target;
use underbelly_fuzz::{DATABASE, FILE, FRAMED_MAGIC, disk_with, reseal};
use underbelly_storage::read_framed;

fuzz_target!(|bytes: &[u8]| {
    let disk = disk_with(FILE, bytes.to_vec());
    let _ = read_framed(&disk, FILE, FRAMED_MAGIC, Some(DATABASE), 1 << 20);
    let _ = read_framed(&disk, FILE, FRAMED_MAGIC, None, 100);
    let disk = disk_with(FILE, reseal::framed(bytes, FRAMED_MAGIC, FILE));
    let framed = read_framed(&disk, FILE, FRAMED_MAGIC, Some(DATABASE), 1 << 20);
    assert!(framed.is_ok_and(|framed| *framed.payload == bytes[bytes.len().min(64)..]));
});
