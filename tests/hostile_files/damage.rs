//! Bytes that are not those that were written: in every file of a closed database.

use std::collections::BTreeMap;

use underbelly::Disk;
use underbelly_tests::sample::used;

use crate::kinds::kind_of;
use crate::subject::{Outcome, Subject, all, is_thorough};

/// Damage to these bytes of a file must be told where a closed database needs it.
fn check(subject: &Subject, name: &str, bytes: Vec<u8>, what: &str) {
    let outcome = subject.read(&subject.with(name, bytes), name, what);
    assert!(outcome == Outcome::Told || !subject.is_needed(name), "{what}: not told");
}

/// Every byte of a sealed file. Of files that are not needed each byte that says something, and some of the
/// padding.
fn places(subject: &Subject, name: &str, bytes: &[u8]) -> Vec<usize> {
    let all = 0..bytes.len();
    if subject.is_needed(name) || is_thorough() {
        return all.collect();
    }
    all.filter(|at| bytes[*at] != 0 || at % 64 == 0).collect()
}

/// A flipped bit in any byte of any file is told, or hits nothing that is read.
#[test]
fn every_byte_of_every_file_may_be_flipped() {
    let subject = Subject::closed();
    for name in subject.disk.files() {
        let whole = subject.disk.contents(&name).unwrap();
        let places = places(&subject, &name, &whole);
        let masks: &[u8] = if is_thorough() { &[1, 2, 4, 8, 16, 32, 64, 128, 255] } else { &[0x40] };
        all(places.len() * masks.len(), |number| {
            let (at, mask) = (places[number / masks.len()], masks[number % masks.len()]);
            let mut bytes = whole.clone();
            bytes[at] ^= mask;
            check(&subject, &name, bytes, &format!("byte {at} of {} of {name} by {mask}", whole.len()));
        });
    }
    subject.expect_refused(&["image", "log", "pack", "segment"]);
}

/// A file that was cut at any length is told, or holds nothing that is read.
#[test]
fn every_file_may_be_cut_at_every_length() {
    let subject = Subject::closed();
    for name in subject.disk.files() {
        let whole = subject.disk.contents(&name).unwrap();
        let is_needed = subject.is_needed(&name);
        let step = if is_needed || is_thorough() { 1 } else { 53 };
        all(whole.len().div_ceil(step), |number| {
            let len = number * step;
            let what = format!("{name} of {} bytes cut to {len}", whole.len());
            check(&subject, &name, whole[..len].to_vec(), &what);
        });
    }
    subject.expect_refused(&["image", "log", "pack", "segment"]);
}

/// A file that grew, by zeros, by other bytes or by itself, is told or as before.
#[test]
fn every_file_may_grow() {
    let subject = Subject::closed();
    for name in subject.disk.files() {
        let whole = subject.disk.contents(&name).unwrap();
        let tails = [vec![0], vec![0xa5], vec![0; 4096], vec![0xff; 1 << 20], whole.clone()];
        all(tails.len(), |number| {
            let bytes = [&whole[..], &tails[number]].concat();
            let what = format!("{name} of {} bytes with {} more", whole.len(), tails[number].len());
            check(&subject, &name, bytes, &what);
        });
    }
    subject.expect_refused(&["image", "log", "pack", "segment"]);
}

/// Zeros, as a disk that lost a block gives, are told where they change something; so is a file of nothing but zeros.
#[test]
fn every_block_of_every_file_may_be_zero() {
    let subject = Subject::closed();
    for name in subject.disk.files() {
        let whole = subject.disk.contents(&name).unwrap();
        let mut ranges = vec![0..whole.len(), 0..16.min(whole.len())];
        ranges.extend((0..whole.len()).step_by(512).map(|start| start..(start + 512).min(whole.len())));
        ranges.extend((0..whole.len()).step_by(4096).map(|start| start..(start + 4096).min(whole.len())));
        ranges.retain(|range| used(&whole[range.clone()]) > 0);
        all(ranges.len(), |number| {
            let range = ranges[number].clone();
            let mut bytes = whole.clone();
            bytes[range.clone()].fill(0);
            check(&subject, &name, bytes, &format!("{range:?} of {name} zeroed"));
        });
    }
    subject.expect_refused(&["image", "log", "pack", "segment"]);
}

/// Lengths, counts and offsets that are as large as they can be: every aligned word of every file becomes huge.
#[test]
fn every_word_of_every_file_may_be_huge() {
    let subject = Subject::closed();
    for name in subject.disk.files() {
        let whole = subject.disk.contents(&name).unwrap();
        let words: Vec<usize> = (0..whole.len().saturating_sub(7)).step_by(4).collect();
        let words: Vec<usize> = words
            .into_iter()
            .filter(|at| subject.is_needed(&name) || used(&whole[*at..at + 8]) > 0)
            .collect();
        let values = [u64::MAX, i64::MAX as u64, 1 << 40];
        let values = if is_thorough() { &values[..] } else { &values[..1] };
        all(words.len() * values.len(), |number| {
            let (at, value) = (words[number / values.len()], values[number % values.len()]);
            let mut bytes = whole.clone();
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            if bytes != whole {
                check(&subject, &name, bytes, &format!("word at {at} of {name} set to {value}"));
            }
        });
    }
    subject.expect_refused(&["image", "log", "pack", "segment"]);
}

/// Two files in each other's place are told, of one kind and of several, and so is another database's file.
#[test]
fn swapped_files() {
    let (subject, other) = (Subject::closed(), Subject::closed());
    let files = subject.disk.files();
    all(files.len(), |i| {
        let first = &files[i];
        let mine = subject.disk.contents(first).unwrap();
        for second in &files[i + 1..] {
            let theirs = subject.disk.contents(second).unwrap();
            if mine == theirs {
                continue;
            }
            let needed = [first, second].into_iter().find(|name| subject.is_needed(name));
            let what = format!("{first} and {second} swapped");
            let copy = subject.with(first, theirs.clone());
            copy.overwrite(second, mine.clone());
            // Either may be the one that is told.
            let outcome = subject.read(&copy, "", &what);
            assert!(outcome == Outcome::Told || needed.is_none(), "{what}: not told");
            let what = format!("{first} holds {second}");
            check(&subject, first, theirs.clone(), &what);
            let what = format!("{second} holds {first}");
            check(&subject, second, mine.clone(), &what);
        }
        if let Some(theirs) = other.disk.contents(first).filter(|theirs| *theirs != mine) {
            // A foreign manifest makes all other files foreign.
            let what = format!("{first} of another database");
            let outcome = subject.read(&subject.with(first, theirs), "", &what);
            assert!(outcome == Outcome::Told || !subject.is_needed(first), "{what}: not told");
        }
    });
    subject.expect_refused(&["image", "log", "pack", "segment"]);
}

/// A file of an earlier day in the place of today's, beside it where it is gone today, and all earlier files of a kind
/// together: the database is as it is today, or says that something is wrong.
#[test]
fn older_files_put_back() {
    let (older, newer) = Subject::two_lives();
    let mut by_kind: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for name in older.disk.files() {
        by_kind.entry(kind_of(&name).name).or_default().push(name);
    }
    for (kind, names) in &by_kind {
        let together = newer.disk.crash();
        for name in names {
            let bytes = older.disk.contents(name).unwrap();
            together.overwrite(name, bytes.clone());
            newer.read(&newer.with(name, bytes.clone()), "", &format!("an older {name} put back"));
            // Under the name of each of today's files of the kind.
            for today in newer.disk.files().into_iter().filter(|today| kind_of(today).name == *kind) {
                if today != *name && newer.disk.contents(&today) != Some(bytes.clone()) {
                    let what = format!("an older {name} as {today}");
                    let outcome = newer.read(&newer.with(&today, bytes.clone()), "", &what);
                    assert!(outcome == Outcome::Told || !newer.is_needed(&today), "{what}: not told");
                }
            }
        }
        newer.read(&together.crash(), "", &format!("all older files of kind {kind} put back"));
        // Instead of today's.
        for name in newer.disk.files().into_iter().filter(|name| kind_of(name).name == *kind) {
            if older.disk.contents(&name).is_none() {
                together.remove(&name).unwrap();
            }
        }
        newer.read(&together, "", &format!("files of kind {kind} turned back"));
    }
}

/// A file that is gone is told where it is needed, also by a fall-back alone. For a manifest an older one may speak, with the log behind it.
#[test]
fn missing_files() {
    let subject = Subject::closed();
    for name in subject.disk.files() {
        let outcome = subject.read(&subject.without(&name), "", &format!("{name} removed"));
        let kind = kind_of(&name).name;
        // The bytes of a log that a checkpoint holds are needed by nobody; the file is where a fall-back would read it.
        let is_needed = (subject.is_needed(&name) && kind != "manifest") || kind == "log";
        assert!(outcome == Outcome::Told || !is_needed, "{name} removed: not told");
    }
    subject.expect_refused(&["several"]);
}

/// Files that do not belong to the database do no harm, and strangers' files are left alone.
#[test]
fn strangers_files_are_left_alone() {
    let subject = Subject::closed();
    for name in ["notes.txt", "MANIFEST-abc", "wal/notes.txt", "packs/notes.txt", "segments/bulk/notes.txt"] {
        let copy = subject.with(name, b"mine".to_vec());
        assert_eq!(subject.read(&copy, "", name), Outcome::Same, "{name}");
        assert_eq!(copy.contents(name).as_deref(), Some(&b"mine"[..]), "{name} is gone or changed");
    }
}
