//! Keys: equality filters over typed slices, and an encoding whose byte order is the order of the values.

use std::borrow::Cow;
use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;

use underbelly_storage::{Column, ColumnType, Strings, Value, Values};

use crate::predicate::Test;
use crate::{Predicate, QueryError, Schema, SchemaColumn, TIMESTAMP};

/// Rows of a group that are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// A stretch.
    Range(Range<usize>),
    /// Single rows, rising.
    Rows(Vec<u32>),
}

impl Selection {
    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        match self {
            Selection::Range(rows) => rows.len(),
            Selection::Rows(rows) => rows.len(),
        }
    }

    /// The rows of the selection for which `keep` holds. Rows are below 2^32, as the group's opening checks.
    pub(crate) fn filter(self, keep: impl Fn(usize) -> bool) -> Selection {
        let rows: Vec<u32> = match self {
            Selection::Range(rows) => rows.filter(|row| keep(*row)).map(|row| row as u32).collect(),
            Selection::Rows(mut rows) => {
                rows.retain(|row| keep(*row as usize));
                rows
            }
        };
        match (rows.first(), rows.last()) {
            (Some(first), Some(last)) if (last - first) as usize + 1 == rows.len() => {
                Selection::Range(*first as usize..*last as usize + 1)
            }
            (None, _) => Selection::Range(0..0),
            _ => Selection::Rows(rows),
        }
    }

    /// The rows of the selection whose code is `code`.
    pub(crate) fn equal(self, codes: &[u32], code: u32) -> Selection {
        let Selection::Range(range) = self else { return self.filter(|row| codes[row] == code) };
        let mut rows = Vec::new();
        // Most stretches have no such row, which is told of all their rows at once.
        let stretches = codes.get(range.clone()).unwrap_or_default().chunks(32);
        for (start, stretch) in (range.start..).step_by(32).zip(stretches) {
            if stretch.iter().fold(false, |any, found| any | (*found == code)) {
                let of_code = stretch.iter().zip(start as u32..).filter(|(found, _)| **found == code);
                rows.extend(of_code.map(|(_, row)| row));
            }
        }
        // A stretch where the rows are one.
        Selection::Rows(rows).filter(|_| true)
    }

    /// The rows of the selection within a stretch.
    pub(crate) fn within(&self, stretch: &Range<usize>) -> Selection {
        match self {
            Selection::Range(rows) => {
                let start = rows.start.max(stretch.start);
                Selection::Range(start..rows.end.min(stretch.end).max(start))
            }
            Selection::Rows(rows) => {
                let before = |end: usize| rows.partition_point(|row| (*row as usize) < end);
                let rows = rows.get(before(stretch.start)..before(stretch.end)).unwrap_or_default();
                Selection::Rows(rows.to_vec())
            }
        }
    }

    /// The rows of the selection that are not in `other`, which is part of it.
    pub(crate) fn without(self, other: &Selection) -> Selection {
        match other {
            Selection::Range(rows) if rows.is_empty() => self,
            Selection::Range(rows) => self.filter(|row| !rows.contains(&row)),
            Selection::Rows(rows) => {
                // Both rise, so one pass finds them.
                let next = Cell::new(0);
                self.filter(|row| {
                    while rows.get(next.get()).is_some_and(|other| (*other as usize) < row) {
                        next.set(next.get() + 1);
                    }
                    rows.get(next.get()).is_none_or(|other| *other as usize != row)
                })
            }
        }
    }

    /// The rows one by one.
    pub(crate) fn into_rows(self) -> Vec<u32> {
        match self {
            Selection::Range(rows) => rows.map(|row| row as u32).collect(),
            Selection::Rows(rows) => rows,
        }
    }

    /// The first `n` rows of the selection.
    pub(crate) fn first(self, n: usize) -> Selection {
        match self {
            Selection::Range(rows) => Selection::Range(rows.start..rows.start + rows.len().min(n)),
            Selection::Rows(mut rows) => {
                rows.truncate(n);
                Selection::Rows(rows)
            }
        }
    }

    /// The last `n` rows of the selection.
    pub(crate) fn last(self, n: usize) -> Selection {
        match self {
            Selection::Range(rows) => Selection::Range(rows.end - rows.len().min(n)..rows.end),
            Selection::Rows(mut rows) => {
                rows.drain(..rows.len().saturating_sub(n));
                Selection::Rows(rows)
            }
        }
    }
}

/// Equality with one value of a key column. Null equals null; NaN equals NaN; zero equals negative zero.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Filter {
    pub(crate) name: Arc<str>,
    pub(crate) value: Value,
}

impl Filter {
    /// The filter, once the schema agrees with it. A number becomes one of the key's type where that holds it.
    pub(crate) fn new(schema: &Schema, name: &str, value: Value) -> Result<Filter, QueryError> {
        let column = Filter::column(schema, name)?;
        let value = match (column.column_type, value) {
            (ColumnType::F64, Value::I64(value)) => {
                let float = value as f64;
                // An i128 holds every integer that an f64 made of an i64 can be.
                if float as i128 != i128::from(value) {
                    return Err(QueryError::KeyPrecision { name: name.to_string(), value });
                }
                Value::F64(float)
            }
            (ColumnType::F64, Value::I32(value)) => Value::F64(f64::from(value)),
            (ColumnType::F64, Value::F32(value)) => Value::F64(f64::from(value)),
            (ColumnType::I64, Value::I32(value)) => Value::I64(i64::from(value)),
            (ColumnType::I32, Value::I64(value)) => {
                i32::try_from(value).map_or(Value::I64(value), Value::I32)
            }
            (ColumnType::F32, Value::F64(value)) if same(f64::from(value as f32), value) => {
                Value::F32(value as f32)
            }
            (_, value) => value,
        };
        let filter = Filter::stored(column.name.clone(), value);
        filter.check(schema)?;
        Ok(filter)
    }

    /// The key column of this name.
    pub(crate) fn column<'s>(schema: &'s Schema, name: &str) -> Result<&'s SchemaColumn, QueryError> {
        // Every type has the timestamp, and none has it as a key.
        let column = if name == TIMESTAMP { None } else { Some(schema.column(name)?) };
        column.filter(|column| column.key).ok_or_else(|| QueryError::NotKey {
            name: name.to_string(),
            known: schema.keys().map(|c| c.name.to_string()).collect(),
        })
    }

    /// Says whether a schema has the key, with the type of the value.
    pub(crate) fn check(&self, schema: &Schema) -> Result<(), QueryError> {
        let column = Filter::column(schema, &self.name)?;
        let name = || self.name.to_string();
        match self.value.column_type() {
            Some(found) if found != column.column_type => {
                Err(QueryError::KeyType { name: name(), expected: column.column_type, found })
            }
            _ => Ok(()),
        }
    }

    /// What it asks for, as a predicate.
    pub(crate) fn predicate(&self) -> Predicate {
        match &self.value {
            Value::Null => Predicate::IsNull,
            value => Predicate::Equal(value.clone()),
        }
    }

    /// The same for zones, of a column with values like its own; `None` where no predicate is about such values.
    pub(crate) fn test(&self) -> Option<Test> {
        let column_type = self.value.column_type().unwrap_or(ColumnType::I64);
        Test::of(&self.name, column_type, &self.predicate()).ok()
    }

    /// A filter that was checked before.
    pub(crate) fn stored(name: Arc<str>, value: Value) -> Filter {
        Filter { name, value }
    }

    /// The selected rows whose key is the filter's value; `column` has all rows that are selected from.
    pub(crate) fn apply(
        &self,
        column: Option<&Column>,
        selection: Selection,
    ) -> Result<Selection, QueryError> {
        let nothing = Selection::Range(0..0);
        let Some(column) = column else {
            return Ok(if self.value == Value::Null { selection } else { nothing });
        };
        let selection = match (column.values(), &self.value) {
            (_, Value::Null) => {
                return Ok(match column.validity() {
                    Some(validity) => selection.filter(|row| !validity[row]),
                    None => nothing,
                });
            }
            (Values::Bool(values), Value::Bool(key)) => selection.filter(|row| values[row] == *key),
            (Values::I64(values), Value::I64(key)) => selection.filter(|row| values[row] == *key),
            (Values::F64(values), Value::F64(key)) => selection.filter(|row| same(values[row], *key)),
            (Values::I64(values), Value::F64(key)) => selection.filter(|row| same(values[row] as f64, *key)),
            (Values::Timestamp(values), Value::Timestamp(key)) => {
                selection.filter(|row| values[row] == key.0)
            }
            (Values::Date(values), Value::Date(key)) => selection.filter(|row| values[row] == key.0),
            (Values::I32(values), Value::I32(key)) => selection.filter(|row| values[row] == *key),
            (Values::F32(values), Value::F32(key)) => {
                selection.filter(|row| same(f64::from(values[row]), f64::from(*key)))
            }
            (Values::Utf8(values), Value::Utf8(key)) => equal_strings(values, key.as_bytes(), selection),
            (Values::Bytes(values), Value::Bytes(key)) => equal_strings(values, key, selection),
            _ => {
                return Err(QueryError::ColumnType {
                    name: self.name.to_string(),
                    expected: self.value.column_type().unwrap_or(column.column_type()),
                    found: column.column_type(),
                });
            }
        };
        // Under a null stands a zero, which may equal the key.
        Ok(match column.validity() {
            Some(validity) => selection.filter(|row| validity[row]),
            None => selection,
        })
    }
}

fn same(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan())
}

fn equal_strings(strings: &Strings, key: &[u8], selection: Selection) -> Selection {
    let (offsets, bytes) = (strings.offsets(), strings.bytes());
    selection.filter(|row| {
        let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
        end - start == key.len() && &bytes[start..end] == key
    })
}

const NULL: u8 = 0;
const PRESENT: u8 = 1;
const SIGN: u64 = 1 << 63;

/// Appends row `row` of a key column so that byte strings compare as the keys do: null first, numbers by size
/// (NaN last), text and bytes by their bytes. Columns follow each other without ambiguity.
///
/// Text ends with 0x00 0x00 and holds each zero byte as 0x00 0xFF, as FoundationDB's tuple layer does.
pub(crate) fn encode(column: Option<&Cow<'_, Column>>, row: usize, to: &mut Vec<u8>) {
    let Some(column) = column.filter(|column| !column.is_null(row)) else {
        to.push(NULL);
        return;
    };
    to.push(PRESENT);
    match column.values() {
        Values::Bool(values) => to.push(u8::from(values[row])),
        Values::I64(values) | Values::Timestamp(values) => {
            to.extend_from_slice(&((values[row] as u64) ^ SIGN).to_be_bytes());
        }
        Values::Date(values) | Values::I32(values) => {
            to.extend_from_slice(&((i64::from(values[row]) as u64) ^ SIGN).to_be_bytes());
        }
        Values::F64(values) => to.extend_from_slice(&ordered(values[row]).to_be_bytes()),
        Values::F32(values) => to.extend_from_slice(&ordered(f64::from(values[row])).to_be_bytes()),
        Values::Utf8(values) | Values::Bytes(values) => encode_bytes(values.get(row), to),
    }
}

/// The same of a single value, as a column of its type would have it.
pub(crate) fn encode_value(value: &Value, to: &mut Vec<u8>) {
    let integer = |value: i64, to: &mut Vec<u8>| to.extend_from_slice(&((value as u64) ^ SIGN).to_be_bytes());
    if *value == Value::Null {
        to.push(NULL);
        return;
    }
    to.push(PRESENT);
    match value {
        Value::Null => {}
        Value::Bool(value) => to.push(u8::from(*value)),
        Value::I64(value) => integer(*value, to),
        Value::Timestamp(value) => integer(value.0, to),
        Value::I32(value) => integer((*value).into(), to),
        Value::Date(value) => integer(value.0.into(), to),
        Value::F64(value) => to.extend_from_slice(&ordered(*value).to_be_bytes()),
        Value::F32(value) => to.extend_from_slice(&ordered((*value).into()).to_be_bytes()),
        Value::Utf8(text) => encode_bytes(text.as_bytes(), to),
        Value::Bytes(bytes) => encode_bytes(bytes, to),
    }
}

fn encode_bytes(mut rest: &[u8], to: &mut Vec<u8>) {
    while let Some(zero) = rest.iter().position(|byte| *byte == 0) {
        to.extend_from_slice(&rest[..zero]);
        to.extend_from_slice(&[0, 0xff]);
        rest = &rest[zero + 1..];
    }
    to.extend_from_slice(rest);
    to.extend_from_slice(&[0, 0]);
}

/// Bits that compare as the numbers do, NaN last, both zeros the same.
fn ordered(value: f64) -> u64 {
    let bits = if value.is_nan() {
        f64::NAN.to_bits() & !SIGN
    } else if value == 0.0 {
        0
    } else {
        value.to_bits()
    };
    if bits & SIGN == 0 { bits ^ SIGN } else { !bits }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn encoded(columns: &[Column], row: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        columns.iter().for_each(|column| encode(Some(&Cow::Borrowed(column)), row, &mut bytes));
        bytes
    }

    #[test]
    fn numbers_keep_their_order() {
        let floats =
            vec![f64::NEG_INFINITY, -2.5, -f64::MIN_POSITIVE, 0.0, 1e-300, 3.0, f64::INFINITY, f64::NAN];
        let columns = [Column::from(floats)];
        let all: Vec<_> = (0..8).map(|row| encoded(&columns, row)).collect();
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]));
        let short = [Column::from(vec![f32::NEG_INFINITY, -2.5, 0.0, 1e-30, 3.0, f32::INFINITY, f32::NAN])];
        assert!((1..7).all(|row| encoded(&short, row - 1) < encoded(&short, row)));
        let zeros = [Column::from(vec![0.0, -0.0, f64::NAN, -f64::NAN])];
        assert_eq!(encoded(&zeros, 0), encoded(&zeros, 1));
        assert_eq!(encoded(&zeros, 2), encoded(&zeros, 3));
    }

    proptest! {
        #[test]
        fn byte_order_is_key_order(
            a in (prop::option::of(any::<i64>()), prop::option::of(prop::collection::vec(0u8..3, 0..4))),
            b in (prop::option::of(any::<i64>()), prop::option::of(prop::collection::vec(0u8..3, 0..4))),
        ) {
            let mut columns = [Column::new(ColumnType::Bytes), Column::new(ColumnType::I64)];
            for (number, bytes) in [&a, &b] {
                columns[0].push(&Value::from(bytes.clone())).unwrap();
                columns[1].push(&Value::from(*number)).unwrap();
            }
            let mut single = Vec::new();
            columns.iter().for_each(|column| encode_value(&column.get(0), &mut single));
            prop_assert_eq!(single, encoded(&columns, 0));
            let expected = (&a.1, a.0).cmp(&(&b.1, b.0));
            prop_assert_eq!(encoded(&columns, 0).cmp(&encoded(&columns, 1)), expected);
        }

        #[test]
        fn selections_shrink_as_lists_do(keep in prop::collection::vec(any::<bool>(), 0..20), n in 0usize..20) {
            let rows: Vec<usize> = (0..keep.len()).filter(|row| keep[*row]).collect();
            let selection = Selection::Range(0..keep.len()).filter(|row| keep[row]);
            let listed = |selection: Selection| match selection {
                Selection::Range(rows) => rows.collect::<Vec<_>>(),
                Selection::Rows(rows) => rows.into_iter().map(|row| row as usize).collect(),
            };
            prop_assert_eq!(selection.len(), rows.len());
            for stretch in [n..keep.len(), 0..n, n..n + 2, n..n] {
                let within = rows.iter().copied().filter(|row| stretch.contains(row)).collect::<Vec<_>>();
                prop_assert_eq!(listed(selection.within(&stretch)), within);
            }
            let kept = rows.len().min(n);
            prop_assert_eq!(listed(selection.clone().first(n)), rows[..kept].to_vec());
            prop_assert_eq!(listed(selection.last(n)), rows[rows.len() - kept..].to_vec());
        }
    }
}
