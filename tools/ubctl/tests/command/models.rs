//! Models as bytes with a dict.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use underbelly::{
    AliasTarget, Batch, Database, ManualClock, Metadata, Options, Retention, Snapshot, Timestamp, Training,
};

use crate::Place;

const SMILE: &str = r#"{"type":"smile","underlying":"AAPL","timestamp":"2014-06-02T20:00:00Z"}"#;

#[test]
fn blobs_come_back_byte_for_byte() {
    let place = Place::new();
    let blob: Vec<u8> = (0..=255u8).cycle().take(2_000_000).collect();
    place.write("blob", &blob);
    let put = place.ok(["model", "put", "blob", "--meta", SMILE]);
    assert!(put.contains("version    1\n"), "{put}");
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
    assert!(place.fails(["model", "rm", "--meta", find, "--dry-run"]).contains("ubctl model ls"));
    assert!(place.fails(["model", "get", "--meta", find]).contains("no model has this identity"));
    assert!(place.ok(["model", "put", "blob", "--meta", SMILE]).contains("version    1\n"));
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
    let later = r#"{"type":"smile","i":1,"fit":{"desk":"fx","k":1.0},"timestamp":"2014-06-03"}"#;
    place.ok(["model", "put", "blob", "--meta", later]);
    let first_day = ["--where", "timestamp<2014-06-03"];
    assert_eq!(listed(&first_day), [2, 0]);
    assert_eq!(listed(&[&first_day[..], &["--all-versions"]].concat()), [2, 1, 0]);
    assert_eq!(listed(&["--all-versions", "--limit", "3"]), [1, 2, 1]);
    for form in ["table", "csv"] {
        let listed = place.ok(["model", "ls", "--where", "i=2", "--format", form]);
        assert_eq!(listed.lines().count(), 2, "{listed}");
    }
    assert!(place.fails(["model", "ls", "--where", "a..b=1"]).contains("a step is empty"));
    place.ok([
        "model",
        "put",
        "blob",
        "--meta",
        r#"{"type":"odd","i":7,"a.b":2,"k=v":{"<":3},"timestamp":0}"#,
    ]);
    for condition in [r"a\.b=2", r"a\.b", r"k\=v.\<=3", r"k\=v.\<>2"] {
        assert_eq!(found(&[condition]), [7], "{condition}");
    }
    assert_eq!(found(&[r"k\=v.\<>3"]), [0; 0]);
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
    // Less than half of it.
    const LIMIT_KIB: usize = 100 << 10;
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
    assert_eq!(
        (&versions[0]["aliases"], &versions[2]["pinned"]),
        (&serde_json::json!(["production"]), &true.into())
    );
    place.ok(["model", "pin", "--meta", find, "1", "--off"]);
    assert_eq!(numbers_of(&place, find), [5, 4]);
    place.ok(["model", "alias", "--meta", find, "staging", "4"]);
    let aliases = place.csv(["model", "alias", "--meta", find, "--format", "csv"]);
    let aliases: Vec<_> = aliases.iter().map(|row| row[..2].join(" ")).collect();
    assert_eq!(aliases, ["alias version", "production 5", "staging 4"]);
    place.ok(["model", "alias", "--meta", find, "staging", "none", "--expect", "4"]);
    place.ok(["model", "alias", "--meta", find, "production", "none"]);
    assert_eq!(place.csv(["model", "alias", "--meta", find, "--format", "csv"]).len(), 1);
    let history = place.csv(["model", "alias", "--meta", find, "staging", "--format", "csv"]);
    assert_eq!((&*history[1][1], &*history[2][1]), ("4", ""));
    place.ok(["model", "tag", "--meta", find, "owner=fx desk", "auc=0.81", "--version", "5"]);
    place.ok(["model", "tag", "--meta", find, "owner=", "--version", "5"]);
    let tags = place.json(["model", "tag", "--meta", find, "--format", "json"]);
    assert_eq!(
        (tags.as_array().unwrap().len(), &tags[0]["name"], &tags[0]["value"]),
        (1, &"auc".into(), &"0.81".into())
    );
    place.ok(["model", "tag", "--meta", find, "auc=0.9", "--version", "5"]);
    place.ok(["model", "tag", "--meta", find, "auc=", "--version", "5"]);
    let history = |more: &[&str]| {
        let rows = place.csv([&["model", "tag", "--meta", find, "--format", "csv"], more].concat());
        rows[1..].iter().map(|row| row[..3].join(" ")).collect::<Vec<_>>()
    };
    assert_eq!(history(&["auc", "--version", "5"]), ["5 auc 0.81", "5 auc 0.9", "5 auc "]);
    assert_eq!(history(&["owner", "--version", "5"]), ["5 owner \"fx desk\"", "5 owner "]);
    let none = place.fails(["model", "tag", "--meta", find, "auc"]);
    assert!(none.contains("nothing was told of the model under \"auc\""), "{none}");
    let mixed = place.fails(["model", "tag", "--meta", find, "auc", "owner=x"]);
    assert!(mixed.contains("give it alone"), "{mixed}");
    assert!(place.ok(["model", "why", "--meta", find]).contains("nobody told"));
    assert!(place.fails(["model", "versions", "--meta", r#"{"type":"none"}"#]).contains("no model"));
}

/// The numbers of the versions of a model, newest first.
fn numbers_of(place: &Place, find: &str) -> Vec<u64> {
    let versions = place.json(["model", "versions", "--meta", find, "--format", "json"]);
    versions.as_array().unwrap().iter().map(|row| row["version"].as_u64().unwrap()).collect()
}

/// A version is kept that is among the newest so many and young enough.
#[test]
fn versions_are_kept_by_number_and_by_age() {
    let place = Place::new();
    let find = r#"{"type":"smile","underlying":"AAPL"}"#;
    place.write("blob", "x");
    (0..5).for_each(|_| drop(place.ok(["model", "put", "blob", "--meta", SMILE])));
    let keep = |limits: &[&str]| place.ok([&["model", "keep", "--meta", find], limits].concat());
    assert!(keep(&["--age", "30d"]).contains("kept     5\ndeleted  0"));
    assert!(keep(&["--last", "3", "--age", "30d"]).contains("kept     3\ndeleted  2"));
    assert_eq!(numbers_of(&place, find), [5, 4, 3]);
    place.ok(["model", "pin", "--meta", find, "4"]);
    assert!(keep(&["--last", "3", "--age", "1ns"]).contains("kept     2\ndeleted  1"));
    assert_eq!(numbers_of(&place, find), [5, 4]);
    place.ok(["model", "pin", "--meta", find, "4", "--off"]);
    (0..2).for_each(|_| drop(place.ok(["model", "put", "blob", "--meta", SMILE])));
    assert_eq!(numbers_of(&place, find), [7], "each put goes by it");
}

/// Without a limit it is told what is kept, and nothing changes; all are kept again where that is said.
#[test]
fn keep_shows_what_is_kept() {
    let place = Place::new();
    let find = r#"{"type":"smile","underlying":"AAPL"}"#;
    place.write("blob", "x");
    (0..4).for_each(|_| drop(place.ok(["model", "put", "blob", "--meta", SMILE])));
    let keep = |limits: &[&str]| place.ok([&["model", "keep", "--meta", find], limits].concat());
    let shown = || {
        let shown = place.json(["model", "keep", "--meta", find, "--format", "json"]);
        let text = |name: &str| shown[name].as_str().unwrap_or("").to_string();
        (text("keeps"), shown["last"].as_u64(), text("age"), shown["versions"].as_u64().unwrap())
    };
    assert_eq!(shown(), ("all versions".to_string(), None, String::new(), 4));
    let would = |limits: &[&str]| {
        let dry = ["model", "keep", "--meta", find, "--dry-run", "--format", "json"];
        let gone = place.json([&dry, limits].concat());
        gone.as_array().unwrap().iter().map(|row| row["version"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((would(&["--last", "1"]), would(&["--all"]), would(&[])), (vec![3, 2, 1], vec![], vec![]));
    assert!(keep(&["--last", "3", "--dry-run"]).contains("these would go: versions 1; kept would be 3"));
    assert_eq!(shown(), ("all versions".to_string(), None, String::new(), 4), "nothing went");
    assert!(place.fails(["model", "keep", "--meta", find, "--last", "0", "--dry-run"]).contains("--last 1"));
    keep(&["--last", "3", "--age", "36h"]);
    let limited = "those of the newest 3 that were put within 36h".to_string();
    assert_eq!(shown(), (limited, Some(3), "36h".to_string(), 3));
    assert!(keep(&[]).starts_with("keeps     those of the newest 3"));
    assert_eq!((shown().1, numbers_of(&place, find)), (Some(3), vec![4, 3, 2]), "looking changes nothing");
    keep(&["--age", "2w"]);
    assert_eq!(shown(), ("those put within 14d".to_string(), None, "14d".to_string(), 3));
    keep(&["--last", "2"]);
    assert_eq!(shown(), ("the newest 2".to_string(), Some(2), String::new(), 2));
    keep(&["--all"]);
    assert_eq!(shown(), ("all versions".to_string(), None, String::new(), 2));
    place.ok(["model", "put", "blob", "--meta", SMILE]);
    assert_eq!(numbers_of(&place, find), [5, 4, 3]);
    assert_eq!(place.run(["model", "keep", "--meta", find, "--all", "--last", "2"]).code, 2);
    assert!(place.fails(["model", "keep", "--meta", r#"{"type":"none"}"#]).contains("no model"));
}

/// What changes a model answers in the format that is asked for, and says alike where there is no such model.
#[test]
fn changes_of_a_model_are_told_alike() {
    let place = Place::new();
    let find = r#"{"type":"smile","underlying":"AAPL"}"#;
    place.write("blob", "x");
    let changes: [&[&str]; 7] = [
        &["alias", "--meta", find, "production", "1"],
        &["alias", "--meta", find, "production", "none"],
        &["pin", "--meta", find, "1"],
        &["pin", "--meta", find, "1", "--off"],
        &["tag", "--meta", find, "auc=0.5"],
        &["keep", "--meta", find, "--last", "2"],
        &["rm", "--meta", find, "--version", "2"],
    ];
    place.ok(["model", "put", "blob", "--meta", r#"{"type":"other","timestamp":"2014-06-01"}"#]);
    for change in changes {
        let error = place.fails([&["model"], change].concat());
        assert!(error.contains("no model has this identity"), "{change:?}: {error}");
    }
    let mut before = 0;
    for version in 1..=3 {
        let put = place.json(["model", "put", "blob", "--meta", SMILE, "--format", "json"]);
        assert_eq!(put["version"], version);
        before = put["seq"].as_u64().unwrap();
    }
    for change in changes {
        let done = place.json([&["model"], change, &["--format", "json"]].concat());
        let seq = done["seq"].as_u64().unwrap();
        assert!(seq > before, "{change:?}: {done}");
        before = seq;
    }
    assert_eq!(numbers_of(&place, find), [3]);
}

/// One version goes alone, unless something holds it.
#[test]
fn a_version_is_removed_alone() {
    let place = Place::new();
    let find = r#"{"type":"smile","underlying":"AAPL"}"#;
    place.write("blob", "x");
    (0..4).for_each(|_| drop(place.ok(["model", "put", "blob", "--meta", SMILE])));
    place.ok(["model", "pin", "--meta", find, "1"]);
    place.ok(["model", "alias", "--meta", find, "production", "2"]);
    let rm = |version: &str| ["model", "rm", "--meta", find, "--version", version].map(String::from);
    assert!(place.fails(rm("4")).contains("it is the newest"));
    for held in ["1", "2"] {
        assert!(place.fails(rm(held)).contains("it is pinned or named by an alias"), "{held}");
    }
    assert!(place.ok(rm("3")).contains("deleted  1"));
    assert_eq!(numbers_of(&place, find), [4, 2, 1]);
    assert!(place.fails(rm("3")).contains("has no version 3"));
    assert_eq!(place.run(["model", "rm", "--type", "smile", "--version", "2"]).code, 2);
}

/// Models go by the conditions by which they are listed, and first it is shown which would.
#[test]
fn models_are_removed_by_conditions() {
    let place = Place::new();
    place.write("blob", "x");
    for (n, desk) in ["fx", "fx", "eq", "ir"].into_iter().enumerate() {
        let kind = if n == 1 { "curve" } else { "smile" };
        let meta = format!(r#"{{"type":"{kind}","n":{n},"desk":"{desk}","timestamp":"2014-06-0{}"}}"#, n + 1);
        place.ok(["model", "put", "blob", "--meta", &meta]);
    }
    place.ok(["model", "put", "blob", "--now", "--meta", r#"{"type":"smile","n":0,"desk":"fx"}"#]);
    let left = || -> Vec<i64> {
        let models = place.json(["model", "ls", "--format", "json"]);
        models.as_array().unwrap().iter().map(|model| model["metadata"]["n"].as_i64().unwrap()).collect()
    };
    let head = || place.json(["status", "--format", "json"])["seq"].as_u64().unwrap();
    let before = head();
    let would = place.json(["model", "rm", "--where", "desk=fx", "--dry-run", "--format", "json"]);
    let would: Vec<_> =
        would.as_array().unwrap().iter().map(|m| (&m["metadata"]["n"], &m["versions"])).collect();
    assert_eq!(would, [(&0.into(), &2.into()), (&1.into(), &1.into())]);
    let shown = place.ok(["model", "rm", "--where", "desk=fx", "--dry-run"]);
    assert!(shown.ends_with("these would go: models 2, versions 3\n"), "{shown}");
    assert_eq!((left(), head()), (vec![0, 3, 2, 1], before), "nothing went");
    let removed = place.json(["model", "rm", "--where", "desk=fx", "--type", "smile", "--format", "json"]);
    let (one, seq) =
        (serde_json::json!({"models": 1, "versions": 2, "transactions": 1, "seq": head()}), head());
    assert_eq!((left(), removed), (vec![3, 2, 1], one));
    let removed = place.ok(["model", "rm", "--any", "n=1", "--any", "desk=eq"]);
    assert!(removed.starts_with("models        2\nversions      2\ntransactions  1\n"), "{removed}");
    assert_eq!((left(), head() - seq), (vec![3], seq - before), "as many transactions as for one");
    let seq = head();
    let none = place.json(["model", "rm", "--where", "desk=fx", "--format", "json"]);
    assert_eq!((&none["models"], &none["seq"], head()), (&0.into(), &serde_json::Value::Null, seq));
    for line in
        [&["--where", "n=3", "--id", "x"][..], &["--dry-run"], &[], &["--meta", "{}", "--type", "smile"]]
    {
        let ended = place.run([&["model", "rm"], line].concat());
        assert_eq!(ended.code, 2, "{line:?}: {}", ended.stderr);
    }
    assert_eq!(left(), [3]);
}

/// Of a model that is there, nothing is put and nothing is read.
#[test]
fn a_model_is_put_once() {
    let place = Place::new();
    place.write("blob", "one");
    let put = |file: &str| place.ok(["model", "put", file, "--once", "--meta", SMILE]);
    let first = put("blob");
    assert!(first.contains("version    1\n") && first.contains("put        true\n"), "{first}");
    let again = put("absent");
    assert!(again.contains("version  1\nbytes    3\nput      false\n"), "{again}");
    place.write("blob", "another");
    put("blob");
    assert_eq!(place.ok(["model", "get", "--meta", SMILE]), "one");
    place.ok(["model", "rm", "--meta", SMILE]);
    assert!(put("blob").contains("put        true"));
    assert_eq!(place.ok(["model", "get", "--meta", SMILE]), "another");
    // One whose bytes are gone is there, and is told to be mended; whatever stands in their place, all else can be read.
    place.write("large", vec![7; 2 << 20]);
    let once = ["model", "put", "large", "--now", "--meta", r#"{"type":"large"}"#, "--once"];
    place.ok(once);
    for file in std::fs::read_dir(place.db().join("chunks")).unwrap() {
        let path = file.unwrap().path();
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
    }
    assert_eq!(place.ok(["model", "get", "--meta", SMILE]), "another");
    let error = place.fails(once);
    assert!(error.contains("put the same bytes without --once"), "{error}");
    place.ok(&once[..once.len() - 1]);
    place.ok(once);
}

/// What is wrong with a place behind the @ is said as of the options; the newest has a name there, too.
#[test]
fn places_of_versions_are_told_as_they_are() {
    let place = Place::new();
    for text in ["one", "two", "three"] {
        place.write("blob", text);
        place.ok(["model", "put", "blob", "--meta", SMILE]);
    }
    place.ok(["model", "alias", "--meta", SMILE, "a, b", "3"]);
    place.ok(["model", "keep", "--meta", SMILE, "--last", "1"]);
    let all = place.json(["model", "versions", "--meta", SMILE, "--format", "json"]);
    assert_eq!(all[0]["aliases"], serde_json::json!(["a, b"]));
    let id = place.json(["model", "ls", "--format", "json"])[0]["id"].as_str().unwrap().to_string();
    let at = |what: &str| format!("{id}@{what}");
    assert_eq!(place.ok(["model", "get", "--id", &at("newest")]), "three");
    for (what, expected) in [
        ("1", format!("model {id} has no version 1: it was deleted; `ubctl model versions --id {id}` lists")),
        ("9", format!("model {id} has no version 9; ")),
        ("nope", format!("model {id} has no alias \"nope\"; ")),
    ] {
        let error = place.fails(["model", "get", "--id", &at(what)]);
        assert!(error.contains(&expected), "{error}");
    }
    let error = place.fails(["model", "tag", "--meta", SMILE, "live=x"]);
    assert!(error.contains("live models"), "{error}");
    assert!(place.fails(["model", "keep", "--meta", SMILE, "--age", "0s"]).contains("--last 1"));
    // A command that is told finds the database, too.
    let mut command = place.command(["model", "get", "--db", "other db", "--meta", SMILE]);
    let told = command.env_remove("UNDERBELLY_DB").output().unwrap();
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.contains("`ubctl --db 'other db' init`"), "{told}");
}

/// What is written is told as what was not there, whether it goes through the log or not.
#[test]
fn new_bytes_are_those_that_nothing_held() {
    let place = Place::new();
    let new = |name: &str, kind: &str, more: &[&str]| {
        let meta = format!(r#"{{"type":"{kind}"}}"#);
        let put = place.ok([&["model", "put", name, "--now", "--meta", &meta], more].concat());
        let line = put.lines().find(|line| line.starts_with("new bytes")).unwrap();
        line["new bytes".len()..].trim().parse::<usize>().unwrap()
    };
    place.write("small", "one");
    place.write("large", noise(3 << 20));
    place.write("zeros", vec![0; 3 << 20]);
    assert_eq!(new("small", "a", &[]), 3);
    assert_eq!(new("large", "b", &[]), 3 << 20);
    assert_eq!(new("large", "c", &[]), 0, "it is stored");
    assert_eq!(new("zeros", "d", &["--compress"]), 3 << 20, "as they were given");
}

/// What grows old goes with the next put of its model, or with `gc`.
#[test]
fn gc_deletes_what_grew_old_and_gives_its_space_back() {
    let place = Place::bare();
    let find = r#"{"type":"net"}"#;
    let meta = Metadata::new("net").with("timestamp", Timestamp(0));
    // Put years ago.
    let clock = Arc::new(ManualClock::new(Timestamp(1_400_000_000_000_000_000)));
    let db = Database::create_with(place.db(), Options { clock, ..Options::default() }).unwrap();
    let mut batch = Batch::new();
    batch.set_retention(&meta, Some(Retention::max_age(Duration::from_secs(3_600)))).unwrap();
    for n in 0..3 {
        batch.put_model(meta.clone(), vec![n]);
    }
    db.commit(batch).unwrap();
    db.close().unwrap();
    assert_eq!(numbers_of(&place, find), [3, 2, 1]);
    let collected = place.ok(["model", "gc"]);
    assert!(collected.contains("deleted        2\nversions       1\n"), "{collected}");
    assert_eq!(numbers_of(&place, find), [3]);

    let chunks = || -> u64 {
        let files = std::fs::read_dir(place.db().join("chunks")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    };
    place.write("blob", noise(3 << 20));
    place.ok(["model", "put", "blob", "--now", "--meta", r#"{"type":"large"}"#]);
    place.ok(["checkpoint"]);
    assert!(chunks() >= 3 << 20);
    place.ok(["model", "rm", "--meta", r#"{"type":"large"}"#]);
    assert!(chunks() >= 3 << 20, "what is deleted lies there until then");
    let (lain, collected) = (chunks(), place.json(["model", "gc", "--format", "json"]));
    assert_eq!((chunks(), collected["bytes_freed"].as_u64()), (0, Some(lain)));
    assert_eq!(place.json(["model", "gc", "--format", "json"])["bytes_freed"], 0);
}

/// What another process reads stays as long as that does, and is told.
#[test]
fn gc_tells_which_processes_hold_what_is_deleted() {
    let place = Place::new();
    let chunks = || std::fs::read_dir(place.db().join("chunks")).unwrap().count();
    let gc = || {
        let ended = place.run(["model", "gc", "--format", "json"]);
        let facts: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        (facts["bytes_freed"].as_u64().unwrap(), ended.stderr)
    };
    place.write("blob", noise(3 << 20));
    place.ok(["model", "put", "blob", "--now", "--meta", r#"{"type":"large"}"#]);
    place.ok(["checkpoint"]);
    let reader = Database::open_read_only(place.db()).unwrap();
    place.ok(["model", "rm", "--meta", r#"{"type":"large"}"#]);
    let (freed, told) = gc();
    assert_eq!((freed, chunks()), (0, 1));
    assert!(told.contains(&format!("`ubctl model gc`: {}\n", std::process::id())), "{told}");
    drop(reader);
    let (freed, told) = gc();
    assert!(freed >= 3 << 20 && chunks() == 0 && told.is_empty(), "{freed} {told}");
}

/// Bytes of which no two stretches are the same.
fn noise(bytes: usize) -> Vec<u8> {
    let words = (0..bytes as u64 / 8).map(|i| (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    words.flat_map(|word| (word ^ word >> 29).to_le_bytes()).collect()
}

#[test]
fn blobs_are_compressed_where_that_is_asked_for() {
    let place = Place::new();
    let blob: Vec<u8> = (0..3u32 << 18).flat_map(|i| (i >> 6).to_le_bytes()).collect();
    place.write("blob", &blob);
    let mut stored = Vec::new();
    for (kind, flag) in [("plain", None), ("packed", Some("--compress"))] {
        let folder = || std::fs::read_dir(place.db().join("chunks")).into_iter().flatten();
        let before: u64 = folder().map(|file| file.unwrap().metadata().unwrap().len()).sum();
        let meta = format!(r#"{{"type":"{kind}"}}"#);
        // What is stored once is not stored anew.
        place.write("blob", [kind.as_bytes(), &blob].concat());
        place.ok(["model", "put", "blob", "--now", "--meta", &meta].into_iter().chain(flag));
        stored.push(folder().map(|file| file.unwrap().metadata().unwrap().len()).sum::<u64>() - before);
        let got = place.command(["model", "get", "--meta", &meta]).output().unwrap();
        assert!(got.status.success() && got.stdout == [kind.as_bytes(), &blob].concat(), "{kind}");
    }
    assert!(stored[0] >= blob.len() as u64 && stored[1] < stored[0] / 4, "{stored:?}");
}

/// What was told of a version is shown with what is known of that, as deep as is asked for.
#[test]
fn why_tells_what_a_version_was_trained_on() {
    let place = Place::new();
    let meta = |name: &str| Metadata::new("net").with("part", name).with("timestamp", Timestamp(0));
    let db = Database::open(place.db()).unwrap();
    let put = |name: &str, training: &dyn Fn(&Snapshot) -> Training| {
        let mut batch = Batch::new();
        batch.put_model(meta(name), name.as_bytes().to_vec());
        batch.trained_on(&meta(name), AliasTarget::Newest, &training(&db.snapshot())).unwrap();
        db.commit(batch).unwrap();
    };
    let info = |name: &str| db.snapshot().model(&meta(name)).unwrap().unwrap().info().clone();
    let day = |n: i64| Timestamp(n * 86_400_000_000_000);
    put("scaler", &|snapshot| Training::new().series("ticks", day(0), day(2), snapshot));
    put("old", &|_| Training::new());
    let (scaler, old) = (info("scaler"), info("old"));
    put("layer", &|_| Training::new().model(&scaler).slot("samples", underbelly::Date(1), "IBM", 7));
    let layer = info("layer");
    put("head", &|_| Training::new().model(&old).model(&layer).model(&scaler));
    let mut batch = Batch::new();
    batch.delete_model(&meta("old")).unwrap();
    db.commit(batch).unwrap();
    let head = info("head");
    db.close().unwrap();
    let why = |more: &[&str]| {
        let lines = place.ok([&["model", "why", "--id", &head.id.to_string()], more].concat());
        lines.lines().map(str::to_string).collect::<Vec<_>>()
    };
    let put = |info: &underbelly::ModelInfo| {
        format!("model net {}@1, put {} (seq {})", info.id, info.time, info.seq)
    };
    let all = why(&[]);
    // The scaler was shown where it was met first.
    let expected = [
        put(&head),
        format!("  {}", put(&scaler)),
        "    series ticks from 1970-01-01T00:00:00Z to 1970-01-03T00:00:00Z, as of seq 1".to_string(),
        format!("  {}", put(&layer)),
        "    slot samples 1970-01-02 IBM, generation 7".to_string(),
        format!("    model {}@1, as above", scaler.id),
        format!("  model {}@1, deleted", old.id),
        "    nobody told what it was made from".to_string(),
    ];
    assert_eq!(all, expected);
    let (named, flat) =
        (|info: &underbelly::ModelInfo| format!("  model {}@1", info.id), why(&["--depth", "0"]));
    assert_eq!(flat, [put(&head), named(&old), named(&layer), named(&scaler)]);
    assert!(why(&["--depth", "1"]).contains(&format!("    model {}@1", scaler.id)));
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
    let listed = place.json(["model", "tensors", "--meta", r#"{"type":"net"}"#, "--format", "json"]);
    let from = 8 + header.len();
    assert_eq!(
        listed,
        serde_json::json!([
            {"name": "a", "dtype": "U8", "shape": [3], "from": from, "to": from + 3, "bytes": 3},
            {"name": "b", "dtype": "U8", "shape": [2], "from": from + 3, "to": from + 5, "bytes": 2},
        ])
    );
    place.write("blob", "text");
    place.ok(["model", "put", "blob", "--now", "--meta", r#"{"type":"text"}"#]);
    assert!(place.fails(["model", "tensors", "--meta", r#"{"type":"text"}"#]).contains("safetensors"));
}

#[test]
fn some_bytes_are_written_alone() {
    let place = Place::new();
    place.write("blob", "0123456789");
    place.ok(["model", "put", "blob", "--meta", SMILE]);
    let get = |range: &str| place.run(["model", "get", "--meta", SMILE, "--range", range]);
    for (range, bytes) in
        [("2..5", "234"), ("7..", "789"), ("..3", "012"), ("..", "0123456789"), ("4..4", ""), ("10..", "")]
    {
        let got = get(range);
        assert_eq!((got.code, &*got.stdout), (0, bytes), "{range}: {}", got.stderr);
    }
    for range in ["2..11", "11..", "11..12"] {
        let got = get(range);
        assert!(
            got.code == 1 && got.stdout.is_empty() && got.stderr.contains("10"),
            "{range}: {}",
            got.stderr
        );
    }
    for range in ["5..2", "2", "a..b", "-1..2"] {
        assert_eq!(get(range).code, 2, "{range}");
    }
    place.ok(["model", "get", "--meta", SMILE, "--range", "2..5", "--output", "copy"]);
    assert_eq!(place.read("copy"), "234");
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
    place.ok(["model", "keep", "--meta", find, "--all"]);
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

/// A place names the version that something is told of; where no version is asked for, the help names no place.
#[test]
fn a_place_names_the_version_that_is_told_of() {
    let place = Place::new();
    let file = place.write("blob", "one");
    for _ in 0..2 {
        place.ok(["model", "put", file.to_str().unwrap(), "--meta", r#"{"type":"m","timestamp":1}"#]);
        place.write("blob", "two");
    }
    let id = place.ok(["model", "id", "--meta", r#"{"type":"m","timestamp":1}"#]);
    let (first, newest) = (format!("{}@1", id.trim()), format!("{}@newest", id.trim()));
    place.ok(["model", "tag", "--id", &first, "auc=1"]);
    place.ok(["model", "tag", "--id", &newest, "auc=2"]);
    let notes = place.json(["model", "tag", "--id", &first, "--format", "json"]);
    assert_eq!((notes.as_array().unwrap().len(), &notes[0]["version"]), (1, &1.into()), "{notes}");
    let notes = place.json(["model", "tag", "--id", id.trim(), "--version", "2", "--format", "json"]);
    assert_eq!(notes.as_array().unwrap().len(), 1, "{notes}");
    let told = place.fails(["model", "tag", "--id", &first, "--version", "1", "auc=1"]);
    assert!(told.contains(&format!("give --id {} alone", id.trim())), "{told}");
    for command in ["versions", "alias", "pin", "keep"] {
        assert!(!place.ok(["model", command, "--help"]).contains("ID@"), "{command}");
    }
}
