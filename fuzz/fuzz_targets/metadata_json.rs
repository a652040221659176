//! Metadata of models in JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use underbelly::Metadata;

fuzz_target!(|text: &str| {
    let Ok(metadata) = Metadata::from_json(text) else { return };
    let _ = (metadata.id(), metadata.timestamp());
    assert_eq!(Metadata::from_json(&metadata.to_json()).as_ref(), Ok(&metadata));
    if let Ok(cbor) = metadata.to_cbor() {
        let again = Metadata::from_cbor(&cbor);
        assert!(again.is_ok_and(|again| again.to_cbor().is_ok_and(|bytes| bytes == cbor)));
    }
});
