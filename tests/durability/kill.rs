//! A process that commits is killed at any moment.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use tempfile::TempDir;
use underbelly::{Database, Options};
use underbelly_tests::{Numbers, define, large_in_script, options, transaction, transactions_shown};

/// Long enough for every machine; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

fn start(dir: &Path, options: &Options) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_writer"));
    command.arg(dir).arg(options.checkpoint_operations.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
}

/// Starts and kills writers of one database. Each fifth is killed at a random moment after its start, which may come
/// before it has opened; each other at a random moment after its first acknowledged transaction.
fn rounds(seed: u64, count: u64, writing: &Options) {
    let _alone = crate::alone();
    let dir = TempDir::new().unwrap();
    let db = Database::create_with(dir.path(), writing.clone()).unwrap();
    define(&db).unwrap();
    db.close().unwrap();
    let mut numbers = Numbers::new(seed);
    let mut before = 0;
    for round in 0..count {
        let mut writer = start(dir.path(), writing);
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let (sender, receiver) = channel();
        let reader = std::thread::spawn(move || {
            for line in lines {
                sender.send(line.unwrap().parse::<u64>().unwrap()).unwrap();
            }
        });
        let first = (round % 5 != 4).then(|| receiver.recv_timeout(PATIENCE));
        // The random moment, not a wait for something.
        std::thread::sleep(Duration::from_micros(numbers.below(60_000)));
        writer.kill().unwrap();
        writer.wait().unwrap();
        reader.join().unwrap();
        if let Some(first) = first {
            assert_eq!(first, Ok(before + 1), "round {round}: what the writer acknowledged first");
        }
        let first = first.and_then(Result::ok);
        let acknowledged = receiver.into_iter().last().or(first).unwrap_or(before);
        let db = Database::open_with(dir.path(), options()).unwrap();
        let shown = transactions_shown(&db.snapshot(), large_in_script).unwrap();
        assert!(
            shown == acknowledged || shown == acknowledged + 1,
            "round {round}: {acknowledged} acknowledged, {shown} shown"
        );
        let report = db.verify(|_, _| ()).unwrap();
        assert_eq!(report.damages, Vec::<String>::new(), "round {round}");
        before = shown;
        if round % 3 == 0 {
            before += 1;
            db.commit(transaction(before, large_in_script(before)).unwrap()).unwrap();
        }
        if round % 5 == 0 {
            db.close().unwrap();
        }
    }
}

/// What a killed process acknowledged is there after it, at most one transaction more, each whole.
#[test]
fn killed_processes_lose_nothing_that_they_acknowledged() {
    rounds(1, 25, &options());
}

/// The same where each third transaction asks for a checkpoint.
#[test]
fn processes_killed_during_checkpoints_lose_nothing() {
    rounds(2, 25, &Options { checkpoint_operations: 9, ..options() });
}
