//! The fifteen queries of the Time Series Benchmark Suite on its data set `cpu-only`, beside DuckDB, Polars and ArcticDB.
//!
//! The peers run in Python (`tsbs.py`), each in a process of its own with two threads, on the same rows. Each time a query is asked it is
//! about other hosts and another time, the same for everyone, and what everyone finds must be the same. DuckDB and ArcticDB read what
//! they stored; Polars reads a frame in memory, where it is at its best. All rows are in files before the first query, and in the page cache.

use std::fs;
use std::path::Path;
use std::time::Instant;

use underbelly::{Database, Series};
use underbelly_benches::Failed;
use underbelly_benches::figure::median;
use underbelly_benches::tsbs::{Asked, BEGIN, Cpu, Dice, INTERVAL, QUERIES, Query, SERIES, check};

use crate::comparisons::Entry;
use crate::effort::Effort;
use crate::line::Plain;
use crate::python::{Answer, Peer};

/// The queries.
pub const ENTRY: Entry = Entry {
    name: "tsbs",
    about: "the 15 queries of TSBS, cpu-only, 100 hosts for 3 days, a row each 10 s: ms",
    run: compare,
};

const HOSTS: usize = 100;
const DAYS: u64 = 3;
/// The longest query is about twelve hours.
const HOURS_MIN: u64 = 13;
const PEERS: [&str; 3] = ["duckdb", "polars", "arcticdb"];
/// How often a query is asked in a round.
const ASKED: usize = 5;

/// Writes the columns where the peers read them: a line of tags for each host, and of each row its time, host and figures.
fn write_columns(folder: &Path, cpu: &Cpu) -> Result<(), Failed> {
    fs::create_dir_all(folder)?;
    let lines: Vec<String> = cpu.tags.iter().map(|tags| tags.join("\t") + "\n").collect();
    fs::write(folder.join("tags"), lines.concat())?;
    fs::write(folder.join("shape"), format!("{BEGIN} {INTERVAL} {} {}\n", cpu.readings(), cpu.tags.len()))?;
    let figures: Vec<u8> = cpu.rows().flat_map(|(.., figures)| *figures).collect();
    Ok(fs::write(folder.join("figures"), figures)?)
}

fn ours(series: &Series, query: Query, asked: &Asked) -> Result<Answer, Failed> {
    let began = Instant::now();
    let answer = query.answer(series, asked)?;
    Ok(Answer { seconds: began.elapsed().as_secs_f64(), check: check(&answer) })
}

/// What a peer is told: the query's kind and numbers, then what it is asked about.
fn told(query: Query, asked: &Asked) -> String {
    let kind = match query {
        Query::SingleGroupBy { fields, .. } => format!("largest minute {fields}"),
        Query::CpuMaxAll { .. } => "largest hour 10".to_string(),
        Query::DoubleGroupBy { fields } => format!("means hour {fields}"),
        Query::HighCpu { .. } => "high - 10".to_string(),
        Query::LastPoint => "last - 10".to_string(),
        Query::GroupByOrderByLimit => "newest minute 1".to_string(),
    };
    let hosts: Vec<String> = asked.hosts.iter().map(usize::to_string).collect();
    format!("{kind} {} {} {}", asked.from, asked.to, hosts.join(" "))
}

fn compare(folder: &Path, effort: &Effort) -> Result<(), Failed> {
    println!("{effort}; in each round every query is asked {ASKED} times, of other hosts and another time");
    let hours = usize::try_from((24 * effort.amount(DAYS * 100) / 100).max(HOURS_MIN))?;
    let cpu = Cpu::new(HOSTS, hours, 1);
    println!("{HOSTS} hosts for {hours} hours: {} rows", HOSTS * cpu.readings());
    let data = folder.join("columns");
    write_columns(&data, &cpu)?;
    let db = Database::create(folder.join("underbelly"))?;
    let took = cpu.ingest(&db)?;
    println!("underbelly: stored in {} s", Plain(took.as_secs_f64()));
    let mut peers = Peer::start_all("tsbs.py", &PEERS, &data, folder);
    for peer in &mut peers {
        let its = peer.work("ingest").map_err(|error| format!("{}: {error}", peer.name))?;
        println!("{}: stored in {} s", peer.name, Plain(its.seconds));
    }
    let series = db.snapshot().series(SERIES)?;
    let mut dice = Dice::new(2);
    for (name, query) in QUERIES {
        case(effort, name, query, &cpu, &series, &mut dice, &mut peers)?;
    }
    Ok(())
}

/// One query in rounds, and its line.
fn case(
    effort: &Effort,
    name: &str,
    query: Query,
    cpu: &Cpu,
    series: &Series,
    dice: &mut Dice,
    peers: &mut [Peer],
) -> Result<(), Failed> {
    let mut own = Vec::new();
    let mut others: Vec<(&str, Vec<f64>)> = peers.iter().map(|peer| (peer.name, Vec::new())).collect();
    let skipped = usize::from(effort.warm_up);
    for round in 0..(skipped + effort.rounds) * ASKED {
        let is_counted = round >= skipped * ASKED;
        let asked = query.asked(cpu, dice);
        let answer = ours(series, query, &asked)?;
        if is_counted {
            own.push(answer.seconds * 1e3);
        }
        for (peer, (_, figures)) in peers.iter_mut().zip(&mut others) {
            match peer.work(&told(query, &asked)) {
                Ok(its) if (its.check - answer.check).abs() > 1e-9 * answer.check.abs() => {
                    let (peer, theirs, ours) = (peer.name, its.check, answer.check);
                    return Err(format!("{peer} found {theirs} in {name} of {asked:?}, and we {ours}").into());
                }
                Ok(its) if is_counted => figures.push(its.seconds * 1e3),
                Ok(_) => {}
                Err(error) if round == 0 => println!("{} {name}: {error}", peer.name),
                Err(_) => {}
            }
        }
    }
    let others = others.into_iter().filter(|(_, figures)| !figures.is_empty());
    let others: Vec<(&str, f64)> = others.map(|(name, figures)| (name, median(figures))).collect();
    let own = median(own);
    let best = others.iter().map(|(_, figure)| *figure).reduce(f64::min);
    let ratio = best.map(|best| format!(" | ratio {}", Plain(best / own))).unwrap_or_default();
    let figures: String =
        others.iter().map(|(name, figure)| format!(" | {name} {} ms", Plain(*figure))).collect();
    println!("versus tsbs {name}: underbelly {} ms{figures}{ratio}", Plain(own));
    Ok(())
}
