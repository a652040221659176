//! Contents that cells had, kept for readers that still see them.

use std::collections::VecDeque;

use hashbrown::HashMap;
use underbelly_storage::object::ObjectId;

use crate::graph::{CellId, Superseded};

/// The contents of a cell from a commit on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CellVersion {
    pub seq: u64,
    pub g: u64,
    pub content: Option<ObjectId>,
}

/// Superseded versions of cells, which wait in a queue until no reader sees them. The newest version of each cell is
/// the graph's.
#[derive(Default)]
pub(crate) struct Versions {
    /// Oldest first.
    by_cell: HashMap<CellId, VecDeque<CellVersion>>,
    /// The seq that superseded a version, and its cell; rising.
    queue: VecDeque<(u64, CellId)>,
}

impl Versions {
    /// Keeps what a cell held before transaction `seq`.
    pub(crate) fn push(&mut self, seq: u64, before: &Superseded) {
        let version = CellVersion { seq: before.seq, g: before.g, content: before.content.map(ObjectId) };
        self.by_cell.entry(before.cell).or_default().push_back(version);
        self.queue.push_back((seq, before.cell));
    }

    /// Whether none waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Takes out the oldest version that no reader at `oldest_seq` or later sees.
    pub(crate) fn pop(&mut self, oldest_seq: u64) -> Option<CellVersion> {
        let (_, cell) = self.queue.pop_front_if(|(superseded, _)| *superseded <= oldest_seq)?;
        let versions = self.by_cell.get_mut(&cell)?;
        let version = versions.pop_front();
        if versions.is_empty() {
            self.by_cell.remove(&cell);
        }
        version
    }

    /// What a reader at `seq` sees of a cell that changed since.
    pub(crate) fn at(&self, cell: CellId, seq: u64) -> Option<CellVersion> {
        let versions = self.by_cell.get(&cell)?;
        versions.get(versions.partition_point(|v| v.seq <= seq).checked_sub(1)?).copied()
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
                    let content = last.content.map(|id| id.0);
                    versions.push(seq, &Superseded { cell: CellId(cell), seq: last.seq, g: last.g, content });
                }
                all.push(CellVersion { seq, g: seq, content: Some(ObjectId([cell as u8; 32])) });
                oldest = oldest.max(seq.saturating_sub(behind));
                while versions.pop(oldest).is_some() {}
                for reader in oldest..seq {
                    for (cell, all) in &history {
                        let (newest, older) = all.split_last().unwrap();
                        let expected = older.iter().rfind(|v| v.seq <= reader).copied();
                        if newest.seq > reader {
                            prop_assert_eq!(versions.at(CellId(*cell), reader), expected);
                        }
                    }
                }
            }
            while versions.pop(u64::MAX).is_some() {}
            prop_assert!(versions.by_cell.is_empty() && versions.queue.is_empty());
        }
    }
}
