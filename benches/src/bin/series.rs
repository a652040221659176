//! What reads of a series cost that need little of it: `cargo run --release -p underbelly-benches --bin series`.
//!
//! Newest rows of 100 keys, as they are found at first, known again, and caught up after a commit; bars of one column of
//! ten, beside the same of a scan that reads all ten; a key that no row has.

use std::time::{Duration, Instant};

use underbelly::{Aggregate, Batch, Column, Columns, Database, Every, Row, Series, Timestamp, Value};
use underbelly_benches::figure::{Short, median};
use underbelly_benches::{Failed, or_exit, place};

const APPENDS: usize = 20;
const ROWS: usize = 100_000;
const KEYS: usize = 100;
const FIELDS: usize = 9;
const ROUNDS: usize = 5;

fn main() {
    or_exit(figures());
}

fn key(number: usize) -> String {
    format!("SYM{:05}", number % KEYS)
}

/// Rows from `first` on, a millisecond apart, keys in an order that is the same in every run.
fn append(db: &Database, first: usize) -> Result<(), Failed> {
    let noise = |n: usize| n.wrapping_mul(0x9E37_79B9) >> 7;
    let numbers = || first..first + ROWS;
    let mut columns = Columns::new().with("symbol", numbers().map(|n| key(noise(n))).collect::<Column>())?;
    for field in 0..FIELDS {
        let price = |n: usize| (10_000 + noise(n + field) % 1_000) as f64 / 100.0;
        columns.insert(format!("x{field}"), Column::from(numbers().map(price).collect::<Vec<_>>()))?;
    }
    let mut batch = Batch::new();
    let times = numbers().map(|n| Timestamp(n as i64 * 1_000_000)).collect();
    batch.append_columns("trade", times, columns, &["symbol"])?;
    db.commit(batch)?;
    Ok(())
}

/// The median time of one call, in seconds.
fn each<T>(count: u32, mut call: impl FnMut() -> Result<T, Failed>) -> Result<f64, Failed> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        for _ in 0..count {
            call()?;
        }
        times.push((began.elapsed() / count).as_secs_f64());
    }
    Ok(median(times))
}

fn line(what: &str, seconds: f64) {
    println!("{what}: {:?}", Duration::from_secs_f64(seconds));
}

fn figures() -> Result<(), Failed> {
    let scratch = or_exit(place::scratch());
    let db = Database::create(scratch.path().join("db"))?;
    (0..APPENDS).try_for_each(|number| append(&db, number * ROWS))?;
    db.checkpoint()?;
    let series = || -> Result<Series, Failed> { Ok(db.snapshot().series("trade")?) };
    let began = Instant::now();
    if series()?.last_points()?.rows() != KEYS {
        return Err("there are not the keys that were appended".into());
    }
    line("last points of all keys, at first", began.elapsed().as_secs_f64());
    let held = series()?;
    line("last points of all keys, again", each(2_000, || Ok(held.last_points()?))?);
    let mut number = 0;
    let mut next = || {
        number += 1;
        [("symbol", Value::from(key(number)))]
    };
    line("last point of one key", each(20_000, || Ok(held.last_point(&next())?))?);
    line("the same, searched for (latest)", each(20, || Ok(held.latest(1, &next())?))?);
    let with_snapshot = each(20_000, || Ok(series()?.last_point(&next())?))?;
    line("last point of one key, of a snapshot each", with_snapshot);
    let mut at = (APPENDS * ROWS) as i64 * 1_000_000;
    let mut took = Vec::new();
    for _ in 0..200 {
        at += 1;
        let mut batch = Batch::new();
        batch.append(Row::new("trade", Timestamp(at)).key("symbol", key(at as usize)).field("x0", 1.0))?;
        db.commit(batch)?;
        let began = Instant::now();
        series()?.last_points()?;
        took.push(began.elapsed().as_secs_f64());
    }
    line("last points of all keys, after a commit of a row", median(took));
    let absent = [("symbol", Value::from("ZZZ"))];
    line("a key that no row has", each(20, || Ok(held.latest(1, &absent)?))?);
    let rows = held.count()? as f64;
    let names: Vec<String> = held.schema().columns.iter().map(|column| column.name.to_string()).collect();
    let bars = |all: bool| {
        let scan = if all { held.scan().columns(&names) } else { held.scan() };
        let bars = scan.resample(Every::minutes(1)).aggregates(Aggregate::ohlc("x0"));
        each(1, || Ok(bars.clone().collect()?))
    };
    let (needed, all) = (rows / bars(false)?, rows / bars(true)?);
    println!(
        "bars of one column of ten: {} rows/s | all ten read: {} rows/s | ratio {:.2}",
        Short(needed),
        Short(all),
        needed / all
    );
    Ok(())
}
