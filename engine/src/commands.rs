//! What is done to cells, bundles and producers by command.

use std::sync::PoisonError;

use underbelly_storage::Value;

use crate::batch::Batch;
use crate::core::Commit;
use crate::database::Database;
use crate::durability::Durability;
use crate::error::CommitError;
use crate::graph::{BundleId, Event, Graph, Key, ProducerId, RunInfo, SlotDate};
use crate::limits::{CONFLICT_RETRIES, REASON_BYTES_MAX};
use crate::operations::Operations;
use crate::producers::bounded;
use crate::runs::Halted;

impl Database {
    /// Takes back the data of one priority of a cell, whoever gave it. A producer gives it again where one of its
    /// inputs changes, or where it is [forced](Database::force) to.
    ///
    /// # Errors
    /// [`CommitError::UnknownSlot`]; [`CommitError::Cell`] where the cell was never made;
    /// [`CommitError::Graph`] where it has nothing at this priority; and as [`Database::commit`].
    pub fn retract<V: Into<Value>>(
        &self,
        slot: &str,
        date: impl Into<SlotDate>,
        key: impl IntoIterator<Item = V>,
        priority: i32,
    ) -> Result<Commit, CommitError> {
        let (id, _) = self.core().slot(slot)?;
        let (date, key) = (date.into(), key_of(key)?);
        let cell = self.core().state().graph.cell(id, date, &key);
        let cell = cell.ok_or_else(|| CommitError::Cell {
            slot: slot.to_string(),
            what: format!("it has no cell {key} for {date}; name one that was made"),
        })?;
        self.command(Event::Retract { cell, priority })
    }

    /// Has a bundle run again although nothing changed, as soon as its inputs allow a start.
    ///
    /// # Errors
    /// [`CommitError::Producer`] where there is no such producer or bundle; and as [`Database::commit`].
    pub fn force<V: Into<Value>>(
        &self,
        producer: &str,
        date: impl Into<SlotDate>,
        key: impl IntoIterator<Item = V>,
    ) -> Result<Commit, CommitError> {
        let bundle = self.bundle(producer, date.into(), &key_of(key)?)?;
        self.command(Event::Force(bundle))
    }

    /// Ends what a bundle has in work: its outputs get an error with this reason, and what a run in flight gives is
    /// dropped; the history calls that run `halted`. The bundle runs again where an input changes, or where it is [forced](Database::force) to.
    ///
    /// # Errors
    /// [`CommitError::Producer`] where there is no such producer or bundle; [`CommitError::Graph`] where it has nothing
    /// in work; and as [`Database::commit`].
    pub fn cancel<V: Into<Value>>(
        &self,
        producer: &str,
        date: impl Into<SlotDate>,
        key: impl IntoIterator<Item = V>,
        reason: &str,
    ) -> Result<Commit, CommitError> {
        let bundle = self.bundle(producer, date.into(), &key_of(key)?)?;
        let event = Event::Cancel { bundle, reason: reason.to_string() };
        self.halt(event, reason, |graph, run| graph.run_of(bundle) == Some(run.run))
    }

    /// Takes a producer out: what its runs give is dropped, which the history calls `halted`, its bundles are forgotten, and its name and priorities are
    /// free. What it gave stays, but for what it gave as a member for groups that wait for members, have given nothing yet and
    /// have the cell of another member: that is taken back, since they are of the rest.
    ///
    /// # Errors
    /// [`CommitError::Producer`] where there is no such producer; and as [`Database::commit`].
    pub fn deregister(&self, producer: &str) -> Result<Commit, CommitError> {
        let id = self.producer(producer)?;
        let event = Event::Deregister(id);
        let commit = self.halt(event, "the producer was deregistered", |_, run| run.producer == id)?;
        let closure = {
            let mut closures = self.core().closures.write().unwrap_or_else(PoisonError::into_inner);
            closures.remove(&id)
        };
        self.core().leases.remove(id);
        self.core().signals.set_inline(id, false);
        #[cfg(feature = "processes")]
        self.core().take_out(id, closure.as_ref());
        // What the closure holds may do anything when it is dropped, so no lock is held here.
        drop(closure);
        Ok(commit)
    }

    fn command(&self, event: Event) -> Result<Commit, CommitError> {
        self.core().commit_event(event).map(|(commit, _)| commit)
    }

    /// Commits a command that ends some of the runs in flight, with a row of the history for each.
    fn halt(
        &self,
        event: Event,
        reason: &str,
        ends: impl Fn(&Graph, &RunInfo<'_>) -> bool,
    ) -> Result<Commit, CommitError> {
        let core = self.core();
        let in_flight = |graph: &Graph| {
            let runs = graph.runs_after(None).filter(|run| ends(graph, run));
            runs.map(|run| Halted::new(graph, &run)).collect::<Vec<_>>()
        };
        let reason = bounded(reason.to_string(), REASON_BYTES_MAX.min(core.record_bytes_max / 8));
        for _ in 0..CONFLICT_RETRIES {
            let folder = core.enter()?;
            let halted = in_flight(&core.state().graph);
            let (mut batch, now) = (Batch::new(), core.options.clock.now());
            for run in &halted {
                batch.append(run.row(now, &reason))?;
            }
            let (mut operations, mut pins) = (Box::<Operations>::default(), core.pending.pin());
            core.prepare_data(batch.appends, Vec::new(), &mut operations, &mut pins)?;
            operations.event = Some(event.clone());
            let prepared = core.encode(operations, pins)?;
            let mut has_changed = false;
            let sequenced = core.sequence(prepared, Durability::Sync, |state| {
                has_changed = in_flight(&state.graph) != halted;
                if has_changed { Err(runs_changed()) } else { Ok(()) }
            });
            drop(folder);
            if !has_changed {
                let (commit, _) = sequenced?;
                core.log.wait(commit.seq)?;
                #[cfg(feature = "processes")]
                core.tell_cancelled(&halted.iter().map(Halted::run).collect::<Vec<_>>(), &reason);
                return Ok(commit);
            }
        }
        Err(runs_changed())
    }

    fn producer(&self, name: &str) -> Result<ProducerId, CommitError> {
        let id = self.core().state().graph.producer_by_name(name);
        id.ok_or_else(|| CommitError::Producer {
            producer: name.to_string(),
            what: "is not registered; name one that is".to_string(),
        })
    }

    fn bundle(&self, producer: &str, date: SlotDate, key: &Key) -> Result<BundleId, CommitError> {
        let id = self.producer(producer)?;
        let bundle = self.core().state().graph.bundle(id, date, key);
        bundle.ok_or_else(|| CommitError::Producer {
            producer: producer.to_string(),
            what: format!("has no bundle {key} for {date}; its inputs make none, or the key is not its own"),
        })
    }
}

fn runs_changed() -> CommitError {
    let what = "what is in flight".to_string();
    CommitError::Conflict { tries: CONFLICT_RETRIES, what }
}

fn key_of<V: Into<Value>>(values: impl IntoIterator<Item = V>) -> Result<Key, CommitError> {
    Ok(Key::new(values.into_iter().map(Into::into).collect())?)
}
