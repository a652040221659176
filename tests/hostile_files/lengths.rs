//! Lengths that promise more than is there, in records whose checksums agree: a checksum says that bytes are those that were written,
//! and not who wrote them.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use underbelly::graph::{Event, Fact, Graph};
use underbelly::record::{decode, v1};
use underbelly::{
    Batch, CHANGES_SERIES, Database, Metadata, Outputs, ProducerDefinition, Row, Timestamp, Values,
    decode_content, rewrite_page,
};
use underbelly_tests::sample::{fill, options};
use underbelly_tests::{BOOK, counter_slot, day, define, transaction};
use underbelly_wal::{Log, LogOptions, Start, WalError};

use crate::memory;
use crate::subject::Memory;

/// What was written, by kind.
type Written = BTreeMap<&'static str, Vec<Vec<u8>>>;

/// Records of a database's log and what stands in them, pages of the feed, and the graph.
fn written() -> (Written, Graph) {
    let disk = Memory::new();
    let db = Database::create_on(std::sync::Arc::new(disk.clone()), options()).unwrap();
    define(&db).unwrap();
    fill(&db, 1, true).unwrap();
    for i in 1..=5 {
        db.commit(transaction(i, false).unwrap()).unwrap();
    }
    // Facts of more kinds.
    db.define_slot(counter_slot("Made")).unwrap();
    let maker = ProducerDefinition::new("maker").requires(BOOK).provides("Made");
    db.register(maker, |run| Ok(Outputs::new().put("Made", run.input(BOOK)?))).unwrap();
    let mut batch = Batch::new();
    batch.end_of(day()).due_by("Made", day(), Timestamp(i64::MAX / 2));
    db.commit(batch).unwrap();
    assert!(db.wait_idle(Duration::from_secs(60)));
    // Rows alone have a form of their own.
    let mut batch = Batch::new();
    for at in 0..2 {
        let row = Row::new("plain", Timestamp(at)).key("k", "a").field("x", at);
        batch.append(row.field("raw", vec![7u8; 9])).unwrap();
    }
    db.commit(batch).unwrap();
    let (mut written, mut graph) = (Written::new(), Graph::new());
    let mut visit = |seq: u64, payload: &[u8]| {
        let (time, record) = decode(payload).unwrap();
        let is_plain = record.event.is_none() && record.models.is_empty() && record.variables.is_empty();
        let form = if is_plain { "rows" } else { "archive" };
        let mut add = |kind, bytes: &[u8]| written.entry(kind).or_default().push(bytes.to_vec());
        add(form, payload);
        for object in record.objects {
            if let v1::Object::Inline { bytes } = object
                && decode_content(&bytes).is_ok()
            {
                add("content", &bytes);
            }
        }
        record.models.iter().for_each(|model| add("metadata", &model.metadata));
        if let Some(event) = record.event {
            graph.apply(seq, time, &Event::try_from(event).unwrap()).unwrap();
        }
        Ok::<(), WalError>(())
    };
    let log = LogOptions::with_file_len(options().log_file_bytes);
    let database = db.status().database;
    Log::open(std::sync::Arc::new(disk.crash()), database, Start::at(1), 0, log, &mut visit).unwrap();
    db.checkpoint().unwrap();
    let pages = db.snapshot().series(CHANGES_SERIES).unwrap().scan().collect().unwrap();
    let Some(Values::Bytes(pages)) = pages.column("page").map(|column| column.values()) else {
        panic!("there are no pages")
    };
    written.insert("page", (0..pages.len()).map(|page| pages.get(page).to_vec()).collect());
    (written, graph)
}

/// Copies of some bytes in which a word, wherever it begins, says more than there can be.
fn forged(bytes: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> {
    let words: [&[u8]; 5] = [&[0xff; 8], &[0xff; 4], &[0xff, 0xff, 0xff, 0x7f], &[0xff; 2], &[0xff]];
    // The most that CBOR says of a length, whatever it is of.
    let long: [u8; 9] = [0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let places = (0..bytes.len()).flat_map(move |at| words.into_iter().map(move |word| (at, word.to_vec())));
    let cbor = (0..bytes.len()).flat_map(move |at| {
        [0x40, 0x60, 0x80, 0xa0].map(|major| (at, [&[major | 0x1b], &long[1..]].concat()))
    });
    let whole = bytes.to_vec();
    places.chain(cbor).filter_map(move |(at, word)| {
        let mut bytes = whole.clone();
        bytes.get_mut(at..at + word.len())?.copy_from_slice(&word);
        Some((at, bytes))
    })
}

/// Reads all that there may be in bytes of a kind.
fn read(kind: &str, bytes: &[u8]) -> bool {
    match kind {
        "page" => rewrite_page(9, bytes).is_ok(),
        "content" => decode_content(bytes).is_ok(),
        "metadata" => Metadata::from_cbor(bytes).is_ok(),
        _ => decode(bytes)
            .is_ok_and(|(_, record)| record.event.is_none_or(|event| Event::try_from(event).is_ok())),
    }
}

#[test]
fn a_length_that_promises_more_than_is_there_takes_no_memory() {
    let (written, graph) = written();
    let facts = graph.to_records();
    for kind in ["rows", "archive", "content", "metadata", "page"] {
        let all = written.get(kind).unwrap_or_else(|| panic!("there is no {kind}"));
        // One of each length says what all do.
        let some: BTreeMap<usize, &Vec<u8>> = all.iter().map(|bytes| (bytes.len(), bytes)).collect();
        let (mut refused, mut cases) = (0, 0);
        for bytes in some.into_values().filter(|bytes| bytes.len() < 4 << 10) {
            for (at, forged) in forged(bytes) {
                let what = format!("{kind} of {} bytes, forged at {at}", bytes.len());
                let is_read = catch_unwind(AssertUnwindSafe(|| read(kind, &forged)));
                let is_read = is_read.unwrap_or_else(|_| panic!("{what}: a panic"));
                (refused, cases) = (refused + u64::from(!is_read), cases + 1);
                memory::check(&what);
            }
        }
        assert!(refused * 10 > cases, "{kind}: {refused} of {cases} are refused");
    }
    let kinds: BTreeSet<u8> = facts.iter().map(|(key, _)| key.kind).collect();
    assert!(
        [1, 2, 3, 4, 5, 7].iter().all(|kind| kinds.contains(kind))
            && kinds.iter().all(|kind| Fact::is_of_graph(*kind)),
        "{kinds:?}"
    );
    for (number, (key, value)) in facts.iter().enumerate() {
        let mut refused = 0;
        for (at, forged) in forged(value) {
            let what = format!("fact {} of kind {}, forged at {at}", key.major, key.kind);
            let with = facts
                .iter()
                .enumerate()
                .map(|(other, (key, value))| (*key, if other == number { &forged[..] } else { &value[..] }));
            let restored = catch_unwind(AssertUnwindSafe(|| Graph::from_records(with).is_ok()));
            refused += u64::from(!restored.unwrap_or_else(|_| panic!("{what}: a panic")));
            memory::check(&what);
        }
        assert!(refused > 0 || value.is_empty(), "facts of kind {} are never refused", key.kind);
    }
}
