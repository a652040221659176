//! For tests: every way in which a small file is damaged, and every call at which a machine stops.

use crate::disk::SimulatedDisk;
use crate::error::StorageError;

/// Copies of `bytes` with one byte changed, cut short, with bytes added, and with ranges of zeros.
pub(crate) fn twins(bytes: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> + '_ {
    let flipped = (0..bytes.len()).flat_map(move |at| {
        [0x01u8, 0x80, 0xff].into_iter().map(move |mask| {
            let mut twin = bytes.to_vec();
            twin[at] ^= mask;
            (format!("byte {at} xor {mask:#x}"), twin)
        })
    });
    let cut = (0..bytes.len()).map(move |length| (format!("cut to {length}"), bytes[..length].to_vec()));
    let longer = [1, 63, 64, 4096].into_iter().map(move |more| {
        let mut twin = bytes.to_vec();
        twin.resize(bytes.len() + more, 0);
        (format!("longer by {more}"), twin)
    });
    let zeroed = [8, 64, 512].into_iter().flat_map(move |length| {
        (0..bytes.len()).step_by(length).map(move |at| {
            let mut twin = bytes.to_vec();
            let end = (at + length).min(bytes.len());
            twin[at..end].fill(0);
            (format!("zeros from {at} to {end}"), twin)
        })
    });
    flipped.chain(cut).chain(longer).chain(zeroed)
}

/// The bytes as text of hexadecimal digits, 32 bytes a line; lines of zeros alone are counted.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(32) {
        if line.iter().all(|byte| *byte == 0) {
            text.push_str(&format!("zeros {}", line.len()));
        } else {
            line.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
        }
        text.push('\n');
    }
    text
}

/// Lets the machine stop at each changing call of `write` in turn, and once not at all. `check` gets the disk
/// after the power cut and whether `write` had returned without error.
pub(crate) fn stop_everywhere(
    write: impl Fn(&SimulatedDisk) -> Result<(), StorageError>,
    check: impl Fn(&SimulatedDisk, bool),
) {
    for call in 0.. {
        let disk = SimulatedDisk::new();
        disk.fail_at(Some(call));
        let finished = write(&disk).is_ok();
        check(&disk.crash(), finished);
        if finished {
            assert!(call > 4, "create, write, sync, seal, rename and the folder's sync are calls");
            return;
        }
    }
}
