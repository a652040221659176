//! What a log looks like from outside: its files, their batches, and what is wrong with them.

use underbelly_storage::disk::SharedDisk;

use crate::batch::BatchHeader;
use crate::chain::{Chain, open_file, whole_batch};
use crate::error::WalError;
use crate::header::FileHeader;
use crate::layout::{BLOCK, log_name};
use crate::recovery::Folder;
use crate::rest::Rest;
use crate::window::Window;

/// One file of a log.
#[derive(Debug)]
#[non_exhaustive]
pub struct FileInspection {
    /// Its name, relative to the database.
    pub file: String,
    /// Its number.
    pub number: u64,
    /// Its header, or what is wrong with it. A file without a sound header shows no batch.
    pub header: Result<HeaderInspection, WalError>,
    /// Its batches in order of their places: those that follow each other, then whole ones behind damage.
    pub batches: Vec<BatchInspection>,
    /// Byte after the last batch that follows.
    pub end: u64,
    /// What stands behind that byte.
    pub behind: Behind,
}

/// The header of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeaderInspection {
    /// Length of the file in bytes.
    pub file_len: u64,
    /// Random number of this use of the file.
    pub salt: u64,
    /// Whether the file held an earlier part of the log.
    pub reused: bool,
    /// Sequence number of the first record.
    pub first_seq: u64,
    /// Number of the first batch.
    pub first_batch: u64,
    /// Byte at which the file before this one ends; 0 where there is none.
    pub previous_end: u64,
    /// Whether it goes on where the file before it ends; `None` where that file is not there, or damaged.
    pub follows: Option<bool>,
}

/// One whole batch: its checksum and its frames are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchInspection {
    /// Byte at which it begins.
    pub offset: u64,
    /// Length in bytes, padding included.
    pub bytes: u64,
    /// Its number.
    pub number: u64,
    /// Sequence number of its first record; of the next record in a seal.
    pub first_seq: u64,
    /// Records in it.
    pub records: u32,
    /// Whether it is empty and only acknowledges the batch before it.
    pub seal: bool,
    /// Whether it follows the batch before it. One that does not stands behind damage.
    pub follows: bool,
}

/// What stands behind the last batch that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Behind {
    /// Nothing, or in a file that is not the last what the next file's header declares to be unused or torn.
    Nothing,
    /// So many bytes of a batch that was being written. Nobody was told of its records.
    Torn {
        /// Length in bytes.
        bytes: u64,
    },
    /// Damage: a whole batch of this use of the file stands later.
    Damage {
        /// Byte at which the next whole batch begins.
        next_whole: u64,
    },
    /// Damage: the next file says that this one ends elsewhere.
    Short {
        /// The end that the next file names, in bytes.
        declared_end: u64,
    },
    /// It was not looked at, since the header cannot be read.
    Unread,
}

/// Looks at every file of a log, oldest first, and changes nothing. Damage is part of the answer.
///
/// # Errors
/// [`WalError::Io`] where the folder cannot be listed or a batch cannot be read.
pub fn inspect(disk: SharedDisk, db_id: [u8; 16]) -> Result<Vec<FileInspection>, WalError> {
    let numbers = Folder::list(&disk)?.logs;
    let mut files = Vec::new();
    let mut next_seq = 1;
    // The file before the one that is looked at, with its header and the chain at its end, where it is whole.
    let mut before: Option<(FileHeader, Chain)> = None;
    for (i, &number) in numbers.iter().enumerate() {
        let next = numbers.get(i + 1).copied().filter(|&next| next == number + 1);
        let seq = next_seq;
        let (file, ended) = match open_file(&disk, db_id, number, seq) {
            Err(error) => (FileInspection::unreadable(number, error), None),
            Ok((header, mut window)) => {
                let next = next.and_then(|next| open_file(&disk, db_id, next, seq).ok());
                let next = next.map(|(next, _)| next);
                let follows = before.as_ref().filter(|(last, _)| last.number + 1 == number);
                let follows = follows.map(|(last, chain)| chain.joins(last, &header));
                let (file, chain) = FileInspection::of(&header, &mut window, next.as_ref(), follows)?;
                let leads_on = matches!(file.behind, Behind::Nothing | Behind::Torn { .. });
                next_seq = chain.next_seq;
                (file, leads_on.then_some((header, chain)))
            }
        };
        files.push(file);
        before = ended;
    }
    Ok(files)
}

/// The database that a log belongs to, as the newest sound header says; `None` where no header is sound.
///
/// # Errors
/// [`WalError::Io`] where the folder cannot be listed.
pub fn owner(disk: SharedDisk) -> Result<Option<[u8; 16]>, WalError> {
    let numbers = Folder::list(&disk)?.logs;
    let claimed = |number: u64| {
        let mut block = vec![0; BLOCK as usize];
        disk.open_read(&log_name(number)).and_then(|file| file.read_at(&mut block, 0)).ok()?;
        let claimed = FileHeader::claimed_owner(&block)?;
        // What it claims is believed once the header's checksum fits.
        open_file(&disk, claimed, number, 1).ok().map(|_| claimed)
    };
    Ok(numbers.into_iter().rev().find_map(claimed))
}

impl FileInspection {
    /// What is wrong with the file: its header, how it follows the file before it, and its batches.
    pub fn damages(&self) -> Vec<WalError> {
        let header = match &self.header {
            Ok(header) => header,
            Err(error) => return vec![self.unread(error)],
        };
        let sound = self.batches.iter().filter(|batch| batch.follows);
        let seq = header.first_seq + sound.map(|batch| u64::from(batch.records)).sum::<u64>();
        let corrupt =
            |offset, seq, what: String| WalError::Corrupt { file: self.file.clone(), offset, seq, what };
        let mut damages = Vec::new();
        if header.follows == Some(false) {
            let what = "it does not follow on from the file before it".to_string();
            damages.push(corrupt(0, header.first_seq, what));
        }
        match self.behind {
            Behind::Damage { next_whole } => {
                let what = format!("no valid batch, though a whole one stands at byte {next_whole}");
                damages.push(corrupt(self.end, seq, what));
            }
            Behind::Short { declared_end } => {
                let what = format!(
                    "no valid batch, though the next file says that this one ends at byte {declared_end}"
                );
                damages.push(corrupt(self.end, seq, what));
            }
            _ => {}
        }
        damages
    }

    /// Why the header cannot be read, once more.
    fn unread(&self, error: &WalError) -> WalError {
        let file = self.file.clone();
        match error {
            WalError::Io { action, source, .. } => {
                let source = std::io::Error::new(source.kind(), source.to_string());
                WalError::Io { action, file, source }
            }
            WalError::Corrupt { offset, seq, what, .. } => {
                WalError::Corrupt { file, offset: *offset, seq: *seq, what: what.clone() }
            }
            WalError::Foreign { expected, found, .. } => {
                WalError::Foreign { file, expected: *expected, found: *found }
            }
            WalError::Version { found, known, .. } => {
                WalError::Version { file, found: *found, known: *known }
            }
            other => WalError::Corrupt { file, offset: 0, seq: 1, what: other.to_string() },
        }
    }

    fn unreadable(number: u64, error: WalError) -> FileInspection {
        FileInspection {
            file: log_name(number),
            number,
            header: Err(error),
            batches: Vec::new(),
            end: 0,
            behind: Behind::Unread,
        }
    }

    fn of(
        header: &FileHeader,
        window: &mut Window,
        next: Option<&FileHeader>,
        follows: Option<bool>,
    ) -> Result<(FileInspection, Chain), WalError> {
        let mut chain = Chain::start(header);
        let stop = next.map_or(header.file_len, |next| next.previous.end.min(header.file_len));
        let (mut batches, mut end) = (Vec::new(), BLOCK);
        while end < stop {
            let Some((batch, _)) = whole_batch(window, header.file_len, end)? else { break };
            if !chain.accepts(header, &batch) {
                break;
            }
            chain.advance(&batch);
            batches.push(BatchInspection::of(&batch, end, true));
            end += batch.bytes();
        }
        let declared_end = next.map(|next| next.previous.end);
        let behind = match declared_end {
            Some(declared) if declared == end => Behind::Nothing,
            _ => match (Rest::examine(header, window, end)?, declared_end) {
                (Rest::Damage { offset, .. }, _) => {
                    behind_damage(header, window, offset, &mut batches)?;
                    Behind::Damage { next_whole: offset }
                }
                (_, Some(declared_end)) => Behind::Short { declared_end },
                (Rest::Torn(bytes), None) => Behind::Torn { bytes },
                (Rest::Nothing, None) => Behind::Nothing,
            },
        };
        let &FileHeader { file_len, salt, reused, first_seq, first_batch, .. } = header;
        let previous_end = header.previous.end;
        let header_found =
            HeaderInspection { file_len, salt, reused, first_seq, first_batch, previous_end, follows };
        let file = FileInspection {
            file: log_name(header.number),
            number: header.number,
            header: Ok(header_found),
            batches,
            end,
            behind,
        };
        Ok((file, chain))
    }
}

/// Adds the whole batches of this use of the file from `offset` on.
fn behind_damage(
    header: &FileHeader,
    window: &mut Window,
    mut offset: u64,
    batches: &mut Vec<BatchInspection>,
) -> Result<(), WalError> {
    while offset < header.file_len {
        offset += match whole_batch(window, header.file_len, offset)? {
            Some((batch, _)) if batch.salt == header.salt => {
                batches.push(BatchInspection::of(&batch, offset, false));
                batch.bytes()
            }
            _ => BLOCK,
        };
    }
    Ok(())
}

impl BatchInspection {
    fn of(batch: &BatchHeader, offset: u64, follows: bool) -> BatchInspection {
        BatchInspection {
            offset,
            bytes: batch.bytes(),
            number: batch.number,
            first_seq: batch.first_seq,
            records: batch.count,
            seal: batch.count == 0,
            follows,
        }
    }
}
