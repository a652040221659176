//! Transactions per second, next to raw writes and syncs of 4 KiB on the same file system.
//!
//! `cargo run --release -p underbelly --example transactions -- DIRECTORY [SECONDS] [CASE]`
//!
//! A case is `THREADS:KIND`: `sync` commits rows of 100 bytes that are durable when answered, `buffered` the same rows
//! answered when visible, `tick` rows of a key and a number answered when visible, `put` cells answered when visible.

use std::cell::Cell;
use std::error::Error;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use underbelly::{
    Batch, Column, ColumnType, Columns, CommitError, Database, Date, Disk, Durability, RealDisk, Row,
    SlotDefinition, Timestamp,
};

const FILE_LEN: u64 = 64 << 20;
const BLOCK: u64 = 4096;
const CASES: [&str; 6] = ["1:sync", "16:sync", "64:sync", "2:buffered", "2:tick", "2:put"];

/// Writes and syncs of 4 KiB a second, one behind the other, on a file that was written before.
fn raw(disk: &dyn Disk, time: Duration) -> Result<f64, Box<dyn Error>> {
    let file = disk.create("raw")?;
    let zeros = vec![0; 1 << 20];
    for step in 0..FILE_LEN >> 20 {
        file.write_at(&zeros, step << 20)?;
    }
    file.sync_all()?;
    let block = vec![1; BLOCK as usize];
    let (began, mut done) = (Instant::now(), 0u64);
    while began.elapsed() < time {
        file.write_at(&block, done * BLOCK % FILE_LEN)?;
        file.sync_data()?;
        done += 1;
    }
    let rate = done as f64 / began.elapsed().as_secs_f64();
    disk.remove("raw")?;
    Ok(rate)
}

/// What one thread commits.
struct Rows {
    names: [Arc<str>; 3],
    text: String,
    next: Cell<i64>,
}

impl Rows {
    /// Threads share no number, so that no contents are equal.
    fn new(thread: usize) -> Rows {
        Rows {
            names: ["event", "source", "text"].map(Arc::from),
            text: "x".repeat(84),
            next: Cell::new((thread as i64) << 32),
        }
    }

    fn number(&self) -> i64 {
        self.next.replace(self.next.get() + 1)
    }

    /// A row of 100 bytes: a timestamp, a key of 8 bytes and a text of 84.
    fn hundred_bytes(&self) -> Result<Batch, CommitError> {
        let [series, key, field] = &self.names;
        let number = self.number();
        let row = Row::new(series.clone(), Timestamp(number));
        let mut batch = Batch::new();
        batch.append(
            row.key(key.clone(), format!("S{:07}", number % 100)).field(field.clone(), self.text.as_str()),
        )?;
        Ok(batch)
    }

    /// A row of a key and a number.
    fn tick(&self) -> Result<Batch, CommitError> {
        let [series, key, field] = &self.names;
        let number = self.number();
        let row = Row::new(series.clone(), Timestamp(number));
        let mut batch = Batch::new();
        batch.append(row.key(key.clone(), number % 100).field(field.clone(), number as f64))?;
        Ok(batch)
    }

    /// One of a thousand cells, with one row.
    fn put(&self) -> Result<Batch, CommitError> {
        let number = self.number();
        let rows = Columns::new().with("x", Column::from(vec![number]))?;
        let mut batch = Batch::new();
        batch.put_slot("cell", Date(1), [number % 1000], rows);
        Ok(batch)
    }
}

struct Figures {
    /// Commits a second.
    rate: f64,
    /// Microseconds of processor time a commit, those of background work and of the close included.
    cpu: f64,
    /// Records in a batch of the log.
    in_batch: f64,
    /// Time that callers waited to be admitted, in sum.
    stalled: Duration,
}

/// Processor time of this process, in microseconds; 0 where the system does not tell.
fn processor_time() -> Result<f64, Box<dyn Error>> {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return Ok(0.0) };
    // The fields behind the name, which may hold spaces; ticks of 10 ms.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks = fields.skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    Ok(ticks * 10_000.0)
}

/// Commits by `threads` threads for `time`.
fn commits(root: &str, threads: usize, kind: &str, time: Duration) -> Result<Figures, Box<dyn Error>> {
    let db = Database::create(root)?;
    db.define_slot(SlotDefinition::new("cell").cell_key("k", ColumnType::I64).value("x", ColumnType::I64))?;
    let worker = &|thread: usize| -> Result<u64, CommitError> {
        let rows = Rows::new(thread);
        let (began, mut done) = (Instant::now(), 0u64);
        while !done.is_multiple_of(16) || began.elapsed() < time {
            let mut batch = match kind {
                "tick" => rows.tick()?,
                "put" => rows.put()?,
                _ => rows.hundred_bytes()?,
            };
            if kind != "sync" {
                batch.durability(Durability::Buffered);
            }
            db.commit(batch)?;
            done += 1;
        }
        Ok(done)
    };
    let (began, cpu) = (Instant::now(), processor_time()?);
    let done = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(move || worker(thread))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or(Ok(0))).sum::<Result<u64, _>>()
    })?;
    let elapsed = began.elapsed().as_secs_f64();
    let status = db.status();
    db.close()?;
    let stalled = status.stalls.queue_full.time + status.stalls.log_space.time;
    let in_batch = status.log.records as f64 / status.log.batches as f64;
    Ok(Figures {
        rate: done as f64 / elapsed,
        cpu: (processor_time()? - cpu) / done as f64,
        in_batch,
        stalled,
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("usage: transactions DIRECTORY [SECONDS] [CASE]")?;
    let seconds: f64 = arguments.next().map_or(Ok(2.0), |text| text.parse())?;
    let given: Vec<String> = arguments.collect();
    let cases = if given.is_empty() { CASES.map(String::from).to_vec() } else { given };
    let time = Duration::from_secs_f64(seconds);
    let scratch = tempfile::tempdir_in(&directory)?;
    let disk = RealDisk::new(scratch.path());
    for case in cases {
        let (threads, kind) = case.split_once(':').ok_or("a case is THREADS:KIND")?;
        let raw_rate = raw(&disk, time / 4)?;
        let root = scratch.path().join(&case);
        let root = root.to_str().ok_or("the directory's name is not UTF-8")?;
        let Figures { rate, cpu, in_batch, stalled } = commits(root, threads.parse()?, kind, time)?;
        let raw_rate = (raw_rate + raw(&disk, time / 4)?) / 2.0;
        println!(
            "{case:<12} {rate:>9.0} commits/s  {:>6.2} x raw ({raw_rate:.0}/s)  {in_batch:>6.1} in a batch  {cpu:>5.2} us cpu  \
             waited {stalled:.1?}",
            rate / raw_rate
        );
        std::fs::remove_dir_all(root)?;
    }
    Ok(())
}
