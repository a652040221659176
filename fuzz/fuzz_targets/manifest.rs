//! Manifests, and whole databases that begin with one.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use underbelly::{Database, Options};
use underbelly_fuzz::{MANIFEST, disk_with, reseal};
use underbelly_storage::newest_manifest;

fuzz_target!(|bytes: &[u8]| {
    let _ = newest_manifest(&disk_with(MANIFEST, bytes.to_vec()));
    let disk = disk_with(MANIFEST, reseal::framed(bytes, *b"UBMANIFS", MANIFEST));
    assert!(newest_manifest(&disk).is_ok_and(|found| found.is_some()));
    // There is no log, so this is refused at some point whatever the manifest says.
    let options = Options { workers: 0, ..Options::default() };
    assert!(Database::open_on(Arc::new(disk), options).is_err());
});
