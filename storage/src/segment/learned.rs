//! Symbols that are learned from texts: which byte strings of 1 to 8 bytes come so often that a code for each saves most.
//!
//! The way is that of FSST (Boncz, Neumann and Leis, "FSST: Fast Random Access String Compression", VLDB 2020): a sample is
//! written in the symbols that are known, what came often, alone or behind another, is a candidate, and those that save most are
//! the next symbols; five times. The same texts give the same symbols, on every machine.

use hashbrown::HashMap;

use crate::columns::Strings;

/// Symbols at most: one code of a byte is kept for bytes that no symbol holds.
pub(super) const SYMBOLS_MAX: usize = 255;

/// Bytes of a symbol at most.
pub(super) const SYMBOL_BYTES_MAX: usize = 8;

/// Bytes that are learned from at least, where there are more.
const SAMPLE_BYTES: usize = 16 << 10;

/// Bytes of one text that are taken into the sample at a time.
const PIECE_BYTES: usize = 512;

/// How much of the sample, in 128ths, is looked at in each round; none is left out in the last.
const ROUNDS: [usize; 5] = [8, 38, 68, 98, 128];

/// Places of symbols of three bytes or more.
const SLOTS: usize = 2_048;

/// The number of a byte that is no symbol is the byte; that of symbol `s` is this and `s`.
const FIRST: u16 = 256;

/// No symbol.
const NONE: u16 = u16::MAX;

/// A byte string: its first byte is the lowest of the word, and those behind its last are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Symbol {
    pub(super) word: u64,
    pub(super) length: u8,
}

impl Symbol {
    fn mask(self) -> u64 {
        u64::MAX >> (64 - 8 * u32::from(self.length))
    }

    /// This one and another behind it, unless that is too long.
    fn followed_by(self, next: Symbol) -> Option<Symbol> {
        let length = self.length + next.length;
        let joined = || Symbol { word: self.word | next.word << (8 * self.length), length };
        (usize::from(length) <= SYMBOL_BYTES_MAX).then(joined)
    }
}

/// A symbol of three bytes or more at its place; one of no bytes is none.
#[derive(Clone, Copy)]
struct Slot {
    word: u64,
    mask: u64,
    length: u8,
    number: u16,
}

/// Nothing masked is 0, and this word is not.
const EMPTY: Slot = Slot { word: 1, mask: 0, length: 0, number: NONE };

/// Symbols, and where to look for them.
pub(super) struct Learned {
    symbols: Vec<Symbol>,
    /// The number of each byte.
    of_one: [u16; 256],
    /// The number of the symbol of each two bytes.
    of_two: Vec<u16>,
    /// Longer symbols, by their first three bytes; of those that share a place the first is kept.
    of_more: Vec<Slot>,
}

impl Learned {
    fn none() -> Learned {
        let of_one = std::array::from_fn(|byte| byte as u16);
        Learned { symbols: Vec::new(), of_one, of_two: vec![NONE; 1 << 16], of_more: vec![EMPTY; SLOTS] }
    }

    /// Symbols that suit these texts.
    pub(super) fn from(strings: &Strings) -> Learned {
        let sample = sample(strings);
        let mut learned = Learned::none();
        for part in ROUNDS {
            let gains = learned.gains(&sample, part);
            let mut best: Vec<(u64, Symbol)> =
                gains.into_iter().map(|(symbol, gain)| (gain, symbol)).collect();
            best.sort_unstable_by(|(gain, symbol), (other, than)| other.cmp(gain).then(symbol.cmp(than)));
            learned = Learned::none();
            let mut fitting = best.into_iter().map(|(_, symbol)| symbol);
            while learned.symbols.len() < SYMBOLS_MAX
                && let Some(symbol) = fitting.next()
            {
                learned.insert(symbol);
            }
        }
        learned
    }

    /// The symbols; the code of each is its place.
    pub(super) fn symbols(&self) -> &[Symbol] {
        &self.symbols
    }

    /// Takes a symbol in, unless its place is taken.
    fn insert(&mut self, symbol: Symbol) {
        let number = FIRST + self.symbols.len() as u16;
        match symbol.length {
            1 => self.of_one[symbol.word as usize & 0xff] = number,
            2 => self.of_two[symbol.word as usize & 0xffff] = number,
            length => {
                let slot = &mut self.of_more[slot_of(symbol.word)];
                if slot.length > 0 {
                    return;
                }
                *slot = Slot { word: symbol.word, mask: symbol.mask(), length, number };
            }
        }
        self.symbols.push(symbol);
    }

    fn symbol(&self, number: u16) -> Symbol {
        let byte = Symbol { word: u64::from(number), length: 1 };
        number.checked_sub(FIRST).map_or(byte, |code| self.symbols[usize::from(code)])
    }

    /// The number of the longest symbol found with which a text goes on that begins with these bytes and has `left` of its own, at
    /// least one, and its length.
    #[inline(always)]
    fn longest(&self, word: u64, left: usize) -> (u16, usize) {
        let slot = &self.of_more[slot_of(word)];
        if word & slot.mask == slot.word && usize::from(slot.length) <= left {
            return (slot.number, usize::from(slot.length));
        }
        let of_two = self.of_two[word as usize & 0xffff];
        if of_two != NONE && left > 1 { (of_two, 2) } else { (self.of_one[word as usize & 0xff], 1) }
    }

    /// The code of the symbol with which a text goes on, or `None` for a byte that is none, and the bytes that it stands for.
    #[inline(always)]
    pub(super) fn next(&self, word: u64, left: usize) -> (Option<u8>, usize) {
        let (number, length) = self.longest(word, left);
        (number.checked_sub(FIRST).map(|code| code as u8), length)
    }

    /// What each symbol that came up in some of the sample would save.
    fn gains(&self, sample: &[&[u8]], part: usize) -> HashMap<Symbol, u64> {
        let (mut alone, mut pairs) = ([0u32; 512], HashMap::<(u16, u16), u32>::new());
        let is_last = part == 128;
        // Pieces are in no order, so that any of them will do.
        let taken = sample.iter().enumerate().filter(|(i, _)| i * 37 % 128 < part);
        for (_, piece) in taken {
            let (mut at, mut before) = (0, NONE);
            while let Some(byte) = piece.get(at) {
                let (number, length) = self.longest(word_at(piece, at), piece.len() - at);
                // Its first byte alone counts too, so that a long symbol can be given up for shorter ones.
                for number in [number, u16::from(*byte)].into_iter().take(length.min(2)) {
                    alone[usize::from(number)] += 1;
                    if before != NONE && !is_last {
                        *pairs.entry((before, number)).or_default() += 1;
                    }
                }
                (at, before) = (at + length, number);
            }
        }
        let often = (5 * part / 128).max(1) as u32;
        let mut gains = HashMap::new();
        for (number, count) in (0u16..).zip(alone).filter(|(_, count)| *count >= often) {
            let symbol = self.symbol(number);
            // A byte that is no symbol takes two, so that one of them saves more than its length says.
            let each = if symbol.length == 1 { 8 } else { u64::from(symbol.length) };
            *gains.entry(symbol).or_default() += each * u64::from(count);
        }
        for ((first, second), count) in pairs.into_iter().filter(|(_, count)| *count >= often) {
            if let Some(symbol) = self.symbol(first).followed_by(self.symbol(second)) {
                *gains.entry(symbol).or_default() += u64::from(symbol.length) * u64::from(count);
            }
        }
        gains
    }
}

/// Where a symbol that begins with the three lowest bytes lies.
#[inline(always)]
fn slot_of(word: u64) -> usize {
    ((word & 0xff_ffff).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 53) as usize % SLOTS
}

/// The bytes at a place of a piece, zeros behind its end.
fn word_at(piece: &[u8], at: usize) -> u64 {
    let mut word = [0; SYMBOL_BYTES_MAX];
    let bytes = piece.get(at..(at + SYMBOL_BYTES_MAX).min(piece.len())).unwrap_or_default();
    word.iter_mut().zip(bytes).for_each(|(to, byte)| *to = *byte);
    u64::from_le_bytes(word)
}

/// Pieces of texts from places that look like chance, or all texts where they are few.
fn sample(strings: &Strings) -> Vec<&[u8]> {
    let (bytes, offsets) = (strings.bytes(), strings.offsets());
    if bytes.len() <= SAMPLE_BYTES {
        return strings.iter().collect();
    }
    let (mut pieces, mut taken, mut state) = (Vec::new(), 0, 0u64);
    while taken < SAMPLE_BYTES {
        // The generator of PCG (O'Neill, 2014), whose high bits are good.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = ((u128::from(state) * bytes.len() as u128) >> 64) as usize;
        // The text that holds this byte.
        let row = offsets.partition_point(|offset| *offset as usize <= at) - 1;
        let number = (at - offsets[row] as usize) / PIECE_BYTES;
        let piece = strings.get(row).chunks(PIECE_BYTES).nth(number).unwrap_or_default();
        taken += piece.len();
        pieces.push(piece);
    }
    pieces
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn strings<'a>(texts: impl IntoIterator<Item = &'a [u8]>) -> Strings {
        let mut strings = Strings::default();
        texts.into_iter().for_each(|text| assert!(strings.push(text)));
        strings
    }

    #[test]
    fn what_comes_often_becomes_a_symbol() {
        let texts: Vec<String> = (0..200).map(|i| format!("http://{}.example.com", i * 7 % 90)).collect();
        let learned = Learned::from(&strings(texts.iter().map(String::as_bytes)));
        let symbols: Vec<Vec<u8>> = learned
            .symbols()
            .iter()
            .map(|symbol| symbol.word.to_le_bytes()[..usize::from(symbol.length)].to_vec())
            .collect();
        assert!(symbols.contains(&b"http://".to_vec()) || symbols.iter().any(|s| s.starts_with(b"http:/")));
        assert!(symbols.iter().any(|symbol| symbol.len() == 8));
        let word = u64::from_le_bytes(*b"http://4");
        assert!(learned.next(word, 8).1 >= 6);
        // No symbol reaches over the end of a text.
        for left in 1..8 {
            assert!(learned.next(word, left).1 <= left);
        }
        assert_eq!(learned.next(0xff, 1), (None, 1), "a byte that did not come up");
    }

    #[test]
    fn symbols_are_few_and_the_same_for_the_same_texts() {
        let texts: Vec<Vec<u8>> =
            (0..5_000u32).map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes().repeat(3)).collect();
        let strings = strings(texts.iter().map(Vec::as_slice));
        let (learned, again) = (Learned::from(&strings), Learned::from(&strings));
        assert_eq!(learned.symbols(), again.symbols());
        assert_eq!(learned.symbols().len(), SYMBOLS_MAX);
        let mut distinct = learned.symbols().to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), SYMBOLS_MAX);
        assert!(distinct.iter().all(|s| (1..=8).contains(&s.length) && s.word & !s.mask() == 0));
    }

    #[test]
    fn nothing_is_learned_from_nothing() {
        assert_eq!(Learned::from(&Strings::default()).symbols(), []);
        assert_eq!(Learned::from(&strings([&b""[..]; 9])).symbols(), []);
    }
}
