//! How batches and files follow each other.

use underbelly_storage::disk::SharedDisk;

use crate::batch::{BATCH_MAX, BatchHeader, Link};
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

/// A look for batches where nobody knows where they begin. Those that were written claim no byte twice, but for a length that
/// rotted; who claims more in all is forged, and would be compared with its checksums for hours.
pub(crate) struct Search {
    bytes_left: u64,
}

impl Search {
    pub fn new(header: &FileHeader) -> Search {
        Search { bytes_left: header.file_len.saturating_mul(2).saturating_add(BATCH_MAX) }
    }

    /// As [`whole_batch`], for batches of the file's present use that `is_sought` asks for. `seq` was expected where the look began.
    pub fn whole(
        &mut self,
        (header, window): (&FileHeader, &mut Window),
        offset: u64,
        seq: u64,
        is_sought: impl Fn(&BatchHeader) -> bool,
    ) -> Result<Option<BatchHeader>, WalError> {
        let peeked = BatchHeader::peek(window.at(offset, BLOCK as usize)?);
        let Some(batch) = peeked.filter(|batch| batch.salt == header.salt && is_sought(batch)) else {
            return Ok(None);
        };
        match self.bytes_left.checked_sub(batch.bytes()) {
            Some(left) => self.bytes_left = left,
            None => {
                let what = "more batches begin here than there is room for".to_string();
                return Err(WalError::Corrupt { file: log_name(header.number), offset, seq, what });
            }
        }
        Ok(whole_batch(window, header.file_len, offset)?.map(|(batch, _)| batch))
    }
}
