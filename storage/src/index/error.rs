//! Why an index cannot be used.

use std::io;

use crate::error::StorageError;

/// Why an index cannot be used. Its owner goes on without it and builds another.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The operating system refused.
    #[error(
        "cannot {action} {path:?}: {source}; check the permissions of the folder, which may be deleted at any time"
    )]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: String,
        /// The answer of the operating system.
        source: io::Error,
    },
    /// Something else stands where the folder belongs.
    #[error("{path:?} is not a folder, so the index is kept in memory; move it away")]
    NotFolder {
        /// Where.
        path: String,
    },
    /// The process that used it did not put it away.
    #[error("the index was not put away by the process that used it last; it is built anew")]
    NotSealed,
    /// The seal cannot be read.
    #[error("the seal of the index cannot be used: {0}; the index is built anew")]
    Seal(#[source] StorageError),
    /// The files are not those that were sealed.
    #[error("{file:?} of the index is not as it was left: {what}; the index is built anew")]
    Changed {
        /// The file.
        file: String,
        /// What differs.
        what: &'static str,
    },
    /// It reflects what this database never was.
    #[error("the index reflects transaction {stamp}, but the database ends with {last}; it is built anew")]
    Future {
        /// The transaction that the index reflects.
        stamp: u64,
        /// The last transaction of the database.
        last: u64,
    },
    /// Its keys are not those that its owner has.
    #[error("the index holds other keys than it should; it is built anew")]
    Contents,
    /// sled refused.
    #[error("sled cannot {action} the index: {what}; the index is built anew")]
    Sled {
        /// What was tried, as a verb.
        action: &'static str,
        /// What sled says.
        what: String,
    },
    /// sled panicked.
    #[error("sled panicked when asked to {action} the index: {what}; the index is built anew")]
    Panicked {
        /// What was tried, as a verb.
        action: &'static str,
        /// The panic's message.
        what: String,
    },
    /// sled has not let go of its files.
    #[error("sled did not let go of {path:?} in time, so the index cannot be sealed; it is built anew")]
    Busy {
        /// The file.
        path: String,
    },
    /// The files have grown out of proportion.
    #[error("the index takes {bytes} bytes for {keys} keys, out of proportion; it is built anew")]
    Bloated {
        /// Bytes of all files.
        bytes: u64,
        /// Keys.
        keys: u64,
    },
    /// The owner does not want it any more.
    #[error("the work on the index was broken off; it is built anew")]
    Stopped,
}

impl IndexError {
    pub(crate) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> IndexError {
        let path = path.display().to_string();
        move |source| IndexError::Io { action, path, source }
    }
}
