//! What is told of models beside their versions: aliases, pins, retention, annotations, lineage. Nothing of it is part of
//! an identity, all of it has a history.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use underbelly_storage::Timestamp;
use underbelly_storage::cursor::Cursor;
use underbelly_storage::error::Damage;
use underbelly_storage::image::Key;

use super::{MetaValue, Metadata, ModelId};

/// Of which kind a mark is. The numbers are those of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum MarkKind {
    /// A name for a version: the value is its number.
    Alias = 1,
    /// A tag or metric.
    Note = 2,
    /// Retention spares the version.
    Pin = 3,
    /// Which versions are kept.
    Retention = 4,
    /// What a version was made from.
    Lineage = 5,
}

impl MarkKind {
    const ALL: [MarkKind; 5] =
        [MarkKind::Alias, MarkKind::Note, MarkKind::Pin, MarkKind::Retention, MarkKind::Lineage];

    pub(crate) fn of(number: u8) -> Option<MarkKind> {
        MarkKind::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// What a mark is about, as the log and the image write it: the model, or one of its versions.
pub(crate) const MODEL: u64 = 0;
/// The newest version as of the transaction; never stored.
pub(crate) const NEWEST: u64 = u64::MAX;

/// Which mark of a model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MarkName {
    pub kind: MarkKind,
    /// The version that it is about; [`MODEL`] for the model, [`NEWEST`] before it is applied.
    pub version: u64,
    pub name: Arc<str>,
}

impl MarkName {
    pub(crate) fn new(kind: MarkKind, version: u64, name: &str) -> MarkName {
        MarkName { kind, version, name: name.into() }
    }
}

/// A mark that a transaction sets, or takes away.
#[derive(Clone, Debug)]
pub(crate) struct MarkChange {
    pub id: ModelId,
    pub mark: MarkName,
    /// The number of a version for an alias, -1 for the newest.
    pub value: Option<MetaValue>,
    /// The version that an alias is to name before, where that is asked for.
    pub expected: Option<Option<u64>>,
}

/// A mark from a transaction on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Told {
    pub place: Place,
    pub time: Timestamp,
    pub value: Option<MetaValue>,
}

/// The transaction, and how many marks it set before.
pub(crate) type Place = (u64, u64);

/// A mark as the state image holds it.
#[derive(Clone, Debug)]
pub(crate) struct StoredMark {
    pub id: ModelId,
    pub mark: MarkName,
    pub told: Told,
}

/// Records of the state image that changed; `None` where one is gone.
pub(crate) type ChangedMarks = BTreeMap<Place, Option<StoredMark>>;

/// All marks.
#[derive(Default, Debug)]
pub(crate) struct Marks {
    by_model: BTreeMap<ModelId, BTreeMap<MarkName, Vec<Told>>>,
    /// Models of which not all versions are kept.
    retained: BTreeSet<ModelId>,
    changed: ChangedMarks,
    /// Seq of the newest, and how many its transaction set.
    last: (u64, u64),
}

impl Marks {
    /// The marks that a state image describes, in order.
    pub(crate) fn restored(stored: Vec<StoredMark>) -> Marks {
        let mut marks = Marks::default();
        for StoredMark { id, mark, told } in stored {
            marks.last = (told.place.0, told.place.1 + 1);
            marks.note_retention(id, &mark, told.value.as_ref());
            marks.by_model.entry(id).or_default().entry(mark).or_default().push(told);
        }
        marks
    }

    /// Sets a mark or takes it away; what stands so already is left alone.
    pub(crate) fn set(
        &mut self,
        (seq, time): (u64, Timestamp),
        id: ModelId,
        mark: MarkName,
        value: Option<MetaValue>,
    ) {
        if self.value_at(&id, &mark, seq) == value.as_ref() {
            return;
        }
        self.note_retention(id, &mark, value.as_ref());
        let position = if self.last.0 == seq { self.last.1 } else { 0 };
        self.last = (seq, position + 1);
        let told = Told { place: (seq, position), time, value };
        self.changed.insert(told.place, Some(StoredMark { id, mark: mark.clone(), told: told.clone() }));
        self.by_model.entry(id).or_default().entry(mark).or_default().push(told);
    }

    fn note_retention(&mut self, id: ModelId, mark: &MarkName, value: Option<&MetaValue>) {
        if mark.kind != MarkKind::Retention {
            return;
        }
        match value {
            Some(_) => self.retained.insert(id),
            None => self.retained.remove(&id),
        };
    }

    /// Takes away all marks of a model that is deleted. What is told of it before the place that comes back is of what
    /// was deleted.
    pub(crate) fn clear(&mut self, at: (u64, Timestamp), id: ModelId) -> Place {
        let names = self.by_model.get(&id).map_or_else(Vec::new, |marks| marks.keys().cloned().collect());
        self.clear_all(at, id, names)
    }

    /// The same for one version.
    pub(crate) fn clear_version(&mut self, at: (u64, Timestamp), id: ModelId, version: u64) -> Place {
        let names = self.names_of(&id, version);
        self.clear_all(at, id, names)
    }

    fn clear_all(&mut self, at: (u64, Timestamp), id: ModelId, names: Vec<MarkName>) -> Place {
        for mark in names {
            self.set(at, id, mark.clone(), None);
            // Who reads an older seq sees it until it is forgotten; what is restored from an image has no such reader.
            let told = self.by_model.get(&id).and_then(|marks| marks.get(&mark));
            self.changed.extend(told.into_iter().flatten().map(|told| (told.place, None)));
        }
        if self.last.0 == at.0 { self.last } else { (at.0, 0) }
    }

    /// Names of the marks that are about one version.
    fn names_of(&self, id: &ModelId, version: u64) -> Vec<MarkName> {
        let Some(marks) = self.by_model.get(id) else { return Vec::new() };
        let of_kind = |kind: MarkKind| {
            let names = marks.range(MarkName::new(kind, version, "")..).map(|(mark, _)| mark);
            names.take_while(move |mark| mark.kind == kind && mark.version == version).cloned()
        };
        MarkKind::ALL.into_iter().flat_map(of_kind).collect()
    }

    /// Forgets what was told of a version before a place, which nobody sees any more.
    pub(crate) fn forget_version(&mut self, id: &ModelId, version: u64, before: Place) {
        let names = self.names_of(id, version);
        self.forget_all(id, names, before);
    }

    /// Forgets what was told of a model before a place, which nobody sees any more.
    pub(crate) fn forget(&mut self, id: &ModelId, before: Place) {
        let names = self.by_model.get(id).map_or_else(Vec::new, |marks| marks.keys().cloned().collect());
        self.forget_all(id, names, before);
    }

    fn forget_all(&mut self, id: &ModelId, names: Vec<MarkName>, before: Place) {
        let Some(marks) = self.by_model.get_mut(id) else { return };
        for mark in names {
            let Entry::Occupied(mut told) = marks.entry(mark) else { continue };
            // In order of their places.
            let gone = told.get().partition_point(|told| told.place < before);
            self.changed.extend(told.get_mut().drain(..gone).map(|told| (told.place, None)));
            if told.get().is_empty() {
                told.remove();
            }
        }
        if marks.is_empty() {
            self.by_model.remove(id);
        }
    }

    /// A mark as of a seq.
    pub(crate) fn at(&self, id: &ModelId, mark: &MarkName, seq: u64) -> Option<&Told> {
        newest(self.by_model.get(id)?.get(mark)?, seq)
    }

    /// The value of a mark as of a seq.
    pub(crate) fn value_at(&self, id: &ModelId, mark: &MarkName, seq: u64) -> Option<&MetaValue> {
        self.at(id, mark, seq)?.value.as_ref()
    }

    /// The marks of one kind that a model has as of a seq.
    pub(crate) fn of_kind(
        &self,
        id: &ModelId,
        kind: MarkKind,
        seq: u64,
    ) -> impl Iterator<Item = (&MarkName, &Told, &MetaValue)> {
        let marks = self.by_model.get(id).map(|marks| marks.range(MarkName::new(kind, MODEL, "")..));
        let marks = marks.into_iter().flatten().take_while(move |(mark, _)| mark.kind == kind);
        marks.filter_map(move |(mark, told)| {
            let told = newest(told, seq)?;
            Some((mark, told, told.value.as_ref()?))
        })
    }

    /// The first `n` marks of one kind that are about these versions, behind this mark or of all, each with what is told of it
    /// as of a seq.
    pub(crate) fn slice_behind(
        &self,
        id: &ModelId,
        behind: Option<&MarkName>,
        (kind, versions): (MarkKind, &RangeInclusive<u64>),
        seq: u64,
        n: usize,
    ) -> Vec<(MarkName, Option<Told>)> {
        let first = MarkName::new(kind, *versions.start(), "");
        let from = behind.map_or(Bound::Included(&first), Bound::Excluded);
        let marks = self.by_model.get(id).map(|marks| marks.range((from, Bound::Unbounded)));
        let marks = marks.into_iter().flatten().take(n);
        let marks = marks.take_while(|(mark, _)| mark.kind == kind && mark.version <= *versions.end());
        marks.map(|(mark, told)| (mark.clone(), newest(told, seq).cloned())).collect()
    }

    /// All that was told of a mark up to a seq, oldest first.
    pub(crate) fn history(&self, id: &ModelId, mark: &MarkName, seq: u64) -> Vec<Told> {
        let told = self.by_model.get(id).and_then(|marks| marks.get(mark));
        told.into_iter().flatten().filter(|told| told.place.0 <= seq).cloned().collect()
    }

    /// The version that an alias names as of a seq.
    pub(crate) fn alias_at(&self, id: &ModelId, alias: &str, seq: u64) -> Option<u64> {
        number(self.value_at(id, &MarkName::new(MarkKind::Alias, MODEL, alias), seq)?)
    }

    /// Versions that are pinned.
    pub(crate) fn pinned(&self, id: &ModelId, seq: u64) -> impl Iterator<Item = u64> {
        self.of_kind(id, MarkKind::Pin, seq).map(|(mark, ..)| mark.version)
    }

    /// Aliases with the versions that they name.
    pub(crate) fn aliases(&self, id: &ModelId, seq: u64) -> impl Iterator<Item = (&Arc<str>, u64)> {
        let aliases = self.of_kind(id, MarkKind::Alias, seq);
        aliases.filter_map(|(mark, _, value)| Some((&mark.name, number(value)?)))
    }

    /// Which versions of a model are kept.
    pub(crate) fn retention(&self, id: &ModelId, seq: u64) -> Option<Retention> {
        Retention::of(self.value_at(id, &MarkName::new(MarkKind::Retention, MODEL, ""), seq)?)
    }

    /// Models of which not all versions are kept.
    pub(crate) fn retained(&self) -> Vec<ModelId> {
        self.retained.iter().copied().collect()
    }

    /// Those behind a model, or all, in order.
    pub(crate) fn retained_behind(&self, behind: Option<&ModelId>) -> impl Iterator<Item = &ModelId> {
        let from = behind.map_or(Bound::Unbounded, Bound::Excluded);
        self.retained.range((from, Bound::Unbounded))
    }

    /// Number of records that are in no state image.
    pub(crate) fn changed_records(&self) -> usize {
        self.changed.len()
    }

    /// What is in no state image.
    pub(crate) fn take_changed(&mut self) -> ChangedMarks {
        std::mem::take(&mut self.changed)
    }

    /// Gives back what was taken and not stored. What changed since is newer.
    pub(crate) fn give_back_changed(&mut self, mut taken: ChangedMarks) {
        taken.append(&mut self.changed);
        self.changed = taken;
    }
}

fn newest(told: &[Told], seq: u64) -> Option<&Told> {
    told.get(told.partition_point(|told| told.place.0 <= seq).checked_sub(1)?)
}

pub(crate) fn number(value: &MetaValue) -> Option<u64> {
    match value {
        MetaValue::I64(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

/// Which versions of a model are kept: the newest so many, and none older than so long. The newest of all, pinned ones and
/// those that an alias names stay in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// The newest so many; all where it is `None`.
    pub keep_last: Option<u64>,
    /// Those that were put within this time; all where it is `None`.
    pub max_age: Option<Duration>,
}

impl Retention {
    /// Keeps the newest `count` versions.
    pub fn keep_last(count: u64) -> Retention {
        Retention { keep_last: Some(count), ..Retention::default() }
    }

    /// Keeps versions for so long.
    pub fn max_age(age: Duration) -> Retention {
        Retention { max_age: Some(age), ..Retention::default() }
    }

    pub(crate) fn to_value(self) -> MetaValue {
        let long = |number: u128| i64::try_from(number).unwrap_or(i64::MAX);
        let keep = self.keep_last.map(|count| ("keep_last", long(u128::from(count))));
        let age = self.max_age.map(|age| ("max_age_ns", long(age.as_nanos())));
        let entries = keep.into_iter().chain(age);
        MetaValue::Map(entries.map(|(name, value)| (name.to_string(), value.into())).collect())
    }

    /// Whether a version of one time is too old at another.
    pub(super) fn is_too_old(&self, version: Timestamp, at: Timestamp) -> bool {
        let age = i128::from(at.0) - i128::from(version.0);
        self.max_age.is_some_and(|most| age > i128::try_from(most.as_nanos()).unwrap_or(i128::MAX))
    }

    /// How many of the versions of a model, the oldest, are not to be kept unless something holds them: numbers and times rise
    /// alike. The newest stays.
    pub(super) fn outside(&self, versions: usize, too_old: usize) -> usize {
        let kept = self.keep_last.map_or(usize::MAX, |kept| usize::try_from(kept).unwrap_or(usize::MAX));
        versions.saturating_sub(kept).max(too_old).min(versions.saturating_sub(1))
    }

    fn of(value: &MetaValue) -> Option<Retention> {
        let MetaValue::Map(entries) = value else { return None };
        let entry = |name: &str| entries.get(name).and_then(number);
        let (keep_last, max_age) = (entry("keep_last"), entry("max_age_ns").map(Duration::from_nanos));
        (keep_last.is_some() || max_age.is_some()).then_some(Retention { keep_last, max_age })
    }
}

/// A value in canonical form.
pub(crate) fn value_to_cbor(value: &MetaValue) -> Result<Vec<u8>, super::MetadataError> {
    Metadata::from_entries(BTreeMap::from([("v".to_string(), value.clone())])).to_cbor()
}

/// Reads what [`value_to_cbor`] wrote.
pub(crate) fn value_of_cbor(bytes: &[u8]) -> Result<MetaValue, String> {
    let dict = Metadata::from_cbor(bytes).map_err(|error| error.to_string())?;
    let value = dict.entries().get("v").filter(|_| dict.entries().len() == 1);
    value.cloned().ok_or_else(|| "a mark of a model holds no value".to_string())
}

/// Appends the record of a mark.
pub(crate) fn encode(out: &mut Vec<u8>, stored: &StoredMark) -> Result<(), super::MetadataError> {
    let StoredMark { id, mark, told } = stored;
    out.extend_from_slice(&id.0);
    out.push(mark.kind as u8);
    out.extend_from_slice(&mark.version.to_le_bytes());
    out.extend_from_slice(&told.time.0.to_le_bytes());
    out.push(u8::try_from(mark.name.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(mark.name.as_bytes());
    if let Some(value) = &told.value {
        out.extend_from_slice(&value_to_cbor(value)?);
    }
    Ok(())
}

/// Reads what [`encode`] wrote; says what is wrong with any other bytes.
pub(crate) fn decode(key: Key, bytes: &[u8]) -> Result<StoredMark, String> {
    let mut cursor = Cursor::new(bytes);
    let mut head = || {
        let (id, kind, version, time) = (cursor.array()?, cursor.u8()?, cursor.u64()?, cursor.i64()?);
        let length = usize::from(cursor.u8()?);
        let name = std::str::from_utf8(cursor.take(length)?).map_err(|_| Damage("a name is not UTF-8"))?;
        let kind = MarkKind::of(kind).ok_or(Damage("a mark of a model is of no known kind"))?;
        Ok((ModelId(id), MarkName::new(kind, version, name), Timestamp(time)))
    };
    let (id, mark, time) = head().map_err(|Damage(what)| what.to_string())?;
    let value = match cursor.rest() {
        [] => None,
        value => Some(value_of_cbor(value)?),
    };
    Ok(StoredMark { id, mark, told: Told { place: (key.major, key.minor), time, value } })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ID: ModelId = ModelId([3; 32]);

    fn alias(name: &str) -> MarkName {
        MarkName::new(MarkKind::Alias, MODEL, name)
    }

    #[test]
    fn marks_are_as_of_a_seq_and_what_stands_so_is_no_change() {
        let mut marks = Marks::default();
        for (seq, value) in [(1, Some(1i64)), (3, Some(2)), (4, Some(2)), (6, None)] {
            marks.set((seq, Timestamp(seq as i64)), ID, alias("a"), value.map(Into::into));
        }
        let seen: Vec<_> = (0..=7).map(|seq| marks.alias_at(&ID, "a", seq)).collect();
        assert_eq!(seen, [None, Some(1), Some(1), Some(2), Some(2), Some(2), None, None]);
        assert_eq!(marks.history(&ID, &alias("a"), 5).len(), 2);
        assert_eq!(marks.history(&ID, &alias("a"), 9).len(), 3);
        let stored = marks.take_changed();
        let restored = Marks::restored(stored.into_values().flatten().collect());
        assert_eq!(restored.history(&ID, &alias("a"), 9), marks.history(&ID, &alias("a"), 9));
        marks.forget(&ID, (6, 1));
        assert!(marks.by_model.is_empty() && marks.take_changed().values().all(Option::is_none));
    }

    #[test]
    fn several_marks_of_a_transaction_have_places_of_their_own() {
        let mut marks = Marks::default();
        for name in ["a", "b"] {
            marks.set((5, Timestamp(0)), ID, alias(name), Some(1i64.into()));
        }
        marks.clear((6, Timestamp(0)), ID);
        let changed = marks.take_changed();
        assert_eq!(changed.keys().copied().collect::<Vec<Place>>(), [(5, 0), (5, 1), (6, 0), (6, 1)]);
        assert!(changed.values().all(Option::is_none), "no image holds what is of a deleted model");
        assert_eq!(marks.alias_at(&ID, "a", 5), Some(1));
    }

    /// A change of these bytes is a change of the format on disk.
    #[test]
    fn the_bytes_of_a_mark_are_fixed_and_damaged_ones_are_refused() {
        let told = Told { place: (5, 1), time: Timestamp(-2), value: Some(1.5.into()) };
        let mark = MarkName::new(MarkKind::Note, 7, "auc");
        let mut bytes = Vec::new();
        encode(&mut bytes, &StoredMark { id: ID, mark: mark.clone(), told: told.clone() }).unwrap();
        let hex: String = bytes[32..].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, concat!("02", "0700000000000000", "feffffffffffffff", "03617563", "a16176f93e00"));
        let key = Key { kind: 10, major: 5, minor: 1 };
        let read = decode(key, &bytes).unwrap();
        assert_eq!((read.id, read.mark, read.told), (ID, mark, told));
        for cut in 0..bytes.len() {
            let read = decode(key, &bytes[..cut]);
            assert!(read.is_err() || read.is_ok_and(|read| read.told.value.is_none()), "{cut}");
        }
        for (at, byte) in (0..bytes.len()).flat_map(|at| [0, 1, 9, 0x80, 0xff].map(|byte| (at, byte))) {
            let mut bad = bytes.clone();
            bad[at] = byte;
            let _ = decode(key, &bad);
        }
    }

    #[test]
    fn retention_is_what_it_was_set_to() {
        for retention in [
            Retention::keep_last(3),
            Retention::max_age(Duration::from_secs(9)),
            Retention { keep_last: Some(0), max_age: Some(Duration::ZERO) },
        ] {
            assert_eq!(Retention::of(&retention.to_value()), Some(retention));
        }
        assert_eq!(Retention::of(&Retention::default().to_value()), None);
        assert_eq!(Retention::of(&true.into()), None);
    }
}
