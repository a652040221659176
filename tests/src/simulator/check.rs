//! The comparison of the database with the model.

use std::collections::BTreeMap;

use underbelly::{
    Columns, Database, MetaValue, Metadata, ReadError, Scope, Series, Snapshot, State, Timestamp, Value,
    VariableValue,
};

use super::desk::{
    self, DAYS, EXTRAS, FIRST, JOINED, KEY_TEXTS, KEYS, MEDIAN, Made, OTHER, SECOND, SLOTS, SOURCE, TOTAL,
    date, key_of,
};
use super::life::Life;
use super::model::{CellName, Model, RowOf};
use super::{Trouble, consumer, daemons, marks, model, widths, works};

/// The identity of a model.
pub(super) fn metadata(model: u8) -> Metadata {
    Metadata::new(if works::SCALERS.contains(&model) { works::SCALER } else { "m" })
        .with("number", i64::from(model))
        .with("timestamp", Timestamp(5))
}

/// Variables that are set: in each scope, of each type.
pub(super) const VARIABLES: u64 = 5;

/// Scope and name of a variable.
pub(super) fn variable(number: u8) -> (Scope, String) {
    if let Some(name) = consumer::variable(number) {
        return (Scope::Global, name);
    }
    let scope = match number % 3 {
        0 => Scope::Global,
        1 => Scope::episode("e"),
        _ => Scope::asset("a"),
    };
    (scope, format!("v{number}"))
}

/// The value of a variable that follows from a number; NaNs of several kinds are among them.
pub(super) fn value(number: u8, n: i64) -> VariableValue {
    let odd = f64::from_bits(0x7ff8_0000_0000_0000 | n as u64);
    match number {
        0 => n.into(),
        1 => odd.into(),
        2 => vec![n as f64, odd].into(),
        3 => vec![n as u8; n as usize].into(),
        5.. => n.into(),
        _ => (n % 2 == 0).into(),
    }
}

/// A value as text, floats by their bits.
fn text(value: &VariableValue) -> String {
    match value {
        VariableValue::F64(value) => format!("{:x}", value.to_bits()),
        VariableValue::Array(values) => {
            format!("{:x?}", values.iter().map(|value| value.to_bits()).collect::<Vec<_>>())
        }
        other => format!("{other:?}"),
    }
}

/// The alias that models of the simulator have.
pub(super) const ALIAS: &str = "best";

/// The name under which something is told of models.
pub(super) const NOTE: &str = "score";

/// A blob of the simulator: a byte that changes from page to page, so that blobs share some chunks and not all.
pub(super) fn blob(byte: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| byte ^ ((at >> 13) as u8 & 0x70)).collect()
}

fn wrong(what: String) -> Result<(), Trouble> {
    Err(what.into())
}

/// Everything that a database shows after a recovery, its files included.
pub(super) fn whole(life: &Life) -> Result<(), Trouble> {
    let (db, model) = (life.db()?, &life.model);
    snapshot(&db.snapshot(), model)?;
    let mut slots: Vec<_> = db.slots().into_iter().map(|slot| slot.definition.name).collect();
    slots.sort();
    if slots.iter().ne(&model.slots) {
        return wrong(format!("slots are {slots:?}, not {:?}", model.slots));
    }
    let mut producers: Vec<_> = db.producers().into_iter().map(|found| found.definition.name).collect();
    producers.sort();
    if producers.iter().ne(&model.producers) {
        return wrong(format!("producers are {producers:?}, not {:?}", model.producers));
    }
    let mut runs = BTreeMap::new();
    match db.snapshot().series("_runs") {
        Err(ReadError::UnknownSeries { .. }) => {}
        series => {
            let told = series?.range(Timestamp::MIN, Timestamp::MAX)?;
            for row in 0..told.rows() {
                let name = told.column("producer").and_then(|name| name.str_at(row)).unwrap_or_default();
                *runs.entry(name.to_string()).or_insert(0) += 1;
            }
        }
    }
    let expected: BTreeMap<_, _> = model.runs.iter().map(|(name, runs)| (name.to_string(), *runs)).collect();
    if runs != expected {
        return wrong(format!("runs that are told are {runs:?}, not {expected:?}"));
    }
    works::compare(db, model)?;
    widths::check(&db.snapshot(), model)?;
    let damages = db.verify(|_, _| ())?.damages;
    if damages.is_empty() { Ok(()) } else { wrong(format!("damages: {damages:?}")) }
}

/// Rows, cells, models and variables.
pub(super) fn snapshot(snapshot: &Snapshot, model: &Model) -> Result<(), Trouble> {
    let at = snapshot.seq();
    let names: Vec<_> = snapshot.series_names().into_iter().filter(|name| !name.starts_with('_')).collect();
    if names.iter().ne(model.series.keys()) {
        return wrong(format!("seq {at} shows series {names:?}, not {:?}", model.series.keys()));
    }
    for (name, rows) in &model.series {
        self::rows(at, name, &snapshot.series(name)?, rows)?;
    }
    works::cells(snapshot, model)?;
    let extras = EXTRAS.iter().flat_map(|extra| [extra.slot, extra.made]);
    for slot in SLOTS.into_iter().chain(extras).filter(|slot| model.slots.contains(*slot)) {
        let keys = if desk::is_one(slot) { 0..1 } else { KEYS };
        for (day, key) in DAYS.flat_map(|day| keys.clone().map(move |key| (day, key))) {
            let cell = (slot, day, key);
            let found = snapshot.slot(slot, desk::date(day), desk::key_of(cell))?;
            let found = found.map(|cell| (cell.rows.i64s("n").unwrap_or_default().to_vec(), cell.generation));
            let (content, generation) = model.cells.get(&cell).copied().unwrap_or_default();
            if found != content.map(|n| (vec![n], generation)) {
                return wrong(format!("seq {at}: {cell:?} is {found:?}, not {content:?} g{generation}"));
            }
        }
    }
    let found = snapshot.variables();
    let mut found: Vec<_> =
        found.iter().map(|v| (v.scope.clone(), v.name.to_string(), text(&v.value))).collect();
    found.sort();
    let expected = model.variables.iter().map(|(number, n)| {
        let (scope, name) = variable(*number);
        (scope, name, text(&value(*number, *n)))
    });
    let mut expected: Vec<_> = expected.collect();
    expected.sort();
    if found != expected {
        return wrong(format!("seq {at} shows variables {found:?}, not {expected:?}"));
    }
    let shown = snapshot.models().len();
    if shown != model.models.len() {
        return wrong(format!("seq {at} shows {shown} models, not {}", model.models.len()));
    }
    for (number, versions) in &model.models {
        let found = snapshot.model(&metadata(*number))?;
        let (Some(found), Some((newest, byte, len))) = (found, versions.last()) else {
            return wrong(format!("seq {at}: model {number} is missing"));
        };
        let version = found.info().version;
        let bytes = &*found.blob()?;
        if version != *newest || bytes != blob(*byte, *len) {
            return wrong(format!("seq {at}: model {number} is version {version} of {newest}"));
        }
        let all = snapshot.model_versions(&metadata(*number))?;
        let pinned = all.iter().rev().filter(|version| version.is_pinned);
        let pinned: Vec<u64> = pinned.map(|version| version.info.version).collect();
        let expected = model.pinned.range((*number, 0)..=(*number, u64::MAX)).map(|pinned| pinned.1);
        if !expected.clone().eq(pinned.iter().copied()) {
            let expected: Vec<u64> = expected.collect();
            return wrong(format!(
                "seq {at}: of model {number} versions {pinned:?} are pinned, not {expected:?}"
            ));
        }
        let told = snapshot.annotations(&metadata(*number))?;
        let told: Vec<_> = told.iter().map(|note| (note.name.to_string(), note.value.clone())).collect();
        let expected = model.notes.get(number).map(|n| (NOTE.to_string(), Some(MetaValue::from(*n))));
        if !told.iter().eq(&expected) {
            return wrong(format!("seq {at}: of model {number} is told {told:?}, not {expected:?}"));
        }
        let all: Vec<u64> = all.iter().rev().map(|version| version.info.version).collect();
        let expected: Vec<u64> = versions.iter().map(|version| version.0).collect();
        let alias = snapshot.model_alias(&metadata(*number), ALIAS)?.map(|named| named.info().version);
        if all != expected || alias != model.aliases.get(number).copied() {
            let aliases = &model.aliases;
            return wrong(format!(
                "seq {at}: model {number} has versions {all:?}, {alias:?} by name, not {expected:?} and {aliases:?}"
            ));
        }
        marks::check(snapshot, model, *number)?;
    }
    Ok(())
}

/// Rows are also counted as of one in so many transactions.
const COUNTED: u64 = 3;

/// The rows of a series.
pub(super) fn rows(at: u64, name: &str, series: &Series, rows: &[RowOf]) -> Result<(), Trouble> {
    let found = series.range(Timestamp::MIN, Timestamp::MAX)?;
    // Counting takes a way of its own, and as long.
    let count = if at.is_multiple_of(COUNTED) { series.count()? } else { found.rows() as u64 };
    if count != rows.len() as u64 {
        let times = found.timestamps("timestamp").unwrap_or_default();
        let expected: Vec<i64> = rows.iter().map(|row| row.at).collect();
        return wrong(format!("seq {at}: rows of {name} are at {times:?}, not {expected:?}"));
    }
    match first_difference(name, &found, rows) {
        None => Ok(()),
        Some(row) => {
            let (found, expected) = (found.rows(), rows.len());
            wrong(format!("seq {at}: {found} rows of {name}, {expected} expected; row {row} differs"))
        }
    }
}

/// Whether each series has as many rows. A read that fails does so once.
pub(super) fn counts_as(snapshot: &Snapshot, model: &Model) -> Result<bool, Trouble> {
    for (name, rows) in &model.series {
        let count = || snapshot.series(name)?.count();
        if count().or_else(|_| count())? != rows.len() as u64 {
            return Ok(false);
        }
    }
    marks::counts_as(snapshot, model)
}

/// The first row that differs, or the end of the shorter ones where one has more; `None` where all are equal.
fn first_difference(name: &str, found: &Columns, rows: &[RowOf]) -> Option<usize> {
    let times = found.timestamps("timestamp").unwrap_or_default();
    let (k, x, y) = (found.column("k"), found.column("x"), found.column("y"));
    let differs = |row: usize| {
        let (Some(at), Some(expected)) = (times.get(row), rows.get(row)) else { return true };
        let key = k.and_then(|k| k.str_at(row));
        let x = x.map(|x| widths::as_integer(name, x.get(row))).unwrap_or(Value::Null);
        let y = y.and_then(|y| y.str_at(row));
        *at != expected.at
            || key != KEY_TEXTS.get(usize::from(expected.key)).copied()
            || x != expected.x.map_or(Value::Null, Value::I64)
            || y != expected.y.as_deref()
    };
    (0..times.len().max(rows.len())).find(|row| differs(*row))
}

/// What holds when all producers are attached and none is ready: what could be made is what a recompute makes, and
/// the states say so.
pub(super) fn at_rest(db: &Database, model: &model::Model, now: i64) -> Result<(), Trouble> {
    let snapshot = db.snapshot();
    let state = |cell: CellName| -> Result<Option<State>, Trouble> {
        let found = snapshot.slot(cell.0, desk::date(cell.1), desk::key_of(cell))?;
        Ok(found.map(|cell| cell.info.state))
    };
    let expect = |cell: CellName, n: i64| -> Result<(), Trouble> {
        let (content, found) = (model.content(cell), state(cell)?);
        if content != Some(n) || found != Some(State::Current) {
            let why = db
                .why(cell.0, date(cell.1), key_of(cell))
                .map_or_else(|e| e.to_string(), |why| why.to_string());
            return wrong(format!(
                "at rest {cell:?} is {content:?} and {found:?}, not {n} and current:\n{why}"
            ));
        }
        Ok(())
    };
    for extra in EXTRAS.iter().filter(|extra| model.producers.contains(extra.producer)) {
        for (day, key) in DAYS.flat_map(|day| KEYS.map(move |key| (day, key))) {
            if let Some(n) = model.content((extra.slot, day, key)) {
                expect((extra.made, day, key), 2 * n)?;
            }
        }
    }
    for day in DAYS {
        let (mut sum, mut whole) = (0, true);
        for key in KEYS {
            let Some(source) = model.content((SOURCE, day, key)) else {
                whole &=
                    model.content((FIRST, day, key)).is_none() && model.content((SECOND, day, key)).is_none();
                continue;
            };
            expect((SOURCE, day, key), source)?;
            match desk::first(source) {
                Made::Number(first) => {
                    expect((FIRST, day, key), first)?;
                    expect((SECOND, day, key), first + 10)?;
                    sum += first + 10;
                    if let Some(other) = model.content((OTHER, day, key)) {
                        expect((JOINED, day, key), first + other)?;
                    }
                }
                Made::Nothing => {
                    whole = false;
                    if let Some(first) = model.content((FIRST, day, key)) {
                        return wrong(format!(
                            "at rest {FIRST} of {source} is {first}, though it was declined"
                        ));
                    }
                }
                Made::Failure => {
                    whole = false;
                    let found = state((FIRST, day, key))?;
                    if found.is_some_and(|state| state != State::Invalid) {
                        return wrong(format!("at rest {FIRST} of {source} is {found:?}, though it failed"));
                    }
                }
            }
        }
        if let Some(median) = daemons::median(model, day, now) {
            expect((MEDIAN, day, 0), median)?;
        }
        if whole && sum > 0 && model.ended.contains(&day) {
            expect((TOTAL, day, 0), sum)?;
        }
    }
    Ok(())
}
