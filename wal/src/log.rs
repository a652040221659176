//! The log as its one owner sees it: append, seal, recycle.

use std::collections::VecDeque;

use underbelly_storage::disk::{File, SharedDisk};

use crate::batch::{self, BATCH_MAX, FRAME, HEADER, Link};
use crate::error::{Preparation, WalError};
use crate::header::{FileHeader, Previous};
use crate::layout::{BLOCK, DIR, Entry, NUMBER_MAX, entry, log_name, padded, spare_name, unfinished_name};
use crate::options::LogOptions;
use crate::place::Place;
use crate::spare::{PreparedSpare, SPARES_MAX, SpareJob, Spares, Taken};
use crate::window::Window;

/// Bytes behind the last batch with which a log can go on in its file: for what an opening writes, and a seal.
const ROOM_MIN: u64 = 4 * BLOCK;

/// Bytes wiped at once.
const WIPE_STEP: u64 = 1 << 20;

/// An open log. Passive: it does I/O only inside its methods, and has one owner.
pub struct Log {
    pub(crate) disk: SharedDisk,
    pub(crate) db_id: [u8; 16],
    pub(crate) options: LogOptions,
    pub(crate) active: Active,
    pub(crate) link: Link,
    pub(crate) next_seq: u64,
    /// Whether the last thing written acknowledges all before it: a seal batch or a file header.
    pub(crate) sealed: bool,
    /// Files before the active one, oldest first.
    pub(crate) closed: VecDeque<Closed>,
    pub(crate) spares: Spares,
    pub(crate) poisoned: Option<String>,
    pub(crate) buffer: Vec<u8>,
    pub(crate) written: Written,
    /// The file in which a spare was last asked for.
    pub(crate) asked_in: u64,
}

/// The file that is appended to.
pub(crate) struct Active {
    pub file: Box<dyn File>,
    pub number: u64,
    pub salt: u64,
    pub file_len: u64,
    /// Where the next batch goes.
    pub end: u64,
}

/// A file that is full or ends at a tear.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closed {
    pub number: u64,
    /// Last sequence number in it; that of the file before it where it holds none.
    pub last_seq: u64,
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Written {
    pub batches: u64,
    pub records: u64,
    pub bytes: u64,
}

/// Figures of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogStats {
    /// Number of the file that is appended to.
    pub file: u64,
    /// Byte in it at which the next batch goes.
    pub offset: u64,
    /// Files of the log, the active one included, spares not.
    pub files: usize,
    /// Spare files that are ready.
    pub spares: usize,
    /// Next sequence number.
    pub next_seq: u64,
    /// Batches written since the log was opened, seals included.
    pub batches: u64,
    /// Records written since the log was opened.
    pub records: u64,
    /// Bytes written since the log was opened, padding included.
    pub bytes: u64,
}

/// What [`Log::recycle`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recycled {
    /// Files that became spares.
    pub spared: usize,
    /// Files that were unlinked.
    pub removed: usize,
}

/// Files that are to be given back; made by [`Log::recycling`].
#[must_use]
pub struct RecycleJob {
    disk: SharedDisk,
    file_len: u64,
    /// Numbers of the files, rising.
    files: Vec<u64>,
    /// Numbers of spares that some of them may become.
    spares: Vec<u64>,
}

/// What a [`RecycleJob`] did; hand it to [`Log::recycled`].
#[derive(Debug)]
#[must_use]
pub struct Freed {
    spares: Vec<u64>,
    removed: usize,
}

impl RecycleJob {
    /// Renames and unlinks, and syncs the folder: only then may a file be used anew, since a crash could bring back its
    /// old name before.
    ///
    /// # Errors
    /// [`WalError::Io`], which the log must hear of.
    pub fn run(self) -> Result<Freed, WalError> {
        let mut done = Freed { spares: Vec::new(), removed: 0 };
        let mut numbers = self.spares.iter().copied().peekable();
        for number in &self.files {
            let name = log_name(*number);
            let has_length = |name: &str| {
                self.disk.open(name).and_then(|file| file.len()).is_ok_and(|len| len == self.file_len)
            };
            match numbers.next_if(|_| has_length(&name)) {
                Some(spare) => {
                    let renamed = self.disk.rename(&name, &spare_name(spare));
                    renamed.map_err(WalError::io("rename", &name))?;
                    done.spares.push(spare);
                }
                None => {
                    self.disk.remove(&name).map_err(WalError::io("remove", &name))?;
                    done.removed += 1;
                }
            }
        }
        if !self.files.is_empty() {
            self.disk.sync_dir(DIR).map_err(WalError::io("sync", DIR))?;
        }
        Ok(done)
    }
}

impl Log {
    /// Makes the log of a new database, durably. Its first record will be `next_seq`, at least 1.
    ///
    /// What an interrupted creation left is replaced: a single log file that holds no record.
    ///
    /// # Errors
    /// [`WalError::Exists`] where there is a log, [`WalError::Options`], [`WalError::DiskFull`], [`WalError::Io`].
    pub fn create(
        disk: SharedDisk,
        db_id: [u8; 16],
        next_seq: u64,
        options: LogOptions,
    ) -> Result<Log, WalError> {
        options.check()?;
        if !(1..=NUMBER_MAX).contains(&next_seq) {
            let rule = format!("from 1 to {NUMBER_MAX}");
            return Err(WalError::Options { option: "next_seq", value: next_seq, rule });
        }
        let preparation = Preparation { disk: &disk, bytes: options.file_len };
        disk.create_dir(DIR).map_err(preparation.failed("create", DIR))?;
        let (mut leftovers, mut last) = (Vec::new(), 0);
        for name in disk.list(DIR).map_err(WalError::io("list", DIR))? {
            match entry(&name) {
                Entry::Log(1) if holds_no_batch(&disk)? => leftovers.push(log_name(1)),
                Entry::Log(number) => return Err(WalError::Exists { file: log_name(number) }),
                Entry::Unfinished(number) => leftovers.push(unfinished_name(number)),
                Entry::Spare(number) => last = last.max(number),
                Entry::Other => {}
            }
        }
        for name in leftovers {
            disk.remove(&name).map_err(WalError::io("remove", &name))?;
        }
        let mut spares = Spares::new(disk.clone(), options.file_len, Vec::new(), last);
        let header = FileHeader {
            reused: false,
            db_id,
            number: 1,
            salt: 0,
            file_len: options.file_len,
            first_seq: next_seq,
            first_batch: 1,
            previous: Previous::default(),
        };
        let active = Active::begin(&disk, &mut spares, &options, header)?;
        Ok(Log {
            disk,
            db_id,
            options,
            active,
            link: Link { number: 1, crc: 0 },
            next_seq,
            sealed: true,
            closed: VecDeque::new(),
            spares,
            poisoned: None,
            buffer: Vec::new(),
            written: Written::default(),
            asked_in: 0,
        })
    }

    /// Appends records, whose sequence numbers must follow on, and returns when all are durable.
    ///
    /// They travel as one batch, or as several where they exceed a batch or the rest of the file; each batch is
    /// synced before the next is written.
    ///
    /// # Errors
    /// [`WalError::Sequence`], [`WalError::RecordTooLarge`], [`WalError::DiskFull`] and [`WalError::Io`] while a
    /// file is prepared leave the log as it was. Any other failure poisons it ([`Log::check_health`] tells), and a
    /// prefix of the records may come back when it is reopened.
    pub fn write<R: AsRef<[u8]>>(&mut self, records: &[(u64, R)]) -> Result<(), WalError> {
        self.check_health()?;
        for (expected, (found, record)) in (self.next_seq..).zip(records) {
            if expected != *found {
                return Err(WalError::Sequence { expected, found: *found });
            }
            self.check_record(record.as_ref().len() as u64)?;
        }
        self.spares.ensure(self.files_for(records))?;
        let mut rest = records;
        while !rest.is_empty() {
            let fits = self.fit(rest, self.active.file_len - self.active.end);
            if fits == 0 {
                self.roll()?;
                continue;
            }
            let (now, later) = rest.split_at(fits);
            self.append(now)?;
            rest = later;
        }
        Ok(())
    }

    /// Writes an empty batch unless the log ends with one, so that damage to the last records can be told from a
    /// torn tail. For quiet moments and for closing.
    ///
    /// # Errors
    /// As [`Log::write`].
    pub fn seal(&mut self) -> Result<(), WalError> {
        self.check_health()?;
        if self.sealed {
            return Ok(());
        }
        if self.active.end == self.active.file_len {
            // The header of the next file says where this one ends.
            self.spares.ensure(1)?;
            return self.roll();
        }
        self.append::<&[u8]>(&[])
    }

    /// Gives back the files whose records are all at or below `checkpoint_seq`: at most two become spares, the
    /// others are unlinked. The active file stays.
    ///
    /// # Errors
    /// A failure poisons the log, since names that did not become durable could bring an old file back.
    pub fn recycle(&mut self, checkpoint_seq: u64) -> Result<Recycled, WalError> {
        let job = self.recycling(checkpoint_seq)?;
        let done = job.run();
        self.recycled(done)
    }

    /// The same as work to be done elsewhere while the log goes on; what came of it goes to [`Log::recycled`].
    ///
    /// # Errors
    /// [`WalError::Poisoned`].
    pub fn recycling(&mut self, checkpoint_seq: u64) -> Result<RecycleJob, WalError> {
        self.check_health()?;
        let covered = self.closed.iter().take_while(|closed| closed.last_seq <= checkpoint_seq).count();
        let files = self.closed.drain(..covered).map(|closed| closed.number).collect();
        let spares = (self.spares.len()..SPARES_MAX).map(|_| self.spares.name()).collect();
        Ok(RecycleJob { disk: self.disk.clone(), file_len: self.options.file_len, files, spares })
    }

    /// Takes in what a [`RecycleJob`] of this log did.
    ///
    /// # Errors
    /// That of the job, which poisons the log.
    pub fn recycled(&mut self, done: Result<Freed, WalError>) -> Result<Recycled, WalError> {
        let Freed { spares, removed } = done.inspect_err(|error| {
            self.poisoned.get_or_insert_with(|| error.to_string());
        })?;
        let done = Recycled { spared: spares.len(), removed };
        spares.into_iter().for_each(|number| self.spares.recycled(number));
        Ok(done)
    }

    /// Prepares a spare file unless one is ready: `file_len` bytes of I/O.
    ///
    /// # Errors
    /// As [`SpareJob::run`]; the log stays healthy.
    pub fn prepare_spare(&mut self) -> Result<(), WalError> {
        self.spares.ensure(1)
    }

    /// The preparation of a spare, to be run elsewhere while the log goes on; `None` where one is ready.
    pub fn spare_job(&mut self) -> Option<SpareJob> {
        (self.spares.len() == 0).then(|| self.spares.job())
    }

    /// Whether a spare should be prepared ahead of time: none is ready, and a sixteenth of the active file is used:
    /// fast commits fill what is left of it before long. Answers so once for each file.
    pub(crate) fn wants_spare(&mut self) -> bool {
        let Active { number, end, file_len, .. } = self.active;
        let wants = self.spares.len() == 0 && end >= file_len / 16 && self.asked_in != number;
        if wants {
            self.asked_in = number;
        }
        wants
    }

    /// The preparation of a spare whether or not one is ready.
    pub(crate) fn extra_spare_job(&mut self) -> SpareJob {
        self.spares.job()
    }

    /// Takes in a spare that a [`SpareJob`] of this log prepared.
    pub fn adopt_spare(&mut self, spare: PreparedSpare) {
        self.spares.adopt(spare);
    }

    /// Where the next batch goes. Everything before it is durable, so the log can be read from there later on.
    pub fn place(&self) -> Place {
        let Active { number, salt, end, .. } = self.active;
        Place {
            file: number,
            salt,
            offset: end,
            batch: self.link.number,
            seq: self.next_seq,
            crc: self.link.crc,
        }
    }

    /// Sequence number that the next record must have.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The settings.
    pub fn options(&self) -> &LogOptions {
        &self.options
    }

    /// Bytes of padded records that can be written without preparing a file, whatever their lengths are.
    pub fn room(&self) -> u64 {
        // The end of each file may stay unused where the next record does not fit.
        let waste = LogOptions::alone(self.options.record_max.into());
        // What is queued is counted without these; see `LogOptions::queued`.
        let waste = if self.options.travels_together() { waste + 2 * BLOCK } else { waste };
        let active = (self.active.file_len - self.active.end).saturating_sub(waste);
        let spare = (self.options.file_len - BLOCK).saturating_sub(waste);
        active + spare * self.spares.len() as u64
    }

    /// Figures of the log.
    pub fn stats(&self) -> LogStats {
        LogStats {
            file: self.active.number,
            offset: self.active.end,
            files: self.closed.len() + 1,
            spares: self.spares.len(),
            next_seq: self.next_seq,
            batches: self.written.batches,
            records: self.written.records,
            bytes: self.written.bytes,
        }
    }

    /// Fails where an earlier write or sync failed.
    ///
    /// # Errors
    /// [`WalError::Poisoned`].
    pub fn check_health(&self) -> Result<(), WalError> {
        match &self.poisoned {
            Some(cause) => Err(WalError::Poisoned { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    pub(crate) fn check_record(&self, bytes: u64) -> Result<(), WalError> {
        let max = u64::from(self.options.record_max);
        if bytes > max { Err(WalError::RecordTooLarge { bytes, max }) } else { Ok(()) }
    }

    /// How many records fit into one batch within `room` bytes.
    fn fit<R: AsRef<[u8]>>(&self, records: &[(u64, R)], room: u64) -> usize {
        let room = room.min(self.options.batch_bytes_max());
        let mut bytes = HEADER as u64;
        let fits = records.iter().take_while(|(_, record)| {
            bytes += (FRAME + record.as_ref().len()) as u64;
            bytes <= room
        });
        fits.count()
    }

    /// How many new files [`Log::write`] will need.
    fn files_for<R: AsRef<[u8]>>(&self, records: &[(u64, R)]) -> usize {
        let (mut rest, mut files) = (records, 0);
        let mut room = self.active.file_len - self.active.end;
        while !rest.is_empty() {
            let fits = self.fit(rest, room);
            if fits == 0 {
                files += 1;
                room = self.options.file_len - BLOCK;
                continue;
            }
            let (now, later) = rest.split_at(fits);
            let bytes: u64 = now.iter().map(|(_, record)| (FRAME + record.as_ref().len()) as u64).sum();
            room -= padded(bytes + HEADER as u64);
            rest = later;
        }
        files
    }

    fn append<R: AsRef<[u8]>>(&mut self, records: &[(u64, R)]) -> Result<(), WalError> {
        let Active { number, salt, end, .. } = self.active;
        let mut buffer = std::mem::take(&mut self.buffer);
        let crc = batch::encode(&mut buffer, salt, number, self.link, self.next_seq, records);
        let bytes = buffer.len() as u64;
        let written = self.active.file.write_at(&buffer, end);
        if buffer.capacity() <= 4 << 20 {
            self.buffer = buffer;
        }
        let name = || log_name(number);
        self.poisoning(written, "write", name)?;
        let synced = self.active.file.sync_data();
        self.poisoning(synced, "sync", name)?;
        self.active.end += bytes;
        self.link = Link { number: self.link.number + 1, crc };
        self.next_seq += records.len() as u64;
        self.sealed = records.is_empty();
        self.written.batches += 1;
        self.written.records += records.len() as u64;
        self.written.bytes += bytes;
        Ok(())
    }

    /// Goes on in a new file. The caller made sure of a spare.
    pub(crate) fn roll(&mut self) -> Result<(), WalError> {
        let header = FileHeader {
            reused: false,
            db_id: self.db_id,
            number: self.active.number + 1,
            salt: 0,
            file_len: self.options.file_len,
            first_seq: self.next_seq,
            first_batch: self.link.number,
            previous: Previous {
                number: self.active.number,
                salt: self.active.salt,
                end: self.active.end,
                crc: self.link.crc,
            },
        };
        let begun = Active::begin(&self.disk, &mut self.spares, &self.options, header);
        if let Err(error) = &begun {
            self.poisoned = Some(error.to_string());
        }
        let full = std::mem::replace(&mut self.active, begun?);
        self.closed.push_back(Closed { number: full.number, last_seq: self.next_seq - 1 });
        self.sealed = true;
        Ok(())
    }

    /// Goes on in the active file, behind its last batch, where there is no space for another one. Whatever a torn batch
    /// may have left there is wiped first, so that nothing is appended behind a tear. Answers whether the file has room.
    pub(crate) fn go_on_here(&mut self, torn_bytes: u64, reused: bool) -> Result<bool, WalError> {
        let Active { number, end, file_len, .. } = self.active;
        if file_len - end < ROOM_MIN {
            return Ok(false);
        }
        // In a file that was used before, a batch may have left blocks that do not show. One was in doubt at most.
        let trace = if reused { BATCH_MAX.max(torn_bytes) } else { torn_bytes };
        let (mut at, stop) = (end, file_len.min(padded(end.saturating_add(trace))));
        let zeros = vec![0; WIPE_STEP.min(stop - at) as usize];
        let name = log_name(number);
        while at < stop {
            let step = zeros.get(..(stop - at).min(WIPE_STEP) as usize).unwrap_or(&zeros);
            self.active.file.write_at(step, at).map_err(WalError::io("write", &name))?;
            at += step.len() as u64;
        }
        if stop > end {
            self.active.file.sync_data().map_err(WalError::io("sync", &name))?;
        }
        Ok(true)
    }

    /// Passes on the result of an operation on the log itself; a failure ends all writing, because the page
    /// cache may from now on show bytes that the disk lacks.
    fn poisoning(
        &mut self,
        result: std::io::Result<()>,
        action: &'static str,
        file: impl FnOnce() -> String,
    ) -> Result<(), WalError> {
        result.map_err(|source| {
            let error = WalError::Io { action, file: file(), source };
            self.poisoned = Some(error.to_string());
            error
        })
    }
}

impl Active {
    /// Puts a spare to use as the file that `header` describes; salt and reuse are filled in here.
    ///
    /// The header is durable before the file gets its name, so a file of the log always has a valid header.
    pub fn begin(
        disk: &SharedDisk,
        spares: &mut Spares,
        options: &LogOptions,
        mut header: FileHeader,
    ) -> Result<Active, WalError> {
        let Taken { name: spare, file, block } = spares.take()?;
        header.reused = block.iter().any(|&byte| byte != 0);
        header.salt = (options.salt)();
        while header.salt == 0 || FileHeader::salt_of(&block) == Some(header.salt) {
            header.salt = header.salt.wrapping_add(1);
        }
        let name = log_name(header.number);
        file.write_at(&header.encode(), 0).map_err(WalError::io("write", &spare))?;
        file.sync_data().map_err(WalError::io("sync", &spare))?;
        disk.rename(&spare, &name).map_err(WalError::io("rename", &spare))?;
        disk.sync_dir(DIR).map_err(WalError::io("sync", DIR))?;
        let FileHeader { number, salt, file_len, .. } = header;
        Ok(Active { file, number, salt, file_len, end: BLOCK })
    }
}

/// Whether the first log file holds no batch of its own, wherever one may stand.
fn holds_no_batch(disk: &SharedDisk) -> Result<bool, WalError> {
    let name = log_name(1);
    let file = disk.open(&name).map_err(WalError::io("open", &name))?;
    let mut window = Window::new(file, name)?;
    let Some(salt) = FileHeader::salt_of(window.at(0, BLOCK as usize)?) else { return Ok(false) };
    let mut at = BLOCK;
    while at < window.file_len() {
        let block = window.at(at, BLOCK as usize)?;
        if batch::has_magic(block) && batch::salt_of(block) == Some(salt) {
            return Ok(false);
        }
        at += BLOCK;
    }
    Ok(true)
}
