//! Reading a log file in large steps.

use underbelly_storage::disk::File;

use crate::error::WalError;

const STEP: usize = 1 << 20;

/// A file, of which a stretch is in memory.
pub(crate) struct Window {
    file: Box<dyn File>,
    name: String,
    file_len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    pub fn new(file: Box<dyn File>, name: String) -> Result<Window, WalError> {
        let file_len = file.len().map_err(WalError::io("measure", &name))?;
        Ok(Window { file, name, file_len, start: 0, bytes: Vec::new() })
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
                self.bytes.resize(len.max(STEP).min(left), 0);
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
    }
}
