//! Variables on the command line.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::json;
use underbelly::{Batch, Database, Scope};

use crate::{Place, words};

#[test]
fn variables_are_set_shown_listed_and_removed() {
    let place = Place::new();
    place.ok(words("var set limit 3"));
    place.ok(words("var set limit -4"));
    place.ok(words("var set limit 0.5 --scope asset:IBM"));
    place.ok(words("var set limit 2 --scope asset:IBM"));
    place.ok(words("var set weights [1,2.5] --scope episode:e1"));
    place.ok(words("var set note hello --scope episode:e1"));
    place.ok(words("var set raw 00ff --type hex"));
    let limit = place.json(words("var get limit --scope asset:IBM --format json"));
    assert_eq!((&limit["value"], &limit["type"]), (&json!(2.0), &json!("f64")));
    assert_eq!(place.csv(words("var get limit --format csv"))[1], ["value", "-4"]);
    let all = place.csv(words("var ls --format csv"));
    let all: Vec<_> = all.iter().map(|row| row[..4].join(" ")).collect();
    assert_eq!(
        all,
        [
            "scope name type value",
            "global limit i64 -4",
            "global raw bytes 00ff",
            "episode:e1 note bytes hello",
            "episode:e1 weights f64[2] [1.0,2.5]",
            "asset:IBM limit f64 2.0",
        ]
    );
    assert_eq!(place.json(words("var ls --scope episode:e1 --format json")).as_array().unwrap().len(), 2);
    assert_eq!(place.json(words("status --format json"))["variables"], 5);
    place.ok(words("var rm limit"));
    assert!(place.fails(words("var rm limit")).contains("ubctl var ls"));
    assert!(place.fails(words("var get limit")).contains("no variable of scope global is named \"limit\""));
    place.ok(words("var set limit true"));
}

#[test]
fn what_does_not_fit_is_told() {
    let place = Place::new();
    place.ok(words("var set weights [1,2] --scope asset:a"));
    let error = place.fails(words("var set weights [1,2,3] --scope asset:a"));
    assert!(error.contains("\"asset:a weights\" holds f64[2], not f64[3]"), "{error}");
    assert!(place.fails(words("var set weights x --type i64")).contains("is no i64"));
    for line in ["var get a --scope asset", "var get a --scope asset:", "var set a", "var set a 1 --type u8"]
    {
        assert_eq!(place.run(words(line)).code, 2, "{line}");
    }
    let long = "x".repeat(256);
    assert!(place.fails(["var", "get", &long]).contains("longer than 255 bytes"));
}

/// What is in no log is found by name, listed, and told from what is.
#[test]
fn variables_that_are_in_no_log_are_shown_and_told_apart() {
    let place = Place::new();
    place.ok(words("var set loss 3"));
    let db = Database::open(place.db()).unwrap();
    let loss = db.unlogged_var::<f64>(&Scope::Global, "loss").unwrap();
    let gauge = db.unlogged_var::<[f64; 2]>(&Scope::asset("IBM"), "gauge").unwrap();
    loss.set(0.25).unwrap();
    gauge.set([1.0, f64::NAN]).unwrap();
    let get = |line: &str| {
        let shown = place.json(words(&format!("var get {line} --format json")));
        (shown["value"].clone(), shown["logged"].clone(), shown["seq"].is_u64(), shown["time"].is_string())
    };
    assert_eq!(get("loss"), (json!(3), json!(true), true, true));
    assert_eq!(get("loss --unlogged"), (json!(0.25), json!(false), false, false));
    assert_eq!(get("gauge --scope asset:IBM"), (json!([1.0, "NaN"]), json!(false), false, false));
    let error = place.fails(words("var get gauge"));
    assert!(error.contains("no variable of scope global is named \"gauge\""), "{error}");
    let all = place.csv(words("var ls --format csv"));
    let all: Vec<_> = all.iter().map(|row| row[..6].join(" ")).collect();
    assert_eq!(
        all,
        [
            "scope name type value encoding logged",
            "global loss i64 3  true",
            "global loss f64 0.25  false",
            "asset:IBM gauge f64[2] [1.0,NaN]  false",
        ]
    );
    assert_eq!(place.csv(words("var ls --scope asset:IBM --format csv")).len(), 2);
    let unlogged = || place.run(words("var get loss --unlogged")).stderr;
    assert_eq!(unlogged(), "");
    drop((loss, gauge));
    db.close().unwrap();
    assert!(unlogged().contains("no process writes"), "{}", unlogged());
}

/// In JSON an array is one, and bytes say whether they are shown as text or as digits.
#[test]
fn values_in_json_are_what_they_are() {
    let place = Place::new();
    place.ok(words("var set weights [1.5,2,NaN,-inf]"));
    place.ok(words("var set text 00ff --type text"));
    place.ok(words("var set raw 00ff --type hex"));
    let all = place.json(words("var ls --format json"));
    let shown: Vec<_> = all.as_array().unwrap().iter().map(|row| (&row["value"], &row["encoding"])).collect();
    let array = json!([1.5, 2.0, "NaN", "-inf"]);
    assert_eq!(
        shown,
        [
            (&json!("00ff"), &json!("hex")),
            (&json!("00ff"), &json!("text")),
            (&array, &serde_json::Value::Null),
        ]
    );
    assert_eq!(place.json(words("var get weights --format json"))["value"], array);
    assert_eq!(place.json(words("var get raw --format json"))["encoding"], "hex");
    assert!(place.ok(words("var get weights")).contains("[1.5,2.0,NaN,-inf]\n"));
}

#[test]
fn what_looks_like_another_value_is_refused_and_changes_nothing() {
    let place = Place::new();
    for text in ["[1,2,x]", "True", "1e400"] {
        let error = place.fails(["var", "set", "x", text]);
        assert!(error.contains("looks like") && error.contains("--type text"), "{error}");
        assert!(place.fails(words("var get x")).contains("no variable"));
    }
    place.ok(words("var set x True --type text"));
    place.ok(words("var set x 1e400"));
    assert_eq!(place.json(words("var get x --format json"))["value"], "1e400", "it keeps its type");
}

/// Who consumes goes by its cursor, which nobody moves or removes by accident; the engine's names are its own.
#[test]
fn cursors_are_moved_by_their_consumers_alone() {
    let place = Place::new();
    place.ok(words("var set x 1"));
    place.ok(words("tail --cursor job --ack"));
    let stands = || place.json(words("var get _cursor.job --format json"))["value"].as_i64().unwrap();
    let before = stands();
    for line in
        ["var set _cursor.job 1", "var set _cursor.job abc", "var rm _cursor.job", "var set _cursor.new 1"]
    {
        let error = place.fails(words(line));
        assert!(error.contains("`ubctl tail --cursor ") && error.contains("--force"), "{error}");
    }
    assert_eq!(stands(), before);
    let error = place.fails(words("var set _cursor.job abc --force"));
    assert!(error.contains("cursor \"job\"") && error.contains("holds bytes"), "{error}");
    let error = place.fails(words("var set _cursor.job 9999 --force"));
    assert!(error.contains("cannot stand at transaction 9999, the newest is "), "{error}");
    assert_eq!(stands(), before);
    place.ok(words("var set _cursor.job 1 --force"));
    assert_eq!(stands(), 1);
    place.ok(words("var rm _cursor.job --force"));
    assert!(place.fails(words("tail --cursor job")).contains("no cursor is named \"job\""));
    let error = place.fails(words("var set _mine 1"));
    assert!(error.contains("begins with `_`"), "{error}");
}

/// Elsewhere than on a terminal a watch writes a line for each change.
#[test]
fn a_watch_writes_what_changes() {
    let place = Place::new();
    place.ok(["var", "set", "lag", "0.5"]);
    place.ok(["var", "set", "other", "true"]);
    assert_eq!(place.ok(["var", "watch", "lag", "--looks", "2", "--every", "1ms"]), "lag\t0.5\n");
    let all = place.ok(["var", "watch", "--looks", "1"]);
    assert!(all.contains("lag\t0.5\n") && all.contains("other\ttrue\n"), "{all}");
    assert_eq!(place.ok(["var", "watch", "--scope", "asset:IBM", "--looks", "1"]), "");
}

/// Cursors are of consumers and not of who watches, unless they are named; a begin stands for all that have it.
#[test]
fn a_watch_of_a_begin_shows_what_has_it() {
    let place = Place::new();
    for line in ["training/loss 1", "training/auc 2", "trading 3", "_cursor.job 1 --force"] {
        place.ok(words(&format!("var set {line}")));
    }
    let shown = |names: &[&str]| place.ok([&["var", "watch", "--looks", "1"], names].concat());
    assert_eq!(shown(&["training/*"]), "training/auc\t2\ntraining/loss\t1\n");
    assert_eq!(shown(&["trading", "*/loss"]), "trading\t3\n");
    assert_eq!(shown(&[]), "trading\t3\ntraining/auc\t2\ntraining/loss\t1\n");
    assert_eq!(shown(&["_cursor.*"]), "_cursor.job\t1\n");
}

/// A value that somebody else set meanwhile is not set over where it is told what was read.
#[test]
fn a_variable_is_set_where_it_is_as_expected() {
    let place = Place::new();
    assert!(
        place.fails(words("var set limit 3 --expect 2")).contains("is not there, not 2; nothing was set")
    );
    place.ok(words("var set limit 2 --absent"));
    assert!(place.fails(words("var set limit 9 --absent")).contains("is 2, not absent"));
    place.ok(words("var set limit 3 --expect 2"));
    let error = place.fails(words("var set limit 4 --expect 2"));
    assert!(error.contains("variable \"limit\" of scope global is 3, not 2"), "{error}");
    place.ok(words("var set rate NaN"));
    place.ok(words("var set rate -0.5 --expect NaN"));
    assert!(place.fails(words("var set rate 1 --expect 0.5")).contains("is -0.5, not 0.5"));
    assert_eq!(place.run(words("var set limit 4 --expect 2 --absent")).code, 2);
    place.ok(words("var set raw 00ff --type hex"));
    place.ok(words("var set raw abc --expect 00ff"));
    place.ok(words("var set raw 3 --type text --expect abc"));
    let set = place.json(words("var set limit 5 --format json"));
    assert_eq!(set["type"], "i64");
    let removed = place.json(words("var rm limit --format json"));
    assert!(removed["seq"].as_u64() > set["seq"].as_u64(), "{removed}");
}

/// What is removed while it is watched is told, and once.
#[test]
fn a_watch_tells_what_is_removed() {
    let place = Place::new();
    place.ok(words("var set lag 0.5"));
    let db = Database::open(place.db()).unwrap();
    let watch = words("var watch --every 10ms --looks 1000");
    let mut child = place.command(watch).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), "lag\t0.5");
    let mut batch = Batch::new();
    batch.remove_variable(Scope::Global, "lag");
    db.commit(batch).unwrap();
    assert_eq!(next(), "lag\t\tremoved");
    let mut batch = Batch::new();
    batch.set_variable(Scope::Global, "lag", 0.5);
    db.commit(batch).unwrap();
    assert_eq!(next(), "lag\t0.5");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What a monitor of another process records is drawn as it changes, as bars from the least to the greatest.
#[test]
fn a_watch_draws_what_is_recorded_as_bars() {
    if Command::new("script").arg("--version").output().is_err() {
        println!("SKIPPED: there is no `script` on this machine, so no terminal to watch on");
        return;
    }
    let place = Place::new();
    let db = Database::open(place.db()).unwrap();
    let mut monitor = db.monitor("training").unwrap();
    let line = "stty rows 24 cols 80 && \"$UBCTL\" var watch 'training/*' --looks 50 --every 20ms";
    let mut command = Command::new("script");
    command
        .args(["-qec", line, "/dev/null"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .env("SHELL", "/bin/sh");
    command.env("UNDERBELLY_DB", place.db()).env("UBCTL", env!("CARGO_BIN_EXE_ubctl"));
    let mut child = command.spawn().unwrap();
    for step in 0.. {
        if child.try_wait().unwrap().is_some() {
            break;
        }
        monitor.record("loss", step, step as f64);
        monitor.flush().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let is_drawn = |line: &str| line.contains("training/loss") && line.contains('▁') && line.contains('█');
    assert!(text.lines().any(is_drawn), "{text}");
}

/// On a terminal the lines are drawn anew in their place: as many as it has, less the one that the cursor stands in.
#[test]
fn a_watch_draws_its_lines_anew_on_a_terminal() {
    // What makes a pseudo terminal.
    if Command::new("script").arg("--version").output().is_err() {
        println!("SKIPPED: there is no `script` on this machine, so no terminal to watch on");
        return;
    }
    let place = Place::new();
    for n in 0..6 {
        place.ok(words(&format!("var set gauge{n} {n}.5")));
    }
    let watched = |size: &str| {
        let line = format!("stty {size} && \"$UBCTL\" var watch --looks 3 --every 10ms");
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).env("SHELL", "/bin/sh");
        command.env("UNDERBELLY_DB", place.db()).env("UBCTL", env!("CARGO_BIN_EXE_ubctl"));
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}");
        text.replace("\r\n", "\n")
    };
    let line = |n: usize, bars: usize| format!("gauge{n}  {n}.5  {}\n", "▁".repeat(bars));
    let frames = |rows: &dyn Fn(usize) -> String, count: usize| {
        let again = format!("\x1b[{count}A\x1b[J");
        [rows(1), rows(2), rows(3)].join(&again)
    };
    let all = |bars: usize| (0..6).map(|n| line(n, bars)).collect::<String>();
    assert_eq!(watched("rows 7 cols 80"), frames(&all, 6));
    let some = |bars: usize| (0..3).map(|n| line(n, bars)).collect::<String>() + "… 3 more\n";
    assert_eq!(watched("rows 5 cols 80"), frames(&some, 4));
    // Of three values the two newest have room.
    let narrow = |bars: usize| all(bars.min(2));
    assert_eq!(watched("rows 24 cols 15"), frames(&narrow, 6));
}
