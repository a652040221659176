//! The checker finds each anomaly in a history made by hand, calls it by its name, and takes sound histories.

use crate::checker::{Anomaly, Counts, check};
use crate::history::Entry;
use crate::history::Object::{Cell, Model, Series};

/// Two transactions that overlap, at seqs 1 and 2.
fn pair() -> (Entry, Entry) {
    (Entry::committed(0, 10, 1), Entry::committed(1, 11, 2))
}

fn found(entries: &[Entry]) -> Vec<Anomaly> {
    check(entries).expect_err("this history is not sound")
}

fn names(entries: &[Entry]) -> Vec<&'static str> {
    found(entries).into_iter().map(|anomaly| anomaly.name).collect()
}

#[test]
fn sound_histories_pass() {
    assert_eq!(check(&[]), Ok(Counts::default()));
    let (first, second) = pair();
    let history = [
        first.read(Cell(0), []).write(Cell(0), 1).write(Series(0), 2).write(Series(0), 3),
        second.read(Cell(0), [1]).read(Series(0), [2, 3]).write(Cell(0), 4).write(Cell(0), 5),
        Entry::looked(2, 3, 0).read(Cell(0), []).read(Series(0), []).read(Model(0), []),
        Entry::looked(4, 12, 1).read(Cell(0), [1]).read(Series(0), [2, 3]),
        Entry::looked(12, 13, 2).read(Cell(0), [5]),
        Entry::refused(2, 9).read(Cell(0), []).write(Cell(0), 9),
    ];
    let counts = check(&history).unwrap();
    assert_eq!((counts.committed, counts.looked, counts.refused), (2, 3, 1));
    assert_eq!((counts.reads, counts.overlapping), (10, 4));
    // The order of the entries does not matter.
    let mut turned = history.to_vec();
    turned.reverse();
    assert_eq!(check(&turned), Ok(counts));
}

#[test]
fn a_lost_update_is_found() {
    for object in [Cell(0), Model(3)] {
        let (first, second) = pair();
        let history = [first.read(object, []).write(object, 1), second.read(object, []).write(object, 2)];
        assert_eq!(names(&history), ["lost update (G-single)"]);
        let what = &found(&history)[0].what;
        assert!(what.contains("T2 read") && what.contains("(rw)") && what.contains("(ww)"), "{what}");
    }
}

#[test]
fn write_skew_is_found() {
    let (first, second) = pair();
    let history = [
        first.read(Cell(0), []).read(Cell(1), []).write(Cell(0), 1),
        second.read(Cell(0), []).read(Cell(1), []).write(Cell(1), 2),
    ];
    assert_eq!(names(&history), ["write skew (G2-item)"]);
}

#[test]
fn write_skew_over_three_is_found() {
    let history = [
        Entry::committed(0, 10, 1).read(Cell(0), []).write(Cell(1), 1),
        Entry::committed(0, 10, 2).read(Cell(2), []).write(Cell(0), 2),
        Entry::committed(0, 10, 3).read(Cell(1), []).write(Cell(2), 3),
    ];
    assert_eq!(names(&history), ["G2-item"]);
}

#[test]
fn a_phantom_is_found() {
    let (first, second) = pair();
    let history =
        [first.read(Series(0), []).write(Series(0), 1), second.read(Series(0), []).write(Series(0), 2)];
    assert_eq!(names(&history), ["phantom (G2)"]);
    // Between two series too, where each counts the other's rows.
    let (first, second) = pair();
    let history =
        [first.read(Series(0), []).write(Series(1), 1), second.read(Series(1), []).write(Series(0), 2)];
    assert_eq!(names(&history), ["phantom (G2)"]);
}

#[test]
fn read_skew_is_found() {
    // Half of a transaction is seen: one object before it, one after it.
    let history = [
        Entry::committed(0, 10, 1).write(Cell(0), 1).write(Cell(1), 2),
        Entry::looked(0, 10, 1).read(Cell(0), [1]).read(Cell(1), []),
    ];
    assert_eq!(names(&history), ["G-single (read skew)"]);
}

#[test]
fn circular_flow_is_found() {
    let (first, second) = pair();
    let history = [first.read(Cell(1), [2]).write(Cell(0), 1), second.read(Cell(0), [1]).write(Cell(1), 2)];
    assert_eq!(names(&history), ["G1c (circular information flow)"]);
}

#[test]
fn an_aborted_read_is_found() {
    let history = [Entry::refused(0, 1).write(Cell(0), 1), Entry::looked(0, 9, 0).read(Cell(0), [1])];
    assert_eq!(names(&history), ["G1a (aborted read)"]);
    // It is one for a reader that is refused too.
    let history = [Entry::refused(0, 1).write(Cell(0), 1), Entry::refused(0, 9).read(Cell(0), [1])];
    assert_eq!(names(&history), ["G1a (aborted read)"]);
}

#[test]
fn an_intermediate_read_is_found() {
    let cell = [
        Entry::committed(0, 10, 1).write(Cell(0), 1).write(Cell(0), 2),
        Entry::looked(0, 10, 1).read(Cell(0), [1]),
    ];
    assert_eq!(names(&cell), ["G1b (intermediate read)"]);
    let series = [
        Entry::committed(0, 10, 1).write(Series(0), 1).write(Series(0), 2),
        Entry::looked(0, 10, 1).read(Series(0), [1]),
    ];
    assert_eq!(names(&series), ["G1b (intermediate read)"]);
}

#[test]
fn a_value_from_nowhere_is_found() {
    assert_eq!(names(&[Entry::looked(0, 1, 0).read(Model(0), [7])]), ["garbage read"]);
}

#[test]
fn rows_in_another_order_are_found() {
    let (first, second) = pair();
    for seen in [vec![2, 1], vec![2], vec![1, 1]] {
        let history = [
            first.clone().write(Series(0), 1),
            second.clone().write(Series(0), 2),
            Entry::looked(0, 12, 2).read(Series(0), seen),
        ];
        assert_eq!(names(&history), ["incompatible order"]);
    }
}

#[test]
fn a_stale_read_is_found() {
    // The look began when the commit had been answered, and shows what was before.
    let history = [Entry::committed(0, 1, 1).write(Cell(0), 1), Entry::looked(2, 3, 0).read(Cell(0), [])];
    assert_eq!(names(&history), ["G-single-realtime (stale read)"]);
}

#[test]
fn answers_out_of_order_are_found() {
    // The second was called after the answer of the first, and stands before it; nothing else tells.
    let history = [Entry::committed(0, 1, 2).write(Cell(0), 1), Entry::committed(2, 3, 1).write(Cell(1), 2)];
    assert_eq!(names(&history), ["out of commit order"]);
    // With a third between them, which follows from the other two.
    let history = [
        Entry::committed(0, 1, 3).write(Cell(0), 1),
        Entry::committed(2, 3, 4).write(Cell(1), 2),
        Entry::committed(4, 5, 1).write(Cell(2), 3),
    ];
    assert_eq!(names(&history), ["out of commit order"]);
}

#[test]
fn a_read_from_the_future_is_found() {
    let history = [Entry::looked(0, 1, 1).read(Cell(0), [1]), Entry::committed(2, 3, 1).write(Cell(0), 1)];
    // A look at seq 1 that was answered before the call of that commit.
    assert_eq!(names(&history), ["G1c-realtime (seen before it was called)"]);
    let (first, second) = pair();
    let history = [first.read(Cell(0), [2]).write(Cell(1), 1), second.write(Cell(0), 2)];
    assert_eq!(names(&history), ["out of commit order"]);
}

#[test]
fn one_place_for_two_is_found() {
    let history = [Entry::committed(0, 1, 1), Entry::committed(0, 1, 1)];
    assert_eq!(names(&history), ["one place for two"]);
}
