//! Which versions are not to be kept.

use std::collections::BTreeSet;

use underbelly_storage::Timestamp;

use super::Models;
use crate::models::ModelId;

impl Models {
    /// Takes out the versions of a model that are not to be kept.
    pub(crate) fn retain(&mut self, seq: u64, time: Timestamp, id: ModelId) {
        self.old(time, &id).into_iter().for_each(|number| self.remove(seq, time, id, number));
    }

    /// Takes out the versions of all models that are not to be kept.
    pub(crate) fn retain_all(&mut self, seq: u64, time: Timestamp) {
        self.marks.retained().into_iter().for_each(|id| self.retain(seq, time, id));
    }

    /// Looks at the first `n` models behind this one, or of all, of which not all versions are kept: the last of them, and whether
    /// one has a version that is not to be kept at a time. `None` where there is no such model.
    pub(crate) fn has_old(
        &self,
        behind: Option<&ModelId>,
        time: Timestamp,
        n: usize,
    ) -> Option<(ModelId, bool)> {
        let retained: Vec<ModelId> = self.marks.retained_behind(behind).take(n).copied().collect();
        let has_old = retained.iter().any(|id| !self.old(time, id).is_empty());
        retained.last().map(|last| (*last, has_old))
    }

    /// Numbers of the versions of a model that are not to be kept at a time.
    fn old(&self, time: Timestamp, id: &ModelId) -> Vec<u64> {
        let Some(retention) = self.marks.retention(id, u64::MAX) else { return Vec::new() };
        let Some(line) = self.by_id.get(id) else { return Vec::new() };
        let versions = &line.versions;
        let older = versions.partition_point(|version| retention.is_too_old(version.time, time));
        let gone = versions.range(..retention.outside(versions.len(), older));
        let mut gone: Vec<u64> = gone.map(|version| version.number).collect();
        if gone.is_empty() {
            return gone;
        }
        let aliased = self.marks.aliases(id, u64::MAX).map(|(_, version)| version);
        let held: BTreeSet<u64> = aliased.chain(self.marks.pinned(id, u64::MAX)).collect();
        gone.retain(|number| !held.contains(number));
        gone
    }
}
