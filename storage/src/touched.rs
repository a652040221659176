//! Which parts of a mapped file had their checksum compared.

use std::sync::atomic::{AtomicU64, Ordering};

/// A set of part numbers that threads add to without a lock.
///
/// Sealed files never change, so a part that was sound once stays so; two threads that check the same part at
/// once do the work twice and agree.
#[derive(Debug)]
pub(crate) struct Touched(Vec<AtomicU64>);

impl Touched {
    pub(crate) fn new(parts: usize) -> Touched {
        Touched((0..parts.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    pub(crate) fn contains(&self, part: usize) -> bool {
        self.0.get(part / 64).is_some_and(|word| word.load(Ordering::Relaxed) & (1 << (part % 64)) != 0)
    }

    pub(crate) fn insert(&self, part: usize) {
        if let Some(word) = self.0.get(part / 64) {
            word.fetch_or(1 << (part % 64), Ordering::Relaxed);
        }
    }
}
