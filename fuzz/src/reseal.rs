//! Files with every checksum computed anew, and with the fields that only name the file set right.

use crate::DATABASE;

const STAMP: usize = 64;
const BLOCK: usize = 4096;

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = at.checked_add(value.len()).and_then(|end| bytes.get_mut(at..end)) {
        place.copy_from_slice(value);
    }
}

/// The checksum of a range that may lie outside.
fn checksum(bytes: &[u8], offset: u64, length: u64) -> Option<u32> {
    let (start, end) = (usize::try_from(offset).ok()?, usize::try_from(offset.checked_add(length)?).ok()?);
    Some(crc32fast::hash(bytes.get(start..end)?))
}

/// Writes a stamp at `at`, over the part `offset..offset + length`.
fn stamp(file: &mut [u8], at: usize, magic: [u8; 8], name: &str, offset: u64, length: u64) {
    let crc = checksum(file, offset, length).unwrap_or(0);
    let mut stamp = Vec::with_capacity(STAMP);
    stamp.extend_from_slice(&magic);
    stamp.extend_from_slice(&[1, 0, 0, 0]);
    stamp.extend_from_slice(&crc.to_le_bytes());
    stamp.extend_from_slice(&DATABASE);
    stamp.extend_from_slice(&offset.to_le_bytes());
    stamp.extend_from_slice(&length.to_le_bytes());
    stamp.extend_from_slice(&blake3::hash(name.as_bytes()).as_bytes()[..8]);
    stamp.extend_from_slice(&[0; 4]);
    let own = crc32fast::hash(&stamp);
    stamp.extend_from_slice(&own.to_le_bytes());
    put(file, at, &stamp);
}

/// A file that begins with its stamp: framed files and manifests.
pub fn framed(bytes: &[u8], magic: [u8; 8], name: &str) -> Vec<u8> {
    let mut file = bytes.to_vec();
    file.resize(file.len().max(STAMP), 0);
    let length = (file.len() - STAMP) as u64;
    stamp(&mut file, 0, magic, name, STAMP as u64, length);
    file
}

/// A file that ends with its stamp, over an index from where the stamp says up to the stamp. `blocks` puts the
/// checksums of the parts into the index, which begins at the place that it is given.
pub fn closed(bytes: &[u8], magic: [u8; 8], name: &str, blocks: impl Fn(&mut [u8], usize)) -> Vec<u8> {
    let mut file = bytes.to_vec();
    file.resize(file.len().max(STAMP), 0);
    let at = file.len() - STAMP;
    let offset = u64_at(&file, at + 32).unwrap_or(0).min(at as u64);
    blocks(&mut file, offset as usize);
    stamp(&mut file, at, magic, name, offset, at as u64 - offset);
    file
}

/// The checksums of the objects of a pack, for [`closed`].
pub fn directory(file: &mut [u8], index: usize) {
    const ENTRY: usize = 56;
    let end = file.len() - STAMP;
    for entry in (index..end).step_by(ENTRY) {
        object(file, entry + 32, entry + 48);
    }
}

/// The checksums of the parts of the objects of a chunk file, for [`closed`].
pub fn chunks(file: &mut [u8], index: usize) {
    const ENTRY: usize = 64;
    const BLOCK: u64 = 64 << 10;
    let count = u64_at(file, index).unwrap_or(0).min((file.len() / ENTRY) as u64) as usize;
    let mut at = index + 8 + count * ENTRY;
    for entry in (0..count).map(|entry| index + 8 + entry * ENTRY) {
        let place = u64_at(file, entry + 32).zip(u64_at(file, entry + 40));
        let Some((offset, stored)) = place.filter(|(_, stored)| *stored <= file.len() as u64) else { return };
        for part in (0..stored).step_by(BLOCK as usize) {
            let Some(crc) = checksum(file, offset.saturating_add(part), BLOCK.min(stored - part)) else {
                return;
            };
            put(file, at, &crc.to_le_bytes());
            at += 4;
        }
    }
}

/// The checksums of the blocks of a state image, for [`closed`].
pub fn blocks(file: &mut [u8], index: usize) {
    const HEAD: usize = 16;
    const ENTRY: usize = 40;
    let (end, mut offset) = (file.len() - STAMP, 0);
    for entry in (index + HEAD..end).step_by(ENTRY) {
        let length = u64::from(u32_at(file, entry).unwrap_or(0));
        if let Some(crc) = checksum(file, offset, length) {
            put(file, entry + 8, &crc.to_le_bytes());
        }
        offset += length;
    }
}

/// The checksums of the blocks of a segment, for [`closed`].
pub fn footer(file: &mut [u8], index: usize) {
    let _ = footer_blocks(file, index);
}

fn footer_blocks(file: &mut [u8], index: usize) -> Option<()> {
    const HEAD: usize = 48;
    const REPLACED: usize = 16;
    const GROUP: usize = 40;
    const BLOCK: usize = 48;
    let end = file.len() - STAMP;
    let columns = u32_at(file, index)? as usize;
    let each_seq = usize::from(*file.get(index + 32)? != 0);
    let replaced = (u32_at(file, index + 36)? as usize).min(file.len() / REPLACED);
    let mut at = index + HEAD + replaced * REPLACED;
    for _ in 0..columns.min(4096) {
        at += 2 + usize::from(*file.get(at + 1)?);
    }
    at = index + (at - index).next_multiple_of(8);
    while at + GROUP <= end {
        at += GROUP;
        for _ in 0..1 + each_seq + columns.min(4096) {
            object(file, at, at + 16);
            at += BLOCK;
            if at > end {
                return None;
            }
        }
    }
    Some(())
}

/// Puts the checksum of the part whose offset and length stand at `place` to `at`.
fn object(file: &mut [u8], place: usize, at: usize) {
    let range = u64_at(file, place).zip(u64_at(file, place + 8));
    if let Some(crc) = range.and_then(|(offset, length)| checksum(file, offset, length)) {
        put(file, at, &crc.to_le_bytes());
    }
}

/// The one file of a log: whole blocks, a sound header of a first file, and batches that follow each other for as
/// long as their lengths lead from one to the next.
pub fn log(bytes: &[u8]) -> Vec<u8> {
    const BLOCKS_MIN: usize = 4;
    const HEADER: usize = 56;
    let mut file = bytes.to_vec();
    file.resize(file.len().next_multiple_of(BLOCK).max(BLOCKS_MIN * BLOCK), 0);
    let length = file.len() as u64;
    put(&mut file, 0, b"UBLYWAL\0\x01\0\0\0");
    put(&mut file, 16, &DATABASE);
    put(&mut file, 32, &1u64.to_le_bytes());
    put(&mut file, 48, &length.to_le_bytes());
    let crc = crc32fast::hash(&file[..BLOCK - 4]);
    put(&mut file, BLOCK - 4, &crc.to_le_bytes());
    let (mut at, mut previous) = (BLOCK, u32_at(&file, 96).unwrap_or(0));
    while file.get(at..at + 4) == Some(b"UBAT") {
        put(&mut file, at + 48, &previous.to_le_bytes());
        let payload = u64::from(u32_at(&file, at + 44).unwrap_or(0));
        let Some(crc) = checksum(&file, at as u64 + 8, HEADER as u64 - 8 + payload) else { break };
        put(&mut file, at + 4, &crc.to_le_bytes());
        previous = crc;
        at += (HEADER + payload as usize).next_multiple_of(BLOCK);
    }
    file
}
