//! What processes say that no program should.

use super::*;

/// The error of a run whose process says this, and how many runs there were.
fn error_of(kind: &str) -> String {
    let db = database();
    db.register_program(twice(), program("nonsense").arg(kind)).unwrap();
    put(&db, &["a"]);
    settle(&db);
    let history = history(&db);
    // What is wrong with the program is not tried again, but where it seems to have died.
    let (_, outcome, error) = history.last().unwrap().clone();
    assert_eq!(outcome, "failed", "{history:?}");
    assert_eq!(history.len(), if kind == "short" { 3 } else { 1 }, "{history:?}");
    assert_eq!(state(&db, "A", "a"), Some(State::Current));
    error
}

#[test]
fn each_kind_of_nonsense_fails_its_run_and_is_named() {
    for (kind, expected) in [
        ("text", "\"Traceback (most \" is no frame; write nothing but frames to this stream"),
        ("long", "control part of 4294967295 bytes is longer than the 16777216"),
        ("short", "its process exited with code 0"),
        ("cbor", "a message cannot be used"),
        ("run", "it answered run 7"),
        ("epoch", "it answered batch"),
        ("place", "message \"hello\" has no place in a batch"),
        ("arrow", "output \"B\": rows cannot be read"),
        ("share", "its parts have 18 bytes in all, of a data part of 9 bytes"),
        (
            "blob",
            "a blob of a model cannot be read: 9 bytes at 18446744073709551615 of a data part of 9 bytes",
        ),
        ("shared blob", "its parts have 18 bytes in all, of a data part of 9 bytes"),
        ("complaint", "it cannot use \"run\": it is too heavy"),
        ("span", "output \"B\": rows cannot be read: 9 bytes at 18446744073709551615"),
    ] {
        let error = error_of(kind);
        assert!(error.contains(expected), "{kind}: {error}");
    }
}

#[test]
fn what_is_not_known_is_answered_and_goodbyes_are_taken() {
    let db = database();
    db.register_program(twice(), program("strange")).unwrap();
    put(&db, &["a", "b"]);
    settle(&db);
    let runs = db.runs(None, 10).unwrap();
    let told: Vec<(&str, Option<&str>)> =
        runs.iter().map(|run| (run.outcome.as_str(), run.stderr.as_deref())).collect();
    assert_eq!(told, [("completed", Some("a line for the log")); 2]);
    assert_ne!(runs[0].process, runs[1].process);
}
