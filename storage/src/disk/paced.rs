//! A disk whose new files are written at a given pace.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Disk, File, Lock, SharedDisk};
use crate::map::Mapped;

/// Bytes that may be written at once after a pause.
const BURST_BYTES: u64 = 4 << 20;

/// A disk that passes everything on, and lets writers of files that it makes wait so that all of them together keep to
/// a rate. For what is written in the background, beside a log that needs the disk more.
pub struct PacedDisk {
    disk: SharedDisk,
    bucket: Arc<Bucket>,
}

/// Tokens for bytes, which fill up at a rate.
struct Bucket {
    bytes_per_second: u64,
    /// When the bucket would be empty if nothing more was taken: in the past, there are tokens.
    empty_at: Mutex<Instant>,
}

impl Bucket {
    fn time_of(&self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.bytes_per_second.max(1) as f64)
    }

    /// Takes tokens; answers how long to wait until they are there.
    fn take(&self, bytes: u64, now: Instant) -> Duration {
        let mut empty_at = self.empty_at.lock().unwrap_or_else(PoisonError::into_inner);
        let full_since = now.checked_sub(self.time_of(BURST_BYTES)).unwrap_or(now);
        *empty_at = (*empty_at).max(full_since) + self.time_of(bytes);
        empty_at.saturating_duration_since(now)
    }
}

impl PacedDisk {
    /// At most so many bytes a second, together.
    pub fn new(disk: SharedDisk, bytes_per_second: u64) -> PacedDisk {
        let empty_at = Mutex::new(Instant::now());
        PacedDisk { disk, bucket: Arc::new(Bucket { bytes_per_second, empty_at }) }
    }
}

impl Disk for PacedDisk {
    fn create_dir(&self, name: &str) -> io::Result<()> {
        self.disk.create_dir(name)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(Box::new(PacedFile { file: self.disk.create(name)?, bucket: self.bucket.clone() }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        self.disk.open(name)
    }

    fn map(&self, name: &str) -> io::Result<Mapped> {
        self.disk.map(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn seal(&self, name: &str) -> io::Result<()> {
        self.disk.seal(name)
    }

    fn lock(&self, name: &str) -> io::Result<Result<Box<dyn Lock>, u32>> {
        self.disk.lock(name)
    }

    fn open_read(&self, name: &str) -> io::Result<Box<dyn File>> {
        self.disk.open_read(name)
    }

    fn share(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        self.disk.share(name)
    }

    fn claim(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        self.disk.claim(name)
    }

    fn holders(&self, name: &str) -> Vec<u32> {
        self.disk.holders(name)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.disk.path(name)
    }

    fn describe(&self) -> String {
        self.disk.describe()
    }
}

struct PacedFile {
    file: Box<dyn File>,
    bucket: Arc<Bucket>,
}

impl File for PacedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let wait = self.bucket.take(bytes.len() as u64, Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        self.file.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::disk::SimulatedDisk;
    use crate::sealed::SealedWriter;

    #[test]
    fn tokens_come_at_the_rate_and_no_more_than_a_burst_is_saved() {
        let start = Instant::now() + Duration::from_secs(100);
        let bucket = Bucket { bytes_per_second: 1 << 20, empty_at: Mutex::new(start) };
        let seconds = Duration::from_secs;
        assert_eq!(bucket.take(1 << 20, start), seconds(1));
        assert_eq!(bucket.take(1 << 20, start), seconds(2));
        assert_eq!(bucket.take(0, start + seconds(2)), Duration::ZERO);
        // An hour saves four seconds' worth, not an hour's.
        assert_eq!(bucket.take(4 << 20, start + seconds(3600)), Duration::ZERO);
        assert_eq!(bucket.take(1 << 20, start + seconds(3600)), seconds(1));
    }

    #[test]
    fn what_is_written_is_the_same() {
        let disk = SimulatedDisk::new();
        let paced = PacedDisk::new(Arc::new(disk.clone()), u64::MAX);
        let mut writer = SealedWriter::create(&paced, "a").unwrap();
        writer.append(&[7; 3 << 20]).unwrap();
        writer.publish().unwrap();
        assert_eq!(disk.crash().contents("a").unwrap(), [7; 3 << 20]);
    }
}
