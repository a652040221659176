//! An index in a folder, kept by sled.
//!
//! Nothing is flushed but by [`SledIndex::close`], and nothing of it is relied on after a crash.

use std::fs;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Index, IndexError};

/// Bytes of pages that sled may keep in memory.
const CACHE_BYTES: u64 = 64 << 20;

/// Keys of one of sled's batches.
const BATCH_KEYS: usize = 1_024;

/// How long sled may take to let go of its files, and how often it is asked.
const RELEASE_MAX: Duration = Duration::from_secs(2);
const RELEASE_STEP: Duration = Duration::from_millis(1);

/// An index in a folder, kept by sled.
#[derive(Debug)]
pub struct SledIndex {
    db: sled::Db,
}

/// Runs `body`; its errors and its panics name `action`.
fn guarded<T>(action: &'static str, body: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, IndexError> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(done) => done.map_err(|error| IndexError::Sled { action, what: error.to_string() }),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let what = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(IndexError::Panicked { action, what: what.to_string() })
        }
    }
}

impl SledIndex {
    /// Opens the index in this folder, or makes one. What stands there must be what sled left there.
    pub(super) fn open(dir: &Path) -> Result<SledIndex, IndexError> {
        let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        Ok(SledIndex { db: guarded("open", || config.open())? })
    }

    /// Writes everything to the files and waits until sled lets go of them.
    pub(super) fn close(self, dir: &Path) -> Result<(), IndexError> {
        let SledIndex { db } = self;
        let flushed = guarded("flush", || db.flush());
        let closed = guarded("close", || {
            drop(db);
            Ok(())
        });
        flushed?;
        closed?;
        // sled holds a lock on this file until its last task is done.
        let path = dir.join("db");
        let file = fs::File::open(&path).map_err(IndexError::io("open", &path))?;
        let began = Instant::now();
        while file.try_lock().is_err() {
            if began.elapsed() > RELEASE_MAX {
                return Err(IndexError::Busy { path: path.display().to_string() });
            }
            std::thread::sleep(RELEASE_STEP);
        }
        Ok(())
    }
}

impl Index for SledIndex {
    fn change(&self, puts: &[Vec<u8>], removes: &[Vec<u8>]) -> Result<(), IndexError> {
        for keys in puts.chunks(BATCH_KEYS) {
            let mut batch = sled::Batch::default();
            keys.iter().for_each(|key| batch.insert(key.as_slice(), &[]));
            guarded("add to", || self.db.apply_batch(batch))?;
        }
        for keys in removes.chunks(BATCH_KEYS) {
            let mut batch = sled::Batch::default();
            keys.iter().for_each(|key| batch.remove(key.as_slice()));
            guarded("remove from", || self.db.apply_batch(batch))?;
        }
        Ok(())
    }

    fn visit(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        if to.is_some_and(|to| to <= from) {
            return Ok(());
        }
        let mut keys = guarded("read", || {
            Ok(match to {
                Some(to) => self.db.range(from..to),
                None => self.db.range(from..),
            })
        })?;
        while let Some((key, _)) = guarded("read", || keys.next().transpose())? {
            if visit(&key).is_break() {
                break;
            }
        }
        guarded("read", || {
            drop(keys);
            Ok(())
        })
    }
}
