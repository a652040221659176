//! Why a folder of files cannot be attached, or read.

use std::io;
use std::path::{Path, PathBuf};

use underbelly_arrow::ArrowError;
use underbelly_storage::{LogicalType, Timestamp};

/// What the names of files end in that are read.
#[cfg(feature = "parquet")]
const SUFFIXES: &str = ".arrow, .feather, .ipc, .arrows, .parquet or .pq";
#[cfg(not(feature = "parquet"))]
const SUFFIXES: &str = ".arrow, .feather, .ipc or .arrows";

/// Why a folder of files cannot be attached, or read. Rows are counted from 1 in their file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}; check the path and its permissions", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file in the place of a folder.
    #[error("{} is a file; name the folder in which it lies", path.display())]
    NotFolder {
        /// The file.
        path: PathBuf,
    },
    /// No file of rows lies in it.
    #[error("no file in {} has a name that ends in {SUFFIXES}; name another folder", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// A Parquet file, and nobody here who reads it.
    #[error(
        "{} is a Parquet file, which is read where the feature `parquet` is on; build with it, or take the file out of the folder",
        path.display()
    )]
    NoParquet {
        /// The file.
        path: PathBuf,
    },
    /// A file whose rows cannot be read.
    #[error("{}{place}: {source}; write the file anew, or take it out of the folder", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Where in it, as `, record batch 3`; empty where that is its beginning or its end.
        place: String,
        /// What is wrong.
        source: ArrowError,
    },
    /// A file that is another than when the folder was attached.
    #[error("{} has changed since the folder was attached ({what}); attach the folder again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// What is another.
        what: &'static str,
    },
    /// A file without a column that is named as the time, or no file with one that is named as a key.
    #[error("{} has no column {column:?}, which is named as {role}; there are: {}", path.display(), known.join(", "))]
    NoColumn {
        /// The file, or the folder.
        path: PathBuf,
        /// The column.
        column: String,
        /// What it is named as.
        role: &'static str,
        /// The columns that there are.
        known: Vec<String>,
    },
    /// A time that is none.
    #[error(
        "{}: column {column:?} holds {found}; the time is a timestamp, a date or a whole number, so convert it, or name another column",
        path.display()
    )]
    TimeType {
        /// The file.
        path: PathBuf,
        /// The column of the time.
        column: String,
        /// What it holds.
        found: LogicalType,
    },
    /// A row without a time.
    #[error("{}, row {row}: column {column:?} has no time there; give every row one", path.display())]
    NoTime {
        /// The file.
        path: PathBuf,
        /// The column of the time.
        column: String,
        /// The row.
        row: u64,
    },
    /// A time that no timestamp holds.
    #[error(
        "{}, row {row}: column {column:?} has a time outside the years 1677 to 2262; say what its numbers count",
        path.display()
    )]
    TimeRange {
        /// The file.
        path: PathBuf,
        /// The column of the time.
        column: String,
        /// The row.
        row: u64,
    },
    /// A name that no column of rows has.
    #[error("{}: column {column:?} {problem}", path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// What is wrong, and what to do.
        problem: &'static str,
    },
    /// Keys that are none.
    #[error("column {column:?} cannot be a key: {problem}")]
    Key {
        /// The column.
        column: String,
        /// What is wrong, and what to do.
        problem: &'static str,
    },
    /// Two files that have a column in types without a common one.
    #[error(
        "column {column:?} holds {expected} in {} and {found} in {}; write one of them anew{}",
        first.display(), path.display(), if *key { ", since keys have one type in all files" } else { "" }
    )]
    ColumnType {
        /// The column.
        column: String,
        /// Whether it is a key.
        key: bool,
        /// Its type in the files before.
        expected: LogicalType,
        /// One of these.
        first: Box<Path>,
        /// Its type in another.
        found: LogicalType,
        /// That file.
        path: Box<Path>,
    },
    /// An integer in a column that other files make one of floats, which cannot hold it.
    #[error(
        "{}, row {row}: column {column:?} holds f64 in other files, and no f64 is the integer there; write the column with one type in all files",
        path.display()
    )]
    Precision {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// The row.
        row: u64,
    },
    /// A key that equals no key.
    #[error("{}, row {row}: key {column:?} is NaN, which equals no key; make it null", path.display())]
    NanKey {
        /// The file.
        path: PathBuf,
        /// The key.
        column: String,
        /// The row.
        row: u64,
    },
    /// Record batches of which too many bytes are of one time, so that they would be in memory together.
    #[error(
        "{batches} record batches have rows around {at}, among them that at row {row} of {}, and {bytes} bytes of them would be in memory at once, above the {limit} that may be; \
         import the files, sort them by time, write smaller record batches, or allow more memory",
        path.display()
    )]
    Overlap {
        /// A file of such a record batch.
        path: PathBuf,
        /// Its first row.
        row: u64,
        /// The time.
        at: Timestamp,
        /// How many there are.
        batches: usize,
        /// Bytes of their rows, about.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
}
