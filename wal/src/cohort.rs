//! Callers who wait for the same batch.

use std::sync::OnceLock;

/// Callers who wait for the same batch. The first of them who finds a leader at work is the heir: it is told to lead
/// the batch when the one before is over. The others sleep until the batch is over, and wake without a lock.
#[derive(Default)]
pub(crate) struct Cohort {
    /// What the heir is told: to lead, or that somebody else did.
    inheritance: OnceLock<bool>,
    over: OnceLock<()>,
}

impl Cohort {
    /// Blocks until the batch is over.
    pub fn wait(&self) {
        self.over.wait();
    }

    /// Blocks the heir until it is to lead (`true`) or the batch is over (`false`).
    pub fn inherit(&self) -> bool {
        *self.inheritance.wait()
    }

    /// Tells the heir to lead.
    pub fn lead(&self) {
        let _ = self.inheritance.set(true);
    }

    /// Wakes everyone.
    pub fn over(&self) {
        let _ = self.inheritance.set(false);
        let _ = self.over.set(());
    }
}
