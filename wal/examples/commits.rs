//! Commits per second at 1, 4, 16 and 64 threads, next to raw writes and syncs of 4 KiB on the same file system.
//!
//! `cargo run --release -p underbelly-wal --example commits -- DIRECTORY [SECONDS]`
//!
//! Every commit is a record of 256 bytes, durable when answered.

use std::error::Error;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use underbelly_storage::disk::{Disk, RealDisk, SharedDisk};
use underbelly_wal::{GroupCommit, Log, LogOptions, Promise, Publisher, WalError};

const RECORD_BYTES: usize = 256;
const FILE_LEN: u64 = 64 << 20;
const BLOCK: u64 = 4096;

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

/// Nobody looks at the log while it is measured.
struct Nobody;

impl Publisher<()> for Nobody {
    fn publish(&self, _: u64, _: &mut dyn Iterator<Item = (u64, ())>) {}
    fn synced(&self, _: u64) {}
}

fn commits(root: &str, threads: usize, time: Duration) -> Result<(f64, f64), Box<dyn Error>> {
    let disk: SharedDisk = Arc::new(RealDisk::new(root));
    let mut log = Log::create(disk, [1; 16], 1, LogOptions::default())?;
    log.prepare_spare()?;
    let commit = GroupCommit::new(log, Nobody);
    let next_seq = Mutex::new(1u64);
    let worker = || -> Result<(), WalError> {
        let began = Instant::now();
        while began.elapsed() < time {
            let record = vec![7; RECORD_BYTES];
            let admission = commit.admit(record.len() as u64)?;
            let seq = {
                let mut next = next_seq.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                commit.enqueue(Some(admission), *next, record, None, Promise::Durable)?;
                *next += 1;
                *next - 1
            };
            commit.wait(seq)?;
        }
        Ok(())
    };
    let began = Instant::now();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|w| w.join().unwrap_or(Ok(())))
    })?;
    let elapsed = began.elapsed().as_secs_f64();
    let stats = commit.with_log(|log| log.stats());
    Ok((stats.records as f64 / elapsed, stats.records as f64 / stats.batches as f64))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("usage: commits DIRECTORY [SECONDS]")?;
    let seconds: f64 = arguments.next().map_or(Ok(2.0), |text| text.parse())?;
    let time = Duration::from_secs_f64(seconds);
    let scratch = tempfile::tempdir_in(&directory)?;
    let raw_rate = raw(&RealDisk::new(scratch.path()), time)?;
    println!("{directory}: records of {RECORD_BYTES} bytes, fdatasync, answered when durable");
    println!("raw 4 KiB write + sync  {raw_rate:>9.0}/s");
    for threads in [1, 4, 16, 64] {
        let root = scratch.path().join(threads.to_string());
        let root = root.to_str().ok_or("the directory's name is not UTF-8")?;
        let (rate, in_batch) = commits(root, threads, time)?;
        println!(
            "{threads:>3} threads             {rate:>9.0}/s  {:>6.2} x raw  {in_batch:>5.1} in a batch",
            rate / raw_rate
        );
    }
    let again = raw(&RealDisk::new(scratch.path()), time)?;
    println!("raw again               {again:>9.0}/s");
    Ok(())
}
