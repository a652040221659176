//! What is decided of a series type beside its columns.

use std::time::Duration;

use underbelly_query::Duplicates;
use underbelly_storage::Timestamp;

use crate::error::SchemaError;

/// The longest time that is stored, some 584 years.
const LONGEST: Duration = Duration::from_nanos(u64::MAX);

/// Into how many steps a retention is cut.
const RETENTION_STEPS: i64 = 16;

/// What becomes of the rows of a series type. A type that nobody defined has the defaults.
///
/// ```
/// use underbelly::{Duplicates, SeriesDefinition};
/// let bars = SeriesDefinition::new("bars").duplicates(Duplicates::LastWins).skip_identical();
/// # let _ = bars;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesDefinition {
    /// The type.
    pub(crate) name: String,
    pub(crate) rules: Rules,
}

/// The same without the name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    pub duplicates: Duplicates,
    /// Whether an append leaves out rows that are there already, with all their values.
    pub skip_identical: bool,
    /// How long deleted and superseded rows are kept after the commit that hid them; zero is until the next checkpoint.
    pub history: Duration,
    /// How far rows may lie behind the newest; `None` where they stay.
    pub retention: Option<Duration>,
}

impl SeriesDefinition {
    /// A type with the defaults: all rows are kept.
    pub fn new(name: impl Into<String>) -> SeriesDefinition {
        SeriesDefinition { name: name.into(), rules: Rules::default() }
    }

    /// What becomes of rows with the same keys and timestamp. Default: all are kept.
    pub fn duplicates(mut self, duplicates: Duplicates) -> SeriesDefinition {
        self.rules.duplicates = duplicates;
        self
    }

    /// Has appends leave out each row that is there already: the same timestamp, keys and fields as a row that is shown, or as
    /// one before it in the transaction. Loading the same data again then changes nothing.
    pub fn skip_identical(mut self) -> SeriesDefinition {
        self.rules.skip_identical = true;
        self
    }

    /// How long rows that were deleted or superseded are kept for who asks
    /// [as known at](crate::View::as_known_at) a transaction before that; at most as far back as the feed keeps commit times, which
    /// is this long at least where its bytes allow that. Longer than 584 years is as long. Default: zero, until the next checkpoint that no snapshot needs them for.
    pub fn history(mut self, history: Duration) -> SeriesDefinition {
        self.rules.history = history.min(LONGEST);
        self
    }

    /// Rows whose timestamps lie further behind are deleted, at checkpoints: behind the newest row that is shown, or behind the clock where that
    /// is earlier, so that a row that is dated far ahead deletes nothing. A late row that lies behind goes with the next. Up to a
    /// sixteenth more is kept, so that few files are written anew. Default: rows stay. Zero is the same.
    pub fn retention(mut self, retention: Duration) -> SeriesDefinition {
        self.rules.retention = (retention > Duration::ZERO).then_some(retention.min(LONGEST));
        self
    }

    /// The type.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What becomes of rows with the same keys and timestamp.
    pub fn duplicates_policy(&self) -> Duplicates {
        self.rules.duplicates
    }

    /// How long rows that were deleted or superseded are kept.
    pub fn kept_history(&self) -> Duration {
        self.rules.history
    }

    /// How far rows may lie behind the newest; `None` where they stay.
    pub fn kept_rows(&self) -> Option<Duration> {
        self.rules.retention
    }

    /// Whether appends leave out rows that are there already.
    pub fn skips_identical(&self) -> bool {
        self.rules.skip_identical
    }
}

impl Rules {
    /// The instant before which rows are deleted, where the newest is at `newest`; `None` where they stay.
    pub(crate) fn kept_from(&self, now: Timestamp, newest: Timestamp) -> Option<Timestamp> {
        let retention = i64::try_from(self.retention?.as_nanos()).ok()?;
        let from = now.min(newest).0.checked_sub(retention)?;
        // Seldom another instant, so that the files about it are not written anew each time.
        let step = (retention / RETENTION_STEPS).max(1);
        Some(Timestamp(from.checked_sub(from.rem_euclid(step))?))
    }

    /// Whether appends look at the rows that are there.
    pub(crate) fn checks_appends(&self) -> bool {
        self.skip_identical || self.duplicates == Duplicates::Reject
    }

    /// Says whether a type that has these may have others.
    pub(crate) fn check_change(&self, series: &str, to: &Rules) -> Result<(), SchemaError> {
        if self.duplicates.resolves() && to.duplicates != self.duplicates {
            // Superseded rows are gone, or are not, as checkpoints had it.
            let (from, to) = (self.duplicates, to.duplicates);
            return Err(SchemaError::SeriesResolved { series: series.to_string(), from, to });
        }
        Ok(())
    }
}

impl std::fmt::Display for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "duplicates {}", self.duplicates)?;
        if self.skip_identical {
            write!(f, ", identical rows skipped")?;
        }
        if self.history > Duration::ZERO {
            write!(f, ", history {:?}", self.history)?;
        }
        self.retention.map_or(Ok(()), |retention| write!(f, ", retention {retention:?}"))
    }
}
