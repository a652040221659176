//! Writing a segment, group by group.

use std::ops::Range;

use super::codec;
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

/// Writes rows as a segment, durable on return. Every block is decoded and compared with what was given before
/// the file is published.
///
/// A row group has 131,072 rows, fewer where its text would pass the limit of a block.
///
/// # Errors
/// `Refused` where lengths differ, timestamps fall or a name is empty; `TooLarge`; `Exists`; `Io`; `DiskFull`.
pub fn write_segment(
    disk: &dyn Disk,
    name: &str,
    db_id: DatabaseId,
    rows: &SegmentRows<'_>,
) -> Result<SegmentInfo, StorageError> {
    write(disk, name, db_id, rows, Cut::FULL)
}

/// Where a row group ends.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    /// Rows of a full group, 1 to 131,072.
    pub(super) rows: usize,
    /// Bytes of text that one column of a group holds at most, 1 to the limit of a block.
    pub(super) text_bytes: usize,
}

impl Cut {
    /// Groups as large as the format allows.
    const FULL: Cut = Cut { rows: GROUP_ROWS_MAX, text_bytes: BLOCK_BYTES_MAX };
}

/// The same, with groups that may be smaller.
pub(super) fn write(
    disk: &dyn Disk,
    name: &str,
    db_id: DatabaseId,
    rows: &SegmentRows<'_>,
    cut: Cut,
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
    let mut start = 0;
    while start < times.len() {
        let range = start..group_end(name, rows, start, cut)?;
        start = range.end;
        write_group(&mut writer, name, rows, range, &mut footer)?;
    }
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

fn check(name: &str, rows: &SegmentRows<'_>) -> Result<(), StorageError> {
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

fn write_group(
    writer: &mut SealedWriter<'_>,
    name: &str,
    rows: &SegmentRows<'_>,
    range: Range<usize>,
    footer: &mut Footer,
) -> Result<(), StorageError> {
    let times = &rows.timestamps[range.clone()];
    let mut group = GroupInfo {
        rows: times.len(),
        ts_min: times.first().copied().unwrap_or_default(),
        ts_max: times.last().copied().unwrap_or_default(),
        seq_min: 0,
        seq_max: 0,
    };
    let mut columns = vec![Column::from(times.iter().copied().map(Timestamp).collect::<Vec<_>>())];
    if let Seqs::Each(seqs) = rows.seqs {
        let seqs = &seqs[range.clone()];
        group.seq_min = seqs.iter().copied().min().unwrap_or_default();
        group.seq_max = seqs.iter().copied().max().unwrap_or_default();
        columns.push(Column::from(seqs.iter().map(|seq| seq.cast_signed()).collect::<Vec<i64>>()));
    }
    footer.groups.push(group);
    let columns =
        columns.into_iter().chain(rows.columns.iter().map(|(_, column)| column.slice(range.clone())));
    for column in columns {
        let encoded = codec::encode(&column);
        let back = codec::decode(&encoded.bytes, encoded.shape);
        if !back.is_ok_and(|back| codec::same(&back, &column)) {
            let (file, column_type) = (name.to_string(), column.column_type());
            return Err(StorageError::Unfaithful { file, column_type });
        }
        let offset = writer.align()?;
        writer.append(&encoded.bytes)?;
        footer.blocks.push(Block {
            offset,
            length: encoded.bytes.len() as u64,
            crc: crc32fast::hash(&encoded.bytes),
            shape: encoded.shape,
            zone: encoded.zone,
        });
    }
    Ok(())
}
