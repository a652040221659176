//! The file of a socket: made where nothing is, or in the place of one whose process is gone.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::ServeError;

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
        // A link, unlike a rename, replaces nothing.
        let linked = match fs::hard_link(&made.0, path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                clear(path)?;
                fs::hard_link(&made.0, path)
            }
            linked => linked,
        };
        match linked {
            Ok(()) => Ok((Place { path: path.to_path_buf(), file }, listener)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(ServeError::Taken { path: path.to_path_buf() })
            }
            Err(error) => Err(failed("cannot make")(error)),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, unless it is another's by now.
    pub fn leave(&self) {
        if number(&self.path).is_ok_and(|found| found == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes a socket whose process is gone.
fn clear(path: &Path) -> Result<(), ServeError> {
    let failed = |action: &'static str| {
        move |source: io::Error| ServeError::Io { action, path: path.to_path_buf(), source }
    };
    let found = match fs::symlink_metadata(path) {
        // Its process has ended meanwhile.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found.map_err(failed("cannot look at"))?,
    };
    if !found.file_type().is_socket() {
        return Err(ServeError::NoSocket { path: path.to_path_buf() });
    }
    if answers(path)? {
        return Err(ServeError::Taken { path: path.to_path_buf() });
    }
    // What is there now may be another's that looked at the same time: it is taken away first, and looked at then.
    let old = Aside::beside(path);
    match fs::rename(path, &old.0) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        renamed => renamed.map_err(failed("cannot replace"))?,
    }
    if answers(&old.0)? {
        fs::hard_link(&old.0, path).map_err(failed("cannot give back"))?;
        return Err(ServeError::Taken { path: path.to_path_buf() });
    }
    Ok(())
}

/// Whether a process is behind a socket. One that has no room for another is.
fn answers(path: &Path) -> Result<bool, ServeError> {
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(false),
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
        Err(source) => Err(ServeError::Io { action: "cannot look at", path: path.to_path_buf(), source }),
    }
}
