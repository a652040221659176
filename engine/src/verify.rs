//! Reads everything that is stored and compares every checksum and what follows from it.
//!
//! First each file by itself: every manifest that is there, with its image, segments, packs and chunks, then the log.
//! Then what they say together: the state is restored as an opening would, and the contents of cells and the blobs of
//! models are read. Each step works whatever the step before found.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use underbelly_storage::disk::{Disk, Lock, RealDisk, SharedDisk, Unreadable, WornDisk};
use underbelly_storage::error::StorageError;
use underbelly_storage::manifest::{manifest_name, manifest_numbers};
use underbelly_storage::object::{Chunks, ObjectId, Pack};
use underbelly_wal::{Behind, WalError, owner};

use crate::database::Database;
use crate::error::OpenError;
use crate::files::{self, LOCK};
use crate::image::Layer;
use crate::journal::look_whole;
use crate::manifest::Stored;
use crate::models::Content;
use crate::objects::{LOST, Objects, Place};
use crate::open::{check_finished, no_manifest};
use crate::reader::{Reader, threads};
use crate::record::v1;
use crate::restore::open_segment;
use crate::shared::{self, SHARED};
use crate::slots::content;
use crate::view::View;

/// What was checked and what is wrong.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Files that were read: manifests, images, segments, packs, chunks, files of the log.
    pub files: usize,
    /// Bytes that were read and compared with a checksum.
    pub bytes: u64,
    /// Manifests: that of the last checkpoint, and those that are kept for a fallback or for readers.
    pub manifests: usize,
    /// State images.
    pub images: usize,
    /// Segments.
    pub segments: usize,
    /// Rows of all series, in segments and young.
    pub rows: u64,
    /// Packs.
    pub packs: usize,
    /// Chunk files.
    pub chunks: usize,
    /// Objects: contents of cells and blobs.
    pub objects: usize,
    /// Objects that an earlier repair did not find, and that are not damages any more.
    pub lost_objects: usize,
    /// Files of the log.
    pub log_files: usize,
    /// Batches in them.
    pub log_batches: usize,
    /// Records in the batches.
    pub log_records: u64,
    /// Slots of the graph.
    pub slots: usize,
    /// Producers of the graph.
    pub producers: usize,
    /// Contents of cells.
    pub cells: usize,
    /// Versions of models.
    pub models: usize,
    /// A batch at the end of the log that is being written or was cut short. Nobody was told of it.
    pub torn_tail: Option<String>,
    /// Each damage, naming the file and the place.
    pub damages: Vec<String>,
    /// What is not as it was written, and by which nothing is lost: nothing names what stood there, or it is stored elsewhere too.
    pub harmless: Vec<String>,
}

/// Damage to objects of a file, which is one where something names them there.
struct Suspect {
    file: u64,
    objects: Vec<ObjectId>,
    damage: StorageError,
}

/// What was read file by file.
#[derive(Default)]
struct Read {
    /// Numbers of segments and chunk files.
    files: BTreeSet<u64>,
    /// Numbers of packs and chunk files that a manifest before the newest names.
    older: BTreeSet<u64>,
    suspects: Vec<Suspect>,
}

/// The files that manifests name, and the manifests themselves, which are kept meanwhile.
#[derive(Default)]
struct Named {
    database: Option<[u8; 16]>,
    images: BTreeMap<u64, v1::Image>,
    segments: BTreeMap<String, (String, v1::SegmentRef)>,
    packs: BTreeSet<u64>,
    chunks: BTreeMap<u64, BTreeSet<ObjectId>>,
    /// Packs and chunk files of manifests before the newest.
    older: BTreeSet<u64>,
    pins: Vec<Box<dyn Lock>>,
}

/// Tells how many of how many bytes are read.
struct Progress<'a> {
    done: u64,
    total: u64,
    tell: &'a mut dyn FnMut(u64, u64),
}

impl Progress<'_> {
    fn add(&mut self, bytes: u64) {
        self.done = (self.done + bytes).min(self.total);
        (self.tell)(self.done, self.total);
    }
}

impl Read {
    /// Notes what is wrong with a file of objects.
    fn suspect(&mut self, file: u64) -> impl FnMut(Option<ObjectId>, StorageError) {
        move |object, damage| {
            self.suspects.push(Suspect { file, objects: object.into_iter().collect(), damage })
        }
    }
}

impl VerifyReport {
    /// Adds what is suspected, by what the database needs; all of it where that is not known.
    fn judge(&mut self, read: Read, objects: Option<&Objects>) {
        for Suspect { file, objects: hurt, damage } in read.suspects {
            let is_needed = |objects: &Objects| hurt.iter().any(|id| objects.is_needed(id, file));
            match objects.is_none_or(is_needed) {
                true => self.damage(damage),
                false if read.older.contains(&file) => self
                    .harmless
                    .push(format!("{damage}; an opening that falls back to an older manifest may need it")),
                false => self.harmless.push(damage.to_string()),
            }
        }
    }

    fn damage(&mut self, what: impl ToString) {
        let what = what.to_string();
        // What an opening stumbles over was found before in its own file.
        if !self.damages.contains(&what) {
            self.damages.push(what);
        }
    }

    /// Adds the places that cannot be read; answers whether there are any.
    fn note_unreadable(&mut self, disk: &WornDisk) -> bool {
        let places = disk.unreadable();
        for Unreadable { file, offset, bytes, error } in &places {
            self.damage(format!("{file} cannot be read at byte {offset} ({bytes} bytes): {error}; `ubctl repair` saves the rest"));
        }
        !places.is_empty()
    }
}

impl VerifyReport {
    /// Adds why the database does not open, unless damage at that place is told.
    fn refusal(&mut self, error: OpenError) {
        let place = match &error {
            OpenError::Storage(StorageError::Corrupt { file, offset, .. }) => {
                format!("{file:?} is damaged at byte {offset}")
            }
            OpenError::Log(WalError::Corrupt { file, offset, .. }) => {
                format!("{file} is damaged at byte {offset},")
            }
            _ => return self.damage(error),
        };
        if !self.damages.iter().any(|damage| damage.starts_with(&place)) {
            self.damage(error);
        }
    }
}

impl Database {
    /// Reads every file and every object. `progress` is told how many of how many bytes are read. Commits and
    /// checkpoints go on meanwhile.
    ///
    /// # Errors
    /// [`OpenError::Storage`] where the folders of the database cannot be listed, or the system has too few handles or too little memory
    /// to read files. Damage is no error: the report names it.
    pub fn verify(&self, mut progress: impl FnMut(u64, u64)) -> Result<VerifyReport, OpenError> {
        // Nothing is unlinked.
        let _hold = self.core().pending.hold();
        let mut report = VerifyReport::default();
        let (worn, disk) = worn(&self.core().disk);
        let read = verify_files(&disk, Some(self.core().database), &mut report, &mut progress)?;
        if report.note_unreadable(&worn) {
            report.judge(read, Some(&self.base().objects));
            report.damage("cells, models, rows and files that the log alone names were not read, since what this process has mapped cannot be: close the database, and verify it then");
        } else {
            verify_contents(self, read, &mut report);
        }
        check_fed(&worn)?;
        Ok(report)
    }

    /// As [`Database::verify`], of a database that is not open here, or that cannot be opened. A process may write it
    /// meanwhile.
    ///
    /// # Errors
    /// [`OpenError::NotFound`] where there is no database, [`OpenError::Unfinished`] where it is a copy that is not finished; [`OpenError::Storage`] where its folders cannot be listed, or
    /// the system has too few handles or too little memory to read files, and [`OpenError::Io`] where it starts no thread.
    /// Damage is no error: the report names it.
    pub fn verify_dir(
        dir: impl AsRef<Path>,
        progress: impl FnMut(u64, u64),
    ) -> Result<VerifyReport, OpenError> {
        Database::verify_on(Arc::new(RealDisk::new(dir)), progress)
    }

    /// As [`Database::verify_dir`], on any disk.
    ///
    /// # Errors
    /// As [`Database::verify_dir`].
    pub fn verify_on(disk: SharedDisk, progress: impl FnMut(u64, u64)) -> Result<VerifyReport, OpenError> {
        check_finished(&*disk)?;
        Database::verify_copy(disk, progress)
    }

    /// The same of a copy that is not marked as finished yet.
    pub(crate) fn verify_copy(
        disk: SharedDisk,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<VerifyReport, OpenError> {
        let mut report = VerifyReport::default();
        let (worn, disk) = worn(&disk);
        let read = verify_files(&disk, None, &mut report, &mut progress)?;
        match Reader::load(&disk, threads()) {
            Ok(reader) => verify_contents(&reader, read, &mut report),
            Err(error @ OpenError::Io { .. }) => return Err(error),
            Err(error) => {
                report.judge(read, None);
                report.refusal(error);
            }
        }
        report.note_unreadable(&worn);
        check_fed(&worn)?;
        Ok(report)
    }
}

/// Where the system gave too few handles or too little memory, what was found says nothing of the database.
pub(crate) fn check_fed(disk: &WornDisk) -> Result<(), OpenError> {
    match disk.starved() {
        Some((file, source)) => Err(StorageError::io("read", &file, source).into()),
        None => Ok(()),
    }
}

/// What is wrong with a file that is written where it stands, as nothing but its kind tells: through a link nothing is
/// written, so that a writer is refused. What it holds is not looked at.
fn misplaced(disk: &SharedDisk, name: &str, remedy: &str) -> Option<String> {
    let about = disk.path(name).and_then(|path| std::fs::symlink_metadata(path).ok())?;
    let what = match about.file_type() {
        kind if kind.is_symlink() => "a link, through which no writer writes",
        kind if kind.is_file() => return None,
        kind if kind.is_dir() => "a folder, and a writer needs a file there",
        _ => "no regular file, and a writer needs one there",
    };
    Some(format!("{name} is {what}; {remedy}"))
}

/// The disk as it is read where some of it cannot be.
fn worn(disk: &SharedDisk) -> (Arc<WornDisk>, SharedDisk) {
    let worn = Arc::new(WornDisk::new(disk.clone()));
    (worn.clone(), worn)
}

/// Verifies what the manifests name, and the log.
fn verify_files(
    disk: &SharedDisk,
    database: Option<[u8; 16]>,
    report: &mut VerifyReport,
    tell: &mut dyn FnMut(u64, u64),
) -> Result<Read, OpenError> {
    let named = verify_manifests(disk, database, report)?;
    let database = match named.database {
        Some(database) => database,
        // No manifest is sound; the log says whose it is.
        None => match owner(disk.clone()) {
            Ok(Some(database)) => database,
            Ok(None) => return Ok(Read::default()),
            Err(error) => {
                report.damage(error);
                return Ok(Read::default());
            }
        },
    };
    let length = |name: &str| disk.open_read(name).and_then(|file| file.len()).unwrap_or(0);
    let packs: Vec<(u64, String)> = named.packs.iter().map(|file| (*file, files::pack(*file))).collect();
    let mut read = Read::default();
    let segment_bytes: u64 = named.segments.values().map(|(_, reference)| reference.bytes).sum();
    let chunk_bytes: u64 = named.chunks.keys().map(|file| length(&files::chunk(*file))).sum();
    let image_bytes: u64 = named.images.values().map(|reference| reference.bytes).sum();
    let pack_bytes: u64 = packs.iter().map(|(_, name)| length(name)).sum();
    let mut progress =
        Progress { done: 0, total: segment_bytes + chunk_bytes + image_bytes + pack_bytes, tell };
    for reference in named.images.values() {
        report.images += 1;
        let verified = Layer::open(&**disk, database, reference).and_then(|layer| layer.image.verify());
        count(report, &mut progress, reference.bytes, verified);
    }
    for (series, reference) in named.segments.values() {
        report.segments += 1;
        let verified = open_segment(disk, database, series, reference)
            .map_err(|error| error.named(&disk.describe()))
            .and_then(|segment| Ok(segment.verify()?));
        count(report, &mut progress, reference.bytes, verified);
    }
    for (file, name) in packs {
        report.packs += 1;
        let pack = Pack::open(&**disk, &name, database);
        let verified = pack.map(|pack| pack.verify_each(read.suspect(file)));
        count(report, &mut progress, length(&name), verified);
    }
    for (file, ids) in &named.chunks {
        report.chunks += 1;
        report.files += 1;
        let bytes = verify_chunks(&**disk, *file, database, ids, &mut read);
        report.bytes += bytes;
        progress.add(bytes);
    }
    verify_log(disk, database, report);
    // An opening for writing makes both anew.
    const MADE_ANEW: &str =
        "move it out of the database's folder, and an opening for writing makes the file anew";
    report.damages.extend(misplaced(disk, LOCK, MADE_ANEW));
    match (misplaced(disk, SHARED, MADE_ANEW), shared::read(&**disk, database)) {
        (Some(what), _) => report.damage(what),
        (None, Err(error)) => report.damage(error),
        (None, Ok(_)) => {}
    }
    let segments = named.segments.values().map(|(_, reference)| reference.file);
    read.files = segments.chain(named.chunks.keys().copied()).collect();
    read.older = named.older;
    Ok(read)
}

/// Adds a file that was read, or what is wrong with it.
fn count<E: ToString>(
    report: &mut VerifyReport,
    progress: &mut Progress<'_>,
    length: u64,
    verified: Result<u64, E>,
) {
    report.files += 1;
    match verified {
        Ok(bytes) => report.bytes += bytes,
        Err(error) => report.damage(error),
    }
    progress.add(length);
}

/// `database` is the one that they belong to, where that is known; else the newest says.
fn verify_manifests(
    disk: &SharedDisk,
    database: Option<[u8; 16]>,
    report: &mut VerifyReport,
) -> Result<Named, OpenError> {
    let mut named = Named { database, ..Named::default() };
    let numbers = manifest_numbers(&**disk)?;
    if numbers.is_empty() {
        return match no_manifest(disk) {
            OpenError::Corrupt { dir, what } => {
                report.damage(OpenError::Corrupt { dir, what });
                Ok(named)
            }
            error => Err(error),
        };
    }
    for number in numbers.iter().rev().copied() {
        let name = manifest_name(number);
        // Its files stay as long as it does. A writer that has just removed it has put a newer one there.
        match disk.share(&name) {
            Ok(Some(pin)) => named.pins.push(pin),
            Ok(None) => continue,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => report.damage(StorageError::io("lock", &name, error)),
        }
        report.files += 1;
        report.manifests += 1;
        let Stored { database: owner, manifest, bytes, .. } = match Stored::read(&**disk, number) {
            Ok(found) => found,
            Err(error) => {
                report.damage(error);
                continue;
            }
        };
        report.bytes += bytes;
        if *named.database.get_or_insert(owner) != owner {
            report.damage(StorageError::ForeignDatabase { file: name });
            continue;
        }
        named.images.extend(manifest.images.iter().map(|image| (image.file, image.clone())));
        if Some(&number) == numbers.last() && manifest.previous > 0 && !numbers.contains(&manifest.previous) {
            let name = manifest_name(manifest.previous);
            report.damage(format!("{name} is gone, to which opening would fall back; make a checkpoint"));
        }
        for series in &manifest.series {
            for reference in &series.segments {
                let file = files::segment(&series.name, reference.file);
                named.segments.insert(file, (series.name.clone(), reference.clone()));
            }
        }
        if Some(&number) != numbers.last() {
            named.older.extend(&manifest.packs);
            named.older.extend(manifest.chunks.iter().map(|chunk| chunk.file));
        }
        named.packs.extend(&manifest.packs);
        for chunk in manifest.chunks.iter().filter(|chunk| chunk.file != LOST) {
            named.chunks.entry(chunk.file).or_default().insert(ObjectId(chunk.id));
        }
    }
    Ok(named)
}

/// Verifies a chunk file that is to hold these objects; answers the bytes checked.
fn verify_chunks(
    disk: &dyn Disk,
    file: u64,
    database: [u8; 16],
    ids: &BTreeSet<ObjectId>,
    read: &mut Read,
) -> u64 {
    let name = files::chunk(file);
    let chunks = match Chunks::open(disk, &name, database) {
        Ok(chunks) => chunks,
        Err(damage) => {
            let objects = ids.iter().copied().collect();
            read.suspects.push(Suspect { file, objects, damage });
            return 0;
        }
    };
    let mut suspect = read.suspect(file);
    for id in ids.iter().filter(|id| chunks.length(id).is_none()) {
        let what = format!("the file does not hold object {id}");
        suspect(Some(*id), StorageError::corrupt(&name, 0, what));
    }
    chunks.verify_each(suspect)
}

fn verify_log(disk: &SharedDisk, database: [u8; 16], report: &mut VerifyReport) {
    let (logs, damages) = match look_whole(disk, database) {
        Ok(looked) => looked,
        Err(error) => return report.damage(error),
    };
    damages.iter().for_each(|damage| report.damage(damage));
    // Of what cannot be opened it is told why.
    let is_unopened = |name: &str| {
        logs.iter().any(|file| file.file == name && matches!(file.header, Err(WalError::Io { .. })))
    };
    for name in disk.list(files::WAL_DIR).unwrap_or_default() {
        let is_spare = name.starts_with("spare-");
        let name = format!("{}/{name}", files::WAL_DIR);
        if is_spare {
            // What is prepared for later holds nothing; but a writer that cannot open it is refused.
            let remedy = "move it out of the database's folder: nothing is missed there";
            let opened = disk.open_read(&name).and_then(|spare| spare.len());
            match (misplaced(disk, &name, remedy), opened) {
                (Some(what), _) => report.damage(what),
                // A writer has just taken it.
                (None, Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
                (None, Err(error)) => report.damage(StorageError::io("open", &name, error)),
                (None, Ok(_)) => {}
            }
        } else if name.ends_with(".wal") && !is_unopened(&name) {
            let remedy = "put the file that it leads to in its place";
            report.damages.extend(misplaced(disk, &name, remedy));
        }
    }
    for file in &logs {
        report.files += 1;
        report.log_files += 1;
        report.log_batches += file.batches.len();
        report.log_records += file.batches.iter().map(|batch| u64::from(batch.records)).sum::<u64>();
        report.bytes += file.batches.iter().map(|batch| batch.bytes).sum::<u64>();
        if let Behind::Torn { bytes } = file.behind {
            report.torn_tail = Some(format!("{} at byte {}: {bytes} bytes", file.file, file.end));
        }
    }
}

/// The contents of cells, the blobs of models and the rows of series, as they are visible.
/// Files that only the log names, and what everything amounts to.
fn verify_contents(view: &View, mut read: Read, report: &mut VerifyReport) {
    let base = view.base();
    let logged: Vec<_> = {
        let state = base.state();
        let sealed = state.tables.values().flat_map(|table| table.sealed());
        sealed.filter(|run| !read.files.contains(&run.reference().file)).cloned().collect()
    };
    for run in logged {
        report.segments += 1;
        match run.segment().and_then(|segment| segment.verify()) {
            Ok(bytes) => report.bytes += bytes,
            Err(error) => report.damage(error),
        }
    }
    for (chunk, objects) in base.objects.chunks() {
        if read.files.contains(&chunk.file) {
            continue;
        }
        report.chunks += 1;
        let ids = objects.into_iter().map(|(id, _)| id).collect();
        report.bytes += verify_chunks(&*base.disk, chunk.file, base.database, &ids, &mut read);
    }
    // What only they would need whom nobody is any more names nothing.
    let oldest = base.oldest_reader();
    while base.state().drop_versions(oldest, 1 << 10, &base.objects) {}
    report.judge(read, Some(&base.objects));
    let snapshot = view.snapshot();
    let counts = view.counts();
    (report.slots, report.producers) = (counts.slots, counts.producers);
    (report.objects, report.lost_objects) = (counts.objects, base.objects.all_lost().len());
    let (cells, models) = {
        let state = base.state();
        let cells: Vec<ObjectId> =
            state.graph.cells().filter_map(|cell| state.cell_at(cell, snapshot.seq())?.content).collect();
        let models: Vec<_> = state.models.iter().map(|(id, version)| (*id, version.clone())).collect();
        (cells, models)
    };
    for object in cells {
        report.cells += 1;
        if base.objects.is_lost(&object) {
            continue;
        }
        match base.objects.get(&object).map(|blob| content::decode(&blob).map(|_| ())) {
            Ok(Ok(())) => {}
            Ok(Err(what)) => report.damage(format!("contents of a cell, object {object}: {what}")),
            Err(error) => report.damage(error),
        }
    }
    for (id, version) in models {
        report.models += 1;
        if version.objects().any(|object| base.objects.is_lost(&object)) {
            continue;
        }
        // Its chunks were read with their files.
        match Content::lend(&base.objects, &version) {
            Ok(content) if content.len() == version.bytes => {}
            Ok(content) => report.damage(format!(
                "model {id} of transaction {} has {} bytes, not {}",
                version.seq,
                content.len(),
                version.bytes
            )),
            Err(error) => report.damage(format!("model {id}: {error}")),
        }
    }
    for (id, place) in base.objects.all() {
        if let Place::Memory(blob) = place
            && ObjectId::of(&blob) != id
        {
            report.damage(format!("object {id} in memory has another hash"));
        }
    }
    for name in snapshot.series_names() {
        match snapshot.series(&name).map(|series| series.count()) {
            Ok(Ok(rows)) => report.rows += rows,
            Ok(Err(error)) => report.damage(format!("series {name}: {error}")),
            Err(error) => report.damage(format!("series {name}: {error}")),
        }
    }
}
