//! What an aggregate has seen so far, by slot: a slot stands for a group, or for a group within a window.

use std::cmp::Ordering;
use std::mem::take;

use underbelly_storage::{Column, ColumnType, Strings, Values};

use crate::QueryError;
use crate::aggregate::{Aggregate, Kind};

/// The state of one aggregate in each slot.
pub(crate) enum State {
    Rows(Vec<i64>),
    Count(Vec<i64>),
    SumIntegers {
        column: String,
        sums: Vec<Option<i128>>,
    },
    SumFloats(Vec<Option<f64>>),
    /// Sum and number.
    Mean(Vec<(f64, u64)>),
    /// Sum and number of integers.
    MeanIntegers(Vec<(i128, u64)>),
    Std(Vec<Spread>),
    /// The values of slots that are still open, and what came of those that are closed.
    Quantile {
        quantile: f64,
        values: Vec<Vec<f64>>,
        closed: Vec<Option<f64>>,
    },
    /// Sums of price times size and of size.
    Vwap(Vec<(f64, f64)>),
    Integers(Choice, ColumnType, Vec<Option<i64>>),
    Floats(Choice, ColumnType, Vec<Option<f64>>),
    Texts(Choice, ColumnType, String, Vec<Option<Box<[u8]>>>),
}

/// Which of several values stays.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    First,
    Last,
    Min,
    Max,
}

impl Choice {
    /// Whether a value replaces the one that was kept; `order` is that of the value to the kept one.
    fn takes(self, order: impl FnOnce() -> Ordering) -> bool {
        match self {
            Choice::First => false,
            Choice::Last => true,
            Choice::Min => order().is_lt(),
            Choice::Max => order().is_gt(),
        }
    }
}

/// Number, mean, and sum of squared distances from the mean (Welford 1962).
#[derive(Clone, Copy, Default)]
pub(crate) struct Spread {
    n: u64,
    mean: f64,
    squares: f64,
}

/// NaN is the greatest; both zeros are equal.
pub(crate) fn by_size(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// Calls `$f` with the slot and the value, as `$number`, of each row that is not null.
macro_rules! each_number {
    ($column:expr, $slots:expr, $number:ty, |$slot:ident, $value:ident| $f:expr) => {{
        let slots = $slots.iter().map(|slot| *slot as usize);
        macro_rules! rows {
            ($values:expr) => {
                match $column.validity() {
                    None => slots.zip($values).for_each(|($slot, value)| {
                        let $value = *value as $number;
                        $f
                    }),
                    Some(validity) => slots.zip($values).zip(validity).for_each(|(($slot, value), valid)| {
                        if *valid {
                            let $value = *value as $number;
                            $f
                        }
                    }),
                }
            };
        }
        match $column.values() {
            Values::I64(v) | Values::Timestamp(v) => rows!(v),
            Values::I32(v) | Values::Date(v) => rows!(v),
            Values::F64(v) => rows!(v),
            Values::F32(v) => rows!(v),
            _ => {}
        }
    }};
}

/// Keeps values by choice.
macro_rules! choose {
    ($choice:expr, $kept:expr, $column:expr, $slots:expr, $number:ty, $order:expr) => {
        each_number!($column, $slots, $number, |slot, value| {
            let kept = &mut $kept[slot];
            if kept.is_none_or(|kept| $choice.takes(|| $order(&value, &kept))) {
                *kept = Some(value);
            }
        })
    };
}

impl State {
    /// No slot yet. `types` are those of the aggregate's columns, which it has checked.
    pub(crate) fn new(aggregate: &Aggregate, types: &[ColumnType]) -> State {
        use ColumnType::{Bytes, F32, F64, Utf8};
        let found = types.first().copied().unwrap_or(ColumnType::I64);
        let chosen = |choice, column: &str| match found {
            Utf8 | Bytes => State::Texts(choice, found, column.to_string(), Vec::new()),
            F32 | F64 => State::Floats(choice, found, Vec::new()),
            _ => State::Integers(choice, found, Vec::new()),
        };
        let is_float = matches!(found, F32 | F64);
        match &aggregate.kind {
            Kind::Rows => State::Rows(Vec::new()),
            Kind::Count(_) => State::Count(Vec::new()),
            Kind::Sum(_) if is_float => State::SumFloats(Vec::new()),
            Kind::Sum(column) => State::SumIntegers { column: column.to_string(), sums: Vec::new() },
            Kind::Mean(_) if is_float => State::Mean(Vec::new()),
            Kind::Mean(_) => State::MeanIntegers(Vec::new()),
            Kind::Std(_) => State::Std(Vec::new()),
            Kind::Quantile(_, quantile) => {
                State::Quantile { quantile: *quantile, values: Vec::new(), closed: Vec::new() }
            }
            Kind::Vwap { .. } => State::Vwap(Vec::new()),
            Kind::First(column) => chosen(Choice::First, column),
            Kind::Last(column) => chosen(Choice::Last, column),
            Kind::Min(column) => chosen(Choice::Min, column),
            Kind::Max(column) => chosen(Choice::Max, column),
        }
    }

    /// Makes room for so many slots.
    pub(crate) fn resize(&mut self, slots: usize) {
        match self {
            State::Rows(v) | State::Count(v) => v.resize(slots, 0),
            State::SumIntegers { sums, .. } => sums.resize(slots, None),
            State::SumFloats(v) => v.resize(slots, None),
            State::Mean(v) => v.resize(slots, (0.0, 0)),
            State::MeanIntegers(v) => v.resize(slots, (0, 0)),
            State::Std(v) => v.resize(slots, Spread::default()),
            State::Quantile { values, .. } => values.resize(slots, Vec::new()),
            State::Vwap(v) => v.resize(slots, (0.0, 0.0)),
            State::Integers(.., v) => v.resize(slots, None),
            State::Floats(.., v) => v.resize(slots, None),
            State::Texts(.., v) => v.resize(slots, None),
        }
    }

    /// Takes rows in: `slots` has the slot of each, `columns` the aggregate's columns.
    pub(crate) fn update(&mut self, columns: &[&Column], slots: &[u32]) {
        if let State::Rows(counts) = self {
            slots.iter().for_each(|slot| counts[*slot as usize] += 1);
            return;
        }
        let Some(column) = columns.first() else { return };
        match self {
            State::Rows(_) => {}
            State::Count(counts) => match column.validity() {
                None => slots.iter().for_each(|slot| counts[*slot as usize] += 1),
                Some(validity) => slots
                    .iter()
                    .zip(validity)
                    .for_each(|(slot, valid)| counts[*slot as usize] += i64::from(*valid)),
            },
            // 2^63 values of up to 2^63 each stay below 2^127.
            State::SumIntegers { sums, .. } => {
                each_number!(column, slots, i64, |slot, value| *sums[slot].get_or_insert(0) +=
                    i128::from(value));
            }
            State::SumFloats(sums) => {
                each_number!(column, slots, f64, |slot, value| *sums[slot].get_or_insert(0.0) += value);
            }
            State::Mean(means) => each_number!(column, slots, f64, |slot, value| {
                let (sum, n) = &mut means[slot];
                *sum += value;
                *n += 1;
            }),
            State::MeanIntegers(means) => each_number!(column, slots, i64, |slot, value| {
                let (sum, n) = &mut means[slot];
                *sum += i128::from(value);
                *n += 1;
            }),
            State::Std(spreads) => each_number!(column, slots, f64, |slot, value| spreads[slot].add(value)),
            State::Quantile { values, .. } => {
                each_number!(column, slots, f64, |slot, value| values[slot].push(value));
            }
            State::Vwap(sums) => {
                let Some(sizes) = columns.get(1) else { return };
                for ((slot, price), size) in slots.iter().zip(numbers(column)).zip(numbers(sizes)) {
                    if let (Some(price), Some(size)) = (price, size) {
                        let (products, sizes) = &mut sums[*slot as usize];
                        *products += price * size;
                        *sizes += size;
                    }
                }
            }
            State::Integers(choice, _, kept) => match column.values() {
                Values::Bool(values) => {
                    for ((row, slot), value) in slots.iter().enumerate().zip(values) {
                        let kept = &mut kept[*slot as usize];
                        let value = i64::from(*value);
                        if !column.is_null(row) && kept.is_none_or(|kept| choice.takes(|| value.cmp(&kept))) {
                            *kept = Some(value);
                        }
                    }
                }
                _ => choose!(choice, kept, column, slots, i64, Ord::cmp),
            },
            State::Floats(choice, _, kept) => {
                choose!(choice, kept, column, slots, f64, |a: &f64, b: &f64| by_size(*a, *b));
            }
            State::Texts(choice, _, _, kept) => {
                if let Values::Utf8(texts) | Values::Bytes(texts) = column.values() {
                    for (row, slot) in slots.iter().enumerate().filter(|(row, _)| !column.is_null(*row)) {
                        let kept = &mut kept[*slot as usize];
                        let text = texts.get(row);
                        if kept.as_ref().is_none_or(|kept| choice.takes(|| text.cmp(kept))) {
                            *kept = Some(text.into());
                        }
                    }
                }
            }
        }
    }

    /// Lets go of what slots before `end` need to take more rows in.
    pub(crate) fn close(&mut self, end: usize) {
        if let State::Quantile { quantile, values, closed } = self {
            for values in values.get_mut(closed.len()..end).unwrap_or_default() {
                closed.push(quantile_of(take(values), *quantile));
            }
        }
    }

    /// Values that are held until their slots are closed.
    #[cfg(test)]
    pub(crate) fn values_held(&self) -> usize {
        if let State::Quantile { values, .. } = self { values.iter().map(Vec::len).sum() } else { 0 }
    }

    /// The result of each slot.
    pub(crate) fn finish(mut self) -> Result<Column, QueryError> {
        if let State::Quantile { values, .. } = &self {
            let slots = values.len();
            self.close(slots);
        }
        Ok(match self {
            State::Rows(counts) | State::Count(counts) => Column::from(counts),
            State::SumIntegers { column, sums } => {
                let sum = |sum: Option<i128>| sum.map(i64::try_from).transpose();
                let sums: Result<Vec<_>, _> = sums.into_iter().map(sum).collect();
                nullable(sums.map_err(|_| QueryError::SumTooLarge { column })?, Values::I64)
            }
            State::SumFloats(sums) => nullable(sums, Values::F64),
            State::Mean(means) => {
                let mean = |(sum, n)| (n > 0).then(|| sum / n as f64);
                nullable(means.into_iter().map(mean).collect(), Values::F64)
            }
            State::MeanIntegers(means) => {
                let mean = |(sum, n)| (n > 0).then(|| sum as f64 / n as f64);
                nullable(means.into_iter().map(mean).collect(), Values::F64)
            }
            State::Std(spreads) => {
                let std = |s: Spread| (s.n > 1).then(|| (s.squares / (s.n - 1) as f64).sqrt());
                nullable(spreads.into_iter().map(std).collect(), Values::F64)
            }
            State::Quantile { closed, .. } => nullable(closed, Values::F64),
            State::Vwap(sums) => {
                let vwap = |(products, sizes)| (sizes != 0.0).then(|| products / sizes);
                nullable(sums.into_iter().map(vwap).collect(), Values::F64)
            }
            State::Integers(_, column_type, kept) => match column_type {
                ColumnType::Bool => nullable(kept, |v| Values::Bool(v.into_iter().map(|x| x != 0).collect())),
                ColumnType::I32 => nullable(kept, |v| Values::I32(v.into_iter().map(|x| x as i32).collect())),
                ColumnType::Date => {
                    nullable(kept, |v| Values::Date(v.into_iter().map(|x| x as i32).collect()))
                }
                ColumnType::Timestamp => nullable(kept, Values::Timestamp),
                _ => nullable(kept, Values::I64),
            },
            State::Floats(_, column_type, kept) => match column_type {
                ColumnType::F32 => nullable(kept, |v| Values::F32(v.into_iter().map(|x| x as f32).collect())),
                _ => nullable(kept, Values::F64),
            },
            State::Texts(_, column_type, column, kept) => {
                let too_large = || QueryError::TooLarge { column: column.clone() };
                let mut texts = Strings::default();
                for text in &kept {
                    if !texts.push(text.as_deref().unwrap_or_default()) {
                        return Err(too_large());
                    }
                }
                let values =
                    if column_type == ColumnType::Utf8 { Values::Utf8(texts) } else { Values::Bytes(texts) };
                let validity = kept.iter().map(Option::is_some).collect();
                Column::from_parts(values, Some(validity)).ok_or_else(too_large)?
            }
        })
    }
}

impl Spread {
    fn add(&mut self, value: f64) {
        self.n += 1;
        let distance = value - self.mean;
        self.mean += distance / self.n as f64;
        self.squares += distance * (value - self.mean);
    }
}

/// The numbers of a column.
fn numbers(column: &Column) -> Vec<Option<f64>> {
    let mut numbers = vec![None; column.len()];
    let rows: Vec<u32> = (0..column.len() as u32).collect();
    each_number!(column, rows, f64, |row, value| numbers[row] = Some(value));
    numbers
}

fn quantile_of(mut values: Vec<f64>, quantile: f64) -> Option<f64> {
    let last = values.len().checked_sub(1)?;
    values.sort_unstable_by(|a, b| by_size(*a, *b));
    let at = quantile * last as f64;
    let (low, part) = (at.floor(), at.fract());
    let below = *values.get(low as usize)?;
    match values.get(low as usize + 1) {
        Some(above) if part > 0.0 && *above != below => Some(below + (above - below) * part),
        _ => Some(below),
    }
}

fn nullable<T: Default>(found: Vec<Option<T>>, values: impl FnOnce(Vec<T>) -> Values) -> Column {
    let validity: Vec<bool> = found.iter().map(Option::is_some).collect();
    let values = values(found.into_iter().map(Option::unwrap_or_default).collect());
    Column::from_parts(values, Some(validity)).unwrap_or(Column::new(ColumnType::F64))
}
