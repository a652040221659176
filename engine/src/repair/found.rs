//! A sound segment, and what it says of itself.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use underbelly_storage::disk::SharedDisk;
use underbelly_storage::error::StorageError;
use underbelly_storage::segment::Segment;
use underbelly_storage::{Column, ColumnType, Value};

use crate::error::OpenError;
use crate::limits::INLINE_BYTES_MAX;
use crate::record::v1;

/// A sound segment.
pub(super) struct Found {
    pub file: u64,
    pub segment: Segment,
    /// Rows of each transaction; empty where the file does not say which one it was.
    pub counts: BTreeMap<u64, u64>,
}

/// What has taken the place of a segment.
pub(super) struct Successor {
    pub file: u64,
    pub seq: u64,
    /// Rows that are left.
    pub rows: u64,
}

/// Rows by their hashes, rising, and how many bytes they take in memory.
struct Hashed {
    rows: Vec<u64>,
    bytes: usize,
}

impl Found {
    pub(super) fn open(
        disk: &SharedDisk,
        database: [u8; 16],
        name: &str,
        file: u64,
    ) -> Result<Found, OpenError> {
        let segment = Segment::open(&**disk, name, database, None)?;
        segment.verify()?;
        let mut counts = BTreeMap::new();
        for group in 0..segment.groups() {
            for seq in segment.seqs(group)?.unwrap_or_default() {
                *counts.entry(seq).or_default() += 1;
            }
        }
        Ok(Found { file, segment, counts })
    }

    pub(super) fn reference(&self, seq: u64) -> v1::SegmentRef {
        let info = self.segment.info();
        v1::SegmentRef {
            file: self.file,
            bytes: info.bytes,
            rows: info.rows,
            ts_min: info.ts_min,
            ts_max: info.ts_max,
            footer_hash: info.footer_hash,
            seq,
            schema: self.columns(),
        }
    }

    fn columns(&self) -> Vec<v1::SchemaColumn> {
        let columns = self.segment.schema().iter().zip(self.segment.keys());
        let column = |((name, column_type), key): (&(Arc<str>, ColumnType), &bool)| v1::SchemaColumn {
            name: name.to_string(),
            column_type: column_type.tag(),
            key: *key,
        };
        columns.map(column).collect()
    }

    /// Takes the columns into those of the series, or says what contradicts them.
    pub(super) fn add_columns(&self, all: &mut Vec<v1::SchemaColumn>) -> Option<String> {
        let (int, float) = (ColumnType::I64.tag(), ColumnType::F64.tag());
        let mut joined = all.clone();
        for column in self.columns() {
            let Some(known) = joined.iter_mut().find(|known| known.name == column.name) else {
                joined.push(column);
                continue;
            };
            let widens = [known.column_type, column.column_type];
            if known.key == column.key && !known.key && (widens == [int, float] || widens == [float, int]) {
                known.column_type = float;
            } else if *known != column {
                return Some(format!("its column {:?} is not what it is in newer segments", column.name));
            }
        }
        *all = joined;
        None
    }

    /// The last transaction of which it holds rows, where it says so.
    pub(super) fn last_seq(&self) -> Option<u64> {
        self.counts.keys().next_back().copied()
    }

    /// What has taken the place of this segment, of which the transaction is not known: a newer one in which all rows of a
    /// transaction are rows of this one, value for value. They have to be all of them, or more than a record takes:
    /// a few rows that are equal may have come twice.
    pub(super) fn successor(&self, kept: &[Found]) -> Result<Option<Successor>, StorageError> {
        let rows = self.segment.rows();
        let mut own = None;
        for found in kept.iter().filter(|found| found.file > self.file) {
            for (&seq, &left) in found.counts.iter().filter(|(_, left)| **left <= rows) {
                let own = match &own {
                    Some(own) => own,
                    None => own.insert(self.hashed(None)?),
                };
                let is_large = own.bytes as u64 / rows.max(1) * left > INLINE_BYTES_MAX as u64;
                if (left == rows || is_large) && is_within(&found.hashed(Some(seq))?.rows, &own.rows) {
                    return Ok(Some(Successor { file: found.file, seq, rows: left }));
                }
            }
        }
        Ok(None)
    }

    /// All rows, or those of one transaction.
    fn hashed(&self, of: Option<u64>) -> Result<Hashed, StorageError> {
        let mut hashed = Hashed { rows: Vec::new(), bytes: 0 };
        let mut names: Vec<Arc<str>> = self.segment.schema().iter().map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        for group in 0..self.segment.groups() {
            let info = self.segment.group(group);
            if of.is_some_and(|seq| seq < info.seq_min || seq > info.seq_max) {
                continue;
            }
            let seqs = self.segment.seqs(group)?.unwrap_or_default();
            let times = self.segment.timestamps(group)?;
            let mut columns: Vec<(&str, Column)> = Vec::new();
            for name in &names {
                columns.extend(self.segment.column(group, name)?.map(|column| (&**name, column)));
            }
            hashed.bytes += times.len() * 8;
            hashed.bytes += columns.iter().map(|(_, column)| column.byte_size()).sum::<usize>();
            let wanted = |row: &usize| of.is_none_or(|seq| seqs.get(*row) == Some(&seq));
            for (row, time) in times.iter().enumerate().filter(|(row, _)| wanted(row)) {
                let mut hasher = DefaultHasher::new();
                time.hash(&mut hasher);
                columns.iter().for_each(|(name, column)| hash_value(name, &column.get(row), &mut hasher));
                hashed.rows.push(hasher.finish());
            }
        }
        hashed.rows.sort_unstable();
        Ok(hashed)
    }
}

/// Takes in a value that is not null: a column may have come later, and one of integers may have become one of floats.
fn hash_value(name: &str, value: &Value, hasher: &mut DefaultHasher) {
    if *value == Value::Null {
        return;
    }
    name.hash(hasher);
    match value {
        Value::Null => {}
        Value::Bool(value) => value.hash(hasher),
        Value::I64(value) => (*value as f64).to_bits().hash(hasher),
        Value::F64(value) => value.to_bits().hash(hasher),
        Value::Utf8(value) => value.hash(hasher),
        Value::Bytes(value) => value.hash(hasher),
        Value::Timestamp(value) => value.0.hash(hasher),
        Value::Date(value) => value.0.hash(hasher),
    }
}

/// Whether each element of the first is one of the second, as often as it comes. Both rise.
fn is_within(some: &[u64], all: &[u64]) -> bool {
    let mut all = all.iter();
    some.iter().all(|one| all.by_ref().find(|other| *other >= one) == Some(one))
}
