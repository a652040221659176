//! Opening a log: reading it, telling a torn tail from damage, standing ready to append.

use std::collections::VecDeque;

use underbelly_storage::disk::SharedDisk;

use crate::chain::{Chain, open_file, whole_batch};
use crate::error::WalError;
use crate::header::FileHeader;
use crate::inspection::expected;
use crate::layout::{BLOCK, DIR, Entry, entry, log_name, spare_name, unfinished_name};
use crate::log::{Active, Closed, Log, Written};
use crate::options::LogOptions;
use crate::place::{Entered, PassedOver, Start, enter};
use crate::rest::Rest;
use crate::spare::{SPARES_MAX, Spares};
use crate::tear;
use crate::window::Window;

/// Gets each record of a log that is opened: its sequence number and its bytes.
pub type Visitor<'a, E> = dyn FnMut(u64, &[u8]) -> Result<(), E> + 'a;

/// What opening a log found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Records handed to the visitor.
    pub records: u64,
    /// First sequence number handed to the visitor; `None` where there was none.
    pub first_seq: Option<u64>,
    /// Last sequence number in the log; one less than the log's first where it holds no record.
    pub last_seq: u64,
    /// Files read.
    pub files: u64,
    /// Bytes of batches read, padding included.
    pub bytes: u64,
    /// Whether the log ends with a seal or a file header, as after a clean close. Otherwise damage to the last
    /// batch cannot be told from a torn tail.
    pub sealed: bool,
    /// The batch that was cut short by a crash, if its traces were found.
    pub torn: Option<TornTail>,
    /// Damage in front of the place from which the log was read, if there is any.
    pub passed_over: Option<PassedOver>,
}

/// A batch that was cut short and never acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The log file, relative to the database.
    pub file: String,
    /// Byte at which the tear begins.
    pub offset: u64,
    /// Bytes that were copied aside. In a recycled file they may end with bytes of an earlier use.
    pub bytes: u64,
    /// The copy, relative to the database.
    pub kept_as: String,
}

/// What is in the log's folder.
#[derive(Default)]
pub(crate) struct Folder {
    /// Numbers of the log files, rising.
    pub logs: Vec<u64>,
    spares: Vec<u64>,
    unfinished: Vec<u64>,
}

/// Where reading stands.
struct Reader {
    from_seq: u64,
    chain: Chain,
    sealed: bool,
    report: Recovery,
}

/// A log that was read.
struct Found {
    /// Header of the last file.
    last: FileHeader,
    /// Offset and length of the last batch in it.
    last_batch: Option<(u64, u64)>,
    /// Byte after the last batch.
    end: u64,
    /// Bytes behind it of a batch that was cut short.
    torn_bytes: u64,
    closed: VecDeque<Closed>,
    reader: Reader,
}

impl Log {
    /// Reads the log of database `db_id` and makes it ready to append.
    ///
    /// `start` is the first sequence number that the checkpoint lacks, and the place that it noted: `visit` gets every
    /// record from there on, in order. Damage before that place is passed over and reported. `min_durable_seq` is a sequence number known to be durable; a log that ends before it is
    /// damaged. Nothing on the disk is changed before everything was read and visited. Opening that fails or is
    /// cut short can be repeated.
    ///
    /// # Errors
    /// [`WalError::Corrupt`] for damage before the end, a gap, or a log that ends too early;
    /// [`WalError::Missing`], [`WalError::Foreign`], [`WalError::Version`], [`WalError::Options`];
    /// [`WalError::DiskFull`] where a torn batch cannot be kept, or a file has to be prepared since the last is full; whatever `visit` returns.
    pub fn open<E: From<WalError>>(
        disk: SharedDisk,
        db_id: [u8; 16],
        start: Start,
        min_durable_seq: u64,
        options: LogOptions,
        visit: &mut Visitor<'_, E>,
    ) -> Result<(Log, Recovery), E> {
        options.check()?;
        let folder = Folder::list(&disk)?;
        let found = read_log(&disk, db_id, &folder.logs, start.bounded(), min_durable_seq, visit)?;
        Ok(found.settle(disk, db_id, folder, options)?)
    }
}

/// Reads and visits everything; changes nothing.
fn read_log<E: From<WalError>>(
    disk: &SharedDisk,
    db_id: [u8; 16],
    numbers: &[u64],
    start: Start,
    min_durable_seq: u64,
    visit: &mut Visitor<'_, E>,
) -> Result<Found, E> {
    let headers = read_headers(disk, db_id, numbers, start.seq);
    let mut files = headers.map_err(|error| expected(disk, db_id, error))?;
    let missing = || WalError::Missing { dir: DIR.to_string() };
    let has_next = files.len() > 1;
    let (first, window) = files.first_mut().ok_or_else(missing)?;
    let older = numbers.iter().copied().filter(|&number| number < first.number);
    let last_seq = first.first_seq - 1;
    let mut closed: VecDeque<Closed> = older.map(|number| Closed { number, last_seq }).collect();

    let Entered { offset, chain, passed_over } = enter(first, window, start, has_next)?;
    let mut reader = Reader::new(chain, start.seq);
    reader.report.passed_over = passed_over;
    let mut begin = offset;
    let mut files = files.into_iter().peekable();
    while let Some((header, mut window)) = files.next() {
        let next = files.peek().map(|(next, _)| next);
        let begin = std::mem::replace(&mut begin, BLOCK);
        let last_batch = reader.read_file(&header, &mut window, begin, next, visit)?;
        if let Some(next) = next {
            closed.push_back(Closed { number: header.number, last_seq: next.first_seq - 1 });
            continue;
        }
        let end = last_batch.map_or(begin, |(offset, bytes)| offset + bytes);
        let rest = Rest::examine(&header, &mut window, end, &reader.chain)?;
        let torn_bytes = rest.torn_bytes(&header, end, reader.chain.next_seq)?;
        let durable = min_durable_seq.max(start.seq - 1);
        if reader.chain.next_seq <= durable {
            let what = format!("the log ends here, but seq {durable} was durable");
            return Err(reader.corrupt(header.number, end, what).into());
        }
        return Ok(Found { last: header, last_batch, end, torn_bytes, closed, reader });
    }
    Err(missing().into())
}

impl Found {
    /// Makes what was read durable and the log ready to append. Every step can be repeated by another recovery.
    fn settle(
        self,
        disk: SharedDisk,
        db_id: [u8; 16],
        folder: Folder,
        options: LogOptions,
    ) -> Result<(Log, Recovery), WalError> {
        let Found { last, last_batch, end, torn_bytes, closed, reader } = self;
        let name = log_name(last.number);
        let file = disk.open(&name).map_err(WalError::io("open", &name))?;
        let last_named = folder.spares.iter().chain(&folder.unfinished).copied().max().unwrap_or(0);
        let spares = folder.tidy(&disk, options.file_len)?;
        let mut torn = None;
        if torn_bytes > 0 {
            let kept_as = tear::keep(&disk, file.as_ref(), last.number, end, torn_bytes)?;
            torn = Some(TornTail { file: name.clone(), offset: end, bytes: torn_bytes, kept_as });
        }
        disk.sync_dir(DIR).map_err(WalError::io("sync", DIR))?;
        if let Some((offset, bytes)) = last_batch {
            // After a failed sync the page cache may show bytes that the disk lacks, marked as clean, so that
            // another sync would not write them. Only the last batch can be in doubt, since each batch waits for
            // the sync of the one before; it is written again, unchanged.
            let mut batch = vec![0; bytes as usize];
            let read = file.read_at(&mut batch, offset).map_err(WalError::io("read", &name))?;
            batch.truncate(read);
            file.write_at(&batch, offset).map_err(WalError::io("write", &name))?;
            file.sync_data().map_err(WalError::io("sync", &name))?;
        }
        let report =
            Recovery { last_seq: reader.chain.next_seq - 1, sealed: reader.sealed, torn, ..reader.report };
        let mut log = Log {
            active: Active { file, number: last.number, salt: last.salt, file_len: last.file_len, end },
            db_id,
            link: reader.chain.link,
            next_seq: reader.chain.next_seq,
            sealed: reader.sealed,
            closed,
            spares: Spares::new(disk.clone(), options.file_len, spares, last_named),
            poisoned: None,
            buffer: Vec::new(),
            written: Written::default(),
            asked_in: 0,
            disk,
            options,
        };
        if !reader.sealed || torn_bytes > 0 {
            // Nothing is appended behind a tear, and the traces of one may be invisible in a recycled file.
            match log.prepare_spare() {
                Ok(()) => log.roll()?,
                // A checkpoint may give files back, and needs a log.
                Err(full @ WalError::DiskFull { .. }) => {
                    if !log.go_on_here(torn_bytes, last.reused)? {
                        return Err(full);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok((log, report))
    }
}

impl Folder {
    pub fn list(disk: &SharedDisk) -> Result<Folder, WalError> {
        let mut folder = Folder::default();
        for name in disk.list(DIR).map_err(WalError::io("list", DIR))? {
            match entry(&name) {
                Entry::Log(number) => folder.logs.push(number),
                Entry::Spare(number) => folder.spares.push(number),
                Entry::Unfinished(number) => folder.unfinished.push(number),
                Entry::Other => {}
            }
        }
        folder.logs.sort_unstable();
        Ok(folder)
    }

    /// Removes what no log of this file length can use, and returns the spares that are ready.
    fn tidy(self, disk: &SharedDisk, file_len: u64) -> Result<Vec<u64>, WalError> {
        let mut ready = Vec::new();
        for number in self.spares {
            let name = spare_name(number);
            let len = disk.open(&name).and_then(|file| file.len()).map_err(WalError::io("open", &name))?;
            if len == file_len && ready.len() < SPARES_MAX {
                ready.push(number);
            } else {
                disk.remove(&name).map_err(WalError::io("remove", &name))?;
            }
        }
        for number in self.unfinished {
            let name = unfinished_name(number);
            disk.remove(&name).map_err(WalError::io("remove", &name))?;
        }
        Ok(ready)
    }
}

/// Reads the headers of the files from the one that holds `from_seq` on, oldest first. Older files are not opened.
fn read_headers(
    disk: &SharedDisk,
    db_id: [u8; 16],
    numbers: &[u64],
    from_seq: u64,
) -> Result<Vec<(FileHeader, Window)>, WalError> {
    let mut files = Vec::new();
    let mut numbers = numbers.iter().copied().rev().peekable();
    while let Some(number) = numbers.next() {
        let (header, window) = open_file(disk, db_id, number, from_seq)?;
        let first_seq = header.first_seq;
        files.push((header, window));
        if first_seq <= from_seq {
            break;
        }
        if numbers.peek().is_none_or(|&before| before + 1 != number) {
            return Err(begins_late(number, first_seq, from_seq));
        }
    }
    files.reverse();
    Ok(files)
}

/// That the file before one is missing, without which nothing leads from a seq to it.
pub(crate) fn begins_late(number: u64, first_seq: u64, from_seq: u64) -> WalError {
    let what = format!("the file begins with seq {first_seq} and the file before it is missing");
    WalError::Corrupt { file: log_name(number), offset: 0, seq: from_seq, what }
}

/// Whether files without a gap lead from a seq to the log's end, as their headers tell; what is in them is not looked at. `None` where
/// they do, else what is missing or damaged.
///
/// # Errors
/// [`WalError::Io`] where the folder or a header cannot be read.
pub fn gap_behind(disk: &SharedDisk, db_id: [u8; 16], seq: u64) -> Result<Option<WalError>, WalError> {
    let numbers = Folder::list(disk)?.logs;
    match read_headers(disk, db_id, &numbers, seq.max(1)) {
        Ok(_) => Ok(None),
        Err(error @ WalError::Io { .. }) => Err(error),
        Err(error) => Ok(Some(error)),
    }
}

impl Reader {
    fn new(chain: Chain, from_seq: u64) -> Reader {
        Reader {
            from_seq,
            chain,
            sealed: true,
            report: Recovery {
                records: 0,
                first_seq: None,
                last_seq: 0,
                files: 0,
                bytes: 0,
                sealed: true,
                torn: None,
                passed_over: None,
            },
        }
    }

    fn corrupt(&self, number: u64, offset: u64, what: impl Into<String>) -> WalError {
        WalError::Corrupt { file: log_name(number), offset, seq: self.chain.next_seq, what: what.into() }
    }

    /// Visits the batches of a file from `offset` on and returns offset and length of the last. Where there is a next
    /// file, its header says where this one must end; else it ends at the first thing that is not the next batch.
    fn read_file<E: From<WalError>>(
        &mut self,
        header: &FileHeader,
        window: &mut Window,
        mut offset: u64,
        next: Option<&FileHeader>,
        visit: &mut Visitor<'_, E>,
    ) -> Result<Option<(u64, u64)>, E> {
        let stop = next.map_or(header.file_len, |next| next.previous.end);
        let mut last = None;
        self.sealed = true;
        self.report.files += 1;
        while offset < stop {
            let Some((batch, bytes)) = whole_batch(window, header.file_len, offset)? else { break };
            if !self.chain.accepts(header, &batch) {
                break;
            }
            for (seq, record) in batch.frames(bytes) {
                if seq >= self.from_seq {
                    visit(seq, record)?;
                    self.report.records += 1;
                    self.report.first_seq.get_or_insert(seq);
                }
            }
            self.chain.advance(&batch);
            self.sealed = batch.count == 0;
            self.report.bytes += batch.bytes();
            last = Some((offset, batch.bytes()));
            offset += batch.bytes();
        }
        if let Some(next) = next {
            if offset != stop {
                let what =
                    format!("no valid batch, but the next file says that this one ends at byte {stop}");
                return Err(self.corrupt(header.number, offset, what).into());
            }
            if !self.chain.joins(header, next) {
                let what = "the file does not follow on from the file before it";
                return Err(self.corrupt(next.number, 0, what).into());
            }
        }
        Ok(last)
    }
}
