//! What an Arrow IPC stream says of itself, compared with the bytes that are there, before anything believes it.

use arrow_format::ipc::planus::{self, ReadAsRoot};
use arrow_format::ipc::{MessageHeaderRef, MessageRef, RecordBatchRef, SchemaRef};

use crate::error::ProtocolError;
use crate::limits::{COLUMNS_MAX, ROWS_MAX};

/// Before the length of a message, in streams since 2019.
const CONTINUATION: [u8; 4] = [0xff; 4];

/// Refuses a stream that is no schema with record batches of plain, uncompressed columns, whose buffers lie within their
/// bodies, and whose bodies are all there.
pub(super) fn check(bytes: &[u8]) -> Result<(), ProtocolError> {
    let mut rest = bytes;
    let mut columns = None;
    let mut rows = 0usize;
    while let Some(metadata) = message(&mut rest)? {
        let message = MessageRef::read_as_root(metadata).map_err(unreadable)?;
        let body = usize::try_from(message.body_length().map_err(unreadable)?)
            .ok()
            .and_then(|length| rest.split_at_checked(length));
        let (body, behind) = body.ok_or_else(|| ProtocolError::rows("the body of a message is cut short"))?;
        rest = behind;
        match (message.header().map_err(unreadable)?, columns) {
            (Some(MessageHeaderRef::Schema(schema)), None) => columns = Some(check_schema(schema)?),
            (Some(MessageHeaderRef::RecordBatch(batch)), Some(columns)) => {
                rows = rows.saturating_add(check_batch(batch, columns, body.len())?);
                if rows > ROWS_MAX {
                    return Err(ProtocolError::rows(format!("more than {ROWS_MAX} rows; use smaller cells")));
                }
            }
            (Some(MessageHeaderRef::DictionaryBatch(_)), _) => return Err(dictionary()),
            _ => return Err(ProtocolError::rows("not a schema and then record batches")),
        }
    }
    match columns {
        None => Err(ProtocolError::rows("the stream has no schema")),
        Some(_) if !rest.is_empty() => {
            Err(ProtocolError::rows(format!("{} bytes are behind the stream's end", rest.len())))
        }
        Some(_) => Ok(()),
    }
}

/// The metadata of the next message; `None` at the end of the stream.
fn message<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, ProtocolError> {
    let cut = || ProtocolError::rows("the stream is cut short");
    let mut word = || {
        let (word, behind) = rest.split_first_chunk::<4>()?;
        *rest = behind;
        Some(*word)
    };
    let length = match word() {
        Some(CONTINUATION) => word(),
        length => length,
    };
    let length = usize::try_from(i32::from_le_bytes(length.ok_or_else(cut)?)).map_err(|_| cut())?;
    if length == 0 {
        return Ok(None);
    }
    let (metadata, behind) = rest.split_at_checked(length).ok_or_else(cut)?;
    *rest = behind;
    Ok(Some(metadata))
}

/// How many columns there are.
fn check_schema(schema: SchemaRef<'_>) -> Result<usize, ProtocolError> {
    let Some(fields) = schema.fields().map_err(unreadable)? else { return Ok(0) };
    let count = fields.len();
    if count > COLUMNS_MAX {
        return Err(ProtocolError::rows(format!("{count} columns are more than {COLUMNS_MAX}")));
    }
    for field in fields {
        let field = field.map_err(unreadable)?;
        let name = field.name().map_err(unreadable)?.unwrap_or_default();
        if field.children().map_err(unreadable)?.is_some_and(|children| !children.is_empty()) {
            return Err(ProtocolError::rows(format!("column {name:?} has a nested type; use plain columns")));
        }
        if field.dictionary().map_err(unreadable)?.is_some() {
            return Err(dictionary());
        }
    }
    Ok(count)
}

/// How many rows there are.
fn check_batch(batch: RecordBatchRef<'_>, columns: usize, body: usize) -> Result<usize, ProtocolError> {
    if batch.compression().map_err(unreadable)?.is_some() {
        return Err(ProtocolError::rows("a record batch is compressed; write without compression"));
    }
    let length = batch.length().map_err(unreadable)?;
    let rows = usize::try_from(length).ok().filter(|rows| *rows <= ROWS_MAX);
    let rows = rows.ok_or_else(|| ProtocolError::rows(format!("a record batch of {length} rows")))?;
    let nodes = batch.nodes().map_err(unreadable)?;
    let described = nodes.map_or(0, |nodes| nodes.len());
    if described != columns {
        return Err(ProtocolError::rows(format!("{described} columns where the schema has {columns}")));
    }
    for node in nodes.into_iter().flatten() {
        if node.length() != length || !(0..=length).contains(&node.null_count()) {
            let (found, nulls) = (node.length(), node.null_count());
            let what = format!("a column of {found} rows with {nulls} nulls in a record batch of {length}");
            return Err(ProtocolError::rows(what));
        }
    }
    for buffer in batch.buffers().map_err(unreadable)?.into_iter().flatten() {
        let (at, bytes) = (buffer.offset(), buffer.length());
        let end =
            usize::try_from(at).ok().zip(usize::try_from(bytes).ok()).and_then(|(at, b)| at.checked_add(b));
        if end.is_none_or(|end| end > body) {
            let what = format!("a buffer of {bytes} bytes at {at} in a body of {body}");
            return Err(ProtocolError::rows(what));
        }
    }
    Ok(rows)
}

fn dictionary() -> ProtocolError {
    ProtocolError::rows("a column is dictionary-encoded; cast it to its plain type")
}

fn unreadable(error: planus::Error) -> ProtocolError {
    ProtocolError::rows(format!("the metadata of a message cannot be read: {error}"))
}
