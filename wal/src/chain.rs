//! How batches and files follow each other.

use underbelly_storage::disk::SharedDisk;

use crate::batch::{BatchHeader, Link};
use crate::error::WalError;
use crate::header::FileHeader;
use crate::layout::{BLOCK, log_name};
use crate::window::Window;

/// What the next batch must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub link: Link,
    /// Sequence number of the next record.
    pub next_seq: u64,
}

impl Chain {
    /// The first batch of a file.
    pub fn start(header: &FileHeader) -> Chain {
        let link = Link { number: header.first_batch, crc: header.previous.crc };
        Chain { link, next_seq: header.first_seq }
    }

    /// Whether a whole batch is the next one in this file.
    pub fn accepts(&self, header: &FileHeader, batch: &BatchHeader) -> bool {
        batch.salt == header.salt && batch.file == header.number && Chain::before(batch) == *self
    }

    /// What a batch says that it follows.
    pub fn before(batch: &BatchHeader) -> Chain {
        let link = Link { number: batch.number, crc: batch.previous_crc };
        Chain { link, next_seq: batch.first_seq }
    }

    /// What follows a batch.
    pub fn behind(batch: &BatchHeader) -> Chain {
        let link = Link { number: batch.number.saturating_add(1), crc: batch.crc };
        Chain { link, next_seq: batch.first_seq.saturating_add(u64::from(batch.count)) }
    }

    /// Takes in a batch that was accepted.
    pub fn advance(&mut self, batch: &BatchHeader) {
        *self = Chain::behind(batch);
    }

    /// Whether `next` goes on where the file of `header` ends.
    pub fn joins(&self, header: &FileHeader, next: &FileHeader) -> bool {
        next.previous.number == header.number
            && next.previous.salt == header.salt
            && next.previous.crc == self.link.crc
            && next.first_batch == self.link.number
            && next.first_seq == self.next_seq
    }
}

/// Opens log file `number` and reads its header. `seq` is the sequence number to name where it cannot be read.
pub(crate) fn open_file(
    disk: &SharedDisk,
    db_id: [u8; 16],
    number: u64,
    seq: u64,
) -> Result<(FileHeader, Window), WalError> {
    let name = log_name(number);
    let file = disk.open_read(&name).map_err(WalError::io("open", &name))?;
    let mut window = Window::new(file, name)?;
    let file_len = window.file_len();
    let block = window.at(0, BLOCK as usize)?;
    let header = FileHeader::decode(block, number, file_len, db_id, seq)?;
    Ok((header, window))
}

/// The batch at `offset`, whatever it belongs to, if it is whole and lies within the file.
pub(crate) fn whole_batch(
    window: &mut Window,
    file_len: u64,
    offset: u64,
) -> Result<Option<(BatchHeader, &[u8])>, WalError> {
    let Some(batch) = BatchHeader::peek(window.at(offset, BLOCK as usize)?) else { return Ok(None) };
    if batch.bytes() > file_len.saturating_sub(offset) {
        return Ok(None);
    }
    let bytes = window.at(offset, batch.bytes() as usize)?;
    Ok(batch.is_whole(bytes).then_some((batch, bytes)))
}
