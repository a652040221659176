//! Reading a log beside its writer, or after it, without changing anything.
//!
//! Invariants:
//! - Nothing is written, renamed or removed.
//! - A record is given only when its batch is whole, carries the salt of the file that it was looked for in, and
//!   follows the batch before it. So a file that is recycled while it is read gives nothing wrong: what a later
//!   use wrote does not follow.
//! - Files are recycled in order and names are never used twice. So while a file has its name, all later ones that
//!   were ever made have theirs.

use std::io;

use underbelly_storage::disk::SharedDisk;

use crate::chain::{Chain, open_file, whole_batch};
use crate::error::WalError;
use crate::header::FileHeader;
use crate::inspection::expected;
use crate::layout::{BLOCK, DIR, log_name};
use crate::place::{Entered, PassedOver, Place, Start, enter};
use crate::recovery::{Folder, Visitor};
use crate::rest::Rest;
use crate::window::Window;

/// Gets each record of a log with the place of its batch: its sequence number, its bytes, the number of the file and the byte in it.
pub type PlacedVisitor<'a, E> = dyn FnMut(u64, &[u8], (u64, u64)) -> Result<(), E> + 'a;

/// A place in a log from which records are read in order, again and again as the log grows.
pub struct Follower {
    disk: SharedDisk,
    db_id: [u8; 16],
    header: FileHeader,
    window: Window,
    /// Where the next batch is.
    offset: u64,
    chain: Chain,
    /// First sequence number that was not given yet.
    next: u64,
    passed_over: Option<PassedOver>,
    /// The last sequence number that something behind it acknowledges, or that stands before where reading began.
    acknowledged: u64,
}

impl Follower {
    /// Stands before the record with the sequence number of `start` in the log of database `db_id`. The record need not be
    /// there yet. Damage before the place that `start` knows is passed over.
    ///
    /// # Errors
    /// [`WalError::Recycled`] where the log begins behind that record; [`WalError::Corrupt`], [`WalError::Foreign`] or
    /// [`WalError::Version`] where a header is not as it should be, [`WalError::Missing`] where there is no log,
    /// [`WalError::Io`].
    pub fn open(disk: SharedDisk, db_id: [u8; 16], start: Start) -> Result<Follower, WalError> {
        let start = start.bounded();
        let from = start.seq;
        let missing = || WalError::Missing { dir: DIR.to_string() };
        let newest = Folder::list(&disk)?.logs.last().copied().ok_or_else(missing)?;
        let mut number = newest;
        loop {
            let opened = open_file(&disk, db_id, number, from);
            let explained = |error| expected(&disk, db_id, explain(&disk, number, from, error));
            let (header, window) = opened.map_err(explained)?;
            if header.first_seq <= from {
                return Follower::start(disk, db_id, header, window, start, number < newest);
            }
            if header.previous.number == 0 {
                return Err(WalError::Recycled { file: log_name(number), seq: from });
            }
            number = header.previous.number;
        }
    }

    fn start(
        disk: SharedDisk,
        db_id: [u8; 16],
        header: FileHeader,
        mut window: Window,
        start: Start,
        has_next: bool,
    ) -> Result<Follower, WalError> {
        let entered = enter(&header, &mut window, start, has_next);
        if !matches!(entered, Ok(Entered { passed_over: None, .. })) {
            // What looks damaged may be a later use of the file.
            check_name(&disk, db_id, &header, start.seq)?;
        }
        Ok(Follower::at(disk.clone(), db_id, header, window, entered?, start.seq))
    }

    /// At a place of a file whose header cannot be read.
    fn stand_in(disk: &SharedDisk, db_id: [u8; 16], place: Place, next: u64) -> Result<Follower, WalError> {
        let name = log_name(place.file);
        let file = disk.open_read(&name).map_err(WalError::io("open", &name))?;
        let window = Window::new(file, name)?;
        let header = place.stand_in(db_id, window.file_len(), next)?;
        Ok(Follower::at(disk.clone(), db_id, header, window, place.entered(), next))
    }

    fn at(
        disk: SharedDisk,
        db_id: [u8; 16],
        header: FileHeader,
        window: Window,
        entered: Entered,
        next: u64,
    ) -> Follower {
        let Entered { offset, chain, passed_over } = entered;
        let acknowledged = chain.next_seq - 1;
        Follower { disk, db_id, header, window, offset, chain, next, passed_over, acknowledged }
    }

    /// Gives the records up to `upto` that were not given yet, in order, and answers the next sequence number that
    /// will be given. That is less than `upto` + 1 where the log ends before: a batch is being written there, or
    /// was torn; the call may be repeated and goes on. It is less than the number that was asked for first where
    /// the log ends before that one.
    ///
    /// With `u64::MAX` for `upto` the end is examined as recovery does: a whole batch behind one that is not is damage,
    /// not the end. What a writer appends meanwhile is left to the next call.
    ///
    /// A record at which `visit` fails is given again by the next call.
    ///
    /// # Errors
    /// [`WalError::Recycled`] where the file that was being read holds a later part of the log by now;
    /// [`WalError::Corrupt`] for damage before the end; [`WalError::Io`]; whatever `visit` returns.
    pub fn read<E: From<WalError>>(&mut self, upto: u64, visit: &mut Visitor<'_, E>) -> Result<u64, E> {
        self.read_placed(upto, &mut |seq, record, _| visit(seq, record))
    }

    /// The same with places.
    fn read_placed<E: From<WalError>>(
        &mut self,
        upto: u64,
        visit: &mut PlacedVisitor<'_, E>,
    ) -> Result<u64, E> {
        self.window.forget();
        // Whether the next file was there before the present one was last looked at.
        let mut settled = false;
        // Where the present file ends. What is durable by now is before that, or in a later file that is there already; a
        // batch behind it was in doubt when the writer stopped, and was given up.
        let mut end = self.end(upto)?;
        while self.next <= upto {
            if end.is_none_or(|end| self.offset < end)
                && let Some((batch, bytes)) =
                    whole_batch(&mut self.window, self.header.file_len, self.offset)?
                && self.chain.accepts(&self.header, &batch)
            {
                // It was written after the sync of the one before it.
                self.acknowledged = self.chain.next_seq - 1;
                for (seq, record) in batch.frames(bytes) {
                    if seq > upto {
                        return Ok(self.next);
                    }
                    if seq >= self.next {
                        visit(seq, record, (self.header.number, self.offset))?;
                        self.next = seq + 1;
                    }
                }
                self.chain.advance(&batch);
                self.offset += batch.bytes();
                settled = false;
                continue;
            }
            match self.next_file()? {
                None if upto == u64::MAX => {
                    // Whoever asks for everything asks for what recovery would give: damage is no end.
                    self.torn_bytes()?;
                    return Ok(self.chain.next_seq);
                }
                None => return Ok(self.chain.next_seq),
                Some((next, window)) if next.previous.end == self.offset => {
                    if !self.chain.joins(&self.header, &next) {
                        self.check_name()?;
                        let what = "the file does not follow on from the file before it";
                        return Err(self.corrupt(next.number, 0, what.to_string()).into());
                    }
                    (self.header, self.window, self.offset) = (next, window, BLOCK);
                    self.acknowledged = self.chain.next_seq - 1;
                    end = self.end(upto)?;
                    settled = false;
                }
                Some(_) if !settled => {
                    // Its existence acknowledges all of this file, so another look shows what was written since.
                    self.window.forget();
                    settled = true;
                }
                Some((next, _)) => {
                    self.check_name()?;
                    let end = next.previous.end;
                    let what =
                        format!("no valid batch, but the next file says that this one ends at byte {end}");
                    return Err(self.corrupt(self.header.number, self.offset, what).into());
                }
            }
        }
        Ok(self.next)
    }

    /// Bytes of a torn batch where the next is looked for; damage is an error. What a writer appended there since is neither.
    fn torn_bytes(&mut self) -> Result<u64, WalError> {
        let rest = Rest::examine(&self.header, &mut self.window, self.offset, &self.chain)?;
        if matches!(rest, Rest::Damage { .. }) {
            // Batches are written in order: where one was seen, those before it are there by now.
            self.window.forget();
            let batch = whole_batch(&mut self.window, self.header.file_len, self.offset)?;
            if batch.is_some_and(|(batch, _)| self.chain.accepts(&self.header, &batch)) {
                return Ok(0);
            }
        }
        rest.torn_bytes(&self.header, self.offset, self.chain.next_seq)
    }

    /// The last sequence number that is durable for sure, whatever the writer did since: everything before this place,
    /// and what a later batch or file acknowledges. Nothing is given.
    ///
    /// # Errors
    /// As [`Follower::read`] of everything.
    pub fn acknowledged(&self) -> Result<u64, WalError> {
        let seq = self.chain.next_seq;
        let (header, window) = open_file(&self.disk, self.db_id, self.header.number, seq)
            .map_err(|error| explain(&self.disk, self.header.number, seq, error))?;
        if header.salt != self.header.salt {
            return Err(WalError::Recycled { file: log_name(header.number), seq });
        }
        let here = Entered { offset: self.offset, chain: self.chain, passed_over: None };
        let mut scout = Follower::at(self.disk.clone(), self.db_id, header, window, here, self.next);
        scout.read(u64::MAX, &mut |_, _| Ok::<(), WalError>(()))?;
        Ok(scout.acknowledged)
    }

    /// Number of the file and byte in it at which the next batch is looked for.
    pub fn place(&self) -> (u64, u64) {
        (self.header.number, self.offset)
    }

    /// Damage in front of the place from which the log was read, if there is any.
    pub fn passed_over(&self) -> Option<&PassedOver> {
        self.passed_over.as_ref()
    }

    /// The next sequence number that will be given.
    pub fn next_seq(&self) -> u64 {
        self.next
    }

    /// Where this file ends, as the next one says; `None` where this one is the last, or the next is damaged, which is
    /// told when the reading comes to it. Who asks for everything takes what is left, also beside a file that is none; for
    /// others an end that cannot be read is an error, since behind it stands what was given up.
    fn end(&self, upto: u64) -> Result<Option<u64>, WalError> {
        match self.next_file() {
            Err(WalError::Corrupt { .. }) => Ok(None),
            Err(error) if upto == u64::MAX && error.is_of_file() => Ok(None),
            next => Ok(next?.map(|(next, _)| next.previous.end)),
        }
    }

    /// The file after this one; `None` where this one is the last.
    fn next_file(&self) -> Result<Option<(FileHeader, Window)>, WalError> {
        let number = self.header.number + 1;
        match open_file(&self.disk, self.db_id, number, self.chain.next_seq) {
            Ok(next) => Ok(Some(next)),
            Err(error) if is_absent(&error) => {
                self.check_name()?;
                Ok(None)
            }
            Err(error) => Err(explain(&self.disk, number, self.chain.next_seq, error)),
        }
    }

    /// Fails where the file has lost its name.
    fn check_name(&self) -> Result<(), WalError> {
        check_name(&self.disk, self.db_id, &self.header, self.chain.next_seq)
    }

    fn corrupt(&self, number: u64, offset: u64, what: String) -> WalError {
        WalError::Corrupt { file: log_name(number), offset, seq: self.chain.next_seq, what }
    }
}

/// Fails where the file of this header has lost its name. `seq` is the sequence number that was looked for in it.
fn check_name(disk: &SharedDisk, db_id: [u8; 16], header: &FileHeader, seq: u64) -> Result<(), WalError> {
    let number = header.number;
    match open_file(disk, db_id, number, seq) {
        Ok((found, _)) if found.salt == header.salt => Ok(()),
        Ok(_) => Err(WalError::Recycled { file: log_name(number), seq }),
        Err(error) => Err(explain(disk, number, seq, error)),
    }
}

fn is_absent(error: &WalError) -> bool {
    matches!(error, WalError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

/// What it means that file `number` could not be read: damage where it is there, a gap where an older one is, and
/// otherwise that it was recycled.
fn explain(disk: &SharedDisk, number: u64, seq: u64, error: WalError) -> WalError {
    if !is_absent(&error) && !matches!(error, WalError::Corrupt { .. }) {
        return error;
    }
    let logs = match Folder::list(disk) {
        Ok(folder) => folder.logs,
        Err(error) => return error,
    };
    if logs.contains(&number) {
        return error;
    }
    let file = log_name(number);
    if logs.first().is_some_and(|first| *first < number) {
        let what = "the file is missing, and older ones are there".to_string();
        return WalError::Corrupt { file, offset: 0, seq, what };
    }
    WalError::Recycled { file, seq }
}

/// How far [`visit_sound`] came.
#[derive(Debug)]
#[non_exhaustive]
pub struct Sound {
    /// The sequence number behind the last sound record that may be read. It is less than the one that was asked for where that
    /// part ends before it.
    pub next_seq: u64,
    /// Bytes behind the last batch that a batch which was being written left.
    pub torn_bytes: u64,
    /// The damage that ended it, or a file in the log's folder that is none of it; `None` where the log ends there.
    pub damage: Option<WalError>,
    /// The file and the byte at which the sound part ends; `None` where not even its begin was found, or looked for.
    pub end: Option<(String, u64)>,
}

/// Gives the records from `start` on that are sound and contiguous, although damage may follow: what a salvage can
/// keep. Later files are looked at only as far as they follow on. Nothing is changed.
///
/// # Errors
/// [`WalError::Recycled`] where no file that can be read holds the first of them, [`WalError::Missing`] where there is no
/// log, [`WalError::Io`]; whatever `visit` returns.
pub fn visit_sound<E: From<WalError>>(
    disk: SharedDisk,
    db_id: [u8; 16],
    start: Start,
    visit: &mut Visitor<'_, E>,
) -> Result<Sound, E> {
    visit_sound_upto(disk, db_id, start, u64::MAX, &mut |seq, record, _| visit(seq, record))
}

/// The same up to a sequence number, with places. A log that ends before `upto` is damaged, but for `u64::MAX`. A writer may
/// append meanwhile, where everything up to `upto` was durable before.
///
/// # Errors
/// As [`visit_sound`]; [`WalError::Recycled`] also where a file was recycled before it was read.
pub fn visit_sound_upto<E: From<WalError>>(
    disk: SharedDisk,
    db_id: [u8; 16],
    start: Start,
    upto: u64,
    visit: &mut PlacedVisitor<'_, E>,
) -> Result<Sound, E> {
    let start = start.bounded();
    let from = start.seq;
    let logs = Folder::list(&disk)?.logs;
    if logs.is_empty() {
        return Err(WalError::Missing { dir: DIR.to_string() }.into());
    }
    let holding = logs.iter().rev().find_map(|&number| {
        let opened = open_file(&disk, db_id, number, from).ok()?;
        (opened.0.first_seq <= from).then_some(opened)
    });
    let found = holding.as_ref().map_or(0, |(header, _)| header.number);
    let unreadable = start.place.filter(|place| place.file > found && logs.contains(&place.file));
    let gone = || WalError::Recycled { file: log_name(logs.first().copied().unwrap_or(1)), seq: from };
    let entered = match (unreadable, holding) {
        // Its header cannot be read, but what is needed of it is known.
        (Some(place), _) => Follower::stand_in(&disk, db_id, place, from),
        (None, Some((header, window))) => {
            let has_next = logs.last().is_some_and(|last| *last > header.number);
            Follower::start(disk.clone(), db_id, header, window, start, has_next)
        }
        (None, None) => {
            // What is needed may stand in the oldest file, whatever its header said.
            let oldest = logs.first().map(|&number| open_file(&disk, db_id, number, from));
            return match oldest {
                Some(Err(damage)) if damage.is_of_file() => {
                    Ok(Sound { next_seq: from, torn_bytes: 0, damage: Some(damage), end: None })
                }
                Some(Err(error)) => Err(error.into()),
                _ => Err(gone().into()),
            };
        }
    };
    let mut follower = match entered {
        Ok(follower) => follower,
        Err(damage) if damage.is_of_file() => {
            return Ok(Sound { next_seq: from, torn_bytes: 0, damage: Some(damage), end: None });
        }
        Err(error) => return Err(error.into()),
    };
    let mut guard =
        |seq: u64, record: &[u8], place: (u64, u64)| visit(seq, record, place).map_err(Stop::Visitor);
    let damage = match follower.read_placed(upto, &mut guard) {
        // Nothing is there yet of what was asked for.
        Ok(_) if from > upto => {
            return Ok(Sound { next_seq: upto.saturating_add(1), torn_bytes: 0, damage: None, end: None });
        }
        Ok(next_seq) if next_seq > upto => {
            let (file, offset) = follower.place();
            return Ok(Sound { next_seq, torn_bytes: 0, damage: None, end: Some((log_name(file), offset)) });
        }
        Ok(_) => None,
        Err(Stop::Visitor(error)) => return Err(error),
        Err(Stop::Log(error)) if error.is_of_file() => Some(error),
        Err(Stop::Log(error)) => return Err(error.into()),
    };
    let next_seq = follower.chain.next_seq;
    let (file, offset) = follower.place();
    let end = Some((log_name(file), offset));
    let missing = || later(&disk, db_id, &logs, file, offset, next_seq);
    if let Some(damage) = damage.or_else(missing) {
        return Ok(Sound { next_seq, torn_bytes: 0, damage: Some(damage), end });
    }
    match follower.torn_bytes() {
        Ok(torn_bytes) if upto == u64::MAX => Ok(Sound { next_seq, torn_bytes, damage: None, end }),
        Ok(torn_bytes) => {
            let what = format!("the log ends there, and its writer made all durable up to {upto}");
            let damage = Some(follower.corrupt(file, offset, what));
            Ok(Sound { next_seq, torn_bytes, damage, end })
        }
        Err(damage) if damage.is_of_file() => {
            Ok(Sound { next_seq, torn_bytes: 0, damage: Some(damage), end })
        }
        Err(error) => Err(error.into()),
    }
}

/// That a file behind the last one that was read cannot be taken at all, or begins later than that one ends: one between is
/// missing.
fn later(
    disk: &SharedDisk,
    db_id: [u8; 16],
    logs: &[u64],
    last: u64,
    offset: u64,
    next_seq: u64,
) -> Option<WalError> {
    let behind = logs.iter().filter(|number| **number > last);
    let mut opened = behind.map(|number| open_file(disk, db_id, *number, next_seq));
    // What is damaged says nothing of what it was.
    let found = opened.find_map(|opened| match opened {
        Ok((header, _)) => (header.first_seq > next_seq).then_some(Ok(header)),
        Err(error) => {
            (error.is_of_file() && !matches!(error, WalError::Corrupt { .. })).then_some(Err(error))
        }
    })?;
    let header = match found {
        Ok(header) => header,
        Err(error) => return Some(error),
    };
    let what =
        format!("{} begins with {}, and no file leads to it", log_name(header.number), header.first_seq);
    Some(WalError::Corrupt { file: log_name(last), offset, seq: next_seq, what })
}

/// Why a reading stopped.
enum Stop<E> {
    Log(WalError),
    Visitor(E),
}

impl<E> From<WalError> for Stop<E> {
    fn from(error: WalError) -> Stop<E> {
        Stop::Log(error)
    }
}
