//! Metadata read from the form in which it is written, without a tree in between.
//!
//! Whatever else is CBOR is left to the general decoder: `None` says nothing about the bytes.

use std::collections::BTreeMap;

use underbelly_storage::Timestamp;
use underbelly_storage::cursor::Cursor;

use super::MetaValue;
use super::metadata::TIME_TAG;
use crate::limits::METADATA_DEPTH_MAX;

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const LIST: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;

/// A map of two, and its first key, 1.
const SECONDS: [u8; 2] = [0xa2, 0x01];
/// The second key, -9.
const NANOSECONDS: u8 = 0x28;

/// The dict that these bytes hold from end to end.
pub(super) fn read(bytes: &[u8]) -> Option<BTreeMap<String, MetaValue>> {
    let mut cursor = Cursor::new(bytes);
    let MetaValue::Map(entries) = value(&mut cursor, 0)? else { return None };
    cursor.end().ok()?;
    Some(entries)
}

/// The major type, the low bits of the first byte, and the number that they or the bytes behind them give.
fn head(cursor: &mut Cursor<'_>) -> Option<(u8, u8, u64)> {
    let first = cursor.u8().ok()?;
    let low = first & 0x1f;
    let number = match low {
        0..=23 => u64::from(low),
        24 => u64::from(cursor.u8().ok()?),
        25 => u64::from(u16::from_be_bytes(cursor.array().ok()?)),
        26 => u64::from(u32::from_be_bytes(cursor.array().ok()?)),
        27 => u64::from_be_bytes(cursor.array().ok()?),
        _ => return None,
    };
    Some((first >> 5, low, number))
}

fn text<'a>(cursor: &mut Cursor<'a>, length: u64) -> Option<&'a str> {
    std::str::from_utf8(cursor.take(usize::try_from(length).ok()?).ok()?).ok()
}

fn integer(cursor: &mut Cursor<'_>) -> Option<i64> {
    match head(cursor)? {
        (UNSIGNED, _, number) => i64::try_from(number).ok(),
        (NEGATIVE, _, number) => i64::try_from(number).ok().map(|number| !number),
        _ => None,
    }
}

fn value(cursor: &mut Cursor<'_>, depth: usize) -> Option<MetaValue> {
    if depth > METADATA_DEPTH_MAX {
        return None;
    }
    let (major, low, number) = head(cursor)?;
    Some(match major {
        UNSIGNED => MetaValue::I64(i64::try_from(number).ok()?),
        NEGATIVE => MetaValue::I64(!i64::try_from(number).ok()?),
        BYTES => MetaValue::Bytes(cursor.take(usize::try_from(number).ok()?).ok()?.to_vec()),
        TEXT => MetaValue::Text(text(cursor, number)?.to_string()),
        LIST => {
            // Each item takes a byte at least, so that a wrong number ends with the bytes.
            let mut items = Vec::new();
            for _ in 0..number {
                items.push(value(cursor, depth + 1)?);
            }
            MetaValue::List(items)
        }
        MAP => {
            let mut entries = BTreeMap::new();
            for _ in 0..number {
                let (TEXT, _, length) = head(cursor)? else { return None };
                let name = text(cursor, length)?.to_string();
                if entries.insert(name, value(cursor, depth + 1)?).is_some() {
                    return None;
                }
            }
            MetaValue::Map(entries)
        }
        TAG => time(cursor, low, number)?,
        _ => match low {
            20 => MetaValue::Bool(false),
            21 => MetaValue::Bool(true),
            22 => MetaValue::Null,
            26 => MetaValue::F64(f64::from(f32::from_bits(number as u32))),
            27 => MetaValue::F64(f64::from_bits(number)),
            _ => return None,
        },
    })
}

/// An instant behind the tag whose head was read.
fn time(cursor: &mut Cursor<'_>, low: u8, tag: u64) -> Option<MetaValue> {
    if (low, tag) != (25, TIME_TAG) || cursor.array::<2>().ok()? != SECONDS {
        return None;
    }
    let secs = integer(cursor)?;
    if cursor.u8().ok()? != NANOSECONDS {
        return None;
    }
    let ns = integer(cursor).filter(|ns| (0..1_000_000_000).contains(ns))?;
    let at = i128::from(secs) * 1_000_000_000 + i128::from(ns);
    Some(MetaValue::Timestamp(Timestamp(i64::try_from(at).ok()?)))
}
