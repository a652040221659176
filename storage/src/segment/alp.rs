//! Floating-point numbers that are decimals, as integers: ALP (Afroozeh, Kuffo and Boncz, 2023).
//!
//! Prices and readings are mostly decimals of few places. A vector chooses an exponent `e` and a factor `f`; a number
//! becomes the integer nearest to `number × 10^e × 10^-f`, and comes back as `integer × 10^f × 10^-e`. The order of
//! the operations is fixed, each is rounded to nearest, none is fused. A number that does not come back bit for bit
//! is an exception and kept as it is, with its row. A few pairs of exponents are chosen for a block, one of them for each vector.

use super::vector::{self, Choice, Entry, Form};
use crate::cursor::Cursor;
use crate::error::Damage;
use crate::limits::VECTOR_ROWS;

/// Powers of ten; each is exact in binary64.
const POWERS: [f64; 19] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18];

/// Their inverses, rounded to nearest.
const INVERSES: [f64; 19] = [
    1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12, 1e-13, 1e-14, 1e-15,
    1e-16, 1e-17, 1e-18,
];

/// 2^52 + 2^51: added to a number within ±2^51, it leaves the nearest integer in the low bits.
const ROUNDER: f64 = 6_755_399_441_055_744.0;

/// Integers lie within plus and minus this, 2^50, and distances below it: so sums stay within ±2^51.
const INTEGER_MAX: i64 = 1 << 50;

/// Bits of a packed distance at most.
const WIDTH_MAX: u32 = 50;

/// Numbers of a block looked at to choose its pairs of exponents.
const BLOCK_SAMPLES: usize = 256;

/// Numbers of a vector looked at to choose among them.
const VECTOR_SAMPLES: usize = 32;

/// Pairs of exponents that a block keeps.
const PAIRS_MAX: usize = 4;

/// Bytes of an exception's row.
const ROW_BYTES: usize = 2;

/// A floating-point number of either length.
pub(super) trait Float: Copy + Default {
    /// Its length.
    const BYTES: usize;

    /// The same number.
    fn wide(self) -> f64;

    /// The number of this length that is nearest.
    fn nearest(wide: f64) -> Self;

    /// Its bits as an integer; those of the shorter one as an `i32`.
    fn bits(self) -> i64;

    /// The number of the low bits of an integer.
    fn from_low_bits(bits: i64) -> Self;

    /// The number of such bits; damage where there are too many.
    fn from_bits(bits: i64) -> Result<Self, Damage> {
        let number = Self::from_low_bits(bits);
        if number.bits() == bits { Ok(number) } else { Err(Damage("a number has too many bits")) }
    }
}

impl Float for f64 {
    const BYTES: usize = 8;

    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }

    #[inline(always)]
    fn nearest(wide: f64) -> f64 {
        wide
    }

    #[inline(always)]
    fn bits(self) -> i64 {
        self.to_bits().cast_signed()
    }

    #[inline(always)]
    fn from_low_bits(bits: i64) -> f64 {
        f64::from_bits(bits.cast_unsigned())
    }
}

impl Float for f32 {
    const BYTES: usize = 4;

    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self)
    }

    #[inline(always)]
    fn nearest(wide: f64) -> f32 {
        wide as f32
    }

    #[inline(always)]
    fn bits(self) -> i64 {
        i64::from(self.to_bits().cast_signed())
    }

    #[inline(always)]
    fn from_low_bits(bits: i64) -> f32 {
        f32::from_bits(bits as u32)
    }
}

/// Exponent and factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    exponent: u8,
    factor: u8,
}

/// What a pair multiplies by.
#[derive(Clone, Copy)]
struct Scale {
    up: f64,
    up_factor: f64,
    down_factor: f64,
    down: f64,
}

impl Pair {
    fn scale(self) -> Option<Scale> {
        let (e, f) = (usize::from(self.exponent), usize::from(self.factor));
        if f > e {
            return None;
        }
        let (up, down) = (*POWERS.get(e)?, *INVERSES.get(e)?);
        Some(Scale { up, up_factor: *INVERSES.get(f)?, down_factor: *POWERS.get(f)?, down })
    }
}

impl Scale {
    /// The integer that stands for a number, and whether it comes back bit for bit.
    #[inline(always)]
    fn integer<T: Float>(self, number: T) -> (i64, bool) {
        let scaled = number.wide() * self.up * self.up_factor;
        let integer = (scaled + ROUNDER).to_bits().wrapping_sub(ROUNDER.to_bits()) as i64;
        let is_near = scaled.abs() < INTEGER_MAX as f64;
        (integer, is_near & (T::nearest(self.number(integer)).bits() == number.bits()))
    }

    /// The number that an integer within ±2^51 stands for.
    #[inline(always)]
    fn number(self, integer: i64) -> f64 {
        let whole = f64::from_bits(ROUNDER.to_bits().wrapping_add(integer as u64)) - ROUNDER;
        whole * self.down_factor * self.down
    }

    /// Bits that a sample takes, about, and how many of it are exceptions.
    fn cost<T: Float>(self, sample: impl Iterator<Item = T>) -> (usize, usize) {
        let (mut min, mut max, mut hits, mut misses) = (i64::MAX, i64::MIN, 0, 0);
        for number in sample {
            match self.integer(number) {
                (integer, true) => {
                    (min, max) = (min.min(integer), max.max(integer));
                    hits += 1;
                }
                _ => misses += 1,
            }
        }
        let width = if hits > 0 { vector::width_between((min, max)) as usize } else { 0 };
        ((hits + misses) * width + misses * (T::BYTES + ROW_BYTES) * 8, misses)
    }
}

/// The pairs under which a sample of a block takes fewest bits, the best first; none where half of it are exceptions.
pub(super) fn pairs<T: Float>(numbers: &[T]) -> Vec<Pair> {
    let sample: Vec<T> =
        numbers.iter().step_by((numbers.len() / BLOCK_SAMPLES).max(1)).take(BLOCK_SAMPLES).copied().collect();
    let mut found = Vec::new();
    for exponent in 0..POWERS.len() as u8 {
        for factor in 0..=exponent {
            let pair = Pair { exponent, factor };
            let Some(scale) = pair.scale() else { continue };
            let (bits, misses) = scale.cost(sample.iter().copied());
            if misses * 2 < sample.len() {
                found.push((bits, pair));
            }
        }
    }
    found.sort_by_key(|(bits, _)| *bits);
    found.into_iter().take(PAIRS_MAX).map(|(_, pair)| pair).collect()
}

/// A vector as integers and exceptions.
pub(super) struct Decimals {
    pair: Pair,
    integers: Vec<i64>,
    /// Rows of exceptions.
    misses: Vec<u16>,
    choice: Choice,
}

impl Decimals {
    /// One vector under the best of the pairs; `None` where none does.
    pub(super) fn of<T: Float>(numbers: &[T], pairs: &[Pair]) -> Option<Decimals> {
        let stride = (numbers.len() / VECTOR_SAMPLES).max(1);
        let cost = |pair: &&Pair| {
            let sample = numbers.iter().step_by(stride).copied();
            pair.scale().map_or(usize::MAX, |scale| scale.cost(sample).0)
        };
        let pair = if pairs.len() > 1 { pairs.iter().min_by_key(cost) } else { pairs.first() };
        let (pair, scale) = pair.and_then(|pair| Some((*pair, pair.scale()?)))?;
        let mut integers = vec![0; numbers.len()];
        let mut fits = vec![true; numbers.len()];
        for ((integer, fits), number) in integers.iter_mut().zip(&mut fits).zip(numbers) {
            (*integer, *fits) = scale.integer(*number);
        }
        let misses: Vec<u16> =
            fits.iter().zip(0u16..).filter(|(fits, _)| !**fits).map(|(_, row)| row).collect();
        if !misses.is_empty() {
            let mut last = fits.iter().position(|fits| *fits).and_then(|row| integers.get(row).copied())?;
            for (integer, fits) in integers.iter_mut().zip(&fits) {
                if *fits { last = *integer } else { *integer = last }
            }
        }
        let mut choice = vector::choose_decimal(&integers);
        let ends = vector::ends(integers.iter().copied());
        if choice.form == Form::Decimal && vector::width_between(ends) > WIDTH_MAX {
            return None;
        }
        choice.bytes += 2 + misses.len() * (T::BYTES + ROW_BYTES);
        Some(Decimals { pair, integers, misses, choice })
    }

    /// The form, and the bytes that it takes.
    pub(super) fn choice(&self) -> Choice {
        self.choice
    }

    /// Appends the vector.
    pub(super) fn encode<T: Float>(&self, numbers: &[T], out: &mut Vec<u8>) -> Entry {
        out.extend_from_slice(&(self.misses.len() as u16).to_le_bytes());
        self.misses.iter().for_each(|row| out.extend_from_slice(&row.to_le_bytes()));
        let exceptions = self.misses.iter().filter_map(|row| numbers.get(usize::from(*row)));
        exceptions.for_each(|number| {
            out.extend_from_slice(number.bits().to_le_bytes().get(..T::BYTES).unwrap_or_default());
        });
        let entry = vector::encode(&self.integers, self.choice.form, 8, out);
        Entry { exponent: self.pair.exponent, factor: self.pair.factor, ..entry }
    }
}

/// Reads a vector of decimals of `out.len()` rows; `bytes` holds nothing else.
#[inline(always)]
pub(super) fn decode<T: Float>(entry: Entry, bytes: &[u8], out: &mut [T]) -> Result<(), Damage> {
    let pair = Pair { exponent: entry.exponent, factor: entry.factor };
    let scale = pair.scale().ok_or(Damage("the exponents of a vector are out of range"))?;
    let mut cursor = Cursor::new(bytes);
    let count = usize::from(cursor.u16()?);
    if count >= out.len() {
        return Err(Damage("a vector has more exceptions than rows"));
    }
    let rows = cursor.take(count * 2)?.as_chunks::<2>().0;
    let exceptions = cursor.take(count * T::BYTES)?.chunks_exact(T::BYTES);
    let base = entry.base;
    if entry.form == Form::DecimalDelta {
        let mut is_far = false;
        let mut integers = [0i64; VECTOR_ROWS];
        let integers = integers.get_mut(..out.len()).ok_or(Damage("a vector has too many rows"))?;
        vector::decode_delta(entry, cursor.rest(), integers, |integer| integer)?;
        for (to, integer) in out.iter_mut().zip(integers) {
            is_far |= integer.unsigned_abs() > INTEGER_MAX.unsigned_abs();
            *to = T::nearest(scale.number(*integer));
        }
        if is_far {
            return Err(TOO_FAR);
        }
    } else {
        if entry.width > WIDTH_MAX || base.unsigned_abs() > INTEGER_MAX.unsigned_abs() {
            return Err(TOO_FAR);
        }
        super::lanes::unpack(cursor.rest(), entry.width, out, |number| {
            T::nearest(scale.number(base.wrapping_add(number as i64)))
        })?;
    }
    let mut next = 0;
    for (row, exception) in rows.iter().zip(exceptions) {
        let row = usize::from(u16::from_le_bytes(*row));
        let place = out.get_mut(row).filter(|_| row >= next);
        *place.ok_or(Damage("the rows of exceptions do not rise, or one is in no row"))? =
            T::from_low_bits(low(exception));
        next = row + 1;
    }
    Ok(())
}

/// A number of a full vector of decimals; `None` where that is not told by its own bits alone.
pub(super) fn single<T: Float>(entry: Entry, bytes: &[u8], i: usize) -> Option<T> {
    let scale = Pair { exponent: entry.exponent, factor: entry.factor }.scale()?;
    let packed = bytes.strip_prefix(&[0, 0])?;
    let is_near = entry.width <= WIDTH_MAX && entry.base.unsigned_abs() <= INTEGER_MAX.unsigned_abs();
    if entry.form != Form::Decimal || !is_near {
        return None;
    }
    let number = super::lanes::number(packed, entry.width, i)?;
    Some(T::nearest(scale.number(entry.base.wrapping_add(number as i64))))
}

/// The least and the greatest number that a vector of decimals may hold, as its frame tells; `None` where it does not.
pub(super) fn bounds<T: Float>(entry: Entry, bytes: &[u8], rows: usize) -> Option<(f64, f64)> {
    let scale = Pair { exponent: entry.exponent, factor: entry.factor }.scale()?;
    let mut cursor = Cursor::new(bytes);
    let count = usize::from(cursor.u16().ok()?);
    cursor.take(count * ROW_BYTES).ok()?;
    let exceptions = cursor.take(count * T::BYTES).ok()?.chunks_exact(T::BYTES);
    let is_decimal = matches!(entry.form, Form::Decimal | Form::DecimalDelta);
    let ends = vector::bounds(entry, cursor.rest(), rows).filter(|_| is_decimal)?;
    let number = |integer: i64| {
        let is_near = integer.unsigned_abs() <= 2 * INTEGER_MAX.unsigned_abs();
        is_near.then(|| T::nearest(scale.number(integer)).wide())
    };
    let mut both = (number(ends.0)?, number(ends.1)?);
    for exception in exceptions.map(|bytes| T::from_low_bits(low(bytes)).wide()) {
        if exception.is_nan() {
            return None;
        }
        both = (both.0.min(exception), both.1.max(exception));
    }
    Some(both)
}

/// The integer of so many little-endian bytes.
fn low(bytes: &[u8]) -> i64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | i64::from(*byte))
}

const TOO_FAR: Damage = Damage("the integer of a decimal is out of range");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    fn bits<T: Float>(numbers: &[T]) -> Vec<i64> {
        numbers.iter().map(|n| n.bits()).collect()
    }

    fn round_trip<T: Float>(numbers: &[T]) -> Option<(Entry, usize)> {
        let decimals = Decimals::of(numbers, &pairs(numbers))?;
        let mut bytes = Vec::new();
        let entry = decimals.encode(numbers, &mut bytes);
        assert_eq!(bytes.len(), decimals.choice().bytes);
        let mut back = vec![T::nearest(7.0); numbers.len()];
        decode(entry, &bytes, &mut back).unwrap();
        assert_eq!(self::bits(&back), self::bits(numbers));
        Some((entry, bytes.len()))
    }

    #[test]
    fn prices_take_few_bits() {
        let price = |i: i32| f64::from(10_000 + i * 37 % 500) / 100.0;
        let (entry, bytes) = round_trip(&(0..1_024).map(price).collect::<Vec<_>>()).unwrap();
        assert_eq!((entry.form, entry.width), (Form::Decimal, 9));
        assert!(bytes < 1_024 * 9 / 8 + 100, "{bytes}");
        let rising: Vec<f64> = (0..1_024).map(|i| f64::from(i * 1_000 + i % 3) / 1_000.0).collect();
        assert_eq!(round_trip(&rising).unwrap().0.form, Form::DecimalDelta);
    }

    #[test]
    fn short_numbers_are_decimals_too() {
        let price = |i: i32| (f64::from(10_000 + i * 37 % 500) / 100.0) as f32;
        let mut prices: Vec<f32> = (0..1_024).map(price).collect();
        let (entry, bytes) = round_trip(&prices).unwrap();
        assert_eq!((entry.form, entry.width, bytes), (Form::Decimal, 9, 2 + 128 * 9));
        let strange =
            [f32::NAN, f32::from_bits(0xffc0_1234), f32::NEG_INFINITY, -0.0, f32::MIN_POSITIVE, f32::MAX];
        prices.splice(10..16, strange);
        assert_eq!(round_trip(&prices).unwrap().1, bytes + 6 * 6, "six bytes each");
        assert_eq!(<f32 as Float>::from_bits(1 << 32), Err(Damage("a number has too many bits")));
        assert_eq!(<f32 as Float>::from_bits((-0.5f32).bits()), Ok(-0.5));
    }

    #[test]
    fn strange_numbers_are_exceptions() {
        let odd = f64::from_bits(0x7ff8_dead_beef_0001);
        let strange =
            [-0.0, 0.1, f64::NAN, odd, f64::INFINITY, f64::MIN_POSITIVE, 0.2, 0.3, 1e300, 0.5, -1e18];
        let mut numbers = strange.to_vec();
        numbers.extend((0..20).map(|i| f64::from(i) / 8.0));
        assert!(round_trip(&numbers).is_some());
        assert!(round_trip(&[f64::NAN, 1e300]).is_none());
        assert!(round_trip::<f64>(&[]).is_none());
    }

    #[test]
    fn integers_up_to_the_limit_come_back() {
        let limit = INTEGER_MAX as f64;
        for numbers in [
            vec![limit - 1.0, 1.0 - limit],
            vec![limit, -limit],
            vec![limit - 1.0; 3],
            vec![0.0, limit - 1.0],
        ] {
            round_trip(&numbers);
        }
    }

    #[test]
    fn entries_that_lie_are_damage() {
        let numbers: Vec<f64> =
            (0..50).map(|i| if i == 9 { f64::NAN } else { f64::from(i % 7) / 4.0 }).collect();
        let decimals = Decimals::of(&numbers, &pairs(&numbers)).unwrap();
        let mut bytes = Vec::new();
        let entry = decimals.encode(&numbers, &mut bytes);
        assert_eq!(entry.form, Form::Decimal);
        let read = |entry: Entry, bytes: &[u8]| decode(entry, bytes, &mut [0.0; 50]);
        assert!(read(entry, &bytes).is_ok());
        for wrong in [
            Entry { exponent: 19, ..entry },
            Entry { factor: entry.exponent + 1, ..entry },
            Entry { base: INTEGER_MAX + 1, ..entry },
            Entry { base: i64::MIN, ..entry },
            Entry { width: 51, ..entry },
            Entry { form: Form::DecimalDelta, ..entry },
        ] {
            assert!(read(wrong, &bytes).is_err(), "{wrong:?}");
        }
        bytes[2] = 50;
        assert_eq!(
            read(entry, &bytes).unwrap_err().0,
            "the rows of exceptions do not rise, or one is in no row"
        );
        bytes[0] = 50;
        assert!(read(entry, &bytes).is_err());
        let mut far = vec![0, 0];
        far.extend_from_slice(&INTEGER_MAX.to_le_bytes());
        let entry = Entry { form: Form::DecimalDelta, width: 0, base: 1, exponent: 0, factor: 0 };
        assert_eq!(decode(entry, &far, &mut [0.0; 2]), Err(TOO_FAR));
        assert_eq!(decode(entry, &far, &mut [0.0; 1]), Ok(()));
    }

    proptest! {
        #[test]
        fn any_numbers_come_back(numbers in proptest::collection::vec(any::<u64>().prop_map(f64::from_bits), 1..99)) {
            round_trip(&numbers);
        }

        #[test]
        fn any_short_numbers_come_back(numbers in proptest::collection::vec(any::<u32>().prop_map(f32::from_bits), 1..99)) {
            round_trip(&numbers);
        }

        #[test]
        fn decimals_come_back(
            numbers in proptest::collection::vec(any::<i32>(), 1..=1024),
            power in 0usize..19,
        ) {
            let numbers: Vec<f64> = numbers.into_iter().map(|n| f64::from(n) / POWERS[power]).collect();
            round_trip(&numbers);
        }

        #[test]
        fn any_bytes_are_numbers_or_damage(
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), 0u8..4, any::<u8>()], 0..200),
            form in prop_oneof![Just(Form::Decimal), Just(Form::DecimalDelta)],
            (width, exponent, factor) in (0u32..70, 0u8..20, 0u8..20),
            base in any::<i64>(),
            rows in 1usize..=1024,
        ) {
            let _ = decode(Entry { form, width, exponent, factor, base }, &bytes, &mut vec![0.0; rows]);
        }
    }
}
