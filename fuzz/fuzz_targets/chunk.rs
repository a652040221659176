//! Chunk files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use underbelly_fuzz::{DATABASE, FILE, disk_with, reseal};
use underbelly_storage::{Chunks, ObjectId};

fn read(bytes: Vec<u8>) {
    let disk = disk_with(FILE, bytes);
    let Ok(chunks) = Chunks::open(&disk, FILE, DATABASE) else { return };
    let is_sound = chunks.verify().is_ok();
    for (id, length) in chunks.objects() {
        let part = chunks.range(&id, length / 3..length);
        match chunks.get(&id) {
            Ok(blob) => {
                let blob = blob.unwrap_or_else(|| panic!("{id} is listed"));
                assert_eq!(blob.len() as u64, length);
                assert!(!is_sound || ObjectId::of(&blob) == id);
                assert!(part.is_ok_and(|part| part.is_some_and(|part| *part == blob[length as usize / 3..])));
            }
            Err(_) => assert!(!is_sound),
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    read(bytes.to_vec());
    read(reseal::closed(bytes, *b"UBCHUNK1", FILE, reseal::chunks));
});
