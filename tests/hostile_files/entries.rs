//! Other things than files where files should be, in a real folder: folders, links, pipes, sockets, holes of a
//! tebibyte, files that may not be read.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;
use underbelly::{Batch, Database, Metadata, RealDisk, Row, Scope, Timestamp};

use crate::kinds::{KINDS, kind_of};
use crate::subject::{Outcome, Subject};

/// Writes a disk in memory into a folder, with modes as the engine gives them, and a lock file.
fn lay_out(subject: &Subject, dir: &Path) -> Vec<String> {
    let mut names = subject.disk.files();
    for name in &names {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, subject.disk.contents(name).unwrap()).unwrap();
        if kind_of(name).is_needed {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        }
    }
    names.push("LOCK".to_string());
    fs::write(dir.join("LOCK"), "1").unwrap();
    names
}

/// The newest file of each kind.
fn samples(names: &[String]) -> Vec<String> {
    let sample =
        |kind: &crate::kinds::Kind| names.iter().rfind(|name| kind_of(name).name == kind.name).cloned();
    let samples: Vec<String> = KINDS.iter().filter_map(sample).collect();
    // Neither the index nor what is for other processes is there.
    assert_eq!(samples.len(), KINDS.len() - 2, "{samples:?}");
    samples
}

/// Puts something in the place of a file.
type Replace = fn(&Path);

fn replacements() -> Vec<(&'static str, Replace)> {
    fn gone(path: &Path) {
        fs::remove_file(path).unwrap();
    }
    vec![
        ("an empty folder", |path| {
            gone(path);
            fs::create_dir(path).unwrap();
        }),
        ("a folder with a file", |path| {
            gone(path);
            fs::create_dir(path).unwrap();
            fs::write(path.join("x"), "x").unwrap();
        }),
        ("a link to nothing", |path| {
            gone(path);
            symlink("nothing", path).unwrap();
        }),
        ("a link to itself", |path| {
            gone(path);
            symlink(path, path).unwrap();
        }),
        ("a link to a folder", |path| {
            gone(path);
            symlink("/", path).unwrap();
        }),
        ("a link to the endless zeros", |path| {
            gone(path);
            symlink("/dev/zero", path).unwrap();
        }),
        ("a pipe", |path| {
            gone(path);
            assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        }),
        ("a socket", |path| {
            gone(path);
            // Names of sockets are short, so it is made under another name.
            let short = path.parent().unwrap().join("s");
            match UnixListener::bind(&short) {
                Ok(_) => fs::rename(short, path).unwrap(),
                Err(_) => fs::create_dir(path).unwrap(),
            }
        }),
        ("an empty file", |path| {
            gone(path);
            fs::write(path, "").unwrap();
        }),
        ("a hole of a tebibyte", |path| {
            gone(path);
            fs::File::create(path).unwrap().set_len(1 << 40).unwrap();
        }),
        ("its bytes and a hole of a tebibyte", |path| {
            let bytes = fs::read(path).unwrap();
            gone(path);
            let mut file = fs::File::create(path).unwrap();
            file.write_all(&bytes).unwrap();
            file.set_len(1 << 40).unwrap();
        }),
    ]
}

/// Whatever stands in the place of a file, the answer is the same data or an error that names the place; nothing
/// waits for a pipe's other end, and nothing reads a hole to its end.
#[test]
fn anything_may_stand_in_a_files_place() {
    let subject = Subject::closed();
    let first = TempDir::new().unwrap();
    for name in samples(&lay_out(&subject, first.path())) {
        for (what, replace) in replacements() {
            let dir = TempDir::new().unwrap();
            lay_out(&subject, dir.path());
            replace(&dir.path().join(&name));
            let what = format!("{what} in the place of {name}");
            let outcome = subject.read_on(Arc::new(RealDisk::new(dir.path())), &name, &what);
            assert!(outcome == Outcome::Told || !subject.is_needed(&name), "{what}: not told");
        }
    }
    let kinds = ["image", "lock", "log", "manifest", "pack", "segment", "shared", "spare"];
    subject.expect_refused(&kinds);
}

/// Nor does a reader beside the writer wait, which takes locks of manifests: of one that is there, and of a name that would
/// be the newest.
#[test]
fn anything_may_stand_in_a_manifests_place_for_readers() {
    let subject = Subject::closed();
    let first = TempDir::new().unwrap();
    let manifests = lay_out(&subject, first.path()).into_iter().filter(|name| name.starts_with("MANIFEST-"));
    for name in manifests.chain(["MANIFEST-0000009999".to_string()]) {
        for (what, replace) in replacements() {
            let dir = TempDir::new().unwrap();
            lay_out(&subject, dir.path());
            let path = dir.path().join(&name);
            if !path.exists() {
                fs::copy(first.path().join("LOCK"), &path).unwrap();
            }
            replace(&path);
            subject.read_only(dir.path(), &name, &format!("{what} in the place of {name}, for a reader"));
        }
    }
}

/// A file in the place of each folder, a link to a folder elsewhere, and a folder that is gone.
#[test]
fn anything_may_stand_in_a_folders_place() {
    let subject = Subject::closed();
    let folders = ["wal", "images", "packs", "chunks", "segments", "segments/bulk", "lost"];
    let replacements: [(&str, Replace); 4] = [
        ("a file", |path| fs::write(path, "x").unwrap()),
        ("nothing", |_| ()),
        ("a link to itself", |path| symlink(path, path).unwrap()),
        ("a pipe", |path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success())),
    ];
    for folder in folders {
        for (what, replace) in replacements {
            let dir = TempDir::new().unwrap();
            lay_out(&subject, dir.path());
            fs::remove_dir_all(dir.path().join(folder)).unwrap();
            replace(&dir.path().join(folder));
            let what = format!("{what} in the place of the folder {folder}");
            let outcome = subject.read_on(Arc::new(RealDisk::new(dir.path())), folder, &what);
            assert!(outcome == Outcome::Told || folder == "lost", "{what}: not told");
        }
    }
}

/// A link in the place of a file that is written does not lead the engine to write elsewhere.
#[test]
fn a_link_leads_no_writing_elsewhere() {
    let subject = Subject::closed();
    let names = subject.disk.files();
    let log = names.iter().rfind(|name| name.starts_with("wal/")).unwrap();
    for name in ["LOCK", "SHARED", "RESERVE", "VARIABLES", log, "wal/spare-0000000001"] {
        let dir = TempDir::new().unwrap();
        let (db, elsewhere) = (dir.path().join("db"), dir.path().join("elsewhere"));
        lay_out(&subject, &db);
        // What is there is what the file would hold, so that nothing but the link keeps it from being used.
        let mine = subject.disk.contents(name).unwrap_or_else(|| vec![7; 4_096]);
        fs::write(&elsewhere, &mine).unwrap();
        let _ = fs::remove_file(db.join(name));
        symlink(&elsewhere, db.join(name)).unwrap();
        let disk = Arc::new(RealDisk::new(&db));
        if let Ok(db) = Database::open_on(disk, underbelly_tests::options()) {
            let mut batch = Batch::new();
            batch.set_variable(Scope::Global, "written", 1i64);
            let _ = db.commit(batch);
            let _ = db.checkpoint();
        }
        assert!(fs::read(&elsewhere).unwrap() == mine, "{name} led elsewhere");
    }
}

/// Files that were moved to another disk, with links in their places, are in a backup themselves; and a link in the place of a
/// file that is written is a damage, since no writer opens it.
#[test]
fn links_are_copied_by_backups_and_told_where_they_are_written() {
    let subject = Subject::closed();
    let dir = TempDir::new().unwrap();
    let (db, elsewhere, copy) =
        (dir.path().join("db"), dir.path().join("elsewhere"), dir.path().join("copy"));
    let names = lay_out(&subject, &db);
    fs::create_dir(&elsewhere).unwrap();
    let is_sealed = |name: &&String| {
        ["packs/", "images/", "segments/", "chunks/"].iter().any(|kind| name.starts_with(kind))
    };
    let mut moved = 0;
    for name in names.iter().filter(is_sealed) {
        let away = elsewhere.join(name.replace('/', "-"));
        fs::rename(db.join(name), &away).unwrap();
        symlink(&away, db.join(name)).unwrap();
        moved += 1;
    }
    assert!(moved > 3, "{moved}");
    let reader = Database::open_read_only(&db).unwrap();
    let before = underbelly_tests::shown(&reader).unwrap();
    reader.backup(&copy, underbelly::BackupOptions::default(), |_, _| ()).unwrap();
    drop(reader);
    assert_eq!(
        Database::verify_on(Arc::new(RealDisk::new(&db)), |_, _| ()).unwrap().damages,
        Vec::<String>::new()
    );
    fs::remove_dir_all(&elsewhere).unwrap();
    let restored = Database::open_with(&copy, underbelly_tests::options()).unwrap();
    assert_eq!(restored.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
    assert_eq!(underbelly_tests::shown(&restored).unwrap(), before);
    drop(restored);
    let written = |entry: &PathBuf| entry.extension().is_some_and(|kind| kind == "wal");
    let log =
        fs::read_dir(copy.join("wal")).unwrap().map(|entry| entry.unwrap().path()).find(written).unwrap();
    fs::rename(&log, copy.join("away")).unwrap();
    symlink(copy.join("away"), &log).unwrap();
    let damages = Database::verify_on(Arc::new(RealDisk::new(&copy)), |_, _| ()).unwrap().damages;
    assert!(
        damages.iter().any(|damage| damage.contains("is a link, through which no writer writes")),
        "{damages:?}"
    );
}

/// A link in the place of a log file is told whatever else is told of that file, and each thing once; of a link that leads to no
/// file it is told that it cannot be opened.
#[test]
fn a_link_in_the_log_is_told_beside_other_damage() {
    let subject = Subject::closed();
    let names = subject.disk.files();
    let log = names.iter().rfind(|name| name.ends_with(".wal")).unwrap();
    for (is_damaged, is_there) in [(false, true), (true, true), (true, false)] {
        let dir = TempDir::new().unwrap();
        let (db, away) = (dir.path().join("db"), dir.path().join("away"));
        lay_out(&subject, &db);
        fs::rename(db.join(log), &away).unwrap();
        symlink(&away, db.join(log)).unwrap();
        match (is_damaged, is_there) {
            (_, false) => fs::remove_file(&away).unwrap(),
            (true, true) => {
                let mut bytes = fs::read(&away).unwrap();
                bytes[16..64].fill(0x5a);
                fs::write(&away, bytes).unwrap();
            }
            _ => {}
        }
        let damages = Database::verify_dir(&db, |_, _| ()).unwrap().damages;
        let is_link = |damage: &&String| damage.contains("is a link, through which no writer writes");
        assert_eq!(damages.iter().filter(is_link).count(), usize::from(is_there), "{damages:?}");
        let is_other = |damage: &&String| damage.contains(log.as_str()) && !is_link(damage);
        assert_eq!(damages.iter().any(|damage| is_other(&damage)), is_damaged, "{damages:?}");
    }
}

/// Names that look like the engine's and are none, or of numbers that nobody counts to, change nothing and stay.
#[test]
fn strange_names_beside_the_files_change_nothing() {
    let subject = Subject::closed();
    let strange = [
        "MANIFEST-18446744073709551615",
        "MANIFEST-+1",
        "MANIFEST-99999999999",
        "packs/18446744073709551615.pack",
        "chunks/9223372036854775807.chunk",
        "segments/bulk/18446744073709551614.seg",
        "notes.tmp",
    ];
    let dir = TempDir::new().unwrap();
    lay_out(&subject, dir.path());
    strange.iter().for_each(|name| fs::write(dir.path().join(name), "mine").unwrap());
    fs::create_dir(dir.path().join("folder.tmp")).unwrap();
    let open = || Database::open_with(dir.path(), underbelly_tests::options()).unwrap();
    for round in 0..3 {
        let db = open();
        let mut batch = Batch::new();
        batch.append(Row::new("strange", Timestamp(round)).field("x", round)).unwrap();
        let model = Metadata::new("strange").with("round", round).with("timestamp", Timestamp(round));
        batch.put_model(model, vec![round as u8; 3 << 20]);
        db.commit(batch).unwrap();
        db.checkpoint().unwrap();
    }
    let db = open();
    for round in 0..3 {
        let found = db.snapshot().model(&Metadata::new("strange").with("round", round)).unwrap().unwrap();
        assert!(found.blob().unwrap().iter().all(|byte| *byte == round as u8));
    }
    assert_eq!(db.snapshot().series("strange").unwrap().count().unwrap(), 3);
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
    for name in strange {
        assert_eq!(fs::read(dir.path().join(name)).unwrap(), b"mine", "{name}");
    }
    assert!(dir.path().join("folder.tmp").is_dir());
}

/// A file or folder without permission is told by its name. The user root may read everything, so nothing is tested
/// for root, and that is said.
#[test]
fn files_that_may_not_be_read_are_told() {
    let subject = Subject::closed();
    let first = TempDir::new().unwrap();
    let mut names: Vec<PathBuf> =
        samples(&lay_out(&subject, first.path())).into_iter().map(PathBuf::from).collect();
    names.extend(["wal", "images", "packs", "segments/bulk"].map(PathBuf::from));
    let locked = first.path().join("LOCK");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(&locked).is_ok() {
        let _ =
            writeln!(std::io::stderr(), "NOT RUN: files_that_may_not_be_read_are_told: this user reads all");
        return;
    }
    for name in names {
        let dir = TempDir::new().unwrap();
        lay_out(&subject, dir.path());
        let path = dir.path().join(&name);
        let before = fs::metadata(&path).unwrap().permissions();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        let name = name.display().to_string();
        let what = format!("{name} with mode 000");
        let outcome = subject.read_on(Arc::new(RealDisk::new(dir.path())), &name, &what);
        let is_needed = !path.is_file() || subject.is_needed(&name);
        assert!(outcome == Outcome::Told || !is_needed, "{what}: not told");
        fs::set_permissions(&path, before).unwrap();
    }
}

/// What a writer is refused for is named, with a remedy that works: what stands in the place of a file that an opening makes
/// anew is moved away.
#[test]
fn what_is_no_file_in_the_place_of_one_that_is_made_anew_is_told() {
    let subject = Subject::closed();
    for name in ["LOCK", "SHARED"] {
        for what in ["link", "folder"] {
            let dir = TempDir::new().unwrap();
            let db = dir.path().join("db");
            lay_out(&subject, &db);
            let path = db.join(name);
            fs::remove_file(&path).unwrap();
            fs::write(dir.path().join("precious"), "mine").unwrap();
            match what {
                "link" => symlink(dir.path().join("precious"), &path).unwrap(),
                _ => fs::create_dir(&path).unwrap(),
            }
            let refused = Database::open(&db).map(drop).unwrap_err().to_string();
            assert!(refused.contains(name) && refused.contains("move that out"), "{refused}");
            let damages = Database::verify_dir(&db, |_, _| ()).unwrap().damages;
            let told: Vec<_> = damages.iter().filter(|damage| damage.starts_with(name)).collect();
            assert_eq!(told.len(), 1, "{what} as {name}: {damages:?}");
            let remedy =
                "move it out of the database's folder, and an opening for writing makes the file anew";
            assert!(told[0].contains(what) && told[0].ends_with(remedy), "{}", told[0]);
            fs::rename(&path, dir.path().join("away")).unwrap();
            drop(Database::open(&db).unwrap());
            assert_eq!(Database::verify_dir(&db, |_, _| ()).unwrap().damages, Vec::<String>::new());
        }
    }
}
