//! Files into series.

use std::io::Write;

use crate::{Place, recordings, words};

const TICKS: &str = "ts_ns,symbol,price,size\n\
    3,IBM,182.5,100\n\
    1,AIG,49.25,200\n\
    3,AIG,49.5,\n\
    3,IBM,182.75,300\n";

#[test]
fn rows_come_back_in_order_of_time_and_arrival() {
    let place = Place::new();
    place.write("ticks.csv", TICKS);
    let report = place.json(words("import ticks.csv --series trade --time ts_ns --key symbol --format json"));
    assert_eq!((&report["rows"], &report["rejected"]), (&4.into(), &0.into()));
    assert_eq!(report["first"], "1970-01-01T00:00:00.000000001Z");
    assert_eq!(report["last"], "1970-01-01T00:00:00.000000003Z");
    assert_eq!(report["columns"], "symbol utf8 key, price f64, size i64");
    let rows = place.csv(words("series range trade --format csv"));
    assert_eq!(rows[0], ["timestamp", "symbol", "price", "size"]);
    let cells: Vec<String> = rows[1..].iter().map(|row| row[1..].join(" ")).collect();
    assert_eq!(cells, ["AIG 49.25 200", "IBM 182.5 100", "AIG 49.5 ", "IBM 182.75 300"]);
    let json = place.json(words("series range trade --key symbol=AIG --format json"));
    assert_eq!(json.as_array().unwrap().len(), 2);
    assert_eq!(json[1]["size"], serde_json::Value::Null);
    assert_eq!(json[0]["price"], 49.25);
}

#[test]
fn rows_are_committed_where_the_checkpoint_behind_them_fails() {
    let place = Place::new();
    place.write("ticks.csv", TICKS);
    // Where the folder of its segments is to be.
    std::fs::write(place.db().join("segments/trade"), "").unwrap();
    let error = place.fails(words("import ticks.csv --series trade --time ts_ns --key symbol"));
    assert!(error.contains("all 4 rows of \"trade\" are committed, so import none of them again"), "{error}");
    std::fs::remove_file(place.db().join("segments/trade")).unwrap();
    assert_eq!(place.ok(words("series range trade --count")), "4\n");
}

#[test]
fn gzip_with_several_members_is_read_whole() {
    let place = Place::new();
    let mut zipped = Vec::new();
    for part in ["#time,x\n0,1\n", "1,2\n"] {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(part.as_bytes()).unwrap();
        zipped.extend(encoder.finish().unwrap());
    }
    place.write("a.csv.gz", &zipped);
    place.ok(words("import a.csv.gz --series s --time time"));
    assert_eq!(place.ok(words("series range s --count")), "2\n");
    place.write("cut.csv.gz", &zipped[..zipped.len() - 9]);
    let error = place.fails(words("import cut.csv.gz --series cut --time time"));
    assert!(error.contains("cut.csv.gz"), "{error}");
    assert!(place.fails(words("series info cut")).contains("no series has the type \"cut\""));
}

#[test]
fn types_widen_for_a_value_at_the_end_of_a_long_file() {
    let place = Place::new();
    let mut text = String::from("time,a,b,c\n");
    (0..140_000).for_each(|i| text.push_str(&format!("{i},{i},{i},{i}\n")));
    text.push_str("140000,0.5,x,\n");
    place.write("long.csv", text);
    let ended = place.run(words("import long.csv --series s --time time"));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("long.csv:140002:3: column \"b\" holds \"x\""), "{}", ended.stderr);
    let info = place.json(words("series info s --format json"));
    assert_eq!((&info["rows"], &info["fields"]), (&140_001.into(), &"a f64, b utf8, c i64".into()));
    let last = place.json(words("series latest s -n 2 --format json"));
    assert_eq!((&last[0]["a"], &last[0]["b"]), (&0.5.into(), &"x".into()));
    assert_eq!((&last[1]["a"], &last[1]["b"]), (&139_999.0.into(), &"139999".into()));
}

#[test]
fn numbers_that_would_lose_digits_stay_text() {
    let place = Place::new();
    place.write("n.csv", "time,code,big\n0,007,9223372036854775807\n1,012,0.5\n");
    place.ok(words("import n.csv --series s --time time"));
    let rows = place.csv(words("series range s --columns code,big --format csv"));
    assert_eq!(rows[1][1..], ["007", "9223372036854775807"]);
}

#[test]
fn a_bad_line_is_named_and_nothing_is_committed() {
    let place = Place::new();
    for (name, text, expected) in [
        ("width.csv", "time,x\n0,1\n1,2,3\n", "width.csv:3: the line has 3 fields, the header 2"),
        ("time.csv", "time,x\r\n0,1\r\n\r\nsoon,2\r\n", "time.csv:4:1: column \"time\": \"soon\""),
        ("type.csv", "time,x\n0,\"a\nb\"\n1,many\n", "type.csv:2:2: column \"x\": \"a\\nb\" is no i64"),
        ("empty.csv", "time,x\n,1\n", "empty.csv:2:1: column \"time\": the time is empty"),
    ] {
        place.write(name, text);
        let types = if name == "type.csv" { " --columns x:i64" } else { "" };
        let error = place.fails(words(&format!("import {name} --series s --time time{types}")));
        assert!(error.contains(expected), "{error}");
    }
    place.write("utf8.csv", b"time,x\n0,a\n1,\xff\n");
    let error = place.fails(words("import utf8.csv --series s --time time"));
    assert!(error.contains("utf8.csv:3:2") && error.contains("UTF-8"), "{error}");
    assert!(place.fails(words("series info s")).contains("no series has the type \"s\""));
}

/// A thousand lines below the header, of which some are others.
fn thousand(others: &[(usize, &str)]) -> String {
    let mut text = String::from("time,word\n");
    for line in 2..=1001 {
        match others.iter().find(|(at, _)| *at == line) {
            Some((_, other)) => text.push_str(&format!("{line},{other}\n")),
            None => text.push_str(&format!("{line},w{line}\n")),
        }
    }
    text
}

#[test]
fn quotes_that_swallow_lines_end_the_import() {
    let place = Place::new();
    for (name, others, expected) in [
        ("open.csv", &[(10, "\"w")][..], "open.csv:10: a quote opens a field here and is never closed"),
        ("two.csv", &[(10, "\"w"), (610, "\"w")], "two.csv:610: text stands behind the quote"),
        ("behind.csv", &[(10, "\"w\"x")], "behind.csv:10: text stands behind the quote"),
    ] {
        place.write(name, thousand(others));
        for options in ["", " --on-error skip"] {
            let error = place.fails(words(&format!("import {name} --series s --time time{options}")));
            assert!(error.contains(expected), "{error}");
            assert_eq!(error.contains("opened in line 10;"), name != "open.csv", "{error}");
        }
    }
    assert!(place.fails(words("series info s")).contains("no series has the type \"s\""));
}

#[test]
fn a_line_before_a_wrong_quote_is_reported_first() {
    let place = Place::new();
    place.write("x.csv", "time,x\nsoon,1\n1,\"2\"3\n");
    assert!(place.fails(words("import x.csv --series s --time time")).contains("x.csv:2:1"));
}

#[test]
fn proper_quotes_are_read() {
    let place = Place::new();
    place.write("q.csv", thousand(&[(10, "\"two\nlines\""), (20, "\"a \"\"b\"\", c\""), (30, "6\" x 4\"")]));
    let report = place.json(words("import q.csv --series s --time time --format json"));
    assert_eq!((&report["rows"], &report["rejected"]), (&1000.into(), &0.into()));
    let rows = place.json(words("series range s --format json"));
    for (at, word) in [(8, "two\nlines"), (18, "a \"b\", c"), (28, "6\" x 4\""), (999, "w1001")] {
        assert_eq!(rows[at]["word"], word);
    }
}

#[test]
fn skipped_lines_are_set_aside_as_they_were() {
    let place = Place::new();
    let bad = "1,2,3\nsoon,\"a,b\"\n";
    place.write("x.csv", format!("time,x\n0,1\n{bad}2,5\n"));
    let report = place.json(words("import x.csv --series s --time time --on-error skip --format json"));
    assert_eq!((&report["rows"], &report["rejected"]), (&2.into(), &2.into()));
    assert_eq!(report["rejected_file"], "x.csv.rejected.csv");
    assert_eq!(report["columns"], "x i64", "rejected lines say nothing about types");
    assert_eq!(place.read("x.csv.rejected.csv"), format!("time,x\n{bad}"));
    let error = place.fails(words("import x.csv --series s --time time --on-error skip"));
    assert!(error.contains("there already"), "{error}");
    place.ok(words("import x.csv --series s --time time --on-error skip --rejected other.csv"));
    assert_eq!(place.read("other.csv"), format!("time,x\n{bad}"));
    place.write("good.csv", "time,x\n0,1\n");
    place.ok(words("import good.csv --series s --time time --on-error skip"));
    assert!(!place.path("good.csv.rejected.csv").exists());
}

#[test]
fn local_times_that_clocks_skip_or_repeat_are_errors() {
    let place = Place::new();
    for (name, time, expected) in [
        ("gap.csv", "2014-03-09 02:30:00", "does not exist in America/New_York"),
        ("fold.csv", "2014-11-02 01:30:00", "ambiguous in America/New_York"),
    ] {
        place.write(name, format!("time,x\n2014-06-02 09:30:00,1\n{time},2\n"));
        let line = format!("import {name} --series s --time time --zone America/New_York");
        let error = place.fails(words(&line));
        assert!(error.contains(expected) && error.contains(&format!("{name}:3:1")), "{error}");
        let report = place.json(words(&format!("{line} --on-error skip --format json")));
        assert_eq!(report["first"], "2014-06-02T13:30:00Z");
    }
    let ended = place.run(words("import gap.csv --series s --time time --zone Mars/Olympus"));
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("Mars/Olympus"), "{}", ended.stderr);
}

#[test]
fn times_are_read_in_every_notation() {
    let place = Place::new();
    let noon = "2014-06-02T12:00:00Z";
    for (at, (options, header, time)) in [
        ("", "time", "1401710400"),
        ("", "time", "1401710400.0"),
        ("", "event_ms", "1401710400000"),
        ("--unit us", "event_ms", "1401710400000000"),
        ("", "time", "20140602 12:00"),
        ("", "time", "2014-06-02T08:00:00-04:00"),
        ("--zone America/New_York", "time", "2014-06-02 08:00"),
        ("--time-format %d.%m.%Y_%H", "time", "02.06.2014_12"),
    ]
    .into_iter()
    .enumerate()
    {
        place.write("t.csv", format!("{header},x\n{time},1\n"));
        let line = format!("import t.csv --series s{at} --time {header} --format json {options}");
        assert_eq!(place.json(words(line.trim()))["first"], noon, "{line} of {time}");
    }
    place.write("days.csv", "time,x\n20140602,1\n20140603,2\n");
    let report = place.json(words("import days.csv --series days --time time --format json"));
    assert_eq!(report["last"], "2014-06-03T00:00:00Z");
    place.write("ns.csv", "time_ns,x\n1381132800688000001,1\n");
    let report = place.json(words("import ns.csv --series ns --time time_ns --format json"));
    assert_eq!(report["first"], "2013-10-07T08:00:00.688000001Z");
}

#[test]
fn a_nan_key_is_refused() {
    let place = Place::new();
    place.write("k.csv", "time,k,x\n0,1.5,1\n1,NaN,2\n");
    let error = place.fails(words("import k.csv --series s --time time --key k"));
    assert!(error.contains("k.csv:3:2: column \"k\"") && error.contains("NaN"), "{error}");
    let report =
        place.json(words("import k.csv --series s --time time --key k --on-error skip --format json"));
    assert_eq!((&report["rows"], &report["rejected"]), (&1.into(), &1.into()));
    place.ok(words("import k.csv --series t --time time --key k --null NaN"));
    let rows = place.csv(words("series range t --key k= --format csv"));
    assert_eq!((rows.len(), rows[1][2].as_str()), (2, "2"));
}

#[test]
fn a_series_that_is_there_decides_the_types() {
    let place = Place::new();
    place.write("a.csv", "time,code,x,n\n0,A1,0.5,1\n");
    place.write("b.csv", "time,code,x,n\n1,17,2,2.5\n");
    place.ok(words("import a.csv --series s --time time --key code"));
    place.ok(words("import b.csv --series s --time time --key code"));
    let rows = place.json(words("series range s --format json"));
    assert_eq!((&rows[1]["code"], &rows[1]["x"], &rows[1]["n"]), (&"17".into(), &2.0.into(), &2.5.into()));
    place.write("c.csv", "time,code,x\n2,A1,NA\n");
    let error = place.fails(words("import c.csv --series s --time time --key code"));
    assert!(error.contains("c.csv:2:3: column \"x\": \"NA\" is no f64"), "{error}");
    place.ok(words("import c.csv --series s --time time --key code --null NA"));
    let error = place.fails(words("import b.csv --series s --time time"));
    assert!(error.contains("\"code\" is a key"), "{error}");
}

#[test]
fn several_files_with_different_columns_make_one_series() {
    let place = Place::new();
    place.write("a.csv", "time,k,x\n5,a,1\n");
    place.write("b.csv", "k;y;time\nb;word;5\n");
    place.write("c.csv", "k,y,time\nb,word,5\n");
    place.ok(words("import a.csv c.csv --series s --time time --key k"));
    let rows = place.csv(words("series range s --format csv"));
    assert_eq!(rows[0], ["timestamp", "k", "x", "y"]);
    assert_eq!(
        (&rows[1][1..], &rows[2][1..]),
        (&["a", "1", ""].map(String::from)[..], &["b", "", "word"].map(String::from)[..])
    );
    place.ok(words("import b.csv --series s --time time --key k --delimiter ;"));
    assert_eq!(place.ok(words("series range s --count")), "3\n");
}

#[test]
fn columns_are_checked_before_anything_is_read() {
    let place = Place::new();
    place.write("a.csv", "time,type,x\n5,a,1\n");
    for (options, expected) in [
        ("--time when", "--time names column \"when\", and there are: time, type, x"),
        ("--time time --key k", "--key names column \"k\""),
        ("--time time --columns y:i64", "--columns names column \"y\""),
        ("--time time --key time", "cannot be a key too"),
        ("--time time --rename x=type", "two columns the name \"type\""),
        ("--time time", "with --rename OLD=NEW"),
    ] {
        let error = place.fails(words(&format!("import a.csv --series s {options}")));
        assert!(error.contains(expected), "{options}: {error}");
    }
    place.ok(words("import a.csv --series s --time time --key type --rename type=sensor"));
    assert_eq!(place.json(words("series info s --format json"))["keys"], "sensor utf8");
    place.write("twice.csv", "time,x,x\n5,a,1\n");
    assert!(place.fails(words("import twice.csv --series s --time time")).contains("two columns are named"));
    place.write("nothing.csv", "");
    assert!(place.fails(words("import nothing.csv --series s --time time")).contains("is empty"));
    place.write("a.txt", "time,x\n1,2\n");
    assert!(place.fails(words("import a.txt --series t --time time")).contains("--from csv"));
    place.ok(words("import a.txt --series t --time time --from csv"));
    assert!(place.fails(words("import absent.csv --series t --time time")).contains("absent.csv"));
    assert!(place.fails(words("import . --series t --time time --from csv")).contains("no regular file"));
}

#[test]
fn a_column_without_values_is_reported() {
    let place = Place::new();
    place.write("e.csv", "time,x,none\n0,1,\n");
    let ended = place.run(words("import e.csv --series s --time time"));
    assert!(ended.stderr.contains("column \"none\" has no value and is not stored"), "{}", ended.stderr);
    place.ok(words("import e.csv --series t --time time --columns none:date"));
    assert_eq!(place.json(words("series info t --format json"))["fields"], "x i64, none date");
}

#[test]
fn recorded_trades_are_counted() {
    let Some(data) = recordings() else {
        eprintln!("skipped: there are no recordings; set UNDERBELLY_DATA to their folder");
        return;
    };
    let place = Place::new();
    let file = data.join("equity_ticks/aig_20131007_trades.csv.gz");
    let mut arguments = vec!["import", file.to_str().unwrap()];
    arguments.extend(words("--series trade --time ts_ns --key exchange --format json"));
    let report = place.json(arguments);
    assert_eq!(report["rows"], 25_351);
    assert_eq!(report["first"], "2013-10-07T08:00:00.688Z");
    assert_eq!(place.ok(words("series range trade --count")), "25351\n");
    assert_eq!(place.csv(words("series range trade --format csv")).len(), 25_352);
    assert!(place.ok(words("verify")).contains("25351"));
}
