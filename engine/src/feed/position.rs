//! A place in the feed, from which it is read page by page.

use std::sync::Arc;

use underbelly_query::{QueryError, Run};
use underbelly_storage::{Column, Values};

use crate::error::ReadError;
use crate::graph::Transition;
use crate::listing::Alarm;
use crate::view::Base;

use super::page::{Entry, Page};
use super::recent::PAGE_COLUMN;
use super::watch::Watched;
use super::{CHANGES_SERIES, Committed, FeedError, StateChange};

/// Changes of state that are named under one hold of the state's lock.
const NAMED_AT_ONCE: usize = 1_024;

/// A place in the feed.
pub(super) struct Position {
    /// The transaction that is looked at next.
    pub next: u64,
    watched: Watched,
    /// The page that holds it, where it was read.
    page: Option<Page>,
    /// Closed pages that were read along with the last one.
    group: Option<Group>,
}

/// Closed pages of a group of rows.
struct Group {
    seqs: Vec<u64>,
    pages: Column,
}

impl Group {
    /// The page with the first transaction from `seq` on that one of them holds.
    fn page(&self, seq: u64) -> Result<Option<Page>, FeedError> {
        let row = self.seqs.partition_point(|last| *last < seq);
        let Some(last) = self.seqs.get(row) else { return Ok(None) };
        let bytes = match self.pages.values() {
            Values::Bytes(pages) => pages.get(row).to_vec(),
            _ => Vec::new(),
        };
        Page::stored(*last, bytes).map(Some).map_err(|damage| damaged(*last, damage.0))
    }
}

pub(super) fn damaged(seq: u64, what: impl Into<String>) -> FeedError {
    FeedError::Damaged { seq, what: what.into() }
}

pub(super) fn read(error: QueryError) -> FeedError {
    FeedError::Read(ReadError::from(error))
}

/// The group that holds the closed page with the first kept transaction from `seq` on. `None` where none is closed.
fn find(runs: &[Arc<dyn Run>], seq: u64) -> Result<Option<Group>, FeedError> {
    let groups = runs.iter().flat_map(|run| (0..run.groups()).map(move |group| (run, group)));
    let mut groups: Vec<_> = groups
        .map(|(run, group)| (run.zone(group), run, group))
        .filter(|(zone, ..)| zone.seq_max >= seq)
        .collect();
    groups.sort_by_key(|(zone, ..)| zone.seq_min);
    // The last transaction of its page, its place in `groups`, and the last ones of all pages of the group.
    let mut best: Option<(u64, usize, Vec<u64>)> = None;
    for (at, (zone, run, group)) in groups.iter().enumerate() {
        if best.as_ref().is_some_and(|(last, ..)| *last < zone.seq_min) {
            break;
        }
        let found = run.seqs(*group).map_err(read)?;
        let seqs: Vec<u64> = (0..zone.rows).map(|row| found.get(row)).collect();
        let Some(last) = seqs.iter().copied().find(|last| *last >= seq) else { continue };
        if best.as_ref().is_none_or(|(before, ..)| last < *before) {
            best = Some((last, at, seqs));
        }
    }
    let Some((last, at, seqs)) = best else { return Ok(None) };
    let Some((_, run, group)) = groups.get(at) else { return Ok(None) };
    let pages = run.column(*group, PAGE_COLUMN).map_err(read)?;
    let pages = pages.ok_or_else(|| damaged(last, "its pages are missing"))?.into_owned();
    Ok(Some(Group { seqs, pages }))
}

impl Position {
    pub(super) fn new(next: u64, watched: Watched) -> Position {
        Position { next, watched, page: None, group: None }
    }

    /// Goes on with another transaction.
    pub(super) fn go_to(&mut self, next: u64) {
        *self = Position::new(next, self.watched.clone());
    }

    /// The next transaction up to `until` that is watched for; others are passed over. `until` is
    /// at most what may be told.
    pub(super) fn next(&mut self, base: &Base, until: u64) -> Result<Option<Committed>, FeedError> {
        while self.next <= until {
            if self.page.as_ref().is_none_or(|page| page.next > page.last) {
                self.page = Some(self.page_at(base)?);
            }
            let (watched, Some(page)) = (&self.watched, &mut self.page) else { continue };
            let wants = |transition: &Transition| watched.may_pass(transition);
            // A page may begin before the place.
            let entry = page.entry(until, |transition| wants(transition));
            let Some(entry) = entry.map_err(|damage| damaged(page.next, damage.0))? else { continue };
            if entry.seq < self.next {
                continue;
            }
            let committed = self.named(base, entry)?;
            self.next = committed.seq + 1;
            let is_told = !committed.states.is_empty() || !committed.alarms.is_empty();
            if !self.watched.is_narrow || is_told {
                return Ok(Some(committed));
            }
        }
        Ok(None)
    }

    /// The page that holds the next transaction, which was committed.
    fn page_at(&mut self, base: &Base) -> Result<Page, FeedError> {
        let seq = self.next;
        let holds = |page: &Page| page.next <= seq;
        let cached = self.group.as_ref().map(|group| group.page(seq)).transpose()?.flatten();
        if let Some(page) = cached.filter(holds) {
            return Ok(page);
        }
        self.group = None;
        let (runs, first) = {
            let mut state = base.state();
            if let Some(page) = state.recent.page_from(seq) {
                return Ok(page);
            }
            let first = state.recent.first().unwrap_or(state.head + 1);
            let runs = state.tables.get_mut(CHANGES_SERIES).map(|table| table.runs());
            (runs.unwrap_or_default(), first)
        };
        let Some(group) = find(&runs, seq)? else {
            return Err(FeedError::TooOld { asked: seq, oldest: first });
        };
        let found = group.page(seq)?.ok_or_else(|| damaged(seq, "its page is missing"))?;
        self.group = Some(group);
        if holds(&found) {
            return Ok(found);
        }
        Err(FeedError::TooOld { asked: seq, oldest: found.next })
    }

    /// The oldest transaction that is kept; the next one to come where none is.
    pub(super) fn oldest(base: &Base) -> Result<u64, FeedError> {
        let (runs, first) = {
            let mut state = base.state();
            let first = state.recent.first().unwrap_or(state.head + 1);
            let runs = state.tables.get_mut(CHANGES_SERIES).map(|table| table.runs());
            (runs.unwrap_or_default(), first)
        };
        let found = find(&runs, 0)?.map(|group| group.page(0)).transpose()?.flatten();
        Ok(found.map_or(first, |page| page.next))
    }

    /// An entry with the names of its cells, as far as they are watched for.
    fn named(&self, base: &Base, entry: Entry) -> Result<Committed, FeedError> {
        let Entry { seq, time, transitions, alarms } = entry;
        let mut states = Vec::with_capacity(transitions.len());
        for part in transitions.chunks(NAMED_AT_ONCE) {
            let state = base.state();
            let mut slot: Option<(crate::graph::SlotId, Arc<str>)> = None;
            for Transition { cell, from, to, g } in part {
                let Some((id, date, key)) = state.graph.address(*cell) else {
                    return Err(damaged(seq, format!("there is no cell {cell}")));
                };
                if !self.watched.passes_at(id, date) {
                    continue;
                }
                let name = match &slot {
                    Some((known, name)) if *known == id => name.clone(),
                    _ => state.graph.slot(id).map_or_else(|| "".into(), |slot| slot.name.as_str().into()),
                };
                slot = Some((id, name.clone()));
                let (key, sid, generation) = (key.clone(), *cell, *g);
                states.push(StateChange { slot: name, date, key, sid, from: *from, to: *to, generation });
            }
        }
        let alarms = match alarms.is_empty() {
            true => Vec::new(),
            false => {
                let state = base.state();
                alarms.into_iter().filter_map(|alarm| Alarm::named(&state.graph, alarm, time)).collect()
            }
        };
        Ok(Committed { seq, time, states, alarms, skipped: 0 })
    }
}
