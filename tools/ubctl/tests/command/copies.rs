//! Backups, repairs, verification and the log, and reading beside a writer.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use underbelly::{Batch, ColumnType, Columns, Database, Metadata, Options, Row, SlotDefinition, Timestamp};

use crate::{Place, words};

fn options() -> Options {
    Options { log_file_bytes: 64 << 10, workers: 1, ..Options::default() }
}

/// One transaction of every kind, with large parts where it says so.
fn commit(db: &Database, i: i64, large: bool) {
    let mut batch = Batch::new();
    batch.append(Row::new("tick", Timestamp(i)).key("who", "a").field("x", i)).unwrap();
    let mut rows = Columns::with_types([("n", ColumnType::I64)]).unwrap();
    rows.push_row(&[i.into()]).unwrap();
    batch.put_slot("Book", underbelly::Date(20_000), [format!("c{i}")], rows);
    let metadata = Metadata::new("smile").with("n", i).with("timestamp", Timestamp(i));
    batch.put_model(metadata, vec![i as u8; if large { 1_100_000 } else { 100 }]);
    db.commit(batch).unwrap();
}

/// A database with two checkpoints and records behind them, open.
fn filled(place: &Place) -> Database {
    let db = Database::create_with(place.db(), options()).unwrap();
    let slot = SlotDefinition::new("Book").cell_key("name", ColumnType::Utf8).value("n", ColumnType::I64);
    db.define_slot(slot).unwrap();
    for i in 1..=30 {
        commit(&db, i, i == 3);
        if i % 10 == 0 && i < 30 {
            db.checkpoint().unwrap();
        }
    }
    db
}

/// Files below a folder of the database, sorted.
fn files(place: &Place, dir: &str) -> Vec<PathBuf> {
    fn below(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { below(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    below(&place.db().join(dir), &mut found);
    found.sort();
    found
}

/// Replaces a file's bytes as rot would; sealed files are read-only, so a twin takes the place.
fn rot(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn flip_the_middle(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
}

fn count(place: &Place, dir: &str) -> serde_json::Value {
    let listing = place.json(words(&format!("--db {dir} series range tick --format json")));
    listing.as_array().unwrap().len().into()
}

#[test]
fn every_reading_command_goes_beside_a_writer_and_sees_what_is_durable() {
    let place = Place::bare();
    let db = filled(&place);
    for line in [
        "status",
        "verify",
        "series ls",
        "series info tick",
        "series latest tick",
        "series last tick",
        "slot ls",
        "slot show Book",
        "slot get Book 2024-10-04 c7",
        "slot why Book 2024-10-04 c7",
        "slot downstream Book 2024-10-04 c7",
        "slot upstream Book 2024-10-04 c7",
        "producer ls",
        "producer runs",
        "producer graph",
        "model ls",
        "var ls",
        "wal ls",
        "wal ls --batches",
        "wal dump",
    ] {
        place.ok(words(line));
    }
    assert_eq!(place.json(words("series range tick --format json")).as_array().unwrap().len(), 30);
    commit(&db, 31, false);
    assert_eq!(place.json(words("series range tick --format json")).as_array().unwrap().len(), 31);
    let status = place.json(words("status --format json"));
    assert_eq!(status["writer"], std::process::id());
    assert_eq!(status["recovered_seq"], 0);
    for line in ["checkpoint", "slot put Book 2024-10-04 c1 none.csv"] {
        let error = place.fails(words(line));
        assert!(error.contains(&format!("process {}", std::process::id())), "{line}: {error}");
    }
    let reader = Database::open_read_only(place.db()).unwrap();
    let status = place.json(words("status --format json"));
    assert_eq!(status["readers"], 1);
    assert!(status["reader_processes"].as_str().unwrap().starts_with(&std::process::id().to_string()));
    drop((reader, db));
    assert!(place.json(words("status --format json"))["writer"].is_null());
}

#[test]
fn a_backup_of_a_live_database_opens_and_stays_as_it_was() {
    let place = Place::bare();
    let db = filled(&place);
    for copied in [false, true] {
        let dest = if copied { "copied" } else { "linked" };
        let line = format!("backup {dest} --format json{}", if copied { " --copy" } else { "" });
        let made = place.json(words(&line));
        assert!(made["log_records"].as_u64().unwrap() >= 10, "{made}");
        let files = if copied { "copied_files" } else { "linked_files" };
        assert!(made[files].as_u64().unwrap() >= 3, "{made}");
        assert_eq!(count(&place, dest), 30);
        assert!(place.fails(words(&line)).contains("not empty"));
    }
    for i in 31..60 {
        commit(&db, i, i % 9 == 0);
        if i % 5 == 0 {
            db.checkpoint().unwrap();
        }
    }
    for dest in ["linked", "copied"] {
        assert_eq!(count(&place, dest), 30, "{dest} does not change with the original");
        let verified = place.json(words(&format!("--db {dest} verify --format json")));
        assert_eq!((&verified["rows"], &verified["models"]), (&30.into(), &30.into()));
        let restored = Database::open(place.path(dest)).unwrap();
        commit(&restored, 1_000, false);
        restored.close().unwrap();
        assert_eq!(count(&place, dest), 31, "restoring is opening");
    }
    assert_eq!(count(&place, "db"), 59);
    let inside = place.fails(words("backup db/inside"));
    assert!(inside.contains("inside"), "{inside}");
    drop(db);
    place.ok(words("verify"));
}

#[test]
fn a_damaged_original_makes_no_backup() {
    let place = Place::bare();
    drop(filled(&place));
    let segment = files(&place, "segments").pop().unwrap();
    // Rows are read when somebody wants them, so the database opens.
    rot(&segment, |bytes| bytes[1] ^= 1);
    let error = place.fails(words("backup dest"));
    assert!(error.contains("taken back") && error.contains(".seg"), "{error}");
    assert_eq!(std::fs::read_dir(place.path("dest")).map_or(0, Iterator::count), 0, "nothing is left");
}

#[test]
fn verify_names_every_damage_also_where_opening_fails() {
    let place = Place::bare();
    drop(filled(&place));
    let segments = files(&place, "segments");
    let packs = files(&place, "packs");
    let wal = files(&place, "wal").into_iter().find(|path| path.extension().is_some_and(|end| end == "wal"));
    rot(&segments[0], |bytes| bytes.truncate(100));
    std::fs::remove_file(&packs[0]).unwrap();
    rot(&wal.unwrap(), |bytes| bytes[4_096 + 60] ^= 1);
    assert_eq!(place.run(words("series ls")).code, 1, "it does not open");
    let ended = place.run(words("verify --format json"));
    assert_eq!(ended.code, 1);
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_string();
    for named in [name(&segments[0]), name(&packs[0]), "wal/".to_string()] {
        assert!(ended.stderr.contains(&named), "{named}: {}", ended.stderr);
    }
    assert!(ended.stderr.contains("ubctl repair"), "the remedy: {}", ended.stderr);
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert!(report["damages"].as_u64().unwrap() >= 3 && report["files"].as_u64().unwrap() > 4, "{report}");
}

#[test]
fn repair_saves_the_rest_and_lists_what_is_lost() {
    let place = Place::bare();
    drop(filled(&place));
    let lost = files(&place, "segments/tick").remove(0);
    let pack = files(&place, "packs").remove(0);
    std::fs::remove_file(&lost).unwrap();
    std::fs::remove_file(&pack).unwrap();
    for chunk in files(&place, "chunks") {
        rot(&chunk, |bytes| flip_the_middle(bytes));
    }
    // Nor is the beginning of the log left, which holds all of it.
    std::fs::remove_file(&files(&place, "wal")[0]).unwrap();
    let before = files(&place, "");
    let ended = place.run(words("repair saved --format json"));
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    for named in [&lost, &pack] {
        let name = named.file_name().unwrap().to_str().unwrap();
        assert!(ended.stderr.contains(name), "{name}: {}", ended.stderr);
    }
    assert!(ended.stderr.contains("rows of series \"tick\" from 1970"), "{}", ended.stderr);
    assert!(ended.stderr.contains("cell Book") && ended.stderr.contains("model"), "{}", ended.stderr);
    assert!(report["losses"].as_u64().unwrap() > 3, "{report}");
    assert_eq!(files(&place, ""), before, "the original is not changed");
    let saved = count(&place, "saved").as_u64().unwrap();
    assert!((10..30).contains(&saved), "{saved} rows");
    place.ok(words("--db saved verify"));
    assert_eq!(place.ok(words("--db saved slot get Book 2024-10-04 c29")).lines().count(), 2);
    let gone = place.fails(words("--db saved slot get Book 2024-10-04 c2"));
    assert!(gone.contains("was lost") && gone.contains("put it again"), "{gone}");
    // What was lost can be put again, the same bytes included, and stays.
    let db = Database::open(place.path("saved")).unwrap();
    commit(&db, 2, false);
    db.close().unwrap();
    assert_eq!(place.ok(words("--db saved slot get Book 2024-10-04 c2")).lines().count(), 2);
    place.ok(words("--db saved verify"));
}

#[test]
fn a_repair_by_which_nothing_is_lost_says_so_and_ends_well() {
    let place = Place::bare();
    drop(filled(&place));
    let manifests = files(&place, "").into_iter().filter(|path| path.to_str().unwrap().contains("MANIFEST-"));
    rot(&manifests.min().unwrap(), |bytes| flip_the_middle(bytes));
    let ended = place.run(words("repair saved --format json"));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("MANIFEST-") && ended.stderr.contains("lost: nothing"), "{}", ended.stderr);
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&report["losses"], count(&place, "saved")), (&0.into(), 30.into()));
    // Without its log it lacks what the last writer said to be durable.
    let head = place.json(words("status --format json"))["seq"].as_u64().unwrap();
    files(&place, "wal").iter().for_each(|path| std::fs::remove_file(path).unwrap());
    let ended = place.run(words("repair rest"));
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains(&format!("to {head}, which were durable")), "{}", ended.stderr);
}

#[test]
fn a_damaged_segment_closes_a_database_for_writing_alone() {
    let place = Place::bare();
    drop(filled(&place));
    let segment = files(&place, "segments/_changes").remove(0);
    rot(&segment, |bytes| bytes.truncate(bytes.len() / 2));
    let name = segment.file_name().unwrap().to_str().unwrap();
    let refused = place.fails(words("checkpoint"));
    assert!(refused.contains(name) && refused.contains("ubctl repair DEST"), "{refused}");
    assert_eq!(count(&place, "db"), 30);
    assert_eq!(place.ok(words("slot get Book 2024-10-04 c29")).lines().count(), 2);
    assert!(place.fails(words("series range _changes --format json")).contains(name));
    let status = place.json(words("status --format json"));
    assert_eq!(status["damaged_segments"], 1, "{status}");
    assert!(status["damaged_segment_1"].as_str().unwrap().contains(name), "{status}");
    assert!(place.run(words("verify")).stderr.contains(name));
}

#[test]
fn a_damaged_object_that_was_deleted_is_told_and_keeps_nobody_from_a_backup() {
    let place = Place::bare();
    let db = filled(&place);
    let mut batch = Batch::new();
    batch.delete_model(&Metadata::new("smile").with("n", 5)).unwrap();
    db.commit(batch).unwrap();
    drop(db);
    for pack in files(&place, "packs") {
        let bytes = std::fs::read(&pack).unwrap();
        if let Some(at) = bytes.windows(100).position(|bytes| bytes == [5; 100]) {
            rot(&pack, |bytes| bytes[at] ^= 1);
        }
    }
    let verified = place.run(words("verify --format json"));
    assert!(verified.code == 0 && verified.stderr.contains("nothing is lost"), "{}", verified.stderr);
    let report: serde_json::Value = serde_json::from_str(&verified.stdout).unwrap();
    assert_eq!((&report["damages"], &report["harmless"]), (&0.into(), &1.into()));
    let backup = place.run(words("backup copy --format json"));
    assert!(backup.code == 0 && backup.stderr.contains("nothing is lost"), "{}", backup.stderr);
    assert!(backup.stdout.contains("\"harmless\""), "{}", backup.stdout);
    assert_eq!(place.run(words("--db copy repair saved")).code, 0);
}

#[test]
fn repair_stops_at_damage_in_the_log_and_lists_what_lies_behind() {
    let place = Place::bare();
    drop(filled(&place));
    let stored = place.json(words("status --format json"))["checkpoint_seq"].as_u64().unwrap();
    let batches = place.json(words("wal ls --batches --format json"));
    let later =
        |batch: &&serde_json::Value| batch["first_seq"].as_u64().unwrap() > stored && batch["records"] == 1;
    let victim = batches.as_array().unwrap().iter().filter(later).nth(2).unwrap();
    let seq = victim["first_seq"].as_u64().unwrap();
    let offset = victim["offset"].as_u64().unwrap() as usize;
    rot(&place.db().join(victim["file"].as_str().unwrap()), |bytes| bytes[offset + 60] ^= 1);
    let refused = place.run(words("checkpoint"));
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("ubctl repair"), "{}", refused.stderr);
    let listed: serde_json::Value =
        serde_json::from_str(&place.run(words("wal ls --format json")).stdout).unwrap();
    let behind = listed.as_array().unwrap().iter().map(|file| file["behind"].to_string()).collect::<String>();
    assert!(behind.contains("damage"), "{behind}");
    assert_eq!(place.run(words("wal dump")).code, 1);
    let ended = place.run(words("repair saved --format json"));
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["seq"], seq - 1, "{report}");
    assert!(
        ended.stderr.contains(&format!("transactions from {seq} on; whole, and not applied")),
        "{}",
        ended.stderr
    );
    place.ok(words("--db saved verify"));
}

#[test]
fn repair_goes_without_manifests_and_images_as_far_as_it_can() {
    for part in ["images", "MANIFEST"] {
        let place = Place::bare();
        drop(filled(&place));
        for path in files(&place, "") {
            if path.to_str().unwrap().contains(part) {
                rot(&path, |bytes| flip_the_middle(bytes));
            }
        }
        if part == "MANIFEST" {
            let logs = files(&place, "wal");
            std::fs::remove_file(logs.iter().find(|path| path.ends_with("0000000001.wal")).unwrap()).unwrap();
        }
        let ended = place.run(words("repair saved"));
        if part == "images" {
            // The log holds all from the first transaction on.
            assert_eq!(ended.code, 0, "{}", ended.stderr);
            assert!(ended.stderr.contains("lost: nothing"), "{}", ended.stderr);
            assert_eq!(count(&place, "saved"), 30);
            assert_eq!(place.ok(words("--db saved slot get Book 2024-10-04 c29")).lines().count(), 2);
            place.ok(words("--db saved verify"));
            // Without that, rows alone are left.
            std::fs::remove_file(&files(&place, "wal")[0]).unwrap();
            let ended = place.run(words("repair rest"));
            assert!(ended.stderr.contains("all slots and cells"), "{}", ended.stderr);
            place.ok(words("--db rest verify"));
        } else {
            // The log does not begin with the first transaction; segments stand in.
            assert_eq!(ended.code, 1, "{}", ended.stderr);
            for part in ["MANIFEST", "all slots and cells", "assumed: no manifest is left"] {
                assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
            }
            assert_eq!(count(&place, "saved"), 30);
            place.ok(words("--db saved verify"));
        }
    }
}

#[test]
fn what_is_no_database_is_not_repaired() {
    let place = Place::new();
    assert!(place.fails(words("--db nowhere repair saved")).contains("`ubctl --db nowhere init`"));
    std::fs::create_dir(place.path("full")).unwrap();
    place.write("full/x", "");
    let held = Database::open(place.db()).unwrap();
    let error = place.fails(words("repair saved"));
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    drop(held);
    assert!(place.fails(words("repair full")).contains("not empty"));
}

#[test]
fn the_log_says_what_each_transaction_does() {
    let place = Place::new();
    place.write("a.csv", "time,x\n0,1\n1,2\n");
    drop(Database::open(place.db()).unwrap());
    let db = Database::open(place.db()).unwrap();
    let slot = SlotDefinition::new("Book").cell_key("name", ColumnType::Utf8).value("n", ColumnType::I64);
    db.define_slot(slot).unwrap();
    commit(&db, 1, false);
    let model = db.snapshot().models()[0].id;
    let mut batch = underbelly::Batch::new();
    batch.set_alias(&model, "best", 1).unwrap().pin_version(&model, 1, true).unwrap();
    batch.annotate(&model, None, "auc", 0.5).unwrap().collect_models();
    db.commit(batch).unwrap();
    drop(db);
    let dump = place.json(words("wal dump --format json"));
    let does: String = dump.as_array().unwrap().iter().map(|record| record["does"].to_string()).collect();
    let best = format!("let alias \\\"best\\\" of model {model} name 1;");
    assert!(does.contains(&best), "{best}: {does}");
    let marks = [
        "let alias \\\"best\\\" of model",
        "pin version 1 of model",
        "tell \\\"auc\\\" of model",
        "delete the versions",
    ];
    for part in ["define slot", "append 1 rows", "put model", "in slot 0", "object "].iter().chain(&marks) {
        assert!(does.contains(part), "{part}: {does}");
    }
    let seqs: Vec<u64> =
        dump.as_array().unwrap().iter().map(|record| record["seq"].as_u64().unwrap()).collect();
    assert!(seqs.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{seqs:?}");
    let one = place.json(words("wal dump --from 2 --to 2 --format json"));
    assert_eq!(one.as_array().unwrap().len(), 1);
    let files = place.json(words("wal ls --format json"));
    assert_eq!(files[0]["behind"], "");
    assert!(place.csv(words("wal ls --batches --format csv")).len() > 2);
}

/// Each file below the database's folder, with its bytes, but for what says who writes.
fn contents(place: &Place) -> Vec<(PathBuf, Vec<u8>)> {
    let stays = |path: &PathBuf| !["LOCK", "SHARED"].iter().any(|name| path.ends_with(name));
    let files = files(place, "").into_iter().filter(stays);
    files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// An opening that commits nothing leaves seq and files as they were, also where it is closed.
#[test]
fn opening_and_closing_alone_changes_nothing() {
    let place = Place::bare();
    filled(&place).close().unwrap();
    let seq = place.json(words("status --format json"))["seq"].clone();
    let before = contents(&place);
    for _ in 0..3 {
        let report = Database::open_with(place.db(), options()).unwrap().close().unwrap();
        assert_eq!((report.seq, report.bytes_written), (seq.as_u64().unwrap(), 0));
        assert!(contents(&place) == before, "{:?}", files(&place, ""));
    }
    assert_eq!(place.json(words("status --format json"))["seq"], seq);
    // What was committed is checkpointed by the close, as ever.
    let db = Database::open_with(place.db(), options()).unwrap();
    commit(&db, 77, false);
    drop(db);
    let report = Database::open_with(place.db(), options()).unwrap().close().unwrap();
    assert!(report.seq > seq.as_u64().unwrap() + 1 && report.bytes_written > 0, "{report:?}");
}

/// `wal ls` lists what is sound, names the damage on standard error, and ends with exit 1; damage that a checkpoint holds is
/// told as such, by `status` too, and stops no command.
#[test]
fn damage_in_the_log_is_named_by_the_commands_that_look_at_it() {
    let place = Place::bare();
    drop(filled(&place));
    let status = place.json(words("status --format json"));
    let stored = status["checkpoint_seq"].as_u64().unwrap();
    let batches = place.json(words("wal ls --batches --format json"));
    let batches = batches.as_array().unwrap();
    let find = |held: bool| {
        let is_held = |batch: &&serde_json::Value| {
            (batch["first_seq"].as_u64().unwrap() <= stored) == held && batch["records"].as_u64() > Some(0)
        };
        let found: Vec<_> = batches.iter().filter(is_held).collect();
        // Behind the checkpoint not the last, before it one in the file that goes on.
        if held { found[found.len() - 1] } else { found[1] }
    };
    for held in [true, false] {
        let victim = find(held);
        let (file, offset) = (victim["file"].as_str().unwrap(), victim["offset"].as_u64().unwrap());
        let path = place.db().join(file);
        let whole = std::fs::read(&path).unwrap();
        rot(&path, |bytes| bytes[offset as usize + 60] ^= 1);
        let named = format!("{file} is damaged at byte {offset}");
        for line in ["wal ls", "wal ls --batches", "verify"] {
            let ended = place.run(words(line));
            assert_eq!(ended.code, 1, "{line}");
            assert_eq!(ended.stderr.matches(&named).count(), 1, "{line}: {}", ended.stderr);
            assert_eq!(ended.stderr.matches("is damaged").count(), ended.stderr.matches(" seq ").count());
            assert!(ended.stderr.contains("1 damage found") || !held, "{line}: {}", ended.stderr);
            assert!(ended.stderr.contains("nothing is lost") == held, "{line}: {}", ended.stderr);
            assert!(ended.stdout.lines().count() > 1, "{line}: what is sound is listed");
        }
        let dump = place.run(words("wal dump --format json"));
        assert!(dump.code == 1 && dump.stderr.contains(&named), "{}", dump.stderr);
        assert!(dump.stderr.contains("nothing is lost") == held, "{}", dump.stderr);
        let told = place.run(words("status"));
        assert_eq!(told.code, i32::from(!held), "{}", told.stderr);
        if held {
            assert!(told.stdout.contains(&named), "{}", told.stdout);
            // The dump goes on behind the checkpoint.
            let records: Vec<serde_json::Value> = serde_json::from_str(&dump.stdout).unwrap();
            assert_eq!(records.last().unwrap()["seq"], status["seq"]);
        }
        std::fs::write(&path, whole).unwrap();
    }
}

/// Each damage is told once, with its place and one remedy.
#[test]
fn messages_do_not_nest() {
    let place = Place::bare();
    drop(filled(&place));
    let whole = contents(&place);
    let logs: Vec<PathBuf> = files(&place, "wal")
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "wal"))
        .collect();
    let damages: [(&str, &dyn Fn()); 3] = [
        ("a log header", &|| rot(&logs[logs.len() - 1], |bytes| bytes[50] ^= 1)),
        ("the newest image and the log", &|| {
            rot(files(&place, "images").last().unwrap(), |bytes| bytes[3] ^= 1);
            std::fs::remove_file(&logs[0]).unwrap();
        }),
        ("the newest manifest", &|| {
            rot(
                files(&place, "").iter().rfind(|path| path.to_str().unwrap().contains("MANIFEST")).unwrap(),
                |bytes| bytes[90] ^= 1,
            )
        }),
    ];
    for (what, damage) in damages {
        damage();
        for line in ["status", "checkpoint", "verify", "wal ls"] {
            let ended = place.run(words(line));
            for told in ended.stderr.lines().chain(ended.stdout.lines()) {
                assert!(told.matches("is damaged").count() <= 2, "{what}: {line}: {told}");
                assert!(told.matches("restore").count() <= 1, "{what}: {line}: {told}");
                assert!(told.matches(": wal/").count() <= 1, "{what}: {line}: {told}");
            }
        }
        for (path, bytes) in &whole {
            std::fs::remove_file(path).ok();
            std::fs::write(path, bytes).unwrap();
        }
        for path in files(&place, "").iter().filter(|path| !whole.iter().any(|(known, _)| known == *path)) {
            if !path.ends_with("LOCK") && !path.ends_with("SHARED") {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
}

/// Where a folder is a link that leads nowhere, it is the folder that is named.
#[test]
fn links_that_lead_nowhere_are_named() {
    let place = Place::new();
    for name in ["link", "other"] {
        std::os::unix::fs::symlink("nothing", place.path(name)).unwrap();
    }
    for line in ["backup link", "repair link", "--db link init", "--db link status", "--db link verify"] {
        let error = place.fails(words(line));
        assert!(error.contains("link") && !error.contains("\".\""), "{line}: {error}");
    }
}

/// A log file that is missing is told by the listing, whoever needs it.
#[test]
fn a_missing_log_file_ends_the_listing_with_1() {
    let place = Place::bare();
    let db = Database::create_with(place.db(), options()).unwrap();
    let slot = SlotDefinition::new("Book").cell_key("name", ColumnType::Utf8).value("n", ColumnType::I64);
    db.define_slot(slot).unwrap();
    for i in 1..=100 {
        commit(&db, i, false);
    }
    // Killed: everything is in the log alone.
    let dir = tempfile::tempdir().unwrap();
    let copied = dir.path().join("copy");
    std::fs::create_dir_all(copied.join("wal")).unwrap();
    for path in files(&place, "") {
        let to = copied.join(path.strip_prefix(place.db()).unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(path, to).unwrap();
    }
    let line = format!("--db {} wal ls", copied.display());
    place.ok(words(&line));
    let logs =
        files(&place, "wal").into_iter().filter(|path| path.extension().is_some_and(|end| end == "wal"));
    let logs: Vec<PathBuf> = logs.collect();
    assert!(logs.len() >= 4, "{logs:?}");
    for path in &logs[..logs.len() - 1] {
        let path = copied.join(path.strip_prefix(place.db()).unwrap());
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let told = place.fails(words(&line));
        assert!(told.contains("the file before it is missing"), "{}: {told}", path.display());
        assert!(!told.contains("nothing is lost"), "{told}");
        std::fs::write(&path, bytes).unwrap();
    }
    place.ok(words(&line));
}

/// The status tells of a write that was cut short, and of a checkpoint that was passed over.
#[test]
fn the_status_tells_what_the_opening_dropped_and_passed_over() {
    let place = Place::bare();
    drop(filled(&place));
    let log = files(&place, "wal").into_iter().rfind(|path| path.extension().is_some_and(|end| end == "wal"));
    let log = log.unwrap();
    let mut bytes = std::fs::read(&log).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let end = used.next_multiple_of(4096);
    bytes[end..end + 50].fill(7);
    std::fs::write(&log, bytes).unwrap();
    drop(Database::open_with(place.db(), options()).unwrap());
    let status = place.json(words("status --format json"));
    let torn = status["torn_tail"].as_str().unwrap();
    assert!(torn.contains("lost/") && torn.contains("wal/"), "{torn}");
    assert_eq!(status["rejected_manifests"], 0);

    let newest = files(&place, "").into_iter().rfind(|path| path.to_str().unwrap().contains("MANIFEST-"));
    let newest = newest.unwrap();
    rot(&newest, |bytes| flip_the_middle(bytes));
    drop(Database::open_with(place.db(), options()).unwrap());
    let status = place.json(words("status --format json"));
    assert_eq!((&status["torn_tail"], &status["rejected_manifests"]), (&serde_json::Value::Null, &1.into()));
    let rejected = status["rejected_manifest_1"].as_str().unwrap();
    assert!(rejected.contains(newest.file_name().unwrap().to_str().unwrap()), "{rejected}");
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A dump beside a writer lists what was durable, each with its place, and takes nothing for damage; a damaged file is told with a
/// command that names the folder, in the listing too.
#[test]
fn the_log_is_dumped_beside_its_writer() {
    let place = Place::new();
    let (stop, acked) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        // Ends the writer, also where the test fails meanwhile.
        let _stop = Stop(&stop);
        scope.spawn(|| {
            let mut n = 0i64;
            while !stop.load(Ordering::Relaxed) {
                let db = Database::open(place.db()).unwrap();
                for _ in 0..50 {
                    n += 1;
                    let mut batch = underbelly::Batch::new();
                    batch.set_variable(underbelly::Scope::Global, "n", n);
                    acked.store(db.commit(batch).unwrap().seq, Ordering::SeqCst);
                }
            }
        });
        for _ in 0..12 {
            let before = acked.load(Ordering::SeqCst);
            let ended = place.run(words("wal dump --format json"));
            assert_eq!((ended.code, &*ended.stderr), (0, ""));
            let rows: Vec<serde_json::Value> = serde_json::from_str(&ended.stdout).unwrap();
            assert!(rows.last().map_or(0, |row| row["seq"].as_u64().unwrap()) >= before);
            assert!(rows.iter().all(|row| row["file"].is_string() && row["offset"].is_u64()));
        }
    });
    rot(&place.db().join("wal/0000000001.wal"), |bytes| bytes[20] ^= 1);
    let ended = place.run(words("--db db/. wal ls"));
    assert!(ended.code == 1 && ended.stdout.contains("`ubctl --db db/. repair"), "{}", ended.stdout);
}
