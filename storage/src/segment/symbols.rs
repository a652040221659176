//! Texts as codes of symbols, byte strings that come often in them.
//!
//! A code is a byte and stands for a symbol of 1 to 8 bytes; one code says that the byte behind it stands for itself. So each
//! text is read without the others. Which symbols suit a block is learned as in FSST (see [`super::learned`]); readers know
//! nothing of that and take any.

use std::ops::Range;

use super::learned::{Learned, SYMBOL_BYTES_MAX, SYMBOLS_MAX};
use super::text::{self, FEW_BYTES};
use crate::columns::Strings;
use crate::cursor::Cursor;
use crate::error::Damage;
use crate::limits::BLOCK_BYTES_MAX;

/// The code that says that the next byte stands for itself.
const ITSELF: u8 = 255;

/// Bytes of texts after which it is seen whether symbols save enough.
const TRIED_BYTES: usize = 64 << 10;

const TOO_LONG: Damage = Damage("texts of symbols are longer than the block says");
const WRONG_ENDS: Damage = Damage("the ends of texts are wrong");

/// Texts as codes. `None` where that takes `limit` bytes or more, or saves too little for its time.
pub(super) fn encode(strings: &Strings, limit: usize) -> Option<Vec<u8>> {
    if strings.bytes().len() < FEW_BYTES { None } else { write(strings, limit) }
}

fn write(strings: &Strings, limit: usize) -> Option<Vec<u8>> {
    let learned = Learned::from(strings);
    let (codes, ends) = codes_of(strings, &learned, limit)?;
    let places = text::encode_ends(&ends);
    let symbols = learned.symbols();
    let of_symbols: usize = symbols.iter().map(|symbol| 1 + usize::from(symbol.length)).sum();
    let size = 12 + of_symbols + places.len() + codes.len();
    if size >= limit {
        return None;
    }
    let mut out = Vec::with_capacity(size);
    out.extend_from_slice(&(symbols.len() as u32).to_le_bytes());
    out.extend_from_slice(&(strings.bytes().len() as u32).to_le_bytes());
    out.extend_from_slice(&(places.len() as u32).to_le_bytes());
    out.extend(symbols.iter().map(|symbol| symbol.length));
    for symbol in symbols {
        out.extend_from_slice(symbol.word.to_le_bytes().get(..usize::from(symbol.length))?);
    }
    out.extend_from_slice(&places);
    out.extend_from_slice(&codes);
    Some(out)
}

/// The codes of all texts, and where those of each end.
fn codes_of(strings: &Strings, learned: &Learned, limit: usize) -> Option<(Vec<u8>, Vec<i64>)> {
    let bytes = strings.bytes();
    // The last words are read with zeros behind them.
    let tail = bytes.len().saturating_sub(SYMBOL_BYTES_MAX);
    let mut padded = [0; 2 * SYMBOL_BYTES_MAX];
    padded.iter_mut().zip(&bytes[tail..]).for_each(|(to, byte)| *to = *byte);
    let word_at = |at: usize| {
        let word = bytes.get(at..).and_then(<[u8]>::first_chunk);
        let word = word.or_else(|| padded.get(at - tail..)?.first_chunk());
        u64::from_le_bytes(word.copied().unwrap_or_default())
    };
    let (mut codes, mut ends) = (Vec::with_capacity(bytes.len() / 2), Vec::with_capacity(strings.len()));
    let mut at = 0;
    for end in strings.offsets().iter().skip(1) {
        let end = *end as usize;
        while at < end {
            let (code, length) = learned.next(word_at(at), end - at);
            match code {
                Some(code) => codes.push(code),
                None => codes.extend_from_slice(&[ITSELF, bytes[at]]),
            }
            at += length;
        }
        if codes.len() >= limit || (at > TRIED_BYTES && codes.len() > at / 8 * 7) {
            return None;
        }
        ends.push(codes.len() as i64);
    }
    Some((codes, ends))
}

/// Texts as [`encode`] wrote them.
pub(super) struct Symbols<'a> {
    /// The symbols by their codes, filled with zeros.
    words: [[u8; SYMBOL_BYTES_MAX]; 256],
    /// Their lengths; 0 where a code stands for none.
    lengths: [u8; 256],
    /// Bytes of all texts.
    total: usize,
    ends: &'a [u8],
    codes: &'a [u8],
    rows: usize,
}

impl<'a> Symbols<'a> {
    /// `rows` texts; `bytes` holds nothing else.
    pub(super) fn of(bytes: &'a [u8], rows: usize) -> Result<Symbols<'a>, Damage> {
        let mut cursor = Cursor::new(bytes);
        let (count, total, ends) = (cursor.u32()? as usize, cursor.u32()? as usize, cursor.u32()? as usize);
        if count > SYMBOLS_MAX {
            return Err(Damage("there are too many symbols"));
        }
        let (mut words, mut lengths) = ([[0; SYMBOL_BYTES_MAX]; 256], [0; 256]);
        let of_symbols = cursor.take(count)?;
        for ((word, length), of_symbol) in words.iter_mut().zip(&mut lengths).zip(of_symbols) {
            let bytes = cursor.take(usize::from(*of_symbol))?;
            let word = word.get_mut(..bytes.len()).filter(|word| !word.is_empty());
            word.ok_or(Damage("a symbol has no bytes or more than eight"))?.copy_from_slice(bytes);
            *length = *of_symbol;
        }
        let (ends, codes) = (cursor.take(ends)?, cursor.rest());
        // No code stands for more than eight bytes.
        if total > BLOCK_BYTES_MAX || total > codes.len().saturating_mul(SYMBOL_BYTES_MAX) {
            return Err(Damage("text is longer than a block or its codes may hold"));
        }
        Ok(Symbols { words, lengths, total, ends, codes, rows })
    }

    /// Texts of some rows.
    pub(super) fn decode(&self, range: Range<usize>) -> Result<Strings, Damage> {
        let (is_whole, is_end) = (range.len() == self.rows, range.end == self.rows);
        let places = text::decode_ends(self.ends, self.rows, range, self.codes.len())?;
        let (first, last) = places.first().zip(places.last()).ok_or(WRONG_ENDS)?;
        if is_end && *last != self.codes.len() {
            return Err(WRONG_ENDS);
        }
        let most = (last - first).saturating_mul(SYMBOL_BYTES_MAX).min(self.total);
        let mut texts = Texts::with_room(most, places.len());
        for place in places.windows(2) {
            let codes = self.codes.get(place[0]..place[1]).ok_or(WRONG_ENDS)?;
            self.append(codes, &mut texts)?;
        }
        if is_whole && texts.end != self.total {
            return Err(Damage("texts of symbols are shorter than the block says"));
        }
        texts.finish()
    }

    /// Texts of single rows, which rise.
    pub(super) fn decode_at(&self, at: &[u32]) -> Result<Strings, Damage> {
        let (mut each, mut most) = (Vec::with_capacity(at.len()), 0);
        for place in text::decode_ends_at(self.ends, self.rows, at)? {
            let codes = self.codes.get(place).ok_or(WRONG_ENDS)?;
            most += codes.len() * SYMBOL_BYTES_MAX;
            each.push(codes);
        }
        // Rows that are asked for once have no more than all have.
        let limit = if at.is_sorted_by(|a, b| a < b) { self.total } else { BLOCK_BYTES_MAX };
        let mut texts = Texts::with_room(most.min(limit), at.len() + 1);
        each.into_iter().try_for_each(|codes| self.append(codes, &mut texts))?;
        texts.finish()
    }

    /// Appends what the codes of one text stand for.
    #[inline(always)]
    fn append(&self, codes: &[u8], texts: &mut Texts) -> Result<(), Damage> {
        let (mut codes, mut end) = (codes.iter(), texts.end);
        while let Some(code) = codes.next() {
            // Whatever its length, a symbol is stored whole, and what is too much is overwritten.
            let to = texts.bytes.get_mut(end..).and_then(<[u8]>::first_chunk_mut::<SYMBOL_BYTES_MAX>);
            let to = to.ok_or(TOO_LONG)?;
            if *code == ITSELF {
                let byte = codes.next().ok_or(Damage("a text ends within a code"))?;
                to[0] = *byte;
                end += 1;
            } else {
                let length = self.lengths[usize::from(*code)];
                if length == 0 {
                    return Err(Damage("a code stands for no symbol"));
                }
                *to = self.words[usize::from(*code)];
                end += usize::from(length);
            }
        }
        texts.end = end;
        texts.offsets.push(end as u32);
        Ok(())
    }
}

/// Texts that are being read.
struct Texts {
    /// With room for a symbol behind what there may be.
    bytes: Vec<u8>,
    end: usize,
    offsets: Vec<u32>,
}

impl Texts {
    /// Room for so many bytes, at most those of a block, and offsets.
    fn with_room(most: usize, offsets: usize) -> Texts {
        let mut texts =
            Texts { bytes: vec![0; most + SYMBOL_BYTES_MAX], end: 0, offsets: Vec::with_capacity(offsets) };
        texts.offsets.push(0);
        texts
    }

    fn finish(mut self) -> Result<Strings, Damage> {
        if self.end + SYMBOL_BYTES_MAX > self.bytes.len() {
            return Err(TOO_LONG);
        }
        self.bytes.truncate(self.end);
        Strings::from_parts(self.offsets, self.bytes).ok_or(TOO_LONG)
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
        Symbols::of(bytes, rows)?.decode(0..rows)
    }

    /// Writes texts and reads them back: all, some, and single ones.
    fn round_trip(texts: &[Vec<u8>]) -> usize {
        let (strings, rows) = (strings(texts), texts.len());
        let bytes = write(&strings, usize::MAX).unwrap();
        let symbols = Symbols::of(&bytes, rows).unwrap();
        assert!(symbols.decode(0..rows).unwrap() == strings);
        for range in [0..rows / 2, rows / 3..rows, rows / 2..rows / 2, rows / 2..(rows / 2 + 1).min(rows)] {
            let some = symbols.decode(range.clone()).unwrap();
            assert!(some.iter().eq(texts[range.clone()].iter().map(Vec::as_slice)), "{range:?}");
        }
        for step in [1, 7, 1_000] {
            let at: Vec<u32> =
                (0..rows as u32).rev().step_by(step).collect::<Vec<_>>().into_iter().rev().collect();
            let some = symbols.decode_at(&at).unwrap();
            assert!(some.iter().eq(at.iter().map(|row| texts[*row as usize].as_slice())), "each {step}th");
        }
        bytes.len()
    }

    #[test]
    fn texts_of_every_kind_come_back() {
        let orders: Vec<Vec<u8>> =
            (0..3_000).map(|i| format!("order {:08x} of desk {}", i * 7_919, i % 7).into_bytes()).collect();
        let plain = orders.iter().map(Vec::len).sum::<usize>() + 4 * orders.len();
        let size = round_trip(&orders);
        assert!(size * 2 < plain, "{size} of {plain} bytes");
        round_trip(&[]);
        round_trip(&[vec![]]);
        round_trip(&vec![vec![]; 1_025]);
        round_trip(&[vec![b'a'; 100_000], vec![], vec![0; 3], vec![255; 9]]);
        round_trip(&(0..=255u8).map(|byte| vec![byte; usize::from(byte) % 11]).collect::<Vec<_>>());
        round_trip(&(0..600u32).map(|i| i.to_le_bytes().repeat(2)).collect::<Vec<_>>());
    }

    #[test]
    fn what_does_not_pay_is_not_written() {
        let few = strings(&vec!["the same again and again"; 80]);
        assert!(few.bytes().len() < FEW_BYTES && encode(&few, usize::MAX).is_none());
        let more = strings(&vec!["the same again and again"; 100]);
        let size = encode(&more, usize::MAX).unwrap().len();
        assert!(encode(&more, size).is_none() && encode(&more, size + 1).is_some());
        let mut state = 7u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        let noise: Vec<Vec<u8>> = (0..5_000).map(|_| (0..20).map(|_| noise()).collect()).collect();
        assert!(encode(&strings(&noise), usize::MAX).is_none());
    }

    /// A block of these symbols, ends of texts, and codes.
    fn block(symbols: &[&[u8]], total: u32, ends: &[i64], codes: &[u8]) -> Vec<u8> {
        let places = text::encode_ends(ends);
        let mut out = (symbols.len() as u32).to_le_bytes().to_vec();
        out.extend_from_slice(&total.to_le_bytes());
        out.extend_from_slice(&(places.len() as u32).to_le_bytes());
        out.extend(symbols.iter().map(|symbol| symbol.len() as u8));
        symbols.iter().for_each(|symbol| out.extend_from_slice(symbol));
        [out, places, codes.to_vec()].concat()
    }

    #[test]
    fn symbols_ends_and_codes_that_lie_are_damage() {
        let known: [&[u8]; 3] = [b"a", b"bcd", b"eightbyt"];
        let sound = block(&known, 13, &[1, 3, 3, 5], &[1, 0, 2, ITSELF, b'!']);
        assert_eq!(decoded(&sound, 4).unwrap(), strings(&["bcd", "aeightbyt", "", "!"]));
        assert_eq!(decoded(&block(&[], 0, &[0, 0], &[]), 2).unwrap(), strings(&["", ""]));
        let nine: [&[u8]; 1] = [b"nine byte"];
        let none: [&[u8]; 2] = [b"a", b""];
        let many = vec![&b"x"[..]; 256];
        let lies = [
            ("a symbol of nine bytes", block(&nine, 9, &[1], &[0]), 1),
            ("a symbol of none", block(&none, 1, &[1], &[0]), 1),
            ("too many symbols", block(&many, 1, &[1], &[0]), 1),
            ("a code without a symbol", block(&known, 3, &[1], &[3]), 1),
            ("a code without a symbol, the last", block(&known, 3, &[1], &[254]), 1),
            ("a text that ends within a code", block(&known, 2, &[1, 3], &[ITSELF, ITSELF, b'!']), 2),
            ("a text that ends within the last code", block(&known, 1, &[1], &[ITSELF]), 1),
            ("ends that fall", block(&known, 9, &[3, 1, 3], &[1, 1, 1]), 3),
            ("an end before the first", block(&known, 9, &[-1, 3], &[1, 1, 1]), 2),
            ("an end behind the last", block(&known, 9, &[1, 4], &[1, 1, 1]), 2),
            ("a far end", block(&known, 9, &[i64::MIN, i64::MAX], &[1, 1, 1]), 2),
            ("codes behind the last text", block(&known, 6, &[1, 2], &[1, 1, 1]), 2),
            ("more rows than ends", block(&known, 6, &[1, 2], &[1, 1]), 3),
            ("fewer rows than ends", block(&known, 6, &[1, 2], &[1, 1]), 1),
            ("codes of no rows", block(&known, 3, &[], &[1]), 0),
            ("longer texts than are said", block(&known, 5, &[1, 2], &[1, 1]), 2),
            ("shorter texts than are said", block(&known, 7, &[1, 2], &[1, 1]), 2),
            ("more bytes than the codes have", block(&known, 17, &[1, 2], &[2, 2]), 2),
            ("more bytes than a block may hold", block(&known, u32::MAX, &[1, 2], &[2, 2]), 2),
        ];
        for (what, bytes, rows) in lies {
            assert!(decoded(&bytes, rows).is_err(), "{what}");
        }
        for length in 0..sound.len() {
            assert!(decoded(&sound[..length], 4).is_err(), "cut to {length}");
        }
        // Readers of some rows see what lies in these, or takes more room than is said.
        let falls = block(&known, 9, &[3, 1, 3], &[1, 1, 1]);
        let falls = Symbols::of(&falls, 3).unwrap();
        assert!(falls.decode(1..2).is_err() && falls.decode_at(&[1]).is_err());
        assert!(falls.decode_at(&[0]).is_ok() && falls.decode_at(&[2]).is_ok());
        let short = block(&known, 5, &[2, 3], &[1, 1, 0]);
        assert!(Symbols::of(&short, 2).unwrap().decode(0..1).is_err());
        assert!(Symbols::of(&short, 2).unwrap().decode(1..2).is_ok());
        let behind = block(&known, 9, &[1, 4], &[1, 1, 1]);
        assert!(Symbols::of(&behind, 2).unwrap().decode_at(&[1]).is_err());
        assert!(Symbols::of(&behind, 2).unwrap().decode_at(&[2]).is_err());
    }

    #[test]
    fn every_corrupt_twin_is_damage_or_as_long_as_it_says() {
        let texts: Vec<String> = (0..60).map(|i| format!("/orders/{:04}/fills", i * i)).collect();
        let sound = write(&strings(&texts), usize::MAX).unwrap();
        let (mut damaged, mut other) = (0, 0);
        for (what, twin) in crate::twin::twins(&sound) {
            match decoded(&twin, 60) {
                Ok(read) => {
                    let total = u32::from_le_bytes(twin[4..8].try_into().unwrap()) as usize;
                    assert_eq!((read.len(), read.bytes().len()), (60, total), "{what}");
                    other += 1;
                }
                Err(_) => damaged += 1,
            }
        }
        assert!(damaged > 1_000 && other > 0, "{damaged} {other}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_texts_come_back(
            texts in prop_oneof![
                proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..200),
                proptest::collection::vec("\\PC{0,30}".prop_map(String::into_bytes), 0..200),
                proptest::collection::vec("(user|desk)[0-9]{1,4}(/[a-z]{3}){0,9}".prop_map(String::into_bytes), 0..1_100),
                proptest::collection::vec(proptest::collection::vec(0u8..3, 0..2_000), 0..20),
            ],
        ) {
            round_trip(&texts);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_texts_or_damage(
            count in 0u32..6,
            total in prop_oneof![0u32..60, any::<u32>()],
            ends in prop_oneof![0u32..40, any::<u32>()],
            rest in proptest::collection::vec(prop_oneof![Just(0u8), 0u8..9, any::<u8>()], 0..120),
            rows in 0usize..40,
        ) {
            let bytes = [&count.to_le_bytes()[..], &total.to_le_bytes(), &ends.to_le_bytes(), &rest].concat();
            if let Ok(read) = decoded(&bytes, rows) {
                prop_assert_eq!((read.len(), read.bytes().len()), (rows, total as usize));
            }
            if let Ok(symbols) = Symbols::of(&bytes, rows) {
                let _ = symbols.decode(rows / 3..rows / 2);
                let _ = symbols.decode_at(&(0..rows as u32).step_by(3).collect::<Vec<_>>());
            }
        }

        #[test]
        fn any_codes_are_texts_or_damage(
            lengths in proptest::collection::vec(1usize..=8, 0..255),
            codes in proptest::collection::vec(any::<u8>(), 0..300),
            ends in proptest::collection::vec(0i64..300, 0..50),
            total in 0u32..2_400,
        ) {
            let symbols: Vec<&[u8]> = lengths.iter().map(|length| &b"abcdefgh"[..*length]).collect();
            let mut ends: Vec<i64> = ends.into_iter().map(|end| end.min(codes.len() as i64)).collect();
            ends.sort_unstable();
            ends.push(codes.len() as i64);
            let bytes = block(&symbols, total, &ends, &codes);
            if let Ok(read) = decoded(&bytes, ends.len()) {
                prop_assert_eq!((read.len(), read.bytes().len()), (ends.len(), total as usize));
            }
        }
    }
}
