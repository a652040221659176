//! Errors, one enum for each family of operations. Each message says what went wrong, where, and what to do.

use underbelly_query::{Duplicates, QueryError};
use underbelly_storage::error::StorageError;
use underbelly_storage::{ColumnError, DecimalError, LogicalType, Timestamp, Value, is_of_machine, remedy};
use underbelly_wal::WalError;

use crate::feed::FeedError;
use crate::graph::{GraphError, KeyError};
use crate::models::{MetadataError, WhereError};
use crate::variables::VariableType;

/// A process by its id, which may not be known.
fn process(pid: u32) -> String {
    if pid == 0 { "another process".to_string() } else { format!("process {pid}") }
}

/// Making or opening a database failed. Nothing was changed, except that an interrupted recovery may have begun.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no database.
    #[error("{dir} holds no Underbelly database; make one with `ubctl init` or `Database::create`")]
    NotFound {
        /// The folder.
        dir: String,
    },
    /// A backup or a repair is at work there, or was cut short.
    #[error(
        "{dir} holds a copy of a database that is being made, or was cut short; if nobody is at it, delete the folder and make the copy again; only where the original is gone, remove the file UNFINISHED, and `ubctl repair DEST` saves what had come that far, which may be nothing"
    )]
    Unfinished {
        /// The folder.
        dir: String,
    },
    /// There is one already.
    #[error("{dir} holds an Underbelly database already; open it, or choose another folder")]
    Exists {
        /// The folder.
        dir: String,
    },
    /// The folder holds something else.
    #[error("{dir} is not empty and holds no Underbelly database (it has {found:?}); choose another folder")]
    NotEmpty {
        /// The folder.
        dir: String,
        /// One of its entries.
        found: String,
    },
    /// Another process writes.
    #[error("{dir} is open for writing in {}; close it there first", process(*.pid))]
    Locked {
        /// The folder.
        dir: String,
        /// The holder's process id, 0 where unknown.
        pid: u32,
    },
    /// The writer went on while the database was read.
    #[error(
        "{dir}: its writer's checkpoints overtook the reading each time; try again, or give it longer logs"
    )]
    Overtaken {
        /// The folder.
        dir: String,
    },
    /// A setting cannot work.
    #[error("option {option} is {value}: {remedy}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// Its value.
        value: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Data on disk contradicts itself.
    #[error("{dir}: {what}; restore a backup of the folder, or save what is left with `ubctl repair DEST`")]
    Corrupt {
        /// The folder.
        dir: String,
        /// What contradicts.
        what: String,
    },
    /// A file could not be read or written, or is damaged.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The log could not be read or written, or is damaged.
    #[error(transparent)]
    Log(#[from] WalError),
    /// The operating system refused.
    #[error("{action} {dir}: {source}; {}", remedy(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// The folder.
        dir: String,
        /// What it said.
        source: std::io::Error,
    },
    /// The record of the opening could not be committed.
    #[error(transparent)]
    Commit(#[from] Box<CommitError>),
}

impl OpenError {
    /// Whether the system refused for want of handles or memory, which says nothing of what is stored.
    pub(crate) fn is_of_machine(&self) -> bool {
        match self {
            OpenError::Storage(StorageError::Io { source, .. })
            | OpenError::Log(WalError::Io { source, .. })
            | OpenError::Io { source, .. } => is_of_machine(source),
            _ => false,
        }
    }

    /// What is wrong, without what to do about it: for messages that say more than that.
    pub(crate) fn brief(&self) -> String {
        match self {
            OpenError::Corrupt { what, .. } => what.clone(),
            OpenError::Storage(StorageError::Corrupt { file, offset, what, .. }) => {
                format!("{file:?} is damaged at byte {offset}: {what}")
            }
            OpenError::Storage(StorageError::Missing { file }) => format!("there is no file {file:?}"),
            OpenError::Storage(StorageError::ForeignDatabase { file }) => {
                format!("{file:?} belongs to another database")
            }
            OpenError::Log(WalError::Corrupt { file, offset, seq, what }) => {
                format!("{file} is damaged at byte {offset}, where seq {seq} was expected: {what}")
            }
            OpenError::Log(WalError::Missing { dir }) => format!("no log file in {dir}"),
            other => other.to_string(),
        }
    }

    /// The same behind the name of what cannot be used for that reason, unless it begins with that.
    pub(crate) fn brief_of(&self, name: &str) -> String {
        let brief = self.brief();
        match brief.trim_start_matches('"').starts_with(name) {
            true => brief,
            false => format!("{name}: {brief}"),
        }
    }
}

/// A copy of a database could not be made. There is no database in the folder that was to have it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The folder holds something.
    #[error("{dir} is not empty ({found}); name a folder that is empty or not there")]
    NotEmpty {
        /// The folder.
        dir: String,
        /// One of its entries.
        found: String,
    },
    /// The folder holds a copy that is being made, or was cut short.
    #[error(
        "{dir} holds a copy that is being made, or was cut short; if nobody is at it, delete the folder, then make the copy again"
    )]
    Unfinished {
        /// The folder.
        dir: String,
    },
    /// The folder lies in that of the database.
    #[error("{dir} lies inside of the database; name a folder elsewhere")]
    Inside {
        /// The folder.
        dir: String,
    },
    /// No space or no quota is left for the copy.
    #[error(
        "no space left in {dir} for the copy (at {file}), which takes about {bytes} bytes; free as many, or name a \
             folder on another disk"
    )]
    Full {
        /// The folder that was to have the copy.
        dir: String,
        /// The file that was being written, relative to it.
        file: String,
        /// What the whole copy takes there, but for its folders.
        bytes: u64,
    },
    /// The copy does not verify.
    #[error(
        "the copy in {dir} was taken back, since the original is damaged, as `ubctl verify` says too: {}",
        damages.join("; ")
    )]
    Damaged {
        /// The folder.
        dir: String,
        /// What is damaged.
        damages: Vec<String>,
    },
    /// Nothing is left to go out from.
    #[error("nothing can be saved of {dir}: {}; restore a backup of the folder", losses.join("; "))]
    Nothing {
        /// The damaged database.
        dir: String,
        /// What is damaged.
        losses: Vec<String>,
    },
    /// The original could not be read, or the copy not written.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// A definition was refused. Nothing was changed, except as [`SchemaError::Commit`] says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// The graph refused it.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A name that cannot be used.
    #[error("{what} {name:?} {problem}; choose another name")]
    Name {
        /// What is named.
        what: &'static str,
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A series type that is there and has other rules.
    #[error(
        "series {series:?} is there with {known}, not {given}; change it with `ubctl series define {series} --again` (`redefine_series`), or give what it has"
    )]
    SeriesDefined {
        /// The type.
        series: String,
        /// What it has.
        known: String,
        /// What was given.
        given: String,
    },
    /// A series type whose superseded rows may be gone cannot show them again.
    #[error(
        "series {series:?} is {from} and cannot become {to}: rows that were superseded may be gone; append to \
         another type"
    )]
    SeriesResolved {
        /// The type.
        series: String,
        /// What becomes of its duplicates.
        from: Duplicates,
        /// What was to become of them.
        to: Duplicates,
    },
    /// The program of a producer.
    #[error("producer {producer:?}: {what}")]
    Program {
        /// The producer.
        producer: String,
        /// What is wrong with the program.
        what: String,
    },
    /// It could not be committed; whether it was kept is as [`CommitError`] says. Of a producer the definition may
    /// be kept and the attachment not.
    #[error(transparent)]
    Commit(#[from] Box<CommitError>),
}

/// A socket could not be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Somebody serves there.
    #[error("{path:?} is served by another process already; end that, or choose another path")]
    Taken {
        /// The socket.
        path: std::path::PathBuf,
    },
    /// The database is closed.
    #[error("the database is closed; open it again to serve it at {path:?}")]
    Closed {
        /// The socket.
        path: std::path::PathBuf,
    },
    /// A file of another kind stands there.
    #[error("{path:?} is no socket; remove it, or choose another path")]
    NoSocket {
        /// The file.
        path: std::path::PathBuf,
    },
    /// The operating system refused.
    #[error("{action} the socket {path:?}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The socket.
        path: std::path::PathBuf,
        /// What it said.
        source: std::io::Error,
    },
}

/// A transaction was refused or could not be made durable.
///
/// After [`Log`](CommitError::Log) with [`WalError::Poisoned`] the handle refuses further writes, reads go on, and
/// reopening shows whether the transaction was kept. Every other error of a transaction means that nothing was
/// applied, and leaves the handle as it was: sound, unless it was [`Closed`](CommitError::Closed) or an
/// [`Internal`](CommitError::Internal) error says that an earlier transaction panicked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The log refused or failed. A transaction that gets [`WalError::Poisoned`] finds it stopped for good; after
    /// [`WalError::DiskFull`], for one, the same transaction can be tried again.
    #[error(transparent)]
    Log(#[from] WalError),
    /// A file beside the log failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The graph refused it.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A command to a producer that is not registered, or that has no such bundle.
    #[error("producer {producer:?} {what}")]
    Producer {
        /// The producer.
        producer: String,
        /// What is wrong, and the remedy.
        what: String,
    },
    /// A key was refused.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Columns that do not fit together.
    #[error(transparent)]
    Column(#[from] ColumnError),
    /// Model metadata was refused.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// Something read in the transaction could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A series column with another type.
    #[error(
        "series {series:?} column {column:?} holds {expected}, not {found}; convert the values or use another column name"
    )]
    SeriesType {
        /// The series' type.
        series: String,
        /// The column.
        column: String,
        /// Its type.
        expected: LogicalType,
        /// The type given.
        found: LogicalType,
    },
    /// A time zone that the database of zones does not have.
    #[error(
        "series {series:?} column {column:?}: there is no time zone {zone:?}; give a name of the IANA database as it is written there, such as \"Europe/Berlin\""
    )]
    UnknownZone {
        /// The series' type.
        series: String,
        /// The column.
        column: String,
        /// The name.
        zone: String,
    },
    /// A column whose name would make another one a value and an object at once.
    #[error(
        "series {series:?} cannot have columns {column:?} and {other:?}: a dot parts the names of a path, so that one of them would be a value and hold the other; rename one"
    )]
    SeriesPath {
        /// The series' type.
        series: String,
        /// The column that was to be new.
        column: String,
        /// The other one.
        other: String,
    },
    /// A text that is no decimal of its column.
    #[error("column {column:?}: {problem}")]
    Decimal {
        /// The column.
        column: String,
        /// What is wrong with the text.
        problem: DecimalError,
    },
    /// A field of integers that would have to become `f64`, which cannot hold all of them.
    #[error(
        "series {series:?} column {column:?} holds integers beyond 2^53, which f64 cannot hold, so it cannot hold \
         fractions too; use another column name"
    )]
    SeriesPrecision {
        /// The series' type.
        series: String,
        /// The column.
        column: String,
    },
    /// A column that is a key here and a field there.
    #[error("series {series:?} column {column:?} is a {expected}, not a {found}; use another name")]
    SeriesRole {
        /// The series' type.
        series: String,
        /// The column.
        column: String,
        /// What it is.
        expected: &'static str,
        /// What was given.
        found: &'static str,
    },
    /// Rows of a series that cannot be stored.
    #[error("series {series:?}: {what}")]
    Series {
        /// The series' type.
        series: String,
        /// What is wrong and what to do.
        what: String,
    },
    /// A name that cannot be used.
    #[error("{what} {name:?} {problem}; choose another name")]
    Name {
        /// What is named.
        what: &'static str,
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A variable of another type, or an array of another length.
    #[error(
        "variable {variable:?} holds {expected}, not {found}; convert the value, or remove the variable first"
    )]
    VariableType {
        /// The variable, with its scope.
        variable: String,
        /// What it holds.
        expected: VariableType,
        /// What was given.
        found: VariableType,
    },
    /// Rows of a cell that cannot be stored.
    #[error("slot {slot:?}: {what}")]
    Cell {
        /// The slot.
        slot: String,
        /// What is wrong and what to do.
        what: String,
    },
    /// No cell key of this name.
    #[error("slot {slot:?} has no cell key {column:?}; name one that it has")]
    UnknownColumn {
        /// The slot.
        slot: String,
        /// The name.
        column: String,
    },
    /// No slot of this name.
    #[error(
        "no slot is named {slot:?}; `ubctl slot ls` lists them, and a program defines them (`define_slot`)"
    )]
    UnknownSlot {
        /// The name.
        slot: String,
    },
    /// Larger than a limit.
    #[error("{what} is {found}, more than {limit}; {remedy}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        found: u64,
        /// The limit.
        limit: u64,
        /// What to do.
        remedy: &'static str,
    },
    /// A row of a type that refuses duplicates, with the keys and the timestamp of a row that is there, or of one before it in
    /// the transaction. Nothing of the transaction is committed.
    #[error(
        "series {series:?} has a row with {} at {timestamp} already and refuses another; delete that one first, leave this one out, or \
         define the type to keep both",
        keys_or_none(keys)
    )]
    Duplicate {
        /// The series' type.
        series: String,
        /// Names and values of the keys.
        keys: Vec<(String, Value)>,
        /// The timestamp.
        timestamp: Timestamp,
    },
    /// The rules of a series type changed while rows for it were checked.
    #[error("the rules of series {series:?} changed meanwhile; commit again")]
    SeriesChanged {
        /// The series' type.
        series: String,
    },
    /// Deletes of a series that wait for a checkpoint would be more than [`DELETES_MAX`](crate::limits::DELETES_MAX). One
    /// waits, whether or not it hides a row, until a checkpoint was made while no snapshot was older, and until every segment
    /// that may hold rows of it was read, which a damaged one cannot be.
    #[error(
        "series {series:?} would have {found} deletes that wait for a checkpoint, more than {limit}; {}",
        remedy_for_deletes(held)
    )]
    TooManyDeletes {
        /// The series' type.
        series: String,
        /// The number that it would have.
        found: usize,
        /// The limit.
        limit: usize,
        /// The seq of the oldest snapshot, and the number of deletes after it, where these alone leave no room.
        held: Option<(u64, usize)>,
    },
    /// No such model, or no such version of it.
    #[error(
        "model {model} has no version {version}{}; `ubctl model versions --id {model}` lists them",
        newest.map_or_else(String::new, |newest| why_unknown(version, newest))
    )]
    UnknownVersion {
        /// The model's identity.
        model: String,
        /// The version: a number, or `newest`.
        version: String,
        /// The newest version, where there is one and it is known.
        newest: Option<u64>,
    },
    /// An alias that names another version than was expected.
    #[error(
        "alias {alias:?} names {}, not {}; read it again and decide anew",
        version_or_none(found),
        version_or_none(expected)
    )]
    AliasMoved {
        /// The alias, as a place: `ID@ALIAS`.
        alias: String,
        /// The version that it was to name.
        expected: Option<u64>,
        /// The version that it names.
        found: Option<u64>,
    },
    /// A version that is not deleted alone.
    #[error("version {version} of model {model} stays: {why}")]
    VersionHeld {
        /// The model's identity.
        model: String,
        /// The version.
        version: u64,
        /// What holds it, and what to do.
        why: &'static str,
    },
    /// What a blob was to be read from failed.
    #[error("the source of a blob cannot be read: {source}; nothing of it was kept")]
    Source {
        /// What it says.
        source: std::io::Error,
    },
    /// A blob that was stored in another database, or before this one was opened.
    #[error("the blob was stored in another database, or before this one was opened; store it again")]
    ForeignBlob,
    /// A blob of which bytes could not be taken or written before.
    #[error("the blob is not whole, since writing it failed before; store it again from its beginning")]
    BlobFailed,
    /// What the transaction read was changed by others, again and again.
    #[error(
        "the transaction was tried {tries} times and {what} changed under it each time; try again or read less"
    )]
    Conflict {
        /// How often it was tried.
        tries: usize,
        /// What changed.
        what: String,
    },
    /// A durable cursor is there or further already: what is consumed was consumed before, perhaps by another consumer.
    #[error(
        "cursor {cursor:?} is at transaction {at} and cannot move to {seq}: that was consumed already, perhaps by another \
         consumer; subscribe again at the cursor"
    )]
    Consumed {
        /// The cursor's name.
        cursor: String,
        /// Where it was to move.
        seq: u64,
        /// Where it is.
        at: u64,
    },
    /// What is to be or is the place of a durable cursor and is no transaction.
    #[error(
        "cursor {cursor:?} stands at a transaction, an i64; `_cursor.{cursor}` holds {found}, or was to: \
         remove it with `ubctl var rm --force '_cursor.{cursor}'`, and begin anew"
    )]
    CursorValue {
        /// The cursor's name.
        cursor: String,
        /// What was found: the type, or the number.
        found: String,
    },
    /// A durable cursor was to stand at a transaction that is yet to come, which nobody consumed.
    #[error(
        "cursor {cursor:?} cannot stand at transaction {seq}, the newest is {newest}: say what was consumed last"
    )]
    CursorAhead {
        /// The cursor's name.
        cursor: String,
        /// Where it was to stand.
        seq: u64,
        /// The newest transaction.
        newest: u64,
    },
    /// A live model that cannot be begun, changed or saved.
    #[error("live model {model}: {problem}")]
    LiveModel {
        /// Its identity.
        model: String,
        /// What is wrong and what to do.
        problem: &'static str,
    },
    /// What was not saved when the database was closed. All else is, and the folder is given up.
    #[error("changes are lost of {what}: the database was closed before; close such (or drop them) first")]
    Unsaved {
        /// The live models and the monitors of series, up to eight of them.
        what: String,
    },
    /// The closure of a transaction gave up. The engine never makes this error: it is for closures given to
    /// [`Database::transact`](crate::Database::transact) to return.
    #[error("the transaction was abandoned: {reason}")]
    Abandoned {
        /// Why.
        reason: String,
    },
    /// The clock shows a time after which hardly any commit could be told.
    #[error("the clock shows {now}; set it right, or give another in `Options::clock`")]
    Clock {
        /// What it shows.
        now: Timestamp,
    },
    /// The database is closed.
    #[error("the database is closed; open it again")]
    Closed,
    /// A promise of the engine itself does not hold; please report it.
    #[error("internal error: {what}; please report it with the steps that led here")]
    Internal {
        /// What does not hold.
        what: String,
    },
}

impl CommitError {
    /// Whether others changed what the transaction was prepared from, so that it is to be prepared again.
    pub(crate) fn is_overtaken(&self) -> bool {
        matches!(self, CommitError::Conflict { .. } | CommitError::SeriesChanged { .. })
    }
}

fn keys_or_none(keys: &[(String, Value)]) -> String {
    let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    if keys.is_empty() { "no keys".to_string() } else { keys.join(", ") }
}

fn why_unknown(version: &str, newest: u64) -> String {
    match version.parse::<u64>() {
        Ok(number) if (1..=newest).contains(&number) => ": it was deleted".to_string(),
        _ => format!(": they are numbered from 1, and the newest is {newest}"),
    }
}

fn remedy_for_deletes(held: &Option<(u64, usize)>) -> String {
    match held {
        Some((seq, deletes)) => format!(
            "the oldest snapshot, of seq {seq}, is older than {deletes} of them; let go of it, then make a checkpoint"
        ),
        None => {
            "make a checkpoint first, or delete in parts with one between; where they wait for a damaged \
                 segment, which the status names, `ubctl repair` makes a copy without them"
                .to_string()
        }
    }
}

/// Something could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A file is missing or damaged.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A query was refused or failed.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A key was refused.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A key has another width than the slot's cell keys, or a value of another type.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Model metadata was refused.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A query on the attributes of models was refused.
    #[error(transparent)]
    Where(#[from] WhereError),
    /// More than is drawn one by one.
    #[error(
        "{limit} {what} at most are drawn one by one, and there are at least {found}; draw one slot of one date"
    )]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there are at least.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// A variable of a type whose values are too long.
    #[error(
        "variable {variable} cannot have {found} bytes, at most {limit}; put it as a model or into a slot"
    )]
    VariableSize {
        /// The variable.
        variable: String,
        /// Bytes of a value.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// No series of this type.
    #[error("no series has the type {series:?}; `ubctl series ls` lists them")]
    UnknownSeries {
        /// The type.
        series: String,
    },
    /// A transaction that is not visible yet.
    #[error("transaction {seq} is not visible yet, the newest is {newest}; wait for it, or ask for that one")]
    NotYet {
        /// The transaction.
        seq: u64,
        /// The newest that is visible.
        newest: u64,
    },
    /// Rows that were shown at that transaction may be gone.
    #[error(
        "series {series:?} cannot be shown as it was known at transaction {seq}: what was deleted or superseded before {oldest} is gone; ask for \
         {oldest} or later, and define the type with more `history` to keep more"
    )]
    BeforeHorizon {
        /// The series' type.
        series: String,
        /// The transaction.
        seq: u64,
        /// The oldest transaction that can be read.
        oldest: u64,
    },
    /// An instant of which no commit time is kept any more.
    #[error(
        "which transaction was the last at {at} is not known any more: commit times are kept from {oldest} on, which is that of \
         transaction {seq}; ask for that or later, or for a transaction by its number"
    )]
    TimeBeforeHorizon {
        /// The instant.
        at: Timestamp,
        /// The oldest commit time that is kept.
        oldest: Timestamp,
        /// Its transaction.
        seq: u64,
    },
    /// What the feed keeps could not be read.
    #[error(transparent)]
    Feed(#[from] Box<FeedError>),
    /// No cell key of this name.
    #[error("slot {slot:?} has no cell key {column:?}; name one that it has")]
    UnknownColumn {
        /// The slot.
        slot: String,
        /// The name.
        column: String,
    },
    /// No slot of this name.
    #[error("no slot is named {slot:?}; `ubctl slot ls` lists them")]
    UnknownSlot {
        /// The name.
        slot: String,
    },
    /// No producer of this name.
    #[error("no producer is named {producer:?}; `ubctl producer ls` lists them")]
    UnknownProducer {
        /// The name.
        producer: String,
    },
    /// A name that no variable has.
    #[error("{what} {name:?} {problem}; ask for another name")]
    Name {
        /// What is named.
        what: &'static str,
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Contents that are not what they should be.
    #[error("object {object} does not hold the contents of a cell: {what}; run `ubctl verify`")]
    Contents {
        /// The object's hash.
        object: String,
        /// What is wrong.
        what: &'static str,
    },
    /// An object that is nowhere.
    #[error("object {object} is named but not stored; run `ubctl verify`")]
    MissingObject {
        /// The object's hash.
        object: String,
    },
    /// An object that a repair did not find.
    #[error("object {object} was lost before the database was repaired; put it again")]
    LostObject {
        /// The object's hash.
        object: String,
    },
    /// A variable of another type, or an array of another length.
    #[error("variable {variable:?} holds {expected}, not {found}; ask for what it holds")]
    VariableType {
        /// The variable, with its scope.
        variable: String,
        /// What it holds.
        expected: VariableType,
        /// What was asked for.
        found: VariableType,
    },
    /// Text that is no place of a version.
    #[error(
        "{text:?} is no place of a model; write ID, ID@VERSION or ID@ALIAS with the 64 digits of the identity"
    )]
    Location {
        /// The text.
        text: String,
    },
    /// Bytes that a blob does not have.
    #[error("bytes {start} to {end} are not within a blob of {bytes} bytes; ask for a part of it")]
    Range {
        /// The first byte.
        start: u64,
        /// The byte behind the last.
        end: u64,
        /// Length of the blob.
        bytes: u64,
    },
    /// A blob whose chunks lie apart, and which does not fit into memory as a whole.
    #[error("{bytes} bytes of a blob do not fit into memory; read it in parts")]
    Memory {
        /// How many were asked for.
        bytes: u64,
    },
    /// A blob that is not of the safetensors format, or lacks a tensor.
    #[error("no tensor can be read: {what}")]
    Tensor {
        /// What is wrong.
        what: String,
    },
    /// A cell that says no version of a model, or one that is gone.
    #[error("no model can be read from a cell: {what}")]
    NoModel {
        /// What is wrong and what to do.
        what: String,
    },
    /// A producer asked for the one cell of an input that has several, or none.
    #[error("input {slot:?} of this run has {cells} cells, not one; read them with `Run::inputs`")]
    SeveralCells {
        /// The slot.
        slot: String,
        /// How many cells it has.
        cells: usize,
    },
    /// A producer asked for an input that it does not have.
    #[error("this run has no input {slot:?}; its inputs are {inputs:?}")]
    UnknownInput {
        /// The slot.
        slot: String,
        /// The slots that it has.
        inputs: Vec<String>,
    },
}

/// Why a producer's closure returns no outputs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// There is nothing to produce from these inputs, and that is fine: outputs become absent.
    #[error("declined: {0}")]
    Declined(String),
    /// The production failed for good: outputs become invalid.
    #[error("{0}")]
    Fatal(String),
    /// It failed, and may succeed later: the run is tried again as the producer's [`Retry`](crate::Retry) says.
    #[error("to be tried again: {0}")]
    Retry(String),
    /// It was not taken up, since something that it needs is too busy: the run is tried again, and no attempt is used.
    #[error("rejected: {0}")]
    Rejected(String),
}

impl Failure {
    /// There is nothing to produce from these inputs, and that is fine.
    pub fn declined(reason: impl Into<String>) -> Failure {
        Failure::Declined(reason.into())
    }

    /// It failed, and may succeed later.
    pub fn retry(reason: impl Into<String>) -> Failure {
        Failure::Retry(reason.into())
    }

    /// It was not taken up, since something that it needs is too busy.
    pub fn rejected(reason: impl Into<String>) -> Failure {
        Failure::Rejected(reason.into())
    }

    /// The production failed for good.
    pub fn fatal(reason: impl Into<String>) -> Failure {
        Failure::Fatal(reason.into())
    }
}

macro_rules! fatal_from {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Failure {
                Failure::Fatal(error.to_string())
            }
        }
    )*};
}

fatal_from!(ReadError, CommitError, ColumnError, MetadataError, KeyError, QueryError);

fn version_or_none(version: &Option<u64>) -> String {
    version.map_or_else(|| "nothing".to_string(), |version| format!("version {version}"))
}

impl From<CommitError> for SchemaError {
    fn from(error: CommitError) -> SchemaError {
        match error {
            CommitError::Graph(graph) => SchemaError::Graph(graph),
            CommitError::Name { what, name, problem } => SchemaError::Name { what, name, problem },
            other => SchemaError::Commit(Box::new(other)),
        }
    }
}

impl From<CommitError> for OpenError {
    fn from(error: CommitError) -> OpenError {
        OpenError::Commit(Box::new(error))
    }
}
