//! `ubctl series resample`: windows of time.

use clap::{Args, ValueEnum};
use underbelly::{Aggregate, Every, Fill, Label, LogicalTypes, Resample, Scan, Timestamp, Value, WindowEnd};

use super::{Beside, FolderArgs, Rows, TABLE_ROWS, add, filters, parse_filter};
use crate::condition::Conditions;
use crate::error::Failed;
use crate::output::{Format, FormatArg, Listing};
use crate::time::{parse_duration, parse_instant};

/// Shows aggregates of windows of time
///
/// Without an aggregate the rows of each window are counted. Windows without rows are shown too, unless --fill says
/// otherwise: from the first row to the last one, or from --from to --to where both are given. A path such as ./ticks in the place of the
/// type names a folder of files, as for `series range`.
#[derive(Args, Debug)]
pub(crate) struct ResampleArgs {
    /// The series' type, or a path of a folder
    #[arg(value_name = "TYPE")]
    series: String,
    /// Length of the windows: a number and ns, us, ms, s, m, h, d (days), w (weeks), mo (months), q (quarters) or y
    #[arg(long, value_name = "LENGTH", value_parser = parse_every)]
    every: Every,
    /// Windows for each value of these columns
    #[arg(long, value_delimiter = ',', value_name = "COL,...")]
    by: Vec<String>,
    /// Open, high, low and close of a price
    #[arg(long, value_name = "COL")]
    ohlc: Option<String>,
    /// Mean of a price weighted by a size
    #[arg(long, value_name = "PRICE,SIZE", value_parser = parse_pair)]
    vwap: Option<(String, String)>,
    /// Sums of columns
    #[arg(long, value_delimiter = ',', value_name = "COL,...")]
    sum: Vec<String>,
    /// Means of columns
    #[arg(long, value_delimiter = ',', value_name = "COL,...")]
    mean: Vec<String>,
    /// Standard deviations of columns
    #[arg(long, value_delimiter = ',', value_name = "COL,...")]
    std: Vec<String>,
    /// Smallest values of columns
    #[arg(long, value_delimiter = ',', value_name = "COL,...")]
    min: Vec<String>,
    /// Largest values of columns
    #[arg(long, value_delimiter = ',', value_name = "COL,...")]
    max: Vec<String>,
    /// First values of columns
    #[arg(long, value_delimiter = ',', value_name = "COL,...")]
    first: Vec<String>,
    /// Last values of columns
    #[arg(long, value_delimiter = ',', value_name = "COL,...")]
    last: Vec<String>,
    /// Numbers of values of columns that are not null
    #[arg(long, value_delimiter = ',', value_name = "COL,...")]
    count: Vec<String>,
    /// A quantile of a column, from 0 to 1
    #[arg(long, value_name = "COL,QUANTILE", value_parser = parse_quantile)]
    quantile: Vec<(String, f64)>,
    /// Number of rows
    #[arg(long)]
    rows: bool,
    /// Time zone in which days, weeks, months and years begin, such as America/New_York
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// An instant at which a window of a fixed length begins
    #[arg(long, value_parser = parse_instant, allow_hyphen_values = true, value_name = "TIME")]
    origin: Option<Timestamp>,
    /// Which end of a window belongs to it
    #[arg(long, value_enum, default_value_t)]
    closed: Side,
    /// Which end of a window is its timestamp
    #[arg(long, value_enum, default_value_t)]
    label: Side,
    /// What stands where a window has no value: none (the window is left out), null, previous, linear, or a number
    #[arg(long, default_value = "null", value_parser = parse_fill, allow_hyphen_values = true, value_name = "FILL")]
    fill: Fill,
    /// Only rows at this time or later
    #[arg(long, value_parser = parse_instant, allow_hyphen_values = true, value_name = "TIME")]
    from: Option<Timestamp>,
    /// Only rows before this time
    #[arg(long, value_parser = parse_instant, allow_hyphen_values = true, value_name = "TIME")]
    to: Option<Timestamp>,
    /// Only rows whose key has this value; an empty value asks for rows without one
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_filter)]
    key: Vec<(String, String)>,
    #[command(flatten)]
    conditions: Conditions,
    /// Only the newest so many windows, in order of time; with --fill none the newest that have rows
    #[arg(long, value_name = "N")]
    newest: Option<usize>,
    /// At most so many rows, the earliest; a table shows 50 unless told otherwise
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    folder: FolderArgs,
    #[command(flatten)]
    format: FormatArg,
}

/// An end of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Side {
    /// The start.
    #[default]
    Left,
    /// The end.
    Right,
}

/// What an aggregate gives.
#[derive(Clone, Copy)]
enum Gives {
    /// One of the values, or their sum.
    Value,
    /// What need not be one.
    Fraction,
    /// A number of rows.
    Count,
}

fn parse_every(text: &str) -> Result<Every, String> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let calendar = match unit {
        "d" => Every::days,
        "w" => Every::weeks,
        "mo" => Every::months,
        "q" => |n: u32| Every::months(n.saturating_mul(3)),
        "y" => Every::years,
        _ => {
            let length = parse_duration(text).ok();
            return length
                .map(Every::of)
                .ok_or_else(|| "write a length such as 5s, 1m, 1h, 1d, 1w, 1mo, 1q or 1y".into());
        }
    };
    number.parse().map(calendar).map_err(|_| format!("{number:?} is no number of windows; write 1{unit}"))
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    let (first, second) = text.split_once(',').ok_or("write two columns with a comma between them")?;
    Ok((first.to_string(), second.to_string()))
}

fn parse_quantile(text: &str) -> Result<(String, f64), String> {
    let (column, quantile) =
        text.rsplit_once(',').ok_or("write a column, a comma, and a number from 0 to 1")?;
    let quantile = quantile.parse().map_err(|_| format!("{quantile:?} is no number from 0 to 1"))?;
    Ok((column.to_string(), quantile))
}

fn parse_fill(text: &str) -> Result<Fill, String> {
    Ok(match text {
        "none" => Fill::None,
        "null" => Fill::Null,
        "previous" => Fill::Previous,
        "linear" => Fill::Linear,
        number => match (number.parse::<i64>(), number.parse::<f64>()) {
            (Ok(number), _) => Fill::Constant(Value::I64(number)),
            (_, Ok(number)) => Fill::Constant(Value::F64(number)),
            _ => return Err("write none, null, previous, linear, or a number".into()),
        },
    })
}

impl ResampleArgs {
    pub(super) fn run(&self, db: &Beside<'_>) -> Result<(), Failed> {
        self.folder.check([self.series.as_str()])?;
        let series = self.folder.rows(db, &self.series)?;
        let mut scan: Scan<'_> = series.scan();
        if let Some(from) = self.from {
            scan = scan.from(from);
        }
        if let Some(to) = self.to {
            scan = scan.to(to);
        }
        for (name, value) in filters(&series, &self.key)? {
            scan = scan.key(&name, value);
        }
        scan = self.conditions.narrow(&series, scan)?;
        let (aggregates, types) = self.typed_aggregates(&series)?;
        let read = aggregates.iter().flat_map(Aggregate::columns).map(|name| &**name);
        let mut columns: Vec<&str> = Vec::new();
        for name in read.chain(self.by.iter().map(String::as_str)) {
            if !columns.contains(&name) {
                columns.push(name);
            }
        }
        let mut every = self.every.clone();
        if let Some(zone) = &self.zone {
            every = every.zone(zone)?;
        }
        if let Some(origin) = self.origin {
            every = every.origin(origin);
        }
        let (closed, label) = match (self.closed, self.label) {
            (Side::Left, Side::Left) => (WindowEnd::Left, Label::Left),
            (Side::Left, Side::Right) => (WindowEnd::Left, Label::Right),
            (Side::Right, Side::Left) => (WindowEnd::Right, Label::Left),
            (Side::Right, Side::Right) => (WindowEnd::Right, Label::Right),
        };
        let mut resample: Resample<'_> = scan.columns(columns).resample(every).closed(closed).label(label);
        for name in &self.by {
            resample = resample.by(name);
        }
        if let (Some(from), Some(to)) = (self.from, self.to) {
            resample = resample.span(from, to);
        }
        if let Some(windows) = self.newest {
            resample = resample.newest(windows);
        }
        let windows = resample.fill(self.fill.clone()).aggregates(aggregates).collect()?;
        let format = self.format.format;
        let shown = match (self.limit, format) {
            (None, Format::Table) => TABLE_ROWS as usize,
            (limit, _) => limit.unwrap_or(usize::MAX),
        };
        let mut listing = Listing::begin_rows(format, windows.names())?;
        add(&mut listing, &windows.slice(0..windows.rows().min(shown)), &types)?;
        match windows.rows().saturating_sub(shown) {
            more if more > 0 && self.limit.is_none() => {
                listing.end(Some(&format!("… {more} more rows, use --limit or --format csv")))
            }
            _ => listing.end(None),
        }
    }

    /// The aggregates, and what they hold: one of the values and their sum are what the values are. What would be a fraction of
    /// decimals, or be put among them, is refused.
    fn typed_aggregates(&self, series: &Rows) -> Result<(Vec<Aggregate>, LogicalTypes), Failed> {
        let types = series.types();
        let mut held = LogicalTypes::new();
        let kept = self.by.iter().map(String::as_str).chain(["timestamp"]);
        for (name, logical) in kept.filter_map(|name| Some((name, types.get(name)?))) {
            held.insert(name, logical.clone());
        }
        let mut aggregates = Vec::new();
        for (aggregate, gives) in self.aggregates() {
            for (column, logical) in
                aggregate.columns().into_iter().filter_map(|name| Some((name, types.get(name)?)))
            {
                let is_decimal = logical.scale().is_some();
                match gives {
                    Gives::Fraction if is_decimal => {
                        return Err(Failed::Usage(format!(
                            "column {column:?} holds {logical}, of which there are the first, the last, the least, the largest and the sum; leave the other aggregates out"
                        )));
                    }
                    Gives::Value if is_decimal && matches!(self.fill, Fill::Linear | Fill::Constant(_)) => {
                        let what =
                            format!("column {column:?} holds {logical}; fill with none, null or previous");
                        return Err(Failed::Usage(what));
                    }
                    Gives::Value => held.insert(aggregate.name(), logical.clone()),
                    Gives::Fraction | Gives::Count => {}
                }
            }
            aggregates.push(aggregate);
        }
        Ok((aggregates, held))
    }

    fn aggregates(&self) -> Vec<(Aggregate, Gives)> {
        let ohlc = self.ohlc.iter().flat_map(|price| Aggregate::ohlc(price));
        let mut aggregates: Vec<(Aggregate, Gives)> =
            ohlc.map(|aggregate| (aggregate, Gives::Value)).collect();
        let vwaps = self.vwap.iter().map(|(price, size)| Aggregate::vwap(price, size));
        aggregates.extend(vwaps.map(|aggregate| (aggregate, Gives::Fraction)));
        let mut add = |columns: &[String], of_column: fn(&str) -> Aggregate, gives: Gives| {
            aggregates.extend(columns.iter().map(|column| (of_column(column), gives)));
        };
        add(&self.sum, Aggregate::sum, Gives::Value);
        add(&self.mean, Aggregate::mean, Gives::Fraction);
        add(&self.std, Aggregate::std, Gives::Fraction);
        add(&self.min, Aggregate::min, Gives::Value);
        add(&self.max, Aggregate::max, Gives::Value);
        add(&self.first, Aggregate::first, Gives::Value);
        add(&self.last, Aggregate::last, Gives::Value);
        add(&self.count, Aggregate::count, Gives::Count);
        let quantiles = self.quantile.iter().map(|(column, quantile)| Aggregate::quantile(column, *quantile));
        aggregates.extend(quantiles.map(|aggregate| (aggregate, Gives::Fraction)));
        if self.rows || aggregates.is_empty() {
            aggregates.push((Aggregate::rows(), Gives::Count));
        }
        aggregates
    }
}
