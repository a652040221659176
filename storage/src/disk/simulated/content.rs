//! The bytes of a simulated file: as a process sees them, and all that a power cut may leave of them.

use std::sync::Arc;

use super::holds::SharedHolds;

/// Bytes that a disk writes as a whole.
pub(super) const SECTOR: usize = 512;

/// What a sector may hold that was allocated and never written: bytes of a file that was deleted.
const FOREIGN: u8 = 0xa5;

/// A sector as it was before a write.
struct Before {
    sector: usize,
    bytes: [u8; SECTOR],
}

/// Bytes and what of them is durable.
#[derive(Default)]
pub(super) struct Content {
    bytes: Arc<[u8]>,
    durable_len: usize,
    /// For each unsynced write, in order, the sectors that it changed as they were. A sector behind the durable
    /// length that was written once is not listed: it was nothing.
    unsynced: Vec<Before>,
    /// The same for writes that a failed sync has declared clean. A later sync does not write them.
    lost: Vec<Before>,
    sealed: bool,
    holds: SharedHolds,
}

/// Which of several possibilities comes true: a number below its argument, 0 for the oldest.
pub(super) type Chooser<'a> = dyn FnMut(usize) -> usize + 'a;

fn sectors(len: usize) -> usize {
    len.div_ceil(SECTOR)
}

impl Content {
    /// Bytes that are durable.
    pub fn durable(bytes: Vec<u8>) -> Content {
        Content { durable_len: bytes.len(), bytes: bytes.into(), ..Content::default() }
    }

    /// The bytes as they are now.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// Refuses writing from now on.
    pub fn seal(&mut self) {
        self.sealed = true;
    }

    /// Whether it refuses writing.
    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Who shares or claims it.
    pub fn holds(&self) -> &SharedHolds {
        &self.holds
    }

    fn sector(&self, sector: usize) -> [u8; SECTOR] {
        let mut bytes = [0; SECTOR];
        let start = (sector * SECTOR).min(self.bytes.len());
        let end = (start + SECTOR).min(self.bytes.len());
        bytes[..end - start].copy_from_slice(&self.bytes[start..end]);
        bytes
    }

    /// Writes, unsynced. What lies between the old end and `start` becomes zero.
    pub fn write(&mut self, start: usize, written: &[u8]) {
        let end = start + written.len();
        for sector in start / SECTOR..sectors(end.min(self.bytes.len())) {
            let bytes = self.sector(sector);
            self.unsynced.push(Before { sector, bytes });
        }
        if end > self.bytes.len() {
            let mut longer = Vec::with_capacity(end);
            longer.extend_from_slice(&self.bytes[..start.min(self.bytes.len())]);
            longer.resize(start, 0);
            longer.extend_from_slice(written);
            self.bytes = longer.into();
        } else {
            Arc::make_mut(&mut self.bytes)[start..end].copy_from_slice(written);
        }
    }

    /// Makes durable what lies within the durable length, and with `length` the length too.
    pub fn sync(&mut self, length: bool) {
        if length {
            self.durable_len = self.bytes.len();
        }
        let inside = sectors(self.durable_len);
        if !self.lost.is_empty() {
            let written: std::collections::BTreeSet<usize> =
                self.unsynced.iter().map(|before| before.sector).filter(|sector| *sector < inside).collect();
            self.lost.retain(|before| !written.contains(&before.sector));
        }
        match self.durable_len == self.bytes.len() {
            true => self.unsynced.clear(),
            false => self.unsynced.retain(|before| before.sector >= inside),
        }
    }

    /// What a failed sync does: the unsynced writes are clean to the system and may never be written. With `evict`
    /// their pages are dropped too, so that reading shows what is durable.
    pub fn lose(&mut self, evict: bool) {
        for sector in sectors(self.durable_len)..sectors(self.bytes.len()) {
            self.lost.push(Before { sector, bytes: [0; SECTOR] });
        }
        self.lost.append(&mut self.unsynced);
        if evict {
            let len = self.bytes.len();
            let bytes = Arc::make_mut(&mut self.bytes);
            for before in self.lost.iter().rev() {
                let start = before.sector * SECTOR;
                let end = (start + SECTOR).min(len);
                bytes[start..end].copy_from_slice(&before.bytes[..end - start]);
            }
        }
    }

    /// What a power cut leaves.
    pub fn cut(&self, choose: &mut Chooser<'_>) -> Content {
        let mut len = self.durable_len;
        if self.durable_len < self.bytes.len() {
            len += match choose(3) {
                0 => 0,
                1 => choose(self.bytes.len() - self.durable_len),
                _ => self.bytes.len() - self.durable_len,
            };
        }
        let mut bytes = match len == self.bytes.len() {
            true => self.bytes.clone(),
            false => self.bytes[..len].into(),
        };
        let mut befores: Vec<&Before> = self.lost.iter().chain(&self.unsynced).collect();
        befores.sort_by_key(|before| before.sector);
        let mut put = |sector: usize, old: &[u8; SECTOR]| {
            let start = (sector * SECTOR).min(len);
            let end = (start + SECTOR).min(len);
            Arc::make_mut(&mut bytes)[start..end].copy_from_slice(&old[..end - start]);
        };
        let appended = sectors(self.durable_len);
        for versions in befores.chunk_by(|a, b| a.sector == b.sector) {
            if versions[0].sector < appended
                && let Some(old) = versions.get(choose(versions.len() + 1))
            {
                put(old.sector, &old.bytes);
            }
        }
        for sector in appended..sectors(len) {
            let first = befores.partition_point(|before| before.sector < sector);
            let versions = befores[first..].iter().take_while(|before| before.sector == sector);
            let nothing = [[0; SECTOR], [FOREIGN; SECTOR]];
            let versions: Vec<_> = nothing.iter().chain(versions.map(|before| &before.bytes)).collect();
            if let Some(old) = versions.get(choose(versions.len() + 1)) {
                put(sector, old);
            }
        }
        Content { bytes, durable_len: len, sealed: self.sealed, ..Content::default() }
    }
}
