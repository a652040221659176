//! Readers and backups on disks of one's own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;
use underbelly::disk::Act;
use underbelly::{BackupOptions, CopyError, Database, FaultyDisk, OpenError, Options, SimulatedDisk, View};
use underbelly_tests::{define, options, shown, transaction};

fn without_threads() -> Options {
    Options { workers: 0, ..options() }
}

fn filled(disk: &SimulatedDisk) -> Database {
    let db = Database::create_on(Arc::new(disk.clone()), without_threads()).unwrap();
    define(&db).unwrap();
    for i in 1..=9 {
        db.commit(transaction(i, i % 4 == 0).unwrap()).unwrap();
        if i == 5 {
            db.checkpoint().unwrap();
        }
    }
    db
}

/// With and without threads of its own a reader shows the same, beside a writer and when it goes on.
#[test]
fn a_reader_shows_the_same_with_and_without_threads() {
    let disk = SimulatedDisk::new();
    let db = filled(&disk);
    let open = |threads| Database::open_read_only_with(Arc::new(disk.clone()), threads).unwrap();
    let mut readers = [open(0), open(1), open(3)];
    for i in 10..13 {
        let expected = shown(&db).unwrap();
        readers.iter().for_each(|reader| assert_eq!(shown(reader).unwrap(), expected));
        db.commit(transaction(i, i == 11).unwrap()).unwrap();
        db.checkpoint().unwrap();
        readers.iter_mut().for_each(|reader| assert_eq!(reader.refresh().unwrap(), db.snapshot().seq()));
    }
}

/// A reader that is to have no threads reads each file on the thread that opens or refreshes it; another does not.
#[test]
fn a_reader_without_threads_reads_on_the_callers() {
    let disk = SimulatedDisk::new();
    let db = filled(&disk);
    let caller = std::thread::current().id();
    let reads_elsewhere = |threads| {
        let watched = FaultyDisk::new(disk.clone());
        let elsewhere = Arc::new(AtomicBool::new(false));
        let seen = elsewhere.clone();
        watched.watch(move |_| {
            seen.fetch_or(std::thread::current().id() != caller, Ordering::Relaxed);
            Ok(())
        });
        let mut reader = Database::open_read_only_with(Arc::new(watched), threads).unwrap();
        shown(&reader).unwrap();
        db.commit(transaction(20 + threads as u64, true).unwrap()).unwrap();
        db.checkpoint().unwrap();
        reader.refresh().unwrap();
        elsewhere.load(Ordering::Relaxed)
    };
    db.checkpoint().unwrap();
    assert_eq!([0, 2].map(reads_elsewhere), [false, true]);
}

/// A backup of a database and of a reader, onto a disk in memory that loses its power: it is durable, opens and is equal.
#[test]
fn a_backup_on_another_disk_is_durable_and_opens() {
    let disk = SimulatedDisk::new();
    let db = filled(&disk);
    let reader = Database::open_read_only_on(Arc::new(disk.clone())).unwrap();
    let expected = shown(&db).unwrap();
    let views: [&View; 2] = [&db, &reader];
    for view in views {
        let dest = SimulatedDisk::new();
        let report = view.backup_on(Arc::new(dest.clone()), |_, _| ()).unwrap();
        assert_eq!((report.seq, report.linked), (db.snapshot().seq(), 0));
        let copy = Database::open_on(Arc::new(dest.crash()), without_threads()).unwrap();
        assert_eq!(shown(&copy).unwrap(), expected);
        let again = view.backup_on(Arc::new(dest.clone()), |_, _| ()).map(|_| ());
        assert!(matches!(again, Err(CopyError::NotEmpty { .. })), "{again:?}");
        assert_eq!(shown(&Database::open_read_only_on(Arc::new(dest)).unwrap()).unwrap(), expected);
    }
}

/// Of copies that begin at once into one folder one is made, or none, and no other takes it away.
#[test]
fn copies_that_begin_at_once_leave_each_other_alone() {
    let db = filled(&SimulatedDisk::new());
    let expected = shown(&db).unwrap();
    let mut made = 0;
    for _ in 0..30 {
        let dest = TempDir::new().unwrap();
        let back_up = || db.backup(dest.path(), BackupOptions::default(), |_, _| ());
        let both = std::thread::scope(|threads| {
            let other = threads.spawn(back_up);
            [back_up(), other.join().unwrap()]
        });
        let whole = both.iter().filter(|done| done.is_ok()).count();
        for refused in both.into_iter().filter_map(Result::err) {
            let is_told = matches!(refused, CopyError::Unfinished { .. } | CopyError::NotEmpty { .. });
            assert!(is_told, "{refused}");
        }
        assert_eq!(whole, 1);
        assert_eq!(shown(&Database::open_read_only(dest.path()).unwrap()).unwrap(), expected);
        made += whole;
    }
    assert_eq!(made, 30);
}

/// A database that somebody makes in the folder meanwhile is not taken for the copy, and what others put there is not taken away.
#[test]
fn a_copy_takes_away_nothing_that_is_not_its_own() {
    let db = filled(&SimulatedDisk::new());
    // Between the look and the mark.
    let memory = SimulatedDisk::new();
    let dest = FaultyDisk::new(memory.clone());
    let is_made = AtomicBool::new(false);
    let other = memory.clone();
    dest.watch(move |call| {
        if call.name == "UNFINISHED" && !is_made.swap(true, Ordering::Relaxed) {
            drop(filled(&other));
        }
        Ok(())
    });
    let refused = db.backup_on(Arc::new(dest), |_, _| ()).unwrap_err();
    assert!(matches!(refused, CopyError::NotEmpty { .. }), "{refused}");
    let kept = Database::open_on(Arc::new(memory), without_threads()).unwrap();
    assert_eq!(shown(&kept).unwrap(), shown(&db).unwrap());

    // While it goes on, and fails.
    let dest = TempDir::new().unwrap();
    let path = dest.path().to_path_buf();
    let failed = db.backup(&path, BackupOptions { copy: true }, |done, _| {
        if done == 0 || !path.join("notes.txt").exists() {
            std::fs::write(path.join("notes.txt"), "mine").unwrap();
            std::fs::create_dir_all(path.join("photos")).unwrap();
            std::fs::write(path.join("photos/a"), "mine").unwrap();
            let packs = std::fs::read_dir(path.join("packs")).unwrap();
            packs.for_each(|pack| std::fs::remove_file(pack.unwrap().path()).unwrap());
        }
    });
    assert!(matches!(failed, Err(CopyError::Damaged { .. })), "{failed:?}");
    let mut left: Vec<_> =
        std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["notes.txt", "photos"]);
    assert_eq!(std::fs::read(path.join("photos/a")).unwrap(), b"mine");
}

/// Whichever file of the copy cannot be written, there is no database afterwards, and the error names it.
#[test]
fn a_backup_on_a_disk_that_fails_leaves_no_database() {
    let disk = SimulatedDisk::new();
    let db = filled(&disk);
    for place in ["segments/", "packs/", "chunks/", "images/", "wal/", "MANIFEST-"] {
        let memory = SimulatedDisk::new();
        let dest = FaultyDisk::new(memory.clone());
        dest.watch(move |call| match call.act == Act::Write && call.name.starts_with(place) {
            true => Err(io::Error::from_raw_os_error(5)),
            false => Ok(()),
        });
        let error = db.backup_on(Arc::new(dest), |_, _| ()).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(place), "{place}: {error}");
        assert_eq!(memory.files(), Vec::<String>::new(), "{place}: {error}");
        assert!(Database::open_read_only_on(Arc::new(memory)).is_err());
    }
}

/// Wherever a backup is cut short by a power cut, what is there is told as what it is, or is whole.
#[test]
fn a_backup_that_is_cut_short_says_so() {
    let disk = SimulatedDisk::new();
    let db = filled(&disk);
    let expected = shown(&db).unwrap();
    let (mut unfinished, mut whole) = (0, 0);
    for call in 0.. {
        let dest = SimulatedDisk::new();
        dest.fail_at(Some(call));
        let made = db.backup_on(Arc::new(dest.clone()), |_, _| ()).is_ok();
        for left in [dest.crash(), dest.crash_keeping_all(), dest.crash_with(call)] {
            match Database::open_read_only_with(Arc::new(left.clone()), 0) {
                Ok(copy) => {
                    assert_eq!(shown(&copy).unwrap(), expected, "cut short at call {call}");
                    whole += 1;
                    assert!(!left.files().contains(&"UNFINISHED".to_string()), "call {call}");
                }
                Err(OpenError::NotFound { .. }) => {
                    let files: Vec<_> = left.files();
                    assert!(files.is_empty() && !made, "cut short at call {call}: {files:?}");
                }
                Err(OpenError::Unfinished { .. }) => {
                    assert!(!made, "call {call}");
                    unfinished += 1;
                    let again = db.backup_on(Arc::new(left.clone()), |_, _| ()).map(|_| ());
                    assert!(matches!(again, Err(CopyError::Unfinished { .. })), "{again:?}");
                    let opened = Database::open_on(Arc::new(left.clone()), without_threads()).map(|_| ());
                    assert!(matches!(opened, Err(OpenError::Unfinished { .. })), "{opened:?}");
                    // What it lacks nobody could list.
                    let saved = TempDir::new().unwrap();
                    let repaired = Database::repair_on(Arc::new(left), saved.path(), |_, _| ()).map(|_| ());
                    let is_refused = matches!(repaired, Err(CopyError::Open(OpenError::Unfinished { .. })));
                    assert!(is_refused, "{repaired:?}");
                }
                Err(error) => panic!("cut short at call {call}: {error}"),
            }
        }
        if made {
            break;
        }
    }
    assert!(unfinished > 20 && whole >= 3, "{unfinished} {whole}");
}

/// A folder of the database is refused as a place for a copy, and stays, be it empty.
#[test]
fn a_folder_inside_the_database_is_refused_and_stays() {
    let dir = TempDir::new().unwrap();
    let db = Database::create_with(dir.path(), without_threads()).unwrap();
    let mine = dir.path().join("mine");
    std::fs::create_dir(&mine).unwrap();
    for (dest, is_there) in [(mine, true), (dir.path().join("new"), false)] {
        let refused = db.backup(&dest, BackupOptions::default(), |_, _| ()).map(|_| ());
        assert!(matches!(refused, Err(CopyError::Inside { .. })), "{refused:?}");
        assert_eq!(dest.exists(), is_there);
    }
}

/// A backup that its original overtook begins anew; where the copy cannot be emptied for that, nothing is left of it.
#[test]
fn a_backup_that_cannot_begin_anew_leaves_nothing() {
    let disk = SimulatedDisk::new();
    let db = filled(&disk);
    let (source, dest) = (FaultyDisk::new(disk), FaultyDisk::new(SimulatedDisk::new()));
    let reader = Database::open_read_only_with(Arc::new(source.clone()), 0).unwrap();
    let (is_gone, is_kept) = (AtomicBool::new(false), AtomicBool::new(false));
    source.watch(move |call| {
        let is_of_image = call.act == Act::Open && call.name.starts_with("images/");
        match is_of_image && !is_gone.swap(true, Ordering::Relaxed) {
            true => {
                // As where checkpoints have replaced the manifest.
                db.checkpoint().unwrap();
                Err(io::ErrorKind::NotFound.into())
            }
            false => Ok(()),
        }
    });
    dest.watch(move |call| match call.act == Act::Remove && !is_kept.swap(true, Ordering::Relaxed) {
        true => Err(io::Error::other("a test fails it")),
        false => Ok(()),
    });
    let refused = reader.backup_on(Arc::new(dest.clone()), |_, _| ()).unwrap_err();
    assert!(refused.to_string().contains("a test fails it"), "{refused}");
    assert_eq!(dest.inner().files(), Vec::<String>::new());
}

/// Where the copy can be emptied, the second attempt is whole, and shows what the original shows.
#[test]
fn a_backup_that_was_overtaken_begins_anew_and_is_whole() {
    let disk = SimulatedDisk::new();
    let db = filled(&disk);
    let (source, dest) = (FaultyDisk::new(disk.clone()), FaultyDisk::new(SimulatedDisk::new()));
    let reader = Database::open_read_only_with(Arc::new(source.clone()), 0).unwrap();
    let (is_gone, writer) = (AtomicBool::new(false), db.clone());
    source.watch(move |call| {
        let is_of_image = call.act == Act::Open && call.name.starts_with("images/");
        match is_of_image && !is_gone.swap(true, Ordering::Relaxed) {
            true => {
                writer.commit(transaction(90, false).unwrap()).unwrap();
                writer.checkpoint().unwrap();
                Err(io::ErrorKind::NotFound.into())
            }
            false => Ok(()),
        }
    });
    let removed = Arc::new(AtomicBool::new(false));
    let seen = removed.clone();
    dest.watch(move |call| {
        seen.fetch_or(call.act == Act::Remove, Ordering::Relaxed);
        Ok(())
    });
    let report = reader.backup_on(Arc::new(dest.clone()), |_, _| ()).unwrap();
    assert!(removed.load(Ordering::Relaxed), "what the first attempt made is removed");
    assert_eq!(report.seq, db.durable_seq(), "the second copies what was committed meanwhile, too");
    let copy = Database::open_on(Arc::new(dest.inner().crash()), options()).unwrap();
    assert_eq!(shown(&copy).unwrap(), shown(&db).unwrap());
    assert_eq!(copy.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
}
