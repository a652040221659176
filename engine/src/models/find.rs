//! Finding models by their attributes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, RangeBounds, RangeInclusive};

use underbelly_storage::Timestamp;

use super::catalogue::{END, LookAtAll};
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
        let mut page = Page::new(skip, count);
        for conditions in &wanted.alternatives()? {
            self.each_model(conditions, &mut |info| page.take(info));
        }
        Ok(page.finish())
    }

    /// All versions, those before the newest too, whose metadata fulfils the conditions and whose timestamp is in a range: by falling
    /// timestamps, of which the first `skip` are passed over and at most `count` answered. Of equal timestamps the one that was put
    /// later comes first.
    ///
    /// An index proposes models by what all their versions have; `timestamp`, `name` and `tags` are looked at version by version.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use underbelly::{Batch, Database, Metadata, Options, SimulatedDisk, Timestamp, Where};
    /// # let db = Database::create_on(Arc::new(SimulatedDisk::new()), Options::default())?;
    /// for hour in [9, 10, 12] {
    ///     let mut batch = Batch::new();
    ///     batch.put_model(Metadata::new("smile").with("timestamp", Timestamp(hour)), vec![1]);
    ///     db.commit(batch)?;
    /// }
    /// let smiles = Where::equals("type", "smile");
    /// let found = db.snapshot().find_versions(&smiles, Timestamp(9)..Timestamp(12), 0, 10)?;
    /// assert_eq!(found.iter().map(|info| info.version).collect::<Vec<_>>(), [2, 1]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Snapshot::find_models_where`].
    pub fn find_versions(
        &self,
        wanted: &Where,
        times: impl RangeBounds<Timestamp>,
        skip: usize,
        count: usize,
    ) -> Result<Vec<ModelInfo>, ReadError> {
        let alternatives = wanted.alternatives()?;
        let mut page = Page::new(skip, count);
        let Some(times) = inclusive(&times) else { return Ok(Vec::new()) };
        for conditions in &alternatives {
            let of_identity = conditions.iter().filter(|condition| condition.is_about_identity());
            self.each_model(&of_identity.cloned().collect::<Vec<_>>(), &mut |newest| {
                self.each_version(newest, &times, &mut |info| {
                    if fulfils(&info, conditions) {
                        page.take(info);
                    }
                });
            });
        }
        Ok(page.finish())
    }

    /// The versions of a model whose timestamps are in a range.
    fn each_version(
        &self,
        newest: ModelInfo,
        times: &RangeInclusive<Timestamp>,
        take: &mut dyn FnMut(ModelInfo),
    ) {
        if newest.version == 1 {
            return if times.contains(&newest.timestamp) {
                take(newest)
            };
        }
        let last = self.base().state().models.as_of(&newest.id, self.seq(), *times.end());
        // Where timestamps never fall, only those in the range are looked at.
        let (before, is_sorted) = match last {
            Ok(Some(last)) => ((last.seq, last.position + 1), true),
            Ok(None) => return,
            Err(LookAtAll) => (END, false),
        };
        for version in self.slices_before(newest.id, before, SLICE_MODELS).flatten() {
            if times.contains(&version.timestamp) {
                take(ModelInfo::new(newest.id, version));
            } else if is_sorted {
                return;
            }
        }
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

/// What is in a page of those that are found, and no more.
struct Page {
    skip: usize,
    /// Up to the page's end.
    wanted: usize,
    found: Vec<ModelInfo>,
}

impl Page {
    fn new(skip: usize, count: usize) -> Page {
        Page { skip, wanted: skip.saturating_add(count), found: Vec::new() }
    }

    /// Several alternatives may find one.
    fn take(&mut self, info: ModelInfo) {
        self.found.push(info);
        if self.found.len() >= self.wanted.saturating_mul(2).saturating_add(SLICE_MODELS) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.found.sort_by_key(|info| Reverse((info.timestamp, info.seq, info.id, info.version)));
        self.found.dedup_by_key(|info| (info.id, info.version));
        self.found.truncate(self.wanted);
    }

    fn finish(mut self) -> Vec<ModelInfo> {
        self.cut();
        self.found.into_iter().skip(self.skip).collect()
    }
}

/// The first and the last time of a range; `None` where it is empty.
fn inclusive(times: &impl RangeBounds<Timestamp>) -> Option<RangeInclusive<Timestamp>> {
    let first = match times.start_bound() {
        Bound::Unbounded => Timestamp::MIN,
        Bound::Included(first) => *first,
        Bound::Excluded(before) => Timestamp(before.0.checked_add(1)?),
    };
    let last = match times.end_bound() {
        Bound::Unbounded => Timestamp::MAX,
        Bound::Included(last) => *last,
        Bound::Excluded(end) => Timestamp(end.0.checked_sub(1)?),
    };
    (first <= last).then_some(first..=last)
}

fn fulfils(info: &ModelInfo, conditions: &[Condition]) -> bool {
    conditions.iter().all(|condition| condition.holds(info.metadata()))
}
