//! What can go wrong with the log.

use std::io;

use underbelly_storage::disk::SharedDisk;
use underbelly_storage::{is_of_machine, remedy};

/// The number of a database as statuses show it.
fn hex(id: &[u8; 16]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An error of the log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalError {
    /// The disk refused an operation.
    #[error("cannot {action} {file}: {source}; {}, then open the database again", remedy(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// File or folder, relative to the database.
        file: String,
        /// The disk's answer.
        #[source]
        source: io::Error,
    },

    /// No space to prepare a file. Nothing was written to the log, which stays healthy.
    #[error(
        "no space left in {dir} to prepare {file}, which takes {bytes} bytes: {source}; free as many there and try \
         again; of an open database a checkpoint gives log files back"
    )]
    DiskFull {
        /// The folder of the database.
        dir: String,
        /// The file that was being prepared, relative to it.
        file: String,
        /// What it takes.
        bytes: u64,
        /// The disk's answer.
        #[source]
        source: io::Error,
    },

    /// An earlier write or sync of the log failed; nothing is written any more.
    #[error(
        "the log stopped writing after a failure ({cause}); reads go on; open the database again to recover"
    )]
    Poisoned {
        /// The failure that stopped it.
        cause: String,
    },

    /// An earlier write or sync of the log failed while records were visible that may not be durable.
    #[error(
        "transactions {first} to {last} were visible and may not be durable, since the log stopped writing after a \
         failure ({cause}); open the database again to see which of them survived"
    )]
    NotDurable {
        /// The first of them.
        first: u64,
        /// The last of them.
        last: u64,
        /// The failure that stopped the log.
        cause: String,
    },

    /// The log is damaged before its end, or acknowledged records are missing.
    #[error(
        "{file} is damaged at byte {offset}, where seq {seq} was expected: {what}; \
         restore a backup of the folder, or save what is left with `ubctl repair DEST`"
    )]
    Corrupt {
        /// The damaged file, relative to the database.
        file: String,
        /// Byte at which the damage was found.
        offset: u64,
        /// First sequence number that cannot be read.
        seq: u64,
        /// What is wrong.
        what: String,
    },

    /// The log goes on elsewhere: the file was recycled because a newer checkpoint holds its records.
    #[error(
        "{file}, where seq {seq} was looked for, was recycled; read the newest manifest and follow the log from there"
    )]
    Recycled {
        /// The file that is gone or used anew, relative to the database.
        file: String,
        /// First sequence number that cannot be read from the log any more.
        seq: u64,
    },

    /// There is no log file.
    #[error(
        "no log file in {dir}; restore the folder from a backup, or save what is left with `ubctl repair DEST`"
    )]
    Missing {
        /// The folder that was searched.
        dir: String,
    },

    /// A log is there already.
    #[error("cannot create a log: {file} exists; open it instead, or choose an empty folder")]
    Exists {
        /// A file of the log that exists.
        file: String,
    },

    /// The file belongs to another database.
    #[error(
        "{file} belongs to database {}, not {}; move it out of the folder, and put this database's own file in its place where there was one; \
         where that is gone, `ubctl repair DEST` saves what is left",
        hex(found),
        hex(expected)
    )]
    Foreign {
        /// The file, relative to the database.
        file: String,
        /// Identity of the database that is being opened.
        expected: [u8; 16],
        /// Identity in the file.
        found: [u8; 16],
    },

    /// The file was written in a format that this program does not know.
    #[error("{file} has format version {found}, this program reads version {known}; use a newer program")]
    Version {
        /// The file, relative to the database.
        file: String,
        /// Version in the file.
        found: u32,
        /// Version that this program reads.
        known: u32,
    },

    /// A setting is out of its range.
    #[error("log option {option} is {value}, must be {rule}")]
    Options {
        /// Name of the setting.
        option: &'static str,
        /// Its value.
        value: u64,
        /// The values that are allowed.
        rule: String,
    },

    /// Records must come in contiguous order.
    #[error("record with seq {found} where seq {expected} is due; append records in order, without gaps")]
    Sequence {
        /// The sequence number that is due.
        expected: u64,
        /// The one that came.
        found: u64,
    },

    /// A record exceeds the limit.
    #[error(
        "record of {bytes} bytes exceeds the limit of {max}; split the transaction or store large values as blobs"
    )]
    RecordTooLarge {
        /// Length of the record in bytes.
        bytes: u64,
        /// The limit in bytes.
        max: u64,
    },

    /// Waiting for a record that was never queued.
    #[error("seq {seq} was never queued, the next is {next}; queue a record before waiting for it")]
    NotQueued {
        /// The sequence number waited for.
        seq: u64,
        /// The next sequence number to be queued.
        next: u64,
    },
}

impl WalError {
    pub(crate) fn io(action: &'static str, file: impl Into<String>) -> impl FnOnce(io::Error) -> WalError {
        let file = file.into();
        move |source| WalError::Io { action, file, source }
    }

    /// The file of the log that it is about, relative to the database.
    pub fn file(&self) -> Option<&str> {
        match self {
            WalError::Io { file, .. }
            | WalError::DiskFull { file, .. }
            | WalError::Corrupt { file, .. }
            | WalError::Recycled { file, .. }
            | WalError::Exists { file }
            | WalError::Foreign { file, .. }
            | WalError::Version { file, .. } => Some(file),
            _ => None,
        }
    }

    /// Whether it says that a file does not hold what it should, or is none, so that what stands elsewhere is all that is left; and not
    /// that the system refuses it.
    pub(crate) fn is_of_file(&self) -> bool {
        match self {
            WalError::Corrupt { .. } | WalError::Foreign { .. } => true,
            WalError::Io { source, .. } => {
                source.kind() != io::ErrorKind::PermissionDenied && !is_of_machine(source)
            }
            _ => false,
        }
    }
}

/// A file of so many bytes that is being prepared.
pub(crate) struct Preparation<'d> {
    pub disk: &'d SharedDisk,
    pub bytes: u64,
}

impl Preparation<'_> {
    /// As [`WalError::io`], but running out of space is [`WalError::DiskFull`].
    pub fn failed(
        &self,
        action: &'static str,
        file: impl Into<String>,
    ) -> impl FnOnce(io::Error) -> WalError {
        let (dir, file, bytes) = (self.disk.describe(), file.into(), self.bytes);
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                WalError::DiskFull { dir, file, bytes, source }
            }
            _ => WalError::Io { action, file, source },
        }
    }
}
