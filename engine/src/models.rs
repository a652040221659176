//! Models: blobs found by a metadata dict, version after version.

mod attributes;
mod catalogue;
mod cbor;
mod content;
mod entry;
mod fill;
mod find;
mod json;
mod metadata;
mod tensors;
mod upload;
mod wanted;

pub(crate) use attributes::Attributes;
pub use attributes::{IndexState, IndexStatus};
pub use catalogue::ModelInfo;
pub(crate) use catalogue::{Models, Numbered, Unstored, Version};
pub(crate) use content::Content;
pub use content::{Model, ModelReader};
pub use metadata::{IDENTITY_PREFIX, MetaValue, Metadata, MetadataError, ModelId};
pub use tensors::{Tensor, TensorInfo};
pub(crate) use upload::Body;
pub use upload::{BlobWriter, StoredBlob};
pub use wanted::{Where, WhereError};
