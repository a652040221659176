//! What a transaction reads, writes and tells of models.

use underbelly_storage::object::{Blob, ObjectId};

use super::{Read, Transaction};
use crate::error::CommitError;
use crate::models::{
    AliasTarget, Body, Content, MODEL, MarkChange, MarkKind, MarkName, MetaValue, Metadata, Model, ModelId,
    ModelName, NEWEST, Retention, StoredBlob, Training, number,
};

/// What a transaction did to a model.
#[derive(Default)]
pub(super) struct Written {
    /// It deleted all versions that were there.
    is_deleted: bool,
    /// What it put since.
    put: Vec<Model>,
}

impl Transaction {
    /// The newest version of a model; `None` where there is none.
    ///
    /// # Errors
    /// [`CommitError::Metadata`] where the metadata has no identity, as [`Metadata::id`] says;
    /// [`CommitError::Read`] where the blob is damaged or cannot be read.
    pub fn model(&mut self, model: &impl ModelName) -> Result<Option<Model>, CommitError> {
        let id = model.model_id()?;
        if let Some(own) = self.written_models.get(&id) {
            return Ok(own.put.last().cloned());
        }
        let model = self.snapshot.model(&id)?;
        self.reads.push(Read::Model { id, seq: model.as_ref().map_or(0, |model| model.info().seq) });
        Ok(model)
    }

    /// The version of this number; `None` where there is none, or none any more. It is a conflict where it comes or goes before the
    /// commit. What retention takes is seen behind the commit alone.
    ///
    /// # Errors
    /// As [`Transaction::model`].
    pub fn model_version(
        &mut self,
        model: &impl ModelName,
        version: u64,
    ) -> Result<Option<Model>, CommitError> {
        let id = model.model_id()?;
        if self.batch.removed.contains(&(id, version)) {
            return Ok(None);
        }
        if let Some(own) = self.written_models.get(&id) {
            let put = own.put.iter().find(|put| put.info().version == version);
            if put.is_some() || own.is_deleted {
                return Ok(put.cloned());
            }
        }
        let found = self.snapshot.model_version(&id, version)?;
        let seq = found.as_ref().map_or(0, |found| found.info().seq);
        self.reads.push(Read::Version { id, number: version, seq });
        Ok(found)
    }

    /// The version that an alias names; `None` where there is no such alias. It is a conflict where it moves before the commit: so an
    /// alias that moves where another version is better never goes back to a worse one.
    ///
    /// # Errors
    /// As [`Transaction::model`].
    pub fn model_alias(&mut self, model: &impl ModelName, alias: &str) -> Result<Option<Model>, CommitError> {
        let id = model.model_id()?;
        let mark = MarkName::new(MarkKind::Alias, MODEL, alias);
        let own = self.batch.marks.iter().rev().find(|change| change.id == id && change.mark == mark);
        match own.map(|own| own.value.as_ref().map(number)) {
            Some(None) => return Ok(None),
            Some(Some(None)) => return self.model(&id),
            Some(Some(Some(version))) => return self.model_version(&id, version),
            None => {}
        }
        match self.told(id, mark).as_ref().and_then(number) {
            // It stays as long as the alias names it.
            Some(version) => Ok(self.snapshot.model_version(&id, version)?),
            None => Ok(None),
        }
    }

    /// What is told of a model, or of one of its versions, under a name ([`Batch::annotate`](crate::Batch::annotate)); `None` where
    /// nothing is. It is a conflict where something else is told before the commit.
    ///
    /// # Errors
    /// [`CommitError::Metadata`].
    pub fn annotation(
        &mut self,
        model: &impl ModelName,
        version: Option<u64>,
        name: &str,
    ) -> Result<Option<MetaValue>, CommitError> {
        let id = model.model_id()?;
        let is_so = |change: &&MarkChange, version: u64| {
            let mark = &change.mark;
            change.id == id && (mark.kind, mark.version, &*mark.name) == (MarkKind::Note, version, name)
        };
        // What is told of the newest version is told of the one that it will be.
        let of_newest = self.batch.marks.iter().any(|change| is_so(&change, NEWEST));
        let is_newest = of_newest && version == Some(self.newest_number(id));
        let about = match version {
            // No version has the numbers that stand for the model and for its newest version.
            Some(MODEL | NEWEST) => return Ok(None),
            version => version.unwrap_or(MODEL),
        };
        let mut own = self.batch.marks.iter().rev();
        let own = own.find(|change| is_so(change, about) || is_newest && is_so(change, NEWEST));
        match own {
            Some(own) => Ok(own.value.clone()),
            None => Ok(self.told(id, MarkName::new(MarkKind::Note, about, name))),
        }
    }

    /// The value of a mark that this transaction does not set.
    fn told(&mut self, id: ModelId, mark: MarkName) -> Option<MetaValue> {
        let is_removed = self.batch.removed.contains(&(id, mark.version));
        if is_removed || self.written_models.get(&id).is_some_and(|own| own.is_deleted) {
            return None;
        }
        let (seq, value) = {
            let state = self.snapshot.base().state();
            let told = state.models.marks.at(&id, &mark, self.snapshot.seq());
            told.map_or((0, None), |told| (told.place.0, told.value.clone()))
        };
        self.reads.push(Read::Mark { id, mark, seq });
        value
    }

    /// The number of the newest version, which counts as read; 0 where there is none. Its blob may be damaged.
    fn newest_number(&mut self, id: ModelId) -> u64 {
        if let Some(own) = self.written_models.get(&id) {
            return own.put.last().map_or(0, |model| model.info().version);
        }
        let (number, seq) = {
            let state = self.snapshot.base().state();
            let newest = state.models.newest(&id, self.snapshot.seq());
            newest.map_or((0, 0), |version| (version.number, version.seq))
        };
        self.reads.push(Read::Model { id, seq });
        number
    }

    /// Puts a version of a model. The metadata needs `type` and `timestamp`.
    ///
    /// # Errors
    /// [`CommitError::Metadata`] where the metadata has no identity or no time, as [`Metadata::id`] and
    /// [`Metadata::timestamp`] say; [`CommitError::Read`] where the newest version that is stored cannot be read.
    pub fn put_model(&mut self, metadata: Metadata, blob: impl Into<Vec<u8>>) -> Result<(), CommitError> {
        self.put_blob(metadata, Blob::from(blob.into()))
    }

    /// The same with a blob that others hold, too.
    pub(crate) fn put_blob(&mut self, metadata: Metadata, blob: Blob) -> Result<(), CommitError> {
        let content = Content::One(blob.clone());
        self.put_version(metadata, ObjectId::of(&blob), content, Body::Bytes(blob))
    }

    /// Puts a version of a model whose blob was written ahead. See [`Batch::put_model_stored`](crate::Batch::put_model_stored).
    ///
    /// # Errors
    /// As [`Transaction::put_model`].
    pub fn put_model_stored(&mut self, metadata: Metadata, blob: &StoredBlob) -> Result<(), CommitError> {
        let content = blob.lend(self.snapshot.base())?;
        self.put_version(metadata, blob.content(), content, Body::Stored(blob.clone()))
    }

    fn put_version(
        &mut self,
        metadata: Metadata,
        object: ObjectId,
        content: Content,
        body: Body,
    ) -> Result<(), CommitError> {
        let id = metadata.id()?;
        // The version's number follows from it.
        let before = self.newest_number(id);
        let model = Model::unsaved(id, before + 1, &metadata, object, content)?;
        self.written_models.entry(id).or_default().put.push(model);
        self.batch.models.push((metadata, body));
        Ok(())
    }

    /// Deletes all versions of a model. See [`Batch::delete_model`](crate::Batch::delete_model).
    ///
    /// # Errors
    /// As [`Batch::delete_model`](crate::Batch::delete_model).
    pub fn delete_model(&mut self, model: &impl ModelName) -> Result<(), CommitError> {
        self.batch.delete_model(model)?;
        self.written_models.insert(model.model_id()?, Written { is_deleted: true, put: Vec::new() });
        Ok(())
    }

    /// Deletes a version. See [`Batch::delete_model_version`](crate::Batch::delete_model_version).
    ///
    /// # Errors
    /// As [`Batch::delete_model_version`](crate::Batch::delete_model_version).
    pub fn delete_model_version(&mut self, model: &impl ModelName, version: u64) -> Result<(), CommitError> {
        self.batch.delete_model_version(model, version).map(drop)
    }

    /// Lets an alias name a version. See [`Batch::set_alias`](crate::Batch::set_alias).
    ///
    /// # Errors
    /// As [`Batch::set_alias`](crate::Batch::set_alias).
    pub fn set_alias(
        &mut self,
        model: &impl ModelName,
        alias: &str,
        target: impl Into<AliasTarget>,
    ) -> Result<(), CommitError> {
        self.batch.set_alias(model, alias, target).map(drop)
    }

    /// The same where the alias names `expected` until then. See [`Batch::set_alias_if`](crate::Batch::set_alias_if).
    ///
    /// # Errors
    /// As [`Batch::set_alias_if`](crate::Batch::set_alias_if).
    pub fn set_alias_if(
        &mut self,
        model: &impl ModelName,
        alias: &str,
        expected: Option<u64>,
        target: impl Into<AliasTarget>,
    ) -> Result<(), CommitError> {
        self.batch.set_alias_if(model, alias, expected, target).map(drop)
    }

    /// Takes an alias away. See [`Batch::remove_alias`](crate::Batch::remove_alias).
    ///
    /// # Errors
    /// As [`Batch::remove_alias`](crate::Batch::remove_alias).
    pub fn remove_alias(&mut self, model: &impl ModelName, alias: &str) -> Result<(), CommitError> {
        self.batch.remove_alias(model, alias).map(drop)
    }

    /// The same where the alias names `expected` until then. See [`Batch::remove_alias_if`](crate::Batch::remove_alias_if).
    ///
    /// # Errors
    /// As [`Batch::remove_alias_if`](crate::Batch::remove_alias_if).
    pub fn remove_alias_if(
        &mut self,
        model: &impl ModelName,
        alias: &str,
        expected: Option<u64>,
    ) -> Result<(), CommitError> {
        self.batch.remove_alias_if(model, alias, expected).map(drop)
    }

    /// Pins a version, or takes the pin away. See [`Batch::pin_version`](crate::Batch::pin_version).
    ///
    /// # Errors
    /// As [`Batch::pin_version`](crate::Batch::pin_version).
    pub fn pin_version(
        &mut self,
        model: &impl ModelName,
        version: u64,
        is_pinned: bool,
    ) -> Result<(), CommitError> {
        self.batch.pin_version(model, version, is_pinned).map(drop)
    }

    /// Tells something of a model or a version. See [`Batch::annotate`](crate::Batch::annotate).
    ///
    /// # Errors
    /// As [`Batch::annotate`](crate::Batch::annotate).
    pub fn annotate(
        &mut self,
        model: &impl ModelName,
        version: Option<AliasTarget>,
        name: &str,
        value: impl Into<MetaValue>,
    ) -> Result<(), CommitError> {
        self.batch.annotate(model, version, name, value).map(drop)
    }

    /// Takes back what was told. See [`Batch::remove_annotation`](crate::Batch::remove_annotation).
    ///
    /// # Errors
    /// As [`Batch::remove_annotation`](crate::Batch::remove_annotation).
    pub fn remove_annotation(
        &mut self,
        model: &impl ModelName,
        version: Option<AliasTarget>,
        name: &str,
    ) -> Result<(), CommitError> {
        self.batch.remove_annotation(model, version, name).map(drop)
    }

    /// Tells what a version was made from. See [`Batch::trained_on`](crate::Batch::trained_on).
    ///
    /// # Errors
    /// As [`Batch::trained_on`](crate::Batch::trained_on).
    pub fn trained_on(
        &mut self,
        model: &impl ModelName,
        version: AliasTarget,
        training: &Training,
    ) -> Result<(), CommitError> {
        self.batch.trained_on(model, version, training).map(drop)
    }

    /// Sets which versions of a model are kept. See [`Batch::set_retention`](crate::Batch::set_retention).
    ///
    /// # Errors
    /// As [`Batch::set_retention`](crate::Batch::set_retention).
    pub fn set_retention(
        &mut self,
        model: &impl ModelName,
        retention: Option<Retention>,
    ) -> Result<(), CommitError> {
        self.batch.set_retention(model, retention).map(drop)
    }
}
