//! Which versions of which models there are.

mod retain;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use hashbrown::hash_map::Entry;
use hashbrown::{DefaultHashBuilder, HashMap};
use underbelly_storage::Timestamp;
use underbelly_storage::object::ObjectId;

use super::marks::{Marks, StoredMark};
use super::{Content, Metadata, ModelId};
use crate::error::ReadError;
use crate::objects::{FoundAt, Objects};
use crate::operations::objects_of;

/// One version of a model.
#[derive(Debug)]
pub(crate) struct Version {
    pub seq: u64,
    /// How many versions its transaction put before it.
    pub position: u64,
    /// Which version of its model it is, counted from 1.
    pub number: u64,
    /// The commit time.
    pub time: Timestamp,
    pub metadata: Arc<Metadata>,
    /// The metadata in canonical form.
    pub cbor: Arc<[u8]>,
    pub timestamp: Timestamp,
    /// The hash of the blob.
    pub object: ObjectId,
    pub found_at: FoundAt,
    pub bytes: u64,
    /// Ids and lengths of the blob's chunks; none where it is one object.
    pub chunks: Arc<[(ObjectId, u64)]>,
}

impl Version {
    /// The objects that its blob is made of.
    pub(crate) fn objects(&self) -> impl Iterator<Item = ObjectId> {
        objects_of(&self.object, &self.chunks)
    }
}

/// A version and whose it is.
#[derive(Clone, Debug)]
pub(crate) struct Numbered {
    pub id: ModelId,
    pub version: Arc<Version>,
}

/// Versions, oldest first; most that are taken out alone stand in front.
type Versions = Arc<VecDeque<Arc<Version>>>;

/// The versions of one model.
#[derive(Default, Debug)]
struct Line {
    /// Those since it was deleted last.
    versions: Versions,
    /// The last of them, which is asked for most.
    newest: Option<Arc<Version>>,
    /// Few models have any, and who asks for the newest version of one of many is to touch little memory.
    gone: Option<Box<Gone>>,
}

/// Versions of a model that are there for older readers alone, and what else few models have.
#[derive(Default, Debug)]
struct Gone {
    /// What was deleted, oldest first.
    deleted: VecDeque<Deleted>,
    /// Versions that were taken out alone, each with the transaction that did.
    removed: BTreeMap<Place, (u64, Arc<Version>)>,
    /// Some version was put with an earlier timestamp than one before it.
    falls: bool,
}

static NOTHING: Gone = Gone { deleted: VecDeque::new(), removed: BTreeMap::new(), falls: false };

#[derive(Debug)]
struct Deleted {
    /// The transaction that deleted it.
    seq: u64,
    versions: Versions,
    /// How many of the versions are dropped already.
    dropped: usize,
    /// What is told of the model before this place is of them.
    marks: Place,
}

impl Line {
    fn gone(&self) -> &Gone {
        self.gone.as_deref().unwrap_or(&NOTHING)
    }

    fn gone_mut(&mut self) -> &mut Gone {
        self.gone.get_or_insert_default()
    }

    /// Whether nobody sees a version of it.
    fn is_empty(&self) -> bool {
        let gone = self.gone();
        self.versions.is_empty() && gone.deleted.is_empty() && gone.removed.is_empty()
    }

    /// What a reader at `seq` sees as all versions, later ones included.
    fn at(&self, seq: u64) -> &VecDeque<Arc<Version>> {
        let deleted = self.gone().deleted.iter().find(|deleted| deleted.seq > seq);
        deleted.map_or(&self.versions, |deleted| &deleted.versions)
    }

    /// Versions between two places, the latter left out, that a reader at `seq` sees and that were taken out since; the newest comes last.
    fn removed_between(
        &self,
        from: Place,
        before: Place,
        seq: u64,
    ) -> impl DoubleEndedIterator<Item = &Arc<Version>> {
        let before = before.min((seq.saturating_add(1), 0));
        let range = (from <= before).then(|| self.gone().removed.range(from..before));
        let removed = range.into_iter().flatten().filter(move |(_, (at, _))| *at > seq);
        removed.map(|(_, (_, version))| version)
    }

    /// What a reader at `seq` sees as the newest version.
    fn newest(&self, seq: u64) -> Option<&Arc<Version>> {
        // Versions that were taken out alone are older, so nobody else is newer where none was deleted.
        let newest = self.newest.as_ref().filter(|newest| {
            newest.seq <= seq && self.gone.as_ref().is_none_or(|gone| gone.deleted.is_empty())
        });
        if newest.is_some() {
            return newest;
        }
        let versions = self.at(seq);
        let visible = versions.partition_point(|version| version.seq <= seq);
        let kept = visible.checked_sub(1).and_then(|last| versions.get(last));
        let from = kept.map_or((0, 0), |version| place(version));
        self.removed_between(from, END, seq).next_back().or(kept)
    }

    /// All versions before a place that a reader at `seq` sees, newest first.
    fn newest_first(&self, seq: u64, before: Place) -> impl Iterator<Item = &Arc<Version>> {
        let versions = self.at(seq);
        let visible = versions.partition_point(|version| version.seq <= seq && place(version) < before);
        let mut kept = versions.range(..visible).rev().peekable();
        let mut removed = self.removed_between((0, 0), before, seq).rev().peekable();
        std::iter::from_fn(move || match (kept.peek(), removed.peek()) {
            (Some(kept), Some(other)) if place(kept) < place(other) => removed.next(),
            (Some(_), _) => kept.next(),
            (None, _) => removed.next(),
        })
    }

    /// All versions that anybody sees, where none waits to be dropped.
    fn whole(&self) -> Option<&VecDeque<Arc<Version>>> {
        let gone = self.gone();
        (gone.deleted.is_empty() && gone.removed.is_empty()).then_some(&*self.versions)
    }

    /// Whether it holds a version that a transaction put.
    fn holds(&self, seq: u64) -> bool {
        let from = |versions: &VecDeque<Arc<Version>>| versions.partition_point(|version| version.seq < seq);
        let is_in = |versions: &VecDeque<Arc<Version>>, at: usize| {
            versions.get(at).is_some_and(|version| version.seq == seq)
        };
        let mut deleted = self.gone().deleted.iter();
        is_in(&self.versions, from(&self.versions))
            || deleted.any(|deleted| is_in(&deleted.versions, from(&deleted.versions).max(deleted.dropped)))
            || self.gone().removed.range((seq, 0)..=(seq, u64::MAX)).next().is_some()
    }
}

/// What the state image does not hold as it is.
#[derive(Default, Debug)]
pub(crate) struct Unstored {
    /// Versions that were put, in order.
    put: VecDeque<Vec<Numbered>>,
    /// Versions that were deleted. Of those in `put`, too.
    deleted: VecDeque<Versions>,
}

/// Seq and position of a version, under which the state image holds it.
pub(crate) type Place = (u64, u64);

/// Behind all versions.
pub(crate) const END: Place = (u64::MAX, u64::MAX);

fn place(version: &Version) -> Place {
    (version.seq, version.position)
}

impl Unstored {
    /// Number of records of the state image.
    pub(crate) fn records(&self) -> u64 {
        let put = self.put.iter().map(Vec::len).sum::<usize>();
        let deleted = self.deleted.iter().map(|versions| versions.len()).sum::<usize>();
        (put + deleted) as u64
    }

    /// Places in order, each with the version that is put there or `None` where one is to be removed.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (Place, Option<&Numbered>)> {
        let deleted: BTreeSet<Place> =
            self.deleted.iter().flat_map(|versions| versions.iter().map(|version| place(version))).collect();
        // Versions that were put since are behind all that any image holds.
        let first = self.put.iter().flatten().next().map(|numbered| place(&numbered.version));
        let stored = match first {
            Some(first) => deleted.range(..first).copied().collect::<Vec<_>>(),
            None => deleted.iter().copied().collect(),
        };
        let put = self.put.iter().flatten();
        let put = put.map(|numbered| (place(&numbered.version), numbered));
        let put = put.filter(move |(place, _)| !deleted.contains(place));
        stored.into_iter().map(|place| (place, None)).chain(put.map(|(place, put)| (place, Some(put))))
    }
}

/// A version that was taken out alone.
#[derive(Clone, Copy, Debug)]
struct Removed {
    /// The transaction that did.
    seq: u64,
    id: ModelId,
    version: Place,
    /// What is told of it is before this place: a model that was deleted since may have another of its number.
    marks: Place,
}

/// Lines by identity, divided by the first byte of their ids: so none is long in growing.
#[derive(Debug)]
struct Lines(Box<[HashMap<ModelId, Line>]>);

impl Lines {
    fn new() -> Lines {
        Lines((0..=u8::MAX).map(|_| HashMap::new()).collect())
    }

    fn get(&self, id: &ModelId) -> Option<&Line> {
        self.0[usize::from(id.0[0])].get(id)
    }

    fn get_mut(&mut self, id: &ModelId) -> Option<&mut Line> {
        self.0[usize::from(id.0[0])].get_mut(id)
    }

    fn entry(&mut self, id: ModelId) -> Entry<'_, ModelId, Line, DefaultHashBuilder> {
        self.0[usize::from(id.0[0])].entry(id)
    }
}

/// Versions by identity.
#[derive(Debug)]
pub(crate) struct Models {
    by_id: Lines,
    /// The same ids in order.
    ids: BTreeSet<ModelId>,
    /// Which transaction put a version of which model, or deleted it.
    by_seq: BTreeSet<(u64, ModelId)>,
    unstored: Unstored,
    /// Seq of the newest version, and how many its transaction put.
    last: (u64, u64),
    /// Number of models that have a version.
    live: usize,
    /// Transactions that deleted a model which a reader may still see, and that model; rising.
    queue: VecDeque<(u64, ModelId)>,
    /// The same for versions that were taken out alone.
    removed: VecDeque<Removed>,
    /// What is told of models beside their versions.
    pub marks: Marks,
    /// The transaction that the index of attributes reflects. What was deleted since is kept, since the index has to
    /// know what it was.
    indexed: u64,
}

impl Default for Models {
    fn default() -> Models {
        Models {
            by_id: Lines::new(),
            ids: BTreeSet::new(),
            by_seq: BTreeSet::new(),
            unstored: Unstored::default(),
            last: (0, 0),
            live: 0,
            queue: VecDeque::new(),
            removed: VecDeque::new(),
            marks: Marks::default(),
            indexed: u64::MAX,
        }
    }
}

/// A transaction that put a version of a model or deleted it, and the model.
pub(crate) type ChangedAt = (u64, ModelId);

/// Behind all changes of a transaction.
pub(crate) fn behind(seq: u64) -> ChangedAt {
    (seq, ModelId([0xff; 32]))
}

/// No search answers what is asked.
pub(crate) struct LookAtAll;

/// A model and its newest version as of a seq; `None` where it had none then.
pub(crate) type Newest = (ModelId, Option<Arc<Version>>);

impl Models {
    /// Puts a version, behind all others; its position is found here.
    pub(crate) fn push(&mut self, id: ModelId, version: Version) {
        let position = if self.last.0 == version.seq { self.last.1 } else { 0 };
        let line = match self.by_id.entry(id) {
            Entry::Occupied(line) => line.into_mut(),
            Entry::Vacant(vacant) => {
                self.ids.insert(id);
                vacant.insert(Line::default())
            }
        };
        let last = line.versions.back();
        let number = last.map_or(0, |last| last.number) + 1;
        if last.is_some_and(|last| last.timestamp > version.timestamp) {
            line.gone_mut().falls = true;
        }
        let version = Arc::new(Version { position, number, ..version });
        let numbered = Numbered { id, version: version.clone() };
        match self.unstored.put.back_mut() {
            Some(put) => put.push(numbered),
            None => self.unstored.put.push_back(vec![numbered]),
        }
        self.last = (version.seq, position + 1);
        self.by_seq.insert((version.seq, id));
        self.live += usize::from(line.versions.is_empty());
        // Nobody else has them: what is deleted is taken out whole.
        line.newest = Some(version.clone());
        Arc::make_mut(&mut line.versions).push_back(version);
    }

    /// Takes out a version that is not the newest, which readers before `seq` see until it is dropped.
    pub(crate) fn remove(&mut self, seq: u64, time: Timestamp, id: ModelId, number: u64) {
        let Some(line) = self.by_id.get_mut(&id) else { return };
        let at = line.versions.binary_search_by_key(&number, |version| version.number);
        let Some(at) = at.ok().filter(|at| at + 1 < line.versions.len()) else { return };
        let Some(version) = Arc::make_mut(&mut line.versions).remove(at) else { return };
        self.unstored.deleted.push_back(Arc::new(VecDeque::from([version.clone()])));
        let place = place(&version);
        line.gone_mut().removed.insert(place, (seq, version));
        let marks = self.marks.clear_version((seq, time), id, number);
        self.removed.push_back(Removed { seq, id, version: place, marks });
    }

    /// Deletes all versions of a model, which readers before `seq` see until they are dropped. One that has none stays
    /// so.
    pub(crate) fn delete(&mut self, seq: u64, time: Timestamp, id: ModelId) {
        let Some(line) = self.by_id.get_mut(&id).filter(|line| !line.versions.is_empty()) else { return };
        let versions = std::mem::take(&mut line.versions);
        line.newest = None;
        self.unstored.deleted.push_back(versions.clone());
        let marks = self.marks.clear((seq, time), id);
        line.gone_mut().deleted.push_back(Deleted { seq, versions, dropped: 0, marks });
        self.by_seq.insert((seq, id));
        self.queue.push_back((seq, id));
        self.live -= 1;
    }

    /// Whether deleted versions wait for readers to go.
    pub(crate) fn has_deleted(&self) -> bool {
        !self.queue.is_empty() || !self.removed.is_empty()
    }

    /// Whether deleted versions that no reader at `oldest_seq` or later sees wait for the index alone.
    pub(crate) fn wait_for_index(&self, oldest_seq: u64) -> bool {
        let waits = |seq: u64| seq <= oldest_seq && seq > self.indexed;
        let (deleted, removed) = (self.queue.front(), self.removed.front());
        deleted.is_some_and(|(seq, _)| waits(*seq)) || removed.is_some_and(|removed| waits(removed.seq))
    }

    /// The index of attributes reflects this transaction; `u64::MAX` where there is no index.
    pub(crate) fn note_indexed(&mut self, seq: u64) {
        self.indexed = seq;
    }

    /// Drops a deleted version that no reader at `oldest_seq` or later sees; answers it.
    pub(crate) fn drop_deleted(&mut self, oldest_seq: u64) -> Option<Arc<Version>> {
        if let Some(version) = self.drop_removed(oldest_seq) {
            return Some(version);
        }
        let (seq, id) = *self.queue.front()?;
        if seq > oldest_seq.min(self.indexed) {
            return None;
        }
        let Entry::Occupied(mut entry) = self.by_id.entry(id) else { return None };
        let line = entry.get_mut();
        let deleted = line.gone_mut().deleted.front_mut()?;
        let version = deleted.versions.get(deleted.dropped)?.clone();
        deleted.dropped += 1;
        let is_last = deleted.dropped == deleted.versions.len();
        if !line.holds(version.seq) {
            self.by_seq.remove(&(version.seq, id));
        }
        let Some(deleted) = line.gone().deleted.front().filter(|_| is_last) else { return Some(version) };
        if deleted.dropped == deleted.versions.len() {
            self.queue.pop_front();
            let marks = deleted.marks;
            line.gone_mut().deleted.pop_front();
            // The transaction may have put the next version, too.
            let next = line.gone().deleted.front().map_or(&line.versions, |next| &next.versions).front();
            if next.is_none_or(|next| next.seq != seq) {
                self.by_seq.remove(&(seq, id));
            }
            if line.is_empty() {
                entry.remove();
                self.ids.remove(&id);
            }
            self.marks.forget(&id, marks);
        }
        Some(version)
    }

    /// The same for versions that were taken out alone.
    fn drop_removed(&mut self, oldest_seq: u64) -> Option<Arc<Version>> {
        let Removed { seq, id, version, marks } = *self.removed.front()?;
        if seq > oldest_seq.min(self.indexed) {
            return None;
        }
        self.removed.pop_front();
        let Entry::Occupied(mut entry) = self.by_id.entry(id) else { return None };
        let line = entry.get_mut();
        let (_, version) = line.gone_mut().removed.remove(&version)?;
        self.marks.forget_version(&id, version.number, marks);
        if !line.holds(version.seq) {
            self.by_seq.remove(&(version.seq, id));
        }
        if line.is_empty() {
            entry.remove();
            self.ids.remove(&id);
        }
        Some(version)
    }

    /// The models that a state image describes. Versions come in order.
    pub(crate) fn restored(mut versions: Vec<Numbered>, marks: Vec<StoredMark>) -> Models {
        let last = versions.last().map_or((0, 0), |last| (last.version.seq, last.version.position + 1));
        let by_seq = versions.iter().map(|numbered| (numbered.version.seq, numbered.id)).collect();
        // Stable, so that the versions of a model stay in order.
        versions.sort_by_key(|numbered| numbered.id);
        let model = |versions: &[Numbered]| {
            let id = versions.first()?.id;
            let newest = versions.last().map(|newest| newest.version.clone());
            let falls = !versions.is_sorted_by_key(|numbered| numbered.version.timestamp);
            let gone = falls.then(|| Box::new(Gone { falls, ..Gone::default() }));
            let versions = Arc::new(versions.iter().map(|numbered| numbered.version.clone()).collect());
            Some((id, Line { versions, newest, gone }))
        };
        let mut by_id = Lines::new();
        for (id, line) in versions.chunk_by(|a, b| a.id == b.id).filter_map(model) {
            by_id.entry(id).insert(line);
        }
        let ids: BTreeSet<ModelId> = versions.iter().map(|numbered| numbered.id).collect();
        let marks = Marks::restored(marks);
        Models { live: ids.len(), by_id, ids, by_seq, last, marks, ..Models::default() }
    }

    /// What is in no state image.
    pub(crate) fn take_unstored(&mut self) -> Unstored {
        std::mem::take(&mut self.unstored)
    }

    /// Gives back what was taken and not stored.
    pub(crate) fn give_back_unstored(&mut self, mut taken: Unstored) {
        taken.put.append(&mut self.unstored.put);
        taken.deleted.append(&mut self.unstored.deleted);
        self.unstored = taken;
    }

    /// Number of models.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// Models with a version of a seq up to `high`, or that were deleted there: the first `n` behind a place of this order. A
    /// model may come several times.
    pub(crate) fn changed_behind(&self, last: ChangedAt, high: u64, n: usize) -> Vec<ChangedAt> {
        let changed = self.by_seq.range((Bound::Excluded(last), Bound::Unbounded));
        changed.take_while(|(seq, _)| *seq <= high).take(n).copied().collect()
    }

    /// The seq of the `n`th version or deletion above `seq`; `None` where there are fewer.
    pub(crate) fn seq_after(&self, seq: u64, n: usize) -> Option<u64> {
        self.by_seq.range((Bound::Excluded(behind(seq)), Bound::Unbounded)).nth(n).map(|(seq, _)| *seq)
    }

    /// Up to `n` models behind this one in order of their ids, or the first.
    pub(crate) fn slice_behind(&self, last: Option<&ModelId>, seq: u64, n: usize) -> Vec<Newest> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        let slice = self.ids.range((from, Bound::Unbounded)).take(n);
        slice.map(|id| (*id, self.newest(id, seq).cloned())).collect()
    }

    /// The newest version with a seq up to `seq`; a model that was deleted begins anew.
    pub(crate) fn newest(&self, id: &ModelId, seq: u64) -> Option<&Arc<Version>> {
        self.by_id.get(id)?.newest(seq)
    }

    /// The number of the newest version, whoever sees it; 0 where there is none.
    pub(crate) fn newest_number(&self, id: &ModelId) -> u64 {
        self.newest(id, u64::MAX).map_or(0, |version| version.number)
    }

    /// All versions with a seq up to `seq`, newest first.
    pub(crate) fn newest_first(&self, id: &ModelId, seq: u64) -> impl Iterator<Item = &Arc<Version>> {
        self.by_id.get(id).into_iter().flat_map(move |line| line.newest_first(seq, END))
    }

    /// The newest `n` versions before a place that a reader at `seq` sees, newest first.
    pub(crate) fn versions_before(
        &self,
        id: &ModelId,
        seq: u64,
        before: Place,
        n: usize,
    ) -> Vec<Arc<Version>> {
        let versions = self.by_id.get(id).into_iter().flat_map(|line| line.newest_first(seq, before));
        versions.take(n).cloned().collect()
    }

    /// The newest version of which `is_before` holds, as it does of all before that, and that a reader at `seq` sees; then so many back.
    /// An error where versions wait to be dropped: who asks has to look at all.
    fn last_before(
        &self,
        id: &ModelId,
        seq: u64,
        back: usize,
        is_before: impl Fn(&Version) -> bool,
    ) -> Result<Option<Arc<Version>>, LookAtAll> {
        let Some(line) = self.by_id.get(id) else { return Ok(None) };
        let versions = line.whole().ok_or(LookAtAll)?;
        let found = versions.partition_point(|version| version.seq <= seq && is_before(version));
        Ok(found.checked_sub(1).and_then(|last| versions.get(last.checked_sub(back)?)).cloned())
    }

    /// The version so many before the newest.
    pub(crate) fn back(
        &self,
        id: &ModelId,
        seq: u64,
        back: usize,
    ) -> Result<Option<Arc<Version>>, LookAtAll> {
        self.last_before(id, seq, back, |_| true)
    }

    /// The newest version that was committed by a time.
    pub(crate) fn put_by(
        &self,
        id: &ModelId,
        seq: u64,
        at: Timestamp,
    ) -> Result<Option<Arc<Version>>, LookAtAll> {
        self.last_before(id, seq, 0, |version| version.time <= at)
    }

    /// The version with the latest timestamp up to a time.
    pub(crate) fn as_of(
        &self,
        id: &ModelId,
        seq: u64,
        at: Timestamp,
    ) -> Result<Option<Arc<Version>>, LookAtAll> {
        if self.by_id.get(id).is_some_and(|line| line.gone().falls) {
            return Err(LookAtAll);
        }
        self.last_before(id, seq, 0, |version| version.timestamp <= at)
    }

    /// The version with the earliest timestamp from a time on, of several the newest.
    pub(crate) fn first_from(
        &self,
        id: &ModelId,
        seq: u64,
        at: Timestamp,
    ) -> Result<Option<Arc<Version>>, LookAtAll> {
        let Some(line) = self.by_id.get(id) else { return Ok(None) };
        let versions = line.whole().filter(|_| !line.gone().falls).ok_or(LookAtAll)?;
        let from = versions.partition_point(|version| version.timestamp < at);
        let first = versions.get(from).filter(|version| version.seq <= seq);
        first.map_or(Ok(None), |first| self.as_of(id, seq, first.timestamp))
    }

    /// From where on what is told of a model is of the one that a reader at `seq` sees, and not of one that was deleted before.
    pub(crate) fn told_from(&self, id: &ModelId, seq: u64) -> Place {
        let deleted = self.by_id.get(id).into_iter().flat_map(|line| line.gone().deleted.iter());
        deleted.take_while(|deleted| deleted.seq <= seq).last().map_or((0, 0), |deleted| deleted.marks)
    }

    /// The version of this number that a reader at `seq` sees.
    pub(crate) fn version(&self, id: &ModelId, number: u64, seq: u64) -> Option<Arc<Version>> {
        let line = self.by_id.get(id)?;
        let versions = line.at(seq);
        let found = versions.binary_search_by_key(&number, |version| version.number).ok();
        let kept = found.and_then(|at| versions.get(at)).filter(|version| version.seq <= seq);
        kept.or_else(|| line.removed_between((0, 0), END, seq).find(|version| version.number == number))
            .cloned()
    }

    /// All versions of all models that are not deleted, in order of their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ModelId, &Arc<Version>)> {
        let lines = self.ids.iter().filter_map(|id| Some((id, self.by_id.get(id)?)));
        lines.flat_map(|(id, line)| line.versions.iter().map(move |version| (id, version)))
    }
}

/// What is known of a version of a model.
#[derive(Clone)]
#[non_exhaustive]
pub struct ModelInfo {
    /// The hash of the identity.
    pub id: ModelId,
    /// The version's number, counted from 1.
    pub version: u64,
    /// The commit that put it.
    pub seq: u64,
    /// The metadata's timestamp.
    pub timestamp: Timestamp,
    /// The time of that commit.
    pub time: Timestamp,
    /// Length of the blob.
    pub bytes: u64,
    /// The hash of the blob: the same for the same bytes, cut into the same chunks.
    pub content: ObjectId,
    /// Whose it is. What is asked for less is not touched by who asks for a version: it is read from memory each time.
    kept: Arc<Version>,
}

impl ModelInfo {
    pub(crate) fn new(id: ModelId, kept: Arc<Version>) -> ModelInfo {
        ModelInfo {
            id,
            version: kept.number,
            seq: kept.seq,
            timestamp: kept.timestamp,
            time: kept.time,
            bytes: kept.bytes,
            content: kept.object,
            kept,
        }
    }

    /// The whole dict that was put with it.
    pub fn metadata(&self) -> &Metadata {
        &self.kept.metadata
    }

    /// The bytes of the blob; of its chunks nothing is read yet.
    pub(crate) fn lend(&self, objects: &Objects) -> Result<Content, ReadError> {
        Content::lend(objects, &self.kept)
    }
}

impl fmt::Debug for ModelInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ModelInfo { id, version, seq, timestamp, time, bytes, content, kept: _ } = self;
        f.debug_struct("ModelInfo")
            .field("id", id)
            .field("version", version)
            .field("seq", seq)
            .field("timestamp", timestamp)
            .field("time", time)
            .field("bytes", bytes)
            .field("content", content)
            .field("metadata", self.metadata())
            .finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: u8) -> ModelId {
        ModelId([number; 32])
    }

    fn version(seq: u64, byte: u8) -> Version {
        Version {
            seq,
            position: 0,
            number: 0,
            time: Timestamp(seq as i64),
            metadata: Arc::new(Metadata::new("m")),
            cbor: Arc::from([byte]),
            timestamp: Timestamp(i64::from(byte)),
            object: ObjectId([byte; 32]),
            found_at: FoundAt::default(),
            bytes: 1,
            chunks: Arc::default(),
        }
    }

    /// The newest version is answered without a look at any other, however many there are.
    #[test]
    fn the_newest_of_many_versions_is_known() {
        let mut models = Models::default();
        (1..=1_000).for_each(|seq| models.push(id(0), version(seq, 0)));
        models.by_id.get_mut(&id(0)).unwrap().versions = Versions::default();
        let newest = models.newest(&id(0), 1_000).unwrap();
        assert_eq!((newest.number, newest.seq), (1_000, 1_000));
        assert_eq!(models.newest_number(&id(0)), 1_000);
    }

    /// Objects of the versions of each model, oldest first.
    type Catalogue = BTreeMap<u8, Vec<u8>>;

    proptest! {
        /// Readers see what they saw; each object is named as long as a version holds it; what was captured makes the
        /// catalogue of then, also after captures that failed.
        #[test]
        fn readers_and_captures_see_their_versions(
            steps in prop::collection::vec(
                (prop::collection::vec((0u8..3, prop::option::weighted(0.7, 0u8..4)), 0..4), 0u64..5, 0u8..6),
                1..60,
            ),
        ) {
            let mut models = Models::default();
            let mut history: Vec<Catalogue> = vec![Catalogue::new()];
            let mut stored: BTreeMap<Place, Numbered> = BTreeMap::new();
            let mut captured: Option<(Unstored, u64)> = None;
            let mut named = [0i64; 4];
            let mut oldest = 0;
            for (seq, (changes, lag, capture)) in (1u64..).zip(steps) {
                let mut now = history.last().unwrap().clone();
                // A transaction deletes before it puts.
                for (model, _) in changes.iter().filter(|(_, put)| put.is_none()) {
                    models.delete(seq, Timestamp(0), id(*model));
                    now.remove(model);
                }
                for (model, byte) in changes.iter().filter_map(|(model, put)| Some((model, (*put)?))) {
                    models.push(id(*model), version(seq, byte));
                    named[usize::from(byte)] += 1;
                    now.entry(*model).or_default().push(byte);
                }
                // Sometimes all but the newest versions of a model are taken out.
                if capture == 5 {
                    let gone: Vec<u64> = models.versions_before(&id(0), seq, END, 99).iter().map(|v| v.number).collect();
                    for number in gone {
                        models.remove(seq, Timestamp(0), id(0), number);
                    }
                    if let Some(bytes) = now.get_mut(&0) {
                        let last = bytes.len() - 1;
                        bytes.drain(..last);
                    }
                }
                history.push(now);
                oldest = oldest.max(seq.saturating_sub(lag));
                while let Some(version) = models.drop_deleted(oldest) {
                    named[usize::from(version.object.0[0])] -= 1;
                }
                match (capture, captured.take()) {
                    (0..3, None) => captured = Some((models.take_unstored(), seq)),
                    (0..2, Some((unstored, _))) => models.give_back_unstored(unstored),
                    (2..4, Some((unstored, at))) => {
                        let changes: Vec<_> = unstored.changes().collect();
                        prop_assert!(changes.is_sorted_by(|a, b| a.0 < b.0));
                        for (place, put) in changes {
                            match put {
                                Some(put) => drop(stored.insert(place, put.clone())),
                                None => prop_assert!(stored.remove(&place).is_some()),
                            }
                        }
                        let restored = Models::restored(stored.values().cloned().collect(), Vec::new());
                        let mut found = Catalogue::new();
                        for (id, version) in restored.iter() {
                            found.entry(id.0[0]).or_default().push(version.object.0[0]);
                        }
                        prop_assert_eq!(&found, &history[at as usize]);
                        // Nothing waits to be dropped here, so all searches answer, but where times fall.
                        for model in 0..3 {
                            let all = restored.versions_before(&id(model), at, END, 99);
                            let found = |found: Result<Option<Arc<Version>>, LookAtAll>| found.map(|v| v.map(|v| place(&v))).ok();
                            prop_assert_eq!(found(restored.back(&id(model), at, 1)), Some(all.get(1).map(|v| place(v))));
                            for time in 0..=at as i64 {
                                let newest = all.iter().find(|version| version.time.0 <= time);
                                let put_by = restored.put_by(&id(model), at, Timestamp(time));
                                prop_assert_eq!(found(put_by), Some(newest.map(|v| place(v))));
                            }
                            for time in 0..5 {
                                let newest = all.iter().find(|version| version.timestamp.0 <= time);
                                let rises = all.iter().rev().is_sorted_by_key(|version| version.timestamp);
                                let as_of = restored.as_of(&id(model), at, Timestamp(time));
                                prop_assert_eq!(found(as_of), rises.then(|| newest.map(|v| place(v))));
                            }
                        }
                    }
                    (_, kept) => captured = kept,
                }
                for reader in oldest..=seq {
                    let expected = &history[reader as usize];
                    for model in 0..3 {
                        let found = models.newest(&id(model), reader).map(|v| v.object.0[0]);
                        let newest = expected.get(&model).and_then(|all| all.last().copied());
                        prop_assert_eq!(found, newest, "model {} at {}", model, reader);
                        let mut all = models.versions_before(&id(model), reader, END, 99);
                        let halves = all.split_at(all.len() / 2);
                        let before = halves.0.last().map_or(END, |last| place(last));
                        prop_assert_eq!(
                            models.versions_before(&id(model), reader, before, 99).iter().map(|v| place(v)).collect::<Vec<_>>(),
                            halves.1.iter().map(|v| place(v)).collect::<Vec<_>>()
                        );
                        for at in [0, 1, 2, 3, 4] {
                            let known = all.iter().filter(|version| version.timestamp.0 <= at);
                            let best = known.max_by_key(|version| (version.timestamp, place(version)));
                            if let Ok(found) = models.as_of(&id(model), reader, Timestamp(at)) {
                                prop_assert_eq!(found.map(|v| place(&v)), best.map(|v| place(v)));
                            }
                        }
                        if let Ok(found) = models.back(&id(model), reader, 1) {
                            prop_assert_eq!(found.map(|v| place(&v)), all.get(1).map(|v| place(v)));
                        }
                        for at in 0..=seq as i64 {
                            if let Ok(found) = models.put_by(&id(model), reader, Timestamp(at)) {
                                let newest = all.iter().find(|version| version.time.0 <= at);
                                prop_assert_eq!(found.map(|v| place(&v)), newest.map(|v| place(v)));
                            }
                        }
                        all.reverse();
                        let bytes: Vec<u8> = all.iter().map(|version| version.object.0[0]).collect();
                        prop_assert_eq!(bytes, expected.get(&model).cloned().unwrap_or_default());
                        for version in &all {
                            let found = models.version(&id(model), version.number, reader);
                            prop_assert_eq!(found.map(|found| place(&found)), Some(place(version)));
                        }
                    }
                    // Whatever differs between a reader and the head is told.
                    let changed = models.changed_behind(behind(reader), seq, usize::MAX);
                    let changed: BTreeSet<_> = changed.into_iter().map(|(_, id)| id).collect();
                    for model in 0..3 {
                        // Older versions may be gone: the index knows of the newest alone.
                        let newest = |all: &Catalogue| all.get(&model).and_then(|all| all.last().copied());
                        let differs = newest(expected) != newest(&history[seq as usize]);
                        prop_assert!(!differs || changed.contains(&id(model)));
                    }
                }
                prop_assert_eq!(models.len(), history.last().unwrap().len());
            }
            while let Some(version) = models.drop_deleted(u64::MAX) {
                named[usize::from(version.object.0[0])] -= 1;
            }
            for model in 0..3 {
                prop_assert!(models.back(&id(model), u64::MAX, 0).is_ok(), "nothing waits to be dropped");
            }
            let mut expected = [0i64; 4];
            models.iter().for_each(|(_, version)| expected[usize::from(version.object.0[0])] += 1);
            prop_assert_eq!(named, expected);
            let lines: BTreeSet<_> = models.by_id.0.iter().flat_map(HashMap::keys).collect();
            prop_assert_eq!((lines.len(), models.queue.len()), (models.len(), 0));
            prop_assert!(lines == models.ids.iter().collect());
            let seqs: BTreeSet<_> = models.iter().map(|(id, version)| (version.seq, *id)).collect();
            prop_assert_eq!(&models.by_seq, &seqs);
        }
    }

    #[test]
    fn what_the_index_does_not_know_yet_is_kept() {
        let mut models = Models::default();
        models.push(id(1), version(1, 1));
        models.note_indexed(1);
        models.delete(2, Timestamp(0), id(1));
        assert!(models.drop_deleted(9).is_none());
        assert!(models.wait_for_index(2) && !models.wait_for_index(1));
        assert!(models.newest(&id(1), 1).is_some());
        models.note_indexed(2);
        assert!(!models.wait_for_index(9));
        assert_eq!(models.drop_deleted(9).unwrap().object, ObjectId([1; 32]));
        assert!(
            !models.has_deleted()
                && models.by_id.get(&id(1)).is_none()
                && models.ids.is_empty()
                && models.by_seq.is_empty()
        );
    }
}
