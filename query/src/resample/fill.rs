//! What stands where a window has no value.

use underbelly_storage::{Column, Value, Values};

use crate::QueryError;
use crate::pick::{Spot, pick};

/// What stands where a window has no value, because it has no rows or only nulls. Counts are 0 there, whatever is chosen.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Fill {
    /// Windows without rows are left out; nulls stay.
    None,
    /// Null.
    #[default]
    Null,
    /// The last value of the key before it.
    Previous,
    /// Numbers between the values before and after, by the windows' timestamps; integers are rounded. Null before the
    /// first value and behind the last one, and for what is no number.
    Linear,
    /// This value. An integer that fits stands in columns of floats and of shorter integers too.
    Constant(Value),
}

impl Fill {
    /// The column without the nulls that it fills. Rows of one key stand `stride` rows apart.
    pub(super) fn apply(
        &self,
        column: Column,
        stride: usize,
        times: &[i64],
        name: &str,
    ) -> Result<Column, QueryError> {
        let Some(validity) = column.validity() else { return Ok(column) };
        match self {
            Fill::None | Fill::Null => Ok(column),
            Fill::Previous => {
                let mut spots: Vec<Spot> = Vec::with_capacity(validity.len());
                for (row, valid) in validity.iter().enumerate() {
                    let before = row.checked_sub(stride).and_then(|row| spots.get(row)).copied();
                    let mine = Spot { part: 0, row: row as u32 };
                    spots.push(if *valid { mine } else { before.unwrap_or(Spot::NOWHERE) });
                }
                pick(&[&column], &spots, column.column_type(), name)
            }
            Fill::Linear => Ok(linear(column, stride, times)),
            Fill::Constant(value) => constant(&column, value, name),
        }
    }
}

fn constant(column: &Column, value: &Value, name: &str) -> Result<Column, QueryError> {
    let mut filled = Column::with_capacity(column.column_type(), column.len());
    let value = match (column.values(), value) {
        (Values::I32(_), Value::I64(value)) => i32::try_from(*value).map_or(Value::I64(*value), Value::I32),
        (Values::F32(_), Value::I64(value)) if (*value as f32) as i128 == i128::from(*value) => {
            Value::F32(*value as f32)
        }
        (Values::F32(_), Value::F64(value)) => Value::F32(*value as f32),
        _ => value.clone(),
    };
    for row in 0..column.len() {
        match column.is_null(row) {
            true => filled.push(&value).map_err(|error| error.named(name))?,
            false => crate::gather::append(&mut filled, Some(column), row..row + 1, name)?,
        }
    }
    Ok(filled)
}

fn linear(column: Column, stride: usize, times: &[i64]) -> Column {
    let (column_type, rows) = (column.column_type(), column.len());
    let (mut values, validity) = column.into_parts();
    let mut validity = validity.unwrap_or_else(|| vec![true; rows]);
    match &mut values {
        Values::F64(v) => interpolate(v, &mut validity, stride, times, between_floats),
        Values::F32(v) => interpolate(v, &mut validity, stride, times, |low, high, at, whole| {
            between_floats(low.into(), high.into(), at, whole) as f32
        }),
        Values::I64(v) => interpolate(v, &mut validity, stride, times, between_integers),
        Values::I32(v) => interpolate(v, &mut validity, stride, times, |low, high, at, whole| {
            between_integers(low.into(), high.into(), at, whole) as i32
        }),
        _ => {}
    }
    Column::from_parts(values, Some(validity)).unwrap_or(Column::new(column_type))
}

/// The value so far on the way from one to another, also where they are further apart than a float can be.
fn between_floats(low: f64, high: f64, at: u64, whole: u64) -> f64 {
    let part = at as f64 / whole as f64;
    if low == high { low } else { low * (1.0 - part) + high * part }
}

/// The nearest integer so far on the way, the later of two that are as near.
fn between_integers(low: i64, high: i64, at: u64, whole: u64) -> i64 {
    let (at, whole) = (u128::from(at), u128::from(whole));
    let step = (u128::from(high.abs_diff(low)) * at + whole / 2) / whole;
    // At most the distance, which leads from one to the other.
    let step = step as u64;
    if high < low { low.wrapping_sub_unsigned(step) } else { low.wrapping_add_unsigned(step) }
}

fn interpolate<T: Copy>(
    values: &mut [T],
    validity: &mut [bool],
    stride: usize,
    times: &[i64],
    between: impl Fn(T, T, u64, u64) -> T,
) {
    for first in 0..stride.min(values.len()) {
        let mut before: Option<usize> = None;
        for row in (first..values.len()).step_by(stride) {
            if !validity[row] {
                continue;
            }
            if let Some(before) = before {
                let whole = times[row].abs_diff(times[before]);
                for gap in (before + stride..row).step_by(stride) {
                    let at = times[gap].abs_diff(times[before]);
                    values[gap] = between(values[before], values[row], at, whole);
                    validity[gap] = true;
                }
            }
            before = Some(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_two_values_lies_between_them() {
        let large = (1 << 53) + 1;
        assert_eq!(between_integers(large, large, 1, 3), large, "an i64 is no f64");
        assert_eq!(between_integers(i64::MIN, i64::MAX, 1, 2), 0);
        assert_eq!(between_integers(i64::MAX, i64::MIN, u64::MAX - 1, u64::MAX), i64::MIN + 1);
        assert_eq!([1, 2, 3].map(|at| between_integers(10, 0, at, 4)), [7, 5, 2]);
        assert_eq!(between_floats(-1e308, 1e308, 1, 2), 0.0);
        assert_eq!(between_floats(f64::INFINITY, f64::INFINITY, 1, 2), f64::INFINITY);
        assert_eq!(between_floats(1.0, 2.0, 1, 4), 1.25);
    }
}
