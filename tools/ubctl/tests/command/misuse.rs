//! Exit codes, pipes, and databases that cannot be opened.

use std::io::Read;
use std::process::Stdio;

use crate::{Place, words};

#[test]
fn misuse_is_exit_2_and_help_is_exit_0() {
    let place = Place::new();
    for line in
        ["", "frobnicate", "import", "series range", "series range x --closed top", "status --format arrow"]
    {
        let ended = place.run(line.split_whitespace());
        assert_eq!(ended.code, 2, "{line}: {}", ended.stderr);
        assert!(ended.stdout.is_empty() && !ended.stderr.is_empty(), "{line}");
    }
    for line in ["--help", "import --help", "slot put --help", "--version"] {
        let ended = place.run(words(line));
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{line}");
        assert!(!ended.stdout.is_empty());
    }
}

#[test]
fn a_bad_time_is_met_with_the_forms_that_the_command_takes() {
    let place = Place::new();
    for line in ["series range s --from soon", "series range s --to 1381132800688"] {
        let ended = place.run(words(line));
        assert_eq!(ended.code, 2);
        assert!(ended.stderr.contains("seconds since 1970"), "{}", ended.stderr);
        assert!(
            !ended.stderr.contains("--time-format") && !ended.stderr.contains("--unit"),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn a_missing_or_second_database_is_exit_1() {
    let place = Place::bare();
    assert!(place.fails(words("status")).contains("ubctl init"));
    place.ok(words("init"));
    assert!(place.fails(words("init")).contains("already"));
    place.write("x", "");
    for noun in ["init", "status"] {
        assert!(place.fails(["--db", "x", noun]).contains("x: it is a file"));
    }
    assert!(place.fails(words("init --db .")).contains("not empty"));
    place.ok(words("--db other init"));
    assert!(place.json(words("status --db other --format json"))["dir"].as_str().unwrap().contains("other"));
}

#[test]
fn a_second_writer_is_told_who_writes() {
    let place = Place::new();
    let held = underbelly::Database::open(place.db()).unwrap();
    let error = place.fails(words("checkpoint"));
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    place.ok(words("status"));
    drop(held);
    place.ok(words("checkpoint"));
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let place = Place::new();
    let mut text = String::from("time,x\n");
    (0..200_000).for_each(|i| text.push_str(&format!("{i},{i}\n")));
    place.write("many.csv", text);
    place.ok(words("import many.csv --series s --time time"));
    for format in ["csv", "json"] {
        let mut child = place
            .command(["series", "range", "s", "--format", format])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut head = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut head).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert!(output.status.success(), "{:?}", output.status);
    }
}

#[test]
fn status_verify_and_checkpoint_have_every_form() {
    let place = Place::new();
    place.write("a.csv", "time,x\n0,1\n1,2\n");
    place.ok(words("import a.csv --series s --time time"));
    for noun in ["status", "verify", "checkpoint"] {
        assert!(place.json([noun, "--format", "json"]).is_object());
        assert_eq!(place.csv([noun, "--format", "csv"])[0], ["name", "value"]);
        assert!(place.ok([noun]).lines().count() > 4);
    }
    let status = place.json(words("status --format json"));
    assert_eq!((&status["series"], &status["torn_tail"]), (&1.into(), &serde_json::Value::Null));
    let verified = place.json(words("verify --format json"));
    assert_eq!((&verified["rows"], &verified["damages"]), (&2.into(), &0.into()));
}

#[test]
fn damage_is_named_and_exit_1() {
    let place = Place::new();
    let mut text = String::from("time,x,y\n");
    (0..50_000).for_each(|i| text.push_str(&format!("{i},{},word{i}\n", i * 7919 % 1013)));
    place.write("a.csv", text);
    place.ok(words("import a.csv --series s --time time"));
    let dir = place.db().join("segments").join("s");
    let segment = std::fs::read_dir(dir).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    // Sealed files are read-only, so the damaged twin takes the file's place.
    std::fs::remove_file(&segment).unwrap();
    std::fs::write(&segment, bytes).unwrap();
    let name = segment.file_name().unwrap().to_str().unwrap();
    // A checkpoint leaves it as it is, and says so; so does the status from then on.
    place.ok(words("series rm s --from 10 --to 20"));
    let checkpoint = place.run(words("checkpoint --format json"));
    let facts: serde_json::Value = serde_json::from_str(&checkpoint.stdout).unwrap();
    assert_eq!((checkpoint.code, &facts["damaged_segments"]), (1, &1.into()), "{}", checkpoint.stderr);
    assert!(checkpoint.stderr.contains(name), "{}", checkpoint.stderr);
    let status = place.json(words("status --format json"));
    assert!(status["damaged_segment_1"].as_str().unwrap().contains(name), "{status}");
    let ended = place.run(["verify"]);
    assert_eq!(ended.code, 1, "{}", ended.stdout);
    assert!(
        ended.stderr.contains(name) && ended.stderr.contains(" found; the lines above say"),
        "{}",
        ended.stderr
    );
    assert!(ended.stdout.contains("segments"), "what was checked is printed");
}

/// A variable of the environment that is empty names no folder, and a link that leads nowhere is told as one.
#[test]
fn a_folder_that_is_not_named_and_one_that_is_gone_are_told() {
    let place = Place::new();
    std::fs::rename(place.db(), place.path("underbelly-db")).unwrap();
    let ended = place.command(words("status")).env("UNDERBELLY_DB", "").output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    std::os::unix::fs::symlink("nowhere", place.path("gone")).unwrap();
    for line in ["--db gone status", "--db gone init", "--db gone repair copy"] {
        let told = place.fails(words(line));
        assert!(told.contains("gone: it is a link that leads nowhere"), "{told}");
    }
}

#[test]
fn what_goes_backwards_or_without_a_pause_is_refused() {
    let place = Place::new();
    let told = place.fails(words("wal dump --from 9 --to 3"));
    assert!(told.contains("--from 9 is behind --to 3"), "{told}");
    place.write("x.csv", "");
    let told = place.fails(words("export trade --output x.csv"));
    assert!(told.contains("x.csv: it is there already; name another file"), "{told}");
    for line in ["top --every 0s", "top --looks 0", "var watch --every 0ms", "var watch --looks 0"] {
        let ended = place.run(words(line));
        assert_eq!(ended.code, 2, "{line}: {}", ended.stderr);
    }
}

/// Too few handles are no damage; and a limit of file sizes is an error and not the end of the process.
#[test]
fn limits_of_the_process_are_told_as_such() {
    let place = Place::new();
    place.ok(words("var set a 1"));
    let under = |limit: &str, line: &str| {
        let mut command = std::process::Command::new("sh");
        command.current_dir(place.path("")).env("UNDERBELLY_DB", place.db());
        command.args(["-c", &format!("ulimit {limit}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_ubctl")]);
        let output = command.args(words(line)).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for line in ["verify", "repair copy", "status", "var set b 2"] {
        for handles in 4..12 {
            let (code, told) = under(&format!("-n {handles}"), line);
            // Where it has just enough, all is well.
            assert!(code == Some(0) || told.contains("ulimit -n"), "{line}, {handles}: {told}");
            assert!(!told.contains("found") && !told.contains("losses"), "{line}, {handles}: {told}");
            std::fs::remove_dir_all(place.path("copy")).ok();
        }
    }
    let (code, told) = under("-f 1000", "--db small init");
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("File too large") && told.contains("ulimit -f"), "{told}");
    place.ok(words("--db small init"));
}
