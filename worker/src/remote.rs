//! Processes that connect to an engine over a Unix socket, in any order, and again when the engine was gone.
//!
//! A [`Daemon`] commits when it likes, each commit once; a [`Producer`] is given runs; a [`Client`] commits as anybody does,
//! and takes producers out. All give a sign of life by themselves. One that is connected when the engine ends waits for
//! the next engine there, as long as its patience lasts.
//!
//! ```no_run
//! use std::time::Duration;
//! use underbelly_worker::remote::{Cells, Daemon};
//! use underbelly_worker::{Columns, Definition, Timestamp};
//!
//! let definition = Definition::daemon("generator-1000").provides_as("Signal", "1000").lease(Duration::from_secs(30));
//! let mut daemon = Daemon::connect("hub.socket", definition, Duration::from_secs(60))?;
//! let minute = Timestamp(1_704_186_000_000_000_000);
//! let rows = Columns::new().with("x", vec![0.5].into())?;
//! daemon.commit_once(minute.0 as u64, &Cells::new().put("Signal", minute, [("generator", "1000")], rows))?;
//! daemon.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::io::{BufReader, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use underbelly_protocol::definition::Definition;
use underbelly_protocol::limits::DATA_BYTES_MAX;
use underbelly_protocol::message::{
    Answer, Code, Commit, CommitCell, Complaint, Deregister, Due, Goodbye, Heartbeat, Hello, KeyFields,
    Message, Metadata, Span, Verdict, Welcome,
};
use underbelly_protocol::{Connection, Field, ProtocolError, Receiver, Sender, VERSION, rows};
use underbelly_storage::{Columns, Timestamp, Value};

use crate::outputs::{Failure, Outputs, encode_models};
use crate::run::Run;
use crate::serve::{End, Lost, heartbeat, hello, one_by_one, serve_connection, take_streams};
use crate::stream::Stream;

/// How long to wait before an engine is looked for again.
const LOOK: Duration = Duration::from_millis(20);

/// How long a session that somebody has is asked for again: the engine may not have heard yet that its process is gone. Who had
/// it before asks as long as its patience lasts.
const TAKEN: Duration = Duration::from_millis(500);

/// How long an engine that lets somebody in may take to say so, of whoever has less patience.
const WELCOME: Duration = Duration::from_secs(10);

/// The same for one that was stopped, which has a goodbye to say.
const PARTING: Duration = Duration::from_secs(2);

/// Why something could not be done over a connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// No engine is there.
    #[error("no engine answers at {path:?}: {what}")]
    NoEngine {
        /// The socket.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// Another process has the session of this producer.
    #[error("{0}")]
    Taken(String),
    /// The session is over: it was lost, or its producer was taken out. Nothing was changed. Whoever begins anew, with another
    /// `connect`, gets another session.
    #[error("{0}")]
    Fenced(String),
    /// The engine refused. Nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// The engine cannot be understood.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

/// What is committed together.
#[derive(Clone, Debug, Default)]
pub struct Cells {
    cells: Vec<(CommitCell, Option<Columns>)>,
    models: Vec<(Metadata, Vec<u8>)>,
    end_of: Vec<Field>,
    due: Vec<Due>,
    as_of: Option<Field>,
}

impl Cells {
    /// Nothing yet.
    pub fn new() -> Cells {
        Cells::default()
    }

    /// Puts the rows of a cell. The date is a [`Date`](crate::Date) or a [`Timestamp`].
    pub fn put<V: Into<Value>>(
        self,
        slot: &str,
        date: impl Into<Value>,
        key: impl IntoIterator<Item = (&'static str, V)>,
        rows: Columns,
    ) -> Cells {
        self.give(slot, date.into(), key, Some(rows))
    }

    /// Takes a cell back.
    pub fn retract<V: Into<Value>>(
        self,
        slot: &str,
        date: impl Into<Value>,
        key: impl IntoIterator<Item = (&'static str, V)>,
    ) -> Cells {
        self.give(slot, date.into(), key, None)
    }

    fn give<V: Into<Value>>(
        mut self,
        slot: &str,
        date: Value,
        key: impl IntoIterator<Item = (&'static str, V)>,
        rows: Option<Columns>,
    ) -> Cells {
        let key: KeyFields =
            key.into_iter().map(|(name, value)| (name.to_string(), Field(value.into()))).collect();
        self.cells.push((CommitCell { slot: slot.to_string(), date: Field(date), key, rows: None }, rows));
        self
    }

    /// Puts a version of a model, whose type is a slot of models: it is the content of the cell of the day of its `timestamp` and
    /// of the attributes that are its keys.
    pub fn put_model(mut self, metadata: Metadata, blob: impl Into<Vec<u8>>) -> Cells {
        self.models.push((metadata, blob.into()));
        self
    }

    /// Says that no further keys come for a date.
    pub fn end_of(mut self, date: impl Into<Value>) -> Cells {
        self.end_of.push(Field(date.into()));
        self
    }

    /// Says that something is to be in a slot for a date by then: an alarm sounds where nothing is.
    pub fn due_by(mut self, slot: &str, date: impl Into<Value>, by: Timestamp) -> Cells {
        let (slot, date) = (slot.to_string(), Field(date.into()));
        self.due.push(Due { slot, date, by: Field(Value::Timestamp(by)) });
        self
    }

    /// Says when it was made.
    pub fn as_of(mut self, made: Timestamp) -> Cells {
        self.as_of = Some(Field(Value::Timestamp(made)));
        self
    }

    fn encode(&self, epoch: u64, source: u64) -> Result<(Message, Vec<u8>), ProtocolError> {
        let mut data = Vec::new();
        let mut cells = Vec::with_capacity(self.cells.len());
        for (cell, given) in &self.cells {
            let mut cell = cell.clone();
            if let Some(given) = given {
                let at = data.len() as u64;
                rows::encode(given.clone(), &mut data)?;
                cell.rows = Some(Span { at, bytes: data.len() as u64 - at });
            }
            cells.push(cell);
        }
        let models = self.models.iter().map(|(metadata, blob)| (metadata, &blob[..]));
        let models = encode_models(models, &mut data, DATA_BYTES_MAX)?;
        let (end_of, due, as_of) = (self.end_of.clone(), self.due.clone(), self.as_of.clone());
        Ok((Message::Commit(Commit { epoch, source, cells, models, end_of, due, as_of }), data))
    }
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It was committed now, as this transaction.
    Now(u64),
    /// It was committed before.
    Before,
}

/// A connection that was welcomed.
struct Link {
    receiver: Receiver<BufReader<Stream>>,
    sender: Arc<Mutex<Sender<Stream>>>,
    welcome: Welcome,
}

fn lock(sender: &Mutex<Sender<Stream>>) -> MutexGuard<'_, Sender<Stream>> {
    sender.lock().unwrap_or_else(PoisonError::into_inner)
}

fn of(complaint: Complaint) -> RemoteError {
    match complaint.code {
        Code::Taken => RemoteError::Taken(complaint.message),
        Code::Over => RemoteError::Fenced(complaint.message),
        Code::Refused => RemoteError::Refused(complaint.message),
    }
}

impl Link {
    /// Connects and says hello; waits for an engine as long as that, or until it is stopped.
    fn open(
        path: &Path,
        hello: &Hello,
        patience: Duration,
        stop: Option<&Stop>,
    ) -> Result<Link, RemoteError> {
        let began = Instant::now();
        loop {
            let left = patience.saturating_sub(began.elapsed());
            let error = match Link::try_open(path, hello, left.max(WELCOME), stop) {
                Err(error) => error,
                opened => return opened,
            };
            let is_stopped = stop.is_some_and(Stop::is_stopped);
            let bound = match &error {
                RemoteError::Taken(_) if hello.epoch > 0 && !is_stopped => patience,
                RemoteError::Taken(_) => patience.min(TAKEN),
                _ if is_stopped => return Err(error),
                RemoteError::NoEngine { .. } => patience,
                RemoteError::Protocol(error) if error.is_end() => patience,
                _ => return Err(error),
            };
            if began.elapsed() >= bound {
                return Err(error);
            }
            thread::sleep(LOOK);
        }
    }

    fn try_open(
        path: &Path,
        hello: &Hello,
        within: Duration,
        stop: Option<&Stop>,
    ) -> Result<Link, RemoteError> {
        let none = |what: String| RemoteError::NoEngine { path: path.to_path_buf(), what };
        let socket = UnixStream::connect(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => none(error.to_string()),
            _ => ProtocolError::from(error).into(),
        })?;
        let input = Stream::Socket(socket);
        let output = input.try_clone().map_err(ProtocolError::from)?;
        let mut sender = Sender::new(output);
        sender.send(&Message::Hello(hello.clone()))?;
        let began = Instant::now();
        while !input.is_readable(LOOK) {
            let within = if stop.is_some_and(Stop::is_stopped) { within.min(PARTING) } else { within };
            if began.elapsed() >= within {
                return Err(none("it says no welcome".to_string()));
            }
        }
        input.set_read_timeout(Some(within)).map_err(ProtocolError::from)?;
        match Link::welcomed(Receiver::new(BufReader::new(input)), sender) {
            Ok(mut link) => {
                let input = link.receiver.input().get_ref();
                input.set_read_timeout(None).map_err(ProtocolError::from)?;
                Ok(link)
            }
            Err(RemoteError::Protocol(error)) if error.is_timeout() => {
                Err(none("it says half a welcome".to_string()))
            }
            refused => refused,
        }
    }

    /// Takes the answer to a hello.
    fn welcomed(
        mut receiver: Receiver<BufReader<Stream>>,
        sender: Sender<Stream>,
    ) -> Result<Link, RemoteError> {
        match receiver.receive()? {
            (Message::Welcome(welcome), _) if welcome.protocol == VERSION => {
                Ok(Link { receiver, sender: Arc::new(Mutex::new(sender)), welcome })
            }
            (Message::Welcome(welcome), _) => {
                Err(ProtocolError::Version { found: welcome.protocol, ours: VERSION }.into())
            }
            (Message::Complaint(complaint), _) => Err(of(complaint)),
            (Message::Goodbye(_), _) => Err(ProtocolError::Closed.into()),
            (other, _) => {
                let what = format!("{:?} came before a welcome", other.name());
                Err(ProtocolError::Message { what }.into())
            }
        }
    }

    /// Sends; where the connection is gone, it is over for the reason that the engine gave.
    fn send(&mut self, message: &Message, data: &[u8]) -> Result<(), RemoteError> {
        let sent = lock(&self.sender).send_with(message, data);
        match sent {
            Err(error) if error.is_end() => Err(self.last_word().unwrap_or_else(|| error.into())),
            sent => Ok(sent?),
        }
    }

    fn last_word(&mut self) -> Option<RemoteError> {
        loop {
            match self.receiver.receive().ok()?.0 {
                Message::Complaint(complaint) if complaint.code == Code::Over => return Some(of(complaint)),
                _ => {}
            }
        }
    }

    /// Takes what came while nothing was asked.
    fn look(&mut self) -> Result<(), RemoteError> {
        loop {
            let input = self.receiver.input();
            if input.buffer().is_empty() && !input.get_ref().is_readable(Duration::ZERO) {
                return Ok(());
            }
            match self.receiver.receive()?.0 {
                Message::Complaint(complaint) if complaint.code == Code::Over => return Err(of(complaint)),
                Message::Goodbye(_) => return Err(ProtocolError::Closed.into()),
                _ => {}
            }
        }
    }

    /// Sends what is answered.
    fn ask(&mut self, message: &Message, data: &[u8]) -> Result<Answer, RemoteError> {
        let source = if let Message::Commit(commit) = message { commit.source } else { 0 };
        self.send(message, data)?;
        loop {
            match self.receiver.receive()? {
                (Message::Answer(answer), _) if answer.source == source => return Ok(answer),
                (Message::Complaint(complaint), _) => return Err(of(complaint)),
                (Message::Goodbye(_), _) => return Err(ProtocolError::Closed.into()),
                _ => {}
            }
        }
    }

    /// Says goodbye and waits for the answer.
    fn part(&mut self, leave: bool) -> Result<(), RemoteError> {
        self.send(&goodbye(leave), &[])?;
        loop {
            match self.receiver.receive()? {
                (Message::Goodbye(goodbye), _) if is_answer(&goodbye) => return Ok(()),
                (Message::Goodbye(_), _) => return Err(ProtocolError::Closed.into()),
                (Message::Complaint(complaint), _) => return Err(of(complaint)),
                _ => {}
            }
        }
    }
}

fn goodbye(leave: bool) -> Message {
    Message::Goodbye(Goodbye { leave, ..Goodbye::default() })
}

/// Whether the engine answers a goodbye. Where it goes by itself it says why.
fn is_answer(goodbye: &Goodbye) -> bool {
    goodbye.reason.is_empty()
}

/// Gives signs of life until it is dropped.
struct Pulse {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pulse {
    /// Where `ends` is true the process ends with its connection.
    fn begin(link: &mut Link, ends: bool) -> Result<Pulse, ProtocolError> {
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, sender) = (is_over.clone(), link.sender.clone());
        let every = heartbeat(&link.welcome);
        let input = if ends { Some(link.receiver.input().get_ref().try_clone()?) } else { None };
        let thread = thread::Builder::new().name("underbelly-pulse".to_string()).spawn(move || {
            let mut last = Instant::now();
            loop {
                match &input {
                    None => thread::park_timeout(every),
                    Some(input) if input.is_closed(every.min(LOOK)) => process::exit(0),
                    Some(_) => {}
                }
                if over.load(Ordering::SeqCst) {
                    return;
                }
                // Where it looks whether the engine is gone it looks more often than it is to tell that it lives.
                if last.elapsed() < every {
                    continue;
                }
                last = Instant::now();
                // A connection that is gone is noticed by whoever needs it.
                if lock(&sender).send(&Message::Heartbeat(Heartbeat::default())).is_err() {
                    return;
                }
            }
        })?;
        Ok(Pulse { is_over, thread: Some(thread) })
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// A producer that commits when it likes, in a session.
pub struct Daemon {
    /// How it connects again, unless the engine has started it: then it ends with its connection.
    way: Option<Way>,
    link: Link,
    pulse: Option<Pulse>,
}

/// How to connect to an engine.
struct Way {
    path: PathBuf,
    hello: Hello,
    patience: Duration,
}

fn hello_of(definition: Definition) -> Hello {
    Hello { producer: definition.name.clone(), definition: Some(definition), ..hello("producer") }
}

impl Daemon {
    /// Registers the daemon, unless it is, and opens its session. Waits for an engine as long as that, then and later.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn connect(
        path: impl AsRef<Path>,
        definition: Definition,
        patience: Duration,
    ) -> Result<Daemon, RemoteError> {
        let way = Way { path: path.as_ref().to_path_buf(), hello: hello_of(definition), patience };
        let link = Link::open(&way.path, &way.hello, patience, None)?;
        let mut daemon = Daemon { way: Some(way), link, pulse: None };
        daemon.begin()?;
        Ok(daemon)
    }

    /// The daemon whose program this process is, started by the engine as `Database::register_program` was told. Standard output
    /// belongs to the protocol: what is printed goes to standard error. The process ends when the engine says goodbye or is gone,
    /// wherever it is then: what was not answered is sent again by the next, which begins behind [`Daemon::last`]. After
    /// [`Daemon::close`] or [`Daemon::leave`] it has `close_grace` for what it does yet.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn supervised() -> Result<Daemon, RemoteError> {
        let Connection { receiver, mut sender } = take_streams().map_err(ProtocolError::from)?;
        sender.send(&Message::Hello(hello("worker")))?;
        let mut daemon = Daemon { way: None, link: Link::welcomed(receiver, sender)?, pulse: None };
        daemon.begin()?;
        Ok(daemon)
    }

    fn begin(&mut self) -> Result<(), RemoteError> {
        if let Some(way) = &mut self.way {
            way.hello.epoch = self.link.welcome.epoch;
        }
        self.pulse = Some(Pulse::begin(&mut self.link, self.way.is_none())?);
        Ok(())
    }

    /// The number of its session.
    pub fn epoch(&self) -> u64 {
        self.link.welcome.epoch
    }

    /// The number of its last commit that was accepted before this connection, if one was.
    pub fn last(&self) -> Option<u64> {
        self.link.welcome.last
    }

    /// Gives a sign of life, and connects again where the connection was lost. Signs of life go out by themselves; a daemon that
    /// has nothing to commit for long calls this now and then, so that an engine which was gone finds it again.
    ///
    /// # Errors
    /// As [`Daemon::commit_once`].
    pub fn beat(&mut self) -> Result<(), RemoteError> {
        let heartbeat = Message::Heartbeat(Heartbeat::default());
        match self.link.look().and_then(|()| self.link.send(&heartbeat, &[])) {
            Err(RemoteError::Protocol(error)) if error.is_end() => self.connect_again(),
            given => given,
        }
    }

    fn connect_again(&mut self) -> Result<(), RemoteError> {
        self.pulse = None;
        let way = self.way.as_ref().ok_or(ProtocolError::Closed)?;
        self.link = Link::open(&way.path, &way.hello, way.patience, None)?;
        self.begin()
    }

    /// Asks, over another connection where it is lost before the answer.
    fn ask<T>(&mut self, mut ask: impl FnMut(&mut Link) -> Result<T, RemoteError>) -> Result<T, RemoteError> {
        let began = Instant::now();
        let mut pause = Duration::ZERO;
        let patience = self.way.as_ref().map_or(Duration::ZERO, |way| way.patience);
        loop {
            match ask(&mut self.link) {
                // An engine that cannot commit lets it in and ends the connection, again and again.
                Err(RemoteError::Protocol(error))
                    if error.is_end() && (pause.is_zero() || began.elapsed() < patience) =>
                {
                    thread::sleep(pause);
                    pause = LOOK;
                    self.connect_again()?;
                }
                answered => return answered,
            }
        }
    }

    /// Commits under a number of its own, which rise: what was accepted before is not committed again. Where the connection is
    /// lost it connects again and sends it again, so that it is committed once. A session that was lost meanwhile is over.
    ///
    /// # Errors
    /// [`RemoteError::Fenced`] where the session is over, [`RemoteError::Refused`] where it cannot be committed,
    /// [`RemoteError::NoEngine`] where none came back in time.
    pub fn commit_once(&mut self, number: u64, cells: &Cells) -> Result<Accepted, RemoteError> {
        let answer = self.ask(|link| {
            let (message, data) = cells.encode(link.welcome.epoch, number)?;
            link.ask(&message, &data)
        });
        accepted(answer?)
    }

    /// Ends the session; the daemon stays registered, and a member. Where the connection is lost it connects again and says
    /// it again.
    ///
    /// # Errors
    /// As [`Daemon::commit_once`]: the engine did not take the goodbye.
    pub fn close(self) -> Result<(), RemoteError> {
        self.part(false)
    }

    /// Ends the session and takes the daemon out. Where the connection is lost it connects again and says it again.
    ///
    /// # Errors
    /// As [`Daemon::close`]. [`RemoteError::Fenced`] also where it was taken out, and the connection lost before the answer.
    pub fn leave(self) -> Result<(), RemoteError> {
        self.part(true)
    }

    fn part(mut self, leave: bool) -> Result<(), RemoteError> {
        if self.way.is_none() {
            // The engine closes what it has started as soon as it has answered: this is no end of the process any more.
            self.pulse = None;
        }
        self.ask(|link| link.part(leave))
    }
}

fn accepted(answer: Answer) -> Result<Accepted, RemoteError> {
    match answer.verdict {
        Verdict::Accepted => Ok(Accepted::Now(answer.seq)),
        Verdict::Duplicate => Ok(Accepted::Before),
        Verdict::Fenced => Err(RemoteError::Fenced(answer.message)),
        Verdict::Refused => Err(RemoteError::Refused(answer.message)),
    }
}

/// A process that commits as anybody does.
pub struct Client {
    link: Link,
}

impl Client {
    /// Connects; waits for an engine as long as that.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn connect(path: impl AsRef<Path>, patience: Duration) -> Result<Client, RemoteError> {
        Ok(Client { link: Link::open(path.as_ref(), &hello("client"), patience, None)? })
    }

    /// Commits cells; answers the transaction. Where the connection is lost meanwhile it may have been committed or not.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn commit(&mut self, cells: &Cells) -> Result<u64, RemoteError> {
        let (message, data) = cells.encode(0, 0)?;
        match accepted(self.link.ask(&message, &data)?)? {
            Accepted::Now(seq) => Ok(seq),
            Accepted::Before => Ok(0),
        }
    }

    /// Takes a producer out: its session is over, it is no member any more, and what it gave stays.
    ///
    /// # Errors
    /// [`RemoteError::Refused`] where there is none of this name, and as [`RemoteError`] says.
    pub fn deregister(&mut self, producer: &str) -> Result<(), RemoteError> {
        let message = Message::Deregister(Deregister { producer: producer.to_string() });
        accepted(self.link.ask(&message, &[])?).map(drop)
    }
}

/// A producer that is given runs.
pub struct Producer {
    path: PathBuf,
    hello: Hello,
    patience: Duration,
    link: Option<Link>,
    stop: Stop,
}

/// Ends a [`Producer`] from another thread.
#[derive(Clone, Default)]
pub struct Stop(Arc<Mutex<Stopping>>);

#[derive(Default)]
struct Stopping {
    /// That of the connection.
    sender: Option<Arc<Mutex<Sender<Stream>>>>,
    /// A batch is in work.
    is_busy: bool,
    leave: Option<bool>,
}

impl Stopping {
    /// Says goodbye where it is time to. The engine answers, which ends the loop; where it cannot be told, the loop finds out.
    fn say(&self) {
        if let (Some(leave), Some(sender), false) = (self.leave, &self.sender, self.is_busy) {
            let _ = lock(sender).send(&goodbye(leave));
        }
    }
}

impl Stop {
    fn state(&self) -> MutexGuard<'_, Stopping> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the session once what is in work has ended, whose results count; where `leave` is true the producer is taken out,
    /// too. One that waits for an engine waits no more: it ends with an error, since nobody heard its goodbye.
    pub fn stop(&self, leave: bool) {
        let mut state = self.state();
        state.leave = Some(leave);
        state.say();
    }

    fn is_stopped(&self) -> bool {
        self.state().leave.is_some()
    }

    /// A connection begins, on which nothing was said yet, or ends.
    fn connect(&self, sender: Option<Arc<Mutex<Sender<Stream>>>>) {
        let mut state = self.state();
        state.sender = sender;
        state.say();
    }

    /// Whether a batch is to be begun: after the goodbye it is nobody's.
    fn begin(&self) -> bool {
        let mut state = self.state();
        state.is_busy = state.leave.is_none();
        state.is_busy
    }

    fn finish(&self) {
        let mut state = self.state();
        state.is_busy = false;
        state.say();
    }
}

impl Producer {
    /// Registers the producer, unless it is, and opens its session. Waits for an engine as long as that, then and later.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn connect(
        path: impl AsRef<Path>,
        definition: Definition,
        patience: Duration,
    ) -> Result<Producer, RemoteError> {
        let (path, hello) = (path.as_ref().to_path_buf(), hello_of(definition));
        let link = Some(Link::open(&path, &hello, patience, None)?);
        Ok(Producer { path, hello, patience, link, stop: Stop::default() })
    }

    /// What ends it from another thread.
    pub fn stop_handle(&self) -> Stop {
        self.stop.clone()
    }

    /// Calls `produce` for each run, until it is stopped or taken out. Where the connection is lost it connects again.
    ///
    /// # Errors
    /// [`RemoteError::Fenced`] where it was taken out or its session was lost, [`RemoteError::NoEngine`] where no engine
    /// came back in time, [`RemoteError::Taken`] where another process has its session. Where it was stopped, any error says
    /// that the engine did not take the goodbye.
    pub fn serve(mut self, produce: impl Fn(&Run) -> Result<Outputs, Failure>) -> Result<(), RemoteError> {
        // Since when it could not say goodbye.
        let mut unheard: Option<Instant> = None;
        loop {
            let mut link = match self.link.take() {
                Some(link) => link,
                None => Link::open(&self.path, &self.hello, self.patience, Some(&self.stop))?,
            };
            self.hello.epoch = link.welcome.epoch;
            let pulse = Pulse::begin(&mut link, false)?;
            let Link { receiver, sender, welcome } = link;
            self.stop.connect(Some(sender.clone()));
            let ended = serve_connection(receiver, sender, &welcome, Lost::Cancels, |runs, answer| {
                if !self.stop.begin() {
                    return Ok(());
                }
                let done = one_by_one(&produce, runs, answer);
                self.stop.finish();
                done
            });
            drop(pulse);
            self.stop.connect(None);
            let is_stopped = self.stop.is_stopped();
            let error = match ended {
                Ok(End::Goodbye(goodbye)) if is_stopped && is_answer(&goodbye) => return Ok(()),
                Ok(End::Complaint(complaint)) => return Err(of(complaint)),
                Err(error) if !error.is_end() => return Err(error.into()),
                Err(error) => error,
                Ok(End::Goodbye(_) | End::Closed) => ProtocolError::Closed,
            };
            if is_stopped && unheard.get_or_insert_with(Instant::now).elapsed() > self.patience {
                return Err(error.into());
            }
            thread::sleep(LOOK);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixListener;

    use super::*;

    /// What becomes of a hello that is answered with these bytes after a time, and nothing else.
    fn answered(bytes: &[u8], after: Duration, within: Duration, stop: Option<Stop>) -> RemoteError {
        let name = format!("underbelly-worker-{}-{}-{}", process::id(), bytes.len(), stop.is_some());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let hello = hello_of(Definition::daemon("source"));
        let opening = thread::spawn({
            let path = path.clone();
            move || Link::try_open(&path, &hello, within, stop.as_ref()).map(drop)
        });
        let (mut engine, _) = listener.accept().unwrap();
        thread::sleep(after);
        // Nobody listens any more where it waited for too short a time.
        let _ = engine.write_all(bytes);
        let opened = opening.join().unwrap();
        std::fs::remove_file(&path).unwrap();
        opened.unwrap_err()
    }

    fn none(error: RemoteError) -> String {
        match error {
            RemoteError::NoEngine { what, .. } => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_engine_that_does_not_answer_is_none() {
        let short = Duration::from_millis(30);
        assert_eq!(none(answered(b"", Duration::ZERO, short, None)), "it says no welcome");
        assert_eq!(none(answered(b"UBF1\x10", Duration::ZERO, short, None)), "it says half a welcome");
    }

    /// One that was stopped has a goodbye to say, and an engine that is busy may let it in late.
    #[test]
    fn who_was_stopped_waits_for_a_late_welcome() {
        let stop = Stop::default();
        stop.stop(true);
        let answer = answered(b"neither welcome nor frame", LOOK * 5, WELCOME, Some(stop));
        assert!(matches!(answer, RemoteError::Protocol(_)), "{answer}");
    }
}
