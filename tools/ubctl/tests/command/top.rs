//! The running system, as `ubctl top`, `producer log` and `producer retry` show and move it.

use std::time::Duration;

use underbelly::{
    Batch, ColumnType, Columns, Database, Date, Failure, Options, Outputs, ProducerDefinition, Retry,
    SlotDefinition,
};

use crate::{Place, words};

/// A database whose producer made one cell, waits to try another again, and failed for a third.
fn troubled() -> Place {
    let place = Place::new();
    let db = Database::open_with(place.db(), Options { workers: 1, ..Options::default() }).unwrap();
    let slot =
        |name| SlotDefinition::new(name).cell_key("symbol", ColumnType::Utf8).value("bid", ColumnType::F64);
    db.define_slot(slot("Quote")).unwrap();
    db.define_slot(slot("Mid")).unwrap();
    let hour = Duration::from_secs(3_600);
    let definition = ProducerDefinition::new("mid").requires("Quote").provides("Mid");
    db.register(definition.retry(Retry::new(3, hour, hour)), |run| match run.key("symbol") {
        Some(symbol) if *symbol == "AAPL".into() => Err(Failure::retry("the line\u{1b}[31m is down")),
        Some(symbol) if *symbol == "AIG".into() => Err(Failure::fatal("no bid")),
        _ => Ok(Outputs::new().put("Mid", run.input("Quote")?)),
    })
    .unwrap();
    let mut batch = Batch::new();
    for symbol in ["IBM", "AAPL", "AIG"] {
        let rows = Columns::new().with("bid", vec![1.0].into()).unwrap();
        batch.put_slot("Quote", Date::from_ymd(2014, 6, 2).unwrap(), [symbol], rows);
    }
    db.commit(batch).unwrap();
    // What waits for an hour is not waited for.
    let ended = || db.runs(None, 10).is_ok_and(|runs| runs.len() == 3);
    while !ended() {
        std::thread::yield_now();
    }
    db.close().unwrap();
    place
}

#[test]
fn producers_are_shown_with_what_waits_and_what_went_wrong() {
    let place = troubled();
    let shown = place.ok(words("top --looks 2 --every 1ms"));
    let line = shown.lines().find(|line| line.trim_start().starts_with("mid ")).unwrap();
    let fields: Vec<&str> = line.split_whitespace().collect();
    // ready, processing, retry_wait, notified, parked, failed, cancelled, runs, runs/s
    assert_eq!(fields[..11], ["mid", "yes", "0", "0", "1", "0", "0", "1", "0", "3", "0.0"], "{shown}");
    assert!(
        shown.contains("0 in flight") && shown.contains("mid for 2014-06-02 AIG failed: no bid"),
        "{shown}"
    );
    assert!(
        shown.contains("mid for 2014-06-02 AAPL retry: the line") && !shown.contains('\u{1b}'),
        "{shown}"
    );
    assert_eq!(shown.matches("commits/s").count(), 2, "one picture for each look");
}

#[test]
fn the_log_of_a_producer_is_told_in_order_and_a_retry_waits_no_more() {
    let place = troubled();
    let log = place.ok(words("producer log mid"));
    assert_eq!(log.lines().count(), 3, "{log}");
    assert!(log.contains(" of mid for 2014-06-02 IBM completed after "), "{log}");
    assert!(log.lines().any(|line| line.ends_with("ms: no bid")), "{log}");
    assert_eq!(place.ok(words("producer log -n 1")).lines().count(), 1);
    assert!(place.fails(words("producer log none")).contains("none"));
    let statuses = || {
        let rows = place.csv(words("producer work mid --format csv"));
        rows.into_iter().skip(1).map(|row| row[1].clone()).collect::<Vec<String>>()
    };
    assert_eq!(statuses(), ["done", "retry_wait", "failed"]);
    place.ok(words("producer retry mid 2014-06-02 AAPL"));
    assert_eq!(statuses(), ["done", "notified", "failed"], "its process is away");
}
