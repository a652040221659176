//! Writing a segment anew, group by group.

use std::sync::Arc;

use super::cluster::Layout;
use super::codec;
use super::footer::{Block, Footer};
use super::write::{check, finish, write_group};
use super::{GroupInfo, Replaced, Segment, SegmentInfo, SegmentRows, Seqs};
use crate::columns::{Column, Columns};
use crate::disk::Disk;
use crate::error::StorageError;
use crate::limits::SEGMENT_ROWS_MAX;
use crate::sealed::SealedWriter;
use crate::stamp::DatabaseId;

/// A segment that takes the place of another and is written group by group, so that no more than one is in memory. Each row
/// has a seq of its own.
pub struct SegmentWriter<'d> {
    writer: SealedWriter<'d>,
    name: String,
    db_id: DatabaseId,
    footer: Footer,
}

impl<'d> SegmentWriter<'d> {
    /// Begins a segment with the columns of `other`, whose place it takes; `replaced` names that one and those whose places
    /// that took, by rising numbers of files.
    ///
    /// # Errors
    /// `Exists`; `Io`; `DiskFull`.
    pub fn like(
        disk: &'d dyn Disk,
        name: &str,
        db_id: DatabaseId,
        other: &Segment,
        replaced: &[Replaced],
    ) -> Result<SegmentWriter<'d>, StorageError> {
        let footer = Footer {
            schema: other.schema().to_vec(),
            keys: other.keys().to_vec(),
            each_seq: true,
            by_key: other.is_by_key(),
            rows: 0,
            ts_min: i64::MAX,
            ts_max: i64::MIN,
            after: 0,
            replaced: replaced.to_vec(),
            groups: Vec::new(),
            blocks: Vec::new(),
        };
        let writer = SealedWriter::create(disk, name)?;
        Ok(SegmentWriter { writer, name: name.to_string(), db_id, footer })
    }

    /// Appends rows that were in one group, as one. They have the columns of the segment, and are none of them earlier than
    /// what was appended before.
    ///
    /// # Errors
    /// `Refused` where they are or have not; `TooLarge`; `Io`; `DiskFull`.
    pub fn append(
        &mut self,
        timestamps: &[i64],
        seqs: &[u64],
        columns: &Columns,
    ) -> Result<(), StorageError> {
        let Footer { schema, keys, .. } = &self.footer;
        let keys = schema.iter().zip(keys).filter(|(_, is_key)| **is_key).map(|((name, _), _)| name.clone());
        let keys: Vec<Arc<str>> = keys.collect();
        let (keys, seqs) = (keys.iter().map(|name| &**name).collect(), Seqs::Each(seqs));
        let rows = SegmentRows {
            timestamps,
            seqs,
            columns,
            keys: &keys,
            by_key: self.footer.by_key,
            after: 0,
            replaced: &[],
        };
        check(&self.name, &rows)?;
        let of_rows = columns.iter().map(|(name, column)| (name, column.column_type()));
        let of_segment = self.footer.schema.iter().map(|(name, column_type)| (name, *column_type));
        if !of_rows.eq(of_segment) {
            return Err(StorageError::refused(&self.name, "rows have other columns than those before"));
        }
        let Some(first) = timestamps.first() else { return Ok(()) };
        self.follow(*first, timestamps.len())?;
        write_group(&mut self.writer, &self.name, &rows, 0..timestamps.len(), &mut self.footer)
    }

    /// Appends a group of the segment that this one is like, its bytes as they are once their checksums were compared. Where
    /// its rows have no seqs they get `seq`.
    ///
    /// # Errors
    /// `Corrupt`; `Refused` where there is no such group or it is earlier than what was appended before; `TooLarge`; `Io`;
    /// `DiskFull`.
    pub fn copy(&mut self, from: &Segment, group: usize, seq: u64) -> Result<(), StorageError> {
        let (info, blocks) = (from.info_of(group)?, from.checked_blocks(group)?);
        self.follow(info.ts_min, info.rows)?;
        let mut blocks = blocks.into_iter();
        for (block, bytes) in blocks.by_ref().take(1) {
            self.block(block, bytes)?;
        }
        let info = match from.has_seqs() {
            true => info,
            false => {
                let layout = Layout::even(info.rows);
                let seqs = codec::encode(&Column::from(vec![seq.cast_signed(); info.rows]), layout);
                let (length, crc) = (seqs.bytes.len() as u64, crc32fast::hash(&seqs.bytes));
                let block = Block { offset: 0, length, crc, shape: seqs.shape, zone: seqs.zone };
                self.block(block, &seqs.bytes)?;
                GroupInfo { seq_min: seq, seq_max: seq, ..info }
            }
        };
        for (block, bytes) in blocks {
            self.block(block, bytes)?;
        }
        self.footer.groups.push(info);
        Ok(())
    }

    /// Makes it durable under its name.
    ///
    /// # Errors
    /// `TooLarge`; `Io`; `DiskFull`.
    pub fn finish(mut self) -> Result<SegmentInfo, StorageError> {
        let groups = &self.footer.groups;
        self.footer.ts_min = groups.first().map_or(i64::MAX, |group| group.ts_min);
        self.footer.ts_max = groups.last().map_or(i64::MIN, |group| group.ts_max);
        finish(self.writer, &self.name, self.db_id, &self.footer)
    }

    /// Counts rows that come next, unless they are earlier than those before.
    fn follow(&mut self, ts_min: i64, rows: usize) -> Result<(), StorageError> {
        if self.footer.groups.last().is_some_and(|before| before.ts_max > ts_min) {
            let what = "its timestamps fall somewhere; sort the rows by time";
            return Err(StorageError::refused(&self.name, what));
        }
        self.footer.rows += rows as u64;
        StorageError::limit(&self.name, "the number of rows", self.footer.rows, SEGMENT_ROWS_MAX)
    }

    /// Writes a block where the file has come to.
    fn block(&mut self, block: Block, bytes: &[u8]) -> Result<(), StorageError> {
        let offset = self.writer.align()?;
        self.writer.append(bytes)?;
        self.footer.blocks.push(Block { offset, ..block });
        Ok(())
    }
}
