//! The demo: it must come out as it says.

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
