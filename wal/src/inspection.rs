//! What a log looks like from outside: its files, their batches, and what is wrong with them.

use std::ops::Range;

use underbelly_storage::disk::SharedDisk;

use crate::batch::BatchHeader;
use crate::chain::{Chain, Search, open_file, whole_batch};
use crate::error::WalError;
use crate::header::FileHeader;
use crate::layout::{BLOCK, log_name};
use crate::place::{ELSEWHERE, OTHER_USE, PassedOver, Place};
use crate::recovery::{Folder, begins_late};
use crate::rest::{Rest, misplaced};
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
    /// Byte after the last batch that follows from the file's head on.
    pub end: u64,
    /// Byte at which the next file says that this one ends.
    pub declared_end: Option<u64>,
    /// What stands behind [`end`](FileInspection::end).
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
    /// What the first batch has to be.
    pub(crate) start: Chain,
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
    /// What it says that it follows.
    pub(crate) before: Chain,
    /// What follows it.
    pub(crate) next: Chain,
}

/// A damaged part of a file: batches were there.
struct Gap {
    offset: u64,
    /// The sequence number that was expected there.
    seq: u64,
    /// Where the log goes on.
    until: u64,
    /// What is wrong.
    what: String,
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

/// Where files are missing between a seq and the end of a log that was [looked at](inspect): a damage for each gap, the newest
/// first. Files before the one that holds the seq are needed by nobody; a crash may bring any of them back.
pub fn gaps(files: &[FileInspection], seq: u64) -> Vec<WalError> {
    let mut gaps = Vec::new();
    // The file behind the one that is looked at, with its first seq, where its header says so.
    let mut later: Option<(u64, Option<u64>)> = None;
    for file in files.iter().rev() {
        let first_seq = file.header.as_ref().ok().map(|header| header.first_seq);
        if let Some((number, first)) = later
            && file.number + 1 != number
        {
            // What a damaged header hides is told by itself.
            gaps.extend(first.map(|first| begins_late(number, first, seq)));
        }
        if first_seq.is_some_and(|first| first <= seq) {
            return gaps;
        }
        later = Some((file.number, first_seq));
    }
    gaps.extend(later.and_then(|(number, first)| Some(begins_late(number, first?, seq))));
    gaps
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

/// The same error of a header with the sequence number that is expected in that file: behind the files before it, which only
/// who reads them knows.
pub(crate) fn expected(disk: &SharedDisk, db_id: [u8; 16], error: WalError) -> WalError {
    let WalError::Corrupt { file, offset, seq, what } = error else { return error };
    let files = inspect(disk.clone(), db_id).unwrap_or_default();
    let header = files.iter().find(|found| found.file == file).map(|found| &found.header);
    let seq = match header {
        Some(Err(WalError::Corrupt { seq, .. })) => *seq,
        _ => seq,
    };
    WalError::Corrupt { file, offset, seq, what }
}

/// The sequence numbers with which the files of a log begin, oldest first, as their headers say; `None` for one that cannot be read.
///
/// # Errors
/// [`WalError::Io`] where the folder cannot be listed.
pub fn first_seqs(disk: &SharedDisk, db_id: [u8; 16]) -> Result<Vec<Option<u64>>, WalError> {
    let numbers = Folder::list(disk)?.logs.into_iter();
    Ok(numbers.map(|number| Some(open_file(disk, db_id, number, 1).ok()?.0.first_seq)).collect())
}

impl FileInspection {
    /// What is wrong with the file: its header, how it follows the file before it, and its batches.
    pub fn damages(&self) -> Vec<WalError> {
        let header = match &self.header {
            Ok(header) => header,
            Err(error) => return vec![self.unread(error)],
        };
        let follows = self.misfit(header).into_iter();
        follows.chain(self.gaps(header).into_iter().map(|gap| self.at_gap(gap))).collect()
    }

    /// The same of a file that holds the place from which a checkpoint reads on: what stands before it and is lost to
    /// nobody, then what is wrong with the rest, or shows that the file may be an older state of itself.
    pub fn damages_around(&self, place: &Place) -> (Vec<PassedOver>, Vec<WalError>) {
        let header = match &self.header {
            Ok(header) => header,
            Err(error) => return (Vec::new(), vec![self.unread(error)]),
        };
        let here = |what: String| self.corrupt(place.offset, place.seq, what);
        if header.salt != place.salt {
            return (Vec::new(), vec![self.corrupt(0, place.seq, OTHER_USE.to_string())]);
        }
        if let Err(error) = place.check(header.first_seq, header.file_len, place.seq) {
            return (Vec::new(), vec![error]);
        }
        let (mut before, mut behind) = (Vec::new(), Vec::new());
        let passed = |damage: WalError| PassedOver::of(damage).ok();
        before.extend(self.misfit(header).and_then(passed));
        for mut gap in self.gaps(header) {
            if gap.offset < place.offset {
                let what = gap.what.clone();
                let rest = Gap { offset: place.offset, seq: place.seq, what, until: gap.until };
                before.extend(passed(self.at_gap(gap)));
                if rest.until <= place.offset {
                    continue;
                }
                gap = rest;
            }
            behind.push(self.at_gap(gap));
        }
        let last = self.batches.last().map_or(BLOCK, |batch| batch.offset + batch.bytes);
        let at = self.batches.iter().find(|batch| batch.offset + batch.bytes > place.offset);
        match at {
            Some(batch) if batch.offset < place.offset => {
                behind.push(here("no batch begins there, though a checkpoint names the place".to_string()));
            }
            Some(batch) if batch.offset == place.offset && !place.is_shown(None, Some(batch.before)) => {
                behind.push(here(ELSEWHERE.to_string()));
            }
            // Where there is a next file, reading begins with that.
            None if last == place.offset
                && self.declared_end.is_none()
                && !place
                    .is_shown(Some(self.batches.last().map_or(header.start, |batch| batch.next)), None) =>
            {
                behind.push(here(ELSEWHERE.to_string()));
            }
            None if last < place.offset && self.declared_end.is_none_or(|end| end < place.offset) => {
                behind.push(here(
                    "no valid batch before it, though a checkpoint says that the log went on there"
                        .to_string(),
                ));
            }
            _ => {}
        }
        (before, behind)
    }

    fn corrupt(&self, offset: u64, seq: u64, what: String) -> WalError {
        WalError::Corrupt { file: self.file.clone(), offset, seq, what }
    }

    fn at_gap(&self, gap: Gap) -> WalError {
        self.corrupt(gap.offset, gap.seq, gap.what)
    }

    /// That it does not follow the file before it.
    fn misfit(&self, header: &HeaderInspection) -> Option<WalError> {
        let what = "it does not follow on from the file before it".to_string();
        (header.follows == Some(false)).then(|| self.corrupt(0, header.first_seq, what))
    }

    fn gaps(&self, header: &HeaderInspection) -> Vec<Gap> {
        let mut gaps = Vec::new();
        let (mut offset, mut seq) = (BLOCK, header.first_seq);
        for batch in &self.batches {
            if !batch.follows {
                let what = misplaced(batch.number, batch.offset, offset);
                gaps.push(Gap { offset, seq, until: batch.offset, what });
            }
            (offset, seq) = (batch.offset + batch.bytes, batch.first_seq + u64::from(batch.records));
        }
        if let Some(end) = self.declared_end.filter(|end| *end != offset) {
            let what = format!("no valid batch, but the next file says that this one ends at byte {end}");
            gaps.push(Gap { offset, seq, until: end, what });
        }
        gaps
    }

    /// Why the header cannot be read, once more.
    fn unread(&self, error: &WalError) -> WalError {
        let file = self.file.clone();
        match error {
            WalError::Io { action, source, .. } => {
                let source = match source.raw_os_error() {
                    Some(code) => std::io::Error::from_raw_os_error(code),
                    None => std::io::Error::new(source.kind(), source.to_string()),
                };
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
            declared_end: None,
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
            _ => match (looked_at(Rest::examine(header, window, end, &chain))?, declared_end) {
                (None, Some(declared_end)) => Behind::Short { declared_end },
                (None, None) => Behind::Damage { next_whole: end },
                (Some(Rest::Damage { offset, .. }), _) if offset < stop => {
                    behind_damage(header, window, offset..stop, &mut batches)?;
                    Behind::Damage { next_whole: offset }
                }
                (Some(Rest::Damage { .. }), None) => Behind::Nothing,
                (_, Some(declared_end)) => Behind::Short { declared_end },
                (Some(Rest::Torn(bytes)), None) => Behind::Torn { bytes },
                (Some(Rest::Nothing), None) => Behind::Nothing,
            },
        };
        let &FileHeader { file_len, salt, reused, first_seq, first_batch, .. } = header;
        let previous_end = header.previous.end;
        let header_found = HeaderInspection {
            file_len,
            salt,
            reused,
            first_seq,
            first_batch,
            previous_end,
            follows,
            start: Chain::start(header),
        };
        let file = FileInspection {
            file: log_name(header.number),
            number: header.number,
            header: Ok(header_found),
            batches,
            end,
            declared_end,
            behind,
        };
        Ok((file, chain))
    }
}

/// What stands behind `end`; `None` where it is forged, and no whole batch was found before that.
fn looked_at(rest: Result<Rest, WalError>) -> Result<Option<Rest>, WalError> {
    match rest {
        Err(WalError::Corrupt { .. }) => Ok(None),
        rest => rest.map(Some),
    }
}

/// Adds the whole batches of this use of the file in `range`.
fn behind_damage(
    header: &FileHeader,
    window: &mut Window,
    range: Range<u64>,
    batches: &mut Vec<BatchInspection>,
) -> Result<(), WalError> {
    let (mut offset, mut search) = (range.start, Search::new(header));
    // What has to stand at `offset`, where the batch before is whole.
    let mut chain: Option<Chain> = None;
    while offset < range.end {
        // What is forged ends the look: the damage before it is told already.
        let found = match search.whole((header, window), offset, header.first_seq, |_| true) {
            Err(WalError::Corrupt { .. }) => break,
            found => found?,
        };
        let Some(batch) = found else {
            chain = None;
            offset += BLOCK;
            continue;
        };
        let follows = chain.is_some_and(|chain| chain.accepts(header, &batch));
        batches.push(BatchInspection::of(&batch, offset, follows));
        chain = Some(Chain::behind(&batch));
        offset += batch.bytes();
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
            before: Chain::before(batch),
            next: Chain::behind(batch),
        }
    }
}
