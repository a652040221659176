//! Writing files that never change afterwards.
//!
//! A sealed file is written under its name with `.tmp` behind it, synced, marked read-only, renamed, and its
//! folder is synced. After a power cut at any point its name is either absent or names the whole file.

use crate::disk::{Disk, File};
use crate::error::StorageError;
use crate::limits::ALIGNMENT_BYTES;
use crate::map::Mapped;

/// What stands behind the name of a file that is being written.
const TEMPORARY: &str = ".tmp";

/// Bytes gathered before a write.
const BUFFER_BYTES: usize = 1 << 20;

/// Written bytes after which a long file is synced, so that its last sync is not a stall for others.
const SYNC_EVERY_BYTES: u64 = 4 << 20;

/// A file on its way to being sealed. Dropped before [`SealedWriter::publish`], it leaves nothing behind, as
/// far as the disk still takes orders.
pub struct SealedWriter<'d> {
    disk: &'d dyn Disk,
    file: Box<dyn File>,
    name: String,
    temporary: String,
    buffer: Vec<u8>,
    written: u64,
    synced: u64,
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
            file,
            name: name.to_string(),
            temporary,
            buffer: Vec::new(),
            written: 0,
            synced: 0,
            state: Progress::Writing,
        })
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
        if self.written - self.synced >= SYNC_EVERY_BYTES {
            self.file.sync_data().map_err(|error| StorageError::io("sync", &self.temporary, error))?;
            self.synced = self.written;
        }
        Ok(())
    }
}

impl Drop for SealedWriter<'_> {
    fn drop(&mut self) {
        // What cannot be removed here is removed by `remove_leftovers`, or was never durable.
        let _ = match self.state {
            Progress::Writing => self.disk.remove(&self.temporary),
            Progress::Renamed => self.disk.remove(&self.name),
            Progress::Published => Ok(()),
        };
    }
}

/// Removes files of this folder that were being written when a process ended, and returns their names.
/// Only the process that owns the database may call it, and only while it writes no sealed file there.
///
/// # Errors
/// `Io` where the folder cannot be listed or a file not removed.
pub fn remove_leftovers(disk: &dyn Disk, dir: &str) -> Result<Vec<String>, StorageError> {
    let entries = disk.list(dir).map_err(|error| StorageError::io("list", dir, error))?;
    let mut removed = Vec::new();
    for entry in entries.into_iter().filter(|entry| entry.ends_with(TEMPORARY)) {
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
        assert_eq!(remove_leftovers(&disk, "packs").unwrap(), ["packs/2.tmp"]);
        assert!(matches!(write(&disk, "nowhere/1", b""), Err(StorageError::Missing { .. })));
    }
}
