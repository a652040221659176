//! Why a command failed.

use std::io;

use underbelly::{
    ColumnError, ColumnType, CommitError, CopyError, FeedError, MetadataError, OpenError, QueryError,
    ReadError, SchemaError,
};

use underbelly_desk::chain::ChainError;
use underbelly_desk::report::ReportError;
use underbelly_desk::tables::TableError;

/// Why a command failed. Every variant ends the process with exit 1, but [`Failed::ClosedPipe`], which ends it
/// quietly.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Failed {
    /// Whoever read the output has seen enough.
    #[error("the output was closed by its reader")]
    ClosedPipe,
    /// The output could not be written.
    #[error("cannot write the output: {0}; check where it goes")]
    Output(io::Error),
    /// The database could not be made or opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A copy of the database could not be made.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// A transaction was refused or failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// A definition was refused.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Something could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What transactions changed could not be followed.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// A scan was refused or failed.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// Rows that could not be read or written as Arrow.
    #[error(transparent)]
    Arrow(underbelly::arrow::ArrowError),
    /// A folder of files that could not be read as a series.
    #[error(transparent)]
    Folder(#[from] underbelly::arrow::FolderError),
    /// Columns that do not fit together.
    #[error(transparent)]
    Column(#[from] ColumnError),
    /// Model metadata was refused.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A file beside the database could not be read or written.
    #[error("cannot {action} {path}: {source}; {}", file_remedy(source))]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file that cannot be used as it is.
    #[error("{path}: {what}")]
    Input {
        /// The file.
        path: String,
        /// What is wrong and what to do.
        what: String,
    },
    /// A line of a file that cannot be taken.
    #[error("{place}: {what}")]
    Line {
        /// `file:line:column`, where the column counts fields.
        place: String,
        /// What is wrong and what to do.
        what: String,
    },
    /// An import ended after some of its transactions.
    #[error("{cause} ({rows} rows of {series:?} were committed before that and stay)")]
    Import {
        /// Why.
        cause: Box<Failed>,
        /// The series.
        series: String,
        /// Rows that are in the database.
        rows: u64,
    },
    /// A removal ended after some of its transactions.
    #[error("{cause} ({models} models were deleted before that and are gone)")]
    Removed {
        /// Why.
        cause: Box<Failed>,
        /// Models that were deleted.
        models: usize,
    },
    /// All transactions of an import are durable, and the checkpoint behind them failed.
    #[error(
        "all {rows} rows of {series:?} are committed, so import none of them again; the checkpoint behind them, which the next close or `ubctl checkpoint` makes, failed: {cause}"
    )]
    Imported {
        /// Why.
        cause: Box<Failed>,
        /// The series.
        series: String,
        /// Rows that are in the database.
        rows: u64,
    },
    /// Something is not as it was expected to be.
    #[error("{0}")]
    Moved(String),
    /// A key that does not fit its slot or series.
    #[error("key {key:?}: {what}")]
    Key {
        /// The text of the key.
        key: String,
        /// What is wrong and what to do.
        what: String,
    },
    /// A text that is no value of the type that is needed.
    #[error("{name}: {text:?} is no {expected}; {remedy}")]
    Value {
        /// What it is the value of.
        name: String,
        /// The text.
        text: String,
        /// The type.
        expected: ColumnType,
        /// What to do.
        remedy: &'static str,
    },
    /// A chain of the demo could not be read.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// What the demo's desk holds could not be read.
    #[error(transparent)]
    Desk(#[from] ReportError),
    /// Rows of the demo's desk are not what they should be.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The demo did not go as it must.
    #[error("{0}")]
    Demo(String),
    /// Something that was asked for and is not there.
    #[error("{0}")]
    NotFound(String),
    /// Options that do not go together or with the data.
    #[error("{0}")]
    Usage(String),
    /// `verify` found damage, or `checkpoint` did.
    #[error("{} found; the lines above say where, and what to do", counted(*.0))]
    Damaged(usize),

    /// A repair saved what it could.
    #[error("losses: {0}; the copy holds what is left, so keep the original as long as that may be needed")]
    Lost(usize),
}

/// What to do about a file beside the database.
fn file_remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free space or raise the quota, or name a file on another disk"
        }
        io::ErrorKind::FileTooLarge => "let the process write longer files (`ulimit -f`)",
        io::ErrorKind::AlreadyExists => "name another file, or remove that one",
        _ => "check the path and its permissions",
    }
}

/// So many damages.
fn counted(damages: usize) -> String {
    format!("{damages} damage{}", if damages == 1 { "" } else { "s" })
}

impl From<underbelly::arrow::ArrowError> for Failed {
    fn from(error: underbelly::arrow::ArrowError) -> Failed {
        match error {
            underbelly::arrow::ArrowError::Io(error) => Failed::output(error),
            other => Failed::Arrow(other),
        }
    }
}

impl Failed {
    /// An error on standard output; a reader that went away is none.
    pub(crate) fn output(error: io::Error) -> Failed {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failed::ClosedPipe,
            _ => Failed::Output(error),
        }
    }

    /// An error on a file beside the database.
    pub(crate) fn file(action: &'static str, path: &std::path::Path, source: io::Error) -> Failed {
        Failed::File { action, path: path.display().to_string(), source }
    }

    /// A file that cannot be used as it is.
    pub(crate) fn input(path: &std::path::Path, what: impl Into<String>) -> Failed {
        Failed::Input { path: path.display().to_string(), what: what.into() }
    }
}
