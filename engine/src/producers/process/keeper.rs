//! A daemon's program: started, started again when it has ended, and seen off.
//!
//! The child says what a daemon says over a socket, and its session is its own: what it commits is committed once, by its
//! numbers, though it is killed and starts anew. Where it ends without a goodbye it is started again, later and later while it
//! ends soon.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use underbelly_protocol::message::{Complaint, Goodbye, Message};
use underbelly_protocol::{ProtocolError, VERSION};

use super::child::{Child, Process, Speaker};
use super::pool::note;
use super::translate::About;
use crate::core::Core;
use crate::graph::ProducerId;
use crate::producers::Program;
use crate::runs;
use crate::server::submit;
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
    process: Option<(Process, Speaker)>,
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
    pub(crate) fn new(program: Program, producer: &str) -> Keeper {
        Keeper { program, producer: producer.to_string(), kept: Mutex::default(), changed: Condvar::new() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.kept().is_over
    }

    /// A thread will look after it.
    pub(crate) fn attend(&self) {
        self.kept().is_attended = true;
    }

    /// Says goodbye to its process, and waits for its end; what has not ended in time is killed.
    pub(crate) fn end(&self) {
        let process = {
            let mut kept = self.kept();
            kept.is_over = true;
            kept.process.take()
        };
        self.changed.notify_all();
        if let Some((process, speaker)) = process {
            speaker.dismiss("it is not needed any more");
            process.wait(self.program.close_grace);
        }
        let attended = self.changed.wait_while(self.kept(), |kept| kept.is_attended);
        drop(attended);
    }

    /// Starts the process and serves it until its end.
    fn live(&self, core: &Arc<Core>, id: ProducerId) -> Ending {
        let program = self.program.program.display();
        let mut child = match Child::spawn(&self.program, &self.producer) {
            Ok(child) => child,
            Err(error) => return Ending::Ended(format!("program {program} cannot be started: {error}")),
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
        let Some(definition) = core.state().graph.producer(id).cloned() else { return Ending::Over };
        let lease = definition.lease.unwrap_or(Duration::MAX);
        let (heartbeat, grace) =
            (self.program.heartbeat.min(lease / 4), self.program.heartbeat_grace.min(lease));
        let mut begun = None;
        let greeted = child.greet(&self.program, &self.producer, || {
            let opening = core.leases.opening();
            let session = Session::check_free(core, id).and_then(|()| Session::resume(core, id));
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
                Message::Goodbye(Goodbye { leave, .. }) => {
                    let ended = if leave { session.leave() } else { session.close() };
                    // It hears by a complaint that it is still registered.
                    let answer = match ended {
                        Ok(()) => Message::Goodbye(Goodbye::default()),
                        Err(error) => Message::Complaint(Complaint {
                            about: "goodbye".to_string(),
                            message: error.to_string(),
                            ..Complaint::default()
                        }),
                    };
                    let _ = child.answer(&answer, grace);
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
pub(crate) fn keep(core: &Arc<Core>, keeper: &Keeper, id: ProducerId) {
    let Program { backoff, max_backoff, .. } = keeper.program;
    let (mut last_told, mut pause) = (String::new(), backoff);
    while !keeper.is_over() {
        let began = Instant::now();
        let ending = keeper.live(core, id);
        let is_known = core.state().graph.producer(id).is_some();
        let Ending::Ended(what) = ending else { break };
        if keeper.is_over() || core.signals.is_hung_up() || !is_known {
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
    keeper.kept().is_attended = false;
    keeper.changed.notify_all();
}
