//! What has its time: data that grows old, dates that end, and slots that are to be up to date by a time.
//!
//! The graph has no clock. Whether data is old is a fact that [`super::Event::Tick`] makes, at a time that its commit tells;
//! the times for which a tick is due are derived from facts. A tick does what comes first: data that grows old behind a
//! deadline is old in the next one.

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

/// The candidates of one key and priority, of all dates.
type Place = (SlotId, Key, i32);

/// What clients and daemons gave to slots in which that grows old. Of each key and priority the newest date does; those of
/// earlier dates are history.
#[derive(Clone, Debug, Default)]
pub(super) struct Ages {
    until: BTreeMap<(CellId, i32), Timestamp>,
    dates: HashMap<Place, BTreeMap<SlotDate, CellId>>,
    /// Those of the newest dates that are not old yet.
    due: BTreeSet<(Timestamp, CellId, i32)>,
}

impl Ages {
    /// Until when a candidate is fresh; `None` where it does not grow old.
    pub fn until(&self, cell: CellId, priority: i32) -> Option<Timestamp> {
        if self.until.is_empty() { None } else { self.until.get(&(cell, priority)).copied() }
    }

    /// When the next one is old.
    pub fn next(&self) -> Option<Timestamp> {
        self.due.first().map(|(until, ..)| *until)
    }

    fn newest(&self, place: &Place) -> Option<CellId> {
        self.dates.get(place)?.last_key_value().map(|(_, cell)| *cell)
    }

    fn insert(&mut self, place: Place, date: SlotDate, cell: CellId, until: Timestamp) {
        let priority = place.2;
        if let Some(before) = self.until.insert((cell, priority), until) {
            self.due.remove(&(before, cell, priority));
        }
        self.dates.entry(place).or_default().insert(date, cell);
    }

    fn remove(&mut self, place: &Place, date: SlotDate, cell: CellId) {
        if let Some(until) = self.until.remove(&(cell, place.2)) {
            self.due.remove(&(until, cell, place.2));
        }
        if let Some(dates) = self.dates.get_mut(place) {
            dates.remove(&date);
            if dates.is_empty() {
                self.dates.remove(place);
            }
        }
    }
}

/// Slots that are to be up to date for a date, and by when. Those that were met are forgotten.
#[derive(Clone, Debug, Default)]
pub(super) struct Deadlines {
    /// By when, and whether that has passed and it was not met.
    pub all: BTreeMap<(SlotId, SlotDate), (Timestamp, bool)>,
    due: BTreeSet<Deadline>,
    missed: BTreeSet<Deadline>,
}

impl Deadlines {
    pub fn set(&mut self, deadline: Deadline, missed: bool) {
        let Deadline { due_by, slot, date } = deadline;
        self.remove(slot, date);
        self.all.insert((slot, date), (due_by, missed));
        if missed {
            self.missed.insert(deadline)
        } else {
            self.due.insert(deadline)
        };
    }

    fn remove(&mut self, slot: SlotId, date: SlotDate) {
        if let Some((due_by, _)) = self.all.remove(&(slot, date)) {
            let deadline = Deadline { due_by, slot, date };
            self.due.remove(&deadline);
            self.missed.remove(&deadline);
        }
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
    fn place_of_age(&self, cell: CellId, priority: i32) -> Place {
        (self.cells[cell.at()].slot, self.sheets[cell.at()].key.clone(), priority)
    }

    /// Candidates were committed that were made at this time, or taken back, each as it is now: which is of the newest date of its
    /// key is looked at once all are there, and those that went come last.
    pub(super) fn grow_all_old(&mut self, pass: &mut Pass, candidates: &[(CellId, i32)], made: Timestamp) {
        for is_there in [true, false] {
            for (cell, priority) in candidates {
                let mut held = self.sheets[cell.at()].candidates.iter();
                if held.any(|c| c.priority == *priority && c.content.is_some()) == is_there {
                    self.grow_old(pass, *cell, *priority, made);
                }
            }
        }
    }

    fn grow_old(&mut self, pass: &mut Pass, cell: CellId, priority: i32, made: Timestamp) {
        let slot = self.cells[cell.at()].slot;
        let Some(fresh_for) = self.slots[slot.at()].definition.fresh_for else { return };
        let candidates = &self.sheets[cell.at()].candidates;
        if !candidates.iter().any(|c| c.priority == priority && c.content.is_some()) {
            return self.stay_fresh(pass, cell, priority);
        }
        let place = self.place_of_age(cell, priority);
        let before = self.ages.newest(&place);
        self.note_cell(cell);
        self.ages.insert(place.clone(), self.sheets[cell.at()].date, cell, later(made, fresh_for));
        let newest = self.ages.newest(&place);
        if let Some(before) = before.filter(|before| Some(*before) != newest) {
            self.become_history(pass, before, priority);
        }
        if newest == Some(cell) {
            self.become_newest(pass, cell, priority);
        }
    }

    /// A candidate is of the newest date of its key now: it is old, or will be.
    fn become_newest(&mut self, pass: &mut Pass, cell: CellId, priority: i32) {
        let Some(until) = self.ages.until(cell, priority) else { return };
        let aged = until <= pass.moment.time;
        if !aged {
            self.ages.due.insert((until, cell, priority));
        }
        self.set_aged(pass, cell, priority, aged);
    }

    /// A candidate is not of the newest date of its key any more.
    fn become_history(&mut self, pass: &mut Pass, cell: CellId, priority: i32) {
        if let Some(until) = self.ages.until(cell, priority) {
            self.ages.due.remove(&(until, cell, priority));
        }
        self.set_aged(pass, cell, priority, false);
    }

    fn set_aged(&mut self, pass: &mut Pass, cell: CellId, priority: i32, aged: bool) {
        let target = self.sheet_mut(cell);
        let is_effective = target.effective.is_none_or(|effective| effective == priority);
        let Some(candidate) = target.candidates.iter_mut().find(|c| c.priority == priority) else { return };
        let turns = std::mem::replace(&mut candidate.aged, aged) != aged;
        if turns {
            pass.effects.alarms.extend((aged && is_effective).then_some(Alarm::Aged(cell)));
            self.touch_cell(pass, cell);
            self.touch_below(pass, cell, priority);
        }
    }

    /// A candidate does not grow old any more: it was taken back, or its daemon is no more. The one of the date before is the
    /// newest then.
    pub(super) fn stay_fresh(&mut self, pass: &mut Pass, cell: CellId, priority: i32) {
        if self.ages.until(cell, priority).is_none() {
            return;
        }
        let place = self.place_of_age(cell, priority);
        self.set_aged(pass, cell, priority, false);
        let was_newest = self.ages.newest(&place) == Some(cell);
        self.ages.remove(&place, self.sheets[cell.at()].date, cell);
        // What was the newest all along grows old with a tick.
        if let Some(newest) = self.ages.newest(&place).filter(|_| was_newest) {
            self.become_newest(pass, newest, priority);
        }
    }

    /// What a daemon that is no more gave does not grow old. Takes time in proportion to what grows old.
    pub(super) fn stop_growing_old(&mut self, pass: &mut Pass, daemon: ProducerId) {
        let is_of = |(cell, priority): &(CellId, i32)| {
            let mut candidates = self.sheets[cell.at()].candidates.iter();
            candidates.any(|c| c.priority == *priority && c.owner == Owner::Daemon(daemon))
        };
        let own: Vec<(CellId, i32)> = self.ages.until.keys().copied().filter(is_of).collect();
        own.into_iter().for_each(|(cell, priority)| self.stay_fresh(pass, cell, priority));
    }

    /// Takes in that a stored candidate is fresh until then.
    pub(super) fn restore_age(
        &mut self,
        cell: CellId,
        slot: SlotId,
        key: &Key,
        date: SlotDate,
        age: (i32, Timestamp),
    ) {
        self.ages.insert((slot, key.clone(), age.0), date, cell, age.1);
    }

    /// Finds what is due of what was taken in; a cell that is old against its date.
    pub(super) fn restore_due(&mut self) -> Option<CellId> {
        let newest: BTreeSet<(CellId, i32)> = (self.ages.dates.iter())
            .filter_map(|(place, dates)| Some((*dates.last_key_value()?.1, place.2)))
            .collect();
        for ((cell, priority), until) in &self.ages.until {
            let is_newest = newest.contains(&(*cell, *priority));
            let mut candidates = self.sheets[cell.at()].candidates.iter();
            match candidates.find(|c| c.priority == *priority).is_some_and(|c| c.aged) {
                true if !is_newest => return Some(*cell),
                false if is_newest => drop(self.ages.due.insert((*until, *cell, *priority))),
                _ => {}
            }
        }
        None
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

    /// Makes old what is before the next deadline, the oldest first, and `most` at most.
    pub(super) fn age(&mut self, pass: &mut Pass, most: usize) {
        let deadline = self.deadlines.next();
        let due = self.ages.due.range(..=(pass.moment.time, CellId(u32::MAX), i32::MAX));
        let due = due.take_while(|(until, ..)| deadline.is_none_or(|deadline| *until < deadline));
        for (until, cell, priority) in due.take(most).copied().collect::<Vec<_>>() {
            self.ages.due.remove(&(until, cell, priority));
            self.set_aged(pass, cell, priority, true);
        }
    }

    /// Has a slot be up to date for a date by a time. The time that is known already changes nothing.
    pub(super) fn expect_by(&mut self, deadline: Deadline) {
        let Deadline { due_by, slot, date } = deadline;
        if self.deadlines.all.get(&(slot, date)).is_some_and(|(known, _)| *known == due_by) {
            return;
        }
        self.index_on(slot, Vec::new());
        self.note_deadline(slot, date);
        self.deadlines.set(deadline, false);
    }

    /// Lets deadlines pass that nothing grows old before, the earliest first, and `most` at most.
    pub(super) fn pass_deadlines(&mut self, pass: &mut Pass, most: usize) {
        let old = self.ages.next();
        let due = self.deadlines.due.iter().take_while(|deadline| deadline.due_by <= pass.moment.time);
        let due = due.take_while(|deadline| old.is_none_or(|old| deadline.due_by <= old));
        for deadline in due.take(most).copied().collect::<Vec<_>>() {
            self.note_deadline(deadline.slot, deadline.date);
            if self.is_up_to_date(deadline.slot, deadline.date) {
                self.deadlines.remove(deadline.slot, deadline.date);
            } else {
                self.deadlines.set(deadline, true);
                pass.effects.alarms.push(Alarm::Overdue(deadline));
            }
        }
    }

    /// Whether a slot has data for a date, and each cell that has some is sound, or lags behind inputs that move.
    fn is_up_to_date(&self, slot: SlotId, date: SlotDate) -> bool {
        let Some(found) = self.slots.get(slot.at()) else { return false };
        let index = found.indexes.iter().find(|index| index.positions.is_empty());
        let cells = index.and_then(|index| index.buckets.get(&(date, Key::empty())));
        let cells = cells.into_iter().flatten().filter(|cell| self.is_made(**cell));
        let mut held = cells.filter(|cell| !self.cells[cell.at()].gone).peekable();
        let is_good = |cell: &CellId| {
            self.view(*cell) == Some(View::Usable) || self.cells.get(cell.at()).is_some_and(|c| c.lagging)
        };
        held.peek().is_some() && held.all(is_good)
    }

    /// What somebody is to look at, as it is now: old cells by age, then deadlines that were missed and are not met yet, then
    /// lost sessions. Takes time in proportion to what grows old and to the deadlines that were missed.
    pub fn alarms(&self) -> impl Iterator<Item = (Alarm, Timestamp)> + '_ {
        let is_aged = |cell: CellId, priority: i32| {
            let Some(sheet) = self.sheets.get(cell.at()) else { return false };
            let effective = sheet.effective_candidate();
            effective.is_some_and(|candidate| candidate.priority == priority && candidate.aged)
        };
        let mut aged: Vec<(Timestamp, CellId)> = (self.ages.until.iter())
            .filter(|((cell, priority), _)| is_aged(*cell, *priority))
            .map(|((cell, _), until)| (*until, *cell))
            .collect();
        aged.sort_unstable();
        let missed = self.deadlines.missed.iter();
        let missed = missed.filter(|deadline| !self.is_up_to_date(deadline.slot, deadline.date));
        let overdue = missed.map(|deadline| (Alarm::Overdue(*deadline), deadline.due_by));
        let aged = aged.into_iter().map(|(until, cell)| (Alarm::Aged(cell), until));
        aged.chain(overdue).chain(self.lost())
    }
}
