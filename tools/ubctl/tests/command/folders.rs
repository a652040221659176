//! Folders of files in the place of a series.

use crate::{Place, words};

/// A series of trades, and the same rows in a folder, a file for each day.
fn desk() -> Place {
    let place = Place::new();
    let mut trades = String::from("at,symbol,price,size\n");
    let mut quotes = String::from("at,symbol,bid\n");
    for minute in 0..90 {
        let at = format!("2014-06-0{}T10:{:02}:00Z", 2 + minute / 30, minute % 30);
        let symbol = ["IBM", "AIG", "C"][minute % 3];
        trades += &format!("{at},{symbol},{}.25,{}\n", 50 + minute % 7, minute);
        quotes += &format!("{at},{symbol},{}.5\n", 40 + minute % 5);
    }
    for (name, text) in [("trades", trades), ("quotes", quotes)] {
        place.write(&format!("{name}.csv"), text);
        place.ok(words(&format!("import {name}.csv --series {name} --time at --key symbol")));
        std::fs::create_dir(place.path(name)).unwrap();
        for (day, suffix) in [(2, "arrow"), (3, "arrows"), (4, "feather")] {
            let range = format!("--from 2014-06-0{day} --to 2014-06-0{}", day + 1);
            place.ok(words(&format!("export {name} {range} --output {name}/{day}.{suffix}")));
        }
    }
    place
}

#[test]
fn every_command_answers_of_a_folder_as_of_the_series_with_its_rows() {
    let place = desk();
    for line in [
        "series range TRADES --format csv",
        "series range TRADES",
        "series range TRADES --from 2014-06-03 --to 2014-06-04 --key symbol=IBM --columns price --format json",
        "series range TRADES --count",
        "series latest TRADES -n 3 --key symbol=C",
        "series last TRADES",
        "series asof TRADES quotes --by symbol --tolerance 5m --format csv",
        "series asof trades QUOTES --by symbol --other-time then --format csv",
        "series asof TRADES QUOTES --direction nearest --not-exact --format csv",
        "series resample TRADES --every 1d --by symbol --ohlc price --vwap price,size --sum size",
        "export TRADES --where price>=52",
        "export TRADES --format jsonl --key symbol=AIG",
    ] {
        let stored = line.replace("TRADES", "trades").replace("QUOTES", "quotes");
        let attached = line.replace("TRADES", "./trades").replace("QUOTES", "quotes/") + " --keys symbol";
        assert_eq!(place.ok(words(&attached)), place.ok(words(&stored)), "{attached}");
    }
    let info = place.json(words("series info ./trades --keys symbol --format json"));
    let info = info.as_array().map_or(&info, |rows| &rows[0]);
    assert_eq!((info["rows"].as_u64(), info["files"].as_u64()), (Some(90), Some(3)), "{info}");
    assert_eq!(info["keys"], "symbol utf8");
}

#[test]
fn a_folder_needs_no_database() {
    let place = desk();
    std::fs::remove_dir_all(place.db()).unwrap();
    assert_eq!(place.ok(words("series range ./trades --count")), "90\n");
    place.ok(words("export ./trades --output all.arrow"));
    assert!(place.path("all.arrow").exists());
}

#[test]
fn what_is_wrong_with_a_folder_is_named_with_what_to_do() {
    let place = desk();
    assert!(place.fails(words("series range ./none")).contains("none"));
    std::fs::create_dir(place.path("empty")).unwrap();
    assert!(place.fails(words("series range ./empty")).contains(".arrow"));
    let time = place.fails(words("series range ./trades --time ts"));
    assert!(time.contains("2.arrow") && time.contains("\"ts\"") && time.contains("timestamp"), "{time}");
    let keys = place.fails(words("series range ./trades --keys venue"));
    assert!(keys.contains("venue") && keys.contains("symbol"), "{keys}");
    let known = place.fails(words("series range ./trades --as-known-at 1"));
    assert!(known.contains("as it is now"), "{known}");
    let series = place.fails(words("series range trades --keys symbol"));
    assert!(series.contains("./trades"), "{series}");
    std::fs::rename(place.path("trades"), place.path("ticks")).unwrap();
    assert!(place.fails(words("series range ticks")).contains("./ticks"));
    let file = place.path("ticks").join("3.arrows");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 20]).unwrap();
    let cut = place.fails(words("series resample ./ticks --every 1h"));
    assert!(
        cut.contains("3.arrows") && cut.contains("cut short") && cut.contains("write the file anew"),
        "{cut}"
    );
}

#[test]
fn numbers_count_what_the_name_of_the_time_says_or_what_is_said() {
    use underbelly::{Columns, arrow::Writer};
    let place = Place::new();
    std::fs::create_dir(place.path("t")).unwrap();
    let rows = Columns::new().with("ts_ms", vec![1_401_703_200_500i64].into()).unwrap();
    let rows = rows.with("seconds", vec![1_401_703_200i64].into()).unwrap();
    let file = std::fs::File::create(place.path("t").join("a.arrow")).unwrap();
    let mut file = Writer::file(file, &rows).unwrap();
    file.write(rows).unwrap();
    file.finish().unwrap();
    let first = |options: &str| {
        let lines = place.csv(words(&format!("series range ./t --format csv --columns {options}")));
        lines[1][0].clone()
    };
    assert_eq!(first("seconds --time ts_ms"), "2014-06-02T10:00:00.5Z");
    assert_eq!(first("ts_ms --time seconds"), "2014-06-02T10:00:00Z");
    assert_eq!(first("ts_ms --time seconds --unit ms"), "1970-01-17T05:21:43.2Z");
    // Two columns cannot both be the time of what is read.
    place.ok(words("export ./t --time ts_ms --output t/b.arrow"));
    let named = place.fails(words("series range ./t --time seconds"));
    assert!(named.contains("b.arrow") && named.contains("rename"), "{named}");
}

#[cfg(feature = "parquet")]
#[test]
fn folders_of_parquet_answer_as_the_series_with_their_rows() {
    let place = desk();
    std::fs::create_dir(place.path("mixed")).unwrap();
    for (day, suffix) in [(2, "parquet"), (3, "arrow"), (4, "pq")] {
        let range = format!("--from 2014-06-0{day} --to 2014-06-0{}", day + 1);
        let form = if suffix == "pq" { " --format parquet" } else { "" };
        place.ok(words(&format!("export trades {range} --output mixed/{day}.{suffix}{form}")));
    }
    for line in [
        "series range TRADES --format csv",
        "series range TRADES --from 2014-06-04 --key symbol=IBM --format csv",
        "series asof TRADES quotes --by symbol --format csv",
        "series resample TRADES --every 1d --by symbol --ohlc price --sum size",
        "series latest TRADES -n 4",
    ] {
        let attached = line.replace("TRADES", "./mixed") + " --keys symbol";
        assert_eq!(place.ok(words(&attached)), place.ok(words(&line.replace("TRADES", "trades"))), "{line}");
    }
    std::fs::write(place.path("mixed").join("5.parquet"), "PAR1").unwrap();
    let refused = place.fails(words("series range ./mixed"));
    assert!(refused.contains("5.parquet"), "{refused}");
}

#[cfg(not(feature = "parquet"))]
#[test]
fn without_parquet_a_folder_with_such_a_file_says_so() {
    let place = desk();
    std::fs::write(place.path("trades").join("5.parquet"), "PAR1").unwrap();
    let refused = place.fails(words("series range ./trades"));
    assert!(refused.contains("5.parquet") && refused.contains("feature"), "{refused}");
}

#[test]
fn decimals_and_zones_of_a_folder_are_shown_filtered_and_exported_as_those_of_a_series() {
    let place = Place::new();
    place.write("t.csv", "at,symbol,price\n2014-06-02T10:00:00Z,IBM,1.50\n2014-06-03T10:00:00Z,AIG,2.25\n");
    place.ok(words("series define t --columns timestamp:timestamp[America/New_York]"));
    place.ok(words("import t.csv --series t --time at --key symbol --columns price:decimal(2)"));
    std::fs::create_dir(place.path("t")).unwrap();
    for (day, suffix) in [(2, "arrow"), (3, if cfg!(feature = "parquet") { "parquet" } else { "arrows" })] {
        let range = format!("--from 2014-06-0{day} --to 2014-06-0{}", day + 1);
        place.ok(words(&format!("export t {range} --output t/{day}.{suffix}")));
    }
    for line in [
        "series range T",
        "series range T --where price>1.5 --format json",
        "series last T --format csv",
        "series latest T --key symbol=IBM",
        "series resample T --every 1d --sum price --newest 1 --format csv",
        "series asof T T --by symbol --other-time then --format csv",
        "export T --where price=2.25",
    ] {
        let stored = place.ok(words(&line.replace('T', "t")));
        assert_eq!(place.ok(words(&(line.replace('T', "./t") + " --keys symbol"))), stored, "{line}");
    }
    let shown = place.ok(words("series range ./t --where price>1.5 --format csv"));
    assert!(shown.contains("2.25") && shown.contains("-04:00") && !shown.contains("1.50"), "{shown}");
}
