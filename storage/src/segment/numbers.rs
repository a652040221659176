//! Blocks of numbers: a table with one entry for each vector of up to 1,024 values, then what each vector takes.
//!
//! Each vector has the form that suits it, and is read without its neighbours.

use std::marker::PhantomData;
use std::ops::Range;

use super::alp::{self, Decimals, Float};
use super::cluster::Layout;
use super::lanes;
use super::simd::{Instructions, Work};
use super::vector::{self, Entry, Form};
use crate::cursor::Cursor;
use crate::error::Damage;
use crate::limits::VECTOR_ROWS;

/// Length of a table entry.
const ENTRY_BYTES: usize = 16;

const WRONG_PLACES: Damage = Damage("the places of the vectors are wrong");

/// A block that is being written.
#[derive(Default)]
struct Block {
    table: Vec<u8>,
    vectors: Vec<u8>,
}

impl Block {
    /// Enters a vector whose bytes were appended.
    fn enter(&mut self, entry: Entry) {
        self.table.extend_from_slice(&(self.vectors.len() as u32).to_le_bytes());
        self.table.extend_from_slice(&[entry.form as u8, entry.width as u8, entry.exponent, entry.factor]);
        self.table.extend_from_slice(&entry.base.to_le_bytes());
    }

    fn finish(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.table);
        out.extend_from_slice(&self.vectors);
    }
}

/// Appends integers that take `raw_bytes` each, four or eight, as they are.
pub(super) fn encode_integers(values: &[i64], layout: Layout<'_>, raw_bytes: usize, out: &mut Vec<u8>) {
    let mut block = Block::default();
    for values in layout.vectors(values) {
        let form = vector::choose(values, raw_bytes).form;
        let entry = vector::encode(values, form, raw_bytes, &mut block.vectors);
        block.enter(entry);
    }
    block.finish(out);
}

/// Appends floating-point numbers.
pub(super) fn encode_floats<T: Float>(numbers: &[T], layout: Layout<'_>, out: &mut Vec<u8>) {
    let mut block = Block::default();
    let pairs = alp::pairs(numbers);
    for numbers in layout.vectors(numbers) {
        let as_bits: Vec<i64> = numbers.iter().map(|number| number.bits()).collect();
        let as_they_are = vector::choose(&as_bits, T::BYTES);
        let decimals = Decimals::of(numbers, &pairs);
        let better =
            decimals.filter(|decimals| as_they_are.or(decimals.choice()).form == decimals.choice().form);
        let entry = match better {
            Some(decimals) => decimals.encode(numbers, &mut block.vectors),
            None => vector::encode(&as_bits, as_they_are.form, T::BYTES, &mut block.vectors),
        };
        block.enter(entry);
    }
    block.finish(out);
}

/// The vectors of a block from the `first` on, with their entries; `bytes` holds nothing else.
fn vectors<'b>(
    bytes: &'b [u8],
    layout: Layout<'_>,
    first: usize,
) -> Result<impl Iterator<Item = Result<(Entry, &'b [u8]), Damage>> + use<'b>, Damage> {
    let table_bytes = layout.count().checked_mul(ENTRY_BYTES).ok_or(WRONG_PLACES)?;
    let mut cursor = Cursor::new(bytes);
    let mut table = Cursor::new(cursor.take(table_bytes)?);
    let bodies = cursor.rest();
    let mut start = 0;
    let mut left = (table_bytes / ENTRY_BYTES).saturating_sub(first);
    if table_bytes == 0 && !bodies.is_empty() {
        return Err(WRONG_PLACES);
    }
    if first > 0 {
        // A vector begins where the one before ends.
        table.take((first - 1) * ENTRY_BYTES)?;
        start = table.u32()? as usize;
        table.take(ENTRY_BYTES - 4)?;
    }
    let count = left;
    let mut next = move || {
        let end = table.u32()? as usize;
        let [form, width, exponent, factor] = table.array()?;
        let form = Form::ALL.into_iter().find(|known| *known as u8 == form);
        let form = form.ok_or(Damage("the form of a vector is unknown"))?;
        let entry = Entry { form, width: u32::from(width), exponent, factor, base: table.i64()? };
        let body = bodies.get(start..end).ok_or(WRONG_PLACES)?;
        start = end;
        left -= 1;
        if left == 0 && end != bodies.len() {
            return Err(WRONG_PLACES);
        }
        Ok((entry, body))
    };
    Ok((0..count).map(move |_| next()))
}

/// Reads integers of a block, those of the rows of `range`; `bytes` holds nothing else.
pub(super) fn decode_integers(
    bytes: &[u8],
    raw_bytes: usize,
    layout: Layout<'_>,
    range: Range<usize>,
) -> Result<Vec<i64>, Damage> {
    Instructions::in_use().run(Integers { bytes, raw_bytes, layout, range })
}

/// The same of floating-point numbers.
pub(super) fn decode_floats<T: Float>(
    bytes: &[u8],
    layout: Layout<'_>,
    range: Range<usize>,
) -> Result<Vec<T>, Damage> {
    Instructions::in_use().run(Floats { bytes, layout, range, length: PhantomData })
}

/// Reads vectors into `scratch` one by one and keeps of each the numbers that lie in `range`.
#[inline(always)]
fn gather<T: Copy + Default>(
    bytes: &[u8],
    layout: Layout<'_>,
    range: Range<usize>,
    decode: impl Fn(Entry, &[u8], &mut [T]) -> Result<(), Damage>,
) -> Result<Vec<T>, Damage> {
    let (mut numbers, mut scratch) = (Vec::with_capacity(range.len()), [T::default(); VECTOR_ROWS]);
    let mut number = layout.vector_of(range.start);
    let mut vectors = vectors(bytes, layout, number)?;
    loop {
        let rows = layout.rows_of(number);
        // A block without rows has its bytes checked too.
        let Some(vector) = vectors.next().filter(|_| rows.start < range.end) else { return Ok(numbers) };
        let (entry, body) = vector?;
        let some = scratch.get_mut(..rows.len()).ok_or(WRONG_PLACES)?;
        decode(entry, body, some)?;
        let wanted = range.start.saturating_sub(rows.start)..(range.end - rows.start).min(rows.len());
        numbers.extend_from_slice(some.get(wanted).unwrap_or_default());
        number += 1;
    }
}

/// Puts together what the frames of the vectors tell that hold some rows; `None` where one does not.
fn bounds<T: Copy>(
    bytes: &[u8],
    layout: Layout<'_>,
    range: Range<usize>,
    of_vector: impl Fn(Entry, &[u8], usize) -> Option<(T, T)>,
    wider: impl Fn((T, T), (T, T)) -> (T, T),
) -> Option<(T, T)> {
    let first = layout.vector_of(range.start);
    let mut vectors = vectors(bytes, layout, first).ok()?;
    let (mut number, mut both) = (first, None);
    loop {
        let rows = layout.rows_of(number);
        if rows.start >= range.end {
            return both;
        }
        let (entry, body) = vectors.next()?.ok()?;
        let ends = of_vector(entry, body, rows.len())?;
        both = Some(both.map_or(ends, |both| wider(both, ends)));
        number += 1;
    }
}

/// The least and the greatest integer that some rows of a block may have, as the frames of their vectors tell.
pub(super) fn integer_bounds(bytes: &[u8], layout: Layout<'_>, range: Range<usize>) -> Option<(i64, i64)> {
    let of_vector = |entry: Entry, body: &[u8], rows| match entry.form {
        Form::Constant | Form::Packed | Form::Delta => vector::bounds(entry, body, rows),
        _ => None,
    };
    bounds(bytes, layout, range, of_vector, |a, b| (a.0.min(b.0), a.1.max(b.1)))
}

/// The same of floating-point numbers.
pub(super) fn float_bounds<T: Float>(
    bytes: &[u8],
    layout: Layout<'_>,
    range: Range<usize>,
) -> Option<(f64, f64)> {
    let of_vector = |entry: Entry, body: &[u8], rows| match entry.form {
        Form::Constant => {
            let number = T::from_bits(entry.base).ok()?.wide();
            (!number.is_nan()).then_some((number, number))
        }
        _ => alp::bounds::<T>(entry, body, rows),
    };
    bounds(bytes, layout, range, of_vector, |a, b| (a.0.min(b.0), a.1.max(b.1)))
}

/// Rows of a vector that are read one by one rather than with all others.
const FEW: usize = 64;

/// Integers of a block at rows that rise.
pub(super) fn integers_at(
    bytes: &[u8],
    raw_bytes: usize,
    layout: Layout<'_>,
    at: &[u32],
) -> Result<Vec<i64>, Damage> {
    let single = |entry: Entry, body: &[u8], i: usize| match entry.form {
        _ if (entry.exponent, entry.factor) != (0, 0) => None,
        Form::Constant if entry.width == 0 && body.is_empty() => Some(entry.base),
        Form::Packed if body.len() == lanes::packed_bytes(VECTOR_ROWS, entry.width) => {
            Some(entry.base.wrapping_add(lanes::number(body, entry.width, i)? as i64))
        }
        _ => None,
    };
    at_rows(bytes, layout, at, single, |range| decode_integers(bytes, raw_bytes, layout, range))
}

/// The same of floating-point numbers.
pub(super) fn floats_at<T: Float>(bytes: &[u8], layout: Layout<'_>, at: &[u32]) -> Result<Vec<T>, Damage> {
    let single = |entry: Entry, body: &[u8], i: usize| match entry.form {
        Form::Decimal => alp::single(entry, body, i),
        _ => None,
    };
    at_rows(bytes, layout, at, single, |range| decode_floats(bytes, layout, range))
}

/// Takes numbers out of full vectors by `single` where they are few, else out of what `decode` makes of a vector.
fn at_rows<T: Copy>(
    bytes: &[u8],
    layout: Layout<'_>,
    mut at: &[u32],
    single: impl Fn(Entry, &[u8], usize) -> Option<T>,
    decode: impl Fn(Range<usize>) -> Result<Vec<T>, Damage>,
) -> Result<Vec<T>, Damage> {
    let (mut numbers, count) = (Vec::with_capacity(at.len()), at.len());
    while let Some(row) = at.first() {
        let first = layout.vector_of(*row as usize);
        let range = layout.rows_of(first);
        let (of_vector, rest) = at.split_at(at.partition_point(|row| (*row as usize) < range.end).max(1));
        at = rest;
        let before = numbers.len();
        if of_vector.len() <= FEW && range.len() == VECTOR_ROWS {
            let (entry, body) = vectors(bytes, layout, first)?.next().ok_or(WRONG_PLACES)??;
            // What a reader of all would refuse is left to it.
            let is_sound = body.len() >= lanes::packed_bytes(VECTOR_ROWS, entry.width) && entry.width < 64;
            if is_sound {
                let place = |row: &u32| (*row as usize).checked_sub(range.start);
                numbers.extend(of_vector.iter().map_while(|row| single(entry, body, place(row)?)));
            }
        }
        if numbers.len() - before < of_vector.len() {
            numbers.truncate(before);
            let all = decode(range.clone())?;
            let place = |row: &u32| all.get((*row as usize).checked_sub(range.start)?).copied();
            numbers.extend(of_vector.iter().filter_map(place));
        }
    }
    if numbers.len() < count { Err(WRONG_PLACES) } else { Ok(numbers) }
}

/// The reading of integers.
struct Integers<'a> {
    bytes: &'a [u8],
    raw_bytes: usize,
    layout: Layout<'a>,
    range: Range<usize>,
}

impl Work for Integers<'_> {
    type Made = Result<Vec<i64>, Damage>;

    #[inline(always)]
    fn run(self) -> Self::Made {
        let Integers { bytes, raw_bytes, layout, range } = self;
        gather(bytes, layout, range, |entry, body, to| {
            vector::decode(entry, body, raw_bytes, to, |value| value)
        })
    }
}

/// The reading of floating-point numbers.
struct Floats<'a, T> {
    bytes: &'a [u8],
    layout: Layout<'a>,
    range: Range<usize>,
    length: PhantomData<T>,
}

impl<T: Float> Work for Floats<'_, T> {
    type Made = Result<Vec<T>, Damage>;

    #[inline(always)]
    fn run(self) -> Self::Made {
        let Floats { bytes, layout, range, .. } = self;
        gather(bytes, layout, range, |entry, body, to| {
            if matches!(entry.form, Form::Decimal | Form::DecimalDelta) {
                alp::decode(entry, body, to)
            } else {
                vector::decode(entry, body, T::BYTES, to, T::from_low_bits)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    fn encode_integers(values: &[i64], raw_bytes: usize, out: &mut Vec<u8>) {
        super::encode_integers(values, Layout::even(values.len()), raw_bytes, out);
    }

    fn encode_floats<T: Float>(numbers: &[T], out: &mut Vec<u8>) {
        super::encode_floats(numbers, Layout::even(numbers.len()), out);
    }

    /// All of a block.
    fn decode_integers(bytes: &[u8], raw_bytes: usize, rows: usize) -> Result<Vec<i64>, Damage> {
        super::decode_integers(bytes, raw_bytes, Layout::even(rows), 0..rows)
    }

    /// All of a block.
    fn decode_floats<T: Float>(bytes: &[u8], rows: usize) -> Result<Vec<T>, Damage> {
        super::decode_floats(bytes, Layout::even(rows), 0..rows)
    }

    /// The forms of a block's vectors.
    fn forms(bytes: &[u8], rows: usize) -> Vec<Form> {
        vectors(bytes, Layout::even(rows), 0).unwrap().map(|vector| vector.unwrap().0.form).collect()
    }

    fn mix(i: i64) -> i64 {
        let mixed = (i ^ i >> 30).wrapping_add(7).wrapping_mul(0x3f58_476d_1ce4_e5b9);
        (mixed ^ mixed >> 27).wrapping_mul(0x14d0_49bb_1331_11eb).rotate_left(31)
    }

    /// Integers that take a form each, vector by vector, and a short vector behind them.
    fn integers() -> Vec<i64> {
        let of = |vector: i64, i: i64| match vector {
            0 => 8,
            1 => mix(i).rem_euclid(900),
            2 => i * 1_000_000 + mix(i).rem_euclid(50),
            3 => mix(i / 200),
            4 => mix(mix(i).rem_euclid(3)),
            5 => mix(i),
            _ => i % 5,
        };
        (0..6 * 1_024 + 77).map(|i| of(i / 1_024, i % 1_024)).collect()
    }

    /// Numbers that take a form each, vector by vector, and a short vector behind them.
    fn floats() -> Vec<f64> {
        let of = |vector: i64, i: i64| match vector {
            0 => f64::NAN,
            1 => f64::from_bits(0x3ff0_0000_0000_0000 + mix(i).rem_euclid(1 << 40) as u64),
            2 => (i / 200) as f64 * 0.1234567890123,
            3 => [0.1234567890123, -1e300, f64::INFINITY][mix(i).rem_euclid(3) as usize],
            4 => f64::from_bits(mix(i) as u64),
            5 if i % 100 == 3 => f64::MIN_POSITIVE,
            6 => (10_000 + i * 100 + i % 3) as f64 / 100.0,
            _ => (10_000 + mix(i).rem_euclid(500)) as f64 / 100.0,
        };
        // Most of the block are decimals, as its sample shall see.
        (0..30 * 1_024 + 77).map(|i| of(i / 1_024, i % 1_024)).collect()
    }

    #[test]
    fn each_vector_has_a_form_of_its_own() {
        let (integers, mut bytes) = (integers(), Vec::new());
        encode_integers(&integers, 8, &mut bytes);
        assert_eq!(decode_integers(&bytes, 8, integers.len()).unwrap(), integers);
        use Form::*;
        assert_eq!(forms(&bytes, integers.len()), [Constant, Packed, Delta, Runs, Dictionary, Raw, Packed]);

        let (floats, mut bytes) = (floats(), Vec::new());
        encode_floats(&floats, &mut bytes);
        let back: Vec<f64> = decode_floats(&bytes, floats.len()).unwrap();
        assert!(back.iter().zip(&floats).all(|(a, b)| a.to_bits() == b.to_bits()));
        let found = forms(&bytes, floats.len());
        assert_eq!(found[..7], [Constant, Packed, Runs, Dictionary, Raw, Decimal, DecimalDelta]);
        assert!(found[7..].iter().all(|form| *form == Decimal));
    }

    #[test]
    fn a_number_takes_the_bytes_that_it_needs() {
        let (mut four, mut eight) = (Vec::new(), Vec::new());
        let wild: Vec<i64> = (0..1_024).map(|i| i64::from(mix(i) as i32)).collect();
        encode_integers(&wild, 4, &mut four);
        encode_integers(&wild, 8, &mut eight);
        assert_eq!(forms(&four, 1_024), [Form::Raw], "32 bits are four bytes");
        let few: Vec<i64> = (0..1_024).map(|i| wild[(mix(i) & 127) as usize]).collect();
        let mut dictionary = Vec::new();
        encode_integers(&few, 4, &mut dictionary);
        assert_eq!(forms(&dictionary, 1_024), [Form::Dictionary]);
        assert_eq!(decode_integers(&dictionary, 4, 1_024).unwrap(), few);
        assert!(decode_integers(&dictionary, 8, 1_024).is_err());
    }

    #[test]
    fn the_bytes_of_all_forms_are_fixed() {
        let (mut integers, mut floats) = (Vec::new(), Vec::new());
        encode_integers(&self::integers(), 8, &mut integers);
        encode_floats(&self::floats(), &mut floats);
        let hash = |bytes: &[u8]| blake3::hash(bytes).to_hex().to_string();
        assert_eq!((integers.len(), &hash(&integers)[..16]), INTEGERS);
        assert_eq!((floats.len(), &hash(&floats)[..16]), FLOATS);
        let short: Vec<f32> = self::floats().iter().map(|number| *number as f32).collect();
        let mut bytes = Vec::new();
        encode_floats(&short, &mut bytes);
        assert_eq!((bytes.len(), &hash(&bytes)[..16]), SHORT);
    }

    const INTEGERS: (usize, &str) = (10861, "60b182342a51f3cc");
    const SHORT: (usize, &str) = (32504, "e61e354764b99abf");
    const FLOATS: (usize, &str) = (42312, "3d3a5f4b206d086a");

    /// A block with one byte or one bit changed is read as as many values, or refused.
    fn twins(bytes: &[u8], rows: usize, read: impl Fn(&[u8]) -> Option<usize>) {
        assert_eq!(read(bytes), Some(rows));
        let mut refused = 0;
        for at in (0..bytes.len()).step_by(if bytes.len() > 10_000 { 37 } else { 1 }).chain(0..300) {
            for mask in [0x01, 0x80, 0xff] {
                let mut twin = bytes.to_vec();
                twin[at] ^= mask;
                match read(&twin) {
                    Some(found) => assert_eq!(found, rows),
                    None => refused += 1,
                }
            }
        }
        assert!(refused > 0);
        assert_eq!(read(&bytes[..bytes.len() - 1]), None);
        assert_eq!(read(&[bytes, &[0]].concat()), None);
    }

    #[test]
    fn corrupt_twins_are_refused_or_as_many_values() {
        let (mut bytes, integers) = (Vec::new(), integers());
        encode_integers(&integers, 8, &mut bytes);
        twins(&bytes, integers.len(), |bytes| Some(decode_integers(bytes, 8, integers.len()).ok()?.len()));
        let (mut bytes, floats) = (Vec::new(), &floats()[..8 * 1_024 + 77]);
        encode_floats(floats, &mut bytes);
        twins(&bytes, floats.len(), |bytes| Some(decode_floats::<f64>(bytes, floats.len()).ok()?.len()));
    }

    /// What each set of instructions makes of a block is the same, damage too.
    fn alike(bytes: &[u8], rows: usize) {
        let sets = Instructions::all();
        let [portable, better @ ..] = &sets[..] else { panic!("there is always the portable set") };
        for raw_bytes in [4, 8] {
            let layout = Layout::even(rows);
            let integers =
                |set: &Instructions| set.run(Integers { bytes, raw_bytes, layout, range: 0..rows });
            better.iter().for_each(|set| assert_eq!(integers(set), integers(portable), "{set:?}"));
        }
        fn floats<T: Float>(bytes: &[u8], rows: usize, set: &Instructions) -> Result<Vec<i64>, Damage> {
            let layout = Layout::even(rows);
            let made = set.run(Floats::<T> { bytes, layout, range: 0..rows, length: PhantomData })?;
            Ok(made.into_iter().map(Float::bits).collect())
        }
        for set in better {
            assert_eq!(floats::<f64>(bytes, rows, set), floats::<f64>(bytes, rows, portable), "{set:?}");
            assert_eq!(floats::<f32>(bytes, rows, set), floats::<f32>(bytes, rows, portable), "{set:?}");
        }
    }

    #[test]
    fn all_sets_of_instructions_read_the_same() {
        let (integers, floats) = (integers(), floats());
        let short: Vec<f32> = floats.iter().map(|number| *number as f32).collect();
        let (mut eight, mut long, mut four) = (Vec::new(), Vec::new(), Vec::new());
        encode_integers(&integers, 8, &mut eight);
        encode_floats(&floats, &mut long);
        encode_floats(&short, &mut four);
        for (bytes, rows) in [(eight, integers.len()), (long, floats.len()), (four, short.len())] {
            alike(&bytes, rows);
            for at in (0..bytes.len()).step_by(37) {
                let mut wrong = bytes.clone();
                wrong[at] ^= 1 << (at % 8);
                alike(&wrong, rows);
            }
        }
    }

    #[test]
    fn nothing_is_nothing() {
        let mut bytes = Vec::new();
        encode_integers(&[], 8, &mut bytes);
        encode_floats::<f64>(&[], &mut bytes);
        assert!(bytes.is_empty());
        assert_eq!((decode_integers(&[], 8, 0), decode_floats::<f64>(&[], 0)), (Ok(vec![]), Ok(vec![])));
        assert!(decode_integers(&[0], 8, 0).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_numbers_or_damage(
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), 0u8..9, any::<u8>()], 0..200),
            rows in 0usize..3000,
        ) {
            alike(&bytes, rows);
            if let Ok(values) = decode_integers(&bytes, 8, rows) {
                prop_assert_eq!(values.len(), rows);
            }
            if let Ok(numbers) = decode_floats::<f64>(&bytes, rows) {
                prop_assert_eq!(numbers.len(), rows);
            }
            if let Ok(numbers) = decode_floats::<f32>(&bytes, rows) {
                prop_assert_eq!(numbers.len(), rows);
            }
        }
    }
}
