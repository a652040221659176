//! The file of a socket: made where nothing is, or in the place of one whose process is gone.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::error::ServeError;

/// How long another may look for its place in a folder.
const HELD: Duration = Duration::from_secs(1);

/// A socket's file.
pub(super) struct Place {
    path: PathBuf,
    /// Its device and number: what stands there later may be another's.
    file: (u64, u64),
}

/// A file that is removed when this is dropped.
struct Aside(PathBuf);

impl Aside {
    /// A name beside a path that nobody else has.
    fn beside(path: &Path) -> Aside {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!(".{:x}-{:x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Aside(path.with_file_name(OsString::from(name)))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn number(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

impl Place {
    /// Makes a socket that this user alone may use. It is there from one moment to the next, and takes the place of nothing that lives.
    pub fn take(path: &Path) -> Result<(Place, UnixListener), ServeError> {
        let failed = |action: &'static str| {
            move |source: io::Error| ServeError::Io { action, path: path.to_path_buf(), source }
        };
        // A link may be too long to connect to.
        SocketAddr::from_pathname(path).map_err(failed("cannot make"))?;
        let (made, listener) = loop {
            let made = Aside::beside(path);
            match UnixListener::bind(&made.0) {
                // A process that was killed, with this number too, left that name behind.
                Err(error) if error.kind() == ErrorKind::AddrInUse => drop(made),
                bound => break (made, bound.map_err(failed("cannot make"))?),
            }
        };
        fs::set_permissions(&made.0, Permissions::from_mode(0o600)).map_err(failed("cannot protect"))?;
        let file = number(&made.0).map_err(failed("cannot find"))?;
        let _held = hold(path).map_err(failed("cannot lock the folder of"))?;
        clear(path)?;
        match put(&made.0, path) {
            Ok(()) => Ok((Place { path: path.to_path_buf(), file }, listener)),
            Err(Errno::EXIST) => Err(ServeError::Taken { path: path.to_path_buf() }),
            Err(error) => Err(failed("cannot make")(error.into())),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, unless it is another's by now.
    pub fn leave(&self) {
        let _held = hold(&self.path);
        if number(&self.path).is_ok_and(|found| found == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// While the answer is there nobody else takes or leaves a place in the folder: whoever finds a socket whose process is gone
/// removes no other. `None` where the file system has no locks, or the folder cannot be read.
fn hold(path: &Path) -> io::Result<Option<File>> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let Ok(folder) = File::open(folder.unwrap_or(Path::new("."))) else { return Ok(None) };
    let began = Instant::now();
    loop {
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(folder)),
            Err(Errno::AGAIN | Errno::INTR) if began.elapsed() < HELD => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(error @ Errno::AGAIN) => return Err(error.into()),
            Err(_) => return Ok(None),
        }
    }
}

/// Gives a file its name, where nothing has it.
fn put(made: &Path, path: &Path) -> Result<(), Errno> {
    match renameat_with(CWD, made, CWD, path, RenameFlags::NOREPLACE) {
        // A file system that cannot; nothing was there a moment ago.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => rustix::fs::rename(made, path),
        put => put,
    }
}

/// Removes a socket whose process is gone.
fn clear(path: &Path) -> Result<(), ServeError> {
    let failed = |action: &'static str| {
        move |source: io::Error| ServeError::Io { action, path: path.to_path_buf(), source }
    };
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found.map_err(failed("cannot look at"))?,
    };
    if !found.file_type().is_socket() {
        return Err(ServeError::NoSocket { path: path.to_path_buf() });
    }
    if answers(path).map_err(failed("cannot look at"))? {
        return Err(ServeError::Taken { path: path.to_path_buf() });
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(failed("cannot replace")),
    }
}

/// Whether a process is behind a socket. One that has no room for another is: nobody waits for it.
fn answers(path: &Path) -> io::Result<bool> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) | Err(Errno::AGAIN) => Ok(true),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use rustix::net::{bind, listen};

    use super::*;

    /// One that was stopped, perhaps.
    #[test]
    fn nobody_waits_for_a_process_that_lets_nobody_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let socket = |flags| socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        let address = SocketAddrUnix::new(&path).unwrap();
        let stopped = socket(SocketFlags::CLOEXEC);
        bind(&stopped, &address).unwrap();
        listen(&stopped, 0).unwrap();
        let waiting: Vec<_> = std::iter::repeat_with(|| socket(SocketFlags::NONBLOCK))
            .take_while(|waiting| connect(waiting, &address).is_ok())
            .collect();
        let taken = Place::take(&path).map(drop);
        assert!(matches!(taken, Err(ServeError::Taken { .. })), "{taken:?}");
        drop((stopped, waiting));
        let (place, _listener) = Place::take(&path).unwrap();
        place.leave();
        assert!(!path.exists());
    }

    #[test]
    fn of_many_who_come_at_once_one_serves() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        for _ in 0..20 {
            drop(UnixListener::bind(&path).unwrap());
            let takes: Vec<_> = thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| Place::take(&path))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let taken: Vec<_> = takes.iter().flatten().collect();
            let [(place, _)] = &taken[..] else { panic!("{} serve", taken.len()) };
            assert!(answers(&path).unwrap());
            place.leave();
        }
    }
}
