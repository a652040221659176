//! A daemon's program: started, started again when it has ended, and seen off.
//!
//! The child says what a daemon says over a socket, and its session is its own: what it commits is committed once, by its
//! numbers, though it is killed and starts anew. Where it ends without a goodbye it is started again, later and later while it
//! ends soon.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use underbelly_protocol::message::{Complaint, Goodbye, Message};
use underbelly_protocol::{ProtocolError, VERSION};

use super::super::closure::told;
use super::child::{Child, Process, Speaker};
use super::pool::note;
use super::submit;
use super::translate::About;
use crate::core::Core;
use crate::graph::ProducerId;
use crate::producers::Program;
use crate::runs;
use crate::sessions::Session;

/// A daemon's program, and its process where one is there.
pub(crate) struct Keeper {
    program: Program,
    producer: String,
    kept: Mutex<Kept>,
    changed: Condvar,
}

#[derive(Default)]
struct Kept {
    /// It is not started any more.
    is_over: bool,
    /// A thread looks after it.
    is_attended: bool,
    /// Started, and not greeted, by whoever registered it.
    first: Option<Child>,
    process: Option<(Process, Speaker)>,
}

/// A thread looks after a keeper, or is about to: whoever ends that waits until this is gone.
pub(crate) struct Attendance(Arc<Keeper>);

impl Drop for Attendance {
    fn drop(&mut self) {
        self.0.kept().is_attended = false;
        self.0.changed.notify_all();
    }
}

/// How a process ended.
enum Ending {
    /// With a goodbye: it is not started again.
    Left,
    /// Its producer was taken out, or the database is closed.
    Over,
    /// Otherwise; how.
    Ended(String),
}

impl Keeper {
    /// With a process that is started, and not greeted.
    pub(crate) fn new(program: Program, producer: &str) -> Result<Keeper, String> {
        let (kept, changed) = (Mutex::default(), Condvar::new());
        let keeper = Keeper { program, producer: producer.to_string(), kept, changed };
        keeper.kept().first = Some(keeper.spawn()?);
        Ok(keeper)
    }

    fn spawn(&self) -> Result<Child, String> {
        Child::spawn(&self.program, &self.producer)
            .map_err(|error| format!("program {} cannot be started: {error}", self.program.program.display()))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.kept().is_over
    }

    /// Whether the producer was not taken out.
    pub(crate) fn is_known(&self, core: &Core, id: ProducerId) -> bool {
        core.state().graph.producer_by_name(&self.producer) == Some(id)
    }

    /// A thread will look after it.
    pub(crate) fn attend(self: &Arc<Keeper>) -> Attendance {
        self.kept().is_attended = true;
        Attendance(self.clone())
    }

    /// Says goodbye to its process, and waits for its end; what has not ended in time is killed. The thread that looks after it
    /// runs nobody's closures and waits for nobody who may be here.
    pub(crate) fn end(&self) {
        let (first, process) = {
            let mut kept = self.kept();
            kept.is_over = true;
            (kept.first.take(), kept.process.take())
        };
        self.changed.notify_all();
        drop(first);
        if let Some((process, speaker)) = process {
            speaker.dismiss("it is not needed any more");
            process.wait(self.program.close_grace);
        }
        let attended = self.changed.wait_while(self.kept(), |kept| kept.is_attended);
        drop(attended);
    }

    /// Starts the process and serves it until its end.
    fn live(&self, core: &Arc<Core>, id: ProducerId) -> Ending {
        let first = self.kept().first.take();
        let mut child = match first.map_or_else(|| self.spawn(), Ok) {
            Ok(child) => child,
            Err(what) => return Ending::Ended(what),
        };
        {
            let mut kept = self.kept();
            if kept.is_over {
                return Ending::Over;
            }
            kept.process = Some((child.process().clone(), child.speaker()));
        }
        let ending = self.serve(core, id, &mut child);
        self.kept().process = None;
        if let Ending::Left = ending {
            child.end(self.program.close_grace);
        }
        ending
    }

    fn serve(&self, core: &Arc<Core>, id: ProducerId, child: &mut Child) -> Ending {
        if !self.is_known(core, id) {
            return Ending::Over;
        }
        let Some(definition) = core.state().graph.producer(id).cloned() else { return Ending::Over };
        let lease = definition.lease.unwrap_or(Duration::MAX);
        let (heartbeat, grace) =
            (self.program.heartbeat.min(lease / 4), self.program.heartbeat_grace.min(lease));
        let mut begun = None;
        let greeted = child.greet(&self.program, &self.producer, || {
            let opening = core.leases.opening();
            let session = Session::check_free(core, id).and_then(|_| Session::resume(core, id));
            drop(opening);
            let session = session.map_err(|error| format!("got no session: {error}"))?;
            let mut welcome = About::new(&core.state().graph, &definition, heartbeat).welcome;
            (welcome.epoch, welcome.last) = (session.epoch(), session.last_sequence());
            begun = Some(session);
            Ok(welcome)
        });
        let session = match (greeted, begun) {
            (Ok(()), Some(session)) => session,
            (greeted, _) => {
                let what = greeted.err().unwrap_or_default();
                return Ending::Ended(format!("program {} {what}", self.program.program.display()));
            }
        };
        loop {
            let said = child.hear(grace).and_then(|(message, data)| match message {
                Message::Commit(commit) => {
                    let answer = submit::commit(core, Some(&session), commit, &data)?;
                    child.answer(&Message::Answer(answer), grace).map(|()| None)
                }
                Message::Unknown(about) => {
                    let message = format!("version {VERSION} has no such message");
                    let complaint = Complaint { about, message, ..Complaint::default() };
                    child.answer(&Message::Complaint(complaint), grace).map(|()| None)
                }
                Message::Heartbeat(_) => Ok(None),
                Message::Log(log) => {
                    child.keep_line(&log.line);
                    Ok(None)
                }
                Message::Goodbye(Goodbye { leave, .. }) => {
                    match if leave { session.leave() } else { session.close() } {
                        Ok(()) => Ok(Some(Message::Goodbye(Goodbye::default()))),
                        // It is here as before, and says so again, or ends and is started again.
                        Err(error) => {
                            let (about, message) = ("goodbye".to_string(), error.to_string());
                            let complaint = Complaint { about, message, ..Complaint::default() };
                            child.answer(&Message::Complaint(complaint), grace).map(|()| None)
                        }
                    }
                }
                other => Ok(Some(other)),
            });
            let last = match said {
                Ok(None) if session.beat().is_ok() => continue,
                Ok(None) => {
                    return Ending::Ended("gave no sign of life for its lease and was killed".to_string());
                }
                Ok(Some(last)) => last,
                Err(error) => return Ending::Ended(child.parting(error, grace)),
            };
            return match last {
                goodbye @ Message::Goodbye(_) => {
                    let _ = child.answer(&goodbye, grace);
                    Ending::Left
                }
                other => {
                    let what = format!("message {:?} has no place here", other.name());
                    Ending::Ended(child.parting(ProtocolError::Message { what }, grace))
                }
            };
        }
    }
}

/// The life of a thread that looks after a daemon's program.
pub(crate) fn keep(core: &Arc<Core>, attendance: &Attendance, id: ProducerId) {
    let Attendance(keeper) = attendance;
    let Program { backoff, max_backoff, .. } = keeper.program;
    let (mut last_told, mut pause) = (String::new(), backoff);
    while !keeper.is_over() {
        let began = Instant::now();
        let lived = catch_unwind(AssertUnwindSafe(|| keeper.live(core, id)));
        let ending = lived.unwrap_or_else(|panic| {
            keeper.kept().process = None;
            Ending::Ended(format!("the engine panicked at it: {}", told(panic)))
        });
        let Ending::Ended(what) = ending else { break };
        if keeper.is_over() || core.signals.is_hung_up() || !keeper.is_known(core, id) {
            break;
        }
        if began.elapsed() > max_backoff {
            (pause, last_told) = (backoff, String::new());
        }
        if what != last_told {
            core.note_trouble(format!("daemon {:?}: {what}; it is started again", keeper.producer));
            // A disk that refuses is told of by whoever has work.
            let _ =
                note(core, runs::ended_process(&keeper.producer, "ended", &what, core.options.clock.now()));
            last_told = what;
        }
        let waited = keeper.changed.wait_timeout_while(keeper.kept(), pause, |kept| !kept.is_over);
        drop(waited);
        pause = pause.saturating_mul(2).min(max_backoff);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_a_thread_that_was_not_to_be_had() {
        let keeper = Arc::new(Keeper::new(Program::new("cat"), "source").unwrap());
        drop(keeper.attend());
        keeper.end();
        assert!(keeper.kept().first.is_none());
    }
}
