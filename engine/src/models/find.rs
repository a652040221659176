//! Finding models by their attributes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::fill::SLICE_MODELS;
use super::wanted::{Condition, Where};
use super::{MetaValue, ModelId, ModelInfo};
use crate::error::ReadError;
use crate::snapshot::Snapshot;

impl Snapshot {
    /// The newest version of each model, in order of their ids.
    pub fn models(&self) -> Vec<ModelInfo> {
        let mut all = Vec::new();
        self.scan(&[], &mut |info| all.push(info));
        all
    }

    /// The newest version of each model that has this value at a path of its metadata, in order of their ids.
    ///
    /// The path's steps are joined by dots and lead into nested dicts; a list stands for each of its elements as
    /// well as for itself. Values are compared with their types: `true`, `1`, `1.0` and `"1"` are four different
    /// values. Versions before the newest are not looked at.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use underbelly::{Batch, Database, SimulatedDisk, Metadata, Options, Timestamp};
    /// # let db = Database::create_on(Arc::new(SimulatedDisk::new()), Options::default())?;
    /// let mut batch = Batch::new();
    /// batch.put_model(Metadata::from_json(r#"{"type": "smile", "fit": {"desk": "fx"}, "timestamp": 0}"#)?, vec![1]);
    /// db.commit(batch)?;
    /// assert_eq!(db.snapshot().find_models("fit.desk", "fx")?.len(), 1);
    /// assert_eq!(db.snapshot().find_models("fit.desk", 1)?.len(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ReadError::Where`] where the path cannot be one, or no model can have the value.
    pub fn find_models(&self, path: &str, value: impl Into<MetaValue>) -> Result<Vec<ModelInfo>, ReadError> {
        self.find_models_where(&Where::equals(path, value))
    }

    /// The newest version of each model whose metadata fulfils the conditions, in order of their ids.
    ///
    /// With many models ([`Options::index_models_min`](crate::Options::index_models_min)) an index proposes them
    /// once it is ready, where the database is open for writing; the answer is the same.
    ///
    /// # Errors
    /// [`ReadError::Where`] where a path, value or range cannot be asked for.
    pub fn find_models_where(&self, wanted: &Where) -> Result<Vec<ModelInfo>, ReadError> {
        let alternatives = wanted.alternatives()?;
        if let [conditions] = &alternatives[..] {
            let mut found = Vec::new();
            self.each_model(conditions, &mut |info| found.push(info));
            return Ok(found);
        }
        let mut found: BTreeMap<ModelId, ModelInfo> = BTreeMap::new();
        for conditions in &alternatives {
            self.each_model(conditions, &mut |info| drop(found.insert(info.id, info)));
        }
        Ok(found.into_values().collect())
    }

    /// The same by falling timestamps of the metadata, of which the first `skip` are passed over and at most `count` answered: a
    /// page. Of equal timestamps the one that was put later comes first.
    ///
    /// # Errors
    /// As [`Snapshot::find_models_where`].
    pub fn find_models_newest(
        &self,
        wanted: &Where,
        skip: usize,
        count: usize,
    ) -> Result<Vec<ModelInfo>, ReadError> {
        let wanted_count = skip.saturating_add(count);
        let mut found: Vec<ModelInfo> = Vec::new();
        // No more is kept than may be in the page.
        let cut = |found: &mut Vec<ModelInfo>| {
            found.sort_by_key(|info| Reverse((info.timestamp, info.seq, info.id)));
            found.dedup_by_key(|info| info.id);
            found.truncate(wanted_count);
        };
        for conditions in &wanted.alternatives()? {
            self.each_model(conditions, &mut |info| {
                found.push(info);
                if found.len() >= wanted_count.saturating_mul(2).saturating_add(SLICE_MODELS) {
                    cut(&mut found);
                }
            });
        }
        cut(&mut found);
        Ok(found.into_iter().skip(skip).collect())
    }

    /// The newest version of each model that fulfils all conditions, in order of their ids.
    fn each_model(&self, conditions: &[Condition], take: &mut dyn FnMut(ModelInfo)) {
        match self.base().attributes.candidates(self.base(), conditions, self.seq()) {
            Some(ids) => self.check(&ids, conditions, take),
            None => self.scan(conditions, take),
        }
    }

    fn check(&self, ids: &BTreeSet<ModelId>, conditions: &[Condition], take: &mut dyn FnMut(ModelInfo)) {
        let ids: Vec<&ModelId> = ids.iter().collect();
        for slice in ids.chunks(SLICE_MODELS) {
            let versions: Vec<ModelInfo> = {
                let state = self.base().state();
                let newest =
                    |id: &&ModelId| Some(ModelInfo::new(**id, state.models.newest(id, self.seq())?.clone()));
                slice.iter().filter_map(newest).collect()
            };
            versions.into_iter().filter(|info| fulfils(info, conditions)).for_each(&mut *take);
        }
    }

    /// The state's lock is held for a slice at a time; what commits between two slices is behind the snapshot.
    fn scan(&self, conditions: &[Condition], take: &mut dyn FnMut(ModelInfo)) {
        let mut last = None;
        loop {
            let slice = self.base().state().models.slice_behind(last.as_ref(), self.seq(), SLICE_MODELS);
            let Some((id, _)) = slice.last() else { return };
            last = Some(*id);
            let infos = slice.into_iter().filter_map(|(id, version)| Some(ModelInfo::new(id, version?)));
            infos.filter(|info| fulfils(info, conditions)).for_each(&mut *take);
        }
    }
}

fn fulfils(info: &ModelInfo, conditions: &[Condition]) -> bool {
    conditions.iter().all(|condition| condition.holds(info.metadata()))
}
