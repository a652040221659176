//! Chunk files of one object.
#![no_main]

use libfuzzer_sys::fuzz_target;
use underbelly_fuzz::{DATABASE, FILE, disk_with, reseal};
use underbelly_storage::{ObjectId, open_chunk, verify_chunk};

fn read(bytes: Vec<u8>) {
    // The id that the file gives for its object: the first of the directory.
    let id = bytes.len().checked_sub(64 + 56).and_then(|at| bytes[at..].first_chunk::<32>().copied());
    let id = ObjectId(id.unwrap_or_default());
    let disk = disk_with(FILE, bytes);
    let _ = open_chunk(&disk, FILE, DATABASE, id);
    if verify_chunk(&disk, FILE, DATABASE, id).is_ok() {
        assert!(open_chunk(&disk, FILE, DATABASE, id).is_ok_and(|blob| ObjectId::of(&blob) == id));
    }
}

fuzz_target!(|bytes: &[u8]| {
    read(bytes.to_vec());
    read(reseal::closed(bytes, *b"UBCHUNK1", FILE, reseal::directory));
});
