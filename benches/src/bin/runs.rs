//! How many runs end in a second, how soon ready bundles can start after an opening, and what a slow producer costs in memory:
//! `cargo run --release -p underbelly-benches --bin runs [BUNDLES [rates|recovery|memory]]`; 1,000,000 bundles unless given.

use std::path::Path;
use std::time::Duration;

use underbelly_benches::figure::{Short, median, rate};
use underbelly_benches::runs::{Runs, leave_ready, recover, slow};
use underbelly_benches::{Failed, or_exit, place};

const BUNDLES: u64 = 1_000_000;
const ROUNDS: usize = 5;

fn main() {
    let bundles = std::env::args().nth(1).map_or(Ok(BUNDLES), |text| text.parse().map_err(Failed::from));
    let only = std::env::args().nth(2);
    or_exit(bundles.and_then(|bundles| figures(bundles, only.as_deref())));
}

fn figures(bundles: u64, only: Option<&str>) -> Result<(), Failed> {
    let scratch = place::scratch()?;
    let folder = scratch.path();
    println!("folder: {} ({})", folder.display(), place::file_system(folder));
    let is_wanted = |name: &str| only.is_none_or(|only| only == name);
    if is_wanted("rates") {
        rates(folder, bundles)?;
    }
    if is_wanted("recovery") {
        recovery(folder, bundles)?;
    }
    if is_wanted("memory") {
        memory(folder)?;
    }
    Ok(())
}

fn rates(folder: &Path, bundles: u64) -> Result<(), Failed> {
    for (cells, max_batch) in [(1, 1), (100, 1), (1_000, 1), (100, 64), (1_000, 64), (1_000, 256)] {
        let folder = folder.join(format!("runs-{cells}-{max_batch}"));
        let mut runs = Runs::create(&folder, max_batch)?;
        let commits = (bundles / 20 / cells).clamp(1, 2_000);
        runs.run(commits, cells)?;
        let mut rates = Vec::new();
        for _ in 0..ROUNDS {
            rates.push(rate(commits * cells, runs.run(commits, cells)?));
        }
        println!("runs, {cells} cells a commit, batches of {max_batch}: {}/s", Short(median(rates)));
    }
    Ok(())
}

fn recovery(folder: &Path, bundles: u64) -> Result<(), Failed> {
    for checkpoint in [false, true] {
        let folder = folder.join(format!("ready-{checkpoint}"));
        leave_ready(&folder, bundles, checkpoint)?;
        let (opened, started) = recover(&folder)?;
        let from = if checkpoint { "a checkpoint" } else { "the log" };
        println!(
            "{bundles} ready bundles, from {from}: open after {:.3} s, the first run after {:.3} s",
            opened.as_secs_f64(),
            started.as_secs_f64()
        );
    }
    Ok(())
}

fn memory(folder: &Path) -> Result<(), Failed> {
    let slow = slow(&folder.join("slow"), 100, Duration::from_millis(5), Duration::from_secs(20))?;
    let quarters: Vec<String> = slow.resident.iter().map(|bytes| format!("{}", bytes >> 20)).collect();
    println!(
        "{} commits beside a producer of {} runs in 20 s: resident MiB at the quarters {}",
        slow.commits,
        slow.runs,
        quarters.join(" ")
    );
    Ok(())
}
