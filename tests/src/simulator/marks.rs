//! What is told of models beside their versions, and versions that go one by one, or for their age.

use std::collections::BTreeSet;
use std::time::Duration;

use underbelly::{Batch, CommitError, Retention, Snapshot};

use super::life::Life;
use super::model::{Effect, Model};
use super::{Trouble, check};

impl Life {
    /// Pins a version of a model that is there or takes the pin away, tells something of the model or takes it back, or deletes
    /// a version, which is refused where something holds it.
    pub(super) fn mark_model(&mut self) -> Result<(), Trouble> {
        let models = self.model.models.len() as u64;
        let (at, choice) = (self.numbers.below(models), self.numbers.below(4));
        let (of, n) = (self.numbers.below(u64::MAX), self.numbers.below(9) as i64);
        let found = self.model.models.iter().nth(at as usize);
        let Some((model, versions)) = found.map(|(model, versions)| (*model, versions.clone())) else {
            return Ok(());
        };
        let Some((version, ..)) = versions.get((of % versions.len().max(1) as u64) as usize).copied() else {
            return Ok(());
        };
        let mut batch = Batch::new();
        let metadata = check::metadata(model);
        let effect = match choice {
            0 => {
                let is_pinned = !self.model.pinned.contains(&(model, version));
                batch.pin_version(&metadata, version, is_pinned)?;
                Effect::Pin(model, version, is_pinned)
            }
            1 => {
                batch.annotate(&metadata, None, check::NOTE, n)?;
                Effect::Note(model, Some(n))
            }
            2 => {
                batch.remove_annotation(&metadata, None, check::NOTE)?;
                Effect::Note(model, None)
            }
            _ => {
                batch.delete_model_version(&metadata, version)?;
                Effect::Drop(model, version)
            }
        };
        self.tell(|| format!("mark of a model: {effect:?}"));
        let is_held = self.model.pinned.contains(&(model, version))
            || self.model.aliases.get(&model) == Some(&version)
            || self.model.names.get(&model) == Some(&version)
            || versions.last().is_some_and(|newest| newest.0 == version);
        if choice == 3 && is_held {
            let before = self.head()?;
            return match self.db()?.commit(batch) {
                Err(CommitError::VersionHeld { .. }) if self.head()? == before => Ok(()),
                Err(error) => self.excuse("delete a version that is held", &error),
                Ok(_) => Err(format!("version {version} of model {model} is held and was deleted").into()),
            };
        }
        self.attempt("mark a model", vec![effect], |db| db.commit(batch)).map(|_| ())
    }
}

/// The model about which an effect tells something, or of which it puts a version: retention is looked at then.
pub(super) fn model_of(effect: &Effect) -> Option<u8> {
    match effect {
        Effect::Model(model, ..)
        | Effect::Alias(model, _)
        | Effect::Keep(model, _)
        | Effect::KeepFor(model, ..)
        | Effect::Pin(model, ..)
        | Effect::Note(model, _)
        | Effect::Name(model, _) => Some(*model),
        _ => None,
    }
}

/// All of a transaction.
pub(super) fn marked(effects: &[Effect]) -> BTreeSet<u8> {
    effects.iter().filter_map(model_of).collect()
}

/// The alias beside the first.
const NAME: &str = "second";
/// For how long versions are kept: no sum of the simulator's steps comes near it.
const AGES: [i64; 3] = [90_000_000_000, 190_000_000_000, 510_000_000_000];

impl Model {
    /// Nothing is known of a model any more.
    pub(super) fn forget_marks(&mut self, model: u8) {
        self.names.remove(&model);
        self.kept_for.remove(&model);
        self.put_at.retain(|(of, _), _| *of != model);
    }

    /// Versions of a model that are too old at a time, and that nothing holds: neither the newest, nor pinned, nor named.
    fn old_versions(&self, model: u8, now: i64) -> Vec<u64> {
        let Some(age) = self.kept_for.get(&model) else { return Vec::new() };
        let versions = self.models.get(&model).map_or(&[][..], Vec::as_slice);
        let Some(((newest, ..), _)) = versions.split_last() else { return Vec::new() };
        let is_held = |version: u64| {
            version == *newest
                || self.pinned.contains(&(model, version))
                || [&self.aliases, &self.names].iter().any(|names| names.get(&model) == Some(&version))
        };
        let is_old = |version: u64| self.put_at.get(&(model, version)).is_some_and(|at| now - at > *age);
        let numbers = versions.iter().map(|version| version.0);
        numbers.filter(|version| is_old(*version) && !is_held(*version)).collect()
    }

    /// Deletes what is too old of these.
    pub(super) fn drop_old(&mut self, models: &BTreeSet<u8>) {
        for model in models {
            let old = self.old_versions(*model, self.at);
            self.models.entry(*model).and_modify(|versions| versions.retain(|v| !old.contains(&v.0)));
        }
    }

    /// Whether a version of some model is too old.
    pub(super) fn has_old_versions(&self, now: i64) -> bool {
        self.kept_for.keys().any(|model| !self.old_versions(*model, now).is_empty())
    }
}

/// Whether the models whose versions grow old have as many versions.
pub(super) fn counts_as(snapshot: &Snapshot, model: &Model) -> Result<bool, Trouble> {
    for of in model.kept_for.keys() {
        let expected = model.models.get(of).map_or(0, Vec::len);
        if snapshot.model_versions(&check::metadata(*of))?.len() != expected {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The second alias of a model, and for how long its versions are kept.
pub(super) fn check(snapshot: &Snapshot, model: &Model, of: u8) -> Result<(), Trouble> {
    let metadata = check::metadata(of);
    let named = snapshot.model_alias(&metadata, NAME)?.map(|named| named.info().version);
    let found = snapshot.retention(&metadata)?;
    let (count, age) = (model.kept.get(&of).copied(), model.kept_for.get(&of).copied());
    let expected = (count, age.map(|age| Duration::from_nanos(age.unsigned_abs())));
    let found = found.map_or((None, None), |kept| (kept.keep_last, kept.max_age));
    if named != model.names.get(&of).copied() || found != expected {
        let at = snapshot.seq();
        return Err(format!(
            "seq {at}: of model {of} {NAME} names {named:?}, not {:?}, and kept is {found:?}, not {expected:?}",
            model.names.get(&of)
        )
        .into());
    }
    Ok(())
}

impl Life {
    /// A model that is there, and one of its versions.
    fn some_version(&mut self) -> Option<(u8, u64)> {
        let models = self.model.models.len() as u64;
        let (at, of) = (self.numbers.below(models), self.numbers.below(u64::MAX));
        let (model, versions) = self.model.models.iter().nth(at as usize)?;
        let version = versions.get((of % versions.len().max(1) as u64) as usize)?;
        Some((*model, version.0))
    }

    /// Gives a version a second alias, beside the one that moves with the newest, or takes that away.
    pub(super) fn name_version(&mut self) -> Result<(), Trouble> {
        let (found, is_named) = (self.some_version(), self.numbers.below(3) > 0);
        let Some((model, version)) = found else { return Ok(()) };
        let (mut batch, metadata) = (Batch::new(), check::metadata(model));
        match is_named {
            true => batch.set_alias(&metadata, NAME, version)?,
            false => batch.remove_alias(&metadata, NAME)?,
        };
        let effects = vec![Effect::Name(model, is_named.then_some(version))];
        self.tell(|| format!("name a version: {effects:?}"));
        self.figures.named += u64::from(is_named);
        self.attempt("name a version", effects, |db| db.commit(batch)).map(|_| ())
    }

    /// Keeps versions of a model for a time, puts one, or deletes those of all that are too old.
    pub(super) fn age_model(&mut self) -> Result<(), Trouble> {
        let (choice, age) = (self.numbers.below(4), AGES[self.numbers.below(AGES.len() as u64) as usize]);
        let (count, puts) = (1 + self.numbers.below(4), self.numbers.below(2) == 0);
        let count = (self.numbers.below(3) == 0).then_some(count);
        let Some((model, _)) = self.some_version() else { return Ok(()) };
        let (mut batch, mut effects, metadata) = (Batch::new(), Vec::new(), check::metadata(model));
        if puts {
            batch.put_model(metadata.clone(), check::blob(8, 30));
            effects.push(Effect::Model(model, 8, 30));
        }
        match choice {
            0 | 1 => {
                let max_age = Some(Duration::from_nanos(age.unsigned_abs()));
                batch.set_retention(&metadata, Some(Retention { keep_last: count, max_age }))?;
                effects.push(Effect::KeepFor(model, count, age));
            }
            _ => {
                batch.collect_models();
                effects.push(Effect::Collect);
            }
        }
        self.figures.aged += u64::from(choice > 1 && self.model.has_old_versions(self.time));
        self.tell(|| format!("ages of models: {effects:?}"));
        self.attempt("tell how long models are kept", effects, |db| db.commit(batch)).map(|_| ())
    }
}
