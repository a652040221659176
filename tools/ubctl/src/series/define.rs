//! `ubctl series define`: what becomes of the rows of a type.

use std::time::Duration;

use clap::{Args, ValueEnum};
use underbelly::{Batch, Database, Duplicates, LogicalType, ReadError, SeriesDefinition};

use super::add_rules;
use crate::error::Failed;
use crate::import::parse_type;
use crate::output::{Facts, Format};
use crate::time::parse_duration;

/// Decides what becomes of the rows of a series type
///
/// A type that is there and has other rules, be they the defaults, is changed with --again alone; what is not said stays as it
/// was then. A type that shows the last of several rows cannot show them all again.
#[derive(Args, Debug)]
pub(crate) struct Define {
    /// The series' type
    #[arg(value_name = "TYPE")]
    series: String,
    /// What becomes of rows with the same keys and timestamp
    #[arg(long, value_enum)]
    duplicates: Option<Policy>,
    /// Leave out appended rows that are there already, with all their values, be they of the same file
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "true|false")]
    skip_identical: Option<bool>,
    /// Keep deleted and superseded rows so long, for --as-known-at, or `none`
    #[arg(long, value_parser = parse_kept, value_name = "TIME")]
    history: Option<Kept>,
    /// Delete rows that lie further behind the newest, or behind the present where that is earlier, or `none`
    #[arg(long, value_parser = parse_kept, value_name = "TIME")]
    retention: Option<Kept>,
    /// What columns hold before any row does, such as price:decimal(2), and of which zone instants are, such as
    /// timestamp:timestamp[America/New_York] for the rows' own time; what is said of a column stays
    #[arg(long, value_delimiter = ',', value_parser = parse_type, value_name = "NAME:TYPE,...")]
    columns: Vec<(String, LogicalType)>,
    /// Change the rules of a type that is there
    #[arg(long)]
    again: bool,
}

/// What becomes of rows with the same keys and timestamp.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Policy {
    /// All stay.
    KeepAll,
    /// The last is shown.
    LastWins,
    /// One is shown, with the last value of each field that is not null.
    LastNonNull,
    /// A second one is refused.
    Reject,
}

/// How long something is kept; `None` where that is no rule.
type Kept = Option<Duration>;

fn parse_kept(text: &str) -> Result<Kept, String> {
    if text == "none" { Ok(None) } else { parse_duration(text).map(Some) }
}

impl Define {
    pub(crate) fn run(&self, db: &Database) -> Result<(), Failed> {
        let known = match db.snapshot().series_info(&self.series) {
            Ok(info) => Some(info.definition),
            Err(ReadError::UnknownSeries { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let before = known.clone().filter(|_| self.again);
        let before = before.unwrap_or_else(|| SeriesDefinition::new(&self.series));
        let duplicates = self.duplicates.map_or(before.duplicates_policy(), |policy| match policy {
            Policy::KeepAll => Duplicates::KeepAll,
            Policy::LastWins => Duplicates::LastWins,
            Policy::LastNonNull => Duplicates::LastNonNull,
            Policy::Reject => Duplicates::Reject,
        });
        let mut definition = SeriesDefinition::new(&self.series).duplicates(duplicates);
        if self.skip_identical.unwrap_or(before.skips_identical()) {
            definition = definition.skip_identical();
        }
        let kept = Some(before.kept_history()).filter(|history| !history.is_zero());
        definition = self.history.unwrap_or(kept).into_iter().fold(definition, SeriesDefinition::history);
        let kept = self.retention.unwrap_or(before.kept_rows());
        definition = kept.into_iter().fold(definition, SeriesDefinition::retention);
        if let Some((column, logical)) =
            self.columns.iter().find(|(_, logical)| matches!(logical, LogicalType::Plain(_)))
        {
            let what = format!(
                "--columns: {column:?} gets {logical} from its first row; say it of decimals and of zones alone"
            );
            return Err(Failed::Usage(what));
        }
        // Other rules of a type that is there are refused before anything is declared; what is declared, before the rules change.
        if !self.again && known.as_ref().is_some_and(|known| *known != definition) {
            db.define_series(definition.clone())?;
        }
        if !self.columns.is_empty() {
            let mut batch = Batch::new();
            for (column, logical) in &self.columns {
                batch.declare(self.series.as_str(), column.as_str(), logical.clone())?;
            }
            db.commit(batch)?;
        }
        // To declare makes a type, whose rules are the defaults until now.
        let defined = match self.again || known.is_none() {
            true => db.redefine_series(definition),
            false => db.define_series(definition),
        };
        defined.map_err(|error| match self.columns.is_empty() {
            true => error.into(),
            false => Failed::Usage(format!("{error} (what --columns says was kept before that and stays)")),
        })?;
        let mut facts = Facts::default();
        add_rules(&mut facts, &db.snapshot().series_info(&self.series)?.definition);
        facts.print(Format::Table)
    }
}
