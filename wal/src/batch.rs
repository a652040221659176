//! Batches: a header and frames, written at once.

use crate::layout::{BLOCK, NUMBER_MAX, padded, u32_at, u64_at};

const MAGIC: [u8; 4] = *b"UBAT";

/// Length of a batch's header in bytes.
pub(crate) const HEADER: usize = 56;

/// Bytes before the payload of each record.
pub(crate) const FRAME: usize = 12;

/// Longest batch that is believed, in bytes, padding included.
pub(crate) const BATCH_MAX: u64 = 32 << 20;

/// Bytes before those that the checksum covers.
const UNCOVERED: usize = 8;

/// The header of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub crc: u32,
    pub salt: u64,
    pub file: u64,
    pub number: u64,
    pub first_seq: u64,
    pub count: u32,
    pub payload: u32,
    pub previous_crc: u32,
}

/// What a batch is chained to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Number of the next batch.
    pub number: u64,
    /// Checksum of the batch before it; 0 for the first of a database.
    pub crc: u32,
}

/// Writes a batch of contiguous records into `buffer`, padded, and returns its checksum.
pub(crate) fn encode<R: AsRef<[u8]>>(
    buffer: &mut Vec<u8>,
    salt: u64,
    file: u64,
    link: Link,
    first_seq: u64,
    records: &[(u64, R)],
) -> u32 {
    buffer.clear();
    let payload: usize = records.iter().map(|(_, record)| FRAME + record.as_ref().len()).sum();
    buffer.reserve(padded((HEADER + payload) as u64) as usize);
    buffer.extend_from_slice(&MAGIC);
    buffer.extend_from_slice(&[0; 4]);
    for number in [salt, file, link.number, first_seq] {
        buffer.extend_from_slice(&number.to_le_bytes());
    }
    for number in [records.len() as u32, payload as u32, link.crc, 0] {
        buffer.extend_from_slice(&number.to_le_bytes());
    }
    for (seq, record) in records {
        let record = record.as_ref();
        buffer.extend_from_slice(&seq.to_le_bytes());
        buffer.extend_from_slice(&(record.len() as u32).to_le_bytes());
        buffer.extend_from_slice(record);
    }
    let crc = crc32fast::hash(&buffer[UNCOVERED..]);
    buffer[4..UNCOVERED].copy_from_slice(&crc.to_le_bytes());
    buffer.resize(padded(buffer.len() as u64) as usize, 0);
    crc
}

/// Whether a block begins as batches do.
pub(crate) fn has_magic(block: &[u8]) -> bool {
    block.get(..MAGIC.len()) == Some(&MAGIC[..])
}

/// The salt that a block would carry if a batch began there.
pub(crate) fn salt_of(block: &[u8]) -> Option<u64> {
    u64_at(block, 8)
}

impl BatchHeader {
    /// Reads a header whose lengths are within bounds; the checksum is not looked at.
    pub fn peek(block: &[u8]) -> Option<BatchHeader> {
        if !has_magic(block) || u32_at(block, 52)? != 0 {
            return None;
        }
        let header = BatchHeader {
            crc: u32_at(block, 4)?,
            salt: salt_of(block)?,
            file: u64_at(block, 16)?,
            number: u64_at(block, 24)?,
            first_seq: u64_at(block, 32)?,
            count: u32_at(block, 40)?,
            payload: u32_at(block, 44)?,
            previous_crc: u32_at(block, 48)?,
        };
        let least = u64::from(header.count) * FRAME as u64;
        let bounded = header.bytes() <= BATCH_MAX && least <= u64::from(header.payload);
        let counted = (1..=NUMBER_MAX).contains(&header.first_seq) && header.number <= NUMBER_MAX;
        (bounded && counted).then_some(header)
    }

    /// Length on disk, padding included.
    pub fn bytes(&self) -> u64 {
        padded(HEADER as u64 + u64::from(self.payload))
    }

    /// Whether the checksum fits `bytes`, which begin with this header, and the frames fill the payload with
    /// contiguous sequence numbers.
    pub fn is_whole(&self, bytes: &[u8]) -> bool {
        let covered = bytes.get(UNCOVERED..HEADER + self.payload as usize);
        covered.is_some_and(|covered| crc32fast::hash(covered) == self.crc) && self.frames_are_whole(bytes)
    }

    fn frames_are_whole(&self, bytes: &[u8]) -> bool {
        let mut frames = self.frames(bytes);
        let contiguous = (0..u64::from(self.count))
            .all(|i| frames.next().is_some_and(|(seq, _)| seq == self.first_seq + i));
        contiguous && frames.rest.is_empty()
    }

    /// The records of a whole batch.
    pub fn frames<'a>(&self, bytes: &'a [u8]) -> Frames<'a> {
        Frames { rest: bytes.get(HEADER..HEADER + self.payload as usize).unwrap_or_default() }
    }
}

/// Records of a batch: sequence number and payload.
pub(crate) struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Frames<'a> {
    type Item = (u64, &'a [u8]);

    fn next(&mut self) -> Option<(u64, &'a [u8])> {
        let seq = u64_at(self.rest, 0)?;
        let len = u32_at(self.rest, 8)? as usize;
        let (record, rest) = self.rest.get(FRAME..)?.split_at_checked(len)?;
        self.rest = rest;
        Some((seq, record))
    }
}

const _: () = assert!(HEADER < BLOCK as usize);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Vec<u8> {
        let mut bytes = Vec::new();
        let records = [(300, b"one".to_vec()), (301, Vec::new()), (302, vec![0xff; 5])];
        encode(&mut bytes, 0x1122_3344_5566_7788, 9, Link { number: 41, crc: 0xcafe_f00d }, 300, &records);
        bytes
    }

    #[test]
    fn golden_bytes() {
        let bytes = sample();
        assert_eq!(bytes.len(), 4096);
        let hex: String = bytes[..100].iter().map(|b| format!("{b:02x}")).collect();
        let golden = concat!(
            "55424154",
            "4cd86aac",
            "8877665544332211",
            "0900000000000000",
            "2900000000000000",
            "2c01000000000000",
            "03000000",
            "2c000000",
            "0df0feca",
            "00000000",
            "2c01000000000000",
            "03000000",
            "6f6e65",
            "2d01000000000000",
            "00000000",
            "2e01000000000000",
            "05000000",
            "ffffffffff",
        );
        assert_eq!(hex, golden);
        assert!(bytes[100..].iter().all(|&b| b == 0));
    }

    #[test]
    fn every_flipped_byte_is_refused_and_padding_is_not_looked_at() {
        let bytes = sample();
        let whole = |bytes: &[u8]| BatchHeader::peek(bytes).is_some_and(|h| h.is_whole(bytes));
        assert!(whole(&bytes));
        for at in 0..100 {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                assert!(!whole(&bad), "byte {at} bit {bit}");
            }
        }
        let mut padding = bytes.clone();
        padding[100] = 1;
        assert!(whole(&padding));
        assert!((0..100).all(|len| !whole(&bytes[..len])));
    }

    #[test]
    fn a_right_checksum_over_wrong_frames_is_refused() {
        let reseal = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = sample();
            change(&mut bytes);
            let payload = u32_at(&bytes, 44).unwrap() as usize;
            let crc = crc32fast::hash(&bytes[UNCOVERED..HEADER + payload]);
            bytes[4..8].copy_from_slice(&crc.to_le_bytes());
            BatchHeader::peek(&bytes).is_some_and(|h| h.is_whole(&bytes))
        };
        assert!(reseal(&|_| ()));
        assert!(!reseal(&|b| b[56] ^= 1), "first seq of the frames");
        assert!(!reseal(&|b| b[40] = 2), "fewer records than frames");
        assert!(!reseal(&|b| b[64] = 200), "length past the payload");
        assert!(!reseal(&|b| b[44] = 0x2d), "payload longer than its frames");
        assert!(!reseal(&|b| b[32..40].fill(0xff)), "a seq that counting on would overflow");
    }

    #[test]
    fn lengths_are_bounded_before_they_are_believed() {
        let mut bytes = sample();
        bytes[44..48].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(BatchHeader::peek(&bytes), None);
        let mut bytes = sample();
        bytes[40..44].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(BatchHeader::peek(&bytes), None);
    }

    proptest! {
        #[test]
        fn reads_back_what_was_written(records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..40)) {
            let records: Vec<_> = (10..).zip(records).collect();
            let mut bytes = Vec::new();
            let crc = encode(&mut bytes, 5, 1, Link { number: 2, crc: 3 }, 10, &records);
            let header = BatchHeader::peek(&bytes).unwrap();
            prop_assert!(header.is_whole(&bytes) && header.crc == crc);
            prop_assert_eq!(header.bytes(), bytes.len() as u64);
            let read: Vec<_> = header.frames(&bytes).map(|(seq, r)| (seq, r.to_vec())).collect();
            prop_assert_eq!(read, records);
        }

        #[test]
        fn any_bytes_are_read_without_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..600), forge: bool) {
            if forge && bytes.len() >= HEADER {
                bytes[..4].copy_from_slice(&MAGIC);
                bytes[52..56].fill(0);
                bytes[42..44].fill(0);
                bytes[46..48].fill(0);
            }
            if let Some(header) = BatchHeader::peek(&bytes) {
                header.is_whole(&bytes);
                header.frames(&bytes).count();
            }
        }
    }
}
