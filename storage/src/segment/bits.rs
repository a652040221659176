//! Bits in a row: bitmaps and bit-packed numbers, the lowest bit of the lowest byte first.

use crate::error::Damage;
use crate::limits::VECTOR_ROWS;

/// Bits that a number needs; 0 for 0.
pub(super) fn width_of(number: u64) -> u32 {
    64 - number.leading_zeros()
}

/// Bytes that `count` numbers of `width` bits take.
pub(super) fn packed_bytes(count: usize, width: u32) -> usize {
    (count * width as usize).div_ceil(8)
}

/// Appends numbers of at most `width` bits each.
pub(super) fn pack(numbers: impl Iterator<Item = u64>, width: u32, out: &mut Vec<u8>) {
    let (mut gathered, mut bits) = (0u128, 0u32);
    for number in numbers {
        debug_assert!(width_of(number) <= width);
        gathered |= u128::from(number) << bits;
        bits += width;
        while bits >= 8 {
            out.push(gathered as u8);
            gathered >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        out.push(gathered as u8);
    }
}

/// Reads `out.len()` numbers, at most a vector of them, of `width` bits, at most 64.
pub(super) fn unpack(packed: &[u8], width: u32, out: &mut [u64]) -> Result<(), Damage> {
    if width > 64 || out.len() > VECTOR_ROWS || packed.len() != packed_bytes(out.len(), width) {
        return Err(Damage("packed numbers have a wrong length"));
    }
    if width == 0 {
        out.fill(0);
        return Ok(());
    }
    let mask = u64::MAX >> (64 - width);
    // Sixteen bytes hold every number, wherever in the first it begins.
    let number = |bytes: &[u8; 16], shift: usize| (u128::from_le_bytes(*bytes) >> shift) as u64 & mask;
    // The last numbers are read with zeros behind them.
    let tail = packed.len().saturating_sub(16);
    let mut padded = [0u8; 32];
    for (to, byte) in padded.iter_mut().zip(&packed[tail..]) {
        *to = *byte;
    }
    for (i, to) in out.iter_mut().enumerate() {
        let bit = i * width as usize;
        let (byte, shift) = (bit / 8, bit % 8);
        *to = match packed.get(byte..).and_then(<[u8]>::first_chunk::<16>) {
            Some(bytes) => number(bytes, shift),
            None => {
                let bytes = byte.checked_sub(tail).and_then(|byte| padded.get(byte..)?.first_chunk::<16>());
                bytes.map_or(0, |bytes| number(bytes, shift))
            }
        };
    }
    Ok(())
}

/// Appends one bit a flag.
pub(super) fn pack_flags(flags: &[bool], out: &mut Vec<u8>) {
    pack(flags.iter().map(|flag| u64::from(*flag)), 1, out);
}

/// Reads `count` flags; the bits after the last are zero.
pub(super) fn unpack_flags(packed: &[u8], count: usize) -> Result<Vec<bool>, Damage> {
    if packed.len() != count.div_ceil(8) {
        return Err(Damage("a bitmap has a wrong length"));
    }
    let mut flags = Vec::with_capacity(packed.len() * 8);
    for byte in packed {
        flags.extend((0..8).map(|bit| byte >> bit & 1 == 1));
    }
    if flags.drain(count..).any(|flag| flag) {
        return Err(Damage("a bitmap has bits after its end"));
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_of_every_width_come_back(
            width in 0u32..=64,
            numbers in proptest::collection::vec(any::<u64>(), 0..200),
        ) {
            let mask = u64::MAX.checked_shr(64 - width).unwrap_or(0);
            let numbers: Vec<u64> = numbers.into_iter().map(|n| n & mask).collect();
            let mut packed = Vec::new();
            pack(numbers.iter().copied(), width, &mut packed);
            prop_assert_eq!(packed.len(), packed_bytes(numbers.len(), width));
            let mut back = vec![7; numbers.len()];
            unpack(&packed, width, &mut back).unwrap();
            prop_assert_eq!(back, numbers);
        }

        #[test]
        fn flags_come_back(flags in proptest::collection::vec(any::<bool>(), 0..100)) {
            let mut packed = Vec::new();
            pack_flags(&flags, &mut packed);
            prop_assert_eq!(unpack_flags(&packed, flags.len()).unwrap(), flags);
        }
    }

    #[test]
    fn a_full_vector_of_the_greatest_width_comes_back() {
        let numbers: Vec<u64> = (0..VECTOR_ROWS as u64).map(|i| u64::MAX - i).collect();
        let mut packed = Vec::new();
        pack(numbers.iter().copied(), 64, &mut packed);
        let mut back = vec![0; VECTOR_ROWS];
        unpack(&packed, 64, &mut back).unwrap();
        assert_eq!(back, numbers);
    }

    #[test]
    fn wrong_lengths_and_widths_are_damage() {
        let mut out = [0; 3];
        assert!(unpack(&[0; 2], 4, &mut out).is_ok());
        assert!(unpack(&[0; 3], 4, &mut out).is_err());
        assert!(unpack(&[0; 1], 4, &mut out).is_err());
        assert!(unpack(&[0; 25], 65, &mut out).is_err());
        assert!(unpack(&[], 0, &mut [0; VECTOR_ROWS + 1]).is_err());
        assert!(unpack_flags(&[0b1000], 3).is_err());
        assert!(unpack_flags(&[], 1).is_err());
    }
}
