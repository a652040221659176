//! Versions by number, by time, by alias and by place; and how they are told apart, kept and deleted.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use underbelly_query::Direction;
use underbelly_storage::Timestamp;

use super::catalogue::{END, LookAtAll, Models, Place, Version};
use super::fill::SLICE_MODELS;
use super::live::LIVE;
use super::marks::{MODEL, MarkChange, MarkKind, MarkName, NEWEST, Retention, Told, number, value_to_cbor};
use super::{MetaValue, Metadata, MetadataError, Model, ModelId, ModelInfo, Training};
use crate::batch::Batch;
use crate::error::{CommitError, ReadError};
use crate::operations::Operations;
use crate::series::name_problem;
use crate::snapshot::Snapshot;

/// What names a model: its metadata, of which `timestamp`, `name` and `tags` do not matter, or its identity.
pub trait ModelName {
    /// The identity.
    ///
    /// # Errors
    /// As [`Metadata::id`].
    fn model_id(&self) -> Result<ModelId, MetadataError>;
}

impl ModelName for Metadata {
    fn model_id(&self) -> Result<ModelId, MetadataError> {
        self.id()
    }
}

impl ModelName for ModelId {
    fn model_id(&self) -> Result<ModelId, MetadataError> {
        Ok(*self)
    }
}

impl<T: ModelName + ?Sized> ModelName for Arc<T> {
    fn model_id(&self) -> Result<ModelId, MetadataError> {
        (**self).model_id()
    }
}

impl ModelId {
    /// Reads 64 hexadecimal digits of either case.
    pub fn parse(text: &str) -> Option<ModelId> {
        underbelly_storage::object::ObjectId::parse(text).map(|id| ModelId(id.0))
    }
}

/// Where a version is: `ID`, `ID@VERSION` or `ID@ALIAS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The model.
    pub id: ModelId,
    /// Which version of it.
    pub target: AliasTarget,
    /// The alias that names the version, if one does.
    pub alias: Option<Arc<str>>,
}

impl Location {
    /// Reads a place. What stands behind the `@` is a version where it is a number, and the newest one where it is `newest`.
    ///
    /// # Errors
    /// [`ReadError::Location`].
    pub fn parse(text: &str) -> Result<Location, ReadError> {
        let wrong = || ReadError::Location { text: text.to_string() };
        let (id, rest) = text.split_once('@').map_or((text, None), |(id, rest)| (id, Some(rest)));
        let id = ModelId::parse(id).ok_or_else(wrong)?;
        let (target, alias) = match rest.map(|rest| (rest, rest.parse::<u64>())) {
            None | Some(("newest", _)) => (AliasTarget::Newest, None),
            Some((_, Ok(version))) => (AliasTarget::Version(version), None),
            Some((alias, Err(_))) if name_problem("alias", alias).is_none() => {
                (AliasTarget::Newest, Some(alias.into()))
            }
            Some(_) => return Err(wrong()),
        };
        Ok(Location { id, target, alias })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.alias, self.target) {
            (Some(alias), _) => write!(f, "{}@{alias}", self.id),
            (None, AliasTarget::Version(version)) => write!(f, "{}@{version}", self.id),
            (None, AliasTarget::Newest) => write!(f, "{}", self.id),
        }
    }
}

/// Which version of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AliasTarget {
    /// The newest as of the transaction, its own puts among them.
    Newest,
    /// The one of this number.
    Version(u64),
}

impl From<u64> for AliasTarget {
    fn from(version: u64) -> AliasTarget {
        AliasTarget::Version(version)
    }
}

/// A name for a version, and since when it names that.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Alias {
    /// The name.
    pub name: Arc<str>,
    /// The version; `None` in a history where the alias was taken away.
    pub version: Option<u64>,
    /// The transaction that set it so.
    pub seq: u64,
    /// Its time.
    pub time: Timestamp,
}

/// What was told of a model or of one of its versions after it was put.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Annotation {
    /// The version; `None` where it is about the model.
    pub version: Option<u64>,
    /// Its name.
    pub name: Arc<str>,
    /// Its value; `None` in a history where it was taken away.
    pub value: Option<MetaValue>,
    /// The transaction that set it so.
    pub seq: u64,
    /// Its time.
    pub time: Timestamp,
}

/// A version as lists show it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VersionInfo {
    /// What is known of it.
    pub info: ModelInfo,
    /// Aliases that name it.
    pub aliases: Vec<Arc<str>>,
    /// Whether it is pinned.
    pub is_pinned: bool,
}

impl MarkChange {
    /// Refuses names and values that no mark has.
    pub(crate) fn check(&self) -> Result<(), CommitError> {
        let what = match self.mark.kind {
            MarkKind::Alias => Some("alias"),
            MarkKind::Note => Some("annotation"),
            _ => None,
        };
        let name = &*self.mark.name;
        if let Some((what, problem)) = what.and_then(|what| Some((what, name_problem(what, name)?))) {
            return Err(CommitError::Name { what, name: name.to_string(), problem });
        }
        if let Some(value) = &self.value {
            let problem = match name {
                _ if self.mark.kind != MarkKind::Alias => None,
                "newest" => Some("stands for the newest version, as in ID@newest"),
                name => name.parse::<u64>().ok().map(|_| "is a number, as versions have"),
            };
            if let Some(problem) = problem {
                return Err(CommitError::Name { what: "alias", name: name.to_string(), problem });
            }
            value_to_cbor(value)?;
        }
        Ok(())
    }
}

impl Models {
    /// Says what of the marks and removals of a transaction does not fit its models.
    pub(crate) fn check(&self, operations: &Operations) -> Result<(), CommitError> {
        if operations.marks.is_empty() && operations.removed.is_empty() {
            return Ok(());
        }
        let changes = Changes::of(operations);
        // What aliases name after the changes before.
        let mut aliases: HashMap<(ModelId, &str), Option<u64>> = HashMap::new();
        for change in &operations.marks {
            let after = After::of(self, &changes, change.id);
            let about = match (change.mark.kind, &change.value) {
                (MarkKind::Alias, Some(value)) => number(value).unwrap_or(NEWEST),
                _ => change.mark.version,
            };
            // What is taken away need not be there.
            if change.value.is_some()
                && (!after.holds(about)
                    || about == MODEL && matches!(change.mark.kind, MarkKind::Alias | MarkKind::Pin))
            {
                return Err(after.unknown(about));
            }
            if let Some(expected) = change.expected {
                let own = aliases.get(&(change.id, &*change.mark.name)).copied();
                let found = own.unwrap_or_else(|| {
                    let found = self.marks.alias_at(&change.id, &change.mark.name, u64::MAX);
                    found.filter(|_| !after.is_deleted)
                });
                if found != expected {
                    let alias = format!("{}@{}", change.id, change.mark.name);
                    return Err(CommitError::AliasMoved { alias, expected, found });
                }
            }
            if change.mark.kind == MarkKind::Alias {
                let named = change.value.as_ref().map(|_| if about == NEWEST { after.newest } else { about });
                aliases.insert((change.id, &*change.mark.name), named);
            }
        }
        let mut held: BTreeMap<ModelId, BTreeSet<u64>> = BTreeMap::new();
        for (id, version) in &operations.removed {
            let after = After::of(self, &changes, *id);
            if !after.holds(*version) {
                return Err(after.unknown(*version));
            }
            let held = held.entry(*id).or_insert_with(|| after.held(&changes));
            let why = match (*version == after.newest, held.contains(version)) {
                (true, _) => "it is the newest; delete the model, or put another version first",
                (_, true) => "it is pinned or named by an alias; take that away first",
                _ => continue,
            };
            return Err(CommitError::VersionHeld { model: id.to_string(), version: *version, why });
        }
        Ok(())
    }
}

/// What a transaction does, by model.
#[derive(Default)]
struct Changes<'o> {
    deleted: HashSet<ModelId>,
    /// How many versions it puts.
    puts: HashMap<ModelId, u64>,
    marks: HashMap<ModelId, Vec<&'o MarkChange>>,
}

impl<'o> Changes<'o> {
    fn of(operations: &'o Operations) -> Changes<'o> {
        let deleted = operations.deleted_models.iter().copied().collect();
        let mut changes = Changes { deleted, ..Changes::default() };
        operations.models.iter().for_each(|put| *changes.puts.entry(put.id).or_default() += 1);
        operations.marks.iter().for_each(|mark| changes.marks.entry(mark.id).or_default().push(mark));
        changes
    }
}

/// A model as a transaction leaves it before it deletes versions alone.
struct After<'m> {
    models: &'m Models,
    id: ModelId,
    /// The transaction deletes all versions that were there.
    is_deleted: bool,
    /// The newest of those that stay.
    before: u64,
    newest: u64,
}

impl<'m> After<'m> {
    fn of(models: &'m Models, changes: &Changes<'_>, id: ModelId) -> After<'m> {
        let is_deleted = changes.deleted.contains(&id);
        let before = if is_deleted { 0 } else { models.newest_number(&id) };
        let newest = before + changes.puts.get(&id).copied().unwrap_or_default();
        After { models, id, is_deleted, before, newest }
    }

    fn holds(&self, version: u64) -> bool {
        match version {
            MODEL | NEWEST => self.newest > 0,
            version if version > self.before => version <= self.newest,
            version => !self.is_deleted && self.models.version(&self.id, version, u64::MAX).is_some(),
        }
    }

    fn unknown(&self, version: u64) -> CommitError {
        let newest = Some(self.newest).filter(|newest| *newest > 0);
        let version = match version {
            NEWEST => "newest".to_string(),
            MODEL if newest.is_none() => "newest".to_string(),
            version => version.to_string(),
        };
        CommitError::UnknownVersion { model: self.id.to_string(), version, newest }
    }

    /// Versions that are pinned or that an alias names.
    fn held(&self, changes: &Changes<'_>) -> BTreeSet<u64> {
        let marks = (!self.is_deleted).then_some(&self.models.marks);
        let aliases = marks.into_iter().flat_map(|marks| marks.aliases(&self.id, u64::MAX));
        let mut aliases: BTreeMap<Arc<str>, u64> =
            aliases.map(|(name, version)| (name.clone(), version)).collect();
        let pinned = marks.into_iter().flat_map(|marks| marks.pinned(&self.id, u64::MAX));
        let mut pinned: BTreeSet<u64> = pinned.collect();
        for MarkChange { mark, value, .. } in changes.marks.get(&self.id).into_iter().flatten() {
            let version = if mark.version == NEWEST { self.newest } else { mark.version };
            match (mark.kind, value) {
                (MarkKind::Alias, Some(value)) => {
                    let _ = aliases.insert(mark.name.clone(), number(value).unwrap_or(self.newest));
                }
                (MarkKind::Alias, None) => drop(aliases.remove(&mark.name)),
                (MarkKind::Pin, Some(_)) => drop(pinned.insert(version)),
                (MarkKind::Pin, None) => drop(pinned.remove(&version)),
                _ => {}
            }
        }
        pinned.extend(aliases.into_values());
        pinned
    }
}

impl Batch {
    fn mark(
        &mut self,
        model: &impl ModelName,
        mark: MarkName,
        value: Option<MetaValue>,
        expected: Option<Option<u64>>,
    ) -> Result<&mut Batch, CommitError> {
        self.marks.push(MarkChange { id: model.model_id()?, mark, value, expected });
        Ok(self)
    }

    /// Lets an alias name a version of a model; a number, or [`AliasTarget::Newest`], which is what this batch puts where
    /// it puts any. A version that an alias names is not deleted by retention.
    ///
    /// # Errors
    /// [`CommitError::Metadata`] where the metadata has no identity. What the commit refuses: [`CommitError::UnknownVersion`],
    /// [`CommitError::Name`].
    pub fn set_alias(
        &mut self,
        model: &impl ModelName,
        alias: &str,
        target: impl Into<AliasTarget>,
    ) -> Result<&mut Batch, CommitError> {
        self.alias(model, alias, target.into(), None)
    }

    /// As [`Batch::set_alias`], where the alias names the version `expected` until then, or none.
    ///
    /// # Errors
    /// As [`Batch::set_alias`]; the commit answers [`CommitError::AliasMoved`] where it names another.
    pub fn set_alias_if(
        &mut self,
        model: &impl ModelName,
        alias: &str,
        expected: Option<u64>,
        target: impl Into<AliasTarget>,
    ) -> Result<&mut Batch, CommitError> {
        self.alias(model, alias, target.into(), Some(expected))
    }

    fn alias(
        &mut self,
        model: &impl ModelName,
        alias: &str,
        target: AliasTarget,
        expected: Option<Option<u64>>,
    ) -> Result<&mut Batch, CommitError> {
        let version = match target {
            AliasTarget::Newest => -1,
            AliasTarget::Version(version) => i64::try_from(version).unwrap_or(i64::MAX),
        };
        self.mark(model, MarkName::new(MarkKind::Alias, MODEL, alias), Some(version.into()), expected)
    }

    /// Takes an alias away; one that is not there stays so.
    ///
    /// # Errors
    /// [`CommitError::Metadata`].
    pub fn remove_alias(&mut self, model: &impl ModelName, alias: &str) -> Result<&mut Batch, CommitError> {
        self.mark(model, MarkName::new(MarkKind::Alias, MODEL, alias), None, None)
    }

    /// As [`Batch::remove_alias`], where the alias names the version `expected` until then, or none.
    ///
    /// # Errors
    /// [`CommitError::Metadata`]; the commit answers [`CommitError::AliasMoved`] where it names another.
    pub fn remove_alias_if(
        &mut self,
        model: &impl ModelName,
        alias: &str,
        expected: Option<u64>,
    ) -> Result<&mut Batch, CommitError> {
        self.mark(model, MarkName::new(MarkKind::Alias, MODEL, alias), None, Some(expected))
    }

    /// Pins a version, so that retention spares it, or takes the pin away.
    ///
    /// # Errors
    /// As [`Batch::set_alias`].
    pub fn pin_version(
        &mut self,
        model: &impl ModelName,
        version: u64,
        is_pinned: bool,
    ) -> Result<&mut Batch, CommitError> {
        let mark = MarkName::new(MarkKind::Pin, about(model, Some(version.into()))?, "");
        self.mark(model, mark, is_pinned.then_some(true.into()), None)
    }

    /// Tells something of a model, or of one of its versions: a tag, a metric. It is no part of the identity. What was
    /// told under that name before stays in the history.
    ///
    /// # Errors
    /// As [`Batch::set_alias`].
    pub fn annotate(
        &mut self,
        model: &impl ModelName,
        version: Option<AliasTarget>,
        name: &str,
        value: impl Into<MetaValue>,
    ) -> Result<&mut Batch, CommitError> {
        self.note(model, version, unreserved(name)?, Some(value.into()))
    }

    /// The same under any name, or nothing any more.
    pub(super) fn note(
        &mut self,
        model: &impl ModelName,
        version: Option<AliasTarget>,
        name: &str,
        value: Option<MetaValue>,
    ) -> Result<&mut Batch, CommitError> {
        self.mark(model, MarkName::new(MarkKind::Note, about(model, version)?, name), value, None)
    }

    /// Takes back what was told under a name; the history keeps it.
    ///
    /// # Errors
    /// [`CommitError::Metadata`].
    pub fn remove_annotation(
        &mut self,
        model: &impl ModelName,
        version: Option<AliasTarget>,
        name: &str,
    ) -> Result<&mut Batch, CommitError> {
        self.note(model, version, unreserved(name)?, None)
    }

    /// Tells what a version was made from.
    ///
    /// # Errors
    /// As [`Batch::set_alias`].
    pub fn trained_on(
        &mut self,
        model: &impl ModelName,
        version: AliasTarget,
        training: &Training,
    ) -> Result<&mut Batch, CommitError> {
        let mark = MarkName::new(MarkKind::Lineage, about(model, Some(version))?, "");
        self.mark(model, mark, Some(training.to_value()), None)
    }

    /// Sets which versions of a model are kept; all where it is `None`. Others are deleted by the transaction that sets
    /// it, by each that puts a version of the model, by checkpoints and by [`Batch::collect_models`].
    ///
    /// # Errors
    /// As [`Batch::set_alias`].
    pub fn set_retention(
        &mut self,
        model: &impl ModelName,
        retention: Option<Retention>,
    ) -> Result<&mut Batch, CommitError> {
        let value = retention.map(Retention::to_value);
        self.mark(model, MarkName::new(MarkKind::Retention, MODEL, ""), value, None)
    }

    /// Deletes a version. Older snapshots still show it.
    ///
    /// # Errors
    /// [`CommitError::Metadata`]. What the commit refuses: [`CommitError::UnknownVersion`], and
    /// [`CommitError::VersionHeld`] for the newest version, one that is pinned and one that an alias names.
    pub fn delete_model_version(
        &mut self,
        model: &impl ModelName,
        version: u64,
    ) -> Result<&mut Batch, CommitError> {
        self.removed.push((model.model_id()?, about(model, Some(version.into()))?));
        Ok(self)
    }

    /// Deletes the versions of all models that are not to be kept, as the time of the commit tells.
    pub fn collect_models(&mut self) -> &mut Batch {
        self.collects = true;
        self
    }
}

/// A name under which anybody may tell something.
fn unreserved(name: &str) -> Result<&str, CommitError> {
    let problem = "is what versions of live models tell of themselves";
    match name {
        LIVE => Err(CommitError::Name { what: "annotation", name: name.to_string(), problem }),
        name => Ok(name),
    }
}

/// What a mark is about. No version has the numbers that stand for the model and for its newest version.
fn about(model: &impl ModelName, version: Option<AliasTarget>) -> Result<u64, CommitError> {
    match version {
        None => Ok(MODEL),
        Some(AliasTarget::Newest) => Ok(NEWEST),
        Some(AliasTarget::Version(version @ (MODEL | NEWEST))) => Err(CommitError::UnknownVersion {
            model: model.model_id()?.to_string(),
            version: version.to_string(),
            newest: None,
        }),
        Some(AliasTarget::Version(version)) => Ok(version),
    }
}

fn annotation(mark: &MarkName, told: &Told) -> Annotation {
    Annotation {
        version: (mark.version != MODEL).then_some(mark.version),
        name: mark.name.clone(),
        value: told.value.clone(),
        seq: told.place.0,
        time: told.time,
    }
}

impl Snapshot {
    /// A version that the catalogue finds.
    fn version_by(
        &self,
        model: &impl ModelName,
        find: impl FnOnce(&Models, &ModelId) -> Option<Arc<Version>>,
    ) -> Result<Option<Model>, ReadError> {
        let id = model.model_id()?;
        let found = find(&self.base().state().models, &id);
        found.map(|version| self.version(id, version)).transpose()
    }

    fn version(&self, id: ModelId, version: Arc<Version>) -> Result<Model, ReadError> {
        self.lend(ModelInfo::new(id, version))
    }

    /// What was told of a mark of a model, since that was deleted last.
    fn history(&self, id: &ModelId, mark: &MarkName) -> Vec<Told> {
        let state = self.base().state();
        let from = state.models.told_from(id, self.seq());
        let mut told = state.models.marks.history(id, mark, self.seq());
        told.retain(|told| told.place >= from);
        told
    }

    /// All versions of a model, newest first, a slice at a time, the first of so many: a model may have many, and commits wait for the state's lock.
    fn slices(&self, id: ModelId, first: usize) -> impl Iterator<Item = Vec<Arc<Version>>> {
        self.slices_before(id, END, first)
    }

    /// The same of those that were put before a place.
    pub(super) fn slices_before(
        &self,
        id: ModelId,
        mut before: Place,
        first: usize,
    ) -> impl Iterator<Item = Vec<Arc<Version>>> {
        let mut count = first;
        std::iter::from_fn(move || {
            let state = self.base().state();
            let slice = state.models.versions_before(&id, self.seq(), before, count);
            count = SLICE_MODELS;
            before = slice.last().map(|last| (last.seq, last.position))?;
            Some(slice)
        })
    }

    /// The same one by one, for who is likely to want the newest alone.
    pub(crate) fn newest_first(&self, id: ModelId) -> impl Iterator<Item = Arc<Version>> {
        self.slices(id, 1).flatten()
    }

    /// Marks of one kind of the versions from one to another that a model has, in order, a slice at a time.
    fn marks(&self, id: &ModelId, kind: MarkKind, versions: RangeInclusive<u64>) -> Vec<(MarkName, Told)> {
        let (mut last, mut all) = (None, Vec::new());
        loop {
            let state = self.base().state();
            let slice = state.models.marks.slice_behind(
                id,
                last.as_ref(),
                (kind, &versions),
                self.seq(),
                SLICE_MODELS,
            );
            drop(state);
            let Some((newest, _)) = slice.last() else { return all };
            last = Some(newest.clone());
            let told = slice.into_iter().filter_map(|(mark, told)| Some((mark, told?)));
            all.extend(told.filter(|(_, told)| told.value.is_some()));
        }
    }

    /// The version of this number; `None` where there is none, or none any more.
    ///
    /// # Errors
    /// As [`Snapshot::model`].
    pub fn model_version(&self, model: &impl ModelName, version: u64) -> Result<Option<Model>, ReadError> {
        self.version_by(model, |models, id| models.version(id, version, self.seq()))
    }

    /// The version that is so many before the newest: 0 is the newest itself. Those that were deleted do not count.
    ///
    /// # Errors
    /// As [`Snapshot::model`].
    pub fn model_back(&self, model: &impl ModelName, back: usize) -> Result<Option<Model>, ReadError> {
        let id = model.model_id()?;
        let found = self.base().state().models.back(&id, self.seq(), back);
        let found = found.unwrap_or_else(|LookAtAll| self.newest_first(id).nth(back));
        found.map(|version| self.version(id, version)).transpose()
    }

    /// The version with the latest `timestamp` in its metadata that is at or before a time; of several the one that was
    /// put last. Of those that were deleted ([`Snapshot::deleted_versions`]) the time is not known any more: any of them may
    /// have been the one of that time, but for those that were put before one that has just this timestamp.
    ///
    /// # Errors
    /// As [`Snapshot::model`].
    pub fn model_as_of(&self, model: &impl ModelName, at: Timestamp) -> Result<Option<Model>, ReadError> {
        let id = model.model_id()?;
        let found = self.last_until(id, at);
        found.map(|version| self.version(id, version)).transpose()
    }

    /// The version whose `timestamp` is the latest at or before a time (as [`Snapshot::model_as_of`]), the earliest at or after it,
    /// or the nearer of the two, the earlier one where both are as near; of several of that timestamp the one that was put last.
    ///
    /// # Errors
    /// As [`Snapshot::model`].
    pub fn model_closest(
        &self,
        model: &impl ModelName,
        at: Timestamp,
        direction: Direction,
    ) -> Result<Option<Model>, ReadError> {
        let id = model.model_id()?;
        let before = (direction != Direction::Forward).then(|| self.last_until(id, at)).flatten();
        let after = (direction != Direction::Backward).then(|| self.first_from(id, at)).flatten();
        let found = match (before, after) {
            (Some(before), Some(after)) => {
                let (to_before, to_after) =
                    (at.0.abs_diff(before.timestamp.0), after.timestamp.0.abs_diff(at.0));
                Some(if to_after < to_before { after } else { before })
            }
            (before, after) => before.or(after),
        };
        found.map(|version| self.version(id, version)).transpose()
    }

    fn last_until(&self, id: ModelId, at: Timestamp) -> Option<Arc<Version>> {
        let found = self.base().state().models.as_of(&id, self.seq(), at);
        found.unwrap_or_else(|LookAtAll| {
            let versions = self.newest_first(id).filter(|version| version.timestamp <= at);
            versions.reduce(|best, older| if older.timestamp > best.timestamp { older } else { best })
        })
    }

    fn first_from(&self, id: ModelId, at: Timestamp) -> Option<Arc<Version>> {
        let found = self.base().state().models.first_from(&id, self.seq(), at);
        found.unwrap_or_else(|LookAtAll| {
            let versions = self.newest_first(id).filter(|version| version.timestamp >= at);
            versions.reduce(|best, older| if older.timestamp < best.timestamp { older } else { best })
        })
    }

    /// The newest version that had been put by a time, as the commits' times tell: what was known then. Of those that were
    /// deleted ([`Snapshot::deleted_versions`]) the ones next behind it may have been put by then, too.
    ///
    /// # Errors
    /// As [`Snapshot::model`].
    pub fn model_put_by(&self, model: &impl ModelName, at: Timestamp) -> Result<Option<Model>, ReadError> {
        let id = model.model_id()?;
        let found = self.base().state().models.put_by(&id, self.seq(), at);
        let found =
            found.unwrap_or_else(|LookAtAll| self.newest_first(id).find(|version| version.time <= at));
        found.map(|version| self.version(id, version)).transpose()
    }

    /// Numbers of the versions that were deleted while the model stayed, rising. What was deleted with the whole model is
    /// not known any more: one that is put again begins with version 1.
    ///
    /// # Errors
    /// [`ReadError::Metadata`].
    pub fn deleted_versions(&self, model: &impl ModelName) -> Result<Vec<RangeInclusive<u64>>, ReadError> {
        let (mut deleted, mut above) = (Vec::new(), None);
        let there = self.slices(model.model_id()?, SLICE_MODELS).flatten().map(|version| version.number);
        for number in there.chain([0]) {
            deleted.extend(above.map(|above| number + 1..=above - 1).filter(|gone| !gone.is_empty()));
            above = Some(number);
        }
        deleted.reverse();
        Ok(deleted)
    }

    /// The version that an alias names; `None` where there is no such alias.
    ///
    /// # Errors
    /// As [`Snapshot::model`].
    pub fn model_alias(&self, model: &impl ModelName, alias: &str) -> Result<Option<Model>, ReadError> {
        self.version_by(model, |models, id| {
            models.version(id, models.marks.alias_at(id, alias, self.seq())?, self.seq())
        })
    }

    /// The version at a place; `None` where there is none.
    ///
    /// # Errors
    /// As [`Snapshot::model`].
    pub fn model_at(&self, location: &Location) -> Result<Option<Model>, ReadError> {
        match (&location.alias, location.target) {
            (Some(alias), _) => self.model_alias(&location.id, alias),
            (None, AliasTarget::Version(version)) => self.model_version(&location.id, version),
            (None, AliasTarget::Newest) => self.model(&location.id),
        }
    }

    /// All versions of a model, newest first; empty where there is no such model.
    ///
    /// # Errors
    /// [`ReadError::Metadata`].
    pub fn model_versions(&self, model: &impl ModelName) -> Result<Vec<VersionInfo>, ReadError> {
        let id = model.model_id()?;
        let mut aliases: HashMap<u64, Vec<Arc<str>>> = HashMap::new();
        for (name, version) in self.base().state().models.marks.aliases(&id, self.seq()) {
            aliases.entry(version).or_default().push(name.clone());
        }
        let mut all = Vec::new();
        for slice in self.slices(id, SLICE_MODELS) {
            let (Some(newest), Some(oldest)) = (slice.first(), slice.last()) else { continue };
            let pinned = self.marks(&id, MarkKind::Pin, oldest.number..=newest.number);
            let pinned: HashSet<u64> = pinned.into_iter().map(|(mark, _)| mark.version).collect();
            all.extend(slice.iter().map(|version| VersionInfo {
                info: ModelInfo::new(id, version.clone()),
                aliases: aliases.remove(&version.number).unwrap_or_default(),
                is_pinned: pinned.contains(&version.number),
            }));
        }
        Ok(all)
    }

    /// The aliases of a model, by name.
    ///
    /// # Errors
    /// [`ReadError::Metadata`].
    pub fn aliases(&self, model: &impl ModelName) -> Result<Vec<Alias>, ReadError> {
        let id = model.model_id()?;
        let state = self.base().state();
        let aliases = state.models.marks.of_kind(&id, MarkKind::Alias, self.seq());
        Ok(aliases.map(|(mark, told, _)| alias(&mark.name, told)).collect())
    }

    /// What an alias named over time, oldest first; of a model that was deleted and put again, since then.
    ///
    /// # Errors
    /// [`ReadError::Metadata`].
    pub fn alias_history(&self, model: &impl ModelName, name: &str) -> Result<Vec<Alias>, ReadError> {
        let mark = MarkName::new(MarkKind::Alias, MODEL, name);
        let told = self.history(&model.model_id()?, &mark);
        Ok(told.iter().map(|told| alias(&mark.name, told)).collect())
    }

    /// What is told of a model and of its versions, by version and name.
    ///
    /// # Errors
    /// [`ReadError::Metadata`].
    pub fn annotations(&self, model: &impl ModelName) -> Result<Vec<Annotation>, ReadError> {
        let notes = self.marks(&model.model_id()?, MarkKind::Note, MODEL..=NEWEST);
        Ok(notes.iter().map(|(mark, told)| annotation(mark, told)).collect())
    }

    /// What was told under a name over time, oldest first; of a model that was deleted and put again, since then.
    ///
    /// # Errors
    /// [`ReadError::Metadata`].
    pub fn annotation_history(
        &self,
        model: &impl ModelName,
        version: Option<u64>,
        name: &str,
    ) -> Result<Vec<Annotation>, ReadError> {
        if version == Some(MODEL) {
            return Ok(Vec::new());
        }
        let mark = MarkName::new(MarkKind::Note, version.unwrap_or(MODEL), name);
        let told = self.history(&model.model_id()?, &mark);
        Ok(told.iter().map(|told| annotation(&mark, told)).collect())
    }

    /// Which versions of a model are kept; all where it is `None`.
    ///
    /// # Errors
    /// [`ReadError::Metadata`].
    pub fn retention(&self, model: &impl ModelName) -> Result<Option<Retention>, ReadError> {
        Ok(self.base().state().models.marks.retention(&model.model_id()?, self.seq()))
    }

    /// The versions that [`Batch::set_retention`] would delete if it were committed at a time, newest first. A commit is at
    /// the time of the clock, or of the commit before it where that is later.
    ///
    /// # Errors
    /// [`ReadError::Metadata`].
    pub fn versions_outside(
        &self,
        model: &impl ModelName,
        retention: Retention,
        at: Timestamp,
    ) -> Result<Vec<VersionInfo>, ReadError> {
        let id = model.model_id()?;
        let mut versions = self.model_versions(&id)?;
        let older = versions.iter().filter(|version| retention.is_too_old(version.info.time, at)).count();
        let kept = versions.len() - retention.outside(versions.len(), older);
        let mut outside = versions.split_off(kept);
        outside.retain(|version| !version.is_pinned && version.aliases.is_empty());
        Ok(outside)
    }

    /// What a version was made from; `None` where nobody told.
    ///
    /// # Errors
    /// [`ReadError::Metadata`].
    pub fn training(&self, model: &impl ModelName, version: u64) -> Result<Option<Training>, ReadError> {
        let mark = MarkName::new(MarkKind::Lineage, version, "");
        let state = self.base().state();
        Ok(state.models.marks.value_at(&model.model_id()?, &mark, self.seq()).map(Training::of))
    }
}

fn alias(name: &Arc<str>, told: &Told) -> Alias {
    let version = told.value.as_ref().and_then(number);
    Alias { name: name.clone(), version, seq: told.place.0, time: told.time }
}
