//! Sessions: how a daemon, or a producer whose runs take place in another process, works for the engine, and what happens
//! when it gives no sign of life.
//!
//! Only the beginning and the end of a session are transactions. Signs of life renew its lease in memory; after another
//! opening of the database each session that was there has one lease's time to come back.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::batch::Batch;
use crate::core::{Commit, Core};
use crate::database::Database;
use crate::durability::Durability;
use crate::error::{CommitError, SchemaError};
use crate::explain::Explained;
use crate::graph::{Event, GraphError, ProducerDefinition, ProducerId, Stamp};
use crate::operations::Operations;
use crate::producers::{Taken, run_taken};
use crate::state::State;

/// The leases of sessions that are open in this process.
#[derive(Default)]
pub(crate) struct Leases {
    open: Mutex<BTreeMap<ProducerId, Lease>>,
    /// Held by whoever gives a producer to a process or a closure.
    opening: Mutex<()>,
}

#[derive(Clone, Copy)]
struct Lease {
    epoch: u64,
    /// How long no sign of life is borne, and until when; `None` for ever.
    silence: Option<(Duration, Instant)>,
    /// Its handle is gone: another session may take its place.
    is_dropped: bool,
    /// Whether its end is a loss: one that has no lease just ends with its handle.
    is_loss: bool,
    /// Commits of its that are on their way: it is not silent meanwhile, however long they take.
    committing: usize,
}

impl Lease {
    fn is_over(&self, now: Instant) -> bool {
        self.committing == 0 && self.silence.is_some_and(|(_, until)| until <= now)
    }

    /// Takes a sign of life.
    fn renew(&mut self, now: Instant) {
        if let Some((silence, until)) = &mut self.silence {
            *until = now.checked_add(*silence).unwrap_or(*until);
        }
    }
}

impl Leases {
    fn open(&self) -> MutexGuard<'_, BTreeMap<ProducerId, Lease>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// While this is held nobody else gives a producer to a process or a closure.
    pub(crate) fn opening(&self) -> MutexGuard<'_, ()> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a producer has a session.
    pub(crate) fn is_open(&self, id: ProducerId) -> bool {
        self.open().contains_key(&id)
    }

    /// Whether a session has a lease, and nobody its handle.
    fn is_dropped(&self, id: ProducerId, epoch: u64) -> bool {
        self.open().get(&id).is_some_and(|lease| lease.epoch == epoch && lease.is_dropped)
    }

    /// Renews the lease of a session that nobody has the handle of; false where there is no such session.
    #[cfg(feature = "processes")]
    fn take_up(&self, id: ProducerId, epoch: u64, now: Instant) -> bool {
        let mut open = self.open();
        let lease = open.get_mut(&id).filter(|lease| lease.epoch == epoch && lease.is_dropped);
        let Some(lease) = lease.filter(|lease| !lease.is_over(now)) else { return false };
        lease.is_dropped = false;
        lease.renew(now);
        true
    }

    /// When to look next whether one is over.
    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        let open = self.open();
        let nexts = open.values().filter_map(|lease| {
            let (silence, until) = lease.silence?;
            // Its silence begins anew when its commit has ended.
            if lease.committing > 0 { now.checked_add(silence) } else { Some(until) }
        });
        nexts.min()
    }

    /// One that is over, with its epoch, and whether it was lost.
    pub(crate) fn over(&self, now: Instant) -> Option<(ProducerId, u64, bool)> {
        let open = self.open();
        let mut over = open.iter().filter(|(_, lease)| lease.is_over(now));
        over.next().map(|(id, lease)| (*id, lease.epoch, lease.is_loss))
    }

    /// Takes out that of a session, if it is there yet.
    pub(crate) fn forget(&self, id: ProducerId, epoch: u64) {
        let mut open = self.open();
        if open.get(&id).is_some_and(|lease| lease.epoch == epoch) {
            open.remove(&id);
        }
    }

    /// Takes out that of a producer which is no more.
    pub(crate) fn remove(&self, id: ProducerId) {
        self.open().remove(&id);
    }
}

/// What became of a daemon's commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Accepted {
    /// It was committed now.
    Now(Commit),
    /// It was committed before: its number is not above that of the last commit.
    Before,
}

/// The session of a daemon: see [`Database::open_session`].
///
/// A session that is dropped has given its last sign of life: it is lost when its lease is over, unless another is opened before,
/// and ends at once where it has none. To end it without an alarm, [`Session::close`] it, or [`Session::leave`].
pub struct Session {
    core: Arc<Core>,
    id: ProducerId,
    producer: String,
    epoch: u64,
    /// The number of the last commit that was accepted. Held until a commit has its place, and not while it is written or
    /// inline producers work for it.
    sequence: Mutex<Option<u64>>,
    /// Whether its commits are a caller's own, whose thread does inline work. Those of other processes are not: who speaks with
    /// them is to hear them meanwhile.
    is_here: bool,
    is_over: AtomicBool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Session { producer, epoch, .. } = self;
        f.debug_struct("Session").field("producer", producer).field("epoch", epoch).finish_non_exhaustive()
    }
}

impl Database {
    /// Registers a daemon and opens its session, in which it commits to the slots that it provides. The definition is kept
    /// in the database, and a daemon stays registered, and a member of the slots that it provides as one, until it
    /// [leaves](Session::leave) or is [deregistered](Database::deregister).
    ///
    /// ```
    /// use underbelly::{Batch, ColumnType, Columns, Database, Date, ProducerDefinition, SlotDefinition};
    /// # let dir = tempfile::tempdir()?;
    /// let db = Database::create(dir.path().join("db"))?;
    /// db.define_slot(SlotDefinition::new("Signal").member_key("generator").value("x", ColumnType::F64))?;
    /// let session = db.open_session(ProducerDefinition::daemon("gen-1000").provides_as("Signal", "1000"))?;
    /// let mut batch = Batch::new();
    /// let day = Date::parse("2024-01-02").ok_or("no date")?;
    /// batch.put_slot("Signal", day, ["1000"], Columns::new().with("x", vec![0.5].into())?);
    /// session.commit(batch)?;
    /// session.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SchemaError::Graph`] with [`GraphError::SessionTaken`] where it has a session already, and as
    /// [`Database::register`].
    pub fn open_session(&self, daemon: ProducerDefinition) -> Result<Session, SchemaError> {
        if !daemon.daemon {
            return Err(GraphError::NoDaemon { producer: daemon.name }.into());
        }
        let id = self.enlist(daemon)?;
        // A process that takes up its session meanwhile is not fenced by this.
        let opening = self.core().leases.opening();
        let mut session = Session::open(self.core(), id)?;
        drop(opening);
        session.is_here = true;
        Ok(session)
    }
}

impl Session {
    /// Opens the session of a registered producer.
    pub(crate) fn open(core: &Arc<Core>, id: ProducerId) -> Result<Session, CommitError> {
        if let Some(epoch) = Session::check_free(core, id)? {
            match core.commit_event(Event::Detach { producer: id, epoch, lost: false }) {
                // Lost, or taken over, meanwhile.
                Ok(_) | Err(CommitError::Graph(GraphError::SessionOver { .. })) => {}
                Err(error) => return Err(error),
            }
            core.leases.forget(id, epoch);
        }
        let (producer, lease) = {
            let state = core.state();
            let definition = state.graph.producer(id).ok_or(GraphError::UnknownProducer(id))?;
            (definition.name.clone(), definition.lease)
        };
        let (epoch, sequence) = core.attach_session(id, &producer)?;
        let now = core.options.clock.instant();
        let silence = lease.and_then(|lease| Some((lease, now.checked_add(lease)?)));
        let lease = Lease { epoch, silence, is_dropped: false, is_loss: true, committing: 0 };
        core.leases.open().insert(id, lease);
        core.signals.ring_alarm();
        Ok(Session::new(core, id, producer, epoch, sequence))
    }

    fn new(core: &Arc<Core>, id: ProducerId, producer: String, epoch: u64, sequence: Option<u64>) -> Session {
        let (core, sequence, is_over) = (core.clone(), Mutex::new(sequence), AtomicBool::new(false));
        Session { core, id, producer, epoch, sequence, is_here: false, is_over }
    }

    /// Goes on with the session of a producer whose handle was dropped and whose lease is not over, or else opens one.
    #[cfg(feature = "processes")]
    pub(crate) fn resume(core: &Arc<Core>, id: ProducerId) -> Result<Session, CommitError> {
        let known = {
            let state = core.state();
            let name = state.graph.producer(id).map(|definition| definition.name.clone());
            state.graph.session(id).zip(name)
        };
        match known {
            Some(((epoch, sequence), producer))
                if core.leases.take_up(id, epoch, core.options.clock.instant()) =>
            {
                Ok(Session::new(core, id, producer, epoch, sequence))
            }
            _ => Session::open(core, id),
        }
    }

    /// Refuses a producer that another has; the epoch of a session whose handle is gone.
    pub(crate) fn check_free(core: &Core, id: ProducerId) -> Result<Option<u64>, CommitError> {
        // One that is over by the clock is over.
        core.pass_time()?;
        let state = core.state();
        let known = state.graph.session(id).filter(|_| state.graph.is_attached(id));
        match known {
            Some((epoch, _)) if !core.leases.is_dropped(id, epoch) => {
                let producer = state.graph.producer(id).map(|definition| definition.name.clone());
                Err(GraphError::SessionTaken { producer: producer.unwrap_or_default() }.into())
            }
            known => Ok(known.map(|(epoch, _)| epoch)),
        }
    }

    /// The daemon's name.
    pub fn producer(&self) -> &str {
        &self.producer
    }

    /// The number of the session, higher than those of all sessions of the daemon before: what is committed with an older
    /// one is refused.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The number of the daemon's last commit, in this session or before; `None` before the first.
    pub fn last_sequence(&self) -> Option<u64> {
        *self.sequence()
    }

    /// Commits a batch as the daemon's next one. It is a sign of life.
    ///
    /// # Errors
    /// [`CommitError::Graph`] with [`GraphError::SessionOver`] where the session is over, with
    /// [`GraphError::NotProvided`] where the batch writes what the daemon does not provide, and as [`Database::commit`].
    pub fn commit(&self, batch: Batch) -> Result<Commit, CommitError> {
        let durability = batch.durability;
        self.beat()?;
        let _committing = Committing::begin(self);
        let (commit, taken) = {
            let mut sequence = self.sequence();
            let next = sequence.map_or(Some(1), |last| last.checked_add(1));
            let next =
                next.ok_or_else(|| CommitError::Internal { what: "commit numbers have run out".into() })?;
            let placed = self.place(next, batch)?;
            *sequence = Some(next);
            placed
        };
        self.answer(commit, taken, durability)
    }

    /// Commits a batch under a number of the daemon's own, such as its source's. Numbers rise, from whichever; what has a number that is not
    /// above the last one was accepted before and is not committed again, so that a daemon that does not know whether a
    /// commit came through sends it again. It is a sign of life.
    ///
    /// # Errors
    /// As [`Session::commit`].
    pub fn commit_once(&self, number: u64, batch: Batch) -> Result<Accepted, CommitError> {
        let durability = batch.durability;
        self.beat()?;
        let _committing = Committing::begin(self);
        let placed = {
            let mut sequence = self.sequence();
            let placed = self.place(number, batch);
            if placed.is_ok() {
                *sequence = Some(number);
            }
            placed
        };
        match placed {
            Ok((commit, taken)) => self.answer(commit, taken, durability).map(Accepted::Now),
            Err(CommitError::Graph(GraphError::Duplicate { .. })) => {
                let head = self.core.state().head;
                self.core.answer(head, durability)?;
                Ok(Accepted::Before)
            }
            Err(error) => Err(error),
        }
    }

    fn sequence(&self) -> MutexGuard<'_, Option<u64>> {
        self.sequence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a batch its place among the daemon's commits.
    fn place(&self, sequence: u64, mut batch: Batch) -> Result<(Commit, Option<Taken>), CommitError> {
        batch.session = Some(Stamp { producer: self.id, epoch: self.epoch, sequence });
        match self.is_here {
            true => self.core.place_here(batch),
            false => self.core.place(batch).map(|commit| (commit, None)),
        }
    }

    fn answer(
        &self,
        commit: Commit,
        taken: Option<Taken>,
        durability: Durability,
    ) -> Result<Commit, CommitError> {
        run_taken(&self.core, taken);
        self.core.answer(commit.seq, durability)?;
        Ok(commit)
    }

    /// What [`Session::commit`] would make stale and run with this batch; see
    /// [`View::explain_commit`](crate::View::explain_commit).
    ///
    /// # Errors
    /// As [`View::explain_commit`](crate::View::explain_commit), and those of [`Session::commit`] that are the session's.
    pub fn explain_commit(&self, batch: &Batch) -> Result<Explained, CommitError> {
        let mut batch = batch.clone();
        let sequence = self.last_sequence().unwrap_or_default().saturating_add(1);
        batch.session = Some(Stamp { producer: self.id, epoch: self.epoch, sequence });
        self.core.view.explain_commit(&batch)
    }

    /// Gives a sign of life. Costs a lock and no transaction.
    ///
    /// # Errors
    /// [`CommitError::Graph`] with [`GraphError::SessionOver`] where the session is over: it was lost, or the daemon was
    /// deregistered.
    pub fn beat(&self) -> Result<(), CommitError> {
        let now = self.core.options.clock.instant();
        let mut open = self.core.leases.open();
        let lease = open.get_mut(&self.id).filter(|lease| lease.epoch == self.epoch);
        let Some(lease) = lease.filter(|lease| !lease.is_over(now)) else { return Err(self.over()) };
        lease.renew(now);
        Ok(())
    }

    fn over(&self) -> CommitError {
        GraphError::SessionOver { producer: self.producer.clone(), epoch: self.epoch }.into()
    }

    /// Ends the session, and sounds no alarm. The daemon stays registered, and groups wait for it as before. Where this fails
    /// it can be tried again.
    ///
    /// # Errors
    /// As [`Session::beat`], and as [`Database::commit`].
    pub fn close(&self) -> Result<(), CommitError> {
        self.end(Event::Detach { producer: self.id, epoch: self.epoch, lost: false })
    }

    /// Ends the session and deregisters the daemon: it is no member any more, and groups do not wait for it. What it
    /// committed stays, as [`Database::deregister`] says. Where this fails it can be tried again.
    ///
    /// # Errors
    /// As [`Session::close`].
    pub fn leave(&self) -> Result<(), CommitError> {
        self.end(Event::Deregister(self.id))
    }

    fn end(&self, event: Event) -> Result<(), CommitError> {
        self.beat()?;
        let epoch = self.epoch;
        self.core.commit_checked(event, |state| {
            let known = state.graph.session(self.id).filter(|_| state.graph.is_attached(self.id));
            if known.is_some_and(|(known, _)| known == epoch) { Ok(()) } else { Err(self.over()) }
        })?;
        self.is_over.store(true, Ordering::Release);
        self.core.leases.forget(self.id, epoch);
        Ok(())
    }
}

/// A commit that is on its way.
struct Committing<'a>(&'a Session);

impl Committing<'_> {
    fn begin(session: &Session) -> Committing<'_> {
        let committing = Committing(session);
        committing.with_lease(|lease| lease.committing += 1);
        committing
    }

    fn with_lease(&self, then: impl FnOnce(&mut Lease)) {
        let Session { core, id, epoch, .. } = self.0;
        core.leases.open().get_mut(id).filter(|lease| lease.epoch == *epoch).map(then);
    }
}

impl Drop for Committing<'_> {
    fn drop(&mut self) {
        let now = self.0.core.options.clock.instant();
        self.with_lease(|lease| {
            lease.committing -= 1;
            lease.renew(now);
        });
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.is_over.load(Ordering::Acquire) {
            return;
        }
        let now = self.core.options.clock.instant();
        {
            let mut open = self.core.leases.open();
            let lease = open.get_mut(&self.id).filter(|lease| lease.epoch == self.epoch);
            let Some(lease) = lease else { return };
            lease.is_dropped = true;
            if lease.silence.is_some() {
                return;
            }
            (lease.silence, lease.is_loss) = (Some((Duration::ZERO, now)), false);
        }
        // A disk that refuses is tried again by the timer, and by whoever opens the next session.
        let _ = self.core.pass_time();
        self.core.signals.ring_alarm();
    }
}

impl Core {
    /// Begins a session; its epoch, and the number of the daemon's last commit.
    fn attach_session(&self, id: ProducerId, producer: &str) -> Result<(u64, Option<u64>), CommitError> {
        let host = self.options.host.clone();
        let mut begun = None;
        self.commit_checked(Event::Attach { producer: id, host }, |state| {
            if state.graph.is_attached(id) {
                return Err(GraphError::SessionTaken { producer: producer.to_string() }.into());
            }
            begun = state.graph.session(id).map(|(epoch, sequence)| (epoch + 1, sequence));
            Ok(())
        })?;
        begun.ok_or_else(|| GraphError::UnknownProducer(id).into())
    }

    /// Commits an event where this still holds when it gets its place.
    fn commit_checked(
        &self,
        event: Event,
        holds: impl FnOnce(&State) -> Result<(), CommitError>,
    ) -> Result<(), CommitError> {
        let folder = self.enter()?;
        let operations = Box::new(Operations { event: Some(event), ..Operations::default() });
        let prepared = self.encode(operations, self.pending.pin())?;
        let (commit, _) = self.sequence(prepared, Durability::Sync, holds)?;
        drop(folder);
        Ok(self.log.wait(commit.seq)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_not_lost_while_its_own_commit_is_on_its_way() {
        let (leases, id, now) = (Leases::default(), ProducerId(0), Instant::now());
        let silence = Some((Duration::ZERO, now));
        let committing = Lease { epoch: 1, silence, is_dropped: false, is_loss: true, committing: 1 };
        leases.open().insert(id, committing);
        assert_eq!(leases.over(now), None);
        leases.open().insert(id, Lease { committing: 0, ..committing });
        assert_eq!(leases.over(now), Some((id, 1, true)));
    }

    #[test]
    fn nobody_looks_again_and_again_at_a_session_whose_commit_takes_long() {
        let (leases, id, now) = (Leases::default(), ProducerId(0), Instant::now());
        let (lease, later) = (Duration::from_secs(1), now + Duration::from_secs(60));
        let silence = Some((lease, now + lease));
        let committing = Lease { epoch: 1, silence, is_dropped: false, is_loss: true, committing: 1 };
        leases.open().insert(id, committing);
        assert_eq!(leases.next(later), Some(later + lease));
        leases.open().insert(id, Lease { committing: 0, ..committing });
        assert_eq!(leases.next(later), Some(now + lease));
    }
}
