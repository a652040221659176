//! A disk that fails on order.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

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
    /// Those that look: reading, mapping, opening and measuring files, listing folders.
    Reading,
}

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
/// disk.
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

fn count(faults: &Mutex<Faults>, calls: Calls) -> Option<FaultKind> {
    faults.lock().unwrap_or_else(PoisonError::into_inner).count(calls)
}

/// Makes a call, or fails as ordered.
fn call<T>(faults: &Mutex<Faults>, calls: Calls, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    match count(faults, calls) {
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
        let mut faults = self.faults();
        let since = |fault: &Fault| match fault.calls {
            Calls::Changing => faults.changing,
            Calls::Reading => faults.reading,
        };
        faults.order = fault.map(|fault| (fault, since(&fault)));
        faults.struck = 0;
    }

    /// Number of calls that failed by the last order.
    pub fn struck(&self) -> u64 {
        self.faults().struck
    }

    /// Number of calls so far.
    pub fn calls(&self, calls: Calls) -> u64 {
        match calls {
            Calls::Changing => self.faults().changing,
            Calls::Reading => self.faults().reading,
        }
    }

    fn faults(&self) -> std::sync::MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        call(&self.faults, Calls::Changing, act)
    }

    fn read<T>(&self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        call(&self.faults, Calls::Reading, act)
    }

    fn file(&self, file: Box<dyn File>) -> Box<dyn File> {
        Box::new(FaultyFile { file, faults: self.faults.clone() })
    }
}

impl<D: Disk> Disk for FaultyDisk<D> {
    fn create_dir(&self, name: &str) -> io::Result<()> {
        self.change(|| self.disk.create_dir(name))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(self.file(self.change(|| self.disk.create(name))?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(self.file(self.read(|| self.disk.open(name))?))
    }

    fn map(&self, name: &str) -> io::Result<Mapped> {
        self.read(|| self.disk.map(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|| self.disk.rename(from, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(|| self.disk.remove(name))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.read(|| self.disk.list(dir))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.change(|| self.disk.sync_dir(dir))
    }

    fn seal(&self, name: &str) -> io::Result<()> {
        self.change(|| self.disk.seal(name))
    }

    fn lock(&self, name: &str) -> io::Result<Result<Box<dyn Lock>, u32>> {
        self.disk.lock(name)
    }

    fn share(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        self.disk.share(name)
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

struct FaultyFile {
    file: Box<dyn File>,
    faults: Arc<Mutex<Faults>>,
}

impl FaultyFile {
    fn sync(&self, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match count(&self.faults, Calls::Changing) {
            None => act(),
            Some(FaultKind::Interrupted) => Err(FaultKind::Interrupted.error()),
            Some(FaultKind::Late) => act().and(Err(FaultKind::Late.error())),
            Some(kind) => {
                self.file.lose_unsynced();
                Err(kind.error())
            }
        }
    }
}

impl File for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        call(&self.faults, Calls::Reading, || self.file.read_at(buffer, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match count(&self.faults, Calls::Changing) {
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
        call(&self.faults, Calls::Reading, || self.file.len())
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
        let file = disk.file(file);
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
}
