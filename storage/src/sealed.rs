//! Writing files that never change afterwards.
//!
//! A sealed file is written under its name with `.tmp` behind it, synced, marked read-only, renamed, and its
//! folder is synced. After a power cut at any point its name is either absent or names the whole file.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crate::disk::{Disk, File};
use crate::error::StorageError;
use crate::limits::ALIGNMENT_BYTES;
use crate::map::Mapped;

/// What stands behind the name of a file that is being written.
pub(crate) const TEMPORARY: &str = ".tmp";

/// Bytes gathered before a write.
const BUFFER_BYTES: usize = 1 << 20;

/// Written bytes after which a long file is synced, so that its last sync is not a stall for others.
const SYNC_EVERY_BYTES: u64 = 4 << 20;

/// Bytes that may be written while a sync goes on aside.
const AHEAD_BYTES_MAX: u64 = 32 << 20;

/// A file on its way to being sealed. Dropped before [`SealedWriter::publish`], it leaves nothing behind, as
/// far as the disk still takes orders.
pub struct SealedWriter<'d> {
    disk: &'d dyn Disk,
    file: Arc<dyn File>,
    name: String,
    temporary: String,
    buffer: Vec<u8>,
    written: u64,
    /// How far it was written when a sync was begun last.
    synced: u64,
    /// Whether syncs go on aside while more is written.
    is_aside: bool,
    /// The sync that goes on.
    under_way: Option<JoinHandle<io::Result<()>>>,
    state: Progress,
}

#[derive(PartialEq, Eq)]
enum Progress {
    Writing,
    Renamed,
    Published,
}

/// The folder of a file's name; empty for the root.
pub(crate) fn folder(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// Maps a sealed file whole.
pub(crate) fn map(disk: &dyn Disk, name: &str) -> Result<Mapped, StorageError> {
    disk.map(name).map_err(|error| StorageError::io("open", name, error))
}

impl<'d> SealedWriter<'d> {
    /// Starts the file `name`, whose folder exists. A leftover of an earlier attempt is removed first.
    ///
    /// # Errors
    /// [`StorageError::Exists`] where a file of this name is there; `Io`, `DiskFull`.
    pub fn create(disk: &'d dyn Disk, name: &str) -> Result<SealedWriter<'d>, StorageError> {
        match map(disk, name) {
            Ok(_) => return Err(StorageError::Exists { file: name.to_string() }),
            Err(StorageError::Missing { .. }) => {}
            Err(other) => return Err(other),
        }
        let temporary = format!("{name}{TEMPORARY}");
        let failed = |error| StorageError::io("create", &temporary, error);
        let file = match disk.create(&temporary) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                disk.remove(&temporary).map_err(failed)?;
                disk.create(&temporary)
            }
            made => made,
        }
        .map_err(failed)?;
        Ok(SealedWriter {
            disk,
            file: Arc::from(file),
            name: name.to_string(),
            temporary,
            buffer: Vec::new(),
            written: 0,
            synced: 0,
            is_aside: false,
            under_way: None,
            state: Progress::Writing,
        })
    }

    /// Lets the syncs of a long file go on on threads of their own while more of it is written, where the disk gains by that.
    pub fn sync_aside(&mut self) {
        self.is_aside = self.disk.syncs_aside();
    }

    /// Length so far, bytes.
    pub fn length(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// `Io`, `DiskFull`.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        if self.buffer.len() + bytes.len() < BUFFER_BYTES {
            self.buffer.extend_from_slice(bytes);
            return Ok(());
        }
        self.flush()?;
        if bytes.len() < BUFFER_BYTES {
            self.buffer.extend_from_slice(bytes);
            return Ok(());
        }
        for piece in bytes.chunks(SYNC_EVERY_BYTES as usize) {
            self.write(piece)?;
        }
        Ok(())
    }

    /// Appends zeros up to a multiple of 64 bytes and returns the length then.
    ///
    /// # Errors
    /// `Io`, `DiskFull`.
    pub fn align(&mut self) -> Result<u64, StorageError> {
        let over = (self.length() % ALIGNMENT_BYTES as u64) as usize;
        if over != 0 {
            self.append(&[0; ALIGNMENT_BYTES][over..])?;
        }
        Ok(self.length())
    }

    /// Makes the file durable under its name, read-only, and returns its length in bytes.
    ///
    /// # Errors
    /// `Io`, `DiskFull`. After an error the file is not published; its name may be written again.
    pub fn publish(mut self) -> Result<u64, StorageError> {
        self.flush()?;
        self.end_sync()?;
        self.file.sync_all().map_err(|error| StorageError::io("sync", &self.temporary, error))?;
        self.disk.seal(&self.temporary).map_err(|error| StorageError::io("seal", &self.temporary, error))?;
        self.disk
            .rename(&self.temporary, &self.name)
            .map_err(|error| StorageError::io("rename", &self.temporary, error))?;
        self.state = Progress::Renamed;
        self.disk
            .sync_dir(folder(&self.name))
            .map_err(|error| StorageError::io("sync the folder of", &self.name, error))?;
        self.state = Progress::Published;
        Ok(self.written)
    }

    /// Lets go of the file and leaves what there is of it, for who may not remove anything in the folder any more.
    pub fn leave(mut self) {
        self.state = Progress::Published;
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        let bytes = std::mem::take(&mut self.buffer);
        self.write(&bytes)?;
        self.buffer = bytes;
        self.buffer.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.file
            .write_at(bytes, self.written)
            .map_err(|error| StorageError::io("write", &self.temporary, error))?;
        self.written += bytes.len() as u64;
        if self.written - self.synced < SYNC_EVERY_BYTES {
            return Ok(());
        }
        let goes_on = self.under_way.as_ref().is_some_and(|sync| !sync.is_finished());
        if goes_on && self.written - self.synced < AHEAD_BYTES_MAX {
            return Ok(());
        }
        self.end_sync()?;
        self.synced = self.written;
        if self.is_aside {
            let file = self.file.clone();
            let sync = thread::Builder::new().name("underbelly-sync".to_string());
            self.under_way = sync.spawn(move || file.sync_data()).ok();
        }
        // Where there is no other thread, here.
        match self.under_way {
            Some(_) => Ok(()),
            None => self.file.sync_data().map_err(|error| self.sync_failed(error)),
        }
    }

    fn sync_failed(&self, error: io::Error) -> StorageError {
        StorageError::io("sync", &self.temporary, error)
    }

    /// Waits for the sync that goes on. One that failed is told once, here.
    fn end_sync(&mut self) -> Result<(), StorageError> {
        let Some(sync) = self.under_way.take() else { return Ok(()) };
        let ended = sync.join().unwrap_or_else(|_| Err(io::Error::other("a sync panicked")));
        ended.map_err(|error| self.sync_failed(error))
    }
}

impl Drop for SealedWriter<'_> {
    fn drop(&mut self) {
        let _ = self.end_sync();
        // What cannot be removed here is removed by `remove_leftovers`, or was never durable.
        let _ = match self.state {
            Progress::Writing => self.disk.remove(&self.temporary),
            Progress::Renamed => self.disk.remove(&self.name),
            Progress::Published => Ok(()),
        };
    }
}

/// Removes files of this folder that were being written when a process ended and whose final names are some that the owner
/// gives, and returns their names. Of all else nobody knows whose it is.
/// Only the process that owns the database may call it, and only while it writes no sealed file there.
///
/// # Errors
/// `Io` where the folder cannot be listed or a file not removed.
pub fn remove_leftovers(
    disk: &dyn Disk,
    dir: &str,
    is_given: impl Fn(&str) -> bool,
) -> Result<Vec<String>, StorageError> {
    let entries = disk.list(dir).map_err(|error| StorageError::io("list", dir, error))?;
    let mut removed = Vec::new();
    let is_leftover = |entry: &String| entry.strip_suffix(TEMPORARY).is_some_and(&is_given);
    for entry in entries.into_iter().filter(is_leftover) {
        let name = if dir.is_empty() { entry } else { format!("{dir}/{entry}") };
        disk.remove(&name).map_err(|error| StorageError::io("remove", &name, error))?;
        removed.push(name);
    }
    if !removed.is_empty() {
        disk.sync_dir(dir).map_err(|error| StorageError::io("sync", dir, error))?;
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::disk::{Calls, Fault, FaultKind, FaultyDisk, RealDisk, SimulatedDisk};
    use std::os::unix::fs::PermissionsExt;

    fn write(disk: &dyn Disk, name: &str, bytes: &[u8]) -> Result<u64, StorageError> {
        let mut writer = SealedWriter::create(disk, name)?;
        writer.append(bytes)?;
        writer.publish()
    }

    #[test]
    fn a_full_disk_is_told_and_leaves_nothing() {
        let disk = FaultyDisk::new(SimulatedDisk::new());
        for after in 0..3 {
            disk.order(Some(Fault { calls: Calls::Changing, after, kind: FaultKind::Full, sticky: false }));
            let error = write(&disk, "1", b"bytes").unwrap_err();
            assert!(matches!(error, StorageError::DiskFull { .. }), "call {after}: {error}");
            assert_eq!(disk.inner().files(), Vec::<String>::new(), "call {after}");
        }
    }

    #[test]
    fn appends_of_every_size_lie_end_to_end() {
        let disk = SimulatedDisk::new();
        let mut writer = SealedWriter::create(&disk, "a").unwrap();
        let mut expected = Vec::new();
        for (i, size) in [1, 100, BUFFER_BYTES - 1, BUFFER_BYTES, 5, 9 << 20, 7].into_iter().enumerate() {
            writer.append(&vec![i as u8 + 1; size]).unwrap();
            expected.resize(expected.len() + size, i as u8 + 1);
            let aligned = writer.align().unwrap();
            expected.resize(expected.len().next_multiple_of(ALIGNMENT_BYTES), 0);
            assert_eq!(aligned, expected.len() as u64);
        }
        assert_eq!(writer.publish().unwrap(), expected.len() as u64);
        assert!(disk.crash().contents("a").unwrap() == expected);
    }

    #[test]
    fn a_dropped_writer_and_an_old_leftover_leave_nothing() {
        let disk = SimulatedDisk::new();
        disk.overwrite("a.tmp", b"leftover of another attempt, longer".to_vec());
        SealedWriter::create(&disk, "a").unwrap().append(b"x").unwrap();
        assert_eq!(disk.files(), Vec::<String>::new());
        disk.overwrite("a.tmp", b"leftover of another attempt, longer".to_vec());
        write(&disk, "a", b"new").unwrap();
        assert_eq!(disk.contents("a").unwrap(), b"new");
        assert!(matches!(write(&disk, "a", b"newer"), Err(StorageError::Exists { .. })));
    }

    #[test]
    fn after_an_error_the_name_may_be_written_again() {
        for call in 0..6 {
            let disk = SimulatedDisk::new();
            disk.fail_at(Some(call));
            assert!(write(&disk, "a", b"one").is_err());
            disk.fail_at(None);
            let again = write(&disk.crash(), "a", b"two");
            assert_eq!(again.unwrap(), 3, "call {call}");
        }
    }

    /// A disk that syncs aside, and whose syncs fail from the third on.
    struct Aside(SimulatedDisk);

    struct AsideFile(Box<dyn File>, Arc<std::sync::atomic::AtomicU64>);

    impl File for AsideFile {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            self.0.read_at(buffer, offset)
        }
        fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            self.0.write_at(bytes, offset)
        }
        fn sync_data(&self) -> io::Result<()> {
            match self.1.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                0..2 => self.0.sync_data(),
                _ => Err(io::Error::other("the disk is gone")),
            }
        }
        fn sync_all(&self) -> io::Result<()> {
            self.0.sync_all()
        }
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }
    }

    impl Disk for Aside {
        fn create_dir(&self, name: &str) -> io::Result<()> {
            self.0.create_dir(name)
        }
        fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
            Ok(Box::new(AsideFile(self.0.create(name)?, Arc::default())))
        }
        fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
            self.0.open(name)
        }
        fn map(&self, name: &str) -> io::Result<Mapped> {
            self.0.map(name)
        }
        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.0.rename(from, to)
        }
        fn remove(&self, name: &str) -> io::Result<()> {
            self.0.remove(name)
        }
        fn list(&self, dir: &str) -> io::Result<Vec<String>> {
            self.0.list(dir)
        }
        fn sync_dir(&self, dir: &str) -> io::Result<()> {
            self.0.sync_dir(dir)
        }
        fn seal(&self, name: &str) -> io::Result<()> {
            self.0.seal(name)
        }
        fn lock(&self, name: &str) -> io::Result<Result<Box<dyn crate::disk::Lock>, u32>> {
            self.0.lock(name)
        }
        fn syncs_aside(&self) -> bool {
            true
        }
        fn describe(&self) -> String {
            self.0.describe()
        }
    }

    /// A sync that fails while more is written is told by a later write or the end, and nothing is published.
    #[test]
    fn a_sync_that_fails_aside_is_told() {
        let disk = Aside(SimulatedDisk::new());
        let long = |parts: usize| {
            let mut writer = SealedWriter::create(&disk, "a").unwrap();
            writer.sync_aside();
            let written = (0..parts).try_for_each(|_| {
                let written = writer.append(&vec![7; SYNC_EVERY_BYTES as usize]);
                // So that the next write begins another one.
                while writer.under_way.as_ref().is_some_and(|sync| !sync.is_finished()) {
                    thread::yield_now();
                }
                written
            });
            written.and_then(|()| writer.publish())
        };
        for parts in [3, 4, 9] {
            let error = long(parts).unwrap_err();
            assert!(matches!(error, StorageError::Io { .. }), "{error}");
            assert_eq!(disk.0.files(), Vec::<String>::new());
        }
        assert_eq!(long(2).unwrap(), 2 * SYNC_EVERY_BYTES);
        assert_eq!(disk.0.crash().contents("a").unwrap().len() as u64, 2 * SYNC_EVERY_BYTES);
    }

    #[test]
    fn a_real_file_is_read_only() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path());
        disk.create_dir("packs").unwrap();
        write(&disk, "packs/1", b"bytes").unwrap();
        let mode = std::fs::metadata(dir.path().join("packs/1")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o444);
        assert_eq!(disk.list("packs").unwrap(), ["1"]);
        std::fs::write(dir.path().join("packs/2.tmp"), b"x").unwrap();
        assert_eq!(remove_leftovers(&disk, "packs", |name| name == "2").unwrap(), ["packs/2.tmp"]);
        assert!(matches!(write(&disk, "nowhere/1", b""), Err(StorageError::Missing { .. })));
    }
}
