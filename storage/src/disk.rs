//! Files, as the engine sees them.
//!
//! Everything that the log and the storage do to a disk goes through [`Disk`], so that the same code runs on a
//! real folder ([`RealDisk`]), in a simulation that loses what was not synced ([`SimulatedDisk`]) and on a disk that
//! fails ([`FaultyDisk`]). Names are relative to the database's folder and use `/`.
//!
//! A call that was interrupted (`EINTR`) is no failure where it can be continued: [`RealDisk`] goes on with reads and
//! writes, also after short ones. Nobody calls a sync again that failed, for whatever reason: the system may have
//! forgotten which bytes it owed. (The standard library repeats a sync that was interrupted before it began; local
//! file systems on Linux never report that.)

mod faulty;
mod paced;
mod real;
mod simulated;
mod worn;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

pub use faulty::{Act, Call, Calls, Fault, FaultKind, FaultyDisk};
pub use paced::PacedDisk;
pub use real::RealDisk;
pub use simulated::SimulatedDisk;
pub use worn::{Unreadable, WornDisk};

pub use crate::map::Mapped;

/// A folder with files.
pub trait Disk: Send + Sync + 'static {
    /// Makes a folder and its parents, and syncs the parent. Fine where it exists.
    fn create_dir(&self, name: &str) -> io::Result<()>;

    /// Makes a new file for reading and writing; `AlreadyExists` where there is one.
    fn create(&self, name: &str) -> io::Result<Box<dyn File>>;

    /// Opens a file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Box<dyn File>>;

    /// Opens a file for reading alone, which asks for no leave to write.
    fn open_read(&self, name: &str) -> io::Result<Box<dyn File>> {
        self.open(name)
    }

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

    /// Shares a file for as long as the answer lives, at most until the process ends: meanwhile nobody can
    /// [`Disk::claim`] it. `None` where it is claimed, `NotFound` where the name does not lead to the shared file any
    /// more. The empty name is the disk's own folder, which [`Disk::lock`] claims. A disk that no other process can
    /// reach may leave this to its callers, as the provided method does.
    fn share(&self, _name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        Ok(Some(Box::new(Unlocked)))
    }

    /// Claims a file for as long as the answer lives; `None` where others share or claim it.
    fn claim(&self, _name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        Ok(Some(Box::new(Unlocked)))
    }

    /// Ids of the processes that share or claim a file, rising, as far as the system tells; the empty name is the
    /// disk's own folder.
    fn holders(&self, _name: &str) -> Vec<u32> {
        Vec::new()
    }

    /// Whether a file is written sooner where its syncs go on on another thread. Where all calls are to come in one order, it
    /// is not.
    fn syncs_aside(&self) -> bool {
        false
    }

    /// Where a file is for the operating system, if it is anywhere.
    fn path(&self, _name: &str) -> Option<PathBuf> {
        None
    }

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

    /// What a failed sync does to written bytes that are not durable: they count as written, and no later sync makes
    /// them durable. A real disk does so by itself, so this does nothing there.
    fn lose_unsynced(&self) {}
}

/// Held while a process owns the database.
pub trait Lock: Send + Sync {}

/// The lock of a disk on which there is nobody else.
struct Unlocked;

impl Lock for Unlocked {}

/// A shared disk.
pub type SharedDisk = Arc<dyn Disk>;
