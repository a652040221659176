//! Metadata in the form in which it is written, without a tree in between.
//!
//! Written is the deterministic one of RFC 8949, with keys by their encodings. Read is that; whatever else is CBOR is left to
//! the general decoder: `None` says nothing about the bytes.

use std::collections::BTreeMap;

use underbelly_storage::Timestamp;
use underbelly_storage::cursor::Cursor;

use super::metadata::{TIME_TAG, join};
use super::{MetaValue, MetadataError};
use crate::limits::{METADATA_BYTES_MAX, METADATA_DEPTH_MAX};

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const LIST: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;

/// The first byte of a float before its length.
const FLOAT: u8 = 7 << 5;

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
            25 => MetaValue::F64(of_half(number as u16)?),
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

/// Appends a dict.
pub(super) fn write<'a>(
    out: &mut Vec<u8>,
    entries: impl Iterator<Item = (&'a String, &'a MetaValue)>,
) -> Result<(), MetadataError> {
    let before = out.len();
    put_map(out, entries, None, 1)?;
    let bytes = out.len() - before;
    if bytes > METADATA_BYTES_MAX { Err(MetadataError::Size { bytes }) } else { Ok(()) }
}

/// Where a value stands, for who is told that it cannot.
#[derive(Clone, Copy)]
struct Step<'p> {
    before: Option<&'p Step<'p>>,
    name: Name<'p>,
}

#[derive(Clone, Copy)]
enum Name<'p> {
    Entry(&'p str),
    Item(usize),
}

impl Step<'_> {
    fn path(&self) -> String {
        let before = self.before.map_or_else(String::new, Step::path);
        match self.name {
            Name::Entry(name) => join(&before, name),
            Name::Item(at) => join(&before, &at.to_string()),
        }
    }
}

fn put_head(out: &mut Vec<u8>, major: u8, number: u64) {
    let major = major << 5;
    match number {
        0..24 => out.push(major | number as u8),
        24..0x100 => out.extend([major | 24, number as u8]),
        0x100..0x1_0000 => {
            out.push(major | 25);
            out.extend((number as u16).to_be_bytes());
        }
        0x1_0000..0x1_0000_0000 => {
            out.push(major | 26);
            out.extend((number as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend(number.to_be_bytes());
        }
    }
}

fn put_integer(out: &mut Vec<u8>, value: i64) {
    match u64::try_from(value) {
        Ok(value) => put_head(out, UNSIGNED, value),
        Err(_) => put_head(out, NEGATIVE, !value as u64),
    }
}

/// A float in the fewest bytes that hold it.
fn put_float(out: &mut Vec<u8>, value: f64) {
    let single = value as f32;
    if let Some(half) = to_half(value) {
        out.push(FLOAT | 25);
        out.extend(half.to_be_bytes());
    } else if f64::from(single) == value {
        out.push(FLOAT | 26);
        out.extend(single.to_be_bytes());
    } else {
        out.push(FLOAT | 27);
        out.extend(value.to_be_bytes());
    }
}

fn put_map<'a>(
    out: &mut Vec<u8>,
    entries: impl Iterator<Item = (&'a String, &'a MetaValue)>,
    path: Option<&Step<'_>>,
    depth: usize,
) -> Result<(), MetadataError> {
    // Encoded text keys begin with their length, so bytewise order of encodings is length first, then bytes.
    let mut entries: Vec<(&String, &MetaValue)> = entries.collect();
    entries.sort_by_key(|(name, _)| (name.len(), name.as_bytes()));
    put_head(out, MAP, entries.len() as u64);
    for (name, value) in entries {
        put_head(out, TEXT, name.len() as u64);
        out.extend_from_slice(name.as_bytes());
        put(out, value, &Step { before: path, name: Name::Entry(name) }, depth)?;
    }
    Ok(())
}

fn put(out: &mut Vec<u8>, value: &MetaValue, path: &Step<'_>, depth: usize) -> Result<(), MetadataError> {
    if depth > METADATA_DEPTH_MAX {
        return Err(MetadataError::Depth { path: path.path() });
    }
    match value {
        MetaValue::Null => out.push(0xf6),
        MetaValue::Bool(value) => out.push(0xf4 | u8::from(*value)),
        MetaValue::I64(value) => put_integer(out, *value),
        MetaValue::F64(value) if !value.is_finite() => {
            return Err(MetadataError::NotFinite { path: path.path(), value: *value });
        }
        // One zero.
        MetaValue::F64(value) => put_float(out, value + 0.0),
        MetaValue::Text(text) => {
            put_head(out, TEXT, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
        }
        MetaValue::Bytes(bytes) => {
            put_head(out, BYTES, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
        MetaValue::Timestamp(at) => {
            put_head(out, TAG, TIME_TAG);
            out.extend(SECONDS);
            put_integer(out, at.0.div_euclid(1_000_000_000));
            out.push(NANOSECONDS);
            put_integer(out, at.0.rem_euclid(1_000_000_000));
        }
        MetaValue::List(items) => {
            put_head(out, LIST, items.len() as u64);
            for (at, item) in items.iter().enumerate() {
                put(out, item, &Step { before: Some(path), name: Name::Item(at) }, depth + 1)?;
            }
        }
        MetaValue::Map(entries) => put_map(out, entries.iter(), Some(path), depth + 1)?,
    }
    Ok(())
}

/// The bits of a binary16 that holds exactly this finite float.
fn to_half(value: f64) -> Option<u16> {
    let bits = value.to_bits();
    let sign = ((bits >> 48) & 0x8000) as u16;
    let (exponent, fraction) = (((bits >> 52) & 0x7ff) as i32 - 1023, bits & ((1 << 52) - 1));
    let (whole, lost, above) = match exponent {
        _ if value == 0.0 => return Some(sign),
        -14..=15 => (fraction, 42, (exponent + 15) as u16),
        // Below the smallest normal one the leading bit is written, and the exponent is none.
        -24..=-15 => (fraction | 1 << 52, 42 + (-14 - exponent), 0),
        _ => return None,
    };
    (whole & ((1 << lost) - 1) == 0).then(|| sign | above << 10 | (whole >> lost) as u16)
}

/// The float that a binary16 holds; `None` for infinities and NaN.
fn of_half(bits: u16) -> Option<f64> {
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    let value = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 => return None,
        _ => (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
    };
    Some(if bits >> 15 == 1 { -value } else { value })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ciborium::Value as Cbor;
    use proptest::prelude::*;

    use super::*;
    use crate::models::Metadata;

    fn tree(value: &MetaValue) -> Cbor {
        match value {
            MetaValue::Null => Cbor::Null,
            MetaValue::Bool(v) => Cbor::Bool(*v),
            MetaValue::I64(v) => Cbor::Integer((*v).into()),
            MetaValue::F64(v) => Cbor::Float(if *v == 0.0 { 0.0 } else { *v }),
            MetaValue::Text(v) => Cbor::Text(v.clone()),
            MetaValue::Bytes(v) => Cbor::Bytes(v.clone()),
            MetaValue::Timestamp(at) => {
                let (secs, ns) = (at.0.div_euclid(1_000_000_000), at.0.rem_euclid(1_000_000_000));
                let time =
                    vec![(1.into(), Cbor::Integer(secs.into())), ((-9).into(), Cbor::Integer(ns.into()))];
                Cbor::Tag(TIME_TAG, Box::new(Cbor::Map(time)))
            }
            MetaValue::List(items) => Cbor::Array(items.iter().map(tree).collect()),
            MetaValue::Map(entries) => {
                let mut pairs: Vec<(&String, &MetaValue)> = entries.iter().collect();
                pairs.sort_by_key(|(name, _)| (name.len(), name.as_bytes()));
                Cbor::Map(
                    pairs.into_iter().map(|(name, value)| (Cbor::Text(name.clone()), tree(value))).collect(),
                )
            }
        }
    }

    /// The bytes are those of the general encoder, and are read back without the general decoder.
    fn compare(value: MetaValue) {
        let entries = BTreeMap::from([("value".to_string(), value)]);
        let mut expected = Vec::new();
        ciborium::into_writer(&tree(&MetaValue::Map(entries.clone())), &mut expected).unwrap();
        let written = Metadata::from_entries(entries).to_cbor().unwrap();
        assert_eq!(written, expected);
        let again = Metadata::from_entries(read(&written).unwrap());
        assert_eq!(again.to_cbor().unwrap(), expected);
    }

    #[test]
    fn floats_are_as_short_as_they_can_be() {
        for half in 0..=u16::MAX {
            if let Some(value) = of_half(half) {
                compare(value.into());
                compare(f64::from_bits(value.to_bits() + 1).into());
            }
        }
        for value in [f64::MAX, f64::MIN_POSITIVE, 65_504.0, 65_536.0, 1e-8, f64::from(f32::MAX), 0.1] {
            compare(value.into());
            compare((-value).into());
        }
    }

    fn any_value() -> impl Strategy<Value = MetaValue> {
        let leaf = prop_oneof![
            Just(MetaValue::Null),
            any::<bool>().prop_map(MetaValue::Bool),
            any::<i64>().prop_map(MetaValue::I64),
            (-300i64..300).prop_map(MetaValue::I64),
            any::<f64>().prop_filter("finite", |v| v.is_finite()).prop_map(MetaValue::F64),
            any::<f32>().prop_filter("finite", |v| v.is_finite()).prop_map(|v| MetaValue::F64(v.into())),
            ".{0,30}".prop_map(MetaValue::Text),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(MetaValue::Bytes),
            any::<i64>().prop_map(|at| MetaValue::Timestamp(Timestamp(at))),
        ];
        leaf.prop_recursive(4, 40, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(MetaValue::List),
                prop::collection::btree_map(".{0,30}", inner, 0..8).prop_map(MetaValue::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_the_general_encoder_writes(value in any_value()) {
            compare(value);
        }
    }
}
