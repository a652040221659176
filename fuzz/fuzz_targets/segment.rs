//! Sealed segments.
#![no_main]

use libfuzzer_sys::fuzz_target;
use underbelly_fuzz::{DATABASE, FILE, disk_with, reseal};
use underbelly_storage::Segment;

fn read(bytes: Vec<u8>) {
    let Ok(segment) = Segment::open(&disk_with(FILE, bytes), FILE, DATABASE, None) else { return };
    for group in 0..segment.groups() {
        let rows = segment.group(group).rows;
        if let Ok(times) = segment.timestamps(group) {
            assert!(times.len() == rows && times.is_sorted());
        }
        let _ = segment.seqs(group);
        for (name, column_type) in segment.schema() {
            if let Ok(Some(column)) = segment.column(group, name) {
                assert_eq!((column.len(), column.column_type()), (rows, *column_type));
            }
            let few: Vec<u32> = (0..rows as u32).step_by((rows / 8).max(1)).collect();
            if let Ok(Some(column)) = segment.column_at(group, name, &few) {
                assert_eq!((column.len(), column.column_type()), (few.len(), *column_type));
            }
            let _ = segment.block(group, name);
            let _ = segment.cluster_keys(group, name);
        }
        let clusters = segment.group(group).clusters;
        let one =
            (0..clusters).step_by((clusters / 8).max(1)).map(|cluster| segment.part(group, Some(cluster)));
        for part in one.chain([segment.part_as_stored(group)]).flatten() {
            for (name, column_type) in segment.schema() {
                if let Ok(Some(column)) = segment.column_in(&part, name, 0..part.rows()) {
                    assert_eq!((column.len(), column.column_type()), (part.rows(), *column_type));
                }
                let _ = segment.codes_in(&part, name, 0..part.rows());
            }
            if part.is_of_one_key() {
                let _ = segment.timestamps_in(&part, 0..part.rows());
            }
        }
    }
    let _ = segment.verify();
}

fuzz_target!(|bytes: &[u8]| {
    read(bytes.to_vec());
    read(reseal::closed(bytes, *b"UBSEGMNT", FILE, reseal::footer));
});
