//! The key of a record.

use crate::cursor::Cursor;
use crate::error::Damage;

/// What a record is found by. Ordered by kind, then `major`, then `minor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// What the record describes.
    pub kind: u8,
    /// The number of what it describes.
    pub major: u64,
    /// The rest of the number, 0 where `major` says all.
    pub minor: u64,
}

impl Key {
    /// Length in a file, bytes.
    pub(super) const BYTES: usize = 17;

    /// The key of a thing that one number names.
    pub const fn new(kind: u8, major: u64) -> Key {
        Key { kind, major, minor: 0 }
    }

    pub(super) fn encode(self, out: &mut Vec<u8>) {
        out.push(self.kind);
        out.extend_from_slice(&self.major.to_le_bytes());
        out.extend_from_slice(&self.minor.to_le_bytes());
    }

    pub(super) fn decode(cursor: &mut Cursor<'_>) -> Result<Key, Damage> {
        Ok(Key { kind: cursor.u8()?, major: cursor.u64()?, minor: cursor.u64()? })
    }
}
