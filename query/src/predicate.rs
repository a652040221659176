//! Conditions on the values of a column.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use underbelly_storage::{self as storage, Column, ColumnType, Columns, Strings, Value, Values};

use crate::aggregate::by_size;
use crate::gather::{fitted, rows_taken};
use crate::key::Selection;
use crate::run::ColumnZone;
use crate::{QueryError, Schema, Zone};

/// What a value has to be. Null is nothing but [`Predicate::IsNull`]; NaN is greater than every number and equals NaN;
/// text and bytes compare by their bytes, false comes before true.
#[derive(Clone, Debug, PartialEq)]
pub enum Predicate {
    /// Equal to this.
    Equal(Value),
    /// Another than this, and not null.
    NotEqual(Value),
    /// Smaller than this.
    Below(Value),
    /// This or smaller.
    AtMost(Value),
    /// Greater than this.
    Above(Value),
    /// This or greater.
    AtLeast(Value),
    /// Null.
    IsNull,
    /// Anything but null.
    NotNull,
}

/// A predicate about a column of a schema, with a value of the column's type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Test {
    pub(crate) name: Arc<str>,
    column_type: ColumnType,
    predicate: Predicate,
}

impl Predicate {
    pub(crate) fn value(&self) -> Option<&Value> {
        match self {
            Predicate::Equal(value)
            | Predicate::NotEqual(value)
            | Predicate::Below(value)
            | Predicate::AtMost(value)
            | Predicate::Above(value)
            | Predicate::AtLeast(value) => Some(value),
            Predicate::IsNull | Predicate::NotNull => None,
        }
    }

    fn with_value(&self, value: Value) -> Predicate {
        match self {
            Predicate::Equal(_) => Predicate::Equal(value),
            Predicate::NotEqual(_) => Predicate::NotEqual(value),
            Predicate::Below(_) => Predicate::Below(value),
            Predicate::AtMost(_) => Predicate::AtMost(value),
            Predicate::Above(_) => Predicate::Above(value),
            Predicate::AtLeast(_) => Predicate::AtLeast(value),
            Predicate::IsNull => Predicate::IsNull,
            Predicate::NotNull => Predicate::NotNull,
        }
    }

    /// Whether a value that stands so to the predicate's is what it asks for.
    fn holds(&self, order: Ordering) -> bool {
        match self {
            Predicate::Equal(_) => order.is_eq(),
            Predicate::NotEqual(_) => order.is_ne(),
            Predicate::Below(_) => order.is_lt(),
            Predicate::AtMost(_) => order.is_le(),
            Predicate::Above(_) => order.is_gt(),
            Predicate::AtLeast(_) => order.is_ge(),
            Predicate::IsNull => false,
            Predicate::NotNull => true,
        }
    }
}

impl Test {
    /// The predicate with a value of the column's type, once the schema agrees.
    pub(crate) fn new(schema: &Schema, name: &str, predicate: &Predicate) -> Result<Test, QueryError> {
        let column = schema.column(name)?;
        Test::of(&column.name, column.column_type, predicate)
    }

    pub(crate) fn of(
        name: &Arc<str>,
        column_type: ColumnType,
        predicate: &Predicate,
    ) -> Result<Test, QueryError> {
        let predicate = match predicate.value() {
            None => predicate.clone(),
            Some(value) => predicate.with_value(of_type(value, column_type, name)?),
        };
        Ok(Test { name: name.clone(), column_type, predicate })
    }

    /// A test that was made before, of a column with values like the predicate's.
    pub(crate) fn stored(name: Arc<str>, predicate: Predicate) -> Test {
        let column_type = predicate.value().and_then(Value::column_type).unwrap_or(ColumnType::I64);
        Test { name, column_type, predicate }
    }

    pub(crate) fn predicate(&self) -> &Predicate {
        &self.predicate
    }

    /// The same as [`Test::apply`] for a column that was widened since the test was made, or was not yet.
    pub(crate) fn apply_to_any(
        &self,
        column: Option<&Column>,
        selection: Selection,
    ) -> Result<Selection, QueryError> {
        let Some(of) = column else { return self.apply(None, selection) };
        let found = of.column_type();
        if found == self.column_type || self.predicate.value().is_none() {
            return Test { column_type: found, ..self.clone() }.apply(column, selection);
        }
        // No float may stand for a large integer.
        if let (Values::F64(floats), Some(Value::I64(value))) = (of.values(), self.predicate.value()) {
            let selection = selection.filter(|row| !of.is_null(row));
            return Ok(selection.filter(|row| self.predicate.holds(float_to_integer(floats[row], *value))));
        }
        match self.column_type.common(found) {
            Some(wide) => Test::of(&self.name, wide, &self.predicate)?.apply(column, selection),
            None => self.apply(column, selection),
        }
    }

    /// The selected rows of a whole column that pass; no column is one of nulls.
    pub(crate) fn apply(
        &self,
        column: Option<&Column>,
        selection: Selection,
    ) -> Result<Selection, QueryError> {
        let Some(column) = column else {
            return Ok(if self.predicate == Predicate::IsNull { selection } else { Selection::Range(0..0) });
        };
        let column = fitted(Cow::Borrowed(column), self.column_type, &self.name)?;
        let selection = match (&self.predicate, column.validity()) {
            (Predicate::IsNull, Some(validity)) => return Ok(selection.filter(|row| !validity[row])),
            (Predicate::IsNull, None) => return Ok(Selection::Range(0..0)),
            (_, Some(validity)) => selection.filter(|row| validity[row]),
            (_, None) => selection,
        };
        let is_met = |order| self.predicate.holds(order);
        Ok(match (column.values(), self.predicate.value()) {
            (_, None) => selection,
            (Values::Bool(v), Some(Value::Bool(x))) => selection.filter(|row| is_met(v[row].cmp(x))),
            (Values::I64(v), Some(Value::I64(x))) => selection.filter(|row| is_met(v[row].cmp(x))),
            (Values::I32(v), Some(Value::I32(x))) => selection.filter(|row| is_met(v[row].cmp(x))),
            (Values::F64(v), Some(Value::F64(x))) => selection.filter(|row| is_met(by_size(v[row], *x))),
            (Values::F32(v), Some(Value::F32(x))) => {
                selection.filter(|row| is_met(by_size(v[row].into(), (*x).into())))
            }
            (Values::Timestamp(v), Some(Value::Timestamp(x))) => {
                selection.filter(|row| is_met(v[row].cmp(&x.0)))
            }
            (Values::Date(v), Some(Value::Date(x))) => selection.filter(|row| is_met(v[row].cmp(&x.0))),
            (Values::Utf8(v), Some(Value::Utf8(x))) => by_bytes(v, x.as_bytes(), selection, is_met),
            (Values::Bytes(v), Some(Value::Bytes(x))) => by_bytes(v, x, selection, is_met),
            // The value has the column's type, or is null, which nothing is smaller than, equal to, or greater than.
            (_, Some(_)) => Selection::Range(0..0),
        })
    }

    /// Whether no row of a group passes, as its zones tell; `of_column` is that of the column.
    pub(crate) fn excludes(&self, zone: &Zone, of_column: &ColumnZone) -> bool {
        if self.predicate == Predicate::IsNull {
            return of_column.nulls == 0;
        }
        if of_column.nulls == zone.rows {
            return true;
        }
        let Some((values, value)) = of_column.values.as_ref().zip(self.predicate.value()) else {
            return false;
        };
        // How the least and the greatest value stand to the predicate's; those of texts are known by their first bytes.
        let (least, greatest) = match (values, value) {
            (storage::Zone::Prefix { min, max }, Value::Utf8(text)) => {
                return self.excludes_texts(*min, *max, text.as_bytes());
            }
            (storage::Zone::Prefix { min, max }, Value::Bytes(text)) => {
                return self.excludes_texts(*min, *max, text);
            }
            (storage::Zone::F64 { min, max }, Value::F64(x)) => (by_size(*min, *x), by_size(*max, *x)),
            (storage::Zone::F64 { min, max }, Value::F32(x)) => {
                (by_size(*min, (*x).into()), by_size(*max, (*x).into()))
            }
            (storage::Zone::I64 { min, max }, Value::F64(x)) => {
                (by_size(*min as f64, *x), by_size(*max as f64, *x))
            }
            (storage::Zone::I64 { min, max }, value) => {
                let value = match value {
                    Value::I64(x) | Value::Timestamp(storage::Timestamp(x)) => *x,
                    Value::I32(x) | Value::Date(storage::Date(x)) => i64::from(*x),
                    Value::Bool(x) => i64::from(*x),
                    _ => return false,
                };
                (min.cmp(&value), max.cmp(&value))
            }
            _ => return false,
        };
        match self.predicate {
            Predicate::Equal(_) => least.is_gt() || greatest.is_lt(),
            Predicate::NotEqual(_) => least.is_eq() && greatest.is_eq(),
            Predicate::Below(_) => least.is_ge(),
            Predicate::AtMost(_) => least.is_gt(),
            Predicate::Above(_) => greatest.is_le(),
            Predicate::AtLeast(_) => greatest.is_lt(),
            Predicate::IsNull | Predicate::NotNull => false,
        }
    }

    fn excludes_texts(&self, min: [u8; 8], max: [u8; 8], text: &[u8]) -> bool {
        let prefix = storage::Zone::prefix(text);
        match self.predicate {
            Predicate::Equal(_) => min > prefix || max < prefix,
            Predicate::Below(_) | Predicate::AtMost(_) => min > prefix,
            Predicate::Above(_) | Predicate::AtLeast(_) => max < prefix,
            Predicate::NotEqual(_) | Predicate::IsNull | Predicate::NotNull => false,
        }
    }
}

/// How a float stands to an integer; NaN is greater than each.
fn float_to_integer(float: f64, integer: i64) -> Ordering {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    match float {
        float if float.is_nan() || float >= BEYOND => Ordering::Greater,
        float if float < -BEYOND => Ordering::Less,
        float => (float.trunc() as i64).cmp(&integer).then(by_size(float.fract(), 0.0)),
    }
}

fn by_bytes(
    strings: &Strings,
    value: &[u8],
    selection: Selection,
    is_met: impl Fn(Ordering) -> bool,
) -> Selection {
    selection.filter(|row| is_met(strings.get(row).cmp(value)))
}

/// The value as one of a column's type: widened, or narrowed where that keeps it.
fn of_type(value: &Value, column_type: ColumnType, name: &Arc<str>) -> Result<Value, QueryError> {
    let narrow = match (column_type, value) {
        (ColumnType::I32, Value::I64(x)) => i32::try_from(*x).ok().map(Value::I32),
        (ColumnType::F32, Value::F64(x)) => {
            by_size(f64::from(*x as f32), *x).is_eq().then_some(Value::F32(*x as f32))
        }
        _ => None,
    };
    let mut column = Column::new(column_type);
    match column.push(narrow.as_ref().unwrap_or(value)) {
        Ok(()) => Ok(column.get(0)),
        Err(_) => {
            Err(QueryError::ValueType { name: name.to_string(), expected: column_type, value: value.clone() })
        }
    }
}

/// The rows that meet all predicates.
///
/// # Errors
/// [`QueryError::UnknownColumn`] and [`QueryError::ValueType`] where a predicate does not fit, [`QueryError::TooLarge`] never,
/// as rows are left out alone.
pub fn matching(rows: Columns, predicates: &[(&str, Predicate)]) -> Result<Columns, QueryError> {
    let mut selection = Selection::Range(0..rows.rows());
    for (name, predicate) in predicates {
        let position = crate::timed::position(&rows, name)?;
        let column = rows.column_at(position);
        let test = Test::of(&rows.names()[position], column.column_type(), predicate)?;
        selection = test.apply(Some(column), selection)?;
    }
    if selection.len() == rows.rows() { Ok(rows) } else { rows_taken(&rows, &selection.into_rows()) }
}
