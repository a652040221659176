//! The contents of a cell.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(columns) = underbelly::decode_content(bytes) {
        for (_, column) in columns.iter() {
            assert_eq!(column.len(), columns.rows());
            (0..column.len()).for_each(|row| drop(column.get(row)));
        }
    }
});
