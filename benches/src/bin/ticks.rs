//! What is done with a day of trades and quotes, a line each: `cargo run --release -p underbelly-benches --bin ticks [ROWS] [WORK …]`; 10,000,000
//! of each unless given. Where works are named these alone are done; `by-key` among them seals rows by key. `benches/versus/run ticks` shows the same beside peers.

use std::time::{Duration, Instant};

use underbelly_benches::figure::{Short, median, rate};
use underbelly_benches::ticks::{ROW_BYTES, Rows, Ticks, WORKS};
use underbelly_benches::{Failed, or_exit, place};

const ROWS: usize = 10_000_000;
const ROUNDS: usize = 5;
/// How long work that is named is repeated.
const LONG: Duration = Duration::from_secs(3);

fn main() {
    let rows = std::env::args().nth(1).map_or(Ok(ROWS), |text| text.parse().map_err(Failed::from));
    let (by_key, named): (Vec<String>, Vec<String>) =
        std::env::args().skip(2).partition(|word| word == "by-key");
    or_exit(rows.and_then(|rows| figures(rows, !by_key.is_empty(), &named)));
}

fn figures(count: usize, by_key: bool, named: &[String]) -> Result<(), Failed> {
    let scratch = place::scratch()?;
    println!("folder: {} ({})", scratch.path().display(), place::file_system(scratch.path()));
    let (trades, quotes) = (Rows::new(count, 1), Rows::new(count, 2));
    let mut rates = Vec::new();
    for round in 0..if named.is_empty() { ROUNDS } else { 0 } {
        let folder = scratch.path().join(format!("ingest-{round}"));
        let ticks = Ticks::create_sealed(&folder, by_key)?;
        rates.push(rate(2 * count as u64, ticks.ingest("trade", &trades)? + ticks.ingest("quote", &quotes)?));
        drop(ticks);
        std::fs::remove_dir_all(folder)?;
    }
    if !rates.is_empty() {
        println!("ingest: {} rows/s", Short(median(rates)));
    }
    let ticks = Ticks::create_sealed(&scratch.path().join("db"), by_key)?;
    ticks.ingest("trade", &trades)?;
    ticks.ingest("quote", &quotes)?;
    let raw = 2 * count as u64 * ROW_BYTES;
    println!("size: {:.3} of {} bytes a row", ticks.segment_bytes()? as f64 / raw as f64, ROW_BYTES);
    for (name, work) in WORKS.iter().filter(|(name, _)| named.is_empty() || named.iter().any(|of| of == name))
    {
        work(&ticks)?;
        let mut took = Vec::new();
        let until = Instant::now() + LONG;
        while took.len() < ROUNDS || (!named.is_empty() && Instant::now() < until) {
            let began = Instant::now();
            std::hint::black_box(work(&ticks)?);
            took.push(began.elapsed().as_secs_f64());
        }
        let took = median(took);
        println!("{name}: {:.3} ms, {} rows/s", took * 1e3, Short(count as f64 / took));
    }
    Ok(())
}
