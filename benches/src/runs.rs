//! Many runs: how many end in a second, how soon ready ones can start after an opening, and what a producer that falls behind
//! costs in memory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use underbelly::{
    Batch, ColumnType, Columns, Commit, Database, Date, Failure, Options, Outputs, ProducerDefinition, Run,
    SlotDefinition,
};

use crate::{Failed, place};

const INPUT: &str = "bench.input";
const OUTPUT: &str = "bench.output";
const DAY: Date = Date(20_000);
const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes of text in each cell.
pub const TEXT_BYTES: usize = 100;

/// A database whose producer makes an output cell of each input cell.
pub struct Runs {
    db: Database,
    round: i64,
}

/// Contents of a cell: a number and as much text as makes [`TEXT_BYTES`].
pub fn contents(number: i64) -> Result<Columns, Failed> {
    Ok(Columns::new()
        .with("number", vec![number].into())?
        .with("text", ["x".repeat(TEXT_BYTES)].iter().collect())?)
}

/// What is made of a cell without looking at it: the next number.
fn answer(run: &Run) -> Result<Outputs, Failure> {
    let number = run.inputs(INPUT)?.first().map_or(0, |cell| cell.generation());
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    Ok(Outputs::new().put(OUTPUT, Columns::new().with("number", vec![number].into())?))
}

fn define(db: &Database) -> Result<(), Failed> {
    let input = SlotDefinition::new(INPUT).cell_key("key", ColumnType::I64);
    db.define_slot(input.value("number", ColumnType::I64).value("text", ColumnType::Utf8))?;
    let output = SlotDefinition::new(OUTPUT).cell_key("key", ColumnType::I64);
    db.define_slot(output.value("number", ColumnType::I64))?;
    Ok(())
}

fn producer(max_batch: u32) -> ProducerDefinition {
    ProducerDefinition::new("copy").requires(INPUT).provides(OUTPUT).max_batch(max_batch)
}

fn put(db: &Database, keys: std::ops::Range<u64>, number: i64) -> Result<Commit, Failed> {
    let mut batch = Batch::new();
    for key in keys {
        batch.put_slot(INPUT, DAY, [i64::try_from(key)?], contents(number)?);
    }
    Ok(db.commit(batch)?)
}

impl Runs {
    /// A new database in a folder, whose producer takes up to `max_batch` bundles at once.
    pub fn create(folder: &Path, max_batch: u32) -> Result<Runs, Failed> {
        let db = Database::create(folder)?;
        define(&db)?;
        db.register_batch(producer(max_batch), |runs| Ok(runs.iter().map(answer).collect()))?;
        Ok(Runs { db, round: 0 })
    }

    /// The time in which `commits` durable commits of `cells` cells each wake as many runs, and those end and are durable.
    pub fn run(&mut self, commits: u64, cells: u64) -> Result<Duration, Failed> {
        self.round += 1;
        let began = Instant::now();
        for commit in 0..commits {
            let woken = put(&self.db, commit * cells..(commit + 1) * cells, self.round)?.woken;
            if woken as u64 != cells {
                return Err(format!("{cells} cells made {woken} bundles ready").into());
            }
        }
        match self.db.wait_idle(PATIENCE) {
            true => Ok(began.elapsed()),
            false => Err("runs have not ended after two minutes".into()),
        }
    }
}

/// A database of so many ready bundles that nobody has run, closed as a crash leaves it or with a checkpoint.
pub fn leave_ready(folder: &Path, bundles: u64, checkpoint: bool) -> Result<(), Failed> {
    const CELLS: u64 = 5_000;
    let db = Database::create_with(folder, Options { workers: 0, ..Options::default() })?;
    define(&db)?;
    db.register(producer(1), answer)?;
    for from in (0..bundles).step_by(usize::try_from(CELLS)?) {
        put(&db, from..(from + CELLS).min(bundles), 1)?;
    }
    if checkpoint {
        db.checkpoint()?;
    }
    Ok(())
}

/// Opens such a database and registers its producer; the time until the opening and until the first run have ended.
pub fn recover(folder: &Path) -> Result<(Duration, Duration), Failed> {
    let began = Instant::now();
    let db = Database::open(folder)?;
    let opened = began.elapsed();
    let (sender, first) = std::sync::mpsc::channel();
    let is_over = Arc::new(AtomicBool::new(false));
    let over = is_over.clone();
    db.register(producer(1), move |run| {
        let _ = sender.send(Instant::now());
        match over.load(Ordering::Relaxed) {
            true => Err(Failure::rejected("it was the first that counts")),
            false => answer(run),
        }
    })?;
    let started = first.recv_timeout(PATIENCE)?.saturating_duration_since(began);
    is_over.store(true, Ordering::Relaxed);
    Ok((opened, started))
}

/// What a producer that takes `pause` for each run does to memory while cells change as fast as they can be committed.
pub struct Slow {
    /// Commits, of one cell each.
    pub commits: u64,
    /// Runs.
    pub runs: u64,
    /// Resident bytes after each quarter of the time.
    pub resident: [u64; 4],
}

/// Commits `cells` cells in turn for so long, beside a producer that is slower.
pub fn slow(folder: &Path, cells: u64, pause: Duration, time: Duration) -> Result<Slow, Failed> {
    let db = Database::create(folder)?;
    define(&db)?;
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    db.register(producer(1), move |run| {
        thread::sleep(pause);
        counted.fetch_add(1, Ordering::Relaxed);
        answer(run)
    })?;
    let (mut commits, mut resident) = (0, [0; 4]);
    for (quarter, bytes) in resident.iter_mut().enumerate() {
        let began = Instant::now();
        while began.elapsed() < time / 4 {
            let key = commits % cells;
            put(&db, key..key + 1, i64::try_from(commits + quarter as u64)?)?;
            commits += 1;
        }
        *bytes = place::resident_memory();
    }
    Ok(Slow { commits, runs: count.load(Ordering::Relaxed), resident })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_is_run_once() {
        let folder = crate::place::scratch().unwrap();
        let mut runs = Runs::create(&folder.path().join("db"), 16).unwrap();
        runs.run(3, 20).unwrap();
        runs.run(3, 20).unwrap();
        let snapshot = runs.db.snapshot();
        for key in 0..60i64 {
            let cell = snapshot.slot(OUTPUT, DAY, [key]).unwrap().unwrap();
            assert_eq!(cell.rows.i64s("number"), Some(&[2][..]), "key {key}");
        }
    }

    #[test]
    fn what_was_left_ready_is_run_after_an_opening() {
        for checkpoint in [false, true] {
            let folder = crate::place::scratch().unwrap();
            let place = folder.path().join("db");
            leave_ready(&place, 50, checkpoint).unwrap();
            let (opened, started) = recover(&place).unwrap();
            assert!(opened <= started);
        }
    }

    #[test]
    fn a_slow_producer_runs_beside_its_input() {
        let folder = crate::place::scratch().unwrap();
        let time = Duration::from_millis(200);
        let slow = slow(&folder.path().join("db"), 2, Duration::from_millis(10), time).unwrap();
        assert!(slow.runs > 0 && slow.commits > slow.runs && slow.resident[3] > 0);
    }
}
