//! Objects: contents of cells and model blobs, found by the hash of their bytes.
//!
//! An object is in memory from its commit until the next checkpoint packs it, or in a chunk file from before its
//! commit. What is in a pack or chunk file is read in place from the mapped file.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use underbelly_storage::disk::SharedDisk;
use underbelly_storage::error::StorageError;
use underbelly_storage::object::{Blob, ObjectId, Pack, open_chunk};

use crate::error::ReadError;
use crate::files;
use crate::pending::Pending;

/// Where an object is.
#[derive(Clone)]
pub(crate) enum Place {
    Memory(Blob),
    Pack(Arc<PackFile>),
    Chunk(Arc<ChunkFile>),
}

impl Place {
    /// The file that holds the object, if it is in one.
    pub(crate) fn file_name(&self) -> Option<String> {
        match self {
            Place::Memory(_) => None,
            Place::Pack(pack) => Some(files::pack(pack.file)),
            Place::Chunk(chunk) => Some(files::chunk(chunk.file)),
        }
    }
}

pub(crate) struct PackFile {
    pub file: u64,
    pub pack: Pack,
}

pub(crate) struct ChunkFile {
    pub file: u64,
    pub bytes: u64,
    blob: OnceLock<Blob>,
}

impl ChunkFile {
    pub(crate) fn new(file: u64, bytes: u64) -> ChunkFile {
        ChunkFile { file, bytes, blob: OnceLock::new() }
    }
}

/// All objects that something names.
pub(crate) struct Objects {
    disk: SharedDisk,
    database: [u8; 16],
    places: RwLock<HashMap<ObjectId, Place>>,
}

impl Objects {
    pub(crate) fn new(disk: SharedDisk, database: [u8; 16]) -> Objects {
        Objects { disk, database, places: RwLock::default() }
    }

    pub(crate) fn insert(&self, id: ObjectId, place: Place) {
        self.places.write().unwrap_or_else(PoisonError::into_inner).entry(id).or_insert(place);
    }

    pub(crate) fn contains(&self, id: &ObjectId) -> bool {
        self.places.read().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }

    pub(crate) fn len(&self) -> usize {
        self.places.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(crate) fn get(&self, id: &ObjectId) -> Result<Blob, ReadError> {
        let place = self.places.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        let missing = || ReadError::MissingObject { object: id.to_string() };
        match place.ok_or_else(missing)? {
            Place::Memory(blob) => Ok(blob),
            Place::Pack(pack) => pack.pack.get(id)?.ok_or_else(missing),
            Place::Chunk(chunk) => {
                if let Some(blob) = chunk.blob.get() {
                    return Ok(blob.clone());
                }
                let name = files::chunk(chunk.file);
                let blob = open_chunk(&*self.disk, &name, self.database, *id)?;
                if blob.len() as u64 != chunk.bytes {
                    let what = format!("it holds {} bytes, not the {} committed", blob.len(), chunk.bytes);
                    return Err(StorageError::corrupt(&name, 0, what).into());
                }
                Ok(chunk.blob.get_or_init(|| blob).clone())
            }
        }
    }

    /// Ids and places of all objects, in order of the ids.
    pub(crate) fn all(&self) -> Vec<(ObjectId, Place)> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = places.iter().map(|(id, place)| (*id, place.clone())).collect();
        all.sort_by_key(|(id, _)| *id);
        all
    }

    /// Forgets what is neither named in `named` nor pinned, and answers which objects are left.
    ///
    /// Who counts on an object pins it before asking for it, and asking waits for the lock that is held here; so
    /// nobody can be told that an object is stored and then find it forgotten.
    pub(crate) fn keep_live(&self, named: &HashSet<ObjectId>, pending: &Pending) -> HashSet<ObjectId> {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        let pinned: HashSet<ObjectId> = pending.objects().into_iter().collect();
        places.retain(|id, _| named.contains(id) || pinned.contains(id));
        places.keys().copied().collect()
    }

    /// Moves objects that were packed to their pack.
    pub(crate) fn settle(&self, packed: &[ObjectId], pack: Option<&Arc<PackFile>>) {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(pack) = pack {
            for id in packed {
                places.insert(*id, Place::Pack(pack.clone()));
            }
        }
    }
}
