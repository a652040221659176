//! The footer of a segment: columns, row groups, blocks.

use std::sync::Arc;

use super::cluster::CLUSTER_ROWS;
use super::codec::{Encoding, Shape};
use super::zone::Zone;
use super::{BY_KEY, GroupInfo, IN_TIME, Replaced, SEGMENT};
use crate::cursor::Cursor;
use crate::error::Damage;
use crate::limits::{
    ALIGNMENT_BYTES, BLOCK_BYTES_MAX, COLUMNS_MAX, GROUP_ROWS_MAX, NAME_BYTES_MAX, SEGMENT_ROWS_MAX,
};
use crate::stamp::Kind;
use crate::value::ColumnType;

/// The bit of a column's type that says that it is a key.
const KEY: u8 = 0x80;

/// The bit of a block's flags that says that its zone is given.
const HAS_ZONE: u8 = 1;

/// Where a block lies and what it holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    /// Bytes from the start of the file; a multiple of 64.
    pub(super) offset: u64,
    /// Length, bytes.
    pub(super) length: u64,
    pub(super) crc: u32,
    pub(super) shape: Shape,
    pub(super) zone: Option<Zone>,
}

/// All that the footer says. Blocks of a group: timestamps, then seqs where each row has its own, then the order and the sizes
/// of clusters where groups may have some, then the columns in order.
#[derive(Debug)]
pub(super) struct Footer {
    pub(super) schema: Vec<(Arc<str>, ColumnType)>,
    /// Whether a column of the schema is a key.
    pub(super) keys: Vec<bool>,
    pub(super) each_seq: bool,
    /// Whether groups may have clusters. Each has an order and sizes then.
    pub(super) by_key: bool,
    pub(super) rows: u64,
    pub(super) ts_min: i64,
    pub(super) ts_max: i64,
    pub(super) after: u64,
    pub(super) replaced: Vec<Replaced>,
    pub(super) groups: Vec<GroupInfo>,
    /// The blocks of all groups, group by group.
    pub(super) blocks: Vec<Block>,
}

impl Footer {
    /// Blocks before those of the columns in each group.
    pub(super) fn lead(&self) -> usize {
        self.order() + 2 * usize::from(self.by_key)
    }

    /// The block of each group that has the clusters of the rows in the order of time, where groups may have some; their sizes
    /// come behind it.
    pub(super) fn order(&self) -> usize {
        1 + usize::from(self.each_seq)
    }

    /// Blocks of each group.
    pub(super) fn width(&self) -> usize {
        self.lead() + self.schema.len()
    }

    /// The least format version in which this can be said.
    pub(super) fn kind(&self) -> Kind {
        let is_later = |block: &Block| matches!(block.shape.encoding, Encoding::Symbols | Encoding::Lz4);
        match self.by_key {
            _ if self.blocks.iter().any(is_later) => SEGMENT,
            true => BY_KEY,
            false => IN_TIME,
        }
    }

    /// Whether block `i` of each group is one of a key.
    pub(super) fn is_key(&self, i: usize) -> bool {
        i.checked_sub(self.lead()).is_some_and(|column| self.keys.get(column) == Some(&true))
    }

    /// Rows of block `i` of a group.
    fn rows_of(&self, group: &GroupInfo, i: usize) -> usize {
        let is_order = self.by_key && i == self.order();
        let is_sizes = self.by_key && i == self.order() + 1;
        match group.clusters {
            0 if is_order || is_sizes => 1,
            1.. if is_sizes || self.is_key(i) => group.clusters,
            _ => group.rows,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&(self.schema.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.groups.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.rows.to_le_bytes());
        out.extend_from_slice(&self.ts_min.to_le_bytes());
        out.extend_from_slice(&self.ts_max.to_le_bytes());
        out.extend_from_slice(&[u8::from(self.each_seq), u8::from(self.by_key), 0, 0]);
        out.extend_from_slice(&(self.replaced.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.after.to_le_bytes());
        for replaced in &self.replaced {
            out.extend_from_slice(&replaced.file.to_le_bytes());
            out.extend_from_slice(&replaced.seq.to_le_bytes());
        }
        for ((name, column_type), is_key) in self.schema.iter().zip(&self.keys) {
            let role = if *is_key { KEY } else { 0 };
            out.extend_from_slice(&[column_type.tag() | role, name.len() as u8]);
            out.extend_from_slice(name.as_bytes());
        }
        out.resize(out.len().next_multiple_of(8), 0);
        for (group, blocks) in self.groups.iter().zip(self.blocks.chunks(self.width())) {
            out.extend_from_slice(&(group.rows as u32).to_le_bytes());
            out.extend_from_slice(&(group.clusters as u32).to_le_bytes());
            out.extend_from_slice(&group.ts_min.to_le_bytes());
            out.extend_from_slice(&group.ts_max.to_le_bytes());
            out.extend_from_slice(&group.seq_min.to_le_bytes());
            out.extend_from_slice(&group.seq_max.to_le_bytes());
            blocks.iter().for_each(|block| block.encode(&mut out));
        }
        out
    }

    /// Reads a footer that lies at `limit` in its file and checks everything in it that can be checked without
    /// the blocks. Groups follow each other in time, their rows add up, and the blocks fill the file from 0 up
    /// to the footer, each on a boundary directly after the one before.
    pub(super) fn decode(bytes: &[u8], limit: u64) -> Result<Footer, Damage> {
        let mut cursor = Cursor::new(bytes);
        let (width, count) = (cursor.u32()? as usize, cursor.u32()? as usize);
        let (rows, ts_min, ts_max) = (cursor.u64()?, cursor.i64()?, cursor.i64()?);
        let [each_seq @ (0 | 1), by_key @ (0 | 1)] = cursor.array()? else {
            return Err(Damage("the kind of seqs or of order is unknown"));
        };
        let (each_seq, by_key) = (each_seq == 1, by_key == 1);
        cursor.zeros(2)?;
        let replaced = cursor.u32()?;
        let after = cursor.u64()?;
        let replaced = replaced_of(&mut cursor, replaced)?;
        if (each_seq && after > 0) || (!each_seq && !replaced.is_empty()) {
            return Err(Damage("rows with seqs come after one, or rows without replace some"));
        }
        if width > COLUMNS_MAX || rows > SEGMENT_ROWS_MAX {
            return Err(Damage("there are more columns or rows than a segment holds"));
        }
        let (schema, keys) = schema_of(&mut cursor, width)?;
        if by_key && !keys.contains(&true) {
            return Err(Damage("rows lie by key, and there is none"));
        }
        let (groups, blocks) = Default::default();
        let mut footer =
            Footer { schema, keys, each_seq, by_key, rows, ts_min, ts_max, after, replaced, groups, blocks };
        let mut end = 0u64;
        for _ in 0..count {
            let group = group_of(&mut cursor, each_seq, by_key)?;
            footer.groups.push(group);
            for i in 0..footer.width() {
                let column_type = footer.type_of(i);
                let block = Block::decode(&mut cursor, column_type, footer.rows_of(&group, i))?;
                let aligned = block.offset.checked_add(block.length).filter(|end| *end <= limit);
                let aligned = aligned.and_then(|end| end.checked_next_multiple_of(ALIGNMENT_BYTES as u64));
                match aligned {
                    Some(aligned) if block.offset == end => end = aligned,
                    _ => return Err(Damage("a block's place in the file is wrong")),
                }
                if i < footer.lead() && block.shape.nulls > 0 {
                    return Err(Damage("timestamps, seqs or the order of rows are null"));
                }
                footer.blocks.push(block);
            }
        }
        cursor.end()?;
        if end != limit {
            return Err(Damage("the blocks do not fill the file"));
        }
        footer.check_groups()?;
        Ok(footer)
    }

    /// The type of block `i` of each group.
    fn type_of(&self, i: usize) -> ColumnType {
        match i.checked_sub(self.lead()) {
            Some(column) => self.schema.get(column).map_or(ColumnType::I64, |(_, t)| *t),
            None if i == 0 => ColumnType::Timestamp,
            None if i >= self.order() => ColumnType::I32,
            None => ColumnType::I64,
        }
    }

    fn check_groups(&self) -> Result<(), Damage> {
        let rows: u64 = self.groups.iter().map(|group| group.rows as u64).sum();
        let in_order = self.groups.is_sorted_by(|a, b| a.ts_max <= b.ts_min);
        let ts_min = self.groups.first().map_or(i64::MAX, |group| group.ts_min);
        let ts_max = self.groups.last().map_or(i64::MIN, |group| group.ts_max);
        if rows != self.rows || !in_order || (ts_min, ts_max) != (self.ts_min, self.ts_max) {
            return Err(Damage("the row groups do not add up to the segment"));
        }
        Ok(())
    }
}

fn replaced_of(cursor: &mut Cursor<'_>, count: u32) -> Result<Vec<Replaced>, Damage> {
    let mut all: Vec<Replaced> = Vec::new();
    for _ in 0..count {
        let replaced = Replaced { file: cursor.u64()?, seq: cursor.u64()? };
        if replaced.file <= all.last().map_or(0, |last| last.file) {
            return Err(Damage("the files of replaced segments do not rise"));
        }
        all.push(replaced);
    }
    Ok(all)
}

/// Names and types of the columns, and which of them are keys.
type Schema = (Vec<(Arc<str>, ColumnType)>, Vec<bool>);

fn schema_of(cursor: &mut Cursor<'_>, width: usize) -> Result<Schema, Damage> {
    let (mut schema, mut keys): Schema = Default::default();
    let mut names = std::collections::HashSet::new();
    for _ in 0..width {
        let tag = cursor.u8()?;
        let column_type = ColumnType::from_tag(tag & !KEY).ok_or(Damage("a column's type is unknown"))?;
        let length = usize::from(cursor.u8()?);
        let name = std::str::from_utf8(cursor.take(length)?).map_err(|_| Damage("a name is not UTF-8"))?;
        if name.is_empty() || length > NAME_BYTES_MAX || !names.insert(name) {
            return Err(Damage("a column's name is empty or comes twice"));
        }
        schema.push((name.into(), column_type));
        keys.push(tag & KEY != 0);
    }
    cursor.zeros(cursor.position().next_multiple_of(8) - cursor.position())?;
    Ok((schema, keys))
}

fn group_of(cursor: &mut Cursor<'_>, each_seq: bool, by_key: bool) -> Result<GroupInfo, Damage> {
    let (rows, clusters) = (cursor.u32()? as usize, cursor.u32()? as usize);
    let (ts_min, ts_max) = (cursor.i64()?, cursor.i64()?);
    let (seq_min, seq_max) = (cursor.u64()?, cursor.u64()?);
    let no_seqs = !each_seq && (seq_min, seq_max) != (0, 0);
    let no_clusters = clusters > if by_key { rows / CLUSTER_ROWS } else { 0 };
    if rows == 0 || rows > GROUP_ROWS_MAX || ts_min > ts_max || seq_min > seq_max || no_seqs || no_clusters {
        return Err(Damage("a row group's rows, clusters, times or seqs are wrong"));
    }
    Ok(GroupInfo { rows, clusters, ts_min, ts_max, seq_min, seq_max })
}

impl Block {
    fn encode(&self, out: &mut Vec<u8>) {
        let (min, max) = match self.zone {
            None => ([0; 8], [0; 8]),
            Some(Zone::I64 { min, max }) => (min.to_le_bytes(), max.to_le_bytes()),
            Some(Zone::F64 { min, max }) => (min.to_bits().to_le_bytes(), max.to_bits().to_le_bytes()),
            Some(Zone::Prefix { min, max }) => (min, max),
        };
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.length.to_le_bytes());
        out.extend_from_slice(&self.crc.to_le_bytes());
        out.extend_from_slice(&(self.shape.rows as u32).to_le_bytes());
        out.extend_from_slice(&(self.shape.nulls as u32).to_le_bytes());
        out.extend_from_slice(&[self.shape.encoding.tag(), u8::from(self.zone.is_some()) * HAS_ZONE, 0, 0]);
        out.extend_from_slice(&min);
        out.extend_from_slice(&max);
    }

    fn decode(cursor: &mut Cursor<'_>, column_type: ColumnType, rows: usize) -> Result<Block, Damage> {
        let (offset, length, crc) = (cursor.u64()?, cursor.u64()?, cursor.u32()?);
        let (block_rows, nulls) = (cursor.u32()? as usize, cursor.u32()? as usize);
        let encoding = Encoding::from_tag(cursor.u8()?).ok_or(Damage("a block's encoding is unknown"))?;
        let flags = cursor.u8()?;
        cursor.zeros(2)?;
        let (min, max): ([u8; 8], [u8; 8]) = (cursor.array()?, cursor.array()?);
        // Text of the greatest length, its offsets and its bitmap take less than twice the limit.
        if block_rows != rows || nulls > rows || flags & !HAS_ZONE != 0 || length > 2 * BLOCK_BYTES_MAX as u64
        {
            return Err(Damage("a block's rows, nulls, length or flags are wrong"));
        }
        let zone = (flags == HAS_ZONE).then(|| match column_type {
            ColumnType::F64 | ColumnType::F32 => {
                Zone::F64 { min: f64::from_le_bytes(min), max: f64::from_le_bytes(max) }
            }
            ColumnType::Utf8 | ColumnType::Bytes => Zone::Prefix { min, max },
            _ => Zone::I64 { min: i64::from_le_bytes(min), max: i64::from_le_bytes(max) },
        });
        let in_order = match zone {
            None => true,
            Some(Zone::I64 { min, max }) => min <= max,
            Some(Zone::F64 { min, max }) => min.total_cmp(&max).is_le() && !min.is_nan() && !max.is_nan(),
            Some(Zone::Prefix { min, max }) => min <= max,
        };
        if !in_order || (zone.is_none() && (min, max) != ([0; 8], [0; 8])) {
            return Err(Damage("a block's zone is wrong"));
        }
        Ok(Block { offset, length, crc, shape: Shape { column_type, encoding, rows, nulls }, zone })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const LIMIT: u64 = 640;

    fn block(offset: u64, column_type: ColumnType, rows: usize) -> Block {
        let shape = Shape { column_type, encoding: Encoding::Plain, rows, nulls: 0 };
        Block { offset, length: 100, crc: 1, shape, zone: Some(Zone::I64 { min: 1, max: 2 }) }
    }

    /// Two groups of a segment with seqs and one column; each block takes two boundaries.
    fn sound() -> Footer {
        let group =
            |ts_min, ts_max| GroupInfo { rows: 10, clusters: 0, ts_min, ts_max, seq_min: 3, seq_max: 4 };
        let (time, seq) = (ColumnType::Timestamp, ColumnType::I64);
        let float = |offset| Block {
            length: 64,
            zone: Some(Zone::F64 { min: -0.0, max: 0.0 }),
            ..block(offset, ColumnType::F64, 10)
        };
        Footer {
            schema: vec![("price".into(), ColumnType::F64)],
            keys: vec![true],
            each_seq: true,
            by_key: false,
            rows: 20,
            ts_min: 1,
            ts_max: 9,
            after: 0,
            replaced: vec![Replaced { file: 4, seq: 0 }, Replaced { file: 7, seq: 3 }],
            groups: vec![group(1, 5), group(5, 9)],
            blocks: vec![
                block(0, time, 10),
                block(128, seq, 10),
                float(256),
                block(320, time, 10),
                block(448, seq, 10),
                float(576),
            ],
        }
    }

    #[test]
    fn a_sound_footer_comes_back() {
        let bytes = sound().encode();
        assert_eq!(Footer::decode(&bytes, LIMIT).unwrap().encode(), bytes);
        for length in 0..bytes.len() {
            assert!(Footer::decode(&bytes[..length], LIMIT).is_err(), "cut to {length}");
        }
        for limit in [0, 576, 639, 641, 704, u64::MAX] {
            assert!(Footer::decode(&bytes, limit).is_err(), "the footer lies at {limit}");
        }
    }

    #[test]
    fn lies_are_refused() {
        type Lie = fn(&mut Footer);
        let lies: [(&str, Lie); 33] = [
            ("more rows than groups have", |f| f.rows = 21),
            ("too many rows", |f| f.rows = SEGMENT_ROWS_MAX + 1),
            ("an earlier start", |f| f.ts_min = 0),
            ("a later end", |f| f.ts_max = 10),
            ("groups out of order", |f| f.groups[1].ts_min = 4),
            ("a group that ends before it starts", |f| f.groups[0].ts_max = 0),
            ("seqs that fall", |f| f.groups[0].seq_max = 2),
            ("an empty group", |f| f.groups[0].rows = 0),
            ("a group that is too large", |f| {
                f.rows = GROUP_ROWS_MAX as u64 + 11;
                f.groups[0].rows = GROUP_ROWS_MAX + 1;
                f.blocks[..3].iter_mut().for_each(|block| block.shape.rows = GROUP_ROWS_MAX + 1);
            }),
            ("a block of other rows than its group", |f| f.blocks[2].shape.rows = 9),
            ("more nulls than rows", |f| f.blocks[2].shape.nulls = 11),
            ("timestamps that are null", |f| f.blocks[0].shape.nulls = 1),
            ("seqs that are null", |f| f.blocks[1].shape.nulls = 1),
            ("a block on no boundary", |f| f.blocks[1].offset = 127),
            ("blocks that overlap", |f| f.blocks[1].offset = 64),
            ("a gap between blocks", |f| f.blocks[4].length = 64),
            ("a block behind the last", |f| f.blocks[5].offset = 640),
            ("a block that reaches over the next", |f| f.blocks[0].length = 129),
            ("a length that wraps", |f| f.blocks[5].length = u64::MAX - 500),
            ("an offset that wraps", |f| f.blocks[5].offset = u64::MAX - 63),
            ("a zone upside down", |f| f.blocks[0].zone = Some(Zone::I64 { min: 2, max: 1 })),
            ("a zone of floats upside down", |f| f.blocks[2].zone = Some(Zone::F64 { min: 0.0, max: -0.0 })),
            ("a zone with a NaN", |f| f.blocks[2].zone = Some(Zone::F64 { min: 0.0, max: f64::NAN })),
            ("an empty name", |f| f.schema[0].0 = "".into()),
            ("a column without blocks", |f| f.schema.push(("size".into(), ColumnType::I64))),
            ("no seqs", |f| f.each_seq = false),
            ("clusters in the order of time", |f| f.groups[0].clusters = 1),
            ("rows by key without their order", |f| f.by_key = true),
            ("rows with seqs after one", |f| f.after = 1),
            ("a replaced segment twice", |f| f.replaced[1].file = 4),
            ("replaced segments out of order", |f| f.replaced.reverse()),
            ("a replaced segment without a number", |f| f.replaced[0].file = 0),
            ("a group without blocks", |f| f.blocks.truncate(3)),
        ];
        for (what, lie) in lies {
            let mut footer = sound();
            lie(&mut footer);
            assert!(Footer::decode(&footer.encode(), LIMIT).is_err(), "{what}");
        }
    }

    /// A group of 32 rows and two keys, by key, and one in the order of time; each block takes a boundary.
    fn by_key() -> Footer {
        let rows = [32, 32, 2, 2, 10, 1, 1, 10];
        let types = [ColumnType::Timestamp, ColumnType::I32, ColumnType::I32, ColumnType::F64];
        let mut blocks: Vec<Block> = (0..)
            .zip(rows)
            .map(|(i, rows)| Block { length: 64, ..block(i * 64, types[i as usize % 4], rows) })
            .collect();
        for price in [3, 7] {
            blocks[price].zone = Some(Zone::F64 { min: 1.0, max: 2.0 });
        }
        let mut footer = sound();
        (footer.each_seq, footer.by_key, footer.replaced, footer.blocks) = (false, true, Vec::new(), blocks);
        footer.groups.iter_mut().for_each(|group| (group.seq_min, group.seq_max) = (0, 0));
        (footer.groups[0].rows, footer.groups[0].clusters, footer.rows) = (32, 2, 42);
        footer
    }

    #[test]
    fn what_lies_by_key_has_a_row_for_each_key() {
        let bytes = by_key().encode();
        assert_eq!(Footer::decode(&bytes, 512).unwrap().encode(), bytes);
        type Lie = fn(&mut Footer);
        let lies: [(&str, Lie); 10] = [
            ("no key", |f| f.keys[0] = false),
            ("more keys than rows", |f| {
                f.groups[0].clusters = 33;
                [2, 3].iter().for_each(|block| f.blocks[*block].shape.rows = 33);
            }),
            ("a key for each fifteenth row", |f| {
                f.groups[0].clusters = 3;
                [2, 3].iter().for_each(|block| f.blocks[*block].shape.rows = 3);
            }),
            ("one key fewer", |f| f.groups[0].clusters = 1),
            ("none", |f| f.groups[0].clusters = 0),
            ("some in the order of time", |f| f.groups[1].clusters = 1),
            ("an order of fewer rows", |f| f.blocks[1].shape.rows = 9),
            ("an order that is null", |f| f.blocks[1].shape.nulls = 1),
            ("sizes that are null", |f| f.blocks[2].shape.nulls = 1),
            ("a key for each row", |f| f.blocks[3].shape.rows = 32),
        ];
        for (what, lie) in lies {
            let mut footer = by_key();
            lie(&mut footer);
            assert!(Footer::decode(&footer.encode(), 512).is_err(), "{what}");
        }
    }

    #[test]
    fn two_columns_of_one_name_are_refused() {
        let mut footer = sound();
        footer.groups.clear();
        footer.blocks.clear();
        (footer.rows, footer.ts_min, footer.ts_max) = (0, i64::MAX, i64::MIN);
        assert!(Footer::decode(&footer.encode(), 0).is_ok());
        footer.schema.push(footer.schema[0].clone());
        assert!(Footer::decode(&footer.encode(), 0).is_err());
    }

    #[test]
    fn unknown_tags_are_refused() {
        let bytes = sound().encode();
        // The kinds of seqs and of order, what is reserved, the type of the column, and encoding and flags of the first block.
        for (at, tag) in [(32, 2), (33, 2), (34, 1), (80, 0), (80, 10), (88 + 40 + 28, 8), (88 + 40 + 29, 2)]
        {
            let mut twin = bytes.clone();
            twin[at] = tag;
            assert!(Footer::decode(&twin, LIMIT).is_err(), "{tag} at {at}");
        }
    }
}
