//! Work in batches and by command, inputs that need not be there or must not, and a slot of models.
//!
//! Of each bundle the model knows how it ended last and which generations it had read then; so it knows whether there is work,
//! and whether that is there is compared after each recovery. A life in four has this: it takes time.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use underbelly::{
    Batch, ColumnType, CommitError, Database, Failure, GraphError, Input, Outputs, PStatus,
    ProducerDefinition, Run, SchemaError, SlotDefinition, Snapshot, State, Value,
};

use super::desk::{self, DERIVED, row_of};
use super::life::{Journal, Life};
use super::model::{CellName, Effect, Model, RowOf};
use super::{Trouble, check};
use crate::{counter_slot, one};

/// Written by clients.
const PART: &str = "Part";
/// Written by clients, too: it need not be there.
const SPARE: &str = "Spare";
/// Made of both in batches.
const WORK: &str = "Work";
/// Written by clients: where it is there, [`WORSE`] is not made.
const BETTER: &str = "Better";
/// Made of [`PART`].
const WORSE: &str = "Worse";
/// A slot of models.
pub(super) const SCALER: &str = "s";
/// Made of them.
const SCORE: &str = "Score";
/// Models that are its cells, which are their keys, too.
pub(super) const SCALERS: Range<u8> = 5..8;
/// Keys of the others.
const KEYS: Range<u8> = 0..3;
/// The number that kills the batch that it is in.
const DEADLY: i64 = 13;
/// How long a bundle waits for others.
const WAIT: Duration = Duration::from_secs(90);
/// Bytes of the smallest log whose records hold the ends of a whole batch.
const LOG_BYTES: u64 = 32 << 10;
/// How often it is waited for what waits for others, or is to be tried again.
const WAITS: usize = 8;

/// A producer.
struct Maker {
    name: &'static str,
    needs: &'static str,
    /// What need not be there, or must not.
    other: Option<&'static str>,
    is_exclusive: bool,
    makes: &'static str,
}

const MAKERS: [Maker; 3] = [
    Maker { name: "work", needs: PART, other: Some(SPARE), is_exclusive: false, makes: WORK },
    Maker { name: "fallback", needs: PART, other: Some(BETTER), is_exclusive: true, makes: WORSE },
    Maker { name: "score", needs: SCALER, other: None, is_exclusive: false, makes: SCORE },
];

impl Maker {
    fn keys(&self) -> Range<u8> {
        if self.needs == SCALER { SCALERS } else { KEYS }
    }

    fn definition(&self) -> ProducerDefinition {
        let new = ProducerDefinition::new(self.name).requires(self.needs).provides(self.makes);
        let new = self.other.into_iter().fold(new, |new, slot| {
            new.input(if self.is_exclusive { Input::exclusive(slot) } else { Input::optional(slot) })
        });
        if self.name == "work" { new.independent(2, WAIT).max_batch(3) } else { new }
    }
}

/// What becomes of a number.
enum Made {
    Number(i64),
    Nothing,
    Failure,
}

fn made(maker: &Maker, n: i64, other: Option<i64>) -> Made {
    match n {
        DEADLY if maker.name == "work" => Made::Failure,
        n if maker.needs != SCALER && n % 7 == 3 => Made::Failure,
        n if n % 7 == 5 => Made::Nothing,
        n => Made::Number(3 * n + other.unwrap_or(100)),
    }
}

/// What is done by command, and ends of runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A run of a producer for a key ends for now.
    Ended(&'static str, u8, PStatus),
    /// A bundle is to run again.
    Force(&'static str, u8),
    /// A bundle is not to run until something changes.
    Cancel(&'static str, u8),
    /// A producer is taken out.
    Deregister(&'static str),
}

/// A producer, and a key.
type Bundle = (&'static str, u8);
/// How a bundle ended, and the generations of its inputs that it had read.
type Ended = (PStatus, [Option<u64>; 2]);

/// What is known of the bundles of these producers.
#[derive(Clone, Debug, Default)]
pub struct Works {
    /// How each ended last.
    ended: BTreeMap<Bundle, Ended>,
    forced: BTreeSet<Bundle>,
    /// Data of producers that were taken out: it stays until other comes.
    orphans: BTreeSet<Bundle>,
}

impl Model {
    /// The generation of a cell that is there.
    fn generation(&self, slot: &'static str, key: u8) -> Option<u64> {
        self.cells.get(&(slot, 0, key)).filter(|(content, _)| content.is_some()).map(|cell| cell.1)
    }

    fn read(&self, maker: &Maker, key: u8) -> [Option<u64>; 2] {
        // An exclusive input is read as not there.
        let other = maker.other.filter(|_| !maker.is_exclusive);
        [self.generation(maker.needs, key), other.and_then(|slot| self.generation(slot, key))]
    }

    /// How the bundle stands: `Ready` where it is to run; `None` where it may not.
    fn stands(&self, maker: &Maker, key: u8) -> Option<PStatus> {
        let is_forbidden =
            maker.is_exclusive && maker.other.is_some_and(|slot| self.generation(slot, key).is_some());
        if is_forbidden || self.generation(maker.needs, key).is_none() {
            return None;
        }
        let ended = self.works.ended.get(&(maker.name, key));
        let agrees = ended.filter(|ended| ended.1 == self.read(maker, key));
        let is_forced = self.works.forced.contains(&(maker.name, key));
        Some(agrees.filter(|_| !is_forced).map_or(PStatus::Ready, |ended| ended.0))
    }

    fn end(
        &mut self,
        name: &'static str,
        key: u8,
        how: PStatus,
    ) -> Result<Option<(CellName, Option<i64>)>, String> {
        let Some(maker) = MAKERS.iter().find(|maker| maker.name == name) else { return Ok(None) };
        if how != PStatus::Cancelled && self.stands(maker, key) != Some(PStatus::Ready) {
            return Err(format!(
                "{name} has run for key {key}, for which it was {:?}",
                self.stands(maker, key)
            ));
        }
        let read = self.read(maker, key);
        self.works.ended.insert((name, key), (how, read));
        self.works.forced.remove(&(name, key));
        if how == PStatus::Done {
            self.works.orphans.remove(&(name, key));
        }
        let is_gone = how == PStatus::Declined && !self.works.orphans.contains(&(name, key));
        Ok(is_gone.then_some(((maker.makes, 0, key), None)))
    }

    /// Makes such a change; answers a cell that it empties.
    pub(super) fn change(&mut self, change: Change) -> Result<Option<(CellName, Option<i64>)>, String> {
        match change {
            Change::Ended(name, key, how) => return self.end(name, key, how),
            Change::Cancel(name, key) => return self.end(name, key, PStatus::Cancelled),
            Change::Force(name, key) => drop(self.works.forced.insert((name, key))),
            Change::Deregister(name) => {
                self.producers.remove(name);
                let maker = MAKERS.iter().find(|maker| maker.name == name);
                let given =
                    maker.into_iter().flat_map(|maker| maker.keys().map(move |key| (maker.makes, key)));
                let given = given.filter(|(slot, key)| self.generation(slot, *key).is_some());
                let given: Vec<u8> = given.map(|(_, key)| key).collect();
                self.works.orphans.extend(given.into_iter().map(|key| (name, key)));
                self.works.ended.retain(|(of, _), _| *of != name);
                self.works.forced.retain(|(of, _)| *of != name);
            }
        }
        Ok(None)
    }
}

/// A blob as a number.
fn number_of(byte: u8, len: usize) -> i64 {
    1000 * i64::from(byte) + len as i64
}

/// The cell that a model is; it says the newest version, since its slot is there before all of them.
pub(super) fn cell_of(model: u8) -> Option<CellName> {
    SCALERS.contains(&model).then_some((SCALER, 0, model))
}

/// What a version gives its cell.
pub(super) fn given(model: u8, byte: u8, len: usize) -> Option<(CellName, Option<i64>)> {
    cell_of(model).map(|cell| (cell, Some(number_of(byte, len))))
}

fn key_of(slot: &str, key: u8) -> Value {
    if [SCALER, SCORE].contains(&slot) { Value::I64(key.into()) } else { format!("k{key}").as_str().into() }
}

fn slot(name: &str) -> SlotDefinition {
    match name {
        SCALER => SlotDefinition::models(SCALER).cell_key("number", ColumnType::I64),
        SCORE => SlotDefinition::new(SCORE).cell_key("number", ColumnType::I64).value("n", ColumnType::I64),
        name => counter_slot(name),
    }
}

/// Shows each cell with its generation.
pub(super) fn cells(snapshot: &Snapshot, model: &Model) -> Result<(), Trouble> {
    for slot in
        [PART, SPARE, WORK, BETTER, WORSE, SCALER, SCORE].into_iter().filter(|s| model.slots.contains(*s))
    {
        for key in if [SCALER, SCORE].contains(&slot) { SCALERS } else { KEYS } {
            let found = snapshot.slot(slot, desk::date(0), [key_of(slot, key)])?;
            let found = match found {
                Some(cell) if slot == SCALER => {
                    let said = snapshot.slot_model(slot, desk::date(0), [key_of(slot, key)])?;
                    let blob = said.map(|said| said.blob()).transpose()?;
                    let n = blob.and_then(|blob| Some(number_of(*blob.first()?, blob.len())));
                    Some((n, cell.generation))
                }
                Some(cell) => Some((cell.rows.i64s("n").and_then(|n| n.first()).copied(), cell.generation)),
                None => None,
            };
            let (content, generation) = model.cells.get(&(slot, 0, key)).copied().unwrap_or_default();
            if found != content.map(|n| (Some(n), generation)) {
                let at = snapshot.seq();
                return Err(
                    format!("seq {at}: {slot} {key} is {found:?}, not {content:?} g{generation}").into()
                );
            }
        }
    }
    Ok(())
}

/// How many bundles have work, and how those ended that have none.
pub(super) fn compare(db: &Database, model: &Model) -> Result<(), Trouble> {
    if !model.slots.contains(PART) {
        return Ok(());
    }
    let summaries = db.producers();
    for maker in MAKERS.iter().filter(|maker| model.producers.contains(maker.name)) {
        let Some(found) = summaries.iter().find(|found| found.definition.name == maker.name) else {
            continue;
        };
        let as_counted = |status: PStatus| match status {
            PStatus::Notified | PStatus::Processing | PStatus::RetryWait => PStatus::Ready,
            status => status,
        };
        let mut shown = BTreeMap::new();
        for (status, count) in found.bundles.iter().filter(|(status, count)| {
            // Those of which a cell is not there, or was not when they were to be made.
            *status != PStatus::Parked && *count > 0
        }) {
            *shown.entry(as_counted(*status)).or_insert(0) += count;
        }
        // What was cut off by three ends of its process in a row has failed, which nobody else knows.
        let is_cut_off = |key: u8| {
            let why = db.why(maker.makes, desk::date(0), [key_of(maker.makes, key)]);
            why.is_ok_and(|why| why.to_string().contains("times in a row"))
        };
        let mut expected = BTreeMap::new();
        let mut forbidden = 0;
        for key in maker.keys() {
            match model.stands(maker, key) {
                Some(PStatus::Ready) if is_cut_off(key) => *expected.entry(PStatus::Failed).or_insert(0) += 1,
                Some(status) => *expected.entry(status).or_insert(0) += 1,
                None => forbidden += 1,
            }
        }
        // Of a producer that is detached work is told that may not start, too.
        let shown_ready = shown.get(&PStatus::Ready).copied().unwrap_or(0);
        let ready: u64 = expected.get(&PStatus::Ready).copied().unwrap_or(0);
        if !found.attached && (ready..=ready + forbidden).contains(&shown_ready) {
            shown.remove(&PStatus::Ready);
            expected.remove(&PStatus::Ready);
        }
        if shown != expected {
            return Err(format!("bundles of {} are {shown:?}, not {expected:?}", maker.name).into());
        }
    }
    Ok(())
}

fn number(run: &Run, maker: &Maker) -> Result<(i64, Option<i64>), Failure> {
    if maker.needs == SCALER {
        let model = run.model(SCALER)?;
        let blob = model.blob()?;
        return Ok((number_of(blob.first().copied().unwrap_or_default(), blob.len()), None));
    }
    let first = |rows: &underbelly::Columns| rows.i64s("n").and_then(|n| n.first()).copied();
    let n = first(&run.input(maker.needs)?).unwrap_or_default();
    let other = match maker.other.filter(|_| !maker.is_exclusive) {
        Some(slot) => run.optional(slot)?.and_then(|rows| first(&rows)),
        None => None,
    };
    Ok((n, other))
}

fn key_of_run(run: &Run) -> u8 {
    match (run.key("name"), run.key("number")) {
        (_, Some(Value::I64(number))) => *number as u8,
        (Some(name), _) => name.as_str().and_then(|name| name.strip_prefix('k')?.parse().ok()).unwrap_or(0),
        _ => 0,
    }
}

/// What a run gives, and what that does.
fn give(run: &Run, maker: &Maker) -> (Result<Outputs, Failure>, Vec<Effect>) {
    let (name, key) = (maker.name, key_of_run(run));
    let mut effects = vec![Effect::Run(name)];
    let mut end = |how, n| {
        effects.push(Effect::Works(Change::Ended(name, key, how)));
        effects.extend(n);
    };
    let cell = (maker.makes, 0, key);
    let given = number(run, maker).and_then(|(n, other)| match made(maker, n, other) {
        Made::Number(n) => {
            end(PStatus::Done, Some(Effect::Put(cell, Some(n))));
            Ok(Outputs::new().put(maker.makes, one("n", n)?))
        }
        Made::Nothing => {
            end(PStatus::Declined, None);
            Err(Failure::declined("not worth it"))
        }
        Made::Failure => {
            end(PStatus::Failed, None);
            Err(Failure::Fatal("cannot be done".to_string()))
        }
    });
    (given, effects)
}

/// A row of another series for each that gave data, so that each ends by itself.
fn give_row(run: &Run, given: &mut (Result<Outputs, Failure>, Vec<Effect>)) -> Result<(), Failure> {
    let row = RowOf { at: 7, key: key_of_run(run), x: Some(1), y: None };
    if let Ok(outputs) = &given.0 {
        given.0 = Ok(outputs.clone().append(row_of(DERIVED, &row)?)?);
        given.1.push(Effect::Rows(DERIVED, vec![row]));
    }
    Ok(())
}

impl Life {
    /// Notes whether no call can fail, so that it is known which runs end together.
    pub(super) fn note_soundness(&self) {
        let is_sound = !self.is_ordered && !self.excused && self.options.log_file_bytes >= LOG_BYTES;
        self.joins_ends.store(is_sound, Ordering::Relaxed);
    }

    /// Defines the slots, and attaches the producers.
    pub(super) fn attach_works(&mut self) -> Result<(), Trouble> {
        for name in [PART, SPARE, WORK, BETTER, WORSE, SCALER, SCORE] {
            let effects = vec![Effect::Slot(name.to_string())];
            if !self.model.slots.contains(name)
                && self.attempt("define", effects, |db| db.define_slot(slot(name)))?.is_none()
            {
                return Ok(());
            }
        }
        for maker in &MAKERS {
            if !self.register_maker(maker)? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn register_maker(&mut self, maker: &'static Maker) -> Result<bool, Trouble> {
        let (journal, joins_ends) = (self.journal.clone(), self.joins_ends.clone());
        let (before, is_known) = (self.head()?, self.model.producers.contains(maker.name));
        let batches = self.batches.clone();
        let done = match maker.name {
            "work" => self.db()?.register_batch(maker.definition(), move |runs: &[Run]| {
                batches.fetch_add(u64::from(runs.len() > 1), Ordering::Relaxed);
                work(runs, maker, &journal, joins_ends.load(Ordering::Relaxed))
            }),
            _ => self.db()?.register(maker.definition(), move |run: &Run| {
                let (given, effects) = give(run, maker);
                // A start and an end: the log lies still between them, since nobody else commits.
                journal.add(run.snapshot().seq() + 2, effects);
                given
            }),
        };
        if !is_known && self.head()? > before {
            self.journal.add(before + 1, vec![Effect::Producer(maker.name)]);
        }
        self.settle()?;
        match done {
            Ok(()) => Ok(true),
            Err(error) => self.excuse("register", &error as &SchemaError).map(|()| false),
        }
    }

    /// Cells, models, commands, or rest.
    pub(super) fn work_step(&mut self) -> Result<(), Trouble> {
        if !self.model.slots.contains(SCORE) {
            return Ok(());
        }
        // Ends of runs that the disk refused come first: they tell of what these had read, and not of what is put next.
        if !self.unfinished.is_empty() {
            return self.drive().map(|_| ());
        }
        match self.numbers.below(12) {
            0..4 => self.put_parts(),
            4 | 5 => self.put_scalers(),
            6..9 => self.command(),
            9 if self.numbers.below(3) == 0 => self.take_out(),
            _ => self.rest_from_work(),
        }
    }

    fn put_parts(&mut self) -> Result<(), Trouble> {
        let (mut batch, mut effects) = (Batch::new(), Vec::new());
        for _ in 0..1 + self.numbers.below(4) {
            let slot = [PART, PART, SPARE, BETTER][self.numbers.below(4) as usize];
            let (key, n) = (self.numbers.below(KEYS.end.into()) as u8, self.numbers.below(16) as i64);
            let n = (self.numbers.below(4) > 0).then_some(n);
            match n {
                Some(n) => batch.put_slot(slot, desk::date(0), [key_of(slot, key)], one("n", n)?),
                None => batch.retract_slot(slot, desk::date(0), [key_of(slot, key)]),
            };
            effects.push(Effect::Put((slot, 0, key), n));
        }
        self.tell(|| format!("parts: {effects:?}"));
        self.attempt("put parts", effects, |db| db.commit(batch)).map(|_| ())
    }

    fn put_scalers(&mut self) -> Result<(), Trouble> {
        let (mut batch, mut effects) = (Batch::new(), Vec::new());
        for _ in 0..1 + self.numbers.below(2) {
            let model = SCALERS.start + self.numbers.below(SCALERS.len() as u64) as u8;
            let (byte, len) = (self.numbers.below(3) as u8, 1 + self.numbers.below(2) as usize);
            if self.numbers.below(4) == 0 {
                batch.delete_model(&check::metadata(model))?;
                effects.push(Effect::DeleteModel(model));
                break;
            }
            batch.put_model(check::metadata(model), check::blob(byte, len));
            effects.push(Effect::Model(model, byte, len));
        }
        self.tell(|| format!("models that are cells: {effects:?}"));
        self.figures.scalers += effects.len() as u64;
        self.attempt("put models that are cells", effects, |db| db.commit(batch)).map(|_| ())
    }

    /// Forces or cancels a bundle, rather what has been done and what has work.
    fn command(&mut self) -> Result<(), Trouble> {
        let model = &self.model;
        let there = |maker: &&'static Maker| model.producers.contains(maker.name);
        let of = |maker: &'static Maker| {
            maker.keys().filter_map(move |key| Some((maker, key, model.stands(maker, key)?)))
        };
        let all: Vec<_> = MAKERS.iter().filter(there).flat_map(of).collect();
        let (at, is_other) = (self.numbers.below(all.len() as u64), self.numbers.below(4) == 0);
        // Of a run whose end the disk refused nobody knows when that comes.
        let Some((maker, key, stands)) = all.get(at as usize).filter(|_| self.unfinished.is_empty()) else {
            return Ok(());
        };
        let (key, stands, forces) = (*key, *stands, (*stands == PStatus::Ready) == is_other);
        let (name, date, key_value) = (maker.name, desk::date(0), key_of(maker.needs, key));
        self.tell(|| format!("force {forces} or cancel {name} {key}, which is {stands}"));
        if forces {
            self.figures.commands[0] += 1;
            let effects = vec![Effect::Works(Change::Force(name, key))];
            return self.attempt("force", effects, |db| db.force(name, date, [key_value])).map(|_| ());
        }
        if stands == PStatus::Ready {
            self.figures.commands[1] += 1;
            let effects = vec![Effect::Works(Change::Cancel(name, key))];
            return self
                .attempt("cancel", effects, |db| db.cancel(name, date, [key_value], "no need"))
                .map(|_| ());
        }
        let before = self.head()?;
        let refused = self.db()?.cancel(name, date, [key_value], "no need");
        if self.head()? != before {
            return Err(format!("{name} {key} is {stands}, and is cancelled").into());
        }
        match refused {
            Err(CommitError::Graph(GraphError::NothingToCancel { status, .. })) if status == stands => Ok(()),
            Err(error) => self.excuse("cancel what has no work", &error),
            Ok(_) => Err(format!("{name} {key} is {stands}, and something of it is cancelled").into()),
        }
    }

    /// Takes a producer out. It comes back at once, or with the next opening.
    fn take_out(&mut self) -> Result<(), Trouble> {
        let maker = &MAKERS[self.numbers.below(MAKERS.len() as u64) as usize];
        let comes_back = self.numbers.below(2) == 0;
        if !self.model.producers.contains(maker.name) || !self.unfinished.is_empty() {
            return Ok(());
        }
        self.tell(|| format!("{} is taken out, comes back {comes_back}", maker.name));
        self.figures.commands[2] += 1;
        let effects = vec![Effect::Works(Change::Deregister(maker.name))];
        let done = self.attempt("take out", effects, |db| db.deregister(maker.name))?;
        if done.is_some() && comes_back { self.register_maker(maker).map(|_| ()) } else { Ok(()) }
    }

    /// Drives until nothing is left to do, and looks at what was made.
    fn rest_from_work(&mut self) -> Result<(), Trouble> {
        let mut rested = self.drive()?;
        for _ in 0..WAITS {
            let has_work = MAKERS
                .iter()
                .any(|maker| maker.keys().any(|key| self.model.stands(maker, key) == Some(PStatus::Ready)));
            if !rested || !has_work {
                break;
            }
            self.pass(400_000_000_000)?;
            rested = self.drive()?;
        }
        let producers = self.db()?.producers();
        let is_there = |maker: &&Maker| {
            producers.iter().any(|found| found.definition.name == maker.name && found.attached)
        };
        if !rested || self.excused {
            return Ok(());
        }
        compare(self.db()?, &self.model)?;
        let snapshot = self.db()?.snapshot();
        for maker in MAKERS.iter().filter(is_there) {
            for key in maker.keys() {
                let Some(stands) = self.model.stands(maker, key) else { continue };
                let n = self.model.content((maker.needs, 0, key)).unwrap_or_default();
                let other = maker.other.filter(|_| !maker.is_exclusive);
                let other = other.and_then(|slot| self.model.content((slot, 0, key)));
                let content = self.model.content((maker.makes, 0, key));
                let cell = snapshot.slot(maker.makes, desk::date(0), [key_of(maker.makes, key)])?;
                let state = cell.map(|cell| cell.info.state);
                let is_orphan = self.model.works.orphans.contains(&(maker.name, key));
                let is_right = match (stands, made(maker, n, other)) {
                    (PStatus::Cancelled, _)
                    | (PStatus::Failed, Made::Failure)
                    | (PStatus::Declined, Made::Nothing)
                        if is_orphan =>
                    {
                        content.is_some()
                    }
                    (PStatus::Cancelled, _) | (PStatus::Failed, Made::Failure) => {
                        state.is_none_or(|state| state == State::Invalid)
                    }
                    (PStatus::Declined, Made::Nothing) => content.is_none(),
                    (PStatus::Done, Made::Number(n)) => content == Some(n) && state == Some(State::Current),
                    _ => false,
                };
                if !is_right {
                    let why = self.db()?.why(maker.makes, desk::date(0), [key_of(maker.makes, key)]);
                    let why = why.map_or_else(|error| error.to_string(), |why| why.to_string());
                    let (name, made) = (maker.name, maker.makes);
                    return Err(format!(
                        "at rest {name} {key} is {stands}, and {made} of {n} and {other:?} is {content:?} and \
                         {state:?}:\n{why}"
                    )
                    .into());
                }
            }
        }
        Ok(())
    }
}

/// What a batch gives. Where none of it may fail, its runs that gave cells alone end together, ahead of the others; else each
/// that gave data gives a row, too, and all end one after another.
fn work(
    runs: &[Run],
    maker: &Maker,
    journal: &Journal,
    joins_ends: bool,
) -> Result<Vec<Result<Outputs, Failure>>, Failure> {
    let Some(first) = runs.first() else { return Ok(Vec::new()) };
    // One start, and what follows.
    let mut seqs = first.snapshot().seq() + 2..;
    let mut add =
        |effects: Vec<Effect>| seqs.next().into_iter().for_each(|seq| journal.add(seq, effects.clone()));
    let is_deadly = |run: &Run| number(run, maker).is_ok_and(|(n, _)| n == DEADLY);
    if runs.len() > 1 && runs.iter().any(is_deadly) {
        runs.iter().for_each(|_| add(vec![Effect::Run(maker.name)]));
        return Err(Failure::Fatal("the whole batch dies".to_string()));
    }
    let mut all: Vec<_> = runs.iter().map(|run| give(run, maker)).collect();
    if !joins_ends {
        for (run, given) in runs.iter().zip(&mut all) {
            give_row(run, given)?;
        }
        all.iter().for_each(|(_, effects)| add(effects.clone()));
        return Ok(all.into_iter().map(|(given, _)| given).collect());
    }
    let of = |is_data: bool| {
        all.iter().filter(move |(given, _)| given.is_ok() == is_data).map(|given| given.1.clone())
    };
    let data: Vec<_> = of(true).collect();
    match data.len() {
        0 | 1 => of(false).chain(data).for_each(add),
        _ => std::iter::once(data.concat()).chain(of(false)).for_each(add),
    }
    Ok(all.into_iter().map(|(given, _)| given).collect())
}
