//! Texts that are alike and have no equals, which are sealed as symbols or in LZ4 blocks, are answered as young ones are.

use std::sync::Arc;

use underbelly::{
    Batch, Column, ColumnType, Columns, Database, Delete, Predicate, SimulatedDisk, Timestamp, Value,
};
use underbelly_tests::{in_memory, options};

fn order(i: i64) -> String {
    format!("ORD-{:08X}-{:03}", i * 7_919 % 1_000_003, i % 300)
}

fn message(i: i64) -> Option<String> {
    (i % 13 != 4).then(|| format!("order {} of desk {} was filled in {} µs", i * i, i % 9, i * 31 % 977))
}

fn file(i: i64) -> String {
    let folder = (i / 90 + 7).cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("/srv/{folder:016x}{:016x}/part-{i}.csv", folder.rotate_left(23) ^ 5)
}

/// Rows whose key and fields are alike; each order comes up to four times.
fn append(db: &Database, numbers: impl Iterator<Item = i64> + Clone) {
    let mut messages = Column::new(ColumnType::Utf8);
    numbers.clone().for_each(|i| messages.push(&Value::from(message(i))).unwrap());
    let mut raw = Column::new(ColumnType::Bytes);
    let bytes = |i: i64| [b"\x00frame\xff".as_slice(), &i.to_le_bytes(), b"\xfe end"].concat();
    numbers.clone().for_each(|i| raw.push(&bytes(i).into()).unwrap());
    let columns = Columns::new()
        .with("order", numbers.clone().map(|i| order(i / 4)).collect::<Vec<_>>().iter().collect())
        .unwrap()
        .with("message", messages)
        .unwrap()
        .with("raw", raw)
        .unwrap()
        .with("file", numbers.clone().map(file).collect::<Vec<_>>().iter().collect())
        .unwrap()
        .with("size", numbers.clone().map(|i| i % 97).collect::<Vec<_>>().into())
        .unwrap();
    let times = numbers.map(|i| Timestamp(i / 3 * 1_000_000_000)).collect();
    let mut batch = Batch::new();
    batch.append_columns("t", times, columns, &["order"]).unwrap();
    db.commit(batch).unwrap();
}

/// All answers, each with what was asked.
fn answers(db: &Database) -> Vec<(&'static str, Columns)> {
    let series = db.snapshot().series("t").unwrap();
    let scan = || series.scan();
    let is = |i| Predicate::Equal(Value::from(message(i)));
    let text = |text: &str| Value::from(text.to_string());
    let some = || scan().from(Timestamp(200_000_000_000)).to(Timestamp(900_000_000_000));
    vec![
        ("all", scan().collect().unwrap()),
        ("some", some().columns(["message"]).collect().unwrap()),
        ("one key", scan().key("order", order(77)).collect().unwrap()),
        ("newest of a key", series.latest(3, &[("order", order(500).into())]).unwrap()),
        ("last point", series.last_point(&[("order", order(321).into())]).unwrap().unwrap()),
        ("last points", series.last_points().unwrap()),
        (
            "last points of a message",
            series.last_points_where(&[("message", Predicate::Above(text("order 25")))]).unwrap(),
        ),
        ("one message", scan().filter("message", is(1_234)).collect().unwrap()),
        ("messages above", some().filter("message", Predicate::AtLeast(text("order 8"))).collect().unwrap()),
        ("messages that are null", scan().filter("message", Predicate::IsNull).collect().unwrap()),
        (
            "bytes below",
            scan()
                .filter("raw", Predicate::Below([b"\x00frame\xff\x40".as_slice()].concat().into()))
                .collect()
                .unwrap(),
        ),
        ("one file", scan().filter("file", Predicate::Equal(Value::from(file(2_345)))).collect().unwrap()),
        ("few rows", scan().filter("size", Predicate::Equal(50i64.into())).collect().unwrap()),
        ("as of", some().asof(scan().columns(["order", "message"])).by("order").collect().unwrap()),
    ]
}

/// What columns say, row by row.
fn rows(columns: &Columns) -> Vec<Vec<Value>> {
    let row = |row| columns.iter().map(|(_, column)| column.get(row)).collect();
    (0..columns.rows()).map(row).collect()
}

/// Both answers say the same.
fn assert_same(found: &[(&'static str, Columns)], expected: &[(&'static str, Columns)], when: &str) {
    for ((what, found), (_, expected)) in found.iter().zip(expected) {
        assert!(!expected.is_empty(), "{what}");
        assert_eq!(found.names(), expected.names(), "{what} {when}");
        assert_eq!(rows(found), rows(expected), "{what} {when}");
    }
}

/// The format versions of the segments of the series, as the stamps at their ends say.
fn versions(disk: &SimulatedDisk) -> Vec<u8> {
    let segments = disk.files().into_iter().filter(|name| name.starts_with("segments/t/"));
    let version = |name: String| disk.contents(&name).map(|bytes| bytes[bytes.len() - 64 + 8]).unwrap();
    segments.map(version).collect()
}

#[test]
fn compressed_texts_are_answered_as_young_ones_are() {
    let (_disk, young) = in_memory().unwrap();
    let (disk, sealed) = in_memory().unwrap();
    let steps: [&dyn Fn(&Database); 4] = [
        &|db| append(db, 0..3_000),
        &|db| append(db, 3_000..4_500),
        &|db| append(db, (0..4_500).step_by(19)),
        &|db| {
            let mut batch = Batch::new();
            let messages = Predicate::Below("order 4".into());
            batch.delete_rows(
                "t",
                Delete::all().filter("message", messages).from(Timestamp(1_000_000_000_000)),
            );
            db.commit(batch).unwrap();
        },
    ];
    for (number, step) in steps.iter().enumerate() {
        step(&young);
        step(&sealed);
        sealed.checkpoint().unwrap();
        assert_same(&answers(&sealed), &answers(&young), &format!("behind step {number}"));
    }
    assert!(versions(&disk).contains(&3), "{:?}", versions(&disk));
    assert!(sealed.verify(|_, _| {}).unwrap().damages.is_empty());
    drop(sealed);
    let reopened = Database::open_on(Arc::new(disk.crash()), options()).unwrap();
    assert_same(&answers(&reopened), &answers(&young), "opened again");
}
