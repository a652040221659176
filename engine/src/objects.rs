//! Objects: contents of cells and model blobs, found by the hash of their bytes.
//!
//! An object is in memory from its commit until the next checkpoint packs it, or in a chunk file from before its
//! commit. What is in a pack or chunk file is read in place from the mapped file.
//!
//! Each object counts what names it: candidates of cells, versions of cells that readers may still see, versions of
//! models. Counts change where a sequenced transaction is applied, and nowhere else. An object that nothing names is
//! forgotten at the next checkpoint, unless a transaction under way counts on it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::HashMap;
use underbelly_storage::disk::{Disk, File, SharedDisk};
use underbelly_storage::error::StorageError;
use underbelly_storage::object::{Blob, Chunks, ChunksOnDisk, ObjectId, Pack};

use crate::error::ReadError;
use crate::files;
use crate::pending::Pending;
use crate::pool::Pool;

/// Parts into which objects are divided by the first byte of their ids, each with a lock of its own.
const SHARDS: usize = 256;

/// Where an object is.
#[derive(Clone)]
pub(crate) enum Place {
    Memory(Blob),
    /// At this place of its directory.
    Pack(Arc<PackFile>, u32),
    /// Here, with its length.
    Chunk(Arc<ChunkFile>, u64),
}

/// The number of the chunk file of an object that a repair did not find. No file has it.
pub(crate) const LOST: u64 = 0;

impl Place {
    /// The place of an object that a repair did not find.
    pub(crate) fn lost() -> Place {
        Place::Chunk(Arc::new(ChunkFile::new(LOST)), 0)
    }

    fn is_lost(&self) -> bool {
        matches!(self, Place::Chunk(chunk, _) if chunk.file == LOST)
    }

    /// The number of its file, where it is in one.
    fn file(&self) -> Option<u64> {
        match self {
            Place::Memory(_) => None,
            Place::Pack(pack, _) => Some(pack.file),
            Place::Chunk(chunk, _) => (chunk.file != LOST).then_some(chunk.file),
        }
    }

    fn is_mended(&self) -> bool {
        match self {
            Place::Memory(_) => false,
            Place::Pack(pack, _) => pack.is_mended(),
            Place::Chunk(chunk, _) => chunk.is_mended(),
        }
    }

    /// What was here was put again since it cannot be read.
    fn note_mended(&self) {
        match self {
            Place::Memory(_) => {}
            Place::Pack(pack, _) => pack.is_mended.store(true, Ordering::Relaxed),
            Place::Chunk(chunk, _) => chunk.is_mended.store(true, Ordering::Relaxed),
        }
    }
}

pub(crate) struct PackFile {
    pub file: u64,
    pub pack: Pack,
    /// Objects that are found in this pack.
    live: AtomicU64,
    /// Whether one was put again since it could not be read here: the file is written anew without it.
    is_mended: AtomicBool,
    /// Whether an object that something names left it while the file stayed: who was told that it is here is to look again.
    is_left: AtomicBool,
}

impl PackFile {
    pub(crate) fn new(file: u64, pack: Pack) -> PackFile {
        PackFile {
            file,
            pack,
            live: AtomicU64::new(0),
            is_mended: AtomicBool::new(false),
            is_left: AtomicBool::new(false),
        }
    }

    pub(crate) fn live(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }

    pub(crate) fn is_mended(&self) -> bool {
        self.is_mended.load(Ordering::Relaxed)
    }
}

/// A file with large objects.
pub(crate) struct ChunkFile {
    pub file: u64,
    opened: OnceLock<Arc<Chunks>>,
    stored: OnceLock<StoredBytes>,
    /// What is wrong, where a checkpoint found that it cannot be read, until an object of it is found elsewhere.
    damage: Mutex<Option<String>>,
    /// As that of a pack.
    is_mended: AtomicBool,
}

/// How many bytes a chunk file holds, and how many of them are whose.
pub(crate) struct StoredBytes {
    pub all: u64,
    of: BTreeMap<ObjectId, u64>,
}

impl StoredBytes {
    /// Bytes of some of its objects.
    pub(crate) fn of(&self, objects: &[(ObjectId, u64)]) -> u64 {
        objects.iter().filter_map(|(id, _)| self.of.get(id)).sum()
    }
}

impl ChunkFile {
    pub(crate) fn new(file: u64) -> ChunkFile {
        ChunkFile {
            file,
            opened: OnceLock::new(),
            stored: OnceLock::new(),
            damage: Mutex::default(),
            is_mended: AtomicBool::new(false),
        }
    }

    /// The file, which stays mapped no longer than the answer is held, unless somebody reads objects of it.
    pub(crate) fn look(&self, disk: &dyn Disk, database: [u8; 16]) -> Result<Arc<Chunks>, ReadError> {
        match self.opened.get() {
            Some(opened) => Ok(opened.clone()),
            None => Ok(Arc::new(Chunks::open(disk, &files::chunk(self.file), database)?)),
        }
    }

    /// How much it holds, read once; `None` where it is damaged.
    pub(crate) fn stored(
        &self,
        disk: &dyn Disk,
        database: [u8; 16],
    ) -> Result<Option<&StoredBytes>, ReadError> {
        if self.damage().is_some() {
            return Ok(None);
        }
        if let Some(stored) = self.stored.get() {
            return Ok(Some(stored));
        }
        let chunks = match self.look(disk, database) {
            Ok(chunks) => chunks,
            Err(error) if is_damage(&error) => {
                self.note_damage(&error);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let of = chunks.objects().filter_map(|(id, _)| Some((id, chunks.stored(&id)?))).collect();
        let stored = StoredBytes { all: chunks.stored_bytes(), of };
        Ok(Some(self.stored.get_or_init(|| stored)))
    }

    /// Lets later checkpoints pass it over.
    pub(crate) fn note_damage(&self, error: &ReadError) {
        let name = files::chunk(self.file);
        *hold(&self.damage) = Some(format!("{name} cannot be written anew and stays as it is: {error}"));
    }

    pub(crate) fn is_mended(&self) -> bool {
        self.is_mended.load(Ordering::Relaxed)
    }

    /// What is wrong with it, as far as checkpoints know.
    pub(crate) fn damage(&self) -> Option<String> {
        hold(&self.damage).clone()
    }

    /// The mapped file, which stays readable as long as anybody holds the answer.
    pub(crate) fn open(&self, disk: &dyn Disk, database: [u8; 16]) -> Result<Arc<Chunks>, ReadError> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened.clone());
        }
        let opened = Arc::new(Chunks::open(disk, &files::chunk(self.file), database)?);
        Ok(self.opened.get_or_init(|| opened).clone())
    }
}

/// Whether what is read is not what was written; anything else may go better another time.
pub(crate) fn is_damage(error: &ReadError) -> bool {
    use StorageError::{Corrupt, ForeignDatabase, Missing};
    matches!(error, ReadError::Storage(Corrupt { .. } | Missing { .. } | ForeignDatabase { .. }))
}

/// A chunk file of which some object is known.
struct ChunkEntry {
    file: Arc<ChunkFile>,
    /// Its objects that are known, with their lengths.
    live: BTreeMap<ObjectId, u64>,
}

/// A chunk file with its objects and their lengths.
pub(crate) type OfFile = (Arc<ChunkFile>, Vec<(ObjectId, u64)>);

/// An object that is lent: its bytes, or the mapped file that holds them.
#[derive(Clone, Debug)]
pub(crate) enum Lent {
    Blob(Blob),
    Chunk(Arc<Chunks>),
}

/// Where an object was found in a pack, for who keeps it beside the object's id: to find it again touches no other memory
/// of the many objects.
///
/// It is never wrong for an object that something names: no other pack of this process has the number, one that is given
/// back is unknown from then on, and [`PackFile::is_left`] says where an object moved on alone.
#[derive(Default, Debug)]
pub(crate) struct FoundAt(AtomicU64);

impl FoundAt {
    fn get(&self) -> Option<(u64, usize)> {
        let place = self.0.load(Ordering::Relaxed);
        // Files are counted from 1.
        (place != 0).then_some((place >> 32, place as u32 as usize))
    }

    fn set(&self, file: u64, at: u32) {
        let place = u32::try_from(file).map_or(0, |file| u64::from(file) << 32 | u64::from(at));
        self.0.store(place, Ordering::Relaxed);
    }
}

/// Files whose objects are looked at, as they are on the disk by now: each is opened, and its directory read, once for all that
/// one transaction or blob puts.
#[derive(Default)]
pub(crate) struct Looks(HashMap<u64, Option<Look>>);

enum Look {
    Pack(Box<dyn File>),
    Chunks(ChunksOnDisk),
}

/// How many files are kept open so.
const LOOKS_MAX: usize = 16;

struct Entry {
    place: Place,
    /// What names it.
    names: u32,
    /// Whether it stands in the list of those that may be forgotten.
    listed: bool,
}

type Shard = HashMap<ObjectId, Entry>;

/// Ids that something names, each as often as it is named, divided as objects are.
pub(crate) struct Names(Vec<Vec<ObjectId>>);

impl Default for Names {
    fn default() -> Names {
        Names(vec![Vec::new(); SHARDS])
    }
}

impl Names {
    pub(crate) fn push(&mut self, id: ObjectId) {
        self.0[usize::from(id.0[0])].push(id);
    }
}

/// All objects that something names, or named a short while ago.
pub(crate) struct Objects {
    disk: SharedDisk,
    database: [u8; 16],
    shards: Box<[RwLock<Shard>]>,
    packs: RwLock<BTreeMap<u64, Arc<PackFile>>>,
    chunks: Mutex<BTreeMap<u64, ChunkEntry>>,
    /// How often an object was put again and moved from one chunk file to another.
    moves: AtomicU64,
    /// Objects that came into memory since a checkpoint took this list.
    loose: Mutex<Vec<ObjectId>>,
    /// Objects that nothing named at some moment.
    unnamed: Mutex<Vec<ObjectId>>,
    /// Objects that an opening found at later places, and where they were before.
    replaced: Mutex<Vec<(ObjectId, Place)>>,
    /// An object that was named and not stored.
    missing: Mutex<Option<ObjectId>>,
    /// Objects that a repair did not find.
    lost: Mutex<BTreeSet<ObjectId>>,
    /// Whether what is named and not stored counts as lost.
    tolerant: bool,
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn reading<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn writing<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl Objects {
    pub(crate) fn new(disk: SharedDisk, database: [u8; 16]) -> Objects {
        Objects {
            disk,
            database,
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            packs: RwLock::default(),
            chunks: Mutex::default(),
            moves: AtomicU64::new(0),
            loose: Mutex::default(),
            unnamed: Mutex::default(),
            replaced: Mutex::default(),
            missing: Mutex::default(),
            lost: Mutex::default(),
            tolerant: false,
        }
    }

    /// Objects of a damaged database: what is named and not stored is lost.
    pub(crate) fn tolerant(disk: SharedDisk, database: [u8; 16]) -> Objects {
        Objects { tolerant: true, ..Objects::new(disk, database) }
    }

    fn read(&self, id: &ObjectId) -> RwLockReadGuard<'_, Shard> {
        reading(&self.shards[usize::from(id.0[0])])
    }

    fn write(&self, id: &ObjectId) -> RwLockWriteGuard<'_, Shard> {
        writing(&self.shards[usize::from(id.0[0])])
    }

    fn note_chunk(&self, id: ObjectId, chunk: &Arc<ChunkFile>, bytes: u64) {
        let mut chunks = hold(&self.chunks);
        let new = || ChunkEntry { file: chunk.clone(), live: BTreeMap::new() };
        chunks.entry(chunk.file).or_insert_with(new).live.insert(id, bytes);
    }

    fn forget_chunk(&self, id: &ObjectId, file: u64) {
        let mut chunks = hold(&self.chunks);
        if let Some(entry) = chunks.get_mut(&file) {
            entry.live.remove(id);
            // It may have been what was damaged.
            *hold(&entry.file.damage) = None;
            if entry.live.is_empty() {
                chunks.remove(&file);
            }
        }
    }

    /// Whether an object can be read at a place, as the disk is by now.
    fn is_stored(&self, id: &ObjectId, place: &Place, looks: &mut Looks) -> bool {
        let (file, name) = match place {
            Place::Memory(_) => return true,
            Place::Chunk(chunk, _) if chunk.file == LOST => return false,
            Place::Pack(pack, _) => (pack.file, files::pack(pack.file)),
            Place::Chunk(chunk, _) => (chunk.file, files::chunk(chunk.file)),
        };
        if looks.0.len() >= LOOKS_MAX && !looks.0.contains_key(&file) {
            looks.0.clear();
        }
        let found = match looks.0.entry(file) {
            hashbrown::hash_map::Entry::Occupied(known) => known.into_mut(),
            hashbrown::hash_map::Entry::Vacant(vacant) => {
                let look = match place {
                    Place::Pack(pack, _) => pack.pack.look(&*self.disk).map(Look::Pack),
                    _ => ChunksOnDisk::open(&*self.disk, &name, self.database).map(Look::Chunks),
                };
                vacant.insert(look.ok())
            }
        };
        match (found, place) {
            (Some(Look::Pack(file)), Place::Pack(pack, at)) => {
                pack.pack.is_stored(&**file, *at as usize, id).unwrap_or(false)
            }
            (Some(Look::Chunks(chunks)), Place::Chunk(_, bytes)) => {
                chunks.is_stored(id, *bytes).unwrap_or(false)
            }
            _ => false,
        }
    }

    /// An object is found at a place no more.
    fn leave(&self, id: &ObjectId, place: Place) {
        match place {
            Place::Memory(_) => {}
            Place::Pack(pack, _) => {
                pack.live.fetch_sub(1, Ordering::Relaxed);
            }
            Place::Chunk(chunk, _) if chunk.file == LOST => {
                hold(&self.lost).remove(id);
            }
            Place::Chunk(chunk, _) => {
                // Before it goes: who read the new place's part before looks again.
                self.moves.fetch_add(1, Ordering::Release);
                self.forget_chunk(id, chunk.file);
            }
        }
    }

    /// Stores an object as a manifest or the log says, for all that name it: of several places the one that is told last counts,
    /// unless that before can be read, as the same bytes, and it cannot for whatever reason. Answers where it was before.
    pub(crate) fn insert(&self, id: ObjectId, place: Place) -> Option<Place> {
        if let Some(known) = self.place(&id).filter(|known| !known.is_lost()) {
            let mut looks = Looks::default();
            let is_new = known.file().is_some() && known.file() != place.file();
            let mut is_there = |place| self.is_stored(&id, place, &mut looks);
            if place.is_lost() || is_new && !is_there(&place) && is_there(&known) {
                return None;
            }
        }
        self.place_at(id, place, false)
    }

    /// Stores an object that was written just now, since [`Objects::is_sound`] said that it is to be.
    pub(crate) fn put(&self, id: ObjectId, place: Place) {
        self.place_at(id, place, true);
    }

    /// `is_mend`: it was written just now, and what is known of it cannot be read. Answers where it was before.
    fn place_at(&self, id: ObjectId, place: Place, is_mend: bool) -> Option<Place> {
        let mut shard = self.write(&id);
        let entry = shard.entry(id);
        if let hashbrown::hash_map::Entry::Occupied(known) = &entry {
            let stays = match (&known.get().place, &place) {
                (Place::Memory(_), _) => true,
                (Place::Chunk(known, _), Place::Chunk(new, _)) => known.file == new.file,
                _ => false,
            };
            if stays {
                return None;
            }
        }
        match &place {
            Place::Memory(_) => hold(&self.loose).push(id),
            Place::Pack(pack, _) => {
                pack.live.fetch_add(1, Ordering::Relaxed);
            }
            Place::Chunk(chunk, _) if chunk.file == LOST => {
                hold(&self.lost).insert(id);
            }
            Place::Chunk(chunk, bytes) => self.note_chunk(id, chunk, *bytes),
        }
        match entry {
            hashbrown::hash_map::Entry::Occupied(mut known) => {
                let is_named = known.get().names > 0;
                let before = std::mem::replace(&mut known.get_mut().place, place);
                if let Place::Pack(pack, _) = &before
                    && is_named
                {
                    pack.is_left.store(true, Ordering::Relaxed);
                }
                // What nothing named is put again as if it were new.
                if is_mend && is_named {
                    before.note_mended();
                }
                self.leave(&id, before.clone());
                before.file().map(|_| before)
            }
            hashbrown::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(Entry { place, names: 0, listed: true });
                hold(&self.unnamed).push(id);
                None
            }
        }
    }

    /// Notes what an opening found at later places, for the first checkpoint to look at.
    pub(crate) fn note_replaced(&self, mut replaced: Vec<(ObjectId, Place)>) {
        hold(&self.replaced).append(&mut replaced);
    }

    /// Looks which of the places that an opening found to be replaced cannot be read: their files are written anew. An opening does
    /// not, since it would read each object.
    pub(crate) fn look_at_replaced(&self) {
        let mut replaced = std::mem::take(&mut *hold(&self.replaced));
        replaced.sort_unstable_by_key(|(id, place)| (place.file(), *id));
        let mut looks = Looks::default();
        for (id, place) in replaced {
            if !place.is_mended() && !self.is_stored(&id, &place, &mut looks) {
                place.note_mended();
            }
        }
    }

    /// Stores all objects of packs that are not stored; of several packs the newest counts. They are not listed as
    /// unnamed: see [`Objects::list_unnamed`].
    pub(crate) fn add_packs(&self, packs: &[Arc<PackFile>], pool: &Pool) {
        writing(&self.packs).extend(packs.iter().map(|pack| (pack.file, pack.clone())));
        let ids: Vec<Vec<ObjectId>> = packs.iter().map(|pack| pack.pack.ids().collect()).collect();
        let add = |(first, shard): (usize, &RwLock<Shard>)| {
            let begin = |ids: &[ObjectId], first| ids.partition_point(|id| usize::from(id.0[0]) < first);
            let part = |ids: &Vec<ObjectId>| begin(ids, first)..begin(ids, first + 1);
            let parts: Vec<Range<usize>> = ids.iter().map(part).collect();
            let mut shard = writing(shard);
            shard.reserve(parts.iter().map(|part| part.len()).sum());
            for ((pack, ids), part) in packs.iter().zip(&ids).zip(parts) {
                let mut live = 0;
                let from = part.start;
                for (id, at) in ids.get(part).unwrap_or_default().iter().zip(from as u32..) {
                    let place = Place::Pack(pack.clone(), at);
                    match shard.entry(*id) {
                        hashbrown::hash_map::Entry::Vacant(vacant) => {
                            vacant.insert(Entry { place, names: 0, listed: false });
                        }
                        hashbrown::hash_map::Entry::Occupied(mut known) => match &known.get().place {
                            Place::Pack(before, _) if before.file < pack.file => {
                                before.live.fetch_sub(1, Ordering::Relaxed);
                                known.get_mut().place = place;
                            }
                            _ => continue,
                        },
                    }
                    live += 1;
                }
                pack.live.fetch_add(live, Ordering::Relaxed);
            }
            Ok::<(), ()>(())
        };
        let _ = pool.map(self.shards.iter().enumerate().collect(), add);
    }

    /// Counts many names at once. Answers with one that is not stored, if there is such a one.
    pub(crate) fn name_all(&self, names: &Names, pool: &Pool) -> Result<(), ObjectId> {
        let count = |(shard, names): (&RwLock<Shard>, &Vec<ObjectId>)| {
            if self.tolerant {
                return names.iter().try_for_each(|id| if self.name(id) { Ok(()) } else { Err(*id) });
            }
            let mut shard = writing(shard);
            names.iter().try_for_each(|id| {
                let entry = shard.get_mut(id).ok_or(*id)?;
                entry.names = entry.names.saturating_add(1);
                Ok(())
            })
        };
        pool.map(self.shards.iter().zip(&names.0).collect(), count).map(drop)
    }

    /// Lists what nothing names, once after everything was restored.
    pub(crate) fn list_unnamed(&self) {
        for shard in &self.shards {
            let mut shard = writing(shard);
            for (id, entry) in shard.iter_mut().filter(|(_, entry)| entry.names == 0 && !entry.listed) {
                entry.listed = true;
                hold(&self.unnamed).push(*id);
            }
        }
    }

    /// Something more names an object. False where it is not stored, which ends checkpoints: the log is kept.
    pub(crate) fn name(&self, id: &ObjectId) -> bool {
        if let Some(entry) = self.write(id).get_mut(id) {
            entry.names = entry.names.saturating_add(1);
            return true;
        }
        if self.tolerant {
            self.place_at(*id, Place::lost(), false);
            return self.name(id);
        }
        hold(&self.missing).get_or_insert(*id);
        false
    }

    /// Something names an object no more.
    pub(crate) fn unname(&self, id: &ObjectId) {
        let mut shard = self.write(id);
        let Some(entry) = shard.get_mut(id) else { return };
        // One that was named so often stays for good: how often is not known any more.
        if entry.names < u32::MAX {
            entry.names = entry.names.saturating_sub(1);
        }
        if entry.names == 0 && !entry.listed {
            entry.listed = true;
            hold(&self.unnamed).push(*id);
        }
    }

    /// An object that was named and not stored, if there is such a one.
    pub(crate) fn missing(&self) -> Option<ObjectId> {
        *hold(&self.missing)
    }

    /// Whether an object is stored. One that was lost is not, so that it is stored anew when it is put again.
    pub(crate) fn contains(&self, id: &ObjectId) -> bool {
        self.read(id).get(id).is_some_and(|entry| !entry.place.is_lost())
    }

    /// Whether an object that is put again need not be stored anew: something names it, and all of it can be read, as the disk is
    /// by now, where `looks` are given. What nothing names any more may stand in the newest checkpoint's files alone, and neither in those
    /// of the one before nor in the log behind that: an opening that falls back would not find it.
    pub(crate) fn may_stay(&self, id: &ObjectId, looks: Option<&mut Looks>) -> bool {
        let is_there = |entry: &&Entry| entry.names > 0 && !entry.place.is_lost();
        let place = self.read(id).get(id).filter(is_there).map(|entry| entry.place.clone());
        place.is_some_and(|place| looks.is_none_or(|looks| self.is_stored(id, &place, looks)))
    }

    /// Whether something names an object that is found in this file.
    pub(crate) fn is_needed(&self, id: &ObjectId, in_file: u64) -> bool {
        self.read(id).get(id).is_some_and(|entry| {
            let is_there = match &entry.place {
                Place::Memory(_) => false,
                Place::Pack(pack, _) => pack.file == in_file,
                Place::Chunk(chunk, _) => chunk.file == in_file,
            };
            is_there && entry.names > 0
        })
    }

    /// Whether an object may be named: it is stored, or known to be lost.
    pub(crate) fn is_known(&self, id: &ObjectId) -> bool {
        self.tolerant || self.read(id).contains_key(id)
    }

    /// Objects that are lost.
    pub(crate) fn all_lost(&self) -> BTreeSet<ObjectId> {
        hold(&self.lost).clone()
    }

    /// Whether a repair did not find an object.
    pub(crate) fn is_lost(&self, id: &ObjectId) -> bool {
        hold(&self.lost).contains(id)
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| reading(shard).len()).sum()
    }

    fn place(&self, id: &ObjectId) -> Option<Place> {
        self.read(id).get(id).map(|entry| entry.place.clone())
    }

    pub(crate) fn get(&self, id: &ObjectId) -> Result<Blob, ReadError> {
        self.bytes_at(id, self.place(id))
    }

    /// The bytes of an object that is at a place.
    fn bytes_at(&self, id: &ObjectId, place: Option<Place>) -> Result<Blob, ReadError> {
        let missing = || ReadError::MissingObject { object: id.to_string() };
        match place.ok_or_else(missing)? {
            Place::Memory(blob) => Ok(blob),
            Place::Pack(pack, at) => pack.pack.get_at(at as usize, id)?.ok_or_else(missing),
            Place::Chunk(chunk, _) if chunk.file == LOST => {
                Err(ReadError::LostObject { object: id.to_string() })
            }
            Place::Chunk(chunk, bytes) => {
                let chunks = self.open_chunk(&chunk, id, bytes)?;
                chunks.get(id)?.ok_or_else(missing)
            }
        }
    }

    /// The mapped file that holds an object of so many bytes.
    fn open_chunk(&self, chunk: &ChunkFile, id: &ObjectId, bytes: u64) -> Result<Arc<Chunks>, ReadError> {
        let chunks = chunk.open(&*self.disk, self.database)?;
        let what = match chunks.length(id) {
            Some(found) if found == bytes => return Ok(chunks),
            Some(found) => format!("it holds {found} bytes of object {id}, not the {bytes} committed"),
            None => format!("it does not hold object {id}"),
        };
        Err(StorageError::corrupt(&files::chunk(chunk.file), 0, what).into())
    }

    /// An object, of which nothing is read where it is in a chunk file.
    pub(crate) fn lend(&self, id: &ObjectId) -> Result<Lent, ReadError> {
        self.lend_at(id, self.place(id))
    }

    fn lend_at(&self, id: &ObjectId, place: Option<Place>) -> Result<Lent, ReadError> {
        match place {
            Some(Place::Chunk(chunk, bytes)) if chunk.file != LOST => {
                self.open_chunk(&chunk, id, bytes).map(Lent::Chunk)
            }
            place => self.bytes_at(id, place).map(Lent::Blob),
        }
    }

    /// The same for an object that something names, by where it was found last.
    pub(crate) fn lend_from(&self, found: &FoundAt, id: &ObjectId) -> Result<Lent, ReadError> {
        let known = found.get().and_then(|(file, at)| Some((reading(&self.packs).get(&file)?.clone(), at)));
        if let Some((pack, at)) = known.filter(|(pack, _)| !pack.is_left.load(Ordering::Relaxed))
            && let Some(blob) = pack.pack.get_at(at, id)?
        {
            return Ok(Lent::Blob(blob));
        }
        let place = self.place(id);
        if let Some(Place::Pack(pack, at)) = &place {
            found.set(pack.file, *at);
        }
        self.lend_at(id, place)
    }

    /// Ids and places of all objects, in order of the ids.
    pub(crate) fn all(&self) -> Vec<(ObjectId, Place)> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let shard = reading(shard);
            let from = all.len();
            all.extend(shard.iter().map(|(id, entry)| (*id, entry.place.clone())));
            all[from..].sort_by_key(|(id, _)| *id);
        }
        all
    }

    /// Forgets what nothing names and nobody counts on.
    ///
    /// Who counts on an object pins it before asking for it, and asking waits for the lock that is held here; so
    /// nobody can be told that an object is stored and then find it forgotten.
    pub(crate) fn forget_unnamed(&self, pending: &Pending) {
        let listed = std::mem::take(&mut *hold(&self.unnamed));
        for id in listed {
            let mut shard = self.write(&id);
            let hashbrown::hash_map::Entry::Occupied(mut found) = shard.entry(id) else { continue };
            if found.get().names > 0 {
                found.get_mut().listed = false;
            } else if pending.is_pinned(&id) {
                hold(&self.unnamed).push(id);
            } else {
                self.leave(&id, found.remove().place);
            }
        }
    }

    /// The objects that came into memory since the last time.
    pub(crate) fn take_loose(&self) -> Vec<ObjectId> {
        std::mem::take(&mut *hold(&self.loose))
    }

    /// Gives back what was taken and not packed.
    pub(crate) fn give_back_loose(&self, ids: Vec<ObjectId>) {
        hold(&self.loose).extend(ids);
    }

    /// The bytes of an object that is in memory, or in this pack.
    pub(crate) fn bytes_in(
        &self,
        id: &ObjectId,
        within: Option<&PackFile>,
    ) -> Result<Option<Blob>, ReadError> {
        match (self.place(id), within) {
            (Some(Place::Memory(blob)), None) => Ok(Some(blob)),
            (Some(Place::Pack(found, at)), Some(pack)) if found.file == pack.file => {
                Ok(pack.pack.get_at(at as usize, id)?)
            }
            _ => Ok(None),
        }
    }

    /// All packs, by their numbers.
    pub(crate) fn packs(&self) -> Vec<Arc<PackFile>> {
        reading(&self.packs).values().cloned().collect()
    }

    /// All chunk files by their numbers, each with its objects and their lengths. Read a part at a time, since commits add
    /// to them, and again where an object moved meanwhile, which may stand in no part then.
    pub(crate) fn chunks(&self) -> Vec<OfFile> {
        self.chunks_by_parts(1024, || ())
    }

    fn chunks_by_parts(&self, part_files: usize, between: impl Fn()) -> Vec<OfFile> {
        let mut all: Vec<OfFile> = Vec::new();
        let mut moves = self.moves.load(Ordering::Acquire);
        loop {
            let from = all.last().map_or(0, |(last, _)| last.file + 1);
            let before = all.len();
            let chunks = hold(&self.chunks);
            let part = chunks.range(from..).take(part_files);
            all.extend(part.map(|(_, entry)| {
                (entry.file.clone(), entry.live.iter().map(|(id, bytes)| (*id, *bytes)).collect())
            }));
            drop(chunks);
            let since = std::mem::replace(&mut moves, self.moves.load(Ordering::Acquire));
            if moves != since {
                all.clear();
            } else if all.len() - before < part_files {
                return all;
            }
            between();
        }
    }

    /// Puts objects of a new chunk file in the place of those of an older one.
    pub(crate) fn settle_chunks(&self, moved: &[ObjectId], from: u64, to: &Arc<ChunkFile>) {
        for id in moved {
            if let Some(entry) = self.write(id).get_mut(id)
                && let Place::Chunk(before, bytes) = &entry.place
                && before.file == from
            {
                let bytes = *bytes;
                self.note_chunk(*id, to, bytes);
                let before = std::mem::replace(&mut entry.place, Place::Chunk(to.clone(), bytes));
                self.leave(id, before);
            }
        }
    }

    /// Puts a new pack in the place of memory, and of packs that it took in.
    pub(crate) fn settle(&self, packed: &[ObjectId], pack: Option<&Arc<PackFile>>, taken_in: &[u64]) {
        if let Some(pack) = pack {
            writing(&self.packs).insert(pack.file, pack.clone());
            for id in packed {
                // At most 2^24.
                let Some(at) = pack.pack.position(id) else { continue };
                if let Some(entry) = self.write(id).get_mut(id) {
                    let before = std::mem::replace(&mut entry.place, Place::Pack(pack.clone(), at as u32));
                    pack.live.fetch_add(1, Ordering::Relaxed);
                    self.leave(id, before);
                }
            }
        }
        // Files are let go of behind the lock, for which every look-up waits.
        let gone: Vec<_> = {
            let mut packs = writing(&self.packs);
            taken_in.iter().map(|file| packs.remove(file)).collect()
        };
        drop(gone);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use underbelly_storage::disk::SimulatedDisk;

    use super::*;

    /// What a checkpoint lists by parts while somebody puts an object again, which moves from a file of a later part into one
    /// of a part that was read, is in the list.
    #[test]
    fn an_object_that_moves_while_files_are_listed_is_in_the_list() {
        let objects = Objects::new(Arc::new(SimulatedDisk::new()), [0; 16]);
        let files: Vec<Arc<ChunkFile>> = (1..=6).map(|file| Arc::new(ChunkFile::new(file))).collect();
        let id = |n: usize| ObjectId([n as u8; 32]);
        for (n, file) in files.iter().enumerate() {
            objects.put(id(n), Place::Chunk(file.clone(), 1));
        }
        let moved = AtomicBool::new(false);
        let listed = objects.chunks_by_parts(2, || {
            if !moved.swap(true, Ordering::Relaxed) {
                objects.put(id(4), Place::Chunk(files[0].clone(), 1));
            }
        });
        let ids: BTreeSet<ObjectId> =
            listed.iter().flat_map(|(_, live)| live.iter().map(|(id, _)| *id)).collect();
        assert!(moved.into_inner() && ids == (0..6).map(id).collect(), "{}", ids.len());
        // So it is where a checkpoint moves what lies in a file of a later part.
        let (moved, to) = (AtomicBool::new(false), Arc::new(ChunkFile::new(0)));
        let listed = objects.chunks_by_parts(2, || {
            if !moved.swap(true, Ordering::Relaxed) {
                objects.settle_chunks(&[id(5)], 6, &to);
            }
        });
        let ids: BTreeSet<ObjectId> =
            listed.iter().flat_map(|(_, live)| live.iter().map(|(id, _)| *id)).collect();
        assert!(moved.into_inner() && ids == (0..6).map(id).collect(), "{}", ids.len());
    }
}
