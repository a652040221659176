//! `ubctl series asof`: rows with the rows of another series that were valid then.

use std::time::Duration;

use clap::{Args, ValueEnum};
use underbelly::{Direction, LogicalType, LogicalTypes, Scan, Timestamp};

use super::{Beside, FolderArgs, Rows, TABLE_ROWS, add, filters, parse_filter};
use crate::condition::Conditions;
use crate::error::Failed;
use crate::output::{Format, FormatArg, Listing};
use crate::time::{parse_duration, parse_instant};

/// Shows rows with the row of another series that was valid then
///
/// Each row of TYPE is shown once, with the columns of the last row of OTHER at or before it; empty where there is none.
/// A table shows 50 rows unless --limit says otherwise. A path such as ./quotes in the place of either type names a folder of files, as for
/// `series range`.
#[derive(Args, Debug)]
pub(crate) struct AsOfArgs {
    /// The series' type, or a path of a folder
    #[arg(value_name = "TYPE")]
    series: String,
    /// The type of the other series, or a path of a folder
    #[arg(value_name = "OTHER")]
    other: String,
    /// Only rows of OTHER with the same value in these columns; LEFT=RIGHT where the column has another name there
    #[arg(long, value_delimiter = ',', value_name = "COL,...")]
    by: Vec<String>,
    /// Which row of OTHER
    #[arg(long, value_enum, default_value_t)]
    direction: Toward,
    /// Only rows of OTHER that are at most so far away: a number and ns, us, ms, s, m, h, d or w
    #[arg(long, value_name = "LENGTH", value_parser = parse_duration)]
    tolerance: Option<Duration>,
    /// No rows of OTHER at the same instant
    #[arg(long)]
    not_exact: bool,
    /// Leaves out rows without a match
    #[arg(long)]
    inner: bool,
    /// Only these columns of TYPE
    #[arg(long, value_delimiter = ',', value_name = "COL,...")]
    columns: Option<Vec<String>>,
    /// Only these columns of OTHER
    #[arg(long, value_delimiter = ',', value_name = "COL,...")]
    other_columns: Option<Vec<String>>,
    /// Shows the time of the row of OTHER in a column of this name
    #[arg(long, value_name = "NAME")]
    other_time: Option<String>,
    /// Only rows of TYPE at this time or later
    #[arg(long, value_parser = parse_instant, allow_hyphen_values = true, value_name = "TIME")]
    from: Option<Timestamp>,
    /// Only rows of TYPE before this time
    #[arg(long, value_parser = parse_instant, allow_hyphen_values = true, value_name = "TIME")]
    to: Option<Timestamp>,
    /// Only rows of TYPE whose key has this value; an empty value asks for rows without one
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_filter)]
    key: Vec<(String, String)>,
    #[command(flatten)]
    conditions: Conditions,
    /// At most so many rows, the earliest
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    #[command(flatten)]
    folder: FolderArgs,
    #[command(flatten)]
    format: FormatArg,
}

/// What stands behind the name of a column of the other series where the first one has a column of that name, too.
const SUFFIX: &str = "_right";

/// Which row of the other series a row is shown with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Toward {
    /// The last at or before it.
    #[default]
    Backward,
    /// The first at or after it.
    Forward,
    /// The nearer of the two.
    Nearest,
}

/// The columns and those that are joined by.
fn with_keys<'c>(columns: &'c [String], keys: impl Iterator<Item = &'c str>) -> Vec<&'c str> {
    let mut all: Vec<&str> = columns.iter().map(String::as_str).collect();
    keys.for_each(|key| {
        if !all.contains(&key) {
            all.push(key);
        }
    });
    all
}

/// The columns that are read of a series: those, with what is joined by, or all.
fn read<'c>(
    rows: &'c Rows,
    columns: Option<&'c [String]>,
    keys: impl Iterator<Item = &'c str>,
) -> Vec<&'c str> {
    match columns {
        Some(columns) => with_keys(columns, keys),
        None => rows.schema().columns.iter().map(|column| &*column.name).collect(),
    }
}

impl AsOfArgs {
    /// What is joined by, with the names in both series.
    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.by.iter().map(|name| name.split_once('=').unwrap_or((name, name)))
    }

    /// What the columns of the join hold, by the names that it gives them.
    fn types(&self, series: &Rows, other: &Rows) -> LogicalTypes {
        let mut types = LogicalTypes::new();
        let mut add = |name: &str, held: Option<&LogicalType>| {
            held.into_iter().for_each(|held| types.insert(name, held.clone()));
        };
        let left = read(series, self.columns.as_deref(), self.pairs().map(|(left, _)| left));
        let right = read(other, self.other_columns.as_deref(), self.pairs().map(|(_, right)| right));
        left.iter().chain(&["timestamp"]).for_each(|name| add(name, series.types().get(name)));
        for name in right.into_iter().filter(|name| !self.pairs().any(|(_, key)| key == *name)) {
            match left.contains(&name) {
                true => add(&format!("{name}{SUFFIX}"), other.types().get(name)),
                false => add(name, other.types().get(name)),
            }
        }
        self.other_time.iter().for_each(|name| add(name, other.types().get("timestamp")));
        types
    }

    pub(super) fn run(&self, db: &Beside<'_>) -> Result<(), Failed> {
        self.folder.check([self.series.as_str(), self.other.as_str()])?;
        let (series, other) = (self.folder.rows(db, &self.series)?, self.folder.rows(db, &self.other)?);
        let by = || self.pairs();
        for (left, right) in by() {
            let held = |series: &Rows, name: &str| {
                let stored = series.schema().column(name).ok()?.column_type;
                Some(series.types().of(name, stored))
            };
            // Decimals are compared as they are stored.
            if let (Some(one), Some(two)) = (held(&series, left), held(&other, right))
                && one != two
                && (one.scale().is_some() || two.scale().is_some())
            {
                let what = format!(
                    "--by: {left:?} holds {one} and {right:?} holds {two}; join by columns that hold the same"
                );
                return Err(Failed::Usage(what));
            }
        }
        let mut left: Scan<'_> = series.scan();
        let mut right: Scan<'_> = other.scan();
        if let Some(from) = self.from {
            left = left.from(from);
        }
        if let Some(to) = self.to {
            left = left.to(to);
        }
        for (name, value) in filters(&series, &self.key)? {
            // Other keys of the other series cannot match.
            let pair =
                by().find(|(left, _)| *left == name).and_then(|(_, right)| other.schema().column(right).ok());
            if let Some(column) =
                pair.filter(|column| column.key && value.column_type() == Some(column.column_type))
            {
                right = right.key(&column.name, value.clone());
            }
            left = left.key(&name, value);
        }
        left = self.conditions.narrow(&series, left)?;
        if let Some(columns) = &self.columns {
            left = left.columns(with_keys(columns, by().map(|(left, _)| left)));
        }
        if let Some(columns) = &self.other_columns {
            right = right.columns(with_keys(columns, by().map(|(_, right)| right)));
        }
        let format = self.format.format;
        let limit = match (self.limit, format) {
            (None, Format::Table) => TABLE_ROWS,
            (limit, _) => limit.unwrap_or(u64::MAX),
        };
        let direction = match self.direction {
            Toward::Backward => Direction::Backward,
            Toward::Forward => Direction::Forward,
            Toward::Nearest => Direction::Nearest,
        };
        let mut join = left.asof(right).direction(direction).exact(!self.not_exact).suffix(SUFFIX);
        for (left, right) in by() {
            join = join.by_pair(left, right);
        }
        if let Some(tolerance) = self.tolerance {
            join = join.tolerance(tolerance);
        }
        if self.inner {
            join = join.inner();
        }
        if let Some(name) = &self.other_time {
            join = join.right_timestamp(name);
        }
        let batches = join.batches()?;
        let types = self.types(&series, &other);
        let mut listing = Listing::begin_rows(format, batches.names())?;
        let mut left_to_show = limit;
        for batch in batches {
            let batch = batch?;
            let rows = batch.rows() as u64;
            if rows > left_to_show {
                add(&mut listing, &batch.slice(0..left_to_show as usize), &types)?;
                return match self.limit {
                    Some(_) => listing.end(None),
                    None => listing.end(Some("… more rows, use --limit or --format csv")),
                };
            }
            add(&mut listing, &batch, &types)?;
            left_to_show -= rows;
        }
        listing.end(None)
    }
}
