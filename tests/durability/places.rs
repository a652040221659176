//! The disk has no space, or the quota is used up, for one kind of file at a time.

use std::io;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use underbelly::disk::Act;
use underbelly::{CommitError, Database, Disk, FaultyDisk, OpenError, SimulatedDisk, StorageError, WalError};
use underbelly_tests::{define, options, shown, transaction, transactions_shown};

/// `ENOSPC` and `EDQUOT` on Linux.
const FULL: [i32; 2] = [28, 122];

/// What is refused.
const REFUSED: [Act; 4] = [Act::Create, Act::Write, Act::Sync, Act::Rename];

#[derive(Clone, Copy, Debug)]
struct Rule {
    /// How the names of the files begin.
    place: &'static str,
    act: Act,
    errno: i32,
}

/// A disk in memory that refuses some calls on some files, and counts how often it did.
#[derive(Clone)]
struct Narrow {
    disk: FaultyDisk<SimulatedDisk>,
    rule: Arc<Mutex<(Option<Rule>, u64)>>,
}

impl Narrow {
    fn new(disk: SimulatedDisk) -> Narrow {
        let narrow = Narrow { disk: FaultyDisk::new(disk), rule: Arc::default() };
        let rule = narrow.rule.clone();
        narrow.disk.watch(move |call| {
            let is_asked = match call.act {
                // What was there before has its space.
                Act::Write | Act::Sync => call.is_new,
                // A spare that is put to use keeps its space; its name in the folder is there already.
                Act::Rename => !call.to.ends_with(".wal"),
                _ => true,
            };
            let mut held = rule.lock().unwrap();
            match held.0.filter(|_| is_asked) {
                Some(rule) if rule.act == call.act && call.name.starts_with(rule.place) => {
                    held.1 += 1;
                    Err(io::Error::from_raw_os_error(rule.errno))
                }
                _ => Ok(()),
            }
        });
        narrow
    }

    fn set(&self, rule: Option<Rule>) {
        *self.rule.lock().unwrap() = (rule, 0);
    }

    fn refused(&self) -> u64 {
        self.rule.lock().unwrap().1
    }

    /// The disk in memory.
    fn memory(&self) -> &SimulatedDisk {
        self.disk.inner()
    }
}

fn large(i: u64) -> bool {
    i % 6 == 3
}

/// The file that an error says there is no space for.
fn full_file(error: &CommitError) -> Option<&str> {
    match error {
        CommitError::Storage(StorageError::DiskFull { file })
        | CommitError::Log(WalError::DiskFull { file, .. }) => Some(file),
        _ => None,
    }
}

/// Commits and checkpoints until some were refused, checking that each refusal is the right one and changes nothing.
/// Answers the transactions that were acknowledged.
fn go_on(db: &Database, disk: &Narrow, rule: Rule, mut acknowledged: u64) -> u64 {
    let mut told = 0;
    for step in 0..150 {
        let answer = match step % 5 {
            4 => db.checkpoint().map(|_| ()),
            _ => db.commit(transaction(acknowledged + 1, large(acknowledged + 1)).unwrap()).map(|_| {
                acknowledged += 1;
            }),
        };
        if let Err(error) = answer {
            let file = full_file(&error).unwrap_or_else(|| panic!("{rule:?}: {error:?}"));
            assert!(file.starts_with(rule.place), "{rule:?} names {file}");
            assert!(error.to_string().contains(file) && error.to_string().contains("space"), "{error}");
            assert_eq!(transactions_shown(&db.snapshot(), large).unwrap(), acknowledged, "{rule:?}");
            told += 1;
            if disk.refused() > 3 {
                break;
            }
        }
    }
    // Spares are prepared ahead in the background, and files that a checkpoint gives back may do instead.
    assert!(
        told > 0 || rule.place == "wal/spare-",
        "{rule:?}: {} calls were refused and nobody was told",
        disk.refused()
    );
    acknowledged
}

/// Wherever space runs out, the answer is `DiskFull` with the file, the handle stays healthy, what was acknowledged
/// is shown; once there is space the same handle goes on, and nothing is lost by a crash.
#[test]
fn no_space_for_any_kind_of_file_is_told_and_harmless() {
    let places = ["wal/spare-", "segments/", "packs/", "chunks/", "images/", "MANIFEST-"];
    for place in places {
        for act in REFUSED {
            for errno in FULL {
                let rule = Rule { place, act, errno };
                let disk = Narrow::new(SimulatedDisk::new());
                let db = Database::create_on(Arc::new(disk.disk.clone()), options()).unwrap();
                define(&db).unwrap();
                let mut acknowledged = 0;
                for i in 1..=3 {
                    db.commit(transaction(i, large(i)).unwrap()).unwrap();
                    acknowledged = i;
                }
                disk.set(Some(rule));
                acknowledged = go_on(&db, &disk, rule, acknowledged);
                assert!(disk.refused() > 0, "{rule:?}: nothing was refused");
                // Recycled files serve as spares, so that checkpoints may keep the log going without new space.
                disk.set(None);
                for _ in 0..4 {
                    acknowledged += 1;
                    db.commit(transaction(acknowledged, large(acknowledged)).unwrap())
                        .unwrap_or_else(|error| panic!("{rule:?}, with space again: {error}"));
                }
                db.checkpoint().unwrap_or_else(|error| panic!("{rule:?}, with space again: {error}"));
                db.commit(transaction(acknowledged + 1, large(acknowledged + 1)).unwrap()).unwrap();
                assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new(), "{rule:?}");
                let before = shown(&db).unwrap();
                drop(db);
                let db = Database::open_on(Arc::new(disk.memory().crash()), options()).unwrap();
                assert_eq!(shown(&db).unwrap(), before, "{rule:?}");
                assert_eq!(transactions_shown(&db.snapshot(), large).unwrap(), acknowledged + 1, "{rule:?}");
            }
        }
    }
}

/// Where there is no space for another log file a database opens all the same and goes on in the last one; its checkpoints
/// give files back, on which commits go on.
#[test]
fn a_database_opens_without_space_for_a_log_file_and_checkpoints_give_files_back() {
    let (torn, mut count) = torn(35);
    let disk = Narrow::new(torn);
    disk.set(Some(Rule { place: "wal/spare-", act: Act::Create, errno: FULL[0] }));
    let db = Database::open_on(Arc::new(disk.disk.clone()), options()).unwrap();
    assert!(disk.refused() > 0 && db.recovery_report().torn_tail.is_some());
    assert_eq!(transactions_shown(&db.snapshot(), |_| false).unwrap(), count);
    for _ in 0..40 {
        if let Err(error) = db.commit(transaction(count + 1, false).unwrap()) {
            assert!(error.to_string().contains("no space left in"), "{error}");
            db.checkpoint().unwrap();
            db.checkpoint().unwrap();
            db.commit(transaction(count + 1, false).unwrap()).unwrap();
        }
        count += 1;
    }
    assert!(db.status().log.file > 3, "{:?}", db.status().log);
    drop(db);
    let db = Database::open_on(Arc::new(disk.memory().crash()), options()).unwrap();
    assert_eq!(transactions_shown(&db.snapshot(), |_| false).unwrap(), count);
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
}

/// A database with a torn tail behind its last transaction, and without a log file ready for what comes, as one may be or
/// not be when the process dies.
fn torn(transactions: u64) -> (SimulatedDisk, u64) {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    define(&db).unwrap();
    for i in 1..=transactions {
        db.commit(transaction(i, false).unwrap()).unwrap();
    }
    let disk = disk.crash();
    drop(db);
    for name in disk.files().into_iter().filter(|name| name.starts_with("wal/spare-")) {
        disk.remove(&name).unwrap();
    }
    // Or the next crash brings a spare back that was ready in time.
    disk.sync_dir("wal").unwrap();
    let (name, bytes) = disk
        .files()
        .into_iter()
        .filter(|name| name.ends_with(".wal"))
        .map(|name| (name.clone(), disk.contents(&name).unwrap()))
        .next_back()
        .unwrap();
    let mut bytes = bytes;
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() / 4096 * 4096 + 4096;
    bytes[end..end + 100].fill(7);
    disk.overwrite(&name, bytes);
    (disk, transactions)
}

/// Opening after a crash where there is no space, neither for what was torn off nor for the log's next file, is
/// refused with the file's name or works; it changes nothing that another opening needs.
#[test]
fn no_space_at_open_is_told_and_harmless() {
    let (torn, count) = torn(4);
    let whole = Database::open_on(Arc::new(torn.crash()), options()).unwrap();
    assert!(whole.recovery_report().torn_tail.is_some());
    let expected = shown(&whole).unwrap();
    for place in ["lost/", "wal/spare-", ""] {
        for act in REFUSED {
            for errno in FULL {
                let rule = Rule { place, act, errno };
                let disk = Narrow::new(torn.crash());
                disk.set(Some(rule));
                match Database::open_on(Arc::new(disk.disk.clone()), options()) {
                    Ok(db) => {
                        assert_eq!(shown(&db).unwrap(), expected, "{rule:?}");
                        // A spare is made in the background, or never once the database is closed.
                        let patience = Instant::now() + Duration::from_secs(30);
                        while disk.refused() == 0 && Instant::now() < patience {
                            thread::sleep(Duration::from_millis(1));
                        }
                    }
                    Err(OpenError::Log(WalError::DiskFull { file, .. })) => {
                        assert!(file.starts_with(place), "{rule:?} names {file}");
                    }
                    Err(error) => panic!("{rule:?}: {error:?}"),
                }
                assert!(disk.refused() > 0, "{rule:?}: nothing was refused");
                disk.set(None);
                for disk in [disk.memory().clone(), disk.memory().crash()] {
                    let db = Database::open_on(Arc::new(disk), options()).unwrap();
                    assert_eq!(shown(&db).unwrap(), expected, "{rule:?}, with space again");
                    assert_eq!(transactions_shown(&db.snapshot(), |_| false).unwrap(), count);
                    db.commit(transaction(count + 1, false).unwrap()).unwrap();
                }
            }
        }
    }
}
