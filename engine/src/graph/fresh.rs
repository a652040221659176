//! What has its time: data that grows old, and slots that are to be up to date by a time.
//!
//! The graph has no clock. Whether data is old is a fact that [`super::Event::Tick`] makes, at a time that its commit tells;
//! the times for which a tick is due are derived from facts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hashbrown::HashMap;
use underbelly_storage::Timestamp;

use super::Graph;
use super::candidate::Owner;
use super::effect::Alarm;
use super::event::Deadline;
use super::ids::{BundleId, CellId, ProducerId, SlotDate, SlotId};
use super::key::Key;
use super::pass::Pass;
use super::state::View;

/// Until when candidates of a cell are fresh, by priority.
pub(super) type Fresh = Vec<(i32, Timestamp)>;

/// Candidates that grow old: of each key and priority the one of the newest date. Those of earlier dates are history.
#[derive(Clone, Debug, Default)]
pub(super) struct Ages {
    until: BTreeMap<(CellId, i32), Timestamp>,
    /// Those that are not old yet.
    due: BTreeSet<(Timestamp, CellId, i32)>,
    /// The cell of the newest date.
    newest: HashMap<(SlotId, Key, i32), CellId>,
}

impl Ages {
    /// Until when a candidate is fresh; `None` where it does not grow old.
    pub fn until(&self, cell: CellId, priority: i32) -> Option<Timestamp> {
        if self.until.is_empty() { None } else { self.until.get(&(cell, priority)).copied() }
    }

    /// A candidate is fresh until then; `None` where it does not grow old. `aged`: whether it is old already.
    pub fn set(&mut self, cell: CellId, priority: i32, until: Option<Timestamp>, aged: bool) {
        let before = match until {
            Some(until) => self.until.insert((cell, priority), until),
            None => self.until.remove(&(cell, priority)),
        };
        if let Some(before) = before {
            self.due.remove(&(before, cell, priority));
        }
        self.due.extend(until.filter(|_| !aged).map(|until| (until, cell, priority)));
    }

    /// When the next one is old.
    pub fn next(&self) -> Option<Timestamp> {
        self.due.first().map(|(until, ..)| *until)
    }
}

/// Slots that are to be up to date for a date, by when, and whether that time has passed. One that was met is kept, as
/// passed: it is not asked again.
#[derive(Clone, Debug, Default)]
pub(super) struct Deadlines {
    pub all: BTreeMap<(SlotId, SlotDate), (Timestamp, bool)>,
    due: BTreeSet<Deadline>,
}

impl Deadlines {
    pub fn set(&mut self, deadline: Deadline, passed: bool) {
        let Deadline { due_by, slot, date } = deadline;
        let before = self.all.insert((slot, date), (due_by, passed));
        if let Some((due_by, _)) = before {
            self.due.remove(&Deadline { due_by, slot, date });
        }
        self.due.extend((!passed).then_some(deadline));
    }

    /// When the next one passes.
    pub fn next(&self) -> Option<Timestamp> {
        self.due.first().map(|deadline| deadline.due_by)
    }
}

/// So much later; at the end of time where that is beyond it.
pub(super) fn later(time: Timestamp, by: Duration) -> Timestamp {
    Timestamp(time.0.saturating_add(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)))
}

impl Graph {
    /// A client or a daemon committed a candidate that was made at this time, or took it back.
    pub(super) fn grow_old(&mut self, pass: &mut Pass, cell: CellId, priority: i32, made: Timestamp) {
        let slot = self.cells[cell.at()].slot;
        let Some(fresh_for) = self.slots[slot.at()].definition.fresh_for else { return };
        let sheet = &self.sheets[cell.at()];
        let place = (slot, sheet.key.clone(), priority);
        let is_there = sheet.candidates.iter().any(|c| c.priority == priority && c.content.is_some());
        let before = self.ages.newest.get(&place).copied();
        match before {
            Some(newest) if newest != cell && self.sheets[newest.at()].date > sheet.date => return,
            Some(newest) if newest != cell && is_there => self.stay_fresh(pass, newest, priority),
            _ => {}
        }
        if !is_there {
            return self.stay_fresh(pass, cell, priority);
        }
        self.ages.newest.insert(place, cell);
        let until = later(made, fresh_for);
        let aged = until <= pass.moment.time;
        let candidate = self.sheet_mut(cell).candidates.iter_mut().find(|c| c.priority == priority);
        candidate.into_iter().for_each(|candidate| candidate.aged = aged);
        pass.effects.alarms.extend(aged.then_some(Alarm::Aged(cell)));
        self.ages.set(cell, priority, Some(until), aged);
    }

    /// A candidate does not grow old any more: it is history, or was taken back.
    pub(super) fn stay_fresh(&mut self, pass: &mut Pass, cell: CellId, priority: i32) {
        if self.ages.until(cell, priority).is_none() {
            return;
        }
        let target = self.sheet_mut(cell);
        let candidate = target.candidates.iter_mut().find(|c| c.priority == priority);
        candidate.into_iter().for_each(|candidate| candidate.aged = false);
        let place = (self.cells[cell.at()].slot, self.sheets[cell.at()].key.clone(), priority);
        self.ages.newest.remove(&place);
        self.ages.set(cell, priority, None, false);
        self.touch_cell(pass, cell);
        self.touch_below(pass, cell, priority);
    }

    /// What a daemon that is no more gave does not grow old.
    pub(super) fn stop_growing_old(&mut self, pass: &mut Pass, daemon: ProducerId) {
        let is_of = |(cell, priority): &(CellId, i32)| {
            let mut candidates = self.sheets[cell.at()].candidates.iter();
            candidates.any(|c| c.priority == *priority && c.owner == Owner::Daemon(daemon))
        };
        let own: Vec<(CellId, i32)> = self.ages.until.keys().copied().filter(is_of).collect();
        own.into_iter().for_each(|(cell, priority)| self.stay_fresh(pass, cell, priority));
    }

    /// Takes in that a stored candidate is fresh until then. False where another of its key is too.
    pub(super) fn restore_age(
        &mut self,
        cell: CellId,
        slot: SlotId,
        key: &Key,
        age: (i32, Timestamp, bool),
    ) -> bool {
        let (priority, until, aged) = age;
        self.ages.set(cell, priority, Some(until), aged);
        self.ages.newest.insert((slot, key.clone(), priority), cell).is_none()
    }

    /// Makes old what is, the oldest first, and `most` at most.
    pub(super) fn age(&mut self, pass: &mut Pass, most: usize) {
        let due = self.ages.due.range(..=(pass.moment.time, CellId(u32::MAX), i32::MAX));
        for (until, cell, priority) in due.take(most).copied().collect::<Vec<_>>() {
            let target = self.sheet_mut(cell);
            let candidate = target.candidates.iter_mut().find(|c| c.priority == priority);
            candidate.into_iter().for_each(|candidate| candidate.aged = true);
            self.ages.due.remove(&(until, cell, priority));
            pass.effects.alarms.push(Alarm::Aged(cell));
            self.touch_cell(pass, cell);
            self.touch_below(pass, cell, priority);
        }
    }

    /// Until when a bundle waits for the end of its date; `None` for ever.
    pub(super) fn cutoff_of(&self, id: BundleId) -> Option<Timestamp> {
        let bundle = &self.bundles[id.at()];
        let producer = &self.producers[bundle.producer.at()];
        let cutoff = producer.definition.proxy.cutoff.filter(|_| producer.awaits_all())?;
        Some(later(bundle.date.begins(), cutoff))
    }

    /// Lets bundles wait no more for the end of their date, and `most` at most.
    pub(super) fn cut(&mut self, pass: &mut Pass, most: usize) {
        let due = self.cutoffs.range(..=(pass.moment.time, BundleId(u32::MAX)));
        for (at, id) in due.take(most).copied().collect::<Vec<_>>() {
            self.cutoffs.remove(&(at, id));
            self.bundle_mut(id).is_cut = true;
            self.touch_bundle(pass, id);
        }
    }

    /// Has a slot be up to date for a date by a time.
    pub(super) fn expect_by(&mut self, deadline: Deadline) {
        self.index_on(deadline.slot, Vec::new());
        self.note_deadline(deadline.slot, deadline.date);
        self.deadlines.set(deadline, false);
    }

    /// Lets deadlines pass, the earliest first, and `most` at most.
    pub(super) fn pass_deadlines(&mut self, pass: &mut Pass, most: usize) {
        let due = self.deadlines.due.iter().take_while(|deadline| deadline.due_by <= pass.moment.time);
        for deadline in due.take(most).copied().collect::<Vec<_>>() {
            self.note_deadline(deadline.slot, deadline.date);
            self.deadlines.set(deadline, true);
            if !self.is_up_to_date(deadline.slot, deadline.date) {
                pass.effects.alarms.push(Alarm::Overdue(deadline));
            }
        }
    }

    /// Whether a slot has cells for a date, and each of them is settled and sound.
    fn is_up_to_date(&self, slot: SlotId, date: SlotDate) -> bool {
        let Some(found) = self.slots.get(slot.at()) else { return false };
        let index = found.indexes.iter().find(|index| index.positions.is_empty());
        let cells = index.and_then(|index| index.buckets.get(&(date, Key::empty())));
        let mut made = cells.into_iter().flatten().filter(|cell| self.is_made(**cell)).peekable();
        made.peek().is_some() && made.all(|cell| self.view(*cell) == Some(View::Usable))
    }

    /// What somebody is to look at, as it is now: old cells by age, then deadlines that are not met, then lost sessions. Takes
    /// time in proportion to what grows old and to all deadlines.
    pub fn alarms(&self) -> impl Iterator<Item = (Alarm, Timestamp)> + '_ {
        let is_aged = |cell: CellId, priority: i32| {
            let candidates = self.sheets.get(cell.at()).map_or(&[][..], |sheet| &*sheet.candidates);
            candidates.iter().any(|candidate| candidate.priority == priority && candidate.aged)
        };
        let mut aged: Vec<(Timestamp, CellId)> = (self.ages.until.iter())
            .filter(|((cell, priority), _)| is_aged(*cell, *priority))
            .map(|((cell, _), until)| (*until, *cell))
            .collect();
        aged.sort_unstable();
        let passed = self.deadlines.all.iter().filter(|(_, (_, passed))| *passed);
        let overdue = passed.filter(|((slot, date), _)| !self.is_up_to_date(*slot, *date)).map(
            |((slot, date), (due_by, _))| {
                (Alarm::Overdue(Deadline { due_by: *due_by, slot: *slot, date: *date }), *due_by)
            },
        );
        let aged = aged.into_iter().map(|(until, cell)| (Alarm::Aged(cell), until));
        aged.chain(overdue).chain(self.lost())
    }
}
