//! A checkpoint writes what changed, and what is stored in several layers comes back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use underbelly::{Batch, Columns, Database, Metadata, Options, SimulatedDisk, Timestamp};
use underbelly_tests::{BOOK, Numbers, day, define, one, options, shown};

pub fn put(db: &Database, cells: impl IntoIterator<Item = (u64, i64)>) {
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
