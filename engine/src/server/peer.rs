//! A process that is connected.

use std::io::{self, BufReader, ErrorKind, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use underbelly_protocol::message::{Code, Complaint, Deregister, Goodbye, Hello, Message, Welcome};
use underbelly_protocol::{ProtocolError, Receiver, Sender, VERSION};

use super::Shared;
use super::definition::definition;
use crate::graph::ProducerId;
use crate::producers::submit::{self, Refusal, answer, refused};
use crate::producers::{About, Parting, Remote, Wire, attend_remote};
use crate::sessions::Session;

/// How long a process may take until it has said hello, and how long it may not listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a session without a lease tells that it lives.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// How often whoever waits looks whether the server is over.
const LOOK: Duration = Duration::from_secs(1);

type Told = Arc<Mutex<Sender<Wire>>>;

/// Tells what is refused.
fn complain(sender: &Told, about: &str, refusal: Refusal) -> Result<(), ProtocolError> {
    let Refusal::Told(code, message) = refusal else { return Err(ProtocolError::Closed) };
    say(sender, &Message::Complaint(Complaint { about: about.to_string(), message, code }))
}

fn say(sender: &Told, message: &Message) -> Result<(), ProtocolError> {
    sender.lock().unwrap_or_else(PoisonError::into_inner).send(message)
}

/// What a process says, until a time where there is one.
struct Inlet {
    wire: Wire,
    until: Option<Instant>,
}

impl Read for Inlet {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(until) = self.until {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.wire.stream().set_read_timeout(Some(left))?;
        }
        self.wire.read(buffer)
    }
}

/// The session of a connection, and its runs where it has some.
struct Open {
    session: Session,
    id: ProducerId,
    runs: Option<Runs>,
}

/// The runs of a connection.
struct Runs {
    remote: Arc<Remote>,
    /// Ends with the thread that attends to them.
    attended: crossbeam_channel::Receiver<()>,
}

/// Serves a connection until its end.
pub(super) fn serve(shared: &Shared, wire: &Wire) -> Result<(), ProtocolError> {
    wire.stream().set_write_timeout(Some(PATIENCE))?;
    let sender: Told = Arc::new(Mutex::new(Sender::new(wire.clone())));
    let inlet = Inlet { wire: wire.clone(), until: Instant::now().checked_add(PATIENCE) };
    let mut receiver = Receiver::new(BufReader::new(inlet));
    let refuse = |about: &str, refusal: Refusal| complain(&sender, about, refusal);
    let hello = match receiver.receive() {
        Ok((Message::Hello(hello), _)) if hello.protocol == VERSION => hello,
        Ok((Message::Hello(hello), _)) => {
            let error = ProtocolError::Version { found: hello.protocol, ours: VERSION };
            return refuse("hello", refused(error.to_string()));
        }
        Ok((other, _)) => return refuse(other.name(), refused("say hello first")),
        Err(error) if error.is_end() => return Ok(()),
        Err(error) if error.is_timeout() => {
            return refuse("", refused(format!("said no hello within {PATIENCE:?}")));
        }
        Err(error) => return refuse("", refused(error.to_string())),
    };
    receiver.input().get_mut().until = None;
    wire.stream().set_read_timeout(None)?;
    let open = match hello.role.as_str() {
        "client" => None,
        "producer" => match open(shared, hello, &sender, wire.clone()) {
            Ok(open) => Some(open),
            Err(refusal) => return refuse("hello", refusal),
        },
        other => return refuse("hello", refused(format!("no role {other:?}; be a client or a producer"))),
    };
    if open.is_none() {
        say(&sender, &Message::Welcome(Welcome { protocol: VERSION, ..Welcome::default() }))?;
    }
    let mut peer = Peer { shared, sender: sender.clone(), open };
    let parting = loop {
        match receiver.receive() {
            Ok((message, data)) => match peer.hear(message, data) {
                Ok(None) => {}
                Ok(Some(parting)) => break parting,
                Err(_) => break Parting::Lost,
            },
            Err(error) if error.is_end() => break Parting::Lost,
            Err(error) => break Parting::Nonsense(error.to_string()),
        }
    };
    if let Parting::Nonsense(what) = &parting {
        let _ = refuse("", refused(what.as_str()));
    }
    peer.part(parting);
    Ok(())
}

/// Opens the session of a producer and welcomes it.
fn open(shared: &Shared, hello: Hello, sender: &Told, wire: Wire) -> Result<Open, Refusal> {
    let core = shared.db.core();
    let name = hello.definition.as_ref().map_or(hello.producer, |definition| definition.name.clone());
    let known = core.state().graph.producer_by_name(&name);
    let id = match (known, hello.definition) {
        (None, _) if hello.epoch > 0 => {
            return Err(Refusal::Told(Code::Over, format!("producer {name:?} was taken out")));
        }
        (None, None) => return Err(refused(format!("producer {name:?} is not registered; say what it is"))),
        (Some(id), None) => id,
        (_, Some(given)) => {
            let given = definition(&core.state().graph, given);
            shared.db.enlist(given)?
        }
    };
    let producer = core.state().graph.producer(id).cloned();
    let producer = producer.ok_or_else(|| refused("the producer was taken out meanwhile"))?;
    let heartbeat = producer.lease.map_or(HEARTBEAT, |lease| (lease / 4).min(HEARTBEAT));
    let about = About::new(&core.state().graph, &producer, heartbeat);
    let mut welcome = about.welcome.clone();
    // Whoever comes second finds the session of the first.
    let opening = core.leases.opening();
    Session::check_free(core, id)?;
    if hello.epoch > 0 && core.state().graph.lost_at(id).is_some() {
        let what = "gave no sign of life for its lease, and its session is over";
        return Err(Refusal::Told(Code::Over, format!("producer {name:?} {what}")));
    }
    let (done, attended) = crossbeam_channel::bounded(0);
    let runs = (!producer.daemon).then(|| {
        let (ring, bell) = crossbeam_channel::bounded(1);
        let remote = Arc::new(Remote::new(about, hello.process, sender.clone(), wire));
        // Before the session begins, so that no worker takes its work.
        remote.install(core, id, ring);
        (Runs { remote, attended }, bell)
    });
    let (runs, bell) = runs.unzip();
    let session = match Session::resume(core, id) {
        Ok(session) => session,
        Err(error) => {
            if let Some(Runs { remote, .. }) = &runs {
                remote.part(core, id, Parting::Ended);
                if !core.state().graph.is_attached(id) {
                    remote.remove(core, id);
                }
            }
            return Err(error.into());
        }
    };
    // From here on it has its session: nobody waits until it listens.
    drop(opening);
    (welcome.epoch, welcome.last) = (session.epoch(), session.last_sequence());
    let open = Open { session, id, runs };
    // Before it is given work.
    let told = say(sender, &Message::Welcome(welcome)).map_err(|error| refused(error.to_string()));
    let begun = told.and_then(|()| match bell {
        None => Ok(()),
        Some(bell) => {
            open.runs.iter().for_each(|runs| runs.remote.welcome());
            let core = core.clone();
            let body = move || {
                attend_remote(&core, id, &bell);
                drop(done);
            };
            let started = shared.db.start_thread("underbelly-remote".to_string(), body);
            started.map_err(|error| refused(format!("no thread for it: {error}")))
        }
    });
    match begun {
        Ok(()) => Ok(open),
        Err(refusal) => {
            open.end(shared, Parting::Lost, drop);
            Err(refusal)
        }
    }
}

impl Open {
    /// Ends the work of a connection, and then its session in a way.
    fn end<T>(self, shared: &Shared, parting: Parting, end: impl FnOnce(Session) -> T) -> T {
        let core = shared.db.core();
        let Open { session, id, runs } = self;
        if let Some(Runs { remote, attended }) = &runs {
            remote.part(core, id, parting);
            // What it has in work is ended first: else the end of the session cuts it off.
            // Nobody waits for a disk that is full at the end of the server.
            while attended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) && !shared.is_over() {}
        }
        let ended = end(session);
        if let Some(Runs { remote, .. }) = runs
            && !core.state().graph.is_attached(id)
        {
            remote.remove(core, id);
        }
        ended
    }
}

struct Peer<'a> {
    shared: &'a Shared,
    sender: Told,
    open: Option<Open>,
}

impl Peer<'_> {
    fn say(&self, message: &Message) -> Result<(), ProtocolError> {
        let said = say(&self.sender, message);
        self.tell();
        said
    }

    /// Tells of runs that were cancelled while something else was said.
    fn tell(&self) {
        if let Some(runs) = self.open.as_ref().and_then(|open| open.runs.as_ref()) {
            runs.remote.tell();
        }
    }

    fn refuse(&self, about: &str, refusal: Refusal) -> Result<(), ProtocolError> {
        let complained = complain(&self.sender, about, refusal);
        self.tell();
        complained
    }

    /// Does what a message asks; how it parts where that was the last.
    fn hear(&mut self, message: Message, data: Vec<u8>) -> Result<Option<Parting>, ProtocolError> {
        match message {
            Message::Heartbeat(_) => {
                if let Some(open) = &self.open
                    && let Err(error) = open.session.beat()
                {
                    self.refuse("heartbeat", error.into())?;
                    return Ok(Some(Parting::Lost));
                }
            }
            Message::Commit(commit) => {
                let session = self.open.as_ref().map(|open| &open.session);
                let answer = submit::commit(self.shared.db.core(), session, commit, &data)?;
                self.say(&Message::Answer(answer))?;
            }
            Message::Results(results) => match self.open.as_ref().and_then(|open| open.runs.as_ref()) {
                Some(runs) => return Ok(runs.remote.take(results, data).err().map(Parting::Nonsense)),
                None => self.refuse("results", refused("it was given no runs"))?,
            },
            Message::Deregister(Deregister { producer }) => {
                let done = self.shared.db.deregister(&producer).map(|commit| commit.seq);
                self.say(&Message::Answer(answer(0, done.map(Some))?))?;
            }
            Message::Goodbye(Goodbye { leave, .. }) => {
                if let Some(open) = self.open.take() {
                    let end = |session: Session| if leave { session.leave() } else { session.close() };
                    if let Err(error) = open.end(self.shared, Parting::Ended, end) {
                        self.refuse("goodbye", error.into())?;
                    }
                }
                self.say(&Message::Goodbye(Goodbye::default()))?;
                return Ok(Some(Parting::Ended));
            }
            // That of a daemon or a client has no place in the history.
            Message::Log(log) => {
                if let Some(runs) = self.open.as_ref().and_then(|open| open.runs.as_ref()) {
                    runs.remote.take_line(&log.line);
                }
            }
            Message::Complaint(complaint) => {
                if let Some(runs) = self.open.as_ref().and_then(|open| open.runs.as_ref()) {
                    return Ok(runs.remote.take_complaint(complaint).err().map(Parting::Nonsense));
                }
            }
            Message::Unknown(name) => {
                self.refuse(&name, refused(format!("version {VERSION} has no such message")))?;
            }
            other => self.refuse(other.name(), refused("it has no place here"))?,
        }
        Ok(None)
    }

    /// The connection ends without a goodbye, or after one. A session with a lease waits for its process to come back.
    fn part(&mut self, parting: Parting) {
        let parting = if self.shared.is_over() { Parting::Ended } else { parting };
        if let Some(open) = self.open.take() {
            open.end(self.shared, parting, drop);
        }
    }
}

impl Drop for Peer<'_> {
    /// Also where the engine panics in between.
    fn drop(&mut self) {
        self.part(Parting::Lost);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::*;

    #[test]
    fn a_byte_now_and_then_is_no_hello() {
        let (mut slow, stream) = UnixStream::pair().unwrap();
        let dripping = thread::spawn(move || {
            while slow.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(2));
            }
        });
        let until = Some(Instant::now() + Duration::from_millis(50));
        let mut inlet = Inlet { wire: Wire::new(stream), until };
        let late = io::copy(&mut inlet, &mut io::sink()).unwrap_err();
        assert!(matches!(late.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock), "{late}");
        drop(inlet);
        dripping.join().unwrap();
    }
}
