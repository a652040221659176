//! Why a query was refused or failed.

use std::error::Error;

use underbelly_storage::{ColumnError, ColumnType, Timestamp, Value};

/// Why a query was refused or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The owner of a run could not read it.
    #[error("reading rows failed: {0}")]
    Source(#[source] Box<dyn Error + Send + Sync>),
    /// A name that the series type does not have.
    #[error("there is no column {name:?}; the columns are: {}", known.join(", "))]
    UnknownColumn {
        /// The name asked for.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// A filter on a column that is not a key.
    #[error("column {name:?} is not a key; the keys are: {}; read the rows and filter them", known.join(", "))]
    NotKey {
        /// The name asked for.
        name: String,
        /// The keys that there are.
        known: Vec<String>,
    },
    /// A filter value of another type than its key.
    #[error("key {name:?} holds {expected}, not {found}; convert the value")]
    KeyType {
        /// The key's name.
        name: String,
        /// The key's type.
        expected: ColumnType,
        /// The type of the value asked for.
        found: ColumnType,
    },
    /// An integer as the value of a key that holds floats, which cannot hold it.
    #[error("key {name:?} holds f64, and no f64 is {value}; give the float that is meant")]
    KeyPrecision {
        /// The key's name.
        name: String,
        /// The value asked for.
        value: i64,
    },
    /// Keys of two inputs whose types have no value in common.
    #[error(
        "key {left:?} holds {left_type} and key {right:?} of the other input {right_type}; convert one of them"
    )]
    KeyTypes {
        /// The key's name in the left input.
        left: String,
        /// Its type.
        left_type: ColumnType,
        /// The key's name in the right input.
        right: String,
        /// Its type.
        right_type: ColumnType,
    },
    /// Rows whose column "timestamp" holds no timestamps.
    #[error("column \"timestamp\" holds {found}; give the rows' time as a column of timestamps")]
    TimeType {
        /// The type of the column.
        found: ColumnType,
    },
    /// A row without a timestamp.
    #[error("row {row} has no timestamp; leave such rows out")]
    NoTime {
        /// The row.
        row: usize,
    },
    /// A name that the time-zone database does not have.
    #[error("there is no time zone {name:?}; give a name of the IANA database, such as \"Europe/Berlin\"")]
    UnknownZone {
        /// The name asked for.
        name: String,
    },
    /// More memory than an operator may hold.
    #[error("{operator} needs {need} bytes of memory and may have {limit}; {remedy}, or allow more memory")]
    Memory {
        /// What needs it.
        operator: &'static str,
        /// Bytes that it needs so far, about.
        need: usize,
        /// Bytes that it may have.
        limit: usize,
        /// What to do.
        remedy: &'static str,
    },
    /// Windows of no length.
    #[error("a window lasts at least one nanosecond, or one day, week, month or year; give a longer one")]
    EmptyWindow,
    /// A setting that says nothing of windows of this length.
    #[error("{problem}")]
    WindowSetting {
        /// Which, and what to give.
        problem: &'static str,
    },
    /// Windows beyond what calendars tell.
    #[error("a window of days, weeks, months or years lasts at most 5,000 years; give a shorter one")]
    LongWindow,
    /// An aggregate of numbers over a column that holds none.
    #[error("{aggregate} needs numbers, but column {column:?} holds {found}")]
    NotNumber {
        /// The aggregate.
        aggregate: &'static str,
        /// The column's name.
        column: String,
        /// The type of its values.
        found: ColumnType,
    },
    /// A quantile that is none.
    #[error("a quantile lies between 0 and 1, not at {quantile}")]
    BadQuantile {
        /// The quantile asked for.
        quantile: f64,
    },
    /// A sum of integers that an `i64` does not hold.
    #[error("the sum of column {column:?} passes the range of i64; sum shorter windows or fewer groups")]
    SumTooLarge {
        /// The column's name.
        column: String,
    },
    /// A result with too many windows.
    #[error(
        "{windows} windows of {groups} groups are more than 100,000,000 rows; take longer windows, a shorter range, or leave empty windows out"
    )]
    TooManyWindows {
        /// Number of windows, at most what the type holds.
        windows: u64,
        /// Number of groups.
        groups: usize,
    },
    /// A value that a column cannot hold, so that nothing compares to it.
    #[error("column {name:?} holds {expected} and cannot hold {value:?}; convert the value")]
    ValueType {
        /// The column's name.
        name: String,
        /// The column's type.
        expected: ColumnType,
        /// The value.
        value: Value,
    },
    /// A range that ends before it starts.
    #[error("the range starts at {from} and ends before that, at {to}; exchange the two")]
    BadRange {
        /// Start of the range.
        from: Timestamp,
        /// End of the range.
        to: Timestamp,
    },
    /// A column that bears the name of the rows' time.
    #[error("\"timestamp\" is the time of each row and cannot be another column; rename that column")]
    ReservedColumn,
    /// A run's column has a type that does not become the schema's, or two runs to be merged disagree.
    #[error("column {name:?} holds {expected}, but a run has {found} there; the run is of another schema")]
    ColumnType {
        /// The column's name.
        name: String,
        /// The type of the schema, or of the runs before.
        expected: ColumnType,
        /// The type in the run.
        found: ColumnType,
    },
    /// A run broke its contract: a vector of a group is not as long as the zone says.
    #[error(
        "run {run}, group {group}: {what} has {found} rows where {expected} were announced; verify the run's data"
    )]
    Malformed {
        /// Position of the run in its source.
        run: usize,
        /// Position of the group in its run.
        group: usize,
        /// The vector that is wrong.
        what: String,
        /// Rows announced.
        expected: usize,
        /// Rows found.
        found: usize,
    },
    /// A run broke its contract: rows are not in order of time.
    #[error("run {run}, group {group}: a row is earlier than one before it; verify the run's data")]
    Disordered {
        /// Position of the run in its source.
        run: usize,
        /// Position of the group in its run.
        group: usize,
    },
    /// More rows in one commit or one group than can be addressed.
    #[error("{rows} rows in one piece are more than 4,294,967,295; cut them into smaller commits or groups")]
    TooManyRows {
        /// Number of rows.
        rows: usize,
    },
    /// More than 4 GiB of text in one column of one result.
    #[error("column {column:?} would hold more than 4 GiB of text or bytes; read it in smaller batches")]
    TooLarge {
        /// The column's name.
        column: String,
    },
    /// Columns that do not go together, such as one name twice in a projection.
    #[error(transparent)]
    Columns(#[from] ColumnError),
}

impl QueryError {
    /// Wraps what the owner of a run reports.
    pub fn source(error: impl Into<Box<dyn Error + Send + Sync>>) -> QueryError {
        QueryError::Source(error.into())
    }
}
