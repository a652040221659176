//! Appends that leave out what is there, beside others that delete it: in the order of all transactions each is as if it ran
//! alone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use underbelly::{Batch, Database, Delete, Duplicates, Predicate, Row, SeriesDefinition, Timestamp, Value};
use underbelly_tests::in_memory;

/// Time, key and field.
type RowOf = (i64, i64, i64);

fn append(db: &Database, (at, k, x): RowOf) -> u64 {
    let mut batch = Batch::new();
    batch.append(Row::new("s", Timestamp(at)).key("k", k).field("x", x)).unwrap();
    db.commit(batch).unwrap().seq
}

fn delete(db: &Database, delete: Delete) -> u64 {
    let mut batch = Batch::new();
    batch.delete_rows("s", delete);
    db.commit(batch).unwrap().seq
}

fn known_at(db: &Database, seq: u64) -> Vec<RowOf> {
    let rows = db.as_known_at(seq).unwrap().series("s").unwrap().scan().collect().unwrap();
    let (times, keys, fields) = (rows.timestamps("timestamp"), rows.i64s("k"), rows.i64s("x"));
    let rows = times.unwrap().iter().zip(keys.unwrap()).zip(fields.unwrap());
    rows.map(|((at, k), x)| (*at, *k, *x)).collect()
}

/// What a client has deleted.
#[derive(Clone, Copy, Debug)]
enum Deleted {
    All,
    Key(i64),
    Field(i64),
}

impl Deleted {
    fn is_of(self, (at, k, x): RowOf) -> bool {
        match self {
            Deleted::All => at < 1000,
            Deleted::Key(key) => k == key,
            Deleted::Field(field) => x == field,
        }
    }

    fn delete(self) -> Delete {
        match self {
            // But for the row that makes the others old.
            Deleted::All => Delete::all().to(Timestamp(1000)),
            Deleted::Key(key) => Delete::all().key("k", key),
            Deleted::Field(field) => Delete::all().filter("x", Predicate::Equal(Value::I64(field))),
        }
    }
}

/// Two threads append the same few rows, one deletes, and checkpoints delete what is too old. Nobody is told of a conflict; behind
/// each append its row is there, left out or not; behind each delete nothing is that it speaks of.
#[test]
fn rows_that_were_left_out_are_there() {
    for policy in [Duplicates::KeepAll, Duplicates::LastWins, Duplicates::LastNonNull] {
        let (_, db) = in_memory().unwrap();
        let definition = SeriesDefinition::new("s").duplicates(policy).skip_identical();
        let history = Duration::from_secs(3600);
        db.define_series(definition.history(history).retention(Duration::from_nanos(64))).unwrap();
        append(&db, (1000, 9, 9));
        let is_over = AtomicBool::new(false);
        let (appended, deleted) = std::thread::scope(|scope| {
            let appender = |from: i64| {
                let db = &db;
                move || {
                    let row = |i: i64| (i % 2, i / 2 % 2, i / 4 % 2);
                    (from..from + 200).map(row).map(|row| (append(db, row), row)).collect::<Vec<_>>()
                }
            };
            let appenders = [scope.spawn(appender(0)), scope.spawn(appender(3))];
            let deleter = scope.spawn(|| {
                let which = [Deleted::Key(0), Deleted::Field(1), Deleted::All, Deleted::Key(1)];
                let which = which.into_iter().cycle().take(200);
                which.map(|which| (delete(&db, which.delete()), which)).collect::<Vec<_>>()
            });
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    db.checkpoint().unwrap();
                }
            });
            let (appended, deleted) = (appenders.map(ScopedJoinHandle::join), deleter.join());
            is_over.store(true, Ordering::Relaxed);
            let appended: Vec<_> = appended.into_iter().flat_map(Result::unwrap).collect();
            (appended, deleted.unwrap())
        });
        for (seq, row) in appended {
            let known = known_at(&db, seq);
            assert_eq!(known.iter().filter(|known| **known == row).count(), 1, "{policy}: {row:?} at {seq}");
        }
        for (seq, which) in deleted {
            let left = known_at(&db, seq).into_iter().find(|row| which.is_of(*row));
            assert_eq!(left, None, "{policy}: {which:?} at {seq}");
        }
    }
}
