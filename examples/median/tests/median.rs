//! The system as its users run it: separate processes, started in any order, killed, and brought back.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use underbelly::{AlarmKind, Database, Reader, State, Timestamp, Value};

const X: &str = "0.6741543275356752";
const Y: &str = "0.46357797027309633";
const MEDIAN: f64 = 0.5688661489043858;

/// Long enough for every machine; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Never over in a test that loses nobody.
const LONG: &str = "600000";

struct System {
    folder: tempfile::TempDir,
    lease: &'static str,
    running: Vec<Child>,
}

impl Drop for System {
    fn drop(&mut self) {
        // The last to be started holds others up least.
        for mut child in self.running.drain(..).rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl System {
    fn new(lease: &'static str) -> System {
        System { folder: tempfile::tempdir().unwrap(), lease, running: Vec::new() }
    }

    fn db(&self) -> PathBuf {
        self.folder.path().join("db")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_median"));
        let socket = self.folder.path().join("socket");
        command.args(words).arg("--socket").arg(socket).args(["--lease", self.lease]);
        if words[0] == "generator" {
            command.args(["--every", "50"]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        command
    }

    fn start(&mut self, words: &[&str]) -> usize {
        let child = self.command(words).spawn().unwrap();
        self.running.push(child);
        self.running.len() - 1
    }

    fn hub(&mut self) -> usize {
        let db = self.db();
        self.start(&["hub", "--db", db.to_str().unwrap()])
    }

    fn kill(&mut self, at: usize) {
        self.running[at].kill().unwrap();
        self.running[at].wait().unwrap();
    }

    /// Closes its standard input, on which it says goodbye.
    fn end(&mut self, at: usize) {
        drop(self.running[at].stdin.take());
        assert!(self.running[at].wait().unwrap().success());
    }

    fn reader(&self) -> Reader {
        wait("a database", || Database::open_read_only(self.db()).ok())
    }
}

fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{what} does not come");
        thread::sleep(Duration::from_millis(5));
    }
}

fn until(what: &str, reader: &mut Reader, holds: impl Fn(&Reader) -> bool) {
    wait(what, || {
        reader.refresh().unwrap();
        holds(reader).then_some(())
    });
}

fn minute(number: i64) -> Timestamp {
    Timestamp(number * 60_000_000_000)
}

fn median(reader: &Reader, number: i64) -> Option<f64> {
    let cell = reader.snapshot().slot("Median", minute(number), [] as [Value; 0]).unwrap();
    cell.map(|cell| cell.rows.f64s("x").unwrap()[0])
}

fn decided(reader: &Reader, number: i64, name: &str) -> bool {
    reader.snapshot().slot("Decision", minute(number), [name]).unwrap().is_some()
}

fn attached(reader: &Reader, count: usize) -> bool {
    reader.producers().iter().filter(|producer| producer.attached).count() == count
}

fn runs(reader: &Reader, producer: &str) -> usize {
    reader.runs(Some(producer), usize::MAX).unwrap().len()
}

fn why(reader: &Reader, number: i64) -> String {
    reader.why("Median", minute(number), [] as [Value; 0]).unwrap().to_string()
}

#[test]
fn processes_start_in_any_order_and_the_median_comes_once() {
    let mut system = System::new(LONG);
    system.start(&["trader"]);
    system.start(&["strategy", "X", "--signals", "1000"]);
    system.start(&["generator", "1000", "--values", X]);
    system.hub();
    let mut reader = system.reader();
    system.start(&["strategy", "Y", "--signals", "1001"]);
    until("all of them", &mut reader, |reader| attached(reader, 4) && decided(reader, 1, "X"));
    // X was alone when it decided, perhaps: then its median is there. Y makes it another.
    let alone = median(&reader, 1);
    assert!(alone.is_none() || runs(&reader, "trader") == 1);
    // Minute 2 has both from the first.
    system.start(&["generator", "1001", "--values", Y, "--from", "2"]);
    system.end(2);
    system.start(&["generator", "1000", "--values", X, "--from", "2"]);
    until("the median", &mut reader, |reader| median(reader, 2).is_some());
    assert_eq!(median(&reader, 2), Some(MEDIAN));
    let of_minute = |reader: &Reader| {
        let runs = reader.runs(Some("trader"), usize::MAX).unwrap();
        runs.iter().filter(|run| run.date == minute(2).to_string()).count()
    };
    assert_eq!(of_minute(&reader), 1, "once");
    assert!(reader.alarms().is_empty());
}

#[test]
fn after_the_first_decision_there_is_none_and_why_names_who_is_missing() {
    let mut system = System::new(LONG);
    system.hub();
    let mut reader = system.reader();
    system.start(&["trader"]);
    system.start(&["strategy", "X", "--signals", "1000"]);
    system.start(&["strategy", "Y", "--signals", "1001"]);
    until("the strategies", &mut reader, |reader| attached(reader, 3));
    system.start(&["generator", "1000", "--values", X]);
    until("a decision", &mut reader, |reader| decided(reader, 1, "X"));
    assert_eq!((median(&reader, 1), runs(&reader, "trader")), (None, 0));
    let reason = why(&reader, 1);
    assert!(reason.contains("quorum 1/2: Y missing") && reason.contains("Signal"), "{reason}");
    system.start(&["generator", "1001", "--values", Y]);
    until("the median", &mut reader, |reader| median(reader, 1).is_some());
    assert_eq!((median(&reader, 1), runs(&reader, "trader")), (Some(MEDIAN), 1));
}

#[test]
fn a_killed_strategy_is_missed_and_one_that_leaves_is_not() {
    // Longer than a busy machine stops one of the others.
    let mut system = System::new("5000");
    system.hub();
    let mut reader = system.reader();
    system.start(&["trader"]);
    system.start(&["strategy", "X", "--signals", "1000"]);
    let killed = system.start(&["strategy", "Y", "--signals", "1001"]);
    let leaves = system.start(&["strategy", "Z", "--signals", "1001"]);
    until("the strategies", &mut reader, |reader| attached(reader, 4));
    system.end(leaves);
    until("a goodbye", &mut reader, |reader| reader.producers().len() == 3);
    assert!(reader.alarms().is_empty(), "a clean goodbye");
    system.kill(killed);
    until("an alarm", &mut reader, |reader| !reader.alarms().is_empty());
    let alarms = reader.alarms();
    assert_eq!(alarms.len(), 1);
    assert_eq!(alarms[0].kind, AlarmKind::Lost { producer: "Y".to_string() });
    system.start(&["generator", "1000", "--values", X]);
    system.start(&["generator", "1001", "--values", Y]);
    until("a decision", &mut reader, |reader| decided(reader, 1, "X"));
    assert_eq!(median(&reader, 1), None, "no median of the rest");
    let reason = why(&reader, 1);
    assert!(reason.contains("quorum 1/2: Y missing"), "{reason}");
    assert!(system.command(&["deregister", "Y"]).status().unwrap().success());
    until("the median of the rest", &mut reader, |reader| median(reader, 1).is_some());
    assert_eq!(median(&reader, 1), X.parse().ok());
}

#[test]
fn the_demonstration_ends_with_everybodys_goodbye() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let create = |name: &str| std::fs::File::create(file(name)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_median"));
    command.arg("demo").env("TMPDIR", folder.path()).stdin(Stdio::null());
    let mut demo = command.stdout(create("out")).stderr(create("err")).spawn().unwrap();
    let ended = wait("the end", || demo.try_wait().unwrap());
    let told = |name: &str| std::fs::read_to_string(file(name)).unwrap();
    assert!(ended.success(), "{}", told("err"));
    assert!(told("out").ends_with("-- the others go on without it\n"), "{}", told("out"));
    // What it killed is not here to say anything.
    assert_eq!(told("err"), "");
}

#[test]
fn the_hub_may_be_killed_in_the_middle_of_a_minute() {
    let mut system = System::new(LONG);
    let hub = system.hub();
    let mut reader = system.reader();
    system.start(&["trader"]);
    system.start(&["strategy", "X", "--signals", "1000"]);
    system.start(&["strategy", "Y", "--signals", "1001"]);
    until("the strategies", &mut reader, |reader| attached(reader, 3));
    system.start(&["generator", "1000", "--values", X]);
    until("a decision", &mut reader, |reader| decided(reader, 1, "X"));
    system.kill(hub);
    system.start(&["generator", "1001", "--values", Y]);
    system.hub();
    until("the median", &mut reader, |reader| median(reader, 1).is_some());
    assert_eq!((median(&reader, 1), runs(&reader, "trader")), (Some(MEDIAN), 1), "exactly once");
    until("everybody", &mut reader, |reader| attached(reader, 5));
    let mut rows = reader.slot_table(None).unwrap();
    assert!(rows.all(|row| row.state == State::Current));
    assert!(reader.alarms().is_empty());
}
