//! Models: blobs found by a metadata dict, version after version.

mod attributes;
mod catalogue;
mod cbor;
mod entry;
mod fill;
mod find;
mod json;
mod metadata;
mod wanted;

pub(crate) use attributes::Attributes;
pub use attributes::{IndexState, IndexStatus};
pub use catalogue::{Model, ModelInfo};
pub(crate) use catalogue::{Models, Numbered, Unstored, Version};
pub use metadata::{IDENTITY_PREFIX, MetaValue, Metadata, MetadataError, ModelId};
pub use wanted::{Where, WhereError};
