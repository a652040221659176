//! A checkpoint writes what changed, and what is stored in several layers comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use underbelly::{
    Batch, Clock, Columns, CopyError, Database, ManualClock, Metadata, Options, SimulatedDisk, Timestamp,
};
use underbelly_tests::{BOOK, Numbers, day, define, one, options, shown};

fn put(db: &Database, cells: impl IntoIterator<Item = (u64, i64)>) {
    let mut batch = Batch::new();
    for (cell, n) in cells {
        batch.put_slot(BOOK, day(), [format!("cell {cell}")], one("n", n).unwrap());
    }
    db.commit(batch).unwrap();
}

fn filled(cells: u64) -> (SimulatedDisk, Database) {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    define(&db).unwrap();
    for from in (0..cells).step_by(50) {
        put(&db, (from..(from + 50).min(cells)).map(|cell| (cell, cell as i64)));
    }
    (disk, db)
}

/// Many small segments, which appends too large for the log make, are merged a few at a time: no checkpoint takes long
/// because of them, which would let the log behind it grow.
#[test]
fn small_segments_are_merged_a_few_at_a_time() {
    const SEGMENTS: usize = 24;
    const ROWS: usize = 4_000;
    let disk = SimulatedDisk::new();
    let options = Options { workers: 0, checkpoint_bytes: 1, ..options() };
    let db = Database::create_on(Arc::new(disk.clone()), options.clone()).unwrap();
    let segments = || disk.files().iter().filter(|name| name.starts_with("segments/s/")).count();
    for n in 0..SEGMENTS {
        let mut batch = Batch::new();
        let columns = Columns::new().with("x", vec![n as f64; ROWS].into()).unwrap();
        batch.append_columns("s", vec![Timestamp(n as i64); ROWS], columns, &[]).unwrap();
        db.commit(batch).unwrap();
    }
    assert_eq!(segments(), SEGMENTS);
    let mut found = Vec::new();
    for _ in 0..6 {
        db.checkpoint().unwrap();
        found.push(segments());
    }
    // Eight become one each time, until too few are left; those eight go with the checkpoint after.
    assert_eq!(found, [25, 18, 11, 3, 3, 3]);
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
    drop(db);
    let db = Database::open_on(Arc::new(disk.crash()), options).unwrap();
    let rows = db.snapshot().series("s").unwrap().scan().collect().unwrap();
    let xs = rows.f64s("x").unwrap();
    assert_eq!(xs.len(), SEGMENTS * ROWS);
    assert!(xs.iter().enumerate().all(|(at, x)| *x == (at / ROWS) as f64));
}

/// Checkpoints of a few changes write a few records, in few and short images, and merge them when they come to a
/// quarter of the base.
#[test]
fn a_checkpoint_writes_what_changed_and_not_what_exists() {
    const CELLS: u64 = 4_000;
    let (disk, db) = filled(CELLS);
    let first = db.checkpoint().unwrap();
    assert!(first.records >= CELLS && first.image_bytes > CELLS * 100, "{first:?}");
    let mut numbers = Numbers::new(7);
    let (mut written, mut merged) = (0, 0);
    for round in 0..60 {
        let changed: BTreeMap<u64, i64> =
            (0..20).map(|_| (numbers.below(CELLS), 10_000 + round * 100)).collect();
        put(&db, changed.iter().map(|(cell, n)| (*cell, *n)));
        let report = db.checkpoint().unwrap();
        assert!(report.records <= changed.len() as u64 + 2, "{report:?}");
        assert!(report.slices > 0);
        written += report.image_bytes;
        merged += usize::from(report.image_bytes > first.image_bytes / 2);
        let images = disk.files().iter().filter(|name| name.starts_with("images/")).count();
        assert!(images <= 10, "a base and four deltas of two manifests: {:?}", disk.files());
    }
    assert!((1..=3).contains(&merged), "a base was written {merged} times");
    assert!(
        written < 6 * first.image_bytes,
        "{written} bytes for 1,200 changes of {} bytes",
        first.image_bytes
    );
    let expected = shown(&db).unwrap();
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
    drop(db);
    let db = Database::open_on(Arc::new(disk.crash()), options()).unwrap();
    assert_eq!(shown(&db).unwrap(), expected);
    // Nothing changed: nothing is written but a counter.
    db.checkpoint().unwrap();
    let report = db.checkpoint().unwrap();
    assert!(report.records <= 1 && report.objects == 0 && report.segments == 0, "{report:?}");
}

/// A clock whose holder commits wherever a checkpoint gives way.
#[derive(Default)]
struct Busy {
    /// What is committed to, and its disk.
    db: Mutex<Option<(Weak<Database>, SimulatedDisk)>>,
    commits: AtomicI64,
    /// Images that were being written, with the manifests that were the newest meanwhile.
    written: Mutex<BTreeMap<String, BTreeSet<String>>>,
    /// What a crash would have left in the middle, and the number of commits then.
    left: Mutex<Option<(SimulatedDisk, i64)>>,
}

impl Clock for Busy {
    fn now(&self) -> Timestamp {
        Timestamp(0)
    }

    fn give_way(&self) {
        let held = self.db.lock().unwrap().clone();
        let Some((db, disk)) = held.and_then(|(db, disk)| Some((db.upgrade()?, disk))) else { return };
        let files = disk.files();
        let manifest = files.iter().filter(|name| name.starts_with("MANIFEST-")).max().unwrap();
        let n = self.commits.load(Ordering::Relaxed);
        for image in files.iter().filter(|name| name.starts_with("images/") && name.ends_with(".tmp")) {
            let mut written = self.written.lock().unwrap();
            let manifests = written.entry(image.clone()).or_default();
            manifests.insert(manifest.clone());
            if manifests.len() > 2 {
                self.left.lock().unwrap().get_or_insert_with(|| (disk.crash(), n));
            }
        }
        self.commits.store(n + 1, Ordering::Relaxed);
        put(&db, (0..8).map(|cell| (cell * 200 + n as u64 % 200, n + 1)));
        // Some go that stand in the base, and come back.
        let mut batch = Batch::new();
        batch.retract_slot(BOOK, day(), [format!("cell {}", 1_600 + n as u64 % 200)]);
        batch.put_slot(
            BOOK,
            day(),
            [format!("cell {}", 1_600 + (n as u64 + 150) % 200)],
            one("n", n).unwrap(),
        );
        db.commit(batch).unwrap();
    }
}

/// Where the base is long a new one is made beside checkpoints: however long it takes, these are made as they are due, so
/// that the log behind them stays short.
#[test]
fn a_long_base_is_made_beside_checkpoints() {
    const CELLS: u64 = 2_000;
    let clock = Arc::new(Busy::default());
    let options = Options { workers: 0, checkpoint_bytes: 8 << 10, clock: clock.clone(), ..options() };
    let disk = SimulatedDisk::new();
    let db = Arc::new(Database::create_on(Arc::new(disk.clone()), options.clone()).unwrap());
    define(&db).unwrap();
    (0..CELLS).step_by(50).for_each(|from| put(&db, (from..from + 50).map(|cell| (cell, -1))));
    db.checkpoint().unwrap();
    let images = || disk.files().into_iter().filter(|name| name.starts_with("images/"));
    let base = images().next().unwrap();
    assert_eq!(images().count(), 1);
    *clock.db.lock().unwrap() = Some((Arc::downgrade(&db), disk.clone()));
    let mut rounds = 0;
    while disk.contents(&base).is_some() {
        rounds += 1;
        assert!(rounds < 200, "{:?}", disk.files());
        put(&db, (0..50).map(|cell| (rounds * 7 + cell, rounds as i64)));
        db.run_ready().unwrap();
    }
    *clock.db.lock().unwrap() = None;
    let written = std::mem::take(&mut *clock.written.lock().unwrap());
    let (new, manifests) = written.iter().max_by_key(|(_, manifests)| manifests.len()).unwrap();
    assert!(manifests.len() > 2, "checkpoints were made meanwhile: {written:?}");
    assert!(disk.contents(new.trim_end_matches(".tmp")).is_some(), "{new} of {:?}", disk.files());
    assert!(images().all(|name| !name.ends_with(".tmp")));
    let (left, commits) = clock.left.lock().unwrap().take().unwrap();
    let expected = shown(&db).unwrap();
    assert_eq!(db.status().trouble, None);
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
    drop(db);
    let open = |disk: SimulatedDisk| Database::open_on(Arc::new(disk), options.clone()).unwrap();
    assert_eq!(shown(&open(disk.crash())).unwrap(), expected);
    // Amid the writing: the file is gone, and nothing is missing; a few commits were behind the checkpoint.
    assert!(left.files().iter().any(|name| name.ends_with(".tmp")), "{:?}", left.files());
    let db = open(left.clone());
    let replayed = db.recovery_report().replayed;
    assert!(replayed < 200 && replayed < commits as u64, "{replayed} of {commits}");
    assert!(left.files().iter().all(|name| !name.ends_with(".tmp")), "{:?}", left.files());
    let cell = format!("cell {}", (commits as u64 - 1) % 200);
    let found = db.snapshot().slot(BOOK, day(), [cell]).unwrap().unwrap();
    assert_eq!(found.rows.i64s("n").unwrap(), [commits]);
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
}

/// Whatever fails while a base is made, its own writes and those of checkpoints between them: nothing is lost, and a later
/// drive makes one.
#[test]
fn a_base_that_cannot_be_made_is_made_later() {
    const CELLS: u64 = 300;
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    let options = Options { workers: 0, checkpoint_bytes: 4 << 10, clock: clock.clone(), ..options() };
    let prepared = || {
        let disk = SimulatedDisk::new();
        let db = Database::create_on(Arc::new(disk.clone()), options.clone()).unwrap();
        define(&db).unwrap();
        (0..CELLS).step_by(50).for_each(|from| put(&db, (from..from + 50).map(|cell| (cell, -1))));
        db.checkpoint().unwrap();
        put(&db, (0..CELLS / 2).map(|cell| (cell, 1)));
        (disk, db)
    };
    let images = |disk: &SimulatedDisk| {
        disk.files().into_iter().filter(|name| name.starts_with("images/")).collect::<Vec<_>>()
    };
    let (disk, db) = prepared();
    let (old, first) = (images(&disk), disk.calls());
    db.run_ready().unwrap();
    let calls = disk.calls() - first;
    // The delta, the new base over both, and what the checkpoint that names it wrote.
    assert_eq!(images(&disk).len() - old.len(), 3, "{:?}", images(&disk));
    let expected = shown(&db).unwrap();
    let (mut failures, mut minutes) = (0, 0);
    for call in (0..calls).step_by(3) {
        let (disk, db) = prepared();
        let old = images(&disk);
        disk.fail_at(Some(disk.calls() + 1 + call));
        let refused = db.run_ready().is_err();
        disk.fail_at(None);
        failures += usize::from(refused || db.status().trouble.is_some());
        assert_eq!(shown(&db).unwrap(), expected);
        if db.run_ready().is_ok() {
            // A minute later, with something to checkpoint.
            minutes += 2;
            clock.set(Timestamp(minutes * 60_000_000_000));
            put(&db, [(0, 1)]);
            db.run_ready().unwrap();
            db.checkpoint().unwrap();
            db.checkpoint().unwrap();
            assert!(disk.contents(&old[0]).is_none(), "call {call}: {:?}", images(&disk));
        }
        drop(db);
        let db = Database::open_on(Arc::new(disk.crash()), options.clone()).unwrap();
        assert_eq!(shown(&db).unwrap().len(), expected.len());
        assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
        assert!(images(&disk).iter().all(|name| !name.ends_with(".tmp")), "call {call}: {:?}", images(&disk));
    }
    assert!(failures > 3, "{failures} of {calls}");
}

/// A clock whose holder does something once, at the nth time that others may go on.
#[derive(Default)]
struct Once {
    left: AtomicI64,
    act: Mutex<Option<Box<dyn FnMut() + Send>>>,
}

impl Clock for Once {
    fn now(&self) -> Timestamp {
        Timestamp(0)
    }

    fn give_way(&self) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 0
            && let Some(mut act) = self.act.lock().unwrap().take()
        {
            act();
        }
    }
}

/// Damages an object in the only pack, all of whose bytes are these; answers the pack's name.
fn rot(disk: &SimulatedDisk, byte: u8) -> String {
    let pack = disk.files().into_iter().find(|name| name.starts_with("packs/")).unwrap();
    let mut rotten = disk.contents(&pack).unwrap();
    let body = rotten.windows(64).position(|bytes| bytes == [byte; 64]).unwrap();
    rotten[body + 100] = !byte;
    disk.overwrite(&pack, rotten);
    pack
}

/// Bytes that are put again, since what is stored of them is damaged, leave their file and are in memory. Where that is amid a
/// checkpoint, what this captured names them all the same, and has to find them.
#[test]
fn what_is_mended_amid_a_checkpoint_is_in_it() {
    fn model() -> (Metadata, Vec<u8>) {
        (Metadata::new("m").with("timestamp", Timestamp(1)), vec![7; 3_000])
    }
    fn put(db: &Database) {
        let mut batch = Batch::new();
        let (metadata, bytes) = model();
        batch.put_model(metadata, bytes);
        db.commit(batch).unwrap();
    }
    for moment in 0..40 {
        let clock = Arc::new(Once::default());
        let options = Options { workers: 0, clock: clock.clone(), ..options() };
        let disk = SimulatedDisk::new();
        let db = Arc::new(Database::create_on(Arc::new(disk.clone()), options.clone()).unwrap());
        put(&db);
        db.checkpoint().unwrap();
        rot(&disk, 7);
        define(&db).unwrap();
        clock.left.store(moment, Ordering::Relaxed);
        let again = db.clone();
        *clock.act.lock().unwrap() = Some(Box::new(move || put(&again)));
        db.checkpoint().unwrap();
        let is_late = clock.act.lock().unwrap().take().is_some();
        drop(db);
        let db = Database::open_on(Arc::new(disk.crash()), options).unwrap();
        assert_eq!(db.recovery_report().rejected_manifests, Vec::<String>::new(), "moment {moment}");
        if is_late {
            assert!(moment > 5, "a checkpoint gives way {moment} times");
            return;
        }
        let (metadata, bytes) = model();
        let found = db.snapshot().model(&metadata).unwrap().unwrap();
        assert_eq!(found.blob().unwrap().to_vec(), bytes, "moment {moment}");
    }
}

/// A file of which some bytes were put again, since they could not be read, is written anew without them: else nobody could
/// make a backup any more.
#[test]
fn files_with_mended_bytes_are_written_anew() {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), Options { workers: 0, ..options() }).unwrap();
    let put = |of: u8, bytes: usize| {
        let mut batch = Batch::new();
        let metadata = Metadata::new("m").with("of", i64::from(of)).with("timestamp", Timestamp(1));
        batch.put_model(metadata, vec![of; bytes]);
        db.commit(batch).unwrap();
    };
    // More of the pack stays alive than goes.
    (1..=5).for_each(|of| put(of, 3_000));
    db.checkpoint().unwrap();
    let pack = rot(&disk, 3);
    let back_up = || db.backup_on(Arc::new(SimulatedDisk::new()), |_, _| ());
    assert!(matches!(back_up(), Err(CopyError::Damaged { .. })));
    put(3, 3_000);
    db.checkpoint().unwrap();
    db.checkpoint().unwrap();
    assert!(disk.contents(&pack).is_none(), "{:?}", disk.files());
    back_up().unwrap();
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
}

/// Commits that go on beside checkpoints end up in one or the other, and none is there in part.
#[test]
fn commits_beside_checkpoints_are_captured_whole_or_not_at_all() {
    let (disk, db) = filled(2_000);
    // Without a bound the writer would be so fast that each checkpoint had more to do than the one before.
    let (over, allowed) = (AtomicBool::new(false), AtomicI64::new(0));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut round = 0;
            while !over.load(Ordering::Relaxed) {
                if round == allowed.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                    continue;
                }
                round += 1;
                // Cells at both ends and in the middle always hold the same number, and so does a model.
                let mut batch = Batch::new();
                for cell in [0, 999, 1_999] {
                    batch.put_slot(BOOK, day(), [format!("cell {cell}")], one("n", -round).unwrap());
                }
                let metadata = Metadata::new("m").with("timestamp", Timestamp(round));
                batch.put_model(metadata, round.to_le_bytes().to_vec());
                db.commit(batch).unwrap();
            }
        });
        for _ in 0..30 {
            allowed.fetch_add(200, Ordering::Relaxed);
            db.checkpoint().unwrap();
            let copy = Database::open_on(Arc::new(disk.crash()), options()).unwrap();
            let snapshot = copy.snapshot();
            let of = |cell: u64| {
                let found = snapshot.slot(BOOK, day(), [format!("cell {cell}")]).unwrap().unwrap();
                found.rows.i64s("n").unwrap()[0]
            };
            let round = of(0);
            assert_eq!((of(999), of(1_999)), if round == 0 { (999, 1_999) } else { (round, round) });
            let model = snapshot.model(&Metadata::new("m").with("timestamp", Timestamp(0))).unwrap();
            let versions = model.map_or(0, |model| model.info().version as i64);
            assert_eq!(versions, -round);
            assert_eq!(copy.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
        }
        over.store(true, Ordering::Relaxed);
        writer.join().unwrap();
    });
}
