//! First figures: what the engine does, beside what the machine does, a line each.
//!
//! `cargo run --release -p underbelly-benches`, about half a minute. The folder is `$UNDERBELLY_BENCH_DIR`, or
//! `target/bench-data` in the workspace.

use std::path::Path;
use std::time::Duration;

use underbelly::Percentiles;
use underbelly_benches::append::{self, Appends};
use underbelly_benches::commit::{self, Commits};
use underbelly_benches::figure::{Figure, Short, median, rate};
use underbelly_benches::raw::{BLOCK_BYTES, RawFile};
use underbelly_benches::scan::Scans;
use underbelly_benches::wake::Wakes;
use underbelly_benches::{Failed, or_exit, place};

/// Rounds of every measurement; the machine's own limit is measured in each, and the medians are printed.
const ROUNDS: usize = 5;
/// Commits of a round: enough that each round takes some tenths of a second.
const COMMITS: [(usize, u64); 3] = [(1, 1_500), (16, 20_000), (64, 60_000)];
const RAW_SYNCS: u64 = 1_500;
const SCAN_SEGMENTS: u64 = 20;

fn main() {
    or_exit(figures());
}

fn figures() -> Result<(), Failed> {
    let scratch = place::scratch()?;
    let folder = scratch.path();
    println!("folder: {} ({})", place::folder()?.display(), place::file_system(folder));
    println!("durability: every commit is synced (fdatasync) before it is acknowledged");
    println!("rounds: {ROUNDS}, medians");
    commits(folder)?;
    appends(folder)?;
    scans(folder)?;
    wakes(folder)?;
    match place::peak_memory() {
        Some(bytes) => println!("peak resident memory: {} MiB", bytes >> 20),
        None => println!("peak resident memory: unknown on this system"),
    }
    Ok(())
}

fn commits(folder: &Path) -> Result<(), Failed> {
    let mut raw = RawFile::create(folder)?;
    let commits = Commits::create(&folder.join("commit"))?;
    let mut raw_rates = Vec::new();
    let mut rates = vec![Vec::new(); COMMITS.len()];
    let mut in_batch = vec![Vec::new(); COMMITS.len()];
    for _ in 0..ROUNDS {
        raw_rates.push(rate(RAW_SYNCS, raw.write_and_sync(BLOCK_BYTES, RAW_SYNCS)?));
        for (i, (threads, total)) in COMMITS.into_iter().enumerate() {
            let before = commits.batches();
            let each = total / threads as u64;
            rates[i].push(rate(each * threads as u64, commits.run(threads, each)?));
            let after = commits.batches();
            in_batch[i].push((after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64);
        }
    }
    let raw = median(raw_rates);
    println!(
        "transactions of one row of {} bytes; raw: 4 KiB write + fdatasync, one thread",
        commit::ROW_BYTES
    );
    for ((threads, _), (rates, in_batch)) in COMMITS.into_iter().zip(rates.into_iter().zip(in_batch)) {
        let name = format!("commit durable threads={threads}");
        let figure = Figure { name: &name, rate: median(rates), raw_name: "raw fdatasync", raw };
        println!("{figure} | commits in a sync {:.1}", median(in_batch));
    }
    Ok(())
}

fn appends(folder: &Path) -> Result<(), Failed> {
    println!("rows of {} bytes; raw: write of as many bytes + fdatasync, one thread", append::ROW_BYTES);
    for (rows, count, path) in [(1_000, 200, "log"), (100_000, 10, "segment")] {
        let mut raw = RawFile::create(folder)?;
        let mut appends = Appends::create(&folder.join(format!("append-{rows}")))?;
        let (mut rates, mut raw_rates) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let total = rows as u64 * count;
            raw_rates.push(rate(total, raw.write_and_sync(rows * append::ROW_BYTES, count)?));
            rates.push(rate(total, appends.run(rows, count)?));
        }
        let name = format!("append durable rows={rows} ({path})");
        let (rate, raw) = (median(rates), median(raw_rates));
        let megabytes = rate * append::ROW_BYTES as f64 / 1e6;
        println!("{} | {megabytes:.0} MB/s", Figure { name: &name, rate, raw_name: "raw sequential", raw });
    }
    Ok(())
}

fn scans(folder: &Path) -> Result<(), Failed> {
    const POINTS: u64 = 2_000;
    let scans = Scans::create(&folder.join("scan"), SCAN_SEGMENTS)?;
    let (mut rates, mut points) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        rates.push(rate(scans.rows(), scans.scan(1)?));
        points.push(rate(POINTS, scans.last_point(POINTS)?));
    }
    println!("scan rows={} all columns, sealed: {}/s", scans.rows(), Short(median(rates)));
    println!("last point of a key: {}/s", Short(median(points)));
    Ok(())
}

fn wakes(folder: &Path) -> Result<(), Failed> {
    const COMMITS: u64 = 1_000;
    let mut raw = RawFile::create(folder)?;
    let mut wakes = Wakes::create(&folder.join("wake"))?;
    wakes.run(COMMITS / 10)?;
    wakes.take_latencies();
    let sync = raw.write_and_sync(BLOCK_BYTES, RAW_SYNCS)? / RAW_SYNCS as u32;
    let whole = wakes.run(COMMITS)? / COMMITS as u32;
    let latencies = wakes.take_latencies();
    println!("one cell, one producer, {COMMITS} commits one at a time; raw: mean of 4 KiB write + fdatasync");
    let line = |name: &str, figures: Percentiles| {
        println!(
            "{name}: p50 {} p99 {} | raw fdatasync {}",
            Micros(figures.p50),
            Micros(figures.p99),
            Micros(sync)
        );
    };
    line("wake (durable to start)", latencies.wake);
    line("commit to start", latencies.commit_to_start);
    line("commit to current (input and output cell)", latencies.commit_to_current);
    println!("commit to output current as the caller sees it: mean {}", Micros(whole));
    Ok(())
}

/// A duration in microseconds.
struct Micros(Duration);

impl std::fmt::Display for Micros {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} µs", self.0.as_secs_f64() * 1e6)
    }
}
