//! Which transaction was the last at an instant.

use underbelly_storage::{Timestamp, Values};

use super::page::Page;
use super::position::{damaged, read};
use super::recent::PAGE_COLUMN;
use super::{CHANGES_SERIES, FeedError};
use crate::view::Base;

/// The last transaction whose commit time is `at` or earlier, 0 where none is; or, where commit times of then are not kept,
/// the oldest that is, and its transaction.
pub(crate) fn seq_at(base: &Base, at: Timestamp) -> Result<Result<u64, (Timestamp, u64)>, FeedError> {
    let (runs, recent) = {
        let mut state = base.state();
        if let Some(seq) = state.recent.seq_at(at) {
            return Ok(Ok(seq));
        }
        let runs = state.tables.get_mut(CHANGES_SERIES).map(|table| table.runs()).unwrap_or_default();
        (runs, state.recent.first_with_time())
    };
    // The first page that ends at the instant or later: its time, run, group and row. And whether there is one before.
    let mut found: Option<(i64, usize, usize, usize)> = None;
    let mut has_older = false;
    for (i, run) in runs.iter().enumerate() {
        for group in 0..run.groups() {
            let zone = run.zone(group);
            has_older |= zone.ts_min < at.0;
            if zone.ts_max < at.0 || found.is_some_and(|(ts, ..)| ts < zone.ts_min) {
                continue;
            }
            let times = run.timestamps(group).map_err(read)?;
            let row = times.partition_point(|ts| *ts < at.0);
            if let Some(ts) = times.get(row).filter(|ts| found.is_none_or(|(before, ..)| **ts < before)) {
                found = Some((*ts, i, group, row));
            }
        }
    }
    let Some((_, run, group, row)) = found else {
        // Behind all closed pages, and before the one that grows.
        return Ok(match recent {
            Some((first, time)) if !has_older && first > 1 => Err((time, first)),
            Some((first, _)) => Ok(first - 1),
            None => Ok(base.state().head),
        });
    };
    let Some(run) = runs.get(run) else { return Ok(Ok(0)) };
    let last = run.seqs(group).map_err(read)?.get(row);
    let pages = run.column(group, PAGE_COLUMN).map_err(read)?;
    let pages = pages.ok_or_else(|| damaged(last, "its pages are missing"))?;
    let bytes = match pages.values() {
        Values::Bytes(pages) => pages.get(row).to_vec(),
        _ => Vec::new(),
    };
    let mut page = Page::stored(last, bytes).map_err(|damage| damaged(last, damage.0))?;
    let first = page.next;
    let mut seq = None;
    while let Some(entry) = page.entry(last, |_| false).map_err(|damage| damaged(last, damage.0))? {
        if entry.time > at {
            if seq.is_none() && !has_older && first > 1 {
                return Ok(Err((entry.time, first)));
            }
            break;
        }
        seq = Some(entry.seq);
    }
    Ok(Ok(seq.unwrap_or(first - 1)))
}
