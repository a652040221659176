//! Durable commits by many threads: transactions of one row of 100 bytes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use underbelly::{Batch, CommitError, Database, Row, Timestamp};

use crate::Failed;

/// Bytes of a transaction's row: a timestamp (8), a key of text (8) and a field of text (84).
pub const ROW_BYTES: usize = 100;

/// A database that takes small transactions.
pub struct Commits {
    db: Database,
    names: [Arc<str>; 3],
    field: String,
    next: AtomicI64,
}

impl Commits {
    /// A new database in a folder.
    pub fn create(folder: &Path) -> Result<Commits, Failed> {
        let db = Database::create(folder)?;
        let names = ["event", "source", "text"].map(Arc::from);
        Ok(Commits { db, names, field: "x".repeat(ROW_BYTES - 16), next: AtomicI64::new(0) })
    }

    fn commit(&self) -> Result<(), CommitError> {
        let [series, key, field] = &self.names;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut batch = Batch::new();
        batch.append(
            Row::new(series.clone(), Timestamp(number))
                .key(key.clone(), format!("S{:07}", number % 100))
                .field(field.clone(), self.field.as_str()),
        )?;
        self.db.commit(batch).map(|_| ())
    }

    /// The time in which `threads` threads commit `each` transactions each, one at a time, every one durable
    /// before the next of its thread.
    pub fn run(&self, threads: usize, each: u64) -> Result<Duration, Failed> {
        let began = Instant::now();
        thread::scope(|scope| {
            let work = || (0..each).try_for_each(|_| self.commit());
            let started: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            started.into_iter().try_for_each(|thread| match thread.join() {
                Ok(result) => Ok(result?),
                Err(_) => Err(Failed::from("a committing thread panicked")),
            })
        })?;
        Ok(began.elapsed())
    }

    /// Commits and log batches since the database was opened.
    pub fn batches(&self) -> (u64, u64) {
        let log = self.db.status().log;
        (log.records, log.batches)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_commits_its_share() {
        let folder = crate::place::scratch().unwrap();
        let commits = Commits::create(&folder.path().join("db")).unwrap();
        // The record of the opening goes to the disk with the first commit.
        commits.run(1, 1).unwrap();
        let before = commits.batches().0;
        commits.run(3, 5).unwrap();
        assert_eq!(commits.batches().0 - before, 15);
        assert_eq!(commits.db.snapshot().series("event").unwrap().count().unwrap(), 16);
    }
}
