//! What checkpoints and openings cost: `cargo run --release -p underbelly-benches --bin checkpoint [CELLS]`.
//!
//! CELLS is 1,000,000 unless given. `--reopen FOLDER` measures openings alone, of a database in that folder; it is
//! filled where there is none, and stays. The folder is `$UNDERBELLY_BENCH_DIR`, or `target/bench-data` in the workspace.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use underbelly::{Database, Options};
use underbelly_benches::checkpoint::{Cells, Filling, change_group, fill};
use underbelly_benches::figure::Short;
use underbelly_benches::{Failed, or_exit, place};

/// How the program calls itself to fill a database and die.
const FILL: &str = "--fill-and-die";
/// Asks for openings alone.
const REOPEN: &str = "--reopen";
const CELLS: u64 = 1_000_000;
const MODELS: u64 = 100_000;
const ROWS: u64 = 10_000_000;
const CHANGES: [u64; 5] = [1_000, 1_000, 10_000, 10_000, 100_000];
const GROUPS: [u64; 2] = [5_000, 50_000];
const THREADS: u64 = 4;
const LOAD: Duration = Duration::from_secs(8);

fn main() {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    match (first.as_deref(), arguments.next()) {
        (Some(FILL), Some(folder)) => or_exit(fill_and_die(Path::new(&folder))),
        (Some(REOPEN), Some(folder)) => or_exit(reopen(Path::new(&folder))),
        (cells, None) => or_exit(cells.map_or(Ok(CELLS), str::parse).map_err(Failed::from).and_then(figures)),
        _ => or_exit(Err("usage: checkpoint [CELLS] or checkpoint --reopen FOLDER".into())),
    }
}

fn fill_and_die(folder: &Path) -> Result<(), Failed> {
    let _db = fill(folder, Filling { cells: CELLS, models: MODELS, rows: ROWS }, Options::default())?;
    // As a kill would end it: nothing is closed, sealed or flushed.
    std::process::abort()
}

fn figures(cells: u64) -> Result<(), Failed> {
    let scratch = place::scratch()?;
    println!("folder: {} ({})", place::folder()?.display(), place::file_system(scratch.path()));
    changes(&scratch.path().join("cells"), cells)?;
    reopen(&scratch.path().join("reopen"))
}

fn changes(folder: &Path, cells: u64) -> Result<(), Failed> {
    let began = Instant::now();
    let mut database = Cells::create(folder, cells)?;
    println!("{cells} cells: filled and opened in {:.1} s", began.elapsed().as_secs_f64());
    print_memory();
    for count in CHANGES {
        let report = database.change(count)?;
        println!(
            "checkpoint after {count} of {cells} cells changed: {} image bytes a record ({} records, {} images taken in), \
             {} bytes in all, {} slices, longest {} µs ({} µs of the processor), {:.0} ms",
            report.image_bytes / report.records.max(1),
            report.records,
            report.images_taken_in,
            report.bytes_written,
            report.slices,
            report.longest_slice.as_micros(),
            report.busiest_slice.as_micros(),
            report.took.as_secs_f64() * 1e3,
        );
    }
    for checkpoints in [false, true, false, true] {
        let (latency, reports) = database.commit(THREADS, LOAD, checkpoints)?;
        let longest = reports.iter().map(|report| report.longest_slice.as_micros()).max().unwrap_or(0);
        let busiest = reports.iter().map(|report| report.busiest_slice.as_micros()).max().unwrap_or(0);
        println!(
            "{THREADS} threads, {} checkpoints beside them (longest slice {longest} µs, {busiest} µs of the processor): \
             {} commits/s, p50 {} µs, p99 {} µs, p99.9 {} µs, max {} µs",
            reports.len(),
            Short(latency.commits as f64 / LOAD.as_secs_f64()),
            latency.p50.as_micros(),
            latency.p99.as_micros(),
            latency.p999.as_micros(),
            latency.max.as_micros(),
        );
    }
    print_memory();
    for members in GROUPS {
        let report = change_group(&folder.with_extension(format!("group-{members}")), members)?;
        println!(
            "checkpoint after a run of a group over {members} cells: longest slice {} µs ({} µs of the processor)",
            report.longest_slice.as_micros(),
            report.busiest_slice.as_micros(),
        );
    }
    Ok(())
}

fn reopen(folder: &Path) -> Result<(), Failed> {
    if !folder.is_dir() {
        let status = Command::new(std::env::current_exe()?).arg(FILL).arg(folder).status()?;
        if status.success() || !folder.is_dir() {
            return Err(format!("the program that fills the database ended with {status}").into());
        }
    }
    println!("{ROWS} rows, {CELLS} cells, {MODELS} models, the process killed:");
    for round in ["first", "second", "third"] {
        let db = Database::open(folder)?;
        let report = db.recovery_report();
        let phases = report.phases;
        println!(
            "  {round} opening: {:.0} ms (files {:.0}, image {:.0}, objects {:.0}, log {:.0}: {} transactions), {} MB read",
            report.took.as_secs_f64() * 1e3,
            phases.files.as_secs_f64() * 1e3,
            phases.image.as_secs_f64() * 1e3,
            phases.objects.as_secs_f64() * 1e3,
            phases.log.as_secs_f64() * 1e3,
            report.replayed,
            phases.bytes_read / 1_000_000,
        );
    }
    Ok(())
}

fn print_memory() {
    match place::peak_memory() {
        Some(bytes) => println!("  peak resident memory: {} MiB", bytes >> 20),
        None => println!("  peak resident memory: unknown on this system"),
    }
}
