//! A day of trades and quotes beside DuckDB, Polars and ArcticDB: ingest, scans, ranges, bars, as-of joins, last points, bytes.
//!
//! The peers run in Python (`peers.py`), each in a process of its own with two threads, on the same rows. Each answers with what it
//! found besides how long it took, and what they found must be the same. DuckDB and ArcticDB read what they stored; Polars reads
//! frames in memory, where it is at its best.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use underbelly_benches::Failed;
use underbelly_benches::figure::median;
use underbelly_benches::raw::RawFile;
use underbelly_benches::ticks::{ROW_BYTES, Rows, Ticks, WORKS};

use crate::comparisons::Entry;
use crate::effort::Effort;
use crate::line::Plain;
use crate::python::{Answer, Peer};

/// Sealed rows a second.
pub const INGEST: Entry = Entry {
    name: "ingest",
    about: "10 M trades and 10 M quotes from memory until they are durable, sealed and encoded: rows/s",
    run: |folder, effort| compare(folder, effort, "ingest", &[("ingest", Unit::Rows)]),
};

/// A scan of everything.
pub const SCAN: Entry = Entry {
    name: "scan",
    about: "the sum of price × size over 10 M trades: rows/s",
    run: |folder, effort| compare(folder, effort, "scan", &[("scan", Unit::Rows)]),
};

/// Parts of the day.
pub const RANGE: Entry = Entry {
    name: "range",
    about: "an hour of 10 M trades in time order, and one symbol's whole day: ms",
    run: |folder, effort| {
        compare(folder, effort, "range", &[("hour", Unit::Milliseconds), ("one_symbol", Unit::Milliseconds)])
    },
};

/// Bars.
pub const RESAMPLE: Entry = Entry {
    name: "resample",
    about: "open, high, low, close and size of each minute and symbol, of 10 M trades: rows/s",
    run: |folder, effort| compare(folder, effort, "resample", &[("bars", Unit::Rows)]),
};

/// Trades with their quotes.
pub const ASOF: Entry = Entry {
    name: "asof",
    about: "10 M trades, each with the last of 10 M quotes of its symbol: rows/s",
    run: |folder, effort| compare(folder, effort, "asof", &[("asof", Unit::Rows)]),
};

/// The newest rows.
pub const LAST_POINT: Entry = Entry {
    name: "lastpoint",
    about: "the newest of 10 M trades of each of 100 symbols, and of one: ms",
    run: |folder, effort| {
        let works = [("last_points", Unit::Milliseconds), ("last_point", Unit::Milliseconds)];
        compare(folder, effort, "lastpoint", &works)
    },
};

/// Bytes on disk.
pub const SIZE: Entry = Entry {
    name: "size",
    about: "bytes on disk of 20 M rows, as a part of 28 bytes a row",
    run: |folder, effort| compare(folder, effort, "size", &[("size", Unit::OfRaw)]),
};

const ROWS: u64 = 10_000_000;
const PEERS: [&str; 3] = ["duckdb", "polars", "arcticdb"];

/// What a case is measured in.
#[derive(Clone, Copy, PartialEq)]
enum Unit {
    Rows,
    Milliseconds,
    OfRaw,
}

/// Writes the columns where the peers read them.
fn write_columns(folder: &Path, name: &str, rows: &Rows) -> Result<(), Failed> {
    let file =
        |part: &str| Ok::<_, Failed>(BufWriter::new(File::create(folder.join(format!("{name}.{part}")))?));
    let mut times = file("ts")?;
    rows.timestamps.iter().try_for_each(|at| times.write_all(&at.to_le_bytes()))?;
    times.flush()?;
    fs::write(folder.join(format!("{name}.sym")), &rows.symbols)?;
    let mut prices = file("price")?;
    rows.prices.iter().try_for_each(|price| prices.write_all(&price.to_le_bytes()))?;
    prices.flush()?;
    let mut sizes = file("size")?;
    rows.sizes.iter().try_for_each(|size| sizes.write_all(&size.to_le_bytes()))?;
    Ok(sizes.flush()?)
}

/// Ours: the day in memory, and where it is stored.
struct Ours {
    folder: PathBuf,
    trades: Rows,
    quotes: Rows,
    ticks: Option<Ticks>,
}

impl Ours {
    fn ingest(&mut self) -> Result<Answer, Failed> {
        self.ticks = None;
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder)?;
        }
        let ticks = Ticks::create(&self.folder)?;
        let took = ticks.ingest("trade", &self.trades)? + ticks.ingest("quote", &self.quotes)?;
        self.ticks = Some(ticks);
        let rows = self.trades.timestamps.len() + self.quotes.timestamps.len();
        Ok(Answer { seconds: took.as_secs_f64(), check: rows as f64 })
    }

    fn work(&mut self, name: &str) -> Result<Answer, Failed> {
        if name == "ingest" {
            return self.ingest();
        }
        let ticks = self.ticks.as_ref().ok_or("nothing is stored")?;
        if name == "size" {
            return Ok(Answer { seconds: 0.0, check: ticks.segment_bytes()? as f64 });
        }
        let (_, work) = WORKS.iter().find(|(known, _)| *known == name).ok_or("no such work is known")?;
        let began = Instant::now();
        let check = work(ticks)?;
        Ok(Answer { seconds: began.elapsed().as_secs_f64(), check })
    }
}

fn compare(folder: &Path, effort: &Effort, name: &str, works: &[(&str, Unit)]) -> Result<(), Failed> {
    println!("{effort}");
    let rows = usize::try_from(effort.amount(ROWS))?;
    println!("{rows} trades and as many quotes, 100 symbols, {ROW_BYTES} bytes a row");
    let (trades, quotes) = (Rows::new(rows, 1), Rows::new(rows, 2));
    let data = folder.join("columns");
    fs::create_dir_all(&data)?;
    write_columns(&data, "trade", &trades)?;
    write_columns(&data, "quote", &quotes)?;
    let mut ours = Ours { folder: folder.join("underbelly"), trades, quotes, ticks: None };
    let mut peers = Peer::start_all("peers.py", &PEERS, &data, folder);
    if name != "ingest" {
        ours.ingest()?;
        for peer in &mut peers {
            peer.work("ingest").map_err(|error| format!("{}: {error}", peer.name))?;
        }
    }
    for (work, unit) in works {
        let count = if name == "ingest" { 2 * rows } else { rows };
        case(effort, name, work, *unit, count, &mut ours, &mut peers)?;
    }
    limit(folder, effort, name, &ours)
}

/// The last answer of a turn, in which the work is done at least once, and the median of its figures.
fn turn(
    effort: &Effort,
    figure: impl Fn(&Answer) -> f64,
    mut work: impl FnMut() -> Result<Answer, Failed>,
) -> Result<(Answer, f64), Failed> {
    let (began, mut figures) = (Instant::now(), Vec::new());
    loop {
        let answer = work()?;
        figures.push(figure(&answer));
        if began.elapsed() >= effort.turn {
            return Ok((answer, median(figures)));
        }
    }
}

/// One case in rounds, and its line.
fn case(
    effort: &Effort,
    name: &str,
    work: &str,
    unit: Unit,
    count: usize,
    ours: &mut Ours,
    peers: &mut [Peer],
) -> Result<(), Failed> {
    let figure = |answer: &Answer| match unit {
        Unit::Rows => count as f64 / answer.seconds,
        Unit::Milliseconds => answer.seconds * 1e3,
        Unit::OfRaw => answer.check / (2 * count as u64 * ROW_BYTES) as f64,
    };
    let mut own = Vec::new();
    let mut others: Vec<(&str, Vec<f64>)> = peers.iter().map(|peer| (peer.name, Vec::new())).collect();
    let skipped = usize::from(effort.warm_up);
    for round in 0..skipped + effort.rounds {
        let (answer, of_turn) = turn(effort, figure, || ours.work(work))?;
        if round >= skipped {
            own.push(of_turn);
        }
        for (peer, (_, figures)) in peers.iter_mut().zip(&mut others) {
            match turn(effort, figure, || peer.work(work)) {
                Ok((its, _))
                    if unit != Unit::OfRaw
                        && (its.check - answer.check).abs() > 1e-6 * answer.check.abs() =>
                {
                    let (name, theirs, ours) = (peer.name, its.check, answer.check);
                    return Err(format!("{name} found {theirs} in {work}, and we {ours}").into());
                }
                Ok((_, of_turn)) if round >= skipped => figures.push(of_turn),
                Ok(_) => {}
                Err(error) if round == 0 => println!("{}: {error}", peer.name),
                Err(_) => {}
            }
        }
    }
    let others: Vec<(&str, f64)> = others
        .into_iter()
        .filter(|(_, figures)| !figures.is_empty())
        .map(|(name, figures)| (name, median(figures)))
        .collect();
    let own = median(own);
    let is_more = unit == Unit::Rows;
    let best = others.iter().map(|(_, figure)| *figure).reduce(if is_more { f64::max } else { f64::min });
    let ratio = best.map(|best| if is_more { own / best } else { best / own });
    let text = match unit {
        Unit::Rows => "rows/s",
        Unit::Milliseconds => "ms",
        Unit::OfRaw => "of raw",
    };
    let shown: String =
        others.iter().map(|(name, figure)| format!(" | {name} {} {text}", Plain(*figure))).collect();
    let ratio = ratio.map(|ratio| format!(" | ratio {}", Plain(ratio))).unwrap_or_default();
    println!("versus {name} {work}: underbelly {} {text}{shown}{ratio}", Plain(own));
    Ok(())
}

/// The machine's own limit: what it writes and syncs of as many bytes as we store, or a loop over arrays in memory.
fn limit(folder: &Path, effort: &Effort, name: &str, ours: &Ours) -> Result<(), Failed> {
    let mut figures = Vec::new();
    let rows = ours.trades.timestamps.len();
    for _ in 0..effort.rounds {
        if name == "ingest" {
            let bytes = ours.ticks.as_ref().ok_or("nothing is stored")?.segment_bytes()?;
            let took = RawFile::create(folder)?.write_and_sync(1 << 20, bytes >> 20)?;
            figures.push(2.0 * rows as f64 / took.as_secs_f64());
        } else {
            let began = Instant::now();
            let products =
                ours.trades.prices.iter().zip(&ours.trades.sizes).map(|(price, size)| price * *size as f64);
            std::hint::black_box(products.sum::<f64>());
            figures.push(rows as f64 / began.elapsed().as_secs_f64());
        }
    }
    let what = match name {
        "ingest" => "as many bytes written and synced, a mebibyte at a time",
        _ => "a loop over prices and sizes in memory",
    };
    println!("raw {what}: {} rows/s", Plain(median(figures)));
    Ok(())
}
