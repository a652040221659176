//! Objects in memory are saved now and then, and go on from the newest version.

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use underbelly::{
    Batch, CommitError, Database, LiveModel, LockedModel, ManualClock, MetaValue, Metadata, Model, Options,
    Outputs, Parts, ProducerDefinition, Retention, SimulatedDisk, Timestamp,
};
use underbelly_tests::{counter_slot, day, in_memory, one, options};

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
fn a_live_model_is_saved_once_a_minute_unless_told_otherwise() {
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::new(Timestamp(0))));
    let db = Database::create_on(Arc::new(disk.clone()), driven(&disk, &clock)).unwrap();
    let mut live = db.live_model(metadata()).start(restore, serialise).unwrap();
    for (nanoseconds, saved) in [(59 * SECOND, 0), (60 * SECOND - 1, 0), (60 * SECOND, 1), (119 * SECOND, 1)]
    {
        clock.set(Timestamp(nanoseconds));
        add(&mut live, 1.0);
        assert_eq!(versions(&db).len(), saved, "at {nanoseconds} ns");
    }
}

/// Who owns an object serialises it, so that it need not be one that can be sent.
#[test]
fn what_a_thread_owns_is_serialised_by_that_thread() {
    let (_, db) = in_memory().unwrap();
    let threads = Arc::new(Mutex::new(Vec::new()));
    let start = || {
        let threads = threads.clone();
        let serialise = move |count: &Rc<Cell<u64>>| {
            threads.lock().unwrap().push(std::thread::current().id());
            Ok(Parts::new().with("count", count.get().to_le_bytes()))
        };
        let builder = db.live_model(metadata()).every(Duration::ZERO);
        builder.start(|_| Ok(Rc::new(Cell::new(0))), serialise).unwrap()
    };
    for closes in [true, false] {
        let mut live = start();
        live.change(|count| count.set(count.get() + 1));
        live.save().unwrap();
        live.change(|count| count.set(count.get() + 1));
        if closes {
            live.close().unwrap();
        }
    }
    db.close().unwrap();
    let threads = threads.lock().unwrap();
    assert!(threads.len() >= 6, "{}", threads.len());
    assert!(threads.iter().all(|thread| *thread == std::thread::current().id()));
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
    live.change(|(sum, count)| (*sum, *count) = (5.0, 1)).unwrap();
    let mut seen = db.visible_seq();
    while versions(&db).is_empty() {
        let _ = db.wait_idle(Duration::ZERO);
        std::thread::yield_now();
        seen = seen.max(db.visible_seq());
    }
    assert!(seen > 0);
    live.change(|(sum, count)| (*sum, *count) = (7.0, 2)).unwrap();
    db.close().unwrap();
    let db = Database::open_on(Arc::new(disk), options()).unwrap();
    let live = db.live_model(metadata()).start_locked(restore, serialise).unwrap();
    assert_eq!(live.with(|state| *state).unwrap(), (7.0, 2));
    assert!(live.restored().unwrap().was_closed);
    live.change(|(sum, _)| *sum = 8.0).unwrap();
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

/// Waits for what a thread of the database does.
fn until(what: &str, mut is_done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_done() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what} did not come");
        std::thread::yield_now();
    }
}

/// A serialiser that panics is told, harms no other object, and keeps the close from nothing.
#[test]
fn a_serialiser_that_panics_harms_no_other() {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    let (bad, good) = (metadata().with("n", 1i64), metadata().with("n", 2i64));
    let panics = |_: &(f64, u64)| -> Result<Parts, CommitError> { panic!("a serialiser of the caller's") };
    let begin = |metadata: &Metadata| db.live_model(metadata.clone()).every(Duration::ZERO);
    let bad_live = begin(&bad).start_locked(restore, panics).unwrap();
    let good_live = begin(&good).start_locked(restore, serialise).unwrap();
    bad_live.change(|state| state.1 = 1).unwrap();
    let is_told =
        || db.live_models().iter().any(|live| live.trouble.as_ref().is_some_and(|t| t.contains("panicked")));
    until("the trouble", is_told);
    good_live.change(|state| state.1 = 2).unwrap();
    until("the other's version", || db.snapshot().model(&good).unwrap().is_some());
    // On the caller's thread, too.
    let mut owned = begin(&metadata()).start(restore, panics).unwrap();
    add(&mut owned, 1.0);
    assert!(matches!(owned.close(), Err(CommitError::LiveModel { .. })));
    good_live.change(|state| state.1 = 3).unwrap();
    let unsaved = format!("live model {}", bad.id().unwrap());
    assert!(matches!(db.close(), Err(CommitError::Unsaved { what }) if what == unsaved));
    let db = Database::open_on(Arc::new(disk), options()).unwrap();
    assert_eq!(restore(db.snapshot().model(&good).unwrap().as_ref()).unwrap().1, 3);
    assert!(db.snapshot().model(&bad).unwrap().is_none());
}

/// What a change left half done is neither changed further nor saved.
#[test]
fn an_object_that_a_change_left_half_done_is_saved_no_more() {
    let (_, db) = in_memory().unwrap();
    let live = db.live_model(metadata()).start_locked(restore, serialise).unwrap();
    live.change(|state| *state = (1.0, 1)).unwrap();
    live.save().unwrap();
    let looked = std::panic::catch_unwind(AssertUnwindSafe(|| live.with(|_| panic!("who only looks"))));
    assert!(looked.is_err());
    live.change(|state| *state = (2.0, 2)).unwrap();
    let changed = std::panic::catch_unwind(AssertUnwindSafe(|| {
        live.change(|state| {
            state.0 = 3.0;
            panic!("in the middle");
        })
    }));
    assert!(changed.is_err());
    for refused in [live.change(|_| ()), live.save(), live.clone().close()] {
        assert!(matches!(refused, Err(CommitError::LiveModel { .. })), "{refused:?}");
    }
    assert_eq!(live.with(|state| *state).unwrap(), (3.0, 2));
    drop(live);
    let live = db.live_model(metadata()).start_locked(restore, serialise).unwrap();
    assert_eq!(live.with(|state| *state).unwrap(), (1.0, 1));
}

/// What was handed over before a close is saved by it.
#[test]
fn the_close_saves_what_was_handed_over() {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    let of = |n: i64| metadata().with("n", n);
    // The metadata of one is too long for any version, which harms no other.
    let long = metadata().with("fit", "long").with("tags", "x".repeat(70_000));
    let unsaved = format!("live model {}", long.id().unwrap());
    let every = |metadata| db.live_model(metadata).every(Duration::ZERO).start(restore, serialise).unwrap();
    let mut lives: Vec<_> = (0..100).map(of).chain([long]).chain((100..200).map(of)).map(every).collect();
    lives.iter_mut().for_each(|live| add(live, 1.0));
    assert!(matches!(db.close(), Err(CommitError::Unsaved { what }) if what == unsaved));
    std::mem::forget(lives);
    let db = Database::open_on(Arc::new(disk), options()).unwrap();
    let missing: Vec<i64> = (0..200).filter(|n| db.snapshot().model(&of(*n)).unwrap().is_none()).collect();
    assert_eq!(missing, [0; 0]);
    assert!(db.snapshot().model(&metadata().with("fit", "long")).unwrap().is_none());
}

/// What may be lost is told by the interval of the life that crashed, and by its last save where later ones failed.
#[test]
fn what_may_be_lost_is_told_by_the_life_that_crashed() {
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::new(Timestamp(0))));
    let open = |disk: &SimulatedDisk| {
        let left = disk.crash();
        (left.clone(), Database::open_on(Arc::new(left), driven(disk, &clock)).unwrap())
    };
    let db = Database::create_on(Arc::new(disk.clone()), driven(&disk, &clock)).unwrap();
    let fails = Arc::new(AtomicBool::new(false));
    let counted = fails.clone();
    let serialise = move |state: &(f64, u64)| match counted.load(Ordering::SeqCst) {
        true => Err(CommitError::Abandoned { reason: "not now".to_string() }),
        false => serialise(state),
    };
    let seconds = Duration::from_secs;
    let begin = |db: &Database, every: u64| {
        db.live_model(metadata()).every(seconds(every)).start(restore, serialise.clone()).unwrap()
    };
    let mut live = begin(&db, 100);
    let at = |live: &mut LiveModel<(f64, u64)>, second: i64| {
        clock.set(Timestamp(second * SECOND));
        add(live, 1.0);
    };
    at(&mut live, 100);
    at(&mut live, 160);
    let lost = |live: &LiveModel<(f64, u64)>| live.restored().unwrap().lost_at_most;
    let (second_disk, second_db) = open(&disk);
    let mut second = begin(&second_db, 10);
    assert_eq!(lost(&second), seconds(60), "the first life was to save after 100 s");
    at(&mut second, 170);
    fails.store(true, Ordering::SeqCst);
    at(&mut second, 180);
    at(&mut second, 400);
    second_db.wait_durable(second_db.head_seq()).unwrap();
    std::mem::forget((live, second));
    let (_, third_db) = open(&second_disk);
    let third = begin(&third_db, 10);
    assert_eq!(lost(&third), seconds(230), "nothing was saved since");
    std::mem::forget(third);
}

/// A blob that is cut into chunks is known again after a restart.
#[test]
fn what_is_unchanged_is_not_written_by_the_next_life() {
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::new(Timestamp(0))));
    let db = Database::create_on(Arc::new(disk.clone()), driven(&disk, &clock)).unwrap();
    let large = |_: Option<&Model>| Ok(vec![7u8; (1 << 20) + 100_000]);
    let parts = |bytes: &Vec<u8>| Ok(Parts::new().with("weights", bytes.clone()).with("labels", "ab"));
    let begin = |db: &Database| db.live_model(metadata()).every(Duration::ZERO).start(large, parts).unwrap();
    let mut live = begin(&db);
    live.change(|_| ());
    live.close().unwrap();
    db.close().unwrap();
    let db = Database::open_on(Arc::new(disk.clone()), driven(&disk, &clock)).unwrap();
    let mut live = begin(&db);
    live.change(|_| ());
    live.save().unwrap();
    assert_eq!(versions(&db), [1]);
    live.change(|bytes| bytes[0] = 8);
    assert_eq!(versions(&db), [2, 1]);
}

/// Two objects of one identity would save over each other.
#[test]
fn one_object_is_saved_under_an_identity() {
    let (_, db) = in_memory().unwrap();
    let begin = || db.live_model(metadata()).start(restore, serialise);
    let live = begin().unwrap();
    for second in [begin().map(drop), db.live_model(metadata()).start_locked(restore, serialise).map(drop)] {
        assert!(matches!(second, Err(CommitError::LiveModel { .. })), "{second:?}");
    }
    live.close().unwrap();
    let locked = db.live_model(metadata()).start_locked(restore, serialise).unwrap();
    assert!(begin().is_err());
    let other = locked.clone();
    locked.close().unwrap();
    assert!(matches!(other.change(|_| ()), Err(CommitError::LiveModel { .. })));
    drop(begin().unwrap());
    begin().unwrap();
}

/// Behind the last save nothing changes that would be lost.
#[test]
fn what_the_close_of_the_database_saved_takes_no_change_any_more() {
    let (disk, db) = in_memory().unwrap();
    let live = db.live_model(metadata()).start_locked(restore, serialise).unwrap();
    live.change(|(_, count)| *count += 1).unwrap();
    db.close().unwrap();
    assert!(matches!(live.change(|(_, count)| *count += 1), Err(CommitError::LiveModel { .. })));
    assert_eq!(live.with(|(_, count)| *count).unwrap(), 1);
    drop(live);
    let db = Database::open_on(Arc::new(disk), options()).unwrap();
    let live = db.live_model(metadata()).start_locked(restore, serialise).unwrap();
    assert_eq!(live.with(|(_, count)| *count).unwrap(), 1);
    assert_eq!(live.restored().unwrap().lost_at_most, Duration::ZERO);
}

/// A producer's closure is dropped while the database still takes what its objects save last.
#[test]
fn what_a_closure_owns_is_saved_at_the_close_and_at_the_drop() {
    for closes in [true, false] {
        let (disk, db) = in_memory().unwrap();
        for slot in ["A", "B"] {
            db.define_slot(counter_slot(slot)).unwrap();
        }
        let live = Mutex::new(db.live_model(metadata()).start(restore, serialise).unwrap());
        let definition = ProducerDefinition::new("learner").requires("A").provides("B");
        db.register(definition, move |run| {
            add(&mut live.lock().unwrap(), 2.5);
            Ok(Outputs::new().put("B", run.input("A")?))
        })
        .unwrap();
        let mut batch = Batch::new();
        batch.put_slot("A", day(), ["x"], one("n", 1).unwrap());
        db.commit(batch).unwrap();
        assert!(db.wait_idle(Duration::from_secs(60)));
        if closes {
            db.close().unwrap();
        } else {
            drop(db);
        }
        let db = Database::open_on(Arc::new(disk), options()).unwrap();
        let live = db.live_model(metadata()).start(restore, serialise).unwrap();
        assert_eq!(*live.get(), (2.5, 1), "closed: {closes}");
        assert!(live.restored().unwrap().was_closed);
    }
}

/// Somebody else's version is not taken for the object's own: what the object holds is the newest again after its close.
#[test]
fn a_version_of_somebody_else_is_put_over() {
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::new(Timestamp(0))));
    let db = Database::create_on(Arc::new(disk.clone()), driven(&disk, &clock)).unwrap();
    let mut live = db.live_model(metadata()).keep_last(2).start(restore, serialise).unwrap();
    add(&mut live, 4.0);
    live.save().unwrap();
    let mut batch = Batch::new();
    batch.put_model(metadata().with("timestamp", Timestamp(7)), serialise(&(9.0, 9)).unwrap().to_blob());
    db.commit(batch).unwrap();
    live.save().unwrap();
    let newest = |db: &Database| db.snapshot().model(&metadata()).unwrap().unwrap();
    let own = serialise(live.get()).unwrap().to_blob();
    assert_eq!((newest(&db).info().version, &*newest(&db).blob().unwrap()), (3, &own[..]));
    live.save().unwrap();
    assert_eq!(newest(&db).info().version, 3, "it is its own");
    // A model that was deleted begins anew, with the retention that it was to have.
    db.transact(|tx| tx.delete_model(&metadata())).unwrap();
    for n in 0..4 {
        add(&mut live, f64::from(n) + 1.0);
        live.save().unwrap();
    }
    assert_eq!(db.snapshot().model_versions(&metadata()).unwrap().len(), 2);
    live.close().unwrap();
}

/// How many versions a life keeps says nothing of the age that somebody set.
#[test]
fn the_age_that_versions_are_kept_outlives_a_number() {
    let db = Database::create_on(Arc::new(SimulatedDisk::new()), options()).unwrap();
    let mut live = db.live_model(metadata()).start(restore, serialise).unwrap();
    add(&mut live, 1.0);
    live.close().unwrap();
    let mut batch = Batch::new();
    let day = Retention::max_age(Duration::from_secs(86_400));
    batch.set_retention(&metadata(), Some(day)).unwrap();
    db.commit(batch).unwrap();
    let mut live = db.live_model(metadata()).keep_last(3).start(restore, serialise).unwrap();
    add(&mut live, 2.0);
    live.close().unwrap();
    let both = Retention { keep_last: Some(3), ..day };
    assert_eq!(db.snapshot().retention(&metadata()).unwrap(), Some(both));
}

/// What is done to the inside of an object by who looks at it is saved before the object leaves memory; and who panics while
/// he looks keeps it there no longer than others.
#[test]
fn what_a_look_changed_is_saved_before_it_is_evicted() {
    let db = Database::create_on(Arc::new(SimulatedDisk::new()), options()).unwrap();
    let live = db
        .live_model(metadata())
        .every(Duration::from_millis(10))
        .evict_after(Duration::ZERO)
        .start_locked(
            |saved| Ok(Cell::new(restore(saved)?)),
            |state: &Cell<(f64, u64)>| serialise(&state.get()),
        )
        .unwrap();
    live.change(|state| state.set((1.0, 1))).unwrap();
    live.save().unwrap();
    live.with(|state| state.set((5.0, 2))).unwrap();
    let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| live.with(|_| panic!("looking"))));
    assert!(panicked.is_err());
    until("the eviction", || !db.live_models()[0].is_in_memory);
    assert_eq!(live.with(Cell::get).unwrap(), (5.0, 2));
    assert_eq!(restore(db.snapshot().model(&metadata()).unwrap().as_ref()).unwrap(), (5.0, 2));
}

/// Out of memory is neither unsaved nor deleted: the next use makes it from the newest version, whoever put that.
#[test]
fn an_evicted_object_is_restored_by_its_next_use() {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), Options { workers: 0, ..options() }).unwrap();
    let (held, fails) = (Arc::new(()), Arc::new(AtomicBool::new(false)));
    let restores = {
        let (held, fails) = (held.clone(), fails.clone());
        move |saved: Option<&Model>| match fails.load(Ordering::Relaxed) {
            true => Err(CommitError::Closed),
            false => Ok((restore(saved)?, held.clone())),
        }
    };
    let live = db
        .live_model(metadata())
        .start_locked(restores, |(state, _): &((f64, u64), Arc<()>)| serialise(state))
        .unwrap();
    let in_memory = || (db.live_models()[0].is_in_memory, Arc::strong_count(&held) == 3);
    let add = |value: f64| live.change(|((sum, count), _)| (*sum, *count) = (*sum + value, *count + 1));
    add(5.0).unwrap();
    assert_eq!(in_memory(), (true, true));
    live.evict().unwrap();
    assert_eq!(in_memory(), (false, false));
    // What is not in memory needs no saving, and may be evicted again.
    live.evict().unwrap();
    assert_eq!(versions(&db), [1]);
    fails.store(true, Ordering::Relaxed);
    assert!(matches!(live.with(|(state, _)| *state), Err(CommitError::Closed)));
    assert!(matches!(add(1.0), Err(CommitError::Closed)));
    fails.store(false, Ordering::Relaxed);
    add(2.0).unwrap();
    assert_eq!(live.with(|(state, _)| *state).unwrap(), (7.0, 2));
    assert_eq!(in_memory(), (true, true));
    live.evict().unwrap();

    let other = metadata().with("timestamp", Timestamp(1));
    let mut batch = Batch::new();
    batch.put_model(other, serialise(&(100.0, 50)).unwrap().to_blob());
    db.commit(batch).unwrap();
    assert_eq!(live.with(|(state, _)| *state).unwrap(), (100.0, 50));
    live.evict().unwrap();
    let count = versions(&db).len();
    db.close().unwrap();
    let db = Database::open_on(Arc::new(disk), options()).unwrap();
    assert_eq!(versions(&db).len(), count, "a close writes no version of what is not in memory");
    let live = db.live_model(metadata()).start_locked(restore, serialise).unwrap();
    assert!(live.restored().unwrap().was_closed);
    assert_eq!(live.with(|state| *state).unwrap(), (100.0, 50));
}

/// What changed is saved first, and what never was saved stays.
#[test]
fn what_nobody_uses_is_evicted_by_the_database() {
    let (_, db) = in_memory().unwrap();
    let begin = |name: &str| {
        let live = db.live_model(Metadata::new(name)).every(Duration::ZERO).evict_after(Duration::ZERO);
        live.start_locked(restore, serialise).unwrap()
    };
    let (changed, unchanged) = (begin("changed"), begin("unchanged"));
    changed.change(|state| *state = (3.0, 1)).unwrap();
    let status = |live_type: &str| {
        let is = |metadata: &Metadata| metadata.entries().get("type") == Some(&live_type.into());
        db.live_models().into_iter().find(|live| is(&live.metadata)).unwrap()
    };
    while status("changed").is_in_memory {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(status("changed").saved_changes, 1);
    assert!(status("unchanged").is_in_memory);
    assert_eq!(changed.with(|state| *state).unwrap(), (3.0, 1));
    drop(unchanged);
}

/// Use begins the time anew, and versions stay whatever is in memory.
#[test]
fn what_was_used_lately_stays_in_memory() {
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    let options = Options { clock: clock.clone(), ..options() };
    let db = Database::create_on(Arc::new(SimulatedDisk::new()), options).unwrap();
    let start = |n: i64, unused| {
        let live = db.live_model(metadata().with("n", n)).evict_after(unused);
        live.start_locked(restore, serialise).unwrap()
    };
    let (live, looked) = (start(1, Duration::from_secs(10)), start(2, Duration::ZERO));
    for live in [&live, &looked] {
        live.change(|state| state.1 = 1).unwrap();
        live.save().unwrap();
    }
    let in_memory = |n: i64| {
        let is = |metadata: &Metadata| metadata.entries().get("n") == Some(&n.into());
        db.live_models().into_iter().find(|live| is(&live.metadata)).unwrap().is_in_memory
    };
    // The thread looked at all of them twice, once at least from begin to end.
    let look = || {
        for _ in 0..2 {
            looked.with(|_| ()).unwrap();
            until("a look", || !in_memory(2));
        }
    };
    clock.set(Timestamp(4 * SECOND));
    live.with(|_| ()).unwrap();
    clock.set(Timestamp(14 * SECOND - 1));
    look();
    assert!(in_memory(1));
    clock.set(Timestamp(14 * SECOND));
    look();
    assert!(!in_memory(1));
    let versions = db.snapshot().model_versions(&metadata().with("n", 1i64)).unwrap();
    assert_eq!((versions.len(), live.with(|state| state.1).unwrap()), (1, 1));
}

/// Who has an object in use keeps no other from being saved, and serialises it when he lets go of it.
#[test]
fn an_object_in_use_keeps_no_other_from_being_saved() {
    let (_, db) = in_memory().unwrap();
    let start = |n: i64| {
        let metadata = metadata().with("n", n);
        db.live_model(metadata).every(Duration::ZERO).start_locked(restore, serialise).unwrap()
    };
    let is_saved = |n: i64| db.snapshot().model(&metadata().with("n", n)).unwrap().is_some();
    let (busy, other) = (start(1), start(2));
    // One change, so that it is time; the next holds the lock.
    busy.change(|state| state.1 = 1).unwrap();
    busy.change(|state| {
        let began = Instant::now();
        other.change(|state| state.1 = 1).unwrap();
        until("the other's version", || is_saved(2));
        // The thread looked at both: it passed over this one.
        until("another version of it", || {
            other.change(|state| state.1 += 1).unwrap();
            db.snapshot().model_versions(&metadata().with("n", 2i64)).unwrap().len() > 2
        });
        assert!(began.elapsed() < Duration::from_secs(60));
        state.1 = 7;
    })
    .unwrap();
    // It is in use all the time, so that nobody but who has it in use can have serialised it.
    let saved = || restore(db.snapshot().model(&metadata().with("n", 1i64)).unwrap().as_ref()).unwrap().1;
    busy.change(|_| until("what the change left", || saved() == 7)).unwrap();
}

/// The last handle that goes saves the object, as that of one which a thread owns does.
#[test]
fn a_dropped_handle_saves_what_is_under_the_lock() {
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::new(Timestamp(0))));
    let db = Database::create_on(Arc::new(disk.clone()), driven(&disk, &clock)).unwrap();
    let live = db.live_model(metadata()).start_locked(restore, serialise).unwrap();
    let clone = live.clone();
    live.change(|state| *state = (3.0, 1)).unwrap();
    drop(live);
    assert!(db.snapshot().model(&metadata()).unwrap().is_none());
    clone.change(|state| state.1 = 2).unwrap();
    drop(clone);
    assert_eq!(restore(db.snapshot().model(&metadata()).unwrap().as_ref()).unwrap(), (3.0, 2));
    // Another takes the identity at once.
    let again = db.live_model(metadata()).start_locked(restore, serialise).unwrap();
    assert!(again.restored().unwrap().was_closed);
}

/// The close of the database cannot save what somebody owns, and says so.
#[test]
fn a_close_tells_of_what_is_not_saved() {
    let (disk, db) = in_memory().unwrap();
    let mut live = db.live_model(metadata()).start(restore, serialise).unwrap();
    add(&mut live, 1.0);
    live.save().unwrap();
    add(&mut live, 2.0);
    match db.close() {
        Err(CommitError::Unsaved { what }) => assert!(what.contains("live model"), "{what}"),
        other => panic!("{other:?}"),
    }
    drop(live);
    // All else is.
    let db = Database::open_on(Arc::new(disk.clone()), options()).unwrap();
    let mut live = db.live_model(metadata()).start(restore, serialise).unwrap();
    assert_eq!(*live.get(), (1.0, 1));
    add(&mut live, 2.0);
    live.save().unwrap();
    db.close().unwrap();
    add(&mut live, 4.0);
    assert!(matches!(live.save(), Err(CommitError::Closed)));
}

/// The same of one under a lock that the close took and could not save.
#[test]
fn a_close_tells_of_what_was_refused() {
    let (_, db) = in_memory().unwrap();
    let long = metadata().with("fit", "long").with("tags", "x".repeat(70_000));
    let live = db.live_model(long.clone()).start_locked(restore, serialise).unwrap();
    live.change(|state| state.1 = 1).unwrap();
    let unsaved = format!("live model {}", long.id().unwrap());
    assert!(matches!(db.close(), Err(CommitError::Unsaved { what }) if what == unsaved));
}

/// An object that is always in use is saved once an interval, and not at each look.
#[test]
fn an_object_that_is_always_in_use_is_saved_once_an_interval() {
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    let options = Options { clock: clock.clone(), ..options() };
    let db = Database::create_on(Arc::new(SimulatedDisk::new()), options).unwrap();
    let live =
        db.live_model(metadata()).every(Duration::from_secs(10)).start_locked(restore, serialise).unwrap();
    live.change(|state| state.1 = 1).unwrap();
    clock.set(Timestamp(10 * SECOND));
    // The thread finds it in use; who lets go of it hands it over, and that counts as the save of this interval.
    live.with(|_| std::thread::sleep(Duration::from_millis(2_500))).unwrap();
    until("the first version", || versions(&db) == [1]);
    live.change(|state| state.1 = 2).unwrap();
    live.with(|_| std::thread::sleep(Duration::from_millis(2_500))).unwrap();
    live.change(|state| state.1 = 3).unwrap();
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(versions(&db), [1], "the interval has not passed");
    clock.set(Timestamp(20 * SECOND));
    until("the second version", || versions(&db) == [2, 1]);
}

/// A short interval is kept under a lock, too: the thread looks as often as the shortest asks, not once a second.
#[test]
fn a_short_interval_is_kept_under_a_lock() {
    let db = Database::create_on(Arc::new(SimulatedDisk::new()), options()).unwrap();
    let live: LockedModel<(f64, u64)> =
        db.live_model(metadata()).every(Duration::from_millis(10)).start_locked(restore, serialise).unwrap();
    let mut saved = 0;
    until("the hundredth version", || {
        if versions(&db).first() == Some(&saved) || saved == 0 {
            saved += 1;
            live.change(|state| state.1 = saved).unwrap();
        }
        saved > 100
    });
}

/// What no reader of the format would find is not written.
#[test]
fn parts_have_names_under_which_they_are_found() {
    let (_, db) = in_memory().unwrap();
    let reserved = |_: &(f64, u64)| Ok(Parts::new().with("__metadata__", vec![1]));
    let mut live = db.live_model(metadata()).start(restore, reserved).unwrap();
    add(&mut live, 1.0);
    let error = live.save().unwrap_err();
    assert!(error.to_string().contains("__metadata__"), "{error}");
    assert!(db.snapshot().model(&metadata()).unwrap().is_none());
}

/// A newest version that cannot be read is passed over where that is said.
#[test]
fn an_object_goes_on_from_an_older_version() {
    let (_, db) = in_memory().unwrap();
    let mut live = db.live_model(metadata()).start(restore, serialise).unwrap();
    for value in [1.0, 2.0, 4.0] {
        add(&mut live, value);
        live.save().unwrap();
    }
    live.close().unwrap();
    let mut live = db.live_model(metadata()).from_version(2).start(restore, serialise).unwrap();
    assert_eq!((*live.get(), live.restored().unwrap().version), ((3.0, 2), 2));
    // Until it is saved the newest is another, of which nobody is told any more that nothing is lost behind it.
    let life = |version| {
        let notes = db.snapshot().annotations(&metadata().id().unwrap()).unwrap();
        let note = notes.into_iter().rfind(|note| note.version == Some(version)).unwrap();
        matches!(note.value, Some(MetaValue::Map(told)) if told["closed"] == MetaValue::Bool(true))
    };
    assert!(!life(2) && !life(3));
    live.save().unwrap();
    assert_eq!(versions(&db), [4, 3, 2, 1]);
    assert_eq!(restore(db.snapshot().model(&metadata()).unwrap().as_ref()).unwrap(), (3.0, 2));
    add(&mut live, 1.0);
    live.close().unwrap();
    match db.live_model(metadata()).from_version(9).start(restore, serialise).map(drop) {
        Err(CommitError::UnknownVersion { version, .. }) => assert_eq!(version, "9"),
        other => panic!("{other:?}"),
    }
}
