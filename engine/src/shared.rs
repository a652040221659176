//! `SHARED`: what the writer tells readers in other processes.
//!
//! One block: a stamp with the machine's boot, two slots for the durable seq that are written in turn, and the report
//! of the recovery as text. The file is never synced and recovery does not look at it: it says something only as long
//! as the machine that wrote it runs on. After another start of the machine whatever the log holds is on the disk.
//!
//! Invariants:
//! - A seq stands here only after the sync that made it durable.
//! - Nothing is committed before a process has written its block, so who saw a record that is not durable and looks
//!   here afterwards finds a seq before it.
//! - One of the two slots is whole at any moment, whatever a reader meets in the other.
//! - What is damaged says nothing; see [`crate::durable`] for what is shown then.

use std::fs;
use std::io;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use underbelly_storage::disk::{Disk, File};
use underbelly_storage::error::StorageError;

use crate::open::RecoveryReport;

/// The file's name.
pub(crate) const SHARED: &str = "SHARED";

const MAGIC: [u8; 8] = *b"UBSHARED";
const VERSION: u32 = 1;
const FILE_BYTES: usize = 4_096;
const HEAD_BYTES: usize = 64;
const SLOTS: [usize; 2] = [64, 128];
const SLOT_BYTES: usize = 20;
const TEXT: usize = 192;
/// How often a reader looks again that met a block which was being written.
const TRIES: usize = 100;
/// How long it waits before that where one slot alone was.
const AGAIN: Duration = Duration::from_millis(1);

/// The writer's side.
pub(crate) struct Notice {
    file: Box<dyn File>,
    /// Seqs that were published.
    count: Mutex<u64>,
}

/// What a reader finds.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    boot: [u8; 16],
    /// The last seq that was published.
    pub durable: u64,
    /// A slot that is not whole: it may say more.
    damage: Option<usize>,
    /// What the writer's opening found, where the text is whole.
    pub report: Option<RecoveryReport>,
}

impl Told {
    /// Whether it was told since the machine was started with this number.
    pub(crate) fn is_of(&self, boot: [u8; 16]) -> bool {
        self.boot == boot
    }
}

/// Whether `SHARED` is no word of this database's writer: damaged, or put there from elsewhere.
pub(crate) fn is_damage(error: &StorageError) -> bool {
    matches!(error, StorageError::Corrupt { .. } | StorageError::ForeignDatabase { .. })
}

/// The last seq that a writer published since the machine was started, and what is wrong with `SHARED` where it says
/// nothing for that reason.
///
/// # Errors
/// What keeps it from being read, or that a newer program wrote it: it may say something.
pub(crate) fn published(
    disk: &dyn Disk,
    database: [u8; 16],
) -> Result<(Option<u64>, Option<StorageError>), StorageError> {
    match read(disk, database) {
        Ok(told) => Ok((told.filter(|told| told.is_of(boot())).map(|told| told.durable), None)),
        Err(error) if is_damage(&error) => Ok((None, Some(error))),
        Err(error) => Err(error),
    }
}

/// What tells one start of this machine from another; zeros where the system does not say, so that all starts count
/// as one and readers see what was published alone.
pub(crate) fn boot() -> [u8; 16] {
    // No process outlives a start.
    static BOOT: OnceLock<[u8; 16]> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
        u128::from_str_radix(&digits, 16).map_or([0; 16], u128::to_be_bytes)
    })
}

fn slot(count: u64, seq: u64) -> [u8; SLOT_BYTES] {
    let mut bytes = [0; SLOT_BYTES];
    bytes[..8].copy_from_slice(&count.to_le_bytes());
    bytes[8..16].copy_from_slice(&seq.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..16]);
    bytes[16..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn block(database: [u8; 16], boot: [u8; 16], durable: u64, report: &RecoveryReport) -> Vec<u8> {
    let mut text = report.to_text();
    let longest = (0..=FILE_BYTES - TEXT).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.truncate(longest);
    let mut bytes = vec![0; FILE_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&(text.len() as u32).to_le_bytes());
    bytes[16..32].copy_from_slice(&database);
    bytes[32..48].copy_from_slice(&boot);
    bytes[48..52].copy_from_slice(&crc32fast::hash(text.as_bytes()).to_le_bytes());
    let head = crc32fast::hash(&bytes[..HEAD_BYTES - 4]);
    bytes[HEAD_BYTES - 4..HEAD_BYTES].copy_from_slice(&head.to_le_bytes());
    bytes[SLOTS[0]..SLOTS[0] + SLOT_BYTES].copy_from_slice(&slot(0, durable));
    bytes[TEXT..TEXT + text.len()].copy_from_slice(text.as_bytes());
    bytes
}

impl Notice {
    /// Writes the block of a process that begins to write, in the place of that of the process before: everything up
    /// to `durable` is durable, and there is nothing else.
    pub(crate) fn begin(
        disk: &dyn Disk,
        database: [u8; 16],
        durable: u64,
        report: &RecoveryReport,
    ) -> Result<Notice, StorageError> {
        let failed = |error| StorageError::io("write", SHARED, error);
        // In place where it is there: on a full disk too, a database can be opened.
        let file = match disk.open(SHARED) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => disk.create(SHARED),
            opened => opened,
        };
        let file = file.map_err(failed)?;
        file.write_at(&block(database, boot(), durable, report), 0).map_err(failed)?;
        Ok(Notice { file, count: Mutex::new(0) })
    }

    /// Tells that everything up to `seq` is durable.
    pub(crate) fn publish(&self, seq: u64) -> io::Result<()> {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count += 1;
        let at = SLOTS[(*count % 2) as usize];
        self.file.write_at(&slot(*count, seq), at as u64)
    }
}

/// What the last writer told; `None` where there is nothing, or nothing of it reached the disk before the machine
/// stopped.
pub(crate) fn read(disk: &dyn Disk, database: [u8; 16]) -> Result<Option<Told>, StorageError> {
    let (mut answer, mut before) = (Ok(None), None);
    for _ in 0..TRIES {
        let file = match disk.open_read(SHARED) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|error| StorageError::io("open", SHARED, error))?,
        };
        let mut bytes = vec![0; FILE_BYTES];
        let length = file.read_at(&mut bytes, 0).map_err(|error| StorageError::io("read", SHARED, error))?;
        bytes.truncate(length);
        answer = decode(&bytes, database);
        match &answer {
            // One slot is being written, or damaged: then it stays as it is, and may say more than the other.
            Ok(Some(Told { damage: Some(damage), .. })) if before.as_ref() == Some(&bytes) => {
                return Err(damage_at(*damage, "the checksum of a slot does not match"));
            }
            Ok(Some(Told { damage: Some(_), .. })) => thread::sleep(AGAIN),
            Ok(_) => break,
            Err(_) => {}
        }
        before = Some(bytes);
    }
    answer
}

fn damage_at(offset: usize, what: &str) -> StorageError {
    StorageError::Corrupt {
        file: SHARED.to_string(),
        offset: offset as u64,
        what: what.to_string(),
        remedy: "open the database for writing once, which makes it anew",
    }
}

fn decode(bytes: &[u8], database: [u8; 16]) -> Result<Option<Told>, StorageError> {
    if bytes.iter().take(HEAD_BYTES).all(|byte| *byte == 0) {
        return Ok(None);
    }
    let damage = damage_at;
    let (Some(head), FILE_BYTES) = (bytes.first_chunk::<HEAD_BYTES>(), bytes.len()) else {
        return Err(damage(bytes.len(), "it is too short"));
    };
    let word = |at: usize| bytes[at..].first_chunk::<4>().map_or(0, |word| u32::from_le_bytes(*word));
    let number = |at: usize| bytes[at..].first_chunk::<8>().map_or(0, |word| u64::from_le_bytes(*word));
    let array = |at: usize| head[at..].first_chunk::<16>().copied().unwrap_or_default();
    if head[..8] != MAGIC || word(HEAD_BYTES - 4) != crc32fast::hash(&head[..HEAD_BYTES - 4]) {
        return Err(damage(0, "the checksum of its head does not match"));
    }
    if word(8) == 0 {
        return Err(damage(8, "its version is none"));
    }
    if word(8) > VERSION {
        let found = u16::try_from(word(8)).unwrap_or(u16::MAX);
        return Err(StorageError::Version { file: SHARED.to_string(), found, supported: VERSION as u16 });
    }
    if array(16) != database {
        return Err(StorageError::ForeignDatabase { file: SHARED.to_string() });
    }
    let is_whole = |at: &usize| word(at + 16) == crc32fast::hash(&bytes[*at..at + 16]);
    let is_unused = |at: &usize| bytes[*at..at + SLOT_BYTES].iter().all(|byte| *byte == 0);
    // What a machine wrote that was stopped since says nothing in any case.
    let damaged = SLOTS.into_iter().find(|at| !is_whole(at) && !is_unused(at) && array(32) == boot());
    let newest = SLOTS.into_iter().filter(is_whole).max_by_key(|at| number(*at));
    let newest = newest.ok_or_else(|| damage(SLOTS[0], "neither slot's checksum matches"))?;
    let text = bytes.get(TEXT..).and_then(|rest| rest.get(..word(12) as usize));
    let text =
        text.filter(|text| crc32fast::hash(text) == word(48)).and_then(|text| std::str::from_utf8(text).ok());
    Ok(Some(Told {
        boot: array(32),
        durable: number(newest + 8),
        damage: damaged,
        report: text.map(RecoveryReport::from_text),
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use underbelly_storage::disk::SimulatedDisk;

    use super::*;

    const DB: [u8; 16] = [7; 16];

    fn report() -> RecoveryReport {
        RecoveryReport { manifest: 3, torn_tail: Some("a\nb".to_string()), ..RecoveryReport::default() }
    }

    #[test]
    fn what_is_published_is_read() {
        let disk = SimulatedDisk::new();
        assert!(read(&disk, DB).unwrap().is_none());
        let notice = Notice::begin(&disk, DB, 9, &report()).unwrap();
        for seq in [9, 10, 14, 15] {
            if seq > 9 {
                notice.publish(seq).unwrap();
            }
            let told = read(&disk, DB).unwrap().unwrap();
            assert_eq!(told.durable, seq);
            assert!(told.is_of(boot()) && !told.is_of([0xee; 16]));
            assert_eq!(published(&disk, DB).unwrap().0, Some(seq));
            assert_eq!(told.report.unwrap().torn_tail.as_deref(), Some("a\nb"));
        }
        let again = Notice::begin(&disk, DB, 20, &RecoveryReport::default()).unwrap();
        assert_eq!(read(&disk, DB).unwrap().unwrap().durable, 20);
        again.publish(21).unwrap();
        assert_eq!(read(&disk, DB).unwrap().unwrap().durable, 21);
        assert!(matches!(read(&disk, [8; 16]), Err(StorageError::ForeignDatabase { .. })));
    }

    /// It may be the newest, and nobody knows what it said. One that is being written is another at the next look.
    #[test]
    fn a_slot_that_is_damaged_is_told() {
        let disk = SimulatedDisk::new();
        let notice = Notice::begin(&disk, DB, 9, &report()).unwrap();
        notice.publish(10).unwrap();
        notice.publish(11).unwrap();
        let sound = disk.contents(SHARED).unwrap();
        for at in 0..SLOT_BYTES {
            let mut torn = sound.clone();
            torn[SLOTS[0] + at] ^= 0x10;
            disk.overwrite(SHARED, torn);
            let told = read(&disk, DB);
            assert!(
                matches!(told, Err(StorageError::Corrupt { offset, .. }) if offset == SLOTS[0] as u64),
                "{at}"
            );
            assert!(published(&disk, DB).unwrap().1.is_some());
        }
        let half = decode(&disk.contents(SHARED).unwrap(), DB).unwrap().unwrap();
        assert_eq!((half.durable, half.damage), (10, Some(SLOTS[0])));
    }

    #[test]
    fn every_flipped_byte_and_length_is_an_error_or_shows_no_more_than_was_published() {
        let disk = SimulatedDisk::new();
        Notice::begin(&disk, DB, 9, &report()).unwrap().publish(10).unwrap();
        let sound = disk.contents(SHARED).unwrap();
        for at in 0..TEXT + 100 {
            let mut twin = sound.clone();
            twin[at] ^= 0x04;
            disk.overwrite(SHARED, twin);
            if let Ok(told) = read(&disk, DB) {
                let told = told.unwrap();
                assert!(told.durable <= 10 && told.boot == boot(), "byte {at}");
            }
        }
        for length in [1, 63, 64, 200, FILE_BYTES - 1] {
            disk.overwrite(SHARED, sound[..length].to_vec());
            assert!(matches!(read(&disk, DB), Err(StorageError::Corrupt { .. })), "{length} bytes");
        }
        for nothing in [Vec::new(), vec![0; FILE_BYTES]] {
            disk.overwrite(SHARED, nothing);
            assert!(read(&disk, DB).unwrap().is_none());
        }
    }
}
