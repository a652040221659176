//! A disk that runs full in the middle of a checkpoint.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use underbelly::{
    Batch, CommitError, Database, Disk, FaultyDisk, Metadata, Options, SimulatedDisk, StorageError, Timestamp,
};
use underbelly_tests::options;

/// Bytes of all files of a disk.
pub fn used(disk: &SimulatedDisk) -> u64 {
    let length = |name: &String| disk.contents(name).map_or(0, |bytes| bytes.len() as u64);
    disk.files().iter().map(length).sum()
}

/// A disk in memory that holds so many bytes.
pub fn small(capacity: Arc<AtomicU64>) -> FaultyDisk<SimulatedDisk> {
    let disk = FaultyDisk::new(SimulatedDisk::new());
    let inner = disk.inner().clone();
    disk.watch(move |call| {
        if call.grows > 0 && used(&inner) + call.grows > capacity.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    });
    disk
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
        assert!(*model.blob().unwrap() == *i.to_le_bytes().repeat(100_000), "model {i}");
    }
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
}

/// The reserve of an earlier checkpoint finishes one that finds the disk full. One that finds no reserve says so;
/// commits and reads go on, and when there is space the same handle makes the checkpoint, with nothing lost.
#[test]
fn a_reserve_finishes_a_checkpoint_on_a_full_disk_and_without_one_nothing_is_lost() {
    let capacity = Arc::new(AtomicU64::new(u64::MAX));
    let disk = small(capacity.clone());
    let memory = disk.inner();
    // Without threads, so that nothing but the test takes space.
    let options = Options { workers: 0, log_file_bytes: 16 << 20, ..options() };
    let db = Database::create_on(Arc::new(disk.clone()), options.clone()).unwrap();
    (1..=4).for_each(|i| put(&db, i));
    let report = db.checkpoint().unwrap();
    // As many bytes as it wrote, and up to 64 KiB more.
    assert_eq!(report.reserve_bytes, report.bytes_written.next_multiple_of(64 << 10), "{report:?}");
    assert_eq!(memory.contents("RESERVE").unwrap().len() as u64, report.reserve_bytes);

    // Three objects of 800,000 bytes need less than the reserve holds, and there is nothing beside it.
    (5..=7).for_each(|i| put(&db, i));
    capacity.store(used(memory) + 1000, Ordering::Relaxed);
    let report = db.checkpoint().unwrap();
    assert!(report.objects == 3 && report.reserve_bytes < 1 << 20, "{report:?}");
    check(&db, 7);

    // Now there is no reserve.
    (8..=9).for_each(|i| put(&db, i));
    let before = memory.files();
    capacity.store(used(memory) + 1000, Ordering::Relaxed);
    memory.remove("RESERVE").ok();
    for _ in 0..2 {
        let error = db.checkpoint().unwrap_err();
        assert!(matches!(error, CommitError::Storage(StorageError::DiskFull { .. })), "{error}");
        let left: Vec<String> = memory.files().into_iter().filter(|name| !before.contains(name)).collect();
        assert_eq!(left, Vec::<String>::new(), "a checkpoint that failed takes back what it wrote");
    }
    put(&db, 10);
    check(&db, 10);
    capacity.store(u64::MAX, Ordering::Relaxed);
    assert_eq!(db.checkpoint().unwrap().objects, 3);
    check(&db, 10);
    drop(db);
    let db = Database::open_on(Arc::new(memory.crash()), options).unwrap();
    check(&db, 10);
}

/// What is deleted on a full disk gives its space back, also where no checkpoint was made yet.
#[test]
fn a_full_disk_is_emptied_by_deletes_before_the_first_checkpoint() {
    let capacity = Arc::new(AtomicU64::new(u64::MAX));
    let disk = small(capacity.clone());
    let memory = disk.inner();
    let options = Options { workers: 0, log_file_bytes: 4 << 20, ..options() };
    let db = Database::create_on(Arc::new(disk.clone()), options.clone()).unwrap();
    let mut batch = Batch::new();
    batch.put_model(metadata(1), vec![7; 3 << 20]);
    db.commit(batch).unwrap();
    drop(db);
    let full = used(memory);
    capacity.store(full, Ordering::Relaxed);
    let db = Database::open_on(Arc::new(disk.clone()), options).unwrap();
    let mut batch = Batch::new();
    batch.delete_model(&metadata(1)).unwrap();
    db.commit(batch).unwrap();
    for _ in 0..2 {
        db.checkpoint().unwrap();
    }
    assert!(used(memory) + (2 << 20) <= full, "{} of {full} bytes are used", used(memory));
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
}

/// An opening on a disk with less room than the reserve goes without one. What it must have comes first: where `SHARED` was
/// taken away, the reserve does not take its place.
#[test]
fn a_reserve_takes_no_space_that_an_opening_needs() {
    let capacity = Arc::new(AtomicU64::new(u64::MAX));
    let disk = small(capacity.clone());
    let memory = disk.inner();
    let options = Options { workers: 0, ..options() };
    let db = Database::create_on(Arc::new(disk.clone()), options.clone()).unwrap();
    put(&db, 1);
    drop(db);
    let shared = memory.contents("SHARED").unwrap().len() as u64;
    for free in [0, 1000, 64 << 10, (64 << 10) + shared - 1, (64 << 10) + shared] {
        for name in ["SHARED", "RESERVE"] {
            memory.remove(name).ok();
        }
        let before = used(memory);
        capacity.store(before + shared.max(free), Ordering::Relaxed);
        let db = Database::open_on(Arc::new(disk.clone()), options.clone());
        let db = db.unwrap_or_else(|error| panic!("{free}: {error}"));
        check(&db, 1);
        assert_eq!(db.status().trouble, None, "{free}");
        drop(db);
        let held = memory.contents("RESERVE").map(|bytes| bytes.len() as u64);
        assert_eq!(held, (free == (64 << 10) + shared).then_some(64 << 10), "{free}");
        assert_eq!(used(memory), before + shared + held.unwrap_or(0), "{free}");
        capacity.store(u64::MAX, Ordering::Relaxed);
    }
}
