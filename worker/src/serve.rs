//! The child's loop: hello, then runs until goodbye.
//!
//! The thread that serves reads messages itself while it has no work, so that a run begins as soon as it has come. While it
//! works, a second thread tells the engine now and then that the process lives, and reads what comes meanwhile: a cancel, or
//! the end of the connection, which ends a child.

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

use underbelly_protocol::limits::DATA_BYTES_MAX;
use underbelly_protocol::message::{
    Code, Complaint, Goodbye, Heartbeat, Hello, Message, Outcome, Results, Run as RunMessage, RunResult,
    Welcome,
};
use underbelly_protocol::{Connection, ProtocolError, Receiver, Sender, VERSION};

use crate::outputs::{Failure, Outputs};
use crate::run::Run;
use crate::stream::Stream;

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
    sender: Arc<Mutex<Sender<Stream>>>,
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

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// Without a word.
    Closed,
    /// The engine has said goodbye.
    Goodbye(Goodbye),
    /// The session is over, or a goodbye was refused.
    Complaint(Complaint),
}

impl End {
    /// The end that a message is, if it is one.
    fn of(message: &Message) -> Option<End> {
        match message {
            Message::Goodbye(goodbye) => Some(End::Goodbye(goodbye.clone())),
            Message::Complaint(complaint) if complaint.code == Code::Over || complaint.about == "goodbye" => {
                Some(End::Complaint(complaint.clone()))
            }
            _ => None,
        }
    }
}

/// Whoever holds this may read.
struct Inbox {
    receiver: Receiver<BufReader<Stream>>,
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

/// The longest time between two signs of life.
const HEARTBEAT_MS_MAX: u64 = 3_600_000;

/// How often the engine wants a sign of life.
pub(crate) fn heartbeat(welcome: &Welcome) -> Duration {
    Duration::from_millis(welcome.heartbeat_ms.clamp(1, HEARTBEAT_MS_MAX))
}

/// Standard input and output as they are. From now on what is printed goes to standard error, and there is nothing to read,
/// for this process and for those that it starts.
pub(crate) fn take_streams() -> io::Result<Connection<BufReader<Stream>, Stream>> {
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    io::stdout().flush()?;
    rustix::stdio::dup2_stdout(io::stderr().as_fd())?;
    Ok(Connection::new(BufReader::new(Stream::Pipe(input)), Stream::Pipe(output)))
}

/// What this process says first.
pub(crate) fn hello(role: &str) -> Hello {
    Hello {
        protocol: VERSION,
        role: role.to_string(),
        process: process::id(),
        language: "rust".to_string(),
        ..Hello::default()
    }
}

fn serve_each(
    produce: impl Fn(&[Run], Answer<'_>) -> Result<(), ProtocolError>,
) -> Result<(), ProtocolError> {
    let Connection { mut receiver, mut sender } = take_streams()?;
    let capabilities = vec!["batch".to_string(), "cancel".to_string()];
    sender.send(&Message::Hello(Hello { capabilities, ..hello("worker") }))?;
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
    serve_connection(receiver, Arc::new(Mutex::new(sender)), &welcome, Lost::Ends, produce).map(drop)
}

/// Does what comes over a connection that was welcomed, until its end.
pub(crate) fn serve_connection(
    receiver: Receiver<BufReader<Stream>>,
    sender: Arc<Mutex<Sender<Stream>>>,
    welcome: &Welcome,
    lost: Lost,
    produce: impl Fn(&[Run], Answer<'_>) -> Result<(), ProtocolError>,
) -> Result<End, ProtocolError> {
    let shared = Arc::new(Shared {
        inbox: Mutex::new(Inbox { receiver, waiting: VecDeque::new() }),
        sender,
        work: Mutex::default(),
        begun: Condvar::new(),
        lost,
    });
    let watched = shared.clone();
    let every = heartbeat(welcome);
    thread::Builder::new().name("underbelly-heartbeat".to_string()).spawn(move || watch(&watched, every))?;
    let done = listen(&shared, welcome, produce);
    lock(&shared.work).is_over = true;
    shared.begun.notify_one();
    match done {
        // What the engine said before it ended the connection counts.
        Err(error) if error.is_end() && lost == Lost::Cancels => last_word(&shared).ok_or(error),
        done => done,
    }
}

/// How the engine said that a connection is over that was found to be so.
fn last_word(shared: &Shared) -> Option<End> {
    let mut inbox = lock(&shared.inbox);
    loop {
        let message = match inbox.waiting.pop_front() {
            Some((message, _)) => message,
            None => inbox.receiver.receive().ok()?.0,
        };
        if let Some(end) = End::of(&message) {
            return Some(end);
        }
    }
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
) -> Result<End, ProtocolError> {
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
            Err(ProtocolError::Closed) => return Ok(End::Closed),
            next => next?,
        };
        if let Some(end) = End::of(&message) {
            return Ok(end);
        }
        match message {
            Message::Run(run) => work(shared, &producer, run, data, &produce)?,
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
        let results = vec![told(pid, result, &mut data)];
        let told_all = Message::Results(Results { batch, epoch, results });
        let sent = lock(&shared.sender).send_with(&told_all, &data);
        match sent {
            // Nothing was sent.
            Err(error @ ProtocolError::TooLong { .. }) => {
                let results = vec![told(pid, Err(error.into()), &mut Vec::new())];
                lock(&shared.sender).send(&Message::Results(Results { batch, epoch, results }))
            }
            sent => sent,
        }
    };
    let done = produce(&runs, Box::new(answer));
    let mut work = lock(&shared.work);
    (work.batch, work.runs) = (None, BTreeMap::new());
    done
}

/// Bytes of the reason of a failure that are told.
const REASON_BYTES_MAX: usize = 64 << 10;

/// A result as the message says it.
fn told(pid: u64, result: Result<Outputs, Failure>, data: &mut Vec<u8>) -> RunResult {
    let failed = |outcome, mut message: String| {
        message.truncate(message.floor_char_boundary(REASON_BYTES_MAX));
        RunResult { pid, outcome, message, ..RunResult::default() }
    };
    match result {
        Ok(outputs) => match outputs.encode(data, DATA_BYTES_MAX) {
            Ok((outputs, models)) => {
                RunResult { pid, outcome: Outcome::Completed, outputs, models, ..RunResult::default() }
            }
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
    input.is_readable(within)
}

/// Reads what came while there is work. The other thread may have been quicker, and must not be kept from reading.
fn take_message(shared: &Shared) {
    let Ok(mut inbox) = shared.inbox.try_lock() else { return };
    let input = inbox.receiver.input();
    if input.buffer().is_empty() && !input.get_ref().is_readable(Duration::ZERO) {
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
        // Perhaps there is nobody to read it either.
        let _ = writeln!(io::stderr(), "the engine is gone: what is in work ends here");
        process::exit(0);
    }
    let mut work = lock(&shared.work);
    work.runs.values().for_each(|flag| flag.store(true, Ordering::Relaxed));
    // It is not watched any more.
    work.is_over = true;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_of_life_are_given_within_bounds_whatever_the_engine_wants() {
        let every = |heartbeat_ms| heartbeat(&Welcome { heartbeat_ms, ..Welcome::default() });
        assert_eq!(every(0), Duration::from_millis(1));
        assert_eq!(every(250), Duration::from_millis(250));
        assert_eq!(every(u64::MAX), Duration::from_secs(3600));
    }
}
