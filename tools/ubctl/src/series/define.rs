//! `ubctl series define`: what becomes of the rows of a type.

use std::time::Duration;

use clap::{Args, ValueEnum};
use underbelly::{Database, Duplicates, SeriesDefinition};

use crate::error::Failed;
use crate::time::parse_duration;

/// Decides what becomes of the rows of a series type
///
/// A type that is there and has other rules, be they the defaults, is changed with --again alone. A type that shows the last of
/// several rows cannot show them all again.
#[derive(Args, Debug)]
pub(crate) struct Define {
    /// The series' type
    #[arg(value_name = "TYPE")]
    series: String,
    /// What becomes of rows with the same keys and timestamp
    #[arg(long, value_enum, default_value_t)]
    duplicates: Policy,
    /// Leave out appended rows that are there already, with all their values
    #[arg(long)]
    skip_identical: bool,
    /// Keep deleted and superseded rows so long, for --as-known-at
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    history: Option<Duration>,
    /// Delete rows that lie further behind the newest
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    retention: Option<Duration>,
    /// Change the rules of a type that is there
    #[arg(long)]
    again: bool,
}

/// What becomes of rows with the same keys and timestamp.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Policy {
    /// All stay.
    #[default]
    KeepAll,
    /// The last is shown.
    LastWins,
    /// One is shown, with the last value of each field that is not null.
    LastNonNull,
    /// A second one is refused.
    Reject,
}

impl Define {
    pub(crate) fn run(&self, db: &Database) -> Result<(), Failed> {
        let duplicates = match self.duplicates {
            Policy::KeepAll => Duplicates::KeepAll,
            Policy::LastWins => Duplicates::LastWins,
            Policy::LastNonNull => Duplicates::LastNonNull,
            Policy::Reject => Duplicates::Reject,
        };
        let mut definition = SeriesDefinition::new(&self.series).duplicates(duplicates);
        definition = if self.skip_identical { definition.skip_identical() } else { definition };
        definition = self.history.into_iter().fold(definition, SeriesDefinition::history);
        definition = self.retention.into_iter().fold(definition, SeriesDefinition::retention);
        match self.again {
            true => db.redefine_series(definition)?,
            false => db.define_series(definition)?,
        }
        Ok(())
    }
}
