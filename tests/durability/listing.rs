//! The log as people read it, beside its writer.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use tempfile::TempDir;
use underbelly::{Batch, Database, OpenError, Options, Scope};
use underbelly_tests::options;

/// The records that are read from the first on, with their places, and what follows.
fn listed(dir: &Path) -> (Vec<(u64, String, u64)>, u64) {
    let mut listed = Vec::new();
    let sound = Database::read_log::<OpenError>(dir, 1, |record| {
        let (file, offset) = record.place.unwrap();
        listed.push((record.seq, file, offset));
        Ok(())
    });
    let sound = sound.unwrap();
    assert!(sound.damage.is_none(), "{:?}", sound.damage);
    (listed, sound.next_seq)
}

/// Ends who writes, also where a test fails meanwhile.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What was durable when the reading began is listed, each with its place, beside any number of commits, checkpoints, recycled
/// log files and openings; and no sound log is told to be damaged.
#[test]
fn a_log_is_listed_beside_commits_checkpoints_and_openings() {
    let _alone = crate::alone();
    for checkpoints in [false, true] {
        let dir = TempDir::new().unwrap();
        let options = Options { log_file_bytes: if checkpoints { 64 << 10 } else { 2 << 20 }, ..options() };
        drop(Database::create_with(dir.path(), options.clone()).unwrap());
        let (acked, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let write = || {
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                let db = Database::open_with(dir.path(), options.clone()).unwrap();
                for step in 0..100 {
                    let mut batch = Batch::new();
                    let length = if checkpoints { 4_000 } else { 10 };
                    batch.set_variable(Scope::Global, &format!("v{}", step % 3), vec![round as u8; length]);
                    let seq = db.commit(batch).unwrap().seq;
                    acked.store(seq, Ordering::SeqCst);
                    if checkpoints && step % 10 == 9 {
                        db.checkpoint().unwrap();
                    }
                }
                // Not closed in order.
                if round % 2 == 0 {
                    db.close().unwrap();
                }
                round += 1;
            }
        };
        thread::scope(|scope| {
            let _stop = Stop(&stop);
            scope.spawn(write);
            for _ in 0..if checkpoints { 150 } else { 60 } {
                let before = acked.load(Ordering::SeqCst);
                let (listed, next) = listed(dir.path());
                assert!(next > before, "{next} follows what is listed, and {before} was durable");
                let last = listed.last().map_or(0, |(seq, ..)| *seq);
                assert!(checkpoints || last + 1 == next, "{last} is the last, and {next} follows");
                for pair in listed.windows(2) {
                    assert!(pair[0].0 < pair[1].0 && (&pair[0].1, pair[0].2) <= (&pair[1].1, pair[1].2));
                    assert!(checkpoints || pair[0].0 + 1 == pair[1].0, "{pair:?}");
                }
                assert!(checkpoints || listed.first().is_none_or(|(seq, ..)| *seq == 1));
            }
        });
        assert_eq!(Database::verify_dir(dir.path(), |_, _| ()).unwrap().damages, Vec::<String>::new());
    }
}

/// Where the header of the oldest file is damaged, and no checkpoint holds what stood there, that is told, and what stands in the others is listed.
#[test]
fn a_log_whose_oldest_header_is_damaged_is_listed_from_the_next_file_on() {
    let dir = TempDir::new().unwrap();
    // Not closed, so that no checkpoint holds it.
    drop(filled(dir.path(), 40));
    let oldest = dir.path().join("wal/0000000001.wal");
    let second = dir.path().join("wal/0000000002.wal");
    assert!(second.exists());
    let mut bytes = std::fs::read(&oldest).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&oldest, bytes).unwrap();
    let mut seqs = Vec::new();
    let sound = Database::read_log::<OpenError>(dir.path(), 1, |record| {
        seqs.push(record.seq);
        Ok(())
    });
    let damage = sound.unwrap().damage.unwrap().to_string();
    assert!(damage.contains("wal/0000000001.wal"), "{damage}");
    assert!(seqs[0] > 1 && seqs.len() > 5 && seqs.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{seqs:?}");
}

/// Who asks for what is not there yet is told where the log ends, beside its writer and behind it.
#[test]
fn what_is_not_in_the_log_yet_is_not_listed() {
    let dir = TempDir::new().unwrap();
    let db = filled(dir.path(), 10);
    let last = db.durable_seq();
    let listed = || {
        let mut seqs = Vec::new();
        let sound = Database::read_log::<OpenError>(dir.path(), 1_000, |record| {
            seqs.push(record.seq);
            Ok(())
        });
        let sound = sound.unwrap();
        assert!(sound.damage.is_none(), "{:?}", sound.damage);
        (seqs, sound.next_seq)
    };
    assert_eq!(listed(), (Vec::new(), last + 1));
    db.close().unwrap();
    assert_eq!(listed(), (Vec::new(), last + 1));
}

/// Records that a checkpoint takes in while the log is read, and whose files are recycled before they are read, are left out, and the
/// answer says how far the log was read.
#[test]
fn what_is_recycled_meanwhile_is_left_out() {
    let dir = TempDir::new().unwrap();
    let db = filled(dir.path(), 60);
    let last = db.durable_seq();
    let mut seqs = Vec::new();
    let sound = Database::read_log::<OpenError>(dir.path(), 1, |record| {
        if seqs.is_empty() {
            for _ in 0..2 {
                put(&db, 0);
                db.checkpoint().unwrap();
            }
        }
        seqs.push(record.seq);
        Ok(())
    });
    let sound = sound.unwrap();
    assert!(sound.damage.is_none(), "{:?}", sound.damage);
    assert_eq!(sound.next_seq, last + 1);
    assert!(seqs.len() < last as usize && seqs.is_sorted(), "{seqs:?} of {last}");
}

fn put(db: &Database, round: u8) {
    let mut batch = Batch::new();
    batch.set_variable(Scope::Global, "v", vec![round; 4_000]);
    db.commit(batch).unwrap();
}

/// A database with some files of log and no checkpoint but the first.
fn filled(dir: &Path, rounds: u8) -> Database {
    let options = Options { log_file_bytes: 64 << 10, ..options() };
    let db = Database::create_with(dir, options).unwrap();
    (0..rounds).for_each(|round| put(&db, round));
    db
}
