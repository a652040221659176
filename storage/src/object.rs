//! Objects: byte strings that are found by the hash of what they hold.
//!
//! Small ones lie together in a pack, a large one alone in a chunk file, which is a pack of one under another
//! magic. Reading lends the file's pages.

mod blob;
mod chunk;
mod id;
mod pack;
#[cfg(test)]
mod tests;

pub use blob::Blob;
pub use chunk::{identify_chunk, open_chunk, verify_chunk, write_chunk};
pub use id::ObjectId;
pub use pack::{Pack, PackInfo, write_pack};
