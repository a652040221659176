//! Damaged files give a typed error or the same data as before; never a panic, never other data.
//!
//! Two things are excepted, since no program could do better. The lock file holds nothing but a process id. And
//! where the log's end is damaged, the last transactions look like writes that were cut short; a database that was
//! closed has none behind its checkpoint, so what it shows is the same, but for one that was not closed the
//! damaged tail may be gone, which `log.rs` tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod log;
mod sealed;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use underbelly::{Database, MemoryDisk};
use underbelly_tests::{options, shown};

/// What a database showed.
type Shown = BTreeMap<String, String>;

/// What came of reading a damaged database.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Outcome {
    /// It opened and showed the same.
    Same,
    /// Opening, reading or verifying gave an error.
    Told,
}

/// Opens a damaged database, reads all of it, verifies it.
///
/// # Panics
/// Where it shows other data, or something in it panics.
fn read(disk: &MemoryDisk, expected: &Shown, what: &str) -> Outcome {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let db = match Database::open_on(Arc::new(disk.clone()), options()) {
            Ok(db) => db,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return Outcome::Told;
            }
        };
        let read = shown(&db);
        let verified = db.verify(|_, _| ());
        let told = verified.map_or(true, |report| !report.damages.is_empty());
        match read {
            Ok(read) => {
                assert_eq!(read, *expected, "{what}: other data");
                if told { Outcome::Told } else { Outcome::Same }
            }
            Err(error) => {
                assert!(told, "{what}: reading says {error}, verifying says nothing");
                Outcome::Told
            }
        }
    }));
    outcome.unwrap_or_else(|_| panic!("{what}: a panic"))
}
