//! Version 1 of the persisted types. Frozen: a change makes a `v2` beside it.
//!
//! Flat types of fixed width only: no `usize`, no maps, no shared pointers, no recursion.

// The types that the derives make beside these carry no documentation.
#![allow(missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use rkyv::with::Skip;
use rkyv::{Archive, Deserialize, Serialize};
use underbelly_query::{self as query, Duplicates, Tombstone};
use underbelly_storage::{Column, ColumnType, Date, LogicalTypes, Strings, Timestamp, Value, Values};

use crate::graph::EventV1;
use crate::series::Rules;
use crate::variables;

/// A transaction.
#[derive(Archive, Serialize, Deserialize, Debug, Default)]
pub struct Record {
    /// Objects that later parts name and that are not stored yet.
    pub objects: Vec<Object>,
    /// Rows of series that are deleted, before others are appended.
    pub deletes: Vec<SeriesDelete>,
    /// Rows of series.
    pub appends: Vec<Append>,
    /// Identities of models of which all versions are deleted, before others are put.
    pub deleted_models: Vec<[u8; 32]>,
    /// Versions of models.
    pub models: Vec<Model>,
    /// Marks of models, in their order.
    pub marks: Vec<Mark>,
    /// Versions of models that are deleted alone.
    pub removed: Vec<Removed>,
    /// Whether all versions go that are not to be kept.
    pub collects: bool,
    /// Changes of variables, in their order.
    pub variables: Vec<Variable>,
    /// What happens to the graph.
    pub event: Option<EventV1>,
    /// Rules of series types, before everything else.
    pub rules: Vec<SeriesRules>,
    /// Logical types of columns of series, in no archive: what holds this record holds them beside it.
    #[rkyv(with = Skip)]
    pub types: Vec<(String, LogicalTypes)>,
}

/// An object that becomes known.
#[derive(Archive, Serialize, Deserialize, Debug)]
pub enum Object {
    /// Its bytes are here.
    Inline {
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// Its bytes are in a chunk file that was synced before.
    Chunk {
        /// BLAKE3-256 of the bytes.
        id: [u8; 32],
        /// Number of the file.
        file: u64,
        /// Length of the object.
        bytes: u64,
    },
}

/// Rows appended to a series.
#[derive(Archive, Serialize, Deserialize, Debug)]
pub struct Append {
    /// The series' type.
    pub series: String,
    /// The rows.
    pub rows: Rows,
}

/// Where appended rows are.
#[derive(Archive, Serialize, Deserialize, Debug)]
pub enum Rows {
    /// Here.
    Inline {
        /// Nanoseconds since 1970 UTC, in order of arrival.
        timestamps: Vec<i64>,
        /// Keys and fields.
        columns: Vec<NamedColumn>,
    },
    /// In a segment that was synced before.
    Segment(SegmentRef),
}

/// A sealed segment file.
#[derive(Archive, Serialize, Deserialize, Debug, Clone)]
pub struct SegmentRef {
    /// Number of the file.
    pub file: u64,
    /// Its length.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
    /// Earliest timestamp.
    pub ts_min: i64,
    /// Latest timestamp.
    pub ts_max: i64,
    /// BLAKE3-256 of its footer.
    pub footer_hash: [u8; 32],
    /// The seq of all rows, where the file does not hold one for each; 0 otherwise.
    pub seq: u64,
    /// Its columns.
    pub schema: Vec<SchemaColumn>,
}

/// A column of a series type.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct SchemaColumn {
    /// Name.
    pub name: String,
    /// Tag of the type.
    pub column_type: u8,
    /// Whether it is a key.
    pub key: bool,
}

/// A column with its name.
#[derive(Archive, Serialize, Deserialize, Debug)]
pub struct NamedColumn {
    /// Name.
    pub name: String,
    /// Whether it is a key.
    pub key: bool,
    /// Values; a zero stands under a null.
    pub values: ColumnValues,
    /// A byte a row, 0 = null; empty where nothing is null.
    pub validity: Vec<bool>,
}

/// Values of a column.
#[derive(Archive, Serialize, Deserialize, Debug)]
pub enum ColumnValues {
    /// `bool`
    Bool(Vec<bool>),
    /// `i64`
    I64(Vec<i64>),
    /// `f64`
    F64(Vec<f64>),
    /// `utf8`: ends and bytes
    Utf8(Vec<u32>, Vec<u8>),
    /// `bytes`: ends and bytes
    Bytes(Vec<u32>, Vec<u8>),
    /// `timestamp`
    Timestamp(Vec<i64>),
    /// `date`
    Date(Vec<i32>),
    /// `i32`
    I32(Vec<i32>),
    /// `f32`
    F32(Vec<f32>),
}

/// What becomes of the rows of a series type.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct SeriesRules {
    /// The series' type.
    pub series: String,
    /// The transaction that made them; 0 in a record.
    pub seq: u64,
    /// Of rows with the same keys and timestamp: 0 keep all, 1 last wins, 2 last non-null, 3 reject.
    pub duplicates: u8,
    /// Whether appends leave out rows that are there already.
    pub skip_identical: bool,
    /// Nanoseconds for which rows that are not shown any more are kept.
    pub history_ns: u64,
    /// Nanoseconds by which rows may lie behind the newest; 0 where they stay.
    pub retention_ns: u64,
}

impl SeriesRules {
    /// Persisted form of the rules of transaction `seq`.
    pub(crate) fn new(series: &str, seq: u64, rules: &Rules) -> SeriesRules {
        let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        SeriesRules {
            series: series.to_string(),
            seq,
            duplicates: match rules.duplicates {
                Duplicates::KeepAll => 0,
                Duplicates::LastWins => 1,
                Duplicates::LastNonNull => 2,
                Duplicates::Reject => 3,
            },
            skip_identical: rules.skip_identical,
            history_ns: ns(rules.history),
            retention_ns: rules.retention.map_or(0, ns),
        }
    }

    /// The rules, or what is wrong with them.
    pub(crate) fn rules(&self) -> Result<Rules, String> {
        let duplicates = match self.duplicates {
            0 => Duplicates::KeepAll,
            1 => Duplicates::LastWins,
            2 => Duplicates::LastNonNull,
            3 => Duplicates::Reject,
            other => return Err(format!("series {:?}: unknown rule {other} for duplicates", self.series)),
        };
        let retention = (self.retention_ns > 0).then(|| Duration::from_nanos(self.retention_ns));
        let history = Duration::from_nanos(self.history_ns);
        Ok(Rules { duplicates, skip_identical: self.skip_identical, history, retention })
    }
}

/// Rows of a series that are deleted.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct SeriesDelete {
    /// The series' type.
    pub series: String,
    /// Which rows.
    pub delete: Delete,
}

/// Which rows are deleted: all of earlier transactions that fit.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Delete {
    /// The transaction that deletes them; 0 in a record.
    pub seq: u64,
    /// Earliest timestamp.
    pub first: i64,
    /// Latest timestamp; before the earliest where there is none.
    pub last: i64,
    /// Key columns and their values.
    pub keys: Vec<(String, KeyValue)>,
    /// Columns and what their values have to be.
    pub predicates: Vec<Predicate>,
}

/// What the value of a column has to be.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Predicate {
    /// The column.
    pub column: String,
    /// 0 equal, 1 not equal, 2 below, 3 at most, 4 above, 5 at least, 6 null, 7 not null.
    pub kind: u8,
    /// What it is compared with; null where that is nothing.
    pub value: KeyValue,
}

impl Predicate {
    fn new((column, predicate): (&str, &query::Predicate)) -> Result<Predicate, String> {
        let (kind, value) = match predicate {
            query::Predicate::Equal(value) => (0, value),
            query::Predicate::NotEqual(value) => (1, value),
            query::Predicate::Below(value) => (2, value),
            query::Predicate::AtMost(value) => (3, value),
            query::Predicate::Above(value) => (4, value),
            query::Predicate::AtLeast(value) => (5, value),
            query::Predicate::IsNull => (6, &Value::Null),
            query::Predicate::NotNull => (7, &Value::Null),
            query::Predicate::OneOf(_) => {
                return Err(format!("column {column:?}: one of several values is kept as a delete for each"));
            }
        };
        Ok(Predicate { column: column.to_string(), kind, value: value.try_into()? })
    }

    fn restored(&self) -> Result<(Arc<str>, query::Predicate), String> {
        let value = Value::from(&self.value);
        let predicate = match self.kind {
            0 => query::Predicate::Equal(value),
            1 => query::Predicate::NotEqual(value),
            2 => query::Predicate::Below(value),
            3 => query::Predicate::AtMost(value),
            4 => query::Predicate::Above(value),
            5 => query::Predicate::AtLeast(value),
            6 => query::Predicate::IsNull,
            7 => query::Predicate::NotNull,
            other => return Err(format!("column {:?}: unknown predicate {other}", self.column)),
        };
        Ok((self.column.as_str().into(), predicate))
    }
}

/// The value of a key column.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub enum KeyValue {
    /// None.
    Null,
    /// True or false.
    Bool(bool),
    /// An integer.
    I64(i64),
    /// The bits of a binary64.
    F64(u64),
    /// Text.
    Utf8(String),
    /// Nanoseconds since 1970 UTC.
    Timestamp(i64),
    /// Days since 1970.
    Date(i32),
    /// A 32-bit integer.
    I32(i32),
    /// The bits of a binary32.
    F32(u32),
    /// Bytes, of a predicate alone.
    Bytes(Vec<u8>),
}

impl TryFrom<&Value> for KeyValue {
    type Error = String;

    fn try_from(value: &Value) -> Result<KeyValue, String> {
        Ok(match value {
            Value::Null => KeyValue::Null,
            Value::Bool(value) => KeyValue::Bool(*value),
            Value::I64(value) => KeyValue::I64(*value),
            Value::F64(value) => KeyValue::F64(value.to_bits()),
            Value::Utf8(text) => KeyValue::Utf8(text.to_string()),
            Value::Timestamp(at) => KeyValue::Timestamp(at.0),
            Value::Date(day) => KeyValue::Date(day.0),
            Value::I32(value) => KeyValue::I32(*value),
            Value::F32(value) => KeyValue::F32(value.to_bits()),
            Value::Bytes(bytes) => KeyValue::Bytes(bytes.to_vec()),
        })
    }
}

impl From<&KeyValue> for Value {
    fn from(value: &KeyValue) -> Value {
        match value {
            KeyValue::Null => Value::Null,
            KeyValue::Bool(value) => Value::Bool(*value),
            KeyValue::I64(value) => Value::I64(*value),
            KeyValue::F64(bits) => Value::F64(f64::from_bits(*bits)),
            KeyValue::Utf8(text) => text.as_str().into(),
            KeyValue::Timestamp(at) => Value::Timestamp(Timestamp(*at)),
            KeyValue::Date(day) => Value::Date(Date(*day)),
            KeyValue::I32(value) => Value::I32(*value),
            KeyValue::F32(bits) => Value::F32(f32::from_bits(*bits)),
            KeyValue::Bytes(bytes) => Value::Bytes(bytes.as_slice().into()),
        }
    }
}

impl TryFrom<&Tombstone> for Delete {
    type Error = String;

    fn try_from(tombstone: &Tombstone) -> Result<Delete, String> {
        let (first, last) = tombstone.range();
        let key = |(name, value): (&str, &Value)| Ok::<_, String>((name.to_string(), value.try_into()?));
        let keys = tombstone.keys().map(key).collect::<Result<_, _>>()?;
        let predicates = tombstone.predicates().map(Predicate::new).collect::<Result<_, _>>()?;
        Ok(Delete { seq: tombstone.seq(), first: first.0, last: last.0, keys, predicates })
    }
}

impl TryFrom<&Delete> for Tombstone {
    type Error = String;

    fn try_from(delete: &Delete) -> Result<Tombstone, String> {
        let keys = delete.keys.iter().map(|(name, value)| (name.as_str().into(), value.into()));
        let (first, last) = (Timestamp(delete.first), Timestamp(delete.last));
        let predicates = delete.predicates.iter().map(Predicate::restored).collect::<Result<_, _>>()?;
        Ok(Tombstone::restored(delete.seq, first, last, keys.collect()).with_predicates(predicates))
    }
}

/// A version of a model.
#[derive(Archive, Serialize, Deserialize, Debug, Clone)]
pub struct Model {
    /// The whole dict in canonical CBOR.
    pub metadata: Vec<u8>,
    /// The hash of the blob.
    pub object: [u8; 32],
    /// Length of the blob.
    pub bytes: u64,
    /// The chunks that make the blob, where it is more than one object.
    pub chunks: Vec<Part>,
}

/// A chunk of a blob.
#[derive(Archive, Serialize, Deserialize, Debug, Clone)]
pub struct Part {
    /// BLAKE3-256 of its bytes.
    pub id: [u8; 32],
    /// Its length.
    pub bytes: u64,
}

/// What is told of a model beside its versions.
#[derive(Archive, Serialize, Deserialize, Debug, Clone)]
pub struct Mark {
    /// Identity of the model.
    pub id: [u8; 32],
    /// 1 alias, 2 annotation, 3 pin, 4 retention, 5 lineage.
    pub kind: u8,
    /// The version that it is about; 0 the model, the greatest number the newest version.
    pub version: u64,
    /// Its name.
    pub name: String,
    /// Its value, as canonical CBOR of a dict with the entry `v`; `None` where it is taken away.
    pub value: Option<Vec<u8>>,
}

/// A version of a model that is deleted.
#[derive(Archive, Serialize, Deserialize, Debug, Clone)]
pub struct Removed {
    /// Identity of the model.
    pub id: [u8; 32],
    /// Number of the version.
    pub number: u64,
}

/// A variable that is set, or removed.
#[derive(Archive, Serialize, Deserialize, Debug)]
pub struct Variable {
    /// Whose it is.
    pub scope: Scope,
    /// Its name.
    pub name: String,
    /// Its value; `None` where it is removed.
    pub value: Option<VariableValue>,
}

/// Whose a variable is.
#[derive(Archive, Serialize, Deserialize, Debug)]
pub enum Scope {
    /// The database's.
    Global,
    /// That of an episode.
    Episode(String),
    /// That of an asset.
    Asset(String),
}

/// The value of a variable.
#[derive(Archive, Serialize, Deserialize, Debug)]
pub enum VariableValue {
    /// True or false.
    Bool(bool),
    /// An integer.
    I64(i64),
    /// The bits of a binary64.
    F64(u64),
    /// The bits of each.
    Array(Vec<u64>),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl From<&variables::Change> for Variable {
    fn from(change: &variables::Change) -> Variable {
        let variables::Name { scope, name } = &*change.name;
        Variable {
            scope: match scope {
                crate::Scope::Global => Scope::Global,
                crate::Scope::Episode(name) => Scope::Episode(name.to_string()),
                crate::Scope::Asset(name) => Scope::Asset(name.to_string()),
            },
            name: name.to_string(),
            value: change.value.as_ref().map(|value| match value {
                variables::VariableValue::Bool(value) => VariableValue::Bool(*value),
                variables::VariableValue::I64(value) => VariableValue::I64(*value),
                variables::VariableValue::F64(value) => VariableValue::F64(value.to_bits()),
                variables::VariableValue::Array(values) => {
                    VariableValue::Array(values.iter().map(|value| value.to_bits()).collect())
                }
                variables::VariableValue::Bytes(bytes) => VariableValue::Bytes(bytes.to_vec()),
            }),
        }
    }
}

impl From<Variable> for variables::Change {
    fn from(variable: Variable) -> variables::Change {
        let scope = match variable.scope {
            Scope::Global => crate::Scope::Global,
            Scope::Episode(name) => crate::Scope::Episode(name.into()),
            Scope::Asset(name) => crate::Scope::Asset(name.into()),
        };
        let value = variable.value.map(|value| match value {
            VariableValue::Bool(value) => variables::VariableValue::Bool(value),
            VariableValue::I64(value) => variables::VariableValue::I64(value),
            VariableValue::F64(bits) => variables::VariableValue::F64(f64::from_bits(bits)),
            VariableValue::Array(values) => {
                variables::VariableValue::Array(values.into_iter().map(f64::from_bits).collect())
            }
            VariableValue::Bytes(bytes) => variables::VariableValue::Bytes(bytes.into()),
        });
        variables::Change { name: variables::Name::new(&scope, &variable.name).into(), value }
    }
}

impl SchemaColumn {
    /// The column's type, or what is wrong with its tag.
    pub fn known_type(&self) -> Result<ColumnType, String> {
        ColumnType::from_tag(self.column_type)
            .ok_or_else(|| format!("column {:?} has unknown type tag {}", self.name, self.column_type))
    }
}

impl NamedColumn {
    /// Persisted form of a column.
    pub fn new(name: &str, key: bool, column: Column) -> NamedColumn {
        let (values, validity) = column.into_parts();
        let values = match values {
            Values::Bool(v) => ColumnValues::Bool(v),
            Values::I64(v) => ColumnValues::I64(v),
            Values::F64(v) => ColumnValues::F64(v),
            Values::Timestamp(v) => ColumnValues::Timestamp(v),
            Values::Date(v) => ColumnValues::Date(v),
            Values::I32(v) => ColumnValues::I32(v),
            Values::F32(v) => ColumnValues::F32(v),
            Values::Utf8(s) => {
                let (offsets, bytes) = s.into_parts();
                ColumnValues::Utf8(offsets, bytes)
            }
            Values::Bytes(s) => {
                let (offsets, bytes) = s.into_parts();
                ColumnValues::Bytes(offsets, bytes)
            }
        };
        NamedColumn { name: name.to_string(), key, values, validity: validity.unwrap_or_default() }
    }

    /// The column, or what is wrong with it.
    pub fn into_column(self) -> Result<Column, String> {
        let strings = |offsets, bytes| {
            Strings::from_parts(offsets, bytes)
                .ok_or_else(|| format!("column {:?}: offsets out of order", self.name))
        };
        let values = match self.values {
            ColumnValues::Bool(v) => Values::Bool(v),
            ColumnValues::I64(v) => Values::I64(v),
            ColumnValues::F64(v) => Values::F64(v),
            ColumnValues::Timestamp(v) => Values::Timestamp(v),
            ColumnValues::Date(v) => Values::Date(v),
            ColumnValues::I32(v) => Values::I32(v),
            ColumnValues::F32(v) => Values::F32(v),
            ColumnValues::Utf8(offsets, bytes) => Values::Utf8(strings(offsets, bytes)?),
            ColumnValues::Bytes(offsets, bytes) => Values::Bytes(strings(offsets, bytes)?),
        };
        let validity = (!self.validity.is_empty()).then_some(self.validity);
        Column::from_parts(values, validity).ok_or_else(|| format!("column {:?} is inconsistent", self.name))
    }
}

/// What a checkpoint leaves: definitions of series, lists of files, and where the log goes on.
#[derive(Archive, Serialize, Deserialize, Debug, Default, Clone)]
pub struct Manifest {
    /// The last transaction in it. The log holds all later ones and is durable at least up to here.
    pub seq: u64,
    /// The commit time of that transaction.
    pub time: i64,
    /// The number of the next new file.
    pub next_file: u64,
    /// The number of the next run.
    pub next_run: u64,
    /// Bytes of one log file.
    pub log_file_bytes: u64,
    /// The manifest that was in force before; 0 where there was none. It stays until the next checkpoint.
    pub previous: u64,
    /// The state image: a base, then deltas, the oldest first; none where nothing was committed yet.
    pub images: Vec<Image>,
    /// Series with their columns and sealed segments.
    pub series: Vec<Series>,
    /// Numbers of the packs.
    pub packs: Vec<u64>,
    /// Chunk files.
    pub chunks: Vec<Chunk>,
    /// Numbers of the files that the log names between the previous manifest and this one. Opening may fall back to that
    /// manifest and then needs them, whatever became of them since.
    pub logged: Vec<u64>,
    /// A place in the log behind which all later transactions stand, and up to which the log was durable; `None` where
    /// they stand in files of their own.
    pub log: Option<LogPlace>,
    /// What is known of segments that deletes wait for.
    pub cleared: Vec<Cleared>,
    /// Damaged segments that were left as they are, each with what is wrong.
    pub damaged: Vec<String>,
}

/// A segment of which no row is hidden by the deletes up to a seq.
#[derive(Archive, Serialize, Deserialize, Debug, Clone)]
pub struct Cleared {
    /// Number of the file.
    pub file: u64,
    /// The seq.
    pub seq: u64,
}

/// A place between two batches of the log.
#[derive(Archive, Serialize, Deserialize, Debug, Clone)]
pub struct LogPlace {
    /// Number of the file.
    pub file: u64,
    /// Salt of the file's use.
    pub salt: u64,
    /// Byte at which the next batch begins.
    pub offset: u64,
    /// Number of the next batch.
    pub batch: u64,
    /// The first transaction of the next batch.
    pub seq: u64,
    /// Checksum of the batch before.
    pub crc: u32,
}

/// A series type.
#[derive(Archive, Serialize, Deserialize, Debug, Clone)]
pub struct Series {
    /// The type.
    pub name: String,
    /// Columns, keys first.
    pub columns: Vec<SchemaColumn>,
    /// Sealed segments in order of commit.
    pub segments: Vec<SegmentRef>,
    /// The last transaction that appended or deleted.
    pub last_seq: u64,
    /// Deletes that hide rows which some segment may hold.
    pub deletes: Vec<Delete>,
    /// Fields that hold, or held, integers beyond what an `f64` can: such a field stays one of integers.
    pub inexact: Vec<String>,
    /// The transaction that made it; 0 where that is not known.
    pub made: u64,
    /// For each column the transaction that added it; 0 where that is not known.
    pub added: Vec<u64>,
    /// Readers of transactions before this one would miss rows that are gone.
    pub horizon: u64,
    /// Its rules, the oldest first.
    pub rules: Vec<SeriesRules>,
    /// Logical types of its columns, in no archive: the manifest holds them beside it.
    #[rkyv(with = Skip)]
    pub types: LogicalTypes,
    /// Bytes of rows that were appended.
    pub appended_bytes: u64,
    /// Bytes of segments that were written.
    pub written_bytes: u64,
}

/// A chunk file.
#[derive(Archive, Serialize, Deserialize, Debug, Clone)]
pub struct Chunk {
    /// BLAKE3-256 of the object.
    pub id: [u8; 32],
    /// Number of the file.
    pub file: u64,
    /// Length of the object.
    pub bytes: u64,
}

/// A file of the state image.
#[derive(Archive, Serialize, Deserialize, Debug, Clone)]
pub struct Image {
    /// Number of the file.
    pub file: u64,
    /// Its length.
    pub bytes: u64,
    /// Its records.
    pub records: u64,
    /// BLAKE3-256 of its index.
    pub index_hash: [u8; 32],
}
