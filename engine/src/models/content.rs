//! The bytes of a version: lent as one stretch, part by part, or as a stream.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use underbelly_storage::object::{Blob, ObjectId};

use super::tensors::{Header, Tensor, TensorInfo};
use super::{Metadata, MetadataError, ModelId, ModelInfo, Version};
use crate::error::ReadError;
use crate::objects::{FoundAt, Lent, Objects};

/// A version of a model with its blob.
///
/// What is lent stays valid as long as any clone of it lives, also where the version is deleted meanwhile.
#[derive(Clone, Debug)]
pub struct Model {
    info: ModelInfo,
    content: Content,
    /// What the header of tensors says, once it was read.
    header: OnceLock<Arc<Header>>,
}

impl Model {
    pub(crate) fn new(info: ModelInfo, content: Content) -> Model {
        Model { info, content, header: OnceLock::new() }
    }

    /// A version that a transaction put and has not committed; its seq is 0.
    pub(crate) fn unsaved(
        id: ModelId,
        number: u64,
        metadata: &Metadata,
        object: ObjectId,
        content: Content,
    ) -> Result<Model, MetadataError> {
        let version = Version {
            seq: 0,
            position: 0,
            number,
            time: underbelly_storage::Timestamp(0),
            metadata: Arc::new(metadata.clone()),
            cbor: Arc::default(),
            timestamp: metadata.timestamp()?,
            object,
            found_at: FoundAt::default(),
            bytes: content.len(),
            chunks: Arc::default(),
        };
        Ok(Model::new(ModelInfo::new(id, Arc::new(version)), content))
    }

    /// What is known of it.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The whole dict that was put with it.
    pub fn metadata(&self) -> &Metadata {
        self.info.metadata()
    }

    /// All bytes as one stretch. They are read in place where they lie in one file, as those of every blob do that shares no
    /// chunks with an earlier one, and copied together otherwise. The first time each checksum is compared, which reads all
    /// of it; [`Model::range`] and [`Model::reader`] read what is asked for alone.
    ///
    /// # Errors
    /// [`ReadError::Storage`] where the bytes are damaged or cannot be read.
    pub fn blob(&self) -> Result<Blob, ReadError> {
        self.content.whole()
    }

    /// Some bytes, read in place where they lie in one chunk or in one file. Only checksums of the 64 KiB around them are compared.
    ///
    /// # Errors
    /// [`ReadError::Range`] where the blob ends before; [`ReadError::Storage`] where the bytes are damaged or cannot be read.
    pub fn range(&self, range: Range<u64>) -> Result<Blob, ReadError> {
        self.content.range(range)
    }

    /// The bytes as a stream that can be sought. Memory does not grow with their number.
    pub fn reader(&self) -> ModelReader {
        ModelReader { content: self.content.clone(), at: 0 }
    }

    /// The tensors of a blob in the safetensors format, by name.
    ///
    /// # Errors
    /// [`ReadError::Tensor`] where the blob is none; [`ReadError::Storage`] where its header is damaged or cannot be read.
    pub fn tensors(&self) -> Result<Vec<TensorInfo>, ReadError> {
        self.header()?.tensors()
    }

    /// One tensor of a blob in the safetensors format. Nothing else of the blob is read but its header.
    ///
    /// # Errors
    /// As [`Model::tensors`]; [`ReadError::Tensor`] also where there is no such tensor.
    pub fn tensor(&self, name: &str) -> Result<Tensor, ReadError> {
        let info = self.header()?.info(name)?;
        let data = self.content.range(info.range.clone())?;
        Ok(Tensor { info, data })
    }

    fn header(&self) -> Result<&Header, ReadError> {
        if let Some(header) = self.header.get() {
            return Ok(header);
        }
        let header = Arc::new(Header::read(&self.content)?);
        Ok(self.header.get_or_init(|| header))
    }
}

/// Bytes that are one object, or chunks end to end.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    One(Blob),
    Chunks(Arc<Chunked>),
}

#[derive(Debug)]
pub(crate) struct Chunked {
    pieces: Vec<Piece>,
    bytes: u64,
    whole: OnceLock<Blob>,
    /// The compressed piece that was asked for last, by its number, as it was put: who reads it in small steps unpacks it
    /// once.
    unpacked: Mutex<Option<(usize, Blob)>>,
}

#[derive(Debug)]
struct Piece {
    /// Where it begins.
    start: u64,
    bytes: u64,
    id: ObjectId,
    lent: Lent,
}

impl Piece {
    fn end(&self) -> u64 {
        self.start + self.bytes
    }

    fn is_compressed(&self) -> bool {
        matches!(&self.lent, Lent::Chunk(chunks) if chunks.place(&self.id).is_none())
    }

    /// A part, counted from its begin.
    fn range(&self, range: Range<u64>) -> Result<Blob, ReadError> {
        let part = match &self.lent {
            Lent::Blob(blob) => blob.slice(range.start as usize..range.end as usize),
            Lent::Chunk(chunks) => chunks.range(&self.id, range)?,
        };
        part.ok_or_else(|| ReadError::MissingObject { object: self.id.to_string() })
    }
}

impl Content {
    /// The blob of a version; of its chunks nothing is read yet.
    pub(crate) fn lend(objects: &Objects, version: &Version) -> Result<Content, ReadError> {
        let Version { object, found_at, bytes, chunks, .. } = version;
        if !chunks.is_empty() {
            return Content::of(chunks, |id| objects.lend(id));
        }
        match objects.lend_from(found_at, object)? {
            Lent::Blob(blob) => Ok(Content::One(blob)),
            lent => Content::of(&[(*object, *bytes)], |_| Ok(lent.clone())),
        }
    }

    /// Chunks, each lent by `lend`.
    pub(crate) fn of(
        chunks: &[(ObjectId, u64)],
        mut lend: impl FnMut(&ObjectId) -> Result<Lent, ReadError>,
    ) -> Result<Content, ReadError> {
        let (mut pieces, mut start) = (Vec::with_capacity(chunks.len()), 0);
        for (id, bytes) in chunks {
            pieces.push(Piece { start, bytes: *bytes, id: *id, lent: lend(id)? });
            start += bytes;
        }
        Ok(Content::Chunks(Arc::new(Chunked {
            pieces,
            bytes: start,
            whole: OnceLock::new(),
            unpacked: Mutex::default(),
        })))
    }

    pub(crate) fn len(&self) -> u64 {
        match self {
            Content::One(blob) => blob.len() as u64,
            Content::Chunks(chunked) => chunked.bytes,
        }
    }

    fn whole(&self) -> Result<Blob, ReadError> {
        match self {
            Content::One(blob) => Ok(blob.clone()),
            Content::Chunks(chunked) => {
                if let Some(whole) = chunked.whole.get() {
                    return Ok(whole.clone());
                }
                let whole = chunked.range(0..chunked.bytes)?;
                Ok(chunked.whole.get_or_init(|| whole).clone())
            }
        }
    }

    pub(crate) fn range(&self, range: Range<u64>) -> Result<Blob, ReadError> {
        let bytes = self.len();
        if range.start > range.end || range.end > bytes {
            return Err(ReadError::Range { start: range.start, end: range.end, bytes });
        }
        match self {
            Content::One(blob) => {
                Ok(blob.slice(range.start as usize..range.end as usize).unwrap_or_else(|| blob.clone()))
            }
            Content::Chunks(chunked) => chunked.range(range),
        }
    }

    /// Copies bytes from a place on, at most up to the end of a chunk; answers how many.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> Result<usize, ReadError> {
        let end = self.len().min(at.saturating_add(buffer.len() as u64));
        if at >= end {
            return Ok(0);
        }
        let end = match self {
            Content::One(_) => end,
            Content::Chunks(chunked) => {
                chunked.pieces.get(chunked.piece_at(at)).map_or(end, |piece| piece.end().min(end))
            }
        };
        let part = self.range(at..end)?;
        for (to, from) in buffer.iter_mut().zip(part.iter()) {
            *to = *from;
        }
        Ok(part.len())
    }
}

impl Chunked {
    /// The number of the piece that holds this byte.
    fn piece_at(&self, at: u64) -> usize {
        self.pieces.partition_point(|piece| piece.end() <= at)
    }

    /// A part that lies inside.
    fn range(&self, range: Range<u64>) -> Result<Blob, ReadError> {
        if range.is_empty() {
            return Ok(Blob::from(Vec::new()));
        }
        let (first, last) = (self.piece_at(range.start), self.piece_at(range.end - 1));
        let pieces = self.pieces.get(first..=last).unwrap_or_default();
        let within = |piece: &Piece| {
            range.start.max(piece.start) - piece.start..range.end.min(piece.end()) - piece.start
        };
        if let [piece] = pieces {
            return self.part(first, piece, within(piece));
        }
        if let Some(blob) = self.stretch(pieces, &range, within)? {
            return Ok(blob);
        }
        let (mut bytes, length) = (Vec::new(), range.end - range.start);
        let room = usize::try_from(length).map(|length| bytes.try_reserve_exact(length));
        if !matches!(room, Ok(Ok(()))) {
            return Err(ReadError::Memory { bytes: length });
        }
        for piece in pieces {
            bytes.extend_from_slice(&piece.range(within(piece))?);
        }
        Ok(bytes.into())
    }

    /// A part of one piece.
    fn part(&self, number: usize, piece: &Piece, range: Range<u64>) -> Result<Blob, ReadError> {
        if !piece.is_compressed() || range == (0..piece.bytes) {
            return piece.range(range);
        }
        let last = || self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last().as_ref().filter(|(known, _)| *known == number).map(|(_, blob)| blob.clone());
        let blob = match known {
            Some(blob) => blob,
            None => {
                let blob = piece.range(0..piece.bytes)?;
                *last() = Some((number, blob.clone()));
                blob
            }
        };
        let part = blob.slice(range.start as usize..range.end as usize);
        part.ok_or_else(|| ReadError::MissingObject { object: piece.id.to_string() })
    }

    /// Pieces that lie end to end in one file, checked.
    fn stretch(
        &self,
        pieces: &[Piece],
        range: &Range<u64>,
        within: impl Fn(&Piece) -> Range<u64>,
    ) -> Result<Option<Blob>, ReadError> {
        let Some(Piece { lent: Lent::Chunk(file), start, id, .. }) = pieces.first() else { return Ok(None) };
        let Some(place) = file.place(id) else { return Ok(None) };
        let mut next = place.start;
        for piece in pieces {
            let here = match &piece.lent {
                Lent::Chunk(other) if Arc::ptr_eq(file, other) => file.place(&piece.id),
                _ => None,
            };
            match here {
                Some(here) if here.start == next => next = here.end,
                _ => return Ok(None),
            }
        }
        for piece in pieces {
            piece.range(within(piece))?;
        }
        let from = place.start + (range.start - start);
        Ok(Some(file.lend(from..from + (range.end - range.start))?))
    }
}

/// Reads a version from its begin, or from where it is sought.
#[derive(Clone, Debug)]
pub struct ModelReader {
    content: Content,
    at: u64,
}

impl Read for ModelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read_at(buffer, self.at).map_err(io::Error::other)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for ModelReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.content.len().checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        let before = || io::Error::new(io::ErrorKind::InvalidInput, "a seek before the first byte");
        self.at = at.ok_or_else(before)?;
        Ok(self.at)
    }
}
