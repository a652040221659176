//! Objects in memory are saved now and then, and go on from the newest version.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use underbelly::{
    CommitError, Database, LiveModel, LockedModel, ManualClock, Metadata, Model, Options, Parts,
    SimulatedDisk, Timestamp,
};
use underbelly_tests::options;

const SECOND: i64 = 1_000_000_000;

fn metadata() -> Metadata {
    Metadata::new("online").with("symbol", "IBM")
}

fn driven(disk: &SimulatedDisk, clock: &Arc<ManualClock>) -> Options {
    let _ = disk;
    Options { clock: clock.clone(), workers: 0, ..options() }
}

/// A sum and a count: two parts that only make sense together.
fn restore(saved: Option<&Model>) -> Result<(f64, u64), CommitError> {
    let Some(model) = saved else { return Ok((0.0, 0)) };
    let part =
        |name: &str| -> Result<[u8; 8], CommitError> { Ok((*model.tensor(name)?.data).try_into().unwrap()) };
    Ok((f64::from_le_bytes(part("sum")?), u64::from_le_bytes(part("count")?)))
}

fn serialise(state: &(f64, u64)) -> Result<Parts, CommitError> {
    Ok(Parts::new().with("sum", state.0.to_le_bytes()).with("count", state.1.to_le_bytes()))
}

fn add(live: &mut LiveModel<(f64, u64)>, value: f64) {
    live.change(|(sum, count)| (*sum, *count) = (*sum + value, *count + 1));
}

fn versions(db: &Database) -> Vec<u64> {
    db.snapshot().model_versions(&metadata()).unwrap().iter().map(|version| version.info.version).collect()
}

#[test]
fn a_live_model_is_saved_when_it_is_time_and_goes_on_after_a_crash() {
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::new(Timestamp(0))));
    let db = Database::create_on(Arc::new(disk.clone()), driven(&disk, &clock)).unwrap();
    let start = |db: &Database| {
        db.live_model(metadata())
            .every(Duration::from_secs(10))
            .keep_last(2)
            .start(restore, serialise)
            .unwrap()
    };
    let mut live = start(&db);
    assert!(live.restored().is_none());
    for second in 0..35 {
        clock.set(Timestamp(second * SECOND));
        add(&mut live, second as f64);
    }
    // Saved at 10, 20 and 30; two are kept.
    assert_eq!(versions(&db), [3, 2]);
    let status = &db.live_models()[0];
    assert_eq!((status.changes, status.saved_changes, status.saved), (35, 31, Some(Timestamp(30 * SECOND))));
    assert_eq!((status.age, status.trouble.clone()), (Some(Duration::from_secs(4)), None));
    let crashed = Database::open_on(Arc::new(disk.crash()), driven(&disk, &clock)).unwrap();
    let again = start(&crashed);
    let restored = again.restored().unwrap();
    assert_eq!((restored.version, restored.changes, restored.was_closed), (3, 31, false));
    assert_eq!(restored.lost_at_most, Duration::from_secs(4));
    assert_eq!(*again.get(), ((0..31).sum::<i64>() as f64, 31));
    assert_eq!(
        crashed.snapshot().model(&metadata()).unwrap().unwrap().info().timestamp,
        Timestamp(30 * SECOND)
    );
    std::mem::forget(again);
    // At its close nothing is lost.
    live.close().unwrap();
    let crashed = Database::open_on(Arc::new(disk.crash()), driven(&disk, &clock)).unwrap();
    let again = start(&crashed);
    let restored = again.restored().unwrap();
    assert_eq!((restored.changes, restored.was_closed, restored.lost_at_most), (35, true, Duration::ZERO));
    assert_eq!(again.get().1, 35);
}

#[test]
fn what_is_unchanged_is_not_written() {
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::new(Timestamp(0))));
    let db = Database::create_on(Arc::new(disk.clone()), driven(&disk, &clock)).unwrap();
    let mut live = db.live_model(metadata()).every(Duration::ZERO).start(restore, serialise).unwrap();
    add(&mut live, 1.0);
    assert_eq!(versions(&db), [1]);
    let head = db.head_seq();
    live.change(|_| {});
    live.save().unwrap();
    assert_eq!(db.head_seq(), head);
    add(&mut live, 0.0);
    assert_eq!(versions(&db), [2, 1]);
    // The close says that it was one, and writes no version.
    live.close().unwrap();
    assert_eq!((versions(&db), db.head_seq()), (vec![2, 1], head + 2));
    drop(db.live_model(metadata()).start(restore, serialise).unwrap());
    // The begin takes that back, and the next close says it again.
    assert_eq!((versions(&db), db.head_seq()), (vec![2, 1], head + 4));
}

/// A serialiser that fails is told, and the object is saved later; a change that panics is not saved.
#[test]
fn what_cannot_be_serialised_is_told_and_tried_again() {
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::new(Timestamp(0))));
    let db = Database::create_on(Arc::new(disk.clone()), driven(&disk, &clock)).unwrap();
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    let fail_once = move |state: &(f64, u64)| match counted.fetch_add(1, Ordering::SeqCst) {
        0 => Err(CommitError::Abandoned { reason: "not now".to_string() }),
        _ => serialise(state),
    };
    let mut live = db.live_model(metadata()).every(Duration::ZERO).start(restore, fail_once).unwrap();
    add(&mut live, 1.0);
    assert!(db.live_models()[0].trouble.as_ref().unwrap().contains("not now"));
    assert!(versions(&db).is_empty());
    add(&mut live, 2.0);
    assert_eq!((versions(&db), db.live_models()[0].trouble.clone()), (vec![1], None));
    let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        live.change(|state| {
            state.0 = f64::NAN;
            panic!("in the middle");
        })
    }));
    assert!(broken.is_err());
    assert_eq!(versions(&db), [1]);
    assert_eq!(restore(db.snapshot().model(&metadata()).unwrap().as_ref()).unwrap(), (3.0, 2));
}

/// Under a lock a thread saves it, and so does the close of the database.
#[test]
fn an_object_under_a_lock_is_saved_by_the_database() {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    let live: LockedModel<(f64, u64)> =
        db.live_model(metadata()).every(Duration::ZERO).start_locked(restore, serialise).unwrap();
    live.change(|(sum, count)| (*sum, *count) = (5.0, 1));
    let mut seen = db.visible_seq();
    while versions(&db).is_empty() {
        let _ = db.wait_idle(Duration::ZERO);
        std::thread::yield_now();
        seen = seen.max(db.visible_seq());
    }
    assert!(seen > 0);
    live.change(|(sum, count)| (*sum, *count) = (7.0, 2));
    db.close().unwrap();
    let db = Database::open_on(Arc::new(disk), options()).unwrap();
    let live = db.live_model(metadata()).start_locked(restore, serialise).unwrap();
    assert_eq!(live.with(|state| *state), (7.0, 2));
    assert!(live.restored().unwrap().was_closed);
    live.change(|(sum, _)| *sum = 8.0);
    live.save().unwrap();
    assert_eq!(restore(db.snapshot().model(&metadata()).unwrap().as_ref()).unwrap(), (8.0, 2));
}

/// Many objects that one thread changes in turn: each is saved, none waits for the disk.
#[test]
fn many_live_models_are_saved_beside_their_owner() {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk), options()).unwrap();
    let of = |n: i64| metadata().with("n", n);
    let mut lives: Vec<_> = (0..200)
        .map(|n| db.live_model(of(n)).every(Duration::ZERO).start(restore, serialise).unwrap())
        .collect();
    for round in 0..5 {
        lives.iter_mut().for_each(|live| add(live, f64::from(round)));
    }
    lives.into_iter().for_each(|live| live.close().unwrap());
    for n in 0..200 {
        let model = db.snapshot().model(&of(n)).unwrap();
        assert_eq!(restore(model.as_ref()).unwrap(), (10.0, 5), "{n}");
    }
}
