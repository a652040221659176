//! One child process: started, greeted, given batches, and seen off.

use std::io::{self, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child as OsChild, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use underbelly_protocol::message::{
    Complaint, Goodbye, Message, Results, Run as RunMessage, RunResult, Welcome,
};
use underbelly_protocol::{ProtocolError, Receiver, Sender, VERSION};

use super::pipe::{Ear, Mouth, Patience};
use crate::producers::program::Program;

/// How long a process that closed its output may take to end.
const ENDING: Duration = Duration::from_secs(1);

/// How much a process may say while it has no work.
const IDLE_MESSAGES_MAX: usize = 256;

/// A child that was greeted, or is to be.
pub(super) struct Child {
    process: Process,
    ear: Receiver<BufReader<Ear>>,
    mouth: Arc<Mutex<Sender<Mouth>>>,
}

/// The process, which others may kill.
#[derive(Clone)]
pub(super) struct Process {
    id: u32,
    child: Arc<Mutex<OsChild>>,
}

/// Says something to a child whose batch somebody else waits for.
#[derive(Clone)]
pub(super) struct Speaker(Arc<Mutex<Sender<Mouth>>>);

impl Speaker {
    /// Says it, unless the child does not listen.
    pub fn say(&self, message: &Message) {
        let mut sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = sender.send(message);
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
}

impl Process {
    fn child(&self) -> MutexGuard<'_, OsChild> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn id(&self) -> u32 {
        self.id
    }

    /// Kills it and what it has started, as far as that is in its group.
    pub fn kill(&self) {
        let mut child = self.child();
        if matches!(child.try_wait(), Ok(None)) {
            // The process is there until it is waited for, and so nobody else has its number.
            let _ = Pid::from_raw(self.id.cast_signed()).map(|id| kill_process_group(id, Signal::KILL));
            let _ = child.kill();
        }
    }

    pub fn is_gone(&self) -> bool {
        !matches!(self.child().try_wait(), Ok(None))
    }

    /// Waits for its end, and kills it where that takes longer.
    fn wait(&self, within: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now().checked_add(within);
        let mut pause = Duration::from_millis(1);
        while !self.is_gone() {
            if deadline.is_none_or(|deadline| Instant::now() >= deadline) {
                self.kill();
                break;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        self.child().wait().ok()
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
        let process = Process { id: child.id(), child: Arc::new(Mutex::new(child)) };
        let ((input, output), errors) = streams.ok_or_else(|| io::Error::other("no pipes"))?;
        let patience = Patience { grace: program.startup_timeout, until: None };
        let ear = Receiver::new(BufReader::with_capacity(64 << 10, Ear::new(output, errors, patience)?));
        let mouth = Arc::new(Mutex::new(Sender::new(Mouth::new(input, patience)?)));
        Ok(Child { process, ear, mouth })
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    pub fn speaker(&self) -> Speaker {
        Speaker(self.mouth.clone())
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
    pub fn greet(&mut self, program: &Program, welcome: Welcome) -> Result<(), String> {
        let until = Instant::now().checked_add(program.startup_timeout);
        let patience = Patience { grace: program.startup_timeout, until };
        self.ear().patience = patience;
        let greeted = self.hear_hello(&welcome.producer).and_then(|()| {
            let welcome = Message::Welcome(welcome);
            self.say(&welcome, &[], patience)
        });
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
                (Message::Log(log), _) => self.ear().lines.push_line(&log.line),
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

    /// Whether it can be given work. It may have ended, or said something, since it was last listened to. One that says more than
    /// a little while it has no work is none to rely on, and killed.
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
                Ok((Message::Log(log), _)) => self.ear().lines.push_line(&log.line),
                Ok((Message::Heartbeat(_), _)) => {}
                // Goodbye, its end, or what nobody asked for.
                _ => break,
            }
        }
        self.process.kill();
        false
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
                    self.ear().lines.push_line(&log.line);
                    None
                }
                Message::Results(Results { batch: of, epoch: at, results }) if of == batch && at == epoch => {
                    results.into_iter().find_map(|result| {
                        let pid = result.pid;
                        match open.iter().position(|open| *open == pid) {
                            Some(at) => {
                                open.swap_remove(at);
                                take(result, &data);
                                None
                            }
                            None => Some(format!("it answered run {pid}, which it does not have in work")),
                        }
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
        self.ear().read_errors();
        told(status)
    }

    fn with_lines(&mut self, what: String) -> String {
        self.ear().read_errors();
        match self.ear().lines.last() {
            lines if lines.is_empty() => what,
            lines => format!("{what}; it last wrote: {lines}"),
        }
    }

    /// The last lines of its standard error, in one line.
    pub fn last_lines(&mut self) -> String {
        self.ear().read_errors();
        self.ear().lines.last()
    }

    /// What it wrote to standard error since it was last asked.
    pub fn take_lines(&mut self) -> String {
        self.ear().read_errors();
        self.ear().lines.take()
    }

    /// Says goodbye. [`Child::end`] waits.
    pub fn dismiss(&mut self, reason: &str) {
        let goodbye = Message::Goodbye(Goodbye { reason: reason.to_string(), leave: false });
        let _ = self.say(&goodbye, &[], Patience::NONE);
    }

    /// Closes its input, waits for its end, and kills it where that takes longer.
    pub fn end(self, within: Duration) {
        let Child { process, ear, mouth } = self;
        drop(mouth);
        process.wait(within);
        drop(ear);
    }
}

impl Drop for Process {
    /// The last who holds it leaves no process behind.
    fn drop(&mut self) {
        if Arc::strong_count(&self.child) == 1 {
            self.kill();
            let _ = self.child().wait();
        }
    }
}
