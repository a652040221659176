//! The shared page: words of a file that one process writes and any number of processes read, without a lock.
//!
//! Contract. The file is made by [`SharedPage::create`] at its full length and never truncated by code of this
//! workspace; it is replaced by renaming another over it, which leaves mapped pages alive. Its words are read and
//! written as atomics alone, by every process. What they say is checked by who reads them: nothing here believes any of
//! it. Space for a part is taken before the part is written ([`SharedPage::reserve`]), so that a full disk is an error
//! and not a signal. Another program that truncates the file is outside this contract.

use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// Words that are shared between processes, or between the threads of this one alone.
#[derive(Debug)]
pub struct SharedPage(Kind);

#[derive(Debug)]
enum Kind {
    File { map: memmap2::MmapRaw, file: fs::File },
    Memory(Box<[AtomicU64]>),
}

/// Bytes of a word.
const WORD_BYTES: usize = 8;

impl SharedPage {
    /// Words in memory that nobody else sees.
    pub fn memory(words: usize) -> SharedPage {
        SharedPage(Kind::Memory((0..words).map(|_| AtomicU64::new(0)).collect()))
    }

    /// Makes a file of zeros, so many words long, in the place of one that is there. Space is taken for the first of them; for
    /// the others later.
    ///
    /// # Errors
    /// What the operating system says, a full disk among it; then nothing was put there.
    pub fn create(path: &Path, words: usize, first: usize) -> io::Result<SharedPage> {
        let new = path.with_extension("tmp");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = fs::File::options().read(true).write(true).create_new(true).open(&new)?;
        let make = || {
            file.set_len((words * WORD_BYTES) as u64)?;
            let map = memmap2::MmapOptions::new().len(words * WORD_BYTES).map_raw(&file)?;
            // Before anybody can map it: some file systems take space where a page is read, too.
            take(&file, 0..first)?;
            fs::rename(&new, path)?;
            Ok(map)
        };
        match make() {
            Ok(map) => Ok(SharedPage(Kind::File { map, file })),
            Err(error) => {
                let _ = fs::remove_file(&new);
                Err(error)
            }
        }
    }

    /// Maps a file for reading.
    ///
    /// # Errors
    /// What the operating system says; `InvalidData` where the file is no regular one or holds no word.
    pub fn open(path: &Path) -> io::Result<SharedPage> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "it is no file of words");
        // Before: opening a pipe waits for whoever writes into it.
        if !fs::symlink_metadata(path)?.is_file() {
            return Err(wrong());
        }
        let file = fs::File::open(path)?;
        let bytes = usize::try_from(file.metadata()?.len()).unwrap_or(0) / WORD_BYTES * WORD_BYTES;
        if bytes == 0 {
            return Err(wrong());
        }
        let map = memmap2::MmapOptions::new().len(bytes).map_raw_read_only(&file)?;
        Ok(SharedPage(Kind::File { map, file }))
    }

    /// Takes space for words that nobody wrote yet, so that they can be written.
    ///
    /// # Errors
    /// What the operating system says, a full disk among it.
    pub fn reserve(&self, words: Range<usize>) -> io::Result<()> {
        match &self.0 {
            Kind::File { file, .. } => take(file, words),
            Kind::Memory(_) => Ok(()),
        }
    }

    /// All words. Those of a file that was opened for reading must not be stored to.
    pub fn words(&self) -> &[AtomicU64] {
        match &self.0 {
            // SAFETY: the map is `len` bytes long and lives as long as `self`; a mapping begins with a page, so it is
            // aligned for words; the length is a multiple of a word's. All bit patterns are words, all accesses of all
            // processes are atomic ones as the contract says, and the file is not truncated, so no page is missing.
            #[allow(unsafe_code)]
            Kind::File { map, .. } => unsafe {
                std::slice::from_raw_parts(map.as_ptr().cast::<AtomicU64>(), map.len() / WORD_BYTES)
            },
            Kind::Memory(words) => words,
        }
    }
}

fn take(file: &fs::File, words: Range<usize>) -> io::Result<()> {
    let (from, bytes) = ((words.start * WORD_BYTES) as u64, words.len() * WORD_BYTES);
    match fallocate(file, FallocateFlags::KEEP_SIZE, from, bytes as u64) {
        // A file system that cannot promise space takes it where zeros are written.
        Err(Errno::OPNOTSUPP) => file.write_all_at(&vec![0; bytes], from),
        taken => Ok(taken?),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn words_are_seen_through_every_mapping_and_outlive_their_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("words");
        let page = SharedPage::create(&path, 1024, 8).unwrap();
        page.reserve(8..1024).unwrap();
        let reader = SharedPage::open(&path).unwrap();
        assert_eq!((page.words().len(), reader.words().len()), (1024, 1024));
        page.words()[1023].store(7, Ordering::Release);
        assert_eq!(reader.words()[1023].load(Ordering::Acquire), 7);
        let newer = SharedPage::create(&path, 8, 8).unwrap();
        page.words()[0].store(9, Ordering::Release);
        assert_eq!(
            (reader.words()[0].load(Ordering::Acquire), newer.words()[0].load(Ordering::Acquire)),
            (9, 0)
        );
        assert_eq!(SharedPage::open(&path).unwrap().words().len(), 8);
        fs::write(&path, b"short").unwrap();
        assert!(SharedPage::open(&path).is_err() && SharedPage::open(dir.path()).is_err());
        // Nobody writes into it, so who opened it would wait.
        let pipe = dir.path().join("pipe");
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        assert!(SharedPage::open(&pipe).is_err());
    }
}
