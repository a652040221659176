//! Slots and producers: a chain, a join that makes a diamond, a group, and a quorum of daemons, of which some runs fail, some decline and some are
//! tried again.

use std::time::Duration;

use underbelly::{
    ColumnType, CommitError, Database, Date, Failure, Outputs, ProducerDefinition, Row, Run, SchemaError,
    SlotDate, SlotDefinition, Timestamp, When,
};

use super::daemons::{AGE, SKEW};
use super::life::Journal;
use super::model::{CellName, Effect, RowOf};
use crate::{counter_slot, one};

/// Days of all cells.
pub const DAYS: std::ops::Range<i32> = 0..3;
/// Keys of all cells but those of slots with one cell a day, whose key is 0.
pub const KEYS: std::ops::Range<u8> = 0..4;
/// What a key of cells and rows is called.
pub const KEY_TEXTS: [&str; 4] = ["k0", "k1", "k2", "k3"];
/// Written by clients.
pub const SOURCE: &str = "Source";
/// Written by clients, too.
pub const OTHER: &str = "Other";
/// Made of [`SOURCE`], where that works.
pub const FIRST: &str = "Chain.First";
/// Made of [`FIRST`].
pub const SECOND: &str = "Chain.Second";
/// Made of [`FIRST`] and [`OTHER`].
pub const JOINED: &str = "Joined";
/// Made of all [`SECOND`] of a day.
pub const TOTAL: &str = "Total";
/// Given by daemons, its members.
pub const SIGNAL: &str = "Signal";
/// Made of all [`SIGNAL`] of a day, as soon as each member has given one.
pub const MEDIAN: &str = "Median";
/// All that are defined from the beginning.
pub const SLOTS: [&str; 8] = [SOURCE, OTHER, FIRST, SECOND, JOINED, TOTAL, SIGNAL, MEDIAN];
/// Daemons, each a member of [`SIGNAL`] under the key with its number.
pub const DAEMONS: [&str; 3] = ["daemon 0", "daemon 1", "daemon 2"];
/// A slot that is defined on the way, with a slot that is made of it and the producer that does so.
pub struct Extra {
    /// Written by clients.
    pub slot: &'static str,
    /// Made of it.
    pub made: &'static str,
    /// Makes it.
    pub producer: &'static str,
}
/// All that are defined on the way, if they are.
pub const EXTRAS: [Extra; 3] = [
    Extra { slot: "Extra0", made: "Extra0.Twice", producer: "extra0" },
    Extra { slot: "Extra1", made: "Extra1.Twice", producer: "extra1" },
    Extra { slot: "Extra2", made: "Extra2.Twice", producer: "extra2" },
];
/// The series to which a producer appends.
pub const DERIVED: &str = "derived";

/// What becomes of a source.
pub enum Made {
    /// A number.
    Number(i64),
    /// Nothing, by decision.
    Nothing,
    /// A failure.
    Failure,
}

/// What [`FIRST`] is for a [`SOURCE`].
pub fn first(n: i64) -> Made {
    match n % 7 {
        3 => Made::Failure,
        5 => Made::Nothing,
        _ => Made::Number(2 * n + 1),
    }
}

/// The date of a day.
pub fn date(day: i32) -> SlotDate {
    Date(day).into()
}

/// Whether a slot has one cell a day.
pub fn is_one(slot: &str) -> bool {
    matches!(slot, TOTAL | MEDIAN)
}

/// The key values of a cell.
pub fn key_of(cell: CellName) -> Vec<String> {
    if is_one(cell.0) { Vec::new() } else { vec![format!("k{}", cell.2)] }
}

/// The definition of a slot.
pub fn slot(name: &str) -> SlotDefinition {
    match name {
        name if is_one(name) => SlotDefinition::new(name).value("n", ColumnType::I64),
        SIGNAL => {
            let slot = SlotDefinition::new(SIGNAL).member_key("name").value("n", ColumnType::I64);
            slot.fresh_for(Duration::from_nanos(AGE as u64)).max_skew(Duration::from_nanos(SKEW as u64))
        }
        name => counter_slot(name),
    }
}

/// The producers in the order in which they are registered.
pub const PRODUCERS: [&str; 5] = ["first", "second", "joined", "total", "median"];

fn extra(producer: &str) -> Option<&'static Extra> {
    EXTRAS.iter().find(|extra| extra.producer == producer)
}

fn definition(name: &str) -> ProducerDefinition {
    let new = ProducerDefinition::new(name);
    if let Some(extra) = extra(name) {
        return new.requires(extra.slot).provides(extra.made);
    }
    match name {
        "first" => new.requires(SOURCE).provides(FIRST),
        "second" => new.requires(FIRST).provides(SECOND),
        "joined" => new.requires(FIRST).requires(OTHER).provides(JOINED),
        "median" => new.requires(SIGNAL).group_by::<String>([], When::Quorum).provides(MEDIAN),
        _ => new.requires(SECOND).group_by_date().provides(TOTAL),
    }
}

fn number(run: &Run, slot: &str) -> Result<i64, Failure> {
    Ok(run.input(slot)?.i64s("n").and_then(|n| n.first()).copied().unwrap_or_default())
}

fn sum(run: &Run, slot: &str) -> Result<i64, Failure> {
    let mut sum = 0;
    for cell in run.inputs(slot)? {
        sum += cell.rows()?.i64s("n").and_then(|n| n.first()).copied().unwrap_or_default();
    }
    Ok(sum)
}

/// Registers a producer of which every run is written into the journal.
pub fn register(db: &Database, name: &'static str, journal: &Journal) -> Result<(), SchemaError> {
    let journal = journal.clone();
    db.register(definition(name), move |run: &Run| {
        let day = match run.date() {
            SlotDate::Day(day) => day.0,
            SlotDate::Instant(_) => i32::MIN,
        };
        let text = run.key("name").and_then(|key| key.as_str().map(str::to_string));
        let key = text.and_then(|text| text.strip_prefix('k')?.parse().ok()).unwrap_or(0);
        let mut effects = vec![Effect::Run(name)];
        let made = work(run, name, (day, key), &mut effects);
        // A start and an end: the log lies still between them, since nobody else commits.
        journal.add(run.snapshot().seq() + 2, effects);
        made
    })
}

fn work(run: &Run, name: &str, (day, key): (i32, u8), effects: &mut Vec<Effect>) -> Result<Outputs, Failure> {
    let (output, n) = match name {
        name if let Some(extra) = extra(name) => (extra.made, 2 * number(run, extra.slot)?),
        "first" => match first(number(run, SOURCE)?) {
            Made::Number(n) => (FIRST, n),
            Made::Nothing => {
                effects.push(Effect::Put((FIRST, day, key), None));
                return Err(Failure::Declined("not worth it".to_string()));
            }
            Made::Failure => return Err(Failure::Fatal("cannot be done".to_string())),
        },
        "second" => (SECOND, number(run, FIRST)? + 10),
        "joined" => match number(run, FIRST)? + number(run, OTHER)? {
            n if n % 5 == 2 && run.attempts() < 2 => return Err(Failure::retry("not yet")),
            n if n % 5 == 3 && run.id().0.is_multiple_of(2) => return Err(Failure::rejected("too busy")),
            n => (JOINED, n),
        },
        "median" => (MEDIAN, sum(run, SIGNAL)?),
        _ => (TOTAL, sum(run, SECOND)?),
    };
    let mut outputs = Outputs::new().put(output, one("n", n)?);
    effects.push(Effect::Put((output, day, key), Some(n)));
    if name == "second" {
        let row = RowOf { at: n % 50, key, x: Some(n), y: None };
        outputs = outputs.append(row_of(DERIVED, &row)?)?;
        effects.push(Effect::Rows(DERIVED, vec![row]));
    }
    Ok(outputs)
}

/// A row as the engine takes it.
pub fn row_of(series: &'static str, row: &RowOf) -> Result<Row, CommitError> {
    let made = Row::new(series, Timestamp(row.at)).key("k", format!("k{}", row.key)).field("x", row.x);
    Ok(match &row.y {
        Some(y) => made.field("y", y.as_str()),
        None => made,
    })
}
