//! A small log on a disk in memory, and what may happen to it.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use underbelly_storage::disk::{Disk, File, Lock, SharedDisk, SimulatedDisk};
use underbelly_storage::map::Mapped;
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

/// A disk with little space and a page cache: a sync that fails forgets what it should have written, while
/// reads go on showing it.
#[derive(Clone)]
pub struct PoorDisk {
    pub disk: SimulatedDisk,
    /// Bytes that may still be written to new files.
    pub left: Arc<AtomicU64>,
    pub fail_sync: Arc<AtomicBool>,
    pub pages: Arc<Mutex<BTreeMap<String, Arc<Mutex<Pages>>>>>,
}

#[derive(Default)]
pub struct Pages {
    platter: Vec<u8>,
    dirty: Vec<(usize, Vec<u8>)>,
}

struct PoorFile {
    file: Box<dyn File>,
    left: Option<Arc<AtomicU64>>,
    fail_sync: Arc<AtomicBool>,
    pages: Arc<Mutex<Pages>>,
}

impl PoorDisk {
    pub fn new(left: u64) -> PoorDisk {
        PoorDisk {
            disk: SimulatedDisk::new(),
            left: Arc::new(AtomicU64::new(left)),
            fail_sync: Arc::default(),
            pages: Arc::default(),
        }
    }

    pub fn shared(&self) -> SharedDisk {
        Arc::new(self.clone())
    }

    /// What is on the platter, with the names as they are now.
    pub fn platter(&self) -> SimulatedDisk {
        let platter = SimulatedDisk::new();
        for (name, pages) in self.pages.lock().unwrap().iter() {
            platter.overwrite(name, pages.lock().unwrap().platter.clone());
        }
        platter
    }

    fn file(&self, file: Box<dyn File>, name: &str, left: Option<Arc<AtomicU64>>) -> Box<dyn File> {
        let pages = self.pages.lock().unwrap().entry(name.to_string()).or_default().clone();
        Box::new(PoorFile { file, left, fail_sync: self.fail_sync.clone(), pages })
    }
}

impl Disk for PoorDisk {
    fn create_dir(&self, name: &str) -> io::Result<()> {
        self.disk.create_dir(name)
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(self.file(self.disk.create(name)?, name, Some(self.left.clone())))
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(self.file(self.disk.open(name)?, name, None))
    }
    fn map(&self, name: &str) -> io::Result<Mapped> {
        self.disk.map(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut pages = self.pages.lock().unwrap();
        let moved = pages.remove(from).unwrap();
        pages.insert(to.to_string(), moved);
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.pages.lock().unwrap().remove(name);
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
    fn describe(&self) -> String {
        "poor".to_string()
    }
}

impl File for PoorFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let len = bytes.len() as u64;
        let spend = |left: &AtomicU64| {
            left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(len)).is_ok()
        };
        if !self.left.as_deref().is_none_or(spend) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.pages.lock().unwrap().dirty.push((offset as usize, bytes.to_vec()));
        self.file.write_at(bytes, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.sync_pages()?;
        self.file.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.sync_pages()?;
        self.file.sync_all()
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}

impl PoorFile {
    fn sync_pages(&self) -> io::Result<()> {
        let mut pages = self.pages.lock().unwrap();
        let dirty = std::mem::take(&mut pages.dirty);
        if self.fail_sync.swap(false, Ordering::SeqCst) {
            return Err(io::Error::other("injected failure"));
        }
        for (at, bytes) in dirty {
            let end = at + bytes.len();
            if pages.platter.len() < end {
                pages.platter.resize(end, 0);
            }
            pages.platter[at..end].copy_from_slice(&bytes);
        }
        Ok(())
    }
}
