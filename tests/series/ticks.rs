//! Real ticks: the quotes and trades of AIG on 2013-10-07.
//!
//! The files are found through `UNDERBELLY_DATA`, or in `../shared/data` beside the repository; without them the tests
//! say that they skip.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::time::Duration;

use flate2::read::GzDecoder;
use underbelly::{
    Aggregate, Batch, Column, Columns, Database, Every, Fill, Predicate, Series, Timestamp, Value,
};
use underbelly_tests::in_memory;

/// Prices are in ten-thousandths; those and sizes of 0 stand for none.
struct Quote {
    ts: i64,
    bid: i64,
    ask: i64,
    exchange: String,
}

struct Trade {
    ts: i64,
    price: i64,
    size: i64,
}

/// The fields of each line of a file; `None` without the file.
fn lines(name: &str) -> Option<Vec<Vec<String>>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let data = std::env::var_os("UNDERBELLY_DATA").map_or_else(|| root.join("../shared/data"), PathBuf::from);
    let path = data.join("equity_ticks").join(name);
    let Ok(file) = File::open(&path) else {
        // Past the test harness, which keeps the output of tests that pass.
        let remedy = "set UNDERBELLY_DATA to the folder with the sample data";
        let _ = writeln!(std::io::stderr(), "SKIPPED: no {}; {remedy}", path.display());
        return None;
    };
    let lines = BufReader::new(GzDecoder::new(file)).lines().skip(1);
    Some(lines.map(|line| line.unwrap().split(',').map(str::to_string).collect()).collect())
}

fn number(text: &str) -> i64 {
    text.parse().unwrap()
}

fn quotes() -> Option<Vec<Quote>> {
    let quote = |fields: Vec<String>| Quote {
        ts: number(&fields[0]),
        bid: number(&fields[2]),
        ask: number(&fields[4]),
        exchange: fields[6].clone(),
    };
    Some(lines("aig_20131007_quotes.csv.gz")?.into_iter().map(quote).collect())
}

fn trades() -> Option<Vec<Trade>> {
    let trade = |fields: Vec<String>| Trade {
        ts: number(&fields[0]),
        price: number(&fields[2]),
        size: number(&fields[3]),
    };
    Some(lines("aig_20131007_trades.csv.gz")?.into_iter().map(trade).collect())
}

/// Both as series of a database: some rows sealed, the later ones young.
fn store(quotes: &[Quote], trades: &[Trade]) -> Database {
    let (_, db) = in_memory().unwrap();
    let times = |times: Vec<i64>| times.into_iter().map(Timestamp).collect::<Vec<_>>();
    for (part, quotes) in quotes.chunks(quotes.len() / 2 + 1).enumerate() {
        let mut batch = Batch::new();
        let columns = Columns::new()
            .with("exchange", Column::from_iter(quotes.iter().map(|quote| &quote.exchange)))
            .unwrap()
            .with("bid", Column::from(quotes.iter().map(|quote| quote.bid).collect::<Vec<_>>()))
            .unwrap()
            .with("ask", Column::from(quotes.iter().map(|quote| quote.ask).collect::<Vec<_>>()))
            .unwrap();
        batch
            .append_columns(
                "quote",
                times(quotes.iter().map(|quote| quote.ts).collect()),
                columns,
                &["exchange"],
            )
            .unwrap();
        db.commit(batch).unwrap();
        if part == 0 {
            db.checkpoint().unwrap();
        }
    }
    let mut batch = Batch::new();
    let columns = Columns::new()
        .with("price", Column::from(trades.iter().map(|trade| trade.price).collect::<Vec<_>>()))
        .unwrap()
        .with("size", Column::from(trades.iter().map(|trade| trade.size).collect::<Vec<_>>()))
        .unwrap();
    batch
        .append_columns("trade", times(trades.iter().map(|trade| trade.ts).collect()), columns, &[])
        .unwrap();
    db.commit(batch).unwrap();
    db
}

/// Older quotes of an exchange are stale: it may have none any more.
const FRESH: Duration = Duration::from_secs(10);

/// For each trade the best of what each exchange quoted last on one side.
fn best(
    trades: &Series,
    quotes: &Series,
    exchanges: &BTreeSet<&str>,
    side: &str,
    better: fn(i64, i64) -> i64,
) -> Vec<Option<i64>> {
    let mut best: Vec<Option<i64>> = vec![None; trades.count().unwrap() as usize];
    for exchange in exchanges {
        let of_exchange =
            quotes.scan().key("exchange", *exchange).filter(side, Predicate::Above(Value::I64(0)));
        let joined = trades
            .scan()
            .columns([""; 0])
            .asof(of_exchange.columns([side]))
            .tolerance(FRESH)
            .collect()
            .unwrap();
        let column = joined.column(side).unwrap();
        for (row, price) in
            joined.i64s(side).unwrap().iter().enumerate().filter(|(row, _)| !column.is_null(*row))
        {
            best[row] = Some(best[row].map_or(*price, |known| better(known, *price)));
        }
    }
    best
}

#[test]
fn each_trade_has_the_best_bid_and_offer_of_its_instant() {
    let Some((quotes, trades)) = quotes().zip(trades()) else { return };
    let exchanges: BTreeSet<&str> = quotes.iter().map(|quote| quote.exchange.as_str()).collect();
    let db = store(&quotes, &trades);
    let snapshot = db.snapshot();
    let (trade_series, quote_series) = (snapshot.series("trade").unwrap(), snapshot.series("quote").unwrap());
    let bids = best(&trade_series, &quote_series, &exchanges, "bid", i64::max);
    let asks = best(&trade_series, &quote_series, &exchanges, "ask", i64::min);

    let (mut bid_of, mut ask_of) = (BTreeMap::new(), BTreeMap::new());
    let (mut next, mut inside) = (0, 0);
    for (row, trade) in trades.iter().enumerate() {
        while let Some(quote) = quotes.get(next).filter(|quote| quote.ts <= trade.ts) {
            if quote.bid > 0 {
                bid_of.insert(quote.exchange.as_str(), (quote.bid, quote.ts));
            }
            if quote.ask > 0 {
                ask_of.insert(quote.exchange.as_str(), (quote.ask, quote.ts));
            }
            next += 1;
        }
        let fresh = |(_, ts): &&(i64, i64)| trade.ts - ts <= FRESH.as_nanos() as i64;
        let bid = bid_of.values().filter(fresh).map(|(bid, _)| *bid).max();
        let ask = ask_of.values().filter(fresh).map(|(ask, _)| *ask).min();
        assert_eq!((bids[row], asks[row]), (bid, ask), "bid and offer of trade {row}");
        let is_inside = |bid| bid <= trade.price && asks[row].is_some_and(|ask| trade.price <= ask);
        inside += usize::from(bids[row].is_some_and(is_inside));
    }
    assert_eq!((trades.len(), exchanges.len() > 5), (25_351, true));
    assert!(inside * 2 > trades.len(), "{inside} of {} trades are between bid and offer", trades.len());
}

#[test]
fn minutes_of_trades_are_their_bars() {
    let Some(trades) = trades() else { return };
    let db = store(&[], &trades);
    let series = db.snapshot().series("trade").unwrap();
    let bars = series.scan().resample(Every::minutes(1)).aggregates(Aggregate::ohlc("price"));
    let bars = bars.aggregates([Aggregate::sum("size"), Aggregate::vwap("price", "size"), Aggregate::rows()]);
    let kept = bars.clone().collect().unwrap();
    let bars = bars.fill(Fill::None).collect().unwrap();

    let minute = 60_000_000_000;
    let mut expected: BTreeMap<i64, Vec<&Trade>> = BTreeMap::new();
    trades
        .iter()
        .for_each(|trade| expected.entry(trade.ts - trade.ts.rem_euclid(minute)).or_default().push(trade));
    assert_eq!(bars.timestamps("timestamp").unwrap(), expected.keys().copied().collect::<Vec<_>>());
    for (row, trades) in expected.values().enumerate() {
        let prices = || trades.iter().map(|trade| trade.price);
        let number = |name: &str| bars.i64s(name).unwrap()[row];
        let found = (number("open"), number("high"), number("low"), number("close"));
        let ohlc = (prices().next(), prices().max(), prices().min(), prices().next_back());
        assert_eq!((Some(found.0), Some(found.1), Some(found.2), Some(found.3)), ohlc, "minute {row}");
        let size: i64 = trades.iter().map(|trade| trade.size).sum();
        assert_eq!((number("size_sum"), number("rows")), (size, trades.len() as i64));
        let paid: i64 = trades.iter().map(|trade| trade.price * trade.size).sum();
        assert!((bars.f64s("vwap").unwrap()[row] - paid as f64 / size as f64).abs() < 1e-6);
    }
    let (first, last) = (expected.keys().next().unwrap(), expected.keys().last().unwrap());
    assert_eq!(kept.rows() as i64, (last - first) / minute + 1, "minutes without trades are kept");
}
