//! Models: blobs found by a metadata dict, version after version.

mod attributes;
mod catalogue;
mod cbor;
mod cells;
mod content;
mod entry;
mod fill;
mod find;
mod json;
mod live;
mod marks;
mod metadata;
mod parts;
mod tensors;
mod training;
mod upload;
mod versions;
mod wanted;

pub(crate) use attributes::Attributes;
pub use attributes::{IndexState, IndexStatus};
pub use catalogue::ModelInfo;
pub(crate) use catalogue::{Models, Numbered, Unstored, Version};
pub(crate) use cells::writes_of;
pub(crate) use content::Content;
pub use content::{Model, ModelReader};
pub(crate) use live::LiveModels;
pub use live::{LiveBuilder, LiveModel, LiveStatus, LockedModel, Restored};
pub use marks::Retention;
pub(crate) use marks::{
    ChangedMarks, MODEL, MarkChange, MarkKind, MarkName, NEWEST, StoredMark, number, value_of_cbor,
    value_to_cbor,
};
pub(crate) use marks::{decode as decode_mark, encode as encode_mark};
pub use metadata::{IDENTITY_PREFIX, MetaValue, Metadata, MetadataError, ModelId};
pub use parts::Parts;
pub use tensors::{Tensor, TensorInfo};
pub use training::{TrainedOn, Training};
pub use upload::{BlobWriter, StoredBlob};
pub(crate) use upload::{Body, hash_of_chunks};
pub use versions::{Alias, AliasTarget, Annotation, Location, ModelName, VersionInfo};
pub use wanted::{Where, WhereError};
