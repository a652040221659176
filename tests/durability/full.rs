//! The whole engine on a small file system of its own, which really runs out of space.
//!
//! A test starts itself again in a mount namespace, where a file system of a few MiB is mounted: a tmpfs, which needs
//! user namespaces or root, or an ext4 in a file, which needs root. Where the machine allows neither, the test says so on
//! standard error and ends; with `UNDERBELLY_SMALL_DISK=required` it fails.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use underbelly::{BackupOptions, CommitError, CopyError, Database, OpenError, StorageError, WalError};
use underbelly_tests::{define, large_in_script, options, shown, transaction, transactions_shown};

/// Says in the inner process where the small file system is.
const INSIDE: &str = "UNDERBELLY_SMALL_DISK_AT";
/// `required` where a machine that cannot mount is a failure.
const DEMAND: &str = "UNDERBELLY_SMALL_DISK";

#[derive(Clone, Copy, Debug)]
enum Kind {
    Tmpfs,
    Ext4,
}

impl Kind {
    /// Ways to get a shell where `$AT` can be mounted, and the command that mounts it.
    fn ways(self) -> &'static [(&'static [&'static str], &'static str)] {
        match self {
            Kind::Tmpfs => &[
                (&["-m"], "mount -t tmpfs -o size=16m tmpfs \"$AT\""),
                (&["-rm"], "mount -t tmpfs -o size=16m tmpfs \"$AT\""),
            ],
            Kind::Ext4 => &[(
                &["-m"],
                "truncate -s 28M \"$IMAGE\" && mkfs.ext4 -q -F -m 0 -J size=4 \"$IMAGE\" && mount -o loop \"$IMAGE\" \"$AT\"",
            )],
        }
    }
}

/// Runs a scenario on a small file system, in a process that is this test again.
fn on_small_disk(test: &str, kind: Kind, scenario: fn(&Path)) {
    let _alone = crate::alone();
    if let Some(at) = std::env::var_os(INSIDE) {
        return scenario(&PathBuf::from(at));
    }
    let dir = TempDir::new().unwrap();
    let at = dir.path().join("disk");
    fs::create_dir(&at).unwrap();
    let run = |flags: &[&str], script: &str| {
        let mut command = Command::new("unshare");
        command.args(flags).args(["sh", "-c", script]).arg(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
        command.env("AT", &at).env("IMAGE", dir.path().join("image")).env(INSIDE, &at);
        command.stdin(Stdio::null()).output()
    };
    let mut reasons = Vec::new();
    for (flags, mount) in kind.ways() {
        match run(flags, &format!("({mount}) >&2")) {
            Ok(probe) if probe.status.success() => {
                let done = run(flags, &format!("({mount}) >&2 && exec \"$0\" \"$@\"")).unwrap();
                let told = [done.stdout, done.stderr].concat();
                assert!(done.status.success(), "on {kind:?}:\n{}", String::from_utf8_lossy(&told));
                let told = String::from_utf8_lossy(&told);
                assert!(told.contains("1 passed"), "{test} is no test's name:\n{told}");
                return;
            }
            Ok(probe) => reasons.push(String::from_utf8_lossy(&probe.stderr).trim().to_string()),
            Err(error) => reasons.push(format!("unshare: {error}")),
        }
    }
    let told = format!("NOT RUN: {test} needs to mount a small {kind:?}: {}", reasons.join("; "));
    assert!(std::env::var(DEMAND).as_deref() != Ok("required"), "{told}");
    // Past the capture of the test's output, so that it is seen.
    let _ = writeln!(std::io::stderr(), "{told}");
}

fn is_full(error: &CommitError) -> bool {
    matches!(
        error,
        CommitError::Storage(StorageError::DiskFull { .. }) | CommitError::Log(WalError::DiskFull { .. })
    )
}

/// A file that takes space.
struct Ballast(PathBuf);

impl Ballast {
    /// All that is left but for some bytes.
    fn fill(at: &Path, leave: u64) -> Ballast {
        let path = at.join("ballast");
        let mut file = fs::File::options().create(true).append(true).open(&path).unwrap();
        for step in [1 << 20, 16 << 10] {
            let block = vec![1u8; step];
            while file.write_all(&block).is_ok() {}
            let _ = file.sync_data();
        }
        let len = file.metadata().unwrap().len();
        file.set_len(len.saturating_sub(leave)).unwrap();
        file.sync_all().unwrap();
        Ballast(path)
    }

    fn remove(self) {
        fs::remove_file(&self.0).unwrap();
    }
}

fn commit(db: &Database, next: u64) -> Result<(), CommitError> {
    db.commit(transaction(next, large_in_script(next)).unwrap()).map(|_| ())
}

/// Commits until the disk is full; answers the last transaction that was acknowledged.
fn until_full(db: &Database, mut last: u64, checkpoint_every: u64) -> u64 {
    for _ in 0..5_000 {
        let mut answer = commit(db, last + 1);
        if answer.is_ok() {
            last += 1;
            if last.is_multiple_of(checkpoint_every) {
                answer = db.checkpoint().map(|_| ());
            }
        }
        if let Err(error) = answer {
            assert!(is_full(&error), "{error:?}");
            assert!(error.to_string().contains("space"), "{error}");
            return last;
        }
    }
    panic!("the disk does not get full");
}

/// A full disk refuses with a typed error and nothing else happens to the handle.
fn check_full(db: &Database, last: u64) {
    for _ in 0..3 {
        // What needs no new space may go through; the next transaction is the same until one does.
        if let Err(error) = db.checkpoint() {
            assert!(is_full(&error), "{error:?}");
        }
        assert_eq!(transactions_shown(&db.snapshot(), large_in_script).unwrap(), last);
        assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
    }
}

/// Fills the disk with commits, with checkpoints among them and without, frees space in between, and goes on with
/// the same handle; then opens what a kill leaves while the disk is full.
fn fill(at: &Path) {
    let dir = at.join("db");
    let db = Database::create_with(&dir, options()).unwrap();
    define(&db).unwrap();
    commit(&db, 1).unwrap();
    let mut last = 1;
    // The first ends in the log, the second with a large value, the third anywhere.
    for (leave, checkpoint_every) in [(60 << 10, u64::MAX), (1200 << 10, u64::MAX), (120 << 10, 3)] {
        let ballast = Ballast::fill(at, leave);
        last = until_full(&db, last, checkpoint_every);
        check_full(&db, last);
        ballast.remove();
        for _ in 0..5 {
            commit(&db, last + 1).unwrap();
            last += 1;
        }
        db.checkpoint().unwrap();
        commit(&db, last + 1).unwrap();
        last += 1;
        assert_eq!(transactions_shown(&db.snapshot(), large_in_script).unwrap(), last);
    }
    let before = shown(&db).unwrap();
    drop(db);
    let db = Database::open_with(&dir, options()).unwrap();
    assert_eq!(shown(&db).unwrap(), before);
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
    db.close().unwrap();
    for leave in [0, 70 << 10, 300 << 10] {
        last = killed_when_full(at, &dir, leave, last);
    }
}

/// A writer that fills the disk is killed. Opening while the disk is full works or is refused as `DiskFull`, more
/// than once; with space again all is there. Answers the last transaction.
fn killed_when_full(at: &Path, dir: &Path, leave: u64, before: u64) -> u64 {
    let ballast = Ballast::fill(at, leave);
    let mut writer = Command::new(env!("CARGO_BIN_EXE_writer"))
        .arg(dir)
        .args(["25", "linger"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The writer says what it committed, and that it can no more; then it stays as it is.
    let mut last = before;
    for line in BufReader::new(writer.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(why) = line.strip_prefix("refused: ") {
            assert!(why.contains("space"), "{why}");
            break;
        }
        last = line.strip_prefix("0 ").and_then(|number| number.parse().ok()).unwrap();
    }
    writer.kill().unwrap();
    assert_eq!(writer.wait().unwrap().code(), None, "the writer ended by itself");
    let check = |db: &Database| {
        let found = transactions_shown(&db.snapshot(), large_in_script).unwrap();
        assert!(found == last || found == last + 1, "{last} were acknowledged, {found} are shown");
        found
    };
    for _ in 0..2 {
        match Database::open_with(dir, options()) {
            Ok(db) => drop(check(&db)),
            Err(OpenError::Log(WalError::DiskFull { .. })) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    ballast.remove();
    let db = Database::open_with(dir, options()).unwrap();
    let found = check(&db);
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
    db.close().unwrap();
    found
}

/// A backup that does not fit names the folder and what it takes, and leaves nothing there.
#[test]
fn a_copy_without_space_says_where_and_how_much() {
    let test = "full::a_copy_without_space_says_where_and_how_much";
    on_small_disk(test, Kind::Tmpfs, |at| {
        let dir = TempDir::new().unwrap();
        let db = Database::create_with(dir.path(), options()).unwrap();
        define(&db).unwrap();
        (1..=20).for_each(|i| {
            db.commit(transaction(i, i > 2).unwrap()).unwrap();
        });
        let dest = at.join("copy");
        let full = db.backup(&dest, BackupOptions::default(), |_, _| ()).map(|_| ()).unwrap_err();
        let CopyError::Full { dir: named, bytes, .. } = &full else { panic!("{full:?}") };
        assert!(*bytes > 18 << 20 && *named == dest.display().to_string(), "{full}");
        assert!(full.to_string().contains(&bytes.to_string()) && full.to_string().contains(named), "{full}");
        assert!(!dest.exists());
        drop(db);
        let full = Database::repair(dir.path(), &dest, |_, _| ()).map(|_| ()).unwrap_err();
        assert!(matches!(&full, CopyError::Full { dir: named, .. } if *named == dest.display().to_string()));
        assert!(!dest.exists());
    });
}

#[test]
fn a_full_tmpfs_loses_nothing_and_ends_nothing() {
    on_small_disk("full::a_full_tmpfs_loses_nothing_and_ends_nothing", Kind::Tmpfs, fill);
}

#[test]
fn a_full_ext4_loses_nothing_and_ends_nothing() {
    on_small_disk("full::a_full_ext4_loses_nothing_and_ends_nothing", Kind::Ext4, fill);
}

/// A file system that turns read-only under a running database, as ext4 does after an error of its device, ends
/// writing with a typed error and not reading; mounted again it has all that was acknowledged.
#[test]
fn a_disk_that_turns_read_only_ends_writing_and_not_reading() {
    let test = "full::a_disk_that_turns_read_only_ends_writing_and_not_reading";
    on_small_disk(test, Kind::Ext4, |at| {
        let run = |script: &str| {
            let done = Command::new("sh").args(["-c", script]).env("AT", at).output().unwrap();
            assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
        };
        let dir = at.join("db");
        let db = Database::create_with(&dir, options()).unwrap();
        define(&db).unwrap();
        (1..=5).for_each(|i| commit(&db, i).unwrap());
        db.checkpoint().unwrap();
        commit(&db, 6).unwrap();
        run("mount -o remount,abort \"$AT\"");
        // Space that was written ahead may still take a batch.
        let mut last = 6;
        let error = loop {
            match commit(&db, last + 1) {
                Ok(()) => last += 1,
                Err(error) => break error,
            }
            assert!(last < 1000, "a disk that is read-only takes everything");
        };
        let is_typed = matches!(error, CommitError::Log(_) | CommitError::Storage(_));
        assert!(is_typed && error.to_string().contains("wal/"), "{error}");
        assert!(commit(&db, last + 1).is_err() && db.checkpoint().is_err());
        assert_eq!(transactions_shown(&db.snapshot(), large_in_script).unwrap(), last);
        drop(db);
        match Database::open_with(&dir, options()) {
            Ok(_) => panic!("a database was opened for writing where nothing can be written"),
            Err(error) => assert!(error.to_string().contains("Read-only"), "{error}"),
        }
        run("umount \"$AT\" && mount -o loop \"$IMAGE\" \"$AT\"");
        let db = Database::open_with(&dir, options()).unwrap();
        let found = transactions_shown(&db.snapshot(), large_in_script).unwrap();
        assert!(found == last || found == last + 1, "{last} were acknowledged, {found} are shown");
        commit(&db, found + 1).unwrap();
        assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
    });
}

/// `LOCK` is for people: where a full disk does not take it, a database is opened without it, and is locked all the same.
#[test]
fn a_full_disk_keeps_nobody_out_for_want_of_a_lock_file() {
    let test = "full::a_full_disk_keeps_nobody_out_for_want_of_a_lock_file";
    on_small_disk(test, Kind::Tmpfs, |at| {
        let dir = at.join("db");
        let db = Database::create_with(&dir, options()).unwrap();
        define(&db).unwrap();
        commit(&db, 1).unwrap();
        db.close().unwrap();
        fs::remove_file(dir.join("LOCK")).unwrap();
        let ballast = Ballast::fill(at, 0);
        let db = Database::open_with(&dir, options()).unwrap();
        assert_eq!(fs::read(dir.join("LOCK")).unwrap_or_default(), b"", "there was room for it");
        assert_eq!(transactions_shown(&db.snapshot(), large_in_script).unwrap(), 1);
        let second = Database::open_with(&dir, options()).map(drop).unwrap_err();
        assert!(matches!(second, OpenError::Locked { pid: 0, .. }), "{second}");
        db.close().unwrap();
        ballast.remove();
        drop(Database::open_with(&dir, options()).unwrap());
        assert_eq!(fs::read(dir.join("LOCK")).unwrap(), std::process::id().to_string().as_bytes());
    });
}

/// A copy for which one folder can be made and not the one in it takes the first away again.
#[test]
fn a_copy_whose_folders_do_not_all_fit_leaves_none() {
    on_small_disk("full::a_copy_whose_folders_do_not_all_fit_leaves_none", Kind::Ext4, |at| {
        let dir = TempDir::new().unwrap();
        let db = Database::create_with(dir.path(), options()).unwrap();
        // Until no file or folder can be made any more, and then one.
        let filler = |number: u32| at.join(format!("filler-{number}"));
        let fillers = (0..).take_while(|number| fs::File::create(filler(*number)).is_ok()).count();
        assert!(fillers > 0);
        fs::remove_file(filler(0)).unwrap();
        let dest = at.join("a/copy");
        let check = |error: CopyError| {
            assert!(error.to_string().contains("cannot make folder"), "{error}");
            assert!(!at.join("a").exists());
        };
        check(db.backup(&dest, BackupOptions::default(), |_, _| ()).map(drop).unwrap_err());
        drop(db);
        check(Database::repair(dir.path(), &dest, |_, _| ()).map(drop).unwrap_err());
    });
}
