//! Repairs that have to go without images, without manifests, or without the log: what is sound is saved, once, and what
//! was assumed is told.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use tempfile::TempDir;
use underbelly::disk::Act;
use underbelly::{
    Batch, Column, ColumnType, Columns, Database, Delete, Disk, FaultyDisk, Metadata, Options, RepairReport,
    Row, SimulatedDisk, SlotDefinition, Snapshot, Timestamp, View,
};
use underbelly_tests::sample::lay_out;
use underbelly_tests::{BULK_ROWS, blob_of, day, define, one, options, transaction, transactions_shown};

/// A killed database after many checkpoints, some of which merged segments, with transactions behind the last. The `large`
/// transactions append rows that get a segment of their own.
fn killed(transactions: u64, every: u64, large: impl Fn(u64) -> bool) -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    define(&db).unwrap();
    for i in 1..=transactions {
        db.commit(transaction(i, large(i)).unwrap()).unwrap();
        if i % every == 0 {
            db.checkpoint().unwrap();
        }
    }
    disk.crash()
}

fn remove(disk: &SimulatedDisk, kind: &str) {
    for name in disk.files().into_iter().filter(|name| name.starts_with(kind)) {
        disk.remove(&name).unwrap();
    }
}

fn repaired(disk: &SimulatedDisk) -> (RepairReport, TempDir) {
    let (dir, saved) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    lay_out(disk, dir.path()).unwrap();
    let report = Database::repair(dir.path(), saved.path(), |_, _| ()).unwrap();
    (report, saved)
}

/// The values of a field of a series.
fn values(db: &View, series: &str, field: &str) -> Vec<i64> {
    let snapshot = db.snapshot();
    let rows = snapshot.series(series).unwrap().range(Timestamp::MIN, Timestamp::MAX).unwrap();
    rows.i64s(field).unwrap().to_vec()
}

/// What was packed before the image was lost is there for the models that later transactions put.
#[test]
fn packed_objects_are_there_for_what_later_transactions_name() {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    define(&db).unwrap();
    for i in 1..=3 {
        db.commit(transaction(i, i == 2).unwrap()).unwrap();
        db.checkpoint().unwrap();
    }
    // The same bytes again, small ones and large ones: they are named, and not stored once more.
    let model = |n: i64| Metadata::new("again").with("n", n).with("timestamp", Timestamp(n));
    for (n, large) in [(1, false), (2, true)] {
        let mut batch = Batch::new();
        batch.put_model(model(n), blob_of(n as u64, large));
        db.commit(batch).unwrap();
    }
    let disk = disk.crash();
    for name in disk.files().into_iter().filter(|name| name.starts_with("images/")) {
        let mut bytes = disk.contents(&name).unwrap();
        bytes[3] ^= 1;
        disk.overwrite(&name, bytes);
    }
    // Nor does the log hold them all from the first transaction on.
    damage_log(&disk, 3 * 4096);
    let (report, saved) = repaired(&disk);
    assert!(
        report.losses.iter().any(|loss| loss.lost.contains("all slots and cells")),
        "{:?}",
        report.losses
    );
    assert!(!report.losses.iter().any(|loss| loss.to_string().contains("object")), "{:?}", report.losses);
    let db = Database::open_with(saved.path(), options()).unwrap();
    for (n, large) in [(1, false), (2, true)] {
        let found = db.snapshot().model(&model(n)).unwrap().unwrap();
        assert_eq!(found.blob().unwrap()[..], blob_of(n as u64, large));
    }
    db.checkpoint().unwrap();
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
    assert_eq!(values(&db, "tick", "x"), [1, 2, 3]);
}

/// A place that the disk does not give costs what stood in it, whatever file it is in; it is named, and all else is saved.
#[test]
fn an_unreadable_place_costs_what_stood_in_it() {
    let sound = killed(12, 5, |i| i == 7);
    let (mut told, mut whole) = (0, 0);
    for name in sound.files() {
        let length = sound.contents(&name).unwrap().len() as u64;
        let places = [0, length / 2, length.saturating_sub(1)].map(|at| at / 4_096 * 4_096);
        for place in BTreeSet::from(places) {
            let disk = FaultyDisk::new(sound.clone());
            let bad = (name.clone(), place..(place + 4_096).min(length));
            disk.watch(move |call| {
                let is_there = call.offset < bad.1.end && call.offset + call.bytes > bad.1.start;
                match call.act == Act::Read && call.name == bad.0 && is_there {
                    true => Err(std::io::Error::other("bad sector")),
                    false => Ok(()),
                }
            });
            let damages = Database::verify_on(Arc::new(disk.clone()), |_, _| ()).unwrap().damages;
            let what = format!("{name} cannot be read at byte {place} ");
            let is_told = damages.iter().any(|damage| damage.starts_with(&what));
            let saved = TempDir::new().unwrap();
            let report = Database::repair_on(Arc::new(disk), saved.path(), |_, _| ()).unwrap();
            let is_lost =
                report.losses.iter().any(|loss| loss.file == name && loss.damage.contains("bad sector"));
            told += usize::from(is_told && is_lost);
            let db = Database::open_with(saved.path(), options()).unwrap();
            assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
            let (rows, all): (_, Vec<i64>) = (values(&db, "tick", "x"), (1..=12).collect());
            if is_lost && (name.starts_with("wal/") || name.starts_with("segments/")) {
                assert!(
                    rows.is_sorted_by(|a, b| a < b) && rows.iter().all(|row| all.contains(row)),
                    "{name}: {rows:?}"
                );
                assert!(rows.len() > 4, "{name} at {place}: {rows:?}, {:?}", report.losses);
            } else {
                assert_eq!(rows, all, "{name} at {place}: {:?}", report.losses);
                whole += 1;
            }
        }
    }
    assert!(told > 8 && whole > 8, "{told} {whole}");
}

/// What the newest manifest names is not needed where the log holds all from the first transaction on.
#[test]
fn a_whole_log_is_worth_more_than_a_manifest_without_its_files() {
    for (kind, cut) in [("images/", 0), ("packs/", 1), ("segments/", 0)] {
        let disk = killed(9, 4, |_| false);
        for name in disk.files().into_iter().filter(|name| name.starts_with(kind)) {
            let mut bytes = disk.contents(&name).unwrap();
            bytes.truncate((bytes.len() - 1) * cut);
            disk.overwrite(&name, bytes);
        }
        let (report, saved) = repaired(&disk);
        let db = Database::open_with(saved.path(), options()).unwrap();
        // With all their parts: rows, cells, models, variables.
        assert_eq!(transactions_shown(&db.snapshot(), |_| false).unwrap(), 9, "{kind}: {:?}", report.losses);
        assert_eq!(report.verified.lost_objects, 0, "{kind}: {:?}", report.losses);
    }
}

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
        assert!(report.losses.iter().any(|loss| loss.file.starts_with("MANIFEST")), "{:?}", report.losses);
        match transactions {
            // The log begins with the first transaction.
            7 => assert!(
                report.assumed.is_empty() && report.losses[0].lost.starts_with("nothing"),
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

fn transaction_of_rows(i: i64) -> Batch {
    let mut batch = Batch::new();
    batch.append(Row::new("tick", Timestamp(i)).key("who", "k0").field("x", i)).unwrap();
    batch
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

/// Damages the batch that began at `at` in the log's only file.
fn damage_log(disk: &SimulatedDisk, at: u64) {
    let log = disk.files().into_iter().find(|name| name.ends_with(".wal")).unwrap();
    let mut bytes = disk.contents(&log).unwrap();
    bytes[at as usize + 70] ^= 1;
    disk.overwrite(&log, bytes);
}

/// What a repair without manifests makes of a log that is damaged at a byte.
fn repaired_behind_damage(disk: &SimulatedDisk, at: u64) -> (RepairReport, Database, TempDir) {
    let disk = disk.crash();
    remove(&disk, "MANIFEST-");
    damage_log(&disk, at);
    let (report, saved) = repaired(&disk);
    let db = Database::open_with(saved.path(), options()).unwrap();
    (report, db, saved)
}

/// A beginning of the log whose rows are deleted counts for nothing against rows that are there.
#[test]
fn deleted_rows_make_the_beginning_of_the_log_worth_nothing() {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    db.commit(keyed(0, 1_000)).unwrap();
    db.commit(deleting(Delete::all())).unwrap();
    let at = db.status().log.offset;
    db.commit(keyed(5_000, 10)).unwrap();
    db.checkpoint().unwrap();
    let (report, db, _saved) = repaired_behind_damage(&disk, at);
    assert_eq!(values(&db, "s", "x"), (5_000..5_010).collect::<Vec<_>>(), "{report:?}");
}

/// Some rows more in the segments are not worth all cells, models and variables.
#[test]
fn the_beginning_of_the_log_is_worth_more_than_a_few_rows() {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    define(&db).unwrap();
    db.commit(keyed(0, 1_000)).unwrap();
    for i in 1..=8 {
        db.commit(transaction(i, false).unwrap()).unwrap();
    }
    let at = db.status().log.offset;
    db.commit(keyed(5_000, 100)).unwrap();
    db.checkpoint().unwrap();
    let (report, db, _saved) = repaired_behind_damage(&disk, at);
    assert_eq!(values(&db, "tick", "x"), (1..=8).collect::<Vec<_>>(), "{report:?}");
    assert!(db.snapshot().slot(underbelly_tests::BOOK, underbelly_tests::day(), ["c1"]).unwrap().is_some());
}

/// Where damage parts the log from what the segments hold, what is lost between them is told; and where the beginning of the
/// log gives more, it is taken.
#[test]
fn a_gap_between_segments_and_the_log_is_told() {
    for (until, from_the_log) in [(90, false), (60, true)] {
        let disk = SimulatedDisk::new();
        let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
        let commit = |i: i64| {
            db.commit(transaction_of_rows(i)).unwrap();
        };
        (1..=4).for_each(commit);
        db.checkpoint().unwrap();
        let mut damaged = None;
        for i in 5..=until {
            commit(i);
            let log = db.status().log;
            // In the second file.
            if log.file == 2 && damaged.is_none() {
                damaged = Some((i, format!("wal/{:010}.wal", log.file), log.offset as usize));
            }
        }
        assert!(db.status().log.file > 3);
        // The opening is a transaction too.
        let before = db.snapshot().seq() as i64 - until;
        let (last, name, offset) = damaged.unwrap();
        let disk = disk.crash();
        remove(&disk, "MANIFEST-");
        let log =
            if from_the_log { disk.files().into_iter().rfind(|name| name.ends_with(".wal")) } else { None };
        let (name, offset) = log.map_or((name, offset), |name| (name, 4096));
        let mut bytes = disk.contents(&name).unwrap();
        bytes[offset + 70] ^= 1;
        disk.overwrite(&name, bytes);
        let (report, saved) = repaired(&disk);
        let db = Database::open_with(saved.path(), options()).unwrap();
        let found = values(&db, "tick", "x");
        assert!(report.losses.iter().any(|loss| loss.file == name), "{report:?}");
        if from_the_log {
            let whole: Vec<i64> = (1..=found.len() as i64).collect();
            assert!(found == whole && found.len() > last as usize, "{found:?}");
            continue;
        }
        let first = found[4];
        assert_eq!(found, (1..=4).chain(first..=until).collect::<Vec<_>>());
        let lost = format!("transactions {} to {}", before + 5, before + first - 1);
        assert!(report.losses.iter().any(|loss| loss.lost.starts_with(&lost)), "{lost}: {report:?}");
    }
}

/// A file of the log that is missing between others is a loss like a damaged one; where all before it are gone too, as after
/// a checkpoint, it is told what that means.
#[test]
fn a_missing_log_file_is_told_once_with_what_was_in_it() {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    let commit = |i: i64| {
        db.commit(transaction_of_rows(i)).unwrap();
    };
    (1..=4).for_each(commit);
    db.checkpoint().unwrap();
    (5..=150).for_each(commit);
    // The opening is a transaction too.
    let before = db.snapshot().seq() as i64 - 150;
    let log = |number: u64| format!("wal/{number:010}.wal");
    for missing in [vec![3], vec![1, 2, 3]] {
        let disk = disk.crash();
        remove(&disk, "MANIFEST-");
        missing.iter().for_each(|number| disk.remove(&log(*number)).unwrap());
        let (report, saved) = repaired(&disk);
        let db = Database::open_with(saved.path(), options()).unwrap();
        let found = values(&db, "tick", "x");
        let first = found[4];
        assert_eq!(found, (1..=4).chain(first..=150).collect::<Vec<_>>());
        let range = format!("transactions {} to {}", before + 5, before + first - 1);
        let losses: Vec<_> = report.losses.iter().filter(|loss| loss.lost.contains(&range)).collect();
        if missing == [3] {
            assert!(losses.len() == 1 && losses[0].file == log(3), "{range}: {report:?}");
        } else {
            assert!(losses.is_empty(), "{range}: {report:?}");
            assert!(report.assumed.iter().any(|told| told.contains(&range)), "{range}: {report:?}");
        }
    }
}

/// A delete that no checkpoint had applied is lost with the manifest and the log that held it; that is told.
#[test]
fn deletes_that_wait_are_back_and_that_is_told() {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    db.commit(keyed(0, 100)).unwrap();
    let _holds = db.snapshot();
    db.commit(deleting(Delete::all().from(Timestamp(10)))).unwrap();
    db.checkpoint().unwrap();
    let disk = disk.crash();
    remove(&disk, "MANIFEST-");
    for log in [true, false] {
        if !log {
            remove(&disk, "wal/");
        }
        let (report, saved) = repaired(&disk);
        let db = Database::open_with(saved.path(), options()).unwrap();
        let told = report.assumed.iter().any(|told| told.contains("no checkpoint had applied the delete"));
        assert!(log || told, "{report:?}");
        assert_eq!(values(&db, "s", "x").len(), if log { 10 } else { 100 }, "{report:?}");
    }
}

/// A delete that the log still tells, though it is not applied, hides no rows of a large append that came behind it, also
/// where nothing says any more which transaction that was.
#[test]
fn deletes_hide_no_large_append_that_came_behind_them() {
    let disk = SimulatedDisk::new();
    let db =
        Database::create_on(Arc::new(disk.clone()), Options { workers: 0, ..Options::default() }).unwrap();
    db.commit(keyed(0, 10)).unwrap();
    db.commit(deleting(Delete::all().from(Timestamp(5)))).unwrap();
    let at = db.status().log.offset;
    db.commit(keyed(1_000, BULK_ROWS)).unwrap();
    db.commit(keyed(1 << 30, 2)).unwrap();
    db.checkpoint().unwrap();
    let (report, db, _saved) = repaired_behind_damage(&disk, at);
    let expected = (0..5).chain(1_000..1_000 + BULK_ROWS as i64).chain([1 << 30, (1 << 30) + 1]);
    assert_eq!(values(&db, "s", "x"), expected.collect::<Vec<_>>(), "{report:?}");
    assert!(report.assumed.iter().any(|told| told.contains("nothing says which transaction")), "{report:?}");
}

/// A large append that was merged meanwhile is not taken twice, though nothing says any more which transaction it was.
#[test]
fn merged_rows_of_an_unknown_transaction_come_once() {
    let disk = killed(46, 5, |i| i <= 7 || i == 41);
    remove(&disk, "MANIFEST-");
    let sealed = disk.files().iter().filter(|name| name.starts_with("segments/bulk/")).count();
    assert!(sealed >= 9, "{sealed}: merged ones beside those that were merged");
    let (report, saved) = repaired(&disk);
    assert_eq!(report.assumed.len(), 1, "{:?}", report.assumed);
    let db = Database::open_with(saved.path(), options()).unwrap();
    assert_eq!(values(&db, "bulk", "x").len(), 8 * BULK_ROWS);
}

/// What is sound in damaged files is saved: the other objects of a pack, the other segments of a series.
#[test]
fn the_sound_rest_of_damaged_files_is_saved() {
    let disk = killed(31, 5, |_| false);
    let rotten = |kind: &str, at: usize| {
        let name = disk.files().into_iter().rfind(|name| name.starts_with(kind)).unwrap();
        let rotten = disk.crash_keeping_all();
        let mut bytes = disk.contents(&name).unwrap();
        bytes[at] ^= 1;
        rotten.overwrite(&name, bytes);
        // No older manifest stands in.
        let older = rotten.files().into_iter().find(|name| name.starts_with("MANIFEST-")).unwrap();
        rotten.remove(&older).unwrap();
        (name, rotten)
    };
    let (segment, disk_of_segment) = rotten("segments/tick/", 1);
    let (report, saved) = repaired(&disk_of_segment);
    assert!(report.losses.iter().any(|loss| loss.file == segment && loss.offset == Some(0)), "{report:?}");
    let db = Database::open_with(saved.path(), options()).unwrap();
    assert_eq!(values(&db, "tick", "x").len(), 26);

    let (pack, disk_of_pack) = rotten("packs/", 1);
    let (report, saved) = repaired(&disk_of_pack);
    let told: Vec<_> = report.losses.iter().filter(|loss| loss.file == pack).collect();
    assert!(told[0].lost.starts_with("1 of ") && told[0].offset == Some(0), "{told:?}");
    let db = Database::open_with(saved.path(), options()).unwrap();
    let sound = db.verify(|_, _| ()).unwrap();
    assert!(sound.damages.is_empty() && sound.lost_objects <= 1 && sound.objects > 10, "{sound:?}");
}

/// Where nothing at all is left, nothing is made up.
#[test]
fn nothing_is_made_up_of_nothing() {
    let disk = killed(12, 5, |_| false);
    for kind in ["MANIFEST-", "wal/", "segments/", "packs/"] {
        remove(&disk, kind);
    }
    let (dir, saved) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    lay_out(&disk, dir.path()).unwrap();
    let error = Database::repair(dir.path(), saved.path(), |_, _| ()).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("nothing can be saved"), "{error}");
    assert_eq!(std::fs::read_dir(saved.path()).unwrap().count(), 0);
}

/// Rows of series `s` at times `first`, `first` + 1, …, of the keys `a` and `b` in turn, each with its time in `x`.
fn keyed(first: i64, rows: usize) -> Batch {
    let times: Vec<i64> = (first..first + rows as i64).collect();
    let mut keys = Column::new(ColumnType::Utf8);
    times.iter().for_each(|time| keys.push(&if time % 2 == 0 { "a" } else { "b" }.into()).unwrap());
    let columns = Columns::new().with("k", keys).unwrap();
    let columns = columns.with("x", Column::from(times.clone())).unwrap();
    let mut batch = Batch::new();
    batch.append_columns("s", times.into_iter().map(Timestamp).collect(), columns, &["k"]).unwrap();
    batch
}

/// A killed database: the batches, and after each a checkpoint. Its manifests are gone, and its log where `log` is not set.
fn without_manifests(batches: Vec<Batch>, log: bool) -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    for batch in batches {
        db.commit(batch).unwrap();
        db.checkpoint().unwrap();
    }
    let disk = disk.crash();
    remove(&disk, "MANIFEST-");
    if !log {
        remove(&disk, "wal/");
    }
    disk
}

fn deleting(delete: Delete) -> Batch {
    let mut batch = Batch::new();
    batch.delete_rows("s", delete);
    batch
}

fn segments_of(disk: &SimulatedDisk, series: &str) -> Vec<String> {
    let folder = format!("segments/{series}/");
    disk.files().into_iter().filter(|name| name.starts_with(&folder)).collect()
}

/// A segment that was written anew without deleted rows takes the place of the one that held them, also where it was a
/// large append, of which the file does not say the transaction.
#[test]
fn deleted_rows_stay_deleted_without_manifests_where_a_segment_was_written_anew() {
    for (rows, log) in [(100, true), (100, false), (BULK_ROWS, true), (BULK_ROWS, false)] {
        let from = (rows - 10) as i64;
        let late = |time: i64| deleting(Delete::all().key("k", "b").from(Timestamp(time)));
        let batches = vec![keyed(0, rows), keyed(1 << 30, 2), late(from), keyed(1 << 31, 1)];
        let disk = without_manifests(batches, log);
        assert!(segments_of(&disk, "s").len() >= 3, "the older segment is there still");
        let (report, saved) = repaired(&disk);
        let db = Database::open_with(saved.path(), options()).unwrap();
        let kept = (0..rows as i64).chain([1 << 30, (1 << 30) + 1]).filter(|x| *x < from || x % 2 == 0);
        assert_eq!(
            values(&db, "s", "x"),
            kept.chain([1 << 31]).collect::<Vec<_>>(),
            "{rows} {log} {report:?}"
        );
    }
}

/// A log that holds everything is not worth less than the segments: where it names a file that another has taken the place
/// of, the rows come from that one.
#[test]
fn a_whole_log_goes_with_the_segments_that_took_the_place_of_what_it_names() {
    let disk = SimulatedDisk::new();
    let db =
        Database::create_on(Arc::new(disk.clone()), Options { workers: 2, ..Options::default() }).unwrap();
    define(&db).unwrap();
    db.commit(keyed(0, BULK_ROWS)).unwrap();
    db.commit(transaction(1, false).unwrap()).unwrap();
    db.commit(deleting(Delete::all().from(Timestamp(10)))).unwrap();
    let large = segments_of(&disk, "s");
    for _ in 0..3 {
        db.checkpoint().unwrap();
        db.commit(transaction_of_rows(2)).unwrap();
    }
    let disk = disk.crash_keeping_all();
    assert!(!segments_of(&disk, "s").contains(&large[0]), "what the log names is gone");
    assert_eq!(disk.files().iter().filter(|name| name.ends_with("1.wal")).count(), 1);
    remove(&disk, "MANIFEST-");
    let (report, saved) = repaired(&disk);
    assert!(report.losses.iter().all(|loss| loss.file.starts_with("MANIFEST-")), "{report:?}");
    let db = Database::open_with(saved.path(), options()).unwrap();
    assert_eq!(values(&db, "s", "x"), (0..10).collect::<Vec<_>>(), "{report:?}");
    assert_eq!(values(&db, "tick", "x"), [1, 2, 2, 2]);
    assert!(db.snapshot().slot(underbelly_tests::BOOK, underbelly_tests::day(), ["c1"]).unwrap().is_some());
    db.checkpoint().unwrap();
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
}

/// What happens to hold a row of a large append is no successor of it.
#[test]
fn a_large_append_is_not_given_up_for_a_row_that_came_again() {
    for log in [true, false] {
        let disk = without_manifests(vec![keyed(0, BULK_ROWS), keyed(5, 1), keyed(8, 20)], log);
        let (report, saved) = repaired(&disk);
        let db = Database::open_with(saved.path(), options()).unwrap();
        assert_eq!(values(&db, "s", "x").len(), BULK_ROWS + 21, "{log} {report:?}");
    }
}

/// However little was left of a large append, its rows come once.
#[test]
fn a_little_that_is_left_of_a_large_append_comes_once() {
    for (rows, left) in [(BULK_ROWS, 28_000), (BULK_ROWS, 1)] {
        let late = deleting(Delete::all().from(Timestamp(left)));
        // Another of the same rows, so that what is left of the first is not all that is there of them.
        for batches in [
            vec![keyed(0, rows), late],
            vec![keyed(0, rows), keyed(0, 5), deleting(Delete::all().from(Timestamp(left)))],
        ] {
            let expected = left as usize + if batches.len() == 3 { (left as usize).min(5) } else { 0 };
            let disk = without_manifests(batches, false);
            assert!(segments_of(&disk, "s").len() >= 2, "the older segment is there still");
            let (report, saved) = repaired(&disk);
            let db = Database::open_with(saved.path(), options()).unwrap();
            assert_eq!(values(&db, "s", "x").len(), expected, "{report:?}");
        }
    }
}

/// What was written for transactions that were never committed is not made rows of: where the log says so it is left out,
/// and where nothing does the attempts of one transaction count as one.
#[test]
fn attempts_that_were_not_committed_give_no_rows() {
    for log in [true, false] {
        let disk = SimulatedDisk::new();
        let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
        for i in 1..=60 {
            db.commit(transaction_of_rows(i)).unwrap();
            if i % 20 == 0 {
                db.checkpoint().unwrap();
            }
        }
        let seen = |i: i64| {
            let mut batch = Batch::new();
            batch.set_variable(underbelly_tests::episode(), "seen", i);
            batch
        };
        db.commit(seen(0)).unwrap();
        let mut attempts = 0;
        db.transact(|tx| {
            attempts += 1;
            tx.variable(&underbelly_tests::episode(), "seen")?;
            if attempts < 4 {
                db.commit(seen(attempts)).unwrap();
            }
            let times: Vec<i64> = (0..BULK_ROWS as i64).collect();
            let columns = Columns::new().with("x", Column::from(times.clone()))?;
            tx.append_columns("s", times.into_iter().map(Timestamp).collect(), columns, &[])?;
            Ok::<_, Box<dyn std::error::Error>>(())
        })
        .unwrap();
        let disk = disk.crash();
        assert_eq!(segments_of(&disk, "s").len(), 4, "one for each attempt");
        remove(&disk, "MANIFEST-");
        if !log {
            remove(&disk, "wal/");
        }
        let (report, saved) = repaired(&disk);
        assert_eq!(report.assumed.iter().any(|told| told.contains("taken once")), !log, "{report:?}");
        let db = Database::open_with(saved.path(), options()).unwrap();
        assert_eq!(values(&db, "s", "x").len(), BULK_ROWS, "{report:?}");
        assert_eq!(values(&db, "tick", "x").len(), 60);
    }
}

/// Where the segment that was written anew is damaged, the one before gives its rows, and the loss is told.
#[test]
fn a_damaged_segment_costs_no_rows_that_an_older_one_holds() {
    for rows in [100, BULK_ROWS] {
        let batches = vec![keyed(0, rows), deleting(Delete::all().to(Timestamp(10)))];
        let disk = without_manifests(batches, false);
        let newest = segments_of(&disk, "s").pop().unwrap();
        let mut bytes = disk.contents(&newest).unwrap();
        bytes[1] ^= 1;
        disk.overwrite(&newest, bytes);
        let (report, saved) = repaired(&disk);
        assert!(report.losses.iter().any(|loss| loss.file == newest), "{report:?}");
        assert!(report.assumed[0].contains("deleted"), "{report:?}");
        let db = Database::open_with(saved.path(), options()).unwrap();
        assert_eq!(values(&db, "s", "x"), (0..rows as i64).collect::<Vec<_>>());
    }
}

/// Rows of a segment of which nothing was left may be back, and that is told.
#[test]
fn rows_of_which_nothing_was_left_may_be_back_and_that_is_told() {
    let mut other = Batch::new();
    other.append(Row::new("other", Timestamp(1)).field("x", 1)).unwrap();
    let disk = without_manifests(vec![other, keyed(0, 100), deleting(Delete::all())], false);
    let (report, saved) = repaired(&disk);
    assert!(report.assumed[0].contains("deleted"), "{report:?}");
    let db = Database::open_with(saved.path(), options()).unwrap();
    assert_eq!(values(&db, "s", "x"), (0..100).collect::<Vec<_>>());
}

#[derive(Clone, Debug)]
enum Step {
    /// Times and keys of rows of one transaction.
    Append(Vec<(i64, u8)>),
    /// So many rows that they get a segment of their own, from a time on.
    Large(i64),
    /// Rows within a range of time, of a key or of all.
    Delete(i64, i64, Option<u8>),
    Checkpoint,
    /// A snapshot is held from here on, or none is any more.
    Hold(bool),
}

/// Rows that pass what a record of a small log takes.
const LARGE_ROWS: i64 = 2_000;

fn step() -> impl Strategy<Value = Step> {
    let delete = (0i64..30, 1i64..30, prop::option::weighted(0.5, 0u8..3));
    let wide = (0i64..30, 1i64..LARGE_ROWS, prop::option::weighted(0.5, 0u8..3));
    prop_oneof![
        6 => prop::collection::vec((0i64..30, 0u8..3), 1..40).prop_map(Step::Append),
        1 => (0i64..30).prop_map(Step::Large),
        3 => delete.prop_map(|(from, length, key)| Step::Delete(from, from + length, key)),
        1 => wide.prop_map(|(from, length, key)| Step::Delete(from, from + length, key)),
        3 => Just(Step::Checkpoint),
        1 => any::<bool>().prop_map(Step::Hold),
    ]
}

/// What is left of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogLeft {
    All,
    Nothing,
    /// All but one block with a batch, counted from the first.
    Damaged(usize),
}

/// A row of the model.
#[derive(Clone, Copy, Debug)]
struct Kept {
    time: i64,
    key: u8,
    x: i64,
    transaction: i64,
    /// The transaction that deleted it.
    deleted: Option<i64>,
}

/// Damages the batch that begins in one of the blocks that do.
fn damage_batch(disk: &SimulatedDisk, which: usize) {
    let mut batches = Vec::new();
    for name in disk.files().into_iter().filter(|name| name.ends_with(".wal")) {
        let bytes = disk.contents(&name).unwrap();
        let salt = bytes[40..48].to_vec();
        let own = (1..bytes.len() / 4096).filter(|block| bytes[block * 4096 + 8..][..8] == salt);
        batches.extend(own.map(|block| (name.clone(), block * 4096)));
    }
    if let Some((name, at)) = batches.get(which % batches.len().max(1)) {
        let mut bytes = disk.contents(name).unwrap();
        bytes[at + 70] ^= 1;
        disk.overwrite(name, bytes);
    }
}

/// Lives the steps, takes manifests and perhaps the log away, and compares what a repair gives with the model.
fn salvage_and_compare(steps: Vec<Step>, log: LogLeft, checkpoint_bytes: u64) {
    let disk = SimulatedDisk::new();
    let options = Options { checkpoint_bytes, workers: 0, ..options() };
    let db = Database::create_on(Arc::new(disk.clone()), options.clone()).unwrap();
    let (mut all, mut sealed) = (Vec::<Kept>::new(), Vec::new());
    let mut held: Option<Snapshot> = None;
    // The last delete that a checkpoint has applied for sure, with all before it.
    let mut applied = 0;
    let begin = [Step::Append(vec![(1, 0), (2, 1), (3, 2)]), Step::Checkpoint];
    for (transaction, step) in (1..).zip(begin.into_iter().chain(steps)) {
        let mut batch = Batch::new();
        batch.append(Row::new("other", Timestamp(1)).field("x", transaction)).unwrap();
        match step {
            Step::Append(rows) => {
                for (time, key) in rows {
                    let row = Kept { time, key, x: all.len() as i64, transaction, deleted: None };
                    let written = Row::new("s", Timestamp(time)).key("k", format!("k{key}"));
                    batch.append(written.field("x", row.x)).unwrap();
                    all.push(row);
                }
            }
            Step::Large(first) => {
                let rows = (0..LARGE_ROWS).map(|i| {
                    let (time, key) = (first + i, (i % 3) as u8);
                    Kept { time, key, x: all.len() as i64 + i, transaction, deleted: None }
                });
                let rows: Vec<Kept> = rows.collect();
                let mut keys = Column::new(ColumnType::Utf8);
                rows.iter().for_each(|row| keys.push(&format!("k{}", row.key).into()).unwrap());
                let columns = Columns::new().with("k", keys).unwrap();
                let x: Vec<i64> = rows.iter().map(|row| row.x).collect();
                let columns = columns.with("x", Column::from(x)).unwrap();
                let times = rows.iter().map(|row| Timestamp(row.time)).collect();
                batch.append_columns("s", times, columns, &["k"]).unwrap();
                all.extend(rows);
            }
            Step::Delete(from, to, key) => {
                let delete = Delete::all().from(Timestamp(from)).to(Timestamp(to));
                batch.delete_rows(
                    "s",
                    match key {
                        Some(key) => delete.key("k", format!("k{key}")),
                        None => delete,
                    },
                );
                for row in all.iter_mut().filter(|row| row.deleted.is_none()) {
                    let fits = (from..to).contains(&row.time) && key.is_none_or(|key| key == row.key);
                    row.deleted = fits.then_some(transaction);
                }
            }
            Step::Checkpoint => {
                db.checkpoint().unwrap();
                sealed = all.iter().filter(|row| row.deleted.is_none()).map(|row| row.x).collect::<Vec<_>>();
                if held.is_none() && checkpoint_bytes > 1 {
                    applied = transaction;
                }
                continue;
            }
            Step::Hold(holds) => {
                held = holds.then(|| db.snapshot());
                continue;
            }
        }
        db.commit(batch).unwrap();
    }
    let disk = disk.crash();
    remove(&disk, "MANIFEST-");
    match log {
        LogLeft::All => {}
        LogLeft::Nothing => remove(&disk, "wal/"),
        LogLeft::Damaged(which) => damage_batch(&disk, which),
    }
    let (report, saved) = repaired(&disk);
    let db = Database::open_with(saved.path(), options).unwrap();
    let mut found = db.snapshot().series("s").map_or(Vec::new(), |_| values(&db, "s", "x"));
    found.sort_unstable();
    assert!(found.is_sorted_by(|a, b| a < b), "a row comes twice: {report:?}");
    assert!(found.last().is_none_or(|x| *x < all.len() as i64), "a row that never was: {report:?}");
    let expected: BTreeSet<i64> = match log {
        LogLeft::All => all.iter().filter(|row| row.deleted.is_none()).map(|row| row.x).collect(),
        LogLeft::Nothing => sealed.into_iter().collect(),
        // How far it leads is not known here.
        LogLeft::Damaged(_) => return,
    };
    let found: BTreeSet<i64> = found.into_iter().collect();
    assert!(expected.is_subset(&found), "rows are lost: {:?} {report:?}", expected.difference(&found));
    let survivors: BTreeSet<i64> =
        all.iter().filter(|row| expected.contains(&row.x)).map(|row| row.transaction).collect();
    let told = report.assumed.join("; ");
    for row in all.iter().filter(|row| found.contains(&row.x) && !expected.contains(&row.x)) {
        let reason = match row.deleted {
            Some(delete) if delete > applied => "no checkpoint had applied the delete yet",
            _ if !survivors.contains(&row.transaction) => "all rows of their segment were deleted",
            _ => panic!("{row:?} is back: {report:?}"),
        };
        assert!(told.contains(reason), "{row:?} is back, and not told: {report:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default()
    })]

    /// Small and large appends with ties, deletes by key and by time that wait for snapshots or for room, and checkpoints in
    /// any order.
    #[test]
    fn without_manifests_rows_come_once_and_deleted_ones_stay_away(
        steps in prop::collection::vec(step(), 1..40),
        log in prop_oneof![Just(LogLeft::All), Just(LogLeft::Nothing), any::<usize>().prop_map(LogLeft::Damaged)],
        checkpoint_bytes in prop_oneof![Just(1), Just(64 << 20)],
    ) {
        salvage_and_compare(steps, log, checkpoint_bytes);
    }
}

/// What was put again is stored in a later pack, and what is damaged of it in an earlier one is no loss.
#[test]
fn what_was_mended_is_no_loss() {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    let of = |n: i64| underbelly::Metadata::new("m").with("timestamp", Timestamp(1)).with("n", n);
    let put = |n: i64, byte: u8| {
        let mut batch = underbelly::Batch::new();
        batch.put_model(of(n), vec![byte; 3_000]);
        db.commit(batch).unwrap();
    };
    put(1, 7);
    put(2, 8);
    db.checkpoint().unwrap();
    let pack = disk.files().into_iter().find(|name| name.starts_with("packs/")).unwrap();
    let mut damaged = disk.contents(&pack).unwrap();
    let at = damaged.windows(1_000).position(|run| run == [7; 1_000]).unwrap();
    damaged[at] ^= 1;
    disk.overwrite(&pack, damaged);
    put(3, 7);
    db.checkpoint().unwrap();
    drop(db);
    assert!(disk.files().contains(&pack), "it holds what is sound, too");
    let (report, saved) = repaired(&disk);
    assert_eq!(report.losses, Vec::new());
    let db = Database::open(saved.path()).unwrap();
    for (n, byte) in [(1i64, 7), (2, 8), (3, 7)] {
        let model = db.snapshot().model(&of(n)).unwrap().unwrap();
        assert_eq!(*model.blob().unwrap(), [byte; 3_000]);
    }
}

/// What a repair did not find is told as lost until it is put again, and then no more: a blob, and the contents of a cell.
#[test]
fn what_was_lost_is_there_once_it_is_put_again() {
    for is_mended in [false, true] {
        lost_and_put_again(is_mended);
    }
}

/// `is_mended`: the blob was put again before the repair, and what is damaged of the cell keeps the pack.
fn lost_and_put_again(is_mended: bool) {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), Options { log_file_bytes: 16 << 10, ..options() });
    let db = db.unwrap();
    // What no encoding makes shorter.
    let letter = |n: u64| char::from(b'!' + (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 57) as u8 % 90);
    let text: String = (1..1_200).map(letter).collect();
    db.define_slot(SlotDefinition::new("T").cell_key("k", ColumnType::Utf8).value("t", ColumnType::Utf8))
        .unwrap();
    let of = |n: i64| Metadata::new("m").with("timestamp", Timestamp(1)).with("n", n);
    let put = |db: &Database, n: i64, byte: u8, key: Option<&str>| {
        let mut batch = Batch::new();
        batch.put_model(of(n), vec![byte; 3_000]);
        if let Some(key) = key {
            batch.put_slot("T", day(), [key], one("t", &*text).unwrap());
        }
        db.commit(batch).unwrap();
    };
    // More than the log keeps.
    for n in 1..=16 {
        put(&db, n, n as u8, (n == 1).then_some("a"));
        db.checkpoint().unwrap();
    }
    drop(db);
    for lost in [[1; 1_000].as_slice(), &text.as_bytes()[300..340]] {
        let spoilt = disk.files().into_iter().filter(|name| name.starts_with("packs/")).find(|name| {
            let mut bytes = disk.contents(name).unwrap();
            let Some(at) = bytes.windows(lost.len()).position(|run| run == lost) else { return false };
            bytes[at + 9] ^= 2;
            disk.overwrite(name, bytes);
            true
        });
        assert!(spoilt.is_some(), "{lost:?}");
    }
    if is_mended {
        let db = Database::open_on(Arc::new(disk.clone()), Options { log_file_bytes: 16 << 10, ..options() });
        let db = db.unwrap();
        for n in 17..=24 {
            put(&db, n, if n == 17 { 1 } else { n as u8 }, None);
            db.checkpoint().unwrap();
        }
    }
    let (report, saved) = repaired(&disk);
    let gone = if is_mended { 1 } else { 2 };
    assert!(report.losses.iter().any(|loss| loss.lost.starts_with(&format!("{gone} of "))), "{report:?}");
    let mut db = Database::open(saved.path()).unwrap();
    let lost = |db: &Database| db.verify(|_, _| ()).unwrap().lost_objects;
    assert_eq!(lost(&db), gone);
    assert_eq!(db.snapshot().model(&of(1)).and_then(|model| model.unwrap().blob()).is_ok(), is_mended);
    put(&db, 17, 1, Some("b"));
    for _ in 0..2 {
        assert_eq!(lost(&db), 0);
        assert_eq!(*db.snapshot().model(&of(1)).unwrap().unwrap().blob().unwrap(), [1; 3_000]);
        db.checkpoint().unwrap();
        db.close().unwrap();
        db = Database::open(saved.path()).unwrap();
    }
}
