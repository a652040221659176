//! What the database should show: a few maps, and the effects of transactions on them.

use std::collections::{BTreeMap, BTreeSet};

use super::desk::{DAEMONS, DAYS, MEDIAN, SIGNAL};

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
}

impl Doomed {
    fn takes(&self, row: &RowOf) -> bool {
        self.from.is_none_or(|from| row.at >= from)
            && self.to.is_none_or(|to| row.at < to)
            && self.key.is_none_or(|key| row.key == key)
            && self.key_at_most.is_none_or(|key| row.key <= key)
    }
}

/// One change that a transaction makes.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Appends rows to a series.
    Rows(&'static str, Vec<RowOf>),
    /// Deletes rows.
    Delete(Doomed),
    /// Of rows of a series with the same key and time the last is shown.
    LastWins(&'static str),
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
}

/// What the database should show.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Rows in order of time and arrival.
    pub series: BTreeMap<&'static str, Vec<RowOf>>,
    /// Series that are defined and never had a row.
    pub bare: BTreeSet<&'static str>,
    /// Series of which the last of several rows is shown.
    pub last_wins: BTreeSet<&'static str>,
    /// Contents and generations.
    pub cells: BTreeMap<CellName, (Option<i64>, u64)>,
    /// Number, byte and length of each version.
    pub models: BTreeMap<u8, Vec<(u64, u8, usize)>>,
    /// The versions that aliases name.
    pub aliases: BTreeMap<u8, u64>,
    /// How many versions are kept.
    pub kept: BTreeMap<u8, u64>,
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

/// Of rows with the same key and time the last.
fn keep_last(rows: &mut Vec<RowOf>) {
    let mut seen = BTreeSet::new();
    let mut stays: Vec<bool> = rows.iter().rev().map(|row| seen.insert((row.at, row.key))).collect();
    rows.retain(|_| stays.pop().unwrap_or(true));
}

impl Model {
    /// Makes all changes of a transaction.
    pub fn apply(&mut self, effects: Vec<Effect>) {
        // A transaction deletes no rows of its own.
        for effect in &effects {
            if let Effect::Delete(doomed) = effect
                && let Some(rows) = self.series.get_mut(doomed.series)
            {
                rows.retain(|row| !doomed.takes(row));
            }
        }
        // Of several writes to one cell in a transaction the last counts.
        let mut cells = BTreeMap::new();
        for effect in effects {
            match effect {
                Effect::Rows(series, rows) => {
                    let known = self.series.entry(series).or_default();
                    self.bare.remove(series);
                    if rows.len() > FEW_ROWS {
                        known.extend(rows);
                        known.sort_by_key(|row| row.at);
                    } else {
                        for row in rows {
                            known.insert(known.partition_point(|before| before.at <= row.at), row);
                        }
                    }
                    if self.last_wins.contains(series) {
                        keep_last(known);
                    }
                }
                Effect::Delete(_) => {}
                Effect::LastWins(series) => {
                    if !self.series.contains_key(series) {
                        self.bare.insert(series);
                    }
                    self.last_wins.insert(series);
                    keep_last(self.series.entry(series).or_default());
                }
                Effect::DeleteModel(model) => {
                    self.models.remove(&model);
                    self.aliases.remove(&model);
                    self.kept.remove(&model);
                }
                Effect::Alias(model, true) => {
                    let newest = self.models.get(&model).and_then(|versions| versions.last());
                    self.aliases.extend(newest.map(|newest| (model, newest.0)));
                }
                Effect::Alias(model, false) => drop(self.aliases.remove(&model)),
                Effect::Keep(model, count) => drop(self.kept.insert(model, count)),
                Effect::Variable(variable, Some(n)) => drop(self.variables.insert(variable, n)),
                Effect::Variable(variable, None) => drop(self.variables.remove(&variable)),
                Effect::Put(cell, n) => {
                    cells.insert(cell, n);
                }
                Effect::Model(model, byte, len) => {
                    let versions = self.models.entry(model).or_default();
                    let number = versions.last().map_or(0, |last| last.0) + 1;
                    versions.push((number, byte, len));
                }
                Effect::End(day) => drop(self.ended.insert(day)),
                Effect::Slot(name) => drop(self.slots.insert(name)),
                Effect::Producer(name) => drop(self.producers.insert(name)),
                Effect::Run(name) => *self.runs.entry(name).or_default() += 1,
                Effect::Sent(daemon, number) => drop(self.sent.insert(daemon, number)),
                Effect::Made(cell, made) => drop(self.made.insert(cell, made)),
                Effect::Due(day, due_by) => drop(self.due.insert(day, due_by)),
                Effect::Leave(daemon) => cells.extend(self.leave(daemon)),
            }
        }
        for (model, kept) in &self.kept {
            let Some(versions) = self.models.get_mut(model) else { continue };
            let (named, first) =
                (self.aliases.get(model).copied(), versions.len().saturating_sub((*kept).max(1) as usize));
            let mut at = 0..;
            versions.retain(|version| at.next().is_some_and(|at| at >= first) || Some(version.0) == named);
        }
        for (cell, content) in cells {
            let known = self.cells.entry(cell).or_default();
            if known.0 != content {
                *known = (content, known.1 + 1);
            }
        }
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
