//! An index in memory.

use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};
use std::sync::{PoisonError, RwLock};

use super::{Index, IndexError};

/// Keys given out before the set is looked at again, so that a reader keeps the writer waiting for this long only.
const STRIDE: usize = 256;

/// An index in memory, for disks that are no folders and for when sled fails.
#[derive(Debug, Default)]
pub struct MemoryIndex(RwLock<BTreeSet<Vec<u8>>>);

impl Index for MemoryIndex {
    fn change(&self, puts: &[Vec<u8>], removes: &[Vec<u8>]) -> Result<(), IndexError> {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        keys.extend(puts.iter().cloned());
        for key in removes {
            keys.remove(key);
        }
        Ok(())
    }

    fn visit(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        if to.is_some_and(|to| to <= from) {
            return Ok(());
        }
        let mut from = Bound::Included(from.to_vec());
        loop {
            let stride: Vec<Vec<u8>> = {
                let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
                let to = to.map_or(Bound::Unbounded, Bound::Excluded);
                let range = keys.range::<[u8], _>((from.as_ref().map(Vec::as_slice), to));
                range.take(STRIDE).cloned().collect()
            };
            for key in &stride {
                if visit(key).is_break() {
                    return Ok(());
                }
            }
            match stride.into_iter().nth(STRIDE - 1) {
                Some(last) if to.is_none_or(|to| last.as_slice() < to) => from = Bound::Excluded(last),
                _ => return Ok(()),
            }
        }
    }
}
