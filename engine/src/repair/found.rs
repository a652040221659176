//! A sound segment, and what it says of itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use underbelly_storage::disk::SharedDisk;
use underbelly_storage::error::StorageError;
use underbelly_storage::segment::Segment;
use underbelly_storage::{ColumnType, Value};

use crate::error::OpenError;
use crate::limits::SEQ_MAX;
use crate::record::v1;

/// A sound segment.
pub(super) struct Found {
    pub file: u64,
    pub segment: Segment,
    /// Rows of each transaction; empty where the file does not say which one it was.
    pub counts: BTreeMap<u64, u64>,
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
                if seq > SEQ_MAX {
                    let what = format!("it holds a row of transaction {seq}, which no database comes to");
                    return Err(StorageError::corrupt(name, 0, what).into());
                }
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
        let mut joined = all.clone();
        for column in self.columns() {
            let Some(known) = joined.iter_mut().find(|known| known.name == column.name) else {
                joined.push(column);
                continue;
            };
            let types = (ColumnType::from_tag(known.column_type), ColumnType::from_tag(column.column_type));
            let common = types.0.zip(types.1).and_then(|(a, b)| a.common(b));
            if let Some(wide) = common.filter(|_| known.key == column.key && !known.key) {
                known.column_type = wide.tag();
            } else if *known != column {
                return Some(format!(
                    "its column {:?} is not what it is in the segments that were taken before",
                    column.name
                ));
            }
        }
        *all = joined;
        None
    }

    /// The last transaction of which it holds rows, where it says so.
    pub(super) fn last_seq(&self) -> Option<u64> {
        self.counts.keys().next_back().copied()
    }

    /// The first transaction that rows without one of their own may be of.
    pub(super) fn first_seq(&self) -> u64 {
        self.segment.after().saturating_add(1)
    }

    /// Whether it is another attempt of the same append.
    pub(super) fn is_again(&self, other: &Found) -> Result<bool, StorageError> {
        let extent = |found: &Found| {
            let info = found.segment.info();
            (info.rows, info.ts_min, info.ts_max)
        };
        Ok(extent(self) == extent(other)
            && self.columns() == other.columns()
            && self.rows_hash()? == other.rows_hash()?)
    }

    /// The hash of all rows in their order.
    fn rows_hash(&self) -> Result<blake3::Hash, StorageError> {
        let mut hasher = blake3::Hasher::new();
        for group in 0..self.segment.groups() {
            for time in self.segment.timestamps(group)? {
                hasher.update(&time.to_le_bytes());
            }
            for (name, _) in self.segment.schema() {
                let Some(column) = self.segment.column(group, name)? else { continue };
                (0..column.len()).for_each(|row| hash_value(&column.get(row), &mut hasher));
            }
        }
        Ok(hasher.finalize())
    }
}

fn hash_value(value: &Value, hasher: &mut blake3::Hasher) {
    let mut bytes = |tag: u8, bytes: &[u8]| {
        hasher.update(&[tag]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    };
    match value {
        Value::Null => bytes(0, &[]),
        Value::Bool(value) => bytes(1, &[u8::from(*value)]),
        Value::I64(value) => bytes(2, &value.to_le_bytes()),
        Value::F64(value) => bytes(3, &value.to_bits().to_le_bytes()),
        Value::Utf8(value) => bytes(4, value.as_bytes()),
        Value::Bytes(value) => bytes(5, value),
        Value::Timestamp(value) => bytes(6, &value.0.to_le_bytes()),
        Value::Date(value) => bytes(7, &value.0.to_le_bytes()),
        Value::I32(value) => bytes(8, &value.to_le_bytes()),
        Value::F32(value) => bytes(9, &value.to_bits().to_le_bytes()),
    }
}
