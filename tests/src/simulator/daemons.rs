//! Daemons: members of one slot that commit, fall silent, are lost, come back and leave, beside what is known of each.
//!
//! The model knows of each daemon that is registered which number it has committed last, and when what it gave was made; so
//! a recovery shows whether a commit was lost or doubled. Of a session the simulator knows when it gave a sign of life,
//! and so when it is over, to the second.

use std::collections::BTreeMap;
use std::time::Duration;

use underbelly::{
    Accepted, AlarmKind, Batch, CommitError, Database, Durability, GraphError, ProducerDefinition,
    SchemaError, Session, Timestamp,
};

use super::desk::{self, DAEMONS, DAYS, MEDIAN, SIGNAL, date, key_of};
use super::life::Life;
use super::model::{CellName, Effect};
use super::{Trouble, model};
use crate::one;

/// How long a daemon may be silent. No sum of the simulator's steps comes near it.
const LEASE: i64 = 910_000_000_000;
/// How long what a daemon gave is fresh; nor near this.
pub(super) const AGE: i64 = 1_005_000_000_000;
/// How far ahead of the clock what it gives may be.
pub(super) const SKEW: i64 = 100_000_000_000;
/// What the looks at the clock may add up to, and commit times may be ahead.
const ABOUT: i64 = 5_000_000_000;

/// What is known of a daemon.
#[derive(Default)]
pub(super) struct Daemon {
    session: Option<Session>,
    /// The highest epoch that it was told since it was registered.
    epoch: u64,
    /// When its session that is not over, but perhaps by the clock, gave a sign of life, in this process.
    heard: Option<i64>,
    /// Until when it is waited for after an opening.
    awaited: Option<i64>,
    /// Whether it was seen lost since its last session began, durably.
    lost: bool,
    /// Whether a call failed that may have begun or ended its session.
    unclear: bool,
    /// A commit of which it does not know whether it came through: its number and parts.
    unsure: Option<(u64, Vec<Given>)>,
    /// Sessions that may have begun.
    pub begun: u64,
    /// Cells that it may have given.
    pub given: u64,
}

/// A cell that a daemon gives, and when it was made.
#[derive(Clone, Debug)]
struct Given {
    cell: CellName,
    n: i64,
    made: i64,
}

/// The definition of a daemon: a member under a key of its own.
fn definition(daemon: u8) -> ProducerDefinition {
    let member = format!("k{daemon}");
    let definition = ProducerDefinition::daemon(desk::DAEMONS[usize::from(daemon)]);
    definition.provides_as(SIGNAL, member).lease(Duration::from_nanos(LEASE as u64))
}

fn is_over(error: &CommitError) -> bool {
    matches!(error, CommitError::Graph(GraphError::SessionOver { .. }))
}

impl Daemon {
    /// Forgets what it was, but for how often it did something.
    fn forget(&mut self) {
        let Daemon { begun, given, .. } = *self;
        *self = Daemon { begun, given, ..Daemon::default() };
    }
}

impl Life {
    /// Whether a daemon has a session in this process that is not over by the clock.
    fn is_alive(&self, daemon: u8) -> bool {
        let heard = self.daemons[usize::from(daemon)].heard;
        heard.is_some_and(|heard| self.passed - heard < LEASE)
    }

    /// Some daemons come, or come back.
    pub(super) fn daemons_come(&mut self) -> Result<(), Trouble> {
        for daemon in 0..DAEMONS.len() as u8 {
            if self.numbers.below(2) == 0 && self.model.slots.contains(SIGNAL) {
                self.open_session(daemon)?;
            }
        }
        Ok(())
    }

    /// Daemons do something.
    pub(super) fn daemon_step(&mut self) -> Result<(), Trouble> {
        for _ in 0..1 + self.numbers.below(5) {
            if self.model.slots.contains(SIGNAL) {
                self.act()?;
            }
        }
        Ok(())
    }

    fn act(&mut self) -> Result<(), Trouble> {
        let daemon = self.numbers.below(DAEMONS.len() as u64) as u8;
        let has_session = self.daemons[usize::from(daemon)].session.is_some();
        match self.numbers.below(12) {
            0 => self.open_session(daemon),
            _ if !has_session => {
                self.open_session(daemon)?;
                self.give(daemon)
            }
            1..7 => self.give(daemon),
            7 => self.beat(daemon),
            8 => {
                self.tell(|| format!("daemon {daemon} is dropped"));
                self.daemons[usize::from(daemon)].session = None;
                Ok(())
            }
            9 => self.close_session(daemon),
            10 if self.numbers.below(2) == 0 => self.leave(daemon),
            _ => {
                self.pass(400_000_000_000)?;
                Ok(())
            }
        }
    }

    fn open_session(&mut self, daemon: u8) -> Result<(), Trouble> {
        let (at, name) = (usize::from(daemon), DAEMONS[usize::from(daemon)]);
        let is_known = self.model.producers.contains(name);
        let is_taken = self.is_alive(daemon) && self.daemons[at].session.is_some();
        self.tell(|| format!("open a session of {name}, known {is_known}, taken {is_taken}"));
        let before = self.head()?;
        let opened = self.db()?.open_session(definition(daemon));
        if !is_known && self.head()? > before {
            self.journal.add(before + 1, vec![Effect::Producer(name)]);
            self.daemons[at].epoch = 0;
        }
        self.settle()?;
        let taken = |error: &SchemaError| match error {
            SchemaError::Graph(error) => matches!(error, GraphError::SessionTaken { .. }),
            SchemaError::Commit(error) => {
                matches!(**error, CommitError::Graph(GraphError::SessionTaken { .. }))
            }
            _ => false,
        };
        match opened {
            Ok(_) if is_taken => Err(format!("{name} has two sessions").into()),
            Err(error) if is_taken && taken(&error) => Ok(()),
            Err(error) => {
                self.daemons[at].begun += 1;
                self.daemons[at].unclear = true;
                self.excuse("open a session", &error)
            }
            Ok(session) => {
                let (epoch, last) = (session.epoch(), session.last_sequence());
                let known = &mut self.daemons[at];
                let older = known.epoch;
                let unsure = known.unsure.take().filter(|_| is_known);
                *known = Daemon {
                    session: Some(session),
                    epoch,
                    heard: Some(self.passed),
                    begun: known.begun + 1,
                    given: known.given,
                    ..Daemon::default()
                };
                if epoch <= older {
                    return Err(format!("{name} has epoch {epoch} after {older}").into());
                }
                let expected = self.model.sent.get(&daemon).copied();
                if last != expected {
                    return Err(format!("{name} has committed {last:?}, not {expected:?}").into());
                }
                match unsure {
                    Some((number, given)) => self.send(daemon, number, given, Durability::Sync),
                    None => Ok(()),
                }
            }
        }
    }

    /// Some cells; sometimes what was sent before, or is of the future.
    fn give(&mut self, daemon: u8) -> Result<(), Trouble> {
        let last = self.model.sent.get(&daemon).copied();
        let number = match (self.numbers.below(5), last) {
            (0, Some(last)) => last - self.numbers.below(2).min(last),
            (_, last) => last.map_or(0, |last| last + 1) + self.numbers.below(3),
        };
        let ago = [0, 0, 500_000_000_000, 2_000_000_000_000, -SKEW / 2, -2 * SKEW];
        let made = self.time - ago[self.numbers.below(ago.len() as u64) as usize];
        let cells = 1 + self.numbers.below(2);
        let given = (0..cells).map(|_| {
            let day = self.numbers.below(DAYS.len() as u64) as i32;
            Given { cell: (SIGNAL, day, daemon), n: self.numbers.below(9) as i64, made }
        });
        let given: Vec<Given> = given.collect();
        let durability = if self.numbers.below(3) == 0 { Durability::Buffered } else { Durability::Sync };
        self.send(daemon, number, given, durability)
    }

    /// Sends a commit: it is made where its number is new, and only there.
    fn send(
        &mut self,
        daemon: u8,
        number: u64,
        given: Vec<Given>,
        durability: Durability,
    ) -> Result<(), Trouble> {
        let (at, name) = (usize::from(daemon), DAEMONS[usize::from(daemon)]);
        let (is_alive, before, now) = (self.is_alive(daemon), self.head()?, self.time);
        let is_new = self.model.sent.get(&daemon).is_none_or(|last| number > *last);
        let is_ahead = given.iter().any(|given| given.made > now + SKEW);
        self.tell(|| {
            format!("{name} gives {given:?} as {number}, alive {is_alive}, new {is_new}, ahead {is_ahead}")
        });
        let mut batch = Batch::new();
        batch.durability(durability);
        let mut effects = vec![Effect::Sent(daemon, number)];
        for Given { cell, n, made } in &given {
            batch.put_slot(cell.0, date(cell.1), key_of(*cell), one("n", *n)?);
            batch.as_of(Timestamp(*made));
            effects.extend([Effect::Put(*cell, Some(*n)), Effect::Made(*cell, *made)]);
        }
        // By when the median of a day is wanted; a time that has come is told at once.
        if self.numbers.below(4) == 0 {
            let day = self.numbers.below(DAYS.len() as u64) as i32;
            let due_by = now + 300_000_000_000 * self.numbers.below(4) as i64 - 7_000_000_000;
            batch.due_by(MEDIAN, date(day), Timestamp(due_by));
            effects.push(Effect::Due(day, due_by));
            self.dues += 1;
        }
        let Some(session) = self.daemons[at].session.take() else { return Ok(()) };
        self.daemons[at].given += given.len() as u64;
        let answer = session.commit_once(number, batch);
        self.daemons[at].session = Some(session);
        if is_alive {
            self.daemons[at].heard = Some(self.passed);
        }
        let after = self.head()?;
        if after > before {
            self.journal.add(before + 1, effects);
        }
        self.settle()?;
        let what = format!("{name} sent {number}, alive {is_alive}, new {is_new}");
        match answer {
            Err(error) if is_over(&error) && !is_alive && after == before => Ok(()),
            Err(CommitError::Graph(GraphError::Skew { .. })) if is_ahead && after == before => Ok(()),
            Err(error) => {
                self.daemons[at].unsure = Some((number, given));
                self.excuse(&what, &error)
            }
            Ok(_) if !is_alive => Err(format!("{what}: its session is over").into()),
            Ok(Accepted::Before) if !is_new && after == before => {
                self.figures.again += 1;
                Ok(())
            }
            Ok(Accepted::Now(_)) if is_new && !is_ahead && after > before => {
                self.figures.sent += 1;
                let (visible, durable) = (self.db()?.visible_seq(), self.durable);
                match durability {
                    Durability::Buffered if visible >= after => Ok(()),
                    Durability::Sync if durable >= after => Ok(()),
                    _ => Err(format!("{what}: acknowledged before it is {durability:?}").into()),
                }
            }
            Ok(accepted) => Err(format!("{what}: {accepted:?}, and {} seqs", after - before).into()),
        }
    }

    fn beat(&mut self, daemon: u8) -> Result<(), Trouble> {
        let (at, is_alive) = (usize::from(daemon), self.is_alive(daemon));
        let Some(beaten) = self.daemons[at].session.as_ref().map(Session::beat) else { return Ok(()) };
        self.tell(|| format!("daemon {daemon} beats: {beaten:?}"));
        match beaten {
            Ok(()) if is_alive => self.daemons[at].heard = Some(self.passed),
            Err(error) if is_over(&error) && !is_alive => {}
            beaten => return Err(format!("a sign of life, alive {is_alive}: {beaten:?}").into()),
        }
        Ok(())
    }

    fn close_session(&mut self, daemon: u8) -> Result<(), Trouble> {
        let (at, is_alive) = (usize::from(daemon), self.is_alive(daemon));
        let Some(session) = self.daemons[at].session.take() else { return Ok(()) };
        self.tell(|| format!("daemon {daemon} closes its session"));
        let before = self.head()?;
        let closed = session.close();
        self.settle()?;
        match closed {
            Err(error) if is_over(&error) && !is_alive && self.head()? == before => Ok(()),
            Ok(()) if is_alive => {
                self.daemons[at].heard = None;
                Ok(())
            }
            Ok(()) => Err("a session that is over was closed".into()),
            Err(error) => {
                self.daemons[at].unclear = true;
                self.excuse("close a session", &error)
            }
        }
    }

    /// Takes a daemon out, as itself or from outside.
    fn leave(&mut self, daemon: u8) -> Result<(), Trouble> {
        let (at, name) = (usize::from(daemon), DAEMONS[usize::from(daemon)]);
        let (is_alive, by_itself) = (self.is_alive(daemon), self.numbers.below(2) == 0);
        self.tell(|| format!("{name} leaves, by itself {by_itself}"));
        let Some(session) = self.daemons[at].session.take() else { return Ok(()) };
        let before = self.head()?;
        let left = match by_itself {
            true => session.leave(),
            false => self.db()?.deregister(name).map(|_| ()),
        };
        if self.head()? > before {
            self.journal.add(before + 1, vec![Effect::Leave(daemon)]);
        }
        self.settle()?;
        match left {
            Err(error) if by_itself && is_over(&error) && !is_alive && self.head()? == before => {
                self.daemons[at].session = Some(session);
                Ok(())
            }
            Err(error) => self.excuse("leave", &error),
            Ok(()) if by_itself && !is_alive => Err("a session that is over left".into()),
            Ok(()) => {
                self.daemons[at].forget();
                match session.beat() {
                    Err(error) if is_over(&error) => Ok(()),
                    beaten => Err(format!("a sign of life of one that left: {beaten:?}").into()),
                }
            }
        }
    }

    /// The process is gone, and each session with it.
    pub(super) fn end_sessions(&mut self) {
        for daemon in &mut self.daemons {
            daemon.session = None;
        }
    }

    /// After an opening: whose session was there is waited for, and who was seen lost is.
    pub(super) fn await_sessions(&mut self) -> Result<(), Trouble> {
        let summaries = self.db()?.producers();
        let (time, passed) = (self.time, self.passed);
        for (daemon, name) in self.daemons.iter_mut().zip(DAEMONS) {
            let Some(found) = summaries.iter().find(|found| found.definition.name == name) else {
                // It left, or never came, as far as is known now.
                daemon.forget();
                continue;
            };
            if found.attached {
                return Err(format!("{name} is there after an opening").into());
            }
            if daemon.lost && found.lost_at.is_none() && !daemon.unclear {
                return Err(format!("{name} was lost before an opening, and is not").into());
            }
            let was_silent = daemon.heard.is_some_and(|heard| passed - heard >= LEASE)
                || daemon.awaited.is_some_and(|until| time > until - ABOUT);
            let is_lost = found.lost_at.is_some();
            if is_lost && !(daemon.lost || was_silent || daemon.unclear) {
                return Err(format!("{name} is lost, and was not silent for so long").into());
            }
            let is_awaited = !is_lost && (daemon.heard.is_some() || daemon.awaited.is_some());
            (daemon.lost, daemon.heard) = (is_lost, None);
            daemon.awaited = is_awaited.then_some(time + LEASE);
        }
        Ok(())
    }

    /// What is so when the clock has brought what it brings: who is there, who is lost, and what is too old or overdue.
    pub(super) fn check_daemons(&mut self) -> Result<(), Trouble> {
        let db = self.db()?.clone();
        let summaries = db.producers();
        for (at, name) in DAEMONS.into_iter().enumerate() {
            let Some(found) = summaries.iter().find(|found| found.definition.name == name) else { continue };
            let is_alive = self.is_alive(at as u8);
            if self.excused {
                continue;
            }
            if found.attached != is_alive {
                return Err(format!("{name} is there: {}, not {is_alive}", found.attached).into());
            }
            let (time, passed) = (self.time, self.passed);
            let daemon = &mut self.daemons[at];
            let is_lost = match (daemon.heard, daemon.awaited) {
                (Some(heard), _) => Some(passed - heard >= LEASE),
                (None, Some(until)) if (time - until).abs() < ABOUT => None,
                (None, Some(until)) => Some(time >= until),
                (None, None) => Some(daemon.lost),
            };
            let lost_at = found.lost_at;
            if !daemon.unclear && is_lost.is_some_and(|is_lost| is_lost != lost_at.is_some()) {
                return Err(format!("{name} is lost: {lost_at:?}, not {is_lost:?}").into());
            }
            if lost_at.is_some() {
                self.figures.lost += u64::from(!daemon.lost);
                (daemon.lost, daemon.heard, daemon.awaited) = (true, None, None);
            }
        }
        if self.excused { Ok(()) } else { alarms(&db, &self.model, self.time) }
    }
}

/// What may have sounded: of each daemon no more losses than sessions, and no more old cells than it gave.
pub(super) fn sounded_once(life: &Life) -> Result<(), Trouble> {
    let db = life.db()?;
    let sounded = |text: &str| -> u64 {
        let mut alarms = life.told.alarms.iter();
        alarms.by_ref().filter(|(told, _)| told.starts_with(text)).map(|(_, count)| count).sum()
    };
    for (at, daemon) in life.daemons.iter().enumerate() {
        let (lost, old) = (sounded(&format!("lost {}", DAEMONS[at])), sounded(&format!("aged k{at}")));
        if lost > daemon.begun || old > daemon.given {
            let Daemon { begun, given, .. } = daemon;
            return Err(format!("daemon {at}: {lost} losses of {begun}, {old} old of {given}").into());
        }
    }
    if sounded("overdue") > life.dues {
        return Err(format!("{} times overdue of {}", sounded("overdue"), life.dues).into());
    }
    if life.durable == db.head_seq() {
        let silent = db.alarms().into_iter().find(|alarm| sounded(&name(&alarm.kind)) == 0);
        if let Some(silent) = silent {
            return Err(format!("{silent:?} is listed and never sounded").into());
        }
    }
    Ok(())
}

/// An alarm as text.
pub(super) fn name(alarm: &AlarmKind) -> String {
    match alarm {
        AlarmKind::Aged { date, key, .. } => format!("aged {key} {date}"),
        AlarmKind::Overdue { date, due_by, .. } => format!("overdue {date} {due_by}"),
        AlarmKind::Lost { producer } => format!("lost {producer}"),
        other => format!("{other:?}"),
    }
}

/// What is old and what is overdue is listed.
fn alarms(db: &Database, model: &model::Model, now: i64) -> Result<(), Trouble> {
    let mut newest: BTreeMap<u8, (i32, i64)> = BTreeMap::new();
    for ((_, day, daemon), made) in &model.made {
        let known = newest.entry(*daemon).or_insert((*day, *made));
        *known = (*known).max((*day, *made));
    }
    let old = newest.iter().filter(|(_, (_, made))| made + AGE <= now);
    let mut old: Vec<String> = old.map(|(daemon, (day, _))| format!("{} k{daemon}", date(*day))).collect();
    let (mut found, mut overdue) = (Vec::new(), Vec::new());
    for alarm in db.alarms() {
        match alarm.kind {
            AlarmKind::Aged { date, key, .. } => found.push(format!("{date} {key}")),
            AlarmKind::Overdue { date, due_by, .. } => overdue.push((date, due_by.0)),
            _ => {}
        }
    }
    old.sort();
    found.sort();
    if found != old {
        return Err(format!("{found:?} are too old, not {old:?}").into());
    }
    for (day, due_by) in &model.due {
        let is_listed = overdue.contains(&(date(*day), *due_by));
        let is_there = model.content((MEDIAN, *day, 0)).is_some();
        if !is_there && (due_by - now).abs() > ABOUT && is_listed != (*due_by <= now) {
            return Err(format!("day {day} is due by {due_by}, and overdue {is_listed} at {now}").into());
        }
    }
    let unknown = overdue.iter().find(|(at, due_by)| {
        let due = model.due.iter().find(|(day, _)| date(**day) == *at);
        due.is_none_or(|(_, known)| known != due_by)
    });
    match unknown {
        Some(unknown) => Err(format!("{unknown:?} is overdue, and nobody wanted it").into()),
        None => Ok(()),
    }
}

/// What a median is at rest: of all that was given for the day, if nothing of that is too old.
pub(super) fn median(model: &model::Model, day: i32, now: i64) -> Option<i64> {
    let given = DAEMONS.iter().enumerate().map(|(daemon, name)| {
        let cell = (SIGNAL, day, daemon as u8);
        (model.content(cell), model.producers.contains(name), cell)
    });
    let given: Vec<_> = given.collect();
    let is_fired = model.cells.contains_key(&(MEDIAN, day, 0));
    let lacks = given.iter().any(|(content, is_member, _)| *is_member && content.is_none());
    let is_empty = given.iter().all(|(content, ..)| content.is_none());
    let is_old = given.iter().any(|(.., cell)| model.is_old(*cell, now, AGE));
    if is_empty || is_old || (lacks && !is_fired) {
        return None;
    }
    Some(given.iter().filter_map(|(content, ..)| *content).sum())
}
