//! Which versions of which models there are.

use std::collections::BTreeMap;
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

/// Versions by identity, oldest first.
#[derive(Default, Debug)]
pub(crate) struct Models(BTreeMap<ModelId, Vec<Version>>);

impl Models {
    pub(crate) fn push(&mut self, id: ModelId, version: Version) {
        self.0.entry(id).or_default().push(version);
    }

    /// The newest version with a seq up to `seq`, and its number counted from 1.
    pub(crate) fn newest(&self, id: &ModelId, seq: u64) -> Option<(u64, &Version)> {
        let versions = self.0.get(id)?;
        let visible = versions.partition_point(|version| version.seq <= seq);
        Some((visible as u64, versions.get(visible.checked_sub(1)?)?))
    }

    /// All versions of all models, in order of their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ModelId, &Version)> {
        self.0.iter().flat_map(|(id, versions)| versions.iter().map(move |version| (id, version)))
    }

    /// The newest visible version of each model, with its number.
    pub(crate) fn newest_of_each(&self, seq: u64) -> impl Iterator<Item = (&ModelId, u64, &Version)> {
        self.0
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
