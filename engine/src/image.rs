//! The state image: the facts of the graph, the versions of models and the variables, as records.

use std::sync::Arc;

use underbelly_storage::Timestamp;
use underbelly_storage::cursor::Cursor;
use underbelly_storage::error::{Damage, StorageError};
use underbelly_storage::image::{Image, ImageWriter, Key, Merge, Record};
use underbelly_storage::object::ObjectId;

use crate::files;
use crate::graph::{Fact, Graph, Restorer};
use crate::limits::DELTAS_MAX;
use crate::models::{
    ChangedMarks, Metadata, MetadataError, ModelId, Numbered, StoredMark, Unstored, Version, decode_mark,
    encode_mark, hash_of_chunks,
};
use crate::objects::{FoundAt, Names};
use crate::pool::Pool;
use crate::record::v1;
use crate::variables::{self, Changed, Stored, Variables};

/// The kind of the records of models' versions; lower ones are the graph's.
const MODEL: u8 = 8;

/// The kind of the records of variables.
const VARIABLE: u8 = 9;

/// The kind of the records of marks of models.
const MARK: u8 = 10;

/// Records that are decoded at once.
const RESTORE_RECORDS: usize = 1 << 12;

/// An open file of the state image.
pub(crate) struct Layer {
    pub reference: v1::Image,
    pub image: Image,
}

impl Layer {
    /// Opens a file of the state image that a manifest names.
    pub(crate) fn open(
        disk: &dyn underbelly_storage::disk::Disk,
        database: [u8; 16],
        reference: &v1::Image,
    ) -> Result<Layer, StorageError> {
        let name = files::image(reference.file);
        let expected = underbelly_storage::ImageInfo {
            file: name.clone(),
            bytes: reference.bytes,
            records: reference.records,
            index_hash: reference.index_hash,
        };
        Ok(Layer {
            reference: reference.clone(),
            image: Image::open(disk, &name, database, Some(&expected))?,
        })
    }
}

/// How many of the layers there are, the newest first, a new one of about `bytes` takes in; all of them make a new
/// base.
///
/// Deltas that are not much longer than what is written are taken in, so that lengths fall from delta to delta and a
/// record is written a few times in all; and a base is written where deltas come to more than a quarter of it. Nothing is
/// taken in that would make more than `bytes_max` of it, nor of the first `rebasing` layers, of which a new base is being made.
pub(crate) fn taken_in(layers: &[u64], bytes: u64, rebasing: usize, bytes_max: u64) -> usize {
    let Some((base, deltas)) = layers.split_at_checked(rebasing.max(1)) else { return 0 };
    let (base, all) = (base.iter().sum::<u64>(), deltas.iter().sum::<u64>() + bytes);
    if rebasing == 0 && is_outgrown(base, all) && base + all <= bytes_max {
        return layers.len();
    }
    let (mut taken, mut length) = (0, bytes);
    for delta in deltas.iter().rev() {
        let is_short = *delta <= 2 * length || deltas.len() - taken >= DELTAS_MAX;
        if !is_short || length + delta > bytes_max {
            break;
        }
        length += delta;
        taken += 1;
    }
    taken
}

/// Whether deltas have outgrown their base.
pub(crate) fn is_outgrown(base: u64, deltas: u64) -> bool {
    deltas > base / 4
}

/// An image that is being written over those that it takes in.
pub(crate) struct Overlay<'i> {
    below: Merge<'i>,
    writer: ImageWriter<'i>,
    /// Whether nothing is below what is taken in, so that removals need not be kept.
    is_base: bool,
}

impl<'i> Overlay<'i> {
    pub(crate) fn new(below: Merge<'i>, writer: ImageWriter<'i>, is_base: bool) -> Overlay<'i> {
        Overlay { below, writer, is_base }
    }

    /// Writes what is below and before `key`; what is below under that key is passed over.
    fn advance(&mut self, key: Option<Key>) -> Result<(), StorageError> {
        while self.below.peek().is_some_and(|next| key.is_none_or(|key| next <= key)) {
            let Some(record) = self.below.pop()? else { break };
            if Some(record.key) != key {
                self.push_below(record)?;
            }
        }
        Ok(())
    }

    /// Writes about so many bytes of what is below, a record at least; whether that was all.
    pub(crate) fn advance_by(&mut self, bytes: u64) -> Result<bool, StorageError> {
        let mut left = bytes;
        loop {
            let Some(record) = self.below.pop()? else { return Ok(true) };
            // A removal has a head too.
            let length = (size_of::<Key>() + record.value.map_or(0, <[u8]>::len)) as u64;
            self.push_below(record)?;
            match left.checked_sub(length) {
                Some(less) if less > 0 => left = less,
                _ => return Ok(false),
            }
        }
    }

    fn push_below(&mut self, record: Record<'i>) -> Result<(), StorageError> {
        if self.is_base && record.value.is_none() {
            Ok(())
        } else {
            self.writer.push(record.key, record.value)
        }
    }

    /// Writes a record that changed. Records come in order.
    pub(crate) fn push(&mut self, key: Key, value: &[u8]) -> Result<(), StorageError> {
        self.advance(Some(key))?;
        self.writer.push(key, Some(value))
    }

    /// Writes that a key has no record any more.
    pub(crate) fn push_removed(&mut self, key: Key) -> Result<(), StorageError> {
        self.advance(Some(key))?;
        if self.is_base { Ok(()) } else { self.writer.push(key, None) }
    }

    /// Writes variables that changed. They stand behind the versions of models.
    pub(crate) fn push_variables(&mut self, changed: &Changed) -> Result<(), StorageError> {
        let mut value = Vec::new();
        for ((major, minor), stored) in changed {
            let key = Key { kind: VARIABLE, major: *major, minor: *minor };
            match stored {
                Some(stored) => {
                    value.clear();
                    variables::encode(&mut value, stored);
                    self.push(key, &value)?;
                }
                None => self.push_removed(key)?,
            }
        }
        Ok(())
    }

    /// Writes what is told of models. It stands behind all other records.
    pub(crate) fn push_marks(&mut self, changed: &ChangedMarks) -> Result<(), StorageError> {
        let mut value = Vec::new();
        for ((major, minor), stored) in changed {
            let key = Key { kind: MARK, major: *major, minor: *minor };
            match stored {
                Some(stored) => {
                    value.clear();
                    let refused = |error: MetadataError| StorageError::Refused {
                        file: files::IMAGES_DIR.to_string(),
                        what: error.to_string(),
                    };
                    encode_mark(&mut value, stored).map_err(refused)?;
                    self.push(key, &value)?;
                }
                None => self.push_removed(key)?,
            }
        }
        Ok(())
    }

    /// Writes versions of models, and takes out those that were deleted.
    pub(crate) fn push_models(&mut self, unstored: &Unstored) -> Result<(), StorageError> {
        let mut value = Vec::new();
        for ((major, minor), put) in unstored.changes() {
            let key = Key { kind: MODEL, major, minor };
            match put {
                Some(numbered) => {
                    value.clear();
                    put_model(&mut value, numbered);
                    self.push(key, &value)?;
                }
                None => self.push_removed(key)?,
            }
        }
        Ok(())
    }

    /// Lets go of the file, in a folder that may be another writer's by now.
    pub(crate) fn leave(self) {
        self.writer.leave();
    }

    /// Writes the rest and makes the file durable.
    pub(crate) fn finish(mut self, file: u64) -> Result<v1::Image, StorageError> {
        self.advance(None)?;
        let info = self.writer.finish()?;
        Ok(v1::Image { file, bytes: info.bytes, records: info.records, index_hash: info.index_hash })
    }
}

fn put_model(out: &mut Vec<u8>, numbered: &Numbered) {
    let version = &numbered.version;
    out.extend_from_slice(&numbered.id.0);
    out.extend_from_slice(&version.object.0);
    out.extend_from_slice(&version.bytes.to_le_bytes());
    out.extend_from_slice(&version.timestamp.0.to_le_bytes());
    out.extend_from_slice(&version.number.to_le_bytes());
    out.extend_from_slice(&version.time.0.to_le_bytes());
    out.extend_from_slice(&(version.chunks.len() as u32).to_le_bytes());
    for (id, bytes) in &*version.chunks {
        out.extend_from_slice(&id.0);
        out.extend_from_slice(&bytes.to_le_bytes());
    }
    out.extend_from_slice(&version.cbor);
}

/// Identity, hash and length of the blob, timestamp, number, commit time, chunks.
type ModelHead = ([u8; 32], [u8; 32], u64, i64, u64, i64, Arc<[(ObjectId, u64)]>);

fn head_of_model(cursor: &mut Cursor<'_>) -> Result<ModelHead, Damage> {
    let (id, object, bytes) = (cursor.array()?, cursor.array()?, cursor.u64()?);
    let (timestamp, number, time) = (cursor.i64()?, cursor.u64()?, cursor.i64()?);
    let (mut chunks, mut sum) = (Vec::new(), 0u64);
    for _ in 0..cursor.u32()? {
        let (id, bytes) = (ObjectId(cursor.array()?), cursor.u64()?);
        sum = sum.checked_add(bytes).ok_or(Damage("the chunks of a blob are too long"))?;
        chunks.push((id, bytes));
    }
    if number == 0 || !chunks.is_empty() && (sum != bytes || hash_of_chunks(&chunks).0 != object) {
        return Err(Damage(
            "a version of a model has no number, or its chunks do not make its bytes or hash",
        ));
    }
    Ok((id, object, bytes, timestamp, number, time, chunks.into()))
}

fn model(key: Key, value: &[u8]) -> Result<Numbered, String> {
    let mut cursor = Cursor::new(value);
    let head = head_of_model(&mut cursor).map_err(|Damage(what)| what.to_string())?;
    let (id, object, bytes, timestamp, number, time, chunks) = head;
    let cbor: Arc<[u8]> = cursor.rest().into();
    let metadata = Metadata::from_cbor(&cbor).map_err(|error| error.to_string())?;
    let version = Version {
        seq: key.major,
        position: key.minor,
        number,
        time: Timestamp(time),
        metadata: Arc::new(metadata),
        cbor,
        timestamp: Timestamp(timestamp),
        object: ObjectId(object),
        found_at: FoundAt::default(),
        bytes,
        chunks,
    };
    Ok(Numbered { id: ModelId(id), version: Arc::new(version) })
}

enum Part {
    // By far the most; each is moved several times.
    Fact(Fact),
    Model(Numbered),
    Variable(Stored),
    Mark(StoredMark),
}

/// The records of a state image, taken in.
#[derive(Default)]
pub(crate) struct Taken {
    name: String,
    restorer: Restorer,
    /// Versions of models, in order.
    pub models: Vec<Numbered>,
    variables: Vec<Stored>,
    /// What is told of models, in order.
    pub marks: Vec<StoredMark>,
    /// What cells and models name.
    pub names: Names,
}

impl Taken {
    fn wrong(&self, what: String) -> StorageError {
        StorageError::corrupt(&self.name, 0, what)
    }

    fn add(&mut self, part: Part) -> Result<(), StorageError> {
        match part {
            Part::Fact(fact) => {
                fact.contents().for_each(|content| self.names.push(ObjectId(content)));
                self.restorer.add(fact).map_err(|error| self.wrong(error.to_string()))
            }
            Part::Model(numbered) => {
                numbered.version.objects().for_each(|object| self.names.push(object));
                self.models.push(numbered);
                Ok(())
            }
            Part::Mark(stored) => {
                self.marks.push(stored);
                Ok(())
            }
            Part::Variable(stored) => {
                self.variables.push(stored);
                Ok(())
            }
        }
    }

    /// The variables. They are gone after that.
    pub(crate) fn take_variables(&mut self) -> Result<Variables, StorageError> {
        Variables::restored(std::mem::take(&mut self.variables)).map_err(|what| self.wrong(what))
    }

    /// The graph that the facts make. They are gone after that.
    pub(crate) fn finish(&mut self) -> Result<Graph, StorageError> {
        let restorer = std::mem::take(&mut self.restorer);
        restorer.finish().map_err(|error| self.wrong(error.to_string()))
    }
}

/// Reads the layers of a state image. Records are decoded by the pool's threads while others are taken in.
pub(crate) fn read(layers: &[Arc<Layer>], pool: &Pool) -> Result<Taken, StorageError> {
    let name = layers.last().map_or_else(String::new, |layer| files::image(layer.reference.file));
    let wrong = |what: String| StorageError::corrupt(&name, 0, what);
    // Its block is whole, so the place says less than the key.
    let of = |key: Key, what: String| {
        format!("the record of kind {}, {}, {}: {what}", key.kind, key.major, key.minor)
    };
    let decode = |(key, value): (Key, &[u8])| match key.kind {
        MODEL => model(key, value).map(Part::Model).map_err(|what| of(key, what)),
        VARIABLE => variables::decode(key, value).map(Part::Variable).map_err(|what| of(key, what)),
        MARK => decode_mark(key, value).map(Part::Mark).map_err(|what| of(key, what)),
        _ => Fact::decode(key, value).map(Part::Fact).map_err(|error| of(key, error.to_string())),
    };
    layers.iter().for_each(|layer| layer.image.read_ahead());
    let mut merge = Merge::new(layers.iter().map(|layer| &layer.image))?;
    let mut decode_next = || {
        let records = merge.take(RESTORE_RECORDS)?;
        let parts: Vec<&[(Key, &[u8])]> = records.chunks(RESTORE_RECORDS / 16).collect();
        let decode_part = |part: &[(Key, &[u8])]| {
            // Room for all at once: what cannot be decoded ends it, so that the iterator does not know how many come.
            let mut decoded = Vec::with_capacity(part.len());
            part.iter().try_for_each(|record| decode(*record).map(|part| decoded.push(part)))?;
            Ok::<_, String>(decoded)
        };
        let decoded = pool.map(parts, decode_part);
        decoded.map_err(wrong)
    };
    let mut taken = Taken { name: name.clone(), ..Taken::default() };
    let mut decoded = decode_next()?;
    while !decoded.is_empty() {
        let batch = std::mem::take(&mut decoded);
        let add = || batch.into_iter().flatten().try_for_each(|part| taken.add(part));
        let (added, next) = pool.join(add, &mut decode_next);
        added?;
        decoded = next?;
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chunks of equal length in another order make as many bytes, and another blob.
    #[test]
    fn chunks_that_do_not_make_the_hash_of_a_blob_are_refused() {
        let put = |order: [u8; 2]| {
            let chunks: Vec<_> = [1, 2].map(|chunk| (ObjectId([chunk; 32]), 5)).into();
            let metadata = Metadata::new("m").with("timestamp", Timestamp(1));
            let cbor = metadata.to_cbor().unwrap_or_default().into();
            let version = Version {
                seq: 1,
                position: 0,
                number: 1,
                time: Timestamp(1),
                metadata: Arc::new(metadata),
                cbor,
                timestamp: Timestamp(1),
                object: hash_of_chunks(&chunks),
                found_at: FoundAt::default(),
                bytes: 10,
                chunks: order.map(|chunk| (ObjectId([chunk; 32]), 5)).into(),
            };
            let mut value = Vec::new();
            put_model(&mut value, &Numbered { id: ModelId([3; 32]), version: Arc::new(version) });
            model(Key { kind: MODEL, major: 1, minor: 0 }, &value)
        };
        assert!(put([1, 2]).is_ok());
        assert!(put([2, 1]).is_err_and(|what| what.contains("hash")));
    }

    #[test]
    fn deltas_stay_few_and_short_and_falling() {
        // No image yet; a base alone; a small change; a quarter passed.
        let taken_in = |layers: &[u64], bytes| super::taken_in(layers, bytes, 0, 5_000_000);
        assert_eq!(taken_in(&[], 10), 0);
        assert_eq!(taken_in(&[1000], 10), 0);
        assert_eq!(taken_in(&[1000], 251), 1);
        assert_eq!(taken_in(&[1000, 100, 100], 60), 3);
        // Lengths fall: equal ones are merged.
        assert_eq!(taken_in(&[100_000, 10, 10], 10), 2);
        assert_eq!(taken_in(&[100_000, 1000, 10], 10), 1);
        // No more than four, whatever their lengths.
        assert_eq!(taken_in(&[1_000_000, 80_000, 20_000, 5_000, 1_000], 10), 1);
        assert_eq!(taken_in(&[1_000_000, 80_000, 20_000, 5_000], 10), 0);
        // What would be too long is not written, a base as little as a delta.
        assert_eq!(taken_in(&[3_900_000, 1_099_000], 1_000), 2);
        assert_eq!(taken_in(&[3_900_000, 1_099_000], 1_001), 0);
        assert_eq!(taken_in(&[9_000_000, 3_000_000, 900_000, 200_000, 50_000], 100_000), 2);
        assert_eq!(taken_in(&[9_000_000, 2_500_000, 2_000_000, 300_000, 100_000], 2_000_000), 3);
        assert_eq!(taken_in(&[9_000_000, 4_500_000, 4_500_000, 4_500_000, 4_500_000], 4_500_000), 0);
    }

    #[test]
    fn of_what_a_new_base_is_made_nothing_is_taken_in() {
        let layers = [1_000, 100, 200, 20, 20];
        let taken = |rebasing| super::taken_in(&layers, 20, rebasing, u64::MAX);
        assert_eq!([1, 2, 3, 4, 5].map(taken), [2, 2, 2, 1, 0]);
        assert_eq!(super::taken_in(&layers, 500_000, 3, u64::MAX), 2);
        assert_eq!(super::taken_in(&layers[..2], 20, 3, u64::MAX), 0);
    }

    /// Written bytes stay a small multiple of changed bytes, however many checkpoints there are.
    #[test]
    fn a_record_is_written_a_few_times_in_all() {
        let (mut layers, mut written, mut changed) = (vec![1_000_000u64], 0, 0);
        for _ in 0..1000 {
            let bytes = 1000;
            let taken = taken_in(&layers, bytes, 0, u64::MAX);
            let base = layers.len() == taken;
            let merged: u64 = layers.split_off(layers.len() - taken).iter().sum::<u64>() + bytes;
            // A new base is as long as the old one: the same records change again and again.
            layers.push(if base { 1_000_000 } else { merged });
            written += layers.last().copied().unwrap_or_default();
            changed += bytes;
            assert!(layers.len() <= 1 + DELTAS_MAX);
        }
        assert!(written < 20 * changed, "{written} bytes written for {changed}");
    }
}
