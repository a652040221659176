//! Single values in messages: dates, and the values of keys.

use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use underbelly_storage::{ColumnType, Date, Timestamp, Value};

/// A value of a key, or a date. In CBOR a bool, an integer, a float or a text stands for itself; a day is
/// `{"date": days since 1970}` and an instant `{"timestamp": nanoseconds since 1970 UTC}`.
#[derive(Clone, Debug, PartialEq)]
pub struct Field(pub Value);

impl Field {
    /// The value in a column of this type: an integer may stand for one of another length or for a float, a float for a
    /// shorter one. `None` where it does not fit.
    pub fn fit(&self, column_type: ColumnType) -> Option<Value> {
        Some(match (&self.0, column_type) {
            (value, wanted) if value.column_type() == Some(wanted) => value.clone(),
            (Value::I64(v), ColumnType::I32) => Value::I32(i32::try_from(*v).ok()?),
            (Value::I64(v), ColumnType::F64) if v.unsigned_abs() <= 1 << 53 => Value::F64(*v as f64),
            (Value::I64(v), ColumnType::F32) if v.unsigned_abs() <= 1 << 24 => Value::F32(*v as f32),
            (Value::F64(v), ColumnType::F32) if f64::from(*v as f32) == *v => Value::F32(*v as f32),
            (Value::I64(v), ColumnType::Timestamp) => Value::Timestamp(Timestamp(*v)),
            _ => return None,
        })
    }
}

impl Serialize for Field {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Value::Null => serializer.serialize_none(),
            Value::Bool(v) => serializer.serialize_bool(*v),
            Value::I64(v) => serializer.serialize_i64(*v),
            Value::I32(v) => serializer.serialize_i32(*v),
            Value::F64(v) => serializer.serialize_f64(*v),
            Value::F32(v) => serializer.serialize_f32(*v),
            Value::Utf8(v) => serializer.serialize_str(v),
            Value::Bytes(v) => serializer.serialize_bytes(v),
            Value::Date(Date(days)) => one(serializer, "date", i64::from(*days)),
            Value::Timestamp(Timestamp(at)) => one(serializer, "timestamp", *at),
        }
    }
}

fn one<S: Serializer>(serializer: S, name: &str, number: i64) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(1))?;
    map.serialize_entry(name, &number)?;
    map.end()
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Field, D::Error> {
        deserializer.deserialize_any(FieldVisitor).map(Field)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a bool, an integer, a float, a text, {\"date\": days} or {\"timestamp\": nanoseconds}")
    }

    fn visit_bool<E: Error>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E: Error>(self, v: i64) -> Result<Value, E> {
        Ok(Value::I64(v))
    }

    fn visit_u64<E: Error>(self, v: u64) -> Result<Value, E> {
        i64::try_from(v).map(Value::I64).map_err(|_| E::custom(format!("{v} is above the largest i64")))
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Value, E> {
        Ok(Value::F64(v))
    }

    fn visit_str<E: Error>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let name: Option<String> = map.next_key()?;
        let value = match name.as_deref() {
            Some("date") => Value::Date(Date(map.next_value()?)),
            Some("timestamp") => Value::Timestamp(Timestamp(map.next_value()?)),
            other => {
                let what = format!("{other:?} is neither \"date\" nor \"timestamp\"");
                return Err(A::Error::custom(what));
            }
        };
        match map.next_key::<String>()? {
            None => Ok(value),
            Some(more) => Err(A::Error::custom(format!("{more:?} beside a date or timestamp"))),
        }
    }
}
