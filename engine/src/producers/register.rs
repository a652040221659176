//! Programs that do a producer's work: registered, replaced, and ended.

use std::sync::{Arc, PoisonError};

use super::closure::Work;
use super::process::{Keeper, Pool, Remote, attend, keep, retire};
use super::program::Program;
use crate::core::Core;
use crate::database::Database;
use crate::error::{CommitError, SchemaError};
use crate::graph::{GraphError, ProducerDefinition, ProducerId, RunId};

/// Most processes of one producer.
const PROCESSES_MAX: usize = 1_024;

impl Database {
    /// Registers a producer whose work a program does, in processes of its own that this process starts and looks after;
    /// `PROTOCOL.md` says how they are talked to, and the crate `underbelly-worker` does so for programs in Rust. As a closure
    /// the program is given anew after each opening; the same definition again replaces it. It may require and provide [slots of
    /// models](crate::SlotDefinition::models), whose blobs it is sent and sends.
    ///
    /// A process that dies during a run, or is killed because it hangs or does not keep to the protocol, has failed that run
    /// alone; a batch that it did not answer runs again in halves, as [`Database::register_batch`] says. Its standard error
    /// is kept with the run. Processes that read their standard input end with this one, however that ends. Work waits while
    /// none can be started; why, the history of runs says, as `unstarted`, and [`Status::trouble`](crate::Status::trouble).
    ///
    /// The program of a [daemon](ProducerDefinition::daemon) has no runs: it is started at once, commits when it likes in a
    /// session of its own, and is started again when it has ended, later and later while it ends soon, unless it said goodbye.
    /// How it ended the history says, as `ended`. It has one process, and none without [`workers`](crate::Options::workers).
    ///
    /// # Errors
    /// As [`Database::register`]; [`SchemaError::Program`] where the program cannot be started, and the producer is not
    /// registered then.
    pub fn register_program(
        &self,
        producer: ProducerDefinition,
        program: Program,
    ) -> Result<(), SchemaError> {
        crate::series::check_name("producer", &producer.name)?;
        let name = producer.name.clone();
        let refused = |what: String| SchemaError::Program { producer: name.clone(), what };
        let usable = 1..=PROCESSES_MAX;
        if !usable.contains(&program.processes) {
            let found = program.processes;
            return Err(refused(format!("{found} processes cannot be had; use 1 to {PROCESSES_MAX}")));
        }
        if program.heartbeat >= program.heartbeat_grace {
            let Program { heartbeat, heartbeat_grace, .. } = program;
            let what =
                format!("a heartbeat each {heartbeat:?} is none within a grace of {heartbeat_grace:?}");
            return Err(refused(format!("{what}; let the grace be some times as long")));
        }
        if producer.daemon {
            return match program.processes {
                1 => self.keep_daemon(producer, Keeper::new(program, &name).map_err(refused)?),
                found => Err(refused(format!("{found} processes of a daemon cannot be had; it has one"))),
            };
        }
        let pool = Arc::new(Pool::new(program, &producer.name).map_err(refused)?);
        let attached = self.attach(producer, Work::Program(pool.clone()));
        if attached.is_err() {
            pool.end();
        }
        attached
    }

    /// Has a daemon's program run, in place of the one that did before.
    fn keep_daemon(&self, daemon: ProducerDefinition, keeper: Keeper) -> Result<(), SchemaError> {
        let core = self.core();
        let keeper = Arc::new(keeper);
        let id = self.enlist(daemon)?;
        let before = {
            let _folder = core.enter()?;
            let mut closures = core.closures.write().unwrap_or_else(PoisonError::into_inner);
            // Whoever takes it out from here on finds its keeper.
            if !keeper.is_known(core, id) {
                return Err(CommitError::Graph(GraphError::UnknownProducer(id)).into());
            }
            // Whoever closes hangs up before it looks for keepers.
            if core.signals.is_hung_up() {
                return Err(CommitError::Closed.into());
            }
            closures.insert(id, Work::Daemon(keeper.clone()))
        };
        if let Some(before) = before.as_ref().and_then(Work::keeper) {
            before.end();
        }
        if core.options.workers == 0 {
            keeper.end();
            return Ok(());
        }
        let (attendance, kept) = (keeper.attend(), core.clone());
        let body = move || keep(&kept, &attendance, id);
        self.start_thread("underbelly-keeper".to_string(), body).map_err(|error| {
            let mut closures = core.closures.write().unwrap_or_else(PoisonError::into_inner);
            let is_own = |work: &Work| work.keeper().is_some_and(|found| Arc::ptr_eq(found, &keeper));
            let unused = if closures.get(&id).is_some_and(is_own) { closures.remove(&id) } else { None };
            drop(closures);
            drop(unused);
            let what = format!("a thread for producer {id} cannot be started: {error}");
            CommitError::Internal { what }.into()
        })
    }

    /// Sends what attends to a producer's processes to work, where it has some now, and home what attended to those before.
    pub(crate) fn hand_over(&self, producer: ProducerId, now: &Work) -> Result<(), SchemaError> {
        let core = self.core();
        core.signals.take_bell(producer);
        let Some(pool) = now.pool() else { return Ok(()) };
        {
            let state = core.state();
            if let Some(definition) = state.graph.producer(producer) {
                pool.introduce(&state.graph, definition);
            }
        }
        if core.options.workers == 0 {
            return Ok(());
        }
        let processes = pool.program().processes;
        let (ring, bell) = crossbeam_channel::bounded(processes);
        core.signals.hang_bell(producer, ring);
        for number in 0..processes {
            let (core, pool, bell) = (core.clone(), pool.clone(), bell.clone());
            let body = move || attend(&core, &pool, producer, &bell);
            self.start_thread(format!("underbelly-program-{number}"), body).map_err(|error| {
                let what = format!("a thread for producer {producer} cannot be started: {error}");
                SchemaError::from(Box::new(CommitError::Internal { what }))
            })?;
        }
        Ok(())
    }
}

impl Core {
    fn pools(&self) -> Vec<Arc<Pool>> {
        let closures = self.closures.read().unwrap_or_else(PoisonError::into_inner);
        closures.values().filter_map(Work::pool).cloned().collect()
    }

    fn keepers(&self) -> Vec<Arc<Keeper>> {
        let closures = self.closures.read().unwrap_or_else(PoisonError::into_inner);
        closures.values().filter_map(Work::keeper).cloned().collect()
    }

    fn remotes(&self) -> Vec<Arc<Remote>> {
        let closures = self.closures.read().unwrap_or_else(PoisonError::into_inner);
        closures.values().filter_map(Work::remote).cloned().collect()
    }

    /// Ends all processes of producers, and lets go of those that came by themselves.
    pub(crate) fn end_programs(&self) {
        self.remotes().iter().for_each(|remote| remote.end("the database is closed"));
        let (pools, keepers) = (self.pools(), self.keepers());
        let pools = pools.iter().map(|pool| Box::new(|| pool.end()) as Box<dyn Fn() + Send + Sync>);
        let keepers = keepers.iter().map(|keeper| Box::new(|| keeper.end()) as Box<dyn Fn() + Send + Sync>);
        let ends: Vec<_> = pools.chain(keepers).collect();
        std::thread::scope(|scope| {
            for end in &ends {
                // Where no thread is to be had, one after another.
                let spawned = std::thread::Builder::new().spawn_scoped(scope, end);
                if spawned.is_err() {
                    end();
                }
            }
        });
    }

    /// Ends the processes of a producer that was taken out.
    pub(crate) fn take_out(&self, producer: ProducerId, work: Option<&Work>) {
        self.signals.take_bell(producer);
        if let Some(pool) = work.and_then(Work::pool) {
            retire(pool.clone());
        }
        if let Some(keeper) = work.and_then(Work::keeper) {
            keeper.end();
        }
        if let Some(remote) = work.and_then(Work::remote) {
            remote.end("the producer was taken out");
        }
    }

    /// Tells processes that runs of theirs are cancelled.
    pub(crate) fn tell_cancelled(&self, runs: &[RunId], reason: &str) {
        if !runs.is_empty() {
            self.pools().iter().for_each(|pool| pool.cancel(runs, reason));
            self.remotes().iter().for_each(|remote| remote.cancel(runs, reason));
        }
    }
}
