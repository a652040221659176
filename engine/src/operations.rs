//! What a transaction does, between the caller's batch and the log record.
//!
//! A commit turns a batch into operations, the operations into a record, and applies the operations; a replay
//! turns the record into operations and applies them in the same way.

use std::collections::BTreeMap;
use std::sync::Arc;

use underbelly_query::{MemoryRun, Schema, Tombstone};
use underbelly_storage::error::StorageError;
use underbelly_storage::object::{Blob, ObjectId};
use underbelly_storage::segment::Segment;
use underbelly_storage::{Column, ColumnType, Columns, LogicalTypes, Timestamp};

use crate::backlog::Load;
use crate::graph::{ContentId, Event, EventV1, Outcome, OutputWrite, Submission, Write};
use crate::limits::{FEW_COLUMNS_MAX, FEW_ROWS_MAX};
use crate::models::{
    MarkChange, MarkKind, MarkName, Metadata, ModelId, StoredBlob, hash_of_chunks, value_of_cbor,
    value_to_cbor,
};
use crate::objects::{ChunkFile, Place};
use crate::record::v1;
use crate::series::{Few, Passed, Rules, Table, inexact};
use crate::transaction::Read;
use crate::variables::{Change, check_change};

/// What a transaction does.
#[derive(Default)]
pub(crate) struct Operations {
    pub objects: BTreeMap<ObjectId, Place>,
    /// Rows that are deleted, before others are appended.
    pub deletes: Vec<Deletes>,
    pub appends: Vec<Append>,
    /// Models that are deleted, before others are put.
    pub deleted_models: Vec<ModelId>,
    pub models: Vec<PutModel>,
    /// In their order, behind the puts.
    pub marks: Vec<MarkChange>,
    /// Versions that are deleted alone.
    pub removed: Vec<(ModelId, u64)>,
    /// Whether all versions go that are not to be kept.
    pub collects: bool,
    /// In their order: a variable may be changed several times.
    pub variables: Vec<Change>,
    pub event: Option<Event>,
    /// Rules that series types get, before everything else.
    pub rules: Vec<(Arc<str>, Rules)>,
    /// Logical types that columns of series get or have, before everything else but rules.
    pub types: Vec<(Arc<str>, LogicalTypes)>,
    /// Gates of the types whose rows were looked at, held until the transaction has its seq.
    pub gates: Vec<Passed>,
    /// What it was prepared from, and which must not have changed.
    pub rests_on: Vec<Read>,
    /// Blobs that were written ahead, held until the transaction is applied.
    pub stored: Vec<StoredBlob>,
    /// Bytes of rows and objects that the record will hold.
    pub inline_bytes: usize,
}

/// Rows of a series that are deleted.
pub(crate) struct Deletes {
    pub series: Arc<str>,
    pub tombstones: Vec<Tombstone>,
    /// The columns that they were found to fit; none where they come out of the log.
    pub schema: Option<Arc<Schema>>,
}

/// Rows for a series.
pub(crate) struct Append {
    pub series: Arc<str>,
    pub rows: Rows,
    /// Columns with integers that an `f64` cannot hold.
    pub inexact: Vec<String>,
    /// Whether its rows were compared with those that are there.
    pub checked: bool,
    /// What its columns are said to be; `None` where that was compared before.
    pub types: Option<LogicalTypes>,
}

pub(crate) enum Rows {
    /// Few rows in order of arrival.
    Few(Few),
    /// Sorted by time; keys stand before fields.
    Inline { run: MemoryRun, keys: usize },
    /// A segment that is on the disk, or what is wrong with it. The reference has no seq until the transaction is applied.
    Segment { segment: Result<Segment, StorageError>, reference: v1::SegmentRef },
}

/// A version for a model.
pub(crate) struct PutModel {
    pub id: ModelId,
    pub metadata: Arc<Metadata>,
    /// The metadata in canonical form.
    pub cbor: Arc<[u8]>,
    pub timestamp: Timestamp,
    pub object: ObjectId,
    pub bytes: u64,
    /// Ids and lengths of its chunks, where it has any.
    pub chunks: Arc<[(ObjectId, u64)]>,
}

impl PutModel {
    /// The objects that its blob is made of.
    pub(crate) fn objects(&self) -> impl Iterator<Item = ObjectId> {
        objects_of(&self.object, &self.chunks)
    }
}

/// The objects that a blob is made of: itself, or its chunks.
pub(crate) fn objects_of(object: &ObjectId, chunks: &[(ObjectId, u64)]) -> impl Iterator<Item = ObjectId> {
    let whole = chunks.is_empty().then_some(*object);
    whole.into_iter().chain(chunks.iter().map(|(id, _)| *id))
}

impl Default for Rows {
    fn default() -> Rows {
        Rows::Few(Few::default())
    }
}

impl Append {
    /// Whether the table knows all that these rows bring, since they go on with its newest ones.
    pub(crate) fn goes_on(&self, table: &Table) -> bool {
        let Rows::Few(few) = &self.rows else { return false };
        table.goes_on_with(few, &self.inexact)
            && self.types.as_ref().is_none_or(|types| table.knows_types(few, types))
    }

    /// Name, type and role of each column.
    pub(crate) fn columns(&self) -> impl Iterator<Item = (&str, ColumnType, bool)> {
        let (few, run, segment) = match &self.rows {
            Rows::Few(few) => (Some(few), None, None),
            Rows::Inline { run, keys } => (None, Some((run, *keys)), None),
            Rows::Segment { reference, .. } => (None, None, Some(reference)),
        };
        let few = few.into_iter().flat_map(|few| {
            let columns = few.columns.iter().enumerate();
            columns.map(|(i, (name, column))| (&**name, column.column_type(), i < few.keys))
        });
        let run = run.into_iter().flat_map(|(run, keys)| {
            let columns = run.columns().iter().enumerate();
            columns.map(move |(i, (name, column))| (&**name, column.column_type(), i < keys))
        });
        let segment = segment.into_iter().flat_map(|reference| {
            reference.schema.iter().filter_map(|c| Some((c.name.as_str(), c.known_type().ok()?, c.key)))
        });
        few.chain(run).chain(segment)
    }
}

/// What the end of a run gives.
fn outputs(event: &Event) -> &[OutputWrite] {
    match event {
        Event::End { outcome: Outcome::Data(outputs), .. } => outputs,
        _ => &[],
    }
}

impl Operations {
    /// Contents of cells that the transaction names.
    pub(crate) fn contents(&self) -> impl Iterator<Item = ContentId> {
        let (writes, ends): (&[Write], &[Event]) = match &self.event {
            Some(Event::Commit(Submission { writes, .. })) => (writes, &[]),
            Some(Event::Several(ends)) => (&[], ends),
            Some(event) => (&[], std::slice::from_ref(event)),
            None => (&[], &[]),
        };
        let writes = writes.iter().filter_map(|write| write.content);
        writes.chain(ends.iter().flat_map(outputs).filter_map(OutputWrite::content))
    }

    /// Numbers of the files that the transaction's record names.
    pub(crate) fn files(&self) -> Vec<u64> {
        let segments = self.appends.iter().filter_map(|append| match &append.rows {
            Rows::Segment { reference, .. } => Some(reference.file),
            Rows::Few(_) | Rows::Inline { .. } => None,
        });
        let chunks = self.objects.values().filter_map(|place| match place {
            Place::Chunk(chunk, _) => Some(chunk.file),
            Place::Memory(_) | Place::Pack(..) => None,
        });
        // The chunks of a blob share a file.
        let mut files: Vec<u64> = segments.chain(chunks).collect();
        files.sort_unstable();
        files.dedup();
        files
    }

    /// What the transaction amounts to, where its record has so many bytes.
    pub(crate) fn load(&self, bytes: u64) -> Load {
        let rows = |append: &Append| match &append.rows {
            Rows::Few(few) => few.timestamps.len(),
            Rows::Inline { run, .. } => run.rows(),
            Rows::Segment { .. } => 1,
        };
        let (cells, others) = match &self.event {
            Some(Event::Commit(Submission { writes, ends, .. })) => (writes.len(), ends.len()),
            Some(Event::Several(parts)) => (parts.iter().map(|part| outputs(part).len()).sum(), parts.len()),
            Some(event @ Event::End { .. }) => (outputs(event).len(), 1),
            Some(_) => (0, 1),
            None => (0, 0),
        };
        let is_segment = |append: &&Append| matches!(append.rows, Rows::Segment { .. });
        let segments = self.appends.iter().filter(is_segment).count();
        let deletes: usize = self.deletes.iter().map(|deletes| deletes.tombstones.len()).sum();
        let operations = self.appends.iter().map(rows).sum::<usize>()
            + deletes
            + self.models.len()
            + self.deleted_models.len()
            + self.marks.len()
            + self.removed.len()
            + self.variables.len()
            + self.rules.len()
            + self.types.len()
            + cells
            + others;
        let counts = [operations, deletes, cells, segments];
        let [operations, deletes, cells, segments] = counts.map(|count| count as u64);
        Load { transactions: 1, operations, deletes, cells, segments, bytes }
    }

    /// The record of this transaction, and what cannot be written if there is such a thing.
    pub(crate) fn to_record(&self) -> Result<v1::Record, String> {
        let object = |(id, place): (&ObjectId, &Place)| match place {
            Place::Memory(blob) => Ok(v1::Object::Inline { bytes: blob.to_vec() }),
            Place::Chunk(chunk, bytes) => Ok(v1::Object::Chunk { id: id.0, file: chunk.file, bytes: *bytes }),
            Place::Pack(..) => Err(format!("object {id} is stored already")),
        };
        let append = |append: &Append| v1::Append {
            series: append.series.to_string(),
            rows: match &append.rows {
                Rows::Few(few) => v1::Rows::Inline {
                    timestamps: few.timestamps.clone(),
                    columns: few
                        .columns
                        .iter()
                        .enumerate()
                        .map(|(i, (name, column))| v1::NamedColumn::new(name, i < few.keys, column.clone()))
                        .collect(),
                },
                Rows::Inline { run, keys } => v1::Rows::Inline {
                    timestamps: run.timestamps().to_vec(),
                    columns: run
                        .columns()
                        .iter()
                        .enumerate()
                        .map(|(i, (name, column))| v1::NamedColumn::new(name, i < *keys, column.clone()))
                        .collect(),
                },
                Rows::Segment { reference, .. } => v1::Rows::Segment(reference.clone()),
            },
        };
        let model = |put: &PutModel| v1::Model {
            metadata: put.cbor.to_vec(),
            object: put.object.0,
            bytes: put.bytes,
            chunks: put.chunks.iter().map(|(id, bytes)| v1::Part { id: id.0, bytes: *bytes }).collect(),
        };
        let mark = |change: &MarkChange| {
            let value = change.value.as_ref().map(value_to_cbor).transpose();
            Ok(v1::Mark {
                id: change.id.0,
                kind: change.mark.kind as u8,
                version: change.mark.version,
                name: change.mark.name.to_string(),
                value: value.map_err(|error| error.to_string())?,
            })
        };
        let of_series = |deletes: &'_ Deletes| {
            let delete = |tombstone: &Tombstone| {
                Ok(v1::SeriesDelete { series: deletes.series.to_string(), delete: tombstone.try_into()? })
            };
            deletes.tombstones.iter().map(delete).collect::<Vec<_>>()
        };
        Ok(v1::Record {
            objects: self.objects.iter().map(object).collect::<Result<_, String>>()?,
            deletes: self.deletes.iter().flat_map(of_series).collect::<Result<_, String>>()?,
            appends: self.appends.iter().map(append).collect(),
            deleted_models: self.deleted_models.iter().map(|id| id.0).collect(),
            models: self.models.iter().map(model).collect(),
            marks: self.marks.iter().map(mark).collect::<Result<_, String>>()?,
            removed: self
                .removed
                .iter()
                .map(|(id, number)| v1::Removed { id: id.0, number: *number })
                .collect(),
            collects: self.collects,
            variables: self.variables.iter().map(v1::Variable::from).collect(),
            event: self.event.as_ref().map(EventV1::from),
            rules: self.rules.iter().map(|(series, rules)| v1::SeriesRules::new(series, 0, rules)).collect(),
            types: self.types.iter().map(|(series, types)| (series.to_string(), types.clone())).collect(),
        })
    }

    /// What a record says. `open` opens a segment that it names.
    pub(crate) fn from_record<E: From<String>>(
        record: v1::Record,
        mut open: impl FnMut(&str, &v1::SegmentRef) -> Result<Result<Segment, StorageError>, E>,
    ) -> Result<Operations, E> {
        let mut operations = Operations::default();
        for rules in &record.rules {
            operations.rules.push((rules.series.as_str().into(), rules.rules()?));
        }
        operations.types = record.types.into_iter().map(|(series, types)| (series.into(), types)).collect();
        let mut files: BTreeMap<u64, Arc<ChunkFile>> = BTreeMap::new();
        for object in record.objects {
            let (id, place) = match object {
                v1::Object::Inline { bytes } => (ObjectId::of(&bytes), Place::Memory(Blob::from(bytes))),
                v1::Object::Chunk { id, file, bytes } => {
                    let file = files.entry(file).or_insert_with(|| Arc::new(ChunkFile::new(file)));
                    (ObjectId(id), Place::Chunk(file.clone(), bytes))
                }
            };
            operations.objects.insert(id, place);
        }
        for v1::SeriesDelete { series, delete } in record.deletes {
            let tombstone = Tombstone::try_from(&delete)?;
            match operations.deletes.last_mut() {
                Some(last) if *last.series == *series => last.tombstones.push(tombstone),
                _ => operations.deletes.push(Deletes {
                    series: series.into(),
                    tombstones: vec![tombstone],
                    schema: None,
                }),
            }
        }
        for append in record.appends {
            let rows = match append.rows {
                v1::Rows::Inline { timestamps, columns } => inline(timestamps, columns)?,
                v1::Rows::Segment(reference) => {
                    for column in &reference.schema {
                        column.known_type()?;
                    }
                    Rows::Segment { segment: open(&append.series, &reference)?, reference }
                }
            };
            let inexact = match &rows {
                Rows::Few(few) => {
                    inexact::in_columns(few.columns.iter().map(|(name, column)| (name, column)))
                }
                Rows::Inline { run, .. } => inexact::in_columns(run.columns().iter()),
                Rows::Segment { segment, .. } => {
                    segment.as_ref().map_or_else(|_| Vec::new(), inexact::in_segment)
                }
            };
            operations.appends.push(Append {
                series: append.series.into(),
                rows,
                inexact,
                checked: true,
                types: None,
            });
        }
        operations.deleted_models = record.deleted_models.into_iter().map(ModelId).collect();
        for model in record.models {
            let metadata = Metadata::from_cbor(&model.metadata).map_err(|error| error.to_string())?;
            let id = metadata.id().map_err(|error| error.to_string())?;
            let timestamp = metadata.timestamp().map_err(|error| error.to_string())?;
            let chunks: Arc<[_]> = model.chunks.iter().map(|part| (ObjectId(part.id), part.bytes)).collect();
            let sum = chunks.iter().try_fold(0u64, |sum, (_, bytes)| sum.checked_add(*bytes));
            if !chunks.is_empty() && (sum != Some(model.bytes) || hash_of_chunks(&chunks).0 != model.object) {
                return Err(format!(
                    "the chunks of model {id} do not make its {} bytes, or their hash",
                    model.bytes
                )
                .into());
            }
            operations.models.push(PutModel {
                id,
                timestamp,
                metadata: Arc::new(metadata),
                cbor: model.metadata.into(),
                object: ObjectId(model.object),
                bytes: model.bytes,
                chunks,
            });
        }
        for mark in record.marks {
            let kind = MarkKind::of(mark.kind).ok_or("a mark of a model is of no known kind".to_string())?;
            let value = mark.value.as_deref().map(value_of_cbor).transpose()?;
            let (id, name) = (ModelId(mark.id), MarkName::new(kind, mark.version, &mark.name));
            operations.marks.push(MarkChange { id, mark: name, value, expected: None });
        }
        operations.removed =
            record.removed.iter().map(|removed| (ModelId(removed.id), removed.number)).collect();
        operations.collects = record.collects;
        for variable in record.variables {
            let Change { name, value } = variable.into();
            check_change(&name, value.as_ref()).map_err(|error| error.to_string())?;
            operations.variables.push(Change { name, value });
        }
        if let Some(event) = record.event {
            operations.event = Some(Event::try_from(event).map_err(|error| error.to_string())?);
        }
        Ok(operations)
    }
}

fn inline(timestamps: Vec<i64>, named: Vec<v1::NamedColumn>) -> Result<Rows, String> {
    let keys = named.iter().take_while(|column| column.key).count();
    if named.iter().skip(keys).any(|column| column.key) {
        return Err("a key column stands behind a field".to_string());
    }
    let mut columns = Columns::new();
    for column in named {
        let name = column.name.clone();
        let column: Column = column.into_column()?;
        if column.len() != timestamps.len() {
            return Err(format!("column {name:?} has {} rows, not {}", column.len(), timestamps.len()));
        }
        columns.insert(name, column).map_err(|error| error.to_string())?;
    }
    if timestamps.len() <= FEW_ROWS_MAX && columns.width() <= FEW_COLUMNS_MAX {
        return Ok(Rows::Few(Few { timestamps, columns: columns.into_columns(), keys }));
    }
    let run = MemoryRun::new(timestamps, columns, 0).map_err(|error| error.to_string())?;
    Ok(Rows::Inline { run, keys })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Chunks of equal length in another order make as many bytes, and another blob.
    #[test]
    fn chunks_that_do_not_make_the_hash_of_a_blob_are_refused() {
        let blob = hash_of_chunks(&[1, 2].map(|chunk| (ObjectId([chunk; 32]), 5)));
        let metadata = Metadata::new("m").with("timestamp", Timestamp(1)).to_cbor().unwrap();
        let put = |order: [u8; 2]| {
            let chunks = order.map(|chunk| v1::Part { id: [chunk; 32], bytes: 5 }).into();
            let model = v1::Model { metadata: metadata.clone(), object: blob.0, bytes: 10, chunks };
            let record = v1::Record { models: vec![model], ..v1::Record::default() };
            Operations::from_record(record, |_, _| Err("no segment is named".to_string()))
        };
        assert_eq!(put([1, 2]).map(|operations| operations.models.len()), Ok(1));
        assert!(put([2, 1]).is_err_and(|what| what.contains("or their hash")));
    }
}
