//! Rows that were deleted and are still in the runs.

use std::collections::BTreeSet;
use std::sync::Arc;

use underbelly_storage::{Timestamp, Value};

use crate::budget::Budget;
use crate::gather::rows_taken;
use crate::group::{Group, Keys, Order, Place, Wanted};
use crate::interval::{Closed, Interval};
use crate::key::{Filter, Selection};
use crate::predicate::Test;
use crate::{MemoryRun, Predicate, QueryError, Run, Schema, Seqs, Zone};

/// Hides rows of earlier commits: those whose key columns have some values, whose timestamps lie in a range and whose columns
/// meet some predicates.
#[derive(Clone, Debug, PartialEq)]
pub struct Tombstone {
    seq: u64,
    interval: Interval,
    filters: Vec<Filter>,
    tests: Vec<Test>,
}

impl Tombstone {
    /// Hides rows with `from <= timestamp < to`, where an end that is not given does not limit the range, and with these
    /// values of key columns (null: without one); no key hides the rows of all keys. It belongs to no commit yet.
    ///
    /// # Errors
    /// [`QueryError::BadRange`] where `from` is after `to`; [`QueryError::UnknownColumn`], [`QueryError::NotKey`],
    /// [`QueryError::KeyType`] or [`QueryError::KeyPrecision`] where a key does not fit the schema.
    pub fn new(
        schema: &Schema,
        from: Option<Timestamp>,
        to: Option<Timestamp>,
        keys: &[(Arc<str>, Value)],
    ) -> Result<Tombstone, QueryError> {
        let filter = |(name, value): &(Arc<str>, Value)| Filter::new(schema, name, value.clone());
        let filters = keys.iter().map(filter).collect::<Result<_, _>>()?;
        let interval = Interval::new(from, to, Closed::Left)?;
        Ok(Tombstone { seq: 0, interval, filters, tests: Vec::new() })
    }

    /// The same for those rows alone that meet all of these predicates, which are compared with rows as they are stored.
    ///
    /// # Errors
    /// [`QueryError::UnknownColumn`], also for "timestamp", which the range is about, and [`QueryError::ValueType`] where a
    /// predicate does not fit the schema.
    pub fn matching(
        mut self,
        schema: &Schema,
        predicates: &[(Arc<str>, Predicate)],
    ) -> Result<Tombstone, QueryError> {
        for (name, predicate) in predicates {
            self.tests.push(Test::new(schema, name, predicate)?);
        }
        Ok(self)
    }

    /// The same where each predicate that asks for one of several values is taken apart, since what is stored compares with one:
    /// a tombstone for each combination of them, and none where there is none. A row is hidden by one of these at most.
    ///
    /// # Errors
    /// As [`Tombstone::matching`].
    pub fn matching_one_by_one(
        self,
        schema: &Schema,
        predicates: &[(Arc<str>, Predicate)],
    ) -> Result<Vec<Tombstone>, QueryError> {
        let tests = predicates.iter().map(|(name, predicate)| Test::new(schema, name, predicate));
        let tests = tests.map(|test| Ok(test?.one_by_one())).collect::<Result<Vec<_>, QueryError>>()?;
        if tests.iter().any(Vec::is_empty) {
            return Ok(Vec::new());
        }
        let mut tombstones = vec![self];
        for each in tests {
            let narrowed = tombstones.iter().flat_map(|tombstone| {
                each.iter().map(|test| {
                    let mut tombstone = tombstone.clone();
                    tombstone.tests.push(test.clone());
                    tombstone
                })
            });
            tombstones = narrowed.collect();
        }
        Ok(tombstones)
    }

    /// Says whether a schema has its keys, with the types of their values.
    ///
    /// # Errors
    /// As [`Tombstone::new`] for the keys.
    pub fn check(&self, schema: &Schema) -> Result<(), QueryError> {
        self.filters.iter().try_for_each(|filter| filter.check(schema))?;
        self.tests.iter().try_for_each(|test| Test::new(schema, &test.name, test.predicate()).map(drop))
    }

    /// Whether values beside keys and time say which rows it hides.
    pub fn is_by_values(&self) -> bool {
        !self.tests.is_empty()
    }

    /// The same as it was stored: `first` and `last` belong to the range.
    pub fn restored(seq: u64, first: Timestamp, last: Timestamp, keys: Vec<(Arc<str>, Value)>) -> Tombstone {
        let filters = keys.into_iter().map(|(name, value)| Filter::stored(name, value)).collect();
        Tombstone { seq, interval: Interval { first: first.0, last: last.0 }, filters, tests: Vec::new() }
    }

    /// The same with predicates as they were stored.
    pub fn with_predicates(mut self, predicates: Vec<(Arc<str>, Predicate)>) -> Tombstone {
        self.tests = predicates.into_iter().map(|(name, predicate)| Test::stored(name, predicate)).collect();
        self
    }

    /// The same of commit `seq`: rows of that commit and of later ones are not hidden.
    pub fn with_seq(mut self, seq: u64) -> Tombstone {
        self.seq = seq;
        self
    }

    /// The commit that it belongs to.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// First and last instant of its range; the first is after the last where the range is empty.
    pub fn range(&self) -> (Timestamp, Timestamp) {
        (Timestamp(self.interval.first), Timestamp(self.interval.last))
    }

    /// The key columns and their values.
    pub fn keys(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.filters.iter().map(|filter| (&*filter.name, &filter.value))
    }

    /// The predicates that rows have to meet.
    pub fn predicates(&self) -> impl Iterator<Item = (&str, &Predicate)> {
        self.tests.iter().map(|test| (&*test.name, test.predicate()))
    }

    pub(crate) fn filters(&self) -> &[Filter] {
        &self.filters
    }

    /// Whether an instant lies in its range.
    pub(crate) fn is_at(&self, ts: i64) -> bool {
        ts >= self.interval.first && ts <= self.interval.last
    }

    /// Whether it may hide rows of a group, as far as the zone tells.
    pub fn may_hide(&self, zone: &Zone) -> bool {
        zone.rows > 0
            && zone.seq_min < self.seq
            && zone.ts_max >= self.interval.first
            && zone.ts_min <= self.interval.last
    }

    /// Whether it hides all rows of a group, as far as the zone tells.
    pub fn hides_all(&self, zone: &Zone) -> bool {
        self.filters.is_empty()
            && self.tests.is_empty()
            && zone.seq_max < self.seq
            && zone.ts_min >= self.interval.first
            && zone.ts_max <= self.interval.last
    }

    /// Whether it hides no row of a group, as far as the zones of the columns tell.
    pub(crate) fn misses(&self, run: &dyn Run, group: usize, zone: &Zone) -> bool {
        self.filters.iter().any(|filter| {
            let (of_column, test) = (run.column_zone(group, &filter.name), filter.test());
            of_column.zip(test).is_some_and(|(of_column, test)| test.excludes(zone, &of_column))
        }) || self.tests.iter().any(|test| {
            run.column_zone(group, &test.name).is_some_and(|of_column| test.excludes(zone, &of_column))
        })
    }

    /// Takes the rows that it hides out of a selection, where it may hide some of the group. `seqs` are read where they
    /// are needed.
    pub(crate) fn apply<'r>(
        &self,
        keys: &mut Keys<'_, 'r>,
        timestamps: &[i64],
        seqs: &mut Option<Seqs<'r>>,
        selection: Selection,
    ) -> Result<Selection, QueryError> {
        let start = timestamps.partition_point(|ts| *ts < self.interval.first);
        let end = timestamps.partition_point(|ts| *ts <= self.interval.last).max(start);
        let mut hidden = selection.within(&(start..end));
        if keys.group.zone.seq_max >= self.seq && hidden.len() > 0 {
            let seqs = match seqs {
                Some(seqs) => seqs,
                None => seqs.insert(keys.group.seqs(&keys.rows)?),
            };
            hidden = hidden.filter(|row| seqs.get(row) < self.seq);
        }
        for filter in &self.filters {
            if hidden.len() == 0 {
                return Ok(selection);
            }
            hidden = keys.select(&filter.name, hidden, |column, rows| filter.apply(column, rows))?;
        }
        for test in &self.tests {
            if hidden.len() == 0 {
                return Ok(selection);
            }
            hidden = keys.select(&test.name, hidden, |column, rows| test.apply_to_any(column, rows))?;
        }
        Ok(selection.without(&hidden))
    }
}

/// Tombstones in order of the starts of their ranges, so that those over a group are found without a look at those that
/// begin after it, or at the first ones as far as all of them end before it. One that ends late has all behind it looked at.
/// Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Tombstones {
    by_first: Arc<[Arc<Tombstone>]>,
    /// For each the latest end among those up to it, which rises.
    latest_ends: Arc<[i64]>,
    seq_max: u64,
}

impl Tombstones {
    /// The tombstones in that order.
    pub fn new<'t>(tombstones: impl Iterator<Item = &'t Arc<Tombstone>>) -> Tombstones {
        let mut by_first: Vec<Arc<Tombstone>> = tombstones.cloned().collect();
        by_first.sort_by_key(|tombstone| tombstone.interval.first);
        let latest = |latest: &mut i64, tombstone: &Arc<Tombstone>| {
            *latest = tombstone.interval.last.max(*latest);
            Some(*latest)
        };
        let latest_ends = by_first.iter().scan(i64::MIN, latest).collect();
        let seq_max = by_first.iter().map(|tombstone| tombstone.seq).max().unwrap_or(0);
        Tombstones { by_first: by_first.into(), latest_ends, seq_max }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_first.is_empty()
    }

    /// The last commit up to `seq` that one belongs to; 0 where none does.
    pub(crate) fn last_seq(&self, seq: u64) -> u64 {
        if self.seq_max <= seq {
            return self.seq_max;
        }
        self.by_first.iter().map(|tombstone| tombstone.seq).filter(|of| *of <= seq).max().unwrap_or(0)
    }

    /// Those of commits behind `after`, up to `seq`.
    pub(crate) fn between(&self, after: u64, seq: u64) -> Vec<&Tombstone> {
        let tombstones = self.by_first.iter().map(|tombstone| &**tombstone);
        tombstones.filter(|tombstone| tombstone.seq > after && tombstone.seq <= seq).collect()
    }

    /// Those that may hide rows of a group, as far as the zone tells.
    pub(crate) fn over(&self, zone: &Zone) -> impl Iterator<Item = &Tombstone> {
        self.places_over(zone).filter_map(|place| self.by_first.get(place)).map(|tombstone| &**tombstone)
    }

    fn places_over(&self, zone: &Zone) -> impl Iterator<Item = usize> {
        let start = self.latest_ends.partition_point(|last| *last < zone.ts_min);
        let end = self.by_first.partition_point(|tombstone| tombstone.interval.first <= zone.ts_max);
        let may_hide = |place: &usize| self.by_first.get(*place).is_some_and(|t| t.may_hide(zone));
        (start..end).filter(may_hide)
    }

    /// Those that may hide rows of a run, as far as the zones of its groups tell.
    pub fn over_run(&self, run: &dyn Run) -> Vec<Arc<Tombstone>> {
        let zones = (0..run.groups()).map(|group| run.zone(group));
        let places: BTreeSet<usize> =
            zones.flat_map(|zone| self.places_over(&zone).collect::<Vec<_>>()).collect();
        places.into_iter().filter_map(|place| self.by_first.get(place)).cloned().collect()
    }

    /// Whether they hide all rows of a run, as far as the zones of its groups tell.
    pub fn hide_run(&self, run: &dyn Run) -> bool {
        let is_hidden = |zone: Zone| self.over(&zone).any(|tombstone| tombstone.hides_all(&zone));
        (0..run.groups()).map(|group| run.zone(group)).all(is_hidden)
    }
}

fn standing(tombstones: &[Arc<Tombstone>]) -> Wanted {
    Wanted {
        interval: Interval::ALL,
        after: 0,
        seq: u64::MAX,
        filters: Vec::new(),
        tests: Vec::new(),
        of_filters: Vec::new(),
        not_at: Vec::new(),
        only_at: None,
        columns: Vec::new(),
        tombstones: Tombstones::new(tombstones.iter()),
        order: Order::Time,
        budget: Budget::ALL,
    }
}

/// The number of rows of a run that are hidden. Groups that none may hide, as far as zones tell, are not read.
///
/// # Errors
/// Whatever the run's owner reports.
pub fn hidden_rows(run: &dyn Run, tombstones: &[Arc<Tombstone>]) -> Result<u64, QueryError> {
    let wanted = standing(tombstones);
    let place = Place { run, position: 0 };
    let mut hidden = 0u64;
    for group in 0..run.groups() {
        let zone = run.zone(group);
        let rows = match () {
            _ if wanted.hidden(&zone) => zone.rows,
            _ if wanted.holds_all(&zone) => 0,
            _ => zone.rows - wanted.selected(place, group)?,
        };
        hidden = hidden.saturating_add(rows as u64);
    }
    Ok(hidden)
}

impl MemoryRun {
    /// The rows that are not hidden.
    ///
    /// # Errors
    /// [`QueryError::ColumnType`] where a key does not fit the run.
    pub fn without(&self, tombstones: &[Arc<Tombstone>]) -> Result<MemoryRun, QueryError> {
        if self.rows() == 0 || !tombstones.iter().any(|tombstone| tombstone.may_hide(&self.zone())) {
            return Ok(self.clone());
        }
        let mut group = Group::new(Place { run: self, position: 0 }, 0)?;
        let whole = group.rows.clone();
        let selection = standing(tombstones).select(&mut group, whole)?.selection;
        if selection.len() == self.rows() {
            return Ok(self.clone());
        }
        let rows: Vec<u32> = selection.into_rows();
        let at = |row: &u32| *row as usize;
        let timestamps = rows.iter().filter_map(|row| self.timestamps().get(at(row)).copied()).collect();
        let seqs = rows.iter().map(|row| self.seqs().get(at(row))).collect();
        // Sorted already.
        MemoryRun::with_seqs(timestamps, seqs, rows_taken(self.columns(), &rows)?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use underbelly_storage::{Column, ColumnType, Columns};

    use super::*;
    use crate::SchemaColumn;

    fn schema() -> Schema {
        let column = |name: &str, column_type, key| SchemaColumn { name: name.into(), column_type, key };
        Schema { columns: vec![column("k", ColumnType::Utf8, true), column("x", ColumnType::I64, false)] }
    }

    /// Times 0 to 5, keys a and b by turns, seqs 1, 2, 3 and again.
    fn run() -> MemoryRun {
        let keys: Column = ["a", "b", "a", "b", "a", "b"].iter().collect();
        let columns = Columns::new().with("k", keys).unwrap();
        let columns = columns.with("x", Column::from(vec![0i64, 1, 2, 3, 4, 5])).unwrap();
        MemoryRun::with_seqs((0..6).collect(), vec![1, 2, 3, 1, 2, 3], columns).unwrap()
    }

    fn tombstone(seq: u64, from: Option<i64>, to: Option<i64>, key: Option<&str>) -> Tombstone {
        let keys: Vec<(Arc<str>, Value)> = key.iter().map(|key| ("k".into(), (*key).into())).collect();
        Tombstone::new(&schema(), from.map(Timestamp), to.map(Timestamp), &keys).unwrap().with_seq(seq)
    }

    #[test]
    fn hidden_rows_are_earlier_within_the_range_and_of_the_key() {
        let cases = [
            (tombstone(9, None, None, None), vec![]),
            (tombstone(1, None, None, None), vec![0, 1, 2, 3, 4, 5]),
            (tombstone(3, None, None, None), vec![2, 5]),
            (tombstone(9, Some(1), Some(4), None), vec![0, 4, 5]),
            (tombstone(9, None, None, Some("a")), vec![1, 3, 5]),
            (tombstone(3, Some(1), None, Some("b")), vec![0, 2, 4, 5]),
            (tombstone(9, Some(3), Some(3), None), vec![0, 1, 2, 3, 4, 5]),
            (tombstone(9, None, None, Some("c")), vec![0, 1, 2, 3, 4, 5]),
        ];
        for (tombstone, left) in cases {
            let (first, last) = tombstone.range();
            let keys = tombstone.keys().map(|(name, value)| (name.into(), value.clone())).collect();
            assert_eq!(Tombstone::restored(tombstone.seq(), first, last, keys), tombstone);
            let tombstone = Arc::new(tombstone);
            let kept = run().without(std::slice::from_ref(&tombstone)).unwrap();
            assert_eq!(kept.columns().i64s("x").unwrap(), left, "{tombstone:?}");
            let seqs: Vec<u64> = (0..kept.rows()).map(|row| kept.seqs().get(row)).collect();
            let expected: Vec<u64> = left.iter().map(|x| [1, 2, 3][*x as usize % 3]).collect();
            assert_eq!(seqs, expected);
            assert_eq!(hidden_rows(&run(), &[tombstone]).unwrap(), 6 - left.len() as u64);
        }
        let two = [tombstone(9, None, None, Some("a")), tombstone(9, Some(5), None, None)].map(Arc::new);
        assert_eq!(run().without(&two).unwrap().columns().i64s("x").unwrap(), [1, 3]);
    }

    #[test]
    fn what_does_not_fit_the_schema_is_refused() {
        let new = |name: &str, value: Value| Tombstone::new(&schema(), None, None, &[(name.into(), value)]);
        assert!(matches!(new("z", "a".into()), Err(QueryError::UnknownColumn { .. })));
        assert!(matches!(new("x", 1i64.into()), Err(QueryError::NotKey { .. })));
        assert!(matches!(new("k", 1i64.into()), Err(QueryError::KeyType { .. })));
        assert!(new("k", Value::Null).is_ok());
        // Rounded, it would be the key beside it.
        let large = Schema {
            columns: vec![SchemaColumn { name: "k".into(), column_type: ColumnType::F64, key: true }],
        };
        let new = |value: i64| Tombstone::new(&large, None, None, &[("k".into(), value.into())]);
        for held in [0, -7, -(1 << 53), (1 << 53) + 2, 1 << 60, i64::MIN] {
            assert_eq!(new(held).unwrap().keys().next().unwrap().1, &Value::F64(held as f64));
        }
        for beyond in [(1 << 53) + 1, -(1 << 53) - 1, (1 << 60) + 1, i64::MAX] {
            let error = new(beyond).unwrap_err();
            assert!(matches!(error, QueryError::KeyPrecision { value, .. } if value == beyond), "{error}");
            assert!(error.to_string().contains("\"k\"") && error.to_string().contains(&beyond.to_string()));
        }
        // A field is no key, whatever it is asked for by.
        let field = Schema {
            columns: large.columns.iter().cloned().map(|c| SchemaColumn { key: false, ..c }).collect(),
        };
        for value in [1, (1_i64 << 53) + 1] {
            let error = Tombstone::new(&field, None, None, &[("k".into(), value.into())]).unwrap_err();
            assert!(matches!(error, QueryError::NotKey { .. }), "{error}");
        }
        let range = Tombstone::new(&schema(), Some(Timestamp(2)), Some(Timestamp(1)), &[]);
        assert!(matches!(range, Err(QueryError::BadRange { .. })));
    }
}
