//! Runs in memory: the rows of young commits.

use std::borrow::Cow;
use std::sync::Arc;

use underbelly_storage::{Column, ColumnType, Columns};

use crate::gather::{append, fitted, rows_taken};
use crate::merge::{Head, Heads, Ordered, STRETCHES_MAX, Stretch};
use crate::{QueryError, Run, Schema, Seqs, TIMESTAMP, Zone};

/// Rows in memory, sorted by (timestamp, seq, arrival): one group, or none where there is no row.
#[derive(Clone, Debug)]
pub struct MemoryRun {
    timestamps: Vec<i64>,
    seqs: Seqs<'static>,
    /// Without the timestamp; as long as `timestamps` where there is a column.
    columns: Columns,
    zone: Zone,
}

impl MemoryRun {
    /// The rows of commit `seq` in order of arrival: timestamps (nanoseconds since 1970 UTC) and as many rows of
    /// columns. Rows that are not in order of time are sorted; equal timestamps stay in order of arrival.
    ///
    /// # Errors
    /// [`QueryError::Columns`] where the lengths differ, [`QueryError::ReservedColumn`] where a column is named
    /// "timestamp", [`QueryError::TooManyRows`] above 2^32 - 1 rows.
    pub fn new(timestamps: Vec<i64>, columns: Columns, seq: u64) -> Result<MemoryRun, QueryError> {
        let rows = timestamps.len();
        if columns.index_of(TIMESTAMP).is_some() {
            return Err(QueryError::ReservedColumn);
        }
        if let Some((name, column)) = columns.iter().find(|(_, column)| column.len() != rows) {
            return Err(QueryError::Columns(underbelly_storage::ColumnError::Length {
                column: name.to_string(),
                expected: rows,
                found: column.len(),
            }));
        }
        let Ok(row_end) = u32::try_from(rows) else {
            return Err(QueryError::TooManyRows { rows });
        };
        let (timestamps, columns) = if timestamps.is_sorted() {
            (timestamps, columns)
        } else {
            let mut order: Vec<u32> = (0..row_end).collect();
            order.sort_by_key(|row| timestamps[*row as usize]);
            (order.iter().map(|row| timestamps[*row as usize]).collect(), rows_taken(&columns, &order)?)
        };
        Ok(MemoryRun::sorted(timestamps, Seqs::One(seq), columns))
    }

    /// Rows of several commits in order of commit and arrival, each with its seq.
    ///
    /// # Errors
    /// As [`MemoryRun::new`]; [`QueryError::Malformed`] where there are more or fewer seqs than rows.
    pub fn with_seqs(
        timestamps: Vec<i64>,
        seqs: Vec<u64>,
        columns: Columns,
    ) -> Result<MemoryRun, QueryError> {
        if seqs.len() != timestamps.len() {
            let (expected, found) = (timestamps.len(), seqs.len());
            return Err(QueryError::Malformed { run: 0, group: 0, what: "seq".to_string(), expected, found });
        }
        let seqs = match timestamps.is_sorted() {
            true => seqs,
            false => {
                let mut order: Vec<usize> = (0..seqs.len()).collect();
                order.sort_by_key(|row| timestamps.get(*row));
                order.into_iter().filter_map(|row| seqs.get(row).copied()).collect()
            }
        };
        // Sorted in the same way, since both sorts keep the order of equal timestamps.
        let run = MemoryRun::new(timestamps, columns, 0)?;
        Ok(MemoryRun::sorted(run.timestamps, Seqs::Each(Cow::Owned(seqs)), run.columns))
    }

    /// The same rows as those of commit `seq`.
    pub fn with_seq(mut self, seq: u64) -> MemoryRun {
        self.seqs = Seqs::One(seq);
        self.zone.seq_min = seq;
        self.zone.seq_max = seq;
        self
    }

    /// The rows of all runs in one, for runs in commit order: sorted by (timestamp, seq, order of the runs,
    /// position in the run). It has every column that one of them has; where a run lacks it stand nulls, and
    /// numbers are widened where runs hold several types.
    ///
    /// # Errors
    /// [`QueryError::ColumnType`] where runs disagree otherwise, [`QueryError::TooLarge`] where a column would
    /// pass 4 GiB of text.
    pub fn merge(runs: &[Arc<MemoryRun>]) -> Result<MemoryRun, QueryError> {
        let runs: Vec<&MemoryRun> = runs.iter().map(|run| &**run).collect();
        if let [run] = runs[..] {
            return Ok(run.clone());
        }
        let rows = runs.iter().map(|run| run.rows()).sum();
        let types = column_types(&runs)?;
        let parts = types
            .iter()
            .map(|(name, column_type)| parts(&runs, name, *column_type))
            .collect::<Result<Vec<_>, _>>()?;
        let mut timestamps = Vec::with_capacity(rows);
        let mut seqs = Vec::new();
        let one_seq = one_seq(&runs);
        let mut merged: Vec<Column> = types.iter().map(|(_, t)| Column::with_capacity(*t, rows)).collect();
        interleave(&runs, |stretches| {
            for Stretch { run, rows } in stretches {
                timestamps.extend_from_slice(&runs[*run].timestamps[rows.clone()]);
            }
            for Stretch { run, rows } in stretches.iter().filter(|_| one_seq.is_none()) {
                match &runs[*run].seqs {
                    Seqs::One(seq) => seqs.resize(seqs.len() + rows.len(), *seq),
                    Seqs::Each(each) => seqs.extend_from_slice(&each[rows.clone()]),
                }
            }
            for ((column, parts), (name, _)) in merged.iter_mut().zip(&parts).zip(&types) {
                for Stretch { run, rows } in stretches {
                    append(column, parts[*run].as_deref(), rows.clone(), name)?;
                }
            }
            Ok(())
        })?;
        let mut columns = Columns::new();
        for ((name, _), column) in types.into_iter().zip(merged) {
            columns.insert(name.clone(), column)?;
        }
        let seqs = one_seq.map_or(Seqs::Each(Cow::Owned(seqs)), Seqs::One);
        Ok(MemoryRun::sorted(timestamps, seqs, columns))
    }

    /// All rows of any run, with the columns of `schema`: what is needed to merge a run that is not in memory.
    ///
    /// # Errors
    /// Whatever the run's owner reports; [`QueryError::ColumnType`] and [`QueryError::TooLarge`] as for a scan.
    pub fn read(run: &dyn Run, schema: &Schema) -> Result<MemoryRun, QueryError> {
        let (mut timestamps, mut seqs) = (Vec::new(), Vec::new());
        let mut columns: Vec<Column> = schema.columns.iter().map(|c| Column::new(c.column_type)).collect();
        for group in 0..run.groups() {
            let malformed = |what: &str, expected: usize, found: usize| QueryError::Malformed {
                run: 0,
                group,
                what: what.to_string(),
                expected,
                found,
            };
            let times = run.timestamps(group)?;
            match run.seqs(group)? {
                Seqs::One(seq) => seqs.resize(seqs.len() + times.len(), seq),
                Seqs::Each(each) if each.len() == times.len() => seqs.extend_from_slice(&each),
                Seqs::Each(each) => return Err(malformed("seq", times.len(), each.len())),
            }
            for (to, column) in columns.iter_mut().zip(&schema.columns) {
                let from = run.column(group, &column.name)?;
                let from = from.map(|from| fitted(from, column.column_type, &column.name)).transpose()?;
                if let Some(from) = from.as_deref().filter(|from| from.len() != times.len()) {
                    return Err(malformed(&column.name, times.len(), from.len()));
                }
                append(to, from.as_deref(), 0..times.len(), &column.name)?;
            }
            timestamps.extend_from_slice(&times);
        }
        let mut named = Columns::new();
        for (column, values) in schema.columns.iter().zip(columns) {
            named.insert(column.name.clone(), values)?;
        }
        Ok(MemoryRun::sorted(timestamps, Seqs::Each(Cow::Owned(seqs)), named))
    }

    fn sorted(timestamps: Vec<i64>, seqs: Seqs<'static>, columns: Columns) -> MemoryRun {
        let (seq_min, seq_max) = match &seqs {
            Seqs::One(seq) => (*seq, *seq),
            Seqs::Each(seqs) => {
                (seqs.iter().min().copied().unwrap_or(0), seqs.iter().max().copied().unwrap_or(0))
            }
        };
        let zone = Zone {
            rows: timestamps.len(),
            ts_min: timestamps.first().copied().unwrap_or(0),
            ts_max: timestamps.last().copied().unwrap_or(0),
            seq_min,
            seq_max,
        };
        MemoryRun { timestamps, seqs, columns, zone }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.timestamps.len()
    }

    /// Timestamps in rising order, nanoseconds since 1970 UTC.
    pub fn timestamps(&self) -> &[i64] {
        &self.timestamps
    }

    /// Sequence numbers of the rows.
    pub fn seqs(&self) -> &Seqs<'static> {
        &self.seqs
    }

    /// The columns, without the timestamp.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// What is known of all rows together; all zeros but the sequence numbers where there is no row.
    pub fn zone(&self) -> Zone {
        self.zone
    }

    /// Bytes that the rows take in memory, about.
    pub fn byte_size(&self) -> usize {
        let seqs = match &self.seqs {
            Seqs::One(_) => 0,
            Seqs::Each(seqs) => seqs.len() * 8,
        };
        self.timestamps.len() * 8 + seqs + self.columns.byte_size()
    }
}

impl Run for MemoryRun {
    fn groups(&self) -> usize {
        usize::from(!self.timestamps.is_empty())
    }

    fn is_in_memory(&self) -> bool {
        true
    }

    fn zone(&self, _group: usize) -> Zone {
        self.zone
    }

    fn timestamps(&self, _group: usize) -> Result<Cow<'_, [i64]>, QueryError> {
        Ok(Cow::Borrowed(&self.timestamps))
    }

    fn seqs(&self, _group: usize) -> Result<Seqs<'_>, QueryError> {
        Ok(match &self.seqs {
            Seqs::One(seq) => Seqs::One(*seq),
            Seqs::Each(seqs) => Seqs::Each(Cow::Borrowed(seqs)),
        })
    }

    fn column(&self, _group: usize, name: &str) -> Result<Option<Cow<'_, Column>>, QueryError> {
        Ok(self.columns.column(name).map(Cow::Borrowed))
    }
}

/// Hands over the order of all rows as stretches of the runs, some at a time: one stretch for each run where none
/// overlaps another.
fn interleave(
    runs: &[&MemoryRun],
    mut copy: impl FnMut(&[Stretch]) -> Result<(), QueryError>,
) -> Result<(), QueryError> {
    let ordered: Vec<Ordered<'_>> = runs
        .iter()
        .enumerate()
        .map(|(run, rows)| Ordered { timestamps: &rows.timestamps, seqs: &rows.seqs, run })
        .collect();
    let mut used = vec![0; runs.len()];
    let mut heads: Heads = ordered.iter().filter(|o| !o.timestamps.is_empty()).map(|o| o.head(0)).collect();
    let mut stretches = Vec::new();
    while let Some(Head { run, .. }) = heads.first() {
        let (rows, start) = (&ordered[run], used[run]);
        let end = rows.before(start..rows.timestamps.len(), heads.second());
        stretches.push(Stretch { run, rows: start..end });
        used[run] = end;
        heads.advance((end < rows.timestamps.len()).then(|| rows.head(end)));
        if stretches.len() == STRETCHES_MAX {
            copy(&stretches)?;
            stretches.clear();
        }
    }
    copy(&stretches)
}

/// Every column of the runs in the order in which it first appears, and the type that holds all its values.
fn column_types<'a>(runs: &[&'a MemoryRun]) -> Result<Vec<(&'a Arc<str>, ColumnType)>, QueryError> {
    let mut types: Vec<(&Arc<str>, ColumnType)> = Vec::new();
    for (name, column) in runs.iter().flat_map(|run| run.columns.iter()) {
        let found = column.column_type();
        match types.iter_mut().find(|(known, _)| *known == name) {
            None => types.push((name, found)),
            Some((_, expected)) => {
                let wrong = || QueryError::ColumnType { name: name.to_string(), expected: *expected, found };
                *expected = expected.common(found).ok_or_else(wrong)?;
            }
        }
    }
    Ok(types)
}

/// A column of each run, as the merged column has it; `None` where the run lacks it.
fn parts<'a>(
    runs: &[&'a MemoryRun],
    name: &str,
    column_type: ColumnType,
) -> Result<Vec<Option<Cow<'a, Column>>>, QueryError> {
    let part = |run: &&'a MemoryRun| {
        let column = run.columns.column(name).map(Cow::Borrowed);
        column.map(|column| fitted(column, column_type, name)).transpose()
    };
    runs.iter().map(part).collect()
}

/// The sequence number of all rows, where they have one; 0 where there is no row.
fn one_seq(runs: &[&MemoryRun]) -> Option<u64> {
    let mut zones = runs.iter().filter(|run| run.rows() > 0).map(|run| run.zone);
    let seq = zones.clone().next().map_or(0, |zone| zone.seq_min);
    zones.all(|zone| (zone.seq_min, zone.seq_max) == (seq, seq)).then_some(seq)
}
