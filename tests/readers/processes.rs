//! Readers and writers in processes of their own, some of them killed.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use tempfile::TempDir;
use underbelly::{Database, Options, Reader};
use underbelly_tests::{define, large_in_script, options, transaction, transactions_shown};

/// A process of ours and what it says.
struct Speaker {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Speaker {
    fn start(program: &str, arguments: &[&str], dir: &Path) -> Speaker {
        let mut command = Command::new(program);
        command.arg(dir).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Speaker { child, lines }
    }

    fn writer(dir: &Path, operations: u64) -> Speaker {
        Speaker::start(env!("CARGO_BIN_EXE_writer"), &[&operations.to_string(), "steady"], dir)
    }

    fn reader(dir: &Path) -> Speaker {
        Speaker::start(env!("CARGO_BIN_EXE_reader"), &[], dir)
    }

    fn number(&mut self) -> u64 {
        let line = self.lines.next().expect("it says a number").unwrap();
        line.split(' ').next_back().unwrap().parse().unwrap()
    }

    fn ask(&mut self) -> u64 {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        self.number()
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn database(dir: &Path) {
    let db = Database::create_with(dir, options()).unwrap();
    define(&db).unwrap();
    db.close().unwrap();
}

fn shown(reader: &Reader) -> u64 {
    transactions_shown(&reader.snapshot(), large_in_script).unwrap()
}

#[test]
fn readers_beside_a_writer_that_commits_and_makes_checkpoints_see_whole_durable_prefixes() {
    let _alone = crate::alone();
    let dir = TempDir::new().unwrap();
    database(dir.path());
    // A checkpoint after each dozen of transactions, and log files that hold a few.
    let mut writer = Speaker::writer(dir.path(), 40);
    let mut acknowledged = writer.number();
    let mut here = Database::open_read_only(dir.path()).unwrap();
    let mut beside = Speaker::reader(dir.path());
    let mut others = beside.number();
    let mut seen = shown(&here);
    let mut slow = Database::open_read_only(dir.path()).unwrap();
    let first = slow.manifest();
    let mut kept = Vec::new();
    while acknowledged < 400 {
        acknowledged = writer.number();
        if acknowledged.is_multiple_of(7) {
            kept.push((seen, here.snapshot()));
            let seq = here.seq();
            assert!(here.refresh().unwrap() >= seq, "a reader does not go back");
            let now = shown(&here);
            assert!(now >= acknowledged && now >= seen, "{now} after {seen}, acknowledged {acknowledged}");
            seen = now;
        }
        if acknowledged.is_multiple_of(23) {
            let now = beside.ask();
            assert!(
                now >= acknowledged && now >= others,
                "{now} after {others}, acknowledged {acknowledged}"
            );
            others = now;
        }
    }
    for (seen, snapshot) in kept {
        assert_eq!(
            transactions_shown(&snapshot, large_in_script).unwrap(),
            seen,
            "a snapshot does not change"
        );
    }
    slow.refresh().unwrap();
    assert!(shown(&slow) >= acknowledged);
    assert!(slow.manifest() > first, "the log was recycled under this one, and it began anew");
}

#[test]
fn a_killed_writer_leaves_its_readers_what_was_durable() {
    let _alone = crate::alone();
    let dir = TempDir::new().unwrap();
    database(dir.path());
    for round in 0..5 {
        let mut writer = Speaker::writer(dir.path(), 1_000);
        let mut reader = Database::open_read_only(dir.path()).unwrap();
        let mut acknowledged = 0;
        for _ in 0..10 + round {
            acknowledged = writer.number();
        }
        writer.kill();
        reader.refresh().unwrap();
        let seen = shown(&reader);
        assert!(seen >= acknowledged, "round {round}: {seen} of {acknowledged}");
        let opened = Database::open_read_only(dir.path()).unwrap();
        assert_eq!(shown(&opened), seen);
        let recovered = Database::open_with(dir.path(), options()).unwrap();
        let all = transactions_shown(&recovered.snapshot(), large_in_script).unwrap();
        assert!(all >= seen, "round {round}: {all} of {seen} shown to others");
    }
}

#[test]
fn a_killed_reader_holds_nothing_any_more() {
    let _alone = crate::alone();
    let dir = TempDir::new().unwrap();
    database(dir.path());
    let db = Database::open_with(dir.path(), options()).unwrap();
    let mut reader = Speaker::reader(dir.path());
    assert_eq!(reader.number(), 0);
    let pid = reader.child.id();
    let status = Database::open_read_only(dir.path()).unwrap().status().unwrap();
    let pinned = status.manifest;
    assert_eq!(status.readers, [(pid, pinned)]);
    assert_eq!(db.status().readers, [(pid, pinned)]);
    assert_eq!(status.writer, Some(std::process::id()));
    let is_there = || dir.path().join(format!("MANIFEST-{pinned:010}")).exists();
    for i in 1..5 {
        db.commit(transaction(i, large_in_script(i)).unwrap()).unwrap();
        db.checkpoint().unwrap();
        assert!(is_there(), "a manifest that is pinned stays");
    }
    reader.kill();
    db.checkpoint().unwrap();
    db.checkpoint().unwrap();
    assert!(!is_there(), "the reader is dead");
    assert!(db.status().readers.is_empty());
}

#[test]
fn a_second_writer_is_refused_while_readers_come_and_go() {
    let _alone = crate::alone();
    let dir = TempDir::new().unwrap();
    database(dir.path());
    let mut writer = Speaker::writer(dir.path(), 1_000);
    writer.number();
    let refused = Database::open_with(dir.path(), Options::default()).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains(&format!("process {}", writer.child.id())), "{refused}");
    let mut reader = Speaker::reader(dir.path());
    assert!(reader.number() > 0);
    let writer_seen = Database::open_read_only(dir.path()).unwrap().status().unwrap().writer;
    assert_eq!(writer_seen, Some(writer.child.id()));
    writer.kill();
    // The reader is no hindrance.
    drop(Database::open_with(dir.path(), options()).unwrap());
    assert!(reader.ask() > 0);
}
