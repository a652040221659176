//! Models are found by their attributes, and an index changes the time alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tempfile::TempDir;
use underbelly::{
    Batch, Database, IndexState, MetaValue, Metadata, ModelInfo, Options, ReadError, SimulatedDisk, Snapshot,
    Timestamp, Where,
};
use underbelly_tests::options;

/// Longer than any index of these tests takes.
pub const LONG: Duration = Duration::from_secs(120);

/// Settings with which every query asks the index.
pub fn indexed() -> Options {
    Options { index_models_min: 0, ..options() }
}

/// What a query finds: ids, versions and seqs.
fn found(snapshot: &Snapshot, wanted: &Where) -> Vec<(String, u64, u64)> {
    let short = |info: ModelInfo| (info.id.to_string(), info.version, info.seq);
    snapshot.find_models_where(wanted).unwrap().into_iter().map(short).collect()
}

/// The same by falling timestamps, in pages of three.
fn pages(snapshot: &Snapshot, wanted: &Where) -> Vec<(String, u64, u64)> {
    let short = |info: ModelInfo| (info.id.to_string(), info.version, info.seq);
    let page = |skip| snapshot.find_models_newest(wanted, skip, 3).unwrap();
    (0..).step_by(3).map(page).take_while(|page| !page.is_empty()).flatten().map(short).collect()
}

fn put(db: &Database, metadata: &Metadata) {
    let mut batch = Batch::new();
    batch.put_model(metadata.clone(), vec![1]);
    db.commit(batch).unwrap();
}

/// The newest version counts, as of the snapshot, whatever the index reflects.
#[test]
fn queries_see_the_newest_version_as_of_their_snapshot() {
    let db = Database::create_on(Arc::new(SimulatedDisk::new()), indexed()).unwrap();
    let smile = |name: &str| Metadata::new("smile").with("timestamp", Timestamp(1)).with("name", name);
    let empty = db.snapshot();
    put(&db, &smile("first"));
    let one = db.snapshot();
    assert!(db.wait_index(LONG));
    let later = Metadata::new("later").with("timestamp", Timestamp(2)).with("name", "first");
    put(&db, &smile("second"));
    put(&db, &later);
    let three = db.snapshot();
    let ask = |snapshot: &Snapshot, name: &str| snapshot.find_models("name", name).unwrap().len();
    let check = || {
        assert_eq!([ask(&empty, "first"), ask(&empty, "second")], [0, 0]);
        assert_eq!([ask(&one, "first"), ask(&one, "second")], [1, 0]);
        assert_eq!([ask(&three, "first"), ask(&three, "second")], [1, 1]);
        assert_eq!(three.find_models("name", "first").unwrap()[0].id, later.id().unwrap());
        assert_eq!(three.find_models("name", "second").unwrap()[0].version, 2);
    };
    check();
    assert!(db.wait_index(LONG));
    assert_eq!(db.status().index.stamp, Some(three.seq()));
    check();
    db.close().unwrap();
    check();
}

/// What was put since the index looked is found, be it more than a query looks through one by one.
#[test]
fn what_was_loaded_behind_the_index_is_found() {
    let db = Database::create_on(Arc::new(SimulatedDisk::new()), indexed()).unwrap();
    let of = |n: i64| Metadata::new("smile").with("timestamp", Timestamp(n)).with("n", n).with("odd", n % 2);
    let load = |numbers: std::ops::Range<i64>| {
        for from in numbers.clone().step_by(100) {
            let mut batch = Batch::new();
            for n in from..from + 100 {
                batch.put_model(of(n), vec![1]);
            }
            db.commit(batch).unwrap();
        }
    };
    load(0..2_000);
    assert!(db.wait_index(LONG));
    for (to, more) in [(2_000, 300), (2_300, 1_500), (3_800, 5_000)] {
        let before = db.snapshot();
        load(to..to + more);
        let (last, odd) = (Where::equals("n", to + more - 1), Where::equals("odd", 1i64));
        assert_eq!(found(&db.snapshot(), &last).len(), 1);
        assert_eq!(found(&db.snapshot(), &odd).len() as i64, (to + more) / 2);
        assert_eq!((found(&before, &last).len(), found(&before, &odd).len() as i64), (0, to / 2));
        // Who passes over so many calls for the index, which moves on by itself.
        let deadline = Instant::now() + LONG;
        while more > 1_024 && db.status().index.stamp < Some(db.head_seq()) {
            assert!(Instant::now() < deadline, "the index stays at {:?}", db.status().index.stamp);
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(found(&db.snapshot(), &last).len(), 1);
    }
}

/// Nobody who does not ask pays: no thread, no folder.
#[test]
fn there_is_no_index_before_somebody_asks() {
    let dir = TempDir::new().unwrap();
    let db = Database::create_with(dir.path(), options()).unwrap();
    put(&db, &Metadata::new("smile").with("timestamp", Timestamp(1)));
    assert_eq!(db.snapshot().find_models("type", "smile").unwrap().len(), 1);
    assert_eq!(db.status().index.state, IndexState::Unused);
    assert!(!db.wait_index(LONG), "few models need none");
    db.close().unwrap();
    assert!(!dir.path().join("index").exists());
    let db = Database::open_with(dir.path(), indexed()).unwrap();
    assert_eq!(db.status().index.state, IndexState::Unused);
    assert!(db.wait_index(LONG));
    let status = db.status().index;
    assert_eq!((status.state, status.on_disk, status.keys), (IndexState::Ready, true, 2));
    db.close().unwrap();
    let db = Database::open_with(dir.path(), indexed()).unwrap();
    let status = db.status().index;
    assert_eq!((status.state, status.keys, status.set_aside), (IndexState::Stored, 2, vec![]));
}

/// Alternatives and prefixes find what they should, each model once, and pages go from the newest on.
#[test]
fn alternatives_are_found_once_and_pages_go_from_the_newest_on() {
    let (_, db) = underbelly_tests::in_memory().unwrap();
    let mut batch = Batch::new();
    for n in 0..10i64 {
        let desk = if n < 5 { "fx-spot" } else { "rates" };
        let metadata = Metadata::new("smile").with("n", n).with("desk", desk);
        batch.put_model(metadata.with("timestamp", underbelly::Timestamp(n % 7)), vec![n as u8]);
    }
    db.commit(batch).unwrap();
    let numbers = |found: Vec<underbelly::ModelInfo>| -> Vec<i64> {
        let n = |info: &underbelly::ModelInfo| match info.metadata().entries()["n"] {
            underbelly::MetaValue::I64(n) => n,
            _ => panic!(),
        };
        found.iter().map(n).collect()
    };
    let wanted = Where::prefix("desk", "fx").or(Where::between("n", 4i64..7));
    let mut found = numbers(db.snapshot().find_models_where(&wanted).unwrap());
    found.sort_unstable();
    assert_eq!(found, [0, 1, 2, 3, 4, 5, 6]);
    let page = |skip, count| numbers(db.snapshot().find_models_newest(&Where::any(), skip, count).unwrap());
    let newest: Vec<i64> = page(0, 3);
    assert_eq!(newest, [6, 5, 4]);
    assert_eq!([page(3, 3), page(6, 9)].concat().len(), 7);
    let in_time = Where::equals("type", "smile").and(Where::between("timestamp", underbelly::Timestamp(5)..));
    assert_eq!(numbers(db.snapshot().find_models_newest(&in_time, 0, 9).unwrap()), [6, 5]);
    // Seconds that were given as a number are an instant.
    put(&db, &Metadata::new("smile").with("n", 99i64).with("timestamp", 1_401_715_800i64));
    let later = Where::between("timestamp", underbelly::Timestamp(1_401_715_799_999_999_999)..);
    assert_eq!(numbers(db.snapshot().find_models_where(&later).unwrap()), [99]);
    let given = Where::equals("timestamp", 1_401_715_800i64);
    assert_eq!(numbers(db.snapshot().find_models_where(&given).unwrap()), [99]);
}

/// What cannot be asked is refused by name.
#[test]
fn what_cannot_be_asked_is_refused() {
    let db = Database::create_on(Arc::new(SimulatedDisk::new()), indexed()).unwrap();
    let snapshot = db.snapshot();
    for path in ["", "a..b", "a\\"] {
        let error = snapshot.find_models(path, 1i64).unwrap_err();
        assert!(matches!(error, ReadError::Where(_)) && error.to_string().contains("path"), "{error}");
    }
    assert!(matches!(snapshot.find_models("a", f64::NAN), Err(ReadError::Where(_))));
    assert!(snapshot.find_models_where(&Where::any()).unwrap().is_empty());
}

fn value() -> impl Strategy<Value = MetaValue> {
    let leaf = prop_oneof![
        Just(MetaValue::Null),
        any::<bool>().prop_map(MetaValue::Bool),
        (-2i64..3).prop_map(MetaValue::I64),
        (-4i64..5).prop_map(|half| MetaValue::F64(half as f64 / 2.0)),
        "[ab]{0,2}".prop_map(MetaValue::Text),
        (0i64..3).prop_map(|ns| MetaValue::Timestamp(Timestamp(ns))),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(MetaValue::List),
            proptest::collection::btree_map("[ab]", inner, 0..3).prop_map(MetaValue::Map),
        ]
    })
}

fn metadata() -> impl Strategy<Value = Metadata> {
    // The name is outside the identity, so models get several versions that differ in it.
    ("[mn]", 0i64..6, value(), value()).prop_map(|(model_type, x, name, v)| {
        let v = if x < 3 { MetaValue::Null } else { v };
        // A bare number is seconds, and found as the instant that it is.
        let at: MetaValue = if x == 5 { 0i64.into() } else { Timestamp(x).into() };
        Metadata::new(&model_type).with("x", x).with("v", v).with("name", name).with("timestamp", at)
    })
}

fn wanted() -> impl Strategy<Value = Where> {
    let path = || prop_oneof!["x", "v", "name", "v\\.[ab]", "name\\.[ab]", "type", "timestamp"];
    let one = prop_oneof![
        (path(), value()).prop_map(|(path, value)| Where::equals(&path, value)),
        path().prop_map(|path| Where::exists(&path)),
        "[mn]".prop_map(|model_type| Where::equals("type", model_type)),
        (path(), -2i64..3).prop_map(|(path, from)| Where::between(&path, from..)),
        (path(), -2i64..3, -4i64..5).prop_map(|(path, from, to)| {
            let bounds: [MetaValue; 2] = [from.into(), (to as f64 / 2.0).into()];
            let [from, to] = bounds.map(std::ops::Bound::Included);
            Where::between(&path, (from, to))
        }),
        (path(), "[ab]{0,2}").prop_map(|(path, to)| Where::between(&path, ..to)),
        (path(), "[ab]{0,2}").prop_map(|(path, begin)| Where::prefix(&path, &begin)),
        (0i64..4).prop_map(|to| Where::between("timestamp", ..Timestamp(to))),
    ];
    (one.clone(), proptest::option::of((any::<bool>(), one))).prop_map(|(first, second)| match second {
        Some((true, second)) => first.and(second),
        Some((false, second)) => first.or(second),
        None => first,
    })
}

/// Puts a version, lets the index reach what is visible, or puts it away and opens the database again.
#[derive(Clone, Debug)]
enum Step {
    Put(Metadata),
    Index,
    Reopen,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// A scan, an index in memory and one on the disk give the same answers at every snapshot.
    #[test]
    fn index_and_scan_answer_the_same(
        steps in proptest::collection::vec(
            prop_oneof![
                12 => metadata().prop_map(Step::Put),
                2 => Just(Step::Index),
                1 => Just(Step::Reopen),
            ],
            1..40,
        ),
        queries in proptest::collection::vec(wanted(), 12),
    ) {
        let dir = TempDir::new().unwrap();
        let (memory, plain) = (SimulatedDisk::new(), SimulatedDisk::new());
        let mut databases = [
            Database::create_on(Arc::new(plain.clone()), options()).unwrap(),
            Database::create_on(Arc::new(memory.clone()), indexed()).unwrap(),
            Database::create_with(dir.path(), indexed()).unwrap(),
        ];
        let mut snapshots: Vec<[Snapshot; 3]> = Vec::new();
        for step in &steps {
            match step {
                Step::Put(metadata) => databases.iter().for_each(|db| put(db, metadata)),
                Step::Index => {
                    prop_assert!(databases[1].wait_index(LONG) && databases[2].wait_index(LONG));
                }
                Step::Reopen => {
                    snapshots.clear();
                    for db in databases {
                        db.close().unwrap();
                    }
                    databases = [
                        Database::open_on(Arc::new(plain.clone()), options()).unwrap(),
                        Database::open_on(Arc::new(memory.clone()), indexed()).unwrap(),
                        Database::open_with(dir.path(), indexed()).unwrap(),
                    ];
                }
            }
            snapshots.push(databases.each_ref().map(|db| db.snapshot()));
        }
        for round in 0..2 {
            for [scan, memory, sled] in &snapshots {
                for wanted in &queries {
                    let expected = found(scan, wanted);
                    prop_assert_eq!(&found(memory, wanted), &expected, "memory, round {}: {:?}", round, wanted);
                    prop_assert_eq!(&found(sled, wanted), &expected, "sled, round {}: {:?}", round, wanted);
                    let paged = pages(scan, wanted);
                    prop_assert_eq!(paged.len(), expected.len());
                    prop_assert_eq!(&pages(memory, wanted), &paged, "memory, round {}: {:?}", round, wanted);
                    prop_assert_eq!(&pages(sled, wanted), &paged, "sled, round {}: {:?}", round, wanted);
                }
            }
            prop_assert!(databases[1].wait_index(LONG) && databases[2].wait_index(LONG));
        }
        let mut kinds = BTreeMap::new();
        databases.iter().for_each(|db| *kinds.entry(db.status().index.on_disk).or_insert(0) += 1);
        prop_assert_eq!(kinds, BTreeMap::from([(false, 2), (true, 1)]));
        prop_assert!(databases[2].status().index.set_aside.is_empty());
        let asked = databases.each_ref().map(|db| db.status().index.asked > 0);
        prop_assert_eq!(asked, [false, true, true], "who is asked");
    }
}
