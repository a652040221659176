//! Bytes that are put again, since what is stored of them is damaged, are stored anew, and the damage is over.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use underbelly::disk::Act;
use underbelly::{
    Batch, Clock, CopyError, Database, FaultyDisk, Metadata, Options, Row, SimulatedDisk, Timestamp,
};
use underbelly_tests::{define, options};

/// A clock whose holder does something once, at the nth time that others may go on.
#[derive(Default)]
pub struct Once {
    left: AtomicI64,
    act: Mutex<Option<Box<dyn FnMut() + Send>>>,
}

impl Once {
    /// Does this at that time, counted from now.
    pub fn at(&self, moment: i64, act: impl FnMut() + Send + 'static) {
        self.left.store(moment, Ordering::Relaxed);
        *self.act.lock().unwrap() = Some(Box::new(act));
    }
}

impl Clock for Once {
    fn now(&self) -> Timestamp {
        Timestamp(0)
    }

    fn give_way(&self) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 0
            && let Some(mut act) = self.act.lock().unwrap().take()
        {
            act();
        }
    }
}

/// Damages an object in a pack or chunk file, all of whose bytes are these; answers the file's name.
fn rot(disk: &SimulatedDisk, byte: u8) -> String {
    let is_of_objects = |name: &String| name.starts_with("packs/") || name.starts_with("chunks/");
    let found = disk.files().into_iter().filter(is_of_objects).find_map(|name| {
        let bytes = disk.contents(&name)?;
        let body = bytes.windows(64).position(|bytes| bytes == [byte; 64])?;
        Some((name, bytes, body))
    });
    let (pack, mut rotten, body) = found.unwrap();
    rotten[body + 100] = !byte;
    disk.overwrite(&pack, rotten);
    pack
}

/// Bytes that are put again, since what is stored of them is damaged, leave their file and are in memory. Where that is amid a
/// checkpoint, what this captured names them all the same, and has to find them.
#[test]
fn what_is_mended_amid_a_checkpoint_is_in_it() {
    fn model() -> (Metadata, Vec<u8>) {
        (Metadata::new("m").with("timestamp", Timestamp(1)), vec![7; 3_000])
    }
    fn put(db: &Database) {
        let mut batch = Batch::new();
        let (metadata, bytes) = model();
        batch.put_model(metadata, bytes);
        db.commit(batch).unwrap();
    }
    for moment in 0..40 {
        let clock = Arc::new(Once::default());
        let options = Options { workers: 0, clock: clock.clone(), ..options() };
        let disk = SimulatedDisk::new();
        let db = Arc::new(Database::create_on(Arc::new(disk.clone()), options.clone()).unwrap());
        put(&db);
        db.checkpoint().unwrap();
        rot(&disk, 7);
        define(&db).unwrap();
        let again = db.clone();
        clock.at(moment, move || put(&again));
        db.checkpoint().unwrap();
        let is_late = clock.act.lock().unwrap().take().is_some();
        drop(db);
        let db = Database::open_on(Arc::new(disk.crash()), options).unwrap();
        assert_eq!(db.recovery_report().rejected_manifests, Vec::<String>::new(), "moment {moment}");
        if is_late {
            assert!(moment > 5, "a checkpoint gives way {moment} times");
            return;
        }
        let (metadata, bytes) = model();
        let found = db.snapshot().model(&metadata).unwrap().unwrap();
        assert_eq!(found.blob().unwrap().to_vec(), bytes, "moment {moment}");
    }
}

/// A file of which some bytes were put again, since they could not be read, is written anew without them: else nobody could
/// make a backup any more.
#[test]
fn files_with_mended_bytes_are_written_anew() {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), Options { workers: 0, ..options() }).unwrap();
    let put = |of: u8, bytes: usize| {
        let mut batch = Batch::new();
        let metadata = Metadata::new("m").with("of", i64::from(of)).with("timestamp", Timestamp(1));
        batch.put_model(metadata, vec![of; bytes]);
        db.commit(batch).unwrap();
    };
    // More of the pack stays alive than goes.
    (1..=5).for_each(|of| put(of, 3_000));
    db.checkpoint().unwrap();
    let pack = rot(&disk, 3);
    let back_up = || db.backup_on(Arc::new(SimulatedDisk::new()), |_, _| ());
    assert!(matches!(back_up(), Err(CopyError::Damaged { .. })));
    put(3, 3_000);
    db.checkpoint().unwrap();
    db.checkpoint().unwrap();
    assert!(disk.contents(&pack).is_none(), "{:?}", disk.files());
    back_up().unwrap();
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
}

/// A damaged place that nothing needs any more keeps nobody from a backup: what it held was put again and is in the log, also
/// behind a crash, whose next checkpoints write the file anew; or it was deleted, and the file stays.
#[test]
fn a_damaged_place_that_nothing_needs_blocks_no_backup() {
    fn metadata(of: u8) -> Metadata {
        Metadata::new("m").with("of", i64::from(of)).with("timestamp", Timestamp(1))
    }
    // Five objects of a pack, or of a chunk file, of which one model has the third alone.
    let blob = |in_pack: bool, of: u8| match (in_pack, of) {
        (true, of) => vec![of; 3_000],
        (false, 3) => (1..=5).flat_map(|chunk| vec![chunk; 16 << 10]).collect::<Vec<u8>>(),
        (false, _) => [1, 2, 4, 5].iter().flat_map(|chunk| vec![*chunk; 16 << 10]).collect(),
    };
    for (in_pack, is_put_again) in [(true, true), (true, false), (false, true), (false, false)] {
        let disk = SimulatedDisk::new();
        let options = Options { workers: 0, chunk_bytes: 16 << 10, ..options() };
        let db = Database::create_on(Arc::new(disk.clone()), options.clone()).unwrap();
        let put = |db: &Database, of: u8| {
            let mut batch = Batch::new();
            batch.put_model(metadata(of), blob(in_pack, of));
            db.commit(batch).unwrap();
        };
        [3, 1, 2, 4, 5].iter().for_each(|of| put(&db, *of));
        db.checkpoint().unwrap();
        let file = rot(&disk, 3);
        let verified = db.verify(|_, _| ()).unwrap();
        assert!(!verified.damages.is_empty() && verified.harmless.is_empty(), "{verified:?}");
        if is_put_again {
            put(&db, 3);
        } else {
            let mut batch = Batch::new();
            batch.delete_model(&metadata(3)).unwrap();
            db.commit(batch).unwrap();
        }
        drop(db);
        let db = Database::open_on(Arc::new(disk.crash()), options.clone()).unwrap();
        let check = |db: &Database, harmless: usize| {
            let verified = db.verify(|_, _| ()).unwrap();
            assert_eq!((verified.damages, verified.harmless.len()), (Vec::new(), harmless), "{file}");
            let copy = SimulatedDisk::new();
            let backup = db.backup_on(Arc::new(copy.clone()), |_, _| ()).unwrap();
            assert_eq!(backup.verified.harmless.len(), harmless);
            let copy = Database::open_on(Arc::new(copy), options.clone()).unwrap();
            let found = copy.snapshot().model(&metadata(3)).unwrap();
            let found = found.map(|found| found.blob().unwrap().to_vec());
            assert!(found == is_put_again.then(|| blob(in_pack, 3)), "{file}");
        };
        check(&db, 1);
        db.checkpoint().unwrap();
        if !is_put_again {
            let harmless = db.verify(|_, _| ()).unwrap().harmless;
            assert!(harmless[0].contains("falls back to an older manifest"), "{harmless:?}");
        }
        db.checkpoint().unwrap();
        check(&db, usize::from(!is_put_again));
    }
}

/// Whether what is put again can be read is seen in its file: each is opened, and its directory read, once for all that a blob or
/// a transaction puts.
#[test]
fn a_file_is_opened_once_for_all_that_is_put_again() {
    let disk = FaultyDisk::new(SimulatedDisk::new());
    let options = Options { workers: 0, chunk_bytes: 4 << 10, ..options() };
    let db = Database::create_on(Arc::new(disk.clone()), options).unwrap();
    let of = |n: i64| Metadata::new("m").with("of", n).with("timestamp", Timestamp(1));
    let blob: Vec<u8> = (0..64).flat_map(|chunk| vec![chunk; 4 << 10]).collect();
    let put = || {
        let mut batch = Batch::new();
        batch.put_model(of(0), blob.clone());
        (1..=20).for_each(|n| {
            batch.put_model(of(n), vec![n as u8; 1_000]);
        });
        db.commit(batch).unwrap();
    };
    put();
    db.checkpoint().unwrap();
    let calls: Arc<Mutex<BTreeMap<String, (u64, u64)>>> = Arc::default();
    let seen = calls.clone();
    disk.watch(move |call| {
        if call.name.starts_with("packs/") || call.name.starts_with("chunks/") {
            let mut seen = seen.lock().unwrap();
            let (opened, bytes) = seen.entry(call.name.to_string()).or_default();
            *opened += u64::from(call.act == Act::Open);
            *bytes += if call.act == Act::Read { call.bytes } else { 0 };
        }
        Ok(())
    });
    put();
    let calls = calls.lock().unwrap();
    assert!(
        calls.keys().any(|name| name.starts_with("packs/"))
            && calls.keys().any(|name| name.starts_with("chunks/"))
    );
    for (name, (opened, bytes)) in &*calls {
        let length = disk.inner().contents(name).unwrap().len() as u64;
        assert!(*opened == 1 && *bytes <= length, "{calls:?}");
    }
}

/// Where a place of one file cannot be read, what is wrong with others is told all the same.
#[test]
fn an_unreadable_place_hides_no_other_damage() {
    let memory = SimulatedDisk::new();
    let disk = FaultyDisk::new(memory.clone());
    let db = Database::create_on(Arc::new(disk.clone()), Options { workers: 0, ..options() }).unwrap();
    let mut batch = Batch::new();
    batch.put_model(Metadata::new("m").with("timestamp", Timestamp(1)), vec![7; 3_000]);
    batch.append(Row::new("s", Timestamp(1)).field("x", 1)).unwrap();
    db.commit(batch).unwrap();
    db.checkpoint().unwrap();
    let pack = rot(&memory, 7);
    disk.watch(|call| match call.act == Act::Read && call.name.starts_with("segments/") {
        true => Err(std::io::Error::other("bad sector")),
        false => Ok(()),
    });
    let damages = db.verify(|_, _| ()).unwrap().damages;
    for file in ["segments/", &*pack] {
        assert!(damages.iter().any(|damage| damage.contains(file)), "{file}: {damages:?}");
    }
}

/// A blob of five chunks whose third was put again; the chunk file that holds it since.
fn put_again(memory: &SimulatedDisk, options: &Options) -> String {
    let db = Database::create_on(Arc::new(memory.clone()), options.clone()).unwrap();
    let chunks =
        || memory.files().into_iter().filter(|name| name.starts_with("chunks/")).collect::<Vec<String>>();
    let put = || {
        let mut batch = Batch::new();
        let blob: Vec<u8> = (1..=5).flat_map(|chunk| vec![chunk; 16 << 10]).collect();
        batch.put_model(Metadata::new("m").with("timestamp", Timestamp(1)), blob);
        db.commit(batch).unwrap();
    };
    put();
    db.checkpoint().unwrap();
    let before = rot(memory, 3);
    put();
    chunks().into_iter().find(|name| *name != before).unwrap()
}

/// An opening that cannot see which of two places holds an object, since the disk refuses or both are damaged, takes the newer one,
/// and keeps nobody from the rest.
#[test]
fn a_disk_that_refuses_costs_no_sound_object() {
    let options = Options { workers: 0, chunk_bytes: 16 << 10, ..options() };
    let memory = SimulatedDisk::new();
    let newer = put_again(&memory, &options);
    let memory = memory.crash();
    let untouched = memory.crash();
    let disk = FaultyDisk::new(memory.clone());
    let refused = newer.clone();
    disk.watch(move |call| match call.act == Act::Open && call.name == refused {
        true => Err(std::io::Error::from_raw_os_error(24)),
        false => Ok(()),
    });
    drop(Database::open_read_only_with(Arc::new(disk.clone()), 0).unwrap());
    let db = Database::open_on(Arc::new(disk), options.clone()).unwrap();
    db.checkpoint().unwrap();
    db.checkpoint().unwrap();
    assert!(memory.files().contains(&newer), "{:?}", memory.files());
    drop(db);
    let whole = Database::open_on(Arc::new(memory.crash()), options.clone()).unwrap();
    assert_eq!(whole.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());

    let memory = untouched;
    let mut bytes = memory.contents(&newer).unwrap();
    let body = bytes.windows(64).position(|bytes| bytes == [3; 64]).unwrap();
    bytes[body + 100] ^= 1;
    memory.overwrite(&newer, bytes);
    let db = Database::open_on(Arc::new(memory.clone()), options).unwrap();
    db.checkpoint().unwrap();
    db.checkpoint().unwrap();
    assert!(memory.files().contains(&newer), "{:?}", memory.files());
}

/// Neither openings nor readers read what was put again where it was before; the first checkpoint does.
#[test]
fn an_opening_reads_no_object_that_was_put_again() {
    let memory = SimulatedDisk::new();
    let options = Options { workers: 0, ..options() };
    let db = Database::create_on(Arc::new(memory.clone()), options.clone()).unwrap();
    let put = || {
        let mut batch = Batch::new();
        batch.put_model(Metadata::new("m").with("timestamp", Timestamp(1)), vec![7; 3_000]);
        db.commit(batch).unwrap();
    };
    put();
    db.checkpoint().unwrap();
    let pack = rot(&memory, 7);
    put();
    let disk = FaultyDisk::new(memory.crash());
    drop(db);
    let reads = Arc::new(AtomicI64::new(0));
    let seen = reads.clone();
    disk.watch(move |call| {
        seen.fetch_add(i64::from(call.act == Act::Read && call.name == pack), Ordering::Relaxed);
        Ok(())
    });
    drop(Database::open_read_only_with(Arc::new(disk.clone()), 0).unwrap());
    let db = Database::open_on(Arc::new(disk), options).unwrap();
    assert_eq!(reads.load(Ordering::Relaxed), 0);
    db.checkpoint().unwrap();
    assert_eq!(reads.load(Ordering::Relaxed), 1);
}

/// What nothing named any more and is put again is new: the file with the sound bytes of before is not written anew for it, and the
/// bytes are there, also where an opening falls back to the manifest before.
#[test]
fn what_nothing_named_is_put_again_as_if_it_were_new() {
    fn metadata(of: u8) -> Metadata {
        Metadata::new("m").with("of", i64::from(of)).with("timestamp", Timestamp(1))
    }
    for in_pack in [true, false] {
        let disk = SimulatedDisk::new();
        let options = Options { workers: 0, chunk_bytes: 16 << 10, ..options() };
        let db = Database::create_on(Arc::new(disk.clone()), options.clone()).unwrap();
        // Five objects of a pack, or of a chunk file, of which one model has the third alone.
        let blob = |of: u8| match (in_pack, of) {
            (true, of) => vec![of; 3_000],
            (false, 3) => (1..=5).flat_map(|chunk| vec![chunk; 16 << 10]).collect::<Vec<u8>>(),
            (false, _) => [1, 2, 4, 5].iter().flat_map(|chunk| vec![*chunk; 16 << 10]).collect(),
        };
        let put = |db: &Database, of: u8| {
            let mut batch = Batch::new();
            batch.put_model(metadata(of), blob(of));
            db.commit(batch).unwrap();
        };
        [3, 1, 2, 4, 5].iter().for_each(|of| put(&db, *of));
        db.checkpoint().unwrap();
        let holds = |name: &String| {
            let bytes = disk.contents(name).unwrap_or_default();
            !name.starts_with("wal/") && bytes.windows(64).any(|bytes| bytes == [3; 64])
        };
        let before = disk.files().into_iter().find(holds).unwrap();
        let mut batch = Batch::new();
        batch.delete_model(&metadata(3)).unwrap();
        db.commit(batch).unwrap();
        put(&db, 3);
        let shows = |db: &Database| {
            let found = db.snapshot().model(&metadata(3)).unwrap().unwrap();
            assert!(*found.blob().unwrap() == blob(3)[..], "in a pack: {in_pack}");
        };
        shows(&db);
        let fall_back = |disk: &SimulatedDisk| {
            let disk = disk.crash();
            let newest = disk.files().into_iter().rfind(|name| name.starts_with("MANIFEST-")).unwrap();
            let mut bytes = disk.contents(&newest).unwrap();
            bytes[70] ^= 1;
            disk.overwrite(&newest, bytes);
            let db = Database::open_on(Arc::new(disk), options.clone()).unwrap();
            assert_eq!(db.recovery_report().rejected_manifests.len(), 1);
            shows(&db);
        };
        fall_back(&disk);
        db.checkpoint().unwrap();
        fall_back(&disk);
        db.checkpoint().unwrap();
        fall_back(&disk);
        // Four of its five are in use.
        assert!(disk.contents(&before).is_some(), "{before} was written anew: {:?}", disk.files());
        assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
    }
}
