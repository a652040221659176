//! Reading little-endian numbers from bytes that may end anywhere.

use crate::error::Damage;

/// A place in bytes that are not trusted. Reading past the end is [`Damage`].
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

const SHORT: Damage = Damage("it ends too early");

impl<'a> Cursor<'a> {
    /// At the start of these bytes.
    pub fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`Damage`] past the end.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Damage> {
        let end = self.at.checked_add(count).ok_or(SHORT)?;
        let bytes = self.bytes.get(self.at..end).ok_or(SHORT)?;
        self.at = end;
        Ok(bytes)
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        self.at = self.bytes.len();
        rest
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// [`Damage`] past the end.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        self.take(N)?.try_into().map_err(|_| SHORT)
    }

    /// The next number.
    ///
    /// # Errors
    /// [`Damage`] past the end.
    pub fn u8(&mut self) -> Result<u8, Damage> {
        self.array().map(u8::from_le_bytes)
    }

    /// The next number.
    ///
    /// # Errors
    /// [`Damage`] past the end.
    pub fn u16(&mut self) -> Result<u16, Damage> {
        self.array().map(u16::from_le_bytes)
    }

    /// The next number.
    ///
    /// # Errors
    /// [`Damage`] past the end.
    pub fn u32(&mut self) -> Result<u32, Damage> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next number.
    ///
    /// # Errors
    /// [`Damage`] past the end.
    pub fn u64(&mut self) -> Result<u64, Damage> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next number.
    ///
    /// # Errors
    /// [`Damage`] past the end.
    pub fn i64(&mut self) -> Result<i64, Damage> {
        self.array().map(i64::from_le_bytes)
    }

    /// The next number.
    ///
    /// # Errors
    /// [`Damage`] past the end.
    pub fn i32(&mut self) -> Result<i32, Damage> {
        self.array().map(i32::from_le_bytes)
    }

    /// Skips `count` bytes that the format reserves; they are zero.
    ///
    /// # Errors
    /// [`Damage`] past the end, and where one is not zero.
    pub fn zeros(&mut self, count: usize) -> Result<(), Damage> {
        let reserved = self.take(count)?;
        reserved.iter().all(|byte| *byte == 0).then_some(()).ok_or(Damage("a reserved byte is not zero"))
    }

    /// Everything was read.
    ///
    /// # Errors
    /// [`Damage`] where bytes are left.
    pub fn end(&self) -> Result<(), Damage> {
        (self.at == self.bytes.len()).then_some(()).ok_or(Damage("bytes follow after its end"))
    }
}
