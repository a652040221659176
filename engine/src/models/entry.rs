//! The keys under which an ordered index holds a model's attributes.
//!
//! A key is the hash of the path (16 bytes), a tag for the type, the value in a form whose bytes have the value's
//! order, and the model's id (32 bytes). Long text and bytes are cut: a key says that a model may have a value, and
//! its metadata says whether it does.

use std::ops::Bound;

use super::wanted::{Condition, Test};
use super::{MetaValue, Metadata, ModelId};
use crate::limits::INDEX_MODEL_KEYS_MAX;

/// Bytes of text and bytes that a key holds.
const CUT_BYTES: usize = 64;

/// Bytes of the hash of a path.
const PATH_BYTES: usize = 16;

/// Bytes of a model's id.
const ID_BYTES: usize = 32;

/// In the place of a path's hash: the model has too many attributes for the index and may have any.
const CROWDED: [u8; PATH_BYTES] = [0xff; PATH_BYTES];

const NULL: u8 = 0;
const BOOL: u8 = 1;
const I64: u8 = 2;
const F64: u8 = 3;
const TEXT: u8 = 4;
const BYTES: u8 = 5;
const TIMESTAMP: u8 = 6;
/// A list or a dict.
const COMPOSITE: u8 = 7;

/// A stretch of keys, from one on and before another.
pub(crate) type Stretch = (Vec<u8>, Vec<u8>);

fn hash_of(path: &[u8]) -> [u8; PATH_BYTES] {
    let mut hash = [0; PATH_BYTES];
    hash.copy_from_slice(&blake3::hash(path).as_bytes()[..PATH_BYTES]);
    hash
}

/// Adds a step to a path. The length in front keeps `a.b` and `ab` apart.
fn push_step(path: &mut Vec<u8>, step: &str) {
    path.extend((step.len() as u32).to_le_bytes());
    path.extend(step.as_bytes());
}

fn push_i64(key: &mut Vec<u8>, value: i64) {
    key.extend((value.cast_unsigned() ^ (1 << 63)).to_be_bytes());
}

fn push_f64(key: &mut Vec<u8>, value: f64) {
    // One zero; negative floats are larger the smaller they are.
    let bits = if value == 0.0 { 0 } else { value.to_bits() };
    key.extend((if bits >> 63 == 1 { !bits } else { bits ^ (1 << 63) }).to_be_bytes());
}

/// Zeros are escaped, and two zeros end the value: so no value begins with another.
fn push_cut(key: &mut Vec<u8>, value: &[u8]) {
    for byte in value.iter().take(CUT_BYTES) {
        key.push(*byte);
        if *byte == 0 {
            key.push(0xff);
        }
    }
    key.extend([0, 0]);
}

fn push_value(key: &mut Vec<u8>, value: &MetaValue) {
    match value {
        MetaValue::Null => key.push(NULL),
        MetaValue::Bool(value) => key.extend([BOOL, u8::from(*value)]),
        MetaValue::I64(value) => {
            key.push(I64);
            push_i64(key, *value);
        }
        MetaValue::F64(value) => {
            key.push(F64);
            push_f64(key, *value);
        }
        MetaValue::Text(value) => {
            key.push(TEXT);
            push_cut(key, value.as_bytes());
        }
        MetaValue::Bytes(value) => {
            key.push(BYTES);
            push_cut(key, value);
        }
        MetaValue::Timestamp(value) => {
            key.push(TIMESTAMP);
            push_i64(key, value.0);
        }
        MetaValue::List(_) | MetaValue::Map(_) => key.push(COMPOSITE),
    }
}

/// The keys of a model, sorted, each once.
pub(crate) fn keys_of(id: &ModelId, metadata: &Metadata) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    for (name, value) in metadata.entries() {
        let mut path = Vec::new();
        push_step(&mut path, name);
        walk(&mut keys, &mut path, value, id);
        if let Some(at) = metadata.timestamp_of_number().filter(|_| name == "timestamp") {
            walk(&mut keys, &mut path, &MetaValue::Timestamp(at), id);
        }
    }
    keys.sort_unstable();
    keys.dedup();
    if keys.len() > INDEX_MODEL_KEYS_MAX {
        return vec![[&CROWDED[..], &id.0].concat()];
    }
    keys
}

fn walk(keys: &mut Vec<Vec<u8>>, path: &mut Vec<u8>, value: &MetaValue, id: &ModelId) {
    let mut key = hash_of(path).to_vec();
    push_value(&mut key, value);
    key.extend(id.0);
    keys.push(key);
    match value {
        MetaValue::List(items) => items.iter().for_each(|item| walk(keys, path, item, id)),
        MetaValue::Map(entries) => {
            for (name, value) in entries {
                let length = path.len();
                push_step(path, name);
                walk(keys, path, value, id);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

/// The model that a key names; `None` for what is no key.
pub(crate) fn model_of(key: &[u8]) -> Option<ModelId> {
    key.last_chunk::<ID_BYTES>().filter(|_| key.len() >= PATH_BYTES + ID_BYTES).map(|id| ModelId(*id))
}

/// Where the keys of models are that may be in any answer.
pub(crate) fn crowded() -> Stretch {
    (CROWDED.to_vec(), [&CROWDED[..], &[0xff; ID_BYTES + 1]].concat())
}

/// The first bytes behind all that begin with `prefix`.
fn behind(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.pop() {
        if last < 0xff {
            prefix.push(last + 1);
            break;
        }
    }
    prefix
}

/// Where the keys are of all models that may fulfil a condition.
pub(crate) fn stretches(condition: &Condition) -> Vec<Stretch> {
    let mut path = Vec::new();
    condition.steps.iter().for_each(|step| push_step(&mut path, step));
    let hash = hash_of(&path).to_vec();
    let beginning_with = |prefix: Vec<u8>| (prefix.clone(), behind(prefix));
    match &condition.test {
        Test::Exists => vec![beginning_with(hash)],
        Test::Equals(value) => {
            let mut prefix = hash;
            push_value(&mut prefix, value);
            vec![beginning_with(prefix)]
        }
        Test::Between(from, to) => {
            let (from, to) = (end(from), end(to));
            let tags: &[u8] = match from.or(to) {
                Some(MetaValue::Text(_)) => &[TEXT],
                Some(MetaValue::Timestamp(_)) => &[TIMESTAMP],
                _ => &[I64, F64],
            };
            let edge = |tag: u8, value: Option<&MetaValue>, up: bool| {
                let mut key = hash.clone();
                key.push(tag);
                if let Some(value) = value {
                    push_edge(&mut key, tag, value, up);
                }
                key
            };
            let stretch = |tag: &u8| (edge(*tag, from, false), behind(edge(*tag, to, true)));
            tags.iter().map(stretch).collect()
        }
    }
}

fn end(bound: &Bound<MetaValue>) -> Option<&MetaValue> {
    match bound {
        Bound::Unbounded => None,
        Bound::Included(value) | Bound::Excluded(value) => Some(value),
    }
}

/// The end of a range among values with this tag; a number of the other type is rounded outwards.
fn push_edge(key: &mut Vec<u8>, tag: u8, value: &MetaValue, up: bool) {
    match (tag, value) {
        // The cast keeps to the bounds of i64, within which all values are.
        (I64, MetaValue::F64(value)) => push_i64(key, if up { value.ceil() } else { value.floor() } as i64),
        (F64, MetaValue::I64(value)) => {
            let value = *value as f64;
            push_f64(key, if up { value.next_up() } else { value.next_down() });
        }
        (_, value) => {
            key.pop();
            push_value(key, value);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::super::wanted::Where;
    use super::*;
    use proptest::prelude::*;
    use underbelly_storage::Timestamp;

    const ID: ModelId = ModelId([0xee; 32]);

    fn proposed(metadata: &Metadata, wanted: &Where) -> bool {
        let keys = keys_of(&ID, metadata);
        wanted.conditions().unwrap().iter().all(|condition| {
            let mut places = stretches(condition);
            places.push(crowded());
            places.iter().any(|(from, to)| keys.iter().any(|key| key >= from && key < to))
        })
    }

    #[test]
    fn a_model_with_very_many_attributes_may_have_any() {
        let many: Vec<MetaValue> = (0..2_000i64).map(MetaValue::from).collect();
        let metadata = Metadata::new("m").with("v", many);
        assert_eq!(keys_of(&ID, &metadata).len(), 1);
        assert!(proposed(&metadata, &Where::equals("v", 7i64)));
        assert_eq!(model_of(&keys_of(&ID, &metadata)[0]), Some(ID));
    }

    #[test]
    fn what_is_no_key_names_no_model() {
        assert_eq!(model_of(&[1; 47]), None);
        assert_eq!(model_of(&keys_of(&ID, &Metadata::new("m"))[0]), Some(ID));
    }

    #[test]
    fn values_that_differ_early_are_not_proposed() {
        let metadata = Metadata::new("m").with("v", 5i64).with("t", "text");
        for wanted in [
            Where::equals("v", 6i64),
            Where::equals("v", 5.0),
            Where::equals("w", 5i64),
            Where::between("v", 6i64..),
            Where::between("v", 6.5..),
            Where::between("t", "texu"..),
        ] {
            assert!(!proposed(&metadata, &wanted), "{wanted:?}");
        }
    }

    fn value() -> impl Strategy<Value = MetaValue> {
        let leaf = prop_oneof![
            Just(MetaValue::Null),
            any::<bool>().prop_map(MetaValue::Bool),
            any::<i64>().prop_map(MetaValue::I64),
            (-3i64..3).prop_map(MetaValue::I64),
            (-1e300..1e300).prop_map(MetaValue::F64),
            (-3.0..3.0).prop_map(MetaValue::F64),
            prop_oneof![Just(0.0), Just(-0.0), Just(2.0), Just(9.3e18), Just(-9.3e18)]
                .prop_map(MetaValue::F64),
            "[ab\\x00\u{ff}]{0,4}".prop_map(MetaValue::Text),
            "[ab]{62,67}".prop_map(MetaValue::Text),
            proptest::collection::vec(0u8..3, 0..4).prop_map(MetaValue::Bytes),
            any::<i64>().prop_map(|ns| MetaValue::Timestamp(Timestamp(ns))),
        ];
        leaf.prop_recursive(2, 8, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(MetaValue::List),
                proptest::collection::btree_map("[ab]", inner, 0..3).prop_map(MetaValue::Map),
            ]
        })
    }

    proptest! {
        /// Whatever fulfils a condition has a key in one of its stretches.
        #[test]
        fn no_model_is_missed(
            value in value(), other in value(), third in value(), path in "v(\\.[ab]){0,2}",
            open in (any::<bool>(), any::<bool>()),
        ) {
            let metadata = Metadata::new("m").with("v", value);
            let bound = |value: MetaValue, open| match open {
                true => Bound::Excluded(value),
                false => Bound::Included(value),
            };
            let mut wanted = vec![Where::exists(&path), Where::equals(&path, other.clone())];
            wanted.push(Where::between(&path, (bound(other.clone(), open.0), bound(third, open.1))));
            wanted.push(Where::between(&path, (bound(other.clone(), open.0), Bound::Unbounded)));
            wanted.push(Where::between(&path, (Bound::Unbounded, bound(other, open.1))));
            for wanted in wanted {
                let Ok(conditions) = wanted.conditions() else { continue };
                if conditions.iter().all(|condition| condition.holds(&metadata)) {
                    prop_assert!(proposed(&metadata, &wanted), "{:?} {:?}", metadata, wanted);
                }
            }
        }
    }
}
