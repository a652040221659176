//! Many byte strings in two vectors.

/// Byte strings end to end: `offsets[i]..offsets[i + 1]` of `bytes` is string `i`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strings {
    pub(super) offsets: Vec<u32>,
    pub(super) bytes: Vec<u8>,
}

impl Default for Strings {
    fn default() -> Self {
        Strings { offsets: vec![0], bytes: Vec::new() }
    }
}

impl Strings {
    /// Puts offsets and bytes together; `None` unless offsets start at 0, never fall, and end at the bytes' end.
    pub fn from_parts(offsets: Vec<u32>, bytes: Vec<u8>) -> Option<Strings> {
        let sound = offsets.first() == Some(&0)
            && offsets.is_sorted()
            && offsets.last().is_some_and(|end| *end as usize == bytes.len());
        sound.then_some(Strings { offsets, bytes })
    }

    /// Offsets, one more than there are strings.
    pub fn offsets(&self) -> &[u32] {
        &self.offsets
    }

    /// All bytes, end to end.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes offsets and bytes apart.
    pub fn into_parts(self) -> (Vec<u32>, Vec<u8>) {
        (self.offsets, self.bytes)
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is no string.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// String `i`. Panics where there is none, as a slice does.
    pub fn get(&self, i: usize) -> &[u8] {
        &self.bytes[self.offsets[i] as usize..self.offsets[i + 1] as usize]
    }

    /// Appends a string; false, and nothing changed, where the bytes would pass 4 GiB.
    #[must_use]
    pub fn push(&mut self, string: &[u8]) -> bool {
        let Ok(end) = u32::try_from(self.bytes.len() + string.len()) else { return false };
        self.bytes.extend_from_slice(string);
        self.offsets.push(end);
        true
    }

    /// All strings in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|i| self.get(i))
    }

    /// The strings at `indices`, in that order; `None` where they have more than `bytes_max` bytes together.
    pub(crate) fn take(&self, indices: &[u32], bytes_max: u32) -> Option<Strings> {
        let mut taken = Strings { offsets: Vec::with_capacity(indices.len() + 1), bytes: Vec::new() };
        taken.offsets.push(0);
        taken.extend_within(self, indices, bytes_max)?;
        Some(taken)
    }

    /// Appends the strings at `indices` of others, in that order; `None`, and nothing changed, where the bytes would pass 4 GiB.
    pub(super) fn extend_taken(&mut self, from: &Strings, indices: &[u32]) -> Option<()> {
        self.extend_within(from, indices, u32::MAX)
    }

    fn extend_within(&mut self, from: &Strings, indices: &[u32], bytes_max: u32) -> Option<()> {
        let length = |i: &u32| from.offsets[*i as usize + 1] - from.offsets[*i as usize];
        let bytes: u64 = indices.iter().map(|i| u64::from(length(i))).sum();
        if self.bytes.len() as u64 + bytes > u64::from(bytes_max) {
            return None;
        }
        self.bytes.reserve(bytes as usize + SHORT);
        let are_many = indices.len() >= from.len();
        match are_many.then(|| from.padded()).flatten() {
            Some(padded) => self.extend_padded(&padded, indices, bytes as usize),
            None => {
                for i in indices {
                    self.bytes.extend_from_slice(from.get(*i as usize));
                    self.offsets.push(self.bytes.len() as u32);
                }
            }
        }
        Some(())
    }

    /// All strings filled with zeros, with their lengths, if all are short.
    fn padded(&self) -> Option<Vec<([u8; SHORT], u8)>> {
        let pad = |string: &[u8]| {
            let mut bytes = [0; SHORT];
            bytes.get_mut(..string.len())?.copy_from_slice(string);
            Some((bytes, string.len() as u8))
        };
        self.iter().map(pad).collect()
    }

    /// Appends short strings that have so many bytes together: copies of always the same length, of which the next overwrites
    /// what is too much.
    fn extend_padded(&mut self, padded: &[([u8; SHORT], u8)], indices: &[u32], bytes: usize) {
        let mut end = self.bytes.len();
        let whole = end + bytes;
        self.bytes.resize(whole + SHORT, 0);
        self.offsets.extend(indices.iter().map(|i| {
            let (string, length) = padded[*i as usize];
            if let Some(to) = self.bytes.get_mut(end..end + SHORT) {
                to.copy_from_slice(&string);
            }
            end += usize::from(length);
            end as u32
        }));
        self.bytes.truncate(whole);
    }
}

/// Bytes of a short string at most.
const SHORT: usize = 16;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn strings_that_are_taken_several_times_have_a_limit() {
        let strings = Strings::from_parts(vec![0, 2, 2, 5], b"abcde".to_vec()).unwrap();
        let taken = strings.take(&[2, 0, 1, 2], 8).unwrap();
        assert_eq!(taken.iter().collect::<Vec<_>>(), [&b"cde"[..], b"ab", b"", b"cde"]);
        assert_eq!(strings.take(&[2, 0, 1, 2], 7), None);
        assert_eq!(strings.take(&[], 0), Some(Strings::default()));
    }
}
