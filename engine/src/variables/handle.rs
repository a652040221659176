//! Handles on one variable, of a type that is known.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use underbelly_storage::Timestamp;
use underbelly_storage::page::SharedPage;

use super::board::{BoardReader, Spot, is_full, is_in_use};
use super::catalogue::Name;
use super::cell::{Cell, of_words, to_words, value_words};
use super::registry::{Held, read_value};
use super::value::{Scope, Variable, VariableType, VariableValue};
use crate::batch::{Batch, Row};
use crate::core::{Commit, Core};
use crate::database::Database;
use crate::durability::Durability;
use crate::error::{CommitError, ReadError};
use crate::feed::ENGINES_OWN;
use crate::reader::Reader;
use crate::snapshot::Snapshot;
use crate::transaction::transact;

/// A type that variables hold: `bool`, `i64`, `f64`, `[f64; N]` and `Vec<u8>`.
pub trait VariableKind: Sized {
    /// What a variable of it holds.
    fn variable_type() -> VariableType;

    /// The value as any variable's.
    fn into_value(self) -> VariableValue;

    /// The value, where it is of this type.
    fn of_value(value: &VariableValue) -> Option<Self>;

    #[doc(hidden)]
    fn of_word(_word: u64) -> Option<Self> {
        None
    }
}

macro_rules! kind {
    ($($of:ty => $variant:ident, $word:expr);* $(;)?) => {$(
        impl VariableKind for $of {
            fn variable_type() -> VariableType {
                VariableType::$variant
            }

            fn into_value(self) -> VariableValue {
                VariableValue::$variant(self)
            }

            fn of_value(value: &VariableValue) -> Option<$of> {
                match value {
                    VariableValue::$variant(value) => Some(*value),
                    _ => None,
                }
            }

            #[inline]
            fn of_word(word: u64) -> Option<$of> {
                Some(($word)(word))
            }
        }
    )*};
}

kind! {
    bool => Bool, |word| word != 0;
    i64 => I64, |word| word as i64;
    f64 => F64, f64::from_bits;
}

impl<const N: usize> VariableKind for [f64; N] {
    fn variable_type() -> VariableType {
        VariableType::Array(N)
    }

    fn into_value(self) -> VariableValue {
        VariableValue::Array(Arc::from(self))
    }

    fn of_value(value: &VariableValue) -> Option<[f64; N]> {
        match value {
            VariableValue::Array(values) => (**values).try_into().ok(),
            _ => None,
        }
    }
}

impl VariableKind for Vec<u8> {
    fn variable_type() -> VariableType {
        VariableType::Bytes
    }

    fn into_value(self) -> VariableValue {
        self.into()
    }

    fn of_value(value: &VariableValue) -> Option<Vec<u8>> {
        match value {
            VariableValue::Bytes(bytes) => Some(bytes.to_vec()),
            _ => None,
        }
    }
}

/// A value, and the transaction that set it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Reading<T> {
    /// The value.
    pub value: T,
    /// The transaction; 0 where the variable is in no log.
    pub seq: u64,
    /// Its time.
    pub time: Timestamp,
}

#[inline]
fn get<T: VariableKind>(held: &Held) -> Option<T> {
    let cell = held.cell()?;
    if T::variable_type() == VariableType::Bool
        || T::variable_type() == VariableType::I64
        || T::variable_type() == VariableType::F64
    {
        return T::of_word(cell.word()?);
    }
    T::of_value(&read_value(held).1?.0)
}

fn read<T: VariableKind>(held: &Held) -> (u64, Option<Reading<T>>) {
    let (count, found) = read_value(held);
    let reading =
        found.and_then(|(value, seq, time)| Some(Reading { value: T::of_value(&value)?, seq, time }));
    (count, reading)
}

fn checked(scope: &Scope, name: &str) -> Result<Arc<Name>, ReadError> {
    let name = Name::new(scope, name);
    match name.problem() {
        Some((what, name, problem)) => Err(ReadError::Name { what, name, problem }),
        None => Ok(Arc::new(name)),
    }
}

/// A handle on a variable. Reads are lock-free and cost nanoseconds, more where the value is an array or bytes, which are copied;
/// they show what is visible, as a snapshot taken now does. Made by [`Database::var`]; cheap to clone and to send.
pub struct Var<T> {
    core: Arc<Core>,
    held: Arc<Held>,
    name: Arc<Name>,
    durability: Durability,
    /// The series that gets a row with each value that is set through this handle.
    history: Option<Arc<str>>,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Var<T> {
    fn clone(&self) -> Var<T> {
        Var {
            core: self.core.clone(),
            held: self.held.clone(),
            name: self.name.clone(),
            durability: self.durability,
            history: self.history.clone(),
            of: PhantomData,
        }
    }
}

impl<T: VariableKind> Var<T> {
    /// The value; `None` where the variable is not there, or holds another type by now.
    #[inline]
    pub fn get(&self) -> Option<T> {
        get(&self.held)
    }

    /// The value with the transaction that set it.
    pub fn read(&self) -> Option<Reading<T>> {
        read(&self.held).1
    }

    /// When sets through this handle are answered; `Sync` unless set.
    pub fn durability(mut self, durability: Durability) -> Var<T> {
        self.durability = durability;
        self
    }

    /// Lets each value that is set through this handle become a row of a series too, in the same transaction: at the time of
    /// the clock, with the keys `scope` and `name` and the field `value`; an array's floats are `value0`, `value1` and so on.
    pub fn with_history(mut self, series: &str) -> Var<T> {
        self.history = Some(series.into());
        self
    }

    fn fill(&self, batch: &mut Batch, value: T) -> Result<(), CommitError> {
        let value = value.into_value();
        if let Some(series) = &self.history {
            let row = Row::new(series.clone(), self.core.options.clock.now())
                .key("scope", self.name.scope.to_string())
                .key("name", &*self.name.name);
            batch.append(match &value {
                VariableValue::Bool(value) => row.field("value", *value),
                VariableValue::I64(value) => row.field("value", *value),
                VariableValue::F64(value) => row.field("value", *value),
                VariableValue::Array(values) => {
                    let numbered = values.iter().enumerate();
                    numbered.fold(row, |row, (at, value)| row.field(format!("value{at}"), *value))
                }
                VariableValue::Bytes(bytes) => {
                    row.field("value", underbelly_storage::Value::Bytes(bytes.clone()))
                }
            })?;
        }
        batch.set_variable(self.name.scope.clone(), &self.name.name, value);
        batch.durability(self.durability);
        Ok(())
    }

    /// Sets the value.
    ///
    /// # Errors
    /// As [`Database::commit`]; [`CommitError::VariableType`] where the variable holds another type; [`CommitError::Name`] where
    /// its name begins with `_` and it is no cursor.
    pub fn set(&self, value: T) -> Result<Commit, CommitError> {
        let mut batch = Batch::new();
        self.fill(&mut batch, value)?;
        self.core.commit_here(batch)
    }

    /// Sets the value where the variable holds `expected` until then, or is not there where that is `None`. Answers whether it
    /// did. Floats are compared by their bits.
    ///
    /// # Errors
    /// As [`Database::transact`].
    pub fn compare_and_set(&self, expected: Option<T>, value: T) -> Result<bool, CommitError>
    where
        T: Clone,
    {
        let expected = expected.map(T::into_value);
        let bits = |value: &VariableValue| to_words(value, value.variable_type(), usize::MAX);
        let set = transact(&self.core, |tx| -> Result<bool, CommitError> {
            let found = tx.variable(&self.name.scope, &self.name.name)?;
            let is_same = match (&found, &expected) {
                (Some(found), Some(expected)) => {
                    found.variable_type() == expected.variable_type() && bits(found) == bits(expected)
                }
                (found, expected) => found.is_none() && expected.is_none(),
            };
            if is_same {
                self.fill(tx.batch(), value.clone())?;
            }
            Ok(is_same)
        })?;
        Ok(set.0)
    }

    /// Removes the variable.
    ///
    /// # Errors
    /// As [`Database::commit`].
    pub fn remove(&self) -> Result<Commit, CommitError> {
        let mut batch = Batch::new();
        batch.remove_variable(self.name.scope.clone(), &self.name.name).durability(self.durability);
        self.core.commit_here(batch)
    }

    /// Follows the variable from now on.
    pub fn subscribe(&self) -> Changes<T> {
        let seen = read::<T>(&self.held).0;
        Changes { held: self.held.clone(), waits: Waits::Visible(self.core.clone()), seen, of: PhantomData }
    }
}

/// A handle on a variable that is in no log: it is there as long as the process that made it, and a while longer for those
/// who read it elsewhere. Sets and reads cost nanoseconds. Made by [`Database::unlogged_var`].
pub struct UnloggedVar<T> {
    core: Arc<Core>,
    held: Arc<Held>,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for UnloggedVar<T> {
    fn clone(&self) -> UnloggedVar<T> {
        UnloggedVar { core: self.core.clone(), held: self.held.clone(), of: PhantomData }
    }
}

impl<T: VariableKind> UnloggedVar<T> {
    pub(crate) fn of(core: &Arc<Core>, scope: &Scope, name: &str) -> Result<UnloggedVar<T>, ReadError> {
        let name = checked(scope, name)?;
        if name.name.starts_with('_') {
            let (what, name, problem) = ("variable", name.to_string(), ENGINES_OWN);
            return Err(ReadError::Name { what, name, problem });
        }
        let (found, limit) = (8 * value_words(T::variable_type(), 0), crate::limits::VARIABLE_BYTES_MAX);
        if found > limit {
            return Err(ReadError::VariableSize { variable: name.to_string(), found, limit });
        }
        let held = core.signals.registry.hold_unlogged(&name, T::variable_type());
        let held = held.map_err(|expected| {
            let (variable, found) = (name.to_string(), T::variable_type());
            ReadError::VariableType { variable, expected, found }
        })?;
        Ok(UnloggedVar { core: core.clone(), held, of: PhantomData })
    }

    /// The value; `None` before the first.
    #[inline]
    pub fn get(&self) -> Option<T> {
        get(&self.held)
    }

    /// Sets the value.
    ///
    /// # Errors
    /// [`CommitError::TooLarge`] where bytes are longer than a variable's may be.
    pub fn set(&self, value: T) -> Result<(), CommitError> {
        let value = value.into_value();
        let words = to_words(&value, self.held.variable_type, self.held.value_words);
        let words = words.ok_or(CommitError::TooLarge {
            what: "the value of a variable in bytes",
            found: value.byte_size() as u64,
            limit: crate::limits::VARIABLE_BYTES_MAX as u64,
            remedy: "put it as a model or into a slot",
        })?;
        self.held.set(&words, self.core.options.clock.now());
        self.core.signals.registry.ring();
        Ok(())
    }

    /// Follows the variable from now on.
    pub fn subscribe(&self) -> Changes<T> {
        let seen = read::<T>(&self.held).0;
        Changes { held: self.held.clone(), waits: Waits::Rung(self.core.clone()), seen, of: PhantomData }
    }
}

/// How a change makes itself heard.
enum Waits {
    /// With the visible seq.
    Visible(Arc<Core>),
    /// With the registry's bell.
    Rung(Arc<Core>),
}

/// Follows a variable: the newest value each time, however many there were between. Whoever sets it waits for nobody.
pub struct Changes<T> {
    held: Arc<Held>,
    waits: Waits,
    /// Values that were there when it looked last.
    seen: u64,
    of: PhantomData<fn() -> T>,
}

impl<T> Changes<T> {
    fn core(&self) -> &Arc<Core> {
        let (Waits::Visible(core) | Waits::Rung(core)) = &self.waits;
        core
    }

    /// Whether the database is closed and [`Changes::next`] has given the last value: no other comes.
    pub fn is_over(&self) -> bool {
        self.core().signals.is_over() && self.held.cell().is_none_or(|cell| cell.count() == self.seen)
    }
}

impl<T: VariableKind> Changes<T> {
    /// Waits for a value that was set since the last call, or since the begin; `None` where `timeout` has passed, and at once where
    /// the database is closed ([`Changes::is_over`]). The value inside is `None` where the variable was removed.
    pub fn next(&mut self, timeout: Duration) -> Option<Option<Reading<T>>> {
        // A time beyond the clock's end is no deadline.
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let visible = match &self.waits {
                Waits::Visible(core) => core.signals.visible(),
                Waits::Rung(_) => 0,
            };
            let (count, reading) = read::<T>(&self.held);
            if count != self.seen {
                self.seen = count;
                return Some(reading);
            }
            let left = deadline.map_or(timeout, |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return None;
            }
            if self.core().signals.is_over() {
                return None;
            }
            match &self.waits {
                Waits::Visible(core) => core.signals.wait_visible(visible, left),
                Waits::Rung(core) => {
                    let is_same = || self.held.cell().is_some_and(|cell| cell.count() == self.seen);
                    core.signals.registry.wait(left, || is_same() && !core.signals.is_over());
                }
            }
        }
    }
}

/// A variable as another process shows it: what is durable there, or in no log. Made by [`Reader::var`]. Reads of a value where it
/// was found before are lock-free and cost nanoseconds; the first one, one of what is not there and one behind a change of the
/// writer or of the value's place look for it under a lock that the handles of a reader share. The writer may be gone, then it
/// shows what was there last.
pub struct SharedVar<T> {
    board: Arc<Mutex<BoardReader>>,
    key: (Arc<Name>, bool),
    place: Option<(Arc<SharedPage>, Spot)>,
    /// What the reader showed when the handle was made, and the last transaction of it.
    before: (u64, Option<Variable>),
    of: PhantomData<fn() -> T>,
}

impl<T: VariableKind> SharedVar<T> {
    /// The value; `None` where the variable is not there, or is of another type. Where it has no room among those that are shown so
    /// (half a million or so), or where the process that writes cannot show any, it is what the reader shows since it was
    /// refreshed last, or what an earlier process showed if that is newer.
    #[inline]
    pub fn get(&mut self) -> Option<T> {
        if let Some((cell, spot)) = self.known() {
            if spot.value_words == 1
                && let Some(word) = cell.word()
                && let Some(value) = T::of_word(word)
            {
                return Some(value);
            }
            if let Some(reading) = shared(&cell, spot) {
                return Some(reading.value);
            }
        }
        self.look()
    }

    /// Looks for the variable anew: it may have moved, or another process writes by now.
    #[cold]
    fn look(&mut self) -> Option<T> {
        self.find().map(|reading| reading.value)
    }

    /// The value with the transaction that set it.
    pub fn read(&mut self) -> Option<Reading<T>> {
        let reading = self.known().and_then(|(cell, spot)| shared(&cell, spot));
        reading.or_else(|| self.find())
    }

    /// The cell in the place where the variable was found last, unless another process writes by now.
    #[inline]
    fn known(&self) -> Option<(Cell<'_>, &Spot)> {
        let (page, spot) = self.place.as_ref()?;
        let is_known = is_in_use(page.words()) && spot.variable_type == T::variable_type();
        is_known.then(|| Some((cell_at(page, spot)?, spot)))?
    }

    fn find(&mut self) -> Option<Reading<T>> {
        let (page, place, own) = {
            let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
            let page = board.page().ok().flatten();
            // What is in no log went with its writer.
            let place = board.last_spot(&self.key).filter(|_| self.key.1 || page.is_some());
            (page, place, board.own.upgrade())
        };
        let cell = place.as_ref().and_then(|(page, spot)| Some((cell_at(page, spot)?, spot)));
        let found = cell.as_ref().and_then(|(cell, spot)| shared(cell, spot));
        // The writer keeps what has a place as it is.
        let is_told = page.is_some_and(|page| found.is_some() || !is_full(page.words()));
        if self.key.1 && !is_told {
            // Between two writers the older one's may be right, and what has no room stands in the log alone.
            let snapshot = own.as_ref().map(Snapshot::now);
            let (seq, variable) = match &snapshot {
                Some(own) => (own.seq(), own.variable(&self.key.0.scope, &self.key.0.name).ok()?),
                None => self.before.clone(),
            };
            if cell.and_then(|(cell, _)| cell.changed()).is_none_or(|changed| changed <= seq) {
                let variable = variable?;
                let value = T::of_value(&variable.value)?;
                return Some(Reading { value, seq: variable.seq, time: variable.time });
            }
        }
        self.place = place;
        found
    }
}

#[inline]
fn cell_at<'p>(page: &'p SharedPage, spot: &Spot) -> Option<Cell<'p>> {
    page.words().get(spot.at..).and_then(|words| Cell::new(words, spot.value_words))
}

fn shared<T: VariableKind>(cell: &Cell<'_>, spot: &Spot) -> Option<Reading<T>> {
    let mut words = vec![0; spot.value_words];
    let (seq, time) = cell.read(&mut words).1?;
    Some(Reading { value: T::of_value(&of_words(&words, spot.variable_type)?)?, seq, time })
}

impl Database {
    /// A handle on a variable, which need not be there yet.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use underbelly::{Database, Options, Scope, SimulatedDisk};
    /// # let db = Database::create_on(Arc::new(SimulatedDisk::new()), Options::default())?;
    /// let lag = db.var::<f64>(&Scope::asset("IBM"), "lag")?;
    /// lag.set(0.25)?;
    /// assert_eq!(lag.get(), Some(0.25));
    /// assert!(lag.compare_and_set(Some(0.25), 0.5)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ReadError::Name`] where no variable may have such a scope or name; [`ReadError::VariableType`] where it holds another
    /// type.
    pub fn var<T: VariableKind>(&self, scope: &Scope, name: &str) -> Result<Var<T>, ReadError> {
        let (core, name) = (self.core(), checked(scope, name)?);
        if let Some(found) = self.variable(scope, &name.name)?.map(|variable| variable.value.variable_type())
            && found != T::variable_type()
        {
            let variable = name.to_string();
            return Err(ReadError::VariableType { variable, expected: found, found: T::variable_type() });
        }
        let current = |shown: u64| {
            let snapshot = core.view.snapshot();
            let state = core.state();
            state.variables.set_at(&name, snapshot.seq().max(shown))
        };
        let held = core.signals.registry.hold(&name, T::variable_type(), current);
        let (core, durability) = (core.clone(), Durability::Sync);
        Ok(Var { core, held, name, durability, history: None, of: PhantomData })
    }

    /// A handle on a variable that is in no log, for what changes too often to be kept: progress, gauges, the newest price.
    /// It has nothing to do with one of the same name that is in the log.
    ///
    /// # Errors
    /// [`ReadError::Name`], also where the name begins with `_`; [`ReadError::VariableType`] where this process has one of
    /// another type under that name; [`ReadError::VariableSize`] for an array that is longer than variables may be.
    pub fn unlogged_var<T: VariableKind>(
        &self,
        scope: &Scope,
        name: &str,
    ) -> Result<UnloggedVar<T>, ReadError> {
        UnloggedVar::of(self.core(), scope, name)
    }
}

impl Reader {
    /// A handle on a variable of the log as another process shows it, ahead of what this reader shows until it is refreshed.
    ///
    /// # Errors
    /// [`ReadError::Name`].
    pub fn var<T: VariableKind>(&self, scope: &Scope, name: &str) -> Result<SharedVar<T>, ReadError> {
        let name = checked(scope, name)?;
        let snapshot = self.snapshot();
        let before = (snapshot.seq(), snapshot.variable(scope, &name.name)?);
        Ok(SharedVar { board: self.board.clone(), key: (name, true), place: None, before, of: PhantomData })
    }

    /// A handle on a variable that is in no log, as another process shows it.
    ///
    /// # Errors
    /// [`ReadError::Name`].
    pub fn unlogged_var<T: VariableKind>(
        &self,
        scope: &Scope,
        name: &str,
    ) -> Result<SharedVar<T>, ReadError> {
        let key = (checked(scope, name)?, false);
        Ok(SharedVar { board: self.board.clone(), key, place: None, before: (0, None), of: PhantomData })
    }

    /// Scopes, names and values of the variables that are in no log, as the process that writes shows them now.
    pub fn unlogged_variables(&self) -> Vec<(Scope, Arc<str>, VariableValue)> {
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(Some(page)) = board.page() else { return Vec::new() };
        let mut shown = Vec::new();
        for ((name, is_logged), spot) in board.keys() {
            let cell = cell_at(&page, &spot);
            let mut words = vec![0; spot.value_words];
            if is_logged || cell.is_none_or(|cell| cell.read(&mut words).1.is_none()) {
                continue;
            }
            let value = of_words(&words, spot.variable_type);
            shown.extend(value.map(|value| (name.scope.clone(), name.name.clone(), value)));
        }
        shown.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        shown
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::bounded;

    use super::*;
    use crate::options::Options;

    /// Whoever lists the variables, or looks for one, holds nobody up who reads what he found before.
    #[test]
    fn reads_of_another_process_take_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        let db = Database::create_with(dir.path().join("db"), Options::default()).unwrap();
        let (number, array) = (db.var(&Scope::Global, "n").unwrap(), db.var(&Scope::Global, "a").unwrap());
        number.set(1.5).unwrap();
        array.set([2.5; 20]).unwrap();
        let reader = Database::open_read_only(dir.path().join("db")).unwrap();
        let mut number = reader.var::<f64>(&Scope::Global, "n").unwrap();
        let mut array = reader.var::<[f64; 20]>(&Scope::Global, "a").unwrap();
        assert_eq!((number.get(), array.get()), (Some(1.5), Some([2.5; 20])));
        let board = reader.board.lock().unwrap();
        let (tells, told) = bounded(1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let values = (number.get(), array.get());
                let readings = (number.read().map(|r| r.value), array.read().map(|r| r.value));
                tells.send((values, readings)).unwrap();
            });
            let told = told.recv_timeout(Duration::from_secs(30));
            drop(board);
            let both = (Some(1.5), Some([2.5; 20]));
            assert_eq!(told, Ok((both, both)));
        });
    }
}
