//! A closed database with a file of every kind: manifest, image, segments, pack, chunks, log.

use std::sync::Arc;

use underbelly::{Batch, Database, MemoryDisk, Row, Timestamp};
use underbelly_tests::{BOOK, day, define, in_memory, one, shown, transaction};

use crate::{Outcome, Shown, read};

/// Two segments, of which one is large, a pack, a chunk file, an image with cells and models, a manifest, a log.
fn database() -> (MemoryDisk, Shown) {
    let (disk, db) = in_memory().unwrap();
    define(&db).unwrap();
    for i in 1..=6 {
        db.commit(transaction(i, i == 2).unwrap()).unwrap();
    }
    let mut batch = Batch::new();
    for i in 0..50 {
        let row = Row::new("wide", Timestamp(i * i)).key("k", i % 4).field("text", format!("t{}", i % 7));
        batch.append(row.field("x", i as f64 / 3.0).field("flag", i % 2 == 0).field("day", day())).unwrap();
    }
    batch.put_slot(BOOK, day(), ["retracted"], one("n", 1).unwrap());
    db.commit(batch).unwrap();
    let mut batch = Batch::new();
    batch.retract_slot(BOOK, day(), ["retracted"]);
    db.commit(batch).unwrap();
    db.close().unwrap();
    let db = Database::open_on(Arc::new(disk.crash()), underbelly_tests::options()).unwrap();
    let expected = shown(&db).unwrap();
    assert_eq!(read(&disk.crash(), &expected, "undamaged"), Outcome::Same);
    for kind in ["MANIFEST-", "images/", "segments/bulk/", "segments/wide/", "packs/", "chunks/", "wal/"] {
        assert!(disk.files().iter().any(|name| name.starts_with(kind)), "{kind}: {:?}", disk.files());
    }
    (disk, expected)
}

/// Files whose damage must be told. The log of a closed database holds nothing that is not in its sealed files.
fn is_log(name: &str) -> bool {
    name.starts_with("wal/")
}

/// Places worth damaging: all of short files, and of long ones the head, the tail and some in between.
fn places(len: usize) -> impl Iterator<Item = usize> {
    let step = (len / 40).max(1) | 1;
    let edge = 96;
    (0..len).filter(move |at| *at < edge || *at + edge >= len || at % step == 0)
}

fn damaged(disk: &MemoryDisk, name: &str, damage: impl FnOnce(&mut Vec<u8>)) -> MemoryDisk {
    let copy = disk.crash();
    let mut bytes = copy.contents(name).unwrap();
    damage(&mut bytes);
    copy.overwrite(name, bytes);
    copy
}

/// A flipped byte anywhere in a sealed file is told, or hits nothing that is read.
#[test]
fn flipped_bytes() {
    let (disk, expected) = database();
    for name in disk.files() {
        let len = disk.contents(&name).unwrap().len();
        for at in places(len) {
            let copy = damaged(&disk, &name, |bytes| bytes[at] ^= 0x40);
            let outcome = read(&copy, &expected, &format!("byte {at} of {len} of {name} flipped"));
            assert!(outcome == Outcome::Told || is_log(&name), "byte {at} of {len} of {name}: not told");
        }
    }
}

/// A sealed file that is cut or grows is told.
#[test]
fn cut_and_grown_files() {
    let (disk, expected) = database();
    for name in disk.files() {
        let len = disk.contents(&name).unwrap().len();
        for cut in places(len).step_by(5).chain([0, len - 1]) {
            let copy = damaged(&disk, &name, |bytes| bytes.truncate(cut));
            let outcome = read(&copy, &expected, &format!("{name} of {len} bytes cut to {cut}"));
            assert!(outcome == Outcome::Told || is_log(&name), "{name} cut to {cut} of {len}: not told");
        }
        for more in [1, 4096] {
            let copy = damaged(&disk, &name, |bytes| bytes.resize(len + more, 0));
            read(&copy, &expected, &format!("{name} with {more} bytes more"));
        }
    }
}

/// A stretch of zeros, as a disk that lost a block gives, is told where it changes something.
#[test]
fn zeroed_ranges() {
    let (disk, expected) = database();
    for name in disk.files() {
        let whole = disk.contents(&name).unwrap();
        for (start, len) in [(0, 16), (0, 512), (0, 4096), (512, 512), (4096, 4096), (0, usize::MAX)] {
            let start = start.min(whole.len());
            let end = start.saturating_add(len).min(whole.len());
            if whole[start..end].iter().all(|byte| *byte == 0) {
                continue;
            }
            let copy = damaged(&disk, &name, |bytes| bytes[start..end].fill(0));
            let outcome = read(&copy, &expected, &format!("{start}..{end} of {name} zeroed"));
            assert!(outcome == Outcome::Told || is_log(&name), "{start}..{end} of {name} zeroed: not told");
        }
    }
}

/// Two files in each other's place are told, of one kind and of several, and so is another database's file.
#[test]
fn swapped_files() {
    let (disk, expected) = database();
    let (other, _) = database();
    let files = disk.files();
    for (i, first) in files.iter().enumerate() {
        let mine = disk.contents(first).unwrap();
        for second in &files[i + 1..] {
            let copy = disk.crash();
            copy.overwrite(first, disk.contents(second).unwrap());
            copy.overwrite(second, mine.clone());
            let outcome = read(&copy, &expected, &format!("{first} and {second} swapped"));
            assert!(
                outcome == Outcome::Told || (is_log(first) && is_log(second)),
                "{first} and {second} swapped: not told"
            );
        }
        if let Some(theirs) = other.contents(first).filter(|theirs| *theirs != mine) {
            let copy = damaged(&disk, first, |bytes| *bytes = theirs);
            let outcome = read(&copy, &expected, &format!("{first} of another database"));
            assert!(outcome == Outcome::Told || is_log(first), "{first} of another database: not told");
        }
    }
}

/// A file that is gone is told.
#[test]
fn missing_files() {
    let (disk, expected) = database();
    for name in disk.files() {
        let copy = disk.crash();
        underbelly::Disk::remove(&copy, &name).unwrap();
        let outcome = read(&copy, &expected, &format!("{name} removed"));
        assert!(outcome == Outcome::Told || is_log(&name), "{name} removed: not told");
    }
}

/// Files that do not belong to the database do no harm, and strangers' files are left alone.
#[test]
fn strangers_files_are_left_alone() {
    let (disk, expected) = database();
    for name in ["notes.txt", "MANIFEST-abc", "wal/notes.txt", "packs/notes.txt", "segments/bulk/notes.txt"] {
        let copy = disk.crash();
        copy.overwrite(name, b"mine".to_vec());
        assert_eq!(read(&copy, &expected, name), Outcome::Same, "{name}");
        assert_eq!(copy.contents(name).as_deref(), Some(&b"mine"[..]), "{name} is gone or changed");
    }
}
