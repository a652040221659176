//! Objects: byte strings that are found by the hash of what they hold.
//!
//! Small ones lie together in a pack, large ones and the chunks of blobs in chunk files. Reading lends the file's pages.

mod blob;
mod chunk;
mod id;
mod pack;
#[cfg(test)]
mod tests;

pub use blob::Blob;
pub use chunk::{ChunkWriter, Chunks, Placement, open_chunk, write_chunk};
pub use id::ObjectId;
pub use pack::{Pack, PackInfo, write_pack};
