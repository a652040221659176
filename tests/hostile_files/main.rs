//! Damaged, misplaced and strange files give a typed error or the same data as before; never a panic, never other
//! data, never a hang, and never memory beyond a cap.
//!
//! Two things are excepted, since no program could do better. The lock file holds nothing but a process id. And
//! where the log's end is damaged, the last transactions look like writes that were cut short; a database that was
//! closed has none behind its checkpoint, so what it shows is the same, but for one that was not closed the
//! damaged tail may be gone, which `log.rs` tests.
//!
//! The quick form flips one bit of every byte. With `UNDERBELLY_HOSTILE=all` every bit is flipped, and the padding of the
//! log is damaged as thoroughly as the rest.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod damage;
mod entries;
mod folder;
mod kinds;
mod lengths;
mod log;
mod memory;
mod subject;
