//! A disk that fails on order.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, File, Lock};
use crate::map::Mapped;

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// An error of the device (`EIO`).
    Io,
    /// No space is left (`ENOSPC`).
    Full,
    /// The call was interrupted and did nothing (`EINTR`).
    Interrupted,
    /// A write puts half of its bytes, or a read gives half of them, and then the device fails (`EIO`). Other calls
    /// fail as with [`FaultKind::Io`].
    Short,
    /// The call does what it is asked, and then says that the device failed (`EIO`).
    Late,
}

impl FaultKind {
    /// All kinds.
    pub const ALL: [FaultKind; 5] =
        [FaultKind::Io, FaultKind::Full, FaultKind::Interrupted, FaultKind::Short, FaultKind::Late];

    fn error(self) -> io::Error {
        let kind = match self {
            FaultKind::Full => io::ErrorKind::StorageFull,
            FaultKind::Interrupted => io::ErrorKind::Interrupted,
            FaultKind::Io | FaultKind::Short | FaultKind::Late => io::ErrorKind::Other,
        };
        io::Error::new(kind, format!("injected failure: {self:?}"))
    }
}

/// Which calls are counted and fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// Those that change something or make it durable: the writing and syncing of files, and creating, renaming,
    /// removing, sealing and syncing in folders.
    Changing,
    /// Those that look: reading, mapping, opening, measuring and locking files, listing and locking folders.
    Reading,
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Act {
    /// [`Disk::create_dir`].
    CreateDir,
    /// [`Disk::create`].
    Create,
    /// [`Disk::rename`].
    Rename,
    /// [`Disk::remove`].
    Remove,
    /// [`Disk::sync_dir`].
    SyncDir,
    /// [`Disk::seal`].
    Seal,
    /// [`File::write_at`].
    Write,
    /// [`File::sync_data`] or [`File::sync_all`].
    Sync,
    /// [`Disk::open`] or [`Disk::open_read`].
    Open,
    /// [`Disk::map`].
    Map,
    /// [`Disk::list`].
    List,
    /// [`Disk::lock`], [`Disk::share`] or [`Disk::claim`].
    Lock,
    /// [`File::read_at`].
    Read,
    /// [`File::len`].
    Measure,
}

impl Act {
    fn calls(self) -> Calls {
        match self {
            Act::CreateDir | Act::Create | Act::Rename | Act::Remove => Calls::Changing,
            Act::SyncDir | Act::Seal | Act::Write | Act::Sync => Calls::Changing,
            Act::Open | Act::Map | Act::List | Act::Lock | Act::Read | Act::Measure => Calls::Reading,
        }
    }
}

/// A call, as who watches a disk sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call<'a> {
    /// What it does.
    pub act: Act,
    /// The file or folder: of a rename the name before, of an open file the name by which it was opened.
    pub name: &'a str,
    /// The name behind a rename; empty for all else.
    pub to: &'a str,
    /// Whether it writes or syncs a file through the handle that made it.
    pub is_new: bool,
    /// Bytes by which a write makes the file longer; 0 for all else.
    pub grows: u64,
    /// Where a read or write begins; 0 for all else.
    pub offset: u64,
    /// How many bytes it asks for or has; 0 for all else.
    pub bytes: u64,
}

impl<'a> Call<'a> {
    fn new(act: Act, name: &'a str) -> Call<'a> {
        Call { act, name, to: "", is_new: false, grows: 0, offset: 0, bytes: 0 }
    }
}

type Watcher = dyn Fn(&Call<'_>) -> io::Result<()> + Send + Sync;

/// One order to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which calls are counted.
    pub calls: Calls,
    /// The call that fails: how many come before it, counted from the order.
    pub after: u64,
    /// How it fails.
    pub kind: FaultKind,
    /// Whether all such calls behind it fail too.
    pub sticky: bool,
}

/// A disk that hands everything to another one, counts the calls, and fails one or all from one on. Clones are the same
/// disk. Who [watches](FaultyDisk::watch) it sees every call first, and may do something else meanwhile, wait, or fail it.
///
/// A sync of a file that fails, other than by interruption, loses what was not synced: see [`File::lose_unsynced`].
#[derive(Clone)]
pub struct FaultyDisk<D> {
    disk: D,
    faults: Arc<Mutex<Faults>>,
}

#[derive(Default)]
struct Faults {
    changing: u64,
    reading: u64,
    /// The order, and the count of its calls when it was given.
    order: Option<(Fault, u64)>,
    struck: u64,
    watcher: Option<Arc<Watcher>>,
}

impl Faults {
    fn count(&mut self, calls: Calls) -> Option<FaultKind> {
        let counter = match calls {
            Calls::Changing => &mut self.changing,
            Calls::Reading => &mut self.reading,
        };
        let call = *counter;
        *counter += 1;
        let (fault, since) = self.order.filter(|(fault, _)| fault.calls == calls)?;
        let due = since.saturating_add(fault.after);
        let strikes = if fault.sticky { call >= due } else { call == due };
        self.struck += u64::from(strikes);
        strikes.then_some(fault.kind)
    }
}

fn hold(faults: &Mutex<Faults>) -> MutexGuard<'_, Faults> {
    faults.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts a call, after whoever watches has seen it; answers how it must fail. Bytes are measured where somebody watches.
fn count(
    faults: &Mutex<Faults>,
    call: Call<'_>,
    grows: impl FnOnce() -> u64,
) -> io::Result<Option<FaultKind>> {
    let mut held = hold(faults);
    if let Some(watcher) = held.watcher.clone() {
        drop(held);
        watcher(&Call { grows: grows(), ..call })?;
        held = hold(faults);
    }
    Ok(held.count(call.act.calls()))
}

/// Makes a call, or fails as ordered.
fn make<T>(faults: &Mutex<Faults>, call: Call<'_>, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    match count(faults, call, || 0)? {
        None => act(),
        Some(FaultKind::Late) => act().and(Err(FaultKind::Late.error())),
        Some(kind) => Err(kind.error()),
    }
}

impl<D: Disk> FaultyDisk<D> {
    /// A disk that fails when it is told to.
    pub fn new(disk: D) -> FaultyDisk<D> {
        FaultyDisk { disk, faults: Arc::default() }
    }

    /// The disk beneath.
    pub fn inner(&self) -> &D {
        &self.disk
    }

    /// Orders a failure in the place of the one before; `None` heals the disk.
    pub fn order(&self, fault: Option<Fault>) {
        let mut faults = hold(&self.faults);
        let since = |fault: &Fault| match fault.calls {
            Calls::Changing => faults.changing,
            Calls::Reading => faults.reading,
        };
        faults.order = fault.map(|fault| (fault, since(&fault)));
        faults.struck = 0;
    }

    /// Lets `watcher` see each call before it is made, in the place of who watched before; an error of it fails the
    /// call. No lock is held meanwhile, and calls that it makes itself are watched too.
    pub fn watch(&self, watcher: impl Fn(&Call<'_>) -> io::Result<()> + Send + Sync + 'static) {
        hold(&self.faults).watcher = Some(Arc::new(watcher));
    }

    /// Number of calls that failed by the last order.
    pub fn struck(&self) -> u64 {
        hold(&self.faults).struck
    }

    /// Number of calls so far.
    pub fn calls(&self, calls: Calls) -> u64 {
        match calls {
            Calls::Changing => hold(&self.faults).changing,
            Calls::Reading => hold(&self.faults).reading,
        }
    }

    fn call<T>(&self, act: Act, name: &str, make_it: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        make(&self.faults, Call::new(act, name), make_it)
    }

    fn file(&self, name: &str, file: Box<dyn File>, is_new: bool) -> Box<dyn File> {
        Box::new(FaultyFile { file, name: name.to_string(), is_new, faults: self.faults.clone() })
    }
}

impl<D: Disk> Disk for FaultyDisk<D> {
    fn create_dir(&self, name: &str) -> io::Result<()> {
        self.call(Act::CreateDir, name, || self.disk.create_dir(name))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(self.file(name, self.call(Act::Create, name, || self.disk.create(name))?, true))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(self.file(name, self.call(Act::Open, name, || self.disk.open(name))?, false))
    }

    fn open_read(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(self.file(name, self.call(Act::Open, name, || self.disk.open_read(name))?, false))
    }

    fn map(&self, name: &str) -> io::Result<Mapped> {
        self.call(Act::Map, name, || self.disk.map(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let call = Call { to, ..Call::new(Act::Rename, from) };
        make(&self.faults, call, || self.disk.rename(from, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.call(Act::Remove, name, || self.disk.remove(name))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.call(Act::List, dir, || self.disk.list(dir))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.call(Act::SyncDir, dir, || self.disk.sync_dir(dir))
    }

    fn seal(&self, name: &str) -> io::Result<()> {
        self.call(Act::Seal, name, || self.disk.seal(name))
    }

    fn lock(&self, name: &str) -> io::Result<Result<Box<dyn Lock>, u32>> {
        self.call(Act::Lock, name, || self.disk.lock(name))
    }

    fn share(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        self.call(Act::Lock, name, || self.disk.share(name))
    }

    fn claim(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        self.call(Act::Lock, name, || self.disk.claim(name))
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

struct FaultyFile {
    file: Box<dyn File>,
    name: String,
    is_new: bool,
    faults: Arc<Mutex<Faults>>,
}

impl FaultyFile {
    fn call(&self, act: Act) -> Call<'_> {
        Call { is_new: self.is_new, ..Call::new(act, &self.name) }
    }

    fn sync(&self, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let error = match count(&self.faults, self.call(Act::Sync), || 0) {
            Ok(None) => return act(),
            Ok(Some(FaultKind::Late)) => return act().and(Err(FaultKind::Late.error())),
            Ok(Some(kind)) => kind.error(),
            Err(error) => error,
        };
        if error.kind() != io::ErrorKind::Interrupted {
            self.file.lose_unsynced();
        }
        Err(error)
    }
}

impl File for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let call = Call { offset, bytes: buffer.len() as u64, ..self.call(Act::Read) };
        match count(&self.faults, call, || 0)? {
            None => self.file.read_at(buffer, offset),
            Some(kind) => {
                let given = match kind {
                    FaultKind::Short => buffer.len() / 2,
                    FaultKind::Late => buffer.len(),
                    _ => 0,
                };
                if let Some(buffer) = buffer.get_mut(..given).filter(|buffer| !buffer.is_empty()) {
                    self.file.read_at(buffer, offset)?;
                }
                Err(kind.error())
            }
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset.saturating_add(bytes.len() as u64);
        let grows = || end.saturating_sub(self.file.len().unwrap_or(end));
        let call = Call { offset, bytes: bytes.len() as u64, ..self.call(Act::Write) };
        match count(&self.faults, call, grows)? {
            None => self.file.write_at(bytes, offset),
            Some(kind) => {
                let done = match kind {
                    FaultKind::Short => bytes.len() / 2,
                    FaultKind::Late => bytes.len(),
                    _ => 0,
                };
                if let Some(bytes) = bytes.get(..done).filter(|bytes| !bytes.is_empty()) {
                    self.file.write_at(bytes, offset)?;
                }
                Err(kind.error())
            }
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync(|| self.file.sync_data())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync(|| self.file.sync_all())
    }

    fn len(&self) -> io::Result<u64> {
        make(&self.faults, self.call(Act::Measure), || self.file.len())
    }

    fn lose_unsynced(&self) {
        self.file.lose_unsynced();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::disk::SimulatedDisk;

    fn order(calls: Calls, after: u64, kind: FaultKind, sticky: bool) -> Option<Fault> {
        Some(Fault { calls, after, kind, sticky })
    }

    /// Four changing calls: which of them fail.
    fn failures(disk: &FaultyDisk<SimulatedDisk>) -> Vec<bool> {
        let made = disk.create("a");
        let file = disk.inner().open("a").or_else(|_| disk.inner().create("a")).unwrap();
        let file = disk.file("a", file, false);
        let calls = [made.map(|_| ()), file.write_at(b"12345678", 0), file.sync_data(), disk.remove("a")];
        calls.iter().map(Result::is_err).collect()
    }

    #[test]
    fn the_call_that_was_ordered_fails_alone_or_with_all_after_it() {
        for kind in FaultKind::ALL {
            for after in 0..4u64 {
                let disk = FaultyDisk::new(SimulatedDisk::new());
                disk.create_dir("before").unwrap();
                disk.order(order(Calls::Changing, after, kind, false));
                let expected: Vec<bool> = (0..4).map(|call| call == after).collect();
                assert_eq!(failures(&disk), expected, "{kind:?}");
                assert_eq!(disk.struck(), 1);
                let disk = FaultyDisk::new(SimulatedDisk::new());
                disk.order(order(Calls::Changing, after, kind, true));
                let expected: Vec<bool> = (0..4).map(|call| call >= after).collect();
                assert_eq!(failures(&disk), expected, "{kind:?}, sticky");
                assert_eq!((disk.struck(), disk.calls(Calls::Changing)), (4 - after, 4));
                disk.order(None);
                assert!(disk.create_dir("after").is_ok());
            }
        }
    }

    #[test]
    fn what_a_failed_call_did_is_what_its_kind_says() {
        use FaultKind::{Full, Interrupted, Io, Late, Short};
        for (kind, written) in [(Io, 0), (Full, 0), (Interrupted, 0), (Short, 4), (Late, 8)] {
            let disk = FaultyDisk::new(SimulatedDisk::new());
            let file = disk.create("a").unwrap();
            disk.order(order(Calls::Changing, 0, kind, false));
            let error = file.write_at(b"12345678", 0).unwrap_err();
            assert_eq!(error.kind() == io::ErrorKind::StorageFull, kind == Full);
            assert_eq!(error.kind() == io::ErrorKind::Interrupted, kind == Interrupted);
            assert_eq!(disk.inner().contents("a").unwrap(), b"12345678"[..written]);
        }
        for (kind, lost, durable) in [(Io, true, false), (Interrupted, false, false), (Late, false, true)] {
            let disk = FaultyDisk::new(SimulatedDisk::new());
            disk.inner().overwrite("a", b"old".to_vec());
            let file = disk.open("a").unwrap();
            file.write_at(b"new", 0).unwrap();
            disk.order(order(Calls::Changing, 0, kind, false));
            file.sync_all().unwrap_err();
            let left = |disk: &FaultyDisk<SimulatedDisk>| disk.inner().crash().contents("a").unwrap();
            assert_eq!(left(&disk) == b"new", durable, "{kind:?}");
            file.sync_all().unwrap();
            assert_eq!(left(&disk) == b"old", lost, "{kind:?}");
        }
    }

    #[test]
    fn reads_fail_where_that_is_ordered() {
        let disk = FaultyDisk::new(SimulatedDisk::new());
        disk.inner().overwrite("a", vec![1; 8]);
        for after in 0..4u64 {
            disk.order(order(Calls::Reading, after, FaultKind::Io, false));
            let calls = || -> io::Result<()> {
                let file = disk.open("a")?;
                file.len()?;
                file.read_at(&mut [0; 8], 0)?;
                disk.list("")?;
                file.write_at(b"x", 0)
            };
            assert!(calls().is_err(), "{after}");
            assert!(calls().is_ok(), "{after}");
        }
    }

    #[test]
    fn a_short_read_gives_half_and_fails() {
        use FaultKind::{Full, Interrupted, Io, Late, Short};
        let disk = FaultyDisk::new(SimulatedDisk::new());
        disk.inner().overwrite("a", b"12345678".to_vec());
        let file = disk.open("a").unwrap();
        for (kind, given) in [(Io, 0), (Full, 0), (Interrupted, 0), (Short, 4), (Late, 8)] {
            disk.order(order(Calls::Reading, 0, kind, false));
            let mut buffer = [0; 8];
            file.read_at(&mut buffer, 0).unwrap_err();
            let mut expected = [0; 8];
            expected[..given].copy_from_slice(&b"12345678"[..given]);
            assert_eq!(buffer, expected, "{kind:?}");
            assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 8, "{kind:?}");
        }
    }

    #[test]
    fn who_watches_sees_each_call_first_and_may_fail_it() {
        let disk = FaultyDisk::new(SimulatedDisk::new());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let watched = seen.clone();
        disk.watch(move |call| {
            watched.lock().unwrap().push((call.act, format!("{}{}", call.name, call.to), call.grows));
            match call.act {
                Act::Sync => Err(io::Error::other("refused")),
                _ => Ok(()),
            }
        });
        let file = disk.create("a").unwrap();
        file.write_at(b"12345678", 0).unwrap();
        file.write_at(b"90", 7).unwrap();
        assert_eq!(file.sync_all().unwrap_err().to_string(), "refused");
        disk.rename("a", "b").unwrap();
        let expected = [
            (Act::Create, "a", 0),
            (Act::Write, "a", 8),
            (Act::Write, "a", 1),
            (Act::Sync, "a", 0),
            (Act::Rename, "ab", 0),
        ];
        let expected = expected.map(|(act, name, grows)| (act, name.to_string(), grows));
        assert_eq!(*seen.lock().unwrap(), expected);
        disk.watch(|_| Ok(()));
        file.sync_all().unwrap();
        disk.sync_dir("").unwrap();
        assert_eq!(disk.inner().crash().contents("b").unwrap(), [0; 9], "a sync that failed lost it");
    }
}
