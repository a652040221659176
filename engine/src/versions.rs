//! What things were, kept for readers that still see it.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::hash::Hash;

use hashbrown::HashMap;
use underbelly_storage::object::ObjectId;

/// What a thing is from a commit on.
pub(crate) trait Version {
    /// The seq of that commit.
    fn seq(&self) -> u64;
}

/// The contents of a cell from a commit on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CellVersion {
    pub seq: u64,
    pub g: u64,
    pub content: Option<ObjectId>,
}

impl Version for CellVersion {
    fn seq(&self) -> u64 {
        self.seq
    }
}

/// Superseded versions of things, which wait in a queue until no reader sees them. The newest version of each is
/// kept elsewhere.
pub(crate) struct Versions<K, V> {
    /// Oldest first.
    by_key: HashMap<K, VecDeque<V>>,
    /// The seq that superseded a version, and whose it is; rising.
    queue: VecDeque<(u64, K)>,
}

impl<K, V> Default for Versions<K, V> {
    fn default() -> Versions<K, V> {
        Versions { by_key: HashMap::default(), queue: VecDeque::new() }
    }
}

impl<K: Clone + Eq + Hash, V: Version> Versions<K, V> {
    /// Keeps what `key` was before transaction `seq`.
    pub(crate) fn push(&mut self, seq: u64, key: K, before: V) {
        self.by_key.entry(key.clone()).or_default().push_back(before);
        self.queue.push_back((seq, key));
    }

    /// Whether none waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Takes out the oldest version that no reader at `oldest_seq` or later sees, and whose it was.
    pub(crate) fn pop(&mut self, oldest_seq: u64) -> Option<(K, V)> {
        let (_, key) = self.queue.pop_front_if(|(superseded, _)| *superseded <= oldest_seq)?;
        let versions = self.by_key.get_mut(&key)?;
        let version = versions.pop_front();
        if versions.is_empty() {
            self.by_key.remove(&key);
        }
        version.map(|version| (key, version))
    }

    /// Whether a version of this thing waits.
    pub(crate) fn contains<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.by_key.contains_key(key)
    }

    /// What a reader at `seq` sees of a thing that changed since.
    pub(crate) fn at<Q: Eq + Hash + ?Sized>(&self, key: &Q, seq: u64) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let versions = self.by_key.get(key)?;
        versions.get(versions.partition_point(|v| v.seq() <= seq).checked_sub(1)?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Readers see what they saw, for as long as they are there.
        #[test]
        fn readers_find_their_versions(steps in prop::collection::vec((0u32..4, 0u64..6), 1..60)) {
            let mut versions = Versions::default();
            let mut history: BTreeMap<u32, Vec<CellVersion>> = BTreeMap::new();
            let mut oldest = 0;
            for (seq, (cell, behind)) in (1u64..).zip(steps) {
                let all = history.entry(cell).or_default();
                if let Some(last) = all.last() {
                    versions.push(seq, cell, *last);
                }
                all.push(CellVersion { seq, g: seq, content: Some(ObjectId([cell as u8; 32])) });
                oldest = oldest.max(seq.saturating_sub(behind));
                while versions.pop(oldest).is_some() {}
                for reader in oldest..seq {
                    for (cell, all) in &history {
                        let (newest, older) = all.split_last().unwrap();
                        let expected = older.iter().rfind(|v| v.seq <= reader).copied();
                        if newest.seq > reader {
                            prop_assert_eq!(versions.at(cell, reader).copied(), expected);
                        }
                    }
                }
            }
            while versions.pop(u64::MAX).is_some() {}
            prop_assert!(versions.by_key.is_empty() && versions.queue.is_empty());
        }
    }
}
