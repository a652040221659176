//! Files, as the engine sees them.
//!
//! Everything that the log and the storage do to a disk goes through [`Disk`], so that the same code runs on a
//! real folder and in a test that loses what was not synced. Names are relative to the database's folder and
//! use `/`.

mod memory;
mod real;

use std::io;
use std::sync::Arc;

pub use memory::MemoryDisk;
pub use real::RealDisk;

pub use crate::map::Mapped;

/// A folder with files.
pub trait Disk: Send + Sync + 'static {
    /// Makes a folder and its parents, and syncs the parent. Fine where it exists.
    fn create_dir(&self, name: &str) -> io::Result<()>;

    /// Makes a new file for reading and writing; `AlreadyExists` where there is one.
    fn create(&self, name: &str) -> io::Result<Box<dyn File>>;

    /// Opens a file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Box<dyn File>>;

    /// Maps a sealed file for reading. It must never be written or truncated afterwards.
    fn map(&self, name: &str) -> io::Result<Mapped>;

    /// Moves a file over another, atomically; durable after [`Disk::sync_dir`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Unlinks a file; durable after [`Disk::sync_dir`].
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Names (without the folder) of the entries of a folder, sorted. Empty where there is no such folder.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;

    /// Makes creations, renames and removals in a folder durable.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;

    /// Marks a file read-only (mode 0444).
    fn seal(&self, name: &str) -> io::Result<()>;

    /// Takes the exclusive lock of the folder for this process; `Err(pid)` inside where another holds it
    /// (0 where the holder is unknown). Released when the value is dropped.
    fn lock(&self, name: &str) -> io::Result<Result<Box<dyn Lock>, u32>>;

    /// Where this disk is, for messages.
    fn describe(&self) -> String;
}

/// An open file.
pub trait File: Send + Sync {
    /// Reads up to `buffer.len()` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all bytes at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes written bytes durable (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;

    /// Makes written bytes and the file's length durable (`fsync`).
    fn sync_all(&self) -> io::Result<()>;

    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no byte.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Held while a process owns the database.
pub trait Lock: Send + Sync {}

/// A shared disk.
pub type SharedDisk = Arc<dyn Disk>;
