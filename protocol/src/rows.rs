//! Rows as Arrow IPC streams: a schema, and record batches of plain columns.
//!
//! arrow2 reads and writes them. What comes from outside is looked through first, by `claims`: lengths that do not fit into
//! the bytes that are there, nested types and compressed bodies never get to it.

mod claims;
mod columns;

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow2::array::Array;
use arrow2::chunk::Chunk;
use arrow2::datatypes::{Field, Schema};
use arrow2::io::ipc::read::{StreamReader, StreamState, read_stream_metadata};
use arrow2::io::ipc::write::{StreamWriter, WriteOptions};
use underbelly_storage::{Column, Columns};

use crate::error::ProtocolError;

/// Appends rows to `out` as an Arrow IPC stream.
///
/// # Errors
/// [`ProtocolError::Rows`] where a text or its offsets are longer than Arrow takes.
pub fn encode(rows: Columns, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
    let mut fields = Vec::with_capacity(rows.width());
    let mut arrays = Vec::with_capacity(rows.width());
    for (name, column) in rows.into_columns() {
        let array = columns::to_arrow(column).map_err(|error| failed(&error))?;
        fields.push(Field::new(name.to_string(), array.data_type().clone(), true));
        arrays.push(array);
    }
    let mut writer = StreamWriter::new(out, WriteOptions::default());
    writer.start(&Schema::from(fields), None).map_err(|error| failed(&error))?;
    let chunk = Chunk::try_new(arrays).map_err(|error| failed(&error))?;
    writer.write(&chunk, None).map_err(|error| failed(&error))?;
    writer.finish().map_err(|error| failed(&error))
}

/// The rows of an Arrow IPC stream: its record batches one behind another. Shorter integers widen; a column of Arrow's type
/// `null` is left out.
///
/// # Errors
/// [`ProtocolError::Rows`], which says what is wrong.
pub fn decode(bytes: &[u8]) -> Result<Columns, ProtocolError> {
    claims::check(bytes)?;
    match catch_unwind(AssertUnwindSafe(|| read(bytes))) {
        Ok(rows) => rows,
        Err(_) => Err(ProtocolError::rows("the Arrow reader gave up on them")),
    }
}

fn read(mut bytes: &[u8]) -> Result<Columns, ProtocolError> {
    let metadata = read_stream_metadata(&mut bytes).map_err(|error| failed(&error))?;
    let fields = metadata.schema.fields.clone();
    let mut found: Vec<Option<Column>> = Vec::with_capacity(fields.len());
    for field in &fields {
        let named = |what| ProtocolError::rows(format!("column {:?} {what}", field.name));
        found.push(columns::empty(&field.data_type).map_err(named)?);
    }
    for state in StreamReader::new(bytes, metadata, None) {
        let StreamState::Some(chunk) = state.map_err(|error| failed(&error))? else { break };
        for ((array, column), field) in chunk.into_arrays().into_iter().zip(&mut found).zip(&fields) {
            let named = |what| ProtocolError::rows(format!("column {:?} {what}", field.name));
            let Some(column) = column else { continue };
            columns::append(column, &*array as &dyn Array).map_err(named)?;
        }
    }
    let mut rows = Columns::new();
    for (column, field) in found.into_iter().zip(fields) {
        let Some(column) = column else { continue };
        rows.insert(field.name.as_str(), column).map_err(|error| ProtocolError::rows(error.to_string()))?;
    }
    Ok(rows)
}

fn failed(error: &arrow2::error::Error) -> ProtocolError {
    ProtocolError::rows(error.to_string())
}

#[cfg(test)]
mod tests;
