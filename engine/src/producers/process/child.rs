//! One child process: started, greeted, given batches, and seen off.

use std::io::{self, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child as OsChild, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use underbelly_protocol::message::{
    Complaint, Goodbye, Message, Results, Run as RunMessage, RunResult, Welcome, check_spans,
};
use underbelly_protocol::{ProtocolError, Receiver, Sender, VERSION};

use super::pipe::{Ear, Errors, Mouth, Patience};
use crate::producers::program::Program;

/// How long a process that closed its output may take to end.
const ENDING: Duration = Duration::from_secs(1);

/// How much is heard at once of what a process says while it has no work.
const IDLE_MESSAGES_MAX: usize = 256;

/// A child that was greeted, or is to be.
pub(super) struct Child {
    process: Process,
    ear: Receiver<BufReader<Ear>>,
    errors: Arc<Errors>,
    mouth: Arc<Mutex<Sender<Mouth>>>,
}

/// The process, which others may kill. The last who holds it leaves no process behind.
#[derive(Clone)]
pub(super) struct Process(Arc<Inner>);

struct Inner {
    /// The system may give its own number to another once this one was waited for.
    number: u64,
    id: u32,
    child: Mutex<Waited>,
}

struct Waited {
    child: OsChild,
    /// How it ended, once that was asked for. Until then the system keeps its number.
    status: Option<ExitStatus>,
}

/// Says something to a child whose batch somebody else waits for.
#[derive(Clone)]
pub(super) struct Speaker {
    mouth: Arc<Mutex<Sender<Mouth>>>,
    process: Process,
}

impl Speaker {
    /// Says it. A child that does not listen may have heard half of it, and is killed.
    pub fn say(&self, message: &Message) {
        let mut sender = self.mouth.lock().unwrap_or_else(PoisonError::into_inner);
        if sender.send(message).is_err() {
            self.process.kill();
        }
    }

    /// Says goodbye, and nothing more: its standard input ends.
    pub fn dismiss(&self, reason: &str) {
        let goodbye = Message::Goodbye(Goodbye { reason: reason.to_string(), leave: false });
        let mut sender = self.mouth.lock().unwrap_or_else(PoisonError::into_inner);
        sender.output().patience = Patience::NONE;
        let _ = sender.send(&goodbye);
        sender.output().close();
    }
}

/// How a batch was brought to its end.
pub(super) enum Ending {
    /// Every run was answered.
    Answered,
    /// It had said goodbye before it got the batch.
    Left,
    /// The process is gone, or was killed; why.
    Gone(String),
    /// It said what cannot be understood, and was killed; what.
    Nonsense(String),
    /// The batch is too long to be sent, and nothing of it was.
    TooLong(String),
}

impl Process {
    fn new(child: OsChild) -> Process {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (number, id) = (NEXT.fetch_add(1, Ordering::Relaxed), child.id());
        Process(Arc::new(Inner { number, id, child: Mutex::new(Waited { child, status: None }) }))
    }

    /// A number that no other process of this engine has had.
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// The system's number.
    pub fn id(&self) -> u32 {
        self.0.id
    }

    /// Kills it and what it has started, as far as that is in its group.
    pub fn kill(&self) {
        self.0.waited().kill();
    }

    /// Whether it has ended. What it has started may not have.
    pub fn is_gone(&self) -> bool {
        self.0.waited().is_gone()
    }

    /// Waits for its end, and kills it where that takes longer; what it has started is killed in any case.
    pub fn wait(&self, within: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now().checked_add(within);
        let mut pause = Duration::from_millis(1);
        while !self.is_gone() && deadline.is_some_and(|deadline| Instant::now() < deadline) {
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        self.0.waited().end()
    }
}

impl Inner {
    fn waited(&self) -> MutexGuard<'_, Waited> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.waited().end();
    }
}

impl Waited {
    fn group(&self) -> Option<Pid> {
        // The process is there, if only as one that was not waited for, and so nobody else has its number.
        Pid::from_raw(self.child.id().cast_signed()).filter(|_| self.status.is_none())
    }

    fn is_gone(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.group().is_none_or(|id| !matches!(waitid(WaitId::Pid(id), look), Ok(None)))
    }

    fn kill(&mut self) {
        if let Some(id) = self.group() {
            let _ = kill_process_group(id, Signal::KILL);
        }
    }

    fn end(&mut self) -> Option<ExitStatus> {
        self.kill();
        if self.status.is_none() {
            self.status = self.child.wait().ok();
        }
        self.status
    }
}

/// How a process ended, in words.
fn told(status: Option<ExitStatus>) -> String {
    match status.map(|status| (status.code(), status.signal())) {
        Some((Some(code), _)) => format!("exited with code {code}"),
        Some((_, Some(signal))) => format!("was killed by signal {signal}"),
        _ => "ended".to_string(),
    }
}

impl Child {
    /// Starts the program for a producer.
    pub fn spawn(program: &Program, producer: &str) -> io::Result<Child> {
        let mut command = Command::new(&program.program);
        command.args(&program.args).envs(&program.env).env("UNDERBELLY_PRODUCER", producer);
        if let Some(dir) = &program.dir {
            command.current_dir(dir);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own: what stops this process at a terminal is this process's to pass on, and a child can be killed
        // with what it has started.
        let mut child = command.process_group(0).spawn()?;
        let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let streams = input.zip(output).zip(errors);
        let process = Process::new(child);
        let ((input, output), errors) = streams.ok_or_else(|| io::Error::other("no pipes"))?;
        let patience = Patience { grace: program.startup_timeout, until: None };
        let errors = Errors::new(errors)?;
        let ear = Ear::new(output, errors.clone(), process.clone(), patience);
        let ear = Receiver::new(BufReader::with_capacity(64 << 10, ear));
        let mouth = Arc::new(Mutex::new(Sender::new(Mouth::new(input, errors.clone(), patience)?)));
        Ok(Child { process, ear, errors, mouth })
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    pub fn speaker(&self) -> Speaker {
        Speaker { mouth: self.mouth.clone(), process: self.process.clone() }
    }

    fn ear(&mut self) -> &mut Ear {
        self.ear.input().get_mut()
    }

    fn say(&mut self, message: &Message, data: &[u8], patience: Patience) -> Result<(), ProtocolError> {
        let mut mouth = self.mouth.lock().unwrap_or_else(PoisonError::into_inner);
        mouth.output().patience = patience;
        mouth.send_with(message, data)
    }

    /// Waits for its hello and answers it; says what is wrong where that fails. Then it is gone.
    pub fn greet(
        &mut self,
        program: &Program,
        producer: &str,
        welcome: impl FnOnce() -> Result<Welcome, String>,
    ) -> Result<(), String> {
        let until = Instant::now().checked_add(program.startup_timeout);
        let patience = Patience { grace: program.startup_timeout, until };
        self.ear().patience = patience;
        let greeted = match self.hear_hello(producer) {
            Ok(()) => self.say(&Message::Welcome(welcome()?), &[], patience),
            Err(error) => Err(error),
        };
        greeted.map_err(|error| match error {
            error if error.is_timeout() => {
                self.process.kill();
                self.with_lines(format!("said no hello within {:?} and was killed", program.startup_timeout))
            }
            error if error.is_end() => {
                let ended = self.end_told();
                self.with_lines(format!("{ended} before it said hello"))
            }
            error => {
                self.process.kill();
                self.with_lines(format!("said no hello: {error}"))
            }
        })
    }

    fn hear_hello(&mut self, producer: &str) -> Result<(), ProtocolError> {
        loop {
            match self.ear.receive()? {
                (Message::Hello(hello), _) if hello.protocol != VERSION => {
                    return Err(ProtocolError::Version { found: hello.protocol, ours: VERSION });
                }
                (Message::Hello(hello), _) if hello.producer.is_empty() || hello.producer == producer => {
                    return Ok(());
                }
                (Message::Hello(hello), _) => {
                    let what = format!("it works for producer {:?}, not for {producer:?}", hello.producer);
                    return Err(ProtocolError::Message { what });
                }
                (Message::Log(log), _) => self.errors.lines().push_line(&log.line),
                (Message::Goodbye(goodbye), _) => {
                    let what = format!("it said goodbye: {}", goodbye.reason);
                    return Err(ProtocolError::Message { what });
                }
                (other, _) => {
                    let what = format!("{:?} came before a hello", other.name());
                    return Err(ProtocolError::Message { what });
                }
            }
        }
    }

    /// Whether it can be given work. It may have ended, or said something, since it was last listened to.
    pub fn is_sound(&mut self) -> bool {
        if self.process.is_gone() {
            return false;
        }
        let until = Instant::now().checked_add(ENDING);
        for _ in 0..IDLE_MESSAGES_MAX {
            let has_more = !self.ear.input().buffer().is_empty();
            let hears = self.ear().hears(Duration::ZERO);
            if !has_more && !hears.unwrap_or(true) {
                return true;
            }
            self.ear().patience = Patience { grace: ENDING, until };
            match self.ear.receive() {
                Ok((Message::Log(log), _)) => self.errors.lines().push_line(&log.line),
                Ok((Message::Heartbeat(_), _)) => {}
                // Goodbye, its end, or what nobody asked for.
                _ => {
                    self.process.kill();
                    return false;
                }
            }
        }
        // There is more, and whoever gives it work hears that.
        true
    }

    /// Gives it a batch, and each answer to `take`, until all are there.
    pub fn work(
        &mut self,
        program: &Program,
        run: RunMessage,
        data: &[u8],
        mut take: impl FnMut(RunResult, &[u8]),
    ) -> Ending {
        let until = program.run_timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let patience = Patience { grace: program.heartbeat_grace, until };
        self.ear().patience = patience;
        let (batch, epoch) = (run.batch, run.epoch);
        let mut open: Vec<u64> = run.runs.iter().map(|run| run.pid).collect();
        let runs = open.len();
        if let Err(error) = self.say(&Message::Run(run), data, patience) {
            if matches!(error, ProtocolError::TooLong { .. }) {
                return Ending::TooLong(error.to_string());
            }
            let has_left = error.is_end() && matches!(self.ear.receive(), Ok((Message::Goodbye(_), _)));
            return if has_left { Ending::Left } else { self.ending(error, program, until) };
        }
        while !open.is_empty() {
            let (message, data) = match self.ear.receive() {
                Ok(received) => received,
                Err(error) => return self.ending(error, program, until),
            };
            let wrong = match message {
                Message::Heartbeat(_) => None,
                Message::Log(log) => {
                    self.errors.lines().push_line(&log.line);
                    None
                }
                Message::Results(said) if said.batch == batch && said.epoch == epoch => {
                    let wrong = check_spans(said.spans(), &data).err().map(|error| error.to_string());
                    wrong.or_else(|| {
                        said.results.into_iter().find_map(|result| {
                            let pid = result.pid;
                            match open.iter().position(|open| *open == pid) {
                                Some(at) => {
                                    open.swap_remove(at);
                                    take(result, &data);
                                    None
                                }
                                None => {
                                    Some(format!("it answered run {pid}, which it does not have in work"))
                                }
                            }
                        })
                    })
                }
                Message::Results(Results { batch: of, epoch: at, .. }) => Some(format!(
                    "it answered batch {of} of epoch {at} where it has batch {batch} of epoch {epoch} in work"
                )),
                Message::Complaint(complaint) => {
                    Some(format!("it cannot use {:?}: {}", complaint.about, complaint.message))
                }
                Message::Goodbye(_) if open.len() == runs => return Ending::Left,
                Message::Goodbye(_) => {
                    self.process.kill();
                    return Ending::Gone("said goodbye in the middle of a batch".to_string());
                }
                Message::Unknown(about) => {
                    let message = format!("version {VERSION} has no such message");
                    let complaint = Message::Complaint(Complaint { about, message, ..Complaint::default() });
                    match self.say(&complaint, &[], patience) {
                        Ok(()) => None,
                        Err(error) => return self.ending(error, program, until),
                    }
                }
                other => Some(format!("message {:?} has no place in a batch", other.name())),
            };
            if let Some(what) = wrong {
                self.process.kill();
                return Ending::Nonsense(what);
            }
        }
        Ending::Answered
    }

    /// What it says next, within this time.
    pub fn hear(&mut self, grace: Duration) -> Result<(Message, Vec<u8>), ProtocolError> {
        self.ear().patience = Patience { grace, until: None };
        self.ear.receive()
    }

    /// Says something to a child that has asked.
    pub fn answer(&mut self, message: &Message, grace: Duration) -> Result<(), ProtocolError> {
        self.say(message, &[], Patience { grace, until: None })
    }

    /// Keeps a line that it wrote.
    pub fn keep_line(&mut self, line: &str) {
        self.errors.lines().push_line(line);
    }

    /// What ended it, after it was killed where it is there yet, with what it last wrote.
    pub fn parting(&mut self, error: ProtocolError, grace: Duration) -> String {
        let what = match error {
            error if error.is_end() => self.end_told(),
            error => {
                self.process.kill();
                match error.is_timeout() {
                    true => format!("was silent for {grace:?} and was killed"),
                    false => format!("broke the protocol and was killed: {error}"),
                }
            }
        };
        self.with_lines(what)
    }

    fn ending(&mut self, error: ProtocolError, program: &Program, until: Option<Instant>) -> Ending {
        if error.is_timeout() {
            self.process.kill();
            let is_late = until.is_some_and(|until| Instant::now() >= until);
            return Ending::Gone(match program.run_timeout.filter(|_| is_late) {
                Some(timeout) => format!("did not end within {timeout:?} and was killed"),
                None => format!("was silent for {:?} and was killed", program.heartbeat_grace),
            });
        }
        if error.is_end() {
            return Ending::Gone(self.end_told());
        }
        self.process.kill();
        Ending::Nonsense(error.to_string())
    }

    /// Waits for the end of a process that has closed its output.
    fn end_told(&mut self) -> String {
        let status = self.process.wait(ENDING);
        self.errors.read();
        told(status)
    }

    fn with_lines(&mut self, what: String) -> String {
        self.errors.read();
        match self.errors.lines().last() {
            lines if lines.is_empty() => what,
            lines => format!("{what}; it last wrote: {lines}"),
        }
    }

    /// The last lines of its standard error, in one line.
    pub fn last_lines(&mut self) -> String {
        self.errors.read();
        self.errors.lines().last()
    }

    /// What it wrote to standard error since it was last asked.
    pub fn take_lines(&mut self) -> String {
        self.errors.read();
        self.errors.lines().take()
    }

    /// Waits for its end, and kills it where that takes longer.
    pub fn end(self, within: Duration) {
        let Child { process, ear, errors, mouth } = self;
        drop(mouth);
        process.wait(within);
        drop((ear, errors));
    }
}
