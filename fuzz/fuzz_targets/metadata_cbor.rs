//! Metadata of models in CBOR.
#![no_main]

use libfuzzer_sys::fuzz_target;
use underbelly::Metadata;

fuzz_target!(|bytes: &[u8]| {
    let Ok(metadata) = Metadata::from_cbor(bytes) else { return };
    let _ = (metadata.id(), metadata.timestamp(), metadata.to_json());
    if let Ok(canonical) = metadata.to_cbor() {
        let again = Metadata::from_cbor(&canonical);
        assert!(again.is_ok_and(|again| again.to_cbor().is_ok_and(|bytes| bytes == canonical)));
    }
});
