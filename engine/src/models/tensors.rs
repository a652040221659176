//! Blobs in the safetensors format: eight bytes with the length of the header, the header in JSON, the data.
//!
//! The header is read once; of the data nothing is, but what is asked for. A header is believed as far as its offsets lie
//! within the blob, and what it says takes no more memory than its text by a small factor.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use underbelly_storage::object::Blob;

use super::content::Content;
use crate::error::ReadError;

/// Bytes of a header, at most: what the format allows.
pub(super) const HEADER_BYTES_MAX: u64 = 100_000_000;

/// Dimensions of a tensor, at most.
const DIMENSIONS_MAX: usize = 64;

/// Names of tensors that an error tells.
const TENSORS_TOLD: usize = 16;
/// Characters of each.
const NAME_TOLD: usize = 64;

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

/// Bytes of a number; `None` of a type that takes no whole ones, or that is not known here.
fn number_bytes(dtype: &str) -> Option<u64> {
    match dtype {
        "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => Some(1),
        "U16" | "I16" | "F16" | "BF16" => Some(2),
        "U32" | "I32" | "F32" => Some(4),
        "U64" | "I64" | "F64" | "C64" => Some(8),
        _ => None,
    }
}

/// Under this name the header has text about the blob, and no tensor.
pub(super) const METADATA: &str = "__metadata__";

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

/// What a header says, by name.
#[derive(Debug)]
pub(super) struct Header {
    described: BTreeMap<String, Described>,
    /// Where the data begins.
    data: u64,
    /// Where the blob ends.
    bytes: u64,
}

#[derive(Debug)]
struct Described {
    dtype: String,
    shape: Vec<u64>,
    offsets: [u64; 2],
}

/// Numbers, of which there are few.
struct Numbers(Vec<u64>);

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Numbers, D::Error> {
        struct Few;
        impl<'de> Visitor<'de> for Few {
            type Value = Numbers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {DIMENSIONS_MAX} whole numbers")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Numbers, A::Error> {
                let mut numbers = Vec::new();
                while let Some(number) = list.next_element()? {
                    numbers.push(number);
                    if numbers.len() > DIMENSIONS_MAX {
                        return Err(A::Error::invalid_length(numbers.len(), &self));
                    }
                }
                Ok(Numbers(numbers))
            }
        }
        from.deserialize_seq(Few)
    }
}

impl<'de> Deserialize<'de> for Described {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Described, D::Error> {
        struct Tensor;
        impl<'de> Visitor<'de> for Tensor {
            type Value = Described;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a tensor with dtype, shape and two data_offsets")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Described, A::Error> {
                let (mut dtype, mut shape, mut offsets) = (None, None, None);
                while let Some(field) = map.next_key::<String>()? {
                    match &*field {
                        "dtype" => dtype = Some(map.next_value()?),
                        "shape" => shape = Some(map.next_value::<Numbers>()?.0),
                        "data_offsets" => offsets = <[u64; 2]>::try_from(map.next_value::<Numbers>()?.0).ok(),
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                let missing = || A::Error::missing_field("dtype, shape or data_offsets");
                let (dtype, shape) = (dtype.ok_or_else(missing)?, shape.ok_or_else(missing)?);
                Ok(Described { dtype, shape, offsets: offsets.ok_or_else(missing)? })
            }
        }
        from.deserialize_map(Tensor)
    }
}

/// All tensors that a header describes.
struct All(BTreeMap<String, Described>);

impl<'de> Deserialize<'de> for All {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<All, D::Error> {
        struct Tensors;
        impl<'de> Visitor<'de> for Tensors {
            type Value = All;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("tensors by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<All, A::Error> {
                let mut all = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    match &*name {
                        METADATA => drop(map.next_value::<IgnoredAny>()?),
                        _ => {
                            let described = map.next_value()?;
                            if all.contains_key(&name) {
                                return Err(Error::custom(format!("tensor {name:?} is there twice")));
                            }
                            all.insert(name, described);
                        }
                    }
                }
                Ok(All(all))
            }
        }
        from.deserialize_map(Tensors)
    }
}

impl Header {
    /// Reads the header of a blob.
    pub(super) fn read(content: &Content) -> Result<Header, ReadError> {
        let none = || wrong("the blob does not begin as one of the safetensors format; read it as bytes");
        let first = content.range(0..content.len().min(LENGTH_BYTES + 1))?;
        let data = data_at(&first).filter(|data| *data <= content.len()).ok_or_else(none)?;
        let text = content.range(LENGTH_BYTES..data)?;
        let All(described) =
            serde_json::from_slice(&text).map_err(|error| wrong(format!("the header is none: {error}")))?;
        Ok(Header { described, data, bytes: content.len() })
    }

    /// All tensors, by name.
    pub(super) fn tensors(&self) -> Result<Vec<TensorInfo>, ReadError> {
        self.described.keys().map(|name| self.info(name)).collect()
    }

    /// Where one tensor lies.
    pub(super) fn info(&self, name: &str) -> Result<TensorInfo, ReadError> {
        let none = || {
            // They come from a file that anybody may have written.
            let cut = |name: &str| format!("{:?}", name.chars().take(NAME_TOLD).collect::<String>());
            let all: Vec<String> = self.described.keys().take(TENSORS_TOLD).map(|name| cut(name)).collect();
            let others = self.described.len() - all.len();
            let more = if others == 0 { String::new() } else { format!(" and {others} more") };
            let told = if all.is_empty() { "none".to_string() } else { all.join(", ") };
            wrong(format!("no tensor is named {name:?}; there are {told}{more}"))
        };
        let Described { dtype, shape, offsets: [from, to] } = self.described.get(name).ok_or_else(none)?;
        let beyond = || wrong(format!("the header places tensor {name:?} beyond the blob"));
        let ends = self.data.checked_add(*from).zip(self.data.checked_add(*to));
        let (start, end) =
            ends.filter(|(start, end)| start <= end && *end <= self.bytes).ok_or_else(beyond)?;
        let wanted = number_bytes(dtype)
            .map(|bytes| shape.iter().try_fold(bytes, |all, extent| all.checked_mul(*extent)));
        if wanted.is_some_and(|wanted| wanted != Some(end - start)) {
            let what = format!(
                "{dtype} of shape {shape:?} does not take the {} bytes that the header gives it",
                end - start
            );
            return Err(wrong(format!("tensor {name:?}: {what}")));
        }
        let (name, dtype, shape) = (name.to_string(), dtype.clone(), shape.clone());
        Ok(TensorInfo { name, dtype, shape, range: start..end })
    }
}
