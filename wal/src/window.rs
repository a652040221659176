//! Reading a log file in steps that grow: a header costs a block, and a whole file few reads.

use underbelly_storage::disk::File;

use crate::error::WalError;
use crate::layout::BLOCK;

/// The first step.
const FIRST: usize = BLOCK as usize;
/// How many times as long the next step is.
const GROWTH: usize = 4;
/// The longest step.
const LONGEST: usize = 1 << 20;

/// A file, of which a stretch is in memory.
pub(crate) struct Window {
    file: Box<dyn File>,
    name: String,
    file_len: u64,
    start: u64,
    bytes: Vec<u8>,
    step: usize,
}

impl Window {
    pub fn new(file: Box<dyn File>, name: String) -> Result<Window, WalError> {
        let file_len = file.len().map_err(WalError::io("measure", &name))?;
        Ok(Window { file, name, file_len, start: 0, bytes: Vec::new(), step: FIRST })
    }

    /// Length of the file in bytes.
    pub fn file_len(&self) -> u64 {
        self.file_len
    }

    /// Up to `len` bytes from `offset` on; fewer only at the end of the file. The caller bounds `len`.
    pub fn at(&mut self, offset: u64, len: usize) -> Result<&[u8], WalError> {
        let inside = offset.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
        let skip = match inside {
            Some(skip) if self.bytes.len().saturating_sub(skip) >= len => skip,
            _ => {
                let left = usize::try_from(self.file_len.saturating_sub(offset)).unwrap_or(usize::MAX);
                self.bytes.resize(len.max(self.step).min(left), 0);
                self.step = (self.step * GROWTH).min(LONGEST);
                let read = self.file.read_at(&mut self.bytes, offset).map_err(|source| WalError::Io {
                    action: "read",
                    file: self.name.clone(),
                    source,
                })?;
                self.bytes.truncate(read);
                self.start = offset;
                0
            }
        };
        let end = self.bytes.len().min(skip.saturating_add(len));
        Ok(self.bytes.get(skip..end).unwrap_or_default())
    }

    /// Forgets what is in memory, so that what a writer wrote since is seen.
    pub fn forget(&mut self) {
        self.bytes.clear();
        self.step = FIRST;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::sync::{Arc, Mutex};

    use underbelly_storage::disk::{Act, Disk, FaultyDisk, SimulatedDisk};

    use super::*;

    #[test]
    fn a_header_costs_a_block_and_a_file_few_reads() {
        let bytes: Vec<u8> = (0..6 * LONGEST).map(|at| (at / 512) as u8).collect();
        let disk = FaultyDisk::new(SimulatedDisk::new());
        disk.inner().overwrite("f", bytes.clone());
        let reads = Arc::new(Mutex::new(Vec::new()));
        let seen = reads.clone();
        disk.watch(move |call| {
            if call.act == Act::Read {
                seen.lock().unwrap().push(call.bytes as usize);
            }
            Ok(())
        });
        let mut window = Window::new(disk.open_read("f").unwrap(), "f".to_string()).unwrap();
        assert_eq!(window.at(0, 100).unwrap(), &bytes[..100]);
        assert_eq!(*reads.lock().unwrap(), [FIRST]);
        for at in (0..bytes.len()).step_by(FIRST) {
            assert_eq!(window.at(at as u64, FIRST).unwrap(), &bytes[at..at + FIRST]);
        }
        let whole = std::mem::take(&mut *reads.lock().unwrap());
        assert_eq!(whole.iter().sum::<usize>(), bytes.len());
        assert!(whole.len() <= 11 && whole.iter().all(|read| *read <= LONGEST), "{whole:?}");
        // More than a step, and what the end cuts short.
        assert_eq!(window.at(77, 2 * LONGEST).unwrap(), &bytes[77..77 + 2 * LONGEST]);
        assert_eq!(window.at(bytes.len() as u64 - 5, 100).unwrap(), &bytes[bytes.len() - 5..]);
        assert!(window.at(bytes.len() as u64 + 9, 100).unwrap().is_empty());
        reads.lock().unwrap().clear();
        window.forget();
        assert_eq!(window.at(FIRST as u64, 1).unwrap(), &bytes[FIRST..=FIRST]);
        assert_eq!(*reads.lock().unwrap(), [FIRST]);
    }
}
