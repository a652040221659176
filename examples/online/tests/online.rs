//! The example as people run it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

fn run(arguments: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_online"))
        .current_dir(dir.path())
        .args(["--pace", "40000", "--every", "50"])
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// How many rows were in a version when it was killed, and how many that were not; of the line that tells so.
fn saved_and_lost(text: &str) -> Vec<u64> {
    let line =
        text.lines().find(|line| line.starts_with("killed after row")).expect("it tells when it was killed");
    let numbers = line.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    numbers.map(|part| part.parse().unwrap()).skip(2).collect()
}

/// Killed in the middle, it goes on and ends with what a run knows that never stopped and missed the same rows.
#[test]
fn a_killed_learner_goes_on_as_if_it_had_missed_some_rows() {
    let text = run(&["--rows", "20000"]);
    assert!(text.contains("both know the same") && text.contains('█'), "{text}");
    assert!(saved_and_lost(&text)[0] > 0, "it went on from nothing: {text}");
}

#[test]
fn a_killed_learner_of_electricity_prices_goes_on() {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let data = std::env::var_os("UNDERBELLY_DATA").map_or(beside, PathBuf::from);
    let file = data.join("labelled_stream/elec2.csv.gz");
    if !file.is_file() {
        let remedy = "set UNDERBELLY_DATA to the folder with the sample data";
        return println!("SKIPPED: no {}; {remedy}", file.display());
    }
    let text = run(&["--data", file.to_str().unwrap()]);
    assert!(text.contains("both know the same") && text.contains("of 45312"), "{text}");
    assert!(saved_and_lost(&text)[0] > 0, "it went on from nothing: {text}");
}
