//! Log files, and a log that goes on after them.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use underbelly_fuzz::{DATABASE, LOG, disk_with, reseal};
use underbelly_storage::disk::SimulatedDisk;
use underbelly_wal::{Log, LogOptions, Recovery, Start, WalError};

/// Records by their seqs.
type Records = Vec<(u64, Vec<u8>)>;

fn open(disk: &SimulatedDisk, from: u64) -> Result<(Log, Recovery, Records), WalError> {
    let mut seen = Vec::new();
    let options = LogOptions::with_file_len(16 << 10);
    let (log, recovery) =
        Log::open(Arc::new(disk.clone()), DATABASE, Start::at(from), 0, options, &mut |seq, bytes| {
            seen.push((seq, bytes.to_vec()));
            Ok::<(), WalError>(())
        })?;
    Ok((log, recovery, seen))
}

fn read(bytes: Vec<u8>) {
    // What a file says of its first record, as a manifest would say it.
    let first =
        bytes.get(56..).and_then(|rest| rest.first_chunk()).map_or(1, |word| u64::from_le_bytes(*word));
    let disk = disk_with(LOG, bytes);
    let Ok((mut log, recovery, mut seen)) = open(&disk, first) else { return };
    assert!(seen.is_sorted_by(|a, b| a.0 + 1 == b.0));
    assert!(seen.last().is_none_or(|(seq, _)| *seq == recovery.last_seq));
    // What was read stays readable, and so does what is written behind it.
    let seq = log.next_seq();
    if log.write(&[(seq, b"one more".to_vec())]).is_ok() {
        seen.push((seq, b"one more".to_vec()));
        drop(log);
        let again = open(&disk.crash(), first).map(|(_, _, records)| records);
        assert!(again.is_ok_and(|records| records == seen), "a record was lost");
    }
}

fuzz_target!(|bytes: &[u8]| {
    read(bytes.to_vec());
    read(reseal::log(bytes));
});
