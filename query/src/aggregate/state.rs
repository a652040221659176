//! What an aggregate has seen so far, by slot: a slot stands for a group, or for a group within a window.

use std::cmp::Ordering;
use std::mem::take;
use std::ops::Range;

use underbelly_storage::{Column, ColumnType, Strings, Values};

use crate::QueryError;
use crate::aggregate::{Aggregate, Kind};

/// The state of one aggregate in each slot.
pub(crate) enum State {
    Rows(Vec<i64>),
    Count(Vec<i64>),
    SumIntegers {
        column: String,
        sums: Kept<i128>,
    },
    SumFloats(Kept<f64>),
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
    SumProduct(Kept<f64>),
    Integers(Choice, ColumnType, Kept<i64>),
    Floats(Choice, ColumnType, Kept<f64>),
    Texts(Choice, ColumnType, String, Vec<Option<Box<[u8]>>>),
}

/// A number for each slot, and whether it has had a value. The two lie apart, so that most updates are made without a branch.
pub(crate) struct Kept<T> {
    values: Vec<T>,
    seen: Vec<bool>,
    /// What stands where there was no value.
    nothing: T,
}

impl<T> Kept<T> {
    fn byte_size(&self) -> usize {
        size_of_val(&self.values[..]) + self.seen.len()
    }
}

impl State {
    /// Bytes of what is kept, about.
    pub(crate) fn byte_size(&self) -> usize {
        match self {
            State::Rows(of) | State::Count(of) => size_of_val(&of[..]),
            State::SumIntegers { sums, .. } => sums.byte_size(),
            State::SumFloats(of) | State::SumProduct(of) | State::Floats(_, _, of) => of.byte_size(),
            State::Mean(of) => size_of_val(&of[..]),
            State::MeanIntegers(of) => size_of_val(&of[..]),
            State::Std(of) => size_of_val(&of[..]),
            State::Quantile { values, closed, .. } => {
                let of_values = values.iter().map(|of| size_of_val(&of[..]) + size_of::<Vec<f64>>());
                of_values.sum::<usize>() + size_of_val(&closed[..])
            }
            State::Vwap(of) => size_of_val(&of[..]),
            State::Integers(_, _, of) => of.byte_size(),
            State::Texts(_, _, _, of) => {
                let texts = of.iter().flatten().map(|text| text.len() + 16);
                texts.sum::<usize>() + size_of_val(&of[..])
            }
        }
    }
}

impl<T: Copy> Kept<T> {
    fn new(nothing: T) -> Kept<T> {
        Kept { values: Vec::new(), seen: Vec::new(), nothing }
    }

    fn resize(&mut self, slots: usize) {
        self.values.resize(slots, self.nothing);
        self.seen.resize(slots, false);
    }

    /// Makes `with` of what is kept and whether that was a value.
    #[inline(always)]
    fn update(&mut self, slot: usize, with: impl FnOnce(T, bool) -> T) {
        if let (Some(value), Some(seen)) = (self.values.get_mut(slot), self.seen.get_mut(slot)) {
            *value = with(*value, *seen);
            *seen = true;
        }
    }

    /// Takes in later values, of slots of their own; `with` makes one of two.
    fn merge(&mut self, slots: impl Iterator<Item = usize>, later: Kept<T>, with: impl Fn(T, T) -> T) {
        for ((slot, value), seen) in slots.zip(later.values).zip(later.seen) {
            if seen {
                self.update(slot, |kept, seen| if seen { with(kept, value) } else { value });
            }
        }
    }

    fn into_options(self) -> Vec<Option<T>> {
        self.values.into_iter().zip(self.seen).map(|(value, seen)| seen.then_some(value)).collect()
    }
}

impl Kept<f64> {
    fn add(&mut self, slot: usize, sum: Option<f64>) {
        if let Some(sum) = sum {
            self.update(slot, |before, _| before + sum);
        }
    }
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

/// Parts of a sum: so many numbers are added at a time.
const LANES: usize = 16;

/// The sum of what `number` makes of values; `None` of none.
fn sum<T>(values: &[T], number: impl Fn(&T) -> f64) -> Option<f64> {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut parts = [0.0; LANES];
    for chunk in chunks {
        parts.iter_mut().zip(chunk).for_each(|(part, value)| *part += number(value));
    }
    parts.iter_mut().zip(rest).for_each(|(part, value)| *part += number(value));
    (!values.is_empty()).then(|| parts.iter().sum())
}

/// The same of the products of prices and what `number` makes of sizes.
fn sum_of_products<T: Copy>(prices: &[f64], sizes: &[T], number: impl Fn(T) -> f64) -> Option<f64> {
    let ((prices, more_prices), (sizes, more_sizes)) =
        (prices.as_chunks::<LANES>(), sizes.as_chunks::<LANES>());
    let mut parts = [0.0; LANES];
    for (prices, sizes) in prices.iter().zip(sizes) {
        for ((part, price), size) in parts.iter_mut().zip(prices).zip(sizes) {
            *part += price * number(*size);
        }
    }
    for ((part, price), size) in parts.iter_mut().zip(more_prices).zip(more_sizes) {
        *part += price * number(*size);
    }
    (!prices.is_empty() || !more_prices.is_empty()).then(|| parts.iter().sum())
}

/// Some values of a column of floats of eight bytes.
fn doubles<'c>(column: &'c Column, rows: &Range<usize>) -> Option<&'c [f64]> {
    match column.values() {
        Values::F64(values) => values.get(rows.clone()),
        _ => None,
    }
}

/// Some values of a column of integers of eight bytes.
fn integers<'c>(
    column: &'c Column,
    rows: &Range<usize>,
) -> Option<std::iter::Copied<std::slice::Iter<'c, i64>>> {
    match column.values() {
        Values::I64(values) | Values::Timestamp(values) => Some(values.get(rows.clone())?.iter().copied()),
        _ => None,
    }
}

/// The value that stays of several; of equal ones the first, or the last where that is asked for.
fn chosen<T>(
    choice: Choice,
    mut values: impl DoubleEndedIterator<Item = T>,
    less: impl Fn(&T, &T) -> bool,
) -> Option<T> {
    match choice {
        Choice::First => values.next(),
        Choice::Last => values.next_back(),
        Choice::Min => values.reduce(|kept, value| if less(&value, &kept) { value } else { kept }),
        Choice::Max => values.reduce(|kept, value| if less(&kept, &value) { value } else { kept }),
    }
}

/// The least number, [`LANES`] at a time; of equal ones any.
fn least(values: &[f64], less: impl Fn(&f64, &f64) -> bool) -> Option<f64> {
    let mut parts = [*values.first()?; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (part, value) in parts.iter_mut().zip(chunk) {
            *part = if less(value, part) { *value } else { *part };
        }
    }
    parts.iter().chain(rest).copied().reduce(|kept, value| if less(&value, &kept) { value } else { kept })
}

/// Takes a value in that stands for later rows.
fn keep<T: Copy>(kept: &mut Kept<T>, choice: Choice, slot: usize, value: T, less: impl Fn(&T, &T) -> bool) {
    kept.update(slot, |before, seen| {
        let is_taken = match choice {
            Choice::First => !seen,
            Choice::Last => true,
            Choice::Min => !seen || less(&value, &before),
            Choice::Max => !seen || less(&before, &value),
        };
        if is_taken { value } else { before }
    });
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

/// Keeps values by choice; `$less` and `$greater` say whether the first number goes before the second.
macro_rules! choose {
    ($choice:expr, $kept:expr, $column:expr, $slots:expr, $number:ty, $less:expr, $greater:expr) => {
        match $choice {
            Choice::First => each_number!($column, $slots, $number, |slot, value| {
                $kept.update(slot, |kept, seen| if seen { kept } else { value });
            }),
            Choice::Last => each_number!($column, $slots, $number, |slot, value| {
                $kept.update(slot, |_, _| value);
            }),
            Choice::Min => each_number!($column, $slots, $number, |slot, value| {
                $kept.update(slot, |kept, _| if $less(value, kept) { value } else { kept });
            }),
            Choice::Max => each_number!($column, $slots, $number, |slot, value| {
                $kept.update(slot, |kept, _| if $greater(value, kept) { value } else { kept });
            }),
        }
    };
}

/// Whether a number is smaller; NaN is the greatest.
#[inline(always)]
fn is_less(a: f64, b: f64) -> bool {
    (a < b) | (b.is_nan() & !a.is_nan())
}

impl State {
    /// No slot yet. `types` are those of the aggregate's columns, which it has checked.
    pub(crate) fn new(aggregate: &Aggregate, types: &[ColumnType]) -> State {
        use ColumnType::{Bytes, F32, F64, Utf8};
        let found = types.first().copied().unwrap_or(ColumnType::I64);
        let chosen = |choice, column: &str| match found {
            Utf8 | Bytes => State::Texts(choice, found, column.to_string(), Vec::new()),
            // What any value takes the place of, or is equal to.
            F32 | F64 => {
                let nothing = if choice == Choice::Max { f64::NEG_INFINITY } else { f64::NAN };
                State::Floats(choice, found, Kept::new(nothing))
            }
            _ => {
                let nothing = if choice == Choice::Max { i64::MIN } else { i64::MAX };
                State::Integers(choice, found, Kept::new(nothing))
            }
        };
        let is_float = matches!(found, F32 | F64);
        match &aggregate.kind {
            Kind::Rows => State::Rows(Vec::new()),
            Kind::Count(_) => State::Count(Vec::new()),
            Kind::Sum(_) if is_float => State::SumFloats(Kept::new(0.0)),
            Kind::Sum(column) => State::SumIntegers { column: column.to_string(), sums: Kept::new(0) },
            Kind::Mean(_) if is_float => State::Mean(Vec::new()),
            Kind::Mean(_) => State::MeanIntegers(Vec::new()),
            Kind::Std(_) => State::Std(Vec::new()),
            Kind::Quantile(_, quantile) => {
                State::Quantile { quantile: *quantile, values: Vec::new(), closed: Vec::new() }
            }
            Kind::Vwap { .. } => State::Vwap(Vec::new()),
            Kind::SumProduct { .. } => State::SumProduct(Kept::new(0.0)),
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
            State::SumIntegers { sums, .. } => sums.resize(slots),
            State::SumFloats(v) | State::SumProduct(v) => v.resize(slots),
            State::Mean(v) => v.resize(slots, (0.0, 0)),
            State::MeanIntegers(v) => v.resize(slots, (0, 0)),
            State::Std(v) => v.resize(slots, Spread::default()),
            State::Quantile { values, .. } => values.resize(slots, Vec::new()),
            State::Vwap(v) => v.resize(slots, (0.0, 0.0)),
            State::Integers(.., v) => v.resize(slots),
            State::Floats(.., v) => v.resize(slots),
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
                each_number!(column, slots, i64, |slot, value| {
                    sums.update(slot, |sum, _| sum + i128::from(value));
                });
            }
            State::SumFloats(sums) => {
                each_number!(column, slots, f64, |slot, value| sums.update(slot, |sum, _| sum + value));
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
            State::SumProduct(sums) => {
                let Some(sizes) = columns.get(1) else { return };
                each_pair(column, sizes, slots, |slot, price, size| {
                    sums.update(slot, |sum, _| sum + price * size);
                });
            }
            State::Vwap(sums) => {
                let Some(sizes) = columns.get(1) else { return };
                each_pair(column, sizes, slots, |slot, price, size| {
                    let (products, sizes) = &mut sums[slot];
                    *products += price * size;
                    *sizes += size;
                });
            }
            State::Integers(choice, _, kept) => match column.values() {
                Values::Bool(values) => {
                    let rows = slots.iter().zip(values).enumerate();
                    for (_, (slot, value)) in rows.filter(|(row, _)| !column.is_null(*row)) {
                        let (slot, value) = (*slot as usize, i64::from(*value));
                        kept.update(slot, |kept, seen| match seen && !choice.takes(|| value.cmp(&kept)) {
                            true => kept,
                            false => value,
                        });
                    }
                }
                _ => {
                    choose!(choice, kept, column, slots, i64, |a: i64, b: i64| a < b, |a: i64, b: i64| a > b)
                }
            },
            State::Floats(choice, _, kept) => {
                choose!(choice, kept, column, slots, f64, is_less, |a: f64, b: f64| is_less(b, a));
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

    /// Which value a state of floats of eight bytes keeps.
    pub(crate) fn choice(&self) -> Option<Choice> {
        match self {
            State::Floats(choice, ColumnType::F64, _) => Some(*choice),
            _ => None,
        }
    }

    /// Takes rows of one column into the states of a bar, which are its first, greatest, least and last value: each row is looked at once.
    /// Whether that is done: it is not where there are nulls or NaN among the rows.
    pub(crate) fn update_bar(bar: [&mut State; 4], column: &Column, slots: &[u32]) -> bool {
        let [
            State::Floats(Choice::First, _, open),
            State::Floats(Choice::Max, _, high),
            State::Floats(Choice::Min, _, low),
            State::Floats(Choice::Last, _, close),
        ] = bar
        else {
            return false;
        };
        let (Values::F64(values), None) = (column.values(), column.validity()) else { return false };
        if values.iter().fold(false, |found, value| found | value.is_nan()) {
            return false;
        }
        // With one length for all a slot is compared with it once.
        let count = open.values.len();
        let (Some(opens), Some(opened)) = (open.values.get_mut(..count), open.seen.get_mut(..count)) else {
            return false;
        };
        let (Some(highs), Some(raised)) = (high.values.get_mut(..count), high.seen.get_mut(..count)) else {
            return false;
        };
        let (Some(lows), Some(lowered)) = (low.values.get_mut(..count), low.seen.get_mut(..count)) else {
            return false;
        };
        let (Some(closes), Some(closed)) = (close.values.get_mut(..count), close.seen.get_mut(..count))
        else {
            return false;
        };
        for (slot, value) in slots.iter().map(|slot| *slot as usize).zip(values.iter().copied()) {
            if slot >= count {
                continue;
            }
            if !opened[slot] {
                opens[slot] = value;
                (opened[slot], raised[slot], lowered[slot], closed[slot]) = (true, true, true, true);
            }
            // A NaN that was kept before stays the greatest, and gives way where the least is asked for.
            let (high, low) = (highs[slot], lows[slot]);
            highs[slot] = if value > high { value } else { high };
            lows[slot] = if low <= value { low } else { value };
            closes[slot] = value;
        }
        true
    }

    /// Takes `rows` rows into one slot. Sums of floats are those of [`LANES`] parts, every so-many-th value in one.
    pub(crate) fn update_one(&mut self, columns: &[&Column], slot: usize, rows: usize) {
        let no_nulls = columns.iter().all(|column| column.validity().is_none());
        match (&mut *self, columns) {
            (State::Rows(counts), _) => counts[slot] += rows as i64,
            (State::Count(counts), [column]) => counts[slot] += (column.len() - column.null_count()) as i64,
            (State::SumFloats(sums), [column]) if no_nulls && let Values::F64(values) = column.values() => {
                sums.add(slot, sum(values, |value| *value));
            }
            (State::Mean(means), [column]) if no_nulls && let Values::F64(values) = column.values() => {
                let (to, n) = &mut means[slot];
                *to += sum(values, |value| *value).unwrap_or(0.0);
                *n += values.len() as u64;
            }
            (State::SumProduct(sums), [prices, sizes])
                if no_nulls && let Values::F64(prices) = prices.values() =>
            {
                let products = match sizes.values() {
                    Values::I64(sizes) => sum_of_products(prices, sizes, |size| size as f64),
                    Values::F64(sizes) => sum_of_products(prices, sizes, |size| size),
                    Values::I32(sizes) => sum_of_products(prices, sizes, f64::from),
                    _ => return self.update(columns, &vec![slot as u32; rows]),
                };
                sums.add(slot, products);
            }
            _ => self.update(columns, &vec![slot as u32; rows]),
        }
    }

    /// Takes some rows into one slot, as [`State::update_one`] does all.
    pub(crate) fn update_some(&mut self, columns: &[&Column], slot: usize, rows: Range<usize>) {
        let has_nulls = columns.iter().any(|column| column.validity().is_some());
        let is_taken = !has_nulls
            && match (&mut *self, columns) {
                (State::Rows(counts) | State::Count(counts), _) => {
                    counts[slot] += rows.len() as i64;
                    true
                }
                (State::SumIntegers { sums, .. }, [column]) => {
                    let of_slot = integers(column, &rows).map(|values| values.map(i128::from).sum::<i128>());
                    of_slot.map(|sum| sums.update(slot, |before, _| before + sum)).is_some()
                }
                (State::SumFloats(sums), [column]) => {
                    doubles(column, &rows).map(|values| sums.add(slot, sum(values, |value| *value))).is_some()
                }
                (State::Mean(means), [column]) => {
                    let of_slot =
                        doubles(column, &rows).map(|values| sum(values, |value| *value).unwrap_or(0.0));
                    let to = &mut means[slot];
                    of_slot.map(|sum| *to = (to.0 + sum, to.1 + rows.len() as u64)).is_some()
                }
                (State::Vwap(sums), [prices, sizes]) => {
                    let (to, prices) = (&mut sums[slot], doubles(prices, &rows));
                    let of_slot = match (prices, sizes.values()) {
                        (Some(prices), Values::I64(v)) => v.get(rows.clone()).map(|sizes| {
                            let products = sum_of_products(prices, sizes, |size| size as f64);
                            (products, sum(sizes, |size| *size as f64))
                        }),
                        (Some(prices), Values::F64(v)) => v.get(rows.clone()).map(|sizes| {
                            let products = sum_of_products(prices, sizes, |size| size);
                            (products, sum(sizes, |size| *size))
                        }),
                        _ => None,
                    };
                    let add = |(products, sizes): (Option<f64>, Option<f64>)| {
                        *to = (to.0 + products.unwrap_or(0.0), to.1 + sizes.unwrap_or(0.0));
                    };
                    of_slot.map(add).is_some()
                }
                (State::Integers(choice, _, kept), [column]) => {
                    let less = |a: &i64, b: &i64| a < b;
                    let of_slot = integers(column, &rows).and_then(|values| chosen(*choice, values, less));
                    of_slot.map(|value| keep(kept, *choice, slot, value, less)).is_some()
                }
                (State::Floats(choice, _, kept), [column]) => {
                    let less = |a: &f64, b: &f64| is_less(*a, *b);
                    let of_slot = doubles(column, &rows).and_then(|values| match choice {
                        Choice::Min => least(values, less),
                        Choice::Max => least(values, |a, b| less(b, a)),
                        _ => chosen(*choice, values.iter().copied(), less),
                    });
                    of_slot.map(|value| keep(kept, *choice, slot, value, less)).is_some()
                }
                _ => false,
            };
        if !is_taken && !rows.is_empty() {
            let some: Vec<Column> = columns.iter().map(|column| column.slice(rows.clone())).collect();
            self.update_one(&some.iter().collect::<Vec<_>>(), slot, rows.len());
        }
    }

    /// Takes in what later rows came to; `slots` has the slot of each of theirs.
    pub(crate) fn merge(&mut self, later: State, slots: &[u32]) {
        let slots = slots.iter().map(|slot| *slot as usize);
        match (self, later) {
            (State::Rows(to), State::Rows(from)) | (State::Count(to), State::Count(from)) => {
                slots.zip(from).for_each(|(slot, count)| to[slot] += count);
            }
            (State::SumIntegers { sums, .. }, State::SumIntegers { sums: from, .. }) => {
                sums.merge(slots, from, |sum, later| sum + later);
            }
            (State::SumFloats(to), State::SumFloats(from))
            | (State::SumProduct(to), State::SumProduct(from)) => {
                to.merge(slots, from, |sum, later| sum + later);
            }
            (State::Mean(to), State::Mean(from)) => {
                for (slot, (sum, n)) in slots.zip(from) {
                    to[slot] = (to[slot].0 + sum, to[slot].1 + n);
                }
            }
            (State::MeanIntegers(to), State::MeanIntegers(from)) => {
                for (slot, (sum, n)) in slots.zip(from) {
                    to[slot] = (to[slot].0 + sum, to[slot].1 + n);
                }
            }
            (State::Std(to), State::Std(from)) => {
                slots.zip(from).for_each(|(slot, spread)| to[slot].merge(spread));
            }
            (State::Quantile { values, .. }, State::Quantile { values: from, .. }) => {
                for (slot, mut from) in slots.zip(from) {
                    match values[slot].is_empty() {
                        true => values[slot] = from,
                        false => values[slot].append(&mut from),
                    }
                }
            }
            (State::Vwap(to), State::Vwap(from)) => {
                for (slot, (products, sizes)) in slots.zip(from) {
                    to[slot] = (to[slot].0 + products, to[slot].1 + sizes);
                }
            }
            (State::Integers(choice, _, to), State::Integers(_, _, from)) => {
                to.merge(slots, from, |kept, later| match choice.takes(|| later.cmp(&kept)) {
                    true => later,
                    false => kept,
                });
            }
            (State::Floats(choice, _, to), State::Floats(_, _, from)) => {
                to.merge(slots, from, |kept, later| match choice.takes(|| by_size(later, kept)) {
                    true => later,
                    false => kept,
                });
            }
            (State::Texts(choice, _, _, to), State::Texts(_, _, _, from)) => {
                for (slot, text) in slots.zip(from) {
                    let kept = &mut to[slot];
                    if let Some(text) = text
                        && kept.as_ref().is_none_or(|kept| choice.takes(|| text.cmp(kept)))
                    {
                        *kept = Some(text);
                    }
                }
            }
            // Both are states of the same aggregate.
            _ => {}
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
                let sums: Result<Vec<_>, _> = sums.into_options().into_iter().map(sum).collect();
                nullable(sums.map_err(|_| QueryError::SumTooLarge { column })?, Values::I64)
            }
            State::SumFloats(sums) | State::SumProduct(sums) => nullable(sums.into_options(), Values::F64),
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
                ColumnType::Bool => {
                    nullable(kept.into_options(), |v| Values::Bool(v.into_iter().map(|x| x != 0).collect()))
                }
                ColumnType::I32 => {
                    nullable(kept.into_options(), |v| Values::I32(v.into_iter().map(|x| x as i32).collect()))
                }
                ColumnType::Date => {
                    nullable(kept.into_options(), |v| Values::Date(v.into_iter().map(|x| x as i32).collect()))
                }
                ColumnType::Timestamp => nullable(kept.into_options(), Values::Timestamp),
                _ => nullable(kept.into_options(), Values::I64),
            },
            State::Floats(_, column_type, kept) => match column_type {
                ColumnType::F32 => {
                    nullable(kept.into_options(), |v| Values::F32(v.into_iter().map(|x| x as f32).collect()))
                }
                _ => nullable(kept.into_options(), Values::F64),
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
    /// Takes in the spread of other numbers (Chan, Golub and LeVeque 1979).
    fn merge(&mut self, other: Spread) {
        if self.n == 0 || other.n == 0 {
            *self = if self.n == 0 { other } else { *self };
            return;
        }
        let (mine, theirs) = (self.n as f64, other.n as f64);
        let distance = other.mean - self.mean;
        self.n += other.n;
        self.mean += distance * (theirs / (mine + theirs));
        self.squares += other.squares + distance * distance * (mine * theirs / (mine + theirs));
    }

    fn add(&mut self, value: f64) {
        self.n += 1;
        let distance = value - self.mean;
        self.mean += distance / self.n as f64;
        self.squares += distance * (value - self.mean);
    }
}

/// Calls something with the slot, the price and the size of each row that has both.
fn each_pair(prices: &Column, sizes: &Column, slots: &[u32], mut of: impl FnMut(usize, f64, f64)) {
    let slots = slots.iter().map(|slot| *slot as usize);
    match (prices.values(), sizes.values(), prices.validity(), sizes.validity()) {
        (Values::F64(prices), Values::I64(sizes), None, None) => {
            slots.zip(prices).zip(sizes).for_each(|((slot, price), size)| of(slot, *price, *size as f64));
        }
        (Values::F64(prices), Values::F64(sizes), None, None) => {
            slots.zip(prices).zip(sizes).for_each(|((slot, price), size)| of(slot, *price, *size));
        }
        _ => {
            for ((slot, price), size) in slots.zip(numbers(prices)).zip(numbers(sizes)) {
                if let (Some(price), Some(size)) = (price, size) {
                    of(slot, price, size);
                }
            }
        }
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
