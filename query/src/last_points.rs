//! The newest row of each key, kept from one read to the next.
//!
//! What was found at one commit is caught up with the rows of the commits since: those alone are read. A row that is newer by
//! its time takes the place of its key's; a late one leaves it. Deletes since then take rows away that they hide, and what
//! stands in their place is searched for when it is asked for. Nothing is read before somebody asks.

use std::collections::BTreeMap;
use std::sync::Arc;

use underbelly_storage::{Column, Columns, Timestamp, Value};

use crate::gather::{append, taken};
use crate::key::{Selection, encode_value};
use crate::latest::{NewestRows, last_point, last_points, newest_rows};
use crate::timed::times;
use crate::{QueryError, Schema, Source, TIMESTAMP};

/// Keys that are kept at most; of a series with more nothing is.
const KEYS_MAX: usize = 1 << 20;

/// Rows of commits since that are looked at for the newest row of one key; where there are more it is searched for, as if
/// nothing were kept.
const ROWS_MAX: usize = 1 << 17;

/// Rows that no key has any more and that are kept beside as many as there are keys.
const STALE_MAX: usize = 1_024;

/// Keys that lost their rows and are searched for one by one; where there are more all is found anew.
const LOST_MAX: usize = 64;

/// Bytes of rows that are kept at most; of a series with more nothing is.
const BYTES_MAX: usize = 256 << 20;

/// The newest rows of a series, as far as they were asked for. They belong to one series: all sources that are given are this
/// one at some commit.
#[derive(Debug, Default)]
pub struct LastPoints {
    /// All rows up to this commit were looked at; 0 where nothing is known.
    seq: u64,
    /// The last commit up to this one that deleted rows.
    deleted: u64,
    schema: Schema,
    /// Whether each key that has rows is among `known`.
    is_complete: bool,
    /// By the keys as [`encode`](crate::key::encode) has them.
    known: BTreeMap<Box<[u8]>, Known>,
    /// The rows that `known` points to, and older ones: timestamps and the columns of the schema.
    times: Vec<i64>,
    columns: Vec<Column>,
}

/// What is known of a key.
#[derive(Clone, Copy, Debug)]
struct Known {
    row: u32,
    /// The commit of the row, or a later one that was looked at.
    seq: u64,
    /// Whether the row was deleted. It tells the key.
    is_lost: bool,
}

impl LastPoints {
    /// Nothing is known yet.
    pub fn new() -> LastPoints {
        LastPoints::default()
    }

    /// The newest row with these keys, as [`last_point`](crate::last_point) finds it. `forgotten` is the last commit of which
    /// deletes were done and are not among those of the source any more.
    ///
    /// # Errors
    /// As [`last_point`](crate::last_point).
    pub fn last_point(
        &mut self,
        source: &dyn Source,
        forgotten: u64,
        keys: &[(&str, Value)],
    ) -> Result<Option<Columns>, QueryError> {
        let Some(key) = key_of(source.schema(), keys) else { return last_point(source, keys) };
        if !self.catch_up(source, forgotten, ROWS_MAX)? {
            return last_point(source, keys);
        }
        let is_current = self.seq == source.seq();
        match self.known.get(&key) {
            Some(known) if !known.is_lost && known.seq <= source.seq() => {
                return self.rows_at(&[known.row]).map(Some);
            }
            None if is_current && self.is_complete => return Ok(None),
            _ => {}
        }
        let found = last_point(source, keys)?;
        if is_current {
            match &found {
                Some(row) if self.known.len() < KEYS_MAX => self.note(key, row, 0, self.seq)?,
                Some(_) => {}
                None => drop(self.known.remove(&key)),
            }
        }
        Ok(found)
    }

    /// The newest row of each key, as [`last_points`](crate::last_points) finds them; `forgotten` as for
    /// [`LastPoints::last_point`].
    ///
    /// # Errors
    /// As [`last_points`](crate::last_points).
    pub fn last_points(&mut self, source: &dyn Source, forgotten: u64) -> Result<Columns, QueryError> {
        if source.schema().keys().next().is_none() {
            return last_points(source);
        }
        let is_known = self.is_complete && self.catch_up(source, forgotten, usize::MAX)?;
        if !is_known || !self.is_complete {
            if source.seq() < self.seq {
                return last_points(source);
            }
            return self.fill(source, forgotten);
        }
        if self.known.values().filter(|known| known.is_lost).count() > LOST_MAX {
            return if self.seq == source.seq() { self.fill(source, forgotten) } else { last_points(source) };
        }
        self.search_lost(source)?;
        if !self.is_complete {
            return last_points(source);
        }
        let mut rows = Vec::with_capacity(self.known.len());
        for known in self.known.values() {
            if known.is_lost || known.seq > source.seq() {
                return last_points(source);
            }
            rows.push(known.row);
        }
        self.rows_at(&rows)
    }

    /// Looks at the rows and deletes of the commits since, up to `rows_max` rows. Whether what is known holds for the source:
    /// one of an older commit sees the same where nothing was deleted since, but for rows that came later.
    fn catch_up(&mut self, source: &dyn Source, forgotten: u64, rows_max: usize) -> Result<bool, QueryError> {
        let seq = source.seq();
        if seq < self.seq {
            return Ok(self.deleted <= seq && self.schema == *source.schema());
        }
        if self.schema != *source.schema() || forgotten > self.seq {
            self.clear(source, forgotten);
            return Ok(true);
        }
        if seq == self.seq {
            return Ok(true);
        }
        let mut rows = 0usize;
        for run in source.runs().iter().filter(|run| run.seq_max() > self.seq) {
            let zones = (0..run.groups()).map(|group| run.zone(group));
            rows += zones.filter(|zone| zone.seq_max > self.seq).map(|zone| zone.rows).sum::<usize>();
        }
        if rows > rows_max || !self.lose(source)? {
            // All keys are not forgotten for the sake of one.
            if self.is_complete && rows_max < usize::MAX {
                return Ok(false);
            }
            self.clear(source, forgotten);
            return Ok(true);
        }
        let NewestRows { keys, rows } = newest_rows(source, self.seq)?;
        self.deleted = self.deleted.max(source.tombstones().last_seq(seq));
        self.seq = seq;
        for (row, (key, row_seq)) in keys.into_iter().enumerate() {
            let is_newer = match self.known.get(&key) {
                // Of equal times that of the later commit is newer.
                Some(known) => !known.is_lost && self.times.get(known.row as usize) <= times(&rows).get(row),
                None => self.is_complete,
            };
            if is_newer && let Err(error) = self.note(key, &rows, row, row_seq) {
                // Those behind it were not looked at.
                *self = LastPoints::default();
                return Err(error);
            }
        }
        if self.known.len() > KEYS_MAX {
            self.clear(source, forgotten);
        }
        Ok(true)
    }

    /// Marks the rows that deletes since hide. False where there is too much to compare.
    fn lose(&mut self, source: &dyn Source) -> Result<bool, QueryError> {
        let tombstones = source.tombstones();
        if tombstones.last_seq(source.seq()) <= self.seq {
            return Ok(true);
        }
        let since = tombstones.between(self.seq, source.seq());
        if since.len().saturating_mul(self.known.len()) > ROWS_MAX {
            return Ok(false);
        }
        let column_of = |name: &str| {
            let at = self.schema.columns.iter().position(|column| &*column.name == name);
            at.and_then(|at| self.columns.get(at))
        };
        for known in self.known.values_mut().filter(|known| !known.is_lost) {
            let row = known.row as usize;
            let Some(ts) = self.times.get(row).copied() else { continue };
            for tombstone in since.iter().filter(|tombstone| tombstone.is_at(ts)) {
                let mut selection = Selection::Range(row..row + 1);
                for filter in tombstone.filters() {
                    selection = filter.apply(column_of(&filter.name), selection)?;
                }
                known.is_lost |= selection.len() > 0;
            }
        }
        Ok(true)
    }

    /// Searches for the newest rows of keys that lost theirs.
    fn search_lost(&mut self, source: &dyn Source) -> Result<(), QueryError> {
        if self.seq != source.seq() {
            return Ok(());
        }
        let lost = self.known.iter().filter(|(_, known)| known.is_lost);
        let lost: Vec<(Box<[u8]>, u32)> = lost.map(|(key, known)| (key.clone(), known.row)).collect();
        for (key, row) in lost {
            let columns = self.schema.columns.iter().zip(&self.columns);
            let keys = columns.filter(|(column, _)| column.key);
            let keys: Vec<(Arc<str>, Value)> =
                keys.map(|(column, values)| (column.name.clone(), values.get(row as usize))).collect();
            let named: Vec<(&str, Value)> =
                keys.iter().map(|(name, value)| (&**name, value.clone())).collect();
            match last_point(source, &named)? {
                Some(found) => self.note(key, &found, 0, self.seq)?,
                None => drop(self.known.remove(&key)),
            }
        }
        Ok(())
    }

    /// Finds the newest row of every key.
    fn fill(&mut self, source: &dyn Source, forgotten: u64) -> Result<Columns, QueryError> {
        self.clear(source, forgotten);
        let NewestRows { keys, rows } = newest_rows(source, 0)?;
        if keys.len() > KEYS_MAX || rows.byte_size() > BYTES_MAX {
            return Ok(rows);
        }
        self.times = times(&rows).to_vec();
        self.columns = rows.iter().skip(1).map(|(_, column)| column.clone()).collect();
        let known = |(row, (key, seq))| (key, Known { row, seq, is_lost: false });
        self.known = (0..).zip(keys).map(known).collect();
        self.is_complete = true;
        Ok(rows)
    }

    /// Nothing is known but what the source is.
    fn clear(&mut self, source: &dyn Source, forgotten: u64) {
        let (seq, schema) = (source.seq(), source.schema().clone());
        let columns = schema.columns.iter().map(|column| Column::new(column.column_type)).collect();
        let deleted = source.tombstones().last_seq(seq).max(forgotten);
        *self = LastPoints { seq, deleted, schema, columns, ..LastPoints::default() };
    }

    /// Keeps row `row` of `rows` as the newest of a key.
    fn note(&mut self, key: Box<[u8]>, rows: &Columns, row: usize, seq: u64) -> Result<(), QueryError> {
        if self.times.len() > 2 * self.known.len() + STALE_MAX {
            self.drop_stale()?;
        }
        if self.byte_size() + rows.byte_size() > BYTES_MAX {
            self.drop_stale()?;
            if self.byte_size() + rows.byte_size() > BYTES_MAX {
                *self = LastPoints::default();
                return Ok(());
            }
        }
        let (Some(ts), Ok(to)) = (times(rows).get(row), u32::try_from(self.times.len())) else {
            return Err(QueryError::TooManyRows { rows: self.times.len() });
        };
        for ((column, schema), from) in self.columns.iter_mut().zip(&self.schema.columns).zip(1..rows.width())
        {
            if let Err(error) = append(column, Some(rows.column_at(from)), row..row + 1, &schema.name) {
                // Some columns are longer than others now.
                *self = LastPoints::default();
                return Err(error);
            }
        }
        self.times.push(*ts);
        self.known.insert(key, Known { row: to, seq, is_lost: false });
        Ok(())
    }

    fn byte_size(&self) -> usize {
        self.columns.iter().map(Column::byte_size).sum()
    }

    /// Drops rows that no key has any more.
    fn drop_stale(&mut self) -> Result<(), QueryError> {
        let rows: Vec<u32> = self.known.values().map(|known| known.row).collect();
        let names = self.schema.columns.iter().map(|column| &column.name);
        let kept = names.zip(&self.columns).map(|(name, column)| taken(column, &rows, name));
        self.columns = kept.collect::<Result<_, _>>()?;
        self.times = rows.iter().filter_map(|row| self.times.get(*row as usize).copied()).collect();
        self.known.values_mut().zip(0..).for_each(|(known, row)| known.row = row);
        Ok(())
    }

    fn rows_at(&self, rows: &[u32]) -> Result<Columns, QueryError> {
        let at = rows.iter().filter_map(|row| self.times.get(*row as usize).copied().map(Timestamp));
        let mut columns = Columns::new().with(TIMESTAMP, Column::from(at.collect::<Vec<_>>()))?;
        for (schema, column) in self.schema.columns.iter().zip(&self.columns) {
            columns.insert(schema.name.clone(), taken(column, rows, &schema.name)?)?;
        }
        Ok(columns)
    }
}

/// The encoded key where each key column is named once, with a value of its type or null.
fn key_of(schema: &Schema, keys: &[(&str, Value)]) -> Option<Box<[u8]>> {
    let mut key = Vec::new();
    let mut named = 0;
    for column in schema.keys() {
        let mut values = keys.iter().filter(|(name, _)| *name == &*column.name);
        let (Some((_, value)), None) = (values.next(), values.next()) else { return None };
        if value.column_type().is_some_and(|found| found != column.column_type) {
            return None;
        }
        encode_value(value, &mut key);
        named += 1;
    }
    (named > 0 && named == keys.len()).then(|| key.into())
}
