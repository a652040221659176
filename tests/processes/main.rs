//! Producers that run in processes of their own: what they give, how they die, what they may not say, and what becomes of
//! them when the engine ends.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod daemons;
mod deaths;
mod ends;
mod models;
mod nonsense;
mod python;
mod remote;
mod results;
mod soak;
mod worker;

use std::time::Duration;

use underbelly::{Batch, Columns, Database, Outputs, ProducerDefinition, Program, Retry, RunRecord, State};
use underbelly_tests::{counter_slot, day, in_memory, one};

/// Long enough for every machine; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A database in memory with slots A, B and C.
fn database() -> Database {
    let (_, db) = in_memory().unwrap();
    for name in ["A", "B", "C"] {
        db.define_slot(counter_slot(name)).unwrap();
    }
    db
}

/// The program of the tests in this mode.
fn program(mode: &str) -> Program {
    Program::new(env!("CARGO_BIN_EXE_program")).arg(mode)
}

/// A producer that makes B of A, and tries again at once what failed, twice.
fn twice() -> ProducerDefinition {
    let soon = Duration::from_millis(1);
    ProducerDefinition::new("twice").requires("A").provides("B").retry(Retry::new(3, soon, soon))
}

fn number(rows: &Columns) -> i64 {
    rows.i64s("n").unwrap()[0]
}

fn put(db: &Database, names: &[&str]) {
    let mut batch = Batch::new();
    for (n, name) in (1..).zip(names) {
        batch.put_slot("A", day(), [*name], one("n", n).unwrap());
    }
    db.commit(batch).unwrap();
}

fn get(db: &Database, name: &str) -> Option<i64> {
    db.snapshot().slot("B", day(), [name]).unwrap().map(|cell| number(&cell.rows))
}

fn state(db: &Database, slot: &str, name: &str) -> Option<State> {
    let mut table = db.slot_table(Some(slot)).unwrap();
    table.find(|row| row.key.to_string() == name).map(|row| row.state)
}

fn settle(db: &Database) {
    assert!(db.wait_idle(PATIENCE), "producers do not come to rest: {:?}", db.status().trouble);
}

/// What ended, oldest first: key, outcome, error.
fn history(db: &Database) -> Vec<(String, String, String)> {
    let told = |run: RunRecord| (run.key, run.outcome, run.error.unwrap_or_default());
    db.runs(None, 1000).unwrap().into_iter().rev().map(told).collect()
}

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "not so: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
