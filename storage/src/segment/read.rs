//! Reading a segment.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::cluster::{self, Clusters, Layout};
use super::codec::{self, Encoding};
use super::footer::{Block, Footer};
use super::part::{Bytes, Part};
use super::zone::Zone;
use super::{GroupInfo, Replaced, SEGMENT, SegmentInfo};
use crate::columns::{Column, Values};
use crate::disk::Disk;
use crate::error::{Damage, StorageError};
use crate::limits::{ALIGNMENT_BYTES, FOOTER_BYTES_MAX};
use crate::map::Mapped;
use crate::sealed;
use crate::stamp::{self, DatabaseId};
use crate::touched::Touched;
use crate::value::ColumnType;

/// An open segment. Its footer was checked; a block is checked when it is first read.
#[derive(Debug)]
pub struct Segment {
    info: SegmentInfo,
    file: Mapped,
    footer: Box<Footer>,
    /// The columns of the schema, by their names.
    by_name: Box<[u16]>,
    touched: Touched,
    /// Whether somebody who reads may hold little.
    is_let_go: AtomicBool,
    /// Of groups of which they were asked for.
    clusters: Box<[OnceLock<Arc<Clusters>>]>,
}

/// What is known of a block without reading it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockInfo {
    /// How it is written.
    pub encoding: Encoding,
    /// Its length in the file, bytes.
    pub bytes: u64,
    /// Number of rows.
    pub rows: usize,
    /// Number of nulls.
    pub nulls: usize,
    /// Range of its values, where it has one.
    pub zone: Option<Zone>,
}

/// Bytes of a block whose pages are in memory together for its checksum, where little may be held.
const CHECKED_BYTES: usize = 1 << 20;

/// Clusters of a group, where these are no more, are kept in memory once they were asked for.
const CLUSTERS_KEPT: usize = 1_024;

const NO_GROUP: &str = "the segment has no such row group; ask for one below its number of groups";

impl Segment {
    /// Opens a segment and checks all of its structure. `expected` is what the caller's records say of it: the
    /// file must be that one and no other.
    ///
    /// # Errors
    /// `Missing`, `Corrupt`, `Version`, `ForeignDatabase`, `TooLarge`, `Io`.
    pub fn open(
        disk: &dyn Disk,
        name: &str,
        db_id: DatabaseId,
        expected: Option<&SegmentInfo>,
    ) -> Result<Segment, StorageError> {
        let file = sealed::map(disk, name)?;
        let (stamp, bytes) = stamp::closing(&file, SEGMENT, name, Some(db_id))?;
        StorageError::limit(name, "the footer's length in bytes", stamp.length, FOOTER_BYTES_MAX)?;
        let footer = Footer::decode(bytes, stamp.offset).map_err(|damage| damage.at(name, stamp.offset))?;
        if stamp::version(&file) < Some(footer.kind().version) {
            let what = "groups by key, or compressed texts, are of a later format version than the file";
            return Err(StorageError::corrupt(name, stamp.offset, what));
        }
        let info = SegmentInfo {
            file: name.to_string(),
            bytes: file.len() as u64,
            rows: footer.rows,
            ts_min: footer.ts_min,
            ts_max: footer.ts_max,
            footer_hash: *blake3::hash(bytes).as_bytes(),
        };
        if expected.is_some_and(|expected| *expected != info) {
            return Err(StorageError::corrupt(name, stamp.offset, "it is not the segment that is recorded"));
        }
        let touched = Touched::new(footer.blocks.len());
        // There are 4,096 at most.
        let mut by_name: Box<[u16]> = (0..footer.schema.len() as u16).collect();
        by_name.sort_unstable_by_key(|column| footer.schema.get(usize::from(*column)).map(|(name, _)| name));
        let clusters = footer.groups.iter().map(|_| OnceLock::new()).collect();
        let is_let_go = AtomicBool::new(false);
        Ok(Segment { info, file, footer: Box::new(footer), by_name, touched, is_let_go, clusters })
    }

    /// Number of rows.
    pub fn rows(&self) -> u64 {
        self.footer.rows
    }

    /// What identifies the file.
    pub fn info(&self) -> &SegmentInfo {
        &self.info
    }

    /// Names and types of keys and fields, in the order in which they were written.
    pub fn schema(&self) -> &[(Arc<str>, ColumnType)] {
        &self.footer.schema
    }

    /// Whether each column of the schema is a key.
    pub fn keys(&self) -> &[bool] {
        &self.footer.keys
    }

    /// Number of row groups.
    pub fn groups(&self) -> usize {
        self.footer.groups.len()
    }

    /// Whether each row has a commit seq of its own.
    pub fn has_seqs(&self) -> bool {
        self.footer.each_seq
    }

    /// A commit seq that is less than the one of its rows, as far as was known when it was written; 0 where each row has
    /// one of its own.
    pub fn after(&self) -> u64 {
        self.footer.after
    }

    /// Segments whose places it took, by rising numbers of files.
    pub fn replaced(&self) -> &[Replaced] {
        &self.footer.replaced
    }

    /// A row group, from 0. Panics where there is none, as a slice does.
    pub fn group(&self, i: usize) -> GroupInfo {
        self.footer.groups[i]
    }

    /// What is known of a column's block in a group; `None` where there is no such group or column.
    pub fn block(&self, group: usize, name: &str) -> Option<BlockInfo> {
        let block = self.footer.blocks.get(self.block_of(group, self.position(name)?)?)?;
        Some(BlockInfo {
            encoding: block.shape.encoding,
            bytes: block.length,
            rows: block.shape.rows,
            nulls: block.shape.nulls,
            zone: block.zone,
        })
    }

    /// Whether rows of its groups may be stored by key.
    pub fn is_by_key(&self) -> bool {
        self.footer.by_key
    }

    /// Bytes in the file of a group's timestamps, and of its seqs and the order of its rows where it has some; 0 where there is
    /// no such group.
    pub fn order_bytes(&self, group: usize) -> u64 {
        let blocks = self.footer.blocks.chunks(self.footer.width()).nth(group).unwrap_or_default();
        blocks.iter().take(self.footer.lead()).map(|block| block.length).sum()
    }

    /// Lets the pages of a group go that were read: they count to the memory of this process no more until they are read again. From then
    /// on those that are read for a checksum are let go as well.
    pub fn let_go(&self, group: usize) {
        self.is_let_go.store(true, Ordering::Relaxed);
        let blocks = self.footer.blocks.chunks(self.footer.width()).nth(group).unwrap_or_default();
        let start = blocks.iter().map(|block| block.offset).min().unwrap_or(0);
        let end = blocks.iter().map(|block| block.offset.saturating_add(block.length)).max().unwrap_or(0);
        // Lengths of maps are those of memory.
        self.file.let_go(start as usize..end as usize);
    }

    /// Timestamps of a group, nanoseconds since 1970 UTC, never falling.
    ///
    /// # Errors
    /// `Corrupt`; `Refused` where there is no such group.
    pub fn timestamps(&self, group: usize) -> Result<Vec<i64>, StorageError> {
        self.timestamps_of(group, 0..self.info_of(group)?.rows)
    }

    /// The same of some rows of a group.
    ///
    /// # Errors
    /// As [`Segment::timestamps`].
    pub fn timestamps_of(&self, group: usize, rows: Range<usize>) -> Result<Vec<i64>, StorageError> {
        self.timestamps_in(&self.part(group, None)?, rows)
    }

    /// The same of some rows of a part, which is not one of rows as they are stored.
    ///
    /// # Errors
    /// As [`Segment::timestamps`].
    pub fn timestamps_in(&self, part: &Part, rows: Range<usize>) -> Result<Vec<i64>, StorageError> {
        let info = self.info_of(part.group())?;
        let (column, block) = self.read(part, 0, rows.clone())?;
        let times = integers(column);
        let zone = Some(Zone::I64 { min: info.ts_min, max: info.ts_max });
        let is_start = rows.start == 0 && part.is_whole();
        let is_end = rows.end == info.rows && part.is_whole();
        let first = times.first().filter(|_| is_start).is_none_or(|first| *first == info.ts_min);
        let last = times.last().filter(|_| is_end).is_none_or(|last| *last == info.ts_max);
        let within = |at: Option<&i64>| at.is_none_or(|at| (info.ts_min..=info.ts_max).contains(at));
        let is_within = within(times.first()) && within(times.last());
        if !times.is_sorted() || !first || !last || !is_within || block.zone != zone {
            return Err(self.damage(&block, "timestamps fall or are not those of the directory"));
        }
        Ok(times)
    }

    /// Commit seqs of a group's rows, or `None` where all rows have one that only those know who refer to the
    /// file.
    ///
    /// # Errors
    /// `Corrupt`; `Refused` where there is no such group.
    pub fn seqs(&self, group: usize) -> Result<Option<Vec<u64>>, StorageError> {
        let info = self.info_of(group)?;
        if !self.footer.each_seq {
            return Ok(None);
        }
        let part = self.part(group, None)?;
        let (column, block) = self.read(&part, 1, 0..part.rows())?;
        let seqs: Vec<u64> = integers(column).into_iter().map(i64::cast_unsigned).collect();
        let ends = seqs.iter().copied().min().zip(seqs.iter().copied().max());
        if ends != Some((info.seq_min, info.seq_max)) {
            return Err(self.damage(&block, "seqs are not those of the directory"));
        }
        Ok(Some(seqs))
    }

    /// The same of some rows of a group.
    ///
    /// # Errors
    /// As [`Segment::seqs`].
    pub fn seqs_of(&self, group: usize, rows: Range<usize>) -> Result<Option<Vec<u64>>, StorageError> {
        self.seqs_in(&self.part(group, None)?, rows)
    }

    /// The same of some rows of a part.
    ///
    /// # Errors
    /// As [`Segment::seqs`].
    pub fn seqs_in(&self, part: &Part, rows: Range<usize>) -> Result<Option<Vec<u64>>, StorageError> {
        let info = self.info_of(part.group())?;
        if !self.footer.each_seq {
            return Ok(None);
        }
        let (column, block) = self.read(part, 1, rows)?;
        let seqs: Vec<u64> = integers(column).into_iter().map(i64::cast_unsigned).collect();
        if seqs.iter().any(|seq| !(info.seq_min..=info.seq_max).contains(seq)) {
            return Err(self.damage(&block, "seqs are not those of the directory"));
        }
        Ok(Some(seqs))
    }

    /// A column of a group, or `None` where the segment has no column of this name.
    ///
    /// # Errors
    /// `Corrupt`; `Refused` where there is no such group.
    pub fn column(&self, group: usize, name: &str) -> Result<Option<Column>, StorageError> {
        let part = self.part(group, None)?;
        self.column_in(&part, name, 0..part.rows())
    }

    /// Some rows of a column of a group. Of numbers, and of texts that are written as codes, those vectors alone are decoded
    /// that hold one of them.
    ///
    /// # Errors
    /// As [`Segment::column`].
    pub fn column_of(
        &self,
        group: usize,
        name: &str,
        rows: Range<usize>,
    ) -> Result<Option<Column>, StorageError> {
        self.column_in(&self.part(group, None)?, name, rows)
    }

    /// The same of some rows of a part.
    ///
    /// # Errors
    /// As [`Segment::column`].
    pub fn column_in(
        &self,
        part: &Part,
        name: &str,
        rows: Range<usize>,
    ) -> Result<Option<Column>, StorageError> {
        let Some(position) = self.position(name) else { return Ok(None) };
        Ok(Some(self.read(part, position, rows)?.0))
    }

    /// A range that holds all values of some rows of a part that are not null; `None` where that is not known before they are read,
    /// or the block is damaged.
    pub fn bounds_in(&self, part: &Part, name: &str, rows: Range<usize>) -> Option<Zone> {
        let position = self.position(name)?;
        let block = self.checked(part.group(), position).ok()?;
        part.bounds(self.stored(&block, position), rows)
    }

    /// The same of rows of a group in the order of time.
    pub fn bounds_of(&self, group: usize, name: &str, rows: Range<usize>) -> Option<Zone> {
        let info = self.info_of(group).ok()?;
        // Rows that are put in the order of time first have no vectors of their own.
        if info.clusters > 0 {
            return None;
        }
        self.bounds_in(&Part::in_time(group, info.rows), name, rows)
    }

    /// Single rows of a column of a group, which rise.
    ///
    /// # Errors
    /// As [`Segment::column`].
    pub fn column_at(&self, group: usize, name: &str, rows: &[u32]) -> Result<Option<Column>, StorageError> {
        self.column_at_in(&self.part(group, None)?, name, rows)
    }

    /// The same of rows of a part.
    ///
    /// # Errors
    /// As [`Segment::column`].
    pub fn column_at_in(
        &self,
        part: &Part,
        name: &str,
        rows: &[u32],
    ) -> Result<Option<Column>, StorageError> {
        let Some(position) = self.position(name) else { return Ok(None) };
        let block = self.checked(part.group(), position)?;
        let column = part.column_at(self.stored(&block, position), rows);
        column.map_err(|damage| damage.at(&self.info.file, block.offset)).map(Some)
    }

    /// The distinct texts of a column of a group, where it is written as codes of them, or is a key and rows are stored by key,
    /// and has no null.
    ///
    /// # Errors
    /// As [`Segment::column`].
    pub fn dictionary(&self, group: usize, name: &str) -> Result<Option<Column>, StorageError> {
        let Some(position) = self.position(name) else { return Ok(None) };
        let block = self.checked(group, position)?;
        let info = self.info_of(group)?;
        // What of the rows is asked for makes no difference.
        let part = match info.clusters {
            0 => Part::in_time(group, info.rows),
            _ => Part::one(group, self.clusters(group)?, 0),
        };
        let distinct = part.dictionary(self.stored(&block, position));
        distinct.map_err(|damage| damage.at(&self.info.file, block.offset))
    }

    /// For some rows of a column that has a [`Segment::dictionary`], the places of their texts in it.
    ///
    /// # Errors
    /// As [`Segment::column`], and `Corrupt` where it has none.
    pub fn codes(&self, group: usize, name: &str, rows: Range<usize>) -> Result<Vec<u32>, StorageError> {
        self.codes_in(&self.part(group, None)?, name, rows)
    }

    /// The same of some rows of a part.
    ///
    /// # Errors
    /// As [`Segment::codes`].
    pub fn codes_in(&self, part: &Part, name: &str, rows: Range<usize>) -> Result<Vec<u32>, StorageError> {
        let position = self.position(name).unwrap_or(usize::MAX);
        let block = self.checked(part.group(), position)?;
        part.codes(self.stored(&block, position), rows)
            .map_err(|damage| damage.at(&self.info.file, block.offset))
    }

    /// The keys of a group whose rows are stored by key: a key column, one row for each distinct key; `None` where rows are
    /// stored in the order of time, or this is no key.
    ///
    /// # Errors
    /// As [`Segment::column`].
    pub fn cluster_keys(&self, group: usize, name: &str) -> Result<Option<Column>, StorageError> {
        let key = self.position(name).filter(|position| self.footer.is_key(*position));
        let (Some(position), 1..) = (key, self.info_of(group)?.clusters) else { return Ok(None) };
        let block = self.checked(group, position)?;
        let keys = self.stored(&block, position).keys();
        keys.map_err(|damage| damage.at(&self.info.file, block.offset)).map(Some)
    }

    /// The rows of a group in the order of time: those of one of its distinct keys by its number, or all.
    ///
    /// # Errors
    /// `Corrupt`; `Refused` where there is no such group or key.
    pub fn part(&self, group: usize, cluster: Option<usize>) -> Result<Part, StorageError> {
        let info = self.info_of(group)?;
        if cluster.is_some_and(|cluster| cluster >= info.clusters) {
            return Err(StorageError::refused(&self.info.file, "the group has not so many keys"));
        }
        match (info.clusters, cluster) {
            (0, _) => Ok(Part::in_time(group, info.rows)),
            (1, _) => Ok(Part::one(group, self.clusters(group)?, 0)),
            (_, Some(cluster)) => Ok(Part::one(group, self.clusters(group)?, cluster)),
            (_, None) => self.part_apart(group),
        }
    }

    /// All rows of a group as they are stored: by key where they are, so that they come in no order of time.
    ///
    /// # Errors
    /// As [`Segment::part`].
    pub fn part_as_stored(&self, group: usize) -> Result<Part, StorageError> {
        match self.info_of(group)?.clusters {
            0 | 1 => self.part(group, None),
            _ => Ok(Part::by_key(group, self.clusters(group)?)),
        }
    }

    /// All rows of a group that lie by key.
    fn part_apart(&self, group: usize) -> Result<Part, StorageError> {
        let clusters = self.clusters(group)?;
        let block = self.checked(group, self.footer.order())?;
        let layout = Layout::even(block.shape.rows);
        let codes = codec::decode(self.bytes_of(&block), block.shape, layout);
        let part = codes.and_then(|codes| Part::apart(group, clusters, numbers(codes)));
        part.map_err(|damage| damage.at(&self.info.file, block.offset))
    }

    /// Where the clusters of a group lie.
    fn clusters(&self, group: usize) -> Result<Arc<Clusters>, StorageError> {
        let info = self.info_of(group)?;
        if let Some(known) = self.clusters.get(group).and_then(OnceLock::get) {
            return Ok(known.clone());
        }
        let block = self.checked(group, self.footer.order() + 1)?;
        let sizes = codec::decode(self.bytes_of(&block), block.shape, Layout::even(block.shape.rows));
        let clusters = sizes.and_then(|sizes| match sizes.values() {
            Values::I32(sizes) => Clusters::of(sizes, info.rows),
            _ => Err(Damage("the sizes of the clusters are no numbers")),
        });
        let clusters = clusters.map_err(|damage| damage.at(&self.info.file, block.offset))?;
        let clusters = Arc::new(clusters);
        if clusters.count() > CLUSTERS_KEPT {
            return Ok(clusters);
        }
        Ok(self.clusters.get(group).map_or(clusters.clone(), |known| known.get_or_init(|| clusters).clone()))
    }

    /// Reads everything and compares it with its checksums, zones and order; the bytes between blocks are zero.
    /// Returns the bytes checked, which is the file's length.
    ///
    /// # Errors
    /// `Corrupt` for the first damage found.
    pub fn verify(&self) -> Result<u64, StorageError> {
        for block in &self.footer.blocks {
            self.check_sum(block)?;
            let end = (block.offset + block.length) as usize;
            let gap = self.file.get(end..end.next_multiple_of(ALIGNMENT_BYTES)).unwrap_or_default();
            if gap.iter().any(|byte| *byte != 0) {
                return Err(self.damage(block, "the gap after a block is not zero"));
            }
        }
        for group in 0..self.groups() {
            self.verify_order(group)?;
            self.timestamps(group)?;
            self.seqs(group)?;
            for position in 0..self.footer.width() {
                let (column, block) = self.read_stored(group, position)?;
                if !Zone::same(&Zone::of(&column), &block.zone) {
                    return Err(self.damage(&block, "a zone is not that of the values"));
                }
            }
        }
        Ok(self.file.len() as u64)
    }

    /// Checks what readers of rows need not know of the order of a group: that one key has one cluster, that clusters lie in the
    /// order of their first rows, and that a group in the order of time has no more than two zeros.
    fn verify_order(&self, group: usize) -> Result<(), StorageError> {
        if !self.footer.by_key {
            return Ok(());
        }
        let clusters = self.info_of(group)?.clusters;
        let (order, block) = self.read_stored(group, self.footer.order())?;
        let (sizes, _) = self.read_stored(group, self.footer.order() + 1)?;
        let codes = numbers(order);
        if clusters == 0 {
            let is_zero = codes == [0] && numbers(sizes) == [0];
            let what = "a group in the order of time has another order, too";
            return if is_zero { Ok(()) } else { Err(self.damage(&block, what)) };
        }
        let mut met = 0;
        let rise = codes.iter().all(|code| {
            met += u32::from(*code == met);
            *code < met
        });
        if !rise {
            return Err(self.damage(&block, "clusters are not in the order of their first rows"));
        }
        // One key needs no order to be read, but has it.
        self.part_apart(group)?;
        let keys = (0..self.footer.width()).filter(|position| self.footer.is_key(*position));
        let keys = keys.map(|position| Ok(self.read_stored(group, position)?.0));
        match cluster::are_distinct(&keys.collect::<Result<Vec<_>, StorageError>>()?, clusters) {
            true => Ok(()),
            false => Err(self.damage(&block, "a key has several clusters")),
        }
    }

    /// The blocks of a group with their bytes, whose checksums were compared.
    pub(super) fn checked_blocks(&self, group: usize) -> Result<Vec<(Block, &[u8])>, StorageError> {
        let blocks = self.footer.blocks.chunks(self.footer.width()).nth(group).unwrap_or_default();
        blocks.iter().map(|block| self.check_sum(block).map(|()| (*block, self.bytes_of(block)))).collect()
    }

    fn position(&self, name: &str) -> Option<usize> {
        let name_of = |column: &u16| self.footer.schema.get(usize::from(*column)).map(|(name, _)| &**name);
        let at = self.by_name.binary_search_by(|column| name_of(column).cmp(&Some(name))).ok()?;
        Some(self.footer.lead() + usize::from(*self.by_name.get(at)?))
    }

    /// The number of a block.
    fn block_of(&self, group: usize, position: usize) -> Option<usize> {
        let block = group.checked_mul(self.footer.width())?.checked_add(position)?;
        (group < self.groups() && position < self.footer.width()).then_some(block)
    }

    pub(super) fn info_of(&self, group: usize) -> Result<GroupInfo, StorageError> {
        let info = self.footer.groups.get(group).copied();
        info.ok_or_else(|| StorageError::refused(&self.info.file, NO_GROUP))
    }

    /// Some rows of a part, of a block of its group.
    fn read(
        &self,
        part: &Part,
        position: usize,
        rows: Range<usize>,
    ) -> Result<(Column, Block), StorageError> {
        let block = self.checked(part.group(), position)?;
        let column = part
            .column(self.stored(&block, position), rows)
            .map_err(|damage| damage.at(&self.info.file, block.offset))?;
        Ok((column, block))
    }

    /// A block as it is stored.
    fn read_stored(&self, group: usize, position: usize) -> Result<(Column, Block), StorageError> {
        let block = self.checked(group, position)?;
        let lies_by_key = self.info_of(group)?.clusters > 0
            && (position < self.footer.order() || position >= self.footer.lead())
            && !self.footer.is_key(position);
        let clusters = if lies_by_key { Some(self.clusters(group)?) } else { None };
        let layout = clusters.as_ref().map_or(Layout::even(block.shape.rows), |clusters| clusters.layout());
        let column = codec::decode(self.bytes_of(&block), block.shape, layout)
            .map_err(|damage| damage.at(&self.info.file, block.offset))?;
        Ok((column, block))
    }

    fn stored<'s>(&'s self, block: &Block, position: usize) -> Bytes<'s> {
        Bytes { bytes: self.bytes_of(block), shape: block.shape, is_key: self.footer.is_key(position) }
    }

    /// A block, its checksum compared at the first time.
    fn checked(&self, group: usize, position: usize) -> Result<Block, StorageError> {
        let found =
            self.block_of(group, position).and_then(|part| Some((part, *self.footer.blocks.get(part)?)));
        let (part, block) = found.ok_or_else(|| StorageError::refused(&self.info.file, NO_GROUP))?;
        if !self.touched.contains(part) {
            self.check_sum(&block)?;
            self.touched.insert(part);
        }
        Ok(block)
    }

    fn check_sum(&self, block: &Block) -> Result<(), StorageError> {
        let mut hasher = crc32fast::Hasher::new();
        let mut at = block.offset as usize;
        for some in self.bytes_of(block).chunks(CHECKED_BYTES) {
            hasher.update(some);
            if self.is_let_go.load(Ordering::Relaxed) {
                self.file.let_go(at..at + some.len());
            }
            at += some.len();
        }
        if hasher.finalize() == block.crc {
            return Ok(());
        }
        let what = format!("the block of {} bytes there does not match its checksum", block.length);
        Err(StorageError::corrupt(&self.info.file, block.offset, what))
    }

    /// The bytes of a block, which the footer's check found to lie in the file.
    fn bytes_of(&self, block: &Block) -> &[u8] {
        self.file.get(block.offset as usize..(block.offset + block.length) as usize).unwrap_or_default()
    }

    fn damage(&self, block: &Block, what: &'static str) -> StorageError {
        Damage(what).at(&self.info.file, block.offset)
    }
}

/// The numbers of clusters; one that is below zero is none.
fn numbers(column: Column) -> Vec<u32> {
    match column.into_parts().0 {
        Values::I32(numbers) => numbers.into_iter().map(i32::cast_unsigned).collect(),
        _ => Vec::new(),
    }
}

fn integers(column: Column) -> Vec<i64> {
    match column.into_parts().0 {
        Values::I64(values) | Values::Timestamp(values) => values,
        _ => Vec::new(),
    }
}
