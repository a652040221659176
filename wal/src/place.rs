//! Places between two batches, from which a log is read although what stands before them may be damaged.

use std::fmt;

use crate::batch::{BatchHeader, Link};
use crate::chain::{Chain, Search, whole_batch};
use crate::error::WalError;
use crate::header::FileHeader;
use crate::layout::{BLOCK, NUMBER_MAX, log_name};
use crate::options::FILE_LEN_MAX;
use crate::window::Window;

/// A place between two batches. Whoever keeps it durably, as a checkpoint does, can read the log from there: the next
/// batch has to follow the one before by number, checksum and sequence number, as it would if that had been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the file.
    pub file: u64,
    /// Salt of the file's use.
    pub salt: u64,
    /// Byte at which the next batch begins, if it is in this file.
    pub offset: u64,
    /// Number of the next batch.
    pub batch: u64,
    /// Sequence number of the next record.
    pub seq: u64,
    /// Checksum of the batch before; 0 where there is none.
    pub crc: u32,
}

/// Where the reading of a log begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The first sequence number that is wanted.
    pub seq: u64,
    /// A place before which nothing that is wanted stands, and up to which the log is durable.
    pub place: Option<Place>,
}

impl Start {
    /// At a record of which no place is known.
    pub fn at(seq: u64) -> Start {
        Start { seq, place: None }
    }

    /// The same with sequence numbers that there are.
    pub(crate) fn bounded(self) -> Start {
        Start { seq: self.seq.max(1), ..self }
    }
}

/// Damage in front of the place where reading began: nothing that was wanted stood there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PassedOver {
    /// The log file, relative to the database.
    pub file: String,
    /// Byte at which the damage was found.
    pub offset: u64,
    /// The sequence number that was expected there.
    pub seq: u64,
    /// What is wrong.
    pub what: String,
}

impl PassedOver {
    /// The damage that an inspection found, of which the caller knows that no recovery needs what stood there. Other
    /// errors come back.
    ///
    /// # Errors
    /// The error that was given, where it tells of no damage.
    pub fn of(error: WalError) -> Result<PassedOver, WalError> {
        match error {
            WalError::Corrupt { file, offset, seq, what } => Ok(PassedOver { file, offset, seq, what }),
            other => Err(other),
        }
    }
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PassedOver { file, offset, seq, what } = self;
        write!(
            f,
            "{file} is damaged at byte {offset}, where seq {seq} was expected: {what}; nothing is lost, since a \
             checkpoint holds what stood there, but look after the disk"
        )
    }
}

/// What is wrong with a place whose salt is not that of its file.
pub(crate) const OTHER_USE: &str = "the checkpoint names another use of the file";

/// What is wrong with a place to which the batches before it, or the one that stands there, do not fit.
pub(crate) const ELSEWHERE: &str = "its batches do not lead to the place that the checkpoint names";

/// Where the first batch that is wanted is looked for in the first file.
pub(crate) struct Entered {
    pub offset: u64,
    pub chain: Chain,
    pub passed_over: Option<PassedOver>,
}

impl Place {
    fn chain(&self) -> Chain {
        Chain { link: Link { number: self.batch, crc: self.crc }, next_seq: self.seq }
    }

    /// Whether what stands around it shows that the file went on to it: what follows the whole batch before it, or what the
    /// whole one behind it says that it follows.
    pub(crate) fn is_shown(&self, before: Option<Chain>, behind: Option<Chain>) -> bool {
        [before, behind].contains(&Some(self.chain()))
    }

    /// Refuses what is no place in a file of this length that begins with `first_seq`, or lies behind `wanted`: what
    /// stands between would be left out.
    pub(crate) fn check(&self, first_seq: u64, file_len: u64, wanted: u64) -> Result<(), WalError> {
        let is_place = self.salt != 0
            && (BLOCK..=file_len).contains(&self.offset)
            && self.offset.is_multiple_of(BLOCK)
            && (1..=NUMBER_MAX).contains(&self.batch)
            && (first_seq..=wanted.min(NUMBER_MAX)).contains(&self.seq);
        if is_place {
            return Ok(());
        }
        let what = "the checkpoint names a place that is none in the file".to_string();
        Err(WalError::Corrupt { file: log_name(self.file), offset: 0, seq: wanted, what })
    }

    /// The place itself, without a look at what stands before it.
    pub(crate) fn entered(&self) -> Entered {
        Entered { offset: self.offset, chain: self.chain(), passed_over: None }
    }

    /// The header of the file, where the file has none that can be read: of it, what is needed to read on from the place
    /// to the record `wanted` and further.
    pub(crate) fn stand_in(
        &self,
        db_id: [u8; 16],
        file_len: u64,
        wanted: u64,
    ) -> Result<FileHeader, WalError> {
        let file_len = file_len.min(FILE_LEN_MAX) / BLOCK * BLOCK;
        self.check(1, file_len, wanted)?;
        Ok(FileHeader {
            // Zeros mark nothing then.
            reused: true,
            db_id,
            number: self.file,
            salt: self.salt,
            file_len,
            first_seq: self.seq,
            first_batch: self.batch,
            previous: Default::default(),
        })
    }
}

/// Finds where to begin in the first file that is read. What stands before a place that is known is looked at, and
/// damage there is passed over, as long as something shows that the file went on to the place: the batch before it, the
/// batch behind it, or another file (`has_next`). Otherwise it may be an older state of the file, which lacks what was
/// acknowledged since.
pub(crate) fn enter(
    header: &FileHeader,
    window: &mut Window,
    start: Start,
    has_next: bool,
) -> Result<Entered, WalError> {
    let mut chain = Chain::start(header);
    let Some(place) = start.place.filter(|place| place.file == header.number) else {
        return Ok(Entered { offset: BLOCK, chain, passed_over: None });
    };
    let corrupt = |offset: u64, seq: u64, what: &str| WalError::Corrupt {
        file: log_name(header.number),
        offset,
        seq,
        what: what.to_string(),
    };
    if place.salt != header.salt {
        return Err(corrupt(0, start.seq, OTHER_USE));
    }
    place.check(header.first_seq, header.file_len, start.seq)?;
    let mut offset = BLOCK;
    while offset < place.offset {
        let Some((batch, _)) = whole_batch(window, header.file_len, offset)? else { break };
        if !chain.accepts(header, &batch) {
            break;
        }
        chain.advance(&batch);
        offset += batch.bytes();
    }
    if offset == place.offset && chain == place.chain() {
        return Ok(Entered { offset, chain, passed_over: None });
    }
    let what = match offset < place.offset {
        true => "no valid batch, though the log went on",
        false => ELSEWHERE,
    };
    if !has_next && !leads_to(header, window, &place, offset)? {
        return Err(corrupt(offset, chain.next_seq, what));
    }
    let passed_over =
        PassedOver { file: log_name(header.number), offset, seq: chain.next_seq, what: what.to_string() };
    Ok(Entered { passed_over: Some(passed_over), ..place.entered() })
}

/// Whether the file went on from `offset` to the place: a batch follows there, or the one before it is whole.
fn leads_to(
    header: &FileHeader,
    window: &mut Window,
    place: &Place,
    mut offset: u64,
) -> Result<bool, WalError> {
    let own = |batch: &BatchHeader| batch.salt == header.salt && batch.file == header.number;
    let behind = whole_batch(window, header.file_len, place.offset)?.map(|(batch, _)| batch).filter(own);
    let mut search = Search::new(header);
    let (mut before, behind) = (None, behind.map(|batch| Chain::before(&batch)));
    if place.is_shown(None, behind) {
        return Ok(true);
    }
    while offset < place.offset {
        let whole = search.whole((header, window), offset, place.seq, own)?;
        offset += whole.as_ref().map_or(BLOCK, BatchHeader::bytes);
        before = whole.filter(|_| offset == place.offset).map(|batch| Chain::behind(&batch));
    }
    Ok(place.is_shown(before, behind))
}
