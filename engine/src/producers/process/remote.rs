//! A producer with runs whose process others have started: its end of a connection.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender as Pass, TryRecvError, bounded, unbounded};
use underbelly_protocol::message::{
    Cancel, Complaint, Goodbye, Message, Results, Run as RunMessage, RunResult, check_spans,
};
use underbelly_protocol::{ProtocolError, Sender};

use super::super::closure::{Called, Ended, Work, Worked};
use super::super::run::{Outputs, Run};
use super::super::worker::{work_for, works_for};
use super::pipe::Lines;
use super::translate::About;
use crate::core::Core;
use crate::error::Failure;
use crate::graph::{ProducerId, RunId};

/// How long a process that does not listen keeps a goodbye waiting.
const FAREWELL: Duration = Duration::from_secs(1);

/// Results, with the data beside them.
type Said = (Results, Vec<u8>);

/// A connection. Whoever reads, writes and ends it shares one descriptor.
#[derive(Clone)]
pub(crate) struct Wire(Arc<UnixStream>);

impl Wire {
    pub(crate) fn new(stream: UnixStream) -> Wire {
        Wire(Arc::new(stream))
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        &self.0
    }

    /// Ends the connection, and waits for nobody.
    pub(crate) fn end(&self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(buffer)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The connection of a producer. The thread that reads it passes results on; the one that attends to it claims work.
pub(crate) struct Remote {
    about: About,
    process: u32,
    wire: Wire,
    sender: Arc<Mutex<Sender<Wire>>>,
    /// Held while it has a batch: it gets the next when all of its runs are answered.
    results: Mutex<Receiver<Said>>,
    /// Whether it was welcomed, before which it is given nothing.
    is_welcome: AtomicBool,
    /// Taken away with the connection.
    pass: Mutex<Option<Pass<Said>>>,
    parting: Mutex<Parting>,
    working: Mutex<Working>,
    /// Cancellations that are to be told as soon as nobody else speaks.
    cancelled: Mutex<Vec<Message>>,
    lines: Mutex<Lines>,
}

/// The batch that it has, or had last.
#[derive(Default)]
struct Working {
    batch: u64,
    epoch: u64,
    /// What it has not answered.
    open: BTreeSet<RunId>,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Parting {
    /// Its process is gone.
    Lost,
    /// One of both has said goodbye, or another process took its place.
    Ended,
    /// It said what cannot be understood; what.
    Nonsense(String),
}

impl Remote {
    pub(crate) fn new(about: About, process: u32, sender: Arc<Mutex<Sender<Wire>>>, wire: Wire) -> Remote {
        let (pass, results) = unbounded();
        Remote {
            about,
            process,
            wire,
            sender,
            results: Mutex::new(results),
            is_welcome: AtomicBool::new(false),
            pass: Mutex::new(Some(pass)),
            parting: Mutex::new(Parting::Ended),
            working: Mutex::default(),
            cancelled: Mutex::default(),
            lines: Mutex::default(),
        }
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

    /// It was welcomed.
    pub(crate) fn welcome(&self) {
        self.is_welcome.store(true, Ordering::SeqCst);
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
        self.wire.end();
        self.hang_up();
    }

    fn sender(&self) -> MutexGuard<'_, Sender<Wire>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn working(&self) -> MutexGuard<'_, Working> {
        self.working.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(&self) -> MutexGuard<'_, Option<Pass<Said>>> {
        self.pass.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what it said of runs that it has in work. What comes too late is dropped; an error says what is wrong with it.
    pub(crate) fn take(&self, results: Results, data: Vec<u8>) -> Result<(), String> {
        let mut working = self.working();
        let Results { batch, epoch, .. } = results;
        if batch < working.batch || (batch == working.batch && working.open.is_empty()) {
            return Ok(());
        }
        if (batch, epoch) != (working.batch, working.epoch) {
            let Working { batch: has, epoch: at, .. } = *working;
            return Err(format!(
                "it answered batch {batch} of epoch {epoch} where it has batch {has} of epoch {at} in work"
            ));
        }
        check_spans(results.spans(), &data).map_err(|error| error.to_string())?;
        for RunResult { pid, .. } in &results.results {
            if !working.open.remove(&RunId(*pid)) {
                return Err(format!("it answered run {pid}, which it does not have in work"));
            }
        }
        if !results.results.is_empty()
            && let Some(pass) = &*self.pass()
        {
            let _ = pass.send((results, data));
        }
        Ok(())
    }

    /// Keeps a line that it wrote, for the history of its runs.
    pub(crate) fn take_line(&self, line: &str) {
        self.lines().push_line(line);
    }

    /// Takes a complaint; where that is of a batch, it cannot do it.
    pub(crate) fn take_complaint(&self, complaint: Complaint) -> Result<(), String> {
        match self.working().open.is_empty() {
            true => Ok(()),
            false => Err(format!("it cannot use {:?}: {}", complaint.about, complaint.message)),
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
            let _ = self.wire.stream().set_write_timeout(Some(FAREWELL));
            let _ = sender.send(&Message::Goodbye(goodbye));
        }
        self.cut_off();
    }

    /// Tells that runs are cancelled. Where somebody waits until it listens, that one tells it.
    pub(crate) fn cancel(&self, runs: &[RunId], reason: &str) {
        let working = self.working();
        let pids: Vec<u64> = working.open.iter().filter(|run| runs.contains(run)).map(|run| run.0).collect();
        if pids.is_empty() {
            return;
        }
        let cancel = Message::Cancel(Cancel { batch: working.batch, pids, reason: reason.to_string() });
        drop(working);
        self.cancelled.lock().unwrap_or_else(PoisonError::into_inner).push(cancel);
        self.tell();
    }

    /// Tells what is cancelled. Whoever has the sender meanwhile does it when he lets go, by another call of this.
    pub(crate) fn tell(&self) {
        let cancelled = || self.cancelled.lock().unwrap_or_else(PoisonError::into_inner);
        while !cancelled().is_empty() {
            let Ok(mut sender) = self.sender.try_lock() else { return };
            let due = std::mem::take(&mut *cancelled());
            if due.iter().any(|cancel| sender.send(cancel).is_err()) {
                self.cut_off();
            }
        }
    }

    /// What it gives for each run of a batch. Where its process is gone in the middle, that is what the death of a child is;
    /// where one of both has said goodbye, the runs are ready again.
    pub(in super::super) fn call(&self, runs: &[Run], epoch: u64) -> Called {
        let all = |ended: Ended| runs.iter().map(|_| Err(ended.clone())).collect();
        let (run, data) = match self.about.message(runs, epoch) {
            Ok(message) => message,
            Err(failure) => return Called::here(all(Ended::spoilt(runs.len(), failure.to_string()))),
        };
        let batch = run.batch;
        let said = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_welcome.load(Ordering::SeqCst) || self.pass().is_none() {
            return Called::here(all(Ended::Failed(Failure::rejected("its process is away"))));
        }
        *self.working() = Working { batch, epoch, open: runs.iter().map(|run| run.id).collect() };
        let mut results: BTreeMap<RunId, Result<Outputs, Ended>> = BTreeMap::new();
        let asked = self.ask(run, &data, runs, &said, &mut results);
        self.working().open.clear();
        drop(said);
        let unanswered = runs.len() - results.len();
        let parting = self.parting.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let ended = match (asked, parting) {
            (Err(error), _) => Ended::spoilt(unanswered, error.to_string()),
            (_, Parting::Nonsense(what)) => {
                Ended::spoilt(unanswered, format!("its process broke the protocol and was let go: {what}"))
            }
            (_, Parting::Ended) => Ended::Failed(Failure::rejected("its process left before it was done")),
            (_, Parting::Lost) => {
                Ended::gone(unanswered, "its process is gone: the connection was lost".to_string())
            }
        };
        let results = runs.iter().map(|run| results.remove(&run.id).unwrap_or_else(|| Err(ended.clone())));
        let worked = Some(Worked { process: self.process, stderr: self.lines().take() });
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
        let sent = self.sender().send_with(&Message::Run(run), data);
        match sent {
            Ok(()) => {}
            // Nothing was sent of what is too long.
            Err(error @ ProtocolError::TooLong { .. }) => return Err(error),
            // What it has said before counts.
            Err(_) => self.wire.end(),
        }
        self.tell();
        while results.len() < runs.len() {
            let Ok((answers, data)) = said.recv() else { return Ok(()) };
            for result in answers.results {
                let id = RunId(result.pid);
                if let Some(run) = runs.iter().find(|run| run.id == id) {
                    let outputs = self.about.outputs(run, result, &data).map_err(Ended::Failed);
                    results.insert(id, outputs);
                }
            }
        }
        Ok(())
    }
}

/// The life of a thread that attends to a producer that came over a socket, until its bell is taken away.
pub(crate) fn attend_remote(core: &Arc<Core>, producer: ProducerId, bell: &Receiver<()>) {
    works_for(core);
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
