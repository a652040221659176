//! What is not durable is not shown: a disk whose syncs fail stands for a writer between its write and its sync.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use underbelly::disk::{Act, RealDisk};
use underbelly::{
    BackupOptions, CommitError, Database, FaultyDisk, OpenError, SimulatedDisk, StorageError, WalError,
};
use underbelly_tests::{define, options, transaction, transactions_shown};

/// Three durable transactions and one that was written and not synced, behind a writer that lives or not.
fn written_and_not_synced(dir: &Path) -> Database {
    let disk = Arc::new(FaultyDisk::new(RealDisk::new(dir)));
    let db = Database::create_on(disk.clone(), options()).unwrap();
    define(&db).unwrap();
    for i in 1..4 {
        db.commit(transaction(i, false).unwrap()).unwrap();
    }
    disk.watch(|call| match call.act {
        Act::Sync => Err(io::Error::other("the disk does not answer")),
        _ => Ok(()),
    });
    let failed = db.commit(transaction(4, false).unwrap());
    assert!(matches!(failed, Err(CommitError::Log(WalError::Poisoned { .. }))));
    db
}

fn shown(dir: &Path) -> u64 {
    let reader = Database::open_read_only(dir).unwrap();
    transactions_shown(&reader.snapshot(), |_| false).unwrap()
}

#[test]
fn what_is_written_and_not_synced_is_shown_by_nobody_but_a_recovery() {
    let _alone = crate::alone();
    let dir = TempDir::new().unwrap();
    let writer = written_and_not_synced(dir.path());
    let mut reader = Database::open_read_only(dir.path()).unwrap();
    assert_eq!(shown(dir.path()), 3, "the writer lives");
    drop(writer);
    assert_eq!(shown(dir.path()), 3, "the writer is gone");
    assert_eq!(reader.refresh().unwrap(), reader.seq());
    assert_eq!(transactions_shown(&reader.snapshot(), |_| false).unwrap(), 3);
    // Recovery makes the whole batch durable and says so.
    let recovered = Database::open_with(dir.path(), options()).unwrap();
    assert_eq!(shown(dir.path()), 4);
    reader.refresh().unwrap();
    assert_eq!(transactions_shown(&reader.snapshot(), |_| false).unwrap(), 4);
    drop(recovered);
}

#[test]
fn after_the_machine_was_started_anew_all_whole_batches_are_durable() {
    let _alone = crate::alone();
    let dir = TempDir::new().unwrap();
    drop(written_and_not_synced(dir.path()));
    let shared = dir.path().join("SHARED");
    let told = std::fs::read(&shared).unwrap();
    std::fs::remove_file(&shared).unwrap();
    assert_eq!(shown(dir.path()), 4, "nothing of the file reached the disk");
    std::fs::write(&shared, vec![0; told.len()]).unwrap();
    assert_eq!(shown(dir.path()), 4, "its length alone did");
    let mut other_boot = told.clone();
    other_boot[32] ^= 0xff;
    std::fs::write(&shared, &other_boot).unwrap();
    assert_eq!(shown(dir.path()), 3, "nobody knows of which start it is");
    std::fs::write(&shared, &told).unwrap();
    assert_eq!(shown(dir.path()), 3, "the same start of the machine");
}

/// Damage in what the writer tells keeps nobody out, is told, and shows nobody what a crash could take back: the last batch
/// counts only once something behind it acknowledges it.
#[test]
fn a_damaged_word_of_the_writer_keeps_nobody_out_and_shows_nothing_that_may_be_lost() {
    let _alone = crate::alone();
    let dir = TempDir::new().unwrap();
    let shared = dir.path().join("SHARED");
    let writer = written_and_not_synced(dir.path());
    let told = std::fs::read(&shared).unwrap();
    type Damage = (&'static str, fn(&mut Vec<u8>));
    let damages: [Damage; 6] = [
        ("head", |bytes| bytes[20] ^= 1),
        ("boot", |bytes| bytes[40] ^= 1),
        ("both slots", |bytes| (bytes[70], bytes[130]) = (!bytes[70], !bytes[130])),
        ("cut", |bytes| bytes.truncate(1000)),
        ("noise", |bytes| bytes.iter_mut().for_each(|byte| *byte = byte.wrapping_mul(7) ^ 0x5a)),
        ("longer", |bytes| bytes.extend([7; 100])),
    ];
    let mut attached = Database::open_read_only(dir.path()).unwrap();
    for (what, damage) in damages {
        let mut bytes = told.clone();
        damage(&mut bytes);
        std::fs::write(&shared, &bytes).unwrap();
        let reader = Database::open_read_only(dir.path()).unwrap();
        assert_eq!(transactions_shown(&reader.snapshot(), |_| false).unwrap(), 3, "{what}");
        attached.refresh().unwrap();
        assert_eq!(transactions_shown(&attached.snapshot(), |_| false).unwrap(), 3, "{what}");
        let verified = Database::verify_dir(dir.path(), |_, _| ()).unwrap();
        assert_eq!(verified.models, 6, "{what}: two of each transaction");
        let told = reader.status().unwrap().shared_damage;
        if what == "longer" {
            assert_eq!((told, verified.damages.len()), (None, 0), "what is behind the block says nothing");
            continue;
        }
        let told = told.unwrap();
        assert!(told.contains("SHARED") && told.contains("for writing once"), "{what}: {told}");
        assert_eq!(verified.damages, [told], "{what}");
        let dest = TempDir::new().unwrap();
        let made = reader.backup(dest.path(), BackupOptions::default(), |_, _| ()).unwrap();
        assert_eq!(made.seq, reader.seq(), "{what}");
        assert_eq!(shown(dest.path()), 3, "{what}");
    }
    drop(writer);
    let mut bytes = told.clone();
    bytes[0] ^= 1;
    std::fs::write(&shared, &bytes).unwrap();
    // The next writer says so and makes it anew; what it found it made durable.
    let recovered = Database::open_with(dir.path(), options()).unwrap();
    assert!(recovered.recovery_report().shared_damage.as_ref().unwrap().contains("SHARED"));
    assert_eq!(shown(dir.path()), 4);
    attached.refresh().unwrap();
    assert_eq!(transactions_shown(&attached.snapshot(), |_| false).unwrap(), 4);
    assert_eq!(attached.status().unwrap().shared_damage, None);
}

/// Where the word of a writer that lives is damaged, readers lag behind it by its last batch at most, and by none once
/// the log is sealed.
#[test]
fn readers_without_the_writers_word_lag_by_one_batch_until_the_log_is_sealed() {
    let _alone = crate::alone();
    let dir = TempDir::new().unwrap();
    let db = Database::create_with(dir.path(), underbelly::Options { workers: 0, ..options() }).unwrap();
    define(&db).unwrap();
    let shared = dir.path().join("SHARED");
    let mut bytes = std::fs::read(&shared).unwrap();
    bytes[9] ^= 1;
    std::fs::write(&shared, &bytes).unwrap();
    let mut reader = Database::open_read_only(dir.path()).unwrap();
    for i in 1..40 {
        db.commit(transaction(i, false).unwrap()).unwrap();
        if i % 7 == 0 {
            db.checkpoint().unwrap();
        }
        reader.refresh().unwrap();
        let shown = transactions_shown(&reader.snapshot(), |_| false).unwrap();
        assert!(shown == i || shown == i - 1, "{shown} of {i}");
    }
    drop(db);
    reader.refresh().unwrap();
    assert_eq!(transactions_shown(&reader.snapshot(), |_| false).unwrap(), 39);
}

#[test]
fn durable_rows_that_the_log_lost_are_missed() {
    let _alone = crate::alone();
    let dir = TempDir::new().unwrap();
    let db = Database::create_with(dir.path(), options()).unwrap();
    define(&db).unwrap();
    for i in 1..4 {
        db.commit(transaction(i, false).unwrap()).unwrap();
    }
    drop(db);
    let wal = dir.path().join("wal/0000000001.wal");
    let mut bytes = std::fs::read(&wal).unwrap();
    bytes[3 * 4096..].fill(0);
    std::fs::write(&wal, &bytes).unwrap();
    match Database::open_read_only(dir.path()).map(|_| ()) {
        Err(OpenError::Log(WalError::Corrupt { file, seq, .. })) => {
            assert_eq!((file.as_str(), seq), ("wal/0000000001.wal", 4));
        }
        other => panic!("{other:?}"),
    }
}

/// CRC-32 as in zlib.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    })
}

/// A killed database with transactions that its writer published.
fn killed() -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    define(&db).unwrap();
    for i in 1..4 {
        db.commit(transaction(i, false).unwrap()).unwrap();
    }
    disk.crash_keeping_all()
}

/// A disk that does not give the writer's word is a failing disk, and no damage.
#[test]
fn a_word_of_the_writer_that_cannot_be_read_is_that_error() {
    for act in [Act::Open, Act::Read] {
        let memory = killed();
        let told = memory.contents("SHARED").unwrap();
        let disk = FaultyDisk::new(memory.clone());
        disk.watch(move |call| match call.name == "SHARED" && call.act == act {
            true => Err(io::Error::from_raw_os_error(5)),
            false => Ok(()),
        });
        let opened = Database::open_on(Arc::new(disk.clone()), options()).map(|_| ());
        let read = Database::open_read_only_on(Arc::new(disk)).map(|_| ());
        for answer in [opened, read] {
            match answer {
                Err(OpenError::Storage(StorageError::Io { file, source, .. })) => {
                    assert_eq!((file.as_str(), source.raw_os_error()), ("SHARED", Some(5)));
                }
                other => panic!("{act:?}: {other:?}"),
            }
        }
        assert_eq!(memory.contents("SHARED").unwrap(), told);
        Database::open_on(Arc::new(memory), options()).unwrap();
    }
}

/// What a newer program wrote is left as it is, and a newer program is asked for.
#[test]
fn a_word_of_a_newer_writer_is_told_and_left_alone() {
    let disk = killed();
    let mut bytes = disk.contents("SHARED").unwrap();
    assert_eq!(crc32(&bytes[..60]).to_le_bytes(), bytes[60..64]);
    for (version, is_newer) in [(2u32, true), (70_000, true), (0, false)] {
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        let crc = crc32(&bytes[..60]).to_le_bytes();
        bytes[60..64].copy_from_slice(&crc);
        disk.overwrite("SHARED", bytes.clone());
        let read = Database::open_read_only_on(Arc::new(disk.clone())).map(|_| ());
        let opened = Database::open_on(Arc::new(disk.clone()), options());
        if !is_newer {
            assert!(read.is_ok());
            let damage = opened.unwrap().recovery_report().shared_damage.clone().unwrap();
            assert!(damage.contains("SHARED") && damage.contains("its version is none"), "{damage}");
            continue;
        }
        for answer in [read, opened.map(|_| ())] {
            let error = answer.unwrap_err();
            assert!(
                matches!(&error, OpenError::Storage(StorageError::Version { file, .. }) if file == "SHARED")
            );
            let text = error.to_string();
            assert!(text.contains("SHARED") && text.contains("use a newer program"), "{text}");
        }
        assert_eq!(disk.contents("SHARED").unwrap(), bytes);
    }
}
