//! Which versions of which models there are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use underbelly_storage::Timestamp;
use underbelly_storage::object::{Blob, ObjectId};

use super::{Metadata, MetadataError, ModelId};

/// One version of a model.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub seq: u64,
    pub metadata: Arc<Metadata>,
    /// The metadata in canonical form.
    pub cbor: Arc<[u8]>,
    pub timestamp: Timestamp,
    pub object: ObjectId,
    pub bytes: u64,
}

/// A version under its place in the order of all versions.
#[derive(Clone, Debug)]
pub(crate) struct Numbered {
    /// How many versions its transaction put before it.
    pub position: u64,
    pub id: ModelId,
    pub version: Arc<Version>,
}

/// Versions by identity, oldest first.
#[derive(Default, Debug)]
pub(crate) struct Models {
    by_id: BTreeMap<ModelId, Vec<Arc<Version>>>,
    /// Which transaction put a version of which model.
    by_seq: BTreeSet<(u64, ModelId)>,
    /// Versions that are in no state image, in order.
    fresh: VecDeque<Vec<Numbered>>,
    /// Seq of the newest version, and how many its transaction put.
    last: (u64, u64),
}

/// A model and its newest version as of a seq, with its number; `None` where it had none then.
pub(crate) type Newest = (ModelId, Option<(u64, Version)>);

impl Models {
    pub(crate) fn push(&mut self, id: ModelId, version: Version) {
        let position = if self.last.0 == version.seq { self.last.1 } else { 0 };
        let version = Arc::new(version);
        let numbered = Numbered { position, id, version: version.clone() };
        match self.fresh.back_mut() {
            Some(fresh) => fresh.push(numbered),
            None => self.fresh.push_back(vec![numbered]),
        }
        self.last = (version.seq, position + 1);
        self.by_seq.insert((version.seq, id));
        self.by_id.entry(id).or_default().push(version);
    }

    /// The models that a state image describes. Versions come in order.
    pub(crate) fn restored(mut versions: Vec<Numbered>) -> Models {
        let last = versions.last().map_or((0, 0), |last| (last.version.seq, last.position + 1));
        let by_seq = versions.iter().map(|numbered| (numbered.version.seq, numbered.id)).collect();
        // Stable, so that the versions of a model stay in order.
        versions.sort_by_key(|numbered| numbered.id);
        let model = |versions: &[Numbered]| {
            let id = versions.first()?.id;
            Some((id, versions.iter().map(|numbered| numbered.version.clone()).collect()))
        };
        let by_id = versions.chunk_by(|a, b| a.id == b.id).filter_map(model).collect();
        Models { by_id, by_seq, fresh: VecDeque::new(), last }
    }

    /// The versions that are in no state image.
    pub(crate) fn take_fresh(&mut self) -> VecDeque<Vec<Numbered>> {
        std::mem::take(&mut self.fresh)
    }

    /// Gives back what was taken and not stored.
    pub(crate) fn give_back_fresh(&mut self, mut taken: VecDeque<Vec<Numbered>>) {
        taken.append(&mut self.fresh);
        self.fresh = taken;
    }

    /// Number of models.
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Models with a version of a seq above `low` and up to `high`; a model may come several times.
    pub(crate) fn changed_between(&self, low: u64, high: u64) -> impl Iterator<Item = ModelId> {
        let (first, last) = (ModelId([0; 32]), ModelId([0xff; 32]));
        // Nothing is above the largest seq, which no commit has.
        let low = low.saturating_add(1);
        let range = (low <= high).then(|| self.by_seq.range((low, first)..=(high, last)));
        range.into_iter().flatten().map(|(_, id)| *id)
    }

    /// The seq of the `n`th version above `seq`; `None` where there are fewer.
    pub(crate) fn seq_after(&self, seq: u64, n: usize) -> Option<u64> {
        let behind = (Bound::Excluded((seq, ModelId([0xff; 32]))), Bound::Unbounded);
        self.by_seq.range(behind).nth(n).map(|(seq, _)| *seq)
    }

    /// Up to `n` models behind this one in order of their ids, or the first.
    pub(crate) fn slice_behind(&self, last: Option<&ModelId>, seq: u64, n: usize) -> Vec<Newest> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        let slice = self.by_id.range((from, Bound::Unbounded)).take(n);
        slice.map(|(id, _)| (*id, self.newest(id, seq).map(|(n, version)| (n, version.clone())))).collect()
    }

    /// The newest version with a seq up to `seq`, and its number counted from 1.
    pub(crate) fn newest(&self, id: &ModelId, seq: u64) -> Option<(u64, &Version)> {
        let versions = self.by_id.get(id)?;
        let visible = versions.partition_point(|version| version.seq <= seq);
        Some((visible as u64, &**versions.get(visible.checked_sub(1)?)?))
    }

    /// All versions of all models, in order of their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ModelId, &Version)> {
        self.by_id.iter().flat_map(|(id, versions)| versions.iter().map(move |version| (id, &**version)))
    }

    /// The newest visible version of each model, with its number.
    pub(crate) fn newest_of_each(&self, seq: u64) -> impl Iterator<Item = (&ModelId, u64, &Version)> {
        self.by_id
            .keys()
            .filter_map(move |id| self.newest(id, seq).map(|(number, version)| (id, number, version)))
    }
}

/// A version of a model with its blob.
#[derive(Clone, Debug)]
pub struct Model {
    pub(crate) info: ModelInfo,
    pub(crate) blob: Blob,
}

impl Model {
    /// A version that a transaction put and has not committed; its seq is 0.
    pub(crate) fn unsaved(
        id: ModelId,
        version: u64,
        metadata: &Metadata,
        blob: Blob,
    ) -> Result<Model, MetadataError> {
        let timestamp = metadata.timestamp()?;
        let bytes = blob.len() as u64;
        let metadata = Arc::new(metadata.clone());
        let info = ModelInfo { id, version, seq: 0, timestamp, bytes, metadata };
        Ok(Model { info, blob })
    }

    /// What is known of it.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The whole dict that was put with it.
    pub fn metadata(&self) -> &Metadata {
        &self.info.metadata
    }

    /// The bytes, read in place where they are in a mapped file; they stay valid as long as any clone lives.
    pub fn blob(&self) -> &Blob {
        &self.blob
    }
}

/// What is known of a version of a model.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ModelInfo {
    /// The hash of the identity.
    pub id: ModelId,
    /// The version's number, counted from 1.
    pub version: u64,
    /// The commit that put it.
    pub seq: u64,
    /// The metadata's timestamp.
    pub timestamp: Timestamp,
    /// Length of the blob.
    pub bytes: u64,
    /// The whole dict.
    pub metadata: Arc<Metadata>,
}

impl ModelInfo {
    pub(crate) fn new(id: ModelId, number: u64, version: &Version) -> ModelInfo {
        ModelInfo {
            id,
            version: number,
            seq: version.seq,
            timestamp: version.timestamp,
            bytes: version.bytes,
            metadata: version.metadata.clone(),
        }
    }
}
