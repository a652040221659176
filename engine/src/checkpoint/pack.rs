//! Objects in memory become packs.

use std::sync::Arc;

use underbelly_storage::object::{Blob, ObjectId, Pack, write_pack};

use super::Attempt;
use crate::error::CommitError;
use crate::files;
use crate::limits::{SMALL_FILE_BYTES, SMALL_PACKS_MAX};
use crate::objects::{LOST, PackFile};
use crate::record::v1;

/// What packing decided.
pub(super) struct Packing {
    pub packs: Vec<u64>,
    pub chunks: Vec<v1::Chunk>,
    pub packed: Vec<ObjectId>,
    pub pack: Option<Arc<PackFile>>,
    /// Packs whose objects moved, or that hold none any more.
    pub taken_in: Vec<u64>,
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
        let chunk = |(file, id, bytes): (u64, ObjectId, u64)| v1::Chunk { id: id.0, file, bytes };
        let lost = objects.all_lost().into_iter().map(|id| v1::Chunk { id: id.0, file: LOST, bytes: 0 });
        let mut packing = Packing {
            packs: full.iter().map(|pack| pack.file).collect(),
            chunks: objects.chunks().into_iter().map(chunk).chain(lost).collect(),
            packed: Vec::new(),
            pack: None,
            taken_in: sparse.iter().map(|pack| pack.file).collect(),
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
}
