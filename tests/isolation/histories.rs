//! Random transactions of many threads at once, recorded and checked.

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};

use underbelly::{
    Batch, CommitError, Database, Durability, Metadata, ReadError, Row, Scope, Series, SimulatedDisk,
    Snapshot, Timestamp, Transaction, VariableValue,
};
use underbelly_tests::{Numbers, day, in_memory, one, options};

use crate::checker::{Counts, check};
use crate::history::{Access, Entry, Object, Outcome};

/// Objects of each kind: few, so that transactions meet.
const CELLS: u64 = 3;
const MODELS: u64 = 2;
const VARIABLES: u64 = 2;
const SERIES: u64 = 2;

/// A cell of its own for each transaction, whose seq is that of the transaction.
const RECEIPTS: &str = "Receipt";

/// Which promise transactions are answered with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Promises {
    /// All when they are durable.
    Sync,
    /// Half of them when they are visible.
    Mixed,
}

/// What a power cut in the middle of a history left.
pub struct Cut {
    /// The moment before.
    pub moment: u64,
    pub left: SimulatedDisk,
    /// The last transaction that was applied by then, or a later one.
    pub head: u64,
}

/// A history that was recorded and is sound.
pub struct Recorded {
    pub entries: Vec<Entry>,
    /// The moments after the answers of the transactions that were answered as durable, with their seqs.
    pub kept: Vec<(u64, u64)>,
    pub cuts: Vec<Cut>,
    pub counts: Counts,
    /// Runs of closures.
    tries: usize,
}

fn metadata(model: u8) -> Metadata {
    Metadata::new("register").with("number", i64::from(model)).with("timestamp", Timestamp(0))
}

fn value_of(blob: &[u8]) -> i64 {
    i64::from_le_bytes(blob.try_into().unwrap())
}

fn series_name(series: u8) -> String {
    format!("list{series}")
}

/// Scope and name of a variable.
fn variable(number: u8) -> (Scope, String) {
    let scope = if number == 0 { Scope::Global } else { Scope::asset("a") };
    (scope, format!("register{number}"))
}

fn number_of(value: Option<VariableValue>) -> Vec<i64> {
    let number = |value| match value {
        VariableValue::I64(number) => number,
        other => panic!("{other:?}"),
    };
    value.map(number).into_iter().collect()
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
pub fn shown(snapshot: &Snapshot, object: Object) -> Vec<i64> {
    match object {
        Object::Cell(cell) => {
            let found = snapshot.slot("Register", day(), [i64::from(cell)]).unwrap();
            found.iter().map(|found| found.rows.i64s("n").unwrap()[0]).collect()
        }
        Object::Model(model) => {
            let found = snapshot.model(&metadata(model)).unwrap();
            found.iter().map(|found| value_of(&found.blob().unwrap())).collect()
        }
        Object::Variable(number) => {
            let (scope, name) = variable(number);
            number_of(snapshot.variable(&scope, &name).unwrap().map(|found| found.value))
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
            tx.model(&metadata(model))?.iter().map(|found| value_of(&found.blob().unwrap())).collect()
        }
        Object::Variable(number) => {
            let (scope, name) = variable(number);
            number_of(tx.variable(&scope, &name)?)
        }
        Object::Series(series) => match tx.series(&series_name(series)) {
            Err(CommitError::Read(error)) => rows(Err(error)),
            series => rows(Ok(series?)),
        },
    })
}

pub fn all_objects() -> Vec<Object> {
    let cells = (0..CELLS as u8).map(Object::Cell);
    let models = (0..MODELS as u8).map(Object::Model);
    let variables = (0..VARIABLES as u8).map(Object::Variable);
    cells.chain(models).chain(variables).chain((0..SERIES as u8).map(Object::Series)).collect()
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
    done: Mutex<Vec<(Entry, Option<i64>, Durability)>>,
    promises: Promises,
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

    fn record(
        &self,
        called: u64,
        outcome: Outcome,
        accesses: Vec<Access>,
        receipt: Option<i64>,
        durability: Durability,
    ) {
        let answered = self.moment();
        let entry = Entry { called, answered, outcome, accesses };
        self.done.lock().unwrap().push((entry, receipt, durability));
    }

    /// The promise of a transaction.
    fn durability(&self, receipt: i64) -> Durability {
        match self.promises {
            Promises::Mixed if receipt % 2 == 0 => Durability::Buffered,
            _ => Durability::Sync,
        }
    }

    /// Takes the power from a copy of the disk while all go on.
    fn cut(&self, disk: &SimulatedDisk, seed: u64) -> Cut {
        let moment = self.moment();
        let left = disk.crash_with(seed);
        Cut { moment, left, head: self.db.head_seq() }
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
        let durability = self.durability(receipt);
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
            tx.durability(durability);
            Ok(())
        });
        let writes = accesses.iter().any(|access| matches!(access, Access::Write(..)));
        match done {
            Ok(()) if writes => {
                let outcome = Outcome::Committed { seq: 0 };
                self.record(called, outcome, accesses, Some(receipt), durability);
            }
            Ok(()) => self.record(called, Outcome::Looked { seq }, accesses, None, durability),
            Err(CommitError::Conflict { .. } | CommitError::Abandoned { .. }) => {
                self.record(called, Outcome::Refused, accesses, None, durability);
            }
            Err(error) => panic!("{error}"),
        }
        if !lost.is_empty() {
            self.record(called, Outcome::Refused, lost, None, durability);
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
                        Object::Variable(number) => {
                            let (scope, name) = variable(number);
                            tx.set_variable(scope, &name, value);
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
                Object::Variable(number) => {
                    let (scope, name) = variable(number);
                    batch.set_variable(scope, &name, value);
                }
                Object::Series(series) => {
                    batch.append(row(series, value)).unwrap();
                }
            }
            accesses.push(Access::Write(object, value));
        }
        batch.put_slot(RECEIPTS, day(), [receipt], one("n", 1).unwrap());
        let durability = self.durability(receipt);
        batch.durability(durability);
        let commit = self.db.commit(batch).unwrap();
        let outcome = Outcome::Committed { seq: commit.seq };
        self.record(called, outcome, accesses, Some(receipt), durability);
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
        let entry = Entry { called, answered, outcome, accesses };
        self.done.lock().unwrap().push((entry, None, Durability::Sync));
    }
}

/// How a history is made.
#[derive(Clone, Copy)]
pub struct Plan {
    pub seed: u64,
    pub threads: u64,
    /// Calls of each thread.
    pub each: u64,
    pub promises: Promises,
}

/// Runs a history on a database and checks it. The last look, after all have ended, sees every commit. With a disk
/// the power is taken from copies of it on the way.
pub fn history(db: Database, disk: Option<&SimulatedDisk>, plan: Plan) -> Recorded {
    let Plan { seed, threads, each, promises } = plan;
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
        promises,
    };
    let start = Barrier::new(threads as usize + 1);
    let mut cuts = Vec::new();
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
        for round in 0..each / 8 {
            cuts.extend(disk.map(|disk| recorder.cut(disk, seed * 100 + round)));
            recorder.db.checkpoint().unwrap();
            recorder.look(&mut Numbers::new(seed));
        }
    });
    if promises == Promises::Mixed {
        // The last is one that may be lost.
        let mut durability = Durability::Sync;
        while durability == Durability::Sync {
            durability = recorder.durability(recorder.receipts.load(Ordering::SeqCst));
            recorder.batch(&steps(&mut Numbers::new(seed), true));
        }
    }
    cuts.extend(disk.map(|disk| recorder.cut(disk, seed)));
    recorder.look(&mut Numbers::new(seed));
    let snapshot = recorder.db.snapshot();
    let seq_of = |receipt: i64| {
        let cell = snapshot.slot(RECEIPTS, day(), [receipt]).unwrap();
        cell.unwrap_or_else(|| panic!("transaction {receipt} was answered and is not there")).seq
    };
    let (mut entries, mut kept) = (Vec::new(), Vec::new());
    for (mut entry, receipt, durability) in recorder.done.into_inner().unwrap() {
        if let (Outcome::Committed { seq }, Some(receipt)) = (&mut entry.outcome, receipt) {
            let found = seq_of(receipt);
            assert!(*seq == 0 || *seq == found, "a batch was answered with {seq} and stands at {found}");
            *seq = found;
            if durability == Durability::Sync {
                kept.push((entry.answered, found));
            }
        }
        entries.push(entry);
    }
    let tries = recorder.tries.into_inner();
    match check(&entries) {
        Ok(counts) => Recorded { entries, kept, cuts, counts, tries },
        Err(anomalies) => {
            let told: Vec<String> = anomalies.iter().map(ToString::to_string).collect();
            panic!("seed {seed}: {}", told.join("\n"));
        }
    }
}

/// Transactions of eight threads over cells, models, variables and series, with batches that read nothing, snapshots, retries,
/// refusals and checkpoints among them, are strictly serialisable in the order of their seqs: each read, and each
/// snapshot, shows what a replay in that order gives, and what was answered before a call stands before it. That holds
/// for transactions that are answered when they are visible, too, and among both kinds.
#[test]
fn concurrent_transactions_are_strictly_serialisable() {
    for promises in [Promises::Sync, Promises::Mixed] {
        let (mut overlapping, mut lost) = (0, 0);
        for seed in 0..6 {
            let (_, db) = in_memory().unwrap();
            let Recorded { counts, tries, kept, .. } =
                history(db, None, Plan { seed, threads: 8, each: 60, promises });
            assert!(counts.committed > 200 && counts.reads > 500, "{counts:?}");
            assert_eq!(kept.len() == counts.committed, promises == Promises::Sync);
            overlapping += counts.overlapping;
            lost += counts.refused;
            assert!(tries > counts.committed / 2, "{tries} runs of closures");
        }
        assert!(overlapping > 200, "only {overlapping} of some 3,000 overlapped");
        assert!(lost > 20, "only {lost} were refused or overtaken");
    }
}

/// The same on a real folder, where commits wait for the disk and gather.
#[test]
fn histories_on_a_real_folder_are_strictly_serialisable() {
    for promises in [Promises::Sync, Promises::Mixed] {
        let dir = tempfile::TempDir::new().unwrap();
        let db = Database::create_with(dir.path(), options()).unwrap();
        let recorded = history(db, None, Plan { seed: 100, threads: 16, each: 30, promises });
        assert!(recorded.counts.overlapping > 20, "{:?}", recorded.counts);
    }
}
