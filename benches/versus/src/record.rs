//! What is stored: records of a stated size, the same bytes for everyone.

use std::sync::LazyLock;

/// Bytes of a record's key.
pub const KEY_BYTES: usize = 16;
/// Bytes of a value that makes a transaction of 100 bytes with its key.
pub const VALUE_BYTES: usize = 100 - KEY_BYTES;
/// Sources that records come from in turn.
const SOURCES: u64 = 100;

/// What a record is in Underbelly. A peer keeps each kind in a table of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A row of a series: a record with a new number, in order of numbers or nearly so.
    Row,
    /// A cell of a slot: a record in place of the one with the same number.
    Cell,
    /// A model: a blob.
    Model,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 3] = [Kind::Row, Kind::Cell, Kind::Model];

    /// The table's name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Row => "event",
            Kind::Cell => "note",
            Kind::Model => "model",
        }
    }
}

/// A number and a value of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which one it is among those of its kind.
    pub number: u64,
    /// Hexadecimal digits that look random and differ in every version of every record.
    pub value: String,
}

/// Hexadecimal digits, the same in every run.
static NOISE: LazyLock<String> =
    LazyLock::new(|| (0..1024).map(|n| format!("{:016x}", scatter(n))).collect());

/// Spreads numbers over all of 64 bits: multiplication by an odd constant is one to one.
fn scatter(number: u64) -> u64 {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

impl Record {
    /// Version `version` of record `number`, its value `bytes` long: at least 16, at most 8,192.
    pub fn new(number: u64, version: u64, bytes: usize) -> Record {
        let rest = bytes.saturating_sub(16);
        let from = (version as usize).wrapping_mul(7) % (NOISE.len() / 2);
        let mut value = String::with_capacity(bytes);
        value.push_str(&format!("{:016x}", scatter(version)));
        value.push_str(NOISE.get(from..from + rest).unwrap_or_default());
        Record { number, value }
    }

    /// The key for a store of keys and values: in order of numbers, which suits ordered trees best.
    pub fn key(&self) -> [u8; KEY_BYTES] {
        let mut key = [0; KEY_BYTES];
        let (number, source) = key.split_at_mut(8);
        number.copy_from_slice(&self.number.to_be_bytes());
        source.copy_from_slice(self.source().as_bytes());
        key
    }

    /// Where it comes from: text of eight bytes.
    pub fn source(&self) -> String {
        format!("S{:07}", self.number % SOURCES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_as_stated() {
        let record = Record::new(7, 7, VALUE_BYTES);
        assert_eq!((record.key().len(), record.value.len()), (16, 84));
        assert_eq!(Record::new(7, 7, 8192).value.len(), 8192);
        assert_eq!(Record::new(7, 7, 24).value.len(), 24);
    }

    #[test]
    fn versions_differ_and_repeat_in_another_run() {
        let values: std::collections::HashSet<String> =
            (0..10_000).map(|version| Record::new(0, version, 24).value).collect();
        assert_eq!(values.len(), 10_000);
        assert_eq!(Record::new(3, 5, 84), Record::new(3, 5, 84));
    }

    #[test]
    fn keys_are_in_order_of_numbers() {
        let keys: Vec<_> = [0, 1, 99, 100, 255, 256, u64::MAX].map(|n| Record::new(n, n, 24).key()).into();
        assert!(keys.is_sorted());
    }
}
