//! Objects in memory become packs, and chunk files of which most is dead are written anew.

use std::sync::Arc;

use underbelly_storage::object::{Blob, ChunkWriter, Chunks, ObjectId, Pack, Placement, write_pack};

use super::Attempt;
use crate::error::CommitError;
use crate::files;
use crate::limits::{SMALL_FILE_BYTES, SMALL_PACKS_MAX};
use crate::objects::{ChunkFile, LOST, PackFile};
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
    /// Packs objects that came into memory, and those of packs that are less than half alive.
    ///
    /// An object that was forgotten is not found here; who puts it again stores it anew, in a record behind this
    /// checkpoint.
    pub(super) fn pack(&mut self, loose: &[ObjectId]) -> Result<Packing, CommitError> {
        let objects = &self.core.objects;
        let all = objects.packs();
        // Small packs are joined when there are many, so that their number does not grow with the checkpoints.
        let is_small = |pack: &PackFile| pack.pack.info().bytes < SMALL_FILE_BYTES;
        let many_small =
            all.iter().filter(|pack| pack.live() > 0 && is_small(pack)).count() >= SMALL_PACKS_MAX;
        let (full, sparse): (Vec<_>, Vec<_>) = all.into_iter().partition(|pack| {
            pack.live() * 2 >= (pack.pack.ids().len() as u64).max(1) && !(many_small && is_small(pack))
        });
        let mut bodies: Vec<(ObjectId, Blob)> = Vec::new();
        for id in loose {
            bodies.extend(objects.bytes_in(id, None)?.map(|blob| (*id, blob)));
        }
        for pack in sparse.iter().filter(|pack| pack.live() > 0) {
            for id in pack.pack.ids() {
                bodies.extend(objects.bytes_in(&id, Some(pack))?.map(|blob| (id, blob)));
            }
        }
        let (moved, chunks) = self.move_chunks()?;
        let lost = objects.all_lost().into_iter().map(|id| v1::Chunk { id: id.0, file: LOST, bytes: 0 });
        let mut packing = Packing {
            packs: full.iter().map(|pack| pack.file).collect(),
            chunks: chunks.into_iter().chain(lost).collect(),
            packed: Vec::new(),
            pack: None,
            taken_in: sparse.iter().map(|pack| pack.file).collect(),
            moved,
        };
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

    /// Writes the objects of chunk files that are less than half alive into new ones. Answers what moved, and what the
    /// manifest says of all chunk files. One that is damaged stays as it is.
    fn move_chunks(&mut self) -> Result<(Vec<Moved>, Vec<v1::Chunk>), CommitError> {
        let core = self.core;
        let (mut moved, mut named) = (Vec::new(), Vec::new());
        for (chunk, objects) in core.objects.chunks() {
            let to = match chunk.open(self.disk, core.database) {
                Ok(opened) => self.move_objects(&opened, &objects)?,
                Err(_) => None,
            };
            named.extend(rows(to.as_ref().map_or(chunk.file, |to| to.file), &objects));
            if let Some(to) = to {
                let objects = objects.iter().map(|(id, _)| *id).collect();
                moved.push(Moved { from: chunk.file, to, objects });
            }
        }
        Ok((moved, named))
    }

    /// Writes objects of a file into a new one, where they are less than half of it and sound.
    fn move_objects(
        &mut self,
        from: &Chunks,
        objects: &[(ObjectId, u64)],
    ) -> Result<Option<Arc<ChunkFile>>, CommitError> {
        let alive: u64 = objects.iter().filter_map(|(id, _)| from.stored(id)).sum();
        if alive * 2 >= from.stored_bytes() {
            return Ok(None);
        }
        let core = self.core;
        let file = core.new_file();
        let name = files::chunk(file);
        let mut writer = ChunkWriter::create(self.disk, &name, core.database)?;
        // In their order in the file.
        let mut objects: Vec<(ObjectId, u64)> = objects.to_vec();
        objects.sort_by_key(|(id, _)| from.place(id).map(|place| place.start));
        for (id, _) in &objects {
            let Ok(Some(blob)) = from.get(id) else { return Ok(None) };
            // As it lay within its page, so that blobs remain one stretch.
            let place = from.place(id);
            let placement = place.as_ref().map_or(Placement::Begin, |place| Placement::Behind(place.start));
            writer.push(*id, &blob, placement, place.is_none())?;
        }
        self.report.bytes_written += writer.publish()?;
        self.note_made(name);
        Ok(Some(Arc::new(ChunkFile::new(file))))
    }
}
