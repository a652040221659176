//! Thirty operations of every kind on a database with small log files and without threads, so that they make the same
//! calls each time. Whatever fails, the script goes on with the next operation.

use std::sync::Arc;
use std::time::Duration;

use underbelly::disk::{Calls, Disk};
use underbelly::{
    Batch, Column, Columns, CommitError, Database, Duplicates, FaultyDisk, ManualClock, Metadata, OpenError,
    Options, Outputs, ProducerDefinition, ReadError, Row, Run, SchemaError, SeriesDefinition, SimulatedDisk,
    Timestamp,
};
use underbelly_tests::{BOOK, counter_slot, one, transaction, transactions_shown};

/// Rows that a wide transaction appends: more than such a log takes.
const WIDE_ROWS: usize = 300;
/// Bytes of a blob that has a file of its own with such a log.
const BLOB_BYTES: usize = 20_000;
/// The slot that the producer makes of [`BOOK`].
const DOUBLED: &str = "Desk.Doubled";

/// A series whose appends leave out what is there, and whose checkpoints delete what lies too far behind.
const KEPT: &str = "kept";
/// How far that is, in nanoseconds.
const BEHIND: i64 = 6;
/// A series of which no row is there twice.
const SOLE: &str = "sole";

/// Settings of the script.
pub fn settings() -> Options {
    let clock = Arc::new(ManualClock::new(Timestamp(1_000)));
    Options { workers: 0, clock, log_file_bytes: 16 << 10, ..underbelly_tests::options() }
}

fn is_wide(i: u64) -> bool {
    i.is_multiple_of(4)
}

fn wide_model() -> Metadata {
    Metadata::new("wide").with("timestamp", Timestamp(0))
}

/// What the script needs, rules of series among it.
fn define(db: &Database) -> Result<(), SchemaError> {
    underbelly_tests::define(db)?;
    let behind = Duration::from_nanos(BEHIND.unsigned_abs());
    db.redefine_series(SeriesDefinition::new(KEPT).skip_identical().retention(behind))?;
    db.redefine_series(SeriesDefinition::new(SOLE).duplicates(Duplicates::Reject))
}

/// Transaction `i`, by turns with rows and a blob that have files of their own.
pub fn numbered(i: u64) -> Result<Batch, CommitError> {
    let mut batch = transaction(i, false)?;
    batch.append(Row::new(SOLE, Timestamp(i as i64)).field("x", i as i64))?;
    // The first of them is there already.
    for at in [i as i64 - 1, i as i64] {
        batch.append(Row::new(KEPT, Timestamp(at)).field("x", at))?;
    }
    if is_wide(i) {
        let times = (0..WIDE_ROWS).map(|row| Timestamp(row as i64)).collect();
        let columns = Columns::new().with("x", Column::from(vec![i as i64; WIDE_ROWS]))?;
        batch.append_columns("wide", times, columns, &[])?;
        batch.put_model(wide_model(), vec![i as u8; BLOB_BYTES]);
    }
    Ok(batch)
}

/// The database as the script leaves it, and what was acknowledged.
pub struct Script<D> {
    disk: D,
    db: Option<Database>,
    pub created: bool,
    pub acknowledged: u64,
    /// Errors on the way.
    pub errors: Vec<String>,
}

/// Runs the script on a disk.
pub fn run<D: Disk + Clone>(disk: &D) -> Script<D> {
    let mut script =
        Script { disk: disk.clone(), db: None, created: false, acknowledged: 0, errors: Vec::new() };
    script.open();
    script.with(|db| Ok(define(db)?));
    script.commit();
    script.with(|db| Ok(db.define_slot(counter_slot(DOUBLED))?));
    script.attach();
    script.drive();
    (0..4).for_each(|_| script.commit());
    script.drive();
    script.with(|db| db.checkpoint().map(|_| ()).map_err(Into::into));
    (0..3).for_each(|_| script.commit());
    script.be_refused();
    script.drive();
    script.with(|db| db.checkpoint().map(|_| ()).map_err(Into::into));
    script.commit();
    script.with(|db| db.clone().close().map(|_| ()).map_err(Into::into));
    script.db = None;
    script.open();
    script.attach();
    (0..3).for_each(|_| script.commit());
    script.drive();
    script.db = None;
    script.open();
    script.commit();
    script.with(|db| db.checkpoint().map(|_| ()).map_err(Into::into));
    script.with(|db| db.checkpoint().map(|_| ()).map_err(Into::into));
    (0..2).for_each(|_| script.commit());
    script
}

/// Transactions of a script that nothing disturbs.
pub const TRANSACTIONS: u64 = 15;

type Trouble = Box<dyn std::error::Error>;

impl<D: Disk + Clone> Script<D> {
    fn with(&mut self, act: impl FnOnce(&Database) -> Result<(), Trouble>) {
        if self.db.is_none() {
            self.open();
        }
        if let Some(db) = &self.db
            && let Err(error) = act(db)
        {
            self.errors.push(error.to_string());
        }
    }

    /// Opens the database, or makes it. What it shows then is durable.
    fn open(&mut self) {
        let disk = || Arc::new(self.disk.clone());
        let opened = match Database::open_on(disk(), settings()) {
            Err(OpenError::NotFound { .. }) if !self.created => Database::create_on(disk(), settings()),
            opened => opened,
        };
        match opened {
            Ok(db) => match shown(&db) {
                Ok(shown) => {
                    assert!(
                        (self.acknowledged..=self.acknowledged + 1).contains(&shown),
                        "{:?}",
                        self.errors
                    );
                    (self.acknowledged, self.created, self.db) = (shown, true, Some(db));
                }
                Err(error) => self.errors.push(error.to_string()),
            },
            Err(error) => self.errors.push(error.to_string()),
        }
    }

    fn commit(&mut self) {
        let i = self.acknowledged + 1;
        let mut done = false;
        self.with(|db| {
            define(db)?;
            db.commit(numbered(i)?)?;
            done = true;
            Ok(())
        });
        self.acknowledged += u64::from(done);
    }

    /// A transaction of which one row is there already: nothing of it stays.
    fn be_refused(&mut self) {
        let (last, next) = (self.acknowledged, self.acknowledged + 1);
        if last == 0 {
            return;
        }
        self.with(|db| {
            let mut batch = numbered(next)?;
            batch.append(Row::new(SOLE, Timestamp(last as i64)).field("x", 7))?;
            let head = db.head_seq();
            let refused = db.commit(batch);
            assert!(refused.is_err() && db.head_seq() == head, "{refused:?}");
            match refused {
                Err(CommitError::Duplicate { .. }) => Ok(()),
                done => Ok(done.map(|_| ())?),
            }
        });
    }

    fn attach(&mut self) {
        self.with(|db| {
            let producer = ProducerDefinition::new("doubled").requires(BOOK).provides(DOUBLED);
            Ok(db.register(producer, |run: &Run| {
                let n = run.input(BOOK)?.i64s("n").unwrap()[0];
                Ok(Outputs::new().put(DOUBLED, one("n", 2 * n)?))
            })?)
        });
    }

    fn drive(&mut self) {
        self.with(|db| db.run_ready().map(|_| ()).map_err(Into::into));
    }

    /// Ends the process where it stands.
    pub fn stop(&mut self) {
        self.db = None;
    }
}

/// The rows that are kept for a time.
fn kept(db: &Database) -> Result<Vec<i64>, ReadError> {
    let rows = db.snapshot().series(KEPT)?.range(Timestamp::MIN, Timestamp::MAX)?;
    assert_eq!(rows.i64s("x"), rows.timestamps("timestamp"));
    Ok(rows.i64s("x").unwrap_or_default().to_vec())
}

/// The oldest of them after a checkpoint behind so many transactions.
fn first_kept(shown: u64) -> i64 {
    (shown as i64 - BEHIND).max(0)
}

/// Number of transactions that a database shows, each with all its parts.
fn shown(db: &Database) -> Result<u64, ReadError> {
    let snapshot = db.snapshot();
    let shown = transactions_shown(&snapshot, |_| false)?;
    let wide = (1..=shown).filter(|i| is_wide(*i)).count();
    let rows = match snapshot.series("wide") {
        Err(ReadError::UnknownSeries { .. }) => 0,
        series => series?.count()? as usize,
    };
    assert_eq!(rows, wide * WIDE_ROWS, "rows of {wide} wide transactions");
    if shown > 0 {
        let sole = snapshot.series(SOLE)?.range(Timestamp::MIN, Timestamp::MAX)?;
        assert!(sole.i64s("x").unwrap().iter().copied().eq(1..=shown as i64), "{sole:?}");
        let (kept, first) = (kept(db)?, first_kept(shown));
        assert!(kept.first().is_some_and(|at| (0..=first).contains(at)), "{kept:?} of {shown}");
        assert!(kept.iter().copied().eq(kept[0]..=shown as i64), "{kept:?} of {shown}");
    }
    let model = snapshot.model(&wide_model())?;
    let newest = (1..=shown).rev().find(|i| is_wide(*i));
    assert_eq!(model.map(|model| model.blob().unwrap().to_vec()), newest.map(|i| vec![i as u8; BLOB_BYTES]));
    Ok(shown)
}

/// The disk shows what was acknowledged, or one whole transaction more, without damage, and takes more.
pub fn check<D: Disk + Clone>(disk: &SimulatedDisk, script: &Script<D>, at: &str) {
    let db = match Database::open_on(Arc::new(disk.clone()), settings()) {
        Ok(db) => db,
        Err(OpenError::NotFound { .. }) if !script.created => return,
        Err(error) => panic!("{at}, {} acknowledged, {:?}: {error}", script.acknowledged, script.errors),
    };
    let (found, acknowledged) = (shown(&db).unwrap(), script.acknowledged);
    assert!((acknowledged..=acknowledged + 1).contains(&found), "{at}: {found} of {acknowledged} shown");
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new(), "{at}");
    define(&db).unwrap();
    db.commit(numbered(found + 1).unwrap()).unwrap();
    drop(db);
    let db = Database::open_on(Arc::new(disk.crash()), settings()).unwrap();
    assert_eq!(shown(&db).unwrap(), found + 1, "{at}, after one more transaction and a crash");
    db.checkpoint().unwrap();
    assert_eq!(kept(&db).unwrap().first(), Some(&first_kept(found + 1)), "{at}, after a checkpoint");
    assert_eq!(shown(&db).unwrap(), found + 1, "{at}, after a checkpoint");
}

/// Calls that the script makes where nothing disturbs it.
pub fn calls(calls: Calls) -> u64 {
    let disk = FaultyDisk::new(SimulatedDisk::new());
    let script = run(&disk);
    assert_eq!((script.acknowledged, script.errors), (TRANSACTIONS, Vec::new()));
    disk.calls(calls)
}
