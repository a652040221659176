//! A process that is connected.

use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use underbelly_protocol::message::{
    Answer, Code, Commit, CommitCell, Complaint, Deregister, Goodbye, Hello, Message, Verdict, Welcome,
};
use underbelly_protocol::{Field, ProtocolError, Receiver, Sender, VERSION, rows};
use underbelly_storage::Value;

use super::Shared;
use super::definition::definition;
use crate::batch::Batch;
use crate::error::{CommitError, SchemaError};
use crate::graph::{GraphError, ProducerId};
use crate::producers::{About, Remote, Work, attend_remote, fitted, slot_date};
use crate::sessions::{Accepted, Session};

/// How long a process may take until it has said hello, and how long it may not listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a session without a lease tells that it lives.
const HEARTBEAT: Duration = Duration::from_secs(5);

type Told = Arc<Mutex<Sender<UnixStream>>>;

fn say(sender: &Told, message: &Message) -> Result<(), ProtocolError> {
    sender.lock().unwrap_or_else(PoisonError::into_inner).send(message)
}

/// Why something is refused, and what that means.
struct Refusal(Code, String);

impl From<CommitError> for Refusal {
    fn from(error: CommitError) -> Refusal {
        let code = match &error {
            CommitError::Graph(GraphError::SessionTaken { .. }) => Code::Taken,
            CommitError::Graph(GraphError::SessionOver { .. }) | CommitError::Closed => Code::Over,
            _ => Code::Refused,
        };
        Refusal(code, error.to_string())
    }
}

impl From<SchemaError> for Refusal {
    fn from(error: SchemaError) -> Refusal {
        match error {
            SchemaError::Commit(error) => Refusal::from(*error),
            error => Refusal(Code::Refused, error.to_string()),
        }
    }
}

fn refused(what: impl Into<String>) -> Refusal {
    Refusal(Code::Refused, what.into())
}

/// The session of a connection, and its runs where it has some.
struct Open {
    session: Session,
    id: ProducerId,
    runs: Option<Arc<Remote>>,
}

/// Serves a connection until its end.
pub(super) fn serve(shared: &Shared, stream: UnixStream) -> Result<(), ProtocolError> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let sender: Told = Arc::new(Mutex::new(Sender::new(stream.try_clone()?)));
    let mut receiver = Receiver::new(BufReader::new(stream));
    let refuse = |about: &str, Refusal(code, message): Refusal| {
        let complaint = Complaint { about: about.to_string(), message, code };
        say(&sender, &Message::Complaint(complaint))
    };
    let hello = match receiver.receive() {
        Ok((Message::Hello(hello), _)) if hello.protocol == VERSION => hello,
        Ok((Message::Hello(hello), _)) => {
            let error = ProtocolError::Version { found: hello.protocol, ours: VERSION };
            return refuse("hello", refused(error.to_string()));
        }
        Ok((other, _)) => return refuse(other.name(), refused("say hello first")),
        Err(error) if error.is_end() => return Ok(()),
        Err(error) => return refuse("", refused(error.to_string())),
    };
    receiver.input().get_ref().set_read_timeout(None)?;
    let open = match hello.role.as_str() {
        "client" => None,
        "producer" => match open(shared, hello, &sender) {
            Ok(open) => Some(open),
            Err(refusal) => return refuse("hello", refusal),
        },
        other => return refuse("hello", refused(format!("no role {other:?}; be a client or a producer"))),
    };
    if open.is_none() {
        say(&sender, &Message::Welcome(Welcome { protocol: VERSION, ..Welcome::default() }))?;
    }
    let mut peer = Peer { shared, sender: sender.clone(), open };
    let ended = loop {
        match receiver.receive() {
            Ok((message, data)) => match peer.hear(message, data) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            },
            Err(error) if error.is_end() => break Ok(()),
            Err(error) => {
                let _ = refuse("", refused(error.to_string()));
                break Err(error);
            }
        }
    };
    peer.part();
    ended
}

/// Opens the session of a producer and welcomes it.
fn open(shared: &Shared, hello: Hello, sender: &Told) -> Result<Open, Refusal> {
    let core = shared.db.core();
    let name = hello.definition.as_ref().map_or(hello.producer, |definition| definition.name.clone());
    let known = core.state().graph.producer_by_name(&name);
    let id = match (known, hello.definition) {
        (None, _) if hello.epoch > 0 => {
            return Err(Refusal(Code::Over, format!("producer {name:?} was taken out")));
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
    let opening = shared.opening.lock().unwrap_or_else(PoisonError::into_inner);
    // A parked session that is over is as good as none.
    let parked = shared.parked().remove(&name).filter(|session| session.beat().is_ok());
    if parked.is_none() && core.state().graph.is_attached(id) {
        return Err(CommitError::from(GraphError::SessionTaken { producer: name }).into());
    }
    let (ring, bell) = crossbeam_channel::bounded(1);
    let runs = (!producer.daemon).then(|| Arc::new(Remote::new(about, hello.process, sender.clone())));
    if let Some(remote) = &runs {
        let mut closures = core.closures.write().unwrap_or_else(PoisonError::into_inner);
        let before = closures.insert(id, Work::Remote(remote.clone()));
        drop(closures);
        drop(before);
        core.signals.hang_bell(id, ring);
    }
    let session = parked.map_or_else(|| Session::open(core, id), Ok);
    let begun = session.map_err(Refusal::from).and_then(|session| {
        (welcome.epoch, welcome.last) = (session.epoch(), session.last_sequence());
        // Before it is given work.
        let told = say(sender, &Message::Welcome(welcome)).map_err(|error| refused(error.to_string()));
        let begun = told.and_then(|()| match &runs {
            None => Ok(()),
            Some(_) => {
                let core = core.clone();
                let body = move || attend_remote(&core, id, &bell);
                let started = shared.db.start_thread("underbelly-remote".to_string(), body);
                started.map_err(|error| refused(format!("no thread for it: {error}")))
            }
        });
        match begun {
            Ok(()) => Ok(session),
            Err(refusal) => {
                park(shared, session);
                Err(refusal)
            }
        }
    });
    drop(opening);
    match begun {
        Ok(session) => Ok(Open { session, id, runs }),
        Err(refusal) => {
            let_go(shared, id, runs.as_deref());
            Err(refusal)
        }
    }
}

/// Keeps the session of a lost connection for its process to come back; one without a lease ends.
fn park(shared: &Shared, session: Session) {
    if session.beat().is_ok() && session.has_lease() {
        shared.parked().insert(session.producer().to_string(), session);
    }
}

struct Peer<'a> {
    shared: &'a Shared,
    sender: Told,
    open: Option<Open>,
}

impl Peer<'_> {
    fn say(&self, message: &Message) -> Result<(), ProtocolError> {
        say(&self.sender, message)
    }

    fn refuse(&self, about: &str, Refusal(code, message): Refusal) -> Result<(), ProtocolError> {
        self.say(&Message::Complaint(Complaint { about: about.to_string(), message, code }))
    }

    /// Does what a message asks; false where it was the last.
    fn hear(&mut self, message: Message, data: Vec<u8>) -> Result<bool, ProtocolError> {
        match message {
            Message::Heartbeat(_) => {
                if let Some(open) = &self.open
                    && let Err(error) = open.session.beat()
                {
                    self.refuse("heartbeat", error.into())?;
                    return Ok(false);
                }
            }
            Message::Commit(commit) => {
                let answer = self.commit(commit, &data);
                self.say(&Message::Answer(answer))?;
            }
            Message::Results(results) => match self.open.as_ref().and_then(|open| open.runs.as_ref()) {
                Some(remote) => remote.take(results, data),
                None => self.refuse("results", refused("it was given no runs"))?,
            },
            Message::Deregister(Deregister { producer }) => {
                let done = self.shared.db.deregister(&producer).map(|commit| commit.seq);
                self.say(&Message::Answer(answer(0, done.map(Some))))?;
            }
            Message::Goodbye(Goodbye { leave, .. }) => {
                if let Some(Open { session, id, runs }) = self.open.take() {
                    let ended = if leave { session.leave() } else { session.close() };
                    let_go(self.shared, id, runs.as_deref());
                    if let Err(error) = ended {
                        self.refuse("goodbye", error.into())?;
                    }
                }
                self.say(&Message::Goodbye(Goodbye::default()))?;
                return Ok(false);
            }
            Message::Log(log) => {
                let who = self.open.as_ref().map_or("a client", |open| open.session.producer());
                self.shared.db.core().note_trouble(format!("{who}: {}", log.line));
            }
            Message::Complaint(_) => {}
            Message::Unknown(name) => {
                self.refuse(&name, refused(format!("version {VERSION} has no such message")))?;
            }
            other => self.refuse(other.name(), refused("it has no place here"))?,
        }
        Ok(true)
    }

    fn commit(&self, commit: Commit, data: &[u8]) -> Answer {
        let source = commit.source;
        let epoch = commit.epoch;
        let batch = match self.batch(commit, data) {
            Ok(batch) => batch,
            Err(Refusal(_, message)) => {
                return Answer { source, verdict: Verdict::Refused, seq: 0, message };
            }
        };
        let done = match &self.open {
            None => self.shared.db.commit(batch).map(|commit| Some(commit.seq)),
            Some(open) if open.session.epoch() != epoch => {
                let producer = open.session.producer().to_string();
                Err(GraphError::SessionOver { producer, epoch }.into())
            }
            Some(open) => open.session.commit_once(source, batch).map(|accepted| match accepted {
                Accepted::Now(commit) => Some(commit.seq),
                Accepted::Before => None,
            }),
        };
        answer(source, done)
    }

    fn batch(&self, commit: Commit, data: &[u8]) -> Result<Batch, Refusal> {
        let mut batch = Batch::new();
        for cell in commit.cells {
            let CommitCell { slot, date, key, rows: span } = cell;
            let (_, found) = self.shared.db.core().slot(&slot)?;
            let date =
                slot_date(&date).ok_or_else(|| refused(format!("slot {slot:?}: {} is no date", date.0)))?;
            let mut values = fitted(key, &found.cell_keys);
            let ordered: Option<Vec<Value>> =
                found.cell_keys.iter().map(|(name, _)| values.remove(name)).collect();
            let ordered = ordered.filter(|_| values.is_empty()).ok_or_else(|| {
                let names: Vec<&str> = found.cell_keys.iter().map(|(name, _)| name.as_str()).collect();
                refused(format!("slot {slot:?}: name each of its cell keys, {names:?}, and no other"))
            })?;
            match span {
                Some(span) => {
                    let rows = span.of(data).and_then(rows::decode);
                    let rows = rows.map_err(|error| refused(format!("slot {slot:?}: {error}")))?;
                    batch.put_slot(&slot, date, ordered, rows);
                }
                None => drop(batch.retract_slot(&slot, date, ordered)),
            }
        }
        for date in commit.end_of {
            let found = slot_date(&date)
                .ok_or_else(|| refused(format!("the end of {}, which is no date", date.0)))?;
            batch.end_of(found);
        }
        match commit.as_of {
            None => {}
            Some(Field(Value::Timestamp(made))) => drop(batch.as_of(made)),
            Some(other) => return Err(refused(format!("as_of is {}, which is no timestamp", other.0))),
        }
        Ok(batch)
    }

    /// The connection ends without a goodbye, or after one.
    fn part(&mut self) {
        let Some(Open { session, id, runs }) = self.open.take() else { return };
        let core = self.shared.db.core();
        if let Some(remote) = &runs {
            // Its work is nobody's until its process comes back, or its lease is over.
            let (ring, _) = crossbeam_channel::bounded(1);
            core.signals.hang_bell(id, ring);
            remote.hang_up();
        }
        park(self.shared, session);
        if !core.state().graph.is_attached(id) {
            let_go(self.shared, id, runs.as_deref());
        }
    }
}

/// Takes the runs of a session that is over from a connection.
fn let_go(shared: &Shared, id: ProducerId, runs: Option<&Remote>) {
    let Some(remote) = runs else { return };
    let core = shared.db.core();
    let mut closures = core.closures.write().unwrap_or_else(PoisonError::into_inner);
    let own = closures.get(&id).and_then(Work::remote).is_some_and(|work| std::ptr::eq(&**work, remote));
    let work = if own { closures.remove(&id) } else { None };
    drop(closures);
    if work.is_some() {
        core.signals.take_bell(id);
    }
    drop(work);
    remote.hang_up();
}

fn answer(source: u64, done: Result<Option<u64>, CommitError>) -> Answer {
    let (verdict, seq, message) = match done {
        Ok(Some(seq)) => (Verdict::Accepted, seq, String::new()),
        Ok(None) => (Verdict::Duplicate, 0, String::new()),
        Err(error) => {
            let Refusal(code, message) = error.into();
            let verdict = if code == Code::Over { Verdict::Fenced } else { Verdict::Refused };
            (verdict, 0, message)
        }
    };
    Answer { source, verdict, seq, message }
}
