//! The worker's end of a connection: what it does where the engine says little, goes or comes back, and where it is stopped.

use std::io::{BufReader, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use underbelly_protocol::message::{
    BundleRun, Cancel, Code, Complaint, Goodbye, Hello, Message, Run as RunMessage, Welcome,
};
use underbelly_protocol::{Connection, Field, VERSION};
use underbelly_worker::remote::{Cells, Daemon, Producer, RemoteError};
use underbelly_worker::{Date, Definition, Outputs, Value};

use super::*;

/// The other end, which says what a test wants.
struct Engine {
    folder: tempfile::TempDir,
    listener: UnixListener,
}

type Peer = Connection<UnixStream, UnixStream>;

fn complaint(code: Code) -> Message {
    Message::Complaint(Complaint { code, message: "as the test says".to_string(), ..Complaint::default() })
}

fn welcome(epoch: u64) -> Message {
    Message::Welcome(Welcome { protocol: VERSION, epoch, heartbeat_ms: 60_000, ..Welcome::default() })
}

fn goodbye(reason: &str) -> Message {
    Message::Goodbye(Goodbye { reason: reason.to_string(), leave: false })
}

impl Engine {
    fn new() -> Engine {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        listener.set_nonblocking(true).unwrap();
        Engine { folder, listener }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Somebody who has said hello.
    fn accept(&self) -> (Peer, Hello) {
        let mut accepted = None;
        until("somebody connects", || {
            accepted = self.listener.accept().ok();
            accepted.is_some()
        });
        let (stream, _) = accepted.unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut peer = Connection::new(stream.try_clone().unwrap(), stream);
        match peer.receiver.receive().unwrap().0 {
            Message::Hello(hello) => (peer, hello),
            other => panic!("{other:?}"),
        }
    }

    /// Somebody who was welcomed.
    fn welcome(&self, epoch: u64) -> (Peer, Hello) {
        let (mut peer, hello) = self.accept();
        peer.sender.send(&welcome(epoch)).unwrap();
        (peer, hello)
    }

    /// A producer that was welcomed, with this end of its connection.
    fn producer(&self) -> (Producer, Peer) {
        let socket = self.socket();
        let connecting = thread::spawn(move || producer(socket));
        let (peer, _) = self.welcome(1);
        (join("a welcome", connecting), peer)
    }
}

/// The goodbye that comes next; whether it is for good.
fn hear_goodbye(peer: &mut Peer) -> bool {
    loop {
        match peer.receiver.receive().unwrap().0 {
            Message::Goodbye(goodbye) => return goodbye.leave,
            Message::Heartbeat(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn daemon(socket: PathBuf) -> Daemon {
    Daemon::connect(socket, Definition::daemon("source").provides("A"), PATIENCE).unwrap()
}

fn producer(socket: PathBuf) -> Producer {
    let definition = Definition::new("twice").requires("A").provides("B");
    Producer::connect(socket, definition, Duration::from_secs(600)).unwrap()
}

/// What a thread answers, which does not take for ever.
fn join<T>(what: &str, thread: JoinHandle<T>) -> T {
    until(what, || thread.is_finished());
    thread.join().unwrap()
}

#[test]
fn a_producer_that_is_stopped_waits_for_no_engine() {
    let engine = Engine::new();
    let (producer, peer) = engine.producer();
    let stop = producer.stop_handle();
    drop((peer, engine));
    let serving = thread::spawn(move || producer.serve(|_| Ok(Outputs::new())));
    stop.stop(true);
    let ended = join("it ends", serving);
    assert!(matches!(ended, Err(RemoteError::NoEngine { .. })), "nobody heard its goodbye: {ended:?}");
}

#[test]
fn a_producer_that_is_stopped_does_not_wait_for_a_welcome() {
    let engine = Engine::new();
    let (producer, peer) = engine.producer();
    let stop = producer.stop_handle();
    drop(peer);
    let serving = thread::spawn(move || producer.serve(|_| Ok(Outputs::new())));
    let (_silent, hello) = engine.accept();
    assert_eq!(hello.epoch, 1);
    stop.stop(true);
    let ended = join("it ends", serving);
    assert!(matches!(ended, Err(RemoteError::NoEngine { .. })), "{ended:?}");
}

#[test]
fn a_goodbye_that_is_not_answered_is_said_again() {
    let leave = |part: fn(Daemon) -> Result<(), RemoteError>| {
        let engine = Engine::new();
        let socket = engine.socket();
        let parting = thread::spawn(move || part(daemon(socket)));
        let (mut peer, _) = engine.welcome(1);
        let first = hear_goodbye(&mut peer);
        drop(peer);
        let (mut peer, hello) = engine.welcome(2);
        assert_eq!(hello.epoch, 1);
        assert_eq!(hear_goodbye(&mut peer), first);
        peer.sender.send(&goodbye("")).unwrap();
        join("it is gone", parting).unwrap();
        first
    };
    assert!(leave(Daemon::leave));
    assert!(!leave(Daemon::close));

    // A producer with runs; the engine's own goodbye is no answer.
    let engine = Engine::new();
    let (producer, mut peer) = engine.producer();
    producer.stop_handle().stop(true);
    let serving = thread::spawn(move || producer.serve(|_| Ok(Outputs::new())));
    assert!(hear_goodbye(&mut peer));
    peer.sender.send(&goodbye("the database is closed")).unwrap();
    drop(peer);
    let (mut peer, _) = engine.welcome(1);
    assert!(hear_goodbye(&mut peer));
    drop(peer);
    let (mut peer, _) = engine.welcome(1);
    assert!(hear_goodbye(&mut peer));
    peer.sender.send(&goodbye("")).unwrap();
    join("it is gone", serving).unwrap();
}

#[test]
fn a_goodbye_that_is_refused_is_no_success() {
    let engine = Engine::new();
    let (producer, mut peer) = engine.producer();
    producer.stop_handle().stop(true);
    let serving = thread::spawn(move || producer.serve(|_| Ok(Outputs::new())));
    assert!(hear_goodbye(&mut peer));
    let about = "goodbye".to_string();
    peer.sender.send(&Message::Complaint(Complaint { about, ..Complaint::default() })).unwrap();
    // It may have heard the complaint, and be gone.
    let _ = peer.sender.send(&goodbye(""));
    let ended = join("it is gone", serving);
    assert!(matches!(ended, Err(RemoteError::Refused(_))), "{ended:?}");
}

#[test]
fn a_run_in_work_ends_before_a_stop_and_its_result_counts() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let db = database();
    let _server = db.serve(&socket).unwrap();
    let producer = producer(socket);
    let stop = producer.stop_handle();
    let (begun, begins) = mpsc::channel();
    let (go, goes) = mpsc::channel::<()>();
    let serving = thread::spawn(move || {
        producer.serve(|run| {
            begun.send(()).unwrap();
            let _ = goes.recv();
            Ok(Outputs::new().put("B", run.input("A")?))
        })
    });
    put(&db, &["a"]);
    begins.recv_timeout(PATIENCE).unwrap();
    stop.stop(false);
    // What comes meanwhile is not begun.
    put(&db, &["a", "b"]);
    go.send(()).unwrap();
    drop(go);
    join("it ends", serving).unwrap();
    until("its session has ended", || !db.producers().iter().any(|producer| producer.attached));
    assert_eq!(get(&db, "a"), Some(1));
    assert_eq!(history(&db)[0], ("a".to_string(), "completed".to_string(), String::new()));
    assert!(history(&db)[1..].iter().all(|(_, outcome, _)| outcome == "rejected"), "{:?}", history(&db));
    assert_eq!(begins.try_iter().count(), 0, "nothing was begun after it");
}

#[test]
fn a_session_that_is_over_is_told_whoever_speaks_first() {
    let over = |act: fn(&mut Daemon) -> Result<(), RemoteError>| {
        let engine = Engine::new();
        let socket = engine.socket();
        let (told, hears) = mpsc::channel::<()>();
        let acting = thread::spawn(move || {
            let mut daemon = daemon(socket);
            hears.recv().unwrap();
            act(&mut daemon)
        });
        let (mut peer, _) = engine.welcome(1);
        peer.sender.send(&complaint(Code::Over)).unwrap();
        // Whatever it sends from here on, it cannot.
        drop(peer);
        told.send(()).unwrap();
        // Whoever comes back is let in.
        thread::spawn(move || {
            let mut peer = engine.welcome(2).0;
            while peer.receiver.receive().is_ok() {}
        });
        acting
    };
    let commits = over(|daemon| daemon.commit_once(1, &Cells::new().end_of(Date(1))).map(drop));
    let beats = over(Daemon::beat);
    for (what, acting) in [("commits", commits), ("beats", beats)] {
        let ended = join(what, acting);
        assert!(matches!(ended, Err(RemoteError::Fenced(_))), "{what}: {ended:?}");
    }
}

#[test]
fn a_producer_whose_session_is_over_ends() {
    let over = |is_busy: bool| {
        let engine = Engine::new();
        let (go, goes) = mpsc::channel::<()>();
        let (producer, mut peer) = engine.producer();
        let serving = thread::spawn(move || {
            producer.serve(|_| {
                let _ = goes.recv();
                Ok(Outputs::new())
            })
        });
        if is_busy {
            peer.sender.send(&Message::Run(run(1))).unwrap();
        }
        peer.sender.send(&complaint(Code::Over)).unwrap();
        drop(peer);
        drop(go);
        // Whoever comes back is let in.
        let letting = thread::spawn(move || engine.welcome(2));
        let ended = join("it ends", serving);
        assert!(matches!(ended, Err(RemoteError::Fenced(_))), "{ended:?}");
        drop(letting);
    };
    over(false);
    over(true);
}

#[test]
fn whoever_had_a_session_asks_for_it_while_another_connection_has_it() {
    let engine = Engine::new();
    let socket = engine.socket();
    let acting = thread::spawn(move || {
        let mut daemon = daemon(socket);
        while daemon.epoch() != 2 {
            daemon.beat().unwrap();
            thread::sleep(Duration::from_millis(2));
        }
    });
    drop(engine.welcome(1));
    // Longer than a newcomer is borne.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        let (mut peer, hello) = engine.accept();
        assert_eq!(hello.epoch, 1);
        peer.sender.send(&complaint(Code::Taken)).unwrap();
    }
    let _peer = engine.welcome(2);
    join("it is let in", acting);
}

#[test]
fn a_result_that_is_too_long_fails_its_run_alone() {
    let db = database();
    db.register_program(twice(), program("kinds")).unwrap();
    put(&db, &["long", "verbose", "good"]);
    settle(&db);
    let runs = db.runs(None, 10).unwrap();
    let of = |name: &str| {
        let [run] = &runs.iter().filter(|run| run.key == name).collect::<Vec<_>>()[..] else {
            panic!("not one run of {name}: {runs:?}")
        };
        (run.outcome.as_str(), run.error.clone().unwrap_or_default())
    };
    let (outcome, error) = of("long");
    assert_eq!(outcome, "failed");
    assert!(error.contains("is longer than the 16777216 that are allowed"), "{error}");
    let (outcome, error) = of("verbose");
    assert!(outcome == "declined" && error.starts_with("üüü"), "{outcome}: {error}");
    assert_eq!(get(&db, "good"), Some(6));
    assert!(runs.iter().all(|run| run.process == runs[0].process), "one process did it all");
}

#[test]
fn what_a_process_starts_reads_no_frames() {
    let db = database();
    db.register_program(twice(), program("inherit")).unwrap();
    put(&db, &["a", "b"]);
    settle(&db);
    assert_eq!((get(&db, "a"), get(&db, "b")), (Some(2), Some(4)));
}

fn run(pid: u64) -> RunMessage {
    let date = Field(Value::Date(Date(1)));
    let run = BundleRun { pid, attempts: 0, date, key: Default::default(), inputs: Vec::new() };
    RunMessage { batch: pid, epoch: 1, seq: 1, runs: vec![run] }
}

/// A child that is at work and waits for a file in a folder.
struct Working {
    folder: tempfile::TempDir,
    child: Child,
    connection: Connection<BufReader<ChildStdout>, ChildStdin>,
}

impl Working {
    fn start(heartbeat_ms: u64) -> Working {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_program"));
        command.arg("slow").arg(folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut connection = Connection::new(output, child.stdin.take().unwrap());
        assert!(matches!(connection.receiver.receive().unwrap().0, Message::Hello(_)));
        let welcome = Welcome { protocol: VERSION, heartbeat_ms, ..Welcome::default() };
        connection.sender.send(&Message::Welcome(welcome)).unwrap();
        connection.sender.send(&Message::Run(run(7))).unwrap();
        until("it works", || folder.path().read_dir().unwrap().count() == 1);
        Working { folder, child, connection }
    }

    /// Its last words, when it has ended well.
    fn end(mut self) -> String {
        drop(self.connection);
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(self.child.wait().unwrap().success(), "{said}");
        said
    }
}

#[test]
fn a_child_whose_engine_goes_in_a_run_says_so_and_ends() {
    let said = Working::start(1_000).end();
    assert!(said.contains("the engine is gone"), "{said}");
}

#[test]
fn a_child_hears_a_cancel_between_heartbeats() {
    let mut working = Working::start(u64::MAX);
    // Once it is watched.
    thread::sleep(Duration::from_millis(100));
    let cancel = Cancel { batch: 7, pids: vec![7], reason: String::new() };
    working.connection.sender.send(&Message::Cancel(cancel)).unwrap();
    until("it hears", || working.folder.path().join("cancelled").exists());
    working.end();
}
