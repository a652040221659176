//! `ubctl series`: rows by type and time.

mod asof;
mod define;
mod resample;
mod rows;

use std::path::Path;

use clap::{Args, Subcommand, ValueEnum};
use underbelly::arrow::Folder;
use underbelly::{
    Batch, Closed, ColumnType, Columns, Database, Delete, LogicalTypes, Scan, Schema, SeriesDefinition,
    Timestamp, Value, View,
};

pub(crate) use self::rows::{Beside, FolderArgs, Rows};
use crate::condition::Conditions;
use crate::error::Failed;
use crate::output::{Facts, Field, Format, FormatArg, Listing, print};
use crate::slot::parse_typed;
use crate::time::parse_instant;
use crate::write;

/// Rows of a table unless more are asked for.
const TABLE_ROWS: u64 = 50;

/// Rows by type and time.
#[derive(Subcommand, Debug)]
pub(crate) enum Series {
    /// Lists all series
    Ls(FormatArg),
    /// Shows one series, or a folder of files: rows, times, columns, files
    Info {
        /// The series' type, or a path of a folder
        #[arg(value_name = "TYPE")]
        series: String,
        #[command(flatten)]
        folder: FolderArgs,
        #[command(flatten)]
        format: FormatArg,
    },
    Range(Range),
    #[command(name = "asof")]
    AsOf(asof::AsOfArgs),
    Resample(Box<resample::ResampleArgs>),
    /// Shows the newest rows, newest first
    Latest {
        /// The series' type, or a path of a folder
        #[arg(value_name = "TYPE")]
        series: String,
        /// How many
        #[arg(short, default_value_t = 10)]
        n: usize,
        /// Only rows whose key has this value; an empty value asks for rows without one
        #[arg(long, value_name = "KEY=VALUE", value_parser = parse_filter)]
        key: Vec<(String, String)>,
        #[command(flatten)]
        folder: FolderArgs,
        #[command(flatten)]
        format: FormatArg,
    },
    Rm(Rm),
    Define(define::Define),
    /// Shows the newest row of each combination of keys
    Last {
        /// The series' type, or a path of a folder
        #[arg(value_name = "TYPE")]
        series: String,
        #[command(flatten)]
        folder: FolderArgs,
        #[command(flatten)]
        format: FormatArg,
    },
}

/// Shows rows in order of time and arrival
///
/// CSV and JSON are written as rows are read, however many there are. A table shows 50 rows unless --limit says
/// otherwise. Times are ISO 8601 (UTC without an offset), `now`, or bare numbers of seconds since 1970; eight
/// digits are a day.
///
/// A path such as ./ticks or /data/ticks in the place of the type names a folder of Arrow files (and of Parquet, where this was built with
/// it), whose rows are read where they lie, as if they were imported. Nothing is written into it.
#[derive(Args, Debug)]
pub(crate) struct Range {
    /// The series' type, or a path of a folder
    #[arg(value_name = "TYPE")]
    series: String,
    /// Start of the range
    #[arg(long, value_parser = parse_instant, allow_hyphen_values = true, value_name = "TIME")]
    from: Option<Timestamp>,
    /// End of the range
    #[arg(long, value_parser = parse_instant, allow_hyphen_values = true, value_name = "TIME")]
    to: Option<Timestamp>,
    /// Which ends belong to the range
    #[arg(long, value_enum, default_value_t)]
    closed: Ends,
    /// Only rows whose key has this value; an empty value asks for rows without one
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_filter)]
    key: Vec<(String, String)>,
    #[command(flatten)]
    conditions: Conditions,
    /// Only these columns, in this order, behind the timestamp
    #[arg(long, value_delimiter = ',', value_name = "COL,...")]
    columns: Option<Vec<String>>,
    /// At most so many rows, the earliest
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// The number of rows alone
    #[arg(long, conflicts_with = "columns")]
    count: bool,
    /// As known when this transaction was the last
    #[arg(long, value_name = "SEQ", conflicts_with = "as_known")]
    as_known_at: Option<u64>,
    /// As known at this time of the database's clock
    #[arg(long, value_parser = parse_instant, allow_hyphen_values = true, value_name = "TIME")]
    as_known: Option<Timestamp>,
    #[command(flatten)]
    folder: FolderArgs,
    #[command(flatten)]
    format: FormatArg,
}

/// Which ends belong to a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Ends {
    /// The start alone.
    #[default]
    Left,
    /// The end alone.
    Right,
    /// Both.
    Both,
    /// Neither.
    Neither,
}

impl From<Ends> for Closed {
    fn from(ends: Ends) -> Closed {
        match ends {
            Ends::Left => Closed::Left,
            Ends::Right => Closed::Right,
            Ends::Both => Closed::Both,
            Ends::Neither => Closed::Neither,
        }
    }
}

/// Deletes rows of a time range, of a key, or of both
///
/// The range is half-open: a row at --to stays. Rows that are appended later stay, be they as old.
#[derive(Args, Debug)]
pub(crate) struct Rm {
    /// The series' type
    #[arg(value_name = "TYPE")]
    series: String,
    /// Only rows whose key has this value; an empty value asks for rows without one
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_filter)]
    key: Vec<(String, String)>,
    /// Only rows at this time or later
    #[arg(long, value_parser = parse_instant, allow_hyphen_values = true, value_name = "TIME")]
    from: Option<Timestamp>,
    /// Only rows before this time
    #[arg(long, value_parser = parse_instant, allow_hyphen_values = true, value_name = "TIME")]
    to: Option<Timestamp>,
    /// All rows of the series
    #[arg(long, conflicts_with_all = ["key", "from", "to"])]
    all: bool,
}

pub(crate) fn parse_filter(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_string(), value.to_string()))
}

/// Filters with values of their keys' types.
pub(crate) fn filters(series: &Rows, given: &[(String, String)]) -> Result<Vec<(String, Value)>, Failed> {
    let typed = |(name, text): &(String, String)| {
        let column = series.schema().column(name)?;
        let logical = series.types().of(name, column.column_type);
        // Whether a key of floats can hold an integer is the engine's to say; as a float it would be rounded.
        let integer = text.parse::<i64>().ok().filter(|_| column.column_type == ColumnType::F64);
        let value = match integer {
            _ if text.is_empty() => Value::Null,
            Some(integer) => integer.into(),
            None => parse_typed(&format!("key {name:?}"), text, &logical)?,
        };
        Ok((name.clone(), value))
    };
    given.iter().map(typed).collect()
}

impl Series {
    pub(crate) fn run(&self, dir: &Path, memory: Option<u64>) -> Result<(), Failed> {
        if let Series::Rm(rm) = self {
            return rm.run(&write(dir)?);
        }
        if let Series::Define(define) = self {
            return define.run(&write(dir)?);
        }
        self.show(&Beside::new(dir, memory))
    }

    fn show(&self, db: &Beside<'_>) -> Result<(), Failed> {
        match self {
            Series::Rm(_) | Series::Define(_) => Ok(()),
            Series::Ls(format) => list(db.view()?, format.format),
            Series::Info { series, folder, format } => {
                folder.check([series.as_str()])?;
                match folder.rows(db, series)? {
                    Rows::Series(_) => info(db.view()?, series, format.format),
                    Rows::Folder(folder) => info_of_folder(&folder, format.format),
                }
            }
            Series::Range(range) => range.run(db),
            Series::AsOf(asof) => asof.run(db),
            Series::Resample(resample) => resample.run(db),
            Series::Latest { series, n, key, folder, format } => {
                folder.check([series.as_str()])?;
                let series = folder.rows(db, series)?;
                let keys = filters(&series, key)?;
                let keys: Vec<(&str, Value)> = keys.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
                show(format.format, &series.latest(*n, &keys)?, series.types())
            }
            Series::Last { series, folder, format } => {
                folder.check([series.as_str()])?;
                let series = folder.rows(db, series)?;
                show(format.format, &series.last_points()?, series.types())
            }
        }
    }
}

fn list(db: &View, format: Format) -> Result<(), Failed> {
    let snapshot = db.snapshot();
    let names =
        ["type", "rows", "first", "last", "keys", "segments", "segment_bytes", "young_runs", "deletes"];
    let mut listing = Listing::begin(format, names)?;
    for name in snapshot.series_names() {
        let info = snapshot.series_info(&name)?;
        let series = snapshot.series(&name)?;
        let instant = |at| Field::instant(at, series.types().time_zone());
        let keys: Vec<&str> = series.schema().keys().map(|key| &*key.name).collect();
        listing.row([
            info.name.into(),
            info.rows.into(),
            info.first.map(instant).into(),
            info.last.map(instant).into(),
            keys.join(",").into(),
            info.segments.into(),
            info.segment_bytes.into(),
            info.young_runs.into(),
            info.deletes.into(),
        ])?;
    }
    listing.end(None)
}

/// The keys and the fields with their types, and the zone of the rows' instants.
fn add_columns(facts: &mut Facts, schema: &Schema, types: &LogicalTypes) {
    let columns = |key: bool| {
        let columns = schema.columns.iter().filter(|column| column.key == key);
        let named =
            columns.map(|column| format!("{} {}", column.name, types.of(&column.name, column.column_type)));
        named.collect::<Vec<_>>().join(", ")
    };
    facts.add("keys", columns(true)).add("fields", columns(false));
    if let Some(zone) = types.time_zone() {
        facts.add("zone", zone.to_string());
    }
}

fn info_of_folder(folder: &Folder, format: Format) -> Result<(), Failed> {
    let bounds = folder.bounds()?;
    let instant = |at| Field::instant(at, folder.types().time_zone());
    let mut facts = Facts::default();
    facts.add("folder", folder.path().display().to_string()).add("rows", folder.count()?);
    facts.add("first", bounds.map(|(first, _)| instant(first)));
    facts.add("last", bounds.map(|(_, last)| instant(last)));
    add_columns(&mut facts, folder.schema(), folder.types());
    facts.add("files", folder.files().count()).add("bytes", folder.bytes());
    facts.add("batches", folder.batches()).add("overlapping", folder.overlapping());
    facts.print(format)
}

fn info(db: &View, name: &str, format: Format) -> Result<(), Failed> {
    let snapshot = db.snapshot();
    let info = snapshot.series_info(name)?;
    let series = snapshot.series(name)?;
    let is_new = |name: &&str| series.schema().column(name).is_err();
    let declared = series.types().iter().filter(|(name, _)| is_new(&&***name) && &***name != "timestamp");
    let declared: Vec<String> = declared.map(|(name, logical)| format!("{name} {logical}")).collect();
    let zone = series.types().time_zone();
    let instant = |at| Field::instant(at, zone);
    let mut facts = Facts::default();
    facts.add("type", info.name.clone()).add("rows", info.rows);
    facts.add("first", info.first.map(instant)).add("last", info.last.map(instant));
    add_columns(&mut facts, series.schema(), series.types());
    if !declared.is_empty() {
        facts.add("declared", declared.join(", "));
    }
    facts.add("segments", info.segments).add("segment_bytes", info.segment_bytes);
    facts.add("young_runs", info.young_runs).add("deletes", info.deletes);
    let amplification = info.write_amplification().map(|ratio| format!("{ratio:.2}"));
    facts.add("appended_bytes", info.appended_bytes).add("written_bytes", info.written_bytes);
    facts.add("write_amplification", amplification);
    add_rules(&mut facts, &info.definition);
    facts.add("kept_from", info.kept_from.map(instant)).add("horizon", info.horizon);
    facts.print(format)
}

/// What becomes of the rows of a type; times in seconds.
fn add_rules(facts: &mut Facts, rules: &SeriesDefinition) {
    let seconds = |kept: std::time::Duration| match kept.subsec_nanos() {
        0 => Field::from(kept.as_secs()),
        _ => Field::F64(kept.as_secs_f64()),
    };
    facts.add("duplicates", rules.duplicates_policy().name());
    facts.add("skip_identical", if rules.skips_identical() { "yes" } else { "no" });
    facts.add("history_seconds", seconds(rules.kept_history()));
    facts.add("retention_seconds", rules.kept_rows().map(seconds));
}

/// Shows rows that are in memory.
fn show(format: Format, rows: &Columns, types: &LogicalTypes) -> Result<(), Failed> {
    let mut listing = Listing::begin_rows(format, rows.names())?;
    add(&mut listing, rows, types)?;
    listing.end(None)
}

fn add<W: std::io::Write>(
    listing: &mut Listing<W>,
    rows: &Columns,
    types: &LogicalTypes,
) -> Result<(), Failed> {
    let logical: Vec<_> = rows.names().iter().map(|name| types.get(name)).collect();
    (0..rows.rows()).try_for_each(|row| {
        let columns = rows.iter().zip(&logical);
        listing.row(columns.map(|((_, column), logical)| Field::typed(column, row, *logical)))
    })
}

impl Rm {
    fn run(&self, db: &Database) -> Result<(), Failed> {
        if !self.all && self.key.is_empty() && self.from.is_none() && self.to.is_none() {
            let what = "say which rows with --key, --from or --to, or --all for every row of the series";
            return Err(Failed::Usage(what.to_string()));
        }
        let series = db.snapshot().series(&self.series)?;
        let (mut scan, mut delete) = (series.scan(), Delete::all());
        if let Some(from) = self.from {
            (scan, delete) = (scan.from(from), delete.from(from));
        }
        if let Some(to) = self.to {
            (scan, delete) = (scan.to(to), delete.to(to));
        }
        for (name, value) in filters(&Rows::Series(series.clone()), &self.key)? {
            (scan, delete) = (scan.key(&name, value.clone()), delete.key(name, value));
        }
        // Nobody else writes, so what is counted is what is hidden.
        let rows = scan.count()?;
        let mut batch = Batch::new();
        batch.delete_rows(self.series.as_str(), delete);
        let mut facts = Facts::default();
        facts.add("rows", rows).add("seq", db.commit(batch)?.seq);
        facts.print(Format::Table)
    }
}

impl Range {
    fn run(&self, db: &Beside<'_>) -> Result<(), Failed> {
        self.folder.check([self.series.as_str()])?;
        let series = match (self.as_known_at, self.as_known) {
            (None, None) => self.folder.rows(db, &self.series)?,
            _ if rows::folder(&self.series).is_some() => {
                let what = "a folder is read as it is now; leave out --as-known and --as-known-at";
                return Err(Failed::Usage(what.to_string()));
            }
            (Some(seq), _) => Rows::Series(db.view()?.as_known_at(seq)?.series(&self.series)?),
            (None, Some(at)) => Rows::Series(db.view()?.as_known_at_time(at)?.series(&self.series)?),
        };
        let keys = filters(&series, &self.key)?;
        let conditions = self.conditions.predicates(&series)?;
        let scan = || {
            let mut scan: Scan<'_> = series.scan().closed(self.closed.into());
            if let Some(from) = self.from {
                scan = scan.from(from);
            }
            if let Some(to) = self.to {
                scan = scan.to(to);
            }
            for (name, value) in &keys {
                scan = scan.key(name, value.clone());
            }
            for (name, predicate) in &conditions {
                scan = scan.filter(name, predicate.clone());
            }
            if let Some(columns) = &self.columns {
                scan = scan.columns(columns);
            }
            scan
        };
        let limited = |limit: Option<u64>| match limit {
            Some(limit) => scan().rows_max(usize::try_from(limit).unwrap_or(usize::MAX)),
            None => scan(),
        };
        let format = self.format.format;
        if self.count {
            let rows = limited(self.limit).count()?;
            return match format {
                Format::Table => print(&format!("{rows}\n")),
                Format::Csv | Format::Json => {
                    let mut facts = Facts::default();
                    facts.add("rows", rows);
                    facts.print(format)
                }
            };
        }
        let limit = match (self.limit, format) {
            (None, Format::Table) => Some(TABLE_ROWS),
            (limit, _) => limit,
        };
        // Answers the names where there is no row, and refuses what does not fit before anything is written.
        let none = scan().rows_max(0).collect()?;
        let mut listing = Listing::begin_rows(format, none.names())?;
        let mut shown = 0;
        for batch in limited(limit).batches() {
            let batch = batch?;
            shown += batch.rows() as u64;
            add(&mut listing, &batch, series.types())?;
        }
        if self.limit.is_some() || format != Format::Table || shown < TABLE_ROWS {
            return listing.end(None);
        }
        match scan().count()?.saturating_sub(shown) {
            0 => listing.end(None),
            more => listing.end(Some(&format!("… {more} more rows, use --limit or --format csv"))),
        }
    }
}
