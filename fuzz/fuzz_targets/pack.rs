//! Packs of objects.
#![no_main]

use libfuzzer_sys::fuzz_target;
use underbelly_fuzz::{DATABASE, FILE, disk_with, reseal};
use underbelly_storage::Pack;

fn read(bytes: Vec<u8>) {
    let Ok(pack) = Pack::open(&disk_with(FILE, bytes), FILE, DATABASE) else { return };
    for id in pack.ids() {
        assert!(pack.contains(&id));
        let _ = pack.get(&id);
    }
    let _ = (pack.info(), pack.verify());
}

fuzz_target!(|bytes: &[u8]| {
    read(bytes.to_vec());
    read(reseal::closed(bytes, *b"UBPACKED", FILE, reseal::directory));
});
