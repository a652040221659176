//! Conditions on the values of a column.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use underbelly_storage::{self as storage, Column, ColumnType, Columns, Strings, Value, Values};

use crate::aggregate::by_size;
use crate::gather::{fitted, rows_taken};
use crate::key::{Filter, Selection};
use crate::run::ColumnZone;
use crate::{QueryError, Schema, Zone};

/// What a value has to be. Null is nothing but [`Predicate::IsNull`], and [`Predicate::OneOf`] where null is named; NaN is greater
/// than every number and equals NaN; text and bytes compare by their bytes, false comes before true.
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
    /// Equal to one of these, or null where null is among them; nothing where there are none. [`Predicate::one_of`] makes it.
    OneOf(Vec<Value>),
}

/// A predicate about a column of a schema, with a value of the column's type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Test {
    pub(crate) name: Arc<str>,
    column_type: ColumnType,
    predicate: Arc<Predicate>,
    among: Option<Among>,
}

/// The values of a [`Predicate::OneOf`] but for null, rising, each once.
#[derive(Clone, Debug, PartialEq)]
enum Among {
    /// Also of dates, timestamps and truths.
    Integers(Arc<[i64]>),
    Floats(Arc<[f64]>),
    Texts(Arc<[Box<[u8]>]>),
}

impl Predicate {
    /// Equal to one of these; null among them asks for nulls too.
    ///
    /// ```
    /// use underbelly_query::Predicate;
    /// use underbelly_storage::Value;
    /// assert_eq!(Predicate::one_of(["a"]), Predicate::OneOf(vec![Value::from("a")]));
    /// ```
    pub fn one_of<V: Into<Value>>(values: impl IntoIterator<Item = V>) -> Predicate {
        Predicate::OneOf(values.into_iter().map(Into::into).collect())
    }

    /// The one value that it compares with.
    pub(crate) fn value(&self) -> Option<&Value> {
        match self {
            Predicate::Equal(value)
            | Predicate::NotEqual(value)
            | Predicate::Below(value)
            | Predicate::AtMost(value)
            | Predicate::Above(value)
            | Predicate::AtLeast(value) => Some(value),
            Predicate::IsNull | Predicate::NotNull | Predicate::OneOf(_) => None,
        }
    }

    /// The same with values of a column's type; those of [`Predicate::OneOf`] rise, each once.
    fn typed(&self, column_type: ColumnType, name: &Arc<str>) -> Result<Predicate, QueryError> {
        let typed = |value: &Value| of_type(value, column_type, name);
        Ok(match self {
            Predicate::Equal(value) => Predicate::Equal(typed(value)?),
            Predicate::NotEqual(value) => Predicate::NotEqual(typed(value)?),
            Predicate::Below(value) => Predicate::Below(typed(value)?),
            Predicate::AtMost(value) => Predicate::AtMost(typed(value)?),
            Predicate::Above(value) => Predicate::Above(typed(value)?),
            Predicate::AtLeast(value) => Predicate::AtLeast(typed(value)?),
            Predicate::IsNull => Predicate::IsNull,
            Predicate::NotNull => Predicate::NotNull,
            Predicate::OneOf(values) => {
                let mut values = values.iter().map(typed).collect::<Result<Vec<_>, _>>()?;
                values.sort_by(order);
                values.dedup_by(|a, b| order(a, b).is_eq());
                Predicate::OneOf(values)
            }
        })
    }

    /// Whether null is what it asks for.
    fn meets_null(&self) -> bool {
        match self {
            Predicate::IsNull => true,
            Predicate::OneOf(values) => values.contains(&Value::Null),
            _ => false,
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
            Predicate::IsNull | Predicate::OneOf(_) => false,
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
        let predicate = predicate.typed(column_type, name)?;
        let among = match &predicate {
            Predicate::OneOf(values) => Some(Among::new(column_type, values)),
            _ => None,
        };
        Ok(Test { name: name.clone(), column_type, predicate: Arc::new(predicate), among })
    }

    /// The same for each value of its own, where it asks for one of several: a row meets one of them at most.
    pub(crate) fn one_by_one(self) -> Vec<Test> {
        let Predicate::OneOf(values) = &*self.predicate else { return vec![self] };
        let of_value = |value: &Value| {
            let predicate = match value {
                Value::Null => Predicate::IsNull,
                value => Predicate::Equal(value.clone()),
            };
            Test { predicate: Arc::new(predicate), among: None, ..self.clone() }
        };
        values.iter().map(of_value).collect()
    }

    /// Whether a key is one of these values, once the schema agrees with each.
    pub(crate) fn of_key(schema: &Schema, name: &str, values: &[Value]) -> Result<Test, QueryError> {
        let column = Filter::column(schema, name)?;
        let typed = |value: &Value| Ok(Filter::new(schema, name, value.clone())?.value);
        let values = values.iter().map(typed).collect::<Result<Vec<_>, QueryError>>()?;
        Test::of(&column.name, column.column_type, &Predicate::OneOf(values))
    }

    /// A test that was made before, of a column with values like the predicate's.
    pub(crate) fn stored(name: Arc<str>, predicate: Predicate) -> Test {
        let column_type = predicate.value().and_then(Value::column_type).unwrap_or(ColumnType::I64);
        Test { name, column_type, predicate: Arc::new(predicate), among: None }
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
        let is_any = matches!(*self.predicate, Predicate::IsNull | Predicate::NotNull);
        if found == self.column_type || is_any {
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
            return Ok(if self.predicate.meets_null() { selection } else { Selection::Range(0..0) });
        };
        let column = fitted(Cow::Borrowed(column), self.column_type, &self.name)?;
        if let Some(among) = &self.among {
            return Ok(among.select(&column, self.predicate.meets_null(), selection));
        }
        let selection = match (&*self.predicate, column.validity()) {
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
        let (is_none_null, is_all_null) = (of_column.nulls == 0, of_column.nulls == zone.rows);
        let ends = |value| of_column.values.as_ref().and_then(|values| Ends::of(values, value));
        if let Some(among) = &self.among {
            let lie_apart = || of_column.values.as_ref().is_some_and(|values| among.lie_apart(values));
            return (is_none_null || !self.predicate.meets_null())
                && (is_all_null || among.is_empty() || lie_apart());
        }
        match (&*self.predicate, self.predicate.value()) {
            (Predicate::IsNull, _) => is_none_null,
            _ if is_all_null => true,
            (predicate, Some(value)) => ends(value).is_some_and(|ends| ends.exclude(predicate)),
            (_, None) => false,
        }
    }

    /// Whether no row passes of some whose values, but for nulls, lie within bounds.
    pub(crate) fn excludes_within(&self, bounds: &storage::Zone) -> bool {
        if let Some(among) = &self.among {
            return !self.predicate.meets_null() && (among.is_empty() || among.lie_apart(bounds));
        }
        let ends = |value| Ends::of(bounds, value);
        self.predicate.value().and_then(ends).is_some_and(|ends| ends.exclude(&self.predicate))
    }
}

/// How the least and the greatest value of a group stand to a value.
struct Ends {
    least: Ordering,
    greatest: Ordering,
    /// Of texts the first bytes alone are known, so that those that look equal may differ.
    is_exact: bool,
}

impl Ends {
    /// `None` where zones tell nothing of such values.
    fn of(values: &storage::Zone, value: &Value) -> Option<Ends> {
        let exact = |least, greatest| Some(Ends { least, greatest, is_exact: true });
        match (values, value) {
            (storage::Zone::Prefix { min, max }, value) => {
                let prefix = storage::Zone::prefix(match value {
                    Value::Utf8(text) => text.as_bytes(),
                    Value::Bytes(bytes) => bytes,
                    _ => return None,
                });
                Some(Ends { least: min.cmp(&prefix), greatest: max.cmp(&prefix), is_exact: false })
            }
            (storage::Zone::F64 { min, max }, Value::F64(x)) => exact(by_size(*min, *x), by_size(*max, *x)),
            (storage::Zone::F64 { min, max }, Value::F32(x)) => {
                exact(by_size(*min, (*x).into()), by_size(*max, (*x).into()))
            }
            (storage::Zone::I64 { min, max }, Value::F64(x)) => {
                exact(by_size(*min as f64, *x), by_size(*max as f64, *x))
            }
            (storage::Zone::I64 { min, max }, value) => {
                let value = integer(value)?;
                exact(min.cmp(&value), max.cmp(&value))
            }
            _ => None,
        }
    }

    /// Whether the value lies outside of them.
    fn lie_apart(&self) -> bool {
        self.least.is_gt() || self.greatest.is_lt()
    }

    /// Whether no value between them stands as a predicate asks to the value.
    fn exclude(&self, predicate: &Predicate) -> bool {
        let Ends { least, greatest, is_exact } = *self;
        match predicate {
            Predicate::Equal(_) => self.lie_apart(),
            Predicate::NotEqual(_) => is_exact && least.is_eq() && greatest.is_eq(),
            Predicate::Below(_) => least.is_gt() || is_exact && least.is_eq(),
            Predicate::AtMost(_) => least.is_gt(),
            Predicate::Above(_) => greatest.is_lt() || is_exact && greatest.is_eq(),
            Predicate::AtLeast(_) => greatest.is_lt(),
            Predicate::IsNull | Predicate::NotNull | Predicate::OneOf(_) => false,
        }
    }
}

/// How two values of one type stand to each other; null comes first.
fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::I64(a), Value::I64(b)) => a.cmp(b),
        (Value::I32(a), Value::I32(b)) => a.cmp(b),
        (Value::F64(a), Value::F64(b)) => by_size(*a, *b),
        (Value::F32(a), Value::F32(b)) => by_size((*a).into(), (*b).into()),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.0.cmp(&b.0),
        (Value::Date(a), Value::Date(b)) => a.0.cmp(&b.0),
        (Value::Utf8(a), Value::Utf8(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (a, b) => (*a != Value::Null).cmp(&(*b != Value::Null)),
    }
}

impl Among {
    /// Of values that rise, each once, and have a column's type.
    fn new(column_type: ColumnType, values: &[Value]) -> Among {
        match column_type {
            ColumnType::F64 | ColumnType::F32 => {
                let float = |value: &Value| match value {
                    Value::F64(x) => Some(*x),
                    Value::F32(x) => Some((*x).into()),
                    _ => None,
                };
                Among::Floats(values.iter().filter_map(float).collect())
            }
            ColumnType::Utf8 | ColumnType::Bytes => {
                let bytes = |value: &Value| match value {
                    Value::Utf8(text) => Some(text.as_bytes().into()),
                    Value::Bytes(bytes) => Some(bytes[..].into()),
                    _ => None,
                };
                Among::Texts(values.iter().filter_map(bytes).collect())
            }
            _ => Among::Integers(values.iter().filter_map(integer).collect()),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Among::Integers(values) => values.is_empty(),
            Among::Floats(values) => values.is_empty(),
            Among::Texts(values) => values.is_empty(),
        }
    }

    /// Whether none lies within bounds.
    fn lie_apart(&self, bounds: &storage::Zone) -> bool {
        /// Whether the first that is not below the bounds is above them.
        fn apart<T>(values: &[T], is_below: impl Fn(&T) -> bool, is_above: impl Fn(&T) -> bool) -> bool {
            values.get(values.partition_point(is_below)).is_none_or(is_above)
        }
        match (self, bounds) {
            (Among::Integers(values), storage::Zone::I64 { min, max }) => {
                apart(values, |x| x < min, |x| x > max)
            }
            (Among::Floats(values), storage::Zone::I64 { min, max }) => {
                let (min, max) = (*min as f64, *max as f64);
                apart(values, |x| by_size(*x, min).is_lt(), |x| by_size(*x, max).is_gt())
            }
            (Among::Floats(values), storage::Zone::F64 { min, max }) => {
                apart(values, |x| by_size(*x, *min).is_lt(), |x| by_size(*x, *max).is_gt())
            }
            // Texts that rise have prefixes that do not fall.
            (Among::Texts(values), storage::Zone::Prefix { min, max }) => apart(
                values,
                |text| storage::Zone::prefix(text) < *min,
                |text| storage::Zone::prefix(text) > *max,
            ),
            _ => false,
        }
    }

    /// The selected rows with one of them, in a column of their type.
    fn select(&self, column: &Column, has_null: bool, selection: Selection) -> Selection {
        let is_met: Box<dyn Fn(usize) -> bool + '_> = match (self, column.values()) {
            (Among::Integers(wanted), Values::I64(rows) | Values::Timestamp(rows)) => {
                Box::new(|row| wanted.binary_search(&rows[row]).is_ok())
            }
            (Among::Integers(wanted), Values::I32(rows) | Values::Date(rows)) => {
                Box::new(|row| wanted.binary_search(&rows[row].into()).is_ok())
            }
            (Among::Integers(wanted), Values::Bool(rows)) => {
                Box::new(|row| wanted.binary_search(&rows[row].into()).is_ok())
            }
            (Among::Floats(wanted), Values::F64(rows)) => {
                Box::new(|row| wanted.binary_search_by(|x| by_size(*x, rows[row])).is_ok())
            }
            (Among::Floats(wanted), Values::F32(rows)) => {
                Box::new(|row| wanted.binary_search_by(|x| by_size(*x, rows[row].into())).is_ok())
            }
            (Among::Texts(wanted), Values::Utf8(rows) | Values::Bytes(rows)) => {
                Box::new(|row| wanted.binary_search_by(|text| (**text).cmp(rows.get(row))).is_ok())
            }
            // The column has the type of the values.
            _ => Box::new(|_| false),
        };
        match column.validity() {
            Some(validity) => selection.filter(|row| if validity[row] { is_met(row) } else { has_null }),
            None => selection.filter(is_met),
        }
    }
}

/// The integer that a value is kept as.
fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::I64(x) | Value::Timestamp(storage::Timestamp(x)) => Some(*x),
        Value::I32(x) | Value::Date(storage::Date(x)) => Some(i64::from(*x)),
        Value::Bool(x) => Some(i64::from(*x)),
        _ => None,
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
