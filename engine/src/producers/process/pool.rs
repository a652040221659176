//! The processes of a producer, and the threads that attend to them.
//!
//! Each process has a thread of its own in the engine, which claims batches of that producer alone, hands them over and waits
//! for the answers; so a slow program keeps no other producer from running. A process is started before there is work for it,
//! and again when it is gone; after one that could not start, later and later. While none could start, the work stays ready:
//! no attempt is used for what is no fault of a bundle.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};
use underbelly_protocol::Message;
use underbelly_protocol::message::Cancel;

use super::super::closure::{Called, Ended, Worked};
use super::super::run::{Outputs, Run};
use super::super::worker::{work_for, works_for};
use super::child::{Child, Ending, Process, Speaker};
use super::translate::About;
use crate::batch::{Batch, Row};
use crate::core::Core;
use crate::durability::Durability;
use crate::error::{CommitError, Failure};
use crate::graph::{Graph, ProducerDefinition, ProducerId, RunId};
use crate::operations::Operations;
use crate::producers::Program;
use crate::runs;

/// How often idle processes are listened to.
const LISTEN: Duration = Duration::from_secs(1);

/// The processes of one producer.
pub(crate) struct Pool {
    program: Program,
    producer: String,
    about: OnceLock<About>,
    places: Mutex<Places>,
    /// A batch has ended, or a process is idle or gone.
    changed: Condvar,
}

/// Why a process is not needed any more.
const OVER: &str = "the producer's processes were ended";

#[derive(Default)]
struct Places {
    /// Started and not greeted.
    unborn: Vec<Child>,
    /// Greeted, without work.
    idle: Vec<Child>,
    /// All that were started and are not gone, by their numbers.
    live: BTreeMap<u64, Process>,
    /// How many are being started.
    starting: usize,
    /// Runs in work: their batch, and who is to be told that one is cancelled.
    working: BTreeMap<RunId, (u64, Speaker)>,
    /// No process is started any more.
    is_over: bool,
    /// How many could not start in a row, and when the next is tried.
    failures: u32,
    next_start: Option<Instant>,
}

impl Places {
    /// How many processes there are, or are being started.
    fn there(&self) -> usize {
        self.live.len() - self.unborn.len() + self.starting
    }
}

impl Pool {
    /// A pool whose first process is started, and not greeted.
    pub(crate) fn new(program: Program, producer: &str) -> Result<Pool, String> {
        let pool = Pool {
            program,
            producer: producer.to_string(),
            about: OnceLock::new(),
            places: Mutex::default(),
            changed: Condvar::new(),
        };
        let first = pool.spawn()?;
        pool.places().unborn.push(first);
        Ok(pool)
    }

    pub(crate) fn program(&self) -> &Program {
        &self.program
    }

    /// Says what the producer is, before the first batch.
    pub(crate) fn introduce(&self, graph: &Graph, definition: &ProducerDefinition) {
        self.about.get_or_init(|| About::new(graph, definition, self.program.heartbeat));
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self) -> Result<Child, String> {
        let child = Child::spawn(&self.program, &self.producer).map_err(|error| {
            let program = self.program.program.display();
            let dir = self.program.dir.as_ref().map(|dir| format!(" in {}", dir.display()));
            format!("program {program} cannot be started{}: {error}", dir.unwrap_or_default())
        })?;
        let mut places = self.places();
        if places.is_over {
            return Err(OVER.to_string());
        }
        places.live.insert(child.process().number(), child.process().clone());
        drop(places);
        Ok(child)
    }

    fn forget(&self, child: &Child) {
        self.places().live.remove(&child.process().number());
        self.changed.notify_all();
    }

    /// Starts a process and greets it.
    fn start(&self) -> Result<Child, String> {
        let unborn = self.places().unborn.pop();
        let started = unborn.map_or_else(|| self.spawn(), Ok).and_then(|mut child| {
            let welcome = || Ok(self.about.get().map(|about| about.welcome.clone()).unwrap_or_default());
            match child.greet(&self.program, &self.producer, welcome) {
                Ok(()) => Ok(child),
                Err(what) => {
                    self.forget(&child);
                    Err(format!("program {} {what}", self.program.program.display()))
                }
            }
        });
        let mut places = self.places();
        match &started {
            Ok(_) => (places.failures, places.next_start) = (0, None),
            Err(_) => {
                let doubled = 2u32.checked_pow(places.failures).unwrap_or(u32::MAX);
                let wait = self.program.backoff.saturating_mul(doubled).min(self.program.max_backoff);
                places.failures = places.failures.saturating_add(1);
                places.next_start = Instant::now().checked_add(wait);
            }
        }
        started
    }

    /// Sees to it that as many processes are there as there may be. An error says why not; then it is too early for the next.
    fn fill(&self) -> Result<(), String> {
        self.listen();
        {
            let mut places = self.places();
            if places.is_over || places.there() >= self.program.processes {
                return Ok(());
            }
            places.starting += 1;
        }
        let started = self.start();
        let mut places = self.places();
        places.starting -= 1;
        drop(places);
        self.changed.notify_all();
        self.come_back(started?);
        Ok(())
    }

    /// Hears what an idle process says, which each thread does now and then for one.
    fn listen(&self) {
        let mut places = self.places();
        if places.idle.is_empty() {
            return;
        }
        let mut child = places.idle.remove(0);
        // Without the lock: it may take its time.
        drop(places);
        match child.is_sound() {
            true => self.come_back(child),
            false => self.forget(&child),
        }
    }

    /// A process has no work.
    fn come_back(&self, child: Child) {
        let mut places = self.places();
        if places.is_over {
            drop(places);
            child.speaker().dismiss(OVER);
            self.forget(&child);
            child.end(self.program.close_grace);
        } else {
            places.idle.push(child);
            drop(places);
        }
        self.changed.notify_all();
    }

    /// How long to wait before a process is tried again.
    fn backoff(&self) -> Option<Duration> {
        let next = self.places().next_start?;
        Some(next.saturating_duration_since(Instant::now())).filter(|wait| !wait.is_zero())
    }

    /// A process for a batch. Where as many are at work as there may be, one of them.
    fn take(&self) -> Result<Child, String> {
        loop {
            let mut places = self.places();
            let idle = loop {
                let idle = places.idle.pop();
                if idle.is_some() || places.is_over || places.there() < self.program.processes {
                    break idle;
                }
                places = self.changed.wait(places).unwrap_or_else(PoisonError::into_inner);
            };
            drop(places);
            let Some(mut child) = idle else { return self.start() };
            if child.is_sound() {
                return Ok(child);
            }
            self.forget(&child);
        }
    }

    /// What the program gives for each run of a batch.
    pub(in super::super) fn call(&self, runs: &[Run], epoch: u64) -> Called {
        let all = |ended: Ended| runs.iter().map(|_| Err(ended.clone())).collect();
        let rejected = |what: String| Called::here(all(Ended::Failed(Failure::Rejected(what))));
        let Some(about) = self.about.get() else {
            return rejected("the producer is not introduced".to_string());
        };
        let (run, data) = match about.message(runs, epoch) {
            Ok(message) => message,
            Err(failure) => return Called::here(all(Ended::spoilt(runs.len(), failure.to_string()))),
        };
        let mut results: BTreeMap<RunId, Result<Outputs, Ended>> = BTreeMap::new();
        let mut left = 0;
        let (mut child, ending) = loop {
            let mut child = match self.take() {
                Ok(child) => child,
                Err(what) => return rejected(what),
            };
            let speaker = child.speaker();
            {
                let mut places = self.places();
                let batch = run.batch;
                places.working.extend(runs.iter().map(|run| (run.id, (batch, speaker.clone()))));
            }
            drop(speaker);
            let ending = child.work(&self.program, run.clone(), &data, |result, data| {
                let id = RunId(result.pid);
                if let Some(run) = runs.iter().find(|run| run.id == id) {
                    results.insert(id, about.outputs(run, result, data).map_err(Ended::Failed));
                }
            });
            runs.iter().for_each(|run| drop(self.places().working.remove(&run.id)));
            match ending {
                // Another one does it, but where none ever does anything.
                Ending::Left if left < self.program.processes && !self.places().is_over => {
                    left += 1;
                    self.forget(&child);
                    child.end(self.program.close_grace);
                }
                ending => break (child, ending),
            }
        };
        let process = child.process().id();
        let ended = self.told(&ending, &mut child, runs.len() - results.len());
        let stderr = child.take_lines();
        match ending {
            Ending::Answered | Ending::TooLong(_) => self.come_back(child),
            Ending::Left | Ending::Gone(_) | Ending::Nonsense(_) => self.forget(&child),
        }
        let results = runs.iter().map(|run| results.remove(&run.id).unwrap_or_else(|| Err(ended.clone())));
        Called { results: results.collect(), worked: Some(Worked { process, stderr }) }
    }

    /// What became of the runs that were not answered.
    fn told(&self, ending: &Ending, child: &mut Child, unanswered: usize) -> Ended {
        if self.places().is_over {
            return Ended::Failed(Failure::rejected(OVER));
        }
        let mut with_lines = |what: String| match child.last_lines() {
            lines if lines.is_empty() => what,
            lines => format!("{what}; it last wrote: {lines}"),
        };
        match ending {
            Ending::Answered => Ended::Failed(Failure::rejected("")),
            Ending::Left => {
                let what = "its processes said goodbye before they took it";
                Ended::Failed(Failure::Rejected(with_lines(what.to_string())))
            }
            Ending::Gone(what) => Ended::gone(unanswered, with_lines(format!("its process {what}"))),
            Ending::Nonsense(what) => {
                let what = format!("its process broke the protocol and was killed: {what}");
                Ended::spoilt(unanswered, with_lines(what))
            }
            Ending::TooLong(what) => Ended::spoilt(unanswered, what.clone()),
        }
    }

    /// Tells processes that runs are cancelled.
    pub(crate) fn cancel(&self, runs: &[RunId], reason: &str) {
        let mut told: BTreeMap<u64, (Vec<u64>, Speaker)> = BTreeMap::new();
        for (run, (batch, speaker)) in &self.places().working {
            if runs.contains(run) {
                told.entry(*batch).or_insert_with(|| (Vec::new(), speaker.clone())).0.push(run.0);
            }
        }
        for (batch, (pids, speaker)) in told {
            speaker.say(&Message::Cancel(Cancel { batch, pids, reason: reason.to_string() }));
        }
    }

    /// Ends all processes: those without work at once, the others with their batch, and what has not ended then is killed.
    pub(crate) fn end(&self) {
        let grace = self.program.close_grace;
        let (idle, unborn) = {
            let mut places = self.places();
            places.is_over = true;
            (std::mem::take(&mut places.idle), std::mem::take(&mut places.unborn))
        };
        // Whoever waits for a process waits no longer.
        self.changed.notify_all();
        unborn.iter().chain(&idle).for_each(|child| self.forget(child));
        drop(unborn);
        idle.iter().for_each(|child| child.speaker().dismiss(OVER));
        let deadline = Instant::now().checked_add(grace);
        let left = || deadline.map_or(grace, |at| at.saturating_duration_since(Instant::now()));
        idle.into_iter().for_each(|child| child.end(left()));
        let places = self.places();
        let working = self.changed.wait_timeout_while(places, left(), |places| !places.working.is_empty());
        let (places, _) = working.unwrap_or_else(PoisonError::into_inner);
        let rest: Vec<Process> = places.live.values().cloned().collect();
        drop(places);
        rest.iter().for_each(Process::kill);
    }
}

/// The life of a thread that attends to a process of a producer, until the producer's bell is taken away.
pub(crate) fn attend(core: &Arc<Core>, pool: &Pool, producer: ProducerId, bell: &Receiver<()>) {
    works_for(core);
    let mut last_told = String::new();
    loop {
        if let Err(what) = pool.fill() {
            if pool.places().is_over {
                return;
            }
            if what != last_told {
                tell_unstarted(core, pool, &what);
                last_told = what;
            }
            if rest(pool, bell) { continue } else { return }
        }
        if bell.try_recv() == Err(TryRecvError::Disconnected) {
            return;
        }
        match work_for(core, producer) {
            Some(true) => {}
            Some(false) if bell.recv_timeout(LISTEN) != Err(RecvTimeoutError::Disconnected) => {}
            Some(false) | None => return,
        }
    }
}

/// Waits until another process may be tried; false where the bell is taken away.
fn rest(pool: &Pool, bell: &Receiver<()>) -> bool {
    while let Some(wait) = pool.backoff() {
        if bell.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected) {
            return false;
        }
    }
    true
}

/// Notes in the history of runs, and in the status, that a process could not be started.
fn tell_unstarted(core: &Core, pool: &Pool, what: &str) {
    core.note_trouble(format!("producer {:?}: {what}; it is tried again", pool.producer));
    let row = runs::ended_process(&pool.producer, "unstarted", what, core.options.clock.now());
    // A disk that refuses is told of by whoever has work.
    let _ = note(core, row);
}

/// Commits a row of the history.
pub(super) fn note(core: &Core, row: Row) -> Result<(), CommitError> {
    let folder = core.enter()?;
    let mut batch = Batch::new();
    batch.append(row)?;
    let (mut operations, mut pins) = (Box::<Operations>::default(), core.pending.pin());
    core.prepare_data(batch.appends, Vec::new(), &mut operations, &mut pins)?;
    let prepared = core.encode(operations, pins)?;
    let (commit, _) = core.sequence(prepared, Durability::Sync, |_| Ok(()))?;
    drop(folder);
    core.answer(commit.seq, Durability::Sync)
}

/// Ends a pool that was replaced or taken out, beside the caller.
pub(crate) fn retire(pool: Arc<Pool>) {
    let ended = pool.clone();
    let spawned = thread::Builder::new().name("underbelly-farewell".to_string()).spawn(move || ended.end());
    if spawned.is_err() {
        pool.end();
    }
}
