//! A folder of the operating system's file system.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{Disk, File, Lock};
use crate::map::Mapped;

/// A folder of the operating system's file system.
#[derive(Debug)]
pub struct RealDisk {
    root: PathBuf,
    /// Folders whose entries are known to be durable. Held while one is made, so that nobody uses it before.
    durable: Mutex<HashSet<PathBuf>>,
}

impl RealDisk {
    /// The disk rooted at this folder. The folder need not exist yet.
    pub fn new(root: impl AsRef<Path>) -> RealDisk {
        RealDisk { root: root.as_ref().to_path_buf(), durable: Mutex::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

impl Disk for RealDisk {
    fn create_dir(&self, name: &str) -> io::Result<()> {
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.path(name);
        if durable.contains(&path) {
            return Ok(());
        }
        // A folder that is there may have been made by a process that died before it synced the parent, so parents
        // up to the database's own are synced once in each process.
        let inside = name.split('/').filter(|step| !step.is_empty()).count();
        let dirs: Vec<&Path> = path.ancestors().filter(|dir| !dir.as_os_str().is_empty()).collect();
        let missing = dirs.iter().take_while(|dir| !dir.is_dir()).count();
        for dir in dirs[..missing.max(inside + 1).min(dirs.len())].iter().rev() {
            match fs::create_dir(dir) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made?,
            }
            match dir.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent)?,
                Some(_) => sync_folder(Path::new("."))?,
                None => {}
            }
        }
        durable.insert(path);
        Ok(())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let file = fs::File::options().read(true).write(true).create_new(true).open(self.path(name))?;
        Ok(Box::new(RealFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        let file = fs::File::options().read(true).write(true).open(self.path(name))?;
        Ok(Box::new(RealFile(file)))
    }

    fn map(&self, name: &str) -> io::Result<Mapped> {
        let file = fs::File::open(self.path(name))?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Mapped::sealed(&file)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.path(dir)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        sync_folder(&self.path(dir))
    }

    fn seal(&self, name: &str) -> io::Result<()> {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o444))
    }

    /// The folder itself is locked, so that removing the file, which holds the process id for people, unlocks
    /// nothing.
    fn lock(&self, name: &str) -> io::Result<Result<Box<dyn Lock>, u32>> {
        let folder = fs::File::open(&self.root)?;
        match folder.try_lock() {
            Ok(()) => {
                fs::write(self.path(name), std::process::id().to_string())?;
                Ok(Ok(Box::new(RealLock { folder })))
            }
            Err(fs::TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(self.path(name)).unwrap_or_default();
                Ok(Err(holder.trim().parse().unwrap_or(0)))
            }
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn describe(&self) -> String {
        self.root.display().to_string()
    }
}

struct RealFile(fs::File);

impl File for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.0.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

/// The lock goes with the open folder.
struct RealLock {
    folder: fs::File,
}

impl Drop for RealLock {
    /// A process that another thread is starting holds a copy of the descriptor until it has begun, so closing ours
    /// would not be enough. Where unlocking fails, the end of that process unlocks.
    fn drop(&mut self) {
        let _ = self.folder.unlock();
    }
}

impl Lock for RealLock {}
