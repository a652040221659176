//! Rows of series become segments.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use underbelly_query::{
    MemoryRun, QueryError, Run, Schema, SchemaColumn, Tombstone, Tombstones, hidden_rows,
};
use underbelly_storage::error::StorageError;
use underbelly_storage::segment::{Replaced, Segment, SegmentRows, SegmentWriter, Seqs};
use underbelly_storage::{ColumnType, Timestamp};

use super::Attempt;
use crate::error::{CommitError, ReadError};
use crate::feed::{CHANGES_SERIES, seq_at};
use crate::files;
use crate::limits::{
    DAMAGED_TOLD_MAX, LOWEST_CLASS_BYTES, MERGED_ROWS_BYTES, SEAL_BYTES_MAX, SEGMENTS_PER_CLASS,
    SMALL_ROWS_BYTES, SMALL_SEGMENT_BYTES,
};
use crate::record::v1;
use crate::series::{CapturedTable, Metered, OneGroup, SegmentRun, rules_at};

/// A captured series, and the segments that it became.
pub(super) struct Sealing {
    name: Arc<str>,
    captured: CapturedTable,
    /// Small segments that are merged with the young rows.
    small: Vec<Arc<SegmentRun>>,
    sealed: Vec<Arc<SegmentRun>>,
    /// Segments that hold deleted rows: they are written anew without them, or left out.
    touched: HashSet<u64>,
    /// Commits whose deletes hide nothing any more.
    done: HashSet<u64>,
    /// Deleted rows that are left out.
    rows_deleted: u64,
    /// Readers of transactions before this one would miss rows that are left out; 0 where none would.
    horizon: u64,
    /// The oldest transaction at which it is to be read.
    oldest_seq: u64,
}

impl Sealing {
    /// Of the lowest size class that is full, the segments are taken in from the oldest on, with those of the classes below:
    /// eight, or as many as have `merged_bytes`, but none once they make a large one or their rows would take more than
    /// `rows_left` in memory. The rest is left to the next checkpoint, so that none takes long because of them.
    fn new(name: Arc<str>, captured: CapturedTable, merged_bytes: u64, rows_left: &mut u64) -> Sealing {
        let mut small = Vec::new();
        let columns = captured.schema.columns.len();
        if let Some(full) = full_class(captured.sealed.iter(), columns).filter(|_| *rows_left > 0) {
            let (mut bytes, mut rows_bytes) = (0, 0);
            for run in
                captured.sealed.iter().filter(|run| class_of(run, columns).is_some_and(|class| class <= full))
            {
                let has_room = small.len() < SEGMENTS_PER_CLASS || bytes < merged_bytes;
                let fits =
                    bytes < SMALL_SEGMENT_BYTES && rows_bytes + rows_bytes_of(run, columns) <= *rows_left;
                if !has_room || (!fits && small.len() >= 2) {
                    break;
                }
                bytes += run.reference().bytes;
                rows_bytes += rows_bytes_of(run, columns);
                small.push(run.clone());
            }
            *rows_left = rows_left.saturating_sub(rows_bytes);
        }
        Sealing {
            name,
            captured,
            small,
            sealed: Vec::new(),
            touched: HashSet::new(),
            done: HashSet::new(),
            rows_deleted: 0,
            horizon: 0,
            oldest_seq: 0,
        }
    }

    fn taken_in(&self) -> HashSet<u64> {
        let small = self.small.iter().map(|run| run.reference().file);
        small.chain(self.touched.iter().copied()).collect()
    }

    /// The segments that the manifest names.
    fn segments(&self) -> impl Iterator<Item = &Arc<SegmentRun>> {
        let taken_in = self.taken_in();
        let kept = self.captured.sealed.iter().filter(move |run| !taken_in.contains(&run.reference().file));
        kept.chain(&self.sealed)
    }

    /// Whether segments that were there before are left for the next checkpoint to merge.
    pub(super) fn leaves_merges(&self) -> bool {
        let taken_in = self.taken_in();
        let left = self.captured.sealed.iter().filter(|run| !taken_in.contains(&run.reference().file));
        full_class(left, self.captured.schema.columns.len()).is_some()
    }

    /// Whether there are fewer small segments than before: else the next checkpoint would merge the same again.
    pub(super) fn has_merged(&self) -> bool {
        self.sealed.len() < self.small.len()
    }

    /// The deletes that still wait.
    fn waiting(&self) -> impl Iterator<Item = &Arc<Tombstone>> {
        self.captured.tombstones.iter().filter(|tombstone| !self.done.contains(&tombstone.seq()))
    }

    /// What spares the next checkpoint a look at segments, as far as deletes wait for it.
    pub(super) fn cleared(&self) -> Vec<v1::Cleared> {
        let Some(first) = self.waiting().next().map(|tombstone| tombstone.seq()) else { return Vec::new() };
        let cleared =
            self.segments().map(|run| v1::Cleared { file: run.reference().file, seq: run.cleared() });
        cleared.filter(|cleared| cleared.seq >= first).collect()
    }

    /// The series as the manifest names it.
    pub(super) fn series(&self) -> Result<v1::Series, String> {
        let columns = self.captured.schema.columns.iter().map(|column| v1::SchemaColumn {
            name: column.name.to_string(),
            column_type: column.column_type.tag(),
            key: column.key,
        });
        Ok(v1::Series {
            name: self.name.to_string(),
            columns: columns.collect(),
            segments: self.segments().map(|run| run.reference().clone()).collect(),
            last_seq: self.captured.last_seq,
            deletes: self
                .waiting()
                .map(|tombstone| v1::Delete::try_from(&**tombstone))
                .collect::<Result<_, _>>()?,
            inexact: self.captured.inexact.iter().cloned().collect(),
            made: self.captured.made,
            added: self.captured.added.clone(),
            horizon: self.captured.horizon.max(self.horizon),
            rules: self
                .captured
                .rules
                .iter()
                .map(|(seq, rules)| v1::SeriesRules::new(&self.name, *seq, rules))
                .collect(),
            types: (*self.captured.types).clone(),
            appended_bytes: self.captured.appended_bytes,
            written_bytes: self.captured.written_bytes
                + self.sealed.iter().map(|run| run.reference().bytes).sum::<u64>(),
        })
    }
}

/// The size class of a segment that may be merged; `None` where it is large, or damaged: that one stays as it is, and does
/// not call for a merge each time.
fn class_of(run: &SegmentRun, columns: usize) -> Option<u32> {
    let bytes = run.reference().bytes;
    let is_small = bytes < SMALL_SEGMENT_BYTES
        && rows_bytes_of(run, columns) < SMALL_ROWS_BYTES
        && run.damage().is_none();
    is_small.then(|| (bytes / LOWEST_CLASS_BYTES).checked_ilog(8).map_or(0, |class| class + 1))
}

/// Bytes that the rows of a segment take in memory in a series of so many columns, as far as the widths of these tell.
fn rows_bytes_of(run: &SegmentRun, columns: usize) -> u64 {
    let reference = run.reference();
    let widths = reference.schema.iter().map(|column| match column.known_type() {
        Ok(ColumnType::Bool) => 1,
        Ok(ColumnType::Date | ColumnType::I32 | ColumnType::F32) => 4,
        Ok(ColumnType::I64 | ColumnType::F64 | ColumnType::Timestamp) => 8,
        Ok(ColumnType::Utf8 | ColumnType::Bytes) | Err(_) => 16,
    });
    // A column of the series that the segment has not is read as nulls.
    let nulls = 9 * columns.saturating_sub(reference.schema.len()) as u64;
    // With timestamp and seq.
    reference.rows.saturating_mul(16 + nulls + widths.sum::<u64>()).max(reference.bytes)
}

/// The lowest size class of which there are enough segments for a merge.
fn full_class<'r>(runs: impl Iterator<Item = &'r Arc<SegmentRun>>, columns: usize) -> Option<u32> {
    let mut counts = BTreeMap::new();
    runs.filter_map(|run| class_of(run, columns)).for_each(|class| *counts.entry(class).or_insert(0) += 1);
    counts.into_iter().find(|(_, count)| *count >= SEGMENTS_PER_CLASS).map(|(class, _)| class)
}

impl Attempt<'_> {
    /// All series as they were after transaction `seq`.
    pub(super) fn capture_tables(&mut self, seq: u64) -> Result<Vec<Sealing>, CommitError> {
        let (number, mut tables) = (self.number, Vec::<Sealing>::new());
        let (merged_bytes, mut rows_left) = (self.core.options.checkpoint_bytes, MERGED_ROWS_BYTES);
        self.slices.all(|state| {
            let after = tables.last().map_or(Bound::Unbounded, |last| Bound::Excluded(&*last.name));
            let mut later = state.tables.range_mut::<str, _>((after, Bound::Unbounded));
            // A series that was made since is none of the capture.
            let Some((name, table)) = later.find(|(_, table)| table.is_known_at(seq)) else { return false };
            let Some(captured) = table.capture(number) else { return false };
            tables.push(Sealing::new(name.clone(), captured, merged_bytes, &mut rows_left));
            true
        })?;
        Ok(tables)
    }

    /// Writes the young rows of each series, and the small segments that they take in, as segments; and those that hold
    /// rows which no reader sees, nor anybody who asks as known at a transaction that is kept, without these.
    pub(super) fn seal_tables(
        &mut self,
        tables: &mut [Sealing],
        oldest_reader: u64,
        now: Timestamp,
    ) -> Result<(), CommitError> {
        for table in &mut *tables {
            table.oldest_seq = self.oldest_seq(table, oldest_reader, now)?;
        }
        let is_due = |table: &&mut Sealing| {
            let captured = &table.captured;
            !captured.young.is_empty() || !table.small.is_empty() || !captured.tombstones.is_empty()
        };
        let tables = tables.iter_mut().filter(is_due);
        let (this, bytes_left) = (&*self, AtomicU64::new(self.core.options.checkpoint_bytes.max(1)));
        let seal = |table: &mut Sealing| {
            let oldest_seq = table.oldest_seq;
            let seen = |tombstone: &&Arc<Tombstone>| tombstone.seq() <= oldest_seq;
            let tombstones: Vec<Arc<Tombstone>> =
                table.captured.tombstones.iter().filter(seen).cloned().collect();
            let mut sealed = this.seal_table(table, &tombstones, oldest_seq)?;
            if let Some(last) = tombstones.last() {
                sealed.append(&mut this.delete_rows(table, &tombstones, last.seq(), &bytes_left)?);
                // They were written without what is deleted.
                sealed.iter().for_each(|run| run.clear(last.seq()));
            }
            table.sealed = sealed;
            if table.rows_deleted > 0 {
                let last = tombstones.last().map_or(0, |tombstone| tombstone.seq());
                table.horizon = table.horizon.max(last);
            }
            let bytes = table.sealed.iter().map(|run| run.reference().bytes).sum::<u64>();
            // Nobody deleted what the feed keeps no more.
            let rows_deleted = if &*table.name == CHANGES_SERIES { 0 } else { table.rows_deleted };
            Ok::<_, CommitError>((table.sealed.len(), bytes, rows_deleted))
        };
        for (segments, bytes, rows_deleted) in self.core.pool.map(tables.collect(), seal)? {
            self.report.rows_deleted += rows_deleted;
            self.report.segments += segments;
            self.report.bytes_written += bytes;
        }
        Ok(())
    }

    /// The oldest transaction at which the series is to be read from now on.
    fn oldest_seq(&self, table: &Sealing, oldest_reader: u64, now: Timestamp) -> Result<u64, CommitError> {
        let rules = rules_at(&table.captured.rules, u64::MAX);
        let is_asked = rules.duplicates.resolves() || !table.captured.tombstones.is_empty();
        if rules.history == Duration::ZERO || !is_asked {
            return Ok(oldest_reader);
        }
        let since = now.0.saturating_sub(i64::try_from(rules.history.as_nanos()).unwrap_or(i64::MAX));
        match seq_at(self.core.view.base(), Timestamp(since)) {
            Ok(Ok(seq)) => Ok(seq.min(oldest_reader)),
            Ok(Err((_, first))) => Ok(first.saturating_sub(1).min(oldest_reader)),
            // Rather nothing goes.
            Err(error) => {
                self.core.note_trouble(format!("the history of series {:?} is kept: {error}", table.name));
                Ok(0)
            }
        }
    }

    /// Merges what was captured of a series into one segment, or into several where it is large; without small segments
    /// that are damaged.
    fn seal_table(
        &self,
        table: &mut Sealing,
        tombstones: &[Arc<Tombstone>],
        oldest_seq: u64,
    ) -> Result<Vec<Arc<SegmentRun>>, CommitError> {
        // Rows, and the segment that held them; what became of those of which no row is left.
        let (mut runs, mut emptied) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        for small in std::mem::take(&mut table.small) {
            // Text may be longer than its place in the file told.
            if bytes >= SEAL_BYTES_MAX && runs.len() >= 2 {
                break;
            }
            match MemoryRun::read(&*small, &table.captured.schema) {
                Ok(rows) => {
                    bytes += rows.byte_size();
                    runs.push((Arc::new(rows), replaced_by(&small)));
                    table.small.push(small);
                }
                Err(error) if is_damage(&error) => note_damaged(&table.name, &small, &error),
                Err(error) => return Err(ReadError::from(error).into()),
            }
        }
        runs.extend(table.captured.young.iter().map(|run| (run.clone(), Vec::new())));
        if !tombstones.is_empty() {
            for (run, _) in &mut runs {
                let left = run.without(tombstones).map_err(ReadError::from)?;
                table.rows_deleted += (run.rows() - left.rows()) as u64;
                *run = Arc::new(left);
            }
            let (left, none): (Vec<_>, Vec<_>) = runs.into_iter().partition(|(run, _)| run.rows() > 0);
            runs = left;
            emptied.extend(none.into_iter().flat_map(|(_, replaced)| replaced));
        }
        let mut sealed = Vec::new();
        let mut rest = runs.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|(run, _)| {
                bytes += run.byte_size();
                bytes <= SEAL_BYTES_MAX
            });
            let (now, later) = rest.split_at(fits.count().max(1));
            let replaced = now.iter().flat_map(|(_, replaced)| replaced.iter().copied());
            let replaced = replaced.chain(std::mem::take(&mut emptied)).collect();
            let now: Vec<_> = now.iter().map(|(run, _)| run.clone()).collect();
            let (merged, superseded) = merged(table, &now, oldest_seq)?;
            table.horizon = table.horizon.max(superseded);
            sealed.push(self.seal_rows(table, &merged, replaced)?);
            rest = later;
        }
        Ok(sealed)
    }

    /// Writes segments that hold deleted rows anew, or leaves them out where all their rows are deleted, until so many
    /// bytes were read for that. Which hold none is remembered, so that the next checkpoint goes on from there. One that is
    /// damaged stays as it is, and what hides rows of it stays too. `last_seq` is that of the last tombstone.
    fn delete_rows(
        &self,
        table: &mut Sealing,
        tombstones: &[Arc<Tombstone>],
        last_seq: u64,
        bytes_left: &AtomicU64,
    ) -> Result<Vec<Arc<SegmentRun>>, CommitError> {
        let small = table.taken_in();
        let others = table.captured.sealed.iter().filter(|run| !small.contains(&run.reference().file));
        let by_range = Tombstones::new(tombstones.iter());
        let (mut rewritten, mut waiting) = (Vec::new(), HashSet::new());
        let mut others: Vec<Arc<SegmentRun>> = others.cloned().collect();
        // Those that are known to be damaged come last, so that they keep no other from being read.
        others.sort_by_key(|run| run.damage().is_some());
        for run in others {
            let mut hiding = by_range.over_run(&*run);
            hiding.retain(|tombstone| tombstone.seq() > run.cleared());
            let (hidden, left) = match left_of(&run, &hiding, bytes_left) {
                Ok(Left::All) => {
                    run.clear(last_seq);
                    continue;
                }
                Ok(Left::Unknown) => {
                    waiting.extend(hiding.iter().map(|tombstone| tombstone.seq()));
                    continue;
                }
                Ok(Left::Some { hidden }) => {
                    let rewritten = self.rewrite(&table.name, &run, &hiding, &hidden, bytes_left);
                    (hidden.iter().sum(), Some(rewritten))
                }
                Ok(Left::Nothing) => (run.reference().rows, None),
                Err(error) if is_damage(&error) => {
                    note_damaged(&table.name, &run, &error);
                    waiting.extend(hiding.iter().map(|tombstone| tombstone.seq()));
                    continue;
                }
                Err(error) => return Err(ReadError::from(error).into()),
            };
            match left {
                Some(Ok(left)) => rewritten.push(left),
                // A block that was not needed to find what is hidden.
                Some(Err(CommitError::Read(ReadError::Query(error)))) if is_damage(&error) => {
                    note_damaged(&table.name, &run, &error);
                    waiting.extend(hiding.iter().map(|tombstone| tombstone.seq()));
                    continue;
                }
                Some(Err(error)) => return Err(error),
                None => {}
            }
            table.touched.insert(run.reference().file);
            table.rows_deleted += hidden;
        }
        let done = tombstones.iter().map(|tombstone| tombstone.seq()).filter(|seq| !waiting.contains(seq));
        table.done = done.collect();
        Ok(rewritten)
    }

    /// Writes a segment anew without the rows that are `hidden` in each group: those of which none is are copied, the others
    /// are in memory one at a time.
    fn rewrite(
        &self,
        series: &str,
        run: &SegmentRun,
        hiding: &[Arc<Tombstone>],
        hidden: &[u64],
        bytes_left: &AtomicU64,
    ) -> Result<Arc<SegmentRun>, CommitError> {
        let (segment, metered) = (run.segment()?, Metered { run, bytes_left });
        let columns = segment.schema().iter().zip(segment.keys()).map(|((name, column_type), key)| {
            SchemaColumn { name: name.clone(), column_type: *column_type, key: *key }
        });
        let schema = Schema { columns: columns.collect() };
        let mut replaced = replaced_by(run);
        replaced.sort_unstable();
        replaced.dedup_by_key(|replaced| replaced.file);
        let file = self.core.new_file();
        let name = files::segment(series, file);
        let mut writer = SegmentWriter::like(self.disk, &name, self.core.database, segment, &replaced)?;
        for (group, hidden) in hidden.iter().enumerate() {
            if *hidden == 0 {
                metered.spend_group(group);
                writer.copy(segment, group, run.reference().seq).map_err(|error| match error {
                    // The other's damage.
                    StorageError::Corrupt { .. } => {
                        ReadError::from(QueryError::Source(Box::new(error))).into()
                    }
                    error => CommitError::from(error),
                })?;
            } else if *hidden < run.zone(group).rows as u64 {
                let rows = MemoryRun::read(&OneGroup { run: &metered, group }, &schema);
                let rows = rows.and_then(|rows| rows.without(hiding)).map_err(ReadError::from)?;
                let seqs: Vec<u64> = (0..rows.rows()).map(|row| rows.seqs().get(row)).collect();
                writer.append(rows.timestamps(), &seqs, rows.columns())?;
            }
        }
        let info = writer.finish()?;
        self.note_made(name.clone());
        let (segment, reference) = self.core.open_written(&info, file, run.reference().schema.clone())?;
        Ok(Arc::new(SegmentRun::new(segment, reference)))
    }

    fn seal_rows(
        &self,
        table: &Sealing,
        merged: &MemoryRun,
        mut replaced: Vec<Replaced>,
    ) -> Result<Arc<SegmentRun>, CommitError> {
        replaced.sort_unstable();
        replaced.dedup_by_key(|replaced| replaced.file);
        let seqs: Vec<u64> = (0..merged.rows()).map(|row| merged.seqs().get(row)).collect();
        let keys = table.captured.schema.keys().map(|column| &*column.name).collect();
        let file = self.core.new_file();
        let (timestamps, columns, seqs) = (merged.timestamps(), merged.columns(), Seqs::Each(&seqs));
        // What was sealed by key stays so.
        let by_key = self.core.options.sealed_by_key
            || table.small.iter().any(|run| run.segment().is_ok_and(Segment::is_by_key));
        let rows =
            SegmentRows { timestamps, seqs, columns, keys: &keys, by_key, after: 0, replaced: &replaced };
        let (segment, reference) = self.core.write_segment(self.disk, &table.name, file, &rows)?;
        self.note_made(files::segment(&table.name, file));
        Ok(Arc::new(SegmentRun::new(segment, reference)))
    }

    /// Puts the segments of a series in the place of what was captured of it.
    pub(super) fn put_in_place(&mut self, table: Sealing) {
        let taken_in = table.taken_in();
        // Where nobody waits.
        let left = (!table.done.is_empty()).then(|| table.waiting().cloned().collect());
        let Sealing { name, sealed, captured, horizon, .. } = table;
        let mut replaced = None;
        self.slices.once_even_if_poisoned(|state| {
            replaced = state.tables.get_mut(&name).map(|table| table.seal(sealed, &taken_in, left, horizon));
        });
        // Memory and maps are given back here, where nobody waits.
        drop((replaced, captured));
    }
}

/// Runs in one, without the rows that no reader at `oldest_seq` or later sees because of others of them; and the first
/// transaction from which on no reader misses them.
fn merged(
    table: &Sealing,
    runs: &[Arc<MemoryRun>],
    oldest_seq: u64,
) -> Result<(Arc<MemoryRun>, u64), CommitError> {
    let merged = match runs {
        [one] => one.clone(),
        several => Arc::new(MemoryRun::merge(several).map_err(ReadError::from)?),
    };
    let duplicates = rules_at(&table.captured.rules, oldest_seq).duplicates;
    if !duplicates.resolves() {
        return Ok((merged, 0));
    }
    let left = merged.without_superseded(&table.captured.schema, duplicates, oldest_seq);
    let (left, last) = left.map_err(ReadError::from)?;
    // Who reads as it was known before these rules saw the rows, whatever stood over them.
    let rules = table.captured.rules.iter().rev();
    let since =
        rules.take_while(|(_, rules)| rules.duplicates == duplicates).last().map_or(0, |(seq, _)| *seq);
    Ok((Arc::new(left), if last > 0 { last.max(since) } else { 0 }))
}

fn note_damaged(series: &str, run: &SegmentRun, error: &QueryError) {
    let name = files::segment(series, run.reference().file);
    run.note_damage(format!("{name} cannot be written anew and stays as it is: {error}"));
}

/// The damaged segments that stay, each with what is wrong; where there are many, the number of the others.
pub(super) fn damaged(tables: &[Sealing]) -> Vec<String> {
    let all = || tables.iter().flat_map(Sealing::segments).filter_map(|run| run.damage());
    let mut told: Vec<String> = all().take(DAMAGED_TOLD_MAX).map(str::to_string).collect();
    match all().count() - told.len() {
        0 => {}
        others => told.push(format!("{others} segments more are damaged; `ubctl verify` names them")),
    }
    told
}

/// What of a segment is not deleted.
enum Left {
    All,
    /// How many rows of each group are hidden.
    Some {
        hidden: Vec<u64>,
    },
    Nothing,
    /// Nothing of it was read, as no bytes were left for that.
    Unknown,
}

/// What a segment that takes the place of another says of that: the other, and those without seqs whose place that one
/// took.
fn replaced_by(run: &SegmentRun) -> Vec<Replaced> {
    let v1::SegmentRef { file, seq, .. } = *run.reference();
    let before = run.segment().map_or(&[][..], |segment| segment.replaced());
    let before = before.iter().filter(|replaced| replaced.seq > 0);
    before.copied().chain([Replaced { file, seq }]).collect()
}

/// Reads what tombstones leave of a segment, where `bytes_left` are left for that; the last segment is read to its end.
fn left_of(run: &SegmentRun, hiding: &[Arc<Tombstone>], bytes_left: &AtomicU64) -> Result<Left, QueryError> {
    if hiding.is_empty() {
        return Ok(Left::All);
    }
    if Tombstones::new(hiding.iter()).hide_run(run) {
        return Ok(Left::Nothing);
    }
    if bytes_left.load(Ordering::Relaxed) == 0 {
        return Ok(Left::Unknown);
    }
    let metered = Metered { run, bytes_left };
    let hidden_of = |group| hidden_rows(&OneGroup { run: &metered, group }, hiding);
    let hidden = (0..run.groups()).map(hidden_of).collect::<Result<Vec<u64>, _>>()?;
    let sum: u64 = hidden.iter().sum();
    Ok(match sum {
        0 => Left::All,
        sum if sum >= run.reference().rows => Left::Nothing,
        _ => Left::Some { hidden },
    })
}

/// Whether a segment could not be read because its bytes are not what they were.
fn is_damage(error: &QueryError) -> bool {
    match error {
        QueryError::Malformed { .. } => true,
        QueryError::Source(source) => {
            matches!(source.downcast_ref(), Some(StorageError::Corrupt { .. }))
        }
        _ => false,
    }
}
