//! Long blobs are written by a thread of their own, which ends with the database.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use underbelly::disk::{File, Lock, Mapped};
use underbelly::{Database, Disk, SimulatedDisk};

use super::blobs::{chunked, noise};

/// How long a write takes.
const WRITE: Duration = Duration::from_millis(50);

/// A disk that is written aside, and on which writes to files of chunks take long once that is said, and are counted.
#[derive(Clone, Default)]
struct Slow {
    disk: SimulatedDisk,
    is_slow: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
}

struct SlowFile {
    file: Box<dyn File>,
    is_of_chunks: bool,
    of: Slow,
}

impl Slow {
    fn file(&self, name: &str, file: Box<dyn File>) -> Box<dyn File> {
        Box::new(SlowFile { file, is_of_chunks: name.starts_with("chunks/"), of: self.clone() })
    }
}

impl File for SlowFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.is_of_chunks && self.of.is_slow.load(SeqCst) {
            self.of.writes.fetch_add(1, SeqCst);
            thread::sleep(WRITE);
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

impl Disk for Slow {
    fn create_dir(&self, name: &str) -> io::Result<()> {
        self.disk.create_dir(name)
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(self.file(name, self.disk.create(name)?))
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(self.file(name, self.disk.open(name)?))
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
    fn syncs_aside(&self) -> bool {
        true
    }
    fn describe(&self) -> String {
        self.disk.describe()
    }
}

/// What waits to be written of a blob under way is nobody's once its database is closed: the folder may be another writer's.
#[test]
fn nothing_of_a_blob_is_written_after_the_close() {
    let disk = Slow::default();
    let db = Database::create_on(Arc::new(disk.clone()), chunked()).unwrap();
    let kept = db.clone();
    let mut blob = kept.blob_writer();
    disk.is_slow.store(true, SeqCst);
    blob.push(&noise(1, 5 << 20)).unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while disk.writes.load(SeqCst) == 0 && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
    }
    db.close().unwrap();
    let written = disk.writes.load(SeqCst);
    assert!(written > 0, "nothing is written aside");
    thread::sleep(6 * WRITE);
    assert_eq!(disk.writes.load(SeqCst), written);
    assert!(blob.push(&noise(2, 5 << 20)).is_err());
}
