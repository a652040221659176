//! The deletes of a series that wait for a checkpoint.

use std::sync::{Arc, OnceLock};

use underbelly_query::{Tombstone, Tombstones};

/// Tombstones of a chunk.
const CHUNK: usize = 128;

/// Tombstones in order of their seqs, in chunks that are full but for the last. Clones share them: who pushes while somebody
/// holds a clone copies one chunk and the pointers to the chunks, not all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hiding {
    chunks: Arc<Vec<Arc<Vec<Arc<Tombstone>>>>>,
    /// The same in order of their ranges, made when somebody first asks.
    by_range: Arc<OnceLock<Tombstones>>,
}

impl Hiding {
    pub(crate) fn len(&self) -> usize {
        let last = self.chunks.last().map_or(0, |last| last.len());
        self.chunks.len().saturating_sub(1) * CHUNK + last
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Tombstone>> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// All, in order of their ranges. Whoever asks first sorts them, for all who hold the same.
    pub(crate) fn by_range(&self) -> Tombstones {
        self.by_range.get_or_init(|| Tombstones::new(self.iter())).clone()
    }

    /// Those behind the first so many.
    pub(crate) fn behind(&self, count: usize) -> impl Iterator<Item = &Arc<Tombstone>> {
        let chunks = self.chunks.get(count / CHUNK..).unwrap_or_default();
        chunks.iter().flat_map(|chunk| chunk.iter()).skip(count % CHUNK)
    }

    /// How many belong to commits after a seq.
    pub(crate) fn count_after(&self, seq: u64) -> usize {
        let after = |chunk: &Arc<Vec<Arc<Tombstone>>>| {
            chunk.len() - chunk.partition_point(|tombstone| tombstone.seq() <= seq)
        };
        self.chunks.iter().map(after).sum()
    }

    pub(crate) fn push(&mut self, tombstone: Arc<Tombstone>) {
        self.by_range = Arc::default();
        let chunks = Arc::make_mut(&mut self.chunks);
        match chunks.last_mut() {
            Some(last) if last.len() < CHUNK => Arc::make_mut(last).push(tombstone),
            _ => chunks.push(Arc::new(vec![tombstone])),
        }
    }
}

impl FromIterator<Arc<Tombstone>> for Hiding {
    fn from_iter<I: IntoIterator<Item = Arc<Tombstone>>>(tombstones: I) -> Hiding {
        let mut hiding = Hiding::default();
        tombstones.into_iter().for_each(|tombstone| hiding.push(tombstone));
        hiding
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use underbelly_query::Schema;

    use super::*;

    fn tombstone(seq: u64) -> Arc<Tombstone> {
        Arc::new(Tombstone::new(&Schema::default(), None, None, &[]).unwrap().with_seq(seq))
    }

    #[test]
    fn deletes_are_shared_with_whoever_holds_the_older_ones() {
        let (mut hiding, mut held) = (Hiding::default(), Vec::new());
        for seq in 1..=3 * CHUNK as u64 + 5 {
            assert_eq!((hiding.len() as u64, hiding.is_empty()), (seq - 1, seq == 1));
            held.push(hiding.clone());
            hiding.push(tombstone(seq));
        }
        let seqs = |hiding: &Hiding| hiding.iter().map(|tombstone| tombstone.seq()).collect::<Vec<_>>();
        for (len, held) in held.iter().enumerate() {
            assert_eq!(seqs(held), (1..=len as u64).collect::<Vec<_>>());
            let shared = held.chunks.iter().zip(&*hiding.chunks).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
            assert_eq!(shared, len / CHUNK, "full chunks");
            assert_eq!(held.by_range().is_empty(), len == 0);
            assert_eq!(hiding.behind(len).map(|t| t.seq()).next(), Some(len as u64 + 1));
            assert_eq!(hiding.behind(len).count(), hiding.len() - len);
            assert_eq!(hiding.count_after(len as u64), hiding.len() - len);
        }
        assert_eq!((hiding.behind(hiding.len()).count(), hiding.behind(9 * CHUNK).count()), (0, 0));
        let even: Hiding = hiding.iter().filter(|tombstone| tombstone.seq() % 2 == 0).cloned().collect();
        assert_eq!(even.len(), hiding.len() / 2);
    }
}
