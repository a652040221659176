//! Variables of processes that read beside the one that writes, and of one that is killed while it sets them.

use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use underbelly::{Database, Durability, Scope, SharedVar};
use underbelly_tests::{ARRAY, Places, options};

struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(program: &str, dir: &Path, arguments: &[&str]) -> Process {
        let mut command = Command::new(program);
        command.arg(dir).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Process { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("it says something").unwrap()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        assert_eq!(self.child.wait().unwrap().code(), None, "it ended by itself");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Another process sees arrays as they change: whole, in order, and not all at once.
#[test]
fn a_process_beside_the_writer_sees_whole_arrays_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("db");
    let db = Database::create_with(&dir, options()).unwrap();
    let logged = db.var::<Places>(&Scope::Global, ARRAY).unwrap();
    let unlogged = db.unlogged_var::<Places>(&Scope::Global, ARRAY).unwrap();
    let set = |n: u32| {
        let durability = if n.is_multiple_of(2) { Durability::Sync } else { Durability::Buffered };
        logged.clone().durability(durability).set([f64::from(n); 512]).unwrap();
    };
    set(0);
    unlogged.set([0.0; 512]).unwrap();
    let mut reader = Process::start(env!("CARGO_BIN_EXE_reader"), &dir, &["arrays", "400"]);
    assert_eq!(reader.line(), "begun");
    for n in 1..=400 {
        set(n);
        for part in 0..50 {
            unlogged.set([f64::from(n) - f64::from(49 - part) / 50.0; 512]).unwrap();
        }
    }
    let seen: Vec<u64> = reader.line().split(' ').map(|part| part.parse().unwrap()).collect();
    assert!(reader.child.wait().unwrap().success());
    assert!(seen.iter().all(|seen| *seen > 20), "values that were seen: {seen:?}");
}

/// One that is killed amid a set leaves the value before, for who reads on and for the next writer.
#[test]
fn a_writer_that_is_killed_leaves_whole_arrays() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("db");
    drop(Database::create_with(&dir, options()).unwrap());
    let reader = Database::open_read_only(&dir).unwrap();
    let mut logged = reader.var::<Places>(&Scope::Global, ARRAY).unwrap();
    let mut unlogged = reader.unlogged_var::<Places>(&Scope::Global, ARRAY).unwrap();
    let whole = |places: Option<Places>| {
        let places = places.expect("it is there");
        assert!(places.iter().all(|place| *place == places[0]), "{places:?}");
        places[0]
    };
    let whole_of = |shared: &mut SharedVar<Places>| {
        let read = shared.read().map(|reading| reading.value);
        assert_eq!(whole(read), whole(shared.get()));
        whole(read)
    };
    for round in 0..25 {
        let mut writer = Process::start(env!("CARGO_BIN_EXE_writer"), &dir, &["1000", "arrays"]);
        let mut acknowledged = 0.0;
        for _ in 0..3 + round % 5 {
            acknowledged = writer.line().split_once(' ').unwrap().1.parse().unwrap();
        }
        writer.kill();
        // It wrote more lines than were read.
        for line in writer.lines.by_ref() {
            acknowledged = line.unwrap().split_once(' ').unwrap().1.parse().unwrap();
        }
        let shown = whole_of(&mut logged);
        assert!(shown >= acknowledged, "{acknowledged} was acknowledged, {shown} is shown");
        assert!(whole_of(&mut unlogged) > 0.0);
        let db = Database::open_with(&dir, options()).unwrap();
        let kept = whole(db.var::<Places>(&Scope::Global, ARRAY).unwrap().get());
        assert!(kept >= shown, "{shown} was shown, {kept} is kept");
        assert_eq!((whole_of(&mut logged), unlogged.get()), (kept, None));
    }
}
