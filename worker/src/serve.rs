//! The child's loop: hello, then runs until goodbye.
//!
//! The thread that serves reads messages itself while it has no work, so that a run begins as soon as it has come. While it
//! works, a second thread tells the engine now and then that the process lives, and reads what comes meanwhile: a cancel, or
//! the end of the connection, which ends the process.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use underbelly_protocol::message::{
    Complaint, Heartbeat, Hello, Message, Outcome, Results, Run as RunMessage, RunResult, Welcome,
};
use underbelly_protocol::{Connection, ProtocolError, Receiver, Sender, VERSION};

use crate::outputs::{Failure, Outputs};
use crate::run::Run;

/// Works for the engine that started this process: calls `produce` for each run, until the engine says goodbye.
///
/// A panic of `produce` is a fatal failure of its run.
///
/// # Errors
/// [`ProtocolError`] where the engine cannot be understood. Where it is gone during a run, the process ends.
pub fn serve(produce: impl Fn(&Run) -> Result<Outputs, Failure>) -> Result<(), ProtocolError> {
    serve_each(|runs, answer| one_by_one(&produce, runs, answer))
}

/// The same for a producer that is called once for each batch, with all its runs, and answers each, in their order. A failure
/// as a whole, or a panic, is one of each run.
///
/// # Errors
/// As [`serve`].
pub fn serve_batch(
    produce: impl Fn(&[Run]) -> Result<Vec<Result<Outputs, Failure>>, Failure>,
) -> Result<(), ProtocolError> {
    serve_each(|runs, mut answer| {
        let results = catch_unwind(AssertUnwindSafe(|| produce(runs)));
        let results = match results.unwrap_or_else(|panic| Err(panicked(panic))) {
            Ok(results) if results.len() == runs.len() => results,
            Ok(results) => {
                let what = format!("{} of {} runs were answered; answer each", results.len(), runs.len());
                runs.iter().map(|_| Err(Failure::fatal(what.clone()))).collect()
            }
            Err(failure) => runs.iter().map(|_| Err(failure.clone())).collect(),
        };
        runs.iter().zip(results).try_for_each(|(run, result)| answer(run.pid(), result))
    })
}

fn panicked(panic: Box<dyn Any + Send>) -> Failure {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    Failure::Fatal(format!("panicked: {}", text.unwrap_or_else(|| "no message".to_string())))
}

/// Answers one run.
pub(crate) type Answer<'a> = Box<dyn FnMut(u64, Result<Outputs, Failure>) -> Result<(), ProtocolError> + 'a>;

/// What both threads share.
pub(crate) struct Shared {
    inbox: Mutex<Inbox>,
    sender: Arc<Mutex<Sender<File>>>,
    work: Mutex<Work>,
    begun: Condvar,
    lost: Lost,
}

/// What the end of the connection during a run is to this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Its own end.
    Ends,
    /// The end of the run: nobody wants what it gives.
    Cancels,
}

/// Whoever holds this may read.
struct Inbox {
    receiver: Receiver<BufReader<File>>,
    /// What was read while there was work.
    waiting: VecDeque<(Message, Vec<u8>)>,
}

/// What is in work.
#[derive(Default)]
struct Work {
    batch: Option<u64>,
    runs: BTreeMap<u64, Arc<AtomicBool>>,
    /// The second thread waits for work, and is to be told.
    is_unwatched: bool,
    /// There will be no more.
    is_over: bool,
}

/// How long a run lasts before it is watched: waking a thread for each short run would cost more than most of them take.
const UNWATCHED: Duration = Duration::from_millis(20);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Standard input and output as they are, while what is printed from now on goes to standard error.
pub(crate) fn take_streams() -> io::Result<Connection<BufReader<File>, File>> {
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    io::stdout().flush()?;
    rustix::stdio::dup2_stdout(io::stderr().as_fd())?;
    Ok(Connection::new(BufReader::new(input), output))
}

fn serve_each(
    produce: impl Fn(&[Run], Answer<'_>) -> Result<(), ProtocolError>,
) -> Result<(), ProtocolError> {
    let Connection { mut receiver, mut sender } = take_streams()?;
    sender.send(&Message::Hello(Hello {
        protocol: VERSION,
        role: "worker".to_string(),
        process: process::id(),
        language: "rust".to_string(),
        capabilities: vec!["batch".to_string(), "cancel".to_string()],
        ..Hello::default()
    }))?;
    let welcome = match receiver.receive()? {
        (Message::Welcome(welcome), _) if welcome.protocol == VERSION => welcome,
        (Message::Welcome(welcome), _) => {
            return Err(ProtocolError::Version { found: welcome.protocol, ours: VERSION });
        }
        (Message::Goodbye(_), _) => return Ok(()),
        (Message::Complaint(complaint), _) => {
            return Err(ProtocolError::Message { what: complaint.message });
        }
        (other, _) => {
            let what = format!("{:?} came before a welcome", other.name());
            return Err(ProtocolError::Message { what });
        }
    };
    serve_connection(receiver, Arc::new(Mutex::new(sender)), &welcome, Lost::Ends, produce)
}

/// Does what comes over a connection that was welcomed, until its end.
pub(crate) fn serve_connection(
    receiver: Receiver<BufReader<File>>,
    sender: Arc<Mutex<Sender<File>>>,
    welcome: &Welcome,
    lost: Lost,
    produce: impl Fn(&[Run], Answer<'_>) -> Result<(), ProtocolError>,
) -> Result<(), ProtocolError> {
    let shared = Arc::new(Shared {
        inbox: Mutex::new(Inbox { receiver, waiting: VecDeque::new() }),
        sender,
        work: Mutex::default(),
        begun: Condvar::new(),
        lost,
    });
    let watched = shared.clone();
    let every = Duration::from_millis(welcome.heartbeat_ms.max(1));
    thread::Builder::new().name("underbelly-heartbeat".to_string()).spawn(move || watch(&watched, every))?;
    let done = listen(&shared, welcome, produce);
    lock(&shared.work).is_over = true;
    shared.begun.notify_one();
    done
}

/// Calls `produce` for each run of a batch and answers each.
pub(crate) fn one_by_one(
    produce: &impl Fn(&Run) -> Result<Outputs, Failure>,
    runs: &[Run],
    mut answer: Answer<'_>,
) -> Result<(), ProtocolError> {
    for run in runs {
        let result = catch_unwind(AssertUnwindSafe(|| produce(run)));
        answer(run.pid(), result.unwrap_or_else(|panic| Err(panicked(panic))))?;
    }
    Ok(())
}

fn listen(
    shared: &Shared,
    welcome: &Welcome,
    produce: impl Fn(&[Run], Answer<'_>) -> Result<(), ProtocolError>,
) -> Result<(), ProtocolError> {
    let producer: Arc<str> = welcome.producer.as_str().into();
    loop {
        let next = {
            let mut inbox = lock(&shared.inbox);
            match inbox.waiting.pop_front() {
                Some(next) => Ok(next),
                None => inbox.receiver.receive(),
            }
        };
        let (message, data) = match next {
            Err(ProtocolError::Closed) => return Ok(()),
            next => next?,
        };
        match message {
            Message::Run(run) => work(shared, &producer, run, data, &produce)?,
            Message::Goodbye(_) => return Ok(()),
            // Its run has ended.
            Message::Cancel(_) | Message::Complaint(_) => {}
            other => complain(shared, &other)?,
        }
    }
}

fn complain(shared: &Shared, message: &Message) -> Result<(), ProtocolError> {
    let about = message.name().to_string();
    let complaint =
        Complaint { about, message: "a worker has no use for it".to_string(), ..Complaint::default() };
    lock(&shared.sender).send(&Message::Complaint(complaint))
}

fn work(
    shared: &Shared,
    producer: &Arc<str>,
    message: RunMessage,
    data: Vec<u8>,
    produce: &impl Fn(&[Run], Answer<'_>) -> Result<(), ProtocolError>,
) -> Result<(), ProtocolError> {
    let RunMessage { batch, epoch, runs, .. } = message;
    let flags: BTreeMap<u64, Arc<AtomicBool>> = runs.iter().map(|run| (run.pid, Arc::default())).collect();
    let is_unwatched = {
        let mut work = lock(&shared.work);
        (work.batch, work.runs) = (Some(batch), flags.clone());
        std::mem::take(&mut work.is_unwatched)
    };
    if is_unwatched {
        shared.begun.notify_one();
    }
    let data = Arc::new(data);
    let runs: Vec<Run> = runs
        .into_iter()
        .map(|run| {
            let flag = flags.get(&run.pid).cloned().unwrap_or_default();
            Run::new(run, producer, &data, flag)
        })
        .collect();
    let answer = |pid: u64, result: Result<Outputs, Failure>| {
        let mut data = Vec::new();
        let result = told(pid, result, &mut data);
        let results = Results { batch, epoch, results: vec![result] };
        lock(&shared.sender).send_with(&Message::Results(results), &data)
    };
    let done = produce(&runs, Box::new(answer));
    let mut work = lock(&shared.work);
    (work.batch, work.runs) = (None, BTreeMap::new());
    done
}

/// A result as the message says it.
fn told(pid: u64, result: Result<Outputs, Failure>, data: &mut Vec<u8>) -> RunResult {
    let failed = |outcome, message| RunResult { pid, outcome, message, ..RunResult::default() };
    match result {
        Ok(outputs) => match outputs.encode(data) {
            Ok(outputs) => RunResult { pid, outcome: Outcome::Completed, outputs, ..RunResult::default() },
            Err(error) => {
                data.clear();
                failed(Outcome::Fatal, error.to_string())
            }
        },
        Err(Failure::Declined(message)) => failed(Outcome::Declined, message),
        Err(Failure::Retry(message)) => failed(Outcome::Retry, message),
        Err(Failure::Rejected(message)) => failed(Outcome::Rejected, message),
        Err(Failure::Fatal(message)) => failed(Outcome::Fatal, message),
    }
}

/// The life of the second thread.
fn watch(shared: &Shared, every: Duration) {
    loop {
        let mut batch = {
            let mut work = lock(&shared.work);
            work.is_unwatched = work.batch.is_none();
            let work = shared.begun.wait_while(work, |work| work.batch.is_none() && !work.is_over);
            let work = work.unwrap_or_else(PoisonError::into_inner);
            if work.is_over {
                return;
            }
            work.batch
        };
        thread::sleep(UNWATCHED);
        let mut next = Instant::now() + every.saturating_sub(UNWATCHED);
        while let Some(number) = batch {
            if hears(shared, next.saturating_duration_since(Instant::now())) {
                take_message(shared);
            }
            if Instant::now() >= next {
                let beat = Message::Heartbeat(Heartbeat { batch: number });
                if lock(&shared.sender).send(&beat).is_err() {
                    lose(shared);
                    break;
                }
                next = Instant::now() + every;
            }
            let work = lock(&shared.work);
            batch = work.batch.filter(|_| !work.is_over);
        }
    }
}

/// Whether there is something to read within this time.
fn hears(shared: &Shared, within: Duration) -> bool {
    // While the other thread reads, it has no work, and hears by itself.
    let Ok(mut inbox) = shared.inbox.try_lock() else {
        thread::sleep(within);
        return false;
    };
    if !inbox.receiver.input().buffer().is_empty() {
        return true;
    }
    let Ok(input) = inbox.receiver.input().get_ref().try_clone() else { return false };
    drop(inbox);
    is_readable(&input, within)
}

fn is_readable(input: &File, within: Duration) -> bool {
    let timeout = Timespec { tv_sec: within.as_secs() as i64, tv_nsec: i64::from(within.subsec_nanos()) };
    poll(&mut [PollFd::new(input, PollFlags::IN)], Some(&timeout)).is_ok_and(|ready| ready > 0)
}

/// Reads what came while there is work. The other thread may have been quicker, and must not be kept from reading.
fn take_message(shared: &Shared) {
    let Ok(mut inbox) = shared.inbox.try_lock() else { return };
    let input = inbox.receiver.input();
    if input.buffer().is_empty() && !is_readable(input.get_ref(), Duration::ZERO) {
        return;
    }
    match inbox.receiver.receive() {
        Ok((Message::Cancel(cancel), _)) => {
            let work = lock(&shared.work);
            let flags = cancel.pids.iter().filter_map(|pid| work.runs.get(pid));
            flags.for_each(|flag| flag.store(true, Ordering::Relaxed));
        }
        Ok(message) => inbox.waiting.push_back(message),
        Err(_) => {
            drop(inbox);
            lose(shared);
        }
    }
}

/// The engine is gone: nobody wants what is in work.
fn lose(shared: &Shared) {
    if shared.lost == Lost::Ends {
        process::exit(0);
    }
    let mut work = lock(&shared.work);
    work.runs.values().for_each(|flag| flag.store(true, Ordering::Relaxed));
    // It is not watched any more.
    work.is_over = true;
}
