//! Files that are ready to become part of the log.
//!
//! A spare has its full length on disk, written and synced, so that putting it to use and filling it needs no
//! new space and no change of its inode.

use std::collections::VecDeque;

use underbelly_storage::disk::{File, SharedDisk};

use crate::error::{Preparation, WalError};
use crate::layout::{BLOCK, DIR, spare_name, unfinished_name};

/// Most spares that recycling keeps.
pub(crate) const SPARES_MAX: usize = 2;

/// Zeros written at once, in bytes.
const STEP: u64 = 1 << 20;

/// Bytes after which a preparation syncs, so that it never delays a commit by a large writeback.
const SYNC_EVERY: u64 = 4 << 20;

/// The spares of a log.
pub(crate) struct Spares {
    disk: SharedDisk,
    file_len: u64,
    ready: VecDeque<u64>,
    next: u64,
}

/// A preparation of a spare file, which runs without the log.
pub struct SpareJob {
    disk: SharedDisk,
    file_len: u64,
    number: u64,
}

/// A spare file that is ready; hand it to [`crate::Log::adopt_spare`].
#[derive(Debug)]
#[must_use]
pub struct PreparedSpare {
    number: u64,
}

/// A spare that is being put to use.
pub(crate) struct Taken {
    pub name: String,
    pub file: Box<dyn File>,
    /// Its first block: zeros, or the header of an earlier use.
    pub block: Vec<u8>,
}

impl SpareJob {
    /// Writes the file and syncs it: `file_len` bytes of I/O.
    ///
    /// # Errors
    /// [`WalError::DiskFull`] where space runs out, [`WalError::Io`] otherwise. Neither harms the log.
    pub fn run(self) -> Result<PreparedSpare, WalError> {
        let name = unfinished_name(self.number);
        match self.write(&name) {
            Ok(()) => Ok(PreparedSpare { number: self.number }),
            Err(error) => {
                // What stays behind where this fails too is removed by the next open.
                self.disk.remove(&name).ok();
                Err(error)
            }
        }
    }

    /// What to tell where somebody else needs the space.
    pub(crate) fn refuse(self) -> WalError {
        let preparation = Preparation { disk: &self.disk, bytes: self.file_len };
        let needed = std::io::Error::new(std::io::ErrorKind::StorageFull, "a checkpoint needs what is left");
        preparation.failed("create", unfinished_name(self.number))(needed)
    }

    fn write(&self, name: &str) -> Result<(), WalError> {
        let disk = &self.disk;
        let preparation = Preparation { disk, bytes: self.file_len };
        let file = disk.create(name).map_err(preparation.failed("create", name))?;
        let zeros = vec![0; STEP.min(self.file_len) as usize];
        let (mut written, mut synced) = (0, 0);
        while written < self.file_len {
            let step = STEP.min(self.file_len - written);
            let bytes = zeros.get(..step as usize).unwrap_or(&zeros);
            file.write_at(bytes, written).map_err(preparation.failed("write", name))?;
            written += step;
            if written - synced >= SYNC_EVERY {
                file.sync_data().map_err(preparation.failed("sync", name))?;
                synced = written;
            }
        }
        file.sync_all().map_err(preparation.failed("sync", name))?;
        let ready = spare_name(self.number);
        disk.rename(name, &ready).map_err(preparation.failed("rename", name))?;
        disk.sync_dir(DIR).map_err(preparation.failed("sync", DIR))
    }
}

impl Spares {
    /// The spares of a folder in which files up to `last` are named.
    pub fn new(disk: SharedDisk, file_len: u64, ready: Vec<u64>, last: u64) -> Spares {
        Spares { disk, file_len, ready: ready.into(), next: last.saturating_add(1) }
    }

    pub fn len(&self) -> usize {
        self.ready.len()
    }

    pub fn job(&mut self) -> SpareJob {
        SpareJob { disk: self.disk.clone(), file_len: self.file_len, number: self.name() }
    }

    pub fn adopt(&mut self, spare: PreparedSpare) {
        self.ready.push_back(spare.number);
    }

    /// A number for a new spare.
    pub fn name(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// Takes in a file that was renamed to spare `number`, durably.
    pub fn recycled(&mut self, number: u64) {
        self.ready.push_back(number);
    }

    /// Prepares spares until `count` are ready.
    pub fn ensure(&mut self, count: usize) -> Result<(), WalError> {
        while self.ready.len() < count {
            let spare = self.job().run()?;
            self.adopt(spare);
        }
        Ok(())
    }

    /// Takes a spare. Spares that vanished or changed their length are
    /// passed over.
    pub fn take(&mut self) -> Result<Taken, WalError> {
        loop {
            self.ensure(1)?;
            let Some(number) = self.ready.pop_front() else { continue };
            let name = spare_name(number);
            let file = match self.disk.open(&name) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                opened => opened.map_err(WalError::io("open", &name))?,
            };
            let mut block = vec![0; BLOCK as usize];
            let len = file.len().map_err(WalError::io("measure", &name))?;
            let read = file.read_at(&mut block, 0).map_err(WalError::io("read", &name))?;
            if len == self.file_len && read == block.len() {
                return Ok(Taken { name, file, block });
            }
        }
    }
}
