//! Making and opening a database.
//!
//! Opening reads the newest manifest, its image and the index of each file that it names, then every transaction
//! that the log holds behind it, and unlinks what nothing names. The rows and objects are not read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use underbelly_query::{Schema, SchemaColumn};
use underbelly_storage::Timestamp;
use underbelly_storage::disk::SharedDisk;
use underbelly_storage::error::StorageError;
use underbelly_storage::framed::read_framed;
use underbelly_storage::manifest::{newest_manifest, write_manifest};
use underbelly_storage::object::{ObjectId, Pack};
use underbelly_storage::sealed::remove_leftovers;
use underbelly_storage::segment::{Segment, SegmentInfo};
use underbelly_wal::{GroupCommit, Log, LogOptions, Recovery, WalError};

use crate::checkpoint::{IMAGE_MAGIC, all_files, named_files, remove_files};
use crate::core::{Chore, Core};
use crate::error::OpenError;
use crate::files;
use crate::graph::{CellId, Event, Graph};
use crate::limits::{IMAGE_BYTES_MAX, QUEUE_BYTES_MAX};
use crate::models::{Metadata, Version};
use crate::objects::{ChunkFile, Objects, PackFile, Place};
use crate::operations::Operations;
use crate::options::Options;
use crate::pending::Pending;
use crate::record::{self, from_archive, to_archive, v1};
use crate::series::{SegmentRun, Table};
use crate::signals::Signals;
use crate::state::{CellVersion, State};

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
    /// Newer manifests that were not valid, with what was wrong.
    pub rejected_manifests: Vec<String>,
    /// Files that nothing named and that were removed.
    pub removed_files: usize,
    /// How long opening took.
    pub took: Duration,
}

/// A core, and where its workers and its maintenance thread listen.
pub(crate) struct Opened {
    pub core: Arc<Core>,
    pub doorbell: Receiver<()>,
    pub maintenance: Receiver<Chore>,
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
    if options.workers == 0 || options.workers > 1024 {
        return Err(OpenError::Option {
            option: "workers",
            value: options.workers.to_string(),
            remedy: "use 1 to 1,024 threads",
        });
    }
    let mut log = LogOptions::with_file_len(options.log_file_bytes);
    log.queue_bytes_max = QUEUE_BYTES_MAX as u64;
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
        action: "cannot lock",
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
    let manifest = v1::Manifest {
        next_file: 1,
        next_run: 1,
        log_file_bytes: options.log_file_bytes,
        ..v1::Manifest::default()
    };
    let payload = to_archive(&manifest).map_err(|what| OpenError::Corrupt { dir: dir.clone(), what })?;
    write_manifest(&**disk, 1, database, &payload)?;
    Ok(())
}

/// Opens a database for writing.
pub(crate) fn open(disk: SharedDisk, mut options: Options) -> Result<Opened, OpenError> {
    let began = Instant::now();
    let dir = disk.describe();
    let corrupt = |what: String| OpenError::Corrupt { dir: dir.clone(), what };
    check(&options)?;
    // Before the lock, so that looking at a folder that holds no database leaves nothing in it. An error may come
    // from a manifest that its writer has just replaced; the look behind the lock decides.
    if let Ok(None) = newest_manifest(&*disk) {
        // An interrupted creation leaves the first log file and spares, and nothing that is sealed.
        let logs = disk.list(files::WAL_DIR).unwrap_or_default();
        let later = logs.iter().find(|name| name.ends_with(".wal") && *name != "0000000001.wal");
        let files = all_files(&*disk).unwrap_or_default();
        return match files.first().or(later) {
            Some(found) => Err(corrupt(format!("the manifest is missing, though {found} is there"))),
            None => Err(OpenError::NotFound { dir }),
        };
    }
    let lock = lock(&disk)?;
    let found = newest_manifest(&*disk)?.ok_or_else(|| OpenError::NotFound { dir: dir.clone() })?;
    let manifest: v1::Manifest = from_archive(&found.payload).map_err(corrupt)?;
    let database = found.db_id;
    options.log_file_bytes = manifest.log_file_bytes;
    let log_options = check(&options)?;

    let objects = Objects::new(disk.clone(), database);
    let mut state = restore(&disk, database, &manifest, &objects).map_err(|error| error.named(&dir))?;
    let mut next_file = manifest.next_file;
    let (mut replayed, mut replayed_bytes, mut replayed_operations) = (0, 0, 0);
    let (log, recovery) = Log::open::<OpenError>(
        disk.clone(),
        database,
        manifest.seq + 1,
        manifest.seq,
        log_options,
        &mut |seq, payload| {
            replayed += 1;
            replayed_bytes += payload.len() as u64;
            let count = replay(&disk, database, &objects, &mut state, &mut next_file, seq, payload)
                .map_err(|error| error.named(&dir))?;
            replayed_operations += count as u64;
            Ok(())
        },
    )?;

    let mut named = named_files(&manifest);
    for (name, table) in &state.tables {
        named.extend(table.sealed().iter().map(|run| files::segment(name, run.reference().file)));
    }
    named.extend(objects.all().into_iter().filter_map(|(_, place)| place.file_name()));
    let mut unnamed = all_files(&*disk)?;
    // A number is never used twice, not even that of a file that nothing names.
    let numbers = unnamed.iter().filter_map(|name| files::number(name));
    next_file = numbers.map(|n| n.saturating_add(1)).fold(next_file, u64::max);
    unnamed.retain(|name| !named.contains(name));
    remove_files(&*disk, &unnamed)?;
    remove_leftovers(&*disk, "")?;

    // The number of a manifest that was passed over is not given again.
    let entries = disk.list("").map_err(|source| StorageError::io("list", "", source))?;
    let numbers = entries.iter().filter_map(|name| name.strip_prefix("MANIFEST-")?.parse().ok());
    let newest_number = numbers.fold(found.number, u64::max);
    let report = RecoveryReport {
        manifest: found.number,
        checkpoint_seq: manifest.seq,
        replayed,
        last_seq: state.head,
        torn_tail: describe_torn(&recovery),
        rejected_manifests: found.rejected.iter().map(|(name, error)| format!("{name}: {error}")).collect(),
        removed_files: unnamed.len(),
        took: began.elapsed(),
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.workers)
        .thread_name(|number| format!("underbelly-pool-{number}"))
        .build()
        .map_err(|error| OpenError::Io {
            action: "cannot start threads for",
            dir: dir.clone(),
            source: std::io::Error::other(error),
        })?;
    let (ring, doorbell) = crossbeam_channel::bounded(options.workers);
    let (ask, maintenance): (Sender<Chore>, Receiver<Chore>) = crossbeam_channel::bounded(2);
    let signals = Arc::new(Signals::new(state.head, ring));
    let publisher = signals.clone();
    let record_bytes_max = log.options().record_max as usize;
    let log = GroupCommit::new(log, move |seq, publication| publisher.publish(seq, publication));
    let core = Arc::new(Core {
        disk,
        database,
        options,
        state: Mutex::new(state),
        objects,
        log,
        signals,
        closures: RwLock::new(BTreeMap::new()),
        report,
        next_file: AtomicU64::new(next_file),
        readers: Mutex::default(),
        pending: Pending::default(),
        checkpoint: Mutex::new(newest_number),
        uncheckpointed: (AtomicU64::new(replayed_bytes), AtomicU64::new(replayed_operations)),
        maintenance: Mutex::new(Some(ask)),
        record_bytes_max,
        folder: RwLock::new(Some(lock)),
        closed: AtomicBool::new(false),
        touched: AtomicBool::new(false),
        trouble: Mutex::default(),
        requested: Default::default(),
        pool,
    });
    // Replay closes sessions as live, so the event need not be durable before work goes on; and a full disk does not
    // keep anybody from reading.
    core.queue_event(Event::Reopen)?;
    Ok(Opened { core, doorbell, maintenance })
}

fn describe_torn(recovery: &Recovery) -> Option<String> {
    recovery.torn.as_ref().map(|torn| {
        format!(
            "{} at byte {}: {} bytes dropped, kept in {}",
            torn.file, torn.offset, torn.bytes, torn.kept_as
        )
    })
}

/// Why a database could not be restored; becomes an [`OpenError`] when the folder is named.
enum RestoreError {
    Contradiction(String),
    Storage(StorageError),
    Log(WalError),
}

impl RestoreError {
    fn named(self, dir: &str) -> OpenError {
        match self {
            RestoreError::Contradiction(what) => OpenError::Corrupt { dir: dir.to_string(), what },
            RestoreError::Storage(error) => error.into(),
            RestoreError::Log(error) => error.into(),
        }
    }
}

impl From<String> for RestoreError {
    fn from(what: String) -> RestoreError {
        RestoreError::Contradiction(what)
    }
}

impl From<StorageError> for RestoreError {
    fn from(error: StorageError) -> RestoreError {
        RestoreError::Storage(error)
    }
}

impl From<WalError> for RestoreError {
    fn from(error: WalError) -> RestoreError {
        RestoreError::Log(error)
    }
}

fn open_segment(
    disk: &SharedDisk,
    database: [u8; 16],
    series: &str,
    reference: &v1::SegmentRef,
) -> Result<Segment, RestoreError> {
    let name = files::segment(series, reference.file);
    let expected = SegmentInfo {
        file: name.clone(),
        bytes: reference.bytes,
        rows: reference.rows,
        ts_min: reference.ts_min,
        ts_max: reference.ts_max,
        footer_hash: reference.footer_hash,
    };
    Ok(Segment::open(&**disk, &name, database, Some(&expected))?)
}

/// A segment that a manifest names; each of its rows has a seq, of its own or assigned to all.
fn restore_segment(
    disk: &SharedDisk,
    database: [u8; 16],
    series: &str,
    reference: &v1::SegmentRef,
) -> Result<Arc<SegmentRun>, RestoreError> {
    let segment = open_segment(disk, database, series, reference)?;
    if reference.seq == 0 && !segment.has_seqs() {
        let name = files::segment(series, reference.file);
        return Err(format!("{name} holds no seqs and none is assigned to it").into());
    }
    Ok(Arc::new(SegmentRun::new(segment, reference.clone())))
}

/// The state that a manifest and its image describe.
fn restore(
    disk: &SharedDisk,
    database: [u8; 16],
    manifest: &v1::Manifest,
    objects: &Objects,
) -> Result<State, RestoreError> {
    let mut state = State::new();
    state.head = manifest.seq;
    state.next_run = manifest.next_run;
    if manifest.image == 0 {
        return Ok(state);
    }
    state.time = Timestamp(manifest.time);
    for series in &manifest.series {
        let mut columns = Vec::new();
        for column in &series.columns {
            let column_type = column.known_type()?;
            columns.push(SchemaColumn { name: column.name.as_str().into(), column_type, key: column.key });
        }
        let segments =
            series.segments.iter().map(|reference| restore_segment(disk, database, &series.name, reference));
        let table = Table::restored(Schema { columns }, segments.collect::<Result<_, _>>()?, series.last_seq);
        state.tables.insert(series.name.as_str().into(), table);
    }
    for file in &manifest.packs {
        let pack =
            Arc::new(PackFile { file: *file, pack: Pack::open(&**disk, &files::pack(*file), database)? });
        for id in pack.pack.ids() {
            objects.insert(id, Place::Pack(pack.clone()));
        }
    }
    for chunk in &manifest.chunks {
        objects.insert(ObjectId(chunk.id), Place::Chunk(Arc::new(ChunkFile::new(chunk.file, chunk.bytes))));
    }
    let name = files::image(manifest.image);
    let framed = read_framed(&**disk, &name, IMAGE_MAGIC, Some(database), IMAGE_BYTES_MAX)?;
    let image: v1::Image = from_archive(&framed.payload).map_err(|what| format!("{name}: {what}"))?;
    state.graph = Graph::from_image(&image.graph).map_err(|error| format!("{name}: {error}"))?;
    let known = |id: ObjectId| match objects.contains(&id) {
        true => Ok(id),
        false => Err(format!("{name} names object {id}, which is not stored")),
    };
    for cell in &image.cells {
        if state.graph.cell_info(CellId(cell.cell)).is_none() {
            return Err(format!("{name} holds contents of cell {}, which there is not", cell.cell).into());
        }
        let content = if cell.content == [0; 32] { None } else { Some(known(ObjectId(cell.content))?) };
        let at = cell.cell as usize;
        if state.cells.len() <= at {
            state.cells.resize_with(at + 1, Vec::new);
        }
        state.cells[at] = vec![CellVersion { seq: cell.seq, g: cell.g, content }];
    }
    for version in image.models {
        let describe = |error: crate::models::MetadataError| format!("{name}: {error}");
        let metadata = Metadata::from_cbor(&version.model.metadata).map_err(describe)?;
        let (id, timestamp) = (metadata.id().map_err(describe)?, metadata.timestamp().map_err(describe)?);
        let object = known(ObjectId(version.model.object))?;
        let metadata = Arc::new(metadata);
        let bytes = version.model.bytes;
        let cbor = version.model.metadata.into();
        state.models.push(id, Version { seq: version.seq, metadata, cbor, timestamp, object, bytes });
    }
    Ok(state)
}

/// Applies one record of the log; answers how many operations it holds.
fn replay(
    disk: &SharedDisk,
    database: [u8; 16],
    objects: &Objects,
    state: &mut State,
    next_file: &mut u64,
    seq: u64,
    payload: &[u8],
) -> Result<usize, RestoreError> {
    let at = |what: String| format!("the log's transaction {seq} cannot be applied: {what}");
    if seq != state.head + 1 {
        return Err(at(format!("it does not follow {}", state.head)).into());
    }
    let (time, record) = record::decode(payload).map_err(at)?;
    let mut newest = *next_file;
    let operations = Operations::from_record::<RestoreError>(record, |series, reference| {
        newest = newest.max(reference.file.saturating_add(1));
        open_segment(disk, database, series, reference)
    })?;
    for (id, place) in &operations.objects {
        if let Place::Chunk(chunk) = place {
            newest = newest.max(chunk.file.saturating_add(1));
        }
        objects.insert(*id, place.clone());
    }
    *next_file = newest;
    let named = operations.contents().map(ObjectId).chain(operations.models.iter().map(|put| put.object));
    for id in named {
        if !objects.contains(&id) {
            return Err(at(format!("it names object {id}, which is not stored")).into());
        }
    }
    state.check(&operations).map_err(|error| at(error.to_string()))?;
    let count = operations.count();
    // Nobody reads yet, so no older version of a cell is needed.
    state.apply(seq, time, operations, seq).map_err(|error| at(error.to_string()))?;
    Ok(count)
}
