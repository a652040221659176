//! What the machine can do: writes and syncs of a file that was written before, by one thread.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Length of the file that is written over, bytes.
const FILE_BYTES: u64 = 64 << 20;

/// Bytes of the smallest write that a file system takes whole.
pub const BLOCK_BYTES: usize = 4096;

/// A file whose every byte was written and synced, so that writes change neither its length nor its extents.
pub struct RawFile {
    file: File,
    at: u64,
}

impl RawFile {
    /// Makes the file `raw` in a folder.
    pub fn create(folder: &Path) -> io::Result<RawFile> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(folder.join("raw"))?;
        let zeros = vec![0; 1 << 20];
        for mebibyte in 0..FILE_BYTES >> 20 {
            file.write_all_at(&zeros, mebibyte << 20)?;
        }
        file.sync_all()?;
        Ok(RawFile { file, at: 0 })
    }

    /// The time of `count` writes of `bytes` bytes one behind the other, each followed by `fdatasync`.
    pub fn write_and_sync(&mut self, bytes: usize, count: u64) -> io::Result<Duration> {
        let payload = vec![7; bytes];
        let length = bytes as u64;
        let began = Instant::now();
        for _ in 0..count {
            if self.at + length > FILE_BYTES {
                self.at = 0;
            }
            self.file.write_all_at(&payload, self.at)?;
            self.file.sync_data()?;
            self.at += length;
        }
        Ok(began.elapsed())
    }
}
