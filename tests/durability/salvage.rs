//! Repairs that have to go without images, without manifests, or without the log: what is sound is saved, once, and what
//! was assumed is told.

mod log;
mod rows;
mod segments;
mod steps;

use std::collections::BTreeSet;
use std::sync::Arc;

use tempfile::TempDir;
use underbelly::disk::Act;
use underbelly::{
    Batch, Database, Disk, FaultyDisk, Loss, Metadata, RepairReport, Row, SimulatedDisk, Timestamp, View,
};
use underbelly_tests::sample::lay_out;
use underbelly_tests::{blob_of, define, options, transaction, transactions_shown};

use log::damage_log;

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
        let bytes = sound.contents(&name).unwrap();
        let length = bytes.len() as u64;
        // In the log also the last batch, which is not sealed: with zeros in its place the log looks as if it ended before.
        let written = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64;
        let places = [0, length / 2, length.saturating_sub(1), written].map(|at| at / 4_096 * 4_096);
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
            let is_of_place = |loss: &Loss| loss.file == name && loss.damage.contains("bad sector");
            let is_lost = report.losses.iter().any(is_of_place);
            told += usize::from(is_told && (is_lost || report.harmless.iter().any(is_of_place)));
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

fn transaction_of_rows(i: i64) -> Batch {
    let mut batch = Batch::new();
    batch.append(Row::new("tick", Timestamp(i)).key("who", "k0").field("x", i)).unwrap();
    batch
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
    // The newer manifest cannot be read either, and the one before does as well.
    let newest = disk.files().into_iter().rfind(|name| name.starts_with("MANIFEST-")).unwrap();
    let mut bytes = disk.contents(&newest).unwrap();
    bytes[100] ^= 1;
    disk.overwrite(&newest, bytes);
    let (report, saved) = repaired(&disk);
    assert_eq!(report.losses, Vec::new());
    let harmless: Vec<&str> = report.harmless.iter().map(|damage| &*damage.file).collect();
    assert!(harmless.contains(&&*newest) && harmless.contains(&&*pack), "{harmless:?}");
    let of_newest = |report: &RepairReport| {
        report.harmless.iter().find(|damage| damage.file == newest).map(|damage| damage.lost.clone()).unwrap()
    };
    assert!(of_newest(&report).ends_with("hold it"), "{report:?}");
    // As behind a start of the machine nothing says whether it held more.
    let unsaid = disk.crash_keeping_all();
    unsaid.remove("SHARED").unwrap();
    assert!(of_newest(&repaired(&unsaid).0).ends_with("and no sound file tells of more"));
    let db = Database::open(saved.path()).unwrap();
    for (n, byte) in [(1i64, 7), (2, 8), (3, 7)] {
        let model = db.snapshot().model(&of(n)).unwrap().unwrap();
        assert_eq!(*model.blob().unwrap(), [byte; 3_000]);
    }
}

/// What a newer manifest held is asked for where an older one stands in for it: a log that ends before is a loss.
#[test]
fn a_log_that_ends_before_a_manifest_that_is_passed_over_is_a_loss() {
    let killed = killed(63, 20, |_| false);
    // One that cannot be read itself named segments, which say it.
    for kind in ["images/", "MANIFEST-"] {
        let disk = killed.crash_keeping_all();
        let newest = disk.files().into_iter().rfind(|name| name.starts_with(kind)).unwrap();
        disk.overwrite(&newest, Vec::new());
        let (whole, _saved) = repaired(&disk);
        assert!(whole.losses.is_empty(), "{whole:?}");
        // As behind a start of the machine nothing else says how far the log went.
        disk.remove("SHARED").unwrap();
        let logs: Vec<String> = disk.files().into_iter().filter(|name| name.ends_with(".wal")).collect();
        logs[1..].iter().for_each(|name| disk.remove(name).unwrap());
        let (report, _saved) = repaired(&disk);
        assert!(report.seq < whole.seq, "{report:?}");
        assert!(
            report.losses.iter().any(|loss| loss.file == "wal" && loss.damage.contains("durable")),
            "{report:?}"
        );
    }
}
