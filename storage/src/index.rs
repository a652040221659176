//! Ordered sets of keys that are derived from the truth, and may be lost at any time.
//!
//! An [`Index`] holds what its owner put there. [`MemoryIndex`] lives in memory, [`SledIndex`] in a folder of a real
//! disk; [`IndexFolder`] says whether what stands in that folder is what was left there.
//!
//! Invariants:
//! - Nothing here is the truth: every error is answered by building the index anew from the catalogue.
//! - sled sees its files only where their lengths and hashes are those of the seal. It is never given bytes that
//!   somebody else wrote, or that a crash left half-written.
//! - The seal is written after sled let go of its files, and removed before sled opens them again.
//! - A panic in sled ends at this module as an [`IndexError`].

mod block;
mod error;
mod folder;
mod memory;
mod seal;
mod sled;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

pub use error::IndexError;
pub use folder::{Found, IndexFolder};
pub use memory::MemoryIndex;
pub use seal::SealInfo;
pub use sled::SledIndex;

/// An ordered set of keys. One thread changes it, any number read it meanwhile; a reader sees each key that stays
/// in the set from before its first call to behind its last.
pub trait Index: Send + Sync {
    /// Adds keys, then removes others.
    ///
    /// # Errors
    /// Where the index failed. What it holds then is unknown.
    fn change(&self, puts: &[Vec<u8>], removes: &[Vec<u8>]) -> Result<(), IndexError>;

    /// Gives `visit` the keys from `from` on and before `to` in order, until it breaks.
    ///
    /// # Errors
    /// Where the index failed.
    fn visit(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), IndexError>;
}
