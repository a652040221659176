//! Rows of segments and of the log where no manifest is left.

use std::sync::Arc;

use underbelly::{Batch, Column, Columns, Database, Row, SimulatedDisk, Timestamp};
use underbelly_tests::{BULK_ROWS, options};

use super::{killed, remove, repaired, transaction_of_rows, values};

/// Without any manifest all rows of sound segments and of the log behind them are there, each once, with their keys.
#[test]
fn rows_are_saved_without_manifests_each_once() {
    // At some of these the last checkpoint merged segments, and those that it merged are there still.
    let lives =
        [(7, 3), (61, 5)].into_iter().chain((36..48).step_by(2).map(|transactions| (transactions, 2)));
    for (transactions, every) in lives {
        let what = format!("{transactions} transactions, a checkpoint every {every}");
        let disk = killed(transactions, every, |i| i % 20 == 7);
        remove(&disk, "MANIFEST-");
        let (report, saved) = repaired(&disk);
        let mut told = report.losses.iter().chain(&report.harmless);
        assert!(told.any(|loss| loss.file.starts_with("MANIFEST")), "{report:?}");
        match transactions {
            // The log begins with the first transaction.
            7 => assert!(
                report.assumed.is_empty()
                    && report.losses.is_empty()
                    && report.harmless[0].lost.starts_with("nothing"),
                "{report:?}"
            ),
            _ => assert!(report.assumed[0].contains("no manifest is left"), "{:?}", report.assumed),
        }
        let db = Database::open_with(saved.path(), options()).unwrap();
        let expected: Vec<i64> = (1..=transactions as i64).collect();
        assert_eq!(values(&db, "tick", "x"), expected, "{what}");
        let bulk = (1..=transactions).filter(|i| i % 20 == 7).count();
        assert_eq!(values(&db, "bulk", "x").len(), bulk * BULK_ROWS, "{what}");
        assert_eq!(report.manifest, None);
        // Keys are keys, and the database goes on.
        let mut batch = Batch::new();
        batch.append(Row::new("tick", Timestamp(1 << 40)).key("who", "k1").field("x", 1_000)).unwrap();
        db.commit(batch).unwrap();
        db.checkpoint().unwrap();
        assert_eq!(values(&db, "tick", "x").len(), expected.len() + 1, "{what}");
        assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new(), "{what}");
        assert!(db.snapshot().seq() > transactions, "{what}");
    }
}

/// Without a log too, what segments hold is saved; the database is known by their stamps.
#[test]
fn rows_are_saved_from_segments_alone() {
    let disk = killed(41, 5, |i| i == 7);
    remove(&disk, "MANIFEST-");
    remove(&disk, "wal/");
    remove(&disk, "images/");
    let (report, saved) = repaired(&disk);
    assert!(report.losses.iter().any(|loss| loss.file == "wal"), "{:?}", report.losses);
    let db = Database::open_with(saved.path(), options()).unwrap();
    assert_eq!(values(&db, "tick", "x"), (1..=40).collect::<Vec<i64>>());
    assert_eq!(values(&db, "bulk", "x"), vec![7; BULK_ROWS]);
    db.commit(transaction_of_rows(50)).unwrap();
    assert_eq!(values(&db, "tick", "x").len(), 41);
}

/// A damaged segment is a loss; its rows come from the log where that reaches back so far.
#[test]
fn damage_beside_lost_manifests_is_told_and_the_rest_saved() {
    let disk = killed(31, 5, |_| false);
    remove(&disk, "MANIFEST-");
    let ticks: Vec<String> =
        disk.files().into_iter().filter(|name| name.starts_with("segments/tick/")).collect();
    for (victim, first) in [(&ticks[0], 6), (&ticks[ticks.len() - 1], 1)] {
        let rotten = disk.crash_keeping_all();
        let mut bytes = disk.contents(victim).unwrap();
        bytes[1] ^= 1;
        rotten.overwrite(victim, bytes);
        let (report, saved) = repaired(&rotten);
        let told = report.losses.iter().filter(|loss| loss.file == *victim).count();
        assert_eq!(told, 1, "{:?}", report.losses);
        let db = Database::open_with(saved.path(), options()).unwrap();
        assert_eq!(values(&db, "tick", "x"), (first..=31).collect::<Vec<i64>>(), "{victim}");
    }
}

/// Damage in the log ends what is taken of it, and what stands before it in sound segments is saved.
#[test]
fn damage_in_the_log_beside_lost_manifests_ends_the_log_there() {
    let disk = killed(39, 5, |_| false);
    remove(&disk, "MANIFEST-");
    let log = disk.files().into_iter().rfind(|name| name.ends_with(".wal")).unwrap();
    let mut bytes = disk.contents(&log).unwrap();
    // Behind the last batch stands what an earlier use of the file left.
    let salt = bytes[40..48].to_vec();
    let last = (1..16).rfind(|block| bytes[block * 4096 + 8..][..8] == salt).unwrap() * 4096;
    bytes[last - 2 * 4096 + 70] ^= 1;
    disk.overwrite(&log, bytes);
    let (report, saved) = repaired(&disk);
    assert!(report.losses.iter().any(|loss| loss.file == log), "{:?}", report.losses);
    let db = Database::open_with(saved.path(), options()).unwrap();
    assert_eq!(values(&db, "tick", "x"), (1..=36).collect::<Vec<i64>>());
}

/// Rows of which nothing says the transaction are taken, and that is told.
#[test]
fn rows_of_an_unknown_transaction_are_saved_and_told() {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    let rows = |n: i64| {
        let times = (0..200_000).map(Timestamp).collect();
        let mut batch = Batch::new();
        let columns = Columns::new().with("x", Column::from(vec![n; 200_000])).unwrap();
        batch.append_columns("large", times, columns, &[]).unwrap();
        batch
    };
    db.commit(rows(1)).unwrap();
    for i in 1..=60 {
        db.commit(transaction_of_rows(i)).unwrap();
        if i % 20 == 0 {
            db.checkpoint().unwrap();
        }
    }
    let disk = disk.crash();
    remove(&disk, "MANIFEST-");
    let (report, saved) = repaired(&disk);
    assert!(report.assumed.iter().any(|told| told.contains("200000 rows of series \"large\"")), "{report:?}");
    let db = Database::open_with(saved.path(), options()).unwrap();
    assert_eq!(values(&db, "large", "x").len(), 200_000);
    assert_eq!(values(&db, "tick", "x").len(), 60);
}

/// A manifest from before the first transaction is no better than one without its image: the rows count.
#[test]
fn rows_are_worth_more_than_an_empty_state() {
    let disk = killed(5, 5, |_| false);
    remove(&disk, "wal/");
    for name in disk.files().into_iter().filter(|name| name.starts_with("images/")) {
        let mut bytes = disk.contents(&name).unwrap();
        bytes[3] ^= 1;
        disk.overwrite(&name, bytes);
    }
    let (report, saved) = repaired(&disk);
    assert!(report.losses.iter().any(|loss| loss.lost.contains("all slots and cells")), "{report:?}");
    let db = Database::open_with(saved.path(), options()).unwrap();
    assert_eq!(values(&db, "tick", "x"), [1, 2, 3, 4, 5]);
}

/// A log that begins with the first transaction and is damaged soon after is worth less than what the segments hold.
#[test]
fn segments_are_worth_more_than_the_beginning_of_the_log() {
    let disk = killed(7, 3, |_| false);
    remove(&disk, "MANIFEST-");
    let log = disk.files().into_iter().find(|name| name.ends_with(".wal")).unwrap();
    let mut bytes = disk.contents(&log).unwrap();
    // The batch of the second transaction, behind the header, the definition and the first.
    bytes[3 * 4096 + 70] ^= 1;
    disk.overwrite(&log, bytes);
    let (report, saved) = repaired(&disk);
    assert!(report.losses.iter().any(|loss| loss.file == log), "{report:?}");
    let db = Database::open_with(saved.path(), options()).unwrap();
    assert_eq!(values(&db, "tick", "x"), [1, 2, 3, 4, 5, 6], "{report:?}");
}
