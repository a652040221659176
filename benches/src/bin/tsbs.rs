//! The fifteen queries of TSBS, a line each: `cargo run --release -p underbelly-benches --bin tsbs [HOSTS [HOURS [QUERY …]]]`; 100 hosts and
//! 72 hours unless given. Where queries are named these alone are asked.

use std::time::{Duration, Instant};

use underbelly::Database;
use underbelly_benches::figure::median;
use underbelly_benches::tsbs::{Cpu, Dice, QUERIES, SERIES};
use underbelly_benches::{Failed, or_exit, place};

const ROUNDS: usize = 20;
/// How long a query that is named is repeated.
const LONG: Duration = Duration::from_secs(3);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |position: usize, unless: usize| {
        arguments.get(position).map_or(Ok(unless), |text| text.parse().map_err(Failed::from))
    };
    let named = arguments.get(2..).unwrap_or_default();
    or_exit(number(0, 100).and_then(|hosts| figures(hosts, number(1, 72)?, named)));
}

fn figures(hosts: usize, hours: usize, named: &[String]) -> Result<(), Failed> {
    let scratch = place::scratch()?;
    println!("folder: {} ({})", scratch.path().display(), place::file_system(scratch.path()));
    let cpu = Cpu::new(hosts, hours, 1);
    let db = Database::create(scratch.path().join("db"))?;
    println!("ingest: {:.3} s", cpu.ingest(&db)?.as_secs_f64());
    let series = db.snapshot().series(SERIES)?;
    for (name, query) in
        QUERIES.iter().filter(|(name, _)| named.is_empty() || named.iter().any(|of| of == name))
    {
        let (mut dice, mut took) = (Dice::new(2), Vec::new());
        let until = Instant::now() + LONG;
        while took.len() < ROUNDS || (!named.is_empty() && Instant::now() < until) {
            let asked = query.asked(&cpu, &mut dice);
            let began = Instant::now();
            std::hint::black_box(query.answer(&series, &asked)?);
            took.push(began.elapsed().as_secs_f64());
        }
        println!("{name}: {:.3} ms", median(took) * 1e3);
    }
    Ok(())
}
