//! The graph's facts as records of a state image: plain little-endian, one record for each slot, producer, ended date,
//! deadline, cell and bundle. What follows from the facts (classes, counters, views, statuses, states, indexes) is left
//! out.

use std::sync::Arc;

use underbelly_storage::Timestamp;
use underbelly_storage::cursor::Cursor;
use underbelly_storage::error::Damage;
use underbelly_storage::image::Key as RecordKey;

use self::bytes::{
    date, date_number, date_of_number, flag, flags, key, list, moment, option, put_count, put_date,
    put_flags, put_key, put_list, put_moment, put_option, put_text, text,
};
use super::bundle::{Bundle, Claim, Ending, Setbacks};
use super::candidate::{Candidate, Owner, Uses};
use super::cell::{Cell, Moment, Sheet};
use super::class::Counters;
use super::definition::SlotDefinition;
use super::edges::{EdgeKey, Edges};
use super::error::GraphError;
use super::event::Deadline;
use super::fresh::{Ages, Fresh};
use super::group::Members;
use super::ids::{BundleId, CellId, ContentId, ProducerId, RunId, SlotDate, SlotId};
use super::key::Key;
use super::reads::{Reported, Scanned};

mod bytes;
mod definition;

pub(super) use self::definition::{Registered, put_producer, put_slot};

/// Kinds of the graph's records, in the order in which a graph is restored from them.
pub(super) const COUNTERS: u8 = 1;
pub(super) const SLOT: u8 = 2;
pub(super) const PRODUCER: u8 = 3;
pub(super) const END: u8 = 4;
pub(super) const DEADLINE: u8 = 5;
pub(super) const CELL: u8 = 6;
pub(super) const BUNDLE: u8 = 7;

/// What one record says.
#[derive(Clone, Debug)]
pub struct Fact(pub(super) Kind);

impl Fact {
    /// Contents that a cell's candidates have.
    pub fn contents(&self) -> impl Iterator<Item = ContentId> + '_ {
        let candidates = match &self.0 {
            Kind::Cell(_, _, sheet, _) => &sheet.candidates[..],
            _ => &[],
        };
        candidates.iter().filter_map(|candidate| candidate.content)
    }
}

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all facts are cells, of which each would be boxed")]
pub(super) enum Kind {
    Counters {
        next_order: u64,
    },
    // Cells are by far the most: what is larger than they are is boxed, since each fact is moved several times.
    Slot(SlotId, Box<SlotDefinition>),
    Producer(ProducerId, Box<Registered>),
    End(SlotDate),
    Deadline(Deadline, bool),
    /// The derived parts of the cell are those of a new one.
    Cell(CellId, Cell, Sheet, Fresh),
    Bundle(BundleId, Box<BundleFacts>),
}

#[derive(Clone, Debug)]
pub(super) struct BundleFacts {
    pub producer: ProducerId,
    pub date: SlotDate,
    pub key: Key,
    pub ending: Option<Ending>,
    pub ended: Moment,
    pub forced: bool,
    pub lagging: bool,
    pub is_cut: bool,
    pub lift: u32,
    pub unseen: Option<u64>,
    pub interrupted: u32,
    pub setbacks: Option<Box<Setbacks>>,
    pub runs: u64,
    pub order: u64,
    pub ready_at: Timestamp,
    /// Tokens of the edges that have one, in order.
    pub tokens: Vec<(EdgeKey, u64)>,
    /// What was read of each required input's scope; empty unless grouped.
    pub scopes: Vec<Option<Members>>,
    pub reported: Reported,
    pub running: Option<Claim>,
}

pub(super) fn end_key(date: SlotDate) -> RecordKey {
    let (instant, number) = date_number(date);
    RecordKey { kind: END, major: instant, minor: number }
}

/// A slot and its date.
pub(super) fn deadline_key(slot: SlotId, date: SlotDate) -> RecordKey {
    let (instant, number) = date_number(date);
    RecordKey { kind: DEADLINE, major: u64::from(slot.0) << 1 | instant, minor: number }
}

pub(super) fn deadline_of(record: RecordKey) -> Result<(SlotId, SlotDate), Damage> {
    let slot = u32::try_from(record.major >> 1).map_err(|_| Damage("its slot's number is too large"))?;
    Ok((SlotId(slot), date_of_number(record.major & 1, record.minor)?))
}

/// By when, and whether that has passed and it was not met; nothing where there is none.
pub(super) fn put_deadline(out: &mut Vec<u8>, deadline: Option<(Timestamp, bool)>) {
    if let Some((due_by, passed)) = deadline {
        out.extend_from_slice(&due_by.0.to_le_bytes());
        out.push(u8::from(passed));
    }
}

/// `ages`: how long its candidates are fresh.
pub(super) fn put_cell(out: &mut Vec<u8>, id: CellId, cell: &Cell, sheet: &Sheet, ages: &Ages) {
    out.extend_from_slice(&cell.slot.0.to_le_bytes());
    put_date(out, sheet.date);
    put_key(out, &sheet.key);
    put_flags(out, [sheet.effective.is_some(), cell.lagging, cell.member, cell.expected, cell.lift > 0]);
    if cell.lift > 0 {
        out.extend_from_slice(&cell.lift.to_le_bytes());
    }
    out.extend_from_slice(&sheet.effective.unwrap_or_default().to_le_bytes());
    out.extend_from_slice(&cell.g.to_le_bytes());
    put_moment(out, sheet.changed);
    put_moment(out, sheet.verified);
    put_count(out, sheet.candidates.len());
    for candidate in sheet.candidates.iter() {
        out.extend_from_slice(&candidate.priority.to_le_bytes());
        let (owned, daemon) = match candidate.owner {
            Owner::Client => (None, None),
            Owner::Daemon(producer) => (None, Some(producer)),
            Owner::Bundle(bundle) => (Some(bundle), None),
        };
        let until = ages.until(id, candidate.priority);
        put_flags(
            out,
            [
                owned.is_some(),
                candidate.content.is_some(),
                candidate.error.is_some(),
                candidate.uses.is_some(),
                daemon.is_some(),
                until.is_some(),
                candidate.aged,
            ],
        );
        put_moment(out, candidate.ended);
        owned.iter().for_each(|bundle| out.extend_from_slice(&bundle.0.to_le_bytes()));
        daemon.iter().for_each(|producer| out.extend_from_slice(&producer.0.to_le_bytes()));
        until.iter().for_each(|until| out.extend_from_slice(&until.0.to_le_bytes()));
        if let Some(content) = &candidate.content {
            out.extend_from_slice(content);
        }
        if let Some(error) = &candidate.error {
            put_text(out, error);
        }
        if let Some(uses) = &candidate.uses {
            put_list(out, &uses.edges, put_edge);
        }
    }
}

fn put_members(out: &mut Vec<u8>, members: Members) {
    out.extend_from_slice(&members.count.to_le_bytes());
    out.extend_from_slice(&members.sum.to_le_bytes());
}

fn put_setbacks(out: &mut Vec<u8>, setbacks: &Setbacks) {
    out.extend_from_slice(&setbacks.attempts.to_le_bytes());
    out.extend_from_slice(&setbacks.batch_max.to_le_bytes());
    put_flags(out, [setbacks.until.is_some(), setbacks.message.is_some()]);
    setbacks.until.iter().for_each(|until| out.extend_from_slice(&until.0.to_le_bytes()));
    setbacks.message.iter().for_each(|message| put_text(out, message));
}

fn put_reported(out: &mut Vec<u8>, reported: &Reported) {
    put_count(out, reported.cells.len());
    reported.cells.iter().for_each(|cell| out.extend_from_slice(&cell.0.to_le_bytes()));
    put_count(out, reported.scans.len());
    for scan in &reported.scans {
        out.extend_from_slice(&scan.slot.0.to_le_bytes());
        put_date(out, scan.date);
        put_list(out, &scan.columns, |out, column| out.extend_from_slice(&column.to_le_bytes()));
        put_key(out, &scan.key);
    }
}

/// `lift`: how far the bundle is lifted; `edges`: all that there are.
pub(super) fn put_bundle(out: &mut Vec<u8>, id: BundleId, bundle: &Bundle, lift: u32, edges: Edges<'_>) {
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
        Some(Ending::Cancelled(reason)) => {
            out.push(4);
            put_text(out, reason);
        }
    }
    put_moment(out, bundle.ended);
    let has_setbacks = bundle.setbacks.is_some();
    put_flags(
        out,
        [bundle.forced, lift > 0, bundle.lagging, bundle.reported.is_some(), has_setbacks, bundle.is_cut],
    );
    if lift > 0 {
        out.extend_from_slice(&lift.to_le_bytes());
    }
    put_option(out, bundle.unseen);
    out.extend_from_slice(&bundle.interrupted.to_le_bytes());
    out.extend_from_slice(&bundle.runs.to_le_bytes());
    out.extend_from_slice(&bundle.order.to_le_bytes());
    out.extend_from_slice(&bundle.ready_at.0.to_le_bytes());
    bundle.setbacks.iter().for_each(|setbacks| put_setbacks(out, setbacks));
    let tokens = edges.into(id, &bundle.sources).filter_map(|(edge, token)| Some((edge, token?)));
    put_count(out, tokens.clone().count());
    tokens.for_each(|token| put_token(out, &token));
    put_count(out, bundle.scopes.len());
    for scope in &bundle.scopes {
        out.push(u8::from(scope.token.is_some()));
        scope.token.iter().for_each(|token| put_members(out, *token));
    }
    bundle.reported.iter().for_each(|reported| put_reported(out, reported));
    out.push(u8::from(bundle.running.is_some()));
    let Some(claim) = &bundle.running else { return };
    out.extend_from_slice(&claim.run.0.to_le_bytes());
    out.extend_from_slice(&claim.batch.0.to_le_bytes());
    out.extend_from_slice(&claim.epoch.to_le_bytes());
    out.extend_from_slice(&claim.started.0.to_le_bytes());
    put_list(out, &claim.cells, put_token);
    put_count(out, claim.scopes.len());
    claim.scopes.iter().for_each(|scope| put_members(out, *scope));
}

fn put_edge(out: &mut Vec<u8>, edge: &EdgeKey) {
    out.extend_from_slice(&edge.source.0.to_le_bytes());
    out.extend_from_slice(&edge.input.to_le_bytes());
}

fn put_token(out: &mut Vec<u8>, (edge, g): &(EdgeKey, u64)) {
    put_edge(out, edge);
    out.extend_from_slice(&g.to_le_bytes());
}

fn edge(cursor: &mut Cursor<'_>) -> Result<EdgeKey, Damage> {
    Ok(EdgeKey { source: CellId(cursor.u32()?), input: cursor.u16()? })
}

fn tokens(cursor: &mut Cursor<'_>) -> Result<Vec<(EdgeKey, u64)>, Damage> {
    let tokens = list(cursor, |cursor| Ok((edge(cursor)?, cursor.u64()?)))?;
    match tokens.is_sorted_by(|a, b| a.0 < b.0) {
        true => Ok(tokens),
        false => Err(Damage("tokens are not in order")),
    }
}

/// Lifts from here on are damage: one more is above each that is there.
const LIFT_MAX: u32 = 1 << 31;

/// How far something was lifted; nothing is written where it was not.
fn lift(cursor: &mut Cursor<'_>) -> Result<u32, Damage> {
    match cursor.u32()? {
        0 => Err(Damage("a lift of nothing")),
        lift if lift < LIFT_MAX => Ok(lift),
        _ => Err(Damage("a lift out of range")),
    }
}

fn uses(cursor: &mut Cursor<'_>) -> Result<Uses, Damage> {
    let edges = list(cursor, edge)?;
    match edges.is_sorted_by(|a, b| a < b) {
        true => Ok(Uses { edges, counters: Counters::default() }),
        false => Err(Damage("uses are not in order")),
    }
}

/// A candidate, and until when it is fresh.
fn candidate(cursor: &mut Cursor<'_>) -> Result<(Candidate, Option<Timestamp>), Damage> {
    let priority = cursor.i32()?;
    let [owned, has_content, failed, has_uses, is_daemon, grows_old, aged] = flags(cursor)?;
    let ended = moment(cursor)?;
    let owner = match (owned, is_daemon) {
        (true, true) => return Err(Damage("a candidate has two owners")),
        (true, false) => Owner::Bundle(BundleId(cursor.u32()?)),
        (false, true) => Owner::Daemon(ProducerId(cursor.u32()?)),
        (false, false) => Owner::Client,
    };
    let until = if grows_old { Some(Timestamp(cursor.i64()?)) } else { None };
    if until.is_none() && aged {
        return Err(Damage("a candidate is old that does not grow old"));
    }
    let candidate = Candidate {
        priority,
        owner,
        content: if has_content { Some(cursor.array()?) } else { None },
        error: if failed { Some(text(cursor)?.into()) } else { None },
        uses: if has_uses { Some(Box::new(uses(cursor)?)) } else { None },
        ended,
        written: false,
        answered: false,
        aged,
    };
    Ok((candidate, until))
}

fn cell(cursor: &mut Cursor<'_>) -> Result<(Cell, Sheet, Fresh), Damage> {
    let (slot, date, key) = (SlotId(cursor.u32()?), date(cursor)?, key(cursor)?);
    let (mut cell, mut sheet) = (Cell::new(slot), Sheet::new(date, key));
    let [has_effective, lagging, member, expected, is_lifted] = flags(cursor)?;
    cell.expected = expected;
    cell.lift = if is_lifted { lift(cursor)? } else { 0 };
    let effective = cursor.i32()?;
    if !has_effective && effective != 0 {
        return Err(Damage("a value stands where there is none"));
    }
    sheet.effective = has_effective.then_some(effective);
    cell.lagging = lagging;
    cell.member = member;
    cell.g = cursor.u64()?;
    sheet.changed = moment(cursor)?;
    sheet.verified = moment(cursor)?;
    let candidates = list(cursor, candidate)?;
    let until = candidates.iter().filter_map(|(candidate, until)| Some((candidate.priority, (*until)?)));
    let fresh = until.collect();
    sheet.candidates = candidates.into_iter().map(|(candidate, _)| candidate).collect();
    Ok((cell, sheet, fresh))
}

fn bundle(cursor: &mut Cursor<'_>) -> Result<BundleFacts, Damage> {
    let (producer, date, key) = (ProducerId(cursor.u32()?), date(cursor)?, key(cursor)?);
    let reason = |cursor: &mut Cursor<'_>| Ok::<Arc<str>, Damage>(text(cursor)?.into());
    let ending = match cursor.u8()? {
        0 => None,
        1 => Some(Ending::Data),
        2 => Some(Ending::Declined(reason(cursor)?)),
        3 => Some(Ending::Failed(reason(cursor)?)),
        4 => Some(Ending::Cancelled(reason(cursor)?)),
        _ => return Err(Damage("a run ended in an unknown way")),
    };
    let ended = moment(cursor)?;
    let [forced, is_lifted, lagging, has_reported, has_setbacks, is_cut] = flags(cursor)?;
    Ok(BundleFacts {
        producer,
        date,
        key,
        ending,
        ended,
        forced,
        lagging,
        is_cut,
        lift: if is_lifted { lift(cursor)? } else { 0 },
        unseen: option(cursor)?,
        interrupted: cursor.u32()?,
        runs: cursor.u64()?,
        order: cursor.u64()?,
        ready_at: Timestamp(cursor.i64()?),
        setbacks: if has_setbacks { Some(Box::new(setbacks(cursor)?)) } else { None },
        tokens: tokens(cursor)?,
        scopes: list(cursor, |cursor| if flag(cursor)? { members(cursor).map(Some) } else { Ok(None) })?,
        reported: if has_reported { reported(cursor)? } else { Reported::default() },
        running: if flag(cursor)? { Some(claim(cursor)?) } else { None },
    })
}

fn setbacks(cursor: &mut Cursor<'_>) -> Result<Setbacks, Damage> {
    let (attempts, batch_max) = (cursor.u32()?, cursor.u32()?);
    let [waits, has_message] = flags(cursor)?;
    let until = if waits { Some(Timestamp(cursor.i64()?)) } else { None };
    let message = if has_message { Some(text(cursor)?.into()) } else { None };
    Ok(Setbacks { attempts, until, batch_max, message })
}

fn reported(cursor: &mut Cursor<'_>) -> Result<Reported, Damage> {
    let scan = |cursor: &mut Cursor<'_>| {
        let (slot, date) = (SlotId(cursor.u32()?), date(cursor)?);
        let columns = list(cursor, |cursor| cursor.u16())?;
        Ok(Scanned { slot, date, columns, key: key(cursor)? })
    };
    let cells = list(cursor, |cursor| cursor.u32().map(CellId))?;
    let scans = list(cursor, scan)?;
    let in_order = cells.is_sorted_by(|a, b| a < b) && scans.is_sorted_by(|a, b| a < b);
    match in_order && !(cells.is_empty() && scans.is_empty()) {
        true => Ok(Reported { cells: cells.into_iter().collect(), scans: scans.into_iter().collect() }),
        false => Err(Damage("what a run reported is not in order, or nothing")),
    }
}

fn members(cursor: &mut Cursor<'_>) -> Result<Members, Damage> {
    Ok(Members { count: cursor.u32()?, sum: cursor.u64()? })
}

fn claim(cursor: &mut Cursor<'_>) -> Result<Claim, Damage> {
    Ok(Claim {
        run: RunId(cursor.u64()?),
        batch: RunId(cursor.u64()?),
        epoch: cursor.u64()?,
        started: Timestamp(cursor.i64()?),
        cells: tokens(cursor)?,
        scopes: list(cursor, members)?,
    })
}

impl Fact {
    /// Whether a key that was captured with this value has no record any more: a deadline was met.
    pub fn is_gone(record: RecordKey, value: &[u8]) -> bool {
        record.kind == DEADLINE && value.is_empty()
    }

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
        SLOT => Kind::Slot(SlotId(id()?), Box::new(definition::slot(&mut cursor)?)),
        PRODUCER => Kind::Producer(ProducerId(id()?), Box::new(definition::producer(&mut cursor)?)),
        END => Kind::End(date_of_number(record.major, record.minor)?),
        DEADLINE => {
            let (slot, date) = deadline_of(record)?;
            let due_by = Timestamp(cursor.i64()?);
            Kind::Deadline(Deadline { due_by, slot, date }, flag(&mut cursor)?)
        }
        CELL => {
            let (cell, sheet, fresh) = cell(&mut cursor)?;
            Kind::Cell(CellId(id()?), cell, sheet, fresh)
        }
        BUNDLE => Kind::Bundle(BundleId(id()?), Box::new(bundle(&mut cursor)?)),
        _ => return Err(Damage("its kind is unknown")),
    };
    cursor.end()?;
    Ok(fact)
}
