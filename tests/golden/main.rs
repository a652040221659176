//! Databases that earlier programs wrote are opened, show what they showed, and go on. They are in `v1/`, each with a
//! text of what it shows beside it; `cargo run -p underbelly-tests --bin golden` writes them anew where the format
//! changes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use underbelly::Database;
use underbelly_tests::sample::{describe, fill, is_kept, kept, options};
use underbelly_tests::{desk, shown};

/// Bytes that all kept databases may have.
const BYTES_MAX: u64 = 256 << 10;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/v1")
}

/// Names of the databases, each of which has a text.
fn names() -> Vec<String> {
    let entries = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<String> = entries
        .filter(|path| path.is_dir())
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_string())
        .collect();
    names.sort();
    names
}

/// Copies a folder; answers the bytes of its files.
fn copy(from: &Path, to: &Path) -> u64 {
    fs::create_dir_all(to).unwrap();
    let mut bytes = 0;
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        bytes += if path.is_dir() { copy(&path, &to) } else { fs::copy(&path, &to).unwrap() };
    }
    bytes
}

/// Each kept database opens, shows what is written beside it, has no damage, takes transactions of every kind and
/// checkpoints, and shows all of it after another opening.
#[test]
fn kept_databases_are_read_and_go_on() {
    assert_eq!(names(), ["closed", "killed"]);
    let mut bytes = 0;
    for name in names() {
        let dir = TempDir::new().unwrap();
        bytes += copy(&root().join(&name), dir.path());
        let db = Database::open_with(dir.path(), options()).unwrap();
        let expected = fs::read_to_string(root().join(&name).with_extension("txt")).unwrap();
        assert_eq!(describe(&db).unwrap(), expected, "{name}");
        assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new(), "{name}");
        desk::settle(&db).unwrap();
        fill(&db, 7, true).unwrap();
        db.checkpoint().unwrap();
        fill(&db, 10, false).unwrap();
        desk::settle(&db).unwrap();
        let before = shown(&db).unwrap();
        assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new(), "{name}");
        if name == "closed" {
            db.close().unwrap();
        } else {
            drop(db);
        }
        let db = Database::open_with(dir.path(), options()).unwrap();
        assert_eq!(shown(&db).unwrap(), before, "{name}");
    }
    assert!(bytes <= BYTES_MAX, "the kept databases have {bytes} bytes");
}

/// There is a delta of the state image among them, over a base that both manifests name, and something is gone in it.
#[test]
fn a_delta_is_kept() {
    let dir = TempDir::new().unwrap();
    copy(&root().join("closed"), dir.path());
    let images = fs::read_dir(dir.path().join("images")).unwrap();
    let mut images: Vec<PathBuf> = images.map(|entry| entry.unwrap().path()).collect();
    images.sort();
    let delta = fs::read(images.last().unwrap()).unwrap();
    assert!(delta.windows(4).any(|bytes| bytes == u32::MAX.to_le_bytes()), "nothing is gone in {images:?}");
    fs::write(&images[images.len() - 2], b"").unwrap();
    let refused = Database::open_with(dir.path(), options()).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("images/"), "{refused}");
}

/// What the program writes today shows what the kept databases show, in files of the same kinds: a text that was
/// changed by hand, or databases that were left behind by a change of the format, are found out.
#[test]
fn kept_databases_are_what_is_written_today() {
    for (name, disk) in kept().unwrap() {
        let db = Database::open_on(std::sync::Arc::new(disk.crash()), options()).unwrap();
        let expected = fs::read_to_string(root().join(name).with_extension("txt")).unwrap();
        assert_eq!(describe(&db).unwrap(), expected, "{name}");
        let dir = TempDir::new().unwrap();
        copy(&root().join(name), dir.path());
        for file in disk.files().into_iter().filter(|file| is_kept(file)) {
            let path = dir.path().join(&file);
            assert!(path.is_file(), "{file} is written and not kept");
            fs::remove_file(path).unwrap();
        }
        let left: Vec<String> = underbelly::Disk::list(&underbelly::RealDisk::new(dir.path()), "").unwrap();
        let left = left.into_iter().filter(|entry| dir.path().join(entry).is_file()).collect::<Vec<_>>();
        assert_eq!(left, Vec::<String>::new(), "kept and not written");
    }
}
