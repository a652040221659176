//! Opening goes back to the manifest before the newest where the newest, or what it names, is damaged.

use std::collections::BTreeSet;
use std::sync::Arc;

use underbelly::disk::{Calls, Fault, FaultKind};
use underbelly::{Batch, Database, FaultyDisk, Metadata, OpenError, Options, SimulatedDisk, Timestamp};
use underbelly_tests::{define, options, shown, transaction};

use super::mended::Once;

/// Transactions before the first checkpoint, between the two, and behind the second.
const PARTS: [u64; 3] = [3, 40, 43];

/// A database that was not closed, with two checkpoints, and the files that the second made.
fn database() -> (SimulatedDisk, Vec<String>) {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    define(&db).unwrap();
    let commit = |from: u64, to: u64| {
        for i in from..=to {
            db.commit(transaction(i, false).unwrap()).unwrap();
        }
    };
    commit(1, PARTS[0]);
    db.checkpoint().unwrap();
    commit(PARTS[0] + 1, PARTS[1]);
    let before: BTreeSet<String> = disk.files().into_iter().collect();
    db.checkpoint().unwrap();
    let made = disk.files().into_iter().filter(|name| !before.contains(name) && !name.starts_with("wal/"));
    let made = made.collect();
    commit(PARTS[1] + 1, PARTS[2]);
    (disk.crash(), made)
}

fn open(disk: &SimulatedDisk) -> Result<Database, OpenError> {
    Database::open_on(Arc::new(disk.clone()), options())
}

fn damage(disk: &SimulatedDisk, name: &str, how: impl Fn(&mut Vec<u8>)) {
    let mut bytes = disk.contents(name).unwrap();
    how(&mut bytes);
    disk.overwrite(name, bytes);
}

fn of_kind<'n>(names: &'n [String], kind: &str) -> &'n str {
    names.iter().find(|name| name.starts_with(kind)).unwrap()
}

/// Whatever of the newest checkpoint is damaged, opening shows the same, says what it passed over, and the next
/// checkpoint makes everything sound again.
#[test]
fn a_damaged_checkpoint_is_passed_over_for_the_one_before() {
    let (disk, made) = database();
    let expected = shown(&open(&disk.crash()).unwrap()).unwrap();
    for kind in ["MANIFEST-", "images/", "packs/", "segments/"] {
        assert!(made.iter().any(|name| name.starts_with(kind)), "{kind}: {made:?}");
    }
    for name in &made {
        let length = disk.contents(name).unwrap().len();
        type Damage<'d> = (&'d str, Box<dyn Fn(&mut Vec<u8>)>);
        let damages: [Damage<'_>; 4] = [
            ("cut", Box::new(move |bytes| bytes.truncate(length / 2))),
            ("emptied", Box::new(Vec::clear)),
            ("last byte flipped", Box::new(move |bytes| bytes[length - 1] ^= 1)),
            ("index flipped", Box::new(move |bytes| bytes[length - 70] ^= 1)),
        ];
        for (what, how) in damages {
            let what = format!("{name} {what}");
            let copy = disk.crash();
            damage(&copy, name, how);
            let db = open(&copy).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(shown(&db).unwrap(), expected, "{what}");
            let report = db.recovery_report();
            assert_eq!(report.rejected_manifests.len(), 1, "{what}: {report:?}");
            assert!(report.rejected_manifests[0].contains(name.as_str()), "{what}: {report:?}");
            assert!(report.replayed > PARTS[1] - PARTS[0], "{what}: {report:?}");
            assert_eq!(report.removed_files, 0, "{what}: what is damaged is kept for people");
            assert!(!db.verify(|_, _| ()).unwrap().damages.is_empty(), "{what}");
            let reader = Database::open_read_only_on(Arc::new(copy.clone())).unwrap();
            let damaged = reader.status().unwrap().damaged;
            assert!(damaged.len() == 1 && damaged[0].contains(name.as_str()), "{what}: {damaged:?}");
            // The next checkpoint follows the sound one, and two later nothing of the damage is left.
            for i in 1..=2 {
                db.commit(transaction(PARTS[2] + i, false).unwrap()).unwrap();
                db.checkpoint().unwrap();
            }
            assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new(), "{what}");
            let after = shown(&db).unwrap();
            let db = open(&copy.crash()).unwrap();
            assert_eq!(db.recovery_report().rejected_manifests, Vec::<String>::new(), "{what}");
            assert_eq!(shown(&db).unwrap(), after, "{what}");
        }
    }
}

/// The newest manifest's rot is told also where a crash follows at once, and the same is shown again.
#[test]
fn a_crash_after_a_fallback_falls_back_again() {
    let (disk, made) = database();
    let expected = shown(&open(&disk.crash()).unwrap()).unwrap();
    damage(&disk, of_kind(&made, "images/"), |bytes| bytes[10] ^= 1);
    for _ in 0..3 {
        let db = open(&disk).unwrap();
        assert_eq!(db.recovery_report().rejected_manifests.len(), 1);
        assert_eq!(shown(&db).unwrap(), expected);
    }
    // A checkpoint that is cut short at any call leaves one or the other.
    for step in 0.. {
        let copy = disk.crash();
        let db = open(&copy).unwrap();
        copy.fail_at(Some(copy.calls() + step));
        let done = db.checkpoint().is_ok();
        drop(db);
        let db = open(&copy.crash()).unwrap_or_else(|error| panic!("stopped at {step}: {error}"));
        assert_eq!(shown(&db).unwrap(), expected, "stopped at {step}");
        if done {
            break;
        }
    }
}

/// Files that only the log between the two checkpoints names are there for a fallback: large rows that the second
/// checkpoint merged, and a large blob that was replaced.
#[test]
fn a_fallback_finds_the_files_that_its_log_names() {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    define(&db).unwrap();
    db.commit(transaction(1, false).unwrap()).unwrap();
    db.checkpoint().unwrap();
    for i in 2..=11 {
        db.commit(transaction(i, true).unwrap()).unwrap();
    }
    let large = |disk: &SimulatedDisk| {
        disk.files().into_iter().filter(|name| name.starts_with("segments/bulk/")).count()
    };
    let before = large(&disk);
    assert!(before >= 10, "{:?}", disk.files());
    db.checkpoint().unwrap();
    drop(db);
    for reopened in [false, true] {
        if reopened {
            // Opening removes what nothing names; this must not be among it.
            drop(open(&disk).unwrap());
        }
        assert_eq!(large(&disk), before + 1, "merged, and kept for a fallback");
        let copy = disk.crash();
        let expected = shown(&open(&copy).unwrap()).unwrap();
        let newest = copy.files().into_iter().rfind(|name| name.starts_with("MANIFEST-")).unwrap();
        damage(&copy, &newest, |bytes| bytes[0] ^= 1);
        let db = open(&copy).unwrap();
        assert_eq!(db.recovery_report().rejected_manifests.len(), 1);
        assert_eq!(shown(&db).unwrap(), expected);
        assert!(!db.verify(|_, _| ()).unwrap().damages.iter().any(|damage| !damage.contains(&newest)));
    }
}

/// Where both checkpoints are damaged nothing is made up.
#[test]
fn two_damaged_checkpoints_are_refused() {
    let (disk, _) = database();
    let kinds =
        |kind: &str| disk.files().into_iter().filter(|name| name.starts_with(kind)).collect::<Vec<_>>();
    for kind in ["MANIFEST-", "images/"] {
        assert!(kinds(kind).len() >= 2);
        let copy = disk.crash();
        for name in kinds(kind) {
            damage(&copy, &name, |bytes| bytes.truncate(20));
        }
        let error = open(&copy).map(|_| ()).unwrap_err();
        assert!(matches!(error, OpenError::Storage(_) | OpenError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains(kind), "{error}");
    }
}

/// A log that does not reach back to the older manifest cannot stand in for the newer. It is told as long as nothing is
/// lost by it; then it is an error which names both.
#[test]
fn a_log_that_does_not_reach_back_is_refused() {
    let (disk, made) = database();
    let logs: Vec<String> = disk.files().into_iter().filter(|name| name.ends_with(".wal")).collect();
    assert!(logs.len() >= 3, "{logs:?}");
    let damages =
        |disk: &SimulatedDisk| Database::verify_on(Arc::new(disk.clone()), |_, _| ()).unwrap().damages;
    let told = |disk: &SimulatedDisk| open(disk).unwrap().recovery_report().log_damage.clone();
    assert_eq!((damages(&disk), told(&disk.crash())), (vec![], None));
    let whole = disk.crash();
    underbelly::Disk::remove(&disk, &logs[0]).unwrap();
    underbelly::Disk::sync_dir(&disk, "wal").unwrap();
    let expected = shown(&open(&disk.crash()).unwrap()).unwrap();
    let damaged = damages(&disk);
    assert_eq!(damaged.len(), 1, "{damaged:?}");
    for text in [&damaged[0], &told(&disk.crash()).unwrap()] {
        assert!(text.contains("wal/") && text.contains("falls back to MANIFEST-"), "{text}");
        assert!(text.contains("nothing is lost"), "{text}");
    }
    // Two checkpoints later nothing is missing any more.
    let mended = disk.crash();
    let db = open(&mended).unwrap();
    for i in 1..=2 {
        db.commit(transaction(PARTS[2] + i, false).unwrap()).unwrap();
        db.checkpoint().unwrap();
    }
    drop(db);
    assert_eq!((damages(&mended), told(&mended)), (vec![], None));
    // One that the newest manifest needs is told where it is missing, too.
    for name in &logs[1..] {
        let copy = whole.crash();
        underbelly::Disk::remove(&copy, name).unwrap();
        underbelly::Disk::sync_dir(&copy, "wal").unwrap();
        let damaged = damages(&copy);
        assert!(!damaged.is_empty(), "{name}");
    }
    let manifest = of_kind(&made, "MANIFEST-");
    let sound = disk.contents(manifest).unwrap();
    damage(&disk, manifest, |bytes| bytes[80] ^= 1);
    for _ in 0..2 {
        let error = open(&disk).map(|_| ()).unwrap_err();
        assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains(manifest) && error.to_string().contains("log"), "{error}");
    }
    // Putting the manifest back from a backup is the cure.
    disk.overwrite(manifest, sound);
    assert_eq!(shown(&open(&disk).unwrap()).unwrap(), expected);
}

/// The newest manifest says how far the log was durable, also where what it names is damaged.
#[test]
fn a_fallback_does_not_hide_the_loss_of_the_logs_end() {
    let (whole, made) = database();
    // Of a manifest that cannot be read itself the segments say it.
    for kind in ["images/", "MANIFEST-"] {
        let disk = whole.crash();
        damage(&disk, of_kind(&made, kind), |bytes| bytes.clear());
        let logs: Vec<String> = disk.files().into_iter().filter(|name| name.ends_with(".wal")).collect();
        for name in &logs[1..] {
            underbelly::Disk::remove(&disk, name).unwrap();
        }
        underbelly::Disk::sync_dir(&disk, "wal").unwrap();
        // Where nothing else tells how far the log went, either.
        let silent = disk.crash();
        underbelly::Disk::remove(&silent, "SHARED").unwrap();
        underbelly::Disk::sync_dir(&silent, "").unwrap();
        for disk in [&disk, &silent] {
            let error = open(disk).map(|_| ()).unwrap_err();
            assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
            assert!(error.to_string().contains("was durable"), "{error}");
            let error = Database::open_read_only_on(Arc::new(disk.crash())).map(|_| ()).unwrap_err();
            assert!(error.to_string().contains(kind), "{error}");
        }
    }
}

/// A reader goes on from the newest manifest without a segment where the log does not lead from the one before to it.
#[test]
fn a_reader_that_cannot_fall_back_goes_on_without_a_segment() {
    let (disk, made) = database();
    let newest = Database::open_read_only_on(Arc::new(disk.crash())).unwrap();
    let segment = of_kind(&made, "segments/");
    let series = segment.split('/').nth(1).unwrap();
    assert!(newest.snapshot().series(series).unwrap().scan().collect().is_ok());
    let logs: Vec<String> = disk.files().into_iter().filter(|name| name.ends_with(".wal")).collect();
    damage(&disk, &logs[0], |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle..middle + 4096].iter_mut().for_each(|byte| *byte ^= 1);
    });
    assert_eq!(Database::open_read_only_on(Arc::new(disk.crash())).unwrap().seq(), newest.seq());
    damage(&disk, segment, |bytes| bytes.clear());
    let reader = Database::open_read_only_on(Arc::new(disk)).unwrap();
    assert_eq!(reader.seq(), newest.seq());
    let damaged = reader.status().unwrap().damaged;
    assert!(damaged.len() == 1 && damaged[0].contains(segment), "{damaged:?}");
    assert!(reader.snapshot().series(series).unwrap().scan().collect().is_err());
}

/// Files and log of two manifests are kept, and no more.
#[test]
fn the_files_of_two_manifests_are_kept_and_no_more() {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    define(&db).unwrap();
    let mut most = 0;
    for i in 1..=120 {
        db.commit(transaction(i, false).unwrap()).unwrap();
        if i % 6 == 0 {
            db.checkpoint().unwrap();
            let count = |kind: &str| disk.files().iter().filter(|name| name.starts_with(kind)).count();
            assert_eq!(count("MANIFEST-"), 2);
            assert!(count("wal/0") <= 4, "{:?}", disk.files());
            assert!(count("images/") <= 10, "{:?}", disk.files());
            most = most.max(disk.files().len());
        }
    }
    assert!(most < 60, "{most} files");
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
}

/// Contents that a checkpoint packed and whose transaction the log refused stand in the newest checkpoint's pack, and are nobody's.
/// Put again they are in the log: an opening that falls back reads no more than that.
#[test]
fn what_nothing_named_is_there_after_a_fallback_too() {
    let model = || Metadata::new("m").with("timestamp", Timestamp(1));
    let put = move |db: &Database| {
        let mut batch = Batch::new();
        batch.put_model(model(), vec![7; 3_000]);
        db.commit(batch)
    };
    let is_packed = |disk: &SimulatedDisk| {
        let packs = disk.files().into_iter().filter(|name| name.starts_with("packs/"));
        packs.filter_map(|name| disk.contents(&name)).any(|pack| pack.windows(64).any(|w| w == [7; 64]))
    };
    let mut packed = 0;
    for moment in 0..40 {
        let clock = Arc::new(Once::default());
        let options = Options { workers: 0, clock: clock.clone(), ..options() };
        let disk = FaultyDisk::new(SimulatedDisk::new());
        let db = Arc::new(Database::create_on(Arc::new(disk.clone()), options.clone()).unwrap());
        define(&db).unwrap();
        db.commit(transaction(1, false).unwrap()).unwrap();
        let (other, failing) = (db.clone(), disk.clone());
        clock.at(moment, move || {
            let fault = Fault { calls: Calls::Changing, after: 0, kind: FaultKind::Io, sticky: false };
            failing.order(Some(fault));
            assert!(put(&other).is_err());
            failing.order(None);
        });
        let made = db.checkpoint();
        // It holds a handle.
        clock.at(i64::MAX, || ());
        drop(db);
        if made.is_err() {
            continue;
        }
        let disk = disk.inner().crash();
        let db = Database::open_on(Arc::new(disk.clone()), options.clone()).unwrap();
        let is_nobodys = db.snapshot().model(&model()).unwrap().is_none();
        packed += u64::from(is_nobodys && is_packed(&disk));
        put(&db).unwrap();
        let newest = disk.files().into_iter().rfind(|name| name.starts_with("MANIFEST-")).unwrap();
        drop(db);
        let disk = disk.crash();
        damage(&disk, &newest, |bytes| bytes[70] ^= 1);
        let db = Database::open_on(Arc::new(disk), options).unwrap();
        assert_eq!(db.recovery_report().rejected_manifests.len(), 1, "moment {moment}");
        let found = db.snapshot().model(&model()).unwrap().unwrap();
        assert_eq!(found.blob().unwrap().to_vec(), vec![7; 3_000], "moment {moment}");
    }
    assert!(packed > 0, "no checkpoint packed what was lost");
}
