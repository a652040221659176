//! Blocks of keys, each an entry of sled: it works and keeps accounts by entries, so it is given few of them.
//!
//! A block is its keys in order; of each the length that it shares with the one before (`u16`, little-endian), the length of
//! the rest (`u16`), and the rest.

use super::IndexError;
use crate::cursor::Cursor;

/// Bytes of a block, about. One that came to more is divided evenly.
const BLOCK_BYTES: usize = 2048;

/// The lengths in front of each key.
const LENGTHS_BYTES: usize = 4;

/// A block and the first of its keys.
pub(super) type Block<'k> = (&'k [u8], Vec<u8>);

fn shared(before: &[u8], key: &[u8]) -> usize {
    before.iter().zip(key).take_while(|(a, b)| a == b).count()
}

/// These keys, which are in order, as blocks.
///
/// # Errors
/// [`IndexError::Contents`] where a key is longer than 65,535 bytes.
pub(super) fn encode<'k>(keys: &[&'k [u8]]) -> Result<Vec<Block<'k>>, IndexError> {
    let befores = std::iter::once(&[][..]).chain(keys.iter().copied());
    let lengths =
        keys.iter().zip(befores).map(|(key, before)| LENGTHS_BYTES + key.len() - shared(before, key));
    let lengths: Vec<usize> = lengths.collect();
    let all: usize = lengths.iter().sum();
    let count = all.div_ceil(BLOCK_BYTES);
    let mut blocks: Vec<Block<'k>> = Vec::with_capacity(count);
    let (mut before, mut done): (&[u8], usize) = (&[], 0);
    for (key, length) in keys.iter().zip(lengths) {
        if done * count >= all * blocks.len() {
            blocks.push((key, Vec::with_capacity(BLOCK_BYTES)));
            before = &[];
        }
        done += length;
        let Some((_, block)) = blocks.last_mut() else { continue };
        let shared = shared(before, key);
        let rest = key.get(shared..).unwrap_or_default();
        for length in [shared, rest.len()] {
            block.extend(u16::try_from(length).map_err(|_| IndexError::Contents)?.to_le_bytes());
        }
        block.extend(rest);
        before = key;
    }
    Ok(blocks)
}

/// The keys of a block.
///
/// # Errors
/// [`IndexError::Contents`] where the bytes are no block.
pub(super) fn decode(block: &[u8]) -> Result<Vec<Vec<u8>>, IndexError> {
    let mut keys: Vec<Vec<u8>> = Vec::new();
    each(block, |key| {
        keys.push(key.to_vec());
        true
    })?;
    Ok(keys)
}

/// Gives the keys of a block one by one, until one is answered with false; answers whether none was.
///
/// # Errors
/// As [`decode`].
pub(super) fn each(block: &[u8], mut take: impl FnMut(&[u8]) -> bool) -> Result<bool, IndexError> {
    let mut cursor = Cursor::new(block);
    let mut key: Vec<u8> = Vec::new();
    while cursor.position() < block.len() {
        let broken = |_| IndexError::Contents;
        let shared = usize::from(cursor.u16().map_err(broken)?);
        let rest = usize::from(cursor.u16().map_err(broken)?);
        if shared > key.len() {
            return Err(IndexError::Contents);
        }
        key.truncate(shared);
        key.extend(cursor.take(rest).map_err(broken)?);
        if !take(&key) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn numbered(count: u32, step: u32) -> Vec<Vec<u8>> {
        (0..count).map(|i| [&[7; 16][..], &(i * step).to_be_bytes()].concat()).collect()
    }

    #[test]
    fn keys_come_back_from_blocks_of_like_lengths() {
        for count in [0, 1, 2, 200, 300, 5_000] {
            let keys = numbered(count, 3);
            let borrowed: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            let blocks = encode(&borrowed).unwrap();
            let back: Vec<Vec<u8>> = blocks.iter().flat_map(|(_, block)| decode(block).unwrap()).collect();
            assert_eq!(back, keys);
            for (first, block) in &blocks {
                assert_eq!(decode(block).unwrap()[0], *first);
                assert!(block.len() < BLOCK_BYTES + 32, "{count}: {}", block.len());
            }
            let lengths = blocks.iter().map(|(_, block)| block.len());
            let (least, most) = (lengths.clone().min().unwrap_or(0), lengths.max().unwrap_or(0));
            assert!(blocks.len() < 2 || 2 * least > most, "{count}: from {least} to {most} bytes");
        }
    }

    #[test]
    fn what_is_no_block_and_what_is_too_long_are_refused() {
        let refused = |bytes: &[u8]| matches!(decode(bytes), Err(IndexError::Contents));
        // Cut in the lengths, cut in the rest, more shared than there was.
        assert!(refused(&[0]) && refused(&[0, 0, 1]) && refused(&[0, 0, 2, 0, 5]) && refused(&[1, 0, 0, 0]));
        let long = vec![1; usize::from(u16::MAX) + 1];
        assert!(matches!(encode(&[&long]), Err(IndexError::Contents)));
        assert!(encode(&[&long[1..]]).is_ok());
    }
}
