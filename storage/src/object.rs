//! Objects: byte strings that are found by the hash of what they hold.
//!
//! Small ones lie together in a pack, large ones and the chunks of blobs in chunk files. Reading lends the file's pages.

mod blob;
mod chunk;
mod id;
mod pack;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;

use crate::disk::File;
use crate::limits::CHUNK_BLOCK_BYTES;

pub use blob::Blob;
pub use chunk::{ChunkWriter, Chunks, ChunksOnDisk, Placement, open_chunk, write_chunk};
pub use id::ObjectId;
pub use pack::{Pack, PackInfo, write_pack};

/// Whether all blocks of a stretch of a file pass a check. They are read and not mapped: a place that the disk does not give is
/// an error here, and would end the process where it is touched.
fn blocks_pass(file: &dyn File, range: Range<u64>, mut check: impl FnMut(&[u8]) -> bool) -> io::Result<bool> {
    let length = range.end.saturating_sub(range.start);
    let mut block =
        vec![0; usize::try_from(length).map_or(CHUNK_BLOCK_BYTES, |all| all.min(CHUNK_BLOCK_BYTES))];
    let mut at = range.start;
    while at < range.end {
        let bytes = usize::try_from(range.end - at).map_or(block.len(), |left| left.min(block.len()));
        let part = block.get_mut(..bytes).unwrap_or_default();
        if file.read_at(part, at)? != bytes || !check(part) {
            return Ok(false);
        }
        at += bytes as u64;
    }
    Ok(true)
}
