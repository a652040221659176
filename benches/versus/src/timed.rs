//! A real disk that notes when the last sync came back: the moment since when a commit is durable.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};
use underbelly::disk::{Disk, File, Lock, Mapped, RealDisk};

/// Nanoseconds of the clock that all processes of this machine share.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A real disk whose syncs are timed.
pub struct TimedDisk {
    disk: RealDisk,
    synced: Arc<AtomicU64>,
}

impl TimedDisk {
    /// A disk in a folder; what it tells is when the last `fdatasync` came back, by [`now`].
    pub fn new(folder: PathBuf) -> (TimedDisk, Arc<AtomicU64>) {
        let synced = Arc::new(AtomicU64::new(0));
        (TimedDisk { disk: RealDisk::new(folder), synced: synced.clone() }, synced)
    }

    fn timed(&self, file: io::Result<Box<dyn File>>) -> io::Result<Box<dyn File>> {
        Ok(Box::new(TimedFile { file: file?, synced: self.synced.clone() }))
    }
}

struct TimedFile {
    file: Box<dyn File>,
    synced: Arc<AtomicU64>,
}

impl File for TimedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()?;
        self.synced.store(now(), Ordering::SeqCst);
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}

impl Disk for TimedDisk {
    fn create_dir(&self, name: &str) -> io::Result<()> {
        self.disk.create_dir(name)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        self.timed(self.disk.create(name))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        self.timed(self.disk.open(name))
    }

    fn open_read(&self, name: &str) -> io::Result<Box<dyn File>> {
        self.disk.open_read(name)
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
