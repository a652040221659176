//! Series into files, and back.

use std::cell::Cell;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use underbelly::{Batch, ColumnType, Columns, Database, Date, Timestamp, Value};

use crate::{Place, words};

/// A row of every type; the time apart.
type Row = (i64, Vec<Value>);

const TYPES: &str = "sym:utf8,b:bool,i:i64,j:i32,x:f64,y:f32,t:utf8,z:bytes,d:date,at:timestamp";

fn types() -> impl Iterator<Item = (&'static str, ColumnType)> {
    TYPES.split(',').map(|pair| {
        let (name, column_type) = pair.split_once(':').unwrap();
        (name, ColumnType::from_name(column_type).unwrap())
    })
}

fn value(column_type: ColumnType) -> BoxedStrategy<Value> {
    let extreme = |extremes: Vec<i64>| prop_oneof![any::<i64>(), prop::sample::select(extremes)];
    let text = prop_oneof![
        3 => "[\\PC\"',;\n\r\t\u{0}\\\\]{0,12}",
        1 => prop::sample::select(vec!["", " ", "\"", "NaN", "null", "007", "1e5", "true", "\r\n", "\u{0}"])
            .prop_map(str::to_string),
    ];
    match column_type {
        ColumnType::Bool => any::<bool>().prop_map(Value::from).boxed(),
        ColumnType::I64 => extreme(vec![i64::MIN, i64::MAX, 0, -1]).prop_map(Value::from).boxed(),
        ColumnType::I32 => {
            prop_oneof![any::<i32>(), Just(i32::MIN), Just(i32::MAX)].prop_map(Value::I32).boxed()
        }
        // Any bits: infinities, NaN, numbers below normal, minus zero.
        ColumnType::F64 => prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 1e300, 5e-324, 3.0])
        ]
        .prop_map(Value::from)
        .boxed(),
        ColumnType::F32 => prop_oneof![
            any::<u32>().prop_map(f32::from_bits),
            Just(f32::NAN),
            Just(-f32::INFINITY),
            Just(16_777_216.0)
        ]
        .prop_map(Value::F32)
        .boxed(),
        ColumnType::Utf8 => text.prop_map(Value::from).boxed(),
        ColumnType::Bytes => prop::collection::vec(any::<u8>(), 0..5).prop_map(Value::from).boxed(),
        ColumnType::Date => prop_oneof![any::<i32>(), Just(i32::MIN), Just(i32::MAX), -100_000i32..100_000]
            .prop_map(|days| Date(days).into())
            .boxed(),
        ColumnType::Timestamp => {
            extreme(vec![i64::MIN, i64::MAX, 0, 1_000_000_000]).prop_map(|at| Timestamp(at).into()).boxed()
        }
    }
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let columns: Vec<_> = types().map(|(_, t)| prop_oneof![4 => value(t), 1 => Just(Value::Null)]).collect();
    let time = prop_oneof![any::<i64>(), -3i64..3, Just(i64::MIN), Just(i64::MAX)];
    prop::collection::vec((time, columns), 1..30)
}

fn append(place: &Place, series: &str, rows: &[Row]) {
    let db = Database::open(place.db()).unwrap();
    let mut columns = Columns::with_types(types()).unwrap();
    rows.iter().for_each(|(_, row)| columns.push_row(row).unwrap());
    let times = rows.iter().map(|(time, _)| Timestamp(*time)).collect();
    let mut batch = Batch::new();
    batch.append_columns(series, times, columns, &["sym"]).unwrap();
    db.commit(batch).unwrap();
    db.close().unwrap();
}

/// All rows as text, which tells minus zero and NaN apart from their neighbours.
fn stored(place: &Place, series: &str) -> Vec<String> {
    let reader = Database::open_read_only(place.db()).unwrap();
    let rows = reader.snapshot().series(series).unwrap().scan().collect().unwrap();
    let names: Vec<String> = rows.names().iter().map(|name| name.to_string()).collect();
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by(|a, b| names[*a].cmp(&names[*b]));
    let row = |row: usize| {
        let values = rows.row(row);
        order.iter().map(|at| format!("{} {:?}", names[*at], values[*at])).collect::<Vec<_>>().join(", ")
    };
    (0..rows.rows()).map(row).collect()
}

/// Any rows of any type come back from a file of this form.
fn come_back(file: &str, export: &str, import: &str) {
    let place = Place::new();
    let mut runner = TestRunner::new(Config { cases: 12, failure_persistence: None, ..Config::default() });
    let case = Cell::new(0);
    let outcome = runner.run(&rows(), |rows| {
        case.set(case.get() + 1);
        let (from, to) = (format!("from{}", case.get()), format!("to{}", case.get()));
        append(&place, &from, &rows);
        let _ = std::fs::remove_file(place.path(file));
        place.ok(words(&format!("export {from} --output {file}{export}")));
        place.ok(words(&format!("import {file} --series {to} --time timestamp --key sym{import}")));
        prop_assert_eq!(stored(&place, &from), stored(&place, &to));
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn any_rows_come_back_from_csv() {
    let types = format!(" --columns {TYPES} --null \\N --keep-empty");
    come_back("rows.csv", " --null \\N", &types);
}

#[test]
fn any_rows_come_back_from_json_lines() {
    come_back("rows.jsonl", "", &format!(" --columns {TYPES}"));
}

#[test]
fn any_rows_come_back_from_arrow_files_and_streams() {
    come_back("rows.arrow", "", "");
    come_back("rows.arrows", "", "");
}

/// Batches, and row groups of a series and of Parquet, are shorter than this.
#[test]
fn rows_of_many_batches_come_back() {
    const ROWS: i64 = 300_000;
    let place = Place::new();
    let db = Database::open(place.db()).unwrap();
    let mut columns = Columns::with_types([("x", ColumnType::I64), ("s", ColumnType::Utf8)]).unwrap();
    for row in 0..ROWS {
        let text = if row % 7 == 0 { Value::Null } else { format!("t{row}").into() };
        columns.push_row(&[(row * 31).into(), text]).unwrap();
    }
    let mut batch = Batch::new();
    batch.append_columns("from", (0..ROWS).map(Timestamp).collect(), columns, &[] as &[&str]).unwrap();
    db.commit(batch).unwrap();
    db.close().unwrap();
    let all = |series: &str| {
        let reader = Database::open_read_only(place.db()).unwrap();
        reader.snapshot().series(series).unwrap().scan().columns(["x", "s"]).collect().unwrap()
    };
    let expected = all("from");
    assert_eq!(expected.rows() as i64, ROWS);
    let forms = ["csv", "jsonl", "arrow", "arrows", "parquet"];
    for form in &forms[..if cfg!(feature = "parquet") { 5 } else { 4 }] {
        place.ok(words(&format!("export from --output many.{form}")));
        place.ok(words(&format!("import many.{form} --series {form} --time timestamp")));
        assert!(all(form) == expected, "{form}");
    }
}

#[cfg(feature = "parquet")]
#[test]
fn any_rows_come_back_from_parquet() {
    come_back("rows.parquet", "", "");
}

#[cfg(not(feature = "parquet"))]
#[test]
fn without_parquet_it_is_said_how_to_get_it() {
    let place = some();
    assert!(place.fails(words("export s --output s.parquet")).contains("--features parquet"));
    assert!(!place.path("s.parquet").exists());
    place.write("t.parquet", "PAR1");
    assert!(
        place.fails(words("import t.parquet --series t --time timestamp")).contains("--features parquet")
    );
}

const SOME: &str = "time_ns,sym,price,note\n10,IBM,1.5,\"a,b\"\n20,AIG,2.5,\n30,IBM,NaN,x\n40,IBM,,\"\"\n";

fn some() -> Place {
    let place = Place::new();
    place.write("some.csv", SOME);
    place.ok(words("import some.csv --series s --time time_ns --key sym"));
    place
}

#[test]
fn parts_of_a_series_are_chosen() {
    let place = some();
    let text = place.ok(words("export s --columns price,sym"));
    assert_eq!(text.lines().next(), Some("timestamp,price,sym"));
    assert_eq!(text.lines().nth(1), Some("1970-01-01T00:00:00.00000001Z,1.5,IBM"));
    let rows = |options: &str| {
        let text = place.ok(words(format!("export s --format jsonl --columns price {options}").trim()));
        let prices = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        prices.map(|row| row["price"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(rows(""), ["1.5", "2.5", "\"NaN\"", "null"]);
    assert_eq!(rows("--key sym=IBM"), ["1.5", "\"NaN\"", "null"]);
    assert_eq!(rows("--where price<2.5"), ["1.5"]);
    assert_eq!(rows("--where price>=1.5 --where price!=NaN"), ["1.5", "2.5"]);
    assert_eq!(rows("--where price="), ["null"]);
    assert_eq!(rows("--where price!= --where sym=AIG"), ["2.5"]);
    let in_list = ["export", "s", "--format", "csv", "--columns", "price", "--where", "price in 2.5,,NaN,7"];
    assert_eq!(place.ok(in_list).lines().count(), 4);
    assert_eq!(
        rows("--from 1970-01-01T00:00:00.00000002Z --to 1970-01-01T00:00:00.00000004Z"),
        ["2.5", "\"NaN\""]
    );
    assert!(place.fails(words("export s --where none>1")).contains("none"));
    assert!(place.fails(words("export s --where price>x")).contains("\"x\" is no f64"));
    assert_eq!(place.run(words("export s --where price")).code, 2);
    assert!(place.fails(words("export none")).contains("no series has the type \"none\""));
}

#[test]
fn files_are_made_whole_or_not_at_all() {
    let place = some();
    let report = place.ok(words("export s --output s.arrow"));
    assert!(report.contains("rows") && report.contains('4'), "{report}");
    let error = place.fails(words("export s --output s.arrow"));
    assert!(error.contains("s.arrow") && error.contains("name another file"), "{error}");
    // A text that is the null's: what was begun is gone.
    let error = place.fails(words("export s --output s.csv --null x"));
    assert!(error.contains("column \"note\" holds \"x\""), "{error}");
    assert!(!place.path("s.csv").exists());
    let ended = place.run(words("export s --output t.csv"));
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
}

#[test]
fn files_whose_names_end_in_gz_are_zipped() {
    let place = some();
    for file in ["z.csv.gz", "z.jsonl.gz", "z.arrow.gz", "z.arrows.gz"] {
        place.ok(words(&format!("export s --output {file}")));
        let bytes = std::fs::read(place.path(file)).unwrap();
        assert_eq!(bytes[..2], [0x1f, 0x8b], "{file}");
        let to = file.replace('.', "_");
        place.ok(words(&format!("import {file} --series {to} --time timestamp --key sym")));
        assert_eq!(stored(&place, &to).len(), 4);
    }
    let run = place.run(words("export s --output z.parquet.gz"));
    assert!(run.code != 0 && !place.path("z.parquet.gz").exists(), "{}", run.stderr);
}

#[test]
fn an_export_that_is_killed_leaves_no_file_of_its_name() {
    let place = Place::new();
    let db = Database::open(place.db()).unwrap();
    let rows = 500_000;
    let mut batch = Batch::new();
    let columns = Columns::new().with("x", (0..rows).collect::<Vec<i64>>().into()).unwrap();
    batch.append_columns("big", (0..rows).map(Timestamp).collect(), columns, &[] as &[&str]).unwrap();
    db.commit(batch).unwrap();
    db.close().unwrap();
    let mut child = place.command(words("export big --output big.csv")).spawn().unwrap();
    let parts = || {
        let files = std::fs::read_dir(place.path("")).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".part")).collect::<Vec<_>>()
    };
    while parts().is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "it ended without a part");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!place.path("big.csv").exists());
    place.ok(words("export big --output big.csv"));
    let text = std::fs::read_to_string(place.path("big.csv")).unwrap();
    assert_eq!(text.lines().count(), rows as usize + 1);
    assert_eq!(parts().len(), 1, "only that of the one that was killed");
}

#[test]
fn what_files_begin_with_is_checked_before_rows_are_committed() {
    let place = some();
    place.ok(words("export s --output a.arrow"));
    place.ok(words("export s --columns sym --output b.arrow"));
    // What is wrong with rows is found later.
    let whole = std::fs::read(place.path("a.arrow")).unwrap();
    place.write("a.arrow", &whole[..whole.len() - 1]);
    let error = place.fails(words("import a.arrow b.arrow --series t --time timestamp --key price"));
    assert!(error.contains("b.arrow") && error.contains("there is no column \"price\""), "{error}");
    assert!(place.fails(words("series info t")).contains("no series"));
}

#[test]
fn streams_one_behind_another_are_refused() {
    let place = some();
    place.ok(words("export s --output a.arrows"));
    let stream = std::fs::read(place.path("a.arrows")).unwrap();
    place.write("two.arrows", [&stream[..], &stream[..]].concat());
    let error = place.fails(words("import two.arrows --series t --time timestamp"));
    assert!(error.contains("two.arrows") && error.contains("behind the end"), "{error}");
}

#[test]
fn numbers_that_the_field_of_a_series_does_not_hold_are_refused() {
    let place = some();
    place.write("n.jsonl", "{\"t\":1,\"price\":1}\n{\"t\":2,\"price\":9007199254740993}\n");
    let error = place.fails(words("import n.jsonl --series s --time t"));
    assert!(error.contains("n.jsonl:2: column \"price\"") && error.contains("does not hold"), "{error}");
    assert_eq!(stored(&place, "s").len(), 4);
}

#[test]
fn damaged_files_are_refused_with_what_was_committed() {
    let place = some();
    place.ok(words("export s --output s.arrow"));
    let whole = std::fs::read(place.path("s.arrow")).unwrap();
    for cut in [0, 5, 9, 200, whole.len() - 1] {
        place.write("cut.arrow", &whole[..cut]);
        let error = place.fails(words("import cut.arrow --series cut --time timestamp --key sym"));
        assert!(error.contains("cut.arrow"), "{error}");
    }
    for (line, what) in [
        ("{\"time_ns\":1,\"x\":1", "lines.jsonl:2: the line is no JSON object"),
        ("{\"x\":1}", "lines.jsonl:2: column \"time_ns\": the time is missing"),
        (
            "{\"time_ns\":1,\"x\":{\"y\":1}}",
            "lines.jsonl:2: column \"x.y\": column \"x\" is an object with \"x.y\" here and a value at lines.jsonl:1",
        ),
        ("{\"time_ns\":1,\"x\":[1]}", "column \"x\": is a list"),
        ("{\"time_ns\":1,\"x\":\"text\"}", "column \"x\" has another kind of value than at lines.jsonl:1"),
        ("{\"time_ns\":1,\"x\":1,\"x\":2}", "column \"x\": the name stands there twice"),
        ("{\"time_ns\":\"then\",\"x\":1}", "then"),
    ] {
        place.write("lines.jsonl", format!("{{\"time_ns\":0,\"x\":0}}\n{line}\n"));
        let error = place.fails(words("import lines.jsonl --series lines --time time_ns"));
        assert!(error.contains(what), "{error}");
        assert!(place.fails(words("series info lines")).contains("no series"), "{line}");
    }
    assert!(
        place.fails(words("import s.arrow --series t --time none")).contains("there is no column \"none\"")
    );
    assert!(
        place
            .fails(words("import s.arrow --series t --time timestamp --null x"))
            .contains("--null is nothing")
    );
    assert!(
        place.fails(words("import some.csv s.arrow --series t --time timestamp")).contains("several forms")
    );
    place.write("what.txt", "");
    assert!(place.fails(words("import what.txt --series t --time t")).contains("--from"));
}

#[test]
fn kinds_of_json_values_become_types() {
    let place = Place::new();
    let lines = "{\"t\":1,\"b\":true,\"i\":7,\"x\":1,\"s\":\"007\",\"n\":null}\n\n{\"x\":\"-inf\",\"t\":2,\"u\":\"\\u00e9\\\"\"}\n";
    place.write("l.jsonl", lines);
    let ended = place.run(words("import l.jsonl --series s --time t --unit ns --format json --rename i=j"));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("column \"n\" has no value"), "{}", ended.stderr);
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["columns"], "b bool, j i64, x f64, s utf8, u utf8");
    let rows = place.json(words("series range s --format json"));
    assert_eq!((&rows[0]["s"], &rows[1]["s"]), (&"007".into(), &serde_json::Value::Null));
    assert_eq!((&rows[1]["x"], &rows[1]["u"]), (&"-inf".into(), &"é\"".into()));
}

/// What pyarrow makes is read, and what we make it reads, where a Python with it is there.
#[test]
fn pyarrow_reads_and_writes_the_same() {
    let Some(python) = std::env::var_os("UNDERBELLY_PYTHON").map(PathBuf::from) else {
        // The harness would swallow what is printed.
        let _ = writeln!(std::io::stderr(), "SKIPPED: UNDERBELLY_PYTHON names no Python with pyarrow");
        return;
    };
    let place = some();
    place.ok(words("export s --output ours.arrow"));
    let script = r#"
import pyarrow as pa, pyarrow.ipc as ipc
ours = ipc.open_file("ours.arrow").read_all()
assert ours.column("sym").to_pylist() == ["IBM", "AIG", "IBM", "IBM"]
assert ours.column("timestamp").type == pa.timestamp("ns", "UTC")
assert ours.column("price").to_pylist()[3] is None
theirs = pa.table({
    "when": pa.array([1, 2, 3], pa.timestamp("ms")),
    "sym": pa.array(["a", None, "a"]).dictionary_encode(),
    "n": pa.array([1, None, 3], pa.int8()),
    "s": pa.array(["é", "", None], pa.large_string()),
})
with ipc.new_file("theirs.arrow", theirs.schema) as out:
    out.write_table(theirs, max_chunksize=2)
"#;
    place.write("go.py", script);
    let output = Command::new(python).arg("go.py").current_dir(place.path("")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    place.ok(words("import theirs.arrow --series theirs --time when --key sym"));
    let rows = place.json(words("series range theirs --format json"));
    let expected = serde_json::json!([
        {"timestamp": "1970-01-01T00:00:00.001Z", "sym": "a", "n": 1, "s": "é"},
        {"timestamp": "1970-01-01T00:00:00.002Z", "sym": null, "n": null, "s": ""},
        {"timestamp": "1970-01-01T00:00:00.003Z", "sym": "a", "n": 3, "s": null},
    ]);
    assert_eq!(rows, expected);
}
