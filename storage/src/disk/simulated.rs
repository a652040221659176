//! A disk in memory that knows what a power cut may leave of it.

mod content;
mod holds;
mod names;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use content::Content;
use holds::{SharedHolds, claim, share};
use names::{Inode, Names, folder};

use super::{Disk, File, Lock};
use crate::map::Mapped;

/// A disk in memory for tests and simulations. Clones are the same disk.
///
/// It keeps, beside what a running process sees, what is durable and what is not yet. A crash makes an
/// independent disk of what a power cut may leave: [`SimulatedDisk::crash`] nothing that was not synced,
/// [`SimulatedDisk::crash_keeping_all`] everything, [`SimulatedDisk::crash_with`] any part of it.
///
/// What it assumes of a disk and of a file system, and no more:
/// - A sector of 512 bytes is written whole or not at all. Of a sector that was written several times since the last
///   sync, any of the versions may be there; sectors do not depend on each other, neither within a file nor across.
/// - A synced sector is there. [`File::sync_data`] syncs the sectors within the length that is durable;
///   [`File::sync_all`] all, and the length. Linux keeps a length with `sync_data` too.
/// - An unsynced length is anything from the durable length to that of now. Sectors in it that were not written
///   hold zeros or bytes of others. (ext4 with `data=ordered` and XFS show zeros.)
/// - Any part of the unsynced creations, renamings and removals is there, whatever the others are: folders do not wait
///   for each other, nor for the bytes of their files. (ext4 and XFS keep them in order.) A rename is there as a
///   whole or not at all; changes of one file and of one name stay in order; no file has two names. Syncing a file
///   does not sync its name: a synced file without a durable name is gone. Syncing a folder syncs all names in it.
/// - A folder that was made is durable, as [`Disk::create_dir`] says. Files in folders that were not made are refused,
///   and so are renames from folder to folder.
/// - A sync that fails ([`File::lose_unsynced`]) leaves bytes that reads may show or not and that no later sync
///   writes, unless they are written again. A failed sync of a folder leaves its changes unsynced, since ext4 and
///   XFS stop where their journal fails.
/// - A sealed file cannot be opened for writing, nor be written through an older handle.
/// - Locks of files and of the folder end with their values, and with every power cut.
#[derive(Clone, Default)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    names: Names,
    dirs: BTreeSet<String>,
    /// Who holds the disk's own folder.
    holds: SharedHolds,
    calls: u64,
    fail_at: Option<u64>,
    failed_syncs: u64,
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Numbers that look random (SplitMix64).
fn mixed(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl SimulatedDisk {
    /// An empty disk.
    pub fn new() -> SimulatedDisk {
        SimulatedDisk::default()
    }

    /// What a power cut leaves now if nothing unsynced reached the disk.
    pub fn crash(&self) -> SimulatedDisk {
        self.crash_choosing(&mut |_| 0)
    }

    /// What a power cut leaves now if everything reached the disk in time.
    pub fn crash_keeping_all(&self) -> SimulatedDisk {
        self.crash_choosing(&mut |options| options - 1)
    }

    /// What a power cut leaves now if some of it did, as the seed says: between nearly nothing and nearly all, in
    /// streaks.
    pub fn crash_with(&self, seed: u64) -> SimulatedDisk {
        let mut state = seed;
        let mut leaning = mixed(&mut state) % 4;
        self.crash_choosing(&mut |options| {
            let number = mixed(&mut state);
            if number.is_multiple_of(24) {
                leaning = number / 24 % 4;
            }
            let strays = (number >> 32).is_multiple_of(6);
            match leaning {
                0 if !strays => 0,
                1 if !strays => options - 1,
                _ => (number >> 40) as usize % options,
            }
        })
    }

    /// What a power cut leaves now, by choices: `choose` gets a number of possibilities and answers with one below it,
    /// 0 for the oldest. Names come before bytes.
    pub fn crash_choosing(&self, choose: &mut dyn FnMut(usize) -> usize) -> SimulatedDisk {
        let state = hold(&self.state);
        let mut files = state.names.cut(choose);
        for file in files.values_mut() {
            let left = hold(file).cut(choose);
            *file = Arc::new(Mutex::new(left));
        }
        let left = State { names: Names::durable(files), dirs: state.dirs.clone(), ..State::default() };
        SimulatedDisk { state: Arc::new(Mutex::new(left)) }
    }

    /// Number of changing calls so far.
    pub fn calls(&self) -> u64 {
        hold(&self.state).calls
    }

    /// Lets changing call `call` (counted from 0) and all after it fail without effect, as when the machine stops
    /// there; `None` ends that. For other failures there is [`FaultyDisk`](super::FaultyDisk).
    pub fn fail_at(&self, call: Option<u64>) {
        hold(&self.state).fail_at = call;
    }

    /// The bytes of a file as they are now.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        hold(&self.state).names.get(name).ok().map(|file| hold(file).bytes().to_vec())
    }

    /// Replaces the bytes of a file, durably, as rot or another program would. Makes file and folder where they
    /// are missing.
    pub fn overwrite(&self, name: &str, bytes: Vec<u8>) {
        let mut state = hold(&self.state);
        state.make_dir(folder(name));
        state.names.put(name, Arc::new(Mutex::new(Content::durable(bytes))));
    }

    /// Names of all files, sorted.
    pub fn files(&self) -> Vec<String> {
        hold(&self.state).names.all().cloned().collect()
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

    /// Who holds a file, or with an empty name the folder.
    fn holds(&self, name: &str) -> io::Result<SharedHolds> {
        let state = hold(&self.state);
        if name.is_empty() {
            return Ok(state.holds.clone());
        }
        let holds = hold(state.names.get(name)?).holds().clone();
        Ok(holds)
    }

    fn file(&self, content: Inode) -> Box<dyn File> {
        Box::new(SimulatedFile { disk: self.clone(), content })
    }
}

impl State {
    fn make_dir(&mut self, name: &str) {
        for (at, _) in name.match_indices('/') {
            self.dirs.insert(name[..at].to_string());
        }
        self.dirs.insert(name.to_string());
    }

    fn check_dir(&self, dir: &str) -> io::Result<()> {
        if dir.is_empty() || self.dirs.contains(dir) {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::NotFound, format!("no folder {dir}")))
    }
}

fn sealed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("{what} is sealed"))
}

impl Disk for SimulatedDisk {
    fn create_dir(&self, name: &str) -> io::Result<()> {
        if hold(&self.state).dirs.contains(name) {
            return Ok(());
        }
        self.change()?.make_dir(name);
        Ok(())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut state = self.change()?;
        state.check_dir(folder(name))?;
        Ok(self.file(state.names.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        let state = hold(&self.state);
        let content = state.names.get(name)?.clone();
        if hold(&content).is_sealed() {
            return Err(sealed(name));
        }
        Ok(self.file(content))
    }

    fn open_read(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(self.file(hold(&self.state).names.get(name)?.clone()))
    }

    fn map(&self, name: &str) -> io::Result<Mapped> {
        let state = hold(&self.state);
        let content = hold(state.names.get(name)?);
        Ok(Mapped::memory(content.bytes().clone()))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change()?.names.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change()?.names.remove(name)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let state = hold(&self.state);
        let dirs = state.dirs.iter().filter(|name| folder(name) == dir && !name.is_empty());
        let dirs = dirs.map(|name| name.rsplit('/').next().unwrap_or(name));
        let mut names = state.names.in_folder(dir);
        names.extend(dirs.map(String::from));
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut state = self.change()?;
        state.check_dir(dir)?;
        state.names.sync(dir);
        Ok(())
    }

    fn seal(&self, name: &str) -> io::Result<()> {
        hold(self.change()?.names.get(name)?).seal();
        Ok(())
    }

    fn lock(&self, _name: &str) -> io::Result<Result<Box<dyn Lock>, u32>> {
        Ok(claim(&self.holds("")?).ok_or(std::process::id()))
    }

    fn share(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        Ok(share(&self.holds(name)?))
    }

    fn claim(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        Ok(claim(&self.holds(name)?))
    }

    fn holders(&self, name: &str) -> Vec<u32> {
        let is_held = self.holds(name).is_ok_and(|holds| hold(&holds).is_held());
        if is_held { vec![std::process::id()] } else { Vec::new() }
    }

    fn describe(&self) -> String {
        "memory".to_string()
    }
}

struct SimulatedFile {
    disk: SimulatedDisk,
    content: Inode,
}

impl File for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = hold(&self.content);
        let bytes = content.bytes();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let read = buffer.len().min(bytes.len() - start);
        buffer[..read].copy_from_slice(&bytes[start..start + read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let _changing = self.disk.change()?;
        let mut content = hold(&self.content);
        if content.is_sealed() {
            return Err(sealed("the file"));
        }
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        start.checked_add(bytes.len()).ok_or(io::ErrorKind::InvalidInput)?;
        content.write(start, bytes);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let _changing = self.disk.change()?;
        hold(&self.content).sync(false);
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        let _changing = self.disk.change()?;
        hold(&self.content).sync(true);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(hold(&self.content).bytes().len() as u64)
    }

    fn lose_unsynced(&self) {
        let failed_syncs = {
            let mut state = hold(&self.disk.state);
            state.failed_syncs += 1;
            state.failed_syncs
        };
        hold(&self.content).lose(failed_syncs.is_multiple_of(2));
    }
}
