//! One group of a run: found by its zone, read, filtered.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use underbelly_storage::{Column, Value};

use crate::gather::{fitted, taken};
use crate::interval::Interval;
use crate::key::{Filter, Selection};
use crate::merge::Ordered;
use crate::predicate::Test;
use crate::tombstone::Tombstones;
use crate::{QueryError, Run, SchemaColumn, Seqs, Source, TIMESTAMP, Tombstone, Zone};

/// What is asked of each group.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Timestamps of the rows.
    pub(crate) interval: Interval,
    /// Rows of this commit and those before it do not pass; 0 where all do.
    pub(crate) after: u64,
    /// Largest visible sequence number.
    pub(crate) seq: u64,
    /// All must hold.
    pub(crate) filters: Vec<Filter>,
    /// All must hold.
    pub(crate) tests: Vec<Test>,
    /// The same as the filters, to be compared with zones.
    pub(crate) of_filters: Vec<Test>,
    /// Instants at which no row passes.
    pub(crate) not_at: Vec<i64>,
    /// Columns of the result in their order, without the timestamp.
    pub(crate) columns: Vec<SchemaColumn>,
    /// What hides rows.
    pub(crate) tombstones: Tombstones,
}

/// Which rows of a group to keep where no more than some number can be used.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Keep {
    First(usize),
    Last(usize),
}

/// A group's rows that pass, before their columns are read.
pub(crate) struct Selected<'r> {
    pub(crate) timestamps: Cow<'r, [i64]>,
    /// Read where visibility needed them.
    pub(crate) seqs: Option<Seqs<'r>>,
    pub(crate) selection: Selection,
}

/// Rows of a group, ready to be merged. `rows` of each vector are not yet used.
pub(crate) struct OpenGroup<'r> {
    pub(crate) timestamps: Cow<'r, [i64]>,
    pub(crate) seqs: Seqs<'r>,
    /// In the order of [`Wanted::columns`] and of their types; `None` stands for nulls.
    pub(crate) columns: Vec<Option<Cow<'r, Column>>>,
    pub(crate) rows: Range<usize>,
}

impl OpenGroup<'_> {
    /// The rows as places in the order of all rows.
    pub(crate) fn ordered(&self, run: usize) -> Ordered<'_> {
        Ordered { timestamps: &self.timestamps, seqs: &self.seqs, run }
    }
}

/// A run and its position in the source.
#[derive(Clone, Copy)]
pub(crate) struct Place<'r> {
    pub(crate) run: &'r dyn Run,
    pub(crate) position: usize,
}

/// The columns of a group that decide which rows pass, each read once.
pub(crate) struct Keys<'r> {
    pub(crate) place: Place<'r>,
    pub(crate) group: usize,
    pub(crate) zone: Zone,
    read: Vec<(Arc<str>, Option<Cow<'r, Column>>)>,
}

impl Keys<'_> {
    /// A column; `None` where the run lacks it.
    pub(crate) fn column(&mut self, name: &Arc<str>) -> Result<Option<&Column>, QueryError> {
        let at = match self.read.iter().position(|(known, _)| known == name) {
            Some(at) => at,
            None => {
                let column = self.place.column(self.group, &self.zone, name)?;
                self.read.push((name.clone(), column));
                self.read.len() - 1
            }
        };
        Ok(self.read.get(at).and_then(|(_, column)| column.as_deref()))
    }
}

impl Wanted {
    /// What is asked of a source, once its schema agrees. No projection means all columns.
    pub(crate) fn new(
        source: &dyn Source,
        interval: Interval,
        keys: &[(Arc<str>, Value)],
        projection: Option<&[Arc<str>]>,
    ) -> Result<Wanted, QueryError> {
        let (schema, seq) = (source.schema(), source.seq());
        if schema.columns.iter().any(|c| &*c.name == TIMESTAMP) {
            return Err(QueryError::ReservedColumn);
        }
        let filters: Vec<Filter> = keys
            .iter()
            .map(|(name, value)| Filter::new(schema, name, value.clone()))
            .collect::<Result<_, _>>()?;
        let of_filter = |filter: &Filter| Test::new(schema, &filter.name, &filter.predicate());
        let of_filters = filters.iter().map(of_filter).collect::<Result<_, _>>()?;
        let columns = match projection {
            None => schema.columns.clone(),
            Some(names) => names
                .iter()
                .filter(|name| &***name != TIMESTAMP)
                .map(|name| schema.column(name).cloned())
                .collect::<Result<_, _>>()?,
        };
        let (tests, not_at, tombstones) = (Vec::new(), Vec::new(), source.tombstones());
        Ok(Wanted { interval, after: 0, seq, filters, tests, of_filters, not_at, columns, tombstones })
    }

    /// The groups of a run whose zones overlap the interval.
    pub(crate) fn groups(&self, run: &dyn Run) -> Range<usize> {
        if self.interval.is_empty() {
            return 0..0;
        }
        let start = first_group(0..run.groups(), |group| run.zone(group).ts_max >= self.interval.first);
        let end = first_group(start..run.groups(), |group| run.zone(group).ts_min > self.interval.last);
        start..end
    }

    /// Whether a group has no visible row.
    pub(crate) fn hidden(&self, zone: &Zone) -> bool {
        let is_gone = || self.hiding(zone).any(|tombstone| tombstone.hides_all(zone));
        let is_older = self.after > 0 && zone.seq_max <= self.after;
        zone.rows == 0 || zone.seq_min > self.seq || is_older || is_gone()
    }

    /// Whether no row of a group passes, as far as zones tell.
    pub(crate) fn passes_none(&self, run: &dyn Run, group: usize, zone: &Zone) -> bool {
        let excludes = |test: &Test| {
            run.column_zone(group, &test.name).is_some_and(|of_column| test.excludes(zone, &of_column))
        };
        self.hidden(zone) || self.tests.iter().chain(&self.of_filters).any(excludes)
    }

    /// The tombstones that may hide rows of a group, as far as the zone tells.
    fn hiding(&self, zone: &Zone) -> impl Iterator<Item = &Tombstone> {
        self.tombstones.over(zone).filter(|tombstone| tombstone.seq() <= self.seq)
    }

    /// Whether all rows of a group pass, as far as the zone tells.
    pub(crate) fn holds_all(&self, zone: &Zone) -> bool {
        self.filters.is_empty()
            && self.tests.is_empty()
            && zone.seq_max <= self.seq
            && (self.after == 0 || zone.seq_min > self.after)
            && zone.ts_min >= self.interval.first
            && zone.ts_max <= self.interval.last
            && self.not_at.iter().all(|at| *at < zone.ts_min || *at > zone.ts_max)
            && self.hiding(zone).next().is_none()
    }

    /// Reads timestamps, and sequence numbers and keys where they decide, and selects the rows that pass.
    pub(crate) fn select<'r>(&self, place: Place<'r>, group: usize) -> Result<Selected<'r>, QueryError> {
        let zone = place.run.zone(group);
        if u32::try_from(zone.rows).is_err() {
            return Err(QueryError::TooManyRows { rows: zone.rows });
        }
        let timestamps = place.timestamps(group, &zone)?;
        let start = timestamps.partition_point(|ts| *ts < self.interval.first);
        let end = timestamps.partition_point(|ts| *ts <= self.interval.last).max(start);
        let mut selection = Selection::Range(start..end);
        let mut seqs = None;
        let mut keys = Keys { place, group, zone, read: Vec::new() };
        let has_older = self.after > 0 && zone.seq_min <= self.after;
        if (zone.seq_max > self.seq || has_older) && selection.len() > 0 {
            let read = place.seqs(group, &zone)?;
            selection = match &read {
                Seqs::One(seq) if *seq <= self.seq && (self.after == 0 || *seq > self.after) => selection,
                Seqs::One(_) => Selection::Range(0..0),
                Seqs::Each(seqs) => {
                    let is_newer = |seq: u64| self.after == 0 || seq > self.after;
                    selection.filter(|row| seqs[row] <= self.seq && is_newer(seqs[row]))
                }
            };
            seqs = Some(read);
        }
        for at in &self.not_at {
            let same = timestamps.partition_point(|ts| ts < at)..timestamps.partition_point(|ts| ts <= at);
            selection = match same.is_empty() {
                true => selection,
                false => selection.filter(|row| !same.contains(&row)),
            };
        }
        for filter in &self.filters {
            if selection.len() == 0 {
                break;
            }
            selection = filter.apply(keys.column(&filter.name)?, selection)?;
        }
        for test in &self.tests {
            if selection.len() == 0 {
                break;
            }
            selection = test.apply(keys.column(&test.name)?, selection)?;
        }
        for tombstone in self.hiding(&zone) {
            if selection.len() == 0 {
                break;
            }
            if tombstone.misses(place.run, group, &zone) {
                continue;
            }
            selection = tombstone.apply(&mut keys, &timestamps, &mut seqs, selection)?;
        }
        Ok(Selected { timestamps, seqs, selection })
    }

    /// Opens a group: selects its rows and reads the columns asked for; `None` where no row passes.
    ///
    /// Sequence numbers are read only where `tied` says, given the first and the last timestamp selected, that
    /// another run may have rows among these; without them all stand as 0.
    pub(crate) fn open<'r>(
        &self,
        place: Place<'r>,
        group: usize,
        keep: Keep,
        tied: impl FnOnce(i64, i64) -> bool,
    ) -> Result<Option<OpenGroup<'r>>, QueryError> {
        let Selected { timestamps, seqs, selection } = self.select(place, group)?;
        let selection = match keep {
            Keep::First(n) => selection.first(n),
            Keep::Last(n) => selection.last(n),
        };
        let (first, last) = match &selection {
            Selection::Range(rows) if rows.is_empty() => return Ok(None),
            Selection::Range(rows) => (rows.start, rows.end - 1),
            Selection::Rows(rows) => match (rows.first(), rows.last()) {
                (Some(first), Some(last)) => (*first as usize, *last as usize),
                _ => return Ok(None),
            },
        };
        let zone = place.run.zone(group);
        let seqs = match seqs {
            Some(seqs) => seqs,
            None if tied(timestamps[first], timestamps[last]) => place.seqs(group, &zone)?,
            None => Seqs::One(0),
        };
        let picked = match &selection {
            Selection::Range(_) => None,
            Selection::Rows(rows) => Some(rows.as_slice()),
        };
        let columns = self.read(place, group, &zone, picked)?;
        Ok(Some(match selection {
            Selection::Range(rows) => OpenGroup { timestamps, seqs, columns, rows },
            Selection::Rows(rows) => OpenGroup {
                timestamps: rows.iter().map(|row| timestamps[*row as usize]).collect(),
                seqs: match seqs {
                    Seqs::One(seq) => Seqs::One(seq),
                    Seqs::Each(seqs) => Seqs::Each(rows.iter().map(|row| seqs[*row as usize]).collect()),
                },
                columns,
                rows: 0..rows.len(),
            },
        }))
    }

    /// Reads the columns asked for, all rows of the group or those at `picked`.
    pub(crate) fn read<'r>(
        &self,
        place: Place<'r>,
        group: usize,
        zone: &Zone,
        picked: Option<&[u32]>,
    ) -> Result<Vec<Option<Cow<'r, Column>>>, QueryError> {
        let mut columns = Vec::with_capacity(self.columns.len());
        for SchemaColumn { name, column_type, .. } in &self.columns {
            let column = match (place.column(group, zone, name)?, picked) {
                (Some(column), Some(rows)) => Some(Cow::Owned(taken(&column, rows, name)?)),
                (column, _) => column,
            };
            columns.push(column.map(|column| fitted(column, *column_type, name)).transpose()?);
        }
        Ok(columns)
    }
}

impl<'r> Place<'r> {
    /// A group's timestamps, as many as its zone announced.
    pub(crate) fn timestamps(&self, group: usize, zone: &Zone) -> Result<Cow<'r, [i64]>, QueryError> {
        let timestamps = self.run.timestamps(group)?;
        self.announced(group, TIMESTAMP, zone, timestamps.len())?;
        Ok(timestamps)
    }

    /// A group's sequence numbers, as many as its zone announced.
    pub(crate) fn seqs(&self, group: usize, zone: &Zone) -> Result<Seqs<'r>, QueryError> {
        if zone.seq_min == zone.seq_max {
            return Ok(Seqs::One(zone.seq_min));
        }
        let seqs = self.run.seqs(group)?;
        if let Seqs::Each(seqs) = &seqs {
            self.announced(group, "the sequence numbers", zone, seqs.len())?;
        }
        Ok(seqs)
    }

    /// A group's column, as long as its zone announced.
    pub(crate) fn column(
        &self,
        group: usize,
        zone: &Zone,
        name: &str,
    ) -> Result<Option<Cow<'r, Column>>, QueryError> {
        let column = self.run.column(group, name)?;
        if let Some(column) = &column {
            self.announced(group, name, zone, column.len())?;
        }
        Ok(column)
    }

    fn announced(&self, group: usize, what: &str, zone: &Zone, found: usize) -> Result<(), QueryError> {
        if found == zone.rows {
            return Ok(());
        }
        let what = what.to_string();
        Err(QueryError::Malformed { run: self.position, group, what, expected: zone.rows, found })
    }
}

/// The first group for which `found` holds, which then holds for all after it; the end of `groups` where none.
fn first_group(mut groups: Range<usize>, found: impl Fn(usize) -> bool) -> usize {
    while !groups.is_empty() {
        let middle = groups.start + groups.len() / 2;
        if found(middle) { groups.end = middle } else { groups.start = middle + 1 }
    }
    groups.start
}
