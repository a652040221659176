//! What can go wrong with the files of a database.

use std::io;

use rustix::io::Errno;

use crate::columns::ColumnError;
use crate::sealed::TEMPORARY;
use crate::value::ColumnType;

/// What to do about a damaged file that belongs to the truth of a database.
const RESTORE: &str = "restore the file from a backup, or save what is left with `ubctl repair DEST`";

/// Why a file could not be written, opened or believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The operating system refused.
    #[error("cannot {action} {file:?}: {source}; {}", remedy(source))]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        file: String,
        /// The answer of the operating system.
        source: io::Error,
    },
    /// No space or no quota is left.
    #[error("the disk is full while writing {file:?}; free space or raise the quota, then try again")]
    DiskFull {
        /// The file that was being written.
        file: String,
    },
    /// A file that should be there is not.
    #[error("there is no file {file:?}; {}", remedy_of_missing(file))]
    Missing {
        /// The file.
        file: String,
    },
    /// A sealed file of this name exists; sealed files are never replaced.
    #[error("{file:?} exists already and is sealed; write under a new name")]
    Exists {
        /// The file.
        file: String,
    },
    /// Bytes contradict their checksum or the format.
    #[error("{file:?} is damaged at byte {offset}: {what}; {remedy}")]
    Corrupt {
        /// The file.
        file: String,
        /// Where the damaged part starts, in bytes from the start of the file.
        offset: u64,
        /// What is wrong.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The file was written in a format that this program does not know.
    #[error("{file:?} has format version {found}, this program reads up to {supported}; use a newer program")]
    Version {
        /// The file.
        file: String,
        /// Its version.
        found: u16,
        /// The newest version that can be read.
        supported: u16,
    },
    /// The file belongs to another database.
    #[error("{file:?} belongs to another database; put this database's own file back")]
    ForeignDatabase {
        /// The file.
        file: String,
    },
    /// Something passes a limit of the format.
    #[error("{file:?}: {what} is {found}, the limit is {limit}; split it into smaller parts")]
    TooLarge {
        /// The file.
        file: String,
        /// What was measured, with its unit.
        what: &'static str,
        /// How large it is.
        found: u64,
        /// How large it may be.
        limit: u64,
    },
    /// An encoded block did not decode to what was given. Nothing was published.
    #[error(
        "a {column_type} block of {file:?} did not decode to what was given, nothing was written; keep the data and report this fault of the program"
    )]
    Unfaithful {
        /// The file that was being written.
        file: String,
        /// The type of the column.
        column_type: ColumnType,
    },
    /// The caller gave or asked for something that the file cannot hold.
    #[error("{file:?}: {what}")]
    Refused {
        /// The file.
        file: String,
        /// What is wrong and how to put it right.
        what: String,
    },
    /// Columns that do not fit together.
    #[error(transparent)]
    Column(#[from] ColumnError),
}

/// Whether the system refused for want of handles or memory, which says nothing of the file.
pub fn is_of_machine(source: &io::Error) -> bool {
    source.kind() == io::ErrorKind::OutOfMemory
        || matches!(Errno::from_io_error(source), Some(Errno::MFILE | Errno::NFILE))
}

/// What to do where the system refuses a file, a folder or a thread.
pub fn remedy(source: &io::Error) -> &'static str {
    match (source.kind(), Errno::from_io_error(source)) {
        (_, Some(Errno::MFILE)) => "nothing is damaged: let the process have more files open (`ulimit -n`)",
        (_, Some(Errno::NFILE)) => {
            "nothing is damaged: the machine has too many files open; end other programs"
        }
        (io::ErrorKind::OutOfMemory, _) => {
            "nothing is damaged: let the process have more memory (`ulimit -v`) or more maps (`sysctl vm.max_map_count`), or end other programs"
        }
        (io::ErrorKind::WouldBlock, _) => {
            "let the process have more threads (`ulimit -u`) or memory (`ulimit -v`), or end other programs"
        }
        (io::ErrorKind::PermissionDenied, _) => {
            "check who owns the folder and the files in it, and their permissions"
        }
        (io::ErrorKind::ReadOnlyFilesystem, _) => {
            "let the file system be written, or name a folder on another one"
        }
        (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, _) => "free space or raise the quota",
        (io::ErrorKind::FileTooLarge, _) => {
            "let the process write longer files (`ulimit -f`), or name a folder on a file system that takes them"
        }
        (io::ErrorKind::NotFound, _) => {
            "check that it is there: where its name is a link that leads nowhere, move that away and put back what it led to"
        }
        // Ours, and no answer of the system.
        (io::ErrorKind::InvalidInput, None) => {
            "move that out of the database's folder, and put the file of this name in its place where there was one"
        }
        _ => "check the disk and the permissions of the folder",
    }
}

/// What to do about a file that is not there: what was being written is in no backup.
fn remedy_of_missing(file: &str) -> &'static str {
    match file.ends_with(TEMPORARY) {
        true => "it was being written: check the disk, and what else may have taken it or its folder away",
        false => "restore it from a backup, or save what is left with `ubctl repair DEST`",
    }
}

impl StorageError {
    /// An error of the operating system: a full disk and a missing file have variants of their own.
    pub fn io(action: &'static str, file: &str, source: io::Error) -> StorageError {
        let file = file.to_string();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StorageError::DiskFull { file },
            io::ErrorKind::NotFound => StorageError::Missing { file },
            _ => StorageError::Io { action, file, source },
        }
    }

    /// Whether a file that could not be read may be sound all the same: the disk did not give it, whatever it says of the reason, or
    /// a newer program wrote it. Nobody may take such a file for damaged and go on without it.
    pub fn may_be_sound(&self) -> bool {
        matches!(self, StorageError::Io { .. } | StorageError::DiskFull { .. } | StorageError::Version { .. })
    }

    /// Damage in a file of the database's truth.
    pub fn corrupt(file: &str, offset: u64, what: impl Into<String>) -> StorageError {
        StorageError::Corrupt { file: file.to_string(), offset, what: what.into(), remedy: RESTORE }
    }

    pub(crate) fn refused(file: &str, what: impl Into<String>) -> StorageError {
        StorageError::Refused { file: file.to_string(), what: what.into() }
    }

    /// `Err(TooLarge)` where `found` passes `limit`.
    pub(crate) fn limit(file: &str, what: &'static str, found: u64, limit: u64) -> Result<(), StorageError> {
        if found <= limit {
            return Ok(());
        }
        Err(StorageError::TooLarge { file: file.to_string(), what, found, limit })
    }
}

/// What a decoder found wrong with the bytes it was given; the caller knows the file and the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage(
    /// What is wrong.
    pub &'static str,
);

impl Damage {
    /// The damage as an error about a part of a file.
    pub(crate) fn at(self, file: &str, offset: u64) -> StorageError {
        StorageError::corrupt(file, offset, self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_find_their_variant() {
        let error = |kind: io::ErrorKind| StorageError::io("write", "packs/1", kind.into());
        assert!(matches!(error(io::ErrorKind::StorageFull), StorageError::DiskFull { .. }));
        assert!(matches!(error(io::ErrorKind::QuotaExceeded), StorageError::DiskFull { .. }));
        assert!(matches!(error(io::ErrorKind::NotFound), StorageError::Missing { .. }));
        assert!(matches!(error(io::ErrorKind::PermissionDenied), StorageError::Io { .. }));
        let full = StorageError::io("write", "packs/1", io::Error::from_raw_os_error(28));
        assert!(matches!(full, StorageError::DiskFull { .. }), "28 is ENOSPC");
        assert!(full.to_string().contains("packs/1"));
        let gone = |file| StorageError::io("rename", file, io::ErrorKind::NotFound.into()).to_string();
        assert!(gone("packs/1").contains("restore it from a backup"), "{}", gone("packs/1"));
        assert!(gone("packs/1.tmp").contains("check the disk") && !gone("packs/1.tmp").contains("backup"));
    }

    #[test]
    fn a_remedy_is_one_of_the_cause() {
        let told = |source: io::Error| StorageError::io("open", "packs/1", source).to_string();
        for code in [Errno::MFILE, Errno::NFILE, Errno::NOMEM] {
            let source = io::Error::from(code);
            assert!(is_of_machine(&source));
            assert!(told(source).contains("nothing is damaged"));
        }
        let no_map = told(Errno::NOMEM.into());
        assert!(no_map.contains("ulimit -v") && no_map.contains("vm.max_map_count"), "{no_map}");
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(!is_of_machine(&denied) && told(denied).contains("permissions"));
        let folder = io::Error::new(io::ErrorKind::InvalidInput, "it is a folder");
        assert!(told(folder).contains("it is a folder; move that out of the database's folder"));
        assert!(told(io::Error::from_raw_os_error(27)).contains("ulimit -f"), "27 is EFBIG");
        assert!(told(io::Error::other("bad sector")).contains("check the disk"));
    }
}
