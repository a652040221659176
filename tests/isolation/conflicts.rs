//! What reads before it writes is as if it ran alone.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use underbelly::{Batch, CommitError, Database, Metadata, Row, Timestamp, Transaction};
use underbelly_tests::{counter_slot, day, in_memory, one};

/// A transaction, tried until it is no conflict.
fn insist<T>(db: &Database, mut body: impl FnMut(&mut Transaction) -> Result<T, CommitError>) -> T {
    loop {
        match db.transact(&mut body) {
            Err(CommitError::Conflict { what, .. }) => assert!(!what.is_empty()),
            done => return done.unwrap(),
        }
    }
}

fn count(tx: &mut Transaction, name: &str) -> Result<i64, CommitError> {
    let rows = tx.slot("Counter", day(), [name])?;
    Ok(rows.and_then(|rows| rows.i64s("n")?.first().copied()).unwrap_or(0))
}

fn database() -> Database {
    let (_, db) = in_memory().unwrap();
    db.define_slot(counter_slot("Counter")).unwrap();
    db
}

fn counter(name: &str) -> Metadata {
    Metadata::new("counter").with("counter", name).with("timestamp", Timestamp(0))
}

/// No update is lost: eight threads count up the same two cells and the same model, and all is counted.
#[test]
fn no_update_is_lost() {
    let db = database();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let db = &db;
            scope.spawn(move || {
                for _ in 0..20 {
                    insist(db, |tx| {
                        let name = if thread % 2 == 0 { "a" } else { "b" };
                        let n = count(tx, name)? + 1;
                        tx.put_slot("Counter", day(), [name], one("n", n)?);
                        assert_eq!(count(tx, name)?, n, "a transaction reads its own writes");
                        let model = tx.model(&counter("m"))?;
                        let n = model
                            .map_or(0, |m| u64::from_le_bytes((*m.blob().unwrap()).try_into().unwrap()))
                            + 1;
                        tx.put_model(counter("m"), n.to_le_bytes().to_vec())
                    });
                }
            });
        }
    });
    let snapshot = db.snapshot();
    for name in ["a", "b"] {
        let cell = snapshot.slot("Counter", day(), [name]).unwrap().unwrap();
        assert_eq!(cell.rows.i64s("n"), Some(&[80][..]));
    }
    let model = snapshot.model(&counter("m")).unwrap().unwrap();
    assert_eq!(*model.blob().unwrap(), 160u64.to_le_bytes());
    assert_eq!(model.info().version, 160);
}

/// A transaction that lost is tried on what won, so each of few threads gets through by the tries that there are.
#[test]
fn two_threads_get_through_without_insisting() {
    let db = database();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let db = &db;
            scope.spawn(move || {
                for _ in 0..100 {
                    db.transact(|tx| {
                        let n = count(tx, "a")? + 1;
                        tx.put_slot("Counter", day(), ["a"], one("n", n)?);
                        Ok::<_, CommitError>(())
                    })
                    .unwrap();
                }
            });
        }
    });
    let cell = db.snapshot().slot("Counter", day(), ["a"]).unwrap().unwrap();
    assert_eq!(cell.rows.i64s("n"), Some(&[200][..]));
}

/// No write skew: of two cells at most one may be taken, each transaction reads both and takes one.
#[test]
fn no_write_skew() {
    let db = database();
    for round in 0..40 {
        let names = [format!("left{round}"), format!("right{round}")];
        std::thread::scope(|scope| {
            for mine in 0..2 {
                let (db, names) = (&db, &names);
                scope.spawn(move || {
                    insist(db, |tx| {
                        if count(tx, &names[0])? + count(tx, &names[1])? == 0 {
                            tx.put_slot("Counter", day(), [&*names[mine]], one("n", 1)?);
                        }
                        Ok(())
                    });
                });
            }
        });
        let taken = insist(&db, |tx| Ok(count(tx, &names[0])? + count(tx, &names[1])?));
        assert_eq!(taken, 1, "round {round}");
    }
}

/// No phantom: each transaction counts the rows of a series and appends a row with the count; no count is given
/// twice, even from the first row on, when the series is not there yet.
#[test]
fn no_phantom_in_a_series() {
    let db = database();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..15 {
                    insist(&db, |tx| {
                        let rows = match tx.series("queue") {
                            Ok(series) => series.count()? as i64,
                            Err(CommitError::Read(underbelly::ReadError::UnknownSeries { .. })) => 0,
                            Err(error) => return Err(error),
                        };
                        tx.append(Row::new("queue", Timestamp(0)).field("number", rows))
                    });
                }
            });
        }
    });
    let rows = db.snapshot().series("queue").unwrap().scan().collect().unwrap();
    assert_eq!(rows.i64s("number").unwrap(), (0..60).collect::<Vec<i64>>());
}

/// A transaction that is overtaken each time gives up after its tries and says what changed; nothing of it is
/// applied.
#[test]
fn an_endless_conflict_ends() {
    let db = database();
    let tries = AtomicU64::new(0);
    let result: Result<(), CommitError> = db.transact(|tx| {
        let n = count(tx, "a")?;
        let mut other = Batch::new();
        other.put_slot("Counter", day(), ["a"], one("n", n + 1)?);
        db.commit(other)?;
        tries.fetch_add(1, Ordering::Relaxed);
        tx.put_slot("Counter", day(), ["a"], one("n", 1_000)?);
        tx.append(Row::new("never", Timestamp(0)))
    });
    match result {
        Err(CommitError::Conflict { tries: told, what }) => {
            assert_eq!(told as u64, tries.load(Ordering::Relaxed));
            assert!(what.contains("Counter"), "{what}");
        }
        other => panic!("{other:?}"),
    }
    assert!(db.snapshot().series("never").is_err());
}

/// A closure that gives up commits nothing.
#[test]
fn an_abandoned_transaction_leaves_nothing() {
    let db = database();
    let before = db.status().head;
    let result: Result<(), CommitError> = db.transact(|tx| {
        tx.put_slot("Counter", day(), ["a"], one("n", 1)?);
        Err(CommitError::Abandoned { reason: "changed my mind".to_string() })
    });
    assert!(matches!(result, Err(CommitError::Abandoned { .. })));
    assert_eq!(db.status().head, before);
}

/// Batches that read nothing never conflict. Seqs of eight threads are contiguous, commit times strictly rise, and
/// each thread's own order is kept.
#[test]
fn blind_batches_never_conflict_and_are_in_one_order() {
    let db = database();
    let before = db.status().head;
    let commits = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..8i64 {
            let (db, commits) = (&db, &commits);
            scope.spawn(move || {
                for i in 0..50 {
                    let mut batch = Batch::new();
                    batch.append(Row::new("s", Timestamp(0)).key("thread", thread).field("i", i)).unwrap();
                    batch.put_slot("Counter", day(), ["shared"], one("n", i).unwrap());
                    let commit = db.commit(batch).unwrap();
                    commits.lock().unwrap().push((commit.seq, commit.time, thread, i));
                }
            });
        }
    });
    let mut commits = commits.into_inner().unwrap();
    commits.sort();
    assert!(commits.iter().map(|c| c.0).eq(before + 1..=before + 400));
    assert!(commits.windows(2).all(|pair| pair[0].1 < pair[1].1));
    let rows = db.snapshot().series("s").unwrap().scan().collect().unwrap();
    let shown: Vec<(i64, i64)> =
        rows.i64s("thread").unwrap().iter().copied().zip(rows.i64s("i").unwrap().iter().copied()).collect();
    assert_eq!(shown, commits.iter().map(|c| (c.2, c.3)).collect::<Vec<_>>(), "tied rows in order of commit");
}

/// A reader never sees a part of a transaction: two cells, a row and a model always agree, while two threads
/// commit and a third makes checkpoints.
#[test]
fn readers_see_whole_transactions() {
    let db = database();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = |first: i64| {
            let db = &db;
            move || {
                for i in (first..400).step_by(2) {
                    let mut batch = Batch::new();
                    batch.put_slot("Counter", day(), ["a"], one("n", i).unwrap());
                    batch.put_slot("Counter", day(), ["b"], one("n", i).unwrap());
                    batch.put_model(counter("m"), i.to_le_bytes().to_vec());
                    batch.append(Row::new("s", Timestamp(0)).field("i", i)).unwrap();
                    batch.append(Row::new("t", Timestamp(0)).field("i", i)).unwrap();
                    db.commit(batch).unwrap();
                }
            }
        };
        let writers = [scope.spawn(writer(0)), scope.spawn(writer(1))];
        let (db, stop) = (&db, &stop);
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                db.checkpoint().unwrap();
            }
        });
        for _ in 0..2 {
            scope.spawn(move || {
                let mut seen = BTreeSet::new();
                while !stop.load(Ordering::Relaxed) {
                    let snapshot = db.snapshot();
                    let cell = |name| {
                        let cell = snapshot.slot("Counter", day(), [name]).unwrap();
                        cell.map(|cell| cell.rows.i64s("n").unwrap()[0])
                    };
                    let last = |name| {
                        let series = snapshot.series(name).ok()?;
                        let rows = series.latest(1, &[]).unwrap();
                        Some((series.count().unwrap(), rows.i64s("i").unwrap()[0]))
                    };
                    let model = snapshot.model(&counter("m")).unwrap();
                    let model = model.map(|m| i64::from_le_bytes((*m.blob().unwrap()).try_into().unwrap()));
                    let (a, b, s, t) = (cell("a"), cell("b"), last("s"), last("t"));
                    assert_eq!((a, b, s), (b, model, t), "at {}", snapshot.seq());
                    assert_eq!(a, s.map(|(_, i)| i), "at {}", snapshot.seq());
                    seen.insert(snapshot.seq());
                }
            });
        }
        for writer in writers {
            writer.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
}
