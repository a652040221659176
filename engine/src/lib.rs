//! Underbelly: an embedded database for backtests, pricing runs and online models.
//!
//! One directory and one log hold series (rows by type and timestamp), slots (small datasets whose cells have a
//! state), models (blobs found by a metadata dict) and variables (one current value by name). Producers turn slots
//! into slots; a commit wakes those whose inputs it changed. A transaction may touch everything; it is atomic, and durable when
//! it is acknowledged.
//!
//! Invariants:
//! - An acknowledged `Sync` transaction survives a crash at any moment; any other is there whole or not at all, and
//!   what survives is a prefix of all transactions.
//! - Snapshots show a transaction once it is visible: a `Sync` one when it is durable, a `Buffered` one when all before
//!   it are visible. Runs read nothing else; listings of states show the applied head. Nobody outside the process is
//!   shown what is not durable.
//! - No user code runs under a lock of the engine, and the state's lock is never held over I/O.
//! - The graph of slots is a pure fold over logged events: replaying the log gives the same states.
//!
//! Reading order: [`batch`](Batch), `prepare`, `operations`, `core`, `scribe`, `state`, `graph`, `feed`, `producers`, `open`,
//! `checkpoint`, [`snapshot`](Snapshot), [`database`](Database).

#[cfg(feature = "arrow")]
pub mod arrow;
mod backlog;
mod backup;
mod batch;
mod checkpoint;
mod clock;
mod commands;
mod core;
mod database;
mod durability;
mod durable;
mod error;
mod explain;
mod feed;
mod files;
#[doc(hidden)] // Beside what is exported below, for the fuzz targets of this workspace alone.
pub mod graph;
mod image;
mod journal;
pub mod limits;
mod listing;
mod manifest;
mod models;
mod monitor;
mod objects;
mod open;
mod operations;
mod options;
mod parking;
mod pending;
mod pool;
mod prepare;
mod producers;
mod reader;
#[doc(hidden)] // For the fuzz targets of this workspace alone.
pub mod record;
mod repair;
mod report;
mod restore;
mod runs;
mod scribe;
mod series;
#[cfg(feature = "processes")]
mod server;
mod sessions;
mod shared;
mod signals;
mod slots;
mod snapshot;
mod state;
mod sync;
mod transaction;
mod variables;
mod verify;
mod versions;
mod view;

pub use backup::{BackupOptions, BackupReport};
pub use batch::{Batch, Row};
pub use checkpoint::CheckpointReport;
pub use clock::{Clock, ManualClock, SystemClock};
pub use core::Commit;
pub use database::{Database, Status};
pub use durability::Durability;
pub use error::{CommitError, CopyError, Failure, OpenError, ReadError, SchemaError, ServeError};
pub use explain::{Explained, ForeseenCell, ForeseenWork};
#[doc(hidden)]
pub use feed::rewrite_page;
pub use feed::{
    Appended, CHANGES_SERIES, CURSOR_PREFIX, Committed, Feed, FeedError, Kept, Mirror, Mirrored, SeriesFeed,
    SeriesSubscription, Slow, Start, StateChange, Subscription, Watch,
};
pub use graph::{
    Cause, CellId, CellInfo, Extent, Filter, FilterTest, GraphError, Group, Host, Input, Key, KeyError, Mode,
    Output, PStatus, ProducerDefinition, Proxy, Retry, RunId, SlotDate, SlotDefinition, SlotId, State,
    StateCounts, Trigger, When, Why, WhyKind,
};
pub use journal::{LogInspection, LogRecord};
pub use listing::{
    Alarm, AlarmKind, CellEdge, CellGraph, CellNode, EdgeRole, GraphEdge, GraphNode, GraphView, Lineage,
    NodeKind, ProducerNode, ProducerSummary, Rows, RunningRow, SlotCell, SlotCells, SlotNode, SlotRow,
    SlotSummary, TABLE_COLUMNS, TreeRow, WorkRow,
};
pub use models::{
    Alias, AliasTarget, Annotation, BlobWriter, IDENTITY_PREFIX, IndexState, IndexStatus, LiveBuilder,
    LiveModel, LiveStatus, Location, LockedModel, MetaValue, Metadata, MetadataError, Model, ModelId,
    ModelInfo, ModelName, ModelReader, Parts, Restored, Retention, StoredBlob, Tensor, TensorInfo, TrainedOn,
    Training, VersionInfo, Where, WhereError,
};
pub use monitor::{Histogram, Monitor, Sample};
pub use open::RecoveryReport;
pub use options::Options;
#[cfg(feature = "processes")]
pub use producers::Program;
pub use producers::{InputCell, Outputs, Run};
pub use reader::{Reader, ReaderStatus};
pub use repair::{Loss, RepairReport};
pub use restore::Phases;
pub use runs::{RUNS_SERIES, RunRecord};
pub use series::{
    Delete, Document, DocumentError, Member, Nested, Past, Series, SeriesDefinition, SeriesInfo, nested,
};
#[cfg(feature = "processes")]
pub use server::Server;
pub use sessions::{Accepted, Session};
pub use signals::{Latencies, Percentiles};
pub use slots::decode_content;
pub use snapshot::{Cell, Snapshot};
pub use transaction::Transaction;
pub use underbelly_query::{
    Aggregate, AsOf, Closed, Direction, Duplicates, Every, Fill, GroupBy, Label, Predicate, QueryError,
    Resample, Scan, Schema, SchemaColumn, TimedRows, WindowEnd, WindowJoin,
};
pub use underbelly_storage::disk::{self, Disk, FaultyDisk, RealDisk, SimulatedDisk};
pub use underbelly_storage::error::StorageError;
pub use underbelly_storage::object::{Blob, ObjectId};
pub use underbelly_storage::{
    Column, ColumnError, ColumnType, Columns, Date, Decimal, DecimalError, LogicalType, LogicalTypes,
    Strings, Timestamp, Value, Values,
};
pub use underbelly_wal::{
    BatchInspection, Behind, FileInspection, HeaderInspection, LogStats, PassedOver, Sound, Stall, Stalls,
    WalError,
};
pub use variables::{
    Changes, Reading, Scope, SharedVar, UnloggedVar, Var, Variable, VariableKind, VariableType, VariableValue,
};
pub use verify::VerifyReport;
pub use view::{Counts, View};

/// The example in README.md, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
