//! Packed numbers of one vector.
//!
//! A full vector of 1,024 lies in 16 lanes: number `i` in lane `i % 16`, as the lane's `i / 16`-th. A lane is a row of
//! 64-bit words, the lowest bits first, and word `k` of lane `l` is word `16 k + l` of the whole. So one shift serves 16
//! neighbours, whatever the width, and the compiler makes vector instructions of the loop; the idea is that of FastLanes
//! (Afroozeh and Boncz, 2023). A shorter vector, the last of a block, has its bits in plain order, as in [`bits`].

use super::bits;
use crate::error::Damage;
use crate::limits::VECTOR_ROWS;

/// Lanes of a full vector.
const LANES: usize = 16;

/// Bytes that `count` numbers of `width` bits take.
pub(super) fn packed_bytes(count: usize, width: u32) -> usize {
    bits::packed_bytes(count, width)
}

/// Appends the numbers of one vector, at most `width` bits each.
pub(super) fn pack(numbers: &[u64], width: u32, out: &mut Vec<u8>) {
    debug_assert!(numbers.len() <= VECTOR_ROWS);
    if numbers.len() < VECTOR_ROWS {
        return bits::pack(numbers.iter().copied(), width, out);
    }
    if width == 0 {
        return;
    }
    let (mut words, mut bit) = ([0u64; LANES], 0);
    for row in numbers.as_chunks::<LANES>().0 {
        for (word, number) in words.iter_mut().zip(row) {
            debug_assert!(bits::width_of(*number) <= width);
            *word |= number << bit;
        }
        bit += width;
        if bit >= 64 {
            words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
            bit -= 64;
            for (word, number) in words.iter_mut().zip(row) {
                *word = number.checked_shr(width - bit).unwrap_or(0);
            }
        }
    }
}

/// Reads one vector of `out.len()` numbers of `width` bits, at most 64; `map` makes of each what is wanted.
#[inline(always)]
pub(super) fn unpack<T>(
    packed: &[u8],
    width: u32,
    out: &mut [T],
    map: impl Fn(u64) -> T,
) -> Result<(), Damage> {
    if width > 64 || out.len() > VECTOR_ROWS || packed.len() != packed_bytes(out.len(), width) {
        return Err(Damage("packed numbers have a wrong length"));
    }
    if width == 0 {
        out.iter_mut().for_each(|number| *number = map(0));
        return Ok(());
    }
    if out.len() < VECTOR_ROWS {
        let mut numbers = [0u64; VECTOR_ROWS];
        let numbers = &mut numbers[..out.len()];
        bits::unpack(packed, width, numbers)?;
        out.iter_mut().zip(numbers).for_each(|(to, number)| *to = map(*number));
        return Ok(());
    }
    let mask = u64::MAX >> (64 - width);
    let words = packed.as_chunks::<8>().0.as_chunks::<LANES>().0;
    for (place, row) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let bit = place as u32 * width;
        let (at, shift) = ((bit / 64) as usize, bit % 64);
        // Whole rows at a time, each step for itself: so the compiler sees that nothing depends on what is stored.
        let low = words[at].map(|word| u64::from_le_bytes(word) >> shift);
        let numbers = if shift + width <= 64 {
            low
        } else {
            let high = words[at + 1].map(|word| u64::from_le_bytes(word) << (64 - shift));
            std::array::from_fn(|lane| low[lane] | high[lane])
        };
        *row = numbers.map(|number| map(number & mask));
    }
    Ok(())
}

/// One number of a full vector of numbers of `width` bits, below 64.
pub(super) fn number(packed: &[u8], width: u32, i: usize) -> Option<u64> {
    let bit = i / LANES * width as usize;
    let (at, shift) = (bit / 64 * LANES + i % LANES, bit as u32 % 64);
    let words = packed.as_chunks::<8>().0;
    let word = |at: usize| words.get(at).copied().map(u64::from_le_bytes);
    let mask = u64::MAX.checked_shr(64 - width).unwrap_or(0);
    let low = if width == 0 { 0 } else { word(at)? >> shift };
    let high = if shift + width > 64 { word(at + LANES)? << (64 - shift) } else { 0 };
    Some((low | high) & mask)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    /// Numbers of a width, the greatest among them.
    fn numbers(count: usize, width: u32) -> Vec<u64> {
        let mask = u64::MAX.checked_shr(64 - width).unwrap_or(0);
        let mix = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17);
        (0..count as u64).map(|i| if i % 7 == 3 { mask } else { mix(i) & mask }).collect()
    }

    fn packed(numbers: &[u64], width: u32) -> Vec<u8> {
        let mut out = Vec::new();
        pack(numbers, width, &mut out);
        assert_eq!(out.len(), packed_bytes(numbers.len(), width));
        out
    }

    #[test]
    fn vectors_of_every_width_come_back() {
        for width in 0..=64 {
            for count in [0, 1, 16, 1_023, VECTOR_ROWS] {
                let numbers = numbers(count, width);
                let mut back = vec![7; count];
                let packed = packed(&numbers, width);
                unpack(&packed, width, &mut back, |number| number).unwrap();
                assert_eq!(back, numbers, "{count} of {width} bits");
                if count == VECTOR_ROWS {
                    let single = |i| super::number(&packed, width, i).unwrap();
                    assert!((0..count).all(|i| single(i) == numbers[i]), "{width} bits one by one");
                }
            }
        }
    }

    #[test]
    fn every_bit_lies_where_the_format_says() {
        for width in [1, 3, 31, 33, 63, 64] {
            let numbers = numbers(VECTOR_ROWS, width);
            let packed = packed(&numbers, width);
            for (i, number) in numbers.iter().enumerate() {
                for bit in 0..width as usize {
                    let in_lane = i / 16 * width as usize + bit;
                    let word = in_lane / 64 * 16 + i % 16;
                    let byte = packed[word * 8 + in_lane % 64 / 8];
                    assert_eq!(
                        u64::from(byte >> (in_lane % 8) & 1),
                        number >> bit & 1,
                        "bit {bit} of number {i}"
                    );
                }
            }
        }
    }

    #[test]
    fn wrong_lengths_and_widths_are_damage() {
        let mut out = [0u64; VECTOR_ROWS];
        let mut is_ok = |bytes: usize, width| unpack(&vec![0; bytes], width, &mut out, |n| n).is_ok();
        assert!(is_ok(384, 3) && is_ok(0, 0));
        assert!(!is_ok(383, 3) && !is_ok(385, 3) && !is_ok(1, 0) && !is_ok(8_320, 65));
        assert!(unpack(&[], 0, &mut [0u64; VECTOR_ROWS + 1], |n| n).is_err());
    }

    proptest! {
        #[test]
        fn any_numbers_come_back(
            width in 0u32..=64,
            numbers in prop_oneof![
                proptest::collection::vec(any::<u64>(), VECTOR_ROWS),
                proptest::collection::vec(any::<u64>(), 0..100),
            ],
        ) {
            let mask = u64::MAX.checked_shr(64 - width).unwrap_or(0);
            let numbers: Vec<u64> = numbers.into_iter().map(|n| n & mask).collect();
            let mut back = vec![7; numbers.len()];
            unpack(&packed(&numbers, width), width, &mut back, |number| number).unwrap();
            prop_assert_eq!(back, numbers);
        }
    }
}
