//! Text and bytes: whole, or as codes of a sorted dictionary.

use hashbrown::HashMap;

use super::{bits, lanes};
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

/// Reads `rows` strings, which take everything that is left.
pub(super) fn decode_plain(cursor: &mut Cursor<'_>, rows: usize) -> Result<Strings, Damage> {
    let offsets = offsets(cursor, rows)?;
    let bytes = cursor.rest();
    if bytes.len() > BLOCK_BYTES_MAX {
        return Err(TOO_LONG);
    }
    Strings::from_parts(offsets, bytes.to_vec()).ok_or(Damage("the offsets of text are wrong"))
}

fn offsets(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<u32>, Damage> {
    let bytes = cursor.take((count + 1) * 4)?;
    let (offsets, _) = bytes.as_chunks::<4>();
    Ok(offsets.iter().map(|offset| u32::from_le_bytes(*offset)).collect())
}

/// One string for `rows` rows.
pub(super) fn repeated(string: &[u8], rows: usize) -> Result<Strings, Damage> {
    let total = string.len().checked_mul(rows).filter(|total| *total <= BLOCK_BYTES_MAX).ok_or(TOO_LONG)?;
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

/// Reads `rows` strings; `bytes` holds nothing else.
pub(super) fn decode_dictionary(bytes: &[u8], rows: usize) -> Result<Strings, Damage> {
    let mut cursor = Cursor::new(bytes);
    let (count, width, text) = (cursor.u32()? as usize, cursor.u32()?, cursor.u32()? as usize);
    if count > DICTIONARY_MAX || width != bits::width_of(count.saturating_sub(1) as u64) {
        return Err(Damage("the dictionary's size is wrong"));
    }
    let offsets = offsets(&mut cursor, count)?;
    let distinct = Strings::from_parts(offsets, cursor.take(text)?.to_vec())
        .ok_or(Damage("the offsets of the dictionary are wrong"))?;
    if !distinct.iter().is_sorted_by(|a, b| a < b) {
        return Err(Damage("the dictionary is not in order"));
    }
    let mut codes = vec![0u64; rows];
    for vector in codes.chunks_mut(VECTOR_ROWS) {
        let packed = cursor.take(lanes::packed_bytes(vector.len(), width))?;
        lanes::unpack(packed, width, vector, |code| code)?;
    }
    cursor.end()?;
    let mut total = 0usize;
    for code in &codes {
        if *code >= count as u64 {
            return Err(Damage("a code is not in the dictionary"));
        }
        total += distinct.get(*code as usize).len();
        if total > BLOCK_BYTES_MAX {
            return Err(TOO_LONG);
        }
    }
    let mut ends = Vec::with_capacity(rows + 1);
    ends.push(0);
    let Some(padded) = padded(&distinct) else {
        let mut strings = Vec::with_capacity(total);
        for code in codes {
            strings.extend_from_slice(distinct.get(code as usize));
            ends.push(strings.len() as u32);
        }
        return Strings::from_parts(ends, strings).ok_or(TOO_LONG);
    };
    // A copy of always the same length, of which the next overwrites what is too much.
    let (mut strings, mut end) = (vec![0; total + SHORT], 0);
    for code in codes {
        let (string, length) = padded[code as usize];
        if let Some(to) = strings.get_mut(end..end + SHORT) {
            to.copy_from_slice(&string);
        }
        end += usize::from(length);
        ends.push(end as u32);
    }
    strings.truncate(total);
    Strings::from_parts(ends, strings).ok_or(TOO_LONG)
}

/// Bytes of a short string at most.
const SHORT: usize = 16;

/// All strings filled with zeros, with their lengths, if all are short.
fn padded(strings: &Strings) -> Option<Vec<([u8; SHORT], u8)>> {
    let pad = |string: &[u8]| {
        let mut bytes = [0; SHORT];
        bytes.get_mut(..string.len())?.copy_from_slice(string);
        Some((bytes, string.len() as u8))
    };
    strings.iter().map(pad).collect()
}
