//! Rows as Arrow IPC streams: a schema, and record batches of plain columns.
//!
//! What comes from outside is looked through first: lengths that do not fit into the bytes that are there, nested types,
//! dictionaries and compressed bodies never get to the reader.

use underbelly_arrow::{ArrowError, Limits};
use underbelly_storage::Columns;

use crate::error::ProtocolError;
use crate::limits::{COLUMNS_MAX, DATA_BYTES_MAX, ROWS_MAX};

/// Appends rows to `out` as an Arrow IPC stream.
///
/// # Errors
/// [`ProtocolError::Rows`] where a text or its offsets are longer than Arrow takes.
pub fn encode(rows: Columns, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
    underbelly_arrow::encode(rows, out).map_err(failed)
}

/// The rows of an Arrow IPC stream: its record batches one behind another. Shorter integers widen; a column of Arrow's type
/// `null` is left out.
///
/// # Errors
/// [`ProtocolError::Rows`], which says what is wrong.
pub fn decode(bytes: &[u8]) -> Result<Columns, ProtocolError> {
    let limits = Limits {
        columns: COLUMNS_MAX,
        rows: ROWS_MAX,
        body_bytes: DATA_BYTES_MAX,
        dictionaries: false,
        structs: false,
        ..Limits::default()
    };
    underbelly_arrow::decode(bytes, limits).map_err(failed)
}

fn failed(error: ArrowError) -> ProtocolError {
    match error {
        ArrowError::Rows { what } | ArrowError::Unfit { what } => ProtocolError::Rows { what },
        ArrowError::Io(error) => ProtocolError::Io(error),
        other => ProtocolError::rows(other.to_string()),
    }
}
