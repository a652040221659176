//! Writing a segment, group by group.

use std::ops::Range;
use std::sync::OnceLock;

use super::codec::{self, Encoded};
use super::footer::{Block, Footer};
use super::{GroupInfo, SEGMENT, SegmentInfo, SegmentRows, Seqs};
use crate::columns::{Column, Values};
use crate::disk::Disk;
use crate::error::StorageError;
use crate::limits::{
    BLOCK_BYTES_MAX, COLUMNS_MAX, FOOTER_BYTES_MAX, GROUP_ROWS_MAX, NAME_BYTES_MAX, SEGMENT_ROWS_MAX,
};
use crate::sealed::SealedWriter;
use crate::stamp::{DatabaseId, Stamp};
use crate::value::Timestamp;

/// Who does pieces of work that do not depend on each other.
pub trait Workers {
    /// Does `work` for each number below `count`, in any order, several at a time or one after the other; returns when
    /// all is done.
    fn each(&self, count: usize, work: &(dyn Fn(usize) + Sync));
}

/// The caller alone, one piece after the other.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Workers for Alone {
    fn each(&self, count: usize, work: &(dyn Fn(usize) + Sync)) {
        (0..count).for_each(work);
    }
}

/// Values that are encoded before another thread would have begun.
const FEW_VALUES: usize = 1 << 16;

/// Blocks that are in memory at a time, but for those of one group.
const BLOCKS_AT_ONCE: usize = 64;

/// Writes rows as a segment, durable on return. Every block is decoded and compared with what was given before
/// the file is published. Blocks are encoded by `workers`; the file is the same whoever they are.
///
/// A row group has 131,072 rows, fewer where its text would pass the limit of a block, or where time jumps: so one late row
/// does not make a group of new ones reach back to it.
///
/// # Errors
/// `Refused` where lengths differ, timestamps fall or a name is empty; `TooLarge`; `Exists`; `Io`; `DiskFull`.
pub fn write_segment(
    disk: &dyn Disk,
    name: &str,
    db_id: DatabaseId,
    rows: &SegmentRows<'_>,
    workers: &dyn Workers,
) -> Result<SegmentInfo, StorageError> {
    write(disk, name, db_id, rows, Cut::FULL, workers)
}

/// Where a row group ends.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    /// Rows of a full group, 1 to 131,072.
    pub(super) rows: usize,
    /// Bytes of text that one column of a group holds at most, 1 to the limit of a block.
    pub(super) text_bytes: usize,
    /// Rows that more of are looked at for jumps in time.
    pub(super) jump_rows: usize,
}

impl Cut {
    /// Groups as large as the format allows.
    const FULL: Cut = Cut { rows: GROUP_ROWS_MAX, text_bytes: BLOCK_BYTES_MAX, jump_rows: 8_192 };
}

/// The same, with groups that may be smaller.
pub(super) fn write(
    disk: &dyn Disk,
    name: &str,
    db_id: DatabaseId,
    rows: &SegmentRows<'_>,
    cut: Cut,
    workers: &dyn Workers,
) -> Result<SegmentInfo, StorageError> {
    check(name, rows)?;
    let mut writer = SealedWriter::create(disk, name)?;
    let times = rows.timestamps;
    let mut footer = Footer {
        schema: rows.columns.iter().map(|(name, column)| (name.clone(), column.column_type())).collect(),
        keys: rows.columns.names().iter().map(|name| rows.keys.contains(&**name)).collect(),
        each_seq: matches!(rows.seqs, Seqs::Each(_)),
        rows: times.len() as u64,
        ts_min: times.first().copied().unwrap_or(i64::MAX),
        ts_max: times.last().copied().unwrap_or(i64::MIN),
        after: rows.after,
        replaced: rows.replaced.to_vec(),
        groups: Vec::new(),
        blocks: Vec::new(),
    };
    let mut groups = Vec::new();
    let mut start = 0;
    let jumps = jumps(times, cut.jump_rows);
    while start < times.len() {
        let end = jumps.get(jumps.partition_point(|jump| *jump <= start)).copied().unwrap_or(times.len());
        let range = start..end.min(group_end(name, rows, start, cut)?);
        start = range.end;
        footer.groups.push(group_info(rows, range.clone()));
        groups.push(range);
    }
    let columns = block_columns(rows);
    let workers = if times.len() * columns.len() < FEW_VALUES { &Alone } else { workers };
    for groups in groups.chunks((BLOCKS_AT_ONCE / columns.len()).max(1)) {
        write_groups(&mut writer, name, &columns, groups, &mut footer, workers)?;
    }
    finish(writer, name, db_id, &footer)
}

/// Writes the footer behind the groups and makes the file durable.
pub(super) fn finish(
    mut writer: SealedWriter<'_>,
    name: &str,
    db_id: DatabaseId,
    footer: &Footer,
) -> Result<SegmentInfo, StorageError> {
    let bytes = footer.encode();
    StorageError::limit(name, "the footer's length in bytes", bytes.len() as u64, FOOTER_BYTES_MAX)?;
    let offset = writer.align()?;
    writer.append(&bytes)?;
    writer.append(&Stamp::of(&bytes, offset, db_id).encode(SEGMENT, name))?;
    Ok(SegmentInfo {
        file: name.to_string(),
        bytes: writer.publish()?,
        rows: footer.rows,
        ts_min: footer.ts_min,
        ts_max: footer.ts_max,
        footer_hash: *blake3::hash(&bytes).as_bytes(),
    })
}

pub(super) fn check(name: &str, rows: &SegmentRows<'_>) -> Result<(), StorageError> {
    let count = rows.timestamps.len();
    StorageError::limit(name, "the number of rows", count as u64, SEGMENT_ROWS_MAX)?;
    StorageError::limit(name, "the number of columns", rows.columns.width() as u64, COLUMNS_MAX as u64)?;
    if !rows.timestamps.is_sorted() {
        return Err(StorageError::refused(name, "its timestamps fall somewhere; sort the rows by time"));
    }
    let columns = if rows.columns.width() == 0 { count } else { rows.columns.rows() };
    let seqs = if let Seqs::Each(seqs) = rows.seqs { seqs.len() } else { count };
    if columns != count || seqs != count {
        let what =
            format!("{count} timestamps stand beside {columns} rows and {seqs} seqs; give as many of each");
        return Err(StorageError::refused(name, what));
    }
    let each_seq = matches!(rows.seqs, Seqs::Each(_));
    let rises = rows.replaced.is_sorted_by(|a, b| a.file < b.file);
    let is_numbered = rows.replaced.first().is_none_or(|replaced| replaced.file > 0);
    if (each_seq && rows.after > 0) || (!each_seq && !rows.replaced.is_empty()) || !rises || !is_numbered {
        let what =
            "rows with seqs come after one, rows without replace some, or the files of these do not rise";
        return Err(StorageError::refused(name, what));
    }
    for column in rows.columns.names() {
        StorageError::limit(
            name,
            "the length of a column's name in bytes",
            column.len() as u64,
            NAME_BYTES_MAX as u64,
        )?;
        if column.is_empty() {
            return Err(StorageError::refused(name, "a column has an empty name; name it"));
        }
    }
    Ok(())
}

/// The rows, rising, before which time jumps: by more than an eighth of the time between the first and the last row, in all
/// rows and then in what lies between two jumps, where these are more than `rows_max`. So each look finds seven at most.
fn jumps(times: &[i64], rows_max: usize) -> Vec<usize> {
    let mut jumps = Vec::new();
    let mut pieces: Vec<Range<usize>> = std::iter::once(0..times.len()).collect();
    while let Some(piece) = pieces.pop() {
        let of_piece = times.get(piece.clone()).unwrap_or_default();
        let (Some(first), Some(last)) = (of_piece.first(), of_piece.last()) else { continue };
        if of_piece.len() <= rows_max {
            continue;
        }
        let far = last.abs_diff(*first) / 8;
        let pairs = of_piece.windows(2).enumerate();
        let found = pairs.filter(|(_, pair)| matches!(pair, [a, b] if b.abs_diff(*a) > far));
        let found: Vec<usize> = found.map(|(row, _)| piece.start + row + 1).collect();
        if found.is_empty() {
            continue;
        }
        let starts = std::iter::once(piece.start).chain(found.iter().copied());
        pieces.extend(starts.zip(found.iter().copied().chain([piece.end])).map(|(start, end)| start..end));
        jumps.extend(found);
    }
    jumps.sort_unstable();
    jumps
}

/// Where the group that begins at row `start` ends: after the rows of a full group, or before the text of a
/// column passes what a group holds.
fn group_end(name: &str, rows: &SegmentRows<'_>, start: usize, cut: Cut) -> Result<usize, StorageError> {
    let mut end = rows.timestamps.len().min(start + cut.rows);
    for (_, column) in rows.columns.iter() {
        let (Values::Utf8(strings) | Values::Bytes(strings)) = column.values() else { continue };
        let Some(offsets) = strings.offsets().get(start..=end) else { continue };
        let from = offsets.first().map_or(0, |from| *from as usize);
        let fitting = offsets.partition_point(|to| *to as usize - from <= cut.text_bytes);
        end = end.min(start + fitting - 1);
        if end == start {
            let length = strings.get(start).len() as u64;
            StorageError::limit(name, "the length of a text in bytes", length, cut.text_bytes as u64)?;
        }
    }
    Ok(end)
}

/// Writes one group.
pub(super) fn write_group(
    writer: &mut SealedWriter<'_>,
    name: &str,
    rows: &SegmentRows<'_>,
    range: Range<usize>,
    footer: &mut Footer,
) -> Result<(), StorageError> {
    footer.groups.push(group_info(rows, range.clone()));
    write_groups(writer, name, &block_columns(rows), &[range], footer, &Alone)
}

fn group_info(rows: &SegmentRows<'_>, range: Range<usize>) -> GroupInfo {
    let times = &rows.timestamps[range.clone()];
    let seqs = if let Seqs::Each(seqs) = rows.seqs { &seqs[range] } else { &[] };
    GroupInfo {
        rows: times.len(),
        ts_min: times.first().copied().unwrap_or_default(),
        ts_max: times.last().copied().unwrap_or_default(),
        seq_min: seqs.iter().copied().min().unwrap_or_default(),
        seq_max: seqs.iter().copied().max().unwrap_or_default(),
    }
}

/// A column as blocks are made of it.
enum BlockColumn<'a> {
    Times(&'a [i64]),
    Seqs(&'a [u64]),
    Named(&'a Column),
}

impl BlockColumn<'_> {
    fn slice(&self, range: Range<usize>) -> Column {
        match self {
            BlockColumn::Times(times) => {
                Column::from(times[range].iter().copied().map(Timestamp).collect::<Vec<_>>())
            }
            BlockColumn::Seqs(seqs) => {
                Column::from(seqs[range].iter().map(|seq| seq.cast_signed()).collect::<Vec<i64>>())
            }
            BlockColumn::Named(column) => column.slice(range),
        }
    }
}

/// The columns of a group in the order of its blocks.
fn block_columns<'a>(rows: &SegmentRows<'a>) -> Vec<BlockColumn<'a>> {
    let mut columns = vec![BlockColumn::Times(rows.timestamps)];
    if let Seqs::Each(seqs) = rows.seqs {
        columns.push(BlockColumn::Seqs(seqs));
    }
    columns.extend(rows.columns.iter().map(|(_, column)| BlockColumn::Named(column)));
    columns
}

fn write_groups(
    writer: &mut SealedWriter<'_>,
    name: &str,
    columns: &[BlockColumn<'_>],
    groups: &[Range<usize>],
    footer: &mut Footer,
    workers: &dyn Workers,
) -> Result<(), StorageError> {
    let of_groups = groups.iter().flat_map(|range| columns.iter().map(move |column| (column, range.clone())));
    let made: Vec<_> = of_groups.map(|(column, range)| (column, range, OnceLock::new())).collect();
    workers.each(made.len(), &|number| {
        let (column, range, block) = &made[number];
        block.get_or_init(|| make_block(name, &column.slice(range.clone())));
    });
    for (column, range, block) in made {
        let made = block.into_inner().unwrap_or_else(|| make_block(name, &column.slice(range)));
        let (encoded, crc) = made?;
        let offset = writer.align()?;
        writer.append(&encoded.bytes)?;
        let length = encoded.bytes.len() as u64;
        footer.blocks.push(Block { offset, length, crc, shape: encoded.shape, zone: encoded.zone });
    }
    Ok(())
}

/// A block with its checksum, decoded and compared.
fn make_block(name: &str, column: &Column) -> Result<(Encoded, u32), StorageError> {
    let encoded = codec::encode(column);
    let back = codec::decode(&encoded.bytes, encoded.shape);
    if !back.is_ok_and(|back| codec::same(&back, column)) {
        let (file, column_type) = (name.to_string(), column.column_type());
        return Err(StorageError::Unfaithful { file, column_type });
    }
    let crc = crc32fast::hash(&encoded.bytes);
    Ok((encoded, crc))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_end_where_time_jumps() {
        let today = || (0..1_000).map(|i| 1_000_000 + i);
        let rows = |late: &[i64], early: &[i64]| {
            late.iter().copied().chain(today()).chain(early.iter().copied()).collect::<Vec<i64>>()
        };
        assert_eq!(jumps(&rows(&[], &[]), 100), [0; 0]);
        assert_eq!(jumps(&rows(&[7], &[]), 100), [1]);
        assert_eq!(jumps(&rows(&[], &[i64::MAX]), 100), [1_000]);
        assert_eq!(
            jumps(&rows(&[i64::MIN, -5, 0, 900_000], &[2_000_000, i64::MAX]), 100),
            [1, 3, 4, 1_004, 1_005]
        );
        // Rows that are few, of one instant, or as far from each other as all are.
        assert_eq!(jumps(&rows(&[7], &[]), 2_000), [0; 0]);
        assert_eq!(jumps(&[5; 300], 100), [0; 0]);
        assert_eq!(jumps(&(0..300).map(|i| i * 1_000).collect::<Vec<_>>(), 100), [0; 0]);
        assert_eq!(jumps(&[], 0), [0; 0]);
    }
}
