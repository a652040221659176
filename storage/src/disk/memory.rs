//! A disk in memory that forgets what was not synced.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, File, Lock};
use crate::map::Mapped;

/// A disk in memory for tests.
///
/// Bytes become durable with a file's sync, names with their folder's. [`MemoryDisk::crash`] gives what a power
/// cut would leave when nothing unsynced reached the platter. With [`MemoryDisk::fail_at`] the n-th call that
/// changes something fails, and so do all after it, as when the machine stops there.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Names as a running process sees them.
    names: BTreeMap<String, Arc<Mutex<Content>>>,
    /// Names as they would be after a power cut.
    durable_names: BTreeMap<String, Arc<Mutex<Content>>>,
    dirs: BTreeSet<String>,
    locked: Arc<AtomicBool>,
    calls: u64,
    fail_at: Option<u64>,
}

#[derive(Default, Clone)]
struct Content {
    bytes: Vec<u8>,
    durable: Vec<u8>,
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn folder(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(dir, _)| dir)
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    /// What is left after a power cut now: an independent disk with durable names and bytes alone.
    pub fn crash(&self) -> MemoryDisk {
        let state = hold(&self.state);
        let names: BTreeMap<_, _> = state
            .durable_names
            .iter()
            .map(|(name, content)| {
                let durable = hold(content).durable.clone();
                (name.clone(), Arc::new(Mutex::new(Content { bytes: durable.clone(), durable })))
            })
            .collect();
        let left =
            State { durable_names: names.clone(), names, dirs: state.dirs.clone(), ..State::default() };
        MemoryDisk { state: Arc::new(Mutex::new(left)) }
    }

    /// Number of changing calls so far.
    pub fn calls(&self) -> u64 {
        hold(&self.state).calls
    }

    /// Lets changing call `call` (counted from 0) and all after it fail; `None` heals the disk.
    pub fn fail_at(&self, call: Option<u64>) {
        hold(&self.state).fail_at = call;
    }

    /// The bytes of a file as they are now.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        hold(&self.state).names.get(name).map(|c| hold(c).bytes.clone())
    }

    /// Replaces the bytes of a file, durably, as rot or another program would.
    pub fn overwrite(&self, name: &str, bytes: Vec<u8>) {
        let content = Arc::new(Mutex::new(Content { bytes: bytes.clone(), durable: bytes }));
        let mut state = hold(&self.state);
        state.names.insert(name.to_string(), content.clone());
        state.durable_names.insert(name.to_string(), content);
    }

    /// Names of all files.
    pub fn files(&self) -> Vec<String> {
        hold(&self.state).names.keys().cloned().collect()
    }

    fn change(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = hold(&self.state);
        let call = state.calls;
        state.calls += 1;
        match state.fail_at {
            Some(fail_at) if call >= fail_at => Err(io::Error::other("injected failure")),
            _ => Ok(state),
        }
    }
}

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file {name}"))
}

impl Disk for MemoryDisk {
    fn create_dir(&self, name: &str) -> io::Result<()> {
        self.change()?.dirs.insert(name.to_string());
        Ok(())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut state = self.change()?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let content = Arc::new(Mutex::new(Content::default()));
        state.names.insert(name.to_string(), content.clone());
        Ok(Box::new(MemoryFile { disk: self.clone(), content }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        let state = hold(&self.state);
        let content = state.names.get(name).cloned().ok_or_else(|| missing(name))?;
        Ok(Box::new(MemoryFile { disk: self.clone(), content }))
    }

    fn map(&self, name: &str) -> io::Result<Mapped> {
        let state = hold(&self.state);
        let content = state.names.get(name).ok_or_else(|| missing(name))?;
        Ok(Mapped::memory(hold(content).bytes.clone()))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.change()?;
        let content = state.names.remove(from).ok_or_else(|| missing(from))?;
        state.names.insert(to.to_string(), content);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change()?.names.remove(name).map(|_| ()).ok_or_else(|| missing(name))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let state = hold(&self.state);
        let entries = state.names.keys().map(String::as_str).chain(state.dirs.iter().map(String::as_str));
        let mut names: Vec<String> = entries
            .filter(|name| folder(name) == dir && !name.is_empty())
            .map(|name| name.rsplit('/').next().unwrap_or(name).to_string())
            .collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut state = self.change()?;
        state.durable_names.retain(|name, _| folder(name) != dir);
        let now: Vec<_> = state
            .names
            .iter()
            .filter(|(name, _)| folder(name) == dir)
            .map(|(name, content)| (name.clone(), content.clone()))
            .collect();
        state.durable_names.extend(now);
        Ok(())
    }

    fn seal(&self, _name: &str) -> io::Result<()> {
        self.change().map(|_| ())
    }

    fn lock(&self, _name: &str) -> io::Result<Result<Box<dyn Lock>, u32>> {
        let locked = hold(&self.state).locked.clone();
        if locked.swap(true, Ordering::AcqRel) {
            return Ok(Err(std::process::id()));
        }
        Ok(Ok(Box::new(MemoryLock(locked))))
    }

    fn describe(&self) -> String {
        "memory".to_string()
    }
}

struct MemoryLock(Arc<AtomicBool>);

impl Lock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    content: Arc<Mutex<Content>>,
}

impl File for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = hold(&self.content);
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.bytes.len());
        let read = buffer.len().min(content.bytes.len() - start);
        buffer[..read].copy_from_slice(&content.bytes[start..start + read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let _changing = self.disk.change()?;
        let mut content = hold(&self.content);
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let end = start + bytes.len();
        if content.bytes.len() < end {
            content.bytes.resize(end, 0);
        }
        content.bytes[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let _changing = self.disk.change()?;
        let mut content = hold(&self.content);
        content.durable = content.bytes.clone();
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(hold(&self.content).bytes.len() as u64)
    }
}
