//! Writing files that never change afterwards.
//!
//! A sealed file is written under its name with `.tmp` behind it, synced, marked read-only, renamed, and its
//! folder is synced. After a power cut at any point its name is either absent or names the whole file.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SendError, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::{self, JoinHandle};

use crate::disk::{Disk, File};
use crate::error::StorageError;
use crate::limits::ALIGNMENT_BYTES;
use crate::map::Mapped;

/// What stands behind the name of a file that is being written.
pub(crate) const TEMPORARY: &str = ".tmp";

/// Bytes gathered before a write.
const BUFFER_BYTES: usize = 1 << 20;

/// Written bytes after which a long file is synced, so that its last sync is not a stall for others.
const SYNC_EVERY_BYTES: u64 = 4 << 20;

/// Bytes that may be written while a sync goes on aside.
const AHEAD_BYTES_MAX: u64 = 32 << 20;

/// Pieces that may wait for the thread that writes them.
const PIECES_MAX: usize = 4;

/// A file on its way to being sealed. Dropped before [`SealedWriter::publish`], it leaves nothing behind, as
/// far as the disk still takes orders.
pub struct SealedWriter<'d> {
    disk: &'d dyn Disk,
    name: String,
    temporary: String,
    /// What was appended and not yet given to be written.
    buffer: Vec<u8>,
    /// Bytes that were given to be written.
    given: u64,
    hands: Hands,
    state: Progress,
}

/// Who writes the file.
enum Hands {
    Own(Body),
    Aside(Aside),
    /// A write or sync failed, and was told.
    Gone,
}

/// Whether threads may still write what was given to them, for all files of a folder that may be another's some day.
#[derive(Debug)]
pub struct Gate(RwLock<bool>);

impl Default for Gate {
    fn default() -> Gate {
        Gate(RwLock::new(true))
    }
}

impl Gate {
    /// Returns once no such thread writes any more; none will.
    pub fn close(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = false;
    }

    /// Writes, if that may still be.
    fn pass<T>(&self, write: impl FnOnce() -> T) -> Option<T> {
        let is_open = self.0.read().unwrap_or_else(PoisonError::into_inner);
        is_open.then(write)
    }
}

/// A thread that writes.
struct Aside {
    /// Nobody wants what it has not written yet.
    is_unwanted: Arc<AtomicBool>,
    pieces: SyncSender<Vec<u8>>,
    /// Pieces that it has written, for others to come.
    written: Receiver<Vec<u8>>,
    thread: JoinHandle<Result<Body, StorageError>>,
}

/// The file itself.
struct Body {
    file: Arc<dyn File>,
    temporary: String,
    written: u64,
    /// How far it was written when a sync was begun last.
    synced: u64,
    /// Whether syncs go on aside while more is written.
    is_aside: bool,
    /// The sync that goes on.
    under_way: Option<JoinHandle<io::Result<()>>>,
}

#[derive(PartialEq, Eq)]
enum Progress {
    Writing,
    Renamed,
    Published,
}

/// The folder of a file's name; empty for the root.
pub(crate) fn folder(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// Maps a sealed file whole.
pub(crate) fn map(disk: &dyn Disk, name: &str) -> Result<Mapped, StorageError> {
    disk.map(name).map_err(|error| StorageError::io("open", name, error))
}

impl<'d> SealedWriter<'d> {
    /// Starts the file `name`, whose folder exists. A leftover of an earlier attempt is removed first.
    ///
    /// # Errors
    /// [`StorageError::Exists`] where a file of this name is there; `Io`, `DiskFull`.
    pub fn create(disk: &'d dyn Disk, name: &str) -> Result<SealedWriter<'d>, StorageError> {
        match map(disk, name) {
            Ok(_) => return Err(StorageError::Exists { file: name.to_string() }),
            Err(StorageError::Missing { .. }) => {}
            Err(other) => return Err(other),
        }
        let temporary = format!("{name}{TEMPORARY}");
        let failed = |error| StorageError::io("create", &temporary, error);
        let file = match disk.create(&temporary) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                disk.remove(&temporary).map_err(failed)?;
                disk.create(&temporary)
            }
            made => made,
        }
        .map_err(failed)?;
        let body = Body {
            file: Arc::from(file),
            temporary: temporary.clone(),
            written: 0,
            synced: 0,
            is_aside: false,
            under_way: None,
        };
        Ok(SealedWriter {
            disk,
            name: name.to_string(),
            temporary,
            buffer: Vec::new(),
            given: 0,
            hands: Hands::Own(body),
            state: Progress::Writing,
        })
    }

    /// Lets threads of their own write and sync a long file while more of it is made, where the disk gains by that, as long as the
    /// gate is open. What fails is told by a later call then. Up to some 24 MiB wait in memory.
    pub fn write_aside(&mut self, gate: &Arc<Gate>) {
        if !self.disk.syncs_aside() {
            return;
        }
        self.hands = match std::mem::replace(&mut self.hands, Hands::Gone) {
            Hands::Own(body) => body.aside(gate.clone()),
            hands => hands,
        };
    }

    /// Length so far, bytes.
    pub fn length(&self) -> u64 {
        self.given + self.buffer.len() as u64
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// `Io`, `DiskFull`.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        if self.buffer.len() + bytes.len() < BUFFER_BYTES {
            self.buffer.extend_from_slice(bytes);
            return Ok(());
        }
        self.flush()?;
        if bytes.len() < BUFFER_BYTES {
            self.buffer.extend_from_slice(bytes);
            return Ok(());
        }
        for piece in bytes.chunks(SYNC_EVERY_BYTES as usize) {
            self.give(piece)?;
        }
        Ok(())
    }

    /// Appends zeros up to a multiple of 64 bytes and returns the length then.
    ///
    /// # Errors
    /// `Io`, `DiskFull`.
    pub fn align(&mut self) -> Result<u64, StorageError> {
        let over = (self.length() % ALIGNMENT_BYTES as u64) as usize;
        if over != 0 {
            self.append(&[0; ALIGNMENT_BYTES][over..])?;
        }
        Ok(self.length())
    }

    /// Makes the file durable under its name, read-only, and returns its length in bytes.
    ///
    /// # Errors
    /// `Io`, `DiskFull`. After an error the file is not published; its name may be written again.
    pub fn publish(mut self) -> Result<u64, StorageError> {
        self.flush()?;
        let body = self.end()?;
        body.file.sync_all().map_err(|error| body.failed("sync", error))?;
        drop(body);
        self.disk.seal(&self.temporary).map_err(|error| StorageError::io("seal", &self.temporary, error))?;
        self.disk
            .rename(&self.temporary, &self.name)
            .map_err(|error| StorageError::io("rename", &self.temporary, error))?;
        self.state = Progress::Renamed;
        self.disk
            .sync_dir(folder(&self.name))
            .map_err(|error| StorageError::io("sync the folder of", &self.name, error))?;
        self.state = Progress::Published;
        Ok(self.given)
    }

    /// Lets go of the file and leaves what there is of it, for who may not remove anything in the folder any more.
    pub fn leave(mut self) {
        self.state = Progress::Published;
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        let bytes = std::mem::take(&mut self.buffer);
        self.give(&bytes)?;
        self.buffer = bytes;
        self.buffer.clear();
        Ok(())
    }

    /// Writes bytes, or has them written.
    fn give(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.given += bytes.len() as u64;
        let is_taken = match &mut self.hands {
            Hands::Own(body) => return body.write(bytes),
            Hands::Aside(aside) => {
                let mut piece = aside.written.try_recv().unwrap_or_default();
                piece.clear();
                piece.extend_from_slice(bytes);
                aside.pieces.send(piece).is_ok()
            }
            Hands::Gone => false,
        };
        // A thread that takes no more has failed, and tells why.
        if is_taken { Ok(()) } else { self.end().and_then(|body| Err(body.failed("write", gone()))) }
    }

    /// The file, once all that was given is written and each sync aside is over.
    fn end(&mut self) -> Result<Body, StorageError> {
        let mut body = match std::mem::replace(&mut self.hands, Hands::Gone) {
            Hands::Own(body) => body,
            Hands::Aside(Aside { is_unwanted: _, pieces, written, thread }) => {
                drop((pieces, written));
                let panicked = |_| {
                    let error = io::Error::other("a write panicked");
                    Err(StorageError::io("write", &self.temporary, error))
                };
                thread.join().unwrap_or_else(panicked)?
            }
            Hands::Gone => return Err(StorageError::io("write", &self.temporary, gone())),
        };
        body.end_sync()?;
        Ok(body)
    }
}

/// What is told of a file that is given up.
fn gone() -> io::Error {
    io::Error::other("an earlier write failed, or the folder was given up")
}

impl Body {
    /// Lets a thread write; where there is none to be had, this one still does.
    fn aside(mut self, gate: Arc<Gate>) -> Hands {
        self.is_aside = true;
        let is_unwanted = Arc::<AtomicBool>::default();
        let is_over = is_unwanted.clone();
        // The body waits in a channel, so that it is still here where no thread can be made.
        let (hand, taken) = sync_channel::<Body>(1);
        let (pieces, due) = sync_channel::<Vec<u8>>(PIECES_MAX);
        let (done, written) = sync_channel(PIECES_MAX);
        let thread = thread::Builder::new().name("underbelly-write".to_string()).spawn(move || {
            let mut body = taken.recv().map_err(|_| StorageError::io("write", "a file", gone()))?;
            while let Ok(piece) = due.recv() {
                if is_over.load(Ordering::Acquire) {
                    continue;
                }
                let written = gate.pass(|| body.write(&piece));
                written.unwrap_or_else(|| Err(body.failed("write", gone())))?;
                // Nobody needs more of them than are under way.
                let _ = done.try_send(piece);
            }
            Ok(body)
        });
        match thread {
            Err(_) => Hands::Own(self),
            Ok(thread) => match hand.send(self) {
                Ok(()) => Hands::Aside(Aside { is_unwanted, pieces, written, thread }),
                Err(SendError(body)) => Hands::Own(body),
            },
        }
    }

    fn failed(&self, action: &'static str, error: io::Error) -> StorageError {
        StorageError::io(action, &self.temporary, error)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.file.write_at(bytes, self.written).map_err(|error| self.failed("write", error))?;
        self.written += bytes.len() as u64;
        if self.written - self.synced < SYNC_EVERY_BYTES {
            return Ok(());
        }
        let goes_on = self.under_way.as_ref().is_some_and(|sync| !sync.is_finished());
        if goes_on && self.written - self.synced < AHEAD_BYTES_MAX {
            return Ok(());
        }
        self.end_sync()?;
        self.synced = self.written;
        if self.is_aside {
            let file = self.file.clone();
            let sync = thread::Builder::new().name("underbelly-sync".to_string());
            self.under_way = sync.spawn(move || file.sync_data()).ok();
        }
        // Where there is no other thread, here.
        match self.under_way {
            Some(_) => Ok(()),
            None => self.file.sync_data().map_err(|error| self.failed("sync", error)),
        }
    }

    /// Waits for the sync that goes on. One that failed is told once, here.
    fn end_sync(&mut self) -> Result<(), StorageError> {
        let Some(sync) = self.under_way.take() else { return Ok(()) };
        let ended = sync.join().unwrap_or_else(|_| Err(io::Error::other("a sync panicked")));
        ended.map_err(|error| self.failed("sync", error))
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // No sync outlives it.
        let _ = self.end_sync();
    }
}

impl Drop for SealedWriter<'_> {
    fn drop(&mut self) {
        if let Hands::Aside(aside) = &self.hands {
            aside.is_unwanted.store(true, Ordering::Release);
        }
        // Whatever it says: nobody may write any more.
        let _ = self.end();
        // What cannot be removed here is removed by `remove_leftovers`, or was never durable.
        let _ = match self.state {
            Progress::Writing => self.disk.remove(&self.temporary),
            Progress::Renamed => self.disk.remove(&self.name),
            Progress::Published => Ok(()),
        };
    }
}

/// Removes files of this folder that were being written when a process ended and whose final names are some that the owner
/// gives, and returns their names. Of all else nobody knows whose it is.
/// Only the process that owns the database may call it, and only while it writes no sealed file there.
///
/// # Errors
/// `Io` where the folder cannot be listed or a file not removed.
pub fn remove_leftovers(
    disk: &dyn Disk,
    dir: &str,
    is_given: impl Fn(&str) -> bool,
) -> Result<Vec<String>, StorageError> {
    let entries = disk.list(dir).map_err(|error| StorageError::io("list", dir, error))?;
    let mut removed = Vec::new();
    let is_leftover = |entry: &String| entry.strip_suffix(TEMPORARY).is_some_and(&is_given);
    for entry in entries.into_iter().filter(is_leftover) {
        let name = if dir.is_empty() { entry } else { format!("{dir}/{entry}") };
        disk.remove(&name).map_err(|error| StorageError::io("remove", &name, error))?;
        removed.push(name);
    }
    if !removed.is_empty() {
        disk.sync_dir(dir).map_err(|error| StorageError::io("sync", dir, error))?;
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::disk::{Calls, Fault, FaultKind, FaultyDisk, RealDisk, SimulatedDisk};
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
    use std::time::{Duration, Instant};

    fn write(disk: &dyn Disk, name: &str, bytes: &[u8]) -> Result<u64, StorageError> {
        let mut writer = SealedWriter::create(disk, name)?;
        writer.append(bytes)?;
        writer.publish()
    }

    #[test]
    fn a_full_disk_is_told_and_leaves_nothing() {
        let disk = FaultyDisk::new(SimulatedDisk::new());
        for after in 0..3 {
            disk.order(Some(Fault { calls: Calls::Changing, after, kind: FaultKind::Full, sticky: false }));
            let error = write(&disk, "1", b"bytes").unwrap_err();
            assert!(matches!(error, StorageError::DiskFull { .. }), "call {after}: {error}");
            assert_eq!(disk.inner().files(), Vec::<String>::new(), "call {after}");
        }
    }

    #[test]
    fn appends_of_every_size_lie_end_to_end() {
        let disk = SimulatedDisk::new();
        let mut writer = SealedWriter::create(&disk, "a").unwrap();
        let mut expected = Vec::new();
        for (i, size) in [1, 100, BUFFER_BYTES - 1, BUFFER_BYTES, 5, 9 << 20, 7].into_iter().enumerate() {
            writer.append(&vec![i as u8 + 1; size]).unwrap();
            expected.resize(expected.len() + size, i as u8 + 1);
            let aligned = writer.align().unwrap();
            expected.resize(expected.len().next_multiple_of(ALIGNMENT_BYTES), 0);
            assert_eq!(aligned, expected.len() as u64);
        }
        assert_eq!(writer.publish().unwrap(), expected.len() as u64);
        assert!(disk.crash().contents("a").unwrap() == expected);
    }

    #[test]
    fn a_dropped_writer_and_an_old_leftover_leave_nothing() {
        let disk = SimulatedDisk::new();
        disk.overwrite("a.tmp", b"leftover of another attempt, longer".to_vec());
        SealedWriter::create(&disk, "a").unwrap().append(b"x").unwrap();
        assert_eq!(disk.files(), Vec::<String>::new());
        disk.overwrite("a.tmp", b"leftover of another attempt, longer".to_vec());
        write(&disk, "a", b"new").unwrap();
        assert_eq!(disk.contents("a").unwrap(), b"new");
        assert!(matches!(write(&disk, "a", b"newer"), Err(StorageError::Exists { .. })));
    }

    #[test]
    fn after_an_error_the_name_may_be_written_again() {
        for call in 0..6 {
            let disk = SimulatedDisk::new();
            disk.fail_at(Some(call));
            assert!(write(&disk, "a", b"one").is_err());
            disk.fail_at(None);
            let again = write(&disk.crash(), "a", b"two");
            assert_eq!(again.unwrap(), 3, "call {call}");
        }
    }

    /// Syncs after which they fail.
    const SYNCS: u64 = 3;

    /// A disk that syncs aside, and counts the syncs of files; they fail from the third on. Writes and syncs wait while somebody
    /// holds them up.
    #[derive(Default)]
    struct Aside {
        disk: SimulatedDisk,
        syncs: Arc<AtomicU64>,
        synced: Arc<AtomicU64>,
        writes: Arc<AtomicU64>,
        is_full: Arc<AtomicBool>,
        writing: Arc<Mutex<()>>,
        syncing: Arc<Mutex<()>>,
    }

    struct AsideFile {
        file: Box<dyn File>,
        syncs: Arc<AtomicU64>,
        synced: Arc<AtomicU64>,
        writes: Arc<AtomicU64>,
        is_full: Arc<AtomicBool>,
        writing: Arc<Mutex<()>>,
        syncing: Arc<Mutex<()>>,
    }

    impl File for AsideFile {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            self.file.read_at(buffer, offset)
        }
        fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            self.writes.fetch_add(1, SeqCst);
            drop(self.writing.lock());
            match self.is_full.load(SeqCst) {
                true => Err(io::ErrorKind::StorageFull.into()),
                false => self.file.write_at(bytes, offset),
            }
        }
        fn sync_data(&self) -> io::Result<()> {
            let number = self.syncs.fetch_add(1, SeqCst) + 1;
            drop(self.syncing.lock());
            self.synced.fetch_add(1, SeqCst);
            match number {
                SYNCS.. => Err(io::Error::other("the disk is gone")),
                _ => self.file.sync_data(),
            }
        }
        fn sync_all(&self) -> io::Result<()> {
            self.file.sync_all()
        }
        fn len(&self) -> io::Result<u64> {
            self.file.len()
        }
    }

    impl Disk for Aside {
        fn create_dir(&self, name: &str) -> io::Result<()> {
            self.disk.create_dir(name)
        }
        fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
            let file = self.disk.create(name)?;
            let (syncs, synced, writes) = (self.syncs.clone(), self.synced.clone(), self.writes.clone());
            let (is_full, writing, syncing) =
                (self.is_full.clone(), self.writing.clone(), self.syncing.clone());
            Ok(Box::new(AsideFile { file, syncs, synced, writes, is_full, writing, syncing }))
        }
        fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
            self.disk.open(name)
        }
        fn map(&self, name: &str) -> io::Result<Mapped> {
            self.disk.map(name)
        }
        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.disk.rename(from, to)
        }
        fn remove(&self, name: &str) -> io::Result<()> {
            self.disk.remove(name)
        }
        fn list(&self, dir: &str) -> io::Result<Vec<String>> {
            self.disk.list(dir)
        }
        fn sync_dir(&self, dir: &str) -> io::Result<()> {
            self.disk.sync_dir(dir)
        }
        fn seal(&self, name: &str) -> io::Result<()> {
            self.disk.seal(name)
        }
        fn lock(&self, name: &str) -> io::Result<Result<Box<dyn crate::disk::Lock>, u32>> {
            self.disk.lock(name)
        }
        fn syncs_aside(&self) -> bool {
            true
        }
        fn describe(&self) -> String {
            self.disk.describe()
        }
    }

    fn gate() -> Arc<Gate> {
        Arc::default()
    }

    /// What fails while more is written is told by a later call or the end, and nothing is published.
    #[test]
    fn what_fails_aside_is_told() {
        let piece = vec![7; SYNC_EVERY_BYTES as usize];
        let refused = |error: StorageError, disk: &Aside| {
            assert!(matches!(error, StorageError::Io { .. }), "{error}");
            assert!(error.to_string().contains("the disk is gone"), "{error}");
            assert_eq!(disk.disk.files(), Vec::<String>::new());
        };
        // By a later append.
        let disk = Aside::default();
        let mut writer = SealedWriter::create(&disk, "a").unwrap();
        writer.write_aside(&gate());
        let error = loop {
            match writer.append(&piece) {
                Ok(()) => thread::sleep(std::time::Duration::from_millis(1)),
                Err(error) => break error,
            }
        };
        assert!(writer.append(&piece).is_err() && writer.publish().is_err());
        refused(error, &disk);
        // By the end, unless the thread was so slow that there was more to append.
        let disk = Aside::default();
        let mut writer = SealedWriter::create(&disk, "a").unwrap();
        writer.write_aside(&gate());
        let mut told = None;
        while disk.syncs.load(SeqCst) < SYNCS && told.is_none() {
            told = writer.append(&piece).err();
            let syncs = disk.syncs.load(SeqCst);
            // Until the next one began, or was left out beside the one before.
            (0..100).take_while(|_| disk.syncs.load(SeqCst) == syncs).for_each(|_| thread::yield_now());
        }
        let ended = writer.publish().unwrap_err();
        refused(told.unwrap_or(ended), &disk);
        // A write.
        let disk = Aside::default();
        let mut writer = SealedWriter::create(&disk, "a").unwrap();
        writer.write_aside(&gate());
        disk.is_full.store(true, SeqCst);
        let written = writer.append(&piece).and_then(|()| writer.publish());
        assert!(matches!(written, Err(StorageError::DiskFull { .. })), "{written:?}");
        assert_eq!(disk.disk.files(), Vec::<String>::new());
    }

    /// Nothing is written behind a gate that was closed, and what is given up is not written first.
    #[test]
    fn a_closed_gate_ends_what_is_written_aside() {
        let piece = vec![7; SYNC_EVERY_BYTES as usize];
        let disk = Aside::default();
        let gate = gate();
        let mut writer = SealedWriter::create(&disk, "a").unwrap();
        writer.write_aside(&gate);
        writer.append(&piece[..BUFFER_BYTES]).unwrap();
        gate.close();
        let closed = disk.writes.load(SeqCst);
        let error = loop {
            if let Err(error) = writer.append(&piece) {
                break error;
            }
        };
        assert!(error.to_string().contains("given up"), "{error}");
        drop(writer);
        assert_eq!(disk.writes.load(SeqCst), closed);
        assert_eq!(disk.disk.files(), Vec::<String>::new());
    }

    /// Waits until something is so, for a time that is long enough for every machine.
    fn await_that(is_so: impl Fn() -> bool) -> bool {
        let end = Instant::now() + Duration::from_secs(20);
        while !is_so() && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        is_so()
    }

    /// Who drops a file waits for the write that goes on, and not for all that was given.
    #[test]
    fn what_nobody_wants_any_more_is_not_written_first() {
        let piece = vec![7; SYNC_EVERY_BYTES as usize];
        let disk = Aside::default();
        let mut writer = SealedWriter::create(&disk, "a").unwrap();
        writer.write_aside(&gate());
        let held = disk.writing.lock().unwrap();
        (0..4).for_each(|_| writer.append(&piece).unwrap());
        assert!(await_that(|| disk.writes.load(SeqCst) == 1));
        let Hands::Aside(aside) = &writer.hands else { panic!("no thread writes") };
        let is_unwanted = aside.is_unwanted.clone();
        thread::scope(|scope| {
            let dropped = scope.spawn(|| drop(writer));
            assert!(await_that(|| is_unwanted.load(SeqCst)), "nobody says that it is not wanted");
            drop(held);
            dropped.join().unwrap();
        });
        assert_eq!(disk.writes.load(SeqCst), 1);
        assert_eq!(disk.disk.files(), Vec::<String>::new());
    }

    /// A file of which a write failed is let go of when the sync that went on beside it is over: none outlives it.
    #[test]
    fn no_sync_outlives_its_file() {
        let piece = vec![7; SYNC_EVERY_BYTES as usize];
        let disk = Aside::default();
        let mut writer = SealedWriter::create(&disk, "a").unwrap();
        writer.write_aside(&gate());
        let (syncing, is_full) = (disk.syncing.clone(), disk.is_full.clone());
        let (holds, held) = sync_channel::<()>(0);
        thread::scope(|scope| {
            let syncs = disk.syncs.clone();
            scope.spawn(move || {
                let sync = syncing.lock().unwrap();
                holds.send(()).unwrap();
                assert!(await_that(|| syncs.load(SeqCst) == 1));
                is_full.store(true, SeqCst);
                // Long enough for the write that fails beside the sync.
                thread::sleep(Duration::from_millis(200));
                drop(sync);
            });
            held.recv().unwrap();
            writer.append(&piece).unwrap();
            assert!(await_that(|| disk.is_full.load(SeqCst)));
            let refused = writer.append(&piece).and_then(|()| writer.publish());
            assert!(matches!(refused, Err(StorageError::DiskFull { .. })), "{refused:?}");
            assert_eq!((disk.syncs.load(SeqCst), disk.synced.load(SeqCst)), (1, 1));
        });
    }

    #[test]
    fn what_is_written_aside_lies_end_to_end() {
        let disk = Aside::default();
        let mut writer = SealedWriter::create(&disk, "a").unwrap();
        writer.write_aside(&gate());
        let mut expected = Vec::new();
        for (i, size) in [BUFFER_BYTES - 1, 3, 5 << 20, 17].into_iter().enumerate() {
            writer.append(&vec![i as u8 + 1; size]).unwrap();
            expected.resize(expected.len() + size, i as u8 + 1);
            assert_eq!(writer.length(), expected.len() as u64);
        }
        assert_eq!(writer.publish().unwrap(), expected.len() as u64);
        assert!(disk.disk.crash().contents("a").unwrap() == expected);
        let mut writer = SealedWriter::create(&disk, "b").unwrap();
        writer.write_aside(&gate());
        writer.append(&vec![1; 9 << 20]).unwrap();
        drop(writer);
        assert_eq!(disk.disk.files(), ["a"]);
    }

    #[test]
    fn a_real_file_is_read_only() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path());
        disk.create_dir("packs").unwrap();
        write(&disk, "packs/1", b"bytes").unwrap();
        let mode = std::fs::metadata(dir.path().join("packs/1")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o444);
        assert_eq!(disk.list("packs").unwrap(), ["1"]);
        std::fs::write(dir.path().join("packs/2.tmp"), b"x").unwrap();
        assert_eq!(remove_leftovers(&disk, "packs", |name| name == "2").unwrap(), ["packs/2.tmp"]);
        assert!(matches!(write(&disk, "nowhere/1", b""), Err(StorageError::Missing { .. })));
    }
}
