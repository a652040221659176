//! What columns hold beside what is stored: decimals, instants of a zone, values of nested objects.

use std::path::Path;

use crate::{Place, words};

/// Rows of CSV below the header, without the columns before `from`.
fn rows(place: &Place, command: &str, from: usize) -> Vec<Vec<String>> {
    place.csv(words(command)).into_iter().skip(1).map(|row| row[from..].to_vec()).collect()
}

/// A series whose time is of New York, with a column of Tokyo.
fn zoned() -> Place {
    let place = Place::new();
    place.ok(words(
        "series define s --columns timestamp:timestamp[America/New_York],at_ns:timestamp[Asia/Tokyo],at:timestamp[Asia/Tokyo]",
    ));
    place
}

#[test]
fn numbers_go_into_columns_of_a_zone() {
    let place = zoned();
    place.write("x.csv", "t,at_ns\n1401715800,1401715800000000001\n1401715801.5,\n");
    place.write("y.csv", "t_ms,at_ns\n1401715802000,1401715800000000002\n");
    place.write("z.jsonl", "{\"t\":1401715803,\"at_ns\":1401715800000000003}\n");
    let report = place.json(words("import x.csv --series s --time t --format json"));
    assert_eq!(report["first"], "2014-06-02T09:30:00-04:00");
    assert_eq!(report["last"], "2014-06-02T09:30:01.5-04:00");
    place.ok(words("import y.csv --series s --time t_ms"));
    place.ok(words("import z.jsonl --series s --time t"));
    let expected = [
        ["2014-06-02T09:30:00-04:00", "2014-06-02T22:30:00.000000001+09:00"],
        ["2014-06-02T09:30:01.5-04:00", ""],
        ["2014-06-02T09:30:02-04:00", "2014-06-02T22:30:00.000000002+09:00"],
        ["2014-06-02T09:30:03-04:00", "2014-06-02T22:30:00.000000003+09:00"],
    ];
    assert_eq!(rows(&place, "series range s --format csv", 0), expected);
    place.write("n.csv", "t,at_ns\n1401715800,1401715800000000001\n");
    place.ok(words("import n.csv --series n --time t --columns at_ns:timestamp[Asia/Tokyo]"));
    assert_eq!(rows(&place, "series range n --format csv", 1), [["2014-06-02T22:30:00.000000001+09:00"]]);
    // Who gives a zone means texts.
    let refused = place.fails(words("import x.csv --series s --time t --zone Asia/Tokyo"));
    assert!(refused.contains("leave --zone out"), "{refused}");
}

#[test]
fn the_time_of_files_is_given_a_zone() {
    let place = Place::new();
    place.write("x.csv", "t,x\n2014-06-02T09:30:00,1\n");
    place.write("x.jsonl", "{\"t\":\"2014-06-02T09:30:00\",\"x\":1}\n");
    for (file, series) in [("x.csv", "c"), ("x.jsonl", "j")] {
        let import = format!("import {file} --series {series} --time t --format json --columns t:");
        for (given, said) in [
            ("i64", "the time and cannot be i64"),
            ("decimal(3)", "the time and cannot be decimal(3)"),
            ("timestamp[Mars/Base]", "Mars/Base"),
        ] {
            let refused = place.fails(words(&format!("{import}{given}")));
            assert!(refused.contains(said), "{refused}");
        }
        let refused = place.fails(words(&format!("import {file} --series {series} --time t --key t")));
        assert!(refused.contains("\"t\" is the time; it cannot be a key too"), "{refused}");
        let report = place.json(words(&format!("{import}timestamp[America/New_York]")));
        assert_eq!(report["first"], "2014-06-02T09:30:00-04:00", "{file}");
        let info = place.json(words(&format!("series info {series} --format json")));
        assert_eq!(info["zone"], "America/New_York");
        // What is not said is what the series has; another zone is refused.
        let report = place.json(words(&format!("{import}timestamp")));
        assert_eq!(report["first"], "2014-06-02T09:30:00-04:00", "{file}");
        let refused = place.fails(words(&format!("{import}timestamp[Asia/Tokyo]")));
        assert!(refused.contains("timestamp[America/New_York], not timestamp[Asia/Tokyo]"), "{refused}");
        // How it is read is another thing than how it is shown.
        let report = place.json(words(&format!("{import}timestamp[America/New_York] --zone Asia/Tokyo")));
        assert_eq!(report["first"], "2014-06-01T20:30:00-04:00", "{file}");
    }
}

#[test]
fn instants_whose_zone_is_not_said_are_of_that_of_the_column() {
    let place = zoned();
    place.write("x.csv", "t,at\n2014-06-02T09:30:00,2014-06-02T22:30\n");
    place.write("x.jsonl", "{\"t\":\"2014-06-02T09:31:00\",\"at\":\"2014-06-02T22:31\"}\n");
    for file in ["x.csv", "x.jsonl"] {
        let report = place
            .json(words(&format!("import {file} --series s --time t --columns at:timestamp --format json")));
        assert_eq!(report["columns"], "at timestamp[Asia/Tokyo]");
    }
    let expected = [["2014-06-02T22:30:00+09:00"], ["2014-06-02T22:31:00+09:00"]];
    assert_eq!(rows(&place, "series range s --columns at --format csv", 1), expected);
}

#[test]
fn local_times_that_the_clocks_of_a_series_skip_or_repeat_are_errors() {
    let place = zoned();
    for (time, said) in
        [("2014-03-09 02:30:00", "does not exist in"), ("2014-11-02 01:30:00", "ambiguous in")]
    {
        place.write("x.csv", format!("t,x\n{time},1\n"));
        place.write("x.jsonl", format!("{{\"t\":\"{time}\",\"x\":1}}\n"));
        for (file, at) in [("x.csv", "x.csv:2:1"), ("x.jsonl", "x.jsonl:1")] {
            let refused = place.fails(words(&format!("import {file} --series s --time t")));
            assert!(refused.contains(&format!("{said} America/New_York")), "{refused}");
            assert!(refused.contains(at), "{refused}");
        }
    }
    place.write("y.csv", "t,x\n2014-11-02 01:30:00-05:00,1\n");
    place.ok(words("import y.csv --series s --time t"));
    assert_eq!(rows(&place, "series range s --format csv", 0), [["2014-11-02T01:30:00-05:00", "1"]]);
}

/// On a machine without its zone, a series' local times are not read as those of UTC.
#[test]
fn local_times_of_a_zone_that_is_unknown_here_are_refused() {
    let zones = Path::new("/usr/share/zoneinfo");
    if !zones.join("Asia/Tokyo").exists() {
        eprintln!("skipped: this machine has no zones in {}", zones.display());
        return;
    }
    let place = zoned();
    std::fs::create_dir_all(place.path("zones/Asia")).unwrap();
    std::fs::copy(zones.join("Asia/Tokyo"), place.path("zones/Asia/Tokyo")).unwrap();
    let elsewhere = |line: &str| {
        let mut command = place.command(words(line));
        let output = command.env("TZDIR", place.path("zones")).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    place.write("x.csv", "t,x\n2014-06-02T09:30:00,1\n");
    place.write("x.jsonl", "{\"t\":\"2014-06-02T09:30:00\",\"x\":1}\n");
    for file in ["x.csv", "x.jsonl"] {
        let (is_done, said) = elsewhere(&format!("import {file} --series s --time t"));
        assert!(!is_done && said.contains("does not know the zone \"America/New_York\""), "{said}");
        assert!(said.contains(file) && said.contains("\"t\""), "{said}");
        let (is_done, said) = elsewhere(&format!("import {file} --series s --time t --zone Asia/Tokyo"));
        assert!(is_done, "{said}");
    }
    place.write("y.csv", "t,x\n2014-06-02T09:30:00Z,2\n");
    let (is_done, said) = elsewhere("import y.csv --series s --time t");
    assert!(is_done, "{said}");
    assert_eq!(rows(&place, "series range s --format csv", 0)[2], ["2014-06-02T05:30:00-04:00", "2"]);
}

/// A join tells which side a column is of, also where only one of two with a name is read.
#[test]
fn joins_hold_what_their_sides_hold() {
    let place = Place::new();
    place.write("l.csv", "t,sym,price\n0,a,1.125\n60,a,\n");
    place.write("r.csv", "t,sym,price,n,n_right\n0,a,2.25,7.50,500\n");
    place.ok(words("import l.csv --series l --time t --key sym --columns price:decimal(3)"));
    place.ok(words("import l.csv --series plain --time t --key sym"));
    place.ok(words("series define r --columns timestamp:timestamp[America/New_York]"));
    place.ok(words("import r.csv --series r --time t --key sym --columns price:decimal(2),n:decimal(2)"));
    let joined = |options: &str| rows(&place, &format!("series asof {options} --limit 1 --format csv"), 1);
    assert_eq!(joined("l r --by sym --columns sym --other-columns price"), [["a", "2.25"]]);
    assert_eq!(joined("plain r --by sym --columns sym --other-columns price"), [["a", "2.25"]]);
    assert_eq!(joined("l r --by sym --other-columns price"), [["a", "1.125", "2.25"]]);
    assert_eq!(joined("plain r --by sym --other-columns price"), [["a", "1.125", "2.25"]]);
    assert_eq!(joined("l r --by sym --other-columns n,n_right"), [["a", "1.125", "7.50", "500"]]);
    assert_eq!(
        joined("l r --by sym --columns price --other-columns n --other-time at"),
        [["1.125", "a", "1969-12-31T19:00:00-05:00", "7.50"]]
    );
    // Both have `n`: what is called `n_right` is the other's, whatever else it has.
    place.write("n.csv", "t,sym,n\n0,a,3\n");
    place.ok(words("import n.csv --series n --time t --key sym"));
    assert_eq!(joined("n r --by sym --other-columns n"), [["a", "3", "7.50"]]);
    assert_eq!(joined("n r --by n=n_right --columns n --other-columns price"), [["3", ""]]);
}

/// Decimals that count the time do so with the digits behind their point.
#[test]
fn decimals_count_the_time_of_files() {
    let place = Place::new();
    place.write("x.csv", "t,time,time_ms\n0,1401715800.800,1401715800800.5\n");
    place.ok(words("import x.csv --series s --time t --columns time:decimal(3),time_ms:decimal(1)"));
    let files = ["a.arrow", "a.arrows", "a.parquet"];
    for file in &files[..if cfg!(feature = "parquet") { 3 } else { 2 }] {
        place.ok(words(&format!("export s --output {file}")));
        for (time, first) in [("time", "2014-06-02T13:30:00.8Z"), ("time_ms", "2014-06-02T13:30:00.8005Z")] {
            let to = format!("{time}_{}", file.replace('.', "_"));
            let options = "--rename timestamp=t --format json";
            let report = place.json(words(&format!("import {file} --series {to} --time {time} {options}")));
            assert_eq!(report["first"], first, "{file} {time}");
        }
    }
}

/// An Arrow file's zone is that of a column which has none; elsewhere its instants are what counts.
#[test]
fn the_zone_of_a_file_counts_where_the_series_has_none() {
    let place = Place::new();
    place.write("x.csv", "t,at\n2014-06-02T13:30:00Z,2014-06-02T13:30:00Z\n");
    for (series, zone) in [("berlin", "Europe/Berlin"), ("etc", "Etc/UTC")] {
        let types = format!("t:timestamp[{zone}],at:timestamp[{zone}]");
        place.ok(words(&format!("import x.csv --series {series} --time t --columns {types}")));
        place.ok(words(&format!("export {series} --output {series}.arrow")));
        place.ok(words(&format!("export {series} --output {series}.arrows")));
    }
    let berlin = ["2014-06-02T15:30:00+02:00", "2014-06-02T15:30:00+02:00"];
    // Of two files in one import, and of a second import.
    for files in ["berlin.arrow etc.arrow", "berlin.arrows etc.arrows"] {
        let series = if files.contains("arrows") { "streams" } else { "files" };
        let report =
            place.json(words(&format!("import {files} --series {series} --time timestamp --format json")));
        assert_eq!(report["columns"], "at timestamp[Europe/Berlin]");
        assert_eq!(report["last"], berlin[0]);
        let second = files.split(' ').next_back().unwrap();
        let report =
            place.json(words(&format!("import {second} --series {series} --time timestamp --format json")));
        assert_eq!(report["columns"], "at timestamp[Europe/Berlin]");
        assert_eq!(rows(&place, &format!("series range {series} --format csv"), 0), [berlin; 3]);
    }
    // A series of rows whose zone nobody named gets it.
    place.ok(words("import x.csv --series late --time t --columns at:timestamp"));
    place.ok(words("import berlin.arrow --series late --time timestamp"));
    assert_eq!(rows(&place, "series range late --format csv", 0), [berlin; 2]);
    // Where nobody knows the zone the instants are taken, and nothing is said of it.
    std::fs::create_dir_all(place.path("zones/Asia")).unwrap();
    let Ok(_) = std::fs::copy("/usr/share/zoneinfo/Asia/Tokyo", place.path("zones/Asia/Tokyo")) else {
        return;
    };
    let mut elsewhere = place.command(words("import berlin.arrow --series far --time timestamp"));
    let output = elsewhere.env("TZDIR", place.path("zones")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(rows(&place, "series range far --format csv", 0), [["2014-06-02T13:30:00Z"; 2]]);
}

/// Aggregates that are one of the values are shown as these are.
#[test]
fn instants_of_windows_are_shown_in_their_zone() {
    let place = zoned();
    place
        .write("x.csv", "t,at\n2014-06-02T09:30:00,2014-06-02T22:30\n2014-06-02T09:31:00,2014-06-02T22:00\n");
    place.ok(words("import x.csv --series s --time t"));
    let windows =
        "series resample s --every 1h --min at --max at --first at --last at --count at --format csv";
    let (late, early) = ("2014-06-02T22:30:00+09:00", "2014-06-02T22:00:00+09:00");
    assert_eq!(rows(&place, windows, 0), [["2014-06-02T09:00:00-04:00", early, late, late, early, "2"]]);
    let info = place.json(words("series info s --format json"));
    let (first, last) = ("2014-06-02T09:30:00-04:00", "2014-06-02T09:31:00-04:00");
    assert_eq!((&info["first"], &info["last"]), (&first.into(), &last.into()));
    let listed = place.json(words("series ls --format json"));
    assert_eq!((&listed[0]["first"], &listed[0]["last"]), (&first.into(), &last.into()));
}

/// A definition that is refused for one of its parts changes nothing.
#[test]
fn a_refused_definition_changes_nothing() {
    let place = Place::new();
    place.ok(words("series define s --retention 30d"));
    let info = || place.json(words("series info s --format json"));
    let before = info();
    for (options, said) in [
        ("--again --duplicates last-wins --columns at:timestamp[Mars/Base]", "Mars/Base"),
        ("--again --duplicates last-wins --columns p:decimal(2),p:decimal(3)", "decimal(2)"),
        ("--duplicates last-wins --columns p:decimal(2)", "redefine_series"),
    ] {
        let refused = place.fails(words(&format!("series define s {options}")));
        assert!(refused.contains(said), "{refused}");
        assert_eq!(info(), before, "{options}");
    }
    place.ok(words("series define s --again --duplicates last-wins --columns p:decimal(2)"));
    assert_eq!((&info()["duplicates"], &info()["declared"]), (&"last-wins".into(), &"p decimal(2)".into()));
    // What is kept all the same is told.
    let refused = place.fails(words("series define s --again --duplicates reject --columns q:decimal(2)"));
    assert!(refused.contains("what --columns says was kept"), "{refused}");
    // A new type has its rules and its columns.
    place.ok(words("series define new --duplicates last-wins --columns p:decimal(2)"));
    let info = place.json(words("series info new --format json"));
    assert_eq!((&info["duplicates"], &info["declared"]), (&"last-wins".into(), &"p decimal(2)".into()));
    place.ok(words("series define new --duplicates last-wins --columns p:decimal(2)"));
}

#[test]
fn what_stands_twice_in_a_line_is_refused() {
    let place = Place::new();
    for (line, said) in [
        ("{\"t\":0,\"x\":{\"y\":1},\"x\":{\"z\":2}}", "z.jsonl:1: column \"x\": the name stands there twice"),
        ("{\"t\":0,\"x\":null,\"x\":{\"y\":1}}", "z.jsonl:1: column \"x\": the name stands there twice"),
        ("{\"t\":0,\"x\":{\"y\":1},\"x\":null}", "z.jsonl:1: column \"x\": the name stands there twice"),
        (
            "{\"t\":0,\"x\":{\"y\":{\"a\":1},\"y\":{\"b\":1}}}",
            "z.jsonl:1: column \"x.y\": the name stands there twice",
        ),
        ("{\"t\":0,\"x\":{\"y\":1},\"\\u0078\":{\"z\":2}}", "z.jsonl:1: column \"x\""),
        ("{\"t\":0,\"x\":1,\"x\":2}", "z.jsonl:1: column \"x\": the name stands there twice"),
    ] {
        place.write("z.jsonl", line);
        let refused = place.fails(words("import z.jsonl --series z --time t"));
        assert!(refused.contains(said), "{line}: {refused}");
    }
    let lines = "{\"t\":0,\"x\":null}\n{\"t\":1,\"x\":{\"y\":1}}\n{\"t\":2,\"x\":7}\n";
    place.write("z.jsonl", lines);
    let refused = place.fails(words("import z.jsonl --series z --time t"));
    let said =
        "z.jsonl:2: column \"x.y\": column \"x\" is an object with \"x.y\" here and a value at z.jsonl:3";
    assert!(refused.contains(said), "{refused}");
}

/// A long name is not copied for each of many values in it.
#[test]
fn paths_longer_than_a_name_are_refused() {
    let place = Place::new();
    let long = "n".repeat(250);
    place.write("z.jsonl", format!("{{\"t\":0,\"{long}\":{{\"abcde\":1}}}}"));
    let refused = place.fails(words("import z.jsonl --series z --time t"));
    assert!(refused.contains("z.jsonl:1") && refused.contains("longer than 255 bytes"), "{refused}");
    place.ok(words(&format!("import z.jsonl --series z --time t --rename {long}.abcde=x")));
    assert_eq!(rows(&place, "series range z --format csv", 1), [["1"]]);
    place.write("z.jsonl", format!("{{\"{long}\":{{\"of\":{{\"t\":60}}}},\"x\":2}}"));
    place.ok(words(&format!("import z.jsonl --series z --time {long}.of.t")));
    place.write("z.jsonl", format!("{{\"t\":0,\"{long}\":{{\"abcd\":1}}}}"));
    place.ok(words("import z.jsonl --series long --time t"));
    // As large as a line may be: some 7 GiB, if it were.
    let members: Vec<String> = (0..30_000).map(|member| format!("\"{member}\":0")).collect();
    place.write("z.jsonl", format!("{{\"t\":0,\"{}\":{{{}}}}}", "n".repeat(256 << 10), members.join(",")));
    let refused = place.fails(words("import z.jsonl --series z --time t"));
    assert!(refused.contains("longer than 255 bytes") && refused.len() < 1000, "{}", refused.len());
}

/// Decimals of other writers of Parquet: as bytes of one length or of any, and by the type of old.
#[cfg(feature = "parquet")]
#[test]
fn decimals_of_parquet_are_read_in_all_their_forms() {
    use parquet::basic::{ConvertedType, LogicalType, Type as Physical};
    use parquet::data_type::{
        ByteArray, ByteArrayType, FixedLenByteArray, FixedLenByteArrayType, Int32Type, Int64Type,
    };
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::types::Type;
    use std::sync::Arc;

    let place = Place::new();
    let write = |file: &str, first: i128| {
        let decimal = |name: &'static str, physical, precision: i32, scale: i32| {
            let builder =
                Type::primitive_type_builder(name, physical).with_precision(precision).with_scale(scale);
            builder.with_logical_type(Some(LogicalType::decimal(scale, precision)))
        };
        let old = Type::primitive_type_builder("old", Physical::INT32).with_precision(9).with_scale(1);
        let fields = [
            Type::primitive_type_builder("time", Physical::INT64),
            decimal("fixed", Physical::FIXED_LEN_BYTE_ARRAY, 38, 2).with_length(16),
            decimal("bytes", Physical::BYTE_ARRAY, 20, 3),
            old.with_converted_type(ConvertedType::DECIMAL),
        ];
        let fields = fields.map(|field| Arc::new(field.build().unwrap())).to_vec();
        let schema = Arc::new(Type::group_type_builder("schema").with_fields(fields).build().unwrap());
        let out = std::fs::File::create(place.path(file)).unwrap();
        let mut writer = SerializedFileWriter::new(out, schema, Arc::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        // Two rows, the second of which is null but for its time.
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&[0, 1], Some(&[1, 1]), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let fixed = FixedLenByteArray::from(first.to_be_bytes().to_vec());
        column.typed::<FixedLenByteArrayType>().write_batch(&[fixed], Some(&[1, 0]), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let bytes = ByteArray::from(vec![0x04, 0xd2]);
        column.typed::<ByteArrayType>().write_batch(&[bytes], Some(&[1, 0]), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int32Type>().write_batch(&[-15], Some(&[1, 0]), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
    };
    write("x.parquet", -15_050);
    let report = place.json(words("import x.parquet --series s --time time --format json"));
    assert_eq!(report["columns"], "fixed decimal(2), bytes decimal(3), old decimal(1)");
    let expected = [["-150.50", "1.234", "-1.5"], ["", "", ""]];
    assert_eq!(rows(&place, "series range s --format csv", 1), expected);
    // The same where the file lies.
    std::fs::create_dir(place.path("d")).unwrap();
    std::fs::rename(place.path("x.parquet"), place.path("d").join("x.parquet")).unwrap();
    assert_eq!(rows(&place, "series range ./d --time time --format csv", 1), expected);
    let range = "series range ./d --time time --where fixed<=-150.5 --columns fixed --format csv";
    assert_eq!(rows(&place, range, 1), [["-150.50"]]);
    write("y.parquet", i128::from(i64::MAX) + 1);
    let refused = place.fails(words("import y.parquet --series t --time time"));
    assert!(refused.contains("column \"fixed\" has a decimal that does not fit in 64 bits"), "{refused}");
    std::fs::rename(place.path("y.parquet"), place.path("d").join("y.parquet")).unwrap();
    let refused = place.fails(words("series range ./d --time time"));
    assert!(refused.contains("y.parquet") && refused.contains("does not fit in 64 bits"), "{refused}");
}
