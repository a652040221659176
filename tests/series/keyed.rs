//! Rows that are sealed by key are answered as those that are not.

use std::sync::Arc;
use std::time::Duration;

use underbelly::{
    Aggregate, Batch, Column, ColumnType, Columns, Database, Delete, Every, Fill, Options, Predicate,
    SimulatedDisk, Timestamp, Value,
};
use underbelly_tests::{in_memory, options};

const SYMBOLS: [Option<&str>; 4] = [Some("A"), None, Some("a symbol"), Some("")];

/// Rows of eight keys by turns of uneven length, three of an instant; numbers whose sums are exact.
fn append(db: &Database, numbers: &[i64]) {
    let of = |i: &i64| (i * i % 11 + i / 5 % 3) as usize;
    let mut symbols = Column::new(ColumnType::Utf8);
    numbers.iter().for_each(|i| symbols.push(&Value::from(SYMBOLS[of(i) % 4].map(str::to_string))).unwrap());
    let mut notes = Column::new(ColumnType::Utf8);
    let note = |i: &i64| (i % 4 > 0).then(|| format!("note {}", i % 7));
    numbers.iter().for_each(|i| notes.push(&Value::from(note(i))).unwrap());
    let columns = Columns::new()
        .with("symbol", symbols)
        .unwrap()
        .with("venue", numbers.iter().map(|i| (of(i) / 4 % 2) as i64).collect::<Vec<_>>().into())
        .unwrap()
        .with(
            "price",
            numbers.iter().map(|i| (100 * of(i) as i64 + i % 13) as f64 / 4.0).collect::<Vec<_>>().into(),
        )
        .unwrap()
        .with("size", numbers.iter().map(|i| i * 7_919 % 1_000).collect::<Vec<_>>().into())
        .unwrap()
        .with("note", notes)
        .unwrap();
    let times = numbers.iter().map(|i| Timestamp(i / 3 * 1_000_000_000)).collect();
    let mut batch = Batch::new();
    batch.append_columns("t", times, columns, &["symbol", "venue"]).unwrap();
    db.commit(batch).unwrap();
}

fn delete(db: &Database, delete: Delete) {
    let mut batch = Batch::new();
    batch.delete_rows("t", delete);
    db.commit(batch).unwrap();
}

/// All answers, each with what was asked.
fn answers(db: &Database) -> Vec<(&'static str, Columns)> {
    let series = db.snapshot().series("t").unwrap();
    let aggregates = || {
        let of_price = Aggregate::ohlc("price").into_iter().chain([
            Aggregate::sum("price"),
            Aggregate::mean("size"),
            Aggregate::sum("size").named("all"),
            Aggregate::count("note"),
            Aggregate::last("note").named("last note"),
            Aggregate::vwap("price", "size"),
            Aggregate::turnover("price", "size"),
        ]);
        of_price.collect::<Vec<_>>()
    };
    let any_order = || [Aggregate::sum("price"), Aggregate::max("size"), Aggregate::count("note")];
    let (from, to) = (Timestamp(500_000_000_000), Timestamp(1_300_000_000_000));
    let scan = || series.scan();
    let some = || scan().from(from).to(to);
    let keys = ["symbol", "venue"];
    let count = |rows: u64| Columns::new().with("rows", Column::from(vec![rows as i64])).unwrap();
    let mut answers = vec![
        ("all", scan().collect().unwrap()),
        ("some", some().collect().unwrap()),
        ("one key", scan().key("symbol", "A").key("venue", 1i64).collect().unwrap()),
        ("some of a null key", some().key("symbol", Value::Null).key("venue", 0i64).collect().unwrap()),
        ("one of two keys", scan().key("symbol", "a symbol").columns(["size", "venue"]).collect().unwrap()),
        ("no key", scan().key("symbol", "B").collect().unwrap()),
        ("one of two symbols", some().keys("symbol", ["", "A", "B"]).collect().unwrap()),
        (
            "one of several keys",
            scan().keys("symbol", [None, Some("A")]).keys("venue", [1i64, 7]).collect().unwrap(),
        ),
        ("values", scan().filter("size", Predicate::Below(100i64.into())).collect().unwrap()),
        (
            "values of a key",
            some().key("symbol", "").filter("price", Predicate::Below(77.0.into())).collect().unwrap(),
        ),
        ("the first", scan().key("venue", 1i64).rows_max(70).collect().unwrap()),
        ("count of a key", count(scan().key("symbol", "A").count().unwrap())),
        ("count", count(some().filter("note", Predicate::IsNull).count().unwrap())),
        ("newest", series.latest(50, &[]).unwrap()),
        ("newest of a key", series.latest(50, &[("symbol", Value::Null), ("venue", 1i64.into())]).unwrap()),
        ("last points", series.last_points().unwrap()),
        ("groups", scan().group_by(keys).aggregates(any_order()).collect().unwrap()),
        ("groups of some", some().group_by(["venue"]).aggregates(aggregates()).collect().unwrap()),
        ("groups by a value", scan().group_by(["note"]).aggregates(any_order()).collect().unwrap()),
        (
            "sums of a key",
            scan().key("symbol", "A").group_by([""; 0]).aggregates(any_order()).collect().unwrap(),
        ),
        (
            "rolling",
            some().rolling(Duration::from_secs(5)).by("symbol").aggregates(any_order()).collect().unwrap(),
        ),
    ];
    let bars = |every: u32| scan().resample(Every::seconds(every)).aggregates(aggregates());
    answers.extend([
        ("bars", bars(7).by("venue").by("symbol").collect().unwrap()),
        ("bars by one of two keys", bars(60).by("symbol").collect().unwrap()),
        ("bars by a value too", bars(60).by("symbol").by("note").by("venue").collect().unwrap()),
        ("bars of all", bars(9).collect().unwrap()),
        ("newest bars", bars(9).newest(4).by("venue").collect().unwrap()),
        (
            "newest bars of some",
            some()
                .keys("symbol", ["a symbol", ""])
                .resample(Every::seconds(2))
                .fill(Fill::None)
                .newest(5)
                .aggregates(aggregates())
                .collect()
                .unwrap(),
        ),
        (
            "bars of some",
            some()
                .resample(Every::seconds(11))
                .by("symbol")
                .by("venue")
                .aggregates(aggregates())
                .collect()
                .unwrap(),
        ),
    ]);
    let renamed = || scan().columns(["symbol", "venue", "price"]);
    answers.extend([
        (
            "as of",
            scan()
                .asof(renamed())
                .by("symbol")
                .by("venue")
                .exact(false)
                .right_timestamp("at")
                .collect()
                .unwrap(),
        ),
        (
            "as of, near ones",
            some()
                .asof(renamed())
                .by("venue")
                .by("symbol")
                .tolerance(Duration::from_secs(2))
                .inner()
                .collect()
                .unwrap(),
        ),
        (
            "as of by one of two keys",
            some().asof(renamed()).by("symbol").right_timestamp("at").collect().unwrap(),
        ),
    ]);
    answers
}

/// Segments of the series that are by key, and all of them; the format version is in the stamp at the end of a file.
fn segments(disk: &SimulatedDisk) -> (usize, usize) {
    let versions = disk.files().into_iter().filter(|name| name.starts_with("segments/t/")).map(|name| {
        let bytes = disk.contents(&name).unwrap();
        bytes[bytes.len() - 64 + 8]
    });
    let versions: Vec<u8> = versions.collect();
    (versions.iter().filter(|version| **version == 2).count(), versions.len())
}

#[test]
fn rows_by_key_are_answered_as_young_ones_are() {
    let (_disk, young) = in_memory().unwrap();
    let disk = SimulatedDisk::new();
    let by_key = || Options { sealed_by_key: true, ..options() };
    let sealed = Database::create_on(Arc::new(disk.clone()), by_key()).unwrap();
    let all: Vec<i64> = (0..6_000).collect();
    let late: Vec<i64> = (0..6_000).step_by(17).collect();
    let steps: [&dyn Fn(&Database); 5] = [
        &|db| append(db, &all[..3_000]),
        &|db| append(db, &all[3_000..]),
        &|db| append(db, &late),
        &|db| {
            delete(db, Delete::all().key("symbol", "A").key("venue", 0i64).from(Timestamp(700_000_000_000)))
        },
        &|db| {
            delete(
                db,
                Delete::all().filter("size", Predicate::Below(40i64.into())).key("symbol", Value::Null),
            )
        },
    ];
    for (number, step) in steps.iter().enumerate() {
        step(&young);
        step(&sealed);
        let young = answers(&young);
        let same = |sealed: &Database, when: &str| {
            for ((what, found), (_, expected)) in answers(sealed).iter().zip(&young) {
                assert!(!expected.is_empty() || *what == "no key", "{what}");
                assert_eq!(found, expected, "{what} behind step {number}, {when}");
            }
        };
        same(&sealed, "young in part");
        sealed.checkpoint().unwrap();
        same(&sealed, "sealed");
        let (by_key, all) = segments(&disk);
        assert!(by_key == all && all > 0, "{by_key} of {all}");
    }
    drop(sealed);
    let reopened = Database::open_on(Arc::new(disk.crash()), options()).unwrap();
    for ((what, found), (_, expected)) in answers(&reopened).iter().zip(answers(&young)) {
        assert_eq!(*found, expected, "{what}, opened again");
    }
    // Merged with what another program adds, it stays by key.
    append(&reopened, &late);
    append(&young, &late);
    reopened.checkpoint().unwrap();
    for ((what, found), (_, expected)) in answers(&reopened).iter().zip(answers(&young)) {
        assert_eq!(*found, expected, "{what}, merged again");
    }
    let reopened_disk = segments(&disk);
    assert_eq!(reopened_disk.0, reopened_disk.1);
    let report = reopened.verify(|_, _| {}).unwrap();
    assert!(report.damages.is_empty(), "{report:?}");
}
