//! What is queued for the next batch, and what was not published yet.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::cohort::Cohort;
use crate::error::WalError;

/// Records up to this length share one buffer; a longer one is moved, not copied, in bytes.
const SHARED_MAX: usize = 16 << 10;

/// Capacity of emptied buffers that is kept, in bytes.
const KEPT_MAX: usize = 4 << 20;

/// Guarded by the queue's lock.
pub(crate) struct Queue<T> {
    pub records: Records,
    /// Items of records that were not published, with their seqs.
    pub unpublished: VecDeque<(u64, T)>,
    pub next_seq: u64,
    /// Everything up to here was published.
    pub visible: u64,
    /// The first queued record that must be durable before it is published.
    pub held: Option<u64>,
    /// Bytes that are claimed for what is queued.
    pub claimed: u64,
    /// Whether a writer was asked to come for published records that are queued.
    pub urged: Urge,
    /// Whether somebody leads or was told to.
    pub leading: bool,
    /// Whether somebody prepares a spare for admission.
    pub preparing: bool,
    pub failed: Option<Failed>,
    /// Those who wait for what is queued.
    pub cohort: Arc<Cohort>,
    pub has_heir: bool,
    /// The batch that is being written.
    pub in_flight: Option<InFlight>,
    /// For each of the last two batches: callers in it and callers who waited at its end.
    pub committers: [usize; 2],
    /// Moving average of the time that a batch takes to become durable.
    pub sync_time: Duration,
    pub stalls: Stalls,
}

/// A batch that is being written or published.
pub(crate) struct InFlight {
    pub last: u64,
    pub cohort: Arc<Cohort>,
    /// The first record in it that must be durable before it is published; `None` once the batch is durable.
    pub held: Option<u64>,
}

/// Why writing ended.
#[derive(Clone)]
pub(crate) struct Failed {
    pub cause: String,
    /// What was published and may not be durable: after the first, up to the second.
    pub visible: (u64, u64),
}

/// How soon somebody should write what is queued and published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Urge {
    /// Somebody was asked, or nothing needs to be written for its own sake.
    #[default]
    None,
    /// Within the time that the owner allows.
    Soon,
    /// Now: so much is queued that a batch is worth its sync.
    Now,
}

/// How often and how long callers waited for one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// Callers that waited.
    pub count: u64,
    /// Their waiting times in sum.
    pub time: Duration,
}

/// Waiting before a record is admitted, by reason, since the log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stalls {
    /// The queue was full: the disk takes less than is committed.
    pub queue_full: Stall,
    /// A log file was being prepared: recycling and preparing fell behind.
    pub log_space: Stall,
}

/// Queued records in order.
#[derive(Default)]
pub(crate) struct Records {
    /// Short records one behind the other.
    shared: Vec<u8>,
    places: Vec<Place>,
}

enum Place {
    Shared(usize),
    Own(Vec<u8>),
}

impl Records {
    pub fn push(&mut self, record: Vec<u8>) {
        if record.len() <= SHARED_MAX {
            self.shared.extend_from_slice(&record);
            self.places.push(Place::Shared(record.len()));
        } else {
            self.places.push(Place::Own(record));
        }
    }

    /// The records, the first of which has seq `first`.
    pub fn numbered(&self, first: u64) -> Vec<(u64, &[u8])> {
        let mut shared = self.shared.as_slice();
        let places = (first..).zip(&self.places);
        let slices = places.map(|(seq, place)| match place {
            Place::Shared(len) => {
                let (record, rest) = shared.split_at_checked(*len).unwrap_or_default();
                shared = rest;
                (seq, record)
            }
            Place::Own(record) => (seq, record.as_slice()),
        });
        slices.collect()
    }

    /// Drops the records and keeps the buffers.
    pub fn emptied(mut self) -> Records {
        self.places.clear();
        self.shared.clear();
        if self.shared.capacity() > KEPT_MAX {
            self.shared = Vec::new();
        }
        self
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

impl<T> Queue<T> {
    /// The last seq that may be published: everything before the first record that has to be durable and is not.
    pub fn publishable(&self) -> u64 {
        let in_flight = self.in_flight.as_ref().and_then(|batch| batch.held);
        in_flight.or(self.held).map_or(self.next_seq, |held| held) - 1
    }

    /// Takes the items of records up to `seq`.
    pub fn items_up_to(&mut self, seq: u64) -> Vec<(u64, T)> {
        let count = self.unpublished.partition_point(|(of, _)| *of <= seq);
        self.unpublished.drain(..count).collect()
    }

    pub fn check(&self) -> Result<(), WalError> {
        match &self.failed {
            Some(failed) => Err(WalError::Poisoned { cause: failed.cause.clone() }),
            None => Ok(()),
        }
    }

    /// What to tell somebody who waits for `seq`.
    pub fn check_seq(&self, seq: u64) -> Result<(), WalError> {
        match &self.failed {
            Some(Failed { cause, visible: (durable, last) }) if (durable + 1..=*last).contains(&seq) => {
                Err(WalError::NotDurable { first: durable + 1, last: *last, cause: cause.clone() })
            }
            _ => self.check(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_records_keep_their_order() {
        let lengths = [3, SHARED_MAX, SHARED_MAX + 1, 0, 7];
        let mut records = Records::default();
        for _ in 0..2 {
            lengths.iter().enumerate().for_each(|(i, len)| records.push(vec![i as u8; *len]));
            let numbered = records.numbered(10);
            let expected: Vec<_> =
                lengths.iter().enumerate().map(|(i, len)| (10 + i as u64, vec![i as u8; *len])).collect();
            let found: Vec<_> = numbered.iter().map(|(seq, record)| (*seq, record.to_vec())).collect();
            assert_eq!(found, expected);
            records = records.emptied();
        }
    }
}
