//! A long base of the state image is made beside checkpoints, whatever comes between its steps.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use underbelly::disk::Act;
use underbelly::{
    Batch, Clock, CommitError, Database, Disk, FaultyDisk, ManualClock, Options, RealDisk, SimulatedDisk,
    Timestamp,
};
use underbelly_tests::{BOOK, day, define, one, options, shown};

use crate::deltas::put;
use crate::reserve::{small, used};

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
        assert_eq!(shown(&db).unwrap(), expected, "call {call}");
        assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
        assert!(images(&disk).iter().all(|name| !name.ends_with(".tmp")), "call {call}: {:?}", images(&disk));
    }
    assert!(failures > 3, "{failures} of {calls}");
}

/// Cells that [`Amid`]'s database has.
const CELLS: u64 = 300;

/// What is done amid the making of a base, whose file is named, until it answers true.
type Do = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// A clock whose holder does something between the steps of a base's making.
struct Amid {
    clock: ManualClock,
    disk: Arc<dyn Disk>,
    /// With the manifest that was the newest before the drive.
    act: Mutex<Option<(String, Do)>>,
}

impl Clock for Amid {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn instant(&self) -> Instant {
        self.clock.instant()
    }

    fn give_way(&self) {
        let held = self.act.lock().unwrap().clone();
        let Some((_, act)) = held.filter(|(before, _)| self.newest() > *before) else { return };
        // Behind the checkpoint that found it due.
        let file = self.images().into_iter().find(|name| name.ends_with(".tmp"));
        if file.is_some_and(|file| act(&format!("images/{file}"))) {
            self.act.lock().unwrap().take();
        }
    }
}

impl Amid {
    fn new(disk: Arc<dyn Disk>) -> Arc<Amid> {
        Arc::new(Amid { clock: ManualClock::new(Timestamp(0)), disk, act: Mutex::default() })
    }

    fn options(self: &Arc<Amid>) -> Options {
        Options { workers: 0, checkpoint_bytes: 4 << 10, clock: self.clone(), ..options() }
    }

    fn images(&self) -> Vec<String> {
        self.disk.list("images").unwrap()
    }

    fn newest(&self) -> String {
        let names = self.disk.list("").unwrap();
        names.into_iter().filter(|name| name.starts_with("MANIFEST-")).max().unwrap()
    }

    fn arm(&self, act: impl Fn(&str) -> bool + Send + Sync + 'static) {
        *self.act.lock().unwrap() = Some((self.newest(), Arc::new(act)));
    }

    /// Whether what was to be done was done.
    fn is_done(&self) -> bool {
        self.act.lock().unwrap().is_none()
    }

    fn set_seconds(&self, seconds: i64) {
        self.clock.set(Timestamp(seconds * 1_000_000_000));
    }

    /// A database with a base that is too long for a checkpoint, and its name; half of it has changed.
    fn database(self: &Arc<Amid>, cells: u64, options: &Options) -> (Arc<Database>, String) {
        let db = Database::create_on(self.disk.clone(), options.clone()).unwrap();
        define(&db).unwrap();
        put_all(&db, cells, -1);
        db.checkpoint().unwrap();
        let base = self.images();
        assert_eq!(base.len(), 1);
        put_all(&db, cells / 2, 1);
        (Arc::new(db), base[0].clone())
    }

    /// Nothing of a base is left, and the old one stays until its time has come.
    fn check_made_later(&self, db: &Database, base: &str) {
        let is_made = |cells: u64, n| {
            put_all(db, cells, n);
            db.run_ready().unwrap();
            db.checkpoint().unwrap();
            db.checkpoint().unwrap();
            !self.images().contains(&base.to_string())
        };
        assert!(self.images().iter().all(|name| !name.ends_with(".tmp")), "{:?}", self.images());
        self.set_seconds(30);
        let expected = shown(db).unwrap();
        assert!(expected.len() as u64 >= CELLS);
        assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
        self.set_seconds(120);
        assert!(is_made(150, 9), "{:?}", self.images());
    }
}

/// All of these cells, in batches.
fn put_all(db: &Database, cells: u64, n: i64) {
    (0..cells).step_by(50).for_each(|from| put(db, (from..(from + 50).min(cells)).map(|cell| (cell, n))));
}

/// A checkpoint that fails between the steps ends the making, whose file goes, and is tried once more; the base is left
/// alone for a minute, though more is due.
#[test]
fn a_checkpoint_that_fails_amid_a_base_is_made_without_it() {
    for failures in 1..=2 {
        let disk = FaultyDisk::new(SimulatedDisk::new());
        let clock = Amid::new(Arc::new(disk.clone()));
        let (db, base) = clock.database(CELLS, &clock.options());
        let left = Arc::new(AtomicU64::new(0));
        let (fails, writer) = (left.clone(), Arc::downgrade(&db));
        disk.watch(move |call| {
            let is_image = call.act == Act::Create && call.name.starts_with("images/");
            match is_image
                && fails.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok()
            {
                true => Err(io::Error::other("a test fails it")),
                false => Ok(()),
            }
        });
        let order = left.clone();
        clock.arm(move |_| {
            order.store(failures, Ordering::Relaxed);
            put_all(&writer.upgrade().unwrap(), CELLS / 2, 2);
            true
        });
        let driven = db.run_ready();
        assert!(clock.is_done() && left.load(Ordering::Relaxed) == 0);
        assert_eq!(driven.is_err(), failures == 2, "{driven:?}");
        assert_eq!(db.status().trouble.is_some(), failures == 2);
        let before = shown(&db).unwrap();
        let crashed = Database::open_on(Arc::new(disk.inner().crash()), options()).unwrap();
        assert_eq!(shown(&crashed).unwrap(), before);
        // The second attempt took in what was committed amid the base.
        assert_eq!(crashed.recovery_report().replayed < 3, failures == 1, "{:?}", crashed.recovery_report());
        // Checkpoints are tried again by now, and the base is not.
        clock.set_seconds(30);
        put_all(&db, CELLS / 2, 3);
        let old = clock.newest();
        db.run_ready().unwrap();
        assert!(clock.newest() > old && clock.images().contains(&base), "{:?}", clock.images());
        clock.check_made_later(&db, &base);
    }
}

/// Where the disk has no room for what is to be checkpointed beside half of a base, the base gives way to it.
#[test]
fn a_base_gives_its_space_to_a_checkpoint_on_a_full_disk() {
    const MANY: u64 = 16_000;
    let capacity = Arc::new(AtomicU64::new(u64::MAX));
    let disk = small(capacity.clone());
    let memory = disk.inner().clone();
    let clock = Amid::new(Arc::new(disk));
    let options = Options { checkpoint_bytes: 64 << 10, ..clock.options() };
    let (db, base) = clock.database(MANY, &options);
    let (writer, room) = (Arc::downgrade(&db), capacity.clone());
    let watched = memory.clone();
    clock.arm(move |file| {
        // Some of it is on the disk.
        if watched.contents(file).is_none_or(|bytes| bytes.is_empty()) {
            return false;
        }
        put_all(&writer.upgrade().unwrap(), MANY / 4, 2);
        watched.remove("RESERVE").unwrap();
        room.store(used(&watched) + (64 << 10), Ordering::Relaxed);
        true
    });
    db.run_ready().unwrap();
    assert!(clock.is_done());
    capacity.store(u64::MAX, Ordering::Relaxed);
    let expected = shown(&db).unwrap();
    let crashed = Database::open_on(Arc::new(memory.crash()), options).unwrap();
    assert!(shown(&crashed).unwrap() == expected && crashed.recovery_report().replayed < 3);
    assert!(clock.images().contains(&base));
    clock.check_made_later(&db, &base);
}

/// Whatever panics amid the making leaves the database as it was, and the next base is made.
#[test]
fn a_base_is_made_behind_one_that_panicked() {
    let disk = SimulatedDisk::new();
    let clock = Amid::new(Arc::new(disk.clone()));
    let (db, base) = clock.database(CELLS, &clock.options());
    let is_panicking = AtomicBool::new(true);
    clock.arm(move |_| {
        assert!(!is_panicking.swap(false, Ordering::Relaxed), "a test panics amid a base");
        true
    });
    assert!(catch_unwind(AssertUnwindSafe(|| db.run_ready())).is_err());
    clock.act.lock().unwrap().take();
    clock.check_made_later(&db, &base);
}

/// Who closes the database amid the making waits for no base: it is left to the next life, and the file goes while the folder
/// is still this writer's.
#[test]
fn a_close_amid_a_base_leaves_it_to_the_next_life() {
    let disk = FaultyDisk::new(SimulatedDisk::new());
    let clock = Amid::new(Arc::new(disk.clone()));
    let options = clock.options();
    let (db, base) = clock.database(CELLS, &options);
    let expected = shown(&db).unwrap();
    let (removes, removed) = channel();
    disk.watch(move |call| {
        if call.act == Act::Remove && call.name.ends_with(".tmp") {
            removes.send(call.name.to_string()).unwrap();
        }
        Ok(())
    });
    let driver = thread::current().id();
    let (closing, removed) = (Mutex::new(Some(Database::clone(&db))), Mutex::new(removed));
    let closer = Arc::new(Mutex::new(None));
    let thread = closer.clone();
    let (reaches, reached) = channel();
    let reached = Mutex::new(reached);
    clock.arm(move |_| {
        if thread::current().id() != driver {
            // The checkpoint of the close waits here, and with it the folder.
            if thread.lock().unwrap().is_some() {
                reaches.send(()).unwrap();
                let _ = removed.lock().unwrap().recv_timeout(Duration::from_secs(60)).unwrap();
            }
            return true;
        }
        if let Some(db) = closing.lock().unwrap().take() {
            let mut closer = thread.lock().unwrap();
            *closer = Some(thread::spawn(move || db.close()));
            drop(closer);
            reached.lock().unwrap().recv_timeout(Duration::from_secs(60)).unwrap();
        }
        false
    });
    assert!(matches!(db.run_ready(), Err(CommitError::Closed)));
    let closed = closer.lock().unwrap().take().unwrap().join().unwrap();
    closed.unwrap();
    assert!(clock.images().iter().all(|name| !name.ends_with(".tmp")), "{:?}", clock.images());
    assert!(clock.images().contains(&base), "{:?}", clock.images());
    drop(db);
    let db = Database::open_on(Arc::new(disk.clone()), options).unwrap();
    assert!(shown(&db).unwrap() == expected && db.recovery_report().replayed == 0);
    clock.check_made_later(&db, &base);
}

/// Closes the database of a drive amid its base, and gives up the folder before the base goes on.
fn close_amid(clock: &Amid, db: &Database) {
    let closing = Mutex::new(Some(db.clone()));
    clock.arm(move |_| {
        // It comes by here itself.
        let Some(db) = closing.lock().unwrap().take() else { return false };
        thread::spawn(move || db.close()).join().unwrap().unwrap();
        true
    });
    let driven = db.run_ready();
    assert!(clock.is_done() && matches!(driven, Err(CommitError::Closed)), "{driven:?}");
}

/// Once the folder is given up, what there is of the base stays there, as another process may write by then, and is let go of.
#[test]
fn a_base_that_outlives_its_database_touches_nothing_and_holds_nothing() {
    let _alone = crate::alone();
    let dir = TempDir::new().unwrap();
    let clock = Amid::new(Arc::new(RealDisk::new(dir.path())));
    let (db, base) = clock.database(CELLS, &clock.options());
    let expected = shown(&db).unwrap();
    close_amid(&clock, &db);
    drop(db);
    assert!(clock.images().iter().any(|name| name.ends_with(".tmp")), "{:?}", clock.images());
    let open: Vec<_> = std::fs::read_dir("/proc/self/fd").unwrap().map(|fd| fd.unwrap().path()).collect();
    let held: Vec<_> = open.iter().filter_map(|fd| std::fs::read_link(fd).ok()).collect();
    let held: Vec<_> = held.iter().filter(|path| path.starts_with(dir.path())).collect();
    assert!(held.is_empty(), "{held:?}");
    let db = Database::open(dir.path()).unwrap();
    assert_eq!(shown(&db).unwrap(), expected);
    assert!(clock.images().contains(&base) && clock.images().iter().all(|name| !name.ends_with(".tmp")));
}

/// Where each life ends amid a base the deltas grow, until a close makes one.
#[test]
fn lives_that_always_end_amid_a_base_come_to_one() {
    let disk = SimulatedDisk::new();
    let clock = Amid::new(Arc::new(disk.clone()));
    let (db, base) = clock.database(CELLS, &clock.options());
    close_amid(&clock, &db);
    drop(db);
    let mut lives = 1;
    while clock.images().contains(&base) {
        assert!(lives < 8, "{:?}", clock.images());
        lives += 1;
        let db = Database::open_on(Arc::new(disk.clone()), clock.options()).unwrap();
        put_all(&db, CELLS / 2, lives);
        close_amid(&clock, &db);
    }
    assert!(lives > 2, "a close leaves the base to the next life while deltas are shorter");
    let db = Database::open_on(Arc::new(disk), clock.options()).unwrap();
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
}
