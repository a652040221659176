//! What is told of models beside their versions, and versions that go one by one.

use underbelly::{Batch, CommitError};

use super::life::Life;
use super::model::Effect;
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
