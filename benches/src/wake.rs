//! From a commit to the producer that it wakes: one cell, one producer, one commit at a time.

use std::path::Path;
use std::time::{Duration, Instant};

use underbelly::{
    Batch, ColumnType, Columns, Database, Date, Latencies, Outputs, ProducerDefinition, SlotDefinition, Value,
};

use crate::Failed;

const INPUT: &str = "bench.input";
const OUTPUT: &str = "bench.output";
const DAY: Date = Date(20_000);
const PATIENCE: Duration = Duration::from_secs(10);

/// A database whose producer copies an input cell to an output cell.
pub struct Wakes {
    db: Database,
    next: i64,
}

fn contents(value: i64) -> Result<Columns, Failed> {
    Ok(Columns::new().with("value", vec![value].into())?)
}

impl Wakes {
    /// A new database in a folder.
    pub fn create(folder: &Path) -> Result<Wakes, Failed> {
        let db = Database::create(folder)?;
        for slot in [INPUT, OUTPUT] {
            db.define_slot(SlotDefinition::new(slot).value("value", ColumnType::I64))?;
        }
        db.register(ProducerDefinition::new("copy").requires(INPUT).provides(OUTPUT), |run| {
            Ok(Outputs::new().put(OUTPUT, run.input(INPUT)?))
        })?;
        Ok(Wakes { db, next: 0 })
    }

    /// The time of `count` commits, each followed by waiting until the output is current and nothing runs.
    pub fn run(&mut self, count: u64) -> Result<Duration, Failed> {
        let began = Instant::now();
        for _ in 0..count {
            self.next += 1;
            let mut batch = Batch::new();
            batch.put_slot(INPUT, DAY, [] as [Value; 0], contents(self.next)?);
            self.db.commit(batch)?;
            if !self.db.wait_idle(PATIENCE) {
                return Err("the output is not current after ten seconds".into());
            }
        }
        Ok(began.elapsed())
    }

    /// Latencies of the commits since the last call, as the database measured them.
    pub fn take_latencies(&self) -> Latencies {
        let latencies = self.db.latencies();
        self.db.reset_latencies();
        latencies
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn every_commit_wakes_the_producer_once() {
        let folder = crate::place::scratch().unwrap();
        let mut wakes = Wakes::create(&folder.path().join("db")).unwrap();
        wakes.run(20).unwrap();
        let latencies = wakes.take_latencies();
        // Every commit unsettles the input until it is taken up, and the output until it is made.
        assert_eq!((latencies.wake.samples, latencies.commit_to_current.samples), (20, 40));
        let cell = wakes.db.snapshot().slot(OUTPUT, DAY, [] as [Value; 0]).unwrap().unwrap();
        assert_eq!(cell.rows.i64s("value"), Some(&[20][..]));
        assert_eq!(wakes.take_latencies().wake.samples, 0);
    }
}
