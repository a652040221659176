//! Integers, packed.
//!
//! Both encodings cut the values into vectors of 1,024 and write a table with one entry a vector, then the bits
//! of all vectors. *Packed* keeps each value's distance from the vector's least one (frame of reference).
//! *Delta* keeps the vector's first value and, for each later one, how far its step lies above the smallest
//! step. Differences wrap, so that all of `i64` fits. A vector is decoded without its neighbours.
//!
//! The idea of vectors of 1,024 with a frame of reference each is that of FastLanes (Afroozeh and Boncz, 2023);
//! the bits here lie in plain order.

use super::bits;
use crate::cursor::Cursor;
use crate::error::Damage;
use crate::limits::VECTOR_ROWS;

/// Length of a table entry of the packed encoding: least value, width, seven reserved.
const PACKED_ENTRY_BYTES: usize = 16;

/// Length of a table entry of the delta encoding: first value, smallest step, width, seven reserved.
const DELTA_ENTRY_BYTES: usize = 24;

const WRONG_LENGTH: Damage = Damage("packed integers have a wrong length");

/// How a run of integers is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Packed,
    Delta,
}

/// Least value and bits for the distance of the greatest.
fn frame(values: impl Iterator<Item = i64> + Clone) -> (i64, u32) {
    let min = values.clone().min().unwrap_or(0);
    let max = values.max().unwrap_or(0);
    (min, bits::width_of(distance(max, min)))
}

/// How far `value` lies above `min`.
fn distance(value: i64, min: i64) -> u64 {
    value.wrapping_sub(min) as u64
}

fn steps(vector: &[i64]) -> impl Iterator<Item = i64> + Clone + '_ {
    vector.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]))
}

/// The scheme that takes fewer bytes, and how many.
pub(super) fn cheapest(values: &[i64]) -> (Scheme, usize) {
    let (mut packed, mut delta) = (0, 0);
    for vector in values.chunks(VECTOR_ROWS) {
        let (_, width) = frame(vector.iter().copied());
        packed += PACKED_ENTRY_BYTES + bits::packed_bytes(vector.len(), width);
        let (_, width) = frame(steps(vector));
        delta += DELTA_ENTRY_BYTES + bits::packed_bytes(vector.len() - 1, width);
    }
    if delta < packed { (Scheme::Delta, delta) } else { (Scheme::Packed, packed) }
}

/// Appends the values under a scheme.
pub(super) fn encode(values: &[i64], scheme: Scheme, out: &mut Vec<u8>) {
    let mut body = Vec::new();
    for vector in values.chunks(VECTOR_ROWS) {
        let (reference, width) = match scheme {
            Scheme::Packed => frame(vector.iter().copied()),
            Scheme::Delta => frame(steps(vector)),
        };
        if scheme == Scheme::Delta {
            out.extend_from_slice(&vector.first().copied().unwrap_or(0).to_le_bytes());
            bits::pack(steps(vector).map(|step| distance(step, reference)), width, &mut body);
        } else {
            bits::pack(vector.iter().map(|value| distance(*value, reference)), width, &mut body);
        }
        out.extend_from_slice(&reference.to_le_bytes());
        out.extend_from_slice(&[width as u8, 0, 0, 0, 0, 0, 0, 0]);
    }
    out.extend_from_slice(&body);
}

/// Reads `rows` values; `bytes` holds nothing else.
pub(super) fn decode(bytes: &[u8], scheme: Scheme, rows: usize) -> Result<Vec<i64>, Damage> {
    let entry = if scheme == Scheme::Delta { DELTA_ENTRY_BYTES } else { PACKED_ENTRY_BYTES };
    let table_bytes = rows.div_ceil(VECTOR_ROWS).checked_mul(entry).ok_or(WRONG_LENGTH)?;
    let mut body = Cursor::new(bytes);
    let mut table = Cursor::new(body.take(table_bytes)?);
    let mut values = Vec::with_capacity(rows);
    let mut scratch = [0u64; VECTOR_ROWS];
    while values.len() < rows {
        let count = (rows - values.len()).min(VECTOR_ROWS);
        let first = if scheme == Scheme::Delta { table.i64()? } else { 0 };
        let reference = table.i64()?;
        let width = u32::from(table.u8()?);
        table.zeros(7)?;
        if width > 64 {
            return Err(Damage("integers are packed with more than 64 bits"));
        }
        let packed = if scheme == Scheme::Delta { count - 1 } else { count };
        let numbers = &mut scratch[..packed];
        bits::unpack(body.take(bits::packed_bytes(packed, width))?, width, numbers)?;
        if scheme == Scheme::Delta {
            let mut value = first;
            values.push(value);
            values.extend(numbers.iter().map(|number| {
                value = value.wrapping_add(reference).wrapping_add(*number as i64);
                value
            }));
        } else {
            values.extend(numbers.iter().map(|number| reference.wrapping_add(*number as i64)));
        }
    }
    body.end()?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    fn round_trip(values: &[i64]) {
        for scheme in [Scheme::Packed, Scheme::Delta] {
            let mut bytes = Vec::new();
            encode(values, scheme, &mut bytes);
            assert_eq!(decode(&bytes, scheme, values.len()).unwrap(), values, "{scheme:?}");
            let (best, size) = cheapest(values);
            assert!(size <= bytes.len());
            if best == scheme {
                assert_eq!(size, bytes.len());
            }
        }
    }

    #[test]
    fn extremes_and_boundaries_come_back() {
        round_trip(&[]);
        round_trip(&[i64::MIN]);
        round_trip(&[i64::MIN, i64::MAX, 0, -1, i64::MAX, i64::MIN]);
        for rows in [1023, 1024, 1025, 4096, 5000] {
            round_trip(&(0..rows).map(|i| i * i - 7 * i).collect::<Vec<_>>());
            round_trip(&vec![42; rows as usize]);
        }
    }

    #[test]
    fn even_steps_take_no_bits() {
        let values: Vec<i64> = (0..10_000).map(|i| 1_700_000_000_000_000_000 + i * 1_000_000_000).collect();
        assert_eq!(cheapest(&values), (Scheme::Delta, 10 * DELTA_ENTRY_BYTES));
    }

    proptest! {
        #[test]
        fn any_values_come_back(values in proptest::collection::vec(any::<i64>(), 0..300)) {
            round_trip(&values);
        }

        #[test]
        fn near_values_come_back(start in any::<i64>(), steps in proptest::collection::vec(-9i64..99, 0..2100)) {
            let mut value = start;
            let values: Vec<i64> = steps.iter().map(|s| { value = value.wrapping_add(*s); value }).collect();
            round_trip(&values);
        }

        #[test]
        fn any_bytes_are_values_or_damage(
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..200),
            rows in 0usize..2000,
        ) {
            for scheme in [Scheme::Packed, Scheme::Delta] {
                if let Ok(values) = decode(&bytes, scheme, rows) {
                    prop_assert_eq!(values.len(), rows);
                }
            }
        }
    }
}
