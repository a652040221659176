//! What happens to a database in a cycle.

use std::cell::Cell;

use underbelly::disk::{Calls, Fault, FaultKind};
use underbelly::{
    AliasTarget, Batch, CommitError, Database, Delete, Duplicates, Durability, PStatus, Predicate, ReadError,
    Retention, SchemaError, Timestamp, VariableValue,
};

use super::check::VARIABLES;
use super::desk::{self, DAYS, EXTRAS, KEYS, OTHER, PRODUCERS, SLOTS, SOURCE};
use super::life::Life;
use super::model::{CellName, Doomed, Effect, RowOf};
use super::rules::SERIES;
use super::{Trouble, check, values};
use crate::{counter_slot, one};

/// At how many times rows of a cycle are.
const INSTANTS: u64 = 12;
/// A time that no clock shows.
const FAR_AHEAD: i64 = 1 << 60;
/// The variable that transactions count up.
const COUNTER: u8 = 0;
/// Models that are put.
const MODELS: u64 = 5;
/// Changing calls within which a failure that is ordered comes, at most.
const CALLS_AHEAD: u64 = 60;
/// How often it is waited for what is to be tried again.
const RETRIES: usize = 12;

impl Life {
    /// Some steps, an end, and a recovery.
    pub fn cycle(&mut self) -> Result<(), Trouble> {
        self.tell(|| "cycle".to_string());
        let number = |life: &mut Life, bound| life.numbers.below(bound);
        let after = number(self, CALLS_AHEAD);
        let kind = FaultKind::ALL[number(self, FaultKind::ALL.len() as u64) as usize];
        let fault = match number(self, 10) {
            0..3 => Some(Fault { calls: Calls::Changing, after, kind: FaultKind::Io, sticky: true }),
            3..6 => Some(Fault { calls: Calls::Changing, after, kind, sticky: false }),
            6 => Some(Fault { calls: Calls::Changing, after, kind, sticky: true }),
            _ => None,
        };
        if number(self, 2) == 0 {
            self.attach()?;
            self.order(fault);
        } else {
            self.order(fault);
            self.attach()?;
        }
        if !self.excused {
            self.daemons_come()?;
        }
        let steps = 2 + number(self, 10);
        for _ in 0..steps {
            self.step()?;
            // Most stop at the first failure, as a process would; others go on.
            if self.excused && number(self, 3) > 0 {
                break;
            }
        }
        // The recovery compares all that is durable by then.
        if number(self, 2) == 0 {
            check::snapshot(&self.db()?.snapshot(), &self.model)?;
            self.follow()?;
        }
        for (snapshot, model) in &self.held {
            check::snapshot(snapshot, model)?;
        }
        self.check_readers()?;
        self.crash();
        self.recover()?;
        self.figures.cycles += 1;
        Ok(())
    }

    fn step(&mut self) -> Result<(), Trouble> {
        let passes = [0, 1, 1_000, 60_000_000_000, -5_000][self.numbers.below(5) as usize];
        self.pass(passes)?;
        if self.kinds.works && self.numbers.below(4) == 0 {
            return self.work_step();
        }
        if self.kinds.ages && self.numbers.below(12) == 0 {
            return self.age_model();
        }
        match self.numbers.below(34) {
            32 => self.consume(),
            33 if self.numbers.below(3) == 0 => self.widen(),
            33 => self.name_version(),
            0..8 => self.commit_some(),
            8 => self.commit_large(),
            9 if self.numbers.below(3) == 0 => self.tell_of_model(),
            9 if self.numbers.below(3) == 0 => self.mark_model(),
            9 => self.upload(),
            10 if self.numbers.below(2) == 0 => self.count_up(),
            10..12 => self.transact(),
            12..17 => self.come_to_rest(),
            17..19 => {
                self.checkpoint()?;
                self.look_back()
            }
            19 | 25 => self.define(),
            20 => self.refuse(),
            21 => {
                if self.held.len() < 2 {
                    self.held.push((self.db()?.snapshot(), self.model.clone()));
                }
                Ok(())
            }
            22 if self.numbers.below(2) == 0 => self.reopen(),
            22 => self.commit_some(),
            23 => self.read(),
            24 if self.numbers.below(6) == 0 => self.back_up(),
            24 => self.read_and_fail(),
            26..30 => self.daemon_step(),
            30 => self.look_back(),
            _ => {
                // A disk that failed for a while is sound again.
                if self.excused {
                    self.order(None);
                    self.tell(|| "healed".to_string());
                }
                Ok(())
            }
        }
    }

    /// Defines what the desk needs, and attaches its producers.
    fn attach(&mut self) -> Result<(), Trouble> {
        for name in SLOTS {
            let effects = vec![Effect::Slot(name.to_string())];
            if self.attempt("define", effects, |db| db.define_slot(desk::slot(name)))?.is_none() {
                return Ok(());
            }
        }
        if !self.define_series()? {
            return Ok(());
        }
        let extras = EXTRAS.iter().map(|extra| extra.producer);
        let extras: Vec<_> = extras.filter(|name| self.model.producers.contains(name)).collect();
        for name in PRODUCERS.into_iter().chain(extras) {
            if !self.register(name)? {
                return Ok(());
            }
        }
        if self.kinds.works { self.attach_works() } else { Ok(()) }
    }

    /// Registers and attaches a producer. Answers whether it succeeded.
    fn register(&mut self, name: &'static str) -> Result<bool, Trouble> {
        let before = self.head()?;
        let known = self.model.producers.contains(name);
        let done = desk::register(self.db()?, name, &self.journal);
        if !known && self.head()? > before {
            self.journal.add(before + 1, vec![Effect::Producer(name)]);
        }
        self.settle()?;
        match done {
            Ok(()) => Ok(true),
            Err(error) => self.excuse("register", &error).map(|()| false),
        }
    }

    /// A time at which rows are: later ones in later cycles, and few at a time, so that many rows have the same.
    pub(super) fn instant(&mut self) -> i64 {
        4 * self.figures.cycles as i64 + self.numbers.below(INSTANTS) as i64
    }

    /// Of few values, so that rows are there already, or of many, so that those of others are told apart.
    fn value(&mut self) -> i64 {
        let values = if self.numbers.below(2) == 0 { 4 } else { 1000 };
        self.numbers.below(values) as i64
    }

    fn rows(&mut self, series: &'static str, count: u64) -> Vec<RowOf> {
        // Many rows of which none may be there already: behind all others.
        let rejects =
            self.model.rules.get(series).is_some_and(|rules| rules.duplicates == Duplicates::Reject);
        let fresh = (rejects && count > 8).then(|| 1000 * (1 + self.numbers.below(1000) as i64));
        // By a row that is far ahead it is the clock that counts, so some rows are about where that is.
        let far = (self.numbers.below(50) == 0).then(|| self.numbers.below(count) as i64);
        let is_now = self.numbers.below(20) == 0;
        let row = |life: &mut Life, number: i64| {
            let x = (life.numbers.below(5) > 0).then(|| life.value());
            let texts = series == "trades";
            let y = (texts && life.numbers.below(2) == 0).then(|| format!("y{}", life.numbers.below(3)));
            let (at, key) = (life.instant(), life.numbers.below(3) as u8);
            let at = if is_now { life.time - life.numbers.below(60) as i64 } else { at };
            let at = if far == Some(number) { FAR_AHEAD } else { at };
            match fresh {
                Some(first) => RowOf { at: first + number / 3, key: (number % 3) as u8, x, y },
                None => RowOf { at, key, x, y },
            }
        };
        (0..count as i64).map(|number| row(self, number)).collect()
    }

    fn client_cell(&mut self) -> CellName {
        let (choice, extra) = (self.numbers.below(4), self.numbers.below(EXTRAS.len() as u64) as usize);
        let slot = match choice {
            0 | 1 => SOURCE,
            2 if self.model.slots.contains(EXTRAS[extra].slot) => EXTRAS[extra].slot,
            _ => OTHER,
        };
        let day = self.numbers.below(DAYS.len() as u64) as i32;
        (slot, day, self.numbers.below(KEYS.len() as u64) as u8)
    }

    /// A part of a batch, and what it does.
    fn part(&mut self, batch: &mut Batch, large: bool) -> Result<Effect, Trouble> {
        let log = self.options.log_file_bytes;
        let is_known = |life: &Life, cell: CellName| life.model.slots.contains(cell.0);
        match self.numbers.below(if large { 2 } else { 16 }) {
            0 | 13..16 => {
                let series = SERIES[self.numbers.below(3) as usize];
                let count =
                    if large { log / 80 + self.numbers.below(100) } else { 1 + self.numbers.below(8) };
                let rows = self.rows(series, count);
                rows.iter().try_for_each(|row| batch.append(desk::row_of(series, row)?).map(|_| ()))?;
                Ok(Effect::Rows(series, rows))
            }
            1 => {
                let (model, byte) = (self.numbers.below(MODELS) as u8, self.numbers.below(6) as u8);
                let len = if large { log / 8 + self.numbers.below(log) } else { self.numbers.below(400) };
                let len = len as usize;
                batch.put_model(check::metadata(model), check::blob(byte, len));
                Ok(Effect::Model(model, byte, len))
            }
            2 => {
                let day = self.numbers.below(DAYS.len() as u64) as i32;
                batch.end_of(desk::date(day));
                Ok(Effect::End(day))
            }
            3..8 => {
                let (cell, n) = (self.client_cell(), self.numbers.below(30) as i64);
                if is_known(self, cell) {
                    let rows = one("n", n)?;
                    batch.put_slot(cell.0, desk::date(cell.1), desk::key_of(cell), rows);
                    return Ok(Effect::Put(cell, Some(n)));
                }
                self.part(batch, true)
            }
            8 => self.doom(batch),
            9 => {
                let model = self.numbers.below(MODELS) as u8;
                batch.delete_model(&check::metadata(model))?;
                Ok(Effect::DeleteModel(model))
            }
            10 | 11 => {
                let (number, n) = (self.numbers.below(VARIABLES) as u8, self.numbers.below(9) as i64);
                let (scope, name) = check::variable(number);
                let n = (self.numbers.below(4) > 0).then_some(n);
                match n {
                    Some(n) => batch.set_variable(scope, &name, check::value(number, n)),
                    None => batch.remove_variable(scope, &name),
                };
                Ok(Effect::Variable(number, n))
            }
            _ => {
                let cell = self.client_cell();
                if is_known(self, cell) {
                    batch.retract_slot(cell.0, desk::date(cell.1), desk::key_of(cell));
                    return Ok(Effect::Put(cell, None));
                }
                self.part(batch, true)
            }
        }
    }

    /// Deletes rows of a series that is there.
    fn doom(&mut self, batch: &mut Batch) -> Result<Effect, Trouble> {
        let known = self.model.series.len() as u64;
        let at = self.numbers.below(known) as usize;
        let Some(series) = self.model.series.keys().nth(at).copied() else { return self.part(batch, true) };
        let end = |life: &mut Life| (life.numbers.below(2) == 0).then(|| life.instant());
        let (from, to) = match (end(self), end(self)) {
            (Some(from), Some(to)) => (Some(from.min(to)), Some(from.max(to))),
            ends => ends,
        };
        let has_rows = !self.model.bare.contains(series);
        let key = (self.numbers.below(3) > 0 && has_rows).then(|| self.numbers.below(3) as u8);
        let key_at_most = (self.numbers.below(3) == 0 && has_rows).then(|| self.numbers.below(3) as u8);
        // There each row that a predicate finds is a delete of its own, and the smallest log takes few.
        let resolves = self.model.rules.get(series).is_some_and(|rules| rules.duplicates.resolves());
        let value = self.doomed_value(series);
        let (from, to) = match (key_at_most.is_some() || value.is_some()) && resolves {
            true => {
                let one = self.instant();
                (Some(one), Some(one + 1))
            }
            false => (from, to),
        };
        let mut delete = Delete::all();
        delete = from.map(Timestamp).into_iter().fold(delete, Delete::from);
        delete = to.map(Timestamp).into_iter().fold(delete, Delete::to);
        delete = key.into_iter().fold(delete, |delete, key| delete.key("k", format!("k{key}")));
        let at_most = |key| Predicate::AtMost(format!("k{key}").as_str().into());
        delete = key_at_most.into_iter().fold(delete, |delete, key| delete.filter("k", at_most(key)));
        delete = value.iter().fold(delete, values::filter);
        batch.delete_rows(series, delete);
        Ok(Effect::Delete(Doomed { series, from, to, key, key_at_most, value }))
    }

    /// A batch of a few parts, and what it does.
    pub(super) fn some_batch(&mut self) -> Result<(Batch, Vec<Effect>, Durability), Trouble> {
        let mut batch = Batch::new();
        let parts = 1 + self.numbers.below(4);
        let effects = (0..parts).map(|_| self.part(&mut batch, false)).collect::<Result<Vec<_>, _>>()?;
        let durability = if self.numbers.below(3) == 0 { Durability::Buffered } else { Durability::Sync };
        batch.durability(durability);
        Ok((batch, effects, durability))
    }

    fn commit_some(&mut self) -> Result<(), Trouble> {
        let (batch, effects, durability) = self.some_batch()?;
        self.tell(|| format!("{durability:?} commit {effects:?}"));
        self.commit(durability, batch, effects)
    }

    /// More than the log takes: files beside it.
    fn commit_large(&mut self) -> Result<(), Trouble> {
        let mut batch = Batch::new();
        let mut effects = vec![self.part(&mut batch, true)?];
        if self.numbers.below(2) == 0 {
            effects.push(self.part(&mut batch, false)?);
        }
        self.tell(|| format!("commit {} large parts", effects.len()));
        self.commit(Durability::Sync, batch, effects)
    }

    /// An alias of a model, or how many of its versions are kept; sometimes with a new version, sometimes moved by somebody else
    /// before.
    fn tell_of_model(&mut self) -> Result<(), Trouble> {
        let model = self.numbers.below(MODELS) as u8;
        let (choice, count, puts) =
            (self.numbers.below(4), self.numbers.below(3), self.numbers.below(2) == 0);
        let (mut batch, mut effects) = (Batch::new(), Vec::new());
        if puts {
            batch.put_model(check::metadata(model), check::blob(9, 50));
            effects.push(Effect::Model(model, 9, 50));
        }
        let named = self.model.aliases.get(&model).copied();
        match choice {
            0 => batch.remove_alias(&check::metadata(model), check::ALIAS)?,
            1 => batch.set_retention(&check::metadata(model), Some(Retention::keep_last(count)))?,
            2 => batch.set_alias_if(&check::metadata(model), check::ALIAS, Some(77), AliasTarget::Newest)?,
            _ => batch.set_alias_if(&check::metadata(model), check::ALIAS, named, AliasTarget::Newest)?,
        };
        effects.push(match choice {
            0 => Effect::Alias(model, false),
            1 => Effect::Keep(model, count),
            _ => Effect::Alias(model, true),
        });
        self.tell(|| format!("tell of model: {effects:?}, choice {choice}"));
        let is_there = puts || self.model.models.contains_key(&model);
        if choice == 2 || choice != 0 && !is_there {
            let before = self.head()?;
            let refused = self.db()?.commit(batch);
            if self.head()? != before {
                return Err("what was refused has a seq".into());
            }
            return match refused {
                Err(CommitError::AliasMoved { .. }) if choice == 2 && is_there => Ok(()),
                Err(CommitError::UnknownVersion { .. }) if !is_there => Ok(()),
                Err(error) => self.excuse("tell of a model", &error),
                Ok(_) => Err("an alias moved that should not".into()),
            };
        }
        self.attempt("tell of a model", effects, |db| db.commit(batch)).map(|_| ())
    }

    /// A blob that comes in pieces, ahead of the transaction that puts it, if any does, now and then with other things; now and
    /// then it was put before.
    fn upload(&mut self) -> Result<(), Trouble> {
        let (model, byte) = (self.numbers.below(MODELS) as u8, self.numbers.below(6) as u8);
        let len = self.numbers.below(2 * self.options.log_file_bytes) as usize;
        let (piece, is_put) = (1 + self.numbers.below(40_000) as usize, self.numbers.below(4) > 0);
        let (twice, compressed) = (self.numbers.below(4) == 0, self.numbers.below(3) == 0);
        self.tell(|| format!("upload {len} bytes of {byte} for model {model}, put {is_put}, twice {twice}"));
        let upload = |db: &Database| {
            let mut writer = db.blob_writer().compressed(compressed);
            check::blob(byte, len).chunks(piece).try_for_each(|piece| writer.push(piece))?;
            writer.finish()
        };
        let stored = match (upload(self.db()?), is_put) {
            (Ok(stored), true) => stored,
            (done, _) => {
                self.settle()?;
                return done.map_or_else(|error| self.excuse("upload", &error), |_| Ok(()));
            }
        };
        let (mut batch, mut effects) = (Batch::new(), Vec::new());
        for _ in 0..1 + u64::from(twice) {
            batch.put_model_stored(check::metadata(model), &stored);
            effects.push(Effect::Model(model, byte, len));
        }
        for _ in 0..self.numbers.below(3) {
            effects.push(self.part(&mut batch, false)?);
        }
        self.tell(|| format!("put it with {effects:?}"));
        self.commit(Durability::Sync, batch, effects)
    }

    /// A cell that is read and written, sometimes while another transaction writes it, sometimes for nothing.
    fn transact(&mut self) -> Result<(), Trouble> {
        let cell = self.client_cell();
        if !self.model.slots.contains(cell.0) {
            return Ok(());
        }
        let (conflicts, gives_up) = (self.numbers.below(3) == 0, self.numbers.below(4) == 0);
        let day = desk::date(cell.1);
        let put = |n: i64| -> Result<Batch, CommitError> {
            let mut batch = Batch::new();
            batch.put_slot(cell.0, day, desk::key_of(cell), one("n", n)?);
            Ok(batch)
        };
        self.tell(|| format!("transact {cell:?}, conflict {conflicts}, abandoned {gives_up}"));
        let (before, db, other) = (self.head()?, self.db()?.clone(), put(17)?);
        let (mut other, runs, read) = (conflicts.then_some(other), Cell::new(0), Cell::new(0));
        let done = db.transact(|tx| -> Result<(), CommitError> {
            runs.set(runs.get() + 1);
            let found = tx.slot(cell.0, day, desk::key_of(cell))?;
            let n = found.and_then(|rows| rows.i64s("n").and_then(|n| n.first()).copied()).unwrap_or(-1);
            read.set(n);
            if let Some(other) = other.take() {
                db.commit(other)?;
            }
            if gives_up {
                return Err(CommitError::Abandoned { reason: "no longer wanted".to_string() });
            }
            tx.put_slot(cell.0, day, desk::key_of(cell), one("n", n + 1)?);
            Ok(())
        });
        let known = self.model.content(cell);
        let wrote = [conflicts.then_some(17), (!gives_up).then_some(read.get() + 1)];
        for (seq, n) in (before + 1..=self.head()?).zip(wrote.into_iter().flatten()) {
            self.journal.add(seq, vec![Effect::Put(cell, Some(n))]);
        }
        self.settle()?;
        match done {
            Err(CommitError::Abandoned { .. }) if gives_up => Ok(()),
            Err(error) => self.excuse("transact", &error),
            Ok(()) => {
                let last = if conflicts { Some(17) } else { known };
                let again = u32::from(conflicts && known != Some(17));
                if read.get() != last.unwrap_or(-1) || runs.get() != 1 + again {
                    let (read, runs) = (read.get(), runs.get());
                    return Err(format!("transact read {read} of {last:?} in {runs} runs").into());
                }
                Ok(())
            }
        }
    }

    /// A variable that is read and counted up, and a model that goes with it; sometimes others change the variable
    /// meanwhile, be it to what it is.
    fn count_up(&mut self) -> Result<(), Trouble> {
        let (scope, name) = check::variable(COUNTER);
        let others = [None, Some(None), Some(Some(3))][self.numbers.below(3) as usize];
        let model = self.numbers.below(MODELS) as u8;
        self.tell(|| format!("count up, others {others:?}, without model {model}"));
        let (before, db) = (self.head()?, self.db()?.clone());
        let (mut left, runs, read) = (others, Cell::new(0), Cell::new(None));
        let done = db.transact(|tx| -> Result<(), CommitError> {
            runs.set(runs.get() + 1);
            read.set(match tx.variable(&scope, &name)? {
                Some(VariableValue::I64(n)) => Some(n),
                _ => None,
            });
            if let Some(n) = left.take() {
                let mut other = Batch::new();
                match n {
                    Some(n) => other.set_variable(scope.clone(), &name, n),
                    None => other.remove_variable(scope.clone(), &name),
                };
                db.commit(other)?;
            }
            tx.set_variable(scope.clone(), &name, read.get().unwrap_or(0) + 1);
            tx.delete_model(&check::metadata(model))
        });
        let known = self.model.variables.get(&COUNTER).copied();
        let counted =
            vec![Effect::Variable(COUNTER, Some(read.get().unwrap_or(0) + 1)), Effect::DeleteModel(model)];
        let wrote = others.map(|n| vec![Effect::Variable(COUNTER, n)]).into_iter().chain([counted]);
        for (seq, effects) in (before + 1..=self.head()?).zip(wrote) {
            self.journal.add(seq, effects);
        }
        self.settle()?;
        match done {
            Err(error) => self.excuse("count up", &error),
            Ok(()) => {
                let last = others.unwrap_or(known);
                // To remove what is not there changes nothing.
                let again = u32::from(others.is_some_and(|n| n.is_some() || known.is_some()));
                if read.get() != last || runs.get() != 1 + again {
                    let (read, runs) = (read.get(), runs.get());
                    return Err(format!("count up read {read:?} of {last:?} in {runs} runs").into());
                }
                Ok(())
            }
        }
    }

    /// Whether some work waits to be tried again.
    fn is_waiting(&self) -> Result<bool, Trouble> {
        let producers = self.db()?.producers();
        let mut bundles = producers.iter().flat_map(|producer| &producer.bundles);
        Ok(bundles.any(|(status, count)| *status == PStatus::RetryWait && *count > 0))
    }

    /// Drives until nothing is ready, and looks whether what was made is right.
    fn come_to_rest(&mut self) -> Result<(), Trouble> {
        self.drive_beside_commits()?;
        let mut rested = self.drive()?;
        let mut is_waiting = self.is_waiting()?;
        // What is to be tried again waits for its time; a rejection may follow on another.
        for _ in 0..RETRIES {
            if !(rested && is_waiting) {
                break;
            }
            self.pass(400_000_000_000)?;
            rested = self.drive()?;
            is_waiting = self.is_waiting()?;
        }
        let is_missing = |name: &&str| !self.model.producers.contains(*name);
        let producers = self.db()?.producers();
        if rested
            && !is_waiting
            && producers.iter().all(|found| found.attached || found.definition.daemon)
            && !PRODUCERS.iter().any(is_missing)
        {
            check::at_rest(self.db()?, &self.model, self.time)?;
        }
        if rested { self.check_daemons() } else { Ok(()) }
    }

    /// Defines a slot on the way, or a producer where both its slots are there.
    fn define(&mut self) -> Result<(), Trouble> {
        let extra = &EXTRAS[self.numbers.below(EXTRAS.len() as u64) as usize];
        let is_known = |slot: &str| self.model.slots.contains(slot);
        if is_known(extra.slot) && is_known(extra.made) {
            self.tell(|| format!("register {}", extra.producer));
            return self.register(extra.producer).map(|_| ());
        }
        let name = if self.numbers.below(2) == 0 { extra.slot } else { extra.made };
        self.tell(|| format!("define {name}"));
        let effects = vec![Effect::Slot(name.to_string())];
        self.attempt("define", effects, |db| db.define_slot(desk::slot(name))).map(|_| ())
    }

    /// What must be refused and change nothing.
    fn refuse(&mut self) -> Result<(), Trouble> {
        let before = self.head()?;
        let mut unknown = Batch::new();
        unknown.put_slot("Nowhere", desk::date(0), ["k0"], one("n", 1)?);
        let refused = self.db()?.commit(unknown);
        if !matches!(refused, Err(CommitError::UnknownSlot { .. })) {
            return Err(format!("a slot that there is not is told as {refused:?}").into());
        }
        let mut unknown = Batch::new();
        unknown.delete_rows("nowhere", Delete::all());
        let refused = self.db()?.commit(unknown);
        if !matches!(refused, Err(CommitError::Read(ReadError::UnknownSeries { .. }))) {
            return Err(format!("a series that there is not is told as {refused:?}").into());
        }
        if self.model.variables.contains_key(&COUNTER) {
            let (scope, name) = check::variable(COUNTER);
            let mut other = Batch::new();
            other.set_variable(scope, &name, 0.5);
            match self.db()?.commit(other) {
                Err(CommitError::VariableType { .. }) => {}
                Err(error) => self.excuse("set a variable to another type", &error)?,
                Ok(_) => return Err("a variable has two types".into()),
            }
        }
        if self.model.slots.contains(SOURCE) {
            let other = counter_slot(SOURCE).value("more", underbelly::ColumnType::I64);
            match self.db()?.define_slot(other) {
                Err(SchemaError::Graph(_)) => {}
                Err(error) => return self.excuse("define", &error),
                Ok(()) => return Err("a slot has two definitions".into()),
            }
        }
        if self.head()? == before { Ok(()) } else { Err("what was refused has a seq".into()) }
    }

    /// Closes or drops the database, and opens it again: what was sequenced is all there.
    fn reopen(&mut self) -> Result<(), Trouble> {
        if self.numbers.below(2) == 0 {
            self.tell(|| "close".to_string());
            // Where nothing was committed, the record of the opening is left to the next one.
            let expired = vec![Effect::Expire(self.time)];
            let closed =
                self.attempt_with(Durability::Buffered, "close", expired, |db| db.clone().close())?;
            if closed.as_ref().is_some_and(|report| report.bytes_written > 0)
                && self.model.is_expired(self.time)
                && !self.excused
                && self.disk.struck() == 0
            {
                return Err("a close leaves rows that lie too far behind".into());
            }
            if let Some(report) = closed
                && (report.bytes_written > 0 && self.durable < self.head()? || self.durable < report.seq)
            {
                return Err(format!("the close made {} durable, not {}", self.durable, report.seq).into());
            }
        } else {
            self.tell(|| "drop".to_string());
        }
        let sequenced = self.head()?;
        self.shut();
        let failed = self.excused || self.disk.struck() > 0;
        self.recover()?;
        if !failed && self.durable < sequenced {
            return Err(format!("a sound end lost what is behind seq {} of {sequenced}", self.durable).into());
        }
        self.attach()
    }
}
