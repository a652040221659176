use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use underbelly_query::{Aggregate, Every, Fill, Label, QueryError, Resample, WindowEnd};
use underbelly_storage::{Column, ColumnType, Columns, Date, Timestamp, Value};

use crate::latest::key;
use crate::model::{self, NAMES, Row, Rows, any_input};

#[derive(Clone, Debug)]
struct Options {
    width: u64,
    origin: i64,
    by: Vec<usize>,
    closed: WindowEnd,
    label: Label,
    fill: Fill,
    span: Option<(i64, i64)>,
    newest: Option<usize>,
}

prop_compose! {
    fn any_options()(
        width in prop_oneof![1u64..4, Just(1 << 61), Just(u64::MAX)],
        origin in prop_oneof![Just(0), -3i64..4, model::times()],
        by in prop::sample::subsequence(vec![0usize, 1], 0..3),
        closed in prop::sample::select(vec![WindowEnd::Left, WindowEnd::Right]),
        label in prop::sample::select(vec![Label::Left, Label::Right]),
        fill in prop::sample::select(vec![
            Fill::None, Fill::Null, Fill::Previous, Fill::Linear, Fill::Constant(Value::I64(7)),
        ]),
        span in prop::option::of((-9i64..9, 0i64..6)),
        newest in prop::option::of(prop_oneof![8 => 0usize..6, 1 => Just(usize::MAX)]),
    ) -> Options {
        let span = span.map(|(from, length)| (from, from + length));
        Options { width, origin, by, closed, label, fill, span, newest }
    }
}

/// What a column holds after its name: the aggregate of values that are not null.
type Reduce = fn(&[Value]) -> Value;

fn floats(values: &[Value]) -> Vec<f64> {
    values.iter().filter_map(Value::as_f64).collect()
}

fn sum(values: &[Value]) -> Value {
    match values.first() {
        None => Value::Null,
        Some(Value::I64(_)) => Value::I64(
            values.iter().map(|value| if let Value::I64(value) = value { *value } else { 0 }).sum(),
        ),
        Some(_) => floats(values).iter().sum::<f64>().into(),
    }
}

fn mean(values: &[Value]) -> Value {
    let values = floats(values);
    if values.is_empty() { Value::Null } else { (values.iter().sum::<f64>() / values.len() as f64).into() }
}

fn std(values: &[Value]) -> Value {
    let (values, mean) = (floats(values), mean(values).as_f64().unwrap_or(0.0));
    if values.len() < 2 {
        return Value::Null;
    }
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / (values.len() - 1) as f64).sqrt().into()
}

fn quantile(values: &[Value], quantile: f64) -> Value {
    let mut values = floats(values);
    if values.is_empty() {
        return Value::Null;
    }
    // NaN, if any, is the greatest.
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(a.is_nan().cmp(&b.is_nan())));
    let at = quantile * (values.len() - 1) as f64;
    let (low, high) = (values[at.floor() as usize], values[at.ceil() as usize]);
    (low + (high - low) * (at - at.floor())).into()
}

/// By size, NaN last, and by bytes.
fn order(a: &Value, b: &Value) -> std::cmp::Ordering {
    match (a, b) {
        (Value::F64(a), Value::F64(b)) => a.partial_cmp(b).unwrap_or(a.is_nan().cmp(&b.is_nan())),
        (Value::I64(a), Value::I64(b)) => a.cmp(b),
        (Value::Utf8(a), Value::Utf8(b)) => a.cmp(b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Date(a), Value::Date(b)) => a.cmp(b),
        _ => unreachable!("{a:?} and {b:?} are of one column"),
    }
}

fn or_null(value: Option<&Value>) -> Value {
    value.cloned().unwrap_or(Value::Null)
}

/// Aggregates of one column each, and what they should be.
pub fn of_columns() -> Vec<(Aggregate, usize, Reduce)> {
    let count: Reduce = |values| Value::I64(values.len() as i64);
    let mut all: Vec<(Aggregate, usize, Reduce)> = Vec::new();
    for (i, name) in NAMES.into_iter().enumerate() {
        all.push((Aggregate::count(name), i, count));
        all.push((Aggregate::first(name), i, |values| or_null(values.first())));
        all.push((Aggregate::last(name), i, |values| or_null(values.last())));
        all.push((Aggregate::min(name), i, |values| or_null(values.iter().min_by(|a, b| order(a, b)))));
        // Of equal ones, which zeros of two signs are, the first.
        all.push((Aggregate::max(name), i, |values| or_null(values.iter().rev().max_by(|a, b| order(a, b)))));
    }
    for i in [1, 2] {
        all.push((Aggregate::sum(NAMES[i]), i, sum));
        all.push((Aggregate::mean(NAMES[i]), i, mean));
        all.push((Aggregate::std(NAMES[i]), i, std));
        all.push((Aggregate::quantile(NAMES[i], 0.0), i, |values| quantile(values, 0.0)));
        all.push((Aggregate::quantile(NAMES[i], 0.3), i, |values| quantile(values, 0.3)));
        all.push((Aggregate::quantile(NAMES[i], 1.0), i, |values| quantile(values, 1.0)));
    }
    all
}

fn vwap(rows: &[&Row]) -> Value {
    let (mut products, mut sizes) = (0.0, 0.0);
    for row in rows {
        if let (Some(price), Some(size)) = (row.values[2].as_f64(), row.values[1].as_f64()) {
            products += price * size;
            sizes += size;
        }
    }
    if sizes == 0.0 { Value::Null } else { (products / sizes).into() }
}

fn turnover(rows: &[&Row]) -> Value {
    let product = |row: &&Row| Some(row.values[2].as_f64()? * row.values[1].as_f64()?);
    let products: Vec<f64> = rows.iter().filter_map(product).collect();
    if products.is_empty() { Value::Null } else { products.iter().sum::<f64>().into() }
}

/// The aggregates of the rows of one window: the number of rows and the counts apart from the others.
pub fn reduce(rows: &[&Row]) -> Vec<Value> {
    let mut values = vec![Value::I64(rows.len() as i64), vwap(rows), turnover(rows)];
    for (_, i, reduce) in of_columns() {
        let column: Vec<Value> =
            rows.iter().map(|row| row.values[i].clone()).filter(|value| *value != Value::Null).collect();
        values.push(reduce(&column));
    }
    values
}

/// Fills the nulls of one key's column.
fn fill(column: &mut [Value], times: &[i128], fill: &Fill) {
    let known: Vec<(usize, Value)> =
        column.iter().cloned().enumerate().filter(|(_, value)| *value != Value::Null).collect();
    for (row, value) in column.iter_mut().enumerate().filter(|(_, value)| **value == Value::Null) {
        let before = known.iter().rfind(|(at, _)| *at < row);
        let after = known.iter().find(|(at, _)| *at > row);
        match (fill, before, after) {
            (Fill::Previous, Some((_, before)), _) => *value = before.clone(),
            (Fill::Linear, Some((a, low)), Some((b, high))) => {
                let (at, whole) = (times[row] - times[*a], times[*b] - times[*a]);
                if let (Value::I64(x), Value::I64(y)) = (low, high) {
                    // Halves go to the later value.
                    let doubled = i128::from(y - x).abs() * at * 2 + whole;
                    let step = doubled.div_euclid(2 * whole) as i64;
                    *value = Value::I64(x + (y - x).signum() * step);
                } else if let (Some(x), Some(y)) = (low.as_f64(), high.as_f64()) {
                    let part = at as f64 / whole as f64;
                    *value = if x == y { x } else { x * (1.0 - part) + y * part }.into();
                }
            }
            _ => {}
        }
    }
}

/// The result; `None` where it has too many windows.
fn expected(rows: &[Row], options: &Options) -> Option<Vec<Vec<Value>>> {
    let index = |ts: i64| {
        let before = i128::from(options.closed == WindowEnd::Right);
        (i128::from(ts) - before - i128::from(options.origin)).div_euclid(i128::from(options.width))
    };
    let key_of = |row: &Row| {
        let (symbol, venue) = key(row);
        (symbol.filter(|_| options.by.contains(&0)), venue.filter(|_| options.by.contains(&1)))
    };
    let mut keys: BTreeMap<_, Vec<Value>> = BTreeMap::new();
    let mut windows: BTreeMap<i128, BTreeMap<_, Vec<&Row>>> = BTreeMap::new();
    for row in rows {
        keys.insert(key_of(row), options.by.iter().map(|i| row.values[*i].clone()).collect());
        windows.entry(index(row.ts)).or_default().entry(key_of(row)).or_default().push(row);
    }
    let mut indices: BTreeSet<i128> = windows.keys().copied().collect();
    if let Some((from, to)) = options.span.filter(|(from, to)| from < to) {
        indices.extend([index(from), index(to - 1)]);
        if options.by.is_empty() {
            keys.insert((None, None), Vec::new());
        }
    }
    let (Some(mut first), Some(last)) = (indices.first().copied(), indices.last().copied()) else {
        return Some(Vec::new());
    };
    if let Some(newest) = options.newest {
        let oldest_with_rows = || windows.keys().rev().take(newest).next_back().copied();
        let oldest = match options.fill {
            Fill::None => oldest_with_rows(),
            _ => newest
                .checked_sub(1)
                .map(|more| last.saturating_sub(i128::try_from(more).unwrap_or(i128::MAX))),
        };
        first = first.max(oldest.unwrap_or(i128::MAX));
        // As if there were nothing before.
        indices.retain(|index| *index >= first);
        windows.retain(|index, _| *index >= first);
        keys.retain(|key, _| options.by.is_empty() || windows.values().any(|keys| keys.contains_key(key)));
        if first > last {
            return Some(Vec::new());
        }
    }
    if options.fill != Fill::None {
        if (last - first + 1) as u128 * keys.len() as u128 > 100_000_000 {
            return None;
        }
        if !keys.is_empty() {
            indices.extend(first..=last);
        }
    }
    let label = |index: i128| {
        let end = i128::from(options.label == Label::Right);
        let at = i128::from(options.origin) + (index + end) * i128::from(options.width);
        at.clamp(i64::MIN.into(), i64::MAX.into())
    };
    let times: Vec<i128> = indices.iter().map(|index| label(*index)).collect();
    // By key, by column: a value for each window.
    let counts: Vec<bool> = [true, false, false]
        .into_iter()
        .chain(of_columns().iter().map(|(a, ..)| a.name().ends_with("_count")))
        .collect();
    let mut filled: BTreeMap<_, Vec<Vec<Value>>> = BTreeMap::new();
    for key in keys.keys() {
        let of_window =
            |index: &i128| windows.get(index).and_then(|keys| keys.get(key)).map_or(&[][..], |rows| rows);
        let reduced: Vec<Vec<Value>> = indices.iter().map(|index| reduce(of_window(index))).collect();
        let columns = counts.iter().enumerate().map(|(at, is_count)| {
            let mut column: Vec<Value> = reduced.iter().map(|values| values[at].clone()).collect();
            match &options.fill {
                _ if *is_count => {}
                Fill::Constant(_) => {}
                by => fill(&mut column, &times, by),
            }
            column
        });
        filled.insert(key.clone(), columns.collect());
    }
    let mut result = Vec::new();
    for (at, index) in indices.iter().enumerate() {
        for (key, values) in &keys {
            if options.fill == Fill::None && windows.get(index).is_none_or(|keys| !keys.contains_key(key)) {
                continue;
            }
            let mut row = vec![Value::Timestamp(Timestamp(times[at] as i64))];
            row.extend(values.iter().cloned());
            row.extend(filled[key].iter().map(|column| column[at].clone()));
            result.push(row);
        }
    }
    Some(result)
}

pub fn is_close(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::F64(a), Value::F64(b)) => {
            a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
        }
        _ => a == b,
    }
}

/// Prices of 3 become NaN, where rows are in memory.
pub fn with_nan(mut input: Rows) -> Rows {
    if let Rows::InMemory(rows) = &mut input {
        for row in rows.iter_mut().filter(|row| row.values[2] == Value::F64(3.0)) {
            row.values[2] = Value::F64(f64::NAN);
        }
    }
    input
}

fn resample<'a>(rows: underbelly_query::TimedRows<'a>, options: &Options) -> Resample<'a> {
    let every = Every::of(Duration::from_nanos(options.width)).origin(Timestamp(options.origin));
    let mut resample = Resample::new(rows, every)
        .closed(options.closed)
        .label(options.label)
        .fill(options.fill.clone())
        .aggregates([
            Aggregate::rows(),
            Aggregate::vwap("price", "venue"),
            Aggregate::turnover("price", "venue"),
        ])
        .aggregates(of_columns().into_iter().map(|(aggregate, ..)| aggregate));
    for key in &options.by {
        resample = resample.by(NAMES[*key]);
    }
    if let Some((from, to)) = options.span {
        resample = resample.span(Timestamp(from), Timestamp(to));
    }
    options.newest.into_iter().fold(resample, Resample::newest)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn windows_hold_what_looking_at_all_rows_finds(input in any_input(), options in any_options()) {
        let input = with_nan(input);
        let source = input.source();
        // A constant does not fit every column.
        let options = match options.fill {
            Fill::Constant(_) => Options { fill: Fill::Null, ..options },
            _ => options,
        };
        let result = resample(input.rows(&source), &options).collect();
        let Some(expected) = expected(&input.in_order(), &options) else {
            let too_many = matches!(result, Err(QueryError::TooManyWindows { .. }));
            prop_assert!(too_many, "{:?}", result);
            return Ok(());
        };
        let found = model::listed(&result.unwrap());
        prop_assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            let same = found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| is_close(a, b));
            prop_assert!(same, "{:?}\n{:?}", found, expected);
        }
    }
}

fn at(times: Vec<Timestamp>) -> Columns {
    Columns::new().with("timestamp", Column::from(times)).unwrap()
}

fn seconds(times: &[i64]) -> Vec<Timestamp> {
    times.iter().map(|second| Timestamp(second * 1_000_000_000)).collect()
}

#[test]
fn days_of_a_time_zone_follow_its_clocks() {
    // 2014-03-09 had 23 hours in New York; a row each hour, UTC.
    let start = 1_394_254_800; // 2014-03-08T05:00:00Z, midnight
    let hours: Vec<i64> = (0..71).map(|hour| start + hour * 3_600).collect();
    let rows = at(seconds(&hours));
    let day = Every::days(1).zone("America/New_York").unwrap();
    let days = Resample::new(rows.clone(), day.clone()).aggregate(Aggregate::rows()).collect().unwrap();
    assert_eq!(days.i64s("rows").unwrap(), [24, 23, 24]);
    assert_eq!(days.timestamps("timestamp").unwrap()[2], (start + 47 * 3_600) * 1_000_000_000);
    let days = Resample::new(rows.clone(), Every::days(1)).aggregate(Aggregate::rows()).collect().unwrap();
    assert_eq!(days.i64s("rows").unwrap(), [19, 24, 24, 4]);
    // The row of midnight belongs to the day before.
    let days =
        Resample::new(rows, day).closed(WindowEnd::Right).label(Label::Right).aggregate(Aggregate::rows());
    let days = days.collect().unwrap();
    assert_eq!(days.i64s("rows").unwrap(), [1, 24, 23, 23]);
    assert_eq!(days.timestamps("timestamp").unwrap()[0], start * 1_000_000_000);
}

#[test]
fn the_newest_windows_are_counted_from_the_end() {
    // Minutes 0, 1, 5 and 9.
    let rows = at(seconds(&[0, 60, 61, 300, 540, 550]));
    let minutes = |fill: Fill, n: usize| {
        let minutes = Resample::new(rows.clone(), Every::minutes(1)).fill(fill).newest(n);
        let minutes =
            minutes.aggregates([Aggregate::rows(), Aggregate::last("timestamp")]).collect().unwrap();
        let starts = minutes.timestamps("timestamp").unwrap().iter();
        let starts: Vec<i64> = starts.map(|ts| ts / 60_000_000_000).collect();
        (starts, minutes.i64s("rows").unwrap().to_vec())
    };
    assert_eq!(minutes(Fill::None, 3), (vec![1, 5, 9], vec![2, 1, 2]));
    assert_eq!(minutes(Fill::Null, 3), (vec![7, 8, 9], vec![0, 0, 2]));
    assert_eq!(minutes(Fill::Null, 50), ((0..10).collect(), vec![1, 2, 0, 0, 0, 1, 0, 0, 0, 2]));
    assert_eq!(minutes(Fill::None, 0), (Vec::new(), Vec::new()));
    // Days are as long as clocks make them: the last of these has 24 hours, the one before 23.
    let hours: Vec<i64> = (0..71).map(|hour| 1_394_254_800 + hour * 3_600).collect();
    let days = Resample::new(at(seconds(&hours)), Every::days(1).zone("America/New_York").unwrap());
    let days = days.newest(2).aggregate(Aggregate::rows()).collect().unwrap();
    assert_eq!(days.i64s("rows").unwrap(), [23, 24]);
}

#[test]
fn constants_fill_what_they_fit() {
    let rows = at(seconds(&[0, 120])).with("price", Column::from(vec![1.5, 2.5])).unwrap();
    let rows = rows
        .with("size", Column::from(vec![1i32, 2]))
        .unwrap()
        .with("day", Column::from(vec![Date(1), Date(2)]))
        .unwrap();
    let minutes = Resample::new(rows, Every::minutes(1)).fill(Fill::Constant(Value::I64(-1)));
    let filled = minutes.clone().aggregates([
        Aggregate::first("price"),
        Aggregate::max("size"),
        Aggregate::count("size"),
    ]);
    let filled = filled.collect().unwrap();
    assert_eq!(filled.row(1)[1..], [Value::F64(-1.0), Value::I32(-1), Value::I64(0)]);
    let refused = minutes.aggregate(Aggregate::first("day")).collect().unwrap_err();
    assert!(refused.to_string().contains(r#"column "day_first" holds date, not i64"#), "{refused}");
}

#[test]
fn what_cannot_be_computed_is_refused() {
    let rows = at(seconds(&[0, 1])).with("size", Column::from(vec![i64::MAX, 1])).unwrap();
    let rows = rows.with("name", Column::from_iter(["a", "b"])).unwrap();
    let minute = |aggregate| Resample::new(rows.clone(), Every::minutes(1)).aggregate(aggregate).collect();
    let texts = [
        (Aggregate::sum("name"), r#"a sum needs numbers, but column "name" holds utf8"#),
        (Aggregate::vwap("size", "name"), r#"a weighted mean needs numbers, but column "name" holds utf8"#),
        (Aggregate::quantile("size", f64::NAN), "a quantile lies between 0 and 1, not at NaN"),
        (Aggregate::quantile("size", 1.01), "a quantile lies between 0 and 1, not at 1.01"),
        (Aggregate::min("nam"), r#"there is no column "nam"; the columns are: timestamp, size, name"#),
        (
            Aggregate::sum("size"),
            r#"the sum of column "size" passes the range of i64; sum shorter windows or fewer groups"#,
        ),
    ];
    for (aggregate, text) in texts {
        assert_eq!(minute(aggregate).unwrap_err().to_string(), text);
    }
    let twice =
        Resample::new(rows.clone(), Every::minutes(1)).aggregates([Aggregate::rows(), Aggregate::rows()]);
    assert!(matches!(twice.collect(), Err(QueryError::Columns(_))));
    let never = Resample::new(rows.clone(), Every::of(Duration::ZERO)).collect();
    assert!(matches!(never, Err(QueryError::EmptyWindow)));
    let backwards = Resample::new(rows, Every::minutes(1)).span(Timestamp(2), Timestamp(1)).collect();
    assert!(matches!(backwards, Err(QueryError::BadRange { .. })));
}

#[test]
fn exact_sums_pass_through_what_an_i64_does_not_hold() {
    let rows = at(seconds(&[0, 1, 2])).with("size", Column::from(vec![i64::MAX, 1, -2])).unwrap();
    let sums =
        Resample::new(rows, Every::minutes(1)).aggregates([Aggregate::sum("size"), Aggregate::mean("size")]);
    let sums = sums.collect().unwrap();
    assert_eq!(sums.row(0)[1..], [Value::I64(i64::MAX - 1), Value::F64((i64::MAX - 1) as f64 / 3.0)]);
    assert_eq!(sums.column("size_sum").unwrap().column_type(), ColumnType::I64);
}
