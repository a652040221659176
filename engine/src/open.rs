//! Making and opening a database.
//!
//! Opening reads the newest sound manifest, its image and the index of each file that it names, then every transaction
//! that the log holds behind it, and unlinks what nothing names. The rows and objects are not read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use crossbeam_utils::sync::ShardedLock;
use underbelly_storage::disk::{Disk, SharedDisk};
use underbelly_storage::error::StorageError;
use underbelly_storage::limits::{CHUNK_PACKED_BYTES_MAX, PAGE_BYTES};
use underbelly_storage::manifest::{
    is_manifest, manifest_name, manifest_numbers, newest_manifest, remove_manifests_except,
};
use underbelly_storage::sealed::remove_leftovers;
use underbelly_storage::segment::Segment;
use underbelly_wal::{GroupCommit, Log, LogOptions, Recovery, gap_behind};

use crate::backlog::Backlog;
use crate::checkpoint::{
    Chain, Manifest, Rebase, all_files, kept_files, kept_manifests, remove_files, reserve,
};
use crate::core::{Chore, Core};
use crate::error::OpenError;
use crate::files;
use crate::graph::Event;
use crate::journal::beyond;
use crate::limits::{DUTIES_MAX, INLINE_BYTES_MAX, QUEUE_BYTES_MAX};
use crate::manifest::{self, Stored};
use crate::objects::Objects;
use crate::options::Options;
use crate::parking::Bell;
use crate::pending::Pending;
use crate::pool::{Pool, Threads};
use crate::record::v1;
use crate::restore::{Phases, RestoreError, Restored, restore};
use crate::scribe::Duty;
use crate::series::Gates;
use crate::shared::{self, Notice, SHARED};
use crate::signals::Signals;
use crate::variables::{Registry, VARIABLES};
use crate::view::{Base, BlobLimits, View};

/// What opening found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// The manifest that was read.
    pub manifest: u64,
    /// The last transaction in it.
    pub checkpoint_seq: u64,
    /// Transactions that the log held behind it.
    pub replayed: u64,
    /// The last transaction of all.
    pub last_seq: u64,
    /// A write that was cut short behind the last transaction: nothing that was acknowledged. The text names the
    /// file, the place and where its bytes were kept.
    pub torn_tail: Option<String>,
    /// Damage in a part of the log that the manifest holds, or a file of it that is missing: nothing is lost by it, but opening could not fall back to the
    /// manifest before. The text names the file and the place. Look after the disk; checkpoints let go of the file
    /// once it is full.
    pub log_damage: Option<String>,
    /// What was wrong with `SHARED`, which was made anew. What the last writer had published in it is not known, so that a
    /// loss of the log's end would not have been noticed.
    pub shared_damage: Option<String>,
    /// Newer manifests that were passed over because they, or files that they name, are damaged or gone, newest first,
    /// with what was wrong. What they held came from this manifest and the log behind it, so nothing is lost; but a
    /// second damage of the kind may lose something, so look after the disk and make a checkpoint.
    pub rejected_manifests: Vec<String>,
    /// Files that nothing named and that were removed.
    pub removed_files: usize,
    /// Where the time went.
    pub phases: Phases,
    /// How long opening took.
    pub took: Duration,
}

/// A core, and where its workers and its maintenance thread listen.
pub(crate) struct Opened {
    pub core: Arc<Core>,
    pub maintenance: Receiver<Chore>,
    pub duties: Receiver<Duty>,
    pub alarm: Receiver<()>,
}

fn check(options: &Options) -> Result<LogOptions, OpenError> {
    if !options.log_file_bytes.is_multiple_of(4096) || !(16 << 10..=1 << 30).contains(&options.log_file_bytes)
    {
        return Err(OpenError::Option {
            option: "log_file_bytes",
            value: options.log_file_bytes.to_string(),
            remedy: "use a multiple of 4,096 from 16 KiB to 1 GiB",
        });
    }
    if options.workers > 1024 {
        return Err(OpenError::Option {
            option: "workers",
            value: options.workers.to_string(),
            remedy: "use 1 to 1,024 threads, or 0 to drive the database yourself",
        });
    }
    let is_whole = options.chunk_bytes > 0 && options.chunk_bytes.is_multiple_of(PAGE_BYTES);
    if !is_whole || options.chunk_bytes > CHUNK_PACKED_BYTES_MAX {
        return Err(OpenError::Option {
            option: "chunk_bytes",
            value: options.chunk_bytes.to_string(),
            remedy: "use a multiple of 4,096 from 4 KiB to 16 MiB",
        });
    }
    let mut log = LogOptions::with_file_len(options.log_file_bytes);
    log.queue_bytes_max = QUEUE_BYTES_MAX as u64;
    log.flush_bytes = options.buffered_bytes;
    Ok(log)
}

/// A number that no other database has: the process's random hash keys over time and process.
fn new_database_id() -> [u8; 16] {
    use std::hash::{BuildHasher, Hasher};
    let half = |half: u8| {
        let mut hasher = std::hash::RandomState::new().build_hasher();
        hasher.write_u8(half);
        hasher.write_u32(std::process::id());
        hasher.write_u128(std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos());
        hasher.finish().to_le_bytes()
    };
    let mut id = [0; 16];
    id[..8].copy_from_slice(&half(0));
    id[8..].copy_from_slice(&half(1));
    id
}

fn lock(disk: &SharedDisk) -> Result<Box<dyn underbelly_storage::disk::Lock>, OpenError> {
    let dir = disk.describe();
    let locked = disk.lock(files::LOCK).map_err(|source| OpenError::Io {
        action: "cannot take LOCK of",
        dir: dir.clone(),
        source,
    })?;
    locked.map_err(|pid| OpenError::Locked { dir, pid })
}

/// Makes an empty database. The manifest is written last: without it the folder is no database.
pub(crate) fn create(disk: &SharedDisk, options: &Options) -> Result<(), OpenError> {
    let log_options = check(options)?;
    let dir = disk.describe();
    let io = |action| {
        let dir = dir.clone();
        move |source| OpenError::Io { action, dir, source }
    };
    disk.create_dir("").map_err(io("cannot make folder"))?;
    // What an interrupted creation leaves; anything else is somebody's, and nothing is put beside it.
    let ours = [
        files::LOCK,
        SHARED,
        files::WAL_DIR,
        files::SEGMENTS_DIR,
        files::PACKS_DIR,
        files::CHUNKS_DIR,
        files::IMAGES_DIR,
        "MANIFEST-0000000001.tmp",
    ];
    let check_empty = || {
        if newest_manifest(&**disk)?.is_some() {
            return Err(OpenError::Exists { dir: dir.clone() });
        }
        let entries = disk.list("").map_err(io("cannot list"))?;
        let stored = all_files(&**disk)?;
        match entries.into_iter().filter(|entry| !ours.contains(&entry.as_str())).chain(stored).next() {
            Some(found) => Err(OpenError::NotEmpty { dir: dir.clone(), found }),
            None => Ok(()),
        }
    };
    check_empty()?;
    let _lock = lock(disk)?;
    check_empty()?;
    let database = new_database_id();
    // It takes the place of an empty log, and of nothing else.
    Log::create(disk.clone(), database, 1, log_options)?;
    for dir in [files::SEGMENTS_DIR, files::PACKS_DIR, files::CHUNKS_DIR, files::IMAGES_DIR] {
        disk.create_dir(dir).map_err(io("cannot make a folder in"))?;
    }
    // Its own writer finds it there, on a full disk too.
    Notice::begin(&**disk, database, 0, &RecoveryReport::default())?;
    let manifest = v1::Manifest {
        next_file: 1,
        next_run: 1,
        log_file_bytes: options.log_file_bytes,
        ..v1::Manifest::default()
    };
    manifest::write(&**disk, 1, database, &manifest)?;
    Ok(())
}

/// Refuses a copy that is not finished, whatever is there of it already. Where the folder cannot be listed, the look at
/// manifests says so.
pub(crate) fn check_finished(disk: &dyn Disk) -> Result<(), OpenError> {
    let names = disk.list("").unwrap_or_default();
    match names.iter().any(|name| name == files::UNFINISHED) {
        true => Err(OpenError::Unfinished { dir: disk.describe() }),
        false => Ok(()),
    }
}

/// What it means that a folder has no manifest.
pub(crate) fn no_manifest(disk: &SharedDisk) -> OpenError {
    let dir = disk.describe();
    // An interrupted creation leaves the first log file and spares, and nothing that is sealed.
    let logs = disk.list(files::WAL_DIR).unwrap_or_default();
    let later = logs.iter().find(|name| name.ends_with(".wal") && *name != "0000000001.wal");
    let files = all_files(&**disk).unwrap_or_default();
    match files.first().or(later) {
        Some(found) => {
            let what = format!("the manifest is missing, though {found} is there");
            OpenError::Corrupt { dir, what }
        }
        None => OpenError::NotFound { dir },
    }
}

/// Opens a database for writing.
pub(crate) fn open(disk: SharedDisk, mut options: Options) -> Result<Opened, OpenError> {
    let began = options.clock.instant();
    let dir = disk.describe();
    let corrupt = |what: String| OpenError::Corrupt { dir: dir.clone(), what };
    check(&options)?;
    check_finished(&*disk)?;
    // Before the lock, so that looking at a folder that holds no database leaves nothing in it. An error may come
    // from a manifest that its writer has just replaced; the look behind the lock decides.
    if let Ok(None) = newest_manifest(&*disk) {
        return Err(no_manifest(&disk));
    }
    let lock = lock(&disk)?;
    let pool = Pool::new(options.workers).map_err(|source| OpenError::Io {
        action: "cannot start threads for",
        dir: dir.clone(),
        source,
    })?;
    let found = find(&disk, &pool)?;
    // A process that died may have renamed the manifest and not synced the folder. It must not vanish any more once what
    // builds on it is acknowledged, or what only the one before it names is removed.
    disk.sync_dir("").map_err(|source| StorageError::io("sync", &dir, source))?;
    let (database, manifest, mut restored) = (found.database, found.manifest, found.restored);
    options.log_file_bytes = manifest.log_file_bytes;
    let log_options = check(&options)?;
    // What was published since the machine was started was durable; a log that ends before lost it.
    let (published, shared_damage) = shared::published(&*disk, database)?;
    let durable = found.durable.max(published.unwrap_or(0));
    let replaying = options.clock.instant();
    let (log, recovery) = Log::open::<OpenError>(
        disk.clone(),
        database,
        manifest.log_start(),
        durable,
        log_options,
        &mut |seq, payload| restored.replay(&disk, database, seq, payload).map_err(|error| error.named(&dir)),
    )
    .map_err(|error| match found.rejected.first() {
        None => error,
        Some(rejected) => corrupt(format!(
            "{rejected}, and the log does not lead from manifest {} to the end: {}",
            found.number,
            error.brief()
        )),
    })?;
    let mut log_damage = recovery.passed_over.as_ref().map(ToString::to_string);
    // What an opening that falls back would read has to be there, too.
    if let Some((number, older)) = &found.previous
        && *number == manifest.previous
        && found.rejected.is_empty()
        && log_damage.is_none()
    {
        // What cannot be read is for who verifies: this opening does not need it.
        let gap = gap_behind(&disk, database, older.log_start().seq).ok().flatten();
        log_damage = gap.map(|gap| beyond(gap, *number));
    }
    let Restored { state, objects, layers, mut next_file, logged, replaced, load, mut phases } = restored;
    objects.list_unnamed();
    objects.note_replaced(replaced);
    phases.log = options.clock.instant().saturating_duration_since(replaying);
    phases.bytes_read += found.bytes + recovery.bytes;

    let mut unnamed = all_files(&*disk)?;
    // A number is never used twice, not even that of a file that nothing names.
    let numbers = unnamed.iter().filter_map(|name| files::number(name));
    next_file = numbers.map(|n| n.saturating_add(1)).fold(next_file, u64::max);
    // What is damaged is kept for people until the next checkpoint.
    if found.rejected.is_empty() && !found.is_older_damaged {
        let previous = found.previous.map(|(number, _)| number);
        remove_manifests_except(&*disk, &kept_manifests(found.number, previous))?;
    }
    let mut named = kept_files(&*disk)?;
    for (name, table) in &state.tables {
        let segments = table.sealed().iter().map(|run| files::segment(name, run.reference().file));
        segments.for_each(|name| named.insert(name));
    }
    objects.chunks().iter().for_each(|(chunk, _)| named.insert(files::chunk(chunk.file)));
    logged.iter().for_each(|(file, _)| named.insert_number(*file));
    unnamed.retain(|name| !named.contains(name));
    if !found.rejected.is_empty() {
        // What a damaged manifest names is kept for people until the next checkpoint.
        unnamed.clear();
    }
    remove_files(&*disk, &unnamed)?;
    remove_leftovers(&*disk, "", is_manifest)?;

    // The number of a manifest that was passed over is not given again.
    let last_number = manifest_numbers(&*disk)?.into_iter().fold(found.number, u64::max);
    let took = options.clock.instant().saturating_duration_since(began);
    let report = RecoveryReport {
        manifest: found.number,
        checkpoint_seq: manifest.seq,
        replayed: load.transactions,
        last_seq: state.head,
        torn_tail: describe_torn(&recovery),
        log_damage,
        shared_damage: shared_damage.map(|error| error.to_string()),
        rejected_manifests: found.rejected,
        removed_files: unnamed.len(),
        phases,
        took,
    };
    let backlog = Backlog::replayed(load, phases.log);
    let truth = Manifest { number: found.number, seq: manifest.seq };
    let doorbell = Bell::new(options.workers);
    let (ask, maintenance): (Sender<Chore>, Receiver<Chore>) = crossbeam_channel::bounded(1);
    let (asked, duties) = crossbeam_channel::bounded(DUTIES_MAX);
    let (wake, alarm) = crossbeam_channel::bounded(1);
    let trouble = Arc::new(Mutex::new(None));
    let registry = Registry::new(disk.path(VARIABLES), database, &state.variables, trouble.clone());
    let signals = Arc::new(Signals::new(state.head, doorbell, asked, wake, options.clock.clone(), registry));
    let record_bytes_max = log.options().record_max as usize;
    let log = GroupCommit::new(log, signals.clone());
    let notice = Notice::begin(&*disk, database, state.head, &report)?;
    // From the first opening on, so that what is deleted on a full disk comes back. The log and `SHARED` have their space already.
    if let Err(error) = reserve::hold(&*disk, 0, 0) {
        let what = format!("no reserve can be held for the next checkpoint: {error}");
        trouble.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
    }
    let noted = trouble.clone();
    signals.on_durable(move |seq| {
        if let Err(error) = notice.publish(seq) {
            let what = format!("other processes do not see commits from {seq} on: {SHARED}: {error}");
            *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
        }
    });
    let gates = Gates::default();
    if state.tables.values().any(|table| table.rules().checks_appends()) {
        gates.want();
    }
    let (published, told) = (signals.clone(), signals.clone());
    let view = View::new(Base {
        disk,
        database,
        state: Mutex::new(state),
        objects,
        attributes: Default::default(),
        index_models_min: if options.workers == 0 { usize::MAX } else { options.index_models_min },
        blob_limits: BlobLimits {
            small_max: INLINE_BYTES_MAX.min(record_bytes_max / 2),
            chunk_bytes: options.chunk_bytes,
        },
        threads: Threads(pool.threads()),
        memory_bytes: AtomicU64::new(options.memory_bytes.unwrap_or(u64::MAX)),
        readers: Mutex::default(),
        visible: Box::new(move || published.visible()),
        told: Box::new(move || told.told()),
        _pin: None,
    });
    let core = Arc::new(Core {
        view,
        options,
        log,
        signals,
        leases: Default::default(),
        #[cfg(feature = "processes")]
        servers: Default::default(),
        closures: RwLock::new(BTreeMap::new()),
        paces: Default::default(),
        hands: Default::default(),
        report,
        next_file: AtomicU64::new(next_file),
        gates,
        pending: Pending::default(),
        chain: Mutex::new(Chain { last_number, truth, layers, rebase: Rebase::default() }),
        backlog,
        wants_log: AtomicBool::new(false),
        retry_at: Mutex::default(),
        maintenance: Mutex::new(Some(ask)),
        record_bytes_max,
        folder: ShardedLock::new(Some(lock)),
        aside: Arc::default(),
        closed: AtomicBool::new(false),
        touched: AtomicBool::new(false),
        trouble,
        damaged: Mutex::new(manifest.damaged),
        requested: Default::default(),
        live: Default::default(),
        handed: Default::default(),
        pool,
    });
    logged.into_iter().for_each(|(file, seq)| core.pending.log(seq, &[file]));
    // Replay closes sessions as live, so the event need not be durable before work goes on; and a full disk does not
    // keep anybody from reading.
    core.queue_event(Event::Reopen)?;
    Ok(Opened { core, maintenance, duties, alarm })
}

/// The manifest to go on from, and what it describes.
struct Found {
    number: u64,
    database: [u8; 16],
    manifest: v1::Manifest,
    restored: Restored,
    /// A seq that is known to be durable.
    durable: u64,
    /// Newer manifests, with what is wrong with them or with files that they name.
    rejected: Vec<String>,
    /// Whether an older manifest is damaged.
    is_older_damaged: bool,
    /// The next older sound manifest, with its number.
    previous: Option<(u64, v1::Manifest)>,
    /// Bytes of manifests that were read.
    bytes: u64,
}

/// The newest manifest that is sound and whose files are. A damaged one is passed over for the next older; whether
/// the log reaches back to that is the log's to say. A disk that cannot be read, or a file of a newer program, is an
/// error at once: an older manifest would then hide data that is there.
fn find(disk: &SharedDisk, pool: &Pool) -> Result<Found, OpenError> {
    let dir = disk.describe();
    let (mut rejected, mut first_error) = (Vec::new(), None);
    let (mut durable, mut bytes) = (0, 0);
    let mut numbers: Vec<u64> = manifest_numbers(&**disk)?;
    while let Some(number) = numbers.pop() {
        let mut load = || {
            let found = Stored::read(&**disk, number)?;
            bytes += found.bytes;
            durable = durable.max(found.manifest.seq);
            let objects = Objects::new(disk.clone(), found.database);
            let restored = restore(disk, found.database, &found.manifest, objects, pool, false)?;
            Ok::<_, RestoreError>((found.database, restored, found.manifest))
        };
        match load() {
            Ok((database, restored, manifest)) => {
                let (mut older, mut is_older_damaged) = (None, false);
                // It says which one stands behind it; one between them was given up, and came back with a crash.
                if numbers.contains(&manifest.previous) {
                    numbers.retain(|number| *number <= manifest.previous);
                }
                while let Some(number) = numbers.pop() {
                    match older_manifest(disk, database, number) {
                        Ok(found) => {
                            older = Some((number, found));
                            break;
                        }
                        Err(error) if error.is_damage() => is_older_damaged = true,
                        Err(error) => return Err(error.named(&dir)),
                    }
                }
                let mut durable = durable.max(manifest.seq);
                if !rejected.is_empty() {
                    durable = durable.max(last_sealed(&**disk, database, manifest.next_file)?);
                }
                let previous = older;
                return Ok(Found {
                    number,
                    database,
                    manifest,
                    restored,
                    durable,
                    rejected,
                    is_older_damaged,
                    previous,
                    bytes,
                });
            }
            Err(error) => {
                let is_damage = error.is_damage();
                let error = error.named(&dir);
                if !is_damage {
                    return Err(error);
                }
                rejected.push(error.brief_of(&manifest_name(number)));
                first_error.get_or_insert(error);
            }
        }
    }
    Err(first_error.unwrap_or(OpenError::NotFound { dir }))
}

/// The last transaction of which a sound segment holds rows, among those from a number on; 0 where there is none. It was durable before
/// that was sealed.
pub(crate) fn last_sealed(disk: &dyn Disk, database: [u8; 16], from: u64) -> Result<u64, StorageError> {
    let mut last = 0;
    for name in all_files(disk)?.iter().filter(|name| name.starts_with(files::SEGMENTS_DIR)) {
        if files::number(name).is_none_or(|number| number < from) {
            continue;
        }
        let newest = || {
            let segment = Segment::open(disk, name, database, None)?;
            segment.verify()?;
            let mut newest = 0;
            for group in 0..segment.groups() {
                newest = segment.seqs(group)?.into_iter().flatten().fold(newest, u64::max);
            }
            Ok::<u64, StorageError>(newest)
        };
        match newest() {
            Ok(newest) => last = last.max(newest),
            // What is damaged says nothing; what cannot be read may say something.
            Err(error) if error.may_be_sound() => return Err(error),
            Err(_) => {}
        }
    }
    Ok(last)
}

/// A manifest before the one that is in force.
fn older_manifest(disk: &SharedDisk, database: [u8; 16], number: u64) -> Result<v1::Manifest, RestoreError> {
    let found = Stored::read(&**disk, number)?;
    if found.database != database {
        return Err(StorageError::ForeignDatabase { file: manifest_name(number) }.into());
    }
    Ok(found.manifest)
}

fn describe_torn(recovery: &Recovery) -> Option<String> {
    recovery.torn.as_ref().map(|torn| {
        format!(
            "{} at byte {}: {} bytes dropped, kept in {}",
            torn.file, torn.offset, torn.bytes, torn.kept_as
        )
    })
}
