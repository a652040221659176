//! Text and bytes: whole, or as codes of a sorted dictionary; and where each text ends, for those that are written otherwise.

use std::ops::Range;

use hashbrown::HashMap;

use super::cluster::Layout;
use super::simd::{Instructions, Work};
use super::{bits, lanes, numbers};
use crate::columns::Strings;
use crate::cursor::Cursor;
use crate::error::Damage;
use crate::limits::{BLOCK_BYTES_MAX, VECTOR_ROWS};

/// Distinct strings of one dictionary at most; beyond it codes save little.
const DICTIONARY_MAX: usize = 1 << 16;

const TOO_LONG: Damage = Damage("text is longer than a block may hold");

/// Strings whole: `rows + 1` offsets, then the bytes.
pub(super) fn encode_plain(strings: &Strings) -> Vec<u8> {
    let mut out = Vec::with_capacity(strings.offsets().len() * 4 + strings.bytes().len());
    for offset in strings.offsets() {
        out.extend_from_slice(&offset.to_le_bytes());
    }
    out.extend_from_slice(strings.bytes());
    out
}

/// Reads those of `rows` strings that lie in `range`; the strings take everything that is left.
pub(super) fn decode_plain(
    cursor: &mut Cursor<'_>,
    rows: usize,
    range: Range<usize>,
) -> Result<Strings, Damage> {
    let places = cursor.take((rows + 1) * 4)?.as_chunks::<4>().0;
    let bytes = cursor.rest();
    if bytes.len() > BLOCK_BYTES_MAX {
        return Err(TOO_LONG);
    }
    let wrong = || Damage("the offsets of text are wrong");
    let is_whole = range.len() == rows;
    let places = places.get(range.start..=range.end).unwrap_or_default();
    let mut offsets: Vec<u32> = places.iter().map(|place| u32::from_le_bytes(*place)).collect();
    let (first, last) = offsets.first().copied().zip(offsets.last().copied()).ok_or_else(wrong)?;
    if is_whole && (first, last as usize) != (0, bytes.len()) {
        return Err(wrong());
    }
    let bytes = bytes.get(first as usize..last as usize).ok_or_else(wrong)?;
    offsets.iter_mut().for_each(|offset| *offset = offset.wrapping_sub(first));
    Strings::from_parts(offsets, bytes.to_vec()).ok_or_else(wrong)
}

/// Bytes of texts that are not worth the time of compressing them.
pub(super) const FEW_BYTES: usize = 2_048;

/// Bytes of an end as it is.
const END_BYTES: usize = 4;

const WRONG_ENDS: Damage = Damage("the ends of texts are wrong");

/// Places, one for each of many texts, at which they end. They rise.
pub(super) fn encode_ends(ends: &[i64]) -> Vec<u8> {
    let mut out = Vec::new();
    numbers::encode_integers(ends, Layout::even(ends.len()), END_BYTES, &mut out);
    out
}

/// Where some of `rows` texts begin, and where the last of these ends: one place more than there are texts. They rise, and are
/// `most` at most.
pub(super) fn decode_ends(
    ends: &[u8],
    rows: usize,
    range: Range<usize>,
    most: usize,
) -> Result<Vec<usize>, Damage> {
    // A text begins where the one before ends.
    let before = range.start.saturating_sub(1);
    let ends = numbers::decode_integers(ends, END_BYTES, Layout::even(rows), before..range.end)?;
    let (first, last) = (ends.first().copied().unwrap_or(0), ends.last().copied().unwrap_or(0));
    if !ends.is_sorted() || first < 0 || last > most as i64 {
        return Err(WRONG_ENDS);
    }
    let start = (range.start == 0).then_some(0);
    let places: Vec<usize> = start.into_iter().chain(ends.into_iter().map(|end| end as usize)).collect();
    if places.len() == range.len() + 1 { Ok(places) } else { Err(WRONG_ENDS) }
}

/// The same of single texts, which rise: where each begins and ends.
pub(super) fn decode_ends_at(ends: &[u8], rows: usize, at: &[u32]) -> Result<Vec<Range<usize>>, Damage> {
    let wanted: Vec<u32> = at.iter().flat_map(|row| [row.saturating_sub(1), *row]).collect();
    let ends = numbers::integers_at(ends, END_BYTES, Layout::even(rows), &wanted)?;
    let place = |end: i64| usize::try_from(end).map_err(|_| WRONG_ENDS);
    let text = |(row, [before, end]): (&u32, &[i64; 2])| {
        let start = if *row == 0 { 0 } else { place(*before)? };
        Ok(start..place(*end)?)
    };
    at.iter().zip(ends.as_chunks::<2>().0).map(text).collect()
}

/// How long so many times a string are, where a block may hold that.
pub(super) fn check_repeated(string: &[u8], rows: usize) -> Result<usize, Damage> {
    string.len().checked_mul(rows).filter(|total| *total <= BLOCK_BYTES_MAX).ok_or(TOO_LONG)
}

/// One string for `rows` rows.
pub(super) fn repeated(string: &[u8], rows: usize) -> Result<Strings, Damage> {
    let total = check_repeated(string, rows)?;
    let mut strings = Vec::with_capacity(total);
    let mut offsets = Vec::with_capacity(rows + 1);
    offsets.push(0);
    for _ in 0..rows {
        strings.extend_from_slice(string);
        offsets.push(strings.len() as u32);
    }
    Strings::from_parts(offsets, strings).ok_or(TOO_LONG)
}

/// Strings as codes: number of distinct strings, bits a code, bytes of the distinct strings, their offsets,
/// their bytes in rising order, then the codes. `None` where that takes `limit` bytes or more.
pub(super) fn encode_dictionary(strings: &Strings, limit: usize) -> Option<Vec<u8>> {
    let mut numbers: HashMap<&[u8], u32> = HashMap::new();
    let distinct_max = DICTIONARY_MAX.min(strings.len() / 2 + 1);
    // Numbers in the order in which strings are met.
    let mut met: Vec<u64> = Vec::with_capacity(strings.len());
    for string in strings.iter() {
        let next = numbers.len() as u32;
        met.push(u64::from(*numbers.entry(string).or_insert(next)));
        if numbers.len() > distinct_max {
            return None;
        }
    }
    let mut distinct: Vec<(&[u8], u32)> = numbers.into_iter().collect();
    distinct.sort_unstable();
    let width = bits::width_of(distinct.len().saturating_sub(1) as u64);
    let text: usize = distinct.iter().map(|(string, _)| string.len()).sum();
    let size = 12 + (distinct.len() + 1) * 4 + text + lanes::packed_bytes(strings.len(), width);
    if size >= limit {
        return None;
    }
    let mut out = Vec::with_capacity(size);
    out.extend_from_slice(&(distinct.len() as u32).to_le_bytes());
    out.extend_from_slice(&width.to_le_bytes());
    out.extend_from_slice(&(text as u32).to_le_bytes());
    let mut end = 0u32;
    out.extend_from_slice(&end.to_le_bytes());
    for (string, _) in &distinct {
        end += string.len() as u32;
        out.extend_from_slice(&end.to_le_bytes());
    }
    let mut codes = vec![0u64; distinct.len()];
    for ((string, number), code) in distinct.iter().zip(0..) {
        out.extend_from_slice(string);
        codes[*number as usize] = code;
    }
    met.iter_mut().for_each(|number| *number = codes[*number as usize]);
    met.chunks(VECTOR_ROWS).for_each(|codes| lanes::pack(codes, width, &mut out));
    Some(out)
}

/// Strings as [`encode_dictionary`] wrote them.
pub(super) struct Coded<'a> {
    count: usize,
    width: u32,
    /// Of the distinct strings.
    offsets: &'a [[u8; 4]],
    text: &'a [u8],
    codes: &'a [u8],
    rows: usize,
}

impl<'a> Coded<'a> {
    /// `rows` strings; `bytes` holds nothing else.
    pub(super) fn of(bytes: &'a [u8], rows: usize) -> Result<Coded<'a>, Damage> {
        let mut cursor = Cursor::new(bytes);
        let (count, width, text) = (cursor.u32()? as usize, cursor.u32()?, cursor.u32()? as usize);
        if count > DICTIONARY_MAX || width != bits::width_of(count.saturating_sub(1) as u64) {
            return Err(Damage("the dictionary's size is wrong"));
        }
        let offsets = cursor.take((count + 1) * 4)?.as_chunks::<4>().0;
        let (text, codes) = (cursor.take(text)?, cursor.rest());
        // Full vectors, which are as long as their number says, and one that is not full.
        let full = rows / VECTOR_ROWS * lanes::packed_bytes(VECTOR_ROWS, width);
        if codes.len() != full + lanes::packed_bytes(rows % VECTOR_ROWS, width) {
            return Err(Damage("the codes of text have a wrong length"));
        }
        Ok(Coded { count, width, offsets, text, codes, rows })
    }

    /// The distinct strings, rising.
    pub(super) fn distinct(&self) -> Result<Strings, Damage> {
        let offsets = self.offsets.iter().map(|offset| u32::from_le_bytes(*offset)).collect();
        let distinct = Strings::from_parts(offsets, self.text.to_vec())
            .ok_or(Damage("the offsets of the dictionary are wrong"))?;
        if !distinct.iter().is_sorted_by(|a, b| a < b) {
            return Err(Damage("the dictionary is not in order"));
        }
        Ok(distinct)
    }

    /// Codes of some rows; each is below the number of distinct strings, and their strings are no longer than a block's may be.
    pub(super) fn codes(&self, range: Range<usize>) -> Result<Vec<u32>, Damage> {
        let codes = Instructions::in_use().run(Codes { of: self, range })?;
        // None is longer than all distinct ones.
        if self.text.len().saturating_mul(codes.len()) > BLOCK_BYTES_MAX {
            let place = |code: usize| self.offsets.get(code).map_or(0, |place| u32::from_le_bytes(*place));
            let length =
                |code: &u32| place(*code as usize + 1).saturating_sub(place(*code as usize)) as usize;
            if codes.iter().map(length).fold(0, usize::saturating_add) > BLOCK_BYTES_MAX {
                return Err(TOO_LONG);
            }
        }
        Ok(codes)
    }

    /// Strings of some rows.
    pub(super) fn decode(&self, range: Range<usize>) -> Result<Strings, Damage> {
        let (distinct, codes) = (self.distinct()?, self.codes(range)?);
        let strings = distinct.take(&codes, BLOCK_BYTES_MAX as u32);
        strings.ok_or(TOO_LONG)
    }
}

/// The reading of codes.
struct Codes<'a> {
    of: &'a Coded<'a>,
    range: Range<usize>,
}

impl Work for Codes<'_> {
    type Made = Result<Vec<u32>, Damage>;

    #[inline(always)]
    fn run(self) -> Self::Made {
        let Codes { of, range } = self;
        let (mut codes, mut scratch) = (Vec::with_capacity(range.len()), [0u32; VECTOR_ROWS]);
        let mut start = range.start / VECTOR_ROWS * VECTOR_ROWS;
        let mut greatest = 0;
        while start < range.end {
            let some = &mut scratch[..(of.rows - start).min(VECTOR_ROWS)];
            let at = start / VECTOR_ROWS * lanes::packed_bytes(VECTOR_ROWS, of.width);
            let packed = of.codes.get(at..at + lanes::packed_bytes(some.len(), of.width));
            lanes::unpack(packed.unwrap_or_default(), of.width, some, |code| code as u32)?;
            let wanted = range.start.saturating_sub(start)..(range.end - start).min(some.len());
            let wanted = some.get(wanted).unwrap_or_default();
            greatest = wanted.iter().fold(greatest, |greatest, code| *code.max(&greatest));
            codes.extend_from_slice(wanted);
            start += VECTOR_ROWS;
        }
        if !codes.is_empty() && greatest as usize >= of.count {
            return Err(Damage("a code is not in the dictionary"));
        }
        Ok(codes)
    }
}
