//! The demo: it must come out as it says.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use crate::{Place, words};

/// Four producers run for each expiry of each date, one branch for a change, and nothing for equal data.
#[test]
fn the_demo_runs_and_says_what_it_did() {
    let place = Place::bare();
    let said = place.ok(words("demo --days 2 --page page.html"));
    for line in [
        "12 cells changed; all current after",
        "runs: forward_fitter 11, implied_vol 11, smile_fitter 11, surface 1",
        "1 cell changed; runs: forward_fitter 1, implied_vol 1, smile_fitter 1, surface 1",
        "0 cells changed; runs: none",
        "a smile without butterfly arbitrage",
    ] {
        assert!(said.contains(line), "{line:?} is not in\n{said}");
    }
    let page = place.read("page.html");
    assert!(page.contains("<svg") && page.contains("Surface.Vanilla") && page.contains("smile_fitter"));
    assert!(!page.contains("http://") && !page.contains("https://"), "the page refers to something outside");
    place.ok(words("verify"));
    let surface = place.csv(words("slot show Surface.Vanilla --format csv"));
    assert_eq!(surface.len(), 3, "a header and a cell for each date");
}

/// A number that stands before a word.
fn counted<'a>(text: &'a str, word: &str) -> impl Iterator<Item = u64> {
    let before: Vec<&'a str> = text.split(word).collect();
    let ends = before.len() - 1;
    before.into_iter().take(ends).filter_map(|text| text.rsplit([' ', '\n']).next()?.parse().ok())
}

/// Slowly, `top` beside it sees runs come and go, work that waits, and the alarm of the day that is late.
#[test]
fn a_slow_demo_can_be_watched() {
    let place = Place::bare();
    let mut demo = place.command(words("demo --slow 1s --days 2 --page page.html"));
    let mut demo = demo.stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(demo.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("Watch it") {
        line.clear();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "the demo ended");
    }
    assert!(line.contains(" top"), "{line}");
    let mut top = place.command(words("top --every 20ms")).stdout(Stdio::piped()).spawn().unwrap();
    let mut seen = top.stdout.take().unwrap();
    let seen = std::thread::spawn(move || {
        let mut text = String::new();
        seen.read_to_string(&mut text).map(|_| text)
    });
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert!(demo.wait().unwrap().success());
    top.kill().unwrap();
    top.wait().unwrap();
    let seen = seen.join().unwrap().unwrap();
    assert!(rest.contains("only 5 of 11 expiries came so far; alarms: Surface.Vanilla"), "{rest}");
    assert!(rest.contains("in two transactions") && rest.contains("smile_fitter 11, surface 1"), "{rest}");
    let flying: Vec<u64> = counted(&seen, " in flight").collect();
    assert!(flying.contains(&0) && flying.iter().any(|count| *count > 0), "{flying:?}");
    assert!(seen.contains("1 alarm\n") && seen.contains("overdue for "), "{seen}");
    let ready = seen.lines().filter(|line| line.trim_start().starts_with("smile_fitter "));
    let ready: Vec<&str> = ready.filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert!(ready.iter().any(|ready| *ready != "0"), "{ready:?}");
}

/// A folder without chains is named, and so is one that holds a database already.
#[test]
fn a_demo_that_cannot_be_is_refused() {
    let place = Place::bare();
    let empty = place.fails(words("demo --data ."));
    assert!(empty.contains("YYYYMMDD.csv"), "{empty}");
    place.ok(words("init"));
    let twice = place.fails(words("demo --days 1"));
    assert!(twice.contains("holds an Underbelly database already"), "{twice}");
}
