//! What a message of Arrow IPC says of itself, compared with the bytes that are there, before anything believes it.

use arrow_format::ipc::planus::{self, ReadAsRoot};
use arrow_format::ipc::{
    Buffer, FieldNode, FieldRef, KeyValueRef, MessageHeaderRef, MessageRef, RecordBatchRef, SchemaRef,
    TypeRef,
};

use crate::columns::STRUCT_DEPTH_MAX;
use crate::error::ArrowError;
use crate::ipc::Limits;

/// Bytes that each pair of a name and a text takes at least in the metadata.
const PAIR_BYTES: usize = 4;

type Pairs<'a> = planus::Vector<'a, planus::Result<KeyValueRef<'a>>>;

/// What a message is, as far as it may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Names and types of so many columns, and of so many with those within structs.
    Schema { columns: usize, nodes: usize },
    /// So many rows.
    Batch { rows: usize },
    /// Texts that batches behind it point into, in place of those that had its number.
    Dictionary { id: i64 },
}

/// Bytes of the body that belongs to a message's metadata.
pub(crate) fn body_bytes(metadata: &[u8]) -> Result<u64, ArrowError> {
    let message = MessageRef::read_as_root(metadata).map_err(unreadable)?;
    let bytes = message.body_length().map_err(unreadable)?;
    u64::try_from(bytes).map_err(|_| ArrowError::rows(format!("the body of a message has {bytes} bytes")))
}

/// What a record batch says of one of its columns, which [`check`] found to be sound: rows and nulls of the column and of the structs
/// around it, and where its buffers lie in the body. `nodes` and `buffers` are the positions of these among those of all columns, of which
/// `all` buffers.
pub(crate) fn column(
    metadata: &[u8],
    nodes: &[usize],
    buffers: &[usize],
    all: usize,
) -> Result<(Vec<FieldNode>, Vec<Buffer>), ArrowError> {
    let message = MessageRef::read_as_root(metadata).map_err(unreadable)?;
    let Some(MessageHeaderRef::RecordBatch(batch)) = message.header().map_err(unreadable)? else {
        return Err(ArrowError::rows("a record batch is none"));
    };
    let (described, found) = (batch.nodes().map_err(unreadable)?, batch.buffers().map_err(unreadable)?);
    let count = found.as_ref().map_or(0, |found| found.len());
    if count != all {
        return Err(ArrowError::rows(format!("{count} buffers where the columns have {all}")));
    }
    let node = |at: &usize| {
        let node = described.as_ref()?.get(*at)?;
        Some(FieldNode { length: node.length(), null_count: node.null_count() })
    };
    let buffer = |at: &usize| {
        let buffer = found.as_ref()?.get(*at)?;
        Some(Buffer { offset: buffer.offset(), length: buffer.length() })
    };
    let nodes: Option<Vec<FieldNode>> = nodes.iter().map(node).collect();
    let buffers: Option<Vec<Buffer>> = buffers.iter().map(buffer).collect();
    nodes.zip(buffers).ok_or_else(|| ArrowError::rows("a record batch lacks a column"))
}

/// Refuses what is no schema, or no batch of plain, uncompressed columns whose buffers lie within its body. `nodes` is how many
/// columns the schema has, with those within structs, where there was one.
pub(crate) fn check(
    metadata: &[u8],
    body: usize,
    nodes: Option<usize>,
    limits: &Limits,
) -> Result<Kind, ArrowError> {
    let message = MessageRef::read_as_root(metadata).map_err(unreadable)?;
    match (message.header().map_err(unreadable)?, nodes) {
        (Some(MessageHeaderRef::Schema(schema)), None) => check_schema(schema, metadata.len(), limits),
        (Some(MessageHeaderRef::RecordBatch(batch)), Some(nodes)) => {
            Ok(Kind::Batch { rows: check_batch(batch, nodes, body, limits)? })
        }
        (Some(MessageHeaderRef::DictionaryBatch(_)), _) if !limits.dictionaries => Err(dictionary()),
        (Some(MessageHeaderRef::DictionaryBatch(batch)), Some(_)) => {
            if batch.is_delta().map_err(unreadable)? {
                return Err(ArrowError::rows("a dictionary adds to another; write it whole each time"));
            }
            let values = batch.data().map_err(unreadable)?;
            let values = values.ok_or_else(|| ArrowError::rows("a dictionary has no values"))?;
            check_batch(values, 1, body, limits)?;
            Ok(Kind::Dictionary { id: batch.id().map_err(unreadable)? })
        }
        (None, None) => Err(ArrowError::rows("the stream has no schema")),
        _ => Err(ArrowError::rows("not a schema and then record batches")),
    }
}

/// How many columns there are. Whoever reads a schema copies its texts. Several fields may point at the same bytes of the metadata,
/// but no writer does that, so that all texts together are no longer than the metadata.
fn check_schema(schema: SchemaRef<'_>, metadata: usize, limits: &Limits) -> Result<Kind, ArrowError> {
    let mut fields = Fields { left: metadata, nodes: 0, limits };
    take_pairs(&mut fields.left, schema.custom_metadata().map_err(unreadable)?)?;
    let found = schema.fields().map_err(unreadable)?;
    let columns = found.map_or(0, |found| found.len());
    found.map_or(Ok(()), |found| fields.check(found, 0))?;
    Ok(Kind::Schema { columns, nodes: fields.nodes })
}

/// What of a schema was looked at.
struct Fields<'l> {
    /// Bytes that other texts may have.
    left: usize,
    /// Columns, and those within structs.
    nodes: usize,
    limits: &'l Limits,
}

impl Fields<'_> {
    fn check(
        &mut self,
        fields: planus::Vector<'_, planus::Result<FieldRef<'_>>>,
        depth: usize,
    ) -> Result<(), ArrowError> {
        self.nodes = self.nodes.saturating_add(fields.len());
        if self.nodes > self.limits.columns {
            return Err(ArrowError::rows(format!(
                "{} columns are more than {}",
                self.nodes, self.limits.columns
            )));
        }
        for field in fields {
            let field = field.map_err(unreadable)?;
            let name = field.name().map_err(unreadable)?.unwrap_or_default();
            take(&mut self.left, name.len())?;
            take_pairs(&mut self.left, field.custom_metadata().map_err(unreadable)?)?;
            let found = field.type_().map_err(unreadable)?;
            if let Some(TypeRef::Timestamp(time)) = found {
                take(&mut self.left, time.timezone().map_err(unreadable)?.map_or(0, str::len))?;
            }
            let children = field.children().map_err(unreadable)?.filter(|children| !children.is_empty());
            match (children, found) {
                (Some(children), Some(TypeRef::Struct(_))) if self.limits.structs => {
                    if depth == STRUCT_DEPTH_MAX {
                        let what =
                            format!("column {name:?} is nested more than {STRUCT_DEPTH_MAX} levels deep");
                        return Err(ArrowError::rows(what));
                    }
                    self.check(children, depth + 1)?;
                }
                (Some(_), _) | (None, Some(TypeRef::Union(_))) => {
                    return Err(ArrowError::rows(format!(
                        "column {name:?} has a nested type; use plain columns"
                    )));
                }
                (None, _) => {}
            }
            if !self.limits.dictionaries && field.dictionary().map_err(unreadable)?.is_some() {
                return Err(dictionary());
            }
        }
        Ok(())
    }
}

fn take(left: &mut usize, bytes: usize) -> Result<(), ArrowError> {
    let rest = left.checked_sub(bytes);
    *left = rest.ok_or_else(|| ArrowError::rows("the texts of the schema are longer than the schema"))?;
    Ok(())
}

fn take_pairs(left: &mut usize, pairs: Option<Pairs<'_>>) -> Result<(), ArrowError> {
    for pair in pairs.into_iter().flatten() {
        let pair = pair.map_err(unreadable)?;
        let (key, value) = (pair.key().map_err(unreadable)?, pair.value().map_err(unreadable)?);
        take(left, PAIR_BYTES + key.map_or(0, str::len) + value.map_or(0, str::len))?;
    }
    Ok(())
}

/// How many rows there are.
fn check_batch(
    batch: RecordBatchRef<'_>,
    columns: usize,
    body: usize,
    limits: &Limits,
) -> Result<usize, ArrowError> {
    if batch.compression().map_err(unreadable)?.is_some() {
        return Err(ArrowError::rows("a record batch is compressed; write without compression"));
    }
    let length = batch.length().map_err(unreadable)?;
    let rows = usize::try_from(length).ok().filter(|rows| *rows <= limits.rows);
    let rows = rows.ok_or_else(|| ArrowError::rows(format!("a record batch of {length} rows")))?;
    let nodes = batch.nodes().map_err(unreadable)?;
    let described = nodes.map_or(0, |nodes| nodes.len());
    if described != columns {
        return Err(ArrowError::rows(format!("{described} columns where the schema has {columns}")));
    }
    for node in nodes.into_iter().flatten() {
        if node.length() != length || !(0..=length).contains(&node.null_count()) {
            let (found, nulls) = (node.length(), node.null_count());
            let what = format!("a column of {found} rows with {nulls} nulls in a record batch of {length}");
            return Err(ArrowError::rows(what));
        }
    }
    for buffer in batch.buffers().map_err(unreadable)?.into_iter().flatten() {
        let (at, bytes) = (buffer.offset(), buffer.length());
        let end =
            usize::try_from(at).ok().zip(usize::try_from(bytes).ok()).and_then(|(at, b)| at.checked_add(b));
        if end.is_none_or(|end| end > body) {
            let what = format!("a buffer of {bytes} bytes at {at} in a body of {body}");
            return Err(ArrowError::rows(what));
        }
    }
    Ok(rows)
}

fn dictionary() -> ArrowError {
    ArrowError::rows("a column is dictionary-encoded; cast it to its plain type")
}

fn unreadable(error: planus::Error) -> ArrowError {
    ArrowError::rows(format!("the metadata of a message cannot be read: {error}"))
}
