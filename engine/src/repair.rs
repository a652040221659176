//! What is left of a damaged database, as a sound one in another folder.
//!
//! From the newest manifest whose image can be read: all files that verify, and the log's records from there on as
//! long as they follow each other. What is damaged or missing is left out and listed. Objects that nothing holds any
//! more are known to be lost, so that what names them says so when it is read. The damaged folder is not changed.

mod loss;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use underbelly_storage::disk::{RealDisk, SharedDisk};
use underbelly_storage::error::StorageError;
use underbelly_storage::manifest::{manifest_name, manifest_numbers, read_manifest, write_manifest};
use underbelly_storage::object::{Blob, ObjectId, Pack, verify_chunk, write_pack};
use underbelly_wal::{inspect, owner, visit_sound};

use crate::backup::{BackupOptions, Copy, record_files};
use crate::database::Database;
use crate::error::{CopyError, OpenError};
use crate::files;
use crate::objects::{LOST, Objects};
use crate::open::no_manifest;
use crate::pool::Pool;
use crate::record::{self, from_archive, to_archive, v1};
use crate::restore::{open_segment, replay, restore};
use crate::shared::{self, Told};
use crate::verify::VerifyReport;

pub use loss::Loss;
use loss::{log_losses, object_losses, segment_loss};

/// What a repair saved and what it could not save.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RepairReport {
    /// The manifest that it went out from; `None` where none could be used and the log alone was left.
    pub manifest: Option<u64>,
    /// The last transaction that was saved.
    pub seq: u64,
    /// Transactions that were saved from the log.
    pub records: u64,
    /// What could not be saved.
    pub losses: Vec<Loss>,
    /// What was checked of the copy afterwards.
    pub verified: VerifyReport,
    /// How long it took.
    pub took: Duration,
}

/// A manifest to go out from.
struct Candidate {
    number: u64,
    manifest: v1::Manifest,
    /// Its image is lost, and with it the graph, the contents of cells, the versions of models and the variables.
    without_image: bool,
}

/// What there is to go out from.
struct Left {
    /// Manifests that cannot be read.
    losses: Vec<Loss>,
    candidates: Vec<Candidate>,
    database: [u8; 16],
}

/// What one attempt saved.
struct Saved {
    records: u64,
    seq: u64,
    losses: Vec<Loss>,
}

impl Database {
    /// Saves what is left of a damaged database into a folder that is empty or not there, and lists what is lost. The
    /// damaged one is not changed, and must not be open for writing. Files that verify are copied; every file of the
    /// copy is checked at the end, and `progress` is told how many of how many bytes of that are done.
    ///
    /// Objects that are lost (contents of cells, blobs of models) keep their places:
    /// [`ReadError::LostObject`](crate::ReadError::LostObject) says so where they are read, until others are put.
    ///
    /// # Errors
    /// [`CopyError::NotEmpty`] or [`CopyError::Inside`] where the folder cannot be used; [`CopyError::Open`] with
    /// [`OpenError::Locked`] where a process writes, with [`OpenError::NotFound`] where there is no database, and where
    /// files cannot be read or written; [`CopyError::Nothing`] where neither a manifest nor the beginning of the log is
    /// left. In each case there is no database in the folder.
    pub fn repair(
        dir: impl AsRef<Path>,
        dest: impl AsRef<Path>,
        progress: impl FnMut(u64, u64),
    ) -> Result<RepairReport, CopyError> {
        let began = Instant::now();
        let disk: SharedDisk = Arc::new(RealDisk::new(dir));
        let dir = disk.describe();
        if !disk.path("").is_some_and(|path| path.is_dir()) {
            return Err(OpenError::NotFound { dir }.into());
        }
        // No writer begins meanwhile.
        let shared = disk.share("").map_err(|source| {
            let dir = dir.clone();
            OpenError::Io { action: "cannot lock", dir, source }
        })?;
        let Some(_shared) = shared else {
            let pid = disk.holders("").into_iter().next().unwrap_or(0);
            return Err(OpenError::Locked { dir, pid }.into());
        };
        let copy = Copy::begin(&disk, dest.as_ref(), BackupOptions { copy: true })?;
        let Left { mut losses, candidates, database } = candidates(&disk)?;
        let mut best: Option<(Saved, Candidate)> = None;
        // Whether the copy holds what the best one saved.
        let mut is_placed = false;
        // The first that loses nothing, or else that which leads furthest with an image.
        for candidate in candidates {
            copy.restart()?;
            is_placed = false;
            match salvage(&disk, &copy, database, &candidate) {
                Ok(saved) => {
                    let is_whole = saved.losses.is_empty();
                    let is_better = best.as_ref().is_none_or(|(before, with)| {
                        (!candidate.without_image, saved.seq) > (!with.without_image, before.seq)
                            || is_whole && saved.seq >= before.seq
                    });
                    if is_better {
                        best = Some((saved, candidate));
                        is_placed = true;
                    }
                    if is_whole {
                        break;
                    }
                }
                Err(Unusable::This(loss)) => {
                    if !losses.contains(&loss) {
                        losses.push(loss);
                    }
                }
                Err(Unusable::All(error)) => {
                    copy.clear()?;
                    return Err(error.into());
                }
            }
        }
        let Some((mut saved, candidate)) = best else {
            copy.clear()?;
            return Err(CopyError::Nothing { dir, losses: losses.iter().map(ToString::to_string).collect() });
        };
        if !is_placed {
            copy.restart()?;
            saved = match salvage(&disk, &copy, database, &candidate) {
                Ok(saved) => saved,
                Err(unusable) => {
                    copy.clear()?;
                    return Err(match unusable {
                        Unusable::All(error) => error.into(),
                        Unusable::This(loss) => CopyError::Nothing { dir, losses: vec![loss.to_string()] },
                    });
                }
            };
        }
        losses.extend(saved.losses);
        let verified = copy.verify(progress)?;
        let manifest = (candidate.number > 0).then_some(candidate.number);
        let (seq, records) = (saved.seq, saved.records);
        Ok(RepairReport { manifest, seq, records, losses, verified, took: began.elapsed() })
    }
}

/// Why nothing was saved.
enum Unusable {
    /// This manifest cannot be used; another may.
    This(Loss),
    /// The disk does not let us.
    All(OpenError),
}

impl<E: Into<OpenError>> From<E> for Unusable {
    fn from(error: E) -> Unusable {
        Unusable::All(error.into())
    }
}

/// Manifests to go out from, newest first: as they are, then without their images, then none at all.
fn candidates(disk: &SharedDisk) -> Result<Left, CopyError> {
    let mut losses = Vec::new();
    let mut whole = Vec::new();
    let mut database = None;
    let numbers = manifest_numbers(&**disk).map_err(OpenError::from)?;
    for number in numbers.iter().rev() {
        let name = manifest_name(*number);
        let read = read_manifest(&**disk, *number).and_then(|found| {
            let manifest: v1::Manifest =
                from_archive(&found.payload).map_err(|what| StorageError::corrupt(&name, 0, what))?;
            Ok((found.db_id, manifest))
        });
        match read {
            Ok((id, manifest)) => {
                database.get_or_insert(id);
                whole.push(Candidate { number: *number, manifest, without_image: false });
            }
            Err(error) => {
                losses.push(Loss::new(name, &error.into(), "the list of files of a checkpoint"));
            }
        }
    }
    let logs = match database {
        Some(_) => None,
        None => owner(disk.clone()).map_err(OpenError::from)?,
    };
    let Some(database) = database.or(logs) else {
        return Err(match losses.is_empty() {
            true => no_manifest(disk).into(),
            false => {
                let losses = losses.iter().map(ToString::to_string).collect();
                CopyError::Nothing { dir: disk.describe(), losses }
            }
        });
    };
    let newest = whole.first().map(|newest| (newest.number, newest.manifest.clone()));
    if let Some((number, manifest)) = newest {
        whole.push(Candidate { number, manifest, without_image: true });
    } else {
        let inspected = inspect(disk.clone(), database).map_err(OpenError::from)?;
        let log_file_bytes =
            inspected.iter().filter_map(|file| Some(file.header.as_ref().ok()?.file_len)).next();
        let manifest = v1::Manifest {
            next_file: 1,
            next_run: 1,
            log_file_bytes: log_file_bytes.unwrap_or(64 << 20),
            ..v1::Manifest::default()
        };
        whole.push(Candidate { number: 0, manifest, without_image: false });
    }
    Ok(Left { losses, candidates: whole, database })
}

/// Puts what is left from one manifest on into the copy.
fn salvage(
    disk: &SharedDisk,
    copy: &Copy,
    database: [u8; 16],
    candidate: &Candidate,
) -> Result<Saved, Unusable> {
    let mut manifest = candidate.manifest.clone();
    let mut losses = Vec::new();
    manifest.next_file = next_file(disk, manifest.next_file)?;
    save_segments(disk, copy, database, &mut manifest, &mut losses)?;
    let damaged = save_objects(disk, copy, database, &mut manifest, &mut losses)?;
    if candidate.without_image {
        manifest.images.clear();
        manifest.packs.clear();
        manifest.chunks.clear();
    }
    for image in &manifest.images {
        let image = files::image(image.file);
        match copy.place(&image) {
            Ok(_) => {}
            Err(error @ StorageError::Missing { .. }) => {
                return Err(Unusable::This(Loss::new(image, &error.into(), IMAGE_LOST)));
            }
            Err(error) => return Err(error.into()),
        }
    }
    // There is no older one to fall back to.
    manifest.previous = 0;
    let pool = Pool::new(0).map_err(|error| OpenError::Io {
        action: "cannot start threads for",
        dir: disk.describe(),
        source: std::io::Error::other(error),
    })?;
    let objects = Objects::tolerant(copy.dest.clone(), database);
    let restored = restore(&copy.dest, database, &manifest, objects, &pool).map_err(|error| {
        let error = error.named(&copy.dest.describe());
        let file = match &error {
            OpenError::Storage(StorageError::Corrupt { file, .. }) => file.clone(),
            _ => manifest_name(candidate.number),
        };
        Unusable::This(Loss::new(file, &error, IMAGE_LOST))
    })?;
    let (objects, mut state) = (restored.objects, restored.state);
    let mut log = copy.log(database, &manifest)?;
    let mut next_file = manifest.next_file;
    // The first record that cannot be applied ends the log.
    let mut refused: Option<String> = None;
    let mut record_losses = Vec::new();
    let sound = visit_sound::<OpenError>(disk.clone(), database, manifest.seq + 1, &mut |seq, payload| {
        if refused.is_some() {
            return Ok(());
        }
        let payload = match save_record(disk, copy, database, candidate, seq, payload, &mut record_losses)? {
            Ok(payload) => payload,
            Err(what) => {
                refused = Some(what);
                return Ok(());
            }
        };
        match replay(&copy.dest, database, &objects, &mut state, &mut next_file, (seq, seq), &payload) {
            Ok(_) => Ok(log.add(seq, payload)?),
            Err(error) => {
                refused = Some(error.named(&disk.describe()).to_string());
                Ok(())
            }
        }
    });
    losses.append(&mut record_losses);
    // What a manifest or the writer said to be durable, the log has to reach.
    let told = shared::read(&**disk, database).ok().flatten();
    let published = Told::limit(told.as_ref(), shared::boot());
    let durable = if published < u64::MAX { manifest.seq.max(published) } else { manifest.seq };
    losses.extend(log_losses(disk, database, sound, (state.head, durable), refused)?);
    let records = log.end()?;
    if candidate.without_image {
        let lost = "all slots and cells, all models, all variables, the history of the graph";
        let damage = "no state image can be used".to_string();
        let file = files::IMAGES_DIR.to_string();
        losses.push(Loss { file, offset: None, damage, lost: lost.to_string() });
    }
    let lost = objects.all_lost();
    losses.extend(object_losses(&state, &lost, &damaged));
    let known: BTreeSet<[u8; 32]> = manifest.chunks.iter().map(|chunk| chunk.id).collect();
    let unknown = lost.iter().filter(|id| !known.contains(&id.0));
    let gone: Vec<v1::Chunk> = unknown.map(|id| v1::Chunk { id: id.0, file: LOST, bytes: 0 }).collect();
    manifest.chunks.extend(gone);
    copy.sync_folders()?;
    let payload = to_archive(&manifest)
        .map_err(|what| Unusable::All(OpenError::Corrupt { dir: copy.dest.describe(), what }))?;
    write_manifest(&*copy.dest, candidate.number.max(1), database, &payload)?;
    Ok(Saved { records, seq: state.head, losses })
}

const IMAGE_LOST: &str = "the state of slots and models at a checkpoint";

/// A number that no file has.
fn next_file(disk: &SharedDisk, known: u64) -> Result<u64, StorageError> {
    let all = crate::checkpoint::all_files(&**disk)?;
    let numbers = all.iter().filter_map(|name| files::number(name));
    Ok(numbers.map(|number| number.saturating_add(1)).fold(known, u64::max))
}

/// Only a disk that refuses ends a repair; a file that is damaged, missing or has unreadable places is a loss.
fn loss_or_end<T>(
    result: Result<T, OpenError>,
    loss: impl FnOnce(&OpenError) -> Loss,
    losses: &mut Vec<Loss>,
) -> Result<Option<T>, OpenError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error @ OpenError::Storage(StorageError::DiskFull { .. })) => Err(error),
        Err(OpenError::Storage(StorageError::Io { action, file, source }))
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            Err(StorageError::Io { action, file, source }.into())
        }
        Err(error) => {
            losses.push(loss(&error));
            Ok(None)
        }
    }
}

fn check_segment(
    disk: &SharedDisk,
    database: [u8; 16],
    series: &str,
    reference: &v1::SegmentRef,
) -> Result<(), OpenError> {
    let segment = open_segment(disk, database, series, reference);
    segment.map_err(|error| error.named(&disk.describe()))?.verify()?;
    Ok(())
}

fn save_segments(
    disk: &SharedDisk,
    copy: &Copy,
    database: [u8; 16],
    manifest: &mut v1::Manifest,
    losses: &mut Vec<Loss>,
) -> Result<(), OpenError> {
    for series in &mut manifest.series {
        let mut kept = Vec::new();
        for reference in std::mem::take(&mut series.segments) {
            let checked = check_segment(disk, database, &series.name, &reference);
            let loss = |error: &OpenError| segment_loss(&series.name, &reference, error);
            if loss_or_end(checked, loss, losses)?.is_some() {
                copy.place(&files::segment(&series.name, reference.file))?;
                kept.push(reference);
            }
        }
        series.segments = kept;
    }
    Ok(())
}

/// Saves packs and chunks; what is sound in a damaged pack goes into a new one. Answers why objects are lost, by the
/// object; of packs that cannot be opened the objects are not known.
fn save_objects(
    disk: &SharedDisk,
    copy: &Copy,
    database: [u8; 16],
    manifest: &mut v1::Manifest,
    losses: &mut Vec<Loss>,
) -> Result<BTreeMap<ObjectId, String>, OpenError> {
    let mut damaged = BTreeMap::new();
    let mut kept = Vec::new();
    let mut loose: BTreeMap<ObjectId, Blob> = BTreeMap::new();
    for file in std::mem::take(&mut manifest.packs) {
        let name = files::pack(file);
        let unopened =
            |error: &OpenError| Loss::new(&name, error, "the objects in it, listed by what names them");
        let opened = Pack::open(&**disk, &name, database).map_err(OpenError::from);
        let Some(pack) = loss_or_end(opened, unopened, losses)? else { continue };
        let Err(error) = pack.verify() else {
            copy.place(&name)?;
            kept.push(file);
            continue;
        };
        let before = damaged.len();
        for id in pack.ids() {
            match pack.get(&id) {
                Ok(Some(blob)) if ObjectId::of(&blob) == id => drop(loose.insert(id, blob)),
                _ => drop(damaged.insert(id, name.clone())),
            }
        }
        let lost = format!("{} of {} objects in it", damaged.len() - before, pack.ids().len());
        losses.push(Loss::new(&name, &error.into(), lost));
    }
    if !loose.is_empty() {
        let name = files::pack(manifest.next_file);
        copy.dest
            .create_dir(files::PACKS_DIR)
            .map_err(|error| StorageError::io("make the folder of", &name, error))?;
        write_pack(&*copy.dest, &name, database, loose.iter().map(|(id, blob)| (*id, &**blob)))?;
        kept.push(manifest.next_file);
        manifest.next_file += 1;
    }
    manifest.packs = kept;
    for chunk in &mut manifest.chunks {
        if chunk.file == LOST {
            continue;
        }
        let name = files::chunk(chunk.file);
        let id = ObjectId(chunk.id);
        let checked = verify_chunk(&**disk, &name, database, id).map_err(OpenError::from);
        let loss =
            |error: &OpenError| Loss::new(&name, error, format!("object {id} of {} bytes", chunk.bytes));
        if loss_or_end(checked, loss, losses)?.is_some() {
            copy.place(&name)?;
        } else {
            damaged.insert(id, name);
            (chunk.file, chunk.bytes) = (LOST, 0);
        }
    }
    Ok(damaged)
}

/// The payload of a record with what is left of the files that it names; else why it cannot be read.
fn save_record(
    disk: &SharedDisk,
    copy: &Copy,
    database: [u8; 16],
    candidate: &Candidate,
    seq: u64,
    payload: &[u8],
    losses: &mut Vec<Loss>,
) -> Result<Result<Vec<u8>, String>, OpenError> {
    let (time, mut record) = match record::decode(payload) {
        Ok(decoded) => decoded,
        Err(what) => return Ok(Err(format!("transaction {seq} cannot be read: {what}"))),
    };
    let before = losses.len();
    let mut kept = Vec::new();
    for append in std::mem::take(&mut record.appends) {
        if let v1::Rows::Segment(reference) = &append.rows {
            let checked = check_segment(disk, database, &append.series, reference);
            let loss = |error: &OpenError| segment_loss(&append.series, reference, error);
            if loss_or_end(checked, loss, losses)?.is_none() {
                continue;
            }
        }
        kept.push(append);
    }
    record.appends = kept;
    let mut kept = Vec::new();
    for object in std::mem::take(&mut record.objects) {
        if let v1::Object::Chunk { id, file, bytes } = &object {
            let (name, id) = (files::chunk(*file), ObjectId(*id));
            let checked = verify_chunk(&**disk, &name, database, id).map_err(OpenError::from);
            let loss = |error: &OpenError| Loss::new(&name, error, format!("object {id} of {bytes} bytes"));
            if loss_or_end(checked, loss, losses)?.is_none() {
                continue;
            }
        }
        kept.push(object);
    }
    record.objects = kept;
    for name in record_files(&record) {
        copy.place(&name)?;
    }
    if losses.len() == before && !candidate.without_image {
        return Ok(Ok(payload.to_vec()));
    }
    if candidate.without_image {
        // Without the graph as it was, its events say nothing.
        record.event = None;
    }
    let encoded = record::encode(&record);
    Ok(encoded.map(|mut payload| {
        record::stamp(&mut payload, time);
        payload
    }))
}
