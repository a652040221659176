//! A small desk: quotes become smiles, smiles become prices, prices of a day become a report.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use underbelly::{
    Batch, ColumnType, Columns, Database, Failure, Outputs, ProducerDefinition, Run, SlotDefinition, State,
};
use underbelly_tests::{day, one};

/// Long enough for every machine; a test that waits for it has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A slot with one cell a day.
pub fn daily(name: &str) -> SlotDefinition {
    SlotDefinition::new(name).value("n", ColumnType::I64)
}

/// The number in a cell.
pub fn number(rows: &Columns) -> i64 {
    rows.i64s("n").unwrap()[0]
}

/// Commits a number as a client.
pub fn put(db: &Database, slot: &str, name: &str, n: i64) -> underbelly::Commit {
    let mut batch = Batch::new();
    batch.put_slot(slot, day(), [name], one("n", n).unwrap());
    db.commit(batch).unwrap()
}

/// The number in a cell, where there is one.
pub fn get(db: &Database, slot: &str, name: &str) -> Option<i64> {
    db.snapshot().slot(slot, day(), [name]).unwrap().map(|cell| number(&cell.rows))
}

/// The state of a cell, where there is one.
pub fn state(db: &Database, slot: &str, name: &str) -> Option<State> {
    let mut table = db.slot_table(Some(slot)).unwrap();
    table.find(|row| row.key.to_string() == name).map(|row| row.state)
}

/// Waits until nothing is left to do.
pub fn settle(db: &Database) {
    assert!(db.wait_idle(PATIENCE), "producers do not come to rest");
}

/// Counts runs.
#[derive(Clone, Default)]
pub struct Counter(Arc<AtomicUsize>);

impl Counter {
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// Runs since the last call.
    pub fn take(&self) -> usize {
        self.0.swap(0, Ordering::SeqCst)
    }
}

/// Registers `to = f(from)`, cell by cell, and counts its runs.
pub fn derive(
    db: &Database,
    name: &str,
    from: &'static str,
    to: &'static str,
    f: impl Fn(i64) -> Result<i64, Failure> + Send + Sync + 'static,
) -> Counter {
    let counter = Counter::default();
    let count = counter.clone();
    db.register(ProducerDefinition::new(name).requires(from).provides(to), move |run: &Run| {
        count.add();
        let n = f(number(&run.input(from)?))?;
        Ok(Outputs::new().put(to, one("n", n)?))
    })
    .unwrap();
    counter
}
