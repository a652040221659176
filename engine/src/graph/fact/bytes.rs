//! What records are made of: numbers, texts, dates, keys, lists.

use underbelly_storage::cursor::Cursor;
use underbelly_storage::error::Damage;
use underbelly_storage::{ColumnType, Date, Timestamp, Value};

use crate::graph::cell::Moment;
use crate::graph::ids::SlotDate;
use crate::graph::key::Key;

/// The number of a date, in the order of dates.
pub(in crate::graph) fn date_number(date: SlotDate) -> (u64, u64) {
    let (instant, value) = match date {
        SlotDate::Day(day) => (0, i64::from(day.0)),
        SlotDate::Instant(instant) => (1, instant.0),
    };
    (instant, (value as u64) ^ (1 << 63))
}

pub(in crate::graph) fn date_of_number(instant: u64, number: u64) -> Result<SlotDate, Damage> {
    // What is no `u8` is neither.
    date_of(u8::try_from(instant).unwrap_or(u8::MAX), (number ^ (1 << 63)) as i64)
}

pub(in crate::graph) fn date_of(instant: u8, value: i64) -> Result<SlotDate, Damage> {
    match (instant, i32::try_from(value)) {
        (0, Ok(day)) => Ok(SlotDate::Day(Date(day))),
        (1, _) => Ok(SlotDate::Instant(Timestamp(value))),
        _ => Err(Damage("a date is neither a day nor an instant")),
    }
}

pub(in crate::graph) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

pub(in crate::graph) fn put_date(out: &mut Vec<u8>, date: SlotDate) {
    let (instant, value) = match date {
        SlotDate::Day(day) => (0, i64::from(day.0)),
        SlotDate::Instant(instant) => (1, instant.0),
    };
    out.push(instant);
    out.extend_from_slice(&value.to_le_bytes());
}

pub(in crate::graph) fn put_moment(out: &mut Vec<u8>, moment: Moment) {
    out.extend_from_slice(&moment.seq.to_le_bytes());
    out.extend_from_slice(&moment.time.0.to_le_bytes());
}

pub(in crate::graph) fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&(count as u32).to_le_bytes());
}

pub(in crate::graph) fn put_option(out: &mut Vec<u8>, value: Option<u64>) {
    out.push(u8::from(value.is_some()));
    out.extend_from_slice(&value.unwrap_or_default().to_le_bytes());
}

/// A value that a key may hold; −0.0 is written as 0.0.
pub(in crate::graph) fn put_value(out: &mut Vec<u8>, value: &Value) {
    out.push(value.column_type().map_or(0, ColumnType::tag));
    match value {
        // Neither keys nor filters hold nulls or bytes.
        Value::Null | Value::Bytes(_) => {}
        Value::Bool(v) => out.push(u8::from(*v)),
        Value::I64(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::F64(v) => out.extend_from_slice(&(v + 0.0).to_le_bytes()),
        Value::Utf8(v) => put_text(out, v),
        Value::Timestamp(v) => out.extend_from_slice(&v.0.to_le_bytes()),
        Value::Date(v) => out.extend_from_slice(&v.0.to_le_bytes()),
        Value::I32(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::F32(v) => out.extend_from_slice(&(v + 0.0).to_le_bytes()),
    }
}

pub(in crate::graph) fn put_key(out: &mut Vec<u8>, key: &Key) {
    put_list(out, key.values(), put_value);
}

/// A count, and the items.
pub(in crate::graph) fn put_list<T>(out: &mut Vec<u8>, items: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
    put_count(out, items.len());
    items.iter().for_each(|item| put(out, item));
}

pub(in crate::graph) fn flag(cursor: &mut Cursor<'_>) -> Result<bool, Damage> {
    match cursor.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Damage("a flag is neither 0 nor 1")),
    }
}

/// So many flags, the lowest bit first.
pub(in crate::graph) fn flags<const N: usize>(cursor: &mut Cursor<'_>) -> Result<[bool; N], Damage> {
    let bits = cursor.u8()?;
    if u32::from(bits) >> N != 0 {
        return Err(Damage("an unknown flag is set"));
    }
    Ok(std::array::from_fn(|at| bits >> at & 1 != 0))
}

pub(in crate::graph) fn put_flags<const N: usize>(out: &mut Vec<u8>, flags: [bool; N]) {
    out.push(flags.into_iter().enumerate().fold(0, |bits, (at, flag)| bits | u8::from(flag) << at));
}

pub(in crate::graph) fn text<'a>(cursor: &mut Cursor<'a>) -> Result<&'a str, Damage> {
    let length = cursor.u32()? as usize;
    std::str::from_utf8(cursor.take(length)?).map_err(|_| Damage("text is not UTF-8"))
}

pub(in crate::graph) fn date(cursor: &mut Cursor<'_>) -> Result<SlotDate, Damage> {
    let instant = cursor.u8()?;
    date_of(instant, cursor.i64()?)
}

pub(in crate::graph) fn moment(cursor: &mut Cursor<'_>) -> Result<Moment, Damage> {
    Ok(Moment { seq: cursor.u64()?, time: Timestamp(cursor.i64()?) })
}

pub(in crate::graph) fn option(cursor: &mut Cursor<'_>) -> Result<Option<u64>, Damage> {
    let (is_some, value) = (flag(cursor)?, cursor.u64()?);
    match (is_some, value) {
        (true, value) => Ok(Some(value)),
        (false, 0) => Ok(None),
        _ => Err(Damage("a value stands where there is none")),
    }
}

/// As many items as a count says. Each takes at least a byte, so that a wrong count ends with the bytes.
pub(in crate::graph) fn list<'a, T>(
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

pub(in crate::graph) fn value(cursor: &mut Cursor<'_>) -> Result<Value, Damage> {
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
        ColumnType::I32 => Value::I32(cursor.i32()?),
        ColumnType::F32 => {
            let bits = cursor.u32()?;
            if bits == 1 << 31 {
                return Err(Damage("a key value is negative zero"));
            }
            Value::F32(f32::from_bits(bits))
        }
        ColumnType::Bytes => return Err(Damage("a key value is bytes")),
    })
}

pub(in crate::graph) fn key(cursor: &mut Cursor<'_>) -> Result<Key, Damage> {
    Key::new(list(cursor, value)?).map_err(|_| Damage("a key value is not a number"))
}
