//! The graph's facts as records of a state image: plain little-endian, one record for each slot, producer, ended date,
//! scope, cell and bundle. What follows from the facts (classes, counters, views, statuses, states, indexes) is left
//! out.

use std::sync::Arc;

use underbelly_storage::cursor::Cursor;
use underbelly_storage::error::Damage;
use underbelly_storage::image::Key as RecordKey;
use underbelly_storage::{ColumnType, Date, Timestamp, Value};

use super::bundle::{Bundle, Claim, Ending};
use super::candidate::Candidate;
use super::cell::{Cell, Moment};
use super::definition::{Group, Input, Output, ProducerDefinition, SlotDefinition};
use super::edges::EdgeKey;
use super::error::GraphError;
use super::ids::{BundleId, CellId, ContentId, ProducerId, RunId, SlotDate, SlotId};
use super::key::Key;
use super::producer::Producer;

/// Kinds of the graph's records, in the order in which a graph is restored from them.
pub(super) const COUNTERS: u8 = 1;
pub(super) const SLOT: u8 = 2;
pub(super) const PRODUCER: u8 = 3;
pub(super) const END: u8 = 4;
pub(super) const SCOPE: u8 = 5;
pub(super) const CELL: u8 = 6;
pub(super) const BUNDLE: u8 = 7;

/// What one record says.
#[derive(Clone, Debug)]
pub struct Fact(pub(super) Kind);

impl Fact {
    /// Contents that a cell's candidates have.
    pub fn contents(&self) -> impl Iterator<Item = ContentId> + '_ {
        let candidates = match &self.0 {
            Kind::Cell(_, cell) => &cell.candidates[..],
            _ => &[],
        };
        candidates.iter().filter_map(|candidate| candidate.content)
    }
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Counters {
        next_order: u64,
    },
    Slot(SlotId, SlotDefinition),
    Producer(ProducerId, Registered),
    End(SlotDate),
    Scope(SlotId, SlotDate, u64),
    /// The derived parts of the cell are those of a new one, and its content is not set.
    Cell(CellId, Cell),
    Bundle(BundleId, Box<BundleFacts>),
}

#[derive(Clone, Debug)]
pub(super) struct Registered {
    pub definition: ProducerDefinition,
    pub attached: bool,
    pub epoch: u64,
}

#[derive(Clone, Debug)]
pub(super) struct BundleFacts {
    pub producer: ProducerId,
    pub date: SlotDate,
    pub key: Key,
    pub ending: Option<Ending>,
    pub ended: Moment,
    pub unseen: Option<u64>,
    pub interrupted: u32,
    pub runs: u64,
    pub order: u64,
    /// Tokens of the edges that have one, by cell.
    pub tokens: Vec<(CellId, u64)>,
    /// Token of each input's scope; empty unless grouped.
    pub scopes: Vec<Option<u64>>,
    pub running: Option<Claim>,
}

/// The number of a date, in the order of dates.
fn date_number(date: SlotDate) -> (u64, u64) {
    let (instant, value) = match date {
        SlotDate::Day(day) => (0, i64::from(day.0)),
        SlotDate::Instant(instant) => (1, instant.0),
    };
    (instant, (value as u64) ^ (1 << 63))
}

fn date_of_number(instant: u64, number: u64) -> Result<SlotDate, Damage> {
    // What is no `u8` is neither.
    date_of(u8::try_from(instant).unwrap_or(u8::MAX), (number ^ (1 << 63)) as i64)
}

fn date_of(instant: u8, value: i64) -> Result<SlotDate, Damage> {
    match (instant, i32::try_from(value)) {
        (0, Ok(day)) => Ok(SlotDate::Day(Date(day))),
        (1, _) => Ok(SlotDate::Instant(Timestamp(value))),
        _ => Err(Damage("a date is neither a day nor an instant")),
    }
}

pub(super) fn end_key(date: SlotDate) -> RecordKey {
    let (instant, number) = date_number(date);
    RecordKey { kind: END, major: instant, minor: number }
}

pub(super) fn scope_key(slot: SlotId, date: SlotDate) -> RecordKey {
    let (instant, number) = date_number(date);
    RecordKey { kind: SCOPE, major: u64::from(slot.0) << 1 | instant, minor: number }
}

/// The slot and date of a scope's key.
pub(super) fn scope_of(key: RecordKey) -> Result<(SlotId, SlotDate), Damage> {
    let slot = u32::try_from(key.major >> 1).map_err(|_| Damage("a scope of no slot"))?;
    Ok((SlotId(slot), date_of_number(key.major & 1, key.minor)?))
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_date(out: &mut Vec<u8>, date: SlotDate) {
    let (instant, value) = match date {
        SlotDate::Day(day) => (0, i64::from(day.0)),
        SlotDate::Instant(instant) => (1, instant.0),
    };
    out.push(instant);
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_moment(out: &mut Vec<u8>, moment: Moment) {
    out.extend_from_slice(&moment.seq.to_le_bytes());
    out.extend_from_slice(&moment.time.0.to_le_bytes());
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&(count as u32).to_le_bytes());
}

fn put_option(out: &mut Vec<u8>, value: Option<u64>) {
    out.push(u8::from(value.is_some()));
    out.extend_from_slice(&value.unwrap_or_default().to_le_bytes());
}

fn put_key(out: &mut Vec<u8>, key: &Key) {
    put_count(out, key.values().len());
    for value in key.values() {
        out.push(value.column_type().map_or(0, ColumnType::tag));
        match value {
            // Keys hold neither nulls nor bytes.
            Value::Null | Value::Bytes(_) => {}
            Value::Bool(v) => out.push(u8::from(*v)),
            Value::I64(v) => out.extend_from_slice(&v.to_le_bytes()),
            Value::F64(v) => out.extend_from_slice(&v.to_le_bytes()),
            Value::Utf8(v) => put_text(out, v),
            Value::Timestamp(v) => out.extend_from_slice(&v.0.to_le_bytes()),
            Value::Date(v) => out.extend_from_slice(&v.0.to_le_bytes()),
        }
    }
}

pub(super) fn put_slot(out: &mut Vec<u8>, slot: &SlotDefinition) {
    put_text(out, &slot.name);
    for columns in [&slot.cell_keys, &slot.row_keys, &slot.values] {
        put_count(out, columns.len());
        for (name, column_type) in columns {
            put_text(out, name);
            out.push(column_type.tag());
        }
    }
}

pub(super) fn put_producer(out: &mut Vec<u8>, producer: &Producer) {
    let definition = &producer.definition;
    put_text(out, &definition.name);
    out.push(u8::from(producer.attached));
    out.extend_from_slice(&producer.epoch.to_le_bytes());
    out.push(u8::from(definition.group != Group::Each));
    put_count(out, definition.inputs.len());
    for input in &definition.inputs {
        put_text(out, &input.slot);
        out.push(u8::from(input.broadcast));
    }
    put_count(out, definition.outputs.len());
    for output in &definition.outputs {
        put_text(out, &output.slot);
        out.extend_from_slice(&output.priority.to_le_bytes());
    }
}

pub(super) fn put_cell(out: &mut Vec<u8>, cell: &Cell) {
    out.extend_from_slice(&cell.slot.0.to_le_bytes());
    put_date(out, cell.date);
    put_key(out, &cell.key);
    let flags = u8::from(cell.effective.is_some()) | u8::from(cell.lagging) << 1 | u8::from(cell.member) << 2;
    out.push(flags);
    out.extend_from_slice(&cell.effective.unwrap_or_default().to_le_bytes());
    out.extend_from_slice(&cell.g.to_le_bytes());
    put_moment(out, cell.changed);
    put_moment(out, cell.verified);
    put_count(out, cell.candidates.len());
    for candidate in &cell.candidates {
        out.extend_from_slice(&candidate.priority.to_le_bytes());
        let flags = u8::from(candidate.owner.is_some())
            | u8::from(candidate.content.is_some()) << 1
            | u8::from(candidate.error.is_some()) << 2;
        out.push(flags);
        put_moment(out, candidate.ended);
        if let Some(owner) = candidate.owner {
            out.extend_from_slice(&owner.0.to_le_bytes());
        }
        if let Some(content) = &candidate.content {
            out.extend_from_slice(content);
        }
        if let Some(error) = &candidate.error {
            put_text(out, error);
        }
    }
}

pub(super) fn put_bundle(out: &mut Vec<u8>, bundle: &Bundle) {
    out.extend_from_slice(&bundle.producer.0.to_le_bytes());
    put_date(out, bundle.date);
    put_key(out, &bundle.key);
    match &bundle.ending {
        None => out.push(0),
        Some(Ending::Data) => out.push(1),
        Some(Ending::Declined(reason)) => {
            out.push(2);
            put_text(out, reason);
        }
        Some(Ending::Failed(message)) => {
            out.push(3);
            put_text(out, message);
        }
    }
    put_moment(out, bundle.ended);
    put_option(out, bundle.unseen);
    out.extend_from_slice(&bundle.interrupted.to_le_bytes());
    out.extend_from_slice(&bundle.runs.to_le_bytes());
    out.extend_from_slice(&bundle.order.to_le_bytes());
    let tokens = bundle.edges.iter().filter_map(|(edge, token)| Some((edge.source.0, token?)));
    put_count(out, tokens.clone().count());
    for (cell, g) in tokens {
        out.extend_from_slice(&cell.to_le_bytes());
        out.extend_from_slice(&g.to_le_bytes());
    }
    put_count(out, bundle.scopes.len());
    bundle.scopes.iter().for_each(|scope| put_option(out, scope.token));
    out.push(u8::from(bundle.running.is_some()));
    let Some(claim) = &bundle.running else { return };
    out.extend_from_slice(&claim.run.0.to_le_bytes());
    out.extend_from_slice(&claim.epoch.to_le_bytes());
    out.extend_from_slice(&claim.started.0.to_le_bytes());
    put_count(out, claim.cells.len());
    for (edge, g) in &claim.cells {
        out.extend_from_slice(&edge.source.0.to_le_bytes());
        out.extend_from_slice(&g.to_le_bytes());
    }
    put_count(out, claim.scopes.len());
    claim.scopes.iter().for_each(|g| out.extend_from_slice(&g.to_le_bytes()));
}

fn flag(cursor: &mut Cursor<'_>) -> Result<bool, Damage> {
    match cursor.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Damage("a flag is neither 0 nor 1")),
    }
}

fn flags(cursor: &mut Cursor<'_>) -> Result<[bool; 3], Damage> {
    match cursor.u8()? {
        bits if bits < 8 => Ok([bits & 1 != 0, bits & 2 != 0, bits & 4 != 0]),
        _ => Err(Damage("an unknown flag is set")),
    }
}

fn text<'a>(cursor: &mut Cursor<'a>) -> Result<&'a str, Damage> {
    let length = cursor.u32()? as usize;
    std::str::from_utf8(cursor.take(length)?).map_err(|_| Damage("text is not UTF-8"))
}

fn date(cursor: &mut Cursor<'_>) -> Result<SlotDate, Damage> {
    let instant = cursor.u8()?;
    date_of(instant, cursor.i64()?)
}

fn moment(cursor: &mut Cursor<'_>) -> Result<Moment, Damage> {
    Ok(Moment { seq: cursor.u64()?, time: Timestamp(cursor.i64()?) })
}

fn option(cursor: &mut Cursor<'_>) -> Result<Option<u64>, Damage> {
    let (is_some, value) = (flag(cursor)?, cursor.u64()?);
    match (is_some, value) {
        (true, value) => Ok(Some(value)),
        (false, 0) => Ok(None),
        _ => Err(Damage("a value stands where there is none")),
    }
}

/// As many items as a count says. Each takes at least a byte, so that a wrong count ends with the bytes.
fn list<'a, T>(
    cursor: &mut Cursor<'a>,
    mut item: impl FnMut(&mut Cursor<'a>) -> Result<T, Damage>,
) -> Result<Vec<T>, Damage> {
    let count = cursor.u32()?;
    let mut items = Vec::with_capacity(count.min(8) as usize);
    for _ in 0..count {
        items.push(item(cursor)?);
    }
    Ok(items)
}

fn key(cursor: &mut Cursor<'_>) -> Result<Key, Damage> {
    let values = list(cursor, |cursor| {
        let tag = cursor.u8()?;
        Ok(match ColumnType::from_tag(tag).ok_or(Damage("a key value has an unknown type"))? {
            ColumnType::Bool => Value::Bool(flag(cursor)?),
            ColumnType::I64 => Value::I64(cursor.i64()?),
            ColumnType::F64 => {
                let bits = cursor.u64()?;
                if bits == 1 << 63 {
                    return Err(Damage("a key value is negative zero"));
                }
                Value::F64(f64::from_bits(bits))
            }
            ColumnType::Utf8 => Value::Utf8(text(cursor)?.into()),
            ColumnType::Timestamp => Value::Timestamp(Timestamp(cursor.i64()?)),
            ColumnType::Date => Value::Date(Date(cursor.i32()?)),
            ColumnType::Bytes => return Err(Damage("a key value is bytes")),
        })
    })?;
    Key::new(values).map_err(|_| Damage("a key value is not a number"))
}

fn tokens(cursor: &mut Cursor<'_>) -> Result<Vec<(CellId, u64)>, Damage> {
    let tokens = list(cursor, |cursor| Ok((CellId(cursor.u32()?), cursor.u64()?)))?;
    match tokens.is_sorted_by(|a, b| a.0 < b.0) {
        true => Ok(tokens),
        false => Err(Damage("tokens are not in order")),
    }
}

fn slot(cursor: &mut Cursor<'_>) -> Result<SlotDefinition, Damage> {
    let name = text(cursor)?.to_string();
    let mut columns = || {
        list(cursor, |cursor| {
            let name = text(cursor)?.to_string();
            let column_type = ColumnType::from_tag(cursor.u8()?);
            Ok((name, column_type.ok_or(Damage("a column has an unknown type"))?))
        })
    };
    Ok(SlotDefinition { name, cell_keys: columns()?, row_keys: columns()?, values: columns()? })
}

fn producer(cursor: &mut Cursor<'_>) -> Result<Registered, Damage> {
    let name = text(cursor)?.to_string();
    let (attached, epoch) = (flag(cursor)?, cursor.u64()?);
    let group = if flag(cursor)? { Group::BY_DATE } else { Group::Each };
    let inputs = list(cursor, |cursor| {
        let input = Input::required(text(cursor)?);
        Ok(Input { broadcast: flag(cursor)?, ..input })
    })?;
    let outputs =
        list(cursor, |cursor| Ok(Output { slot: text(cursor)?.to_string(), priority: cursor.i32()? }))?;
    Ok(Registered { definition: ProducerDefinition { name, inputs, group, outputs }, attached, epoch })
}

fn candidate(cursor: &mut Cursor<'_>) -> Result<Candidate, Damage> {
    let priority = cursor.i32()?;
    let [owned, has_content, failed] = flags(cursor)?;
    let ended = moment(cursor)?;
    Ok(Candidate {
        priority,
        owner: if owned { Some(BundleId(cursor.u32()?)) } else { None },
        content: if has_content { Some(cursor.array()?) } else { None },
        error: if failed { Some(text(cursor)?.into()) } else { None },
        ended,
        written: false,
    })
}

fn cell(cursor: &mut Cursor<'_>) -> Result<Cell, Damage> {
    let (slot, date, key) = (SlotId(cursor.u32()?), date(cursor)?, key(cursor)?);
    let mut cell = Cell::new(slot, date, key);
    let [has_effective, lagging, member] = flags(cursor)?;
    let effective = cursor.i32()?;
    if !has_effective && effective != 0 {
        return Err(Damage("a value stands where there is none"));
    }
    cell.effective = has_effective.then_some(effective);
    cell.lagging = lagging;
    cell.member = member;
    cell.g = cursor.u64()?;
    cell.changed = moment(cursor)?;
    cell.verified = moment(cursor)?;
    cell.candidates = list(cursor, candidate)?;
    Ok(cell)
}

fn bundle(cursor: &mut Cursor<'_>) -> Result<BundleFacts, Damage> {
    let (producer, date, key) = (ProducerId(cursor.u32()?), date(cursor)?, key(cursor)?);
    let reason = |cursor: &mut Cursor<'_>| Ok::<Arc<str>, Damage>(text(cursor)?.into());
    let ending = match cursor.u8()? {
        0 => None,
        1 => Some(Ending::Data),
        2 => Some(Ending::Declined(reason(cursor)?)),
        3 => Some(Ending::Failed(reason(cursor)?)),
        _ => return Err(Damage("a run ended in an unknown way")),
    };
    Ok(BundleFacts {
        producer,
        date,
        key,
        ending,
        ended: moment(cursor)?,
        unseen: option(cursor)?,
        interrupted: cursor.u32()?,
        runs: cursor.u64()?,
        order: cursor.u64()?,
        tokens: tokens(cursor)?,
        scopes: list(cursor, option)?,
        running: if flag(cursor)? { Some(claim(cursor)?) } else { None },
    })
}

fn claim(cursor: &mut Cursor<'_>) -> Result<Claim, Damage> {
    Ok(Claim {
        run: RunId(cursor.u64()?),
        epoch: cursor.u64()?,
        started: Timestamp(cursor.i64()?),
        // Which input a cell is follows from its slot.
        cells: tokens(cursor)?.into_iter().map(|(source, g)| (EdgeKey { source, input: 0 }, g)).collect(),
        scopes: list(cursor, |cursor| cursor.u64())?,
    })
}

impl Fact {
    /// Whether the graph has records of this kind.
    pub fn is_of_graph(kind: u8) -> bool {
        (COUNTERS..=BUNDLE).contains(&kind)
    }

    /// Reads a record. What it says is not compared with other records here.
    ///
    /// # Errors
    /// [`GraphError::Image`] where the bytes are no record of their kind.
    pub fn decode(record: RecordKey, value: &[u8]) -> Result<Fact, GraphError> {
        decode(record, value).map(Fact).map_err(|Damage(what)| GraphError::Image {
            what: format!("record {} of kind {}: {what}", record.major, record.kind),
        })
    }
}

fn decode(record: RecordKey, value: &[u8]) -> Result<Kind, Damage> {
    let mut cursor = Cursor::new(value);
    let id = || match (u32::try_from(record.major), record.minor) {
        (Ok(id), 0) => Ok(id),
        _ => Err(Damage("its number is too large")),
    };
    let fact = match record.kind {
        COUNTERS if record == RecordKey::new(COUNTERS, 0) => Kind::Counters { next_order: cursor.u64()? },
        SLOT => Kind::Slot(SlotId(id()?), slot(&mut cursor)?),
        PRODUCER => Kind::Producer(ProducerId(id()?), producer(&mut cursor)?),
        END => Kind::End(date_of_number(record.major, record.minor)?),
        SCOPE => {
            let (slot, date) = scope_of(record)?;
            Kind::Scope(slot, date, cursor.u64()?)
        }
        CELL => Kind::Cell(CellId(id()?), cell(&mut cursor)?),
        BUNDLE => Kind::Bundle(BundleId(id()?), Box::new(bundle(&mut cursor)?)),
        _ => return Err(Damage("its kind is unknown")),
    };
    cursor.end()?;
    Ok(fact)
}
