//! Variables have one current value, which is as durable, atomic and isolated as all else.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod copies;
mod handles;
mod monitors;
mod processes;

use std::sync::Arc;

use underbelly::limits::VARIABLE_BYTES_MAX;
use underbelly::{
    Batch, Commit, CommitError, Database, ReadError, Row, Scope, SimulatedDisk, Snapshot, Timestamp,
    VariableType, VariableValue, View,
};
use underbelly_tests::{in_memory, options};

fn set(db: &Database, scope: Scope, name: &str, value: impl Into<VariableValue>) -> Commit {
    let mut batch = Batch::new();
    batch.set_variable(scope, name, value);
    db.commit(batch).unwrap()
}

fn remove(db: &Database, scope: Scope, name: &str) -> Commit {
    let mut batch = Batch::new();
    batch.remove_variable(scope, name);
    db.commit(batch).unwrap()
}

fn number(snapshot: &Snapshot, name: &str) -> Option<i64> {
    match snapshot.variable(&Scope::Global, name).unwrap()?.value {
        VariableValue::I64(n) => Some(n),
        other => panic!("{other:?}"),
    }
}

/// Everything that is shown, floats by their bits.
fn shown(db: &View) -> Vec<String> {
    let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    let text = |value: &VariableValue| match value {
        VariableValue::F64(value) => format!("{:x}", value.to_bits()),
        VariableValue::Array(values) => format!("{:x?}", bits(values)),
        other => format!("{other:?}"),
    };
    let all = db.variables();
    all.iter()
        .map(|v| format!("{} {} = {} at {} {}", v.scope, v.name, text(&v.value), v.seq, v.time))
        .collect()
}

/// Values of every type in every scope, with the bits of NaN, by scope and name; and they are there after a crash,
/// a checkpoint, and an opening from the image alone.
#[test]
fn values_of_every_type_stay_as_they_were_set() {
    let (disk, db) = in_memory().unwrap();
    let odd = f64::from_bits(0xfff8_0000_0000_0003);
    let mut batch = Batch::new();
    batch.set_variable(Scope::Global, "b", false).set_variable(Scope::Global, "a", i64::MIN);
    batch.set_variable(Scope::asset("x"), "a", odd).set_variable(
        Scope::asset("x"),
        "none",
        Vec::<f64>::new(),
    );
    batch.set_variable(Scope::episode("x"), "a", vec![1.5, odd]).set_variable(
        Scope::episode("y"),
        "a",
        vec![7u8; 3],
    );
    let commit = db.commit(batch).unwrap();
    let (seq, time) = (commit.seq, commit.time);
    let expected = [
        format!("global a = I64(-9223372036854775808) at {seq} {time}"),
        format!("global b = Bool(false) at {seq} {time}"),
        format!("episode:x a = [3ff8000000000000, fff8000000000003] at {seq} {time}"),
        format!("episode:y a = Bytes([7, 7, 7]) at {seq} {time}"),
        format!("asset:x a = fff8000000000003 at {seq} {time}"),
        format!("asset:x none = [] at {seq} {time}"),
    ];
    assert_eq!(shown(&db), expected);
    assert_eq!(db.counts().variables, 6);
    assert_eq!(db.variable(&Scope::episode("x"), "b").unwrap(), None);
    let db = Database::open_on(Arc::new(disk.crash()), options()).unwrap();
    assert_eq!(shown(&db), expected, "after a crash");
    drop(db);
    let disk = disk.crash();
    let db = Database::open_on(Arc::new(disk.clone()), options()).unwrap();
    db.checkpoint().unwrap();
    db.checkpoint().unwrap();
    db.close().unwrap();
    let db = Database::open_on(Arc::new(disk.clone()), options()).unwrap();
    assert_eq!((shown(&db), db.counts().variables), (expected.to_vec(), 6), "from the image");
    let reader = Database::open_read_only_on(Arc::new(disk)).unwrap();
    assert_eq!(shown(&reader), expected, "to a reader");
}

/// What a variable holds is fixed as long as it is there; the error names both types and nothing is committed.
#[test]
fn another_type_or_length_is_refused_and_both_are_named() {
    let (_, db) = in_memory().unwrap();
    set(&db, Scope::Global, "n", 1i64);
    set(&db, Scope::asset("IBM"), "w", vec![1.0, 2.0]);
    let refused = |scope: Scope, name: &str, value: VariableValue| {
        let mut batch = Batch::new();
        batch.append(Row::new("s", Timestamp(1)).field("x", 1)).unwrap();
        batch.set_variable(scope, name, value);
        match db.commit(batch) {
            Err(CommitError::VariableType { variable, expected, found }) => (variable, expected, found),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        refused(Scope::Global, "n", 1.0.into()),
        ("n".to_string(), VariableType::I64, VariableType::F64)
    );
    let (variable, expected, found) = refused(Scope::asset("IBM"), "w", vec![1.0].into());
    assert_eq!(
        (variable.as_str(), expected, found),
        ("asset:IBM w", VariableType::Array(2), VariableType::Array(1))
    );
    let mut twice = Batch::new();
    twice.set_variable(Scope::Global, "new", true).set_variable(Scope::Global, "new", 1i64);
    let error = db.commit(twice).unwrap_err().to_string();
    assert!(error.contains("holds bool, not i64"), "{error}");
    assert!(matches!(db.snapshot().series("s"), Err(ReadError::UnknownSeries { .. })));
    // Bytes may have any length, and a variable that was removed may become anything.
    set(&db, Scope::Global, "raw", vec![1u8; 9]);
    set(&db, Scope::Global, "raw", Vec::<u8>::new());
    let mut batch = Batch::new();
    batch.remove_variable(Scope::Global, "n").set_variable(Scope::Global, "n", "text".as_bytes());
    db.commit(batch).unwrap();
    assert_eq!(db.variable(&Scope::Global, "n").unwrap().unwrap().value, "text".as_bytes().into());
}

/// Names and values beyond their limits are refused, by readings too.
#[test]
fn bad_names_and_long_values_are_refused() {
    let (_, db) = in_memory().unwrap();
    let long = "x".repeat(256);
    let names =
        [(Scope::Global, ""), (Scope::asset(""), "a"), (Scope::episode("e\n"), "a"), (Scope::Global, &long)];
    for (scope, name) in names {
        let mut batch = Batch::new();
        batch.set_variable(scope.clone(), name, 1i64);
        assert!(matches!(db.commit(batch), Err(CommitError::Name { .. })), "{scope} {name:?}");
        let mut batch = Batch::new();
        batch.remove_variable(scope.clone(), name);
        assert!(matches!(db.commit(batch), Err(CommitError::Name { .. })), "{scope} {name:?}");
        assert!(matches!(db.variable(&scope, name), Err(ReadError::Name { .. })), "{scope} {name:?}");
        let read = db.transact(|tx| tx.variable(&scope, name));
        assert!(matches!(read, Err(CommitError::Name { .. })), "{scope} {name:?}");
    }
    for value in [VariableValue::from(vec![0.0; 513]), vec![0u8; VARIABLE_BYTES_MAX + 1].into()] {
        let mut batch = Batch::new();
        batch.set_variable(Scope::Global, "a", value);
        match db.commit(batch) {
            Err(CommitError::Read(ReadError::VariableSize { variable, found: 4_097.., limit: 4_096 })) => {
                assert!(variable.contains('a'), "{variable}");
            }
            other => panic!("{other:?}"),
        }
    }
    set(&db, Scope::Global, &long[1..], vec![0.0; 512]);
    assert_eq!(db.variables().len(), 1);
}

/// Snapshots show the value of their seq, over sets, removals and checkpoints; an equal value is set all the same.
#[test]
fn older_snapshots_keep_the_older_value() {
    let (disk, db) = in_memory().unwrap();
    let mut held = vec![(db.snapshot(), None)];
    let mut seqs = Vec::new();
    for value in [Some(1), Some(1), None, None, Some(2), Some(3), None] {
        seqs.push(match value {
            Some(value) => set(&db, Scope::Global, "n", value as i64).seq,
            None => remove(&db, Scope::Global, "n").seq,
        });
        held.push((db.snapshot(), value));
        if value == Some(2) {
            db.checkpoint().unwrap();
        }
    }
    assert!(seqs.is_sorted_by(|a, b| a < b));
    let second = held[2].0.variable(&Scope::Global, "n").unwrap().unwrap();
    assert_eq!(second.seq, seqs[1], "an equal value has a seq of its own");
    while !held.is_empty() {
        for (snapshot, value) in &held {
            assert_eq!(number(snapshot, "n"), value.map(i64::from), "seq {}", snapshot.seq());
            assert_eq!(snapshot.variables().len(), usize::from(value.is_some()));
        }
        // The oldest goes, and with the next commit what only it saw.
        held.remove(0);
        set(&db, Scope::Global, "other", 1i64);
        remove(&db, Scope::Global, "other");
    }
    let db = Database::open_on(Arc::new(disk.crash()), options()).unwrap();
    assert_eq!(db.variables(), Vec::new());
}

/// A transaction reads its own writes, and conflicts with whoever changes what it read, be it set, removed or made.
#[test]
fn transactions_read_their_writes_and_see_conflicts() {
    let (_, db) = in_memory().unwrap();
    let read = |value: Option<VariableValue>| match value {
        Some(VariableValue::I64(n)) => n,
        _ => 0,
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let counted = || {
                        db.transact(|tx| {
                            let n = read(tx.variable(&Scope::Global, "n")?) + 1;
                            tx.set_variable(Scope::Global, "n", n);
                            assert_eq!(tx.variable(&Scope::Global, "n")?, Some(n.into()));
                            Ok::<_, CommitError>(())
                        })
                    };
                    while let Err(error) = counted() {
                        assert!(matches!(error, CommitError::Conflict { .. }), "{error}");
                    }
                }
            });
        }
    });
    assert_eq!(number(&db.snapshot(), "n"), Some(100));
    // Each kind of change by others, once, makes a second run, which sees it.
    for (others, seen) in [(Some(7), 7), (None, 0), (Some(8), 8), (Some(8), 8)] {
        let mut others = Some(others);
        let mut runs = 0;
        let found = db.transact(|tx| {
            runs += 1;
            let n = read(tx.variable(&Scope::Global, "n")?);
            tx.set_variable(Scope::Global, "copy", n);
            match others.take() {
                Some(Some(value)) => drop(set(&db, Scope::Global, "n", value as i64)),
                Some(None) => drop(remove(&db, Scope::Global, "n")),
                None => {}
            }
            Ok::<_, CommitError>(n)
        });
        assert_eq!((found.unwrap(), runs), (seen, 2));
    }
    // What was not read is no conflict, and removals are the transaction's own too.
    db.transact(|tx| {
        tx.remove_variable(Scope::Global, "n");
        assert_eq!(tx.variable(&Scope::Global, "n")?, None);
        tx.set_variable(Scope::Global, "n", true);
        set(&db, Scope::Global, "copy", 1i64);
        Ok::<_, CommitError>(())
    })
    .unwrap();
    assert_eq!(db.variable(&Scope::Global, "n").unwrap().unwrap().value, true.into());
}

/// A checkpoint writes the variables that changed, and forgets those that were removed.
#[test]
fn a_checkpoint_writes_changed_variables_alone() {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    for hundred in 0..20i64 {
        let mut batch = Batch::new();
        for i in hundred * 100..(hundred + 1) * 100 {
            batch.set_variable(Scope::episode(format!("e{}", i % 10)), &format!("v{i}"), i);
        }
        db.commit(batch).unwrap();
    }
    let first = db.checkpoint().unwrap();
    assert!(first.records >= 2_000);
    set(&db, Scope::episode("e3"), "v3", -1i64);
    remove(&db, Scope::episode("e4"), "v4");
    let second = db.checkpoint().unwrap();
    assert!(second.records < 10, "{} records", second.records);
    assert!(second.image_bytes < first.image_bytes / 10, "{} bytes", second.image_bytes);
    db.close().unwrap();
    let db = Database::open_on(Arc::new(disk.clone()), options()).unwrap();
    assert_eq!(db.counts().variables, 1_999);
    assert_eq!(db.variable(&Scope::episode("e3"), "v3").unwrap().unwrap().value, (-1i64).into());
    assert_eq!(db.variable(&Scope::episode("e4"), "v4").unwrap(), None);
    // All removed: the next base holds none of them.
    for variables in db.variables().chunks(100) {
        let mut batch = Batch::new();
        for variable in variables {
            batch.remove_variable(variable.scope.clone(), &variable.name);
        }
        db.commit(batch).unwrap();
    }
    let last = db.checkpoint().unwrap();
    assert!(last.image_bytes < 2_000, "{} bytes", last.image_bytes);
    db.close().unwrap();
    let db = Database::open_on(Arc::new(disk), options()).unwrap();
    assert_eq!(db.variables(), Vec::new());
}
