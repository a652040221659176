//! Real recordings: weather with nulls over a year of New York's clocks, sensors with repeated and late rows, quotes of one pair of
//! currencies from two venues.
//!
//! The files are found through `UNDERBELLY_DATA`, or in `../shared/data` beside the repository; without them the tests
//! say that they skip.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use flate2::read::GzDecoder;
use underbelly::{Aggregate, Batch, Column, ColumnType, Columns, Database, Every, Timestamp, Value};
use underbelly_tests::in_memory;

/// The fields of each line of a file behind its header; `None` without the file.
fn lines(name: &str) -> Option<Vec<Vec<String>>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let data = std::env::var_os("UNDERBELLY_DATA").map_or_else(|| root.join("../shared/data"), PathBuf::from);
    let path = data.join(name);
    let Ok(file) = File::open(&path) else {
        // Past the test harness, which keeps the output of tests that pass.
        let remedy = "set UNDERBELLY_DATA to the folder with the sample data";
        let _ = writeln!(std::io::stderr(), "SKIPPED: no {}; {remedy}", path.display());
        return None;
    };
    let zipped = name.ends_with(".gz");
    let input: Box<dyn Read> = if zipped { Box::new(GzDecoder::new(file)) } else { Box::new(file) };
    let lines = BufReader::new(input).lines().skip(1);
    Some(lines.map(|line| line.unwrap().split(',').map(str::to_string).collect()).collect())
}

/// Seconds since 1970 of `2013-01-01T06:00:00Z`, and of the same with a blank and without a zone.
fn instant(text: &str) -> i64 {
    let date = underbelly::Date::parse(&text[..10]).unwrap();
    let part = |at: usize| text[at..at + 2].parse::<i64>().unwrap();
    (i64::from(date.0) * 86_400 + part(11) * 3_600 + part(14) * 60 + part(17)) * 1_000_000_000
}

/// Commits rows in parts, each of which is sealed but the last.
fn store(db: &Database, series: &str, times: &[i64], rows: &Columns, keys: &[&str], part: usize) {
    for start in (0..times.len()).step_by(part) {
        let end = times.len().min(start + part);
        let mut batch = Batch::new();
        let times = times[start..end].iter().copied().map(Timestamp).collect();
        batch.append_columns(series, times, rows.slice(start..end), keys).unwrap();
        db.commit(batch).unwrap();
        if end < rows.rows() {
            db.checkpoint().unwrap();
        }
    }
}

/// Numbers, where `NA` is null.
fn numbers(rows: &[Vec<String>], at: usize) -> Column {
    let mut column = Column::new(ColumnType::F64);
    for row in rows {
        let value = if row[at] == "NA" { Value::Null } else { row[at].parse::<f64>().unwrap().into() };
        column.push(&value).unwrap();
    }
    column
}

#[test]
fn days_of_weather_are_those_of_its_place() {
    let Some(rows) = lines("weather_hourly/weather.csv") else { return };
    assert_eq!(rows.len(), 26_115);
    let times: Vec<i64> = rows.iter().map(|row| instant(&row[14])).collect();
    let mut columns =
        Columns::new().with("origin", Column::from_iter(rows.iter().map(|row| &row[0]))).unwrap();
    for (name, at) in [("temp", 5), ("wind_gust", 10), ("pressure", 12)] {
        columns.insert(name, numbers(&rows, at)).unwrap();
    }
    let (_disk, db) = in_memory().unwrap();
    store(&db, "weather", &times, &columns, &["origin"], 10_000);
    let series = db.snapshot().series("weather").unwrap();
    let nulls = |name: &str| series.scan().filter(name, underbelly::Predicate::IsNull).count().unwrap();
    assert_eq!((nulls("wind_gust"), nulls("pressure"), nulls("temp")), (20_778, 2_729, 1));

    let day = Every::days(1).zone("America/New_York").unwrap();
    let days = series
        .scan()
        .resample(day)
        .by("origin")
        .aggregates([Aggregate::rows(), Aggregate::mean("temp"), Aggregate::count("wind_gust")])
        .fill(underbelly::Fill::None)
        .collect()
        .unwrap();
    // The file has its own days, as people there count them.
    let mut expected: BTreeMap<(String, String), (i64, Vec<f64>, i64)> = BTreeMap::new();
    for row in &rows {
        let date = format!("{}-{:0>2}-{:0>2}", row[1], row[2], row[3]);
        let (hours, temps, gusts) = expected.entry((date, row[0].clone())).or_default();
        *hours += 1;
        temps.extend(row[5].parse::<f64>().ok());
        *gusts += i64::from(row[10] != "NA");
    }
    assert_eq!(days.rows(), expected.len());
    let mut lengths = BTreeMap::new();
    for row in 0..days.rows() {
        let at = days.timestamps("timestamp").unwrap()[row];
        // Midnight in New York is at five or, in summer, at four.
        let midnight = Timestamp(at).to_string();
        assert!(midnight.ends_with("T05:00:00Z") || midnight.ends_with("T04:00:00Z"), "{midnight}");
        let origin = days.column("origin").unwrap().str_at(row).unwrap().to_string();
        let (hours, temps, gusts) = &expected[&(midnight[..10].to_string(), origin)];
        assert_eq!(days.value("rows", row), Some(Value::I64(*hours)), "{midnight}");
        assert_eq!(days.value("wind_gust_count", row), Some(Value::I64(*gusts)), "{midnight}");
        let mean = temps.iter().sum::<f64>() / temps.len() as f64;
        let found = days.f64s("temp_mean").unwrap()[row];
        assert!((found - mean).abs() < 1e-9 * mean.abs().max(1.0), "{midnight}: {found} for {mean}");
        *lengths.entry((midnight[5..10].to_string(), *hours)).or_insert(0) += 1;
    }
    assert!(lengths.contains_key(&("03-10".to_string(), 23)), "clocks were set forward on 10 March");
    assert!(lengths.keys().all(|(day, hours)| *hours <= if day == "11-03" { 25 } else { 24 }));
}

#[test]
fn sensors_repeat_themselves_and_come_late() {
    let Some(rows) = lines("sensors_nab/series_long.csv.gz") else { return };
    assert_eq!(rows.len(), 321_206);
    let times: Vec<i64> = rows.iter().map(|row| instant(&row[1])).collect();
    let columns = Columns::new().with("sensor", Column::from_iter(rows.iter().map(|row| &row[0]))).unwrap();
    let columns = columns.with("value", numbers(&rows, 2)).unwrap();
    let (_disk, db) = in_memory().unwrap();
    store(&db, "sensor", &times, &columns, &["sensor"], 50_000);
    let series = db.snapshot().series("sensor").unwrap();

    let mut by_sensor: BTreeMap<&str, Vec<(i64, f64)>> = BTreeMap::new();
    let (mut repeated, mut late) = (0, 0);
    for row in &rows {
        let of_sensor = by_sensor.entry(&row[0]).or_default();
        let (at, value) = (instant(&row[1]), row[2].parse().unwrap());
        if let Some((before, _)) = of_sensor.last() {
            repeated += usize::from(*before == at);
            late += usize::from(*before > at);
        }
        of_sensor.push((at, value));
    }
    assert_eq!((by_sensor.len(), repeated, late), (47, 37, 1));
    let last = series.last_points().unwrap();
    for (place, (sensor, mut expected)) in by_sensor.into_iter().enumerate() {
        // In order of time, and of arrival where times are equal.
        expected.sort_by_key(|(at, _)| *at);
        let found = series.scan().key("sensor", sensor).collect().unwrap();
        let (at, values) = (found.timestamps("timestamp").unwrap(), found.f64s("value").unwrap());
        let found: Vec<(i64, f64)> = at.iter().copied().zip(values.iter().copied()).collect();
        assert_eq!(found, expected, "{sensor}");
        let (newest, value) = expected[expected.len() - 1];
        let point = series.last_point(&[("sensor", sensor.into())]).unwrap().unwrap();
        assert_eq!(point.row(0), [Value::Timestamp(Timestamp(newest)), sensor.into(), value.into()]);
        assert_eq!(last.row(place), point.row(0));
    }
    // The late row stands where its time is, between its neighbours.
    let key = "realKnownCause/machine_temperature_system_failure";
    let from = Timestamp(instant("2014-01-07 01:55:00"));
    let around = series.scan().key("sensor", key).from(from).to(Timestamp(from.0 + 660_000_000_000)).count();
    assert_eq!(around.unwrap(), 5, "01:55, and 02:00 and 02:05 twice");
}

#[test]
fn two_venues_quote_the_same_price() {
    let venue = |venue: &str| {
        let mut rows = lines(&format!("fx_ticks/{venue}_eurusd_20140507_quotes.csv.gz"))?;
        rows.extend(lines(&format!("fx_ticks/{venue}_eurusd_20140508_quotes.csv.gz"))?);
        let times: Vec<i64> = rows.iter().map(|row| row[0].parse().unwrap()).collect();
        let mids =
            rows.iter().map(|row| (row[2].parse::<f64>().unwrap() + row[3].parse::<f64>().unwrap()) / 2.0);
        Some((times, mids.collect::<Vec<f64>>()))
    };
    let (Some(fxcm), Some(oanda)) = (venue("fxcm"), venue("oanda")) else { return };
    assert_eq!((fxcm.0.len(), oanda.0.len()), (256_970, 129_200));
    let (_disk, db) = in_memory().unwrap();
    for (name, (times, mids)) in [("fxcm", &fxcm), ("oanda", &oanda)] {
        store(
            &db,
            name,
            times,
            &Columns::new().with("mid", Column::from(mids.clone())).unwrap(),
            &[],
            100_000,
        );
    }
    let series = |name: &str| db.snapshot().series(name).unwrap();
    let (left, right) = (series("oanda"), series("fxcm"));
    let fresh = Duration::from_secs(10);
    let joined = left.scan().asof(right.scan()).tolerance(fresh).suffix("_fxcm").collect().unwrap();
    // The last quote of the other venue in its order of time and arrival.
    let mut order: Vec<usize> = (0..fxcm.0.len()).collect();
    order.sort_by_key(|at| fxcm.0[*at]);
    let mut own: Vec<usize> = (0..oanda.0.len()).collect();
    own.sort_by_key(|at| oanda.0[*at]);
    let (mut behind, mut apart, mut matched) = (0, 0.0, 0);
    let found = joined.column("mid_fxcm").unwrap();
    for (row, at) in own.iter().enumerate() {
        let time = oanda.0[*at];
        while behind < order.len() && fxcm.0[order[behind]] <= time {
            behind += 1;
        }
        let last = behind.checked_sub(1).map(|last| order[last]);
        let last = last.filter(|last| time - fxcm.0[*last] <= fresh.as_nanos() as i64);
        let expected = last.map_or(Value::Null, |last| fxcm.1[last].into());
        assert_eq!(found.get(row), expected, "row {row} at {time}");
        if let Some(last) = last {
            apart += (oanda.1[*at] - fxcm.1[last]).abs();
            matched += 1;
        }
    }
    // Two tenths of a pip; an hour off it is above 25 pips.
    assert!(matched > 50_000 && apart / f64::from(matched) < 1e-4, "{matched} {apart}");
}
