//! A day of trades and quotes, and what people do with them: ingest, scans, ranges, bars, as-of joins, last points.
//!
//! Both series have `timestamp`, the key `sym` (100 texts), `price` (a walk in cents for each symbol) and `size` (1 to 999); the rows
//! are spread evenly over the day. Raw, a row has 28 bytes: 8 + 4 (a code of the symbol) + 8 + 8.

use std::path::Path;
use std::time::{Duration, Instant};

use underbelly::{Aggregate, Batch, Columns, Database, Every, Options, Series, Timestamp, Value};

use crate::Failed;

/// Symbols of the day.
pub const SYMBOLS: usize = 100;
/// Bytes of a row as it is counted for sizes.
pub const ROW_BYTES: u64 = 28;
/// Nanoseconds of the day.
pub const DAY: i64 = 86_400_000_000_000;
/// When the day begins: 2024-01-02 UTC.
pub const BEGIN: i64 = 1_704_153_600_000_000_000;
/// Rows of a commit.
const COMMIT_ROWS: usize = 1_000_000;

/// The text of a symbol.
pub fn symbol(number: usize) -> String {
    format!("S{number:03}")
}

/// Rows of a series in memory, in time order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// Nanoseconds since 1970 UTC.
    pub timestamps: Vec<i64>,
    /// Numbers of symbols.
    pub symbols: Vec<u8>,
    /// Prices with two decimals.
    pub prices: Vec<f64>,
    /// 1 to 999.
    pub sizes: Vec<i64>,
}

impl Rows {
    /// So many rows, the same for the same seed.
    pub fn new(count: usize, seed: u64) -> Rows {
        let mut state = seed;
        // SplitMix64 (Steele, Lea and Flood, 2014).
        let mut next = move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ mixed >> 31
        };
        let mut rows = Rows::default();
        let mut cents: Vec<i64> = (0..SYMBOLS as i64).map(|number| 5_000 + number * 150).collect();
        let step = DAY / count.max(1) as i64;
        for row in 0..count {
            let within = (next() % step.max(1) as u64) as i64;
            let number = (next() % SYMBOLS as u64) as usize;
            cents[number] = (cents[number] + (next() % 7) as i64 - 3).max(100);
            rows.timestamps.push(BEGIN + row as i64 * step + within);
            rows.symbols.push(number as u8);
            rows.prices.push(cents[number] as f64 / 100.0);
            rows.sizes.push(1 + (next() % 999) as i64);
        }
        rows
    }

    /// As they are committed, so many at a time.
    fn batches(&self, series: &str, each: usize) -> Result<Vec<Batch>, Failed> {
        let of = |start: usize| {
            let range = start..(start + each).min(self.timestamps.len());
            let timestamps = self.timestamps[range.clone()].iter().copied().map(Timestamp).collect();
            let columns = Columns::new()
                .with(
                    "sym",
                    self.symbols[range.clone()].iter().map(|number| symbol(usize::from(*number))).collect(),
                )?
                .with("price", self.prices[range.clone()].to_vec().into())?
                .with("size", self.sizes[range].to_vec().into())?;
            let mut batch = Batch::new();
            batch.append_columns(series, timestamps, columns, &["sym"])?;
            Ok(batch)
        };
        (0..self.timestamps.len()).step_by(each).map(of).collect()
    }
}

/// Something that is done with the day; what it answers tells whether it was done right.
pub type Work = fn(&Ticks) -> Result<f64, Failed>;

/// What is done, by name.
pub const WORKS: &[(&str, Work)] = &[
    ("scan", Ticks::scan),
    ("hour", Ticks::hour),
    ("one_symbol", Ticks::one_symbol),
    ("bars", Ticks::bars),
    ("asof", Ticks::asof),
    ("last_points", Ticks::last_points),
    ("last_point", Ticks::last_point),
];

/// A database of trades and quotes.
pub struct Ticks {
    db: Database,
}

impl Ticks {
    /// A new database in a folder.
    pub fn create(folder: &Path) -> Result<Ticks, Failed> {
        Ticks::create_sealed(folder, false)
    }

    /// The same, whose rows may be sealed by key.
    pub fn create_sealed(folder: &Path, sealed_by_key: bool) -> Result<Ticks, Failed> {
        let options = Options { sealed_by_key, ..Options::default() };
        Ok(Ticks { db: Database::create_with(folder, options)? })
    }

    /// The time in which rows become durable, sealed and encoded. Making them is not counted.
    pub fn ingest(&self, series: &str, rows: &Rows) -> Result<Duration, Failed> {
        let batches = rows.batches(series, COMMIT_ROWS)?;
        let began = Instant::now();
        for batch in batches {
            self.db.commit(batch)?;
        }
        Ok(began.elapsed())
    }

    /// Bytes of the segments of all series.
    pub fn segment_bytes(&self) -> Result<u64, Failed> {
        let snapshot = self.db.snapshot();
        let bytes = |name| Ok::<_, Failed>(snapshot.series_info(name)?.segment_bytes);
        Ok(bytes("trade")? + bytes("quote")?)
    }

    fn series(&self, name: &str) -> Result<Series, Failed> {
        Ok(self.db.snapshot().series(name)?)
    }

    /// The sum of price × size over all trades.
    pub fn scan(&self) -> Result<f64, Failed> {
        let trades = self.series("trade")?;
        let sum =
            trades.scan().group_by([""; 0]).aggregate(Aggregate::turnover("price", "size")).collect()?;
        sum.f64s("turnover").and_then(|sums| sums.first().copied()).ok_or_else(|| "there is no sum".into())
    }

    /// All trades of an hour in time order; answers how many.
    pub fn hour(&self) -> Result<f64, Failed> {
        let from = BEGIN + 10 * DAY / 24;
        let trades = self.series("trade")?;
        let rows = trades.scan().from(Timestamp(from)).to(Timestamp(from + DAY / 24));
        Ok(rows.columns(["sym", "price", "size"]).collect()?.rows() as f64)
    }

    /// All trades of one symbol; answers how many.
    pub fn one_symbol(&self) -> Result<f64, Failed> {
        let rows =
            self.series("trade")?.scan().key("sym", symbol(42)).columns(["price", "size"]).collect()?;
        Ok(rows.rows() as f64)
    }

    /// Bars of a minute by symbol: open, high, low, close and the sum of sizes. Answers the sum of all closes.
    pub fn bars(&self) -> Result<f64, Failed> {
        let trades = self.series("trade")?;
        let bars = trades.scan().resample(Every::minutes(1)).by("sym");
        let bars = bars.aggregates(Aggregate::ohlc("price")).aggregate(Aggregate::sum("size"));
        let bars = bars.collect()?;
        Ok(bars.f64s("close").unwrap_or_default().iter().filter(|close| !close.is_nan()).sum())
    }

    /// Each trade with the quote before it of its symbol; answers the sum of the quotes' prices.
    pub fn asof(&self) -> Result<f64, Failed> {
        let (trades, quotes) = (self.series("trade")?, self.series("quote")?);
        let trades = trades.scan().columns(["sym", "price"]);
        let mut sum = 0.0;
        for batch in
            trades.asof(quotes.scan().columns(["sym", "price"])).by("sym").suffix("_quote").batches()?
        {
            let batch = batch?;
            let column = batch.column("price_quote").ok_or("the join has no price_quote")?;
            let prices = batch.f64s("price_quote").ok_or("price_quote is no f64")?;
            sum += match column.validity() {
                Some(valid) => {
                    prices.iter().zip(valid).filter(|(_, valid)| **valid).map(|(price, _)| price).sum::<f64>()
                }
                None => prices.iter().sum::<f64>(),
            };
        }
        Ok(sum)
    }

    /// The newest trade of each symbol; answers the sum of their prices.
    pub fn last_points(&self) -> Result<f64, Failed> {
        let points = self.series("trade")?.last_points()?;
        Ok(points.f64s("price").unwrap_or_default().iter().sum())
    }

    /// The newest trade of one symbol; answers its price.
    pub fn last_point(&self) -> Result<f64, Failed> {
        let key = [("sym", Value::from(symbol(42)))];
        let point = self.series("trade")?.last_point(&key)?.ok_or("there is no such trade")?;
        point.f64s("price").and_then(|prices| prices.first().copied()).ok_or_else(|| "it has no price".into())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// What the rows themselves say, row by row.
    #[test]
    fn answers_are_those_of_the_rows() {
        let folder = crate::place::scratch().unwrap();
        let ticks = Ticks::create(&folder.path().join("db")).unwrap();
        let (trades, quotes) = (Rows::new(30_000, 1), Rows::new(20_000, 2));
        ticks.ingest("trade", &trades).unwrap();
        ticks.ingest("quote", &quotes).unwrap();
        let near = |a: f64, b: f64| assert!((a - b).abs() <= 1e-9 * b.abs(), "{a} {b}");
        let products = trades.prices.iter().zip(&trades.sizes).map(|(price, size)| price * *size as f64);
        near(ticks.scan().unwrap(), products.sum());
        let hour = BEGIN + 10 * DAY / 24..BEGIN + 11 * DAY / 24;
        near(ticks.hour().unwrap(), trades.timestamps.iter().filter(|at| hour.contains(at)).count() as f64);
        near(
            ticks.one_symbol().unwrap(),
            trades.symbols.iter().filter(|number| **number == 42).count() as f64,
        );
        let (mut closes, mut last) = (std::collections::HashMap::new(), [0.0; SYMBOLS]);
        for row in 0..30_000 {
            let number = usize::from(trades.symbols[row]);
            last[number] = trades.prices[row];
            closes.insert((trades.timestamps[row] / 60_000_000_000, number), trades.prices[row]);
        }
        near(ticks.bars().unwrap(), closes.values().sum());
        near(ticks.last_points().unwrap(), last.iter().sum());
        near(ticks.last_point().unwrap(), last[42]);
        let (mut quote, mut prices, mut sum) = (0, [0.0; SYMBOLS], 0.0);
        for row in 0..30_000 {
            while quote < 20_000 && quotes.timestamps[quote] <= trades.timestamps[row] {
                prices[usize::from(quotes.symbols[quote])] = quotes.prices[quote];
                quote += 1;
            }
            sum += prices[usize::from(trades.symbols[row])];
        }
        near(ticks.asof().unwrap(), sum);
        assert!(ticks.segment_bytes().unwrap() < 50_000 * ROW_BYTES);
    }
}
