//! Random transactions of many threads at once, recorded and checked.

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};

use underbelly::{
    Batch, Commit, CommitError, Database, Metadata, ReadError, Row, Series, Snapshot, Timestamp, Transaction,
};
use underbelly_tests::{Numbers, day, in_memory, one, options};

use crate::checker::{Counts, check};
use crate::history::{Access, Entry, Object, Outcome};

/// Objects of each kind: few, so that transactions meet.
const CELLS: u64 = 3;
const MODELS: u64 = 2;
const SERIES: u64 = 2;

/// A cell of its own for each transaction, whose seq is that of the transaction.
const RECEIPTS: &str = "Receipt";

fn metadata(model: u8) -> Metadata {
    Metadata::new("register").with("number", i64::from(model)).with("timestamp", Timestamp(0))
}

fn value_of(blob: &[u8]) -> i64 {
    i64::from_le_bytes(blob.try_into().unwrap())
}

fn series_name(series: u8) -> String {
    format!("list{series}")
}

fn rows(series: Result<Series, ReadError>) -> Vec<i64> {
    match series {
        Err(ReadError::UnknownSeries { .. }) => Vec::new(),
        series => {
            let rows = series.unwrap().range(Timestamp::MIN, Timestamp::MAX).unwrap();
            rows.i64s("x").unwrap().to_vec()
        }
    }
}

/// What a snapshot shows of an object.
fn shown(snapshot: &Snapshot, object: Object) -> Vec<i64> {
    match object {
        Object::Cell(cell) => {
            let found = snapshot.slot("Register", day(), [i64::from(cell)]).unwrap();
            found.iter().map(|found| found.rows.i64s("n").unwrap()[0]).collect()
        }
        Object::Model(model) => {
            let found = snapshot.model(&metadata(model)).unwrap();
            found.iter().map(|found| value_of(found.blob())).collect()
        }
        Object::Series(series) => rows(snapshot.series(&series_name(series))),
    }
}

/// What a transaction reads of an object.
fn read(tx: &mut Transaction, object: Object) -> Result<Vec<i64>, CommitError> {
    Ok(match object {
        Object::Cell(cell) => {
            let found = tx.slot("Register", day(), [i64::from(cell)])?;
            found.iter().map(|found| found.i64s("n").unwrap()[0]).collect()
        }
        Object::Model(model) => {
            tx.model(&metadata(model))?.iter().map(|found| value_of(found.blob())).collect()
        }
        Object::Series(series) => match tx.series(&series_name(series)) {
            Err(CommitError::Read(error)) => rows(Err(error)),
            series => rows(Ok(series?)),
        },
    })
}

fn all_objects() -> Vec<Object> {
    let cells = (0..CELLS as u8).map(Object::Cell);
    let models = (0..MODELS as u8).map(Object::Model);
    cells.chain(models).chain((0..SERIES as u8).map(Object::Series)).collect()
}

fn row(series: u8, value: i64) -> Row {
    // One time for all rows, so that they stand in order of commit.
    Row::new(series_name(series), Timestamp(0)).field("x", value)
}

/// What all threads share.
struct Recorder {
    db: Database,
    moments: AtomicU64,
    values: AtomicI64,
    receipts: AtomicI64,
    /// Closures that are running.
    inside: AtomicUsize,
    /// Runs of closures, and transactions that had them.
    tries: AtomicUsize,
    /// Finished entries; a receipt stands for a seq that is not known yet.
    done: Mutex<Vec<(Entry, Option<i64>)>>,
}

/// One step of a transaction.
#[derive(Clone, Copy)]
enum Step {
    Read(Object),
    Write(Object),
}

fn steps(numbers: &mut Numbers, writes: bool) -> Vec<Step> {
    let objects = all_objects();
    let mut some = Vec::new();
    for _ in 0..1 + numbers.below(4) {
        let object = objects[numbers.below(objects.len() as u64) as usize];
        some.push(if writes && numbers.below(2) == 0 { Step::Write(object) } else { Step::Read(object) });
    }
    some
}

impl Recorder {
    fn moment(&self) -> u64 {
        self.moments.fetch_add(1, Ordering::SeqCst)
    }

    fn value(&self) -> i64 {
        self.values.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn record(&self, called: u64, outcome: Outcome, accesses: Vec<Access>, receipt: Option<i64>) {
        let answered = self.moment();
        self.done.lock().unwrap().push((Entry { called, answered, outcome, accesses }, receipt));
    }

    /// The one place where a batch is committed, and with which promise.
    fn commit(&self, batch: Batch) -> Result<Commit, CommitError> {
        self.db.commit(batch)
    }

    /// Lets other threads into their closures, so that transactions overlap on one processor too.
    fn linger(&self) {
        for _ in 0..20 {
            std::thread::yield_now();
            if self.inside.load(Ordering::SeqCst) > 1 {
                break;
            }
        }
    }

    /// Reads and writes, tried until committed or given up.
    fn transact(&self, steps: &[Step], abandons: bool) {
        let receipt = self.receipts.fetch_add(1, Ordering::SeqCst);
        let called = self.moment();
        let mut accesses = Vec::new();
        // What runs that were overtaken wrote must never be seen.
        let mut lost = Vec::new();
        let mut seq = 0;
        let done = self.db.transact(|tx| {
            lost.extend(accesses.drain(..).filter(|access| matches!(access, Access::Write(..))));
            self.inside.fetch_add(1, Ordering::SeqCst);
            self.tries.fetch_add(1, Ordering::SeqCst);
            seq = tx.snapshot().seq();
            let ran = self.run(tx, steps, &mut accesses);
            self.inside.fetch_sub(1, Ordering::SeqCst);
            ran?;
            if abandons {
                return Err(CommitError::Abandoned { reason: "for a try".to_string() });
            }
            if accesses.iter().any(|access| matches!(access, Access::Write(..))) {
                tx.put_slot(RECEIPTS, day(), [receipt], one("n", 1)?);
            }
            Ok(())
        });
        let writes = accesses.iter().any(|access| matches!(access, Access::Write(..)));
        match done {
            Ok(()) if writes => self.record(called, Outcome::Committed { seq: 0 }, accesses, Some(receipt)),
            Ok(()) => self.record(called, Outcome::Looked { seq }, accesses, None),
            Err(CommitError::Conflict { .. } | CommitError::Abandoned { .. }) => {
                self.record(called, Outcome::Refused, accesses, None);
            }
            Err(error) => panic!("{error}"),
        }
        if !lost.is_empty() {
            self.record(called, Outcome::Refused, lost, None);
        }
    }

    fn run(
        &self,
        tx: &mut Transaction,
        steps: &[Step],
        accesses: &mut Vec<Access>,
    ) -> Result<(), CommitError> {
        for step in steps {
            self.linger();
            let own = |object, accesses: &[Access]| {
                accesses.iter().rev().find_map(|access| match access {
                    Access::Write(written, value) if *written == object => Some(*value),
                    _ => None,
                })
            };
            match *step {
                Step::Read(object) => {
                    let seen = read(tx, object)?;
                    match own(object, accesses).filter(|_| !object.is_list()) {
                        Some(value) => assert_eq!(seen, [value], "a transaction reads its own writes"),
                        None => accesses.push(Access::Read(object, seen)),
                    }
                }
                Step::Write(object) => {
                    let value = self.value();
                    match object {
                        Object::Cell(cell) => {
                            tx.put_slot("Register", day(), [i64::from(cell)], one("n", value)?);
                        }
                        Object::Model(model) => {
                            tx.put_model(metadata(model), value.to_le_bytes().to_vec())?
                        }
                        Object::Series(series) => tx.append(row(series, value))?,
                    }
                    accesses.push(Access::Write(object, value));
                }
            }
        }
        Ok(())
    }

    /// Writes without reading.
    fn batch(&self, steps: &[Step]) {
        let receipt = self.receipts.fetch_add(1, Ordering::SeqCst);
        let called = self.moment();
        let mut accesses = Vec::new();
        let mut batch = Batch::new();
        for step in steps {
            let (Step::Read(object) | Step::Write(object)) = *step;
            let value = self.value();
            match object {
                Object::Cell(cell) => {
                    batch.put_slot("Register", day(), [i64::from(cell)], one("n", value).unwrap());
                }
                Object::Model(model) => {
                    batch.put_model(metadata(model), value.to_le_bytes().to_vec());
                }
                Object::Series(series) => {
                    batch.append(row(series, value)).unwrap();
                }
            }
            accesses.push(Access::Write(object, value));
        }
        batch.put_slot(RECEIPTS, day(), [receipt], one("n", 1).unwrap());
        let commit = self.commit(batch).unwrap();
        self.record(called, Outcome::Committed { seq: commit.seq }, accesses, Some(receipt));
    }

    /// Reads all objects of one snapshot, in any order, with pauses between them.
    fn look(&self, numbers: &mut Numbers) {
        let called = self.moment();
        let snapshot = self.db.snapshot();
        // Called and answered enclose the taking of the snapshot; what is read of it later is as of then.
        let answered = self.moment();
        let mut objects = all_objects();
        let turn = numbers.below(objects.len() as u64) as usize;
        objects.rotate_left(turn);
        let mut accesses = Vec::new();
        for object in objects {
            std::thread::yield_now();
            accesses.push(Access::Read(object, shown(&snapshot, object)));
        }
        let outcome = Outcome::Looked { seq: snapshot.seq() };
        self.done.lock().unwrap().push((Entry { called, answered, outcome, accesses }, None));
    }
}

/// Runs a history on a database and checks it. The last look, after all have ended, sees every commit.
fn history(db: Database, seed: u64, threads: u64, each: u64) -> (Counts, usize) {
    for name in ["Register", RECEIPTS] {
        let slot = underbelly::SlotDefinition::new(name).cell_key("number", underbelly::ColumnType::I64);
        db.define_slot(slot.value("n", underbelly::ColumnType::I64)).unwrap();
    }
    let recorder = Recorder {
        db,
        moments: AtomicU64::new(0),
        values: AtomicI64::new(0),
        receipts: AtomicI64::new(0),
        inside: AtomicUsize::new(0),
        tries: AtomicUsize::new(0),
        done: Mutex::default(),
    };
    let start = Barrier::new(threads as usize + 1);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (recorder, start) = (&recorder, &start);
            scope.spawn(move || {
                let mut numbers = Numbers::new(seed * 1000 + thread);
                start.wait();
                for _ in 0..each {
                    match numbers.below(10) {
                        0..6 => recorder.transact(&steps(&mut numbers, true), false),
                        6 => recorder.transact(&steps(&mut numbers, true), true),
                        7 => recorder.transact(&steps(&mut numbers, false), false),
                        8 => recorder.batch(&steps(&mut numbers, true)),
                        _ => recorder.look(&mut numbers),
                    }
                }
            });
        }
        start.wait();
        for _ in 0..each / 8 {
            recorder.db.checkpoint().unwrap();
            recorder.look(&mut Numbers::new(seed));
        }
    });
    recorder.look(&mut Numbers::new(seed));
    let snapshot = recorder.db.snapshot();
    let seq_of = |receipt: i64| {
        let cell = snapshot.slot(RECEIPTS, day(), [receipt]).unwrap();
        cell.unwrap_or_else(|| panic!("transaction {receipt} was answered and is not there")).seq
    };
    let mut entries = Vec::new();
    for (mut entry, receipt) in recorder.done.into_inner().unwrap() {
        if let (Outcome::Committed { seq }, Some(receipt)) = (&mut entry.outcome, receipt) {
            let found = seq_of(receipt);
            assert!(*seq == 0 || *seq == found, "a batch was answered with {seq} and stands at {found}");
            *seq = found;
        }
        entries.push(entry);
    }
    let tries = recorder.tries.into_inner();
    match check(&entries) {
        Ok(counts) => (counts, tries),
        Err(anomalies) => {
            let told: Vec<String> = anomalies.iter().map(ToString::to_string).collect();
            panic!("seed {seed}: {}", told.join("\n"));
        }
    }
}

/// Transactions of eight threads over cells, models and series, with batches that read nothing, snapshots, retries,
/// refusals and checkpoints among them, are strictly serialisable in the order of their seqs: each read, and each
/// snapshot, shows what a replay in that order gives, and what was answered before a call stands before it.
#[test]
fn concurrent_transactions_are_strictly_serialisable() {
    let mut overlapping = 0;
    let mut lost = 0;
    for seed in 0..6 {
        let (_, db) = in_memory().unwrap();
        let (counts, tries) = history(db, seed, 8, 60);
        assert!(counts.committed > 200 && counts.reads > 500, "{counts:?}");
        overlapping += counts.overlapping;
        lost += counts.refused;
        assert!(tries > counts.committed / 2, "{tries} runs of closures");
    }
    assert!(overlapping > 200, "only {overlapping} of some 3,000 overlapped");
    assert!(lost > 20, "only {lost} were refused or overtaken");
}

/// The same on a real folder, where commits wait for the disk and gather.
#[test]
fn histories_on_a_real_folder_are_strictly_serialisable() {
    let dir = tempfile::TempDir::new().unwrap();
    let db = Database::create_with(dir.path(), options()).unwrap();
    let (counts, _) = history(db, 100, 16, 30);
    assert!(counts.overlapping > 20, "{counts:?}");
}

/// What a checked history left is there after a crash, in the same order.
#[test]
fn every_commit_of_a_history_survives_a_crash_in_order() {
    let (disk, db) = in_memory().unwrap();
    let (counts, _) = history(db.clone(), 200, 4, 40);
    let before: Vec<_> = all_objects().into_iter().map(|object| shown(&db.snapshot(), object)).collect();
    let head = db.snapshot().seq();
    let again = Database::open_on(Arc::new(disk.crash()), options()).unwrap();
    assert!(again.snapshot().seq() >= head && counts.committed > 60);
    let after: Vec<_> = all_objects().into_iter().map(|object| shown(&again.snapshot(), object)).collect();
    assert_eq!(before, after);
}
