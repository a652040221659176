//! The dict by which a model is found.
//!
//! Identity is the BLAKE3-256 hash of the dict in deterministic CBOR (RFC 8949 §4.2.1: shortest integers and
//! floats, map keys in order of their encoded bytes), behind the prefix [`IDENTITY_PREFIX`]. The top-level
//! entries `timestamp`, `name` and `tags` stay outside. `true`, `1`, `1.0` and `"1"` are four different values;
//! `-0.0` is `0.0`; NaN and infinities are refused.

use std::collections::BTreeMap;
use std::fmt;

use ciborium::Value as Cbor;
use underbelly_storage::Timestamp;

use super::{cbor, json};
use crate::limits::{METADATA_BYTES_MAX, METADATA_DEPTH_MAX};

/// What the hash of an identity begins with; the number is the version of the canonical form.
pub const IDENTITY_PREFIX: &[u8] = b"underbelly.model.identity.v1\0";

/// Top-level entries that are not part of the identity.
pub(super) const OUTSIDE: [&str; 3] = ["timestamp", "name", "tags"];

/// CBOR tag for extended time (RFC 9581): a map with seconds at 1 and nanoseconds at -9.
pub(super) const TIME_TAG: u64 = 1001;

/// Why metadata was refused.
#[derive(Debug, thiserror::Error, Clone, PartialEq)]
#[non_exhaustive]
pub enum MetadataError {
    /// `type` is missing or not text.
    #[error("model metadata needs a text entry \"type\"; add it, or correct what is there")]
    Type,
    /// `timestamp` is missing or not a time.
    #[error(
        "model metadata needs an entry \"timestamp\": an instant from 1677 to 2262, or a number of seconds (not milliseconds) since 1970; add it, or correct what is there"
    )]
    Timestamp,
    /// A float that metadata cannot hold.
    #[error("model metadata entry {path:?} is {value}; use a finite number, or text")]
    NotFinite {
        /// Where, as `a.b.0`.
        path: String,
        /// The float.
        value: f64,
    },
    /// An integer outside i64.
    #[error(
        "model metadata entry {path:?} is {value}, which does not fit in 64 signed bits; store it as text"
    )]
    Integer {
        /// Where, as `a.b.0`.
        path: String,
        /// The number's text.
        value: String,
    },
    /// Nested too deeply.
    #[error("model metadata is nested more than {METADATA_DEPTH_MAX} levels deep at {path:?}; flatten it")]
    Depth {
        /// Where, as `a.b.0`.
        path: String,
    },
    /// Too large.
    #[error(
        "model metadata takes {bytes} bytes, more than {METADATA_BYTES_MAX}; put large values into the blob"
    )]
    Size {
        /// Bytes in canonical form.
        bytes: usize,
    },
    /// A key twice in one object.
    #[error("model metadata has the key {path:?} twice; keep one of them")]
    Duplicate {
        /// Where, as `a.b.0`.
        path: String,
    },
    /// Text that is no JSON object.
    #[error("model metadata is not a JSON object: {what}")]
    Json {
        /// What the parser says.
        what: String,
    },
    /// Stored bytes that are no metadata.
    #[error("stored model metadata is damaged: {what}")]
    Damaged {
        /// What is wrong.
        what: String,
    },
}

/// A value in model metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum MetaValue {
    /// No value.
    Null,
    /// True or false.
    Bool(bool),
    /// Signed 64-bit integer.
    I64(i64),
    /// A finite float.
    F64(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// An instant.
    Timestamp(Timestamp),
    /// A list.
    List(Vec<MetaValue>),
    /// A dict.
    Map(BTreeMap<String, MetaValue>),
}

macro_rules! meta_from {
    ($($from:ty => $make:expr),* $(,)?) => {$(
        impl From<$from> for MetaValue {
            fn from(value: $from) -> MetaValue {
                ($make)(value)
            }
        }
    )*};
}

meta_from! {
    bool => MetaValue::Bool,
    i64 => MetaValue::I64,
    i32 => |v| MetaValue::I64(i64::from(v)),
    u32 => |v| MetaValue::I64(i64::from(v)),
    f64 => MetaValue::F64,
    &str => |v: &str| MetaValue::Text(v.to_string()),
    String => MetaValue::Text,
    Timestamp => MetaValue::Timestamp,
    Vec<u8> => MetaValue::Bytes,
    Vec<MetaValue> => MetaValue::List,
    BTreeMap<String, MetaValue> => MetaValue::Map,
}

/// The hash of a model's identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelId(pub [u8; 32]);

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModelId({self})")
    }
}

/// A metadata dict. The type and the timestamp are mandatory when a model is put; to find one, the type and
/// the other entries are enough.
///
/// ```
/// use underbelly::{Metadata, Timestamp};
/// let put = Metadata::new("smile").with("underlying", "AAPL").with("timestamp", Timestamp(0));
/// let find = Metadata::new("smile").with("underlying", "AAPL");
/// assert_eq!(put.id()?, find.id()?);
/// # Ok::<(), underbelly::MetadataError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Metadata {
    entries: BTreeMap<String, MetaValue>,
}

impl Metadata {
    /// A dict with `type` alone.
    pub fn new(model_type: &str) -> Metadata {
        Metadata { entries: BTreeMap::from([("type".to_string(), model_type.into())]) }
    }

    /// A dict with these entries.
    pub fn from_entries(entries: BTreeMap<String, MetaValue>) -> Metadata {
        Metadata { entries }
    }

    /// The same with one more entry; an entry of that name is replaced.
    pub fn with(mut self, name: &str, value: impl Into<MetaValue>) -> Metadata {
        self.entries.insert(name.to_string(), value.into());
        self
    }

    /// All entries.
    pub fn entries(&self) -> &BTreeMap<String, MetaValue> {
        &self.entries
    }

    /// The entry `type`.
    ///
    /// # Errors
    /// [`MetadataError::Type`] where it is missing, empty or not text.
    pub fn model_type(&self) -> Result<&str, MetadataError> {
        match self.entries.get("type") {
            Some(MetaValue::Text(text)) if !text.is_empty() => Ok(text),
            _ => Err(MetadataError::Type),
        }
    }

    /// The entry `timestamp`; a bare number is seconds since 1970 UTC, rounded to nanoseconds.
    ///
    /// # Errors
    /// [`MetadataError::Timestamp`] where it is missing, no time, or beyond what 64 bits of nanoseconds hold.
    pub fn timestamp(&self) -> Result<Timestamp, MetadataError> {
        match self.entries.get("timestamp") {
            Some(MetaValue::Timestamp(at)) => Ok(*at),
            Some(MetaValue::I64(secs)) => Timestamp::from_secs(*secs).ok_or(MetadataError::Timestamp),
            Some(MetaValue::F64(secs)) if secs.is_finite() && secs.abs() < 9.2e9 => {
                Ok(Timestamp((secs * 1e9).round() as i64))
            }
            _ => Err(MetadataError::Timestamp),
        }
    }

    /// The instant that a bare number as the entry `timestamp` means; `None` where that is none.
    pub(crate) fn timestamp_of_number(&self) -> Option<Timestamp> {
        match self.entries.get("timestamp") {
            Some(MetaValue::I64(_) | MetaValue::F64(_)) => self.timestamp().ok(),
            _ => None,
        }
    }

    /// The hash of the identity.
    ///
    /// # Errors
    /// [`MetadataError::Type`] as [`Metadata::model_type`]; [`MetadataError::NotFinite`], [`MetadataError::Depth`]
    /// or [`MetadataError::Size`] where the identity cannot be encoded.
    pub fn id(&self) -> Result<ModelId, MetadataError> {
        self.model_type()?;
        let identity = self.entries.iter().filter(|(name, _)| !OUTSIDE.contains(&name.as_str()));
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(IDENTITY_PREFIX);
        cbor::write(&mut bytes, identity)?;
        Ok(ModelId(*blake3::hash(&bytes).as_bytes()))
    }

    /// The whole dict in deterministic CBOR.
    ///
    /// # Errors
    /// [`MetadataError::NotFinite`] for NaN and infinities, [`MetadataError::Depth`] above 32 levels,
    /// [`MetadataError::Size`] above 64 KiB.
    pub fn to_cbor(&self) -> Result<Vec<u8>, MetadataError> {
        let mut bytes = Vec::new();
        cbor::write(&mut bytes, self.entries.iter())?;
        Ok(bytes)
    }

    /// Reads what [`Metadata::to_cbor`] wrote.
    ///
    /// # Errors
    /// [`MetadataError::Size`] above 64 KiB; [`MetadataError::Damaged`] where the bytes are no metadata.
    pub fn from_cbor(bytes: &[u8]) -> Result<Metadata, MetadataError> {
        if bytes.len() > METADATA_BYTES_MAX {
            return Err(MetadataError::Size { bytes: bytes.len() });
        }
        if let Some(entries) = cbor::read(bytes) {
            return Ok(Metadata { entries });
        }
        Metadata::from_any_cbor(bytes)
    }

    /// Reads a dict in any CBOR.
    fn from_any_cbor(bytes: &[u8]) -> Result<Metadata, MetadataError> {
        let damaged = |what: &str| MetadataError::Damaged { what: what.to_string() };
        let cbor: Cbor = ciborium::de::from_reader_with_recursion_limit(bytes, 4 * METADATA_DEPTH_MAX)
            .map_err(|error| MetadataError::Damaged { what: error.to_string() })?;
        match from_cbor(&cbor, 0)? {
            MetaValue::Map(entries) => Ok(Metadata { entries }),
            _ => Err(damaged("not a map")),
        }
    }

    /// Reads a JSON object. Integers stay integers, other numbers are floats.
    ///
    /// # Errors
    /// [`MetadataError::Json`] where the text is no JSON object, [`MetadataError::Duplicate`] where a key stands twice, [`MetadataError::Integer`] where an integer does
    /// not fit in 64 signed bits, [`MetadataError::NotFinite`] where another number is beyond what an `f64` holds,
    /// [`MetadataError::Depth`] above 32 levels.
    pub fn from_json(text: &str) -> Result<Metadata, MetadataError> {
        Ok(Metadata { entries: json::read(text)? })
    }

    /// As JSON: instants become RFC 3339 text and bytes become hexadecimal text.
    pub fn to_json(&self) -> String {
        json::write(&self.entries)
    }
}

pub(super) fn join(path: &str, step: &str) -> String {
    if path.is_empty() { step.to_string() } else { format!("{path}.{step}") }
}

fn from_cbor(cbor: &Cbor, depth: usize) -> Result<MetaValue, MetadataError> {
    let damaged = |what: &str| MetadataError::Damaged { what: what.to_string() };
    if depth > METADATA_DEPTH_MAX {
        return Err(damaged("nested too deeply"));
    }
    Ok(match cbor {
        Cbor::Null => MetaValue::Null,
        Cbor::Bool(v) => MetaValue::Bool(*v),
        Cbor::Integer(v) => {
            MetaValue::I64(i64::try_from(i128::from(*v)).map_err(|_| damaged("integer out of range"))?)
        }
        Cbor::Float(v) => MetaValue::F64(*v),
        Cbor::Text(v) => MetaValue::Text(v.clone()),
        Cbor::Bytes(v) => MetaValue::Bytes(v.clone()),
        Cbor::Tag(TIME_TAG, inner) => {
            let Cbor::Map(parts) = &**inner else { return Err(damaged("time is no map")) };
            let part = |key: i64| {
                parts.iter().find(|(k, _)| *k == Cbor::Integer(key.into())).and_then(|(_, v)| v.as_integer())
            };
            let number = |key| part(key).and_then(|v| i64::try_from(i128::from(v)).ok());
            let at = number(1)
                .zip(number(-9))
                .and_then(|(secs, ns)| {
                    let ns = (0..1_000_000_000).contains(&ns).then_some(i128::from(ns))?;
                    i64::try_from(i128::from(secs) * 1_000_000_000 + ns).ok()
                })
                .ok_or_else(|| damaged("time out of range"))?;
            MetaValue::Timestamp(Timestamp(at))
        }
        Cbor::Array(items) => {
            MetaValue::List(items.iter().map(|item| from_cbor(item, depth + 1)).collect::<Result<_, _>>()?)
        }
        Cbor::Map(pairs) => {
            let mut entries = BTreeMap::new();
            for (name, value) in pairs {
                let name = name.as_text().ok_or_else(|| damaged("a key is not text"))?;
                if entries.insert(name.to_string(), from_cbor(value, depth + 1)?).is_some() {
                    return Err(damaged("a key stands twice"));
                }
            }
            MetaValue::Map(entries)
        }
        _ => return Err(damaged("unknown kind of value")),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(json: &str) -> ModelId {
        Metadata::from_json(json).unwrap().id().unwrap()
    }

    #[test]
    fn order_and_annotations_do_not_matter_and_types_do() {
        let base = id(r#"{"type":"m","a":{"x":1,"y":[1,2]}}"#);
        assert_eq!(base, id(r#"{"a":{"y":[1,2],"x":1},"type":"m"}"#));
        assert_eq!(base, id(r#"{"type":"m","a":{"x":1,"y":[1,2]},"timestamp":5,"name":"n","tags":["t"]}"#));
        let variants = ["true", "1", "1.0", "\"1\"", "null", "[1]", "{\"1\":1}"];
        let ids: std::collections::BTreeSet<_> =
            variants.iter().map(|v| id(&format!(r#"{{"type":"m","v":{v}}}"#))).collect();
        assert_eq!(ids.len(), variants.len());
        assert_eq!(id(r#"{"type":"m","v":-0.0}"#), id(r#"{"type":"m","v":0.0}"#));
        assert_ne!(base, id(r#"{"type":"m","a":{"x":1,"y":[2,1]}}"#));
    }

    #[test]
    fn floats_from_json_are_the_nearest_ones() {
        for (text, value) in [("1.3300213194981701e91", 1.3300213194981701e91), ("0.1", 0.1)] {
            let built = Metadata::new("m").with("v", value).id().unwrap();
            assert_eq!(id(&format!(r#"{{"type":"m","v":{text}}}"#)), built, "{text}");
        }
    }

    #[test]
    fn a_float_has_one_identity_however_it_is_written() {
        let read = id(r#"{"type":"m","v":111111111111111111111111.0}"#);
        assert_eq!(read, Metadata::new("m").with("v", 1.1111111111111111e23).id().unwrap());
        assert_eq!(read, id(r#"{"type":"m","v":1.1111111111111111e23}"#));
    }

    #[test]
    fn the_canonical_form_is_fixed() {
        let metadata = Metadata::new("m").with("b", 1.5).with("aa", -2i64).with("timestamp", Timestamp(-1));
        let hex: String = metadata.to_cbor().unwrap().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "a46162f93e0062616121647479706561 6d6974696d657374616d70d903e9a2012028 1a3b9ac9ff"
                .replace(' ', "")
        );
    }

    #[test]
    fn what_cannot_be_an_identity_is_refused() {
        let nan = Metadata::new("m").with("a", vec![MetaValue::F64(f64::NAN)]);
        assert!(matches!(nan.id(), Err(MetadataError::NotFinite { path, .. }) if path == "a.0"));
        assert_eq!(Metadata::from_json("{}").unwrap().id(), Err(MetadataError::Type));
        assert!(matches!(Metadata::from_json("[1]"), Err(MetadataError::Json { .. })));
        assert!(matches!(
            Metadata::from_json(r#"{"type":"m","a":18446744073709551615}"#),
            Err(MetadataError::Integer { .. })
        ));
        for huge in ["1e999", "-1.5e309"] {
            let refused = Metadata::from_json(&format!(r#"{{"type":"m","a":{{"b":{huge}}}}}"#));
            assert!(matches!(refused, Err(MetadataError::NotFinite { path, .. }) if path == "a.b"), "{huge}");
        }
        let beyond = Metadata::from_json(r#"{"type":"m","a":[99999999999999999999999]}"#).unwrap_err();
        assert!(beyond.to_string().contains("99999999999999999999999"), "{beyond}");
        let mut deep = MetaValue::Null;
        for _ in 0..40 {
            deep = MetaValue::List(vec![deep]);
        }
        assert!(matches!(Metadata::new("m").with("a", deep).id(), Err(MetadataError::Depth { .. })));
        let large = Metadata::new("m").with("a", "x".repeat(METADATA_BYTES_MAX));
        assert!(matches!(large.id(), Err(MetadataError::Size { .. })));
    }

    /// 64 KiB are the whole dict's in a version, and those of the identity alone where one is looked for.
    #[test]
    fn metadata_has_a_longest_form() {
        let of = |bytes: usize| Metadata::new("m").with("a", "x".repeat(bytes - 13));
        let longest = of(65_536);
        assert_eq!(longest.to_cbor().map(|bytes| bytes.len()), Ok(65_536));
        assert_eq!(Metadata::from_cbor(&longest.to_cbor().unwrap()), Ok(longest.clone()));
        assert!(longest.id().is_ok());
        let refused = Err(MetadataError::Size { bytes: 65_537 });
        assert_eq!(of(65_537).to_cbor().map(drop), refused);
        assert_eq!(of(65_537).id().map(drop), refused);
        assert!(
            longest.clone().with("tags", "t").id().is_ok() && longest.with("tags", "t").to_cbor().is_err()
        );
    }

    fn any_value() -> impl Strategy<Value = MetaValue> {
        let leaf = prop_oneof![
            Just(MetaValue::Null),
            any::<bool>().prop_map(MetaValue::Bool),
            any::<i64>().prop_map(MetaValue::I64),
            (-1e300..1e300).prop_map(MetaValue::F64),
            "\\PC{0,12}".prop_map(MetaValue::Text),
            proptest::collection::vec(any::<u8>(), 0..12).prop_map(MetaValue::Bytes),
            any::<i64>().prop_map(|ns| MetaValue::Timestamp(Timestamp(ns))),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(MetaValue::List),
                proptest::collection::btree_map("\\PC{0,6}", inner, 0..5).prop_map(MetaValue::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn cbor_round_trips(value in any_value()) {
            let metadata = Metadata::new("m").with("v", value);
            let bytes = metadata.to_cbor().unwrap();
            prop_assert_eq!(Metadata::from_cbor(&bytes).unwrap(), metadata.clone());
            prop_assert_eq!(Metadata::from_any_cbor(&bytes).unwrap(), metadata);
        }

        /// Both decoders agree on what was written, with a byte changed or cut off anywhere.
        #[test]
        fn the_direct_decoder_is_no_laxer_than_the_general_one(
            value in any_value(), at in any::<prop::sample::Index>(), change in 1u8.., cut: bool,
        ) {
            let mut bytes = Metadata::new("m").with("v", value).to_cbor().unwrap();
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= change }
            if let Some(entries) = cbor::read(&bytes) {
                let read = format!("{:?}", Metadata::from_any_cbor(&bytes));
                prop_assert_eq!(format!("{:?}", Ok::<_, MetadataError>(Metadata { entries })), read);
            }
        }

        #[test]
        fn floats_in_json_are_the_nearest_ones(value in -1e300..1e300f64, digits in "[1-9][0-9]{17,24}") {
            let metadata = Metadata::new("m").with("v", value);
            prop_assert_eq!(Metadata::from_json(&metadata.to_json()).unwrap(), metadata);
            let read = Metadata::from_json(&format!(r#"{{"type":"m","v":{digits}.5}}"#)).unwrap();
            let nearest = format!("{digits}.5").parse::<f64>().unwrap();
            prop_assert_eq!(read, Metadata::new("m").with("v", nearest));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Metadata::from_cbor(&bytes);
        }
    }
}
