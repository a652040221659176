//! A producer with runs whose process others have started: its end of a connection.

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender as Pass, TryRecvError, bounded, unbounded};
use underbelly_protocol::message::{Cancel, Goodbye, Message, Results, Run as RunMessage};
use underbelly_protocol::{ProtocolError, Sender};

use super::super::closure::{Called, Ended, Work, Worked};
use super::super::run::{Outputs, Run};
use super::super::worker::work_for;
use super::translate::{About, message};
use crate::core::Core;
use crate::error::Failure;
use crate::graph::{ProducerId, RunId};

/// How long a process that does not listen keeps a goodbye waiting.
const FAREWELL: Duration = Duration::from_secs(1);

/// Results, with the data beside them.
type Said = (Results, Vec<u8>);

/// The connection of a producer. The thread that reads it passes results on; the one that attends to it claims work.
pub(crate) struct Remote {
    about: About,
    process: u32,
    sender: Arc<Mutex<Sender<UnixStream>>>,
    /// The connection, of which the end waits for nobody.
    stream: UnixStream,
    /// Held while it has a batch: it gets the next when all of its runs are answered.
    results: Mutex<Receiver<Said>>,
    /// Taken away with the connection.
    pass: Mutex<Option<Pass<Said>>>,
    parting: Mutex<Parting>,
    working: Mutex<BTreeMap<RunId, u64>>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parting {
    /// Its process is gone.
    Lost,
    /// One of both has said goodbye, or another process took its place.
    Ended,
}

impl Remote {
    pub(crate) fn new(
        about: About,
        process: u32,
        sender: Arc<Mutex<Sender<UnixStream>>>,
        stream: UnixStream,
    ) -> Remote {
        let (pass, results) = unbounded();
        let (pass, results) = (Mutex::new(Some(pass)), Mutex::new(results));
        let parting = Mutex::new(Parting::Ended);
        Remote { about, process, sender, stream, results, pass, parting, working: Mutex::default() }
    }

    /// Gives it the work of its producer, with a bell of its own. Whoever had that before is let go.
    pub(crate) fn install(self: &Arc<Remote>, core: &Core, id: ProducerId, ring: Pass<()>) {
        let mut closures = core.closures.write().unwrap_or_else(PoisonError::into_inner);
        let before = closures.insert(id, Work::Remote(self.clone()));
        core.signals.hang_bell(id, ring);
        drop(closures);
        if let Some(before) = before.as_ref().and_then(Work::remote) {
            before.cut_off();
        }
    }

    /// Takes its work from it: that is nobody's until its process comes back, or its session is over.
    pub(crate) fn part(&self, core: &Core, id: ProducerId, parting: Parting) {
        *self.parting.lock().unwrap_or_else(PoisonError::into_inner) = parting;
        self.if_it_has(core, id, |_| {
            let (ring, _) = bounded(1);
            core.signals.hang_bell(id, ring);
            None
        });
        self.hang_up();
    }

    /// Takes it away from its producer, whose session is over.
    pub(crate) fn remove(&self, core: &Core, id: ProducerId) {
        self.if_it_has(core, id, |closures| {
            core.signals.take_bell(id);
            closures.remove(&id)
        });
    }

    /// Does something under the lock where the producer's work is its own, and not its successor's.
    fn if_it_has(
        &self,
        core: &Core,
        id: ProducerId,
        then: impl FnOnce(&mut BTreeMap<ProducerId, Work>) -> Option<Work>,
    ) {
        let mut closures = core.closures.write().unwrap_or_else(PoisonError::into_inner);
        let has = closures.get(&id).and_then(Work::remote).is_some_and(|work| std::ptr::eq(&**work, self));
        let taken = if has { then(&mut closures) } else { None };
        drop(closures);
        drop(taken);
    }

    /// Ends a connection that is over, without a word.
    fn cut_off(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        self.hang_up();
    }

    fn sender(&self) -> MutexGuard<'_, Sender<UnixStream>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn working(&self) -> MutexGuard<'_, BTreeMap<RunId, u64>> {
        self.working.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(&self) -> MutexGuard<'_, Option<Pass<Said>>> {
        self.pass.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what it said. What nobody waits for is dropped by who waits next.
    pub(crate) fn take(&self, results: Results, data: Vec<u8>) {
        if let Some(pass) = &*self.pass() {
            let _ = pass.send((results, data));
        }
    }

    /// The connection is gone: whoever waits for results waits no more.
    fn hang_up(&self) {
        self.pass().take();
    }

    /// Says goodbye and closes the connection.
    pub(crate) fn end(&self, reason: &str) {
        let goodbye = Goodbye { reason: reason.to_string(), leave: false };
        // Where somebody waits until it listens, it hears by the end of the connection.
        if let Ok(mut sender) = self.sender.try_lock() {
            let _ = self.stream.set_write_timeout(Some(FAREWELL));
            let _ = sender.send(&Message::Goodbye(goodbye));
        }
        self.cut_off();
    }

    /// Tells that runs are cancelled.
    pub(crate) fn cancel(&self, runs: &[RunId], reason: &str) {
        let mut told: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (run, batch) in &*self.working() {
            if runs.contains(run) {
                told.entry(*batch).or_default().push(run.0);
            }
        }
        for (batch, pids) in told {
            let cancel = Message::Cancel(Cancel { batch, pids, reason: reason.to_string() });
            if self.sender().send(&cancel).is_err() {
                self.cut_off();
            }
        }
    }

    /// What it gives for each run of a batch. Where its process is gone in the middle, that is what the death of a child is;
    /// where one of both has said goodbye, the runs are ready again.
    pub(in super::super) fn call(&self, runs: &[Run], epoch: u64) -> Called {
        let all = |failure: Failure| runs.iter().map(|_| Err(Ended::Failed(failure.clone()))).collect();
        let (run, data) = match message(runs, epoch) {
            Ok(message) => message,
            Err(failure) => return Called::here(all(failure)),
        };
        let batch = run.batch;
        let said = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        self.working().extend(runs.iter().map(|run| (run.id, batch)));
        let mut results: BTreeMap<RunId, Result<Outputs, Ended>> = BTreeMap::new();
        let asked = self.ask(run, &data, runs, &said, &mut results);
        self.working().retain(|id, _| runs.iter().all(|run| run.id != *id));
        drop(said);
        let unanswered = runs.len() - results.len();
        let parting = *self.parting.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = match (asked, parting) {
            (Err(error @ ProtocolError::TooLong { .. }), _) => {
                Ended::Failed(Failure::Fatal(error.to_string()))
            }
            (_, Parting::Ended) => Ended::Failed(Failure::rejected("its process left before it was done")),
            (_, Parting::Lost) => {
                Ended::gone(unanswered, "its process is gone: the connection was lost".to_string())
            }
        };
        let results = runs.iter().map(|run| results.remove(&run.id).unwrap_or_else(|| Err(ended.clone())));
        let worked = Some(Worked { process: self.process, stderr: String::new() });
        Called { results: results.collect(), worked }
    }

    fn ask(
        &self,
        run: RunMessage,
        data: &[u8],
        runs: &[Run],
        said: &Receiver<Said>,
        results: &mut BTreeMap<RunId, Result<Outputs, Ended>>,
    ) -> Result<(), ProtocolError> {
        let (batch, epoch) = (run.batch, run.epoch);
        let sent = self.sender().send_with(&Message::Run(run), data);
        match sent {
            Ok(()) => {}
            // Nothing was sent of what is too long.
            Err(error @ ProtocolError::TooLong { .. }) => return Err(error),
            // What it has said before counts.
            Err(_) => {
                let _ = self.stream.shutdown(Shutdown::Both);
            }
        }
        while results.len() < runs.len() {
            let Ok((answers, data)) = said.recv() else { return Ok(()) };
            if (answers.batch, answers.epoch) != (batch, epoch) {
                continue;
            }
            for result in answers.results {
                let id = RunId(result.pid);
                if let Some(run) = runs.iter().find(|run| run.id == id) {
                    let outputs = self.about.outputs(run, result, &data).map_err(Ended::Failed);
                    results.entry(id).or_insert(outputs);
                }
            }
        }
        Ok(())
    }
}

/// The life of a thread that attends to a producer that came over a socket, until its bell is taken away.
pub(crate) fn attend_remote(core: &Arc<Core>, producer: ProducerId, bell: &Receiver<()>) {
    loop {
        // A ring that comes now is heard below, or by the next claim.
        if bell.try_recv() == Err(TryRecvError::Disconnected) {
            return;
        }
        match work_for(core, producer) {
            Some(true) => {}
            Some(false) if bell.recv().is_ok() => {}
            Some(false) | None => return,
        }
    }
}
