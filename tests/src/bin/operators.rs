//! What `.ci/operators` compares with pandas and Polars: `operators DB OUT` writes the results of operators on the series
//! `aig.trades` and `aig.quotes` as Arrow files.

use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use underbelly::{Aggregate, Columns, Database, Direction, Every, Fill, Predicate, Value, arrow};

/// Seconds within which a quote is fresh, and of a rolling window.
const SECOND: Duration = Duration::from_secs(1);

fn write(folder: &Path, name: &str, rows: Columns) -> Result<(), Box<dyn Error>> {
    let mut out = arrow::Writer::file(File::create(folder.join(format!("{name}.arrow")))?, &rows)?;
    out.write(rows)?;
    out.finish()?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(db), Some(out)) = (arguments.next(), arguments.next()) else {
        return Err("the arguments are a database and a folder".into());
    };
    let out = Path::new(&out);
    let db = Database::open_read_only(db)?;
    let (trades, quotes) = (db.snapshot().series("aig.trades")?, db.snapshot().series("aig.quotes")?);
    let left = || trades.scan().columns(["exchange", "price_e4", "size"]);
    let bids = || {
        let bids = quotes.scan().columns(["exchange", "bid_price_e4"]);
        bids.filter("bid_price_e4", Predicate::Above(Value::I64(0)))
    };
    let bid_sizes = || quotes.scan().columns(["exchange", "bid_size"]);
    let directions =
        [("backward", Direction::Backward), ("forward", Direction::Forward), ("nearest", Direction::Nearest)];
    for (name, direction) in directions {
        let joined = left().asof(bids()).by("exchange").direction(direction);
        write(out, &format!("asof_{name}"), joined.clone().collect()?)?;
        write(out, &format!("asof_{name}_second"), joined.tolerance(SECOND).collect()?)?;
    }
    write(out, "asof_strict", left().asof(bids()).by("exchange").exact(false).collect()?)?;
    let of_prices = || {
        let plain = ["mean", "std"].map(|name| match name {
            "mean" => Aggregate::mean("price_e4"),
            _ => Aggregate::std("price_e4"),
        });
        Aggregate::ohlc("price_e4")
            .into_iter()
            .chain(plain)
            .chain([Aggregate::sum("size"), Aggregate::rows()])
    };
    let bars = left().resample(Every::minutes(1)).by("exchange").aggregates(of_prices());
    write(out, "bars", bars.clone().fill(Fill::None).collect()?)?;
    write(out, "all_bars", left().resample(Every::minutes(5)).aggregates(of_prices()).collect()?)?;
    let rolling = left().rolling(10 * SECOND).by("exchange").aggregates(of_prices());
    write(out, "rolling", rolling.collect()?)?;
    let window = left().window_join(bid_sizes(), SECOND, SECOND).by("exchange");
    write(out, "window", window.aggregate(Aggregate::sum("bid_size")).collect()?)?;
    let groups = left().group_by(["exchange"]).aggregates(of_prices());
    let quantiles = [0.0, 0.25, 0.5, 0.9, 1.0].map(|quantile| Aggregate::quantile("price_e4", quantile));
    write(out, "groups", groups.aggregates(quantiles).collect()?)?;
    Ok(())
}
