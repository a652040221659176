//! Which variables there are, what they were for older readers, and which of them no state image holds yet.
//!
//! A checkpoint takes over the map of what changed, which holds the values themselves: so what it writes is what was
//! there when it began, whatever is set meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use underbelly_storage::Timestamp;

use super::value::{Scope, Variable, VariableType, VariableValue};
use crate::error::{CommitError, ReadError};
use crate::limits::VARIABLE_BYTES_MAX;
use crate::series::name_problem;
use crate::versions::{Version, Versions};

/// Scope and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    pub scope: Scope,
    pub name: Arc<str>,
}

impl Name {
    pub(crate) fn new(scope: &Scope, name: &str) -> Name {
        Name { scope: scope.clone(), name: name.into() }
    }

    /// What is named so that no variable may have it: what it is, its name, and what is wrong with that.
    pub(crate) fn problem(&self) -> Option<(&'static str, String, &'static str)> {
        let scope = if matches!(self.scope, Scope::Asset(_)) { "asset" } else { "episode" };
        let named =
            self.scope.name().map(|name| (scope, name)).into_iter().chain([("variable", &*self.name)]);
        named.filter_map(|(what, name)| Some((what, name.to_string(), name_problem(what, name)?))).next()
    }

    /// Refuses names that no variable may have.
    pub(crate) fn check(&self) -> Result<(), CommitError> {
        match self.problem() {
            Some((what, name, problem)) => Err(CommitError::Name { what, name, problem }),
            None => Ok(()),
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.scope {
            Scope::Global => f.write_str(&self.name),
            _ => write!(f, "{} {}", self.scope, self.name),
        }
    }
}

/// What a transaction does with a variable: sets it, or removes it.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub name: Arc<Name>,
    pub value: Option<VariableValue>,
}

/// Refuses what no variable may be called or hold.
pub(crate) fn check_change(name: &Name, value: Option<&VariableValue>) -> Result<(), CommitError> {
    name.check()?;
    let bytes = value.map_or(0, VariableValue::byte_size);
    if bytes > VARIABLE_BYTES_MAX {
        let (variable, found, limit) = (name.to_string(), bytes, VARIABLE_BYTES_MAX);
        return Err(ReadError::VariableSize { variable, found, limit }.into());
    }
    Ok(())
}

/// A value that was set.
#[derive(Debug, PartialEq)]
pub(crate) struct Set {
    pub value: VariableValue,
    pub seq: u64,
    pub time: Timestamp,
}

/// A variable from a commit on; `None` where that removed it.
#[derive(Clone, Debug)]
struct SetVersion {
    seq: u64,
    set: Option<Arc<Set>>,
}

impl Version for SetVersion {
    fn seq(&self) -> u64 {
        self.seq
    }
}

/// The place of a variable's record in the state image: the transaction that made it, and how many changes that made
/// before. One that was removed and set again has another.
pub(crate) type Place = (u64, u64);

#[derive(Clone, Debug)]
struct Entry {
    place: Place,
    newest: SetVersion,
}

/// A variable as the state image holds it.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub place: Place,
    pub name: Arc<Name>,
    pub set: Arc<Set>,
}

/// Records of the state image that changed: what each holds, or `None` where its variable was removed.
pub(crate) type Changed = BTreeMap<Place, Option<Stored>>;

/// The variables of the applied head.
#[derive(Default)]
pub(crate) struct Variables {
    /// One that was removed stays as long as a reader may see what it was.
    by_name: BTreeMap<Arc<Name>, Entry>,
    /// Values that variables had and that some reader may still see.
    older: Versions<Arc<Name>, SetVersion>,
    changed: Changed,
    /// How many there are.
    live: usize,
}

impl Variables {
    /// The variables that a state image describes.
    pub(crate) fn restored(stored: Vec<Stored>) -> Result<Variables, String> {
        let mut variables = Variables::default();
        for Stored { place, name, set } in stored {
            let entry = Entry { place, newest: SetVersion { seq: set.seq, set: Some(set) } };
            if variables.by_name.insert(name.clone(), entry).is_some() {
                return Err(format!("two records hold variable {name}"));
            }
            variables.live += 1;
        }
        Ok(variables)
    }

    /// Number of variables.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// Says what [`Variables::apply`] would refuse: a value of another type than the variable has.
    pub(crate) fn check(&self, changes: &[Change]) -> Result<(), CommitError> {
        let mut own: HashMap<&Name, Option<VariableType>> = HashMap::new();
        for Change { name, value } in changes {
            let stored = || self.newest(name).map(|set| set.value.variable_type());
            let expected = own.get(&**name).copied().unwrap_or_else(stored);
            let found = value.as_ref().map(VariableValue::variable_type);
            if let (Some(expected), Some(found)) = (expected, found)
                && expected != found
            {
                return Err(CommitError::VariableType { variable: name.to_string(), expected, found });
            }
            if changes.len() > 1 {
                own.insert(name, found);
            }
        }
        Ok(())
    }

    /// Applies changes that were checked, in their order. What was there is kept where a reader before `seq` sees it.
    pub(crate) fn apply(&mut self, seq: u64, time: Timestamp, changes: Vec<Change>, oldest_seq: u64) {
        for (position, Change { name, value }) in (0..).zip(changes) {
            let before = self.by_name.get(&name);
            let was_there = before.is_some_and(|entry| entry.newest.set.is_some());
            if !was_there && value.is_none() {
                continue;
            }
            let place = before.filter(|_| was_there).map_or((seq, position), |entry| entry.place);
            if let Some(before) = before
                && before.newest.seq < seq
                && oldest_seq < seq
            {
                let before = before.newest.clone();
                self.older.push(seq, name.clone(), before);
            }
            let set = value.map(|value| Arc::new(Set { value, seq, time }));
            self.live = self.live + usize::from(set.is_some()) - usize::from(was_there);
            let stored = set.clone().map(|set| Stored { place, name: name.clone(), set });
            self.changed.insert(place, stored);
            if set.is_none() && !self.older.contains(&*name) {
                self.by_name.remove(&name);
            } else {
                self.by_name.insert(name, Entry { place, newest: SetVersion { seq, set } });
            }
        }
    }

    /// Whether values wait for readers to go.
    pub(crate) fn has_older(&self) -> bool {
        !self.older.is_empty()
    }

    /// Drops the oldest value that only readers before `oldest_seq` would need. False where there is none.
    pub(crate) fn drop_older(&mut self, oldest_seq: u64) -> bool {
        let Some((name, _)) = self.older.pop(oldest_seq) else { return false };
        let is_gone = |entry: &Entry| entry.newest.set.is_none();
        if self.by_name.get(&name).is_some_and(is_gone) && !self.older.contains(&*name) {
            self.by_name.remove(&name);
        }
        true
    }

    /// The value at the head.
    pub(crate) fn newest(&self, name: &Name) -> Option<&Arc<Set>> {
        self.by_name.get(name)?.newest.set.as_ref()
    }

    /// All variables of the head with their values, by scope and name.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Arc<Name>, &Arc<Set>)> {
        self.by_name.iter().filter_map(|(name, entry)| Some((name, entry.newest.set.as_ref()?)))
    }

    fn version_at<'a>(&'a self, name: &Name, entry: &'a Entry, seq: u64) -> Option<&'a Arc<Set>> {
        let version = match entry.newest.seq <= seq {
            true => &entry.newest,
            false => self.older.at(name, seq)?,
        };
        version.set.as_ref()
    }

    /// What a reader at `seq` sees set.
    pub(crate) fn set_at(&self, name: &Name, seq: u64) -> Option<Arc<Set>> {
        self.version_at(name, self.by_name.get(name)?, seq).cloned()
    }

    /// The variable that a reader at `seq` sees.
    pub(crate) fn at(&self, name: &Name, seq: u64) -> Option<Variable> {
        let (name, entry) = self.by_name.get_key_value(name)?;
        Some(shown(name, self.version_at(name, entry, seq)?))
    }

    /// All variables that a reader at `seq` sees, by scope and name.
    pub(crate) fn all_at(&self, seq: u64) -> Vec<Variable> {
        let seen = |(name, entry): (&Arc<Name>, _)| Some(shown(name, self.version_at(name, entry, seq)?));
        self.by_name.iter().filter_map(seen).collect()
    }

    /// Number of records that are in no state image.
    pub(crate) fn changed_records(&self) -> usize {
        self.changed.len()
    }

    /// What is in no state image.
    pub(crate) fn take_changed(&mut self) -> Changed {
        std::mem::take(&mut self.changed)
    }

    /// Gives back what was taken and not stored. What changed since is newer.
    pub(crate) fn give_back_changed(&mut self, mut taken: Changed) {
        taken.append(&mut self.changed);
        self.changed = taken;
    }
}

fn shown(name: &Name, set: &Set) -> Variable {
    let Set { value, seq, time } = set;
    Variable {
        scope: name.scope.clone(),
        name: name.name.clone(),
        value: value.clone(),
        seq: *seq,
        time: *time,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(number: u8) -> Arc<Name> {
        Arc::new(Name::new(&Scope::asset("a"), &format!("v{number}")))
    }

    proptest! {
        /// Readers see what they saw; what was captured is what was there then, also after captures that failed.
        #[test]
        fn readers_and_captures_see_their_values(
            steps in prop::collection::vec(
                (prop::collection::vec((0u8..3, prop::option::of(0i64..3)), 0..4), 0u64..5, 0u8..6),
                1..60,
            ),
        ) {
            let mut variables = Variables::default();
            // What each transaction left, by seq.
            let mut history: Vec<BTreeMap<u8, (i64, u64)>> = vec![BTreeMap::new()];
            let mut stored: BTreeMap<Place, Stored> = BTreeMap::new();
            let mut captured: Option<(Changed, u64)> = None;
            let mut oldest = 0;
            for (seq, (changes, behind, capture)) in (1u64..).zip(steps) {
                let mut now = history.last().unwrap().clone();
                for (number, value) in &changes {
                    match value {
                        Some(value) => drop(now.insert(*number, (*value, seq))),
                        None => drop(now.remove(number)),
                    }
                }
                history.push(now);
                let change = |(number, value): &(u8, Option<i64>)| {
                    Change { name: name(*number), value: value.map(VariableValue::I64) }
                };
                variables.apply(seq, Timestamp(0), changes.iter().map(change).collect(), oldest);
                oldest = oldest.max(seq.saturating_sub(behind));
                while variables.drop_older(oldest) {}
                match (capture, captured.take()) {
                    (0..3, None) => captured = Some((variables.take_changed(), seq)),
                    (0..2, Some((changed, _))) => variables.give_back_changed(changed),
                    (2..4, Some((changed, at))) => {
                        for (place, record) in changed {
                            match record {
                                Some(record) => drop(stored.insert(place, record)),
                                None => drop(stored.remove(&place)),
                            }
                        }
                        let restored = Variables::restored(stored.values().cloned().collect()).unwrap();
                        let shown = restored.all_at(at);
                        prop_assert_eq!(shown.len(), history[at as usize].len());
                        for (variable, (number, (value, seq))) in shown.iter().zip(&history[at as usize]) {
                            prop_assert_eq!(&variable.name, &name(*number).name);
                            prop_assert_eq!((&variable.value, variable.seq), (&VariableValue::I64(*value), *seq));
                        }
                    }
                    (_, kept) => captured = kept,
                }
                for reader in oldest..=seq {
                    for number in 0..3 {
                        let seen = variables.at(&name(number), reader);
                        let expected = history[reader as usize].get(&number);
                        let expected = expected.map(|(value, seq)| (VariableValue::I64(*value), *seq));
                        prop_assert_eq!(seen.map(|seen| (seen.value, seen.seq)), expected);
                    }
                }
                prop_assert_eq!(variables.len(), history.last().unwrap().len());
            }
            while variables.drop_older(u64::MAX) {}
            prop_assert_eq!(variables.by_name.len(), variables.len());
        }
    }
}
