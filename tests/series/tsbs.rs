//! The Time Series Benchmark Suite's data set `cpu-only`, from a generator of our own, and its fifteen queries as operators; each
//! answer is compared with one that looks at all rows.
//!
//! <https://github.com/timescale/tsbs>: readings every ten seconds of ten figures of each host, which walk at random between 0 and 100.

use std::collections::BTreeMap;

use underbelly::{
    Aggregate, Batch, Column, Columns, Database, Every, Fill, Predicate, Resample, Series, TimedRows,
    Timestamp, Value,
};
use underbelly_tests::in_memory;

const FIELDS: [&str; 10] = [
    "usage_user",
    "usage_system",
    "usage_idle",
    "usage_nice",
    "usage_iowait",
    "usage_irq",
    "usage_softirq",
    "usage_steal",
    "usage_guest",
    "usage_guest_nice",
];
const HOSTS: usize = 20;
/// Readings of each host: fourteen hours.
const READINGS: usize = 14 * 360;
const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
/// 2016-01-01, where the suite begins.
const START: i64 = 1_451_606_400 * SECOND;

/// All readings, in order of time, then of host.
struct Data {
    /// For each reading, for each host, its figures.
    readings: Vec<Vec<[f64; 10]>>,
}

/// A number from 0 to 1 that follows from the one before (splitmix64).
fn next(seed: &mut u64) -> f64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *seed;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

fn generate(mut seed: u64) -> Data {
    let mut figures: Vec<[f64; 10]> =
        (0..HOSTS).map(|_| std::array::from_fn(|_| (next(&mut seed) * 100.0).round())).collect();
    let mut readings = Vec::with_capacity(READINGS);
    for _ in 0..READINGS {
        readings.push(figures.clone());
        for figure in figures.iter_mut().flatten() {
            // Steps of a normal distribution, about: the sum of three even ones.
            let step = next(&mut seed) + next(&mut seed) + next(&mut seed) - 1.5;
            *figure = (*figure + (step * 2.0).round()).clamp(0.0, 100.0);
        }
    }
    Data { readings }
}

fn host(number: usize) -> String {
    format!("host_{number}")
}

impl Data {
    /// Time, host and figures of the readings from `from` on and before `to`.
    fn rows(&self, from: i64, to: i64) -> impl Iterator<Item = (i64, usize, &[f64; 10])> {
        let rows = self.readings.iter().enumerate().flat_map(|(at, hosts)| {
            hosts
                .iter()
                .enumerate()
                .map(move |(host, figures)| (START + at as i64 * 10 * SECOND, host, figures))
        });
        rows.filter(move |(at, ..)| (from..to).contains(at))
    }

    /// The same in a database: some hours sealed, the last ones young, some of them late.
    fn store(&self) -> Series {
        let (_disk, db) = in_memory().unwrap();
        for (part, chunk) in self.readings.chunks(1_000).enumerate() {
            let base = START + part as i64 * 10_000 * SECOND;
            let (late, timely): (Vec<usize>, Vec<usize>) = (0..chunk.len()).partition(|at| at % 97 == 5);
            append(&db, base, chunk, &timely);
            append(&db, base, chunk, &late);
            if part < 4 {
                db.checkpoint().unwrap();
            }
        }
        db.snapshot().series("cpu").unwrap()
    }
}

fn append(db: &Database, base: i64, readings: &[Vec<[f64; 10]>], which: &[usize]) {
    let rows =
        || which.iter().flat_map(|at| readings[*at].iter().enumerate().map(move |(host, f)| (*at, host, f)));
    let times = rows().map(|(at, ..)| Timestamp(base + at as i64 * 10 * SECOND)).collect();
    let hosts = rows().map(|(_, number, _)| host(number));
    let mut columns = Columns::new().with("hostname", Column::from_iter(hosts)).unwrap();
    for (field, name) in FIELDS.iter().enumerate() {
        let figures: Vec<f64> = rows().map(|(.., figures)| figures[field]).collect();
        columns.insert(*name, figures.into()).unwrap();
    }
    let mut batch = Batch::new();
    batch.append_columns("cpu", times, columns, &["hostname"]).unwrap();
    db.commit(batch).unwrap();
}

/// Rows of some hosts.
fn of_hosts<'a>(series: &'a Series, hosts: &[usize], from: i64, to: i64, fields: &[&str]) -> TimedRows<'a> {
    let scan = |number: usize| {
        let scan = series.scan().from(Timestamp(from)).to(Timestamp(to)).columns(fields);
        scan.key("hostname", host(number))
    };
    if let [one] = hosts {
        return scan(*one).into();
    }
    let mut rows: Option<Vec<_>> = None;
    for found in hosts.iter().map(|number| scan(*number).collect().unwrap()) {
        match &mut rows {
            None => rows = Some(found.into_columns()),
            Some(rows) => {
                for ((_, column), (_, more)) in rows.iter_mut().zip(found.iter()) {
                    column.extend_range(more, 0..more.len()).unwrap();
                }
            }
        }
    }
    let mut columns = Columns::new();
    rows.unwrap().into_iter().for_each(|(name, column)| columns.insert(name, column).unwrap());
    columns.into()
}

fn lines(rows: &Columns) -> Vec<Vec<Value>> {
    (0..rows.rows()).map(|row| rows.row(row)).collect()
}

/// The largest figures in each window of `width`.
fn largest(data: &Data, hosts: &[usize], from: i64, to: i64, width: i64, fields: usize) -> Vec<Vec<Value>> {
    let mut found: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
    for (at, _, figures) in data.rows(from, to).filter(|(_, host, _)| hosts.contains(host)) {
        let largest = found.entry(at - at.rem_euclid(width)).or_insert_with(|| vec![f64::MIN; fields]);
        largest.iter_mut().zip(figures).for_each(|(largest, figure)| *largest = largest.max(*figure));
    }
    let line = |(at, largest): (i64, Vec<f64>)| {
        std::iter::once(Timestamp(at).into()).chain(largest.into_iter().map(Value::from)).collect()
    };
    found.into_iter().map(line).collect()
}

fn maxima(rows: TimedRows<'_>, every: Every, fields: &[&str]) -> Columns {
    let resample = Resample::new(rows, every).fill(Fill::None);
    resample.aggregates(fields.iter().map(|name| Aggregate::max(name))).collect().unwrap()
}

#[test]
fn the_fifteen_queries_find_what_looking_at_all_rows_finds() {
    let data = generate(123);
    let series = data.store();
    assert_eq!(series.count().unwrap(), (HOSTS * READINGS) as u64);
    let mut queries = 0;
    let eight: Vec<usize> = (0..8).map(|at| (at * 7 + 3) % HOSTS).collect();

    // single-groupby-METRICS-HOSTS-HOURS: the largest figures of each minute.
    for (fields, hosts, hours) in [(1, 1, 1), (1, 1, 12), (1, 8, 1), (5, 1, 1), (5, 1, 12), (5, 8, 1)] {
        let (from, hosts) = (START + 37 * MINUTE + 20 * SECOND, &eight[..hosts]);
        let to = from + hours * HOUR;
        let names = &FIELDS[..fields];
        let found = maxima(of_hosts(&series, hosts, from, to, names), Every::minutes(1), names);
        let expected = largest(&data, hosts, from, to, MINUTE, fields);
        assert_eq!(lines(&found), expected, "single-groupby-{fields}-{}-{hours}", hosts.len());
        queries += 1;
    }
    // cpu-max-all-HOSTS: the largest of all figures of each hour, over eight hours.
    for hosts in [&eight[..1], &eight[..]] {
        let (from, to) = (START + 2 * HOUR, START + 10 * HOUR);
        let found = maxima(of_hosts(&series, hosts, from, to, &FIELDS), Every::hours(1), &FIELDS);
        assert_eq!(lines(&found), largest(&data, hosts, from, to, HOUR, 10), "cpu-max-all-{}", hosts.len());
        queries += 1;
    }
    // double-groupby-METRICS: the means of each hour and host, over twelve hours.
    for fields in [1, 5, 10] {
        let (from, to) = (START + HOUR + 10 * SECOND, START + 13 * HOUR + 10 * SECOND);
        let names = &FIELDS[..fields];
        let scan = series.scan().from(Timestamp(from)).to(Timestamp(to));
        let hours = scan.resample(Every::hours(1)).by("hostname").fill(Fill::None);
        let found = hours.aggregates(names.iter().map(|name| Aggregate::mean(name))).collect().unwrap();
        let mut expected: BTreeMap<(i64, String), (Vec<f64>, f64)> = BTreeMap::new();
        for (at, number, figures) in data.rows(from, to) {
            let key = (at - at.rem_euclid(HOUR), host(number));
            let (sums, count) = expected.entry(key).or_insert_with(|| (vec![0.0; fields], 0.0));
            sums.iter_mut().zip(figures).for_each(|(sum, figure)| *sum += figure);
            *count += 1.0;
        }
        let mut by_key = BTreeMap::new();
        for line in lines(&found) {
            let (Value::Timestamp(at), Some(name)) = (&line[0], line[1].as_str()) else { panic!("{line:?}") };
            by_key.insert((at.0, name.to_string()), line[2..].to_vec());
        }
        // Whole numbers add up exactly, in any order.
        let means =
            |(sums, count): (Vec<f64>, f64)| sums.into_iter().map(|sum| Value::from(sum / count)).collect();
        let expected: BTreeMap<_, Vec<Value>> =
            expected.into_iter().map(|(key, sums)| (key, means(sums))).collect();
        assert_eq!(found.rows(), by_key.len());
        assert_eq!(by_key, expected, "double-groupby-{fields}");
        queries += 1;
    }
    // high-cpu-all and high-cpu-1: readings above 90, over twelve hours.
    for only in [None, Some(eight[1])] {
        let (from, to) = (START + 90 * MINUTE, START + 13 * HOUR + 30 * MINUTE);
        let scan = series.scan().from(Timestamp(from)).to(Timestamp(to));
        let scan = scan.filter("usage_user", Predicate::Above(90.0.into()));
        let found =
            only.into_iter().fold(scan, |scan, only| scan.key("hostname", host(only))).collect().unwrap();
        let is_high = |(_, number, figures): &(i64, usize, &[f64; 10])| {
            figures[0] > 90.0 && only.is_none_or(|only| only == *number)
        };
        let line = |(at, number, figures): (i64, usize, &[f64; 10])| {
            let key = [Timestamp(at).into(), host(number).into()];
            key.into_iter().chain(figures.map(Value::from)).collect::<Vec<Value>>()
        };
        let expected: Vec<_> = data.rows(from, to).filter(is_high).map(line).collect();
        assert!(only.is_some() || !expected.is_empty());
        assert_eq!(lines(&found), expected, "high-cpu");
        queries += 1;
    }
    // lastpoint: the newest reading of each host.
    let found = series.last_points().unwrap();
    let mut expected: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (at, number, figures) in data.rows(i64::MIN, i64::MAX) {
        let key = [Timestamp(at).into(), host(number).into()];
        expected.insert(host(number), key.into_iter().chain(figures.map(Value::from)).collect());
    }
    assert_eq!(lines(&found), expected.into_values().collect::<Vec<_>>(), "lastpoint");
    queries += 1;
    // groupby-orderby-limit: the largest reading of each of the five newest minutes before an instant.
    let end = START + 11 * HOUR + 23 * MINUTE + 30 * SECOND;
    let start_of_minute = end - end.rem_euclid(MINUTE);
    let from = start_of_minute - 4 * MINUTE;
    let scan = series.scan().from(Timestamp(from)).to(Timestamp(end)).columns(["usage_user"]);
    let mut found = lines(&maxima(scan.into(), Every::minutes(1), &["usage_user"]));
    found.reverse();
    let all: Vec<usize> = (0..HOSTS).collect();
    let mut expected = largest(&data, &all, START, end, MINUTE, 1);
    expected.reverse();
    expected.truncate(5);
    assert_eq!(found, expected, "groupby-orderby-limit");
    queries += 1;
    assert_eq!(queries, 15);
}
