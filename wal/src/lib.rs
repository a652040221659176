//! The write-ahead log of an Underbelly database.
//!
//! A record is a sequence number and bytes; what the bytes mean is the owner's affair. Records travel in batches:
//! one batch is one write and one sync. SPEC.md describes every byte.
//!
//! Invariants:
//! - A record is acknowledged only after the sync of its batch, and what survives a crash is a prefix of the
//!   sequence numbers that holds every acknowledged record.
//! - A batch is written only after the sync of the batch before it succeeded, so at most one batch is in doubt.
//! - Commits write only space that was written with zeros and synced before, or that held an earlier log file.
//! - Nothing is appended behind a tear; the file after it names the place where the tear begins.
//! - Every batch carries the salt of its file's present use, so that what an earlier use left never validates.
//! - After the first failed write or sync of the log nothing is written any more; reopening recovers.
//!
//! ```
//! use std::sync::Arc;
//! use underbelly_storage::disk::SimulatedDisk;
//! use underbelly_wal::{Log, LogOptions, Start, WalError};
//!
//! let disk = Arc::new(SimulatedDisk::new());
//! let options = LogOptions::with_file_len(1 << 20);
//! let mut log = Log::create(disk.clone(), [7; 16], 1, options.clone())?;
//! log.write(&[(1, b"first".to_vec()), (2, b"second".to_vec())])?;
//!
//! let after_power_cut = Arc::new(disk.crash());
//! let mut seen = Vec::new();
//! let start = Start::at(1);
//! let (_log, recovery) = Log::open(after_power_cut, [7; 16], start, 2, options, &mut |seq, bytes| {
//!     seen.push((seq, bytes.to_vec()));
//!     Ok::<(), WalError>(())
//! })?;
//! assert_eq!(seen, [(1, b"first".to_vec()), (2, b"second".to_vec())]);
//! assert_eq!(recovery.torn, None);
//! # Ok::<(), WalError>(())
//! ```
//!
//! In reading order: [`options`] (lengths and limits), `header` and `batch` (the bytes), `window`, `chain` and
//! `place` (reading them in order, and from where), `spare` and `space` (files ready for use, and who may prepare them), [`log`] (appending), [`recovery`] (opening), `rest` and
//! `tear` (what stands behind the end), `queue`, `cohort` and
//! [`commit`] (many callers, one sync), [`follower`] and [`inspection`] (reading
//! beside a writer).

mod batch;
mod chain;
mod cohort;
pub mod commit;
mod error;
pub mod follower;
mod header;
pub mod inspection;
mod layout;
pub mod log;
pub mod options;
mod place;
mod queue;
pub mod recovery;
mod rest;
mod space;
mod spare;
mod tear;
mod window;

pub use commit::{Admission, GroupCommit, Promise, Publisher};
pub use error::WalError;
pub use follower::{Follower, PlacedVisitor, Sound, visit_sound, visit_sound_upto};
pub use inspection::{
    BatchInspection, Behind, FileInspection, HeaderInspection, first_seqs, gaps, inspect, owner,
};
pub use layout::log_name;
pub use log::{Freed, Log, LogStats, RecycleJob, Recycled};
pub use options::LogOptions;
pub use place::{PassedOver, Place, Start};
pub use queue::{Stall, Stalls, Urge};
pub use recovery::{Recovery, TornTail, Visitor, gap_behind};
pub use space::SpaceKept;
pub use spare::{PreparedSpare, SpareJob};
