//! Bytes that are lent.

use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::map::Mapped;

/// Bytes of an object: a range of a sealed file, or shared memory. Cheap to clone; the bytes live as long as
/// any clone.
#[derive(Clone)]
pub struct Blob(Kind);

#[derive(Clone)]
enum Kind {
    /// The range lies inside the map.
    Mapped(Mapped, Range<usize>),
    Shared(Arc<[u8]>),
}

impl Blob {
    /// A range of a map; `None` where it does not lie inside.
    pub fn mapped(map: Mapped, range: Range<usize>) -> Option<Blob> {
        (range.start <= range.end && range.end <= map.len()).then_some(Blob(Kind::Mapped(map, range)))
    }

    /// Whether the bytes are a file's pages, so that holding them costs no memory of the process.
    pub fn is_mapped(&self) -> bool {
        matches!(&self.0, Kind::Mapped(map, _) if map.is_file())
    }

    /// A part of these bytes, without copying; `None` where it does not lie inside.
    pub fn slice(&self, range: Range<usize>) -> Option<Blob> {
        if range.start > range.end || range.end > self.len() {
            return None;
        }
        match &self.0 {
            Kind::Mapped(map, outer) => {
                Blob::mapped(map.clone(), outer.start + range.start..outer.start + range.end)
            }
            Kind::Shared(bytes) => Blob::mapped(Mapped::memory(bytes.clone()), range),
        }
    }
}

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Kind::Mapped(map, range) => map.get(range.clone()).unwrap_or_default(),
            Kind::Shared(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Blob {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Arc<[u8]>> for Blob {
    fn from(bytes: Arc<[u8]>) -> Blob {
        Blob(Kind::Shared(bytes))
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Blob {
        Blob(Kind::Shared(bytes.into()))
    }
}

impl From<&[u8]> for Blob {
    fn from(bytes: &[u8]) -> Blob {
        Blob(Kind::Shared(bytes.into()))
    }
}

impl PartialEq for Blob {
    fn eq(&self, other: &Blob) -> bool {
        **self == **other
    }
}

impl Eq for Blob {}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blob({} bytes)", self.len())
    }
}
