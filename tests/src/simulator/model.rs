//! What the database should show: a few maps, and the effects of transactions on them.

use std::collections::{BTreeMap, BTreeSet};

use underbelly::Duplicates;

use super::desk::{DAEMONS, DAYS, MEDIAN, SIGNAL};
pub use super::rules::Rules;
pub use super::works::{Change, Works};
use super::{marks, works};

/// A row of a series: time, key, value.
#[derive(Clone, Debug, PartialEq)]
pub struct RowOf {
    /// Nanoseconds.
    pub at: i64,
    /// The number in its key `k`.
    pub key: u8,
    /// Its field `x`.
    pub x: Option<i64>,
    /// Its field `y`, in the series that have one.
    pub y: Option<String>,
}

/// Rows up to which each is put in its place, which is faster than sorting.
const FEW_ROWS: usize = 16;

/// The address of a cell: slot, day, key.
pub type CellName = (&'static str, i32, u8);

/// Which rows of a series a transaction deletes: those of earlier ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Doomed {
    /// The series.
    pub series: &'static str,
    /// Only rows at this time or later.
    pub from: Option<i64>,
    /// Only rows before this time.
    pub to: Option<i64>,
    /// Only rows of this key.
    pub key: Option<u8>,
    /// Only rows of this key or one before it, as a predicate.
    pub key_at_most: Option<u8>,
    /// Only rows with such a value.
    pub value: Option<OfValue>,
}

/// What a row is deleted for, beside its key and its time.
#[derive(Clone, Debug, PartialEq)]
pub enum OfValue {
    /// Its `x` is this or smaller.
    XAtMost(i64),
    /// It has no `x`.
    NoX,
    /// Its `y` is this.
    Y(String),
    /// Its `y` is another than this.
    OtherY(String),
}

impl OfValue {
    fn takes(&self, row: &RowOf) -> bool {
        match self {
            OfValue::XAtMost(most) => row.x.is_some_and(|x| x <= *most),
            OfValue::NoX => row.x.is_none(),
            OfValue::Y(y) => row.y.as_ref() == Some(y),
            OfValue::OtherY(y) => row.y.as_ref().is_some_and(|found| found != y),
        }
    }
}

impl Doomed {
    fn takes(&self, row: &RowOf) -> bool {
        self.from.is_none_or(|from| row.at >= from)
            && self.to.is_none_or(|to| row.at < to)
            && self.key.is_none_or(|key| row.key == key)
            && self.key_at_most.is_none_or(|key| row.key <= key)
            && self.value.as_ref().is_none_or(|value| value.takes(row))
    }
}

/// One change that a transaction makes.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Appends rows to a series.
    Rows(&'static str, Vec<RowOf>),
    /// Deletes rows.
    Delete(Doomed),
    /// Decides the rules of a series.
    Rules(&'static str, Rules),
    /// Deletes the rows that lie too far behind at this time.
    Expire(i64),
    /// Is refused with all that it would have done, by the rules of a series.
    Refused(Vec<Effect>),
    /// Gives a cell a number, or none.
    Put(CellName, Option<i64>),
    /// Puts a version of a model: its number, the byte from which its blob follows, and the blob's length.
    Model(u8, u8, usize),
    /// Deletes all versions of a model.
    DeleteModel(u8),
    /// Lets the alias of a model name its newest version, or nothing.
    Alias(u8, bool),
    /// Keeps so many versions of a model.
    Keep(u8, u64),
    /// Keeps versions of a model for so many nanoseconds, and so many at most where that is told.
    KeepFor(u8, Option<u64>, i64),
    /// Deletes the versions of all models that are not to be kept.
    Collect,
    /// Lets the second alias of a model name a version, or nothing.
    Name(u8, Option<u64>),
    /// The time of a transaction that is about models.
    At(i64),
    /// Pins a version of a model, or takes the pin away.
    Pin(u8, u64, bool),
    /// Tells a number of a model, or takes it back.
    Note(u8, Option<i64>),
    /// Deletes a version of a model.
    Drop(u8, u64),
    /// Sets a variable to what follows from a number, or removes it.
    Variable(u8, Option<i64>),
    /// Declares the end of a day.
    End(i32),
    /// Defines a slot.
    Slot(String),
    /// Registers a producer.
    Producer(&'static str),
    /// Ends a run of a producer.
    Run(&'static str),
    /// A daemon's commit of this number.
    Sent(u8, u64),
    /// When what a daemon gave to a cell was made.
    Made(CellName, i64),
    /// By when the median of a day is wanted.
    Due(i32, i64),
    /// Takes a daemon out.
    Leave(u8),
    /// What is done by command, and ends of runs on which it bears.
    Works(Change),
    /// Gives a series rows of a type of so great a width.
    Width(usize),
}

/// What the database should show.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Rows in order of time and arrival.
    pub series: BTreeMap<&'static str, Vec<RowOf>>,
    /// Series that are defined and never had a row.
    pub bare: BTreeSet<&'static str>,
    /// Rules of series.
    pub rules: BTreeMap<&'static str, Rules>,
    /// Series that lost rows, or show one of several.
    pub losing: BTreeSet<&'static str>,
    /// Series that may have rows which are not shown.
    pub hiding: BTreeSet<&'static str>,
    /// Contents and generations.
    pub cells: BTreeMap<CellName, (Option<i64>, u64)>,
    /// Number, byte and length of each version.
    pub models: BTreeMap<u8, Vec<(u64, u8, usize)>>,
    /// The versions that aliases name.
    pub aliases: BTreeMap<u8, u64>,
    /// How many versions are kept.
    pub kept: BTreeMap<u8, u64>,
    /// Pinned versions.
    pub pinned: BTreeSet<(u8, u64)>,
    /// What is told of models.
    pub notes: BTreeMap<u8, i64>,
    /// The versions that second aliases name.
    pub names: BTreeMap<u8, u64>,
    /// For how many nanoseconds versions are kept.
    pub kept_for: BTreeMap<u8, i64>,
    /// When versions were put.
    pub put_at: BTreeMap<(u8, u64), i64>,
    /// The time of the last transaction that was about models.
    pub at: i64,
    /// What is known of work by command.
    pub works: Works,
    /// The width of the field that widens.
    pub width: usize,
    /// Numbers from which the values of variables follow.
    pub variables: BTreeMap<u8, i64>,
    /// Days that ended.
    pub ended: BTreeSet<i32>,
    /// Defined slots.
    pub slots: BTreeSet<String>,
    /// Registered producers.
    pub producers: BTreeSet<&'static str>,
    /// Runs that ended, by producer.
    pub runs: BTreeMap<&'static str, u64>,
    /// The number of the last commit of each daemon.
    pub sent: BTreeMap<u8, u64>,
    /// When what daemons gave was made, where it grows old.
    pub made: BTreeMap<CellName, i64>,
    /// By when the median of a day is wanted.
    pub due: BTreeMap<i32, i64>,
}

/// What a transaction gave to a series: the last row of each time and key.
type Given = BTreeMap<(i64, u8), RowOf>;

/// Puts a row where its time and its arrival have it, by the rules of its series.
fn append(rows: &mut Vec<RowOf>, rules: &Rules, given: &mut Given, mut row: RowOf) -> Result<(), String> {
    let (begin, mut end) =
        (rows.partition_point(|r| r.at < row.at), rows.partition_point(|r| r.at <= row.at));
    let mut same = (begin..end).filter(|at| rows.get(*at).is_some_and(|r| r.key == row.key));
    if rules.skips_identical {
        let last = given.get(&(row.at, row.key)).filter(|_| rules.duplicates.resolves());
        if last.map_or_else(|| same.clone().any(|at| rows.get(at) == Some(&row)), |last| *last == row) {
            return Ok(());
        }
        given.insert((row.at, row.key), row.clone());
    }
    if let Some(at) = same.next_back() {
        match rules.duplicates {
            Duplicates::Reject => return Err(format!("{row:?} is there already and is taken")),
            Duplicates::LastWins | Duplicates::LastNonNull => {
                let older = rows.remove(at);
                end -= 1;
                if rules.duplicates == Duplicates::LastNonNull {
                    row = RowOf { x: row.x.or(older.x), y: row.y.or(older.y), ..row };
                }
            }
            _ => {}
        }
    }
    rows.insert(end, row);
    Ok(())
}

impl Model {
    /// Makes all changes of a transaction, or says why it should have been refused.
    pub fn apply(&mut self, effects: Vec<Effect>) -> Result<(), String> {
        // A transaction deletes no rows of its own.
        for effect in &effects {
            if let Effect::Delete(doomed) = effect {
                self.losing.insert(doomed.series);
                self.hiding.insert(doomed.series);
            }
            if let Effect::Delete(doomed) = effect
                && let Some(rows) = self.series.get_mut(doomed.series)
            {
                rows.retain(|row| !doomed.takes(row));
            }
        }
        // Of several writes to one cell in a transaction the last counts.
        let (mut cells, mut given) = (BTreeMap::new(), BTreeMap::<_, Given>::new());
        let mut marked = marks::marked(&effects);
        for effect in effects {
            match effect {
                Effect::Rows(series, rows) => {
                    let rules = self.rules.get(series).copied().unwrap_or_default();
                    let (known, given) = (self.series.entry(series).or_default(), given.entry(series));
                    self.bare.remove(series);
                    if rows.len() > FEW_ROWS && !rules.looks() {
                        known.extend(rows);
                        known.sort_by_key(|row| row.at);
                        continue;
                    }
                    let given = given.or_default();
                    rows.into_iter().try_for_each(|row| append(known, &rules, given, row))?;
                }
                Effect::Delete(_) => {}
                Effect::Rules(series, rules) => {
                    if !self.series.contains_key(series) {
                        self.bare.insert(series);
                    }
                    self.rules.insert(series, rules);
                    if rules.duplicates.resolves() || rules.retention.is_some() {
                        self.losing.insert(series);
                    }
                    let known = self.series.entry(series).or_default();
                    if rules.duplicates.resolves() {
                        self.hiding.insert(series);
                        let rules = Rules { skips_identical: false, ..rules };
                        let rows = std::mem::take(known);
                        let given = &mut Given::new();
                        rows.into_iter().try_for_each(|row| append(known, &rules, given, row))?;
                    }
                }
                Effect::Expire(now) => {
                    for (series, from) in self.kept_from(now) {
                        let rows = self.series.entry(series).or_default();
                        if rows.extract_if(.., |row| row.at < from).count() > 0 {
                            self.hiding.insert(series);
                        }
                    }
                    self.at = now;
                    marked.extend(self.kept_for.keys());
                }
                Effect::Refused(effects) if self.refuses(&effects) => {}
                Effect::Refused(effects) => return Err(format!("{effects:?} is refused")),
                Effect::DeleteModel(model) => {
                    self.models.remove(&model);
                    self.aliases.remove(&model);
                    self.kept.remove(&model);
                    self.notes.remove(&model);
                    self.pinned.retain(|(pinned, _)| *pinned != model);
                    self.forget_marks(model);
                    // What the transaction had put before is gone, too.
                    if let Some(cell) = works::cell_of(model) {
                        cells.remove(&cell);
                        cells.extend(self.content(cell).map(|_| (cell, None)));
                    }
                }
                Effect::Pin(model, version, true) => drop(self.pinned.insert((model, version))),
                Effect::Pin(model, version, false) => drop(self.pinned.remove(&(model, version))),
                Effect::Note(model, Some(n)) => drop(self.notes.insert(model, n)),
                Effect::Note(model, None) => drop(self.notes.remove(&model)),
                Effect::Drop(model, version) => {
                    let versions = self.models.entry(model).or_default();
                    versions.retain(|known| known.0 != version);
                }
                Effect::Alias(model, true) => {
                    let newest = self.models.get(&model).and_then(|versions| versions.last());
                    self.aliases.extend(newest.map(|newest| (model, newest.0)));
                }
                Effect::Alias(model, false) => drop(self.aliases.remove(&model)),
                Effect::Keep(model, count) => {
                    self.kept_for.remove(&model);
                    self.kept.insert(model, count);
                }
                Effect::KeepFor(model, count, age) => {
                    self.kept.remove(&model);
                    self.kept.extend(count.map(|count| (model, count)));
                    self.kept_for.insert(model, age);
                }
                Effect::Collect => marked.extend(self.kept_for.keys()),
                Effect::Name(model, Some(version)) => drop(self.names.insert(model, version)),
                Effect::Name(model, None) => drop(self.names.remove(&model)),
                Effect::At(at) => self.at = at,
                Effect::Variable(variable, Some(n)) => drop(self.variables.insert(variable, n)),
                Effect::Variable(variable, None) => drop(self.variables.remove(&variable)),
                Effect::Put(cell, n) => {
                    cells.insert(cell, n);
                }
                Effect::Model(model, byte, len) => {
                    let versions = self.models.entry(model).or_default();
                    let number = versions.last().map_or(0, |last| last.0) + 1;
                    versions.push((number, byte, len));
                    self.put_at.insert((model, number), self.at);
                    cells.extend(works::given(model, byte, len));
                }
                Effect::End(day) => drop(self.ended.insert(day)),
                Effect::Slot(name) => drop(self.slots.insert(name)),
                Effect::Producer(name) => drop(self.producers.insert(name)),
                Effect::Run(name) => *self.runs.entry(name).or_default() += 1,
                Effect::Sent(daemon, number) => drop(self.sent.insert(daemon, number)),
                Effect::Made(cell, made) => drop(self.made.insert(cell, made)),
                Effect::Due(day, due_by) => drop(self.due.insert(day, due_by)),
                Effect::Leave(daemon) => cells.extend(self.leave(daemon)),
                Effect::Works(change) => cells.extend(self.change(change)?),
                Effect::Width(width) => self.width = self.width.max(width),
            }
        }
        self.drop_old(&marked);
        for (model, kept) in &self.kept {
            let Some(versions) = self.models.get_mut(model) else { continue };
            let (named, first) =
                (self.aliases.get(model).copied(), versions.len().saturating_sub((*kept).max(1) as usize));
            let mut at = 0..;
            versions.retain(|version| {
                at.next().is_some_and(|at| at >= first)
                    || Some(version.0) == named
                    || self.names.get(model) == Some(&version.0)
                    || self.pinned.contains(&(*model, version.0))
            });
        }
        for (cell, content) in cells {
            let known = self.cells.entry(cell).or_default();
            if known.0 != content {
                *known = (content, known.1 + 1);
            }
        }
        Ok(())
    }

    /// Whether the rules of a series refuse a transaction.
    pub fn refuses(&self, effects: &[Effect]) -> bool {
        let rejects =
            |series| self.rules.get(series).is_some_and(|rules| rules.duplicates == Duplicates::Reject);
        let mut effects_on_rows = effects.iter();
        effects_on_rows.any(|effect| matches!(effect, Effect::Rows(series, _) if rejects(series)))
            && self.of_series().apply(effects.to_vec()).is_err()
    }

    /// The same, of series alone.
    fn of_series(&self) -> Model {
        let (series, bare, rules) = (self.series.clone(), self.bare.clone(), self.rules.clone());
        Model { series, bare, rules, ..Model::default() }
    }

    /// The times before which rows go at a checkpoint, by series.
    fn kept_from(&self, now: i64) -> Vec<(&'static str, i64)> {
        let kept_from = |(series, rules): (&&'static str, &Rules)| {
            let (retention, newest) = (rules.retention?, self.series.get(series)?.last()?.at);
            let from = now.min(newest) - retention;
            Some((*series, from - from.rem_euclid((retention / 16).max(1))))
        };
        self.rules.iter().filter_map(kept_from).collect()
    }

    /// Whether a checkpoint has rows to delete.
    pub fn is_expired(&self, now: i64) -> bool {
        self.has_old_versions(now) || self.has_old_rows(now)
    }

    /// Whether rows lie too far behind.
    pub fn has_old_rows(&self, now: i64) -> bool {
        let first = |series| self.series.get(series).and_then(|rows| rows.first());
        let mut kept = self.kept_from(now).into_iter();
        kept.any(|(series, from)| first(series).is_some_and(|row| row.at < from))
    }

    /// Takes a daemon out. Answers what is taken back with it: what it gave for a day of which no median was made yet, and
    /// for which another member gave something.
    fn leave(&mut self, daemon: u8) -> Vec<(CellName, Option<i64>)> {
        self.producers.remove(DAEMONS[usize::from(daemon)]);
        self.sent.remove(&daemon);
        let waits =
            |day: i32| self.producers.contains("median") && !self.cells.contains_key(&(MEDIAN, day, 0));
        let others = (0..).zip(DAEMONS).filter(|(_, name)| self.producers.contains(name));
        let others: Vec<u8> = others.map(|(other, _)| other).collect();
        let gave = |day: i32| others.iter().any(|other| self.content((SIGNAL, day, *other)).is_some());
        // What one gave before that was called so stays.
        let own = |day: &i32| self.made.contains_key(&(SIGNAL, *day, daemon));
        let days = DAYS.filter(|day| waits(*day) && own(day) && gave(*day));
        let taken = days.map(|day| ((SIGNAL, day, daemon), None)).collect();
        self.made.retain(|cell, _| cell.2 != daemon);
        taken
    }

    /// Whether what a daemon gave is too old: of each only what has the newest day.
    pub fn is_old(&self, cell: CellName, now: i64, age: i64) -> bool {
        let newest = self.made.keys().filter(|other| other.2 == cell.2).map(|other| other.1).max();
        let made = self.made.get(&cell).filter(|_| newest == Some(cell.1));
        made.is_some_and(|made| made + age <= now)
    }

    /// What a cell holds.
    pub fn content(&self, cell: CellName) -> Option<i64> {
        self.cells.get(&cell).and_then(|(content, _)| *content)
    }
}
