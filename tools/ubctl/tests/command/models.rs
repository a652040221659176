//! Models as bytes with a dict.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Stdio;

use crate::Place;

const SMILE: &str = r#"{"type":"smile","underlying":"AAPL","timestamp":"2014-06-02T20:00:00Z"}"#;

#[test]
fn blobs_come_back_byte_for_byte() {
    let place = Place::new();
    let blob: Vec<u8> = (0..=255u8).cycle().take(2_000_000).collect();
    place.write("blob", &blob);
    let put = place.ok(["model", "put", "blob", "--meta", SMILE]);
    assert!(put.contains("version  1"), "{put}");
    let find = r#"{"type":"smile","underlying":"AAPL"}"#;
    let output = place.command(["model", "get", "--meta", find]).output().unwrap();
    assert!(output.status.success() && output.stdout == blob);
    place.write("meta.json", find);
    place.ok(["model", "get", "--meta", "@meta.json", "--output", "copy"]);
    assert_eq!(std::fs::read(place.path("copy")).unwrap(), blob);
}

#[test]
fn standard_input_makes_the_next_version() {
    let place = Place::new();
    place.write("blob", "one");
    place.ok(["model", "put", "blob", "--meta", SMILE]);
    let mut child = place
        .command(["model", "put", "-", "--now", "--meta", r#"{"type":"smile","underlying":"AAPL"}"#])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"two").unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
    assert_eq!(place.ok(["model", "get", "--meta", SMILE]), "two");
    let models = place.json(["model", "ls", "--type", "smile", "--format", "json"]);
    assert_eq!((&models[0]["version"], &models[0]["bytes"]), (&2.into(), &3.into()));
    assert_eq!(place.json(["model", "ls", "--type", "other", "--format", "json"]), serde_json::json!([]));
}

#[test]
fn removed_models_are_gone_and_begin_anew() {
    let place = Place::new();
    place.write("blob", "one");
    (0..2).for_each(|_| drop(place.ok(["model", "put", "blob", "--meta", SMILE])));
    let find = r#"{"type":"smile","underlying":"AAPL"}"#;
    let removed = place.ok(["model", "rm", "--meta", find]);
    assert!(removed.contains("versions  2"), "{removed}");
    assert!(place.fails(["model", "rm", "--meta", find]).contains("ubctl model ls"));
    assert!(place.fails(["model", "get", "--meta", find]).contains("no model has this identity"));
    assert!(place.ok(["model", "put", "blob", "--meta", SMILE]).contains("version  1"));
}

#[test]
fn models_are_listed_by_their_attributes() {
    let place = Place::new();
    place.write("blob", "x");
    for (i, fit) in [r#"{"desk":"fx","k":1}"#, r#"{"desk":"fx","k":1.0}"#, r#"{"desk":["eq","1"],"k":true}"#]
        .into_iter()
        .enumerate()
    {
        let meta = format!(r#"{{"type":"smile","i":{i},"fit":{fit},"timestamp":"2014-06-02T20:00:0{i}Z"}}"#);
        place.ok(["model", "put", "blob", "--meta", &meta]);
    }
    let listed = |given: &[&str]| -> Vec<i64> {
        let models = place.json(["model", "ls", "--format", "json"].iter().chain(given));
        let number = |model: &serde_json::Value| model["metadata"]["i"].as_i64().unwrap();
        models.as_array().unwrap().iter().map(number).collect()
    };
    let found = |conditions: &[&str]| {
        let given: Vec<&str> = conditions.iter().flat_map(|condition| ["--where", condition]).collect();
        let mut numbers = listed(&given);
        numbers.sort_unstable();
        numbers
    };
    assert_eq!(found(&[]), [0, 1, 2]);
    assert_eq!(found(&["fit.desk=fx"]), [0, 1]);
    assert_eq!(found(&["fit.desk=fx", "fit.k=1"]), [0]);
    assert_eq!(found(&["fit.k=1.0"]), [1]);
    assert_eq!(found(&["fit.k=true"]), [2]);
    assert_eq!(found(&["fit.desk=eq"]), [2]);
    assert_eq!(found(&["fit.desk=1"]), [0; 0]);
    assert_eq!(found(&["fit.desk=\"1\""]), [2]);
    assert_eq!(found(&["timestamp=2014-06-02T20:00:01Z"]), [1]);
    assert_eq!(found(&["type=other"]), [0; 0]);
    assert_eq!(found(&["fit.k>=1"]), [0, 1]);
    assert_eq!(found(&["i>0", "i<=1"]), [1]);
    assert_eq!(found(&["i<1"]), [0]);
    assert_eq!(found(&["fit.desk^=f"]), [0, 1]);
    assert_eq!(found(&["fit.desk"]), [0, 1, 2]);
    assert_eq!(found(&["timestamp>=2014-06-02T20:00:01Z"]), [1, 2]);
    assert_eq!(listed(&["--any", "i=0", "--any", "fit.desk=eq"]), [2, 0]);
    assert_eq!(listed(&["--any", "i=0", "--any", "fit.desk=eq", "--where", "fit.k=true"]), [2]);
    assert_eq!(listed(&["--limit", "2"]), [2, 1]);
    assert_eq!(listed(&["--skip", "2", "--limit", "2"]), [0]);
    for form in ["table", "csv"] {
        let listed = place.ok(["model", "ls", "--where", "i=2", "--format", form]);
        assert_eq!(listed.lines().count(), 2, "{listed}");
    }
    assert!(place.fails(["model", "ls", "--where", "a..b=1"]).contains("a step is empty"));
    for (condition, expected) in [("desk^x", "PATH^=TEXT"), ("a=99999999999999999999", "64 signed bits")] {
        let ended = place.run(["model", "ls", "--where", condition]);
        assert!(ended.code == 2 && ended.stderr.contains(expected), "{}", ended.stderr);
    }
    assert_eq!(place.json(["status", "--format", "json"])["index"], "unused");
}

#[test]
fn what_is_missing_is_named() {
    let place = Place::new();
    place.write("blob", "x");
    for (meta, expected) in [
        (r#"{"type":"smile"}"#, "or say --now"),
        (r#"{"timestamp":0}"#, "\"type\""),
        (r#"{"type":"smile","timestamp":"soon"}"#, "\"timestamp\""),
        ("[1]", "not a JSON object"),
        ("{", "not a JSON object"),
        ("@absent.json", "absent.json"),
    ] {
        let error = place.fails(["model", "put", "blob", "--meta", meta]);
        assert!(error.contains(expected), "{meta}: {error}");
    }
    assert!(place.fails(["model", "put", "absent", "--meta", SMILE]).contains("absent"));
    assert!(place.fails(["model", "get", "--meta", SMILE]).contains("ubctl model ls"));
}

/// A few of the vectors that every program agrees on; the rest is the engine's to hold.
#[test]
fn the_shell_gives_models_the_identity_of_the_vectors() {
    let vectors = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/identity.json"),
    )
    .unwrap();
    let vectors: serde_json::Value = serde_json::from_str(&vectors).unwrap();
    let place = Place::bare();
    for vector in vectors["vectors"].as_array().unwrap().iter().filter(|v| v.get("json").is_some()).step_by(5)
    {
        place.write("meta.json", vector["json"].as_str().unwrap());
        let printed = place.ok(["model", "id", "--meta", "@meta.json"]);
        assert_eq!(printed.trim(), vector["id"].as_str().unwrap(), "{}", vector["what"]);
    }
    for refused in vectors["refused"].as_array().unwrap() {
        place.write("meta.json", refused["json"].as_str().unwrap());
        let told = place.fails(["model", "id", "--meta", "@meta.json"]);
        assert!(told.contains(refused["says"].as_str().unwrap()), "{told}");
    }
}

/// A blob goes in and out of a process that may have less memory of its own than the blob has bytes.
#[test]
fn a_large_model_passes_through_little_memory() {
    const BYTES: usize = 300 << 20;
    const LIMIT_KIB: usize = 200 << 10;
    let place = Place::new();
    // No two megabytes are the same.
    let block = |n: usize| -> Vec<u8> {
        (0..1 << 17)
            .flat_map(|i: u64| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n as u64).to_le_bytes())
            .collect()
    };
    let limited = |args: &[&str]| {
        let mut command = std::process::Command::new("sh");
        let line = format!("ulimit -d {LIMIT_KIB}; exec \"$0\" \"$@\"");
        command
            .arg("-c")
            .arg(line)
            .arg(env!("CARGO_BIN_EXE_ubctl"))
            .args(args)
            .env("UNDERBELLY_DB", place.db());
        command
    };
    let mut put = limited(&["model", "put", "-", "--now", "--meta", r#"{"type":"net"}"#])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = put.stdin.take().unwrap();
    (0..BYTES >> 20).for_each(|n| stdin.write_all(&block(n)).unwrap());
    drop(stdin);
    assert!(put.wait().unwrap().success());
    let mut get =
        limited(&["model", "get", "--meta", r#"{"type":"net"}"#]).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = get.stdout.take().unwrap();
    let mut read = vec![0; 1 << 20];
    for n in 0..BYTES >> 20 {
        stdout.read_exact(&mut read).unwrap();
        assert!(read == block(n), "megabyte {n}");
    }
    assert_eq!(stdout.read(&mut read).unwrap(), 0);
    assert!(get.wait().unwrap().success());
    let verified = place.json(["verify", "--format", "json"]);
    assert_eq!(verified["models"], 1);
}

#[test]
fn versions_are_named_kept_and_told_about() {
    let place = Place::new();
    let find = r#"{"type":"smile","underlying":"AAPL"}"#;
    for n in 1..=5 {
        place.write("blob", n.to_string());
        place.ok(["model", "put", "blob", "--meta", SMILE]);
    }
    let id = place.ok(["model", "id", "--meta", find]);
    let id = id.trim();
    let get = |arguments: &[&str]| place.ok([&["model", "get"], arguments].concat());
    assert_eq!(get(&["--id", id]), "5");
    assert_eq!(get(&["--id", &format!("{id}@2")]), "2");
    assert_eq!(get(&["--meta", find, "--version", "3"]), "3");
    assert_eq!(get(&["--meta", find, "--back", "1"]), "4");
    assert_eq!(get(&["--meta", find, "--as-of", "2014-06-03"]), "5");
    let none = |arguments: &[&str]| place.fails([&["model", "get"], arguments].concat());
    assert!(none(&["--meta", find, "--as-of", "2014-06-01"]).contains("model versions"));
    assert!(none(&["--meta", find, "--alias", "production"]).contains("no alias \"production\""));
    let error = place.fails(["model", "alias", "--meta", find, "production", "0"]);
    assert!(error.contains("has no version 0: they are numbered from 1, and the newest is 5; "), "{error}");
    place.ok(["model", "alias", "--meta", find, "production", "2"]);
    assert!(
        place
            .fails(["model", "alias", "--meta", find, "production", "newest", "--expect", "1"])
            .contains("version 2")
    );
    let removed = place.fails(["model", "alias", "--meta", find, "production", "none", "--expect", "1"]);
    assert!(removed.contains("version 2"), "{removed}");
    place.ok(["model", "alias", "--meta", find, "production", "newest", "--expect", "2"]);
    assert_eq!(get(&["--id", &format!("{id}@production")]), "5");
    let history = place.json(["model", "alias", "--meta", find, "production", "--format", "json"]);
    assert_eq!((&history[0]["version"], &history[1]["version"]), (&2.into(), &5.into()));
    place.ok(["model", "pin", "--meta", find, "1"]);
    place.ok(["model", "keep", "--meta", find, "--last", "2"]);
    let versions = place.json(["model", "versions", "--id", id, "--format", "json"]);
    let numbers: Vec<_> =
        versions.as_array().unwrap().iter().map(|row| row["version"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [5, 4, 1]);
    assert_eq!((&versions[0]["aliases"], &versions[2]["pinned"]), (&"production".into(), &true.into()));
    place.ok(["model", "pin", "--meta", find, "1", "--off"]);
    assert!(place.ok(["model", "gc"]).contains("versions       2"));
    place.ok(["model", "tag", "--meta", find, "owner=fx desk", "auc=0.81", "--version", "5"]);
    place.ok(["model", "tag", "--meta", find, "owner=", "--version", "5"]);
    let tags = place.json(["model", "tag", "--meta", find, "--format", "json"]);
    assert_eq!(
        (tags.as_array().unwrap().len(), &tags[0]["name"], &tags[0]["value"]),
        (1, &"auc".into(), &"0.81".into())
    );
    assert!(place.ok(["model", "why", "--meta", find]).contains("nobody told"));
    assert!(place.fails(["model", "versions", "--meta", r#"{"type":"none"}"#]).contains("no model"));
}

/// What a producer made a model from is told beside what was told by hand.
#[test]
fn why_follows_a_model_through_the_graph() {
    let place = Place::new();
    let scaler = r#"{"type":"scaler","symbol":"IBM","timestamp":1}"#;
    let db = underbelly::Database::open(place.db()).unwrap();
    let keyed = |slot: underbelly::SlotDefinition| slot.cell_key("symbol", underbelly::ColumnType::Utf8);
    db.define_slot(keyed(underbelly::SlotDefinition::models("scaler"))).unwrap();
    db.define_slot(keyed(underbelly::SlotDefinition::new("samples")).value("x", underbelly::ColumnType::I64))
        .unwrap();
    let trainer = underbelly::ProducerDefinition::new("trainer").requires("samples").provides("scaler");
    let metadata = underbelly::Metadata::from_json(scaler).unwrap();
    db.register(trainer, move |_| Ok(underbelly::Outputs::new().put_model(metadata.clone(), vec![1])))
        .unwrap();
    let mut batch = underbelly::Batch::new();
    let rows = underbelly::Columns::new().with("x", underbelly::Column::from(vec![1i64])).unwrap();
    batch.put_slot("samples", underbelly::Date(0), ["IBM"], rows);
    db.commit(batch).unwrap();
    assert!(db.wait_idle(std::time::Duration::from_secs(60)));
    db.close().unwrap();
    let why = place.ok(["model", "why", "--meta", scaler]);
    assert!(why.contains("slot samples 1970-01-01 IBM, generation 1, by trainer"), "{why}");
    assert!(!why.contains("nobody told"), "{why}");
}

#[test]
fn a_tensor_is_written_alone() {
    let place = Place::new();
    let header = r#"{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}}"#;
    let blob = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), b"oneto"].concat();
    place.write("net.safetensors", blob);
    place.ok(["model", "put", "net.safetensors", "--now", "--meta", r#"{"type":"net"}"#]);
    assert_eq!(place.ok(["model", "get", "--meta", r#"{"type":"net"}"#, "--tensor", "b"]), "to");
    assert!(
        place.fails(["model", "get", "--meta", r#"{"type":"net"}"#, "--tensor", "c"]).contains("no tensor")
    );
}

/// Where the version of a time may have been deleted, another is not given without a word.
#[test]
fn a_version_of_a_time_that_was_deleted_is_told() {
    let place = Place::new();
    let find = r#"{"type":"v"}"#;
    for day in 1..=6 {
        place.write("blob", day.to_string());
        let meta = format!(r#"{{"type":"v","timestamp":"2014-06-0{day}"}}"#);
        place.ok(["model", "put", "blob", "--meta", &meta]);
    }
    place.ok(["model", "pin", "--meta", find, "2"]);
    place.ok(["model", "keep", "--meta", find, "--last", "2"]);
    let get = |by: &str, at: &str| {
        let output = place.command(["model", "get", "--meta", find, by, at]).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    };
    let all = "versions 1, 3 to 4 were deleted, and may have been the one of that time";
    for (by, at, blob, told) in [
        ("--as-of", "2014-06-04", "2", all),
        ("--as-of", "2014-06-09", "6", all),
        ("--as-of", "2014-06-05", "5", ""),
        ("--as-of", "2014-06-02", "2", "versions 3 to 4 were deleted, and may"),
        ("--back", "2", "2", "this is version 2; versions 3 to 4 were deleted, and not counted"),
        ("--back", "1", "5", ""),
        ("--put-by", "2100-01-01", "6", ""),
        ("--version", "5", "5", ""),
        ("--as-of", "2014-06-01", "", "and versions 1, 3 to 4 were deleted; "),
        ("--put-by", "2014-06-01", "", "and version 1 was deleted; "),
        ("--back", "3", "", "has no version 3 before the newest; `ubctl"),
    ] {
        let found = get(by, at);
        let is_told = if told.is_empty() { found.1.is_empty() } else { found.1.contains(told) };
        assert!(found.0 == blob && is_told, "{by} {at}: {found:?}");
    }
    // One that was put before, with a later timestamp.
    place.ok(["model", "keep", "--meta", find]);
    let low = r#"{"type":"v","timestamp":"2014-06-03"}"#;
    place.ok(["model", "put", "blob", "--meta", low]);
    place.ok(["model", "pin", "--meta", find, "2", "--off"]);
    place.ok(["model", "keep", "--meta", find, "--last", "1"]);
    let (blob, told) = get("--as-of", "2014-06-05");
    assert!(blob == "6" && told.contains("this is version 7; versions 1 to 6 were deleted"), "{blob} {told}");
    // Of what went with the whole model nothing is known.
    place.ok(["model", "rm", "--meta", find]);
    place.ok(["model", "put", "blob", "--meta", low]);
    let (_, told) = get("--put-by", "2014-06-01");
    assert!(
        told.contains("; if it was removed as a whole once, what it had before is not known any more; "),
        "{told}"
    );
}
