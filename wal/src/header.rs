//! The header block of a log file.

use crate::error::WalError;
use crate::layout::{BLOCK, NUMBER_MAX, log_name, u32_at, u64_at};
use crate::options::FILE_LEN_MAX;

const MAGIC: [u8; 8] = *b"UBLYWAL\0";
const VERSION: u32 = 1;
const REUSED: u32 = 1;
const CRC_AT: usize = BLOCK as usize - 4;

/// Where the file before this one ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Previous {
    /// Its number; 0 where there is none.
    pub number: u64,
    /// Its salt.
    pub salt: u64,
    /// Byte after its last batch. What follows is unused or a known tear.
    pub end: u64,
    /// Checksum of the last batch before this file.
    pub crc: u32,
}

/// The header block of a log file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    /// Whether the file held an earlier part of the log, so that its unused space is not zero.
    pub reused: bool,
    pub db_id: [u8; 16],
    pub number: u64,
    pub salt: u64,
    pub file_len: u64,
    pub first_seq: u64,
    pub first_batch: u64,
    pub previous: Previous,
}

impl FileHeader {
    pub fn encode(&self) -> Vec<u8> {
        let mut block = Vec::with_capacity(BLOCK as usize);
        block.extend_from_slice(&MAGIC);
        block.extend_from_slice(&VERSION.to_le_bytes());
        block.extend_from_slice(&(if self.reused { REUSED } else { 0 }).to_le_bytes());
        block.extend_from_slice(&self.db_id);
        for number in [
            self.number,
            self.salt,
            self.file_len,
            self.first_seq,
            self.first_batch,
            self.previous.number,
            self.previous.salt,
            self.previous.end,
        ] {
            block.extend_from_slice(&number.to_le_bytes());
        }
        block.extend_from_slice(&self.previous.crc.to_le_bytes());
        block.resize(CRC_AT, 0);
        let crc = crc32fast::hash(&block);
        block.extend_from_slice(&crc.to_le_bytes());
        block
    }

    /// The database that a header names, before anything of it was checked.
    pub fn claimed_owner(block: &[u8]) -> Option<[u8; 16]> {
        block.get(16..32)?.try_into().ok()
    }

    /// Reads the header of log file `number`, which has `file_len` bytes. `seq` is the sequence number to name
    /// where the file cannot be read.
    pub fn decode(
        block: &[u8],
        number: u64,
        file_len: u64,
        db_id: [u8; 16],
        seq: u64,
    ) -> Result<FileHeader, WalError> {
        let corrupt =
            |what: &str| WalError::Corrupt { file: log_name(number), offset: 0, seq, what: what.to_string() };
        let Some(covered) = block.get(..CRC_AT) else {
            return Err(corrupt("the file is shorter than its header"));
        };
        if covered.get(..8) != Some(&MAGIC[..]) {
            return Err(corrupt("this is not the header of a log file"));
        }
        if u32_at(block, CRC_AT) != Some(crc32fast::hash(covered)) {
            return Err(corrupt("the checksum of the header is wrong"));
        }
        let (header, version, flags) =
            FileHeader::fields(covered).ok_or_else(|| corrupt("the header is cut short"))?;
        let file = || log_name(number);
        if version != VERSION {
            return Err(WalError::Version { file: file(), found: version, known: VERSION });
        }
        if header.db_id != db_id {
            return Err(WalError::Foreign { file: file(), expected: db_id, found: header.db_id });
        }
        if header.number != number {
            return Err(corrupt(&format!("the header names log file {}", header.number)));
        }
        if header.file_len != file_len || !file_len.is_multiple_of(BLOCK) {
            let what = format!("the file has {file_len} bytes, its header says {}", header.file_len);
            return Err(corrupt(&what));
        }
        let previous = header.previous;
        let alone = previous == Previous::default();
        let placed = previous.end >= BLOCK
            && previous.end.is_multiple_of(BLOCK)
            && number.checked_sub(1) == Some(previous.number);
        let bounded = file_len <= FILE_LEN_MAX
            && (1..=NUMBER_MAX).contains(&header.first_seq)
            && (1..=NUMBER_MAX).contains(&header.first_batch);
        if flags & !REUSED != 0 || header.salt == 0 || !bounded || !(alone || placed) {
            return Err(corrupt("the header contradicts itself"));
        }
        Ok(header)
    }

    fn fields(block: &[u8]) -> Option<(FileHeader, u32, u32)> {
        let (version, flags) = (u32_at(block, 8)?, u32_at(block, 12)?);
        let previous = Previous {
            number: u64_at(block, 72)?,
            salt: u64_at(block, 80)?,
            end: u64_at(block, 88)?,
            crc: u32_at(block, 96)?,
        };
        let header = FileHeader {
            reused: flags & REUSED != 0,
            db_id: *block.get(16..)?.first_chunk()?,
            number: u64_at(block, 32)?,
            salt: u64_at(block, 40)?,
            file_len: u64_at(block, 48)?,
            first_seq: u64_at(block, 56)?,
            first_batch: u64_at(block, 64)?,
            previous,
        };
        Some((header, version, flags))
    }

    /// Salt of whatever use of the file wrote this block; `None` where it holds no header.
    pub fn salt_of(block: &[u8]) -> Option<u64> {
        if block.get(..8) == Some(&MAGIC[..]) { u64_at(block, 40) } else { None }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn sample() -> FileHeader {
        FileHeader {
            reused: true,
            db_id: *b"0123456789abcdef",
            number: 7,
            salt: 0x1122_3344_5566_7788,
            file_len: 65536,
            first_seq: 1000,
            first_batch: 90,
            previous: Previous { number: 6, salt: 0x99, end: 8192, crc: 0xdead_beef },
        }
    }

    #[test]
    fn golden_bytes() {
        let block = sample().encode();
        assert_eq!(block.len(), 4096);
        let hex: String = block[..100].iter().map(|b| format!("{b:02x}")).collect();
        let golden = concat!(
            "55424c5957414c00",
            "01000000",
            "01000000",
            "30313233343536373839616263646566",
            "0700000000000000",
            "8877665544332211",
            "0000010000000000",
            "e803000000000000",
            "5a00000000000000",
            "0600000000000000",
            "9900000000000000",
            "0020000000000000",
            "efbeadde",
        );
        assert_eq!(hex, golden);
        assert!(block[100..CRC_AT].iter().all(|&b| b == 0));
        assert_eq!(block[CRC_AT..], 0x66b8_1bf7u32.to_le_bytes());
    }

    #[test]
    fn reads_back_and_refuses_every_flipped_byte() {
        let header = sample();
        let block = header.encode();
        assert_eq!(FileHeader::decode(&block, 7, 65536, header.db_id, 1).unwrap(), header);
        for at in 0..block.len() {
            let mut bad = block.clone();
            bad[at] ^= 0x10;
            assert!(FileHeader::decode(&bad, 7, 65536, header.db_id, 1).is_err(), "byte {at}");
        }
        for len in [0, 7, 8, 100, 4095] {
            assert!(FileHeader::decode(&block[..len], 7, 65536, header.db_id, 1).is_err());
        }
    }

    #[test]
    fn says_what_does_not_belong() {
        let header = sample();
        let block = header.encode();
        let foreign = FileHeader::decode(&block, 7, 65536, [0; 16], 1);
        assert!(matches!(foreign, Err(WalError::Foreign { .. })));
        let renamed = FileHeader::decode(&block, 8, 65536, header.db_id, 1).unwrap_err();
        assert!(renamed.to_string().contains("names log file 7"), "{renamed}");
        let cut = FileHeader::decode(&block, 7, 61440, header.db_id, 1).unwrap_err();
        assert!(cut.to_string().contains("61440"), "{cut}");
        let mut newer = block[..CRC_AT].to_vec();
        newer[8] = 2;
        let crc = crc32fast::hash(&newer);
        newer.extend_from_slice(&crc.to_le_bytes());
        let newer = FileHeader::decode(&newer, 7, 65536, header.db_id, 1);
        assert!(matches!(newer, Err(WalError::Version { found: 2, .. })));
    }
}
