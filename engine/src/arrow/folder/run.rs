//! The record batches of a folder as runs: each batch is a group, and those that follow each other in time are a run.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use underbelly_query::{QueryError, Run, Schema, Seqs, Zone};
use underbelly_storage::{Column, ColumnType, LogicalTypes, Timestamp, Values};

use super::FolderError;
use super::file::{FolderFile, Time};

/// What all runs of a folder share.
pub(super) struct Contents {
    pub(super) files: Vec<FolderFile>,
    pub(super) time: Time,
    pub(super) schema: Schema,
    /// What columns hold, where that is not what is stored.
    pub(super) types: LogicalTypes,
}

/// In which order the rows of a file come; `None` where that is the order of the file.
type RowOrder = Option<Arc<[u32]>>;

/// A record batch with rows.
pub(super) struct Group {
    file: usize,
    batch: usize,
    /// Rows of the file before it.
    before: u64,
    zone: Zone,
    /// Whether its rows are in the order of time in the file, as far as somebody has looked.
    is_sorted: OnceLock<bool>,
}

impl Contents {
    /// All record batches with rows, in the order of the files. What a file does not tell of times is read.
    pub(super) fn groups(&self) -> Result<Vec<Group>, FolderError> {
        let mut groups: Vec<Group> = Vec::new();
        for (number, file) in self.files.iter().enumerate() {
            let mut before = 0;
            for batch in 0..file.batches() {
                let rows = file.rows(batch);
                if rows == 0 {
                    continue;
                }
                let is_sorted = OnceLock::new();
                let (ts_min, ts_max) = match self.time.bounds(file, batch) {
                    Some(bounds) => bounds,
                    None => {
                        let times = self.time.read(file, batch, before)?;
                        let _ = is_sorted.set(times.is_sorted());
                        let min = times.iter().min().copied().unwrap_or(0);
                        (min, times.iter().max().copied().unwrap_or(0))
                    }
                };
                // Rows of one instant come in the order of the files and of their rows.
                let seq = groups.len() as u64 + 1;
                let zone = Zone { rows, ts_min, ts_max, seq_min: seq, seq_max: seq };
                groups.push(Group { file: number, batch, before, zone, is_sorted });
                before += rows as u64;
            }
        }
        Ok(groups)
    }

    /// Refuses groups of which more than `limit` bytes may be in memory at a time: those whose times overlap.
    pub(super) fn check_overlap(&self, groups: &[Group], limit: u64) -> Result<(), FolderError> {
        let mut by_start: Vec<&Group> = groups.iter().collect();
        by_start.sort_by_key(|group| group.zone.ts_min);
        let mut open: BinaryHeap<Reverse<(i64, u64)>> = BinaryHeap::new();
        let mut bytes = 0u64;
        for group in by_start {
            while let Some(Reverse((end, of_group))) = open.peek().copied() {
                if end >= group.zone.ts_min {
                    break;
                }
                open.pop();
                bytes -= of_group;
            }
            let Some(file) = self.files.get(group.file) else { continue };
            let of_group = file.bytes_of(group.batch).min(u64::MAX / 2 - bytes.min(u64::MAX / 2));
            bytes += of_group;
            open.push(Reverse((group.zone.ts_max, of_group)));
            if bytes > limit {
                let (path, row, at) = (file.path.clone(), group.before + 1, Timestamp(group.zone.ts_min));
                return Err(FolderError::Overlap { path, row, at, batches: open.len(), bytes, limit });
            }
        }
        Ok(())
    }

    fn file_of(&self, group: &Group) -> Result<&FolderFile, QueryError> {
        self.files.get(group.file).ok_or_else(|| failed(self.changed(group)))
    }

    fn changed(&self, group: &Group) -> FolderError {
        let path = self.files.get(group.file).map(|file| file.path.clone()).unwrap_or_default();
        FolderError::Changed { path, what: "its rows are not those that it told" }
    }
}

fn failed(error: FolderError) -> QueryError {
    QueryError::Source(Box::new(error))
}

/// As few runs as hold all groups, so that in each of them groups follow each other in time.
pub(super) fn runs(contents: &Arc<Contents>, mut groups: Vec<Group>) -> Vec<Arc<dyn Run>> {
    groups.sort_by_key(|group| (group.zone.ts_min, group.zone.seq_min));
    let mut runs: Vec<Vec<Group>> = Vec::new();
    // The last time and seq of each run.
    let mut ends: BTreeMap<(i64, u64), usize> = BTreeMap::new();
    for group in groups {
        let Zone { ts_min, ts_max, seq_min, .. } = group.zone;
        let before = ends.range(..(ts_min, seq_min)).next_back().map(|(end, run)| (*end, *run));
        let run = match before {
            Some((end, run)) => {
                ends.remove(&end);
                run
            }
            None => {
                runs.push(Vec::new());
                runs.len() - 1
            }
        };
        ends.insert((ts_max, seq_min), run);
        if let Some(run) = runs.get_mut(run) {
            run.push(group);
        }
    }
    let run = |groups| Arc::new(FolderRun { contents: contents.clone(), groups, order: Mutex::default() });
    runs.into_iter().map(|groups| run(groups) as Arc<dyn Run>).collect()
}

/// Record batches that follow each other in time.
struct FolderRun {
    contents: Arc<Contents>,
    groups: Vec<Group>,
    /// Of the group that was read last, and whose rows are not in the order of time in the file: that order.
    order: Mutex<Option<(usize, Arc<[u32]>)>>,
}

impl FolderRun {
    fn group(&self, group: usize) -> Result<(&Group, &FolderFile), QueryError> {
        let found = self.groups.get(group).ok_or_else(|| QueryError::Malformed {
            run: 0,
            group,
            what: "the record batches".to_string(),
            expected: self.groups.len(),
            found: group,
        })?;
        Ok((found, self.contents.file_of(found)?))
    }

    /// The times of a group as they stand in the file, and their order where they are in none.
    fn times(&self, number: usize) -> Result<(Vec<i64>, RowOrder), QueryError> {
        let (group, file) = self.group(number)?;
        let times = self.contents.time.read(file, group.batch, group.before).map_err(failed)?;
        let Zone { rows, ts_min, ts_max, .. } = group.zone;
        if times.len() != rows || times.iter().any(|ts| *ts < ts_min || *ts > ts_max) {
            return Err(failed(self.contents.changed(group)));
        }
        if times.is_sorted() {
            let _ = group.is_sorted.set(true);
            return Ok((times, None));
        }
        let _ = group.is_sorted.set(false);
        let end = u32::try_from(rows).map_err(|_| QueryError::TooManyRows { rows })?;
        let mut order: Vec<u32> = (0..end).collect();
        order.sort_by_key(|row| times.get(*row as usize));
        let order: Arc<[u32]> = order.into();
        *self.order.lock().unwrap_or_else(PoisonError::into_inner) = Some((number, order.clone()));
        Ok((times, Some(order)))
    }

    /// In which order the rows of a group come; `None` where that is the order of the file.
    fn order(&self, number: usize) -> Result<RowOrder, QueryError> {
        if self.group(number)?.0.is_sorted.get() == Some(&true) {
            return Ok(None);
        }
        let known = self.order.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match known {
            Some((of, order)) if of == number => Ok(Some(order)),
            _ => Ok(self.times(number)?.1),
        }
    }

    /// Refuses what a series would refuse of a column.
    fn check(&self, group: &Group, file: &FolderFile, name: &str, column: &Column) -> Result<(), QueryError> {
        let schema = self.contents.schema.column(name)?;
        let place = |row: usize| (file.path.clone(), name.to_string(), group.before + row as u64 + 1);
        let is_nan = |row: &usize| match column.values() {
            Values::F64(v) => !column.is_null(*row) && v.get(*row).is_some_and(|v| v.is_nan()),
            Values::F32(v) => !column.is_null(*row) && v.get(*row).is_some_and(|v| v.is_nan()),
            _ => false,
        };
        if schema.key
            && let Some(row) = (0..column.len()).find(is_nan)
        {
            let (path, column, row) = place(row);
            return Err(failed(FolderError::NanKey { path, column, row }));
        }
        if column.column_type() == ColumnType::I64
            && schema.column_type == ColumnType::F64
            && !column.fits_f64()
        {
            let row = (0..column.len()).find(|row| !column.slice(*row..*row + 1).fits_f64());
            let (path, column, row) = place(row.unwrap_or(0));
            return Err(failed(FolderError::Precision { path, column, row }));
        }
        Ok(())
    }
}

impl Run for FolderRun {
    fn groups(&self) -> usize {
        self.groups.len()
    }

    fn zone(&self, group: usize) -> Zone {
        self.groups.get(group).map(|group| group.zone).unwrap_or_default()
    }

    fn timestamps(&self, group: usize) -> Result<Cow<'_, [i64]>, QueryError> {
        let (mut times, order) = self.times(group)?;
        if order.is_some() {
            times.sort_unstable();
        }
        Ok(times.into())
    }

    fn seqs(&self, group: usize) -> Result<Seqs<'_>, QueryError> {
        Ok(Seqs::One(self.zone(group).seq_min))
    }

    fn column(&self, number: usize, name: &str) -> Result<Option<Cow<'_, Column>>, QueryError> {
        let (group, file) = self.group(number)?;
        let Some(column) = file.column(group.batch, name).map_err(failed)? else { return Ok(None) };
        if column.len() != group.zone.rows {
            return Err(failed(self.contents.changed(group)));
        }
        self.check(group, file, name, &column)?;
        let Some(order) = self.order(number)? else { return Ok(Some(Cow::Owned(column))) };
        let sorted = column.take(&order);
        sorted
            .map(|column| Some(Cow::Owned(column)))
            .ok_or_else(|| QueryError::TooLarge { column: name.to_string() })
    }
}
