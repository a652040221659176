//! Damage is told to whoever reads, copies or repairs, and never taken for the end of the log.

use std::sync::Arc;

use underbelly::{BackupOptions, Database, Disk, RealDisk, SimulatedDisk};
use underbelly_tests::sample::lay_out;
use underbelly_tests::{define, options, shown, transaction};

/// A database that was killed: so many transactions are in its log alone.
fn killed(transactions: u64, large: u64) -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    define(&db).unwrap();
    for i in 1..=transactions {
        db.commit(transaction(i, i == large).unwrap()).unwrap();
    }
    disk.crash_keeping_all()
}

fn newest_log(disk: &SimulatedDisk) -> String {
    disk.files().into_iter().rfind(|name| name.starts_with("wal/") && name.ends_with(".wal")).unwrap()
}

/// The same files in a real folder.
fn laid_out(disk: &SimulatedDisk) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    lay_out(disk, dir.path()).unwrap();
    dir
}

/// Without the number that the writer published, as after the machine was started anew, readers and backups look at the
/// whole log as recovery does.
#[test]
fn damage_in_the_middle_of_the_log_is_no_end_for_readers_and_backups() {
    let disk = killed(6, 0);
    disk.remove("SHARED").unwrap();
    let log = newest_log(&disk);
    let mut bytes = disk.contents(&log).unwrap();
    // The third batch behind the header and the definition.
    bytes[4 * 4096 + 100] ^= 1;
    assert!(Database::open_read_only_on(Arc::new(disk.clone())).is_ok());
    disk.overwrite(&log, bytes);
    let refused = Database::open_read_only_on(Arc::new(disk.clone())).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains(&log), "{refused}");
    let opened = Database::open_on(Arc::new(disk.clone()), options()).map(|_| ()).unwrap_err().to_string();
    assert!(opened.contains(&log), "{opened}");
    // A reader that is attached already copies no less than there is.
    let dir = laid_out(&killed(6, 0));
    std::fs::remove_file(dir.path().join("SHARED")).unwrap();
    let reader = Database::open_read_only(dir.path()).unwrap();
    std::fs::write(dir.path().join(&log), disk.contents(&log).unwrap()).unwrap();
    let dest = tempfile::tempdir().unwrap();
    let copied = reader.backup(dest.path(), BackupOptions::default(), |_, _| ());
    let refused = copied.map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains(&log), "{refused}");
}

/// A log that ends before what its writer published as durable, on the same machine since, has lost it.
#[test]
fn an_end_that_is_gone_is_told_to_writers_and_listed_by_repair() {
    let disk = killed(6, 0);
    let log = newest_log(&disk);
    let mut bytes = disk.contents(&log).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end / 4096 * 4096 - 8192..].fill(0);
    disk.overwrite(&log, bytes);
    for _ in 0..2 {
        let opened = Database::open_on(Arc::new(disk.clone()), options());
        assert!(opened.map(|_| ()).unwrap_err().to_string().contains(&log));
    }
    let verified = Database::verify_on(Arc::new(disk.clone()), |_, _| ()).unwrap().damages;
    assert!(verified.len() == 1 && verified[0].contains(&log), "{verified:?}");
    let dir = laid_out(&disk);
    let dest = tempfile::tempdir().unwrap();
    let report = Database::repair(dir.path(), dest.path(), |_, _| ()).unwrap();
    assert_eq!(report.losses.len(), 1, "{:?}", report.losses);
    assert!(Database::open(dest.path()).is_ok());
}

/// A segment that no manifest names yet is verified too.
#[test]
fn verify_and_backup_read_files_that_only_the_log_names() {
    let disk = killed(3, 2);
    let dir = laid_out(&disk);
    let verified = || Database::verify_dir(dir.path(), |_, _| ()).unwrap().damages;
    assert_eq!(verified(), Vec::<String>::new());
    let reader = Database::open_read_only_on(Arc::new(RealDisk::new(dir.path()))).unwrap();
    let dest = tempfile::tempdir().unwrap();
    reader.backup(dest.path(), BackupOptions::default(), |_, _| ()).unwrap();
    let restored = Database::open_with(dest.path(), options()).unwrap();
    assert_eq!(shown(&restored).unwrap(), shown(&reader).unwrap());
    for kind in ["segments/bulk/", "chunks/"] {
        let name = disk.files().into_iter().find(|name| name.starts_with(kind)).unwrap();
        let whole = disk.contents(&name).unwrap();
        let mut bytes = whole.clone();
        bytes[100] ^= 1;
        std::fs::remove_file(dir.path().join(&name)).unwrap();
        std::fs::write(dir.path().join(&name), bytes).unwrap();
        let damages = verified();
        assert!(!damages.is_empty() && damages.iter().all(|damage| damage.contains(&name)), "{damages:?}");
        let reader = Database::open_read_only_on(Arc::new(RealDisk::new(dir.path())));
        let dest = tempfile::tempdir().unwrap();
        let copied =
            reader.map(|reader| reader.backup(dest.path(), BackupOptions::default(), |_, _| ()).is_ok());
        assert!(!copied.unwrap_or(false), "{name}");
        std::fs::write(dir.path().join(&name), whole).unwrap();
    }
}

/// Verifying names every damaged file that a manifest names, also one that nothing reads but a fall-back or nobody any more,
/// and gaps in which nothing stands.
#[test]
fn verify_names_each_file_whatever_byte_of_it_is_damaged() {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    define(&db).unwrap();
    // Few objects, some of which are replaced, and a large one.
    for i in [1, 2, 6, 40] {
        let mut batch = transaction(i, false).unwrap();
        if i == 40 {
            batch.put_model(underbelly_tests::model_of(40).with("large", true), vec![7; (1 << 20) + 1]);
        }
        db.commit(batch).unwrap();
        if i != 1 {
            db.checkpoint().unwrap();
        }
    }
    db.close().unwrap();
    let verified = |disk: &SimulatedDisk| {
        let report = Database::verify_on(Arc::new(disk.clone()), |_, _| ()).unwrap();
        [report.damages, report.harmless].concat()
    };
    assert_eq!(verified(&disk), Vec::<String>::new());
    let kinds = ["MANIFEST-", "images/", "packs/", "chunks/", "segments/"];
    let sealed: Vec<String> =
        disk.files().into_iter().filter(|name| kinds.iter().any(|kind| name.starts_with(kind))).collect();
    let manifests = sealed.iter().filter(|name| name.starts_with("MANIFEST-")).count();
    assert!(manifests == 2 && kinds.iter().all(|kind| sealed.iter().any(|name| name.starts_with(kind))));
    for name in &sealed {
        let whole = disk.contents(name).unwrap();
        let step = if whole.len() < 8192 { 13 } else { whole.len() / 5 };
        // The last bytes before the index are a gap in most files.
        for at in (0..whole.len()).step_by(step).chain([whole.len().saturating_sub(121), whole.len() - 1]) {
            let rotten = disk.crash_keeping_all();
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            rotten.overwrite(name, bytes);
            let damages = verified(&rotten);
            assert!(
                damages.iter().any(|damage| damage.contains(name.as_str())),
                "{name} byte {at}: {damages:?}"
            );
        }
    }
    // Who waits is told how far it is: bytes of sealed files, each once, and all of them in the end.
    let mut told = Vec::new();
    let report = Database::verify_on(Arc::new(disk.clone()), |done, total| told.push((done, total))).unwrap();
    assert!(told.len() >= report.segments + report.packs + report.images + report.chunks, "{told:?}");
    assert!(told.iter().all(|(done, total)| done <= total && *total == told[0].1), "{told:?}");
    assert!(
        told.is_sorted() && told.last().is_some_and(|(done, total)| done == total && *total > 0),
        "{told:?}"
    );
    let lengths = sealed.iter().filter(|name| !name.starts_with("MANIFEST-"));
    let length: usize = lengths.map(|name| disk.contents(name).unwrap().len()).sum();
    assert_eq!(told[0].1, length as u64);
    let older = sealed.iter().find(|name| name.starts_with("MANIFEST-")).unwrap();
    disk.remove(older).unwrap();
    assert!(verified(&disk).iter().any(|damage| damage.contains(older.as_str()) && damage.contains("gone")));
}
