//! Models: blobs found by a metadata dict, version after version.

mod catalogue;
mod metadata;

pub use catalogue::{Model, ModelInfo};
pub(crate) use catalogue::{Models, Version};
pub use metadata::{IDENTITY_PREFIX, MetaValue, Metadata, MetadataError, ModelId};
