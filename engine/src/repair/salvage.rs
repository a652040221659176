//! What is left from one manifest on, put into a copy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use underbelly_query::hidden_rows;
use underbelly_storage::disk::{SharedDisk, WornDisk};
use underbelly_storage::error::StorageError;
use underbelly_storage::manifest::manifest_name;
use underbelly_storage::object::{Blob, ChunkWriter, Chunks, ObjectId, Pack, Placement, write_pack};
use underbelly_wal::visit_sound;

use super::candidates::Candidate;
use super::loss::{Loss, log_losses, object_losses, segment_loss};
use crate::backup::Copy;
use crate::error::OpenError;
use crate::files;
use crate::objects::{LOST, Objects};
use crate::pool::Pool;
use crate::record::{self, v1};
use crate::restore::{open_segment, replay, restore};
use crate::shared;
use crate::state::State;

/// What one attempt saved.
pub(super) struct Saved {
    pub records: u64,
    pub seq: u64,
    /// Rows that are not deleted.
    pub rows: u64,
    /// Whether there are cells, models or variables beside them.
    pub has_others: bool,
    pub losses: Vec<Loss>,
    /// Damage by which nothing is lost.
    pub harmless: Vec<Loss>,
}

/// Damage to objects, which are lost where something names them and nothing else holds them.
struct Hurt {
    loss: Loss,
    objects: Vec<ObjectId>,
}

/// Why nothing was saved.
pub(super) enum Unusable {
    /// This manifest cannot be used; another may.
    This(Loss),
    /// The disk does not let us, or the system.
    All(OpenError),
}

impl<E: Into<OpenError>> From<E> for Unusable {
    fn from(error: E) -> Unusable {
        Unusable::All(error.into())
    }
}

/// Puts what is left from one manifest on into the copy.
pub(super) fn salvage(
    worn: &Arc<WornDisk>,
    copy: &Copy,
    database: [u8; 16],
    candidate: &Candidate,
) -> Result<Saved, Unusable> {
    let disk: &SharedDisk = &(worn.clone() as SharedDisk);
    let mut manifest = candidate.manifest.clone();
    let mut losses = candidate.losses.clone();
    manifest.next_file = next_file(disk, manifest.next_file)?;
    save_segments(disk, copy, database, &mut manifest, &mut losses)?;
    let (mut hurt, damaged) = save_objects(disk, copy, database, &mut manifest, &mut losses)?;
    if candidate.without_image {
        // Packs and chunk files stay: what the log holds may name objects in them.
        manifest.images.clear();
    }
    for image in &manifest.images {
        let image = files::image(image.file);
        match copy.place(&image) {
            Ok(_) => {}
            // Files of other kinds were found sound before.
            Err(
                error @ (StorageError::Missing { .. } | StorageError::Io { action: "read" | "open", .. }),
            ) => {
                let error = OpenError::from(error);
                return Err(match error.is_of_machine() {
                    true => Unusable::All(error),
                    false => Unusable::This(Loss::new(image, &error, IMAGE_LOST)),
                });
            }
            Err(error) => return Err(error.into()),
        }
    }
    let pool = Pool::new(0).map_err(|source| OpenError::Io {
        action: "cannot start threads for",
        dir: disk.describe(),
        source,
    })?;
    let objects = Objects::tolerant(copy.dest.clone(), database);
    let restored = restore(&copy.dest, database, &manifest, objects, &pool, false).map_err(|error| {
        let error = error.named(&copy.dest.describe());
        if error.is_of_machine() {
            return Unusable::All(error);
        }
        let file = match &error {
            OpenError::Storage(StorageError::Corrupt { file, .. }) => file.clone(),
            _ => manifest_name(candidate.number),
        };
        Unusable::This(Loss::new(file, &error, IMAGE_LOST))
    })?;
    let (objects, mut state) = (restored.objects, restored.state);
    // The image or a record names them, whatever a later record stores anew.
    let mut unstored = objects.all_lost();
    let mut log = copy.log(database, &manifest)?;
    let mut next_file = manifest.next_file;
    // The first record that cannot be applied ends the log.
    let mut refused: Option<String> = None;
    let (mut record_losses, mut record_hurt) = (Vec::new(), Vec::new());
    let sound =
        visit_sound::<OpenError>(disk.clone(), database, manifest.log_start(), &mut |seq, payload| {
            if refused.is_some() {
                return Ok(());
            }
            let payload = match save_record(
                disk,
                copy,
                database,
                candidate,
                (seq, payload),
                (&mut record_losses, &mut record_hurt),
            )? {
                Ok(payload) => payload,
                Err(what) => {
                    refused = Some(what);
                    return Ok(());
                }
            };
            let open =
                |series: &str, reference: &_| open_segment(&copy.dest, database, series, reference).map(Ok);
            match replay(open, &objects, &mut state, &mut next_file, (seq, seq), &payload) {
                Ok(_) => Ok(log.add(seq, payload)?),
                Err(error) => {
                    let error = error.named(&disk.describe());
                    if error.is_of_machine() {
                        return Err(error);
                    }
                    refused = Some(error.to_string());
                    Ok(())
                }
            }
        });
    losses.append(&mut record_losses);
    unstored.extend(record_hurt.iter().flat_map(|hurt: &Hurt| &hurt.objects));
    hurt.append(&mut record_hurt);
    // What a manifest, a segment or the writer said to be durable, the log has to reach.
    let published = shared::published(&**disk, database).map_or(None, |(published, _)| published);
    let durable = manifest.seq.max(candidate.stored).max(published.unwrap_or(0));
    losses.extend(log_losses(
        disk,
        database,
        sound,
        (state.head, durable),
        refused,
        (&worn.unreadable(), published),
    )?);
    let records = log.end()?;
    if candidate.without_image {
        let lost = format!(
            "all slots and cells, all producers, and all variables and versions of models up to transaction {}; of later \
             transactions what they did to slots",
            manifest.seq
        );
        let damage = "no state image can be used".to_string();
        let file = files::IMAGES_DIR.to_string();
        losses.push(Loss { file, offset: None, damage, lost });
    }
    let mut harmless = Vec::new();
    // Without an image nobody knows what is named: what is nowhere is lost.
    let is_lost = |id: &ObjectId| match candidate.without_image {
        true => !objects.contains(id),
        false => objects.is_needed(id, LOST),
    };
    for Hurt { mut loss, objects: hurt } in hurt {
        if hurt.iter().any(is_lost) {
            losses.push(loss);
        } else {
            loss.lost =
                "nothing, since nothing names what stood there, or it is stored elsewhere too".to_string();
            harmless.push(loss);
        }
    }
    let lost = objects.all_lost();
    losses.extend(object_losses(&state, &lost, &damaged));
    let known: BTreeSet<[u8; 32]> = manifest.chunks.iter().map(|chunk| chunk.id).collect();
    let unknown = unstored.union(&lost).filter(|id| !known.contains(&id.0));
    let gone: Vec<v1::Chunk> = unknown.map(|id| v1::Chunk { id: id.0, file: LOST, bytes: 0 }).collect();
    manifest.chunks.extend(gone);
    copy.sync_folders()?;
    copy.write_manifest(candidate.number.max(1), database, &mut manifest)?;
    let rows = visible_rows(&mut state);
    let has_others = state.graph.cells().count() + state.models.len() + state.variables.len() > 0;
    Ok(Saved { records, seq: state.head, rows, has_others, losses, harmless })
}

/// Rows that no delete hides.
fn visible_rows(state: &mut State) -> u64 {
    let mut rows = 0;
    for table in state.tables.values_mut() {
        let tombstones: Vec<_> = table.tombstones().iter().cloned().collect();
        for run in table.runs().iter() {
            rows += (0..run.groups()).map(|group| run.zone(group).rows as u64).sum::<u64>();
            // What cannot be read hides nothing.
            rows -= hidden_rows(&**run, &tombstones).unwrap_or(0);
        }
    }
    rows
}

const IMAGE_LOST: &str = "the state of slots and models at a checkpoint";

/// A number that no file has.
fn next_file(disk: &SharedDisk, known: u64) -> Result<u64, StorageError> {
    let all = crate::checkpoint::all_files(&**disk)?;
    let numbers = all.iter().filter_map(|name| files::number(name));
    Ok(numbers.map(|number| number.saturating_add(1)).fold(known, u64::max))
}

/// Only a disk that refuses, or a system that has too little, ends a repair; a file that is damaged, missing or has unreadable places is a loss.
pub(super) fn loss_or_end<T>(
    result: Result<T, OpenError>,
    loss: impl FnOnce(&OpenError) -> Loss,
    losses: &mut Vec<Loss>,
) -> Result<Option<T>, OpenError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error @ OpenError::Storage(StorageError::DiskFull { .. })) => Err(error),
        Err(error) if error.is_of_machine() => Err(error),
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

/// Saves packs and chunks; what is sound in a damaged pack goes into a new one. Answers what is damaged, and where objects that
/// are not saved stood; of packs that cannot be opened the objects are not known.
fn save_objects(
    disk: &SharedDisk,
    copy: &Copy,
    database: [u8; 16],
    manifest: &mut v1::Manifest,
    losses: &mut Vec<Loss>,
) -> Result<(Vec<Hurt>, BTreeMap<ObjectId, String>), OpenError> {
    let (mut hurt, mut damaged) = (Vec::new(), BTreeMap::new());
    let mut kept = Vec::new();
    let mut harmed = Vec::new();
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
        let mut gone = Vec::new();
        for id in pack.ids() {
            match pack.get(&id) {
                Ok(Some(blob)) if ObjectId::of(&blob) == id => drop(loose.insert(id, blob)),
                _ => gone.push(id),
            }
        }
        harmed.push((name, error, gone, pack.ids().len()));
    }
    if !harmed.is_empty() {
        // What was put again is stored anew, and the damaged one stays where it was.
        let mut elsewhere: BTreeSet<ObjectId> = manifest
            .chunks
            .iter()
            .filter(|chunk| chunk.file != LOST)
            .map(|chunk| ObjectId(chunk.id))
            .collect();
        for file in &kept {
            elsewhere.extend(Pack::open(&**disk, &files::pack(*file), database)?.ids());
        }
        for (name, error, mut gone, all) in harmed {
            gone.retain(|id| !loose.contains_key(id) && !elsewhere.contains(id));
            damaged.extend(gone.iter().map(|id| (*id, name.clone())));
            let lost = format!("{} of {all} objects in it", gone.len());
            hurt.push(Hurt { loss: Loss::new(&name, &error.into(), lost), objects: gone });
        }
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
    save_chunks(disk, copy, database, manifest, &mut hurt, &mut damaged)?;
    Ok((hurt, damaged))
}

/// Saves chunk files; what is sound in a damaged one goes into a new one.
fn save_chunks(
    disk: &SharedDisk,
    copy: &Copy,
    database: [u8; 16],
    manifest: &mut v1::Manifest,
    hurt: &mut Vec<Hurt>,
    damaged: &mut BTreeMap<ObjectId, String>,
) -> Result<(), OpenError> {
    let mut by_file: BTreeMap<u64, Vec<v1::Chunk>> = BTreeMap::new();
    for chunk in std::mem::take(&mut manifest.chunks) {
        by_file.entry(chunk.file).or_default().push(chunk);
    }
    for (file, objects) in by_file {
        if file == LOST {
            manifest.chunks.extend(objects);
            continue;
        }
        let name = files::chunk(file);
        let bytes: u64 = objects.iter().map(|chunk| chunk.bytes).sum();
        let loss = |error: &OpenError| {
            let what = match &objects[..] {
                [one] => format!("object {} of {bytes} bytes", ObjectId(one.id)),
                several => format!("{} objects of {bytes} bytes", several.len()),
            };
            Loss::new(&name, error, what)
        };
        let opened = Chunks::open(&**disk, &name, database).map_err(OpenError::from);
        let mut losses = Vec::new();
        let Some(chunks) = loss_or_end(opened, loss, &mut losses)? else {
            let ids = || objects.iter().map(|chunk| ObjectId(chunk.id)).collect();
            hurt.extend(losses.into_iter().map(|loss| Hurt { loss, objects: ids() }));
            for mut chunk in objects {
                damaged.insert(ObjectId(chunk.id), name.clone());
                (chunk.file, chunk.bytes) = (LOST, 0);
                manifest.chunks.push(chunk);
            }
            continue;
        };
        let is_sound = |chunk: &v1::Chunk| chunks.verify_object(&ObjectId(chunk.id)).is_ok();
        let (sound, lost): (Vec<_>, Vec<_>) = objects.into_iter().partition(is_sound);
        match chunks.verify() {
            Ok(_) if lost.is_empty() => {
                copy.place(&name)?;
                manifest.chunks.extend(sound);
                continue;
            }
            // In a place where nothing stands that the manifest names.
            Err(error) if lost.is_empty() => {
                let loss = Loss::new(&name, &error.into(), "0 objects");
                hurt.push(Hurt { loss, objects: Vec::new() });
            }
            _ => {}
        }
        for mut chunk in lost {
            let id = ObjectId(chunk.id);
            if let Err(error) = chunks.verify_object(&id) {
                let loss = Loss::new(&name, &error.into(), format!("object {id} of {} bytes", chunk.bytes));
                hurt.push(Hurt { loss, objects: vec![id] });
            }
            damaged.insert(id, name.clone());
            (chunk.file, chunk.bytes) = (LOST, 0);
            manifest.chunks.push(chunk);
        }
        if sound.is_empty() {
            continue;
        }
        let new = manifest.next_file;
        manifest.next_file += 1;
        let new_name = files::chunk(new);
        write_chunks(copy, database, &new_name, &chunks, sound.iter().map(|chunk| ObjectId(chunk.id)))?;
        manifest.chunks.extend(sound.into_iter().map(|chunk| v1::Chunk { file: new, ..chunk }));
    }
    Ok(())
}

/// Writes sound objects of a chunk file into one of the copy.
fn write_chunks(
    copy: &Copy,
    database: [u8; 16],
    name: &str,
    chunks: &Chunks,
    sound: impl Iterator<Item = ObjectId>,
) -> Result<(), OpenError> {
    let failed = |error| StorageError::io("make the folder of", name, error);
    copy.dest.create_dir(files::CHUNKS_DIR).map_err(failed)?;
    let mut writer = ChunkWriter::create(&*copy.dest, name, database)?;
    for id in sound {
        let place = chunks.place(&id);
        let placement = place.as_ref().map_or(Placement::Begin, |place| Placement::Behind(place.start));
        if let Some(blob) = chunks.get(&id)? {
            writer.push(id, &blob, placement, place.is_none())?;
        }
    }
    writer.publish()?;
    Ok(())
}

/// Saves a chunk file that a record names, under its number; answers which of the objects in it are sound.
fn save_named_chunks(
    disk: &SharedDisk,
    copy: &Copy,
    database: [u8; 16],
    file: u64,
    objects: &BTreeMap<ObjectId, u64>,
    hurt: &mut Vec<Hurt>,
) -> Result<BTreeSet<ObjectId>, OpenError> {
    let name = files::chunk(file);
    let mut losses = Vec::new();
    let opened = Chunks::open(&**disk, &name, database).map_err(OpenError::from);
    let loss = |error: &OpenError| Loss::new(&name, error, format!("{} objects", objects.len()));
    let Some(chunks) = loss_or_end(opened, loss, &mut losses)? else {
        let all = || objects.keys().copied().collect();
        hurt.extend(losses.into_iter().map(|loss| Hurt { loss, objects: all() }));
        return Ok(BTreeSet::new());
    };
    if chunks.verify().is_ok() && objects.keys().all(|id| chunks.verify_object(id).is_ok()) {
        copy.place(&name)?;
        return Ok(objects.keys().copied().collect());
    }
    let sound: BTreeSet<ObjectId> =
        chunks.objects().map(|(id, _)| id).filter(|id| chunks.verify_object(id).is_ok()).collect();
    for (id, bytes) in objects.iter().filter(|(id, _)| !sound.contains(id)) {
        if let Err(error) = chunks.verify_object(id) {
            let loss = Loss::new(&name, &error.into(), format!("object {id} of {bytes} bytes"));
            hurt.push(Hurt { loss, objects: vec![*id] });
        }
    }
    match write_chunks(copy, database, &name, &chunks, sound.iter().copied()) {
        // A record before names it too, or it is one of the manifest.
        Ok(()) | Err(OpenError::Storage(StorageError::Exists { .. })) => Ok(sound),
        Err(error) => Err(error),
    }
}

/// The payload of a record with what is left of the files that it names; else why it cannot be read.
fn save_record(
    disk: &SharedDisk,
    copy: &Copy,
    database: [u8; 16],
    candidate: &Candidate,
    (seq, payload): (u64, &[u8]),
    (losses, hurt): (&mut Vec<Loss>, &mut Vec<Hurt>),
) -> Result<Result<Vec<u8>, String>, OpenError> {
    let (time, mut record) = match record::decode(payload) {
        Ok(decoded) => decoded,
        Err(what) => return Ok(Err(format!("transaction {seq} cannot be read: {what}"))),
    };
    let mut is_whole = true;
    let mut kept = Vec::new();
    for append in std::mem::take(&mut record.appends) {
        if candidate.covered.get(&append.series).is_some_and(|seqs| seqs.contains(&seq)) {
            is_whole = false;
            continue;
        }
        if let v1::Rows::Segment(reference) = &append.rows {
            let checked = check_segment(disk, database, &append.series, reference);
            let loss = |error: &OpenError| segment_loss(&append.series, reference, error);
            if loss_or_end(checked, loss, losses)?.is_none() {
                is_whole = false;
                continue;
            }
        }
        kept.push(append);
    }
    record.appends = kept;
    let mut named: BTreeMap<u64, BTreeMap<ObjectId, u64>> = BTreeMap::new();
    for object in &record.objects {
        if let v1::Object::Chunk { id, file, bytes } = object {
            named.entry(*file).or_default().insert(ObjectId(*id), *bytes);
        }
    }
    let mut sound = BTreeSet::new();
    for (file, objects) in &named {
        sound.append(&mut save_named_chunks(disk, copy, database, *file, objects, hurt)?);
    }
    let before = record.objects.len();
    record.objects.retain(|object| match object {
        v1::Object::Chunk { id, .. } => sound.contains(&ObjectId(*id)),
        v1::Object::Inline { .. } => true,
    });
    is_whole &= record.objects.len() == before;
    for append in &record.appends {
        if let v1::Rows::Segment(reference) = &append.rows {
            copy.place(&files::segment(&append.series, reference.file))?;
        }
    }
    if is_whole && !candidate.without_image {
        return Ok(Ok(payload.to_vec()));
    }
    if candidate.without_image {
        // Without the graph as it was its events say nothing, and numbers of versions are others without the models.
        record.event = None;
        record.marks.clear();
        record.removed.clear();
        record.collects = false;
    }
    let encoded = record::encode(&record);
    Ok(encoded.map(|mut payload| {
        record::stamp(&mut payload, time);
        payload
    }))
}
