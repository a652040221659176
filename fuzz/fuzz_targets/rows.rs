//! Rows as Arrow IPC streams.
#![no_main]

use libfuzzer_sys::fuzz_target;
use underbelly_protocol::rows;

fuzz_target!(|bytes: &[u8]| {
    let Ok(found) = rows::decode(bytes) else { return };
    for (_, column) in found.iter() {
        assert_eq!(column.len(), found.rows());
    }
    let mut again = Vec::new();
    if rows::encode(found.clone(), &mut again).is_ok() {
        assert!(rows::decode(&again).is_ok_and(|again| again.rows() == found.rows()));
    }
});
