//! The page that still grows, and what is kept behind it.

use std::time::Duration;

use underbelly_query::{Run, Tombstone};
use underbelly_storage::{Column, ColumnType, Timestamp, Value};

use crate::graph::{Alarm, Transition};
use crate::limits::{PAGE_BYTES_MAX, PAGE_TRANSACTIONS_MAX};
use crate::series::{Few, Table, Tables};

use super::CHANGES_SERIES;
use super::page::{Page, head, put_entry};

/// The column of [`CHANGES_SERIES`] that holds the pages.
pub(super) const PAGE_COLUMN: &str = "page";

/// The newest transactions, in the page that still grows.
#[derive(Default)]
pub(crate) struct Recent {
    first: u64,
    bytes: Vec<u8>,
    /// The commit time of each transaction, and where its entry ends.
    entries: Vec<(Timestamp, usize)>,
}

impl Recent {
    /// Adds a transaction. The page has room for it: it was closed where it [had none](Recent::is_full).
    pub(crate) fn push(&mut self, seq: u64, time: Timestamp, transitions: &[Transition], alarms: &[Alarm]) {
        let before = self.entries.last().map_or(time, |(before, _)| *before);
        if self.entries.is_empty() {
            self.first = seq;
        }
        // Commit times rise.
        put_entry(&mut self.bytes, time.0.abs_diff(before.0), transitions, alarms);
        self.entries.push((time, self.bytes.len()));
    }

    /// Whether the page is to be closed before another transaction comes.
    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() >= PAGE_TRANSACTIONS_MAX || self.bytes.len() >= PAGE_BYTES_MAX
    }

    /// The first transaction of the page; `None` where it is empty.
    pub(super) fn first(&self) -> Option<u64> {
        (!self.entries.is_empty()).then_some(self.first)
    }

    /// The same with its commit time.
    pub(super) fn first_with_time(&self) -> Option<(u64, Timestamp)> {
        self.entries.first().map(|(time, _)| (self.first, *time))
    }

    /// The last transaction whose commit time is `at` or earlier, where it is in the page.
    pub(super) fn seq_at(&self, at: Timestamp) -> Option<u64> {
        let count = self.entries.partition_point(|(time, _)| *time <= at) as u64;
        (count > 0).then(|| self.first + count - 1)
    }

    /// Makes the page a row of its series, where it holds anything. `capture` is the number of the capture that goes on.
    pub(crate) fn close(&mut self, tables: &mut Tables, capture: u64) {
        let (Some((first_time, _)), Some((last_time, _))) = (self.entries.first(), self.entries.last())
        else {
            return;
        };
        let last = self.first + self.entries.len() as u64 - 1;
        let mut page = head(self.first, *first_time).to_vec();
        page.append(&mut self.bytes);
        let timestamps = vec![last_time.0];
        self.entries.clear();
        let mut column = Column::new(ColumnType::Bytes);
        let pushed = column.push(&Value::Bytes(page.into()));
        debug_assert!(pushed.is_ok(), "a page is far smaller than a column may be");
        let mut few = Few { timestamps, columns: vec![(PAGE_COLUMN.into(), column)], keys: 0 };
        let table = tables.entry(CHANGES_SERIES.into()).or_insert_with(|| Table::made_at(last));
        table.note(capture);
        table.adopt(last, [(PAGE_COLUMN, ColumnType::Bytes, false)].into_iter());
        table.push_few(last, &mut few);
    }

    /// The transactions from `seq` on, where they are in the page.
    pub(super) fn page_from(&self, seq: u64) -> Option<Page> {
        let at = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        let (time, start) = match at.checked_sub(1) {
            None => (self.entries.first()?.0, 0),
            Some(before) => *self.entries.get(before)?,
        };
        self.entries.get(at)?;
        let last = self.first + self.entries.len() as u64 - 1;
        Some(Page::new(seq, last, time, self.bytes.get(start..)?.to_vec()))
    }
}

/// Hides the pages of the oldest segments: those that end before what is kept at `now`, and those beyond `bytes`. Only
/// whole segments go, so that none is written anew for this; the checkpoint that captures it leaves them out. It is no
/// transaction: what is hidden, and not yet left out, is read all the same.
pub(crate) fn expire(tables: &mut Tables, seq: u64, now: Timestamp, kept: Duration, bytes: u64) {
    let Some(table) = tables.get_mut(CHANGES_SERIES).filter(|table| table.tombstones().is_empty()) else {
        return;
    };
    let since = now.0.saturating_sub(i64::try_from(kept.as_nanos()).unwrap_or(i64::MAX));
    let mut segments: Vec<(i64, u64)> = Vec::new();
    for run in table.sealed() {
        let last = (0..run.groups()).map(|group| run.zone(group).ts_max).max();
        segments.push((last.unwrap_or(i64::MIN), run.reference().bytes));
    }
    segments.sort_unstable();
    let mut stored: u64 = segments.iter().map(|(_, bytes)| bytes).sum();
    let mut until = None;
    for (last, length) in segments {
        if last >= since && stored <= bytes {
            break;
        }
        until = Some(last);
        stored -= length;
    }
    if let Some(until) = until {
        table.delete(seq, Tombstone::restored(0, Timestamp::MIN, Timestamp(until), Vec::new()));
    }
}
