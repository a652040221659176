//! Processes that connect over a socket, in any order, and again when one side was gone.

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use underbelly::{Durability, Options, ServeError, SimulatedDisk, SlotDefinition};
use underbelly_protocol::message::{Code, Complaint, Goodbye, Hello, Message, Results};
use underbelly_protocol::{Connection, VERSION};
use underbelly_tests::options;
use underbelly_worker::remote::{Accepted, Cells, Client, Daemon, Producer, RemoteError};
use underbelly_worker::{Definition, InputDefinition, Outputs, When};

use super::*;

const LEASE: Duration = Duration::from_secs(600);

struct Hub {
    _folder: tempfile::TempDir,
    socket: PathBuf,
    disk: SimulatedDisk,
}

impl Hub {
    fn new() -> Hub {
        let folder = tempfile::tempdir().unwrap();
        let (socket, disk) = (folder.path().join("hub.socket"), SimulatedDisk::new());
        let hub = Hub { _folder: folder, socket, disk };
        let db = Database::create_on(Arc::new(hub.disk.clone()), options()).unwrap();
        for name in ["A", "B", "C"] {
            db.define_slot(counter_slot(name)).unwrap();
        }
        let members = SlotDefinition::new("M").member_key("who").value("n", underbelly::ColumnType::I64);
        db.define_slot(members).unwrap();
        db.close().unwrap();
        hub
    }

    fn open(&self) -> Database {
        Database::open_on(Arc::new(self.disk.clone()), options()).unwrap()
    }
}

fn rows(n: i64) -> underbelly_worker::Columns {
    underbelly_worker::Columns::new().with("n", vec![n].into()).unwrap()
}

fn cell(slot: &str, name: &'static str, n: i64) -> Cells {
    Cells::new().put(slot, day(), [("name", name)], rows(n))
}

fn source() -> Definition {
    Definition::daemon("source").provides("A").lease(LEASE)
}

fn doubler() -> Definition {
    let soon = Duration::from_millis(1);
    Definition::new("twice").requires("A").provides("B").lease(LEASE).retry(3, soon, soon)
}

fn twice(run: &underbelly_worker::Run) -> Result<Outputs, underbelly_worker::Failure> {
    let n = run.input("A")?.i64s("n").unwrap_or_default()[0];
    Ok(Outputs::new().put("B", rows(2 * n)))
}

#[test]
fn processes_connect_in_any_order_and_work_together() {
    let hub = Hub::new();
    let socket = hub.socket.clone();
    // Before there is an engine.
    let producer = thread::spawn(move || {
        let producer = Producer::connect(&socket, doubler(), PATIENCE).unwrap();
        let stop = producer.stop_handle();
        (stop, thread::spawn(move || producer.serve(twice)))
    });
    let socket = hub.socket.clone();
    let daemon = thread::spawn(move || Daemon::connect(&socket, source(), PATIENCE).unwrap());
    let db = hub.open();
    let server = db.serve(&hub.socket).unwrap();
    let mut daemon = daemon.join().unwrap();
    let (stop, serving) = producer.join().unwrap();
    assert!(matches!(daemon.commit_once(1, &cell("A", "a", 21)).unwrap(), Accepted::Now(_)));
    assert_eq!(daemon.commit_once(1, &cell("A", "a", 99)).unwrap(), Accepted::Before);
    until("it is doubled", || get(&db, "a") == Some(42));
    settle(&db);
    assert_eq!(state(&db, "A", "a"), Some(State::Current));
    let run = db.runs(Some("twice"), 1).unwrap().remove(0);
    assert_eq!(run.process, Some(std::process::id()));
    // A daemon gives what it provides, and nothing else.
    let refused = daemon.commit_once(2, &cell("C", "a", 1)).unwrap_err();
    assert!(matches!(&refused, RemoteError::Refused(what) if what.contains("\"C\"")), "{refused}");
    let wrong = daemon.commit_once(2, &Cells::new().put("A", day(), [("nome", "a")], rows(1))).unwrap_err();
    assert!(wrong.to_string().contains("name each of its cell keys, [\"name\"]"), "{wrong}");
    // A client does as clients do.
    let mut client = Client::connect(&hub.socket, PATIENCE).unwrap();
    assert!(client.commit(&cell("C", "a", 1)).unwrap() > 0);
    assert_eq!(state(&db, "C", "a"), Some(State::Current));
    assert_eq!(server.peers(), 3);

    stop.stop(false);
    serving.join().unwrap().unwrap();
    daemon.close().unwrap();
    drop(client);
    until("they are gone", || server.peers() == 0);
    assert_eq!(db.producers().iter().filter(|producer| producer.attached).count(), 0);
    assert_eq!(db.alarms().len(), 0, "a clean goodbye is no alarm");
    drop(server);
    assert!(!hub.socket.exists());
    db.close().unwrap();
}

#[test]
fn a_process_is_shown_what_is_durable() {
    let hub = Hub::new();
    let options = Options { buffered_delay: None, ..options() };
    let db = Database::open_on(Arc::new(hub.disk.clone()), options).unwrap();
    let _server = db.serve(&hub.socket).unwrap();
    let producer = Producer::connect(&hub.socket, doubler(), PATIENCE).unwrap();
    let stop = producer.stop_handle();
    let (inner, durable) = (db.clone(), Arc::new(AtomicU64::new(0)));
    let seen = durable.clone();
    let serving = thread::spawn(move || {
        producer.serve(move |run| {
            seen.store(inner.durable_seq(), Ordering::SeqCst);
            twice(run)
        })
    });
    let mut batch = Batch::new();
    batch.put_slot("A", day(), ["a"], one("n", 21).unwrap()).durability(Durability::Buffered);
    let commit = db.commit(batch).unwrap();
    until("it is doubled", || get(&db, "a") == Some(42));
    assert!(durable.load(Ordering::SeqCst) >= commit.seq, "a process was shown what a crash takes back");
    stop.stop(false);
    serving.join().unwrap().unwrap();
    db.close().unwrap();
}

#[test]
fn a_second_process_of_a_producer_is_refused_and_one_that_was_taken_out_is_fenced() {
    let hub = Hub::new();
    let db = hub.open();
    let _server = db.serve(&hub.socket).unwrap();
    let mut daemon = Daemon::connect(&hub.socket, source(), PATIENCE).unwrap();
    let second = Daemon::connect(&hub.socket, source(), Duration::from_millis(50)).map(drop);
    assert!(matches!(second, Err(RemoteError::Taken(_))), "{second:?}");
    let other = Daemon::connect(&hub.socket, source().provides("C"), PATIENCE).map(drop);
    assert!(matches!(other, Err(RemoteError::Refused(_))), "{other:?}");
    daemon.commit_once(1, &cell("A", "a", 1)).unwrap();
    let mut client = Client::connect(&hub.socket, PATIENCE).unwrap();
    client.deregister("source").unwrap();
    let late = daemon.commit_once(2, &cell("A", "a", 2)).unwrap_err();
    assert!(matches!(late, RemoteError::Fenced(_)), "{late}");
    let unknown = client.deregister("source").unwrap_err();
    assert!(unknown.to_string().contains("is not registered"), "{unknown}");
    assert_eq!(db.snapshot().slot("A", day(), ["a"]).unwrap().map(|cell| number(&cell.rows)), Some(1));
    // With its runs, and in the middle of one.
    let producer = Producer::connect(&hub.socket, doubler(), PATIENCE).unwrap();
    let (begun, begins) = std::sync::mpsc::channel();
    let (go, goes) = std::sync::mpsc::channel::<()>();
    let serving = thread::spawn(move || {
        producer.serve(move |run| {
            begun.send(()).unwrap();
            let _ = goes.recv();
            twice(run)
        })
    });
    begins.recv().unwrap();
    client.deregister("twice").unwrap();
    drop(go);
    let ended = serving.join().unwrap();
    assert!(matches!(ended, Err(RemoteError::Fenced(_))), "{ended:?}");
    assert_eq!(get(&db, "a"), None);
    let outcomes: Vec<_> = history(&db).into_iter().map(|(_, outcome, _)| outcome).collect();
    assert_eq!(outcomes, ["halted"]);
}

#[test]
fn a_blip_changes_nothing_and_what_was_sent_twice_is_committed_once() {
    let hub = Hub::new();
    let db = hub.open();
    let server = db.serve(&hub.socket).unwrap();
    let mut daemon = Daemon::connect(&hub.socket, source(), PATIENCE).unwrap();
    daemon.commit_once(5, &cell("A", "a", 5)).unwrap();
    let epoch = daemon.epoch();
    // It goes without a goodbye, and comes back within its lease.
    drop(daemon);
    until("it is gone", || server.peers() == 0);
    let mut daemon = Daemon::connect(&hub.socket, source(), PATIENCE).unwrap();
    assert_eq!((daemon.epoch(), daemon.last()), (epoch, Some(5)));
    assert_eq!(daemon.commit_once(5, &cell("A", "a", 6)).unwrap(), Accepted::Before);
    assert!(matches!(daemon.commit_once(6, &cell("A", "a", 6)).unwrap(), Accepted::Now(_)));
    assert_eq!(db.alarms().len(), 0);
}

#[test]
fn whoever_is_connected_comes_back_to_an_engine_that_was_gone() {
    let hub = Hub::new();
    let db = hub.open();
    let server = db.serve(&hub.socket).unwrap();
    let mut daemon = Daemon::connect(&hub.socket, source(), PATIENCE).unwrap();
    let producer = Producer::connect(&hub.socket, doubler(), PATIENCE).unwrap();
    let stop = producer.stop_handle();
    let serving = thread::spawn(move || producer.serve(twice));
    daemon.commit_once(1, &cell("A", "a", 1)).unwrap();
    until("it works", || get(&db, "a") == Some(2));
    settle(&db);
    let before = daemon.epoch();
    drop(server);
    db.close().unwrap();

    // It is sent while there is no engine.
    let sending = thread::spawn(move || {
        let accepted = daemon.commit_once(2, &cell("A", "a", 2)).unwrap();
        (daemon, accepted)
    });
    let db = hub.open();
    let _server = db.serve(&hub.socket).unwrap();
    let (daemon, accepted) = sending.join().unwrap();
    assert!(matches!(accepted, Accepted::Now(_)));
    assert!(daemon.epoch() > before);
    until("it works again", || get(&db, "a") == Some(4));
    settle(&db);
    let cell = db.snapshot().slot("B", day(), ["a"]).unwrap().unwrap();
    assert_eq!(cell.generation, 2);
    stop.stop(true);
    serving.join().unwrap().unwrap();
    until("it is taken out", || db.producers().iter().all(|producer| producer.definition.name != "twice"));
}

#[test]
fn members_that_connect_make_a_quorum() {
    let hub = Hub::new();
    let db = hub.open();
    let total = underbelly::ProducerDefinition::new("total").requires("M").provides("D");
    db.define_slot(SlotDefinition::new("D").value("n", underbelly::ColumnType::I64)).unwrap();
    let total = total.group_by::<String>([], underbelly::When::Quorum);
    db.register(total, |run| {
        let cells = run.inputs("M")?;
        let numbers = cells.iter().map(|cell| Ok(number(&cell.rows()?)));
        let sum: i64 = numbers.collect::<Result<Vec<_>, underbelly::ReadError>>()?.into_iter().sum();
        Ok(underbelly::Outputs::new().put("D", one("n", sum)?))
    })
    .unwrap();
    let _server = db.serve(&hub.socket).unwrap();
    let member = |name: &'static str| {
        let definition = Definition::daemon(name).provides_as("M", name).lease(LEASE);
        Daemon::connect(&hub.socket, definition, PATIENCE).unwrap()
    };
    let give = |daemon: &mut Daemon, name: &'static str, number: u64, n: i64| {
        let cells = Cells::new().put("M", day(), [("who", name)], rows(n));
        daemon.commit_once(number, &cells).unwrap();
    };
    let sum = || {
        let cell = db.snapshot().slot("D", day(), [] as [&str; 0]).unwrap();
        cell.map(|cell| number(&cell.rows))
    };
    let (mut x, mut y) = (member("x"), member("y"));
    // One that reads the cell of another, and is no member itself.
    db.define_slot(SlotDefinition::new("E").value("n", underbelly::ColumnType::I64)).unwrap();
    let input = InputDefinition::required("M").equals("who", "x").alias("source");
    let follower = Definition::new("z").input(input).group_by::<String>([], When::Quorum);
    let circle = Producer::connect(&hub.socket, follower.clone().provides_as("M", "z"), PATIENCE).map(drop);
    assert!(matches!(&circle, Err(RemoteError::Refused(what)) if what.contains("M → z → M")), "{circle:?}");
    let follower = Producer::connect(&hub.socket, follower.provides("E"), PATIENCE).unwrap();
    let stop = follower.stop_handle();
    let following = thread::spawn(move || {
        follower.serve(|run| Ok(Outputs::new().put("E", run.inputs("source")?[0].rows()?)))
    });
    give(&mut x, "x", 1, 1);
    settle(&db);
    assert_eq!(sum(), None);
    let followed = db.snapshot().slot("E", day(), [] as [&str; 0]).unwrap();
    assert_eq!(followed.map(|cell| number(&cell.rows)), Some(1));
    give(&mut y, "y", 1, 10);
    settle(&db);
    assert_eq!(sum(), Some(11));
    assert_eq!(db.runs(Some("z"), 10).unwrap().len(), 1);
    stop.stop(true);
    following.join().unwrap().unwrap();
}

/// A process of a producer with runs, which waits for a file in each.
fn slow(socket: &Path, folder: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_program"));
    command.arg("remote").arg(folder).arg(socket).spawn().unwrap()
}

#[test]
fn a_process_that_is_killed_in_a_run_comes_back_and_its_output_is_committed_once() {
    let hub = Hub::new();
    let db = hub.open();
    let _server = db.serve(&hub.socket).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut first = slow(&hub.socket, folder.path());
    put(&db, &["a"]);
    until("it works", || std::fs::read_dir(folder.path()).unwrap().count() == 1);
    first.kill().unwrap();
    first.wait().unwrap();
    until("its run is given up", || !history(&db).is_empty());
    let (_, outcome, error) = history(&db).remove(0);
    assert_eq!((outcome.as_str(), error.as_str()), ("retry", "its process is gone: the connection was lost"));
    std::fs::write(folder.path().join("go"), "").unwrap();
    let mut second = slow(&hub.socket, folder.path());
    settle(&db);
    assert_eq!(get(&db, "a"), Some(2));
    assert_eq!(db.snapshot().slot("B", day(), ["a"]).unwrap().unwrap().generation, 1);
    second.kill().unwrap();
    second.wait().unwrap();
}

/// What runs of `twice` came to, when its process dies or leaves in the middle of each.
fn outcomes_of(end: impl Fn(&mut Connection<UnixStream, UnixStream>)) -> Vec<String> {
    let hub = Hub::new();
    let db = hub.open();
    let _server = db.serve(&hub.socket).unwrap();
    put(&db, &["a"]);
    let mut definition = doubler();
    definition.lease_ms = None;
    let hello = Hello {
        protocol: VERSION,
        role: "producer".to_string(),
        definition: Some(definition),
        ..Hello::default()
    };
    for time in 1..=4 {
        until("it is let in", || {
            let stream = UnixStream::connect(&hub.socket).unwrap();
            let mut connection = Connection::new(stream.try_clone().unwrap(), stream);
            connection.sender.send(&Message::Hello(hello.clone())).unwrap();
            if !matches!(connection.receiver.receive().unwrap().0, Message::Welcome(_)) {
                return false;
            }
            // Nothing comes once its bundle has failed.
            if history(&db).last().is_none_or(|(_, outcome, _)| outcome != "failed") {
                assert!(matches!(connection.receiver.receive().unwrap().0, Message::Run(_)));
                end(&mut connection);
            }
            true
        });
        until("its session has ended", || !db.producers().iter().any(|producer| producer.attached));
        let runs = history(&db).len();
        assert!(runs <= time, "{runs} of {time}");
    }
    history(&db).into_iter().map(|(_, outcome, _)| outcome).collect()
}

#[test]
fn a_process_that_dies_in_each_run_uses_its_attempts_up_and_one_that_says_goodbye_uses_none() {
    assert_eq!(outcomes_of(|_| {}), ["retry", "retry", "failed"]);
    let left = outcomes_of(|connection| {
        connection.sender.send(&Message::Goodbye(Goodbye::default())).unwrap();
        while !matches!(connection.receiver.receive(), Ok((Message::Goodbye(_), _)) | Err(_)) {}
    });
    assert_eq!(left, ["rejected"; 4]);
    let nonsense = outcomes_of(|connection| {
        let complaint = Complaint { about: "run".to_string(), ..Complaint::default() };
        connection.sender.send(&Message::Complaint(complaint)).unwrap();
        until("it is let go", || connection.receiver.receive().is_err());
    });
    assert_eq!(nonsense, ["failed"]);
    let wrong = outcomes_of(|connection| {
        let results = Results { batch: 1_000_000, ..Results::default() };
        connection.sender.send(&Message::Results(results)).unwrap();
        until("it is let go", || connection.receiver.receive().is_err());
    });
    assert_eq!(wrong, ["failed"]);
}

#[test]
fn a_session_that_was_lost_is_not_gone_on_with() {
    let hub = Hub::new();
    let db = hub.open();
    let server = db.serve(&hub.socket).unwrap();
    let hello = |epoch: u64| Hello {
        protocol: VERSION,
        role: "producer".to_string(),
        definition: Some(source().lease(Duration::from_millis(100))),
        epoch,
        ..Hello::default()
    };
    let ask = |epoch: u64| {
        let stream = UnixStream::connect(&hub.socket).unwrap();
        let mut connection = Connection::new(stream.try_clone().unwrap(), stream);
        connection.sender.send(&Message::Hello(hello(epoch))).unwrap();
        connection.receiver.receive().unwrap().0
    };
    let Message::Welcome(welcome) = ask(0) else { panic!("it is not welcome") };
    until("it is lost", || db.alarms().len() == 1);
    let Message::Complaint(over) = ask(welcome.epoch) else { panic!("it is welcome") };
    assert_eq!((over.code, over.message.contains("no sign of life")), (Code::Over, true), "{over:?}");
    // A process that begins anew is another one.
    let Message::Welcome(anew) = ask(0) else { panic!("it is not welcome") };
    assert!(anew.epoch > welcome.epoch);
    drop(server);
}

#[test]
fn an_engine_that_is_closed_in_each_run_uses_no_attempt() {
    let hub = Hub::new();
    let folder = tempfile::tempdir().unwrap();
    let mut process = slow(&hub.socket, folder.path());
    let db = hub.open();
    put(&db, &["a"]);
    db.close().unwrap();
    for time in 1..=4 {
        let db = hub.open();
        let server = db.serve(&hub.socket).unwrap();
        until("it works", || db.running().count() == 1);
        if time % 2 == 0 {
            drop(server);
        }
        db.close().unwrap();
    }
    std::fs::write(folder.path().join("go"), "").unwrap();
    let db = hub.open();
    let _server = db.serve(&hub.socket).unwrap();
    until("it is done", || get(&db, "a") == Some(2));
    let outcomes: Vec<String> = history(&db).into_iter().map(|(_, outcome, _)| outcome).collect();
    assert_eq!(outcomes.last().map(String::as_str), Some("completed"), "{outcomes:?}");
    assert!(outcomes.iter().all(|outcome| outcome != "retry" && outcome != "failed"), "{outcomes:?}");
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn a_process_whose_session_was_lost_leaves_the_work_of_its_successor_alone() {
    let hub = Hub::new();
    let db = hub.open();
    let server = db.serve(&hub.socket).unwrap();
    let mut definition = doubler();
    // Long enough for its successor on a machine that is busy.
    definition.lease_ms = Some(1000);
    // One that is welcomed, and silent from then on.
    let stream = UnixStream::connect(&hub.socket).unwrap();
    let mut silent = Connection::new(stream.try_clone().unwrap(), stream.try_clone().unwrap());
    let hello = Hello {
        protocol: VERSION,
        role: "producer".to_string(),
        definition: Some(definition.clone()),
        ..Hello::default()
    };
    silent.sender.send(&Message::Hello(hello)).unwrap();
    assert!(matches!(silent.receiver.receive().unwrap().0, Message::Welcome(_)));
    put(&db, &["a"]);
    assert!(matches!(silent.receiver.receive().unwrap().0, Message::Run(_)));
    until("it is lost", || db.alarms().len() == 1);
    let producer = Producer::connect(&hub.socket, definition, PATIENCE).unwrap();
    let stop = producer.stop_handle();
    let serving = thread::spawn(move || producer.serve(twice));
    until("its successor works", || get(&db, "a") == Some(2));
    // The engine has ended the connection of the first by itself.
    assert!(silent.receiver.receive().is_err());
    drop((silent, stream));
    until("it is gone", || server.peers() == 1);
    put(&db, &["b"]);
    until("its successor works on", || get(&db, "b") == Some(2));
    assert_eq!(db.alarms().len(), 0);
    stop.stop(false);
    serving.join().unwrap().unwrap();
    db.close().unwrap();
}

#[test]
fn a_session_goes_on_over_another_server_of_the_database() {
    let hub = Hub::new();
    let db = hub.open();
    let (first, second) = (hub.socket.clone(), hub.socket.with_file_name("other.socket"));
    let servers = (db.serve(&first).unwrap(), db.serve(&second).unwrap());
    let daemon = Daemon::connect(&first, source(), PATIENCE).unwrap();
    let epoch = daemon.epoch();
    drop(daemon);
    until("it is gone", || servers.0.peers() == 0);
    let daemon = Daemon::connect(&second, source(), PATIENCE).unwrap();
    assert_eq!(daemon.epoch(), epoch);
}

#[test]
fn a_closure_takes_no_work_from_a_process_that_has_it() {
    let hub = Hub::new();
    let db = hub.open();
    let _server = db.serve(&hub.socket).unwrap();
    let soon = Duration::from_millis(1);
    let definition = Definition::new("twice").requires("A").provides("B").retry(3, soon, soon);
    let producer = Producer::connect(&hub.socket, definition, PATIENCE).unwrap();
    let stop = producer.stop_handle();
    let serving = thread::spawn(move || producer.serve(twice));
    let refused = db.register(super::twice(), |_| Ok(underbelly::Outputs::new())).unwrap_err();
    assert!(refused.to_string().contains("has a session already"), "{refused}");
    put(&db, &["a"]);
    until("the process works", || get(&db, "a") == Some(2));
    stop.stop(false);
    serving.join().unwrap().unwrap();
    until("its session has ended", || !db.producers().iter().any(|producer| producer.attached));
    db.register(super::twice(), |_| Ok(underbelly::Outputs::new())).unwrap();
}

#[test]
fn nonsense_over_a_socket_is_answered_and_harms_nobody() {
    let hub = Hub::new();
    let db = hub.open();
    let _server = db.serve(&hub.socket).unwrap();
    let mut daemon = Daemon::connect(&hub.socket, source(), PATIENCE).unwrap();
    let connect = || UnixStream::connect(&hub.socket).unwrap();
    let said = |stream: UnixStream| -> String {
        let mut connection = Connection::new(stream.try_clone().unwrap(), stream);
        match connection.receiver.receive() {
            Ok((Message::Complaint(complaint), _)) => complaint.message,
            other => panic!("{other:?}"),
        }
    };
    let mut text = connect();
    text.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(said(text).contains("is no frame"));
    let greeted = |hello: Hello| {
        let stream = connect();
        let mut connection = Connection::new(stream.try_clone().unwrap(), stream.try_clone().unwrap());
        connection.sender.send(&Message::Hello(hello)).unwrap();
        said(stream)
    };
    let hello = |protocol: u32, role: &str| Hello { protocol, role: role.to_string(), ..Hello::default() };
    assert!(greeted(hello(9, "client")).contains("version 9"));
    assert!(greeted(hello(VERSION, "dancer")).contains("no role \"dancer\""));
    assert!(greeted(hello(VERSION, "producer")).contains("is not registered"));
    // One that says hello, half a frame, and goes.
    let mut half = connect();
    half.write_all(b"UBF1\xff").unwrap();
    drop(half);
    let mut silent = connect();
    silent.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0);
    daemon.commit_once(1, &cell("A", "a", 1)).unwrap();
    assert_eq!(state(&db, "A", "a"), Some(State::Current));
}

#[test]
fn a_socket_is_served_once_and_what_a_killed_process_left_is_replaced() {
    let hub = Hub::new();
    let db = hub.open();
    let server = db.serve(&hub.socket).unwrap();
    let second = db.serve(&hub.socket).map(drop);
    assert!(matches!(second, Err(ServeError::Taken { .. })), "{second:?}");
    drop(server);
    assert!(!hub.socket.exists());
    drop(std::os::unix::net::UnixListener::bind(&hub.socket).unwrap());
    assert!(hub.socket.exists());
    let server = db.serve(&hub.socket).unwrap();
    assert_eq!(std::fs::symlink_metadata(&hub.socket).unwrap().mode() & 0o777, 0o600);
    let beside = std::fs::read_dir(hub.socket.parent().unwrap()).unwrap();
    assert_eq!(beside.count(), 1, "nothing is left beside it");
    // What is no socket is not touched.
    let file = hub.socket.with_file_name("notes");
    std::fs::write(&file, "to be kept").unwrap();
    let refused = db.serve(&file).map(drop).unwrap_err();
    assert!(matches!(refused, ServeError::NoSocket { .. }), "{refused}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "to be kept");
    // Nor is that of another, where the own one was removed; and dropping a server does not hang then.
    let lost = hub.socket.with_file_name("lost.socket");
    let first = db.serve(&lost).unwrap();
    std::fs::remove_file(&lost).unwrap();
    let second = db.serve(&lost).unwrap();
    drop(first);
    Client::connect(&lost, Duration::ZERO).unwrap();
    drop(second);
    assert!(!lost.exists());
    let long = hub.socket.with_file_name("x".repeat(200));
    let refused = db.serve(&long).map(drop).unwrap_err().to_string();
    assert!(refused.contains("xxx"), "{refused}");
    // Closing does not wait for whoever is connected.
    let daemon = Daemon::connect(&hub.socket, source(), PATIENCE).unwrap();
    db.clone().close().unwrap();
    assert!(!hub.socket.exists());
    assert!(matches!(db.serve(&hub.socket), Err(ServeError::Closed { .. })));
    drop(server);
    drop(daemon);
}
