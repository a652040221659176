//! A disk that runs full in the middle of a checkpoint.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use underbelly::disk::{File, Lock, Mapped};
use underbelly::{
    Batch, CommitError, Database, Disk, Metadata, Options, SimulatedDisk, StorageError, Timestamp,
};
use underbelly_tests::options;

/// A disk in memory that holds so many bytes.
#[derive(Clone)]
struct Small {
    disk: SimulatedDisk,
    capacity: Arc<AtomicU64>,
}

impl Small {
    fn used(&self) -> u64 {
        let length = |name: &String| self.disk.contents(name).map_or(0, |bytes| bytes.len() as u64);
        self.disk.files().iter().map(length).sum()
    }
}

struct SmallFile {
    disk: Small,
    file: Box<dyn File>,
}

impl Disk for Small {
    fn create_dir(&self, name: &str) -> io::Result<()> {
        self.disk.create_dir(name)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(Box::new(SmallFile { disk: self.clone(), file: self.disk.create(name)? }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(Box::new(SmallFile { disk: self.clone(), file: self.disk.open(name)? }))
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

    fn describe(&self) -> String {
        self.disk.describe()
    }
}

impl File for SmallFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let grown = (offset + bytes.len() as u64).saturating_sub(self.file.len()?);
        if grown > 0 && self.disk.used() + grown > self.disk.capacity.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
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

fn metadata(i: u64) -> Metadata {
    Metadata::new("m").with("number", i as i64).with("timestamp", Timestamp(1))
}

fn put(db: &Database, i: u64) {
    let mut batch = Batch::new();
    batch.put_model(metadata(i), i.to_le_bytes().repeat(100_000));
    db.commit(batch).unwrap();
}

fn check(db: &Database, count: u64) {
    for i in 1..=count {
        let model = db.snapshot().model(&metadata(i)).unwrap().unwrap();
        assert!(**model.blob() == *i.to_le_bytes().repeat(100_000), "model {i}");
    }
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
}

/// The reserve of an earlier checkpoint finishes one that finds the disk full. One that finds no reserve says so;
/// commits and reads go on, and when there is space the same handle makes the checkpoint, with nothing lost.
#[test]
fn a_reserve_finishes_a_checkpoint_on_a_full_disk_and_without_one_nothing_is_lost() {
    let disk = Small { disk: SimulatedDisk::new(), capacity: Arc::new(AtomicU64::new(u64::MAX)) };
    // Without threads, so that nothing but the test takes space.
    let options = Options { workers: 0, log_file_bytes: 16 << 20, ..options() };
    let db = Database::create_on(Arc::new(disk.clone()), options.clone()).unwrap();
    (1..=4).for_each(|i| put(&db, i));
    let report = db.checkpoint().unwrap();
    assert_eq!(report.reserve_bytes, 3 << 20, "{report:?}");
    assert_eq!(disk.disk.contents("RESERVE").unwrap().len(), 3 << 20);

    // Three objects of 800,000 bytes need less than the reserve holds, and there is nothing beside it.
    (5..=7).for_each(|i| put(&db, i));
    disk.capacity.store(disk.used() + 1000, Ordering::Relaxed);
    let report = db.checkpoint().unwrap();
    assert!(report.objects == 3 && report.reserve_bytes < 1 << 20, "{report:?}");
    check(&db, 7);

    // Now there is no reserve.
    (8..=9).for_each(|i| put(&db, i));
    let files = |disk: &Small| disk.disk.files();
    let before = files(&disk);
    disk.capacity.store(disk.used() + 1000, Ordering::Relaxed);
    disk.disk.remove("RESERVE").ok();
    for _ in 0..2 {
        let error = db.checkpoint().unwrap_err();
        assert!(matches!(error, CommitError::Storage(StorageError::DiskFull { .. })), "{error}");
        let left: Vec<String> = files(&disk).into_iter().filter(|name| !before.contains(name)).collect();
        assert_eq!(left, Vec::<String>::new(), "a checkpoint that failed takes back what it wrote");
    }
    put(&db, 10);
    check(&db, 10);
    disk.capacity.store(u64::MAX, Ordering::Relaxed);
    assert_eq!(db.checkpoint().unwrap().objects, 3);
    check(&db, 10);
    drop(db);
    let db = Database::open_on(Arc::new(disk.disk.crash()), options).unwrap();
    check(&db, 10);
}
