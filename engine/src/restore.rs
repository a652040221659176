//! The state that a manifest and the log behind it describe.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use underbelly_storage::Timestamp;
use underbelly_storage::disk::SharedDisk;
use underbelly_storage::error::StorageError;
use underbelly_storage::object::{ObjectId, Pack};
use underbelly_storage::segment::{Segment, SegmentInfo};
use underbelly_wal::WalError;

use crate::backlog::Load;
use crate::error::OpenError;
use crate::files;
use crate::graph::Graph;
use crate::image::{self, Layer};
use crate::limits::FILE_NUMBER_MAX;
use crate::models::Models;
use crate::objects::{ChunkFile, Names, Objects, PackFile, Place};
use crate::operations::{Operations, PutModel};
use crate::pool::Pool;
use crate::record::{self, v1};
use crate::series::{SegmentRun, Table};
use crate::state::State;

/// Where a restored state comes from.
pub(crate) struct Restored {
    pub state: State,
    pub objects: Objects,
    /// The state image, base first.
    pub layers: Vec<Arc<Layer>>,
    /// The number of the next new file, as far as is known.
    pub next_file: u64,
    /// Files that replayed transactions name, with their seqs.
    pub logged: Vec<(u64, u64)>,
    /// Objects that were found at later places, and where they were before.
    pub replaced: Vec<(ObjectId, Place)>,
    /// What was replayed.
    pub load: Load,
    pub phases: Phases,
}

/// Where the time of an opening went, and what it read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Phases {
    /// Opening segments, packs and chunk files: their indexes, not what they hold.
    pub files: Duration,
    /// Reading the state image, cells and models.
    pub image: Duration,
    /// Deriving what follows from the image, and beside it finding the objects that cells and models name.
    pub objects: Duration,
    /// Reading the log and applying what it holds.
    pub log: Duration,
    /// Bytes of manifests, state images, indexes of packs, and log that were read.
    pub bytes_read: u64,
}

/// Why a database could not be restored; becomes an [`OpenError`] when the folder is named.
pub(crate) enum RestoreError {
    Contradiction(String),
    Storage(StorageError),
    Log(WalError),
}

impl RestoreError {
    pub(crate) fn named(self, dir: &str) -> OpenError {
        match self {
            RestoreError::Contradiction(what) => OpenError::Corrupt { dir: dir.to_string(), what },
            RestoreError::Storage(error) => error.into(),
            RestoreError::Log(error) => error.into(),
        }
    }

    /// Whether it says that something is damaged or gone, and not that it could not be read.
    pub(crate) fn is_damage(&self) -> bool {
        let unread = match self {
            RestoreError::Storage(error) => error.may_be_sound(),
            RestoreError::Log(error) => {
                matches!(error, WalError::Io { .. } | WalError::DiskFull { .. } | WalError::Version { .. })
            }
            _ => false,
        };
        !unread
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

pub(crate) fn open_segment(
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

/// The same, or what is wrong with the file: who only reads goes on without it.
pub(crate) fn open_or_spare(
    disk: &SharedDisk,
    database: [u8; 16],
    series: &str,
    reference: &v1::SegmentRef,
) -> Result<Result<Segment, StorageError>, RestoreError> {
    use StorageError::{Corrupt, ForeignDatabase, Missing};
    match open_segment(disk, database, series, reference) {
        Err(RestoreError::Storage(error @ (Corrupt { .. } | Missing { .. } | ForeignDatabase { .. }))) => {
            Ok(Err(error))
        }
        opened => opened.map(Ok),
    }
}

/// A segment that a manifest names; each of its rows has a seq, of its own or assigned to all.
fn restore_segment(
    series: &str,
    segment: Result<Segment, StorageError>,
    reference: &v1::SegmentRef,
    manifest_seq: u64,
) -> Result<Arc<SegmentRun>, RestoreError> {
    let Ok(segment) = segment else {
        return Ok(Arc::new(SegmentRun::of(segment, reference.clone(), manifest_seq)));
    };
    if reference.seq == 0 && !segment.has_seqs() {
        let name = files::segment(series, reference.file);
        return Err(format!("{name} holds no seqs and none is assigned to it").into());
    }
    Ok(Arc::new(SegmentRun::new(segment, reference.clone())))
}

/// The state that a manifest describes, with `objects` that are empty yet. Nothing is changed on the disk. Where it `spares`
/// segments, one that is damaged is left to who reads it.
pub(crate) fn restore(
    disk: &SharedDisk,
    database: [u8; 16],
    manifest: &v1::Manifest,
    objects: Objects,
    pool: &Pool,
    spares: bool,
) -> Result<Restored, RestoreError> {
    let mut restored = Restored {
        state: State::new(),
        objects,
        layers: Vec::new(),
        next_file: manifest.next_file,
        logged: Vec::new(),
        replaced: Vec::new(),
        load: Load::default(),
        phases: Phases::default(),
    };
    restored.state.head = manifest.seq;
    restored.state.next_run = manifest.next_run;
    if manifest.seq > 0 {
        restored.state.time = Timestamp(manifest.time);
    }
    let began = Instant::now();
    let packs = restored.open_files(disk, database, manifest, pool, spares)?;
    restored.phases.files = began.elapsed();
    let began = Instant::now();
    for reference in &manifest.images {
        restored.layers.push(Arc::new(Layer::open(&**disk, database, reference)?));
        restored.phases.bytes_read += reference.bytes;
    }
    let mut taken = image::read(&restored.layers, pool)?;
    restored.phases.image = began.elapsed();
    let began = Instant::now();
    restored.state.variables = taken.take_variables()?;
    let (names, versions) = (std::mem::take(&mut taken.names), std::mem::take(&mut taken.models));
    let marks = std::mem::take(&mut taken.marks);
    let add_objects = || {
        let replaced = restored.add_objects(manifest, &packs, &names, pool)?;
        Ok::<_, RestoreError>((replaced, Models::restored(versions, marks)))
    };
    // A repair may have found no image.
    let make_graph = || if manifest.images.is_empty() { Ok(Graph::new()) } else { taken.finish() };
    let (graph, models) = pool.join(make_graph, add_objects);
    restored.state.graph = graph?;
    (restored.replaced, restored.state.models) = models?;
    restored.phases.objects = began.elapsed();
    Ok(restored)
}

impl Restored {
    fn open_files(
        &mut self,
        disk: &SharedDisk,
        database: [u8; 16],
        manifest: &v1::Manifest,
        pool: &Pool,
        spares: bool,
    ) -> Result<Vec<Arc<PackFile>>, RestoreError> {
        if manifest.cleared.iter().any(|cleared| cleared.seq > manifest.seq) {
            return Err("the manifest tells of later deletes than its own".to_string().into());
        }
        let cleared: HashMap<u64, u64> = manifest.cleared.iter().map(|c| (c.file, c.seq)).collect();
        for series in &manifest.series {
            let segments = pool.map(series.segments.iter().collect(), |reference| {
                let segment = match spares {
                    true => open_or_spare(disk, database, &series.name, reference)?,
                    false => Ok(open_segment(disk, database, &series.name, reference)?),
                };
                restore_segment(&series.name, segment, reference, manifest.seq)
            })?;
            for segment in &segments {
                segment.clear(cleared.get(&segment.reference().file).copied().unwrap_or(0));
            }
            let table = Table::restored(series, segments)?;
            self.state.tables.insert(series.name.as_str().into(), table);
        }
        let packs = pool.map(manifest.packs.clone(), |file| {
            Ok::<_, RestoreError>(PackFile::new(file, Pack::open(&**disk, &files::pack(file), database)?))
        })?;
        self.phases.bytes_read += packs.iter().map(|pack| pack.pack.directory_bytes()).sum::<u64>();
        Ok(packs.into_iter().map(Arc::new).collect())
    }

    /// Stores where objects are, and counts what names them. Answers which were elsewhere before.
    fn add_objects(
        &self,
        manifest: &v1::Manifest,
        packs: &[Arc<PackFile>],
        names: &Names,
        pool: &Pool,
    ) -> Result<Vec<(ObjectId, Place)>, RestoreError> {
        self.objects.add_packs(packs, pool);
        let mut replaced = Vec::new();
        let mut files: HashMap<u64, Arc<ChunkFile>> = HashMap::new();
        for chunk in &manifest.chunks {
            let file = files.entry(chunk.file).or_insert_with(|| Arc::new(ChunkFile::new(chunk.file)));
            let place = Place::Chunk(file.clone(), chunk.bytes);
            let (id, before) = (ObjectId(chunk.id), self.objects.insert(ObjectId(chunk.id), place));
            replaced.extend(before.map(|before| (id, before)));
        }
        let missing = |id| format!("the state image names object {id}, which is not stored");
        self.objects.name_all(names, pool).map_err(missing)?;
        Ok(replaced)
    }

    /// Applies one record of the log while nobody reads.
    pub(crate) fn replay(
        &mut self,
        disk: &SharedDisk,
        database: [u8; 16],
        seq: u64,
        payload: &[u8],
    ) -> Result<(), RestoreError> {
        let Restored { state, objects, next_file, logged, replaced, load, .. } = self;
        let open = |series: &str, reference: &_| open_segment(disk, database, series, reference).map(Ok);
        let replayed = replay(open, objects, state, next_file, (seq, seq), payload)?;
        replaced.extend(replayed.replaced);
        logged.extend(replayed.files.into_iter().map(|file| (file, seq)));
        load.add(&replayed.load);
        Ok(())
    }
}

/// What a replayed record holds.
pub(crate) struct Replayed {
    pub load: Load,
    /// Numbers of the files that it names.
    pub files: Vec<u64>,
    /// Objects that it names in chunk files.
    pub chunks: Vec<ObjectId>,
    /// Objects that were elsewhere before.
    pub replaced: Vec<(ObjectId, Place)>,
}

/// Applies one record of the log. `seqs` are the record's and that of the oldest reader, who may need versions of
/// cells that it replaces; `open` opens segments.
pub(crate) fn replay(
    mut open: impl FnMut(&str, &v1::SegmentRef) -> Result<Result<Segment, StorageError>, RestoreError>,
    objects: &Objects,
    state: &mut State,
    next_file: &mut u64,
    (seq, oldest_seq): (u64, u64),
    payload: &[u8],
) -> Result<Replayed, RestoreError> {
    let at = |what: String| format!("the log's transaction {seq} cannot be applied: {what}");
    if seq != state.head + 1 {
        return Err(at(format!("it does not follow {}", state.head)).into());
    }
    let (time, record) = record::decode(payload).map_err(at)?;
    let mut newest = *next_file;
    let mut operations = Operations::from_record::<RestoreError>(record, |series, reference| {
        newest = newest.max(reference.file.saturating_add(1));
        open(series, reference)
    })?;
    let (mut chunks, mut replaced) = (Vec::new(), Vec::new());
    for (id, place) in &operations.objects {
        if let Place::Chunk(chunk, _) = place {
            chunks.push(*id);
            newest = newest.max(chunk.file.saturating_add(1));
        }
        replaced.extend(objects.insert(*id, place.clone()).map(|before| (*id, before)));
    }
    if newest > FILE_NUMBER_MAX {
        return Err(at("it names a file of a number that no database comes to".to_string()).into());
    }
    *next_file = newest;
    let models = operations.models.iter().flat_map(PutModel::objects);
    for id in operations.contents().map(ObjectId).chain(models) {
        if !objects.is_known(&id) {
            return Err(at(format!("it names object {id}, which is not stored")).into());
        }
    }
    state.check(&operations).map_err(|error| at(error.to_string()))?;
    let (load, files) = (operations.load(payload.len() as u64), operations.files());
    state.apply(seq, time, &mut operations, || oldest_seq, objects).map_err(|error| at(error.to_string()))?;
    Ok(Replayed { load, files, chunks, replaced })
}
