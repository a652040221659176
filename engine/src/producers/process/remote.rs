//! A producer with runs whose process others have started: its end of a connection.

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender as Pass, TryRecvError, unbounded};
use underbelly_protocol::message::{Cancel, Goodbye, Message, Results, Run as RunMessage};
use underbelly_protocol::{ProtocolError, Sender};

use super::super::closure::{Called, Ended, Worked};
use super::super::run::{Outputs, Run};
use super::super::worker::work_for;
use super::translate::{About, message};
use crate::core::Core;
use crate::error::Failure;
use crate::graph::{ProducerId, RunId};

/// Results, with the data beside them.
type Said = (Results, Vec<u8>);

/// The connection of a producer. The thread that reads it passes results on; the one that attends to it claims work.
pub(crate) struct Remote {
    about: About,
    process: u32,
    sender: Arc<Mutex<Sender<UnixStream>>>,
    results: Receiver<Said>,
    /// Taken away with the connection.
    pass: Mutex<Option<Pass<Said>>>,
    working: Mutex<BTreeMap<RunId, u64>>,
}

impl Remote {
    pub(crate) fn new(about: About, process: u32, sender: Arc<Mutex<Sender<UnixStream>>>) -> Remote {
        let (pass, results) = unbounded();
        let pass = Mutex::new(Some(pass));
        Remote { about, process, sender, results, pass, working: Mutex::default() }
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
    pub(crate) fn hang_up(&self) {
        self.pass().take();
    }

    /// Says goodbye and closes the connection.
    pub(crate) fn end(&self, reason: &str) {
        let goodbye = Goodbye { reason: reason.to_string(), leave: false };
        let mut sender = self.sender();
        let _ = sender.send(&Message::Goodbye(goodbye));
        let _ = sender.output().shutdown(Shutdown::Both);
        drop(sender);
        self.hang_up();
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
            let _ = self.sender().send(&cancel);
        }
    }

    /// What it gives for each run of a batch. A connection that is lost fails no run: they are ready again.
    pub(in super::super) fn call(&self, runs: &[Run], epoch: u64) -> Called {
        let all = |failure: Failure| runs.iter().map(|_| Err(Ended::Failed(failure.clone()))).collect();
        let (run, data) = match message(runs, epoch) {
            Ok(message) => message,
            Err(failure) => return Called::here(all(failure)),
        };
        let batch = run.batch;
        self.working().extend(runs.iter().map(|run| (run.id, batch)));
        let mut results: BTreeMap<RunId, Result<Outputs, Ended>> = BTreeMap::new();
        let said = self.ask(run, &data, runs, &mut results);
        self.working().retain(|id, _| runs.iter().all(|run| run.id != *id));
        let lost = match said {
            Err(error @ ProtocolError::TooLong { .. }) => Failure::Fatal(error.to_string()),
            Err(error) => Failure::Rejected(format!("its connection was lost: {error}")),
            Ok(()) => Failure::Rejected("its connection was lost".to_string()),
        };
        let results = runs.iter().map(|run| {
            let result = results.remove(&run.id);
            result.unwrap_or_else(|| Err(Ended::Failed(lost.clone())))
        });
        let worked = Some(Worked { process: self.process, stderr: String::new() });
        Called { results: results.collect(), worked }
    }

    fn ask(
        &self,
        run: RunMessage,
        data: &[u8],
        runs: &[Run],
        results: &mut BTreeMap<RunId, Result<Outputs, Ended>>,
    ) -> Result<(), ProtocolError> {
        let (batch, epoch) = (run.batch, run.epoch);
        self.sender().send_with(&Message::Run(run), data)?;
        while results.len() < runs.len() {
            let Ok((answers, data)) = self.results.recv() else { return Ok(()) };
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
