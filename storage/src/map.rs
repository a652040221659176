//! The sealed map: bytes of a file that nobody writes any more.
//!
//! Contract. A file is mapped only after it was written, synced, renamed to its name and marked read-only. No
//! code of this workspace opens such a file for writing or truncates it; deletion is unlinking, which leaves
//! mapped pages alive. Another program that writes into the database's folder is outside this contract.
//! Under it the bytes behind a map never change, so lending `&[u8]` for the map's life is sound.

use std::ops::Deref;
use std::sync::Arc;

/// The bytes of a sealed file, or of a test's file in memory. Cheap to clone; the bytes live as long as any clone.
#[derive(Clone)]
pub struct Mapped(Kind);

#[derive(Clone)]
enum Kind {
    File(Arc<memmap2::Mmap>),
    Memory(Arc<[u8]>),
}

impl Mapped {
    /// Maps a sealed file.
    pub(crate) fn sealed(file: &std::fs::File) -> std::io::Result<Mapped> {
        if file.metadata()?.len() == 0 {
            return Ok(Mapped::memory(Vec::new()));
        }
        // SAFETY: callers pass files that are sealed as the module's contract says (`Disk::map` is called with
        // names of sealed files alone), so the bytes do not change while they are lent.
        #[allow(unsafe_code)]
        let map = unsafe { memmap2::Mmap::map(file)? };
        Ok(Mapped(Kind::File(Arc::new(map))))
    }

    /// Bytes that are in memory already.
    pub fn memory(bytes: impl Into<Arc<[u8]>>) -> Mapped {
        Mapped(Kind::Memory(bytes.into()))
    }

    /// Says that all bytes are about to be read, so that the system reads them ahead, without waiting for it. What it does not
    /// take up is read page by page.
    pub(crate) fn read_ahead(&self) {
        if let Kind::File(map) = &self.0 {
            map.advise(memmap2::Advice::WillNeed).unwrap_or_default();
        }
    }

    /// Lets the pages of some bytes go: they count to the memory of this process no more, and are read again where somebody asks for
    /// them. That this is not done is no error.
    pub fn let_go(&self, bytes: std::ops::Range<usize>) {
        let Kind::File(map) = &self.0 else { return };
        if bytes.start >= bytes.end || bytes.end > map.len() {
            return;
        }
        // SAFETY: the map shares the file's pages and nobody writes to them, so a page that was let go comes back with the
        // bytes that it had: whoever was lent them sees no change. The range was compared with the map's length.
        #[allow(unsafe_code)]
        let _ = unsafe {
            map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, bytes.start, bytes.len())
        };
    }

    /// Whether the bytes are a file's pages.
    pub fn is_file(&self) -> bool {
        matches!(self.0, Kind::File(_))
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Kind::File(map) => map,
            Kind::Memory(bytes) => bytes,
        }
    }
}

impl std::fmt::Debug for Mapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mapped({} bytes)", self.len())
    }
}
