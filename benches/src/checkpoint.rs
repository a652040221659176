//! Databases of many cells: what a checkpoint of a few changes costs, what it does to commits, and how long opening
//! takes.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use underbelly::{
    Batch, CheckpointReport, Column, ColumnType, Columns, Database, Date, Metadata, Options, Outputs,
    ProducerDefinition, Row, SlotDefinition, Timestamp,
};

use crate::Failed;

/// Cells of one transaction when a database is filled.
const BATCH_CELLS: u64 = 5_000;
/// Rows of one transaction when a database is filled.
const BATCH_ROWS: u64 = 100_000;

/// What a database is filled with.
#[derive(Clone, Copy, Debug)]
pub struct Filling {
    /// Cells of one slot, each with contents of its own.
    pub cells: u64,
    /// Versions of as many models.
    pub models: u64,
    /// Rows of one series.
    pub rows: u64,
}

/// A database of many cells.
pub struct Cells {
    db: Database,
    cells: u64,
    round: i64,
}

/// The checkpoint after a run of a group over so many cells of a date: the group's record holds a generation for each
/// and is captured as a whole.
pub fn change_group(folder: &Path, members: u64) -> Result<CheckpointReport, Failed> {
    let db = Database::create_with(folder, unhurried())?;
    db.define_slot(slot())?;
    db.define_slot(SlotDefinition::new("Sum").value("n", ColumnType::I64))?;
    let sum = ProducerDefinition::new("sum").requires("Cells").group_by_date().provides("Sum");
    db.register(sum, |run| {
        let count = run.inputs("Cells")?.len() as i64;
        Ok(Outputs::new().put("Sum", Columns::new().with("n", Column::from(vec![count]))?))
    })?;
    let day = Date(20_000);
    for from in (0..members).step_by(BATCH_CELLS as usize) {
        let mut batch = Batch::new();
        for cell in from..(from + BATCH_CELLS).min(members) {
            batch.put_slot("Cells", day, [cell as i64], contents(cell as i64)?);
        }
        db.commit(batch)?;
    }
    let mut batch = Batch::new();
    batch.end_of(day);
    db.commit(batch)?;
    db.wait_idle(Duration::from_secs(60));
    db.checkpoint()?;
    let mut batch = Batch::new();
    batch.put_slot("Cells", day, [0], contents(-1)?);
    db.commit(batch)?;
    db.wait_idle(Duration::from_secs(60));
    Ok(db.checkpoint()?)
}

/// Settings under which no checkpoint is made but those that are asked for.
fn unhurried() -> Options {
    Options {
        checkpoint_bytes: u64::MAX,
        checkpoint_operations: u64::MAX,
        checkpoint_replay: Duration::MAX,
        ..Options::default()
    }
}

/// Latencies of commits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Latency {
    /// Commits measured.
    pub commits: usize,
    /// The median.
    pub p50: Duration,
    /// 99 of 100 are shorter.
    pub p99: Duration,
    /// 999 of 1,000 are shorter.
    pub p999: Duration,
    /// The longest.
    pub max: Duration,
}

impl Latency {
    fn of(mut all: Vec<Duration>) -> Latency {
        all.sort_unstable();
        let at = |part: f64| all.get(((all.len() as f64 * part) as usize).min(all.len().saturating_sub(1)));
        let at = |part: f64| at(part).copied().unwrap_or_default();
        Latency { commits: all.len(), p50: at(0.5), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }
}

fn slot() -> SlotDefinition {
    SlotDefinition::new("Cells").cell_key("id", ColumnType::I64).value("n", ColumnType::I64)
}

fn contents(n: i64) -> Result<Columns, Failed> {
    Ok(Columns::new().with("n", Column::from(vec![n]))?)
}

/// Fills a new database in a folder with these settings.
pub fn fill(folder: &Path, filling: Filling, options: Options) -> Result<Database, Failed> {
    let db = Database::create_with(folder, options)?;
    db.define_slot(slot())?;
    for from in (0..filling.rows).step_by(BATCH_ROWS as usize) {
        let rows = from as i64..(from + BATCH_ROWS).min(filling.rows) as i64;
        let keys: Column = rows.clone().map(|row| ["IBM", "AA", "MSFT"][row as usize % 3]).collect();
        let price: Vec<f64> = rows.clone().map(|row| (row % 10_000) as f64 / 100.0).collect();
        let columns = Columns::new().with("symbol", keys)?.with("price", Column::from(price))?;
        let mut batch = Batch::new();
        batch.append_columns("quote", rows.map(Timestamp).collect(), columns, &["symbol"])?;
        db.commit(batch)?;
    }
    for from in (0..filling.models).step_by(1000) {
        let mut batch = Batch::new();
        for model in from..(from + 1000).min(filling.models) {
            let metadata = Metadata::new("smile").with("desk", "vol").with("number", model as i64);
            let metadata = metadata.with("timestamp", Timestamp(model as i64));
            batch.put_model(metadata, model.to_le_bytes().repeat(16));
        }
        db.commit(batch)?;
    }
    for from in (0..filling.cells).step_by(BATCH_CELLS as usize) {
        let mut batch = Batch::new();
        for cell in from..(from + BATCH_CELLS).min(filling.cells) {
            batch.put_slot("Cells", Date(20_000), [cell as i64], contents(cell as i64)?);
        }
        db.commit(batch)?;
    }
    Ok(db)
}

impl Cells {
    /// A new database in a folder, which makes no checkpoint of its own.
    pub fn create(folder: &Path, cells: u64) -> Result<Cells, Failed> {
        let filling = Filling { cells, models: 0, rows: 0 };
        let db = fill(folder, filling, Options::default())?;
        // What follows is measured apart from checkpoints in the background.
        db.close()?;
        Ok(Cells { db: Database::open_with(folder, unhurried())?, cells, round: 0 })
    }

    /// The checkpoint after so many cells, spread over all, got new contents.
    pub fn change(&mut self, count: u64) -> Result<CheckpointReport, Failed> {
        self.round += 1;
        let step = (self.cells / count).max(1);
        let changed: Vec<u64> = (0..count).map(|cell| cell * step % self.cells).collect();
        for part in changed.chunks(BATCH_CELLS as usize) {
            let mut batch = Batch::new();
            for cell in part {
                let n = *cell as i64 + self.round * self.cells as i64;
                batch.put_slot("Cells", Date(20_000), [*cell as i64], contents(n)?);
            }
            self.db.commit(batch)?;
        }
        Ok(self.db.checkpoint()?)
    }

    /// Latencies of commits by `threads` threads for a while, each of one row and one cell, and the checkpoints that
    /// were made meanwhile, one after the other where `checkpoints` asks for them.
    pub fn commit(
        &self,
        threads: u64,
        length: Duration,
        checkpoints: bool,
    ) -> Result<(Latency, Vec<CheckpointReport>), Failed> {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let work = |thread: u64| {
                let (mut latencies, began) = (Vec::new(), Instant::now());
                while began.elapsed() < length {
                    let n = latencies.len() as u64 * threads + thread;
                    let mut batch = Batch::new();
                    batch.append(Row::new("load", Timestamp(n as i64)).key("who", "a").field("x", 1))?;
                    let cell = n.wrapping_mul(7_919) % self.cells;
                    batch.put_slot("Cells", Date(20_000), [cell as i64], contents(n as i64)?);
                    let start = Instant::now();
                    self.db.commit(batch)?;
                    latencies.push(start.elapsed());
                }
                Ok::<_, Failed>(latencies)
            };
            let checkpointer = scope.spawn(|| {
                let mut reports = Vec::new();
                while checkpoints && !over.load(Ordering::Relaxed) {
                    reports.push(self.db.checkpoint()?);
                }
                Ok::<_, Failed>(reports)
            });
            let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
            let mut all = Vec::new();
            let panicked = |_| Failed::from("a thread panicked");
            for worker in workers {
                all.extend(worker.join().map_err(panicked)??);
            }
            over.store(true, Ordering::Relaxed);
            Ok((Latency::of(all), checkpointer.join().map_err(panicked)??))
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn changes_and_commits_are_measured() {
        let folder = crate::place::scratch().unwrap();
        let mut cells = Cells::create(&folder.path().join("db"), 2_000).unwrap();
        let report = cells.change(10).unwrap();
        assert!(report.records >= 10 && report.records < 20, "{report:?}");
        let (latency, reports) = cells.commit(2, Duration::from_millis(50), true).unwrap();
        assert!(latency.commits > 0 && !reports.is_empty());
        assert!(latency.p50 <= latency.p999 && latency.p999 <= latency.max);
    }

    #[test]
    fn a_group_is_one_record() {
        let folder = crate::place::scratch().unwrap();
        let report = change_group(&folder.path().join("db"), 500).unwrap();
        assert!(report.records >= 3 && report.records < 10 && report.image_bytes > 500 * 12, "{report:?}");
    }
}
