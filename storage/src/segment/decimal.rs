//! Floating-point numbers that are decimals, as integers.
//!
//! Prices and readings are mostly decimals of few places. A block chooses an exponent `e`; each number that is
//! bit for bit `n / 10^e` for an integer `n` is kept as `n`, and the others as they are, with their rows. The
//! idea is that of ALP (Afroozeh, Kuffo and Boncz, 2023), with one exponent, and a division, which rounds
//! decimals correctly, in place of two multiplications.

use super::integer::{self, Scheme};
use crate::cursor::Cursor;
use crate::error::Damage;

/// The powers of ten that are tried; each is exact in binary64.
const POWERS: [f64; 19] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18];

/// Integers up to here are exact in binary64.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Numbers looked at to choose the exponent.
const SAMPLES: usize = 256;

/// Bytes before the exceptions: exponent, scheme, two reserved, number of exceptions.
const HEAD_BYTES: usize = 8;

/// The integer whose quotient by the power is this number bit for bit.
fn scaled(number: f64, power: f64) -> Option<i64> {
    let rounded = (number * power).round();
    if rounded.is_nan() || rounded.abs() > EXACT_MAX {
        return None;
    }
    let integer = rounded as i64;
    (unscaled(integer, power).to_bits() == number.to_bits()).then_some(integer)
}

fn unscaled(integer: i64, power: f64) -> f64 {
    integer as f64 / power
}

/// The exponent under which most of a sample are decimals; `None` where that is fewer than half.
fn exponent_of(numbers: &[f64]) -> Option<usize> {
    let stride = (numbers.len() / SAMPLES).max(1);
    let sample = || numbers.iter().step_by(stride).take(SAMPLES);
    let hits = |power: f64| sample().filter(|number| scaled(**number, power).is_some()).count();
    let mut best = (0, 0);
    for (exponent, power) in POWERS.into_iter().enumerate() {
        let found = hits(power);
        if found > best.1 {
            best = (exponent, found);
        }
    }
    (best.1 * 2 >= sample().count() && best.1 > 0).then_some(best.0)
}

/// The numbers encoded, or `None` where that takes `limit` bytes or more.
pub(super) fn encode(numbers: &[f64], limit: usize) -> Option<Vec<u8>> {
    let exponent = exponent_of(numbers)?;
    let power = POWERS.get(exponent).copied()?;
    let (mut rows, mut exceptions) = (Vec::new(), Vec::new());
    let mut integers = Vec::with_capacity(numbers.len());
    let mut last = 0;
    for (row, number) in numbers.iter().enumerate() {
        match scaled(*number, power) {
            Some(integer) => last = integer,
            None => {
                rows.extend_from_slice(&(row as u32).to_le_bytes());
                exceptions.extend_from_slice(&number.to_bits().to_le_bytes());
            }
        }
        integers.push(last);
    }
    let (scheme, size) = integer::cheapest(&integers);
    if HEAD_BYTES + exceptions.len() + rows.len() + size >= limit {
        return None;
    }
    let mut out = vec![exponent as u8, u8::from(scheme == Scheme::Delta), 0, 0];
    out.extend_from_slice(&((rows.len() / 4) as u32).to_le_bytes());
    out.extend_from_slice(&exceptions);
    out.extend_from_slice(&rows);
    integer::encode(&integers, scheme, &mut out);
    Some(out)
}

/// Reads `rows` numbers; `bytes` holds nothing else.
pub(super) fn decode(bytes: &[u8], rows: usize) -> Result<Vec<f64>, Damage> {
    let mut cursor = Cursor::new(bytes);
    let power = POWERS.get(usize::from(cursor.u8()?)).copied().ok_or(Damage("the exponent is above 18"))?;
    let scheme = match cursor.u8()? {
        0 => Scheme::Packed,
        1 => Scheme::Delta,
        _ => return Err(Damage("the scheme of the scaled integers is unknown")),
    };
    cursor.zeros(2)?;
    let count = cursor.u32()? as usize;
    if count > rows {
        return Err(Damage("there are more exceptions than rows"));
    }
    let mut exceptions = Cursor::new(cursor.take(count * 8)?);
    let mut places = Cursor::new(cursor.take(count * 4)?);
    let mut numbers: Vec<f64> =
        integer::decode(cursor.rest(), scheme, rows)?.into_iter().map(|n| unscaled(n, power)).collect();
    for _ in 0..count {
        let bits = exceptions.u64()?;
        let place = numbers.get_mut(places.u32()? as usize).ok_or(Damage("an exception is in no row"))?;
        *place = f64::from_bits(bits);
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    fn bits(numbers: &[f64]) -> Vec<u64> {
        numbers.iter().map(|n| n.to_bits()).collect()
    }

    fn round_trip(numbers: &[f64]) -> Option<usize> {
        let bytes = encode(numbers, usize::MAX)?;
        assert_eq!(bits(&decode(&bytes, numbers.len()).unwrap()), bits(numbers));
        Some(bytes.len())
    }

    #[test]
    fn prices_take_few_bits() {
        let prices: Vec<f64> = (0..10_000).map(|i| f64::from(10_000 + i * 37 % 500) / 100.0).collect();
        assert!(round_trip(&prices).unwrap() < 10_000 * 10 / 8);
    }

    #[test]
    fn strange_numbers_are_exceptions() {
        let odd = f64::from_bits(0x7ff8_dead_beef_0001);
        let strange = [0.1, -0.0, f64::NAN, odd, f64::INFINITY, f64::MIN_POSITIVE, 0.2, 0.3, 1e300, 0.5, 0.7];
        let mut numbers = strange.to_vec();
        numbers.extend((0..20).map(|i| f64::from(i) / 8.0));
        assert!(round_trip(&numbers).is_some());
        assert_eq!(round_trip(&[f64::NAN, 1e300]), None);
        assert_eq!(encode(&[0.1, 0.2], 16), None, "nothing is gained");
    }

    proptest! {
        #[test]
        fn any_numbers_come_back(numbers in proptest::collection::vec(any::<u64>().prop_map(f64::from_bits), 1..99)) {
            round_trip(&numbers);
        }

        #[test]
        fn decimals_come_back(
            numbers in proptest::collection::vec(any::<i32>(), 1..2000),
            power in 0usize..19,
        ) {
            let numbers: Vec<f64> = numbers.into_iter().map(|n| f64::from(n) / POWERS[power]).collect();
            round_trip(&numbers);
        }

        #[test]
        fn any_bytes_are_numbers_or_damage(
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), 0u8..4, any::<u8>()], 0..200),
            rows in 0usize..2000,
        ) {
            if let Ok(numbers) = decode(&bytes, rows) {
                prop_assert_eq!(numbers.len(), rows);
            }
        }
    }
}
