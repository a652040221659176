//! Listings and ranges of series.

use crate::{Place, words};

fn ticks() -> Place {
    let place = Place::new();
    let mut text = String::from("time,symbol,price\n");
    (0..60).for_each(|i| text.push_str(&format!("{i},{},{}.5\n", if i % 3 == 0 { "AIG" } else { "IBM" }, i)));
    place.write("t.csv", text);
    place.ok(words("import t.csv --series trade --time time --key symbol"));
    place
}

fn count(place: &Place, options: &str) -> String {
    place.ok(words(&format!("series range trade --count {options}"))).trim().to_string()
}

#[test]
fn rows_are_removed_by_key_and_time_and_not_all_by_mistake() {
    let place = Place::new();
    let lines: String =
        (0..10).map(|i| format!("{},{},{i}\n", 1_000_000_000 + i, ["a", "b"][i % 2])).collect();
    place.write("rows.csv", format!("t,k,x\n{lines}"));
    place.ok(words("import rows.csv --series s --time t --key k"));
    let left = |place: &Place| -> Vec<String> {
        place.csv(words("series range s --format csv --columns x"))[1..]
            .iter()
            .map(|row| row[1].clone())
            .collect()
    };
    let removed = place.ok(words("series rm s --key k=a --from 1000000002 --to 1000000006"));
    assert!(removed.contains("rows  2"), "{removed}");
    assert_eq!(left(&place), ["0", "1", "3", "5", "6", "7", "8", "9"]);
    place.ok(words("series rm s --from 1000000007"));
    assert_eq!(left(&place), ["0", "1", "3", "5", "6"]);
    assert!(place.fails(words("series rm s")).contains("--all"));
    assert_eq!(place.run(words("series rm s --all --key k=a")).code, 2);
    assert!(place.fails(words("series rm t --all")).contains("no series has the type"));
    assert!(place.fails(words("series rm s --key x=1")).contains("x"));
    assert!(place.fails(words("series rm _runs --all")).contains("_runs"));
    assert!(place.ok(words("series rm s --all")).contains("rows  5"));
    assert_eq!(left(&place), Vec::<String>::new());
    assert_eq!(place.json(words("series info s --format json"))["rows"], 0);
}

/// An integer that a key of floats cannot hold is not rounded to the key beside it.
#[test]
fn no_key_is_removed_for_the_one_beside_it() {
    let place = Place::new();
    place.write("rows.csv", "t,k,x\n1,9007199254740992.0,1\n2,0.5,2\n3,3.0,3\n");
    place.ok(words("import rows.csv --series s --time t --key k"));
    for command in ["rm s", "range s --count", "latest s"] {
        let refused = place.fails(words(&format!("series {command} --key k=9007199254740993")));
        assert!(refused.contains("9007199254740993") && refused.contains("f64"), "{refused}");
    }
    assert!(place.ok(words("series rm s --key k=3")).contains("rows  1"));
    assert!(place.ok(words("series rm s --key k=9007199254740992")).contains("rows  1"));
    assert_eq!(place.json(words("series info s --format json"))["rows"], 1);
}

#[test]
fn ranges_have_ends_keys_columns_and_limits() {
    let place = ticks();
    assert_eq!(count(&place, "--from 10 --to 20"), "10");
    assert_eq!(count(&place, "--from 10 --to 20 --closed both"), "11");
    assert_eq!(count(&place, "--from 10 --to 20 --closed neither"), "9");
    assert_eq!(count(&place, "--from 1970-01-01T00:00:10Z --to now --closed right"), "49");
    assert_eq!(count(&place, "--from -5 --key symbol=AIG"), "20");
    assert_eq!(count(&place, "--limit 7"), "7");
    assert_eq!(count(&place, "--where price<10"), "10");
    let rows = place.csv(words("series range trade --columns price --limit 2 --from 3 --format csv"));
    assert_eq!(
        rows,
        [["timestamp", "price"], ["1970-01-01T00:00:03Z", "3.5"], ["1970-01-01T00:00:04Z", "4.5"]]
    );
    let none = place.csv(words("series range trade --from 1000.0 --format csv"));
    assert_eq!(none, [["timestamp", "symbol", "price"]]);
    assert_eq!(place.json(words("series range trade --from 1000.0 --format json")), serde_json::json!([]));
    assert_eq!(place.json(words("series range trade --count --format json"))["rows"], 60);
}

#[test]
fn a_table_says_how_much_it_leaves_out() {
    let place = ticks();
    let table = place.ok(words("series range trade"));
    assert_eq!(table.lines().count(), 52);
    assert_eq!(table.lines().last(), Some("… 10 more rows, use --limit or --format csv"));
    let whole = place.ok(words("series range trade --limit 60"));
    assert_eq!(whole.lines().count(), 61);
    assert!(!whole.contains("more rows"));
}

#[test]
fn newest_rows_and_last_points() {
    let place = ticks();
    let latest = place.json(words("series latest trade -n 2 --key symbol=AIG --format json"));
    assert_eq!((&latest[0]["price"], &latest[1]["price"]), (&57.5.into(), &54.5.into()));
    let last = place.csv(words("series last trade --format csv"));
    assert_eq!(last[1..].iter().map(|row| row[1..].join(" ")).collect::<Vec<_>>(), ["AIG 57.5", "IBM 59.5"]);
}

#[test]
fn listings_name_rows_and_columns() {
    let place = ticks();
    let all = place.json(words("series ls --format json"));
    assert_eq!(
        (&all[0]["type"], &all[0]["rows"], &all[0]["keys"]),
        (&"trade".into(), &60.into(), &"symbol".into())
    );
    let info = place.json(words("series info trade --format json"));
    assert_eq!((&info["fields"], &info["last"]), (&"price f64".into(), &"1970-01-01T00:00:59Z".into()));
}

#[test]
fn what_is_not_there_is_named() {
    let place = ticks();
    let error = place.fails(words("series range quote"));
    assert!(error.contains("\"quote\"") && error.contains("ubctl series ls"), "{error}");
    assert!(place.fails(words("series range trade --columns bid")).contains("no column \"bid\""));
    assert!(place.fails(words("series range trade --key price=1.5")).contains("is not a key"));
    assert!(place.fails(words("series range trade --from 20 --to 10")).contains("exchange the two"));
    assert_eq!(place.run(words("series range trade --from someday")).code, 2);
}

#[test]
fn values_are_asked_for_one_of_several() {
    let place = ticks();
    let rows = |condition: &str| {
        let options = ["series", "range", "trade", "--count", "--where", condition];
        place.ok(options).trim().to_string()
    };
    assert_eq!(rows("symbol in IBM,AIG"), "60");
    assert_eq!(rows("symbol in AIG, GE"), "20");
    assert_eq!(rows("price in 3.5,4.5,100"), "2");
    assert_eq!(rows("symbol in ,GE"), "0", "nothing is null");
    assert_eq!(rows("timestamp in 1970-01-01T00:00:03Z,7,1000.0"), "2");
    assert!(place.fails(["series", "range", "trade", "--where", "price in 1,x"]).contains("\"x\" is no f64"));
    assert!(place.fails(["series", "range", "trade", "--where", "prise in 1"]).contains("prise"));
    assert_eq!(place.run(["series", "range", "trade", "--where", "price in"]).code, 2);
}

/// Trades and quotes of two symbols, in a file each.
fn market() -> Place {
    let place = Place::new();
    place.write("t.csv", "time,symbol,price,size\n10,IBM,5.0,1\n20,AIG,3.0,2\n70,IBM,7.0,3\n200,IBM,6.0,4\n");
    place.write("q.csv", "time,symbol,bid\n5,IBM,4.9\n20,AIG,2.9\n69,AIG,2.8\n71,IBM,6.9\n");
    place.ok(words("import t.csv --series trade --time time --key symbol"));
    place.ok(words("import q.csv --series quote --time time --key symbol"));
    place
}

#[test]
fn trades_are_shown_with_the_quotes_of_then() {
    let place = market();
    let bids = |options: &str| -> Vec<String> {
        let command = format!("series asof trade quote --by symbol --columns price --format csv {options}");
        place.csv(words(command.trim()))[1..].iter().map(|row| row[3..].join("@")).collect()
    };
    assert_eq!(bids(""), ["4.9", "2.9", "4.9", "6.9"]);
    assert_eq!(bids("--direction forward"), ["6.9", "2.9", "6.9", ""]);
    assert_eq!(bids("--direction nearest --tolerance 1500ms"), ["", "2.9", "6.9", ""]);
    assert_eq!(bids("--direction forward --not-exact --inner"), ["6.9", "2.8", "6.9"]);
    let then = ["1970-01-01T00:00:05Z@4.9", "1970-01-01T00:00:05Z@4.9"];
    assert_eq!(bids("--key symbol=IBM --limit 2 --other-time at"), then);
    let rows = place.csv(words("series asof trade quote --by symbol=symbol --from 200 --format csv"));
    assert_eq!(rows[0], ["timestamp", "symbol", "price", "size", "bid"]);
    assert_eq!(rows[1], ["1970-01-01T00:03:20Z", "IBM", "6.0", "4", "6.9"]);
    let none = place.csv(words("series asof trade quote --from 900 --other-columns bid --format csv"));
    assert_eq!(none, [["timestamp", "symbol", "price", "size", "bid"]]);
    let place_of = |conditions: &[&str]| {
        let options = words("series asof trade quote --by symbol --columns price --format csv");
        let conditions = conditions.iter().flat_map(|condition| ["--where", condition]);
        place.csv(options.into_iter().chain(conditions)).len() - 1
    };
    assert_eq!(place_of(&["symbol in IBM,GE"]), 3, "of the left rows");
    assert_eq!(place_of(&["symbol in AIG,IBM", "price>=5", "size in 1,4"]), 2);
    assert!(place.fails(words("series asof trade quote --by prise")).contains("price"));
    assert_eq!(place.run(words("series asof trade quote --tolerance 5")).code, 2);
}

#[test]
fn ticks_become_bars() {
    let place = market();
    let bars = |options: &str| {
        place.csv(words(format!("series resample trade --every 1m --format csv {options}").trim()))
    };
    let all = bars("--by symbol --ohlc price --vwap price,size --sum size --rows --key symbol=IBM");
    let names = ["timestamp", "symbol", "open", "high", "low", "close", "vwap", "size_sum", "rows"];
    assert_eq!(all[0], names);
    assert_eq!(all[1][1..], ["IBM", "5.0", "5.0", "5.0", "5.0", "5.0", "1", "1"]);
    assert_eq!(all[3][..], ["1970-01-01T00:02:00Z", "IBM", "", "", "", "", "", "", "0"]);
    assert_eq!(all.len(), 5);
    let column =
        |options: &str| -> Vec<String> { bars(options)[1..].iter().map(|row| row[1].clone()).collect() };
    assert_eq!(column(""), ["2", "1", "0", "1"], "rows are counted");
    assert_eq!(column("--fill none"), ["2", "1", "1"]);
    assert_eq!(column("--last price --fill previous"), ["3.0", "7.0", "7.0", "6.0"]);
    assert_eq!(column("--last price --fill linear"), ["3.0", "7.0", "6.5", "6.0"]);
    assert_eq!(column("--mean size --fill -1"), ["1.5", "3.0", "-1.0", "4.0"]);
    assert_eq!(column("--quantile price,0.5"), ["4.0", "7.0", "", "6.0"]);
    assert_eq!(column("--origin 10 --closed right --label right --count price"), ["1", "2", "0", "0", "1"]);
    assert_eq!(column("--from 60 --to 300"), ["1", "0", "1", "0"], "the range asked for");
    assert_eq!(column("--newest 2"), ["0", "1"]);
    assert_eq!(column("--newest 2 --fill none --to 200"), ["2", "1"]);
    assert_eq!(column("--where price<6 --fill none"), ["2"]);
    let days = "series resample trade --every 1d --zone America/New_York --sum size --format csv";
    assert_eq!(place.csv(words(days))[1..], [["1969-12-31T05:00:00Z", "10"]]);
    let table = place.ok(words("series resample trade --every 1s"));
    assert!(table.contains("141 more rows"), "{table}");
    for (options, said) in [
        ("--every 1", "1mo"),
        ("--every 0m", "at least one nanosecond"),
        ("--every 1d --zone Mars/Base", "Mars/Base"),
        ("--every 1m --sum symbol", "utf8"),
        ("--every 1m --fill later", "linear"),
    ] {
        let run = place.run(words(&format!("series resample trade {options}")));
        let refused = run.stderr;
        assert_ne!(run.code, 0);
        assert!(refused.contains(said), "{refused}");
    }
}

/// A type's rules are given, shown, kept and changed by name; rows are shown as they were known.
#[test]
fn a_type_is_defined_and_read_as_it_was_known() {
    let place = Place::new();
    place.ok(words("series define s --duplicates last-wins --history 7d --retention 30d"));
    place.ok(words("series define s --duplicates last-wins --history 7d --retention 30d"));
    let refused = place.fails(words("series define s --duplicates reject"));
    assert!(refused.contains("redefine_series") && refused.contains("last-wins"), "{refused}");
    assert!(
        place.fails(words("series define s --duplicates reject --again")).contains("cannot become reject")
    );
    place.write("rows.csv", "t,k,x\n1000000000,a,1\n1000000000,b,2\n");
    place.ok(words("import rows.csv --series s --time t --key k"));
    let seq = place.json(words("status --format json"))["seq"].as_u64().unwrap();
    place.write("rows.csv", "t,k,x\n1000000000,a,3\n");
    place.ok(words("import rows.csv --series s --time t --key k"));
    let x = |options: &str| -> Vec<String> {
        let rows = place.csv(words(format!("series range s --format csv --columns x {options}").trim_end()));
        rows[1..].iter().map(|row| row[1].clone()).collect()
    };
    assert_eq!(x(""), ["2", "3"]);
    assert_eq!(x(&format!("--as-known-at {seq}")), ["1", "2"]);
    assert_eq!(x("--as-known now"), ["2", "3"]);
    assert!(place.fails(words("series range s --as-known-at 999999")).contains("not visible"));
    let info = place.json(words("series info s --format json"));
    assert_eq!(
        (info["duplicates"].as_str(), info["history_seconds"].as_u64()),
        (Some("last-wins"), Some(604_800))
    );
    assert_eq!((info["rows"].as_u64(), info["retention_seconds"].as_u64()), (Some(2), Some(2_592_000)));
    // What is not said again stays.
    let told = place.ok(words("series define s --skip-identical --again"));
    for rule in ["duplicates         last-wins", "skip identical     yes", "history seconds    604800"] {
        assert!(told.contains(rule), "{told}");
    }
    let told = place.ok(words("series define s --skip-identical=false --retention none --again"));
    for rule in ["skip identical     no", "history seconds    604800", "retention seconds\n"] {
        assert!(told.contains(rule), "{told}");
    }
    assert_eq!(x(&format!("--as-known-at {seq}")), ["1", "2"]);
}

/// An import says how many of its rows were added where some may be there already.
#[test]
fn rows_that_are_there_already_are_told() {
    let place = Place::new();
    place.ok(words("series define s --skip-identical"));
    place.write("rows.csv", "t,x\n1000000000,1\n1000000000,1\n1000000001,2\n");
    for added in [2, 0] {
        let told = place.json(words("import rows.csv --series s --time t --format json"));
        assert_eq!((told["rows"].as_u64(), told["added"].as_u64()), (Some(3), Some(added)));
    }
    let told = place.json(words("import rows.csv --series other --time t --format json"));
    assert_eq!((told["rows"].as_u64(), told.get("added")), (Some(3), None));
}

/// Decimals are read, asked for and printed as such, with every digit and on no way through a float.
#[test]
fn decimals_are_read_and_printed_exactly() {
    let place = Place::new();
    place.write("x.csv", "t,sym,price\n0,a,9007199254740.993\n60,a,-0.005\n120,b,1e1\n180,b,\n");
    let report = place
        .json(words("import x.csv --series s --time t --key sym --columns price:decimal(3) --format json"));
    assert_eq!(report["columns"], "sym utf8 key, price decimal(3)");
    let info = place.json(words("series info s --format json"));
    assert_eq!(info["fields"], "price decimal(3)");
    let csv = place.csv(words("series range s --format csv"));
    let prices: Vec<&str> = csv[1..].iter().map(|row| row[2].as_str()).collect();
    assert_eq!(prices, ["9007199254740.993", "-0.005", "10.000", ""]);
    let json = place.ok(words("series range s --format json"));
    assert!(json.contains("\"price\":9007199254740.993}") && json.contains("\"price\":10.000}"), "{json}");
    let tail = place.ok(words("tail s --format json"));
    assert!(tail.contains("\"price\":-0.005"), "{tail}");
    assert!(place.ok(words("series range s")).contains(" 10.000\n"));
    for (options, prices) in [
        ("--where price>=0.001", vec!["9007199254740.993", "10.000"]),
        ("--where price=-5e-3", vec!["-0.005"]),
        ("--where price<=-0.005", vec!["-0.005"]),
    ] {
        let rows = place.csv(words(&format!("export s {options}")));
        assert_eq!(rows[1..].iter().map(|row| row[2].as_str()).collect::<Vec<_>>(), prices, "{options}");
    }
    let bars =
        place.csv(words("series resample s --every 1h --sum price --last price --min price --format csv"));
    assert_eq!(bars[1][1..], ["9007199254750.988", "-0.005", "10.000"]);
    for (command, said) in [
        ("export s --where price>0.0005", "more than 3 digits"),
        ("series resample s --every 1h --mean price", "decimal(3)"),
        ("series resample s --every 1m --last price --fill 0", "decimal(3)"),
        ("series define s --columns price:decimal(2) --again", "decimal(3), not decimal(2)"),
        ("series define s --columns price:f64 --again", "decimals and of zones alone"),
        ("import x.csv --series s --time t --key sym --columns price:decimal(2)", "more than 2 digits"),
        ("import x.csv --series s --time t --key sym --columns price:decimal(7)", "does not fit in 64 bits"),
        ("import x.csv --series s --time t --key sym --columns price:utf8", "decimal(3), not utf8"),
    ] {
        let refused = place.fails(words(command));
        assert!(refused.contains(said), "{command}: {refused}");
    }
    let misused = place.run(words("import x.csv --series s --time t --columns price:decimal(19)"));
    assert!(misused.stderr.contains("0 to 18"), "{}", misused.stderr);
    // What the series knows is not said again; a place is told.
    place.write("y.csv", "t,sym,price\n240,c,0.0005\n");
    let refused = place.fails(words("import y.csv --series s --time t --key sym"));
    assert!(refused.contains("y.csv:2:3") && refused.contains("more than 3 digits"), "{refused}");
    place.write("y.csv", "t,sym,price\n240,c,NaN\n");
    assert!(place.fails(words("import y.csv --series s --time t --key sym")).contains("no decimal number"));
    place.write("y.csv", "t,sym,price\n240,c,7\n");
    place.ok(words("import y.csv --series s --time t --key sym"));
    assert_eq!(place.csv(words("series latest s -n 1 --format csv"))[1][2], "7.000");
    // A declared column is shown before it has rows.
    place.ok(words("series define fresh --columns strike:decimal(2),fee:decimal(18)"));
    assert_eq!(
        place.json(words("series info fresh --format json"))["declared"],
        "fee decimal(18), strike decimal(2)"
    );
    // Joins keep what each side holds, and refuse to compare what is not alike.
    place.write("z.csv", "t,k,sym,price\n0,1.5,a,2.25\n");
    place.ok(words("import z.csv --series z --time t --key k,sym --columns k:decimal(1),price:decimal(2)"));
    let joined = place.csv(words("series asof s z --by sym --format csv"));
    assert_eq!(joined[0], ["timestamp", "sym", "price", "k", "price_right"]);
    assert_eq!(joined[1][2..], ["9007199254740.993", "1.5", "2.25"]);
    assert!(place.fails(words("series asof s z --by price=k")).contains("decimal(1)"));
    assert_eq!(place.csv(words("series range z --key k=1.50 --format csv"))[1][1], "1.5");
}

/// Every file that is written holds decimals as they are, and gives them back with their scale.
#[test]
fn decimals_come_back_from_files() {
    let place = Place::new();
    place.write("x.csv", "t,price,fee\n0,92233720368547758.07,0.000000000000000001\n1,-0.01,9.223372036854775807\n2,,-9.223372036854775808\n");
    place.ok(words("import x.csv --series s --time t --columns price:decimal(2),fee:decimal(18)"));
    let expected = place.ok(words("series range s --format csv"));
    for file in ["a.csv", "a.jsonl", "a.arrow", "a.arrows"] {
        place.ok(words(&format!("export s --output {file}")));
        let types = if file.contains("arrow") { "" } else { " --columns price:decimal(2),fee:decimal(18)" };
        let to = file.replace('.', "_");
        place.ok(words(&format!("import {file} --series {to} --time timestamp{types}")));
        assert_eq!(place.ok(words(&format!("series range {to} --format csv"))), expected, "{file}");
    }
    if cfg!(feature = "parquet") {
        assert!(place.fails(words("export s --output a.parquet")).contains("more than 18 digits"));
        place.write(
            "x.csv",
            "t,price,fee\n0,9999999999999999.99,0.000000000000000001\n1,-0.01,-0.999999999999999999\n2,,\n",
        );
        place.ok(words("import x.csv --series p --time t --columns price:decimal(2),fee:decimal(18)"));
        place.ok(words("export p --output a.parquet"));
        place.ok(words("import a.parquet --series q --time timestamp"));
        assert_eq!(
            place.ok(words("series range q --format csv")),
            place.ok(words("series range p --format csv"))
        );
    }
    let text = std::fs::read_to_string(place.path("a.jsonl")).unwrap();
    assert!(text.contains("\"price\":92233720368547758.07,\"fee\":0.000000000000000001}"), "{text}");
}

/// Instants are shown as the clocks of their zone tell them, read back as they were, and local times are of it.
#[test]
fn instants_are_shown_in_their_zone() {
    let place = Place::new();
    place.ok(words(
        "series define s --columns timestamp:timestamp[America/New_York],at:timestamp[Asia/Tokyo]",
    ));
    assert_eq!(place.json(words("series info s --format json"))["zone"], "America/New_York");
    place.write("x.csv", "t,at\n2014-06-02T09:30:00,2014-06-02T22:30:00.000000001\n2014-12-01T09:30:00Z,\n");
    place.ok(words("import x.csv --series s --time t"));
    let expected = [
        ["2014-06-02T09:30:00-04:00", "2014-06-02T22:30:00.000000001+09:00"],
        ["2014-12-01T04:30:00-05:00", ""],
    ];
    assert_eq!(place.csv(words("series range s --format csv"))[1..], expected);
    let json = place.json(words("series range s --format json"));
    assert_eq!(json[0]["at"], "2014-06-02T22:30:00.000000001+09:00");
    let info = place.json(words("series info s --format json"));
    assert_eq!(info["fields"], "at timestamp[Asia/Tokyo]");
    let found = place.csv(words("export s --where at>=2014-06-02T13:30:00Z"));
    assert_eq!(found[1..], [expected[0].map(str::to_string)]);
    // The earliest instant stands behind an offset with seconds.
    place.write("y.csv", "t,at\n1677-09-21T00:12:43.145224192Z,1677-09-21T00:12:43.145224192Z\n");
    place.ok(words("import y.csv --series s --time t"));
    let shown = place.ok(words("series range s --format csv"));
    for file in ["a.csv", "a.jsonl", "a.arrow"] {
        place.ok(words(&format!("export s --output {file}")));
        let to = file.replace('.', "_");
        if file != "a.arrow" {
            place.ok(words(&format!("series define {to} --columns timestamp:timestamp[America/New_York]")));
        }
        let types = if file == "a.arrow" { "" } else { " --columns at:timestamp[Asia/Tokyo]" };
        place.ok(words(&format!("import {file} --series {to} --time timestamp{types}")));
        assert_eq!(place.ok(words(&format!("series range {to} --format csv"))), shown, "{file}");
    }
    for (command, said) in [
        (
            "series define s --columns at:timestamp[Europe/Berlin] --again",
            "timestamp[Asia/Tokyo], not timestamp[Europe/Berlin]",
        ),
        ("series define new --columns at:timestamp[Mars/Base]", "Mars/Base"),
        (
            "import x.csv --series s --time t --columns at:timestamp[Europe/Berlin]",
            "timestamp[Europe/Berlin]",
        ),
    ] {
        let refused = place.fails(words(command));
        assert!(refused.contains(said), "{command}: {refused}");
    }
}

/// Objects of JSON become columns of their paths, and rows of JSON are nested again, wherever they are printed.
#[test]
fn nested_objects_come_back_nested() {
    let place = Place::new();
    let lines = concat!(
        "{\"at\":{\"t\":0},\"bid\":{\"price\":1.5,\"of\":{\"n\":7,\"who\":\"a\"}},\"size\":3}\n",
        "{\"at\":{\"t\":60},\"bid\":null,\"size\":4}\n",
        "{\"at\":{\"t\":120},\"bid\":{\"price\":2.5,\"of\":{\"n\":null}}}\n",
    );
    place.write("x.jsonl", lines);
    let told = place.run(words("import x.jsonl --series s --time at.t --columns bid.price:decimal(2)"));
    assert_eq!((told.code, told.stderr.contains("no value")), (0, false), "{}", told.stderr);
    let csv = place.csv(words("series range s --format csv"));
    assert_eq!(csv[0], ["timestamp", "bid.price", "bid.of.n", "bid.of.who", "size"]);
    assert_eq!(csv[1][1..], ["1.50", "7", "a", "3"]);
    let expected = [
        "{\"timestamp\":\"1970-01-01T00:00:00Z\",\"bid\":{\"price\":1.50,\"of\":{\"n\":7,\"who\":\"a\"}},\"size\":3}",
        "{\"timestamp\":\"1970-01-01T00:01:00Z\",\"bid\":null,\"size\":4}",
        "{\"timestamp\":\"1970-01-01T00:02:00Z\",\"bid\":{\"price\":2.50,\"of\":null},\"size\":null}",
    ];
    assert_eq!(place.ok(words("series range s --format json")), format!("[\n{}\n]\n", expected.join(",\n")));
    assert_eq!(place.ok(words("tail s --format json")), expected.map(|line| format!("{line}\n")).concat());
    place.ok(words("export s --output y.jsonl"));
    let written = std::fs::read_to_string(place.path("y.jsonl")).unwrap();
    assert_eq!(written, expected.map(|line| format!("{line}\n")).concat());
    place.ok(words("import y.jsonl --series again --time timestamp --columns bid.price:decimal(2)"));
    assert_eq!(
        place.ok(words("series range again --format json")),
        place.ok(words("series range s --format json"))
    );
    assert_eq!(place.csv(words("export s --where bid.of.n=7"))[1..].len(), 1);
    let deep = format!("{{\"t\":0,\"x\":{}1{}}}", "{\"d\":".repeat(40), "}".repeat(40));
    for (line, said) in [
        ("{\"t\":0,\"x\":{\"y\":[1]}}", "z.jsonl:1: column \"x.y\": is a list"),
        ("{\"t\":0,\"x\":[1]}", "z.jsonl:1: column \"x\": is a list"),
        ("{\"t\":0,\"x\":{}}", "z.jsonl:1: column \"x\": is an empty object"),
        ("{\"t\":0,\"x\":{\"a.b\":1}}", "the last name is empty or has a dot"),
        ("{\"t\":0,\"x\":{\"\":1}}", "the last name is empty or has a dot"),
        ("{\"t\":0,\"a.b\":1}", "--rename"),
        ("{\"t\":0,\"x\":1}\n{\"t\":1,\"x\":{\"y\":1}}", "with \"x.y\" here and a value at z.jsonl:1"),
        ("{\"t\":0,\"x\":{\"y\":1,\"y\":2}}", "stands there twice"),
        (&deep, "32 levels"),
    ] {
        place.write("z.jsonl", line);
        let refused = place.fails(words("import z.jsonl --series z --time t"));
        assert!(refused.contains(said), "{line}: {refused}");
    }
    assert!(place.fails(words("series info z")).contains("no series"));
    place.write("z.jsonl", "{\"t\":0,\"a.b\":1}");
    place.ok(words("import z.jsonl --series z --time t --rename a.b=a_b"));
    place.write("z.jsonl", "{\"t\":0,\"size\":{\"x\":1}}");
    let refused = place.fails(words("import z.jsonl --series s --time t"));
    assert!(refused.contains("\"size\"") && refused.contains("\"size.x\""), "{refused}");
}
