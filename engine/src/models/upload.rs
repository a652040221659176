//! Blobs that are written ahead of the transaction that puts them: as a stream, chunk by chunk.
//!
//! A chunk that is stored already is not written again, unless what is stored cannot be read. The others go into one file, which is sealed before anybody can
//! name it. Until a transaction does, what was written is nobody's: where the process ends before, the next opening
//! removes it, and else a checkpoint does once nobody holds it.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use underbelly_storage::object::{Blob, ChunkWriter, ObjectId, Placement};

use super::content::Content;
use super::tensors;
use crate::core::Core;
use crate::error::CommitError;
use crate::files;
use crate::limits::BLOB_BYTES_MAX;
use crate::objects::{ChunkFile, Lent, Looks};
use crate::pending::{OwnPins, Pending};

/// What the hash of a blob of several chunks begins with; the number is the version of the list behind it.
const LIST_PREFIX: &[u8] = b"underbelly.blob.v1\0";

/// Takes the bytes of a blob as they come. Memory does not grow with their number: beside a chunk of
/// [`Options::chunk_bytes`](crate::Options::chunk_bytes) up to 24 MiB, as a thread writes what was taken while more is.
///
/// ```
/// # use std::io::Write;
/// # use std::sync::Arc;
/// # use underbelly::{Batch, Database, Metadata, Options, SimulatedDisk, Timestamp};
/// # let db = Database::create_on(Arc::new(SimulatedDisk::new()), Options::default())?;
/// let mut writer = db.blob_writer();
/// writer.write_all(b"weights")?;
/// let stored = writer.finish()?;
/// let mut batch = Batch::new();
/// batch.put_model_stored(Metadata::new("net").with("timestamp", Timestamp(0)), &stored);
/// db.commit(batch)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct BlobWriter<'db> {
    core: &'db Core,
    pins: OwnPins,
    /// Bytes that are in no chunk yet.
    buffer: Vec<u8>,
    /// Length of the next chunk; none as long as all may fit into the log.
    cut: Option<usize>,
    /// Bytes up to which a blob may go into the log.
    small_max: usize,
    /// Whether the caller has entered the folder.
    is_inside: bool,
    compress: bool,
    chunks: Vec<(ObjectId, u64)>,
    /// Chunks that are in the file.
    written: HashMap<ObjectId, u64>,
    /// Files with chunks that may be stored.
    looks: Looks,
    /// The file under way.
    file: Option<Unfinished<'db>>,
    bytes: u64,
    /// Something of it could not be taken or written.
    failed: bool,
}

/// A file of chunks that is not whole yet. One that is given up after the close stays: the folder may be another writer's.
struct Unfinished<'db> {
    core: &'db Core,
    number: u64,
    /// Whether the caller has entered the folder.
    is_inside: bool,
    writer: Option<ChunkWriter<'db>>,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let Some(writer) = self.writer.take() else { return };
        // Held until what there is of it is removed.
        let folder = (!self.is_inside).then(|| self.core.enter());
        if matches!(folder, Some(Err(_))) {
            writer.leave();
        } else {
            drop(writer);
        }
    }
}

impl<'db> BlobWriter<'db> {
    pub(crate) fn new(core: &'db Core) -> BlobWriter<'db> {
        BlobWriter {
            core,
            pins: core.pending.pin_ahead(),
            buffer: Vec::new(),
            cut: None,
            small_max: core.inline_bytes_max(),
            is_inside: false,
            compress: false,
            chunks: Vec::new(),
            written: HashMap::new(),
            looks: Looks::default(),
            file: None,
            bytes: 0,
            failed: false,
        }
    }

    /// The bytes of one blob that does not go into the log; the caller has entered the folder.
    pub(crate) fn write(core: &Core, bytes: &[u8]) -> Result<StoredBlob, CommitError> {
        let mut writer = BlobWriter { is_inside: true, ..BlobWriter::new(core) };
        // What would go into the log were there less beside it is the same object here.
        let is_small = bytes.len() <= writer.small_max;
        writer.cut = Some(if is_small { usize::MAX } else { first_cut(bytes, core.options.chunk_bytes) });
        writer.push(bytes)?;
        writer.finish()
    }

    /// Whether chunks are compressed where that saves an eighth. They are then copied when they are read, not lent in
    /// place. Best set before the first byte.
    pub fn compressed(mut self, compressed: bool) -> BlobWriter<'db> {
        self.compress = compressed;
        self
    }

    /// Takes bytes.
    ///
    /// # Errors
    /// [`CommitError::TooLarge`] above a tebibyte; [`CommitError::Storage`] where the disk refuses these bytes or earlier ones, a full
    /// disk among the reasons; [`CommitError::Closed`]. After an error there will be no blob: everything else answers [`CommitError::BlobFailed`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), CommitError> {
        if std::mem::replace(&mut self.failed, true) {
            return Err(CommitError::BlobFailed);
        }
        self.take(bytes)?;
        self.failed = false;
        Ok(())
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), CommitError> {
        let found = self.bytes.saturating_add(bytes.len() as u64);
        if found > BLOB_BYTES_MAX {
            let (what, remedy) = ("a blob in bytes", "put it as several models");
            return Err(CommitError::TooLarge { what, found, limit: BLOB_BYTES_MAX, remedy });
        }
        self.bytes = found;
        while !bytes.is_empty() {
            let wanted = self.cut.unwrap_or(self.small_max + 1);
            let (now, later) = bytes.split_at(wanted.saturating_sub(self.buffer.len()).min(bytes.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() >= wanted {
                let mut cut =
                    self.cut.unwrap_or_else(|| first_cut(&self.buffer, self.core.options.chunk_bytes));
                while self.buffer.len() >= cut {
                    // A short one stands in front; what follows begins with a page.
                    let is_short = cut != self.core.options.chunk_bytes;
                    self.end_chunk(cut, if is_short { Placement::End } else { Placement::Begin })?;
                    cut = self.core.options.chunk_bytes;
                }
                self.cut = Some(cut);
            }
        }
        Ok(())
    }

    /// Takes all that a reader gives.
    ///
    /// # Errors
    /// As [`BlobWriter::push`]; [`CommitError::Source`] where the reader fails.
    pub fn copy(&mut self, mut source: impl Read) -> Result<u64, CommitError> {
        let mut step = vec![0; 1 << 20];
        let before = self.bytes;
        loop {
            match source.read(&mut step) {
                Ok(0) => return Ok(self.bytes - before),
                Ok(read) => self.push(step.get(..read).unwrap_or_default())?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    self.failed = true;
                    return Err(CommitError::Source { source });
                }
            }
        }
    }

    /// Writes so many bytes as a chunk, if it is not stored.
    fn end_chunk(&mut self, bytes: usize, placement: Placement) -> Result<(), CommitError> {
        let chunk = self.buffer.get(..bytes).unwrap_or_default();
        let id = ObjectId::of(chunk);
        self.pins.object(id);
        // What is stored and damaged or gone is written anew, which mends whatever else names it.
        if !self.written.contains_key(&id) && !self.core.objects.may_stay(&id, Some(&mut self.looks)) {
            // Not held in between, so that who closes the database waits for a chunk and not for the blob.
            let _folder = if self.is_inside { None } else { Some(self.core.enter()?) };
            let core = self.core;
            let unfinished = match &mut self.file {
                Some(file) => file,
                none => {
                    let file = core.new_file();
                    self.pins.file(file);
                    core.disk_dir(files::CHUNKS_DIR)?;
                    let mut writer = ChunkWriter::create(&*core.disk, &files::chunk(file), core.database)?;
                    if core.options.workers > 0 {
                        writer.write_aside(&core.aside);
                    }
                    let is_inside = self.is_inside;
                    none.insert(Unfinished { core, number: file, is_inside, writer: Some(writer) })
                }
            };
            if let Some(writer) = &mut unfinished.writer {
                writer.push(id, chunk, placement, self.compress)?;
            }
            self.written.insert(id, bytes as u64);
        }
        self.chunks.push((id, bytes as u64));
        self.buffer.drain(..bytes);
        Ok(())
    }

    /// The blob, which is durable now and nobody's. What is small enough for the log is in memory.
    ///
    /// # Errors
    /// As [`BlobWriter::push`].
    pub fn finish(mut self) -> Result<StoredBlob, CommitError> {
        if self.failed {
            return Err(CommitError::BlobFailed);
        }
        if self.cut.is_none() {
            let bytes = std::mem::take(&mut self.buffer);
            return Ok(StoredBlob::small(bytes.into(), self.pins));
        }
        if !self.buffer.is_empty() || self.chunks.is_empty() {
            self.end_chunk(self.buffer.len(), Placement::Begin)?;
        }
        let mut file = None;
        if let Some(mut unfinished) = self.file.take() {
            let _folder = if self.is_inside { None } else { Some(self.core.enter()?) };
            unfinished.writer.take().map_or(Ok(0), ChunkWriter::publish)?;
            file = Some(Arc::new(ChunkFile::new(unfinished.number)));
        }
        Ok(StoredBlob(Arc::new(Stored {
            object: hash_of_chunks(&self.chunks),
            bytes: self.bytes,
            // One chunk is the blob.
            chunks: if self.chunks.len() == 1 { Arc::default() } else { self.chunks.into() },
            file,
            written: self.written,
            small: None,
            pins: self.pins,
        })))
    }
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where the first chunk ends: so that the data of a safetensors blob begins a chunk of its own.
fn first_cut(first: &[u8], chunk_bytes: usize) -> usize {
    match tensors::data_at(first).map_or(0, |data| data as usize % chunk_bytes) {
        0 => chunk_bytes,
        over => over,
    }
}

/// The hash of a blob: that of its one chunk, or of the list of its chunks.
pub(crate) fn hash_of_chunks(chunks: &[(ObjectId, u64)]) -> ObjectId {
    if let [(id, _)] = chunks {
        return *id;
    }
    let mut list = LIST_PREFIX.to_vec();
    for (id, bytes) in chunks {
        list.extend_from_slice(&bytes.to_le_bytes());
        list.extend_from_slice(&id.0);
    }
    ObjectId::of(&list)
}

/// The hash of a blob that is cut into chunks so long, as [`BlobWriter::write`] does.
pub(super) fn content_of(bytes: &[u8], chunk_bytes: usize) -> ObjectId {
    let (first, rest) = bytes.split_at(first_cut(bytes, chunk_bytes).min(bytes.len()));
    let chunks = std::iter::once(first).chain(rest.chunks(chunk_bytes));
    hash_of_chunks(&chunks.map(|chunk| (ObjectId::of(chunk), chunk.len() as u64)).collect::<Vec<_>>())
}

/// A blob that is stored and that transactions may put. Cheap to clone; what nobody puts goes once the last clone is
/// dropped.
#[derive(Clone)]
pub struct StoredBlob(Arc<Stored>);

struct Stored {
    object: ObjectId,
    bytes: u64,
    chunks: Arc<[(ObjectId, u64)]>,
    /// The file with the chunks that were not stored before.
    file: Option<Arc<ChunkFile>>,
    written: HashMap<ObjectId, u64>,
    small: Option<Blob>,
    pins: OwnPins,
}

impl fmt::Debug for StoredBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredBlob({} bytes, {})", self.0.bytes, self.0.object)
    }
}

impl StoredBlob {
    fn small(blob: Blob, pins: OwnPins) -> StoredBlob {
        StoredBlob(Arc::new(Stored {
            object: ObjectId::of(&blob),
            bytes: blob.len() as u64,
            chunks: Arc::default(),
            file: None,
            written: HashMap::new(),
            small: Some(blob),
            pins,
        }))
    }

    /// The hash of the blob: the same for the same bytes, cut into the same chunks.
    pub fn content(&self) -> ObjectId {
        self.0.object
    }

    /// Length of the blob.
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// Bytes of it that no stored chunk holds, before they are compressed; all of a blob that goes through the log.
    pub fn bytes_written(&self) -> u64 {
        self.0.small.as_ref().map_or_else(|| self.0.written.values().sum(), |blob| blob.len() as u64)
    }

    /// The bytes, where they are in memory.
    pub(crate) fn in_memory(&self) -> Option<&Blob> {
        self.0.small.as_ref()
    }

    /// Ids and lengths of the chunks; none where there is one alone.
    pub(crate) fn chunks(&self) -> &Arc<[(ObjectId, u64)]> {
        &self.0.chunks
    }

    /// Whether it was stored since the database was opened so: nobody keeps for an earlier opening what is not named.
    pub(crate) fn is_of(&self, pending: &Pending) -> bool {
        self.0.pins.pending().is(pending)
    }

    /// The file with what was written, and that.
    pub(crate) fn written(&self) -> impl Iterator<Item = (&ObjectId, u64, &Arc<ChunkFile>)> {
        let file = self.0.file.as_ref();
        self.0.written.iter().filter_map(move |(id, bytes)| Some((id, *bytes, file?)))
    }

    /// The bytes, before any transaction put them.
    pub(crate) fn lend(&self, base: &crate::view::Base) -> Result<Content, crate::error::ReadError> {
        if let Some(blob) = &self.0.small {
            return Ok(Content::One(blob.clone()));
        }
        let lend = |id: &ObjectId| match &self.0.file {
            Some(file) if self.0.written.contains_key(id) => {
                file.open(&*base.disk, base.database).map(Lent::Chunk)
            }
            _ => base.objects.lend(id),
        };
        match self.0.chunks.is_empty() {
            true => Content::of(&[(self.0.object, self.0.bytes)], lend),
            false => Content::of(&self.0.chunks, lend),
        }
    }
}

/// What a transaction puts as a version of a model.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    Bytes(Blob),
    Stored(StoredBlob),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cut_is_before_the_data_of_tensors() {
        let first = |length: u64, next: u8| {
            let mut first = length.to_le_bytes().to_vec();
            first.push(next);
            first
        };
        assert_eq!(first_cut(&first(1_000, b'{'), 1 << 20), 1_008);
        assert_eq!(first_cut(&first((1 << 20) + 100, b'{'), 1 << 20), 108);
        assert_eq!(first_cut(&first((1 << 20) - 8, b'{'), 1 << 20), 1 << 20);
        assert_eq!(first_cut(&first((1 << 20) - 7, b'{'), 1 << 20), 1);
        for none in [first(1_000, b'['), first(0, b'{'), first(u64::MAX, b'{'), vec![1; 3]] {
            assert_eq!(first_cut(&none, 1 << 20), 1 << 20);
        }
    }

    #[test]
    fn the_hash_of_a_list_of_chunks_is_fixed() {
        let (a, b) = (ObjectId::of(b"a"), ObjectId::of(b"b"));
        assert_eq!(hash_of_chunks(&[(a, 1)]), a);
        let mut list = b"underbelly.blob.v1\0\x01\0\0\0\0\0\0\0".to_vec();
        list.extend_from_slice(&a.0);
        list.extend_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0]);
        list.extend_from_slice(&b.0);
        assert_eq!(hash_of_chunks(&[(a, 1), (b, 2)]), ObjectId::of(&list));
    }
}
