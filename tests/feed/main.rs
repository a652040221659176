//! Who follows the feed is told every transaction and every change of state, once, in order, however late, or is told
//! that it is too late.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cursors;
mod kept;
mod order;
mod readers;
mod series;
mod slow;

use std::collections::BTreeMap;
use std::sync::Arc;

use underbelly::{
    Batch, CellId, Committed, Database, Durability, ManualClock, Options, Outputs, ProducerDefinition,
    SimulatedDisk, Start, State, Timestamp, View, Watch,
};
use underbelly_tests::{counter_slot, day, one};

/// The slot that is written.
pub const QUOTE: &str = "Desk.Quote";
/// The slot that is made of it.
pub const PRICE: &str = "Desk.Price";

/// Settings without threads and with a clock that stands still, under which nothing is written but by a transaction or by
/// who waits.
pub fn settings() -> Options {
    let clock = Arc::new(ManualClock::new(Timestamp(1_000)));
    Options { workers: 0, clock, buffered_delay: None, seal_after: None, ..underbelly_tests::options() }
}

/// A database in memory.
pub fn create(options: Options) -> (SimulatedDisk, Database) {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options).unwrap();
    (disk, db)
}

/// Defines both slots and attaches the producer of the second.
pub fn define(db: &Database) {
    db.define_slot(counter_slot(QUOTE)).unwrap();
    db.define_slot(counter_slot(PRICE)).unwrap();
    let producer = ProducerDefinition::new("pricer").requires(QUOTE).provides(PRICE);
    let work = |run: &underbelly::Run| {
        let n = run.input(QUOTE)?.i64s("n").unwrap()[0];
        Ok(Outputs::new().put(PRICE, one("n", 2 * n)?))
    };
    db.register(producer, work).unwrap();
}

/// A quote.
pub fn quote(name: &str, n: i64, durability: Durability) -> Batch {
    let mut batch = Batch::new();
    batch.put_slot(QUOTE, day(), [name], one("n", n).unwrap());
    batch.durability(durability);
    batch
}

/// A transaction that changes no state.
pub fn plain(x: i64, durability: Durability) -> Batch {
    let mut batch = Batch::new();
    batch.set_variable(underbelly::Scope::Global, "x", x);
    batch.durability(durability);
    batch
}

/// All that is told of a database from there on.
pub fn told(view: &View, start: Start) -> Vec<Committed> {
    view.feed(&Watch::all(), start).unwrap().map(Result::unwrap).collect()
}

/// What the states of cells are and how often their contents changed, as far as somebody was told.
#[derive(Default)]
pub struct Shadow {
    cells: BTreeMap<CellId, (State, u64)>,
    last: Option<(u64, Timestamp)>,
}

impl Shadow {
    /// Takes in what is told next. Its seq is one more than that before, its time is later, and each change begins where
    /// the one before of its cell ended.
    pub fn take(&mut self, committed: &Committed) {
        if let Some((seq, time)) = self.last {
            assert_eq!(committed.seq, seq + 1, "a gap");
            assert!(committed.time > time, "times of {seq} and {}", committed.seq);
        }
        self.last = Some((committed.seq, committed.time));
        for change in &committed.states {
            let (state, g) = self.cells.get(&change.sid).copied().unwrap_or((State::Void, 0));
            assert_eq!(change.from, state, "cell {} at {}", change.sid, committed.seq);
            let is_news = change.from != change.to || (change.to == State::Updated && change.generation > g);
            assert!(is_news, "cell {} at {}", change.sid, committed.seq);
            assert!(change.generation >= g);
            self.cells.insert(change.sid, (change.to, change.generation));
        }
    }

    /// Compares it with the database, of which everything was told.
    pub fn check(&self, db: &View) {
        let told = |sid: CellId| self.cells.get(&sid).map_or(State::Void, |(state, _)| *state);
        for row in db.slot_table(None).unwrap() {
            assert_eq!(told(row.sid), row.state, "{} {}", row.slot, row.key);
        }
    }
}

/// What was told, after a check that it is everything from `first` up to the newest transaction, in order.
pub fn check_all(view: &View, told: &[Committed], first: u64) {
    assert_eq!(told.first().map_or(first, |committed| committed.seq), first);
    let mut shadow = Shadow::default();
    told.iter().for_each(|committed| shadow.take(committed));
    if first == 1 {
        shadow.check(view);
    }
}
