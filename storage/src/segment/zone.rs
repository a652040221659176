//! The range of a block's values.

use crate::columns::{Column, Values};

/// Least and greatest value of a block, nulls left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Zone {
    /// Integers, nanoseconds of timestamps, days of dates, booleans as 0 and 1.
    I64 {
        /// Least value.
        min: i64,
        /// Greatest value.
        max: i64,
    },
    /// Floating-point numbers, those of 32 bits as 64; a block with a NaN has no zone.
    F64 {
        /// Least value; −0.0 comes before 0.0.
        min: f64,
        /// Greatest value.
        max: f64,
    },
    /// Text and bytes: their first eight bytes, filled with zeros. A value whose own first eight bytes are
    /// outside is not in the block.
    Prefix {
        /// Prefix of the least value.
        min: [u8; 8],
        /// Prefix of the greatest value.
        max: [u8; 8],
    },
}

impl Zone {
    /// The zone of a column; `None` where it has no value or a NaN.
    pub(super) fn of(column: &Column) -> Option<Zone> {
        match column.values() {
            Values::Bool(v) => integers(column, v.iter().map(|b| i64::from(*b))),
            Values::I64(v) | Values::Timestamp(v) => integers(column, v.iter().copied()),
            Values::Date(v) | Values::I32(v) => integers(column, v.iter().map(|d| i64::from(*d))),
            Values::F64(v) => floats(column, v.iter().copied()),
            Values::F32(v) => floats(column, v.iter().map(|value| f64::from(*value))),
            Values::Utf8(s) | Values::Bytes(s) => {
                let (min, max) = ends(present(column, s.iter().map(Zone::prefix)))?;
                Some(Zone::Prefix { min, max })
            }
        }
    }

    /// The first eight bytes of a text, filled with zeros, as [`Zone::Prefix`] compares them.
    pub fn prefix(text: &[u8]) -> [u8; 8] {
        let mut prefix = [0; 8];
        for (to, from) in prefix.iter_mut().zip(text) {
            *to = *from;
        }
        prefix
    }

    /// Whether the zones are the same bit for bit.
    pub(super) fn same(a: &Option<Zone>, b: &Option<Zone>) -> bool {
        match (a, b) {
            (Some(Zone::F64 { min: a, max: b }), Some(Zone::F64 { min: c, max: d })) => {
                a.to_bits() == c.to_bits() && b.to_bits() == d.to_bits()
            }
            (a, b) => a == b,
        }
    }
}

/// An integer that stands among others as a number among others, −0.0 before 0.0.
fn rank(number: f64) -> i64 {
    let bits = number.to_bits().cast_signed();
    bits ^ (bits >> 63) & i64::MAX
}

/// The number with this rank.
fn unranked(rank: i64) -> f64 {
    f64::from_bits((rank ^ (rank >> 63) & i64::MAX).cast_unsigned())
}

fn floats(column: &Column, values: impl Iterator<Item = f64> + Clone) -> Option<Zone> {
    if values.clone().any(f64::is_nan) {
        return None;
    }
    let (min, max) = ends(present(column, values.map(rank)))?;
    Some(Zone::F64 { min: unranked(min), max: unranked(max) })
}

fn integers(column: &Column, values: impl Iterator<Item = i64>) -> Option<Zone> {
    ends(present(column, values)).map(|(min, max)| Zone::I64 { min, max })
}

fn ends<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Option<(T, T)> {
    values.fold(None, |range, value| {
        Some(range.map_or((value, value), |(min, max): (T, T)| (min.min(value), max.max(value))))
    })
}

/// The values that are not null.
fn present<T>(column: &Column, values: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
    values.enumerate().filter(|(row, _)| !column.is_null(*row)).map(|(_, value)| value)
}
