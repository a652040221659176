//! A folder of the operating system's file system.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::OFlags;

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

/// Refuses what is no file before it is opened, which could wait for ever for the other end of a pipe.
fn regular(about: &fs::Metadata) -> io::Result<()> {
    let what = match () {
        () if about.is_file() => return Ok(()),
        () if about.is_symlink() => "it is a link, through which nothing is written",
        () if about.is_dir() => "it is a folder and no file",
        () => "it is no regular file",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

/// The same where there may be nothing, and links are none: what one leads to is not ours to write.
fn regular_or_none(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        about => regular(&about?),
    }
}

/// A file, or the folder, of which a lock is to be taken. It is told to be gone only where its name is, too.
fn open_to_lock(path: &Path) -> io::Result<fs::File> {
    let about = fs::metadata(path);
    if about.is_err() && fs::symlink_metadata(path).is_ok_and(|about| about.is_symlink()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a link that leads to no file"));
    }
    let about = about?;
    if !about.is_dir() {
        regular(&about)?;
    }
    fs::File::open(path)
}

/// Processes in the text of `/proc/locks` that hold a lock of the file with this device and inode. Lines read
/// `1: FLOCK  ADVISORY  READ 4711 fd:01:1234 0 EOF`: the process, then the device's numbers in hexadecimal and the
/// inode. A process that cannot be seen from here has the id 0, and `->` stands before one that waits.
fn holders_of(locks: &str, device: u64, inode: u64) -> Vec<u32> {
    let (major, minor) = device_numbers(device);
    let holder = |line: &str| {
        let mut fields = line.split_whitespace();
        if fields.any(|field| field == "->") {
            return None;
        }
        let mut fields =
            line.split_whitespace().skip_while(|field| *field != "READ" && *field != "WRITE").skip(1);
        let process = fields.next()?.parse().ok()?;
        let mut place = fields.next()?.split(':');
        let mut number = || u64::from_str_radix(place.next()?, 16).ok();
        let is_device = number()? == major && number()? == minor;
        (is_device && place.next()?.parse() == Ok(inode)).then_some(process)
    };
    let mut holders: Vec<u32> = locks.lines().filter_map(holder).collect();
    holders.sort_unstable();
    holders.dedup();
    holders
}

/// The text of `/proc/locks`; an error on systems without it. Read in large steps: each step goes on by the number of
/// the line, so a lock that is let go between two hides another.
fn locks_of_the_system() -> io::Result<String> {
    let mut file = fs::File::open("/proc/locks")?;
    let (mut text, mut step) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut step)? {
            0 => return Ok(String::from_utf8_lossy(&text).into_owned()),
            read => text.extend_from_slice(step.get(..read).unwrap_or_default()),
        }
    }
}

/// Major and minor number of a device, as Linux packs them.
fn device_numbers(device: u64) -> (u64, u64) {
    let major = (device >> 8 & 0xfff) | (device >> 32 & 0xffff_f000);
    let minor = (device & 0xff) | (device >> 12 & 0xffff_ff00);
    (major, minor)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

impl Disk for RealDisk {
    fn syncs_aside(&self) -> bool {
        true
    }

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
        let path = self.path(name);
        // Nothing is written through a link, whatever it leads to.
        regular(&fs::symlink_metadata(&path)?)?;
        let no_link = OFlags::NOFOLLOW.bits().cast_signed();
        let file = fs::File::options().read(true).write(true).custom_flags(no_link).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn open_read(&self, name: &str) -> io::Result<Box<dyn File>> {
        let path = self.path(name);
        regular(&fs::metadata(&path)?)?;
        Ok(Box::new(RealFile(fs::File::open(path)?)))
    }

    fn map(&self, name: &str) -> io::Result<Mapped> {
        let path = self.path(name);
        regular(&fs::metadata(&path)?)?;
        Mapped::sealed(&fs::File::open(path)?)
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
                let path = self.path(name);
                let written =
                    regular_or_none(&path).and_then(|()| fs::write(path, std::process::id().to_string()));
                match written {
                    // Whoever is refused is not told by whom, and on a full disk too models can be deleted.
                    Err(error)
                        if matches!(
                            error.kind(),
                            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                        ) => {}
                    written => written?,
                }
                Ok(Ok(Box::new(RealLock(folder))))
            }
            Err(fs::TryLockError::WouldBlock) => {
                let path = self.path(name);
                let is_file = fs::symlink_metadata(&path).is_ok_and(|about| about.is_file());
                let holder =
                    if is_file { fs::read_to_string(path).unwrap_or_default() } else { String::new() };
                Ok(Err(holder.trim().parse().unwrap_or(0)))
            }
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn share(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        let path = self.path(name);
        let file = open_to_lock(&path)?;
        match file.try_lock_shared() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        // Its name may have been taken away between the opening and the lock.
        let (locked, named) = (file.metadata()?, fs::metadata(&path)?);
        if (locked.dev(), locked.ino()) != (named.dev(), named.ino()) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Some(Box::new(RealLock(file))))
    }

    fn claim(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        let file = open_to_lock(&self.path(name))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(RealLock(file)))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn holders(&self, name: &str) -> Vec<u32> {
        let Ok(metadata) = fs::metadata(self.path(name)) else { return Vec::new() };
        let locks = locks_of_the_system().unwrap_or_default();
        holders_of(&locks, metadata.dev(), metadata.ino())
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        Some(RealDisk::path(self, name))
    }

    fn describe(&self) -> String {
        self.root.display().to_string()
    }
}

/// Calls `step` with the number of bytes done until `len` are, or it does none. Goes on after a short step and after
/// one that was interrupted. Answers how many bytes were done.
fn go_on(len: usize, mut step: impl FnMut(usize) -> io::Result<usize>) -> io::Result<usize> {
    let mut done = 0;
    while done < len {
        match step(done) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Fills a buffer from `offset` on with what `read` gives, which may be less than it is asked for; up to the end of the file.
fn read_whole(
    buffer: &mut [u8],
    offset: u64,
    read: impl Fn(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<usize> {
    go_on(buffer.len(), |done| read(&mut buffer[done..], offset + done as u64))
}

/// Writes all bytes from `offset` on with `write`, which may take less than it is given.
fn write_whole(bytes: &[u8], offset: u64, write: impl Fn(&[u8], u64) -> io::Result<usize>) -> io::Result<()> {
    match go_on(bytes.len(), |done| write(&bytes[done..], offset + done as u64))? {
        done if done == bytes.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

struct RealFile(fs::File);

impl File for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        read_whole(buffer, offset, |buffer, offset| self.0.read_at(buffer, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        write_whole(bytes, offset, |bytes, offset| self.0.write_at(bytes, offset))
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

/// The lock goes with the open file or folder.
struct RealLock(fs::File);

impl Drop for RealLock {
    /// A process that another thread is starting holds a copy of the descriptor until it has begun, so closing ours
    /// would not be enough. Where unlocking fails, the end of that process unlocks.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

impl Lock for RealLock {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    /// Answers of a system that interrupts and does part of what it is asked.
    fn steps(answers: &[Result<usize, io::ErrorKind>], len: usize) -> (io::Result<usize>, Vec<usize>) {
        let (mut answers, mut asked) = (answers.iter(), Vec::new());
        let done = go_on(len, |done| {
            asked.push(done);
            answers.next().copied().unwrap_or(Ok(0)).map_err(io::Error::from)
        });
        (done, asked)
    }

    #[test]
    fn reads_and_writes_go_on_where_they_were_interrupted() {
        use io::ErrorKind::{Interrupted, StorageFull};
        let (done, asked) = steps(&[Err(Interrupted), Ok(3), Err(Interrupted), Err(Interrupted), Ok(7)], 10);
        assert_eq!((done.unwrap(), asked), (10, vec![0, 0, 3, 3, 3]));
        let (done, asked) = steps(&[Ok(4), Ok(0), Ok(6)], 10);
        assert_eq!(
            (done.unwrap(), asked),
            (4, vec![0, 4]),
            "the end of the file, or a disk that takes no more"
        );
        let (done, asked) = steps(&[Ok(4), Err(StorageFull), Ok(6)], 10);
        assert_eq!((done.unwrap_err().kind(), asked), (StorageFull, vec![0, 4]));
        assert_eq!(steps(&[], 0).0.unwrap(), 0);
    }

    /// A system that never transfers more than three bytes at once, and says so.
    #[test]
    fn short_counts_leave_no_hole() {
        use std::cell::RefCell;
        let file: Vec<u8> = (0..40).collect();
        let read = |buffer: &mut [u8], offset: u64| {
            let left = &file[offset as usize..];
            let given = left.len().min(buffer.len()).min(3);
            buffer[..given].copy_from_slice(&left[..given]);
            Ok(given)
        };
        for (offset, len, found) in [(5, 10, 10), (30, 10, 10), (33, 10, 7), (40, 4, 0)] {
            let mut buffer = vec![0xff; len];
            assert_eq!(read_whole(&mut buffer, offset, read).unwrap(), found);
            assert_eq!(buffer[..found], file[offset as usize..][..found]);
            assert!(buffer[found..].iter().all(|byte| *byte == 0xff));
        }
        let written = RefCell::new(vec![0xff; 20]);
        let write = |bytes: &[u8], offset: u64| {
            let taken = bytes.len().min(3);
            written.borrow_mut()[offset as usize..][..taken].copy_from_slice(&bytes[..taken]);
            Ok(taken)
        };
        write_whole(&file[..10], 4, write).unwrap();
        assert_eq!(written.borrow()[4..14], file[..10]);
        assert!(written.borrow()[14..].iter().all(|byte| *byte == 0xff));
        // A disk that takes no more, and tells no reason.
        let refused = write_whole(&file[..10], 4, |bytes, offset| Ok(bytes.len().min(8 - offset as usize)));
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::WriteZero);
    }
}

#[cfg(test)]
mod sharing {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn shared_files_cannot_be_claimed_and_name_their_holders() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path());
        fs::write(dir.path().join("a"), b"x").unwrap();
        assert_eq!(disk.holders("a"), Vec::<u32>::new());
        let (one, two) = (disk.share("a").unwrap().unwrap(), disk.share("a").unwrap().unwrap());
        assert!(disk.claim("a").unwrap().is_none());
        assert_eq!(disk.holders("a"), [std::process::id()]);
        drop((one, two));
        let claim = disk.claim("a").unwrap().unwrap();
        assert!(disk.share("a").unwrap().is_none());
        drop(claim);
        assert!(disk.share("a").unwrap().is_some());
        let missing = disk.share("b").map(|_| ()).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_folder_is_shared_by_whom_the_writer_keeps_out() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path());
        let writer = disk.lock("LOCK").unwrap().unwrap();
        assert!(disk.share("").unwrap().is_none());
        assert_eq!(disk.holders(""), [std::process::id()]);
        drop(writer);
        let shared = disk.share("").unwrap().unwrap();
        assert!(disk.lock("LOCK").unwrap().is_err());
        drop(shared);
    }

    #[test]
    fn lines_of_locks_are_read_and_strange_ones_passed_over() {
        let locks = "1: FLOCK  ADVISORY  WRITE 2551 fe:00:10166342 0 EOF\n\
                     2: FLOCK  ADVISORY  READ 7 fe:00:10166342 0 EOF\n\
                     2: -> FLOCK  ADVISORY  READ 9 fe:00:10166342 0 EOF\n\
                     3: POSIX  ADVISORY  READ 8 fe:01:10166342 0 EOF\n\
                     READ\nWRITE x\nREAD 5 fe\nREAD 6 zz:00:1 0 EOF\n\n";
        assert_eq!(holders_of(locks, 0xfe00, 10166342), [7, 2551]);
        assert_eq!(holders_of(locks, 0xfe01, 10166342), [8]);
        assert_eq!(device_numbers(0xfe01), (0xfe, 1));
        assert_eq!(device_numbers(0x0001_2000_1234_5667), (0x12456, 0x12367));
    }
}
