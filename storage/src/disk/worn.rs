//! A disk some places of which cannot be read, for who saves what is left.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, File, Lock, SharedDisk};
use crate::error::is_of_machine;
use crate::map::Mapped;

/// Bytes that are read at once, and that are given up at once where they cannot be.
const STEP_BYTES: usize = 1 << 20;
const BLOCK_BYTES: usize = 4096;
/// How many times as long as what it has on the disk a file is that is taken for a hole; compression makes none so short.
const HOLLOW: u64 = 1024;
/// Bytes of a file with such places, beyond which it is not put into memory.
const MEMORY_BYTES_MAX: u64 = 1 << 30;

/// A stretch of a file that the disk does not give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The file.
    pub file: String,
    /// Where it begins.
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
    /// What the system said of its beginning.
    pub error: String,
}

/// Another disk, for reading alone. Bytes that it cannot read are zeros here, which no checksum takes for sound (but a log for
/// space that was never written, so ask), and [`WornDisk::unreadable`] says where they are. A file that has such places is mapped as bytes in memory: touching a page
/// that cannot be read would end the process.
pub struct WornDisk {
    disk: SharedDisk,
    found: Arc<Found>,
}

#[derive(Default)]
struct Found {
    places: Mutex<Vec<Unreadable>>,
    /// The first file that the system refused for want of handles or memory.
    starved: Mutex<Option<(String, io::Error)>>,
}

impl Found {
    fn places(&self) -> MutexGuard<'_, Vec<Unreadable>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn starved(&self) -> MutexGuard<'_, Option<(String, io::Error)>> {
        self.starved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes where an answer is of the system and not of the disk.
    fn fed<T>(&self, name: &str, answer: io::Result<T>) -> io::Result<T> {
        answer.inspect_err(|error| {
            if is_of_machine(error) {
                let same = match error.raw_os_error() {
                    Some(code) => io::Error::from_raw_os_error(code),
                    None => error.kind().into(),
                };
                self.starved().get_or_insert((name.to_string(), same));
            }
        })
    }
}

impl WornDisk {
    /// Looks at a disk.
    pub fn new(disk: SharedDisk) -> WornDisk {
        WornDisk { disk, found: Arc::default() }
    }

    /// The file that the system did not open, map or read for want of handles or memory, if there is one: what was found of the
    /// database says nothing then. Asking takes the answer away.
    pub fn starved(&self) -> Option<(String, io::Error)> {
        self.found.starved().take()
    }

    fn fed<T>(&self, name: &str, answer: io::Result<T>) -> io::Result<T> {
        self.found.fed(name, answer)
    }

    /// The places that could not be read so far, by file and offset.
    pub fn unreadable(&self) -> Vec<Unreadable> {
        let mut found = self.found.places().clone();
        found.sort_by(|a, b| (&a.file, a.offset).cmp(&(&b.file, b.offset)));
        found.dedup_by(|later, first| {
            let end = first.offset + first.bytes;
            let is_one = later.file == first.file && later.offset <= end;
            if is_one {
                first.bytes = first.bytes.max(later.offset + later.bytes - first.offset);
            }
            is_one
        });
        found
    }

    /// Whether a file has next to nothing on the disk: a hole can be read anywhere, and a long one for ever.
    fn is_hollow(&self, name: &str, length: u64) -> bool {
        let about = self.disk.path(name).and_then(|path| std::fs::metadata(path).ok());
        about.is_some_and(|about| about.blocks().saturating_mul(512 * HOLLOW) < length)
    }

    fn file(&self, name: &str) -> io::Result<WornFile> {
        let file = self.fed(name, self.disk.open_read(name))?;
        Ok(WornFile { file, name: name.to_string(), found: self.found.clone() })
    }
}

fn refused<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "what is left of a disk is only read"))
}

impl Disk for WornDisk {
    fn create_dir(&self, _name: &str) -> io::Result<()> {
        refused()
    }

    fn create(&self, _name: &str) -> io::Result<Box<dyn File>> {
        refused()
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(Box::new(self.file(name)?))
    }

    fn map(&self, name: &str) -> io::Result<Mapped> {
        let file = self.file(name)?;
        let length = file.len()?;
        if self.is_hollow(name, length) {
            return self.fed(name, self.disk.map(name));
        }
        let mut step = vec![0; STEP_BYTES.min(usize::try_from(length).unwrap_or(STEP_BYTES))];
        let mut at = 0;
        while at < length {
            let (read, is_whole) = file.read(&mut step, at)?;
            if !is_whole && length > MEMORY_BYTES_MAX {
                let what = format!(
                    "it cannot be read at some places, and is too long ({length} bytes) to be held without them"
                );
                return Err(io::Error::other(what));
            }
            if !is_whole {
                let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
                file.read(&mut bytes, 0)?;
                return Ok(Mapped::memory(bytes));
            }
            if read == 0 {
                break;
            }
            at += read as u64;
        }
        self.fed(name, self.disk.map(name))
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        refused()
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.fed(dir, self.disk.list(dir))
    }

    fn sync_dir(&self, _dir: &str) -> io::Result<()> {
        refused()
    }

    fn seal(&self, _name: &str) -> io::Result<()> {
        refused()
    }

    fn lock(&self, name: &str) -> io::Result<Result<Box<dyn Lock>, u32>> {
        self.disk.lock(name)
    }

    fn share(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        self.fed(name, self.disk.share(name))
    }

    fn claim(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        self.disk.claim(name)
    }

    fn holders(&self, name: &str) -> Vec<u32> {
        self.disk.holders(name)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.disk.path(name)
    }

    fn describe(&self) -> String {
        self.disk.describe()
    }
}

struct WornFile {
    file: Box<dyn File>,
    name: String,
    found: Arc<Found>,
}

impl WornFile {
    fn fed<T>(&self, answer: io::Result<T>) -> io::Result<T> {
        self.found.fed(&self.name, answer)
    }

    /// Fills the buffer as far as the file goes; also answers whether all of that could be read. What the system has too little
    /// for is an error.
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<(usize, bool)> {
        let left = usize::try_from(self.len()?.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = left.min(buffer.len());
        let buffer = buffer.get_mut(..length).unwrap_or_default();
        match self.fed(self.file.read_at(buffer, offset)) {
            Ok(read) => return Ok((read, true)),
            Err(error) if is_of_machine(&error) => return Err(error),
            Err(_) => {}
        }
        let (mut done, mut is_whole) = (0, true);
        while done < length {
            let at = offset + done as u64;
            let block = (BLOCK_BYTES - (at % BLOCK_BYTES as u64) as usize).min(length - done);
            let part = buffer.get_mut(done..done + block).unwrap_or_default();
            // A place that is known is not asked for again: a disk that fails takes seconds to say so.
            let read = if self.is_known(at, block) { None } else { Some(self.file.read_at(part, at)) };
            if !matches!(read, Some(Ok(_))) {
                part.fill(0);
                is_whole = false;
            }
            match read.map(|read| self.fed(read)) {
                Some(Err(error)) if is_of_machine(&error) => return Err(error),
                Some(Err(error)) => self.note(at, block, &error),
                _ => {}
            }
            done += block;
        }
        Ok((length, is_whole))
    }

    fn note(&self, offset: u64, bytes: usize, error: &io::Error) {
        let (bytes, error) = (bytes as u64, error.to_string());
        let mut found = self.found.places();
        let before =
            found.last_mut().filter(|last| last.file == self.name && last.offset + last.bytes == offset);
        if let Some(last) = before {
            last.bytes += bytes;
            return;
        }
        found.push(Unreadable { file: self.name.clone(), offset, bytes, error });
    }

    fn is_known(&self, offset: u64, bytes: usize) -> bool {
        let is_there = |place: &Unreadable| {
            place.file == self.name
                && place.offset <= offset
                && offset + bytes as u64 <= place.offset + place.bytes
        };
        self.found.places().iter().any(is_there)
    }
}

impl File for WornFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read(buffer, offset).map(|(read, _)| read)
    }

    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        refused()
    }

    fn sync_data(&self) -> io::Result<()> {
        refused()
    }

    fn sync_all(&self) -> io::Result<()> {
        refused()
    }

    fn len(&self) -> io::Result<u64> {
        self.fed(self.file.len())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::disk::{Act, FaultyDisk, SimulatedDisk};

    /// A disk with a file of three blocks and a half, of which the places are bad.
    fn worn(bad: &'static [u64]) -> (WornDisk, Vec<u8>) {
        let bytes: Vec<u8> = (0..14_336u32).map(|n| (n % 251) as u8 + 1).collect();
        let disk = SimulatedDisk::new();
        disk.overwrite("a", bytes.clone());
        let disk = FaultyDisk::new(disk);
        disk.watch(move |call| {
            let end = call.offset + call.bytes;
            let is_in = |at: &u64| call.offset < at / 4_096 * 4_096 + 4_096 && at / 4_096 * 4_096 < end;
            match call.act == Act::Read && bad.iter().any(is_in) {
                true => Err(io::Error::other("bad sector")),
                false => Ok(()),
            }
        });
        (WornDisk::new(Arc::new(disk)), bytes)
    }

    fn places(disk: &WornDisk) -> Vec<(u64, u64)> {
        disk.unreadable().iter().map(|place| (place.offset, place.bytes)).collect()
    }

    #[test]
    fn what_cannot_be_read_is_zeros_and_told() {
        let (disk, mut bytes) = worn(&[5_000, 8_192, 14_000]);
        bytes[4_096..].fill(0);
        for _ in 0..2 {
            assert_eq!(&*disk.map("a").unwrap(), &bytes[..]);
            assert_eq!(places(&disk), [(4_096, 10_240)]);
        }
        let file = disk.open_read("a").unwrap();
        let mut part = [7; 100];
        assert_eq!(file.read_at(&mut part, 4_090).unwrap(), 100);
        assert_eq!(part[..6], bytes[4_090..4_096]);
        assert_eq!(part[6..], [0; 94]);
        assert_eq!(file.read_at(&mut part, 14_300).unwrap(), 36);
        assert_eq!(places(&disk), [(4_096, 10_240)]);
        assert_eq!(disk.unreadable()[0].error, "bad sector");
        assert_eq!(disk.create("b").map(drop).unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
    }

    /// What the system has no memory or no handles for is no place of the disk.
    #[test]
    fn what_the_system_has_too_little_for_is_no_bad_place() {
        for act in [Act::Open, Act::Map, Act::Read, Act::Measure] {
            let disk = SimulatedDisk::new();
            disk.overwrite("a", vec![7; 10_000]);
            let disk = FaultyDisk::new(disk);
            disk.watch(move |call| match call.act == act {
                true => Err(io::Error::from_raw_os_error(12)),
                false => Ok(()),
            });
            let disk = WornDisk::new(Arc::new(disk));
            assert_eq!(disk.map("a").map(drop).unwrap_err().kind(), io::ErrorKind::OutOfMemory);
            assert_eq!(disk.starved().unwrap().0, "a");
            assert!(disk.unreadable().is_empty() && disk.starved().is_none());
        }
    }

    #[test]
    fn places_apart_are_told_apart_and_a_sound_file_is_as_it_is() {
        let (disk, bytes) = worn(&[0, 13_000]);
        assert_eq!(disk.map("a").unwrap()[4_096..12_288], bytes[4_096..12_288]);
        assert_eq!(places(&disk), [(0, 4_096), (12_288, 2_048)]);
        // A hole is not read through: of a tebibyte that would take minutes.
        let dir = tempfile::tempdir().unwrap();
        let hole = std::fs::File::create(dir.path().join("hole")).unwrap();
        hole.set_len(1 << 40).unwrap();
        let real = WornDisk::new(Arc::new(crate::disk::RealDisk::new(dir.path())));
        assert_eq!(real.map("hole").unwrap().len(), 1 << 40);
        let (disk, bytes) = worn(&[]);
        assert_eq!((&*disk.map("a").unwrap(), places(&disk)), (&bytes[..], vec![]));
    }
}
