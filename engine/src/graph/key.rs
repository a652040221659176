//! The key of a cell: one value for each of its slot's cell keys.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use underbelly_storage::{ColumnType, Value};

/// Most bytes of all texts of a key.
const KEY_BYTES_MAX: usize = 16 << 10;

/// Why values do not make a key.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// A null, which would match nothing.
    #[error("value {position} of the key is null; a key needs a value in each column")]
    Null {
        /// Position in the key, from 0.
        position: usize,
    },
    /// A number that does not equal itself.
    #[error("value {position} of the key is NaN, which equals no value; use a number")]
    NotANumber {
        /// Position in the key, from 0.
        position: usize,
    },
    /// Texts that are too long for what is kept in memory, many times over.
    #[error(
        "the texts of the key have {found} bytes where {limit} are allowed; shorten them, or keep them among the values"
    )]
    TooLong {
        /// Bytes of all texts.
        found: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// Bytes, which have no text form that reads back.
    #[error("value {position} of the key is bytes; use text, a number, a date or a timestamp")]
    Bytes {
        /// Position in the key, from 0.
        position: usize,
    },
}

/// Key values in the order of the columns. Holds no null, no NaN, no −0.0 and no bytes, so that equality,
/// order and hash agree.
#[derive(Clone, Debug)]
pub struct Key(Values);

/// The values of a key; most have one.
#[derive(Clone, Debug)]
enum Values {
    One(Value),
    Several(Arc<[Value]>),
}

impl Key {
    /// Makes a key; −0.0 becomes 0.0.
    pub fn new(mut values: Vec<Value>) -> Result<Key, KeyError> {
        let mut found = 0usize;
        for (position, value) in values.iter_mut().enumerate() {
            match value {
                Value::Null => return Err(KeyError::Null { position }),
                Value::Bytes(_) => return Err(KeyError::Bytes { position }),
                Value::Utf8(text) => found = found.saturating_add(text.len()),
                Value::F64(number) if number.is_nan() => return Err(KeyError::NotANumber { position }),
                Value::F64(number) if *number == 0.0 => *number = 0.0,
                Value::F32(number) if number.is_nan() => return Err(KeyError::NotANumber { position }),
                Value::F32(number) if *number == 0.0 => *number = 0.0,
                _ => {}
            }
        }
        if found > KEY_BYTES_MAX {
            return Err(KeyError::TooLong { found, limit: KEY_BYTES_MAX });
        }
        Ok(Key::of_key_values(values))
    }

    /// The key of slots without cell keys.
    pub fn empty() -> Key {
        Key(Values::Several(Arc::new([])))
    }

    /// The values in order.
    pub fn values(&self) -> &[Value] {
        match &self.0 {
            Values::One(value) => std::slice::from_ref(value),
            Values::Several(values) => values,
        }
    }

    /// The values at these positions, in that order. Positions beyond the end are left out.
    pub(super) fn project(&self, positions: &[u16]) -> Key {
        let all = self.values();
        match positions {
            [at] if all.len() != 1 => {
                all.get(usize::from(*at)).map_or_else(Key::empty, |value| Key(Values::One(value.clone())))
            }
            _ if (0..).zip(positions).all(|(at, position)| at == *position)
                && positions.len() == all.len() =>
            {
                self.clone()
            }
            _ => Key::of_key_values(
                positions.iter().filter_map(|at| all.get(usize::from(*at)).cloned()).collect(),
            ),
        }
    }

    /// A key of values that were taken from keys.
    pub(super) fn of_key_values(mut values: Vec<Value>) -> Key {
        match values.len() {
            1 => values.pop().map_or_else(Key::empty, |value| Key(Values::One(value))),
            _ => Key(Values::Several(values.into())),
        }
    }
}

fn tag(value: &Value) -> u8 {
    value.column_type().map_or(0, ColumnType::tag)
}

/// The order of key values of one type.
pub(super) fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::I64(a), Value::I64(b)) => a.cmp(b),
        (Value::F64(a), Value::F64(b)) => a.total_cmp(b),
        (Value::Utf8(a), Value::Utf8(b)) => a.cmp(b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        (Value::Date(a), Value::Date(b)) => a.cmp(b),
        (Value::I32(a), Value::I32(b)) => a.cmp(b),
        (Value::F32(a), Value::F32(b)) => a.total_cmp(b),
        _ => tag(a).cmp(&tag(b)),
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Key) -> Ordering {
        let (own, others) = (self.values(), other.values());
        let pairs = own.iter().zip(others);
        pairs
            .map(|(a, b)| compare(a, b))
            .find(|order| order.is_ne())
            .unwrap_or_else(|| own.len().cmp(&others.len()))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(self.values().len());
        for value in self.values() {
            state.write_u8(tag(value));
            match value {
                Value::Null => {}
                Value::Bool(v) => v.hash(state),
                Value::I64(v) => v.hash(state),
                Value::F64(v) => v.to_bits().hash(state),
                Value::Utf8(v) => v.hash(state),
                Value::Bytes(v) => v.hash(state),
                Value::Timestamp(v) => v.hash(state),
                Value::Date(v) => v.hash(state),
                Value::I32(v) => v.hash(state),
                Value::F32(v) => v.to_bits().hash(state),
            }
        }
    }
}

impl fmt::Display for Key {
    /// The values joined by `/`; `/` and `\` inside a value are preceded by `\`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, value) in self.values().iter().enumerate() {
            if i > 0 {
                f.write_str("/")?;
            }
            let text = value.to_string();
            f.write_str(&text.replace('\\', "\\\\").replace('/', "\\/"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::hash::BuildHasher;

    #[test]
    fn what_equals_nothing_is_no_key() {
        assert_eq!(Key::new(vec![Value::from(1i64), Value::Null]), Err(KeyError::Null { position: 1 }));
        assert_eq!(Key::new(vec![f64::NAN.into()]), Err(KeyError::NotANumber { position: 0 }));
        assert_eq!(Key::new(vec![Value::from(vec![1u8])]), Err(KeyError::Bytes { position: 0 }));
        let long = vec![Value::from("a".repeat(KEY_BYTES_MAX)), Value::from("b")];
        let (found, limit) = (KEY_BYTES_MAX + 1, KEY_BYTES_MAX);
        assert_eq!(Key::new(long), Err(KeyError::TooLong { found, limit }));
    }

    #[test]
    fn equality_order_and_hash_agree() {
        let state = std::hash::RandomState::new();
        let zero = Key::new(vec![0.0.into()]).unwrap();
        let minus = Key::new(vec![(-0.0).into()]).unwrap();
        assert_eq!(zero, minus);
        assert_eq!(state.hash_one(&zero), state.hash_one(&minus));
        assert_ne!(Key::new(vec![1i64.into()]).unwrap(), Key::new(vec![1.0.into()]).unwrap());
        assert!(Key::empty() < zero);
    }

    #[test]
    fn separators_inside_values_are_escaped() {
        let key = Key::new(vec!["0123456".into(), "EU/RO".into(), "IN\\DEX".into(), 3i64.into()]).unwrap();
        assert_eq!(key.to_string(), "0123456/EU\\/RO/IN\\\\DEX/3");
        assert_eq!(Key::empty().to_string(), "");
    }
}
