//! Lengths and limits of a log.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::batch::{BATCH_MAX, FRAME, HEADER};
use crate::error::WalError;
use crate::layout::{BLOCK, padded};

/// Shortest log file, in bytes.
pub const FILE_LEN_MIN: u64 = 4 * BLOCK;

/// Longest log file, in bytes.
pub const FILE_LEN_MAX: u64 = 1 << 30;

/// Settings of a log. They may differ from one opening to the next.
#[derive(Clone)]
pub struct LogOptions {
    /// Length of a new log file in bytes: a multiple of 4,096 from [`FILE_LEN_MIN`] to [`FILE_LEN_MAX`].
    pub file_len: u64,
    /// Longest record in bytes. A padded record must fit into half a file and into 32 MiB.
    pub record_max: u32,
    /// Bytes, padding included, that may be queued for commit before [`crate::GroupCommit::admit`] blocks.
    pub queue_bytes_max: u64,
    /// Bytes in the queue at which [`crate::GroupCommit::enqueue`] asks that records be written which nobody waits
    /// for.
    pub flush_bytes: u64,
    /// Gives the salt of each use of a file. Must not repeat; tests pass their own.
    pub salt: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            file_len: 64 << 20,
            record_max: (32 << 20) - 8192,
            queue_bytes_max: 64 << 20,
            flush_bytes: 1 << 20,
            salt: Arc::new(random_salt),
        }
    }
}

impl fmt::Debug for LogOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogOptions")
            .field("file_len", &self.file_len)
            .field("record_max", &self.record_max)
            .field("queue_bytes_max", &self.queue_bytes_max)
            .field("flush_bytes", &self.flush_bytes)
            .finish_non_exhaustive()
    }
}

impl LogOptions {
    /// Settings with files of `file_len` bytes and the longest records that fit.
    pub fn with_file_len(file_len: u64) -> LogOptions {
        let mut options = LogOptions { file_len, ..LogOptions::default() };
        let most = options.batch_bytes_max().saturating_sub((HEADER + FRAME) as u64);
        options.record_max = options.record_max.min(u32::try_from(most).unwrap_or(u32::MAX));
        options
    }

    /// Checks that all settings are in range and fit each other.
    pub(crate) fn check(&self) -> Result<(), WalError> {
        let wrong = |option, value, rule: String| Err(WalError::Options { option, value, rule });
        if !(FILE_LEN_MIN..=FILE_LEN_MAX).contains(&self.file_len) || !self.file_len.is_multiple_of(BLOCK) {
            let rule = format!("a multiple of {BLOCK} from {FILE_LEN_MIN} to {FILE_LEN_MAX}");
            return wrong("file_len", self.file_len, rule);
        }
        let most = self.batch_bytes_max() - (HEADER + FRAME) as u64;
        if u64::from(self.record_max) > most {
            let rule = format!("at most {most} with files of {} bytes", self.file_len);
            return wrong("record_max", self.record_max.into(), rule);
        }
        Ok(())
    }

    /// Longest batch that is written, padding included. Two fit into a file, so that a record that does not fit
    /// into the rest of a file wastes less than half of it.
    pub(crate) fn batch_bytes_max(&self) -> u64 {
        (self.file_len.saturating_sub(BLOCK) / 2 / BLOCK * BLOCK).min(BATCH_MAX)
    }

    /// Bytes that a record takes at most when it travels with all that is queued.
    ///
    /// Records that are queued together become batches of which two that follow each other exceed the longest batch,
    /// or one batch. So n bytes of frames take at most n + (2n / longest batch + 1) · (header + block), which is less
    /// than n + n / 4 + 2 blocks where the longest batch has 64 KiB or more; [`crate::Log::room`] keeps the two blocks
    /// back. With shorter batches every record counts as if it travelled alone.
    pub(crate) fn queued(&self, bytes: u64) -> u64 {
        let frame = bytes.saturating_add(FRAME as u64);
        match self.travels_together() {
            true => frame + frame / 4 + 1,
            false => LogOptions::alone(bytes),
        }
    }

    /// Bytes that a record takes at most, before it is known whether it travels with others.
    pub(crate) fn admitted(&self, bytes: u64) -> u64 {
        LogOptions::alone(bytes).max(self.queued(bytes))
    }

    /// Whether batches are so long that what is queued is counted as travelling together.
    pub(crate) fn travels_together(&self) -> bool {
        self.batch_bytes_max() >= 64 << 10
    }

    /// Bytes that a record takes when it travels alone.
    pub(crate) fn alone(bytes: u64) -> u64 {
        padded(bytes.saturating_add((HEADER + FRAME) as u64))
    }
}

/// A number that does not repeat: the process's random hash keys over time, process and a counter.
fn random_salt() -> u64 {
    static USES: AtomicU64 = AtomicU64::new(0);
    let mut hasher = RandomState::new().build_hasher();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    hasher.write_u128(now.as_nanos());
    hasher.write_u32(std::process::id());
    hasher.write_u64(USES.fetch_add(1, Ordering::Relaxed));
    hasher.finish()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn settings_out_of_range_are_named() {
        LogOptions::default().check().unwrap();
        for file_len in [FILE_LEN_MIN, 64 << 10, 1 << 20, 64 << 20, FILE_LEN_MAX] {
            LogOptions::with_file_len(file_len).check().unwrap();
        }
        for file_len in [0, 4096, 12288, FILE_LEN_MIN + 1, FILE_LEN_MAX + BLOCK, u64::MAX] {
            let error = LogOptions::with_file_len(file_len).check().unwrap_err();
            assert!(error.to_string().contains("file_len"), "{error}");
        }
        let mut options = LogOptions::with_file_len(64 << 10);
        options.record_max += 1;
        assert!(options.check().unwrap_err().to_string().contains("record_max"));
    }

    #[test]
    fn salts_do_not_repeat() {
        let salts: std::collections::BTreeSet<u64> = (0..1000).map(|_| random_salt()).collect();
        assert_eq!(salts.len(), 1000);
    }

    /// What is queued never takes more than was admitted for a record as long or longer.
    #[test]
    fn an_admission_is_enough_alone_and_beside_others() {
        for file_len in [16 << 10, 64 << 20] {
            let options = LogOptions::with_file_len(file_len);
            let max = u64::from(options.record_max);
            let lengths = [0, 1, 4_000, 16_383, 16_384, 100_000, 1 << 20, max];
            for bytes in lengths.into_iter().filter(|bytes| *bytes <= max) {
                let admitted = options.admitted(bytes);
                assert!(admitted >= options.queued(bytes) && admitted >= LogOptions::alone(bytes), "{bytes}");
                assert!(admitted >= options.queued(bytes.saturating_sub(1)), "{bytes}");
            }
        }
    }
}
