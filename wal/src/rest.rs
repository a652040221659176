//! What stands behind the last batch of the last file.

use crate::batch::{self, BATCH_MAX, BatchHeader};
use crate::chain::{Chain, Search, whole_batch};
use crate::error::WalError;
use crate::header::FileHeader;
use crate::layout::{BLOCK, log_name};
use crate::window::Window;

/// What stands behind the last batch that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Nothing of this use of the file.
    Nothing,
    /// So many bytes of a batch that was being written.
    Torn(u64),
    /// A whole batch of this use at this byte, so that what is before it was acknowledged and is damaged.
    Damage { batch: BatchHeader, offset: u64 },
}

impl Rest {
    /// Looks at everything from `end` on, where `chain` was expected. A whole batch of the file's present use there means that
    /// acknowledged records before it were damaged; but for an earlier one behind `end`, which is a copy within what was
    /// being written. Otherwise what is there is a tear or nothing.
    pub fn examine(
        header: &FileHeader,
        window: &mut Window,
        end: u64,
        chain: &Chain,
    ) -> Result<Rest, WalError> {
        let mut search = Search::new(header);
        let mut used_until = end;
        let mut torn_bytes = 0;
        let mut offset = end;
        while offset < header.file_len {
            let block = window.at(offset, BLOCK as usize)?;
            let own = batch::salt_of(block) == Some(header.salt);
            let begins = batch::has_magic(block);
            // Most blocks are blank, and this loop takes many bytes a step.
            let is_blank = block.iter().fold(0, |all, byte| all | byte) == 0;
            if !is_blank && let Some(nonzero) = block.iter().rposition(|&byte| byte != 0) {
                used_until = offset + nonzero as u64 + 1;
            }
            let declared = BatchHeader::peek(block).map_or(BLOCK, |batch| batch.bytes());
            let is_later = |batch: &BatchHeader| offset == end || batch.number >= chain.link.number;
            if own && begins {
                let found = search.whole((header, window), offset, chain.next_seq, is_later)?;
                if let Some(batch) = found {
                    return Ok(Rest::Damage { batch, offset });
                }
            }
            if offset == end && header.reused {
                // Zeros do not mark the unused part of a recycled file. A batch of an earlier use is still whole
                // here, because only a later write of this use can touch it; anything else that looks like a
                // batch or carries our salt was being written.
                let earlier = !own && whole_batch(window, header.file_len, offset)?.is_some();
                if own || (begins && !earlier) {
                    torn_bytes = declared.min(header.file_len - end);
                }
            }
            offset += BLOCK;
        }
        if !header.reused {
            torn_bytes = (used_until - end).min(BATCH_MAX);
        }
        Ok(if torn_bytes > 0 { Rest::Torn(torn_bytes) } else { Rest::Nothing })
    }

    /// Bytes of a torn batch, 0 where there is none; damage is an error. `seq` was expected at `end`.
    pub fn torn_bytes(self, header: &FileHeader, end: u64, seq: u64) -> Result<u64, WalError> {
        match self {
            Rest::Nothing => Ok(0),
            Rest::Torn(bytes) => Ok(bytes),
            Rest::Damage { batch, offset } => {
                let what = misplaced(batch.number, offset, end);
                Err(WalError::Corrupt { file: log_name(header.number), offset: end, seq, what })
            }
        }
    }
}

/// What is wrong where the next batch was expected at `end`, and a whole one that is not the next stands at `offset`.
pub(crate) fn misplaced(batch: u64, offset: u64, end: u64) -> String {
    match offset == end {
        true => format!("batch {batch} does not follow on from the one before it"),
        false => format!("no valid batch, but batch {batch} at byte {offset} is valid"),
    }
}
