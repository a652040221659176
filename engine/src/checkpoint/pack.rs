//! Objects in memory become packs, and chunk files of which most is dead are written anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use underbelly_storage::object::{Blob, ChunkWriter, ObjectId, Pack, Placement, write_pack};

use super::Attempt;
use crate::error::{CommitError, ReadError};
use crate::files;
use crate::limits::{
    DAMAGED_TOLD_MAX, JOINED_CHUNK_BYTES_MAX, SMALL_CHUNK_FILES_MAX, SMALL_FILE_BYTES, SMALL_PACKS_MAX,
};
use crate::objects::{ChunkFile, LOST, OfFile, PackFile, is_damage};
use crate::record::v1;

/// What packing decided.
pub(super) struct Packing {
    pub packs: Vec<u64>,
    pub chunks: Vec<v1::Chunk>,
    pub packed: Vec<ObjectId>,
    pub pack: Option<Arc<PackFile>>,
    /// Packs whose objects moved, or that hold none any more.
    pub taken_in: Vec<u64>,
    /// Objects that moved from one chunk file to another.
    pub moved: Vec<Moved>,
}

/// Objects that moved from a chunk file to a new one.
pub(super) struct Moved {
    pub from: u64,
    pub to: Arc<ChunkFile>,
    pub objects: Vec<ObjectId>,
}

/// The rows of the manifest for a chunk file.
fn rows(file: u64, objects: &[(ObjectId, u64)]) -> impl Iterator<Item = v1::Chunk> {
    objects.iter().map(move |(id, bytes)| v1::Chunk { id: id.0, file, bytes: *bytes })
}

impl Attempt<'_> {
    /// Packs objects that came into memory, and those of packs that are less than half alive, or hold what was put again since it
    /// could not be read.
    ///
    /// An object that was forgotten is not found here; who puts it again stores it anew, in a record behind this
    /// checkpoint. One that was put again since the capture, as what was stored is damaged, has left its file and is among
    /// what came into memory: it is packed too, since what was captured may name it.
    pub(super) fn pack(&mut self, loose: &mut Vec<ObjectId>) -> Result<Packing, CommitError> {
        let objects = &self.core.objects;
        let all = objects.packs();
        // Small packs are joined when there are many, so that their number does not grow with the checkpoints.
        let is_small = |pack: &PackFile| pack.pack.info().bytes < SMALL_FILE_BYTES;
        let many_small =
            all.iter().filter(|pack| pack.live() > 0 && is_small(pack)).count() >= SMALL_PACKS_MAX;
        let (mut full, mut sparse): (Vec<_>, Vec<_>) = all.into_iter().partition(|pack| {
            let is_full = pack.live() * 2 >= (pack.pack.ids().len() as u64).max(1);
            is_full && !(many_small && is_small(pack)) && !pack.is_mended()
        });
        let mut bodies: Vec<(ObjectId, Blob)> = Vec::new();
        let mut damaged = Vec::new();
        for pack in sparse.iter().filter(|pack| pack.live() > 0) {
            let live = |id: ObjectId| objects.bytes_in(&id, Some(pack)).map(|blob| Some((id, blob?)));
            let found = pack.pack.ids().filter_map(|id| live(id).transpose()).collect::<Result<Vec<_>, _>>();
            match found {
                Ok(found) => bodies.extend(found),
                // Moving saves space; a checkpoint does not fail for it.
                Err(error) if is_damage(&error) => {
                    self.core.note_trouble(format!("a pack stays as it is: {error}"));
                    damaged.push(pack.file);
                }
                Err(error) => return Err(error.into()),
            }
        }
        full.extend(sparse.extract_if(.., |pack| damaged.contains(&pack.file)));
        let (moved, chunks) = self.move_chunks()?;
        let files = objects.chunks();
        let mut damaged = files.iter().filter_map(|(chunk, _)| chunk.damage());
        self.report.damaged.extend(damaged.by_ref().take(DAMAGED_TOLD_MAX));
        match damaged.count() {
            0 => {}
            others => {
                let told = format!("{others} chunk files more are damaged; `ubctl verify` names them");
                self.report.damaged.push(told);
            }
        }
        let lost = objects.all_lost().into_iter().map(|id| v1::Chunk { id: id.0, file: LOST, bytes: 0 });
        let mut packing = Packing {
            packs: full.iter().map(|pack| pack.file).collect(),
            chunks: chunks.into_iter().chain(lost).collect(),
            packed: Vec::new(),
            pack: None,
            taken_in: sparse.iter().map(|pack| pack.file).collect(),
            moved,
        };
        // Behind all that was looked at: what has left a file by then is here.
        loose.append(&mut objects.take_loose());
        for id in &*loose {
            bodies.extend(objects.bytes_in(id, None)?.map(|blob| (*id, blob)));
        }
        if bodies.is_empty() {
            return Ok(packing);
        }
        bodies.sort_by_key(|(id, _)| *id);
        bodies.dedup_by_key(|(id, _)| *id);
        let file = self.core.new_file();
        self.core.disk_dir(files::PACKS_DIR)?;
        let (name, database) = (files::pack(file), self.core.database);
        let info = write_pack(self.disk, &name, database, bodies.iter().map(|(id, blob)| (*id, &**blob)))?;
        self.report.bytes_written += info.bytes;
        self.report.objects = bodies.len();
        let pack = Pack::open(self.disk, &name, database)?;
        self.note_made(name);
        packing.packs.push(file);
        packing.packed = bodies.into_iter().map(|(id, _)| id).collect();
        packing.pack = Some(Arc::new(PackFile::new(file, pack)));
        Ok(packing)
    }

    /// Writes the objects of chunk files that are less than half alive into new ones, and joins small files where there are
    /// many. Answers what moved, and what the manifest says of all chunk files. One that is damaged or cannot be read stays as it is.
    fn move_chunks(&mut self) -> Result<(Vec<Moved>, Vec<v1::Chunk>), CommitError> {
        let core = self.core;
        let all = core.objects.chunks();
        let (mut sparse, mut small) = (Vec::new(), Vec::new());
        for (at, (chunk, objects)) in all.iter().enumerate() {
            let stored = match chunk.stored(self.disk, core.database) {
                Ok(Some(stored)) => stored,
                Ok(None) => continue,
                // Moving saves space; a checkpoint does not fail for it.
                Err(error) => {
                    core.note_trouble(format!("a chunk file stays as it is: {error}"));
                    continue;
                }
            };
            let alive = stored.of(objects);
            if alive * 2 < stored.all || chunk.is_mended() {
                sparse.push((at, alive));
            } else if stored.all < SMALL_FILE_BYTES {
                small.push((at, alive));
            }
        }
        // As much as a checkpoint may write beside the rest, and one file at least; the others wait for the next.
        let fitting = |files: &[(usize, u64)]| -> Vec<usize> {
            let fits = files.iter().enumerate().scan(0, |sum, (before, (at, alive))| {
                *sum += alive;
                (before == 0 || *sum <= JOINED_CHUNK_BYTES_MAX).then_some(*at)
            });
            fits.collect()
        };
        let mut groups: Vec<Vec<usize>> = fitting(&sparse).into_iter().map(|at| vec![at]).collect();
        if small.len() >= SMALL_CHUNK_FILES_MAX {
            groups.push(fitting(&small));
        }
        let (mut moved, mut places) = (Vec::new(), BTreeMap::new());
        for group in groups {
            let from: Vec<&OfFile> = group.iter().filter_map(|at| all.get(*at)).collect();
            let Some(to) = self.move_objects(&from)? else { continue };
            for (chunk, objects) in from {
                places.insert(chunk.file, to.file);
                let objects = objects.iter().map(|(id, _)| *id).collect();
                moved.push(Moved { from: chunk.file, to: to.clone(), objects });
            }
        }
        let file = |chunk: &ChunkFile| places.get(&chunk.file).copied().unwrap_or(chunk.file);
        let named = all.iter().flat_map(|(chunk, objects)| rows(file(chunk), objects)).collect();
        Ok((moved, named))
    }

    /// Writes objects of files into a new one; `None` where one of them is damaged.
    fn move_objects(&mut self, from: &[&OfFile]) -> Result<Option<Arc<ChunkFile>>, CommitError> {
        let core = self.core;
        let file = core.new_file();
        let name = files::chunk(file);
        let mut writer = ChunkWriter::create(self.disk, &name, core.database)?;
        for (chunk, objects) in from {
            let chunks = match chunk.look(self.disk, core.database) {
                Ok(chunks) => chunks,
                Err(error) => {
                    core.note_trouble(format!("a chunk file stays as it is: {error}"));
                    return Ok(None);
                }
            };
            // In their order in the file.
            let mut objects: Vec<(ObjectId, u64)> = objects.clone();
            objects.sort_by_key(|(id, _)| chunks.place(id).map(|place| place.start));
            for (id, _) in &objects {
                let missing = || ReadError::MissingObject { object: id.to_string() };
                let read = chunks.get(id).map_err(ReadError::from);
                let blob = match read.and_then(|blob| blob.ok_or_else(missing)) {
                    Ok(blob) => blob,
                    Err(error) if is_damage(&error) => {
                        chunk.note_damage(&error);
                        return Ok(None);
                    }
                    Err(error) => {
                        core.note_trouble(format!("a chunk file stays as it is: {error}"));
                        return Ok(None);
                    }
                };
                // As it lay within its page, so that blobs remain one stretch.
                let place = chunks.place(id);
                let placement =
                    place.as_ref().map_or(Placement::Begin, |place| Placement::Behind(place.start));
                writer.push(*id, &blob, placement, place.is_none())?;
            }
        }
        self.report.bytes_written += writer.publish()?;
        self.note_made(name);
        Ok(Some(Arc::new(ChunkFile::new(file))))
    }
}
