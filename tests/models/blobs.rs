//! Blobs come and go as streams, are stored once chunk by chunk, and are read in place.

use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use tempfile::TempDir;
use underbelly::disk::Act;
use underbelly::{
    Batch, CommitError, Database, Disk, Durability, FaultyDisk, Metadata, Options, Parts, ReadError,
    Retention, Row, Scope, SimulatedDisk, StorageError, StoredBlob, Timestamp,
};
use underbelly_tests::{counter_slot, day, one, options};

use super::{get, smile};

pub const CHUNK: usize = 64 << 10;

pub fn chunked() -> Options {
    Options { chunk_bytes: CHUNK, ..options() }
}

pub fn in_memory() -> (SimulatedDisk, Database) {
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), chunked()).unwrap();
    (disk, db)
}

pub fn noise(seed: u32, bytes: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..bytes).map(|_| next()).collect()
}

pub fn store(db: &Database, bytes: &[u8]) -> StoredBlob {
    let mut writer = db.blob_writer();
    // In pieces that are no multiple of anything.
    bytes.chunks(10_007).for_each(|piece| writer.write_all(piece).unwrap());
    writer.finish().unwrap()
}

pub fn put(db: &Database, metadata: Metadata, blob: &StoredBlob) {
    let mut batch = Batch::new();
    batch.put_model_stored(metadata, blob);
    db.commit(batch).unwrap();
}

pub fn chunk_files(disk: &SimulatedDisk) -> Vec<String> {
    disk.files().into_iter().filter(|name| name.starts_with("chunks/")).collect()
}

/// However the bytes come, they are the same blob, which is there whole and in every part, also after a crash.
#[test]
fn a_stream_comes_back_as_a_whole_in_parts_and_as_a_stream() {
    let (disk, db) = in_memory();
    for (n, bytes) in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK, 5 * CHUNK + 77].into_iter().enumerate() {
        let body = noise(n as u32, bytes);
        let stored = store(&db, &body);
        assert_eq!(stored.bytes(), bytes as u64);
        put(&db, smile("stream").with("n", n as i64), &stored);
        let mut batch = Batch::new();
        batch.put_model(smile("bytes").with("n", n as i64), body.clone());
        db.commit(batch).unwrap();
        for db in [&db, &Database::open_on(Arc::new(disk.crash()), chunked()).unwrap()] {
            for desk in ["stream", "bytes"] {
                let model = db.snapshot().model(&smile(desk).with("n", n as i64)).unwrap().unwrap();
                assert_eq!(
                    (model.info().bytes, model.info().content),
                    (bytes as u64, stored.content()),
                    "{bytes}"
                );
                assert_eq!(*model.blob().unwrap(), *body, "{bytes}");
                for (from, to) in [(0, 0), (0, 1), (CHUNK - 5, CHUNK + 5), (CHUNK, 3 * CHUNK), (7, bytes)] {
                    match model.range(from as u64..to as u64) {
                        Ok(part) => assert_eq!(*part, body[from..to]),
                        Err(error) => {
                            assert!(
                                (to > bytes || to < from) && matches!(error, ReadError::Range { .. }),
                                "{error}"
                            )
                        }
                    }
                }
                let mut reader = model.reader();
                let mut read = Vec::new();
                reader.seek(SeekFrom::Start(bytes as u64 / 3)).unwrap();
                reader.read_to_end(&mut read).unwrap();
                assert_eq!(read, body[bytes / 3..]);
            }
        }
    }
    db.close().unwrap();
    let verified = Database::verify_on(Arc::new(disk), |_, _| {}).unwrap();
    assert_eq!(verified.damages, Vec::<String>::new());
}

/// Of a version that changes one chunk, one chunk is written; equal chunks within a blob are written once.
#[test]
fn chunks_that_are_stored_are_not_written_again() {
    let (disk, db) = in_memory();
    let mut body = noise(1, 8 * CHUNK);
    let first = store(&db, &body);
    assert_eq!(first.bytes_written(), 8 * CHUNK as u64);
    put(&db, smile("fx"), &first);
    body[3 * CHUNK + 5] ^= 1;
    let second = store(&db, &body);
    assert_eq!(second.bytes_written(), CHUNK as u64);
    put(&db, smile("fx"), &second);
    assert_eq!(chunk_files(&disk).len(), 2);
    assert_eq!(store(&db, &vec![7; 6 * CHUNK]).bytes_written(), CHUNK as u64);
    let model = db.snapshot().model(&smile("fx")).unwrap().unwrap();
    assert_eq!(*model.blob().unwrap(), *body);
    // A chunk that two blobs share outlives the one.
    let other = store(&db, &body[..5 * CHUNK]);
    put(&db, smile("rates"), &other);
    drop((first, second, other));
    let mut batch = Batch::new();
    batch.delete_model(&smile("fx")).unwrap();
    db.commit(batch).unwrap();
    for _ in 0..3 {
        db.checkpoint().unwrap();
    }
    assert_eq!(*model.blob().unwrap(), *body, "what is lent stays");
    let crashed = Database::open_on(Arc::new(disk.crash()), chunked()).unwrap();
    let model = crashed.snapshot().model(&smile("rates")).unwrap().unwrap();
    assert_eq!(*model.blob().unwrap(), body[..5 * CHUNK]);
}

/// A file of which most chunks are dead is written anew, so that its space comes back; who reads it goes on.
#[test]
fn space_of_dead_chunks_comes_back() {
    let (disk, db) = in_memory();
    let shared = noise(3, 2 * CHUNK);
    let long: Vec<u8> = shared.iter().copied().chain(noise(4, 20 * CHUNK)).collect();
    put(&db, smile("long"), &store(&db, &long));
    put(&db, smile("short"), &store(&db, &[&shared[..], &[1; 100]].concat()));
    db.checkpoint().unwrap();
    let held = db.snapshot().model(&smile("long")).unwrap().unwrap();
    let mut batch = Batch::new();
    batch.delete_model(&smile("long")).unwrap();
    db.commit(batch).unwrap();
    for _ in 0..3 {
        db.checkpoint().unwrap();
    }
    let bytes = chunk_files(&disk).iter().map(|name| disk.contents(name).unwrap().len()).sum::<usize>();
    assert!(bytes < 4 * CHUNK, "{bytes} bytes are left");
    assert_eq!(*held.blob().unwrap(), *long);
    for db in [&db, &Database::open_on(Arc::new(disk.crash()), chunked()).unwrap()] {
        let model = db.snapshot().model(&smile("short")).unwrap().unwrap();
        assert_eq!(model.range(0..2 * CHUNK as u64).unwrap()[..], shared[..]);
    }
}

/// What was written and not put is nobody's: an opening after a crash removes it, a checkpoint does once it is dropped.
#[test]
fn a_put_that_is_cut_short_leaves_no_trace() {
    let (disk, db) = in_memory();
    put(&db, smile("fx"), &store(&db, &noise(1, 3 * CHUNK)));
    let sound = chunk_files(&disk).len();
    let mut writer = db.blob_writer();
    writer.push(&noise(2, 3 * CHUNK)).unwrap();
    let during = disk.crash();
    drop(writer);
    assert_eq!(chunk_files(&disk).len(), sound, "a dropped writer");
    let stored = store(&db, &noise(2, 3 * CHUNK));
    let after = disk.crash();
    for disk in [during, after] {
        let db = Database::open_on(Arc::new(disk.clone()), chunked()).unwrap();
        assert_eq!((db.snapshot().models().len(), chunk_files(&disk).len()), (1, sound));
    }
    for _ in 0..3 {
        db.checkpoint().unwrap();
    }
    assert_eq!(chunk_files(&disk).len(), sound + 1, "somebody may still put it");
    put(&db, smile("late"), &stored);
    drop(stored);
    drop(store(&db, &noise(5, 3 * CHUNK)));
    for _ in 0..3 {
        db.checkpoint().unwrap();
    }
    assert_eq!(chunk_files(&disk).len(), sound + 1, "nobody can put what was dropped");
    let late = db.snapshot().model(&smile("late")).unwrap().unwrap();
    assert_eq!(*late.blob().unwrap(), *noise(2, 3 * CHUNK));
}

/// A blob, rows, a cell and a variable are put together or not at all.
#[test]
fn a_stored_blob_is_put_with_everything_else_of_its_transaction() {
    let disk = SimulatedDisk::new();
    let options = || Options { buffered_delay: None, seal_after: None, ..chunked() };
    let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    db.define_slot(counter_slot("report")).unwrap();
    let stored = store(&db, &noise(1, 3 * CHUNK));
    let given_up = db.transact::<(), CommitError>(|tx| {
        tx.put_model_stored(smile("fx"), &stored)?;
        let own = tx.model(&smile("fx"))?.unwrap();
        assert_eq!((own.info().version, own.blob()?.len()), (1, 3 * CHUNK));
        tx.set_variable(Scope::Global, "trained", true);
        Err(CommitError::Abandoned { reason: "no".to_string() })
    });
    assert!(given_up.is_err());
    let everything = || {
        let mut batch = Batch::new();
        batch.put_model_stored(smile("fx"), &stored).put_slot("report", day(), ["fx"], one("n", 7).unwrap());
        batch.append(Row::new("loss", Timestamp(1)).field("x", 0.5)).unwrap();
        batch.set_variable(Scope::Global, "trained", true).durability(Durability::Buffered);
        batch
    };
    // Seqs of the model, the cell and the variable, and the number of rows.
    let shown = |db: &Database| {
        let snapshot = db.snapshot();
        let model = snapshot.model(&smile("fx")).unwrap();
        assert!(model.as_ref().is_none_or(|model| *model.blob().unwrap() == *noise(1, 3 * CHUNK)));
        let cell = snapshot.slot("report", day(), ["fx"]).unwrap();
        let variable = snapshot.variable(&Scope::Global, "trained").unwrap();
        let seqs = (model.map(|model| model.info().seq), cell.map(|cell| cell.seq), variable.map(|v| v.seq));
        (seqs, snapshot.series("loss").map_or(0, |series| series.count().unwrap()))
    };
    let nothing = ((None, None, None), 0);
    let (_, other) = in_memory();
    other.define_slot(counter_slot("report")).unwrap();
    assert!(matches!(other.commit(everything()), Err(CommitError::ForeignBlob)));
    assert_eq!((shown(&db), shown(&other)), (nothing, nothing));
    let head = db.head_seq();
    let commit = db.commit(everything()).unwrap();
    assert_eq!((commit.seq, db.head_seq()), (head + 1, head + 1), "one transaction");
    // It is visible and not durable: a crash takes all of it, and later none of it.
    let before = disk.crash();
    db.wait_durable(commit.seq).unwrap();
    let all = ((Some(commit.seq), Some(commit.seq), Some(commit.seq)), 1);
    for (disk, expected) in [(before, nothing), (disk.crash(), all)] {
        assert_eq!(shown(&Database::open_on(Arc::new(disk), options()).unwrap()), expected);
    }
    assert_eq!(shown(&db), all);
}

/// Compressed chunks are what they were, and are shared with those that are not.
#[test]
fn compressed_chunks_read_as_they_were_put() {
    let (disk, db) = in_memory();
    let body: Vec<u8> = (0..6 * CHUNK as u32).map(|i| (i >> 9) as u8).collect();
    let mut writer = db.blob_writer().compressed(true);
    writer.push(&body).unwrap();
    put(&db, smile("fx"), &writer.finish().unwrap());
    let bytes: usize = chunk_files(&disk).iter().map(|name| disk.contents(name).unwrap().len()).sum();
    assert!(bytes < CHUNK, "{bytes} bytes");
    assert_eq!(store(&db, &body).bytes_written(), 0);
    let model = db.snapshot().model(&smile("fx")).unwrap().unwrap();
    assert_eq!(*model.blob().unwrap(), *body);
    assert_eq!(*model.range(CHUNK as u64 - 3..2 * CHUNK as u64 + 3).unwrap(), body[CHUNK - 3..2 * CHUNK + 3]);
    // Small parts are lent from what was unpacked once.
    let model = db.snapshot().model(&smile("fx")).unwrap().unwrap();
    let (first, second) = (model.range(10..20).unwrap(), model.range(20..30).unwrap());
    assert_eq!(first.as_ptr_range().end, second.as_ptr());
    let mut read = Vec::new();
    let mut step = [0; 1000];
    let mut reader = model.reader();
    while let Ok(count @ 1..) = reader.read(&mut step) {
        read.extend_from_slice(&step[..count]);
    }
    assert_eq!(read, body);
}

/// A damaged chunk is told by whoever reads that part, and by nobody else.
#[test]
fn damage_is_told_where_it_is_read() {
    let (disk, db) = in_memory();
    let body = noise(1, 4 * CHUNK);
    put(&db, smile("fx"), &store(&db, &body));
    db.close().unwrap();
    let name = chunk_files(&disk).remove(0);
    let mut bytes = disk.contents(&name).unwrap();
    bytes[2 * CHUNK + 9] ^= 4;
    disk.overwrite(&name, bytes);
    let db = Database::open_on(Arc::new(disk.clone()), chunked()).unwrap();
    let model = db.snapshot().model(&smile("fx")).unwrap().unwrap();
    assert_eq!(*model.range(0..2 * CHUNK as u64).unwrap(), body[..2 * CHUNK]);
    let told = |error: ReadError| matches!(error, ReadError::Storage(StorageError::Corrupt { .. }));
    assert!(told(model.range(2 * CHUNK as u64..2 * CHUNK as u64 + 1).unwrap_err()));
    assert!(told(model.blob().unwrap_err()));
    let mut read = Vec::new();
    assert!(model.reader().read_to_end(&mut read).is_err());
    assert_eq!(read, body[..2 * CHUNK]);
    drop(db);
    assert_eq!(Database::verify_on(Arc::new(disk), |_, _| {}).unwrap().damages.len(), 1);
}

/// What was stored ahead and not put goes with the opening: the next one has cleared it away.
#[test]
fn a_blob_that_was_stored_before_this_opening_is_refused() {
    let (disk, db) = in_memory();
    let mut writer = db.blob_writer();
    writer.push(&vec![3; 3 * CHUNK]).unwrap();
    let stored = writer.finish().unwrap();
    db.close().unwrap();
    let db = Database::open_on(Arc::new(disk), chunked()).unwrap();
    let mut batch = Batch::new();
    batch.put_model_stored(smile("fx"), &stored);
    assert!(matches!(db.commit(batch), Err(CommitError::ForeignBlob)));
    assert!(db.snapshot().models().is_empty());
}

/// A writer that failed once gives no blob, whatever came before and comes after.
#[test]
fn a_blob_that_failed_once_is_never_finished() {
    struct Gone;
    impl Read for Gone {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("gone"))
        }
    }
    let (_, db) = in_memory();
    let mut writer = db.blob_writer();
    writer.push(&[1; 100]).unwrap();
    assert!(matches!(writer.copy(Gone), Err(CommitError::Source { .. })));
    assert!(matches!(writer.push(&[1; 100]), Err(CommitError::BlobFailed)));
    assert!(matches!(writer.finish(), Err(CommitError::BlobFailed)));
}

/// Many small chunk files become one, so that their number does not grow with that of the blobs; what is lent stays.
#[test]
fn small_chunk_files_are_joined() {
    let (disk, db) = in_memory();
    let of = |n: u8| smile("fx").with("n", i64::from(n));
    let bytes = |n: u8| (0..50_000u32).map(|at| (at >> 2) as u8 ^ n).collect::<Vec<u8>>();
    let chunks = || disk.files().iter().filter(|name| name.starts_with("chunks/")).count();
    for n in 0..100 {
        super::put(&db, of(n), bytes(n)).unwrap();
    }
    let (held, lent) = (db.snapshot(), get(&db, &of(7)).1);
    assert!(chunks() >= 64, "{}", chunks());
    for _ in 0..3 {
        db.checkpoint().unwrap();
    }
    assert_eq!(chunks(), 1);
    let crashed = Database::open_on(Arc::new(disk.crash()), chunked()).unwrap();
    for db in [&db, &crashed] {
        assert!((0..100).all(|n| *get(db, &of(n)).1 == bytes(n)));
        assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
    }
    assert_eq!(
        (&*lent, &*held.model(&of(9)).unwrap().unwrap().blob().unwrap()),
        (&bytes(7)[..], &bytes(9)[..])
    );
    // A damaged one stays apart, and the others are joined without it.
    for n in 100..200 {
        super::put(&db, of(n), bytes(n)).unwrap();
    }
    let name = disk.files().into_iter().filter(|name| name.starts_with("chunks/")).nth(50).unwrap();
    let mut damaged = disk.contents(&name).unwrap();
    damaged[100] ^= 1;
    disk.overwrite(&name, damaged);
    for _ in 0..4 {
        db.checkpoint().unwrap();
    }
    assert_eq!(chunks(), 2);
    let model = |n: u8| db.snapshot().model(&of(n)).unwrap().unwrap();
    let (sound, damaged): (Vec<u8>, Vec<u8>) = (0..200).partition(|n| model(*n).blob().is_ok());
    assert_eq!((sound.len(), damaged.len()), (199, 1));
    // What it is called is known all the same, and another version takes its place.
    assert_eq!(model(damaged[0]).info().bytes, 50_000);
    db.transact(|tx| tx.put_model(of(damaged[0]), bytes(255))).unwrap();
    assert_eq!((model(damaged[0]).info().version, &*model(damaged[0]).blob().unwrap()), (2, &bytes(255)[..]));
}

/// What a blob is called does not depend on what else its transaction puts.
#[test]
fn a_short_blob_has_one_hash_in_any_company() {
    let (_, db) = in_memory();
    let blob = Parts::new().with("weights", vec![7; 9_000]).to_blob();
    put(&db, smile("alone"), &store(&db, &blob));
    let mut batch = Batch::new();
    batch.put_model(smile("first").with("timestamp", Timestamp(0)), vec![1; 10_000]);
    batch.put_model(smile("second").with("timestamp", Timestamp(0)), blob.clone());
    db.commit(batch).unwrap();
    let model = |desk: &str| db.snapshot().model(&smile(desk)).unwrap().unwrap();
    assert_eq!(model("second").info().content, model("alone").info().content);
    assert_eq!(*model("second").blob().unwrap(), *blob);
}

/// A pack that is to be written anew and holds a damaged body stays as it is; checkpoints go on.
#[test]
fn a_damaged_pack_ends_no_checkpoint() {
    let (disk, db) = in_memory();
    let of = |n: u8| smile("fx").with("n", i64::from(n));
    for n in 0..10 {
        super::put(&db, of(n), vec![n; 100]).unwrap();
    }
    db.close().unwrap();
    let packs =
        || -> Vec<String> { disk.files().into_iter().filter(|name| name.starts_with("packs/")).collect() };
    let mut damaged = disk.contents(&packs()[0]).unwrap();
    damaged[5] ^= 1;
    disk.overwrite(&packs()[0], damaged);
    let db = Database::open_on(Arc::new(disk.clone()), chunked()).unwrap();
    let reads = |n: u8| db.snapshot().model(&of(n)).and_then(|model| model.unwrap().blob()).is_ok();
    let (sound, broken): (Vec<u8>, Vec<u8>) = (0..10).partition(|n| reads(*n));
    assert_eq!(broken.len(), 1);
    let mut batch = Batch::new();
    for n in &sound[1..] {
        batch.delete_model(&of(*n)).unwrap();
    }
    db.commit(batch).unwrap();
    let before = packs();
    for n in 20..23 {
        super::put(&db, of(n), vec![n; 100]).unwrap();
        db.checkpoint().unwrap();
    }
    assert!(packs().contains(&before[0]) && packs().len() > 1, "{:?}", packs());
    assert!(reads(sound[0]) && reads(22) && !reads(broken[0]));
    assert!(db.status().trouble.is_some_and(|trouble| trouble.contains("a pack stays as it is")));
}

/// The files that hold a kilobyte of one byte.
fn files_of(disk: &SimulatedDisk, byte: u8) -> Vec<String> {
    let files =
        disk.files().into_iter().filter(|name| name.starts_with("chunks/") || name.starts_with("packs/"));
    let holds = |name: &String| disk.contents(name).unwrap().windows(1_000).any(|run| run == [byte; 1_000]);
    files.filter(holds).collect()
}

/// Changes a bit of bytes that a file holds.
fn spoil(disk: &SimulatedDisk, name: &str, bytes: &[u8]) {
    let mut damaged = disk.contents(name).unwrap();
    let at = damaged.windows(bytes.len()).position(|run| run == bytes).unwrap();
    damaged[at + 9] ^= 1;
    disk.overwrite(name, damaged);
}

/// Bytes that are put again are written anew where what is stored of them is gone or damaged, and all versions of them can be
/// read again: at once, after a crash, and after checkpoints.
#[test]
fn bytes_whose_file_is_gone_or_damaged_are_written_anew() {
    let of = |n: u8| smile("fx").with("n", i64::from(n));
    // In the chunk file of a stream, in one of its own, in a pack.
    let body = |byte: u8| [vec![byte; 2 * CHUNK], noise(7, CHUNK)].concat();
    for (gone, way) in [(true, 0), (false, 0), (true, 1), (false, 1), (false, 2)] {
        let (disk, db) = in_memory();
        let bytes = |byte: u8| match way {
            0 => body(byte),
            1 => vec![byte; 2 << 20],
            _ => vec![byte; 3_000],
        };
        let put_again = |db: &Database, n: u8, byte: u8| match way {
            0 => put(db, of(n), &store(db, &bytes(byte))),
            _ => super::put(db, of(n), bytes(byte)).map(drop).unwrap(),
        };
        put_again(&db, 1, 7);
        put_again(&db, 2, 8);
        let mut batch = Batch::new();
        batch.set_retention(&of(1), Some(Retention::keep_last(1))).unwrap();
        db.commit(batch).unwrap();
        db.close().unwrap();
        let left = files_of(&disk, 7);
        for name in &left {
            match gone {
                true => disk.remove(name).unwrap(),
                false => spoil(&disk, name, &[7; 1_000]),
            }
        }
        let db = Database::open_on(Arc::new(disk.clone()), chunked()).unwrap();
        let sound = |db: &Database, n: u8, byte: u8| {
            let blob = db.snapshot().model(&of(n)).and_then(|model| model.unwrap().blob());
            blob.map(|blob| assert!(blob[..] == bytes(byte)[..])).is_ok()
        };
        // The streams share a chunk.
        assert!(!sound(&db, 1, 7) && sound(&db, 2, 8) != (gone && way == 0), "{gone} {way}");
        put_again(&db, 3, 7);
        let check = |db: &Database| {
            assert!(sound(db, 1, 7) && sound(db, 2, 8) && sound(db, 3, 7), "{gone} {way}");
        };
        check(&db);
        check(&Database::open_on(Arc::new(disk.crash()), chunked()).unwrap());
        for _ in 0..3 {
            db.checkpoint().unwrap();
            check(&db);
            check(&Database::open_on(Arc::new(disk.crash()), chunked()).unwrap());
        }
        // A version more of the one that was damaged, and its retention.
        put_again(&db, 1, 9);
        assert!(sound(&db, 1, 9) && sound(&db, 3, 7));
        db.close().unwrap();
        let found = Database::verify_on(Arc::new(disk.clone()), |_, _| {}).unwrap().damages;
        // A file that also holds what is sound stays.
        let is_left = |damage: &String| left.iter().any(|name| !gone && way != 1 && damage.contains(name));
        assert!(found.iter().all(is_left) && found.len() <= 1, "{gone} {way}: {found:?}");
        let db = Database::open_on(Arc::new(disk), chunked()).unwrap();
        assert!(sound(&db, 1, 9) && sound(&db, 3, 7));
    }
}

/// A chunk file that is gone or damaged keeps nobody from what does not lie in it, whether the log or a manifest names it; who
/// looks for damage is told.
#[test]
fn a_lost_chunk_file_keeps_nobody_from_the_rest() {
    for (is_gone, is_logged) in [(true, true), (false, true), (true, false), (false, false)] {
        let (disk, db) = in_memory();
        super::put(&db, smile("small"), vec![3; 6]).unwrap();
        put(&db, smile("large"), &store(&db, &noise(1, 3 * CHUNK)));
        let other = noise(2, 3 * CHUNK);
        put(&db, smile("other"), &store(&db, &other));
        let mut batch = Batch::new();
        batch.set_variable(underbelly::Scope::Global, "x", 1i64);
        db.commit(batch).unwrap();
        if !is_logged {
            db.checkpoint().unwrap();
        }
        drop(db);
        let disk = disk.crash();
        let name = chunk_files(&disk).remove(0);
        match is_gone {
            true => disk.remove(&name).unwrap(),
            false => disk.overwrite(&name, disk.contents(&name).unwrap()[..CHUNK].to_vec()),
        }
        let check = |view: &underbelly::View| {
            let snapshot = view.snapshot();
            assert_eq!((snapshot.models().len(), view.variables().len()), (3, 1));
            let blob = |desk: &str| snapshot.model(&smile(desk)).and_then(|model| model.unwrap().blob());
            assert_eq!((&*blob("small").unwrap(), &*blob("other").unwrap()), (&[3; 6][..], &other[..]));
            assert!(matches!(
                blob("large").unwrap_err(),
                ReadError::Storage(StorageError::Missing { .. } | StorageError::Corrupt { .. })
            ));
        };
        let mut reader = Database::open_read_only_on(Arc::new(disk.clone())).unwrap();
        check(&reader);
        let told = |damaged: &[String]| damaged.iter().filter(|damage| damage.contains(&name)).count();
        assert_eq!(told(&reader.status().unwrap().damaged), usize::from(is_logged), "{is_gone}");
        let db = Database::open_on(Arc::new(disk.clone()), chunked()).unwrap();
        check(&db);
        assert!(told(&db.verify(|_, _| ()).unwrap().damages) > 0);
        for _ in 0..2 {
            assert_eq!(told(&db.checkpoint().unwrap().damaged), 1);
            reader.refresh().unwrap();
            check(&reader);
        }
        drop(reader);
        let reader = Database::open_read_only_on(Arc::new(disk.clone())).unwrap();
        check(&reader);
        assert_eq!(told(&reader.status().unwrap().damaged), 1, "the manifest says so");
        // It keeps the manifest that names the file.
        drop(reader);
        // It is put again.
        put(&db, smile("large"), &store(&db, &noise(1, 3 * CHUNK)));
        for n in 0..2i64 {
            let mut batch = Batch::new();
            batch.set_variable(underbelly::Scope::Global, "x", n);
            db.commit(batch).unwrap();
            assert_eq!(db.checkpoint().unwrap().damaged, Vec::<String>::new());
        }
        drop(db);
        assert_eq!(Database::verify_on(Arc::new(disk), |_, _| {}).unwrap().damages, Vec::<String>::new());
    }
}

/// A reader tells of a file that is gone, or another database's, until what lies there was put again.
#[test]
fn a_reader_tells_of_a_lost_chunk_file_until_it_is_mended() {
    let large = noise(1, 3 * CHUNK);
    for is_foreign in [false, true] {
        let (disk, db) = in_memory();
        put(&db, smile("large"), &store(&db, &large));
        drop(db);
        let disk = disk.crash();
        let name = chunk_files(&disk).remove(0);
        if is_foreign {
            let (elsewhere, other) = in_memory();
            put(&other, smile("large"), &store(&other, &large));
            disk.overwrite(&name, elsewhere.contents(&chunk_files(&elsewhere)[0]).unwrap());
        } else {
            disk.remove(&name).unwrap();
        }
        let mut reader = Database::open_read_only_on(Arc::new(disk.clone())).unwrap();
        assert_eq!(reader.status().unwrap().damaged.len(), 1);
        let db = Database::open_on(Arc::new(disk), chunked()).unwrap();
        put(&db, smile("large"), &store(&db, &large));
        reader.refresh().unwrap();
        assert_eq!(reader.status().unwrap().damaged, Vec::<String>::new());
        assert!(reader.snapshot().model(&smile("large")).unwrap().unwrap().blob().unwrap()[..] == large[..]);
    }
}

/// So it is where the file goes, rots or can be read no more under a database that is open and has read it before.
#[test]
fn bytes_that_go_under_an_open_database_are_written_anew() {
    const GONE: usize = 0;
    const ROTTEN: usize = 1;
    const UNREADABLE: usize = 2;
    for (harm, way) in (GONE..=UNREADABLE).flat_map(|harm| (0..3).map(move |way| (harm, way))) {
        let disk = SimulatedDisk::new();
        let faulty = Arc::new(FaultyDisk::new(disk.clone()));
        let db = Database::create_on(faulty.clone(), chunked()).unwrap();
        // In the chunk file of a stream, in one of its own, in a pack.
        let bytes = match way {
            0 => [vec![7; CHUNK], noise(7, CHUNK)].concat(),
            1 => vec![7; 2 << 20],
            _ => vec![7; 3_000],
        };
        let put_again = |n: i64| match way {
            0 => put(&db, smile("fx").with("n", n), &store(&db, &bytes)),
            _ => super::put(&db, smile("fx").with("n", n), bytes.clone()).map(drop).unwrap(),
        };
        let read = |db: &Database, n: i64| {
            let model = db.snapshot().model(&smile("fx").with("n", n)).unwrap().unwrap();
            assert!(model.blob().unwrap()[..] == bytes[..], "{harm} {way} {n}");
        };
        put_again(1);
        db.checkpoint().unwrap();
        read(&db, 1);
        let [name] = &files_of(&disk, 7)[..] else { panic!("it is in one file") };
        match harm {
            GONE => disk.remove(name).unwrap(),
            ROTTEN => spoil(&disk, name, &[7; 1_000]),
            _ => {
                let name = name.clone();
                faulty.watch(move |call| match call.act {
                    Act::Read if call.name == name => Err(std::io::Error::other("the device gives nothing")),
                    _ => Ok(()),
                });
            }
        }
        put_again(2);
        read(&db, 2);
        let after_crash = disk.crash();
        db.close().unwrap();
        for disk in [after_crash, disk] {
            if harm == UNREADABLE && disk.files().contains(name) {
                spoil(&disk, name, &[7; 1_000]);
            }
            // Without the log's checkpoint a lost pack is what the manifest names.
            let Ok(db) = Database::open_on(Arc::new(disk), chunked()) else {
                assert!(harm == GONE && way == 2);
                continue;
            };
            read(&db, 1);
            read(&db, 2);
        }
    }
}

/// Of two chunk files that hold an object the one that can be read counts, whichever was begun first.
#[test]
fn of_two_files_with_an_object_the_sound_one_counts() {
    let (disk, db) = in_memory();
    let (own, shared) = (noise(1, CHUNK), noise(2, CHUNK));
    let blobs = [[own.clone(), shared.clone()].concat(), [shared.clone(), noise(3, CHUNK)].concat()];
    let mut writer = db.blob_writer();
    // The first chunk gives the file its number.
    writer.write_all(&blobs[0][..CHUNK + 9]).unwrap();
    put(&db, smile("late"), &store(&db, &blobs[1]));
    let sealed = |disk: &SimulatedDisk| -> Vec<String> {
        chunk_files(disk).into_iter().filter(|name| name.ends_with(".chunk")).collect()
    };
    let [late] = &sealed(&disk)[..] else { panic!("one file is whole") };
    let sound = disk.contents(late).unwrap();
    spoil(&disk, late, &shared);
    writer.write_all(&blobs[0][CHUNK + 9..]).unwrap();
    put(&db, smile("early"), &writer.finish().unwrap());
    let [early, _] = &sealed(&disk)[..] else { panic!("both are whole") };
    assert!(early < late);
    let check = |db: &Database| {
        for (name, blob) in ["early", "late"].into_iter().zip(&blobs) {
            let model = db.snapshot().model(&smile(name)).unwrap().unwrap();
            assert!(model.blob().unwrap()[..] == blob[..], "{name}");
        }
    };
    check(&db);
    // An opening reads both of the log, and so it is where the other one is damaged by then.
    let other = disk.crash();
    other.overwrite(late, sound);
    spoil(&other, early, &shared);
    // A repair loses neither, nor the sound chunk beside the damaged one.
    let saved = TempDir::new().unwrap();
    let report = Database::repair_on(Arc::new(disk.crash()), saved.path(), |_, _| ()).unwrap();
    assert!(report.losses.is_empty() && report.harmless.len() == 1, "{report:?}");
    check(&Database::open(saved.path()).unwrap());
    for disk in [disk.crash(), other] {
        let db = Database::open_on(Arc::new(disk.clone()), chunked()).unwrap();
        check(&db);
        db.checkpoint().unwrap();
        check(&Database::open_on(Arc::new(disk.crash()), chunked()).unwrap());
        db.close().unwrap();
        check(&Database::open_on(Arc::new(disk), chunked()).unwrap());
    }
}

/// Damage that was mended is told no more, and the file that held it gives its space back.
#[test]
fn mended_damage_is_told_no_more() {
    let (disk, db) = in_memory();
    let chunk = |n: u32| noise(2 * n + 1, CHUNK);
    put(&db, smile("all"), &store(&db, &(1..=6).flat_map(chunk).collect::<Vec<u8>>()));
    let [name] = &chunk_files(&disk)[..] else { panic!("it is one file") };
    let rest = [chunk(1), chunk(2), chunk(9)].concat();
    put(&db, smile("rest"), &store(&db, &rest));
    db.close().unwrap();
    spoil(&disk, name, &chunk(1));
    let db = Database::open_on(Arc::new(disk.clone()), chunked()).unwrap();
    let mut batch = Batch::new();
    batch.delete_model(&smile("all")).unwrap();
    db.commit(batch).unwrap();
    let checkpoint = || {
        let mut batch = Batch::new();
        batch.set_variable(underbelly::Scope::Global, "x", 1i64);
        db.commit(batch).unwrap();
        db.checkpoint().unwrap().damaged
    };
    let told = [checkpoint(), checkpoint()].concat();
    assert!(!told.is_empty() && told.iter().all(|damage| damage.contains(name)), "{told:?}");
    put(&db, smile("again"), &store(&db, &rest));
    for _ in 0..3 {
        assert_eq!(checkpoint(), Vec::<String>::new());
    }
    assert!(!disk.files().contains(name), "what was sound in it was moved");
    for name in ["rest", "again"] {
        assert!(db.snapshot().model(&smile(name)).unwrap().unwrap().blob().unwrap()[..] == rest[..]);
    }
}

/// A chunk file of which some bytes were put again, since they could not be read, is written anew without them, however much of it
/// is alive.
#[test]
fn a_chunk_file_with_mended_bytes_is_written_anew() {
    let (disk, db) = in_memory();
    let chunk = |n: u32| noise(2 * n + 1, CHUNK);
    let all = (1..=6).flat_map(chunk).collect::<Vec<u8>>();
    put(&db, smile("all"), &store(&db, &all));
    db.checkpoint().unwrap();
    let [name] = &chunk_files(&disk)[..] else { panic!("it is one file") };
    spoil(&disk, name, &chunk(1));
    put(&db, smile("again"), &store(&db, &all));
    for n in 0..3i64 {
        let mut batch = Batch::new();
        batch.set_variable(underbelly::Scope::Global, "x", n);
        db.commit(batch).unwrap();
        db.checkpoint().unwrap();
    }
    assert!(!disk.files().contains(name), "what was sound in it was moved");
    db.backup_on(Arc::new(SimulatedDisk::new()), |_, _| ()).unwrap();
    assert!(db.snapshot().model(&smile("all")).unwrap().unwrap().blob().unwrap()[..] == all[..]);
}

/// The same of two packs: what is put again is in the newer, while what else is damaged in the older keeps that.
#[test]
fn of_two_packs_with_an_object_the_newer_counts() {
    let (disk, db) = in_memory();
    let blob = |n: u32| noise(2 * n + 1, 3_000);
    for n in 1..=5 {
        super::put(&db, smile(&n.to_string()), blob(n)).unwrap();
    }
    db.checkpoint().unwrap();
    db.close().unwrap();
    let pack = disk.files().into_iter().find(|name| name.starts_with("packs/")).unwrap();
    spoil(&disk, &pack, &blob(1));
    spoil(&disk, &pack, &blob(2));
    let db = Database::open_on(Arc::new(disk.clone()), chunked()).unwrap();
    super::put(&db, smile("again"), blob(1)).unwrap();
    db.checkpoint().unwrap();
    db.close().unwrap();
    assert!(disk.files().contains(&pack), "it is not written anew");
    let db = Database::open_on(Arc::new(disk), chunked()).unwrap();
    for name in ["1", "again"] {
        assert!(
            db.snapshot().model(&smile(name)).unwrap().unwrap().blob().unwrap()[..] == blob(1)[..],
            "{name}"
        );
    }
    assert!(db.snapshot().model(&smile("2")).is_err());
}

/// A blob that is given up after the close of its database takes no file from the next writer.
#[test]
fn a_blob_given_up_after_the_close_removes_nothing() {
    let dir = TempDir::new().unwrap();
    let open = || Database::open_with(dir.path(), chunked()).unwrap();
    Database::create_with(dir.path(), chunked()).unwrap().close().unwrap();
    let db = open();
    let kept = db.clone();
    let mut late = kept.blob_writer();
    late.push(&noise(1, 3 << 20)).unwrap();
    db.close().unwrap();
    // It takes the rest of that away, and says nothing of the number.
    open().close().unwrap();
    let next = open();
    let mut blob = next.blob_writer();
    let bytes = noise(2, 3 << 20);
    blob.push(&bytes).unwrap();
    drop(late);
    let stored = blob.finish().unwrap();
    let mut batch = Batch::new();
    batch.put_model_stored(smile("fx"), &stored);
    next.commit(batch).unwrap();
    assert!(get(&next, &smile("fx")).1[..] == bytes[..]);
}
