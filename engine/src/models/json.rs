//! Metadata as JSON text.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::metadata::join;
use super::{MetaValue, MetadataError};
use crate::limits::METADATA_DEPTH_MAX;

/// The dict that a text holds.
pub(super) fn read(text: &str) -> Result<BTreeMap<String, MetaValue>, MetadataError> {
    let wrong = |error: serde_json::Error| MetadataError::Json { what: error.to_string() };
    let json: serde_json::Value = serde_json::from_str(text).map_err(wrong)?;
    if let Some(path) = duplicate(text).map_err(wrong)? {
        return Err(MetadataError::Duplicate { path });
    }
    match value(&json, "", 0)? {
        MetaValue::Map(entries) => Ok(entries),
        _ => Err(MetadataError::Json { what: "the outermost value is no object".to_string() }),
    }
}

/// As JSON: instants become RFC 3339 text and bytes become hexadecimal text.
pub(super) fn write(entries: &BTreeMap<String, MetaValue>) -> String {
    to_json(&MetaValue::Map(entries.clone())).to_string()
}

/// The first key that an object of the text has twice; parsers keep one of the two and say nothing.
fn duplicate(text: &str) -> Result<Option<String>, serde_json::Error> {
    let found = RefCell::new(None);
    let mut parser = serde_json::Deserializer::from_str(text);
    Keys { path: String::new(), found: &found }.deserialize(&mut parser)?;
    Ok(found.into_inner())
}

/// Looks through a value at a path for keys that stand twice.
struct Keys<'a> {
    path: String,
    found: &'a RefCell<Option<String>>,
}

impl<'de> DeserializeSeed<'de> for Keys<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<(), D::Error> {
        parser.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = object.next_key::<String>()? {
            let path = join(&self.path, &key);
            if !seen.insert(key) {
                self.found.borrow_mut().get_or_insert_with(|| path.clone());
            }
            object.next_value_seed(Keys { path, found: self.found })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut at = 0;
        while list
            .next_element_seed(Keys { path: join(&self.path, &at.to_string()), found: self.found })?
            .is_some()
        {
            at += 1;
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

fn value(json: &serde_json::Value, path: &str, depth: usize) -> Result<MetaValue, MetadataError> {
    if depth > METADATA_DEPTH_MAX {
        return Err(MetadataError::Depth { path: path.to_string() });
    }
    Ok(match json {
        serde_json::Value::Null => MetaValue::Null,
        serde_json::Value::Bool(v) => MetaValue::Bool(*v),
        serde_json::Value::Number(number) => {
            let text = number.to_string();
            match (text.contains(['.', 'e', 'E']), text.parse::<i64>(), text.parse::<f64>()) {
                (false, Ok(v), _) => MetaValue::I64(v),
                (true, _, Ok(v)) if v.is_finite() => MetaValue::F64(v),
                (true, _, Ok(value)) => {
                    return Err(MetadataError::NotFinite { path: path.to_string(), value });
                }
                _ => return Err(MetadataError::Integer { path: path.to_string(), value: text }),
            }
        }
        serde_json::Value::String(v) => MetaValue::Text(v.clone()),
        serde_json::Value::Array(items) => MetaValue::List(
            items
                .iter()
                .enumerate()
                .map(|(i, item)| value(item, &join(path, &i.to_string()), depth + 1))
                .collect::<Result<_, _>>()?,
        ),
        serde_json::Value::Object(object) => MetaValue::Map(
            object
                .iter()
                .map(|(name, inner)| Ok((name.clone(), value(inner, &join(path, name), depth + 1)?)))
                .collect::<Result<_, MetadataError>>()?,
        ),
    })
}

fn to_json(meta: &MetaValue) -> serde_json::Value {
    match meta {
        MetaValue::Null => serde_json::Value::Null,
        MetaValue::Bool(v) => (*v).into(),
        MetaValue::I64(v) => (*v).into(),
        MetaValue::F64(v) => (*v).into(),
        MetaValue::Text(v) => v.as_str().into(),
        MetaValue::Bytes(v) => v.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
        MetaValue::Timestamp(v) => v.to_string().into(),
        MetaValue::List(items) => items.iter().map(to_json).collect::<Vec<_>>().into(),
        MetaValue::Map(entries) => serde_json::Value::Object(
            entries.iter().map(|(name, value)| (name.clone(), to_json(value))).collect(),
        ),
    }
}
