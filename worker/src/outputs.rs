//! What runs give.

use underbelly_protocol::message::{Metadata, OutputCell, PutModel, Span};
use underbelly_protocol::{Field, ProtocolError, rows};
use underbelly_storage::{ColumnError, Columns, Value};

/// Why a run gives no outputs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// There is nothing to produce from these inputs, and that is fine: outputs become absent.
    #[error("declined: {0}")]
    Declined(String),
    /// The production failed for good: outputs become invalid.
    #[error("{0}")]
    Fatal(String),
    /// It failed, and may succeed later: the run is tried again.
    #[error("to be tried again: {0}")]
    Retry(String),
    /// It was not taken up, since something that it needs is too busy: the run is tried again, and no attempt is used.
    #[error("rejected: {0}")]
    Rejected(String),
}

impl Failure {
    /// There is nothing to produce from these inputs, and that is fine.
    pub fn declined(reason: impl Into<String>) -> Failure {
        Failure::Declined(reason.into())
    }

    /// The production failed for good.
    pub fn fatal(reason: impl Into<String>) -> Failure {
        Failure::Fatal(reason.into())
    }

    /// It failed, and may succeed later.
    pub fn retry(reason: impl Into<String>) -> Failure {
        Failure::Retry(reason.into())
    }

    /// It was not taken up, since something that it needs is too busy.
    pub fn rejected(reason: impl Into<String>) -> Failure {
        Failure::Rejected(reason.into())
    }
}

impl From<ProtocolError> for Failure {
    fn from(error: ProtocolError) -> Failure {
        Failure::Fatal(error.to_string())
    }
}

impl From<ColumnError> for Failure {
    fn from(error: ColumnError) -> Failure {
        Failure::Fatal(error.to_string())
    }
}

/// What a run produces: cells, and models.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    cells: Vec<(OutputCell, Option<Columns>)>,
    models: Vec<(Metadata, Vec<u8>)>,
}

impl Outputs {
    /// No outputs yet.
    pub fn new() -> Outputs {
        Outputs::default()
    }

    fn give<V: Into<Value>>(
        mut self,
        slot: &str,
        key: impl IntoIterator<Item = (&'static str, V)>,
        rows: Option<Columns>,
        error: Option<String>,
    ) -> Outputs {
        let key = key.into_iter().map(|(name, value)| (name.to_string(), Field(value.into()))).collect();
        let cell = OutputCell { slot: slot.to_string(), key, error, ..OutputCell::default() };
        self.cells.push((cell, rows));
        self
    }

    /// Puts the rows of the cell with the bundle's own date and key.
    pub fn put(self, slot: &str, rows: Columns) -> Outputs {
        self.give::<Value>(slot, [], Some(rows), None)
    }

    /// Puts the rows of a cell whose key extends the bundle's: key columns that are not named are the bundle's.
    pub fn put_at<V: Into<Value>>(
        self,
        slot: &str,
        key: impl IntoIterator<Item = (&'static str, V)>,
        rows: Columns,
    ) -> Outputs {
        self.give(slot, key, Some(rows), None)
    }

    /// Puts a version of a model, whose type is a slot of models that the producer provides. It is the content of the cell of the
    /// bundle's date and of the attributes that are its keys, in the same transaction as the other outputs.
    ///
    /// ```
    /// use underbelly_worker::{Metadata, Outputs, Timestamp};
    /// let metadata = Metadata::json(r#"{"type": "scaler", "symbol": "IBM"}"#).instant("timestamp", Timestamp(5));
    /// let outputs = Outputs::new().put_model(metadata, 2.5f64.to_le_bytes());
    /// # let _ = outputs;
    /// ```
    pub fn put_model(mut self, metadata: Metadata, blob: impl Into<Vec<u8>>) -> Outputs {
        self.models.push((metadata, blob.into()));
        self
    }

    /// Says that the cell with the bundle's own date and key could not be made, while other outputs could.
    pub fn fail(self, slot: &str, error: impl Into<String>) -> Outputs {
        self.give::<Value>(slot, [], None, Some(error.into()))
    }

    /// Says that a cell whose key extends the bundle's could not be made.
    pub fn fail_at<V: Into<Value>>(
        self,
        slot: &str,
        key: impl IntoIterator<Item = (&'static str, V)>,
        error: impl Into<String>,
    ) -> Outputs {
        self.give(slot, key, None, Some(error.into()))
    }

    /// Says that the output given last rests on these inputs alone, and not on all that the run was given.
    pub fn uses<'a>(mut self, inputs: impl IntoIterator<Item = &'a str>) -> Outputs {
        if let Some((cell, _)) = self.cells.last_mut() {
            cell.uses.get_or_insert_default().extend(inputs.into_iter().map(str::to_string));
        }
        self
    }

    /// As the message says it, with the rows and blobs in `data`, which takes this many bytes.
    pub(crate) fn encode(self, data: &mut Vec<u8>, limit: u64) -> Result<Encoded, ProtocolError> {
        let mut cells = Vec::with_capacity(self.cells.len());
        for (mut cell, given) in self.cells {
            if let Some(given) = given {
                let at = data.len() as u64;
                rows::encode(given, data)?;
                cell.rows = Some(span_from(at, data, limit)?);
            }
            cells.push(cell);
        }
        let models = self.models.iter().map(|(metadata, blob)| (metadata, &blob[..]));
        Ok((cells, encode_models(models, data, limit)?))
    }
}

/// Cells and models as a message says them.
type Encoded = (Vec<OutputCell>, Vec<PutModel>);

/// The models of a message, with their blobs behind `data`, which takes this many bytes.
pub(crate) fn encode_models<'m>(
    models: impl IntoIterator<Item = (&'m Metadata, &'m [u8])>,
    data: &mut Vec<u8>,
    limit: u64,
) -> Result<Vec<PutModel>, ProtocolError> {
    let put = |(metadata, blob): (&Metadata, &[u8])| {
        let at = data.len() as u64;
        let found = at.saturating_add(blob.len() as u64);
        if found > limit {
            return Err(ProtocolError::TooLong { part: "data", found, limit });
        }
        data.extend_from_slice(blob);
        Ok(PutModel { metadata: metadata.clone(), blob: Span { at, bytes: blob.len() as u64 } })
    };
    models.into_iter().map(put).collect()
}

/// What was added to `data` since it ended there.
fn span_from(at: u64, data: &[u8], limit: u64) -> Result<Span, ProtocolError> {
    let found = data.len() as u64;
    if found > limit {
        return Err(ProtocolError::TooLong { part: "data", found, limit });
    }
    Ok(Span { at, bytes: found - at })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_blobs_that_take_too_much_are_told() {
        let rows = Columns::new().with("n", vec![1i64; 100].into()).unwrap();
        let outputs = Outputs::new().put("A", rows.clone()).put("B", rows);
        let mut data = Vec::new();
        assert_eq!(outputs.clone().encode(&mut data, 1 << 20).unwrap().0.len(), 2);
        let enough = data.len() as u64;
        assert!(outputs.clone().encode(&mut Vec::new(), enough).is_ok());
        let with_model = outputs.clone().put_model(Metadata::default(), vec![0; 9]);
        assert!(with_model.clone().encode(&mut Vec::new(), enough + 9).is_ok());
        for (outputs, limit) in [(outputs, enough - 1), (with_model, enough + 8)] {
            let error = outputs.encode(&mut Vec::new(), limit).unwrap_err();
            assert!(matches!(error, ProtocolError::TooLong { part: "data", .. }), "{error}");
        }
    }
}
