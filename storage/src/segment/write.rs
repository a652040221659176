//! Writing a segment, group by group.

use std::ops::Range;
use std::sync::OnceLock;

use super::cluster::{CLUSTER_ROWS, Clustering, Layout};
use super::codec::{self, Encoded};
use super::footer::{Block, Footer};
use super::{GroupInfo, SegmentInfo, SegmentRows, Seqs};
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
/// does not make a group of new ones reach back to it. Where rows are stored by key they are read in the order of time all the same.
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
        by_key: rows.by_key
            && times.len() >= CLUSTER_ROWS
            && rows.columns.names().iter().any(|name| rows.keys.contains(&**name)),
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
        groups.push(range);
    }
    let columns = block_columns(rows, footer.by_key);
    let workers = if times.len() * columns.len() < FEW_VALUES { &Alone } else { workers };
    for groups in groups.chunks((BLOCKS_AT_ONCE / columns.len()).max(1)) {
        write_groups(&mut writer, name, rows, &columns, groups, &mut footer, workers)?;
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
    writer.append(&Stamp::of(&bytes, offset, db_id).encode(footer.kind(), name))?;
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
    let columns = block_columns(rows, footer.by_key);
    write_groups(writer, name, rows, &columns, &[range], footer, &Alone)
}

fn group_info(rows: &SegmentRows<'_>, range: Range<usize>, clusters: usize) -> GroupInfo {
    let times = &rows.timestamps[range.clone()];
    let seqs = if let Seqs::Each(seqs) = rows.seqs { &seqs[range] } else { &[] };
    GroupInfo {
        rows: times.len(),
        clusters,
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
    /// The clusters of the rows in the order of time.
    Order,
    /// Rows of the clusters.
    Sizes,
    Key(&'a Column),
    Named(&'a Column),
}

/// A group that is being written.
struct Planned {
    rows: Range<usize>,
    /// How its rows lie, where not in the order of time.
    clustering: Option<Clustering>,
}

impl BlockColumn<'_> {
    /// What is stored of a group, and in which vectors; `None` where a text is too long for a block, which was refused before.
    fn stored<'p>(&self, group: &'p Planned) -> Option<(Column, Layout<'p>)> {
        let Planned { rows, clustering } = group;
        let Some(clustering) = clustering else {
            let column = match self {
                BlockColumn::Times(times) => {
                    Column::from(times[rows.clone()].iter().copied().map(Timestamp).collect::<Vec<_>>())
                }
                BlockColumn::Seqs(seqs) => {
                    Column::from(seqs[rows.clone()].iter().map(|seq| seq.cast_signed()).collect::<Vec<i64>>())
                }
                BlockColumn::Order | BlockColumn::Sizes => Column::from(vec![0i32]),
                BlockColumn::Key(column) | BlockColumn::Named(column) => column.slice(rows.clone()),
            };
            let layout = Layout::even(column.len());
            return Some((column, layout));
        };
        let stored = || clustering.stored.iter().map(|row| *row as usize);
        let column = match self {
            BlockColumn::Times(times) => {
                Column::from(stored().map(|row| Timestamp(times[row])).collect::<Vec<_>>())
            }
            BlockColumn::Seqs(seqs) => {
                Column::from(stored().map(|row| seqs[row].cast_signed()).collect::<Vec<i64>>())
            }
            BlockColumn::Order => {
                Column::from(clustering.codes.iter().map(|code| code.cast_signed()).collect::<Vec<i32>>())
            }
            BlockColumn::Sizes => Column::from(clustering.sizes.clone()),
            BlockColumn::Key(column) => column.take(&clustering.firsts)?,
            BlockColumn::Named(column) => column.take(&clustering.stored)?,
        };
        let layout = match self {
            BlockColumn::Times(_) | BlockColumn::Seqs(_) | BlockColumn::Named(_) => {
                clustering.clusters.layout()
            }
            BlockColumn::Order | BlockColumn::Sizes | BlockColumn::Key(_) => Layout::even(column.len()),
        };
        Some((column, layout))
    }
}

/// The columns of a group in the order of its blocks.
fn block_columns<'a>(rows: &SegmentRows<'a>, by_key: bool) -> Vec<BlockColumn<'a>> {
    let mut columns = vec![BlockColumn::Times(rows.timestamps)];
    if let Seqs::Each(seqs) = rows.seqs {
        columns.push(BlockColumn::Seqs(seqs));
    }
    if by_key {
        columns.extend([BlockColumn::Order, BlockColumn::Sizes]);
    }
    columns.extend(rows.columns.iter().map(|(name, column)| match rows.keys.contains(&**name) {
        true => BlockColumn::Key(column),
        false => BlockColumn::Named(column),
    }));
    columns
}

/// What comes of each number below `count`, in their order.
fn each<T: Send + Sync>(workers: &dyn Workers, count: usize, make: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let made: Vec<OnceLock<T>> = (0..count).map(|_| OnceLock::new()).collect();
    workers.each(count, &|number| {
        if let Some(made) = made.get(number) {
            made.get_or_init(|| make(number));
        }
    });
    // Who shares the work may leave some of it.
    (0..).zip(made).map(|(number, made)| made.into_inner().unwrap_or_else(|| make(number))).collect()
}

fn write_groups(
    writer: &mut SealedWriter<'_>,
    name: &str,
    rows: &SegmentRows<'_>,
    columns: &[BlockColumn<'_>],
    groups: &[Range<usize>],
    footer: &mut Footer,
    workers: &dyn Workers,
) -> Result<(), StorageError> {
    let keys = columns.iter().filter_map(|column| match column {
        BlockColumn::Key(column) if footer.by_key => Some(*column),
        _ => None,
    });
    let keys: Vec<&Column> = keys.collect();
    let planned = each(workers, groups.len(), |number| {
        let rows = groups[number].clone();
        Planned { clustering: Clustering::of(&keys, &rows), rows }
    });
    for group in &planned {
        let clusters = group.clustering.as_ref().map_or(0, |clustering| clustering.clusters.count());
        footer.groups.push(group_info(rows, group.rows.clone(), clusters));
    }
    let made = each(workers, planned.len() * columns.len(), |number| {
        let (column, group) = (&columns[number % columns.len()], &planned[number / columns.len()]);
        make_block(name, column.stored(group))
    });
    for made in made {
        let (encoded, crc) = made?;
        let offset = writer.align()?;
        writer.append(&encoded.bytes)?;
        let length = encoded.bytes.len() as u64;
        footer.blocks.push(Block { offset, length, crc, shape: encoded.shape, zone: encoded.zone });
    }
    Ok(())
}

/// A block with its checksum, decoded and compared.
fn make_block(name: &str, stored: Option<(Column, Layout<'_>)>) -> Result<(Encoded, u32), StorageError> {
    let too_long = || StorageError::refused(name, "a text is longer than a block may hold; split it");
    let (column, layout) = stored.ok_or_else(too_long)?;
    let encoded = codec::encode(&column, layout);
    let back = codec::decode(&encoded.bytes, encoded.shape, layout);
    if !back.is_ok_and(|back| codec::same(&back, &column)) {
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
