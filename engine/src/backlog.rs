//! What was committed since the last checkpoint, and when it calls for the next.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::limits::DELETE_OPERATIONS;

/// What commits amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub transactions: u64,
    pub operations: u64,
    /// Deletes of rows among the operations.
    pub deletes: u64,
    /// Writes of cells among the operations.
    pub cells: u64,
    /// Segments among the operations.
    pub segments: u64,
    /// Bytes of payload.
    pub bytes: u64,
}

impl Load {
    /// Adds what another amounts to.
    pub(crate) fn add(&mut self, more: &Load) {
        self.transactions += more.transactions;
        self.operations += more.operations;
        self.deletes += more.deletes;
        self.cells += more.cells;
        self.segments += more.segments;
        self.bytes += more.bytes;
    }

    /// Operations as they count towards the next checkpoint: a delete of rows is many, since scans look at it until a
    /// checkpoint has applied it. Replaying it takes no longer than another.
    pub(crate) fn weighed_operations(&self) -> u64 {
        self.operations.saturating_add(self.deletes.saturating_mul(DELETE_OPERATIONS - 1))
    }

    /// How long replaying it takes, in nanoseconds, from what one processor of 2020 was measured to need. Rounded
    /// up, as a checkpoint too many costs less than a slow opening.
    fn replay_ns(&self) -> u64 {
        const TRANSACTION_NS: u64 = 1_500;
        const OPERATION_NS: u64 = 700;
        // A cell finds its listeners and its content, too.
        const CELL_NS: u64 = 2_300;
        // A segment is a file that is opened, mapped and checked.
        const SEGMENT_NS: u64 = 50_000;
        const KIB_NS: u64 = 1_000;
        let work = self.transactions.saturating_mul(TRANSACTION_NS);
        let work = work.saturating_add(self.operations.saturating_mul(OPERATION_NS));
        let work = work.saturating_add(self.cells.saturating_mul(CELL_NS));
        let work = work.saturating_add(self.segments.saturating_mul(SEGMENT_NS));
        work.saturating_add((self.bytes / 1024).saturating_mul(KIB_NS))
    }
}

/// What was committed since the last checkpoint.
pub(crate) struct Backlog {
    transactions: AtomicU64,
    operations: AtomicU64,
    deletes: AtomicU64,
    cells: AtomicU64,
    segments: AtomicU64,
    bytes: AtomicU64,
    /// Whether the last checkpoint left segments to merge.
    leaves_merges: AtomicBool,
    /// Bytes that the log had written when the last checkpoint ended.
    log_bytes: AtomicU64,
    /// How much slower than estimated the last replay was, in 1/1024; the machine's own measure.
    slowness: u64,
}

impl Backlog {
    /// A backlog of what an opening replayed in that time.
    pub(crate) fn replayed(load: Load, took: Duration) -> Backlog {
        // A short replay measures nothing.
        const MEASURED_MIN: Duration = Duration::from_millis(50);
        let estimate = load.replay_ns().max(1);
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let measured = took_ns.saturating_mul(1024) / estimate;
        let slowness = if took < MEASURED_MIN { 1024 } else { measured.clamp(256, 16 * 1024) };
        Backlog {
            transactions: AtomicU64::new(load.transactions),
            operations: AtomicU64::new(load.operations),
            deletes: AtomicU64::new(load.deletes),
            cells: AtomicU64::new(load.cells),
            segments: AtomicU64::new(load.segments),
            bytes: AtomicU64::new(load.bytes),
            leaves_merges: AtomicBool::new(false),
            log_bytes: AtomicU64::new(0),
            slowness,
        }
    }

    /// Counts what was committed; answers what there is with it.
    pub(crate) fn add(&self, more: &Load) -> Load {
        let add = |sum: &AtomicU64, more| match more {
            0 => sum.load(Ordering::Relaxed),
            more => sum.fetch_add(more, Ordering::Relaxed) + more,
        };
        Load {
            transactions: add(&self.transactions, more.transactions),
            operations: add(&self.operations, more.operations),
            deletes: add(&self.deletes, more.deletes),
            cells: add(&self.cells, more.cells),
            segments: add(&self.segments, more.segments),
            bytes: add(&self.bytes, more.bytes),
        }
    }

    pub(crate) fn load(&self) -> Load {
        Load {
            transactions: self.transactions.load(Ordering::Relaxed),
            operations: self.operations.load(Ordering::Relaxed),
            deletes: self.deletes.load(Ordering::Relaxed),
            cells: self.cells.load(Ordering::Relaxed),
            segments: self.segments.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    /// A checkpoint holds so much of it.
    pub(crate) fn subtract(&self, load: &Load) {
        self.transactions.fetch_sub(load.transactions, Ordering::Relaxed);
        self.operations.fetch_sub(load.operations, Ordering::Relaxed);
        self.deletes.fetch_sub(load.deletes, Ordering::Relaxed);
        self.cells.fetch_sub(load.cells, Ordering::Relaxed);
        self.segments.fetch_sub(load.segments, Ordering::Relaxed);
        self.bytes.fetch_sub(load.bytes, Ordering::Relaxed);
    }

    /// Whether the last checkpoint left segments to merge.
    pub(crate) fn leaves_merges(&self) -> bool {
        self.leaves_merges.load(Ordering::Relaxed)
    }

    /// A checkpoint left segments to merge, or none.
    pub(crate) fn note_merges(&self, are_left: bool) {
        self.leaves_merges.store(are_left, Ordering::Relaxed);
    }

    /// How long replaying so much would take.
    pub(crate) fn replay(&self, load: &Load) -> Duration {
        Duration::from_nanos(load.replay_ns().saturating_mul(self.slowness) / 1024)
    }

    /// Bytes that the log has written since the last checkpoint ended, where it has written `log_bytes` in all.
    pub(crate) fn log_bytes(&self, log_bytes: u64) -> u64 {
        log_bytes.saturating_sub(self.log_bytes.load(Ordering::Relaxed))
    }

    /// A checkpoint ended.
    pub(crate) fn note_log_bytes(&self, log_bytes: u64) {
        self.log_bytes.store(log_bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_replay_makes_the_estimate_slower() {
        let load = Load { transactions: 100_000, operations: 100_000, ..Load::default() };
        let fresh = Backlog::replayed(load, Duration::ZERO);
        assert_eq!(fresh.replay(&load), Duration::from_millis(220));
        assert_eq!(fresh.load(), load);
        let slow = Backlog::replayed(load, Duration::from_millis(440));
        assert_eq!(slow.replay(&load), Duration::from_millis(440));
        let absurd = Backlog::replayed(Load::default(), Duration::from_secs(9));
        assert_eq!(absurd.replay(&load), Duration::from_millis(220 * 16));
    }

    #[test]
    fn deletes_call_for_a_checkpoint_and_do_not_make_a_replay_seem_quick() {
        let load = Load { transactions: 100_000, operations: 100_000, deletes: 1_000, ..Load::default() };
        assert_eq!(load.weighed_operations(), 99_000 + 1_000_000);
        let replayed = Backlog::replayed(load, Duration::from_millis(220));
        let rows = Load { deletes: 0, ..load };
        assert_eq!(replayed.replay(&rows), Duration::from_millis(220));
    }

    #[test]
    fn cells_take_longer_than_rows() {
        let backlog = Backlog::replayed(Load::default(), Duration::ZERO);
        let rows = Load { transactions: 1, operations: 1_000, ..Load::default() };
        let cells = Load { cells: 1_000, ..rows };
        assert!(backlog.replay(&cells) > 4 * backlog.replay(&rows));
        let segments = Load { segments: 1_000, ..rows };
        assert_eq!(backlog.replay(&segments) - backlog.replay(&rows), Duration::from_millis(50));
    }

    #[test]
    fn what_a_checkpoint_holds_is_taken_off() {
        let backlog = Backlog::replayed(Load::default(), Duration::ZERO);
        let first = Load { transactions: 1, operations: 3, deletes: 1, cells: 2, segments: 3, bytes: 100 };
        let second = Load { transactions: 1, operations: 6, deletes: 2, cells: 4, segments: 1, bytes: 50 };
        backlog.add(&first);
        let captured = backlog.load();
        let both = Load { transactions: 2, operations: 9, deletes: 3, cells: 6, segments: 4, bytes: 150 };
        assert_eq!((captured, backlog.add(&second)), (first, both));
        backlog.subtract(&captured);
        assert_eq!(backlog.load(), second);
        backlog.note_log_bytes(4096);
        assert_eq!((backlog.log_bytes(4096), backlog.log_bytes(8192)), (0, 4096));
    }
}
