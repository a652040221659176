//! Reading a database that another process may write.
//!
//! A reader restores the newest manifest into memory of its own and follows the log behind it. It writes nothing; it
//! shares the lock of the manifest, which keeps the writer from removing it and the files that it names, and which
//! the reader's death releases. The writer never waits for it.
//!
//! Invariants:
//! - What a reader shows is durable: it never passes the seq that the writer published in `SHARED`, and reads all of
//!   the log only where the machine was started anew since.
//! - A transaction is shown whole, and no reader goes back.
//! - Sealed files are mapped and never change; the log is read into memory. So nothing that the writer does can take
//!   pages from under a reader.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use underbelly_storage::Timestamp;
use underbelly_storage::disk::{RealDisk, SharedDisk};
use underbelly_storage::error::StorageError;
use underbelly_storage::manifest::{manifest_name, manifest_numbers, pin_manifest};
use underbelly_storage::object::ObjectId;
use underbelly_wal::{Follower, WalError};

use crate::database::Database;
use crate::durable::{self, Durable};
use crate::error::{OpenError, ReadError};
use crate::journal::{LogRecord, describe};
use crate::limits::{INLINE_BYTES_MAX, READER_REPLAY_BYTES, READER_TRIES};
use crate::manifest::Stored;
use crate::objects::Objects;
use crate::open::{RecoveryReport, check_finished, last_sealed, no_manifest};
use crate::options::Options;
use crate::pool::{Pool, Threads};
use crate::restore::{RestoreError, open_or_spare, open_segment, replay, restore};
use crate::variables::{BoardReader, VARIABLES};
use crate::view::{Base, BlobLimits, View};
use crate::{files, view};

/// A database that is open for reading alone, with all that its [`View`] shows: what was durable at the last
/// [`refresh`](Reader::refresh). Another process may write it meanwhile. Made by [`Database::open_read_only`].
pub struct Reader {
    view: View,
    /// The seq up to which transactions are shown.
    seq: Arc<AtomicU64>,
    follower: Follower,
    /// Whether the state holds what the follower gave, and nothing in part.
    is_sound: bool,
    /// The manifest that was read, and the last transaction in it.
    manifest: (u64, u64),
    /// The newest manifest that was there then.
    newest: u64,
    next_file: u64,
    /// Transactions read from the log behind the manifest, and their bytes.
    replayed: (u64, u64),
    /// What the last opening for writing found.
    recovery: Option<RecoveryReport>,
    /// Damaged segments and chunk files, as the manifest tells them.
    damaged: Vec<String>,
    /// Objects of the log behind it that cannot be read, and why.
    unread: BTreeMap<ObjectId, String>,
    /// What is wrong with `SHARED`.
    shared_damage: Option<String>,
    /// Whether it goes on without segments that are damaged.
    spares: bool,
    /// Threads that read files of a manifest.
    threads: usize,
    /// What the process that writes shows of variables; all handles look there.
    pub(crate) board: Arc<Mutex<BoardReader>>,
}

/// What `ubctl status` shows.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReaderStatus {
    /// Where the database is.
    pub dir: String,
    /// Its number, which every file carries.
    pub database: [u8; 16],
    /// The last transaction that is shown.
    pub seq: u64,
    /// Its commit time, nanoseconds since 1970 UTC.
    pub time: Timestamp,
    /// How many there are of each kind of thing.
    pub counts: view::Counts,
    /// The manifest that was read.
    pub manifest: u64,
    /// The last transaction in it.
    pub checkpoint_seq: u64,
    /// Transactions read from the log behind it.
    pub replayed: u64,
    /// Files of the log.
    pub log_files: usize,
    /// Spare files that are ready.
    pub log_spares: usize,
    /// Number of the log file in which the next transaction is looked for.
    pub log_file: u64,
    /// Byte in it.
    pub log_offset: u64,
    /// The process that writes, if one does and the system tells.
    pub writer: Option<u32>,
    /// Other processes that read, each with the manifest that it pins, as far as the system tells.
    pub readers: Vec<(u32, u64)>,
    /// Damage in a part of the log that the manifest holds: nothing is lost by it.
    pub log_damage: Option<String>,
    /// Damaged segments and chunk files, as the checkpoint told them that wrote the manifest: see
    /// [`CheckpointReport::damaged`](crate::CheckpointReport::damaged); chunk files that were put since; and newer manifests
    /// that were passed over, with what is wrong with them or with files that they name.
    pub damaged: Vec<String>,
    /// What is wrong with `SHARED`. The transactions of the last batch are shown only once something later in the log
    /// acknowledges them, until a database that is opened for writing makes the file anew.
    pub shared_damage: Option<String>,
    /// What the last opening for writing found; `None` where the machine was started anew since, or there was none.
    pub recovery: Option<RecoveryReport>,
}

impl Database {
    /// Opens a database for reading, whether or not a process writes it. Nothing is written, so a folder that cannot
    /// be written does as well; any number of processes may do this.
    ///
    /// # Errors
    /// As [`Database::open_read_only_on`].
    pub fn open_read_only(dir: impl AsRef<Path>) -> Result<Reader, OpenError> {
        Database::open_read_only_on(Arc::new(RealDisk::new(dir)))
    }

    /// As [`Database::open_read_only`], on any disk: what [`Database::open_on`] is for writing. A segment that is damaged or gone,
    /// which keeps a database from being opened for writing, is named by [`Reader::status`]; reading rows that may stand in it answers
    /// [`QueryError::Source`](crate::QueryError::Source) with the damage.
    ///
    /// # Errors
    /// [`OpenError::NotFound`] where there is no database; [`OpenError::Unfinished`] where it is a copy that is not finished; [`OpenError::Corrupt`], [`OpenError::Storage`] or
    /// [`OpenError::Log`] where a file is damaged, missing or cannot be read; [`OpenError::Overtaken`] where
    /// checkpoints of the writer follow each other faster than the database is read.
    pub fn open_read_only_on(disk: SharedDisk) -> Result<Reader, OpenError> {
        Database::open_read_only_with(disk, threads())
    }

    /// As [`Database::open_read_only_on`], with so many threads to read files with. With 0 no thread is started, neither now
    /// nor by a refresh: files are read where it is called, as with 0 [`workers`](crate::Options::workers) of a database
    /// that is open for writing.
    ///
    /// # Errors
    /// As [`Database::open_read_only_on`].
    pub fn open_read_only_with(disk: SharedDisk, threads: usize) -> Result<Reader, OpenError> {
        check_finished(&*disk)?;
        Reader::load(&disk, threads)
    }
}

impl Deref for Reader {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

/// Threads of a reader for which nobody asked for a number.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(8)
}

/// Whether an error says that a segment is damaged or gone.
fn is_of_segment(error: &OpenError) -> bool {
    use StorageError::{Corrupt, ForeignDatabase, Missing};
    matches!(error, OpenError::Storage(Corrupt { file, .. } | Missing { file } | ForeignDatabase { file })
        if file.starts_with(files::SEGMENTS_DIR))
}

/// Whether an error says that the writer went on meanwhile.
pub(crate) fn is_overtaken(error: &OpenError) -> bool {
    matches!(
        error,
        OpenError::Overtaken { .. }
            | OpenError::Log(WalError::Recycled { .. })
            | OpenError::Storage(StorageError::Missing { .. })
    )
}

impl Reader {
    /// Shows what is durable by now, and answers the last transaction of it. Snapshots that were taken stay as they
    /// are.
    ///
    /// It reads on in the log; where the writer has recycled that part, or much was read and a newer manifest is
    /// there, it begins anew with that one. After an error rows, contents and models are those that it showed before, states
    /// that listings tell may be later ones, and the call may be repeated.
    ///
    /// # Errors
    /// As [`Database::open_read_only_on`]; [`OpenError::Corrupt`] where another database, or an older state of this
    /// one, was put in the folder meanwhile.
    pub fn refresh(&mut self) -> Result<u64, OpenError> {
        self.refresh_with_records(0).map(|(seq, _)| seq)
    }

    /// As [`Reader::refresh`], with what the transactions did that it read in the log: at most so many, the oldest first. Where it
    /// begins anew with a newer manifest there are none; [`Database::read_log`] reads what the log still holds.
    ///
    /// # Errors
    /// As [`Reader::refresh`].
    pub fn refresh_with_records(&mut self, most: usize) -> Result<(u64, Vec<LogRecord>), OpenError> {
        let disk = self.base().disk.clone();
        if self.is_sound && !self.is_worn(&disk)? {
            match self.follow(most) {
                Err(error) if is_overtaken(&error) => {}
                followed => return followed.map(|records| (self.seq(), records)),
            }
        }
        let fresh = Reader::load(&disk, self.threads)?;
        let back = (fresh.seq() < self.seq())
            .then(|| format!("it ends at transaction {}, and held {} before", fresh.seq(), self.seq()));
        let other =
            (fresh.base().database != self.base().database).then(|| "it is another database".to_string());
        if let Some(what) = other.or(back) {
            return Err(OpenError::Corrupt { dir: disk.describe(), what });
        }
        fresh.base().memory_bytes.store(self.base().memory_bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        // Handles on variables look at both.
        let board = self.board.clone();
        board.lock().unwrap_or_else(PoisonError::into_inner).own = Arc::downgrade(fresh.base());
        *self = Reader { board, ..fresh };
        Ok((self.seq(), Vec::new()))
    }

    /// The last transaction that is shown.
    pub fn seq(&self) -> u64 {
        self.seq.load(Ordering::Acquire)
    }

    /// The number of the manifest that was read; the writer keeps its files for this reader.
    pub fn manifest(&self) -> u64 {
        self.manifest.0
    }

    /// Counts and places, and who else has the database open.
    ///
    /// # Errors
    /// [`OpenError::Storage`] where a folder cannot be listed.
    pub fn status(&self) -> Result<ReaderStatus, OpenError> {
        let base = self.base();
        let disk = &base.disk;
        let logs =
            disk.list(files::WAL_DIR).map_err(|error| StorageError::io("list", files::WAL_DIR, error))?;
        let (log_file, log_offset) = self.follower.place();
        let (manifest, checkpoint_seq) = self.manifest;
        let time = base.state().time;
        let mut damaged = self.damaged.clone();
        let unread: BTreeSet<&String> = self.unread.values().collect();
        damaged.extend(unread.into_iter().filter(|text| !self.damaged.contains(text)).cloned());
        if self.spares {
            let state = base.state();
            let sealed = state.tables.values().flat_map(|table| table.sealed());
            let found = sealed
                .filter_map(|run| run.damage())
                .filter(|text| !self.damaged.iter().any(|known| known == text));
            damaged.extend(found.map(str::to_string));
        }
        Ok(ReaderStatus {
            dir: disk.describe(),
            database: base.database,
            seq: self.seq(),
            time,
            counts: self.counts(),
            manifest,
            checkpoint_seq,
            replayed: self.replayed.0,
            log_files: logs.iter().filter(|name| name.ends_with(".wal")).count(),
            log_spares: logs
                .iter()
                .filter(|name| name.starts_with("spare-") && !name.ends_with(".tmp"))
                .count(),
            log_file,
            log_offset,
            writer: disk.holders("").into_iter().next(),
            readers: attached(disk)?,
            damaged,
            shared_damage: self.shared_damage.clone(),
            log_damage: self.follower.passed_over().map(ToString::to_string),
            recovery: self.recovery.clone(),
        })
    }

    /// Whether so much of the log is in memory that a newer manifest, which is there, does better.
    fn is_worn(&self, disk: &SharedDisk) -> Result<bool, OpenError> {
        if self.replayed.1 < READER_REPLAY_BYTES {
            return Ok(false);
        }
        Ok(manifest_numbers(&**disk)?.last().is_some_and(|newest| *newest > self.manifest.0))
    }

    /// Where nothing but segments is damaged, and no older manifest does without them, all the rest is shown.
    pub(crate) fn load(disk: &SharedDisk, threads: usize) -> Result<Reader, OpenError> {
        match Reader::load_whole(disk, threads, false) {
            Err(error) if is_of_segment(&error) => Reader::load_whole(disk, threads, true),
            loaded => loaded,
        }
    }

    fn load_whole(disk: &SharedDisk, threads: usize, spares: bool) -> Result<Reader, OpenError> {
        let newest = || manifest_numbers(&**disk).map(|numbers| numbers.last().copied());
        let dir = disk.describe();
        for _ in 0..READER_TRIES {
            let before = newest()?;
            match Reader::load_once(disk, threads, spares) {
                Err(error) if is_overtaken(&error) => {
                    // What is not there although nobody replaced the manifest is lost.
                    if !matches!(error, OpenError::Overtaken { .. }) && newest()? == before {
                        return Err(match error {
                            OpenError::Log(WalError::Recycled { seq, .. }) => {
                                let what = format!(
                                    "the log lacks transaction {seq}, and so does the newest manifest"
                                );
                                OpenError::Corrupt { dir, what }
                            }
                            error => error,
                        });
                    }
                }
                loaded => return loaded,
            }
        }
        Err(OpenError::Overtaken { dir })
    }

    fn load_once(disk: &SharedDisk, threads: usize, spares: bool) -> Result<Reader, OpenError> {
        let dir = disk.describe();
        let pool = Pool::new(threads).map_err(|source| OpenError::Io {
            action: "cannot start threads for",
            dir: dir.clone(),
            source,
        })?;
        let mut numbers = manifest_numbers(&**disk)?;
        if numbers.is_empty() {
            return Err(no_manifest(disk));
        }
        let newest = numbers.last().copied().unwrap_or_default();
        // As an opening for writing does: a damaged manifest is passed over for the one before.
        let (mut rejected, mut passed_over): (Option<OpenError>, _) = (None, Vec::new());
        // The last transaction that a manifest held, passed over or not, or a segment that one of them may have named.
        let mut stored = 0;
        while let Some(number) = numbers.pop() {
            // One that is gone was replaced by a newer one.
            let Some(pin) = pin_manifest(&**disk, number)? else { return Err(OpenError::Overtaken { dir }) };
            let restored = (|| {
                let found = Stored::read(&**disk, number)?;
                stored = stored.max(found.manifest.seq);
                let objects = Objects::new(disk.clone(), found.database);
                let restored = restore(disk, found.database, &found.manifest, objects, &pool, spares)?;
                Ok::<_, RestoreError>((found.database, found.manifest, restored))
            })();
            let (database, manifest, restored) = match restored {
                Ok(restored) => restored,
                Err(error) if error.is_damage() => {
                    let error = error.named(&dir);
                    passed_over.push(error.brief_of(&manifest_name(number)));
                    rejected.get_or_insert(error);
                    continue;
                }
                Err(error) => return Err(error.named(&dir)),
            };
            if rejected.is_some() {
                stored = stored.max(last_sealed(&**disk, database, manifest.next_file)?);
            }
            let follower = match Follower::open(disk.clone(), database, manifest.log_start()) {
                Ok(follower) => follower,
                Err(error) => return Err(rejected.unwrap_or(error.into())),
            };
            let seq = Arc::new(AtomicU64::new(manifest.seq));
            let (shown, told) = (seq.clone(), seq.clone());
            let view = View::new(Base {
                disk: disk.clone(),
                database,
                state: Mutex::new(restored.state),
                objects: restored.objects,
                // The index belongs to the writer.
                attributes: Default::default(),
                index_models_min: usize::MAX,
                blob_limits: BlobLimits {
                    small_max: INLINE_BYTES_MAX,
                    chunk_bytes: Options::default().chunk_bytes,
                },
                threads: Threads(pool.threads()),
                memory_bytes: AtomicU64::new(u64::MAX),
                readers: Mutex::default(),
                visible: Box::new(move || shown.load(Ordering::Acquire)),
                told: Box::new(move || told.load(Ordering::Acquire)),
                _pin: Some(pin),
            });
            let mut board = BoardReader::new(disk.path(VARIABLES).unwrap_or_default(), database);
            board.own = Arc::downgrade(view.base());
            let mut reader = Reader {
                view,
                seq,
                follower,
                is_sound: true,
                manifest: (number, manifest.seq),
                newest,
                next_file: restored.next_file,
                replayed: (0, 0),
                recovery: None,
                damaged: [passed_over, manifest.damaged].concat(),
                unread: BTreeMap::new(),
                shared_damage: None,
                spares,
                threads,
                board: Arc::new(Mutex::new(board)),
            };
            let followed = reader.follow(0);
            return match (followed, rejected) {
                // The log does not stand in for the newer one.
                (Ok(_), Some(error)) if reader.seq() < stored => Err(error),
                (Err(OpenError::Corrupt { .. } | OpenError::Log(WalError::Corrupt { .. })), Some(error)) => {
                    Err(error)
                }
                (Err(error), _) => Err(error),
                (Ok(_), _) => Ok(reader),
            };
        }
        Err(rejected.unwrap_or(OpenError::NotFound { dir }))
    }

    /// Applies what is durable behind what is shown, and shows it; answers what the first `most` transactions of it did.
    fn follow(&mut self, most: usize) -> Result<Vec<LogRecord>, OpenError> {
        self.is_sound = false;
        let base = self.view.base().clone();
        let dir = base.disk.describe();
        let (next_file, replayed) = (&mut self.next_file, &mut self.replayed);
        let (unread, mut records) = (&mut self.unread, Vec::new());
        let (newest_known, spares) = (self.newest, self.spares);
        let is_replaced =
            || manifest_numbers(&*base.disk).map(|n| n.last().is_some_and(|newest| *newest > newest_known));
        let mut apply = |seq: u64, payload: &[u8]| {
            let oldest = base.oldest_reader();
            if records.len() < most {
                records.push(describe(seq, payload));
            }
            let done = {
                let mut state = base.state();
                let open = |series: &str, reference: &_| match spares {
                    true => match open_or_spare(&base.disk, base.database, series, reference)? {
                        // A checkpoint may have merged it.
                        Err(gone @ StorageError::Missing { .. }) if is_replaced()? => Err(gone.into()),
                        opened => Ok(opened),
                    },
                    false => open_segment(&base.disk, base.database, series, reference).map(Ok),
                };
                replay(open, &base.objects, &mut state, next_file, (seq, oldest), payload)
            };
            // A chunk file is named by no manifest yet that is pinned here, so it is mapped while it is there.
            for chunk in done.map_err(|error| error.named(&dir))?.chunks {
                match base.objects.lend(&chunk) {
                    Ok(_) => {}
                    // Where no checkpoint took it away it is lost, which is for those to know who want what lies there.
                    Err(error @ ReadError::Storage(_)) => {
                        if is_replaced()? {
                            return Err(OpenError::Overtaken { dir: dir.clone() });
                        }
                        unread.insert(chunk, error.to_string());
                    }
                    Err(other) => {
                        return Err(OpenError::Corrupt { dir: dir.clone(), what: other.to_string() });
                    }
                }
            }
            replayed.0 += 1;
            replayed.1 += payload.len() as u64;
            Ok(())
        };
        let Durable { told, shared_damage, .. } =
            durable::read(&base.disk, base.database, &mut self.follower, self.manifest, &mut apply)?;
        // What a later transaction stored anew is damaged no more.
        self.unread.retain(|id, _| base.objects.lend(id).is_err());
        let head = base.state().head;
        self.recovery = told.and_then(|told| told.report);
        self.shared_damage = shared_damage;
        self.seq.store(head, Ordering::Release);
        self.is_sound = true;
        Ok(records)
    }
}

/// Processes but this one that read the database, each with the manifest that it pins.
pub(crate) fn attached(disk: &SharedDisk) -> Result<Vec<(u32, u64)>, StorageError> {
    let mut attached = Vec::new();
    for number in manifest_numbers(&**disk)? {
        let holders = disk.holders(&manifest_name(number)).into_iter();
        attached.extend(holders.filter(|pid| *pid != std::process::id()).map(|pid| (pid, number)));
    }
    attached.sort_unstable();
    Ok(attached)
}
