//! Columns of Underbelly as Arrow: [IPC](https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc)
//! files and streams through arrow2, and the
//! [C Data Interface](https://arrow.apache.org/docs/format/CDataInterface.html) for others in this process.
//!
//! Invariants:
//! - Bytes from outside never panic: what cannot be read is an [`ArrowError`] that says what. `claims` compares every length that
//!   a message names with the bytes that are there before arrow2 sees it, and no memory is taken for bytes that have not come.
//! - A [`Batch`] that is exported lends its numbers, times, days and texts where they are; what has another form here than in Arrow
//!   is copied: validity and booleans (a byte a row here, a bit there), decimals (8 bytes here, 16 there), and offsets of texts beyond
//!   2 GiB in one column.
//! - What is imported is always copied, since columns here own their vectors.
//! - Unsafe code is in [`c`] alone.
//!
//! Modules in reading order: `error`, `batch` (rows that are lent), `columns` (columns as arrays of arrow2, and back), `claims`,
//! `ipc` (files and streams), `index` (columns of files one by one), `parquet` (the same of Parquet, a feature), [`c`].

mod batch;
pub mod c;
mod claims;
mod columns;
mod error;
mod index;
mod ipc;
#[cfg(feature = "parquet")]
mod parquet;

pub use batch::{Batch, Lend, Lent};
pub use error::ArrowError;
pub use index::Index;
pub use ipc::{Limits, Reader, Writer, decode, encode};
#[cfg(feature = "parquet")]
pub use parquet::{Parquet, Stretches};
