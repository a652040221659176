//! Several parts saved as one blob: a blob in the safetensors format with a tensor of bytes for each part.

use std::collections::BTreeMap;

/// The parts of a live model, each under a name: the model, a scaler, a list of labels. They are saved as one blob, of
/// which [`Model::tensor`](crate::Model::tensor) reads one, as any program that knows safetensors does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts(BTreeMap<String, Vec<u8>>);

/// Bytes on whose multiples the data begins.
const DATA_ALIGNMENT: usize = 64;

impl Parts {
    /// No parts yet.
    pub fn new() -> Parts {
        Parts::default()
    }

    /// The same with one more; one of that name is replaced. A live model cannot be saved with one named `__metadata__`, under
    /// which the format keeps no data.
    pub fn with(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Parts {
        self.0.insert(name.to_string(), bytes.into());
        self
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The blob.
    pub fn to_blob(&self) -> Vec<u8> {
        let (mut header, mut at) = (serde_json::Map::new(), 0);
        for (name, bytes) in &self.0 {
            let end = at + bytes.len();
            let described =
                serde_json::json!({"dtype": "U8", "shape": [bytes.len()], "data_offsets": [at, end]});
            header.insert(name.clone(), described);
            at = end;
        }
        let mut header = serde_json::Value::Object(header).to_string();
        while !(8 + header.len()).is_multiple_of(DATA_ALIGNMENT) {
            header.push(' ');
        }
        let mut blob = Vec::with_capacity(8 + header.len() + at);
        blob.extend_from_slice(&(header.len() as u64).to_le_bytes());
        blob.extend_from_slice(header.as_bytes());
        self.0.values().for_each(|bytes| blob.extend_from_slice(bytes));
        blob
    }
}
