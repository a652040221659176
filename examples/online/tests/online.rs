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

fn numbers(line: &str) -> Vec<f64> {
    let is_part = |c: char| c.is_ascii_digit() || c == '.';
    line.split(|c| !is_part(c)).filter_map(|part| part.parse().ok()).collect()
}

/// It was killed amid its rows, and what went on from those that were in a version is no worse than it should be.
fn check(text: &str, rows: u64, accuracy_min: f64) {
    let line = |begin: &str| text.lines().find(|line| line.starts_with(begin)).expect(begin);
    let [row, of, saved, lost] = numbers(line("killed after row"))[..] else { panic!("{text}") };
    assert!(row < rows as f64 && of == rows as f64 && saved > 0.0, "{text}");
    assert_eq!(row, saved + lost, "{text}");
    let accuracy = numbers(line("killed and resumed"))[0];
    assert!(accuracy > accuracy_min, "{text}");
    assert!(text.contains("both know the same"), "{text}");
    // A bar for each 500 rows, but for those that the kill took.
    let is_bars =
        |line: &&str| line.starts_with("  ") && line.trim().chars().all(|bar| ('▁'..='█').contains(&bar));
    let bars: usize = text.lines().filter(is_bars).map(|line| line.trim().chars().count()).sum();
    assert!((rows / 500 - 4..=rows / 500).contains(&(bars as u64)), "{bars} bars: {text}");
}

/// Killed in the middle, it goes on and ends with what a run knows that never stopped and missed the same rows.
#[test]
fn a_killed_learner_goes_on_as_if_it_had_missed_some_rows() {
    check(&run(&["--rows", "20000"]), 20_000, 0.7);
}

#[test]
fn a_killed_learner_of_electricity_prices_goes_on() {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let told = std::env::var_os("UNDERBELLY_DATA").map(PathBuf::from);
    let file = told.as_ref().unwrap_or(&beside).join("labelled_stream/elec2.csv.gz");
    if !file.is_file() {
        assert!(told.is_none(), "no {}, though UNDERBELLY_DATA is set", file.display());
        let remedy = "set UNDERBELLY_DATA to the folder with the sample data";
        return println!("SKIPPED: no {}; {remedy}", file.display());
    }
    check(&run(&["--data", file.to_str().unwrap()]), 45_312, 0.7);
}
