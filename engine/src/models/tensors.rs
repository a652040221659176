//! Blobs in the safetensors format: eight bytes with the length of the header, the header in JSON, the data.
//!
//! The header is read each time; nothing of the data is, but what is asked for. A header is believed as far as its
//! offsets lie within the blob.

use std::ops::Range;

use serde_json::Value as Json;
use underbelly_storage::object::Blob;

use super::content::Content;
use crate::error::ReadError;

/// Bytes of a header, at most: what the format allows.
pub(super) const HEADER_BYTES_MAX: u64 = 100_000_000;

/// Bytes before the header.
pub(super) const LENGTH_BYTES: u64 = 8;

/// What a header says of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// The type of its numbers, as the format writes it: `F32`, `I64`, `U8` and so on.
    pub dtype: String,
    /// Its extent in each dimension.
    pub shape: Vec<u64>,
    /// Where its bytes lie in the blob.
    pub range: Range<u64>,
}

/// A tensor.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Tensor {
    /// What the header says of it.
    pub info: TensorInfo,
    /// Its bytes, read in place where they lie in one file.
    pub data: Blob,
}

fn wrong(what: impl Into<String>) -> ReadError {
    ReadError::Tensor { what: what.into() }
}

/// Length of the header and of all before the data, where the first bytes of a blob may be those of the format.
pub(super) fn data_at(first: &[u8]) -> Option<u64> {
    let (length, rest) = first.split_first_chunk::<8>()?;
    let length = u64::from_le_bytes(*length);
    let is_header = rest.first() == Some(&b'{') && (2..=HEADER_BYTES_MAX).contains(&length);
    is_header.then(|| LENGTH_BYTES + length)
}

fn header(content: &Content) -> Result<(Json, u64), ReadError> {
    let none = || wrong("the blob does not begin as one of the safetensors format; read it as bytes");
    let first = content.range(0..content.len().min(LENGTH_BYTES + 1))?;
    let data = data_at(&first).filter(|data| *data <= content.len()).ok_or_else(none)?;
    let text = content.range(LENGTH_BYTES..data)?;
    let header: Json =
        serde_json::from_slice(&text).map_err(|error| wrong(format!("the header is no JSON: {error}")))?;
    Ok((header, data))
}

fn tensor(name: &str, described: &Json, data: u64, bytes: u64) -> Result<TensorInfo, ReadError> {
    let numbers = |field: &str| -> Option<Vec<u64>> {
        described.get(field)?.as_array()?.iter().map(Json::as_u64).collect()
    };
    let read = || {
        let dtype = described.get("dtype")?.as_str()?.to_string();
        let shape = numbers("shape")?;
        let [from, to] = numbers("data_offsets")?[..] else { return None };
        let range = data.checked_add(from)?..data.checked_add(to)?;
        let is_inside = range.start <= range.end && range.end <= bytes;
        is_inside.then(|| TensorInfo { name: name.to_string(), dtype, shape, range })
    };
    read().ok_or_else(|| {
        wrong(format!("the header does not say what tensor {name:?} is, or places it beyond the blob"))
    })
}

/// All tensors, by name.
pub(super) fn read(content: &Content) -> Result<Vec<TensorInfo>, ReadError> {
    let (header, data) = header(content)?;
    let entries = header.as_object().ok_or_else(|| wrong("the header is no JSON object"))?;
    let named = entries.iter().filter(|(name, _)| *name != "__metadata__");
    named.map(|(name, described)| tensor(name, described, data, content.len())).collect()
}

/// One tensor.
pub(super) fn find(content: &Content, name: &str) -> Result<Tensor, ReadError> {
    let (header, data) = header(content)?;
    let described = header.get(name).filter(|_| name != "__metadata__");
    let described = described
        .ok_or_else(|| wrong(format!("no tensor is named {name:?}; `Model::tensors` lists them")))?;
    let info = tensor(name, described, data, content.len())?;
    let data = content.range(info.range.clone())?;
    Ok(Tensor { info, data })
}
