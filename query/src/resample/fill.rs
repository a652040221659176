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
        Values::F64(v) => interpolate(v, &mut validity, stride, times, |x| x, |x| x),
        Values::F32(v) => interpolate(v, &mut validity, stride, times, f64::from, |x| x as f32),
        Values::I64(v) => interpolate(v, &mut validity, stride, times, |x| x as f64, |x| x.round() as i64),
        Values::I32(v) => interpolate(v, &mut validity, stride, times, f64::from, |x| x.round() as i32),
        _ => {}
    }
    Column::from_parts(values, Some(validity)).unwrap_or(Column::new(column_type))
}

fn interpolate<T: Copy>(
    values: &mut [T],
    validity: &mut [bool],
    stride: usize,
    times: &[i64],
    number: impl Fn(T) -> f64,
    value: impl Fn(f64) -> T,
) {
    for first in 0..stride.min(values.len()) {
        let mut before: Option<usize> = None;
        for row in (first..values.len()).step_by(stride) {
            if !validity[row] {
                continue;
            }
            if let Some(before) = before {
                let (low, high) = (number(values[before]), number(values[row]));
                let whole = times[row].abs_diff(times[before]) as f64;
                for gap in (before + stride..row).step_by(stride) {
                    let part = times[gap].abs_diff(times[before]) as f64 / whole;
                    values[gap] = value(low + (high - low) * part);
                    validity[gap] = true;
                }
            }
            before = Some(row);
        }
    }
}
