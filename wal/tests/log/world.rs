//! A small log on a disk in memory, and what may happen to it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use underbelly_storage::disk::{FaultyDisk, SharedDisk, SimulatedDisk};
use underbelly_wal::{Log, LogOptions, Recovery, Start, WalError};

pub const DB: [u8; 16] = *b"a test database!";
pub const BLOCK: usize = 4096;

pub type Records = Vec<(u64, Vec<u8>)>;

/// Options with salts that repeat from run to run but not within one.
pub fn options(file_len: u64) -> LogOptions {
    options_of(0, file_len)
}

/// Options for one of several openings, whose salts differ from those of the others.
pub fn options_of(opening: u64, file_len: u64) -> LogOptions {
    let uses = AtomicU64::new(opening << 32 | 1);
    let salt = move || uses.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    LogOptions { salt: Arc::new(salt), ..LogOptions::with_file_len(file_len) }
}

pub fn shared(disk: &SimulatedDisk) -> SharedDisk {
    Arc::new(disk.clone())
}

/// The record that `seq` has in most tests.
pub fn record(seq: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (seq.wrapping_mul(31) + i * 7) as u8 | 1).collect()
}

pub fn records(seqs: std::ops::RangeInclusive<u64>, len: usize) -> Records {
    seqs.map(|seq| (seq, record(seq, len))).collect()
}

/// Opens and collects what is visited.
pub fn open(
    disk: &SimulatedDisk,
    from: u64,
    durable: u64,
    options: LogOptions,
) -> Result<(Log, Recovery, Records), WalError> {
    let mut seen = Records::new();
    let mut visit = |seq: u64, bytes: &[u8]| {
        seen.push((seq, bytes.to_vec()));
        Ok::<(), WalError>(())
    };
    let (log, recovery) = Log::open(shared(disk), DB, Start::at(from), durable, options, &mut visit)?;
    Ok((log, recovery, seen))
}

/// A disk in memory on which space runs out: `left` bytes may still be added to files.
pub fn poor(left: u64) -> (FaultyDisk<SimulatedDisk>, Arc<AtomicU64>) {
    poor_on(SimulatedDisk::new(), left)
}

/// The same with what a disk holds already.
pub fn poor_on(disk: SimulatedDisk, left: u64) -> (FaultyDisk<SimulatedDisk>, Arc<AtomicU64>) {
    let (disk, left) = (FaultyDisk::new(disk), Arc::new(AtomicU64::new(left)));
    let rest = left.clone();
    disk.watch(move |call| {
        let spend = |left: u64| left.checked_sub(call.grows);
        match rest.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spend) {
            Ok(_) => Ok(()),
            Err(_) => Err(io::ErrorKind::StorageFull.into()),
        }
    });
    (disk, left)
}
