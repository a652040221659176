//! All settings of a database.

use std::fs;
use std::process;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::graph::Host;

/// Settings for [`Database::open_with`](crate::Database::open_with).
#[derive(Clone)]
pub struct Options {
    /// Bytes of one log file, a multiple of 4,096. Default 64 MiB. Decided when the database is made.
    pub log_file_bytes: u64,
    /// Log payload after which a checkpoint is made in the background, and the longest state image that one writes: a longer one
    /// is made beside checkpoints. Default 64 MiB.
    pub checkpoint_bytes: u64,
    /// Operations after which a checkpoint is made in the background. Default 500,000.
    pub checkpoint_operations: u64,
    /// A checkpoint is made in the background where replaying what was committed since the last one would take so
    /// long, as far as can be estimated. Default 150 ms: as long again is added while the checkpoint runs.
    pub checkpoint_replay: Duration,
    /// Time after which `Buffered` transactions are written at the latest; `None` leaves it to the next `Sync`
    /// transaction, to [`Database::wait_durable`](crate::Database::wait_durable), checkpoints and the close. Default
    /// 5 ms. What a crash of the machine may lose is what was committed within this time and one write of the log.
    pub buffered_delay: Option<Duration>,
    /// Bytes of `Buffered` transactions that are written without waiting for the time. Default 1 MiB.
    pub buffered_bytes: u64,
    /// Time without a write after which the log is sealed, so that damage to the last transactions can be told from
    /// a torn tail; `None` seals at the close alone. Default 200 ms.
    pub seal_after: Option<Duration>,
    /// Bytes a second that checkpoints in the background write at most, so that commits keep the disk to themselves;
    /// `None` for as many as the disk takes. Default: `None`.
    pub background_bytes_per_second: Option<u64>,
    /// How long what transactions changed is kept at least for who follows it. Default: seven days. What is older goes
    /// with the next checkpoint, segment by segment.
    pub changes_kept: Duration,
    /// Bytes of it that are kept on the disk at most, however young they are; the newest segment may have more. Default:
    /// 1 GiB.
    pub changes_kept_bytes: u64,
    /// Models from which on queries on attributes keep an index in the folder `index/`; with fewer they scan, and so does
    /// each query of a [`Reader`](crate::Reader). Default 4,096; `usize::MAX` means never.
    pub index_models_min: usize,
    /// Length of the chunks into which blobs are cut that do not fit into the log, a multiple of 4,096 up to 16 MiB. Equal
    /// chunks are stored once. Default 8 MiB; below 4 MiB files and what is known of them cost more than is saved, so that
    /// is for tests.
    pub chunk_bytes: usize,
    /// Whether series are sealed by key: the rows of one key of a type lie together within each row group, where a key has
    /// sixteen of them on the average. With a hundred keys reading one then takes a twentieth of the time, and what reads all
    /// keys up to twice as long (README has the figures). Answers are the same, but for the last bits of sums of floats by other
    /// columns than the keys, whose rows come key by key. What was sealed by key stays so
    /// when it is merged, whoever merges it; programs that know version 1 of segments alone cannot read it. Default: no.
    pub sealed_by_key: bool,
    /// Threads that run producers. Default: one for each processor, at most 8.
    ///
    /// With 0 the database starts no thread at all, for workers, maintenance or scans: whoever holds it drives it.
    /// Ready producers run, and checkpoints and log files that are due are made, inside
    /// [`Database::run_ready`](crate::Database::run_ready) on the caller's thread; so the same calls with the same
    /// clock do the same each time.
    pub workers: usize,
    /// Bytes of memory that each scan or other operator over series may hold, about; [`View::limit_memory`](crate::View::limit_memory) has the
    /// details, and sets it later. Default: `None`, as many as it needs.
    pub memory_bytes: Option<u64>,
    /// Where commit times come from. Default: the system's clock.
    pub clock: Arc<dyn Clock>,
    /// Where producers run, as the database notes it with each that is registered and
    /// [`RunningRow::machine`](crate::RunningRow::machine) tells it. Default: this process on this machine; `None` where
    /// the system does not tell its name.
    pub host: Option<Host>,
}

/// This process on this machine, where the system tells its name.
fn this_host() -> Option<Host> {
    // Nobody renames a machine under a process that has asked.
    static MACHINE: OnceLock<String> = OnceLock::new();
    let name = || fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_string();
    let machine = MACHINE.get_or_init(name);
    (!machine.is_empty()).then(|| Host { machine: machine.clone(), process: process::id() })
}

impl Default for Options {
    fn default() -> Options {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Options {
            log_file_bytes: 64 << 20,
            checkpoint_bytes: 64 << 20,
            checkpoint_operations: 500_000,
            checkpoint_replay: Duration::from_millis(150),
            buffered_delay: Some(Duration::from_millis(5)),
            buffered_bytes: 1 << 20,
            seal_after: Some(Duration::from_millis(200)),
            background_bytes_per_second: None,
            changes_kept: Duration::from_secs(7 * 24 * 3600),
            changes_kept_bytes: 1 << 30,
            index_models_min: 4_096,
            chunk_bytes: 8 << 20,
            sealed_by_key: false,
            workers: processors.min(8),
            memory_bytes: None,
            clock: Arc::new(SystemClock),
            host: this_host(),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("log_file_bytes", &self.log_file_bytes)
            .field("checkpoint_bytes", &self.checkpoint_bytes)
            .field("checkpoint_operations", &self.checkpoint_operations)
            .field("checkpoint_replay", &self.checkpoint_replay)
            .field("buffered_delay", &self.buffered_delay)
            .field("buffered_bytes", &self.buffered_bytes)
            .field("seal_after", &self.seal_after)
            .field("background_bytes_per_second", &self.background_bytes_per_second)
            .field("changes_kept", &self.changes_kept)
            .field("changes_kept_bytes", &self.changes_kept_bytes)
            .field("index_models_min", &self.index_models_min)
            .field("chunk_bytes", &self.chunk_bytes)
            .field("sealed_by_key", &self.sealed_by_key)
            .field("workers", &self.workers)
            .field("memory_bytes", &self.memory_bytes)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn producers_run_in_this_process_unless_told_otherwise() {
        let host = Options::default().host;
        assert!(host.is_some_and(|host| !host.machine.is_empty() && host.process == process::id()));
    }
}
