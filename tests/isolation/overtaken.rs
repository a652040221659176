//! Each kind of read, overtaken between the read and the commit by a transaction that changes what it said. The
//! first run of the closure must be refused, and the second see the change.

use underbelly::{Batch, CommitError, Database, Metadata, ReadError, Row, Timestamp, Transaction};
use underbelly_tests::{counter_slot, day, in_memory, one};

fn metadata(name: &str) -> Metadata {
    Metadata::new("m").with("name_of", name).with("timestamp", Timestamp(0))
}

/// Something to read, as text, and a commit that changes what is read.
struct Case {
    what: &'static str,
    read: fn(&mut Transaction) -> Result<String, CommitError>,
    change: fn(&mut Batch),
}

fn cell(tx: &mut Transaction, name: &str) -> Result<String, CommitError> {
    Ok(format!("{:?}", tx.slot("Counter", day(), [name])?.and_then(|rows| Some(rows.i64s("n")?.to_vec()))))
}

fn model(tx: &mut Transaction, name: &str) -> Result<String, CommitError> {
    let model = tx.model(&metadata(name))?;
    let read = model.map(|model| Ok::<_, ReadError>((model.info().version, model.blob()?.to_vec())));
    Ok(format!("{:?}", read.transpose()?))
}

fn series(tx: &mut Transaction, name: &str) -> Result<String, CommitError> {
    match tx.series(name) {
        Err(CommitError::Read(ReadError::UnknownSeries { .. })) => Ok("none".to_string()),
        series => Ok(format!("{:?}", series?.range(Timestamp(0), Timestamp(10))?.i64s("x"))),
    }
}

fn cases() -> Vec<Case> {
    vec![
        Case {
            what: "a cell that is there",
            read: |tx| cell(tx, "there"),
            change: |batch| {
                batch.put_slot("Counter", day(), ["there"], one("n", 2).unwrap());
            },
        },
        Case {
            what: "a cell that is retracted",
            read: |tx| cell(tx, "there"),
            change: |batch| {
                batch.retract_slot("Counter", day(), ["there"]);
            },
        },
        Case {
            what: "a cell that is not there",
            read: |tx| cell(tx, "absent"),
            change: |batch| {
                batch.put_slot("Counter", day(), ["absent"], one("n", 2).unwrap());
            },
        },
        Case {
            what: "a model that is there",
            read: |tx| model(tx, "there"),
            change: |batch| {
                batch.put_model(metadata("there"), vec![2]);
            },
        },
        Case {
            what: "a model that is not there",
            read: |tx| model(tx, "absent"),
            change: |batch| {
                batch.put_model(metadata("absent"), vec![2]);
            },
        },
        Case {
            what: "rows of a series",
            read: |tx| series(tx, "there"),
            change: |batch| {
                batch.append(Row::new("there", Timestamp(1)).field("x", 2)).unwrap();
            },
        },
        Case {
            what: "a series that is not there",
            read: |tx| series(tx, "absent"),
            change: |batch| {
                batch.append(Row::new("absent", Timestamp(1)).field("x", 2)).unwrap();
            },
        },
    ]
}

fn database() -> Database {
    let (_, db) = in_memory().unwrap();
    db.define_slot(counter_slot("Counter")).unwrap();
    let mut batch = Batch::new();
    batch.put_slot("Counter", day(), ["there"], one("n", 1).unwrap());
    batch.put_model(metadata("there"), vec![1]);
    batch.append(Row::new("there", Timestamp(1)).field("x", 1)).unwrap();
    db.commit(batch).unwrap();
    db
}

/// Whatever a transaction read, a commit that changes it makes the transaction run again, whatever it writes; also
/// where a checkpoint came between, which moves everything into files.
#[test]
fn what_was_read_is_unchanged_when_a_transaction_commits() {
    for with_checkpoint in [false, true] {
        for case in cases() {
            let db = database();
            let mut seen = Vec::new();
            db.transact(|tx| {
                seen.push((case.read)(tx)?);
                if seen.len() == 1 {
                    let mut batch = Batch::new();
                    (case.change)(&mut batch);
                    db.commit(batch)?;
                    if with_checkpoint {
                        db.checkpoint()?;
                    }
                }
                assert_eq!((case.read)(tx)?, seen[seen.len() - 1], "{}: a read is not repeatable", case.what);
                tx.put_slot("Counter", day(), ["witness"], one("n", seen.len() as i64)?);
                Ok::<_, CommitError>(())
            })
            .unwrap();
            assert_eq!(seen.len(), 2, "{}: runs of the closure", case.what);
            assert_ne!(seen[0], seen[1], "{}", case.what);
            let witness = db.snapshot().slot("Counter", day(), ["witness"]).unwrap().unwrap();
            assert_eq!(witness.rows.i64s("n"), Some(&[2][..]), "{}", case.what);
        }
    }
}

/// A commit to something else is no conflict.
#[test]
fn what_was_not_read_is_no_conflict() {
    for (i, case) in cases().iter().enumerate() {
        for (j, other) in cases().iter().enumerate() {
            let is_same = i == j || (i < 2 && j < 2);
            if is_same {
                continue;
            }
            let db = database();
            let mut runs = 0;
            db.transact(|tx| {
                runs += 1;
                (case.read)(tx)?;
                let mut batch = Batch::new();
                (other.change)(&mut batch);
                db.commit(batch)?;
                tx.put_slot("Counter", day(), ["witness"], one("n", 1)?);
                Ok::<_, CommitError>(())
            })
            .unwrap();
            assert_eq!(runs, 1, "{} read, {} changed", case.what, other.what);
        }
    }
}

/// Write skew, step by step: both read both cells, each writes one; the one that commits second runs again.
#[test]
fn write_skew_is_refused_step_by_step() {
    let db = database();
    let sum = |tx: &mut Transaction| -> Result<i64, CommitError> {
        let mut sum = 0;
        for name in ["left", "right"] {
            let rows = tx.slot("Counter", day(), [name])?;
            sum += rows.and_then(|rows| rows.i64s("n")?.first().copied()).unwrap_or(0);
        }
        Ok(sum)
    };
    let mut runs = 0;
    db.transact(|tx| {
        runs += 1;
        let before = sum(tx)?;
        if runs == 1 {
            db.transact(|other| {
                assert_eq!(sum(other)?, 0);
                other.put_slot("Counter", day(), ["right"], one("n", 1)?);
                Ok::<_, CommitError>(())
            })?;
        }
        if before == 0 {
            tx.put_slot("Counter", day(), ["left"], one("n", 1)?);
        }
        Ok::<_, CommitError>(())
    })
    .unwrap();
    assert_eq!(runs, 2);
    assert_eq!(db.transact(|tx| sum(tx)).unwrap(), 1);
}

/// A look at two cells through a transaction shows both before a commit that changed both, or both after it.
#[test]
fn reads_of_a_transaction_are_of_one_moment() {
    let db = database();
    let put = |n: i64| {
        let mut batch = Batch::new();
        batch.put_slot("Counter", day(), ["a"], one("n", n).unwrap());
        batch.put_model(metadata("a"), vec![n as u8]);
        batch.append(Row::new("a", Timestamp(n)).field("x", n)).unwrap();
        db.commit(batch).unwrap();
    };
    put(1);
    let (first, second, third) = db
        .transact(|tx| {
            let first = cell(tx, "a")?;
            put(2);
            let second = model(tx, "a")?;
            put(3);
            Ok::<_, CommitError>((first, second, series(tx, "a")?))
        })
        .unwrap();
    assert_eq!((&*first, &*second, &*third), ("Some([1])", "Some((1, [1]))", "Some([1])"));
}
