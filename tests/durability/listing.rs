//! The log as people read it, beside its writer.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use tempfile::TempDir;
use underbelly::{Batch, Database, OpenError, Options, Scope};
use underbelly_tests::options;

/// The records that are read from the first on, and their places.
fn listed(dir: &Path) -> Vec<(u64, String, u64)> {
    let mut listed = Vec::new();
    let sound = Database::read_log::<OpenError>(dir, 1, |record| {
        let (file, offset) = record.place.unwrap();
        listed.push((record.seq, file, offset));
        Ok(())
    });
    let sound = sound.unwrap();
    assert!(sound.damage.is_none(), "{:?}", sound.damage);
    listed
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
            scope.spawn(write);
            for _ in 0..if checkpoints { 150 } else { 60 } {
                let before = acked.load(Ordering::SeqCst);
                let listed = listed(dir.path());
                let last = listed.last().map_or(0, |(seq, ..)| *seq);
                assert!(last >= before, "{last} is listed, and {before} was durable");
                for pair in listed.windows(2) {
                    assert!(pair[0].0 < pair[1].0 && (&pair[0].1, pair[0].2) <= (&pair[1].1, pair[1].2));
                    assert!(checkpoints || pair[0].0 + 1 == pair[1].0, "{pair:?}");
                }
                assert!(checkpoints || listed.first().is_none_or(|(seq, ..)| *seq == 1));
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(Database::verify_dir(dir.path(), |_, _| ()).unwrap().damages, Vec::<String>::new());
    }
}
