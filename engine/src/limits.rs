//! Every limit of the engine in one place. All are checked before memory is taken or a lock is held; what other commits may
//! have added to meanwhile is counted again under the lock, in constant time.

use std::time::Duration;

use underbelly_storage::Timestamp;

/// Time after which a run that goes on is in the log at the latest, where nothing else was committed, so that who reads beside the
/// writer sees it.
pub const START_SHOWN: Duration = Duration::from_millis(20);

/// Bytes of a name (series, column, slot, producer).
pub const NAME_BYTES_MAX: usize = 255;
/// Columns of one series type or slot, keys included.
pub const COLUMNS_MAX: usize = 4_096;
/// Rows in one append or cell.
pub const ROWS_MAX: usize = 1 << 28;
/// Appends, slot puts, model puts and changes of variables in one transaction.
pub const OPERATIONS_MAX: usize = 1 << 20;
/// An append or object above this is written to a file of its own before the commit and named by the record; so
/// is what would make the record longer than half of what the log takes.
pub const INLINE_BYTES_MAX: usize = 1 << 20;
/// Bytes of one object: a model blob or the contents of a cell.
pub const OBJECT_BYTES_MAX: usize = 4 << 30;
/// Bytes of a blob that is written as a stream.
pub const BLOB_BYTES_MAX: u64 = 1 << 40;

/// The greatest number of a sealed file: nobody counts that far, nor from there on to the end of numbers.
pub(crate) const FILE_NUMBER_MAX: u64 = 1 << 62;
/// How many of those are named that a close could not save.
pub(crate) const UNSAVED_TOLD: usize = 8;
/// The greatest sequence number that a file may say; no database comes so far, and counting goes on from it.
pub(crate) const SEQ_MAX: u64 = 1 << 62;
/// Bytes of a variable's value; a float has 8.
pub const VARIABLE_BYTES_MAX: usize = 4 << 10;
/// Levels of nesting in model metadata.
pub const METADATA_DEPTH_MAX: usize = 32;
/// Bytes of model metadata in canonical form.
pub const METADATA_BYTES_MAX: usize = 64 << 10;
/// Bytes of committed records that may wait for the disk before further commits wait too.
pub const QUEUE_BYTES_MAX: usize = 128 << 20;
/// Things asked of the thread that looks after the log and not done yet.
pub const DUTIES_MAX: usize = 16;
/// Bytes of the reason of a run that failed or declined; what is longer is cut.
pub const REASON_BYTES_MAX: usize = 4 << 10;
/// Bytes of what a child process wrote to standard error that are kept with a run; the last are.
pub const STDERR_BYTES_MAX: usize = 4 << 10;
/// Bytes of one line of it.
pub const STDERR_LINE_BYTES_MAX: usize = 1 << 10;
/// Processes that are connected to a server at once: half of the files that a process may have open as a rule.
pub const PEERS_MAX: usize = 512;
/// Times that a transaction is tried again after a conflict.
pub const CONFLICT_RETRIES: usize = 16;
/// Deltas of the state image over its base, from which on they are merged or become a new base.
pub const DELTAS_MAX: usize = 4;
/// Bytes of log, padding included, after which a checkpoint is made in the background.
pub const CHECKPOINT_LOG_BYTES: u64 = 1 << 30;
/// Segments named by the log after which a checkpoint is made in the background: each is a file that is open and mapped, and
/// that an opening opens.
pub const CHECKPOINT_SEGMENTS: u64 = 256;
/// Time after a checkpoint in the background that failed in which none is tried.
pub const CHECKPOINT_RETRY: Duration = Duration::from_secs(2);
/// Young runs of one size class that are merged into one.
pub const YOUNG_RUNS_PER_CLASS: usize = 8;
/// Rows up to which an append is pushed behind those of earlier commits; more are a run of their own.
pub const FEW_ROWS_MAX: usize = 64;
/// Columns up to which it is.
pub const FEW_COLUMNS_MAX: usize = 64;
/// Bytes of pushed rows that become a run.
pub const TAIL_BYTES_MAX: usize = 16 << 20;
/// Rows above which a young run is left alone until it is sealed.
pub const YOUNG_RUN_ROWS_MAX: usize = 1 << 13;
/// Small segments of one size class and type that are merged at the next checkpoint.
pub const SEGMENTS_PER_CLASS: usize = 8;
/// Bytes below which segments are of the lowest size class; each other class ends at eight times the one below.
pub const LOWEST_CLASS_BYTES: u64 = 128 << 10;
/// Bytes below which a segment counts as small, where its rows do so too.
pub const SMALL_SEGMENT_BYTES: u64 = 64 << 20;
/// Bytes in memory, as far as they can be told unread, below which the rows of a segment count as few.
pub const SMALL_ROWS_BYTES: u64 = 256 << 20;
/// Bytes in memory, as far as they can be told unread, of the segments that one checkpoint merges; two are merged whatever
/// they have.
pub const MERGED_ROWS_BYTES: u64 = 512 << 20;
/// Bytes below which a pack or chunk file counts as small.
pub const SMALL_FILE_BYTES: u64 = 16 << 20;
/// Small packs that are joined at the next checkpoint.
pub const SMALL_PACKS_MAX: usize = 8;
/// Small chunk files that are joined at the next checkpoint.
pub const SMALL_CHUNK_FILES_MAX: usize = 64;
/// Bytes of chunk files that a checkpoint joins, at most.
pub const JOINED_CHUNK_BYTES_MAX: u64 = 256 << 20;
/// Operations as which a delete of rows counts towards the next checkpoint.
pub const DELETE_OPERATIONS: u64 = 1_000;
/// Deletes of one series of which rows are still stored: until a checkpoint has left those out, scans look at each.
pub const DELETES_MAX: usize = 1 << 14;
/// Damaged segments that a checkpoint names one by one.
pub const DAMAGED_TOLD_MAX: usize = 64;
/// Bytes in memory of the rows that a checkpoint seals into one segment.
pub const SEAL_BYTES_MAX: usize = 1 << 30;
/// Bytes of the record that starts a run, at most.
pub const START_BYTES_MAX: u64 = 512;
/// Starts, or plain ends of runs, of one record, at most.
pub const RUNS_OF_RECORD_MAX: usize = 256;
/// Bytes by which the record of several starts grows with each.
pub const START_BYTES: u64 = 32;
/// The latest time that the clock may show, a year before the end of time: every commit is later than the one before.
pub const CLOCK_MAX: Timestamp = Timestamp(i64::MAX - 31_536_000_000_000_000);
/// Bytes of log that a reader of another process keeps in memory before it takes a newer manifest instead.
pub const READER_REPLAY_BYTES: u64 = 64 << 20;
/// How often a reader begins anew because the writer's checkpoints overtook it.
pub const READER_TRIES: usize = 100;
/// Bytes of log records that a copy writes at once.
pub const COPY_BYTES: usize = 4 << 20;
/// Transactions in one page of the feed.
pub const PAGE_TRANSACTIONS_MAX: usize = 4_096;
/// Bytes of a page of the feed that is closed before another transaction; one transaction may fill more.
pub const PAGE_BYTES_MAX: usize = 64 << 10;
/// How long who follows the feed waits before it looks whether the log has failed.
pub const FEED_LOOK: Duration = Duration::from_secs(1);
/// Samples kept of each latency.
pub const LATENCY_SAMPLES: usize = 65_536;
/// Keys of one model in the index of attributes; a model with more is a candidate for every query.
pub const INDEX_MODEL_KEYS_MAX: usize = 1_024;
/// Versions behind the index's stamp that a query passes over before the index is asked to catch up.
pub const INDEX_TAIL_MAX: usize = 1_024;
/// How long closing waits for the index to be put away; one that is not is built anew.
pub const INDEX_CLOSE_MAX: std::time::Duration = std::time::Duration::from_secs(5);
/// Cells that are drawn one by one.
pub const DRAWN_CELLS_MAX: u64 = 20_000;
/// Edges between them.
pub const DRAWN_EDGES_MAX: u64 = 200_000;

/// Documents in each other.
pub(crate) const DOCUMENT_DEPTH_MAX: usize = 32;
