//! Handles on variables: what they show, when, and to whom.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use underbelly::{
    Batch, CommitError, Database, Durability, ManualClock, Options, ReadError, Reader, Scope, SharedVar,
    SimulatedDisk, Timestamp, Var, VariableType,
};
use underbelly_tests::{in_memory, options};

const LONG: Duration = Duration::from_secs(60);

fn global<T: underbelly::VariableKind>(db: &Database, name: &str) -> Var<T> {
    db.var(&Scope::Global, name).unwrap()
}

#[test]
fn handles_show_what_is_visible_whoever_set_it() {
    let (disk, db) = in_memory().unwrap();
    let mut batch = Batch::new();
    batch.set_variable(Scope::asset("IBM"), "lag", 0.5);
    db.commit(batch).unwrap();
    let lag = db.var::<f64>(&Scope::asset("IBM"), "lag").unwrap();
    let other = lag.clone();
    assert_eq!((lag.get(), global::<f64>(&db, "lag").get()), (Some(0.5), None));
    let commit = lag.set(0.25).unwrap();
    let reading = other.read().unwrap();
    assert_eq!((reading.value, reading.seq, reading.time), (0.25, commit.seq, commit.time));
    db.transact(|tx| -> Result<(), CommitError> {
        tx.set_variable(Scope::asset("IBM"), "lag", f64::NAN);
        assert_eq!(lag.get(), Some(0.25), "not before it is committed");
        Ok(())
    })
    .unwrap();
    assert!(lag.get().unwrap().is_nan());
    lag.remove().unwrap();
    assert_eq!((lag.get(), lag.read()), (None, None));
    // All kinds, also after a crash.
    global::<bool>(&db, "b").set(true).unwrap();
    global::<i64>(&db, "i").set(-3).unwrap();
    global::<[f64; 3]>(&db, "a").set([1.0, -0.0, f64::INFINITY]).unwrap();
    global::<Vec<u8>>(&db, "y").set(vec![1, 2, 3]).unwrap();
    let crashed = Database::open_on(Arc::new(disk.crash()), options()).unwrap();
    for db in [&db, &crashed] {
        assert_eq!(global::<bool>(db, "b").get(), Some(true));
        assert_eq!(global::<i64>(db, "i").get(), Some(-3));
        assert_eq!(global::<[f64; 3]>(db, "a").get(), Some([1.0, -0.0, f64::INFINITY]));
        assert_eq!(global::<Vec<u8>>(db, "y").get(), Some(vec![1, 2, 3]));
    }
}

#[test]
fn a_handle_has_one_type() {
    let (_, db) = in_memory().unwrap();
    let lag = global::<f64>(&db, "lag");
    lag.set(1.0).unwrap();
    match db.var::<i64>(&Scope::Global, "lag").map(drop) {
        Err(ReadError::VariableType { expected: VariableType::F64, found: VariableType::I64, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(db.var::<[f64; 2]>(&Scope::Global, "lag").is_err());
    assert!(matches!(db.var::<f64>(&Scope::Global, "").map(drop), Err(ReadError::Name { .. })));
    // Who holds on to a variable that became another sees none.
    lag.remove().unwrap();
    let count = global::<i64>(&db, "lag");
    count.set(7).unwrap();
    assert_eq!((lag.get(), count.get()), (None, Some(7)));
    assert!(matches!(lag.set(1.0), Err(CommitError::VariableType { .. })));
    let refused = global::<Vec<u8>>(&db, "y").set(vec![0; 5_000]);
    assert!(matches!(refused, Err(CommitError::Read(ReadError::VariableSize { found: 5_000, .. }))));
}

#[test]
fn compare_and_set_counts_every_step_once() {
    let (_, db) = in_memory().unwrap();
    let count = global::<i64>(&db, "count");
    assert!(!count.compare_and_set(Some(0), 1).unwrap());
    assert!(count.compare_and_set(None, 0).unwrap());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    while !count.get().is_some_and(|n| {
                        // A conflict is a step that somebody else made.
                        matches!(count.compare_and_set(Some(n), n + 1), Ok(true))
                    }) {}
                }
            });
        }
    });
    assert_eq!(count.get(), Some(100));
    let float = global::<f64>(&db, "float");
    float.set(-0.0).unwrap();
    assert!(!float.compare_and_set(Some(0.0), 1.0).unwrap());
    assert!(float.compare_and_set(Some(-0.0), f64::NAN).unwrap());
    assert!(float.compare_and_set(Some(f64::NAN), 2.0).unwrap());
}

/// Who follows gets the newest value, and every end is told.
#[test]
fn subscriptions_give_the_newest_value() {
    let (_, db) = in_memory().unwrap();
    let price = global::<f64>(&db, "price");
    let mut changes = price.subscribe();
    assert!(changes.next(Duration::ZERO).is_none());
    for n in 0..5 {
        price.set(f64::from(n)).unwrap();
    }
    assert_eq!(changes.next(LONG).unwrap().unwrap().value, 4.0);
    assert!(changes.next(Duration::ZERO).is_none());
    price.remove().unwrap();
    assert!(changes.next(LONG).unwrap().is_none());
    let (started, setter) = (Arc::new(AtomicBool::new(false)), price.clone());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !started.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            setter.clone().durability(Durability::Buffered).set(7.0).unwrap();
        });
        started.store(true, Ordering::SeqCst);
        assert_eq!(changes.next(LONG).unwrap().unwrap().value, 7.0);
    });
    let gauge = db.unlogged_var::<f64>(&Scope::Global, "gauge").unwrap();
    let engines_own = db.unlogged_var::<f64>(&Scope::Global, "_gauge").map(drop);
    assert!(matches!(engines_own, Err(ReadError::Name { .. })), "{engines_own:?}");
    let mut changes = gauge.subscribe();
    assert!(changes.next(Duration::ZERO).is_none());
    std::thread::scope(|scope| {
        scope.spawn(|| gauge.set(3.0).unwrap());
        assert_eq!(changes.next(LONG).unwrap().unwrap().value, 3.0);
    });
}

/// Whoever follows is told that nothing comes any more, and has the last value by then.
#[test]
fn who_follows_is_told_when_the_database_is_closed() {
    let (_, db) = in_memory().unwrap();
    let (price, gauge) = (global::<f64>(&db, "price"), db.unlogged_var(&Scope::Global, "gauge").unwrap());
    let (tells, told) = std::sync::mpsc::channel();
    for mut changes in [price.subscribe(), gauge.subscribe()] {
        let tells = tells.clone();
        std::thread::spawn(move || {
            let mut last = None;
            loop {
                match changes.next(60 * LONG) {
                    Some(reading) => last = reading.map(|reading| reading.value),
                    None if changes.is_over() => break,
                    None => assert!(!changes.is_over()),
                }
            }
            tells.send(last).unwrap();
        });
    }
    let changes = price.subscribe();
    price.set(1.0).unwrap();
    gauge.set(1.0).unwrap();
    assert!(!changes.is_over());
    db.close().unwrap();
    assert!(!changes.is_over(), "one value was not given");
    for _ in 0..2 {
        assert_eq!(told.recv_timeout(LONG), Ok(Some(1.0)));
    }
}

#[test]
fn history_is_a_series_in_the_same_transaction() {
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    let options = Options { clock: clock.clone(), ..options() };
    let db = Database::create_on(Arc::new(SimulatedDisk::new()), options).unwrap();
    let lag = db.var::<f64>(&Scope::episode("e1"), "lag").unwrap().with_history("lags");
    for n in 1..4 {
        clock.set(Timestamp(n));
        let head = db.head_seq();
        let commit = lag.set(n as f64).unwrap();
        let reading = lag.read().unwrap();
        assert_eq!((commit.seq, reading.seq, db.head_seq()), (head + 1, head + 1, head + 1));
        let rows = db.snapshot().series("lags").unwrap().scan().collect().unwrap();
        assert_eq!(rows.timestamps("timestamp").unwrap().last(), Some(&reading.time.0));
    }
    let head = db.head_seq();
    assert!(!lag.compare_and_set(Some(1.0), 9.0).unwrap());
    assert_eq!(db.head_seq(), head, "what failed leaves no row");
    assert!(lag.compare_and_set(Some(3.0), 5.0).unwrap());
    assert_eq!(db.head_seq(), head + 1);
    let failed = db.var::<i64>(&Scope::episode("e1"), "n").unwrap().with_history("lags").set(4);
    assert!(failed.is_ok(), "{failed:?}");
    let rows = db.snapshot().series("lags").unwrap().scan().collect().unwrap();
    let text = |name: &str, row| rows.value(name, row).unwrap().as_str().unwrap().to_string();
    let row = |row| (text("scope", row), text("name", row), rows.f64s("value").unwrap()[row]);
    let lags = [1.0, 2.0, 3.0, 5.0].map(|value| ("episode:e1".to_string(), "lag".to_string(), value));
    assert_eq!((0..4).map(row).collect::<Vec<_>>(), lags);
    assert_eq!((rows.rows(), row(4)), (5, ("episode:e1".to_string(), "n".to_string(), 4.0)));
    let array = db.var::<[f64; 2]>(&Scope::Global, "a").unwrap().with_history("arrays");
    array.set([1.0, 2.0]).unwrap();
    let rows = db.snapshot().series("arrays").unwrap().scan().collect().unwrap();
    assert_eq!((rows.f64s("value0").unwrap(), rows.f64s("value1").unwrap()), (&[1.0][..], &[2.0][..]));
}

/// Another process sees what is durable at once, without refreshing, whatever becomes of the writer.
#[test]
fn other_processes_see_variables_as_they_become_durable() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("db");
    let quiet = || Options { buffered_delay: None, seal_after: None, ..options() };
    let db = Database::create_with(&dir, quiet()).unwrap();
    let (old, new) = (global::<f64>(&db, "old"), global::<f64>(&db, "new"));
    old.set(1.0).unwrap();
    drop((old, new));
    drop(db);
    let db = Database::open_with(&dir, quiet()).unwrap();
    let reader = Database::open_read_only(&dir).unwrap();
    let shared = |name: &str| reader.var::<f64>(&Scope::Global, name).unwrap();
    let (mut seen_old, mut seen_new) = (shared("old"), shared("new"));
    assert_eq!((seen_old.get(), seen_new.get()), (Some(1.0), None), "nobody changed them since");
    let (old, new) = (global::<f64>(&db, "old"), global::<f64>(&db, "new"));
    let commit = new.set(2.0).unwrap();
    assert_eq!(seen_new.get(), Some(2.0));
    let reading = seen_new.read().unwrap();
    assert_eq!((reading.seq, reading.time), (commit.seq, commit.time));
    // What is visible here and not durable is not shown there.
    let buffered = old.clone().durability(Durability::Buffered).set(3.0).unwrap();
    assert_eq!((old.get(), seen_old.get()), (Some(3.0), Some(1.0)));
    db.wait_durable(buffered.seq).unwrap();
    assert_eq!(seen_old.get(), Some(3.0));
    old.remove().unwrap();
    assert_eq!(seen_old.get(), None);
    let array = global::<[f64; 40]>(&db, "array");
    let mut seen_array = reader.var::<[f64; 40]>(&Scope::Global, "array").unwrap();
    for n in 0..100 {
        array.set([f64::from(n); 40]).unwrap();
        assert_eq!(seen_array.get(), Some([f64::from(n); 40]));
    }
    let gauge = db.unlogged_var::<i64>(&Scope::asset("IBM"), "gauge").unwrap();
    let mut seen_gauge = reader.unlogged_var::<i64>(&Scope::asset("IBM"), "gauge").unwrap();
    assert_eq!(seen_gauge.get(), None);
    gauge.set(9).unwrap();
    assert_eq!((seen_gauge.get(), reader.unlogged_variables().len()), (Some(9), 1));
    let head = db.head_seq();
    gauge.set(10).unwrap();
    assert_eq!(db.head_seq(), head, "it is in no log");
    // The writer goes, and another comes.
    drop((old, array, gauge, db));
    assert_eq!((seen_new.get(), seen_gauge.get()), (Some(2.0), Some(10)));
    let new = global::<f64>(&Database::open_with(&dir, quiet()).unwrap(), "new");
    assert_eq!(new.get(), Some(2.0));
    new.set(5.0).unwrap_err();
    let db = Database::open_with(&dir, quiet()).unwrap();
    global::<f64>(&db, "new").set(6.0).unwrap();
    assert_eq!((seen_new.get(), seen_gauge.get()), (Some(6.0), None));
    // What a writer showed stays where the next one changes other variables.
    let old = global::<f64>(&db, "old");
    old.set(8.0).unwrap();
    assert_eq!(seen_old.get(), Some(8.0));
    drop((old, db));
    let db = Database::open_with(&dir, quiet()).unwrap();
    global::<f64>(&db, "other").set(1.0).unwrap();
    assert_eq!((seen_old.get(), seen_new.get()), (Some(8.0), Some(6.0)));
    // A removal is shown, too, of one that this writer never set.
    global::<f64>(&db, "old").remove().unwrap();
    assert_eq!(seen_old.get(), None);
}

/// A handle that was not read while writers came and went shows what the log holds, not what the first of them showed.
#[test]
fn a_handle_that_slept_through_a_writer_is_not_behind() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("db");
    let db = Database::create_with(&dir, options()).unwrap();
    global::<f64>(&db, "x").set(1.0).unwrap();
    global::<f64>(&db, "gone").set(1.0).unwrap();
    let reader = Database::open_read_only(&dir).unwrap();
    let shared = |name: &str| reader.var::<f64>(&Scope::Global, name).unwrap();
    // One looked before, one never did, and of one there is nothing yet.
    let (mut seen, mut unseen, mut later, mut gone) =
        (shared("x"), shared("x"), shared("later"), shared("gone"));
    assert_eq!((seen.get(), gone.get()), (Some(1.0), Some(1.0)));
    drop(db);
    let db = Database::open_with(&dir, options()).unwrap();
    let commit = global::<f64>(&db, "x").set(2.0).unwrap();
    global::<f64>(&db, "later").set(3.0).unwrap();
    global::<f64>(&db, "gone").remove().unwrap();
    drop(db);
    let db = Database::open_with(&dir, options()).unwrap();
    let check = |seen: &mut SharedVar<f64>, unseen: &mut SharedVar<f64>| {
        assert_eq!((seen.get(), unseen.get()), (Some(2.0), Some(2.0)));
        let reading = unseen.read().unwrap();
        assert_eq!((reading.seq, reading.time), (commit.seq, commit.time));
    };
    check(&mut seen, &mut unseen);
    assert_eq!((later.get(), gone.get()), (Some(3.0), None));
    global::<f64>(&db, "y").set(4.0).unwrap();
    check(&mut seen, &mut unseen);
    for name in ["x", "y", "later"] {
        global::<f64>(&db, name).remove().unwrap();
    }
    drop(db);
    let db = Database::open_with(&dir, options()).unwrap();
    assert_eq!((seen.get(), unseen.get(), later.get()), (None, None, None), "nothing is left");
    drop(db);
}

/// Where the process that writes can show nothing, handles of readers show what their reader does, and what an earlier writer showed
/// where that is newer.
#[test]
fn handles_of_readers_are_as_new_as_their_reader_where_the_writer_shows_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for shown_before in [false, true] {
        let dir = dir.path().join(format!("db-{shown_before}"));
        let db = Database::create_with(&dir, options()).unwrap();
        let behind = Database::open_read_only(&dir).unwrap();
        let mut slept = behind.var::<f64>(&Scope::Global, "x").unwrap();
        let set = |db: &Database, name: &str, value: f64| global::<f64>(db, name).set(value).unwrap().seq;
        if shown_before {
            set(&db, "x", 1.0);
            set(&db, "gone", 1.0);
        }
        let mut reader = Database::open_read_only(&dir).unwrap();
        let shared = |name: &str| reader.var::<f64>(&Scope::Global, name).unwrap();
        let (mut x, mut gone, mut new) = (shared("x"), shared("gone"), shared("new"));
        if shown_before {
            assert_eq!((slept.get(), x.get(), gone.get()), (Some(1.0), Some(1.0), Some(1.0)));
            set(&db, "x", 2.0);
        }
        drop(db);
        let shown = shown_before.then_some(2.0);
        assert_eq!((slept.get(), x.get()), (shown, shown));
        // What was shown is over, and no other file can be made: a folder is in its place.
        let file = dir.join("VARIABLES");
        if shown_before {
            let page = std::fs::File::options().write(true).open(&file).unwrap();
            page.write_all_at(&2u64.to_le_bytes(), 40).unwrap();
            std::fs::remove_file(&file).unwrap();
        }
        std::fs::create_dir(&file).unwrap();
        let db = Database::open_with(&dir, options()).unwrap();
        let commit = set(&db, "x", 3.0);
        set(&db, "new", 4.0);
        global::<f64>(&db, "gone").remove().unwrap();
        assert!(db.status().trouble.is_some_and(|trouble| trouble.contains("VARIABLES")));
        assert_eq!((slept.get(), x.get()), (shown, shown), "before a refresh");
        reader.refresh().unwrap();
        assert_eq!((x.get(), gone.get(), new.get()), (Some(3.0), None, Some(4.0)));
        assert_eq!(x.read().map(|reading| (reading.value, reading.seq)), Some((3.0, commit)));
        assert_eq!(slept.get(), shown, "its reader was not refreshed");
        // Also where the reader began anew with another manifest.
        set(&db, "x", 5.0);
        for _ in 0..4 {
            set(&db, "other", 1.0);
            db.checkpoint().unwrap();
        }
        reader.refresh().unwrap();
        assert_eq!((x.get(), gone.get()), (Some(5.0), None));
        drop(db);
        // The next writer can.
        std::fs::remove_dir(&file).unwrap();
        let db = Database::open_with(&dir, options()).unwrap();
        set(&db, "x", 6.0);
        assert_eq!((x.get(), gone.get(), new.get(), slept.get()), (Some(6.0), None, Some(4.0), Some(6.0)));
    }
}

/// What has no room in a full page set is what the reader shows, whatever stood there before; what has a place goes on.
#[test]
fn who_finds_no_room_is_shown_what_its_reader_shows() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("db");
    let db = Database::create_with(&dir, options()).unwrap();
    let set = |name: &str, value: &[u8]| global::<Vec<u8>>(&db, name).set(value.to_vec()).unwrap().seq;
    for name in ["grows", "stays", "goes"] {
        set(name, &[1; 8]);
    }
    let mut reader = Database::open_read_only(&dir).unwrap();
    let shared = |reader: &Reader, name: &str| reader.var::<Vec<u8>>(&Scope::Global, name).unwrap();
    let [mut grows, mut stays, mut goes, mut new] =
        ["grows", "stays", "goes", "new"].map(|name| shared(&reader, name));
    let mut check = |expected: [Option<&[u8]>; 4], reader: &Reader| {
        let found = [&mut grows, &mut stays, &mut goes, &mut new].map(|handle| handle.get());
        assert_eq!(found.each_ref().map(Option::as_deref), expected);
        let read = [&mut grows, &mut stays, &mut goes, &mut new].map(|handle| handle.read());
        assert_eq!(read.map(|reading| reading.map(|reading| reading.value)), found);
        // A handle that is made now says the same.
        assert_eq!(["grows", "stays", "goes", "new"].map(|name| shared(reader, name).get()), found);
    };
    let one: Option<&[u8]> = Some(&[1; 8]);
    check([one, one, one, None], &reader);
    // As if others took all that is left: no entry has room any more.
    let page = std::fs::File::options().write(true).open(dir.join("VARIABLES")).unwrap();
    page.write_all_at(&(16u64 << 20).to_le_bytes(), 48).unwrap();
    set("stays", &[2; 8]);
    set("grows", &[2; 900]);
    set("goes", &[2; 900]);
    set("new", &[2; 8]);
    assert!(db.status().trouble.is_some_and(|trouble| trouble.contains("no room")));
    check([one, Some(&[2; 8]), one, None], &reader);
    reader.refresh().unwrap();
    check([Some(&[2; 900]), Some(&[2; 8]), Some(&[2; 900]), Some(&[2; 8])], &reader);
    let last = set("grows", &[3; 900]);
    set("stays", &[3; 8]);
    set("new", &[3; 8]);
    global::<Vec<u8>>(&db, "goes").remove().unwrap();
    check([Some(&[2; 900]), Some(&[3; 8]), None, Some(&[2; 8])], &reader);
    reader.refresh().unwrap();
    check([Some(&[3; 900]), Some(&[3; 8]), None, Some(&[3; 8])], &reader);
    assert_eq!(shared(&reader, "grows").read().map(|reading| reading.seq), Some(last));
    // It has room in its old place again.
    set("grows", &[4; 8]);
    global::<Vec<u8>>(&db, "new").remove().unwrap();
    check([Some(&[4; 8]), Some(&[3; 8]), None, Some(&[3; 8])], &reader);
    reader.refresh().unwrap();
    check([Some(&[4; 8]), Some(&[3; 8]), None, None], &reader);
}

/// Handles of a reader share one mapping of what the writer shows.
#[test]
fn many_handles_open_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("db");
    let db = Database::create_with(&dir, options()).unwrap();
    for n in 0..200i64 {
        let mut batch = Batch::new();
        batch.set_variable(Scope::Global, &n.to_string(), n).durability(Durability::Buffered);
        db.commit(batch).unwrap();
    }
    db.wait_durable(db.head_seq()).unwrap();
    let reader = Database::open_read_only(&dir).unwrap();
    let mut handles: Vec<SharedVar<i64>> =
        (0..200).map(|n| reader.var(&Scope::Global, &n.to_string()).unwrap()).collect();
    for (handle, n) in handles.iter_mut().zip(0i64..) {
        assert_eq!(handle.get(), Some(n));
    }
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let place = dir.canonicalize().unwrap().join("VARIABLES");
    let maps = maps.lines().filter(|line| line.ends_with(place.to_str().unwrap())).count();
    assert!(maps <= 2, "the writer's and the reader's, and not {maps}");
}

/// Two types of one name would be two values, of which others see one.
#[test]
fn a_variable_of_no_log_has_one_type() {
    let (_, db) = in_memory().unwrap();
    let gauge = db.unlogged_var::<f64>(&Scope::Global, "gauge").unwrap();
    gauge.set(1.0).unwrap();
    match db.unlogged_var::<i64>(&Scope::Global, "gauge").map(drop) {
        Err(ReadError::VariableType { expected: VariableType::F64, found: VariableType::I64, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(db.unlogged_var::<f64>(&Scope::Global, "gauge").unwrap().get(), Some(1.0));
    // Monitors keep their rows all the same.
    db.unlogged_var::<i64>(&Scope::Global, "training/loss").unwrap().set(1).unwrap();
    let mut monitor = db.monitor("training").unwrap();
    monitor.record("loss", 1, 0.5);
    monitor.flush().unwrap();
    assert_eq!(db.snapshot().series("training").unwrap().count().unwrap(), 1);
}

/// Readers beside a writer see whole values, in the order in which they were set.
#[test]
fn no_reader_sees_a_torn_or_an_older_value() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("db");
    let db = Database::create_with(&dir, options()).unwrap();
    let (array, over) = (global::<[f64; 20]>(&db, "a"), AtomicBool::new(false));
    array.set([0.0; 20]).unwrap();
    let reader = Database::open_read_only(&dir).unwrap();
    std::thread::scope(|scope| {
        let check = |mut read: Box<dyn FnMut() -> [f64; 20] + Send>| {
            let over = &over;
            scope.spawn(move || {
                let mut last = 0.0;
                while !over.load(Ordering::Relaxed) {
                    let values = read();
                    assert!(
                        values.iter().all(|value| *value == values[0]) && values[0] >= last,
                        "{values:?}"
                    );
                    last = values[0];
                }
            });
        };
        let here = array.clone();
        check(Box::new(move || here.get().unwrap()));
        let mut there = reader.var::<[f64; 20]>(&Scope::Global, "a").unwrap();
        check(Box::new(move || there.get().unwrap()));
        let buffered = array.clone().durability(Durability::Buffered);
        for n in 1..3_000 {
            buffered.set([f64::from(n); 20]).unwrap();
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(array.read().unwrap().value[0], 2_999.0);
}

/// One variable that no board can hold hides no other from other processes.
#[test]
fn a_variable_that_is_too_long_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::create_with(dir.path().join("db"), options()).unwrap();
    match db.unlogged_var::<[f64; 513]>(&Scope::Global, "weights").map(drop) {
        Err(ReadError::VariableSize { found: 4_104, limit: 4_096, .. }) => {}
        other => panic!("{other:?}"),
    }
    db.unlogged_var::<[f64; 512]>(&Scope::Global, "weights").unwrap().set([1.0; 512]).unwrap();
    global::<f64>(&db, "later").set(2.0).unwrap();
    let reader = Database::open_read_only(dir.path().join("db")).unwrap();
    assert_eq!(reader.unlogged_var::<[f64; 512]>(&Scope::Global, "weights").unwrap().get(), Some([1.0; 512]));
    assert_eq!(reader.var::<f64>(&Scope::Global, "later").unwrap().get(), Some(2.0));
}
