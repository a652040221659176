//! Texts in LZ4 blocks, one for each vector of 1,024 rows: for texts that are much like those just before them.

use std::ops::Range;

use lz4_flex::block::{compress, decompress_into};

use super::text::{self, FEW_BYTES};
use crate::columns::Strings;
use crate::cursor::Cursor;
use crate::error::Damage;
use crate::limits::{BLOCK_BYTES_MAX, VECTOR_ROWS};

/// Of so many vectors one is tried before all are compressed.
const TRIED: usize = 8;

/// Bytes that one of a block stands for at most.
const BYTES_EACH_MAX: usize = 255;

const WRONG_PLACES: Damage = Damage("the places of compressed texts are wrong");

/// Texts in blocks. `None` where that takes `limit` bytes or more.
pub(super) fn encode(strings: &Strings, limit: usize) -> Option<Vec<u8>> {
    if strings.bytes().len() < FEW_BYTES { None } else { write(strings, limit) }
}

fn write(strings: &Strings, limit: usize) -> Option<Vec<u8>> {
    let offsets = strings.offsets();
    let vector = |start: usize| {
        let end = (start + VECTOR_ROWS).min(strings.len());
        strings.bytes().get(offsets[start] as usize..offsets[end] as usize).unwrap_or_default()
    };
    let starts = (0..strings.len()).step_by(VECTOR_ROWS);
    if starts.len() > TRIED {
        let tried = starts.clone().step_by(TRIED).map(vector);
        let (text, compressed) =
            tried.fold((0, 0), |(text, size), tried| (text + tried.len(), size + compress(tried).len()));
        if compressed as u128 * strings.bytes().len() as u128 > limit as u128 * text as u128 {
            return None;
        }
    }
    let (mut places, mut blocks) = (Vec::new(), Vec::new());
    for start in starts {
        blocks.extend_from_slice(&compress(vector(start)));
        places.extend_from_slice(&(blocks.len() as u32).to_le_bytes());
        if blocks.len() >= limit {
            return None;
        }
    }
    let ends = text::encode_ends(&offsets.iter().skip(1).map(|end| i64::from(*end)).collect::<Vec<_>>());
    let size = 4 + ends.len() + places.len() + blocks.len();
    if size >= limit {
        return None;
    }
    let mut out = Vec::with_capacity(size);
    out.extend_from_slice(&(ends.len() as u32).to_le_bytes());
    [ends, places, blocks].iter().for_each(|part| out.extend_from_slice(part));
    Some(out)
}

/// Texts as [`encode`] wrote them.
pub(super) struct Lz4<'a> {
    ends: &'a [u8],
    /// Where the block of each vector ends.
    places: &'a [[u8; 4]],
    blocks: &'a [u8],
    rows: usize,
}

impl<'a> Lz4<'a> {
    /// `rows` texts; `bytes` holds nothing else.
    pub(super) fn of(bytes: &'a [u8], rows: usize) -> Result<Lz4<'a>, Damage> {
        let mut cursor = Cursor::new(bytes);
        let length = cursor.u32()? as usize;
        let ends = cursor.take(length)?;
        let places = cursor.take(rows.div_ceil(VECTOR_ROWS) * 4)?.as_chunks::<4>().0;
        let blocks = cursor.rest();
        if places.last().map_or(0, |end| u32::from_le_bytes(*end) as usize) != blocks.len() {
            return Err(WRONG_PLACES);
        }
        Ok(Lz4 { ends, places, blocks, rows })
    }

    /// The block of a vector; it begins where the one before ends.
    fn block(&self, vector: usize) -> Result<&'a [u8], Damage> {
        let end = |vector: usize| self.places.get(vector).map(|end| u32::from_le_bytes(*end) as usize);
        let start = vector.checked_sub(1).map_or(Some(0), end);
        let place = start.zip(end(vector));
        place.and_then(|(start, end)| self.blocks.get(start..end)).ok_or(WRONG_PLACES)
    }

    /// Texts of some rows.
    pub(super) fn decode(&self, range: Range<usize>) -> Result<Strings, Damage> {
        let vectors = range.start / VECTOR_ROWS..range.end.div_ceil(VECTOR_ROWS);
        if range.is_empty() && self.rows > 0 {
            return Ok(Strings::default());
        }
        let rows = vectors.start * VECTOR_ROWS..(vectors.end * VECTOR_ROWS).min(self.rows);
        let places = text::decode_ends(self.ends, self.rows, rows.clone(), BLOCK_BYTES_MAX)?;
        let (first, last) = places.first().copied().zip(places.last().copied()).ok_or(WRONG_PLACES)?;
        // What they stand for is bounded before there is room for it.
        let blocks = vectors.clone().map(|vector| self.block(vector)).collect::<Result<Vec<_>, _>>()?;
        let most: usize = blocks.iter().map(|block| block.len() * BYTES_EACH_MAX).sum();
        if last - first > most {
            return Err(Damage("texts are longer than their blocks may stand for"));
        }
        let mut bytes = vec![0; last - first];
        for (block, start) in blocks.into_iter().zip((0..).step_by(VECTOR_ROWS)) {
            let end = (start + VECTOR_ROWS).min(rows.len());
            let text = places.get(start).zip(places.get(end)).map(|(start, end)| start - first..end - first);
            let text = text.and_then(|text| bytes.get_mut(text)).ok_or(WRONG_PLACES)?;
            let length = text.len();
            if decompress_into(block, text).ok() != Some(length) {
                return Err(Damage("a block of compressed texts is damaged"));
            }
        }
        let wanted = places.get(range.start - rows.start..=range.end - rows.start).unwrap_or_default();
        let (start, end) = wanted.first().zip(wanted.last()).ok_or(WRONG_PLACES)?;
        bytes.truncate(end - first);
        bytes.drain(..start - first);
        let offsets = wanted.iter().map(|place| (place - start) as u32).collect();
        Strings::from_parts(offsets, bytes).ok_or(WRONG_PLACES)
    }

    /// Texts of single rows, which rise.
    pub(super) fn decode_at(&self, mut at: &[u32]) -> Result<Strings, Damage> {
        let mut texts = Strings::default();
        while let Some(row) = at.first() {
            let start = *row as usize / VECTOR_ROWS * VECTOR_ROWS;
            let end = (start + VECTOR_ROWS).min(self.rows);
            let (of_vector, rest) = at.split_at(at.partition_point(|row| (*row as usize) < end).max(1));
            let (first, last) = (*row as usize, of_vector.last().map_or(start, |last| *last as usize));
            let some = self.decode(first..last + 1)?;
            if !of_vector.iter().all(|row| texts.push(some.get(*row as usize - first))) {
                return Err(Damage("text is longer than a block may hold"));
            }
            at = rest;
        }
        Ok(texts)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn strings<T: AsRef<[u8]>>(texts: &[T]) -> Strings {
        let mut strings = Strings::default();
        texts.iter().for_each(|text| assert!(strings.push(text.as_ref())));
        strings
    }

    fn decoded(bytes: &[u8], rows: usize) -> Result<Strings, Damage> {
        Lz4::of(bytes, rows)?.decode(0..rows)
    }

    /// Writes texts and reads them back: all, some, and single ones.
    fn round_trip(texts: &[Vec<u8>]) -> Vec<u8> {
        let (strings, rows) = (strings(texts), texts.len());
        let bytes = write(&strings, usize::MAX).unwrap();
        let read = Lz4::of(&bytes, rows).unwrap();
        assert!(read.decode(0..rows).unwrap() == strings);
        for range in [0..rows / 2, rows / 3..rows, rows / 2..rows / 2, rows / 2..(rows / 2 + 1).min(rows)] {
            let some = read.decode(range.clone()).unwrap();
            assert!(some.iter().eq(texts[range.clone()].iter().map(Vec::as_slice)), "{range:?}");
        }
        for step in [1, 700] {
            let at: Vec<u32> = (rows as u32 % 5..rows as u32).step_by(step).collect();
            let some = read.decode_at(&at).unwrap();
            assert!(some.iter().eq(at.iter().map(|row| texts[*row as usize].as_slice())), "each {step}th");
        }
        bytes
    }

    #[test]
    fn texts_of_vectors_come_back() {
        for rows in [0, 1, 1_023, 1_024, 1_025, 9_500] {
            let lines: Vec<Vec<u8>> =
                (0..rows).map(|i| format!("/usr/lib/{}/module-{i}.so", i / 90).into_bytes()).collect();
            let plain = lines.iter().map(Vec::len).sum::<usize>() + 4 * rows;
            let size = round_trip(&lines).len();
            assert!(rows < 2 || size * 2 < plain, "{size} of {plain} bytes");
        }
        round_trip(&vec![vec![]; 2_000]);
        round_trip(&[vec![7; 300_000], vec![], (0..=255).collect()]);
    }

    #[test]
    fn what_does_not_pay_is_not_written() {
        let mut state = 7u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        let noise: Vec<Vec<u8>> = (0..10_000).map(|_| (0..9).map(|_| noise()).collect()).collect();
        let noise = strings(&noise);
        assert!(encode(&noise, noise.bytes().len()).is_none());
        let alike = strings(&vec!["the same again and again"; 100]);
        let size = encode(&alike, usize::MAX).unwrap().len();
        assert!(encode(&alike, size).is_none() && encode(&alike, size + 1).is_some());
        assert!(encode(&strings(&vec!["the same again and again"; 80]), usize::MAX).is_none());
    }

    /// Texts of these ends in these blocks.
    fn parts(ends: &[i64], blocks: &[&[u8]]) -> Vec<u8> {
        let ends = text::encode_ends(ends);
        let mut out = (ends.len() as u32).to_le_bytes().to_vec();
        out.extend_from_slice(&ends);
        let mut place = 0;
        for block in blocks {
            place += block.len() as u32;
            out.extend_from_slice(&place.to_le_bytes());
        }
        [out, blocks.concat()].concat()
    }

    #[test]
    fn ends_places_and_blocks_that_lie_are_damage() {
        let block = compress(b"onetwothree");
        let sound = parts(&[3, 6, 11], &[&block]);
        assert_eq!(decoded(&sound, 3).unwrap(), strings(&["one", "two", "three"]));
        let lies = [
            ("longer texts", parts(&[3, 6, 12], &[&block]), 3),
            ("shorter texts", parts(&[3, 6, 10], &[&block]), 3),
            ("ends that fall", parts(&[6, 3, 11], &[&block]), 3),
            ("an end below the first", parts(&[-1, 6, 11], &[&block]), 3),
            ("more rows than ends", parts(&[3, 6, 11], &[&block]), 4),
            ("fewer rows than ends", parts(&[3, 6, 11], &[&block]), 2),
            ("a cut block", parts(&[3, 6, 11], &[&block[..block.len() - 1]]), 3),
            ("no block", parts(&[3, 6, 11], &[]), 3),
            ("a block of no rows", parts(&[], &[&block]), 0),
            ("an empty block", parts(&[3, 6, 11], &[b""]), 3),
            ("more than a block may hold", parts(&[3, 6, 1 << 40], &[&block]), 3),
            ("more than the bytes may stand for", parts(&[3, 6, 256 << 20], &[&block]), 3),
        ];
        for (what, bytes, rows) in lies {
            assert!(decoded(&bytes, rows).is_err(), "{what}");
        }
        for length in 0..sound.len() {
            assert!(decoded(&sound[..length], 3).is_err(), "cut to {length}");
        }
        let many: Vec<i64> = (0..1_025).map(|row| row / 200).collect();
        let two = [compress(b"abcde"), compress(b"")];
        assert!(decoded(&parts(&many, &[&two[0], &two[1]]), 1_025).is_ok());
        assert!(decoded(&parts(&many, &[&two[1], &two[0]]), 1_025).is_err(), "blocks in another order");
        let mut falls = parts(&many, &[&two[0], &two[1]]);
        let at = falls.len() - two[0].len() - two[1].len() - 8;
        falls[at] = 200;
        assert!(decoded(&falls, 1_025).is_err(), "places that fall");
    }

    #[test]
    fn corrupt_twins_of_blocks_are_damage_or_as_long_as_they_say() {
        let texts: Vec<String> = (0..60).map(|i| format!("/orders/{:04}/fills", i * i)).collect();
        let sound = write(&strings(&texts), usize::MAX).unwrap();
        let (mut damaged, mut other) = (0, 0);
        for (what, twin) in crate::twin::twins(&sound) {
            match decoded(&twin, 60) {
                Ok(read) => assert_eq!((read.len(), { other += 1 }), (60, ()), "{what}"),
                Err(_) => damaged += 1,
            }
        }
        assert!(damaged > 500 && other > 0, "{damaged} {other}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_texts_come_back_from_blocks(
            texts in prop_oneof![
                proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..200),
                proptest::collection::vec("(user|desk)[0-9]{1,4}(/[a-z]{3}){0,9}".prop_map(String::into_bytes), 0..2_100),
                proptest::collection::vec(proptest::collection::vec(0u8..3, 0..2_000), 0..20),
            ],
        ) {
            round_trip(&texts);
        }

        #[test]
        fn any_bytes_are_blocks_or_damage(
            ends in proptest::collection::vec(0i64..600, 0..1_100),
            block in proptest::collection::vec(prop_oneof![Just(0u8), 0u8..40, any::<u8>()], 0..80),
            at in any::<proptest::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut ends = ends;
            ends.sort_unstable();
            let blocks: Vec<&[u8]> = ends.chunks(VECTOR_ROWS).map(|_| block.as_slice()).collect();
            let mut bytes = parts(&ends, &blocks);
            let _ = decoded(&bytes, ends.len());
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(read) = decoded(&bytes, ends.len()) {
                prop_assert_eq!(read.len(), ends.len());
            }
            if let Ok(read) = Lz4::of(&bytes, ends.len()) {
                let _ = read.decode(ends.len() / 3..ends.len() / 2);
                let _ = read.decode_at(&(0..ends.len() as u32).step_by(90).collect::<Vec<_>>());
            }
        }
    }
}
