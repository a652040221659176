//! The fifteen queries of the Time Series Benchmark Suite as operators; each answer is compared with one that looks at all rows.

use std::collections::BTreeMap;

use underbelly::{Columns, Series, Timestamp, Value};
use underbelly_benches::tsbs::{
    Asked, BEGIN, Cpu, Dice, FIELDS, HIGH, HOUR, MINUTE, QUERIES, Query, SERIES, host,
};
use underbelly_tests::in_memory;

const HOSTS: usize = 20;
const HOURS: usize = 13;

/// The same in a database: some hours sealed, the last ones young, some of them late.
fn store(cpu: &Cpu) -> Series {
    let (_disk, db) = in_memory().unwrap();
    let readings: Vec<usize> = (0..cpu.readings()).collect();
    for (part, readings) in readings.chunks(1_000).enumerate() {
        let (late, timely): (Vec<usize>, Vec<usize>) = readings.iter().partition(|at| *at % 97 == 5);
        db.commit(cpu.batch(&timely).unwrap()).unwrap();
        db.commit(cpu.batch(&late).unwrap()).unwrap();
        if part < 4 {
            db.checkpoint().unwrap();
        }
    }
    db.snapshot().series(SERIES).unwrap()
}

fn lines(rows: &Columns) -> Vec<Vec<Value>> {
    (0..rows.rows()).map(|row| rows.row(row)).collect()
}

/// Rows that are asked about.
fn rows<'a>(cpu: &'a Cpu, asked: &'a Asked) -> impl Iterator<Item = (i64, usize, [f64; 10])> + 'a {
    let rows = cpu.rows().filter(move |(at, host, _)| {
        (asked.from..asked.to).contains(at) && (asked.hosts.is_empty() || asked.hosts.contains(host))
    });
    rows.map(|(at, host, figures)| (at, host, figures.map(f64::from)))
}

/// Time, tags and figures of a row.
fn whole(cpu: &Cpu, (at, host, figures): (i64, usize, [f64; 10])) -> Vec<Value> {
    let tags = cpu.tags[host].iter().map(|tag| Value::from(tag.as_str()));
    std::iter::once(Timestamp(at).into()).chain(tags).chain(figures.map(Value::from)).collect()
}

/// The largest figures in each window of `width`.
fn largest(cpu: &Cpu, asked: &Asked, width: i64, fields: usize) -> Vec<Vec<Value>> {
    let mut found: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
    for (at, _, figures) in rows(cpu, asked) {
        let largest = found.entry(at - at.rem_euclid(width)).or_insert_with(|| vec![f64::MIN; fields]);
        largest.iter_mut().zip(figures).for_each(|(largest, figure)| *largest = largest.max(figure));
    }
    let line = |(at, largest): (i64, Vec<f64>)| {
        std::iter::once(Timestamp(at).into()).chain(largest.into_iter().map(Value::from)).collect()
    };
    found.into_iter().map(line).collect()
}

/// The means of each host and hour, in this order.
fn means(cpu: &Cpu, asked: &Asked, fields: usize) -> Vec<Vec<Value>> {
    let mut found: BTreeMap<(String, i64), (Vec<f64>, f64)> = BTreeMap::new();
    for (at, number, figures) in rows(cpu, asked) {
        let key = (host(number), at - at.rem_euclid(HOUR));
        let (sums, count) = found.entry(key).or_insert_with(|| (vec![0.0; fields], 0.0));
        sums.iter_mut().zip(figures).for_each(|(sum, figure)| *sum += figure);
        *count += 1.0;
    }
    // Whole numbers add up exactly, in any order.
    let line = |((host, at), (sums, count)): ((String, i64), (Vec<f64>, f64))| {
        let key = [Timestamp(at).into(), host.into()];
        key.into_iter().chain(sums.into_iter().map(|sum| Value::from(sum / count))).collect()
    };
    found.into_iter().map(line).collect()
}

fn expected(cpu: &Cpu, query: Query, asked: &Asked) -> Vec<Vec<Value>> {
    match query {
        Query::SingleGroupBy { fields, .. } => largest(cpu, asked, MINUTE, fields),
        Query::CpuMaxAll { .. } => largest(cpu, asked, HOUR, 10),
        Query::DoubleGroupBy { fields } => means(cpu, asked, fields),
        Query::HighCpu { .. } => {
            rows(cpu, asked).filter(|(.., figures)| figures[0] > HIGH).map(|row| whole(cpu, row)).collect()
        }
        Query::LastPoint => {
            let all = Asked { hosts: Vec::new(), from: i64::MIN, to: i64::MAX };
            let newest: BTreeMap<String, Vec<Value>> =
                rows(cpu, &all).map(|row| (host(row.1), whole(cpu, row))).collect();
            newest.into_values().collect()
        }
        Query::GroupByOrderByLimit => {
            let all = Asked { from: i64::MIN, ..asked.clone() };
            largest(cpu, &all, MINUTE, 1).into_iter().rev().take(5).collect()
        }
    }
}

#[test]
fn the_fifteen_queries_find_what_looking_at_all_rows_finds() {
    let cpu = Cpu::new(HOSTS, HOURS, 123);
    let series = store(&cpu);
    assert_eq!(series.count().unwrap(), (HOSTS * HOURS * 360) as u64);
    let mut dice = Dice::new(7);
    for (name, query) in QUERIES {
        let mut rows = 0;
        for _ in 0..3 {
            let asked = query.asked(&cpu, &mut dice);
            let mut found = lines(&query.answer(&series, &asked).unwrap());
            match query {
                // These promise no order.
                Query::DoubleGroupBy { .. } => found.sort_by_key(|line| {
                    let Value::Timestamp(at) = line[0] else { panic!("{line:?}") };
                    (line[1].as_str().unwrap().to_string(), at.0)
                }),
                Query::LastPoint => found.sort_by_key(|line| line[1].as_str().unwrap().to_string()),
                _ => {}
            }
            let expected = expected(&cpu, query, &asked);
            assert_eq!(found.len(), expected.len(), "{name} {asked:?}");
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(found, expected, "{name} {asked:?}");
            }
            rows += found.len();
        }
        assert!(rows > 0, "{name} was never asked about rows");
    }
}

#[test]
fn the_newest_minutes_are_found_however_far_they_lie_apart() {
    let cpu = Cpu::new(2, 4, 5);
    let (_disk, db) = in_memory().unwrap();
    // Readings of three minutes only, an hour apart, and of one more before.
    let readings = [0, 360, 361, 720, 1_080];
    db.commit(cpu.batch(&readings).unwrap()).unwrap();
    let series = db.snapshot().series(SERIES).unwrap();
    let minutes = |to| {
        let asked = Asked { hosts: Vec::new(), from: to - HOUR, to };
        let found = Query::GroupByOrderByLimit.answer(&series, &asked).unwrap();
        assert!(found.f64s(&format!("{}_max", FIELDS[0])).is_some(), "{:?}", found.names());
        found.timestamps("timestamp").unwrap().iter().map(|at| (at - BEGIN) / MINUTE).collect::<Vec<i64>>()
    };
    assert_eq!(minutes(BEGIN + 4 * HOUR), [180, 120, 60, 0]);
    assert_eq!(minutes(BEGIN + 2 * HOUR), [60, 0]);
    assert_eq!(minutes(BEGIN), [0; 0]);
}
