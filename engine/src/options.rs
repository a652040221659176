//! All settings of a database.

use std::sync::Arc;

use crate::clock::{Clock, SystemClock};

/// Settings for [`Database::open_with`](crate::Database::open_with).
#[derive(Clone)]
pub struct Options {
    /// Bytes of one log file, a multiple of 4,096. Default 64 MiB. Decided when the database is made.
    pub log_file_bytes: u64,
    /// Log payload after which a checkpoint is made in the background. Default 64 MiB.
    pub checkpoint_bytes: u64,
    /// Operations after which a checkpoint is made in the background. Default 500,000.
    pub checkpoint_operations: u64,
    /// Threads that run producers. Default: one for each processor, at most 8.
    pub workers: usize,
    /// Where commit times come from. Default: the system's clock.
    pub clock: Arc<dyn Clock>,
}

impl Default for Options {
    fn default() -> Options {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Options {
            log_file_bytes: 64 << 20,
            checkpoint_bytes: 64 << 20,
            checkpoint_operations: 500_000,
            workers: processors.min(8),
            clock: Arc::new(SystemClock),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("log_file_bytes", &self.log_file_bytes)
            .field("checkpoint_bytes", &self.checkpoint_bytes)
            .field("checkpoint_operations", &self.checkpoint_operations)
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}
