//! A process that commits is killed at any moment; its parent holds what it acknowledged.
//!
//! Each test kills 25 times, or as often as `UNDERBELLY_KILLS` says.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use tempfile::TempDir;
use underbelly::{Database, Options};
use underbelly_tests::{Numbers, define, desk, large_in_script, options, transaction, transactions_shown};

/// Long enough for every machine; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Rounds on one database. What is checked in each grows with the rounds before it.
const ROUNDS: u64 = 25;

/// What the processes do.
struct Work {
    mode: &'static str,
    threads: usize,
    /// Makes what they need.
    prepare: fn(&Database),
    /// How many transactions of each thread are there, each whole.
    shown: fn(&Database) -> Vec<u64>,
    /// What a process that is not killed may do afterwards; answers what is shown then.
    go_on: fn(&Database, &[u64]) -> Vec<u64>,
}

const SCRIPT: Work = Work {
    mode: "script",
    threads: 1,
    prepare: |db| define(db).unwrap(),
    shown: |db| vec![transactions_shown(&db.snapshot(), large_in_script).unwrap()],
    go_on: |db, shown| {
        let next = shown[0] + 1;
        db.commit(transaction(next, large_in_script(next)).unwrap()).unwrap();
        vec![next]
    },
};

const DESK: Work = Work {
    mode: "desk",
    threads: desk::THREADS,
    prepare: |db| desk::register(db).unwrap(),
    shown: |db| desk::quoted(&db.snapshot()).unwrap(),
    go_on: |db, shown| {
        desk::settle(db).unwrap();
        db.commit(desk::quote(1, shown[1] + 1).unwrap()).unwrap();
        desk::settle(db).unwrap();
        let mut shown = shown.to_vec();
        shown[1] += 1;
        shown
    },
};

fn start(dir: &Path, options: &Options, work: &Work) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_writer"));
    command.arg(dir).arg(options.checkpoint_operations.to_string()).arg(work.mode);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
}

fn acknowledged(line: &str) -> (usize, u64) {
    let (thread, number) = line.split_once(' ').unwrap();
    (thread.parse().unwrap(), number.parse().unwrap())
}

/// How often each test kills.
fn kills() -> u64 {
    let asked = std::env::var("UNDERBELLY_KILLS").ok();
    asked.map_or(25, |text| text.parse().expect("UNDERBELLY_KILLS is a number"))
}

/// Kills as often as asked for, on a fresh database from time to time.
fn kill(seed: u64, writing: &Options, work: &Work) {
    let _alone = crate::alone();
    let kills = kills();
    let mut unacknowledged = 0;
    for first in (0..kills).step_by(ROUNDS as usize) {
        unacknowledged += rounds(seed * 1_000_000 + first, ROUNDS.min(kills - first), writing, work);
        if kills > ROUNDS {
            println!("{}: {} kills", work.mode, (first + ROUNDS).min(kills));
        }
    }
    println!("{}: {kills} kills, {unacknowledged} transactions more than acknowledged", work.mode);
}

/// Starts and kills writers of one database. Each fifth is killed at a random moment after its start, which may come
/// before it has opened; each other at a random moment after its first acknowledged transaction. Answers how many
/// transactions were there that were not acknowledged.
fn rounds(seed: u64, count: u64, writing: &Options, work: &Work) -> u64 {
    let dir = TempDir::new().unwrap();
    let db = Database::create_with(dir.path(), writing.clone()).unwrap();
    (work.prepare)(&db);
    db.close().unwrap();
    let mut numbers = Numbers::new(seed);
    let mut before = vec![0; work.threads];
    let mut unacknowledged = 0;
    for round in 0..count {
        let at = format!("seed {seed}, round {round}");
        let mut writer = start(dir.path(), writing, work);
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let (sender, receiver) = channel();
        let reader = std::thread::spawn(move || {
            for line in lines {
                sender.send(acknowledged(&line.unwrap())).unwrap();
            }
        });
        let mut held = before.clone();
        let mut hold = |(thread, number): (usize, u64)| {
            assert_eq!(number, held[thread] + 1, "{at}: what thread {thread} acknowledged");
            held[thread] = number;
        };
        if round % 5 != 4 {
            hold(receiver.recv_timeout(PATIENCE).expect("a writer that acknowledges something"));
        }
        // The random moment, not a wait for something.
        std::thread::sleep(Duration::from_micros(numbers.below(60_000)));
        writer.kill().unwrap();
        let status = writer.wait().unwrap();
        assert_eq!(status.code(), None, "{at}: the writer ended by itself");
        reader.join().unwrap();
        receiver.into_iter().for_each(hold);
        let db = Database::open_with(dir.path(), options()).unwrap();
        let shown = (work.shown)(&db);
        for (thread, (shown, held)) in shown.iter().zip(&held).enumerate() {
            let more = shown.checked_sub(*held);
            assert!(
                matches!(more, Some(0 | 1)),
                "{at}: of thread {thread} {held} were acknowledged and {shown} are shown"
            );
            unacknowledged += more.unwrap_or(0);
        }
        let report = db.verify(|_, _| ()).unwrap();
        assert_eq!(report.damages, Vec::<String>::new(), "{at}");
        before = shown;
        if round % 3 == 0 {
            before = (work.go_on)(&db, &before);
        }
        if round % 5 == 0 {
            db.close().unwrap();
        }
    }
    unacknowledged
}

/// What a killed process acknowledged is there after it, at most one transaction more, each whole.
#[test]
fn killed_processes_lose_nothing_that_they_acknowledged() {
    kill(1, &options(), &SCRIPT);
}

/// The same where each third transaction asks for a checkpoint.
#[test]
fn processes_killed_during_checkpoints_lose_nothing() {
    kill(2, &Options { checkpoint_operations: 9, ..options() }, &SCRIPT);
}

/// The same with several threads that commit, producers at work, runs cut off, and checkpoints. What the producers made
/// is never without what they made it from; after the kill they take up what is left.
#[test]
fn processes_killed_with_producers_at_work_lose_nothing() {
    kill(3, &Options { checkpoint_operations: 60, ..options() }, &DESK);
}
