//! One vector: up to 1,024 integers, or floating-point numbers as the integers of the same bits, in the form that
//! takes fewest bytes.
//!
//! A form that is read more slowly than another is taken where it saves a sixteenth of the bytes at least. Sums
//! and differences wrap, so that all of `i64` fits.

use super::{bits, lanes};
use crate::cursor::Cursor;
use crate::error::Damage;
use crate::limits::VECTOR_ROWS;

/// How a vector is written. The number is the byte on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(super) enum Form {
    /// All values are the base; no bytes.
    Constant = 0,
    /// The base and a packed distance from it for each value.
    Packed = 1,
    /// From the base, the first value, in steps: the smallest step, and how far each lies above it.
    Delta = 2,
    /// Values that stand several times in a row.
    Runs = 3,
    /// Packed codes of few distinct values.
    Dictionary = 4,
    /// As they are in memory.
    Raw = 5,
    /// Decimals: integers as in [`Form::Packed`], and exceptions.
    Decimal = 6,
    /// Decimals: integers as in [`Form::Delta`], and exceptions.
    DecimalDelta = 7,
}

impl Form {
    pub(super) const ALL: [Form; 8] = [
        Form::Constant,
        Form::Packed,
        Form::Delta,
        Form::Runs,
        Form::Dictionary,
        Form::Raw,
        Form::Decimal,
        Form::DecimalDelta,
    ];

    /// Whether reading costs more than unpacking.
    fn is_slow(self) -> bool {
        matches!(self, Form::Delta | Form::DecimalDelta)
    }
}

/// What the table of a block says of a vector, but for its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) form: Form,
    /// Bits of a packed number.
    pub(super) width: u32,
    /// Decimals: the power of ten that a number was multiplied by.
    pub(super) exponent: u8,
    /// Decimals: the power of ten that it was then divided by.
    pub(super) factor: u8,
    pub(super) base: i64,
}

impl Entry {
    pub(super) fn new(form: Form, width: u32, base: i64) -> Entry {
        Entry { form, width, exponent: 0, factor: 0, base }
    }
}

/// Distinct values of a dictionary at most.
const DICTIONARY_MAX: usize = 256;

/// Values looked at to see whether a dictionary may pay.
const SAMPLES: usize = 32;

const NO_FORM: Damage =
    Damage("the form of a vector is not one for its type, or what it does not use is not zero");

/// How many bytes each way takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    pub(super) form: Form,
    pub(super) bytes: usize,
}

impl Choice {
    /// The better of two: fewer bytes, but speed before a sixteenth of them.
    pub(super) fn or(self, other: Choice) -> Choice {
        let cost = |choice: Choice| choice.bytes * if choice.form.is_slow() { 17 } else { 16 };
        if cost(other) < cost(self) { other } else { self }
    }
}

/// Least and greatest of some values.
pub(super) fn ends(values: impl Iterator<Item = i64>) -> (i64, i64) {
    let (mut min, mut max) = (i64::MAX, i64::MIN);
    for value in values {
        min = min.min(value);
        max = max.max(value);
    }
    if min > max { (0, 0) } else { (min, max) }
}

/// Bits for the distance of the greatest from the least.
pub(super) fn width_between((min, max): (i64, i64)) -> u32 {
    bits::width_of(distance(max, min))
}

fn distance(value: i64, min: i64) -> u64 {
    value.wrapping_sub(min) as u64
}

fn steps(values: &[i64]) -> impl Iterator<Item = i64> + '_ {
    values.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]))
}

/// Between which integers the `rows` values of a packed vector lie, or of one of steps, by the frame alone; `None` where that is not told.
pub(super) fn bounds(entry: Entry, bytes: &[u8], rows: usize) -> Option<(i64, i64)> {
    let span = 1u64.checked_shl(entry.width).map_or(u64::MAX, |span| span - 1);
    match entry.form {
        Form::Constant => Some((entry.base, entry.base)),
        Form::Packed | Form::Decimal => Some((entry.base, entry.base.checked_add_unsigned(span)?)),
        Form::Delta | Form::DecimalDelta => {
            let smallest = i128::from(i64::from_le_bytes(*bytes.first_chunk()?));
            let (base, steps) = (i128::from(entry.base), i128::try_from(rows.checked_sub(1)?).ok()?);
            let least = base + (smallest * steps).min(0);
            let greatest = base + ((smallest + i128::from(span)) * steps).max(0);
            Some((least.try_into().ok()?, greatest.try_into().ok()?))
        }
        Form::Runs | Form::Dictionary | Form::Raw => None,
    }
}

/// Bytes of packed distances.
fn packed_bytes(values: &[i64]) -> usize {
    lanes::packed_bytes(values.len(), width_between(ends(values.iter().copied())))
}

/// Bytes of packed steps with the smallest step.
fn delta_bytes(values: &[i64]) -> usize {
    8 + lanes::packed_bytes(values.len(), width_between(ends(steps(values))))
}

/// The better of packed and delta, for integers that stand for decimals.
pub(super) fn choose_decimal(integers: &[i64]) -> Choice {
    let packed = Choice { form: Form::Decimal, bytes: packed_bytes(integers) };
    packed.or(Choice { form: Form::DecimalDelta, bytes: delta_bytes(integers) })
}

/// Sorted distinct values, where they are few.
fn distinct(values: &[i64]) -> Option<Vec<i64>> {
    let sorted = |values: &mut Vec<i64>| {
        values.sort_unstable();
        values.dedup();
    };
    let mut sample: Vec<i64> = values.iter().step_by((values.len() / SAMPLES).max(1)).copied().collect();
    let sampled = sample.len();
    sorted(&mut sample);
    if sample.len() * 16 > sampled * 15 {
        return None;
    }
    let mut all = values.to_vec();
    sorted(&mut all);
    (all.len() <= DICTIONARY_MAX).then_some(all)
}

/// Where runs end, each given by the row after its last.
fn run_ends(values: &[i64]) -> impl Iterator<Item = usize> + '_ {
    let changes = values.windows(2).enumerate().filter(|(_, pair)| pair[0] != pair[1]);
    changes.map(|(row, _)| row + 1).chain(std::iter::once(values.len()))
}

/// The form that a vector of at least one value is written in, and the bytes that it takes. Values take `raw_bytes` each as they are.
pub(super) fn choose(values: &[i64], raw_bytes: usize) -> Choice {
    let range = ends(values.iter().copied());
    if range.0 == range.1 {
        return Choice { form: Form::Constant, bytes: 0 };
    }
    let width = width_between(range);
    let mut best = Choice { form: Form::Raw, bytes: values.len() * raw_bytes };
    best = best.or(Choice { form: Form::Packed, bytes: lanes::packed_bytes(values.len(), width) });
    best = best.or(Choice { form: Form::Delta, bytes: delta_bytes(values) });
    let runs = 1 + values.windows(2).map(|pair| usize::from(pair[0] != pair[1])).sum::<usize>();
    best = best.or(Choice { form: Form::Runs, bytes: 2 + runs * 2 + bits::packed_bytes(runs, width) });
    // Two values are packed in a bit each; no dictionary is shorter.
    if best.bytes > values.len() / 8 + 2 + 2 * raw_bytes
        && let Some(distinct) = distinct(values)
    {
        let codes = lanes::packed_bytes(values.len(), code_width(distinct.len()));
        best = best.or(Choice { form: Form::Dictionary, bytes: 2 + distinct.len() * raw_bytes + codes });
    }
    best
}

fn code_width(distinct: usize) -> u32 {
    bits::width_of(distinct.saturating_sub(1) as u64)
}

/// Appends a vector in a form, not that of decimals.
pub(super) fn encode(values: &[i64], form: Form, raw_bytes: usize, out: &mut Vec<u8>) -> Entry {
    let put_raw = |value: &i64, out: &mut Vec<u8>| {
        out.extend_from_slice(value.to_le_bytes().get(..raw_bytes).unwrap_or_default());
    };
    match form {
        Form::Constant => Entry::new(form, 0, values.first().copied().unwrap_or_default()),
        Form::Packed | Form::Decimal => encode_packed(values, form, out),
        Form::Delta | Form::DecimalDelta => encode_delta(values, form, out),
        Form::Runs => {
            let range = ends(values.iter().copied());
            let width = width_between(range);
            let count = run_ends(values).count() as u16;
            out.extend_from_slice(&count.to_le_bytes());
            run_ends(values).for_each(|end| out.extend_from_slice(&(end as u16).to_le_bytes()));
            let of_run = |end: usize| values.get(end - 1).copied().unwrap_or_default();
            bits::pack(run_ends(values).map(|end| distance(of_run(end), range.0)), width, out);
            Entry::new(form, width, range.0)
        }
        Form::Dictionary => {
            let mut distinct = values.to_vec();
            distinct.sort_unstable();
            distinct.dedup();
            let width = code_width(distinct.len());
            out.extend_from_slice(&(distinct.len() as u16).to_le_bytes());
            distinct.iter().for_each(|value| put_raw(value, out));
            let code = |value: &i64| distinct.partition_point(|known| known < value) as u64;
            lanes::pack(&values.iter().map(code).collect::<Vec<_>>(), width, out);
            Entry::new(form, width, 0)
        }
        Form::Raw => {
            values.iter().for_each(|value| put_raw(value, out));
            Entry::new(form, 0, 0)
        }
    }
}

fn encode_packed(values: &[i64], form: Form, out: &mut Vec<u8>) -> Entry {
    let range = ends(values.iter().copied());
    let mut numbers = [0u64; VECTOR_ROWS];
    let numbers = &mut numbers[..values.len()];
    numbers.iter_mut().zip(values).for_each(|(number, value)| *number = distance(*value, range.0));
    lanes::pack(numbers, width_between(range), out);
    Entry::new(form, width_between(range), range.0)
}

fn encode_delta(values: &[i64], form: Form, out: &mut Vec<u8>) -> Entry {
    let range = ends(steps(values));
    let mut numbers = [0u64; VECTOR_ROWS];
    let numbers = &mut numbers[..values.len()];
    numbers
        .iter_mut()
        .skip(1)
        .zip(steps(values))
        .for_each(|(number, step)| *number = distance(step, range.0));
    out.extend_from_slice(&range.0.to_le_bytes());
    lanes::pack(numbers, width_between(range), out);
    Entry::new(form, width_between(range), values.first().copied().unwrap_or_default())
}

/// Reads a vector of `out.len()` values in any form but that of decimals; `bytes` holds nothing else. `from` makes of a value what is wanted.
#[inline(always)]
pub(super) fn decode<T: Copy>(
    entry: Entry,
    bytes: &[u8],
    raw_bytes: usize,
    out: &mut [T],
    from: impl Fn(i64) -> T,
) -> Result<(), Damage> {
    let Entry { form, width, base, .. } = entry;
    let no_base = matches!(form, Form::Dictionary | Form::Raw);
    let no_width = matches!(form, Form::Constant | Form::Raw);
    if (entry.exponent, entry.factor) != (0, 0) || (no_base && base != 0) || (no_width && width != 0) {
        return Err(NO_FORM);
    }
    match form {
        Form::Constant => {
            Cursor::new(bytes).end()?;
            out.fill(from(base));
            Ok(())
        }
        Form::Packed => lanes::unpack(bytes, width, out, |number| from(base.wrapping_add(number as i64))),
        Form::Delta => decode_delta(entry, bytes, out, from),
        Form::Runs => decode_runs(entry, bytes, out, from),
        Form::Dictionary => decode_dictionary(width, bytes, raw_bytes, out, from),
        Form::Raw => decode_raw(bytes, raw_bytes, out, from),
        Form::Decimal | Form::DecimalDelta => Err(NO_FORM),
    }
}

/// Reads what [`encode_delta`] wrote.
#[inline(always)]
pub(super) fn decode_delta<T: Copy>(
    entry: Entry,
    bytes: &[u8],
    out: &mut [T],
    from: impl Fn(i64) -> T,
) -> Result<(), Damage> {
    let mut cursor = Cursor::new(bytes);
    let step = cursor.i64()?;
    let mut numbers = [0i64; VECTOR_ROWS];
    let numbers = numbers.get_mut(..out.len()).ok_or(Damage("a vector has too many rows"))?;
    lanes::unpack(cursor.rest(), entry.width, numbers, |number| step.wrapping_add(number as i64))?;
    let first = numbers.first().copied().unwrap_or(step);
    if first != step {
        return Err(Damage("the first step of a vector is not the smallest"));
    }
    let mut value = entry.base.wrapping_sub(step);
    for (to, number) in out.iter_mut().zip(numbers) {
        value = value.wrapping_add(*number);
        *to = from(value);
    }
    Ok(())
}

#[inline(always)]
fn decode_runs<T: Copy>(
    entry: Entry,
    bytes: &[u8],
    out: &mut [T],
    from: impl Fn(i64) -> T,
) -> Result<(), Damage> {
    let mut cursor = Cursor::new(bytes);
    let count = usize::from(cursor.u16()?);
    if count > out.len() {
        return Err(Damage("a vector has more runs than rows"));
    }
    let run_ends = cursor.take(count * 2)?.as_chunks::<2>().0;
    let mut numbers = [0u64; VECTOR_ROWS];
    let numbers = numbers.get_mut(..count).ok_or(Damage("a vector has too many rows"))?;
    bits::unpack(cursor.rest(), entry.width, numbers)?;
    let mut start = 0;
    for (end, number) in run_ends.iter().zip(numbers) {
        let end = usize::from(u16::from_le_bytes(*end));
        let run = out.get_mut(start..end).filter(|run| !run.is_empty());
        run.ok_or(Damage("the runs of a vector do not rise"))?
            .fill(from(entry.base.wrapping_add(*number as i64)));
        start = end;
    }
    if start == out.len() { Ok(()) } else { Err(Damage("the runs of a vector do not fill it")) }
}

#[inline(always)]
fn decode_dictionary<T: Copy>(
    width: u32,
    bytes: &[u8],
    raw_bytes: usize,
    out: &mut [T],
    from: impl Fn(i64) -> T,
) -> Result<(), Damage> {
    let mut cursor = Cursor::new(bytes);
    let count = usize::from(cursor.u16()?);
    if !(1..=DICTIONARY_MAX).contains(&count) || width != code_width(count) {
        return Err(Damage("the dictionary's size is wrong"));
    }
    let mut values = [0i64; DICTIONARY_MAX];
    let known = values.get_mut(..count).unwrap_or_default();
    decode_raw(cursor.take(count * raw_bytes)?, raw_bytes, known, |value| value)?;
    if !known.is_sorted_by(|a, b| a < b) {
        return Err(Damage("the dictionary is not in order"));
    }
    let mut codes = [0usize; VECTOR_ROWS];
    let codes = codes.get_mut(..out.len()).ok_or(Damage("a vector has too many rows"))?;
    // Codes have eight bits at most, so each is a place in the array.
    lanes::unpack(cursor.rest(), width, codes, |code| code as usize % DICTIONARY_MAX)?;
    if codes.iter().any(|code| *code >= count) {
        return Err(Damage("a code is not in the dictionary"));
    }
    out.iter_mut().zip(codes).for_each(|(to, code)| *to = from(values[*code]));
    Ok(())
}

#[inline(always)]
fn decode_raw<T>(
    bytes: &[u8],
    raw_bytes: usize,
    out: &mut [T],
    from: impl Fn(i64) -> T,
) -> Result<(), Damage> {
    if bytes.len() != out.len() * raw_bytes {
        return Err(Damage("raw values have a wrong length"));
    }
    if raw_bytes == 8 {
        let values = bytes.as_chunks::<8>().0;
        out.iter_mut().zip(values).for_each(|(to, value)| *to = from(i64::from_le_bytes(*value)));
    } else {
        let values = bytes.as_chunks::<4>().0;
        out.iter_mut().zip(values).for_each(|(to, value)| *to = from(i64::from(i32::from_le_bytes(*value))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    fn decoded(entry: Entry, bytes: &[u8], rows: usize) -> Result<Vec<i64>, Damage> {
        let mut out = vec![7; rows];
        decode(entry, bytes, 8, &mut out, |value| value)?;
        Ok(out)
    }

    /// Writes values in every form that takes them, and in the best; answers the best.
    fn round_trip(values: &[i64]) -> Choice {
        let best = choose(values, 8);
        for form in [Form::Packed, Form::Delta, Form::Runs, Form::Dictionary, Form::Raw, best.form] {
            let distinct: std::collections::BTreeSet<_> = values.iter().collect();
            if form == Form::Dictionary && distinct.len() > DICTIONARY_MAX {
                continue;
            }
            let mut bytes = Vec::new();
            let entry = encode(values, form, 8, &mut bytes);
            assert_eq!(decoded(entry, &bytes, values.len()).unwrap(), values, "{form:?}");
            if form == best.form {
                assert_eq!(bytes.len(), best.bytes, "{form:?} takes as much as was said");
            }
        }
        best
    }

    #[test]
    fn each_form_is_taken_where_it_is_shortest() {
        let mix = |i: i64| {
            let mixed = (i ^ i >> 30).wrapping_add(7).wrapping_mul(0x3f58_476d_1ce4_e5b9);
            (mixed ^ mixed >> 27).wrapping_mul(0x14d0_49bb_1331_11eb).rotate_left(31)
        };
        let made = |value: &dyn Fn(i64) -> i64, rows| (0..rows).map(value).collect::<Vec<i64>>();
        let cases: [(Form, &dyn Fn(i64) -> i64); 6] = [
            (Form::Constant, &|_| -3),
            (Form::Packed, &|i| 1_000 + mix(i).rem_euclid(900)),
            (Form::Delta, &|i| 1_700_000_000_000_000_000 + i * 1_000_000 + mix(i).rem_euclid(50)),
            (Form::Runs, &|i| mix(i / 200)),
            (Form::Dictionary, &|i| [mix(1), mix(2), 77][mix(i).rem_euclid(3) as usize]),
            (Form::Raw, &mix),
        ];
        for (form, value) in cases {
            for rows in [1_024, 1_000] {
                assert_eq!(round_trip(&made(value, rows)).form, form);
            }
        }
        let even = made(&|i| i64::MIN + i * 1_000_000_000, 1_024);
        assert_eq!(round_trip(&even).bytes, 8, "even steps take no bits");
    }

    #[test]
    fn speed_goes_before_a_few_bytes() {
        let packed = Choice { form: Form::Packed, bytes: 1_000 };
        assert_eq!(packed.or(Choice { form: Form::Delta, bytes: 950 }).form, Form::Packed);
        assert_eq!(packed.or(Choice { form: Form::Delta, bytes: 940 }).form, Form::Delta);
        assert_eq!(packed.or(Choice { form: Form::Runs, bytes: 999 }).form, Form::Runs);
    }

    #[test]
    fn extremes_come_back() {
        round_trip(&[i64::MIN]);
        round_trip(&[i64::MIN, i64::MAX, 0, -1, i64::MAX, i64::MIN]);
        round_trip(&(0..1_024).map(|i| if i % 2 == 0 { i64::MIN } else { i64::MAX }).collect::<Vec<_>>());
    }

    #[test]
    fn entries_and_bytes_that_lie_are_damage() {
        let values: Vec<i64> = (0..100).map(|i| i / 30 * 5).collect();
        for form in [Form::Packed, Form::Delta, Form::Runs, Form::Dictionary, Form::Raw] {
            let mut bytes = Vec::new();
            let entry = encode(&values, form, 8, &mut bytes);
            assert!(decoded(entry, &bytes, 90).is_err(), "{form:?} with fewer rows");
            assert!(decoded(entry, &bytes[..bytes.len() - 1], 100).is_err(), "{form:?} cut");
            for wrong in
                [Entry { exponent: 1, ..entry }, Entry { factor: 1, ..entry }, Entry { width: 65, ..entry }]
            {
                assert!(decoded(wrong, &bytes, 100).is_err(), "{form:?} {wrong:?}");
            }
        }
        let entry = Entry::new(Form::Runs, 0, 5);
        let runs = |ends: &[u16]| {
            let mut bytes = (ends.len() as u16).to_le_bytes().to_vec();
            ends.iter().for_each(|end| bytes.extend_from_slice(&end.to_le_bytes()));
            decoded(entry, &bytes, 9)
        };
        assert_eq!(runs(&[4, 9]), Ok(vec![5; 9]));
        for wrong in [&[4, 4, 9][..], &[4, 8], &[5, 4, 9], &[10], &[]] {
            assert!(runs(wrong).is_err(), "{wrong:?}");
        }
        let mut bytes = vec![2, 0];
        bytes.extend_from_slice(&[[9u8; 8], [3; 8]].concat());
        bytes.push(0b01);
        assert!(decoded(Entry::new(Form::Dictionary, 1, 0), &bytes, 2).is_err(), "a dictionary that falls");
        assert!(decoded(Entry::new(Form::Decimal, 0, 0), &[], 2).is_err());
    }

    proptest! {
        #[test]
        fn any_values_come_back(values in proptest::collection::vec(any::<i64>(), 1..300)) {
            round_trip(&values);
        }

        #[test]
        fn near_values_come_back(start in any::<i64>(), steps in proptest::collection::vec(-9i64..99, 1..=1024)) {
            let mut value = start;
            let values: Vec<i64> = steps.iter().map(|s| { value = value.wrapping_add(*s); value }).collect();
            round_trip(&values);
        }

        #[test]
        fn any_bytes_are_values_or_damage(
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), 0u8..4, any::<u8>()], 0..200),
            form in proptest::sample::select(Form::ALL.to_vec()),
            width in 0u32..70,
            base in any::<i64>(),
            rows in 1usize..=1024,
            raw_bytes in prop_oneof![Just(4usize), Just(8)],
        ) {
            let mut out = vec![0; rows];
            let _ = decode(Entry::new(form, width, base), &bytes, raw_bytes, &mut out, |value| value);
        }
    }
}
